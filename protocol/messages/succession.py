"""Who rules next, and how a ruler shows that it comes from the people of the last one."""

from __future__ import annotations

from typing import Annotated, NamedTuple, Tuple

from protocol.fields import Address, AddressField, Fixed, Many
from protocol.messages.words import Digest, NodeId, Nonce, Place, Secret, Term, record_of

HEIRLOOMS_MAX = 8  # of the latest rulers of one part of a network
LOST_TOLD_MAX = 64  # places; a newcomer may rule long after those who saw who was lost are gone
PROVE_PADDING = 4 + HEIRLOOMS_MAX * (8 + 16)  # as for a Query


class Heirloom(NamedTuple):
    """Who was of this node's people when it ruled has its key, or can make a mark with it (membership/heirs.py)."""

    node_id: NodeId
    key: Secret


Heirlooms = Annotated[Tuple[Heirloom, ...], Many(record_of(Heirloom), HEIRLOOMS_MAX)]


class Handover(NamedTuple):
    """The supernode leaves: the successor rules from this term on. `opening` hashes to the Welcome's commitment."""

    term: Term
    successor: NodeId
    opening: Digest


class Moved(NamedTuple):
    """The supernode steps down for another one: look there (and check)."""

    term: Term
    supernode: Place
    node_id: NodeId


class Stale(NamedTuple):
    """You spoke in an old term; a hint to check, never a proof."""

    term: Term
    supernode: Place


class Stays(NamedTuple):
    """The supernode to all, before it names who rules next: it does not leave, but is a member under that one."""


class Lost(NamedTuple):
    """Where members were lost in silence, latest last: to a newcomer, and from one who comes back from another part."""

    places: Annotated[Tuple[Address, ...], Many(AddressField(), LOST_TOLD_MAX)]


class Heirs(NamedTuple):
    """The supernode to its members: its own heirloom, and those that it has of earlier rulers."""

    heirlooms: Heirlooms


class Prove(NamedTuple):
    """You rule, and I know none of you: whose heir are you? Padded so that the Proof is never longer."""

    nonce: Nonce
    padding: Annotated[bytes, Fixed(PROVE_PADDING)] = bytes(PROVE_PADDING)


class Proof(NamedTuple):
    """Marks, made of the nonce with the heirlooms that I have."""

    nonce: Nonce
    marks: Heirlooms
