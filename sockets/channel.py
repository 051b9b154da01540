"""A connection between two threads: the network thread, which has it, and the callers of verbs, who may wait for it.

A caller's frame goes into the thread's inbox if there is room, and is queued on the connection there; what arrives
waits in `Arrivals` until a caller takes it. What is on its way is counted, so that the end can tell what was not
delivered.
"""

from __future__ import annotations

import contextlib
import math
import queue
import threading
import time
from typing import Any, Dict, Iterator, List, Optional, Tuple

from protocol.addresses import shown
from protocol.fields import Buffer
from protocol.transport.connection import BacklogDrained, Connection, ConnectionLost, FrameReceived
from protocol.transport.frames import FRAME_HEADER_SIZE, Frame
from sockets.arguments import Deadline, left_of
from sockets.thread import CLOSED_BY_THIS, CONFIRM_TIME, NetworkThread
from sockets.udp import RdtError
from sockets.waiting import Arrivals, Over, Waiting

BACKLOG_HIGH = 4 << 20  # bytes at which send blocks its caller
UNTOLD_MAX = 100  # ends with something undelivered that close will name; the others it counts
LOOK_AGAIN = 1.0  # seconds after which a sender looks for room itself
CLOSED_BY_OTHER = "closed by the other side"


class Room:
    """Room for what waits to be delivered, on all connections together, whatever each has of its own."""

    def __init__(self, network: NetworkThread) -> None:
        self._network = network
        self._posted_size = 0  # bytes on their way to the network thread; changed under the gate
        self._crowded: Dict[Channel, int] = {}  # who waits for room -> bytes; the network thread's

    def has(self, size: int) -> bool:
        """Is there room for so much more?"""
        backlogs = self._network.endpoint.backlogs
        return backlogs.memory.total + self._posted_size + size <= backlogs.size_max

    def add_posted(self, change: int) -> None:
        """So many bytes are on their way, or (negative) have arrived; for who holds the gate."""
        self._posted_size += change

    # ---- on the network thread

    def held_before(self) -> int:
        """What is on its way to the connections, and the most that somebody waits to hand over."""
        return self._posted_size + max(self._crowded.values(), default=0)

    def wait(self, channel: Channel, size: int) -> None:
        """It is woken when there is room; who takes nothing of what waits for it is not waited for."""
        self._crowded[channel] = size
        self._network.endpoint.look_for_room(self._network.clock())

    def wake(self) -> None:
        """Let those who wait look again, if the largest has room."""
        if self._crowded and self.has(max(self._crowded.values())):
            woken, self._crowded = self._crowded, {}
            for channel in woken:
                channel.wake_senders()


class Untold:
    """What was not delivered at the end of connections, until some verb has said so: else `close` does."""

    def __init__(self) -> None:
        self._said: Dict[bytes, str] = {}  # by the connection's id
        self._more = 0

    def remember(self, connection_id: bytes, said: str) -> None:
        """This was not delivered; of too many it is only counted."""
        if len(self._said) < UNTOLD_MAX:
            self._said[connection_id] = said
        else:
            self._more += 1

    def on_told(self, connection_id: bytes) -> None:
        """Its caller knows."""
        self._said.pop(connection_id, None)

    def sentences(self) -> List[str]:
        """What is to be said of it all, for a person."""
        more = [f"and more to {self._more} others"] if self._more else []
        return [*self._said.values(), *more]


