"""Introductions: who tells what to whom, who knocks where, and how little goes to an address that never answers."""

import math
import random

import pytest

from node_tests.stage.lab import Lab, content
from node_tests.stage.nat import NatKind
from node_tests.stage.simulator import Conditions
from protocol import messages
from protocol.hearsay import HOST_KNOCKS_MAX, KNOCKS_MAX, OUTSIDE_MAX, PROVEN_TIME, UNANSWERED_MAX
from protocol.membership.knocking import CANDIDATES_MAX, INTRODUCED_MAX, KNOCK_TIME, Knocking
from protocol.messages import NOWHERE, Introduce, Knock, Knocked, Places, decode, encode
from protocol.results import DownloadDone
from protocol.ruling.introducing import INTRODUCE_INTERVAL, PAIRS_MAX, Introducing
from protocol.transport import packets as wire

ME, BO, CY = b"mememeee", b"bobobobo", b"cycycycy"
NONCE, OTHER_NONCE = b"n" * 8, b"o" * 8
INSIDE, OUTSIDE = ("192.168.1.3", 6020), ("11.2.0.2", 40_000)
SMALL = 100  # bytes of a datagram


class Wire:
    """What was sent, and a `Knocking` of the node `ME`."""

    def __init__(self):
        self.sent, self.reached, self.proven = [], [], []
        self.now = 0.0
        self.knocking = Knocking(
            self, random.Random(1), ME, lambda: ["172.17.0.1"],
            lambda address, now: self.proven.append(address), lambda node_id, now: self.reached.append(node_id),
        )  # fmt: skip

    def send_lone(self, address, data):
        assert len(wire.encode_lone(data)) < SMALL
        self.sent.append((address, decode(data)))

    def introduce(self, node_id=BO, places=(INSIDE,), seen=OUTSIDE, nonce=NONCE, own=NOWHERE):
        self.knocking.on_introduce(Introduce(node_id, nonce, seen, own, tuple(places)), seen, self.now)

    def run(self, seconds):
        until = self.now + seconds
        while self.knocking.next_deadline() <= until:
            self.now = max(self.now, self.knocking.next_deadline())
            self.knocking.on_timer(self.now)
        self.now = until

    def place_of(self, node_id, seen=OUTSIDE):
        return self.knocking.place_of(node_id, seen)

    def places(self):
        return [address for address, message in self.sent if isinstance(message, Knock)]

    def answer(self, at, node_id=BO, nonce=NONCE, seen=NOWHERE, token=None):
        """As the one who was knocked at there."""
        sent = [message.token for address, message in self.sent if isinstance(message, Knock) and address == at]
        self.knocking.on_knocked(at, Knocked(nonce, node_id, token or sent[-1], seen), self.now)


def test_a_member_is_reached_where_it_gives_back_the_token_and_then_nobody_knocks_any_more():
    net = Wire()
    net.introduce()
    net.run(0.35)
    assert net.places() == [INSIDE, OUTSIDE] * 4
    net.answer(INSIDE)
    assert net.reached == [BO] and net.proven == [INSIDE]
    assert net.place_of(BO) == INSIDE and net.place_of(CY) is None
    assert [place for place in (INSIDE, OUTSIDE) if net.knocking.is_at(BO, OUTSIDE, place)] == [INSIDE]
    assert not net.knocking.is_at(CY, OUTSIDE, INSIDE)
    net.run(60.0)
    assert len(net.places()) == 8


def test_a_way_that_was_found_holds_for_ten_minutes_whether_anybody_else_is_introduced_or_not():
    net = Wire()
    net.introduce()
    net.introduce(CY, places=[("10.0.0.9", 6020)], nonce=OTHER_NONCE)
    net.run(0.35)
    net.answer(INSIDE)
    net.run(PROVEN_TIME - 1.0)
    assert net.place_of(BO) == INSIDE and len(net.knocking) == 1, "who never answered is forgotten sooner"
    net.run(1.0)
    assert net.place_of(BO) is None and len(net.knocking) == 0 and net.knocking.next_deadline() == math.inf


@pytest.mark.parametrize(
    "answer",
    [
        {"at": OUTSIDE, "token": b"forgotto"},
        {"at": OUTSIDE, "nonce": OTHER_NONCE},
        {"at": OUTSIDE, "node_id": CY},
        {"at": OUTSIDE, "node_id": ME},
    ],
)
def test_an_answer_that_is_not_that_ones_reaches_nobody(answer):
    net = Wire()
    net.introduce()
    net.run(0.2)
    net.answer(**answer)
    assert net.reached == net.proven == [] and net.place_of(BO) is None
    assert net.knocking.dropped == 1


