"""The library against real disks: names, the shared folder, part files, final names, the cache."""

from __future__ import annotations

import hashlib
import os
import random
import stat
import subprocess
import sys
import types
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from disk import access, library, parts, places, proven, room
from disk.access import OPEN_FILES_MAX, write_at
from disk.library import Library
from disk.parts import Parts
from disk.places import LastFolder
from disk.room import Room
from disk.scanner import Scanner
from disk.sequential import SequentialReader, SequentialWriter
from node_tests.stage.folders import (
    GIB,
    KIB,
    MIB,
    POSIX,
    Content,
    bytes_of,
    entries_of,
    fetch,
    fill,
    keep,
    needs_posix,
    restarted,
    run_python,
    tree_of,
    world_readable,
)
from protocol.content import names as name_rules
from protocol.content.listing import FOLDER_ENTRIES_MAX, FolderEntry, encode_folder
from protocol.content.names import check_name
from protocol.content.parts import Destination
from protocol.content.pieces import (
    FILE_SIZE_MAX,
    PIECES_MAX,
    digests_of,
    has_piece,
    identity_of,
    piece_count_of,
    piece_length,
    piece_size_of,
)
from protocol.content.troubles import BadName, ErrorKind, FolderInUse, LibraryError, size_text

# ---- Names (A01 to A04) ----------------------------------------------------------------------------------------------

A01 = ["../x", "a/../../x", "/etc/x", "..", ".", "", "a//b", "a/./b", "....//x", "..\\x", "a/", "/", "a/.."]
A02 = ["C:evil", "C:\\x", "\\\\srv\\s\\x", "//srv/s/x", "\\\\?\\C:\\x", "a:stream", "file.txt::$DATA", "CON", "con.txt",
       "NUL .txt", "COM1", "LPT¹", "com³.tar.gz", "CONIN$", "x.", "x ", "a<b", "a*b", 'a"b', "a|b", "a?b",
       "a/nul/b", "x./y"]
A03 = ["a\0b", "a\nb", "a\tb", "a\x1bb", "a\x9bb", "a\x7fb", "a\u202eb", "a\u2066b", "a\u200bb", "a\u2028b", "a\ud800b",
       "a\udcffb", "a\U000e0041b", "a\uf03ab", "\ufeffa"]
A04 = ["x" * 241, "x" * 255, "x" * 256, "x" * 4096, "x" * 65000, "語" * 100, "/".join("a" * 5000), "/".join("a" * 17),
       "/".join(["x" * 200] * 6)]
OWN = [".node", ".NODE/lock", "a/.Node/b", ".node-1.part", ".node2", "NODE~1/lock"]
GOOD = ["%2e%2e", "%2e%2e/x", "lab.iso", "a/b/c", "ünï/日本語", "...x", "com", "com10", "console.txt", ".bashrc", " x",
        "a b", "x" * 240, "/".join("a" * 16), "nul1", "naïve (2).txt", "-rf", "~", "$HOME", "node~x"]


KEPT_HERE = ["C:evil", "a:stream", "12:30 meeting.txt", "file.txt::$DATA", "CON", "con.txt", "NUL .txt", "COM1", "LPT¹",
             "com³.tar.gz", "CONIN$", "x.", "x ", "a<b", "a*b", 'a"b', "a|b", "a?b", "a/nul/b", "x./y",
             "/".join("a" * 17), "/".join("a" * 64)]
NOWHERE = [name for name in A01 + A02 + A03 + A04 + OWN if name not in KEPT_HERE] + ["/".join("a" * 65)]


@pytest.fixture
def strict(monkeypatch):
    """This machine keeps no more names than Windows does."""
    monkeypatch.setattr(name_rules, "IS_STRICT", True)


@pytest.mark.parametrize("name", KEPT_HERE)
def test_a_name_that_only_some_systems_can_keep_is_one_for_these(monkeypatch, name):
    monkeypatch.setattr(name_rules, "IS_STRICT", False)
    assert check_name(name) == name_rules.check_any(name) == name and not name_rules.is_portable(name)
    monkeypatch.setattr(name_rules, "IS_STRICT", True)
    assert name_rules.check_any(name) == name
    if not name.startswith("a/a/"):         # too deep for earlier versions alone
        with pytest.raises(BadName):
            check_name(name)


@pytest.mark.parametrize("name", NOWHERE)
def test_a_name_that_no_system_may_keep_is_refused_by_every_rule(monkeypatch, name):
    for is_strict in (True, False):
        monkeypatch.setattr(name_rules, "IS_STRICT", is_strict)
        for check in (check_name, name_rules.check_any, name_rules.check_portable):
            with pytest.raises(BadName):
                check(name)


@pytest.mark.parametrize("name", A01 + A02 + A03 + A04 + OWN)
def test_bad_name_is_refused_with_a_sentence_that_is_safe_to_show(name):
    check_name = name_rules.check_portable
    with pytest.raises(BadName) as refusal:
        check_name(name)
    assert refusal.value.sentence.isprintable() and len(refusal.value.sentence) < 700
    assert refusal.value.kind is ErrorKind.NAME


@pytest.mark.parametrize("name", GOOD)
def test_good_name_is_left_as_it_is(name):
    assert check_name(name) == name


@pytest.mark.parametrize("name", [None, 7, b"x", ["x"]])
def test_what_is_no_text_is_no_name(name):
    with pytest.raises(BadName):
        check_name(name)


