"""Doubt: a supernode that slept does not know whether somebody took over meanwhile, and holds its tongue until it does.

It wakes at least each TICK; if later than that by more than a moment, its process or its machine stood still.
Then nobody else was silent, and those who would have taken over are asked. What members say meanwhile is kept, and
handled in order when the doubt is over; when there is no more room, who has most of it says its last again.

Pure: `now` is monotonic seconds.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Any, Deque, Hashable, List, Set, Tuple

from protocol import messages
from protocol.fairness import FairShares
from protocol.lateness import SLEPT_AFTER
from protocol.membership.queries import Prober
from protocol.messages import NOWHERE
from protocol.ruling.alarm import TICK
from protocol.ruling.line import Line
from protocol.ruling.register import Register

DOUBT_TIME = 3.0  # seconds to find out whether somebody took over meanwhile
DOUBT_QUERY_INTERVAL = 0.5  # seconds between two rounds of questions: an answer may be lost
DOUBT_APART = 1.0  # seconds, at a place that has not answered lately (protocol/hearsay.py)
SUCCESSORS_ASKED = 3  # in the order in which they take over: of whoever did, these know first
HELD_MAX = 10_000  # messages kept while in doubt, and files that they announce: 1 KB each, and 12 MB at worst

Held = Tuple[Line, Any]  # a member, and what it said


def cost_held(message: Any) -> int:
    """Of these that are kept: one, and one more for each file that it tells of."""
    return 1 + len(getattr(message, "entries", ()))


class Doubt:
    """Whether there is one, whom it is asked of, and what is held until it is over."""

    def __init__(self, register: Register, prober: Prober, now: float) -> None:
        self._register = register
        self._prober = prober
        self._awake_at = now  # the last event of any kind
        self._until = -math.inf
        self._asked: Set[bytes] = set()  # who has not answered yet
        self._next_query = math.inf
        self._held: Deque[Held] = deque()
        self._shares = FairShares(HELD_MAX)  # by node id

    # ---- sleep

    def is_on(self, now: float) -> bool:
        """Is it not known whether this node still rules?"""
        return now < self._until

    def has_slept(self, now: float) -> bool:
        """Something happens; are we late for it by more than a moment?"""
        late, self._awake_at = now - self._awake_at - TICK, now
        return late > SLEPT_AFTER

    def begin(self, now: float) -> None:
        """Somebody may have taken over, and nobody was silent."""
        self._register.forgive_silence(now)
        self._ask(now)
        if self._asked:
            self._until = now + DOUBT_TIME

    def on_timer(self, now: float) -> None:
        """Ask those again who have not answered."""
        if now >= self._next_query:
            self._ask(now)

    def next_deadline(self) -> float:
        """When it is over, or to be asked again; never, when there is none."""
        return min(self._until, self._next_query) if self._until > self._awake_at else math.inf

    def _ask(self, now: float) -> None:
        """Ask the first three who would have taken over, again those who did not answer."""
        lines = [line for line in self._register.in_order() if line.entry.place != NOWHERE][:SUCCESSORS_ASKED]
        if self.is_on(now):
            lines = [line for line in lines if line.node_id in self._asked]
        self._asked = {line.node_id for line in lines}
        for line in lines:
            self._prober.ask(line.entry.place, "doubt", now, DOUBT_APART)
        self._next_query = now + DOUBT_QUERY_INTERVAL

    def did_not_rule(self, node_id: bytes, now: float) -> None:
        """That member knows no later term than ours: when nobody who was asked does, the doubt is over."""
        self._asked.discard(node_id)
        if not self._asked and self.is_on(now):
            self._until = now

    # ---- what members say meanwhile

    def has_held(self) -> bool:
        """Does anything wait for the end of the doubt?"""
        return bool(self._held)

    def hold(self, line: Line, message: Any) -> List[Held]:
        """Keep a message until the doubt is over; which are refused for it, be it this one."""
        if type(message) is messages.Leave:  # it is not said again, but once by each: it needs no share
            line.say_good_bye()
            self._held.append((line, message))
            return []
        cost, node_id, refused = cost_held(message), line.node_id, []
        who = self._shares.gives_way(node_id, cost)
        while who is not None and who != node_id:
            refused.append(self._take_last(who))
            who = self._shares.gives_way(node_id, cost)
        if who == node_id:
            return [*refused, (line, message)]
        self._shares.take(node_id, cost)
        self._held.append((line, message))
        return refused

    def _take_last(self, node_id: Hashable) -> Held:
        """Out of what is held, the last that this member said, but its good-bye."""
        behind, last = next(
            (behind, held)
            for behind, held in enumerate(reversed(self._held), 1)
            if held[0].node_id == node_id and type(held[1]) is not messages.Leave
        )
        del self._held[-behind]
        self._shares.give_back(node_id, cost_held(last[1]))
        return last

    def release(self) -> List[Held]:
        """It is over: what was held is to be handled now, also of one whose link was lost meanwhile."""
        self._until = -math.inf
        held, self._held = self._held, deque()
        self._shares = FairShares(HELD_MAX)
        return list(held)

    def drop_held(self) -> None:
        """Nobody will handle it: this supernode has ended."""
        self._held.clear()
