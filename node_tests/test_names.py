"""A name once given stays: nobody loses the label that it has, nobody gets one that was heard here within the hour."""

from __future__ import annotations

import os
import random

import pytest
from test_hostile import Outlaw

from node_tests.stage import stub_node
from node_tests.stage.lab import PORT, Lab, Node
from protocol import messages
from protocol.membership.claims import NO_PAST, Past, Run, claim_of, decode_past, encode_past, opening_of
from protocol.membership.labels import Labels, may_bear
from protocol.membership.names import KEPT_LABELS_MAX, LABEL_KEPT, Names
from protocol.messages import NO_CLAIM, NOWHERE, Bearer, Called, Claim, FormerBearer, MemberEntry, Opening, WasCalled
from protocol.results import Joined, Left, SupernodeChanged

NAME = "root@vm"


@pytest.fixture
def lab(tmp_path):
    lab = Lab(tmp_path)
    yield lab
    lab.close()


def clone(lab, folder, number, name=NAME):
    """One of several machines whose persons took the name that the program proposed."""
    os.makedirs(str(lab.path / folder), exist_ok=True)
    node = Node(lab, folder, number, rng=random.Random(len(lab.nodes)))
    node.peer.membership.name = name
    target = ("10.0.0.1", PORT) if lab.nodes else None
    lab.nodes.append(node)
    node.start(target)
    lab.run(2)
    return node


def back(lab, node, number, name=NAME):
    """The program is started again in the same folder."""
    again = clone(lab, node.name, number, name)
    assert again.peer.node_id != node.peer.node_id
    return again


def label(node):
    return node.peer.label_of(node.peer.node_id)


def seen_by(lab, node):
    """What the living call it."""
    return {other.peer.label_of(node.peer.node_id) for other in lab.nodes if other.is_alive}


# ---- the first one goes, and comes back --------------------------------------------------------------------------


def test_who_takes_over_keeps_its_label_and_who_comes_back_gets_its_own(lab):
    """They used to swap names: the next supernode was renamed to the one that had left."""
    first, second, third = (clone(lab, folder, number) for number, folder in enumerate("abc", 1))
    labels = [label(node) for node in (first, second, third)]
    assert labels[0] == NAME and len(set(labels)) == 3
    first.quit()
    lab.run(3)
    assert second.peer.is_supernode and [label(second), label(third)] == labels[1:]
    assert second.told(SupernodeChanged)[-1].old_label == NAME == third.told(SupernodeChanged)[-1].old_label
    first = back(lab, first, 1)
    for node, was in zip((first, second, third), labels):
        assert seen_by(lab, node) == {was}
    assert [event.label for event in second.told(Joined)] == [labels[2], NAME]
    assert [event.label for event in third.told(Joined)] == [NAME]


def test_a_stranger_gets_no_name_that_was_heard_within_the_hour_and_the_hour_is_over_once(lab):
    first, second = clone(lab, "a", 1), clone(lab, "b", 2, "bo")
    first.quit()
    stranger = clone(lab, "x", 66)
    assert seen_by(lab, stranger) == {NAME + "~" + stranger.peer.node_id.hex()[:4]}
    stranger.quit()
    lab.run(LABEL_KEPT)
    other = clone(lab, "y", 67)
    assert seen_by(lab, other) == {NAME}
    first = back(lab, first, 1)
    assert seen_by(lab, other) == {NAME} and seen_by(lab, first) != {NAME}
    assert seen_by(lab, second) == {"bo"}


@pytest.mark.parametrize("hides", [False, True])
def test_a_member_that_left_comes_back_under_its_own_label_whoever_rules_by_then(lab, hides):
    """Also under one who came after it had left, and so was told of it."""
    first, second = clone(lab, "a", 1), clone(lab, "b", 2)
    was = label(second)
    second.quit()
    third = clone(lab, "c", 3, "cy")
    if hides:
        first.kill()
        lab.run(15)
        assert third.peer.is_supernode
    stranger = clone(lab, "x", 66)
    assert label(stranger) not in (was, NAME)
    second = back(lab, second, 2)
    assert seen_by(lab, second) == {was}


def test_who_died_and_is_started_again_at_once_has_its_label_when_its_death_is_noticed(lab):
    first, second = clone(lab, "a", 1, "ana"), clone(lab, "b", 2)
    second.kill()
    second = back(lab, second, 2)
    assert label(second) != NAME
    lab.run(15)
    assert seen_by(lab, second) == {NAME}
    assert [event.label for event in first.told(Left)] == [NAME]


