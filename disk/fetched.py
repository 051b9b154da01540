"""Which version was fetched under which name, and from whom: kept between runs.

It tells an update from a file of the person's own. It is only a help: what it does not know stays as it is.
Owned by the disk thread, like the library that uses it.
"""

from __future__ import annotations

from typing import FrozenSet, NamedTuple, Optional

from disk.digests import KeptTable, storable
from protocol.content.parts import Origin

FETCHED_FILE = "fetched.db"    # below the hidden folder
FETCHED_ROWS_MAX = 400_000     # about 150 bytes each; the oldest are forgotten
FETCHED_ROWS_SPARE = 10_000    # ... so many at a time
BETWEEN = "\n"                 # two names of nodes


class Version(NamedTuple):
    """What this node fetched under a name."""

    file_id: bytes
    size: int
    asked: str                 # the name that was asked for; it got another one where something else had that
    givers: FrozenSet[str]     # as they were called

    def gives_way_to(self, origin: Origin) -> bool:
        """Does the new one come from whom this one came from? Or is none of them here any more, to say otherwise?"""
        return bool(self.givers & origin.givers) or not self.givers & origin.here


class FetchedNames:
    """By path below the shared folder."""

    _TABLE = ("CREATE TABLE IF NOT EXISTS fetched (path TEXT PRIMARY KEY, id BLOB, size INTEGER, asked TEXT, "
              "givers TEXT)")
    _PROBE = "SELECT rowid, path, id, size, asked, givers FROM fetched LIMIT 1"

    def __init__(self, folder: str) -> None:
        self._kept = KeptTable(folder, FETCHED_FILE, self._TABLE, self._PROBE)
        self._rows: Optional[int] = None

    def find(self, path: str) -> Optional[Version]:
        """What was fetched under this name; None if it was nothing, or nobody knows any more."""
        for file_id, size, asked, givers in self._kept.run(
                "SELECT id, size, asked, givers FROM fetched WHERE path = ?", (storable(path),)):
            if isinstance(file_id, bytes) and isinstance(size, int) and isinstance(asked, str):
                return Version(file_id, size, asked, frozenset(filter(None, str(givers).split(BETWEEN))))
        return None

    def note(self, path: str, version: Version) -> None:
        """This was fetched under this name; it is on the disk after `commit`."""
        self._prune()
        givers = BETWEEN.join(sorted(version.givers))
        self._kept.run("INSERT OR REPLACE INTO fetched VALUES (?, ?, ?, ?, ?)",
                       (storable(path), version.file_id, version.size, storable(version.asked), storable(givers)))

    def _prune(self) -> None:
        if self._rows is None:
            self._rows = next(iter(self._kept.run("SELECT COUNT(*) FROM fetched")), (0,))[0]
        self._rows += 1
        if self._rows > FETCHED_ROWS_MAX:
            self._kept.run("DELETE FROM fetched WHERE rowid IN (SELECT rowid FROM fetched ORDER BY rowid LIMIT ?)",
                           (FETCHED_ROWS_SPARE,))
            self._rows = None

    def commit(self) -> None:
        """Have what was noted outlive this process."""
        self._kept.commit()

    def close(self) -> None:
        """Commit and close; a later use opens it again."""
        self._kept.close()
