"""Addresses that only a message named: how much is sent there before they answer."""

from __future__ import annotations

import math
import random
from typing import Any, List

from protocol.addresses import NETWORK_SHARE
from protocol.credit import QUERY_SIZE
from protocol.hearsay import (
    ADDRESSES_MAX,
    DIAL_TIME,
    HOST_UNANSWERED_MAX,
    KEPT,
    MINUTE,
    OUTSIDE_MAX,
    PROVEN_TIME,
    UNANSWERED_MAX,
    Hearsay,
)
from protocol.membership.queries import Prober
from protocol.messages import Answer, decode

VICTIM = ("10.0.0.9", 7000)


def test_who_never_answers_gets_three_datagrams_a_minute_however_they_are_called():
    hearsay, sent = Hearsay(), []
    for tenth in range(6000):  # ten minutes, ten wishes a second: probes and dials in turn
        now = tenth / 10
        count = hearsay.may_dial(VICTIM, now) if tenth % 3 else hearsay.may_send(VICTIM, now)
        sent += [now] * int(count)
    assert 27 <= len(sent) <= 30
    for at in sent:
        assert sum(at - 60.0 < other <= at for other in sent) <= 3


def test_a_dial_takes_all_that_is_left_for_the_transport_repeats_it():
    hearsay = Hearsay()
    assert hearsay.may_send(VICTIM, 0.0)
    assert hearsay.may_dial(VICTIM, 1.0) == 2
    assert hearsay.may_dial(VICTIM, 2.0) == 0
    assert not hearsay.may_send(VICTIM, 3.0)
    assert hearsay.may_dial(VICTIM, MINUTE) == 1
    assert hearsay.may_dial(VICTIM, 1.0 + MINUTE) == 0, "the last of them left later"
    assert hearsay.may_dial(VICTIM, 1.0 + DIAL_TIME + MINUTE) == 2


def test_some_are_kept_for_who_needs_them_more():
    hearsay = Hearsay()
    assert [hearsay.may_send(VICTIM, 0.0, keep=1) for _ in range(3)] == [True, True, False]
    assert hearsay.may_dial(VICTIM, 1.0, keep=1) == 0
    assert hearsay.may_dial(VICTIM, 1.0) == 1


def test_they_are_spread_and_more_so_where_nobody_has_answered():
    hearsay = Hearsay()
    assert [second for second in range(30) if hearsay.may_send(VICTIM, second, 10.0, 4.0)] == [0, 10, 20]
    hearsay.on_answer(VICTIM, 30.0)
    assert [second for second in range(30, 42) if hearsay.may_send(VICTIM, second, 10.0, 4.0)] == [30, 34, 38]


def test_who_has_answered_is_no_hearsay_for_some_minutes():
    hearsay = Hearsay()
    assert not hearsay.is_proven(VICTIM, 0.0)
    hearsay.on_answer(VICTIM, 0.0)
    for second in range(99):
        assert hearsay.may_send(VICTIM, second) and hearsay.may_dial(VICTIM, second) == math.inf
    assert hearsay.is_proven(VICTIM, 99.0) and hearsay.has_answered(VICTIM, 99.0, 99.0)
    assert not hearsay.has_answered(VICTIM, 98.0, 99.0)
    after = PROVEN_TIME + 1
    assert [hearsay.may_send(VICTIM, after) for _ in range(4)] == [True, True, True, False]
    assert hearsay.may_send(("10.0.0.9", 7001), after)


def test_a_persons_wish_begins_the_count_anew_and_takes_no_proof_away():
    hearsay, friend = Hearsay(), ("10.0.0.8", 7000)
    hearsay.on_answer(friend, 0.0)
    assert hearsay.may_dial(VICTIM, 0.0) == 3
    hearsay.begin_anew()
    assert hearsay.may_dial(VICTIM, 1.0) == 3 and hearsay.is_proven(friend, 1.0)


