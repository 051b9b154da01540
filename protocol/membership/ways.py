"""The ways between this node and the other members: where each of them is reached, and whether they reach this one.

`Knocking` finds a way to one whom a router keeps apart, `Reachable` finds out who gets in here; what either learns
counts for the other. The supernode, which sees all, is what they go by. Pure.
"""

from __future__ import annotations

from typing import Any, Callable, Optional, Sequence

from protocol.fields import Address
from protocol.membership.contracts import Audience, Owner, Speaker
from protocol.membership.knocking import Knocking
from protocol.membership.reachable import Reachable
from protocol.membership.view import Means
from protocol.messages import SHUT_ORDER, Introduce, Knock, Knocked, TryReach, Unasked
from protocol.messages import Reach as ReachFound
from protocol.results import NatKind, Reach


class Ways:
    """Of one member, in the network that it is in."""

    def __init__(
        self, means: Means, owner: Owner, audience: Audience, speaker: Speaker, own_ips: Callable[[], Sequence[str]]
    ) -> None:
        network, rng, prober, self._view = means
        self._audience = audience
        self._speaker = speaker
        self._knocking = Knocking(
            network, rng, self._view.node_id, own_ips,
            lambda address, now: prober.hearsay.on_answer(address, now), owner.on_reached, audience.on_reach_known,
        )  # fmt: skip
        self._reachable = Reachable(means, speaker, own_ips)

    def forget(self) -> None:
        """This node is in no network any more."""
        self._knocking.forget()
        self._reachable.forget()

    # ---- questions

    @property
    def reach(self) -> Reach:
        """Can others reach this node where it did not speak first?"""
        known = self._reachable.known
        return known._replace(nat=NatKind.SYMMETRIC) if self._knocking.is_port_changing else known

    def seen_place(self, node_id: bytes) -> Optional[Address]:
        """Where the roster means this member to be, as seen from here; None when it is unknown."""
        return self._view.seen_place(node_id)

    def place_of(self, node_id: bytes) -> Optional[Address]:
        """Where to contact this member, or None when it is unknown or must not be contacted."""
        return self._knocking.place_of(node_id, self.seen_place(node_id)) or self._view.place_of(node_id)

    def is_at(self, node_id: bytes, address: Address) -> bool:
        """Has this member, introduced by the supernode, shown that it receives there?"""
        return self._knocking.is_at(node_id, self.seen_place(node_id), address)

    def is_out_of_reach(self, node_id: bytes) -> bool:
        """Is it known beforehand that nothing leads directly to this member?"""
        entry, seen = self._view.roster.get(node_id), self.seen_place(node_id)
        is_shut = entry is not None and entry.order >= SHUT_ORDER and seen is not None
        return is_shut and self._knocking.is_port_changing and self._reachable.is_elsewhere(seen)

    def introduced_count(self) -> int:
        """Members that the supernode introduced, and of whom that still holds."""
        return len(self._knocking)

    # ---- verbs and events

    def ask_reach(self, now: float) -> None:
        """Have the supernode find out whether others can reach this node; `reach` tells it a few seconds later."""
        self._reachable.ask(now)

    def on_lone(self, address: Address, message: Any, now: float) -> bool:
        """A message came without a link; False: it is not about ways."""
        if type(message) is Knock:
            self._knocking.on_knock(address, message, now)
        elif type(message) is Knocked:
            self._knocking.on_knocked(address, message, now)
        elif type(message) is Unasked:
            self._reachable.on_unasked(message, now)
        else:
            return False
        return True

    def on_introduce(self, introduce: Introduce, now: float) -> None:
        """The supernode introduces another member: the two knock at each other's places."""
        if self._speaker.is_joined:
            self._knocking.on_introduce(introduce, self._view.seen_by_ruler(introduce.seen), now)

    def on_try_reach(self, message: TryReach, now: float) -> None:
        """The supernode asks this node to try whether another member is reached."""
        if self._speaker.is_joined:
            self._reachable.on_try(message, now)

    def on_reach(self, reach: ReachFound, now: float) -> None:
        """The supernode tells whether this node is reached."""
        self._reachable.on_reach(reach, now)
        self._audience.on_reach_known(now)

    # ---- time

    def next_deadline(self) -> float:
        return min(self._knocking.next_deadline(), self._reachable.next_deadline())

    def on_timer(self, now: float) -> None:
        self._knocking.on_timer(now)
        self._reachable.on_timer(now)
