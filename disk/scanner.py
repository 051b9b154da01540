"""Finds and hashes what is shared: the shared folder, and what a person shares from elsewhere.

`Scanner` is owned by the scanner's thread. `add_path`, `remove_path`, `adopt`, `hold` and `release` are for other
threads: they only put into its inbox.
"""

from __future__ import annotations

import gc
import hashlib
import os
import queue
import stat
import time
from collections import defaultdict, deque
from dataclasses import replace
from functools import partial
from typing import Any, Callable, Deque, Dict, List, NamedTuple, Optional, Protocol, Sequence, Tuple

from disk.access import StillChanging, digest_range, fingerprint_of, no_tick, open_regular, read_member
from disk.digests import RACY_TIME_NS, DigestStore
from disk.remembered import Remembered, needs_a_word, told, why_not
from disk.walk import Walk
from protocol.content.listing import FolderEntry, Pack, PathSet, in_order, more_entry, packs_in
from protocol.content.names import check_name, is_portable
from protocol.content.pieces import DIGEST_BYTES, digest_at, digests_of, piece_count_of, piece_length, piece_size_of
from protocol.content.shares import (
    Fingerprint,
    Found,
    ScanResult,
    SharedFile,
    Standing,
    Top,
    Troubles,
    shared_file,
    shared_folder,
    shared_more,
    shared_pack,
    traits_of,
    with_more,
)
from protocol.content.traits import encode_traits
from protocol.content.troubles import ErrorKind, LibraryError, is_changed, is_short, meaning, shown

REPORT_INTERVAL = 0.5          # seconds of scanning between two reports
REPORT_LONG = 1000             # contents in a report from which on the garbage collector is spared them
HASH_TIME_MAX = 10.0           # seconds of hashing in a pass: then new files are looked for
PASS_INTERVAL_MIN = 2.0        # seconds
PASS_IDLE_FACTOR = 20          # a pass costs at most a twentieth of the time
WORK_TIME, REST_TIME = 0.005, 0.02   # seconds of work, then of rest, while the disk serves transfers ...
BREATH_TIME = 0.0005                 # ... and otherwise, so that other threads come to their turn
NEVER = -1                           # no file was changed then
GROWTH_SHARE = 256             # by so small a part a file may grow while it is hashed: a log, but no copy on its way
GROWN_INTERVAL = 10.0          # seconds between two announcements of a file that grows ...
EARLIER_TIME = 600.0           # ... and so long each is served after the next: whoever has begun to fetch it ends
EARLIER_MAX = 256              # of all files together


class StopFlag(Protocol):
    """What the scanner needs of a `threading.Event`."""

    def is_set(self) -> bool:
        """Whether the scan is to end."""


class _Earlier(NamedTuple):
    """What a file was that has grown since: it is served for a while, from its beginning as it lies there now."""

    shared: SharedFile
    until: float


class _Stopped(Exception):
    """The stop flag was seen, or the pass has had its time."""


def _is_inside(path: str, folder: str) -> bool:
    """Whether a real path is the folder or in it."""
    path, folder = os.path.normcase(path), os.path.normcase(folder)
    return path == folder or path.startswith(os.path.join(folder, ""))


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


def _check_readable(path: str) -> None:
    """An OSError for what cannot be read; LibraryError for what is neither file nor folder."""
    mode = os.stat(path).st_mode
    if stat.S_ISDIR(mode):
        os.listdir(path)
    elif stat.S_ISREG(mode):
        os.close(open_regular(path))
    else:
        raise LibraryError(ErrorKind.DENIED, f"{shown(path, 1000)} is no ordinary file or folder.")


