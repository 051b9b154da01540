"""The bytes of the network: packets, which are what the transport puts into datagrams.

A *packet* is one datagram. All numbers are big-endian. Every packet opens with the same eight bytes:

    checksum 4   CRC-32 of everything behind it (IEEE 802.3, as zlib.crc32); BULK: see `bulk_headers`
    version  1   VERSION
    type     1   PacketType
    length   2   size of the whole datagram, so that a batch can be cut without asking the kernel

`encode_x` stands beside `decode_x`; decoding raises `WireError` and nothing else, whatever the bytes.
What the roles say to each other travels inside the stream, and is nothing to these.
"""

from __future__ import annotations

import enum
import functools
import struct
import zlib
from typing import Any, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from protocol.fields import Buffer, WireError, harmless_words

VERSION = 1  # a packet of another one is dropped: what is new comes as new types, which old programs drop as well
DATAGRAM_SIZE_MAX = 65_507  # the largest UDP payload over IPv4
ACK_RANGES_MAX = 64  # ranges in one acknowledgement, newest first (THREATS: E01)
CONNECTION_ID_SIZE = 8  # random: who does not see the packets cannot guess it (RFC 9000 §21.3)
COOKIE_SIZE = 20  # 4 bytes of slot, 16 of HMAC
RESET_TOKEN_SIZE = 16  # RFC 9000 §10.3
PATH_TOKEN_SIZE = 16  # of a challenge and of its answer
REASON_SIZE_MAX = 200  # bytes of UTF-8 that a CLOSE may say
# Numbers that become an endpoint's state are refused where they are decoded: up to half of what 8 bytes hold, whatever
# is reckoned from one (the last of a batch, the next) fits into its field again. Honest ones begin below 2^32 and are
# never used up (RFC 9000 has 2^62). The others are held against that state, and end the connection with a reason: what
# was acknowledged against what was sent, where bytes lie against the credit, a final size against what came.
PACKET_NUMBER_MAX = 1 << 63
CREDIT_MAX = 1 << 63  # stream offset up to which a remote may let us send


class BadRanges(WireError):
    """An acknowledgement whose ranges contradict each other: of a connection, whose remote is told so."""

    def __init__(self, connection_id: bytes) -> None:
        super().__init__("acknowledgement ranges that cannot be")
        self.connection_id = connection_id


class PacketType(enum.IntEnum):
    """The byte behind the version; a number once given never means another packet."""

    INIT = 1  # first packet, with an empty cookie or the one that COOKIE brought
    COOKIE = 2  # the only answer to an address that has not proved itself
    INIT_ACK = 3  # the connection exists
    DATA = 4
    ACK = 5
    PING = 6  # elicits an acknowledgement; padded, it is an MTU probe
    CLOSE = 7
    RESET = 8  # "I know no such connection", proved by the token of the handshake
    LONE = 9  # one message outside any connection: search and probe
    REFUSED = 10  # the remote will not take this connection now
    BULK = 11  # DATA whose payload the checksum leaves out: a part of what carries a digest of its own
    FINAL = 12  # before each CLOSE: what its sender has taken in, and will not add to
    PATH_CHALLENGE = 13  # "are you there?": to an address at which the other end may be now, and to where it was
    PATH_RESPONSE = 14  # its answer, from where the challenge came to
    KEYED = 15  # to an INIT or LONE without a seal: this network has a key (`sealing.py`)


_BULK, _DATA = int(PacketType.BULK), int(PacketType.DATA)  # an enumeration's member costs as much as a call, each time

PREFIX = struct.Struct(">IBBH")
PREFIX_SIZE = PREFIX.size
CHECKSUM = struct.Struct(">I")

# DATA, BULK and PING: prefix, remote connection id, number of the batch's first packet, floor, the batch's stream
# offset, step, index. Packet `index` of a batch has number first + index, and its payload the offset + index * step:
# the headers of a batch differ in index and checksum alone. `floor` is how far below the first number the oldest
# packet lies whose fate still interests the sender: ranges below it are forgotten.
DATA_HEADER = struct.Struct(">IBBH8sQIQHH")
DATA_HEADER_SIZE = DATA_HEADER.size
BATCH_PACKETS_MAX = 176  # four times 44, the most that one segmented send takes
_COVERED = slice(4, DATA_HEADER_SIZE - 2)  # what a BULK packet's checksum is over, beside its index
_HEAD = slice(PREFIX_SIZE, DATA_HEADER_SIZE - 2)  # the same in all headers of a batch, whatever their length

