"""What a side received, alone: what counts as new, when it is acknowledged, and what is said (RFC 9000 §13.2)."""

import math

import pytest

from protocol.transport.acknowledging import (
    ACK_DELAY,
    ACK_SPACING,
    FLOW_PAUSE,
    FLOW_RTT,
    NUMBER_RANGES_MAX,
    PACKET_NUMBER_JUMP_MAX,
    Acknowledging,
)
from protocol.transport.rtt import RttEstimator

FIRST = 1000
CREDIT, WINDOW = 100_000, 64 << 10


class Side:
    """Packets by hand, on a path of 50 ms or as long as is said."""

    def __init__(self, round_trip=0.05):
        self.rtt = RttEstimator()
        self.rtt.on_sample(round_trip, 0.0)
        self.numbers = Acknowledging(CREDIT, self.rtt, 0.0)
        self.numbers.begin(FIRST)

    def get(self, first, count=1, now=1.0, oldest=0, size=1400):
        self.numbers.on_packets(first, count, oldest, size, now)
        return self.numbers.due_at


@pytest.fixture
def side():
    return Side()


def test_a_number_is_new_once_and_none_before_the_handshakes(side):
    assert FIRST - 1 in side.numbers and FIRST not in side.numbers
    side.get(FIRST)
    assert FIRST in side.numbers


def test_what_the_sender_has_lost_interest_in_counts_as_received(side):
    side.get(FIRST + 10, oldest=FIRST + 5)
    assert FIRST + 4 in side.numbers and FIRST + 5 not in side.numbers


def test_a_number_far_above_all_is_not_believed(side):
    side.get(FIRST)
    assert side.numbers.is_in_reach(FIRST + PACKET_NUMBER_JUMP_MAX)
    assert not side.numbers.is_in_reach(FIRST + PACKET_NUMBER_JUMP_MAX + 1)


def test_a_run_is_new_when_none_of_it_came_before(side):
    side.get(FIRST, 5)
    side.get(FIRST + 10, 5, oldest=FIRST + 2)
    new = [first for first in range(FIRST - 5, FIRST + 20) if side.numbers.are_new(first, 4)]
    assert new == [FIRST + 5, FIRST + 6, *range(FIRST + 15, FIRST + 20)]
    side.get(FIRST + 30, 5, oldest=FIRST + 8)
    assert not side.numbers.are_new(FIRST + 7, 2)  # the sender has lost interest in its first
    assert side.numbers.are_new(FIRST + 8, 2)
    assert not side.numbers.are_new(FIRST + 34 + PACKET_NUMBER_JUMP_MAX + 1, 1)


def test_a_lone_packet_waits_for_another_which_is_told_at_once(side):
    assert side.get(FIRST) == 1.0 + ACK_DELAY
    assert side.get(FIRST + 1, now=1.001) == 1.001


def test_a_gap_is_told_at_once(side):
    assert side.get(FIRST + 1) == 1.0


def test_acknowledgements_of_a_stream_keep_their_distance(side):
    side.get(FIRST, 2)
    side.numbers.take(CREDIT, 1.0)
    assert side.numbers.due_at == math.inf
    assert side.get(FIRST + 2, 2, now=1.0001) == pytest.approx(1.0 + ACK_SPACING * (1 + 1 / 8))


@pytest.fixture
def flow():
    """A short path, on which 1,000 packets are in flight; the acknowledgement of those before has just left."""
    side = Side(FLOW_RTT / 10)
    side.get(FIRST, 1000)
    side.numbers.take(CREDIT, 1.0)
    return side


def get_more(flow, count, now, in_flight=1000, size=1400):
    first = flow.numbers.largest + 1
    return flow.get(first, count, now, first + count - 1 - in_flight, size)


def test_what_flows_is_told_when_it_pauses(flow):
    assert get_more(flow, 100, 1.001) == 1.001 + FLOW_PAUSE
    assert get_more(flow, 100, 1.0012) == 1.0012 + FLOW_PAUSE


def test_what_flows_is_told_when_it_is_half_of_what_is_in_flight(flow):
    assert get_more(flow, 499, 1.001) > 1.001
    assert get_more(flow, 1, 1.0011) == 1.0011


def test_what_flows_slowly_is_told_in_time(flow):
    for step in range(14):
        get_more(flow, 2, 1.001 + 0.0004 * step)
    assert flow.numbers.due_at == pytest.approx(1.001 + ACK_DELAY)


def test_what_flows_is_told_at_once_with_a_gap_or_with_credit(flow):
    get_more(flow, 100, 1.001)
    flow.get(flow.numbers.largest + 2, 10, 1.0011, flow.numbers.largest - 1000)
    assert get_more(flow, 10, 1.0012) == 1.0011  # a gap: what flows on does not put it off
    flow.numbers.take(CREDIT, 1.0013)
    get_more(flow, 100, 1.002)
    flow.numbers.on_credit(CREDIT + WINDOW, WINDOW, 1.0021)
    assert get_more(flow, 10, 1.0022) == 1.0021


@pytest.mark.parametrize("in_flight, size", [(300, 1400), (1000, 100)])
def test_with_little_in_flight_it_is_told_as_ever(flow, in_flight, size):
    assert get_more(flow, 100, 1.001, in_flight, size) == 1.001


def test_on_a_longer_path_what_flows_is_told_as_ever():
    side = Side(FLOW_RTT)
    side.get(FIRST, 1000)
    side.numbers.take(CREDIT, 1.0)
    assert get_more(side, 100, 1.001) == 1.001


def test_what_is_said_has_the_newest_ranges_first_and_the_largest_packets_delay(side):
    side.get(FIRST, 3)
    side.get(FIRST + 5, 2, now=1.5)
    side.get(FIRST + 4, now=1.6)
    assert side.numbers.take(CREDIT, 2.0) == (FIRST + 6, 500_000, [(FIRST + 4, FIRST + 6), (FIRST, FIRST + 2)])


def test_before_anything_came_it_says_so(side):
    assert side.numbers.take(CREDIT, 2.0).ranges == []


def test_credit_is_told_when_half_of_the_window_is_news(side):
    side.numbers.on_credit(CREDIT + WINDOW // 2 - 1, WINDOW, 1.0)
    assert side.numbers.due_at == math.inf
    side.numbers.on_credit(CREDIT + WINDOW // 2, WINDOW, 1.0)
    assert side.numbers.due_at == 1.0


def test_no_more_gaps_are_remembered_than_there_may_be(side):
    for number in range(FIRST, FIRST + 4 * NUMBER_RANGES_MAX, 2):
        side.get(number)
    assert len(side.numbers.numbers) <= NUMBER_RANGES_MAX
    assert FIRST + 1 in side.numbers  # the oldest gap counts as received
