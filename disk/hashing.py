"""Hashes files piece by piece, over as many passes as it takes, and knows how much is left of them.

Owned by the scanner's thread; `standing` may be asked by others.
"""

from __future__ import annotations

import os
import time
from functools import partial
from typing import Dict, Optional, Sequence, Tuple

from disk.access import StillChanging, digest_range, fingerprint_of, open_regular
from disk.digests import DigestStore
from disk.passing import Passing, Stopped
from disk.walk import Walk
from protocol.content.pieces import DIGEST_BYTES, piece_count_of, piece_length, piece_size_of
from protocol.content.shares import Fingerprint, Found, Standing

GROWTH_SHARE = 256  # by so small a part a file may grow while it is hashed: a log, but no copy on its way


class Hashing:
    """The digests of files, those that are kept from earlier and those that are begun."""

    def __init__(self, store: DigestStore, passing: Passing) -> None:
        self._store = store
        self._passing = passing
        self._begun: Dict[str, Tuple[Found, bytearray]] = {}  # the digests so far of a huge file, by path
        self._standing, self._has_looked = Standing(0, 0, 0, 0), False

    # ---- how far it is

    def standing(self) -> Optional[Standing]:
        """How much there is, and how much of it waits; None before the first look is over."""
        return self._standing if self._has_looked else None

    def begin(self, walk: Walk, waiting: Sequence[str]) -> None:
        """These of the files of a walk are to be hashed."""
        size = sum(found.fingerprint[0] for found in walk.files.values())
        left = sum(self._left_of(path, walk.files[path]) for path in waiting)
        self._standing, self._has_looked = Standing(len(walk.files), size, len(waiting), left), True

    def left_without(self, path: str, found: Found) -> int:
        """Bytes that are left when this file is done."""
        return self._standing.waiting_size - self._left_of(path, found)

    def set_waiting(self, count: int, size: int) -> None:
        """So many files wait, and bytes."""
        self._standing = self._standing._replace(waiting=count, waiting_size=max(0, size))

    def _left_of(self, path: str, found: Found) -> int:
        """The bytes of a file that are not hashed yet."""
        size, begun = found.fingerprint[0], self._begun.get(path)
        return size if begun is None else max(0, size - len(begun[1]) // DIGEST_BYTES * piece_size_of(size))

    # ---- hashing

    def forget(self, walk: Walk) -> None:
        """What is no longer there is not gone on with."""
        self._begun = {path: begun for path, begun in self._begun.items() if path in walk.files}

    def digests_of(self, path: str, found: Found) -> bytes:
        """Of all pieces of a file; StillChanging, OSError or Stopped where there is no end of it now."""
        kept = self._store.find(path, found.fingerprint, found.changed_ns) if path not in self._begun else b""
        if kept and len(kept) == piece_count_of(found.fingerprint[0]) * DIGEST_BYTES:
            return kept
        if kept:
            self._begun[path] = found, bytearray(kept)
        descriptor = open_regular(path)
        try:
            return self._digest_pieces(descriptor, path, found)
        finally:
            os.close(descriptor)

    def _digest_pieces(self, descriptor: int, path: str, found: Found) -> bytes:
        """Hash a file, going on where the last pass left it."""
        fingerprint = found.fingerprint
        tick = partial(self._tick_hashing, descriptor, fingerprint)
        size = fingerprint[0]
        begun = self._begun.pop(path, None)
        digests = begun[1] if begun is not None and begun[0] == found else bytearray()
        try:
            for index in range(len(digests) // DIGEST_BYTES, piece_count_of(size)):
                digests += digest_range(descriptor, index * piece_size_of(size), piece_length(size, index), tick)
                self.set_waiting(self._standing.waiting, self._standing.waiting_size - piece_length(size, index))
                self._passing.end_in_time()
            tick()
        except Stopped:
            self._begun[path] = found, digests
            self._store.keep(path, fingerprint, bytes(digests), time.time_ns(), found.changed_ns)
            raise
        self._store.keep(path, fingerprint, bytes(digests), time.time_ns(), found.changed_ns)
        return bytes(digests)

    def _tick_hashing(self, descriptor: int, fingerprint: Fingerprint) -> None:
        """Give up on a file that changes at its next read, not at its end: it may grow for ever.

        But one that grows by little, as a log does, is announced as far as it came when this began.
        """
        self._passing.tick()
        found = fingerprint_of(os.fstat(descriptor))
        grown = found[0] - fingerprint[0]
        if found != fingerprint and not (0 < grown <= fingerprint[0] // GROWTH_SHARE and found[2] == fingerprint[2]):
            raise StillChanging
