"""What callers hand to a verb, as it is used inside; what cannot be right is said at once, with how it should look."""

from __future__ import annotations

import errno
import math
import socket
import threading
import time
from itertools import zip_longest
from typing import Any, List, Optional, Tuple

from protocol.addresses import EVERY_ADDRESS, shown
from protocol.fields import Address, Buffer
from sockets.border import inside_of
from sockets.udp import RdtError

NOT_LOOKED_UP = {socket.EAI_AGAIN, socket.EAI_MEMORY, errno.EMFILE, errno.ENFILE}  # a name may be right all the same


class WrongUse(RdtError, TypeError, ValueError):
    """A call that cannot be right; the text says how it should look. Nothing was done."""


# ---- times


class Deadline(float):
    """The instant at which the time of a verb that is called now is up, and its timeout, for the one who is told."""

    timeout: float

    def __new__(cls, timeout: float) -> Deadline:
        deadline = super().__new__(cls, time.monotonic() + timeout)
        deadline.timeout = timeout
        return deadline


def seconds_of(timeout: Optional[float]) -> Optional[float]:
    """A timeout, or None where it is longer than the system can wait."""
    if timeout is None:
        return None
    if not isinstance(timeout, (int, float)) or not timeout >= 0:
        raise WrongUse(f"{timeout!r} is no timeout: it is a number of seconds, or None for no limit")
    return timeout if timeout < threading.TIMEOUT_MAX else None


def deadline_of(timeout: Optional[float]) -> float:
    """When the time of a verb that is called now is up."""
    seconds = seconds_of(timeout)
    return math.inf if seconds is None else Deadline(seconds)


def left_of(deadline: float) -> Optional[float]:
    """Seconds until then, as a timeout."""
    return None if deadline == math.inf else max(0.0, deadline - time.monotonic())


# ---- addresses and messages


def port_of(port: Any, what: str, least: int = 0) -> int:
    """A port as a number, whether it came as one or as text."""
    number = int(port) if isinstance(port, str) and port.isdigit() else port
    if not isinstance(number, int) or not least <= number <= 65_535:
        raise WrongUse(f"{what}: ports go from {least} to 65535")
    return number


def resolved(address: Tuple[str, int]) -> List[Address]:
    """The address in numbers, of a name in the order in which they are to be called.

    RdtError when the name is unknown, WrongUse when it is no address.
    """
    is_pair = isinstance(address, (tuple, list)) and len(address) == 2 and isinstance(address[0], str)
    if not is_pair or not address[0]:
        raise WrongUse(f'cannot connect to {address!r}: an address is a pair, as in connect(("127.0.0.1", 6020))')
    host, port = address[0], port_of(address[1], f"cannot connect to {shown(address)}", least=1)
    if host in (EVERY_ADDRESS, "::"):
        raise WrongUse(f"cannot connect to {shown((host, port))}: that is every address of a machine; take one of them")
    try:
        return [(ip, port) for ip in ips_of(host)]
    except (OSError, UnicodeError) as error:
        cause = "no such machine is known"
        if isinstance(error, OSError) and error.errno in NOT_LOOKED_UP:
            cause = f"its name could not be looked up: {error.strerror}"
        raise RdtError(f"cannot connect to {shown((host, port))}: {cause}") from None


def ips_of(host: str) -> List[str]:
    """Its addresses in numbers: IPv4 first, where more programs are reached, then by turns (RFC 8305 §4)."""
    infos = socket.getaddrinfo(host, None, socket.AF_UNSPEC, socket.SOCK_DGRAM)
    found = dict.fromkeys(inside_of(info[4])[0] for info in infos)
    if not found:
        raise OSError(errno.EADDRNOTAVAIL, "it has no address")
    of_four, of_six = [ip for ip in found if ":" not in ip], [ip for ip in found if ":" in ip]
    by_turns = zip_longest(of_four, of_six)
    return [ip for pair in by_turns for ip in pair if ip is not None]


def message_of(data: Buffer, size_max: int, what: str = "") -> bytes:
    """What is to be sent, as bytes of its own: the caller may change its buffer at once."""
    message = data if isinstance(data, bytes) else _copy_of(data)
    if len(message) > size_max:
        raise WrongUse(f"a message of {len(message)} bytes is too long{what}; {size_max} fit")
    return message


def _copy_of(data: Buffer) -> bytes:
    try:
        return memoryview(data).tobytes()  # whatever the items of a view are, and however they lie
    except TypeError:
        hint = ": text.encode() makes bytes of text" if isinstance(data, str) else ""
        raise WrongUse(f"a message is bytes, not {type(data).__name__}{hint}") from None
