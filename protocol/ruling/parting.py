"""The end of a reign: what was said last is on its way to the members, each of whom is let go once it is there.

Who leaves in order waits for that, for a while; who comes meanwhile is sent to the one that rules next. Pure.
"""

from __future__ import annotations

import math
from typing import Callable, Iterable, Optional, Set

from protocol.fields import Address
from protocol.messages import NOWHERE, NotSupernode

HANDOVER_TIME = 2.0  # seconds for the last messages to be delivered


class Parting:
    """A supernode's end; it has not begun while it rules."""

    def __init__(self) -> None:
        self.has_begun = False
        self._successor: Optional[Address] = None  # where the members are sent
        self._links: Set[int] = set()  # on which the last messages are on their way
        self._until = math.inf
        self._done: Optional[Callable[[], None]] = None

    def when_over(self, done: Callable[[], None]) -> None:
        """Who waits until everything is delivered, or the time for it is over."""
        self._done = done

    def begin(self, successor: Optional[Address], now: float) -> None:
        """It rules no longer; None: nobody is known who does."""
        self.has_begun = True
        self._successor = successor
        self._until = now + HANDOVER_TIME

    def farewell(self, term: int) -> NotSupernode:
        """What those are told who come now."""
        return NotSupernode(term, self._successor or NOWHERE)

    def await_end_of(self, links: Iterable[int]) -> None:
        """They are closed, each after what was sent on it."""
        self._links = set(links)

    def lose_link(self, link: int) -> None:
        """All is delivered there that will be."""
        self._links.discard(link)

    def is_awaiting(self, link: int) -> bool:
        """Was it a member's until just now?"""
        return link in self._links

    def next_deadline(self) -> float:
        return self._until

    def check(self, now: float) -> None:
        """Is it over?"""
        if self.has_begun and (not self._links or now >= self._until):
            self._links.clear()
            self._until = math.inf
            done, self._done = self._done, None
            if done is not None:
                done()