class Scanner:
    """Finds and hashes what is shared; owned by one thread, which calls `run_once` again and again."""

    def __init__(self, folder: str, stop: Optional[StopFlag] = None, clock: Callable[[], float] = time.monotonic,
                 is_disk_busy: Callable[[], bool] = lambda: False, rest: Callable[[float], Any] = time.sleep,
                 danger_of: Callable[[str], str] = lambda path: "") -> None:
        """`danger_of` tells why a person would be asked whether a path is meant to be shared; else it is empty."""
        self.folder = os.path.abspath(folder)
        self._stop = stop
        self._clock = clock
        self._is_disk_busy, self._rest, self._danger_of = is_disk_busy, rest, danger_of
        self._rested_at = clock()
        self._store = DigestStore(self.folder)
        self._remembered, self._has_recalled = Remembered(self.folder), False
        self._missing: List[str] = []                                    # shared from elsewhere, and not there
        self._noted: Tuple[str, ...] = ()                                # of both: what is remembered
        self._standing, self._has_looked = Standing(0, 0, 0, 0), False
        self._inbox: queue.SimpleQueue[Callable[[], Any]] = queue.SimpleQueue()
        self._extras: List[str] = []
        self._coming: List[str] = []            # paths of `add_path` that are still in the inbox
        self._held: set[str] = set()
        self._known: Dict[str, SharedFile] = {}                          # files, by path
        self._folders: Dict[str, SharedFile] = {}                        # shared folders, by path
        self._contents: Dict[str, Tuple[Any, ...]] = {}                  # what a listing was made of
        self._twins: Dict[str, List[str]] = {}                           # in it, that others take for one with another
        self._packs: Dict[str, List[SharedFile]] = {}                    # of shared folders, by path
        self._earlier: Deque[_Earlier] = deque()                         # the oldest first
        self._grown_at: Dict[str, float] = {}                            # by path: when it was announced longer
        self._warned: set[str] = set()
        self._left_out: List[Tuple[str, str]] = []
        self._idle_cost = 0.0
        self._report: Optional[Callable[[ScanResult], None]] = None
        self._whole, self._step = ScanResult(), ScanResult()
        self._reported_at = self._hash_until = 0.0
        self._is_unfinished = self._has_pruned = False
        self._changed_ns: Dict[str, int] = {}                            # of known files: when changed last, as hashed
        self._doubted: set[str] = set()                                  # known files to be hashed again
        self._begun: Dict[str, Tuple[Found, bytearray]] = {}             # the digests so far of a huge file, by path

    # -- for other threads --

    def add_path(self, path: str) -> str:
        """Share a file or folder that lies elsewhere, from the next pass on; returns its real path."""
        real = os.path.realpath(path)
        self._check(real)
        self._coming.append(real)
        self._inbox.put(partial(self._take_path, real))
        return real

    def _check(self, real: str) -> None:
        """LibraryError for what may not be shared, or cannot be read."""
        try:
            _check_readable(real)
        except OSError as error:
            kind, cause = meaning(error)
            raise LibraryError(kind, f"{shown(real, 1000)} cannot be read: {cause}.") from error
        self._check_apart(real)
        check_name(os.path.basename(real))

    def _check_unasked(self, real: str) -> None:
        """The same of what is shared again with no word of a person's."""
        if self._danger_of(real):
            raise needs_a_word(real)
        self._check(real)

    def remove_path(self, name: str, path: str) -> str:
        """Share no longer what `add_path` has shared, by its name or path; returns its real path.

        LibraryError says what else it is: it lies in the shared folder, it is a part of something, it is not shared.
        """
        real, extras = os.path.realpath(path), list(dict.fromkeys([*self._extras, *self._coming, *self._missing]))
        found = [real] if real in extras else [extra for extra in extras if os.path.basename(extra) == name]
        if len(found) == 1:
            self._inbox.put(partial(self._drop_extra, found[0]))
            return found[0]
        if found:
            several = " and ".join(shown(extra, 1000) for extra in found)
            raise LibraryError(ErrorKind.DENIED, f"{several} are shared; U and one of the paths says which.")
        folder = os.path.realpath(self.folder)
        inside = next((extra for extra in extras if _is_inside(real, extra)), None)
        if _is_inside(real, folder) or os.path.lexists(os.path.join(folder, name)):
            raise LibraryError(ErrorKind.DENIED, f"{shown(name)} lies in the shared folder: move it out of "
                                                 f"{shown(folder, 1000)}, and it is shared no longer.")
        if inside:
            raise LibraryError(ErrorKind.DENIED, f"{shown(name)} is shared as a part of {shown(inside, 1000)}; "
                                                 f"U {shown(os.path.basename(inside))} ends all of that.")
        raise LibraryError(ErrorKind.DENIED, f"{shown(name)} is not shared by you; B lists what is.")

    def _check_apart(self, real: str) -> None:
        """Refuse what overlaps the shared folder: one file has one name here."""
        folder, path = os.path.realpath(self.folder), shown(real, 1000)
        if _is_inside(real, folder):
            raise LibraryError(ErrorKind.DENIED, f"{path} is shared already.")
        if _is_inside(folder, real):
            raise LibraryError(ErrorKind.DENIED, f"{path} cannot be shared as a whole: "
                                                 f"{shown(folder, 1000)} in it is shared already.")

    def adopt(self, shared: SharedFile) -> None:
        """Take a file that a download has finished as known: it is not hashed again."""
        self._inbox.put(partial(self._adopt, shared))

    def hold(self, name: str) -> None:
        """Keep a top folder's entry as it is while a download fills the folder."""
        self._inbox.put(partial(self._held.add, name))

    def release(self, name: str) -> None:
        """End `hold`: the folder is listed as it is at the next pass."""
        self._inbox.put(partial(self._held.discard, name))

    def doubt(self, path: str) -> None:
        """A file turned out not to be what was announced, though nothing tells that it was changed: hash it again."""
        self._inbox.put(partial(self._doubt, path))

    def standing(self) -> Optional[Standing]:
        """How far it is; None before the first look is over."""
        return self._standing if self._has_looked else None

    # -- for the owner --

    def next_pass_in(self) -> float:
        """Seconds until the next pass is worth its cost."""
        return 0.0 if self._is_unfinished else max(PASS_INTERVAL_MIN, PASS_IDLE_FACTOR * self._idle_cost)

    def run_once(self, report: Optional[Callable[[ScanResult], None]] = None) -> ScanResult:
        """Make one pass; `report` gets what was found about twice a second, the result is the whole of it.

        A pass ends after some seconds of hashing, and the next goes on: new small files do not wait for a huge one.
        """
        self._whole, self._step, self._report = ScanResult(), ScanResult(), report
        self._idle_cost, self._reported_at, self._is_unfinished = 0.0, self._clock(), False
        try:
            self._scan()
        except _Stopped:
            pass
        except OSError as error:
            if not is_short(error):
                raise
            self._end_short(error)
        self._flush()
        self._store.commit()
        return self._whole

    def _end_short(self, error: OSError) -> None:
        """Nothing was seen to be changed: what is known stays shared, and a later pass looks again."""
        short = Troubles()
        short.add("short", meaning(error)[1].capitalize())
        self._step.warnings += short.sentences(self._warned)
        self._warned |= short.kinds()

    def close(self) -> None:
        """Give the kept digests' file free."""
        self._take_inbox()
        self._store.close()

    def _adopt(self, shared: SharedFile) -> None:
        old = self._known.get(shared.path)
        if old is not None and old.file_id != shared.file_id:
            self._step.removed.append(old)
        self._known[shared.path] = shared
        self._changed_ns.pop(shared.path, None)     # what the next look finds
        self._doubted.discard(shared.path)
        # Nobody else has written it, so its time need not be old to be believed.
        self._store.keep(shared.path, shared.fingerprint, shared.digests, shared.mtime_ns + 2 * RACY_TIME_NS)

    def _doubt(self, path: str) -> None:
        if path in self._known:
            self._changed_ns[path] = NEVER
            self._store.forget(path)

    def _take_path(self, path: str) -> None:
        self._coming.remove(path)
        self._add_extra(path)

    def _add_extra(self, path: str) -> None:
        if path not in self._extras:
            self._extras.append(path)

    def _drop_extra(self, path: str) -> None:
        for paths in (self._extras, self._missing):
            if path in paths:
                paths.remove(path)              # the next pass finds it gone, and forgets it

    def _take_inbox(self) -> None:
        while not self._inbox.empty():      # nobody else takes from it; it is looked at before each file
            self._inbox.get_nowait()()

    def _tick(self) -> None:
        """Between two steps of work: stop if asked to, report if it is time."""
        if self._stop is not None and self._stop.is_set():
            raise _Stopped
        now = self._clock()
        if self._step and now - self._reported_at >= REPORT_INTERVAL:
            self._flush()
        if now - self._rested_at >= WORK_TIME:      # transfers have the disk first, and chat need not wait for a turn
            self._rest(REST_TIME if self._is_disk_busy() else BREATH_TIME)
            self._rested_at = self._clock()

    def _flush(self) -> None:
        step, self._step, self._reported_at = self._step, ScanResult(), self._clock()
        self._whole.added += step.added
        self._whole.removed += step.removed
        self._whole.warnings += step.warnings
        self._whole.left_out = step.left_out if step.left_out is not None else self._whole.left_out
        if step and self._report is not None:
            self._report(step)
        if len(step.added) >= REPORT_LONG:
            # They stay as long as they are shared, and are in no cycles: to look at 100,000 of them again and again
            # would stop all threads for a tenth of a second each time.
            gc.freeze()
        self._store.commit()

    def _scan(self) -> None:
        started = self._clock()
        self._recall()
        self._take_inbox()
        self._look_for_missing()
        self._note_extras()
        walk = Walk(self._tick)
        walk.add_folder_itself(self.folder)
        for path in self._extras:
            walk.add(path, os.path.basename(path), None)
        self._forget(walk)
        self._idle_cost = self._clock() - started
        self._hash_until = self._clock() + max(HASH_TIME_MAX, PASS_IDLE_FACTOR * self._idle_cost)
        try:
            self._hash_pending(walk)
        finally:
            self._step.warnings += walk.troubles.sentences(self._warned)
            self._warned = walk.troubles.kinds()
            if not self._is_unfinished and walk.troubles.left_out != self._left_out:
                self._step.left_out = self._left_out = walk.troubles.left_out

    def _recall(self) -> None:
        """What was shared from elsewhere when this node last ran is shared again."""
        if self._has_recalled:
            return
        self._has_recalled = True
        recalled = self._remembered.recall(self._check_unasked)
        for path in recalled.shared:
            self._add_extra(path)
        self._missing, self._noted = recalled.missing, (*self._extras, *recalled.missing)
        self._step.warnings += told(recalled)

    def _look_for_missing(self) -> None:
        """What was shared from elsewhere and was not there is shared again when it is, if it may be."""
        self._missing = [path for path in self._missing if path not in self._extras]
        for path in filter(os.path.lexists, list(self._missing)):
            self._missing.remove(path)
            refusal = why_not(path, self._check_unasked)
            if refusal:
                self._step.warnings.append(refusal)
            else:
                self._add_extra(path)

    def _note_extras(self) -> None:
        """Have the next run know what is shared from elsewhere; it is told where that cannot be."""
        paths = *self._extras, *self._missing
        if paths != self._noted:
            self._noted = paths
            if not self._remembered.keep(paths):
                self._step.warnings.append("what B shares lasts until Q: it cannot be noted in the folder")

    def _stand(self, walk: Walk, waiting: Sequence[str]) -> None:
        size = sum(found.fingerprint[0] for found in walk.files.values())
        left = sum(self._left_of(path, walk.files[path]) for path in waiting)
        self._standing, self._has_looked = Standing(len(walk.files), size, len(waiting), left), True

    def _left_of(self, path: str, found: Found) -> int:
        """The bytes of a file that are not hashed yet."""
        size, begun = found.fingerprint[0], self._begun.get(path)
        return size if begun is None else max(0, size - len(begun[1]) // DIGEST_BYTES * piece_size_of(size))

    def _set_waiting(self, count: int, size: int) -> None:
        self._standing = self._standing._replace(waiting=count, waiting_size=max(0, size))

    def _forget(self, walk: Walk) -> None:
        """Remove what is no longer there, or too short to be what it was.

        Where only its time differs, or it is longer, it stays until it is hashed: all of it may still be there.
        """
        for path, shared in list(self._known.items()):
            found = walk.files.get(path)
            if found is None or found.fingerprint[0] < shared.size:
                self._step.removed.append(self._known.pop(path))
                self._changed_ns.pop(path, None)
                if walk.has_seen_folder:
                    self._store.forget(path)
                continue
            if found.fingerprint == shared.fingerprint:
                self._look_at_change_time(path, found)
            seen = found.name, found.listed, found.is_executable
            if seen == (shared.name, shared.listed, shared.is_executable) or self._is_to_hash(path, found):
                continue                # what is to be hashed is told once, after that
            self._known[path] = replace(shared, name=seen[0], listed=seen[1], is_executable=seen[2])
            self._step.removed.append(shared)
            self._step.added.append(self._known[path])
        self._doubted &= self._known.keys()
        self._forget_earlier(walk)
        self._begun = {path: begun for path, begun in self._begun.items() if path in walk.files}
        if walk.has_seen_folder and not self._has_pruned:
            self._has_pruned = True
            self._store.prune(walk.files)
        for path in list(self._folders):
            if path not in walk.tops:
                self._forget_folder(path)

    def _forget_earlier(self, walk: Walk) -> None:
        if not self._earlier and not self._grown_at:
            return
        now, kept = self._clock(), deque()  # type: float, Deque[_Earlier]
        self._grown_at = {path: at for path, at in self._grown_at.items() if now - at < GROWN_INTERVAL}
        for earlier in self._earlier:
            found = walk.files.get(earlier.shared.path)
            if now < earlier.until and found is not None and found.fingerprint[0] >= earlier.shared.size:
                kept.append(earlier)
            else:
                self._step.removed.append(earlier.shared)
        self._earlier = kept

    def _look_at_change_time(self, path: str, found: Found) -> None:
        """Is what has its old size and time what it was? Where the change time is another one, it is hashed again."""
        if path not in self._changed_ns:            # a download has just finished it
            self._changed_ns[path] = found.changed_ns
            self._store.note_changed(path, found.changed_ns)
        elif self._changed_ns[path] != found.changed_ns:
            self._doubted.add(path)

    def _is_to_hash(self, path: str, found: Found) -> bool:
        """Whether it is not known as it is, or in doubt; but one that grows all the time has its interval."""
        known = self._known.get(path)
        if known is None or path in self._doubted:
            return True
        return known.fingerprint != found.fingerprint and path not in self._grown_at

    def _forget_folder(self, path: str) -> None:
        self._contents.pop(path, None)
        self._twins.pop(path, None)
        if path in self._folders:
            self._step.removed.append(self._folders.pop(path))
        self._step.removed += self._packs.pop(path, [])

    def _hash_pending(self, walk: Walk) -> None:
        """Hash what is new, small files first; a folder is listed as soon as all its files are known."""
        pending = sorted((path for path, found in walk.files.items() if self._is_to_hash(path, found)),
                         key=lambda path: walk.files[path].fingerprint[0])
        self._stand(walk, pending)
        are_new = set(pending)
        tops_of: Dict[str, List[str]] = defaultdict(list)
        for top_path, top in walk.tops.items():
            for _, path in top.members:
                if path in are_new:
                    tops_of[path].append(top_path)
                    top.waiting += 1
            if not top.waiting:
                self._list_folder(top_path, top, walk.troubles)
        for number, path in enumerate(pending, 1):
            self._tick()        # also where digests are kept, and nothing is read
            left = self._standing.waiting_size - self._left_of(path, walk.files[path])
            self._hash_file(path, walk.files[path], walk)
            self._set_waiting(len(pending) - number, left)
            for top_path in tops_of.get(path, ()):
                walk.tops[top_path].waiting -= 1
                if not walk.tops[top_path].waiting:
                    self._list_folder(top_path, walk.tops[top_path], walk.troubles)
            self._end_pass_in_time()

    def _hash_file(self, path: str, found: Found, walk: Walk) -> None:
        self._take_inbox()     # a download may just have finished this very file
        adopted = self._known.get(path)
        if adopted is not None and adopted.fingerprint == found.fingerprint and path not in self._doubted:
            return
        started = self._clock()
        kept = self._store.find(path, found.fingerprint, found.changed_ns) if path not in self._begun else b""
        if kept and len(kept) == piece_count_of(found.fingerprint[0]) * DIGEST_BYTES:
            self._know(path, found, kept)
            return
        if kept:
            self._begun[path] = found, bytearray(kept)
        try:
            self._know(path, found, self._hash_opened(path, found))
        except StillChanging:
            walk.troubles.add("changing", found.name)
            self._idle_cost += self._clock() - started
            if adopted is not None and adopted.size == found.fingerprint[0]:
                self._drop_known(path)
        except OSError as error:
            if not is_changed(error):      # else the next pass sees what stands there now
                walk.add_trouble(error, found.name)
            self._drop_known(path)

    def _take(self, path: str, shared: SharedFile) -> None:
        """It is something else now. What was announced goes; if the file has only grown, it is served for a while."""
        old = self._known.get(path)
        self._drop_known(path)
        self._known[path] = shared
        self._step.added.append(shared)
        self._earlier = deque(earlier for earlier in self._earlier
                              if (earlier.shared.path, earlier.shared.file_id) != (path, shared.file_id))
        if old is not None and shared.size > old.size > 0 and _still_begins_with(path, old):
            earlier = replace(old, listed=False)
            self._step.added.append(earlier)
            self._earlier.append(_Earlier(earlier, self._clock() + EARLIER_TIME))
            self._grown_at[path] = self._clock()
            if len(self._earlier) > EARLIER_MAX:
                self._step.removed.append(self._earlier.popleft().shared)

    def _drop_known(self, path: str) -> None:
        self._doubted.discard(path)
        if path in self._known:
            self._step.removed.append(self._known.pop(path))

    def _know(self, path: str, found: Found, digests: bytes) -> None:
        """It was hashed; where only something else than its content was changed, nobody need hear of it."""
        self._doubted.discard(path)
        self._changed_ns[path] = found.changed_ns
        shared = shared_file(found.name, path, found.fingerprint, digests, found.listed, found.is_executable)
        if self._known.get(path) != shared:
            self._take(path, shared)

    def _hash_opened(self, path: str, found: Found) -> bytes:
        descriptor = open_regular(path)
        try:
            return self._digest_pieces(descriptor, path, found)
        finally:
            os.close(descriptor)

    def _digest_pieces(self, descriptor: int, path: str, found: Found) -> bytes:
        """Hash a file, going on where the last pass left it."""
        fingerprint = found.fingerprint
        tick = partial(self._tick_hashing, descriptor, fingerprint)
        size = fingerprint[0]
        begun = self._begun.pop(path, None)
        digests = begun[1] if begun is not None and begun[0] == found else bytearray()
        try:
            for index in range(len(digests) // DIGEST_BYTES, piece_count_of(size)):
                digests += digest_range(descriptor, index * piece_size_of(size), piece_length(size, index), tick)
                self._set_waiting(self._standing.waiting, self._standing.waiting_size - piece_length(size, index))
                self._end_pass_in_time()
            tick()
        except _Stopped:
            self._begun[path] = found, digests
            self._store.keep(path, fingerprint, bytes(digests), time.time_ns(), found.changed_ns)
            raise
        self._store.keep(path, fingerprint, bytes(digests), time.time_ns(), found.changed_ns)
        return bytes(digests)

    def _tick_hashing(self, descriptor: int, fingerprint: Fingerprint) -> None:
        """Give up on a file that changes at its next read, not at its end: it may grow for ever.

        But one that grows by little, as a log does, is announced as far as it came when this began.
        """
        self._tick()
        found = fingerprint_of(os.fstat(descriptor))
        grown = found[0] - fingerprint[0]
        if found != fingerprint and not (0 < grown <= fingerprint[0] // GROWTH_SHARE and found[2] == fingerprint[2]):
            raise StillChanging

    def _end_pass_in_time(self) -> None:
        if self._clock() >= self._hash_until:
            self._is_unfinished = True
            raise _Stopped

    def _list_folder(self, path: str, top: Top, troubles: Troubles) -> None:
        """Announce a folder as one entry, when its content is new."""
        if top.name in self._held:
            return
        files = [(name, self._known[path]) for name, path in top.members if path in self._known]
        for name in [name for name, path in top.members if path not in self._known]:
            top.leave_out("changing", name)
        contents = files, top.empty, dict(top.left_out)
        if self._contents.get(path) == contents:
            for twin in self._twins.get(path, ()):
                troubles.add("twin", f"{top.name}/{twin}")
            return
        self._forget_folder(path)
        self._contents[path] = contents
        entries, paths = [], PathSet()
        for entry in [FolderEntry(name, shared.size, shared.file_id, False) for name, shared in files] + [
                FolderEntry(name, 0, b"", True) for name in top.empty]:
            if paths.add(entry.path):
                entries.append(entry)
            else:
                troubles.add("twin", f"{top.name}/{entry.path}")
                top.leave_out("twin", entry.path)
                self._twins.setdefault(path, []).append(entry.path)
        others = [entry for entry in entries if not is_portable(entry.path)]
        if others:
            apart = {entry.path for entry in others}
            entries = [entry for entry in entries if entry.path not in apart]
        if entries or others:
            try:
                packs = self._packed(path, top.name, entries, dict(files))
            except (_Stopped, OSError):
                self._contents.pop(path)     # it is listed at the next pass
                raise
            known = dict(files)
            traits = [traits_of(known[entry.path]) for entry in (*in_order(entries), *in_order(others))
                      if not entry.is_folder]
            told = encode_traits(list(top.left_out.values()), traits)
            self._announce_folder(path, top.name, entries, others, packs, told, troubles)

    def _announce_folder(self, path: str, name: str, entries: List[FolderEntry], others: List[FolderEntry],
                         packs: List[SharedFile], traits: bytes, troubles: Troubles) -> None:
        """`others`: entries whose names not all can keep, in a listing of their own."""
        try:
            if others:
                more = shared_more(f"{name}/other names", f"{path}{os.sep}.more", others)
                entries = [*entries, more_entry(more.listing, more.file_id)]
                packs = [*packs, more]
            shared = shared_folder(name, path, entries, packs[:-1] if others else packs, traits)
            self._folders[path] = shared = with_more(shared, more) if others else shared
        except LibraryError:
            troubles.add("big", name)
        else:
            self._packs[path] = packs
            self._step.added += (*packs, shared)

    def _packed(self, path: str, name: str, entries: List[FolderEntry], files: Dict[str, SharedFile]
                ) -> List[SharedFile]:
        """The packs of a folder's small files; none while any of them changes."""
        packs = []
        try:
            for number, pack in enumerate(packs_in(in_order(entries)), 1):
                members = tuple((files[entry.path].path, files[entry.path].fingerprint) for entry in pack.members)
                digests = self._digests_of_pack(pack, members)
                packs.append(shared_pack(f"{name}/small files {number}", f"{path}{os.sep}.pack {number}", pack, digests,
                                         members))
        except StillChanging:
            return []
        except OSError as error:
            if is_short(error):
                raise
            return []
        return packs

    def _digests_of_pack(self, pack: Pack, members: Tuple[Tuple[str, Fingerprint], ...]) -> bytes:
        # The files are known by now, so what they are together depends on nothing but their ids.
        place = ":pack " + hashlib.sha256(b"".join(entry.file_id for entry in pack.members)).hexdigest()
        fingerprint = (pack.size, 0, 0)
        kept = self._store.find(place, fingerprint)
        if kept:
            return kept
        data = bytearray()
        for path, expected in members:
            self._tick()
            data += read_member(path, expected, 0, expected[0])
        digests = digests_of(bytes(data))
        self._store.keep(place, fingerprint, digests, 2 * RACY_TIME_NS)
        return digests
