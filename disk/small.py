"""Small files that came together: written under names of our own, flushed all at once, and only then named.

A flush waits for the disk whatever its size, so there is one for all of them. Each file is verified against its own id:
one that is wrong or refused does not cost the others.

Owned by the disk thread, like the library that uses it.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from functools import partial
from typing import List, Optional, Tuple, Union

from disk.access import (
    create,
    fingerprint_of,
    give_traits,
    holds,
    is_executable,
    open_regular,
    remove,
    stamp_of,
    write_at,
)
from disk.downloads import Downloads, Finished
from disk.expected import Expected
from disk.flushing import Beside, Flush, Unflushed, flush_paths
from disk.looking import find_twin, is_twin
from disk.places import LastFolder, give_name
from disk.room import Room
from disk.shared import SharedFiles
from disk.steps import Steps, at_once
from disk.updates import Updates
from protocol.content.listing import FolderEntry
from protocol.content.names import check_name
from protocol.content.parts import Content, Origin
from protocol.content.pieces import digests_of, identity_of
from protocol.content.shares import shared_file
from protocol.content.troubles import ErrorKind, LibraryError, shown, speaking
from protocol.fields import Buffer

SLICE_FILES = 100              # written or named in one slice: others wait for the disk, too

Kept = Union[Finished, LibraryError]   # what became of one of many small files


class SmallFiles:
    """Takes the files of packs in."""

    def __init__(self, folder: str, hidden: str, room: Room, shared: SharedFiles, beside: Beside,
                 unflushed: Unflushed, updates: Updates, downloads: Downloads, expected: Expected) -> None:
        self._folder = folder
        self._hidden = hidden          # where they are until they have their names; what is left there goes at a start
        self._room = room
        self._shared = shared
        self._beside = beside
        self._unflushed = unflushed
        self._updates = updates
        self._downloads = downloads
        self._expected = expected
        self._numbers = itertools.count()

    def keeping(self, place: str, entries: List[FolderEntry], data: Buffer,
                origin: Optional[Origin]) -> Steps[List[Kept]]:
        """Keep these files, whose bytes follow each other in `data`, below a folder; what became of each."""
        kept: List[Kept] = []
        written: List[Tuple[FolderEntry, str, Optional[bytes]]] = []
        position, view = 0, memoryview(data)
        with contextlib.ExitStack() as stack:
            for count, (entry, number) in enumerate(zip(entries, self._numbers), 1):
                path = os.path.join(self._hidden, f"small-{number}")
                stack.callback(remove, path)
                written.append((entry, path, self._write(entry, path, view[position:position + entry.size])))
                position += entry.size
                if count % SLICE_FILES == 0:
                    yield
            flush = Flush(self._beside.flush)
            flush.begin(flush_paths, [path for _, path, digests in written if digests])    # not: empty ones
            while not flush.is_over():
                yield
            below = stack.enter_context(LastFolder(self._folder))
            for count, (entry, path, digests) in enumerate(written, 1):
                try:
                    if digests is None:
                        raise LibraryError(ErrorKind.MALFORMED, "It did not come as it was announced.")
                    content = Content(entry.file_id, entry.size, digests)
                    named = yield from self._naming(below, f"{place}/{entry.path}", path, content, origin)
                    kept.append(named)
                except LibraryError as error:
                    kept.append(error)
                if count % SLICE_FILES == 0:
                    yield
        return kept

    def _write(self, entry: FolderEntry, path: str, content: memoryview) -> Optional[bytes]:
        """Write a file under a name of our own; its digests, None if it is not what its id says."""
        digests = digests_of(bytes(content))
        if len(content) != entry.size or identity_of(entry.size, digests) != entry.file_id:
            return None
        with speaking(f"save {shown(entry.path)}"):
            self._room.with_room(partial(_write_anew, path, content))
        return digests

    def _naming(self, below: LastFolder, name: str, path: str, content: Content, origin: Optional[Origin]
                ) -> Steps[Finished]:
        """Give a flushed file its final name, if it still holds what was written; where the same stands, that is it."""
        *parents, last = check_name(name).split("/")
        twins = at_once(find_twin(content, os.path.join(self._folder, *parents), last))
        way = yield from self._updates.way_for(parents, last, None if twins else origin)
        with speaking(f"save {shown(name)}"), contextlib.ExitStack() as stack:
            descriptor = open_regular(path)
            stack.callback(os.close, descriptor)    # open, so that its inode names nothing else until it is confirmed
            status = os.fstat(descriptor)
            is_right = (holds(descriptor, content.size, content.digests)
                        and stamp_of(os.fstat(descriptor)) == stamp_of(status))
            if not is_right:
                raise LibraryError(ErrorKind.CHANGED, f"{shown(name)} was changed here by another program.")
            traits = self._expected.of(name)
            if traits is not None:
                give_traits(path, descriptor, traits)
                status = os.fstat(descriptor)
            if os.name == "nt":
                stack.pop_all().close()
            place = below.at(parents)
            stack.enter_context(way.undone_by_failure(place))
            final, was_there = give_name(place, path, status, last, partial(is_twin, twins), False, way.make)
            final_path = os.path.join(place.path, final)
        if not was_there:
            self._unflushed.add(final_path, *[place.path] * place.is_new)       # their names
        found = twins[final] if was_there else fingerprint_of(status)
        shared = shared_file("/".join((*parents, final)), final_path, found, content.digests, False,
                             not was_there and is_executable(status))
        self._shared.adopt([shared])
        return (yield from self._downloads.finished(shared, was_there, parents, last, way, origin))


def _write_anew(path: str, content: memoryview) -> None:
    remove(path)
    descriptor = create(path)
    try:
        write_at(descriptor, content, 0)
    finally:
        os.close(descriptor)
