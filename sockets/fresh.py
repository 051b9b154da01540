"""A datagram from a port of its own, which nothing was sent from before: whoever gets it lets in strangers."""

from __future__ import annotations

import contextlib

from protocol.fields import Address, Buffer
from protocol.transport.flight import lone_batch
from sockets.udp import Datagrams, RdtError


def send_from_fresh_port(ip: str, address: Address, datagram: Buffer, now: float) -> None:
    """Send it, from `ip` and a port that the system chooses; what does not leave is lost, as any datagram may be."""
    with contextlib.suppress(RdtError):  # no port is free
        datagrams = Datagrams(ip, 0)
        try:
            datagrams.send(lone_batch(address, datagram), now)
        finally:
            datagrams.close()
