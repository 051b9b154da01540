"""The supernode's index: which member shares what, and how a listing reads from it.

A member's list is replaced whole (pages) or changed by adds and removes, always its own only. Pure.
"""

from __future__ import annotations

import collections
import contextlib
import fnmatch
import re
from bisect import bisect_left
from typing import Any, Callable, Counter, Dict, Iterable, List, Optional, Set, Tuple

from protocol.content.names import check_any
from protocol.content.troubles import BadName
from protocol.fairness import FairShares
from protocol.membership.labels import fold
from protocol.messages import HOLDERS_NAMED_MAX, LIST_PER_PAGE, SHARES_MAX, ListRow, ShareEntry

INDEX_ENTRIES_MAX = 100_000  # of all members together; about 60 MB
ROOM_AGAIN = 0.9  # of these, below which those whose shares found no room are asked for them once more
STARS_MAX = 16  # in a pattern: more only cost time
FOLDED_MAX = 240  # characters of a name that are compared: some signs become 18
CHANGES_ONE_BY_ONE = 256  # rows that came and went, each put in its place; more are sorted in together

_Key = Tuple[bytes, int, str, bool]  # file id, size, name, is it a folder
_Figures = Tuple[int, int]  # files, bytes
_Row = Tuple[str, _Key, ShareEntry]  # what the listing is sorted by and searched in


def _key_of(entry: ShareEntry) -> _Key:
    return entry.file_id, entry.size, entry.name, entry.is_folder


def _figures_of(entry: ShareEntry) -> _Figures:
    """How much there is in it, as its sharer says; of a file there is no doubt, for its content has one size."""
    return (entry.file_count, entry.total_size) if entry.is_folder else (1, entry.size)


def _is_listable(name: str) -> bool:
    """May this name be shown and fetched? (A member may announce anything.)"""
    with contextlib.suppress(BadName):
        return "/" not in check_any(name)
    return False


def _place_of(row: _Row) -> Tuple[str, _Key]:
    return row[:2]


def has_wildcard(pattern: str) -> bool:
    """Does it mean all names that fit, and not one?"""
    return any(sign in pattern for sign in "*?[")


def _matcher(wanted: str) -> Callable[[str], object]:
    """Whether a name fits the pattern; nothing fits one that has no wildcard, or is none after all."""
    wanted = re.sub(r"\*+", "*", wanted)
    if has_wildcard(wanted) and wanted.count("*") <= STARS_MAX:
        with contextlib.suppress(re.error):  # before Python 3.13, [z-a] and the like
            return re.compile(fnmatch.translate(wanted)).match
    return lambda name: False


