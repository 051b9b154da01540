"""Where a node is for others: the addresses of its machine, its port, the door that people know.

It is its own `Machine` for Membership. With each supernode that it comes to, it takes the door of its network or gives
it free, and says which addresses its machine has, for those who cannot reach it where the supernode sees it. Pure.
"""

from __future__ import annotations

from typing import Callable, Sequence

from protocol.addresses import is_loopback
from protocol.membership.membership import Membership
from protocol.messages import PLACES_MAX, Guest, Places
from protocol.network import Network


class Home:
    """The addresses of one node, asked anew each time, for a machine may move."""

    def __init__(self, network: Network, own_addresses: Callable[[], Sequence[str]]) -> None:
        self._network = network
        self._own_addresses = own_addresses

    def own_addresses(self) -> Sequence[str]:
        """IPs of this machine, without loopback."""
        return self._own_addresses()

    def can_serve_at(self, ip: str) -> bool:
        """Is this an address of this machine, that this node listens at (or could)?"""
        return is_loopback(ip) or ip == self._network.address[0] or ip in self._own_addresses()

    def on_joined(self, membership: Membership, now: float) -> None:
        """There is a supernode: it hears where this node is, and says later whether others get there."""
        known_port, may_rule = membership.search_port, membership.may_rule
        is_there = known_port == self._network.address[1] or not may_rule
        self._network.hold_door(0 if is_there else known_port)
        if not may_rule:
            membership.send_to_supernode(Guest())
        self.tell(membership)
        membership.ways.ask_reach(now)

    def tell(self, membership: Membership) -> None:
        """The supernode learns which addresses this machine has."""
        places = [(ip, self._network.address[1]) for ip in self._own_addresses()]
        membership.send_to_supernode(Places(tuple(places[:PLACES_MAX])))

    def leave_door(self) -> None:
        """Another node of this machine takes it."""
        self._network.hold_door(0)