@given(st.text(st.characters(), max_size=40) | st.text("./\\:~ abN\0", max_size=12))
@settings(max_examples=500, deadline=None)
def test_name_that_passes_stays_inside_on_every_system(name):
    import ntpath
    import posixpath
    try:
        name_rules.check_any(name)
    except BadName:
        return
    for rules in (posixpath, ntpath) if name_rules.is_portable(name) else (posixpath,):
        joined = rules.normpath(rules.join(rules.sep + "root", name))
        assert joined.startswith(rules.sep + "root" + rules.sep)
    assert not any(unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp") for character in name)


def test_refused_names_write_nothing(lib, folder, strict):
    content = Content(10)
    lib.begin(content.file_id, 10, content.digests)
    lib.write_piece(content.file_id, 0, content.data)
    before = tree_of(folder.parent)
    for name in [one for one in A01 + A02 + A03 + A04 + OWN if not one.startswith("a/a/") or len(one) > 128]:
        with pytest.raises(BadName):
            lib.finish(content.file_id, name)
        with pytest.raises(BadName):
            lib.make_folder(name)
    assert tree_of(folder.parent) == before
    assert lib.finish(content.file_id, "%2e%2e/x").path == str(folder / "%2e%2e" / "x")


# ---- Pieces, identity, listings --------------------------------------------------------------------------------------

@pytest.mark.parametrize(("size", "piece_size"), [
    (0, 64 * KIB), (1, 64 * KIB), (16 * MIB, 64 * KIB), (16 * MIB + 1, 128 * KIB), (GIB, MIB), (4 * GIB, MIB),
    (4 * GIB + 1, 2 * MIB), (20 * GIB, 8 * MIB), (1 << 40, 256 * MIB)])
def test_piece_size_by_hand(size, piece_size):
    assert piece_size_of(size) == piece_size


@given(st.integers(0, FILE_SIZE_MAX))
@settings(deadline=None)
def test_pieces_cover_the_file_and_are_never_many(size):
    count = piece_count_of(size)
    assert count <= PIECES_MAX
    assert size == (piece_size_of(size) * (count - 1) + piece_length(size, count - 1) if count else 0)


def test_identity_by_hand():
    digest = hashlib.sha256(b"abc").digest()
    assert digests_of(b"abc") == digest
    assert identity_of(3, digest) == hashlib.sha256(b"\0\0\0\0\0\0\0\3" + digest).digest()
    assert identity_of(0, b"") == hashlib.sha256(bytes(8)).digest()


ID = bytes(range(32))
names = st.text("abAB é日.", min_size=1, max_size=6)
listed_entries = st.lists(st.builds(FolderEntry, st.lists(names, min_size=1, max_size=3).map("/".join),
                                    st.integers(0, FILE_SIZE_MAX), st.binary(min_size=32, max_size=32), st.just(False)),
                          max_size=6)


@given(listed_entries, st.randoms())
@settings(deadline=None)
def test_listing_is_canonical_and_comes_back(entries, rng):
    try:
        listing = encode_folder(entries)
    except LibraryError:
        return
    shuffled = list(entries)
    rng.shuffle(shuffled)
    assert encode_folder(shuffled) == listing
    assert sorted(entries_of(listing)) == sorted(entries)


@given(st.binary(max_size=80) | st.binary(max_size=80).map(lambda tail: b"LST1\0\0\0\1" + tail))
@settings(max_examples=300, deadline=None)
def test_any_bytes_decode_or_are_refused(data):
    try:
        entries = entries_of(data)
    except LibraryError:
        return
    assert encode_folder(entries) == data


def test_every_truncation_and_every_flipped_bit_of_a_listing_is_survived():
    listing = encode_folder([FolderEntry("a/b", 5, ID, False), FolderEntry("empty", 0, b"", True)])
    for end in range(len(listing)):
        with pytest.raises(LibraryError):
            entries_of(listing[:end])
    for bit in range(8 * len(listing)):
        damaged = bytearray(listing)
        damaged[bit // 8] ^= 1 << bit % 8
        try:
            assert encode_folder(entries_of(bytes(damaged))) == damaged
        except LibraryError as refusal:
            assert refusal.sentence


@pytest.mark.parametrize("paths", [
    ["x", "x"], ["README", "readme"], ["caf\u00e9", "cafe\u0301"], ["a", "a/b"], ["A", "a/b"], ["../x"], ["a/.node"],
    ["straße", "STRASSE"]])
def test_listing_with_twins_or_bad_names_is_refused(paths):
    with pytest.raises(LibraryError):
        encode_folder([FolderEntry(path, 1, ID, False) for path in paths])
    raw = b"LST1" + len(paths).to_bytes(4, "big")
    for path in sorted(path.encode() for path in paths):
        raw += b"\0" + len(path).to_bytes(2, "big") + (1).to_bytes(8, "big") + path + ID
    with pytest.raises(LibraryError):
        entries_of(raw)


def test_listing_with_a_lying_count_is_refused_before_memory_is_taken():
    for count in (1, FOLDER_ENTRIES_MAX, FOLDER_ENTRIES_MAX + 1, 2**32 - 1):
        with pytest.raises(LibraryError):
            entries_of(b"LST1" + count.to_bytes(4, "big"))


# ---- Downloads -------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("size", [0, 1, 64 * KIB, 64 * KIB + 1, 300_000])
def test_download_lands_verified_under_its_name_and_is_shared_at_once(lib, folder, size):
    content = Content(size)
    finished = fetch(lib, content, "sub/lab.iso")
    assert finished == (str(folder / "sub" / "lab.iso"), False, finished.shared, "sub/lab.iso", "", "", b"", "")
    assert Path(finished.path).read_bytes() == content.data
    assert finished.shared.name == "sub/lab.iso" and not finished.shared.listed
    assert lib.manifest(content.file_id) == (size, content.digests)
    assert all(lib.read(content.file_id, i, 0, len(content.piece(i))) == content.piece(i) for i in range(content.count))
    assert lib.local_copy(content.file_id) == finished.path
    assert os.listdir(folder / ".node" / "parts") == [] and lib.parts() == []


@needs_posix
def test_finished_file_has_plain_mode_and_the_time_of_this_machine(lib):
    umask = os.umask(0o027)
    try:
        status = os.stat(fetch(lib, Content(5), "run.sh").path)
    finally:
        os.umask(umask)
    assert stat.S_IMODE(status.st_mode) == 0o640
    assert abs(status.st_mtime - os.stat(lib.folder).st_mtime) < 60
    assert stat.S_IMODE(os.stat(Path(lib.folder, ".node")).st_mode) == 0o700


@needs_posix
@pytest.mark.parametrize("keep, name", [("keep_past", "name"), ("keep_ruled", "ruled")])
def test_what_only_this_user_may_know_is_so_from_its_first_byte_on(lib, monkeypatch, keep, name):
    written = []
    write_at = access.write_at

    def watched(descriptor, data, offset):
        written.append(stat.S_IMODE(os.fstat(descriptor).st_mode))
        write_at(descriptor, data, offset)

    monkeypatch.setattr(access, "write_at", watched)
    umask = os.umask(0)
    try:
        getattr(lib, keep)(b"secret")
    finally:
        os.umask(umask)
    assert written == [0o600] and stat.S_IMODE(os.stat(Path(lib.folder, ".node", name)).st_mode) == 0o600


def test_wrong_piece_is_not_written(lib):
    content = Content(200_000)
    lib.begin(content.file_id, content.size, content.digests)
    flipped = bytearray(content.piece(1))
    flipped[77] ^= 1
    assert not lib.write_piece(content.file_id, 1, flipped)
    for data in (content.piece(0), content.piece(1)[:-1], content.piece(1) + b"x", b""):
        assert not lib.write_piece(content.file_id, 1, data)
    for index in (-1, content.count, 2**64):
        assert not lib.write_piece(content.file_id, index, content.piece(1))
    with pytest.raises(LibraryError) as missing:
        lib.read(content.file_id, 1, 0, 10)
    assert missing.value.kind is ErrorKind.MISSING
    with pytest.raises(LibraryError) as incomplete:
        lib.finish(content.file_id, "x")
    assert incomplete.value.kind is ErrorKind.MISSING
    assert lib.write_piece(content.file_id, 1, content.piece(1))
    assert lib.read(content.file_id, 1, 3, 10) == content.piece(1)[3:13]
    assert has_piece(lib.begin(content.file_id, content.size, content.digests), 1)


def test_data_that_nobody_asked_for_leaves_no_file(lib, folder):
    content = Content(100)
    with pytest.raises(LibraryError) as unasked:
        lib.write_piece(content.file_id, 0, content.data)
    assert unasked.value.kind is ErrorKind.UNKNOWN
    fetch(lib, content, "x")
    with pytest.raises(LibraryError):
        lib.write_piece(content.file_id, 0, content.data)
    cancelled = Content(100, seed=2)
    lib.begin(cancelled.file_id, 100, cancelled.digests, Destination.CACHE)
    lib.discard(cancelled.file_id)
    with pytest.raises(LibraryError):
        lib.write_piece(cancelled.file_id, 0, cancelled.data)
    assert tree_of(folder) == {"x": content.data} and os.listdir(folder / ".node" / "parts") == []


@pytest.mark.parametrize("size", [2**63 - 1, 2**64 - 1, 2**70, -1, 90, 110, 1.0, True, None])
def test_size_lie_is_refused_before_anything_is_made(lib, folder, size):
    content = Content(100)
    with pytest.raises(LibraryError) as lie:
        lib.begin(content.file_id, size, content.digests)
    assert lie.value.kind is ErrorKind.MALFORMED
    assert os.listdir(folder / ".node" / "parts") == []


@pytest.mark.parametrize("digests", [b"", bytes(31), bytes(32), bytes(64), bytes(32 * 5000)])
def test_wrong_digest_list_is_refused(lib, digests):
    content = Content(100)
    with pytest.raises(LibraryError):
        lib.begin(content.file_id, 100, digests)


@pytest.mark.parametrize("file_id", [b"", b"../../x", bytes(31), bytes(33)])
def test_malformed_id_names_no_file(lib, file_id):
    for verb in (lib.manifest, lib.discard, lib.evict, lib.local_copy, lambda i: lib.read(i, 0, 0, 1),
                 lambda i: lib.begin(i, 0, b"")):
        try:
            assert verb(file_id) is None
        except LibraryError as refusal:
            assert refusal.kind in (ErrorKind.UNKNOWN, ErrorKind.MALFORMED)
    assert sorted(os.listdir(Path(lib.folder, ".node"))) == ["cache", "lock", "parts"]


def test_large_declared_size_takes_no_room_until_bytes_come(lib, folder):
    size = 50 * MIB
    digests = bytes(32) * piece_count_of(size)
    lib.begin(identity_of(size, digests), size, digests)
    taken = sum(path.stat().st_size for path in (folder / ".node").rglob("*") if path.is_file())
    assert taken < 100 * KIB


def test_no_room_is_said_at_the_start_with_both_numbers(lib, monkeypatch):
    monkeypatch.setattr(Library, "free_bytes", lambda self: 50_000_000)
    size = 80_000_000
    digests = bytes(32) * piece_count_of(size)
    with pytest.raises(LibraryError) as full:
        lib.begin(identity_of(size, digests), size, digests, label="lab.iso")
    assert full.value.kind is ErrorKind.FULL
    assert full.value.sentence == 'No room for "lab.iso": needs 80.0 MB, 50.0 MB free.'


def test_reads_outside_the_file_are_refused(lib):
    content = Content(100_000)
    fetch(lib, content, "x")
    for index, offset, length in [(2, 0, 1), (-1, 0, 1), (0, -1, 1), (0, 0, 65537), (1, 34464, 1), (0, 65536, 1),
                                  (0, 0, -1), (2**63, 0, 1)]:
        with pytest.raises(LibraryError) as refusal:
            lib.read(content.file_id, index, offset, length)
        assert refusal.value.kind is ErrorKind.MALFORMED


def test_many_files_keep_few_descriptors(lib):
    shared = [fetch(lib, Content(10, seed), f"f{seed}").shared for seed in range(OPEN_FILES_MAX * 2)]
    for file in shared:
        assert len(lib.read(file.file_id, 0, 0, 10)) == 10
    assert len(lib._files._open) <= OPEN_FILES_MAX
    lib.withdraw(shared)
    assert not lib._files._open


# ---- Final names (A05 to A07) ----------------------------------------------------------------------------------------

def test_existing_file_is_never_overwritten(lib, folder):
    (folder / "notes.pdf").write_bytes(b"mine")
    (folder / "tools").mkdir()
    first, second = Content(50, 1), Content(50, 2)
    assert fetch(lib, first, "notes.pdf").path == str(folder / "notes (2).pdf")
    assert fetch(lib, second, "notes.pdf").path == str(folder / "notes (3).pdf")
    assert fetch(lib, second, "tools").shared.name == "tools (2)"
    assert tree_of(folder) == {"notes.pdf": b"mine", "notes (2).pdf": first.data, "notes (3).pdf": second.data,
                               "tools (2)": second.data}


def test_same_content_under_the_name_moves_nothing(lib, folder):
    content, other = Content(100_000), Content(100_000, 2)
    (folder / "a").write_bytes(content.data)
    before = os.stat(folder / "a")
    assert fetch(lib, content, "a").was_there
    assert os.stat(folder / "a").st_mtime_ns == before.st_mtime_ns and tree_of(folder) == {"a": content.data}
    assert not fetch(lib, other, "a").was_there
    assert fetch(lib, other, "a")[:2] == (str(folder / "a (2)"), True)
    assert os.listdir(folder / ".node" / "parts") == []


def test_twin_by_case_or_unicode_form_is_left_alone(lib, folder):
    (folder / "readme").write_bytes(b"mine")
    (folder / "caf\u00e9").write_bytes(b"mine")
    contents = Content(9, 1), Content(9, 2)
    paths = fetch(lib, contents[0], "README").path, fetch(lib, contents[1], "cafe\u0301").path
    assert [Path(path).read_bytes() for path in paths] == [content.data for content in contents]
    assert (folder / "readme").read_bytes() == (folder / "caf\u00e9").read_bytes() == b"mine"


def test_long_name_has_room_for_its_number(lib, folder):
    name = "x" * 236 + ".iso"
    (folder / name).write_bytes(b"mine")
    assert fetch(lib, Content(5), name).path == str(folder / ("x" * 236 + " (2).iso"))


@needs_posix
def test_links_in_the_folder_lead_nowhere(lib, folder, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_bytes(b"secret")
    (folder / "x").symlink_to(outside)
    (folder / "y").symlink_to(outside / "file")
    (folder / "dangling").symlink_to(outside / "new")
    content = Content(20)
    assert fetch(lib, content, "x").shared.name == "x (2)"
    assert fetch(lib, content, "y").shared.name == "y (2)"
    assert fetch(lib, content, "dangling").shared.name == "dangling (2)"
    for name in ("x/y", "x/deep/y", "y/z"):
        with pytest.raises(LibraryError) as refusal:
            fetch(lib, content, name)
        assert refusal.value.kind is ErrorKind.LINK
    with pytest.raises(LibraryError):
        lib.make_folder("x/new")
    assert tree_of(outside) == {"file": b"secret"}
    assert fetch(lib, content, "plain/y").path == str(folder / "plain" / "y")


@needs_posix
def test_part_exchanged_for_a_link_during_the_transfer_touches_nothing_outside(lib, folder, tmp_path):
    victim = tmp_path / "victim"
    victim.write_bytes(b"mine")
    for swap_before in range(4):
        content = Content(200_000, seed=swap_before)
        part = folder / ".node" / "parts" / content.file_id.hex()
        lib.begin(content.file_id, content.size, content.digests)
        try:
            for index in range(content.count):
                if index == swap_before:
                    part.unlink()
                    part.symlink_to(victim)
                    lib._files.close()
                lib.write_piece(content.file_id, index, content.piece(index))
            if swap_before == 3:
                lib._files.close()
            lib.finish(content.file_id, f"new{swap_before}")
        except LibraryError as refusal:
            assert refusal.kind in (ErrorKind.LINK, ErrorKind.CHANGED, ErrorKind.GONE)
        else:
            assert (folder / f"new{swap_before}").read_bytes() == content.data
    assert victim.read_bytes() == b"mine" and not any(path.is_symlink() for path in folder.glob("new*"))


@needs_posix
def test_link_that_takes_the_place_of_a_flushed_part_is_not_kept(lib, folder, tmp_path, monkeypatch):
    victim = tmp_path / "victim"
    victim.write_bytes(b"mine")
    content = Content(20)
    settle = Parts.settle

    def settle_and_swap(self, part, flush):
        status, path = settle(self, part, flush), self.path(part)
        os.unlink(path)
        os.symlink(victim, path)
        return status

    monkeypatch.setattr(Parts, "settle", settle_and_swap)
    with pytest.raises(LibraryError) as exchanged:
        fetch(lib, content, "new")
    assert exchanged.value.kind is ErrorKind.CHANGED
    assert tree_of(folder) == {} and victim.read_bytes() == b"mine"


@needs_posix
@pytest.mark.parametrize("cause", [PermissionError(1, "no links here"), NotImplementedError(), AttributeError()])
def test_disk_without_hard_links_overwrites_nothing_either(lib, folder, monkeypatch, cause):
    def refuse(*_, **__):
        raise cause

    monkeypatch.setattr(os, "link", refuse)
    (folder / "a").write_bytes(b"mine")
    content = Content(70_000)
    assert fetch(lib, content, "a").shared.name == "a (2)"
    assert fetch(lib, content, "b").shared.name == "b"
    assert tree_of(folder) == {"a": b"mine", "a (2)": content.data, "b": content.data}


def test_without_descriptors_of_folders_the_same_names_result(lib, folder, monkeypatch):
    monkeypatch.setattr(places, "_HAS_DIR_FD", False)
    monkeypatch.delattr(os, "pread", raising=False)
    monkeypatch.delattr(os, "pwrite", raising=False)
    content = Content(70_000)
    (folder / "d").mkdir()
    (folder / "d" / "a").write_bytes(b"mine")
    assert fetch(lib, content, "d/a").shared.name == "d/a (2)"
    assert lib.read(content.file_id, 1, 0, 4464) == content.piece(1)
    if POSIX:
        (folder / "link").symlink_to(folder.parent)
    else:
        (folder / "link").write_bytes(b"")
    with pytest.raises(LibraryError):
        fetch(lib, Content(5), "link/a")


def test_windows_rename_waits_for_a_virus_scanner_and_replaces_nothing(tmp_path, monkeypatch):
    calls = []

    def busy_twice(source, target):
        calls.append(source)
        if len(calls) < 3:
            raise PermissionError(13, "in use")

    monkeypatch.setattr(os, "rename", busy_twice)
    monkeypatch.setattr(places.time, "sleep", lambda seconds: None)
    places._rename_windows("a", "b")
    assert len(calls) == 3
    monkeypatch.setattr(os, "rename", lambda *_: (_ for _ in ()).throw(FileExistsError()))
    with pytest.raises(FileExistsError):
        places._rename_windows("a", "b")


def test_folder_of_small_files_is_flushed_once(lib, folder, monkeypatch):
    flushed = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    if hasattr(os, "sync"):
        monkeypatch.setattr(os, "sync", lambda: flushed.append(1))
    for seed in range(5):
        fetch(lib, Content(10, seed), f"d/{seed}", flush=False)
    lib.make_folder("d/empty")
    lib.flush()
    lib.flush()
    assert len(flushed) == hasattr(os, "sync") and (folder / "d" / "empty").is_dir()


# ---- Resume (G07) ----------------------------------------------------------------------------------------------------

def half_done(lib: Library, content: Content) -> None:
    lib.begin(content.file_id, content.size, content.digests, label="lab.iso")
    for index in range(0, content.count, 2):
        lib.write_piece(content.file_id, index, content.piece(index))


def test_killed_download_goes_on_without_a_source_for_its_digests(lib):
    content = Content(400_000)
    half_done(lib, content)
    lib = restarted(lib)
    assert [(part.file_id, part.size, part.label) for part in lib.parts()] == [(content.file_id, 400_000, "lab.iso")]
    assert lib.parts()[0].verified_bytes == sum(len(content.piece(i)) for i in range(0, content.count, 2))
    size, digests = lib.manifest(content.file_id)
    bitmap = lib.begin(content.file_id, size, digests)
    assert [has_piece(bitmap, i) for i in range(content.count)] == [i % 2 == 0 for i in range(content.count)]
    for index in range(1, content.count, 2):
        lib.write_piece(content.file_id, index, content.piece(index))
    assert Path(lib.finish(content.file_id, "lab.iso").path).read_bytes() == content.data
    lib.close()


def test_damaged_part_loses_only_the_damaged_piece(lib, folder):
    content = Content(400_000)
    half_done(lib, content)
    part = folder / ".node" / "parts" / content.file_id.hex()
    lib.close()
    with open(part, "r+b") as file:
        file.seek(2 * 65536 + 5)
        file.write(b"damage")
    with open(part, "ab") as file:
        file.write(b"junk behind the end" * 10_000)
    lib = restarted(lib)
    bitmap = lib.begin(content.file_id, content.size, content.digests)
    assert [i for i in range(content.count) if has_piece(bitmap, i)] == [0, 4, 6]
    with pytest.raises(LibraryError):
        lib.read(content.file_id, 2, 0, 1)
    for index in range(content.count):
        assert lib.write_piece(content.file_id, index, content.piece(index))
    assert Path(lib.finish(content.file_id, "x").path).read_bytes() == content.data
    lib.close()


@pytest.mark.parametrize("damage", ["torn record", "records of nonsense", "cut header", "empty map", "no map",
                                    "no part", "other file's map", "label"])
def test_damaged_map_never_makes_a_wrong_file(lib, folder, damage):
    content, other = Content(300_000), Content(300_000, 2)
    half_done(lib, content)
    half_done(lib, other)
    lib.close()
    part = folder / ".node" / "parts" / content.file_id.hex()
    map_file = Path(f"{part}.map")
    data = map_file.read_bytes()
    changed = {"torn record": data[:-2], "records of nonsense": data + b"\xff" * 4001, "cut header": data[:20],
               "empty map": b"", "other file's map": Path(f"{part.parent / other.file_id.hex()}.map").read_bytes(),
               "label": data.replace(b"lab.iso", b"\xff\xfe\0\x1b../")}
    if damage == "no part":
        part.unlink()
    elif damage == "no map":
        map_file.unlink()
    else:
        map_file.write_bytes(changed[damage])
    lib = restarted(lib)
    bitmap = lib.begin(content.file_id, content.size, content.digests)
    kept = [i for i in range(content.count) if has_piece(bitmap, i)]
    assert kept == {"torn record": [0, 2], "no part": []}.get(damage, [0, 2, 4])     # by the digests that come anew
    for index in range(content.count):
        assert lib.write_piece(content.file_id, index, content.piece(index))
    assert Path(lib.finish(content.file_id, "x").path).read_bytes() == content.data
    assert all(part.file_id == other.file_id for part in lib.parts())
    lib.close()


@needs_posix
def test_crash_between_link_and_unlink_never_writes_into_the_finished_file(lib, folder):
    content = Content(200_000)
    half_done(lib, content)
    part = folder / ".node" / "parts" / content.file_id.hex()
    os.link(part, folder / "lab.iso")
    before = (folder / "lab.iso").read_bytes()
    lib = restarted(lib)
    assert not any(lib.begin(content.file_id, content.size, content.digests))
    lib.write_piece(content.file_id, 1, content.piece(1))
    assert (folder / "lab.iso").read_bytes() == before
    lib.close()


def test_piece_record_is_short_and_not_flushed(lib, folder, monkeypatch):
    def no_flush(_):
        raise AssertionError("a piece is not flushed by itself")

    monkeypatch.setattr(os, "fsync", no_flush)
    content = Content(300_000)
    lib.begin(content.file_id, content.size, content.digests)
    map_file = folder / ".node" / "parts" / (content.file_id.hex() + ".map")
    sizes = [map_file.stat().st_size]
    for index in range(content.count):
        lib.write_piece(content.file_id, index, content.piece(index))
        lib.write_piece(content.file_id, index, content.piece(index))
        sizes.append(map_file.stat().st_size)
    assert {later - earlier for earlier, later in zip(sizes, sizes[1:])} == {4}


# ---- Trouble with the disk (A09, H01) --------------------------------------------------------------------------------


@needs_posix
def test_file_size_limit_is_a_sentence_and_the_library_lives_on(tmp_path):
    said = run_python("""
        import resource
        data = bytes(1 << 20); digests = digests_of(data); file_id = identity_of(len(data), digests)
        lib = Library(sys.argv[1]); lib.open()
        lib.begin(file_id, len(data), digests, label="lab.iso")
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))
        results = []
        for index in range(piece_count_of(len(data))):
            try:
                results.append(lib.write_piece(file_id, index, data[:65536]))
            except LibraryError as error:
                results.append(error.kind.value); sentence = error.sentence
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        for index in range(piece_count_of(len(data))):
            assert lib.write_piece(file_id, index, data[:65536])
        assert open(lib.finish(file_id, "lab.iso").path, "rb").read() == data
        print(results.count(True), results.count("too big"), sentence)
        """, str(tmp_path / "shared"))
    assert said == '4 12 Cannot save "lab.iso": the file is larger than this system allows.'


@pytest.mark.parametrize(("number", "kind", "cause"), [
    ("ENOSPC", ErrorKind.FULL, "the disk is full"), ("EDQUOT", ErrorKind.FULL, "your disk quota is used up"),
    ("EROFS", ErrorKind.READ_ONLY, "the disk is read-only"), ("EACCES", ErrorKind.DENIED, "no permission"),
    ("EIO", ErrorKind.DISK, "the disk reports an error"), ("ENAMETOOLONG", ErrorKind.NAME, "the name is too long")])
def test_write_error_is_a_sentence_and_a_retry_works(lib, monkeypatch, number, kind, cause):
    import errno
    if not hasattr(errno, number):
        pytest.skip("not on this system")
    content = Content(200_000)
    lib.begin(content.file_id, content.size, content.digests, label="lab.iso")

    def fail(*_):
        raise OSError(getattr(errno, number), "no")

    with monkeypatch.context() as broken:
        broken.setattr(parts, "write_at", fail)
        with pytest.raises(LibraryError) as trouble:
            lib.write_piece(content.file_id, 0, content.piece(0))
    assert trouble.value.kind is kind and cause in trouble.value.sentence and "lab.iso" in trouble.value.sentence
    assert not has_piece(lib.begin(content.file_id, content.size, content.digests), 0)
    assert fetch(lib, content, "x").shared.size == content.size


def test_record_torn_by_a_full_disk_does_not_spoil_the_next(lib, monkeypatch):
    content = Content(200_000)
    lib.begin(content.file_id, content.size, content.digests)

    def tear(descriptor, data, offset):
        if len(data) == 4:
            write_at(descriptor, data[:2], offset)
            raise OSError(28, "full")
        write_at(descriptor, data, offset)

    with monkeypatch.context() as full:
        full.setattr(parts, "write_at", tear)
        with pytest.raises(LibraryError):
            lib.write_piece(content.file_id, 1, content.piece(1))
    for index in (3, 1):
        lib.write_piece(content.file_id, index, content.piece(index))
    lib = restarted(lib)
    bitmap = lib.begin(content.file_id, content.size, content.digests)
    assert [i for i in range(content.count) if has_piece(bitmap, i)] == [1, 3]
    lib.close()


def test_folder_that_is_a_file_is_said_at_the_start(tmp_path):
    (tmp_path / "shared").write_bytes(b"mine")
    for place in ("shared", "shared/below"):
        with pytest.raises(LibraryError) as refusal:
            Library(str(tmp_path / place)).open()
        assert "Cannot use the folder" in refusal.value.sentence


@needs_posix
def test_read_only_folder_is_said_at_the_start_and_still_shares(tmp_path):
    said = run_python("""
        folder = sys.argv[1]
        os.makedirs(folder); open(folder + "/a", "w").write("hello"); os.chmod(folder, 0o555)
        os.chmod(os.path.dirname(folder), 0o755)
        if os.getuid() == 0:
            os.setuid(65534)
        lib = Library(folder); lib.open()
        print(lib.notice)
        lib.adopt(Scanner(folder).run_once().added)
        file_id = identity_of(5, digests_of(b"hello"))
        print(bytes(lib.read(file_id, 0, 0, 5)).decode())
        try:
            lib.begin(identity_of(0, b""), 0, b"")
        except LibraryError as error:
            print(error.kind.value)
        """, world_readable(tmp_path / "shared"))
    notice = f'Cannot save anything in "{tmp_path / "shared"}": this user has no permission.'
    assert said.splitlines() == [notice, "hello", "denied"]


@pytest.mark.skipif(not hasattr(os, "statvfs"), reason="this system does not tell which disks are read-only")
def test_a_read_only_disk_is_not_taken_for_a_missing_permission(tmp_path, monkeypatch):
    seen = os.statvfs(tmp_path)
    locked = types.SimpleNamespace(f_flag=seen.f_flag | os.ST_RDONLY)
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
    monkeypatch.setattr(os, "statvfs", lambda path: locked)
    folder = tmp_path / "shared"
    folder.mkdir()
    with Library(str(folder)) as lib:
        assert lib.notice == f'Cannot save anything in "{folder}": the disk is read-only.'
        with pytest.raises(LibraryError) as refused:
            lib.begin(identity_of(0, b""), 0, b"")
        assert refused.value.kind is ErrorKind.READ_ONLY


# ---- Two nodes, one folder -------------------------------------------------------------------------------------------

def test_two_nodes_never_use_one_folder(tmp_path):
    with Library(str(tmp_path / "shared")):
        with pytest.raises(FolderInUse) as refusal:
            Library(str(tmp_path / "shared")).open()
        assert "in use by another node" in refusal.value.sentence
        with pytest.raises(FolderInUse):
            library.open_folder(str(tmp_path / "shared"))
        second = library.open_folder(str(tmp_path / "shared"), named=False)
        third = library.open_folder(str(tmp_path / "shared"), named=False)
        assert [Path(each.folder).name for each in (second, third)] == ["shared-2", "shared-3"]
        second.close()
        third.close()
    library.open_folder(str(tmp_path / "shared")).close()


@needs_posix
def test_lock_of_a_killed_node_is_free(tmp_path):
    code = "import os, sys, library; library.Library(sys.argv[1]).open(); print('open', flush=True); sys.stdin.read()"
    environment = dict(os.environ, PYTHONPATH=os.path.dirname(os.path.abspath(library.__file__)))
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "shared")], env=environment,
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE) as node:
        assert node.stdout.readline() == b"open\n"
        with pytest.raises(FolderInUse):
            Library(str(tmp_path / "shared")).open()
        node.kill()
    Library(str(tmp_path / "shared")).open()


