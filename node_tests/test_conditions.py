"""The conditions that the transport must bear, one named test a row, in virtual time and with a fixed seed.

Shares are of the link's rate as the reader sees it: of the bytes on the wire 4.3 % are headers, so 0.957 is all that
there is. They are taken after the first second, which belongs to handshake and slow start, unless a test says so.
"""

import math
import statistics

import pytest

from node_tests.stage.amounts import amount, only_in_full
from node_tests.stage.simulator import EndpointDriver, Pair, PlainFlow
from protocol.transport.connection import BacklogDrained, Connection
from protocol.transport.frames import FRAME_SIZE_MAX
from protocol.transport.receiving import RECEIVE_WINDOW_MAX
from sockets.channel import BACKLOG_HIGH

MEGABYTE = 1_000_000
FAST = 100e6 / 8  # bytes per second
LINK = amount(FAST, FAST / 4)
PACKET = 1500 / LINK  # seconds that a full one takes
RISE_SECONDS = 2.0
SEEDS = range(1, 1 + amount(3, 1))
SHARE_SECONDS = amount(4.0, 1.0)
FAR_SHARE_SECONDS = amount(6.0, 2.0)  # at 50 ms
CROSS_LINK = SIBLING_LINK = amount(FAST, FAST / 8)
AIR_SECONDS = amount(6.0, 1.0)


def median_share(**conditions):
    """Of three seeds: what a lone unlucky cut does to a few seconds is not the path's answer."""
    return statistics.median(share(seed=seed, **conditions)[0] for seed in SEEDS)


def share(seconds=SHARE_SECONDS, back=None, seed=3, rate=LINK, **conditions):
    """The part of the link that an endless stream gets after its first second; and the pair."""
    pair = Pair(seed=seed, rate=rate, **conditions)
    for name, value in (back or {}).items():
        setattr(pair.world.between(Pair.B[0], Pair.A[0]), name, value)
    pair.stream()
    pair.world.run(1.0)
    return pair.rate_over(seconds) / rate, pair


# ---- a steady path ------------------------------------------------------------------------------------------------


def test_transfer():
    got, pair = share()
    assert got >= 0.9
    pair = Pair(seed=3)
    # 10 MB take 0.84 s at best; with handshake and slow start:
    assert pair.transfer(10 * MEGABYTE, limit=10) < 1.3
    pair.finish()


@pytest.mark.parametrize(
    ("loss", "least"), [(0.01, 0.88), (0.02, 0.85), (0.05, 0.75), (0.10, 0.5)], ids=["1 %", "2 %", "5 %", "10 %"]
)
def test_transfer_loss(loss, least):
    assert share(loss=loss)[0] >= least


@pytest.mark.parametrize(("loss", "least"), [(0.0, 0.9), (0.01, 0.88), (0.05, 0.75)], ids=["none", "1 %", "5 %"])
def test_transfer_loss_at_50_ms_with_a_queue_of_100_ms(loss, least):
    assert share(loss=loss, latency=0.025, queue=0.1, seconds=FAR_SHARE_SECONDS)[0] >= least


def test_who_goes_on_when_told_to_always_has_something_on_a_far_path_that_loses():
    """As the verbs and the giver of a file do: 4 MiB wait at most, and it is the transport that says when to go on."""
    rate = amount(FAST, FAST / 2)  # what is read comes in pieces of 1 MiB
    pair = Pair(seed=3, rate=rate, loss=0.05, latency=0.025, queue=0.1)
    pair.stream()
    pair.stream = lambda: None  # from here on no more by the clock
    tell = pair.a.on_event

    def on_event(event):
        tell(event)
        while isinstance(event, BacklogDrained) and pair.there.backlog < BACKLOG_HIGH:
            pair.there.send_frame(0, bytes(1 << 20))

    pair.a.on_event = on_event
    pair.world.run(2.0)
    assert pair.rate_over(FAR_SHARE_SECONDS) >= 0.85 * rate


def test_transfer_loss_of_30_percent_ends():
    pair = Pair(seed=4, loss=0.3)
    pair.transfer(MEGABYTE, limit=120)
    pair.finish()


def test_burst_loss_of_20_in_a_row_every_200():
    """On a fast link: on a slower one the end of a flight may be lost together with ten pairs of probes behind it."""
    assert median_share(rate=FAST, burst_every=200, burst_size=20) >= 0.5


