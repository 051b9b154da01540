"""A guest: a node that is there for one thing. It founds no network, rules none, and shares nothing."""

from __future__ import annotations

import pytest

from node_tests.stage.lab import MIB, Node, content
from protocol.results import DownloadDone, Outcome, Stopped, SupernodeChanged, UploadDone

GUEST = {"may_rule": False, "is_sharing": False}


def test_a_guest_that_finds_nobody_founds_nothing(lab):
    bo = lab.node("bo", **GUEST)
    assert [outcome.kind for outcome in bo.told(Outcome)] == ["nobody"]
    lab.run(30)
    assert bo.peer.supernode is None and bo.peer.membership.supernode_link is None


def test_nobody_waits_for_a_guest_that_searches_at_the_same_time(lab):
    lab.node("bo", **GUEST)
    ana = lab.nodes[0]
    cy = type(ana)(lab, "cy", 7)
    cy.start((cy.ip, cy.port))
    assert [outcome.kind for outcome in cy.told(Outcome)] == ["supernode"]


def test_what_a_guest_has_and_fetches_is_announced_to_nobody(lab):
    lab.node("ana", shared={"lab.iso": content(2 * MIB)})
    bo = lab.node("bo", shared={"secret.txt": b"not for others"}, **GUEST)
    assert isinstance(bo.fetched("lab.iso"), DownloadDone)
    lab.run(2)
    assert [(entry.name, entry.sources) for entry in lab.nodes[0].list()] == [("lab.iso", 1)]
    assert bo.peer.shares() == []


def test_what_a_guest_has_is_given_to_nobody_who_knows_its_identity_either(lab):
    ana = lab.node("ana")
    secret = {"secret.txt": b"not for others"}
    bo = lab.node("bo", shared=secret, **GUEST)
    cy = lab.node("cy", shared=secret)
    entry = next(entry for entry in ana.list() if entry.name == "secret.txt")
    cy.kill()
    ana.do("fetch", entry, lab.world.now, lambda answer: None)
    lab.world.run_until(lambda: ana.told(Stopped), lab.world.now + 60)
    assert ana.told(Stopped) and not bo.told(UploadDone)


def test_a_supernode_that_leaves_hands_over_to_one_who_rules(lab):
    ana = lab.node("ana")
    lab.node("bo", **GUEST)
    cy = lab.node("cy")
    ana.quit()
    lab.run(1)
    assert cy.peer.is_supernode


def quit_as_an_earlier_program(node):
    """Which knows nothing of guests, and names the first that came."""
    for line in node.peer.supernode.register.lines():
        line.is_guest = False
    node.quit()


@pytest.mark.parametrize("end", [Node.quit, quit_as_an_earlier_program, Node.kill])
def test_another_member_rules_when_the_supernode_goes_though_a_guest_came_before_it(lab, end):
    data = content(3 * MIB)
    ana = lab.node("ana")
    bo = lab.node("bo", **GUEST)
    cy = lab.node("cy", shared={"lab.iso": data})
    end(ana)
    lab.run(15)
    assert cy.peer.is_supernode and not bo.peer.is_supernode
    assert bo.supernode_label() == "cy" and cy.peer.membership.roster.get(bo.peer.node_id) is not None
    assert [change.is_me for change in cy.told(SupernodeChanged)] == [True]
    assert isinstance(bo.fetched("lab.iso"), DownloadDone) and bo.read("lab.iso") == data


def test_a_guest_that_is_left_alone_rules_nobody(lab):
    ana = lab.node("ana")
    bo = lab.node("bo", **GUEST)
    ana.quit()
    lab.run(60)
    assert bo.peer.supernode is None and bo.peer.membership.supernode_link is None
    assert bo.fetch("lab.iso").kind == "no network"
