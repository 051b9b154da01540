"""What is here whole: the contents that this node shares, and those that its cache keeps for others.

Two look at the folder, each at its own pace. The scanner reports what it found and lost (`on_scanned`), and a report of
20,000 files is taken in in slices, so that everything else has its turn between them; a download that has its final
name is told at once (`on_finished`), and no older report may withdraw it. The library keeps the same contents on the
disk thread: it hears of each slice after this room, by a disk job.

What is shared and listed is announced to the supernode, at most `SHARES_MAX` of it, in portions; `_announced` is what
the supernode knows of us, and only the differences are told. A new supernode is told the digest of the first portion,
and asks for the shares if it does not know them (`SharesWanted`).

Belongs to the Peer, on the node thread; `_look_into_cache` and `_apply_scan` run as disk jobs.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from functools import partial
from typing import AbstractSet, Any, Callable, Deque, Dict, List, NamedTuple, Optional, Protocol, Sequence, Tuple

from protocol import mishaps
from protocol.content.listing import decode_listing, ids_in, ids_of, ids_of_more
from protocol.content.shares import ScanResult, SharedFile, SharesById, why_left_out
from protocol.content.traits import left_out_in
from protocol.content.troubles import LibraryError
from protocol.exchange.contracts import Disk, Members
from protocol.latest import Latest
from protocol.messages import SHARES_MAX, SHARES_PER_PAGE, ShareAdd, ShareEntry, SharePage, ShareRemove
from protocol.results import ListEntry, Notice

log = mishaps.logger("scan")

NOTHING: AbstractSet[bytes] = frozenset()
LEFT_OUT_PER_LINE = 50  # named in one line of the log, which has sixty lines of a kind a minute
TRAITS_KEPT_BYTES, TRAITS_KEPT_MAX = 4 << 20, 1024  # of what was told beside contents, for others who ask
SCANNED_AT_ONCE = 1000  # contents of a report that are taken in in one turn: 20,000 would keep all else waiting
ANNOUNCED_AT_ONCE = 1000  # shares told in one turn: 10,000 would keep everything else waiting

ShareKey = Tuple[bytes, str]  # a content under a name


class ScanFeed(Protocol):
    """The scanner's verbs that may be called from here (`disk.scanner.Scanner` has them)."""

    def add_path(self, path: str) -> str: ...

    def remove_path(self, name: str, path: str) -> str: ...

    def adopt(self, shared: Any) -> None: ...

    def hold(self, name: str) -> None: ...

    def release(self, name: str) -> None: ...

    def doubt(self, path: str) -> None: ...


class Cached(NamedTuple):
    """A content in the cache, and what is in it when it is a folder."""

    size: int
    label: str
    is_folder: bool
    file_count: int
    total_size: int


