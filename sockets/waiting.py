"""What came and waits for a caller: the network thread puts it in, any thread takes it."""

from __future__ import annotations

import collections
import queue
import threading
from typing import Any, Callable, Deque, List, Optional

from protocol.latest import Latest
from protocol.transport.connection import Connection
from protocol.transport.frames import (
    FILE_ANSWER_KINDS,
    FILE_CONTENT_KINDS,
    FILE_DATA,
    FILE_END,
    FILE_REFUSED,
    MESSAGE_KINDS,
    Frame,
    number_of,
)

REFUSED_MAX = 1024  # files not taken, of which more may still come


class Over(Exception):
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
        """It came: all who wait look whether it is for them."""
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
        """The next thing; queue.Empty when none came in time, Over when none will."""
        return self.take_several(1, timeout)[0]

    def take_several(self, count: int, timeout: Optional[float] = None) -> List[Any]:
        """`count` things once there are so many (0: all that are there); else none is taken, and as above."""
        with self._changed:
            self._changed.wait_for(lambda: len(self) >= count or self._is_over, timeout)
            if len(self) < count:
                raise Over if self._is_over else queue.Empty
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


class Arrivals:
    """The frames of one connection that wait for callers, by the verb that takes them."""

    def __init__(self, core: Connection, changed: threading.Condition) -> None:
        self._core = core
        self.messages = Waiting(changed)
        self.files = Waiting(changed)  # FILE, FILE_DATA, FILE_END, and FILE_REFUSED by the sender
        self.receipts = Waiting(changed)  # FILE_RECEIPT, FILE_DAMAGED, and FILE_REFUSED by the receiver
        self._refused: Latest[int, None] = Latest(REFUSED_MAX)  # transfers not taken here, which may still go on

    # ---- on the network thread

    def put(self, frame: Frame) -> None:
        """A frame came: somebody may wait for it."""
        if frame.kind in MESSAGE_KINDS:
            self.messages.put(frame)
        elif self._is_of_refused_file(frame):
            self._core.consume(len(frame.body))
            if frame.kind == FILE_REFUSED:  # the last thing of a transfer
                del self._refused[number_of(frame.body)]
        elif frame.kind in FILE_CONTENT_KINDS:
            self.files.put(frame)
        elif frame.kind in FILE_ANSWER_KINDS and number_of(frame.body) >= 0:
            # Who connected counts its transfers evenly, the other oddly: so both may send files, and know whose it is.
            is_ours = number_of(frame.body) % 2 == (0 if self._core.is_client else 1)
            (self.receipts if is_ours else self.files).put(frame)
        else:
            self._core.consume(len(frame.body))  # a kind of a later version

    def refuse(self, transfer: int) -> None:
        """What still comes of this file is read and forgotten, so that it does not hold up what follows it."""
        self._refused.put(transfer, None)
        for frame in self.files.remove(self._is_of_refused_file):
            self._core.consume(len(frame.body))

    def _is_of_refused_file(self, frame: Frame) -> bool:
        of_a_file = frame.kind in (FILE_DATA, FILE_END, FILE_REFUSED)
        return of_a_file and number_of(frame.body) in self._refused

    def finish(self) -> None:
        """Nothing more will come."""
        for waiting in (self.messages, self.files, self.receipts):
            waiting.finish()
