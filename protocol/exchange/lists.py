"""The lists of the network's files that this node has asked for.

The supernode answers in pages. When the first one tells how many rows there are, several pages are asked at once; an
answer that comes out of order, or to a question that was not asked, is refused. A list is over when all its rows are
here (or as many as one list may have), or when for some seconds nothing more came: then what came counts, and None
means that nobody answered. A new supernode is asked for what is still missing.

Pure. Belongs to the Peer, on the node thread.
"""

from __future__ import annotations

import math
import random
from typing import Any, Callable, Dict, List, Optional

from protocol.messages import FILE_NAME_BYTES_MAX, LIST_PER_PAGE, ListPage, ListRequest, ListRow

LIST_TIMEOUT = 9.0  # seconds without a page: a supernode that dies meanwhile has a successor by then, which is asked
LIST_ROWS_MAX = 10_000  # rows that one list command fetches
LIST_PAGES_AHEAD = 8  # asked at once: a long list does not wait for a round trip with each page

Listed = Callable[[Optional[List[ListRow]], int, float], None]  # rows, None when nobody answered; of how many; now


class _ListAsk:
    """A list that is on its way."""

    def __init__(self, pattern: str, done: Listed, deadline: float) -> None:
        self.pattern = pattern
        self.done = done
        self.deadline = deadline
        self.rows: List[ListRow] = []
        self.total = 0
        self.asked = 0  # rows asked for

    def take_in(self, page: ListPage, now: float) -> bool:
        """Add a page's rows; are more to come?"""
        self.rows += page.rows
        self.total = page.total
        if not page.rows or len(self.rows) >= min(page.total, LIST_ROWS_MAX):
            return False
        self.deadline = now + LIST_TIMEOUT
        if len(page.rows) < LIST_PER_PAGE:  # what was asked already does not fit behind it
            self.asked = len(self.rows)
        return True

    def wants_page(self) -> bool:
        ahead = len(self.rows) + LIST_PAGES_AHEAD * LIST_PER_PAGE
        return self.asked < min(self.total, LIST_ROWS_MAX, ahead)


def _can_be_sent(pattern: str) -> bool:
    try:
        return len(pattern.encode("utf-8")) <= FILE_NAME_BYTES_MAX
    except UnicodeEncodeError:  # half a character, as a terminal or a shell gives what is no text
        return False


class Lists:
    """All lists that are on their way."""

    def __init__(self, rng: random.Random, send_to_supernode: Callable[[Any], bool]) -> None:
        self._rng = rng
        self._send = send_to_supernode
        self._asks: Dict[int, _ListAsk] = {}  # by request id

    def ask(self, pattern: str, now: float, done: Listed) -> None:
        """Ask for the files whose names match; no name is like a pattern that cannot be sent."""
        if not _can_be_sent(pattern):
            done([], 0, now)
            return
        request_id = self._rng.getrandbits(32)
        self._asks[request_id] = ask = _ListAsk(pattern, done, now + LIST_TIMEOUT)
        self._ask_page(request_id, ask)

    def _ask_page(self, request_id: int, ask: _ListAsk) -> None:
        self._send(ListRequest(request_id, ask.pattern, ask.asked))
        ask.asked += LIST_PER_PAGE

    def on_joined(self) -> None:
        """There is a supernode, perhaps a new one, which knows nothing of what the last one was asked."""
        for request_id, ask in self._asks.items():
            ask.asked = len(ask.rows)
            self._ask_page(request_id, ask)

    def on_page(self, page: ListPage, now: float) -> bool:
        """False for one that fits nowhere."""
        ask = self._asks.get(page.request_id)
        if ask is None or page.first != len(ask.rows):
            return False
        if ask.take_in(page, now):
            while ask.wants_page():
                self._ask_page(page.request_id, ask)
        else:
            del self._asks[page.request_id]
            ask.done(ask.rows, ask.total, now)
        return True

    def on_timer(self, now: float) -> None:
        for request_id, ask in list(self._asks.items()):
            if now >= ask.deadline:
                del self._asks[request_id]
                ask.done(ask.rows or None, ask.total, now)

    def next_deadline(self) -> float:
        return min((ask.deadline for ask in self._asks.values()), default=math.inf)
