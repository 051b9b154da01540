"""How a node finds its network when it starts: three rounds of queries, and the first supernode that answers.

Given an address, that is asked; else this machine's own addresses, and the LAN by broadcast. On its own machine a node
also asks the ports behind the known one, where its network's nodes are if something mute has the port (see
`door.py`). A member that answers names its supernode, which is asked then; if that is silent, the members are about to
replace it: the newcomer waits for who takes over and founds nothing meanwhile. Two that search at the same time see
each other: the smaller node id goes first.

A host may let in answers only: then none of those comes in who heard its broadcast. So when nobody has answered the
first round, the neighbours are asked one by one as well (`sweep.py`).

Where members of the network were that this node was in when it last ran is asked, too: so a supernode that died and is
started again finds the others, who have a new one by then. Another network there is none of its business.

Where nobody answers at the address after the first round, the LAN and the places of the last network are asked who
knows it: the network whose supernode was there is joined where it is now; any other is only a hint for the person.

`Search` is the phase of a node that looks for a network to join: it says Found or Nobody, and Waits between.
`Looks` are single looks at a place, to know whether there is anything to go to. Pure.
"""

from __future__ import annotations

import dataclasses
import enum
import math
import random
from typing import Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple, Union

from protocol.addresses import is_loopback, is_of_link, may_contact, seen_from
from protocol.fields import Address, AddressField, Buffer, Fixed, Many, Record
from protocol.hearsay import KEPT
from protocol.membership.door import places_behind, ports_behind
from protocol.membership.queries import Prober, Purpose
from protocol.membership.resuming import NO_RULED, Resuming
from protocol.membership.sweep import Sweep, lans_of
from protocol.messages import NO_NETWORK, NOWHERE, ROLE_ALONE, ROLE_MEMBER, ROLE_SUPERNODE, Answer

OTHER_INTERVAL = 0.25  # seconds from one address of the machine that a person named to its next (RFC 8305 §8)
OTHERS_MAX = 4  # of these: more than have their turn in a search
QUERY_INTERVAL = 0.5  # seconds between the rounds
ROUNDS = 3  # queries: who missed an answer for one lost datagram would rule beside the one that is there
SEARCH_TIME = ROUNDS * QUERY_INTERVAL  # seconds
SEARCH_TIME_WITH_MEMBERS = 15.0  # members answered, but their supernode is just being replaced
LAN_GRACE = 0.1  # seconds that a supernode on this machine has to answer before one elsewhere is taken
NAMED_FOR = 2.0  # seconds after a member named its supernode: then it does not live any more either
ALIVE_FOR = 4_000  # milliseconds since a member heard its supernode (two beats): then that lives, though not for us
PLACES_KEPT = 8  # of the members that take over first
RULERS_KEPT = 8  # that answered a search: who answers first may take nobody in
LOOPBACK = "127.0.0.1"


class Ask(enum.Enum):
    """What for somebody was asked."""

    SEARCH = "who is there, where the network is expected"
    LAST = "is the last network there"
    FORMER = "does the address, where nobody answers, lead to your network"
    BEYOND = "is there any other network"


EXPECTED = (Ask.SEARCH, Ask.LAST)  # what is asked where the network that is looked for may be


class Found(NamedTuple):
    """A supernode to join."""

    address: Address


class Nobody(NamedTuple):
    """There is nobody to join, nor hope for it."""


class Waits(NamedTuple):
    """Members have answered, and their supernode does not: it is being replaced, and this node waits for the next."""


class Hint(NamedTuple):
    """A network that was found, but not looked for."""

    address: Address
    name: str  # of its supernode
    member_count: int


class LastNetwork(NamedTuple):
    """The network that this node was in when it last ran, and where its members were."""

    network_id: bytes
    places: Tuple[Address, ...]


NO_LAST_NETWORK = LastNetwork(b"", ())
_LAST_NETWORK = Record(LastNetwork, (Fixed(16), Many(AddressField(), PLACES_KEPT)))


def encode_last_network(last: LastNetwork) -> bytes:
    """As it is kept in the folder."""
    return _LAST_NETWORK.encode(last)


def decode_last_network(data: Buffer) -> LastNetwork:
    """NO_LAST_NETWORK when these bytes are none."""
    last: LastNetwork = _LAST_NETWORK.decode_whole(data, NO_LAST_NETWORK)
    return last


