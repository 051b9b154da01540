"""Files on disk: safe names, shared files, pieces and digests, part files, cache. The only code that opens files.

Two parts, one owner each, no locks (names, pieces and listings are pure: `protocol/content.py`):

* `Scanner`: owned by the scanner's thread. Walks the shared folder and hashes what is new. `add_path`, `adopt`,
  `hold` and `release` are for other threads: they only put into its inbox.
* `Library`: owned by one disk thread; every method may block on the disk. Below the folder's hidden `.node` it keeps
  `lock`, `parts/<id>` with `parts/<id>.map` (unfinished downloads), and `cache/<id>` with `cache/<id>.map`.

A name from another node is refused or used as it stands, never repaired. A file is written under a name made from its
id, verified piece by piece, flushed, and only then linked under its final name, which never replaces anything.
Every failure is a `LibraryError` with a sentence that can be shown to a person.
"""

from __future__ import annotations

import collections
import contextlib
import errno
import gc
import hashlib
import math
import os
import queue
import re
import secrets
import shutil
import stat
import struct
import time
from collections import OrderedDict, defaultdict
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any, Callable, Deque, Dict, Iterable, Iterator, List, NamedTuple, Optional, Protocol, Tuple, Union

from protocol.buffers import BufferPool
from protocol.content import (
    DIGEST_BYTES,
    FILE_SIZE_MAX,
    FOLDER_BYTES_MAX,
    GIB,
    HIDDEN,
    KIB,
    MIB,
    BadName,
    ErrorKind,
    FolderEntry,
    FolderInUse,
    LibraryError,
    Pack,
    PathSet,
    check_manifest,
    check_name,
    has_piece,
    in_order,
    packs_in,
    piece_count_of,
    piece_length,
    piece_size_of,
    shown,
    size_text,
)
from protocol.content import (  # noqa: F401  what callers of the library also need
    FOLDER_ENTRIES_MAX as FOLDER_ENTRIES_MAX,
)
from protocol.content import (
    PIECES_MAX as PIECES_MAX,
)
from protocol.content import (
    decode_folder as decode_folder,
)
from protocol.content import (
    digests_of as digests_of,
)
from protocol.content import (
    encode_folder as encode_folder,
)
from protocol.content import (
    identity_of as identity_of,
)
from protocol.content import (
    ids_in as ids_in,
)
from protocol.parts import MAP_RECORD, Content, Destination, PartInfo, decode_map, encode_map
from protocol.shares import (
    SCAN_FILES_MAX,
    Fingerprint,
    Found,
    ScanResult,
    SharedFile,
    SharesById,
    Top,
    Troubles,
    shared_file,
    shared_folder,
    shared_pack,
)
from protocol.troubles import called, meaning, no_room, speaking
from protocol.wire import Buffer

try:
    import sqlite3
except ImportError:  # a Python that was built without it: then a restart hashes anew
    sqlite3 = None  # type: ignore[assignment]
try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]
try:
    import msvcrt
except ImportError:  # everywhere else
    msvcrt = None  # type: ignore[assignment]

READ_SIZE = MIB                # bytes hashed between two looks at the stop flag

CANDIDATES_MAX = 1000          # "name (2)" ... before giving up

READ_BUFFERS_MAX = 16 * MIB    # used again while a file is sent
OPEN_FILES_MAX = 32            # descriptors kept open between calls
PARTS_MAX = 1024               # unfinished downloads
CLAIMS_BYTES_AT_ONCE = 64 * MIB   # of a part that are hashed in one call: others wait for the disk, too
CACHE_BYTES_MAX = GIB
CACHE_FREE_PERCENT = 5         # of the free space: the cache never takes more
MAP_BYTES_MAX = 256 * KIB      # header, 4096 digests and as many records
NETWORK_FILE = "network"       # below the hidden folder
NETWORK_BYTES_MAX = 4096
NETWORK_AGE_MAX = 3600.0       # seconds: later, its members' addresses may be anybody's
REPORT_INTERVAL = 0.5          # seconds of scanning between two reports
REPORT_LONG = 1000             # contents in a report from which on the garbage collector is spared them
HASH_TIME_MAX = 10.0           # seconds of hashing in a pass: then new files are looked for
PASS_INTERVAL_MIN = 2.0        # seconds
PASS_IDLE_FACTOR = 20          # a pass costs at most a twentieth of the time
BUSY_TIME = 0.3                # seconds after a piece was read or written in which transfers have the disk
WORK_TIME, REST_TIME = 0.005, 0.02   # seconds of work, then of rest, while the disk serves transfers ...
BREATH_TIME = 0.0005                 # ... and otherwise, so that other threads come to their turn
DIGESTS_FILE = "digests.db"    # below the hidden folder
DIGESTS_ROWS_MAX = 400_000     # about 150 bytes each for small files
RACY_TIME_NS = 2_000_000_000   # a file changed so shortly before it was hashed may change again and keep its time
RENAME_TRIES, RENAME_DELAY = 10, 0.1   # Windows: a virus scanner may hold the file for a moment


# ---- Opening, reading and hashing ------------------------------------------------------------------------------------


def _flags(*names: str) -> int:
    """The named `os.open` flags that this system has."""
    return sum(getattr(os, name, 0) for name in names)


# O_NONBLOCK: a FIFO must not hold the thread. O_NOFOLLOW: a link is not the file that was announced.
_OPEN_FLAGS = _flags("O_NONBLOCK", "O_NOFOLLOW", "O_CLOEXEC", "O_BINARY", "O_NOINHERIT")
_HAS_DIR_FD = hasattr(os, "O_DIRECTORY") and {os.open, os.mkdir, os.stat, os.unlink, os.link} <= os.supports_dir_fd
_REPARSE_POINT = 0x400   # Windows: links, junctions, files that are only in the cloud


def _fingerprint(status: os.stat_result) -> Fingerprint:
    # Windows gives different inodes by name and by descriptor on some file systems: size and time must do there.
    return status.st_size, status.st_mtime_ns, 0 if os.name == "nt" else status.st_ino


def _is_link(status: os.stat_result) -> bool:
    return stat.S_ISLNK(status.st_mode) or bool(getattr(status, "st_file_attributes", 0) & _REPARSE_POINT)


def _open_regular(path: str, write: bool = False, dir_fd: Optional[int] = None) -> int:
    """Open a regular file, never through a link in its last component; OSError otherwise."""
    if not hasattr(os, "O_NOFOLLOW") and _is_link(os.lstat(path)):
        raise OSError(errno.ELOOP, "a link", path)
    descriptor = os.open(path, _OPEN_FLAGS | (os.O_RDWR if write else os.O_RDONLY), dir_fd=dir_fd)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", path)
    return descriptor


def _create(path: str, dir_fd: Optional[int] = None) -> int:
    """Create a file that was not there; the system applies the umask, and no execute bit is ever set."""
    return os.open(path, _OPEN_FLAGS | os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644, dir_fd=dir_fd)


def _read_at(descriptor: int, length: int, offset: int) -> bytes:
    """Read exactly `length` bytes, less only at the end of the file."""
    if hasattr(os, "pread"):
        data = os.pread(descriptor, length, offset)
    else:
        os.lseek(descriptor, offset, os.SEEK_SET)
        data = os.read(descriptor, length)
    if len(data) == length or not data:
        return data
    return data + _read_at(descriptor, length - len(data), offset + len(data))


class _StillChanging(Exception):
    """The file changed while it was hashed."""


