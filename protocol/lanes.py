"""What a node has still to hear, in two lanes: signs of life, chat and all else before searches and lists.

When a class asks for one file at once, thousands of searches and offers come within a second. Each may wait; a Ping
behind them may not, for whoever is not heard counts as gone, nor a line of chat. So searches, offers and requests for
lists have a lane of their own, which has its turn when the other is empty, and at least once in PATIENT_EACH turns.
What is in one lane stays in order: no search is heard before the Join of who searches. Pure, and safe to be filled by
one thread and emptied by another (deques are).
"""

from __future__ import annotations

import functools
from collections import deque
from typing import Any, Deque, FrozenSet, Generic, TypeVar

from protocol.fields import Buffer

PATIENT_EACH = 16  # turns: however much else there is, searches get on

Item = TypeVar("Item")


@functools.cache
def _patient() -> FrozenSet[int]:
    """Tags of those messages. A person sees the first line before the table of all of them is made."""
    from protocol.messages import TABLE, ListRequest, Offer, Search
    return frozenset(tag for tag, kind in TABLE.items() if kind in (Search, Offer, ListRequest))


def may_wait(data: Buffer) -> bool:
    """Is this message one of those that come by thousands, and that nobody counts as a sign of life?"""
    return len(data) > 0 and data[0] in _patient()


class Lanes(Generic[Item]):
    """Two queues, and whose turn it is."""

    def __init__(self) -> None:
        self._urgent: Deque[Any] = deque()
        self._patient: Deque[Any] = deque()
        self._in_a_row = 0  # turns of the urgent lane while the other waited

    def __len__(self) -> int:
        return len(self._urgent) + len(self._patient)

    def put(self, item: Item, may_wait: bool = False) -> None:
        """Behind all that is in its lane."""
        (self._patient if may_wait else self._urgent).append(item)

    def take(self) -> Item:
        """What has its turn; IndexError when there is nothing."""
        is_patients_turn = self._patient and (not self._urgent or self._in_a_row >= PATIENT_EACH - 1)
        self._in_a_row = 0 if is_patients_turn or not self._patient else self._in_a_row + 1
        item: Item = (self._patient if is_patients_turn else self._urgent).popleft()
        return item
