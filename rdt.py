"""A reliable transport over UDP, as a program sees it: one socket, its thread, and the verbs.

    transport = rdt.open("127.0.0.1", 0)                    # binds, starts its network thread
    connection = transport.connect((ip, port))              # or transport.accept(), transport.accept_all()
    connection.send(b"..."); connection.receive()           # whole messages, in order
    connection.send_file(path); connection.accept_file(folder)
    transport.broadcast(b"..."); transport.disconnect(connection); transport.close()

Every verb may be called from any thread, and by several at once: each message and each file goes to one of them, whole.
Every timeout is in seconds; None is no limit. Every failure is an `RdtError` that names the other side and the cause;
a call that cannot be right (text instead of bytes, a port where the timeout stands) is a `WrongUse`, at once.

*Delivered* is what the other side's transport has taken in whole: its program has received it or still can, even after
the end. (Whether a program did something with a message, only an answer can tell; `send_file` waits for one.) What was
sent and not delivered is told by `disconnect` and `close`, as "5 bytes were not delivered"; "were perhaps not
delivered" where the other side fell silent, so that nobody can know.

How it works lies in `protocol/` (sliding window, loss detection, congestion control); here are the socket, the one
thread that owns it and every connection, and the queues between that thread and the callers.

Roles do not block on verbs: `Links` gives them the same connections as numbered links and events.
"""

from __future__ import annotations

import collections
import contextlib
import errno
import itertools
import math
import os
import queue
import random
import secrets
import select
import selectors
import socket
import struct
import threading
import time
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any, Callable, Deque, Dict, Iterator, List, NamedTuple, Optional, Tuple

from disk.sequential import SequentialReader, SequentialWriter, path_text
from disk.tracing import TraceFile
from protocol import mishaps
from protocol.content.troubles import LibraryError
from protocol.fields import Address, Buffer
from protocol.figures import PathFigures
from protocol.membership import door as rules
from protocol.transport import connection as core
from protocol.transport import frames
from protocol.transport.endpoint import Endpoint, LoneReceived
from protocol.transport.frames import FRAME_HEADER_SIZE, FRAME_SIZE_MAX, MESSAGE, MESSAGE_SIZE_MAX, SPAN_SIZE, Frame
from protocol.transport.links import LinkTable
from protocol.transport.packets import DATAGRAM_SIZE_MAX
from protocol.transport.trace import TracedEndpoint
from sockets.interfaces import interfaces
from sockets.udp import NO_OFFLOAD as NO_OFFLOAD  # the verbs' face names it, too
from sockets.udp import Datagrams, RdtError, shown

log = mishaps.logger("rdt")

READS_PER_TURN = 64  # runs of datagrams, and
READ_PER_TURN_MAX = 512 << 10  # bytes taken before acknowledging and sending
TURN_SIZE_MAX = 1 << 20  # bytes sent before looking for acknowledgements again
NOT_LOOKED_UP = {socket.EAI_AGAIN, socket.EAI_MEMORY, errno.EMFILE, errno.ENFILE}  # a name may be right all the same
BACKLOG_HIGH = 4 << 20  # bytes at which send blocks its caller
BROADCAST_HIGH = 16 << 20  # and broadcast: it does not stand in line behind one thread's long message
ACCEPTED_MAX = 1024  # connections that wait to be accepted; one more is refused
REFUSED_MAX = 1024  # files not taken, of which more may still come
UNTOLD_MAX = 100  # ends with something undelivered that close will name; the others it counts
CONFIRM_TIME = 0.5  # seconds, when a timeout is over, in which the other side may still say what it took
CLOSED_BY_OTHER, CLOSED_BY_THIS = "closed by the other side", "closed by this side"
SPAN_SIZE = 1 << 20  # bytes of a file in one frame
TRACE = "RDT_TRACE"  # in the environment: a file to which every transport tells its packets (protocol/transport/trace.py)


Progress = Callable[[int, int], None]  # (bytes done, size)
Path = Any  # text, bytes or a pathlib.Path


class WrongUse(RdtError, TypeError, ValueError):
    """A call that cannot be right; the text says how it should look. Nothing was done."""


class FileReceipt(NamedTuple):
    """A file that was verified and kept at the other side (send_file) or here (accept_file)."""

    path: str
    size: int  # bytes
    sha256: str  # of the content, in hex
    seconds: float


class _Over(Exception):
    """Nothing more will come."""


class Waiting:
    """What came and waits for a caller: the network thread puts it in, any thread takes it.

    Those of one connection share a condition: most connections are idle, and each condition costs them 2 KB.
    """

    __slots__ = ("_changed", "_things", "_is_over")

    def __init__(self, changed: Optional[threading.Condition] = None) -> None:
        self._changed = changed or threading.Condition()
        self._things: Optional[Deque[Any]] = None  # until there is something, for the same reason
        self._is_over = False

    def put(self, thing: Any) -> None:
        with self._changed:
            if self._things is None:
                self._things = collections.deque()
            self._things.append(thing)
            self._changed.notify_all()  # not just one: some wait for several things

    def finish(self) -> None:
        """Nothing more will come: whoever waits, now or later, is told so behind the last thing."""
        with self._changed:
            self._is_over = True
            self._changed.notify_all()

    def take(self, timeout: Optional[float] = None) -> Any:
        """The next thing; queue.Empty when none came in time, _Over when none will."""
        return self.take_several(1, timeout)[0]

    def take_several(self, count: int, timeout: Optional[float] = None) -> List[Any]:
        """`count` things once there are so many (0: all that are there); else none is taken, and as above."""
        with self._changed:
            self._changed.wait_for(lambda: len(self) >= count or self._is_over, timeout)
            if len(self) < count:
                raise _Over if self._is_over else queue.Empty
            return [self._things.popleft() for _ in range(count or len(self._things))] if self._things else []

    def remove(self, is_unwanted: Callable[[Any], bool]) -> List[Any]:
        """Take out what is not wanted any more; the rest keeps its order, and nobody sees it in between."""
        with self._changed:
            things = self._things or ()
            unwanted = [thing for thing in things if is_unwanted(thing)]
            self._things = collections.deque(thing for thing in things if not is_unwanted(thing))
        return unwanted

    def __len__(self) -> int:
        return len(self._things or ())


def open(ip: str = "", port: int = 0, controller: str = controllers.DEFAULT) -> Transport:  # noqa: A001  the course's verb
    """Bind a socket at that address (empty: every interface; port 0: a free one) and start its network thread.

    `transport.address` is where it is. `controller` is the congestion controller of what this side sends: "cubicq", or
    the plain "newreno". RdtError when the port is taken or the address is none of this machine; WrongUse when they are
    no address and no port, or no controller has that name.
    """
    if not isinstance(ip, str):
        raise WrongUse('cannot open %r: it is rdt.open("127.0.0.1", 6020)' % (ip,))
    if not isinstance(controller, str) or controller not in controllers.CONTROLLERS:
        names = ", ".join(controllers.CONTROLLERS)
        raise WrongUse("%r is no congestion controller; there are: %s" % (controller, names))
    transport = Transport(ip, _port(port, "cannot open %s:%s" % (ip, port)), controller=controller)
    transport.start()
    return transport


