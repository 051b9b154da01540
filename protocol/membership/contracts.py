"""The contracts of membership: what it wants from its owner, and what a supernode starts from.

For the rooms of membership and ruling, and for `peer.py` and `supernode.py`, which join them. Pure.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Any, Mapping, NamedTuple, Optional, Protocol, Sequence, Tuple

from protocol.fields import Address
from protocol.messages import Bearer, Chat, FormerBearer, Heirloom, MemberEntry


class Seat(NamedTuple):
    """What a new supernode starts from."""

    network_id: bytes
    secret: bytes
    term: int
    node_id: bytes
    members: Tuple[MemberEntry, ...]  # in join order, without the lost supernode; the new one among them
    recent_chat: Tuple[Chat, ...]
    known_supernodes: Tuple[Address, ...]  # where supernodes of this network were, latest last
    lost_places: Tuple[Address, ...]  # where members were that gave no sign any more, latest last
    search_port: int
    heirlooms: Tuple[Heirloom, ...] = ()  # its own, and of those under whom it was a member
    bearers: Tuple[Bearer, ...] = ()  # what the members are called
    former: Tuple[FormerBearer, ...] = ()  # what those were called who left within the hour
    awaited: Optional[Address] = None  # where one was that all could reach, as nobody can this node
    shut: Tuple[bytes, ...] = ()  # of a network that is resumed: those whom others could not reach
    lans: Tuple[str, ...] = ()  # own addresses; while it is alone, it asks the neighbours there one by one
    is_resumed: bool = False  # this node ruled it in an earlier run
    seen_by_six: Mapping[bytes, bool] = MappingProxyType({})  # did the last supernode see them by IPv6, or by IPv4
    chat_counted: int = 0  # the place of the last line of chat that this node knows of


class Owner(Protocol):
    """What Membership asks of, and tells to, the Peer that owns it; always called on the node thread."""

    @property
    def is_ruling(self) -> bool:
        """Is there a Supernode of this node that has not ended?"""

    def become_supernode(self, seat: Seat, now: float) -> None:
        """Make a Supernode from this seat and wire LOCAL_LINK to it; Membership then sends Join there."""

    def drop_supernode(self, now: float) -> None:
        """The own Supernode stepped down: forget it. Its remaining links are being closed by itself."""

    def on_joined(self, now: float) -> None:
        """Welcome and roster are complete, at first or again: announce shares, ask open searches again."""

    def on_supernode_lost(self, now: float) -> None:
        """From now on, until on_joined, there is no supernode."""

    def on_reached(self, node_id: bytes, now: float) -> None:
        """A way to this member was found, after the supernode had introduced it: `place_of` tells it."""

    def on_roster_changed(self, now: float) -> None:
        """Lines were added, changed or removed; comes after what its person was told of that."""


class Machine(Protocol):
    """What Membership asks of the machine that it is on (`home.py`)."""

    def own_addresses(self) -> Sequence[str]:
        """IPs of this machine, without loopback."""

    def can_serve_at(self, ip: str) -> bool:
        """Is this an address of this machine, that this node listens at (or could)?"""


class Audience(Protocol):
    """What Membership tells the person at this node (`tidings.py`)."""

    def on_outcome(self, kind: str, address: Optional[Address], text: str, now: float) -> None:
        """How start() ended: "supernode", "joined", "nobody" or "refused" (text says why)."""

    def on_supernode_changed(
        self, old_label: str, new_label: str, is_me: bool, silent_seconds: Optional[float], now: float
    ) -> None: ...

    def on_member_joined(self, label: str, now: float) -> None: ...

    def on_other_key(self, name: str, now: float) -> None:
        """Somebody of this name has another lasting key than who was called so before."""

    def on_member_left(self, label: str, silent_seconds: Optional[float], now: float) -> None: ...

    def on_reach_known(self, now: float) -> None:
        """`Ways.reach` may have changed."""

    def on_chat(self, label: str, text: str, is_me: bool, now: float) -> None: ...

    def on_unsaid(self, count: int) -> None:
        """So many lines of chat that this node said will reach nobody: it left, or nobody took it in."""

    def on_notice(self, text: str) -> None: ...


class Speaker(Protocol):
    """A member, as its parts see it: what it is called and wants to be, and how it speaks to its supernode."""

    name: str
    mesh: bool
    may_rule: bool  # False: a guest, who founds no network and takes none over
    search_port: int  # where people look for its network

    @property
    def is_joined(self) -> bool: ...

    def send_to_supernode(self, message: Any) -> bool: ...
