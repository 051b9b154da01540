"""What the roles of a node want from below: the contract of `sockets`' links and of the simulator's networks.

`Network` has the verbs, that the roles call; `Listener` the events, that they are told. A new event is a method there,
and a call where it happens.
"""

from __future__ import annotations

from typing import Any, Optional, Protocol, Sequence

from protocol.casts import CastPlan
from protocol.fields import Address, Buffer
from protocol.figures import PathFigures


class Network(Protocol):
    """Links to other nodes, and messages without one. All verbs return at once; a *link* is an int naming a connection.

    Events come back as `Listener` has them; a role is told each with the time at its end, `on_writable(link, now)`.
    """

    @property
    def address(self) -> Address: ...

    def connect(self, address: Address, tries: float = ...) -> int:
        """A new link; at most `tries` datagrams go out until something comes back."""

    def send(self, link: int, *parts: Any, is_bulk: bool = False) -> None:
        """The parts make one message; dropped when the link is gone. `is_bulk`: the last carries its own digest."""

    def send_to_all(self, links: Sequence[int], *said: bytes) -> None:
        """Each of these whole, short messages to each of these links."""

    def check_bulk(self, link: int) -> None:
        """A piece arrived damaged there: from now on checksums cover bulk, too."""

    def backlog(self, link: int) -> int:
        """Bytes not yet delivered to the other side."""

    def has_unread(self, link: int) -> bool:
        """Did something come by it that the node has not heard yet?"""

    def heard_at(self, link: int) -> float:
        """When anything last came by it, be it an acknowledgement that no role hears of; -inf: there is none."""

    def ask_sign(self, link: int) -> None:
        """Have the other end give a sign: its transport answers, without its roles."""

    def figures(self, link: int) -> Optional[PathFigures]:
        """How its path does; None where nothing is known of it."""

    def fingerprint(self, link: int) -> Optional[bytes]:
        """SHA-256 of the certificate at its other end, while it is up; None where the network has no key."""

    def disconnect(self, link: int, reason: str) -> None:
        """After what was sent is delivered."""

    def send_lone(self, address: Address, message: bytes) -> None: ...

    def send_fresh(self, address: Address, message: bytes) -> None:
        """As `send_lone`, from a port that nothing was sent from before; nothing that comes back there is heard."""

    def broadcast_lone(self, port: int, message: bytes) -> None: ...

    def hold_door(self, port: int) -> None:
        """Have that port as well, as soon as it is free; 0: no more. Links that come there have negative numbers."""

    def send_by_door(self, address: Address, message: bytes) -> None:
        """As `send_lone`, from the door's port."""


class CastNetwork(Network, Protocol):
    """The same with casts (`protocol/casts.py`); what becomes of one is told by `on_cast`."""

    def can_cast(self, towards: str) -> bool:
        """May a cast reach that address, for all that is known here?"""

    def cast_open(self, session: bytes, towards: str, rate: float) -> None:
        """Send probes to its group, by the interface that leads to that address, until there is something to send."""

    def cast_send(self, session: bytes, piece: int, offset: int, data: Any, front: Optional[int]) -> None:
        """Slices of a piece; when they are sent, all below `front` were sent once (None: as many as before)."""

    def cast_rate(self, session: bytes, rate: float) -> None:
        """So many bytes a second from now on."""

    def cast_backlog(self, session: bytes) -> int:
        """Bytes handed over for it and not yet sent."""

    def cast_join(self, session: bytes, caster_ip: str) -> None:
        """Listen to its group for what comes from there."""

    def cast_take(self, session: bytes, plan: CastPlan) -> None:
        """Put its pieces together from now on, and report how they come."""

    def cast_done(self, session: bytes, size: int) -> None:
        """A piece of that size that came is written, or thrown away."""

    def cast_end(self, session: bytes) -> None:
        """Send nothing more, or leave the group."""


class Listener:
    """Who is told what happens at a socket. A base to derive from, which does nothing with what it is told.

    Each method is one event. They are called on the thread that serves the socket, and return at once.
    """

    def on_link_up(self, link: int, address: Address, incoming: bool) -> None:
        """The other side has answered, or (`incoming`) opened the link."""

    def on_link_lost(self, link: int, reason: str) -> None:
        """It is closed or has failed: the last event of a link that was up or asked for, told once."""

    def on_link_moved(self, link: int, address: Address) -> None:
        """The other side has another address from now on, and was asked there."""

    def on_message(self, link: int, data: Buffer) -> None:
        """A whole message. It holds its credit until the node is done with it."""

    def on_writable(self, link: int) -> None:
        """What was sent on that link is on its way: there is room for more."""

    def on_lone(self, address: Address, data: bytes) -> None:
        """A message without a link came from there."""

    def on_key_wanted(self, address: Address, repeated: bytes) -> None:
        """Somebody there answered that its network has a key; our question, or handshake, began with these bytes."""

    def on_cast(self, event: Any) -> None:
        """One of the events of `protocol/casts.py`."""


    def on_own_address_changed(self) -> None:
        """This machine has other addresses than a moment ago."""


class DoorListener(Listener):
    """The same for a node that may hold the door, too; links that come there have negative numbers."""

    def on_door_lone(self, address: Address, data: bytes) -> None:
        """A lone message came to the door."""
