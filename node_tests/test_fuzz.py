"""Any bytes at any parser, any packet at a connection in any state: nothing comes out but what is declared.

Hypothesis shrinks what it finds; what once went wrong is kept as an `@example`. All of it is derandomized: the same
cases every time, on every machine.
"""

from __future__ import annotations

import contextlib
import random
import threading
import zlib
from typing import List, NamedTuple, Optional, Tuple

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import rdt
from node_tests.stage.amounts import amount
from node_tests.stage.forged import ack_of_pairs, arrive, frame, kind_of
from node_tests.stage.simulator import EndpointDriver, Pair, data_packet
from protocol import fields, messages
from protocol.casts import HOLES_TOLD_MAX, SLICE_SIZE, CastHeard, CastOver, CastPiece, CastPlan, CastReport
from protocol.exchange.cast import RECENT_MAX
from protocol.exchange.casting import Casting
from protocol.fields import WireError
from protocol.messages import CastComing, CastEnd, CastOffer, CastReady, CastTaken, CastWanted, Hole
from protocol.transport import casting
from protocol.transport import packets as wire
from protocol.transport.connection import ConnectionLost, State
from protocol.transport.endpoint import Endpoint
from protocol.transport.frames import StreamViolation
from protocol.transport.packets import PacketType
from protocol.transport.receiving import RECEIVE_WINDOW_INITIAL, ReceiveStream
from sockets.channel import Channel, Room, Untold
from sockets.files import Sending

QUIET = {"deadline": None, "derandomize": True, "suppress_health_check": list(HealthCheck)}
COUNTS = amount(40, 10), amount(100, 50), amount(500, 150)
few, some, many = (settings(max_examples=count, **QUIET) for count in COUNTS)

EDGES_64 = (0, 1, 2**31, 2**32 - 1, 2**32, 2**63 - 1, 2**63, 2**64 - 2, 2**64 - 1)
NUMBERS = st.one_of(st.sampled_from(EDGES_64), st.integers(0, 2**64 - 1))
NUMBERS_32 = st.one_of(st.sampled_from((0, 1, 300, 2**16, 2**31, 2**32 - 1)), st.integers(0, 2**32 - 1))
IDS, NONCES, COOKIES = (st.binary(min_size=size, max_size=size) for size in (8, 16, 20))

DECODERS = {
    PacketType.INIT: wire.decode_init,
    PacketType.COOKIE: wire.decode_cookie,
    PacketType.INIT_ACK: wire.decode_init_ack,
    PacketType.ACK: wire.decode_ack,
    PacketType.CLOSE: wire.decode_close,
    PacketType.FINAL: wire.decode_final,
    PacketType.RESET: wire.decode_reset,
    PacketType.LONE: wire.decode_lone,
    PacketType.REFUSED: wire.decode_refused,
    PacketType.PATH_CHALLENGE: wire.decode_path,
    PacketType.PATH_RESPONSE: wire.decode_path,
    PacketType.KEYED: wire.decode_keyed,
}
SAMPLES = {
    PacketType.INIT: wire.encode_init(wire.InitPacket(b"a" * 8, b"b" * 16, 5, 6, b"c" * 16, b"d" * 20)),
    PacketType.COOKIE: wire.encode_cookie(wire.CookiePacket(b"a" * 8, b"b" * 16, b"d" * 20)),
    PacketType.INIT_ACK: wire.encode_init_ack(wire.InitAckPacket(b"a" * 8, b"b" * 8, 7, 8, b"c" * 16)),
    PacketType.DATA: data_packet(b"a" * 8, 5, 0, frame(b"hello")),
    PacketType.ACK: wire.encode_ack(wire.AckPacket(b"a" * 8, 90, 7, 9, [(80, 90), (1, 70)])),
    PacketType.PING: wire.encode_ping(b"a" * 8, 5, 0),
    PacketType.CLOSE: wire.encode_close(wire.ClosePacket(b"a" * 8, 1, 9, "why\U0001f600")),
    PacketType.FINAL: wire.encode_final(wire.FinalPacket(b"a" * 8, 9)),
    PacketType.RESET: wire.encode_reset(wire.ResetPacket(b"a" * 8, b"c" * 16)),
    PacketType.PATH_CHALLENGE: wire.encode_path_challenge(wire.PathPacket(b"a" * 8, b"c" * 16)),
    PacketType.PATH_RESPONSE: wire.encode_path_response(wire.PathPacket(b"a" * 8, b"c" * 16)),
    PacketType.LONE: wire.encode_lone(b"who is there?"),
    PacketType.KEYED: wire.encode_keyed(memoryview(b"who is there? nobody that has a key")),
    PacketType.REFUSED: wire.encode_refused(wire.RefusedPacket(b"a" * 8, b"c" * 16, "no")),
    PacketType.BULK: wire.bulk_headers(wire.BatchHead(b"a" * 8, 5, 0, 70, 9), 2, 1, 0),
}


