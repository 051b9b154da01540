"""A link's first word names a node id; it is believed when the link comes from where that member is (X02, X05)."""

from __future__ import annotations

import pytest

from node_tests.stage.lab import Lab, content
from node_tests.stage.outlaw import Outlaw
from node_tests.stage.simulator import Conditions
from protocol import messages
from protocol.exchange.callers import (
    CALLERS_MAX,
    KEPT_BYTES_MAX,
    NOT_A_MEMBER_REASON,
    PROOF_TIMEOUT,
    Callers,
    Verdict,
    is_same_place,
    judge,
)
from protocol.messages import LinkHello
from protocol.results import DownloadDone, UploadDone

SIZE = 600_000
HELLO = LinkHello(messages.PURPOSE_BULK, b"n" * 16, b"c" * 8)
AT = ("10.0.0.3", 6020)


@pytest.fixture
def lab(tmp_path):
    made = Lab(tmp_path, 5, Conditions(latency=0.002))
    yield made
    made.close()


def own():
    return ["10.0.0.9"]


# ---- the one function that decides


def test_who_comes_from_its_line_in_the_roster_is_that_member():
    assert judge(b"c" * 8, AT, b"o" * 8, AT, own) is Verdict.MEMBER


@pytest.mark.parametrize("place", [None, ("10.0.0.3", 6021), ("10.0.0.4", 6020)])
def test_who_comes_from_elsewhere_is_not_known(place):
    assert judge(b"c" * 8, AT, b"o" * 8, place, own) is Verdict.UNKNOWN


def test_nobody_else_is_this_node():
    assert judge(b"o" * 8, AT, b"o" * 8, AT, own) is Verdict.LIE


def test_loopback_and_own_addresses_are_one_machine_and_two_loopbacks_are_two_sockets():
    assert is_same_place(("127.0.0.1", 6020), ("10.0.0.9", 6020), own)
    assert is_same_place(("10.0.0.9", 6020), ("127.0.0.1", 6020), own)
    assert not is_same_place(("127.0.0.1", 6020), ("10.0.0.3", 6020), own)
    assert not is_same_place(("127.0.0.1", 6020), ("127.0.0.2", 6020), own)
    assert not is_same_place(("127.0.0.1", 6020), ("10.0.0.9", 6021), own)


# ---- those of whom it is not known yet


def test_a_host_with_many_silent_links_makes_room_for_another_host():
    callers = Callers()
    for link in range(CALLERS_MAX):
        assert callers.add(link, ("10.0.0.66", 1000 + link), 0.0) is None
    assert callers.add(1000, ("10.0.0.66", 999), 0.0) == 1000 and 1000 not in callers
    assert callers.add(1001, AT, 0.0) == 0 and 0 not in callers
    assert 1001 in callers and len(callers) == CALLERS_MAX


def test_what_one_says_before_it_is_known_is_bounded():
    callers = Callers()
    callers.add(2, AT, 0.0)
    callers.wait(2, HELLO, 1.0)
    caller = callers.get(2)
    count = 0
    while caller.keep(bytes(36)):
        count += 1
        assert count < 10_000
    assert count == KEPT_BYTES_MAX // 100
    assert callers.next_deadline() == 1.0 + PROOF_TIMEOUT


# ---- whole nodes


def pieces(x):
    return x.all_of((messages.PieceData, messages.ManifestPage, messages.PieceMap))


def ask_all(x, link, file_id):
    x.say(link, messages.ManifestRequest(file_id), messages.PieceMapRequest(file_id), messages.PieceRequest(file_id, 0))


def link_as(lab, x, node, node_id):
    link = x.connect(node)
    x.say(link, LinkHello(messages.PURPOSE_BULK, node.peer.network_id, node_id))
    return link


