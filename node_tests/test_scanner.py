"""The scanner: what it finds in the shared folder, what it hashes and when, and how it tells it."""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import sqlite3
import stat
import sys
import tempfile
import time
import types
from pathlib import Path

import pytest

from disk import digests as kept_digests
from disk import grown, hashing, library, passing
from disk.access import fingerprint_of, open_regular
from disk.digests import DIGESTS_FILE
from disk.grown import EARLIER_TIME, GROWN_INTERVAL
from disk.library import Library
from disk.passing import BREATH_TIME, PASS_INTERVAL_MIN
from disk.scanner import Scanner
from node_tests.stage.amounts import amount
from node_tests.stage.folders import (
    GIB,
    MIB,
    POSIX,
    Content,
    bytes_of,
    entries_of,
    fetch,
    fill,
    needs_posix,
    run_python,
    world_readable,
)
from protocol.content import names
from protocol.content.pieces import digests_of, identity_of, piece_count_of, piece_size_of
from protocol.content.shares import ScanResult, SharedFile, SharesById
from protocol.content.troubles import LibraryError


def names_of(files: list) -> list[str]:
    return sorted(file.name for file in files if file.listed)


def test_scan_lists_files_and_folders_once_and_then_rests(tmp_path):
    fill(tmp_path, a=b"one", b=b"", photos__x=b"two", photos__deep__y=b"two")
    (tmp_path / "photos" / "nothing").mkdir()
    (tmp_path / "empty").mkdir()
    scanner = Scanner(str(tmp_path))
    result = scanner.run_once()
    assert names_of(result.added) == ["a", "b", "photos"] and not result.warnings
    photos = next(file for file in result.added if file.is_folder)
    assert (photos.file_count, photos.total_size) == (2, 6)
    assert photos.file_id == identity_of(len(photos.listing), digests_of(photos.listing))
    two = identity_of(3, hashlib.sha256(b"two").digest())
    assert entries_of(photos.listing) == [
        ("deep/y", 3, two, False), ("nothing", 0, b"", True), ("x", 3, two, False)]
    assert not scanner.run_once() and scanner.next_pass_in() >= PASS_INTERVAL_MIN


def test_change_is_a_removal_and_an_addition_for_the_file_and_its_folder(tmp_path):
    fill(tmp_path, photos__x=b"old", photos__y=b"same")
    scanner = Scanner(str(tmp_path))
    scanner.run_once()
    fill(tmp_path, photos__x=b"newer")
    result = scanner.run_once()
    assert sorted(file.name for file in result.removed) == sorted(file.name for file in result.added) == [
        "photos", "photos/x"]
    (tmp_path / "photos" / "x").unlink()
    (tmp_path / "photos" / "y").unlink()
    result = scanner.run_once()
    assert sorted(file.name for file in result.removed) == ["photos", "photos/x", "photos/y"] and not result.added


def test_folder_taken_away_empties_the_list_and_back_it_refills(tmp_path):
    shared = tmp_path / "shared"
    fill(shared, a=b"1", d__b=b"2")
    scanner = Scanner(str(shared))
    first = scanner.run_once()
    os.rename(shared, tmp_path / "away")
    gone = scanner.run_once()
    assert sorted(file.name for file in gone.removed) == sorted(file.name for file in first.added)
    assert len(gone.warnings) == 1 and not scanner.run_once()
    os.rename(tmp_path / "away", shared)
    back = scanner.run_once()
    assert names_of(back.added) == names_of(first.added) and not back.warnings
    os.rename(shared, tmp_path / "away")
    assert len(scanner.run_once().warnings) == 1


