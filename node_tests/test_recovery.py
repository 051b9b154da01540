"""Ranges, round-trip time, congestion and loss detection, against numbers worked by hand and against a plain model."""

import math
import random

import pytest

from protocol.rates import RecentMaximum
from protocol.transport.congestion import Acknowledged
from protocol.transport.cubic import CubicQ
from protocol.transport.frames import FRAME_SIZE_MAX, StreamViolation
from protocol.transport.ranges import RangeSet
from protocol.transport.receiving import GAPS_MAX, ReceiveStream
from protocol.transport.recovery import REORDERING_KEPT, AckViolation, Recovery, SentBatch
from protocol.transport.rtt import MAX_ACK_DELAY, RttEstimator
from protocol.transport.sending import SendStream

# ---- ranges -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(20))
def test_a_range_set_agrees_with_a_plain_set(seed):
    rng = random.Random(seed)
    for _ in range(50):
        ranges, model = RangeSet(), set()
        for _ in range(30):
            start = rng.randrange(60)
            stop = start + rng.randrange(1, 12)
            what = rng.random()
            if what < 0.6:
                ranges.add(start, stop)
                model |= set(range(start, stop))
            elif what < 0.9:
                ranges.subtract(start, stop)
                model -= set(range(start, stop))
            else:
                ranges.forget_below(start)
                model = {number for number in model if number >= start}
            assert [number for a, b in ranges for number in range(a, b)] == sorted(model)
            kept = list(ranges)
            assert all(left[1] < right[0] for left, right in zip(kept, kept[1:]))
            missing = [number for a, b in ranges.missing(start, stop) for number in range(a, b)]
            assert missing == [number for number in range(start, stop) if number not in model]
            assert (start in ranges) == (start in model)


# ---- round-trip time (RFC 9002 §5, worked by hand) ----------------------------------------------------------------


def test_the_first_sample_sets_all():
    rtt = RttEstimator()
    rtt.on_sample(0.040, 0.0)
    assert (rtt.smoothed, rtt.variance, rtt.minimum) == (0.040, 0.020, 0.040)
    assert rtt.probe_timeout == pytest.approx(0.040 + 0.080 + MAX_ACK_DELAY)


def test_later_samples_are_smoothed_by_the_rfc():
    rtt = RttEstimator()
    rtt.on_sample(0.040, 0.0)
    rtt.on_sample(0.056, 0.0)
    # variance = 3/4 * 20 ms + 1/4 * |40 - 56| ms = 19 ms; smoothed = 7/8 * 40 + 1/8 * 56 = 42 ms
    assert rtt.variance == pytest.approx(0.019)
    assert rtt.smoothed == pytest.approx(0.042)


def test_the_acknowledgement_delay_is_taken_off_unless_that_goes_below_the_minimum():
    rtt = RttEstimator()
    rtt.on_sample(0.040, 0.0)
    rtt.on_sample(0.048, 0.004)
    assert rtt.smoothed == pytest.approx(7 / 8 * 0.040 + 1 / 8 * 0.044)
    before = rtt.smoothed
    rtt.on_sample(0.041, 0.004)  # 37 ms would be under the minimum: the delay is not believed
    assert rtt.smoothed == pytest.approx(7 / 8 * before + 1 / 8 * 0.041)
    assert rtt.minimum == 0.040


# ---- loss detection (RFC 9002 §6) ---------------------------------------------------------------------------------


def recovery_with(batches, at=0.0, first=100):
    """A Recovery that has sent batches of so many packets of 1,000 stream bytes, 1 ms apart."""
    recovery = Recovery(first, CubicQ(1200))
    offset = 0
    for index, count in enumerate(batches):
        number = recovery.next_packet_number
        recovery.on_sent(SentBatch(number, count, offset, 1000 * count, 1000, 1036, at + index * 0.001))
        offset += 1000 * count
    return recovery


def test_a_whole_batch_is_acknowledged_as_one_range():
    recovery = recovery_with([10])
    outcome = recovery.on_ack([(100, 109)], 0.0, 0.05)
    assert outcome.acknowledged == [(0, 10_000)]
    assert outcome.lost == []
    assert recovery.bytes_in_flight == 0
    assert recovery.floor() == 110
    assert recovery.rtt.latest == pytest.approx(0.05)


