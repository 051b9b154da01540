"""Where the network is, as a person says it: an address, with a port as `W` prints it, or the name of a machine.

A name is looked up on a thread beside, for a bounded time: some resolvers answer after half a minute, or never.
"""

from __future__ import annotations

import ipaddress
import queue
import re
import socket
import sys
import threading
from typing import Any, Callable, List, NamedTuple, Optional, Sequence, Tuple

from prompt.readers import next_of
from protocol.addresses import is_loopback, is_of_link
from protocol.looks import safe_text

DEFAULT_PORT = 6020
LOOKUP_SECONDS = 5.0                # for a name
OTHERS_MAX = 4                      # addresses of a name beside the first that are tried
LOOK_AGAIN_SECONDS = 0.1            # whether somebody has lost patience
BRACKETED = re.compile(r"\[([^\[\]]*)\](?:(:)(.*))?$")
HOST_NAME = re.compile(r"(?=.{1,253}$)[^\W_]([\w-]{0,62})(\.[^\W_][\w-]{0,62})*\.?$")
IP_HELP = ("Enter searches this machine and the LAN for a network, and opens one if there is none.",
           "10.0.0.7, fd00::7 or lab7: the network is at that machine; 10.0.0.7:6020, [fd00::7]:6020: at that port, "
           "too.",
           "An address of this machine: join the network there, or open it. q ends.")
NAME_HELP = ("What the others call you, 1 to 32 characters; Enter takes the one in brackets. q ends.",)
PORT_HELP = ("The UDP port of the network, from 1024 to 65535; Enter takes the usual one. q ends.",)


class Place(NamedTuple):
    """Where to look: None for the IP searches, None for the port is asked for."""

    ip: Optional[str]
    port: Optional[int]
    others: Tuple[str, ...] = ()    # more addresses of the machine of that name


def check_ip(text: str) -> Optional[str]:
    """An IPv4 or IPv6 address, or None for a search; ValueError with a sentence."""
    text = text.strip()
    if not text:
        return None
    try:
        address = ipaddress.ip_address("127.0.0.1" if text.lower() == "localhost" else text)
    except ValueError:
        raise ValueError(f'"{safe_text(text, 60)}" is not an IP address like 10.0.0.7.') from None
    if address.version == 6:
        address = address.ipv4_mapped or address
    if address.is_multicast or address.is_unspecified or str(address) == "255.255.255.255":
        raise ValueError(f"{safe_text(str(address), 60)} is not the address of one machine.")
    host, _, interface = str(address).partition("%")
    return f"{host}%{_interface(host, interface)}" if is_of_link(host) else host


def _interface(host: str, said: str) -> str:
    """On which link an address is that is good on one only, as the sockets call it, or its answers were another's.

    By name; by number on Windows, whose names are long.
    """
    if not said:
        raise ValueError(f"{host} is an address on one link only; say on which: {host}%eth0.")
    try:
        number = int(said) if said.isdecimal() else socket.if_nametoindex(said)
        name = socket.if_indextoname(number)
    except (OSError, OverflowError):
        raise ValueError(f'This machine has no interface "{safe_text(said, 60)}".') from None
    return str(number) if sys.platform == "win32" else name


def check_port(text: str) -> int:
    """A port from 1024 to 65535; ValueError with a sentence."""
    text = text.strip() or str(DEFAULT_PORT)
    if not (text.isascii() and text.isdigit() and len(text) < 6 and 1024 <= int(text) <= 65535):
        raise ValueError("A port is a number from 1024 to 65535.")
    return int(text)