@needs_posix
def test_hidden_folder_that_is_a_link_is_refused(tmp_path):
    (tmp_path / "shared").mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "shared" / ".node").symlink_to(tmp_path / "outside")
    with pytest.raises(LibraryError):
        Library(str(tmp_path / "shared")).open()
    assert os.listdir(tmp_path / "outside") == []


# ---- Holes, and parts that nobody goes on with -----------------------------------------------------------------------

class Sparse:
    """A content of which most pieces are zeros."""

    def __init__(self, count=40, at=(0, 17)):
        size = 65536 * count - 100
        pieces = [bytes_of(65536, index + 1) if index in at else bytes(65536) for index in range(count)]
        self.data = b"".join(pieces)[:size]
        self.size, self.count, self.digests = size, count, digests_of(self.data)
        self.file_id = identity_of(size, self.digests)

    def piece(self, index):
        return self.data[65536 * index:][:65536]


@pytest.mark.skipif(not hasattr(os, "SEEK_DATA"), reason="needs holes that can be seen")
@pytest.mark.parametrize("order", ["forwards", "backwards", "mixed"])
def test_holes_stay_holes(lib, folder, order):
    sparse = Sparse()
    indexes = list(range(sparse.count))
    random.Random(order).shuffle(indexes)
    indexes = {"forwards": sorted(indexes), "backwards": sorted(indexes)[::-1], "mixed": indexes}[order]
    lib.begin(sparse.file_id, sparse.size, sparse.digests, label="disk.img")
    for index in indexes:
        assert lib.write_piece(sparse.file_id, index, sparse.piece(index))
    path = lib.finish(sparse.file_id, "disk.img").path
    assert Path(path).read_bytes() == sparse.data and os.stat(path).st_blocks * 512 <= 3 * 65536