def _read_member(path: str, expected: Fingerprint, offset: int, length: int) -> bytes:
    """A part of a file in a pack, if it is still as it was announced; else `_StillChanging` or an OSError."""
    descriptor = _open_regular(path)
    try:
        data = _read_at(descriptor, length, offset)
        if _fingerprint(os.fstat(descriptor)) != expected or len(data) != length:
            raise _StillChanging
        return data
    finally:
        os.close(descriptor)


def _read_into(buffers: BufferPool, descriptor: int, length: int, offset: int) -> memoryview:
    """The same, into a buffer that is used again when nobody holds the view any more."""
    if not hasattr(os, "preadv"):  # Windows, older macOS
        return memoryview(_read_at(descriptor, length, offset))
    view, filled = memoryview(buffers.take(length)), 0
    while filled < length:
        count = os.preadv(descriptor, [view[filled:]], offset + filled)
        if not count:
            break
        filled += count
    return view[:filled]


def _write_at(descriptor: int, data: Buffer, offset: int) -> None:
    view = memoryview(data)
    while view:
        if hasattr(os, "pwrite"):
            written = os.pwrite(descriptor, view, offset)
        else:
            os.lseek(descriptor, offset, os.SEEK_SET)
            written = os.write(descriptor, view)
        view, offset = view[written:], offset + written


def _digest_range(descriptor: int, offset: int, length: int, tick: Callable[[], None]) -> bytes:
    """SHA-256 of a range (shorter where the file ends), with a tick before each read."""
    hasher = hashlib.sha256()
    end = offset + length
    while offset < end:
        tick()
        data = _read_at(descriptor, min(READ_SIZE, end - offset), offset)
        if not data:
            break
        hasher.update(data)
        offset += len(data)
    return hasher.digest()


def _holds(descriptor: int, size: int, digests: bytes) -> bool:
    """Whether an open file has this content: stops at the first piece that differs."""
    if os.fstat(descriptor).st_size != size:
        return False
    piece_size = piece_size_of(size)
    return all(
        _digest_range(descriptor, index * piece_size, piece_size, _no_tick) == _digest_at(digests, index)
        for index in range(piece_count_of(size))
    )


def _digest_at(digests: bytes, index: int) -> bytes:
    return digests[index * DIGEST_BYTES:(index + 1) * DIGEST_BYTES]


def _no_tick() -> None:
    pass


# ---- Digests kept between runs ---------------------------------------------------------------------------------------

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
        except (sqlite3.Error, OSError, OverflowError):
            self._give_up()
            return []

    def _opened(self) -> Any:
        """Open the file, or make it anew where it is damaged."""
        path = os.path.join(self._folder, HIDDEN, DIGESTS_FILE)
        for is_last in (False, True):
            if os.path.lexists(path) and _is_link(os.lstat(path)):
                raise OSError(errno.ELOOP, "a link", path)
            database = sqlite3.connect(path, timeout=0.0)
            try:
                # Only a help, so it waits for no disk: a crash of the machine may cost it, never a wrong digest.
                for order in ("PRAGMA locking_mode = EXCLUSIVE", "PRAGMA journal_mode = TRUNCATE",
                              "PRAGMA synchronous = OFF", "PRAGMA temp_store = MEMORY", self._TABLE):
                    database.execute(order)
                database.execute("SELECT path, size, mtime_ns, inode, hashed_ns, id, digests FROM digests LIMIT 1")
                return database
            except sqlite3.Error:
                database.close()
                if is_last:
                    raise
                for end in ("", "-journal"):
                    _remove(path + end)
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


# ---- The scanner -----------------------------------------------------------------------------------------------------

class StopFlag(Protocol):
    """What the scanner needs of a `threading.Event`."""

    def is_set(self) -> bool:
        """Whether the scan is to end."""


class _Stopped(Exception):
    """The stop flag was seen, or the pass has had its time."""


class _Walk:
    """One look at what lies in the shared places: names and fingerprints, nothing is opened."""

    def __init__(self, tick: Callable[[], None]) -> None:
        self.files: Dict[str, Found] = {}
        self.tops: Dict[str, Top] = {}
        self.troubles = Troubles()
        self.has_seen_folder = True
        self._tick = tick

    def add_folder_itself(self, folder: str) -> None:
        """Look at the shared folder: each of its files and folders is shared by itself."""
        children = self._children(folder)
        if children is None:
            self.troubles.add("folder", folder)
            self.has_seen_folder = False        # it may be back, with all that is known of it
        for child in children or ():
            self.add(folder + os.sep + child, child, None)

    def add(self, path: str, name: str, top: Optional[Top]) -> None:
        """Look at a file or folder; `top` is the shared folder that it is in, if any."""
        self._tick()
        if len(self.files) >= SCAN_FILES_MAX:
            self.troubles.add("many", name)
            return
        try:
            check_name(name)
            status = os.lstat(path)
        except BadName:
            self.troubles.add("name", name)
        except OSError:
            self.troubles.add("unreadable", name)
        else:
            self._add_checked(path, name, top, status)

    def _add_checked(self, path: str, name: str, top: Optional[Top], status: os.stat_result) -> None:
        if _is_link(status):
            self.troubles.add("link", name)
        elif stat.S_ISDIR(status.st_mode):
            if top is None:
                top = self.tops[path] = Top(name)
            self._add_folder(path, name, top)
        elif stat.S_ISREG(status.st_mode):
            if top is not None:
                top.members.append((name[len(top.name) + 1:], path))
            self.files[path] = Found(name, top is None, _fingerprint(status))
        else:
            self.troubles.add("special", name)

    def _add_folder(self, path: str, name: str, top: Top) -> None:
        children = self._children(path)
        if children is None:
            self.troubles.add("unreadable", name)
        elif not children and name != top.name:
            top.empty.append(name[len(top.name) + 1:])
        for child in children or ():
            self.add(path + os.sep + child, f"{name}/{child}", top)

    def _children(self, path: str) -> Optional[List[str]]:
        """What is in a folder, without dotfiles; None when it cannot be read."""
        try:
            return sorted(name for name in os.listdir(path) if not name.startswith("."))
        except OSError:
            return None


def _is_inside(path: str, folder: str) -> bool:
    """Whether a real path is the folder or in it."""
    path, folder = os.path.normcase(path), os.path.normcase(folder)
    return path == folder or path.startswith(os.path.join(folder, ""))


def _check_readable(path: str) -> None:
    """An OSError for what cannot be read; LibraryError for what is neither file nor folder."""
    mode = os.stat(path).st_mode
    if stat.S_ISDIR(mode):
        os.listdir(path)
    elif stat.S_ISREG(mode):
        os.close(_open_regular(path))
    else:
        raise LibraryError(ErrorKind.DENIED, f"{shown(path, 1000)} is no ordinary file or folder.")


