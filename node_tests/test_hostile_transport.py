"""The transport under attack, row by row (D and E of THREATS.md): by strangers, and by remotes that keep no rule.

Virtual time wherever it can be; real sockets only where the kernel is the point (D09, D12, D13) or the verbs are (H05).
Packets are built by `protocol/transport/packets.py`; the one layout that has no encoder there, by the
simulator's `data_packet`.
"""

from __future__ import annotations

import functools
import os
import queue
import random
import shutil
import socket
import subprocess
import sys
import textwrap
import threading
import time

import pytest

import rdt
from disk.sequential import SequentialReader, SequentialWriter
from node_tests.stage.amounts import amount
from node_tests.stage.forged import SECRET, ack_of_pairs, answers_to, arrive, frame, init, kind_of, opened
from node_tests.stage.lab import Lab, content
from node_tests.stage.simulator import Conditions, EndpointDriver, Pair, World, data_packet
from protocol import rates
from protocol.results import ChatReceived, DownloadDone
from protocol.transport import admission
from protocol.transport import endpoint as endpoints
from protocol.transport import packets as wire
from protocol.transport.connection import BacklogDrained, ConnectionLost, Established, FrameReceived, State
from protocol.transport.endpoint import Endpoint
from protocol.transport.frames import FRAME_HEADER
from protocol.transport.handshake import HANDSHAKE_TIMEOUT
from protocol.transport.liveness import IDLE_TIMEOUT, KEEP_ALIVE_INTERVAL, NO_PROGRESS_TIMEOUT
from protocol.transport.packets import PacketType
from sockets import udp
from sockets.waiting import Waiting

MEGABYTE = 1_000_000
MIB = 1 << 20
WAIT = 20.0  # seconds; a bound for a busy machine, not an expectation
STRANGER = ("10.6.6.6", 666)


# ---- tools --------------------------------------------------------------------------------------------------------


def number_of(datagram):
    """The packet number of a DATA packet."""
    *_, first, _, _, _, index = wire.DATA_HEADER.unpack_from(datagram)
    return int(first + index)


def ack_packet(connection_id, ranges, credit=0, delay_us=0):
    largest = ranges[0][1] if ranges else 0
    return wire.encode_ack(wire.AckPacket(connection_id, largest, delay_us, credit, ranges))


def connected_pair(seed=1, **conditions):
    pair = Pair(seed=seed, **conditions)
    assert pair.connected()
    pair.world.run(pair.world.now + 0.5)
    return pair


class Remote:
    """The far end after an honest handshake: its own packets are suppressed, it says what the test says."""

    def __init__(self, driver, back, near_id, address):
        self.driver, self.back, self.near_id, self.address = driver, back, near_id, address
        self.number = back.recovery.next_packet_number + 10
        self.credit = back.receiving.credit
        driver.filter = lambda datagram: None

    @classmethod
    def of(cls, pair):
        return cls(pair.b, pair.back, pair.there.local_id, Pair.A)

    def say(self, datagram):
        self.driver.filter = None
        self.driver.send_raw(self.address, bytes(datagram))
        self.driver.filter = lambda datagram: None

    def ping(self):
        self.number += 1
        self.say(wire.encode_ping(self.near_id, self.number, 10))

    def acknowledge(self, ranges, **fields):
        self.say(ack_packet(self.near_id, ranges, **{"credit": self.credit, **fields}))

    def every(self, seconds, action, until):
        def again():
            action()
            if self.driver.world.now < until:
                self.driver.world.after(seconds, again)

        again()


# ---- strangers: D03-D05, replayed handshakes ----------------------------------------------------------------------


def test_d03_first_packets_of_every_length_get_at_most_one_answer_and_fewer_bytes():
    endpoint = Endpoint(random.Random(1))
    whole = init()
    for size in range(1, 1501):
        datagram = bytearray(whole[:size]) + bytes(max(0, size - len(whole)))
        if size >= wire.PREFIX_SIZE:
            wire.seal(datagram)
        answers = answers_to(endpoint, datagram, ("10.1.%d.%d" % divmod(size, 250), 5), 1.0 + size / 100)
        assert len(answers) <= 1
        assert sum(map(len, answers)) <= size
        assert len(answers) == (size >= wire.INIT_SIZE)
    assert not endpoint.connections


@pytest.mark.parametrize("where", ["127.%d.%d.%d", "10.%d.%d.%d"], ids=["of this machine", "of anywhere"])
def test_d04_200_000_first_packets_from_50_000_addresses_keep_nobody_out(where):
    """20,000 a second, for ten (1.25 without `--full`): no record is made, and each honest one is in within two
    seconds, whenever it comes."""
    world, took = World(3, Conditions(latency=0.001)), {}
    server = EndpointDriver(world, ("10.200.0.1", 1), lambda event: None)

    def come(number):
        """Somebody honest wants in."""
        began = world.now
        driver = EndpointDriver(world, ("10.200.0.%d" % number, 2), lambda event: None)
        driver.on_event = lambda event: took.setdefault(number, (type(event), world.now - began))
        driver.endpoint.connect(server.address, world.now)
        driver.pump()

    for number in range(2, 12):
        world.at(amount(0.74, 0.09) * number, lambda number=number: come(number))
    endpoint, rng, sent, answered = server.endpoint, random.Random(4), 0, 0
    packets = [init(nonce=rng.getrandbits(128).to_bytes(16, "big")) for _ in range(64)]
    addresses = [(where % (n >> 16 & 255, n >> 8 & 255, n & 255), 1024 + n % 60_000) for n in range(50_000)]
    for step in range(amount(2000, 250)):
        world.run(0.005 * step)
        for number in range(100 * step, 100 * step + 100):
            datagram = packets[number % 64]
            sent += len(datagram)
            endpoint.receive(memoryview(datagram), len(datagram), addresses[number % 50_000], world.now)
        answered += sum(batch.segment_size for batch in endpoint.batches(world.now))
    assert sorted(took) == list(range(2, 12))
    assert all(kind is Established and seconds <= 2.0 for kind, seconds in took.values()), took
    assert all(made.address[0].startswith("10.200.") for made in endpoint.connections)
    assert len(endpoint.connections) == 10
    assert 0 < answered < sent
    assert len(endpoint.admission._cookies_per_host._counts) <= rates.HOSTS_COUNTED_MAX


def test_d04_a_flood_from_one_address_uses_up_only_its_own_share_of_cookies():
    endpoint, flooder = Endpoint(random.Random(1)), ("10.6.6.6", 6)
    for _ in range(10_000):
        answers_to(endpoint, init(), flooder, 1.0)
    assert answers_to(endpoint, init(), ("10.0.0.1", 5), 1.0)


def test_d05_a_handshake_that_is_played_again_makes_no_second_connection():
    """By a third party from elsewhere, to the living connection, and with another nonce."""
    pair = Pair(seed=2)
    sent = []
    pair.a.filter = lambda datagram: sent.append(datagram) or datagram
    assert pair.connected()
    inits = [datagram for datagram in sent if kind_of(datagram) == PacketType.INIT]
    before = pair.there.state, pair.back.remote_id, pair.there.remote_id
    for datagram in inits * 100:
        arrive(pair.b, datagram, STRANGER)
        arrive(pair.b, datagram, Pair.A)
        arrive(pair.b, wire.encode_init(wire.decode_init(memoryview(datagram))._replace(nonce=b"x" * 16)), Pair.A)
        pair.world.run(pair.world.now + 0.001)
    assert len(pair.b.endpoint.connections) == 1
    assert before == (pair.there.state, pair.back.remote_id, pair.there.remote_id)
    pair.transfer(MEGABYTE, limit=5)
    pair.finish()
    for datagram in inits:  # the cookie is still good: at most a half-open record, for its five seconds
        arrive(pair.b, datagram, Pair.A)
    assert len(pair.b.endpoint.connections) <= 1
    pair.world.run(pair.world.now + HANDSHAKE_TIMEOUT + 1)
    assert not pair.b.endpoint.connections


