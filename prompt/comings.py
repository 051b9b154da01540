"""Lines of coming and going, gathered when many come: a flood of joins may not write a person's screen full.

A single coming is told at once, as are the first few in a row. After them one line stands for all that came and went
since the last one, by name if they are few. Whatever others do, that is LINES_BURST + 60 / LINES_INTERVAL lines in a
minute at most, and what waits is two numbers and a few names.

Pure: no clock; `now` is monotonic seconds.
"""

from __future__ import annotations

from typing import List, Union

from prompt.lines import count_of, line_for
from protocol.looks import safe_label
from protocol.rates import Bucket
from protocol.results import Joined, Left

LINES_BURST = 4  # lines at once: a group that sits down together is greeted one by one
LINES_INTERVAL = 12.0  # seconds for each line after them: with the burst, nine a minute
NAMES_MAX = 6  # in one line; of more only the number is told


class Comings:
    """What to tell of Joined and Left, and when."""

    def __init__(self, now: float) -> None:
        self._bucket = Bucket(1 / LINES_INTERVAL, LINES_BURST, now)
        self._waiting: List[Union[Joined, Left]] = []  # the first of them
        self._joined = self._left = self._nodes = 0

    def tell(self, event: Union[Joined, Left], now: float) -> str:
        """The line for it; empty when it is gathered."""
        is_first = not self._joined + self._left
        if is_first and self._bucket.take(now):
            return line_for(event, "")
        if len(self._waiting) < NAMES_MAX:
            self._waiting.append(event)
        self._joined += isinstance(event, Joined)
        self._left += isinstance(event, Left)
        self._nodes = event.count
        return ""

    def due(self, now: float) -> str:
        """The line for all that was gathered, when it is time for one; else empty."""
        return self.rest() if self._joined + self._left and self._bucket.take(now) else ""

    def rest(self) -> str:
        """The line for all that was gathered, at once."""
        line = self._summary() if self._joined + self._left else ""
        self._waiting, self._joined, self._left = [], 0, 0
        return line

    def _summary(self) -> str:
        total = self._joined + self._left
        if total == 1:
            return line_for(self._waiting[0], "")
        parts = []
        for number, kind, word in ((self._joined, Joined, "joined"), (self._left, Left, "left")):
            labels = [safe_label(event.label) for event in self._waiting if isinstance(event, kind)]
            if number:
                parts.append(f"{', '.join(labels) if total <= NAMES_MAX else number} {word}")
        return f"* {(', ' if total > NAMES_MAX else '; ').join(parts)} ({count_of(self._nodes, 'node')})"
