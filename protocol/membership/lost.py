"""Where members were that gave no sign any more: the other half of a parted network may be there.

Every member keeps these places, and whoever rules next starts from its own. A supernode looks there for another one
of its network; that one belongs to it if it is at such a place, or if somebody at such a place obeys it (who of the two
goes over, `protocol/ruling/rivals.py` says): whoever lost nobody in silence has nothing to be healed of. A place is the
source of a validated connection, so nobody on another machine can speak from it; the node id in an Answer is but a
claim.

Pure: no socket, no thread, no clock.
"""

from __future__ import annotations

import collections
import itertools
import random
from typing import Callable, Counter, Dict, Iterable, Iterator, List, Tuple

from protocol.addresses import network_of
from protocol.fairness import FairHosts
from protocol.fields import Address
from protocol.messages import MEMBERS_MAX, NOWHERE

LOST_PLACES_MAX = MEMBERS_MAX  # all but one of the largest network may be cut off at once


class LostPlaces:
    """The places, in the order of losing, latest last; when it is full, the machine with most of them gives way."""

    def __init__(self, places: Iterable[Address] = (), limit: int = LOST_PLACES_MAX) -> None:
        self._places: Dict[Address, None] = {}
        self._shares = FairHosts(limit)
        for place in places:
            self.add(place)

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[Address]:
        return iter(list(self._places))

    def __contains__(self, place: Address) -> bool:
        return place in self._places

    def add(self, place: Address) -> None:
        """A member was lost there, just now."""
        if place == NOWHERE:
            return
        self.discard(place)
        host = self._shares.gives_way(place[0])
        if host is not None:
            self.discard(self._oldest_of(str(host)))
        self._places[place] = None
        self._shares.take(place[0])

    def _oldest_of(self, host: str) -> Address:
        """What is worth least: of that host, else of its network; where it has none, and nobody has two, of all."""
        network = network_of(host)
        of_host = (place for place in self._places if place[0] == host)
        of_network = (place for place in self._places if network_of(place[0]) == network)
        return next(itertools.chain(of_host, of_network, self._places))

    def discard(self, place: Address) -> None:
        """Somebody is there again."""
        if place in self._places:
            del self._places[place]
            self._shares.give_back(place[0])

    def latest(self, count: int) -> List[Address]:
        """Those lost last: after a cut, most of them are alive on its other side."""
        return list(self._places)[-count:]

    def some(self, count: int, rng: random.Random) -> List[Address]:
        """Some of all, machine by machine in turn: one that comes and goes a thousand times hides nobody else."""
        places = rng.sample(list(self._places), len(self._places))
        return _in_turn(_in_turn(places, str), network_of)[:count]


def _in_turn(places: List[Address], person_of: Callable[[str], str]) -> List[Address]:
    """The first of each person, then the second of each, and so on; each person's in their order."""
    turns: Counter[str] = collections.Counter()
    order: List[Tuple[int, int, Address]] = []
    for place in places:
        person = person_of(place[0])
        turns[person] += 1
        order.append((turns[person], len(order), place))
    return [place for _, _, place in sorted(order)]
