"""The veil: TLS 1.3 between the ordered bytes of a connection and its frames. The inner layer of a network with a key.

    frames --VeiledSendStream--> records of TLS, sent, arrived in order --VeiledFramer--> frames

The client of the connection is that of TLS (RFC 8446), too; both sides show a certificate. The client of a TLS 1.3
handshake is done before the server has judged its certificate: so neither side is *admitted* until the other's first
frame is there, the BINDING. It repeats under TLS what both said of themselves before, in the clear: any difference is
an attack on the handshake, and ends the connection. What is to be sent waits until then.

    fresh --begin--> shaking hands --TLS is up: our BINDING goes out--> bound --their BINDING fits--> open
    any   --a false record, too many bytes, another BINDING--> StreamViolation, and the connection ends

Nothing is fed to TLS that could be no record; one at a time until the other side is admitted, then FED_AT_ONCE at most,
and each that is whole is read at once: so no garbage piles up in it.

Pure: bytes in, bytes out. This is the only file of `protocol/` that may import `ssl`, whose OpenSSL takes randomness
from the system, whatever `rng` a test has.
"""

from __future__ import annotations

import math
import ssl
import struct
from typing import Any, Callable, List, Optional, Sequence, Tuple

from protocol.buffers import BufferPool
from protocol.fields import Buffer
from protocol.transport.frames import (
    BINDING,
    FRAME_HEADER,
    FRAME_HEADER_SIZE,
    GOODBYE,
    Frame,
    Framer,
    StreamViolation,
    decode_reason,
)
from protocol.transport.sending import HeldMemory, SendStream

BINDING_VERSION = b"lab-share veil 1\0"
VEIL_TIMEOUT = 5.0  # seconds from the connection's being there to the other side's being admitted
HANDSHAKE_SIZE_MAX = 16 << 10  # bytes of the other side's before it is admitted
RECORD_HEADER = struct.Struct(">BHH")  # type, version, length of what follows (RFC 8446 section 5.1)
RECORD_SIZE_MAX = (1 << 14) + 256  # RFC 8446 section 5.2
RECORD_TYPES = (20, 21, 22, 23)  # change_cipher_spec, alert, handshake, application_data
PLAIN_SIZE_MAX = 1 << 14  # bytes that a record carries
DIRECT_READ_LEAST = 4 << 10  # of a frame's body still to come: fewer are read together with what follows
# AES-GCM is good for 2^24.5 records (RFC 8446 section 5.5): who sends ends the connection long before, in order; who
# receives more than that from one who does not, at once.
RECORDS_MAX, COVERED_SIZE_MAX = 1 << 23, 64 << 30  # records, bytes; one way
JOINED_BELOW = 8 << 10  # bytes of a frame: smaller parts share a record
# Bytes: what OpenSSL holds on its way in and out is copied, and copies in the processor's cache cost little.
COVERED_AT_ONCE = FED_AT_ONCE = 64 << 10
WORN_OUT = "this connection has carried as much as its keys are good for"


