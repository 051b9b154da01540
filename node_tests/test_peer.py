"""Whole nodes in one thread: what a person asks of files, from the command to the last byte on the disk."""

from __future__ import annotations

import hashlib
import os
import random
import time
from contextlib import closing

import pytest

import disk.parts
import disk.room
from node_tests.stage.amounts import amount
from node_tests.stage.lab import MIB, PORT, Lab, Node, content
from node_tests.stage.simulator import Conditions
from prompt.lines import line_for, transfer_cells
from protocol.content.pieces import digests_of
from protocol.content.troubles import ErrorKind, LibraryError
from protocol.exchange import lists
from protocol.messages import WrongPiece, encode
from protocol.results import (
    ChatReceived,
    DownloadDone,
    Notice,
    Outcome,
    Progress,
    Stopped,
    SupernodeChanged,
    UploadDone,
)

# ---- direct transfers


def test_a_file_travels_directly_and_both_ends_are_told(lab):
    data = content(5 * MIB + 17)
    lab.node("ana")
    bo = lab.node("bo", shared={"lab.iso": data})
    cy = lab.node("cy")
    done = cy.fetched("lab.iso")
    assert isinstance(done, DownloadDone) and done.sources == ("bo",) and not done.was_there
    assert done.size == len(data) and done.by_way_of is None
    assert cy.read("lab.iso") == data
    lab.run(1)
    sent = bo.told(UploadDone)
    assert len(sent) == 1 and sent[0].to_label == "cy" and sent[0].file_id == done.file_id
    assert sent[0].size == len(data)
    assert cy.told(Progress)


def test_several_sources_share_the_work_and_all_are_named(lab):
    data = content(amount(40, 12) * MIB)
    lab.node("ana")
    for name in ("bo", "cy", "di"):
        lab.node(name, shared={"lab.iso": data}, disk_delay=0.01)
    ed = lab.node("ed")
    done = ed.fetched("lab.iso")
    assert isinstance(done, DownloadDone), done
    assert set(done.sources) == {"bo", "cy", "di"}
    assert ed.read("lab.iso") == data
    lab.run(1)
    parts = [lab.nodes[index].told(UploadDone)[0].size for index in (1, 2, 3)]
    assert len(data) <= sum(parts) <= len(data) * 1.1
    assert min(parts) > len(data) // 10


def test_a_downloader_is_a_source_for_what_it_has(lab):
    data = content(amount(60, 14) * MIB)
    lab.node("ana")
    lab.node("bo", shared={"lab.iso": data}, disk_delay=0.02)
    cy, di = lab.node("cy"), lab.node("di")
    cy.fetch("lab.iso")
    di.fetch("lab.iso")
    assert lab.world.run_until(lambda: cy.told(DownloadDone) and di.told(DownloadDone), 120)
    assert cy.read("lab.iso") == di.read("lab.iso") == data
    everybody = set(cy.told(DownloadDone)[0].sources) | set(di.told(DownloadDone)[0].sources)
    assert everybody & {"cy", "di"}


@pytest.mark.parametrize("mesh", [True, False])
def test_both_ends_tell_of_a_file_by_the_name_that_was_asked_for(lab, mesh):
    data = content(100_000)
    ana = lab.node("ana")
    bo = lab.node("bo", shared={"hard.iso": data, "lab.iso": data, "soft.iso": data})
    cy, di = lab.node("cy", mesh=mesh), lab.node("di", mesh=mesh)
    assert cy.fetched("lab.iso").name == "lab.iso" and di.fetched("soft.iso").name == "soft.iso"
    lab.run(1)
    sent = [(event.to_label, event.name) for event in (bo if mesh else ana).told(UploadDone)]
    assert sent == [("cy", "lab.iso"), ("di", "soft.iso")]


def test_an_empty_file_needs_no_bytes_from_anybody(lab):
    lab.node("ana")
    lab.node("bo", shared={"empty.txt": b""})
    cy = lab.node("cy")
    done = cy.fetched("empty.txt")
    assert isinstance(done, DownloadDone) and done.size == 0
    assert cy.read("empty.txt") == b""


def test_what_is_here_already_is_not_moved_again(lab):
    data = content(100_000)
    lab.node("ana")
    lab.node("bo", shared={"a.bin": data})
    cy = lab.node("cy", shared={"b.bin": data})
    answer = cy.fetch("b.bin")
    assert answer.kind == "already here" and answer.path.endswith("b.bin")
    done = cy.fetched("a.bin")      # the name that was asked for
    assert (done.moved, done.sources, done.was_there) == (0, (), False) and cy.read("a.bin") == data
    answer = cy.fetch("a.bin")
    assert answer.kind == "already here" and answer.path.endswith("a.bin")


@pytest.mark.parametrize("size", [0, 3 * MIB])
def test_equal_contents_under_several_names_are_all_written_and_come_once(lab, size):
    data = content(size)
    lab.node("ana")
    names = ("a.bin", "b.bin", "c.bin", "talks/in.bin", "talks/on.bin")
    lab.node("bo", shared=dict.fromkeys(names, data), disk_delay=0.02)
    cy = lab.node("cy")
    rows = {row.name: row for row in cy.list()}
    for name in ("a.bin", "b.bin", "talks", "c.bin"):
        cy.do("fetch", rows[name], lab.world.now, cy.answers.append)
    lab.run(0.1)
    assert [answer.kind for answer in cy.answers] == ["started"] * 4
    if size:
        assert cy.peer.transfers(lab.world.now)[1].state == "waiting for a.bin, which is the same"
    assert lab.world.run_until(lambda: len(cy.told((DownloadDone, Stopped))) == 4, lab.world.now + 60)
    assert len(cy.told(DownloadDone)) == 4
    assert sum(done.moved for done in cy.told(DownloadDone)) < size + 1000, "once, and the listing"
    assert all(cy.read(name) == data for name in names)


def test_a_copy_of_what_another_job_fetches_is_fetched_when_that_one_is_cancelled(lab):
    data = content(8 * MIB)
    lab.node("ana", shared={"a.bin": data, "b.bin": data}, disk_delay=0.05)
    bo = lab.node("bo")
    first = bo.fetch("a.bin").transfer
    bo.fetch("b.bin")
    assert lab.world.run_until(lambda: bo.row().verified, lab.world.now + 10)
    bo.do("cancel", first, lab.world.now)
    assert lab.world.run_until(lambda: bo.told((DownloadDone, Stopped)), lab.world.now + 60)
    assert [done.name for done in bo.told(DownloadDone)] == ["b.bin"] and bo.read("b.bin") == data
    assert not os.path.exists(os.path.join(bo.folder, "a.bin"))


def test_a_folder_that_is_here_under_another_name_is_copied_and_nothing_of_it_moves(lab):
    tree = {"talks/%02d.txt" % number: b"file %d" % number for number in range(30)}
    tree.update({"talks/large.bin": content(2 * MIB), "talks/nothing": b""})
    copies = {name.replace("talks", "copy"): data for name, data in tree.items()}
    lab.node("ana", shared=copies)
    bo = lab.node("bo", shared=tree)
    assert bo.fetch("talks").kind == "already here"
    done = bo.fetched("copy")
    assert isinstance(done, DownloadDone) and done.moved == 0 and not done.was_there
    assert all(bo.read(name) == data for name, data in copies.items())
    bo.scan()
    assert bo.fetch("copy").kind == "already here"