def test_three_packets_later_a_gap_is_a_loss():
    recovery = recovery_with([10])
    outcome = recovery.on_ack([(104, 106), (100, 102)], 0.0, 0.05)
    assert sorted(outcome.acknowledged) == [(0, 3000), (4000, 7000)]
    assert outcome.lost == [(3000, 4000)]
    assert recovery.packets_lost == 1


def test_two_packets_later_it_may_still_be_reordering_and_time_decides():
    recovery = recovery_with([1, 1, 1])
    outcome = recovery.on_ack([(101, 102)], 0.0, 0.06)
    assert outcome.lost == []
    delay = 9 / 8 * max(recovery.rtt.smoothed, recovery.rtt.latest)
    assert recovery.next_deadline() == pytest.approx(delay)  # the first was sent at 0
    outcome, is_probe = recovery.on_timeout(recovery.next_deadline())
    assert outcome.lost == [(0, 1000)]
    assert not is_probe


def test_a_batch_partly_lost_is_split_by_its_bits():
    recovery = recovery_with([8, 8])
    outcome = recovery.on_ack([(112, 115), (104, 107)], 0.0, 0.05)
    assert sorted(outcome.acknowledged) == [(4000, 8000), (12000, 16000)]
    assert sorted(outcome.lost) == [(0, 4000), (8000, 12000)]


def test_late_news_of_a_lost_packet_is_a_spurious_loss_and_others_are_waited_for_as_long():
    recovery = recovery_with([10, 10])
    window = recovery.congestion.window
    recovery.on_ack([(105, 107)], 0.0, 0.05)
    assert recovery.packets_lost == 5
    outcome = recovery.on_ack([(100, 107)], 0.0, 0.051)
    assert recovery.packets_spurious == 5
    assert (0, 5000) in outcome.acknowledged
    assert recovery.reordering.value == pytest.approx(0.051)
    assert recovery.congestion.window >= window
    lost = recovery.on_ack([(115, 117), (100, 107)], 0.0, 0.052).lost
    assert lost == []  # seven before it are missing, and may only be late
    assert recovery.next_deadline() == pytest.approx(recovery.loss_delay) and recovery.loss_delay >= 0.051


def test_where_packets_overtake_each_other_the_overtaken_tell_the_round_trip_too():
    recovery = recovery_with([1, 1, 1])
    recovery.rtt.on_sample(0.1, 0.0)
    recovery.on_ack([(102, 102)], 0.0, 0.010)
    recovery.on_ack([(102, 102), (100, 100)], 0.0, 0.050)
    assert (recovery.rtt.samples, recovery.rtt.latest) == (3, pytest.approx(0.050))


def test_an_acknowledgement_of_overtaken_packets_tells_the_mean_of_all_and_not_the_luckiest():
    recovery = Recovery(100, CubicQ(1000))
    for number in range(4):
        recovery.on_sent(SentBatch(100 + number, 1, 1000 * number, 1000, 1000, 1000, 0.010 * number))
    recovery.rtt.on_sample(0.1, 0.0)
    recovery.on_ack([(102, 102)], 0.0, 0.030)
    assert recovery.rtt.latest == pytest.approx(0.010)  # nobody knows yet that it overtook others
    recovery.on_ack([(100, 103)], 0.0, 0.050)
    assert recovery.rtt.latest == pytest.approx((0.020 + 0.040 + 0.050) / 3)


def test_how_late_packets_were_is_forgotten_after_a_while():
    reordering = RecentMaximum(REORDERING_KEPT)
    reordering.note(1.0, 0.050)
    reordering.note(12.0, 0.020)
    assert reordering.value == 0.050
    reordering.note(23.0, 0.010)
    assert reordering.value == 0.020


def test_a_path_on_which_one_packet_was_late_is_as_before_when_none_was_for_long():
    recovery = recovery_with([1, 1, 1, 1])
    recovery.on_ack([(101, 101)], 0.0, 0.010)
    recovery.on_ack([(100, 101)], 0.0, 0.050)
    recovery.on_ack([(100, 102)], 0.0, 2 * REORDERING_KEPT)
    assert recovery.reordering.value == pytest.approx(0.050)
    recovery.on_ack([(100, 103)], 0.0, 2 * REORDERING_KEPT + 0.1)
    assert recovery.reordering.value == 0.0


