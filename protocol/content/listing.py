"""A folder as a content: its listing of paths and ids, and the packs that carry many small files at once.

A listing holds what every system can keep and every version takes. Files with other names or deeper paths stand in
a listing of their own (`encode_more`), a content that the first one names: by an empty, hidden folder, which an earlier
version makes and leaves alone. So the folder's id stands for all of it, and who cannot keep some keeps the rest.
"""

from __future__ import annotations

import re
import struct
from typing import Callable, FrozenSet, Iterable, List, NamedTuple, Optional, Tuple

from protocol.content.names import check_any, check_name, check_portable, fold
from protocol.content.pieces import DIGEST_BYTES, FILE_SIZE_MAX, KIB, MIB, digest_at
from protocol.content.troubles import BadName, ErrorKind, LibraryError

FOLDER_ENTRIES_MAX = 100_000  # files, empty folders, and the folders that their paths imply: each is made here
FOLDER_BYTES_MAX = 32 * MIB    # of one listing: it is kept in memory
SMALL_FILE_MAX = 128 * KIB     # a folder's files up to this size travel in packs
PACK_BYTES_MAX = 16 * MIB      # of one pack: it is kept in memory
PACK_FILES_MIN = 8             # fewer travel alone


class FolderEntry(NamedTuple):
    """One line of a folder's listing: a file, or an empty folder (size 0, no id)."""

    path: str
    size: int
    file_id: bytes
    is_folder: bool


_LISTING_HEADER = struct.Struct(">4sI")         # magic, entries
_LISTING_ENTRY = struct.Struct(">BHQ")          # kind, bytes of the path, size; then path, then the id of a file
_LISTING_MAGIC = b"LST1"
_MORE = re.compile(r"\.more-([1-9][0-9]{0,7})-([0-9a-f]{64})")   # size and id of the listing of all other names


class PathSet:
    """The paths of one folder, so that none is another's twin on a system that ignores case, nor lies inside a file."""

    def __init__(self) -> None:
        self._leaves: set[str] = set()
        self._parents: set[str] = set()

    def __len__(self) -> int:
        """How many entries the folder has, with all folders that the paths imply."""
        return len(self._leaves) + len(self._parents)

    def add(self, path: str) -> bool:
        """Whether the path fits beside those before it."""
        folded = fold(path)
        if folded in self._leaves or folded in self._parents:
            return False
        parents = []
        parent = folded.rpartition("/")[0]
        while parent and parent not in self._parents:
            if parent in self._leaves:
                return False
            parents.append(parent)
            parent = parent.rpartition("/")[0]
        self._parents.update(parents)
        self._leaves.add(folded)
        return True


class Pack(NamedTuple):
    """Small files of a folder, one after the other: a content of its own, that needs one list of pieces for all."""

    file_id: bytes
    size: int
    members: Tuple[FolderEntry, ...]


def packs_in(entries: Iterable[FolderEntry]) -> List[Pack]:
    """How the small files of a listing are packed, in its order; every node computes it alike, the ids come with it."""
    packs: List[Pack] = []
    members: List[FolderEntry] = []
    size, seen = 0, set()
    for entry in entries:
        if not 0 < entry.size <= SMALL_FILE_MAX or entry.file_id in seen:
            continue
        if size + entry.size > PACK_BYTES_MAX:
            packs.append(Pack(b"", size, tuple(members)))
            members, size = [], 0
        seen.add(entry.file_id)
        members.append(entry)
        size += entry.size
    packs.append(Pack(b"", size, tuple(members)))
    return [pack for pack in packs if len(pack.members) >= PACK_FILES_MIN]


def _malformed_listing() -> LibraryError:
    return LibraryError(ErrorKind.MALFORMED, "The folder's listing is malformed.")


def _check_entry(entry: FolderEntry, paths: PathSet, check: Callable[[str], str] = check_portable) -> None:
    check(entry.path)
    well_formed = (entry.size == 0 and not entry.file_id) if entry.is_folder else len(entry.file_id) == DIGEST_BYTES
    if not well_formed or not 0 <= entry.size <= FILE_SIZE_MAX or not paths.add(entry.path):
        raise _malformed_listing()
    if len(paths) > FOLDER_ENTRIES_MAX:
        sentence = f"A folder of more than {FOLDER_ENTRIES_MAX} files and folders is refused."
        raise LibraryError(ErrorKind.TOO_BIG, sentence)


def in_order(entries: Iterable[FolderEntry]) -> List[FolderEntry]:
    """The entries of a folder in the order of its listing."""
    return sorted(entries, key=lambda entry: entry.path.encode("utf-8", "surrogatepass"))


def more_entry(listing: bytes, file_id: bytes) -> FolderEntry:
    """The entry by which a folder's listing names the listing of all other names in it."""
    return FolderEntry(f".more-{len(listing)}-{file_id.hex()}", 0, b"", True)


class More(NamedTuple):
    """The listing of all other names in a folder: a content that is fetched, too."""

    file_id: bytes
    size: int


