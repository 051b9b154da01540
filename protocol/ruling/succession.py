"""Who rules next, when the supernode leaves or reaches too few: the first member that all others can reach.

Where some machines have IPv4 alone and others IPv6 alone, only one with both reaches all of them. When it has died,
who is next in the join order rules, and the others found a network of their own which that one never hears: then one
that hears both is to rule instead. A member's families are those of the addresses that it told
(`protocol/ruling/introducing.py`), and of that from which it is seen here; one of an earlier program tells none. Pure.
"""

from __future__ import annotations

import collections
from typing import Counter, FrozenSet, Iterable, Mapping, Optional

from protocol.addresses import is_loopback
from protocol.fields import Address
from protocol.ruling.introducing import Introducing
from protocol.ruling.line import Line
from protocol.ruling.register import Register

Families = FrozenSet[bool]  # IPv6?
BOTH: Families = frozenset((False, True))


def successor_of(register: Register, introducing: Introducing, now: float) -> Optional[Line]:
    """Of those alive, in join order, the first that cuts off fewest; None: nobody is there who may rule."""
    candidates = register.alive(now)
    here: Counter[Families] = collections.Counter(
        _families_of(line, introducing) for line in register.lines() if line.link is not None and not line.is_own
    )
    return min(candidates, key=lambda line: _cut_off(_families_of(line, introducing), here), default=None)


def better_one(
    register: Register, introducing: Introducing, seen_by_six: Mapping[bytes, bool], now: float
) -> Optional[Line]:
    """Who reaches all that this machine does, and those missed of a family that it has not; None: nobody is better.

    `seen_by_six`: whom the last supernode saw by IPv6 or IPv4; those who are away since are missed.
    """
    own = _told_families(introducing.places_of(register.own.node_id) if register.own is not None else ())
    away = (line.node_id for line in register.lines() if line.link is None)
    wanted = own | frozenset(seen_by_six[node_id] for node_id in away if node_id in seen_by_six)
    if not own or wanted == own:
        return None
    return next((line for line in register.alive(now) if wanted <= _families_of(line, introducing)), None)


def _told_families(places: Iterable[Address]) -> Families:
    return frozenset(":" in ip for ip, _ in places if not is_loopback(ip))


def _cut_off(families: Families, here: Counter[Families]) -> int:
    return sum(count for others, count in here.items() if not families & others)


def _families_of(line: Line, introducing: Introducing) -> Families:
    seen = line.entry.place
    if is_loopback(seen[0]):
        return BOTH  # of this very machine
    return _told_families((seen, *introducing.places_of(line.node_id)))
