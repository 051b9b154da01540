"""Parts: files of contents that are on their way, at which other programs may be at any time.

Each has a stamp (size, times, inode) after this node's own last write. What differs from it is in doubt, and hashed
before it is believed; what is wrong is missing again. What a map claims at a start is in doubt, too.

Owned by the disk thread, like the library that uses it. What the system refuses is an OSError here: who calls says in a
sentence what for (`speaking`).
"""

from __future__ import annotations

import contextlib
import os
from collections import OrderedDict
from typing import Callable, Dict, Iterator, List, Optional, Set

from disk.access import digest_of_zeros, give_traits, leave_hole, stamp_of, write_at
from disk.flushing import Beside, Flush, flush_copies
from disk.looking import SLICE_BYTES, right_ones_by_two
from disk.maps import load_maps
from disk.shelf import Shelf
from disk.steps import Operations, Steps
from protocol.content.parts import MAP_RECORD, Content, Destination
from protocol.content.pieces import MIB, digest_at, has_piece, piece_count_of, piece_length, piece_size_of
from protocol.content.traits import Traits
from protocol.content.troubles import ErrorKind, LibraryError, called, is_short, shown, size_text, speaking
from protocol.fields import Buffer
from protocol.latest import Latest

CLAIMS_BYTES_AT_ONCE = SLICE_BYTES     # hashed in one slice, of what a map claims at a start
FLUSH_EVERY = 64 * MIB         # bytes of a part: so the last flush is short, and a power cut costs little
LOOKS_MAX = 3                  # at a file that another program goes on changing, before it is given up
PART_AGE_DAYS = 30             # since the last piece came; what is older is removed at a start
PART_AGE_MAX = PART_AGE_DAYS * 86400.0
GAVE_WAY_MAX = 1024            # contents remembered that had to go, so that it is told why