@pytest.mark.parametrize("damage", ["zeros came where bytes lie", "cut by a crash", "none"])
def test_a_hole_is_right_after_a_crash_too(tmp_path, damage):
    sparse, folder = Sparse(), tmp_path / "own"
    with library.Library(str(folder)) as lib:
        lib.begin(sparse.file_id, sparse.size, sparse.digests, label="disk.img")
        for index in range(30):
            lib.write_piece(sparse.file_id, index, sparse.piece(index))
    part = folder / ".node" / "parts" / sparse.file_id.hex()
    if damage == "cut by a crash":
        os.truncate(part, 65536 * 3)
    elif damage != "none":
        with open(part, "r+b") as file:
            file.seek(65536 * 5)
            file.write(b"stale" * 20_000)       # of pieces 5 and 6, as another program or a bad disk leaves it
    with library.Library(str(folder)) as lib:
        while lib.begin(sparse.file_id, sparse.size, sparse.digests, label="disk.img") is None:
            pass
        for index in range(sparse.count):
            assert lib.write_piece(sparse.file_id, index, sparse.piece(index))
        assert Path(lib.finish(sparse.file_id, "disk.img").path).read_bytes() == sparse.data


def test_a_part_that_nobody_goes_on_with_is_removed_after_a_month_and_told(tmp_path):
    folder = tmp_path / "own"
    old, new, stray = Content(200_000), Content(200_000, 2), Content(200_000, 3)
    with library.Library(str(folder)) as lib:
        for content in (old, new, stray):
            lib.begin(content.file_id, content.size, content.digests, label="big.bin")
            lib.write_piece(content.file_id, 0, content.piece(0))
    parts = folder / ".node" / "parts"
    for content in (old, stray):
        for path in (parts / content.file_id.hex(), parts / (content.file_id.hex() + ".map")):
            os.utime(path, (1_500_000_000, 1_500_000_000))
    (parts / (stray.file_id.hex() + ".map")).unlink()
    with library.Library(str(folder)) as lib:
        assert lib.dropped == ['"big.bin" was begun and not gone on with for 30 days: '
                               "the 65.5 kB of it that lay here are removed"]
        assert [part.file_id for part in lib.parts()] == [new.file_id]
        assert {path.name[:64] for path in parts.iterdir()} == {new.file_id.hex()}


