"""The supernode's index: which member shares what, and how a listing reads from it.

A member's list is replaced whole (pages) or changed by adds and removes, always its own only. Pure.
"""

from __future__ import annotations

import contextlib
import fnmatch
import re
from typing import Dict, Iterable, List, Optional, Tuple

from protocol.content import BadName, check_name
from protocol.messages import HOLDERS_NAMED_MAX, LIST_PER_PAGE, SHARES_MAX, ListRow, ShareEntry
from protocol.roster import fold

INDEX_ENTRIES_MAX = 100_000  # of all members together; about 60 MB
STARS_MAX = 16  # in a pattern: more only cost time
FOLDED_MAX = 240  # characters of a name that are compared: some signs become 18

_Key = Tuple[bytes, int, str, bool]  # file id, size, name, is it a folder


def _key_of(entry: ShareEntry) -> _Key:
    return entry.file_id, entry.size, entry.name, entry.is_folder


def _is_listable(name: str) -> bool:
    """May this name be shown and fetched? (A member may announce anything.)"""
    with contextlib.suppress(BadName):
        return "/" not in check_name(name)
    return False


class Index:
    """Shares by member, and rows for the listing."""

    def __init__(self) -> None:
        self._shares: Dict[bytes, Dict[_Key, ShareEntry]] = {}
        self._rows: Dict[_Key, ShareEntry] = {}
        self._row_uses: Dict[_Key, int] = {}
        self._holders: Dict[Tuple[bytes, int], Dict[bytes, int]] = {}  # content -> member -> names it has it under
        self._count = 0
        self._version = 0
        self._sorted: Optional[List[Tuple[str, ListRow]]] = None
        self._last: Tuple[int, str, List[ListRow]] = (-1, "", [])

    def __len__(self) -> int:
        return self._count

    def shares_of(self, node_id: bytes) -> List[ShareEntry]:
        return list(self._shares.get(node_id, {}).values())

    def replace(self, node_id: bytes, entries: Iterable[ShareEntry]) -> int:
        self.forget(node_id)
        return self.add(node_id, entries)

    def add(self, node_id: bytes, entries: Iterable[ShareEntry]) -> int:
        """Add to a member's shares; how many found no room, or have a name that nobody could keep."""
        shares = self._shares.setdefault(node_id, {})
        refused = 0
        for entry in entries:
            key = _key_of(entry)
            if key in shares:
                shares[key] = entry
            elif len(shares) >= SHARES_MAX or self._count >= INDEX_ENTRIES_MAX or not _is_listable(entry.name):
                refused += 1
            else:
                shares[key] = entry
                self._take_in(node_id, key, entry)
        return refused

    def remove(self, node_id: bytes, entries: Iterable[ShareEntry]) -> None:
        shares = self._shares.get(node_id, {})
        for entry in entries:
            if shares.pop(_key_of(entry), None) is not None:
                self._take_out(node_id, _key_of(entry))

    def forget(self, node_id: bytes) -> None:
        """The member is gone, and its shares with it."""
        for key in self._shares.pop(node_id, {}):
            self._take_out(node_id, key)

    def _take_in(self, node_id: bytes, key: _Key, entry: ShareEntry) -> None:
        self._rows.setdefault(key, entry)
        self._row_uses[key] = self._row_uses.get(key, 0) + 1
        holders = self._holders.setdefault(key[:2], {})
        holders[node_id] = holders.get(node_id, 0) + 1
        self._count += 1
        self._changed()

    def _take_out(self, node_id: bytes, key: _Key) -> None:
        self._row_uses[key] -= 1
        if not self._row_uses[key]:
            del self._row_uses[key], self._rows[key]
        holders = self._holders[key[:2]]
        holders[node_id] -= 1
        if not holders[node_id]:
            del holders[node_id]
        if not holders:
            del self._holders[key[:2]]
        self._count -= 1
        self._changed()

    def _changed(self) -> None:
        self._version += 1
        self._sorted = None

    def is_at_hand(self, pattern: str, first: int) -> bool:
        """Is a page of this list only to be cut? A list once begun is read to its end as it was then."""
        return self._last[1] == pattern and (first > 0 or self._last[0] == self._version) and self._last[0] >= 0

    def page(self, pattern: str, first: int) -> Tuple[int, Tuple[ListRow, ...]]:
        """(how many rows match, the rows from `first`)."""
        if not self.is_at_hand(pattern, first):
            self._last = self._version, pattern, self._matching(pattern)
        rows = self._last[2]
        return len(rows), tuple(rows[first : first + LIST_PER_PAGE])

    def _matching(self, pattern: str) -> List[ListRow]:
        if self._sorted is None:
            rows = [self._row(key, entry) for key, entry in self._rows.items()]
            self._sorted = sorted((fold(row.name)[:FOLDED_MAX], row) for row in rows)
        wanted = fold(pattern)
        if not wanted or wanted == "*":
            return [row for _, row in self._sorted]
        if not any(sign in wanted for sign in "*?["):
            return [row for name, row in self._sorted if wanted in name]
        wanted = re.sub(r"\*+", "*", wanted)
        if wanted.count("*") > STARS_MAX:
            return []
        try:
            match = re.compile(fnmatch.translate(wanted)).match
        except re.error:  # before Python 3.13, [z-a] and the like
            return []
        return [row for name, row in self._sorted if match(name)]

    def _row(self, key: _Key, entry: ShareEntry) -> ListRow:
        holders = self._holders[key[:2]]
        named = tuple(holders)[:HOLDERS_NAMED_MAX]
        return ListRow(
            entry.file_id, entry.size, entry.name, entry.is_folder, entry.file_count, entry.total_size,
            min(len(holders), 65535), named,
        )  # fmt: skip
