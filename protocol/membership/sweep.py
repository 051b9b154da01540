"""The neighbours of this machine's LANs one by one: a host that lets in answers only hears nobody whom it asked by
broadcast, but does hear those whom it asked by name.

Once in a search that has found nobody by broadcast, and now and then while this node rules alone; at a pace at which
even a small switch has no trouble, each address once, one small datagram. Pure.
"""

from __future__ import annotations

import ipaddress
import math
from typing import List, Sequence

from protocol.addresses import is_loopback, is_private
from protocol.fields import Address
from protocol.messages import NOWHERE

PER_SECOND = 200  # datagrams of 300 bytes: 254 neighbours are asked in 1.3 s, within the time of a search
SEND_INTERVAL = 0.05  # seconds
LANS_MAX = 2  # the first ones: tunnels, virtual machines and containers come last


def lans_of(bound_ip: str, own_ips: Sequence[str]) -> List[str]:
    """The own addresses whose neighbours may be asked: private ones, by which this node is reached."""
    ips = own_ips if bound_ip == NOWHERE[0] else [bound_ip]
    return [ip for ip in ips if ":" not in ip and is_private(ip) and not is_loopback(ip)][:LANS_MAX]


def neighbours_of(ip: str) -> List[str]:
    """The other hosts of its /24, those behind it first: addresses are mostly given out in turn."""
    own = int(ipaddress.IPv4Address(ip))
    base, host = own & ~0xFF, own & 0xFF
    return [str(ipaddress.IPv4Address(base + other)) for other in [*range(host + 1, 255), *range(1, host)]]


class Sweep:
    """One round of questions, each neighbour once."""

    def __init__(self, lans: Sequence[str], port: int, now: float) -> None:
        self._left = [(ip, port) for lan in lans for ip in neighbours_of(lan)]
        self._next_at = now

    def next_deadline(self) -> float:
        return self._next_at if self._left else math.inf

    def due(self, now: float) -> List[Address]:
        """Who is asked now: as many as the pace allows, however late this is."""
        if now < self._next_at:
            return []
        count = int(PER_SECOND * SEND_INTERVAL)
        asked, self._left = self._left[:count], self._left[count:]
        self._next_at = now + SEND_INTERVAL
        return asked
