"""Contents that are here in part, and the map that is kept beside each: what it is, and which pieces were verified.

Pure: `disk/shelf.py` keeps the files. What a map says is believed only after hashing, and what was verified only as
long as its file is as this node's own last write left it.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from enum import Enum
from typing import FrozenSet, List, NamedTuple, Optional, Set, Tuple

from protocol.content.pieces import (
    DIGEST_BYTES,
    FILE_SIZE_MAX,
    check_manifest,
    clear_piece,
    has_piece,
    piece_count_of,
    piece_length,
    set_piece,
)


class Destination(Enum):
    """Where a content goes when it is complete."""

    DOWNLOAD = 0
    CACHE = 1
    PASSING = 2                # too big for the cache: relayed to others, then dropped


class Origin(NamedTuple):
    """Whence a content comes, as people call nodes."""

    givers: FrozenSet[str]     # who has it
    here: FrozenSet[str]       # who is in the network, but this node


class PartInfo(NamedTuple):
    """An unfinished download that is kept."""

    file_id: bytes
    size: int
    verified_bytes: int
    label: str
    is_folder: bool            # the bytes are a folder's listing


MAP_HEADER = struct.Struct(">4sBBHQ")   # magic, destination, is folder, bytes of the label, size; label; digests
MAP_RECORD = struct.Struct(">I")        # one verified piece
MAP_MAGIC = b"MAP1"

Stamp = Tuple[int, int, int, int]   # of a file: size, mtime_ns, inode, ctime_ns (0 where it means something else)


@dataclass
class Content:
    """A content below `.node`: a part, or a complete cached file (whose pieces are checked when first read).

    Its shelf tells it what became of its file; it keeps which pieces may be believed.
    """

    file_id: bytes
    size: int
    digests: bytes
    label: str = ""
    is_folder: bool = False
    destination: Destination = Destination.DOWNLOAD
    claimed: List[int] = field(default_factory=list)     # what the map says; believed only after hashing
    is_open: bool = False                                # begun in this process: the claims are checked
    verified: bytearray = field(default_factory=bytearray)
    verified_count: int = 0
    verified_bytes: int = 0
    map_end: int = 0                                     # where the next record goes
    stamp: Optional[Stamp] = None                        # of its file after this node's own last write
    is_stale: bool = False                               # another program was at the file: it and its map are made good
    doubted: Set[int] = field(default_factory=set)       # verified once, but another program was at the file since
    unflushed: int = 0                                   # bytes written since a flush was last begun

    def __post_init__(self) -> None:
        self.verified = bytearray(-(-piece_count_of(self.size) // 8))

    # ---- its pieces

    def claim(self, indexes: List[int]) -> None:
        """These are said to be there; each is hashed before it counts."""
        self.claimed = indexes

    def mark(self, index: int) -> None:
        """A piece was hashed, and is right."""
        self.doubted.discard(index)
        if not has_piece(self.verified, index):
            set_piece(self.verified, index)
            self.verified_count += 1
            self.verified_bytes += piece_length(self.size, index)

    def unmark(self, index: int) -> None:
        """A piece is not here any more."""
        self.doubted.discard(index)
        if has_piece(self.verified, index):
            clear_piece(self.verified, index)
            self.verified_count -= 1
            self.verified_bytes -= piece_length(self.size, index)

    def doubt(self) -> None:
        """Have all that was verified hashed again before it is used."""
        self.doubted = {index for index in range(piece_count_of(self.size)) if has_piece(self.verified, index)}

    # ---- its file

    def written(self, stamp: Optional[Stamp]) -> None:
        """This node's own last write left its file like this."""
        self.stamp = stamp

    def touched(self, found: Optional[Stamp]) -> None:
        """Another program was at its file and left it like this: nothing of it is believed before it is hashed."""
        self.doubt()
        self.stamp, self.is_stale = found, True

    def made_good(self) -> None:
        """Its file and map are as they should be, whatever was done to them."""
        self.is_stale = False

    def mapped(self, end: int) -> None:
        """Its map was written, so many bytes; the next record goes behind them."""
        self.map_end = end

    def kept(self, index: int) -> None:
        """A piece was written, and its record at the end of the map."""
        self.map_end += MAP_RECORD.size
        self.mark(index)

    def to_flush(self, size: int) -> int:
        """So many bytes were written; returns those since a flush was last begun."""
        self.unflushed += size
        return self.unflushed

    def flushing(self) -> None:
        """A flush of all that was written is begun."""
        self.unflushed = 0

    # ---- what it is for

    def opened(self) -> None:
        """It is begun: what was claimed is checked, and its files are there."""
        self.is_open = True

    def become(self, destination: Destination, label: str, is_folder: bool) -> None:
        """It is wanted for something else than it was begun for."""
        self.destination, self.label, self.is_folder = destination, label, is_folder

    @property
    def is_complete(self) -> bool:
        """Whether every piece is verified."""
        return self.verified_count == piece_count_of(self.size)


def encode_map(content: Content) -> bytes:
    """The map of a content that is here in part, as it stands in its file."""
    label = content.label.encode("utf-8")
    header = MAP_HEADER.pack(MAP_MAGIC, content.destination.value, content.is_folder, len(label), content.size)
    indexes = (index for index in range(piece_count_of(content.size)) if has_piece(content.verified, index))
    return b"".join((header, label, content.digests, *map(MAP_RECORD.pack, indexes)))


def decode_map(data: bytes, file_id: bytes) -> Content:
    """Read a map; ValueError, struct.error or LibraryError when it is not one, or not this file's."""
    magic, destination, is_folder, label_bytes, size = MAP_HEADER.unpack_from(data)
    start = MAP_HEADER.size + label_bytes
    if magic != MAP_MAGIC or size > FILE_SIZE_MAX:
        raise ValueError("not a map")
    count = piece_count_of(size)
    end = start + count * DIGEST_BYTES
    check_manifest(file_id, size, data[start:end])
    label = data[MAP_HEADER.size:start].decode("utf-8")
    records = data[end:end + (len(data) - end) // MAP_RECORD.size * MAP_RECORD.size]
    claimed = sorted({index for (index,) in MAP_RECORD.iter_unpack(records) if index < count})
    return Content(file_id, size, data[start:end], label, bool(is_folder), Destination(destination), claimed)
