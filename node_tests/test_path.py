"""What a path does to a connection, and what must not be concluded from it: black holes, outages, trickles, bugs."""

import random

import pytest

from node_tests.stage.simulator import EndpointDriver, Pair, data_packet
from protocol.transport import packets as wire
from protocol.transport import receiving as streams
from protocol.transport.black_hole import BlackHole
from protocol.transport.congestion import Acknowledged
from protocol.transport.connection import Connection, State
from protocol.transport.cubic import CubicQ
from protocol.transport.frames import FRAME_HEADER, FRAME_SIZE_MAX
from protocol.transport.liveness import NO_PROGRESS_TIMEOUT
from protocol.transport.mtu import MTU_PROBE_AGAIN
from protocol.transport.recovery import Recovery, SentBatch
from protocol.transport.sending import SendStream

# ---- the path MTU: what is a black hole, and what is not -------------------------------------------------------------


@pytest.mark.parametrize(("mtu", "outage"), [(1500, 0.1), (9000, 0.5), (9000, 3.0)])
def test_an_outage_does_not_shrink_the_datagrams(mtu, outage):
    """Three probe timeouts of silence were once taken for a black hole, and what followed was small for 60 s."""
    pair = Pair(latency=0.0005, rate=2e6, queue=0.05, mtu=mtu)
    assert pair.connected()
    pair.stream()
    pair.world.run(1.0)
    before = pair.there.datagram_size
    assert before == mtu - 28
    pair.world.cut(["10.0.0.1"], ["10.0.0.2"])
    pair.world.run(pair.world.now + outage)
    pair.world.heal()
    arrived = pair.streamed
    pair.world.run(pair.world.now + outage + 0.1)
    assert pair.there.datagram_size == before
    assert pair.streamed > arrived


def test_a_receiver_that_stands_still_does_not_shrink_the_datagrams():
    pair = Pair(latency=0.0001, rate=1e7, queue=0.05, mtu=9000)
    assert pair.connected()
    pair.stream()
    pair.world.run(0.5)
    pair.b.is_stopped = True
    pair.world.run(pair.world.now + 0.15)
    pair.b.go_on()
    pair.world.run(pair.world.now + 0.2)
    assert pair.there.datagram_size == 8972


@pytest.mark.parametrize("every", [0.02, 0.1, 1.0])
def test_a_black_hole_is_seen_while_small_messages_arrive(every):
    """Their acknowledgements once kept the probe timeout from coming, and it alone was asked (RFC 8899 §4.3)."""
    pair = Pair(latency=0.015, mtu=1500)
    assert pair.connected()
    pair.send(2_000_000)
    pair.world.run(3.0)
    assert pair.there.datagram_size == 1472
    pair.world.conditions.mtu = 1280
    began, before = pair.world.now, len(pair.received["b"])
    data = pair.send(30_000, frame=30_000)

    def tick():
        pair.there.send_frame(0, b"tick")
        pair.a.pump()
        pair.world.after(every, tick)

    pair.world.after(every, tick)
    assert pair.world.run_until(lambda: data in pair.received["b"][before:], began + 2.0)
    assert pair.there.datagram_size == 1200


def test_after_a_black_hole_the_old_size_comes_first_and_smaller_ones_when_it_is_gone():
    pair = Pair(latency=0.005, rate=1e6, queue=0.1, mtu=9000)
    assert pair.connected()
    pair.stream()
    pair.world.run(1.0)
    assert pair.there.datagram_size == 8972
    pair.world.conditions.mtu = 1500
    pair.world.run(4.0)
    assert pair.there.datagram_size == 1472
    pair.world.conditions.mtu = 9000
    assert pair.world.run_until(lambda: pair.there.datagram_size == 8972, pair.world.now + 20 * MTU_PROBE_AGAIN)


def test_a_path_whose_mtu_search_failed_by_chance_is_asked_again_soon():
    """Three probes lost in a bad moment meant small datagrams for ten minutes."""
    pair = Pair(seed=3)
    assert pair.connected()
    pair.send(3000)
    pair.world.cut(["10.0.0.1"], ["10.0.0.2"])
    pair.world.run(3.0)
    pair.world.heal()
    assert pair.there.datagram_size == 1200
    pair.world.run(3.0 + 4 * MTU_PROBE_AGAIN)
    assert pair.there.datagram_size == 1472


def test_a_size_that_alone_does_not_pass_is_left_alone_for_long():
    pair = Pair(seed=3, mtu=1500)
    pair.transfer(100_000, limit=5)
    assert pair.there.mtu.again_at > 590


def lost(hole, size, number):
    hole.on_lost(size, number, number, number + 5)


def test_three_flights_of_large_packets_lost_are_a_black_hole():
    hole = BlackHole()
    hole.on_arrived(1472, 10)
    for number in (20, 30, 40):
        assert not hole.is_found
        lost(hole, 1472, number)
    assert hole.is_found


