"""The bytes that wait to be sent or acknowledged: in order, without a copy of what is large, within a budget."""

from __future__ import annotations

import bisect
import functools
import operator
from typing import Callable, Dict, List, Optional, Sequence, Tuple

from protocol.fields import Buffer
from protocol.transport.frames import FRAME_HEADER, FRAME_HEADER_SIZE
from protocol.transport.ranges import RangeSet

BULK_SIZE_LEAST = 16 << 10  # a smaller part is not worth packets of its own
SMALL_PART_MAX = 4 << 10  # bytes: smaller parts are copied one behind the other, for a view costs as much as they do
TAIL_SIZE_LEAST, TAIL_SIZE_MAX = 256, 16 << 10  # bytes that small parts share; twice as many each time, while some wait
VIEW_COST = 512  # bytes that a waiting view costs beside what it shows (measured: 370, on CPython 3.9, 3.11 and 3.13)
# Bytes not yet delivered, at which the owner is told, each time the backlog falls so far: who feeds one link goes on at
# the first, while there is still something to send; who takes turns among many goes to the next at the last. For the
# first no more than UNSENT_LOW may be left that was not sent once: on a near path that comes later, and costs the
# owner fewer turns; on a far or lossy one most of a backlog is on its way, or waits behind what is missing.
BACKLOG_LOWS = (3 << 20, 64 << 10)
UNSENT_LOW = 1 << 20
SEND_BACKLOG_MAX = 64 << 20  # bytes that may wait in one connection; the verbs block long before, at BACKLOG_HIGH


class HeldMemory:
    """Memory that waits to be delivered, of all connections that share this; what several wait for counts once."""

    def __init__(self) -> None:
        self.total = 0  # bytes
        self._uses: Dict[int, int] = {}  # by id: whoever has a view holds its object, and nobody else has its id

    def take(self, view: memoryview) -> None:
        """A view waits, and with it the whole object that it shows a part of."""
        key = id(view.obj)
        uses = self._uses.get(key, 0)
        self._uses[key] = uses + 1
        self.total += VIEW_COST if uses else VIEW_COST + memoryview(view.obj).nbytes

    def give_back(self, view: memoryview) -> None:
        """It waits no more."""
        key = id(view.obj)
        uses = self._uses.pop(key) - 1
        if uses:
            self._uses[key] = uses
        self.total -= VIEW_COST if uses else VIEW_COST + memoryview(view.obj).nbytes


_NO_TAIL = memoryview(bytearray())