def test_acks_lost():
    """In the mean: one seed gets .84 to .88, by which acknowledgements in a row are lost just then."""
    runs = [share(seconds=amount(4.0, 2.0), seed=seed, back={"loss": 0.3}) for seed in range(1, 1 + amount(6, 3))]
    assert statistics.mean(got for got, _ in runs) >= 0.85
    assert all(pair.there.recovery.packets_spurious < 0.01 * pair.a.sent for _, pair in runs)


def test_acks_lost_and_data_too():
    assert share(latency=0.025, queue=0.1, back={"loss": 0.3}, loss=0.01, seconds=FAR_SHARE_SECONDS)[0] >= 0.8


def test_reorder_late_by_some_milliseconds():
    got, pair = share(reorder=0.2)
    assert got >= 0.85
    spurious, sent = pair.there.recovery.packets_spurious, pair.a.sent
    pair.rate_over(1.0)
    assert pair.there.recovery.packets_spurious - spurious < 0.01 * (pair.a.sent - sent)


def test_reorder_of_neighbours():
    pair = Pair(seed=5, rate=LINK)
    held = []

    def swap(datagram):
        if len(datagram) < 1000:
            return datagram
        held.append(datagram)
        if len(held) == 1:
            return None  # waits for the one behind it
        pair.a.filter = None
        pair.a.send_raw(Pair.B, held.pop())
        pair.a.filter = swap
        return held.pop()

    pair.a.filter = swap
    pair.stream()
    pair.world.run(1.0)
    assert pair.rate_over(SHARE_SECONDS) >= 0.85 * LINK
    assert pair.there.recovery.packets_spurious < 0.01 * pair.a.sent


def test_duplicate():
    got, _ = share(duplicate=0.2)
    assert got >= 0.9
    pair = Pair(seed=6, duplicate=0.2)
    pair.transfer(MEGABYTE, limit=10)  # compares every byte
    pair.finish()


def test_corruption():
    assert share(corrupt=0.02)[0] >= 0.8
    pair = Pair(seed=7, corrupt=0.02)
    pair.transfer(MEGABYTE, limit=10)
    pair.finish()


def test_jitter_of_30_ms():
    assert share(jitter=0.03, seconds=amount(5.0, 1.0))[0] >= 0.6  # 0.7 is the aim; it gets 0.63 to 0.71, by the seed


@pytest.mark.parametrize("seed", [1, 2][: amount(2, 1)])
def test_packets_that_are_late_by_up_to_50_ms_are_not_lost(seed):
    pair = Pair(seed=seed, latency=0.002, jitter=0.050, rate=20e6 / 8, queue=0.1)
    pair.stream()
    pair.world.run(3.0)
    spurious = pair.there.recovery.packets_spurious
    assert pair.rate_over(amount(3.0, 1.0)) >= 0.85 * 20e6 / 8
    assert pair.there.recovery.packets_spurious - spurious <= 5


LATE = {"latency": 0.002, "jitter": 0.050}
WIFI = {"latency": 0.002, "jitter": 0.030, "keeps_order": True, "loss": 0.02, "reorder": 0.02}


@pytest.mark.parametrize(
    ("air", "least"),
    [(WIFI, 12), ({**LATE, "loss": 0.05}, 15), ({**LATE, "loss": 0.10}, 13), ({**LATE, "loss": 0.30}, 2)],
    ids=["wifi", "late, 5 % lost", "late, 10 % lost", "late, 30 % lost"],
)
def test_what_is_late_is_not_lost_and_what_is_lost_was_no_queue(air, least):
    """Of 20 Mbit/s; `node_tests/bench/bench_air.py` has the whole table."""
    pair = Pair(seed=2, rate=20e6 / 8, queue=0.1, **air)
    pair.stream()
    pair.world.run(3.0)
    assert pair.rate_over(AIR_SECONDS) >= least * 1e6 / 8