# ACK: prefix, connection id, largest acknowledged, acknowledgement delay in microseconds, credit (the stream
# offset up to which the other side may send), number of ranges; then a (gap, length) pair for each range.
ACK_HEADER = struct.Struct(">IBBH8sQIQH")
ACK_HEADER_SIZE = ACK_HEADER.size
_ACK_RANGES = [struct.Struct(f">{2 * count}I") for count in range(ACK_RANGES_MAX + 1)]

# INIT: prefix, client's connection id, client's nonce, client's first packet number, credit, reset token, cookie.
# It is padded well beyond COOKIE, so that an answer never has more bytes than what caused it.
INIT = struct.Struct(">IBBH8s16sQQ16s20s")
INIT_SIZE = INIT.size + 64
COOKIE = struct.Struct(">IBBH8s16s20s")
INIT_ACK = struct.Struct(">IBBH8s8sQQ16s")
CLOSE = struct.Struct(">IBBH8sBQ")  # prefix, connection id, code, final size of the stream; then the reason
FINAL = struct.Struct(">IBBH8sQ")  # prefix, connection id, received: offset behind the last whole frame taken in
RESET = struct.Struct(">IBBH8s16s")
PATH = struct.Struct(">IBBH8s16s")  # PATH_CHALLENGE, PATH_RESPONSE: prefix, connection id, challenge or its answer
PATH_SIZE = PATH.size  # less than any packet that brings one about
REFUSED = struct.Struct(">IBBH8s16s")  # prefix, client's connection id and nonce; then the reason
KEYED = struct.Struct(">IBBH24s")  # prefix, what stood behind that of the packet that it answers
NO_COOKIE = bytes(COOKIE_SIZE)


class CloseCode(enum.IntEnum):
    """Why a connection ends, for the program at the other end; the words beside it are for its person."""

    DONE = 0  # orderly: everything up to the final size was delivered
    GOING_AWAY = 1
    PROTOCOL = 2  # the other side broke a rule of the transport
    LIMIT = 3
    ABANDONED = 4  # closed with data unsent


class InitPacket(NamedTuple):
    """A client asks to be taken in, with the cookie that it was given, if it has one."""

    client_id: bytes
    nonce: bytes
    first_packet_number: int
    credit: int
    reset_token: bytes
    cookie: bytes


class CookiePacket(NamedTuple):
    """The answer to an INIT without a good cookie: say it again with this one (RFC 9000 §8.1)."""

    client_id: bytes
    nonce: bytes
    cookie: bytes


class InitAckPacket(NamedTuple):
    """The client is taken in: by which id, with which packet number the server begins."""

    client_id: bytes
    server_id: bytes
    first_packet_number: int
    credit: int
    reset_token: bytes


class AckPacket(NamedTuple):
    """What arrived (RFC 9000 §19.3), and up to which offset of the stream more may be sent (§4.1)."""

    connection_id: bytes
    largest: int
    delay_us: int
    credit: int
    ranges: List[Tuple[int, int]]  # (first, last) inclusive, newest first


class ClosePacket(NamedTuple):
    """One side closes, having sent `final_size` bytes of its stream; the reason is for a person."""

    connection_id: bytes
    code: int
    final_size: int
    reason: str


class FinalPacket(NamedTuple):
    """What its sender has taken in, as an offset of the stream: its last word."""

    connection_id: bytes
    received: int


class ResetPacket(NamedTuple):
    """That connection is not known here (any more); the token proves who says so (RFC 9000 §10.3)."""

    connection_id: bytes
    token: bytes


class PathPacket(NamedTuple):
    """A challenge to an address, or the answer from there (RFC 9000 §8.2)."""

    connection_id: bytes
    token: bytes


class RefusedPacket(NamedTuple):
    """The client is not taken in; why, for a person."""

    client_id: bytes
    nonce: bytes
    reason: str