class Index:
    """Shares by member, and rows for the listing."""

    def __init__(self) -> None:
        self._shares: Dict[bytes, Dict[_Key, ShareEntry]] = {}
        self._rows: Dict[_Key, ShareEntry] = {}
        self._row_uses: Dict[_Key, int] = {}
        self._doubted: Dict[_Key, Counter[_Figures]] = {}  # rows whose sharers disagree -> how many say what
        self._holders: Dict[Tuple[bytes, int], Dict[bytes, int]] = {}  # content -> member -> names it has it under
        self._fair = FairShares(INDEX_ENTRIES_MAX)
        self._short: Dict[bytes, None] = {}  # members some of whose shares found no room, in order
        self._version = 0
        self._sorted: List[_Row] = []
        self._new: Dict[_Key, None] = {}  # since it was sorted; ordered, unlike a set: a test's seed replays exactly
        self._gone: Set[_Key] = set()
        self._last: Tuple[int, str, List[_Row]] = (-1, "", [])

    def __len__(self) -> int:
        return self._fair.total

    def is_short(self, node_id: bytes) -> bool:
        """Did some of this member's shares find no room, or lose it to somebody who had fewer?"""
        return node_id in self._short

    def next_short(self) -> Optional[bytes]:
        """A member whose shares are wanted once more, now that there is room; it is named once."""
        if not self._short or self._fair.total >= ROOM_AGAIN * self._fair.limit:
            return None
        node_id = next(iter(self._short))
        del self._short[node_id]
        return node_id

    def shares_of(self, node_id: bytes) -> List[ShareEntry]:
        """What this member shares, in the order in which it announced it."""
        return list(self._shares.get(node_id, {}).values())

    def holders_of(self, file_id: bytes, size: int) -> List[bytes]:
        """Who shares this content, under whatever names."""
        return list(self._holders.get((file_id, size), ()))

    def replace(self, node_id: bytes, entries: Iterable[ShareEntry]) -> int:
        """It shares these and nothing else; how many found no room, as `add`."""
        self.forget(node_id)
        return self.add(node_id, entries)

    def add(self, node_id: bytes, entries: Iterable[ShareEntry]) -> int:
        """Add to a member's shares; how many found no room, or have a name that nobody could keep.

        When all rows are taken, the member with the most of them gives up those that it announced last.
        """
        shares = self._shares.setdefault(node_id, {})
        refused = 0
        for entry in entries:
            key = _key_of(entry)
            if key in shares:
                self._count(key, shares[key], entry)
                shares[key] = entry
            elif len(shares) >= SHARES_MAX or not _is_listable(entry.name) or not self._make_room(node_id):
                refused += 1
            else:
                shares[key] = entry
                self._take_in(node_id, key, entry)
        return refused

    def _make_room(self, node_id: bytes) -> bool:
        who = self._fair.gives_way(node_id)
        if who is None:
            return True
        assert isinstance(who, bytes)
        self._short[who] = None
        if who == node_id:
            return False
        key, entry = self._shares[who].popitem()
        self._take_out(who, key, entry)
        return True

    def remove(self, node_id: bytes, entries: Iterable[ShareEntry]) -> None:
        """It shares these no longer; what is not here is passed over."""
        shares = self._shares.get(node_id, {})
        for entry in entries:
            known = shares.pop(_key_of(entry), None)
            if known is not None:
                self._take_out(node_id, _key_of(entry), known)

    def forget(self, node_id: bytes) -> None:
        """The member is gone, and its shares with it."""
        self._short.pop(node_id, None)
        for key, entry in self._shares.pop(node_id, {}).items():
            self._take_out(node_id, key, entry)

    def _take_in(self, node_id: bytes, key: _Key, entry: ShareEntry) -> None:
        if key not in self._rows:
            self._rows[key] = entry
            self._new[key] = None
            self._version += 1
        else:
            self._count(key, None, entry)
        self._row_uses[key] = self._row_uses.get(key, 0) + 1
        holders = self._holders.setdefault(key[:2], {})
        holders[node_id] = holders.get(node_id, 0) + 1
        self._fair.take(node_id)

    def _take_out(self, node_id: bytes, key: _Key, entry: ShareEntry) -> None:
        """This node shares the content under this name no longer; a row that nobody shares goes with it."""
        self._count(key, entry, None)
        self._row_uses[key] -= 1
        if not self._row_uses[key]:
            del self._row_uses[key], self._rows[key]
            self._doubted.pop(key, None)
            self._version += 1
            if key in self._new:
                del self._new[key]
            else:
                self._gone.add(key)
        holders = self._holders[key[:2]]
        holders[node_id] -= 1
        if not holders[node_id]:
            del holders[node_id]
        if not holders:
            del self._holders[key[:2]]
        self._fair.give_back(node_id)

    def _count(self, key: _Key, before: Optional[ShareEntry], after: Optional[ShareEntry]) -> None:
        """A member says something else of a row than before; what most say is shown (of equals, what was shown).

        A row's first sharer may lie, and the figures of a folder are seen to be true only by who has fetched it: such a
        one shares it, too, and says what it saw.
        """
        said, shown = self._doubted.get(key), _figures_of(self._rows[key])
        if said is None:
            if after is None or _figures_of(after) == shown:
                return
            said = self._doubted[key] = collections.Counter({shown: self._row_uses[key]})
        if before is not None:
            said[_figures_of(before)] -= 1
            said += collections.Counter()  # without what nobody says any more
        if after is not None:
            said[_figures_of(after)] += 1
        most = max(said, key=said.__getitem__, default=shown)
        if said[most] > said[shown]:
            self._rows[key] = self._rows[key]._replace(file_count=most[0], total_size=most[1])
        if len(said) == 1:
            del self._doubted[key]

    def is_at_hand(self, pattern: str, first: int) -> bool:
        """Is a page of this list only to be cut? A list once begun is read to its end as it was then."""
        return self._last[1] == pattern and (first > 0 or self._last[0] == self._version) and self._last[0] >= 0

    def page(self, pattern: str, first: int) -> Tuple[int, Tuple[ListRow, ...]]:
        """(how many rows match, the rows from `first`)."""
        if not self.is_at_hand(pattern, first):
            self._last = self._version, pattern, self._matching(pattern)
        rows = self._last[2]
        return len(rows), tuple(self._list_row(key, entry) for _, key, entry in rows[first : first + LIST_PER_PAGE])

    def _in_order(self) -> List[_Row]:
        """All rows by name; what came and went meanwhile is sorted into what was in order already."""
        if self._new or self._gone:
            is_little = len(self._new) + len(self._gone) <= CHANGES_ONE_BY_ONE
            self._sorted = self._changed_in_place() if is_little else self._sorted_anew()
            self._new.clear()
            self._gone.clear()
        return self._sorted

    def _row_of(self, key: _Key) -> _Row:
        return fold(key[2])[:FOLDED_MAX], key, self._rows[key]

    def _sorted_anew(self) -> List[_Row]:
        kept = [row for row in self._sorted if row[1] not in self._gone]
        kept += map(self._row_of, self._new)
        kept.sort(key=_place_of)
        return kept

    def _changed_in_place(self) -> List[_Row]:
        """A copy, for whoever reads a list to its end: a fortieth of what sorting costs."""
        rows: List[Any] = list(self._sorted)
        for key in self._gone:
            del rows[bisect_left(rows, (fold(key[2])[:FOLDED_MAX], key))]
        for key in self._new:
            row = self._row_of(key)
            rows.insert(bisect_left(rows, row[:2]), row)
        return rows

    def _matching(self, pattern: str) -> List[_Row]:
        """The rows that the pattern fits, or that hold it as it stands; those of that very name come first."""
        rows, wanted = self._in_order(), fold(pattern)[:FOLDED_MAX]
        if not wanted or wanted == "*":
            return rows
        fits = _matcher(wanted)
        found = [row for row in rows if wanted in row[0] or fits(row[0])]
        found.sort(key=lambda row: row[0] != wanted)
        return found

    def _list_row(self, key: _Key, entry: ShareEntry) -> ListRow:
        holders = self._holders.get(key[:2], {})  # all may have left while the list is read
        named = tuple(holders)[:HOLDERS_NAMED_MAX]
        files, size = _figures_of(self._rows.get(key, entry))
        return ListRow(
            entry.file_id, entry.size, entry.name, entry.is_folder, files, size, min(len(holders), 65535), named,
        )  # fmt: skip