def _port(port: Any, what: str, least: int = 0) -> int:
    """A port as a number, whether it came as one or as text."""
    number = int(port) if isinstance(port, str) and port.isdigit() else port
    if not isinstance(number, int) or not least <= number <= 65_535:
        raise WrongUse("%s: ports go from %d to 65535" % (what, least))
    return number


def _seconds(timeout: Optional[float]) -> Optional[float]:
    """A timeout, or None where it is longer than the system can wait."""
    if timeout is None:
        return None
    if not isinstance(timeout, (int, float)) or not timeout >= 0:
        raise WrongUse("%r is no timeout: it is a number of seconds, or None for no limit" % (timeout,))
    return timeout if timeout < threading.TIMEOUT_MAX else None


def _size_of_frame(parts: Tuple[Buffer, ...]) -> int:
    return FRAME_HEADER_SIZE + sum(len(part) for part in parts)


def _message_of(data: Buffer) -> bytes:
    """What is to be sent, as bytes of its own: the caller may change its buffer at once."""
    if isinstance(data, bytes):
        return data
    try:
        return memoryview(data).tobytes()  # whatever the items of a view are, and however they lie
    except TypeError:
        hint = ': text.encode() makes bytes of text' if isinstance(data, str) else ""
        raise WrongUse("a message is bytes, not %s%s" % (type(data).__name__, hint)) from None


# ---- the door ------------------------------------------------------------------------------------------------------


class Door:
    """A second socket at the port that people know: tried until it is free, then served by the transport's thread.

    Everything but `hold` belongs to that thread. What comes in is told by `emit` as `LinkTable` does it, but a lone
    message as "on_door_lone", and links have negative numbers.
    """

    CONNECTIONS_MAX = 64  # each is sent on at once, or closed after the hello's time
    READS_PER_TURN = 64  # datagrams; the transport is served in between

    def __init__(self, ip: str, watch: Watch) -> None:
        self._watch = watch
        self.emit: Callable[..., None] = lambda event, *arguments: None
        self.is_readable = False
        self._ip, self._port = ip, 0
        self._try_at = math.inf
        self._numbers = itertools.count(-2, -2)
        self._datagrams: Optional[Datagrams] = None
        self._endpoint: Any = None
        self.table: Any = None

    def hold(self, port: int, now: float) -> None:
        """From now on try to have that port; 0: let go of it."""
        if port != self._port:
            self.close()
            self._port, self._try_at = port, now if port else math.inf

    def close(self) -> None:
        if self._datagrams is not None:
            self._watch.drop(self._datagrams.fileno())
            self._datagrams.close()
        self._datagrams = self._endpoint = self.table = None

    def send_lone(self, address: Address, message: bytes) -> None:
        if self._endpoint is not None:
            self._endpoint.send_lone(address, message)

    def fileno(self) -> int:
        """What to wait for; -1: nothing."""
        return -1 if self._datagrams is None else self._datagrams.fileno()

    def next_deadline(self) -> float:
        return self._try_at if self._endpoint is None else float(self._endpoint.next_deadline())

    def turn(self, now: float) -> None:
        """Take in and send what there is; or try for the port, if it is time to."""
        if self._datagrams is None and (now < self._try_at or not self._open(now)):
            return
        assert self._datagrams is not None
        if self.is_readable:
            self._receive(self._datagrams, now)
        if self._endpoint.next_deadline() <= now:
            self._endpoint.on_timeout(now)
        for batch in self._endpoint.batches(now):
            self._datagrams.send(batch, now)  # what does not fit is lost, and sent again
        while self._endpoint.events:
            self.table.on_event(self._endpoint.events.popleft())

    def _open(self, now: float) -> bool:
        self._try_at = now + rules.DOOR_INTERVAL
        try:
            self._datagrams = Datagrams(self._ip, self._port)
        except RdtError:
            return False
        log.info("the door at port %d is ours", self._port)
        self._watch.add(self._datagrams.fileno())
        self._endpoint = Endpoint(secrets.SystemRandom(), self.CONNECTIONS_MAX)
        self.table = LinkTable(self._endpoint, self._emit, self._numbers)
        return True

    def _receive(self, datagrams: Datagrams, now: float) -> None:
        for data, segment_size, address in datagrams.arrivals(self.READS_PER_TURN):
            self._endpoint.receive(data, segment_size, address, now)

    def _emit(self, event: str, *arguments: Any) -> None:
        self.emit("on_door_lone" if event == "on_lone" else event, *arguments)


# ---- the network thread -------------------------------------------------------------------------------------------


