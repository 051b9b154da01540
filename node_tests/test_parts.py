"""Other programs, full disks and power cuts at the node's own files: parts, their maps, the cache, files that come."""

from __future__ import annotations

import concurrent.futures
import errno
import mmap
import os
import shutil
from pathlib import Path

import pytest

import disk.access
import disk.looking
import disk.parts
import disk.small
from disk import library
from disk.access import write_at
from disk.library import Library
from disk.sequential import SequentialWriter
from node_tests.stage.folders import Content, fetch, keep, needs_posix, restarted, tree_of
from protocol.content.listing import FolderEntry
from protocol.content.parts import Destination
from protocol.content.pieces import has_piece
from protocol.content.troubles import ErrorKind, LibraryError

PIECE = 65536
CONTENT = Content(6 * PIECE + 100)


def part_of(lib: Library, content: Content = CONTENT) -> Path:
    return Path(lib.folder, ".node", "parts", content.file_id.hex())


def write(lib: Library, content: Content, indexes) -> None:
    for index in indexes:
        assert lib.write_piece(content.file_id, index, content.piece(index))


def begin(lib: Library, content: Content = CONTENT, **how) -> list[int]:
    """Which pieces are here, once all of it is looked at."""
    while (bitmap := lib.begin(content.file_id, content.size, content.digests, label="lab.iso", **how)) is None:
        pass
    return [index for index in range(content.count) if has_piece(bitmap, index)]


def finish(lib: Library, content: Content = CONTENT, name: str = "lab.iso") -> library.Finished:
    while (finished := lib.finish(content.file_id, name)) is None:
        pass
    return finished


def overwrite(path: Path, mapped: mmap.mmap) -> None:
    with open(path, "r+b") as file:
        file.seek(PIECE)
        file.write(b"X" * 1000)


def overwrite_and_set_the_time_back(path: Path, mapped: mmap.mmap) -> None:
    times = path.stat()
    overwrite(path, mapped)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def cut(path: Path, mapped: mmap.mmap) -> None:
    os.truncate(path, PIECE + 1)


def lengthen(path: Path, mapped: mmap.mmap) -> None:
    with open(path, "ab") as file:
        file.write(b"X" * 1000)


def exchange(path: Path, mapped: mmap.mmap) -> None:
    other = path.with_name("other")
    other.write_bytes(path.read_bytes()[:PIECE] + b"X" * 1000)
    os.replace(other, path)


def write_by_a_mapping(path: Path, mapped: mmap.mmap) -> None:
    mapped[PIECE:PIECE + 3] = b"XXX"


CHANGES = [overwrite, overwrite_and_set_the_time_back, cut, lengthen, exchange, write_by_a_mapping]


# ---- A part that another program changes ----------------------------------------------------------------------------

@needs_posix
@pytest.mark.parametrize("after", [3, CONTENT.count])
@pytest.mark.parametrize("change", CHANGES)
def test_a_part_that_another_program_changed_never_becomes_the_file_and_only_what_is_wrong_comes_again(
        lib, folder, change, after):
    begin(lib)
    write(lib, CONTENT, range(after))
    with open(part_of(lib), "r+b") as file:
        mapped = mmap.mmap(file.fileno(), 0)
    change(part_of(lib), mapped)
    write(lib, CONTENT, range(after, CONTENT.count))
    if change is not lengthen:
        with pytest.raises(LibraryError) as changed:
            finish(lib)
        assert changed.value.kind is ErrorKind.CHANGED and "changed here by another program" in changed.value.sentence
        assert tree_of(folder) == {}
        here = begin(lib)
        assert 0 in here and 1 not in here
        write(lib, CONTENT, set(range(CONTENT.count)) - set(here))
    finish(lib)
    assert tree_of(folder) == {"lab.iso": CONTENT.data} and lib.parts() == []