def test_a_supernode_that_died_and_is_started_again_has_its_label_under_the_next(lab):
    first, second = clone(lab, "a", 1), clone(lab, "b", 2)
    was = label(second)
    first.kill()
    lab.run(15)
    first = back(lab, first, 1)
    assert second.peer.is_supernode and seen_by(lab, first) == {NAME} and seen_by(lab, second) == {was}


def test_the_label_of_one_that_is_here_goes_to_nobody_who_copied_its_folder(lab):
    clone(lab, "a", 1, "ana")
    second = clone(lab, "b", 2)
    past = lab.path / "x" / ".node"
    os.makedirs(str(past))
    (past / "name").write_bytes((lab.path / "b" / ".node" / "name").read_bytes())
    os.chmod(str(past), 0o700)
    copy = clone(lab, "x", 66)
    assert seen_by(lab, second) == {NAME} and seen_by(lab, copy) != {NAME}
    was = label(copy)
    second.quit()
    lab.run(2)
    assert seen_by(lab, copy) == {was}, "it said good-bye, and was there to say it: it was another"


# ---- parted networks -----------------------------------------------------------------------------------------------


def test_when_a_parted_network_heals_nobody_present_loses_its_label():
    lab = stub_node.Lab(25, 0)
    for _ in range(8):
        lab.add(NAME)
        lab.run(2.0)
    ids = [node.membership.node_id for node in lab.nodes]
    before = lab.nodes[0].membership.roster.labels()
    assert len(set(before.values())) == 8
    ips = [node.network.address[0] for node in lab.nodes]
    lab.world.cut(ips[:3], ips[3:])
    lab.run(60.0)
    assert len(lab.rulers()) == 2
    assert all(node.membership.label_of(one) == before[one] for node in lab.nodes[3:] for one in ids[3:])
    lab.world.heal()
    assert lab.wait(lambda: len(lab.rulers()) == 1 and lab.agree(), 30.0) is not None
    lab.run(3.0)
    assert all(node.membership.roster.labels() == before for node in lab.nodes)


def test_who_came_while_the_network_was_parted_keeps_the_label_that_it_got_there():
    """Its other half never knew it; nobody has that label here, so it may have it."""
    lab = stub_node.Lab(25, 6)
    ips = [node.network.address[0] for node in lab.nodes]
    lab.world.cut(ips[:3] + ["10.0.0.7", "10.0.0.8"], ips[3:] + ["10.0.0.9", "10.0.0.10"])
    lab.run(30.0)
    others = [stub_node.StubNode(lab.world, "10.0.0.%d" % number, "zoe") for number in (9, 10)]
    for other in others:
        lab.nodes.append(other)
        other.start((ips[3], PORT))
        lab.run(2.0)
    was = others[1].membership.label_of(others[1].membership.node_id)
    assert was != "zoe"
    others[0].quit()
    lab.run(30.0)
    lab.world.heal()
    assert lab.wait(lambda: len(lab.rulers()) == 1 and lab.agree(), 30.0) is not None
    lab.run(3.0)
    assert {node.membership.label_of(others[1].membership.node_id) for node in lab.living()} == {was}


# ---- programs of an earlier version --------------------------------------------------------------------------------


class Untold:
    """The desk of a supernode that tells nothing of what members are called."""

    def on_claim(self, line, claim, now): ...

    def depart(self, line, how, now): ...

    def give(self, now): ...

    def news(self, now):
        return ()

    all = news


def test_under_a_supernode_that_tells_no_labels_all_see_what_the_roster_says_and_keep_what_they_were_told():
    lab = stub_node.Lab(3, 0)
    for _ in range(4):
        lab.add(NAME)
        lab.run(2.0)
    before = lab.nodes[3].membership.roster.labels()
    first, second, third, fourth = lab.nodes
    first.quit()
    lab.run(0.05)
    second.supernode.naming = Untold()
    lab.run(4.0)
    ids = [node.membership.node_id for node in lab.nodes]
    assert [fourth.membership.label_of(one) for one in ids[1:]] == [before[one] for one in ids[1:]]
    lab.add(NAME)
    lab.run(2.0)
    labels = fourth.membership.roster.labels()
    assert len(set(labels.values())) == 4 and all(labels[one] == before[one] for one in ids[1:])
    assert len(set(lab.nodes[4].membership.roster.labels().values())) == 4
    assert third.membership.dropped == 0