@pytest.mark.parametrize("seed", [1, 2, 3][: amount(3, 1)])
def test_where_packets_overtake_each_other_the_round_trip_is_that_of_all_and_not_of_the_luckiest(seed):
    """By the luckiest it would be 15 ms, and of 300 packets a second it would say that they were lost."""
    pair = Pair(seed=seed, rate=50e6 / 8, queue=0.1, **LATE)
    pair.stream()
    pair.world.run(amount(2.0, 1.5))
    recovery, smoothed = pair.there.recovery, []
    spurious = recovery.packets_spurious
    for _ in range(amount(50, 25)):
        pair.world.run(pair.world.now + 0.02)
        smoothed.append(recovery.rtt.smoothed)
    assert recovery.packets_spurious - spurious <= 5
    assert 0.025 < statistics.mean(smoothed) < 0.054 + 0.1  # the mean of two ways, and a whole queue


@only_in_full
@pytest.mark.parametrize("seed", [3, 4])
def test_who_is_alone_knows_how_late_packets_are_and_does_not_take_that_for_a_queue_of_its_own(seed):
    """Else the cap is too low, and keeps its window below the threshold where the lateness was measured: for ever."""
    pair = Pair(seed=seed, rate=FAST, queue=0.1, **LATE)
    pair.stream()
    pair.world.run(2.5)
    controller = pair.there.recovery.congestion
    assert controller.is_alone
    assert controller.jitter >= 0.010
    assert pair.rate_over(1.0) >= 0.9 * FAST


@pytest.mark.parametrize("seed", [1, 2, 3][: amount(3, 1)])
def test_a_short_queue_where_packets_are_late_is_neither_left_empty_nor_run_over(seed):
    """Paced by the luckiest's round trip it had 10 of 20 Mbit/s, and lost 2 to 3 % to the queue."""
    pair = Pair(seed=seed, rate=20e6 / 8, queue=0.01, **LATE)
    pair.stream()
    pair.world.run(3.0)
    link = pair.world.link(Pair.A, Pair.B)
    dropped, carried = link.dropped, link.carried
    assert pair.rate_over(amount(4.0, 3.0)) >= 14e6 / 8
    assert link.dropped - dropped <= 0.01 * (link.carried - carried)


def test_bufferbloat():
    got, pair = share(queue=1.0, rate=FAST)
    assert got >= 0.9
    link, base, delays = pair.world.link(Pair.A, Pair.B), 0.03, []
    for _ in range(amount(100, 50)):
        pair.rate_over(0.02)
        delays.append(link.queue_delay)
    assert max(delays) <= base


def test_shallow_queue():
    assert share(queue=10 * PACKET)[0] >= 0.8


def test_what_a_shallow_queue_drops_is_not_taken_for_the_noise_of_the_link():
    pair = Pair(seed=1, latency=0.005, rate=20e6 / 8, queue=0.01)
    pair.stream()
    pair.world.run(3.0)
    link = pair.world.link(Pair.A, Pair.B)
    dropped, carried = link.dropped, link.carried
    assert pair.rate_over(amount(5.0, 2.0)) >= 0.94 * 20e6 / 8
    assert link.dropped - dropped <= 0.01 * (link.carried - carried)


@pytest.mark.parametrize("packets", [25, 10, 100][: amount(3, 1)])
def test_near_path_is_full_and_costs_few_batches(packets):
    """A switch between two machines: 0.2 ms there and back, and whatever queue it has."""
    got, pair = share(latency=0.0001, queue=packets * PACKET)
    assert got >= 0.94
    assert pair.there.recovery.packets_lost < 0.03 * pair.a.sent
    sent, batches = pair.a.sent, pair.a.batches
    pair.rate_over(1.0)
    assert pair.a.sent - sent >= min(packets, 20) / 4 * (pair.a.batches - batches)


def test_policer_without_a_queue():
    pair = Pair(seed=8, rate=LINK, policed_rate=LINK / 2, queue=1.0)
    pair.stream()
    pair.world.run(1.0)
    link = pair.world.link(Pair.A, Pair.B)
    dropped, carried = link.dropped, link.carried
    assert pair.rate_over(amount(5.0, 3.0)) >= 0.7 * LINK / 2
    dropped, carried = link.dropped - dropped, link.carried - carried
    assert dropped < 0.1 * (dropped + carried)


