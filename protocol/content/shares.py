"""What the scanner finds: contents that this node shares, folders as one walk saw them, and what could not be shared.

Pure: `disk/scanner.py` looks at the disk, and here is what it speaks of.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Collection, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple, Union

from protocol.content.listing import FolderEntry, Pack, encode_folder, encode_more
from protocol.content.pieces import FILE_SIZE_MAX, digests_of, identity_of
from protocol.content.traits import Traits, encode_traits
from protocol.content.troubles import shown, size_text
from protocol.results import LeftOut

LEFT_OUT_NAMED_MAX = 10_000    # names kept of what is not shared
SCAN_FILES_MAX = 200_000       # files looked at in one pass: each known one takes about 1.3 KB of memory

Fingerprint = Tuple[int, int, int]   # size, mtime_ns, inode


@dataclass(frozen=True)
class SharedFile:
    """A content that this node shares: a file, or a folder as the bytes of its listing."""

    name: str                  # the label: a relative path with "/", or the top folder's name
    path: str
    size: int
    mtime_ns: int
    inode: int
    digests: bytes = field(repr=False)
    file_id: bytes
    is_folder: bool = False
    listed: bool = True        # False inside a shared folder: served by id, announced as part of the folder
    listing: bytes = field(default=b"", repr=False)
    file_count: int = 1
    total_size: int = 0
    members: Tuple[Tuple[str, Fingerprint], ...] = field(default=(), repr=False)   # of a pack: the files in it
    is_executable: bool = False
    folder_traits: bytes = field(default=b"", repr=False)   # what is told beside a folder's listing

    @property
    def fingerprint(self) -> Fingerprint:
        """What must not change between announcing and sending."""
        return self.size, self.mtime_ns, self.inode


    @property
    def traits(self) -> bytes:
        """What is told beside the content."""
        return self.folder_traits if self.is_folder else encode_traits((), [traits_of(self)])


def traits_of(shared: SharedFile) -> Traits:
    """What is told beside this file."""
    return Traits(shared.is_executable, shared.mtime_ns)


def shared_file(name: str, path: str, fingerprint: Fingerprint, digests: bytes, listed: bool,
                is_executable: bool = False) -> SharedFile:
    """One that lies at `path`; its id follows from its size and digests."""
    size, mtime_ns, inode = fingerprint
    return SharedFile(name, path, size, mtime_ns, inode, digests, identity_of(size, digests), listed=listed,
                      total_size=size, is_executable=is_executable)


def shared_pack(name: str, path: str, pack: Pack, digests: bytes,
                members: Tuple[Tuple[str, Fingerprint], ...]) -> SharedFile:
    """Many small files as one content, with the state in which each of them was read."""
    return SharedFile(name, path, pack.size, 0, 0, digests, identity_of(pack.size, digests), listed=False,
                      file_count=len(members), total_size=pack.size, members=members)


def shared_folder(name: str, path: str, entries: List[FolderEntry], packs: Sequence[SharedFile] = (),
                  traits: bytes = b"") -> SharedFile:
    """The listing of a shared folder of that name, with its packs."""
    return _listed(name, path, encode_folder(entries, [pack.file_id for pack in packs]), entries, True, traits)


def shared_more(name: str, path: str, entries: List[FolderEntry]) -> SharedFile:
    """The listing of those entries of a folder whose names not all can keep."""
    return _listed(name, path, encode_more(entries), entries, False)


def with_more(folder: SharedFile, more: SharedFile) -> SharedFile:
    """A folder with all that is in it, as it is told to people."""
    return replace(folder, file_count=folder.file_count + more.file_count,
                   total_size=folder.total_size + more.total_size)


def _listed(name: str, path: str, listing: bytes, entries: List[FolderEntry], listed: bool,
            traits: bytes = b"") -> SharedFile:
    size, digests = len(listing), digests_of(listing)
    return SharedFile(name, path, size, 0, 0, digests, identity_of(size, digests), True, listed, listing,
                      sum(not entry.is_folder for entry in entries), sum(entry.size for entry in entries),
                      folder_traits=traits)


class Standing(NamedTuple):
    """How far a scan is: all files that are shared or are to be, and of these what is still to be hashed."""

    files: int
    size: int
    waiting: int
    waiting_size: int


class SharesById:
    """Shared contents by their ids, and the places where each lies.

    Nearly each lies at one place only: a dict for each would cost more memory than all else that is known of it, and
    the garbage collector, which looks at every dict, half of its time.
    """

    def __init__(self) -> None:
        self._by_id: Dict[bytes, Union[SharedFile, Dict[str, SharedFile]]] = {}   # the only one, or all by path

    def __contains__(self, file_id: bytes) -> bool:
        return file_id in self._by_id

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._by_id)

    def places(self, file_id: bytes) -> Collection[SharedFile]:
        """Where a content lies, in the order in which it was found there; none if it is not shared."""
        known = self._by_id.get(file_id)
        return () if known is None else known.values() if isinstance(known, dict) else (known,)

    def first(self, file_id: bytes) -> Optional[SharedFile]:
        """One of them; which is all the same to who asks what it is."""
        return next(iter(self.places(file_id)), None)

    def at(self, file_id: bytes, path: str) -> Optional[SharedFile]:
        """The content as it lies at this place, if it does."""
        known = self._by_id.get(file_id)
        if isinstance(known, dict):
            return known.get(path)
        return known if known is not None and known.path == path else None

    def all(self) -> Iterator[SharedFile]:
        """All that is shared; the contents in the order in which they were found."""
        for known in self._by_id.values():
            if isinstance(known, dict):
                yield from known.values()
            else:
                yield known

    def add(self, shared: SharedFile) -> None:
        """Take in a content at a place; what was known of the same there is replaced."""
        known = self._by_id.get(shared.file_id)
        if isinstance(known, dict):
            known[shared.path] = shared
        elif known is None or known.path == shared.path:
            self._by_id[shared.file_id] = shared
        else:
            self._by_id[shared.file_id] = {known.path: known, shared.path: shared}

    def discard(self, file_id: bytes, path: str) -> None:
        """A content is no longer at a place, if it was."""
        known = self._by_id.get(file_id)
        if isinstance(known, dict):
            known.pop(path, None)
        elif known is not None and known.path == path:
            known = None
        if not known:
            self._by_id.pop(file_id, None)


@dataclass
class ScanResult:
    """What a pass, or a step of it, found. Apply `removed` before `added`: a changed file is in both."""

    added: List[SharedFile] = field(default_factory=list)
    removed: List[SharedFile] = field(default_factory=list)
    warnings: List[str] = field(default_factory=list)
    left_out: Optional[List[Tuple[str, str]]] = None    # all that is not shared, as kind and name; None: as before

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.warnings or self.left_out is not None)

    def take(self, step: ScanResult) -> None:
        """What a further step found; of what is not shared, the last one that says so knows all."""
        self.added.extend(step.added)
        self.removed.extend(step.removed)
        self.warnings.extend(step.warnings)
        self.left_out = step.left_out if step.left_out is not None else self.left_out

    def slices(self, size: int) -> Iterator[ScanResult]:
        """The same in steps of so many contents at most, to be applied in this order; one at least."""
        before = len(self.removed)
        for start in range(0, max(before + len(self.added), 1), size):
            end = start + size
            added = self.added[max(start - before, 0):max(end - before, 0)]
            first = start == 0
            yield ScanResult(added, self.removed[start:end], self.warnings if first else [],
                             self.left_out if first else None)


class Found(NamedTuple):
    name: str
    listed: bool
    fingerprint: Fingerprint
    changed_ns: int = 0              # when anything of it was changed last; 0: not known
    is_executable: bool = False


@dataclass
class Top:
    """A shared folder as one walk saw it."""

    name: str
    members: List[Tuple[str, str]] = field(default_factory=list)     # path inside the folder, path on disk
    empty: List[str] = field(default_factory=list)
    waiting: int = 0                                                 # members that are still to be hashed
    left_out: Dict[str, LeftOut] = field(default_factory=dict)       # what of it is not shared, by kind

    def wait(self) -> None:
        """One more member is still to be hashed."""
        self.waiting += 1

    def on_hashed(self) -> None:
        """One less is, whether it is shared now or not."""
        self.waiting -= 1

    def leave_out(self, kind: str, path: str) -> None:
        """One more of it is not shared."""
        before = self.left_out.get(kind, LeftOut(kind, 0, path))
        self.left_out[kind] = before._replace(count=before.count + 1)


_WARNINGS = {
    "folder": "The shared folder cannot be read; it is shared again when it is back",
    "unreadable": "cannot be read and is not shared",
    "broken": "cannot be read, for the disk reports an error, and is not shared",
    "short": "{0}: the shared folder is looked at again later",
    "link": "is a link and is not shared",
    "special": "is no ordinary file and is not shared",
    "deep": "has too long a name, or lies too deep, and is not shared",
    "name": "has a name that other systems cannot keep and is not shared",
    "twin": "has the same name as another on some systems and is not shared with its folder",
    "changing": "is still changing; it is shared when it rests",
    "many": f"is beyond the {SCAN_FILES_MAX} files that are looked at and is not shared",
    "huge": f"is larger than {size_text(FILE_SIZE_MAX)} and is not shared",
    "big": "has too many files to be listed and is not shared as a folder",
}


def why_left_out(kind: str, name: str) -> str:
    """A line for one that is not shared."""
    return f"{shown(name, 1000)} {_WARNINGS[kind]}"


class Troubles:
    """What a pass could not share: counted by kind, with one example each, and the names of the first of them."""

    def __init__(self) -> None:
        self._seen: Dict[str, Tuple[int, str]] = {}
        self.left_out: List[Tuple[str, str]] = []      # kind and name

    def add(self, kind: str, name: str) -> None:
        """Count one more of a kind."""
        count, example = self._seen.get(kind, (0, name))
        self._seen[kind] = count + 1, example
        if kind not in ("folder", "short") and len(self.left_out) < LEFT_OUT_NAMED_MAX:
            self.left_out.append((kind, name))

    def kinds(self) -> set[str]:
        """The kinds seen."""
        return set(self._seen)

    def sentences(self, known: set[str]) -> List[str]:
        """One sentence for each kind that the person does not know yet."""
        return [self._sentence(kind) for kind in self._seen if kind not in known]

    def _sentence(self, kind: str) -> str:
        count, example = self._seen[kind]
        others = f" (and {count - 1} more)" if count > 1 else ""
        if kind in ("folder", "short"):
            return f"{_WARNINGS[kind].format(example)}."
        return f"{shown(example)} {_WARNINGS[kind]}{others}."
