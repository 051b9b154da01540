"""Attacks on a network with a key, by those who have it not, by those on the cable, and by members who lie.

What is asked is always the same: nothing but loss. K02 to K08 are rows of `THREATS.md`.
"""

import contextlib
import hashlib
import hmac
import logging
import random
import ssl
import threading

import pytest

import rdt
from node_tests.stage.amounts import amount
from node_tests.stage.keys import member, members
from node_tests.stage.simulator import Pair, flip_bit
from protocol.transport import packets as wire
from protocol.transport import trace, veil
from protocol.transport.connection import State
from protocol.transport.flight import Batch
from protocol.transport.frames import FRAME_HEADER, GOODBYE
from protocol.transport.keyed import HINTS_PER_SECOND, KeyedConnection
from protocol.transport.packets import PacketType
from protocol.transport.sealing import FRONT, LARGE_SIZE_LEAST, Meeting, SealKey, connection_keys, hello_key
from protocol.transport.veil import HANDSHAKE_SIZE_MAX, VEIL_TIMEOUT, Veil

A, B = Pair.A, Pair.B


def keyed(seed=1, **conditions):
    return Pair(seed, credentials=members(), **conditions)


def apart(at_a, at_b, **how):
    """A pair of which each side has its own credentials, or none."""
    return Pair(credentials=lambda address: at_a if address == A else at_b, **how)


def deliver(driver, source, datagram):
    driver.endpoint.receive(memoryview(datagram), len(datagram), source, driver.world.now)


# ---- the way it is meant to be


def test_two_members_meet_and_each_knows_the_others_certificate():
    pair = keyed()
    assert pair.connected() and pair.world.run_until(lambda: pair.there.remote_fingerprint, 1.0)
    assert pair.there.remote_fingerprint == member(1).fingerprint
    assert pair.back.remote_fingerprint == member(0).fingerprint
    pair.transfer(1_000_000, 30)
    pair.finish()
    assert {event.is_clean for event in pair.lost.values()} == {True}


def test_what_was_said_before_the_other_side_was_admitted_arrives_in_order_behind_it():
    pair = keyed()
    pair.there.send_frame(0, b"first")
    pair.there.send_frame(0, b"sec", b"ond")
    assert pair.there.backlog > 0 and pair.connected()
    pair.there.send_frame(0, b"third" * 5000)
    pair.finish()
    assert pair.received["b"] == [b"first", b"second", b"third" * 5000]


def test_the_reason_for_the_end_is_told_and_is_not_to_be_read_outside():
    said = []
    pair = keyed()
    pair.world.tap = lambda source, target, datagram: said.append(bytes(datagram))
    assert pair.connected()
    pair.there.shut_down("zenobia is gone")
    pair.a.pump()
    assert pair.world.run_until(lambda: len(pair.lost) == 2, 5)
    assert pair.lost["b"].reason == "zenobia is gone" and pair.lost["b"].is_clean
    assert not any(b"zenobia" in datagram for datagram in said)


@pytest.mark.parametrize("how", [{"loss": 0.1}, {"duplicate": 0.3, "reorder": 0.3}, {"mtu": 1300}, {"latency": 0.2}])
def test_bad_paths_make_it_slower_and_nothing_else(how):
    pair = keyed(5, **how)
    assert pair.connected(20)
    pair.transfer(300_000, 120)
    pair.finish()


def test_the_sizes_that_are_probed_leave_room_for_the_tag():
    sizes = set()
    pair = keyed(mtu=1500)
    pair.world.tap = lambda source, target, datagram: sizes.add(len(datagram))
    assert pair.connected()
    pair.transfer(500_000, 60)
    assert max(sizes) <= 9000 - 28 and pair.there.datagram_size == 1472 - FRONT and 1472 in sizes


