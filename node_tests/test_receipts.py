"""Whoever served something whole is told so exactly once, whatever becomes of names and links meanwhile."""

from __future__ import annotations

import pytest

from node_tests.stage.lab import MIB, Lab, Node, content
from node_tests.stage.simulator import Conditions
from protocol.exchange.receipts import RECEIPT_TIME
from protocol.messages import NO_PIECE, PieceCancel, encode
from protocol.results import DownloadDone, UploadDone, UploadEnded

SIZE = 3_000_000


@pytest.fixture
def lab(tmp_path):
    made = Lab(tmp_path, 5, Conditions(latency=0.002))
    yield made
    made.close()


def three(lab):
    return lab.node("ana"), lab.node("bo", shared={"lab.iso": content(SIZE)}), lab.node("cy", disk_delay=0.05)


def sent(node):
    return [(event.name, event.size, event.to_label, event.is_confirmed) for event in node.told(UploadDone)]


def begun(lab, cy):
    assert cy.fetch("lab.iso").kind == "started"
    assert lab.world.run_until(lambda: cy.peer.fetching.fetches, lab.world.now + 5)
    return next(iter(cy.peer.fetching.fetches.values()))


def fetch_all_but_the_receipt(lab, cy):
    """cy has every piece, and is about to give the file its name."""
    fetch = begun(lab, cy)
    assert lab.world.run_until(lambda: fetch.is_complete, lab.world.now + 20)
    assert not cy.told(DownloadDone)


def lose_link(lab, cy, bo):
    """As when each of them gives it up after a long silence."""
    link = cy.peer.fetching.links.to(bo.peer.node_id).link
    target, remote = cy.network._links[link]
    lab.world.after(0.0, lambda: cy.network._lose(link, "no sign for 30 s"))
    lab.world.after(0.0, lambda: target._lose(remote, "no sign for 30 s"))


def test_the_source_is_told_though_its_label_changes_in_mid_transfer(tmp_path):
    lab = Lab(tmp_path, 5, Conditions(latency=0.002, rate=2e6), packets=True)
    lab.node("ana")
    first = lab.node("bo")
    (tmp_path / "bo_two").mkdir()
    (tmp_path / "bo_two" / "lab.iso").write_bytes(content(SIZE))
    second = Node(lab, "bo_two", 9)
    second.peer.membership.name = "bo"
    lab.nodes.append(second)
    second.start(("10.0.0.1", 6020))
    cy = lab.node("cy")
    lab.run(3.0)
    assert cy.fetch("lab.iso").kind == "started"
    lab.run(0.5)
    first.quit()
    lab.run(10.0)
    assert cy.told(DownloadDone) and sent(second) == [("lab.iso", SIZE, "cy", True)]
    lab.close()


def test_what_each_source_gave_is_counted_by_its_id(lab):
    _, bo, cy = three(lab)
    di = lab.node("di", shared={"lab.iso": content(SIZE)})
    cy.fetched("lab.iso")
    job = next(iter(cy.peer.jobs.jobs.values()))
    assert set(job.given()) == {bo.peer.node_id, di.peer.node_id} and sum(job.given().values()) == SIZE
    assert sorted(cy.told(DownloadDone)[0].sources) == ["bo", "di"]


def test_a_receipt_whose_link_was_lost_comes_by_a_new_one(lab):
    _, bo, cy = three(lab)
    fetch_all_but_the_receipt(lab, cy)
    lose_link(lab, cy, bo)
    lab.run(5.0)
    assert cy.told(DownloadDone) and sent(bo) == [("lab.iso", SIZE, "cy", True)]
    lab.run(2 * RECEIPT_TIME)
    assert len(sent(bo)) == 1


def test_a_receipt_that_was_on_its_way_when_the_link_was_lost_is_said_again(lab):
    _, bo, cy = three(lab)
    fetch_all_but_the_receipt(lab, cy)
    backlog, cy.network.backlog = cy.network.backlog, lambda link: 100  # nothing more is delivered
    link = cy.peer.fetching.links.to(bo.peer.node_id).link
    send = cy.network.send
    cy.network.send = lambda to, *parts, **kinds: to != link and send(to, *parts, **kinds)
    assert lab.world.run_until(lambda: cy.told(DownloadDone), lab.world.now + 5)
    lab.run(2.0)
    assert not sent(bo)
    lose_link(lab, cy, bo)
    cy.network.backlog = backlog
    lab.run(3.0)
    assert sent(bo) == [("lab.iso", SIZE, "cy", True)]


