"""A member and its supernode: it is taken in, knows the roster, shows that it lives, leaves."""

from __future__ import annotations

from typing import Annotated, NamedTuple, Tuple

from protocol.fields import Many
from protocol.messages.words import (
    MEMBERS_PER_PAGE,
    Bool,
    Code,
    Count,
    Digest,
    Microseconds,
    Milliseconds,
    Name,
    NetworkId,
    NodeId,
    Order,
    Place,
    Reason,
    Secret,
    SeenSequence,
    Stamp,
    Term,
    Version,
    record_of,
)

MEMBERS_MAX = 1024
# Departure.how
LEFT, GONE = 1, 2


class MemberEntry(NamedTuple):
    """One line of the roster."""

    node_id: NodeId
    name: Name
    place: Place  # NOWHERE for the supernode itself: it is where it was reached
    order: Order  # join order: the lowest living one succeeds; SHUT_ORDER more for one that others cannot reach
    mesh: Bool
    present: Bool  # False: known from before a failover, not back yet


class Departure(NamedTuple):
    """A member who is no longer here."""

    node_id: NodeId
    how: Code  # LEFT or GONE
    silent_ms: Milliseconds  # how long there was no sign of it


Members = Annotated[Tuple[MemberEntry, ...], Many(record_of(MemberEntry), MEMBERS_PER_PAGE)]
Departures = Annotated[Tuple[Departure, ...], Many(record_of(Departure), MEMBERS_PER_PAGE)]


class Join(NamedTuple):
    """A node asks the supernode to be taken in; on a rejoin it says which network it comes from."""

    network_id: NetworkId  # NO_NETWORK at first
    term: Term
    node_id: NodeId
    opening: Secret  # the node id is the head of its SHA-256: nobody can join under another's id
    name: Name
    mesh: Bool
    chat_seen: SeenSequence  # sequence of the last Chat seen, so that what was missed is said again; 0 at first


class Welcome(NamedTuple):
    """The supernode takes a member in; the roster follows in pages."""

    network_id: NetworkId
    term: Term
    supernode_id: NodeId
    secret: Secret  # proves Answers between members
    commitment: Digest  # SHA-256 of what a Handover must show
    order: Order  # the new member's own
    version: Version  # of the roster whose pages follow
    chat_sequence: SeenSequence


class NotSupernode(NamedTuple):
    """Ask there instead; NOWHERE: nobody is known."""

    term: Term
    supernode: Place


class Busy(NamedTuple):
    """Not now; or, with no time to retry after, not at all."""

    retry_after_ms: Milliseconds
    reason: Reason


class RosterPage(NamedTuple):
    """A part of the roster, from place `first` of `total`."""

    term: Term
    version: Version
    first: Count
    total: Count
    members: Members


class RosterUpdate(NamedTuple):
    """Members who joined, came back or changed their line, and who left; version is one more than the last."""

    term: Term
    version: Version
    changed: Members
    departed: Departures


class RosterRequest(NamedTuple):
    """A version was missed: send it all."""

    version: Version


class Ping(NamedTuple):
    """Is the other end there? Answered by Pong."""

    stamp: Stamp  # the asker's own; comes back as it is
    term: Term
    round_trip_us: Microseconds = 0  # as the asker measured it last, so that nobody need ask back; 0: not yet


class Pong(NamedTuple):
    """The answer to a Ping, with its stamp."""

    stamp: Stamp
    term: Term


class PingSeldom(NamedTuple):
    """The supernode of a large hall to a member: its link shows that it lives; a Ping need come only so often."""

    interval_ms: Milliseconds


class SetMesh(NamedTuple):
    """A member's mesh switch, now."""

    mesh: Bool


class Guest(NamedTuple):
    """A member is there for one thing: it will rule nobody, so a handover names another one."""


class Leave(NamedTuple):
    """Good-bye, from a member."""