def test_a_connection_goes_on_where_its_other_end_has_moved_to():
    pair = keyed(4)
    assert pair.connected()
    pair.transfer(50_000, 20)
    pair.a.move(("10.0.0.9", 1000), told_after=0.5)
    pair.transfer(50_000, 30)
    assert pair.back.address == ("10.0.0.9", 1000)
    pair.finish()


@pytest.mark.parametrize("limit", [{"COVERED_SIZE_MAX": 300_000}, {"RECORDS_MAX": 40}])
def test_a_connection_that_has_carried_as_much_as_its_keys_are_good_for_ends_in_order(limit, monkeypatch):
    for name, value in limit.items():
        monkeypatch.setattr(veil, name, value)
    pair = keyed()
    assert pair.connected() and pair.world.run_until(lambda: pair.there.remote_fingerprint, 5)
    taken = 0
    while pair.there.send_frame(0, bytes(10_000)):
        taken += 1
    pair.a.pump()
    assert pair.world.run_until(lambda: len(pair.lost) == 2, pair.world.now + 30)
    assert 15 < taken < 45 and len(pair.received["b"]) == taken
    assert pair.lost["b"].is_clean and pair.lost["b"].reason == veil.WORN_OUT


def test_one_who_goes_on_beyond_that_is_cut_off(monkeypatch):
    pair = keyed()
    assert pair.connected()
    monkeypatch.setattr(veil, "RECORDS_MAX", 10)
    monkeypatch.setattr(Veil, "is_worn_out", False)
    for _ in range(30):
        pair.there.send_frame(0, bytes(10_000))
    pair.a.pump()
    assert pair.world.run_until(lambda: "b" in pair.lost, pair.world.now + 5)
    assert pair.lost["b"].reason == "sends more than one key is good for"


# ---- K02: another key, none, or one where none is wanted


def test_k02_with_a_wrong_key_nobody_joins_and_nobody_answers():
    pair = apart(member(0), member(0, key=2))
    assert not pair.connected(8) and pair.lost["a"].reason == "timed out"
    assert pair.b.sent == 0 and not pair.b.endpoint.connections and pair.b.endpoint.wrong_seals > 3


def test_k02_who_has_no_key_is_told_that_there_is_one_and_nothing_else():
    said = []
    pair = apart(None, member(0))
    pair.world.tap = lambda source, target, datagram: said.append((source, len(datagram), datagram[5]))
    assert not pair.connected(2) and pair.lost["a"].reason == "this network wants a key"
    assert [each for each in said if each[0] == B] == [(B, wire.KEYED.size, PacketType.KEYED)]
    assert wire.KEYED.size < wire.INIT_SIZE and not pair.b.endpoint.connections


def test_k02_who_has_a_key_says_nothing_that_an_open_node_understands():
    pair = apart(member(0), None)
    assert not pair.connected(8) and pair.b.sent == 0 and not pair.b.endpoint.connections
    assert all("malformed" in cause for cause in pair.b.endpoint.stats)


def test_k02_the_hint_comes_ten_times_a_second_at_most_and_to_well_formed_questions_only():
    pair = apart(member(0), None)
    init = bytes(wire.encode_init(wire.InitPacket(bytes(8), bytes(16), 1, 1000, bytes(16), wire.NO_COOKIE)))
    query, short = bytes(wire.encode_lone(bytes(200))), bytes(wire.encode_lone(bytes(20)))
    before = pair.a.sent
    for number in range(500):
        deliver(pair.a, ("10.0.7.%d" % (number % 200), 7), (init, query)[number % 2])
        deliver(pair.a, ("10.0.8.1", 7), (short, init[:-1], flip_bit(init, random.Random(number)))[number % 3])
    pair.a.pump()
    assert pair.a.sent - before <= HINTS_PER_SECOND + 1
    assert [each.is_client for each in pair.a.endpoint.connections] == [True]


def test_k02_a_hint_that_repeats_another_handshake_ends_none():
    pair = apart(None, None, latency=1.0)
    other = wire.encode_init(wire.InitPacket(pair.there.local_id, bytes(16), 1, 1000, bytes(16), wire.NO_COOKIE))
    deliver(pair.a, B, bytes(wire.encode_keyed(memoryview(other))))
    assert pair.there.state is State.CONNECTING