def test_a_token_that_comes_from_where_it_was_not_sent_reaches_nobody_and_is_used_up():
    net = Wire()
    net.introduce()
    net.run(0.05)
    token = next(message.token for address, message in net.sent if address == INSIDE)
    net.answer(("10.0.0.66", 6020), token=token)
    net.answer(INSIDE, token=token)
    assert net.reached == []


def test_an_answer_that_comes_late_reaches_nobody():
    net = Wire()
    net.introduce()
    net.run(KNOCK_TIME + 0.1)
    net.answer(INSIDE)
    assert net.reached == []


def test_a_knock_is_answered_along_its_way_and_shows_one_place_more():
    net = Wire()
    net.introduce()
    net.run(0.05)
    elsewhere = ("11.2.0.2", 51_000)
    net.knocking.on_knock(elsewhere, Knock(NONCE, BO, b"t" * 8), net.now)
    assert net.sent[-1] == (elsewhere, Knocked(NONCE, ME, b"t" * 8, elsewhere))
    net.run(0.05)
    net.answer(elsewhere)
    assert net.place_of(BO) == elsewhere


def test_one_that_is_seen_elsewhere_by_now_is_not_where_it_answered():
    net = Wire()
    net.introduce()
    net.run(0.05)
    net.answer(INSIDE)
    moved = ("11.7.0.2", 6020)
    assert net.place_of(BO) == INSIDE and net.place_of(BO, moved) is None and net.place_of(BO, None) is None
    assert not net.knocking.is_at(BO, moved, INSIDE)


@pytest.mark.parametrize("knock", [Knock(OTHER_NONCE, BO, NONCE), Knock(NONCE, CY, NONCE), Knock(NONCE, ME, NONCE)])
def test_a_knock_of_a_stranger_or_of_this_very_node_is_not_answered(knock):
    net = Wire()
    net.introduce()
    net.knocking.on_knock(OUTSIDE, knock, net.now)
    assert net.sent == []


def test_nobody_knocks_at_itself_where_both_have_the_same_inner_address():
    net = Wire()
    net.introduce(places=[("172.17.0.1", 6020)])
    net.introduce(node_id=ME)
    net.run(2.0)
    assert set(net.places()) == {OUTSIDE}