@pytest.mark.parametrize("change", [overwrite, cut])
def test_a_changed_part_goes_on_in_the_same_process_with_what_is_right_of_it(lib, change):
    begin(lib)
    write(lib, CONTENT, range(CONTENT.count))
    change(part_of(lib), None)
    here = begin(lib)
    assert here == ([0, *range(2, 7)] if change is overwrite else [0])
    assert lib.parts()[0].verified_bytes == sum(len(CONTENT.piece(index)) for index in here)


def test_a_part_that_only_looks_changed_costs_a_hashing_and_no_piece(lib):
    begin(lib)
    write(lib, CONTENT, range(5))
    os.utime(part_of(lib), (1_000_000_000, 1_000_000_000))      # as a disk does that keeps times to two seconds
    assert begin(lib) == [0, 1, 2, 3, 4]
    os.utime(part_of(lib), (1_000_000_002, 1_000_000_002))
    write(lib, CONTENT, range(5, CONTENT.count))
    assert finish(lib).shared.size == CONTENT.size


def test_a_part_that_was_deleted_is_begun_anew(lib, folder):
    begin(lib)
    write(lib, CONTENT, range(CONTENT.count))
    part_of(lib).unlink()
    with pytest.raises(LibraryError) as gone:
        finish(lib)
    assert gone.value.kind is ErrorKind.GONE
    assert begin(lib) == []
    write(lib, CONTENT, range(CONTENT.count))
    finish(lib)
    assert tree_of(folder) == {"lab.iso": CONTENT.data}


def test_a_map_that_was_deleted_does_not_end_the_download(lib):
    begin(lib)
    write(lib, CONTENT, range(3))
    Path(f"{part_of(lib)}.map").unlink()
    lib._files.close()
    with pytest.raises(LibraryError):
        write(lib, CONTENT, [3])
    assert {0, 1, 2} <= set(begin(lib))
    write(lib, CONTENT, range(3, CONTENT.count))
    finish(lib)


def test_of_a_changed_part_no_wrong_piece_is_served_on(lib):
    begin(lib)
    write(lib, CONTENT, range(4))
    overwrite(part_of(lib), None)
    assert bytes(lib.read(CONTENT.file_id, 2, 5, 10)) == CONTENT.piece(2)[5:15]
    with pytest.raises(LibraryError) as missing:
        lib.read(CONTENT.file_id, 1, 5000, 10)      # not even a right byte of it
    assert missing.value.kind is ErrorKind.MISSING


def test_a_change_between_two_slices_of_the_last_look_is_seen(lib, folder, monkeypatch):
    monkeypatch.setattr(disk.parts, "SLICE_BYTES", 2 * PIECE)
    begin(lib)
    write(lib, CONTENT, range(CONTENT.count))
    assert lib.finish(CONTENT.file_id, "lab.iso") is None
    overwrite(part_of(lib), None)
    with pytest.raises(LibraryError) as changed:
        finish(lib)
    assert changed.value.kind is ErrorKind.CHANGED and tree_of(folder) == {}
    assert begin(lib) == [0, *range(2, 7)]


@needs_posix
def test_a_change_after_the_last_look_takes_the_name_back_and_keeps_what_is_right(lib, folder, monkeypatch):
    settle = disk.parts.Parts.settle

    def settle_and_change(self, part, flush):
        status = settle(self, part, flush)
        overwrite(Path(self.path(part)), None)
        return status

    begin(lib)
    write(lib, CONTENT, range(CONTENT.count))
    with monkeypatch.context() as late:
        late.setattr(disk.parts.Parts, "settle", settle_and_change)
        with pytest.raises(LibraryError) as changed:
            finish(lib)
    assert changed.value.kind is ErrorKind.CHANGED and tree_of(folder) == {}
    assert begin(lib) == [0, *range(2, 7)]


