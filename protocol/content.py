"""What a shared content is: its pieces and identity, the names it may bear, and the listing of a folder.

Pure: nothing here touches a disk. `library.py` keeps contents, the roles speak of them, and both go by these rules.
A name from another node is refused or used as it stands, never repaired. Every refusal is a `LibraryError` with a
sentence that can be shown to a person.
"""

from __future__ import annotations

import hashlib
import re
import struct
import unicodedata
from enum import Enum
from typing import FrozenSet, Iterable, List, NamedTuple, Tuple, Union

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
PIECE_SIZE_MIN = 64 * KIB      # below it the digests' own traffic would show
PIECE_SIZE_MAX = MIB           # for files up to 4 GiB; beyond, pieces grow so that no file has more than 4096
PIECES_WANTED = 256            # enough for many to give each other parts of one file; each piece costs each of them
PIECES_MAX = 4096
LARGE_FILE = 4 * GIB
FILE_SIZE_MAX = 1 << 44        # bytes (16 TiB): pieces of larger ones have places that a PieceData cannot tell
DIGEST_BYTES = 32
NAME_BYTES_MAX = 1024
COMPONENT_BYTES_MAX = 240      # the file system's 255, less room for " (2)" and the like
COMPONENTS_MAX = 16
HIDDEN = ".node"               # the node's own folder, and the start of its temporary names
FOLDER_ENTRIES_MAX = 100_000  # files, empty folders, and the folders that their paths imply: each is made here
FOLDER_BYTES_MAX = 32 * MIB    # of one listing: it is kept in memory
SMALL_FILE_MAX = 128 * KIB     # a folder's files up to this size travel in packs
PACK_BYTES_MAX = 16 * MIB      # of one pack: it is kept in memory
PACK_FILES_MIN = 8             # fewer travel alone


# ---- Errors ----------------------------------------------------------------------------------------------------------

class ErrorKind(Enum):
    """What went wrong, for code; the sentence is for people."""

    UNKNOWN = "unknown"        # no such content here
    MISSING = "missing"        # known, but this piece is not here yet
    CHANGED = "changed"        # the file is no longer what was announced
    MALFORMED = "malformed"    # what another node gave is not well-formed
    NAME = "name"              # a name that is refused, or too long for this disk
    FULL = "full"              # disk, quota or cache has no room
    TOO_BIG = "too big"
    READ_ONLY = "read-only"
    DENIED = "denied"
    GONE = "gone"              # a file or folder is not there
    LINK = "link"              # a link or a file stands where a folder should be
    IN_USE = "in use"
    DISK = "disk"              # the disk or the system failed otherwise
    SHORT = "short"            # the system is short of something, such as descriptors or memory: it passes


class LibraryError(Exception):
    """A refusal or failure: `kind` for code, `sentence` for people."""

    def __init__(self, kind: ErrorKind, sentence: str) -> None:
        super().__init__(sentence)
        self.kind = kind
        self.sentence = sentence


class BadName(LibraryError):
    """A name that could leave the folder, mislead a person, or not exist on another system."""

    def __init__(self, sentence: str) -> None:
        super().__init__(ErrorKind.NAME, sentence)


class FolderInUse(LibraryError):
    """Another running node has the folder."""

    def __init__(self, sentence: str) -> None:
        super().__init__(ErrorKind.IN_USE, sentence)


def size_text(size: int) -> str:
    """Show a size to a person in decimal units: `4.2 GB`."""
    if size < 1000:
        return f"{size} B"
    value, units = size / 1000, ["PB", "TB", "GB", "MB", "kB"]
    while value >= 999.95 and len(units) > 1:
        value /= 1000
        units.pop()
    return f"{value:.1f} {units[-1]}"


def shown(name: str, longest: int = 60) -> str:
    """Quote a name so that a terminal takes no orders from it."""
    short = name if len(name) <= longest else name[:longest - 3] + "..."
    return '"' + "".join(c if c.isprintable() else f"\\u{{{ord(c):x}}}" for c in short) + '"'


# ---- Names -----------------------------------------------------------------------------------------------------------