def test_no_answer_is_longer_than_its_knock():
    for ip in ("10.0.0.1", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff"):
        assert len(encode(Knocked(NONCE, BO, NONCE, (ip, 65_535)))) <= len(encode(Knock(NONCE, ME, NONCE)))


def test_however_often_one_introduces_a_place_that_never_answers_gets_few_knocks_a_minute():
    """One that rules and lies names a victim of its choice, at each of its ports, for each member that it invents."""
    net, rng = Wire(), random.Random(4)
    for number in range(600):
        ports = [("11.66.0.1", 2000 + rng.randrange(40)) for _ in range(messages.PLACES_MAX)]
        net.introduce(number.to_bytes(8, "big"), ports, ("11.66.0.1", 2000 + number % 40))
        net.knocking.on_knock(("11.66.0.1", 3000 + number), Knock(NONCE, number.to_bytes(8, "big"), NONCE), net.now)
        net.run(0.1)
    knocks = net.places()
    assert 0 < len(knocks) <= HOST_KNOCKS_MAX
    assert max(knocks.count(place) for place in knocks) <= KNOCKS_MAX


def test_few_addresses_outside_are_knocked_at_at_a_time_and_who_answers_makes_room():
    net = Wire()
    for number in range(OUTSIDE_MAX + 4):
        net.introduce(number.to_bytes(8, "big"), [("192.168.7.%d" % number, 6020)], ("11.%d.0.1" % number, 6020))
    net.run(0.05)
    outside = {place for place in net.places() if place[0].startswith("11.")}
    assert len(outside) == OUTSIDE_MAX and len(set(net.places())) == 2 * OUTSIDE_MAX + 4
    net.answer(("11.3.0.1", 6020), node_id=(3).to_bytes(8, "big"))
    net.run(0.2)
    assert len({place for place in net.places() if place[0].startswith("11.")}) == OUTSIDE_MAX + 1


def test_what_one_introduces_is_bounded():
    net = Wire()
    for number in range(INTRODUCED_MAX + 50):
        net.introduce(number.to_bytes(8, "big"))
    assert len(net.knocking) == INTRODUCED_MAX
    for port in range(2000, 2100):
        net.knocking.on_knock(("11.3.0.2", port), Knock(NONCE, (INTRODUCED_MAX + 49).to_bytes(8, "big"), NONCE), 0.0)
    net.run(0.05)
    assert len(set(net.places())) <= CANDIDATES_MAX


@pytest.mark.parametrize("place", [("224.0.0.1", 6020), ("11.0.0.255", 6020), ("0.0.0.0", 6020), ("11.0.0.3", 53)])
def test_places_that_are_no_programs_of_one_host_are_not_knocked_at(place):
    net = Wire()
    net.introduce(places=[place], seen=place)
    net.run(2.0)
    assert net.sent == []


def test_one_who_is_seen_at_two_outside_ports_knows_that_its_router_changes_them():
    for seen, is_changing in ((("11.9.0.1", 700), True), (("11.9.0.1", 600), False), (("10.0.0.1", 700), False)):
        net = Wire()
        net.introduce(own=("11.9.0.1", 600) if seen[0] != "10.0.0.1" else ("10.0.0.1", 600))
        net.run(0.05)
        net.answer(INSIDE, seen=seen)
        assert net.knocking.is_port_changing is is_changing


def test_who_has_left_its_network_forgets_whom_it_knew_there():
    net = Wire()
    net.introduce()
    net.knocking.forget()
    net.run(1.0)
    assert net.sent == [] and net.knocking.next_deadline() == math.inf


# ---- the supernode's half


class Line:
    def __init__(self, node_id, place, is_own=False):
        self.node_id, self.is_own, self.told = node_id, is_own, []
        self.link = 1
        self.entry = messages.MemberEntry(node_id, "x", place, 0, True, True)


class Register:
    """Members that may ask so much."""

    def __init__(self, asks=10):
        self.asks = asks

    def may_ask(self, line, now):
        self.asks -= 1
        return self.asks >= 0

    def send(self, line, message):
        line.told.append(message)


def introduced(bo, cy, places_bo, places_cy, at=(0.0,)):
    introducing = Introducing(Register(), random.Random(1))
    for line, places in ((bo, places_bo), (cy, places_cy)):
        if places is not None:
            introducing.on_places(line, Places(tuple(places)), 0.0)
    for now in at:
        introducing.introduce(bo, cy, now)
    return len(bo.told), len(cy.told)


AT_HOME, AT_LAN = ("192.168.2.2", 6020), ("10.0.0.4", 6020)


def test_both_are_told_the_others_places_where_one_is_seen_elsewhere_than_it_says():
    bo, cy = Line(BO, OUTSIDE), Line(CY, AT_LAN)
    assert introduced(bo, cy, [INSIDE], [AT_LAN]) == (1, 1)
    nonce = bo.told[0].nonce
    assert bo.told == [Introduce(CY, nonce, AT_LAN, OUTSIDE, (AT_LAN,))]
    assert cy.told == [Introduce(BO, nonce, OUTSIDE, AT_LAN, (INSIDE,))]


def test_both_are_told_where_one_has_several_addresses():
    assert introduced(Line(BO, INSIDE), Line(CY, AT_LAN), [INSIDE, ("10.1.0.9", 6020)], [AT_LAN]) == (1, 1)


@pytest.mark.parametrize(
    ("bo", "cy", "places_bo", "places_cy"),
    [
        (Line(BO, INSIDE), Line(CY, AT_LAN), [INSIDE], [AT_LAN]),  # the roster is enough
        (Line(BO, OUTSIDE), Line(CY, AT_LAN), None, [AT_LAN]),  # an older program
        (Line(BO, OUTSIDE), Line(CY, AT_LAN), [INSIDE], None),
        (Line(BO, ("127.0.0.1", 6021)), Line(CY, AT_LAN), [INSIDE, AT_HOME], [AT_LAN]),  # on the supernode's machine
        (Line(BO, OUTSIDE), Line(CY, NOWHERE, is_own=True), [INSIDE], [AT_LAN]),  # the ruler itself
    ],
)
def test_nobody_is_told_where_it_helps_nobody(bo, cy, places_bo, places_cy):
    assert introduced(bo, cy, places_bo, places_cy) == (0, 0)


def test_one_whose_link_was_lost_is_introduced_to_nobody():
    bo, cy = Line(BO, OUTSIDE), Line(CY, AT_LAN)
    bo.link = None
    assert introduced(bo, cy, [INSIDE], [AT_LAN]) == (0, 0)


def test_two_are_introduced_once_in_a_while():
    at = (0.0, 1.0, INTRODUCE_INTERVAL - 0.1, INTRODUCE_INTERVAL + 0.1)
    assert introduced(Line(BO, OUTSIDE), Line(CY, AT_LAN), [INSIDE], [AT_LAN], at) == (2, 2)


def test_a_places_message_has_its_turn_among_a_members_requests_and_what_is_no_place_is_left_out():
    bo, cy = Line(BO, OUTSIDE), Line(CY, AT_LAN)
    introducing = Introducing(Register(asks=2), random.Random(1))
    introducing.on_places(bo, Places((INSIDE, ("127.0.0.1", 6020), ("224.0.0.1", 6020))), 0.0)
    introducing.on_places(cy, Places((AT_LAN,)), 0.0)
    introducing.on_places(bo, Places((("11.66.0.1", 6020),)), 0.0)
    introducing.introduce(bo, cy, 0.0)
    assert cy.told[0].places == (INSIDE,)


def test_what_a_supernode_remembers_of_introductions_is_bounded():
    introducing, bo = Introducing(Register(10**6), random.Random(1)), Line(BO, OUTSIDE)
    introducing.on_places(bo, Places((INSIDE,)), 0.0)
    for number in range(PAIRS_MAX + 100):
        line = Line(number.to_bytes(8, "big"), AT_LAN)
        introducing.on_places(line, Places((AT_LAN,)), 0.0)
        introducing.introduce(bo, line, 0.0)
        introducing.forget(line.node_id)
    assert len(introducing._introduced_at) == PAIRS_MAX
    assert len(introducing._places) == 1


# ---- whole nodes


def test_nodes_that_cannot_reach_each_other_send_few_small_datagrams_there(tmp_path):
    """Two symmetric routers: nothing ever comes through. What is sent to an address that never sent anything counts."""
    lab = Lab(tmp_path, 3, Conditions(latency=0.015), packets=True)
    lab.world.nat("11.2.0.2", ["192.168.1.2"], NatKind.SYMMETRIC)
    lab.world.nat("11.3.0.2", ["192.168.2.2"], NatKind.SYMMETRIC)
    lab.node("ana", ip="203.0.113.1")
    bo = lab.node("bo", ip="192.168.1.2", shared={"bo.bin": content(300_000)})
    cy = lab.node("cy", ip="192.168.2.2")
    sent, heard = {}, set()
    for node in (bo, cy):
        watch(node.network.driver, sent, heard)
    cy.fetch("bo.bin")
    lab.run(12.0)
    lab.close()
    silent = {way: sizes for way, sizes in sent.items() if (way[1], way[0]) not in heard}
    assert any(target[0] in ("11.2.0.2", "11.3.0.2") for _, target in silent)  # they did try
    for way, sizes in silent.items():
        assert len(sizes) <= KNOCKS_MAX + UNANSWERED_MAX, (way, sizes)
        assert all(size < SMALL for size in sizes), (way, sizes)


def watch(driver, sent, heard):
    """Note the size of each datagram by its way, and the ways by which something came."""
    send_raw, receive = driver.send_raw, driver.endpoint.receive

    def sending(address, datagram):
        sent.setdefault((driver.address, address), []).append(len(datagram))
        send_raw(address, datagram)

    def receiving(data, size, address, now):
        heard.add((address, driver.address))
        receive(data, size, address, now)

    driver.send_raw, driver.endpoint.receive = sending, receiving


def test_a_member_of_an_older_program_is_left_as_it_is(tmp_path):
    """It tells no places; who offers it something is not introduced, and all goes on by the roster."""
    lab = Lab(tmp_path, 3, Conditions(latency=0.002), packets=True)
    ana, bo = lab.node("ana"), lab.node("bo", shared={"bo.bin": content(300_000)})
    cy = lab.node("cy")
    del ana.peer.supernode.introducing._places[cy.peer.node_id]
    assert isinstance(cy.fetched("bo.bin"), DownloadDone)
    assert bo.peer.membership.ways.introduced_count() == cy.peer.membership.ways.introduced_count() == 0
    lab.close()