def test_a_part_that_is_touched_for_ever_is_given_up_with_a_sentence(lib, folder, monkeypatch):
    right_ones, times = disk.parts.right_ones_by_two, iter(range(100))

    def hash_and_touch(*what):
        os.utime(part_of(lib), (next(times), 0))
        return right_ones(*what)

    begin(lib)
    write(lib, CONTENT, range(CONTENT.count))
    with monkeypatch.context() as busy:
        busy.setattr(disk.parts, "right_ones_by_two", hash_and_touch)
        with pytest.raises(LibraryError) as changed:
            finish(lib)
    assert changed.value.sentence == '"lab.iso" was changed here by another program.'
    assert begin(lib) == list(range(7)) and finish(lib) and tree_of(folder) == {"lab.iso": CONTENT.data}


@pytest.mark.parametrize("when", ["before the flush", "after the flush"])
def test_a_small_file_that_another_program_changed_is_not_named(lib, folder, monkeypatch, when):
    files = [Content(1000, seed) for seed in range(3)]
    entries = [FolderEntry(f"{seed}", 1000, one.file_id, False) for seed, one in enumerate(files)]
    flush = disk.small.flush_paths

    def flush_and_change(paths):
        if when == "after the flush":
            flush(paths)
        Path(paths[1]).write_bytes(bytes(1000))

    monkeypatch.setattr(disk.small, "flush_paths", flush_and_change)
    kept = lib.keep_small("d", entries, b"".join(one.data for one in files))
    assert [isinstance(one, LibraryError) for one in kept] == [False, True, False]
    assert tree_of(folder) == {"d/0": files[0].data, "d/2": files[2].data}


# ---- The cache ------------------------------------------------------------------------------------------------------

def test_a_cached_content_that_another_program_changed_is_served_no_more(lib, folder):
    keep(lib, CONTENT)
    path = folder / ".node" / "cache" / CONTENT.file_id.hex()
    os.utime(path, (1_000_000_000, 1_000_000_000))
    assert bytes(lib.read(CONTENT.file_id, 1, 0, 10)) == CONTENT.piece(1)[:10], "touched, and still right"
    overwrite(path, None)
    assert bytes(lib.read(CONTENT.file_id, 2, 0, 10)) == CONTENT.piece(2)[:10]
    with pytest.raises(LibraryError) as damaged:
        lib.read(CONTENT.file_id, 1, 5000, 10)
    assert damaged.value.kind is ErrorKind.CHANGED and lib.cached() == [] and os.listdir(path.parent) == []


@pytest.mark.parametrize("change", [overwrite, cut])
def test_a_part_that_was_changed_is_not_taken_into_the_cache(lib, change):
    begin(lib, destination=Destination.CACHE)
    write(lib, CONTENT, range(CONTENT.count))
    change(part_of(lib), None)
    with pytest.raises(LibraryError) as changed:
        lib.finish_cache(CONTENT.file_id, "lab.iso")
    assert changed.value.kind is ErrorKind.CHANGED and lib.cached() == []
    write(lib, CONTENT, set(range(CONTENT.count)) - set(begin(lib, destination=Destination.CACHE)))
    assert lib.finish_cache(CONTENT.file_id, "lab.iso")
    assert all(bytes(lib.read(CONTENT.file_id, index, 0, 9)) == CONTENT.piece(index)[:9] for index in range(7))


# ---- Maps, leftovers and strays -------------------------------------------------------------------------------------

@pytest.mark.parametrize("stray", ["{id}.map~", "{id}.part", "{id}~", "{id}.map.old", "stray", "small-3"])
@pytest.mark.parametrize("shelf", ["parts", "cache"])
def test_a_stray_name_costs_only_itself(lib, folder, shelf, stray):
    if shelf == "parts":
        begin(lib)
        write(lib, CONTENT, range(4))
    else:
        keep(lib, CONTENT)
    path = folder / ".node" / shelf / stray.format(id=CONTENT.file_id.hex())
    path.write_bytes(b"half")
    lib = restarted(lib)
    assert not path.exists()
    if shelf == "parts":
        assert begin(lib) == [0, 1, 2, 3]
    else:
        assert bytes(lib.read(CONTENT.file_id, 1, 0, 9)) == CONTENT.piece(1)[:9]
    lib.close()


