"""The network thread: the only one that touches the socket and the endpoint, and the inbox by which others reach it.

    callers' threads --Inbox--> NetworkThread (Datagrams <-> Endpoint) --events--> Face --> callers' threads

A *face* is what others see of it: `Hub` for the verbs of `rdt`, which block, or `Links` for the roles, whose verbs do
not. It is attached to the thread, which asks it and tells it by `Face`; a face posts closures to the inbox.
"""

from __future__ import annotations

import contextlib
import math
import queue
import random
import secrets
import socket
import threading
import time
from typing import Any, Callable, Dict, List, Optional, Protocol, Tuple

from protocol import mishaps
from protocol.addresses import shown
from protocol.credentials import Credentials
from protocol.transport import controllers
from protocol.transport.endpoint import Endpoint
from protocol.transport.endpoints import new_endpoint
from protocol.transport.flight import Batch
from protocol.transport.packets import DATAGRAM_SIZE_MAX
from sockets.own_addresses import OwnAddresses
from sockets.udp import Datagrams, RdtError
from sockets.watch import Watch

log = mishaps.logger("rdt")

ACTIONS_PER_TURN = 1000  # of the inbox, before the endpoint is served again
READS_PER_TURN = 64  # runs of datagrams, and
READ_PER_TURN_MAX = 512 << 10  # bytes taken before acknowledging and sending
TURN_SIZE_MAX = 1 << 20  # bytes sent before looking for acknowledgements again
FULL_PAUSE = 0.01  # seconds until the next try where no event tells that there is room
SLEEP_MAX = 60.0  # seconds
# Where so many connections are open, what comes in a moment is taken together: mostly signs of life, one by one, and to
# wake for each costs more than all else that is done for it. Not while more is moved than such signs.
GATHERING_CONNECTIONS = 200
GATHERING_TIME = 0.004  # seconds
GATHERING_SIZE_MAX = 4 << 10  # bytes that came and went since the last sleep
CONFIRM_TIME = 0.5  # seconds, when a timeout is over, in which the other side may still say what it took
STOP_TIME = 5.0  # seconds for the last turn
CLOSED_BY_THIS = "closed by this side"


class Face:
    """What the network thread asks and tells the face that is attached to it, always on that thread.

    A base to derive from, which does nothing: a face needs but half of it, and each another half.
    """

    def on_event(self, event: Any) -> None:
        """The endpoint has this to tell."""

    def on_own_address_changed(self) -> None:
        """This machine has other addresses than a moment ago."""

    def turn(self, now: float, readable: List[int]) -> None:
        """Behind the events of each turn; these descriptors of the watch had something to read."""

    def next_deadline(self) -> float:
        """When `turn` wants to be called even if nothing happens."""
        return math.inf

    def held_before(self) -> int:
        """Bytes handed over by callers that the endpoint does not have yet."""
        return 0

    def on_closing(self) -> None:
        """All connections are about to be closed."""

    def on_over(self) -> None:
        """The thread is at its end: nothing will come any more."""


class Trace(Protocol):
    """Where a trace is written to; the thread closes it."""

    def write(self, text: str) -> None:
        """Append whole lines."""

    def close(self) -> None:
        """Nothing comes any more."""


class Inbox:
    """What other threads want done on the network thread, in order.

    `gate` is a callers' lock: who checks that something is open and posts to it holds it, and so does who ends it. So
    what was taken from a caller is in the inbox before the end, and is delivered or counted as undelivered.
    """

    def __init__(self, said: str) -> None:
        self.gate = threading.Lock()
        self._said = said
        self._actions: queue.SimpleQueue[Callable[[], Any]] = queue.SimpleQueue()
        self._waker, self._wakened = socket.socketpair()
        self._waker.setblocking(False)
        self._wakened.setblocking(False)
        self._is_sleeping = False
        self.is_over = False  # nothing is posted any more

    def post(self, action: Callable[[], Any]) -> None:
        """From any thread: run this on the network thread, soon. RdtError when that has ended."""
        self.leave(action)
        self.wake_up()

    def leave(self, action: Callable[[], Any]) -> None:
        """The same, when something else wakes the thread: many small things cost less so."""
        with self.gate:
            if self.is_over:
                raise self.closed()
            self._actions.put(action)

    def closed(self) -> RdtError:
        """What is said to whom comes too late."""
        return RdtError(self._said)

    def put(self, action: Callable[[], Any]) -> None:
        """The same for who holds the gate and knows that it is open; it calls `wake_up` when it has let go."""
        self._actions.put(action)

    def wake_up(self) -> None:
        """The thread shall look into its inbox, should it sleep."""
        if self._is_sleeping:
            self.wake()

    def wake(self) -> None:
        """It shall come round once more."""
        with contextlib.suppress(OSError):  # full: it will wake anyway
            self._waker.send(b"\0")

    # ---- on the network thread

    def fileno(self) -> int:
        """Readable when somebody woke the thread."""
        return self._wakened.fileno()

    def begin_sleep(self) -> bool:
        """From now on who posts wakes the thread; True: something is there already."""
        self._is_sleeping = True
        return not self._actions.empty()

    def end_sleep(self, readable: List[int]) -> None:
        """The thread is awake, and sees what comes by itself."""
        self._is_sleeping = False
        if self._wakened.fileno() in readable:
            with contextlib.suppress(OSError):
                self._wakened.recv(4096)

    def run(self) -> None:
        """Do what there is, within bounds; this thread alone takes something out."""
        actions = self._actions
        for _ in range(ACTIONS_PER_TURN):
            if actions.empty():
                return
            actions.get_nowait()()

    def finish(self) -> None:
        """Take nothing any more, and do the rest: each action finds what it was for ended."""
        with self.gate:
            self.is_over = True
        while not self._actions.empty():
            self._actions.get_nowait()()

    def close(self) -> None:
        """Nobody reads it any more: its sockets are closed."""
        self.is_over = True  # should the rest have failed
        self._waker.close()
        self._wakened.close()


