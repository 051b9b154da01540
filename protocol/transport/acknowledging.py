"""Which packets of a connection arrived, and when to say so (RFC 9000 §13.2).

A value with `now`: it is told the numbers of what arrived, and says when an acknowledgement is due (`due_at`) and what
stands in it. The sender tells with each packet the oldest number that it still cares for; what lies below is forgotten,
and counts as received.
"""

from __future__ import annotations

import math
from typing import List, NamedTuple, Tuple

from protocol.transport.packets import ACK_RANGES_MAX
from protocol.transport.ranges import RangeSet
from protocol.transport.rtt import RttEstimator

ACK_DELAY = 0.005  # a lone packet is acknowledged after this, or together with the next
ACK_EVERY = 2  # ack-eliciting packets
ACK_SPACING = 0.0007  # seconds, and at most 1/16 of the round trip; as much again for every ACK_SPACING_RANGES
ACK_SPACING_RANGES = 8  # ranges that it tells: a narrow way back (1 Mbit/s) holds no more
# Where much is in flight on a short path, an acknowledgement costs both ends as much as the packets that it tells of,
# and the sender waits for none of them before its window is used up: while packets flow in order each tells of a part.
# Not where less is in flight: what is freed at once is sent at once, and a small queue on the way would not hold that.
FLOW_RTT = 0.002  # seconds: on a shorter path
FLOW_SIZE = 512 << 10  # bytes in flight, or more
FLOW_PART = 2  # the part: one of so many
FLOW_PAUSE = 0.0005  # seconds without a packet: the sender waits for it now, or has no more
PACKET_NUMBER_JUMP_MAX = 1 << 20  # a number further above the largest seen is not believed
NUMBER_RANGES_MAX = 1024  # runs of received packet numbers remembered; older numbers count as received


class Acknowledgement(NamedTuple):
    """What an ACK says of the packets; ranges (first, last) newest first, the delay since the largest one came."""

    largest: int
    delay_us: int
    ranges: List[Tuple[int, int]]


class Acknowledging:
    """The numbers received by one side of a connection."""

    __slots__ = ("due_at", "largest", "numbers", "_acknowledged_at", "_credit_told", "_eliciting", "_forgotten_below",
                 "_is_flowing", "_largest_at", "_rtt", "_unacknowledged_at")  # fmt: skip

    def __init__(self, credit: int, rtt: RttEstimator, now: float) -> None:
        self.due_at = math.inf  # when an acknowledgement is to go out
        self.largest = -1
        self.numbers = RangeSet()
        self._forgotten_below = 0
        self._largest_at = now
        self._eliciting = 0  # ack-eliciting packets since our last acknowledgement
        self._unacknowledged_at = now  # when the first of them came
        self._is_flowing = False  # the acknowledgement is due when no more of them come
        self._acknowledged_at = -math.inf
        self._rtt = rtt
        self._credit_told = credit  # with the last acknowledgement, or in the handshake

    def begin(self, first_number: int) -> None:
        """The handshake told with which number the remote begins."""
        self.largest = first_number - 1
        self._forgotten_below = first_number

    def is_in_reach(self, number: int) -> bool:
        """May it be believed? Else one forged number would make all that are true look old."""
        return number <= self.largest + PACKET_NUMBER_JUMP_MAX

    def __contains__(self, number: int) -> bool:
        """Did it arrive, or is it so old that it counts as if?"""
        return number < self._forgotten_below or number in self.numbers

    def are_new(self, first: int, count: int) -> bool:
        """May so many numbers from that one on be believed, and did none of them arrive before?"""
        if first > self.largest:
            return self.is_in_reach(first)
        stop = first + count
        return first >= self._forgotten_below and self.numbers.missing(first, stop) == [(first, stop)]

    def hasten(self, now: float) -> None:
        """The acknowledgement is due at once."""
        self.due_at = now
        self._is_flowing = False

    def on_packets(self, first: int, count: int, oldest: int, size: int, now: float) -> None:
        """Packets with these numbers arrived, of so many bytes each; the sender cares for none before `oldest`."""
        last = first + count - 1
        in_order = first == self.largest + 1
        self.numbers.add(first, last + 1)
        if last > self.largest:
            self.largest = last
            self._largest_at = now
        if len(self.numbers) > NUMBER_RANGES_MAX:
            oldest = max(oldest, self.numbers.stops[0])
        if oldest > self._forgotten_below:
            self._forgotten_below = oldest
            self.numbers.forget_below(oldest)
        if not self._eliciting:
            self._unacknowledged_at = now
        self._eliciting += count
        if not in_order:
            self.hasten(now)  # RFC 9000 §13.2.1: the sender learns of a gap as soon as may be
        elif self._eliciting < ACK_EVERY:
            self.due_at = min(self.due_at, now + ACK_DELAY)
        elif self._may_flow(last - oldest, size):
            self._flow(now)
        else:
            self.due_at = min(self.due_at, max(now, self._acknowledged_at + self._spacing()))

    def _may_flow(self, in_flight: int, size: int) -> bool:
        """Does the sender, with so many packets of that size in flight, go on for a moment without being told?"""
        is_near = self._rtt.samples and self._rtt.minimum < FLOW_RTT
        is_much = in_flight * size >= FLOW_SIZE and FLOW_PART * self._eliciting < in_flight
        return bool(is_near) and is_much and len(self.numbers) <= 2  # one gap: a number that was left out

    def _flow(self, now: float) -> None:
        """Wait for more of them, unless an acknowledgement is due for another reason."""
        if self._is_flowing or self.due_at > now:
            self.due_at = min(now + FLOW_PAUSE, self._unacknowledged_at + ACK_DELAY)
            self._is_flowing = True

    def _spacing(self) -> float:
        """Seconds from one acknowledgement to the next while everything comes in order."""
        ranges, rtt = min(len(self.numbers), ACK_RANGES_MAX), self._rtt
        return min(ACK_SPACING, rtt.minimum / 16) * (1 + ranges / ACK_SPACING_RANGES) if rtt.samples else 0.0

    def on_credit(self, credit: int, window: int, now: float) -> None:
        """The remote may send so far: that is told when half of the receive window is news (RFC 9000 §4.2)."""
        if self.is_news(credit, window):
            self.hasten(now)

    def is_news(self, credit: int, window: int) -> bool:
        """Is that so much farther than what was told that the remote may soon wait for it?"""
        return credit - self._credit_told >= window // 2

    def take(self, credit: int, now: float) -> Acknowledgement:
        """The acknowledgement that goes out now, with that credit."""
        numbers = self.numbers
        ranges = [(a, b - 1) for a, b in zip(numbers.starts[-ACK_RANGES_MAX:], numbers.stops[-ACK_RANGES_MAX:])]
        ranges.reverse()
        largest = ranges[0][1] if ranges else max(self.largest, 0)
        self._eliciting = 0
        self._is_flowing = False
        self._acknowledged_at = now
        self.due_at = math.inf
        self._credit_told = credit
        return Acknowledgement(largest, min(int((now - self._largest_at) * 1e6), 0xFFFFFFFF), ranges)