def test_long_round_trip():
    pair = Pair(seed=9, latency=0.75, queue=1.5)
    assert pair.connected()
    # A window that doubles each round from 12,000 bytes to 10 MB needs ten round trips; at most three times that.
    assert pair.transfer(10 * MEGABYTE, limit=60) < 3 * 10 * 1.5
    assert pair.there.recovery.packets_spurious == 0


def test_asymmetric():
    assert median_share(rate=FAST, back={"rate": 1e6 / 8, "queue": 0.3}, seconds=amount(8, 6)) >= 0.8


# ---- others on the link -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", ["ours", "theirs"])
@pytest.mark.parametrize("kind", ["cubic", "newreno"][: amount(2, 1)])
def test_cross_traffic(kind, first):
    """One round trip's worth of queue: what 25 packets hold shows nobody that there are others."""
    pair = Pair(seed=3, latency=0.025, queue=0.05, rate=CROSS_LINK)
    flow = PlainFlow(pair.world, ("10.0.0.1", 9), ("10.0.0.2", 9), kind, 2.0 if first == "ours" else 0.0)
    pair.world.at(0.0 if first == "ours" else 2.0, pair.stream)
    pair.world.run(7.0)
    theirs = flow.received
    seconds = amount(20.0, 10.0 if first == "ours" else 16.0)
    ours = pair.rate_over(seconds) / CROSS_LINK
    theirs = (flow.received - theirs) / seconds / CROSS_LINK
    # NewReno needs longer than 20 seconds to take its share from anybody who was there first.
    assert 0.3 <= ours <= (0.8 if kind == "newreno" else 0.7)
    assert theirs >= (0.2 if kind == "newreno" else 0.3)


def test_who_was_alone_with_a_deep_queue_sees_a_tcp_that_comes():
    """Else it would hold its window down until the next drain, 20 s later, and starve."""
    pair = Pair(seed=1, rate=20e6 / 8, queue=1.0)
    PlainFlow(pair.world, ("10.0.0.1", 9), ("10.0.0.2", 9), "cubic", 3.0)
    pair.stream()
    pair.world.run(3.0)
    assert pair.there.recovery.congestion.is_alone
    pair.world.run(6.0)
    assert not pair.there.recovery.congestion.is_alone


def test_who_shares_a_queue_that_overflows_is_not_alone_whatever_a_drain_said():
    """A TCP whose window is small leaves no queue in a drain; held by the cap, the elder took what that TCP gave up."""
    pair = Pair(seed=1, rate=20e6 / 8, latency=0.025, queue=0.05)
    PlainFlow(pair.world, ("10.0.0.1", 9), ("10.0.0.2", 9), "cubic", 2.0)
    pair.stream()
    controller = pair.there.recovery.congestion
    pair.world.run(4.0)
    controller.is_alone = True
    link = pair.world.link(pair.A, pair.B)
    dropped = link.overflowed
    assert pair.world.run_until(lambda: link.overflowed > dropped + 20, 30.0)
    assert not controller.is_alone and not controller.drain.is_due(pair.world.now)


@pytest.mark.parametrize(("count", "least"), [(2, 0.95), (5, 0.9)][: amount(2, 1)])
def test_own_siblings(count, least):
    total, index = shares_of_siblings(count, amount(8.0, 4.0), amount(10.0, 6.0), seed=3, queue=0.03, rate=SIBLING_LINK)
    assert total >= 0.9 * SIBLING_LINK
    assert index >= least


@pytest.mark.parametrize("seed", [3, 1, 2][: amount(3, 1)])
def test_a_latecomer_starves_no_elder_where_packets_are_late_and_lost(seed):
    rate = amount(20e6, 10e6) / 8
    seconds, settled = amount(20.0, 4.0), amount(10.0, 8.0)
    total, index = shares_of_siblings(3, seconds, settled, seed=seed, queue=0.1, rate=rate, loss=0.05, **LATE)
    assert total >= 0.8 * rate
    assert index >= 0.85


def shares_of_siblings(count, seconds=8.0, settled=10.0, **conditions):
    """So many come two seconds apart; some time later: what they get together, and Jain's index of it."""
    pairs = [Pair(**conditions)]
    pairs[0].stream()
    for index in range(1, count):
        pairs[0].world.run(2.0 * index)
        pairs.append(Pair(beside=pairs[-1]))
        pairs[-1].stream()
    pairs[0].world.run(2.0 * (count - 1) + settled)
    before = [pair.streamed for pair in pairs]
    pairs[0].world.run(pairs[0].world.now + seconds)
    rates = [(pair.streamed - start) / seconds for pair, start in zip(pairs, before)]
    return sum(rates), sum(rates) ** 2 / count / sum(rate * rate for rate in rates)


