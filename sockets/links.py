"""The roles' face of the network thread: numbered links and events. Their verbs return at once, as roles must."""

from __future__ import annotations

import contextlib
import itertools
import math
import threading
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

from protocol.addresses import EVERY_ADDRESS, is_loopback
from protocol.casts import CastPlan
from protocol.fields import Address, Buffer
from protocol.figures import PathFigures
from protocol.network import DoorListener
from protocol.transport.links import LinkTable
from sockets.casts import Casts
from sockets.door import Door
from sockets.fresh import send_from_fresh_port
from sockets.interfaces import interfaces
from sockets.thread import Face, NetworkThread
from sockets.udp import RdtError

CONSUMED_QUIETLY = 16 << 10  # bytes of messages heard for which nobody is woken: a quarter of a new link's window
EVERYBODY = object()  # to whom something goes that many links are sent


class Posted:
    """Bytes handed to the network thread that it has not taken yet, by whom they go to.

    To be read before the backlog of what it has taken: then what is taken meanwhile counts twice, and is never missed.
    """

    # Bytes that each message costs on its way beside its own: its closure, its parts. Measured on CPython 3.9, 3.11 and
    # 3.13: 586 to 645 in one part; up to 1,044 for a span of a piece, but that is large itself.
    COST = 768

    def __init__(self) -> None:
        self._lock = threading.Lock()  # those who send and the network thread change it
        self._sizes: Dict[Any, int] = {}
        self.total = 0  # of all, with what they cost

    def add(self, key: Any, change: int) -> None:
        """A message of so many bytes is on its way, or (negative) has arrived; no message is empty."""
        with self._lock:
            self.total += change + (self.COST if change >= 0 else -self.COST)
            size = self._sizes.pop(key, 0) + change
            if size:
                self._sizes[key] = size

    def of(self, key: Any) -> int:
        """Bytes that are on their way to that link's connection."""
        return self._sizes.get(key, 0)


