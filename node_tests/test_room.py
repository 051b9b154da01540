"""What others can make grow on this disk, and what is told when the system is short of something."""

from __future__ import annotations

import errno
import os
import stat
import struct
from collections import namedtuple

import pytest

from disk import access, digests, looking, making, maps, parts, room
from disk.library import Library
from disk.scanner import Scanner
from node_tests.stage.folders import Content
from protocol.content import listing
from protocol.content.listing import FolderEntry, decode_listing, encode_folder
from protocol.content.parts import Destination
from protocol.content.troubles import ErrorKind, LibraryError, trouble
from protocol.exchange import lookout
from protocol.results import DownloadDone, Notice, Stopped


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "shared"


@pytest.fixture
def lib(folder):
    with Library(str(folder)) as library:
        yield library


def tree_of(folder):
    return sorted(
        os.path.relpath(os.path.join(path, name), folder)
        for path, folders, files in os.walk(folder) for name in folders + files if ".node" not in path
        if name != ".node")  # fmt: skip


def raw_listing(*folders):
    paths = [path.encode() for path in folders]
    return struct.pack(">4sI", b"LST1", len(paths)) + b"".join(
        struct.pack(">BHQ", 1, len(path), 0) + path for path in paths)  # fmt: skip


# ---- Folders of a listing


def test_folders_that_a_listing_implies_count_as_its_entries_when_it_is_read_and_when_it_is_made(monkeypatch):
    monkeypatch.setattr(listing, "FOLDER_ENTRIES_MAX", 16)
    fits = [f"{number}/b/c/d" for number in range(4)]
    assert len(decode_listing(raw_listing(*fits))[0]) == 4
    assert decode_listing(encode_folder(FolderEntry(path, 0, b"", True) for path in fits))
    too_deep = [*fits[:3], "3/b/c/d/e"]
    with pytest.raises(LibraryError, match="more than 16 files and folders"):
        decode_listing(raw_listing(*too_deep))
    with pytest.raises(LibraryError, match="more than 16 files and folders") as refusal:
        encode_folder(FolderEntry(path, 0, b"", True) for path in too_deep)
    assert refusal.value.kind is ErrorKind.TOO_BIG


def test_a_listing_of_deep_folders_is_refused_before_more_than_its_bound_is_in_memory():
    names = ["%05d/" % number + "/".join("abcdefghijklmn") for number in range(100_000)]
    with pytest.raises(LibraryError, match="more than 100000 files and folders"):
        decode_listing(raw_listing(*names))


def test_folders_are_made_in_slices_and_others_have_the_disk_between(lib, folder, monkeypatch):
    monkeypatch.setattr(making, "FOLDERS_AT_ONCE", 2)
    names = ["top", "top/a/b", "top/c", "top/d/e", "top/f"]
    assert lib.make_folders(b"id", names) is None
    assert tree_of(folder) == ["top", "top/a", "top/a/b"]
    assert lib.make_folders(b"id", names) is None
    assert lib.make_folders(b"id", names) == []
    assert tree_of(folder) == ["top", "top/a", "top/a/b", "top/c", "top/d", "top/d/e", "top/f"]


def test_folders_of_a_cancelled_download_are_removed_again_but_not_what_the_person_had(lib, folder, monkeypatch):
    monkeypatch.setattr(making, "FOLDERS_AT_ONCE", 2)
    (folder / "top" / "own").mkdir(parents=True)
    names = ["top", "top/a/b", "top/c", "top/d", "top/e"]
    assert lib.make_folders(b"id", names) is None and lib.make_folders(b"id", names) is None
    (folder / "top" / "c" / "mine").write_bytes(b"mine")
    calls = 0
    while not lib.unmake_folders(b"id"):
        calls += 1
    assert calls and tree_of(folder) == ["top", "top/c", "top/c/mine", "top/own"]
    assert lib.unmake_folders(b"id")


def test_folders_for_which_the_disk_has_no_place_leave_nothing_behind(lib, folder, monkeypatch):
    mkdir, left = os.mkdir, [4]

    def scarce(path, *arguments, **keywords):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, "no inodes")
        mkdir(path, *arguments, **keywords)

    monkeypatch.setattr(os, "mkdir", scarce)
    with pytest.raises(LibraryError) as failure:
        lib.make_folders(b"id", ["top", "top/a/b/c/d"])
    assert failure.value.kind is ErrorKind.FULL and tree_of(folder) == []


def test_one_bad_place_spoils_no_other_folder(lib, folder):
    (folder / "top").mkdir()
    (folder / "top" / "a").write_bytes(b"a file")
    troubles = lib.make_folders(b"id", ["top", "top/a/x", "top/b"])
    assert len(troubles) == 1 and "stands where a folder should be" in troubles[0]
    assert tree_of(folder) == ["top", "top/a", "top/b"]
    with pytest.raises(LibraryError, match="stands where a folder should be"):
        lib.make_folders(b"id", ["top/a", "top/a/b"])


