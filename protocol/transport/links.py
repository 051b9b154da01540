"""Links: connections as the roles see them, by number, with whole messages.

`LinkTable` stands between an `Endpoint` and a node. It belongs to whoever owns the endpoint (the network thread, or the
simulator) and tells the node by the `Listener` that it is given; `rdt.Links` and the simulator give roles the same
verbs over it.
"""

from __future__ import annotations

import itertools
import math
from typing import Any, Dict, Iterator, Optional, Sequence

from protocol.fields import Address, Buffer
from protocol.figures import PathFigures
from protocol.network import Listener
from protocol.transport.connection import (
    BacklogDrained,
    Connection,
    ConnectionLost,
    Established,
    FrameReceived,
    PathChanged,
)
from protocol.transport.endpoint import Endpoint, KeyWanted, LoneReceived
from protocol.transport.frames import MESSAGE

MESSAGES_WAITING_MAX = 1 << 14  # roles read at once: who has so many unread messages at a node floods it
MESSAGES_HELD_MAX = 64 << 20  # bytes that wait for all links: eight uploads of 4 MiB each, and as much of small ones


class LinkTable:
    """Numbers for connections; events for the node that owns them. A message holds its credit until `consume`."""

    def __init__(self, endpoint: Endpoint, listener: Listener, incoming: Optional[Iterator[int]] = None) -> None:
        self._endpoint = endpoint
        endpoint.bound_waiting(MESSAGES_WAITING_MAX, MESSAGES_HELD_MAX)
        self._listener = listener
        self._by_link: Dict[int, Connection] = {}
        self._links: Dict[Connection, int] = {}  # the other way
        self._incoming = incoming or itertools.count(2, 2)  # even numbers; the node's own are odd

    def connect(self, link: int, address: Address, now: float, tries: float = math.inf) -> None:
        """Open a link under that (odd) number, with so many datagrams at most until something comes back."""
        self._add(link, self._endpoint.connect(address, now, tries=tries))

    def send(self, link: int, *parts: Buffer, is_bulk: bool = False) -> None:
        """Send one message; `is_bulk`: its last part carries a digest of its own."""
        connection = self._by_link.get(link)
        if connection is not None:
            connection.send_frame(MESSAGE, *parts, is_bulk=is_bulk)

    def send_to_all(self, links: Sequence[int], *said: bytes) -> None:
        """Send each of these messages on each of these links; those of one link go out together."""
        for link in links:
            for message in said:
                self.send(link, message)

    def check_bulk(self, link: int) -> None:
        """Let checksums cover bulk, too, from now on."""
        connection = self._by_link.get(link)
        if connection is not None:
            connection.check_bulk()

    def consume(self, link: int, size: int) -> None:
        """The node is done with a message of that size."""
        connection = self._by_link.get(link)
        if connection is not None:
            connection.consume(size)

    def backlog(self, link: int) -> int:
        """Bytes of that link that the other side has not acknowledged; 0 for one that is over."""
        connection = self._by_link.get(link)
        return connection.backlog if connection is not None else 0

    def fingerprint(self, link: int) -> Optional[bytes]:
        """SHA-256 of the certificate at the other end; None: this network has no key, or the link is gone."""
        connection = self._by_link.get(link)
        return connection.remote_fingerprint if connection is not None else None

    def has_unread(self, link: int) -> bool:
        """Are there messages that the node has not consumed? From any thread."""
        connection = self._by_link.get(link)
        return connection is not None and connection.receiving.waiting > 0

    def heard_at(self, link: int) -> float:
        """When a packet of the other side last came, whatever stood in it; -inf: the link is over. From any thread."""
        connection = self._by_link.get(link)
        return connection.liveness.heard_at if connection is not None else -math.inf

    def ask_sign(self, link: int) -> None:
        """Have the other side's transport give a sign of life."""
        connection = self._by_link.get(link)
        if connection is not None:
            connection.ask_sign()

    def figures(self, link: int) -> Optional[PathFigures]:
        """How the path of that link does; from any thread."""
        connection = self._by_link.get(link)
        return connection.figures() if connection is not None else None

    def disconnect(self, link: int, reason: str) -> None:
        """Orderly end: what was sent is delivered first."""
        connection = self._by_link.get(link)
        if connection is not None:
            connection.shut_down(reason)

    def on_event(self, event: Any) -> None:
        """Translate one of the endpoint's events."""
        if isinstance(event, LoneReceived):
            self._listener.on_lone(event.address, event.message)
            return
        if isinstance(event, KeyWanted):
            self._listener.on_key_wanted(event.address, event.repeated)
            return
        connection = event.connection
        link = self._links.get(connection)
        if isinstance(event, FrameReceived):
            if link is not None and event.kind == MESSAGE:
                self._listener.on_message(link, event.body)
            else:
                connection.consume(len(event.body))
        elif isinstance(event, Established):
            if link is None:
                link = self._add(next(self._incoming), connection)
            self._listener.on_link_up(link, connection.address, not connection.is_client)
        elif link is None:
            return  # it came to nothing before it was up
        elif isinstance(event, BacklogDrained):
            self._listener.on_writable(link)
        elif isinstance(event, PathChanged):
            self._listener.on_link_moved(link, connection.address)
        elif isinstance(event, ConnectionLost):
            del self._by_link[link], self._links[connection]
            self._listener.on_link_lost(link, event.reason)

    def _add(self, link: int, connection: Connection) -> int:
        self._by_link[link] = connection
        self._links[connection] = link
        return link