class Links(Face):
    """The transport as the roles' network: verbs that return at once, events told on the network thread.

    All verbs are called from the one node thread. The listener must only pass an event on; after the node has handled
    an `on_message` it calls `consumed`, which lets the other side send more.
    """

    def __init__(self, network: NetworkThread, listener: DoorListener) -> None:
        self.address = network.address
        self._network = network
        self._listener = listener
        self._table = LinkTable(network.endpoint, listener)
        self._door = Door(self.address[0], network.watch, listener, network.credentials)
        self._casts = Casts(self.address[0], network.watch, listener)
        self._numbers = itertools.count(1, 2)
        self._posted = Posted()
        self._consumed = 0  # bytes since the network thread was last woken for that
        network.attach(self)

    # ---- verbs of the node thread

    def connect(self, address: Address, tries: float = math.inf) -> int:
        """Open a link, with so many datagrams at most until something comes back; its number."""
        link = next(self._numbers)
        self._post(lambda: self._table.connect(link, address, self._network.clock(), tries))
        return link

    def send(self, link: int, *parts: Buffer, is_bulk: bool = False) -> None:
        """Send one message; `is_bulk`: its last part carries a digest of its own."""
        size = sum(map(len, parts))
        self._posted.add(link, size)
        self._post(lambda: self._take(link, parts, size, is_bulk))

    def send_to_all(self, links: Sequence[int], *said: bytes) -> None:
        """Send each of these messages on each of these links: one thing to hand over, however many they are."""
        size = sum(map(len, said))
        if links and size:
            self._posted.add(EVERYBODY, size)
            self._post(lambda: self._take_for_all(links, said, size))

    def check_bulk(self, link: int) -> None:
        """Let checksums cover bulk, too, from now on."""
        self._post(lambda: self._table.check_bulk(link))

    def consumed(self, link: int, size: int) -> None:
        """The node is done with a message of that size: the other side may send as much more."""
        self._consumed += size
        is_much = self._consumed >= CONSUMED_QUIETLY
        if is_much:
            self._consumed = 0
        self._post(lambda: self._with(link, lambda table: table.consume(link, size)), not is_much)

    def backlog(self, link: int) -> int:
        """Bytes sent on a link and not yet delivered, those on their way to the network thread included."""
        table = self._table_of(link)
        waiting = self._posted.of(link) + self._posted.of(EVERYBODY)
        return waiting + (table.backlog(link) if table is not None else 0)

    def has_unread(self, link: int) -> bool:
        """Did something come by it that the node has not heard yet?"""
        table = self._table_of(link)
        return table is not None and table.has_unread(link)

    def heard_at(self, link: int) -> float:
        """When anything last came by it; -inf: there is no such link any more."""
        table = self._table_of(link)
        return table.heard_at(link) if table is not None else -math.inf

    def ask_sign(self, link: int) -> None:
        """Have the other end's transport give a sign of life."""
        self._post(lambda: self._with(link, lambda table: table.ask_sign(link)))

    def fingerprint(self, link: int) -> Optional[bytes]:
        """SHA-256 of the certificate at its other end; None: there is no such link, or the network has no key."""
        table = self._table_of(link)
        return table.fingerprint(link) if table is not None else None

    def figures(self, link: int) -> Optional[PathFigures]:
        """How the path of that link does; None: there is no such link any more."""
        table = self._table_of(link)
        return table.figures(link) if table is not None else None

    def disconnect(self, link: int, reason: str) -> None:
        """Close a link once everything sent is delivered."""
        self._post(lambda: self._with(link, lambda table: table.disconnect(link, reason)))

    def hold_door(self, port: int) -> None:
        """Have that port, too, as soon as it is free; 0: no more."""
        self._post(lambda: self._door.hold(port, self._network.clock()))

    def has_door(self) -> bool:
        """From any thread."""
        return self._door.is_open()

    def send_by_door(self, address: Address, message: bytes) -> None:
        """Send a lone message from the port of the door, if that is open."""
        self._post(lambda: self._door.send_lone(address, message))

    def send_lone(self, address: Address, message: bytes) -> None:
        """Send a message without a connection: it may be lost."""
        self._post(lambda: self._network.endpoint.send_lone(address, message))

    def send_fresh(self, address: Address, message: bytes) -> None:
        """Send a message without a connection from a port that nothing was sent from before."""
        self._post(lambda: self._send_fresh(address, message))

    def broadcast_lone(self, port: int, message: bytes) -> None:
        """To the broadcast address of every interface, and its group; nothing when the socket is bound to loopback."""
        own = self.address[0]
        for ip, broadcast in interfaces():
            if not is_loopback(ip) and own in (EVERY_ADDRESS, ip):
                self.send_lone((broadcast, port), message)
        self._post(lambda: self._ask_groups(port, message))

    # ---- casts, on the node thread too (`Network`)

    def can_cast(self, towards: str) -> bool:
        """May a cast reach that address? None is sent where there is a key: for many takers nothing hides it."""
        return self._network.credentials is None and self._casts.can_cast(towards)

    def cast_open(self, session: bytes, towards: str, rate: float) -> None:
        """Begin to send probes to its group."""
        self._post(lambda: self._casts.open(session, towards, rate, self._network.clock()))

    def cast_send(self, session: bytes, piece: int, offset: int, data: Buffer, front: Optional[int]) -> None:
        """Slices of a piece; `front`: all slices below it were sent once then."""
        self._posted.add(session, len(data))
        is_awake = self._casts.backlog(session) > 0  # it comes round to send what waits
        self._post(lambda: self._cast(session, piece, offset, data, front), is_awake)

    def _cast(self, session: bytes, piece: int, offset: int, data: Buffer, front: Optional[int]) -> None:
        try:
            self._casts.send(session, piece, offset, data, front)
        finally:
            self._posted.add(session, -len(data))

    def cast_rate(self, session: bytes, rate: float) -> None:
        """Send so many bytes a second from now on."""
        self._post(lambda: self._casts.set_rate(session, rate))

    def cast_backlog(self, session: bytes) -> int:
        """Bytes handed over for this cast and not yet sent."""
        return self._posted.of(session) + self._casts.backlog(session)

    def cast_join(self, session: bytes, caster_ip: str) -> None:
        """Listen to its group."""
        self._post(lambda: self._casts.join(session, caster_ip))

    def cast_take(self, session: bytes, plan: CastPlan) -> None:
        """Put its pieces together from now on."""
        self._post(lambda: self._casts.take(session, plan, self._network.clock()))

    def cast_done(self, session: bytes, size: int) -> None:
        """A piece that came needs no room any more."""
        self._post(lambda: self._casts.done(session, size), True)

    def cast_end(self, session: bytes) -> None:
        """Nothing more of it, at either end."""
        self._post(lambda: self._casts.end(session))

    def _post(self, action: Callable[[], Any], is_quiet: bool = False) -> None:
        """Quiet: nobody wakes the network thread for it."""
        inbox = self._network.inbox
        with contextlib.suppress(RdtError):  # closed: the process is about to end
            (inbox.leave if is_quiet else inbox.post)(action)

    # ---- on the network thread

    def _send_fresh(self, address: Address, message: bytes) -> None:
        datagram = self._network.endpoint.lone_datagram(message)
        send_from_fresh_port(self.address[0], address, datagram, self._network.clock())

    def _ask_groups(self, port: int, message: bytes) -> None:
        self._door.join_groups()
        for group in self._network.datagrams.join_groups():
            self._network.endpoint.send_lone((group, port), message)

    def _take(self, link: int, parts: Tuple[Buffer, ...], size: int, is_bulk: bool) -> None:
        try:
            self._with(link, lambda table: table.send(link, *parts, is_bulk=is_bulk))
        finally:
            self._posted.add(link, -size)

    def _take_for_all(self, links: Sequence[int], said: Tuple[bytes, ...], size: int) -> None:
        try:
            self._table.send_to_all([link for link in links if link > 0], *said)
            if self._door.table is not None:
                self._door.table.send_to_all([link for link in links if link < 0], *said)
        finally:
            self._posted.add(EVERYBODY, -size)

    def _table_of(self, link: int) -> Optional[LinkTable]:
        """The table that has this link, under this number: the door's has the negative ones, while it is open."""
        return self._table if link > 0 else self._door.table

    def _with(self, link: int, action: Callable[[LinkTable], None]) -> None:
        table = self._table_of(link)
        if table is not None:
            action(table)

    def on_event(self, event: Any) -> None:
        """The transport tells of one of its connections, or of a lone message."""
        self._table.on_event(event)

    def on_own_address_changed(self) -> None:
        """The node may have to say where it is now."""
        self._listener.on_own_address_changed()

    def turn(self, now: float, readable: List[int]) -> None:
        """Let casts and the door do what they have to."""
        self._casts.turn(now, readable)
        self._door.turn(now, readable)

    def next_deadline(self) -> float:
        """When casts or the door want a turn; at once while a cast has read more than it could hand on."""
        if self._casts.has_read_ahead():
            return -math.inf
        return min(self._door.next_deadline(), self._casts.next_deadline())

    def held_before(self) -> int:
        """Bytes that the node handed over and no connection has yet."""
        return self._posted.total

    def on_over(self) -> None:
        """The door and all casts close their sockets."""
        self._door.close()
        self._casts.end_all()
