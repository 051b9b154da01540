"""What files were that have grown since: it is served for a while, for those who have begun to fetch it.

Owned by the scanner's thread.
"""

from __future__ import annotations

import os
from collections import deque
from dataclasses import replace
from typing import Deque, Dict, NamedTuple

from disk.access import digest_range, no_tick, open_regular
from disk.passing import Passing
from disk.walk import Walk
from protocol.content.pieces import digest_at, piece_count_of, piece_length, piece_size_of
from protocol.content.shares import SharedFile

GROWN_INTERVAL = 10.0  # seconds between two announcements of a file that grows ...
EARLIER_TIME = 600.0  # ... and so long each is served after the next: whoever has begun to fetch it ends
EARLIER_MAX = 256  # of all files together


class _Earlier(NamedTuple):
    """What a file was: served from its beginning as it lies there now."""

    shared: SharedFile
    until: float


class Grown:
    """Files that were announced longer than they were, and what they were."""

    def __init__(self, passing: Passing) -> None:
        self._passing = passing
        self._earlier: Deque[_Earlier] = deque()  # the oldest first
        self._grown_at: Dict[str, float] = {}  # by path: when it was announced longer

    def is_resting(self, path: str) -> bool:
        """Was it announced longer just now? Then its interval passes before it is again."""
        return path in self._grown_at

    def forget(self, walk: Walk) -> None:
        """End what had its time, or is not there any more."""
        if not self._earlier and not self._grown_at:
            return
        now, kept = self._passing.clock(), deque()  # type: float, Deque[_Earlier]
        self._grown_at = {path: at for path, at in self._grown_at.items() if now - at < GROWN_INTERVAL}
        for earlier in self._earlier:
            found = walk.files.get(earlier.shared.path)
            if now < earlier.until and found is not None and found.fingerprint[0] >= earlier.shared.size:
                kept.append(earlier)
            else:
                self._passing.remove(earlier.shared)
        self._earlier = kept

    def follow(self, old: SharedFile, shared: SharedFile) -> None:
        """A file is something else than it was: if it has only grown, what it was is served for a while."""
        if shared.size > old.size > 0 and _still_begins_with(shared.path, old):
            earlier = replace(old, listed=False)
            self._passing.add(earlier)
            self._earlier.append(_Earlier(earlier, self._passing.clock() + EARLIER_TIME))
            self._grown_at[shared.path] = self._passing.clock()
            if len(self._earlier) > EARLIER_MAX:
                self._passing.remove(self._earlier.popleft().shared)

    def end(self, shared: SharedFile) -> None:
        """A file is now what it was earlier: as such it is announced."""
        place = shared.path, shared.file_id
        self._earlier = deque(each for each in self._earlier if (each.shared.path, each.shared.file_id) != place)


def _still_begins_with(path: str, old: SharedFile) -> bool:
    """Whether a file that is longer now may still begin with what it was: its first and its last piece are right.

    That is no proof; whoever is given a piece of it later has that hashed before.
    """
    try:
        descriptor = open_regular(path)
        try:
            for index in {0, piece_count_of(old.size) - 1}:
                start, length = index * piece_size_of(old.size), piece_length(old.size, index)
                if digest_range(descriptor, start, length, no_tick) != digest_at(old.digests, index):
                    return False
        finally:
            os.close(descriptor)
    except OSError:
        return False
    return True
