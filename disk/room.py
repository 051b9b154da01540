"""The room on the disk: what there is, what may be kept of it for others, and who gives way when there is too little.

What this person wants comes first: all that is kept for others goes before a download of the person's stops. Of what
is kept for others, who holds most gives way (`protocol/fairness.py`); all of it leaves a floor of the disk free.

Owned by the disk thread, like the library that uses it.
"""

from __future__ import annotations

import math
import shutil
from typing import Any, Callable, List, NamedTuple, Tuple, TypeVar

from disk.access import files_left
from disk.accounts import NOBODY, Accounts, cost_of
from disk.parts import Parts
from disk.shelf import Shelf
from protocol.content.parts import Content, Destination
from protocol.content.pieces import GIB
from protocol.content.troubles import ErrorKind, LibraryError, meaning, no_room, shown, size_text, speaking

CACHE_BYTES_MAX = GIB
CACHE_FREE_PERCENT = 5         # of the free space: the cache never takes more
OTHERS_FREE_PERCENT = 15       # the same, of all that is kept for others: the cache and what passes through
FLOOR_PERCENT = 5              # of the disk, that stays free of what is others', ...
FLOOR_BYTES_MAX = GIB          # ... but not more than so much
FILES_OF_PART = 2              # what comes, and its map

_T = TypeVar("_T")


def disk_of(folder: str) -> Any:
    """The size of the disk on which a folder is (`total`, bytes), and what this user may still write (`free`)."""
    with speaking(f"look at the folder {shown(folder, 1000)}"):
        return shutil.disk_usage(folder)


class RoomLeft(NamedTuple):
    """What the disk still takes of what this person wants."""

    free: int                      # bytes
    takes_files: bool              # False: it has no inodes for a download, however many bytes


class Room:
    """What a content may take of the disk; `free_bytes` is asked anew each time."""

    def __init__(self, folder: str, free_bytes: Callable[[], int], parts: Parts, cache: Shelf,
                 accounts: Accounts) -> None:
        self._folder = folder
        self._free_bytes = free_bytes
        self._parts = parts
        self._cache = cache
        self._accounts = accounts

    # ---- how much there is

    def room_bytes(self) -> int:
        """The same for what this person wants: what is kept for others gives way to it."""
        return self._free_bytes() + self._on_disk_for_others()

    def left(self) -> RoomLeft:
        """Bytes, and whether a download can be begun at all."""
        return RoomLeft(self.room_bytes(), files_left(self._folder) >= FILES_OF_PART)

    def cache_quota(self) -> int:
        """The bytes that the cache may take now: 1 GiB or a twentieth of what would be free without it, if less."""
        return min(CACHE_BYTES_MAX, (self._free_bytes() + self._cached_bytes()) * CACHE_FREE_PERCENT // 100)

    def others_quota(self) -> int:
        """The bytes that all that is kept for others may take now."""
        return self.room_bytes() * OTHERS_FREE_PERCENT // 100

    def _cached_bytes(self) -> int:
        return sum(content.size for content in self._cache.contents.values())

    def _on_disk_for_others(self) -> int:
        return sum(content.size if file_id in self._cache.contents else content.verified_bytes
                   for file_id, content in self._for_others())

    def _for_others(self) -> List[Tuple[bytes, Content]]:
        """What would go first, first: what is complete and was not used for longest, then what is on its way."""
        both = [*self._cache.contents.items(), *self._parts.contents.items()]
        return [(file_id, content) for file_id, content in both if file_id in self._accounts]

    # ---- may this be begun?

    def check(self, label: str, needed: int) -> None:
        """Refuse what this person wants and the disk has no room for, even without all that is kept for others."""
        free = self.room_bytes()
        if needed > free:
            raise no_room(label, needed, free)

    def make_for(self, part: Content, person: bytes) -> None:
        """Make room for a part that is begun, or refuse it. `person`: for whom, if it is for another."""
        needed = part.size - part.verified_bytes
        if part.destination is Destination.CACHE:
            self._make_in_cache(part)
        free = self._free_bytes()
        if part.destination is Destination.DOWNLOAD:
            self.check(part.label, needed)
            if needed > free:
                self._yield(needed, part.file_id)
        elif needed > free:
            raise no_room(part.label, needed, free)
        else:
            self._make_for_others(part, person)

    def _make_in_cache(self, part: Content) -> None:
        """Evict the least recently used until a new cache part fits the quota, with the parts on their way."""
        quota, kept = self.cache_quota(), self._cached_bytes()
        used = part.size + kept + sum(other.size for other in self._parts.contents.values()
                                      if other.destination is Destination.CACHE)
        if used - kept > quota:
            sentence = f"No room in the cache: needs {size_text(part.size)}, {size_text(quota)} allowed."
            raise LibraryError(ErrorKind.FULL, sentence)
        while used > quota:
            oldest = next(iter(self._cache.contents.values()))
            used -= oldest.size
            self._cache.take_off(oldest.file_id)

    def _make_for_others(self, part: Content, person: bytes) -> None:
        """Have who holds most give way until this fits; refused where that is this person, or the floor is touched."""
        cost, quota = cost_of(part), self.others_quota()
        while True:
            loser = self._accounts.gives_way(person, cost, quota)
            if loser is None:
                break
            theirs = [file_id for file_id, _ in self._for_others()
                      if self._accounts.person_of(file_id) == loser and
                      (loser != person or file_id in self._cache.contents)]
            if not theirs or cost > quota:
                sentence = f"No room for what others fetch: needs {size_text(cost)}, {size_text(quota)} allowed."
                raise LibraryError(ErrorKind.FULL, sentence)
            self._drop(theirs[0])
        self.check_floor(part.label, part.size - part.verified_bytes)

    def check_floor(self, label: str, needed: int) -> None:
        """What is others' leaves a floor of the disk free, and what the person's own downloads still need."""
        free = self._free_bytes()
        own = sum(part.size - part.verified_bytes for part in self._parts.contents.values()
                  if part.is_open and part.destination is Destination.DOWNLOAD)
        floor = min(FLOOR_BYTES_MAX, disk_of(self._folder).total * FLOOR_PERCENT // 100)
        if needed + floor + own > free:
            raise no_room(label, needed, max(0, free - floor - own))

    # ---- what is kept for others gives way

    def with_room(self, work: Callable[[], _T], spared: bytes = NOBODY) -> _T:
        """Write something of this person's; where the disk is full, without what is kept for others."""
        try:
            return work()
        except OSError as error:
            if meaning(error)[0] is not ErrorKind.FULL or not self._yield(math.inf, spared):
                raise
        return work()

    def _yield(self, needed: float, spared: bytes) -> bool:
        """Drop what is kept for others until so many bytes are free for this person; whether anything went."""
        before = len(self._accounts)
        for file_id, _ in self._for_others():
            if self._free_bytes() >= needed:
                break
            if file_id != spared:
                self._drop(file_id)
        return len(self._accounts) < before

    def _drop(self, file_id: bytes) -> None:
        if file_id in self._cache.contents:
            self._cache.take_off(file_id)
        else:
            self._parts.give_way(file_id)
