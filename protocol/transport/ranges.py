"""A set of numbers, kept as the ranges that they form."""

from __future__ import annotations

import bisect
from typing import Iterator, List, Tuple


class RangeSet:
    """A set of whole numbers as sorted, disjoint, half-open ranges.

    Two lists beside each other, and not one of pairs: so each can be searched by bisection as it is.
    """

    __slots__ = ("starts", "stops")

    def __init__(self) -> None:
        self.starts: List[int] = []
        self.stops: List[int] = []

    def __len__(self) -> int:
        return len(self.starts)

    def __bool__(self) -> bool:
        return bool(self.starts)

    def __iter__(self) -> Iterator[Tuple[int, int]]:
        return iter(zip(self.starts, self.stops))

    def __contains__(self, number: int) -> bool:
        index = bisect.bisect_right(self.starts, number) - 1
        return index >= 0 and number < self.stops[index]

    def add(self, start: int, stop: int) -> None:
        """Put [start, stop) in, merging what touches."""
        starts, stops = self.starts, self.stops
        # Packets come mostly in order, so nearly all there is to add lies behind the rest, or goes on with the last.
        if not stops or start > stops[-1]:
            starts.append(start)
            stops.append(stop)
            return
        if start == stops[-1]:
            stops[-1] = stop
            return
        # From the first range that ends at `start` or later to the last that begins at `stop` or before.
        left = bisect.bisect_left(stops, start)
        right = bisect.bisect_right(starts, stop)
        if left < right:
            start = min(start, starts[left])
            stop = max(stop, stops[right - 1])
        starts[left:right] = [start]
        stops[left:right] = [stop]

    def subtract(self, start: int, stop: int) -> None:
        """Take [start, stop) out."""
        starts, stops = self.starts, self.stops
        # The other way round than in `add`: what only touches loses nothing.
        left = bisect.bisect_right(stops, start)
        right = bisect.bisect_left(starts, stop)
        if left >= right:
            return
        kept = []
        if starts[left] < start:
            kept.append((starts[left], start))
        if stops[right - 1] > stop:
            kept.append((stop, stops[right - 1]))
        starts[left:right] = [a for a, _ in kept]
        stops[left:right] = [b for _, b in kept]

    def missing(self, start: int, stop: int) -> List[Tuple[int, int]]:
        """The parts of [start, stop) that are not in, ascending."""
        found = []
        index = bisect.bisect_right(self.stops, start)
        while start < stop and index < len(self.starts) and self.starts[index] < stop:
            if self.starts[index] > start:
                found.append((start, self.starts[index]))
            start = self.stops[index]
            index += 1
        if start < stop:
            found.append((start, stop))
        return found

    def forget_below(self, number: int) -> None:
        """Take out everything under that number."""
        count = bisect.bisect_right(self.stops, number)
        if count:
            del self.starts[:count]
            del self.stops[:count]
        if self.starts and self.starts[0] < number:
            self.starts[0] = number
