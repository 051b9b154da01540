"""Downloads: a part is begun, its pieces are verified and written, and it gets its final name when all are there.

    begin        what is there of it is hashed, in slices; then there must be room for the rest
    write_piece  a piece that has the digest it was asked for by; anything else is not written
    finishing    one last look at all of it, in slices; then its name, which replaces nothing

Owned by the disk thread, like the library that uses it.
"""

from __future__ import annotations

import hashlib
import os
from functools import partial
from typing import Callable, List, NamedTuple, Optional

from disk.access import fingerprint_of, is_executable
from disk.accounts import Accounts
from disk.expected import Expected
from disk.flushing import Unflushed
from disk.looking import find_twin, is_twin
from disk.parts import Parts
from disk.places import folder_in, give_name
from disk.room import Room
from disk.shared import SharedFiles
from disk.steps import Steps
from disk.updates import Updates, Way
from protocol.content.names import check_name
from protocol.content.parts import Content, Destination, Origin, PartInfo
from protocol.content.pieces import digest_at, has_piece, piece_count_of, piece_length
from protocol.content.shares import SharedFile, shared_file
from protocol.content.troubles import ErrorKind, LibraryError, called, shown, speaking
from protocol.fields import Buffer

PARTS_MAX = 1024               # unfinished downloads


class Finished(NamedTuple):
    """A download that is verified, flushed and under its final name."""

    path: str
    was_there: bool
    shared: SharedFile
    asked: str = ""                # the name that it was to have
    beside: str = ""               # why it has another one, in words that follow that name
    aside: str = ""                # where the version lies now that it has replaced
    old_id: bytes = b""            # of that version
    written: str = ""              # the name of what was written into that one while it was replaced


class PieceWrite:
    """A piece on its way to the disk: `ahead` computes its digest, the call verifies and writes it."""

    def __init__(self, write_piece: Callable[..., bool], file_id: bytes, index: int, data: Buffer) -> None:
        self._write_piece = write_piece
        self._place = file_id, index
        self._data = data
        self._digest: Optional[bytes] = None

    def ahead(self) -> None:
        """Needs nothing of the library, so any thread may do it."""
        self._digest = hashlib.sha256(self._data).digest()

    def __call__(self) -> bool:
        return self._write_piece(*self._place, self._data, self._digest)


