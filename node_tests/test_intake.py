"""Room for what arrives, on all connections together, and whose turn it is: two parts of an endpoint, alone."""

import random
from collections import Counter

import pytest

from protocol.transport import intake
from protocol.transport.arrival import Arrival
from protocol.transport.endpoint import Endpoint
from protocol.transport.frames import FRAME_HEADER, FRAME_HEADER_SIZE
from protocol.transport.intake import Intake
from protocol.transport.liveness import Liveness
from protocol.transport.packets import BatchHead, BulkRun
from protocol.transport.receiving import RECEIVE_WINDOW_INITIAL, RECEIVE_WINDOW_MAX
from protocol.transport.rtt import RttEstimator
from protocol.transport.turns import TROUBLE_PAUSE


def arriving(room):
    """What a connection takes in, whose remote begins with packet number 0."""
    arrival = Arrival(room.open(), room, Liveness(False, 0.0), RttEstimator(), Counter(), 0.0)
    arrival.acknowledging.begin(0)
    return arrival


def take_in(arrival, count):
    """So many empty frames, a packet each."""
    for _ in range(count):
        number, offset = arrival.acknowledging.largest + 1, (arrival.acknowledging.largest + 1) * FRAME_HEADER_SIZE
        assert arrival.on_data(number, 0, offset, memoryview(FRAME_HEADER.pack(0, 0)), 0.0)
    return arrival.take()


def test_frames_count_until_they_are_read_or_their_connection_is_over():
    room = Intake()
    one, other = arriving(room), arriving(room)
    assert len(take_in(one, 3)) == 3 and len(take_in(other, 4)) == 4 and room.unread == 7
    one.consume(0)
    assert room.unread == 6
    other.end()
    assert room.unread == 2
    other.consume(0)  # its reader takes later what it has
    assert room.unread == 2


def test_what_a_reader_takes_is_news_for_the_remote_when_it_is_half_of_the_window():
    one = arriving(Intake())
    take_in(one, 3)
    half = RECEIVE_WINDOW_INITIAL // 2
    assert not one.is_news(half - 1)
    assert one.is_news(half)
    for _ in range(3):
        one.consume(0)
    assert one.is_news(half - 3 * FRAME_HEADER_SIZE)


STEP = 100  # bytes of each packet but the last


def runs_of(stream, rng):
    """(packets, their payloads) of a stream of bytes, packets numbered in order, some of them in two runs."""
    payloads = [memoryview(stream)[at : at + STEP] for at in range(0, len(stream), STEP)]
    runs, start = [], 0
    while start < len(payloads):
        stop = min(len(payloads), start + rng.randrange(1, 9))
        head = BatchHead(b"idididid", start, start, start * STEP, STEP)
        first = rng.choice((0, 0, 0, rng.randrange(stop - start)))
        for a, b in ((0, stop - start), (first, stop - start)) if first else ((0, stop - start),):
            found = payloads[start + a : start + b]
            runs.append((BulkRun(head, a, b - a, sum(map(len, found))), found))
        start = stop
    return runs


@pytest.mark.parametrize("seed", range(20))
def test_runs_in_any_order_bring_what_their_packets_would(seed):
    rng = random.Random(seed)
    bodies = [rng.randbytes(rng.choice((0, 30, 900, 4000))) for _ in range(12)]
    runs = runs_of(b"".join(FRAME_HEADER.pack(0, len(body)) + body for body in bodies), rng)
    for _ in range(len(runs)):
        a, b = rng.randrange(len(runs)), rng.randrange(len(runs))
        if abs(a - b) < 4:
            runs[a], runs[b] = runs[b], runs[a]
    together, alone = arriving(Intake()), arriving(Intake())
    for run, payloads in runs:
        packets = list(run.one_by_one(payloads))
        if not together.on_run(run, payloads, 0.0):
            assert any(number in together.acknowledging for number, *_ in packets)
            for packet in packets:
                together.on_data(*packet, 0.0)
        for packet in packets:
            alone.on_data(*packet, 0.0)
        assert together.acknowledging.take(0, 0.0) == alone.acknowledging.take(0, 0.0)
        assert together.frames == alone.frames
    assert [frame.body for frame in together.frames] == bodies