class Transport:
    """One UDP socket and the thread that owns it; made by `open`."""

    def __init__(
        self,
        ip: str = "",
        port: int = 0,
        clock: Callable[[], float] = time.monotonic,
        rng: Optional[random.Random] = None,
        controller: str = controllers.DEFAULT,
        trace: str = "",
    ) -> None:
        self._clock = clock
        self._datagrams = Datagrams(ip, port)
        self.address = self._datagrams.address
        # A datagram that does not fit into a small receive buffer several times over is never used.
        room = self._datagrams.socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
        self._trace = self._open_trace(trace or os.environ.get(TRACE, ""))
        self._endpoint = self._new_endpoint(
            rng or secrets.SystemRandom(),
            datagram_size_max=min(DATAGRAM_SIZE_MAX, room // 4),
            new_controller=controllers.CONTROLLERS[controller],
        )
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._waker, self._wakened = socket.socketpair()
        self._waker.setblocking(False)
        self._wakened.setblocking(False)
        self._watch = Watch(self._datagrams.fileno(), self._wakened.fileno())
        self._known_port = Door(self.address[0], self._watch)
        self._sleeping = False
        self._stopping = False
        self._unsent: Optional[Tuple[core.Batch, int]] = None  # and how many of it were sent
        self._accepted = Waiting()
        self._connections: Dict[core.Connection, Connection] = {}
        self._on_event: Callable[[Any], None] = self._on_verb_event
        # A caller's lock: who checks that something is open and posts to it holds it, and so does who ends it. So
        # what was taken from a caller is in the inbox before the end, and is delivered or counted as undelivered.
        self._gate = threading.Lock()
        self._is_closing = False  # close was called
        self._is_over = False  # the thread is at its end; nothing is posted any more
        self._all_settled: Optional[threading.Event] = None  # what close waits for
        self._posted_size = 0  # bytes on their way to the network thread, for all connections
        self._crowded: Dict[Connection, int] = {}  # who waits for room in the sum -> bytes; the network thread's
        self._endpoint.held_before = self._held_before
        self._has_closed = threading.Event()
        self._untold: Dict[bytes, str] = {}  # what was not delivered, of ends that no verb has told
        self._untold_more = 0
        self._thread = threading.Thread(target=self._run, name="network", daemon=True)

    def _open_trace(self, path: str) -> Optional[TraceFile]:
        try:
            return TraceFile(path) if path else None
        except OSError as error:
            self._datagrams.close()
            raise RdtError("cannot trace to %s: %s" % (path, error.strerror or error)) from error

    def _new_endpoint(self, *arguments: Any, **named: Any) -> Endpoint:
        if self._trace is None:
            return Endpoint(*arguments, **named)
        return TracedEndpoint(self._trace.write, *arguments, **named)

    def start(self) -> None:
        self._thread.start()

    def __enter__(self) -> Transport:
        return self

    def __exit__(self, kind: Any, *_: object) -> None:
        try:
            self.close()
        except RdtError:
            if kind is None:  # else the error that led here is the one to see
                raise

    # ---- verbs

    def connect(self, address: Tuple[str, int], timeout: Optional[float] = 5.0) -> Connection:
        """Open a connection to the transport at `(host, port)`, and return when the other side has answered.

        The other side finds it by `accept` a moment later. RdtError when nobody answers in time, the other side
        refuses, no such machine is known, or this transport is or gets closed. WrongUse when it is no such pair.
        """
        self._check_open()
        resolved, limit = _resolved(address), _seconds(timeout)
        future: Future[Connection] = Future()
        self._post(lambda: self._connect(resolved, float("inf") if limit is None else limit, future))
        # A second more: the network thread knows the cause.
        return self._result(future, None if limit is None else limit + 1.0, "cannot connect to %s" % shown(resolved))

    def _connect(self, address: Address, timeout: float, future: Future[Connection]) -> None:
        if self._is_closing or self._is_over:
            future.set_exception(self._closed())
            return
        made = self._endpoint.connect(address, self._clock(), timeout)
        self._connections[made] = Connection(self, made, future)

    def accept(self, timeout: Optional[float] = None) -> Connection:
        """The next connection that another side opened, in the order they came; waits for one.

        It may have ended meanwhile: then `receive` gives what came, and then the end. RdtError when none came in
        time, and at once when this transport is closed, before or meanwhile.
        """
        return self._next_accepted(1, timeout, "nobody connected")[0]

    def accept_all(self, count: int = 0, timeout: Optional[float] = None) -> List[Connection]:
        """Every connection that others opened and that was not accepted yet; may be empty.

        A connection is there when the first packet behind the handshake came, a moment after `connect` returned at
        its other side. `count` waits for so many and returns them: RdtError when they are fewer in time (they stay,
        for the next to accept), or when this transport is closed.
        """
        if not isinstance(count, int) or count < 0:
            raise WrongUse("%r is no count: accept_all() takes who is there, accept_all(3) waits for three" % (count,))
        return self._next_accepted(count, timeout, "fewer than %d connected" % count)

    def _next_accepted(self, count: int, timeout: Optional[float], what: str) -> List[Connection]:
        limit = _seconds(timeout)
        self._check_open()
        try:
            return self._accepted.take_several(count, limit)
        except queue.Empty:
            raise RdtError("%s to %s within %g s" % (what, shown(self.address), limit or 0)) from None
        except _Over:
            raise self._closed() from None

    def broadcast(self, data: Buffer, timeout: Optional[float] = 5.0) -> int:
        """Send a message of up to 1 MiB to every open connection; to how many it was handed (0: there is none).

        All get it at once but those with BROADCAST_HIGH bytes waiting: for room there it waits. RdtError names those
        that had none in time, and how many took it; they stay connected. One that ends meanwhile does not count.
        """
        message, deadline = _message_of(data), _deadline(timeout)
        if len(message) > FRAME_SIZE_MAX:
            raise WrongUse("a message of %d bytes is too long to broadcast; %d fit" % (len(message), FRAME_SIZE_MAX))
        self._check_open()
        slow, troubles, count = [], [], 0
        for connection in self._established():
            try:
                connection._send_frame(MESSAGE, message, deadline=0.0, backlog_max=BROADCAST_HIGH)
                count += 1
            except RdtError:
                slow.append(connection)
        for connection in slow:
            try:
                connection._send_frame(MESSAGE, message, deadline=deadline, backlog_max=BROADCAST_HIGH)
                count += 1
            except RdtError as error:
                if connection._end is None and not connection._leaving:
                    troubles.append(str(error))
        if troubles:
            raise RdtError("the broadcast went to %d and not to %d: %s" % (count, len(troubles), "; ".join(troubles)))
        return count

    def _established(self) -> List[Connection]:
        known = self._connections.copy()  # the network thread goes on
        return [each for made, each in known.items() if made.state is core.State.ESTABLISHED]

    def disconnect(self, connection: Connection, timeout: Optional[float] = 10.0) -> None:
        """Close a connection once everything sent is delivered; it returns when the other side knows.

        RdtError says how much was not delivered, in time or before the other side closed or fell silent; the
        connection is over all the same, and asking again tells it again. What came before can still be received.
        WrongUse when it is no connection of this transport.
        """
        if not isinstance(connection, Connection):
            raise WrongUse("%r is no connection: it is transport.disconnect(connection)" % (connection,))
        if connection.transport is not self:
            raise WrongUse("%r is a connection of another transport" % (connection,))
        connection._disconnect(_seconds(timeout))

    def close(self, timeout: Optional[float] = 10.0) -> None:
        """Disconnect everybody, deliver what was sent, free the port. Every verb that waits comes back with RdtError.

        RdtError says what was not delivered, also of connections that ended earlier unless a verb has said it; the
        transport is closed all the same. Closing once more does nothing but wait for the first.
        """
        limit = _seconds(timeout)
        with self._gate:
            is_first, self._is_closing = not self._is_closing, True
        if not is_first:
            self._has_closed.wait(limit)
            return
        self._accepted.finish()
        try:
            if self._thread.is_alive():
                self._settle_all(limit)
            else:
                self._end_everything()
        finally:
            self._has_closed.set()
        troubles = list(self._untold.values())
        if self._untold_more:
            troubles.append("and more to %d others" % self._untold_more)
        if troubles:
            raise RdtError("; ".join(troubles))

    def _settle_all(self, timeout: Optional[float]) -> None:
        """Let every connection come to its end, within bounds, and then the network thread."""
        settled = threading.Event()
        with contextlib.suppress(RdtError):
            self._post(lambda: self._begin_close(settled))
            if not settled.wait(timeout):
                self._post(lambda: self._endpoint.give_up_all("gave up", self._clock()))
                settled.wait(CONFIRM_TIME)
        self._stopping = True
        self._wake()
        self._thread.join(timeout=5.0)

    def _begin_close(self, settled: threading.Event) -> None:
        with self._gate:
            for connection in self._connections.values():
                connection._leaving = True
        self._all_settled = settled
        self._endpoint.close_all("closed")
        self._maybe_settled()

    def _maybe_settled(self) -> None:
        if self._all_settled is not None and all(made.is_settled for made in self._endpoint.connections):
            self._all_settled.set()

    def _check_open(self) -> None:
        if self._is_closing or self._is_over:
            raise self._closed()

    def _closed(self) -> RdtError:
        return RdtError("the transport at %s is closed" % shown(self.address))

    def _remember_undelivered(self, connection: Connection, said: str) -> None:
        """Keep for `close` what the end of a connection left undelivered."""
        if len(self._untold) < UNTOLD_MAX:
            self._untold[connection._made.local_id] = said
        else:
            self._untold_more += 1

    def stats(self) -> Dict[str, int]:
        """Counters of what was dropped, refused and failed, by cause."""
        return {**dict(self._endpoint.stats), **dict(self._datagrams.stats)}

    def _result(self, future: Future[Any], timeout: Optional[float], what: str) -> Any:
        try:
            return future.result(timeout)
        except FutureTimeout:
            if not future.cancel():  # answered in this moment
                return future.result()
            raise RdtError("%s: timed out" % what) from None

    # ---- between threads

    def _post(self, action: Callable[[], Any]) -> None:
        """Run this on the network thread, soon."""
        with self._gate:
            if self._is_over:
                raise self._closed()
            self._inbox.put(action)
        self._wake_up()

    def _wake_up(self) -> None:
        if self._sleeping:
            self._wake()

    def _wake(self) -> None:
        with contextlib.suppress(OSError):  # full: it will wake anyway
            self._waker.send(b"\0")

    def _run(self) -> None:
        """The network thread: the only one that touches the socket and the endpoint."""
        try:
            while not self._stopping:
                try:
                    self._turn()
                except Exception:  # one bad datagram or event never ends the thread
                    log.exception("dropped what the network thread could not handle")
        finally:
            self._end_everything()

    def _end_everything(self) -> None:
        """Whatever still waits for something is told that it will not come."""
        try:
            self._endpoint.drop_all(CLOSED_BY_THIS)
            self._hand_out_events()
            with self._gate:
                self._is_over = True
            while not self._inbox.empty():  # each action finds its connection ended
                self._inbox.get_nowait()()
        finally:
            self._is_over = True
            self._accepted.finish()
            self._release()

    def _release(self) -> None:
        for handle in (self._known_port, self._watch, self._datagrams, self._waker, self._wakened, self._trace):
            if handle is not None:
                handle.close()

    def _turn(self) -> None:
        self._run_inbox()
        now = self._clock()
        if self._endpoint.next_deadline() <= now:
            self._endpoint.on_timeout(now)
        self._send(now)
        self._hand_out_events()
        self._wake_crowded()
        self._known_port.turn(now)
        self._sleeping = True
        is_busy = not self._inbox.empty() or self._endpoint.events or self._datagrams.has_read_ahead()
        timeout = 0.0 if is_busy else self._idle_time()
        readable = self._watch.wait(timeout, self._unsent is not None and self._datagrams.is_full)
        self._sleeping = False
        self._known_port.is_readable = self._known_port.fileno() in readable
        if self._wakened.fileno() in readable:
            with contextlib.suppress(OSError):
                self._wakened.recv(4096)
        if self._datagrams.fileno() in readable or self._datagrams.has_read_ahead():
            self._receive()
            self._hand_out_events()  # whoever waits for a message goes on while it is acknowledged

    def _idle_time(self) -> float:
        if self._unsent is not None:
            return 0.01
        deadline = min(self._endpoint.next_deadline(), self._known_port.next_deadline())
        return min(max(0.0, deadline - self._clock()), 60.0)

    # ---- room for what waits to be delivered, on all connections together

    def _held_before(self) -> int:
        """What is on its way to the connections, and the most that somebody waits to hand over."""
        return self._posted_size + max(self._crowded.values(), default=0)

    def _has_room(self, size: int) -> bool:
        return self._endpoint.held.total + self._posted_size + size <= self._endpoint.held_max

    def _wait_for_sum(self, connection: Connection, size: int) -> None:
        """It is woken when there is room; who takes nothing of what waits for it is not waited for."""
        self._crowded[connection] = size
        self._endpoint.now = self._clock()
        self._endpoint.make_room()

    def _wake_crowded(self) -> None:
        if self._crowded and self._has_room(max(self._crowded.values())):
            woken, self._crowded = self._crowded, {}
            for connection in woken:
                connection._wake_senders()

    def _run_inbox(self) -> None:
        with contextlib.suppress(queue.Empty):
            for _ in range(1000):
                self._inbox.get_nowait()()

    def _receive(self) -> None:
        endpoint, clock = self._endpoint, self._clock
        size = 0
        for data, segment_size, address in self._datagrams.arrivals(READS_PER_TURN):
            # The clock is read after each read: a common one would spoil the round-trip samples.
            endpoint.receive(data, segment_size, address, clock())
            size += len(data)
            if size >= READ_PER_TURN_MAX:
                return

    def _send(self, now: float) -> None:
        if self._unsent is not None:
            batch, sent = self._unsent
            self._unsent = None  # should this raise, it is lost, and not tried for ever
            sent = self._datagrams.send(batch, now, sent)
            self._unsent = (batch, sent) if sent < batch.count else None
            if self._unsent is not None:
                return
        size = 0
        for batch in self._endpoint.batches(now):
            sent = self._datagrams.send(batch, now)
            if sent < batch.count:
                self._unsent = batch, sent
                return
            size += batch.count * batch.segment_size
            if size >= TURN_SIZE_MAX:
                return

    def _hand_out_events(self) -> None:
        events = self._endpoint.events
        while events:
            self._on_event(events.popleft())
        self._maybe_settled()

    # ---- events for the verbs

    def _on_verb_event(self, event: Any) -> None:
        if isinstance(event, LoneReceived):
            return
        made = event.connection
        if isinstance(event, core.Established):
            if not made.is_client:
                self._take_in(made)
            else:
                self._connections[made]._on_established()
        elif made in self._connections:
            self._connections[made]._on_event(event)
            if isinstance(event, core.ConnectionLost):
                del self._connections[made]

    def _take_in(self, made: core.Connection) -> None:
        """Somebody opened a connection: it waits to be accepted."""
        if len(self._accepted) >= ACCEPTED_MAX:
            made.fail(core.CloseCode.LIMIT, "nobody accepts connections there", self._clock())
            return
        self._connections[made] = Connection(self, made, None)
        self._accepted.put(self._connections[made])


class Watch:
    """Sleeps until the socket, the waker of the network thread or the door has something.

    By select(), whose timeout has microseconds, as pacing wants: what else there is counts milliseconds. But select()
    knows no descriptor from 1,024 on; a program that has so many open gets what its platform has.
    """

    def __init__(self, datagrams: int, wakened: int) -> None:
        self._datagrams, self._reading = datagrams, [datagrams, wakened]
        self._selector: Optional[selectors.BaseSelector] = None
        self._choose()

    def _choose(self) -> None:
        try:
            select.select(self._reading, [], [], 0)
        except ValueError:
            self._selector = selectors.DefaultSelector()
            for descriptor in self._reading:
                self._selector.register(descriptor, selectors.EVENT_READ)

    def add(self, descriptor: int) -> None:
        """Wait for this one, too."""
        self._reading.append(descriptor)
        if self._selector is not None:
            self._selector.register(descriptor, selectors.EVENT_READ)
        else:
            self._choose()

    def drop(self, descriptor: int) -> None:
        self._reading.remove(descriptor)
        if self._selector is not None:
            self._selector.unregister(descriptor)

    def wait(self, timeout: float, is_full: bool) -> List[int]:
        """Which can be read; comes back too when the socket, which was full, takes more."""
        if self._selector is None:
            return select.select(self._reading, self._reading[:1] if is_full else [], [], timeout)[0]
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if is_full else 0)
        if self._selector.get_key(self._datagrams).events != wanted:
            self._selector.modify(self._datagrams, wanted)
        return [key.fd for key, events in self._selector.select(timeout) if events & selectors.EVENT_READ]

    def close(self) -> None:
        if self._selector is not None:
            self._selector.close()