# ---- a path that changes ------------------------------------------------------------------------------------------


def test_rate_drop_and_rate_rise():
    pair = Pair(seed=10, rate=LINK)
    pair.stream()
    pair.world.run(amount(3.0, 1.5))
    pair.world.conditions.rate, pair.world.conditions.queue = LINK / 10, 10 * 25 * PACKET
    pair.world.run(pair.world.now + 2.0)
    assert pair.rate_over(2.0) >= 0.8 * LINK / 10
    pair.world.conditions.rate, pair.world.conditions.queue = LINK, 25 * PACKET
    pair.world.run(pair.world.now + RISE_SECONDS)
    assert pair.rate_over(SHARE_SECONDS) >= 0.8 * LINK


def test_delay_step():
    pair = Pair(seed=11, latency=0.005)
    pair.stream()
    pair.world.run(2.0)
    pair.world.conditions.latency = 0.1
    pair.world.run(6.0)
    # No collapse, but little: 190 ms more look like a queue of others until a drain has shown the new base.
    assert pair.rate_over(2.0) >= 0.04 * FAST
    pair.world.conditions.latency = 0.005
    pair.world.run(10.0)
    assert pair.rate_over(2.0) >= 0.75 * FAST  # it still climbs: 0.78 to 0.83 by seed
    assert pair.there.recovery.packets_spurious < 0.05 * pair.a.sent


@pytest.mark.parametrize("ways", ["both ways", "there", "back"])
def test_blackhole_of_ten_seconds(ways):
    pair = Pair(seed=12)
    data = pair.send(10 * MEGABYTE)
    pair.world.run(0.5)
    source, target = ("10.0.0.2", "10.0.0.1") if ways == "back" else ("10.0.0.1", "10.0.0.2")
    pair.world.cut([source], [target], both_ways=ways == "both ways")
    pair.world.run(10.5)
    before, sending = pair.back.receiving.next_offset, pair.there.sending
    pair.world.heal()
    again = []
    taken = sending.next_range

    def next_range(*sizes):
        found = taken(*sizes)
        if found is not None:
            start, stop = found[0], found[0] + found[1]
            if sending._acknowledged.missing(start, stop) != [(start, stop)]:
                again.append(found)
        return found

    sending.next_range = next_range
    pair.world.run(12.5)
    assert pair.back.receiving.next_offset > before + MEGABYTE
    assert pair.world.run_until(lambda: sum(map(len, pair.received["b"])) == len(data), 30)
    assert b"".join(pair.received["b"]) == data
    assert not again  # nothing was sent twice that was acknowledged


def test_long_blackhole_is_told_the_same_at_both_ends():
    pair = Pair(seed=13)
    told = {}
    pair.send(10 * MEGABYTE)
    pair.world.run(0.5)
    pair.world.cut(["10.0.0.1"], ["10.0.0.2"])
    for side in ("a", "b"):
        pair.world.run_until(lambda side=side: side in pair.lost, 45)
        told[side] = pair.world.now
    assert pair.lost["a"].reason == pair.lost["b"].reason == "no sign of life for 30 s"
    assert abs(told["a"] - told["b"]) < 1.0


@pytest.mark.parametrize("larger", [1400, 1500][: amount(2, 1)])
def test_path_mtu_lower_in_mid_transfer(larger):
    pair = Pair(seed=14, rate=LINK, mtu=larger)
    pair.stream()
    pair.world.run(2.0)
    pair.world.conditions.mtu = 1280
    before = pair.streamed
    assert pair.world.run_until(lambda: pair.streamed > before + 2 * MEGABYTE, 7.0)
    assert pair.there.datagram_size == 1200


def test_path_mtu_lower_from_the_start():
    assert share(mtu=1280)[0] >= 0.85


def test_path_mtu_of_jumbo_frames_is_used_within_ten_round_trips():
    pair = Pair(seed=15, mtu=9000)
    pair.stream()
    assert pair.world.run_until(lambda: pair.there.datagram_size == 8972, 10 * 0.03 + 0.06)


