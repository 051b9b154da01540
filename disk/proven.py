"""Pieces of what has changed since it was announced, and may be right all the same: each is hashed before it is given.

At the beginning of a log that has grown since, or of a file that was only touched, what was announced still lies there.
Owned by the disk thread, like the library that uses it.
"""

from __future__ import annotations

import hashlib
import os
from typing import Any, Iterator, List, Tuple

from disk.access import StillChanging, fingerprint_of, open_regular, read_at
from protocol.content.pieces import MIB, digest_at, piece_length, piece_size_of
from protocol.content.shares import SharedFile

HASHED_AT_ONCE = 16 * MIB  # bytes: others wait for the disk, too


class ProvenPiece:
    """The piece that was proven last: a piece is asked for span by span, and hashed once for all of them.

    What is given is what was hashed: another program may write at the same moment. But it is given only as long as
    what it lies in was not changed again, so that all hear of it.
    """

    def __init__(self) -> None:
        self._of: Tuple[Any, ...] = ()  # content, index, and what its files looked like
        self._data = b""

    def read(self, shared: SharedFile, start: int, length: int) -> bytes:
        """Bytes of a piece, if that piece is still right where this content was; else StillChanging, or OSError.

        It is hashed in one go, so a piece of a huge file (beyond 64 GiB) is too long for that.
        """
        index = start // piece_size_of(shared.size)
        first = index * piece_size_of(shared.size)
        parts = list(_parts_of(shared, first, piece_length(shared.size, index)))
        found = shared.file_id, index, [fingerprint_of(os.lstat(path)) for path, _, _ in parts]
        if self._of != found:
            self._data = _proven(parts, digest_at(shared.digests, index))
            self._of = found
        data = self._data[start - first : start - first + length]
        if len(data) != length:
            raise StillChanging
        return data

    def forget(self, file_id: bytes) -> None:
        """This content is not shared there any more, or is known again as it lies there: no need to keep it."""
        if file_id in self._of:
            self._of, self._data = (), b""


def _parts_of(shared: SharedFile, start: int, length: int) -> Iterator[Tuple[str, int, int]]:
    """Where bytes of a file or a pack lie: path, place in it, how many."""
    end, position = start + length, 0
    for path, (size, _, _) in shared.members or ((shared.path, shared.fingerprint),):
        first, last = max(start - position, 0), min(end - position, size)
        if first < last:
            yield path, first, last - first
        position += size


def _proven(parts: List[Tuple[str, int, int]], digest: bytes) -> bytes:
    """The bytes that lie there now, if they have this digest."""
    if sum(length for _, _, length in parts) > HASHED_AT_ONCE:
        raise StillChanging
    data = b"".join(_read_raw(*part) for part in parts)
    if hashlib.sha256(data).digest() != digest:
        raise StillChanging
    return data


def _read_raw(path: str, start: int, length: int) -> bytes:
    descriptor = open_regular(path)
    try:
        return read_at(descriptor, length, start)
    finally:
        os.close(descriptor)
