"""The verbs' face of the network thread: a channel for each connection, and who waits for one."""

from __future__ import annotations

import math
import queue
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any, Dict, List, Optional, Sequence, Tuple

from protocol.addresses import shown
from protocol.fields import Address
from protocol.transport.connection import Connection, ConnectionLost, Established, State
from protocol.transport.endpoint import KeyWanted, LoneReceived
from protocol.transport.frames import MESSAGE
from protocol.transport.packets import CloseCode
from sockets.channel import Channel, Room, Untold
from sockets.dialling import Dial
from sockets.thread import Face, NetworkThread
from sockets.udp import RdtError
from sockets.waiting import Over, Waiting

BROADCAST_HIGH = 16 << 20  # bytes at which broadcast waits: it does not stand in line behind one thread's long message
ACCEPTED_MAX = 1024  # connections that wait to be accepted; one more is refused
CAUSE_TIME = 1.0  # seconds more than a connection may take, for the network thread knows the cause


class Hub(Face):
    """All channels of a transport; whoever calls it, from any thread, may be made to wait."""

    def __init__(self, network: NetworkThread) -> None:
        self._network = network
        self._room, self._untold = Room(network), Untold()
        self._accepted = Waiting()
        self._channels: Dict[Connection, Channel] = {}  # changed by the network thread only
        self._dials: List[Dial] = []  # with addresses left; the network thread's, as
        self._connecting: Dict[Connection, Dial] = {}
        network.attach(self)

    # ---- on callers' threads

    def connect(self, addresses: Sequence[Address], timeout: Optional[float], whom: str) -> Channel:
        """A channel to the first of the addresses of a machine that answers.

        RdtError, which says `whom` that cannot be, when none does in time, or all refuse.
        """
        self._network.check_open()
        dial = Dial(addresses, math.inf if timeout is None else timeout, self._network.clock(), whom)
        self._network.inbox.post(lambda: self._begin(dial))
        limit = None if timeout is None else timeout + CAUSE_TIME
        return result_of(dial.answer, limit, f"cannot connect to {whom}")  # type: ignore[no-any-return]

    def accept(self, count: int, timeout: Optional[float], what: str) -> List[Channel]:
        """So many channels that others opened (0: all that wait); RdtError says `what` when time is over before."""
        self._network.check_open()
        try:
            return self._accepted.take_several(count, timeout)
        except queue.Empty:
            raise RdtError(f"{what} to {shown(self._network.address)} within {timeout or 0:g} s") from None
        except Over:
            raise self._network.inbox.closed() from None

    def send_to_all(self, message: bytes, deadline: float) -> Tuple[int, List[str]]:
        """Hand a message of one frame to every open channel: to how many, and why not to the others.

        All get it at once but those with BROADCAST_HIGH bytes waiting: for room there it waits.
        """
        self._network.check_open()
        slow, troubles, count = [], [], 0
        for channel in self._established():
            try:
                channel.send_frame(MESSAGE, message, deadline=0.0, backlog_max=BROADCAST_HIGH)
                count += 1
            except RdtError:
                slow.append(channel)
        for channel in slow:
            try:
                channel.send_frame(MESSAGE, message, deadline=deadline, backlog_max=BROADCAST_HIGH)
                count += 1
            except RdtError as error:
                if channel.is_open():
                    troubles.append(str(error))
        return count, troubles

    def _established(self) -> List[Channel]:
        known = self._channels.copy()  # the network thread goes on
        return [channel for core, channel in known.items() if core.state is State.ESTABLISHED]

    def close(self, timeout: Optional[float]) -> List[str]:
        """Close everything, and the network thread; what was not delivered and nobody was told, the first time."""
        self._accepted.finish()
        return self._untold.sentences() if self._network.close(timeout) else []

    # ---- on the network thread

    def _begin(self, dial: Dial) -> None:
        try:
            self._network.check_open()
        except RdtError as error:
            dial.fail(error)
            return
        self._dials.append(dial)
        self._call_those_due(self._network.clock())

    def _call_those_due(self, now: float) -> None:
        """Call the next address of each machine that has not answered, where it is time for that."""
        for dial in self._dials:
            if dial.has_more() and now >= dial.next_at:
                core = self._network.endpoint.connect(*dial.next_call(now))
                dial.called.append(core)
                self._connecting[core] = dial
                self._open_channel(core)
        self._dials = [dial for dial in self._dials if dial.has_more()]

    def _open_channel(self, core: Connection) -> Channel:
        channel = self._channels[core] = Channel(self._network, self._room, self._untold, core)
        return channel

    def on_event(self, event: Any) -> None:
        """Hand it to its channel; whoever waits for a new one is told."""
        if isinstance(event, (LoneReceived, KeyWanted)):
            return
        core = event.connection
        if isinstance(event, Established):
            self._on_established(core)
        elif core in self._channels:
            self._channels[core].on_event(event)
            if isinstance(event, ConnectionLost):
                del self._channels[core]
                self._on_lost(core, event.reason)

    def _on_established(self, core: Connection) -> None:
        if not core.is_client:
            self._take_in(core)
            return
        dial = self._connecting.pop(core, None)
        if dial is None or not dial.take(self._channels[core]):
            core.shut_down("given up")  # who wanted it has another one, or waits no more
            return
        for other in dial.called:
            if self._connecting.pop(other, None) is not None:
                other.fail(CloseCode.GOING_AWAY, "another of its addresses answered", self._network.clock())

    def _take_in(self, core: Connection) -> None:
        """Somebody opened a connection: it waits to be accepted."""
        if len(self._accepted) >= ACCEPTED_MAX:
            core.fail(CloseCode.LIMIT, "nobody accepts connections there", self._network.clock())
            return
        self._accepted.put(self._open_channel(core))

    def _on_lost(self, core: Connection, reason: str) -> None:
        dial = self._connecting.pop(core, None)
        if dial is not None:
            dial.on_failed(core, reason, self._network.clock())

    def turn(self, now: float, readable: List[int]) -> None:
        """Call further addresses of those who dial; let those who wait for room to send look again."""
        if self._dials:
            self._call_those_due(now)
        self._room.wake()

    def next_deadline(self) -> float:
        return min((dial.next_at for dial in self._dials), default=math.inf)

    def held_before(self) -> int:
        """Bytes that callers handed over and no connection has yet."""
        return self._room.held_before()

    def on_closing(self) -> None:
        """Nobody may send any more."""
        with self._network.inbox.gate:
            for channel in self._channels.values():
                channel.leave()
        self._call_no_more()

    def on_over(self) -> None:
        """Whoever waits for a connection learns that none will come."""
        self._accepted.finish()
        self._call_no_more()

    def _call_no_more(self) -> None:
        for dial in self._dials:
            dial.fail(self._network.inbox.closed())
        self._dials.clear()


def result_of(future: Future[Any], timeout: Optional[float], what: str) -> Any:
    """What the network thread answers; RdtError when it does not in time, and then it shall not any more."""
    try:
        return future.result(timeout)
    except FutureTimeout:
        if not future.cancel():  # answered in this moment
            return future.result()
        raise RdtError(f"{what}: timed out") from None
