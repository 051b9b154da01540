"""The sockets of casts: one for each that this node sends, and one for each whose group it has joined.

They belong to the network thread, as the door does. What comes in and goes out is in `protocol/transport/casting.py`;
what happens is told to the listener.
"""

from __future__ import annotations

import math
from typing import Any, Callable, Dict, List, Optional, Tuple

from protocol import mishaps
from protocol.addresses import is_loopback
from protocol.casts import CastOver, CastPlan, group_of
from protocol.fields import Buffer
from protocol.network import DoorListener
from protocol.transport.casting import CastReceiver, CastSender
from protocol.transport.flight import Batch
from sockets.multicast import HAS_SIX, casting_socket, group_socket, own_towards
from sockets.udp import Datagrams
from sockets.watch import Watch

log = mishaps.logger("rdt")

READS_PER_TURN = 64  # runs of datagrams of one cast; the transport is served in between
SENT_PER_TURN_MAX = 512 << 10  # bytes
FULL_PAUSE = 0.002  # seconds until the next try where the socket is full
REST_MAX = 0.2  # seconds in which what comes is left to the socket: to wake for each batch costs more than all else
REST_INTERVAL = 2  # no longer than such a part of the time between two reports: they tell what came by then
REST_PART = 4  # the rest is over, by what came in the last one, when so large a part of the socket's buffer is full


class _Sending:
    """A cast of this node's."""

    def __init__(self, own: str, sender: CastSender) -> None:
        self.datagrams = Datagrams("", 0, casting_socket(own))
        self.sender = sender
        self._unsent: Optional[Tuple[Batch, int]] = None
        self._try_at = -math.inf

    def next_deadline(self) -> float:
        return self._try_at if self._unsent is not None else self.sender.next_deadline()

    def turn(self, now: float) -> None:
        """Send what may leave; what does not fit into the socket waits a little."""
        size = 0
        while size < SENT_PER_TURN_MAX and now >= self.next_deadline():
            batch, start = self._unsent or (self.sender.next_batch(now), 0)
            if batch is None:
                return
            sent = self.datagrams.send(batch, now, start)
            size += batch.count * batch.segment_size
            self._unsent = (batch, sent) if sent < batch.count else None
            self._try_at = now + FULL_PAUSE


class _Receiving:
    """A cast that this node takes."""

    def __init__(self, session: bytes, caster_ip: str, own: str) -> None:
        self.datagrams = Datagrams("", 0, group_socket(group_of(session, ":" in caster_ip), own))
        self.receiver = CastReceiver(session)
        self.is_watched = False
        self._caster_ip = _without_interface(caster_ip)
        self._rests_until = math.inf  # inf: it does not rest, and is to be watched
        self._looked_at = -math.inf

    def is_resting(self, now: float) -> bool:
        """Is what comes to be read together with what will come in the next milliseconds?"""
        return now < self._rests_until < math.inf

    def next_deadline(self) -> float:
        """When a rest is over, a report is due, or the silence has lasted."""
        return min(self._rests_until, self.receiver.next_deadline())

    def turn(self, now: float, is_readable: bool) -> None:
        """Take in what there is: of others than the caster nothing. No silence is told before a last look."""
        is_wanted = is_readable and not self.is_resting(now)
        if is_wanted or self.datagrams.has_read_ahead() or now >= self.next_deadline():
            self._rest(self._read(now), now)
        self.receiver.on_timer(now)

    def _read(self, now: float) -> int:
        size = 0
        for data, segment_size, address in self.datagrams.arrivals(READS_PER_TURN):
            size += len(data)
            if _without_interface(address[0]) == self._caster_ip:
                self.receiver.on_run(data, segment_size, now)
        return size

    def _rest(self, size: int, now: float) -> None:
        """So much was read: look again when there will be more, and long before the socket's buffer is full."""
        since, self._looked_at = now - self._looked_at, now
        self._rests_until = math.inf
        if size and self.receiver.is_taking:
            most = self.datagrams.receive_buffer_size() / REST_PART
            longest = min(REST_MAX, self.receiver.interval / REST_INTERVAL)
            self._rests_until = now + min(longest, since * most / size)