@needs_posix
def test_what_is_no_plain_file_is_skipped_with_one_warning_of_each_kind(tmp_path, monkeypatch):
    shared = tmp_path / "shared"
    fill(shared, a=b"1", d__b=b"2")
    for number in range(3):
        os.mkfifo(shared / f"fifo{number}")
        (shared / f"link{number}").symlink_to("/etc/passwd")
        (shared / f"a:{number}").write_bytes(b"")
    (shared / "d" / "up").symlink_to("..")
    (shared / ("x" * 255)).write_bytes(b"")
    with open(os.fsencode(shared) + b"/\xff\xfe", "wb"):
        pass
    (shared / ".hidden").write_bytes(b"no")
    (shared / "node.txt").mkdir()
    monkeypatch.chdir(shared)
    monkeypatch.setattr(names, "IS_STRICT", True)       # a system that keeps no "a:0"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        scanner = Scanner(str(shared))
        result = scanner.run_once()
    assert names_of(result.added) == ["a", "d"]
    assert sorted(warning.split(" ", 1)[1] for warning in result.warnings) == [
        "has a name that other systems cannot keep and is not shared (and 3 more).",
        "has too long a name, or lies too deep, and is not shared.",
        "is a link and is not shared (and 3 more).", "is no ordinary file and is not shared (and 3 more)."]
    assert all(warning.isprintable() for warning in result.warnings)
    assert not scanner.run_once()


