"""One program per folder: a lock on a file in it, which the system itself drops when its process ends, however it ends.

Owned by the disk thread, like the library that uses it.
"""

from __future__ import annotations

import errno
import os
from typing import Optional

from disk.access import OPEN_FLAGS
from protocol.content.troubles import FolderInUse, shown

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]
try:
    import msvcrt
except ImportError:  # everywhere else
    msvcrt = None  # type: ignore[assignment]

TAKEN = (errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLK)    # what systems say where another program has the lock


class FolderLock:
    """The lock of one folder. What fails otherwise is an OSError: who calls says it in a sentence (`speaking`)."""

    def __init__(self, folder: str, path: str) -> None:
        self._folder = folder          # as the person knows it
        self._path = path              # of the file that is locked
        self._descriptor: Optional[int] = None

    def take(self) -> None:
        """Hold the lock; FolderInUse where another program does."""
        self.drop()
        self._descriptor = os.open(self._path, OPEN_FLAGS | os.O_RDWR | os.O_CREAT, 0o600)
        try:
            _lock(self._descriptor)
        except OSError as error:
            self.drop()
            if error.errno not in TAKEN:
                raise
            raise FolderInUse(f"The folder {shown(self._folder, 1000)} is in use by another node.") from error

    def drop(self) -> None:
        """Give the folder free, if it is held."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _lock(descriptor: int) -> None:
    """Lock a file at once, or fail. A system with neither way goes without."""
    if fcntl is not None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    elif msvcrt is not None:
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