def seal(datagram: bytearray) -> bytearray:
    """Write length and checksum into a finished packet."""
    struct.pack_into(">H", datagram, 6, len(datagram))
    CHECKSUM.pack_into(datagram, 0, zlib.crc32(memoryview(datagram)[4:]))
    return datagram


def decode_prefix(datagram: memoryview) -> int:
    """Check version, length and checksum; return the packet's type."""
    if len(datagram) < PREFIX_SIZE:
        raise WireError("shorter than a prefix")
    checksum, version, packet_type, length = PREFIX.unpack_from(datagram)
    if version != VERSION:
        raise WireError("unknown version")
    if length != len(datagram):
        raise WireError("length does not match")
    if checksum != (_bulk_checksum(datagram) if packet_type == PacketType.BULK else zlib.crc32(datagram[4:])):
        raise WireError("checksum does not match")
    return packet_type


def decode_sealed_prefix(datagram: memoryview) -> int:
    """Check version and length of what had its seal checked before; return the packet's type."""
    _, version, packet_type, length = PREFIX.unpack_from(datagram)
    if version != VERSION:
        raise WireError("unknown version")
    if length != len(datagram):
        raise WireError("length does not match")
    return int(packet_type)


def _built(
    layout: struct.Struct, packet_type: int, fields: Sequence[Any], tail: Buffer = b"", size: int = 0
) -> bytearray:
    datagram = bytearray(layout.pack(0, VERSION, packet_type, 0, *fields))
    datagram += tail
    if len(datagram) < size:
        datagram += bytes(size - len(datagram))
    return seal(datagram)


def _fields(layout: struct.Struct, datagram: memoryview) -> Tuple[Any, ...]:
    try:
        return layout.unpack_from(datagram)[4:]
    except struct.error:
        raise WireError("too short for its type") from None


def _check_number(number: int) -> None:
    if not 0 <= number <= PACKET_NUMBER_MAX:
        raise WireError("packet number out of range")


def _check_credit(credit: int) -> None:
    if credit > CREDIT_MAX:
        raise WireError("credit out of range")


def encode_init(packet: InitPacket) -> bytearray:
    """Padded, so that no answer to it has more bytes than it (RFC 9000 §8.1)."""
    return _built(INIT, PacketType.INIT, packet, size=INIT_SIZE)


def decode_init(datagram: memoryview) -> InitPacket:
    """WireError: it is not padded, or a number is out of range."""
    if len(datagram) < INIT_SIZE:
        raise WireError("INIT is not padded")
    packet = InitPacket(*_fields(INIT, datagram))
    _check_number(packet.first_packet_number)
    _check_credit(packet.credit)
    return packet


def encode_cookie(packet: CookiePacket) -> bytearray:
    """The answer to an INIT without a good cookie, in a third of its bytes."""
    return _built(COOKIE, PacketType.COOKIE, packet)


def decode_cookie(datagram: memoryview) -> CookiePacket:
    """WireError: it is too short."""
    return CookiePacket(*_fields(COOKIE, datagram))


def encode_init_ack(packet: InitAckPacket) -> bytearray:
    """The answer to an INIT with a good cookie, and to each repetition of it."""
    return _built(INIT_ACK, PacketType.INIT_ACK, packet)


def decode_init_ack(datagram: memoryview) -> InitAckPacket:
    """WireError: it is too short, or a number is out of range."""
    packet = InitAckPacket(*_fields(INIT_ACK, datagram))
    _check_number(packet.first_packet_number)
    _check_credit(packet.credit)
    return packet


def _reason_bytes(reason: str) -> bytes:
    return reason.encode("utf-8", "replace")[:REASON_SIZE_MAX]


def _reason_text(tail: memoryview) -> str:
    return harmless_words(tail[:REASON_SIZE_MAX])


def encode_close(packet: ClosePacket) -> bytearray:
    """What is longer than REASON_SIZE_MAX of the reason is cut."""
    return _built(CLOSE, PacketType.CLOSE, packet[:3], _reason_bytes(packet.reason))


def decode_close(datagram: memoryview) -> ClosePacket:
    """WireError: it is too short. The code may be one that this version does not know."""
    connection_id, code, final_size = _fields(CLOSE, datagram)
    return ClosePacket(connection_id, code, final_size, _reason_text(datagram[CLOSE.size :]))