def parsed(datagram):
    """Both steps of a packet's parsing; None if it is malformed. Any other exception is the test's end."""
    view = memoryview(bytes(datagram))
    try:
        kind = wire.decode_prefix(view)
        return DECODERS[kind](view) if kind in DECODERS else kind
    except WireError:
        return None


def sealed(datagram):
    """With a length and a checksum that are right, so that the damage is not caught by them alone."""
    datagram = bytearray(datagram)
    return wire.seal(datagram) if wire.PREFIX_SIZE <= len(datagram) <= 0xFFFF else datagram


def edges_of(size, *more):
    """0, 1, max - 1 and max of a field of that many bytes, and what else is given, where it fits."""
    top = 256**size - 1
    return sorted({value for value in (0, 1, top // 2, top - 1, top, *more) if 0 <= value <= top})


# ---- packets ------------------------------------------------------------------------------------------------------


@many
@given(st.binary(max_size=200))
@example(b"")
@example(bytes(wire.PREFIX_SIZE))
def test_any_bytes_are_a_packet_or_malformed(data):
    parsed(data)
    for kind in range(16):
        if len(data) >= wire.PREFIX_SIZE:
            parsed(sealed(data[:4] + bytes([wire.VERSION, kind]) + data[6:]))
        for decode in DECODERS.values():
            with contextlib.suppress(WireError):
                decode(memoryview(data))


@pytest.mark.parametrize("kind", list(PacketType), ids=lambda kind: kind.name)
def test_every_packet_cut_at_each_byte_and_with_each_byte_changed(kind):
    datagram = SAMPLES[kind]
    assert parsed(datagram) is not None
    for size in range(len(datagram)):
        assert parsed(datagram[:size]) is None  # the length in the prefix is another
        parsed(sealed(datagram[:size]))
    for index in range(len(datagram)):
        for value in {0, 1, 0x7F, 0x80, 0xFE, 0xFF, datagram[index] ^ 0xFF, datagram[index] ^ 1} - {datagram[index]}:
            damaged = bytearray(datagram)
            damaged[index] = value
            assert parsed(damaged) is None  # the checksum sees it
            parsed(sealed(damaged))


@pytest.mark.parametrize("kind", list(PacketType), ids=lambda kind: kind.name)
def test_the_length_of_a_packet_is_its_length_and_nothing_else(kind):
    datagram = SAMPLES[kind]
    true = len(datagram)
    for said in edges_of(2, true - 1, true + 1, wire.PREFIX_SIZE, wire.PREFIX_SIZE - 1, wire.DATAGRAM_SIZE_MAX + 1):
        fields = list(wire.PREFIX.unpack_from(datagram))
        copy = bytearray(datagram)
        wire.PREFIX.pack_into(copy, 0, *fields[:3], said)
        is_bulk = kind is PacketType.BULK
        checksum = wire._bulk_checksum(memoryview(copy)) if is_bulk else zlib.crc32(copy[4:])
        wire.CHECKSUM.pack_into(copy, 0, checksum)
        assert (parsed(copy) is not None) == (said == true)


@pytest.mark.parametrize("there", [0, 1, 2, wire.ACK_RANGES_MAX])
def test_the_count_of_ranges_is_the_count_of_ranges(there):
    honest = ack_of_pairs(b"a" * 8, 10**6, [(index > 0, 1) for index in range(there)])
    for said in edges_of(2, there - 1, there, there + 1, wire.ACK_RANGES_MAX - 1, wire.ACK_RANGES_MAX + 1):
        fields = list(wire.ACK_HEADER.unpack_from(honest))
        fields[-1] = said
        copy = bytearray(honest)
        wire.ACK_HEADER.pack_into(copy, 0, *fields)
        assert (parsed(sealed(copy)) is not None) == (said == there)
    too_many = ack_of_pairs(b"a" * 8, 10**6, [(1, 1)] * (wire.ACK_RANGES_MAX + 1))
    assert parsed(too_many) is None


PAIRS = st.tuples(st.sampled_from((0, 1, 2, 50, 2**31, 2**32 - 2, 2**32 - 1)), st.sampled_from((0, 1, 3, 2**32 - 1)))


@many
@given(NUMBERS, st.lists(PAIRS, max_size=8))
def test_ranges_that_are_decoded_are_in_order_whatever_was_said(largest, pairs):
    packet = parsed(ack_of_pairs(b"a" * 8, largest, pairs))
    if packet is not None:
        assert all(0 <= first <= last <= largest for first, last in packet.ranges)
        assert all(below[1] + 1 < above[0] for above, below in zip(packet.ranges, packet.ranges[1:]))


# ---- messages -----------------------------------------------------------------------------------------------------


def value_of(codec, rng):
    """Some value that the codec takes; lists and texts are never empty, so that there is a length to falsify."""
    if isinstance(codec, fields.Record):
        return codec.kind(*[value_of(field, rng) for field in codec.fields])
    if isinstance(codec, fields.Many):
        return tuple(value_of(codec.item, rng) for _ in range(1 + rng.randrange(2)))
    if isinstance(codec, fields.Number):
        return rng.choice([number for number in edges_of(codec.size, codec.most) if number <= codec.most])
    if isinstance(codec, fields.Flag):
        return rng.random() < 0.5
    if isinstance(codec, fields.Fixed):
        return rng.getrandbits(8 * codec.size).to_bytes(codec.size, "big")
    if isinstance(codec, fields.Text):
        return "a\u00e9\u6f22\U0001f600"[: rng.randrange(1, 5)]
    if isinstance(codec, fields.AddressField):
        return rng.choice([("10.1.2.3", 6020), ("2001:db8::7", 65_535)])
    return rng.getrandbits(80).to_bytes(10, "big")


def lengths_in(codec, value, at):
    """(offset, size of the field, most) of each length and count in an encoded value, and where the value ends."""
    if isinstance(codec, fields.Record):
        found = []
        for field, part in zip(codec.fields, value):
            inner, at = lengths_in(field, part, at)
            found += inner
        return found, at
    if isinstance(codec, fields.Many):
        found, at = [(at, 2, codec.most)], at + 2
        for part in value:
            inner, at = lengths_in(codec.item, part, at)
            found += inner
        return found, at
    here = {fields.Text: 2, fields.Blob: 4}.get(type(codec))
    return ([(at, here, codec.most)] if here else []), at + len(codec.encode(value))


def message_or_malformed(data):
    try:
        return messages.decode(data)
    except WireError:
        return None


KINDS = messages.TABLE.items()
by_kind = pytest.mark.parametrize(("tag", "kind"), KINDS, ids=[kind.__name__ for _, kind in KINDS])


@by_kind
def test_every_message_cut_at_each_byte_and_with_each_byte_changed(tag, kind):
    """C05. What is still a message is encoded to the same bytes: there are no two forms of one."""
    rng, codec = random.Random(tag), messages.record_of(kind)
    has_rest = any(isinstance(field, fields.Rest) for field in codec.fields)
    for _ in range(2):
        data = messages.encode(value_of(codec, rng))
        assert message_or_malformed(data + b"\x00") is None or has_rest
        for size in range(len(data)):
            assert message_or_malformed(data[:size]) is None or has_rest
        for index in range(len(data)):
            for value in {0, 1, 0x7F, 0x80, 0xFE, 0xFF, data[index] ^ 1}:
                damaged = data[:index] + bytes([value]) + data[index + 1 :]
                message = message_or_malformed(damaged)
                assert message is None or messages.encode(message) == damaged


@by_kind
def test_every_length_in_every_message_at_its_edges(tag, kind):
    """C05: 0, 1, most - 1, most, most + 1 and what the field can hold; a length that lies is never believed."""
    rng, codec = random.Random(tag), messages.record_of(kind)
    value = value_of(codec, rng)
    data = messages.encode(value)
    lengths, end = lengths_in(codec, value, 1)
    assert end == len(data)
    for at, size, most in lengths:
        true = int.from_bytes(data[at : at + size], "big")
        for said in edges_of(size, true - 1, true + 1, most - 1, most, most + 1):
            copy = data[:at] + said.to_bytes(size, "big") + data[at + size :]
            message = message_or_malformed(copy)
            assert said == true or message is None or messages.encode(message) == copy
            padded = message_or_malformed(copy + bytes(min(said, 1 << 20)))
            assert padded is None or said <= most


@many
@given(st.sampled_from([tag for tag, _ in KINDS]), st.binary(max_size=400))
def test_any_bytes_behind_any_tag_are_a_message_or_malformed(tag, data):
    message = message_or_malformed(bytes([tag]) + data)
    assert message is None or messages.encode(message) == bytes([tag]) + data


@some
@given(st.binary(max_size=60), st.sampled_from([
    fields.Number(8), fields.Flag(), fields.Fixed(5), fields.Blob(9), fields.Text(9), fields.Rest(9),
    fields.AddressField(), fields.Many(fields.Text(3), 4),
]))
def test_any_bytes_are_a_field_or_malformed(data, codec):
    reader = fields.Reader(data)
    try:
        value = codec.decode(reader)
    except WireError:
        return
    assert 0 <= reader.left() <= len(data)
    assert bytes(codec.encode(value)) == data[: reader.at]


# ---- the stream ---------------------------------------------------------------------------------------------------


@many
@given(st.lists(st.tuples(st.integers(0, 300), st.binary(min_size=1, max_size=60)), max_size=25))
def test_any_segments_give_what_a_plain_model_gives(segments):
    """First bytes win; frames come out exactly as they stand in the bytes without a gap from the start."""
    stream, model, frames = ReceiveStream(), {}, []
    for offset, data in segments:
        try:
            stream.on_data(offset, memoryview(data), frames)
        except StreamViolation:
            break
        for index, byte in enumerate(data):
            model.setdefault(offset + index, byte)
    whole = bytes(model[at] for at in range(len(model)) if all(below in model for below in range(at + 1)))
    assert stream.held_bytes() <= RECEIVE_WINDOW_INITIAL * 2
    for one in frames:
        expected = frame(bytes(one.body), one.kind)
        assert whole.startswith(expected)
        whole = whole[len(expected) :]


# ---- a live connection, in each state -----------------------------------------------------------------------------


STREAM = b"".join(frame(b"%05d" % number * 40) for number in range(2000))  # what the honest remote would send
BODIES = [b"%05d" % number * 40 for number in range(2000)]


def pair_in(state):
    """A pair whose end `a` is in that state; what comes from `b`'s address is the fuzz's from now on."""
    if state is State.CONNECTING:
        pair = Pair(seed=40)
        pair.b.filter = lambda datagram: None
        pair.world.run(0.1)
        return pair, pair.a, pair.there, Pair.B
    if state is State.HANDSHAKE:
        pair = Pair(seed=41)
        pair.a.filter = lambda datagram: datagram if kind_of(datagram) == PacketType.INIT else None
        assert pair.world.run_until(lambda: pair.b.endpoint.connections, 2)
        made = pair.b.endpoint.connections[0]
        assert made.state is State.HANDSHAKE
        pair.b.filter = lambda datagram: None
        return pair, pair.b, made, Pair.A
    pair = Pair(seed=42)
    assert pair.connected()
    pair.world.run(1)
    pair.b.filter = lambda datagram: None
    pair.send(50_000)
    pair.world.run(1.1)
    made = pair.there
    if state is State.CLOSING:
        made.fail(1, "enough", pair.world.now)
    elif state in (State.DRAINING, State.CLOSED):
        arrive(pair.a, wire.encode_close(wire.ClosePacket(made.local_id, 0, 0, "bye")), Pair.B)
    pair.a.pump()
    if state is State.CLOSED:
        pair.world.run(pair.world.now + 10)
    return pair, pair.a, made, Pair.B


class Shape(NamedTuple):
    """A packet to be: what its fields are like, seen from the connection that it comes to."""

    kind: int  # PacketType
    is_ours: int  # 0: some other id
    near: int  # the number lies so far from the next one, unless there is an edge
    edge: Optional[int]
    other: int  # credit, final size, first number
    floor: int
    place: int  # where stream bytes lie: 0 at the start, 1 at the end of the credit, else where the next are due
    offset: int  # from there
    size: int
    pairs: List[Tuple[int, int]]
    damage: Optional[Tuple[int, int, int]]  # place, new value, bytes cut off


SHAPES = st.builds(
    Shape,
    st.sampled_from([*PacketType, PacketType.DATA, PacketType.DATA, PacketType.DATA, PacketType.ACK, PacketType.PING]),
    st.integers(0, 7),
    st.integers(-5, 40),
    st.sampled_from((None, None, None, None, 2**20, *EDGES_64)),
    st.sampled_from((*EDGES_64, 5000, 2**20)),
    st.sampled_from((0, 1, 5, 2**31, 2**32 - 1)),
    st.integers(0, 9),
    st.one_of(st.just(0), st.integers(-100, 1000)),
    st.integers(0, 1400),
    st.one_of(
        st.lists(PAIRS, max_size=3),
        *[st.lists(st.tuples(st.integers(1, 4), st.integers(1, 9)), max_size=4)] * 3,
    ),
    st.one_of(
        st.none(),
        st.none(),
        st.none(),
        st.tuples(st.integers(0, 150), st.integers(0, 255), st.sampled_from((0, 0, 1, 8))),
    ),
)
DUE = Shape(PacketType.DATA, 1, 0, None, 0, 0, 9, 0, 1400, [], None)  # just what the stream waits for
REFUSAL = DUE._replace(kind=PacketType.REFUSED, is_ours=7)  # ours it is rarely: there shall be a middle


def bulk_packet(connection_id, number, offset, payload, floor):
    head = wire.BatchHead(connection_id, number, floor, offset, len(payload))
    return wire.bulk_headers(head, 0, 1, len(payload)) + payload


PAUSES = st.sampled_from((0.0, 0.0, 0.0, 0.001, 0.02, 0.5))


def built(shape, made):
    """Its ids mostly right, its numbers mostly near the truth, its stream bytes always those of STREAM."""
    ends_it = shape.kind in (PacketType.CLOSE, PacketType.RESET, PacketType.REFUSED)  # rarely: there shall be a middle
    own_id = made.local_id if shape.is_ours > 5 * ends_it else b"somebody"
    own = made.handshake.client_id, made.handshake.nonce
    client, nonce = own if own_id == made.local_id else (b"somebody", bytes(16))
    other = shape.other
    next_number = made.acknowledging.largest + 1 if shape.kind != PacketType.ACK else made.recovery.next_packet_number
    number = (next_number + shape.near) % 2**64 if shape.edge is None else shape.edge
    if shape.edge == 2**20:
        number = next_number + shape.near + 2**20
    base = {0: 0, 1: made.receiving.credit}.get(shape.place, made.receiving.next_offset)
    offset = max(0, base + shape.offset)
    payload = STREAM[offset : offset + shape.size]
    token = made.handshake.remote_token if shape.is_ours > 6 and made.handshake.remote_token else bytes(16)
    datagram = {
        PacketType.DATA: lambda: data_packet(own_id, number, offset, payload, shape.floor),
        PacketType.BULK: lambda: bulk_packet(own_id, number, offset, payload, shape.floor),
        PacketType.PING: lambda: wire.encode_ping(own_id, number, shape.floor, shape.size),
        PacketType.ACK: lambda: ack_of_pairs(own_id, number, shape.pairs, other),
        PacketType.CLOSE: lambda: wire.encode_close(wire.ClosePacket(own_id, shape.size % 256, other, "why")),
        PacketType.FINAL: lambda: wire.encode_final(wire.FinalPacket(own_id, other)),
        PacketType.RESET: lambda: wire.encode_reset(wire.ResetPacket(made.remote_id or bytes(8), token)),
        PacketType.PATH_CHALLENGE: lambda: wire.encode_path_challenge(wire.PathPacket(own_id, token)),
        PacketType.PATH_RESPONSE: lambda: wire.encode_path_response(wire.PathPacket(own_id, token)),
        PacketType.INIT: lambda: wire.encode_init(wire.InitPacket(client, nonce, number, other, bytes(16), bytes(20))),
        PacketType.COOKIE: lambda: wire.encode_cookie(wire.CookiePacket(client, nonce, b"c" * 20)),
        PacketType.INIT_ACK: lambda: wire.encode_init_ack(
            wire.InitAckPacket(client, b"theirids", number, other, bytes(16))
        ),
        PacketType.REFUSED: lambda: wire.encode_refused(wire.RefusedPacket(client, nonce, "no")),
        PacketType.LONE: lambda: wire.encode_lone(payload[:40]),
        PacketType.KEYED: lambda: wire.encode_keyed(memoryview(bytes(8) + nonce + client)),
    }[shape.kind]()
    if shape.damage is None or shape.kind in (PacketType.DATA, PacketType.BULK):  # a false byte would pass
        return bytes(datagram)
    at, value, cut = shape.damage
    datagram[at % len(datagram)] = value
    return bytes(sealed(datagram[: len(datagram) - cut]))


STATES = list(State)
ENDS = {  # in how many ways it came to an end, at least: else the fuzz only knocks at the door
    State.CONNECTING: 2, State.HANDSHAKE: 4, State.ESTABLISHED: 4, State.CLOSING: 1, State.DRAINING: 1, State.CLOSED: 1,
}  # fmt: skip


@pytest.mark.parametrize("state", STATES, ids=lambda state: state.value)
def test_any_packets_at_a_connection_in_each_state(state):
    """From the very address of the other end. No exception; bounded; only what stands in the stream is delivered."""

    reached = []

    @some
    @given(st.lists(st.tuples(SHAPES, PAUSES), min_size=6, max_size=40))
    @example([(DUE, 0.001)] * 10)
    @example([(REFUSAL, 0.001)] * 6)
    def check(packets):
        pair, driver, made, source = pair_in(state)
        side = "a" if driver is pair.a else "b"
        assert made.state is state and made.receiving.next_offset == 0
        for shape, pause in packets:
            arrive(driver, built(shape, made), source)
            if pause:
                pair.world.run(pair.world.now + pause)
        received = pair.received[side]
        assert received == BODIES[: len(received)]
        assert made.receiving.held_bytes() <= RECEIVE_WINDOW_INITIAL * 2
        assert made.receiving.next_offset <= made.receiving.credit
        assert len(driver.endpoint.connections) <= 2
        pair.world.run(pair.world.now + 200)
        assert made.state is State.CLOSED and made not in driver.endpoint.connections
        assert state is State.CLOSED or isinstance(pair.lost.get(side), ConnectionLost)
        assert driver.endpoint.intake.windows == 0 and driver.endpoint.intake.unread == 0
        reached.append((len(received), pair.lost[side].reason))

    check()
    assert len({reason for _, reason in reached}) >= ENDS[state], reached
    assert state is not State.ESTABLISHED or max(reached)[0] >= 3


@some
@given(st.lists(SHAPES, min_size=1, max_size=12))
def test_any_packets_of_a_stranger_leave_a_transfer_as_it_is(packets):
    """The same packets, ids and all, from another address, while bytes go there and acknowledgements back."""
    pair = Pair(seed=43)
    assert pair.connected()
    stranger = EndpointDriver(pair.world, ("10.6.6.6", 666), lambda event: None)
    data = pair.send(100_000)
    for shape in packets:
        for made, target in ((pair.back, Pair.B), (pair.there, Pair.A)):
            stranger.send_raw(target, built(shape, made))
        pair.world.run(pair.world.now + 0.002)
    assert pair.world.run_until(lambda: sum(map(len, pair.received["b"])) == len(data), pair.world.now + 5)
    assert b"".join(pair.received["b"]) == data
    assert not pair.lost and not pair.received["a"]
    pair.finish()


DATAGRAMS = st.tuples(st.sampled_from(list(PacketType)), st.binary(max_size=120))


@few
@given(st.lists(DATAGRAMS, max_size=40), st.integers(1, 200))
def test_any_runs_of_datagrams_in_one_read(parts, segment_size):
    """As the kernel merges them: the size of a segment is what it says, and need not be what the packets say."""
    endpoint = Endpoint(random.Random(1))
    buffer = b"".join(bytes(sealed(SAMPLES[kind][:6] + b"\0\0" + data)) for kind, data in parts)
    endpoint.receive(memoryview(buffer), segment_size, ("10.0.0.1", 5), 1.0)
    answers = sum(batch.segment_size * batch.count for batch in endpoint.batches(1.0))
    assert answers <= len(buffer) and not endpoint.connections


# ---- frames at the verbs ------------------------------------------------------------------------------------------


class Unheard:
    """A network thread that is none: what would be posted is done at once."""

    def __init__(self):
        self.is_closing = self.is_over = False
        self.gate = threading.RLock()
        self.inbox = self

    def put(self, action):
        action()

    post = put

    def wake_up(self):
        pass

    def clock(self):
        return 1.0


NAMES = st.sampled_from((b"a.txt", b"../x", b"\xff", b"", b"CON", b"a" * 300))
BODY = st.one_of(
    st.binary(max_size=20),
    st.builds(lambda number, rest: number.to_bytes(4, "big") + rest, st.integers(0, 5), st.binary(max_size=60)),
    st.builds(
        lambda number, size, name: number.to_bytes(4, "big") + size.to_bytes(8, "big") + name,
        st.integers(0, 5),
        st.sampled_from((0, 1, 5, *EDGES_64)),
        NAMES,
    ),
)


@some
@given(st.lists(st.tuples(st.integers(0, 9), BODY), max_size=12))
def test_any_frames_at_the_verbs_are_a_message_a_file_or_an_rdt_error(tmp_path_factory, frames):
    """receive, accept_file and the wait for a receipt raise RdtError and nothing else, and leave no file behind."""
    folder = tmp_path_factory.getbasetemp() / "fuzz"
    pair = Pair(seed=44)
    assert pair.connected()
    unheard = Unheard()
    channel = Channel(unheard, Room(unheard), Untold(), pair.back)
    connection = rdt.Connection(None, channel)
    pair.b.on_event = channel.on_event
    for kind, body in frames:
        pair.there.send_frame(kind, body)
    pair.a.pump()
    pair.world.run(pair.world.now + 1)
    for verb in (
        lambda: connection.receive(timeout=0),
        lambda: connection.accept_file(str(folder), timeout=0),
        lambda: Sending(channel, 0).is_kept("00" * 32, 0.0),
    ):
        with contextlib.suppress(rdt.RdtError):
            for _ in range(len(frames) + 1):
                verb()
    if folder.exists():
        for kept in folder.iterdir():
            assert kept.name.startswith("a") and kept.stat().st_size <= 60
            kept.unlink()
    pair.world.run(pair.world.now + 1)
    assert pair.back.state in (State.ESTABLISHED, State.CLOSING, State.DRAINING, State.CLOSED)


# ---- casts ----------------------------------------------------------------------------------------------------------

CAST_SIZE, CAST_PIECE = 5 * 65536 + 1000, 65536
CAST_DATAGRAMS = st.builds(
    lambda head, size: casting.encode_cast_header(head) + bytes(size),
    st.builds(
        casting.CastDatagram,
        st.sampled_from((casting.SLICE, casting.SLICE, casting.PROBE, 0, 255)),
        st.sampled_from((b"sessions", b"sessions", b"another!")),
        st.one_of(st.integers(0, 300), st.integers(0, 2**32 - 1)),
        st.one_of(st.integers(0, 6), st.integers(0, 2**32 - 1)),
        st.one_of(st.integers(0, 46).map(lambda place: place * SLICE_SIZE), st.integers(0, 2**32 - 1)),
        st.one_of(st.integers(0, 300), st.integers(0, 2**32 - 1)),
    ),
    st.sampled_from((SLICE_SIZE, SLICE_SIZE, 736, 1000, 0, 1, 2000)),
)
CAST_STEPS = st.one_of(CAST_DATAGRAMS, st.binary(min_size=1, max_size=60), st.floats(0.0, 2.0), st.just(None))


@some
@given(st.binary(min_size=1, max_size=1), st.lists(CAST_STEPS, max_size=60))
def test_any_datagrams_of_a_cast_in_any_order(coming, steps):
    receiver, now, events = casting.CastReceiver(b"sessions"), 0.0, []
    for step in steps:
        if isinstance(step, float):
            now += step
            receiver.on_timer(now)
        elif step is None:
            receiver.take(CastPlan(CAST_SIZE, CAST_PIECE, coming, 0.1), now)
        else:
            receiver.on_run(memoryview(step * 3), len(step), now)
        events += receiver.events
        receiver.events.clear()
        assert receiver._parts_size == sum(part.length for part in receiver._parts.values()) <= casting.PARTS_MAX
        assert receiver._left == sum(receiver._coming) >= 0
    for event in events:
        if isinstance(event, CastPiece):
            assert coming[0] & (0x80 >> event.index)
            assert len(event.data) == min(CAST_PIECE, CAST_SIZE - event.index * CAST_PIECE)
        elif isinstance(event, CastReport):
            assert len(event.holes) <= HOLES_TOLD_MAX and event.received >= 0 and 0 <= event.lost < 2**32
            assert all(first + count <= 6 * 46 for first, count in event.holes)
            holes = tuple(Hole(*hole) for hole in event.holes)
            messages.encode(CastTaken(bytes(32), b"sessions", *event[1:4], event.is_through, holes))
    assert all(type(event) in (CastHeard, CastPiece, CastReport, CastOver) for event in events)


class _Group:
    """A network that takes what is cast, and keeps none of it waiting."""

    def __init__(self):
        self.sent = 0

    def can_cast(self, towards):
        return True

    def cast_backlog(self, session):
        return 0

    def cast_send(self, session, piece, offset, data, front):
        self.sent += len(data)

    def cast_open(self, *_): ...

    cast_rate = cast_end = cast_open


class _Disk:
    """Has read it all at once."""

    def run(self, job, done):
        done(job(), None, 0.0)


class _Slots:
    """Uploads that only count."""

    def __init__(self):
        self.limit = self

    def set_rate(self, *_): ...

    on_limit = count_cast = set_rate

    def served(self, beside):
        """Nobody is by links."""
        return 0


class _Zeroes:
    """A library in which all is zero."""

    def read(self, file_id, piece, offset, length):
        return bytes(length)


LINKS = st.integers(1, 4)
MAPS = st.sampled_from((b"", b"\xff\xff", b"\x00\x00", b"\xff" * 512, b"\x01"))
HOLES = st.lists(
    st.builds(Hole, NUMBERS_32, st.integers(0, 65535)), max_size=8
).map(tuple)
SAYINGS = st.one_of(
    st.tuples(LINKS, st.just("wanted")),
    st.tuples(LINKS, st.just("ready"), MAPS),
    st.tuples(LINKS, st.just("taken"), NUMBERS_32, NUMBERS_32, NUMBERS_32, st.booleans(), HOLES),
    st.tuples(LINKS, st.just("end")),
    st.tuples(LINKS, st.just("lost")),
    st.tuples(LINKS, st.just("done")),
    st.tuples(st.floats(0.0, 1.0), st.just("wait")),
)


@some
@given(st.lists(SAYINGS, max_size=60), st.booleans())
def test_any_words_of_takers_in_any_order_end_a_cast_at_most(sayings, is_begun):
    size, file_id = 8 << 20, bytes(32)
    network, sent, now = _Group(), [], 0.0
    table = Casting(network, _Zeroes(), _Disk(), random.Random(1), lambda *told: sent.append(told), _Slots())
    begun = [(link, "wanted") for link in (1, 2, 3)] + [(link, "ready", b"\xff\xff\xff\xff") for link in (1, 2, 3)]
    for who, what, *values in [*(begun if is_begun else []), *sayings]:
        cast = table._casts.get(file_id)
        session = cast.session if cast is not None else b"sessions"
        if what == "wait":
            now += who
            table.on_timer(now)
        elif what in ("lost", "done"):
            table.on_link_lost(who, now) if what == "lost" else table.on_done(who, file_id, now)
        else:
            kind = {"wanted": CastWanted, "ready": CastReady, "taken": CastTaken, "end": CastEnd}[what]
            message = CastWanted(file_id) if what == "wanted" else kind(file_id, session, *values)
            table.on_message(who, bytes([who]) * 8, (f"10.0.0.{who}", 1), size, message, now)
        for cast in table._casts.values():
            assert len(cast.takers) <= 4 and len(cast.repairs) <= cast.count
            assert cast._recent_size <= RECENT_MAX
    assert network.sent <= 4 * size * (1 + sum(isinstance(message, CastOffer) for _, message in sent))
    assert all(isinstance(message, (CastOffer, CastComing, CastEnd)) for _, message in sent)
