"""Room for what waits to be delivered, on all connections of an endpoint together.

Each connection has a bound of its own (SEND_BACKLOG_MAX); a thousand of them together would still fill the machine. So
all share one room. When it is full, somebody who holds much of it and takes nothing is closed, for the others' sake.
"""

from __future__ import annotations

import math
from typing import Callable, Collection, Counter, List

from protocol.fairness import FairHosts
from protocol.transport.admission import person_of
from protocol.transport.connection import Connection
from protocol.transport.packets import CloseCode
from protocol.transport.sending import HeldMemory

HELD_MAX = 256 << 20  # bytes that wait to be delivered to all remotes together, with what they cost; of these at most
HELD_SPARE = 1 / 2  # ... as much more while everybody takes what is sent to it
TOOK_NOTHING_TIME = 1.0  # seconds, after which a remote may be closed for the room that waits for it
ROOM_INTERVAL = 0.1  # seconds between two looks through all connections, while there is spare room


class Backlogs:
    """What waits on all these connections, in bytes, and who goes when it is too much."""

    def __init__(self, connections: Collection[Connection], stats: Counter[str]) -> None:
        """`connections`: all there are at any time."""
        self.memory = HeldMemory()
        self.size_max = HELD_MAX
        self._before: Callable[[], int] = lambda: 0
        self._connections = connections
        self._stats = stats
        self._look_at = -math.inf  # when to look for room again

    def bound(self, size_max: int) -> None:
        """No more bytes than that."""
        self.size_max = size_max

    def count_before(self, before: Callable[[], int]) -> None:
        """Count, too, what this says is on its way to the connections."""
        self._before = before

    def size(self) -> int:
        """Bytes of memory that wait to be delivered to all remotes."""
        return self.memory.total + self._before()

    def keep_within(self, now: float) -> None:
        """Too much waits to be delivered: close those that hold most of it and have taken nothing for longest."""
        while self.size() > self.size_max:
            has_spare = self.size() <= (1 + HELD_SPARE) * self.size_max
            if has_spare and now < self._look_at:
                return
            waiting = [each for each in self._connections if each.sending.cost]
            stalled = [each for each in waiting if each.taking_at <= now - TOOK_NOTHING_TIME]
            if not waiting or (has_spare and not stalled):
                self._look_at = now + ROOM_INTERVAL
                return
            self._close_one(stalled or waiting, now)

    def _close_one(self, waiting: List[Connection], now: float) -> None:
        """Of the connections of all who hold an equal share or more, the one that has taken nothing for longest."""
        shares = FairHosts(self.size_max)
        for each in waiting:
            shares.take(person_of(each.address), each.sending.cost)
        greedy = [each for each in waiting if shares.holds_its_share(person_of(each.address))]
        longest = min(greedy, key=lambda each: each.taking_at)
        self._stats["closed: took nothing while others needed the room"] += 1
        waited, megabytes = now - longest.taking_at, math.ceil(longest.backlog / 1e6)
        reason = f"took nothing for {waited:.0f} s of {megabytes} MB, and room is needed"
        longest.fail(CloseCode.LIMIT, reason, now)