def encode_refused(packet: RefusedPacket) -> bytearray:
    """Of the reason no more than 60 bytes go out: with them it is still shorter than the INIT."""
    return _built(REFUSED, PacketType.REFUSED, packet[:2], _reason_bytes(packet.reason)[:60])


def decode_refused(datagram: memoryview) -> RefusedPacket:
    """WireError: it is too short."""
    client_id, nonce = _fields(REFUSED, datagram)
    return RefusedPacket(client_id, nonce, _reason_text(datagram[REFUSED.size :]))


def encode_final(packet: FinalPacket) -> bytearray:
    """It goes before each CLOSE; neither is acknowledged by a packet of its own."""
    return _built(FINAL, PacketType.FINAL, packet)


def decode_final(datagram: memoryview) -> FinalPacket:
    """WireError: it is too short. Whether so much was sent is for its connection to see."""
    return FinalPacket(*_fields(FINAL, datagram))


def encode_reset(packet: ResetPacket) -> bytearray:
    """Shorter than any packet that draws one: two who both forgot cannot answer each other for ever."""
    return _built(RESET, PacketType.RESET, packet)


def decode_reset(datagram: memoryview) -> ResetPacket:
    """WireError: it is too short."""
    return ResetPacket(*_fields(RESET, datagram))


def encode_path_challenge(packet: PathPacket) -> bytearray:
    """As long as its answer: no address gets more than it sends."""
    return _built(PATH, PacketType.PATH_CHALLENGE, packet)


def encode_path_response(packet: PathPacket) -> bytearray:
    """As long as the challenge."""
    return _built(PATH, PacketType.PATH_RESPONSE, packet)


def decode_path(datagram: memoryview) -> PathPacket:
    """A challenge or its answer. WireError: it is too short."""
    return PathPacket(*_fields(PATH, datagram))


def encode_keyed(answered: memoryview) -> bytearray:
    """The answer to an INIT or a LONE, of which it repeats the first bytes: so it is of somebody who saw that."""
    return _built(KEYED, PacketType.KEYED, (bytes(answered[PREFIX_SIZE : KEYED.size]),))


def decode_keyed(datagram: memoryview) -> bytes:
    """The first bytes of the packet that was answered, behind its prefix."""
    (repeated,) = _fields(KEYED, datagram)
    return bytes(repeated)


def encode_lone(message: Buffer) -> bytearray:
    """A message outside any connection."""
    return _built(PREFIX, PacketType.LONE, (), message)


def decode_lone(datagram: memoryview) -> bytes:
    """Its bytes, whoever sent them."""
    return bytes(datagram[PREFIX_SIZE:])


def encode_ack(packet: AckPacket) -> bytearray:
    """Ranges are (first, last), newest first; each travels as (packets skipped since the range above, length)."""
    pairs: List[int] = []
    above = packet.largest + 1
    for first, last in packet.ranges[:ACK_RANGES_MAX]:
        gap, length = above - last - 1, last - first + 1
        if gap >> 32 or length >> 32:
            break
        pairs += (gap, length)
        above = first
    count = len(pairs) // 2
    fields = (packet.connection_id, packet.largest, packet.delay_us, packet.credit, count)
    return _built(ACK_HEADER, PacketType.ACK, fields, _ACK_RANGES[count].pack(*pairs))


def decode_ack(datagram: memoryview) -> AckPacket:
    """An acknowledgement, its ranges from the highest down (RFC 9000 section 19.3); WireError or BadRanges."""
    connection_id, largest, delay_us, credit, count = _fields(ACK_HEADER, datagram)
    if count > ACK_RANGES_MAX or len(datagram) != ACK_HEADER_SIZE + 8 * count:
        raise BadRanges(connection_id)
    _check_credit(credit)
    pairs = _ACK_RANGES[count].unpack_from(datagram, ACK_HEADER_SIZE)
    ranges = []
    above = largest + 1
    for index in range(0, 2 * count, 2):
        last = above - pairs[index] - 1
        first = last - pairs[index + 1] + 1
        if first < 0 or first > last or (index and pairs[index] == 0):
            raise BadRanges(connection_id)
        ranges.append((first, last))
        above = first
    return AckPacket(connection_id, largest, delay_us, credit, ranges)