def _cut(view: memoryview, size: int) -> Sequence[memoryview]:
    """Views of it, of so many bytes each, the last of the rest."""
    count = -(-len(view) // size)
    return _cutter(size, count)(view) if count > 1 else [view]


@functools.lru_cache(maxsize=64)
def _cutter(size: int, count: int) -> Callable[[memoryview], Sequence[memoryview]]:
    """Slices that were made before, and are taken in one call, cost half of what a loop does."""
    return operator.itemgetter(*(slice(at, at + size) for at in range(0, count * size, size)))


class SendStream:
    """What is to be sent, in order, with offsets that never wrap.

    Small parts are copied into *tails*: memory of a fixed size, of which only what was not used yet is ever written, so
    that views of the rest stay good. Large parts are not copied.
    """

    def __init__(self, memory: Optional[HeldMemory] = None) -> None:
        self.end = 0  # offset behind the last byte handed over
        self.sent_to = 0  # offset behind the last byte that was sent once
        self.acknowledged_to = 0  # everything below is acknowledged and freed
        self.credit = 0  # how far the remote lets us go
        self._buffers: List[memoryview] = []
        self._starts: List[int] = []  # offset of each of them
        self._are_bulk: List[bool] = []  # does each of them carry a digest of its own?
        self._memory = memory or HeldMemory()
        self._tail = _NO_TAIL
        self._tail_start = self._tail_stop = 0  # where the last buffer lies in it, and what is used of it
        self._is_tail_last = False  # is the last buffer one of the tail, so that it can grow?
        self._acknowledged = RangeSet()  # above acknowledged_to
        self._lows_reached = len(BACKLOG_LOWS)  # of them, at which the backlog is, or below
        self._lost = RangeSet()  # to be sent again

    @property
    def backlog(self) -> int:
        """Bytes handed over and not yet acknowledged."""
        return self.end - self.acknowledged_to

    @property
    def cost(self) -> int:
        """Bytes of memory that wait here, those that others wait for as well included; 0 once it was released."""
        return self.backlog + VIEW_COST * len(self._buffers) if self._buffers else 0

    def write(self, part: Buffer, is_bulk: bool = False) -> None:
        """Append bytes; a part of SMALL_PART_MAX or more is not copied, and must not change until acknowledged."""
        size = len(part)
        if size >= SMALL_PART_MAX:
            self._append(memoryview(part), is_bulk)
            self._is_tail_last = False
        elif size:
            self._write_small(part, size)
        self.end += size

    def _append(self, view: memoryview, is_bulk: bool) -> None:
        self._memory.take(view)
        self._buffers.append(view)
        self._starts.append(self.end)
        self._are_bulk.append(is_bulk)

    def _write_small(self, part: Buffer, size: int) -> None:
        """Copy it behind the last small part: many small ones leave in one buffer."""
        start, stop = self._tail_stop, self._tail_stop + size
        if stop > len(self._tail):
            self._tail = memoryview(bytearray(max(TAIL_SIZE_LEAST, min(2 * len(self._tail), TAIL_SIZE_MAX), size)))
            self._is_tail_last = False
            start, stop = 0, size
        self._tail[start:stop] = part
        self._tail_stop = stop
        if self._is_tail_last:
            self._buffers[-1] = self._tail[self._tail_start : stop]
        else:
            self._tail_start = start
            self._is_tail_last = True
            self._append(self._tail[start:stop], False)

    def write_frame(self, kind: int, *parts: Buffer, is_bulk: bool = False) -> None:
        """`is_bulk`: the last part carries a digest of its own, and need not be covered by checksums."""
        size = sum(map(len, parts))
        header = FRAME_HEADER.pack(kind, size)
        if size < SMALL_PART_MAX - FRAME_HEADER_SIZE:
            self.write(b"".join((header, *parts)))
        else:
            self.write(header)
            for part in parts[:-1]:
                self.write(part)
            for part in parts[-1:]:
                self.write(part, is_bulk and len(part) >= BULK_SIZE_LEAST)
        self._note_backlog()

    def _note_backlog(self) -> None:
        self._lows_reached = min(self._lows_reached, self._lows())

    def has_drained(self) -> bool:
        """Did the backlog fall to one of BACKLOG_LOWS since this was asked last?"""
        before, self._lows_reached = self._lows_reached, self._lows()
        return self._lows_reached > before

    def _lows(self) -> int:
        """At how many of BACKLOG_LOWS it is, or below."""
        first, last = BACKLOG_LOWS
        if self.backlog <= last:
            return 2
        return int(self.backlog <= first and self.end - self.sent_to <= UNSENT_LOW)

    def allow(self, credit: int) -> None:
        """The remote lets us go as far as there (flow control)."""
        self.credit = credit

    def release(self) -> None:
        """Nothing of it will be sent any more: only its offsets are kept."""
        self._drop_first(len(self._buffers))

    def has_something(self) -> bool:
        """Is there anything that may be sent now, as far as credit goes?"""
        return self.sent_to < min(self.end, self.credit) or bool(self._lost)

    @property
    def unsent(self) -> int:
        """New bytes that may be sent; 0 while there are lost ones, which go first."""
        return 0 if self._lost else max(0, min(self.end, self.credit) - self.sent_to)

    def is_blocked(self) -> bool:
        """Everything that credit allows was sent, and there is more."""
        return self.sent_to >= self.credit and self.sent_to < self.end and not self._lost

    def next_range(self, size_max: int, payload_size: int) -> Optional[Tuple[int, int, int]]:
        """(offset, length, packets at its front that are not all bulk) of what to send next, in packets of that size:
        lost bytes first, then new ones within the credit.
        """
        if self._lost:
            start = self._lost.starts[0]
            stop, plain = self._until(start, min(self._lost.stops[0], start + size_max), payload_size)
            self._lost.subtract(start, stop)
            return start, stop - start, plain
        start = self.sent_to
        stop = min(self.end, self.credit, start + size_max)
        if stop <= start:
            return None
        self.sent_to, plain = self._until(start, stop, payload_size)
        return start, self.sent_to - start, plain

    def first_missing(self, size_max: int) -> Optional[Tuple[int, int]]:
        """(offset, length) of the sent bytes that the receiver needs next, to be sent again; None: it has them all.

        For anything behind them it may have no room; for these it always has.
        """
        start = self.acknowledged_to
        stop = min(start + size_max, self._acknowledged.starts[0] if self._acknowledged else self.sent_to)
        if stop <= start:
            return None
        self._lost.subtract(start, stop)
        return start, stop - start

    def _until(self, start: int, stop: int, payload_size: int) -> Tuple[int, int]:
        """How far from `start`, at most to `stop`, one batch reaches; how many packets at its front are not all bulk.

        What lies before a large part, a frame's header as a rule, shares a packet with its beginning: a packet of its
        own would be a batch of its own, and costs as much as twenty.
        """
        index = bisect.bisect_right(self._starts, start) - 1
        if self._are_bulk[index]:
            return min(self._stop_of(index), stop), 0
        starts, are_bulk = self._starts, self._are_bulk
        bulk = next((at for at in range(index, len(starts)) if are_bulk[at] or starts[at] >= stop), len(starts))
        plain = min(self._stop_of(bulk - 1), stop) - start
        if start + plain == stop:
            return stop, -(-plain // payload_size)
        if plain >= payload_size:
            return start + plain - plain % payload_size, plain // payload_size
        return min(self._stop_of(bulk), stop), 1

    def _stop_of(self, index: int) -> int:
        return self._starts[index] + len(self._buffers[index])

    def payloads(self, offset: int, length: int, payload_size: int) -> List[Buffer]:
        """The stream bytes of a range, cut into payloads; views into what was handed over where possible."""
        found: List[Buffer] = []
        end = offset + length
        while offset < end:
            index = bisect.bisect_right(self._starts, offset) - 1
            start, stop = self._starts[index], min(end, self._stop_of(index))
            if stop < end:
                stop -= (stop - offset) % payload_size  # the rest of it shares a payload with what follows
            if stop > offset:
                found += _cut(self._buffers[index][offset - start : stop - start], payload_size)
            else:
                stop = min(offset + payload_size, end)
                found.append(self._joined(index, offset, stop))
            offset = stop
        return found

    def _joined(self, index: int, offset: int, stop: int) -> bytes:
        parts = []
        while offset < stop:
            buffer, start = self._buffers[index], self._starts[index]
            part = buffer[offset - start : stop - start]
            parts.append(part)
            offset += len(part)
            index += 1
        return b"".join(parts)

    def on_acknowledged(self, start: int, stop: int) -> None:
        """The other end has these bytes: what is acknowledged from the beginning on is given free."""
        if stop <= self.acknowledged_to:
            return
        if self._lost:
            self._lost.subtract(start, stop)
        self._acknowledged.add(max(start, self.acknowledged_to), stop)
        if self._acknowledged.starts[0] <= self.acknowledged_to:
            self.acknowledged_to = self._acknowledged.stops[0]
            self._acknowledged.forget_below(self.acknowledged_to)
            self._free()

    def _free(self) -> None:
        count = bisect.bisect_right(self._starts, self.acknowledged_to) - 1
        if count >= 0 and self._starts[count] + len(self._buffers[count]) <= self.acknowledged_to:
            count += 1
        if count > 0:
            self._drop_first(count)

    def _drop_first(self, count: int) -> None:
        for view in self._buffers[:count]:
            self._memory.give_back(view)
        del self._buffers[:count]
        del self._starts[:count]
        del self._are_bulk[:count]
        if not self._buffers:  # who waits for nothing holds nothing
            self._tail = _NO_TAIL
            self._tail_stop = 0
            self._is_tail_last = False

    def on_lost(self, start: int, stop: int) -> None:
        """These bytes were lost with their packet; what was acknowledged otherwise stays acknowledged."""
        for a, b in self._acknowledged.missing(max(start, self.acknowledged_to), stop):
            self._lost.add(a, b)
