"""The phases of a member, each alone: what it finds, and when it goes on. (Whole members: `test_membership.py`.)"""

from __future__ import annotations

import itertools
import random
from typing import Any, List, Sequence

import pytest

from node_tests.stage.simulator import World
from protocol import messages
from protocol.hearsay import Hearsay
from protocol.membership.belonging import SUSPECT_AFTER, Bond, Silent
from protocol.membership.crossing import Crossing
from protocol.membership.door import Standing, answer_of
from protocol.membership.election import CLAIM_WAIT, RANK_TIME
from protocol.membership.failover import (
    GONE_AFTER,
    GONE_AFTER_CHANGE,
    PROBES,
    Gone,
    Inquiry,
    Succession,
    Suspicion,
    TakeOver,
)
from protocol.membership.following import FOLLOW_APART, FOLLOW_TIME, Following, Missed, Turn
from protocol.membership.joining import (
    HOPS_MAX,
    JOIN_TIME_MAX,
    JOIN_TIMEOUT,
    ROSTER_TIME,
    Attempt,
    Elsewhere,
    Entered,
    Failed,
    PutOff,
)
from protocol.membership.queries import Prober
from protocol.membership.searching import Found
from protocol.membership.view import Means, View
from protocol.messages import NO_NODE, NOWHERE, ROLE_SUPERNODE, Answer, MemberEntry

PORT = 6020
ME, RULER, OTHER = ("10.0.0.1", PORT), ("10.0.0.2", PORT), ("10.0.0.3", PORT)
MY_ID, RULER_ID, OTHER_ID = (name * 8 for name in (b"m", b"r", b"o"))
NETWORK_ID, SECRET = b"n" * 16, b"s" * 16
LINK = 7
ENTRIES = [
    MemberEntry(node_id, name, place, order, True, True)
    for order, (node_id, name, place) in enumerate(
        [(RULER_ID, "ruler", NOWHERE), (OTHER_ID, "other", OTHER), (MY_ID, "me", ME)]
    )
]
WELCOME = messages.Welcome(NETWORK_ID, 1, RULER_ID, SECRET, bytes(32), 2, 5, 0)


class Speaks:
    """A member of which only is heard what it says to its supernode."""

    name, mesh, search_port, is_joined = "me", True, PORT, True

    def __init__(self) -> None:
        self.said: List[Any] = []

    def send_to_supernode(self, message: Any) -> bool:
        self.said.append(message)
        return True


def means(is_member: bool = True, own_ips: Sequence[str] = ()) -> Means:
    network, rng = World().network(ME), random.Random(1)
    view = View(network, MY_ID, lambda: own_ips)
    if is_member:
        view.enter(WELCOME, LINK, RULER, ENTRIES, 1)
    return Means(network, rng, Prober(network, rng, Hearsay()), view)


def attempt(is_search: bool = True, hops: int = 0) -> Attempt:
    tried = Attempt(means(is_member=False), RULER, 0.0, 0.0, hops, is_search)
    assert tried.dial(0.0) is None and tried.link is not None
    return tried


def claim(node_id: bytes, term: int) -> Answer:
    standing = Standing(NETWORK_ID, term, node_id, ROLE_SUPERNODE, NO_NODE, NOWHERE, 0.0, 2, "other")
    return answer_of(standing, bytes(8), SECRET, random.Random(2))


# ---- joining ------------------------------------------------------------------------------------------------------


def test_an_attempt_has_entered_when_the_welcome_and_the_last_page_are_there() -> None:
    tried = attempt()
    assert tried.on_message(WELCOME, 0.1) is None
    assert tried.on_message(messages.RosterPage(1, 5, 0, 3, tuple(ENTRIES[:2])), 0.2) is None
    found = tried.on_message(messages.RosterPage(1, 5, 2, 3, tuple(ENTRIES[2:])), 0.3)
    assert isinstance(found, Entered) and list(found.entries) == ENTRIES and found.version == 5
    assert found.address == RULER and found.link == tried.link and not found.is_other


def test_an_attempt_without_an_answer_fails_at_its_deadline_and_not_before() -> None:
    tried = attempt()
    assert tried.next_deadline() == JOIN_TIMEOUT
    assert tried.on_timer(JOIN_TIMEOUT - 0.01) is None
    assert tried.on_timer(JOIN_TIMEOUT) == Failed("no answer")


def lines(first: int, count: int, total: int) -> messages.RosterPage:
    """A page of so many lines of a large roster."""
    entries = [ENTRIES[0]._replace(node_id=index.to_bytes(8, "big")) for index in range(first, first + count)]
    return messages.RosterPage(1, 5, first, total, tuple(entries))