class Parts:
    """The shelf of what is on its way."""

    def __init__(self, root: str, shelf: Shelf, beside: Beside, operations: Operations) -> None:
        self._root = root
        self._shelf = shelf
        self._beside = beside
        self._operations = operations
        self._flushes: Dict[bytes, Flush] = {}
        self._gave_way: Latest[bytes, None] = Latest(GAVE_WAY_MAX)

    # ---- which there are

    @property
    def contents(self) -> OrderedDict[bytes, Content]:
        """All that are begun, in this process or an earlier one."""
        return self._shelf.contents

    def load(self, wall_now: float) -> List[str]:
        """Find what earlier runs have left; what was not the person's own is of no use to anybody any more.

        Nor is what nobody has gone on with for a month: it goes, too, and that is told in sentences.
        """
        too_old = wall_now - PART_AGE_MAX
        told = []
        for mapped_at, part in list(load_maps(self._shelf.folder, is_kept=True)):
            if part.destination is not Destination.DOWNLOAD:
                self._shelf.delete(part.file_id)
            elif max(mapped_at, self._shelf.written_at(part.file_id)) < too_old:
                size = size_text(sum(piece_length(part.size, index) for index in part.claimed))
                told.append(f"{called(part.label)} was begun and not gone on with for {PART_AGE_DAYS} days: "
                            f"the {size} of it that lay here are removed")
                self._shelf.delete(part.file_id)
            else:
                self._shelf.put(part)
        self._shelf.delete_strays(too_old)
        return told

    def new(self, file_id: bytes, size: int, digests: bytes, destination: Destination, label: str,
            is_folder: bool) -> Content:
        """A part that is begun; where its file is here already and only the map was lost, all of it is hashed."""
        part = Content(file_id, size, bytes(digests), label, is_folder, destination)
        found = self._shelf.stamp(file_id)
        if found is not None and size:
            part.claim(list(range(min(-(-found[0] // piece_size_of(size)), piece_count_of(size)))))
        return part

    def put(self, part: Content) -> None:
        """It is one of them from now on."""
        self._shelf.put(part)

    def wanted(self, file_id: bytes) -> Content:
        """A part that was begun in this process; else a refusal."""
        part = self.contents.get(file_id)
        if part is None and file_id in self._gave_way:
            raise LibraryError(ErrorKind.FULL, "It was dropped: the room on the disk is needed for something else.")
        if part is None or not part.is_open:
            raise LibraryError(ErrorKind.UNKNOWN, "Nobody here asked for this file.")
        return part

    def complete(self, file_id: bytes) -> Content:
        """The same, if all of it is here."""
        part = self.wanted(file_id)
        if not part.is_complete:
            raise LibraryError(ErrorKind.MISSING, "Some pieces of the file are still missing.")
        return part

    def drop(self, file_id: bytes) -> None:
        """It is over: nothing of it is left."""
        self._flushes.pop(file_id, None)
        self._operations.end(file_id)
        self._shelf.take_off(file_id)

    def give_way(self, file_id: bytes) -> None:
        """The same, since its room is needed; whoever wants it hears why."""
        self._gave_way.put(file_id, None)
        self.drop(file_id)

    def forget_all(self) -> None:
        """The folder was taken away, with all that was in it."""
        self._shelf.forget_all()

    def may_come_again(self, file_id: bytes) -> None:
        """It is begun anew, though it had to go before."""
        self._gave_way.pop(file_id, None)

    # ---- is the file as this node left it?

    def look(self, part: Content) -> None:
        """Is the file as this node's own last write left it? Else nothing of it is believed before it is hashed."""
        found = self._shelf.stamp(part.file_id)
        if found != part.stamp:
            self._shelf.close(part.file_id)
            part.touched(found)

    def check_some(self, part: Content) -> bool:
        """Hash some of what is claimed, or was changed by another program: is nothing left of that?"""
        if part.is_open:
            self.look(part)
        if part.claimed:
            self._check_claims(part)
        elif part.doubted:
            self._hash_doubted(part)
        return not (part.claimed or part.doubted)

    def _check_claims(self, part: Content) -> None:
        """Hash some of the pieces that the map claims: whatever is wrong is missing again."""
        claimed = part.claimed
        part.claim([])
        with gone_is_wrong(lambda: part.claim(claimed)):
            descriptor = self._shelf.open(part.file_id)
            status = os.fstat(descriptor)
            # A second name means a crash between linking and unlinking: under the other it is the user's file.
            if status.st_nlink > 1:
                return
            if status.st_size > part.size:
                os.ftruncate(descriptor, part.size)
            if part.stamp is None:
                part.written(self._shelf.open_stamp(part.file_id))
            self.look(part)                          # what was hashed in an earlier call
            count = max(1, CLAIMS_BYTES_AT_ONCE // piece_size_of(part.size))
            descriptor = self._shelf.open(part.file_id)
            for index in right_ones_by_two(self._beside.digest, part, descriptor, claimed[:count]):
                part.mark(index)
            part.claim(claimed[count:])

    def _hash_doubted(self, part: Content, indexes: Optional[List[int]] = None) -> None:
        """Hash some of the pieces that are in doubt: what is wrong is missing again."""
        right: Set[int] = set()
        chosen = indexes or sorted(part.doubted)[:max(1, SLICE_BYTES // piece_size_of(part.size))]
        with gone_is_wrong():
            descriptor = self._shelf.open(part.file_id)
            if os.fstat(descriptor).st_size > part.size:
                os.ftruncate(descriptor, part.size)
                part.written(self._shelf.open_stamp(part.file_id))
            right = right_ones_by_two(self._beside.digest, part, descriptor, chosen)
        for index in chosen:
            if index in right:
                part.mark(index)
            else:
                part.unmark(index)

    def check_there(self, part: Content) -> None:
        """A write into what was removed would still succeed, into nothing."""
        if part.stamp is not None:
            return
        self._shelf.close_map(part.file_id)
        lost = Content(part.file_id, part.size, part.digests, part.label, part.is_folder, part.destination)
        lost.claim([index for index in range(piece_count_of(part.size)) if has_piece(part.verified, index)])
        self._shelf.put(lost)                        # it may be back, with all that it had
        raise LibraryError(ErrorKind.GONE, f"Cannot save {called(part.label)}: the folder {shown(self._root, 1000)} "
                                           "was taken away.")

    def last_look(self, part: Content, flush: bool) -> Steps[None]:
        """Hash all of it as it lies there now, while it is flushed; whatever else was at it since is seen.

        Only this makes sure: between two of our own writes another program's may go by unseen, where the disk's clock
        stands still meanwhile or both fall together, and what is written by a mapping changes no time at all.
        """
        file_id = part.file_id
        for _ in range(LOOKS_MAX):
            self._shelf.close(file_id)
            part.written(self._shelf.stamp(file_id))
            self.check_there(part)
            part.doubt()
            if flush and self._beside.flush is not None:
                self._begin_flush(part, self._shelf.open(file_id))
            begun = part.stamp
            while part.doubted and part.stamp == begun:
                self._hash_doubted(part)
                begun = part.stamp              # where it was too long, it has been cut
                if part.doubted:
                    yield
            if not part.is_complete:
                break
            while file_id in self._flushes and not self._flushes[file_id].is_over():
                yield
            if self._shelf.stamp(file_id) == part.stamp == begun:
                return
        raise changed_here(part)

    def give_traits(self, part: Content, traits: Traits) -> None:
        """Its file is as its sharer told beside it; but where another program was at it, `settle` finds that."""
        descriptor = self._shelf.open(part.file_id)
        if stamp_of(os.fstat(descriptor)) == part.stamp:
            give_traits(self.path(part), descriptor, traits)
            part.written(self._shelf.open_stamp(part.file_id))

    def settle(self, part: Content, flush: bool) -> os.stat_result:
        """Flush a part. It stays open, so that its inode names nothing else until its final name is confirmed."""
        descriptor = self._shelf.open(part.file_id)
        if flush:
            os.fsync(descriptor)
        status = os.fstat(descriptor)
        if os.name == "nt":
            self._shelf.close(part.file_id)       # Windows renames no open file
            status = os.lstat(self.path(part))
        if status.st_size != part.size or stamp_of(status) != part.stamp:
            raise changed_here(part)
        return status

    # ---- reading and writing

    def path(self, part: Content) -> str:
        """Where its file is."""
        return self._shelf.path(part.file_id)

    def read(self, part: Content, index: int, start: int, length: int) -> Buffer:
        """Bytes of a piece that is verified, and hashed once more where another program was at the file."""
        with speaking("read a kept file"):
            self.look(part)
        if index in part.doubted and part.stamp is not None:
            self._hash_doubted(part, [index])
        if index in part.doubted or not has_piece(part.verified, index):
            raise LibraryError(ErrorKind.MISSING, "This piece is not here yet.")
        return self._shelf.read(part.file_id, start, length)

    def make_files(self, part: Content) -> None:
        """The map as it is now, and the file anew where nothing of it is right."""
        if not part.verified_count:
            self._shelf.create(part.file_id)
            part.written(self._shelf.stamp(part.file_id))
        self.write_map(part)
        self._shelf.remove_aside(part.file_id)
        part.made_good()

    def write_map(self, part: Content) -> None:
        """Write its map anew."""
        self._shelf.write_map(part)

    def is_spoiled(self, part: Content) -> bool:
        """Whether another program was at the file, or took the map away."""
        return part.is_stale or not self._shelf.has_map(part.file_id)

    def write(self, part: Content, index: int, data: Buffer) -> None:
        """Write a piece that is verified, then its record in the map."""
        descriptor = self._shelf.open(part.file_id)
        start = index * piece_size_of(part.size)
        try:
            if digest_at(part.digests, index) != digest_of_zeros(len(data)) or not leave_hole(
                    descriptor, start, len(data)):
                write_at(descriptor, data, start)
        finally:
            part.written(self._shelf.open_stamp(part.file_id))
        # At a place of its own: a record torn by a full disk is written over by the next.
        map_descriptor = self._shelf.open_map(part.file_id)
        write_at(map_descriptor, MAP_RECORD.pack(index), part.map_end)
        if part.to_flush(len(data)) >= FLUSH_EVERY and self._beside.flush is not None:
            self._begin_flush(part, descriptor, map_descriptor)

    def _begin_flush(self, part: Content, *descriptors: int) -> None:
        flush = self._flushes.setdefault(part.file_id, Flush(self._beside.flush))
        if flush.is_over(0.0):
            part.flushing()
            flush.begin(flush_copies, [os.dup(descriptor) for descriptor in descriptors])


def changed_here(part: Content) -> LibraryError:
    """Another program was at its file at the last moment."""
    return LibraryError(ErrorKind.CHANGED, f"{called(part.label)} was changed here by another program.")


@contextlib.contextmanager
def gone_is_wrong(on_short: Callable[[], None] = lambda: None) -> Iterator[None]:
    """What cannot be read is fetched again; but not where only the system is short of something: that passes."""
    try:
        yield
    except OSError as error:
        if is_short(error):
            on_short()
            raise
