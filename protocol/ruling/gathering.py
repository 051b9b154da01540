"""Lines that are told to everybody: at once, or, where that is a large hall, those of a moment together.

To tell a thousand members one line costs a datagram and its acknowledgement for each, however short it is; several
lines at once cost hardly more. So in a large network a line that follows another one closely waits a little, the longer
the more there are: all lines together go to 1,430 members in a second at most, and none waits longer than 0.7 s.

Pure: `now` is monotonic seconds.
"""

from __future__ import annotations

import math
from typing import List

APART_EACH, APART_MAX = 0.0007, 0.7  # seconds between two tellings, for each member and at most
AT_ONCE_UP_TO = 64  # members: a class hears each line at once


class Gathering:
    """What is to be told soon, and when."""

    def __init__(self) -> None:
        self._waiting: List[bytes] = []
        self._told_at = -math.inf
        self._apart = 0.0

    def add(self, message: bytes, members: int) -> bool:
        """It is to be told to so many; does it wait? Else it goes now."""
        if members <= AT_ONCE_UP_TO:
            return False
        self._apart = min(APART_MAX, APART_EACH * members)
        self._waiting.append(message)
        return True

    def next_deadline(self) -> float:
        """When what waits is to be told; it may be over already."""
        return self._told_at + self._apart if self._waiting else math.inf

    def tell(self, now: float) -> List[bytes]:
        """The time has come: this goes out together."""
        self._told_at = now
        return self.take()

    def take(self) -> List[bytes]:
        """Something else is about to be told, before which this has to be."""
        waiting, self._waiting = self._waiting, []
        return waiting