def check_targets(text: str, own_ip: str) -> List[Tuple[str, int]]:
    """The addresses of the machine that `C` names: `port`, or what `check_place` takes, perhaps with a port behind it.

    ValueError with a sentence.
    """
    words = text.split()
    if not 1 <= len(words) <= 2:
        raise ValueError("C needs a port, or an ip and a port: C 10.0.0.7:6020")
    if len(words) == 1 and words[0].isascii() and words[0].isdigit():
        return [(own_ip, check_port(words[0]))]
    place = check_place(words[0])
    if place.port is not None and len(words) == 2:
        raise ValueError("C needs one port: C 10.0.0.7:6020")
    port = check_port(words[1]) if len(words) == 2 else place.port or DEFAULT_PORT
    return [(ip, port) for ip in (place.ip or own_ip, *place.others)]


def check_place(text: str, is_unwanted: Callable[[], Any] = bool) -> Place:
    """An address or a machine's name, perhaps with a port, or nothing for a search; ValueError with a sentence.

    A name is looked up, for as long as that is not unwanted.
    """
    host, colon, port = parted(text)
    number = check_port(port) if colon else None
    if not is_name(host):
        return Place(check_ip(host), number)
    found = look_up(host, is_unwanted)
    if not found:
        raise ValueError(f'"{safe_text(host, 60)}" is not an IP address like 10.0.0.7. '
                         "Nor is a machine of that name known here.")
    # Some systems know their own name by 127.0.1.1, where nobody else of this machine is looked for.
    first = check_ip("127.0.0.1" if is_loopback(found[0]) else found[0])
    return Place(first, number, tuple(ip for ip in found[1:OTHERS_MAX + 1] if not is_loopback(ip)))


def parted(text: str) -> Tuple[str, str, str]:
    """Host, colon and port; an IPv6 address with a port stands in brackets, and what has a slash has no port."""
    text = text.strip()
    bracketed = BRACKETED.match(text)
    if bracketed:
        return bracketed[1], bracketed[2] or "", bracketed[3] or ""
    host, colon, port = text.rpartition(":")
    return (host, colon, port) if colon and ":" not in host and "/" not in port else (text, "", "")


def is_name(text: str) -> bool:
    """Could it be a machine's name? What ends in a number is meant to be an address."""
    is_address = text.rstrip(".").rpartition(".")[2].isdigit() or text.lower() == "localhost"
    return bool(HOST_NAME.match(text)) and not is_address


def look_up(host: str, is_unwanted: Callable[[], Any] = bool, seconds: float = LOOKUP_SECONDS) -> Sequence[str]:
    """The addresses of a machine, those of IPv4 first, of the families that this machine has one of itself.

    None when it is unknown; ValueError when that is not known in time.
    """
    answer: queue.SimpleQueue[Sequence[str]] = queue.SimpleQueue()

    def ask() -> None:
        """On a thread of its own: the system may take as long as it likes."""
        found: Sequence[str] = ()
        try:
            flags = getattr(socket, "AI_ADDRCONFIG", 0)
            infos = socket.getaddrinfo(host, None, socket.AF_UNSPEC, socket.SOCK_DGRAM, 0, flags)
            ips = dict.fromkeys(filter(None, (_ip_of(info[4]) for info in infos)))
            found = sorted(ips, key=lambda ip: (is_of_link(ip), ":" in ip))
        except (OSError, UnicodeError):
            pass
        answer.put(found)
    threading.Thread(target=ask, name="lookup", daemon=True).start()
    for _ in range(max(1, round(seconds / LOOK_AGAIN_SECONDS))):
        try:
            return next_of(answer, LOOK_AGAIN_SECONDS)
        except queue.Empty:
            if is_unwanted():
                break
    raise ValueError(f'The address of "{safe_text(host, 60)}" did not come in time; an IP address needs no look-up.')


def _ip_of(found: Tuple[Any, ...]) -> str:
    """What the resolver gave, an address of one link with its interface; none where it gave no address of a machine."""
    ip = str(found[0]).partition("%")[0]
    try:
        return check_ip(f"{ip}%{found[3]}" if is_of_link(ip) and len(found) > 3 else ip) or ""
    except ValueError:
        return ""