@pytest.mark.parametrize("step", ["write", "flush", "replace"])
def test_a_map_that_cannot_be_written_leaves_nothing_behind_and_the_old_one_in_place(lib, monkeypatch, step):
    begin(lib)
    write(lib, CONTENT, range(4))
    lib = restarted(lib)

    def refuse(*_, **__):
        raise OSError(errno.EDQUOT, "quota")

    with monkeypatch.context() as full:
        if step == "write":
            full.setattr(disk.access, "write_at", refuse)
        else:
            full.setattr(os, {"flush": "fsync", "replace": "replace"}[step], refuse)
        with pytest.raises(LibraryError) as trouble:
            begin(lib)
    assert trouble.value.kind is ErrorKind.FULL
    name = CONTENT.file_id.hex()
    assert sorted(os.listdir(part_of(lib).parent)) == [name, name + ".map"]
    lib = restarted(lib)
    assert begin(lib) == [0, 1, 2, 3]
    lib.close()


def test_a_bad_map_is_put_aside_and_the_part_is_made_good_by_its_digests_when_they_come(lib, folder):
    begin(lib)
    write(lib, CONTENT, range(4))
    path, name = Path(f"{part_of(lib)}.map"), CONTENT.file_id.hex()
    path.write_bytes(b"")                           # as a power cut leaves it
    lib = restarted(restarted(lib))
    assert lib.parts() == [] and part_of(lib).exists()
    assert not [one for one in os.listdir(path.parent) if one != name and one.startswith(name)], \
        "an older program removes a part whose id begins a name that it does not know"
    assert begin(lib) == [0, 1, 2, 3]
    assert sorted(os.listdir(path.parent)) == [name, name + ".map"]
    write(lib, CONTENT, range(4, CONTENT.count))
    finish(lib)
    assert os.listdir(path.parent) == [] and tree_of(folder) == {"lab.iso": CONTENT.data}
    lib.close()


def test_a_map_that_cannot_be_read_now_ends_nothing(lib):
    begin(lib)
    write(lib, CONTENT, range(4))
    path = Path(f"{part_of(lib)}.map")
    path.unlink()
    path.mkdir()
    lib = restarted(lib)
    assert begin(lib) == [0, 1, 2, 3]
    lib.close()


def test_a_map_is_flushed_before_it_replaces_another_and_pieces_are_not_flushed_one_by_one(lib, monkeypatch):
    begin(lib)
    write(lib, CONTENT, range(4))
    lib = restarted(lib)
    done, fsync, replace = [], os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda descriptor: (done.append("flush"), fsync(descriptor)))
    monkeypatch.setattr(os, "replace", lambda *names, **how: (done.append("replace"), replace(*names, **how)))
    begin(lib)
    assert done[:2] == ["flush", "replace"]
    done.clear()
    write(lib, CONTENT, range(4, CONTENT.count))
    assert done == []
    lib.close()


def test_maps_of_many_new_parts_are_flushed_for_a_small_share_of_the_time_only(lib, monkeypatch):
    done, now = [], [0.0]

    def flush(descriptor):
        done.append(descriptor)
        now[0] += 0.03          # as a disk that turns

    monkeypatch.setattr(os, "fsync", flush)
    monkeypatch.setattr(library.time, "monotonic", lambda: now[0])
    contents = [Content((1 << 20) + seed) for seed in range(20)]
    for content in contents:
        begin(lib, content)
        now[0] += 0.01
    assert 1 <= len(done) <= 4


@pytest.mark.parametrize("destination", [Destination.CACHE, Destination.PASSING])
def test_what_was_fetched_for_others_is_removed_when_the_node_ends(lib, folder, destination):
    own = Content(100_000, 5)
    begin(lib, own)
    write(lib, own, [0])
    begin(lib, destination=destination)
    write(lib, CONTENT, range(4))
    lib.close()
    assert {name[:64] for name in os.listdir(folder / ".node" / "parts")} == {own.file_id.hex()}


# ---- Flushing, and long jobs ----------------------------------------------------------------------------------------

def refuse_to_flush(*_):
    raise OSError(errno.EIO, "the disk is ill")


