"""Folders of many small files: packed together on the way, and each verified, named and told by itself."""

from __future__ import annotations

import errno
import gc
import os
import weakref
from collections import Counter, deque
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from disk import folders, small
from disk.downloads import Finished
from disk.library import Library
from disk.places import Folder
from disk.room import RoomLeft
from disk.scanner import Scanner
from node_tests.stage.amounts import amount
from node_tests.stage.lab import MIB, content
from prompt.lines import line_for
from protocol.content import listing
from protocol.content import pieces as rules
from protocol.content.listing import (
    PACK_BYTES_MAX,
    PACK_FILES_MIN,
    SMALL_FILE_MAX,
    FolderEntry,
    decode_listing,
    encode_folder,
    ids_in,
    packs_in,
)
from protocol.content.memory import MemoryPieces
from protocol.content.pieces import DIGEST_BYTES, digests_of, identity_of
from protocol.content.shares import shared_pack
from protocol.content.troubles import NO_MORE_FILES, ErrorKind, LibraryError
from protocol.exchange import fetching, folder_job, holdings, store
from protocol.exchange.fetching import SERVED_ON_TIME
from protocol.messages import PIECE_MISSING, UNKNOWN_FILE, PieceData, PieceRefused, PieceRequest, encode_parts
from protocol.results import DownloadDone, Notice, Paused, Resumed, Stopped, UploadDone


def entry(path: str, data: bytes) -> FolderEntry:
    return FolderEntry(path, len(data), identity_of(len(data), digests_of(data)), False)


def small_tree(count: int = 40, name: str = "talks") -> dict[str, bytes]:
    return {"%s/d%d/%03d.txt" % (name, number % 3, number): content(500 + number, number) for number in range(count)}


def fetched_from(node, holder: str):
    """Fetch the one thing that this node shares, though others have something of that name."""
    entry = next(row for row in node.list() if row.holders == (holder,))
    node.do("fetch", entry, node.world.now, lambda answer: None)
    assert node.world.run_until(lambda: node.told((DownloadDone, Stopped)), node.world.now + 60)
    return node.told((DownloadDone, Stopped))[0]


def reads_of(node) -> list:
    """Which contents' pieces are read at a node, from now on."""
    seen, read = [], node.library.read

    def reading(file_id, index, offset, length):
        seen.append(file_id)
        return read(file_id, index, offset, length)

    node.library.read = reading
    return seen


# ---- the listing --------------------------------------------------------------------------------------------------


def test_small_files_are_packed_in_order_and_large_empty_and_repeated_ones_are_not():
    small = [FolderEntry("a%03d" % number, 1000, bytes([number]) * 32, False) for number in range(20)]
    others = [FolderEntry("b", SMALL_FILE_MAX + 1, b"b" * 32, False), FolderEntry("c", 0, b"c" * 32, False),
              FolderEntry("d", 0, b"", True), FolderEntry("e", 1000, small[3].file_id, False)]
    packs = packs_in([*small, *others])
    assert [(pack.size, pack.members) for pack in packs] == [(20_000, tuple(small))]
    assert packs_in(small[:PACK_FILES_MIN - 1]) == []


def test_a_pack_is_never_larger_than_it_may_be():
    entries = [FolderEntry("%04d" % number, SMALL_FILE_MAX - number % 7, b"%032d" % number, False)
               for number in range(400)]
    packs = packs_in(entries)
    assert len(packs) == 4 and all(pack.size <= PACK_BYTES_MAX for pack in packs)
    assert [member for pack in packs for member in pack.members] == entries


def test_ids_of_packs_come_with_the_listing_all_or_none():
    entries = [FolderEntry("a%03d" % number, 1000, b"%032d" % number, False) for number in range(20)]
    pack_id = b"p" * DIGEST_BYTES
    plain, packed = encode_folder(entries), encode_folder(entries, [pack_id])
    assert decode_listing(plain) == (entries, [])
    assert packed == plain + pack_id and decode_listing(packed)[1][0].file_id == pack_id
    assert ids_in(packed) == {one.file_id for one in entries} | {pack_id}
    for wrong in (packed[:-1], packed + b"x", packed + pack_id):
        with pytest.raises(LibraryError):
            decode_listing(wrong)


