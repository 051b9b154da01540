"""The two byte streams of a connection, and the frames on them.

    SendStream      bytes handed over and not yet acknowledged; says which to send next
    ReceiveStream   puts bytes in order, counts credit (flow control), cuts the stream into frames

A *frame* is one byte of kind, four of length and the body. What the kinds mean is the business of `rdt.py`.
"""

from __future__ import annotations

from typing import Dict, List, Optional

from protocol.buffers import BufferPool
from protocol.transport.frames import (
    BODY_STEP,
    FRAME_COST,
    FRAME_HEADER,
    FRAME_HEADER_SIZE,
    FRAME_SIZE_MAX,
    FRAMES_WAITING_MAX,
    Frame,
    StreamViolation,
)
from protocol.transport.packets import DATA_HEADER_SIZE
from protocol.transport.ranges import RangeSet

RECEIVE_WINDOW_INITIAL = 64 << 10  # 2,048 strangers then hold 128 MiB at most
RECEIVE_WINDOW_MAX = 4 << 20  # one reader that stopped holds no more
GAPS_MAX = 1024  # runs of bytes that may wait for what is missing before them
RUN_SIZE_LEAST = 512  # bytes that a waiting run has on average, or there may be only GAPS_MAX of them


class ReceiveStream:
    """Bytes as they arrive, in any order; whole frames come out, but no more than `frames_max` unread ones."""

    def __init__(self, frames_max: int = FRAMES_WAITING_MAX, pool: Optional[BufferPool] = None) -> None:
        self.frames_max = frames_max
        self._pool = pool or BufferPool(0)
        self.next_offset = 0  # everything below has arrived
        self.window = RECEIVE_WINDOW_INITIAL
        self.credit = RECEIVE_WINDOW_INITIAL  # the remote may send up to here
        self._doubled_at = 0  # bytes that the reader had taken by then
        self._small = 0  # of these, bytes of small frames
        self.unconsumed = 0  # bytes of whole frames that the reader has not taken yet
        self.waiting = 0  # and how many frames these are
        self.late = 0  # bytes that arrived behind later ones
        self._held = RangeSet()  # above next_offset
        self._runs: Dict[int, bytes] = {}  # offset -> bytes, one for each piece of _held's ranges as it came
        self._header = bytearray()
        self._kind = 0
        self._body = bytearray()
        self._body_size = 0
        self._filled = 0
        self._in_body = False

    @property
    def whole_to(self) -> int:
        """Offset behind the last whole frame: what lies above is of no use to the reader."""
        begun = len(self._header) + (FRAME_HEADER_SIZE + self._filled if self._in_body else 0)
        return max(0, self.next_offset - begun)

    def held_bytes(self) -> int:
        """Memory that this stream holds."""
        return len(self._body) + self.unconsumed + sum(len(run) for run in self._runs.values())

    def would_fit(self, offset: int, size: int) -> bool:
        """Is there room to remember these bytes? (Else the packet is treated as lost.)"""
        runs_max = max(GAPS_MAX, self.window // RUN_SIZE_LEAST)
        has_room = len(self._held) < GAPS_MAX and len(self._runs) < runs_max
        return offset <= self.next_offset or has_room or not self._held.missing(offset, offset + size)

    def on_data(self, offset: int, payload: memoryview, frames: List[Frame]) -> None:
        """Take in stream bytes; whole frames are appended to `frames`. Where bytes overlap, the first ones count."""
        stop = offset + len(payload)
        if stop > self.credit:
            raise StreamViolation("sent more than the credit allows")
        if offset == self.next_offset and not self._held:
            self._feed(payload, frames)
            self.next_offset = stop
            return
        for a, b in self._held.missing(max(offset, self.next_offset), stop):
            if self._held and a < self._held.stops[-1]:
                self.late += b - a
            part = payload[a - offset : b - offset]
            if a == self.next_offset:
                self._feed(part, frames)
                self.next_offset = b
            else:
                self._runs[a] = bytes(part)
                self._held.add(a, b)
            self._drain(frames)

    def on_run(self, offset: int, size: int, datagrams: memoryview, step: int, frames: List[Frame]) -> bool:
        """Take in the payloads at the ends of a run's datagrams, if they are the next bytes of a body; else False."""
        filled = self._filled
        is_next = offset == self.next_offset and self._in_body and not self._held and offset + size <= self.credit
        if not is_next or filled + size > len(self._body):
            return False
        body = memoryview(self._body)[filled : filled + size]
        payloads = range(DATA_HEADER_SIZE, len(datagrams), DATA_HEADER_SIZE + step)
        for start, at in zip(payloads, range(0, size, step)):
            body[at : at + step] = datagrams[start : start + step]
        self._filled += size
        self.next_offset += size
        if self._filled == self._body_size:
            self._end_body(frames)
        return True

    def _drain(self, frames: List[Frame]) -> None:
        while True:
            run = self._runs.pop(self.next_offset, None)
            if run is None:
                break
            self._feed(memoryview(run), frames)
            self.next_offset += len(run)
        self._held.forget_below(self.next_offset)

    def _feed(self, data: memoryview, frames: List[Frame]) -> None:
        while len(data):
            if self._in_body:
                data = self._feed_body(data, frames)
            else:
                taken = FRAME_HEADER_SIZE - len(self._header)
                self._header += data[:taken]
                data = data[taken:]
                if len(self._header) == FRAME_HEADER_SIZE:
                    self._begin_body(frames)

    def _begin_body(self, frames: List[Frame]) -> None:
        self._kind, self._body_size = FRAME_HEADER.unpack(self._header)
        if self._body_size > FRAME_SIZE_MAX:
            raise StreamViolation("announced a message over the limit")
        self._header.clear()
        # Who has a large window has read as much already: its claims are within the bounds of all windows.
        is_trusted = self._body_size <= self.window
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
        self._body[self._filled : end] = data[:count]
        self._filled = end
        if end == self._body_size:
            self._end_body(frames)
        return data[count:]

    def _end_body(self, frames: List[Frame]) -> None:
        frames.append(Frame(self._kind, self._body))
        self.unconsumed += FRAME_HEADER_SIZE + self._body_size
        self.waiting += 1
        if self.waiting > self.frames_max:
            raise StreamViolation("sent more messages than anybody reads")
        self._body = bytearray()
        self._in_body = False

    def consume(self, size: int) -> None:
        """The reader has taken a frame of that size, header included."""
        self.unconsumed -= size
        self.waiting -= 1
        if size <= FRAME_COST:
            self._small += size
        assert self.unconsumed >= 0

    def is_window_used(self) -> bool:
        """Has the reader taken half a window's worth since the window was last made larger?

        Half: a window that only doubles when it was used up grows no faster than slow start, and holds it up.
        Small frames do not count: a larger window would only let more of them wait.
        """
        return self._taken() - self._doubled_at >= self.window // 2

    def _taken(self) -> int:
        return self.next_offset - self.unconsumed - self._small

    def double_window(self) -> None:
        self._doubled_at = self._taken()
        self.window *= 2

    def raise_credit(self) -> int:
        """Let the remote send as far as the reader has room for; by how much did the credit grow?"""
        limit = self.next_offset - self.unconsumed + self.window
        grown = max(0, limit - self.credit)
        self.credit += grown
        return grown
