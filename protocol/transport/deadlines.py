"""When each of many connections wants to be called: the next of all, without a look at every one."""

from __future__ import annotations

import heapq
import itertools
import math
from typing import Dict, Generic, Hashable, Iterator, List, Tuple, TypeVar

STALE_DEADLINES_MAX = 100  # alarms of the past that are tidied away together

Whose = TypeVar("Whose", bound=Hashable)


class Deadlines(Generic[Whose]):
    """One for each, at most: the earliest that was set since it was called last."""

    def __init__(self) -> None:
        self._heap: List[Tuple[float, int, Whose]] = []
        self._armed: Dict[Whose, float] = {}
        self._ties = itertools.count()

    def __contains__(self, one: Whose) -> bool:
        return one in self._armed

    def __len__(self) -> int:
        return len(self._armed)

    def next(self) -> float:
        """The earliest of all."""
        while self._heap and self._armed.get(self._heap[0][2]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else math.inf

    def set(self, one: Whose, deadline: float) -> None:
        """Call it then, or before: a later deadline than the one it has changes nothing, for it is asked anew then."""
        if deadline < self._armed.get(one, math.inf):
            self._armed[one] = deadline
            heapq.heappush(self._heap, (deadline, next(self._ties), one))
            if len(self._heap) > 2 * len(self._armed) + STALE_DEADLINES_MAX:
                self._drop_stale()

    def _drop_stale(self) -> None:
        """Each alarm that was replaced by an earlier one, or whose connection ended, still lies in the heap."""
        self._heap = [(deadline, next(self._ties), one) for one, deadline in self._armed.items()]
        heapq.heapify(self._heap)

    def due(self, now: float) -> Iterator[Whose]:
        """Those whose time has come; each has no deadline any more when it is given out."""
        while self._heap and self._heap[0][0] <= now:
            deadline, _, one = heapq.heappop(self._heap)
            if self._armed.get(one) == deadline:
                del self._armed[one]
                yield one

    def drop(self, one: Whose) -> None:
        """It is over."""
        self._armed.pop(one, None)
