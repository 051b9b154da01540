"""When the next batch may leave, and how large it is: pacing (RFC 9002 §7.7).

A value with `now`. A batch costs its ends as much as twenty packets in it, so a pacer that sends packet by packet is
exact and slow. Here each kind of path gets its kind of batch:

    round trip under UNPACED_RTT   whatever the window lets go: timers are coarser than the path
    least of them under that       a part of the window, at most as large a batch: the rest of the round trip is a
                                   queue, or a machine that is busy, which large batches relieve
    least under NEAR_RTT           a part of the window, at most one segmented send: most of what is in flight stands
                                   in a queue anyway
    else                           PACING_QUANTUM of the pacing rate, and what a late timer may make up for

Where packets overtake each other the least is luck, and what an overtaken one took counts (`Recovery.reordering`): a
part of the window at once was more than the queue took, and only who had come while it was empty sent, and lost, so.
"""

from __future__ import annotations

import math

from protocol.rates import RecentMaximum
from protocol.transport.packets import BATCH_PACKETS_MAX, DATAGRAM_SIZE_MAX
from protocol.transport.recovery import SEGMENTS_MAX
from protocol.transport.rtt import RttEstimator

PACING_QUANTUM = 0.0005  # seconds of sending that leave in one batch
NEAR_RTT = 0.012  # seconds: on a shorter path most of what is in flight stands in a queue anyway, or in a busy machine
BURST_NEAR_PART = 1 / 4  # of the window: there a batch may have as much, for small ones cost most (as Linux lets TCP)
ROOM_NEAR = 22  # packets that are waited for there, within that part
PACING_CATCH_UP = 0.004  # seconds that a late timer may make up for
UNPACED_SIZE = 1100 << 10  # bytes that leave in one batch where nothing is paced: a piece of 1 MiB and its headers
UNPACED_PACKETS_MAX = BATCH_PACKETS_MAX // SEGMENTS_MAX * SEGMENTS_MAX  # in it: as many as whole sends take
UNPACED_RTT = 0.002  # seconds: on a shorter path timers are too coarse, and the window is pacing enough


class Pacer:
    """The pacer of one connection; it looks at the round trip that `Recovery` measures."""

    __slots__ = ("next_at", "_rtt", "_reordering", "_was_held")

    def __init__(self, rtt: RttEstimator, reordering: RecentMaximum) -> None:
        self.next_at = -math.inf  # the next batch may leave then
        self._rtt = rtt
        self._reordering = reordering
        self._was_held = False  # by the congestion window, since the last batch: then there is no time to make up for

    @property
    def _least(self) -> float:
        """The least round trip in seconds; where packets overtake each other that is luck, and the late ones count."""
        return max(self._rtt.minimum, self._reordering.value)

    def room_wanted(self, size: int, window: float, unsent: int) -> int:
        """Bytes of the congestion window that must be free for a batch of datagrams of that size.

        On a near path, where the next acknowledgement comes soon, enough for a good one; else acknowledgements of two
        packets would make batches of two for ever.
        """
        if self._least >= NEAR_RTT:
            return size
        return max(size, min(ROOM_NEAR * size, int(BURST_NEAR_PART * window), unsent))

    def begin(self, now: float) -> None:
        """The packets take another path: nothing is owed to the one before, and the next batch may leave now."""
        self.next_at = now

    def hold(self) -> None:
        """The congestion window lets nothing go."""
        self._was_held = True

    def late(self, now: float) -> float:
        """Seconds that the next batch may make up for: they would leave now in any case, one quantum after another."""
        return 0.0 if self._was_held else min(max(0.0, now - self.next_at), PACING_CATCH_UP)

    def burst(self, size: int, rate: float, window: float, room: int, late: float = 0.0) -> int:
        """Packets for one batch: a quantum's worth and what it is late, within window, batch and datagram limits.

        A batch costs its ends as much as twenty packets in it: thirty nodes of a class on one machine need large ones.
        """
        if self._least < UNPACED_RTT:
            burst = min(UNPACED_SIZE // size, UNPACED_PACKETS_MAX)
        else:
            burst = min(SEGMENTS_MAX, DATAGRAM_SIZE_MAX // size)
        if self._rtt.smoothed >= UNPACED_RTT:
            share = BURST_NEAR_PART * window if self._least < NEAR_RTT else rate * (PACING_QUANTUM + late)
            burst = min(max(2, int(share / size)), burst)
        return max(1, min(burst, room // size))

    def on_sent(self, size: int, rate: float, now: float) -> None:
        """So many bytes leave now, at that many bytes a second."""
        if self._rtt.smoothed >= UNPACED_RTT:
            since = now if self._was_held else now - PACING_CATCH_UP
            self.next_at = max(self.next_at, since) + size / rate
            self._was_held = False