# ---- liars ---------------------------------------------------------------------------------------------------------


def entry(number, name, host=""):
    return MemberEntry(bytes([number]) * 8, name, (host, PORT) if host else NOWHERE, number, True, True)


@pytest.mark.parametrize(
    ("name", "suffix", "may"),
    [
        ("ana", "", True),
        ("ana", "~beef", True),
        ("ana", "~" + "01" * 8, True),
        ("ana", "~" + "02" * 8, False),  # all digits: nobody else's
        ("ana", "@10.0.0.7", True),
        ("ana", " is gone", False),
        ("ana", "~BEEF", False),
        ("ana", "~bee", False),
        ("ana", "@lab", False),
        ("ana", "@10.0.0.7 ", False),
        ("ana~beef", "", False),
        ("ana~beef", "@10.0.0.7", False),
        ("\u0410nna", "", False),  # of two scripts
        ("\u0410nna", "~beef", True),
    ],
)
def test_only_what_a_label_may_be_made_of_is_believed(name, suffix, may):
    assert may_bear(entry(1, name), suffix) is may


def test_no_two_have_one_label_whatever_who_rules_tells():
    entries = [entry(1, "ana"), entry(2, "ana"), entry(3, "an\u0430"), entry(4, "bo")]
    for suffixes in (("", "", "", ""), ("~beef", "~beef", "~beef", " x"), ("@10.0.0.7", "@10.0.0.7", "", "~")):
        told = {one.node_id: suffix for one, suffix in zip(entries, suffixes)}
        labels = Labels(entries, told).labels
        assert len(labels) == 4 and len(set(labels.values())) == 4 and labels[entries[3].node_id] == "bo"


def test_tables_have_a_bound_whatever_who_rules_tells():
    names = Names()
    for number in range(40_000):
        node_id = number.to_bytes(8, "big")
        names.hear([Bearer(node_id, "", NO_CLAIM)])
        names.hear_former([FormerBearer(node_id, "x", "", NO_CLAIM, 0)], 0.0)
    assert len(names.suffixes()) == 2 * messages.MEMBERS_MAX and len(names.former(1.0)) == KEPT_LABELS_MAX
    assert names.former(LABEL_KEPT) == []
    names.hear_former([FormerBearer(bytes(8), "x", "", NO_CLAIM, 2**32 - 1)], 5.0)
    assert bytes(8) not in [former.node_id for former in names.former(5.0)]


def kept_of(ruler):
    return {former.name: former for former in ruler.peer.supernode.naming._kept(ruler.world.now)}


def test_a_wrong_opening_or_one_shown_before_gives_nobody_a_label(lab):
    ana, bo = clone(lab, "a", 1, "ana"), clone(lab, "b", 2, "bo")
    past = decode_past((lab.path / "b" / ".node" / "name").read_bytes(), bytes(16))
    run = Run(ana.peer.membership.network_id, bo.peer.node_id)
    assert run in past.runs
    if os.name != "nt":
        assert (lab.path / "b" / ".node" / "name").stat().st_mode & 0o077 == 0
    right = opening_of(past.key, *run)
    bo.quit()
    assert kept_of(ana)["bo"].claim == claim_of(right)
    liar = Outlaw(lab, name="bo").join(ana)
    wrong = [bytes(16), claim_of(right), past.key, right[::-1]]
    liar.say(liar.link, Claim(NO_CLAIM, False, "", tuple(Opening(run.node_id, one) for one in wrong)))
    liar.say(liar.link, Claim(NO_CLAIM, True, "", ()))
    lab.run(1)
    assert ana.peer.label_of(liar.node_id) == "bo~" + liar.node_id.hex()[:4]
    bo = back(lab, bo, 2, "bo")
    assert seen_by(lab, bo) == {"bo"}
    bo.quit()
    liar.say(liar.link, Claim(NO_CLAIM, False, "", (Opening(run.node_id, right),)))  # by who ruled when it was shown
    lab.run(1)
    assert ana.peer.label_of(liar.node_id) == "bo~" + liar.node_id.hex()[:4] and kept_of(ana)["bo"].suffix == ""


