"""How two members that a router keeps apart find a way to each other.

The supernode introduces them: each is told where the other one may be, and a nonce. Both knock at all of these places,
ten times at most (`protocol/hearsay.py`), so that a router in between sees that its own side has spoken first (RFC
5128 §3.3), and answer what comes. Who gets an answer with the token that it sent to a place has *reached* the other
one there; only then anything larger is sent. A Knock that comes from an unknown place is one more place to knock at:
some routers show another port to each (RFC 5245 §7.1.3.2.1 calls it peer reflexive).

`Knocking` belongs to the `Membership`. Pure.
"""

from __future__ import annotations

import math
import random
from collections import OrderedDict
from typing import Any, Callable, Dict, Iterable, List, Optional, Sequence

from protocol import mishaps
from protocol.addresses import is_of_one_host, is_private, shown
from protocol.fields import Address
from protocol.hearsay import HOST_KNOCKS_MAX, KNOCKS_MAX, PROVEN_TIME, Hearsay, Outside
from protocol.membership.proofs import random_bytes
from protocol.messages import NOWHERE, PLACES_MAX, Introduce, Knock, Knocked, encode

log = mishaps.logger("peer")

KNOCK_INTERVAL = 0.1  # seconds
CANDIDATES_MAX = PLACES_MAX + 4  # places of one member: those told, where it is seen, and where it knocked from
INTRODUCED_MAX = 256  # members; the one introduced first is forgotten
KNOCK_TIME = 5.0  # seconds in which a Knock or its answer is still taken


class _Introduced:
    """One member, and where it may be."""

    def __init__(self, introduce: Introduce, seen: Address, candidates: Iterable[Address], now: float) -> None:
        self.node_id, self.nonce, self.seen = introduce.node_id, introduce.nonce, seen
        self.own = introduce.own
        self.since = now
        self.reached: List[Address] = []  # where it has answered, the first answer first
        self.rounds_left = KNOCKS_MAX
        self.tokens: Dict[bytes, Address] = {}  # that were sent to a place
        self.candidates: List[Address] = []
        for place in candidates:
            self.add(place)

    def add(self, place: Address) -> bool:
        """One place more to knock at; False if it is known, or one too many."""
        is_new = place not in self.candidates and len(self.candidates) < CANDIDATES_MAX and is_of_one_host(place)
        if is_new:
            self.candidates.append(place)
        return is_new

    def is_waiting(self, now: float) -> bool:
        """Are its Knocks and answers still taken?"""
        return now - self.since <= KNOCK_TIME

    @property
    def over_at(self) -> float:
        """From when on nothing of it holds any more."""
        return self.since + (PROVEN_TIME if self.reached else KNOCK_TIME)


