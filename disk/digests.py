"""Digests kept between runs, so that a start hashes nothing twice; and what such a table stands on."""

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
PASSES_WITHOUT = 30            # commits (of the scanner: passes), until what failed for another cause is tried again
NOT_ITS_FAULT = ("unable to open", "disk I/O", "is full", "is locked", "out of memory", "readonly")   # SQLite's words
RACY_TIME_NS = 2_000_000_000   # a file changed so shortly before it was hashed may change again and keep its time


class KeptTable:
    """A table kept between runs in a file of its own below the hidden folder; owned by one thread.

    It is only a help: where it cannot be opened or is damaged, it is empty. The folder's lock keeps other nodes away.
    """

    def __init__(self, folder: str, file_name: str, table: str, probe: str, column: str = "") -> None:
        self._path = os.path.join(folder, HIDDEN, file_name)
        self._table, self._probe = table, probe       # how it is made; a question that only a sound one answers
        self._column = column                         # how what an older program made gets its newest column
        self._file: Any = None
        self._is_useless = sqlite3 is None
        self._commits_left = 0         # until it is tried again, where the database itself is not to blame

    def run(self, order: str, values: Tuple[Any, ...] = ()) -> List[Any]:
        """What it answers; nothing where it cannot."""
        if self._is_useless:
            return []
        try:
            self._file = self._file or self._opened()
            return self._file.execute(order, values).fetchall()  # type: ignore[no-any-return]
        except (sqlite3.Error, OSError, OverflowError) as error:
            self._give_up()
            if any(words in str(error) for words in NOT_ITS_FAULT):
                self._commits_left = PASSES_WITHOUT
            return []

    def _opened(self) -> Any:
        """Open the file, or make it anew where it is damaged."""
        path = self._path
        for is_last in (False, True):
            if os.path.lexists(path) and is_link(os.lstat(path)):
                raise OSError(errno.ELOOP, "a link", path)
            database = sqlite3.connect(path, timeout=0.0)
            try:
                # Only a help, so it waits for no disk: a crash of the machine may cost it, never a wrong digest.
                for order in ("PRAGMA locking_mode = EXCLUSIVE", "PRAGMA journal_mode = TRUNCATE",
                              "PRAGMA synchronous = OFF", "PRAGMA temp_store = MEMORY", self._table):
                    database.execute(order)
                with contextlib.suppress(sqlite3.OperationalError):     # it has that column
                    database.execute(self._column)
                database.execute(self._probe)
                return database
            except sqlite3.Error as error:
                database.close()
                if is_last or any(words in str(error) for words in NOT_ITS_FAULT):
                    raise
                for end in ("", "-journal"):
                    remove(path + end)
        raise AssertionError("the second try returns or raises")

    def commit(self) -> None:
        """Have what was noted outlive this process."""
        if self._commits_left:
            self._commits_left -= 1
            self._is_useless = self._commits_left > 0
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

    def _give_up(self) -> None:
        self._is_useless = True
        if self._file is not None:
            with contextlib.suppress(sqlite3.Error):
                self._file.close()
            self._file = None


class DigestStore:
    """What was hashed before, by path, size, times and inode; owned by the scanner's thread.

    Where it is lost, files are hashed anew. A row is believed if its digests give its id.
    """

    _TABLE = ("CREATE TABLE IF NOT EXISTS digests (path TEXT PRIMARY KEY, size INTEGER, mtime_ns INTEGER, "
              "inode INTEGER, hashed_ns INTEGER, id BLOB, digests BLOB, changed_ns INTEGER) WITHOUT ROWID")
    _COLUMN = "ALTER TABLE digests ADD COLUMN changed_ns INTEGER"
    _PROBE = "SELECT path, size, mtime_ns, inode, hashed_ns, id, digests, changed_ns FROM digests LIMIT 1"

    def __init__(self, folder: str) -> None:
        self._inside = os.path.join(folder, "")
        self._kept = KeptTable(folder, DIGESTS_FILE, self._TABLE, self._PROBE, self._COLUMN)

    def find(self, path: str, fingerprint: Fingerprint, changed_ns: int = 0) -> bytes:
        """The digests of the first pieces (of all, as a rule) of a file that is as it was; none if it is unknown."""
        rows = self._kept.run("SELECT hashed_ns, id, digests FROM digests WHERE path = ? AND size = ? AND mtime_ns = ? "
                              "AND inode = ? AND coalesce(changed_ns, 0) IN (0, ?)",
                              (self._key(path), *map(signed, fingerprint), changed_ns))
        for hashed_ns, file_id, digests in rows:
            if abs(hashed_ns - fingerprint[1]) > RACY_TIME_NS and self._fits(fingerprint[0], file_id, digests):
                return bytes(digests)
        return b""

    @staticmethod
    def _fits(size: int, file_id: Any, digests: Any) -> bool:
        if not isinstance(digests, bytes) or len(digests) % DIGEST_BYTES:
            return False
        return len(digests) <= piece_count_of(size) * DIGEST_BYTES and identity_of(size, digests) == file_id

    def keep(self, path: str, fingerprint: Fingerprint, digests: bytes, hashed_ns: int, changed_ns: int = 0) -> None:
        """Note digests; they are on the disk after `commit`."""
        file_id = identity_of(fingerprint[0], digests)
        self._kept.run("INSERT OR REPLACE INTO digests VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                       (self._key(path), *map(signed, fingerprint), hashed_ns, file_id, digests, changed_ns))

    def note_changed(self, path: str, changed_ns: int) -> None:
        """When what is noted of it was changed last."""
        self._kept.run("UPDATE digests SET changed_ns = ? WHERE path = ?", (changed_ns, self._key(path)))

    def forget(self, path: str) -> None:
        """The file is gone or another."""
        self._kept.run("DELETE FROM digests WHERE path = ?", (self._key(path),))

    def prune(self, paths: Iterable[str]) -> None:
        """Forget all but these, when there are too many."""
        count = next(iter(self._kept.run("SELECT COUNT(*) FROM digests")), (0,))[0]
        if count > DIGESTS_ROWS_MAX:
            kept = set(map(self._key, paths))
            for (key,) in self._kept.run("SELECT path FROM digests"):
                if key not in kept:
                    self._kept.run("DELETE FROM digests WHERE path = ?", (key,))

    def commit(self) -> None:
        """Have what was noted outlive this process."""
        self._kept.commit()

    def close(self) -> None:
        """Commit and close; a later use opens it again."""
        self._kept.close()

    def _key(self, path: str) -> str:
        # Relative, so that a folder that was moved or mounted elsewhere is known again.
        return storable(path[len(self._inside):] if path.startswith(self._inside) else path)


def storable(key: str) -> str:
    """As a database takes it, whatever bytes a name has."""
    return key if key.isascii() else key.encode("utf-8", "backslashreplace").decode("utf-8")


def signed(number: int) -> int:
    """An inode may need 64 bits; SQLite has 63 and a sign."""
    return number - (1 << 64) if number >= 1 << 63 else number