def test_naming_address_after_address_neither_grows_the_table_nor_starts_a_count_anew():
    hearsay = Hearsay()
    for _ in range(3):
        assert hearsay.may_send(VICTIM, 0.0)
    named = [("10.1.%d.%d" % (number >> 8, number & 255), 7000) for number in range(ADDRESSES_MAX + 500)]
    answers = [hearsay.may_send(address, 1.0) for address in named]
    assert len(hearsay) == ADDRESSES_MAX and not all(answers)
    assert not hearsay.may_send(VICTIM, 2.0)
    assert hearsay.may_send(named[-1], 2.0 + MINUTE) and len(hearsay) == ADDRESSES_MAX


def test_all_ports_of_one_host_together_get_no_more_than_ten_silent_nodes_would():
    hearsay = Hearsay()
    ports = [("10.0.0.9", 2000 + number) for number in range(1000)]
    assert sum(hearsay.may_dial(address, 1.0) for address in ports) == HOST_UNANSWERED_MAX
    hearsay.on_answer(ports[500], 2.0)
    assert hearsay.may_dial(ports[500], 3.0) == math.inf and hearsay.may_dial(ports[501], 3.0) == 0


def test_all_addresses_of_one_ipv6_network_together_get_what_ten_hosts_would():
    hearsay = Hearsay()
    hosts = [(f"2001:db8::{number:x}", 7000) for number in range(1, 1001)]
    assert sum(hearsay.may_dial(address, 1.0) for address in hosts) == HOST_UNANSWERED_MAX * NETWORK_SHARE
    assert hearsay.is_used_up(hosts[-1], 1.0) and not hearsay.may_send(hosts[-1], 1.0)
    assert hearsay.may_dial(("2001:db8:0:1::1", 7000), 1.0) == 3
    assert sum(hearsay.may_dial(("2001:db8:0:2::1", port), 1.0) for port in range(2000, 3000)) == HOST_UNANSWERED_MAX
    hearsay.on_answer(hosts[500], 2.0)
    assert hearsay.may_dial(hosts[500], 3.0) == math.inf and hearsay.may_dial(hosts[501], 3.0) == 0


def test_nodes_of_this_machine_share_no_count():
    hearsay = Hearsay()
    ports = [("127.0.0.1", 2000 + number) for number in range(100)]
    assert sum(hearsay.may_dial(address, 1.0) for address in ports) == 300


# ---- queries ------------------------------------------------------------------------------------------------------


class Wire:
    """Where a prober's queries go."""

    def __init__(self) -> None:
        self.nonces: List[bytes] = []

    def send_lone(self, address: Any, data: bytes) -> None:
        self.nonces.append(decode(data).nonce)

    def broadcast_lone(self, port: int, data: bytes) -> None:
        self.nonces.append(decode(data).nonce)


def answer_to(nonce: bytes) -> Answer:
    return Answer(nonce, bytes(8), bytes(16), 1, bytes(8), 1, bytes(8), VICTIM, 1, 1, "", bytes(16))


def test_only_an_answer_to_what_went_there_alone_proves_an_address():
    """Whoever hears a broadcast can answer it in another's name."""
    hearsay, wire = Hearsay(), Wire()
    prober = Prober(wire, random.Random(1), hearsay)
    prober.broadcast(6020, "heal", 0.0)
    asked = prober.match(VICTIM, answer_to(wire.nonces[-1]), 0.1)
    assert asked is not None and asked.is_broadcast and asked.address == VICTIM
    assert not hearsay.is_proven(VICTIM, 0.1)
    assert prober.ask(VICTIM, "heal", 0.2)
    assert prober.match(VICTIM, answer_to(bytes(8)), 0.3) is None and not hearsay.is_proven(VICTIM, 0.3)
    asked = prober.match(VICTIM, answer_to(wire.nonces[-1]), 0.3)
    assert asked is not None and not asked.is_broadcast and hearsay.is_proven(VICTIM, 0.3)