# ---- Serving (B01, B05) ----------------------------------------------------------------------------------------------

def test_only_what_is_announced_is_served(lib, folder):
    fill(folder, a=b"1", **{".secret": b"2"})
    lib.adopt(Scanner(lib.folder).run_once().added)
    for data in (b"2", b"3"):
        digests = digests_of(data)
        with pytest.raises(LibraryError) as refusal:
            lib.read(identity_of(1, digests), 0, 0, 1)
        assert (refusal.value.kind, refusal.value.sentence) == (ErrorKind.UNKNOWN, "No such file here.")


@pytest.mark.parametrize("change", ["grown", "touched", "copied anew"])
def test_what_was_announced_and_still_stands_there_is_served_whatever_else_changed(lib, folder, change):
    content = Content(300_000)
    fill(folder, a=content.data)
    lib.adopt(Scanner(lib.folder).run_once().added)
    path = folder / "a"
    if change == "grown":
        with open(path, "ab") as log:
            log.write(b"one line more\n")
    elif change == "touched":
        os.utime(path, ns=(1, 1))
    else:
        path.unlink()
        path.write_bytes(content.data)
    assert all(lib.read(content.file_id, index, 7, 100) == content.data[index * 65536 + 7:][:100] for index in range(4))
    data = bytearray(path.read_bytes())
    data[65536 + 7] ^= 1
    path.write_bytes(data)
    assert lib.read(content.file_id, 0, 0, 65536) == content.data[:65536]
    with pytest.raises(LibraryError) as refusal:        # of a piece all or nothing, also what of it is right
        lib.read(content.file_id, 1, 100, 10)
    assert refusal.value.kind is ErrorKind.CHANGED


