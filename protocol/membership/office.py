"""The office of the supernode, as far as a node has it: taken from a seat, handed over, or lost to a better one.

A node that rules is two roles, its peer and a supernode, which speak over LOCAL_LINK (`local_link.py`). What a term
leaves behind for the next one of the same node, which hosts made empty promises, is kept here as well. Pure.
"""

from __future__ import annotations

import random
from typing import Any, Callable

from protocol import mishaps
from protocol.membership.contracts import Seat
from protocol.membership.local_link import LOCAL_LINK, LocalLink, LocalSide
from protocol.membership.membership import Membership
from protocol.membership.promises import Promises
from protocol.network import Network

log = mishaps.logger("peer")


class Office:
    """At most one supernode, the other role of this node."""

    def __init__(
        self,
        network: Network,
        rng: random.Random,
        make_supernode: Callable[..., Any],
        tell_peer: Callable[[int, Any, float], None],
    ) -> None:
        self._rng = rng
        self._make_supernode = make_supernode
        self._promises = Promises()
        self._local = LocalLink(network, tell_peer)

    @property
    def supernode(self) -> Any:
        """The other role of this node; None while it does not rule."""
        return self._local.supernode

    @property
    def peer_side(self) -> LocalSide:
        """The network as the peer of this node has it: with LOCAL_LINK, whether anybody is at its other end or not."""
        return self._local.peer_side

    @property
    def is_ruling(self) -> bool:
        """Is there a supernode here that has not ended?"""
        return self.supernode is not None and not self.supernode.has_ended

    def owns(self, link: int) -> bool:
        """Does this link lead from another node to the supernode here?"""
        return self.supernode is not None and link != LOCAL_LINK and bool(self.supernode.owns(link))

    def take(self, seat: Seat, membership: Membership, on_notice: Callable[[str], None], now: float) -> None:
        """The other role lives from now on; its own peer, of this `membership`, joins it as any other would."""
        self._local.cut()
        log.info("this node rules from now on, in term %d", seat.term)
        role = self._make_supernode(
            self._local.supernode_side, self._rng, seat, now, membership.hearsay, on_notice, membership.go_over,
            self._promises, membership.credit,
        )  # fmt: skip
        self._local.open(role)

    def drop(self) -> None:
        """This node does not rule any more; what both roles still had to say to each other is lost."""
        self._local.cut()

    def hand_over(self, now: float, then: Callable[[], None]) -> None:
        """Have another member rule; `then()` when that one knows, and at once where nobody rules here."""
        if self.supernode is not None:
            self.supernode.hand_over(now, then)
        else:
            then()

    def carry(self, now: float) -> None:
        """Have both roles of this node hear what each said to the other."""
        self._local.carry(now)