@pytest.mark.skipif(not hasattr(os, "mknod") or not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root")
def test_device_in_the_folder_is_skipped_and_never_read(tmp_path):
    """B04: /dev/zero has no end."""
    try:
        os.mknod(tmp_path / "zero", 0o666 | stat.S_IFCHR, os.makedev(1, 5))
    except OSError as error:
        pytest.skip("no device can be made here: %s" % error)
    fill(tmp_path, a=b"1")
    result = Scanner(str(tmp_path)).run_once()
    assert names_of(result.added) == ["a"] and result.warnings == ['"zero" is no ordinary file and is not shared.']
    with pytest.raises(OSError):
        open_regular(str(tmp_path / "zero"))


def test_terabyte_of_nothing_keeps_no_other_file_waiting(tmp_path):
    """B07: a sparse file of 1 TiB, which takes no room and hours to hash."""
    fill(tmp_path, **{"small%d" % number: b"%d" % number for number in range(10)})
    with open(tmp_path / "huge", "wb") as file:
        file.truncate(amount(1 << 40, 1 << 34))
    ticks = iter(range(1_000_000))
    scanner = Scanner(str(tmp_path), clock=lambda: next(ticks) / 2)
    assert len(scanner.run_once().added) == 10 and scanner.next_pass_in() == 0
    fill(tmp_path, new=b"new")
    assert names_of(scanner.run_once().added) == ["new"]


def test_file_too_large_for_its_pieces_to_be_told_is_skipped_with_one_warning(tmp_path, monkeypatch):
    """Of more than 16 TiB a piece has places that no message can tell: nobody could ever have the end of it."""
    monkeypatch.setattr("disk.walk.FILE_SIZE_MAX", 5)
    fill(tmp_path, small=b"12345", large=b"123456")
    result = Scanner(str(tmp_path)).run_once()
    assert names_of(result.added) == ["small"]
    assert result.warnings == ['"large" is larger than 17.6 TB and is not shared.']


@needs_posix
def test_unreadable_file_is_skipped_with_one_warning(tmp_path):
    said = run_python("""
        folder = sys.argv[1]
        os.makedirs(folder + "/closed")
        for name in "abc":
            open(f"{folder}/{name}", "w").write(name)
        os.chmod(folder + "/a", 0); os.chmod(folder + "/b", 0); os.chmod(folder + "/closed", 0)
        if os.getuid() == 0:
            os.setuid(65534)
        scanner = Scanner(folder)
        result = scanner.run_once()
        print([file.name for file in result.added], result.warnings, bool(scanner.run_once()))
        """, world_readable(tmp_path / "shared"))
    assert said == """['c'] ['"closed" cannot be read and is not shared (and 2 more).'] False"""


@needs_posix
def test_file_swapped_for_a_fifo_or_link_after_the_walk_does_not_hang(tmp_path):
    for make in (os.mkfifo, lambda path: os.symlink("/etc/passwd", path), os.mkdir):
        path = tmp_path / "x"
        make(path)
        with pytest.raises(OSError):
            open_regular(str(path))
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()


class Appending:
    """A stop flag that appends to a file each time it is asked: a writer that never rests."""

    def __init__(self, path: Path, step: int = 100_000) -> None:
        self.path, self.step = path, step
        self.asked = 0

    def is_set(self) -> bool:
        self.asked += 1
        with open(self.path, "ab") as file:
            file.write(bytes(self.step))
        return False


def test_file_that_grows_for_ever_is_still_changing_and_soon_left(tmp_path):
    fill(tmp_path, log=bytes(20 * MIB), a=b"1")
    growing = Appending(tmp_path / "log")
    scanner = Scanner(str(tmp_path), growing)
    result = scanner.run_once()
    assert names_of(result.added) == ["a"] and growing.asked < 12
    assert result.warnings == ['"log" is still changing; it is shared when it rests.']
    assert not scanner.run_once()
    resting = Scanner(str(tmp_path))
    assert names_of(resting.run_once().added) == ["a", "log"]


def test_a_log_that_grows_all_the_time_is_announced_as_far_as_it_came(tmp_path):
    fill(tmp_path, log=bytes(30 * MIB))
    growing = Appending(tmp_path / "log", 100)
    whole = Scanner(str(tmp_path), growing).run_once()
    log = whole.added[0]
    assert log.name == "log" and 30 * MIB < log.size < 30 * MIB + 100 * growing.asked and not whole.warnings


def test_what_a_log_was_is_served_on_for_a_while_and_a_new_announcement_has_its_interval(tmp_path):
    fill(tmp_path, log=b"1")
    now = 0.0
    scanner = Scanner(str(tmp_path), clock=lambda: now)
    first = scanner.run_once().added[0]
    fill(tmp_path, log=b"12")
    grown = scanner.run_once()
    assert [(file.file_id, file.listed) for file in grown.removed] == [(first.file_id, True)]
    assert sorted((file.size, file.listed) for file in grown.added) == [(1, False), (2, True)]
    fill(tmp_path, log=b"123")
    assert not scanner.run_once()
    now += GROWN_INTERVAL
    assert sorted((file.size, file.listed) for file in scanner.run_once().added) == [(2, False), (3, True)]
    now += EARLIER_TIME - 1
    assert [file.size for file in scanner.run_once().removed] == [1]
    fill(tmp_path, log=b"9")            # begun anew
    cut = scanner.run_once()
    assert sorted(file.size for file in cut.removed) == [2, 3] and [file.size for file in cut.added] == [1]
    fill(tmp_path, log=b"91")
    scanner.run_once()
    fill(tmp_path, log=b"")             # and again, so soon after it has grown
    assert sorted(file.size for file in scanner.run_once().removed) == [1, 2]
    now += GROWN_INTERVAL
    fill(tmp_path, log=b"new")
    assert [file.size for file in scanner.run_once().added] == [3]


def test_a_touched_file_is_never_away_and_hashed_once_more(tmp_path):
    fill(tmp_path, a=b"same")
    scanner = Scanner(str(tmp_path))
    first = scanner.run_once().added[0]
    os.utime(tmp_path / "a", ns=(1, 1))
    again = scanner.run_once()
    assert [file.file_id for file in again.removed] == [file.file_id for file in again.added] == [first.file_id]
    assert not scanner.run_once()


def test_first_files_are_reported_while_a_big_one_is_hashed(tmp_path):
    fill(tmp_path, big=bytes(8 * MIB), a=b"1", d__b=b"2")
    clock = iter(range(10_000))
    scanner = Scanner(str(tmp_path), clock=lambda: next(clock) / 50)
    steps = []
    whole = scanner.run_once(lambda step: steps.append(names_of(step.added)))
    assert steps[0] != [] and steps[-1] == ["big"]
    assert sorted(sum(steps, [])) == names_of(whole.added) == ["a", "big", "d"]


def test_new_file_does_not_wait_for_a_huge_one(tmp_path):
    fill(tmp_path, huge=bytes(6 * MIB))
    ticks = iter(range(100_000))
    scanner = Scanner(str(tmp_path), clock=lambda: float(next(ticks)))
    assert not scanner.run_once().added and scanner.next_pass_in() == 0
    fill(tmp_path, small=b"1")
    assert names_of(scanner.run_once().added) == ["small"]
    for _ in range(100):
        result = scanner.run_once()
        if result.added:
            break
    assert result.added[0].digests == digests_of(bytes(6 * MIB))


class StopAfter:
    def __init__(self, count: int) -> None:
        self.left = count

    def is_set(self) -> bool:
        self.left -= 1
        return self.left < 0


def test_stop_flag_ends_a_scan_in_mid_file(tmp_path):
    fill(tmp_path, big=bytes(8 * MIB), a=b"1")
    stop = StopAfter(10)
    assert names_of(Scanner(str(tmp_path), stop).run_once().added) == ["a"]
    assert stop.left == -1


def test_files_shared_from_elsewhere(tmp_path):
    fill(tmp_path, shared__a=b"1", elsewhere__f=b"2", elsewhere__d__g=b"3", shared__d__inner=b"4")
    scanner = Scanner(str(tmp_path / "shared"))
    for path in ("elsewhere/f", "elsewhere/d", "elsewhere/d"):
        scanner.add_path(str(tmp_path / path))
    assert names_of(scanner.run_once().added) == ["a", "d", "d", "f"]
    (tmp_path / "elsewhere" / "f").unlink()
    assert names_of(scanner.run_once().removed) == ["f"]
    for path in ("nothing", "shared/../.node"):
        with pytest.raises(LibraryError):
            scanner.add_path(str(tmp_path / path))
    if POSIX:
        os.mkfifo(tmp_path / "fifo")
        with pytest.raises(LibraryError):
            scanner.add_path(str(tmp_path / "fifo"))


def test_the_shared_folder_what_is_in_it_and_what_holds_it_are_shared_already(tmp_path):
    fill(tmp_path, home__shared__a=b"1", home__shared__d__inner=b"2", home__shared2__b=b"3")
    scanner = Scanner(str(tmp_path / "home" / "shared"))
    before = names_of(scanner.run_once().added)
    for path in ("home/shared", "home/shared/a", "home/shared/d/inner", "home", "."):
        with pytest.raises(LibraryError, match="is shared already"):
            scanner.add_path(str(tmp_path / path))
    assert not scanner.run_once() and before == ["a", "d"]
    scanner.add_path(str(tmp_path / "home" / "shared2"))
    assert names_of(scanner.run_once().added) == ["shared2"]


@pytest.mark.skipif(not POSIX or os.geteuid() == 0, reason="permissions of Unix, which bind everyone but root")
def test_what_cannot_be_read_is_refused_at_once(tmp_path):
    fill(tmp_path, shared__a=b"1", locked__f=b"2", secret=b"3")
    for path, mode in (("locked", 0), ("secret", 0)):
        (tmp_path / path).chmod(mode)
    try:
        for path in ("locked", "locked/f", "secret"):
            with pytest.raises(LibraryError, match="cannot be read: this user has no permission"):
                Scanner(str(tmp_path / "shared")).add_path(str(tmp_path / path))
    finally:
        (tmp_path / "locked").chmod(0o700)


def test_finished_download_is_not_hashed_again(lib, monkeypatch):
    scanner = Scanner(lib.folder)
    scanner.adopt(fetch(lib, Content(100_000), "a").shared)
    monkeypatch.setattr(scanner, "_hash_file", None)
    assert not scanner.run_once()


def test_folder_being_filled_is_listed_once_it_is_whole(lib):
    scanner = Scanner(lib.folder)
    scanner.hold("photos")
    scanner.adopt(fetch(lib, Content(10, 1), "photos/1").shared)
    assert not scanner.run_once()
    scanner.adopt(fetch(lib, Content(10, 2), "photos/2").shared)
    scanner.release("photos")
    added = scanner.run_once().added
    assert names_of(added) == ["photos"] and added[0].file_count == 2


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="names differ by case here")
def test_twins_by_case_leave_a_folder_that_others_can_hold(tmp_path):
    fill(tmp_path, d__README=b"1", d__readme=b"2", d__other=b"3")
    result = Scanner(str(tmp_path)).run_once()
    photos = next(file for file in result.added if file.is_folder)
    assert [entry.path for entry in entries_of(photos.listing)] == ["README", "other"]
    assert len(result.warnings) == 1