def test_without_an_answer_the_probe_timeout_doubles_up_to_its_cap():
    recovery = recovery_with([1])
    recovery.rtt.on_sample(0.1, 0.0)
    waits = []
    for _ in range(6):
        waits.append(recovery.next_deadline() - recovery.last_sent_at)
        assert recovery.on_timeout(recovery.next_deadline())[1]
    first = 0.1 + 4 * 0.05 + MAX_ACK_DELAY
    assert waits == pytest.approx([first, 2 * first, 4 * first, 2.0, 2.0, 2.0])
    assert (recovery.bytes_in_flight, recovery.packets_lost) == (1036, 0)  # silence loses nothing


def test_numbers_never_sent_are_not_acknowledged():
    recovery = recovery_with([10])
    with pytest.raises(AckViolation):
        recovery.on_ack([(100, 110)], 0.0, 0.05)


def test_a_skipped_number_catches_who_acknowledges_blindly():
    recovery = recovery_with([5])
    recovery.skip_number()
    recovery.on_sent(SentBatch(recovery.next_packet_number, 5, 5000, 5000, 1000, 1036, 0.01))
    with pytest.raises(AckViolation):
        recovery.on_ack([(100, 110)], 0.0, 0.05)
    assert recovery.on_ack([(106, 110), (100, 104)], 0.0, 0.05).lost == []


@pytest.mark.parametrize("seed", range(10))
def test_every_packet_has_one_fate_in_the_end(seed):
    rng = random.Random(seed)
    print("seed", seed)
    recovery, now, offset, received = Recovery(0, CubicQ(1200)), 0.0, 0, RangeSet()
    fates = {}
    for _ in range(400):
        now += 0.001
        if rng.random() < 0.6:
            count = rng.randrange(1, 45)
            recovery.on_sent(SentBatch(recovery.next_packet_number, count, offset, 1000 * count, 1000, 1036, now))
            for index in range(count):
                number = recovery.next_packet_number - count + index
                if rng.random() > 0.1:
                    received.add(number, number + 1)
            offset += 1000 * count
        elif received:
            ranges = [(a, b - 1) for a, b in received][::-1][:64]
            outcome = recovery.on_ack(ranges, 0.0, now)
            for kind, found in (("acknowledged", outcome.acknowledged), ("lost", outcome.lost)):
                for start, stop in found:
                    for byte in range(start, stop, 1000):
                        assert fates.get(byte) != "acknowledged"
                        assert kind == "acknowledged" or byte not in fates
                        fates[byte] = kind
    outstanding = sum(bin(record.outstanding).count("1") for record in recovery._records[recovery._head :])
    assert recovery.bytes_in_flight == outstanding * 1036
    assert len(fates) + outstanding == offset // 1000


def test_an_mtu_probe_without_an_answer_asks_for_no_other_probe_unless_data_is_out_as_well():
    alone, behind_data = recovery_with([]), recovery_with([1])
    for recovery, wants_probe in ((alone, False), (behind_data, True)):
        number = recovery.next_packet_number
        recovery.on_sent(SentBatch(number, 1, 0, 0, 0, 8972, 0.002, mtu_probe=True))
        outcome, is_probe = recovery.on_timeout(recovery.next_deadline())
        assert (outcome.mtu_lost, is_probe) == (8972, wants_probe)
    assert (alone.bytes_in_flight, alone.next_deadline(), alone.probe_count) == (0, math.inf, 0)


# ---- congestion control -------------------------------------------------------------------------------------------


def controller_with(window, rtts, base=0.050):
    """A controller past slow start, with that window in bytes and those last round-trip times."""
    controller = CubicQ(1200)
    controller.window = controller.ssthresh = float(window)
    controller.base_rtt = base
    for index, rtt in enumerate(rtts):
        controller._recent_rtt.add(1.0 + index / 1000, rtt, base / 2)
    return controller


