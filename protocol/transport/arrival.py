"""What one side of a connection takes in: packets by their numbers, bytes by their offsets, and whole frames out.

It joins `Acknowledging` (which numbers came, when to say so), `ReceiveStream` (order, credit) and its share of the
endpoint's `Intake`; the counterpart of `Flight`. A packet whose bytes find no room is treated as lost, and not
acknowledged: it comes again.
"""

from __future__ import annotations

from typing import Counter, List

from protocol import fields
from protocol.transport.acknowledging import Acknowledging
from protocol.transport.frames import FRAME_HEADER_SIZE, Frame, StreamViolation
from protocol.transport.intake import Intake
from protocol.transport.liveness import Liveness
from protocol.transport.packets import AckPacket, BulkRun, encode_ack
from protocol.transport.receiving import ReceiveStream
from protocol.transport.rtt import RttEstimator


class Arrival:
    """The packets that one side gets; whole frames wait for `take`, behind them the rule that the remote broke."""

    def __init__(
        self,
        receiving: ReceiveStream,
        intake: Intake,
        liveness: Liveness,
        rtt: RttEstimator,
        stats: Counter[str],
        now: float,
    ) -> None:
        self.acknowledging = Acknowledging(receiving.credit, rtt, now)
        self._receiving = receiving
        self._intake = intake  # of the endpoint, where that stream was opened
        self._unread = 0  # frames that are counted there
        self.violation = ""  # the rule of the stream that the remote broke; nothing is taken in after it
        self.frames: List[Frame] = []  # whole, and not taken from here yet
        self._is_over = False
        self._liveness = liveness
        self._stats = stats  # of the endpoint: what was dropped, by cause

    def on_run(self, run: BulkRun, payloads: List[memoryview], now: float) -> bool:
        """A run of BULK packets, if all are new and find room; else False, and nothing happened."""
        head, first, receiving = run.head, run.head.first + run.start, self._receiving
        offset = head.offset + run.start * head.step
        if not self.acknowledging.are_new(first, run.packets) or not receiving.would_fit(offset, run.size):
            return False
        try:
            if not receiving.on_run(offset, run.size, payloads, head.step, self.frames):
                receiving.on_data(offset, memoryview(b"".join(payloads)), self.frames)
        except StreamViolation as violation:
            self.violation = str(violation)
            return True
        self._on_numbers(first, run.packets, head.first - head.floor, head.step, now)
        return True

    def on_data(self, number: int, oldest: int, offset: int, payload: memoryview, now: float) -> bool:
        """A DATA packet; was it new? `payload` is only valid during the call. WireError: it has no data."""
        if not self._is_new(number, now):
            return False
        if not len(payload):
            raise fields.WireError("DATA without data")
        if not self._receiving.would_fit(offset, len(payload)):
            self._stats["dropped: too many gaps"] += 1
            return False
        try:
            self._receiving.on_data(offset, payload, self.frames)
        except StreamViolation as violation:
            self.violation = str(violation)
            return True
        self._on_numbers(number, 1, oldest, len(payload), now)
        return True

    def on_ping(self, number: int, oldest: int, now: float) -> bool:
        """A PING, which is answered at once; was it new?"""
        if not self._is_new(number, now):
            return False
        self._on_numbers(number, 1, oldest, 0, now)
        self.acknowledging.hasten(now)
        return True

    def _is_new(self, number: int, now: float) -> bool:
        if not self.acknowledging.is_in_reach(number):
            self._stats["dropped: packet number out of reach"] += 1
            return False
        if number in self.acknowledging:
            self._stats["dropped: duplicate"] += 1
            self._liveness.heard(now)
            self.acknowledging.hasten(now)  # our acknowledgement may have been lost
            return False
        return True

    def _on_numbers(self, first: int, count: int, oldest: int, size: int, now: float) -> None:
        self._liveness.heard(now)
        self.acknowledging.on_packets(first, count, oldest, size, now)

    # ---- the reader, and the room that it leaves

    def take(self) -> List[Frame]:
        """The frames that are whole, to be handed to the reader; from now on they count as unread."""
        frames, self.frames = self.frames, []
        self._count_unread()
        return frames

    def consume(self, body_size: int) -> None:
        """The reader has taken a frame with a body of so many bytes: there is room for others."""
        self._receiving.consume(FRAME_HEADER_SIZE + body_size)
        self._count_unread()

    def is_news(self, size: int) -> bool:
        """Would the remote be told at once that the reader has taken frames of so many bytes more? From any thread."""
        return self.acknowledging.is_news(self._receiving.limit(size), self._receiving.window)

    def _count_unread(self) -> None:
        """Bring the endpoint's count up to date: it is the sum of what waits in all streams that are not over."""
        unread = 0 if self._is_over else self._receiving.waiting
        self._intake.count(unread - self._unread)
        self._unread = unread

    def end(self) -> None:
        """The connection is over: its room is for others, though its reader may still have some of it to take."""
        self._is_over = True
        self._count_unread()
        self._intake.close(self._receiving)

    def ack(self, remote_id: bytes, now: float) -> bytearray:
        """The ACK that goes out now."""
        credit = self._receiving.credit
        largest, delay_us, ranges = self.acknowledging.take(credit, now)
        return encode_ack(AckPacket(remote_id, largest, delay_us, credit, ranges))

    def raise_credit(self, now: float) -> None:
        """Let the remote send as far as there is room, and say so when half of a window is news (RFC 9000 §4.2)."""
        receiving = self._receiving
        if not receiving.raise_credit():
            return
        self._intake.grow(receiving)
        receiving.raise_credit()
        self.acknowledging.on_credit(receiving.credit, receiving.window, now)
