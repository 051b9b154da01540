"""Who would take which content by a cast: a table with a bound, in which nobody's wants push out those of others.

Where it is full, the host that wants most loses what it said longest ago (`protocol/fairness.py`). Pure.
"""

from __future__ import annotations

from typing import Dict, Tuple

from protocol.fairness import FairRecords

WANTS_MAX = 2048  # of all together: a large class wants two contents at once, each of it

Content = Tuple[bytes, bool]  # its id, and is it wanted by IPv6?
Takers = Dict[int, Tuple[bytes, str]]  # by link: the node, and its host


class Wants:
    """The wants of all links, until a cast begins."""

    def __init__(self) -> None:
        self._records = FairRecords(WANTS_MAX, is_of_hosts=True)  # by host, under (content, link)
        self._takers: Dict[Content, Takers] = {}

    def __len__(self) -> int:
        return len(self._records)

    def add(self, content: Content, link: int, node_id: bytes, host: str) -> Takers:
        """This one would take it, too; all who would."""
        self.drop(content, link)  # it may come from another host now
        pushed_out = self._records.put(host, (content, link), True)
        if pushed_out is not None:
            self._forget(*pushed_out)
        if self._records.get(host, (content, link)):
            self._takers.setdefault(content, {})[link] = node_id, host
        return dict(self._takers.get(content, {}))

    def take(self, content: Content) -> Takers:
        """All who would take it: a cast is offered to them, and they want none any more."""
        takers = dict(self._takers.get(content, {}))
        for link in takers:
            self.drop(content, link)
        return takers

    def drop(self, content: Content, link: int) -> None:
        """It has it, or wants it no more."""
        taker = self._takers.get(content, {}).get(link)
        if taker is not None:
            self._records.pop(taker[1], (content, link))
            self._forget(content, link)

    def drop_link(self, link: int) -> None:
        """Whoever was there is gone."""
        for content in [content for content, takers in self._takers.items() if link in takers]:
            self.drop(content, link)

    def _forget(self, content: Content, link: int) -> None:
        takers = self._takers[content]
        del takers[link]
        if not takers:
            del self._takers[content]
