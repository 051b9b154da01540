"""Which of this machine's addresses leads where; asks the system, and sends nothing."""

from __future__ import annotations

import contextlib
import socket
import struct
import sys
from typing import Container, List, Optional, Tuple

from protocol.addresses import is_loopback
from protocol.facts import OwnAddress
from sockets import groups
from sockets.interfaces import ANY_ROUTE, ANY_ROUTE_OF_SIX, Interface, address_towards, with_names

ADDRESSES_MAX = 64  # a machine full of containers has hundreds
SIOCGIFFLAGS, IFF_UP, IFF_RUNNING = 0x8913, 0x1, 0x40  # Linux, netdevice(7): switched on, and its cable in


def addresses(network: Optional[str] = None) -> Tuple[OwnAddress, ...]:
    """This machine's addresses but loopback, IPv4 before IPv6; `network` is the address of the supernode."""
    out = address_towards(ANY_ROUTE), address_towards(ANY_ROUTE_OF_SIX)
    there = address_towards(network) if network else None
    four = [each for each in with_names() if not is_loopback(each.ip)]
    found = [*four, *_of_six({each.name for each in four})][:ADDRESSES_MAX]
    return tuple(
        OwnAddress(each.ip, each.name, _is_up(each.name), each.is_detour, each.ip in out, each.ip == there)
        for each in found
    )


def _of_six(names: Container[str]) -> List[Interface]:
    """Those of IPv6; one that is good on its link alone only where the interface has no other, nor is among `names`."""
    links = [link for link in groups.links() if link.ip or link.name not in names]
    found = [Interface(link.name, link.ip or link.own.partition("%")[0], "") for link in links]
    return sorted(found, key=lambda each: each.is_detour)


def _is_up(name: str) -> bool:
    """Can anything leave by this interface? True where the platform does not tell."""
    if not (name and sys.platform.startswith("linux")):
        return True
    import fcntl

    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        request = struct.pack("256s", name.encode()[:15])
        (flags,) = struct.unpack_from("H", fcntl.ioctl(sock.fileno(), SIOCGIFFLAGS, request), 16)
        return flags & (IFF_UP | IFF_RUNNING) == IFF_UP | IFF_RUNNING
    return True