def test_who_shows_it_late_gets_its_label_all_the_same(lab):
    """As one does that was sent on from elsewhere, and did not know into which network."""
    ana, bo = clone(lab, "a", 1, "ana"), clone(lab, "b", 2, "bo")
    past = decode_past((lab.path / "b" / ".node" / "name").read_bytes(), bytes(16))
    bo.quit()
    cy = clone(lab, "c", 3, "cy")
    late = Outlaw(lab, name="bo").join(ana)
    assert cy.peer.label_of(late.node_id) == "bo~" + late.node_id.hex()[:4]
    run = past.runs[0]
    late.say(late.link, Claim(bytes(range(16)), False, "", (Opening(run.node_id, opening_of(past.key, *run)),)))
    lab.run(1)
    assert cy.peer.label_of(late.node_id) == ana.peer.label_of(late.node_id) == "bo"
    assert "bo" not in kept_of(ana)


def test_who_shows_to_have_been_another_name_gets_no_label_of_it(lab):
    ana, bo = clone(lab, "a", 1, "ana"), clone(lab, "b", 2, "bo")
    bo.quit()
    renamed = back(lab, bo, 2, "cy")
    assert seen_by(lab, renamed) == {"cy"} and "bo" in kept_of(ana)


def test_nobody_takes_the_label_of_one_that_is_here_by_asking_for_it(lab):
    ana, bo = clone(lab, "a", 1, "ana"), clone(lab, "b", 2, "bo")
    liar = Outlaw(lab, name="bo").join(ana)
    for suffix in ("", "~beef", "@10.0.0.2", "\x1b[2J"):
        liar.say(liar.link, Claim(bytes(range(16)), True, suffix, ()))
    lab.run(1)
    assert seen_by(lab, bo) == {"bo"} and bo.peer.label_of(liar.node_id) == "bo~" + liar.node_id.hex()[:4]


def test_one_host_that_comes_and_goes_under_many_names_does_not_push_out_what_another_was_called(lab):
    ana, bo = clone(lab, "a", 1, "ana"), clone(lab, "b", 2, "bo")
    bo.quit()
    naming = ana.peer.supernode.naming
    for number in range(3 * KEPT_LABELS_MAX):
        former = FormerBearer(number.to_bytes(8, "big"), "n%d" % number, "", NO_CLAIM, 0)
        naming._keep("10.0.0.66", former, lab.world.now + LABEL_KEPT)
    assert len(kept_of(ana)) == KEPT_LABELS_MAX and "bo" in kept_of(ana)
    assert len(naming._host_of) == KEPT_LABELS_MAX
    assert seen_by(lab, back(lab, bo, 2, "bo")) == {"bo"}


def test_a_guest_that_said_nothing_leaves_no_name_behind_and_one_that_spoke_does(lab):
    ana = clone(lab, "a", 1, "ana")
    for speaks, name in ((False, "bo"), (True, "cy")):
        guest = Outlaw(lab, 66 + speaks, name=name).join(ana)
        guest.say(guest.link, messages.Guest())
        if speaks:
            guest.say(guest.link, messages.Say(1, "hello"))
        lab.run(1)
        guest.say(guest.link, messages.Leave())
        lab.run(1)
    assert set(kept_of(ana)) == {"cy"}


def test_a_newcomer_is_told_before_the_roster_what_all_are_called_and_were(lab):
    ana, bo = clone(lab, "a", 1, "ana"), clone(lab, "b", 2, "bo")
    bo.quit()
    x = Outlaw(lab).join(ana)
    kinds = [type(message) for message in x.heard if isinstance(message, (Called, WasCalled, messages.RosterPage))]
    assert kinds[:3] == [WasCalled, Called, messages.RosterPage]
    assert [bearer.name for bearer in x.all_of(WasCalled)[0].bearers] == ["bo"]
    assert {bearer.node_id for bearer in x.all_of(Called)[0].bearers} == {ana.peer.node_id, x.node_id}


def test_what_the_folder_keeps_survives_and_damage_of_it_costs_only_the_label():
    past = Past(b"k" * 16, (Run(b"n" * 16, b"i" * 8), Run(b"m" * 16, b"j" * 8)))
    data = encode_past(past)
    assert decode_past(data, b"new key of 16 by") == past
    for size in range(len(data)):
        assert decode_past(data[:size], NO_PAST.key) == NO_PAST
    assert decode_past(data + b"x", NO_PAST.key) == NO_PAST
