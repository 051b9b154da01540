"""Following to the next supernode, that the present one has named: by a handover, or as it steps down for another.

`Following` is the phase of a member that asks there until the named one rules; it says Found when that may be joined,
or Missed when it does not rule in time. Those who follow do not come all at once: each waits for its `Turn`. Pure.
"""

from __future__ import annotations

from typing import NamedTuple, Optional, Union

from protocol.fields import Address
from protocol.membership.joining import JOIN_TIMEOUT
from protocol.membership.queries import Purpose
from protocol.membership.searching import Found
from protocol.membership.view import Means
from protocol.messages import NOWHERE, ROLE_SUPERNODE, Answer

FOLLOW_TIME = 5.0  # seconds until the named one is missed: then another is elected
FOLLOW_INTERVAL = 0.15  # seconds between two questions there: it needs a moment to take over
FOLLOW_INTERVAL_EACH = 0.001  # seconds for each member: it is asked a thousand times a second at most
# What goes to a place that only messages named, and that has not answered lately (protocol/hearsay.py): the few
# datagrams that it may get are spread over the time in which an answer helps.
FOLLOW_APART = 1.0  # seconds
LOOK_AROUND_EACH = 0.005  # seconds for each member: all who hear it answer
REJOIN_JITTER_MAX = 3.0  # seconds; their questions, by which they hear of it, are spread over two more
REJOIN_JITTER_EACH = 0.003  # seconds for each member: with those 200 come in a second (THREATS: F13)


class Missed(NamedTuple):
    """The one who was to rule next does not."""

    address: Address


class Turn:
    """When this node joins the supernode that all others join, too; nobody is waited for at first."""

    def __init__(self, means: Means) -> None:
        self.at = 0.0
        self._address: Optional[Address] = None
        self._means = means

    @property
    def is_taken(self) -> bool:
        return self._address is not None

    def take(self, address: Address, now: float) -> None:
        """Wait for a turn at the supernode there."""
        spread = min(REJOIN_JITTER_MAX, REJOIN_JITTER_EACH * len(self._means.view.roster))
        self.at, self._address = now + self._means.rng.random() * spread, address

    def drop(self) -> None:
        self._address = None

    def come(self, now: float) -> Optional[Found]:
        """Is it our turn? Then it is used up."""
        if self._address is None or now < self.at:
            return None
        found, self._address = Found(self._address), None
        return found


class Following:
    """On the way to a supernode that was named."""

    def __init__(
        self, means: Means, turn: Turn, address: Address, node_id: bytes, term: int, search_port: int, now: float
    ) -> None:
        self._means = means
        self._search_port = search_port
        self._turn = turn
        self._address = address
        self._node_id = node_id
        self._term = term
        self._deadline = now + FOLLOW_TIME
        self._wake_at = now
        self._look_around_at: Optional[float] = None

    def next_deadline(self) -> float:
        return self._wake_at

    def pause(self, now: float) -> None:
        """It could not be joined; ask again after a moment."""
        self._wake_at = now + 2 * FOLLOW_INTERVAL

    def on_timer(self, now: float) -> Union[Found, Missed, None]:
        """Ask there once more, or go when our turn comes; after FOLLOW_TIME it is missed."""
        if now >= self._deadline:
            return Missed(self._address)
        if self._turn.is_taken:
            self._wake_at = self._turn.at
            return self._turn.come(now)
        if not self._means.view.can_reach(self._address[0]):
            self._look_around(now)
        elif self._address != NOWHERE:
            self._means.prober.ask(self._address, Purpose.FOLLOW, now, FOLLOW_APART)
        self._wake_at = now + max(FOLLOW_INTERVAL, FOLLOW_INTERVAL_EACH * len(self._means.view.roster))
        return None

    def _look_around(self, now: float) -> None:
        """The supernode saw it by IPv4 and this node has IPv6, or the other way round: it may be on this LAN, too."""
        interval = max(FOLLOW_APART, LOOK_AROUND_EACH * len(self._means.view.roster))
        if self._look_around_at is None:  # not all at once
            self._look_around_at = now + self._means.rng.random() * interval
        elif now >= self._look_around_at:
            self._look_around_at = now + interval
            self._means.prober.broadcast(self._search_port, Purpose.FOLLOW, now)

    def on_answer(self, address: Address, answer: Answer, now: float) -> None:
        """A member of our network has answered there: is it the one, and does it rule?"""
        is_it = answer.role == ROLE_SUPERNODE and answer.node_id == self._node_id and answer.term >= self._term
        if is_it and not self._turn.is_taken:
            self._turn.take(address, now)
            self._wake_at = self._turn.at
            # The wait for our turn is not the successor's delay.
            self._deadline = max(self._deadline, self._turn.at + JOIN_TIMEOUT)
