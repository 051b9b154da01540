"""Fair shares of a bounded thing: when it is full, who holds most gives way. And of work: who had least has its turn.

The rule is max-min fairness (Bertsekas and Gallager, Data Networks, §6.5.2): nobody's share is cut for somebody who
holds as much already. Ten that take all they can and one that takes little: the one gets what it asks for, the ten
share the rest equally, in whatever order they came.

A *person* is who holds: a node id that was checked, else an address without its port (a name or an id that a message
merely claims is free to make up, and whoever makes up a hundred would hold a hundred shares).
The *cost* of one is what it takes away from all others: bytes of memory, places in a queue, descriptors.

    shares = FairShares(limit)
    who = shares.gives_way(person, cost)    # None: there is room; somebody else: take one back from it; itself: refuse
    shares.take(person, cost) ; shares.give_back(person, cost)

A machine with IPv6 has 2^64 addresses, and all machines of a room have theirs in one such network. So where a person is
a host, `FairHosts` shares between networks first, and between the hosts of one where that one has to give way.

Time is nothing that one could take back. Where work waits, `FairTurns` says whose is done next.

Pure, and what is held is held by the caller: this module only counts, and says whose turn it is to lose something.
Every shared bounded thing of the program, with its bound and with what happens to the greedy, stands in the table of
the README ("What is bounded").
"""

from __future__ import annotations

import heapq
import itertools
from typing import Any, Dict, Hashable, Iterator, List, Optional, Tuple, Union

from protocol.addresses import network_of
from protocol.latest import Latest

STALE_ENTRIES_MAX = 100  # of the heap, beside one for each person, until they are tidied away together
SERVED_MAX = 2048  # persons whose last work is remembered: twice as many as there are members


