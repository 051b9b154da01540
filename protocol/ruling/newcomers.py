"""How fast newcomers are taken in: all together, and from each address.

One machine that joins under name after name would fill the roster with nodes that do nothing, and everybody's roster
updates with them. A class behind one NAT is one address as well, so an address has a burst for a class.
Members that come back (their node id is known, and opened) are not newcomers. On loopback, where a whole lab may run
on one machine, only the rate of all counts. What that has no room for waits its turn: of the addresses that wait, who
had least goes first, so that a flood from one (its members may come back as often as they like) keeps no other away.
Of IPv6 one machine may have 2^64 addresses: a network of so many is counted as ten machines, and has one turn.

Pure: `now` is monotonic seconds.
"""

from __future__ import annotations

from typing import Any, Dict, List, NamedTuple, Optional, Tuple

from protocol.addresses import NETWORK_SHARE, is_loopback, network_of
from protocol.fairness import FairHosts, FairTurns
from protocol.fields import Address
from protocol.latest import Latest
from protocol.rates import Bucket

JOINS_PER_SECOND, JOINS_BURST = 400.0, 200.0  # of all (THREATS: F13)
JOINS_WAITING_MAX = 400  # of all: a second's worth, for who joins has patience for five; of 300 bytes each
NEWCOMERS_BURST = 64  # from one address: a class behind one NAT
NEWCOMERS_PER_SECOND = 8.0  # after them: a second class is in within ten seconds
ADDRESSES_MAX = 1024  # remembered: as many as members; of 100 bytes each


class Waiting(NamedTuple):
    """A Join that waits for its turn."""

    link: int
    address: Address
    join: Any


class Admission:
    """Says of each Join whether there is room for it now, or keeps it until it has its turn."""

    def __init__(self, now: float) -> None:
        self._all = Bucket(JOINS_PER_SECOND, JOINS_BURST, now)
        # Address -> its bucket; who did not come for longest, and is forgotten, has most of its burst again.
        self._newcomers: Latest[str, Bucket] = Latest(ADDRESSES_MAX)
        self._waiting: Dict[str, Dict[int, Waiting]] = {}  # address -> link -> what waits, in order
        self._shares = FairHosts(JOINS_WAITING_MAX)
        self._networks, self._hosts = FairTurns(), FairTurns()

    def __len__(self) -> int:
        return self._shares.total

    def __contains__(self, link: int) -> bool:
        return any(link in waiting for waiting in self._waiting.values())

    def admits(self, host: str, is_newcomer: bool, now: float) -> bool:
        """One Join from there. What its own address has no room for takes nothing from the others."""
        if not is_newcomer or is_loopback(host):
            return True
        network, own = network_of(host), self._bucket_of(host, 1, now)
        if network == host:
            return own.take(now)
        others = self._bucket_of(network, NETWORK_SHARE, now)
        return own.has(now) and others.take(now) and own.take(now)

    def has_turn(self, host: str, now: float) -> bool:
        """Is there room for one more of all, and nobody who waits for it? Then it is taken."""
        if self._shares.total or not self._all.take(now):
            return False
        self._serve(host)
        return True

    def put_off(self, waiting: Waiting) -> Optional[Waiting]:
        """It waits for its turn; who is to come again instead: it, or the last one of an address that has more."""
        host, loser = waiting.address[0], None
        who = self._shares.gives_way(host)
        if who == host:
            return waiting
        if who is not None:
            assert isinstance(who, str)
            loser = self._waiting[who][next(reversed(self._waiting[who]))]
            self.discard(loser.link)
        self._waiting.setdefault(host, {})[waiting.link] = waiting
        self._shares.take(host)
        return loser

    def next(self, now: float) -> Optional[Waiting]:
        """Who is taken in next, if there is room."""
        if not self._shares.total or not self._all.take(now):
            return None
        host = min(self._waiting, key=self._turn_of)
        self._serve(host)
        waiting = next(iter(self._waiting[host].values()))
        self.discard(waiting.link)
        return waiting

    def all(self) -> List[Waiting]:
        """Who waits."""
        return [waiting for by_link in self._waiting.values() for waiting in by_link.values()]

    def move(self, link: int, address: Address) -> None:
        """Who waits there has another address by now; it keeps its turn."""
        for waiting in self._waiting.values():
            if link in waiting:
                waiting[link] = waiting[link]._replace(address=address)

    def discard(self, link: int) -> None:
        """It waits no more."""
        host = next((host for host, waiting in self._waiting.items() if link in waiting), None)
        if host is not None:
            self._shares.give_back(host)
            del self._waiting[host][link]
            if not self._waiting[host]:
                del self._waiting[host]

    def _turn_of(self, host: str) -> Tuple[float, float]:
        """That of its network, and its own among those there."""
        return self._networks.start(network_of(host)), self._hosts.start(host)

    def _serve(self, host: str) -> None:
        self._networks.serve(network_of(host), 1.0)
        self._hosts.serve(host, 1.0)

    def _bucket_of(self, person: str, hosts: int, now: float) -> Bucket:
        bucket = self._newcomers.get(person) or Bucket(NEWCOMERS_PER_SECOND * hosts, NEWCOMERS_BURST * hosts, now)
        self._newcomers.put(person, bucket)
        return bucket
