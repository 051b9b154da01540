"""The door: the port that a person knows leads to the network, from every machine that has a member.

The first node of a machine is at that port itself. Every further one keeps trying to bind it as a second socket, the
*door*: who gets it answers there as a member that names its supernode, be it itself, and with the true age of what it
knows: one that always knew "just now" would vouch for a dead supernode. A Join that comes to the door is sent on.

Where the port is held by something that does not answer (a stopped node, another program) no door can be had. So
further nodes bind one of the PORTS_BEHIND behind it, and a newcomer of the machine asks these whether they are of the
network that the port is known for (`Wanted`); other networks there have nothing to do with it.

Here are the rules: what is answered at the door, which places lead to a network, who of two goes to the other. Pure.
"""

from __future__ import annotations

import random
from typing import List, NamedTuple, Sequence

from protocol.addresses import is_loopback, seen_from
from protocol.fields import Address
from protocol.membership.proofs import random_bytes, with_proof
from protocol.messages import NO_NODE, NOWHERE, ROLE_MEMBER, ROLE_SUPERNODE, Answer

PORTS_BEHIND = 16  # more nodes than that on one machine bind any free port, and the door leads to them
PORT_MAX = 65535
MEETINGS_MAX = 3  # with one that should come to us: then it never will (a program of the past), and we go


class Standing(NamedTuple):
    """What a node knows of its network, as an Answer tells it."""

    network_id: bytes
    term: int
    node_id: bytes
    role: int
    supernode_id: bytes
    supernode: Address
    silent: float  # seconds since the supernode was last heard
    member_count: int
    name: str


def at_door(standing: Standing, is_ruler: bool, supernode: Address) -> Standing:
    """The same, as it is told at the door by one who knows the supernode, or is it, at that place."""
    if not is_ruler:
        return standing._replace(supernode=supernode)
    is_handing_over = standing.role != ROLE_SUPERNODE
    obeyed, place = (NO_NODE, NOWHERE) if is_handing_over else (standing.node_id, supernode)
    return standing._replace(role=ROLE_MEMBER, supernode_id=obeyed, supernode=place, silent=0.0)


def answer_of(standing: Standing, nonce: bytes, secret: bytes, rng: random.Random) -> Answer:
    """The Answer to the Query (or Wanted) of that nonce."""
    own_nonce = random_bytes(rng, 8)
    silent_ms = max(0, int(1000 * min(standing.silent, 1e6)))
    blank = Answer(
        nonce, own_nonce, standing.network_id, standing.term, standing.node_id, standing.role,
        standing.supernode_id, standing.supernode, silent_ms, standing.member_count, standing.name, bytes(16),
    )  # fmt: skip
    return with_proof(blank, secret)


def speaks_at_door(answer: Answer) -> bool:
    """A supernode's door: not a member who follows it, and no claim either, but the way to it."""
    return answer.role == ROLE_MEMBER and answer.supernode_id == answer.node_id


def ports_behind(port: int) -> range:
    """Where a further node of a machine is that is known by this port."""
    return range(port + 1, min(port + PORTS_BEHIND, PORT_MAX) + 1)


def places_behind(place: Address) -> List[Address]:
    """Where on that host further nodes are, when its port is taken."""
    return [(place[0], port) for port in ports_behind(place[1])]


def leads_here(
    place: Address, asker: Address, known_supernodes: Sequence[Address], own_ips: Sequence[str], known_port: int
) -> bool:
    """Does that place lead to the network that had its supernodes there, and is known by that port here?"""
    if place[0] == NOWHERE[0]:
        return place[1] == known_port
    ip, port = seen_from(place, asker)
    is_own = is_loopback(ip) or ip in own_ips
    if (ip, port) in known_supernodes or (is_own and port == known_port):
        return True
    return is_own and any(known[1] == port and is_loopback(known[0]) for known in known_supernodes)


def is_better(answer: Answer, own_id: bytes, meetings: int, own_term: int = 1) -> bool:
    """Is that supernode's network the one to go to, for a supernode that nobody ever joined?

    A larger or an older one is; of two lone ones the smaller id wins, also of two that were resumed.
    """
    if answer.member_count > 1 or meetings >= MEETINGS_MAX:
        return True
    if (answer.term > 1) != (own_term > 1):
        return answer.term > 1
    return answer.node_id < own_id