def acknowledged(now, size, **changes):
    values = Acknowledged(now, size // 1000, size, 0.05, 0.05, 0.0, False, 10, 20, 10**6, True)
    return values._replace(**changes)


def test_a_loss_with_a_queue_behind_it_cuts_the_window_by_cubics_factor():
    controller = controller_with(100_000, [0.080] * 8)
    controller.on_lost(1.008, 1, 1, 50, 100)
    assert controller.window == pytest.approx(70_000)
    controller.on_lost(1.009, 1, 1, 60, 120)  # the same round: once is enough
    assert controller.window == pytest.approx(70_000)


def test_a_lone_loss_without_a_queue_is_noise():
    controller = controller_with(100_000, [0.0505] * 8)
    controller.on_lost(1.008, 1, 1, 50, 100)
    assert controller.window == 100_000


def test_on_a_path_too_short_to_show_a_queue_every_loss_counts():
    controller = controller_with(100_000, [0.0003] * 8, base=0.0003)
    controller.on_lost(1.008, 1, 1, 50, 100)
    assert controller.window == pytest.approx(70_000)


def test_heavy_loss_without_a_queue_comes_down_below_what_came_through():
    controller = controller_with(100_000, [0.0505] * 8)
    controller.on_acknowledged(acknowledged(1.0, 100_000, rate=1_000_000, is_window_limited=False))
    for index in range(10):
        controller.on_lost(1.01, 3, 1, 50 + index, 100)
    # At the sixth range of losses; what the rate of few packets seems to hold has no say: on a late path it is little.
    assert controller.window == pytest.approx(0.85 * 100 / (100 + 6 * 3) * 100_000)


def test_loss_that_stays_at_a_lower_rate_is_the_links_noise():
    controller = controller_with(100_000, [0.0505] * 8)
    number = 100
    for round_number in range(12):
        now = 1.0 + round_number * 0.05
        number += 100
        for index in range(10):
            controller.on_lost(now, 1, 1, number + index, number + 100)
        controller.on_acknowledged(acknowledged(now, 90_000, rate=2e6, largest=number, next_packet_number=number + 100))
    assert controller.noise == pytest.approx(0.10, abs=0.03)
    before = controller.window
    for index in range(10):
        controller.on_lost(2.0, 1, 1, number + 100 + index, number + 200)
    assert controller.window == before


def test_with_a_queue_only_what_is_lost_beyond_the_noise_counts():
    controller = controller_with(100_000, [0.080] * 8)
    controller._link.noise = 0.05
    controller.on_acknowledged(acknowledged(1.0, 95_000, largest=50, rtt=None, is_window_limited=False))
    for index in range(11):  # of a hundred; five and three deviations of 2.2 are to be expected
        controller.on_lost(1.01, 1, 1, 50 + index, 200)
    assert controller.window == 100_000
    for index in range(4):
        controller.on_lost(1.02, 1, 1, 70 + index, 200)
    assert controller.window == pytest.approx(70_000)


def test_where_packets_overtake_each_other_a_queue_must_be_longer_to_be_seen():
    controller = controller_with(100_000, [0.080] * 8)
    assert controller.queue_delay > controller.queue_threshold
    controller.on_acknowledged(acknowledged(1.01, 1000, rtt=0.080, overtaken_rtt=0.200))
    assert controller.queue_delay < controller.queue_threshold
    controller.on_acknowledged(acknowledged(1.02, 1000, rtt=0.080))
    assert controller.queue_delay > controller.queue_threshold


def test_where_packets_overtake_each_other_and_many_are_lost_eight_that_are_late_are_no_queue():
    controller = controller_with(100_000, [], base=0.050)
    late = {"overtaken_rtt": 0.110, "is_window_limited": False}
    for index in range(200):
        now, rtt = 1.0 + index / 100, 0.050 if index % 20 == 0 else 0.090
        controller.on_acknowledged(acknowledged(now, 1000, rtt=rtt, largest=index * 2, **late))
        controller.on_lost(now, 1, 1, index * 2 + 1, index * 2 + 2)
    assert controller.window == 100_000
    for index in range(200, 300):
        controller.on_acknowledged(acknowledged(1.0 + index / 100, 1000, rtt=0.090, largest=index * 2, **late))
    controller.on_lost(4.0, 1, 1, 30_000, 30_100)
    assert controller.window == pytest.approx(70_000)


def test_cubic_reaches_its_old_window_after_k_seconds():
    # RFC 9438 §4.2: K = cbrt((Wmax - cwnd) / C); from 70 to 100 packets that is cbrt(30 / 0.4) = 4.217 s.
    controller = CubicQ(1000)
    controller.window, controller.curve.window_max, controller.ssthresh = 70_000.0, 100_000.0, 70_000.0
    now = 0.0
    while now < math.pow(30 / 0.4, 1 / 3):
        now += 0.01
        controller.on_acknowledged(acknowledged(now, int(controller.window / 10), smoothed_rtt=0.1, rtt=0.1))
    assert controller.window == pytest.approx(100_000, rel=0.03)


def test_pacing_is_a_quarter_above_the_window_per_round_trip():
    controller = controller_with(125_000, [])
    controller.ssthresh = 100_000.0
    assert controller.pacing_rate(0.050) == pytest.approx(1.25 * 125_000 / 0.050)


# ---- the streams --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(20))
def test_frames_come_out_whole_and_in_order_whatever_the_order_of_packets(seed):
    rng = random.Random(seed)
    print("seed", seed)
    sending, receiving = SendStream(), ReceiveStream()
    sending.credit = 1 << 30
    sent = []
    for _ in range(12):
        body = rng.getrandbits(8 * 400).to_bytes(400, "big")[: rng.randrange(400)]
        sent.append(body)
        cut = rng.randrange(len(body) + 1)
        sending.write_frame(3, body[:cut], body[cut:])
    packets = []
    found = sending.next_range(700, 100)
    while found:
        offset = found[0]
        for payload in sending.payloads(*found[:2], 100):
            packets.append((offset, bytes(payload)))
            offset += len(payload)
        found = sending.next_range(700, 100)
    rng.shuffle(packets)
    frames = []
    for offset, payload in packets + packets[:10]:
        receiving.on_data(offset, memoryview(payload), frames)
    assert [bytes(frame.body) for frame in frames] == sent
    assert receiving.held_bytes() == receiving.unconsumed == sending.end
    for offset, payload in packets:
        sending.on_acknowledged(offset, offset + len(payload))
    assert sending.backlog == 0


def test_lost_bytes_are_sent_again_unless_they_were_acknowledged_meanwhile():
    sending = SendStream()
    sending.credit = 10_000
    sending.write(bytes(1000))
    assert sending.next_range(1000, 100) == (0, 1000, 10)
    sending.on_acknowledged(200, 400)
    sending.on_lost(0, 500)
    assert sending.next_range(1000, 100) == (0, 200, 2)
    assert sending.next_range(1000, 100) == (400, 100, 1)
    assert sending.next_range(1000, 100) is None


def test_credit_follows_what_the_reader_took():
    receiving, frames = ReceiveStream(), []
    frame = b"\x00" + (1000).to_bytes(4, "big") + bytes(1000)
    receiving.on_data(0, memoryview(frame), frames)
    assert receiving.raise_credit() == 0  # the frame waits for its reader
    receiving.consume(len(frame))
    assert receiving.raise_credit() == len(frame)


def test_more_than_the_credit_is_a_violation():
    receiving = ReceiveStream()
    with pytest.raises(StreamViolation):
        receiving.on_data(receiving.credit - 5, memoryview(bytes(6)), [])


def test_a_message_over_the_limit_is_refused_by_its_header():
    receiving = ReceiveStream()
    header = b"\x00" + (FRAME_SIZE_MAX + 1).to_bytes(4, "big")
    with pytest.raises(StreamViolation):
        receiving.on_data(0, memoryview(header), [])


def test_a_header_alone_makes_nobody_allocate_its_claim():
    receiving = ReceiveStream()
    receiving.on_data(0, memoryview(b"\x00" + FRAME_SIZE_MAX.to_bytes(4, "big")), [])
    assert receiving.held_bytes() <= 64 << 10


def test_where_bytes_overlap_the_first_ones_count():
    receiving, frames = ReceiveStream(), []
    receiving.on_data(5, memoryview(b"abc"), frames)
    receiving.on_data(0, memoryview(b"\x00\x00\x00\x00\x05XYZde"), frames)
    assert frames[0].body == b"abcde"


def test_gaps_are_bounded():
    receiving = ReceiveStream()
    for index in range(GAPS_MAX):
        assert receiving.would_fit(10 + 2 * index, 1)
        receiving.on_data(10 + 2 * index, memoryview(b"x"), [])
    assert not receiving.would_fit(10 + 2 * GAPS_MAX, 1)
    assert receiving.would_fit(0, 1)


def test_a_loss_is_declared_at_the_instant_announced_for_it():
    """Rounding once made the alarm ring for ever: the announced instant was a hair too early for its own rule."""
    for index in range(1, 2000):
        recovery = recovery_with([1, 1], at=index * 0.1003)
        recovery.on_ack([(101, 101)], 0.0, index * 0.1003 + 0.0301)
        outcome, _ = recovery.on_timeout(recovery.next_deadline())
        assert outcome.lost, index