def test_a_touched_file_of_huge_pieces_is_not_hashed_anew_for_each_span(lib, folder, monkeypatch):
    content = Content(300_000)
    fill(folder, a=content.data)
    lib.adopt(Scanner(lib.folder).run_once().added)
    os.utime(folder / "a", ns=(1, 1))
    monkeypatch.setattr(proven, "HASHED_AT_ONCE", 65535)
    with pytest.raises(LibraryError) as refusal:
        lib.read(content.file_id, 0, 7, 100)
    assert refusal.value.kind is ErrorKind.CHANGED
    assert lib.read(content.file_id, 4, 7, 100) == content.data[4 * 65536 + 7:][:100]


def test_a_piece_of_a_touched_file_is_hashed_once_for_all_its_spans(lib, folder, monkeypatch):
    content = Content(300_000)
    fill(folder, a=content.data)
    shared = Scanner(lib.folder).run_once().added
    lib.adopt(shared)
    os.utime(folder / "a", ns=(1, 1))
    read, reads = proven._read_raw, []
    monkeypatch.setattr(proven, "_read_raw", lambda *which: (reads.append(which[1]), read(*which))[1])
    spans = [lib.read(content.file_id, 1, start, 16384) for start in range(0, 65536, 16384)]
    assert b"".join(spans) == content.data[65536:131072] and reads == [65536]
    assert lib.read(content.file_id, 0, 0, 10) == content.data[:10] and reads == [65536, 0]
    (folder / "a").write_bytes(bytes(300_000))
    with pytest.raises(LibraryError):  # though what was proven is still in memory: who asks is to hear of the change
        lib.read(content.file_id, 0, 0, 10)