def test_of_addresses_beyond_the_house_that_messages_name_few_are_asked_at_a_time():
    hearsay, wire = Hearsay(), Wire()
    prober = Prober(wire, random.Random(1), hearsay)
    far = [(f"203.0.113.{number}", 6020) for number in range(1, 51)]
    for tenth in range(600):
        for address in far:
            prober.ask_hinted(address, "heal", ["10.0.0.1"], tenth / 10)
    assert len(wire.nonces) == OUTSIDE_MAX * UNANSWERED_MAX
    assert not prober.ask_hinted(("203.0.113.255", 6020), "heal", [], MINUTE), "no one host's"
    assert not prober.ask_hinted(("203.0.113.60", 53), "heal", [], MINUTE), "a system service"
    assert prober.ask_hinted(("10.0.0.9", 6020), "heal", [], 60.0), "one of the house takes no room there"
    assert prober.ask_hinted(far[-1], "heal", [], 2 * MINUTE)


def test_who_answers_beyond_the_house_makes_room_for_another():
    wire = Wire()
    prober = Prober(wire, random.Random(1), Hearsay())
    far = [(f"203.0.113.{number}", 6020) for number in range(1, OUTSIDE_MAX + 3)]
    assert [prober.ask_hinted(address, "heal", [], 0.0) for address in far] == [True] * OUTSIDE_MAX + [False] * 2
    prober.match(far[0], answer_to(wire.nonces[0]), 0.1)
    assert prober.ask_hinted(far[-1], "heal", [], 0.2) and not prober.ask_hinted(far[-2], "heal", [], 0.2)
    assert prober.ask_hinted(far[0], "heal", [], 0.5), "who has answered is asked again"


def test_what_is_asked_without_count_is_what_a_person_said():
    hearsay, wire = Hearsay(), Wire()
    prober = Prober(wire, random.Random(1), hearsay)
    assert [prober.ask(VICTIM, "heal", 0.0) for _ in range(4)] == [True, True, True, False]
    prober.ask_freely(VICTIM, "look", 1.0)
    assert len(wire.nonces) == 4 and hearsay.may_dial(VICTIM, MINUTE + 1) == 3


def test_beyond_the_count_a_question_is_paid_for_by_what_came_from_there_and_is_not_one_that_can_wait():
    wire = Wire()
    prober = Prober(wire, random.Random(1), Hearsay())
    assert [prober.ask(VICTIM, "poll", 0.0) for _ in range(4)] == [True, True, True, False]
    prober.earn(VICTIM, QUERY_SIZE - 1)
    assert not prober.ask(VICTIM, "poll", 1.0)
    prober.earn(VICTIM, 1)
    assert not prober.ask(VICTIM, "meet", 2.0, keep=KEPT)
    assert [prober.ask(VICTIM, "poll", 3.0) for _ in range(2)] == [True, False]


def test_so_is_a_question_at_a_machine_that_had_all_that_its_ports_may_get_together():
    hearsay, other = Hearsay(), ("10.0.0.9", 9000)
    prober = Prober(Wire(), random.Random(1), hearsay)
    for port in range(HOST_UNANSWERED_MAX):
        assert hearsay.may_send((other[0], 2000 + port), 0.0)
    assert not hearsay.is_used_up(("10.0.0.8", 9000), 1.0)
    assert hearsay.is_used_up(other, 1.0) and not prober.ask(other, "heal", 1.0)
    prober.earn(other, QUERY_SIZE)
    assert [prober.ask(other, "heal", 2.0) for _ in range(2)] == [True, False]
    hearsay.on_answer(other, 3.0)
    assert not hearsay.is_used_up(other, 3.0)


def test_and_one_for_which_the_table_has_no_room():
    hearsay, other = Hearsay(), ("10.2.0.9", 9000)
    prober = Prober(Wire(), random.Random(1), hearsay)
    for number in range(ADDRESSES_MAX):
        hearsay.may_send(("10.1.%d.%d" % (number >> 8, number & 255), 7000), 0.0)
    assert hearsay.is_used_up(other, 1.0) and not prober.ask(other, "heal", 1.0)
    prober.earn(other, QUERY_SIZE)
    assert [prober.ask(other, "heal", 2.0) for _ in range(2)] == [True, False]
