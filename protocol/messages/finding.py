"""Outside any connection: who is there, and where is the supernode?"""

from __future__ import annotations

from typing import Annotated, NamedTuple

from protocol.fields import Fixed
from protocol.messages.words import (
    NAME_BYTES_MAX,
    ClaimedTerm,
    Code,
    Count,
    Milliseconds,
    Name,
    NetworkId,
    NodeId,
    Nonce,
    Place,
)

QUERY_PADDING = 128  # a Query is longer than its Answer, so nobody can use us to multiply traffic
WANTED_PADDING = QUERY_PADDING + NAME_BYTES_MAX - 19  # nor is a Wanted, with an IPv6 place, longer than a Query

# Answer.role
ROLE_MEMBER, ROLE_SUPERNODE, ROLE_ALONE = 1, 2, 0  # alone: searching, or between two networks


class Query(NamedTuple):
    """Who is there? Padded so that the Answer is never longer."""

    nonce: Nonce
    padding: Annotated[bytes, Fixed(QUERY_PADDING + NAME_BYTES_MAX)] = bytes(QUERY_PADDING + NAME_BYTES_MAX)


class Answer(NamedTuple):
    """Who I am and, if a member, where my supernode is. The HMAC proves it to members (membership/proofs.py)."""

    nonce: Nonce  # the Query's
    own_nonce: Nonce
    network_id: NetworkId
    term: ClaimedTerm
    node_id: NodeId
    role: Code
    supernode_id: NodeId  # whom the answering member obeys; NO_NODE if there is none
    supernode: Place  # where it knows its supernode; NOWHERE if it has none or is one
    heard_ago_ms: Milliseconds  # how long ago the member last heard its supernode
    member_count: Count
    name: Name
    proof: Annotated[bytes, Fixed(16)]


class Wanted(NamedTuple):
    """Does this place lead to your network? Who can say yes sends its Answer; the others are silent.

    Yes: a supernode of it was there, or it is the port, on the answering machine, that people know it by. An address
    NOWHERE asks for the port alone: is it the one that your network is known by?
    """

    nonce: Nonce
    place: Place
    padding: Annotated[bytes, Fixed(WANTED_PADDING)] = bytes(WANTED_PADDING)
