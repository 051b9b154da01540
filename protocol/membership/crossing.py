"""Going over to another network: this node stays in its own one until the other has taken it in.

A `Crossing` is begun by a person, beside whatever the `Course` is about. When the Welcome and the roster of the other
network are complete it is ready; the owner then leaves the old network properly, which may take a moment, and what the
new supernode says meanwhile is kept. Pure.
"""

from __future__ import annotations

import math
from typing import Any, Callable, List, NamedTuple, Optional

from protocol.fields import Address
from protocol.membership.joining import Attempt, Elsewhere, Entered, Failed
from protocol.membership.view import Means

SAID_MAX = 256  # messages of the new supernode that are kept until this node is in its network


class Crossed(NamedTuple):
    """The other network has taken this node in."""

    entered: Entered
    search_port: int  # where people look for that network
    said: List[Any]  # by its supernode since then

    @property
    def link(self) -> int:
        """To that supernode."""
        return self.entered.link


class Crossing:
    """At most one way into another network."""

    def __init__(self, means: Means, send_join: Callable[[Attempt], None]) -> None:
        self._means = means
        self._send_join = send_join
        self._attempt: Optional[Attempt] = None
        self._entered: Optional[Entered] = None
        self._search_port = 0
        self._said: List[Any] = []
        self._done: Callable[[str, float], None] = lambda why, now: None

    def begin(self, address: Address, now: float, done: Callable[[str, float], None]) -> None:
        """Try the network there: done(why it takes nobody in, or nothing when it has, the time)."""
        self.give_up("trying elsewhere")
        self._search_port, self._done = address[1], done
        self._try(address, 0, now)

    def _try(self, address: Address, hops: int, now: float) -> None:
        self._attempt = Attempt(self._means, address, now, now, hops, is_search=True, is_to_another=True)
        self._act_on(self._attempt.dial(now), now)

    def owns(self, link: int) -> bool:
        return self._attempt is not None and link == self._attempt.link

    @property
    def is_trying(self) -> bool:
        """Is it still open whether the other network takes this node in?"""
        return self._attempt is not None and self._entered is None

    @property
    def is_ready(self) -> bool:
        """Has the other network taken this node in, and is the old one being left?"""
        return self._entered is not None

    def give_up(self, reason: str) -> None:
        """Nobody wants it any more."""
        attempt, self._attempt, self._entered = self._attempt, None, None
        self._said = []
        if attempt is not None:
            attempt.give_up(reason)

    def take(self) -> Optional[Crossed]:
        """The way is gone: the link is the new network's now. None if it has been lost meanwhile."""
        entered, said = self._entered, self._said
        if entered is None:
            self.give_up("the old network is left")
            return None
        self._attempt, self._entered, self._said = None, None, []
        return Crossed(entered, self._search_port, said)

    # ---- events of its link, and time

    def on_link_up(self, now: float) -> None:
        """The link of the attempt is there: it begins with our Join."""
        assert self._attempt is not None
        self._attempt.on_link_up(now)
        self._send_join(self._attempt)

    def on_link_lost(self, reason: str, now: float) -> None:
        """The link there is lost, before this node was taken in or while it leaves its own network."""
        assert self._attempt is not None
        if self._entered is None:
            self._act_on(self._attempt.on_link_lost(reason), now)
        else:  # the owner is about to come, and finds nothing
            self._attempt = self._entered = None

    def on_message(self, message: Any, now: float) -> None:
        """What comes by it; once this node is taken in, that is kept until it has left the other network."""
        assert self._attempt is not None
        if self._entered is None:
            self._act_on(self._attempt.on_message(message, now), now)
        elif len(self._said) < SAID_MAX:
            self._said.append(message)

    def next_deadline(self) -> float:
        return math.inf if self._attempt is None or self._entered is not None else self._attempt.next_deadline()

    def on_timer(self, now: float) -> None:
        if self._attempt is not None and now >= self.next_deadline():
            self._act_on(self._attempt.on_timer(now), now)

    def _act_on(self, finding: Any, now: float) -> None:
        if isinstance(finding, Elsewhere):
            self.give_up("trying elsewhere")
            self._try(finding.address, finding.hops, now)
        elif isinstance(finding, Failed):
            self.give_up(finding.reason)
            self._done(finding.reason, now)
        elif isinstance(finding, Entered):
            self._entered = finding
            self._done("", now)