def test_a_pack_is_known_after_a_restart_without_reading_its_files(tmp_path, monkeypatch):
    for name, data in small_tree().items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        os.utime(path, ns=(10**18, 10**18))
    found = []
    for _ in range(2):
        with Library(str(tmp_path)):
            scanner = Scanner(str(tmp_path))
            found.append({file.name: file.file_id for file in scanner.run_once().added})
            scanner.close()
        monkeypatch.setattr(folders, "read_member", None)     # nothing may call it the second time
    assert found[0] == found[1] and "talks/small files 1" in found[0]


# ---- from the command to the disk ---------------------------------------------------------------------------------


def test_a_folder_of_small_files_comes_as_one_content_and_every_file_is_right(lab):
    tree = small_tree()
    ana = lab.node("ana", shared=tree)
    (Path(ana.folder) / "talks" / "empty" / "inner").mkdir(parents=True)
    (Path(ana.folder) / "talks" / "nothing.txt").write_bytes(b"")
    (Path(ana.folder) / "talks" / "large.bin").write_bytes(content(2 * MIB, 99))
    ana.scan()
    bo, reads = lab.node("bo"), reads_of(ana)
    done = bo.fetched("talks")
    assert isinstance(done, DownloadDone) and done.sources == ("ana",), done
    assert done.size == sum(map(len, tree.values())) + 2 * MIB
    assert all(bo.read(name) == data for name, data in tree.items())
    assert bo.read("talks/large.bin") == content(2 * MIB, 99) and bo.read("talks/nothing.txt") == b""
    assert (Path(bo.folder) / "talks" / "empty" / "inner").is_dir()
    assert len(set(reads)) == 3, "the listing, the pack and the large file"
    assert not os.listdir(Path(bo.folder) / ".node" / "parts")
    bo.scan()
    assert set(bo.list("talks")[0].holders) == {"ana", "bo"} and len(bo.list()) == 1


@pytest.mark.parametrize("data", [b"", b"one and the same"])
def test_many_names_of_one_content_are_copied_one_after_the_other_and_flushed_together(lab, monkeypatch, data):
    """Gone through anew for each file, the names that wait made a hundred thousand empty files take for ever."""
    taken, flushed = [], []

    class Counted(deque):
        def popleft(self):
            taken.append(1)
            return super().popleft()

    names = ["talks/%03d" % number for number in range(200)]
    lab.node("ana", shared=dict.fromkeys(names, data))
    bo = lab.node("bo")
    monkeypatch.setattr(folder_job, "deque", Counted)
    monkeypatch.setattr(os, "fsync", lambda descriptor: flushed.append(1))
    assert isinstance(bo.fetched("talks"), DownloadDone)
    assert all(bo.read(name) == data for name in names)
    assert len(taken) <= 3 * len(names) and len(flushed) < len(names) / 4