def _resolved(address: Tuple[str, int]) -> Address:
    """The address in numbers; RdtError when the name is unknown, WrongUse when it is no address."""
    is_pair = isinstance(address, (tuple, list)) and len(address) == 2 and isinstance(address[0], str)
    if not is_pair or not address[0]:
        raise WrongUse('cannot connect to %r: an address is a pair, as in connect(("127.0.0.1", 6020))' % (address,))
    host, port = address[0], _port(address[1], "cannot connect to %s:%s" % tuple(address), least=1)
    if host == "0.0.0.0":
        raise WrongUse("cannot connect to %s:%d: that is every address of a machine; take one of them" % (host, port))
    try:
        return socket.gethostbyname(host), port
    except (OSError, UnicodeError) as error:
        cause = "no such machine is known"
        if isinstance(error, OSError) and error.errno in NOT_LOOKED_UP:
            cause = "its name could not be looked up: %s" % error.strerror
        raise RdtError("cannot connect to %s:%d: %s" % (host, port, cause)) from None


class _Posted:
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
        return self._sizes.get(key, 0)


# ---- a connection, as the verbs see it ----------------------------------------------------------------------------


class Connection:
    """One open connection; made by Transport.connect and Transport.accept."""

    def __init__(self, transport: Transport, made: core.Connection, connecting: Optional[Future[Connection]]) -> None:
        self.transport = transport
        self.address = made.address
        self._made = made
        self._connecting = connecting
        self._changed = threading.Condition()  # something came, there is room, or it is over
        self._messages = Waiting(self._changed)
        self._files = Waiting(self._changed)  # FILE, FILE_DATA, FILE_END, and FILE_REFUSED by the sender
        self._receipts = Waiting(self._changed)  # FILE_RECEIPT, FILE_DAMAGED, and FILE_REFUSED by the receiver
        self._long_messages = itertools.count()
        self._joining = frames.LongMessages()
        self._refused: Dict[int, None] = {}  # transfers that this side did not take, and that may still go on
        self._end: Optional[core.ConnectionLost] = None
        self._ended = threading.Event()  # and everything that was handed over before is counted
        self._is_end_told = False  # some verb has said how much was not delivered
        self._leaving = False
        self._posted_size = 0  # bytes on their way to the network thread
        self._dropped_size = 0  # bytes that came there behind the end
        # Callers' locks, not the protocol's: one message, or file, belongs to one caller from its beginning to its end.
        self._receiving, self._sending_long = threading.Lock(), threading.Lock()
        self._accepting_file, self._sending_file = threading.Lock(), threading.Lock()
        self._transfers = itertools.count(0 if made.is_client else 1, 2)

    def __repr__(self) -> str:
        return "<rdt.Connection to %s>" % shown(self.address)

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, kind: Any, *_: object) -> None:
        try:
            self._disconnect(10.0)
        except RdtError:
            if kind is None:  # else the error that led here is the one to see
                raise

    # ---- on the network thread

    def _on_established(self) -> None:
        if self._connecting is not None and self._connecting.set_running_or_notify_cancel():
            self._connecting.set_result(self)
        else:
            self._made.shut_down("given up")  # who wanted it waits no more

    def _on_event(self, event: Any) -> None:
        if isinstance(event, core.FrameReceived):
            self._on_frame(Frame(event.kind, event.body))
        elif isinstance(event, core.BacklogDrained):
            self._wake_senders()
        elif isinstance(event, core.ConnectionLost):
            self._on_lost(event)

    def _on_frame(self, frame: Frame) -> None:
        if frame.kind in frames.MESSAGE_KINDS:
            self._messages.put(frame)
        elif self._is_of_refused_file(frame):
            self._made.consume(frame)
            if frame.kind == frames.FILE_REFUSED:  # the last thing of a transfer
                del self._refused[frames.number_of(frame.body)]
        elif frame.kind in frames.FILE_CONTENT_KINDS:
            self._files.put(frame)
        elif frame.kind in frames.FILE_ANSWER_KINDS and frames.number_of(frame.body) >= 0:
            ours = frames.number_of(frame.body) % 2 == (0 if self._made.is_client else 1)
            (self._receipts if ours else self._files).put(frame)
        else:
            self._made.consume(frame)  # a kind of a later version

    def _fail(self, code: int, reason: str) -> None:
        self._made.fail(code, reason, self.transport._clock())

    def _is_of_refused_file(self, frame: Frame) -> bool:
        of_a_file = frame.kind in (frames.FILE_DATA, frames.FILE_END, frames.FILE_REFUSED)
        return of_a_file and frames.number_of(frame.body) in self._refused

    def _drop_refused(self, transfer: int) -> None:
        """What still comes of this file is read and forgotten, so that it does not hold up what follows it."""
        self._refused[transfer] = None
        if len(self._refused) > REFUSED_MAX:
            del self._refused[next(iter(self._refused))]
        for frame in self._files.remove(self._is_of_refused_file):
            self._made.consume(frame)

    def _on_lost(self, event: core.ConnectionLost) -> None:
        with self.transport._gate:
            self._end = event
        connecting = self._connecting
        if connecting is not None and not connecting.done() and connecting.set_running_or_notify_cancel():
            connecting.set_exception(RdtError("cannot connect to %s: %s" % (shown(self.address), event.reason)))
        self.transport._inbox.put(self._settle)  # behind what callers handed over before

    def _settle(self) -> None:
        """The end is known, and what it cost: whoever waits comes back."""
        left = self._left_behind()
        if left and (self.transport._is_closing or not self._is_end_told):
            said = "%s to %s (%s)" % (left, shown(self.address), self._reason())
            self.transport._remember_undelivered(self, said)
        for waiting in (self._messages, self._files, self._receipts):
            waiting.finish()
        self._ended.set()
        self._wake_senders()

    def _wake_senders(self) -> None:
        with self._changed:
            self._changed.notify_all()

    # ---- on the caller's thread

    def _wait_for(self, waiting: Waiting, deadline: float, what: str) -> Frame:
        try:
            return waiting.take(_left(deadline))  # type: ignore[no-any-return]
        except queue.Empty:
            raise self._late(what, deadline) from None
        except _Over:
            raise self._lost() from None

    def _late(self, what: str, deadline: float) -> RdtError:
        return RdtError("%s from %s within %g s" % (what, shown(self.address), getattr(deadline, "timeout", 0)))

    def _take(self, waiting: Waiting, deadline: float, what: str) -> Frame:
        frame = self._wait_for(waiting, deadline, what)
        self._consume(frame)
        return frame

    @contextlib.contextmanager
    def _turn(self, lock: threading.Lock, deadline: float, what: str) -> Iterator[None]:
        """Have this lock, when those who asked before are done."""
        left = _left(deadline)
        if not lock.acquire(timeout=-1 if left is None else left):
            raise self._late(what, deadline)
        try:
            yield
        finally:
            lock.release()

    def _consume(self, frame: Frame) -> None:
        """The other side may send as much more."""
        with contextlib.suppress(RdtError):
            self.transport._post(lambda: self._made.consume(frame))

    def _reason(self) -> str:
        reason = (self._end.reason if self._end is not None else "") or "closed"
        return CLOSED_BY_THIS if self._made.closing.is_begun_here and reason in (CLOSED_BY_OTHER, "closed") else reason

    def _left_behind(self) -> str:
        """What is not delivered, now that nothing more will be; "" for nothing."""
        closing = self._made.closing
        count = closing.undelivered + self._dropped_size + self._posted_size
        is_sure = closing.is_undelivered_sure or count > closing.undelivered
        return "%d bytes were %snot delivered" % (count, "" if is_sure else "perhaps ") if count else ""

    def _lost(self) -> RdtError:
        left, missing = self._left_behind(), self._made.closing.missing
        if left:
            self._is_end_told = True
            if not self.transport._is_closing:  # else close is asked, and tells it, too
                self.transport._untold.pop(self._made.local_id, None)
        more = " (%s)" % left if left else ""
        if missing and not self._leaving:
            more += " (%d bytes that it sent did not arrive)" % missing
        return RdtError("the connection to %s is closed: %s%s" % (shown(self.address), self._reason(), more))

    def _check_open(self) -> None:
        if self._end is not None:
            raise self._lost()
        if self._leaving:
            raise RdtError("the connection to %s is closed: %s" % (shown(self.address), CLOSED_BY_THIS))

    def _send_frame(
        self,
        kind: int,
        *parts: Buffer,
        deadline: float = float("inf"),
        is_bulk: bool = False,
        backlog_max: int = BACKLOG_HIGH,
    ) -> None:
        """Queue a frame, once no more than `backlog_max` bytes wait, and of all connections no more than there may.

        `is_bulk`: see Connection.send_frame.
        """
        size = _size_of_frame(parts)
        with self._changed:
            while not self._put_frame(kind, *parts, is_bulk=is_bulk, backlog_max=backlog_max):
                left = deadline - time.monotonic()
                if left <= 0:
                    raise RdtError(self._no_room_in_time(backlog_max))
                self.transport._post(lambda: self._check_room(backlog_max, size))
                self._changed.wait(min(1.0, left))

    def _no_room_in_time(self, backlog_max: int) -> str:
        if self._waiting() > backlog_max:
            return "%s took nothing in time" % shown(self.address)
        return "no room in time for %s: too much waits for others" % shown(self.address)

    def _put_frame(self, kind: int, *parts: Buffer, is_bulk: bool = False, backlog_max: Optional[int] = None) -> bool:
        """Queue a frame, whether there is room or not; with `backlog_max`, only if there is."""
        size, transport = _size_of_frame(parts), self.transport
        with transport._gate:  # looked and taken at once: of many who were woken all would find room
            self._check_open()
            if backlog_max is not None and not (self._waiting() <= backlog_max and transport._has_room(size)):
                return False
            self._posted_size += size
            transport._posted_size += size
            transport._inbox.put(lambda: self._queue_frame(kind, parts, size, is_bulk))
        transport._wake_up()
        return True

    def _queue_frame(self, kind: int, parts: Tuple[Buffer, ...], size: int, is_bulk: bool) -> None:
        is_taken = False
        try:
            is_taken = self._made.send_frame(kind, *parts, is_bulk=is_bulk)
        finally:
            with self.transport._gate:
                self._posted_size -= size
                self.transport._posted_size -= size
                self._dropped_size += 0 if is_taken else size

    def _waiting(self) -> int:
        """Bytes on their way to the network thread, or with it and not delivered."""
        return self._posted_size + self._made.backlog

    def _check_room(self, backlog_max: int, size: int) -> None:
        if self._made.backlog > backlog_max or self._end is not None:
            return
        if self.transport._has_room(size):
            self._wake_senders()
        else:
            self.transport._wait_for_sum(self, size)

    def send(self, data: Buffer, timeout: Optional[float] = None) -> None:
        """Send one whole message, of up to 64 MiB; blocks while more than BACKLOG_HIGH bytes wait to be delivered.

        When it returns, the message is under way; `disconnect` and `close` tell if it was not delivered. RdtError when
        there was no room in time, or when the connection is or gets closed, by whichever side: then nothing of it
        will be received. WrongUse when it is no bytes, or too long.
        """
        message, deadline = _message_of(data), _deadline(timeout)
        if len(message) > MESSAGE_SIZE_MAX:
            raise WrongUse("a message of %d bytes is too long; %d fit" % (len(message), MESSAGE_SIZE_MAX))
        if len(message) <= FRAME_SIZE_MAX:
            self._send_frame(MESSAGE, message, deadline=deadline)
        else:
            with self._turn(self._sending_long, deadline, "another thread sends; no room"):
                number = frames.encode_number(next(self._long_messages) & 0xFFFFFFFF)
                self._send_long(memoryview(message), number, deadline)

    def _send_long(self, message: memoryview, number: bytes, deadline: float) -> None:
        """In parts, of which a receiver gets all or none."""
        try:
            for kind, part in frames.parts_of(message):
                self._send_frame(kind, number, part, deadline=deadline)
        except BaseException:
            with contextlib.suppress(RdtError):
                self._put_frame(frames.PART_DROPPED, number)
            raise

    def receive(self, timeout: Optional[float] = None) -> bytes:
        """The next whole message, never a part of one; an empty message is b"", the end of the connection is not.

        RdtError when none came in time, and at the end, whoever closed: first come the messages that had arrived
        before it, then the error, again and again. Where several threads receive, each message goes to one.
        """
        deadline = _deadline(timeout)
        with self._turn(self._receiving, deadline, "no message"):
            while True:
                message = self._joined(self._take(self._messages, deadline, "no message"))
                if message is not None:
                    return message

    def _joined(self, frame: Frame) -> Optional[bytes]:
        """The message that is whole with this frame, if one is."""
        if frame.kind == MESSAGE:
            return bytes(frame.body)
        try:
            return self._joining.take(frame)
        except frames.StreamViolation as violation:
            reason = str(violation)
            with contextlib.suppress(RdtError):
                self.transport._post(lambda: self._fail(core.CloseCode.LIMIT, reason))
        return None

    def _disconnect(self, timeout: Optional[float]) -> None:
        with self.transport._gate:
            self._leaving = self._leaving or self._end is None
            self.transport._inbox.put(lambda: self._made.shut_down(CLOSED_BY_OTHER))
        self.transport._wake_up()
        if not self._ended.wait(timeout):
            with contextlib.suppress(RdtError):
                self.transport._post(lambda: self._made.give_up("gave up", self.transport._clock()))
            self._ended.wait(CONFIRM_TIME)
        left = self._left_behind()
        if not left:
            return
        if self._end is None or self._end.reason == "gave up":
            self._is_end_told = True
            self.transport._untold.pop(self._made.local_id, None)
            raise RdtError("%s to %s within %g s" % (left, shown(self.address), timeout or 0))
        raise self._lost()

    # ---- files

    def send_file(
        self, path: Path, progress: Optional[Progress] = None, timeout: Optional[float] = None
    ) -> FileReceipt:
        """Send a file; returns only when the other side has verified and kept it. `progress(bytes done, size)`.

        RdtError when it cannot be read or changes meanwhile, when the other side does not take it (and why), when no
        receipt came in time, when the connection ends first, or when another thread is sending a file here. The other
        side is told, and the connection goes on. What `progress` raises ends it, too. WrongUse when it is no path.
        """
        name = _path(path, progress)
        began, deadline = time.monotonic(), _deadline(timeout)
        if not self._sending_file.acquire(blocking=False):
            raise RdtError("a file is being sent to %s already" % shown(self.address))
        transfer, is_offered = next(self._transfers), False
        try:
            while True:
                with SequentialReader(name) as reader:
                    is_offered = True
                    self._offer(transfer, reader, deadline)
                    self._send_content(transfer, reader, progress, deadline)
                    digest = reader.hexdigest()
                    self._send_frame(
                        frames.FILE_END, frames.encode_number(transfer), bytes.fromhex(digest), deadline=deadline
                    )
                    if self._is_kept(transfer, digest, deadline):
                        return FileReceipt(reader.path, reader.size, digest, time.monotonic() - began)
                self.transport._post(self._made.check_bulk)
        except LibraryError as error:
            if is_offered:  # else the other side knows of nothing
                self._tell_refused(transfer, str(error))
            raise RdtError("cannot send to %s: %s" % (shown(self.address), error)) from error
        except BaseException:
            self._tell_refused(transfer, "the sender gave up")
            raise
        finally:
            self._sending_file.release()

    def _offer(self, transfer: int, reader: SequentialReader, deadline: float) -> None:
        self._send_frame(frames.FILE, frames.encode_offer(transfer, reader.size, reader.name), deadline=deadline)

    def _send_content(
        self, transfer: int, reader: SequentialReader, progress: Optional[Progress], deadline: float
    ) -> None:
        done, number = 0, frames.encode_number(transfer)
        while True:
            data = reader.read(SPAN_SIZE)
            if not data:
                return
            self._send_frame(frames.FILE_DATA, number, data, deadline=deadline, is_bulk=True)
            self._check_refused(transfer)
            done += len(data)
            if progress is not None:
                progress(done, reader.size)

    def _check_refused(self, transfer: int) -> None:
        while len(self._receipts):
            self._read_receipt(self._take(self._receipts, 0.0, ""), transfer)

    def _read_receipt(self, frame: Frame, transfer: int) -> Optional[str]:
        """The digest that the receiver reports for this transfer, "" for damage; RdtError when it refused."""
        if frames.number_of(frame.body) != transfer:
            return None  # about an earlier file
        said = bytes(frame.body[_TRANSFER.size :])
        if frame.kind == FILE_REFUSED:
            raise RdtError(
                "%s did not take the file: %s" % (shown(self.address), said.decode("utf-8", "replace")[:300])
            )
        return said.hex() if frame.kind == FILE_RECEIPT else ""

    def _is_kept(self, transfer: int, digest: str, deadline: float) -> bool:
        """Wait for the receipt; False when the file arrived damaged and is to be sent again, as it may be once."""
        while True:
            said = self._read_receipt(self._take(self._receipts, deadline, "no receipt"), transfer)
            if said == digest:
                return True
            if said == "" and not self._made.flight.checks_bulk:
                return False
            if said is not None:
                raise RdtError("%s confirmed another content than was sent" % shown(self.address))

    def accept_file(
        self, folder: Path, progress: Optional[Progress] = None, timeout: Optional[float] = None
    ) -> FileReceipt:
        """Take the next file that the other side sends, verify it and keep it in the folder under a safe, free name.

        RdtError when none came whole in time, when it cannot be kept, when the sender gives it up, or when the
        connection ends first: then nothing is left of it, and the sender is told. What `progress` raises ends it, too.
        A receipt is true even where the sender could not be told any more. Where several threads accept, each takes
        a whole file in its turn. WrongUse when the folder is no path.
        """
        place, deadline, damaged = _path(folder, progress), _deadline(timeout), -1
        with self._turn(self._accepting_file, deadline, "no file"):
            while True:
                transfer, size, name = self._next_offer(deadline)
                receipt = self._accept_offer(transfer, size, name, place, progress, deadline, transfer != damaged)
                if receipt is not None:
                    return receipt
                damaged = transfer

    def _accept_offer(
        self,
        transfer: int,
        size: int,
        name: str,
        folder: str,
        progress: Optional[Progress],
        deadline: float,
        may_repeat: bool,
    ) -> Optional[FileReceipt]:
        """Take the file that was offered; None when it came damaged and was asked for once more."""
        began = time.monotonic()
        try:
            with SequentialWriter(folder, name, size) as writer:
                if not self._receive_content(transfer, size, writer, progress, deadline):
                    if not may_repeat:
                        raise RdtError("the file from %s arrived damaged" % shown(self.address))
                    self._put_frame(FILE_DAMAGED, _TRANSFER.pack(transfer))
                    return None
                path = writer.finish()
                digest = writer.hexdigest()
        except LibraryError as error:
            self._refuse(transfer, str(error))
            raise RdtError("cannot keep the file from %s: %s" % (shown(self.address), error)) from error
        except BaseException:
            self._refuse(transfer, "the receiver gave up")
            raise
        with contextlib.suppress(RdtError):  # it is here all the same
            self._put_frame(frames.FILE_RECEIPT, frames.encode_number(transfer), bytes.fromhex(digest))
        return FileReceipt(path, size, digest, time.monotonic() - began)

    def _refuse(self, transfer: int, reason: str) -> None:
        with contextlib.suppress(RdtError):
            self.transport._post(lambda: self._drop_refused(transfer))
        self._tell_refused(transfer, reason)

    def _tell_refused(self, transfer: int, reason: str) -> None:
        """Say, without waiting for room, that nothing will come of this file."""
        with contextlib.suppress(RdtError):
            self._put_frame(frames.FILE_REFUSED, frames.encode_number(transfer), frames.encode_reason(reason))

    def _next_offer(self, deadline: float) -> Tuple[int, int, str]:
        while True:
            frame = self._take(self._files, deadline, "no file")
            offer = frames.decode_offer(frame.body) if frame.kind == frames.FILE else None
            if offer is None:
                continue  # the rest of a file that was refused
            if offer.name is not None:
                return offer.transfer, offer.size, offer.name
            self._refuse(offer.transfer, "its name is not UTF-8")

    def _receive_content(
        self, transfer: int, size: int, writer: SequentialWriter, progress: Optional[Progress], deadline: float
    ) -> bool:
        """Write the file as it comes; is it the one that was sent?"""
        done = 0
        while True:
            frame = self._wait_for(self._files, deadline, "no more of the file")
            try:
                data = self._content_of(frame, transfer)
                if data is None:
                    continue
                if frame.kind == frames.FILE_END:
                    return bytes(data).hex() == writer.hexdigest()
                writer.write(data)
                done += len(data)
            finally:
                self._consume(frame)  # not before it is on the disk: a slow disk slows the sender down
            if progress is not None:
                progress(done, size)

    def _content_of(self, frame: Frame, transfer: int) -> Optional[memoryview]:
        """What a frame brings of this transfer; None: it is of another. RdtError when the sender gave up."""
        if frames.number_of(frame.body) != transfer:
            return None
        data = memoryview(frame.body)[_TRANSFER.size :]
        if frame.kind == FILE_REFUSED:
            raise RdtError("%s gave up: %s" % (shown(self.address), bytes(data).decode("utf-8", "replace")[:300]))
        return data


