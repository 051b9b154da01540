"""The link by which a supernode is a member of its own network.

Peer and supernode of one node speak over LOCAL_LINK as they would over any other: `LocalSide` is the network as each of
them has it, `LocalLink` has both sides. What one says waits until the turn of the node in which it was said ends, so
that neither is called from inside the other; and it waits encoded, so that the own supernode is no special case.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Any, Callable, Deque, Optional, Sequence

from protocol.fields import Address
from protocol.figures import PathFigures
from protocol.messages import Join, decode
from protocol.network import Network

LOCAL_LINK = 0  # between a peer and the supernode of the same node


class LocalSide:
    """A network with one link more: what is sent on LOCAL_LINK goes into a queue for the role at the other end.

    All else is the network's: each verb is passed on by name, so that a reader and an editor find it.
    """

    def __init__(self, network: Network, outbox: Deque[bytes]) -> None:
        self._network = network
        self._outbox = outbox

    @property
    def address(self) -> Address:
        return self._network.address

    def connect(self, address: Address, tries: float = math.inf) -> int:
        return self._network.connect(address, tries)

    def send(self, link: int, *parts: Any, is_bulk: bool = False) -> None:
        """As the network; on LOCAL_LINK it waits, encoded, until the turn of the node ends."""
        if link == LOCAL_LINK:
            self._outbox.append(b"".join(bytes(part) for part in parts))
        else:
            self._network.send(link, *parts, is_bulk=is_bulk)

    def send_to_all(self, links: Sequence[int], *said: bytes) -> None:
        """As the network; LOCAL_LINK may be among them."""
        if LOCAL_LINK in links:
            self._outbox.extend(said)
        self._network.send_to_all([link for link in links if link != LOCAL_LINK], *said)

    def disconnect(self, link: int, reason: str) -> None:
        """As the network; LOCAL_LINK is cut by who drops the supernode (`LocalLink.cut`)."""
        if link != LOCAL_LINK:
            self._network.disconnect(link, reason)

    def check_bulk(self, link: int) -> None:
        self._network.check_bulk(link)

    def backlog(self, link: int) -> int:
        return self._network.backlog(link)

    def fingerprint(self, link: int) -> Optional[bytes]:
        return self._network.fingerprint(link)

    def has_unread(self, link: int) -> bool:
        return link != LOCAL_LINK and self._network.has_unread(link)

    def heard_at(self, link: int) -> float:
        return self._network.heard_at(link)

    def ask_sign(self, link: int) -> None:
        self._network.ask_sign(link)

    def figures(self, link: int) -> Optional[PathFigures]:
        return self._network.figures(link)

    def send_lone(self, address: Address, message: bytes) -> None:
        self._network.send_lone(address, message)

    def send_fresh(self, address: Address, message: bytes) -> None:
        self._network.send_fresh(address, message)

    def broadcast_lone(self, port: int, message: bytes) -> None:
        self._network.broadcast_lone(port, message)

    def hold_door(self, port: int) -> None:
        self._network.hold_door(port)

    def send_by_door(self, address: Address, message: bytes) -> None:
        self._network.send_by_door(address, message)


class LocalLink:
    """LOCAL_LINK with what stands at its ends: this node's peer and, while it rules, its supernode."""

    def __init__(self, network: Network, tell_peer: Callable[[int, Any, float], None]) -> None:
        self.supernode: Any = None
        self._network = network
        self._tell_peer = tell_peer  # link, message, now
        self._to_supernode: Deque[bytes] = deque()
        self._to_peer: Deque[bytes] = deque()
        self._is_carrying = False
        self.peer_side = LocalSide(network, self._to_supernode)
        self.supernode_side = LocalSide(network, self._to_peer)

    def open(self, supernode: Any) -> None:
        """This node rules from now on; the supernode may have spoken already, while it was made."""
        self.supernode = supernode

    def cut(self) -> None:
        """It does not rule any more, or not yet; what was said on the way is lost, as on any link."""
        self.supernode = None
        self._to_supernode.clear()
        self._to_peer.clear()

    def carry(self, now: float) -> None:
        """Carry over what the two said to each other, until both are silent."""
        if self._is_carrying:
            return  # whoever called is told by what is being carried, and the loop below goes on
        self._is_carrying = True
        try:
            while self._to_supernode or self._to_peer:
                if self._to_supernode:
                    self._tell_supernode(decode(self._to_supernode.popleft()), now)
                if self._to_peer:
                    self._tell_peer(LOCAL_LINK, decode(self._to_peer.popleft()), now)
        finally:
            self._is_carrying = False

    def _tell_supernode(self, message: Any, now: float) -> None:
        if self.supernode is None:
            return
        if isinstance(message, Join):
            self.supernode.on_hello(LOCAL_LINK, self._network.address, message, now)
        else:
            self.supernode.on_message(LOCAL_LINK, message, now)