@needs_posix
def test_a_flush_that_fails_is_said_and_leaks_no_descriptor(lib, folder, monkeypatch):
    fetch(lib, Content(10), "a", flush=False)
    shutil.rmtree(folder / ".node" / "cache")       # nothing else is opened meanwhile
    before = sorted(os.listdir("/dev/fd"))
    monkeypatch.setattr(os, "fsync", refuse_to_flush)
    with pytest.raises(LibraryError) as ill:
        lib.flush()
    assert ill.value.kind is ErrorKind.DISK and sorted(os.listdir("/dev/fd")) == before


class Beside:
    """A thread beside that does its work when the story says so."""

    def __init__(self):
        self.waiting = []

    def submit(self, work, *arguments):
        future = concurrent.futures.Future()
        self.waiting.append((future, work, arguments))
        return future

    def work(self):
        for future, work, arguments in self.waiting:
            try:
                future.set_result(work(*arguments))
            except OSError as error:
                future.set_exception(error)
        self.waiting.clear()


@pytest.fixture
def beside(lib):
    made = Beside()
    lib.use_threads(made.submit)
    return made


def test_a_slow_flush_gives_other_jobs_their_turn_and_the_name_comes_after_it(lib, folder, beside):
    begin(lib)
    write(lib, CONTENT, range(CONTENT.count))
    assert [lib.finish(CONTENT.file_id, "lab.iso") for _ in range(3)] == [None] * 3 and tree_of(folder) == {}
    beside.work()
    assert lib.finish(CONTENT.file_id, "lab.iso").shared.size == CONTENT.size


def test_what_is_hashed_by_two_threads_is_all_looked_at(lib, folder):
    with concurrent.futures.ThreadPoolExecutor(1) as one:
        lib.use_threads(one.submit, one.submit)
        for wrong in range(CONTENT.count):
            begin(lib)
            write(lib, CONTENT, range(CONTENT.count))
            with open(part_of(lib), "r+b") as file:
                file.seek(wrong * PIECE)
                file.write(b"XXX")
            assert begin(lib) == [index for index in range(CONTENT.count) if index != wrong]
        write(lib, CONTENT, [wrong])
        finish(lib)
    assert tree_of(folder) == {"lab.iso": CONTENT.data}


def test_a_flush_on_the_way_that_fails_is_not_forgotten(lib, folder, beside, monkeypatch):
    monkeypatch.setattr(disk.parts, "FLUSH_EVERY", 2 * PIECE)
    begin(lib)
    write(lib, CONTENT, range(2))
    with monkeypatch.context() as ill:
        ill.setattr(os, "fsync", refuse_to_flush)
        beside.work()
    with pytest.raises(LibraryError) as trouble:
        write(lib, CONTENT, range(2, CONTENT.count))
        finish(lib)
    assert trouble.value.kind is ErrorKind.DISK and tree_of(folder) == {}


def test_a_folder_that_is_flushed_slowly_gives_other_jobs_their_turn(lib, beside):
    for seed in range(3):
        fetch(lib, Content(10, seed), f"d/{seed}", flush=False)
    assert [lib.flush(), lib.flush()] == [False, False]
    beside.work()
    assert lib.flush() and lib.flush()
    entries = [FolderEntry("x", 10, Content(10, 7).file_id, False)]
    assert lib.keep_small("d", entries, Content(10, 7).data) is None
    beside.work()
    assert len(lib.keep_small("d", entries, Content(10, 7).data)) == 1