def test_one_who_dies_with_all_of_it_before_it_says_so_is_told_as_that(lab):
    _, bo, cy = three(lab)
    fetch_all_but_the_receipt(lab, cy)
    lose_link(lab, cy, bo)
    cy.kill()
    lab.run(RECEIPT_TIME + 30.0)
    assert sent(bo) == [("lab.iso", SIZE, "cy", False)]


def test_what_was_not_served_whole_is_not_told(lab):
    _, bo, cy = three(lab)
    bo.disk_delay = 0.1
    fetch = begun(lab, cy)
    assert lab.world.run_until(lambda: fetch.download.verified_bytes, lab.world.now + 20)
    lose_link(lab, cy, bo)
    cy.kill()
    lab.run(2 * RECEIPT_TIME)
    assert not sent(bo)


def test_of_many_files_taken_in_a_moment_each_is_told(lab):
    shared = {"f%d.bin" % number: content(1000, number) for number in range(70)}
    _, bo, cy = lab.node("ana"), lab.node("bo", shared=shared), lab.node("cy")
    for row in cy.list():
        cy.peer.fetch(row, lab.world.now, lambda answer: None)
    cy.network.rearm()
    lab.run(60.0)
    assert len(cy.told(DownloadDone)) == 70
    assert sorted(event.name for event in bo.told(UploadDone)) == sorted(shared)


# ---- a fetch that ends without the whole is over


def ended(node):
    return [(event.name, event.to_label) for event in node.told(UploadEnded)]


@pytest.mark.parametrize("end", ["cancel", "mesh off", "cut"])
@pytest.mark.parametrize("is_folder", [False, True])
def test_what_an_earlier_fetch_got_is_told_once_and_counts_for_no_later_one(lab, end, is_folder):
    name = "talks" if is_folder else "lab.iso"
    names = ["talks/%d.iso" % number for number in range(6)] if is_folder else [name]
    tree = {one: content(12 * MIB // len(names), number) for number, one in enumerate(names)}
    lab.node("ana")
    bo, cy = lab.node("bo", shared=tree, disk_delay=0.01), lab.node("cy")
    size = sum(map(len, tree.values()))
    number = cy.fetch(name).transfer
    assert lab.world.run_until(lambda: cy.row().verified >= size // 2, lab.world.now + 30)
    if end == "cut":
        lose_link(lab, cy, bo)
        lab.run(0.0)
    if end == "mesh off":
        cy.do("set_mesh", False, lab.world.now)
    cy.do("cancel", number, lab.world.now)
    lab.run(5)
    assert ended(bo) == [(name, "cy")] and not bo.told(UploadDone)
    first = bo.told(UploadEnded)[0]
    assert size // 2 <= first.size < size == first.whole
    cy.do("set_mesh", True, lab.world.now)
    lab.run(1)
    assert isinstance(cy.fetched(name), DownloadDone)
    lab.run(2)
    done, = bo.told(UploadDone)
    assert done.whole == size and done.size < size - first.size + 4 * MIB and len(ended(bo)) == 1


def test_the_source_of_a_part_tells_its_share(lab):
    lab.node("ana")
    bo, cy, di = (lab.node(name, shared={"lab.iso": content(12 * MIB)} if name != "di" else None, disk_delay=0.01)
                  for name in ("bo", "cy", "di"))
    assert set(di.fetched("lab.iso").sources) == {"bo", "cy"}
    lab.run(2)
    shares = [node.told(UploadDone)[0] for node in (bo, cy)]
    assert all(0 < share.size < share.whole == 12 * MIB for share in shares)
    assert sum(share.size for share in shares) >= 12 * MIB


def test_who_calls_off_what_it_never_got_is_not_heard(lab):
    _, bo, cy = three(lab)
    fetch_all_but_the_receipt(lab, cy)
    lab.run(5)
    link = cy.peer.fetching.links.to(bo.peer.node_id)
    for _ in range(50):
        cy.network.send(link.link, encode(PieceCancel(b"x" * 32, NO_PIECE)))
        cy.network.send(link.link, encode(PieceCancel(bo.list()[0].file_id, NO_PIECE)))
    lab.run(1)
    assert sent(bo) == [("lab.iso", SIZE, "cy", True)] and not ended(bo)
