"""Packets of a connection that come from another address: is that a reason to look whether its other end is there?

For all connections of an endpoint, which share what may be looked at in a second; how a look goes is `Paths`' affair.
"""

from __future__ import annotations

from protocol.addresses import is_loopback
from protocol.fields import Address
from protocol.rates import RateLimit
from protocol.transport import packets as wire
from protocol.transport.admission import CONNECTIONS_PER_HOST_MAX, Admission
from protocol.transport.connection import Connection, State
from protocol.transport.packets import PacketType

LOOKS_PER_SECOND, LOOKS_PER_HOST_PER_SECOND = 200, 10  # loopback counts among all alone


class Moves:
    """Begins a look at an address where a connection may be now."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._looks, self._looks_per_host = RateLimit(LOOKS_PER_SECOND), RateLimit(LOOKS_PER_HOST_PER_SECOND)

    def on_elsewhere(self, connection: Connection, datagram: memoryview, address: Address, now: float) -> None:
        """A packet of it came from there. WireError."""
        if connection.state is not State.ESTABLISHED:
            return
        paths = connection.paths
        is_other_host = address[0] != connection.address[0]
        may_begin = paths.may_begin(address, now) and _is_news(connection, datagram)
        if may_begin and self._may_look(address[0], is_other_host, now):
            paths.begin(address, connection.recovery.rtt.probe_timeout, now)
        paths.on_bytes(address, len(datagram))

    def _may_look(self, host: str, is_other_host: bool, now: float) -> bool:
        """Are there not too many looks, at all hosts and at this one, nor connections with it already?"""
        if is_loopback(host):
            return self._looks.allows("", now)
        if is_other_host and self._admission.per_host[host] >= CONNECTIONS_PER_HOST_MAX:
            return False
        return self._looks_per_host.allows(host, now) and self._looks.allows("", now)


def _is_news(connection: Connection, datagram: memoryview) -> bool:
    """Is its number, or what it acknowledges, above all that came before, and to be believed?"""
    kind, recovery, numbers = datagram[5], connection.recovery, connection.acknowledging
    if kind == PacketType.ACK:
        return recovery.largest_acknowledged < wire.decode_ack(datagram).largest < recovery.next_packet_number
    if kind not in (PacketType.DATA, PacketType.BULK, PacketType.PING):
        return False
    number = wire.decode_data_header(datagram)[1]
    return numbers.largest < number and numbers.is_in_reach(number)