def test_one_flight_however_large_is_none():
    hole = BlackHole()
    for number in range(20, 60):
        hole.on_lost(1472, number, number, 100)
    assert not hole.is_found


def test_a_large_packet_that_arrives_refutes_the_losses_before_it_but_not_those_of_larger_ones():
    hole = BlackHole()
    for number in (20, 30):
        lost(hole, 8972, number)
    hole.on_arrived(1472, 35)
    lost(hole, 8972, 40)
    assert hole.is_found
    hole.on_arrived(8972, 41)
    assert not hole.is_found
    lost(hole, 8972, 38)  # sent before the one that arrived: an ordinary loss
    lost(hole, 8972, 50)
    lost(hole, 8972, 60)
    assert not hole.is_found


def test_a_larger_packet_of_the_flights_in_doubt_restores_its_size_and_an_older_one_does_not():
    hole = BlackHole()
    for number in (20, 30, 40):
        lost(hole, 1472, number)
    hole.forget()
    hole.on_arrived(1472, 19)
    assert hole.arrived_size == 0
    hole.on_arrived(1472, 30)
    assert hole.arrived_size == 1472


# ---- what probes repeat ----------------------------------------------------------------------------------------------


def test_a_probe_repeats_the_bytes_that_the_receiver_waits_for():
    """Not the oldest packet: with its list of gaps full the receiver has no room for that one, and nothing moved."""
    sending = SendStream()
    sending.credit = 10_000
    sending.write(bytes(5000))
    sending.next_range(5000, 1000)
    sending.on_acknowledged(0, 1000)
    sending.on_acknowledged(1200, 2000)
    sending.on_lost(1000, 1200)
    assert sending.first_missing(100) == (1000, 100)
    assert sending.next_range(1000, 1000) == (1100, 100, 1)  # what the probe took is on its way
    assert sending.first_missing(1000) == (1000, 200)
    sending.on_acknowledged(1000, 5000)
    assert sending.first_missing(1000) is None


def test_a_full_list_of_gaps_does_not_end_a_connection_on_a_perfect_path(monkeypatch):
    monkeypatch.setattr(streams, "GAPS_MAX", 30)
    pair = Pair(latency=0.1, queue=0.5, mtu=1500)
    assert pair.connected()
    pair.send(2_000_000, frame=500_000)
    pair.world.run(6.0)
    before, phase, seen = len(pair.received["b"]), ["every second"], [0]

    def losing(datagram):
        if datagram[5] not in (wire.PacketType.DATA, wire.PacketType.BULK):
            return datagram
        seen[0] += 1
        return None if phase[0] == "all" or (phase[0] == "every second" and seen[0] % 2) else datagram

    pair.a.filter = losing
    for index in range(600):
        pair.there.send_frame(0, b"%05d" % index + bytes(55))
        pair.a.pump()
        if index % 30 == 29:
            pair.world.run(pair.world.now + 0.001)
    pair.world.run(pair.world.now + 0.05)
    phase[0] = "all"
    pair.world.run(pair.world.now + 0.6)
    phase[0] = "none"
    assert pair.world.run_until(lambda: len(pair.received["b"]) == before + 600, pair.world.now + 5)
    assert [body[:5] for body in pair.received["b"][before:]] == [b"%05d" % index for index in range(600)]


# ---- progress --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rtt", "every", "size"), [(0.15, 0.1, 20), (0.3, 0.1, 16)])
def test_a_trickle_that_is_all_taken_is_progress(rtt, every, size):
    """There is always some on its way, and it comes to less than PROGRESS_LEAST in that time."""
    pair = Pair(latency=rtt / 2)
    assert pair.connected()

    def tick():
        pair.there.send_frame(0, bytes(size))
        pair.a.pump()
        pair.world.after(every, tick)

    tick()
    pair.world.run(NO_PROGRESS_TIMEOUT + 15)
    assert not pair.lost


def test_a_remote_that_takes_a_byte_now_and_then_is_still_let_go():
    pair = Pair(seed=2)
    assert pair.connected()
    pair.a.filter = lambda datagram: None if datagram[5] == wire.PacketType.DATA else datagram
    pair.there.send_frame(0, bytes(1000))
    pair.a.pump()
    for second in range(1, 80):
        pair.world.run(second)
        pair.there.sending.on_acknowledged(0, 10 * second)
    assert pair.lost["a"].reason == "took nothing for 60 s"


# ---- counts that are shared ------------------------------------------------------------------------------------------