# Refused on every system, so that a folder is the same everywhere (and `C:x` or `a:stream` mean nothing on Windows).
_FORBIDDEN_CHARACTERS = frozenset(':\\<>"|?*')
# Controls, format and bidi controls, surrogates, line ends; private use, because WSL and SMB map ":" and "\" there.
_FORBIDDEN_CATEGORIES = frozenset(("Cc", "Cf", "Cs", "Co", "Zl", "Zp"))
_DEVICE = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³]) *(\.|$)", re.IGNORECASE)
_SHORT_HIDDEN = re.compile(r"node~[0-9]")   # what Windows may call `.node` in its 8.3 form


# What nearly every name looks like: no need to look at it part by part. A device's name is looked at closer.
_PLAIN_PART = r"(?!con|prn|aux|nul|com|lpt|node~)[a-z0-9_()+-]+(?:[. ][a-z0-9_()+-]+)*"
_PLAIN = re.compile(f"{_PLAIN_PART}(?:/{_PLAIN_PART}){{0,{COMPONENTS_MAX - 1}}}", re.IGNORECASE | re.ASCII)


def check_name(name: str) -> str:
    """Return a name from another node (a relative path with `/`) as it is, or raise `BadName`: it is never repaired."""
    if not isinstance(name, str) or not name:
        raise BadName("An empty name is refused.")
    fault = _name_fault(name)
    if fault:
        raise BadName(f"The name {shown(name)} is refused: {fault}.")
    return name


def _name_fault(name: str) -> str:
    if len(name) <= COMPONENT_BYTES_MAX and _PLAIN.fullmatch(name):
        return ""
    if len(name) > NAME_BYTES_MAX:
        return "it is too long"
    try:
        size = len(name.encode("utf-8"))
    except UnicodeEncodeError:
        return "it is not valid Unicode"
    components = name.split("/")
    if size > NAME_BYTES_MAX or len(components) > COMPONENTS_MAX:
        return "it is too long"
    return next(filter(None, map(_component_fault, components)), "")


def _component_fault(component: str) -> str:
    if component in ("", ".", ".."):
        return "it does not stay inside the folder"
    if len(component.encode("utf-8")) > COMPONENT_BYTES_MAX:
        return f"a part of it is longer than {COMPONENT_BYTES_MAX} bytes"
    if not _FORBIDDEN_CHARACTERS.isdisjoint(component):
        return "it holds a character that some systems do not allow"
    if not (component.isascii() and component.isprintable()) and _has_hidden_characters(component):
        return "it holds control or invisible characters"
    if component[-1] in ". ":
        return "a part of it ends in a dot or a space"
    if _DEVICE.match(component):
        return "it is a device name on Windows"
    folded = component.casefold()
    if folded.startswith(HIDDEN) or _SHORT_HIDDEN.match(folded):
        return "it belongs to the node itself"
    return ""


def _has_hidden_characters(text: str) -> bool:
    return any(unicodedata.category(character) in _FORBIDDEN_CATEGORIES for character in text)


def fold(name: str) -> str:
    """The form in which names are one file on systems that ignore case and Unicode form."""
    if name.isascii():
        return name.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


# ---- Pieces and identity ---------------------------------------------------------------------------------------------

