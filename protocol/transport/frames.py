"""Frames: what the bytes of a connection are cut into. Their kinds, what stands in their bodies, and who cuts.

A *frame* is one byte of kind, four of length and the body. Nobody below the verbs (`rdt.py`, `sockets/`) and the links
(`links.py`) asks what a kind means; one that is not known is passed over, so that later versions may have more.

    kind           body                          kind           body
    MESSAGE        a whole message               FILE_RECEIPT   number, SHA-256 of what was kept
    FILE           number, size, name            FILE_REFUSED   number, reason; by either side
    FILE_DATA      number, bytes                 FILE_DAMAGED   number: once more, with checksums over its bytes
    FILE_END       number, SHA-256               PART           number, bytes of a message too long for one frame
    PART_DROPPED   number: the rest won't come   LAST_PART      number, the last of them
    BINDING        under a veil (`veil.py`)      GOODBYE        under a veil: why its sender closes

The number (4 bytes) tells the transfers of a connection apart, or its long messages. Pure.
"""

from __future__ import annotations

import struct
from typing import Dict, Iterator, List, NamedTuple, Optional, Tuple

from protocol.buffers import BufferPool
from protocol.fields import Buffer, harmless_words

FRAME_HEADER = struct.Struct(">BI")
FRAME_HEADER_SIZE = FRAME_HEADER.size
FRAME_SIZE_MAX = (1 << 20) + (1 << 16)  # a span of 1 MiB and what goes before it; a longer message is refused
FRAME_COST = 256  # bytes that a waiting frame costs beside its own
FRAMES_WAITING_MAX = 1 << 18  # whole frames that the reader has not taken: 64 MiB in the worst case
JOINED_BELOW = 8 << 10  # bytes: to join smaller payloads and copy them once more costs less than to assign each
BODY_STEP = 64 << 10  # a body's memory grows with what has arrived, not with what its header claims

MESSAGE = 0
FILE, FILE_DATA, FILE_END, FILE_RECEIPT, FILE_REFUSED = 1, 2, 3, 4, 5
PART, LAST_PART = 6, 7
FILE_DAMAGED = 8
PART_DROPPED = 9
BINDING, GOODBYE = 10, 11
MESSAGE_KINDS = (MESSAGE, PART, LAST_PART, PART_DROPPED)
FILE_CONTENT_KINDS = (FILE, FILE_DATA, FILE_END)
FILE_ANSWER_KINDS = (FILE_RECEIPT, FILE_DAMAGED, FILE_REFUSED)  # a FILE_REFUSED may also be the sender's

SPAN_SIZE = 1 << 20  # bytes of a file, or of a long message, in one frame
MESSAGE_SIZE_MAX = 64 << 20  # bytes that a receiver puts together
REASON_SIZE_MAX = 300  # bytes, and characters
_NUMBER = struct.Struct(">I")
_OFFER = struct.Struct(">IQ")


class StreamViolation(Exception):
    """The remote broke flow control or framing: the connection is closed with this reason."""


class Frame(NamedTuple):
    """A whole frame, as the reader gets it."""

    kind: int
    body: bytearray


# ---- bodies


class FileOffer(NamedTuple):
    """What a FILE says. `name` is a hint of the sender, and None where it is no UTF-8."""

    transfer: int
    size: int  # bytes
    name: Optional[str]


def encode_offer(transfer: int, size: int, name: str) -> bytes:
    """The body of a FILE: the number of the transfer, the size in bytes, the name."""
    return _OFFER.pack(transfer, size) + name.encode("utf-8", "replace")


def decode_offer(body: Buffer) -> Optional[FileOffer]:
    """None: it is too short to be one."""
    if len(body) < _OFFER.size:
        return None
    transfer, size = _OFFER.unpack_from(body)
    try:
        return FileOffer(transfer, size, bytes(body[_OFFER.size :]).decode("utf-8"))
    except UnicodeDecodeError:
        return FileOffer(transfer, size, None)


def encode_number(number: int) -> bytes:
    """With what every body but a MESSAGE's begins."""
    return _NUMBER.pack(number)


def number_of(body: Buffer) -> int:
    """The number of a transfer or long message; -1: the body is too short to have one."""
    return int(_NUMBER.unpack_from(body)[0]) if len(body) >= _NUMBER.size else -1


def behind_number(body: Buffer) -> memoryview:
    """The bytes, digest or reason behind the number."""
    return memoryview(body)[_NUMBER.size :]


def encode_reason(reason: str) -> bytes:
    """Words for a person; what is longer than REASON_SIZE_MAX is cut."""
    return reason.encode("utf-8", "replace")[:REASON_SIZE_MAX]


def decode_reason(said: Buffer) -> str:
    """The same words; what is no UTF-8, or would steer a terminal, is replaced by signs that say so."""
    return harmless_words(said)[:REASON_SIZE_MAX]


# ---- long messages


def parts_of(message: memoryview) -> Iterator[Tuple[int, memoryview]]:
    """(kind, bytes) of each frame that a long message is sent in, behind its number."""
    for start in range(0, len(message), SPAN_SIZE):
        yield PART if start + SPAN_SIZE < len(message) else LAST_PART, message[start : start + SPAN_SIZE]


