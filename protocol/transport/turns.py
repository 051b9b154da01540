"""Whose turn it is: which connections may have something to send now, and when each of the others wants to be called.

Every connection that lives is `ready` or has one of the `deadlines`, whatever exception came between: none is forgotten
in silence, and none is asked at once and for ever. Whoever waits to send (for the pacer, as a rule) has one of the
`pauses`, too: at its end it has its turn, and no timer is looked at for that.
"""

from __future__ import annotations

import math
from typing import Dict, Iterator

from protocol.transport.connection import Connection, State
from protocol.transport.deadlines import Deadlines
from protocol.transport.flight import Batch

TROUBLE_PAUSE = 0.1  # seconds that a connection rests after an exception in its code


class Turns:
    """The connections of one endpoint, in the order in which they are asked."""

    def __init__(self) -> None:
        self.ready: Dict[Connection, None] = {}  # in turn: those that may have something to send
        self.deadlines: Deadlines[Connection] = Deadlines()
        self.pauses: Deadlines[Connection] = Deadlines()

    def touch(self, connection: Connection) -> None:
        """It lives, and may have something to send, or another deadline."""
        self.ready[connection] = None

    def drop(self, connection: Connection) -> None:
        """It is over."""
        self.ready.pop(connection, None)
        self.deadlines.drop(connection)
        self.pauses.drop(connection)

    def next_deadline(self) -> float:
        """When `call_due` or `batches` wants to be called; it may come early, for nothing."""
        return -math.inf if self.ready else min(self.deadlines.next(), self.pauses.next())

    def call_due(self, now: float) -> None:
        """Call those whose time has come; they may have something to send then."""
        for connection in self.pauses.due(now):
            self.ready[connection] = None
        for connection in self.deadlines.due(now):
            try:
                deadline = connection.next_deadline()
                if deadline > now:  # as a rule: what it waited for when the alarm was set has come
                    self.deadlines.set(connection, deadline)
                    continue
                connection.on_timeout(now)
            except Exception:
                self._rest(connection, now)
                raise
            if connection.state is not State.CLOSED:
                self.ready[connection] = None

    def batches(self, now: float) -> Iterator[Batch]:
        """A batch of each in turn, until none has anything to send. The caller may stop early and come again."""
        while self.ready:
            connection = next(iter(self.ready))
            del self.ready[connection]  # first: whatever `next_batch` does may put it in again
            self.pauses.drop(connection)
            try:
                batch = connection.next_batch(now)
                if batch is not None and connection.may_have_more(now):
                    self.ready[connection] = None
                else:
                    self.deadlines.set(connection, connection.next_deadline())
                    self.pauses.set(connection, connection.next_turn())
            except Exception:
                self._rest(connection, now)
                raise
            if batch is not None:
                yield batch

    def _rest(self, connection: Connection, now: float) -> None:
        """A bug of ours stopped it half way: it goes on a little later, by its alarm, and not at once and for ever."""
        self.ready.pop(connection, None)
        if connection.state is not State.CLOSED:
            self.deadlines.set(connection, now + TROUBLE_PAUSE)