class NetworkThread:
    """One UDP socket, its endpoint, and the thread that owns both; constructing binds, `start` starts.

    `endpoint` is to be touched on this thread only, by what is posted to `inbox`. RdtError when the address cannot be
    had. A trace, if one is given, is written on this thread and closed at its end.
    """

    def __init__(
        self,
        ip: str = "",
        port: int = 0,
        clock: Callable[[], float] = time.monotonic,
        rng: Optional[random.Random] = None,
        controller: str = controllers.DEFAULT,
        trace: Optional[Trace] = None,
        credentials: Optional[Credentials] = None,
    ) -> None:
        self.clock, self._trace = clock, trace
        self.credentials = credentials  # of the network's key; None: it is open
        self.datagrams = Datagrams(ip, port)
        self.address = self.datagrams.address
        self._own_addresses = OwnAddresses(self.address[0], clock())
        self.endpoint = self._new_endpoint(rng or secrets.SystemRandom(), controller)
        self.inbox = Inbox(f"the transport at {shown(self.address)} is closed")
        self.watch = Watch(self.datagrams.fileno(), self.inbox.fileno())
        self.is_closing = False  # `close` was called
        self._face = Face()  # until one is attached
        self._readable: List[int] = []  # what the watch found last
        self._unsent: Optional[Tuple[Batch, int]] = None  # and how many of it were sent
        self._moved = 0  # bytes that came and went since the last sleep
        self._is_stopping = False
        self._all_settled: Optional[threading.Event] = None  # what `close` waits for
        self._has_closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="network", daemon=True)

    def _new_endpoint(self, rng: random.Random, controller: str) -> Endpoint:
        # A datagram that does not fit into a small receive buffer several times over is never used.
        size_max = min(DATAGRAM_SIZE_MAX, self.datagrams.receive_buffer_size() // 4)
        new_controller = controllers.CONTROLLERS[controller]
        write = self._trace.write if self._trace is not None else None
        named = {"datagram_size_max": size_max, "new_controller": new_controller}
        return new_endpoint(rng, self.credentials, write, **named)

    def attach(self, face: Face) -> None:
        """Have this face; before `start`, once."""
        self._face = face
        self.endpoint.count_before(face.held_before)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def is_alive(self) -> bool:
        """Does the thread run?"""
        return self._thread.is_alive()

    def check_open(self) -> None:
        """RdtError once `close` was called, or the thread has ended."""
        if self.is_closing or self.inbox.is_over:
            raise self.inbox.closed()

    def stats(self) -> Dict[str, int]:
        """Counters of what was dropped, refused and failed, by cause."""
        return {**dict(self.endpoint.stats), **dict(self.datagrams.stats)}

    # ---- the end, from any thread

    def close(self, timeout: Optional[float]) -> bool:
        """Let all connections end within so many seconds (None: no limit), then the thread; free the port.

        Calling it once more only waits for the first; True for that.
        """
        with self.inbox.gate:
            is_first, self.is_closing = not self.is_closing, True
        if not is_first:
            self._has_closed.wait(timeout)
            return False
        try:
            if self.is_alive():
                self._settle_all(timeout)
            else:
                self._end_everything()
        finally:
            self._has_closed.set()
        return True

    def stop(self, timeout: float = STOP_TIME) -> None:
        """End the thread, without a good-bye to anybody."""
        self._is_stopping = True
        self.inbox.wake()
        self._thread.join(timeout)

    def _settle_all(self, timeout: Optional[float]) -> None:
        settled = threading.Event()
        with contextlib.suppress(RdtError):
            self.inbox.post(lambda: self._begin_close(settled))
            if not settled.wait(timeout):
                self.inbox.post(lambda: self.endpoint.give_up_all("gave up", self.clock()))
                settled.wait(CONFIRM_TIME)
        self.stop()

    # ---- on the thread itself

    def _begin_close(self, settled: threading.Event) -> None:
        self._face.on_closing()
        self._all_settled = settled
        self.endpoint.close_all("closed")
        self._maybe_settled()

    def _maybe_settled(self) -> None:
        if self._all_settled is not None and all(made.is_settled for made in self.endpoint.connections):
            self._all_settled.set()

    def _run(self) -> None:
        try:
            while not self._is_stopping:
                try:
                    self._turn()
                except Exception:  # one bad datagram or event never ends the thread
                    log.exception("dropped what the network thread could not handle")
        finally:
            self._end_everything()

    def _end_everything(self) -> None:
        """Whatever still waits for something is told that it will not come."""
        try:
            self.endpoint.drop_all(CLOSED_BY_THIS)
            self._hand_out_events()
            self.inbox.finish()
        finally:
            self._face.on_over()
            self.release()

    def release(self) -> None:
        """Give back what the system gave, of a thread that runs no more or never did."""
        for handle in (self.watch, self.datagrams, self.inbox, self._trace):
            if handle is not None:
                handle.close()

    def _turn(self) -> None:
        """Once around: what others hand over, what time asks for, what leaves, what has come."""
        self.inbox.run()
        now = self.clock()
        if now >= self._own_addresses.look_at and self.endpoint.has_connections():
            self._look_at_addresses(now)
        if self.endpoint.next_deadline() <= now:
            self.endpoint.on_timeout(now)
        self._send(now)
        self._hand_out_events()
        self._face.turn(now, self._readable)
        self._readable = self._sleep()
        if self.datagrams.fileno() in self._readable or self.datagrams.has_read_ahead():
            self.inbox.run()  # whoever closes now is told of all that was taken, for which nobody was woken
            self._receive()
            self._hand_out_events()  # whoever waits for a message goes on while it is acknowledged

    def _look_at_addresses(self, now: float) -> None:
        if self._own_addresses.have_changed(now):
            log.info("this machine has other addresses than before")
            self.endpoint.on_own_address_changed(now)
            self._face.on_own_address_changed()

    def _sleep(self) -> List[int]:
        """Until there is something to do; what can be read."""
        is_busy = self.inbox.begin_sleep() or self.endpoint.events or self.datagrams.has_read_ahead()
        timeout = 0.0 if is_busy else self._idle_time()
        readable: List[int] = []
        if timeout > 0 and self._is_gathering():
            readable = self._gather(timeout)
            timeout = self._idle_time()
        if not readable:
            readable = self.watch.wait(timeout, self._unsent is not None and self.datagrams.is_full)
        self._moved = 0
        self.inbox.end_sleep(readable)
        return readable

    def _is_gathering(self) -> bool:
        """Do so many wait that nobody minds a moment, and is little moved?"""
        is_hall = self.endpoint.connection_count() >= GATHERING_CONNECTIONS
        return is_hall and self._moved <= GATHERING_SIZE_MAX and self._unsent is None

    def _gather(self, timeout: float) -> List[int]:
        """Let datagrams come for a moment; whatever else there is to do ends it."""
        return self.watch.wait_for_others(min(timeout, GATHERING_TIME))

    def _idle_time(self) -> float:
        if self._unsent is not None:
            return FULL_PAUSE
        deadline = min(self.endpoint.next_deadline(), self._face.next_deadline())
        if self.endpoint.has_connections():
            deadline = min(deadline, self._own_addresses.look_at)
        return min(max(0.0, deadline - self.clock()), SLEEP_MAX)

    def _receive(self) -> None:
        endpoint, clock = self.endpoint, self.clock
        size = 0
        for data, segment_size, address in self.datagrams.arrivals(READS_PER_TURN):
            # The clock is read after each read: a common one would spoil the round-trip samples.
            cuts = self.datagrams.cuts(segment_size, endpoint.cuts_of)
            endpoint.receive(data, segment_size, address, clock(), cuts)
            size += len(data)
            if size >= READ_PER_TURN_MAX:
                break
        self._moved += size

    def _send(self, now: float) -> None:
        """All that may leave now, or as much as the system takes; the rest waits for room."""
        if self._unsent is not None:
            batch, sent = self._unsent
            self._unsent = None  # should this raise, it is lost, and not tried for ever
            sent = self.datagrams.send(batch, now, sent)
            self._unsent = (batch, sent) if sent < batch.count else None
            if self._unsent is not None:
                return
        size = 0
        for batch in self.endpoint.batches(now):
            sent = self.datagrams.send(batch, now)
            if sent < batch.count:
                self._unsent = batch, sent
                return
            size += batch.count * batch.segment_size
            if size >= TURN_SIZE_MAX:
                break
        self._moved += size

    def _hand_out_events(self) -> None:
        events = self.endpoint.events
        while events:
            self._face.on_event(events.popleft())
        self._maybe_settled()