class Downloads:
    """What becomes of parts: room for them, their pieces, their names."""

    def __init__(self, folder: str, parts: Parts, room: Room, accounts: Accounts, shared: SharedFiles,
                 unflushed: Unflushed, updates: Updates, expected: Expected) -> None:
        self._folder = folder
        self._updates = updates
        self._parts = parts
        self._room = room
        self._accounts = accounts
        self._shared = shared
        self._unflushed = unflushed
        self._expected = expected

    def begin(self, file_id: bytes, size: int, digests: bytes, destination: Destination, label: str, is_folder: bool,
              person: bytes) -> Optional[bytearray]:
        """Make or resume a part; the bitmap of its verified pieces, or None while some are still to be hashed."""
        parts = self._parts
        parts.may_come_again(file_id)
        part = parts.contents.get(file_id) or parts.new(file_id, size, digests, destination, label, is_folder)
        if file_id not in parts.contents and len(parts.contents) >= PARTS_MAX:
            raise LibraryError(ErrorKind.FULL, f"There are already {PARTS_MAX} unfinished downloads.")
        with speaking(f"save {called(label)}"):
            if not parts.check_some(part):
                parts.put(part)                 # it goes on where this call left off
                return None
            if not part.is_open:
                self._open(part, person)
            elif parts.is_spoiled(part):
                parts.make_files(part)
            if destination is Destination.DOWNLOAD and part.destination is not Destination.DOWNLOAD:
                # The person wants what was fetched for others: it survives a restart now, and is nobody else's share.
                part.become(destination, label, part.is_folder)
                self._accounts.gone(file_id)
                parts.write_map(part)
        parts.put(part)
        return bytearray(part.verified)

    def _open(self, part: Content, person: bytes) -> None:
        """What is there of it is checked: make room for the rest."""
        self._room.make_for(part, person)
        self._room.with_room(partial(self._parts.make_files, part), part.file_id)
        if part.destination is not Destination.DOWNLOAD:
            self._accounts.count(part, person)
        part.opened()                           # last: who was refused begins from the start

    def write_piece(self, part: Content, index: int, data: Buffer, digest: Optional[bytes]) -> bool:
        """Verify a piece and keep it; False, and nothing written, when it is not the piece that was asked for."""
        if not 0 <= index < piece_count_of(part.size) or len(data) != piece_length(part.size, index):
            return False
        if has_piece(part.verified, index) and index not in part.doubted:
            return True
        if (digest or hashlib.sha256(data).digest()) != digest_at(part.digests, index):
            return False
        with speaking(f"save {called(part.label)}"):
            self._parts.look(part)
            self._parts.check_there(part)
            if part.destination is Destination.DOWNLOAD:
                self._room.with_room(partial(self._parts.write, part, index, data), part.file_id)
            else:
                self._room.check_floor(part.label, len(data))
                self._parts.write(part, index, data)
        part.kept(index)
        return True

    def finishing(self, file_id: bytes, name: str, flush: bool, origin: Optional[Origin]) -> Steps[Finished]:
        """Look at a complete part once more and give it its final name; where the same stands already, that is it."""
        part = self._parts.complete(file_id)
        *parents, last = check_name(name).split("/")
        with speaking(f"save {shown(name)}"):
            twins = yield from find_twin(part, os.path.join(self._folder, *parents), last)
            way = yield from self._updates.way_for(parents, last, None if twins else origin)
            yield from self._parts.last_look(part, flush)
            traits = self._expected.of(name)
            if traits is not None:
                self._parts.give_traits(part, traits)
            status = self._parts.settle(part, flush)
            with folder_in(self._folder, parents, flush) as place, way.undone_by_failure(place):
                path = self._parts.path(part)
                final, was_there = give_name(place, path, status, last, partial(is_twin, twins), flush, way.make)
                final_path = os.path.join(place.path, final)
        self._parts.drop(file_id)
        if not flush and not was_there:
            self._unflushed.add(final_path, *[place.path] * place.is_new)
        found = twins[final] if was_there else fingerprint_of(status)
        shared = shared_file("/".join((*parents, final)), final_path, found, part.digests, not parents,
                             not was_there and is_executable(status))
        self._shared.adopt([shared])
        return (yield from self.finished(shared, was_there, parents, last, way, origin))

    def finished(self, shared: SharedFile, was_there: bool, parents: List[str], asked: str, way: Way,
                 origin: Optional[Origin]) -> Steps[Finished]:
        """It has its name: what became of what had it before, and what is remembered of it."""
        final, old_id = os.path.basename(shared.path), way.old_id
        if old_id:
            self._shared.replaced(old_id, shared.path)
        if not was_there:
            self._updates.note(parents, final, asked, (shared.file_id, shared.size), origin)
        yield from way.settle()                # nobody may wait for its end
        beside = way.why if final != asked else ""
        asked = "/".join((*parents, asked))
        return Finished(shared.path, was_there, shared, asked, beside, way.aside, old_id, way.written)

    def infos(self) -> List[PartInfo]:
        """The unfinished downloads (one not resumed yet counts what its map claims)."""
        return [PartInfo(part.file_id, part.size, part.verified_bytes +
                         sum(piece_length(part.size, index) for index in part.claimed), part.label, part.is_folder)
                for part in self._parts.contents.values() if part.destination is Destination.DOWNLOAD]

    def discard(self, file_id: bytes, own: bool) -> None:
        """Drop an unfinished content that was fetched for others; what this node's person began only with `own`."""
        part = self._parts.contents.get(file_id)
        if part is not None and (own or part.destination is not Destination.DOWNLOAD):
            self._parts.drop(file_id)
