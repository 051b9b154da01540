"""Whoever served something whole is told so exactly once, whatever becomes of names and links meanwhile."""

from __future__ import annotations

import pytest

from node_tests.stage.lab import Lab, Node, content
from node_tests.stage.simulator import Conditions
from protocol.exchange.serving import RECEIPT_TIME
from protocol.results import DownloadDone, UploadDone

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