class Casts:
    """All casts of this node, by session. `can_cast` and `backlog` may be asked from any thread."""

    def __init__(
        self, own_ip: str, watch: Watch, listener: DoorListener, own_towards: Callable[[str], str] = own_towards
    ) -> None:
        self._own_ip = own_ip
        self._own_towards = own_towards  # the own address by which another one is reached
        self._watch, self._listener = watch, listener
        self._sending: Dict[bytes, _Sending] = {}
        self._receiving: Dict[bytes, _Receiving] = {}

    def can_cast(self, towards: str) -> bool:
        """Is that address one of a LAN, for all that is known here? On loopback there is no multicast."""
        is_loop = is_loopback(self._own_ip) or is_loopback(towards)
        return not is_loop and (HAS_SIX or ":" not in towards)

    def backlog(self, session: bytes) -> int:
        """Bytes of it that are not sent yet."""
        sending = self._sending.get(session)
        return sending.sender.backlog if sending is not None else 0

    # ---- the caster's verbs

    def open(self, session: bytes, towards: str, rate: float, now: float) -> None:
        """Begin to send probes, by the interface that leads to that address."""
        try:
            sender = CastSender(session, rate, now, ":" in towards)
            self._sending[session] = _Sending(self._own_towards(towards), sender)
        except OSError as error:
            self._fail(session, error)

    def send(self, session: bytes, piece: int, offset: int, data: Buffer, front: Optional[int]) -> None:
        """Slices of a piece, behind all that waits; `front`: see `CastSender.add`."""
        if session in self._sending:
            self._sending[session].sender.add(piece, offset, data, front)

    def set_rate(self, session: bytes, rate: float) -> None:
        """Send a cast at so many bytes a second from now on."""
        if session in self._sending:
            self._sending[session].sender.set_rate(rate)

    # ---- a taker's verbs

    def join(self, session: bytes, caster_ip: str) -> None:
        """Listen to the group, on the interface that leads to the caster."""
        try:
            receiving = _Receiving(session, caster_ip, self._own_towards(caster_ip))
        except OSError as error:
            self._fail(session, error)
            return
        self._receiving[session] = receiving
        self._watch_only(receiving, True)

    def take(self, session: bytes, plan: CastPlan, now: float) -> None:
        """What is cast is known now: put its pieces together."""
        if session in self._receiving:
            self._receiving[session].receiver.take(plan, now)

    def done(self, session: bytes, size: int) -> None:
        """The node is done with so many bytes of pieces: there is room for others."""
        if session in self._receiving:
            self._receiving[session].receiver.done(size)

    # ---- both

    def end(self, session: bytes) -> None:
        """Send no more of it, leave its group: its sockets are closed."""
        sending = self._sending.pop(session, None)
        if sending is not None:
            sending.datagrams.close()
        receiving = self._receiving.pop(session, None)
        if receiving is not None:
            self._watch_only(receiving, False)
            receiving.datagrams.close()

    def end_all(self) -> None:
        """The network thread ends."""
        for session in [*self._sending, *self._receiving]:
            self.end(session)

    def _fail(self, session: bytes, error: OSError) -> None:
        log.info("no cast: %s", error)
        self._listener.on_cast(CastOver(session, f"no multicast here: {error.strerror or error}"))

    # ---- turns

    def next_deadline(self) -> float:
        """When `turn` is to be called even if nothing comes."""
        if not (self._sending or self._receiving):  # as a rule, and it is asked at each turn
            return math.inf
        sending = [one.next_deadline() for one in self._sending.values()]
        return min(sending + [one.next_deadline() for one in self._receiving.values()])

    def has_read_ahead(self) -> bool:
        """Is there something that the watch does not know of?"""
        return any(one.datagrams.has_read_ahead() for one in self._receiving.values())

    def turn(self, now: float, readable: List[int]) -> None:
        """Take in and send what there is, and tell what happened."""
        for sending in self._sending.values():
            sending.turn(now)
            self._tell(sending.sender.events)
        for receiving in self._receiving.values():
            receiving.turn(now, receiving.datagrams.fileno() in readable)
            self._watch_only(receiving, not receiving.is_resting(now))
            self._tell(receiving.receiver.events)

    def _watch_only(self, receiving: _Receiving, is_awake: bool) -> None:
        if is_awake != receiving.is_watched:
            receiving.is_watched = is_awake
            (self._watch.add if is_awake else self._watch.drop)(receiving.datagrams.fileno())

    def _tell(self, events: List[Any]) -> None:
        for event in events:
            self._listener.on_cast(event)
        events.clear()


def _without_interface(ip: str) -> str:
    """The socket is of one interface alone, which others may call otherwise."""
    return ip.partition("%")[0]