def test_an_attempt_that_gets_on_is_not_given_up() -> None:
    """A thousand are sent the roster at once: whoever gives up after five seconds begins anew behind all others."""
    tried = attempt()
    tried.on_step(JOIN_TIMEOUT - 0.01)  # the link is up
    for step, message in enumerate((WELCOME, messages.Called(())), 2):
        now = step * (JOIN_TIMEOUT - 0.01)
        assert tried.on_timer(now) is None and tried.on_message(message, now) is None
        assert tried.next_deadline() == now + JOIN_TIMEOUT
    for first in range(0, 900, 100):
        now += 0.9 if first else 4.9
        assert tried.on_timer(now) is None and tried.on_message(lines(first, 100, 1000), now) is None
    assert isinstance(tried.on_message(lines(900, 100, 1000), now + 0.5), Entered)


@pytest.mark.parametrize("trickle", [
    [messages.RosterPage(1, 5, 0, 3, tuple(ENTRIES[:2]))],  # again and again from its beginning
    [messages.Called(()), messages.WasCalled(())],
    [lines(index, 1, 1000) for index in range(1000)],
])  # fmt: skip
def test_who_sends_the_roster_drop_by_drop_is_given_up_soon(trickle: List[Any]) -> None:
    tried, now = attempt(), 0.1
    tried.on_message(WELCOME, now)
    for message in itertools.cycle(trickle):
        now += 1.0
        if tried.on_timer(now) is not None:
            break
        tried.on_message(message, now)
    assert ROSTER_TIME <= now <= ROSTER_TIME + 2.0


def test_no_step_makes_an_attempt_last_for_ever() -> None:
    tried = attempt()
    assert tried.on_message(lines(0, 100, 1000), JOIN_TIME_MAX - 1.0) is None
    tried.on_step(JOIN_TIME_MAX - 0.5)
    assert tried.next_deadline() == JOIN_TIME_MAX


def test_a_link_that_is_up_late_is_a_step_on_the_way_into_another_network_too() -> None:
    sent: List[Attempt] = []
    crossing = Crossing(means(), sent.append)
    crossing.begin(OTHER, 0.0, lambda why, now: None)
    assert crossing.next_deadline() == JOIN_TIMEOUT
    crossing.on_link_up(JOIN_TIMEOUT - 0.1)
    assert len(sent) == 1 and crossing.next_deadline() == 2 * JOIN_TIMEOUT - 0.1


def test_a_second_welcome_is_false() -> None:
    tried = attempt()
    assert tried.on_message(WELCOME, 0.1) is None
    assert tried.on_message(WELCOME, 0.2) == Failed("it belongs to another network", is_false=True)


def test_a_busy_supernode_is_tried_again_when_it_said_but_not_for_ever() -> None:
    tried = attempt(hops=1)
    assert tried.on_message(messages.Busy(1000, "later"), 0.5) == PutOff() and tried.link is None
    assert 1.5 <= tried.next_deadline() <= 2.5
    assert tried.on_timer(tried.next_deadline()) == Elsewhere(RULER, 1)
    late = JOIN_TIME_MAX - 0.5
    assert attempt().on_message(messages.Busy(1000, "later"), late) == Failed("later")
    assert attempt().on_message(messages.Busy(0, "never"), 0.5) == Failed("never")


@pytest.mark.parametrize("is_search, hops, goes", [(True, 0, True), (True, HOPS_MAX, False), (False, 0, False)])
def test_only_a_newcomer_goes_where_it_is_sent_and_not_round_and_round(is_search: bool, hops: int, goes: bool) -> None:
    found = attempt(is_search, hops).on_message(messages.NotSupernode(1, OTHER), 0.5)
    assert found == Elsewhere(OTHER, hops + 1) if goes else isinstance(found, Failed)


# ---- belonging ----------------------------------------------------------------------------------------------------


def test_a_bond_beats_until_the_supernode_is_silent_for_too_long() -> None:
    speaks = Speaks()
    bond = Bond(means(), speaks)
    bond.begin(10.0)
    found, now = None, 10.0
    while found is None and now < 20.0:
        now = bond.next_deadline()
        found = bond.on_timer(now)
    assert isinstance(found, Silent) and now == 10.0 + SUSPECT_AFTER
    assert [type(message) for message in speaks.said] == [messages.Ping] * 2


# ---- following ----------------------------------------------------------------------------------------------------


def test_whoever_follows_joins_the_one_that_was_named_and_nobody_else() -> None:
    tools = means()
    following = Following(tools, Turn(tools), OTHER, OTHER_ID, 2, PORT, 0.0)
    assert following.on_timer(0.0) is None
    following.on_answer(OTHER, claim(b"x" * 8, 2), 0.1)
    following.on_answer(OTHER, claim(OTHER_ID, 1), 0.1)
    assert following.on_timer(0.2) is None
    following.on_answer(OTHER, claim(OTHER_ID, 2), 0.3)
    assert following.on_timer(following.next_deadline()) == Found(OTHER)