def test_a_long_copy_and_the_look_at_a_file_of_the_same_name_go_in_slices(lib, folder, monkeypatch):
    for module in (library, disk.looking, disk.parts):
        monkeypatch.setattr(module, "SLICE_BYTES", 2 * PIECE)
    fetched = fetch(lib, Content(10), "x")
    begin(lib)
    write(lib, CONTENT, range(CONTENT.count))
    finish(lib)
    answers = [lib.copy_local(CONTENT.file_id, "copy")]
    while answers[-1] is None:
        assert bytes(lib.read(fetched.shared.file_id, 0, 0, 10)) == Content(10).data     # others have their turn
        answers.append(lib.copy_local(CONTENT.file_id, "copy"))
    assert len(answers) > 5 and tree_of(folder) == {"x": Content(10).data, "lab.iso": CONTENT.data,
                                                    "copy": CONTENT.data}
    begin(lib)
    write(lib, CONTENT, range(CONTENT.count))
    answers = [lib.finish(CONTENT.file_id, "copy")]
    while answers[-1] is None:
        answers.append(lib.finish(CONTENT.file_id, "copy"))
    assert answers[-1].was_there and len(answers) > 5


def test_two_copies_of_one_content_at_once_both_end_right(lib, folder, monkeypatch):
    for module in (library, disk.parts):
        monkeypatch.setattr(module, "SLICE_BYTES", PIECE)
    begin(lib)
    write(lib, CONTENT, range(CONTENT.count))
    finish(lib)
    waiting = ["a", "b"]
    for _ in range(100):
        waiting = [name for name in waiting if lib.copy_local(CONTENT.file_id, name) is None]
    assert not waiting and tree_of(folder) == dict.fromkeys(("a", "b", "lab.iso"), CONTENT.data)


@needs_posix
@pytest.mark.parametrize("way", ["finish", "make_folder"])
def test_new_folders_are_flushed_too(lib, folder, monkeypatch, way):
    flushed, fsync = [], os.fsync

    def flush(descriptor):
        flushed.append(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", flush)
    monkeypatch.delattr(os, "sync", raising=False)
    if way == "finish":
        fetch(lib, Content(10), "a/b/x")
        assert {(folder / inner).stat().st_ino for inner in ("", "a", "a/b", "a/b/x")} <= set(flushed)
    else:
        lib.make_folder("a")
        assert not flushed
        lib.flush()
        assert flushed == [folder.stat().st_ino]


# ---- Files of the transport's verbs ---------------------------------------------------------------------------------

def part_beside(folder: Path) -> Path:
    return next(folder.glob(".node-*.part"))


@pytest.mark.parametrize("change", [overwrite, cut, lengthen])
@pytest.mark.parametrize("when", ["on the way", "at the end"])
def test_a_file_that_another_program_changed_while_it_came_gets_no_name(tmp_path, change, when):
    data = CONTENT.data
    with SequentialWriter(str(tmp_path), "x", len(data)) as writer:
        writer.write(data[:3 * PIECE])
        if when == "on the way":
            change(part_beside(tmp_path), None)
        writer.write(data[3 * PIECE:])
        if when == "at the end":
            change(part_beside(tmp_path), None)
        if when == "on the way" and change is lengthen:
            writer.finish()             # what was behind the end is written over
        else:
            with pytest.raises(LibraryError) as changed:
                writer.finish()
            assert changed.value.kind is ErrorKind.CHANGED
    assert tree_of(tmp_path) == ({"x": data} if when == "on the way" and change is lengthen else {})


def test_a_file_that_was_only_touched_while_it_came_gets_its_name(tmp_path):
    with SequentialWriter(str(tmp_path), "x", 4) as writer:
        writer.write(b"ab")
        os.utime(part_beside(tmp_path), (0, 0))
        writer.write(b"cd")
        os.utime(part_beside(tmp_path), (0, 0))
        writer.finish()
    assert tree_of(tmp_path) == {"x": b"abcd"}


def test_where_the_clock_of_the_disk_stands_still_the_file_is_hashed_once_more(tmp_path, monkeypatch):
    monkeypatch.setattr("disk.sequential.stamp_of", lambda status: (status.st_size, 0, status.st_ino, 0))
    with SequentialWriter(str(tmp_path), "x", 4) as writer:
        writer.write(b"ab")
        write_at(writer._descriptor, b"X", 0)
        writer.write(b"cd")
        with pytest.raises(LibraryError):
            writer.finish()
    assert tree_of(tmp_path) == {}