# ---- strangers: D07-D11 -------------------------------------------------------------------------------------------


def forgeries(made, number):
    """What one could send at the end `made` of a connection, had one its ids (or some id)."""
    mine, theirs = made.local_id, made.remote_id
    yield data_packet(mine, number, made.receiving.next_offset, frame(b"forged"))
    yield wire.encode_ping(mine, number + 1, 0)
    yield ack_packet(mine, [(0, made.recovery.next_packet_number - 1)], credit=1 << 40)
    yield ack_packet(mine, [(1 << 60, 1 << 60)])
    yield wire.encode_close(wire.ClosePacket(mine, 0, 0, "forged"))
    yield wire.encode_reset(wire.ResetPacket(theirs, SECRET))
    yield wire.encode_reset(wire.ResetPacket(mine, SECRET))
    yield wire.encode_cookie(wire.CookiePacket(made.handshake.client_id, made.handshake.nonce, bytes(20)))
    yield wire.encode_init_ack(wire.InitAckPacket(made.handshake.client_id, b"evilevil", 5, 1 << 40, SECRET))
    yield wire.encode_refused(wire.RefusedPacket(made.handshake.client_id, made.handshake.nonce, "go away"))


@pytest.mark.parametrize(
    "source",
    [STRANGER, ("10.6.6.6", Pair.A[1]), (Pair.A[0], 1001)],
    ids=["a stranger", "the port only", "the host only"],
)
def test_d07_forged_packets_with_the_right_ids_from_elsewhere_do_nothing(source):
    pair = connected_pair(seed=3)
    began = pair.world.now
    data = pair.send(4 * MEGABYTE)
    while sum(map(len, pair.received["b"])) < len(data) and pair.world.now < began + 5:
        for driver, made in ((pair.b, pair.back), (pair.a, pair.there)):
            for datagram in forgeries(made, made.acknowledging.largest + 5):
                arrive(driver, datagram, source)
        pair.world.run(pair.world.now + 0.005)
    assert b"".join(pair.received["b"]) == data
    assert pair.world.now - began < 1.3
    pair.finish()
    assert pair.lost["a"].is_clean and pair.lost["b"].is_clean


def test_d07_forged_packets_with_wrong_ids_from_the_right_address_do_nothing():
    pair = connected_pair(seed=4)
    data = pair.send(4 * MEGABYTE)
    rng = random.Random(4)
    for _ in range(200):
        wrong = rng.getrandbits(64).to_bytes(8, "big")
        number = pair.back.acknowledging.largest + 5
        for datagram in (
            data_packet(wrong, number, pair.back.receiving.next_offset, frame(b"forged")),
            wire.encode_ping(wrong, number, 0),
            ack_packet(wrong, [(1 << 60, 1 << 60)]),
            wire.encode_close(wire.ClosePacket(wrong, 0, 0, "forged")),
            wire.encode_reset(wire.ResetPacket(wrong, SECRET)),
            wire.encode_reset(wire.ResetPacket(pair.back.remote_id, wrong * 2)),
        ):
            arrive(pair.b, datagram, Pair.A)
        pair.world.run(pair.world.now + 0.002)
    assert pair.world.run_until(lambda: sum(map(len, pair.received["b"])) == len(data), pair.world.now + 5)
    assert b"".join(pair.received["b"]) == data
    assert not pair.lost


def test_d08_a_million_guesses_would_cost_little_and_find_nothing():
    """50,000 here, at 20,000 a second: state is the same, and at most 100 short answers a second go out."""
    pair = connected_pair(seed=5)
    endpoint, rng = pair.b.endpoint, random.Random(5)
    guesses = [data_packet(rng.getrandbits(64).to_bytes(8, "big"), 9, 0, b"x" * 40) for _ in range(50_000)]
    began, answered = time.process_time(), 0
    for index, datagram in enumerate(guesses):
        now = pair.world.now + index / 20_000
        endpoint.receive(memoryview(datagram), len(datagram), Pair.A, now)
        for batch in endpoint.batches(now):
            answered += 1
            assert batch.segment_size < len(datagram)
    each = (time.process_time() - began) / len(guesses)
    print("%.1f us each" % (each * 1e6))
    assert each < 0.5 / 20_000
    assert answered <= 4 * endpoints.RESETS_PER_SECOND
    assert endpoint.connections == [pair.back] and pair.back.state is State.ESTABLISHED
    assert not pair.received["b"] and not pair.lost


ANSWERS = {
    "COOKIE": wire.encode_cookie(wire.CookiePacket(b"c" * 8, b"n" * 16, bytes(20))),
    "INIT_ACK": wire.encode_init_ack(wire.InitAckPacket(b"c" * 8, b"s" * 8, 5, 10**6, SECRET)),
    "REFUSED": wire.encode_refused(wire.RefusedPacket(b"c" * 8, b"n" * 16, "no")),
    "RESET": wire.encode_reset(wire.ResetPacket(b"c" * 8, SECRET)),
    "CLOSE": wire.encode_close(wire.ClosePacket(b"c" * 8, 0, 0, "bye")),
}
REQUESTS = {
    "INIT": init(),
    "DATA": data_packet(b"c" * 8, 5, 0, bytes(1000)),
    "ACK": ack_packet(b"c" * 8, [(5, 9), (1, 3)]),
    "PING": wire.encode_ping(b"c" * 8, 5, 0, 1200),
}


@pytest.mark.parametrize("name", list(ANSWERS))
def test_d09_answers_that_nobody_asked_for_are_answered_by_nobody(name):
    endpoint = Endpoint(random.Random(1))
    for _ in range(100):
        assert answers_to(endpoint, ANSWERS[name], ("10.0.0.1", 5), 1.0) == []
    assert not endpoint.connections and not endpoint.events


@pytest.mark.parametrize("name", [*ANSWERS, *REQUESTS])
def test_d09_what_seems_to_come_from_the_own_address_does_not_loop(name):
    world = World(1, Conditions(latency=0.001))
    node = EndpointDriver(world, ("10.0.0.1", 1), lambda event: None)
    arrive(node, {**ANSWERS, **REQUESTS}[name], node.address)
    world.run(60)
    assert node.sent <= 1
    assert not node.endpoint.connections


@pytest.mark.parametrize("name", [*ANSWERS, *REQUESTS])
def test_d10_two_who_do_not_know_each_other_are_silent_after_two_datagrams(name):
    """Each gets, in the other's name, what the other would call an error: fewer than three in all follow."""
    world = World(1, Conditions(latency=0.001))
    one, two = (EndpointDriver(world, ("10.0.0.%d" % n, 1), lambda event: None) for n in (1, 2))
    one.send_raw(two.address, bytes({**ANSWERS, **REQUESTS}[name]))
    world.run(60)
    assert one.sent - 1 + two.sent < 3