class Veil:
    """One side's TLS, and who is at the other end."""

    def __init__(self, context: ssl.SSLContext, is_client: bool) -> None:
        self.is_open = False  # the other side is admitted
        self.deadline = math.inf  # when it must be
        self.goodbye: Optional[str] = None  # why the other side closes, in its own words
        self.certificate: Optional[bytes] = None  # of the other side, once TLS is up; DER
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=not is_client)
        self._is_client = is_client
        self._meeting = b""
        self.is_up = False  # TLS is
        self._covered = self._fed = 0  # bytes of records, each way
        self._records = self._records_fed = 0

    @property
    def is_worn_out(self) -> bool:
        """Has this side sent as much as one key is good for?"""
        return self._covered >= COVERED_SIZE_MAX or self._records >= RECORDS_MAX

    def meet(self, meeting: bytes) -> None:
        """Both sides said this of themselves, in the clear."""
        self._meeting = meeting

    def begin(self, now: float) -> bytes:
        """The connection is there; the first bytes to send, if there are any."""
        self.deadline = now + VEIL_TIMEOUT
        return self._shake_hands() if self._is_client else b""

    def cover(self, parts: Sequence[Buffer]) -> bytes:
        """The records that carry these bytes."""
        for part in parts:
            if len(part):
                self._tls.write(part)  # type: ignore[arg-type]  # any buffer will do
                self._records += -(-len(part) // PLAIN_SIZE_MAX)
        return self._take_records()

    def cover_into(self, place: memoryview, part: Buffer) -> int:
        """The records that carry these bytes, put there; how many bytes they are, no more than `covered_max` says."""
        filled = 0
        with memoryview(part) as plain:
            for at in range(0, len(plain), COVERED_AT_ONCE):
                records = self.cover([plain[at : at + COVERED_AT_ONCE]])
                place[filled : filled + len(records)] = records
                filled += len(records)
        return filled

    def _take_records(self) -> bytes:
        records = self._outgoing.read()
        self._covered += len(records)
        return records

    # ---- what comes

    def feed(self, data: Buffer) -> None:
        """The next bytes of a record, and of no other. StreamViolation."""
        self._fed += len(data)
        if not self.is_open and self._fed > HANDSHAKE_SIZE_MAX:
            raise StreamViolation("its handshake is too long")
        self._incoming.write(data)

    def on_record(self) -> bytes:
        """A record is whole: what is to be said for it. StreamViolation."""
        self._records_fed += 1
        if self._records_fed > 2 * RECORDS_MAX or self._fed > 2 * COVERED_SIZE_MAX:
            raise StreamViolation("sends more than one key is good for")
        return b"" if self.is_up else self._shake_hands()

    def has_more(self) -> bool:
        """Is there more in the present record than was read?"""
        return self._tls.pending() > 0

    def read(self) -> bytes:
        """Bytes of one record; none: there are none in it. StreamViolation."""
        return self._read(PLAIN_SIZE_MAX) or b""

    def read_into(self, place: memoryview) -> int:
        """The same, into that place; how many."""
        return int(self._read(len(place), place))

    def _read(self, *wanted: Any) -> Any:
        """What whole records hold, by `SSLObject.read`; 0 where none is. StreamViolation: what came is no TLS."""
        found: Any = 0
        try:
            found = self._tls.read(*wanted)
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            raise _violation("sent a false record", error) from None
        else:
            if not found:
                raise StreamViolation("ended its TLS")
        # Once TLS is up it has nothing to say of its own: other keys, which it would answer, nobody asks for.
        if self._outgoing.pending:
            raise StreamViolation("wants other keys")
        return found

    def _shake_hands(self) -> bytes:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return self._take_records()
        except ssl.SSLError as error:
            raise _violation("its TLS handshake failed", error) from None
        self.is_up = True
        self.certificate = self._tls.getpeercert(binary_form=True)
        binding = self._binding(self._is_client)
        return self.cover([FRAME_HEADER.pack(BINDING, len(binding)) + binding])

    def _binding(self, of_client: bool) -> bytes:
        return BINDING_VERSION + (b"client" if of_client else b"server") + self._meeting

    def takes(self, frame: Frame) -> bool:
        """Is this frame for the veil itself? StreamViolation: it comes before the BINDING, or that is another."""
        if not self.is_open:
            if frame.kind != BINDING or bytes(frame.body) != self._binding(not self._is_client):
                raise StreamViolation("saw another handshake than this side")
            self.is_open = True
            self.deadline = math.inf
            return True
        if frame.kind == GOODBYE:
            self.goodbye = decode_reason(frame.body)
        return frame.kind in (BINDING, GOODBYE)


def covered_max(size: int) -> int:
    """Bytes of the records that carry so many, at most."""
    return size + -(-size // PLAIN_SIZE_MAX) * (RECORD_HEADER.size + RECORD_SIZE_MAX - PLAIN_SIZE_MAX)


def _violation(what: str, error: ssl.SSLError) -> StreamViolation:
    return StreamViolation(f"{what} ({error.reason or 'no reason'})")


class VeiledSendStream(SendStream):
    """Sends frames as records; they wait until the other side is admitted."""

    def __init__(self, memory: HeldMemory, veil: Veil, pool: BufferPool) -> None:
        """`pool`: where large records lie until they are acknowledged."""
        super().__init__(memory)
        self._veil, self._pool = veil, pool
        self._waiting: List[bytes] = []
        self.waiting_size = 0  # bytes of frames that wait for the other side to be admitted

    @property
    def backlog(self) -> int:
        """Bytes handed over and not yet acknowledged."""
        return self.end - self.acknowledged_to + self.waiting_size

    def write_frame(self, kind: int, *parts: Buffer, is_bulk: bool = False) -> None:
        """A frame. Each record proves its own bytes, and each packet has its tag: none needs a checksum over them."""
        size = sum(map(len, parts))
        header = FRAME_HEADER.pack(kind, size)
        if not self._veil.is_open:
            self._waiting += [header, *map(bytes, parts)]
            self.waiting_size += len(header) + size
        elif size < JOINED_BELOW:
            self.write_records(self._veil.cover([b"".join((header, *parts))]))
        elif size < BufferPool.SIZE_LEAST:
            self.write_records(self._veil.cover([b"".join((header, *parts[:-1])), parts[-1]]))
        else:
            self._write_large(b"".join((header, *parts[:-1])), parts[-1])

    def _write_large(self, front: bytes, last: Buffer) -> None:
        """Into memory that is used again: fresh from the system it costs nearly as much as the encryption."""
        place = memoryview(self._pool.take(covered_max(len(front)) + covered_max(len(last))))
        filled = self._veil.cover_into(place, front)
        filled += self._veil.cover_into(place[filled:], last)
        self.write_records(place[:filled])

    def write_records(self, records: Buffer) -> None:
        """What TLS made."""
        self.write(records, is_bulk=True)
        self._note_backlog()

    def open(self) -> None:
        """The other side is admitted: what waited goes out."""
        waiting, self._waiting, self.waiting_size = self._waiting, [], 0
        if waiting:
            self.write_records(self._veil.cover(waiting))


class VeiledFramer(Framer):
    """Takes records where a `Framer` takes frames; the frames are in them."""

    def __init__(
        self, veil: Veil, frames_max: int, pool: BufferPool, say: Callable[[bytes], None], trusted: Callable[[], int]
    ) -> None:
        """`say`: is handed what TLS has to say for what came; `trusted`: the size as in `Framer.feed`, of a run."""
        super().__init__(frames_max, pool)
        self._veil, self._say = veil, say
        self._record_header = bytearray()
        self._record_left = 0  # bytes of the present record still to come
        self._fed = self._whole = 0  # bytes of records: all, and up to where the last whole frame ends
        self._trusted, self._trusted_size = trusted, 0

    @property
    def begun(self) -> int:
        """Bytes behind the record that ended the last whole frame."""
        return self._fed - self._whole

    def feed(self, data: memoryview, trusted_size: int, frames: List[Frame]) -> None:
        """Take in the next bytes of the stream; whole frames are appended to `frames`."""
        self._trusted_size = trusted_size
        while len(data):
            data = data[self._feed_some(data[:FED_AT_ONCE], frames) :]

    def take_run(self, payloads: List[memoryview], size: int, step: int, frames: List[Frame]) -> bool:
        """Take in payloads, one behind the other."""
        if not self._veil.is_open:
            return False
        for data in payloads if step >= JOINED_BELOW else [memoryview(b"".join(payloads))]:
            self.feed(data, self._trusted(), frames)
        return True

    def _feed_some(self, data: memoryview, frames: List[Frame]) -> int:
        """Take in some records, but one at a time before the other side is admitted; how many bytes that is."""
        ends, taken = self._ends_in(data)
        self._veil.feed(data[:taken])
        before = self._fed
        for end in ends:
            self._fed = before + end
            self._end_record(frames)
        self._fed = before + taken
        return taken

    def _ends_in(self, data: memoryview) -> Tuple[List[int], int]:
        """Where records end in what can be taken in at once, and how much that is."""
        ends: List[int] = []
        at = 0
        while at < len(data) and (self._veil.is_open or not ends):
            try:
                at = self._behind_record(data, at)
            except StreamViolation:
                if not ends:
                    raise
                break  # first what came before it
            if not self._record_left and not self._record_header:
                ends.append(at)
        return ends, at

    def _behind_record(self, data: memoryview, at: int) -> int:
        """Where the rest of the present record ends, or the data does."""
        if not self._record_left:
            stop = min(len(data), at + RECORD_HEADER.size - len(self._record_header))
            self._begin_record(data[at:stop])
            at = stop
        part = min(len(data) - at, self._record_left)
        self._record_left -= part
        return at + part

    def _begin_record(self, data: memoryview) -> None:
        self._record_header += data
        if len(self._record_header) == RECORD_HEADER.size:
            kind, version, size = RECORD_HEADER.unpack(self._record_header)
            if kind not in RECORD_TYPES or version >> 8 != 3 or not 0 < size <= RECORD_SIZE_MAX:
                raise StreamViolation("sent what is no record of TLS")
            self._record_left = size
            self._record_header.clear()

    def _end_record(self, frames: List[Frame]) -> None:
        said = self._veil.on_record()
        if said or not self._veil.is_up:
            self._say(said)
        else:
            self._read_record(frames)
        if not super().begun:
            self._whole = self._fed

    def _read_record(self, frames: List[Frame]) -> None:
        before = len(frames)
        self._read_some(frames)
        while self._veil.has_more():
            self._read_some(frames)
        if len(frames) > before:
            frames[before:] = [frame for frame in frames[before:] if not self._is_taken(frame)]

    def _is_taken(self, frame: Frame) -> bool:
        is_taken = self._veil.takes(frame)
        if is_taken:
            self.consume(FRAME_HEADER_SIZE + len(frame.body))
        return is_taken

    def _read_some(self, frames: List[Frame]) -> None:
        place = super().place(min(self.room, PLAIN_SIZE_MAX)) if self.room >= DIRECT_READ_LEAST else None
        if place is not None:
            self._advance(self._veil.read_into(place), frames)
        else:
            super().feed(memoryview(self._veil.read()), self._trusted_size, frames)
