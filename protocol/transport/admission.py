"""Who is let in: proof of address, and places for connections in fair shares.

Nothing is remembered of an address before it has shown by a cookie that it can receive there (RFC 9000 §8.1). A cookie
is a code over the address and the INIT, and so no state: it is made anew when it comes back. How many there are in a
second bounds the work that a flood of INITs makes, and each host has its own share of them.

When all places are taken, a connection that nobody uses gives way; else one of who has most of them. Pure.
"""

from __future__ import annotations

import collections
import hmac
from typing import Collection, Counter, Hashable, List, Optional

from protocol.addresses import NETWORK_SHARE, is_loopback, network_of
from protocol.fairness import FairHosts
from protocol.fields import Address
from protocol.rates import RateLimit
from protocol.transport.connection import Connection, State
from protocol.transport.packets import CloseCode, InitPacket

CONNECTIONS_PER_HOST_MAX = 64  # loopback is exempt
UNUSED_TIME = 60.0  # seconds without a message, after which a connection makes room for another if there is none
EVICTIONS_PER_SECOND = 20  # looks through all connections for one that may go
COOKIE_SLOT = 10.0  # seconds; a cookie lives for its slot and the next
COOKIES_PER_SECOND = 2000  # each is an HMAC and 52 bytes out: what a flood of INITs from anywhere costs at most
COOKIES_PER_HOST_PER_SECOND = 50  # loopback is exempt

_SHARE = "another needs its place, and you have most"  # the reason for who gives way


def person_of(address: Address) -> Hashable:
    """Whose share a connection is part of: its machine's; on this machine each program's."""
    return address if is_loopback(address[0]) else address[0]


class Admission:
    """The door of one endpoint."""

    def __init__(self, secret: bytes, connections_max: int) -> None:
        self.per_host: Counter[str] = collections.Counter()  # connections, of hosts that have some
        self._secret = secret
        self._connections_max = connections_max
        self._cookies = RateLimit(COOKIES_PER_SECOND)
        self._cookies_per_host = RateLimit(COOKIES_PER_HOST_PER_SECOND)
        self._cookies_per_network = RateLimit(COOKIES_PER_HOST_PER_SECOND * NETWORK_SHARE)
        self._evictions = RateLimit(EVICTIONS_PER_SECOND)

    def on_made(self, host: str) -> None:
        """A connection from or to there has its place."""
        self.per_host[host] += 1

    def on_gone(self, host: str) -> None:
        """A connection from or to there is over: another may have its place."""
        self.per_host[host] -= 1
        if not self.per_host[host]:
            del self.per_host[host]

    # ---- cookies

    def new_cookie(self, packet: InitPacket, address: Address, now: float) -> Optional[bytes]:
        """What proves, when it comes back, that this address receives; None: there are too many handshakes."""
        host = address[0]
        may_ask = is_loopback(host) or self._may_ask(host, now)
        return self._cookie(packet, address, self._slot(now)) if may_ask and self._cookies.allows("", now) else None

    def _may_ask(self, host: str, now: float) -> bool:
        """The host's own share first, then its network's: else a single host could use up what there is for all."""
        network = network_of(host)
        is_few = self._cookies_per_host.allows(host, now)
        return is_few and (network == host or self._cookies_per_network.allows(network, now))

    def is_cookie_good(self, packet: InitPacket, address: Address, now: float) -> bool:
        """Was the INIT's cookie made for it, in this slot of time or the one before? (RFC 9000 §8.1.4)"""
        slot = self._slot(now)
        said = int.from_bytes(packet.cookie[:4], "big")
        return said in (slot, slot - 1) and hmac.compare_digest(packet.cookie, self._cookie(packet, address, said))

    @staticmethod
    def _slot(now: float) -> int:
        return int(now / COOKIE_SLOT) & 0xFFFFFFFF

    def _cookie(self, packet: InitPacket, address: Address, slot: int) -> bytes:
        said = b"%d|%s|%d|%b|%b" % (slot, address[0].encode(), address[1], packet.client_id, packet.nonce)
        return slot.to_bytes(4, "big") + hmac.digest(self._secret, b"cookie" + said, "sha256")[:16]

    # ---- places

    def refusal(self, address: Address, connections: Collection[Connection], now: float) -> str:
        """Why there is no place for a connection from there beside these, in words; empty: it has one.

        Another may have been ended for it.
        """
        host = address[0]
        if len(connections) >= self._connections_max and not self._evict(address, "", connections, now):
            return "it has too many connections"
        is_host_full = not is_loopback(host) and self.per_host[host] >= CONNECTIONS_PER_HOST_MAX
        if is_host_full and not self._evict(address, host, connections, now):
            return "too many connections from one machine"
        return ""

    def _evict(self, newcomer: Address, host: str, connections: Collection[Connection], now: float) -> bool:
        """End a connection that others opened (of that host, if one is named), so that the newcomer has its place.

        The one that was left unused the longest; else one of who has most of them, if that are more than the newcomer
        has then: of all machines, or of the programs on the one.
        """
        if not self._evictions.allows("", now):
            return False
        open_ones = [
            each
            for each in connections
            if each.state in (State.HANDSHAKE, State.ESTABLISHED)
            and not each.is_client
            and host in ("", each.address[0])
        ]
        unused = [each for each in open_ones if each.state is State.ESTABLISHED and each.used_at <= now - UNUSED_TIME]
        going = unused or _of_the_greediest(newcomer, open_ones, bool(host))
        if going:
            longest = min(going, key=lambda each: each.used_at)
            longest.fail(CloseCode.GOING_AWAY, "unused, and its place is needed" if unused else _SHARE, now)
        return bool(going)


def _of_the_greediest(newcomer: Address, open_ones: List[Connection], is_one_host: bool) -> List[Connection]:
    """The connections of who has most of them; none: that would be the newcomer itself."""
    shares = FairHosts(0)
    for each in open_ones:
        shares.take(each.address if is_one_host else person_of(each.address))
    person = newcomer if is_one_host else person_of(newcomer)
    who = shares.gives_way(person)
    if who == person:
        return []
    return [each for each in open_ones if who == (each.address if is_one_host else person_of(each.address))]