def without_more(entries: Iterable[FolderEntry]) -> Tuple[List[FolderEntry], Optional[More]]:
    """The entries of a folder without the one that names the listing of all other names; and that, if there is one."""
    kept: List[FolderEntry] = []
    more = None
    for entry in entries:
        found = _MORE.fullmatch(entry.path) if entry.is_folder else None
        if found is None:
            kept.append(entry)
        elif int(found[1]) <= FOLDER_BYTES_MAX:
            more = More(bytes.fromhex(found[2]), int(found[1]))
    return kept, more


def encode_more(entries: Iterable[FolderEntry]) -> bytes:
    """Encode the listing of those entries of a folder whose names not all can keep."""
    return _encode(in_order(entries), (), check_any)


def decode_more(listing: bytes) -> Tuple[List[FolderEntry], List[FolderEntry]]:
    """Such entries that can be kept here, and those that cannot; or `LibraryError`."""
    try:
        magic, count = _LISTING_HEADER.unpack_from(listing)
        if magic != _LISTING_MAGIC or count > FOLDER_ENTRIES_MAX or len(listing) > FOLDER_BYTES_MAX:
            raise _malformed_listing()
        entries, end = _decode_entries(listing, count, check_any)
    except (struct.error, UnicodeDecodeError) as error:
        raise _malformed_listing() from error
    if end != len(listing):
        raise _malformed_listing()
    kept = [entry for entry in entries if _can_be_kept(entry.path)]
    return kept, [entry for entry in entries if not _can_be_kept(entry.path)]


def _can_be_kept(path: str) -> bool:
    try:
        return bool(check_name(path))
    except BadName:
        return False


def encode_folder(entries: Iterable[FolderEntry], pack_ids: Iterable[bytes] = ()) -> bytes:
    """Encode a folder's listing: the same entries give the same bytes. Behind them go the ids of its packs, or none."""
    return _encode(in_order(entries), pack_ids, check_portable)


def _encode(ordered: List[FolderEntry], pack_ids: Iterable[bytes], check: Callable[[str], str]) -> bytes:
    paths = PathSet()
    parts = [_LISTING_HEADER.pack(_LISTING_MAGIC, len(ordered))]
    for entry in ordered:
        _check_entry(entry, paths, check)
        path = entry.path.encode("utf-8")
        parts += (_LISTING_ENTRY.pack(entry.is_folder, len(path), entry.size), path, entry.file_id)
    listing = b"".join((*parts, *pack_ids))
    if len(ordered) > FOLDER_ENTRIES_MAX or len(listing) > FOLDER_BYTES_MAX:
        raise LibraryError(ErrorKind.TOO_BIG, f"A folder of {len(ordered)} files is too big to be listed.")
    return listing


def decode_listing(listing: bytes) -> Tuple[List[FolderEntry], List[Pack]]:
    """A folder's entries and packs, if it has any, or `LibraryError`: every path in it is a checked name."""
    try:
        magic, count = _LISTING_HEADER.unpack_from(listing)
        if magic != _LISTING_MAGIC or count > FOLDER_ENTRIES_MAX or len(listing) > FOLDER_BYTES_MAX:
            raise _malformed_listing()
        entries, end = _decode_entries(listing, count)
    except (struct.error, UnicodeDecodeError) as error:
        raise _malformed_listing() from error
    if end == len(listing):
        return entries, []
    packs, ids = packs_in(entries), listing[end:]
    if len(ids) != len(packs) * DIGEST_BYTES:
        raise _malformed_listing()
    by_id = {digest_at(ids, place): pack for place, pack in enumerate(packs)}
    return entries, [pack._replace(file_id=file_id) for file_id, pack in by_id.items()]  # of an id said twice, the last


def ids_in(listing: bytes) -> FrozenSet[bytes]:
    """Every content that a folder's listing names: its files, its packs, and the listing of all other names in it."""
    entries, packs = decode_listing(listing)
    more = without_more(entries)[1]
    return ids_of(entries, packs) | ({more.file_id} if more is not None else frozenset())


def ids_of_more(listing: bytes) -> FrozenSet[bytes]:
    """Every content that the listing of all other names in a folder names."""
    kept, others = decode_more(listing)
    return ids_of([*kept, *others], ())


def ids_of(entries: Iterable[FolderEntry], packs: Iterable[Pack]) -> FrozenSet[bytes]:
    """The same, of a listing that is decoded already."""
    return frozenset(entry.file_id for entry in entries if entry.file_id) | {pack.file_id for pack in packs}


def _decode_entries(listing: bytes, count: int, check: Callable[[str], str] = check_portable
                    ) -> Tuple[List[FolderEntry], int]:
    """So many entries, in the order of their paths, and where the next byte stands; ValueError if one is malformed."""
    entries, paths, position, last = [], PathSet(), _LISTING_HEADER.size, b""
    for _ in range(count):
        kind, path_bytes, size = _LISTING_ENTRY.unpack_from(listing, position)
        position += _LISTING_ENTRY.size
        path = listing[position:position + path_bytes]
        position += path_bytes
        file_id = b"" if kind else listing[position:position + DIGEST_BYTES]
        position += len(file_id)
        if kind > 1 or path <= last or len(path) != path_bytes:
            raise _malformed_listing()
        entry = FolderEntry(path.decode("utf-8"), size, file_id, bool(kind))
        _check_entry(entry, paths, check)
        entries.append(entry)
        last = path
    return entries, position
