"""Digests kept between runs, so that a start hashes nothing twice; owned by the scanner's thread."""

from __future__ import annotations

import contextlib
import errno
import os
from typing import Any, Iterable, List, Tuple

from disk.access import is_link, remove
from protocol.content.names import HIDDEN
from protocol.content.pieces import DIGEST_BYTES, identity_of, piece_count_of
from protocol.content.shares import Fingerprint

try:
    import sqlite3
except ImportError:  # a Python that was built without it: then a restart hashes anew
    sqlite3 = None  # type: ignore[assignment]

DIGESTS_FILE = "digests.db"    # below the hidden folder
DIGESTS_ROWS_MAX = 400_000     # about 150 bytes each for small files
PASSES_WITHOUT = 30            # of the scanner, until what could not be opened for another cause is tried again
NOT_ITS_FAULT = ("unable to open", "disk I/O", "is full", "is locked", "out of memory", "readonly")   # SQLite's words
RACY_TIME_NS = 2_000_000_000   # a file changed so shortly before it was hashed may change again and keep its time


class DigestStore:
    """What was hashed before, by path, size, time and inode; owned by the scanner's thread.

    It is only a help: where it cannot be opened or is damaged, files are hashed anew. A row is believed if its digests
    give its id. The folder's lock keeps other nodes away from it.
    """

    _TABLE = ("CREATE TABLE IF NOT EXISTS digests (path TEXT PRIMARY KEY, size INTEGER, mtime_ns INTEGER, "
              "inode INTEGER, hashed_ns INTEGER, id BLOB, digests BLOB) WITHOUT ROWID")

    def __init__(self, folder: str) -> None:
        self._folder, self._inside = folder, os.path.join(folder, "")
        self._file: Any = None
        self._is_useless = sqlite3 is None
        self._passes_left = 0          # until it is tried again, where the database itself is not to blame

    def find(self, path: str, fingerprint: Fingerprint) -> bytes:
        """The digests of the first pieces (of all, as a rule) of a file that is as it was; none if it is unknown."""
        rows = self._run("SELECT hashed_ns, id, digests FROM digests "
                         "WHERE path = ? AND size = ? AND mtime_ns = ? AND inode = ?",
                         (self._key(path), *map(_signed, fingerprint)))
        for hashed_ns, file_id, digests in rows:
            if abs(hashed_ns - fingerprint[1]) > RACY_TIME_NS and self._fits(fingerprint[0], file_id, digests):
                return bytes(digests)
        return b""

    @staticmethod
    def _fits(size: int, file_id: Any, digests: Any) -> bool:
        if not isinstance(digests, bytes) or len(digests) % DIGEST_BYTES:
            return False
        return len(digests) <= piece_count_of(size) * DIGEST_BYTES and identity_of(size, digests) == file_id

    def keep(self, path: str, fingerprint: Fingerprint, digests: bytes, hashed_ns: int) -> None:
        """Note digests; they are on the disk after `commit`."""
        file_id = identity_of(fingerprint[0], digests)
        self._run("INSERT OR REPLACE INTO digests VALUES (?, ?, ?, ?, ?, ?, ?)",
                  (self._key(path), *map(_signed, fingerprint), hashed_ns, file_id, digests))

    def forget(self, path: str) -> None:
        """The file is gone or another."""
        self._run("DELETE FROM digests WHERE path = ?", (self._key(path),))

    def prune(self, paths: Iterable[str]) -> None:
        """Forget all but these, when there are too many."""
        count = next(iter(self._run("SELECT COUNT(*) FROM digests")), (0,))[0]
        if count > DIGESTS_ROWS_MAX:
            kept = set(map(self._key, paths))
            for (key,) in self._run("SELECT path FROM digests"):
                if key not in kept:
                    self._run("DELETE FROM digests WHERE path = ?", (key,))

    def commit(self) -> None:
        """Have what was noted outlive this process."""
        if self._passes_left:
            self._passes_left -= 1
            self._is_useless = self._passes_left > 0
        if self._file is not None:
            try:
                self._file.commit()
            except sqlite3.Error:
                self._give_up()

    def close(self) -> None:
        """Commit and close; a later use opens it again."""
        self.commit()
        if self._file is not None:
            self._file.close()
            self._file = None

    def _key(self, path: str) -> str:
        # Relative, so that a folder that was moved or mounted elsewhere is known again.
        key = path[len(self._inside):] if path.startswith(self._inside) else path
        return key if key.isascii() else key.encode("utf-8", "backslashreplace").decode("utf-8")

    def _run(self, order: str, values: Tuple[Any, ...] = ()) -> List[Any]:
        if self._is_useless:
            return []
        try:
            self._file = self._file or self._opened()
            return self._file.execute(order, values).fetchall()  # type: ignore[no-any-return]
        except (sqlite3.Error, OSError, OverflowError) as error:
            self._give_up()
            if any(words in str(error) for words in NOT_ITS_FAULT):
                self._passes_left = PASSES_WITHOUT
            return []

    def _opened(self) -> Any:
        """Open the file, or make it anew where it is damaged."""
        path = os.path.join(self._folder, HIDDEN, DIGESTS_FILE)
        for is_last in (False, True):
            if os.path.lexists(path) and is_link(os.lstat(path)):
                raise OSError(errno.ELOOP, "a link", path)
            database = sqlite3.connect(path, timeout=0.0)
            try:
                # Only a help, so it waits for no disk: a crash of the machine may cost it, never a wrong digest.
                for order in ("PRAGMA locking_mode = EXCLUSIVE", "PRAGMA journal_mode = TRUNCATE",
                              "PRAGMA synchronous = OFF", "PRAGMA temp_store = MEMORY", self._TABLE):
                    database.execute(order)
                database.execute("SELECT path, size, mtime_ns, inode, hashed_ns, id, digests FROM digests LIMIT 1")
                return database
            except sqlite3.Error as error:
                database.close()
                if is_last or any(words in str(error) for words in NOT_ITS_FAULT):
                    raise
                for end in ("", "-journal"):
                    remove(path + end)
        raise AssertionError("the second try returns or raises")

    def _give_up(self) -> None:
        self._is_useless = True
        if self._file is not None:
            with contextlib.suppress(sqlite3.Error):
                self._file.close()
            self._file = None


def _signed(number: int) -> int:
    """An inode may need 64 bits; SQLite has 63 and a sign."""
    return number - (1 << 64) if number >= 1 << 63 else number
