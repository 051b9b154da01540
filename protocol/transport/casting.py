"""How a cast's datagrams look, how the caster paces them, and how a taker puts pieces together from them.

A datagram of a cast is a header and one slice (`protocol/casts.py`), all numbers big-endian:

    checksum 4   CRC-32 of the rest of the header; the slice is checked by the digest of its piece
    version  1
    kind     1   SLICE, or PROBE: no slice, but as long, so that who hears one can hear all
    session  8
    number   4   rises by one with every slice sent; a probe has that of the last slice
    piece    4
    offset   4   of the slice in its piece, in bytes
    front    4   the slices below this were sent once, numbered through the content

`CastSender` and `CastReceiver` are values with `now`: no socket, no clock. Both live on the network thread.
"""

from __future__ import annotations

import functools
import math
import struct
import zlib
from collections import deque
from typing import Any, Deque, Dict, List, NamedTuple, Optional, Sequence, Tuple

from protocol.casts import (
    BRINGS_NOTHING,
    HOLE_SLICES_MAX,
    HOLES_TOLD_MAX,
    SLICE_SIZE,
    CastHeard,
    CastOver,
    CastPiece,
    CastPlan,
    CastReport,
    CastRoom,
    group_of,
    slice_size_of,
    slices_of,
)
from protocol.fields import Buffer, WireError
from protocol.transport.flight import Batch
from protocol.transport.recovery import SEGMENTS_MAX

VERSION = 1
SLICE, PROBE = 1, 2
CAST_HEADER = struct.Struct(">IBB8sIIII")
CAST_HEADER_SIZE = CAST_HEADER.size
_CHECKSUM = struct.Struct(">I")

BATCH_SLICES = 16  # in one system call, and never more in a burst; but as many more as fit into
BATCH_TIME = 0.005  # seconds at the rate: each batch costs every taker a read, and every switch's queue its length
PROBE_INTERVAL = 0.05  # seconds without a slice until a probe is sent
CATCH_UP = 0.01  # seconds that a late timer may make up for
ROOM_SECONDS, ROOM_MIN = 0.05, 256 << 10  # worth of the rate, or bytes, below which the caster is asked for more
UNREAD_MAX = 32 << 20  # bytes of whole pieces that are not verified yet: beyond, what comes is lost
PARTS_MAX = 24 << 20  # bytes of pieces that lie half here: beyond, the oldest is given up, and fetched by links
WHOLE_MAX, WHOLE_TIME = 2 << 20, 0.2  # bytes of whole pieces, and seconds, until they are handed on: one that comes
# alone wakes three threads as well as several do
SILENCE_MAX = 0.6  # seconds without a datagram until a cast that had begun counts as over: twelve probes. A caster on a
# machine that is full is away for 0.3 s and more, and when all leave it then, that fills the machine for good
LATE_MAX, LATE_TIMES = 0.1, 20  # seconds; who looks so much later than it wanted has not listened: it listens again,
# so many times in all
IDLE_MAX = 2.0  # seconds with probes alone, while something is missing: a disk may be slow
WORTH_TIME, WORTH_SLICES = 3.0, 520  # who gets fewer in so many seconds (250 kB/s) has more of the others
NEWS_TIME, NEWS_SLICES = 15.0, 2600  # and so has who gets fewer that it had not yet (250 kB/s): others come for others,
# and no true cast is slower; one that was could hold a class by it for a quarter of an hour
SLICES_MAX = 4  # slices that may come, in contents: a cast that goes on and on is none
NUMBER_STEP_MAX = 1 << 20  # a number so far beyond the last is no loss but nonsense
RUN_MAX = SEGMENTS_MAX  # datagrams that are looked at in one go: as many leave in one at most


class CastDatagram(NamedTuple):
    """What a header says."""

    kind: int
    session: bytes
    number: int
    piece: int
    offset: int
    front: int


def encode_cast_header(datagram: CastDatagram) -> bytes:
    """The header of one datagram."""
    header = bytearray(CAST_HEADER.pack(0, VERSION, *datagram))
    _CHECKSUM.pack_into(header, 0, zlib.crc32(memoryview(header)[4:]))
    return bytes(header)