class Scanner:
    """Finds and hashes what is shared; owned by one thread, which calls `run_once` again and again."""

    def __init__(self, folder: str, stop: Optional[StopFlag] = None, clock: Callable[[], float] = time.monotonic,
                 is_disk_busy: Callable[[], bool] = lambda: False, rest: Callable[[float], Any] = time.sleep) -> None:
        self.folder = os.path.abspath(folder)
        self._stop = stop
        self._clock = clock
        self._is_disk_busy, self._rest = is_disk_busy, rest
        self._rested_at = clock()
        self._store = DigestStore(self.folder)
        self._inbox: queue.SimpleQueue[Callable[[], Any]] = queue.SimpleQueue()
        self._extras: List[str] = []
        self._held: set[str] = set()
        self._known: Dict[str, SharedFile] = {}                          # files, by path
        self._folders: Dict[str, SharedFile] = {}                        # shared folders, by path
        self._contents: Dict[str, Tuple[List[Tuple[str, SharedFile]], List[str]]] = {}  # what a listing was made of
        self._packs: Dict[str, List[SharedFile]] = {}                    # of shared folders, by path
        self._warned: set[str] = set()
        self._idle_cost = 0.0
        self._report: Optional[Callable[[ScanResult], None]] = None
        self._whole, self._step = ScanResult(), ScanResult()
        self._reported_at = self._hash_until = 0.0
        self._is_unfinished = self._has_pruned = False
        self._begun: Dict[str, Tuple[Fingerprint, bytearray]] = {}       # the digests so far of a huge file, by path

    # -- for other threads --

    def add_path(self, path: str) -> str:
        """Share a file or folder that lies elsewhere, from the next pass on; returns its real path."""
        real = os.path.realpath(path)
        try:
            _check_readable(real)
        except OSError as error:
            kind, cause = meaning(error)
            raise LibraryError(kind, f"{shown(path, 1000)} cannot be read: {cause}.") from error
        self._check_apart(real)
        check_name(os.path.basename(real))
        self._inbox.put(partial(self._add_extra, real))
        return real

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
        with contextlib.suppress(_Stopped):
            self._scan()
        self._flush()
        self._store.commit()
        return self._whole

    def close(self) -> None:
        """Give the kept digests' file free."""
        self._take_inbox()
        self._store.close()

    def _adopt(self, shared: SharedFile) -> None:
        self._known[shared.path] = shared
        # Nobody else has written it, so its time need not be old to be believed.
        self._store.keep(shared.path, shared.fingerprint, shared.digests, shared.mtime_ns + 2 * RACY_TIME_NS)

    def _add_extra(self, path: str) -> None:
        if path not in self._extras:
            self._extras.append(path)

    def _take_inbox(self) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
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
        if step and self._report is not None:
            self._report(step)
        if len(step.added) >= REPORT_LONG:
            # They stay as long as they are shared, and are in no cycles: to look at 100,000 of them again and again
            # would stop all threads for a tenth of a second each time.
            gc.freeze()
        self._store.commit()

    def _scan(self) -> None:
        started = self._clock()
        self._take_inbox()
        walk = _Walk(self._tick)
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

    def _forget(self, walk: _Walk) -> None:
        """Remove what is no longer there, or no longer what it was."""
        for path, shared in list(self._known.items()):
            found = walk.files.get(path)
            if found is None or found.fingerprint != shared.fingerprint:
                self._step.removed.append(self._known.pop(path))
                if walk.has_seen_folder:
                    self._store.forget(path)
            elif (found.name, found.listed) != (shared.name, shared.listed):
                self._known[path] = replace(shared, name=found.name, listed=found.listed)
                self._step.removed.append(shared)
                self._step.added.append(self._known[path])
        self._begun = {path: begun for path, begun in self._begun.items() if path in walk.files}
        if walk.has_seen_folder and not self._has_pruned:
            self._has_pruned = True
            self._store.prune(walk.files)
        for path in list(self._folders):
            if path not in walk.tops:
                self._forget_folder(path)

    def _forget_folder(self, path: str) -> None:
        self._contents.pop(path, None)
        if path in self._folders:
            self._step.removed.append(self._folders.pop(path))
        self._step.removed += self._packs.pop(path, [])

    def _hash_pending(self, walk: _Walk) -> None:
        """Hash what is new, small files first; a folder is listed as soon as all its files are known."""
        pending = sorted((path for path in walk.files if path not in self._known),
                         key=lambda path: walk.files[path].fingerprint[0])
        tops_of: Dict[str, List[str]] = defaultdict(list)
        for top_path, top in walk.tops.items():
            for _, path in top.members:
                if path not in self._known:
                    tops_of[path].append(top_path)
                    top.waiting += 1
            if not top.waiting:
                self._list_folder(top_path, top, walk.troubles)
        for path in pending:
            self._hash_file(path, walk.files[path], walk.troubles)
            for top_path in tops_of[path]:
                walk.tops[top_path].waiting -= 1
                if not walk.tops[top_path].waiting:
                    self._list_folder(top_path, walk.tops[top_path], walk.troubles)
            self._end_pass_in_time()

    def _hash_file(self, path: str, found: Found, troubles: Troubles) -> None:
        self._take_inbox()     # a download may just have finished this very file
        adopted = self._known.get(path)
        if adopted is not None and adopted.fingerprint == found.fingerprint:
            return
        started = self._clock()
        kept = self._store.find(path, found.fingerprint) if path not in self._begun else b""
        if kept and len(kept) == piece_count_of(found.fingerprint[0]) * DIGEST_BYTES:
            self._known[path] = shared = shared_file(found.name, path, found.fingerprint, kept, found.listed)
            self._step.added.append(shared)
            return
        if kept:
            self._begun[path] = found.fingerprint, bytearray(kept)
        try:
            self._known[path] = shared = self._hash_opened(path, found)
        except _StillChanging:
            troubles.add("changing", found.name)
            self._idle_cost += self._clock() - started
        except OSError:
            troubles.add("unreadable", found.name)
        else:
            self._step.added.append(shared)

    def _hash_opened(self, path: str, found: Found) -> SharedFile:
        descriptor = _open_regular(path)
        try:
            digests = self._digest_pieces(descriptor, path, found.fingerprint)
        finally:
            os.close(descriptor)
        return shared_file(found.name, path, found.fingerprint, digests, found.listed)

    def _digest_pieces(self, descriptor: int, path: str, fingerprint: Fingerprint) -> bytes:
        """Hash a file, going on where the last pass left it."""
        tick = partial(self._tick_hashing, descriptor, fingerprint)
        size = fingerprint[0]
        begun = self._begun.pop(path, None)
        digests = begun[1] if begun is not None and begun[0] == fingerprint else bytearray()
        try:
            for index in range(len(digests) // DIGEST_BYTES, piece_count_of(size)):
                digests += _digest_range(descriptor, index * piece_size_of(size), piece_length(size, index), tick)
                self._end_pass_in_time()
            tick()
        except _Stopped:
            self._begun[path] = fingerprint, digests
            self._store.keep(path, fingerprint, bytes(digests), time.time_ns())
            raise
        self._store.keep(path, fingerprint, bytes(digests), time.time_ns())
        return bytes(digests)

    def _tick_hashing(self, descriptor: int, fingerprint: Fingerprint) -> None:
        """Give up on a file that changes at its next read, not at its end: it may grow for ever."""
        self._tick()
        if _fingerprint(os.fstat(descriptor)) != fingerprint:
            raise _StillChanging

    def _end_pass_in_time(self) -> None:
        if self._clock() >= self._hash_until:
            self._is_unfinished = True
            raise _Stopped

    def _list_folder(self, path: str, top: Top, troubles: Troubles) -> None:
        """Announce a folder as one entry, when its content is new."""
        if top.name in self._held:
            return
        files = [(name, self._known[path]) for name, path in top.members if path in self._known]
        if self._contents.get(path) == (files, top.empty):
            return
        self._forget_folder(path)
        self._contents[path] = (files, top.empty)
        entries, paths = [], PathSet()
        for entry in [FolderEntry(name, shared.size, shared.file_id, False) for name, shared in files] + [
                FolderEntry(name, 0, b"", True) for name in top.empty]:
            if paths.add(entry.path):
                entries.append(entry)
            else:
                troubles.add("twin", f"{top.name}/{entry.path}")
        if entries:
            try:
                packs = self._packed(path, top.name, entries, dict(files))
            except _Stopped:
                self._contents.pop(path)     # it is listed at the next pass
                raise
            self._announce_folder(path, top.name, entries, packs, troubles)

    def _announce_folder(self, path: str, name: str, entries: List[FolderEntry], packs: List[SharedFile],
                         troubles: Troubles) -> None:
        try:
            self._folders[path] = shared = shared_folder(name, path, entries, packs)
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
        except (OSError, _StillChanging):
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
            data += _read_member(path, expected, 0, expected[0])
        digests = digests_of(bytes(data))
        self._store.keep(place, fingerprint, digests, 2 * RACY_TIME_NS)
        return digests


# ---- Folders and final names -----------------------------------------------------------------------------------------

class _Folder:
    """An open directory: names are looked up in it, links are not followed."""

    def __init__(self, path: str, descriptor: Optional[int]) -> None:
        self.path = path
        self._descriptor = descriptor

    @classmethod
    def open(cls, path: str) -> _Folder:
        """Open a folder that the person chose (it may be a link)."""
        return cls(path, os.open(path, os.O_RDONLY | _flags("O_DIRECTORY", "O_CLOEXEC")) if _HAS_DIR_FD else None)

    def __enter__(self) -> _Folder:
        return self

    def __exit__(self, *_: object) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)

    def _at(self, name: str) -> str:
        return name if self._descriptor is not None else os.path.join(self.path, name)

    def status(self, name: str) -> os.stat_result:
        """What stands under the name, itself and not what it may point to."""
        return os.stat(self._at(name), dir_fd=self._descriptor, follow_symlinks=False)

    def child(self, name: str) -> _Folder:
        """Open a folder in this one, made if absent; a link or a file in its place is an OSError."""
        with contextlib.suppress(FileExistsError):
            os.mkdir(self._at(name), dir_fd=self._descriptor)
        path = os.path.join(self.path, name)
        if self._descriptor is not None:
            flags = os.O_RDONLY | _flags("O_DIRECTORY", "O_CLOEXEC", "O_NOFOLLOW")
            return _Folder(path, os.open(name, flags, dir_fd=self._descriptor))
        status = self.status(name)
        if _is_link(status) or not stat.S_ISDIR(status.st_mode):
            raise OSError(errno.ENOTDIR, "not a folder", path)
        return _Folder(path, None)

    def open_file(self, name: str) -> int:
        """Open a regular file in this folder for reading."""
        return _open_regular(self._at(name), dir_fd=self._descriptor)

    def create(self, name: str) -> int:
        """Create a file in this folder."""
        return _create(self._at(name), self._descriptor)

    def remove(self, name: str) -> None:
        """Remove a file of this folder."""
        os.unlink(self._at(name), dir_fd=self._descriptor)

    def take_in(self, source: str, name: str) -> None:
        """Move a file into this folder; FileExistsError where the name is taken, by anything at all."""
        if os.name == "nt":
            _rename_windows(source, self._at(name))
            return
        try:
            os.link(source, self._at(name), dst_dir_fd=self._descriptor, follow_symlinks=False)
        except FileExistsError:
            raise
        except (OSError, NotImplementedError):     # a disk without hard links, such as exFAT
            self._take_in_by_reservation(source, name)
        else:
            os.unlink(source)

    def _take_in_by_reservation(self, source: str, name: str) -> None:
        os.close(self.create(name))
        try:
            os.replace(source, self._at(name), dst_dir_fd=self._descriptor)
        except OSError:
            self.remove(name)
            raise

    def sync(self) -> None:
        """Make new names survive a power cut, where the system can."""
        if self._descriptor is not None:
            with contextlib.suppress(OSError):
                os.fsync(self._descriptor)