class FairShares:
    """How much of one bounded thing each person holds. All costs are positive ints of one unit."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.total = 0
        self._held: Dict[Hashable, int] = {}
        # Greediest first. An entry whose number is not what its person holds now is stale, and skipped.
        self._heap: List[Tuple[int, int, Hashable]] = []
        self._ties = itertools.count()

    def __len__(self) -> int:
        """How many persons hold something."""
        return len(self._held)

    def set_limit(self, limit: int) -> None:
        """So much there is from now on; who holds more than there is keeps it until somebody else wants some."""
        self.limit = limit

    def held(self, person: Hashable) -> int:
        """What this person holds."""
        return self._held.get(person, 0)

    def gives_way(self, person: Hashable, cost: int = 1) -> Optional[Hashable]:
        """Who has to give something back before this person may take so much: None when there is room.

        The person itself when nobody would hold more than it does afterwards: then it is refused. (Were it not, two
        persons of equal shares would take one thing from each other for ever.)
        """
        if self.total + cost <= self.limit:
            return None
        greediest = self.greediest()
        if greediest is None or self.held(person) + cost >= self.held(greediest):
            return person
        return greediest

    def take(self, person: Hashable, cost: int = 1) -> None:
        """Count it; the caller asked `gives_way` before, and did as it said."""
        held = self.held(person) + cost
        self._held[person] = held
        self.total += cost
        self._push(person, held)

    def give_back(self, person: Hashable, cost: int = 1) -> None:
        """So much less is held."""
        held = self.held(person) - cost
        assert held >= 0, "gave back more than was taken"
        self.total -= cost
        if held:
            self._held[person] = held
            self._push(person, held)
        else:
            self._held.pop(person, None)

    def forget(self, person: Hashable) -> None:
        """This person holds nothing any more."""
        self.total -= self._held.pop(person, 0)

    def holds_its_share(self, person: Hashable) -> bool:
        """Does it hold as much as each would if all had the same, or more?"""
        return self.held(person) * len(self._held) >= self.total

    def greediest(self) -> Optional[Hashable]:
        """Who holds most; of equals, who has held it for longest. None when nobody holds anything."""
        while self._heap:
            held, _, person = self._heap[0]
            if self._held.get(person) == -held:
                return person
            heapq.heappop(self._heap)
        return None

    def _push(self, person: Hashable, held: int) -> None:
        heapq.heappush(self._heap, (-held, next(self._ties), person))
        if len(self._heap) > 2 * len(self._held) + STALE_ENTRIES_MAX:
            self._heap = [(-held, next(self._ties), person) for person, held in self._held.items()]
            heapq.heapify(self._heap)


class FairHosts:
    """The same of hosts, by IP: how much each network holds (`protocol/addresses.py`), and each host of it."""

    def __init__(self, limit: int) -> None:
        self._networks = FairShares(limit)
        self._hosts: Dict[Hashable, FairShares] = {}  # of the networks that are more than one address

    @property
    def total(self) -> int:
        return self._networks.total

    def gives_way(self, host: Hashable, cost: int = 1) -> Optional[Hashable]:
        """The host that has to give something back before this one may take so much; see FairShares."""
        network = _network_of(host)
        who = self._networks.gives_way(network, cost)
        if who == network and network in self._hosts:
            return self._hosts[network].gives_way(host, cost)
        if who == network:
            return host
        return self._hosts[who].greediest() if who in self._hosts else who

    def holds_its_share(self, host: Hashable) -> bool:
        """Does its network hold as much as each would if all had the same, and it as much as each there, or more?"""
        network = _network_of(host)
        is_great = self._networks.holds_its_share(network)
        return is_great and (network not in self._hosts or self._hosts[network].holds_its_share(host))

    def take(self, host: Hashable, cost: int = 1) -> None:
        """As `FairShares.take`, for the host and for its network."""
        network = _network_of(host)
        self._networks.take(network, cost)
        if network != host:
            self._hosts.setdefault(network, FairShares(0)).take(host, cost)

    def give_back(self, host: Hashable, cost: int = 1) -> None:
        """As `FairShares.give_back`, for the host and for its network."""
        network = _network_of(host)
        self._networks.give_back(network, cost)
        if network != host:
            self._hosts[network].give_back(host, cost)
            if not self._hosts[network].total:
                del self._hosts[network]


def _network_of(host: Hashable) -> Hashable:
    """Some persons among the hosts are known by something else: each is a network of its own."""
    return network_of(host) if isinstance(host, str) else host


class FairRecords:
    """What is remembered of each person, under keys; when it is full, who has most loses what it used longest ago."""

    def __init__(self, limit: int, is_of_hosts: bool = False) -> None:
        self._shares: Union[FairShares, FairHosts] = FairHosts(limit) if is_of_hosts else FairShares(limit)
        self._by_person: Dict[Hashable, Dict[Any, Any]] = {}

    def __len__(self) -> int:
        """How many records there are."""
        return self._shares.total

    def get(self, person: Hashable, key: Hashable) -> Any:
        """None if nothing is remembered."""
        return self._by_person.get(person, {}).get(key)

    def of(self, person: Hashable) -> List[Tuple[Any, Any]]:
        """All of one person, what was used longest ago first."""
        return list(self._by_person.get(person, {}).items())

    def all(self) -> Iterator[Tuple[Any, Any, Any]]:
        """All that is remembered."""
        return ((person, key, value) for person, held in self._by_person.items() for key, value in held.items())

    def put(self, person: Hashable, key: Hashable, value: Any) -> Optional[Any]:
        """Remember it, in place of what was there under the key; nothing where all have one and no more.

        The key of what was forgotten for it; None if nothing was.
        """
        pushed_out = None
        if self.pop(person, key) is None:
            is_room, pushed_out = self._make_room(person)
            if not is_room:
                return None
        self._shares.take(person)
        self._by_person.setdefault(person, {})[key] = value
        return pushed_out

    def pop(self, person: Hashable, key: Hashable) -> Any:
        """Forget it; None if it was not there."""
        held = self._by_person.get(person, {})
        if key not in held:
            return None
        self._shares.give_back(person)
        value = held.pop(key)
        if not held:
            del self._by_person[person]
        return value

    def _make_room(self, person: Hashable) -> Tuple[bool, Optional[Any]]:
        """Is there room for one more, and the key of what had to go for it."""
        who = self._shares.gives_way(person)
        if who is None or who not in self._by_person:
            return who is None, None
        oldest = next(iter(self._by_person[who]))
        self.pop(who, oldest)
        return True, oldest


class FairTurns:
    """Whose work is done next: of those who wait, who had least lately.

    (Start-time fair queueing: Goyal, Vin and Cheng, 1996.)
    In a time that counts work, a person's next piece of it starts where its last one ended, or now, if that is later.
    So nobody saves up turns, and who comes for one thing waits for what is being done, not for all that others want.
    """

    def __init__(self) -> None:
        self._now = 0.0
        self._ends: Latest[Hashable, float] = Latest(SERVED_MAX)  # person -> where its last piece of work ended

    def start(self, person: Hashable) -> float:
        """Where its next piece of work starts: the least is next."""
        return max(self._now, self._ends.get(person, 0.0))

    def serve(self, person: Hashable, cost: float) -> None:
        """Its next piece of work is done."""
        self._now = self.start(person)
        self._ends.put(person, self._now + cost)
