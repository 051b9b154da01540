"""Can others reach a node where it did not speak first? Who tries it, what it learns, and how little is sent for it."""

import random

import pytest

from node_tests.stage.lab import Lab
from node_tests.stage.nat import NatKind as Box
from node_tests.stage.simulator import Conditions
from protocol import messages
from protocol.hearsay import TRIES_MAX, Hearsay
from protocol.membership.reachable import ASK_INTERVAL, OUTSIDE_PER_MINUTE, TOLD_BURST, TRIES_BURST, Reachable
from protocol.membership.view import Means
from protocol.messages import NOWHERE, Reached, ReachWanted, Tried, TryReach, Unasked, decode
from protocol.results import NatKind
from protocol.ruling.reaching import ASKED_TIME, MUTE_TIME, TRIES_PER_SECOND, TRY_TIME, Reaching
from protocol.transport import packets as wire

TIME = 2 * (ASKED_TIME + TRY_TIME) + 2.0  # seconds in which two have tried one
SMALL = 60  # bytes of a datagram


@pytest.fixture(params=[False, True], ids=["messages", "packets"])
def lab(tmp_path, request):
    made = Lab(tmp_path, 5, Conditions(latency=0.01), packets=request.param)
    yield made
    made.close()


def reach_of(node):
    return node.peer.reach[:2] + (node.peer.reach.nat,)


# ---- stories


def test_where_nothing_is_between_all_are_open_the_first_node_as_well(lab):
    ana, bo, cy = (lab.node(name) for name in ("ana", "bo", "cy"))
    lab.run(TIME)
    assert ana.peer.reach.is_open and ana.peer.reach.by in ("bo", "cy")
    assert reach_of(bo) in ((True, "cy", NatKind.NONE), (True, "ana", NatKind.NONE))
    assert reach_of(cy) == (True, "bo", NatKind.NONE)


def test_a_host_that_lets_in_answers_only_learns_that_others_cannot_reach_it(lab):
    lab.node("ana"), lab.node("bo")
    wall = lab.world.firewall("10.0.0.3")
    cy = lab.node("cy")
    lab.run(TIME)
    assert cy.peer.reach.is_open is False and cy.peer.reach.nat is NatKind.NONE
    assert wall.refused > 0


def test_two_are_enough_for_both_to_know(lab):
    ana = lab.node("ana")
    lab.world.firewall("10.0.0.2")
    bo = lab.node("bo")
    lab.run(TIME)
    assert (ana.peer.reach.is_open, ana.peer.reach.by) == (True, "bo")
    assert (bo.peer.reach.is_open, bo.peer.reach.by) == (False, "ana")


def test_a_first_node_learns_from_the_others_that_nobody_more_can_come(lab):
    ana, bo = lab.node("ana"), lab.node("bo")
    lab.run(TIME)
    lab.world.firewall("10.0.0.1")  # what passes already goes on
    ana.do("on_joined", lab.world.now)
    lab.run(TIME)
    assert ana.peer.reach[:2] == (False, "bo")
    assert bo.peer.reach.is_open


def test_a_port_that_somebody_opens_is_noticed(lab):
    lab.node("ana"), lab.node("bo")
    lab.world.firewall("10.0.0.3")
    cy = lab.node("cy")
    lab.run(TIME)
    assert cy.peer.reach.is_open is False
    lab.world.homes.open_firewall("10.0.0.3")
    lab.run(ASK_INTERVAL + TIME)
    assert cy.peer.reach.is_open


@pytest.mark.parametrize(
    ("kind", "keeps_ports", "is_open", "nat"),
    [
        (Box.FULL_CONE, False, True, NatKind.CHANGES_PORT),
        (Box.PORT_RESTRICTED, True, False, NatKind.KEEPS_PORT),
        (Box.SYMMETRIC, False, False, NatKind.CHANGES_PORT),
    ],
)
def test_who_is_behind_a_router_learns_what_it_does(lab, kind, keeps_ports, is_open, nat):
    for name, ip in (("ana", "203.0.113.1"), ("bo", "11.4.0.2")):
        lab.node(name, ip=ip)
    lab.world.nat("11.2.0.2", ["192.168.1.2"], kind, keeps_ports=keeps_ports)
    cy = lab.node("cy", ip="192.168.1.2")
    lab.run(TIME)
    assert reach_of(cy) == (is_open, "bo", nat)


def test_two_in_one_home_are_not_asked_to_try_each_other(tmp_path):
    lab = Lab(tmp_path, 5, Conditions(latency=0.01))
    lab.node("ana", ip="203.0.113.1")
    lab.world.nat("11.2.0.2", ["192.168.1.2", "192.168.1.3"], Box.FULL_CONE, keeps_ports=False)
    bo, cy = lab.node("bo", ip="192.168.1.2"), lab.node("cy", ip="192.168.1.3")
    lab.run(TIME)
    assert [node.peer.reach[:2] for node in (bo, cy)] == [(True, "ana")] * 2
    lab.close()


