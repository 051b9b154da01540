"""The bytes that arrive: put in order, within the credit that the remote was given (flow control, RFC 9000 §4).

What the bytes are cut into is the business of the `Framer` (frames.py), to which they go in order.
"""

from __future__ import annotations

from typing import Dict, List, Optional

from protocol.buffers import BufferPool
from protocol.transport.frames import FRAME_COST, FRAMES_WAITING_MAX, Frame, Framer, StreamViolation
from protocol.transport.ranges import RangeSet

RECEIVE_WINDOW_INITIAL = 64 << 10  # 2,048 strangers then hold 128 MiB at most
RECEIVE_WINDOW_MAX = 4 << 20  # one reader that stopped holds no more
GAPS_MAX = 1024  # runs of bytes that may wait for what is missing before them
RUN_SIZE_LEAST = 512  # bytes that a waiting run has on average, or there may be only GAPS_MAX of them


class ReceiveStream:
    """Bytes as they arrive, in any order; whole frames come out, but no more than `frames_max` unread ones."""

    def __init__(self, frames_max: int = FRAMES_WAITING_MAX, pool: Optional[BufferPool] = None) -> None:
        self.framer = Framer(frames_max, pool)
        self.next_offset = 0  # everything below has arrived
        self.window = RECEIVE_WINDOW_INITIAL
        self.credit = RECEIVE_WINDOW_INITIAL  # the remote may send up to here
        self.late = 0  # bytes that arrived behind later ones
        self._doubled_at = 0  # bytes that the reader had taken by then
        self._small = 0  # of these, bytes of small frames
        self._held = RangeSet()  # above next_offset
        self._runs: Dict[int, bytes] = {}  # offset -> bytes, one for each piece of _held's ranges as it came

    def read_by(self, framer: Framer) -> None:
        """Before anything has come: its bytes are something else than plain frames."""
        assert not self.next_offset
        self.framer = framer

    @property
    def whole_to(self) -> int:
        """Offset behind the last whole frame: what lies above is of no use to the reader."""
        return max(0, self.next_offset - self.framer.begun)

    @property
    def is_awaiting(self) -> bool:
        """Is a frame half here, and may the rest of it come?"""
        return self.framer.begun > 0 and self.credit > self.next_offset

    @property
    def unconsumed(self) -> int:
        """Bytes of whole frames that the reader has not taken yet."""
        return self.framer.unconsumed

    @property
    def waiting(self) -> int:
        """Whole frames that the reader has not taken yet."""
        return self.framer.waiting

    def held_bytes(self) -> int:
        """Memory that this stream holds."""
        return self.framer.held_bytes + sum(len(run) for run in self._runs.values())

    def would_fit(self, offset: int, size: int) -> bool:
        """Is there room to remember these bytes? (Else the packet is treated as lost.)"""
        if offset <= self.next_offset:  # as a rule
            return True
        runs_max = max(GAPS_MAX, self.window // RUN_SIZE_LEAST)
        has_room = len(self._held) < GAPS_MAX and len(self._runs) < runs_max
        return has_room or not self._held.missing(offset, offset + size)

    def on_data(self, offset: int, payload: memoryview, frames: List[Frame]) -> None:
        """Take in stream bytes; whole frames are appended to `frames`. Where bytes overlap, the first ones count.

        Who has a large window has read as much already: a frame's claim of so many bytes is within the bounds of all.
        """
        stop = offset + len(payload)
        if stop > self.credit:
            raise StreamViolation("sent more than the credit allows")
        if offset == self.next_offset and not self._held:
            self.framer.feed(payload, self.window, frames)
            self.next_offset = stop
            return
        for a, b in self._held.missing(max(offset, self.next_offset), stop):
            if self._held and a < self._held.stops[-1]:
                self.late += b - a
            part = payload[a - offset : b - offset]
            if a == self.next_offset:
                self.framer.feed(part, self.window, frames)
                self.next_offset = b
            else:
                self._runs[a] = bytes(part)
                self._held.add(a, b)
            self._drain(frames)

    def on_run(self, offset: int, size: int, payloads: List[memoryview], step: int, frames: List[Frame]) -> bool:
        """Take in payloads of so many bytes, the last of the rest, if they are the next bytes of a body; else False."""
        if offset != self.next_offset or self._held or offset + size > self.credit:
            return False
        if not self.framer.take_run(payloads, size, step, frames):
            return False
        self.next_offset += size
        return True

    def _drain(self, frames: List[Frame]) -> None:
        while True:
            run = self._runs.pop(self.next_offset, None)
            if run is None:
                break
            self.framer.feed(memoryview(run), self.window, frames)
            self.next_offset += len(run)
        self._held.forget_below(self.next_offset)

    def consume(self, size: int) -> None:
        """The reader has taken a frame of that size, header included."""
        self.framer.consume(size)
        if size <= FRAME_COST:
            self._small += size

    def is_window_used(self) -> bool:
        """Has the reader taken half a window's worth since the window was last made larger?

        Half: a window that only doubles when it was used up grows no faster than slow start, and holds it up.
        Small frames do not count: a larger window would only let more of them wait.
        """
        return self._taken() - self._doubled_at >= self.window // 2

    def _taken(self) -> int:
        return self.next_offset - self.framer.unconsumed - self._small

    def double_window(self) -> None:
        """The reader may be behind by twice as much from now on."""
        self._doubled_at = self._taken()
        self.window *= 2

    def limit(self, more: int = 0) -> int:
        """How far there is room, once the reader has taken so many bytes more."""
        return self.next_offset - self.framer.unconsumed + more + self.window

    def raise_credit(self) -> int:
        """Let the remote send as far as the reader has room for; by how much did the credit grow?"""
        grown = max(0, self.limit() - self.credit)
        self.credit += grown
        return grown
