"""Does anybody hear a cast? Now and then the caster leaves one slice out: who hears the rest misses it, and says so.

What takers report could be made up: three hosts would have a source send gigabytes to nobody, for a few words. Where
the slice was that is left out nobody can know who did not listen, as with the packet numbers that a sender skips
(RFC 9000 §21.4). It is sent as any that was lost, as soon as one has told it. Pure.
"""

from __future__ import annotations

import random
from typing import Any, Collection, List, Optional, Sequence, Set

from protocol.casts import HOLES_TOLD_MAX

APART_MIN, APART_TIME = 4 << 20, 0.5  # bytes, or seconds at the rate, from one to the next, by lot half of it more or
APART_SPREAD = 0.5  # less: who knew the piece could name all of it
SLICES_MIN = 3  # of a piece of which one is left out: never the first, nor the last
UNHEARD_MAX = 3  # one behind the other that nobody told: nobody hears it


class _Trial:
    """One slice that was left out."""

    def __init__(self, slice_index: int, number: int, handed: int, asked: Set[int]) -> None:
        self.slice = slice_index  # numbered through the content
        self.number = number  # of the last slice of its piece
        self.handed = handed  # bytes of the cast that were handed over by then
        self.asked = asked  # links of those who should miss it, and have not shown that they do not
        self.left_at: Optional[float] = None  # when all that had left


class Trials:
    """Those of one cast."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._next_at = 0.0  # bytes handed over
        self._open: List[_Trial] = []
        self._unheard = 0

    def choose(self, handed: int, slices: int, rate: float) -> Optional[int]:
        """Which slice of a piece of so many is to be left out, if any."""
        if handed < self._next_at or slices < SLICES_MIN:
            return None
        is_first = not self._next_at
        apart = max(APART_MIN, rate * APART_TIME)
        self._next_at = handed + apart * self._rng.uniform(1 - APART_SPREAD, 1 + APART_SPREAD)
        return None if is_first else self._rng.randrange(1, slices - 1)

    def begin(self, slice_index: int, number: int, handed: int, links: Collection[int]) -> None:
        """It was left out; `links`: of those to whom its piece comes by the cast."""
        self._open.append(_Trial(slice_index, number, handed, set(links)))

    def on_report(self, link: int, highest: int, holes: Sequence[Any]) -> int:
        """How many of them this one tells. Who has seen what came behind one, and does not, has not heard it."""
        told = [trial for trial in self._open if link in trial.asked and _is_in(trial.slice, holes)]
        for trial in self._open:
            if trial not in told and trial.number < highest and len(holes) < HOLES_TOLD_MAX:
                trial.asked.discard(link)
        if told:
            self._unheard = 0
        self._open = [trial for trial in self._open if trial not in told]
        return len(told)

    def are_unheard(self, sent: int, patience: float, now: float) -> bool:
        """Does nobody hear the cast, by now? To be asked each round; `sent`: bytes that have left so far."""
        for trial in list(self._open):
            if trial.left_at is None and sent >= trial.handed:
                trial.left_at = now
            if not trial.asked or (trial.left_at is not None and now - trial.left_at >= patience):
                self._open.remove(trial)
                self._unheard += 1
        return self._unheard >= UNHEARD_MAX


def _is_in(slice_index: int, holes: Sequence[Any]) -> bool:
    return any(first <= slice_index < first + slices for first, slices in holes)
