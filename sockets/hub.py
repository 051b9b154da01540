"""The verbs' face of the network thread: a channel for each connection, and who waits for one."""

from __future__ import annotations

import math
import queue
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any, Dict, List, Optional, Tuple

from protocol.addresses import shown
from protocol.fields import Address
from protocol.transport.connection import Connection, ConnectionLost, Established, State
from protocol.transport.endpoint import LoneReceived
from protocol.transport.frames import MESSAGE
from protocol.transport.packets import CloseCode
from sockets.channel import Channel, Room, Untold
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
        self._connecting: Dict[Connection, Future[Channel]] = {}  # the network thread's
        network.attach(self)

    # ---- on callers' threads

    def connect(self, address: Address, timeout: Optional[float]) -> Channel:
        """A channel to that address, once the other side has answered; RdtError when it does not, or refuses."""
        self._network.check_open()
        future: Future[Channel] = Future()
        self._network.inbox.post(lambda: self._connect(address, math.inf if timeout is None else timeout, future))
        limit = None if timeout is None else timeout + CAUSE_TIME
        return result_of(future, limit, f"cannot connect to {shown(address)}")  # type: ignore[no-any-return]

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

    def _connect(self, address: Address, timeout: float, future: Future[Channel]) -> None:
        try:
            self._network.check_open()
        except RdtError as error:
            future.set_exception(error)
            return
        core = self._network.endpoint.connect(address, self._network.clock(), timeout)
        self._connecting[core] = future
        self._open_channel(core)

    def _open_channel(self, core: Connection) -> Channel:
        channel = self._channels[core] = Channel(self._network, self._room, self._untold, core)
        return channel

    def on_event(self, event: Any) -> None:
        """Hand it to its channel; whoever waits for a new one is told."""
        if isinstance(event, LoneReceived):
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
        connecting = self._connecting.pop(core)
        if connecting.set_running_or_notify_cancel():
            connecting.set_result(self._channels[core])
        else:
            core.shut_down("given up")  # who wanted it waits no more

    def _take_in(self, core: Connection) -> None:
        """Somebody opened a connection: it waits to be accepted."""
        if len(self._accepted) >= ACCEPTED_MAX:
            core.fail(CloseCode.LIMIT, "nobody accepts connections there", self._network.clock())
            return
        self._accepted.put(self._open_channel(core))

    def _on_lost(self, core: Connection, reason: str) -> None:
        connecting = self._connecting.pop(core, None)
        if connecting is not None and connecting.set_running_or_notify_cancel():
            connecting.set_exception(RdtError(f"cannot connect to {shown(core.address)}: {reason}"))

    def turn(self, now: float, readable: List[int]) -> None:
        self._room.wake()

    def held_before(self) -> int:
        return self._room.held_before()

    def on_closing(self) -> None:
        """Nobody may send any more."""
        with self._network.inbox.gate:
            for channel in self._channels.values():
                channel.leave()

    def on_over(self) -> None:
        self._accepted.finish()


def result_of(future: Future[Any], timeout: Optional[float], what: str) -> Any:
    """What the network thread answers; RdtError when it does not in time, and then it shall not any more."""
    try:
        return future.result(timeout)
    except FutureTimeout:
        if not future.cancel():  # answered in this moment
            return future.result()
        raise RdtError(f"{what}: timed out") from None
