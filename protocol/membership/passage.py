"""A person's way from one network into another, from the wish on: looked at, tried, and the old one left for it.

The invariant is that a node leaves its network only for one that has taken it in (`crossing.py`); whoever stays hears
why. Pure.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Callable, Optional, Sequence

from protocol.addresses import shown
from protocol.fields import Address
from protocol.membership.membership import Membership
from protocol.membership.tidings import Tidings
from protocol.messages import Answer

Depart = Callable[[str, float, Callable[[], None]], None]  # why, now, then


class Passage:
    """At most one other network that this node is on its way to; Membership knows which."""

    def __init__(
        self,
        membership: Membership,
        tidings: Tidings,
        depart: Depart,
        hear: Callable[[int, Any, float], None],
        clock: Callable[[], float],
    ) -> None:
        """`depart`: leave the present network. `hear`: take what came by a link of the supernode."""
        self._membership = membership
        self._tidings = tidings
        self._depart = depart
        self._hear = hear
        self._clock = clock

    def go_to(self, there: Address, now: float, others: Sequence[Address] = ()) -> None:
        """Go to the network there, once that has taken this node in; `others`: more addresses of that machine."""
        membership = self._membership
        if membership.is_crossing:
            self._tidings.stays("refused", there, "You are on your way into another network already.")
        elif there == membership.supernode_address or there == membership.network.address:
            self._tidings.stays("refused", there, "You are in that network already.")
        else:
            membership.look_at(there, now, self._on_looked, others)

    def stay(self) -> None:
        """Go nowhere after all; too late once another network has taken this node in."""
        if self._membership.is_crossing:
            self._tidings.on_notice("the other network has taken this node in already")
        elif self._membership.is_trying_another:
            self._membership.stay("its person stays")
            self._tidings.on_notice("the other network is not tried any more; you stay where you are")

    def _on_looked(self, there: Address, answer: Optional[Answer]) -> None:
        if answer is None:
            self._tidings.stays("nobody", there, f"Nobody answers at {shown(there)}; you stay where you are.")
        elif answer.network_id == self._membership.network_id:
            self._tidings.stays("refused", there, "You are in that network already.")
        else:
            self._membership.cross_to(there, self._clock(), partial(self._on_tried, there))

    def _on_tried(self, there: Address, why_not: str, now: float) -> None:
        if why_not:
            told = f"The network at {shown(there)} does not take you in ({why_not}); you stay where you are."
            self._tidings.stays("refused", there, told)
        else:
            self._depart("you left that network", now, partial(self._cross_over, there))

    def _cross_over(self, there: Address) -> None:
        """The old network is left; should the new one be gone by now, it is looked for as at a start."""
        crossed = self._membership.cross_over(self._clock())
        if crossed is None:
            self._membership.start(there, there[1], self._clock())
            return
        for message in crossed.said:
            if self._membership.owns(crossed.link):  # one of them may have sent this node elsewhere
                self._hear(crossed.link, message, self._clock())
