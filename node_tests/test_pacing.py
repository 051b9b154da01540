"""The pacer, alone: how large a batch is on each kind of path, and when the next may leave (RFC 9002 §7.7)."""

import math

import pytest

from protocol.rates import RecentMaximum
from protocol.transport.pacing import BURST_NEAR_PART, PACING_CATCH_UP, PACING_QUANTUM, ROOM_NEAR, Pacer
from protocol.transport.recovery import SEGMENTS_MAX
from protocol.transport.rtt import RttEstimator

FAR, NEAR, LOOPBACK = 0.05, 0.005, 0.0002  # round trips, seconds
RATE = 1e7  # bytes per second
WINDOW = RATE * FAR
SIZE = 1000


def pacer(round_trip, overtaken=0.0):
    rtt, reordering = RttEstimator(), RecentMaximum(10.0)
    rtt.on_sample(round_trip, 0.0)
    reordering.note(0.0, overtaken)
    return Pacer(rtt, reordering)


@pytest.mark.parametrize(
    ("round_trip", "window", "packets"),
    [
        (FAR, WINDOW, RATE * PACING_QUANTUM / SIZE),
        (NEAR, 100_000, BURST_NEAR_PART * 100_000 / SIZE),
        (NEAR, WINDOW, SEGMENTS_MAX),
        (LOOPBACK, WINDOW, 4 * SEGMENTS_MAX),
    ],
)
def test_a_batch_is_a_quantum_far_a_part_of_the_window_near_and_the_most_on_loopback(round_trip, window, packets):
    assert pacer(round_trip).burst(SIZE, RATE, window, room=500 * SIZE) == packets


@pytest.mark.parametrize(("window", "packets"), [(WINDOW, BURST_NEAR_PART * WINDOW / SIZE), (10**7, 4 * SEGMENTS_MAX)])
def test_a_short_path_behind_a_queue_gets_a_part_of_the_window_in_several_sends(window, packets):
    one = pacer(LOOPBACK)
    for _ in range(50):
        one._rtt.on_sample(NEAR, 0.0)
    assert one.burst(SIZE, RATE, window, room=500 * SIZE) == packets
    one.on_sent(100_000, RATE, now=1.0)
    assert one.next_at > 1.0  # and is paced


@pytest.mark.parametrize("round_trip", [NEAR, LOOPBACK])
def test_where_packets_overtake_each_other_the_least_round_trip_is_luck_and_the_path_is_not_near(round_trip):
    late = pacer(round_trip, overtaken=FAR)
    late._rtt.on_sample(FAR, 0.0)
    assert late.burst(SIZE, RATE, WINDOW, room=500 * SIZE) == RATE * PACING_QUANTUM / SIZE
    assert late.room_wanted(SIZE, WINDOW, unsent=10**6) == SIZE
    barely = pacer(NEAR, overtaken=NEAR * 1.5)
    assert barely.burst(SIZE, RATE, 100_000, room=500 * SIZE) == BURST_NEAR_PART * 100_000 / SIZE


def test_one_packet_goes_even_where_there_is_less_room():
    assert pacer(FAR).burst(SIZE, RATE, WINDOW, room=0) == 1


def test_near_a_good_batch_is_waited_for_but_not_more_than_there_is_to_send():
    assert pacer(FAR).room_wanted(SIZE, WINDOW, unsent=10**6) == SIZE
    assert pacer(NEAR).room_wanted(SIZE, WINDOW, unsent=10**6) == ROOM_NEAR * SIZE
    assert pacer(NEAR).room_wanted(SIZE, WINDOW, unsent=3000) == 3000
    assert pacer(NEAR).room_wanted(SIZE, WINDOW, unsent=10) == SIZE


def test_what_was_sent_puts_the_next_batch_off_by_the_time_that_it_takes():
    one = pacer(FAR)
    one.on_sent(100_000, RATE, now=1.0)
    assert one.next_at == pytest.approx(1.0 - PACING_CATCH_UP + 0.01)
    one.on_sent(100_000, RATE, now=1.001)
    assert one.next_at == pytest.approx(1.0 - PACING_CATCH_UP + 0.02)


def test_time_in_which_the_window_held_everything_is_not_made_up_for():
    one = pacer(FAR)
    one.hold()
    one.on_sent(100_000, RATE, now=1.0)
    assert one.next_at == pytest.approx(1.01)


def test_on_the_shortest_paths_nothing_is_put_off():
    one = pacer(LOOPBACK)
    one.on_sent(10**6, RATE, now=1.0)
    assert one.next_at == -math.inf


def test_what_a_late_timer_may_make_up_for_leaves_in_one_batch_and_not_a_quantum_after_the_other():
    rate = 4e6
    together, one_by_one = pacer(FAR), pacer(FAR)
    for one in (together, one_by_one):
        one.on_sent(SIZE, rate, now=0.5)
    late = together.late(1.0)
    assert late == PACING_CATCH_UP
    packets = together.burst(SIZE, rate, WINDOW, 500 * SIZE, late)
    assert packets == pytest.approx((PACING_QUANTUM + PACING_CATCH_UP) * rate / SIZE, abs=1e-6)
    together.on_sent(packets * SIZE, rate, now=1.0)
    assert together.next_at > 1.0
    sent = 0
    while one_by_one.next_at <= 1.0 + 1e-9:
        more = one_by_one.burst(SIZE, rate, WINDOW, 500 * SIZE)
        one_by_one.on_sent(more * SIZE, rate, now=1.0)
        sent += more
    assert sent == packets
    assert one_by_one.next_at == pytest.approx(together.next_at)


def test_a_batch_makes_up_for_no_time_in_which_the_window_held_everything():
    one = pacer(FAR)
    one.on_sent(SIZE, RATE, now=0.5)
    one.hold()
    assert one.late(1.0) == 0.0