def test_frames_before_a_violation_do_not_bend_the_count_of_unread_ones():
    pair = Pair(latency=0.001)
    assert pair.connected()
    pair.world.run(0.5)
    back, whole = pair.back, 200
    payload = FRAME_HEADER.pack(0, 0) * whole + FRAME_HEADER.pack(0, FRAME_SIZE_MAX + 1)
    number = back.acknowledging.largest + 1
    pair.a.send_raw(pair.B, bytes(data_packet(back.local_id, number, back.receiving.next_offset, payload)))
    pair.world.run(10)
    assert pair.lost["b"].reason == "announced a message over the limit"
    assert len(pair.received["b"]) == whole  # they had come whole, and in order
    assert pair.b.endpoint.intake.unread == 0


@pytest.mark.parametrize("is_bulk", [True, False])
def test_one_message_too_many_ends_its_connection_in_whatever_packets_it_comes(is_bulk):
    """In a run of bulk packets it was an exception on the network thread, and the message came twice."""
    pair = Pair(seed=4)
    assert pair.connected()
    pair.reading = False
    pair.back.receiving.framer.frames_max = 3
    for _ in range(3):
        pair.there.send_frame(0, b"small")
    pair.there.send_frame(0, bytes(20_000), is_bulk=is_bulk)
    datagrams = []
    for batch in pair.a.endpoint.batches(pair.world.now):
        for index in range(batch.count):
            datagrams.append(b"".join(batch.buffers[index * batch.per_datagram : (index + 1) * batch.per_datagram]))
    merged = []  # as the socket hands them on: neighbours of one size together
    for datagram in datagrams:
        if merged and len(merged[-1][0]) == len(datagram) and datagram[5] == merged[-1][0][5]:
            merged[-1].append(datagram)
        else:
            merged.append([datagram])
    for run in merged:
        pair.b.endpoint.receive(memoryview(b"".join(run)), len(run[0]), pair.A, pair.world.now)
    pair.b.pump()
    pair.world.run_until(lambda: "b" in pair.lost, pair.world.now + 5)
    assert pair.lost["b"].reason == "sent more messages than anybody reads"
    pair.world.run(pair.world.now + 10)
    assert pair.b.endpoint.intake.unread == 0


# ---- a bug of ours in one connection ---------------------------------------------------------------------------------


def alarmed(endpoint):
    return all(each in endpoint.turns.ready or each in endpoint.turns.deadlines for each in endpoint.connections)


@pytest.mark.parametrize("place", ["next_batch", "next_deadline", "on_timeout", "on_data", "on_ack"])
def test_an_exception_leaves_no_connection_without_its_alarm(monkeypatch, place):
    """Whatever step it interrupts, the connection goes on a little later: all that was sent arrives."""
    rng = random.Random(place)
    whole = getattr(Connection, place)

    def now_and_then(connection, *arguments):
        if connection.state is State.ESTABLISHED and rng.random() < 0.1 and pair.world.now < 2.0:
            raise MemoryError(place)
        return whole(connection, *arguments)

    pump, alarm, arrive = EndpointDriver.pump, EndpointDriver._alarm, EndpointDriver._arrive

    def guarded(step):
        def turn(driver, *arguments):
            try:
                step(driver, *arguments)
            except MemoryError:
                driver._busy = False
                driver.world.after(0.0, driver.pump)  # as the network thread: its next turn comes at once
            assert alarmed(driver.endpoint)

        return turn

    pair = Pair(seed=5, loss=0.02)
    assert pair.connected()
    monkeypatch.setattr(Connection, place, now_and_then)
    for name, step in (("pump", pump), ("_alarm", alarm), ("_arrive", arrive)):
        monkeypatch.setattr(EndpointDriver, name, guarded(step))
    data = pair.send(300_000, frame=3000)
    assert pair.world.run_until(lambda: sum(map(len, pair.received["b"])) == len(data), 20)
    assert b"".join(pair.received["b"]) == data
    pair.finish()


# ---- congestion: time and rounds in which the application had nothing to send ---------------------------------------


class Flow:
    """A CubicQ with a window of 400 packets at 50 ms, and acknowledgements by hand."""

    RTT = 0.05

    def __init__(self):
        self.now, self.number = 0.0, 0
        self.controller = controller = CubicQ(1472)
        controller.base_rtt = self.RTT
        controller.window, controller.curve.window_max = 400 * 1472.0, 500 * 1472.0
        controller.ssthresh = 0.9 * controller.window
        controller.drain.ended_at = controller.climb.after = 1e9  # CUBIC alone is looked at

    def acknowledge(self, packets, is_limited, rate=12.5e6):
        self.number += packets
        window, rtt = self.controller.window, self.RTT + 0.006
        following, in_flight = self.number + int(window / 1472), int(window) if is_limited else 0
        values = (rtt, rtt, rate, not is_limited, self.number, following, in_flight, is_limited)
        self.controller.on_acknowledged(Acknowledged(self.now, packets, 1472 * packets, *values))

    def round_trips(self, count):
        for _ in range(count):
            steps = int(self.controller.window / 1472 / 10)
            for _ in range(steps):
                self.now += self.RTT / steps
                self.acknowledge(10, True)


