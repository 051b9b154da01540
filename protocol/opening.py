"""How a node finds its network when it starts: three rounds of queries, and the first supernode that answers.

Given an address, only that is asked; else this machine's own addresses, and the LAN by broadcast. A member that
answers names its supernode, which is asked then. Two that search at the same time see each other: the smaller
node id goes first.

Where members of the network were that this node was in when it last ran is asked, too: so a supernode that died and is
started again finds the others, who have a new one by then. Another network there is none of its business. Pure.
"""

from __future__ import annotations

import random
from typing import NamedTuple, Optional, Sequence, Tuple

from protocol.messages import NOWHERE, ROLE_MEMBER, ROLE_SUPERNODE, Answer
from protocol.roster import Prober, is_loopback, may_contact, seen_from
from protocol.wire import Address, AddressField, Buffer, Fixed, Many, Reader, Record, WireError

QUERY_INTERVAL = 0.5  # seconds between the rounds
SEARCH_TIME = 1.5  # seconds: three queries (THREATS: two supernodes at one port)
SEARCH_TIME_WITH_MEMBERS = 12.0  # members answered, but their supernode is just being replaced
LAN_GRACE = 0.1  # seconds that a supernode on this machine has to answer before one elsewhere is taken
NOBODY: Address = ("", 0)  # the finding when nobody answered
PLACES_KEPT = 8  # of the members that take over first


class LastNetwork(NamedTuple):
    """The network that this node was in when it last ran, and where its members were."""

    network_id: bytes
    places: Tuple[Address, ...]


NO_LAST_NETWORK = LastNetwork(b"", ())
_LAST_NETWORK = Record(LastNetwork, (Fixed(16), Many(AddressField(), PLACES_KEPT)))


def encode_last_network(last: LastNetwork) -> bytes:
    return _LAST_NETWORK.encode(last)


def decode_last_network(data: Buffer) -> LastNetwork:
    """NO_LAST_NETWORK when these bytes are none."""
    reader = Reader(data)
    try:
        last: LastNetwork = _LAST_NETWORK.decode(reader)
    except WireError:
        return NO_LAST_NETWORK
    return NO_LAST_NETWORK if reader.left() else last


class Opening:
    """One search, from start() until it finds somebody or nobody."""

    def __init__(
        self,
        prober: Prober,
        rng: random.Random,
        node_id: bytes,
        own_address: Address,
        own_ips: Sequence[str],
        target: Optional[Address],
        port: int,
        now: float,
        last: LastNetwork = NO_LAST_NETWORK,
    ) -> None:
        self.last = last
        self.target = target
        self.since = now
        self._prober = prober
        self._rng = rng
        self._node_id = node_id
        self._own_address = own_address
        self._own_ips = ["127.0.0.1", *own_ips]
        self._port = port
        self._next_round = now
        self._ends_at = now + SEARCH_TIME
        self._candidate: Optional[Address] = None
        self._candidate_at = 0.0
        self._named: Optional[Address] = None  # the supernode, as a member says, though it did not answer yet
        self._was_extended = False
        self._is_last_round = False

    def next_deadline(self) -> float:
        return self._candidate_at if self._candidate else min(self._next_round, self._ends_at)

    def on_timer(self, now: float) -> Optional[Address]:
        """The supernode to join, NOBODY, or None while there is still hope."""
        if self._candidate is not None and now >= self._candidate_at:
            return self._candidate
        if now >= self._ends_at:
            if self._named is not None:
                return self._named  # bad luck with three queries; connecting tries harder
            if self.target is not None or self._is_last_round:
                return NOBODY
            self._ask_once_more(now)
        elif now >= self._next_round:
            self._ask_all(now)
        return None

    def _ask_once_more(self, now: float) -> None:
        """Of several that start together, not all shall become supernodes at the same instant."""
        self._is_last_round = True
        self._next_round = now + self._rng.random() * QUERY_INTERVAL
        self._ends_at = self._next_round + 2 * LAN_GRACE

    def _ask_all(self, now: float) -> None:
        if self.target is not None:
            targets = [self.target]
        else:
            targets = [(ip, self._port) for ip in self._own_ips]
            self._prober.broadcast(self._port, "search", now)
        for target in targets:
            if target != self._own_address:
                self._prober.ask(target, "search", now)
        for place in self.last.places:
            if not self._is_own(place) and place not in targets:
                self._prober.ask_hinted(place, "search", self._own_ips, now)
        self._next_round = now + QUERY_INTERVAL

    def _is_own(self, place: Address) -> bool:
        """Is that where this node itself is? (Its own past may have been there.)"""
        return place[1] == self._own_address[1] and place[0] in (self._own_address[0], *self._own_ips)

    def on_answer(self, address: Address, answer: Answer, now: float) -> None:
        """Somebody who was asked has told who it is."""
        is_of_last = address in self.last.places and address != self.target
        if answer.node_id == self._node_id or (is_of_last and answer.network_id != self.last.network_id):
            return
        if answer.role == ROLE_SUPERNODE:
            self._found(address, now)
        elif answer.role == ROLE_MEMBER:
            self._ends_at = max(self._ends_at, self.since + SEARCH_TIME_WITH_MEMBERS)
            place = seen_from(answer.supernode, address)
            near = [*self._own_ips, address[0]]
            if self._is_own(place):
                return  # it still believes in the one that died here
            self._prober.ask_hinted(place, "search", near, now)
            self._named = place if place != NOWHERE and may_contact(place, near) else None
        elif not self._was_extended and (self.target is not None or answer.node_id < self._node_id):
            self._was_extended = True
            self._ends_at += SEARCH_TIME

    def _found(self, address: Address, now: float) -> None:
        is_near = self.target is not None or is_loopback(address[0]) or address[0] in self._own_ips
        if self._candidate is None or is_near:
            self._candidate = address
            self._candidate_at = now if is_near else now + LAN_GRACE
