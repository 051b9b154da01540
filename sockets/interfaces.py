"""Which addresses this machine has, and by which of them another one is reached."""

from __future__ import annotations

import contextlib
import socket
import struct
import sys
from typing import List, Optional, Tuple

# One of each private range and one that is nobody's: whatever route leads there starts at an address of this machine.
ROUTES_TRIED = ("198.51.100.1", "10.255.255.255", "172.31.255.255", "192.168.255.255", "169.254.255.255")


def interfaces() -> List[Tuple[str, str]]:
    """(address, broadcast address) of each IPv4 interface that is up, as far as the platform tells; asks nobody."""
    found = _interfaces_by_ioctl()
    if not found:
        routes = [ip for ip in map(address_towards, ROUTES_TRIED) if ip]
        found = [(ip, "255.255.255.255") for ip in dict.fromkeys(routes)]
    return found


def address_towards(target: str) -> Optional[str]:
    """The own address that a datagram to `target` would leave from; nothing is sent."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((target, 9))
        return str(probe.getsockname()[0])
    return None


def _interfaces_by_ioctl() -> List[Tuple[str, str]]:
    """Linux: SIOCGIFADDR and SIOCGIFBRDADDR for each interface name."""
    if not sys.platform.startswith("linux"):
        return []
    import fcntl

    found = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for _, name in socket.if_nameindex():
            request = struct.pack("256s", name.encode()[:15])
            with contextlib.suppress(OSError):
                ip = socket.inet_ntoa(fcntl.ioctl(sock.fileno(), 0x8915, request)[20:24])
                broadcast = socket.inet_ntoa(fcntl.ioctl(sock.fileno(), 0x8919, request)[20:24])
                found.append((ip, broadcast if broadcast != "0.0.0.0" else ip))
    return found
