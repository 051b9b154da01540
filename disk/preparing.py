"""What a download needs of the disk before anything is asked for: is it here already, does it fit, is its folder made?

Disk jobs, handed to the roles (`protocol/exchange/job.py`), which know no disk: each is a closure that answers None as
long as it is to be called again, after what else waits for the disk.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import AbstractSet, Callable, Deque, Iterable, List, NamedTuple, Optional, Union

from disk.downloads import Finished
from disk.library import Library
from disk.making import FOLDERS_AT_ONCE
from protocol.content.listing import FolderEntry, More, Pack, decode_listing, decode_more, in_order, without_more
from protocol.content.parts import Origin
from protocol.content.troubles import ErrorKind, LibraryError

Here = Union[bool, Finished]   # of a file: it stands there, it does not, or a copy was made
SPOILED_KINDS = (ErrorKind.CHANGED, ErrorKind.UNKNOWN, ErrorKind.MISSING)     # of what the cache holds


class Plan(NamedTuple):
    """What is to be done for a folder."""

    folders: List[str]         # to be made, the folder itself first
    alone: List[FolderEntry]   # files that come one by one
    packs: List[Pack]          # small files that come together
    more: Optional[More]       # the listing of those whose names not all can keep


class Prepared(NamedTuple):
    """A folder whose folders are made."""

    path: str
    alone: List[FolderEntry]
    packs: List[Pack]
    troubles: List[str]        # of single folders that could not be made
    more: Optional[More]


class PreparedMore(NamedTuple):
    """Of those files of a folder whose names not all can keep."""

    alone: List[FolderEntry]
    left_out: List[FolderEntry]   # this machine cannot keep them
    troubles: List[str]


class FolderPreparation:
    """A disk job in slices: the plan of a folder, then its folders."""

    def __init__(self, library: Library, listing_id: bytes, name: str, make_plan: Callable[[], Plan]) -> None:
        self._library = library
        self._listing_id = listing_id
        self._name = name
        self._make_plan = make_plan
        self._plan: Optional[Plan] = None

    def __call__(self) -> Optional[Prepared]:
        if self._plan is None:
            self._plan = self._make_plan()
            return None
        troubles = self._library.make_folders(self._listing_id, self._plan.folders)
        if troubles is None:
            return None
        return Prepared(self._library.make_folder(self._name), self._plan.alone, self._plan.packs, troubles,
                        self._plan.more)


class MorePreparation:
    """A disk job in slices: the listing of a folder's other names is read, then its folders are made."""

    def __init__(self, library: Library, name: str, read: Callable[[], bytes]) -> None:
        self._library = library
        self._name = name
        self._read = read
        self._prepared: Optional[PreparedMore] = None
        self._folders: Deque[str] = deque()    # still to be made

    def __call__(self) -> Optional[PreparedMore]:
        if self._prepared is None:
            self._prepared = self._begin()
            return None
        for _ in range(min(FOLDERS_AT_ONCE, len(self._folders))):
            try:
                self._library.make_folder(self._folders.popleft())
            except LibraryError as error:
                self._prepared.troubles.append(error.sentence.rstrip("."))
        return None if self._folders else self._prepared

    def _begin(self) -> PreparedMore:
        entries, left_out = decode_more(self._read())
        _check_room(self._library, self._name, entries, _here(self._library, entries))
        self._library.expected.more(self._name, in_order([*entries, *left_out]))
        self._folders.extend(f"{self._name}/{entry.path}" for entry in entries if entry.is_folder)
        return PreparedMore([entry for entry in entries if not entry.is_folder], left_out, [])