def encode_ping(connection_id: bytes, packet_number: int, floor: int, size: int = 0) -> bytearray:
    """A PING; with `size`, padded to that many bytes to probe the path's MTU (RFC 8899 §4.1)."""
    return _built(DATA_HEADER, PacketType.PING, (connection_id, packet_number, floor, 0, 0, 0), size=size)


def decode_data_header(datagram: memoryview) -> Tuple[bytes, int, int, int]:
    """Of DATA, BULK or PING: connection id, packet number, the oldest number of interest, stream offset."""
    if len(datagram) < DATA_HEADER_SIZE:
        raise WireError("too short for its type")
    _, _, _, _, connection_id, first, floor, offset, step, index = DATA_HEADER.unpack_from(datagram)
    if index >= BATCH_PACKETS_MAX:
        raise WireError("more packets than a batch has")
    _check_number(first - floor)
    _check_number(first + index)
    return connection_id, first + index, first - floor, offset + index * step


# ---- data


class BatchHead(NamedTuple):
    """What the headers of a batch have in common."""

    connection_id: bytes
    first: int  # packet number
    floor: int
    offset: int
    step: int  # bytes of payload in each packet but the last


def data_headers(head: BatchHead, payloads: Sequence[Buffer]) -> bytearray:
    """The headers of DATA packets, one behind the other, each with a checksum over header and payload."""
    headers = bytearray(DATA_HEADER_SIZE * len(payloads))
    view = memoryview(headers)
    for index, payload in enumerate(payloads):
        start, length = index * DATA_HEADER_SIZE, DATA_HEADER_SIZE + len(payload)
        DATA_HEADER.pack_into(headers, start, 0, VERSION, _DATA, length, *head, index)
        checksum = zlib.crc32(payload, zlib.crc32(view[start + 4 : start + DATA_HEADER_SIZE]))
        CHECKSUM.pack_into(headers, start, checksum)
    return headers


def bulk_headers(head: BatchHead, index: int, count: int, last_length: int) -> bytearray:
    """The headers of `count` BULK packets from that index on; the last of them has `last_length` bytes of payload.

    Each has for checksum the CRC-32 of what is the same in all (less checksum and index), xor that of its index. So a
    batch costs one CRC, and is written a column of bytes at a time.
    """
    same = count if last_length == head.step else count - 1
    headers = _numbered(_bulk_header(head, DATA_HEADER_SIZE + head.step), index, same) if same else bytearray()
    if same < count:
        headers += _numbered(_bulk_header(head, DATA_HEADER_SIZE + last_length), index + same, 1)
    return headers


def _bulk_header(head: BatchHead, length: int) -> bytes:
    """Of a packet with no index: to be combined with `_BULK_COLUMNS`."""
    header = DATA_HEADER.pack(0, VERSION, _BULK, length, *head, 0)
    return CHECKSUM.pack(zlib.crc32(header[_COVERED])) + header[4:]


def _numbered(header: bytes, index: int, count: int) -> bytearray:
    """This header so many times, with the indices from that one on."""
    headers = bytearray(header * count)
    for at, column in _BULK_COLUMNS:
        headers[at::DATA_HEADER_SIZE] = column[index : index + count].translate(_XOR[header[at]])
    return headers


_XOR = [bytes(byte ^ other for byte in range(256)) for other in range(256)]  # tables for bytes.translate


def _bulk_columns() -> List[Tuple[int, bytes]]:
    """What the headers of a batch differ by from one without index: (place in a header, the byte there of each)."""
    numbers = [each.to_bytes(2, "big") for each in range(BATCH_PACKETS_MAX)]
    checksums = b"".join(CHECKSUM.pack(zlib.crc32(each)) for each in numbers)
    columns = [(at, checksums[at :: CHECKSUM.size]) for at in range(CHECKSUM.size)]
    return [*columns, *((DATA_HEADER_SIZE - 2 + at, b"".join(numbers)[at::2]) for at in (0, 1))]


_BULK_COLUMNS = _bulk_columns()


