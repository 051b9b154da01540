"""Can others reach this node where it did not speak first? It has the supernode ask one of them to try.

Whoever is asked to try sends two small datagrams from a port to which nobody ever sent anything, and so gets through
no firewall and no router that lets in answers only. What they say is known only where they come in; the node that is
tried tells it to the supernode, and hears what came of it. Nothing is sent back to where they come from.

`Reachable` belongs to the `Membership`. Pure.
"""

from __future__ import annotations

import math
from typing import Callable, List, Optional, Sequence, Tuple

from protocol.addresses import is_loopback, is_of_one_host, may_contact
from protocol.fields import Address
from protocol.hearsay import HOST_UNANSWERED_MAX, MINUTE, TRIES_MAX, Hearsay
from protocol.membership.contracts import Speaker
from protocol.membership.view import Means
from protocol.messages import NOWHERE, Reach, Reached, ReachWanted, Tried, TryReach, Unasked, encode
from protocol.rates import Bucket
from protocol.results import NatKind
from protocol.results import Reach as Known

SEND_INTERVAL = 0.3  # seconds
TRIES_PER_SECOND, TRIES_BURST = 1.0, 16.0  # for others, by a member; who rules tries its own members, and paces itself
OUTSIDE_PER_MINUTE = 8.0  # tries at addresses that are not near: who names them may lie
TOLD_PER_SECOND, TOLD_BURST = 4.0, 16.0  # to the supernode: anybody may send what looks like a try
ASK_INTERVAL = 300.0  # seconds until a node that is not open asks again: somebody may have opened its port


class Reachable:
    """What is known of this node, and what it does for others."""

    def __init__(self, means: Means, speaker: Speaker, own_ips: Callable[[], Sequence[str]]) -> None:
        self.known = Known()
        self.dropped = 0
        self._network, _, self._prober, self._view = means
        self._speaker = speaker
        self._own_ips = own_ips
        self._allowed = Hearsay(TRIES_MAX, HOST_UNANSWERED_MAX)
        self._tries = Bucket(TRIES_PER_SECOND, TRIES_BURST, 0.0)
        self._outside = Bucket(OUTSIDE_PER_MINUTE / MINUTE, OUTSIDE_PER_MINUTE, 0.0)
        self._told = Bucket(TOLD_PER_SECOND, TOLD_BURST, 0.0)
        self._again: List[Tuple[float, Address, bytes]] = []  # what is sent once more, and when
        self._ask_at = math.inf
        self._last_nonce = b""
        self._seen = NOWHERE  # where the supernode sees this node

    # ---- this node

    def forget(self) -> None:
        """This node is in no network any more."""
        self.known = Known()
        self._again.clear()
        self._ask_at = math.inf

    def ask(self, now: float) -> None:
        """There is a supernode: have it find out."""
        self._speaker.send_to_supernode(ReachWanted())
        self._ask_at = now + ASK_INTERVAL

    def on_unasked(self, unasked: Unasked, now: float) -> None:
        """Something has come in that nobody here asked for; whether it was a try, the supernode knows."""
        if unasked.nonce == self._last_nonce:
            return  # it is sent twice
        self._last_nonce = unasked.nonce
        if self._told.take(now):
            self._speaker.send_to_supernode(Reached(unasked.nonce))
        else:
            self.dropped += 1

    def on_reach(self, reach: Reach, now: float) -> None:
        """What the supernode has found out; while it is no good news, it is asked again."""
        self.known = Known(reach.is_open, self._view.roster.label_of(reach.by), now, self._nat(reach.seen))
        self._ask_at = math.inf if reach.is_open else now + ASK_INTERVAL
        self._seen = reach.seen

    def is_elsewhere(self, place: Optional[Address]) -> bool:
        """Is somebody who is seen there behind another router than this node, as far as is known?"""
        return NOWHERE not in (self._seen, place) and place is not None and place[0] != self._seen[0]

    def _nat(self, seen: Address) -> NatKind:
        """What is between, when this node is seen there."""
        if seen == NOWHERE:
            return NatKind.UNKNOWN
        is_own = is_loopback(seen[0]) or seen[0] in self._own_ips()
        if seen[1] != self._network.address[1]:
            return NatKind.CHANGES_PORT
        return NatKind.NONE if is_own else NatKind.KEEPS_PORT

    # ---- others

    def on_try(self, message: TryReach, now: float) -> None:
        """The supernode asks this node to try another one."""
        place = self._view.supernode_address if message.place == NOWHERE else self._view.seen_by_ruler(message.place)
        if place is None or not self._may_try(place, now) or not self._send(place, message.nonce, now):
            self.dropped += 1
            return
        self._speaker.send_to_supernode(Tried(message.nonce))
        self._again += [(now + count * SEND_INTERVAL, place, message.nonce) for count in range(1, TRIES_MAX)]

    def _may_try(self, place: Address, now: float) -> bool:
        if self._view.is_ruler:
            return True
        if not is_of_one_host(place) or not self._tries.take(now):
            return False
        return may_contact(place, self._view.near()) or self._outside.take(now)

    def _send(self, place: Address, nonce: bytes, now: float) -> bool:
        """One datagram, if so many may still go there."""
        may_send = self._prober.hearsay.is_proven(place, now) or self._allowed.may_send(place, now)
        if may_send:
            self._network.send_fresh(place, encode(Unasked(nonce)))
        return may_send

    # ---- time

    def next_deadline(self) -> float:
        return min(self._ask_at, min((at for at, _, _ in self._again), default=math.inf))

    def on_timer(self, now: float) -> None:
        due = [one for one in self._again if one[0] <= now]
        if due:
            self._again = [one for one in self._again if one[0] > now]
            for _, place, nonce in due:
                self._send(place, nonce, now)
        if now >= self._ask_at:
            self.ask(now)