def test_thousands_of_small_files_are_quick_and_need_one_look_later(tmp_path):
    for number in range(2000):
        (tmp_path / f"{number}").write_bytes(b"%d" % number)
    scanner = Scanner(str(tmp_path))
    assert len(scanner.run_once().added) == 2000
    assert not scanner.run_once()


def test_slow_walk_makes_the_next_pass_rarer(tmp_path):
    ticks = iter(range(100))
    scanner = Scanner(str(tmp_path), clock=lambda: next(ticks) / 2)
    scanner.run_once()
    assert scanner.next_pass_in() == 20 * 0.5


@pytest.fixture
def memory_folder(tmp_path):
    """A folder in memory where there is one: reading holes there costs nothing."""
    if not os.access("/dev/shm", os.W_OK):
        yield tmp_path
    else:
        with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
            yield Path(folder)


@needs_posix
def test_sparse_file_beyond_4_gib_is_hashed_and_served_at_its_end(memory_folder):
    tmp_path = memory_folder
    size = amount(4 * GIB, GIB // 16) + 5 * MIB
    piece, last = piece_size_of(size), piece_count_of(size) - 1
    rest = size - last * piece
    with open(tmp_path / "sparse", "wb") as file:
        file.truncate(size)
        file.seek(size - 3)
        file.write(b"end")
    shared = Scanner(str(tmp_path), clock=lambda: 0.0).run_once().added[0]
    zeros = hashlib.sha256(bytes(piece)).digest()
    assert shared.digests == zeros * last + hashlib.sha256(bytes(rest - 3) + b"end").digest()
    with Library(str(tmp_path)) as lib:
        lib.adopt([shared])
        assert lib.read(shared.file_id, last, rest - 4, 4) == b"\0end"



# ---- Digests kept between runs ---------------------------------------------------------------------------------------

LONG_AGO = 1_600_000_000_000_000_000


class Readings:
    """How many bytes were hashed of which file; `digest_range` is what the scanner reads by."""

    def __init__(self, monkeypatch) -> None:
        self.count = 0
        self._digest_range = hashing.digest_range
        for module in (hashing, grown):
            monkeypatch.setattr(module, "digest_range", self._read)

    def _read(self, descriptor, offset, length, tick):
        self.count += 1
        return self._digest_range(descriptor, offset, length, tick)


def aged(folder: Path, **files: bytes) -> None:
    """Files that were not changed a moment ago."""
    fill(folder, **files)
    for name in files:
        os.utime(folder / name.replace("__", "/"), ns=(LONG_AGO, LONG_AGO))


@pytest.mark.parametrize("removed, added", [(0, 0), (1, 0), (0, 7), (3, 3), (4, 2), (7, 8)])
def test_a_report_in_slices_is_the_same_in_the_same_order(removed, added):
    whole = ScanResult(list("abcdefgh"[:added]), list("ABCDEFG"[:removed]), ["a warning"])
    parts = list(whole.slices(3))
    assert sum((part.removed for part in parts), []) == whole.removed
    assert sum((part.added for part in parts), []) == whole.added
    assert sum((part.warnings for part in parts), []) == whole.warnings
    assert all(len(part.removed) + len(part.added) <= 3 for part in parts)
    is_adding = [bool(part.added) for part in parts]
    assert is_adding == sorted(is_adding) and not any(part.removed for part in parts[is_adding.count(False) + 1:])


def test_a_content_is_shared_until_it_has_left_its_last_place():
    def one(file_id, path, name=""):
        return SharedFile(name or path, path, 1, 0, 0, b"", file_id)

    shares = SharesById()
    for shared in (one(b"x", "a"), one(b"y", "b"), one(b"x", "c"), one(b"x", "a", "new"), one(b"y", "b", "new")):
        shares.add(shared)
    assert list(shares) == [b"x", b"y"]
    assert [(shared.path, shared.name) for shared in shares.all()] == [("a", "new"), ("c", "c"), ("b", "new")]
    assert [shares.at(*place) is not None for place in ((b"x", "c"), (b"x", "b"), (b"y", "b"), (b"y", "c"))] == [
        True, False, True, False]
    shares.discard(b"x", "b")
    shares.discard(b"x", "a")
    assert [shared.path for shared in shares.places(b"x")] == ["c"]
    shares.discard(b"x", "c")
    shares.discard(b"y", "another")
    shares.discard(b"z", "a")
    assert list(shares) == [b"y"] and b"x" not in shares and not shares.places(b"x")


@pytest.mark.parametrize("count, is_spared", [(2, False), (3, True)])
def test_the_garbage_collector_is_spared_what_a_long_report_has(tmp_path, monkeypatch, count, is_spared):
    frozen = []
    monkeypatch.setattr(passing.gc, "freeze", lambda: frozen.append(True))
    monkeypatch.setattr(passing, "REPORT_LONG", 3)
    fill(tmp_path, **{"f%d" % number: b"%d" % number for number in range(count)})
    scan_of(tmp_path)
    assert bool(frozen) == is_spared


def scan_of(folder: Path, stop=None) -> ScanResult:
    """A node's first look: it is opened, looks, and ends."""
    with Library(str(folder)):
        scanner = Scanner(str(folder), stop)
        result = scanner.run_once()
        scanner.close()
    return result


def test_a_restart_hashes_nothing_twice(tmp_path, monkeypatch):
    aged(tmp_path, a=b"one", d__b=b"two", d__c=bytes(3 * MIB), empty=b"")
    first = scan_of(tmp_path)
    readings = Readings(monkeypatch)
    again = scan_of(tmp_path)
    assert readings.count == 0
    assert sorted(again.added, key=lambda file: file.path) == sorted(first.added, key=lambda file: file.path)


def test_a_start_that_reads_nothing_reports_on_the_way_rests_and_can_be_stopped(tmp_path):
    names = ["f%02d" % number for number in range(20)]
    aged(tmp_path, **{name: name.encode() for name in names})
    scan_of(tmp_path)
    ticks, steps, rests = iter(range(10_000)), [], []
    with Library(str(tmp_path)):
        scanner = Scanner(str(tmp_path), clock=lambda: next(ticks) / 50, rest=rests.append)
        scanner.run_once(lambda step: steps.append(names_of(step.added)))
        scanner.close()
        assert len(steps) > 2 and sum(steps, []) == names
        assert len(rests) > len(names), "also while nothing is read"
        stopped = Scanner(str(tmp_path), StopAfter(30))     # 20 are looked at first
        assert names_of(stopped.run_once().added) == names[:10]
        stopped.close()


@pytest.mark.parametrize("change", ["content", "time", "another file", "none"])
def test_only_what_changed_meanwhile_is_hashed_again(tmp_path, monkeypatch, change):
    aged(tmp_path, a=b"one", b=b"two")
    scan_of(tmp_path)
    path = tmp_path / "a"
    if change == "content":
        path.write_bytes(b"ONE")
    elif change == "time":
        os.utime(path, ns=(LONG_AGO, LONG_AGO + 1))
    elif change == "another file":      # of the same size and time: its inode tells
        (tmp_path / "new").write_bytes(b"ONE")
        os.utime(tmp_path / "new", ns=(LONG_AGO, LONG_AGO))
        os.replace(tmp_path / "new", path)
    readings = Readings(monkeypatch)
    found = {file.name: file.digests for file in scan_of(tmp_path).added}
    assert found == {name: hashlib.sha256((tmp_path / name).read_bytes()).digest() for name in "ab"}
    assert readings.count == (0 if change == "none" or (change == "another file" and not POSIX) else 1)


def test_a_file_written_a_moment_ago_may_still_change_within_its_time_and_is_hashed_again(tmp_path, monkeypatch):
    fill(tmp_path, a=b"one")
    scan_of(tmp_path)
    status = os.stat(tmp_path / "a")
    (tmp_path / "a").write_bytes(b"ONE")
    os.utime(tmp_path / "a", ns=(status.st_mtime_ns, status.st_mtime_ns))
    assert scan_of(tmp_path).added[0].digests == hashlib.sha256(b"ONE").digest()


def test_what_a_download_finished_is_known_after_a_restart(lib, folder, monkeypatch):
    content = Content(300_000)
    scanner = Scanner(str(folder))
    scanner.adopt(fetch(lib, content, "x.bin").shared)
    scanner.close()
    lib.close()
    readings = Readings(monkeypatch)
    assert [file.file_id for file in scan_of(folder).added] == [content.file_id] and readings.count == 0


def test_a_huge_file_goes_on_where_the_last_run_was_stopped(tmp_path, monkeypatch):
    aged(tmp_path, big=bytes_of(8 * MIB))
    pieces = piece_count_of(8 * MIB)
    assert not scan_of(tmp_path, StopAfter(pieces // 2)).added
    readings = Readings(monkeypatch)
    found = scan_of(tmp_path).added
    assert found[0].digests == digests_of(bytes_of(8 * MIB)) and 0 < readings.count < pieces


def test_a_folder_that_was_moved_is_known_again(tmp_path, monkeypatch):
    aged(tmp_path / "here", a=b"one", d__b=b"two")
    scan_of(tmp_path / "here")
    os.rename(tmp_path / "here", tmp_path / "there")
    readings = Readings(monkeypatch)
    assert names_of(scan_of(tmp_path / "there").added) == ["a", "d"] and readings.count == 0


@pytest.mark.parametrize("damage", ["noise", "empty", "another table", "a wrong digest", "a folder", "a link"])
def test_kept_digests_that_are_damaged_are_no_more_than_hashed_anew(tmp_path, damage):
    aged(tmp_path / "s", a=b"one", b=b"two")
    scan_of(tmp_path / "s")
    path = tmp_path / "s" / ".node" / DIGESTS_FILE
    if damage == "noise":
        path.write_bytes(bytes_of(10_000))
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage in ("another table", "a wrong digest"):
        with contextlib.closing(sqlite3.connect(path)) as database:
            if damage == "another table":
                database.executescript("DROP TABLE digests; CREATE TABLE digests (path TEXT)")
            else:
                database.execute("UPDATE digests SET digests = zeroblob(32) WHERE path = 'a'")
                database.commit()
    else:
        path.unlink()
        path.mkdir() if damage == "a folder" else path.symlink_to(tmp_path / "outside.db")
    expected = {"a": hashlib.sha256(b"one").digest(), "b": hashlib.sha256(b"two").digest()}
    for _ in range(2):
        assert {file.name: file.digests for file in scan_of(tmp_path / "s").added} == expected
    assert not (tmp_path / "outside.db").exists()


def test_kept_digests_of_files_that_are_gone_are_dropped_when_there_are_many(tmp_path, monkeypatch):
    monkeypatch.setattr(kept_digests, "DIGESTS_ROWS_MAX", 5)
    for number in range(4):
        aged(tmp_path, **{"a%d_%d" % (number, one): b"%d" % one for one in range(4)})
        scan_of(tmp_path)
        for path in tmp_path.glob("a*"):
            path.unlink()
    with contextlib.closing(sqlite3.connect(tmp_path / ".node" / DIGESTS_FILE)) as database:
        assert database.execute("SELECT COUNT(*) FROM digests").fetchone()[0] <= 8


def test_without_sqlite_files_are_hashed_and_shared_all_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(kept_digests, "sqlite3", None)
    aged(tmp_path, a=b"one")
    for _ in range(2):
        assert names_of(scan_of(tmp_path).added) == ["a"]


def test_hashing_yields_to_transfers(tmp_path):
    fill(tmp_path, big=bytes(4 * MIB))
    now, rests, busy = [0.0], [], [True]

    def clock() -> float:
        now[0] += 0.002     # each look at the clock stands for some work
        return now[0]

    def rest(seconds: float) -> None:
        now[0] += seconds
        rests.append(seconds)

    scanner = Scanner(str(tmp_path), clock=clock, is_disk_busy=lambda: busy[0], rest=rest)
    assert names_of(scanner.run_once().added) == ["big"]
    assert sum(rests) > now[0] / 2, "it took most of the time while others wanted the disk"
    busy[0], rests[:] = False, []
    fill(tmp_path, another=bytes(4 * MIB))
    assert names_of(scanner.run_once().added) == ["another"] and set(rests) == {BREATH_TIME}


def test_the_disk_is_busy_for_a_moment_after_each_piece(lib, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(library, "time", types.SimpleNamespace(monotonic=lambda: now[0]))
    assert not lib.is_busy()
    content = Content(100_000)
    lib.begin(content.file_id, content.size, content.digests, label="x")
    lib.write_piece(content.file_id, 0, content.piece(0))
    assert lib.is_busy()
    now[0] += 2 * library.BUSY_TIME
    assert not lib.is_busy()
    lib.read(content.file_id, 0, 0, 10)
    assert lib.is_busy()


# ---- Changes that size and time do not tell ----


def rewritten(path: Path, data: bytes) -> None:
    """Write this into a file, and leave it its size and time; the clock of the disk may stand still for a moment."""
    before = os.stat(path)
    assert len(data) == before.st_size
    for _ in range(1000):
        with open(path, "r+b") as file:
            file.write(data)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        if os.stat(path).st_ctime_ns != before.st_ctime_ns:
            return
        time.sleep(0.001)
    raise AssertionError("this disk keeps no change times")


@pytest.mark.skipif(os.name == "nt", reason="Windows does not tell when a file was changed")
@pytest.mark.parametrize("is_restarted", [False, True])
def test_a_change_that_keeps_size_and_time_is_found_and_one_of_the_mode_alone_is_not_told(tmp_path, is_restarted):
    for name in ("talks/a.bin", "talks/b.bin", "c.bin"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(name.encode() * 1000)
        os.utime(path, (1e9, 1e9))
    with Library(str(tmp_path)):
        scanner = Scanner(str(tmp_path))
        before = {one.name: one for one in scanner.run_once().added}
        rewritten(tmp_path / "c.bin", b"other" * 1000)
        rewritten(tmp_path / "talks" / "a.bin", b"a" * 11000)
        os.chmod(tmp_path / "talks" / "b.bin", 0o600)
        if is_restarted:
            scanner.close()
            scanner = Scanner(str(tmp_path))
        result = scanner.run_once()
        after = {one.name: one for one in result.added}
        assert after["c.bin"].file_id == identity_of(5000, digests_of(b"other" * 1000)) != before["c.bin"].file_id
        assert after["talks/a.bin"].file_id != before["talks/a.bin"].file_id
        assert after["talks"].file_id != before["talks"].file_id
        if is_restarted:
            assert after["talks/b.bin"].file_id == before["talks/b.bin"].file_id
        else:
            assert {one.name for one in result.removed} == {"c.bin", "talks/a.bin", "talks"} == set(after)
        assert not scanner.run_once()
        scanner.close()


@pytest.mark.skipif(os.name == "nt", reason="Windows does not tell when a file was changed")
def test_a_huge_file_whose_mode_was_changed_stays_shared_while_it_is_hashed_again(tmp_path, monkeypatch):
    monkeypatch.setattr(passing, "HASH_TIME_MAX", 0.0)
    data = b"".join(bytes([number]) * (1 << 20) for number in range(20))
    (tmp_path / "huge.bin").write_bytes(data)
    ticks = iter(range(10**6))
    scanner = Scanner(str(tmp_path), clock=lambda: float(next(ticks)))
    for _ in range(200):
        scanner.run_once()
        if scanner.known.files:
            break
    path = str(tmp_path / "huge.bin")
    before = scanner.known.files[path]
    os.chmod(path, 0o600)
    told = [scanner.run_once() for _ in range(60)]
    assert not any(result.added or result.removed for result in told) and scanner.known.files[path] is before
    assert not scanner.known.doubted and scanner.known.changed_ns[path] == os.stat(path).st_ctime_ns


def test_digests_that_an_older_program_kept_are_believed(tmp_path):
    (tmp_path / "a.bin").write_bytes(b"a" * 1000)
    os.utime(tmp_path / "a.bin", (1e9, 1e9))
    with Library(str(tmp_path)):
        status = os.stat(tmp_path / "a.bin")
        digests = digests_of(b"a" * 1000)
        with contextlib.closing(sqlite3.connect(tmp_path / ".node" / DIGESTS_FILE)) as database:
            database.execute("CREATE TABLE digests (path TEXT PRIMARY KEY, size INTEGER, mtime_ns INTEGER, "
                             "inode INTEGER, hashed_ns INTEGER, id BLOB, digests BLOB) WITHOUT ROWID")
            database.execute("INSERT INTO digests VALUES (?, ?, ?, ?, ?, ?, ?)", (
                "a.bin", 1000, status.st_mtime_ns, status.st_ino, time.time_ns(), identity_of(1000, digests), digests))
            database.commit()
        store = kept_digests.DigestStore(str(tmp_path))
        assert store.find(str(tmp_path / "a.bin"), fingerprint_of(status), 5) == digests
        store.note_changed(str(tmp_path / "a.bin"), 7)
        store.close()
        for changed_ns, found in ((7, digests), (5, b"")):
            assert store.find(str(tmp_path / "a.bin"), fingerprint_of(status), changed_ns) == found
        store.close()
