"""Ways through routers and firewalls: can others reach a member, and how do two reach each other?"""

from __future__ import annotations

from typing import Annotated, NamedTuple, Tuple

from protocol.fields import Address, AddressField, Fixed, Many
from protocol.messages.words import Bool, NodeId, Nonce, Place

PLACES_MAX = 4  # own addresses that a member tells, one for each interface
KNOCK_PADDING = 19  # a Knocked has an IPv6 place instead
OwnPlaces = Annotated[Tuple[Address, ...], Many(AddressField(), PLACES_MAX)]


class Places(NamedTuple):
    """A member to the supernode: the own addresses at which others may reach it, too."""

    places: OwnPlaces


class Introduce(NamedTuple):
    """The supernode to two members, one of which offers the other something: knock there, it does the same."""

    node_id: NodeId  # the other one
    nonce: Nonce  # that only the two know, and who rules
    seen: Place  # where the supernode sees the other one
    own: Place  # where it sees the one who is told
    places: OwnPlaces  # of the other one, as it told them


class Knock(NamedTuple):
    """To a member that the supernode introduced, at each of its places. Padded so that the Knocked is not longer."""

    nonce: Nonce  # of the introduction
    node_id: NodeId  # who knocks
    token: Nonce  # another one for each place: who gives it back receives there
    padding: Annotated[bytes, Fixed(KNOCK_PADDING)] = bytes(KNOCK_PADDING)


class Knocked(NamedTuple):
    """Back along the way that the Knock came: it has arrived."""

    nonce: Nonce
    node_id: NodeId  # who answers
    token: Nonce
    seen: Place  # where the Knock came from


class ReachWanted(NamedTuple):
    """A member to the supernode: can others reach me, where I did not speak first? Answered by Reach."""


class TryReach(NamedTuple):
    """The supernode to a member: send an Unasked to that one from a port to which it never sent anything."""

    nonce: Nonce  # that one learns it from the Unasked alone
    node_id: NodeId
    place: Place  # where the supernode sees that one; NOWHERE: it is the supernode


class Tried(NamedTuple):
    """Back to the supernode: the Unasked is on its way."""

    nonce: Nonce


class Unasked(NamedTuple):
    """Without a link, from a port of its own. Nothing is sent back there."""

    nonce: Nonce


class Reached(NamedTuple):
    """To the supernode: an Unasked has come here."""

    nonce: Nonce


class Reach(NamedTuple):
    """The supernode to a member: what came of it."""

    is_open: Bool
    by: NodeId  # who tried
    seen: Place  # where the supernode sees the member; NOWHERE: it is the supernode


class Beyond(NamedTuple):
    """A member to the supernode: somebody there looks for this network, reaches me, and does not get to you."""

    place: Place