class Search:
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
        resuming: Optional[Resuming] = None,
        others: Sequence[Address] = (),
    ) -> None:
        """`others`: more addresses of the machine at `target`; the one that answers first is it."""
        self.last = last
        self.resuming = resuming or Resuming(NO_RULED)
        self.target = target
        self.since = now
        self.hint: Optional[Hint] = None
        self.has_waited = False  # so long that the person was told
        self._prober = prober
        self._rng = rng
        self._node_id = node_id
        self._own_address = own_address
        self._own_ips = [LOOPBACK, *own_ips]
        self._port = port
        self._others = list(others[:OTHERS_MAX])  # that were not asked yet
        self._expected: List[Address] = [(ip, port) for ip in self._own_ips] if target is None else [target]
        self._next_other = now + OTHER_INTERVAL if others else math.inf
        self._sweep: Optional[Sweep] = None  # of the neighbours, one by one
        self._lans = lans_of(own_address[0], own_ips) if target is None else []
        self._next_round = now
        self._rounds = 0
        self._ends_at = now + SEARCH_TIME
        self._candidate: Optional[Address] = None
        self._candidate_at = 0.0
        self._rulers: List[Address] = []
        self._networks: Dict[Address, bytes] = {}  # that they rule, as they say
        self._busy: List[Address] = []  # of these, who said so
        self._last_place: Optional[Address] = None  # of the last network's supernode
        self._former: Optional[Address] = None  # of the network that had its supernode at the target
        self._named: Optional[Address] = None  # the supernode, as a member says, though it did not answer yet
        self._named_at = 0.0
        self._living: Optional[Address] = None  # the supernode that the last member to answer hears
        self._has_members = False  # a member of the network answered
        self._is_answered = False  # where the network is expected
        self._was_extended = False
        self._is_last_round = False

    def next_deadline(self) -> float:
        if self._candidate:
            return self._candidate_at
        sweep_at = math.inf if self._sweep is None else self._sweep.next_deadline()
        return min(self._next_round, self._next_other, self._ends_at, sweep_at)

    def has_moved(self, place: Address) -> bool:
        """Was the network found here, and not at the address that was given?"""
        return place == self._former and place != self._candidate

    def is_elsewhere(self, place: Address) -> bool:
        """Is this the last network's place, while at the address that was given there is but this node itself?"""
        return place == self._last_place and self.target is not None and self._is_own(self.target)

    def on_timer(self, now: float) -> Union[Found, Nobody, Waits, None]:
        """What was found, or None while there is still hope; once also that this is going to last."""
        finding = self._found_so_far(now)
        return Waits() if finding is None and self._begins_to_wait(now) else finding

    def _found_so_far(self, now: float) -> Union[Found, Nobody, None]:
        """Where to knock, or that nobody is there; None: ask on, which is done here when it is time."""
        if self._candidate is not None and now >= self._candidate_at:
            return Found(self._candidate)
        if self._former is not None and not self._is_answered and now >= self.since + SEARCH_TIME:
            return Found(self._former)
        if now >= self._ends_at:
            if self._named is not None and now <= self._named_at + NAMED_FOR:
                return Found(self._named)  # bad luck with three queries; connecting tries harder
            if self.target is not None or self._is_last_round:
                return Nobody()
            self._ask_once_more(now)
        elif now >= self._next_other:
            self._ask_other(now)
        elif now >= self._next_round:
            self._ask_all(now)
        self._ask_neighbours(now)
        return None

    def _ask_neighbours(self, now: float) -> None:
        """Once, when nobody has answered the first round."""
        is_late = self._rounds > 1 and self._candidate is None and not self._has_members
        if self._sweep is None and is_late and self._lans:
            self._sweep = Sweep(self._lans, self._port, now)
        if self._sweep is not None and self._candidate is None:
            for place in self._sweep.due(now):
                self._prober.ask_freely(place, Ask.SEARCH, now)

    def _begins_to_wait(self, now: float) -> bool:
        is_waiting = self._has_members and self._candidate is None and now >= self.since + SEARCH_TIME
        begins = is_waiting and not self.has_waited
        self.has_waited = self.has_waited or is_waiting
        return begins

    def network_at(self, place: Address) -> bytes:
        """Which network is ruled there, as far as somebody there has told."""
        return self._networks.get(place, NO_NETWORK)

    def beyond_reach(self) -> Optional[Address]:
        """The supernode that a member hears all the time, and this node does not; None when there is none."""
        return self._living if self.has_waited and not self._rulers else None

    def after(self, mute: Address) -> Optional[Address]:
        """Another supernode that answered, now that this one gives no answer to who joins there."""
        self._rulers = [place for place in self._rulers if place != mute]
        return self._rulers[0] if self._rulers else None

    def instead_of(self, busy: Address) -> Optional[Address]:
        """Another that answered, and has not said that it is busy; None when all have: then they may be asked anew."""
        self._busy.append(busy)
        place = next((place for place in self._rulers if place not in self._busy), None)
        if place is None:
            self._busy.clear()
        return place

    def has_others(self, busy: Address) -> bool:
        """Is there anybody but this one to be asked?"""
        return any(place != busy for place in self._rulers)

    def begin_anew(self, now: float) -> None:
        """This node slept: whoever was to answer could not be heard."""
        self.since = self._next_round = now
        self._ends_at = now + SEARCH_TIME
        self._rounds, self._was_extended, self._is_last_round = 0, False, False

    def _ask_once_more(self, now: float) -> None:
        """Of several that start together, not all shall become supernodes at the same instant."""
        self._is_last_round = True
        self._next_round = now + self._rng.random() * QUERY_INTERVAL
        self._ends_at = self._next_round + 2 * LAN_GRACE

    def _ask_all(self, now: float) -> None:
        """A round of queries: to the LAN or the target, to who is expected, and to the ports behind."""
        self._next_round = now + QUERY_INTERVAL
        self._rounds += 1
        if self.target is None:
            self._prober.broadcast(self._port, Ask.SEARCH, now)
            if self._is_last_round:
                self._broadcast_behind(Ask.SEARCH, (NOWHERE[0], self._port), now)
        for place in self._expected:
            if place != self._own_address:
                self._prober.ask_freely(place, Ask.SEARCH, now)
        is_here = self.target is None or self._is_here(self.target)
        if is_here or self._rounds > 1:
            self._ask_behind(self.target or (LOOPBACK, self._port), now)
        if is_here:
            self._ask_last(Ask.LAST, now)
        if self.target is not None and self._rounds > 1 and not self._is_answered:
            self._ask_beyond(self.target, is_here, now)

    def _ask_other(self, now: float) -> None:
        """The addresses of one machine are asked one after the other, until one answers (RFC 8305 §5)."""
        other = self._others.pop(0)
        self._next_other = now + OTHER_INTERVAL if self._others else math.inf
        self._expected.append(other)
        self._prober.ask_freely(other, Ask.SEARCH, now)

    def _settle_on(self, address: Address) -> None:
        """It leads to the machine that was named."""
        self.target = address
        self._expected, self._others, self._next_other = [address], [], math.inf

    def _ask_behind(self, place: Address, now: float) -> None:
        """Something mute may have the port: ask the nodes behind it that are of the network known by it."""
        for behind in places_behind(place):
            if not self._is_own(behind):
                self._prober.ask_freely(behind, Ask.SEARCH, now, place)

    def _broadcast_behind(self, purpose: Ask, about: Address, now: float) -> None:
        """Once, before giving up: on another machine, too, something mute may have the port."""
        for port in ports_behind(self._port):
            self._prober.broadcast(port, purpose, now, about)

    def _ask_last(self, purpose: Ask, now: float, about: Optional[Address] = None) -> None:
        for place in self.last.places:
            if not self._is_own(place) and place not in self._expected:
                self._prober.ask_hinted(place, purpose, self._own_ips, now, about)

    def _ask_beyond(self, target: Address, is_here: bool, now: float) -> None:
        """Nobody answers there: who in reach knows that place?"""
        self._prober.broadcast(self._port, Ask.FORMER, now, target)
        if self._rounds == ROUNDS:
            self._broadcast_behind(Ask.FORMER, target, now)
        if not is_here:  # here this node would be the first: no question about another network
            self._prober.broadcast(self._port, Ask.BEYOND, now)
            self._ask_last(Ask.FORMER, now, target)

    def _is_here(self, place: Address) -> bool:
        """Is that an address of this machine?"""
        return is_loopback(place[0]) or place[0] in (self._own_address[0], *self._own_ips)

    def _is_own(self, place: Address) -> bool:
        """Is that where this node itself is? (Its own past may have been there.)"""
        return place[1] == self._own_address[1] and self._is_here(place)

    def on_answer(self, address: Address, answer: Answer, purpose: Ask, now: float) -> None:
        """Somebody who was asked has told who it is."""
        if answer.node_id == self._node_id or self.resuming.is_waiting(answer):
            return
        if purpose is Ask.LAST and answer.network_id != self.last.network_id:
            return
        if purpose is Ask.BEYOND and address == self._named:
            purpose = Ask.SEARCH  # the address leads there, whatever it was that was asked
        if self.target is not None and purpose is Ask.SEARCH and address in self._expected:
            self._settle_on(address)
        if answer.role == ROLE_SUPERNODE:
            self._on_supernode(address, answer, purpose, now)
        elif answer.role == ROLE_MEMBER:
            self._on_member(address, answer, purpose, now)
        elif purpose in EXPECTED:
            self._on_alone(address, answer, now)

    def _on_alone(self, address: Address, answer: Answer, now: float) -> None:
        """It searches, too, or is between two networks."""
        if self._port != self._own_address[1] and address[1] == self._port and self._is_here(address):
            # It has the port of this machine: what it finds, or founds, is what this node is to join.
            self._ends_at = max(self._ends_at, min(now + SEARCH_TIME, self.since + SEARCH_TIME_WITH_MEMBERS))
        elif not self._was_extended and (self.target is not None or answer.node_id < self._node_id):
            self._was_extended = True
            self._ends_at += SEARCH_TIME

    def _on_supernode(self, address: Address, answer: Answer, purpose: Ask, now: float) -> None:
        if purpose is Ask.FORMER:
            self._former = address
        elif purpose is Ask.BEYOND:
            self.hint = Hint(address, answer.name, answer.member_count)
        else:
            self._last_place = address if purpose is Ask.LAST else self._last_place
            self._found(address, answer.network_id, now)

    def _on_member(self, address: Address, answer: Answer, purpose: Ask, now: float) -> None:
        """It names its supernode: ask there."""
        place = seen_from(answer.supernode, address)
        near = [*self._own_ips, address[0]]
        if purpose is not Ask.BEYOND:
            self._has_members = True
            self._ends_at = max(self._ends_at, self.since + SEARCH_TIME_WITH_MEMBERS)
        self._is_answered = self._is_answered or purpose in EXPECTED
        self._living = place if place != NOWHERE and answer.heard_ago_ms < ALIVE_FOR else None
        if self._is_own(place):
            return  # it still believes in the one that died here
        self._prober.ask_hinted(place, purpose, near, now, keep=KEPT)  # connecting is the last try
        if purpose in EXPECTED:
            self._named_at = now
            self._named = place if place != NOWHERE and may_contact(place, near) else None

    def _found(self, address: Address, network_id: bytes, now: float) -> None:
        if address not in self._rulers and len(self._rulers) < RULERS_KEPT:
            self._rulers.append(address)
            self._networks[address] = network_id
        is_near = self.target is not None or is_loopback(address[0]) or address[0] in self._own_ips
        is_lasting = self._candidate is not None and is_of_link(self._candidate[0]) and not is_of_link(address[0])
        if self._candidate is None or is_near or is_lasting:  # of a link's own address nobody else can be told
            self._candidate = address
            self._candidate_at = now if is_near else now + LAN_GRACE