def _rename_windows(source: str, target: str) -> None:
    """Rename; Windows itself refuses to replace anything, and another program may hold the file for a moment."""
    for _ in range(RENAME_TRIES - 1):
        try:
            return os.rename(source, target)
        except FileExistsError:
            raise
        except PermissionError:
            time.sleep(RENAME_DELAY)
    os.rename(source, target)


@contextlib.contextmanager
def _folder_in(root: str, components: List[str]) -> Iterator[_Folder]:
    """A folder below another, its parents made one by one, never through a link."""
    with contextlib.ExitStack() as stack:
        place = stack.enter_context(_Folder.open(root))
        for component in components:
            place = stack.enter_context(place.child(component))
        yield place


def _place(place: _Folder, source: str, status: os.stat_result, name: str,
           is_same: Callable[[_Folder, str], bool], is_synced: bool = True) -> Tuple[str, bool]:
    """Give a finished file the first free name; stop at one that already holds the same content."""
    stem, extension = os.path.splitext(name)
    for number in range(1, CANDIDATES_MAX + 1):
        candidate = name if number == 1 else f"{stem} ({number}){extension}"
        try:
            place.take_in(source, candidate)
        except FileExistsError:
            if is_same(place, candidate):
                return candidate, True
            continue
        _confirm(place, candidate, status)
        if is_synced:
            place.sync()
        return candidate, False
    raise LibraryError(ErrorKind.NAME, f"There are too many files called {shown(name)}.")


def _confirm(place: _Folder, name: str, status: os.stat_result) -> None:
    """Check that what got the final name is the very file that was verified."""
    if os.name != "nt" and not os.path.samestat(place.status(name), status):
        place.remove(name)
        raise LibraryError(ErrorKind.CHANGED, f"{shown(name)} was exchanged by another program; it is not kept.")


class _OpenFiles:
    """Descriptors kept open between calls: the least recently used is closed first."""

    def __init__(self) -> None:
        self._open: OrderedDict[str, int] = OrderedDict()

    def get(self, path: str, write: bool = False) -> int:
        """The descriptor of a file, opened if need be."""
        if path in self._open:
            self._open.move_to_end(path)
            return self._open[path]
        return self.put(path, _open_regular(path, write))

    def put(self, path: str, descriptor: int) -> int:
        """Keep a descriptor."""
        self.drop(path)
        self._open[path] = descriptor
        if len(self._open) > OPEN_FILES_MAX:
            os.close(self._open.popitem(last=False)[1])
        return descriptor

    def drop(self, path: str) -> None:
        """Close the descriptor of a file, if it is open."""
        if path in self._open:
            os.close(self._open.pop(path))

    def close(self) -> None:
        """Close all."""
        for path in list(self._open):
            self.drop(path)


# ---- Part files and their maps ---------------------------------------------------------------------------------------

class CachedFile(NamedTuple):
    """A content that this node keeps for others."""

    file_id: bytes
    label: str
    size: int
    is_folder: bool


class Finished(NamedTuple):
    """A download that is verified, flushed and under its final name."""

    path: str
    was_there: bool
    shared: SharedFile