def test_a_copy_whose_original_changes_unseen_is_fetched(lab):
    data = content(2 * MIB)
    lab.node("ana", shared={"copy.bin": data})
    bo = lab.node("bo", shared={"first.bin": data})
    bo.put("first.bin", b"changed, and not yet seen by the scanner")
    done = bo.fetched("copy.bin")
    assert isinstance(done, DownloadDone) and done.sources == ("ana",) and bo.read("copy.bin") == data


def test_a_second_request_for_the_same_file_joins_the_first(lab):
    lab.node("ana")
    lab.node("bo", shared={"lab.iso": content(30 * MIB)}, disk_delay=0.05)
    cy = lab.node("cy")
    first, second = cy.fetch("lab.iso"), cy.fetch("lab.iso")
    assert (first.kind, second.kind) == ("started", "running") and first.transfer == second.transfer


def test_the_same_name_with_other_content_is_another_entry(lab):
    lab.node("ana")
    lab.node("bo", shared={"notes.txt": b"one"})
    lab.node("cy", shared={"notes.txt": b"two"})
    di = lab.node("di")
    answer = di.fetch("notes.txt")
    assert answer.kind == "several" and len(answer.entries) == 2
    found = []
    for entry in answer.entries:
        di.do("fetch", entry, lab.world.now, found.append)
    assert lab.world.run_until(lambda: len(di.told(DownloadDone)) == 2, lab.world.now + 30)
    assert {di.read("notes.txt"), di.read("notes (2).txt")} == {b"one", b"two"}


def test_nobody_has_it(lab):
    ana = lab.node("ana")
    assert ana.fetch("nothing.here").kind == "nobody"
    assert ana.list() == []


def test_the_only_holder_left_before_the_request(lab):
    lab.node("ana")
    bo = lab.node("bo", shared={"lab.iso": content(100_000)})
    cy = lab.node("cy")
    entry = cy.list("lab.iso")[0]
    assert entry.holders == ("bo",) and entry.sources == 1
    bo.kill()
    cy.do("fetch", entry, lab.world.now, cy.answers.append)
    assert lab.world.run_until(lambda: cy.told(Stopped), lab.world.now + 40)
    stopped = cy.told(Stopped)[0]
    assert not stopped.kept and "has it" in stopped.reason


def test_a_cancelled_download_keeps_its_part_and_goes_on_later(lab):
    data = content(40 * MIB)
    lab.node("ana")
    bo = lab.node("bo", shared={"lab.iso": data}, disk_delay=0.02)
    cy = lab.node("cy")
    number = cy.fetch("lab.iso").transfer
    lab.world.run_until(lambda: cy.row().verified > 10 * MIB, 60)
    line = cy.do("cancel", number, lab.world.now)
    assert "kept" in line and cy.row().state == "stopped"
    assert transfer_cells(cy.row())[-1] == "R goes on"
    lying = []
    cy.do("unfinished", lab.world.now, lying.append)
    lab.run(2)
    assert lying == [[]]  # that row tells of it
    assert isinstance(cy.fetched("lab.iso"), DownloadDone)
    assert [row.state for row in cy.peer.transfers(lab.world.now)] == ["done"]
    assert cy.read("lab.iso") == data
    lab.run(1)
    assert bo.told(UploadDone)[0].size < 45 * MIB  # the first part did not travel twice
    assert "no running transfer" in cy.do("cancel", 99, lab.world.now)