def test_a_run_behind_a_gap_waits_in_one_piece_for_what_is_missing():
    one = arriving(Intake())
    stream = FRAME_HEADER.pack(0, 10 * STEP - FRAME_HEADER_SIZE) + bytes(10 * STEP - FRAME_HEADER_SIZE)
    (run, payloads), (rest, others) = [
        (BulkRun(BatchHead(b"idididid", 0, 0, 0, STEP), a, b - a, (b - a) * STEP),
         [memoryview(stream)[at * STEP : (at + 1) * STEP] for at in range(a, b)])
        for a, b in ((1, 10), (0, 1))
    ]  # fmt: skip
    assert one.on_run(run, payloads, 0.0) and not one.frames
    assert one._receiving._runs == {STEP: stream[STEP:]}
    assert one.on_run(rest, others, 0.0)
    assert [frame.body for frame in one.frames] == [stream[FRAME_HEADER_SIZE:]]


def test_it_is_full_with_all_frames_together(monkeypatch):
    monkeypatch.setattr(intake, "FRAMES_WAITING_IN_ALL", 10)
    room = Intake()
    one, other = arriving(room), arriving(room)
    take_in(one, 6), take_in(other, 4)
    assert not room.is_full()
    take_in(other, 1)
    assert room.is_full()


def test_what_was_whole_before_a_violation_is_handed_out():
    room = Intake()
    one = arriving(room)
    too_large = FRAME_HEADER.pack(0, 0) + FRAME_HEADER.pack(0, 0xFFFFFFFF)
    assert one.on_data(0, 0, 0, memoryview(too_large), 0.0)
    assert one.violation and len(one.take()) == 1 and room.unread == 1


def read_up(receiving):
    """The reader takes half of what the window lets come, in four large frames."""
    receiving.raise_credit()
    size = receiving.window // 8
    body = FRAME_HEADER.pack(0, size - FRAME_HEADER_SIZE) + bytes(size - FRAME_HEADER_SIZE)
    for _ in range(4):
        receiving.on_data(receiving.next_offset, memoryview(body), [])
        receiving.consume(size)


def test_windows_grow_while_all_of_them_together_stay_within_bounds(monkeypatch):
    monkeypatch.setattr(intake, "RECEIVE_WINDOWS_MAX", 5 * RECEIVE_WINDOW_INITIAL)
    room = Intake()
    one, other = room.open(), room.open()
    for receiving in (one, other):
        read_up(receiving)
        room.grow(receiving)
    assert (one.window, other.window) == (2 * RECEIVE_WINDOW_INITIAL, 2 * RECEIVE_WINDOW_INITIAL)
    read_up(one)
    room.grow(one)
    assert one.window == 2 * RECEIVE_WINDOW_INITIAL and room.windows == 4 * RECEIVE_WINDOW_INITIAL
    room.close(other)
    room.grow(one)
    assert one.window == room.windows == 4 * RECEIVE_WINDOW_INITIAL


def test_one_window_has_its_own_bound():
    room = Intake()
    one = room.open()
    while one.window < RECEIVE_WINDOW_MAX:
        read_up(one)
        room.grow(one)
    read_up(one)
    room.grow(one)
    assert one.window == room.windows == RECEIVE_WINDOW_MAX


def test_who_failed_half_way_rests_and_comes_again(monkeypatch):
    endpoint = Endpoint(random.Random(1))
    made = endpoint.connect(("10.0.0.1", 1), 1.0)
    turns = endpoint.turns
    assert list(turns.ready) == [made]
    with monkeypatch.context() as patch:
        patch.setattr(made, "next_batch", lambda now: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            list(endpoint.batches(1.0))
    assert not turns.ready and turns.next_deadline() == 1.0 + TROUBLE_PAUSE
    endpoint.on_timeout(1.0 + TROUBLE_PAUSE)
    assert list(turns.ready) == [made] and list(endpoint.batches(1.0 + TROUBLE_PAUSE))
    made.drop("over")
    assert made not in turns.ready and made not in turns.deadlines