# ---- What is kept for others


DiskUsage = namedtuple("DiskUsage", "total used free")


@pytest.fixture
def disk(lib, folder, monkeypatch):
    """A disk of 20 MB with nothing else on it; what is begun counts as soon as it is written."""

    def usage(_):
        size = sum(os.stat(os.path.join(path, file)).st_blocks * 512
                   for path, _, files in os.walk(folder) for file in files)  # fmt: skip
        return DiskUsage(20_000_000, size, 20_000_000 - size)

    monkeypatch.setattr(room.shutil, "disk_usage", usage)
    return usage


def begin_for(lib, person, content, destination=Destination.PASSING):
    lib.begin(content.file_id, content.size, content.digests, destination, "junk", person=person)
    return content


def fill(lib, content):
    for index in range(content.count):
        assert lib.write_piece(content.file_id, index, content.piece(index))


def test_what_passes_through_and_the_cache_share_one_quota_of_the_disk(lib, disk):
    fill(lib, begin_for(lib, b"ana", Content(900_000, 1), Destination.CACHE))
    fill(lib, begin_for(lib, b"bo", Content(900_000, 2)))
    fill(lib, begin_for(lib, b"cy", Content(900_000, 3)))
    with pytest.raises(LibraryError, match="No room for what others fetch: needs .* allowed") as refusal:
        begin_for(lib, b"di", Content(3_100_000, 4))
    assert refusal.value.kind is ErrorKind.FULL
    assert disk(None).used < 3_000_000


def test_who_has_most_passing_through_gives_way_to_another_and_hears_why(lib, disk):
    greedy = [begin_for(lib, b"greedy", Content(900_000, seed)) for seed in range(3)]
    with pytest.raises(LibraryError, match="No room for what others fetch"):
        begin_for(lib, b"greedy", Content(900_000, 3))
    honest = begin_for(lib, b"honest", Content(900_000, 4))
    fill(lib, honest)
    with pytest.raises(LibraryError, match="It was dropped") as dropped:
        fill(lib, greedy[0])
    assert dropped.value.kind is ErrorKind.FULL
    fill(lib, greedy[1])


def test_what_is_kept_for_others_goes_first_when_the_person_needs_the_room(lib, disk):
    theirs = begin_for(lib, b"bo", Content(2_900_000, 1))
    fill(lib, theirs)
    own = Content(18_000_000, 2)
    assert own.size > lib.free_bytes()
    lib.begin(own.file_id, own.size, own.digests, label="own.bin")
    assert lib.free_bytes() >= own.size
    with pytest.raises(LibraryError, match="It was dropped"):
        fill(lib, theirs)


def test_others_leave_a_floor_of_the_disk_free_and_what_the_persons_own_downloads_still_need(lib, disk):
    own = Content(17_000_000, 1)
    lib.begin(own.file_id, own.size, own.digests, label="own.bin")
    with pytest.raises(LibraryError, match="No room"):
        begin_for(lib, b"bo", Content(2_500_000, 2))
    begin_for(lib, b"bo", Content(1_000_000, 3))


def test_a_full_disk_costs_what_is_others_before_it_stops_the_persons_download(lib, disk, monkeypatch):
    theirs, own = begin_for(lib, b"bo", Content(1_000_000, 1)), Content(1_000_000, 2)
    lib.begin(own.file_id, own.size, own.digests, label="own.bin")
    write, theirs_path = parts.write_at, lib._parts.path(theirs)

    def full(descriptor, data, offset):
        if os.path.exists(theirs_path):
            raise OSError(errno.ENOSPC, "full")
        write(descriptor, data, offset)

    monkeypatch.setattr(parts, "write_at", full)
    fill(lib, own)
    assert not os.path.exists(theirs_path)


def test_what_a_person_takes_over_from_others_is_no_more_counted_as_theirs(lib, disk):
    taken = begin_for(lib, b"bo", Content(2_900_000, 1))
    lib.begin(taken.file_id, taken.size, taken.digests, label="mine.bin")
    begin_for(lib, b"cy", Content(2_000_000, 2))
    fill(lib, taken)


# ---- Causes


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
def test_a_file_that_cannot_be_opened_for_want_of_means_is_not_called_changed(lib, folder, monkeypatch, number):
    content = Content(100_000)
    (folder / "a.bin").write_bytes(content.data)
    lib.adopt(Scanner(str(folder)).run_once().added)

    def scarce(*arguments, **keywords):
        raise OSError(number, "scarce")

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", scarce)
        with pytest.raises(LibraryError) as refusal:
            lib.read(content.file_id, 0, 0, 100)
        assert refusal.value.kind is ErrorKind.SHORT
    assert bytes(lib.read(content.file_id, 0, 0, 100)) == content.data[:100]
    (folder / "a.bin").unlink()
    lib._files.close()
    with pytest.raises(LibraryError) as refusal:
        lib.read(content.file_id, 0, 0, 100)
    assert refusal.value.kind is ErrorKind.CHANGED


