"""Which addresses are loopback, near, allowed, and what one means to somebody who was told it."""

from __future__ import annotations

import functools
import ipaddress
from typing import Sequence

from protocol.fields import Address

EVERY_ADDRESS = "0.0.0.0"  # where a socket is bound that listens at all addresses of its machine, of IPv6 as well
NETWORK_SHARE = 10  # hosts that an IPv6 network of 64 bits counts as: one machine may have it all, or a whole room
PORT_MIN = 1024  # a roster may not send us to a system service

_PRIVATE_BLOCKS = "10.0.0.0/8 172.16.0.0/12 192.168.0.0/16 169.254.0.0/16 127.0.0.0/8 198.18.0.0/15 fc00::/7 fe80::/10"
_PRIVATE = [ipaddress.ip_network(block) for block in [*_PRIVATE_BLOCKS.split(), "::1"]]


def shown(address: Address) -> str:
    """`10.0.0.7:6020` or `[fd00::1]:6020`, as a person or a log reads it."""
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_of_link(ip: str) -> bool:
    """An IPv6 address that is good on one link only: fe80::/10, with the interface's name behind it or without."""
    return ip[:2].lower() == "fe" and ip[2:3].lower() in ("8", "9", "a", "b") and ":" in ip


def is_loopback(ip: str) -> bool:
    """Is it this machine's own? A rule on the text: it is asked in a flood, too, and nothing need be parsed there."""
    return ip.startswith("127.") or ip == "::1"


@functools.lru_cache(4096)
def network_of(ip: str) -> str:
    """What one machine can have all addresses of: that very address of IPv4, a network of 64 bits of IPv6.

    (RFC 7421 §4: nothing longer is given to a link, and a machine takes any of 2^64 addresses there.)
    """
    if ":" not in ip or is_loopback(ip):
        return ip
    host, _, interface = ip.partition("%")
    try:
        first = ipaddress.IPv6Address(host).packed[:8]
    except ValueError:
        return ip
    return f"{ipaddress.IPv6Address(first + bytes(8))}/64{interface and '%'}{interface}"


def may_contact(address: Address, near: Sequence[str]) -> bool:
    """May an address that only a message named be contacted? Private ones, and those near the IPs `near`.

    Otherwise a lying roster would turn every member's datagrams on a victim of its choice (THREATS: F11).
    """
    if not is_of_one_host(address):
        return False
    return is_private(address[0]) or any(_is_near(address[0], other) for other in near)


@functools.lru_cache(4096)  # a member asks it of those who would take over, at each beat; to parse a text is dear
def is_of_one_host(address: Address) -> bool:
    """Is this one host's address, with a port of a program? A few small datagrams may be sent to it on hearsay."""
    try:
        ip = ipaddress.ip_address(address[0])
    except ValueError:
        return False
    if not PORT_MIN <= address[1] <= 65535 or ip.is_multicast or ip.is_unspecified:
        return False
    if ip.version == 6:
        return not is_of_link(address[0]) or "%" in address[0]  # without the interface it leads nowhere
    return ip.packed[3] != 255  # most likely a broadcast address


def lan_of(ip: str) -> str:
    """The LAN of an address: its /24; of IPv6, its /64."""
    ip = ip.partition("%")[0]
    parsed = ipaddress.ip_address(ip)
    return str(ipaddress.ip_network((ip, 24 if parsed.version == 4 else 64), strict=False))


@functools.lru_cache(4096)
def is_private(ip: str) -> bool:
    """An address that leads to another host in each house; `ip` is one."""
    parsed = ipaddress.ip_address(ip)
    return any(parsed in block for block in _PRIVATE if block.version == parsed.version)


def _is_near(ip: str, other: str) -> bool:
    """In the same /16, or /48: a campus with public addresses is seldom one net, and all of it must meet again."""
    if ":" in ip and ":" in other:
        return ipaddress.IPv6Address(ip).packed[:6] == ipaddress.IPv6Address(other).packed[:6]
    return "." in other and ip.split(".")[:2] == other.split(".")[:2]


def seen_from(place: Address, teller: Address) -> Address:
    """A loopback address that another machine names means that machine; an address of a link one of its own link."""
    if is_loopback(place[0]) and not is_loopback(teller[0]):
        return teller[0], place[1]
    if is_of_link(place[0]) and "%" not in place[0] and is_of_link(teller[0]):
        return place[0] + "".join(teller[0].partition("%")[1:]), place[1]
    return place
