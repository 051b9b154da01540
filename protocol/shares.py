"""What the scanner finds: contents that this node shares, folders as one walk saw them, and what could not be shared.

Pure: `library.py` looks at the disk, and here is what it speaks of.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Dict, List, NamedTuple, Sequence, Tuple

from protocol.content import FolderEntry, Pack, digests_of, encode_folder, identity_of, shown

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

    @property
    def fingerprint(self) -> Fingerprint:
        """What must not change between announcing and sending."""
        return self.size, self.mtime_ns, self.inode


def shared_file(name: str, path: str, fingerprint: Fingerprint, digests: bytes, listed: bool) -> SharedFile:
    size, mtime_ns, inode = fingerprint
    return SharedFile(name, path, size, mtime_ns, inode, digests, identity_of(size, digests), listed=listed,
                      total_size=size)


def shared_pack(name: str, path: str, pack: Pack, digests: bytes,
                members: Tuple[Tuple[str, Fingerprint], ...]) -> SharedFile:
    return SharedFile(name, path, pack.size, 0, 0, digests, identity_of(pack.size, digests), listed=False,
                      file_count=len(members), total_size=pack.size, members=members)


def shared_folder(name: str, path: str, entries: List[FolderEntry], packs: Sequence[SharedFile] = ()) -> SharedFile:
    listing = encode_folder(entries, [pack.file_id for pack in packs])
    digests = digests_of(listing)
    return SharedFile(name, path, len(listing), 0, 0, digests, identity_of(len(listing), digests), True, True, listing,
                      sum(not entry.is_folder for entry in entries), sum(entry.size for entry in entries))


@dataclass
class ScanResult:
    """What a pass, or a step of it, found. Apply `removed` before `added`: a changed file is in both."""

    added: List[SharedFile] = field(default_factory=list)
    removed: List[SharedFile] = field(default_factory=list)
    warnings: List[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.warnings)


class Found(NamedTuple):
    name: str
    listed: bool
    fingerprint: Fingerprint


@dataclass
class Top:
    """A shared folder as one walk saw it."""

    name: str
    members: List[Tuple[str, str]] = field(default_factory=list)     # path inside the folder, path on disk
    empty: List[str] = field(default_factory=list)
    waiting: int = 0                                                 # members that are still to be hashed


_WARNINGS = {
    "folder": "The shared folder cannot be read; it is shared again when it is back",
    "unreadable": "cannot be read and is not shared",
    "link": "is a link and is not shared",
    "special": "is no ordinary file and is not shared",
    "name": "has a name that other systems cannot hold and is not shared",
    "twin": "has the same name as another on some systems and is not shared with its folder",
    "changing": "is still changing; it is shared when it rests",
    "many": f"is beyond the {SCAN_FILES_MAX} files that are looked at and is not shared",
    "big": "has too many files to be listed and is not shared as a folder",
}


class Troubles:
    """What a pass could not share: counted by kind, with one example each."""

    def __init__(self) -> None:
        self._seen: Dict[str, Tuple[int, str]] = {}

    def add(self, kind: str, name: str) -> None:
        """Count one more of a kind."""
        count, example = self._seen.get(kind, (0, name))
        self._seen[kind] = count + 1, example

    def kinds(self) -> set[str]:
        """The kinds seen."""
        return set(self._seen)

    def sentences(self, known: set[str]) -> List[str]:
        """One sentence for each kind that the person does not know yet."""
        return [self._sentence(kind) for kind in self._seen if kind not in known]

    def _sentence(self, kind: str) -> str:
        count, example = self._seen[kind]
        others = f" (and {count - 1} more)" if count > 1 else ""
        return f"{_WARNINGS[kind]}." if kind == "folder" else f"{shown(example)} {_WARNINGS[kind]}{others}."