class BulkRun(NamedTuple):
    """BULK packets of one batch, one behind the other."""

    head: BatchHead
    start: int  # index of the first
    packets: int
    size: int  # bytes of payload in all

    def one_by_one(self, payloads: Sequence[memoryview]) -> Iterator[Tuple[int, int, int, memoryview]]:
        """Its packets as they would have come alone: (number, oldest, offset, payload)."""
        head, oldest = self.head, self.head.first - self.head.floor
        for index, payload in enumerate(payloads, self.start):
            yield head.first + index, oldest, head.offset + index * head.step, payload


class Cuts(NamedTuple):
    """Where in a buffer of datagrams of one size each one's header and payload lie; of sealed ones, its tag, too."""

    headers: List[memoryview]
    payloads: List[memoryview]
    tags: Sequence[memoryview] = ()
    covered: Sequence[memoryview] = ()  # by the tags: all behind them


def cuts_of(buffer: memoryview, segment_size: int) -> Cuts:
    """Views that are good for whatever datagrams of that size stand in the buffer, as long as it is the same memory."""
    starts = range(0, len(buffer) - DATA_HEADER_SIZE, segment_size)
    return Cuts(
        [buffer[at : at + DATA_HEADER_SIZE] for at in starts],
        [buffer[at + DATA_HEADER_SIZE : at + segment_size] for at in starts],
    )


def decode_bulk_run(
    headers: bytes, last_length: int, segment_size: int, has_checksums: bool = True
) -> Optional[BulkRun]:
    """What lies at the front of datagrams of one size, if it is a run; else None, as of a datagram alone.

    Their headers lie here, one behind the other; the last datagram has `last_length` bytes of payload. A run's headers
    are the ones that its first header makes one expect: so no other is parsed or checked. Those of sealed datagrams,
    which were checked before, have something else where others have their checksums.
    """
    total = len(headers) // DATA_HEADER_SIZE
    fields = DATA_HEADER.unpack_from(headers)
    head, index = BatchHead(*fields[4:9]), fields[9]
    if total < 2 or fields[2] != _BULK or head.step != segment_size - DATA_HEADER_SIZE:
        return None
    count = _alike(headers, total)
    if count < total:
        headers, last_length = headers[: count * DATA_HEADER_SIZE], head.step
    if not 0 < last_length <= head.step or index + count > BATCH_PACKETS_MAX:
        return None
    if not head.floor <= head.first <= PACKET_NUMBER_MAX - BATCH_PACKETS_MAX:
        return None
    expected = bulk_headers(head, index, count, last_length)
    if headers != expected and (has_checksums or not _differ_in_checksums(headers, expected)):
        return None
    return BulkRun(head, index, count, (count - 1) * head.step + last_length)


def _differ_in_checksums(headers: bytes, expected: bytearray) -> bool:
    """Are they the same but for their checksums?"""
    differing = int.from_bytes(headers, "big") ^ int.from_bytes(expected, "big")
    return not differing & _behind_checksums(len(headers) // DATA_HEADER_SIZE)


@functools.lru_cache(maxsize=1024)
def _behind_checksums(count: int) -> int:
    """Ones for all bytes of so many headers but their checksums, as one large number."""
    return int.from_bytes((bytes(CHECKSUM.size) + b"\xff" * (DATA_HEADER_SIZE - CHECKSUM.size)) * count, "big")


def _alike(headers: bytes, total: int) -> int:
    """How many of so many headers may be of one batch: behind them those of another begin."""
    shared = headers[_HEAD]
    low, high = 1, total
    last = (total - 1) * DATA_HEADER_SIZE
    if headers[last + _HEAD.start : last + _HEAD.stop] == shared:
        return total
    while low < high:
        middle = (low + high) // 2
        at = middle * DATA_HEADER_SIZE
        is_alike = headers[at + _HEAD.start : at + _HEAD.stop] == shared
        low, high = (middle + 1, high) if is_alike else (low, middle)
    return low


def _bulk_checksum(datagram: memoryview) -> int:
    return zlib.crc32(datagram[_COVERED]) ^ zlib.crc32(datagram[_COVERED.stop : DATA_HEADER_SIZE])