def test_want_of_descriptors_takes_no_share_away_and_is_said_as_such(folder, monkeypatch):
    folder.mkdir()
    (folder / "a.bin").write_bytes(b"a")
    scanner = Scanner(str(folder))
    assert len(scanner.run_once().added) == 1

    def scarce(*arguments, **keywords):
        raise OSError(errno.EMFILE, "too many")

    with monkeypatch.context() as patch:
        patch.setattr(os, "listdir", scarce)
        found = scanner.run_once()
        assert not found.removed
        assert found.warnings == ["Too many files are open: the shared folder is looked at again later."]
        assert not scanner.run_once().warnings
    (folder / "b.bin").write_bytes(b"b")
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", scarce)
        assert not scanner.run_once().removed
    assert len(scanner.run_once().added) == 1


def test_kept_descriptors_are_given_up_where_there_are_no_more(tmp_path, monkeypatch):
    for name in "ab":
        (tmp_path / name).write_bytes(b"x")
    files, opened = access.OpenFiles(), os.open
    files.get(str(tmp_path / "a"))

    def scarce(*arguments, **keywords):
        if files._open:
            raise OSError(errno.EMFILE, "too many")
        return opened(*arguments, **keywords)

    monkeypatch.setattr(os, "open", scarce)
    assert os.read(files.get(str(tmp_path / "b")), 1) == b"x"
    files.close()


# ---- Causes, from one node to the other


def short_at_first(node, verb, times, number=errno.EMFILE):
    """The node's library is short of descriptors, the first times that it is asked."""
    real, left = getattr(node.library, verb), [times]

    def asked(*arguments, **keywords):
        left[0] -= 1
        if left[0] >= 0:
            raise trouble(OSError(number, "scarce"), "read a shared file")
        return real(*arguments, **keywords)

    setattr(node.library, verb, asked)


def test_a_provider_short_of_descriptors_for_a_moment_serves_a_little_later_and_nobody_is_troubled(lab):
    bo = lab.node("bo", shared={"lab.iso": bytes(3_000_000)})
    cy = lab.node("cy")
    short_at_first(bo, "read", 20)
    assert isinstance(cy.fetched("lab.iso"), DownloadDone)
    assert not [notice for notice in cy.told(Notice) if "changed" in notice.text or "read" in notice.text]


@pytest.mark.parametrize("number, words", [
    (errno.EMFILE, "bo has too many files open at the moment, or no memory, and nobody else has it"),
    (errno.EACCES, "bo has no permission to read it, and nobody else has it"),
    (errno.EIO, "the disk of bo reports an error, and nobody else has it"),
])  # fmt: skip
def test_who_fetches_hears_why_the_other_end_cannot_read(lab, number, words):
    bo = lab.node("bo", shared={"lab.iso": bytes(300_000)})
    cy = lab.node("cy")
    short_at_first(bo, "read", 1 << 30, number)
    stopped = cy.fetched("lab.iso")
    assert isinstance(stopped, Stopped) and stopped.reason == words


def test_a_program_that_knows_no_causes_reads_that_the_other_end_cannot_read(lab, monkeypatch):
    monkeypatch.setattr(lookout, "UNREADABLE_CAUSES", {})
    bo = lab.node("bo", shared={"lab.iso": bytes(300_000)})
    cy = lab.node("cy")
    short_at_first(bo, "read", 1 << 30, errno.EIO)
    stopped = cy.fetched("lab.iso")
    assert isinstance(stopped, Stopped) and stopped.reason == "bo cannot read it, and nobody else has it"


@pytest.mark.parametrize("verb", ["begin", "finish", "copy_local"])
@pytest.mark.parametrize("name", ["lab.iso", "lab"])
def test_a_download_for_which_this_node_is_short_of_descriptors_waits_and_goes_on(lab, verb, name):
    same = bytes(200_000)
    lab.node("bo", shared={"lab.iso": b"x" * 300_000, "lab/a.iso": same, "lab/b.iso": same})
    cy = lab.node("cy")
    short_at_first(cy, verb, 2)
    assert isinstance(cy.fetched(name), DownloadDone)
    assert len([one for one in cy.told(Notice) if "waits" in one.text and "too many files are open" in one.text]) <= 1


