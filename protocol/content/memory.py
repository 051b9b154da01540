"""The pieces of a content that is kept in memory, not on the disk: a folder's listing, or a pack of its small files.

Pure. Pieces are written by disk jobs, which hash them; they may be read on any thread, for what is verified stays as it
is.
"""

from __future__ import annotations

import hashlib
from typing import Any

from protocol.content.pieces import DIGEST_BYTES, digest_at
from protocol.content.troubles import ErrorKind, LibraryError


class MemoryPieces:
    """Verified pieces of one content; what is not verified is neither kept nor read."""

    def __init__(self, size: int, digests: bytes, piece_size: int) -> None:
        self.data = bytearray(size)
        self._digests = digests
        self._piece_size = piece_size
        self._is_verified = bytearray(len(digests) // DIGEST_BYTES)

    def write_piece(self, index: int, data: Any) -> bool:
        """Verify a piece and keep it."""
        if hashlib.sha256(data).digest() != digest_at(self._digests, index):
            return False
        start = index * self._piece_size
        self.data[start : start + len(data)] = data
        self._is_verified[index] = 1
        return True

    def read(self, index: int, offset: int, length: int) -> bytes:
        """Bytes of a piece for somebody else; refused as the library refuses."""
        start = index * self._piece_size + offset
        end = min((index + 1) * self._piece_size, len(self.data))
        if not (0 <= index < len(self._is_verified) and offset >= 0 and 0 <= length <= end - start):
            raise LibraryError(ErrorKind.MALFORMED, "No such place in this file.")
        if not self._is_verified[index]:
            raise LibraryError(ErrorKind.MISSING, "This piece is not here yet.")
        return bytes(memoryview(self.data)[start : start + length])  # a view would keep all of it until it is sent