@pytest.mark.parametrize("is_silent", [True, False])
def test_a_pause_does_not_count_in_the_growth_of_cubic(is_silent):
    """RFC 9438 §5.8; it once multiplied the window by five within four round trips of a pause of a minute."""
    flow, steady = Flow(), Flow()
    for each in (flow, steady):
        each.round_trips(10)
    for _ in range(600):
        flow.now += 1.0
        if not is_silent:
            flow.acknowledge(1, False)
    for each in (flow, steady):
        each.round_trips(4)
    assert flow.controller.window == pytest.approx(steady.controller.window, rel=0.01)


@pytest.mark.parametrize("is_silent", [True, False])
def test_a_pause_does_not_shrink_the_window_of_who_is_alone(is_silent):
    """Rounds of a trickle pushed the path's rate out of memory, and the cap was then that of the first few packets."""
    pair = Pair(seed=6, latency=0.05, rate=2.5e6, queue=0.4)
    assert pair.connected()
    pair.send(5_000_000, frame=100_000)
    pair.world.run_until(lambda: not pair.there.backlog, 30)
    congestion = pair.there.recovery.congestion
    congestion.is_alone = True
    before = congestion.window
    assert before > 200_000
    for _ in range(30):
        if not is_silent:
            pair.there.send_frame(0, b"tick")
            pair.a.pump()
        pair.world.run(pair.world.now + 0.2)
    pair.transfer(400_000, limit=5)
    assert congestion.window > 0.9 * before


def test_a_keep_alive_says_nothing_of_the_rate_of_the_path():
    pair = Pair(seed=7)
    pair.transfer(2_000_000, limit=5)
    congestion = pair.there.recovery.congestion
    before = congestion.recent_rate
    pair.world.run(pair.world.now + 300)
    assert congestion.recent_rate == before
    assert congestion.known_rate >= before


def test_a_larger_datagram_size_does_not_undo_a_reduced_window():
    controller = CubicQ(1200)
    controller.on_persistent_congestion()
    window = controller.window
    controller.on_datagram_size(8972)
    assert controller.window == window


@pytest.mark.parametrize("is_alarm_first", [True, False])
def test_a_process_that_stood_still_does_not_take_its_sleep_for_a_round_trip(is_alarm_first):
    """Twenty seconds of it once made the probe timeout as long, and a few losses later nothing had moved for 60 s."""
    recovery = Recovery(0, CubicQ(1200))
    recovery.rtt.on_sample(0.2, 0.0)
    sent_over(recovery, [1.0, 1.001])
    if is_alarm_first:
        recovery.on_timeout(21.0)
    recovery.on_ack([(0, 1)], 0.0, 21.001)
    assert recovery.rtt.smoothed == 0.2
    sent_over(recovery, [22.0])
    recovery.on_ack([(2, 2)], 0.0, 22.1)
    assert recovery.rtt.smoothed < 0.2


def test_a_path_with_a_long_round_trip_is_measured():
    recovery = Recovery(0, CubicQ(1200))
    recovery.rtt.on_sample(1.5, 0.0)
    sent_over(recovery, [1.0])
    recovery.on_ack([(0, 0)], 0.0, 3.5)
    assert recovery.rtt.latest == 2.5


# ---- silence that is congestion, and silence that is none (RFC 9002 §7.6) --------------------------------------------


def sent_over(recovery, instants):
    for instant in instants:
        number = recovery.next_packet_number
        recovery.on_sent(SentBatch(number, 1, 1000 * number, 1000, 1000, 1036, instant))


def after_three_probe_timeouts():
    recovery = Recovery(0, CubicQ(1200))
    recovery.rtt.on_sample(0.01, 0.0)
    recovery.congestion.window = 100_000.0
    sent_over(recovery, [1.0 + index / 1000 for index in range(10)])
    for instant in (1.1, 1.3, 1.7):
        assert recovery.on_timeout(instant)[1]
        sent_over(recovery, [instant])
    return recovery


def test_a_time_in_which_all_was_lost_is_persistent_congestion():
    recovery = after_three_probe_timeouts()
    recovery.on_ack([(12, 12)], 0.0, 1.71)
    assert recovery.congestion.window == recovery.congestion.minimum_window


def test_a_remote_that_stood_still_and_then_has_nearly_all_of_it_is_not():
    """One packet lost by chance before its stop once set the window back to the least."""
    recovery = after_three_probe_timeouts()
    recovery.on_ack([(4, 12), (0, 2)], 0.0, 1.71)
    assert recovery.packets_lost == 1
    assert recovery.congestion.window >= 50_000