@pytest.mark.parametrize("hashed_at_once", [disk.parts.CLAIMS_BYTES_AT_ONCE, MIB])
def test_a_killed_download_resumes_from_its_verified_pieces_even_if_some_are_damaged(lab, monkeypatch, hashed_at_once):
    monkeypatch.setattr(disk.parts, "CLAIMS_BYTES_AT_ONCE", hashed_at_once)
    data = content(20 * MIB)
    lab.node("ana")
    bo = lab.node("bo", shared={"lab.iso": data}, disk_delay=0.02)
    cy = lab.node("cy")
    cy.fetch("lab.iso")
    lab.world.run_until(lambda: cy.row().verified > 10 * MIB, 60)
    cy.kill()
    part = os.path.join(cy.folder, ".node", "parts", hashlib.sha256(len(data).to_bytes(8, "big") + b"").hexdigest())
    part = next(entry.path for entry in os.scandir(os.path.dirname(part)) if not entry.name.endswith(".map"))
    with open(part, "r+b") as file:
        file.seek(len(data) // 2)
        file.write(b"damage")
    lab.run(12)
    again = lab.node("cy", number=7)
    assert isinstance(again.fetched("lab.iso"), DownloadDone)
    assert again.read("lab.iso") == data
    lab.run(1)
    assert bo.told(UploadDone)[-1].size < 12 * MIB


def test_two_files_may_be_fetched_under_names_that_are_taken(lab):
    lab.node("ana")
    lab.node("bo", shared={"notes.txt": b"theirs"})
    cy = lab.node("cy", shared={"notes.txt": b"mine"})
    entry = next(entry for entry in cy.list("notes.txt") if "bo" in entry.holders)
    cy.do("fetch", entry, lab.world.now, cy.answers.append)
    assert lab.world.run_until(lambda: cy.told(DownloadDone), lab.world.now + 10)
    assert cy.read("notes.txt") == b"mine" and cy.read("notes (2).txt") == b"theirs"


# ---- folders


def test_a_folder_comes_with_its_sub_folders_empty_ones_and_twice_the_same_content(lab):
    lab.node("ana")
    bo = lab.node("bo")
    tree = {"talks/a.txt": b"a", "talks/deep/b.bin": content(300_000), "talks/deep/er/c.txt": b""}
    tree["talks/twin.txt"] = b"a"
    for number in range(30):
        tree["talks/many/%02d.txt" % number] = b"file %d" % number
    for name, data in tree.items():
        bo.put(name, data)
    os.makedirs(os.path.join(bo.folder, "talks", "empty", "inside"))
    bo.scan()
    cy = lab.node("cy")
    rows = cy.list()
    assert [(row.name, row.is_folder, row.file_count) for row in rows] == [("talks", True, 34)]
    done = cy.fetched("talks")
    assert isinstance(done, DownloadDone), done
    assert done.size == sum(map(len, tree.values())) and done.sources == ("bo",)
    for name, data in tree.items():
        assert cy.read(name) == data, name
    assert os.path.isdir(os.path.join(cy.folder, "talks", "empty", "inside"))
    lab.run(1)
    sent = bo.told(UploadDone)
    assert [(event.name, event.to_label) for event in sent] == [("talks", "cy")]
    assert sent[0].size == done.size - 1  # the twin once, and not the listing
    cy.scan()
    lab.run(1)
    assert cy.list()[0].sources == 2  # and it is shared on as the very same content
    assert cy.fetch("talks").kind == "already here"


def test_a_folder_goes_on_where_it_was_stopped(lab):
    lab.node("ana")
    tree = {"set/%d.bin" % number: content(2 * MIB, seed=number) for number in range(6)}
    bo = lab.node("bo", shared=tree, disk_delay=0.02)
    cy = lab.node("cy")
    number = cy.fetch("set").transfer
    assert lab.world.run_until(lambda: cy.row().verified > 6 * MIB, 60)
    cy.do("cancel", number, lab.world.now)
    lab.run(1)
    done = cy.fetched("set")
    assert isinstance(done, DownloadDone), done
    assert all(cy.read(name) == data for name, data in tree.items())
    lab.run(1)
    assert bo.told(UploadDone)[0].size <= 17 * MIB


def test_a_file_that_was_cancelled_while_a_folder_brought_it_does_not_land_anyway(lab):
    lab.node("ana")
    picture = content(20 * MIB, 2)
    lab.node("bo", shared={"photos/pic.jpg": picture, "pic.jpg": picture}, disk_delay=0.02)
    cy = lab.node("cy")
    cy.fetch("photos")
    lab.run(0.2)
    number = cy.fetch("pic.jpg").transfer
    lab.run(0.2)
    assert "cancelled" in cy.do("cancel", number, lab.world.now)
    assert lab.world.run_until(lambda: cy.told(DownloadDone), lab.world.now + 60)
    lab.run(5)
    assert os.listdir(cy.folder + "/photos") == ["pic.jpg"] and not os.path.exists(cy.folder + "/pic.jpg")


def test_a_folder_that_was_cancelled_while_its_file_came_alone_brings_nothing_any_more(lab):
    lab.node("ana")
    picture = content(20 * MIB, 2)
    lab.node("bo", shared={"pic.jpg": picture}, disk_delay=0.02)
    cy = lab.node("cy")
    cy.fetch("pic.jpg")
    lab.node("di", shared={"photos/pic.jpg": picture})
    number = cy.fetch("photos").transfer
    lab.run(0.1)
    assert not cy.told(DownloadDone) and "cancelled" in cy.do("cancel", number, lab.world.now)
    assert lab.world.run_until(lambda: cy.told(DownloadDone), lab.world.now + 60)
    lab.run(5)
    assert os.path.exists(cy.folder + "/pic.jpg") and os.listdir(cy.folder + "/photos") == []


def test_what_was_cancelled_while_the_disk_gave_it_its_name_is_shared(lab):
    lab.node("ana")
    bo = lab.node("bo", shared={"lab.iso": content(3 * MIB)})
    cy = lab.node("cy")
    number = cy.fetch("lab.iso").transfer
    cy.disk_delay = 0.2
    assert lab.world.run_until(lambda: cy.row().state == "verifying", lab.world.now + 60)
    assert "cancelled" in cy.do("cancel", number, lab.world.now)
    lab.run(2)
    assert os.path.exists(cy.folder + "/lab.iso") and [row.name for row in cy.peer.shares()] == ["lab.iso"]
    assert set(bo.list()[0].holders) == {"bo", "cy"}


# ---- by way of the supernode


@pytest.mark.parametrize("holder_mesh, requester_mesh", [(False, True), (True, False), (False, False)])
def test_with_the_mesh_off_a_file_comes_by_way_of_the_supernode_and_stays_in_its_cache(
    lab, holder_mesh, requester_mesh
):
    data = content(6 * MIB + 5)
    ana = lab.node("ana")
    bo = lab.node("bo", mesh=holder_mesh, shared={"lab.iso": data})
    cy = lab.node("cy", mesh=requester_mesh)
    done = cy.fetched("lab.iso")
    assert isinstance(done, DownloadDone), done
    assert done.by_way_of == "ana" and done.sources == ("bo",)
    assert cy.read("lab.iso") == data
    lab.run(1)
    assert [event.to_label for event in bo.told(UploadDone)] == ["ana"]
    assert [event.to_label for event in ana.told(UploadDone)] == ["cy"]
    assert not os.path.exists(os.path.join(ana.folder, "lab.iso"))
    bo.quit()
    cy.quit()
    di = lab.node("di", mesh=False)
    assert di.list()[0].holders == ("ana",)
    done = di.fetched("lab.iso")
    assert isinstance(done, DownloadDone) and done.sources == ("ana",) and done.by_way_of is None
    assert di.read("lab.iso") == data


def test_a_folder_too_comes_by_way_of_the_supernode_and_from_its_cache(lab):
    ana = lab.node("ana")
    tree = {"talks/a.txt": b"a", "talks/deep/b.bin": content(3 * MIB), "talks/c.txt": b"a"}
    bo = lab.node("bo", mesh=False, shared=tree)
    cy = lab.node("cy", mesh=False)
    done = cy.fetched("talks")
    assert isinstance(done, DownloadDone), done
    assert all(cy.read(name) == data for name, data in tree.items())
    bo.quit()
    cy.quit()
    di = lab.node("di", mesh=False)
    assert [(row.name, row.is_folder, row.file_count) for row in di.list()] == [("talks", True, 3)]
    assert isinstance(di.fetched("talks"), DownloadDone)
    assert all(di.read(name) == data for name, data in tree.items())
    assert os.listdir(ana.folder) == [".node"]


def test_the_supernode_fetches_for_itself_what_it_relays_at_the_same_time(lab):
    data = content(amount(30, 9) * MIB)
    ana = lab.node("ana")
    lab.node("bo", mesh=False, shared={"lab.iso": data}, disk_delay=0.02)
    cy = lab.node("cy", mesh=False)
    cy.fetch("lab.iso")
    lab.run(0.2)
    assert ana.fetch("lab.iso").kind == "started"
    assert lab.world.run_until(lambda: ana.told(DownloadDone) and cy.told(DownloadDone), lab.world.now + 60)
    assert ana.read("lab.iso") == cy.read("lab.iso") == data


def test_what_is_too_big_for_the_cache_passes_through_and_is_dropped(lab, monkeypatch):
    monkeypatch.setattr(disk.room, "CACHE_BYTES_MAX", MIB)
    data = content(8 * MIB)
    ana = lab.node("ana")
    lab.node("bo", mesh=False, shared={"lab.iso": data})
    cy = lab.node("cy", mesh=False)
    assert isinstance(cy.fetched("lab.iso"), DownloadDone)
    assert cy.read("lab.iso") == data
    lab.run(30)
    assert not ana.peer.fetching.fetches
    assert not os.listdir(os.path.join(ana.folder, ".node", "parts"))


def test_who_fetches_by_way_of_a_supernode_with_a_full_disk_hears_the_truth(lab):
    ana = lab.node("ana")
    lab.node("bo", shared={"lab.iso": content(20 * MIB)})
    cy = lab.node("cy", mesh=False)
    ana.library.free_bytes = lambda: 8_400_000
    asked_at = lab.world.now
    stopped = cy.fetched("lab.iso")
    assert isinstance(stopped, Stopped) and lab.world.now - asked_at < 2
    assert stopped.reason == "ana has no room to pass it on: needs 21.0 MB, 8.4 MB free"
    assert not ana.peer.fetching.fetches and not os.listdir(os.path.join(ana.folder, ".node", "parts"))
    del ana.library.free_bytes
    assert isinstance(cy.fetched("lab.iso"), DownloadDone)


def test_who_fetches_by_way_of_the_supernode_hears_that_the_file_was_changed_at_its_only_holder(lab):
    lab.node("ana")
    bo = lab.node("bo", mesh=False, shared={"lab.iso": content(30 * MIB)}, disk_delay=0.02)
    cy = lab.node("cy")
    cy.fetch("lab.iso")
    lab.world.run_until(lambda: cy.row().verified > 5 * MIB, 60)
    bo.put("lab.iso", content(30 * MIB, seed=8))
    assert lab.world.run_until(lambda: cy.told(Stopped), lab.world.now + 5)
    stopped = cy.told(Stopped)[0]
    assert stopped.reason == "it was changed or removed at bo, and nobody else has it" and not stopped.kept
    lab.run(1)
    assert not os.listdir(os.path.join(cy.folder, ".node", "parts"))


def test_the_supernode_takes_what_it_wants_itself_from_its_own_cache(lab):
    tree = {"talks/a.txt": b"a", "talks/b.bin": content(MIB), "lab.iso": content(2 * MIB, 3)}
    ana = lab.node("ana")
    bo = lab.node("bo", mesh=False, shared=tree)
    cy = lab.node("cy", mesh=False)
    cy.fetched("talks")
    cy.fetched("lab.iso")
    bo.quit()
    cy.quit()
    assert isinstance(ana.fetched("talks"), DownloadDone)
    assert isinstance(ana.fetched("lab.iso"), DownloadDone)
    assert all(ana.read(name) == data for name, data in tree.items())


def test_a_relay_that_nobody_waits_for_ends(lab):
    ana = lab.node("ana")
    bo = lab.node("bo", mesh=False, shared={"lab.iso": content(amount(100, 30) * MIB)}, disk_delay=0.2)
    cy = lab.node("cy", mesh=False)
    number = cy.fetch("lab.iso").transfer
    lab.run(3)
    assert ana.peer.fetching.fetches
    cy.do("cancel", number, lab.world.now)
    lab.run(40)
    assert not ana.peer.fetching.fetches
    assert not bo.peer.serving.uploads.links


def test_the_mesh_switched_off_in_the_middle_sends_the_rest_by_way_of_the_supernode(lab):
    data = content(amount(30, 9) * MIB)
    lab.node("ana")
    bo = lab.node("bo", shared={"lab.iso": data}, disk_delay=0.03)
    cy = lab.node("cy")
    cy.fetch("lab.iso")
    lab.world.run_until(lambda: cy.row().verified > 5 * MIB, 60)
    cy.do("set_mesh", False, lab.world.now)
    assert lab.world.run_until(lambda: cy.told(DownloadDone), lab.world.now + 60), cy.events[-3:]
    assert cy.read("lab.iso") == data
    assert all(upload.label != "cy" for upload in bo.peer.serving.uploads.links.values())


def test_a_relay_that_nobody_waits_for_leaves_what_the_supernodes_own_person_has_begun(lab):
    ana = lab.node("ana")
    lab.node("bo", shared={"lab.iso": content(40 * MIB)}, disk_delay=0.2)
    cy = lab.node("cy", mesh=False)
    number = ana.fetch("lab.iso").transfer
    lab.world.run_until(lambda: ana.row().verified > 3 * MIB, lab.world.now + 60)
    assert "kept" in ana.do("cancel", number, lab.world.now)
    lab.run(1)
    number = cy.fetch("lab.iso").transfer
    lab.run(0.1)
    assert ana.peer.fetching.fetches
    cy.do("cancel", number, lab.world.now)
    lab.run(40)
    assert not ana.peer.fetching.fetches
    assert [part.verified_bytes > 3 * MIB for part in ana.library.parts()] == [True]


def test_what_had_to_leave_the_cache_is_no_longer_announced_and_is_fetched_from_its_holder(lab, monkeypatch):
    monkeypatch.setattr(disk.room, "CACHE_BYTES_MAX", 5 * MIB)
    ana = lab.node("ana")
    lab.node("bo", shared={"a.bin": content(3 * MIB, 1), "b.bin": content(4 * MIB, 2)}, disk_delay=0.3)
    cy, di = lab.node("cy", mesh=False), lab.node("di", mesh=False)
    assert cy.fetched("a.bin").by_way_of == "ana"
    lab.run(1)
    assert set(cy.list("a.bin")[0].holders) == {"ana", "bo", "cy"}
    number = cy.fetch("b.bin").transfer
    lab.run(2)
    cy.do("cancel", number, lab.world.now)
    lab.run(40)
    assert not ana.library.cached() and set(cy.list("a.bin")[0].holders) == {"bo", "cy"}
    assert isinstance(di.fetched("a.bin"), DownloadDone)


# ---- sources that lie, freeze, change or leave


def test_wrong_bytes_are_refused_the_liar_is_named_and_the_rest_comes_from_others(lab):
    data = content(20 * MIB)
    lab.node("ana")
    bo = lab.node("bo", shared={"lab.iso": data}, disk_delay=0.01)
    lab.node("cy", shared={"lab.iso": data}, disk_delay=0.01)
    read = bo.library.read
    bo.library.read = lambda file_id, index, offset, length: b"\0" * length
    di = lab.node("di")
    done = di.fetched("lab.iso")
    assert isinstance(done, DownloadDone) and done.sources == ("cy",)
    assert di.read("lab.iso") == data
    assert any("bo sent a wrong piece" in event.text for event in di.told(Notice))
    bo.library.read = read


def test_only_wrong_bytes_are_a_clean_failure_that_names_the_liar(lab):
    lab.node("ana")
    bo = lab.node("bo", shared={"lab.iso": content(3 * MIB)})
    bo.library.read = lambda file_id, index, offset, length: b"\0" * length
    cy = lab.node("cy")
    stopped = cy.fetched("lab.iso")
    assert isinstance(stopped, Stopped) and "bo sent a wrong piece" in stopped.reason
    assert not os.path.exists(os.path.join(cy.folder, "lab.iso"))


def test_one_damaged_piece_is_asked_again_and_all_ends_well(lab):
    data = content(3 * MIB)
    lab.node("ana")
    bo = lab.node("bo", shared={"lab.iso": data})
    read, seen = bo.library.read, []

    def once_wrong(file_id, index, offset, length):
        seen.append(index)
        return b"\0" * length if len(seen) == 5 else read(file_id, index, offset, length)

    bo.library.read = once_wrong
    cy = lab.node("cy")
    assert isinstance(cy.fetched("lab.iso"), DownloadDone)
    assert cy.read("lab.iso") == data


def test_a_damaged_cache_is_not_served_and_the_holder_is_asked_instead(lab):
    data = content(3 * MIB)
    ana = lab.node("ana")
    lab.node("bo", mesh=False, shared={"lab.iso": data})
    cy = lab.node("cy", mesh=False)
    assert isinstance(cy.fetched("lab.iso"), DownloadDone)
    cache = os.path.join(ana.folder, ".node", "cache")
    kept = next(entry.path for entry in os.scandir(cache) if not entry.name.endswith(".map"))
    ana.library.close()
    ana.library.__init__(ana.folder)
    ana.library.open()  # as after a restart: what the cache holds is checked when it is read
    with open(kept, "r+b") as file:
        file.write(b"damage" * 1000)
    cy.quit()
    di = lab.node("di", mesh=False)
    assert isinstance(di.fetched("lab.iso"), DownloadDone)
    assert di.read("lab.iso") == data


def test_a_frozen_source_is_left_and_another_one_ends_the_file(lab):
    data = content(amount(40, 14) * MIB)
    lab.node("ana")
    bo = lab.node("bo", shared={"lab.iso": data}, disk_delay=0.02)
    lab.node("cy", shared={"lab.iso": data}, disk_delay=0.03)
    di = lab.node("di")
    di.fetch("lab.iso")
    lab.world.run_until(lambda: di.row().verified > 10 * MIB, 60)
    bo.disk = lambda job, done: None
    bo.peer.disk._submit = bo.disk  # as a disk that hangs
    frozen_at = lab.world.now
    assert lab.world.run_until(lambda: di.told(DownloadDone), frozen_at + 60)
    assert lab.world.now - frozen_at < 20
    assert di.read("lab.iso") == data


def test_a_node_that_slept_goes_on_with_the_sources_it_had(tmp_path):
    data = content(20 * MIB)
    with closing(Lab(tmp_path, packets=True)) as lab:
        lab.node("ana")
        for name in ("bo", "cy"):
            lab.node(name, shared={"lab.iso": data}, disk_delay=0.06)
        di = lab.node("di")
        di.fetch("lab.iso")
        lab.world.run_until(lambda: di.row().verified > 6 * MIB, 60)
        di.network.stop()
        lab.run(25)
        di.peer.on_timer(lab.world.now)  # before anything that came meanwhile is read
        di.network.go_on()
        woken_at = lab.world.now
        assert lab.world.run_until(lambda: di.told(DownloadDone), woken_at + 60)
        assert lab.world.now - woken_at < 6 and di.read("lab.iso") == data


def test_a_frozen_only_source_is_a_failure_that_says_why(lab):
    lab.node("ana")
    bo = lab.node("bo", shared={"lab.iso": content(10 * MIB)}, disk_delay=0.05)
    cy = lab.node("cy")
    cy.fetch("lab.iso")
    lab.world.run_until(lambda: cy.row().verified > 3 * MIB, 60)
    assert cy.row().state == "receiving" and cy.row().rate > 0 and cy.row().seconds_left
    bo.peer.disk._submit = lambda job, done: None
    lab.run(6)
    assert (cy.row().state, cy.row().rate, cy.row().seconds_left) == ("waiting for bo", 0.0, None)
    assert lab.world.run_until(lambda: cy.told(Stopped), lab.world.now + 60)
    stopped = cy.told(Stopped)[0]
    assert "bo sends nothing" in stopped.reason and stopped.kept and stopped.verified > 3 * MIB


@pytest.mark.parametrize("change", ["a log that grows", "a touch"])
def test_what_stays_as_it_was_announced_is_fetched_to_its_end_whatever_is_written_behind_it(lab, change):
    lab.node("ana")
    data = content(12 * MIB)
    bo = lab.node("bo", shared={"run.log": data}, disk_delay=0.02)
    cy = lab.node("cy")
    cy.fetch("run.log")
    path = os.path.join(bo.folder, "run.log")
    for part in (2, 5, 8):
        lab.world.run_until(lambda part=part: cy.row().verified > part * MIB, 60)
        if change == "a touch":
            os.utime(path, ns=(part, part))
        else:
            with open(path, "ab") as log:
                log.write(b"one line more\n")
        bo.scan()
    assert lab.world.run_until(lambda: cy.told((DownloadDone, Stopped)), lab.world.now + 60)
    done = cy.told((DownloadDone, Stopped))[0]
    assert isinstance(done, DownloadDone) and done.moved == len(data) and cy.read("run.log") == data
    assert not cy.told(Notice)


def test_a_file_changed_while_it_is_sent_is_told_and_not_used(lab):
    lab.node("ana")
    bo = lab.node("bo", shared={"lab.iso": content(30 * MIB)}, disk_delay=0.02)
    cy = lab.node("cy")
    cy.fetch("lab.iso")
    lab.world.run_until(lambda: cy.row().verified > 5 * MIB, 60)
    bo.put("lab.iso", content(30 * MIB, seed=8))
    changed_at = lab.world.now
    assert lab.world.run_until(lambda: cy.told(Stopped), lab.world.now + 60)
    stopped = cy.told(Stopped)[0]
    assert stopped.reason == "it was changed or removed at bo, and nobody else has it" and not stopped.kept
    told = "lab.iso was changed or removed at bo; that source is not used"
    assert [event.text for event in cy.told(Notice)] == [told]
    assert lab.world.now - changed_at < 4
    lab.run(1)
    assert not os.listdir(os.path.join(cy.folder, ".node", "parts"))
    bo.scan()
    assert isinstance(cy.fetched("lab.iso"), DownloadDone) and cy.read("lab.iso") == bo.read("lab.iso")


def test_a_file_no_longer_shared_is_told_at_once_unless_somebody_else_has_it(lab):
    data = content(30 * MIB)
    lab.node("ana")
    bo = lab.node("bo", shared={"lab.iso": data}, disk_delay=0.02)
    cy = lab.node("cy")
    cy.fetch("lab.iso")
    lab.world.run_until(lambda: cy.row().verified > 5 * MIB, 60)
    os.remove(os.path.join(bo.folder, "lab.iso"))
    bo.scan()
    assert lab.world.run_until(lambda: cy.told(Stopped), lab.world.now + 4)
    stopped = cy.told(Stopped)[0]
    assert "at bo, and nobody else has it" in stopped.reason or "bo no longer shares it, and" in stopped.reason
    assert not stopped.kept
    bo.put("lab.iso", data)
    bo.scan()
    cy.fetch("lab.iso")
    lab.world.run_until(lambda: cy.row().verified > 5 * MIB, 60)
    lab.node("di", shared={"lab.iso": data})
    os.remove(os.path.join(bo.folder, "lab.iso"))
    assert lab.world.run_until(lambda: cy.told(DownloadDone), lab.world.now + 30), cy.events[-3:]
    assert cy.read("lab.iso") == data


def test_the_only_source_leaves_and_what_is_verified_is_kept(lab):
    data = content(30 * MIB)
    lab.node("ana")
    bo = lab.node("bo", shared={"lab.iso": data}, disk_delay=0.02)
    cy = lab.node("cy")
    cy.fetch("lab.iso")
    lab.world.run_until(lambda: cy.row().verified > 10 * MIB, 60)
    bo.quit()
    assert cy.row().state == "waiting for bo"
    assert lab.world.run_until(lambda: cy.told(Stopped), lab.world.now + 30)
    stopped = cy.told(Stopped)[0]
    assert stopped.reason == "bo left and nobody else has it" and stopped.kept
    assert 10 * MIB < stopped.verified < 30 * MIB


def test_of_many_who_ask_at_once_each_gets_most_from_the_others(lab):
    data = content(amount(24, 12) * MIB)
    lab.node("ana")
    bo = lab.node("bo", shared={"lab.iso": data}, disk_delay=0.05)
    many = [lab.node("n%d" % number, disk_delay=0.005) for number in range(7)]
    lab.run(10)
    asked_at = lab.world.now
    for node in many:
        node.do("fetch_name", "lab.iso", asked_at, node.answers.append)
    assert lab.world.run_until(lambda: all(node.told(DownloadDone) for node in many), asked_at + 60)
    assert all(node.read("lab.iso") == data for node in many)
    lab.run(1)
    assert sum(done.size for done in bo.told(UploadDone)) < 1.5 * len(data)
    assert all(len(node.told(DownloadDone)[0].sources) > 3 for node in many)


def test_who_comes_later_gets_from_those_who_are_not_done(lab):
    data = content(24 * MIB)
    lab.node("ana")
    bo = lab.node("bo", shared={"lab.iso": data}, disk_delay=0.05)
    cy, di = lab.node("cy"), lab.node("di")
    cy.fetch("lab.iso")
    assert lab.world.run_until(lambda: cy.row().verified > len(data) // 4, lab.world.now + 60)
    done = di.fetched("lab.iso")
    assert set(done.sources) == {"bo", "cy"} and di.read("lab.iso") == data
    assert lab.world.run_until(lambda: cy.told(DownloadDone), lab.world.now + 60)
    lab.run(1)
    assert sum(one.size for one in bo.told(UploadDone)) < 1.4 * len(data)


def test_more_downloaders_than_upload_slots_are_all_served(lab):
    data = content(4 * MIB)
    lab.node("ana")
    lab.node("bo", shared={"lab.iso": data}, disk_delay=0.01)
    many = [lab.node("n%d" % number) for number in range(11)]
    for node in many:
        node.do("fetch_name", "lab.iso", lab.world.now, node.answers.append)
    assert lab.world.run_until(lambda: all(node.told(DownloadDone) for node in many), lab.world.now + 60)
    assert all(node.read("lab.iso") == data for node in many)


# ---- the supernode dies


def test_losing_the_supernode_interrupts_no_direct_transfer(lab):
    data = content(amount(60, 24) * MIB)
    ana = lab.node("ana")
    lab.node("bo", shared={"lab.iso": data}, disk_delay=0.03)
    cy = lab.node("cy")
    cy.fetch("lab.iso")
    lab.world.run_until(lambda: cy.row().verified > 5 * MIB, 60)
    ana.kill()
    killed_at, at = lab.world.now, cy.row().verified
    lab.run(3)
    assert cy.row().verified > at
    assert lab.world.run_until(lambda: cy.told(DownloadDone), killed_at + 60)
    assert cy.read("lab.iso") == data and cy.told(DownloadDone)[0].moved == len(data)
    lab.run(20)
    assert cy.told(SupernodeChanged)


def test_a_relayed_transfer_resumes_by_way_of_the_new_supernode(lab):
    data = content(amount(60, 18) * MIB)
    most = amount(20, 6) * MIB
    ana = lab.node("ana")
    lab.node("di")  # the next in order, neither holder nor requester
    bo = lab.node("bo", mesh=False, shared={"lab.iso": data}, disk_delay=0.05)
    cy = lab.node("cy", mesh=False)
    cy.fetch("lab.iso")
    lab.world.run_until(lambda: cy.row().verified > most, 60)
    before = cy.row().verified
    assert before > most
    ana.kill()
    assert lab.world.run_until(lambda: cy.told((DownloadDone, Stopped)), lab.world.now + 120)
    assert cy.told(DownloadDone), cy.events[-3:]
    assert cy.read("lab.iso") == data and cy.told(DownloadDone)[0].moved == len(data)
    assert cy.supernode_label() == "di"
    assert bo.peer.supernode_id == cy.peer.supernode_id


def test_a_relayed_transfer_resumes_when_the_requester_becomes_supernode_itself(lab):
    data = content(40 * MIB)
    ana = lab.node("ana")
    cy = lab.node("cy", mesh=False)
    lab.node("bo", mesh=False, shared={"lab.iso": data}, disk_delay=0.05)
    cy.fetch("lab.iso")
    lab.world.run_until(lambda: cy.row().verified > 10 * MIB, 60)
    ana.quit()
    assert lab.world.run_until(lambda: cy.told((DownloadDone, Stopped)), lab.world.now + 60)
    assert cy.told(DownloadDone), cy.events[-3:]
    assert cy.read("lab.iso") == data and cy.peer.is_supernode


# ---- chat, lists, members


def test_chat_reaches_everybody_in_one_order(lab):
    nodes = [lab.node(name) for name in ("ana", "bo", "cy")]
    nodes[1].do("say", "hello", lab.world.now)
    nodes[2].do("say", "hi", lab.world.now)
    lab.run(1)
    heard = [[(event.label, event.text) for event in node.told(ChatReceived)] for node in nodes]
    assert heard[0] == heard[1] == heard[2] and sorted(heard[0]) == [("bo", "hello"), ("cy", "hi")]


def test_long_lists_come_in_pages_and_patterns_filter(lab):
    lab.node("ana")
    lab.node("bo", shared={"file %03d.txt" % number: b"%d" % number for number in range(130)})
    cy = lab.node("cy", shared={"slides.pdf": b"pdf"})
    rows = cy.list()
    assert len(rows) == 131 and [row.number for row in rows] == list(range(1, 132))
    assert [row.name for row in cy.list("*.PDF")] == ["slides.pdf"]


def test_a_list_asked_of_a_supernode_that_has_just_died_comes_whole_from_its_successor(lab):
    ana = lab.node("ana")
    bo, cy, di, ed = [lab.node(name, shared={f"{name}.txt": name.encode()}) for name in ("bo", "cy", "di", "ed")]
    lab.run(1)
    ana.kill()
    rows = []
    di.do("list_files", "", lab.world.now, rows.append)
    assert lab.world.run_until(lambda: cy.supernode_label() == "bo", lab.world.now + 10)
    cy.do("list_files", "", lab.world.now, rows.append)
    ed.kill()                                       # and is not waited for long
    assert lab.world.run_until(lambda: len(rows) == 2, lab.world.now + 4)
    assert [{"bo.txt", "cy.txt", "di.txt"} <= {entry.name for entry in each} for each in rows] == [True, True]


def test_what_vanishes_from_a_shared_folder_vanishes_from_the_list(lab):
    ana = lab.node("ana")
    bo = lab.node("bo", shared={"a.txt": b"a", "b.txt": b"b"})
    os.remove(os.path.join(bo.folder, "a.txt"))
    bo.scan()
    assert [row.name for row in ana.list()] == ["b.txt"]
    assert [row.name for row in bo.peer.shares()] == ["b.txt"]


def test_a_file_from_elsewhere_can_be_shared(lab, tmp_path):
    ana = lab.node("ana")
    bo = lab.node("bo")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "intro.pdf").write_bytes(b"intro")
    lines = []
    bo.do("share", str(tmp_path / "elsewhere" / "intro.pdf"), lab.world.now, lines.append)
    lab.run(0.1)
    assert "is shared" in lines[0]
    bo.scan()
    assert isinstance(ana.fetched("intro.pdf"), DownloadDone)
    bo.do("share", str(tmp_path / "not there"), lab.world.now, lines.append)
    lab.run(0.1)
    assert lines[1].startswith("!!")


def test_members_are_shown_with_roles_and_links(lab):
    ana, bo = lab.node("ana"), lab.node("bo", mesh=False)
    lab.run(5)
    rows = bo.peer.members(lab.world.now)
    assert [(row.label, row.role, row.is_me, row.mesh) for row in rows] == [
        ("ana", "supernode", False, True), ("bo", "member", True, False),
    ]  # fmt: skip
    assert rows[0].round_trip is not None and rows[0].heard_ago < 3
    assert ana.peer.members(lab.world.now)[0].is_me


def test_the_supernode_shows_links_round_trips_and_when_it_heard_each_and_a_member_only_what_it_knows(lab):
    ana, bo, cy = lab.node("ana"), lab.node("bo", mesh=False), lab.node("cy", mesh=False)
    lab.run(6)
    me, *others = ana.peer.members(lab.world.now)
    assert (me.is_me, me.links, me.round_trip, me.heard_ago) == (True, 2, None, None)
    assert [(row.label, row.links) for row in others] == [("bo", 1), ("cy", 1)]
    assert all(0 < row.round_trip < 1 and 0 <= row.heard_ago < 3 for row in others)
    unknown = bo.peer.members(lab.world.now)[2]
    assert (unknown.label, unknown.links, unknown.round_trip, unknown.heard_ago) == ("cy", None, None, None)
    cy.kill()
    lab.run(4)
    assert ana.peer.members(lab.world.now)[2].heard_ago > 3


def test_with_the_mesh_on_nodes_stand_by_with_links_and_without_they_close_them(lab):
    lab.node("ana")
    bo, cy = lab.node("bo"), lab.node("cy")
    di = lab.node("di", mesh=False)
    lab.run(15)

    def links(node):
        return {row.label: row.links for row in node.peer.members(lab.world.now) if not row.is_me}

    assert links(bo) == {"ana": 1, "cy": 1, "di": None} and links(cy) == {"ana": 1, "bo": 1, "di": None}
    assert links(di) == {"ana": 1, "bo": None, "cy": None}
    bo.do("set_mesh", False, lab.world.now)
    lab.run(40)
    assert links(bo) == {"ana": 1, "cy": None, "di": None} and links(cy)["bo"] is None
    bo.do("set_mesh", True, lab.world.now)
    lab.run(40)
    assert links(cy)["bo"] == 1


def test_connecting_elsewhere_leaves_the_present_network_properly(lab):
    lab.world.broadcasts = False  # else the lone one goes to the other by itself
    ana, bo = lab.node("ana"), lab.node("bo")
    other = Node(lab, "zoe", 50)
    lab.nodes.append(other)
    other.start((other.ip, PORT))
    bo.do("connect_to", other.ip, PORT, lab.world.now)
    lab.run(5)
    assert bo.supernode_label() == "zoe" and len(bo.told(Outcome)) == 2
    assert len(ana.peer.members(lab.world.now)) == 1
    bo.do("connect_to", "10.9.9.9", PORT, lab.world.now)
    lab.run(5)
    assert bo.told(Outcome)[-1].kind == "nobody" and bo.supernode_label() == "zoe"


def test_connecting_elsewhere_ends_what_was_on_its_way(lab):
    lab.world.broadcasts = False  # else the lone one goes to the other by itself
    lab.node("ana", shared={"lab.iso": content(30 * MIB)}, disk_delay=0.05)
    bo = lab.node("bo")
    other = Node(lab, "zoe", 50)
    lab.nodes.append(other)
    other.start((other.ip, PORT))
    bo.fetch("lab.iso")
    lab.run(2)
    bo.do("connect_to", other.ip, PORT, lab.world.now)
    lab.run(5)
    assert [event.reason for event in bo.told(Stopped)] == ["you left that network"] and bo.told(Stopped)[0].kept
    assert bo.supernode_label() == "zoe" and not bo.peer.fetching.fetches


def test_many_downloads_wait_for_their_turn_and_memory_stays_bounded(lab):
    lab.node("ana")
    names = {"%02d.iso" % number: content(2 * MIB, number) for number in range(12)}
    lab.node("bo", shared=names, disk_delay=0.002)
    cy = lab.node("cy")
    for entry in cy.list():
        cy.do("fetch", entry, lab.world.now, cy.answers.append)
    lab.run(0.03)
    states = [row.state for row in cy.peer.transfers(lab.world.now)]
    assert states.count("waiting for its turn") == 6
    most = 0
    while len(cy.told(DownloadDone)) < 12:
        lab.run(0.01)
        most = max(most, sum(fetch.download.in_flight_bytes for fetch in cy.peer.fetching.fetches.values()))
        assert lab.world.now < 60
    assert 0 < most <= 64 * MIB
    assert all(cy.read(name) == data for name, data in names.items())


def test_a_full_disk_stops_one_download_and_nothing_else(lab):
    lab.node("ana")
    lab.node("bo", shared={"lab.iso": content(3 * MIB), "small.txt": b"small"})
    cy = lab.node("cy")

    def full(*_):
        raise LibraryError(ErrorKind.FULL, "Cannot save lab.iso: the disk is full.")

    write, cy.library.write_piece = cy.library.write_piece, full
    stopped = cy.fetched("lab.iso")
    assert isinstance(stopped, Stopped) and stopped.reason == "Cannot save lab.iso: the disk is full"
    cy.library.write_piece = write
    assert isinstance(cy.fetched("small.txt"), DownloadDone)
    assert isinstance(cy.fetched("lab.iso"), DownloadDone)


def test_a_file_and_a_folder_that_holds_it_may_be_fetched_at_once(lab):
    lab.node("ana")
    data = content(10 * MIB)
    lab.node("bo", shared={"set/big.bin": data, "set/more.bin": content(2 * MIB, 3), "big.bin": data}, disk_delay=0.005)
    cy = lab.node("cy")
    cy.fetch("set")
    lab.run(0.3)
    cy.fetch("big.bin")
    assert lab.world.run_until(lambda: len(cy.told(DownloadDone)) == 2, lab.world.now + 30), cy.events[-3:]
    assert cy.read("set/big.bin") == cy.read("big.bin") == data


def test_a_seed_replays_exactly(tmp_path):
    def story(path):
        lab = Lab(path, seed=3)
        lab.node("ana")
        for name in ("bo", "cy"):
            lab.node(name, shared={"lab.iso": content(6 * MIB)}, disk_delay=0.003)
        di = lab.node("di", mesh=False)
        di.fetched("lab.iso")
        lab.close()
        return [(type(event).__name__, getattr(event, "seconds", None)) for event in di.events], lab.world.now

    assert story(tmp_path / "one") == story(tmp_path / "two")


# ---- over the real transport: packets, loss, bottlenecks


@pytest.mark.parametrize("mesh", [True, False])
def test_a_file_arrives_over_a_lossy_slow_path(tmp_path, mesh):
    path = Conditions(rate=12.5e6, latency=0.002, loss=0.01, reorder=0.02, duplicate=0.01, corrupt=0.001)
    lab = Lab(tmp_path, conditions=path, packets=True)
    data = content(6 * MIB)
    lab.node("ana")
    bo = lab.node("bo", shared={"lab.iso": data})
    cy = lab.node("cy", mesh=mesh)
    done = cy.fetched("lab.iso")
    assert isinstance(done, DownloadDone) and cy.read("lab.iso") == data
    assert done.seconds < 3
    lab.run(2)
    assert bo.told(UploadDone)
    lab.close()


# ---- the disk


def test_what_the_disk_brings_is_told_with_the_moment_at_which_it_comes(lab):
    ana = lab.node("ana")
    lab.run(3)
    told, begun = [], lab.world.now
    ana.disk_delay = 2.5
    ana.peer.disk.run(lambda: "read", lambda result, error, now: told.append((result, error, round(now - begun, 3))))
    lab.run(5)
    assert told == [("read", None, 2.5)]


# ---- lists


def test_a_list_that_was_cut_says_so_and_one_that_nobody_answers_is_not_an_empty_one(lab, monkeypatch):
    monkeypatch.setattr(lists, "LIST_ROWS_MAX", 50)
    monkeypatch.setattr(lists, "LIST_TIMEOUT", 5.0)     # before bo rules in the place of ana
    ana = lab.node("ana", shared={"%03d.txt" % number: b"%d" % number for number in range(120)})
    bo = lab.node("bo")
    shown = len(bo.list())
    assert 50 <= shown < 120
    assert [event.text for event in bo.told(Notice)] == [
        "Only the first %d of 120 files are listed; a part of the name finds the others: G notes" % shown
    ]
    ana.kill()
    answers = []
    bo.do("list_files", "", lab.world.now, answers.append)
    lab.run(4)
    assert answers == []
    lab.run(2)
    assert answers == [None]


def test_a_file_with_brackets_in_its_name_is_fetched_by_name(lab):
    lab.node("ana", shared={"notes [1].pdf": b"one", "notes 1.pdf": b"other"})
    bo = lab.node("bo")
    assert isinstance(bo.fetched("notes [1].pdf"), DownloadDone)
    assert bo.read("notes [1].pdf") == b"one"


def test_after_a_partition_everybody_hears_that_the_parts_are_one_again(lab):
    nodes = [lab.node(name) for name in ("ana", "bo", "cy", "di")]
    ips = [node.ip for node in nodes]
    lab.world.cut(ips[:2], ips[2:])
    lab.run(30)
    assert {node.supernode_label() for node in nodes} == {"ana", "cy"}
    before = [len(node.events) for node in nodes]
    lab.world.heal()
    lab.run(40)
    (ruler,) = {node.supernode_label() for node in nodes}
    told = [
        [line_for(event, "shared") for event in node.events[count:] if isinstance(event, SupernodeChanged)]
        for node, count in zip(nodes, before)
    ]
    line = "* two parts of the network are one again; the supernode is now %s" % ruler
    assert sorted(told) == [[], [], [line], [line]]


# ---- to another network and back


def test_a_supernode_that_went_to_another_network_is_a_member_there_like_any_other(lab):
    ana, bo = lab.node("ana"), lab.node("bo")
    lab.world.broadcasts = False  # else zoe goes to the other network before yan comes
    zoe, yan = stranger(lab, "zoe", 9, None), stranger(lab, "yan", 10, ("10.0.0.9", PORT))
    yan.put("y.bin", content(MIB))
    yan.scan()
    ana.do("connect_to", zoe.ip, PORT, lab.world.now)
    lab.run(10)
    assert bo.peer.is_supernode and not ana.peer.is_supernode and ana.supernode_label() == "zoe"
    ana.do("set_mesh", False, lab.world.now)
    lab.run(2)
    assert ana.fetched("y.bin").by_way_of == "zoe"


# ---- back after a death


def again(lab, node, seconds):
    """The same program on the same machine with the same folder, started again so long after it died."""
    lab.run(seconds)
    number = int(node.ip.rsplit(".", 1)[1])
    back = Node(lab, node.name, number, rng=random.Random(seconds))
    lab.nodes.append(back)
    return back.start()


@pytest.mark.parametrize("seconds", [20, 1, 5][: amount(3, 1)])
def test_a_supernode_that_died_and_is_started_again_finds_the_others_and_they_get_its_file(lab, seconds):
    ana = lab.node("ana", shared={"big.iso": content(24 * MIB)})
    bo, cy = lab.node("bo"), lab.node("cy")
    lab.world.conditions.rate = 4 * MIB
    assert bo.fetch("big.iso").kind == cy.fetch("big.iso").kind == "started"
    assert lab.world.run_until(lambda: cy.row().verified > 2 * MIB, lab.world.now + 30)
    ana.kill()
    back = again(lab, ana, seconds)
    assert back.told(Outcome)[-1].kind == "joined"
    for node in (bo, cy):
        assert lab.world.run_until(lambda node=node: node.told(DownloadDone), lab.world.now + 60), node.events
        assert node.read("big.iso") == content(24 * MIB)
    assert {node.supernode_label() for node in (back, bo, cy)} == {"bo"}


def test_what_answers_where_the_old_network_was_is_not_joined_when_it_is_another(lab):
    ana, bo = lab.node("ana"), lab.node("bo")
    ana.kill()
    bo.kill()
    zoe = Node(lab, os.path.join("..", "zoe"), 2, rng=random.Random(9))
    lab.nodes.append(zoe)
    zoe.start((zoe.ip, PORT))
    assert again(lab, ana, 1).told(Outcome)[-1].kind == "supernode"


def test_the_old_network_is_not_looked_for_after_an_hour(lab):
    ana, bo = lab.node("ana"), lab.node("bo")
    ana.kill()
    lab.world.broadcasts = False  # only what was kept could lead there
    long_ago = time.time() - 2 * 3600
    os.utime(os.path.join(ana.folder, ".node", "network"), (long_ago, long_ago))
    assert again(lab, ana, 20).told(Outcome)[-1].kind == "supernode"
    assert bo.peer.is_supernode


def stranger(lab, name, number, target):
    """A node that starts a network of its own, or joins there."""
    os.makedirs(str(lab.path / name))
    node = Node(lab, name, number)
    lab.nodes.append(node)
    return node.start(target)


# ---- a piece that is reported wrong


@pytest.mark.parametrize("in_folder", [False, True])
def test_a_file_of_which_a_piece_was_reported_wrong_is_hashed_again_and_announced_as_it_is(lab, in_folder):
    names = ["talks/%02d.txt" % number for number in range(12)] if in_folder else ["lab.iso"]
    tree = {name: content(3000 if in_folder else 3 * MIB, number) for number, name in enumerate(names)}
    lab.node("ana")
    bo, cy = lab.node("bo", shared=tree), lab.node("cy")
    bo.scan()
    path = os.path.join(bo.folder, names[0])
    status = os.stat(path)
    other = bo.put(names[0], content(status.st_size, 99))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    bo.scanner.known.changed_ns[path] = os.stat(path).st_ctime_ns        # as on Windows, or by a mapping
    bo.scan()
    assert bo.scanner.known.files[path].digests == digests_of(tree[names[0]])
    top = names[0].split("/")[0]
    assert cy.fetch(top).kind == "started"
    lab.run(30)
    bo.scan()
    bo.scan()
    assert bo.scanner.known.files[path].digests == digests_of(other)
    lab.run(10)
    cy.do("cancel", cy.row().number, lab.world.now)
    assert isinstance(cy.fetched(top), DownloadDone)
    assert other in [cy.read(name) for name in (names[0], names[0].replace(".txt", " (2).txt")) if
                     os.path.exists(os.path.join(cy.folder, name))]


def test_who_reports_right_pieces_as_wrong_costs_a_look_a_second(lab):
    lab.node("ana")
    bo, cy = lab.node("bo", shared={"lab.iso": content(3 * MIB)}, disk_delay=0.02), lab.node("cy")
    looked = []
    wrong_places = bo.library.wrong_places
    bo.library.wrong_places = lambda *words: (looked.append(words), wrong_places(*words))[1]
    file_id = bo.list("lab.iso")[0].file_id
    cy.fetch("lab.iso")
    assert lab.world.run_until(lambda: cy.row().verified, lab.world.now + 10)
    link = cy.peer.fetching.links.to(bo.peer.node_id).link
    begun = lab.world.now
    for _ in range(200):
        for one in (file_id, b"x" * 32):
            cy.network.send(link, encode(WrongPiece(one, 0)))
            cy.network.send(link, encode(WrongPiece(one, 1 << 20)))
        lab.run(0.005)
    assert lab.world.run_until(lambda: cy.told(DownloadDone), lab.world.now + 60)
    assert len(set(looked)) > 0 and len(looked) <= 2 * (lab.world.now - begun + 2)
    bo.scan()
    assert bo.list("lab.iso")[0].file_id == file_id and not bo.scanner.known.doubted