@pytest.mark.parametrize("what", ["the last packet", "the last acknowledgement"])
def test_tail_loss(what):
    pair = Pair(seed=16)
    assert pair.connected()
    pair.world.run(1.0)
    driver = pair.a if what == "the last packet" else pair.b
    driver.filter = lambda datagram: None
    pair.send(500)
    pair.world.run(1.03)
    driver.filter = None
    assert pair.world.run_until(lambda: not pair.there.backlog, 1.0 + 3 * pair.there.recovery.rtt.probe_timeout + 0.03)
    assert sum(map(len, pair.received["b"])) == 500


def connect_many(count, monkeypatch):
    """So many connect to one endpoint, send 10 KB each and leave; how often that endpoint looked for what to send."""
    pair, looks = Pair(seed=19, rate=math.inf), []
    next_batch = Connection.next_batch

    def counted(made, now):
        if made.endpoint is pair.b.endpoint:
            looks.append(made)
        return next_batch(made, now)

    monkeypatch.setattr(Connection, "next_batch", counted)
    for index in range(count):
        driver = EndpointDriver(pair.world, ("10.1.%d.%d" % divmod(index, 60), 9), lambda event: None)
        made = driver.endpoint.connect(Pair.B, pair.world.now)
        made.send_frame(0, b"%d " % index + bytes(10_000))
        made.shut_down("done")
        driver.pump()
    assert pair.world.run_until(lambda: len(pair.received["b"]) == count, 20)
    assert sorted(int(body.split(b" ")[0]) for body in pair.received["b"]) == list(range(count))
    assert pair.world.run_until(lambda: len(pair.b.endpoint.connections) == 1, pair.world.now + 20)
    monkeypatch.undo()
    return len(looks) / count


def test_many_connections(monkeypatch):
    few = connect_many(amount(100, 50), monkeypatch)
    assert connect_many(amount(1000, 300), monkeypatch) <= 1.1 * few  # the work per connection is the same


def test_address_change():
    """The port changes, nobody notices, and the transfer goes on: the other end sees it by what comes from there."""
    pair = Pair(seed=20)
    data = pair.send(4 * MEGABYTE)
    pair.world.run(0.3)
    before = sum(map(len, pair.received["b"]))
    assert 0 < before < 4 * MEGABYTE
    pair.a.move((Pair.A[0], 7))
    assert pair.world.run_until(lambda: sum(map(len, pair.received["b"])) == 4 * MEGABYTE, 4)
    assert b"".join(pair.received["b"]) == data
    assert pair.back.address == (Pair.A[0], 7)
    assert pair.b.endpoint.stats["dropped: other address"] > 0  # what came before that address had answered
    pair.finish()


# ---- the ends -----------------------------------------------------------------------------------------------------


def test_zero_window():
    pair = Pair(seed=17)
    assert pair.connected()
    pair.reading = False
    data = pair.send(12 * MEGABYTE)
    pair.world.run(5.0)
    sent = pair.a.sent
    assert pair.back.receiving.held_bytes() <= RECEIVE_WINDOW_MAX + FRAME_SIZE_MAX
    pair.world.run(20.0)
    assert pair.a.sent - sent < 40  # it asks now and then
    stopped = pair.there.sending.sent_to
    pair.read()
    pair.world.run(pair.world.now + 0.035)
    assert pair.there.sending.sent_to > stopped
    assert pair.world.run_until(lambda: sum(map(len, pair.received["b"])) == len(data), 40)
    assert b"".join(pair.received["b"]) == data


def test_slow_reader_bounds_what_the_sender_has_in_flight():
    pair = Pair(seed=18)
    assert pair.connected()
    pair.reading = False
    pair.send(10 * MEGABYTE)

    def read_some():
        event = pair.unread.pop(0) if pair.unread else None
        if event is not None:
            event.connection.consume(len(event.body))
            pair.b.pump()
        pair.world.after(0.1, read_some)  # 100,000 bytes each: 1 MB/s

    read_some()
    for second in range(2, 9):
        pair.world.run(float(second))
        ahead = pair.there.sending.sent_to - second * MEGABYTE
        assert ahead < 5 * MEGABYTE
    assert not pair.lost