FOREIGN = {
    "a later version": bytes(init()[:4]) + bytes([wire.VERSION + 1]) + bytes(init()[5:]),
    "version 0": bytes(init()[:4]) + b"\x00" + bytes(init()[5:]),
    "DNS query": bytes.fromhex("1a2b01000001000000000000076578616d706c6503636f6d0000010001"),
    "mDNS": bytes(5) + b"\x01" + bytes(6) + b"\x09_services\x07_dns-sd\x04_udp\x05local\x00\x00\x0c\x00\x01",
    "uTP SYN": bytes.fromhex("4100a9d14c3bd1500000000000100000a3f50000"),
    "QUIC Initial": bytes.fromhex("c300000001088394c8f03e5157080000449e") + bytes(1182),
    "STUN binding": bytes.fromhex("000100002112a442b7e7a701bc34d686fa87dfae"),
    "NTP": bytes.fromhex("e30006ec0000000000000000314e31340000000000000000000000000000000000000000000000000000"),
    "SSDP": b"M-SEARCH * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\nMAN: \"ssdp:discover\"\r\n\r\n",
    "DHT ping": b"d1:ad2:id20:abcdefghij0123456789e1:q4:ping1:t2:aa1:y1:qe",
    "the forebear's RCON": b"RCON0001",
    "nothing": b"",
    "one byte": b"\xff",
    "64 KiB of zeros": bytes(65_507),
}


@pytest.mark.parametrize("name", list(FOREIGN))
def test_d11_packets_of_other_protocols_get_silence(name):
    endpoint = Endpoint(random.Random(1))
    for sealed in (False, True):
        datagram = bytearray(FOREIGN[name])
        if sealed and len(datagram) >= wire.PREFIX_SIZE and datagram[4] != wire.VERSION:
            wire.seal(datagram)
        assert answers_to(endpoint, datagram, ("10.0.0.1", 5), 1.0) == []
    assert not endpoint.connections and not endpoint.events


# ---- remotes that acknowledge what they like: E01-E03 -------------------------------------------------------------


NEVER_SENT = "acknowledged packets that were never sent"
SKIPPED = "acknowledged a packet number that was skipped"
MALFORMED = "acknowledgement ranges"


@pytest.mark.parametrize(
    ("pairs", "above", "reason"),
    [
        ([(0, 5)], 1, NEVER_SENT),
        ([(0, 1)], 2**62, NEVER_SENT),
        ([(2**32 - 1, 1)], 0, MALFORMED),
        ([(0, 2**32 - 1)] * 2, 0, MALFORMED),
        ([(0, 0)], 0, MALFORMED),
        ([(0, 2), (0, 2)], 0, MALFORMED),
        ([(0, 1), (2, 1)] * 4000, 0, MALFORMED),
        ([(1, 1)] * (wire.ACK_RANGES_MAX + 1), 0, MALFORMED),
    ],
    ids=["the next", "absurd", "a gap too wide", "reversed", "empty", "overlapping", "8,000 ranges", "65 ranges"],
)
def test_e01_who_acknowledges_nonsense_is_closed_within_a_round_trip(pairs, above, reason):
    pair = connected_pair(seed=6)
    data = pair.send(4 * MEGABYTE)
    pair.world.run(pair.world.now + 0.1)
    pair.there.recovery._floor = 0  # the first numbers are high and random: let none of it be simply old
    largest = min(pair.there.recovery.next_packet_number - 1 + above, 2**64 - 1)
    if reason == MALFORMED:
        largest = min(largest, 2**31)
    arrive(pair.a, ack_of_pairs(pair.there.local_id, largest, pairs), Pair.B)
    assert pair.world.run_until(lambda: len(pair.lost) == 2, pair.world.now + 0.031)
    assert reason in pair.lost["a"].reason and not pair.lost["a"].is_clean
    assert sum(map(len, pair.received["b"])) < len(data)


@pytest.mark.parametrize("when", ["at once", "when all before it was acknowledged", "in one range over everything"])
def test_e01_who_acknowledges_a_skipped_number_is_closed(when):
    """Whatever was acknowledged before: a number that was never on the wire is in no honest range."""
    pair = connected_pair(seed=7)
    remote, recovery = Remote.of(pair), pair.there.recovery
    pair.there.flight._skip_at = 1 << 62  # here the test says which
    sent = recovery.next_packet_number
    pair.send(10_000, frame=1000)
    pair.world.run(pair.world.now + 0.02)
    skipped = recovery.next_packet_number
    recovery.skip_number()
    remote.acknowledge([(sent, skipped - 1)] if when != "at once" else [])
    pair.world.run(pair.world.now + 0.02)
    assert "a" not in pair.lost
    pair.send(5_000, frame=1000)
    pair.world.run(pair.world.now + 0.02)
    first = skipped - 5 if when == "in one range over everything" else skipped
    remote.acknowledge([(first, recovery.next_packet_number - 1)])
    assert pair.world.run_until(lambda: "a" in pair.lost, pair.world.now + 0.02)
    assert pair.lost["a"].reason == SKIPPED


def sent_in_steps(pair, seconds, step=0.1):
    """Bytes that `a` sent in each step, until its connection ends."""
    counts, until = [], pair.world.now + seconds
    while pair.world.now < until and "a" not in pair.lost:
        before = pair.a.sent_bytes
        pair.world.run(pair.world.now + step)
        counts.append(pair.a.sent_bytes - before)
    return counts


def give_zeros(pair):
    """64 MiB that nobody compares."""
    for _ in range(64):
        pair.there.send_frame(0, bytes(MIB))
    pair.a.pump()


@functools.cache
def most_of_an_honest_one(mtu):
    """Bytes in a tenth of a second, on the path of those who lie."""
    honest = connected_pair(seed=8, mtu=mtu, queue=0.02)
    give_zeros(honest)
    return max(sent_in_steps(honest, 3.0))


@pytest.mark.parametrize("path", ["1,472 bytes", "jumbo frames"][: amount(2, 1)])
@pytest.mark.parametrize("after", [0.0, 1.0], ids=["from the first packet on", "once the window is open"])
@pytest.mark.parametrize("ahead", ["one round trip", "half a round trip"])
def test_e02_optimistic_acknowledgements_are_caught_before_they_pay(ahead, after, path):
    """What is sent is acknowledged in the instant it leaves (or arrives half a round trip early), come what may."""
    mtu = 9000 if path == "jumbo frames" else 1500
    most = most_of_an_honest_one(mtu)
    pair = connected_pair(seed=8, mtu=mtu, queue=0.02)
    remote = Remote.of(pair)
    remote.credit = 1 << 40
    first, latency = pair.there.recovery.next_packet_number, pair.world.conditions.latency
    give_zeros(pair)
    pair.b.filter = None

    def lie(datagram):
        if kind_of(datagram) == PacketType.DATA and pair.world.now >= began + after:
            pair.b.filter = lambda datagram: None
            lies = ack_packet(pair.there.local_id, [(first, number_of(datagram))], credit=1 << 40)
            delay = 0.0 if ahead == "one round trip" else latency
            pair.world.after(delay, lambda: arrive(pair.a, lies, Pair.B))
        return datagram

    began = pair.world.now
    pair.a.filter = lie
    if after:
        sent_in_steps(pair, after)
    before = pair.a.sent_bytes
    counts = sent_in_steps(pair, 10.0)
    assert "a" in pair.lost and pair.lost["a"].reason == SKIPPED
    assert pair.a.sent_bytes - before < 64 * MIB
    assert max(counts) <= 2 * most, "%d bytes in a tenth of a second, an honest one gets %d" % (max(counts), most)


