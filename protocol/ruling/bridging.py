"""A member that is on more LANs than this machine may rule in its place, where somebody needs it.

A machine with two networks joins what it finds on one of them; who searches on the other one hears this member, and
does not get to the supernode. Then that member is to rule: all who reach this machine reach it, too, as far as it has
told its addresses (`Places`), and somebody has reached it where it did not speak first. Nobody is yielded to who has
not all the LANs of this machine and more, so no two of them yield to each other. Pure.
"""

from __future__ import annotations

from typing import AbstractSet, FrozenSet, Iterable

from protocol.addresses import is_loopback, lan_of
from protocol.fields import Address
from protocol.messages import NOWHERE


def lans_of_places(places: Iterable[Address]) -> FrozenSet[str]:
    """The networks that machines are on who have these places; loopback is none."""
    return frozenset(lan_of(ip) for ip, _ in places if ip != NOWHERE[0] and not is_loopback(ip))


def is_bridge(own: Iterable[Address], other: Iterable[Address], newcomer: Address) -> bool:
    """Is the machine with those other places on the newcomer's LAN and on all of ours, as we are not?"""
    lans: AbstractSet[str] = lans_of_places(own)
    others = lans_of_places(other)
    return bool(lans) and lans < others and lan_of(newcomer[0]) in others - lans
