"""What members are to be told of the roster: its next version, a moment later, or the whole of it to who just came.

Pure: `now` is monotonic seconds.
"""

from __future__ import annotations

import math
from typing import Dict, List, Mapping, Tuple

from protocol import messages
from protocol.messages import MEMBERS_PER_PAGE, Departure, MemberEntry
from protocol.ruling.line import Line

UPDATE_DELAY_EACH, UPDATE_DELAY_MAX = 0.001, 0.5  # seconds a roster update waits for more, for each member and at most


class News:
    """What changed since the last version, and who waits for all of it."""

    def __init__(self, term: int) -> None:
        self.version = 1  # everyone gets the whole roster when it comes back
        self._term = term
        self._changed: Dict[bytes, None] = {}  # ordered, unlike a set: a test's seed replays exactly
        self._departed: Dict[bytes, Departure] = {}
        self._newcomers: List[Line] = []
        self._due_at = math.inf

    def next_deadline(self) -> float:
        return self._due_at

    def change(self, node_id: bytes, members: int, now: float) -> None:
        """Its line is another one: so many are told soon, together with what else changes meanwhile."""
        self._changed[node_id] = None
        self._due_at = min(self._due_at, now + min(UPDATE_DELAY_MAX, UPDATE_DELAY_EACH * members))

    def depart(self, departure: Departure) -> None:
        """It has changed by going."""
        self._changed.pop(departure.node_id, None)
        self._departed[departure.node_id] = departure

    def is_back(self, node_id: bytes) -> None:
        """Nobody need hear that it had gone."""
        self._departed.pop(node_id, None)

    def await_roster(self, line: Line) -> None:
        """This one is sent the whole roster with the next version."""
        self._newcomers.append(line)

    def is_awaited_by(self, line: Line) -> bool:
        """Is it to be sent the whole roster?"""
        return line in self._newcomers

    def hasten(self, now: float) -> None:
        """Somebody waits for the roster, though nothing need have changed."""
        self._due_at = min(self._due_at, now + UPDATE_DELAY_MAX)

    def take_updates(self, lines: Mapping[bytes, Line]) -> List[messages.RosterUpdate]:
        """Who came, changed and went since the last version, in as many versions as it takes: they are told now."""
        self._due_at = math.inf
        changed = [lines[node_id].entry for node_id in self._changed if node_id in lines]
        departed = list(self._departed.values())
        self._changed.clear()
        self._departed.clear()
        updates = []
        while changed or departed:
            self.version += 1
            updates.append(messages.RosterUpdate(
                self._term, self.version, tuple(changed[:MEMBERS_PER_PAGE]), tuple(departed[:MEMBERS_PER_PAGE])
            ))  # fmt: skip
            del changed[:MEMBERS_PER_PAGE], departed[:MEMBERS_PER_PAGE]
        return updates

    def take_newcomers(self) -> List[Line]:
        """Who waited for the roster: it is sent to them now."""
        newcomers, self._newcomers = self._newcomers, []
        return newcomers

    def pages(self, entries: Tuple[MemberEntry, ...]) -> List[messages.RosterPage]:
        """The whole roster."""
        return [
            messages.RosterPage(self._term, self.version, first, len(entries), entries[first:][:MEMBERS_PER_PAGE])
            for first in range(0, len(entries), MEMBERS_PER_PAGE)
        ]