@pytest.mark.parametrize("claim", ["nobody", "the supernode", "a member", "the node itself"])
def test_a_stranger_gets_a_refusal_and_nothing_else(lab, claim):
    ana, bo, cy = lab.node("ana"), lab.node("bo", shared={"bo.bin": content(SIZE)}), lab.node("cy")
    ids = {"nobody": b"\1" * 8, "the supernode": ana.peer.node_id, "a member": cy.peer.node_id}
    x = Outlaw(lab)
    link = link_as(lab, x, bo, ids.get(claim, bo.peer.node_id))
    ask_all(x, link, next(iter(bo.peer.holdings._shared)))
    lab.run(PROOF_TIMEOUT + 1)
    assert x.heard == [] and x.lost == [NOT_A_MEMBER_REASON]
    assert len(bo.peer._hellos) == 0 and len(bo.peer.serving.uploads.links) <= 1  # cy's own, of the mesh


def test_a_member_fetches_in_nobody_elses_name(lab):
    ana, bo, cy = lab.node("ana"), lab.node("bo", shared={"bo.bin": content(SIZE)}), lab.node("cy")
    x = Outlaw(lab).join(ana)
    file_id = next(iter(bo.peer.holdings._shared))
    link = x.link_to(bo, node_id=cy.peer.node_id)
    ask_all(x, link, file_id)
    x.say(link, messages.TransferDone(file_id))
    x.live(8)
    assert not pieces(x) and not bo.told(UploadDone)
    link = x.link_to(bo)
    ask_all(x, link, file_id)
    lab.run(1)
    assert pieces(x)
    x.say(link, messages.TransferDone(file_id))
    lab.run(1)
    assert [event.to_label for event in bo.told(UploadDone)] == ["x"]


def test_one_who_is_faster_than_the_news_of_it_waits_and_is_served(lab):
    """Its roster update is on its way: what it asked meanwhile is answered when that has come."""
    ana, bo = lab.node("ana"), lab.node("bo", shared={"bo.bin": content(SIZE)})
    x = Outlaw(lab)
    link = link_as(lab, x, bo, x.node_id)
    ask_all(x, link, next(iter(bo.peer.holdings._shared)))
    lab.run(1)
    assert not x.heard
    x.join(ana)
    lab.run(1)
    assert len(pieces(x)) == 3 and link in x.up


def test_the_supernode_itself_is_served_by_the_place_where_it_was_joined(lab):
    """In its own roster its place is nowhere; and a handover makes it a member like any other."""
    data = content(SIZE)
    ana, bo = lab.node("ana"), lab.node("bo", shared={"bo.bin": data})
    assert isinstance(ana.fetched("bo.bin"), DownloadDone)
    lab.node("cy", shared={"cy.bin": data[1:]})
    ana.quit()
    lab.run(5)
    assert bo.peer.is_supernode
    assert isinstance(bo.fetched("cy.bin"), DownloadDone)


def test_a_member_that_comes_back_from_elsewhere_is_served_there(lab):
    ana, bo = lab.node("ana"), lab.node("bo", shared={"bo.bin": content(SIZE)})
    x = Outlaw(lab).join(ana)
    other = Outlaw(lab, 67)
    other.opening, other.node_id = x.opening, x.node_id
    other.join(ana)
    ask_all(other, other.link_to(bo), next(iter(bo.peer.holdings._shared)))
    lab.run(1)
    assert pieces(other)
    link = link_as(lab, x, bo, x.node_id)  # from where it was
    lab.run(PROOF_TIMEOUT + 1)
    assert link not in x.up


def test_one_whose_address_is_not_known_gets_it_by_way_of_the_supernode(lab):
    """As behind a box that gives each of its connections another port: bo does not know cy, the supernode does."""
    _, bo, cy = lab.node("ana"), lab.node("bo", shared={"bo.bin": content(SIZE)}), lab.node("cy")
    seen_place = bo.peer.membership.ways.seen_place
    bo.peer.membership.ways.seen_place = lambda node_id: None if node_id == cy.peer.node_id else seen_place(node_id)
    done = cy.fetched("bo.bin")
    assert isinstance(done, DownloadDone) and done.by_way_of == "ana"