def test_empty_files_are_made_in_groups_and_begin_no_download(lab, monkeypatch):
    """Each was a part of its own, with a map that was made and removed: a hundred thousand took over a minute."""
    names = ["talks/%04d" % number for number in range(2 * small.SLICE_FILES + 50)]
    lab.node("ana", shared={**dict.fromkeys(names, b""), "talks/large.bin": content(MIB)})
    bo, begun, slices = lab.node("bo"), [], []
    begin, keep = bo.library.begin, bo.library.keep_small
    monkeypatch.setattr(bo.library, "begin", lambda *words, **more: begun.append(words[1]) or begin(*words, **more))
    monkeypatch.setattr(bo.library, "keep_small", lambda *words: slices.append(keep(*words)) or slices[-1])
    assert isinstance(bo.fetched("talks"), DownloadDone)
    assert all(bo.read(name) == b"" for name in names) and set(begun) == {MIB}
    assert slices.count(None) == 2 * (len(names) // small.SLICE_FILES), "others have the disk between"
    (Path(bo.folder) / names[7]).unlink()
    bo.scan()
    bo.events.clear()
    assert isinstance(fetched_from(bo, "ana"), DownloadDone) and bo.read(names[7]) == b""
    assert len(os.listdir(Path(bo.folder) / "talks")) == len(names) + 1, "none of them came twice"


@pytest.mark.parametrize("here, packed", [(4, True), (36, False)])
def test_what_is_here_already_is_not_moved_again(lab, here, packed):
    tree = small_tree()
    ana = lab.node("ana", shared=tree)
    bo = lab.node("bo", shared=dict(list(tree.items())[:here]))
    reads, pack = reads_of(ana), next(file for file in ana.scanner.folders.packs[str(Path(ana.folder) / "talks")])
    done = fetched_from(bo, "ana")
    assert isinstance(done, DownloadDone) and all(bo.read(name) == data for name, data in tree.items())
    assert (pack.file_id in reads) is packed
    assert sorted(os.listdir(Path(bo.folder) / "talks")) == ["d0", "d1", "d2"]
    assert sum(len(os.listdir(Path(bo.folder) / "talks" / name)) for name in ("d0", "d1", "d2")) == len(tree)
    bo.scan()
    assert bo.fetch("talks").kind == "already here"


def test_a_file_of_the_person_under_a_name_in_the_folder_is_left_alone(lab):
    tree = small_tree(10)
    name = next(iter(tree))
    lab.node("ana", shared=tree)
    bo = lab.node("bo", shared={name: b"my own notes"})
    assert isinstance(fetched_from(bo, "ana"), DownloadDone)
    assert bo.read(name) == b"my own notes"
    assert bo.read(name.replace(".txt", " (2).txt")) == tree[name]


@pytest.mark.parametrize("mesh", [True, False])
def test_a_file_that_changed_at_its_source_fails_alone_and_is_named(lab, mesh):
    tree = small_tree()
    lab.node("cy")
    ana, bo = lab.node("ana", shared=tree), lab.node("bo", mesh=mesh)
    name = sorted(tree)[5]
    (Path(ana.folder) / name).write_bytes(b"changed")       # and not yet seen by its scanner
    stopped = bo.fetched("talks", within=240.0)
    assert isinstance(stopped, Stopped) and name in stopped.reason and "more)" not in stopped.reason, stopped
    assert all(bo.read(one) == data for one, data in tree.items() if one != name)
    assert not (Path(bo.folder) / name).exists()


def test_with_the_mesh_off_a_pack_comes_by_way_of_the_supernode_and_is_not_listed_there(lab):
    tree = small_tree()
    lab.node("ana")
    lab.node("bo", shared=tree)
    cy, di = lab.node("cy", mesh=False), lab.node("di", mesh=False)
    done = cy.fetched("talks")
    assert isinstance(done, DownloadDone) and done.by_way_of == "ana"
    assert all(cy.read(name) == data for name, data in tree.items())
    lab.run(2)
    assert [row.name for row in di.list()] == ["talks"]
    assert isinstance(di.fetched("talks"), DownloadDone) and all(di.read(name) == data for name, data in tree.items())


def test_two_wishes_for_one_folder_both_end_right(lab):
    tree = small_tree()
    copy = {name.replace("talks", "copy"): data for name, data in tree.items()}
    lab.node("ana", shared={**tree, **copy, "copy/large.bin": content(MIB)})
    bo = lab.node("bo")
    bo.fetch("talks")
    bo.fetch("copy")
    assert lab.world.run_until(lambda: len(bo.told((DownloadDone, Stopped))) == 2, lab.world.now + 60)
    assert len(bo.told(DownloadDone)) == 2
    for name, data in tree.items():
        assert bo.read(name) == bo.read(name.replace("talks", "copy")) == data


@pytest.mark.parametrize("lie", ["another content", "files in another order", "no such pack", "one twice"])
def test_a_pack_that_is_not_what_its_listing_says_is_made_good_by_its_files(lab, monkeypatch, lie):
    tree, said = small_tree(), []
    if lie == "one twice":
        monkeypatch.setattr(listing, "PACK_BYTES_MAX", 1 + sum(map(len, tree.values())) // 2)

    def lying(name, path, pack, digests, members):
        if lie == "files in another order":
            members = tuple(reversed(members))
        elif lie == "another content":
            members = members[:-1] + members[-2:-1]
        data = b"".join(Path(one).read_bytes() for one, _ in members)
        pack = pack._replace(size=len(data))
        made = shared_pack(name, path, pack, digests_of(data), members)
        said.append(made.file_id)
        if lie == "one twice":
            return replace(made, file_id=said[0])
        return made if lie != "no such pack" else replace(made, file_id=b"x" * 32)

    monkeypatch.setattr(folders, "shared_pack", lying)
    lab.node("ana", shared=tree)
    bo = lab.node("bo")
    done = bo.fetched("talks", within=120.0)
    assert isinstance(done, DownloadDone), done
    assert all(bo.read(name) == data for name, data in tree.items()) and len(said) == 1 + (lie == "one twice")


def test_a_full_disk_holds_the_small_files_back_and_room_brings_them(lab):
    tree = small_tree()
    lab.node("ana", shared=tree)
    bo = lab.node("bo")
    keep_small, is_full = bo.library.keep_small, [True]

    def keep(*words):
        if is_full[0]:
            raise LibraryError(ErrorKind.FULL, "Cannot save it: the disk is full.")
        return keep_small(*words)

    bo.library.keep_small = keep
    free_bytes, bo.library.free_bytes = bo.library.free_bytes, lambda: 10 if bo.told(Paused) or is_full[0] else 1 << 40
    monkey = bo.library.check_room
    bo.library.check_room = lambda label, needed: None if needed > 10 and not bo.told(Paused) else monkey(label, needed)
    bo.fetch("talks")
    assert lab.world.run_until(lambda: bo.told(Paused), lab.world.now + 30)
    assert bo.told(Paused)[0].free == 10 and not (Path(bo.folder) / sorted(tree)[0]).exists()
    is_full[0], bo.library.free_bytes = False, free_bytes
    assert lab.world.run_until(lambda: bo.told(DownloadDone), lab.world.now + 60)
    assert all(bo.read(name) == data for name, data in tree.items())


def test_a_disk_that_takes_no_more_files_is_tried_less_and_less_often_however_many_files_wait(lab, monkeypatch):
    """Each of sixteen files that failed at once saw that there were bytes, and had all sixteen begin again."""
    tree = {"talks/%02d.bin" % number: content(300_000, number) for number in range(24)}
    lab.node("ana", shared=tree)
    bo = lab.node("bo")
    begin, tries, takes = bo.library.begin, [], [9]

    def beginning(file_id, *words, **more):
        if file_id not in bo.library._parts.contents:
            tries.append(lab.world.now)
            if not takes[0]:
                raise LibraryError(ErrorKind.FULL, "Cannot save it: " + NO_MORE_FILES + ".")
            takes[0] -= 1
        return begin(file_id, *words, **more)

    monkeypatch.setattr(bo.library, "begin", beginning)
    bo.fetch("talks")
    assert lab.world.run_until(lambda: bo.told(Paused), lab.world.now + 30)
    lab.run(300)
    rounds = sorted({round(at) for at in tries})
    assert len(tries) < 400 and len(bo.told(Paused)) < 20 and len(bo.told(Resumed)) < 20 and not bo.told(Stopped)
    assert rounds[-1] - rounds[-2] >= 29 and bo.row().state.startswith("paused: ")
    monkeypatch.setattr(bo.library._room, "left", lambda: RoomLeft(1 << 40, False))
    told, tried = len(bo.told(Resumed)), len(tries)
    lab.run(100)
    assert len(tries) <= tried + 16 and len(bo.told(Resumed)) <= told + 1, "nothing is tried while it is known in vain"
    assert bo.row().state == "paused: the disk takes no more files"
    line = line_for(bo.told(Paused)[-1]._replace(free=12_000_000, takes_files=False), "shared")
    assert ": the disk takes no more files (no inodes are left, though 12.0 MB are free); goes on when" in line
    monkeypatch.undo()
    assert lab.world.run_until(lambda: bo.told(DownloadDone), lab.world.now + 60)
    assert all(bo.read(name) == data for name, data in tree.items())


@pytest.mark.skipif(not hasattr(os, "statvfs"), reason="Windows counts no inodes")
def test_what_is_said_where_only_inodes_are_missing(lib, monkeypatch):
    data, real = content(5000), os.statvfs(lib.folder)
    words = digests_of(data)
    disk = SimpleNamespace(f_files=100, f_bavail=real.f_bavail, f_frsize=real.f_frsize, f_blocks=real.f_blocks,
                           f_bfree=real.f_bfree)

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    for name in ("open", "mkdir"):
        monkeypatch.setattr(os, name, full)
    for inodes, said in ((0, NO_MORE_FILES), (5, "the disk is full")):
        disk.f_favail = inodes
        monkeypatch.setattr(os, "statvfs", lambda place: disk)
        for work in (lambda: lib.begin(identity_of(len(data), words), len(data), words, label="x"),
                     lambda: lib.make_folder("talks")):
            monkeypatch.setattr(Folder, "open", classmethod(lambda cls, path: cls(path, None)))
            with pytest.raises(LibraryError) as caught:
                work()
            assert caught.value.kind is ErrorKind.FULL and caught.value.sentence.endswith(said + ".")


def test_a_source_that_dies_in_the_middle_of_a_pack_is_replaced(lab):
    tree = {"talks/%03d.bin" % number: content(100_000, number) for number in range(60)}
    lab.node("ana")
    bo = lab.node("bo", shared=tree, disk_delay=0.02)
    lab.node("cy", shared=tree, disk_delay=0.02)
    di = lab.node("di")
    di.fetch("talks")
    uploads = bo.peer.serving.uploads
    lab.world.run_until(lambda: any(map(uploads.sent_on, uploads.links.values())), 60)
    lab.run(0.1)
    bo.kill()
    assert lab.world.run_until(lambda: di.told((DownloadDone, Stopped)), lab.world.now + 120)
    assert isinstance(di.told((DownloadDone, Stopped))[0], DownloadDone), di.told((Stopped, Notice))
    assert all(di.read(name) == data for name, data in tree.items())

# ---- many who fetch one folder at once ----------------------------------------------------------------------------


def large_tree(count: int = 60) -> dict[str, bytes]:
    return {"talks/%03d.bin" % number: content(100_000, number) for number in range(count)}


def given(node) -> dict[bytes, int]:
    """The bytes that this node sends of each content, from now on."""
    sent, send = Counter(), node.peer.serving.send

    def sending(link, message):
        if isinstance(message, PieceData):
            sent[message.file_id] += len(message.data)
        send(link, message)

    node.peer.serving.send = sending
    return sent


def pack_of(node) -> Any:
    return node.scanner.folders.packs[str(Path(node.folder) / "talks")][0]


def asked_at_once(lab, nodes) -> None:
    for node in nodes:
        node.do("fetch_name", "talks", lab.world.now, node.answers.append)


def test_of_many_who_fetch_a_folder_of_small_files_each_gets_most_from_the_others(lab):
    tree = large_tree()
    lab.node("ana")
    bo = lab.node("bo", shared=tree, disk_delay=0.02)
    many = [lab.node("n%d" % number, disk_delay=0.002) for number in range(6)]
    sent, pack = given(bo), pack_of(bo)
    lab.run(5)
    asked_at_once(lab, many)
    assert lab.world.run_until(lambda: all(node.told((DownloadDone, Stopped)) for node in many), lab.world.now + 60)
    assert all(node.told(DownloadDone) for node in many)
    assert all(node.read(name) == data for node in many for name, data in tree.items())
    assert sent[pack.file_id] < 1.7 * pack.size
    assert all(len(node.told(DownloadDone)[0].sources) > 2 for node in many)


def one_behind_the_other(lab, tree) -> tuple:
    """Of two who fetch the folder of the first, the second has all but the scan, the third the smallest part."""
    lab.node("ana")
    bo = lab.node("bo", shared=tree, disk_delay=0.02)
    cy, di = lab.node("cy", disk_delay=0.02), lab.node("di")
    pack = pack_of(bo)
    cy.fetch("talks")
    assert lab.world.run_until(lambda: verified(cy, pack) > 0.9 * pack.size, lab.world.now + 60)
    di.fetch("talks")
    assert lab.world.run_until(lambda: cy.told(DownloadDone) and verified(di, pack), lab.world.now + 60)
    assert pack.file_id in cy.peer.fetching.served_on and cy.peer.holdings.size_of(pack.file_id) is None
    assert verified(di, pack) < pack.size // 2
    return bo, cy, di, pack


def verified(node, pack) -> int:
    """How many bytes of it this node could give to others."""
    download = node.peer.fetching._partial_of(pack.file_id)
    return download.verified_bytes if download is not None else 0


@pytest.mark.parametrize("is_killed", [True, False])
def test_who_has_a_pack_gives_it_to_those_who_have_not_when_its_first_source_leaves(lab, is_killed):
    tree = large_tree()
    bo, cy, di, pack = one_behind_the_other(lab, tree)
    sent = given(cy)
    (bo.kill if is_killed else bo.quit)()
    assert lab.world.run_until(lambda: di.told((DownloadDone, Stopped)), lab.world.now + 60)
    assert di.told(DownloadDone) and all(di.read(name) == data for name, data in tree.items())
    assert sent[pack.file_id] > pack.size // 2 and set(sent) == {pack.file_id}, "no file had to be asked for alone"
    lab.run(1)
    assert [(done.name, done.to_label) for done in cy.told(UploadDone)] == [("talks", "di")]


def test_who_shares_a_pack_that_others_take_from_its_memory_is_their_source_throughout(lab):
    tree = large_tree()
    bo, cy, di, pack = one_behind_the_other(lab, tree)
    bo.kill()
    cy.scan()
    lab.run(0.5)
    assert not cy.peer.fetching.served_on and verified(di, pack) < pack.size
    assert lab.world.run_until(lambda: di.told((DownloadDone, Stopped)), lab.world.now + 60)
    assert di.told(DownloadDone) and all(di.read(name) == data for name, data in tree.items())
    assert not di.told(Notice)


def test_one_with_its_mesh_off_gets_a_pack_out_of_the_memory_of_the_supernode_that_fetches_it_for_itself(lab):
    tree = large_tree()
    ana = lab.node("ana", disk_delay=0.001)
    lab.node("bo", shared=tree, disk_delay=0.02)
    cy = lab.node("cy", mesh=False)
    asked_at_once(lab, [ana, cy])
    assert lab.world.run_until(lambda: ana.told(DownloadDone) and cy.told(DownloadDone), lab.world.now + 60)
    for node in (ana, cy):
        assert all(node.read(name) == data for name, data in tree.items())


def memories(monkeypatch) -> list:
    """What is kept in memory for contents, at all nodes together, from now on; nothing here keeps it alive."""
    made = weakref.WeakSet()

    class Seen(MemoryPieces):
        def __init__(self, *words):
            super().__init__(*words)
            made.add(self)

    monkeypatch.setattr(store, "MemoryPieces", Seen)
    return made


@pytest.mark.parametrize("end", ["a minute", "a scan", "its own leaving"])
def test_the_memory_of_a_pack_is_let_go_some_time_after_its_end(lab, monkeypatch, end):
    kept = memories(monkeypatch)
    lab.node("ana")
    bo = lab.node("bo", shared=large_tree(), disk_delay=0.02)
    cy, di = lab.node("cy", disk_delay=0.001), lab.node("di", disk_delay=0.05)
    pack = pack_of(bo)
    asked_at_once(lab, [cy, di])
    assert lab.world.run_until(lambda: cy.told(DownloadDone), lab.world.now + 60)
    if end == "a minute":
        lab.run(SERVED_ON_TIME - 3)
        assert pack.file_id in cy.peer.fetching.served_on
        lab.run(3)
    elif end == "a scan":
        cy.scan()
    else:
        cy.quit()
    lab.run(1)
    assert not cy.peer.fetching.served_on
    lab.world.run_until(lambda: di.told(DownloadDone), lab.world.now + 60)
    lab.run(SERVED_ON_TIME + 1)
    gc.collect()
    assert not kept


@pytest.mark.parametrize("end", ["cancelled", "its source left", "it left"])
@pytest.mark.parametrize("is_late", [True, False][: amount(2, 1)])
def test_the_memory_of_packs_is_let_go_at_once_when_their_job_does_not_succeed(lab, monkeypatch, end, is_late):
    monkeypatch.setattr(listing, "PACK_BYTES_MAX", 2 * MIB)
    kept = memories(monkeypatch)
    lab.node("ana")
    bo, cy = lab.node("bo", shared=large_tree(), disk_delay=0.02), lab.node("cy")
    cy.fetch("talks")       # late: some packs are unpacked and served on, the last is still on its way
    is_begun = (lambda: len(cy.peer.fetching.served_on) > 2) if is_late else (lambda: len(kept) > 1)
    assert lab.world.run_until(is_begun, lab.world.now + 60) and cy.peer.fetching.fetches
    if end == "cancelled":
        cy.do("cancel", cy.answers[0].transfer, lab.world.now)
    elif end == "it left":
        cy.do("leave", lab.world.now, lambda *_: None)
    else:
        bo.kill()
    assert lab.world.run_until(lambda: cy.row().state == "stopped", lab.world.now + 120)
    assert not (cy.peer.fetching.served_on or cy.peer.fetching.fetches)
    lab.run(0.5)
    gc.collect()
    assert not kept


def test_no_more_than_two_packs_are_served_on_out_of_memory(lab, monkeypatch):
    monkeypatch.setattr(listing, "PACK_BYTES_MAX", MIB)
    monkeypatch.setattr(fetching, "SERVED_ON_BYTES_MAX", 2 * MIB)
    tree = large_tree()
    lab.node("ana")
    lab.node("bo", shared=tree, disk_delay=0.02)
    many = [lab.node("n%d" % number, disk_delay=0.002 * 4**number) for number in range(4)]
    sizes = []

    def all_done() -> bool:
        sizes.append(max(sum(one.download.size for one in node.peer.fetching.served_on.values()) for node in many))
        return all(node.told((DownloadDone, Stopped)) for node in many)

    asked_at_once(lab, many)
    assert lab.world.run_until(all_done, lab.world.now + 120) and MIB < max(sizes) <= 2 * MIB
    assert all(node.told(DownloadDone) for node in many)
    assert all(node.read(name) == data for node in many for name, data in tree.items())


def test_a_piece_of_a_pack_that_is_not_verified_is_refused_and_so_is_all_of_it_when_it_is_let_go(lab):
    lab.node("ana")
    bo = lab.node("bo", shared=large_tree(), disk_delay=0.02)
    cy, di = lab.node("cy"), lab.node("di")
    pack, answers, send = pack_of(bo), [], cy.peer.serving.send
    asked_at_once(lab, [cy, di])
    assert lab.world.run_until(lambda: verified(cy, pack) > MIB, lab.world.now + 60)
    link = next(link for link, upload in cy.peer.serving.uploads.links.items() if upload.label == "di")
    cy.peer.serving.send = lambda to, message: (answers.append(message), send(to, message))

    def answer_to(message) -> Any:
        cy.peer.serving.uploads.links[link].jobs.clear()
        answers.clear()
        cy.do("on_message", link, b"".join(bytes(part) for part in encode_parts(message)), lab.world.now)
        mine = (PieceRefused, PieceData)
        lab.world.run_until(lambda: any(isinstance(one, mine) and one.index == message.index for one in answers),
                            lab.world.now + 1)
        return next(one for one in answers if isinstance(one, mine) and one.index == message.index)

    is_verified = cy.peer.fetching._partial_of(pack.file_id).choice.is_verified
    had, missing = is_verified.index(1), is_verified.index(0)
    start = had * rules.piece_size_of(pack.size)
    whole = b"".join(data for _, data in sorted(large_tree().items()))
    assert answer_to(PieceRequest(pack.file_id, missing)).reason == PIECE_MISSING
    assert answer_to(PieceRequest(pack.file_id, 5000)).reason == PIECE_MISSING
    assert bytes(answer_to(PieceRequest(pack.file_id, had)).data) == whole[start:start + 64 * 1024]
    cy.do("cancel", cy.answers[0].transfer, lab.world.now)
    assert answer_to(PieceRequest(pack.file_id, had)).reason == UNKNOWN_FILE


def test_memory_gives_out_what_is_verified_and_nothing_else():
    whole = content(150_000)
    memory = MemoryPieces(len(whole), digests_of(whole), 64 * 1024)
    assert not memory.write_piece(1, bytes(64 * 1024)) and not any(memory.data)
    assert memory.write_piece(2, whole[128 * 1024:])
    assert memory.read(2, 10, 100) == whole[128 * 1024 + 10:][:100]
    for index, offset, length, kind in ((1, 0, 10, ErrorKind.MISSING), (2, 0, 64 * 1024, ErrorKind.MALFORMED),
                                        (3, 0, 0, ErrorKind.MALFORMED), (-1, 0, 1, ErrorKind.MALFORMED),
                                        (2, -1, 1, ErrorKind.MALFORMED), (2, 0, -1, ErrorKind.MALFORMED)):
        with pytest.raises(LibraryError) as caught:
            memory.read(index, offset, length)
        assert caught.value.kind is kind


# ---- many shares ----


def test_many_shares_are_announced_in_portions_and_all_are_listed_also_after_a_change_of_supernode(lab, monkeypatch):
    monkeypatch.setattr(holdings, "ANNOUNCED_AT_ONCE", 10)
    ana = lab.node("ana")
    lab.node("bo", shared={"%03d.txt" % number: b"%d" % number for number in range(35)})
    cy = lab.node("cy")
    lab.run(1)
    assert [row.name for row in cy.list()] == ["%03d.txt" % number for number in range(35)]
    ana.quit()
    lab.run(20)
    assert [row.holders for row in cy.list()] == [("bo",)] * 35


def test_a_folder_with_more_files_than_may_be_announced_announces_the_first_and_says_so(lab, monkeypatch):
    monkeypatch.setattr(holdings, "SHARES_MAX", 20)
    lab.node("ana")
    bo = lab.node("bo", shared={"%03d.txt" % number: b"%d" % number for number in range(30)})
    cy = lab.node("cy")
    lab.run(1)
    before = [row.name for row in cy.list()]
    (Path(bo.folder) / "000.new").write_bytes(b"new")
    bo.scan()
    assert len(before) == 20 and [row.name for row in cy.list()] == before, "what was announced stays"
    assert [event.text for event in bo.told(Notice)] == [
        "Only the first 20 files are announced; put the rest into a folder."]


def test_a_long_list_comes_whole_and_in_order_though_its_pages_are_asked_at_once(lab):
    lab.node("ana", shared={"%04d.txt" % number: b"%d" % number for number in range(1230)})
    bo = lab.node("bo")
    assert [row.name for row in bo.list()] == ["%04d.txt" % number for number in range(1230)]
    assert [row.number for row in bo.list("1*")] == list(range(1, len(bo.list("1*")) + 1))


# ---- the library --------------------------------------------------------------------------------------------------


@pytest.fixture
def lib(tmp_path):
    with Library(str(tmp_path / "shared")) as opened:
        yield opened


def test_small_files_are_flushed_before_they_are_named(lib, monkeypatch):
    data = [content(1000, number) for number in range(10)]
    entries = [entry("d/%d" % number, one) for number, one in enumerate(data)]
    order = []
    flush, take_in = small.flush_paths, Folder.take_in
    monkeypatch.setattr(small, "flush_paths", lambda paths: (order.append(("flush", len(paths))), flush(paths)))
    monkeypatch.setattr(Folder, "take_in", lambda *words: (order.append("name"), take_in(*words))[1])
    kept = lib.keep_small("talks", entries, b"".join(data))
    assert order == [("flush", 10)] + ["name"] * 10
    assert [Path(one.path).read_bytes() for one in kept] == data
    assert [one.shared.file_id for one in kept] == [one.file_id for one in entries]


def test_bytes_that_are_not_the_files_of_the_listing_are_never_named(lib):
    data = [content(1000, number) for number in range(10)]
    entries = [entry("%d" % number, one) for number, one in enumerate(data)]
    for damaged in (b"".join(data[:5]) + bytes(1000) + b"".join(data[6:]), b"".join(data[:5]), b""):
        kept = lib.keep_small("t%d" % len(damaged), entries, damaged)
        for number, one in enumerate(kept):
            is_right = damaged[number * 1000:(number + 1) * 1000] == data[number]
            assert isinstance(one, Finished) is is_right
    assert not os.listdir(Path(lib.folder) / ".node" / "parts")


def test_a_link_in_the_way_of_a_small_file_leads_nowhere(lib, tmp_path):
    if os.name == "nt":
        pytest.skip("needs links")
    (tmp_path / "outside").mkdir()
    os.makedirs(Path(lib.folder) / "talks")
    (Path(lib.folder) / "talks" / "up").symlink_to(tmp_path / "outside")
    (Path(lib.folder) / "talks" / "x").symlink_to(tmp_path / "outside" / "x")
    data = [b"one", b"two"]
    kept = lib.keep_small("talks", [entry("up/a", data[0]), entry("x", data[1])], b"".join(data))
    assert isinstance(kept[0], LibraryError) and "link" in kept[0].sentence
    assert os.path.basename(kept[1].path) == "x (2)"
    assert not list((tmp_path / "outside").iterdir())


def test_a_pack_is_read_wherever_it_is_asked_for(lib):
    data = [content(700 + number, number) for number in range(30)]
    for number, one in enumerate(data):
        path = Path(lib.folder) / "talks" / ("%02d" % number)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(one)
    added = Scanner(lib.folder).run_once().added
    lib.adopt(added)
    pack = next(file for file in added if file.members)
    whole = b"".join(data)
    for start, length in ((0, len(whole)), (0, 1), (699, 3), (5000, 9000), (len(whole) - 1, 1)):
        assert bytes(lib.read(pack.file_id, 0, start, length)) == whole[start:start + length]
    assert rules.piece_count_of(len(whole)) == 1
    (Path(lib.folder) / "talks" / "07").write_bytes(b"changed")
    with pytest.raises(LibraryError) as caught:
        lib.read(pack.file_id, 0, 0, len(whole))
    assert caught.value.kind is ErrorKind.CHANGED
