"""Home routers for the simulator: several hosts behind one address, and who may come in from outside (RFC 4787 §4, §5).

    world.nat("198.51.100.2", ["192.168.1.2", "192.168.1.3"], NatKind.PORT_RESTRICTED)
    world.firewall("10.0.0.2")    # this host lets in answers only

Hosts of one home reach each other as if there were no box; from outside their own addresses lead nowhere. What a host
sends out bears the box's address and a port there. No box sends back in what comes from inside (no hairpin), and each
forgets who is silent. Inside addresses are to be different from home to home.
"""

from __future__ import annotations

import enum
import random
from typing import Dict, List, Optional, Tuple

from protocol.fields import Address

MAPPING_TIME = 30.0  # seconds without a datagram either way until a box forgets: that of Linux for what had no answer


class NatKind(enum.Enum):
    FULL_CONE = "one outside port for each inside one, and whoever knows it comes in"
    PORT_RESTRICTED = "the same, but only those come in to whose address and port something was sent"
    SYMMETRIC = "a new outside port for each address and port sent to, and only that one comes in by it"


class _Mapping:
    """An outside port, and whom something was sent to by it."""

    def __init__(self, inside: Address, port: int) -> None:
        self.inside = inside
        self.port = port
        self.spoken_at: Dict[Address, float] = {}

    def is_alive(self, now: float) -> bool:
        return any(now - at < MAPPING_TIME for at in self.spoken_at.values())

    def lets_in(self, source: Address, now: float) -> bool:
        return now - self.spoken_at.get(source, -MAPPING_TIME) < MAPPING_TIME


class NatBox:
    """One home's router. `keeps_ports`: the outside port is the inside one, if free; never of a symmetric box."""

    def __init__(
        self, outside_ip: str, inside_ips: List[str], kind: NatKind, rng: random.Random, keeps_ports: bool = True
    ) -> None:
        self.outside_ip = outside_ip
        self.inside_ips = list(inside_ips)
        self.kind = kind
        self.refused = 0  # datagrams from outside that nobody inside had asked for
        self._keeps_ports = keeps_ports and kind is not NatKind.SYMMETRIC
        self._rng = rng
        self._by_inside: Dict[Tuple[Address, Optional[Address]], _Mapping] = {}
        self._by_port: Dict[int, _Mapping] = {}

    def leave(self, source: Address, target: Address, now: float) -> Address:
        """As whom the target sees what this inside host sends."""
        key = source, target if self.kind is NatKind.SYMMETRIC else None
        mapping = self._by_inside.get(key)
        if mapping is None or not mapping.is_alive(now):
            mapping = self._by_inside[key] = self._renew(source, mapping, now)
        mapping.spoken_at[target] = now
        return self.outside_ip, mapping.port

    def enter(self, port: int, source: Address, now: float) -> Optional[Address]:
        """The inside host that gets what comes from there; None: nobody."""
        mapping = self._by_port.get(port)
        if mapping is None or not mapping.is_alive(now) or not self._lets_in(mapping, source, now):
            self.refused += 1
            return None
        mapping.spoken_at[source] = now
        return mapping.inside

    def forget(self) -> None:
        """It was switched off and on: what goes out from now on has another port, perhaps, and nothing comes in."""
        self._by_inside.clear()
        self._by_port.clear()

    def host_behind(self, port: int) -> Optional[Address]:
        """Who has that outside port, or had it last."""
        mapping = self._by_port.get(port)
        return mapping.inside if mapping is not None else None

    def _lets_in(self, mapping: _Mapping, source: Address, now: float) -> bool:
        return self.kind is NatKind.FULL_CONE or mapping.lets_in(source, now)

    def _renew(self, source: Address, old: Optional[_Mapping], now: float) -> _Mapping:
        if old is not None:
            self._by_port.pop(old.port, None)
        port = source[1]
        while not self._keeps_ports or self._is_taken(port, now):
            port = self._rng.randrange(32_768, 65_536)
            if not self._is_taken(port, now):
                break
        mapping = self._by_port[port] = _Mapping(source, port)
        return mapping

    def _is_taken(self, port: int, now: float) -> bool:
        mapping = self._by_port.get(port)
        return mapping is not None and mapping.is_alive(now)


class Firewall:
    """A host's own: what nobody on it had asked for does not come in. What it broadcasts asks nobody by name."""

    def __init__(self) -> None:
        self.refused = 0  # datagrams
        self._spoken_at: Dict[Tuple[Address, Address], float] = {}

    def leave(self, source: Address, target: Address, now: float) -> None:
        self._spoken_at[source, target] = now

    def lets_in(self, source: Address, target: Address, now: float) -> bool:
        is_answer = now - self._spoken_at.get((target, source), -MAPPING_TIME) < MAPPING_TIME
        if is_answer:
            self._spoken_at[target, source] = now
        self.refused += not is_answer
        return is_answer


class Homes:
    """Which hosts are behind which box, which have a firewall, and how what one host sends gets to another."""

    def __init__(self) -> None:
        self.are_any = False  # else all that is sent arrives where it was sent to
        self._by_inside_ip: Dict[str, NatBox] = {}
        self._by_outside_ip: Dict[str, NatBox] = {}
        self._firewalls: Dict[str, Firewall] = {}

    def add_firewall(self, ip: str) -> Firewall:
        self.are_any = True
        return self._firewalls.setdefault(ip, Firewall())

    def open_firewall(self, ip: str) -> None:
        """Its person has opened it."""
        self._firewalls.pop(ip, None)

    def has_firewall(self, ip: str) -> bool:
        return ip in self._firewalls

    def add(self, box: NatBox) -> None:
        self.are_any = True
        self._by_outside_ip[box.outside_ip] = box
        for ip in box.inside_ips:
            self._by_inside_ip[ip] = box

    def boxes(self) -> List[NatBox]:
        """All routers."""
        return list(self._by_outside_ip.values())

    def has_box_at(self, ip: str) -> bool:
        return ip in self._by_outside_ip

    def host_at(self, address: Address) -> Optional[Address]:
        """The host that is seen there."""
        box = self._by_outside_ip.get(address[0])
        return address if box is None else box.host_behind(address[1])

    def are_neighbours(self, ip_a: str, ip_b: str) -> bool:
        """Are both in one home, or both in none? Only there a broadcast gets through."""
        return self._by_inside_ip.get(ip_a) is self._by_inside_ip.get(ip_b)

    def leave(
        self, source: Address, target: Address, now: float, is_broadcast: bool = False
    ) -> Optional[Address]:
        """As whom the target sees what is sent there; None: it leads nowhere."""
        if source[0] in self._firewalls and not is_broadcast:
            self._firewalls[source[0]].leave(source, target, now)
        if target[0] in self._by_inside_ip:
            return source if self.are_neighbours(source[0], target[0]) else None
        box = self._by_inside_ip.get(source[0])
        if box is None:
            return source
        return None if target[0] == box.outside_ip else box.leave(source, target, now)

    def enter(self, source: Address, target: Address, now: float) -> Optional[Address]:
        """The host that gets what comes from there (as `leave` has named it); None: nobody."""
        box = self._by_outside_ip.get(target[0])
        place = target if box is None else box.enter(target[1], source, now)
        firewall = self._firewalls.get(place[0]) if place is not None and place[0] != source[0] else None
        return None if firewall is not None and not firewall.lets_in(source, place, now) else place
