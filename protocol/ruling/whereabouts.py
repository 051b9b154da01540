"""The supernode's whereabouts of contents: whom a search is told, in a network that is too large to tell all of them.

When a class asks for one file at once, each search would go to everybody: a thousand searches to a thousand members.
So it goes to those who may have it as far as is known here (they share it, or have just offered it) and to some who
look for it as well, as a tracker does. What is known here may be a lie, or not all: so now and then a search for each
content is told to all, and always one for what nobody is known to have. Pure: `now` is monotonic seconds.
"""

from __future__ import annotations

from typing import Dict, Iterable, List, Optional

from protocol import messages
from protocol.latest import Latest
from protocol.ruling.index import Index
from protocol.ruling.line import Line
from protocol.ruling.register import Register

TOLD_ALL_UP_TO = 32  # links: in a small network all are told each search
TOLD_ALL_EACH = 10.0  # seconds, of one content
TOLD_ALL_EACH_TIMES = 3  # of one member's searches for it
GIVERS_TOLD, SEEKERS_TOLD = 12, 8  # of each search; the next one of the same member goes to the next of them
CONTENTS_MAX = 512  # those that were searched last
GIVERS_MAX, SEEKERS_MAX = 32, 64  # of one content, the latest


class _Content:
    """One content that is looked for."""

    def __init__(self) -> None:
        self.told_all_at: Optional[float] = None
        self.givers: Latest[bytes, None] = Latest(GIVERS_MAX)  # who offered it
        self.seekers: Latest[bytes, int] = Latest(SEEKERS_MAX)  # who asked for it, and how often

    def tell_all(self, now: float) -> None:
        """Everybody is told that it is looked for; for a while nobody needs to be told again."""
        self.told_all_at = now


class Whereabouts:
    """Who may have what, and who looks for it."""

    def __init__(self, register: Register, index: Index) -> None:
        self._register = register
        self._index = index
        self._contents: Latest[bytes, _Content] = Latest(CONTENTS_MAX)

    def on_offer(self, file_id: bytes, node_id: bytes) -> None:
        """This member says that it has some of it."""
        content = self._contents.get(file_id)
        if content is not None:
            content.givers.put(node_id, None)

    def are_all_told(self, line: Line, search: messages.Search, now: float) -> bool:
        """Is this member's search for everybody? So is each third of the same one, whom others may have misled."""
        content = self._contents.get(search.file_id)
        if self._register.link_count() <= TOLD_ALL_UP_TO or content is None or content.told_all_at is None:
            return True
        is_due = now - content.told_all_at >= TOLD_ALL_EACH
        is_third = content.seekers.get(line.node_id, 0) % TOLD_ALL_EACH_TIMES == TOLD_ALL_EACH_TIMES - 1
        return is_due or is_third or not self._givers(content, line, search)

    def whom_to_ask(self, line: Line, search: messages.Search, now: float) -> Optional[List[Line]]:
        """Who is told of this member's search; None: everybody."""
        are_all = self.are_all_told(line, search, now)
        if self._register.link_count() <= TOLD_ALL_UP_TO:
            return None
        content = self._contents.get(search.file_id) or _Content()
        self._contents.put(search.file_id, content)
        times = content.seekers.get(line.node_id, 0)
        seekers = self._present(content.seekers, line)
        content.seekers.put(line.node_id, times + 1)
        if are_all:
            content.tell_all(now)
            return None
        givers = _some(self._givers(content, line, search), GIVERS_TOLD, times)
        return list({one.node_id: one for one in (*givers, *_some(seekers, SEEKERS_TOLD, times))}.values())

    def _givers(self, content: _Content, line: Line, search: messages.Search) -> List[Line]:
        return self._present([*self._index.holders_of(search.file_id, search.size), *content.givers], line)

    def _present(self, node_ids: Iterable[bytes], without: Line) -> List[Line]:
        lines: Dict[bytes, Line] = {}
        for node_id in node_ids:
            line = self._register.ready(node_id)
            if line is not None and line is not without:
                lines[node_id] = line
        return list(lines.values())


def _some(lines: List[Line], count: int, turn: int) -> List[Line]:
    """So many of them, with each turn others: half the latest, and half from all over."""
    if len(lines) <= count:
        return lines
    latest, rest = lines[-(count // 2) :], lines[: -(count // 2)]
    step = max(1, len(rest) // (count - count // 2))
    return latest + [rest[(turn + number * step) % len(rest)] for number in range(count - count // 2)]