def test_a_pack_is_served_though_one_of_its_files_has_grown(lib, folder):
    fill(folder, **{f"d__{number}": bytes([number]) * 9000 for number in range(12)})
    pack = next(shared for shared in lib_scan(lib) if shared.members)
    with open(folder / "d" / "3", "ab") as log:
        log.write(b"one line more")
    data = b"".join(bytes([number]) * 9000 for number in sorted(range(12), key=str))
    assert lib.read(pack.file_id, 0, 0, 65536) == data[:65536]
    (folder / "d" / "3").write_bytes(b"quite another")
    with pytest.raises(LibraryError) as refusal:
        lib.read(pack.file_id, 0, 0, 65536)
    assert refusal.value.kind is ErrorKind.CHANGED


def lib_scan(lib):
    """What a scan of the folder finds; the library serves it."""
    found = Scanner(lib.folder).run_once().added
    lib.adopt(found)
    return found


@pytest.mark.parametrize("change", ["rewritten", "grown and rewritten", "cut", "removed", "replaced", "linked"])
def test_changed_file_is_not_served_but_its_unchanged_twin_is(lib, folder, tmp_path, change):
    content = Content(100_000)
    fill(folder, a=content.data)
    shared = Scanner(lib.folder).run_once().added
    lib.adopt(shared)
    path = folder / "a"
    if change == "rewritten":
        path.write_bytes(bytes(100_000))
        os.utime(path, ns=(1, 1))
    elif change == "grown and rewritten":
        path.write_bytes(bytes(100_000) + b"more")
    elif change == "cut":
        path.write_bytes(content.data[:10])
    elif change == "removed" or not POSIX:
        path.unlink()
    else:
        (tmp_path / "other").write_bytes(bytes(100_000))
        path.unlink()
        if change == "linked":
            path.symlink_to(tmp_path / "other")
        else:
            os.rename(tmp_path / "other", path)
    with pytest.raises(LibraryError) as refusal:
        lib.read(content.file_id, 0, 0, 10)
    assert refusal.value.kind is ErrorKind.CHANGED and lib.local_copy(content.file_id) is None
    fill(tmp_path, b=content.data)
    scanner = Scanner(lib.folder)
    scanner.add_path(str(tmp_path / "b"))
    twin = [file for file in scanner.run_once().added if file.name == "b"]
    lib.adopt(twin)
    assert lib.read(content.file_id, 0, 0, 10) == content.data[:10]
    assert lib.local_copy(content.file_id) == twin[0].path
    lib.withdraw(shared)
    assert lib.read(content.file_id, 0, 0, 10) == content.data[:10]
    lib.withdraw([content.file_id])
    with pytest.raises(LibraryError) as unknown:
        lib.manifest(content.file_id)
    assert unknown.value.kind is ErrorKind.UNKNOWN


def test_folder_is_served_as_the_bytes_of_its_listing(lib, folder):
    fill(folder, d__x=b"1", d__y=b"2")
    lib.adopt(Scanner(lib.folder).run_once().added)
    listing = encode_folder([FolderEntry(name, 1, identity_of(1, digests_of(data)), False)
                             for name, data in (("x", b"1"), ("y", b"2"))])
    assert lib.contents(identity_of(len(listing), digests_of(listing))) == listing


def test_fetched_listing_is_read_before_its_files_are_fetched(lib, folder):
    listing = encode_folder([FolderEntry("x", 1, ID, False)])
    digests = digests_of(listing)
    file_id = identity_of(len(listing), digests)
    lib.begin(file_id, len(listing), digests, label="photos", is_folder=True)
    assert [(part.label, part.is_folder) for part in lib.parts()] == [("photos", True)]
    with pytest.raises(LibraryError) as missing:
        lib.contents(file_id)
    assert missing.value.kind is ErrorKind.MISSING
    lib.write_piece(file_id, 0, listing)
    assert entries_of(lib.contents(file_id)) == [("x", 1, ID, False)]


def test_a_large_part_is_hashed_in_several_calls_so_that_others_have_their_turn(lib, folder, monkeypatch):
    monkeypatch.setattr(parts, "CLAIMS_BYTES_AT_ONCE", 2 * 65536)
    content = Content(7 * 65536)
    lib.begin(content.file_id, content.size, content.digests, label="large")
    for index in range(6):
        lib.write_piece(content.file_id, index, content.piece(index))
    path = folder / ".node" / "parts" / content.file_id.hex()
    data = bytearray(path.read_bytes())
    data[3 * 65536] ^= 1
    path.write_bytes(data)
    lib = restarted(lib)
    assert [part.verified_bytes for part in lib.parts()] == [6 * 65536]
    answers = [lib.begin(content.file_id, content.size, content.digests) for _ in range(3)]
    assert answers[:2] == [None, None]
    assert [has_piece(answers[2], index) for index in range(7)] == [True, True, True, False, True, True, False]
    for index in (3, 6):
        assert lib.write_piece(content.file_id, index, content.piece(index))
    assert Path(lib.finish(content.file_id, "large").path).read_bytes() == content.data


@pytest.mark.parametrize("relayed_to", [Destination.CACHE, Destination.PASSING])
def test_what_was_fetched_for_others_is_dropped_but_never_what_the_person_began(lib, folder, relayed_to):
    own, relayed, left = Content(200_000), Content(150_000, seed=2), Content(150_000, seed=3)
    lib.begin(own.file_id, own.size, own.digests, label="own")
    lib.write_piece(own.file_id, 0, own.piece(0))
    lib = restarted(lib)
    for content in (own, relayed, left):
        lib.begin(content.file_id, content.size, content.digests, relayed_to, "theirs")
        lib.write_piece(content.file_id, 1, content.piece(1))
    for content in (own, relayed):
        lib.discard(content.file_id)
    assert [(part.label, part.verified_bytes) for part in lib.parts()] == [("own", 2 * 65536)]
    lib = restarted(lib)
    assert [part.label for part in lib.parts()] == ["own"]
    assert len(os.listdir(folder / ".node" / "parts")) == 2  # nothing is left of the others


def test_content_that_is_here_gets_a_second_name_without_a_transfer(lib, folder):
    content = Content(150_000)
    fetch(lib, content, "d/a")
    assert lib.copy_local(content.file_id, "d/b").path == str(folder / "d" / "b")
    assert lib.copy_local(content.file_id, "d/b").was_there
    assert tree_of(folder) == {"d/a": content.data, "d/b": content.data}
    (folder / "d" / "a").write_bytes(b"changed")
    (folder / "d" / "b").unlink()
    lib._files.close()
    with pytest.raises(LibraryError):
        lib.copy_local(content.file_id, "d/c")


def test_a_content_stands_under_a_name_while_it_is_there_as_announced(lib, folder):
    content = Content(150_000)
    fetch(lib, content, "d/a")
    assert lib.stands(content.file_id, "d/a") and not lib.stands(content.file_id, "d/b")
    lib.copy_local(content.file_id, "d/b", flush=False)
    assert lib.stands(content.file_id, "d/b")
    (folder / "d" / "b").unlink()
    assert not lib.stands(content.file_id, "d/b") and lib.stands(content.file_id, "d/a")


# ---- The cache (G02, G08) --------------------------------------------------------------------------------------------


