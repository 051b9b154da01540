"""The files that are shared, read where they stand in the person's folder, as long as they are as they were announced.

Owned by the disk thread, like the library that uses it.
"""

from __future__ import annotations

import hashlib
import os
from typing import Iterable, List, Optional, Union

from disk.access import OpenFiles, StillChanging, fingerprint_of, read_into, read_member
from disk.places import candidates_of
from disk.proven import HASHED_AT_ONCE, ProvenPiece
from disk.steps import Steps
from protocol.buffers import BufferPool
from protocol.content.pieces import digest_at, piece_length, piece_size_of
from protocol.content.shares import SharedFile, SharesById
from protocol.content.troubles import ErrorKind, LibraryError, is_changed, trouble
from protocol.fields import Buffer


class SharedFiles:
    """What the scanner found and the person agreed to share: contents at one place or several."""

    def __init__(self, files: OpenFiles, buffers: BufferPool) -> None:
        self.by_id = SharesById()
        self._files = files
        self._buffers = buffers
        self._proven = ProvenPiece()

    def adopt(self, files: Iterable[SharedFile]) -> None:
        """Serve these from now on."""
        for shared in files:
            self.by_id.add(shared)

    def withdraw(self, gone: Iterable[Union[SharedFile, bytes]]) -> None:
        """Stop serving these files, or all that has one of these ids."""
        for item in gone:
            if isinstance(item, bytes):
                self.withdraw(list(self.by_id.places(item)))
            else:
                self.replaced(item.file_id, item.path)

    def replaced(self, file_id: bytes, path: str) -> None:
        """This content is not at this place any more; another file may be."""
        self.by_id.discard(file_id, path)
        self._files.drop(path)
        self._proven.forget(file_id)

    def local_copy(self, file_id: bytes) -> Optional[str]:
        """The path of a shared file with this content that is still as announced."""
        for shared in self.by_id.places(file_id):
            if is_as_announced(shared):
                return shared.path
        return None

    def standing(self, file_id: bytes, name: str, path: str) -> Optional[str]:
        """Where this content has the name, as announced; or a later one of those that are tried, if `path` is taken."""
        named = {shared.name: shared.path for shared in self.by_id.places(file_id) if is_as_announced(shared)}
        if name in named or not named or not os.path.lexists(path):
            return named.get(name)
        return next((named[candidate] for candidate in candidates_of(name) if candidate in named), None)

    def stands(self, file_id: bytes, path: str) -> bool:
        """Whether this content is at this place, as announced."""
        shared = self.by_id.at(file_id, path)
        return shared is not None and is_as_announced(shared)

    def stands_beside(self, file_id: bytes, name: str, path: str) -> bool:
        """Whether something else is at this place, and this content has a later one of the names that are tried."""
        return file_id in self.by_id and os.path.lexists(path) and self.standing(file_id, name, path) is not None

    def looking(self, file_id: bytes, index: int) -> Steps[List[str]]:
        """The files that do not hold what was announced for a piece; of a pack all that are in it, if it is wrong."""
        wrong: List[str] = []
        for shared in [one for one in self.by_id.places(file_id) if not one.is_folder]:
            start, length = index * piece_size_of(shared.size), piece_length(shared.size, index)
            hasher, expected = hashlib.sha256(), digest_at(shared.digests, index)
            try:
                for offset in range(start, start + length, HASHED_AT_ONCE):
                    count = min(HASHED_AT_ONCE, start + length - offset)
                    read = _read_pack if shared.members else self._read_place
                    hasher.update(read(shared, offset, count))
                    yield
            except (StillChanging, OSError):        # that is seen without this
                continue
            if hasher.digest() != expected:
                wrong += [path for path, _ in shared.members] or [shared.path]
        return wrong

    def read(self, file_id: bytes, start: int, length: int) -> Buffer:
        """Bytes of one piece of a content, from the first of its places that is still as announced.

        Where none is: what was announced may be there all the same, at the beginning of a log that has grown since, or
        untouched but for its time. Then the piece is hashed once more, and given span by span if it is still right.
        """
        failure: Optional[OSError] = None
        for shared in self.by_id.places(file_id):
            if shared.is_folder:
                return shared.listing[start:start + length]
            try:
                return _read_pack(shared, start, length) if shared.members else \
                    self._read_place(shared, start, length)
            except StillChanging:
                pass
            except OSError as error:
                if not is_changed(error):
                    failure = error
        for shared in self.by_id.places(file_id):
            try:
                return self._proven.read(shared, start, length)
            except (StillChanging, OSError):
                pass
        if failure is not None:        # nobody has seen that it was changed
            raise trouble(failure, "read a shared file") from failure
        raise LibraryError(ErrorKind.CHANGED, "The file was changed or removed after it was shared.")

    def _read_place(self, shared: SharedFile, start: int, length: int) -> Buffer:
        """From its place among the shared files; StillChanging when it is no more as it was announced."""
        try:
            descriptor = self._files.get(shared.path)
            data = read_into(self._buffers, descriptor, length, start)
            # Looked at after the reading: whoever writes sets the time before the bytes.
            if fingerprint_of(os.fstat(descriptor)) == shared.fingerprint and len(data) == length:
                return data
        except OSError:
            self._files.drop(shared.path)
            raise
        self._files.drop(shared.path)
        raise StillChanging


def is_as_announced(shared: SharedFile) -> bool:
    """Whether a shared content still lies there as it was announced, as far as a look at its times tells."""
    try:
        return shared.is_folder or fingerprint_of(os.lstat(shared.path)) == shared.fingerprint
    except OSError:
        return False


def _read_pack(shared: SharedFile, start: int, length: int) -> bytes:
    """Bytes of a pack: they lie in the files of which it is made, one after the other."""
    data, end, position = bytearray(), start + length, 0
    for path, fingerprint in shared.members:
        size = fingerprint[0]
        if position + size > start:
            first = max(start - position, 0)
            data += read_member(path, fingerprint, first, min(end - position, size) - first)
        position += size
        if position >= end:
            break
    return bytes(data)
