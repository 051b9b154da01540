"""The bytes: every encoder has its decoder, and no bytes at all make a decoder raise anything but WireError."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol import fields, messages
from protocol.fields import WireError
from protocol.transport import casting
from protocol.transport import packets as wire

IDS = st.binary(min_size=8, max_size=8)
NONCES = st.binary(min_size=16, max_size=16)
NUMBERS = st.integers(0, 2**64 - 1)
FIRST_NUMBERS, CREDITS = st.integers(0, wire.PACKET_NUMBER_MAX), st.integers(0, wire.CREDIT_MAX)


def words(count_max):
    """Why a connection ends, as it is said: what steers a terminal comes as U+FFFD (test_transport.py)."""
    return st.text(max_size=count_max).map(lambda text: "".join(filter(str.isprintable, text)))


PACKETS = [
    (
        wire.encode_init,
        wire.decode_init,
        st.builds(wire.InitPacket, IDS, NONCES, FIRST_NUMBERS, CREDITS, NONCES, st.binary(min_size=20, max_size=20)),
    ),
    (
        wire.encode_cookie,
        wire.decode_cookie,
        st.builds(wire.CookiePacket, IDS, NONCES, st.binary(min_size=20, max_size=20)),
    ),
    (
        wire.encode_init_ack,
        wire.decode_init_ack,
        st.builds(wire.InitAckPacket, IDS, IDS, FIRST_NUMBERS, CREDITS, NONCES),
    ),
    (
        wire.encode_close,
        wire.decode_close,
        st.builds(wire.ClosePacket, IDS, st.integers(0, 255), NUMBERS, words(40)),
    ),
    (wire.encode_path_challenge, wire.decode_path, st.builds(wire.PathPacket, IDS, NONCES)),
    (wire.encode_path_response, wire.decode_path, st.builds(wire.PathPacket, IDS, NONCES)),
    (wire.encode_reset, wire.decode_reset, st.builds(wire.ResetPacket, IDS, NONCES)),
    (wire.encode_refused, wire.decode_refused, st.builds(wire.RefusedPacket, IDS, NONCES, words(12))),
    (wire.encode_lone, wire.decode_lone, st.binary(max_size=1100)),
]


@pytest.mark.parametrize(("encode", "decode", "values"), PACKETS, ids=[encode.__name__ for encode, _, _ in PACKETS])
def test_a_packet_survives_the_wire(encode, decode, values):
    @settings(max_examples=60, deadline=None)
    @given(values)
    def check(value):
        datagram = encode(value)
        wire.decode_prefix(memoryview(datagram))
        assert decode(memoryview(datagram)) == value

    check()


@given(st.data(), st.integers(0, 2**63))
@settings(max_examples=100, deadline=None)
def test_an_acknowledgement_survives_the_wire(data, largest):
    ranges, top = [], largest
    for _ in range(data.draw(st.integers(0, wire.ACK_RANGES_MAX))):
        last = top - data.draw(st.integers(1 if ranges else 0, 50))
        first = last - data.draw(st.integers(0, 50))
        if first < 0:
            break
        ranges.append((first, last))
        top = first - 1
    packet = wire.AckPacket(b"12345678", largest, 7, 2**40, ranges)
    assert wire.decode_ack(memoryview(wire.encode_ack(packet))) == packet


BEYOND = [wire.PACKET_NUMBER_MAX + 1, 2**64 - 1]


@pytest.mark.parametrize("number", BEYOND)
def test_numbers_from_which_an_endpoint_would_reckon_on_are_refused_at_the_door(number):
    """Else the number after them, or the last of the batch that they begin, has no room in any packet."""
    for decode, datagram in (
        (wire.decode_init, wire.encode_init(wire.InitPacket(b"a" * 8, b"b" * 16, number, 6, b"c" * 16, b"d" * 20))),
        (wire.decode_init, wire.encode_init(wire.InitPacket(b"a" * 8, b"b" * 16, 5, number, b"c" * 16, b"d" * 20))),
        (wire.decode_init_ack, wire.encode_init_ack(wire.InitAckPacket(b"a" * 8, b"b" * 8, number, 8, b"c" * 16))),
        (wire.decode_init_ack, wire.encode_init_ack(wire.InitAckPacket(b"a" * 8, b"b" * 8, 7, number, b"c" * 16))),
        (wire.decode_ack, wire.encode_ack(wire.AckPacket(b"a" * 8, 90, 7, number, [(80, 90)]))),
        (wire.decode_data_header, wire.encode_ping(b"a" * 8, number, 0)),
    ):
        with pytest.raises(WireError, match="out of range"):
            decode(memoryview(datagram))


@pytest.mark.parametrize(
    ("first", "floor", "index"),
    [
        (wire.PACKET_NUMBER_MAX, 0, 1),  # in a batch that goes beyond
        (wire.PACKET_NUMBER_MAX, 0, wire.BATCH_PACKETS_MAX - 1),
        (7, 8, 0),  # the oldest of interest lies before the first there ever was
        (7, 0, wire.BATCH_PACKETS_MAX),
        (7, 0, 2**16 - 1),
    ],
)
def test_a_place_that_no_packet_can_have_is_malformed(first, floor, index):
    fields = (0, wire.VERSION, wire.PacketType.DATA, 0, b"a" * 8, first, floor, 0, 100, index)
    with pytest.raises(WireError):
        wire.decode_data_header(memoryview(wire.DATA_HEADER.pack(*fields)))
    run = bulk(0, [bytes(100)] * 5, wire.BatchHead(b"a" * 8, first, floor, 0, 100))
    if not index:
        assert run_in(b"".join(run), 140) is None


def sealed(datagram):
    """The damaged bytes with a checksum and length that are right, so that the damage is not just caught there."""
    datagram = bytearray(datagram)
    return wire.seal(datagram) if len(datagram) >= wire.PREFIX_SIZE else datagram


SAMPLES = [
    (wire.decode_init, wire.encode_init(wire.InitPacket(b"a" * 8, b"b" * 16, 5, 6, b"c" * 16, b"d" * 20))),
    (wire.decode_cookie, wire.encode_cookie(wire.CookiePacket(b"a" * 8, b"b" * 16, b"d" * 20))),
    (wire.decode_init_ack, wire.encode_init_ack(wire.InitAckPacket(b"a" * 8, b"b" * 8, 7, 8, b"c" * 16))),
    (wire.decode_ack, wire.encode_ack(wire.AckPacket(b"a" * 8, 90, 7, 9, [(80, 90), (1, 70)]))),
    (wire.decode_close, wire.encode_close(wire.ClosePacket(b"a" * 8, 1, 9, "why"))),
    (wire.decode_reset, wire.encode_reset(wire.ResetPacket(b"a" * 8, b"c" * 16))),
    (wire.decode_refused, wire.encode_refused(wire.RefusedPacket(b"a" * 8, b"c" * 16, "no"))),
]


@pytest.mark.parametrize(("decode", "datagram"), SAMPLES, ids=[decode.__name__ for decode, _ in SAMPLES])
def test_packets_cut_at_each_byte_and_with_each_bit_flipped(decode, datagram):
    broken = [datagram[:size] for size in range(len(datagram))]
    for index in range(8 * len(datagram)):
        flipped = bytearray(datagram)
        flipped[index // 8] ^= 1 << index % 8
        broken.append(flipped)
    for data in broken:
        try:
            decode(memoryview(sealed(data)))
        except WireError:
            continue


def test_damage_is_caught_by_the_checksum():
    datagram = wire.encode_ping(b"a" * 8, 5, 0, size=1200)
    for index in range(8 * len(datagram)):
        flipped = bytearray(datagram)
        flipped[index // 8] ^= 1 << index % 8
        with pytest.raises(WireError):
            wire.decode_prefix(memoryview(flipped))


HEAD = wire.BatchHead(b"idididid", 7_000_000_000, 12, 1 << 33, 100)


def datagrams_of(headers, payloads):
    size = wire.DATA_HEADER_SIZE
    return [bytes(headers[size * index : size * (index + 1)]) + payload for index, payload in enumerate(payloads)]


def run_in(datagrams, segment_size):
    """The run at the front of datagrams that lie one behind the other, as an endpoint looks for it."""
    starts = range(0, len(datagrams), segment_size)
    headers = b"".join(datagrams[at : at + wire.DATA_HEADER_SIZE] for at in starts)
    return wire.decode_bulk_run(headers, len(datagrams) - starts[-1] - wire.DATA_HEADER_SIZE, segment_size)


def bulk(start, payloads, head=HEAD):
    return datagrams_of(wire.bulk_headers(head, start, len(payloads), len(payloads[-1])), payloads)


def test_headers_of_data_cover_their_payload():
    payloads = [bytes([index]) * 100 for index in range(5)] + [b"end"]
    for datagram in datagrams_of(wire.data_headers(HEAD, payloads), payloads):
        assert wire.decode_prefix(memoryview(datagram)) == wire.PacketType.DATA
        with pytest.raises(WireError):
            wire.decode_prefix(memoryview(datagram[:-1] + bytes([datagram[-1] ^ 1])))


def test_headers_of_bulk_cover_themselves():
    payloads = [bytes([index]) * 100 for index in range(5)] + [b"end"]
    for datagram in bulk(0, payloads):
        assert wire.decode_prefix(memoryview(datagram)) == wire.PacketType.BULK
        for bit in range(8 * wire.DATA_HEADER_SIZE):
            flipped = bytearray(datagram)
            flipped[bit // 8] ^= 1 << bit % 8
            with pytest.raises(WireError):
                wire.decode_prefix(memoryview(flipped))


@pytest.mark.parametrize("start", [0, 3, 170])
def test_a_run_is_found_by_its_first_header(start):
    payloads = [bytes([index]) * 100 for index in range(5)] + [b"end"]
    datagrams = bulk(start, payloads)
    run = run_in(b"".join(datagrams), 140)
    assert run == wire.BulkRun(HEAD, start, 6, 503)
    other = bulk(0, payloads[:3], HEAD._replace(first=HEAD.first + 6))
    run = run_in(b"".join(datagrams[:5] + other), 140)
    assert run == wire.BulkRun(HEAD, start, 5, 500)


def test_what_is_not_a_run_is_none():
    payloads = [bytes([index]) * 100 for index in range(6)]
    datagrams = bulk(0, payloads)
    for wrong in (
        datagrams[:2] + datagrams[3:],  # one is missing
        [datagrams[1], datagrams[0], *datagrams[2:]],
        datagrams_of(wire.data_headers(HEAD, payloads), payloads),
        datagrams[:1],
    ):
        assert run_in(b"".join(wrong), 140) is None
    whole = b"".join(datagrams)
    for at in (*range(40), *range(3 * 140, 3 * 140 + 40)):
        damaged = bytearray(whole)
        damaged[at] ^= 1
        run = run_in(damaged, 140)
        assert run is None or run.packets == 3  # those before the damage
    assert run_in(whole, 139) is None
    assert run_in(whole[:-100], 140) is None


@pytest.mark.parametrize("ranges", [[(5, 4)], [(1, 9), (5, 7)], [(1, 3), (3, 5)]])
def test_ranges_out_of_order_are_malformed(ranges):
    header = wire.ACK_HEADER.pack(0, wire.VERSION, wire.PacketType.ACK, 0, b"a" * 8, 9, 0, 0, len(ranges))
    pairs, above = b"", 10
    for first, last in ranges:
        pairs += ((above - last - 1) & 0xFFFFFFFF).to_bytes(4, "big") + ((last - first + 1) & 0xFFFFFFFF).to_bytes(
            4, "big"
        )
        above = first
    with pytest.raises(WireError):
        wire.decode_ack(memoryview(wire.seal(bytearray(header + pairs))))


def test_an_answer_is_never_longer_than_its_question():
    answer = example_of(messages.record_of(messages.Answer), random.Random(1))
    longest = answer._replace(name="x" * messages.NAME_BYTES_MAX, supernode=("2001:db8::1", 1))
    assert len(messages.encode(longest)) <= len(messages.encode(messages.Query(bytes(8))))
    assert wire.COOKIE.size + 64 <= wire.INIT_SIZE


# ---- the datagrams of casts ---------------------------------------------------------------------------------------

CAST_HEAD = casting.CastDatagram(casting.SLICE, b"sessions", 7, 3, 2880, 552)
U32S = st.integers(0, 2**32 - 1)


@settings(max_examples=60, deadline=None)
@given(st.builds(casting.CastDatagram, st.integers(0, 255), IDS, U32S, U32S, U32S, U32S), st.binary(max_size=40))
def test_the_header_of_a_cast_survives_the_wire(head, slice_):
    header = casting.encode_cast_header(head)
    assert len(header) == 30
    assert casting.decode_cast_header(memoryview(header + slice_)) == head


def test_the_header_of_a_cast_cut_at_each_byte_and_with_each_bit_flipped_is_none():
    header = casting.encode_cast_header(CAST_HEAD)
    for size in range(len(header)):
        with pytest.raises(WireError):
            casting.decode_cast_header(header[:size])
    for bit in range(8 * len(header)):
        damaged = bytearray(header)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(WireError):
            casting.decode_cast_header(damaged)


def test_the_bytes_of_casts_stay_as_they_are():
    about = b"f" * 32, b"sessions"
    told = [
        (messages.CastWanted(about[0]), 100, ""),
        (messages.CastOffer(*about, b"\xf0", 3, 250), 101, "00000001f0" "0003" "000000fa"),
        (messages.CastReady(*about, b"\x80"), 102, "0000000180"),
        (messages.CastComing(*about, b"", 4, 100), 103, "00000000" "0004" "00000064"),
        (messages.CastTaken(*about, 9, 8, 1, True, (messages.Hole(5, 2),)), 104,
         "00000009000000080000000101" "0001" "000000050002"),
        (messages.CastEnd(*about), 105, ""),
        (messages.CastSixWanted(about[0]), 106, ""),
    ]  # fmt: skip
    for message, tag, rest in told:
        session = about[1] if tag not in (100, 106) else b""
        assert messages.encode(message) == bytes([tag]) + about[0] + session + bytes.fromhex(rest)
    header = casting.encode_cast_header(CAST_HEAD)
    assert header[4:] == bytes.fromhex("0101" + b"sessions".hex() + "00000007" "00000003" "00000b40" "00000228")


# ---- messages -----------------------------------------------------------------------------------------------------


def example_of(codec, rng):
    """A random value that the codec takes."""
    if isinstance(codec, fields.Record):
        return codec.kind(*[example_of(field, rng) for field in codec.fields])
    if isinstance(codec, fields.Many):
        return tuple(example_of(codec.item, rng) for _ in range(rng.randrange(3)))
    if isinstance(codec, fields.Number):
        return rng.choice([0, 1, codec.most, rng.randrange(codec.most + 1)])
    if isinstance(codec, fields.Flag):
        return rng.random() < 0.5
    if isinstance(codec, fields.Fixed):
        return rng.getrandbits(8 * codec.size).to_bytes(codec.size, "big")
    if isinstance(codec, fields.Text):
        return "".join(rng.choice("aé漢😀 ") for _ in range(rng.randrange(codec.most // 4)))
    if isinstance(codec, fields.AddressField):
        return rng.choice([("10.1.2.3", 6020), ("0.0.0.0", 0), ("2001:db8::7", 65535)])
    assert isinstance(codec, (fields.Blob, fields.Rest))
    return rng.getrandbits(80).to_bytes(10, "big")


KINDS = messages.TABLE.items()


@pytest.mark.parametrize(("tag", "kind"), KINDS, ids=[kind.__name__ for _, kind in KINDS])
def test_a_message_survives_the_wire_and_its_damage(tag, kind):
    rng = random.Random(tag)
    codec = messages.record_of(kind)
    for _ in range(20):
        message = example_of(codec, rng)
        data = messages.encode(message)
        again = messages.decode(data)
        assert type(again) is kind
        assert tuple(again) == tuple(message)
        for size in range(0, len(data), max(1, len(data) // 60)):
            decode_or_malformed(data[:size])
        for _ in range(60):
            damaged = bytearray(data)
            damaged[rng.randrange(len(damaged))] = rng.choice([0, 1, 0x7F, 0xFE, 0xFF, rng.randrange(256)])
            decode_or_malformed(bytes(damaged))
        decode_or_malformed(data + b"x")


def decode_or_malformed(data):
    try:
        messages.decode(data)
    except WireError:
        return


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_are_a_message_or_malformed(data):
    decode_or_malformed(data)


@pytest.mark.parametrize("text", [b"\xff\xfe", b"\xed\xa0\x80", b"\xc0\x80"])
def test_text_that_is_not_utf8_is_malformed(text):
    data = b"\x1e" + bytes(8) + len(text).to_bytes(2, "big") + text
    with pytest.raises(WireError):
        messages.decode(data)


def test_a_list_over_its_limit_is_malformed_before_it_is_read():
    field = fields.Many(fields.Number(8), 5)
    with pytest.raises(WireError):
        field.decode(fields.Reader(b"\xff\xff"))
