"""Addresses that only a message named: how much is sent there before they answer."""

from __future__ import annotations

from protocol.hearsay import ADDRESSES_MAX, HOST_UNANSWERED_MAX, MINUTE, PROVEN_TIME, Hearsay

VICTIM = ("10.0.0.9", 7000)


def test_who_never_answers_gets_three_datagrams_a_minute_however_they_are_called():
    hearsay, sent = Hearsay(), []
    for tenth in range(6000):  # ten minutes, ten wishes a second: probes and dials in turn
        now = tenth / 10
        count = hearsay.may_dial(VICTIM, now) if tenth % 3 else hearsay.may_send(VICTIM, now)
        sent += [now] * count
    assert 27 <= len(sent) <= 30
    for at in sent:
        assert sum(at - MINUTE < other <= at for other in sent) <= 3


def test_a_dial_takes_all_that_is_left_for_the_transport_repeats_it():
    hearsay = Hearsay()
    assert hearsay.may_send(VICTIM, 0.0)
    assert hearsay.may_dial(VICTIM, 1.0) == 2
    assert hearsay.may_dial(VICTIM, 2.0) == 0
    assert not hearsay.may_send(VICTIM, 3.0)
    assert hearsay.may_dial(VICTIM, MINUTE) == 1


def test_who_has_answered_is_no_hearsay_for_some_minutes():
    hearsay = Hearsay()
    hearsay.on_answer(VICTIM, 0.0)
    assert all(hearsay.may_send(VICTIM, second) and hearsay.may_dial(VICTIM, second) == 3 for second in range(100))
    after = PROVEN_TIME + 1
    assert [hearsay.may_send(VICTIM, after) for _ in range(4)] == [True, True, True, False]
    assert hearsay.may_send(("10.0.0.9", 7001), after)


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
    assert hearsay.may_dial(ports[500], 3.0) == 3 and hearsay.may_dial(ports[501], 3.0) == 0


def test_nodes_of_this_machine_share_no_count():
    hearsay = Hearsay()
    ports = [("127.0.0.1", 2000 + number) for number in range(100)]
    assert sum(hearsay.may_dial(address, 1.0) for address in ports) == 300
