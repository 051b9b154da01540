"""One `connect` of a caller: the addresses of a machine are called in turn until one answers (RFC 8305 §5).

The next one is called OTHER_INTERVAL after the one before, or as soon as that has failed; those that were called wait
on, and the first that answers has it. The network thread's, but for `answer`, on which the caller waits.
"""

from __future__ import annotations

import math
from concurrent.futures import Future
from typing import Any, List, Sequence, Tuple

from protocol.fields import Address
from protocol.transport.connection import Connection
from sockets.udp import RdtError

OTHER_INTERVAL = 0.25  # seconds from one address to the next (RFC 8305 §8)
ADDRESSES_MAX = 5  # of one machine that are called


class Dial:
    """Whom to call, who was called, and what came of it; `whom` is how its caller named the machine."""

    def __init__(self, addresses: Sequence[Address], timeout: float, now: float, whom: str) -> None:
        self.answer: Future[Any] = Future()
        self.called: List[Connection] = []  # that may answer yet
        self.next_at = now  # when the next one is called; inf: there is none
        self._left = list(addresses[:ADDRESSES_MAX])
        self._interval = min(OTHER_INTERVAL, timeout / len(self._left))  # all have their turn, however short the time
        self._deadline, self._whom = now + timeout, whom
        self._troubles = {ip: "" for ip, _ in self._left}  # why each failed, in the order in which they are called

    def has_more(self) -> bool:
        """Are there addresses to call, and somebody who waits for that?"""
        return bool(self._left) and not self.answer.done()

    def next_call(self, now: float) -> Tuple[Address, float, float]:
        """The next address, now, and the seconds that it has."""
        address = self._left.pop(0)
        self.next_at = now + self._interval if self._left else math.inf
        return address, now, max(0.0, self._deadline - now)

    def take(self, found: Any) -> bool:
        """Somebody answered; False when the caller waits no more."""
        is_awaited = self._is_awaited()
        if is_awaited:
            self.answer.set_result(found)
        return is_awaited

    def on_failed(self, connection: Connection, reason: str, now: float) -> None:
        """Nobody answered there in time, or it was refused; the caller is told when it was the last."""
        self.called.remove(connection)
        self._troubles[connection.address[0]] = reason
        if self._left:
            self.next_at = now
        elif not self.called:
            self.fail(RdtError(f"cannot connect to {self._whom}{self._trouble()}"))

    def fail(self, error: RdtError) -> None:
        """There will be no answer."""
        if self._is_awaited():
            self.answer.set_exception(error)

    def _is_awaited(self) -> bool:
        return not self.answer.done() and self.answer.set_running_or_notify_cancel()

    def _trouble(self) -> str:
        """Why, of one address, of several for the same reason, or of each for its own."""
        reasons = set(self._troubles.values())
        if len(reasons) > 1:
            return f": {'; '.join(f'{ip}: {reason}' for ip, reason in self._troubles.items())}"
        tried = f" ({', '.join(self._troubles)})" if len(self._troubles) > 1 else ""
        return f"{tried}: {reasons.pop()}"
