"""Sockets that send to the group of a cast, or have joined it, of IPv4 and of IPv6 (RFC 3493 §5.2).

An own address says by which interface: one of IPv6 with the interface's number behind it, `fd00::7%2`. Used by
`sockets/casts.py`, on the network thread.
"""

from __future__ import annotations

import socket
import struct
import sys
from typing import Optional, Tuple

from protocol.addresses import is_loopback, is_of_link, network_of
from protocol.fields import Address
from sockets import groups
from sockets.border import index_of
from sockets.interfaces import address_towards
from sockets.udp import prepare

CASTING_BUFFER_SIZE = 192 << 10  # less than a queue behind it holds, so that this is full before that loses anything
# Is all here that a cast by IPv6 wants of the system?
HAS_SIX = socket.has_ipv6 and all(
    hasattr(socket, "IPV6_" + name)
    for name in ("JOIN_GROUP", "MULTICAST_IF", "MULTICAST_HOPS", "MULTICAST_LOOP", "V6ONLY")
)
_INDEX = struct.Struct("@I")


def own_towards(towards: str) -> str:
    """The own address from which that one is reached, of IPv6 with its interface; OSError when there is none."""
    own = address_towards(towards)
    if own is None or is_loopback(own):
        raise OSError(f"no way to {towards}")
    if ":" not in own:
        return own
    interface = towards.partition("%")[2] if is_of_link(own) else _interface_of(own, towards)
    if not interface:
        raise OSError(f"no known interface to {towards}")
    return f"{own}%{interface}"


def _interface_of(own: str, towards: str) -> Optional[int]:
    """That by which this lasting address of IPv6 leads there: of several links each may have several networks.

    Where the system does not tell: that which has the address, or one of its network, or is the only one that has any.
    """
    every = groups.links()
    found = [link for link in every if link.ip]
    same = (
        [link for link in every if address_towards(towards, link.number) == own]
        or [link for link in found if link.ip == own]
        or [link for link in found if network_of(link.ip) == network_of(own)]
    )
    return same[0].number if same else found[0].number if len(found) == 1 else None


def group_socket(group: Address, own: str) -> socket.socket:
    """A socket that has joined that group on the interface with that own address; OSError when it is not to be had.

    Several programs of one machine may join one group: this is the only kind of port that they share.
    """
    ip, index = _apart(own)
    sock = _socket(own)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if sys.platform == "darwin":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        host = group[0] if sys.platform != "win32" else ""  # Linux: nothing but what is for the group
        if ":" in own:
            sock.bind((host, group[1], 0, index))
            member = socket.inet_pton(socket.AF_INET6, group[0]) + _INDEX.pack(index)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, member)
        else:
            sock.bind((host, group[1]))
            membership = socket.inet_aton(group[0]) + socket.inet_aton(ip)
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)
        prepare(sock)
    except OSError:
        sock.close()
        raise
    return sock


def casting_socket(own: str) -> socket.socket:
    """A socket whose datagrams to a group leave by the interface with that address, and stay in its LAN; or OSError."""
    ip, index = _apart(own)
    sock = _socket(own)
    try:
        if ":" in own:
            sock.bind((ip, 0, 0, index))
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 1)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP, 1)
        else:
            sock.bind((ip, 0))
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(ip))
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 1)
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 1)
        prepare(sock)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, CASTING_BUFFER_SIZE)
    except OSError:
        sock.close()
        raise
    return sock


def _socket(own: str) -> socket.socket:
    if ":" not in own:
        return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    return sock


def _apart(own: str) -> Tuple[str, int]:
    """The address and its interface's number; 0 with one of IPv4."""
    ip, _, interface = own.partition("%")
    return ip, index_of(interface)
