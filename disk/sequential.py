"""One file from end to end, for the transport's verbs; each object is owned by the thread that calls the verb."""

from __future__ import annotations

import collections
import hashlib
import os
import secrets
import shutil
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Deque, Union

from disk.access import (
    READ_BUFFERS_MAX,
    READ_SIZE,
    create,
    fingerprint_of,
    flush_folder,
    open_regular,
    read_at,
    read_into,
    remove,
    stamp_of,
    write_at,
)
from disk.places import Folder, give_name
from protocol.buffers import BufferPool
from protocol.content.names import HIDDEN, check_name
from protocol.content.pieces import FILE_SIZE_MAX
from protocol.content.troubles import ErrorKind, LibraryError, no_room, shown, speaking
from protocol.fields import Buffer

LOOKS_MAX = 3  # at a file that another program goes on changing


def path_text(path: Union[str, bytes, os.PathLike[Any]]) -> str:
    """A path as text; TypeError when it is none, ValueError when no file can have it."""
    text = os.fsdecode(path)
    if not text or "\0" in text:
        raise ValueError(f"{shown(text)} is no path")
    return text


class BackgroundDigest:
    """SHA-256 of bytes given one after the other, computed on a thread of its own while the caller reads or writes."""

    AHEAD_MAX = 4  # buffers that may wait for it

    def __init__(self) -> None:
        self._hasher = hashlib.sha256()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="digest")
        self._waiting: Deque[Future[None]] = collections.deque()

    def update(self, data: Buffer) -> None:
        """Take in bytes, which must not change any more."""
        self._waiting.append(self._thread.submit(self._hasher.update, data))
        while len(self._waiting) > self.AHEAD_MAX:
            self._waiting.popleft().result()

    def hexdigest(self) -> str:
        """Of all that was given, in hexadecimal digits; waits until it is hashed."""
        while self._waiting:
            self._waiting.popleft().result()
        return self._hasher.hexdigest()

    def close(self) -> None:
        self._thread.shutdown()


class _Sequential:
    """What both ends of a file have: its descriptor, and the digest of what has passed."""

    _descriptor = -1

    def __init__(self) -> None:
        self._hasher = BackgroundDigest()

    def hexdigest(self) -> str:
        """SHA-256 of what was read or written so far."""
        return self._hasher.hexdigest()

    def close(self) -> None:
        """Close the file."""
        self._hasher.close()
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


class SequentialReader(_Sequential):
    """Reads one file from its beginning to the size it had when it was opened."""

    def __init__(self, path: str) -> None:
        self.path = os.path.realpath(path)
        self.name = os.path.basename(self.path)
        with speaking(f"open {shown(path, 1000)}"):
            self._descriptor = open_regular(self.path)
            self._fingerprint = fingerprint_of(os.fstat(self._descriptor))
        self.size = self._fingerprint[0]
        self._position = 0
        super().__init__()
        self._buffers = BufferPool(READ_BUFFERS_MAX)

    def read(self, length: int) -> memoryview:
        """The next bytes, none at the end; a file that changed on the way is an error."""
        with speaking(f"read {shown(self.path, 1000)}"):
            length = min(length, self.size - self._position)
            data = read_into(self._buffers, self._descriptor, length, self._position)
            unchanged = fingerprint_of(os.fstat(self._descriptor)) == self._fingerprint
        if not unchanged:
            raise LibraryError(ErrorKind.CHANGED, f"{shown(self.path, 1000)} changed while it was sent.")
        self._position += len(data)
        self._hasher.update(data)
        return data

    def __enter__(self) -> SequentialReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class SequentialWriter(_Sequential):
    """Writes one file of known size under a random name, then gives it its own; leaving without `finish` drops it.

    After each write the file's stamp is kept, and looked at before the next: where another program was at the file, or
    the disk's clock is too coarse to tell, `finish` hashes it once more as it lies there, and keeps no other bytes than
    came.
    """

    def __init__(self, folder: str, name: str, size: int) -> None:
        self.folder = os.path.abspath(folder)
        self.name, self.size = check_name(name), size
        if "/" in name or not 0 <= size <= FILE_SIZE_MAX:
            raise LibraryError(ErrorKind.MALFORMED, f"{shown(name)} is offered with an impossible name or size.")
        self._path = os.path.join(self.folder, f"{HIDDEN}-{secrets.token_hex(16)}.part")
        super().__init__()
        self.written = 0
        with speaking(f"save {shown(name)}"):
            is_new = not os.path.isdir(self.folder)
            os.makedirs(self.folder, exist_ok=True)
            if is_new:
                flush_folder(os.path.dirname(self.folder))
            free = shutil.disk_usage(self.folder).free
            if size > free:
                raise no_room(name, size, free)
            self._descriptor = create(self._path)
            self._stamp = stamp_of(os.fstat(self._descriptor))
            self._is_doubted = False

    def write(self, data: Buffer) -> None:
        """Write the next bytes."""
        if self.written + len(data) > self.size:
            raise LibraryError(ErrorKind.MALFORMED, f"{shown(self.name)} is longer than was declared.")
        self._hasher.update(data)
        with speaking(f"save {shown(self.name)}"):
            is_changed = stamp_of(os.fstat(self._descriptor)) != self._stamp
            write_at(self._descriptor, data, self.written)
            before, self._stamp = self._stamp, stamp_of(os.fstat(self._descriptor))
        # Two writes within one tick of the disk's clock: another program's between them would show nothing.
        self._is_doubted |= is_changed or before[1] == self._stamp[1]
        self.written += len(data)

    def finish(self) -> str:
        """Flush the file and give it its name, or the next free one; returns its path."""
        if self.written != self.size:
            raise LibraryError(ErrorKind.MALFORMED, f"{shown(self.name)} is shorter than was declared.")
        with speaking(f"save {shown(self.name)}"):
            os.fsync(self._descriptor)
            status = self._checked()
            if os.name == "nt":
                self.close()            # Windows renames no open file
            with Folder.open(self.folder) as place:
                final, _ = give_name(place, self._path, status, self.name, lambda *_: False)
            self.abort()
        return os.path.join(self.folder, final)

    def _checked(self) -> os.stat_result:
        """Only what came gets the name, whatever other programs did to the file meanwhile."""
        for _ in range(LOOKS_MAX):
            status = os.fstat(self._descriptor)
            if stamp_of(status) == self._stamp and not self._is_doubted:
                return status
            if status.st_size != self.size or not self._is_right():
                break
            self._stamp, self._is_doubted = stamp_of(status), False
        raise LibraryError(ErrorKind.CHANGED, f"{shown(self.name)} was changed by another program while it came.")

    def _is_right(self) -> bool:
        hasher = hashlib.sha256()
        for offset in range(0, self.size, READ_SIZE):
            hasher.update(read_at(self._descriptor, min(READ_SIZE, self.size - offset), offset))
        return hasher.hexdigest() == self.hexdigest()

    def abort(self) -> None:
        """Close the file and drop what was written; after `finish`, nothing."""
        self.close()
        remove(self._path)

    def __enter__(self) -> SequentialWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.abort()
