"""The search on IPv6, which has no broadcast: a group on every link that whoever listens at a port belongs to.

`ff12::` is a group that nobody assigned, on one link (RFC 4291 §2.7). An answer comes to where the question came from:
so each question leaves from the interface's lasting address, if it has one, for one of the link means nothing beyond
it, and from that of the link as well, for who has no other cannot answer to a lasting one.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from typing import Any, Iterator, List, NamedTuple, Optional, Tuple

from protocol.addresses import is_of_link
from sockets.border import name_of

GROUP = "ff12::6c61:6273:6861:7265"  # "labshare"
LINKS_MAX = 64  # interfaces that are asked on
# Groups that are nobody's, one of a link and one of the world: the address towards them is the interface's own.
_OF_THE_LINK, _OF_THE_WORLD = "ff12::6c61:6273", "ff1e::6c61:6273"
_INDEX = struct.Struct("@I")
KEPT_FOR = 1.0  # seconds: some ask for each of a thousand members, and to look takes several system calls an interface


class Link(NamedTuple):
    """One interface that has an IPv6 address."""

    number: int
    ip: str  # its address that others may be told; "" where it has none but for this link
    own: str  # that one, with the interface's name

    @property
    def name(self) -> str:
        """The interface's name, as a person knows it."""
        return name_of(self.number)

    @property
    def group(self) -> str:
        """The group there, as asked from the link's own address."""
        return f"{GROUP}%{self.name}"

    @property
    def lasting_group(self) -> str:
        """The same, with the interface by its number, as asked from the lasting address."""
        return f"{GROUP}%{self.number}"


_kept: Tuple[float, List[Link]] = (0.0, [])  # until when, and which; replaced as a whole, by any thread


def links() -> List[Link]:
    """The interfaces with IPv6, without loopback, as they were a second ago or are now; asks nobody."""
    return _kept[1] if time.monotonic() < _kept[0] else links_anew()


def links_anew() -> List[Link]:
    """The same as they are now."""
    global _kept
    _kept = time.monotonic() + KEPT_FOR, _links_now()
    return _kept[1]


def _links_now() -> List[Link]:
    found = []
    for index, _ in interfaces()[:LINKS_MAX]:
        lasting, own = _own_address(_OF_THE_WORLD, index) or "", _own_address(_OF_THE_LINK, index)
        if lasting or own:
            found.append(Link(index, "" if is_of_link(lasting) else lasting, f"{own or lasting}%{name_of(index)}"))
    return found


def interfaces() -> List[Tuple[int, str]]:
    """Number and name of each; none where the system does not tell."""
    with contextlib.suppress(OSError, AttributeError):
        return socket.if_nameindex()
    return []


def _own_address(group: str, index: int) -> Optional[str]:
    """From which a datagram to that group would leave there; nothing is sent."""
    # AttributeError: this Python was built without IPv6.
    with contextlib.suppress(OSError, AttributeError), socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
        probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
        probe.connect((group, 9, 0, index))
        ip = str(probe.getsockname()[0]).partition("%")[0]
        return None if ip in ("::", "::1") or ip.startswith("::ffff:") else ip
    return None


def join(sock: socket.socket) -> None:
    """Belong to the group on every link of the moment; those where it does already say so, and no harm is done."""
    for index, _ in interfaces()[:LINKS_MAX]:
        with contextlib.suppress(OSError, AttributeError):
            member = socket.inet_pton(socket.AF_INET6, GROUP) + _INDEX.pack(index)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, member)


def sources() -> Iterator[Tuple[str, List[Any]]]:
    """Each link's group, and what is to be said to the system with a question that goes there; lasting ones first."""
    found = links()
    for link in found:
        if link.ip and hasattr(socket, "IPV6_PKTINFO"):
            source = socket.inet_pton(socket.AF_INET6, link.ip) + _INDEX.pack(link.number)
            yield link.lasting_group, [(socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, source)]
    for link in found:
        yield link.group, []