class Preparing:
    """Makes the disk jobs with which downloads begin. What it makes is run on the disk thread only."""

    def __init__(self, library: Library) -> None:
        self._library = library

    # ---- a file

    def file(self, file_id: bytes, name: str, is_cached: bool, origin: Origin) -> Callable[[], Optional[Here]]:
        """A job: a Finished if a copy was made on this disk, else False."""
        return partial(self._file, file_id, name, is_cached, origin, True)

    def file_in_folder(self, file_id: bytes, name: str, is_cached: bool, origin: Origin
                       ) -> Callable[[], Optional[Here]]:
        """A job: True if the file stands there already, else as `file`, and flushed with its folder."""
        return partial(self._file_in_folder, file_id, name, is_cached, origin)

    def _file_in_folder(self, file_id: bytes, name: str, is_cached: bool, origin: Origin) -> Optional[Here]:
        return self._library.stands(file_id, name) or self._file(file_id, name, is_cached, origin, False)

    def _file(self, file_id: bytes, name: str, is_cached: bool, origin: Origin, flush: bool) -> Optional[Here]:
        if self._library.local_copy(file_id) is not None:
            return self._library.copy_local(file_id, name, flush, origin)
        if is_cached:
            try:
                return self._library.copy_local(file_id, name, flush, origin)
            except LibraryError as error:  # what the cache holds may be damaged: then it is fetched
                if error.kind not in SPOILED_KINDS:
                    raise
        return False

    # ---- a folder: its listing came, or is in the cache, or came by way of a relay

    def folder(self, listing_id: bytes, name: str, listing: bytes, told: bytes = b"") -> FolderPreparation:
        """A job for a folder whose listing came: refuses it, or makes its folders and tells what is to come."""
        return FolderPreparation(self._library, listing_id, name, partial(self._plan, name, listing, told))

    def cached_folder(self, listing_id: bytes, name: str, told: bytes = b"") -> FolderPreparation:
        """The same for one whose listing is in the cache."""
        return FolderPreparation(self._library, listing_id, name, partial(self._plan_cached, listing_id, name, told))

    def relayed_folder(self, listing_id: bytes, name: str, told: bytes = b"") -> FolderPreparation:
        """The same for one whose listing was being relayed for somebody, too: it is kept in the cache first."""
        return FolderPreparation(self._library, listing_id, name, partial(self._plan_relayed, listing_id, name, told))

    def _plan_cached(self, listing_id: bytes, name: str, told: bytes) -> Plan:
        return self._plan(name, self._library.contents(listing_id), told)

    def _plan_relayed(self, listing_id: bytes, name: str, told: bytes) -> Plan:
        self._finish_cache(listing_id, name, True)
        return self._plan_cached(listing_id, name, told)

    def _plan(self, name: str, listing: bytes, told: bytes) -> Plan:
        """Decode the listing, refuse what has no room, and leave out what is here."""
        listed, packs = decode_listing(listing)
        entries, more = without_more(listed)
        self._library.expected.folder(name, entries, told)
        here = _here(self._library, entries)
        _check_room(self._library, name, entries, here)
        folders = [name, *(f"{name}/{entry.path}" for entry in entries if entry.is_folder)]
        wanted = [pack for pack in packs if _is_worth_its_way(pack, here) or self._library.has(pack.file_id)]
        packed = {member.path for pack in wanted for member in pack.members}
        alone = [entry for entry in entries if not entry.is_folder and entry.path not in packed]
        empty = tuple(entry for entry in alone if not entry.size)
        if empty:                              # they need nobody, and one by one each would cost as a download does
            wanted = [Pack(empty[0].file_id, 0, empty), *wanted]
        return Plan(folders, [entry for entry in alone if entry.size], wanted, more)

    def more(self, name: str, listing: bytes) -> MorePreparation:
        """A job for the other names in a folder: makes the folders among them, and tells what is to come."""
        return MorePreparation(self._library, name, lambda: listing)

    def cached_more(self, file_id: bytes, name: str) -> MorePreparation:
        """The same of a listing that is here."""
        return MorePreparation(self._library, name, partial(self._library.contents, file_id))

    # ---- a pack of small files

    def relayed_pack(self, file_id: bytes, name: str) -> Callable[[], bytes]:
        """A job: the bytes of a pack that was being relayed for somebody, too; it is kept in the cache first."""
        return partial(self._take_relayed_pack, file_id, name)

    def _take_relayed_pack(self, file_id: bytes, name: str) -> bytes:
        self._finish_cache(file_id, name, False)
        return bytes(self._library.contents(file_id))

    def _finish_cache(self, file_id: bytes, name: str, is_folder: bool) -> None:
        """Of a content so small that it takes no slices."""
        while not self._library.finish_cache(file_id, name, is_folder):
            pass


def _here(library: Library, entries: List[FolderEntry]) -> AbstractSet[bytes]:
    """The contents of these that are on this disk, under whatever names."""
    return {entry.file_id for entry in entries if library.local_copy(entry.file_id) is not None}


def _check_room(library: Library, name: str, entries: List[FolderEntry], here: AbstractSet[bytes]) -> None:
    """Refuse what does not fit before anything of it is here; only what stands under its name takes no more room.

    One content may have any number of names in a folder, and is copied to each.
    """
    def needed(entries: Iterable[FolderEntry]) -> int:
        begun = {part.file_id: part.verified_bytes for part in library.parts()}
        return sum(entry.size - begun.pop(entry.file_id, 0) for entry in entries)

    try:
        library.check_room(name, needed(entries))
    except LibraryError:  # now it is worth a look at each file
        library.check_room(name, needed(
            entry for entry in entries
            if entry.file_id not in here or not library.stands(entry.file_id, f"{name}/{entry.path}")
        ))


def _is_worth_its_way(pack: Pack, here: AbstractSet[bytes]) -> bool:
    """Not when more than half of it is here already."""
    return sum(entry.size for entry in pack.members if entry.file_id in here) <= pack.size // 2