def _load_maps(folder: str) -> Iterator[Tuple[float, Content]]:
    """The contents of a hidden folder with the time of their last use; what has no good map is useless and removed."""
    names = set(os.listdir(folder))
    for name in sorted(names):
        path = os.path.join(folder, name)
        file_id, is_map = name[:64], name[64:] == ".map"
        try:
            if not re.fullmatch("[0-9a-f]{64}", file_id) or name[64:] not in ("", ".map"):
                raise ValueError("not ours")
            if is_map and file_id in names:
                descriptor = _open_regular(path)
                with open(descriptor, "rb") as file:
                    yield os.fstat(descriptor).st_mtime, decode_map(file.read(MAP_BYTES_MAX), bytes.fromhex(file_id))
            elif is_map or file_id + ".map" not in names:
                raise ValueError("one without the other")
        except (OSError, ValueError, struct.error, LibraryError):
            _remove(path)
            _remove(os.path.join(folder, file_id))


def _remove(path: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(path)


def _write_anew(path: str, data: bytes) -> None:
    """Write a small file beside the old one, then replace that one."""
    _remove(path + "~")
    descriptor = _create(path + "~")
    try:
        _write_at(descriptor, data, 0)
    finally:
        os.close(descriptor)
    os.replace(path + "~", path)


# ---- The library -----------------------------------------------------------------------------------------------------

def open_folder(folder: str, named: bool = True) -> Library:
    """Open a library; where the person did not name the folder, the next free of `shared-2`, `shared-3` ... serves."""
    for number in range(1, 100):
        library = Library(folder if number == 1 else f"{folder}-{number}")
        try:
            library.open()
            return library
        except FolderInUse:
            if named:
                raise
    raise FolderInUse(f"The folders {shown(folder)} to {shown(folder + '-99')} are all in use.")


class Library:
    """The shared contents, part files and cache of one node; owned by one disk thread."""

    def __init__(self, folder: str) -> None:
        self.folder = os.path.abspath(folder)
        self.notice = ""               # why nothing can be saved here, if so; sharing and chat go on
        self._parts_folder = os.path.join(self.folder, HIDDEN, "parts")
        self._cache_folder = os.path.join(self.folder, HIDDEN, "cache")
        self._lock: Optional[int] = None
        self._files = _OpenFiles()
        self._buffers = BufferPool(READ_BUFFERS_MAX)
        self._shared = SharesById()
        self._parts: Dict[bytes, Content] = {}
        self._cache: OrderedDict[bytes, Content] = OrderedDict()  # the least recently used first
        self._unflushed: List[str] = []
        self._moved_at = -math.inf                                 # when a piece was last read or written

    def is_busy(self) -> bool:
        """Whether transfers use the disk now; any thread may ask."""
        return time.monotonic() - self._moved_at < BUSY_TIME

    # -- opening and closing --

    def open(self) -> None:
        """Make the folder if absent and lock it; a folder that cannot be written is opened with a `notice`."""
        with speaking(f"use the folder {shown(self.folder, 1000)}"):
            if os.path.isfile(self.folder):
                raise LibraryError(ErrorKind.NAME, f"Cannot use the folder {shown(self.folder, 1000)}: it is a file.")
            os.makedirs(self.folder, exist_ok=True)
            os.listdir(self.folder)
        try:
            self._open_for_writing()
        except LibraryError as error:
            if error.kind not in (ErrorKind.DENIED, ErrorKind.READ_ONLY, ErrorKind.FULL):
                raise
            self.notice = error.sentence

    def _open_for_writing(self) -> None:
        with speaking(f"save anything in {shown(self.folder, 1000)}"):
            if not os.access(self.folder, os.W_OK):
                raise PermissionError(errno.EACCES, "not writable", self.folder)
            self._make_hidden_folders()
            self._take_lock()
            self._load()
        self.notice = ""

    def _has_vanished(self) -> bool:
        """Whether the node's own folder was taken away, with all that was kept in it."""
        if os.path.isdir(self._parts_folder) and os.path.isdir(self._cache_folder):
            return False
        if not os.path.isdir(self.folder):      # never made anew: it may be a disk that will be mounted again
            raise LibraryError(ErrorKind.GONE, f"The folder {shown(self.folder, 1000)} is gone.")
        self._parts.clear()
        self._cache.clear()
        return True

    def close(self) -> None:
        """Close all files and give the folder free."""
        self._files.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> Library:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _make_hidden_folders(self) -> None:
        for path in (os.path.join(self.folder, HIDDEN), self._parts_folder, self._cache_folder):
            with contextlib.suppress(FileExistsError):
                os.mkdir(path, 0o700)
            status = os.lstat(path)
            if _is_link(status) or not stat.S_ISDIR(status.st_mode):
                raise OSError(errno.ENOTDIR, "not a folder", path)
        self.close()
        self._lock = os.open(os.path.join(self.folder, HIDDEN, "lock"), _OPEN_FLAGS | os.O_RDWR | os.O_CREAT, 0o600)

    # -- the network of before --

    def keep_network(self, data: bytes) -> None:
        """Keep what a later run needs in order to find the present network again; only a help, so it may fail."""
        path = os.path.join(self.folder, HIDDEN, NETWORK_FILE)
        with contextlib.suppress(OSError):
            _write_anew(path, data)

    def last_network(self) -> bytes:
        """What was kept, if that is not long ago; else nothing."""
        with contextlib.suppress(OSError):
            descriptor = _open_regular(os.path.join(self.folder, HIDDEN, NETWORK_FILE))
            try:
                if abs(time.time() - os.fstat(descriptor).st_mtime) <= NETWORK_AGE_MAX:
                    return _read_at(descriptor, NETWORK_BYTES_MAX, 0)
            finally:
                os.close(descriptor)
        return b""

    def _take_lock(self) -> None:
        """Hold a lock that the system itself drops when this process ends, however it ends."""
        assert self._lock is not None
        try:
            if fcntl is not None:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            elif msvcrt is not None:
                msvcrt.locking(self._lock, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        except OSError as error:
            self.close()
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLK):
                raise
            raise FolderInUse(f"The folder {shown(self.folder, 1000)} is in use by another node.") from error

    def _load(self) -> None:
        for _, part in list(_load_maps(self._parts_folder)):
            if part.destination is not Destination.DOWNLOAD:
                self._delete(self._part_path(part.file_id))
            else:
                self._parts[part.file_id] = part
        for _, content in sorted(_load_maps(self._cache_folder), key=lambda loaded: loaded[0]):
            self._cache[content.file_id] = content

    # -- what is shared --

    def adopt(self, files: Iterable[SharedFile]) -> None:
        """Serve these from now on."""
        for shared in files:
            self._shared.add(shared)

    def withdraw(self, gone: Iterable[Union[SharedFile, bytes]]) -> None:
        """Stop serving these files, or all that has one of these ids."""
        for item in gone:
            if isinstance(item, bytes):
                self.withdraw(list(self._shared.places(item)))
            else:
                self._shared.discard(item.file_id, item.path)
                self._files.drop(item.path)

    def manifest(self, file_id: bytes) -> Tuple[int, bytes]:
        """The size and piece digests of a content that is here, whole or in part."""
        content = self._content(file_id)
        if file_id in self._cache:
            with contextlib.suppress(OSError):
                os.utime(self._cache_path(file_id) + ".map")    # the order of use outlives this process
        return content.size, content.digests

    def read(self, file_id: bytes, index: int, offset: int, length: int) -> Buffer:
        """Read bytes of a piece: from a shared file that is still as announced, the cache, or a verified part."""
        content, self._moved_at = self._content(file_id), time.monotonic()
        in_range = 0 <= index < piece_count_of(content.size) and offset >= 0 and length >= 0
        if not in_range or offset + length > piece_length(content.size, index):
            raise LibraryError(ErrorKind.MALFORMED, "No such place in this file.")
        start = index * piece_size_of(content.size) + offset
        if isinstance(content, SharedFile):
            return self._read_shared(file_id, start, length)
        if file_id in self._cache:
            return self._read_cached(content, index, start, length)
        if not has_piece(content.verified, index):
            raise LibraryError(ErrorKind.MISSING, "This piece is not here yet.")
        return self._read_own(self._part_path(file_id), start, length)

    def contents(self, file_id: bytes) -> bytes:
        """The whole of a small content, such as a folder's listing."""
        size, _ = self.manifest(file_id)
        if size > FOLDER_BYTES_MAX:
            raise LibraryError(ErrorKind.TOO_BIG, f"{size_text(size)} is too big for a folder's listing.")
        pieces = range(piece_count_of(size))
        return b"".join(self.read(file_id, index, 0, piece_length(size, index)) for index in pieces)

    def local_copy(self, file_id: bytes) -> Optional[str]:
        """The path of a shared file with this content that is still as announced."""
        for shared in self._shared.places(file_id):
            with contextlib.suppress(OSError):
                if shared.is_folder or _fingerprint(os.lstat(shared.path)) == shared.fingerprint:
                    return shared.path
        return None

    def check_room(self, label: str, needed: int) -> None:
        """Refuse what the disk has no room for."""
        free = self.free_bytes()
        if needed > free:
            raise no_room(label, needed, free)

    def free_bytes(self) -> int:
        """The bytes that this user may still write."""
        with speaking(f"look at the folder {shown(self.folder, 1000)}"):
            return shutil.disk_usage(self.folder).free

    def _content(self, file_id: bytes) -> Union[SharedFile, Content]:
        for shared in self._shared.places(file_id):
            return shared
        content = self._cache.get(file_id) or self._parts.get(file_id)
        if content is None:
            raise LibraryError(ErrorKind.UNKNOWN, "No such file here.")
        return content

    def _read_shared(self, file_id: bytes, start: int, length: int) -> Buffer:
        for shared in self._shared.places(file_id):
            if shared.is_folder:
                return shared.listing[start:start + length]
            if shared.members:
                with contextlib.suppress(OSError, _StillChanging):
                    return self._read_pack(shared, start, length)
                continue
            with contextlib.suppress(OSError):
                descriptor = self._files.get(shared.path)
                if _fingerprint(os.fstat(descriptor)) == shared.fingerprint:
                    data = _read_into(self._buffers, descriptor, length, start)
                    if len(data) == length:
                        return data
            self._files.drop(shared.path)
        raise LibraryError(ErrorKind.CHANGED, "The file was changed or removed after it was shared.")

    @staticmethod
    def _read_pack(shared: SharedFile, start: int, length: int) -> bytes:
        data, end, position = bytearray(), start + length, 0
        for path, fingerprint in shared.members:
            size = fingerprint[0]
            if position + size > start:
                first = max(start - position, 0)
                data += _read_member(path, fingerprint, first, min(end - position, size) - first)
            position += size
            if position >= end:
                break
        return bytes(data)

    def _read_own(self, path: str, start: int, length: int) -> Buffer:
        with speaking("read a kept file"):
            data = _read_into(self._buffers, self._files.get(path, write=True), length, start)
        if len(data) != length:
            raise LibraryError(ErrorKind.CHANGED, "The kept file is shorter than it was.")
        return data

    # -- downloads --

    def begin(self, file_id: bytes, size: int, digests: bytes, destination: Destination = Destination.DOWNLOAD,
              label: str = "", is_folder: bool = False) -> Optional[bytearray]:
        """Make or resume a part file; returns the bitmap of its verified pieces.

        After a restart what is there is hashed first, a part of it with each call: None means that it is to be called
        again, after what else waits for the disk.
        """
        check_manifest(file_id, size, digests)
        if label:
            check_name(label)
        if self.notice or self._has_vanished():
            self._open_for_writing()       # the disk may have been freed or mounted anew
        part = self._parts.get(file_id) or Content(file_id, size, bytes(digests), label, is_folder, destination)
        if file_id not in self._parts and len(self._parts) >= PARTS_MAX:
            raise LibraryError(ErrorKind.FULL, f"There are already {PARTS_MAX} unfinished downloads.")
        with speaking(f"save {called(label)}"):
            if part.claimed:
                self._check_claims(part, self._part_path(file_id))
            if part.claimed:
                return None
            if not part.is_open:
                self._open_part(part)
            elif destination is Destination.DOWNLOAD and part.destination is not Destination.DOWNLOAD:
                part.destination, part.label = destination, label
                self._write_map(part, self._part_path(file_id) + ".map")
        self._parts[file_id] = part
        return bytearray(part.verified)

    def _open_part(self, part: Content) -> None:
        path = self._part_path(part.file_id)
        self._check_room(part)
        if not part.verified_count:
            self._delete(path)
            self._files.put(path, _create(path))
        self._write_map(part, path + ".map")
        part.is_open = True

    def _check_claims(self, part: Content, path: str) -> None:
        """Hash some of the pieces that the map claims: whatever is wrong is missing again."""
        claimed, part.claimed = part.claimed, []
        with contextlib.suppress(OSError):
            descriptor = self._files.get(path, write=True)
            status = os.fstat(descriptor)
            # A second name means a crash between linking and unlinking: under the other it is the user's file.
            if status.st_nlink > 1:
                return
            if status.st_size > part.size:
                os.ftruncate(descriptor, part.size)
            piece_size = piece_size_of(part.size)
            count = max(1, CLAIMS_BYTES_AT_ONCE // piece_size)
            for index in claimed[:count]:
                digest = _digest_range(descriptor, index * piece_size, piece_length(part.size, index), _no_tick)
                if digest == _digest_at(part.digests, index):
                    part.mark(index)
            part.claimed = claimed[count:]

    def _check_room(self, part: Content) -> None:
        if part.destination is Destination.CACHE:
            self._make_room(part)
        self.check_room(part.label, part.size - part.verified_bytes)

    def _write_map(self, content: Content, path: str) -> None:
        """Write a map anew beside the old one, then replace it; later records are added one by one."""
        data = encode_map(content)
        self._files.drop(path)
        _write_anew(path, data)
        content.map_end = len(data)

    def piece_write(self, file_id: bytes, index: int, data: Buffer) -> PieceWrite:
        """`write_piece` as a job, whose digest may be computed on another thread before it runs."""
        return PieceWrite(self, file_id, index, data)

    def write_piece(
        self, file_id: bytes, index: int, data: Buffer, digest: Optional[bytes] = None
    ) -> bool:
        """Verify a piece and keep it; False, and nothing written, when it is not the piece that was asked for."""
        part = self._open_parts(file_id)
        self._moved_at = time.monotonic()
        if not 0 <= index < piece_count_of(part.size) or len(data) != piece_length(part.size, index):
            return False
        if has_piece(part.verified, index):
            return True
        if (digest or hashlib.sha256(data).digest()) != _digest_at(part.digests, index):
            return False
        path = self._part_path(file_id)
        if not os.path.lexists(path):           # a write would still succeed, into nothing
            self._files.drop(path)
            self._files.drop(path + ".map")
            claimed = [one for one in range(piece_count_of(part.size)) if has_piece(part.verified, one)]
            self._parts[file_id] = Content(file_id, part.size, part.digests, part.label, part.is_folder,
                                           part.destination, claimed)   # it may be back, with all that it had
            raise LibraryError(ErrorKind.GONE, f"Cannot save {called(part.label)}: the folder "
                                               f"{shown(self.folder, 1000)} was taken away.")
        with speaking(f"save {called(part.label)}"):
            _write_at(self._files.get(path, write=True), data, index * piece_size_of(part.size))
            # At a place of its own: a record torn by a full disk is written over by the next.
            _write_at(self._files.get(path + ".map", write=True), MAP_RECORD.pack(index), part.map_end)
        part.map_end += MAP_RECORD.size
        part.mark(index)
        return True

    def finish(self, file_id: bytes, name: str, flush: bool = True) -> Finished:
        """Give a complete download its final name, never replacing anything; `flush=False` leaves it to `flush`."""
        part = self._complete(file_id)
        *parents, last = check_name(name).split("/")
        path = self._part_path(file_id)
        with speaking(f"save {shown(name)}"):
            status = self._settle(part, path, flush)
            with _folder_in(self.folder, parents) as place:
                final, was_there = _place(place, path, status, last, partial(self._is_same, part))
                status = place.status(final)
                final_path = os.path.join(place.path, final)
        self._forget_part(file_id)
        if not flush and not was_there:
            self._unflushed.append(final_path)
        shared = shared_file("/".join((*parents, final)), final_path, _fingerprint(status), part.digests, not parents)
        self.adopt([shared])
        return Finished(final_path, was_there, shared)

    def flush(self) -> None:
        """Flush what was finished with `flush=False`: one call for a folder of many small files."""
        paths, self._unflushed = self._unflushed, []
        self._flush_paths(paths)

    @staticmethod
    def _flush_paths(paths: List[str]) -> None:
        if hasattr(os, "sync") and len(paths) > 1:
            os.sync()
            return
        for path in paths:
            with speaking(f"save {shown(path, 1000)}"):
                descriptor = _open_regular(path, write=True)
                os.fsync(descriptor)
                os.close(descriptor)

    def keep_small(self, place: str, entries: List[FolderEntry], data: Buffer) -> List[Union[Finished, LibraryError]]:
        """Write small files that came together, below a folder: flushed together, and only then named.

        Each is verified against its own id; what became of each is told.
        """
        kept: List[Union[Finished, LibraryError]] = []
        written: List[Tuple[FolderEntry, str, bytes]] = []
        position, view = 0, memoryview(data)
        with contextlib.ExitStack() as stack:
            for number, entry in enumerate(entries):
                content = view[position:position + entry.size]
                position += entry.size
                path = os.path.join(self._parts_folder, f"small-{number}")
                stack.callback(_remove, path)
                written.append((entry, path, self._write_small(entry, path, content)))
            self._flush_paths([path for _, path, digests in written if digests])
            for entry, path, digests in written:
                try:
                    if not digests:
                        raise LibraryError(ErrorKind.MALFORMED, "It did not come as it was announced.")
                    kept.append(self._name_small(f"{place}/{entry.path}", path, entry.size, digests))
                except LibraryError as error:
                    kept.append(error)
        return kept

    def _write_small(self, entry: FolderEntry, path: str, content: memoryview) -> bytes:
        """Write a small file under a name of our own; its digests, or none if it is not what its id says."""
        digests = digests_of(bytes(content))
        if len(content) != entry.size or identity_of(entry.size, digests) != entry.file_id:
            return b""
        with speaking(f"save {shown(entry.path)}"):
            _remove(path)
            descriptor = _create(path)
            try:
                _write_at(descriptor, content, 0)
            finally:
                os.close(descriptor)
        return digests

    def _name_small(self, name: str, path: str, size: int, digests: bytes) -> Finished:
        *parents, last = check_name(name).split("/")
        same = Content(identity_of(size, digests), size, digests)
        with speaking(f"save {shown(name)}"), contextlib.ExitStack() as stack:
            descriptor = _open_regular(path)
            status = os.fstat(descriptor)
            if os.name == "nt":
                os.close(descriptor)
            else:       # open, so that its inode names nothing else until it is confirmed
                stack.callback(os.close, descriptor)
            place = stack.enter_context(_folder_in(self.folder, parents))
            final, was_there = _place(place, path, status, last, partial(self._is_same, same), is_synced=False)
            status = place.status(final)
            final_path = os.path.join(place.path, final)
        self._unflushed.append(final_path)       # its name
        shared = shared_file("/".join((*parents, final)), final_path, _fingerprint(status), digests, False)
        self.adopt([shared])
        return Finished(final_path, was_there, shared)

    def copy_local(self, file_id: bytes, name: str) -> Finished:
        """Give a content that is here already (shared or cached) another name, by copying it on this disk."""
        size, digests = self.manifest(file_id)
        while self.begin(file_id, size, digests, label=name) is None:
            pass
        part = self._parts[file_id]
        for index in range(piece_count_of(size)):
            if not has_piece(part.verified, index):
                data = self.read(file_id, index, 0, piece_length(size, index))
                if not self.write_piece(file_id, index, data):
                    raise LibraryError(ErrorKind.CHANGED, "The file was changed after it was shared.")
        return self.finish(file_id, name)

    def make_folder(self, name: str) -> str:
        """Make an empty folder of a listing; returns its path."""
        components = check_name(name).split("/")
        with speaking(f"make the folder {shown(name)}"), _folder_in(self.folder, components) as place:
            return place.path

    def parts(self) -> List[PartInfo]:
        """The unfinished downloads (one not resumed yet counts what its map claims)."""
        return [PartInfo(part.file_id, part.size, part.verified_bytes +
                         sum(piece_length(part.size, index) for index in part.claimed), part.label, part.is_folder)
                for part in self._parts.values() if part.destination is Destination.DOWNLOAD]

    def discard(self, file_id: bytes, own: bool = False) -> None:
        """Drop an unfinished content that was fetched for others; what this node's person began only with `own`."""
        part = self._parts.get(file_id)
        if part is not None and (own or part.destination is not Destination.DOWNLOAD):
            self._forget_part(file_id)

    def _part_path(self, file_id: bytes) -> str:
        return os.path.join(self._parts_folder, file_id.hex())

    def _open_parts(self, file_id: bytes) -> Content:
        part = self._parts.get(file_id)
        if part is None or not part.is_open:
            raise LibraryError(ErrorKind.UNKNOWN, "Nobody here asked for this file.")
        return part

    def _complete(self, file_id: bytes) -> Content:
        part = self._open_parts(file_id)
        if not part.is_complete:
            raise LibraryError(ErrorKind.MISSING, "Some pieces of the file are still missing.")
        return part

    def _settle(self, part: Content, path: str, flush: bool) -> os.stat_result:
        """Flush a part. It stays open, so that its inode names nothing else until `_confirm`."""
        descriptor = self._files.get(path, write=True)
        if flush:
            os.fsync(descriptor)
        status = os.fstat(descriptor)
        if os.name == "nt":
            self._files.drop(path)       # Windows renames no open file
        if status.st_size != part.size:
            raise LibraryError(ErrorKind.CHANGED, "The part file was changed by another program.")
        return status

    @staticmethod
    def _is_same(part: Content, place: _Folder, name: str) -> bool:
        try:
            descriptor = place.open_file(name)
        except OSError:
            return False
        try:
            return _holds(descriptor, part.size, part.digests)
        finally:
            os.close(descriptor)

    def _forget_part(self, file_id: bytes) -> None:
        self._parts.pop(file_id, None)
        self._delete(self._part_path(file_id))

    def _delete(self, path: str) -> None:
        for each in (path, path + ".map"):
            self._files.drop(each)
            _remove(each)

    # -- the cache --

    def cached(self) -> List[CachedFile]:
        """The complete contents that are kept for others."""
        return [CachedFile(content.file_id, content.label, content.size, content.is_folder)
                for content in self._cache.values()]

    def cache_quota(self) -> int:
        """The bytes that the cache may take now: 1 GiB or a twentieth of what would be free without it, if less."""
        used = sum(content.size for content in self._cache.values())
        return min(CACHE_BYTES_MAX, (self.free_bytes() + used) * CACHE_FREE_PERCENT // 100)

    def finish_cache(self, file_id: bytes, label: str, is_folder: bool = False) -> None:
        """Keep a complete content for others."""
        content = self._complete(file_id)
        source, target = self._part_path(file_id), self._cache_path(file_id)
        content.label, content.is_folder, content.destination = check_name(label), is_folder, Destination.CACHE
        with speaking("keep a file in the cache"):
            self._files.drop(source)
            self._write_map(content, target + ".map")
            os.replace(source, target)
        self._forget_part(file_id)
        self._cache[file_id] = content

    def evict(self, file_id: bytes) -> None:
        """Drop a cached content."""
        if self._cache.pop(file_id, None) is not None:
            self._delete(self._cache_path(file_id))

    def _make_room(self, part: Content) -> None:
        """Evict the least recently used until a new cache part fits the quota, with the parts on their way."""
        quota = self.cache_quota()
        used = part.size + sum(content.size for content in self._cache.values()) + sum(
            other.size for other in self._parts.values() if other.destination is Destination.CACHE)
        if used - sum(content.size for content in self._cache.values()) > quota:
            sentence = f"No room in the cache: needs {size_text(part.size)}, {size_text(quota)} allowed."
            raise LibraryError(ErrorKind.FULL, sentence)
        while used > quota:
            oldest = next(iter(self._cache.values()))
            used -= oldest.size
            self.evict(oldest.file_id)

    def _cache_path(self, file_id: bytes) -> str:
        return os.path.join(self._cache_folder, file_id.hex())

    def _read_cached(self, content: Content, index: int, start: int, length: int) -> Buffer:
        """Read from the cache; a piece that was kept over a restart is hashed before it is served again."""
        path = self._cache_path(content.file_id)
        try:
            if not has_piece(content.verified, index):
                piece_start = index * piece_size_of(content.size)
                piece = self._read_own(path, piece_start, piece_length(content.size, index))
                if hashlib.sha256(piece).digest() != _digest_at(content.digests, index):
                    raise LibraryError(ErrorKind.CHANGED, "The kept file is damaged.")
                content.mark(index)
            data = self._read_own(path, start, length)
        except LibraryError:
            self.evict(content.file_id)
            raise
        self._cache.move_to_end(content.file_id)
        return data


class PieceWrite:
    """A piece on its way to the disk: `ahead` computes its digest, the call verifies and writes it."""

    def __init__(
        self, library: Library, file_id: bytes, index: int, data: Buffer
    ) -> None:
        self._library = library
        self._place = file_id, index
        self._data = data
        self._digest: Optional[bytes] = None

    def ahead(self) -> None:
        """Needs nothing of the library, so any thread may do it."""
        self._digest = hashlib.sha256(self._data).digest()

    def __call__(self) -> bool:
        return self._library.write_piece(*self._place, self._data, self._digest)


# ---- One file from end to end, for the transport's verbs -------------------------------------------------------------

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
        while self._waiting:
            self._waiting.popleft().result()
        return self._hasher.hexdigest()

    def close(self) -> None:
        self._thread.shutdown()


class SequentialReader:
    """Reads one file from its beginning to the size it had when it was opened."""

    def __init__(self, path: str) -> None:
        self.path = os.path.realpath(path)
        self.name = os.path.basename(self.path)
        with speaking(f"open {shown(path, 1000)}"):
            self._descriptor = _open_regular(self.path)
            self._fingerprint = _fingerprint(os.fstat(self._descriptor))
        self.size = self._fingerprint[0]
        self._position = 0
        self._hasher = BackgroundDigest()
        self._buffers = BufferPool(READ_BUFFERS_MAX)

    def read(self, length: int) -> memoryview:
        """The next bytes, none at the end; a file that changed on the way is an error."""
        with speaking(f"read {shown(self.path, 1000)}"):
            length = min(length, self.size - self._position)
            data = _read_into(self._buffers, self._descriptor, length, self._position)
            unchanged = _fingerprint(os.fstat(self._descriptor)) == self._fingerprint
        if not unchanged:
            raise LibraryError(ErrorKind.CHANGED, f"{shown(self.path, 1000)} changed while it was sent.")
        self._position += len(data)
        self._hasher.update(data)
        return data

    def hexdigest(self) -> str:
        """SHA-256 of what was read so far."""
        return self._hasher.hexdigest()

    def close(self) -> None:
        """Close the file."""
        self._hasher.close()
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __enter__(self) -> SequentialReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class SequentialWriter:
    """Writes one file of known size under a random name, then gives it its own; leaving without `finish` drops it."""

    def __init__(self, folder: str, name: str, size: int) -> None:
        self.folder = os.path.abspath(folder)
        self.name, self.size = check_name(name), size
        if "/" in name or not 0 <= size <= FILE_SIZE_MAX:
            raise LibraryError(ErrorKind.MALFORMED, f"{shown(name)} is offered with an impossible name or size.")
        self._path = os.path.join(self.folder, f"{HIDDEN}-{secrets.token_hex(16)}.part")
        self._hasher = BackgroundDigest()
        self.written = 0
        with speaking(f"save {shown(name)}"):
            os.makedirs(self.folder, exist_ok=True)
            free = shutil.disk_usage(self.folder).free
            if size > free:
                raise no_room(name, size, free)
            self._descriptor = _create(self._path)

    def write(self, data: Buffer) -> None:
        """Write the next bytes."""
        if self.written + len(data) > self.size:
            raise LibraryError(ErrorKind.MALFORMED, f"{shown(self.name)} is longer than was declared.")
        self._hasher.update(data)
        with speaking(f"save {shown(self.name)}"):
            _write_at(self._descriptor, data, self.written)
        self.written += len(data)

    def finish(self) -> str:
        """Flush the file and give it its name, or the next free one; returns its path."""
        if self.written != self.size:
            raise LibraryError(ErrorKind.MALFORMED, f"{shown(self.name)} is shorter than was declared.")
        with speaking(f"save {shown(self.name)}"):
            os.fsync(self._descriptor)
            status = os.fstat(self._descriptor)
            if os.name == "nt":
                self._close()            # Windows renames no open file
            with _Folder.open(self.folder) as place:
                final, _ = _place(place, self._path, status, self.name, lambda *_: False)
            self.abort()
        return os.path.join(self.folder, final)

    def abort(self) -> None:
        """Close the file and drop what was written; after `finish`, nothing."""
        self._close()
        _remove(self._path)

    def hexdigest(self) -> str:
        """SHA-256 of what was written so far."""
        return self._hasher.hexdigest()

    def _close(self) -> None:
        self._hasher.close()
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __enter__(self) -> SequentialWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.abort()
