"""The supernode's introductions: who offers something to one that it may not reach is told where that one may be.

Members tell their own addresses (`Places`). Is one of two seen elsewhere than it says, there is a router before it; has
it several addresses, the one that is seen here may lead nowhere from the other side; and who cannot be reached where it
did not speak first has to speak first. Then both are told each other's places with a nonce, and knock
(`protocol/membership/knocking.py`). Who is of an older program tells no places, and is left as it is. Pure.
"""

from __future__ import annotations

import random
from collections import OrderedDict
from typing import Callable, Dict, Tuple

from protocol.addresses import is_loopback, is_of_one_host
from protocol.fields import Address
from protocol.membership.proofs import random_bytes
from protocol.messages import Introduce, Places
from protocol.ruling.line import Line
from protocol.ruling.register import Register

INTRODUCE_INTERVAL = 20.0  # seconds from one introduction of two members to the next
PAIRS_MAX = 4096  # that are remembered; then the oldest is forgotten, and may be introduced again


class Introducing:
    """The places that members told, and who was introduced to whom when."""

    def __init__(
        self, register: Register, rng: random.Random, is_shut: Callable[[bytes], bool] = lambda node_id: False
    ) -> None:
        """`is_shut`: can others not reach this member? Who knocks from inside a firewall opens it for the other one."""
        self._register = register
        self._is_shut = is_shut
        self._rng = rng
        self._places: Dict[bytes, Tuple[Address, ...]] = {}  # of members that are here
        self._introduced_at: OrderedDict[Tuple[bytes, bytes], float] = OrderedDict()

    def on_places(self, line: Line, message: Places, now: float) -> None:
        """A member's own word about its addresses; nothing but a few small datagrams goes there before an answer."""
        if self._register.may_ask(line, now):
            self._places[line.node_id] = tuple(
                place for place in message.places if is_of_one_host(place) and not is_loopback(place[0])
            )

    def places_of(self, node_id: bytes) -> Tuple[Address, ...]:
        """What that member told of its addresses; none, where it is of an earlier program."""
        return self._places.get(node_id, ())

    def forget(self, node_id: bytes) -> None:
        """The member is gone."""
        self._places.pop(node_id, None)

    def introduce(self, one: Line, other: Line, now: float) -> None:
        """The one offers something to the other: will they find each other by the roster alone?"""
        if one.is_own or other.is_own or not (self._is_hidden(one) or self._is_hidden(other)):
            return
        if one.link is None or other.link is None:
            return  # what it said while this node was in doubt is heard now, and it has gone
        if one.node_id in self._places and other.node_id in self._places and self._has_turn(one, other, now):
            nonce = random_bytes(self._rng, 8)
            self._tell(one, other, nonce)
            self._tell(other, one, nonce)

    def _is_hidden(self, line: Line) -> bool:
        """Is it seen where it does not say that it is, or in other places as well?"""
        places, seen = self._places.get(line.node_id, ()), line.entry.place
        if self._is_shut(line.node_id):
            return True
        return not is_loopback(seen[0]) and (len(places) > 1 or bool(places) and seen not in places)

    def _has_turn(self, one: Line, other: Line, now: float) -> bool:
        pair = min(one.node_id, other.node_id), max(one.node_id, other.node_id)
        if now - self._introduced_at.get(pair, -INTRODUCE_INTERVAL) < INTRODUCE_INTERVAL:
            return False
        self._introduced_at.pop(pair, None)
        self._introduced_at[pair] = now
        if len(self._introduced_at) > PAIRS_MAX:
            self._introduced_at.popitem(last=False)
        return True

    def _tell(self, line: Line, about: Line, nonce: bytes) -> None:
        places = self._places[about.node_id]
        self._register.send(line, Introduce(about.node_id, nonce, about.entry.place, line.entry.place, places))
