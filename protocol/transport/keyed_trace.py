"""The trace of an endpoint in a network that has a key: what `trace.py` tells, of the datagrams inside the seals.

`size` is that of the sealed datagram. What is not sealed as it must be is told as malformed.
"""

from __future__ import annotations

from protocol.fields import Buffer, WireError
from protocol.transport import packets as wire
from protocol.transport.keyed import KeyedConnection, KeyedEndpoint
from protocol.transport.sealing import FRONT
from protocol.transport.trace import TracedConnection, TracedEndpoint


class TracedKeyedConnection(TracedConnection, KeyedConnection):
    """Tells losses, the window and the end."""


class TracedKeyedEndpoint(TracedEndpoint, KeyedEndpoint):
    """Tells every packet."""

    connection_class = TracedKeyedConnection

    def _opened(self, datagram: Buffer) -> memoryview:
        return memoryview(datagram)[FRONT:]

    def _check(self, datagram: memoryview) -> None:
        if not self.is_sealed(datagram):
            raise WireError("not sealed")
        wire.decode_sealed_prefix(datagram[FRONT:])