class LongMessages:
    """Messages whose parts are under way; the parts of several may come mixed."""

    def __init__(self) -> None:
        self.size = 0  # bytes of all parts, with what each costs beside its own
        self._parts: Dict[bytes, List[bytearray]] = {}  # by number

    def take(self, frame: Frame) -> Optional[bytes]:
        """The message that is whole with this frame, if one is. StreamViolation: it is longer than any may be."""
        number, part = bytes(frame.body[: _NUMBER.size]), frame.body[_NUMBER.size :]
        if frame.kind != PART_DROPPED:
            self._parts.setdefault(number, []).append(part)
            self.size += len(part) + FRAME_COST
        if self.size > MESSAGE_SIZE_MAX + SPAN_SIZE:
            self._parts, self.size = {}, 0
            raise StreamViolation("sent a message that is too long")
        if frame.kind == PART or number not in self._parts:
            return None
        parts = self._parts.pop(number)
        self.size -= sum(len(part) + FRAME_COST for part in parts)
        return b"".join(parts) if frame.kind == LAST_PART else None


# ---- cutting the stream


class Framer:
    """Cuts bytes that come in order into frames, and counts those that the reader has not taken: `frames_max` at most.

    Bytes are copied once, into the body of their frame: `feed` does it, or whoever has them asks for the place.
    """

    def __init__(self, frames_max: int = FRAMES_WAITING_MAX, pool: Optional[BufferPool] = None) -> None:
        self.frames_max = frames_max
        self.unconsumed = 0  # bytes of whole frames that the reader has not taken yet, headers included
        self.waiting = 0  # and how many frames these are
        self._pool = pool or BufferPool(0)
        self._header = bytearray()
        self._kind = 0
        self._body = bytearray()
        self._body_size = 0
        self._filled = 0
        self._in_body = False

    @property
    def begun(self) -> int:
        """Bytes of the frame that is not whole yet."""
        return len(self._header) + (FRAME_HEADER_SIZE + self._filled if self._in_body else 0)

    @property
    def room(self) -> int:
        """Bytes of the present body that are still to come and have their memory."""
        return len(self._body) - self._filled if self._in_body else 0

    @property
    def held_bytes(self) -> int:
        """Memory of what is here."""
        return len(self._body) + self.unconsumed

    def feed(self, data: memoryview, trusted_size: int, frames: List[Frame]) -> None:
        """Take in the next bytes; whole frames are appended to `frames`.

        A body of up to `trusted_size` bytes gets all its memory at once.
        """
        while len(data):
            if self._in_body:
                data = self._feed_body(data, frames)
            else:
                taken = FRAME_HEADER_SIZE - len(self._header)
                self._header += data[:taken]
                data = data[taken:]
                if len(self._header) == FRAME_HEADER_SIZE:
                    self._begin_body(trusted_size, frames)

    def place(self, size: int) -> Optional[memoryview]:
        """Where the next bytes of the body go, to be told to `_advance`; None: there is no body with so much room."""
        end = self._filled + size
        return memoryview(self._body)[self._filled : end] if self._in_body and end <= len(self._body) else None

    def take_run(self, payloads: List[memoryview], size: int, step: int, frames: List[Frame]) -> bool:
        """Take in payloads of `step` bytes, the last of the rest, if they are the next bytes of a body; else False."""
        body = self.place(size)
        if body is None:
            return False
        if step < JOINED_BELOW:
            body[:] = b"".join(payloads)
        else:
            for at, payload in zip(range(0, size, step), payloads):
                body[at : at + step] = payload
        self._advance(size, frames)
        return True

    def consume(self, size: int) -> None:
        """The reader has taken a frame of that size, header included."""
        self.unconsumed -= size
        self.waiting -= 1
        assert self.unconsumed >= 0

    def _advance(self, size: int, frames: List[Frame]) -> None:
        self._filled += size
        if self._filled == self._body_size:
            self._end_body(frames)

    def _begin_body(self, trusted_size: int, frames: List[Frame]) -> None:
        self._kind, self._body_size = FRAME_HEADER.unpack(self._header)
        if self._body_size > FRAME_SIZE_MAX:
            raise StreamViolation("announced a message over the limit")
        self._header.clear()
        is_trusted = self._body_size <= trusted_size
        self._body = self._pool.take(self._body_size) if is_trusted else bytearray(BODY_STEP)
        self._filled = 0
        self._in_body = True
        if not self._body_size:
            self._end_body(frames)

    def _feed_body(self, data: memoryview, frames: List[Frame]) -> memoryview:
        count = min(len(data), self._body_size - self._filled)
        end = self._filled + count
        while end > len(self._body):
            grown = min(self._body_size - len(self._body), max(len(self._body), BODY_STEP))
            self._body.extend(bytes(grown))
        memoryview(self._body)[self._filled : end] = data[:count]  # to a bytearray it would be copied twice
        self._advance(count, frames)
        return data[count:]

    def _end_body(self, frames: List[Frame]) -> None:
        frames.append(Frame(self._kind, self._body))
        self.unconsumed += FRAME_HEADER_SIZE + self._body_size
        self.waiting += 1
        if self.waiting > self.frames_max:
            raise StreamViolation("sent more messages than anybody reads")
        self._body = bytearray()
        self._in_body = False
