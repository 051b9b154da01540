"""What the round trips say: the rounds of acknowledgements, and the delays that were seen lately."""

from __future__ import annotations

import math


class _Round:
    """What happened while one window of packets was on its way."""

    __slots__ = ("delivered", "lost", "loss_ranges", "min_rtt", "rate", "rtts", "samples")

    def __init__(self) -> None:
        self.delivered = 0  # packets
        self.lost = 0  # packets
        self.loss_ranges = 0
        self.rate = 0.0  # bytes per second, the highest that the path showed
        self.min_rtt = math.inf
        self.rtts = 0.0  # sum, seconds
        self.samples = 0


class _RecentRtt:
    """The lowest round-trip time of one or two spans of time; a span without enough samples goes on."""

    SAMPLES = 8  # a lone sample, or three, may all have waited for the scheduler

    __slots__ = ("_before", "_lowest", "_samples", "_since")

    def __init__(self) -> None:
        self._before = math.inf
        self._lowest = math.inf
        self._samples = 0
        self._since = -math.inf

    def add(self, now: float, rtt: float, span: float) -> None:
        if now - self._since > span and self._samples >= self.SAMPLES:
            self._before, self._lowest = self._lowest, math.inf
            self._samples, self._since = 0, now
        self._lowest = min(self._lowest, rtt)
        self._samples += 1

    @property
    def lowest(self) -> float:
        return min(self._before, self._lowest)
