"""What others can make grow on this disk, and what is told when the system is short of something."""

from __future__ import annotations

import errno
import os
import struct

import pytest

from disk import making
from library import Library
from protocol import content
from protocol.content import ErrorKind, FolderEntry, LibraryError, decode_listing, encode_folder


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
    monkeypatch.setattr(content, "FOLDER_ENTRIES_MAX", 16)
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
