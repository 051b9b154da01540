"""The door: a second socket at the port that people know. What is said there is in `protocol/membership/door.py`."""

from __future__ import annotations

import itertools
import math
import secrets
from typing import List, Optional

from protocol import mishaps
from protocol.credentials import Credentials
from protocol.fields import Address
from protocol.network import DoorListener
from protocol.transport.endpoint import Endpoint, LoneReceived
from protocol.transport.endpoints import new_endpoint
from protocol.transport.links import LinkTable
from sockets.udp import Datagrams, RdtError
from sockets.watch import Watch

log = mishaps.logger("rdt")

DOOR_INTERVAL = 0.25  # seconds between two tries to bind the port: four system calls each
CONNECTIONS_MAX = 64  # each is sent on at once, or closed after the hello's time
READS_PER_TURN = 64  # datagrams; the transport is served in between


class Door:
    """A second socket at the port that people know: tried until it is free, then served by the network thread.

    Everything but `is_open` belongs to that thread. What comes in is told as `LinkTable` does it, but a lone message by
    `on_door_lone`, and links have negative numbers.
    """

    def __init__(
        self, ip: str, watch: Watch, listener: DoorListener, credentials: Optional[Credentials] = None
    ) -> None:
        self._ip, self._port = ip, 0
        self._credentials = credentials
        self._watch, self._listener = watch, listener
        self._try_at = math.inf
        self._numbers = itertools.count(-2, -2)  # go on when the door is opened once more
        self._opened: Optional[_Opened] = None

    def is_open(self) -> bool:
        """Is the port ours? From any thread."""
        return self._opened is not None

    @property
    def table(self) -> Optional[LinkTable]:
        """Those who came by the door, while it is open; from any thread."""
        opened = self._opened
        return opened.table if opened is not None else None

    def hold(self, port: int, now: float) -> None:
        """From now on try to have that port; 0: let go of it."""
        if port != self._port:
            self.close()
            self._port, self._try_at = port, now if port else math.inf

    def close(self) -> None:
        """Free the port, if it was got."""
        if self._opened is not None:
            self._watch.drop(self._opened.datagrams.fileno())
            self._opened.datagrams.close()
        self._opened = None

    def send_lone(self, address: Address, message: bytes) -> None:
        """Send a lone message from there; nothing while the door is not open."""
        if self._opened is not None:
            self._opened.endpoint.send_lone(address, message)

    def join_groups(self) -> None:
        """Hear the questions of IPv6 there on every link of the moment."""
        if self._opened is not None:
            self._opened.datagrams.join_groups()

    def next_deadline(self) -> float:
        """When `turn` is to be called even if nothing comes."""
        return self._try_at if self._opened is None else self._opened.endpoint.next_deadline()

    def turn(self, now: float, readable: List[int]) -> None:
        """Take in and send what there is; or try for the port, if it is time to."""
        if self._opened is None and now >= self._try_at:
            self._open(now)
        if self._opened is not None:
            self._opened.turn(now, self._opened.datagrams.fileno() in readable)

    def _open(self, now: float) -> None:
        self._try_at = now + DOOR_INTERVAL
        try:
            datagrams = Datagrams(self._ip, self._port)
        except RdtError:
            return
        log.info("the door at port %d is ours", self._port)
        self._watch.add(datagrams.fileno())
        endpoint = new_endpoint(secrets.SystemRandom(), self._credentials, connections_max=CONNECTIONS_MAX)
        self._opened = _Opened(datagrams, endpoint, self._listener, self._numbers)


class _Opened:
    """The socket that was got, with an endpoint of its own."""

    def __init__(
        self, datagrams: Datagrams, endpoint: Endpoint, listener: DoorListener, numbers: itertools.count[int]
    ) -> None:
        self.datagrams, self.endpoint = datagrams, endpoint
        self._listener = listener
        self.table = LinkTable(endpoint, listener, numbers)

    def turn(self, now: float, is_readable: bool) -> None:
        """Take in what has come, do what time asks for, and send; on the network thread."""
        if is_readable:
            for data, segment_size, address in self.datagrams.arrivals(READS_PER_TURN):
                self.endpoint.receive(data, segment_size, address, now)
        if self.endpoint.next_deadline() <= now:
            self.endpoint.on_timeout(now)
        for batch in self.endpoint.batches(now):
            self.datagrams.send(batch, now)  # what does not fit is lost, and sent again
        while self.endpoint.events:
            event = self.endpoint.events.popleft()
            if isinstance(event, LoneReceived):
                self._listener.on_door_lone(event.address, event.message)
            else:
                self.table.on_event(event)