class Hub:
    """One node with a connection to each of many remotes, and how the verbs feed them: up to BACKLOG_HIGH."""

    def __init__(self, seed, conditions):
        self.world = World(seed, conditions)
        self.node = EndpointDriver(self.world, ("10.0.0.1", 1), self.on_event)
        self.lost, self.most, self.lefts, self.times = {}, {}, {}, {}

    def connect(self, number):
        """(our end, their driver, their end)"""
        theirs = []
        driver = EndpointDriver(self.world, ("10.0.1.%d" % number, 2), lambda event: self.at_remote(event, theirs))
        made = self.node.endpoint.connect(driver.address, self.world.now)
        self.node.pump()
        assert self.world.run_until(lambda: theirs, self.world.now + 2)
        return made, driver, theirs[0]

    def at_remote(self, event, theirs):
        if isinstance(event, Established):
            theirs.append(event.connection)
        elif isinstance(event, FrameReceived):
            event.connection.consume(len(event.body))

    def on_event(self, event):
        if isinstance(event, BacklogDrained):
            self.feed(event.connection)
        elif isinstance(event, ConnectionLost):
            self.lost[event.connection] = (self.world.now, event)

    def give(self, made, size):
        self.lefts[made] = size
        self.feed(made)

    def feed(self, made):
        while self.lefts.get(made) and made.backlog < rdt.BACKLOG_HIGH:
            size = min(100_000, self.lefts[made])
            self.lefts[made] -= size
            made.send_frame(0, bytes(size))
        self.most[made] = max(self.most.get(made, 0), made.backlog)
        self.node.pump()

    def done_in(self, made, size, limit=30.0):
        began = self.world.now
        self.give(made, size)
        assert self.world.run_until(lambda: not made.backlog and not self.lefts[made], began + limit), self.lost
        return self.world.now - began


HUB_LINE = Conditions(latency=0.01, rate=100e6 / 8, queue=0.01, mtu=1500)
HUB_SIZE = amount(5, 3) * MEGABYTE


@functools.cache
def time_of_an_undisturbed_one():
    """Seconds in which it is there when nobody else wants anything."""
    alone = Hub(9, HUB_LINE)
    return alone.done_in(alone.connect(0)[0], HUB_SIZE)


