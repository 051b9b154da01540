"""The layers of a network with a key, alone and together: what do the tags cost, and what does TLS?

    rdt.open(ip, 0, credentials=credentials("key"))         both, as it is
    rdt.open(ip, 0, credentials=credentials("tags"))        datagrams are sealed, and what is in them is not hidden
    rdt.open(ip, 0, credentials=credentials("tls"))         TLS in open datagrams

Both ends of a connection must have the same. The last two are for measuring and protect nothing.
"""

from __future__ import annotations

import functools
import math
import random
import types
from typing import Any, Callable, Dict, Optional, Tuple

from node_tests.stage.keys import member
from protocol.buffers import BufferPool
from protocol.credentials import Credentials
from protocol.transport.connection import Connection
from protocol.transport.endpoint import Endpoint
from protocol.transport.endpoints import new_endpoint
from protocol.transport.keyed import RECORDS_KEPT_MAX, KeyedConnection, KeyedEndpoint
from protocol.transport.receiving import ReceiveStream
from protocol.transport.sending import SendStream
from sockets import thread

LAYERS = ("open", "key", "tags", "tls")
SAID = {"key": "with a key", "tags": "its tags alone", "tls": "its TLS alone"}


class TagsConnection(KeyedConnection):
    """Sealed, and not encrypted."""

    def _new_streams(self) -> Tuple[SendStream, ReceiveStream]:
        super()._new_streams()
        self.veil: Any = types.SimpleNamespace(
            is_open=True, is_worn_out=False, deadline=math.inf, goodbye=None, certificate=b"", meet=lambda meeting: None
        )
        self._is_admitted = True
        return Connection._new_streams(self)

    shut_down = Connection.shut_down


class TagsEndpoint(KeyedEndpoint):
    connection_class = TagsConnection


class TlsConnection(KeyedConnection):
    """Encrypted, in datagrams that have a checksum."""

    datagram_reserved = 0
    next_batch = Connection.next_batch


class TlsEndpoint(Endpoint):
    connection_class = TlsConnection

    def __init__(self, credentials: Credentials, rng: random.Random, **named: Any) -> None:
        super().__init__(rng, **named)
        self.credentials = credentials
        self.records = BufferPool(RECORDS_KEPT_MAX)


_CLASSES: Dict[str, Callable[..., Endpoint]] = {"tags": TagsEndpoint, "tls": TlsEndpoint}


def credentials(layers: str) -> Optional[Credentials]:
    """What this process opens its transports with; from now on they have these layers."""
    thread.new_endpoint = new_endpoint
    if layers in _CLASSES:
        thread.new_endpoint = functools.partial(_endpoint, _CLASSES[layers])  # type: ignore[assignment]
    return None if layers == "open" else member(0)


def _endpoint(made: Callable[..., Endpoint], rng: random.Random, known: Any, trace: Any, **named: Any) -> Endpoint:
    return made(known, rng, **named)
