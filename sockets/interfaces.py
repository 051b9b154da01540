"""Which addresses this machine has, and by which of them another one is reached."""

from __future__ import annotations

import contextlib
import socket
import struct
import sys
from typing import List, NamedTuple, Optional, Tuple

from sockets import groups
from sockets.border import split

ANY_ROUTE, ANY_ROUTE_OF_SIX = "198.51.100.1", "2001:db8::1"  # nobody's addresses: the default routes lead there
# One of each private range and one that is nobody's: whatever route leads there starts at an address of this machine.
ROUTES_TRIED = (ANY_ROUTE, "10.255.255.255", "172.31.255.255", "192.168.255.255", "169.254.255.255")
# What interfaces are called that lead to virtual machines, containers and tunnels: hardly anybody in the room is there.
DETOURS = ("docker", "br-", "virbr", "veth", "vmnet", "vboxnet", "lxc", "tun", "tap", "wg", "zt", "tailscale", "ppp")

IPV6_UNICAST_IF, IPV6_BOUND_IF = 31, 125  # of Windows and macOS: options that Python has no names for


class Interface(NamedTuple):
    """One IPv4 address of this machine, with the interface that has it."""

    name: str  # "" where the platform does not tell
    ip: str
    broadcast: str

    @property
    def is_detour(self) -> bool:
        """Does it lead to virtual machines, containers or a tunnel, by its name?"""
        return self.name.startswith(DETOURS)


def interfaces() -> List[Tuple[str, str]]:
    """(address, broadcast address) of each IPv4 interface that is up, as far as the platform tells; asks nobody.

    Those of a LAN come before those of tunnels, virtual machines and containers.
    """
    return [(each.ip, each.broadcast) for each in _in_order()]


def with_names() -> List[Interface]:
    """The same with what each is called; the name is empty where the platform does not tell."""
    return _in_order()


def lan_address(routed: Optional[str]) -> Optional[str]:
    """The own address to be shown: the `routed` one, from which most leaves, unless that is a tunnel's beside a LAN."""
    found = [each for each in _in_order() if not each.ip.startswith("127.")]
    is_detour = any(each.ip == routed and each.is_detour for each in found)
    if routed and not is_detour:
        return routed
    others = six_addresses() or [link.own for link in groups.links()]
    return next((each.ip for each in found), routed) or next(iter(others), None)


def has_network() -> bool:
    """Does this machine have an address at which another one could reach it?"""
    return any(not each.ip.startswith("127.") for each in _in_order()) or bool(groups.links())


def six_addresses() -> List[str]:
    """The IPv6 addresses of this machine that others may be told, those of a LAN before those of tunnels."""
    links = sorted(groups.links(), key=lambda link: link.name.startswith(DETOURS))
    return list(dict.fromkeys(link.ip for link in links if link.ip))


def _in_order() -> List[Interface]:
    found = _interfaces_by_ioctl()
    if not found:
        routes = [ip for ip in map(address_towards, ROUTES_TRIED) if ip]
        found = [Interface("", ip, "255.255.255.255") for ip in dict.fromkeys(routes)]
    return sorted(found, key=lambda each: each.is_detour)


def address_towards(target: str, number: int = 0) -> Optional[str]:
    """The own address that a datagram to `target` would leave from; nothing is sent.

    With the `number` of an interface: if it left by that one, and None where nothing leads there by it, or where the
    system lets no program choose. IPv6 alone is asked so.
    """
    with contextlib.suppress(OSError, AttributeError):  # AttributeError: this Python was built without IPv6
        family = socket.AF_INET6 if ":" in target else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            if number:
                _leave_by(probe, number)
            probe.connect(split(target, 9) if ":" in target else (target, 9))
            return str(probe.getsockname()[0])
    return None


def _leave_by(probe: socket.socket, number: int) -> None:
    """Whatever is sent leaves by that interface; OSError where that cannot be said."""
    if sys.platform == "linux":  # without any right since 5.7
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, socket.if_indextoname(number).encode() + b"\0")
    else:
        probe.setsockopt(socket.IPPROTO_IPV6, IPV6_UNICAST_IF if sys.platform == "win32" else IPV6_BOUND_IF, number)


def _interfaces_by_ioctl() -> List[Interface]:
    """Linux: SIOCGIFADDR and SIOCGIFBRDADDR for each interface name."""
    if not sys.platform.startswith("linux"):
        return []
    try:
        import fcntl
    except ImportError:
        return []
    found = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for _, name in groups.interfaces():
            request = struct.pack("256s", name.encode()[:15])
            with contextlib.suppress(OSError):
                ip = socket.inet_ntoa(fcntl.ioctl(sock.fileno(), 0x8915, request)[20:24])
                broadcast = socket.inet_ntoa(fcntl.ioctl(sock.fileno(), 0x8919, request)[20:24])
                found.append(Interface(name, ip, broadcast if broadcast != "0.0.0.0" else ip))
    return found