@dataclasses.dataclass(eq=False)
class _Look:
    """At one machine, by one address or several."""

    ends_at: float
    asked: List[Address]
    others: List[Address]
    next_other: float
    done: Callable[[Address, Optional[Answer]], None]

    def next_deadline(self) -> float:
        return min(self.ends_at, self.next_other if self.others else math.inf)


class Looks:
    """Looks at single machines, for a person who may go there."""

    def __init__(self, prober: Prober) -> None:
        self._prober = prober
        self._waiting: List[_Look] = []

    def look_at(
        self, address: Address, now: float, done: Callable[[Address, Optional[Answer]], None],
        others: Sequence[Address] = (),
    ) -> None:  # fmt: skip
        """Is there a supernode, or a member who names one? done(where, what it answers, or None) within SEARCH_TIME.

        `others`: more addresses of that machine, each asked a while after the one before.
        """
        look = _Look(now + SEARCH_TIME, [address], list(others[:OTHERS_MAX]), now + OTHER_INTERVAL, done)
        self._waiting.append(look)
        self._ask(address, now)

    def _ask(self, address: Address, now: float) -> None:
        for _ in range(2):  # one may be lost
            self._prober.ask_freely(address, Purpose.LOOK, now)

    def forget(self) -> None:
        """Nobody wants to go anywhere any more."""
        self._waiting = []

    def on_answer(self, address: Address, answer: Answer) -> None:
        """Somebody there answered: all who wait for that address know, unless it is alone and in no network."""
        if answer.role != ROLE_ALONE:
            self._end([look for look in self._waiting if address in look.asked], address, answer)

    def on_timer(self, now: float) -> None:
        for look in self._waiting:
            if look.others and look.next_other <= now:
                look.next_other = now + OTHER_INTERVAL
                look.asked.append(look.others.pop(0))
                self._ask(look.asked[-1], now)
        for look in [look for look in self._waiting if look.ends_at <= now]:
            self._end([look], look.asked[0], None)

    def next_deadline(self) -> float:
        return min((look.next_deadline() for look in self._waiting), default=math.inf)

    def _end(self, looks: List[_Look], address: Address, answer: Optional[Answer]) -> None:
        for look in looks:
            self._waiting.remove(look)
            look.done(address, answer)