def decode_cast_header(data: Buffer) -> CastDatagram:
    """The header in front of these bytes, or WireError."""
    if len(data) < CAST_HEADER_SIZE:
        raise WireError("shorter than the header of a cast")
    checksum, version, *fields = CAST_HEADER.unpack_from(data)
    if version != VERSION or checksum != zlib.crc32(memoryview(data)[4:CAST_HEADER_SIZE]):
        raise WireError("no header of a cast")
    return CastDatagram(*fields)


# ---- the caster's end


class _Span:
    """Slices of one piece that are to be sent."""

    __slots__ = ("piece", "offset", "data", "front", "at")

    def __init__(self, piece: int, offset: int, data: Buffer, front: Optional[int]) -> None:
        self.piece = piece
        self.offset = offset  # of `data` in the piece
        self.data = memoryview(data)
        self.front = front  # how far the cast has come when these are sent; None: as far as before
        self.at = 0  # bytes of it that are sent

    def take(self, slice_size: int) -> memoryview:
        """The next slice, which is sent now."""
        payload = self.data[self.at : self.at + slice_size]
        self.at += len(payload)
        return payload

    @property
    def is_sent(self) -> bool:
        """Is there no slice left?"""
        return self.at >= len(self.data)


class CastSender:
    """Cuts what it is given into datagrams and says when each batch of them may leave."""

    def __init__(self, session: bytes, rate: float, now: float, is_six: bool = False) -> None:
        self.group = group_of(session, is_six)
        self.rate = rate  # bytes per second
        self.backlog = 0  # bytes given and not sent
        self.events: List[Any] = []
        self._session = session
        self._slice_size = slice_size_of(is_six)
        self._datagram_size = CAST_HEADER_SIZE + self._slice_size
        self._spans: Deque[_Span] = deque()
        self._number = self._front = 0
        self._paced_at = self._probe_at = now
        self._wants_more = False

    def add(self, piece: int, offset: int, data: Buffer, front: Optional[int]) -> None:
        """Slices to send behind all others; each but a piece's last is whole."""
        self._spans.append(_Span(piece, offset, data, front))
        self.backlog += len(data)
        self._wants_more = True

    def set_rate(self, rate: float) -> None:
        """Send so many bytes a second from now on."""
        self.rate = rate

    def next_deadline(self) -> float:
        """When the next batch, or a probe, may leave."""
        return self._paced_at if self._spans else self._probe_at

    def next_batch(self, now: float) -> Optional[Batch]:
        """What leaves now, if it is time."""
        if now < self.next_deadline():
            return None
        batch = self._batch() if self._spans else self._probe()
        size = batch.count * self._datagram_size
        self._paced_at = max(self._paced_at, now - CATCH_UP) + size / self.rate
        self._probe_at = now + PROBE_INTERVAL
        self._ask_for_more()
        return batch

    def _ask_for_more(self) -> None:
        if self._wants_more and self.backlog <= max(ROOM_MIN, self.rate * ROOM_SECONDS):
            self._wants_more = False
            self.events.append(CastRoom(self._session))

    def _batch(self) -> Batch:
        """Slices of equal length, but for the last; of one piece or several."""
        buffers: List[Buffer] = []
        size = self._slice_size
        most = min(max(BATCH_SLICES, int(self.rate * BATCH_TIME / self._datagram_size)), SEGMENTS_MAX)
        while self._spans and size == self._slice_size and len(buffers) < 2 * most:
            span = self._spans[0]
            self._number += 1
            buffers += self._header(SLICE, span.piece, span.offset + span.at), span.take(self._slice_size)
            size = len(buffers[-1])
            self.backlog -= size
            if span.is_sent:
                self._spans.popleft()
                self._front = self._front if span.front is None else span.front
        return Batch(self.group, CAST_HEADER_SIZE + len(buffers[1]), len(buffers) // 2, 2, buffers)

    def _probe(self) -> Batch:
        return Batch(self.group, self._datagram_size, 1, 2, [self._header(PROBE, 0, 0), bytes(self._slice_size)])

    def _header(self, kind: int, piece: int, offset: int) -> bytes:
        return encode_cast_header(CastDatagram(kind, self._session, self._number, piece, offset, self._front))


# ---- a taker's end


@functools.lru_cache(RUN_MAX)
def _run_of(count: int, slice_size: int) -> struct.Struct:
    """Of each of so many datagrams: what its header begins with, number, piece, offset, front, and the slice."""
    return struct.Struct(">" + f"4x10s4I{slice_size}s" * count)


class _Part:
    """A piece of which some slices are here."""

    __slots__ = ("got", "length", "missing", "slices")

    def __init__(self, length: int, slices: int) -> None:
        self.length = length
        self.missing = slices
        self.got = bytearray(self.missing)
        self.slices = [b""] * self.missing

    def put(self, place: int, slices: Sequence[bytes]) -> None:
        """These are here now, one behind the other; none of them was before."""
        behind = place + len(slices)
        self.slices[place:behind] = slices
        self.got[place:behind] = b"\1" * len(slices)
        self.missing -= len(slices)


class _Yield:
    """Does so much come, in each time, that it is worth while?"""

    def __init__(self, each: float, least: int) -> None:
        self._each, self._least = each, least  # seconds, and how many in them
        self._at, self._before = math.inf, 0  # when it was last looked at, and how many had come by then

    def begin(self, now: float) -> None:
        """Look again in that time from now."""
        self._at = now

    def spare(self, now: float) -> None:
        """Half of the time at most counts: it may not have listened."""
        self._at = max(self._at, now - self._each / 2)

    def is_poor(self, total: int, now: float) -> bool:
        """That many have come, ever: were there too few since the last look? Looks only when it is time."""
        if now - self._at < self._each:
            return False
        came, self._before, self._at = total - self._before, total, now
        return came < self._least


class CastReceiver:
    """Puts the pieces of one cast together, knows what is missing, and says so in reports.

    Before `take` it only hears whether anything comes. It never holds more than PARTS_MAX and UNREAD_MAX.
    """

    def __init__(self, session: bytes) -> None:
        self.events: List[Any] = []
        self.dropped = 0  # datagrams that did not fit
        self._session = session
        self._plan: Optional[CastPlan] = None
        self._slice_size, self._datagram_size = SLICE_SIZE, CAST_HEADER_SIZE + SLICE_SIZE  # until that tells
        self._has_heard = False
        self._coming = bytearray()  # for each piece: is it still to come?
        self._left = 0  # pieces still to come
        self._parts: Dict[int, _Part] = {}
        self._parts_size = self._unread = 0
        self._whole: List[CastPiece] = []  # that are to be handed on,
        self._whole_size, self._whole_at = 0, math.inf  # and by when
        self._heard_at = self._slice_at = math.inf
        self._late_left = LATE_TIMES
        self._slices = self._news = 0  # that came, and of them those that were not here yet
        self._worth, self._worth_of_news = _Yield(WORTH_TIME, WORTH_SLICES), _Yield(NEWS_TIME, NEWS_SLICES)
        self._highest = self._told_highest = self._front = self._received = 0
        self._report_at = math.inf

    def take(self, plan: CastPlan, now: float) -> None:
        """From now on pieces are put together."""
        count = -(-plan.size // plan.piece_size)
        bits = ((plan.coming[index >> 3] >> (7 - (index & 7))) & 1 for index in range(count))
        self._plan, self._coming = plan, bytearray(bits)
        self._slice_size, self._datagram_size = plan.slice_size, CAST_HEADER_SIZE + plan.slice_size
        self._left = sum(self._coming)
        self._heard_at = self._slice_at = now
        self._worth.begin(now)
        self._worth_of_news.begin(now)
        self._report_at = now + plan.interval
        self._told_highest, self._received = self._highest, 0

    def done(self, size: int) -> None:
        """A piece of that size is verified and written, or thrown away."""
        self._unread -= size

    @property
    def is_taking(self) -> bool:
        """Are pieces put together?"""
        return self._plan is not None

    @property
    def interval(self) -> float:
        """Seconds between two reports."""
        return self._plan.interval if self._plan is not None else 0.0

    # ---- what comes

    def on_run(self, data: memoryview, segment_size: int, now: float) -> None:
        """Datagrams one behind the other, each but the last of that size."""
        for start in range(0, len(data), RUN_MAX * segment_size):
            some = data[start : start + RUN_MAX * segment_size]
            count = len(some) // segment_size if segment_size == self._datagram_size else 0
            whole = count * segment_size if count > 1 and self._on_slices(some, count, now) else 0
            for place in range(whole, len(some), segment_size):
                self._on_datagram(some[place : place + segment_size], now)

    def _on_slices(self, data: memoryview, count: int, now: float) -> bool:
        """So many datagrams, looked at in one go if they are what is usual: slices of one piece, in order.

        The checksum of the first is looked at; those behind it can only be what they are if their headers are whole.
        """
        fields = _run_of(count, self._slice_size).unpack_from(data)
        start, number, piece, offset, front = fields[:5]
        plan, size = self._plan, count * self._slice_size
        is_usual = (
            plan is not None
            and fields[0::6].count(start) == count
            and fields[1::6] == tuple(range(number, number + count))
            and fields[2::6].count(piece) == count
            and fields[3::6] == tuple(range(offset, offset + size, self._slice_size))
            and fields[4::6].count(front) == count
        )
        if plan is None or not is_usual or not self._is_ours(plan, data, size):
            return False
        self._heard_at = self._slice_at = now
        self._count(SLICE, count, number + count - 1, front)
        if self._coming[piece]:
            self._add(plan, piece, offset, fields[5::6])
        return True

    def _is_ours(self, plan: CastPlan, data: memoryview, size: int) -> bool:
        """Is this the header of so many bytes of slices that can be of this cast?"""
        try:
            head = decode_cast_header(data)
        except WireError:
            return False
        is_place = head.piece < len(self._coming) and not head.offset % self._slice_size
        return (
            self._has_heard and head.kind == SLICE and head.session == self._session and is_place
            and head.offset + size <= self._length(plan, head.piece)
        )  # fmt: skip

    def _on_datagram(self, data: memoryview, now: float) -> None:
        """Take in one datagram of the group, if it is of this cast."""
        try:
            head = decode_cast_header(data)
        except WireError:
            self.dropped += 1
            return
        if head.session != self._session or not self._fits(head, len(data) - CAST_HEADER_SIZE):
            self.dropped += 1
            return
        if self._plan is not None:
            self._heard_at = now
            self._slice_at = now if head.kind == SLICE else self._slice_at
        if not self._has_heard:
            self._has_heard = True
            self._highest = self._told_highest = max(0, head.number - (head.kind == SLICE))
            self.events.append(CastHeard(self._session))
        self._count(head.kind, 1, head.number, head.front)
        if head.kind == SLICE and self._plan is not None and self._coming[head.piece]:
            self._add(self._plan, head.piece, head.offset, (bytes(data[CAST_HEADER_SIZE:]),))

    def _fits(self, head: CastDatagram, size: int) -> bool:
        """Can a datagram of this cast be so?"""
        plan = self._plan
        if head.kind == PROBE or plan is None:
            return size <= self._slice_size
        length = self._length(plan, head.piece)
        is_place = head.kind == SLICE and not head.offset % self._slice_size and head.offset < length
        return is_place and size == min(self._slice_size, length - head.offset)

    @staticmethod
    def _length(plan: CastPlan, piece: int) -> int:
        return min(plan.piece_size, plan.size - piece * plan.piece_size)

    def _count(self, kind: int, count: int, number: int, front: int) -> None:
        """Datagrams of that kind have come, the last with that number."""
        if kind == SLICE:
            self._received += count
            self._slices += count
        if self._highest < number < self._highest + NUMBER_STEP_MAX:
            self._highest = number
        if self._plan is not None and front > self._front:
            self._front = min(front, len(self._coming) * self._plan.slices_each)

    def _add(self, plan: CastPlan, piece: int, offset: int, slices: Sequence[bytes]) -> None:
        """Slices of one piece, from `offset` on; those that are here already are left out."""
        part = self._parts.get(piece)
        if part is None:
            part = self._new_part(self._length(plan, piece), piece)
            if part is None:
                return
        place, missing = offset // self._slice_size, part.missing
        if part.got.find(1, place, place + len(slices)) < 0:
            part.put(place, slices)
        else:
            for index, slice_ in enumerate(slices, place):
                if not part.got[index]:
                    part.put(index, (slice_,))
        self._news += missing - part.missing
        if not part.missing:
            self._end_piece(piece)
            self._on_whole(CastPiece(self._session, piece, b"".join(part.slices)))

    def _on_whole(self, piece: CastPiece) -> None:
        """It is handed on when it has waited for others, or with them when they are enough, or it was the last."""
        self._whole.append(piece)
        self._whole_size += len(piece.data)
        self._unread += len(piece.data)
        self._whole_at = min(self._whole_at, self._heard_at + WHOLE_TIME)
        if self._whole_size >= WHOLE_MAX or not self._left:
            self._hand_on()

    def _hand_on(self) -> None:
        self.events += self._whole
        self._whole.clear()
        self._whole_size, self._whole_at = 0, math.inf

    def _new_part(self, length: int, piece: int) -> Optional[_Part]:
        if self._unread + length > UNREAD_MAX:
            return None  # as if it were lost: the caster slows down
        if self._parts_size + length > PARTS_MAX:
            self._end_piece(next(iter(self._parts)))
        self._parts_size += length
        part = self._parts[piece] = _Part(length, slices_of(length, self._slice_size))
        return part

    def _end_piece(self, piece: int) -> None:
        """It is here, or is given up: nothing of it is wanted of the cast any more."""
        part = self._parts.pop(piece, None)
        self._parts_size -= part.length if part is not None else 0
        self._coming[piece] = 0
        self._left -= 1

    # ---- what is told

    def next_deadline(self) -> float:
        """When whole pieces are to be handed on, a report is due, or the silence has lasted."""
        return min(self._whole_at, self._report_at, self._heard_at + SILENCE_MAX)

    def on_timer(self, now: float) -> None:
        """Hand on what is whole, and report, if it is time; or say that it is over."""
        if now >= self._whole_at:
            self._hand_on()
        if self._plan is None or now < self.next_deadline():
            return
        trouble = self._trouble(self._plan, now)
        if trouble:
            self._fall_silent()
            self.events.append(CastOver(self._session, trouble))
        elif now >= self._report_at:
            self._report(self._plan, now)

    def _fall_silent(self) -> None:
        """There is nothing more to tell."""
        self._hand_on()
        self._report_at = self._heard_at = math.inf
        self._plan = None

    def _trouble(self, plan: CastPlan, now: float) -> str:
        """Why this node does better without it; empty: it goes on. Whoever sends to the group might be anybody."""
        if now >= self._heard_at + SILENCE_MAX + LATE_MAX and self._late_left:
            self._late_left -= 1
            self._heard_at = now - SILENCE_MAX / 2
            self._slice_at = now
            self._worth.begin(now)
            self._worth_of_news.spare(now)
        if now >= self._heard_at + SILENCE_MAX:
            return "nothing comes any more"
        if now - self._slice_at >= IDLE_MAX:
            return "only probes come"
        if self._slices > SLICES_MAX * len(self._coming) * plan.slices_each:
            return "more comes than there is"
        if self._worth.is_poor(self._slices, now):
            return "it is too slow"
        return BRINGS_NOTHING if self._worth_of_news.is_poor(self._news, now) else ""

    def _report(self, plan: CastPlan, now: float) -> None:
        self._report_at = now + plan.interval
        expected, self._told_highest = self._highest - self._told_highest, self._highest
        received, self._received = self._received, 0
        lost, is_through = max(0, expected - received), not self._left
        holes = tuple(self._holes(plan))
        self.events.append(CastReport(self._session, self._highest, received, lost, holes, is_through))
        if is_through:
            self._fall_silent()

    def _holes(self, plan: CastPlan) -> List[Tuple[int, int]]:
        """The missing slices of all that was sent once, as runs; the first so many."""
        holes: List[Tuple[int, int]] = []
        behind = self._front // plan.slices_each
        piece = self._coming.find(1, 0, behind)
        while piece >= 0 and len(holes) < HOLES_TOLD_MAX:
            self._holes_of(plan, piece, holes)
            piece = self._coming.find(1, piece + 1, behind)
        return holes

    def _holes_of(self, plan: CastPlan, piece: int, holes: List[Tuple[int, int]]) -> None:
        part, first = self._parts.get(piece), piece * plan.slices_each
        count = slices_of(self._length(plan, piece), self._slice_size)
        got = part.got if part is not None else bytearray(count)
        start = got.find(0)
        while start >= 0 and len(holes) < HOLES_TOLD_MAX:
            end = got.find(1, start)
            end = count if end < 0 else end
            holes.append((first + start, min(end - start, HOLE_SLICES_MAX)))
            start = got.find(0, end)