def piece_size_of(size: int) -> int:
    """The piece size in bytes for a file of this size: a power of two that every node computes alike."""
    wanted = -(-size // (PIECES_MAX if size > LARGE_FILE else PIECES_WANTED))
    power = 1 << max(0, wanted - 1).bit_length()
    return power if size > LARGE_FILE else min(max(power, PIECE_SIZE_MIN), PIECE_SIZE_MAX)


def piece_count_of(size: int) -> int:
    """How many pieces a file of this size has; an empty file has none."""
    return -(-size // piece_size_of(size))


def piece_length(size: int, index: int) -> int:
    """The length of one piece in bytes: only the last may be shorter."""
    piece_size = piece_size_of(size)
    return min(piece_size, size - index * piece_size)


def identity_of(size: int, digests: bytes) -> bytes:
    """The id of a content: SHA-256 over its size (8 bytes, big-endian) and the SHA-256 of each piece."""
    return hashlib.sha256(size.to_bytes(8, "big") + digests).digest()


def digest_at(digests: bytes, index: int) -> bytes:
    """The digest of one piece."""
    return digests[index * DIGEST_BYTES:(index + 1) * DIGEST_BYTES]


def digests_of(content: bytes) -> bytes:
    """The piece digests of a content that is in memory."""
    piece_size = piece_size_of(len(content))
    view = memoryview(content)
    return b"".join(
        hashlib.sha256(view[start:start + piece_size]).digest() for start in range(0, len(content), piece_size)
    )


def check_manifest(file_id: bytes, size: int, digests: bytes) -> None:
    """Raise `LibraryError` unless size and digests belong to the id (so they may come from any source)."""
    if type(size) is not int or not 0 <= size <= FILE_SIZE_MAX:
        raise LibraryError(ErrorKind.MALFORMED, "The declared size is impossible.")
    if len(digests) != piece_count_of(size) * DIGEST_BYTES or identity_of(size, digests) != file_id:
        raise LibraryError(ErrorKind.MALFORMED, "The list of piece digests does not belong to this file.")


def is_true_manifest(file_id: bytes, size: int, digests: bytes) -> bool:
    """The same as an answer."""
    try:
        check_manifest(file_id, size, digests)
    except LibraryError:
        return False
    return True


def has_piece(bitmap: Union[bytes, bytearray], index: int) -> bool:
    """Whether bit `index` is set (bit i of byte i // 8, most significant first)."""
    return bool(bitmap[index >> 3] & 0x80 >> (index & 7))


def set_piece(bitmap: bytearray, index: int) -> None:
    """Set bit `index`."""
    bitmap[index >> 3] |= 0x80 >> (index & 7)


def clear_piece(bitmap: bytearray, index: int) -> None:
    """Clear bit `index`."""
    bitmap[index >> 3] &= ~(0x80 >> (index & 7))


# ---- Folder listings -------------------------------------------------------------------------------------------------

class FolderEntry(NamedTuple):
    """One line of a folder's listing: a file, or an empty folder (size 0, no id)."""

    path: str
    size: int
    file_id: bytes
    is_folder: bool


_LISTING_HEADER = struct.Struct(">4sI")         # magic, entries
_LISTING_ENTRY = struct.Struct(">BHQ")          # kind, bytes of the path, size; then path, then the id of a file
_LISTING_MAGIC = b"LST1"


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


def _check_entry(entry: FolderEntry, paths: PathSet) -> None:
    check_name(entry.path)
    well_formed = (entry.size == 0 and not entry.file_id) if entry.is_folder else len(entry.file_id) == DIGEST_BYTES
    if not well_formed or not 0 <= entry.size <= FILE_SIZE_MAX or not paths.add(entry.path):
        raise _malformed_listing()
    if len(paths) > FOLDER_ENTRIES_MAX:
        sentence = f"A folder of more than {FOLDER_ENTRIES_MAX} files and folders is refused."
        raise LibraryError(ErrorKind.TOO_BIG, sentence)


def in_order(entries: Iterable[FolderEntry]) -> List[FolderEntry]:
    """The entries of a folder in the order of its listing."""
    return sorted(entries, key=lambda entry: entry.path.encode("utf-8", "surrogatepass"))


def encode_folder(entries: Iterable[FolderEntry], pack_ids: Iterable[bytes] = ()) -> bytes:
    """Encode a folder's listing: the same entries give the same bytes. Behind them go the ids of its packs, or none."""
    ordered = in_order(entries)
    paths = PathSet()
    parts = [_LISTING_HEADER.pack(_LISTING_MAGIC, len(ordered))]
    for entry in ordered:
        _check_entry(entry, paths)
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
    return entries, [pack._replace(file_id=digest_at(ids, place))
                     for place, pack in enumerate(packs)]


def ids_in(listing: bytes) -> FrozenSet[bytes]:
    """Every content that a folder's listing names: its files and its packs."""
    return ids_of(*decode_listing(listing))


def ids_of(entries: Iterable[FolderEntry], packs: Iterable[Pack]) -> FrozenSet[bytes]:
    """The same, of a listing that is decoded already."""
    return frozenset(entry.file_id for entry in entries if entry.file_id) | {pack.file_id for pack in packs}


def _decode_entries(listing: bytes, count: int) -> Tuple[List[FolderEntry], int]:
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
        _check_entry(entry, paths)
        entries.append(entry)
        last = path
    return entries, position