class Holdings:
    """What this node has whole, and what of it the supernode was told."""

    def __init__(
        self, library: Any, disk: Disk, members: Members, notify: Callable[[Any], None], scanner: Optional[ScanFeed],
        is_sharing: bool = True,
    ) -> None:  # fmt: skip
        self._library = library
        self._disk = disk
        self._members = members
        self._notify = notify
        self._scanner = scanner
        self._is_sharing = is_sharing  # False: what is here is known, so that it is not fetched again, and not told
        self._shared = SharesById()
        self._cached: Dict[bytes, Cached] = {}
        self._contents: Dict[bytes, AbstractSet[bytes]] = {}  # folder -> the contents in it
        self._scans: Deque[ScanResult] = deque()  # slices of the scanner's reports that are still to be taken in
        self._when_scanned: List[Callable[[], None]] = []
        self._announced: Dict[ShareKey, ShareEntry] = {}
        self._warned_too_many = False
        self._left_out: List[Tuple[str, str]] = []  # kind and name of what the scanner found and does not share
        self._traits: Latest[bytes, bytes] = Latest(TRAITS_KEPT_MAX)  # what was told to us

    # ---- what is here

    def size_of(self, file_id: bytes) -> Optional[int]:
        """The size of a content that is here whole for others, shared or cached; else None."""
        here = (self._shared.first(file_id) if self._is_sharing else None) or self._cached.get(file_id)
        return here.size if here is not None else None

    def name_of(self, file_id: bytes) -> Optional[str]:
        """What a content that is here whole is called here."""
        shared, cached = self._shared.first(file_id), self._cached.get(file_id)
        if shared is not None:
            return shared.name
        return cached.label if cached is not None else None

    def is_cached(self, file_id: bytes) -> bool:
        """Is it here for others alone? Then the library may drop it."""
        return file_id in self._cached and file_id not in self._shared

    def files_in(self, file_id: bytes) -> AbstractSet[bytes]:
        """The contents in a folder that this node serves; none for a file."""
        return self._contents.get(file_id, NOTHING)

    def is_other_names(self, file_id: bytes) -> bool:
        """Is this the listing of those names in a folder that not all can keep?"""
        here = self._shared.first(file_id)
        return here is not None and here.is_folder and not here.listed

    def total_of(self, file_id: bytes) -> int:
        """The bytes of all files in a folder that is here; 0 for others."""
        here = self._shared.first(file_id) or self._cached.get(file_id)
        return here.total_size if here is not None and here.is_folder else 0

    def traits_of(self, file_id: bytes) -> bytes:
        """What is told beside a content, as its places here have it, or as it was told to us; nothing if unknown.

        What was left out where a folder came from, nobody can see in the folder here.
        """
        shared, heard = self._shared.first(file_id), self._traits.get(file_id, b"")
        if shared is None or (left_out_in(heard) and not left_out_in(shared.traits)):
            return heard
        return shared.traits

    def remember_traits(self, file_id: bytes, told: bytes) -> None:
        """This was told beside a content: others may ask for it."""
        self._traits.put(file_id, told)
        while sum(map(len, self._traits.values())) > TRAITS_KEPT_BYTES:
            self._traits.forget_oldest()

    def left_out(self) -> List[Tuple[str, str]]:
        """All that the scanner found and this node does not share: names, with the reason in words."""
        return [(name, why_left_out(kind, name)) for kind, name in self._left_out]

    def rows(self, own_name: str) -> List[ListEntry]:
        """What this node announces, as a person sees it; the cache is the network's, and not shown."""
        entries = sorted(self._announced.values(), key=lambda entry: entry.name)
        return [
            ListEntry(number, entry.name, entry.total_size, entry.file_id, entry.is_folder, entry.file_count,
                      (own_name,), 1, entry.size, path=self._path_of(entry))
            for number, entry in enumerate((entry for entry in entries if not entry.cached), 1)
        ]  # fmt: skip

    def _path_of(self, entry: ShareEntry) -> str:
        places = self._shared.places(entry.file_id)
        return next((shared.path for shared in places if shared.name == entry.name), "")

    # ---- what the scanner reports, and what it is told

    def share(self, path: str, done: Callable[[str], None]) -> None:
        """Share a file or folder that lies elsewhere; `done` gets a line for the person."""
        if self._scanner is None:
            done("!! Nothing can be shared from elsewhere here.")
        else:
            add = partial(self._scanner.add_path, path)
            self._disk.run(add, _told_by(done, "is shared as soon as it is read", "It cannot be shared."))

    def unshare(self, name: str, path: str, done: Callable[[str], None]) -> None:
        """Share no longer what `share` has shared, by its name or path; `done` gets a line for the person."""
        if self._scanner is None:
            done("!! Nothing is shared from elsewhere here.")
        else:
            remove = partial(self._scanner.remove_path, name, path)
            self._disk.run(remove, _told_by(done, "is shared no longer", "It is shared as before."))

    def hold(self, name: str) -> None:
        """A download fills the top folder of this name: what is announced of it stays as it is until `release`."""
        if self._scanner is not None:
            self._scanner.hold(name)

    def release(self, name: str) -> None:
        """The scanner may share what has this name again; see `hold`."""
        if self._scanner is not None:
            self._scanner.release(name)

    def doubt(self, path: str) -> None:
        """A file turned out not to be what is announced: the scanner hashes it again."""
        if self._scanner is not None:
            self._scanner.doubt(path)

    def on_scanned(self, result: ScanResult) -> None:
        """The scanner found or lost something."""
        is_idle = not self._scans
        self._scans.extend(result.slices(SCANNED_AT_ONCE))
        if is_idle:
            self._take_in_scan()

    def when_scanned(self, then: Callable[[], None]) -> None:
        """`then` is called as soon as all that the scanner has reported is announced."""
        if self._scans:
            self._when_scanned.append(then)
        else:
            then()

    def _take_in_scan(self) -> None:
        """Take in a slice; the next has its turn after what else waits for this thread and for the disk."""
        scan = self._scans.popleft()
        for shared in scan.removed:
            self._shared.discard(shared.file_id, shared.path)
            if shared.file_id not in self._shared:
                self._contents.pop(shared.file_id, None)
        for shared in scan.added:
            self._shared.add(shared)
        if scan.left_out is not None:
            self._take_in_left_out(scan.left_out)
        for warning in scan.warnings:
            self._notify(Notice(warning))
        self._disk.run(partial(self._apply_scan, scan.removed, scan.added), self._on_scan_applied)
        if not self._scans:
            self.announce()
            waiting, self._when_scanned = self._when_scanned, []
            for then in waiting:
                then()

    def _take_in_left_out(self, left_out: List[Tuple[str, str]]) -> None:
        """The log has each, once."""
        known = set(self._left_out)
        new = [one for one in left_out if one not in known]
        self._left_out = left_out
        for start in range(0, len(new), LEFT_OUT_PER_LINE):
            log.info("not shared: %s", "; ".join(why_left_out(*one) for one in new[start : start + LEFT_OUT_PER_LINE]))

    def _apply_scan(self, removed: List[Any], added: List[Any]) -> Dict[bytes, AbstractSet[bytes]]:
        """On the disk thread; what is in the folders that came."""
        self._library.withdraw(removed)
        self._library.adopt(added)
        listings = [shared for shared in added if shared.is_folder]
        others = {shared.file_id: ids_of_more(shared.listing) for shared in listings if not shared.listed}
        found = {shared.file_id: ids_in(shared.listing) for shared in listings if shared.listed}
        return {file_id: ids.union(*(others[one] for one in ids & others.keys())) for file_id, ids in found.items()}

    def _on_scan_applied(self, contents: Any, error: Optional[Exception], now: float) -> None:
        if error is None:
            self._contents.update((file_id, ids) for file_id, ids in contents.items() if file_id in self._shared)
        if self._scans:
            self._take_in_scan()

    # ---- what comes by fetching

    def on_finished(self, shared: SharedFile, old_id: bytes = b"") -> None:
        """A download has its final name: it is shared from now on, and what it has replaced (`old_id`) no more."""
        gone = [replace(shared, file_id=old_id)] if old_id else []
        for old in gone:
            self._shared.discard(old.file_id, old.path)
        self._shared.add(shared)
        if self._scans:  # they are older, and may withdraw what was at its path: this is the last word
            self._scans.append(ScanResult([shared], gone))
        if self._scanner is not None:
            self._scanner.adopt(shared)
        if shared.listed:
            self.announce()

    def on_cache_changed(self, then: Callable[[], None] = lambda: None) -> None:
        """Ask the library what its cache holds, and announce it; then go on."""
        self._disk.run(self._look_into_cache, partial(self._on_cache_seen, then))

    def _look_into_cache(self) -> Tuple[Dict[bytes, Cached], Dict[bytes, AbstractSet[bytes]]]:
        """On the disk thread: what is cached, and the contents in the folders that are new there."""
        found: Dict[bytes, Cached] = {}
        contents: Dict[bytes, AbstractSet[bytes]] = {}
        for cached in self._library.cached():
            count, total = 1, cached.size
            if cached.is_folder:
                known = self._cached.get(cached.file_id)
                if known is not None:
                    count, total = known.file_count, known.total_size
                else:
                    try:
                        entries, packs = decode_listing(self._library.contents(cached.file_id))
                    except LibraryError:
                        if "/" in cached.label:  # a pack, or the other names in a folder: served, and no folder itself
                            found[cached.file_id] = Cached(cached.size, cached.label, False, 1, cached.size)
                        continue
                    count = sum(not entry.is_folder for entry in entries)
                    total = sum(entry.size for entry in entries)
                    contents[cached.file_id] = ids_of(entries, packs)
            found[cached.file_id] = Cached(cached.size, cached.label, cached.is_folder, count, total)
        return found, contents

    def _on_cache_seen(
        self, then: Callable[[], None], seen: Any, error: Optional[Exception], now: float
    ) -> None:
        if error is None:
            self._cached, contents = seen
            self._contents.update(contents)
            for file_id in [one for one in self._contents if one not in self._shared and one not in self._cached]:
                del self._contents[file_id]
            self.announce()
        then()

    # ---- what the supernode is told

    def announce(self) -> None:
        """Tell the supernode what came and went."""
        if not self._members.has_supernode:
            return  # `announce_anew` tells everything
        wanted, told = self.to_announce(), self._announced
        gone = [entry for key, entry in told.items() if wanted.get(key) != entry]
        new = {key: entry for key, entry in wanted.items() if told.get(key) != entry}
        now_told = _first_of(new)
        self._announced = {key: entry for key, entry in told.items() if wanted.get(key) == entry}
        self._announced.update(now_told)
        for kind, entries in ((ShareRemove, gone), (ShareAdd, list(now_told.values()))):
            for start in range(0, len(entries), SHARES_PER_PAGE):
                self._members.send_to_supernode(kind(tuple(entries[start : start + SHARES_PER_PAGE])))
        if len(new) > len(now_told):  # the rest after what else waits
            self._disk.run(lambda: None, lambda *_: self.announce())

    def announce_anew(self) -> Sequence[ShareEntry]:
        """There is a supernode, perhaps a new one: the first portion, of which it is to be told the digest."""
        self._announced = _first_of(self.to_announce())
        return list(self._announced.values())

    def forget_announced(self) -> None:
        """The network was left."""
        self._announced.clear()

    def send_shares(self) -> None:
        """The supernode wants to know all that it should know of us."""
        entries = list(self._announced.values())
        for start in range(0, max(1, len(entries)), SHARES_PER_PAGE):
            page = SharePage(start, len(entries), tuple(entries[start : start + SHARES_PER_PAGE]))
            self._members.send_to_supernode(page)

    def to_announce(self) -> Dict[ShareKey, ShareEntry]:
        """All that is to be known of us; of a cached content also if it is shared as part of a folder."""
        wanted: Dict[ShareKey, ShareEntry] = {}
        if not self._is_sharing:
            return wanted
        for file_id, cached in self._cached.items():
            is_listed = any(shared.listed for shared in self._shared.places(file_id))
            if not is_listed and "/" not in cached.label:
                wanted[file_id, cached.label] = _entry_of(file_id, cached.label, cached, True)
        for shared in self._shared.all():  # in the order in which they were found: the first stay the first
            if not shared.listed:
                continue
            if len(wanted) >= SHARES_MAX:
                self._warn_too_many()
                return wanted
            wanted[shared.file_id, shared.name] = _entry_of(shared.file_id, shared.name, shared, False)
        return wanted

    def _warn_too_many(self) -> None:
        if not self._warned_too_many:
            self._warned_too_many = True
            text = f"Only the first {SHARES_MAX} files are announced; put the rest into a folder."
            self._notify(Notice(text))


def _entry_of(file_id: bytes, name: str, here: Any, is_cached: bool) -> ShareEntry:
    return ShareEntry(file_id, here.size, name, here.is_folder, here.file_count, here.total_size, is_cached)


def _told_by(done: Callable[[str], None], what: str, usual: str) -> Callable[[Any, Optional[Exception], float], None]:
    """Tells a person what became of a path; `usual`: why not, where the disk has no sentence for it."""

    def told(real: Any, error: Optional[Exception], now: float) -> None:
        done(f"* {real} {what}" if error is None else f"!! {getattr(error, 'sentence', usual)}")

    return told


def _first_of(entries: Dict[ShareKey, ShareEntry]) -> Dict[ShareKey, ShareEntry]:
    """As many as are told in one turn."""
    return dict(list(entries.items())[:ANNOUNCED_AT_ONCE])
