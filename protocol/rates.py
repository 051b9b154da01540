"""So much a second: buckets that fill, limits for each key, a rate as it is measured, and the highest of late."""

from __future__ import annotations

import math
from typing import Dict, Optional, Tuple


class Bucket:
    """So many a second, and a burst."""

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self.rate = rate
        self.burst = burst
        self.level = burst
        self.at = now

    def has(self, now: float, count: float = 1.0) -> bool:
        """Is there room for so many just now? Nothing is taken."""
        self.level = min(self.burst, self.level + max(0.0, now - self.at) * self.rate)
        self.at = max(self.at, now)
        return self.level >= count

    def take(self, now: float, count: float = 1.0) -> bool:
        """The same, and they are taken; False: nothing is."""
        if not self.has(now, count):
            return False
        self.level -= count
        return True

    def ready_at(self) -> float:
        return self.at + max(0.0, 1.0 - self.level) / self.rate


LIMIT_BURST_SECONDS = 0.25  # of a limit's rate that may pass at once after a rest
LIMIT_SPAN_MIN = 64 << 10  # bytes that are moved at once, however low the limit is


class Limit:
    """So many bytes a second at most, if it is set.

    What passes at once may be more than there is room for; then it is closed until that is made up for.
    """

    def __init__(self) -> None:
        self.rate: Optional[float] = None  # bytes per second; None: no limit
        self._level = 0.0
        self._at = 0.0

    def set_rate(self, rate: Optional[float], now: float) -> None:
        """Limit it from now on; None: no more."""
        self.rate, self._level, self._at = rate, 0.0, now

    def is_open(self, now: float) -> bool:
        """May more go on its way? As much as it likes: what is too much is waited for afterwards."""
        if self.rate is None:
            return True
        self._level = min(self.rate * LIMIT_BURST_SECONDS, self._level + max(0.0, now - self._at) * self.rate)
        self._at = max(self._at, now)
        return self._level > -1.0  # less than a byte is no reason to wait

    def count(self, size: int) -> None:
        """So many bytes pass; a negative number will not, after all."""
        if self.rate is not None:
            self._level -= size

    def open_at(self) -> float:
        """When it is open, if nothing passes until then."""
        return self._at if self.rate is None else self._at + max(0.0, -self._level) / self.rate

    def span(self, most: int) -> int:
        """How many bytes to move at once, so that a low limit makes no long pauses."""
        return most if self.rate is None else min(most, max(LIMIT_SPAN_MIN, int(self.rate * LIMIT_BURST_SECONDS)))


RATE_SECONDS = 5.0  # rates shown to people are smoothed over about this long
RATE_FIRST_SECONDS = 0.25  # the least time that a new rate is spread over


class Rate:
    """Bytes per second, smoothed over about 5 s; O(1) in time and memory."""

    def __init__(self, now: float, seconds: float = RATE_SECONDS) -> None:
        self._decay = 2.0 / seconds  # an exponential window's centre of mass is where a flat one has it
        self._started_at = now
        self._at = now
        self._weight = 0.0

    def add(self, size: int, now: float) -> None:
        """So many bytes came."""
        self._weight = self._weight * math.exp((self._at - now) * self._decay) + size
        self._at = now

    def per_second(self, now: float) -> float:
        """Bytes a second over the last few, weighted so that the latest count most."""
        # Before the window is full, divide by the part of it that exists, so that a start is not shown as slow.
        age = max(now - self._started_at, RATE_FIRST_SECONDS)
        covered = 1.0 - math.exp(-age * self._decay)
        return self._weight * math.exp((self._at - now) * self._decay) * self._decay / covered

    def age(self, now: float) -> float:
        return now - self._started_at


class RecentMaximum:
    """The highest value of the last one to two spans of time, in two buckets: O(1) in time and memory; 0 of none."""

    __slots__ = ("_since", "_span", "buckets", "value")

    def __init__(self, span: float) -> None:
        self._keep(0.0, 0.0)
        self._span = span  # seconds
        self._since = 0.0

    def _keep(self, highest: float, before: float) -> None:
        self.buckets = (highest, before)  # the highest of the present span and of the one before
        self.value = max(highest, before)  # of both: it is asked for at each packet

    def note(self, now: float, value: float) -> None:
        """There was such a value."""
        highest, before = self.buckets
        if now - self._since > self._span:
            highest, before, self._since = 0.0, highest, now
        self._keep(max(highest, value), before)

    def forget_old(self, now: float) -> None:
        """There is nothing to note: what is older than two spans counts no more all the same."""
        if now - self._since > 2 * self._span:
            self._keep(0.0, 0.0)

    def begin_with(self, value: float) -> None:
        """All before is history; this counts."""
        self._keep(value, 0.0)

    def recall(self, buckets: Tuple[float, float]) -> None:
        """What these held was forgotten by mistake."""
        (highest, before), (was_highest, was_before) = self.buckets, buckets
        self._keep(max(highest, was_highest), max(before, was_before))


HOSTS_COUNTED_MAX = 1024


class RateLimit:
    """So many in a second, for each key."""

    def __init__(self, per_second: int) -> None:
        self._per_second = per_second
        self._second = -1
        self._counts: Dict[str, int] = {}

    def allows(self, key: str, now: float) -> bool:
        """May there be one more for this key in this second? Then it is counted."""
        if int(now) != self._second:
            self._second = int(now)
            self._counts.clear()
        count = self._counts.get(key, 0)
        if count >= self._per_second:
            return False
        if count or len(self._counts) < HOSTS_COUNTED_MAX:  # beyond, forged hosts would keep the honest ones out
            self._counts[key] = count + 1
        return True