# ---- who takes over


def test_who_cannot_be_reached_takes_over_behind_all_others_by_handover_and_by_election(lab):
    ana = lab.node("ana")
    for ip in ("10.0.0.2", "10.0.0.3"):
        lab.world.firewall(ip)
    bo, cy, di, ed = (lab.node(name) for name in ("bo", "cy", "di", "ed"))
    lab.run(TIME)
    orders = [[entry.name for entry in node.peer.membership.roster] for node in lab.nodes]
    assert orders == [["ana", "di", "ed", "bo", "cy"]] * 5
    ana.quit()
    lab.run(3.0)
    assert [node.supernode_label() for node in (bo, cy, di, ed)] == ["di"] * 4
    lab.run(TIME)
    di.kill()
    lab.run(15.0)
    assert [node.supernode_label() for node in (bo, cy, ed)] == ["ed"] * 3


def test_who_is_opened_gets_its_place_in_the_order_back(lab):
    lab.node("ana")
    lab.world.firewall("10.0.0.2")
    bo, cy = lab.node("bo"), lab.node("cy")
    lab.run(TIME)
    assert [entry.name for entry in bo.peer.membership.roster] == ["ana", "cy", "bo"]
    lab.world.homes.open_firewall("10.0.0.2")
    lab.run(ASK_INTERVAL + TIME)
    assert [entry.name for entry in cy.peer.membership.roster] == ["ana", "bo", "cy"]


# ---- what a member does for others, however often it is asked


class Member:
    """A `Reachable`, and what it sent."""

    network_id, is_ruler, supernode_address = b"", False, ("10.0.0.1", 6020)

    def __init__(self):
        self.sent, self.said = [], []
        self.hearsay, self.now = Hearsay(), 100.0
        self.address = ("0.0.0.0", 6020)
        self.reachable = Reachable(Means(self, random.Random(1), self, self), self, lambda: ["10.0.0.5"])

    def send_fresh(self, address, data):
        assert len(wire.encode_lone(data)) < SMALL
        self.sent.append((address, decode(data)))

    def send_to_supernode(self, message):
        self.said.append(message)
        return True

    def near(self):
        return ["10.0.0.5"]

    def seen_by_ruler(self, place):
        return place

    def ask(self, place, count=1, every=0.0):
        for _ in range(count):
            self.reachable.on_try(TryReach(b"n" * 8, b"v" * 8, place), self.now)
            self.run(every)

    def run(self, seconds):
        until = self.now + seconds
        while self.reachable.next_deadline() <= until:
            self.now = max(self.now, self.reachable.next_deadline())
            self.reachable.on_timer(self.now)
        self.now = until


def test_a_try_is_two_small_datagrams_and_is_told():
    member = Member()
    member.ask(("10.0.0.9", 6020), every=5.0)
    assert member.sent == [(("10.0.0.9", 6020), Unasked(b"n" * 8))] * 2
    assert member.said == [Tried(b"n" * 8)]
    member.ask(NOWHERE, every=5.0)
    assert member.sent[2:] == [(("10.0.0.1", 6020), Unasked(b"n" * 8))] * 2


@pytest.mark.parametrize("victim", [("10.0.0.66", 9999), ("192.0.2.66", 9999)])
def test_a_lying_supernode_gets_few_datagrams_sent_to_one_that_never_answers(victim):
    member = Member()
    member.ask(victim, count=600, every=0.1)
    assert 0 < len(member.sent) <= TRIES_MAX
    assert len(member.said) + member.reachable.dropped == 600