def _left(deadline: float) -> Optional[float]:
    return None if deadline == float("inf") else max(0.0, deadline - time.monotonic())


class _Deadline(float):
    """The instant at which a verb's time is up, and its timeout, for the one who is told of it."""

    timeout = 0.0


def _deadline(timeout: Optional[float]) -> float:
    seconds = _seconds(timeout)
    if seconds is None:
        return float("inf")
    deadline = _Deadline(time.monotonic() + seconds)
    deadline.timeout = seconds
    return deadline


def _path(path: Path, progress: Optional[Progress]) -> str:
    """A path as text, whatever it came as; and `progress` is what can be called."""
    if progress is not None and not callable(progress):
        raise WrongUse("%r cannot be called as progress(bytes done, size)" % (progress,))
    try:
        return path_text(path)
    except (TypeError, ValueError) as error:
        raise WrongUse("%r is no path: %s" % (path, error)) from None


# ---- for the roles ------------------------------------------------------------------------------------------------


class Links:
    """The transport as the roles' network: verbs that return at once, events handed to `emit` on the network thread.

    All verbs are called from the one node thread. `emit(event name, *arguments)` must only pass the event on; after
    the node has handled an "on_message" it calls `consumed`, which lets the other side send more.
    """

    def __init__(self, transport: Transport, emit: Callable[..., None]) -> None:
        self.address = transport.address
        self._transport = transport
        self._table = LinkTable(transport._endpoint, emit)
        self._numbers = itertools.count(1, 2)
        self._posted = _Posted()
        transport._endpoint.held_before = lambda: self._posted.total
        transport._on_event = self._table.on_event
        self._door = transport._known_port
        self._door.emit = emit

    def _post(self, action: Callable[[], Any]) -> None:
        with contextlib.suppress(RdtError):  # closed: the process is about to end
            self._transport._post(action)

    def connect(self, address: Address, tries: float = math.inf) -> int:
        link = next(self._numbers)
        self._post(lambda: self._table.connect(link, address, self._transport._clock(), tries))
        return link

    def send(self, link: int, *parts: Buffer, is_bulk: bool = False) -> None:
        size = sum(map(len, parts))
        self._posted.add(link, size)
        self._post(lambda: self._take(link, parts, size, is_bulk))

    def check_bulk(self, link: int) -> None:
        self._post(lambda: self._table.check_bulk(link))

    def _take(self, link: int, parts: Tuple[Buffer, ...], size: int, is_bulk: bool) -> None:
        try:
            self._with(link, lambda table: table.send(link, *parts, is_bulk=is_bulk))
        finally:
            self._posted.add(link, -size)

    def consumed(self, link: int, size: int) -> None:
        self._post(lambda: self._with(link, lambda table: table.consume(link, size)))

    def backlog(self, link: int) -> int:
        """Bytes sent on a link and not yet delivered, those on their way to the network thread included."""
        return self._posted.of(link) + self._table.backlog(link)

    def figures(self, link: int) -> Optional[PathFigures]:
        return self._table.figures(link)

    def disconnect(self, link: int, reason: str) -> None:
        self._post(lambda: self._with(link, lambda table: table.disconnect(link, reason)))

    def _with(self, link: int, action: Callable[[LinkTable], None]) -> None:
        """Do it with the table that has this link: the door's has the negative ones, while it is open."""
        table = self._table if link > 0 else self._door.table
        if table is not None:
            action(table)

    def hold_door(self, port: int) -> None:
        """Have that port, too, as soon as it is free; 0: no more."""
        self._post(lambda: self._door.hold(port, self._transport._clock()))

    def has_door(self) -> bool:
        """From any thread."""
        return self._door.table is not None

    def send_by_door(self, address: Address, message: bytes) -> None:
        self._post(lambda: self._door.send_lone(address, message))

    def send_lone(self, address: Address, message: bytes) -> None:
        self._post(lambda: self._transport._endpoint.send_lone(address, message))

    def broadcast_lone(self, port: int, message: bytes) -> None:
        """To the broadcast address of every interface; nothing when the socket is bound to loopback."""
        own = self.address[0]
        for ip, broadcast in interfaces():
            if not ip.startswith("127.") and own in ("0.0.0.0", ip):
                self.send_lone((broadcast, port), message)
