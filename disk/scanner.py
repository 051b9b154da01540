"""Finds and hashes what is shared: the shared folder, and what a person shares from elsewhere.

`Scanner` is owned by the scanner's thread. `add_path`, `remove_path`, `adopt`, `hold` and `release` are for other
threads: they only put into its inbox. What it knows is in the hands of its parts: `Elsewhere`, `Known`, `Folders`,
`Hashing`, and `Passing`, which has the time of a pass and what it found.
"""

from __future__ import annotations

import os
import queue
import time
from collections import defaultdict
from functools import partial
from typing import Any, Callable, Dict, List, Optional

from disk.access import StillChanging
from disk.digests import DigestStore
from disk.elsewhere import Elsewhere
from disk.folders import Folders
from disk.hashing import Hashing
from disk.known import Known
from disk.passing import Passing, StopFlag, Stopped
from disk.walk import Walk
from protocol.content.shares import Found, ScanResult, SharedFile, Standing
from protocol.content.troubles import is_changed, is_short, meaning


class Scanner:
    """Finds and hashes what is shared; owned by one thread, which calls `run_once` again and again."""

    def __init__(
        self,
        folder: str,
        stop: Optional[StopFlag] = None,
        clock: Callable[[], float] = time.monotonic,
        is_disk_busy: Callable[[], bool] = lambda: False,
        rest: Callable[[float], Any] = time.sleep,
        danger_of: Callable[[str], str] = lambda path: "",
        is_remembering: bool = True,
    ) -> None:
        """`danger_of` tells why a person would be asked whether a path is meant to be shared; else it is empty.

        `is_remembering`: does the next run share again what was shared from elsewhere?
        """
        self.folder = os.path.abspath(folder)
        self._store = DigestStore(self.folder)
        self._passing = Passing(self._store, stop, clock, is_disk_busy, rest)
        self._elsewhere = Elsewhere(self.folder, self._passing, danger_of)
        self._is_remembering = is_remembering
        self.known = Known(self._store, self._passing)
        self.folders = Folders(self.known, self._store, self._passing)
        self._hashing = Hashing(self._store, self._passing)
        self._inbox: queue.SimpleQueue[Callable[[], Any]] = queue.SimpleQueue()
        self._has_pruned = False

    # ---- for other threads

    def add_path(self, path: str) -> str:
        """Share a file or folder that lies elsewhere, from the next pass on; returns its real path."""
        real = self._elsewhere.add(path)
        self._inbox.put(partial(self._elsewhere.take, real))
        return real

    def remove_path(self, name: str, path: str) -> str:
        """Share no longer what `add_path` has shared, by its name or path; returns its real path.

        LibraryError says what else it is: it lies in the shared folder, it is a part of something, it is not shared.
        """
        real = self._elsewhere.find(name, path)
        self._inbox.put(partial(self._elsewhere.drop, real))
        return real

    def adopt(self, shared: SharedFile) -> None:
        """Take a file that a download has finished as known: it is not hashed again."""
        self._inbox.put(partial(self.known.adopt, shared))

    def hold(self, name: str) -> None:
        """Keep a top folder's entry as it is while a download fills the folder."""
        self._inbox.put(partial(self.folders.held.add, name))

    def release(self, name: str) -> None:
        """End `hold`: the folder is listed as it is at the next pass."""
        self._inbox.put(partial(self.folders.held.discard, name))

    def doubt(self, path: str) -> None:
        """A file turned out not to be what was announced, though nothing tells that it was changed: hash it again."""
        self._inbox.put(partial(self.known.doubt, path))

    def standing(self) -> Optional[Standing]:
        """How far it is; None before the first look is over."""
        return self._hashing.standing()

    # ---- for the owner

    def next_pass_in(self) -> float:
        """Seconds until the next pass is worth its cost."""
        return self._passing.next_in()

    def run_once(self, report: Optional[Callable[[ScanResult], None]] = None) -> ScanResult:
        """Make one pass; `report` gets what was found about twice a second, the result is the whole of it.

        A pass ends after some seconds of hashing, and the next goes on: new small files do not wait for a huge one.
        """
        self._passing.begin(report)
        try:
            self._scan()
        except Stopped:
            pass
        except OSError as error:
            if not is_short(error):
                raise
            self._passing.end_short(meaning(error)[1].capitalize())
        self._passing.flush()
        self._store.commit()
        return self._passing.whole

    def close(self) -> None:
        """Give the kept digests' file free."""
        self._take_inbox()
        self._store.close()

    def _take_inbox(self) -> None:
        while not self._inbox.empty():  # nobody else takes from it; it is looked at before each file
            self._inbox.get_nowait()()

    def _scan(self) -> None:
        """One pass: look at what lies there, let go what has gone, and hash what is new or changed."""
        started = self._passing.clock()
        self._elsewhere.recall()
        self._take_inbox()
        self._elsewhere.look_for_missing()
        if self._is_remembering:
            self._elsewhere.note()
        walk = Walk(self._passing.tick)
        walk.add_folder_itself(self.folder)
        for path in self._elsewhere.paths:
            walk.add(path, os.path.basename(path), None)
        self._forget(walk)
        self._passing.begin_hashing(started)
        try:
            self._hash_pending(walk)
        finally:
            self._passing.end_with(walk.troubles)

    def _forget(self, walk: Walk) -> None:
        """Remove what is no longer there."""
        self.known.forget(walk)
        self._hashing.forget(walk)
        if walk.has_seen_folder and not self._has_pruned:
            self._has_pruned = True
            self._store.prune(walk.files)
        self.folders.forget(walk)

    def _hash_pending(self, walk: Walk) -> None:
        """Hash what is new, small files first; a folder is listed as soon as all its files are known."""
        pending = sorted(
            (path for path, found in walk.files.items() if self.known.is_to_hash(path, found)),
            key=lambda path: walk.files[path].fingerprint[0],
        )
        self._hashing.begin(walk, pending)
        are_new = set(pending)
        tops_of: Dict[str, List[str]] = defaultdict(list)
        for top_path, top in walk.tops.items():
            for _, path in top.members:
                if path in are_new:
                    tops_of[path].append(top_path)
                    top.wait()
            if not top.waiting:
                self.folders.show(top_path, top, walk.troubles)
        for number, path in enumerate(pending, 1):
            self._passing.tick()  # also where digests are kept, and nothing is read
            left = self._hashing.left_without(path, walk.files[path])
            self._hash_file(path, walk.files[path], walk)
            self._hashing.set_waiting(len(pending) - number, left)
            for top_path in tops_of.get(path, ()):
                walk.tops[top_path].on_hashed()
                if not walk.tops[top_path].waiting:
                    self.folders.show(top_path, walk.tops[top_path], walk.troubles)
            self._passing.end_in_time()

    def _hash_file(self, path: str, found: Found, walk: Walk) -> None:
        """One file whose digests are not known as it lies there; what cannot be read is known no more."""
        self._take_inbox()  # a download may just have finished this very file
        if self.known.has(path, found):
            return
        before, started = self.known.files.get(path), self._passing.clock()
        try:
            self.known.note(path, found, self._hashing.digests_of(path, found))
        except StillChanging:
            walk.troubles.add("changing", found.name)
            self._passing.was_in_vain(started)
            if before is not None and before.size == found.fingerprint[0]:
                self.known.drop(path)
        except OSError as error:
            if not is_changed(error):  # else the next pass sees what stands there now
                walk.add_trouble(error, found.name)
            self.known.drop(path)
