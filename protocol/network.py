"""What the roles of a node want from below: the contract of `sockets`' links and of the simulator's networks."""

from __future__ import annotations

from typing import Any, Optional, Protocol

from protocol.fields import Address
from protocol.figures import PathFigures


class Network(Protocol):
    """Links to other nodes, and messages without one. All verbs return at once; a *link* is an int naming a connection.

    Events come back as `on_link_up(link, address, incoming, now)`, `on_link_lost(link, reason, now)` once for each
    link, `on_message(link, data, now)`, `on_writable(link, now)`, `on_lone(address, data, now)`, and for
    what comes to the door `on_door_lone(address, data, now)`.
    """

    address: Address

    def connect(self, address: Address, tries: float = ...) -> int:
        """A new link; at most `tries` datagrams go out until something comes back."""

    def send(self, link: int, *parts: Any, is_bulk: bool = False) -> None:
        """The parts make one message; dropped when the link is gone. `is_bulk`: the last carries its own digest."""

    def check_bulk(self, link: int) -> None:
        """A piece arrived damaged there: from now on checksums cover bulk, too."""

    def backlog(self, link: int) -> int:
        """Bytes not yet delivered to the other side."""

    def figures(self, link: int) -> Optional[PathFigures]:
        """How its path does; None where nothing is known of it."""

    def disconnect(self, link: int, reason: str) -> None:
        """After what was sent is delivered."""

    def send_lone(self, address: Address, message: bytes) -> None: ...

    def broadcast_lone(self, port: int, message: bytes) -> None: ...

    def hold_door(self, port: int) -> None:
        """Have that port as well, as soon as it is free; 0: no more. Links that come there have negative numbers."""

    def send_by_door(self, address: Address, message: bytes) -> None:
        """As `send_lone`, from the door's port."""