def test_a_folder_that_is_cancelled_while_its_folders_are_made_leaves_none_of_them(lab, monkeypatch):
    monkeypatch.setattr(making, "FOLDERS_AT_ONCE", 1)
    bo = lab.node("bo")
    for number in range(30):
        os.makedirs(os.path.join(bo.folder, "lab", str(number)))
    bo.scan()
    cy = lab.node("cy", disk_delay=0.05)
    lab.run(1)
    number = cy.fetch("lab").transfer
    top = os.path.join(cy.folder, "lab")
    assert lab.world.run_until(lambda: os.path.isdir(top) and len(os.listdir(top)) > 5, lab.world.now + 20)
    cy.do("cancel", number, lab.world.now)
    assert len(os.listdir(top)) < 30
    lab.run(10)
    assert not os.path.exists(top)


def test_digests_and_maps_are_not_thrown_away_for_want_of_descriptors(folder, monkeypatch):
    content = Content(100_000)
    with Library(str(folder)) as lib:
        lib.begin(content.file_id, content.size, content.digests, label="x")
        fill(lib, content)
    (folder / "a.bin").write_bytes(b"a")
    os.utime(folder / "a.bin", (1e9, 1e9))
    scanner = Scanner(str(folder))
    scanner.run_once()
    scanner.close()
    database = folder / ".node" / "digests.db"
    before = database.read_bytes()

    def scarce(*arguments, **keywords):
        raise OSError(errno.EMFILE, "too many")

    def no_database(*arguments, **keywords):
        raise digests.sqlite3.OperationalError("unable to open database file")

    with monkeypatch.context() as patch:
        patch.setattr(maps, "open_regular", scarce)
        lib = Library(str(folder))
        lib.open()
        assert "too many files are open" in lib.notice
        lib.close()
        connect = digests.sqlite3.connect
        patch.setattr(digests.sqlite3, "connect",
                      lambda *args, **keys: Broken(connect(*args, **keys), no_database))  # fmt: skip
        scanner = Scanner(str(folder))
        assert len(scanner.run_once().added) == 1
    assert database.read_bytes() == before
    with Library(str(folder)) as lib:
        assert [part.verified_bytes for part in lib.parts()] == [100_000]


class Broken:
    """A database that was opened, and can do nothing."""

    def __init__(self, real, execute):
        self.close, self.execute = real.close, execute


# ---- What failed, and what follows from it


def refusing(monkeypatch, module, name, number, is_meant):
    """That call fails with this error, where it is meant."""
    call = getattr(module, name)

    def refused(*args, **how):
        if is_meant(*args):
            raise OSError(number, os.strerror(number))
        return call(*args, **how)

    monkeypatch.setattr(module, name, refused)


@pytest.mark.parametrize("number, said", [
    (errno.ENOENT, []), (errno.EACCES, ["cannot be read and is not shared"]),
    (errno.EIO, ["cannot be read, for the disk reports an error, and is not shared"])])  # fmt: skip
def test_of_a_folder_that_cannot_be_listed_the_true_cause_is_told_and_of_one_that_went_nothing(
        lib, folder, monkeypatch, number, said):
    (folder / "talks" / "inner").mkdir(parents=True)
    (folder / "talks" / "a").write_bytes(b"a")
    refusing(monkeypatch, os, "listdir", number, lambda path: str(path).endswith("inner"))
    found = Scanner(str(folder)).run_once()
    assert found.warnings == ['"talks/inner" ' + each + "." for each in said]


@pytest.mark.skipif(not hasattr(os, "O_DIRECTORY"), reason="no folders are flushed here")
def test_a_name_that_was_not_written_is_said_and_a_folder_that_cannot_be_flushed_is_not(lib, folder, monkeypatch):
    content = Content(1000)

    def finish(name, number):
        lib.begin(content.file_id, content.size, content.digests)
        lib.write_piece(content.file_id, 0, content.piece(0))
        with monkeypatch.context() as patch:
            refusing(patch, os, "fsync", number, lambda descriptor: stat.S_ISDIR(os.fstat(descriptor).st_mode))
            return lib.finish(content.file_id, name)

    assert finish("a", errno.EINVAL).path == str(folder / "a")
    with pytest.raises(LibraryError, match="the disk reports an error"):
        finish("b", errno.EIO)


def test_a_file_that_cannot_be_read_is_no_reason_not_to_save_one_beside_it(lib, folder, monkeypatch):
    content = Content(1000)
    (folder / "a").write_bytes(bytes(1000))
    lib.begin(content.file_id, content.size, content.digests)
    lib.write_piece(content.file_id, 0, content.piece(0))
    status = os.stat(folder / "a")
    is_broken = lambda descriptor, *_: os.path.samestat(os.fstat(descriptor), status)  # noqa: E731
    refusing(monkeypatch, looking, "digest_range", errno.EIO, is_broken)
    assert lib.finish(content.file_id, "a").path == str(folder / "a (2)")
