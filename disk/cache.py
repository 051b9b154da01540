"""The cache: contents that are complete and kept for others, the least recently used first to go.

After a restart, and where another program may have changed a file, each piece is hashed before it is served again.

Owned by the disk thread, like the library that uses it.
"""

from __future__ import annotations

import hashlib
import os
from typing import List, NamedTuple, Optional

from disk.access import fingerprint_of, stamp_of
from disk.accounts import NOBODY, Accounts
from disk.maps import load_maps
from disk.parts import LOOKS_MAX, Parts, changed_here
from disk.shelf import Shelf
from disk.steps import Steps
from protocol.content.parts import Content, Destination
from protocol.content.pieces import digest_at, has_piece, piece_count_of, piece_length, piece_size_of
from protocol.content.troubles import ErrorKind, LibraryError, speaking
from protocol.fields import Buffer


class CachedFile(NamedTuple):
    """A content that this node keeps for others."""

    file_id: bytes
    label: str
    size: int
    is_folder: bool


class Cache:
    """The shelf of what is kept for others."""

    def __init__(self, shelf: Shelf, parts: Parts, accounts: Accounts) -> None:
        self._shelf = shelf
        self._parts = parts
        self._accounts = accounts

    def load(self) -> None:
        """Find what earlier runs have kept, in the order of its last use."""
        for _, content in sorted(load_maps(self._shelf.folder, is_kept=False), key=lambda loaded: loaded[0]):
            self._put(content, NOBODY)

    def _put(self, content: Content, person: bytes) -> None:
        self._shelf.put(content)
        self._accounts.count(content, person)

    # ---- what is in it

    def __contains__(self, file_id: bytes) -> bool:
        return file_id in self._shelf.contents

    def get(self, file_id: bytes) -> Optional[Content]:
        """A content, if it is kept."""
        return self._shelf.contents.get(file_id)

    def files(self) -> List[CachedFile]:
        """What is kept, as it is announced."""
        return [CachedFile(content.file_id, content.label, content.size, content.is_folder)
                for content in self._shelf.contents.values()]

    def note_use(self, file_id: bytes) -> None:
        """Somebody asks for it: the order of use outlives this process."""
        if file_id in self:
            self._shelf.note_use(file_id)

    def evict(self, file_id: bytes) -> None:
        """Keep it no more."""
        if file_id in self:
            self._shelf.take_off(file_id)

    def taking_in(self, file_id: bytes, label: str, is_folder: bool) -> Steps[bool]:
        """Keep a part that is complete, after a last look at it."""
        content = self._parts.complete(file_id)
        with speaking("keep a file in the cache"):
            yield from self._parts.last_look(content, False)
            status = self._parts.settle(content, False)
            content.become(Destination.CACHE, label, is_folder)
            source, target = self._parts.path(content), self._shelf.path(file_id)
            try:
                self._shelf.take_in(content, source)
                found = os.lstat(target)
                content.written(stamp_of(found))
                if fingerprint_of(found) != fingerprint_of(status):
                    raise changed_here(content)
            except BaseException:
                self._shelf.delete(file_id)
                raise
        person = self._accounts.person_of(file_id)
        self._parts.drop(file_id)
        self._put(content, person)
        return True

    # ---- reading

    def read(self, content: Content, index: int, start: int, length: int) -> Buffer:
        """Bytes of a piece; a content that turns out to be damaged is dropped."""
        try:
            with speaking("read a kept file"):
                return self._read_looked_at(content, index, start, length)
        except LibraryError as error:
            if error.kind is not ErrorKind.SHORT:
                self.evict(content.file_id)
            raise

    def _read_looked_at(self, content: Content, index: int, start: int, length: int) -> Buffer:
        for _ in range(LOOKS_MAX):
            self._look(content)
            self._check(content, index)
            data = self._shelf.read(content.file_id, start, length)
            if self._shelf.open_stamp(content.file_id) == content.stamp:
                self._shelf.use(content.file_id)
                return data
        raise LibraryError(ErrorKind.CHANGED, "The kept file goes on being changed.")

    def _look(self, content: Content) -> None:
        """Is the file as this node's own last write left it? Else each piece is hashed before it is served again."""
        found = self._shelf.stamp(content.file_id)
        if found != content.stamp:
            self._shelf.close(content.file_id)
            content.written(found)
            for index in range(piece_count_of(content.size)):
                content.unmark(index)

    def _check(self, content: Content, index: int) -> None:
        """Hash a piece, if it has not been since the file was last seen to change."""
        if has_piece(content.verified, index):
            return
        start, length = index * piece_size_of(content.size), piece_length(content.size, index)
        piece = self._shelf.read(content.file_id, start, length)
        if hashlib.sha256(piece).digest() != digest_at(content.digests, index):
            raise LibraryError(ErrorKind.CHANGED, "The kept file is damaged.")
        content.mark(index)
