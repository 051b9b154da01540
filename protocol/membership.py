"""The member's side of the network of nodes: who is here, who rules, and what to do when the ruler falls silent.

`Roster` is the table of members; `Membership` is the state machine that every node has:

    IDLE -> SEARCHING -> JOINING -> JOINED <-> SUSPECT -> ELECTING -> (JOINING | JOINED to its own supernode)
                                      |-> FOLLOWING (Handover, Moved) -> JOINED | ELECTING

Peer owns one Membership, hands it the events of the links that it `owns`, all lone datagrams, and its timer.
The supernode of this very node is reached over LOCAL_LINK with the same messages as any other.
Pure: no socket, no thread, no clock.
"""

from __future__ import annotations

import enum
import random
from typing import Any, Callable, Deque, Dict, List, NamedTuple, Optional, Protocol, Sequence, Tuple

from protocol import messages
from protocol.messages import MemberEntry
from protocol.wire import Address

LOCAL_LINK = 0  # between a peer and the supernode of the same node


class State(enum.Enum):
    IDLE = "not started"
    SEARCHING = "looking for a network"
    JOINING = "joining"
    JOINED = "joined"
    SUSPECT = "the supernode is silent"
    ELECTING = "no supernode"
    FOLLOWING = "following to a new supernode"
    LEFT = "left"


class Seat(NamedTuple):
    """What a new supernode starts from."""

    network_id: bytes
    secret: bytes
    term: int
    node_id: bytes
    version: int
    members: Tuple[MemberEntry, ...]  # all but the lost supernode; the new one among them
    recent_chat: Tuple[messages.Chat, ...]
    known_supernodes: Tuple[Address, ...]  # where supernodes of this network were, latest last
    search_port: int


class Network(Protocol):
    """What Membership and Supernode want from below; see the contract in peer.py."""

    address: Address

    def connect(self, address: Address) -> int: ...
    def send(self, link: int, *parts: Any) -> None: ...
    def disconnect(self, link: int, reason: str) -> None: ...
    def send_lone(self, address: Address, message: bytes) -> None: ...
    def broadcast_lone(self, port: int, message: bytes) -> None: ...


class Owner(Protocol):
    """What Membership asks of, and tells to, the Peer that owns it; always called on the node thread."""

    def can_serve_at(self, ip: str) -> bool:
        """Is this an address of this machine, that this node listens at (or could)?"""

    def own_addresses(self) -> Sequence[str]:
        """IPs of this machine, without loopback."""

    def become_supernode(self, seat: Seat, now: float) -> None:
        """Make a Supernode from this seat and wire LOCAL_LINK to it; Membership then sends Join there."""

    def drop_supernode(self, now: float) -> None:
        """The own Supernode stepped down: forget it. Its remaining links are being closed by itself."""

    def on_outcome(self, kind: str, address: Optional[Address], text: str, now: float) -> None:
        """How start() ended: "supernode", "joined", "nobody" or "refused" (text says why)."""

    def on_joined(self, now: float) -> None:
        """Welcome and roster are complete, at first or again: announce shares, ask open searches again."""

    def on_supernode_lost(self, now: float) -> None:
        """From now on, until on_joined, there is no supernode."""

    def on_supernode_changed(
        self, old_label: str, new_label: str, is_me: bool, silent_seconds: Optional[float], now: float
    ) -> None: ...

    def on_member_joined(self, label: str, now: float) -> None: ...

    def on_member_left(self, label: str, silent_seconds: Optional[float], now: float) -> None: ...

    def on_roster_changed(self, now: float) -> None:
        """Lines were added, changed or removed; comes after the above."""

    def on_chat(self, label: str, text: str, is_me: bool, now: float) -> None: ...

    def on_notice(self, text: str) -> None: ...


class LocalSide:
    """A network with one link more: what is sent on LOCAL_LINK goes into a queue for the role at the other end."""

    def __init__(self, network: Any, outbox: Deque[bytes]) -> None:
        self._network = network
        self._outbox = outbox

    def __getattr__(self, verb: str) -> Any:
        return getattr(self._network, verb)

    def send(self, link: int, *parts: Any) -> None:
        if link == LOCAL_LINK:
            self._outbox.append(b"".join(bytes(part) for part in parts))
        else:
            self._network.send(link, *parts)

    def disconnect(self, link: int, reason: str) -> None:
        if link != LOCAL_LINK:
            self._network.disconnect(link, reason)


class Membership:
    """This node as a member: search, join, follow, beat, suspect, fail over."""

    def __init__(self, network: Network, rng: random.Random, owner: Owner, name: str, mesh: bool = True) -> None:
        self.network = network
        self.rng = rng
        self.owner = owner
        self.name = name
        self.mesh = mesh
        self.state = State.IDLE
        self.node_id = b""
        self.network_id = messages.NO_NETWORK
        self.term = 0
        self.supernode_id: Optional[bytes] = None
        self.supernode_link: Optional[int] = None  # LOCAL_LINK when this node rules; None while there is no supernode
        self.supernode_address: Optional[Address] = None
        self.round_trip: Optional[float] = None  # seconds, of the last Ping
        self.heard_at = 0.0  # when the supernode last gave a sign
        self.dropped = 0  # messages that were not obeyed

    # ---- questions

    @property
    def is_supernode(self) -> bool: ...

    @property
    def is_joined(self) -> bool: ...

    def label_of(self, node_id: bytes) -> str: ...

    def place_of(self, node_id: bytes) -> Optional[Address]:
        """Where to contact this member, or None when it is unknown or must not be contacted."""

    def owns(self, link: int) -> bool: ...

    # ---- verbs

    def start(self, target: Optional[Address], search_port: int, now: float) -> None: ...

    def look_at(self, address: Address, now: float, done: Callable[[bool], None]) -> None:
        """Is there a supernode, or a member who names one? done(True or False) within 1.5 s."""

    def leave(self, now: float) -> None: ...

    def say(self, text: str, now: float) -> None: ...

    def set_mesh(self, on: bool, now: float) -> None: ...

    def send_to_supernode(self, message: Any) -> bool:
        """False when there is none at present; then ask again at on_joined."""

    # ---- events

    def on_link_up(self, link: int, address: Address, incoming: bool, now: float) -> None: ...

    def on_link_lost(self, link: int, reason: str, now: float) -> None: ...

    def on_message(self, link: int, message: Any, now: float) -> bool:
        """False: not about membership or chat, so it is Peer's (searches, offers, list pages ...)."""

    def on_stray_join(self, link: int, now: float) -> None:
        """Somebody takes this node for the supernode, which it is not: say who is."""

    def on_lone(self, address: Address, message: Any, now: float) -> None: ...

    def on_timer(self, now: float) -> None: ...

    def next_deadline(self) -> float: ...