def test_a_lying_supernode_gets_few_of_the_addresses_outside_asked():
    member = Member()
    for number in range(600):
        member.ask(("192.0.%d.%d" % (number // 200, 1 + number % 200), 9999), every=0.1)
    assert len({address for address, _ in member.sent}) <= 2 * OUTSIDE_PER_MINUTE


def test_a_lying_supernode_gets_no_more_than_a_try_a_second_inside():
    member = Member()
    for number in range(600):
        member.ask(("10.0.%d.%d" % (number // 200, 1 + number % 200), 9999), every=0.1)
    assert len({address for address, _ in member.sent}) <= 60 + TRIES_BURST + 1


@pytest.mark.parametrize("place", [("224.0.0.1", 6020), ("10.0.0.255", 6020), ("10.0.0.9", 53)])
def test_what_is_no_programs_place_is_not_tried(place):
    member = Member()
    member.ask(place)
    assert member.sent == member.said == []


def test_a_flood_of_what_looks_like_tries_gets_no_answer_and_few_words_to_the_supernode():
    member = Member()
    for number in range(1000):
        member.reachable.on_unasked(Unasked(number.to_bytes(8, "big")), member.now)
    assert len(member.said) == TOLD_BURST and member.sent == []


# ---- what the supernode's desk believes


class Desk:
    """A `Reaching` with members that are lines of their own."""

    def __init__(self, places):
        self.sent = []
        self.now = 0.0
        self.all = [Row(index, place) for index, place in enumerate(places)]
        self.all[0].is_own = True
        self.own = self.all[0]
        self.reaching = Reaching(self, random.Random(1), (), 0.0)

    def lines(self):
        return self.all

    def ready(self, node_id):
        return next((line for line in self.all if line.node_id == node_id), None)

    def may_ask(self, line, now):
        return True

    def on_tried(self, line, is_open, now):
        pass

    def send(self, line, message):
        self.sent.append((line, message))

    def tick(self, seconds=0.5):
        for _ in range(int(seconds / 0.5)):
            self.now += 0.5
            self.reaching.on_tick(self.now)

    def want(self, line):
        self.reaching.on_wanted(line, ReachWanted(), self.now)
        self.tick()
        return self.sent[-1]

    def told(self, line):
        return [message for to, message in self.sent if to is line and isinstance(message, messages.Reach)]


class Row:
    is_own, is_ready, is_guest = False, True, False

    def __init__(self, number, place):
        self.node_id, self.link = number.to_bytes(8, "big"), number + 1
        self.entry = messages.MemberEntry(self.node_id, "n", place, number, True, True)


LAN = [NOWHERE, *[("10.0.0.%d" % number, 6020) for number in range(2, 8)]]


def test_a_nonce_that_was_not_for_that_member_opens_nothing():
    desk = Desk(LAN)
    by, asked = desk.want(desk.all[1])
    desk.reaching.on_reached(desk.all[2], Reached(asked.nonce), desk.now)
    desk.reaching.on_reached(desk.all[1], Reached(b"guessed!"), desk.now)
    desk.reaching.on_tried(desk.all[1], Tried(asked.nonce), desk.now)  # it was not the one that was asked to
    assert desk.told(desk.all[1]) == [] and desk.reaching.dropped == 3 and by is not desk.all[1]
    desk.reaching.on_reached(desk.all[1], Reached(asked.nonce), desk.now)
    assert [reach.is_open for reach in desk.told(desk.all[1])] == [True]
    desk.reaching.on_reached(desk.all[1], Reached(asked.nonce), desk.now)
    assert len(desk.told(desk.all[1])) == 1


def test_who_does_not_say_that_it_tried_proves_nothing_and_is_not_asked_again_for_a_while():
    desk = Desk(LAN)
    asked = []
    desk.want(desk.all[1])
    while desk.now < MUTE_TIME / 2:
        by, message = desk.sent[-1]
        if isinstance(message, TryReach) and message.nonce not in [nonce for _, nonce in asked]:
            asked.append((by, message.nonce))
        desk.tick()
    others = [by for by, _ in asked if by is not desk.own]
    assert len(others) == len(set(others)) == 5
    assert desk.told(desk.all[1]) == []


def test_a_member_counts_as_shut_when_another_one_and_this_node_have_tried():
    desk = Desk(LAN)
    desk.want(desk.all[1])
    by = []
    while not desk.told(desk.all[1]):
        line, message = desk.sent[-1]
        if line not in by:
            by.append(line)
            desk.reaching.on_tried(line, Tried(message.nonce), desk.now)
        desk.tick()
        assert desk.now < 60
    assert len(by) == 2 and by[1] is desk.own
    assert not desk.told(desk.all[1])[0].is_open and desk.reaching.is_shut(desk.all[1].node_id)
    desk.reaching.forget(desk.all[1].node_id)
    assert desk.reaching.is_shut(desk.all[1].node_id)  # it may rule elsewhere
    assert not desk.reaching.is_shut(desk.all[2].node_id)


def test_who_tried_in_vain_is_not_asked_to_try_that_member_again_while_there_are_others():
    """It may be a liar who says that it tried: what it costs is over when the member asks again (ASK_INTERVAL)."""
    desk = Desk([NOWHERE, ("11.0.0.2", 6020), ("11.0.0.3", 6020)])
    member, liar = desk.all[1:3]
    by, asked = desk.want(member)
    assert by is liar
    desk.reaching.on_tried(liar, Tried(asked.nonce), desk.now)
    desk.tick(10.0)
    assert [reach.is_open for reach in desk.told(member)] == [False]
    desk.all += [Row(number, (f"11.0.0.{number}", 6020)) for number in (7, 8)]
    for _ in range(12):
        by, asked = desk.want(member)
        assert isinstance(asked, TryReach) and by in desk.all[3:]
        desk.reaching.on_reached(member, Reached(asked.nonce), desk.now)
    assert desk.reaching.is_open(member.node_id)


def test_a_thousand_who_ask_are_tried_at_a_pace():
    desk = Desk([NOWHERE, *[("10.0.%d.%d" % (index // 200, 1 + index % 200), 6020) for index in range(1000)]])
    for line in desk.all[1:]:
        for _ in range(3):
            desk.reaching.on_wanted(line, ReachWanted(), desk.now)
    desk.tick(2.5)
    assert 20 <= len(desk.sent) <= TRIES_PER_SECOND * 3.5