# ---- K03: bits flipped on the way


class Flipping:
    """Delivers altered copies of every datagram just before the true one, and counts them."""

    def __init__(self, pair, seed):
        self.pair, self.rng, self.count = pair, random.Random(seed), 0
        pair.world.tap = self.hear

    def places(self, size):
        """Of bits: one in each byte of what is short, and some of what is long."""
        if size <= 300:
            return [8 * at + self.rng.randrange(8) for at in range(size)]
        return [self.rng.randrange(8 * size) for _ in range(amount(2000, 60))] + list(range(8 * 70))

    def hear(self, source, target, datagram):
        driver = self.pair.a if target == A else self.pair.b
        for place in self.places(len(datagram)):
            damaged = bytearray(datagram)
            damaged[place // 8] ^= 1 << place % 8
            deliver(driver, source, damaged)
            self.count += 1


def test_k03_a_bit_that_is_flipped_anywhere_in_any_datagram_is_a_datagram_lost():
    pair = keyed(3)
    flipping = Flipping(pair, 4)
    assert pair.connected()
    pair.transfer(30_000, 30)
    pair.finish()
    dropped = sum(sum(driver.endpoint.stats.values()) for driver in (pair.a, pair.b))
    assert flipping.count > 3000 and dropped == flipping.count
    assert {event.is_clean for event in pair.lost.values()} == {True}


def test_k03_one_datagram_in_a_hundred_is_flipped_and_the_transfer_is_right():
    pair = keyed(6, corrupt=0.01)
    assert pair.connected()
    pair.transfer(2_000_000, 120)
    pair.finish()
    assert pair.b.endpoint.wrong_seals > 5


class Merging:
    """Delivers each batch as one read of a socket gives it, with bits flipped in one datagram of every third."""

    def __init__(self, pair, flips):
        self.pair, self.flips, self.rng = pair, flips, random.Random(3)
        self.largest = self.batches = self.flipped = 0
        pair.a._send = self.send

    def send(self, batch):
        buffer = bytearray(b"".join(bytes(part) for part in batch.buffers))
        self.batches, self.largest = self.batches + 1, max(self.largest, batch.count)
        if self.flips and not self.batches % 3:
            place = self.rng.randrange(8 * len(buffer))
            buffer[place // 8] ^= 1 << place % 8
            self.flipped += 1
        self.pair.world.after(0.0005, lambda: self.arrive(buffer, batch.segment_size))

    def arrive(self, buffer, segment_size):
        self.pair.b.endpoint.receive(memoryview(buffer), segment_size, A, self.pair.world.now)
        self.pair.b.pump()


@pytest.mark.parametrize("flips", [False, True])
def test_k03_datagrams_that_the_kernel_merged_are_checked_each(flips):
    pair = keyed(4, latency=0.0005, rate=1e9)
    merging = Merging(pair, flips)
    assert pair.connected()
    pair.transfer(2_000_000, 60)
    assert merging.largest > 10 and bool(merging.flipped) == flips
    assert sum(pair.b.endpoint.stats.values()) - pair.b.endpoint.stats["dropped: duplicate"] == merging.flipped


def test_the_seal_of_what_the_kernel_merged_is_checked_once(monkeypatch):
    """Also where two batches meet, or a datagram is in none: with large ones that doubled the cost."""
    checked, is_good, are_good = [], SealKey.is_good, SealKey.are_good

    def alone(key, sealed):
        checked.append(len(sealed))
        return is_good(key, sealed)

    def together(key, tags, covered):
        checked.extend(len(tag) + len(each) for tag, each in zip(tags, covered))
        return are_good(key, tags, covered)

    pair = keyed()
    assert pair.connected()
    monkeypatch.setattr(SealKey, "is_good", alone)
    monkeypatch.setattr(SealKey, "are_good", together)
    buffer = merged(pair.there, pair.there.remote_id)
    pair.b.endpoint.receive(buffer, len(buffer) // 2, A, pair.world.now)
    assert sum(checked) == len(buffer) and not pair.b.endpoint.wrong_seals


def keyed_twice():
    """A pair, and a second connection between the same two addresses."""
    pair = keyed()
    assert pair.connected()
    other = pair.a.endpoint.connect(B, pair.world.now)
    pair.a.pump()
    assert pair.world.run_until(lambda: other.remote_fingerprint, 5)
    return pair, other


@pytest.mark.parametrize("claims", ["another connection", "to be of none"])
def test_k08_what_a_member_merges_with_its_own_is_not_taken_for_anothers(claims):
    pair, other = keyed_twice()
    there = pair.there
    buffer = merged(there, other.remote_id if claims == "another connection" else None)
    before = pair.b.endpoint.wrong_seals
    pair.b.endpoint.receive(buffer, len(buffer) // 2, A, pair.world.now)
    assert pair.b.endpoint.wrong_seals == before + 1


def test_k08_a_run_that_a_member_merges_behind_its_own_packet_is_not_taken_for_anothers(monkeypatch):
    pair, other = keyed_twice()
    there = pair.there
    taken, before = [], pair.b.endpoint.wrong_seals
    monkeypatch.setattr(KeyedConnection, "on_run", lambda connection, run, *rest: taken.append(run.head.connection_id))
    buffer = b"".join(sealed_bulk(there, there, 1) + sealed_bulk(there, other, 2))
    pair.b.endpoint.receive(memoryview(buffer), len(buffer) // 3, A, pair.world.now)
    assert set(taken) <= {there.remote_id} and pair.b.endpoint.wrong_seals == before + 2


def sealed_bulk(sealer, connection, count):
    """BULK packets of one connection under the seals of another, or of the same."""
    headers = wire.bulk_headers(wire.BatchHead(connection.remote_id, 1 << 40, 0, 0, 1000), 0, count, 1000)
    cut = [headers[at : at + wire.DATA_HEADER_SIZE] for at in range(0, len(headers), wire.DATA_HEADER_SIZE)]
    return [part for header in cut for part in sealer.seals.seal([header, bytes(1000)])]


def merged(connection, second_of):
    """A BULK packet of a connection and another packet, of the same size and under the same seals."""
    head = wire.BatchHead(connection.remote_id, 1 << 40, 0, 0, 1000)
    bulk = bytearray(wire.bulk_headers(head, 0, 1, 1000) + bytes(1000))
    second = wire.encode_ping(second_of, 1 << 40, 0, len(bulk)) if second_of else wire.encode_lone(bytes(1000))
    second += bytes(len(bulk) - len(second))
    wire.PREFIX.pack_into(second, 0, 0, wire.VERSION, second[5], len(second))
    return memoryview(b"".join(b"".join(connection.seals.seal([each])) for each in (bulk, second)))


# ---- K04: what was heard is said again


def recorded(pair):
    said = []
    pair.world.tap = lambda source, target, datagram: said.append((source, target, bytes(datagram)))
    assert pair.connected()
    pair.there.send_frame(0, b"delete everything")
    pair.a.pump()
    assert pair.world.run_until(lambda: pair.received["b"], 5)
    pair.transfer(20_000, 20)
    return said


def test_k04_a_session_that_is_said_again_makes_no_state_and_gets_no_answer():
    pair = keyed()
    said = recorded(pair)
    pair.finish()
    sent, received = pair.b.sent, list(pair.received["b"])
    for source, _, datagram in [each for each in said if each[1] == B]:
        deliver(pair.b, source, datagram)
        pair.b.pump()
        assert not pair.b.endpoint.connections
    pair.world.run(pair.world.now + 10)
    assert pair.b.sent == sent and pair.received["b"] == received


def test_k04_single_datagrams_said_again_later_and_sent_back_to_who_said_them_do_nothing():
    pair = keyed()
    said = recorded(pair)
    random.Random(1).shuffle(said)
    for source, target, datagram in said:
        deliver(pair.b if target == B else pair.a, source, datagram)
        deliver(pair.b if source == B else pair.a, target, datagram)  # reflected
    pair.world.run(pair.world.now + 1)
    assert pair.received["b"].count(b"delete everything") == 1
    assert len(pair.a.endpoint.connections) == len(pair.b.endpoint.connections) == 1
    pair.transfer(20_000, 20)
    pair.finish()


def test_k04_datagrams_of_one_connection_are_wrong_in_another():
    first, second = keyed(1), keyed(2)
    said = recorded(first)
    assert second.connected()
    opens, before = second.back.opens, second.b.endpoint.wrong_seals
    for _, _, datagram in [each for each in said if each[1] == B]:
        forged = bytearray(datagram)
        forged[FRONT + 8 : FRONT + 16] = second.back.local_id
        assert not opens.is_good(memoryview(forged))
        deliver(second.b, A, forged)
    assert second.b.endpoint.wrong_seals > before
    second.transfer(20_000, 20)


# ---- K06: members whose TLS is none


class Saying(KeyedConnection):
    """A member's connection that says something else where TLS belongs."""

    says = b""

    def _set_state(self, state):
        if state is State.ESTABLISHED:
            self.state = state
            self.sending.write(self.says)
        else:
            super()._set_state(state)


def old_hello():
    """The first bytes of a client that knows nothing newer than TLS 1.2."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(incoming, outgoing).do_handshake()
    return outgoing.read()


GARBAGE = random.Random(1).randbytes(1 << 20)
RECORDS = b"".join(b"\x16\x03\x03\x40\x00" + GARBAGE[at : at + 0x4000] for at in range(0, 1 << 20, 0x4000))
FALSE_STARTS = {
    "TLS 1.2": old_hello(),
    "garbage": GARBAGE,
    "garbage in records": RECORDS,
    "a record that is too long": b"\x16\x03\x03\xff\xff" + GARBAGE,
    "an alert": b"\x15\x03\x03\x00\x02\x02\x28" * 1000,
    "data before a handshake": b"\x17\x03\x03\x00\x20" + GARBAGE,
    "HTTP": b"GET / HTTP/1.1\r\n\r\n" * 1000,
    "nothing": b"",
    "half a hello": old_hello()[:40],
}


@pytest.mark.parametrize("what", FALSE_STARTS)
def test_k06_a_member_that_speaks_no_tls_1_3_is_closed_in_five_seconds_and_little_of_it_is_kept(what):
    pair = Pair(credentials=members(), latency=0.001)
    pair.a.endpoint.connection_class = type("Saying", (Saying,), {"says": FALSE_STARTS[what]})
    pair.there = pair.a.endpoint.connect(B, pair.world.now)
    pair.a.pump()
    kept, theirs = [0], []

    def look():
        theirs[:] = [each for each in pair.b.endpoint.connections if each.remote_id == pair.there.local_id]
        kept.extend(each.veil._fed for each in theirs)
        assert not any(each.veil.is_open for each in theirs)

    pair.world.run_until(look, pair.world.now + VEIL_TIMEOUT + 1.0)
    assert all(each.state is not State.ESTABLISHED for each in theirs)
    assert max(kept) <= HANDSHAKE_SIZE_MAX + (16 << 10) + 5


def test_k06_a_byte_a_second_is_not_waited_for():
    pair = Pair(credentials=members(), latency=0.001)
    pair.a.endpoint.connection_class = Saying
    pair.there = pair.a.endpoint.connect(B, pair.world.now)
    for second in range(8):
        pair.world.at(second + 1.0, lambda at=second: pair.there.sending.write(old_hello()[at : at + 1]))
        pair.world.at(second + 1.0, lambda: pair.a.endpoint.touch(pair.there))
        pair.world.at(second + 1.0, pair.a.pump)
    pair.world.run(VEIL_TIMEOUT + 0.5)
    there = [each for each in pair.b.endpoint.connections if each.remote_id == pair.there.local_id]
    assert pair.there.state is not State.ESTABLISHED and not any(each.veil.is_open for each in there)


@pytest.mark.parametrize("is_client", [True, False])
def test_k06_a_certificate_of_another_key_is_refused_by_either_side(is_client):
    """Somebody who got at the key of the seals, and at no more, is no member."""
    half = member(0)._replace(seal_key=member(0, key=2).seal_key)
    pair = apart(half, member(1, key=2)) if is_client else apart(member(1, key=2), half)
    assert not pair.connected(8) and pair.there.remote_fingerprint is None
    assert not any(each.veil.is_open for driver in (pair.a, pair.b) for each in driver.endpoint.connections)


def test_a_handshake_that_the_two_sides_saw_differently_is_no_connection():
    """A member between two others can change what is said before TLS, and make seals for it; not what TLS binds."""
    pair = keyed()
    meet = pair.there.veil.meet
    pair.there.veil.meet = lambda meeting: meet(meeting[:-1] + bytes([meeting[-1] ^ 1]))
    assert not pair.connected(8)
    assert "saw another handshake" in " ".join(event.reason for event in pair.lost.values())


# ---- K08: members who make valid seals for anything


def sealed_anew(datagram, key):
    return b"".join(bytes(part) for part in key.seal([datagram[FRONT:]]))


def mutated(rng, datagram):
    """A datagram whose bytes behind the tag are changed, cut, or made longer, with a length that is true or not."""
    opened = bytearray(datagram[FRONT:])
    for _ in range(rng.randrange(1, 5)):
        opened[rng.randrange(4, len(opened))] = rng.choice((0, 1, 127, 128, 255, rng.randrange(256)))
    if rng.random() < 0.3:
        del opened[rng.randrange(8, len(opened) + 1) :]
    elif rng.random() < 0.2:
        opened += rng.randbytes(rng.randrange(40))
    if rng.random() < 0.8:
        opened[6:8] = len(opened).to_bytes(2, "big")
    return bytes(FRONT) + bytes(opened)


def test_k08_a_member_with_true_seals_on_false_packets_harms_no_connection_but_its_own():
    rng = random.Random(8)
    pair = keyed(8)
    said = [each for each in recorded(pair) if each[1] == B]
    other = pair.a.endpoint.connect(B, pair.world.now)
    pair.a.pump()
    assert pair.world.run_until(lambda: other.veil.is_open, 5)
    hello = hello_key(member(0).seal_key)
    for _ in range(amount(1_000_000, 2000)):
        _, _, datagram = rng.choice(said)
        key = pair.there.seals if rng.random() < 0.7 else hello
        source = rng.choice((A, ("10.0.0.9", 9)))
        deliver(pair.b, source, sealed_anew(mutated(rng, datagram), key))
        pair.b.pump()
        pair.world.run(pair.world.now + 0.0005)
    assert other.state is State.ESTABLISHED and other.veil.is_open
    assert len(pair.b.endpoint.connections) < 10
    other.send_frame(0, b"still here")
    pair.a.pump()
    assert pair.world.run_until(lambda: b"still here" in pair.received["b"], pair.world.now + 5)


def test_k08_a_member_that_sends_false_records_loses_its_connection_and_no_other():
    pair = keyed()
    assert pair.connected()
    pair.there.sending.write(b"\x17\x03\x03\x00\x20" + bytes(32))
    pair.a.endpoint.touch(pair.there)
    pair.a.pump()
    assert pair.world.run_until(lambda: "b" in pair.lost, 5)
    assert "false record" in pair.lost["b"].reason and not pair.lost["b"].is_clean


def test_k08_frames_that_are_the_veils_own_are_nobodys_message():
    pair = keyed()
    assert pair.connected()
    pair.there.send_frame(GOODBYE, b"\xff\xfe" * 1000)
    pair.transfer(10_000, 10)
    pair.finish()
    assert pair.back.receiving.waiting == 0 and FRAME_HEADER.size == 5


def test_noise_of_strangers_is_not_answered_and_makes_no_state():
    rng = random.Random(9)
    pair = keyed(9)
    said = recorded(pair)
    sent = pair.b.sent
    for number in range(amount(200_000, 2000)):
        _, _, datagram = rng.choice(said)
        noise = rng.choice((rng.randbytes(rng.randrange(1500)), flip_bit(datagram, rng), datagram[: rng.randrange(40)]))
        deliver(pair.b, ("10.1.%d.%d" % (number >> 8 & 255, number & 255), 5), noise)
    pair.b.pump()
    assert pair.b.sent == sent and len(pair.b.endpoint.connections) == 1
    pair.transfer(10_000, 10)


def test_the_log_tells_of_wrong_seals_in_few_lines(caplog):
    caplog.set_level(logging.INFO)
    pair = keyed()
    assert pair.connected()
    true = pair.there.seals.seal([wire.encode_ping(pair.there.remote_id, 1 << 40, 0)])
    false = bytearray(b"".join(true))
    false[-1] ^= 1
    for _ in range(250):
        deliver(pair.b, A, false)
    told = [record.getMessage() for record in caplog.records if "wrong seal" in record.getMessage()]
    why = "the last from 10.0.0.1:1000 (another key, an older program, or changed on the way)"
    assert told == [f"dropped for a wrong seal so far: {count}, {why}" for count in (1, 10, 100)]


# ---- the keys themselves


def test_no_two_purposes_share_a_key_and_every_part_of_a_meeting_counts():
    secret = bytes(range(32))
    meeting = Meeting(b"c" * 8, b"s" * 8, b"n" * 16, b"t" * 16)
    others = [meeting._replace(**{field: bytes(len(getattr(meeting, field)))}) for field in meeting._fields]
    keys = [hello_key(secret), *(key for each in (meeting, *others) for key in connection_keys(secret, each))]
    tags = {bytes(key.seal([b"\0\0\0\0" + b"same bytes"])[0][:16]) for key in keys}
    assert len(tags) == len(keys) == 11


def test_a_tag_is_what_it_always_was():
    """So that a change of the sealing is seen: it needs another version in the purposes."""
    sealed = SealKey(bytes(range(32)), b"hello 1").seal([b"\0\0\0\0behind", b" the tag"])
    assert sealed[0][:16].hex() == "3afb477e6409a605007f1af302d1603e"
    assert large_tag(bytes(60_000)).hex() == "e22d9185d9005526ca165b9c36f50b90"


def large_tag(covered):
    """Of what is large: by RFC 2104, in one piece."""
    key = hashlib.blake2b(b"hello 1", key=bytes(range(32)), digest_size=32, person=b"large 1").digest()
    return hmac.digest(key, covered, "sha256")[:16]


@pytest.mark.parametrize("payload_size", [0, LARGE_SIZE_LEAST - 7, LARGE_SIZE_LEAST - 6, 60_000])
def test_the_length_alone_decides_how_a_datagram_is_sealed(payload_size):
    key, payload = SealKey(bytes(range(32)), b"hello 1"), random.Random(1).randbytes(payload_size)
    sealed = b"".join(key.seal([b"\0\0\0\0header", payload]))
    covered = b"header" + payload
    small = hashlib.blake2b(covered, key=bytes(range(32)), digest_size=16, person=b"hello 1").digest()
    right, wrong = (large_tag(covered), small) if len(covered) >= LARGE_SIZE_LEAST else (small, large_tag(covered))
    assert sealed == right + covered and key.is_good(memoryview(sealed))
    assert key.are_good([right], [covered]) and not key.are_good([wrong], [covered])
    assert not key.is_good(memoryview(wrong + covered))


def test_the_last_of_a_batch_is_sealed_by_its_own_length():
    key = SealKey(bytes(range(32)), b"hello 1")
    buffers = [b"\0\0\0\0header", bytes(20_000)] * 2 + [b"\0\0\0\0header", b"the rest"]
    batch = key.seal_batch(Batch(B, 20_010, 3, 2, buffers))
    datagrams = [b"".join(batch.buffers[at : at + 2]) for at in range(0, 6, 2)]
    assert [len(each) for each in datagrams] == [20_022, 20_022, 30] and batch.segment_size == 20_022
    assert datagrams == [b"".join(key.seal(buffers[at : at + 2])) for at in range(0, 6, 2)]
    assert key.are_good([each[:16] for each in datagrams], [each[16:] for each in datagrams])


def test_who_seals_large_datagrams_otherwise_is_spoken_to_in_small_ones(monkeypatch):
    """As every program before HMAC-SHA-256 did: the probes of the path's MTU are lost, and nothing else is."""
    pair = keyed(mtu=65_535)
    monkeypatch.setattr(KeyedConnection, "_meet", meet_as_before(pair.a.endpoint))
    assert used_sizes(pair) == {1472 - FRONT}
    monkeypatch.undo()
    assert used_sizes(keyed(mtu=65_535)) == {8972 - FRONT}


def used_sizes(pair):
    """Of the datagrams of both ends, once they have sent each other something."""
    assert pair.connected()
    pair.transfer(500_000, 60)
    pair.finish()
    return {pair.there.datagram_size, pair.back.datagram_size}


def meet_as_before(earlier):
    """For connections of this endpoint: all is sealed by BLAKE2b, whatever its length."""
    meet = KeyedConnection._meet

    def met(connection, *words):
        meet(connection, *words)
        if connection.endpoint is earlier:
            for key in (connection.seals, connection.opens):
                key._large = key._small

    return met


# ---- beside it: traces, real sockets


def test_a_trace_tells_the_packets_inside_the_seals_and_what_was_not_sealed():
    said = []
    pair = Pair(7, credentials=members(), trace=said.append, corrupt=0.02)
    assert pair.connected()
    pair.transfer(200_000, 30)
    pair.finish()
    records = [trace.decode_record(line + "\n") for line in "".join(said).splitlines()]
    told = {(record.event, record.fields.get("type")) for record in records}
    kinds = ("INIT", "COOKIE", "INIT_ACK", "DATA", "BULK", "ACK", "CLOSE")
    assert told >= {(event, kind) for kind in kinds for event in ("sent", "received")}
    assert ("received", "malformed") in told and ("sent", "malformed") not in told
    assert max(int(record.fields["size"]) for record in records if record.event == "sent") in (1472, 8972)


def test_over_real_sockets_members_talk_and_strangers_do_not(tmp_path):
    content = random.Random(1).randbytes(3_000_000)
    (tmp_path / "given.bin").write_bytes(content)
    (tmp_path / "taken").mkdir()
    with contextlib.ExitStack() as stack:
        one, other = (stack.enter_context(rdt.open("127.0.0.1", 0, credentials=member(number))) for number in (0, 1))
        stranger = stack.enter_context(rdt.open("127.0.0.1", 0))
        there = other.connect(one.address)
        back = one.accept(10)
        there.send(b"x" * 200_000)
        assert back.receive(10) == b"x" * 200_000
        taking = threading.Thread(target=back.accept_file, args=(str(tmp_path / "taken"),), kwargs={"timeout": 60})
        taking.start()
        there.send_file(str(tmp_path / "given.bin"), timeout=60)
        taking.join()
        assert (tmp_path / "taken" / "given.bin").read_bytes() == content
        with pytest.raises(rdt.RdtError, match="this network wants a key"):
            stranger.connect(one.address)