class Channel:
    """One connection, as callers' threads use it: frames out and in, waiting for either, and its end."""

    def __init__(self, network: NetworkThread, room: Room, untold: Untold, core: Connection) -> None:
        self.address = core.address
        self.core = core  # the network thread's; its sizes may be read from any
        self._network, self._room, self._untold = network, room, untold
        self._changed = threading.Condition()  # something came, there is room, or it is over
        self.arrivals = Arrivals(core, self._changed)
        self.checks_bulk = False  # a caller asked for it
        self.ended = threading.Event()  # and everything that was handed over before is counted
        self._end: Optional[ConnectionLost] = None
        self._is_end_told = False  # some verb has said how much was not delivered
        self._is_leaving = False  # this side closes it
        self._posted_size = 0  # bytes on their way to the network thread
        self._consumed_size = 0  # bytes that were taken here, and not yet there
        self._dropped_size = 0  # bytes that came there behind the end

    # ---- on the network thread

    def on_event(self, event: Any) -> None:
        """The connection has this to tell."""
        if isinstance(event, FrameReceived):
            self.arrivals.put(Frame(event.kind, event.body))
        elif isinstance(event, BacklogDrained):
            self.wake_senders()
        elif isinstance(event, ConnectionLost):
            with self._network.inbox.gate:
                self._end = event
            self._network.inbox.put(self._settle)  # behind what callers handed over before

    def _settle(self) -> None:
        """The end is known, and what it cost: whoever waits comes back."""
        left = self._left_behind()
        if left and (self._network.is_closing or not self._is_end_told):
            self._untold.remember(self.core.local_id, f"{left} to {shown(self.address)} ({self._reason()})")
        self.arrivals.finish()
        self.ended.set()
        self.wake_senders()

    def wake_senders(self) -> None:
        """There may be room now."""
        with self._changed:
            self._changed.notify_all()

    def _queue_frame(self, kind: int, parts: Tuple[Buffer, ...], size: int, is_bulk: bool) -> None:
        is_taken = False
        try:
            is_taken = self.core.send_frame(kind, *parts, is_bulk=is_bulk)
        finally:
            with self._network.inbox.gate:
                self._add_posted(-size)
                self._dropped_size += 0 if is_taken else size

    def _consume(self, body_size: int, size: int) -> None:
        self.core.consume(body_size)
        with self._network.inbox.gate:
            self._consumed_size -= size

    def _check_room(self, backlog_max: int, size: int) -> None:
        if self.core.backlog > backlog_max or self._end is not None:
            return
        if self._room.has(size):
            self.wake_senders()
        else:
            self._room.wait(self, size)

    # ---- on a caller's thread: frames out

    def send_frame(
        self,
        kind: int,
        *parts: Buffer,
        deadline: float = math.inf,
        is_bulk: bool = False,
        backlog_max: int = BACKLOG_HIGH,
    ) -> None:
        """Queue a frame, once no more than `backlog_max` bytes wait, and of all connections no more than there may.

        RdtError when there was no room in time, or the connection is closed. `is_bulk`: see Connection.send_frame.
        """
        size = _size_of_frame(parts)
        with self._changed:
            while not self.put_frame(kind, *parts, is_bulk=is_bulk, backlog_max=backlog_max):
                left = deadline - time.monotonic()
                if left <= 0:
                    raise RdtError(self._no_room_in_time(backlog_max, size))
                self.post(lambda: self._check_room(backlog_max, size))
                self._changed.wait(min(LOOK_AGAIN, left))

    def _no_room_in_time(self, backlog_max: int, size: int) -> str:
        # It may have gone on just now, between the look that found no room and this one: then no other is to blame.
        if self.waiting_size() > backlog_max or self._room.has(size):
            return f"{shown(self.address)} took nothing in time"
        return f"no room in time for {shown(self.address)}: too much waits for others"

    def put_frame(self, kind: int, *parts: Buffer, is_bulk: bool = False, backlog_max: Optional[int] = None) -> bool:
        """Queue a frame, whether there is room or not; with `backlog_max`, only if there is. RdtError when closed."""
        size, inbox = _size_of_frame(parts), self._network.inbox
        with inbox.gate:  # looked and taken at once: of many who were woken all would find room
            self.check_open()
            if backlog_max is not None and not (self.waiting_size() <= backlog_max and self._room.has(size)):
                return False
            self._add_posted(size)
            inbox.put(lambda: self._queue_frame(kind, parts, size, is_bulk))
        inbox.wake_up()
        return True

    def _add_posted(self, change: int) -> None:
        self._posted_size += change
        self._room.add_posted(change)

    def waiting_size(self) -> int:
        """Bytes on their way to the network thread, or with it and not delivered."""
        return self._posted_size + self.core.backlog

    # ---- on a caller's thread: frames in

    def take(self, waiting: Waiting, deadline: float, what: str) -> Frame:
        """The next frame that waits there, which makes room for more; RdtError when none came in time, or none will."""
        frame = self.wait_for(waiting, deadline, what)
        self.consume(frame)
        return frame

    def wait_for(self, waiting: Waiting, deadline: float, what: str) -> Frame:
        """The same, for who makes room later, by `consume`."""
        try:
            return waiting.take(left_of(deadline))  # type: ignore[no-any-return]
        except queue.Empty:
            raise self._late(what, deadline) from None
        except Over:
            raise self._lost() from None

    def consume(self, frame: Frame) -> None:
        """The other side may send as much more; the network thread is woken only if that is to be said now."""
        body_size, size, inbox = len(frame.body), _size_of_frame((frame.body,)), self._network.inbox
        with inbox.gate:
            if inbox.is_over:
                return
            self._consumed_size += size
            inbox.put(lambda: self._consume(body_size, size))
            is_news = self.core.arrival.is_news(self._consumed_size)
        if is_news:
            inbox.wake_up()

    @contextlib.contextmanager
    def turn(self, lock: threading.Lock, deadline: float, what: str) -> Iterator[None]:
        """Have this lock, when those who asked before are done; RdtError when that is not in time."""
        left = left_of(deadline)
        if not lock.acquire(timeout=-1 if left is None else left):
            raise self._late(what, deadline)
        try:
            yield
        finally:
            lock.release()

    def _late(self, what: str, deadline: float) -> RdtError:
        timeout = deadline.timeout if isinstance(deadline, Deadline) else 0.0
        return RdtError(f"{what} from {shown(self.address)} within {timeout:g} s")

    # ---- on a caller's thread: all else, and the end

    def post(self, action: Any) -> None:
        """Run this on the network thread, soon; RdtError when that has ended."""
        self._network.inbox.post(action)

    def check_bulk(self) -> None:
        """Let checksums cover bulk, too, from now on: what arrived once was damaged. RdtError when it is closed."""
        self.checks_bulk = True
        self.post(self._check_bulk)

    def _check_bulk(self) -> None:
        self.core.check_bulk()

    def fail(self, code: int, reason: str) -> None:
        """End it at once: the other side broke the rules."""
        with contextlib.suppress(RdtError):
            self.post(lambda: self.core.fail(code, reason, self._network.clock()))

    def is_open(self) -> bool:
        """Has neither side closed it?"""
        return self._end is None and not self._is_leaving

    def check_open(self) -> None:
        """RdtError when it is closed, by whichever side."""
        if self._end is not None:
            raise self._lost()
        if self._is_leaving:
            raise RdtError(f"the connection to {shown(self.address)} is closed: {CLOSED_BY_THIS}")

    def leave(self) -> None:
        """This side sends no more; for who holds the gate."""
        self._is_leaving = self._is_leaving or self._end is None

    def disconnect(self, timeout: Optional[float]) -> None:
        """Close it once everything sent is delivered, and wait for that; RdtError says how much was not."""
        inbox = self._network.inbox
        with inbox.gate:
            self.leave()
            inbox.put(lambda: self.core.shut_down(CLOSED_BY_OTHER))
        inbox.wake_up()
        if not self.ended.wait(timeout):
            with contextlib.suppress(RdtError):
                self.post(lambda: self.core.give_up("gave up", self._network.clock()))
            self.ended.wait(CONFIRM_TIME)
        left = self._left_behind()
        if not left:
            return
        if self._end is None or self._end.reason == "gave up":
            self._is_end_told = True
            self._untold.on_told(self.core.local_id)
            raise RdtError(f"{left} to {shown(self.address)} within {timeout or 0:g} s")
        raise self._lost()

    def _lost(self) -> RdtError:
        left, missing = self._left_behind(), self.core.closing.missing
        if left:
            self._is_end_told = True
            if not self._network.is_closing:  # else close is asked, and tells it, too
                self._untold.on_told(self.core.local_id)
        more = f" ({left})" if left else ""
        if missing and not self._is_leaving:
            more += f" ({missing} bytes that it sent did not arrive)"
        return RdtError(f"the connection to {shown(self.address)} is closed: {self._reason()}{more}")

    def _reason(self) -> str:
        reason = (self._end.reason if self._end is not None else "") or "closed"
        return CLOSED_BY_THIS if self.core.closing.is_begun_here and reason in (CLOSED_BY_OTHER, "closed") else reason

    def _left_behind(self) -> str:
        """What is not delivered, now that nothing more will be; "" for nothing."""
        closing = self.core.closing
        count = closing.undelivered + self._dropped_size + self._posted_size
        is_sure = closing.is_undelivered_sure or count > closing.undelivered
        return f"{count} bytes were {'' if is_sure else 'perhaps '}not delivered" if count else ""


def _size_of_frame(parts: Tuple[Buffer, ...]) -> int:
    return FRAME_HEADER_SIZE + sum(len(part) for part in parts)