@pytest.mark.parametrize("attack", ["never acknowledges", "acknowledges every tenth", "leaves the window at nothing"])
def test_e03_twenty_remotes_that_take_nothing_cost_four_mebibytes_each_and_a_minute(attack):
    undisturbed = time_of_an_undisturbed_one()
    hub = Hub(9, HUB_LINE)
    honest = hub.connect(0)[0]
    remotes = []
    for number in range(1, amount(21, 6)):
        made, driver, back = hub.connect(number)
        remotes.append((made, Remote(driver, back, made.local_id, hub.node.address)))
    began = hub.world.now

    def answer(made, remote):
        remote.ping()
        got = remote.back.acknowledging.numbers.starts and list(remote.back.acknowledging.numbers)
        if got and attack == "acknowledges every tenth":
            tenths = [(n, n) for _, stop in got[-1:] for n in range((stop - 1) // 10 * 10, stop - 640, -10) if
                      n in remote.back.acknowledging.numbers]
            remote.acknowledge(tenths, credit=1 << 40) if tenths else None
        elif got and attack == "leaves the window at nothing":
            ranges = [(start, stop - 1) for start, stop in reversed(got)]
            remote.acknowledge(ranges[: wire.ACK_RANGES_MAX])

    for made, remote in remotes:
        remote.every(amount(0.1, 0.2), lambda made=made, remote=remote: answer(made, remote), until=began + 130)
        hub.give(made, 32 * MIB)
    assert hub.done_in(honest, HUB_SIZE) <= 1.1 * undisturbed
    hub.world.run(began + 125)
    for made, _ in remotes:
        assert hub.most[made] <= rdt.BACKLOG_HIGH + MIB
        assert len(made.recovery._records) < 10_000
        if attack != "acknowledges every tenth":
            when, event = hub.lost[made]
            assert event.reason == "took nothing for 60 s"
            assert when - began < NO_PROGRESS_TIMEOUT + 5
        else:  # a tenth comes through: that is progress, as long as it is 16 KiB a minute
            assert made in hub.lost or made.sending.acknowledged_to > 16 << 10
    assert honest not in hub.lost
    assert hub.done_in(honest, HUB_SIZE) <= 1.1 * undisturbed


@pytest.mark.parametrize("how", ["by acknowledgements", "by credit that leads to nothing"])
def test_e03_a_byte_now_and_then_is_not_progress(how):
    """Slowloris: less than 16 KiB a minute while more waits, with signs of life in between."""
    pair = connected_pair(seed=10)
    remote = Remote.of(pair)
    start, first = pair.there.sending.acknowledged_to, pair.there.recovery.next_packet_number
    pair.there.flight._skip_at = 1 << 62
    pair.send(MEGABYTE, frame=1000)
    pair.world.run(pair.world.now + 0.02)
    began, told = pair.world.now, []

    def nibble():
        remote.ping()
        if len(told) % 20 == 0:  # every 20 s
            remote.credit += 20_000 if how != "by acknowledgements" else 1
            remote.acknowledge([(first, first + len(told) // 20)] if how == "by acknowledgements" else [])
        told.append(pair.world.now)

    remote.every(1.0, nibble, until=began + 200)
    assert pair.world.run_until(lambda: "a" in pair.lost, began + 150)
    assert pair.lost["a"].reason == "took nothing for 60 s"
    assert pair.there.sending.acknowledged_to - start < 16 << 10


def test_e03_a_reader_of_a_kilobyte_a_second_is_slow_but_honest():
    pair = connected_pair(seed=11)
    pair.reading = False
    pair.send(400_000, frame=1000)

    def read_one():
        if pair.unread:
            event = pair.unread.pop(0)
            event.connection.consume(len(event.body))
            pair.b.pump()
        pair.world.after(1.0, read_one)

    read_one()
    pair.world.run(pair.world.now + 300)
    assert not pair.lost


def test_e03_send_gives_its_caller_back_when_nobody_reads():
    with rdt.open("127.0.0.1", 0) as here, rdt.open("127.0.0.1", 0) as there:
        near = here.connect(there.address, timeout=WAIT)
        there.accept(timeout=WAIT)
        began = time.monotonic()
        with pytest.raises(rdt.RdtError, match="took nothing in time"):
            for _ in range(100):
                near.send(bytes(MIB), timeout=0.3)
        assert near.channel.waiting_size() <= rdt.BACKLOG_HIGH + MIB
        assert time.monotonic() - began < WAIT
        sending = near.channel.core.sending
        sending.end = sending.acknowledged_to  # else the good-bye waits for the reader, too
        here.close = there.close = lambda: None
    for transport in (here, there):
        transport._network.stop(WAIT)


# ---- streams that contradict themselves: E04 ----------------------------------------------------------------------


def test_e04_data_beyond_the_credit_closes_and_delivers_nothing():
    for offset, size in ((0, 1), (-999, 1000), (1 << 40, 10), ((1 << 64) - 2000 - (64 << 10), 1000)):
        pair = connected_pair(seed=12)
        at = pair.back.receiving.credit + offset
        number = pair.back.acknowledging.largest + 1
        arrive(pair.b, data_packet(pair.back.local_id, number, at, frame(b"x" * size)), Pair.A)
        assert pair.lost["b"].reason == "sent more than the credit allows"
        assert not pair.received["b"]
        assert pair.world.run_until(lambda pair=pair: "a" in pair.lost, pair.world.now + 1)


def test_e04_where_bytes_overlap_the_first_ones_are_delivered():
    pair = connected_pair(seed=13)
    made, rng = pair.back, random.Random(13)
    true = b"".join(frame(b"%06d" % n * 20) for n in range(100))
    start, number = made.receiving.next_offset, made.acknowledging.largest
    pieces = [(at, at + 333) for at in range(0, len(true), 333)]
    rng.shuffle(pieces)
    for begin, end in pieces:
        number += 1
        arrive(pair.b, data_packet(made.local_id, number, start + begin, true[begin:end]), Pair.A)
        number += 1
        lie = bytes(byte ^ 0xFF for byte in true[begin:end])
        arrive(pair.b, data_packet(made.local_id, number, start + begin, lie), Pair.A)
    assert pair.received["b"] == [b"%06d" % n * 20 for n in range(100)]
    assert not pair.lost


@pytest.mark.parametrize("final_size", [0, -1, 1, 10**6, 2**64 - 1])
def test_e04_a_final_size_that_is_not_what_came_is_no_clean_end(final_size):
    """Nor is a second CLOSE with another size, and nothing is delivered behind the first."""
    pair = connected_pair(seed=14)
    pair.send(10_000)
    pair.world.run(pair.world.now + 1)
    made = pair.back
    size = final_size if final_size in (0, 2**64 - 1) else made.receiving.next_offset + final_size
    arrive(pair.b, wire.encode_close(wire.ClosePacket(made.local_id, 0, size, "bye")), Pair.A)
    assert not pair.lost["b"].is_clean
    sent = pair.b.sent
    for other in range(1000):
        arrive(pair.b, wire.encode_close(wire.ClosePacket(made.local_id, 0, other, "again")), Pair.A)
        late = data_packet(made.local_id, made.acknowledging.largest + 1, made.receiving.next_offset, frame(b"late"))
        arrive(pair.b, late, Pair.A)
    assert pair.b.sent - sent < 20
    assert len(pair.received["b"]) == 1
    pair.world.run(pair.world.now + 10)
    assert not pair.b.endpoint.connections


@pytest.mark.parametrize("size", [2**32 - 1, 2**31, (1 << 20) + (1 << 16) + 1])
def test_e04_a_message_that_is_announced_over_the_limit_closes(size):
    pair = connected_pair(seed=15)
    header = FRAME_HEADER.pack(0, size)
    made = pair.back
    number = made.acknowledging.largest + 1
    arrive(pair.b, data_packet(made.local_id, number, made.receiving.next_offset, header), Pair.A)
    assert pair.lost["b"].reason == "announced a message over the limit"


# ---- many, half-open, unused: E06-E08 -----------------------------------------------------------------------------


def test_e06_connection_2049_is_refused_and_the_others_are_served():
    most = amount(endpoints.CONNECTIONS_MAX, 500)
    endpoint = Endpoint(random.Random(1), connections_max=most)
    for index in range(most):
        assert opened(endpoint, ("10.1.%d.%d" % divmod(index, 250), 5), 1.0 + index / 1500), index
    for number in range(100):
        assert opened(endpoint, ("10.9.9.%d" % number, 5), 5.0) is None
    assert len(endpoint.connections) == most
    assert endpoint.stats["refused: it has too many connections"] == 100
    served = endpoint.connections[77]
    answers_to(endpoint, data_packet(served.local_id, 8, 0, frame(b"hello")), served.address, 5.0)
    assert [bytes(event.body) for event in endpoint.events if isinstance(event, FrameReceived)] == [b"hello"]
    now = 5.0
    while endpoint.next_deadline() < 5.0 + IDLE_TIMEOUT + 30:
        now = max(now, endpoint.next_deadline())
        endpoint.on_timeout(now)
        for _ in endpoint.batches(now):
            pass
    assert not endpoint.connections and not endpoint.admission.per_host and not endpoint.intake.windows


@pytest.mark.parametrize("loopback", [False, True], ids=["of one machine", "of this machine"])
def test_e06_one_host_gets_64_and_others_are_served(loopback):
    endpoint, host = Endpoint(random.Random(1)), "127.0.0.1" if loopback else "10.0.0.6"
    made = [opened(endpoint, (host, 1000 + n), 1.0 + n / 20) for n in range(100)]
    assert sum(one is not None for one in made) == (100 if loopback else admission.CONNECTIONS_PER_HOST_MAX)
    assert opened(endpoint, ("10.0.0.7", 5), 9.0) is not None


def test_e07_half_open_at_each_step_of_the_handshake_is_gone_in_time():
    """The one who connects: no answer, a COOKIE and no more, an INIT_ACK and no more."""
    for step, limit in (("nothing", HANDSHAKE_TIMEOUT), ("COOKIE", HANDSHAKE_TIMEOUT), ("INIT_ACK", IDLE_TIMEOUT)):
        world = World(1, Conditions(latency=0.001))
        lost = []
        node = EndpointDriver(world, ("10.0.0.1", 1), lambda event, lost=lost: lost.append(event))
        other = EndpointDriver(world, ("10.0.0.2", 2), lambda event: None)
        answers = {"nothing": (), "COOKIE": ("COOKIE",), "INIT_ACK": ("COOKIE", "INIT_ACK")}[step]

        def let(datagram, answers=answers):
            return datagram if PacketType(kind_of(datagram)).name in answers else None

        other.filter = let
        node.endpoint.connect(other.address, world.now)
        node.pump()
        assert world.run_until(lambda lost=lost: any(isinstance(one, ConnectionLost) for one in lost), limit + 1), step
        world.run(world.now + 10)
        assert not node.endpoint.connections and not node.endpoint.turns.deadlines, step
        assert not other.endpoint.connections or step == "INIT_ACK"


def test_e07_a_close_that_nobody_answers_is_over_in_seconds():
    """Also when the remote has made us believe that a round trip takes half a minute."""
    for lag in (0.0, 12.0):
        pair = connected_pair(seed=16)
        remote = Remote.of(pair)
        began = pair.world.now
        remote.every(3.0, remote.ping, until=began + 1000)
        for _ in range(8 if lag else 0):
            number = pair.there.recovery.next_packet_number
            pair.send(100)
            pair.world.run(pair.world.now + lag)
            remote.acknowledge([(number, number)])  # not what was sent since
            pair.world.run(pair.world.now + 0.1)
        pair.there.fail(4, "enough", pair.world.now)
        pair.a.pump()
        pair.world.run(pair.world.now + 10)
        assert not pair.a.endpoint.connections, lag


def test_e07_a_close_by_a_remote_that_inflated_the_round_trip_is_forgotten_in_seconds():
    pair = connected_pair(seed=17)
    remote = Remote.of(pair)
    remote.every(3.0, remote.ping, until=pair.world.now + 1000)
    for _ in range(8):
        number = pair.there.recovery.next_packet_number
        pair.send(100)
        pair.world.run(pair.world.now + 12)
        remote.acknowledge([(number, number)])  # not what was sent since
        pair.world.run(pair.world.now + 0.1)
    remote.say(wire.encode_close(wire.ClosePacket(remote.near_id, 0, 0, "bye")))
    pair.world.run(pair.world.now + 10)
    assert not pair.a.endpoint.connections


def test_e08_connections_kept_alive_without_use_make_room_when_slots_are_short():
    """64 of one machine that do nothing but stay: the 65th takes the place of the longest unused one."""
    endpoint, host = Endpoint(random.Random(1)), "10.0.0.6"
    made = [opened(endpoint, (host, 1000 + n), 1.0 + n / 30) for n in range(admission.CONNECTIONS_PER_HOST_MAX)]
    numbers = dict.fromkeys(made, 8)

    def live(since, until):
        """Signs of life from all; the first two are also used."""
        for second in range(since, until, 5):
            for index, one in enumerate(made):
                numbers[one] += 1
                datagram = wire.encode_ping(one.local_id, numbers[one], 0)
                if index < 2:
                    datagram = data_packet(one.local_id, numbers[one], one.receiving.next_offset, frame(b"used"))
                answers_to(endpoint, datagram, one.address, float(second))
            endpoint.on_timeout(float(second))

    live(5, 30)
    assert opened(endpoint, (host, 5000), 30.0) is None  # nobody stood idle for long
    live(30, 600)
    assert all(one.state is State.ESTABLISHED for one in made)  # nobody wanted the place: nobody is sent away
    newcomer = opened(endpoint, (host, 5001), 600.0)
    assert newcomer is not None
    ended = [one for one in made if one.state is not State.ESTABLISHED]
    assert len(ended) == 1 and ended[0] not in made[:2]
    reasons = [event.reason for event in endpoint.events if isinstance(event, ConnectionLost)]
    assert reasons == ["unused, and its place is needed"]
    for extra in range(100):
        opened(endpoint, (host, 6000 + extra), 605.0 + extra)
        live(605 + extra, 606 + extra)
    assert all(one.state is State.ESTABLISHED for one in made[:2])
    live_ones = [one for one in endpoint.connections if one.state is State.ESTABLISHED]
    assert len(live_ones) <= admission.CONNECTIONS_PER_HOST_MAX


def test_e08_the_own_connections_and_the_used_ones_are_never_given_away():
    endpoint = Endpoint(random.Random(1), connections_max=10)
    own = endpoint.connect(("10.0.0.1", 1), 1.0, timeout=10_000.0)
    made = [opened(endpoint, ("10.0.1.%d" % n, 5), 1.0) for n in range(9)]
    for one in made:
        answers_to(endpoint, data_packet(one.local_id, 8, 0, frame(b"used")), one.address, 500.0)
    assert opened(endpoint, ("10.0.0.9", 9), 510.0) is None
    assert own in endpoint.connections


# ---- floods: E09; lies about time: E13; all troubles at once: E10 -------------------------------------------------


@pytest.mark.parametrize("what", ["PING", "credit", "old ACK", "DATA again", "new DATA", "CLOSE then all", "INIT"])
def test_e09_a_flood_with_our_window_collapsed_makes_no_queue_grow(what):
    """100,000 datagrams while nothing of ours can leave the socket: what is owed are flags."""
    pair = connected_pair(seed=18)
    remote, made, endpoint = Remote.of(pair), pair.there, pair.a.endpoint
    pair.send(MEGABYTE)
    pair.world.run(pair.world.now + 20)  # nothing is acknowledged: the window collapses
    pair.a._busy = True  # the socket takes nothing
    now = pair.world.now
    again = data_packet(made.local_id, remote.number + 1, made.receiving.next_offset, frame(b"once"))
    if what == "CLOSE then all":
        endpoint.receive(memoryview(wire.encode_close(wire.ClosePacket(made.local_id, 0, 0, "x"))), 40, Pair.B, now)
        close = wire.encode_close(wire.ClosePacket(made.local_id, 0, 0, "x"))
        endpoint.receive(memoryview(close), len(close), Pair.B, now)
    for index in range(20_000 if what != "INIT" else 5_000):
        datagram = {
            "PING": lambda n: wire.encode_ping(made.local_id, remote.number + n, 0),
            "credit": lambda n: ack_packet(made.local_id, [], credit=remote.credit + n),
            "old ACK": lambda n: ack_packet(made.local_id, [(0, made.recovery.floor() - 1)], credit=n),
            "DATA again": lambda n: again,
            "new DATA": lambda n: data_packet(
                made.local_id, remote.number + n, made.receiving.next_offset + 2 * n % 60_000 + 1, b"y"
            ),
            "CLOSE then all": lambda n: again,
            "INIT": lambda n: init(nonce=n.to_bytes(16, "big")),
        }[what](index + 1)
        endpoint.receive(memoryview(datagram), len(datagram), Pair.B, now + index * 1e-4)
    assert len(endpoint.turns.ready) <= 1
    assert len(endpoint._replies) <= endpoints.REPLIES_MAX
    assert len(endpoint.turns.deadlines._heap) < 100
    assert len(endpoint.events) < 5
    assert made.receiving.held_bytes() <= 2 * MIB
    assert len(made.recovery._records) < 2000
    owed = sum(batch.count for batch in endpoint.batches(now + 2.1) if batch.address == Pair.B)
    assert owed < 10 or what == "INIT"


def test_e09_small_packets_at_the_worst_rhythm_leave_no_alarms_behind():
    """Each lone DATA packet makes the acknowledgement's timer run, and then the keep-alive's again."""
    pair = connected_pair(seed=19)
    remote = Remote.of(pair)
    stream = frame(bytes(50_000))
    for index in range(2000):
        remote.number += 1
        datagram = data_packet(pair.there.local_id, remote.number, index, stream[index : index + 1], floor=1)
        arrive(pair.a, datagram, Pair.B)
        pair.world.run(pair.world.now + 0.0055)
    assert len(pair.a.endpoint.turns.deadlines._heap) <= 200


def test_e09_connections_that_come_and_go_are_not_remembered_by_their_alarms():
    endpoint = Endpoint(random.Random(1))
    for index in range(amount(2000, 600)):
        now = 1.0 + index / 1000
        made = opened(endpoint, ("127.0.0.1", 1000 + index), now)
        close = wire.encode_close(wire.ClosePacket(made.local_id, 0, 0, "bye"))
        answers_to(endpoint, close, made.address, now)
        endpoint.on_timeout(now)
        assert len(endpoint.turns.deadlines._heap) <= 2 * len(endpoint.connections) + 200


def test_e10_loss_repetition_lateness_damage_and_a_shrinking_path_all_at_once():
    """30 % lost, 20 % twice, up to 50 ms late, 1 % damaged, and in the middle the path takes only 1,280 bytes."""
    calm = Pair(seed=20, jitter=0.05, loss=0.3, duplicate=0.2)
    calm.there.handshake.deadline = 30.0
    undisturbed = calm.transfer(MEGABYTE // 2, limit=200)
    pair = Pair(seed=20, loss=0.3, duplicate=0.2, jitter=0.05, corrupt=0.01)
    pair.there.handshake.deadline = 30.0
    assert pair.connected(limit=30)
    began, data = pair.world.now, pair.send(MEGABYTE // 2)
    arrivals = [began]
    take = pair.b.on_event
    pair.b.on_event = lambda event: (arrivals.append(pair.world.now), take(event))
    assert pair.world.run_until(lambda: len(pair.received["b"]) >= 2, began + 100)
    pair.world.conditions.mtu = 1280
    assert pair.world.run_until(lambda: sum(map(len, pair.received["b"])) == len(data), began + 10 * undisturbed)
    assert b"".join(pair.received["b"]) == data
    assert max(after - before for before, after in zip(arrivals, arrivals[1:])) < 20


@pytest.mark.parametrize("delay_us", [2**32 - 1, 0, 1, 10**6, 2**31][: amount(5, 2)])
def test_e13_an_absurd_delay_in_acknowledgements_changes_nothing(delay_us):
    """The one word about time that a remote says. Neither its own clock nor its RTT is ever asked for."""

    def lie(datagram):
        if kind_of(datagram) != PacketType.ACK:
            return datagram
        return bytes(wire.encode_ack(wire.decode_ack(memoryview(datagram))._replace(delay_us=delay_us)))

    honest, pair = connected_pair(seed=21), connected_pair(seed=21)
    pair.b.filter = lie
    assert pair.transfer(3 * MEGABYTE, limit=10) <= 1.3 * honest.transfer(3 * MEGABYTE, limit=10)
    assert 0.029 <= pair.there.recovery.rtt.smoothed <= 0.1
    pair.finish()


# ---- the kernel is the point: D09, D12, D13 -----------------------------------------------------------------------


class Clock:
    """Real time that a test may put forward; the network threads are woken to see it."""

    def __init__(self):
        self.ahead = 0.0
        self.transports = []

    def __call__(self):
        return time.monotonic() + self.ahead

    def open(self):
        transport = rdt.Transport("127.0.0.1", 0, clock=self)
        transport.start()
        self.transports.append(transport)
        return transport

    def forward(self, seconds, step=0.5):
        """Let time pass in small steps, each long enough for a round trip."""
        for _ in range(int(seconds / step)):
            self.ahead += step
            for transport in self.transports:
                seen = threading.Event()
                if transport._network.is_alive():
                    transport._network.inbox.post(seen.set)
                    assert seen.wait(WAIT)
            time.sleep(0.002)

    def close(self):
        for transport in self.transports:
            transport._network.stop(WAIT)


@pytest.fixture
def clock():
    made = Clock()
    yield made
    made.close()


def test_d12_a_remote_whose_port_is_closed_in_mid_transfer_times_out_and_hurts_nobody(clock):
    node, gone, other = clock.open(), clock.open(), clock.open()
    to_gone = node.connect(gone.address, timeout=WAIT)
    to_other, from_node = node.connect(other.address, timeout=WAIT), other.accept(timeout=WAIT)
    to_gone.send(bytes(3 * MIB))
    gone._network.stop(WAIT)  # no good-bye: from now on the kernel answers for it, "port unreachable"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as plain:
        plain.connect(gone.address)
        plain.send(b"x")
        with pytest.raises(ConnectionRefusedError):
            plain.settimeout(WAIT)
            plain.recv(1)
    to_other.send(b"meanwhile")
    assert from_node.receive(timeout=WAIT) == b"meanwhile"
    clock.forward(IDLE_TIMEOUT - 5)
    assert not to_gone.channel.ended.is_set()  # ICMP closes nothing
    clock.forward(10)
    assert to_gone.channel.ended.wait(WAIT)
    with pytest.raises(rdt.RdtError, match="no sign of life for 30 s"):
        to_gone.send(b"x")
    to_other.send(b"and now")
    assert from_node.receive(timeout=WAIT) == b"and now"
    assert node._network.is_alive()


class Resetting:
    """A socket as Windows has them: every other receive raises what an earlier send found out (WinError 10054)."""

    def __init__(self, real):
        self.real, self.turns = real, 0

    def __getattr__(self, name):
        return getattr(self.real, name)

    def _maybe(self):
        self.turns += 1
        if self.turns % 2:
            raise ConnectionResetError(10054, "An existing connection was forcibly closed by the remote host")

    def recvmsg_into(self, *args):
        self._maybe()
        return self.real.recvmsg_into(*args)

    def recvfrom_into(self, *args):
        self._maybe()
        return self.real.recvfrom_into(*args)


@pytest.mark.parametrize("merges", [True, False], ids=["recvmsg_into", "recvfrom_into"])
def test_d12_connection_resets_of_windows_are_passed_over(merges):
    with rdt.open("127.0.0.1", 0) as here, rdt.open("127.0.0.1", 0) as there:
        for transport in (here, there):
            transport._network.datagrams._merges = merges and transport._network.datagrams._merges
            if not merges and hasattr(socket, "SOL_UDP"):
                udp._set(transport._network.datagrams.socket, socket.IPPROTO_UDP, udp.UDP_GRO, 0)
            transport._network.datagrams.socket = Resetting(transport._network.datagrams.socket)
        near = here.connect(there.address, timeout=WAIT)
        far = there.accept(timeout=WAIT)
        for number in range(3):
            data = bytes([number]) * MIB
            near.send(data)
            assert far.receive(timeout=WAIT) == data
        assert sum(count for cause, count in there.stats().items() if cause.startswith("receive:")) > 3
        assert here._network.is_alive() and there._network.is_alive()


@pytest.mark.parametrize("trouble", ["EPERM", "ENETUNREACH", "EHOSTUNREACH", "ENETDOWN", "ENOBUFS", "EAGAIN"])
def test_d12_errors_of_a_send_are_loss_and_the_transfer_goes_on(trouble):
    import errno

    number = getattr(errno, trouble)
    kind = BlockingIOError if trouble == "EAGAIN" else OSError

    class Failing(Resetting):
        def sendmsg(self, *args):
            self.turns += 1
            if self.turns % 5 == 0:
                raise kind(number, trouble)
            return self.real.sendmsg(*args)

        def sendto(self, *args):
            return self.real.sendto(*args)

        recvmsg_into = recvfrom_into = property(lambda self: None)

        def __getattribute__(self, name):
            if name in ("recvmsg_into", "recvfrom_into"):
                return getattr(object.__getattribute__(self, "real"), name)
            return object.__getattribute__(self, name)

    with rdt.open("127.0.0.1", 0) as here, rdt.open("127.0.0.1", 0) as there:
        near = here.connect(there.address, timeout=WAIT)
        far = there.accept(timeout=WAIT)
        if not here._network.datagrams._has_sendmsg:
            pytest.skip("the platform has no sendmsg")
        failing = here._network.datagrams.socket = Failing(here._network.datagrams.socket)
        for number in range(3):
            data = bytes([number % 251]) * MIB
            near.send(data)
            assert far.receive(timeout=WAIT) == data
        assert failing.turns >= 5
        assert here._network.is_alive()


def is_root():
    return sys.platform.startswith("linux") and os.geteuid() == 0


@pytest.mark.skipif(not is_root(), reason="raw sockets are root's")
def test_d09_source_port_0_and_the_own_address_get_no_answer():
    """Raw datagrams on loopback: an INIT that would be answered, from port 0 and from the node's own address."""
    with rdt.open("127.0.0.1", 0) as node, rdt.open("127.0.0.1", 0) as honest:
        seen, sent = [], []
        endpoint, datagrams = node._network.endpoint, node._network.datagrams
        receive, send = endpoint.receive, datagrams.send
        endpoint.receive = lambda data, size, source, *more: (seen.append(source), receive(data, size, source, *more))
        datagrams.send = lambda batch, now: (sent.append(batch.address), send(batch, now))[1]
        try:
            raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP)
        except PermissionError:
            pytest.skip("no raw sockets here")
        port = node.address[1]
        with raw:
            for source in (0, port):
                for datagram in (init(), REQUESTS["DATA"], REQUESTS["PING"]):
                    header = b"".join(n.to_bytes(2, "big") for n in (source, port, 8 + len(datagram), 0))
                    raw.sendto(header + bytes(datagram), ("127.0.0.1", port))
        made = honest.connect(node.address, timeout=WAIT)
        made.send(b"fine")
        assert node.accept(timeout=WAIT).receive(timeout=WAIT) == b"fine"
        assert ("127.0.0.1", 0) not in seen
        assert not [address for address in sent if address[1] == 0]
        assert sent.count(node.address) <= 3  # what "came" from itself is answered once, and the answer by nobody


DOWN_AND_UP = """
    import subprocess, sys, time
    import rdt

    def link(state):
        subprocess.run(["ip", "link", "set", "lo", state], check=True)

    link("up")
    with rdt.open("127.0.0.1", 0) as here, rdt.open("127.0.0.1", 0) as there:
        near = here.connect(there.address, timeout=5)
        far = there.accept(timeout=5)
        near.send(b"before")
        assert far.receive(timeout=5) == b"before"
        link("down")
        near.send(b"x" * 3_000_000)
        far.send(b"y" * 3_000_000)
        try:
            here.connect(("127.0.0.1", 9), timeout=0.3)
            print("connected to nobody")
        except rdt.RdtError as error:
            print(error)
        time.sleep(0.3)
        link("up")
        began = time.monotonic()
        assert far.receive(timeout=30) == b"x" * 3_000_000
        assert near.receive(timeout=30) == b"y" * 3_000_000
        print("recovered in %.1f s" % (time.monotonic() - began))
        here.connect(there.address, timeout=5).send(b"new")
        assert there.accept(timeout=5).receive(timeout=5) == b"new"
        assert here._network.is_alive() and there._network.is_alive()
"""
NO_NETWORK = """
    import rdt
    try:
        with rdt.open("127.0.0.1", 0) as here:
            here.connect(("127.0.0.1", 9), timeout=0.3)
    except rdt.RdtError as error:
        print("said:", error)
    from sockets import interfaces
    print(interfaces.interfaces(), interfaces.address_towards("198.51.100.1"))
"""


def in_own_network(script):
    """Run a script where there is no network but its own loopback."""
    if not is_root() or not shutil.which("unshare") or not shutil.which("ip"):
        pytest.skip("needs root, unshare and ip")
    if subprocess.run(["unshare", "-n", "true"], capture_output=True).returncode:
        pytest.skip("no network namespaces here")
    command = ["unshare", "-n", sys.executable, "-c", textwrap.dedent(script)]
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    return done.stdout


def test_d13_the_interface_goes_down_and_comes_back():
    assert "recovered in" in in_own_network(DOWN_AND_UP)


def test_d13_without_any_network_it_says_so():
    assert "said: cannot connect to 127.0.0.1:9: timed out" in in_own_network(NO_NETWORK)


# ---- a slow disk: H05 ---------------------------------------------------------------------------------------------


class SlowDisk:
    """Holds each access back for five seconds of the clock; the test lets the time pass."""

    def __init__(self, clock, monkeypatch, kind, verb):
        self.clock, self.accesses = clock, 0
        self.is_over = False
        real = getattr(kind, verb)

        def held(writer, *args):
            self.accesses += 1
            until = self.clock() + 5.0
            while self.clock() < until and not self.is_over:
                time.sleep(0.001)
            return real(writer, *args)

        monkeypatch.setattr(kind, verb, held)


@pytest.mark.parametrize(
    ("side", "kind", "verb"),
    [("receiver", SequentialWriter, "write"), ("sender", SequentialReader, "read")],
)
def test_h05_a_disk_that_takes_five_seconds_holds_no_keep_alive_up(clock, monkeypatch, tmp_path, side, kind, verb):
    """send_file and accept_file: both ends go on answering, messages pass, and the file is right in the end."""
    disk = SlowDisk(clock, monkeypatch, kind, verb)
    here, there = clock.open(), clock.open()
    near, far = here.connect(there.address, timeout=WAIT), there.accept(timeout=WAIT)
    chat, heard = here.connect(there.address, timeout=WAIT), there.accept(timeout=WAIT)
    spoke = {here: [clock()], there: [clock()]}
    for transport in (here, there):
        datagrams, times = transport._network.datagrams, spoke[transport]
        send = datagrams.send
        datagrams.send = lambda batch, now, send=send, times=times: (times.append(now), send(batch, now))[1]
    content = os.urandom(9 * MIB)
    (tmp_path / "f.bin").write_bytes(content)
    receipts = []
    threads = [
        threading.Thread(target=lambda: receipts.append(far.accept_file(str(tmp_path / "inbox"))), daemon=True),
        threading.Thread(target=lambda: receipts.append(near.send_file(str(tmp_path / "f.bin"))), daemon=True),
    ]
    for thread in threads:
        thread.start()
    for number in range(30):
        clock.forward(2.0)
        chat.send(b"chat %d" % number)
        assert heard.receive(timeout=WAIT) == b"chat %d" % number
    disk.is_over = True
    for thread in threads:
        thread.join(WAIT)
    assert len(receipts) == 2 and receipts[0].sha256 == receipts[1].sha256
    assert (tmp_path / "inbox" / "f.bin").read_bytes() == content
    assert disk.accesses >= 9
    for times in spoke.values():
        assert max(after - before for before, after in zip(times, times[1:])) < KEEP_ALIVE_INTERVAL + 1


def test_h05_a_node_with_such_a_disk_stays_in_its_network_and_chats(tmp_path):
    """The roles' disk jobs: five seconds each, with a download running on the slow disk and an upload from it."""
    lab = Lab(tmp_path, packets=True)
    try:
        ana, cy = lab.node("ana", shared={"a.bin": content(MIB)}), lab.node("cy")
        bo = lab.node("bo", shared={"b.txt": b"slow" * 100})
        bo.disk_delay = 5.0
        bo.do("fetch_name", "a.bin", lab.world.now, lambda answer: None)
        cy.do("fetch_name", "b.txt", lab.world.now, lambda answer: None)
        for number in range(60):
            lab.run(1.0)
            for speaker, hearer in ((bo, ana), (ana, bo)):
                speaker.do("say", "line %d" % number, lab.world.now)
                heard = len(hearer.told(ChatReceived))
                assert lab.world.run_until(
                    lambda hearer=hearer, heard=heard: len(hearer.told(ChatReceived)) > heard, lab.world.now + 0.5
                )
            assert len(ana.peer.members(lab.world.now)) == 3
        lab.run(120)
        assert cy.told(DownloadDone) and bo.told(DownloadDone)
        assert bo.read("a.bin") == content(MIB)
        assert all(node.supernode_label() == "ana" for node in (ana, bo, cy))
    finally:
        lab.close()


def test_a_wait_whose_time_is_over_ends():
    """Up to Python 3.10, SimpleQueue.get(timeout), once used here, may wait for ever if its time is up on the way."""
    waiting, ended = Waiting(), threading.Event()

    def wait_often():
        for number in range(amount(60_000, 15_000)):
            waiting.put(number)
            assert waiting.take() == number
            with pytest.raises(queue.Empty):
                waiting.take(0 if number % 20 else 1e-6)
        ended.set()

    threading.Thread(target=wait_often, daemon=True).start()
    assert ended.wait(WAIT)
