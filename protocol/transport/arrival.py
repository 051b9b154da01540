"""What one side of a connection takes in: packets by their numbers, bytes by their offsets, and whole frames out.

It joins `Acknowledging` (which numbers came, when to say so) and `ReceiveStream` (order, credit); the counterpart of
`Flight`. A packet whose bytes find no room is treated as lost, and not acknowledged: it comes again.
"""

from __future__ import annotations

from typing import Counter, List

from protocol import fields
from protocol.transport.acknowledging import Acknowledging
from protocol.transport.frames import Frame
from protocol.transport.liveness import Liveness
from protocol.transport.packets import AckPacket, BulkRun, encode_ack
from protocol.transport.receiving import ReceiveStream
from protocol.transport.recovery import RttEstimator


class Arrival:
    """The packets that one side gets. Whole frames are appended to the `frames` that its verbs are handed.

    StreamViolation: the remote broke a rule; then `frames` holds what was whole before it.
    """

    def __init__(
        self, receiving: ReceiveStream, liveness: Liveness, rtt: RttEstimator, stats: Counter[str], now: float
    ) -> None:
        self.acknowledging = Acknowledging(receiving.credit, rtt, now)
        self._receiving = receiving
        self._liveness = liveness
        self._stats = stats  # of the endpoint: what was dropped, by cause

    def on_run(self, run: BulkRun, payloads: List[memoryview], frames: List[Frame], now: float) -> bool:
        """A run of BULK packets, if it is just the next bytes of a frame's body; else False, and nothing happened."""
        head, first, numbers = run.head, run.head.first + run.start, self.acknowledging
        if not (numbers.largest < first and numbers.is_in_reach(first)):
            return False
        offset = head.offset + run.start * head.step
        if not self._receiving.on_run(offset, run.size, payloads, head.step, frames):
            return False
        self._on_numbers(first, run.packets, head.first - head.floor, now)
        return True

    def on_data(
        self, number: int, oldest: int, offset: int, payload: memoryview, frames: List[Frame], now: float
    ) -> bool:
        """A DATA packet; was it new? `payload` is only valid during the call."""
        if not self._is_new(number, now):
            return False
        if not len(payload):
            raise fields.WireError("DATA without data")
        if not self._receiving.would_fit(offset, len(payload)):
            self._stats["dropped: too many gaps"] += 1
            return False
        self._receiving.on_data(offset, payload, frames)
        self._on_numbers(number, 1, oldest, now)
        return True

    def on_ping(self, number: int, oldest: int, now: float) -> bool:
        """A PING, which is answered at once; was it new?"""
        if not self._is_new(number, now):
            return False
        self._on_numbers(number, 1, oldest, now)
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

    def _on_numbers(self, first: int, count: int, oldest: int, now: float) -> None:
        self._liveness.heard(now)
        self.acknowledging.on_packets(first, count, oldest, now)

    def ack(self, remote_id: bytes, now: float) -> bytearray:
        """The ACK that goes out now."""
        credit = self._receiving.credit
        largest, delay_us, ranges = self.acknowledging.take(credit, now)
        return encode_ack(AckPacket(remote_id, largest, delay_us, credit, ranges))

    def raise_credit(self, now: float) -> None:
        """Let the remote send as far as there is room, and say so when half of a window is news (RFC 9000 §4.2)."""
        receiving = self._receiving
        receiving.raise_credit()
        self.acknowledging.on_credit(receiving.credit, receiving.window, now)