class Knocking:
    """The members that were introduced to this one. `on_reached(node_id, now)`: a way to that one was found."""

    def __init__(
        self,
        network: Any,
        rng: random.Random,
        node_id: bytes,
        own_ips: Callable[[], Sequence[str]],
        on_answer: Callable[[Address, float], None],
        on_reached: Callable[[bytes, float], None],
        on_port_changing: Callable[[float], None] = lambda now: None,
    ) -> None:
        """`on_answer`: an address has shown that it receives (`Hearsay.on_answer`)."""
        self.dropped = 0
        self.is_port_changing = False  # does the router before this node show another port to each?
        self._network, self._rng, self._node_id, self._own_ips = network, rng, node_id, own_ips
        self._on_answer, self._on_reached = on_answer, on_reached
        self._on_port_changing = on_port_changing
        self._allowed = Hearsay(KNOCKS_MAX, HOST_KNOCKS_MAX)
        self._outside = Outside()
        self._by_node: OrderedDict[bytes, _Introduced] = OrderedDict()
        self._knock_at = self._over_at = math.inf

    def __len__(self) -> int:
        return len(self._by_node)

    # ---- questions

    def place_of(self, node_id: bytes, seen: Optional[Address]) -> Optional[Address]:
        """Where this member has answered; None if it did not, was not introduced, or is `seen` elsewhere by now."""
        reached = self._reached(node_id, seen)
        return reached[0] if reached else None

    def is_at(self, node_id: bytes, seen: Optional[Address], address: Address) -> bool:
        """Has this member answered from that address?"""
        return address in self._reached(node_id, seen)

    def _reached(self, node_id: bytes, seen: Optional[Address]) -> List[Address]:
        introduced = self._by_node.get(node_id)
        return introduced.reached if introduced is not None and introduced.seen == seen else []

    # ---- events

    def forget(self) -> None:
        """This node is in another network, or in none."""
        self._by_node.clear()
        self._knock_at = self._over_at = math.inf

    def on_introduce(self, introduce: Introduce, seen: Address, now: float) -> None:
        """The supernode introduces a member; `seen`: where it sees that one, as seen from here."""
        if introduce.node_id == self._node_id:
            self.dropped += 1
            return
        self._forget_old(now)
        places = [place for place in introduce.places if place[0] not in self._own_ips()]
        self._by_node.pop(introduce.node_id, None)
        self._by_node[introduce.node_id] = _Introduced(introduce, seen, [*places, seen], now)
        if len(self._by_node) > INTRODUCED_MAX:
            self._by_node.popitem(last=False)
        self._knock_at = now
        self._over_at = min(self._over_at, now + KNOCK_TIME)

    def on_knock(self, address: Address, knock: Knock, now: float) -> None:
        """One that was introduced has got through to this node: it is told so, and knocked at there."""
        introduced = self._waiting(knock.node_id, knock.nonce, now)
        if introduced is None:
            return
        self._network.send_lone(address, encode(Knocked(knock.nonce, self._node_id, knock.token, address)))
        if introduced.add(address):
            self._knock_at = now

    def on_knocked(self, address: Address, knocked: Knocked, now: float) -> None:
        """A Knock of this node was answered from the place that it went to: a way to that member is found."""
        introduced = self._waiting(knocked.node_id, knocked.nonce, now)
        if introduced is None:
            return
        if introduced.tokens.pop(knocked.token, None) != address:
            self.dropped += 1
            return
        self._on_answer(address, now)
        self._outside.on_answer(address)
        self._learn_port(introduced.own, knocked.seen, now)
        if address not in introduced.reached:
            introduced.reached.append(address)
            log.info("node %s was reached at %s", introduced.node_id.hex(), shown(address))
            self._on_reached(introduced.node_id, now)

    def _waiting(self, node_id: bytes, nonce: bytes, now: float) -> Optional[_Introduced]:
        """Who was introduced with that nonce just now; a Knock of this node itself may come back to it."""
        introduced = self._by_node.get(node_id)
        if introduced is None or introduced.nonce != nonce or not introduced.is_waiting(now):
            self.dropped += 1
            return None
        return introduced

    def _learn_port(self, own: Address, seen: Address, now: float) -> None:
        """The supernode and another one each tell where they see this node."""
        is_outside = NOWHERE not in (own, seen) and own[0] == seen[0] and not is_private(own[0])
        if is_outside and own[1] != seen[1] and not self.is_port_changing:
            self.is_port_changing = True
            log.info("the router shows another port to each: %d and %d", own[1], seen[1])
            self._on_port_changing(now)

    # ---- time

    def next_deadline(self) -> float:
        return min(self._knock_at, self._over_at)

    def on_timer(self, now: float) -> None:
        """Knock once more at each place of those who have not answered; what holds no more is forgotten."""
        if now >= self._over_at:
            self._forget_old(now)
        if now < self._knock_at:
            return
        self._knock_at = math.inf
        for introduced in self._by_node.values():
            if introduced.rounds_left and not introduced.reached and introduced.is_waiting(now):
                introduced.rounds_left -= 1
                self._knock(introduced, now)
                self._knock_at = now + KNOCK_INTERVAL

    def _knock(self, introduced: _Introduced, now: float) -> None:
        for place in introduced.candidates:
            if self._may_knock(place, now):
                token = random_bytes(self._rng, 8)
                introduced.tokens[token] = place
                self._network.send_lone(place, encode(Knock(introduced.nonce, self._node_id, token)))

    def _may_knock(self, place: Address, now: float) -> bool:
        """Private addresses are in the house; of others there are few at a time, for who names them may lie."""
        is_private_one = is_private(place[0])
        if not is_private_one and not self._outside.may_try(place, now):
            return False
        if not self._allowed.may_send(place, now):
            return False
        if not is_private_one:
            self._outside.on_tried(place, now)
        return True

    def _forget_old(self, now: float) -> None:
        for node_id in [node_id for node_id, introduced in self._by_node.items() if now >= introduced.over_at]:
            del self._by_node[node_id]
        self._over_at = min((each.over_at for each in self._by_node.values()), default=math.inf)