def test_cached_content_is_served_also_after_a_restart_and_can_become_a_file(lib, folder):
    content = Content(150_000)
    keep(lib, content, "lab.iso")
    for each in (lib, restarted(lib)):
        assert each.cached() == [(content.file_id, "lab.iso", 150_000, False)]
        assert tree_of(folder) == {} and each.local_copy(content.file_id) is None and each.parts() == []
    assert each.read(content.file_id, 2, 100, 50) == content.piece(2)[100:150]
    assert Path(each.copy_local(content.file_id, "mine").path).read_bytes() == content.data
    each.evict(content.file_id)
    assert os.listdir(folder / ".node" / "cache") == []
    each.close()


def test_damaged_cache_entry_is_dropped_when_it_is_asked_for(lib, folder):
    content = Content(150_000)
    keep(lib, content)
    lib.close()
    path = folder / ".node" / "cache" / content.file_id.hex()
    path.write_bytes(bytes(150_000))
    lib = restarted(lib)
    with pytest.raises(LibraryError) as damaged:
        lib.read(content.file_id, 0, 0, 5)
    assert damaged.value.kind is ErrorKind.CHANGED and lib.cached() == []
    assert os.listdir(path.parent) == []
    lib.close()


def test_cache_keeps_its_quota_and_the_most_recently_used(lib, folder, monkeypatch):
    monkeypatch.setattr(Room, "cache_quota", lambda self: 250_000)
    contents = [Content(100_000, seed) for seed in range(4)]
    keep(lib, contents[0])
    keep(lib, contents[1])
    lib.read(contents[0].file_id, 0, 0, 1)
    keep(lib, contents[2])
    assert [file.file_id for file in lib.cached()] == [contents[0].file_id, contents[2].file_id]
    lib.begin(contents[3].file_id, 100_000, contents[3].digests, Destination.CACHE)
    assert [file.file_id for file in lib.cached()] == [contents[2].file_id]
    large = Content(251_000)
    with pytest.raises(LibraryError) as refusal:
        lib.begin(large.file_id, large.size, large.digests, Destination.CACHE)
    assert refusal.value.kind is ErrorKind.FULL and len(lib.cached()) == 1
    lib.begin(large.file_id, large.size, large.digests)


def test_quota_is_the_smaller_of_its_two_limits(lib, monkeypatch):
    keep(lib, Content(100_000))
    monkeypatch.setattr(Library, "free_bytes", lambda self: 900_000)
    assert lib.cache_quota() == 50_000
    monkeypatch.setattr(Library, "free_bytes", lambda self: 1 << 50)
    assert lib.cache_quota() == room.CACHE_BYTES_MAX


def test_order_of_use_outlives_the_process_and_strays_are_cleared(lib, folder):
    contents = [Content(10, seed) for seed in range(3)]
    cache = folder / ".node" / "cache"
    for place, content in enumerate(contents):
        keep(lib, content)
        os.utime(cache / (content.file_id.hex() + ".map"), (place + 100, place + 100))
    lib.manifest(contents[0].file_id)
    lib.begin(bytes_id := Content(9).file_id, 9, Content(9).digests, Destination.CACHE)
    (cache / "stray").write_bytes(b"")
    (cache / ("0" * 64)).write_bytes(b"")
    lib = restarted(lib)
    assert [file.file_id for file in lib.cached()] == [contents[i].file_id for i in (1, 2, 0)]
    assert len(os.listdir(cache)) == 6 and os.listdir(folder / ".node" / "parts") == []
    with pytest.raises(LibraryError):
        lib.manifest(bytes_id)
    lib.close()


def test_relayed_content_that_the_person_wants_too_becomes_a_download(lib):
    content = Content(100_000)
    lib.begin(content.file_id, content.size, content.digests, Destination.CACHE)
    lib.write_piece(content.file_id, 0, content.piece(0))
    lib.begin(content.file_id, content.size, content.digests, label="lab.iso")
    lib = restarted(lib)
    assert [(part.label, part.verified_bytes) for part in lib.parts()] == [("lab.iso", 65536)]
    lib.close()


# ---- One file from end to end ----------------------------------------------------------------------------------------

def test_reader_and_writer_carry_a_file(tmp_path):
    data = bytes_of(300_000)
    fill(tmp_path, source=data)
    reader = SequentialReader(str(tmp_path / "source"))
    with reader, SequentialWriter(str(tmp_path / "in"), "copy.bin", reader.size) as writer:
        while chunk := reader.read(65536):
            writer.write(chunk)
        path = writer.finish()
    assert path == str(tmp_path / "in" / "copy.bin") and Path(path).read_bytes() == data
    assert reader.hexdigest() == writer.hexdigest() == hashlib.sha256(data).hexdigest()
    assert os.listdir(tmp_path / "in") == ["copy.bin"]


def test_writer_overwrites_nothing_and_leaves_nothing(tmp_path):
    fill(tmp_path, **{"a.txt": b"mine"})
    with SequentialWriter(str(tmp_path), "a.txt", 3) as writer:
        writer.write(b"new")
        assert writer.finish() == str(tmp_path / "a (2).txt")
    with SequentialWriter(str(tmp_path), "b", 3) as writer:
        writer.write(b"ab")
        with pytest.raises(LibraryError):
            writer.write(b"cd")
        with pytest.raises(LibraryError):
            writer.finish()
    with SequentialWriter(str(tmp_path), "empty", 0) as writer:
        writer.finish()
    assert tree_of(tmp_path) == {"a.txt": b"mine", "a (2).txt": b"new", "empty": b""}
    for name, size in (("../x", 1), ("a/b", 1), ("x", -1), ("x", 2**63), ("x", FILE_SIZE_MAX)):
        with pytest.raises(LibraryError):
            SequentialWriter(str(tmp_path), name, size)
    assert len(os.listdir(tmp_path)) == 3


def test_reader_notices_a_change_and_refuses_what_is_no_file(tmp_path):
    fill(tmp_path, a=bytes(100))
    with SequentialReader(str(tmp_path / "a")) as reader:
        reader.read(10)
        (tmp_path / "a").write_bytes(bytes(200))
        with pytest.raises(LibraryError) as changed:
            reader.read(10)
    assert changed.value.kind is ErrorKind.CHANGED
    for path in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(LibraryError):
            SequentialReader(str(path))


def test_sizes_read_like_a_person_writes_them():
    assert [size_text(size) for size in (0, 999, 1000, 80_000_000, 999_960_000, 4_200_000_000, 1 << 60)] == [
        "0 B", "999 B", "1.0 kB", "80.0 MB", "1.0 GB", "4.2 GB", "1152.9 PB"]


@needs_posix
def test_a_folder_that_stays_open_for_many_files_is_looked_for_anew_where_its_path_leads_elsewhere(tmp_path):
    (tmp_path / "outside").mkdir()
    with LastFolder(str(tmp_path)) as below:
        first = below.at(["photos", "may"])
        assert first.is_new and below.at(["photos", "may"]) is first and not first.is_new
        (tmp_path / "photos" / "may").rename(tmp_path / "june")
        second = below.at(["photos", "may"])
        assert second is not first and second.is_new and (tmp_path / "photos" / "may").is_dir()
        (tmp_path / "photos" / "may").rmdir()
        (tmp_path / "photos" / "may").symlink_to(tmp_path / "outside")
        with pytest.raises(OSError):
            below.at(["photos", "may"])
        (tmp_path / "photos" / "may").unlink()
        assert below.at(["photos", "may"]).is_new
    assert not os.listdir(tmp_path / "outside")
