"""The border between addresses as the system has them and as the program has them, and the two kinds of sockets.

Inside, an address is (IP, port), whatever the socket: `10.0.0.7`, `fd00::1`, and `fe80::1%eth0` for what is an address
on that one link only. The system calls an IPv4 address of a socket for both families `::ffff:10.0.0.7`; nobody but
this file does. Used by `sockets/udp.py`, on the thread that owns the socket.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import sys
from typing import Any, Dict, Tuple

from protocol.addresses import EVERY_ADDRESS
from protocol.fields import Address

MAPPED = "::ffff:"
SIX = getattr(socket, "AF_INET6", None)  # a Python that was built without IPv6 may lack it
ADDRESSES_KEPT = 4096  # each way; then they are worked out anew


def socket_at(ip: str, port: int) -> socket.socket:
    """A bound UDP socket: for every address of this machine one for both families, where the system has it.

    OSError when the address or the port cannot be had.
    """
    if ip not in ("", EVERY_ADDRESS):
        return _bound(socket.AF_INET6 if ":" in ip else socket.AF_INET, ip, port)
    if socket.has_ipv6:
        if port and not sys.platform.startswith("linux"):  # elsewhere it may be had beside one who has it of IPv4 alone
            _bound(socket.AF_INET, EVERY_ADDRESS, port).close()
        try:
            return _bound(socket.AF_INET6, "::", port)
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                raise
    return _bound(socket.AF_INET, EVERY_ADDRESS, port)


def _bound(family: int, ip: str, port: int) -> socket.socket:
    """A UDP socket at that port, which it alone has; OSError when somebody else has it."""
    sock = socket.socket(family, socket.SOCK_DGRAM)
    try:
        if hasattr(socket, "SO_EXCLUSIVEADDRUSE"):  # Windows: nobody else may take the same port
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        if family == SIX:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if ip == "::" else 1)
        sock.bind(split(ip, port) if family == SIX else (ip, port))
    except OSError:
        sock.close()
        raise
    return sock


class Border:
    """Translates for one socket."""

    def __init__(self, sock: socket.socket) -> None:
        self.is_six = sock.family == SIX
        host = sock.getsockname()[0]
        self.has_both = self.is_six and host == "::"
        self._inside: Dict[Any, Address] = {}
        self._outside: Dict[Address, Any] = {}

    def own_address(self, sock: socket.socket) -> Address:
        """Where the socket is bound; one for both families at EVERY_ADDRESS, as one for IPv4 alone."""
        name = sock.getsockname()
        return (EVERY_ADDRESS, name[1]) if self.has_both else self.inside(name)

    def inside(self, found: Any) -> Address:
        """An address that the system gave."""
        if not self.is_six:
            return found  # type: ignore[no-any-return]
        address = self._inside.get(found)
        if address is None:
            if len(self._inside) >= ADDRESSES_KEPT:
                self._inside.clear()
            address = self._inside[found] = inside_of(found)
        return address

    def outside(self, address: Address) -> Any:
        """That address as this socket takes it; OSError when no address of its family is meant."""
        if not self.is_six:
            if ":" in address[0]:
                raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))
            return address
        found = self._outside.get(address)
        if found is None:
            if len(self._outside) >= ADDRESSES_KEPT:
                self._outside.clear()
            found = self._outside[address] = self._outside_of(*address)
        return found

    def forget(self, address: Address) -> None:
        """Nothing goes there: an interface that came back may have another number by now."""
        self._outside.pop(address, None)

    def _outside_of(self, ip: str, port: int) -> Tuple[Any, ...]:
        if ":" in ip:
            return split(ip, port)
        if not self.has_both:
            raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))
        return (MAPPED + ip, port, 0, 0)


def inside_of(found: Any) -> Address:
    """An address that the system gave, of either family, as the program has it."""
    host, port, *of_six = found
    if host.startswith(MAPPED) and "." in host:
        return host[len(MAPPED) :], port
    host = host.partition("%")[0]
    return (f"{host}%{name_of(of_six[1])}" if of_six and of_six[1] else host), port


def split(ip: str, port: int) -> Tuple[str, int, int, int]:
    """The scope apart, as a number: with it in the text, each send would ask the resolver."""
    host, _, scope = ip.partition("%")
    return host, port, 0, index_of(scope)


def name_of(index: int) -> str:
    """The interface of that number, as people call it there: by number on Windows."""
    if sys.platform != "win32":
        with contextlib.suppress(OSError):
            return socket.if_indextoname(index)
    return str(index)


def index_of(name: str) -> int:
    """The number of that interface; 0 for none. OSError when there is no such interface."""
    if not name or name.isdecimal():
        return int(name or 0)
    return socket.if_nametoindex(name)
