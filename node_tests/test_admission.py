"""The door of an endpoint, alone: cookies that prove an address, and who gives way when all places are taken."""

import dataclasses

import pytest

from protocol.addresses import NETWORK_SHARE
from protocol.transport.admission import (
    CONNECTIONS_PER_HOST_MAX,
    COOKIE_SLOT,
    COOKIES_PER_HOST_PER_SECOND,
    EVICTIONS_PER_SECOND,
    UNUSED_TIME,
    Admission,
)
from protocol.transport.connection import State
from protocol.transport.packets import NO_COOKIE, InitPacket

HERE, ELSEWHERE = ("10.0.0.1", 5), ("10.0.0.2", 5)
INIT = InitPacket(b"client-1", b"n" * 16, 7, 1000, b"t" * 16, NO_COOKIE)


@dataclasses.dataclass(eq=False)
class Line:
    """A connection, as far as the door looks at it."""

    address: tuple
    used_at: float = 100.0
    is_client: bool = False
    state: State = State.ESTABLISHED
    reason: str = ""

    def fail(self, code, reason, now):
        self.state, self.reason = State.CLOSING, reason


def door(connections=(), most=4):
    made = Admission(b"s" * 32, most)
    for each in connections:
        made.on_made(each.address[0])
    return made


@pytest.mark.parametrize(
    ("address", "later", "changes", "is_good"),
    [
        (HERE, 0.0, {}, True),
        (HERE, COOKIE_SLOT, {}, True),
        (HERE, 2 * COOKIE_SLOT, {}, False),
        (ELSEWHERE, 0.0, {}, False),
        (("10.0.0.1", 6), 0.0, {}, False),
        (HERE, 0.0, {"nonce": b"m" * 16}, False),
        (HERE, 0.0, {"client_id": b"client-2"}, False),
    ],
)
def test_a_cookie_is_good_for_its_address_and_init_and_for_a_while(address, later, changes, is_good):
    admission = door()
    cookie = admission.new_cookie(INIT, HERE, 1.0)
    packet = INIT._replace(cookie=cookie, **changes)
    assert admission.is_cookie_good(packet, address, 1.0 + later) == is_good
    assert not Admission(b"o" * 32, 4).is_cookie_good(packet, address, 1.0)


def test_a_flood_from_one_host_uses_up_its_own_cookies_only():
    admission = door()
    given = [admission.new_cookie(INIT, HERE, 1.0) for _ in range(2 * COOKIES_PER_HOST_PER_SECOND)]
    assert sum(cookie is not None for cookie in given) == COOKIES_PER_HOST_PER_SECOND
    assert admission.new_cookie(INIT, ELSEWHERE, 1.0) is not None


def test_a_flood_from_all_addresses_of_one_ipv6_network_uses_up_what_ten_hosts_have():
    admission = door()
    most = COOKIES_PER_HOST_PER_SECOND * NETWORK_SHARE
    given = [admission.new_cookie(INIT, (f"2001:db8::{n:x}", 5), 1.0) for n in range(1, 2 * most)]
    assert sum(cookie is not None for cookie in given) == most
    assert admission.new_cookie(INIT, ("2001:db8:0:1::1", 5), 1.0) is not None


def test_who_has_most_is_an_ipv6_network_and_in_a_room_that_is_one_it_is_a_machine():
    flood = [Line((f"2001:db8::{n:x}", 5), 90.0 + n / 10) for n in range(1, 9)]
    lines = [*flood, *(Line((f"fd00::{n}", 5)) for n in range(1, 4)), Line(("fd00::1", 6))]
    assert door(lines, len(lines)).refusal(("fd00::9", 5), lines, 100.0) == "" and flood[0].reason
    room = lines[-4:]
    assert door(room, len(room)).refusal(("fd00::9", 5), room, 100.0) == ""
    assert [each.address for each in room if each.reason] == [("fd00::1", 5)]


def test_while_there_is_room_nobody_gives_way():
    lines = [Line(HERE)] * 3
    assert door(lines).refusal(ELSEWHERE, lines, 100.0) == ""


def test_what_was_left_unused_the_longest_gives_its_place():
    lines = [Line(("10.0.0.%d" % n, 5), 100.0 - UNUSED_TIME - n) for n in range(4)]
    assert door(lines).refusal(ELSEWHERE, lines, 100.0) == ""
    assert [bool(each.reason) for each in lines] == [False, False, False, True]


def test_what_this_node_opened_itself_never_does():
    lines = [Line(HERE, 0.0, is_client=True) for _ in range(4)]
    assert door(lines).refusal(ELSEWHERE, lines, 100.0) == "it has too many connections"


def test_of_used_ones_who_has_most_gives_one_and_who_would_have_as_many_is_refused():
    lines = [Line(HERE, 90.0 + n) for n in range(3)] + [Line(ELSEWHERE)]
    assert door(lines).refusal(ELSEWHERE, lines, 100.0) == ""
    assert lines[0].reason and not any(each.reason for each in lines[1:])
    assert door(lines).refusal(HERE, lines[:3], 100.0) == ""  # one of the four was given back
    assert door(lines, 3).refusal(HERE, lines[1:], 100.0) == "it has too many connections"


def test_one_machine_has_a_bound_of_its_own_but_for_loopback():
    for ip, refusal in (("10.0.0.1", "too many connections from one machine"), ("127.0.0.1", "")):
        lines = [Line((ip, 5)) for _ in range(CONNECTIONS_PER_HOST_MAX)]
        assert door(lines, 1000).refusal((ip, 5), lines, 100.0) == refusal


def test_looking_for_who_may_go_is_bounded():
    lines = [Line(("10.0.0.%d" % n, 5), 0.0) for n in range(100)]
    admission = door(lines, 1)
    answers = [admission.refusal(ELSEWHERE, lines, 100.0) for _ in range(50)]
    assert answers.count("") == EVICTIONS_PER_SECOND


def test_who_is_gone_leaves_nothing():
    admission = door([Line(HERE)])
    admission.on_gone(HERE[0])
    assert not admission.per_host