def test_whoever_follows_waits_only_so_long_for_the_one_that_was_named() -> None:
    tools = means()
    following = Following(tools, Turn(tools), OTHER, OTHER_ID, 2, PORT, 0.0)
    assert following.on_timer(FOLLOW_TIME - 0.01) is None and isinstance(following.on_timer(FOLLOW_TIME), Missed)


@pytest.mark.parametrize(
    ("own_ips", "place", "asks_around"),
    [
        (["fd00::1"], OTHER, True),
        (["10.0.0.1"], ("fd00::3", PORT), True),
        (["10.0.0.1", "fd00::1"], OTHER, False),
        (["10.0.0.1", "fd00::1"], ("fd00::3", PORT), False),
        (["fd00::1"], ("fe80::3", PORT), True),  # on which link?
        (["fd00::1"], ("fe80::3%eth0", PORT), False),
        ([], OTHER, False),
        (["fd00::1"], ("127.0.0.1", PORT), False),
    ],
)
def test_who_cannot_reach_the_place_that_was_named_asks_around_for_who_is_there(
    own_ips: List[str], place: Any, asks_around: bool, monkeypatch: Any
) -> None:
    tools, around, there = means(own_ips=own_ips), [], []
    monkeypatch.setattr(tools.prober, "broadcast", lambda port, purpose, now: around.append((port, now)))
    monkeypatch.setattr(tools.prober, "ask", lambda address, *_: there.append(address))
    following = Following(tools, Turn(tools), place, OTHER_ID, 2, PORT, 0.0)
    while not isinstance(following.on_timer(following.next_deadline()), Missed):
        pass
    assert bool(around) is asks_around and bool(there) is not asks_around
    assert all(port == PORT for port, _ in around) and len(around) <= FOLLOW_TIME / FOLLOW_APART


def test_who_was_found_so_is_followed_where_it_answered(monkeypatch: Any) -> None:
    tools, found_at = means(own_ips=["fd00::1"]), ("fd00::3", PORT)
    following = Following(tools, Turn(tools), OTHER, OTHER_ID, 2, PORT, 0.0)
    following.on_answer(found_at, claim(OTHER_ID, 2), 1.0)
    assert following.on_timer(following.next_deadline()) == Found(found_at)


# ---- failover -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_unplanned, patience", [(False, GONE_AFTER), (True, GONE_AFTER_CHANGE)])
def test_a_supernode_is_gone_after_its_silence_and_three_probes(is_unplanned: bool, patience: float) -> None:
    tools = means()
    inquiry, bond = Inquiry(tools), Bond(tools, Speaks())
    inquiry.on_entered(is_unplanned, 0.0)
    bond.begin(0.0)
    suspicion, probes = Suspicion(tools, bond, inquiry, SUSPECT_AFTER), 0
    while suspicion.on_timer(suspicion.next_deadline()) is None:
        probes += 1
    assert probes >= PROBES and patience <= suspicion.next_deadline() < patience + 0.8


def test_a_sleeper_that_hears_of_no_supernode_still_asks_three_times() -> None:
    tools = means()
    bond = Bond(tools, Speaks())
    bond.begin(0.0)
    suspicion = Suspicion(tools, bond, Inquiry(tools), 1000.0)
    found = [suspicion.on_timer(1000.0 + 0.1 * number) for number in range(PROBES + 1)]
    assert found == [None] * PROBES + [Gone()]


@pytest.mark.parametrize("term_seen, term", [(1, 2), (5, 6), (messages.TERM_MAX, None)])
def test_a_member_whose_turn_has_come_takes_over_in_a_term_that_nobody_has_named(term_seen, term) -> None:
    tools = means()
    tools.view.hear_term(term_seen)
    succession = Succession(tools, Inquiry(tools), Turn(tools), 0.0)
    found, now = None, 0.0
    while found is None and now < 20.0:
        now = succession.next_deadline()
        found = succession.on_timer(now)
    assert found == TakeOver(term) and RANK_TIME <= now <= RANK_TIME + 1.0


def test_a_claim_of_one_that_ranks_before_is_followed() -> None:
    tools = means()
    inquiry = Inquiry(tools)
    succession = Succession(tools, inquiry, Turn(tools), 0.0)
    answer = claim(OTHER_ID, 2)
    assert not inquiry.is_alive(OTHER, answer, True, True, CLAIM_WAIT)
    succession.on_answer(answer, CLAIM_WAIT)
    assert succession.on_timer(succession.next_deadline()) == Found(OTHER)
