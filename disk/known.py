"""The files that are shared, as they were when they were hashed, and which of them are to be hashed again.

Owned by the scanner's thread.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Dict

from disk.digests import RACY_TIME_NS, DigestStore
from disk.grown import Grown
from disk.passing import Passing
from disk.walk import Walk
from protocol.content.shares import Found, SharedFile, shared_file

NEVER = -1  # no file was changed then


class Known:
    """All of them, by path."""

    def __init__(self, store: DigestStore, passing: Passing) -> None:
        self.files: Dict[str, SharedFile] = {}
        self.changed_ns: Dict[str, int] = {}  # when each was changed last, as it was hashed
        self.doubted: set[str] = set()  # those to be hashed again
        self._store = store
        self._passing = passing
        self._grown = Grown(passing)

    def adopt(self, shared: SharedFile) -> None:
        """A download has finished this file: it is known."""
        old = self.files.get(shared.path)
        if old is not None and old.file_id != shared.file_id:
            self._passing.remove(old)
        self.files[shared.path] = shared
        self.changed_ns.pop(shared.path, None)  # what the next look finds
        self.doubted.discard(shared.path)
        # Nobody else has written it, so its time need not be old to be believed.
        self._store.keep(shared.path, shared.fingerprint, shared.digests, shared.mtime_ns + 2 * RACY_TIME_NS)

    def doubt(self, path: str) -> None:
        """It turned out not to be what was announced: the next look has it hashed again."""
        if path in self.files:
            self.changed_ns[path] = NEVER
            self._store.forget(path)

    def forget(self, walk: Walk) -> None:
        """Remove what is no longer there, or too short to be what it was.

        Where only its time differs, or it is longer, it stays until it is hashed: all of it may still be there.
        """
        for path, shared in list(self.files.items()):
            found = walk.files.get(path)
            if found is None or found.fingerprint[0] < shared.size:  # what was announced cannot be there any more
                self._passing.remove(self.files.pop(path))
                self.changed_ns.pop(path, None)
                if walk.has_seen_folder:  # else it may be a disk that is not mounted, and back soon
                    self._store.forget(path)
                continue
            if found.fingerprint == shared.fingerprint:
                self._look_at_change_time(path, found)
            seen = found.name, found.listed, found.is_executable
            if seen == (shared.name, shared.listed, shared.is_executable) or self.is_to_hash(path, found):
                continue  # what is to be hashed is told once, after that
            self.files[path] = replace(shared, name=seen[0], listed=seen[1], is_executable=seen[2])
            self._passing.remove(shared)
            self._passing.add(self.files[path])
        self.doubted &= self.files.keys()
        self._grown.forget(walk)

    def _look_at_change_time(self, path: str, found: Found) -> None:
        """Is what has its old size and time what it was? Where the change time is another one, it is hashed again."""
        if path not in self.changed_ns:  # a download has just finished it
            self.changed_ns[path] = found.changed_ns
            self._store.note_changed(path, found.changed_ns)
        elif self.changed_ns[path] != found.changed_ns:
            self.doubted.add(path)

    def is_to_hash(self, path: str, found: Found) -> bool:
        """Whether it is not known as it is, or in doubt; but one that grows all the time has its interval."""
        known = self.files.get(path)
        if known is None or path in self.doubted:
            return True
        return known.fingerprint != found.fingerprint and not self._grown.is_resting(path)

    def has(self, path: str, found: Found) -> bool:
        """Whether it is known as it was found now, and not in doubt."""
        known = self.files.get(path)
        return known is not None and known.fingerprint == found.fingerprint and path not in self.doubted

    def note(self, path: str, found: Found, digests: bytes) -> None:
        """It was hashed; where only something else than its content was changed, nobody need hear of it."""
        self.doubted.discard(path)
        self.changed_ns[path] = found.changed_ns
        shared = shared_file(found.name, path, found.fingerprint, digests, found.listed, found.is_executable)
        if self.files.get(path) != shared:
            self._take(path, shared)

    def _take(self, path: str, shared: SharedFile) -> None:
        """It is something else now. What was announced goes; if the file has only grown, it is served for a while."""
        old = self.files.get(path)
        self.drop(path)
        self.files[path] = shared
        self._passing.add(shared)
        self._grown.end(shared)
        if old is not None:
            self._grown.follow(old, shared)

    def drop(self, path: str) -> None:
        """It is not what it was, and what it is nobody knows."""
        self.doubted.discard(path)
        if path in self.files:
            self._passing.remove(self.files.pop(path))
