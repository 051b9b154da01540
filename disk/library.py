"""The contents of one node on its disk: what it shares, unfinished downloads, the cache.

`Library` is owned by one disk thread, without locks; every method may block on the disk. Below the folder's hidden
`.node` it keeps `lock`, `parts/<id>` with `parts/<id>.map` (unfinished downloads), and `cache/<id>` with
`cache/<id>.map`. It is made of `disk/`, which also holds the scanner (`disk/scanner.py`); names, pieces and listings
are pure (`protocol/content/pieces.py`). Nobody else opens files.

A name from another node is refused or used as it stands, never repaired. A file is written under a name made from its
id, verified piece by piece, flushed, hashed once more as it then lies on the disk, and only then linked under its final
name, which never replaces anything. Other programs may be at our files at any time: each has a stamp (size, times,
inode) after our own last write, and what differs from it is hashed before it is used.

What may take long goes in slices: such a method returns None (or False) until it is done, and is called again after
what else waits for the disk.
Every failure is a `LibraryError` with a sentence that can be shown to a person.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import math
import os
import shutil
import stat
import time
from collections import OrderedDict
from functools import partial
from typing import Any, Callable, Dict, Iterable, Iterator, List, NamedTuple, Optional, Set, Tuple, TypeVar, Union

from disk.access import (
    READ_BUFFERS_MAX,
    OpenFiles,
    StillChanging,
    create,
    fingerprint_of,
    holds,
    is_link,
    open_regular,
    read_at,
    read_into,
    read_member,
    remove,
    stamp_at,
    stamp_of,
    write_anew,
    write_at,
)
from disk.flushing import Beside, Flush, Submit, Unflushed, flush_copies, flush_paths
from disk.lock import FolderLock
from disk.looking import SLICE_BYTES, find_twin, is_twin, right_ones_by_two
from disk.making import Makings
from disk.maps import aside_of, load_maps
from disk.places import folder_in, give_name
from disk.steps import Operations, Steps, at_once
from protocol.buffers import BufferPool
from protocol.content.listing import FOLDER_BYTES_MAX, FolderEntry
from protocol.content.names import HIDDEN, check_name
from protocol.content.parts import MAP_RECORD, Content, Destination, PartInfo, encode_map
from protocol.content.pieces import (
    GIB,
    MIB,
    check_manifest,
    digest_at,
    digests_of,
    has_piece,
    identity_of,
    piece_count_of,
    piece_length,
    piece_size_of,
)
from protocol.content.shares import SharedFile, SharesById, shared_file
from protocol.content.troubles import (
    ErrorKind,
    FolderInUse,
    LibraryError,
    called,
    is_changed,
    is_short,
    meaning,
    no_room,
    shown,
    size_text,
    speaking,
    trouble,
)
from protocol.fairness import FairShares
from protocol.fields import Buffer

PARTS_MAX = 1024               # unfinished downloads
CLAIMS_BYTES_AT_ONCE = SLICE_BYTES     # the same, of what a map claims at a start
FLUSH_EVERY = 64 * MIB         # bytes of a part: so the last flush is short, and a power cut costs little
MAP_FLUSH_SIZE_MIN = MIB       # a smaller content is fetched again sooner than its map is flushed ...
MAP_FLUSH_SHARE = 20           # ... and those flushes take a twentieth of the time at most: a folder has many files
LOOKS_MAX = 3                  # at a part that another program goes on changing, before it is given up
CACHE_BYTES_MAX = GIB
CACHE_FREE_PERCENT = 5         # of the free space: the cache never takes more
OTHERS_FREE_PERCENT = 15       # the same, of all that is kept for others: the cache and what passes through
FLOOR_PERCENT = 5              # of the disk, that stays free of what is others', ...
FLOOR_BYTES_MAX = GIB          # ... but not more than so much
BLOCK_BYTES = 4096             # what the smallest file takes on a disk
GAVE_WAY_MAX = 1024            # contents remembered that had to go, so that it is told why
NOBODY = b""                   # for whom a content is kept is not known after a restart
NETWORK_FILE = "network"       # below the hidden folder
NETWORK_BYTES_MAX = 4096
NETWORK_AGE_MAX = 3600.0       # seconds: later, its members' addresses may be anybody's
BUSY_TIME = 0.3                # seconds after a piece was read or written in which transfers have the disk


_T = TypeVar("_T")


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


def _is_read_only(folder: str) -> bool:
    """Is the whole disk read-only, not just this folder closed to this user?"""
    return hasattr(os, "statvfs") and bool(os.statvfs(folder).f_flag & os.ST_RDONLY)


class Library:
    """The shared contents, part files and cache of one node; owned by one disk thread."""

    def __init__(self, folder: str) -> None:
        self.folder = os.path.abspath(folder)
        self.notice = ""               # why nothing can be saved here, if so; sharing and chat go on
        self._parts_folder = os.path.join(self.folder, HIDDEN, "parts")
        self._cache_folder = os.path.join(self.folder, HIDDEN, "cache")
        self._lock = FolderLock(self.folder, os.path.join(self.folder, HIDDEN, "lock"))
        self._files = OpenFiles()
        self._buffers = BufferPool(READ_BUFFERS_MAX)
        self._shared = SharesById()
        self._parts: Dict[bytes, Content] = {}
        self._cache: OrderedDict[bytes, Content] = OrderedDict()  # the least recently used first
        self._beside = Beside()
        self._operations = Operations()
        self._unflushed = Unflushed(self._beside)
        self._makings = Makings(self.folder, self._operations, self._unflushed)
        self._flushes: Dict[bytes, Flush] = {}                     # of parts
        self._others = FairShares(0)                               # of the disk, by who asked for what is kept
        self._kept_for: Dict[bytes, Tuple[bytes, int]] = {}        # content -> who asked for it, what it costs
        self._gave_way: OrderedDict[bytes, None] = OrderedDict()   # contents on their way that had to go
        self._small_numbers = itertools.count()                    # of small files that have no name yet
        self._map_flush_from = -math.inf                           # when a map may be flushed again
        self._moved_at = -math.inf                                 # when a piece was last read or written

    def is_busy(self) -> bool:
        """Whether transfers use the disk now; any thread may ask."""
        return time.monotonic() - self._moved_at < BUSY_TIME

    def use_threads(self, flush: Submit, digest: Optional[Submit] = None) -> None:
        """Have files flushed, and half of what is looked at again hashed, on threads beside; else all is done here."""
        self._beside.use(flush, digest)

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
            if error.kind not in (ErrorKind.DENIED, ErrorKind.READ_ONLY, ErrorKind.FULL, ErrorKind.SHORT):
                raise
            self.notice = error.sentence

    def _open_for_writing(self) -> None:
        with speaking(f"save anything in {shown(self.folder, 1000)}"):
            if not os.access(self.folder, os.W_OK):
                raise OSError(errno.EROFS if _is_read_only(self.folder) else errno.EACCES, "not writable", self.folder)
            self._make_hidden_folders()
            self._close_files()
            self._lock.take()
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
        for file_id in list(self._kept_for):
            self._count_gone(file_id)
        return True

    def close(self) -> None:
        """Close all files and give the folder free; what was fetched for others and is unfinished goes."""
        for part in list(self._parts.values()):
            self.discard(part.file_id)
        self._close_files()

    def _close_files(self) -> None:
        self._operations.end_all()
        self._files.close()
        self._lock.drop()

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
            if is_link(status) or not stat.S_ISDIR(status.st_mode):
                raise OSError(errno.ENOTDIR, "not a folder", path)

    # -- the network of before --

    def keep_network(self, data: bytes) -> None:
        """Keep what a later run needs in order to find the present network again; only a help, so it may fail."""
        path = os.path.join(self.folder, HIDDEN, NETWORK_FILE)
        with contextlib.suppress(OSError):
            write_anew(path, data)

    def last_network(self) -> bytes:
        """What was kept, if that is not long ago; else nothing."""
        with contextlib.suppress(OSError):
            descriptor = open_regular(os.path.join(self.folder, HIDDEN, NETWORK_FILE))
            try:
                if abs(time.time() - os.fstat(descriptor).st_mtime) <= NETWORK_AGE_MAX:
                    return read_at(descriptor, NETWORK_BYTES_MAX, 0)
            finally:
                os.close(descriptor)
        return b""

    def _load(self) -> None:
        for _, part in list(load_maps(self._parts_folder, is_kept=True)):
            if part.destination is not Destination.DOWNLOAD:
                self._delete(self._part_path(part.file_id))
            else:
                self._parts[part.file_id] = part
        for _, content in sorted(load_maps(self._cache_folder, is_kept=False), key=lambda loaded: loaded[0]):
            self._cache[content.file_id] = content
            self._count_kept(content, NOBODY)

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
        return self._read_part(content, index, start, length)

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
            if is_as_announced(shared):
                return shared.path
        return None

    def stands(self, file_id: bytes, name: str) -> bool:
        """Whether the shared folder holds this content under the name, as announced."""
        shared = self._shared.at(file_id, os.path.join(self.folder, *name.split("/")))
        return shared is not None and is_as_announced(shared)

    def check_room(self, label: str, needed: int) -> None:
        """Refuse what this person wants and the disk has no room for, even without all that is kept for others."""
        free = self.room_bytes()
        if needed > free:
            raise no_room(label, needed, free)

    # -- what is kept for others: the cache, and what passes through --

    @staticmethod
    def _cost(content: Content) -> int:
        """The bytes of the disk that a content takes when it is complete, with its map."""
        pieces = piece_count_of(content.size)
        size = content.size + len(content.digests) + MAP_RECORD.size * pieces
        return -(-size // BLOCK_BYTES) * BLOCK_BYTES + BLOCK_BYTES

    def _count_kept(self, content: Content, person: bytes) -> None:
        if content.file_id not in self._kept_for:
            self._kept_for[content.file_id] = person, self._cost(content)
            self._others.take(person, self._cost(content))

    def _count_gone(self, file_id: bytes) -> None:
        person, cost = self._kept_for.pop(file_id, (NOBODY, 0))
        if cost:
            self._others.give_back(person, cost)

    def others_quota(self) -> int:
        """The bytes that all that is kept for others may take now."""
        return self.room_bytes() * OTHERS_FREE_PERCENT // 100

    def _on_disk_for_others(self) -> int:
        return sum(content.size if file_id in self._cache else content.verified_bytes
                   for file_id, content in self._contents_for_others())

    def _contents_for_others(self) -> List[Tuple[bytes, Content]]:
        """What would go first, first: what is complete and was not used for longest, then what is on its way."""
        parts = [(file_id, part) for file_id, part in self._parts.items() if file_id in self._kept_for]
        return [*((file_id, content) for file_id, content in self._cache.items() if file_id in self._kept_for), *parts]

    def _make_room_for_others(self, part: Content, person: bytes) -> None:
        """Have who holds most give way until this fits; refused where that is this person, or the floor is touched."""
        cost, quota = self._cost(part), self.others_quota()
        self._others.limit = quota
        while True:
            loser = self._others.gives_way(person, cost)
            if loser is None:
                break
            theirs = [file_id for file_id, _ in self._contents_for_others()
                      if self._kept_for[file_id][0] == loser and (loser != person or file_id in self._cache)]
            if not theirs or cost > quota:
                sentence = f"No room for what others fetch: needs {size_text(cost)}, {size_text(quota)} allowed."
                raise LibraryError(ErrorKind.FULL, sentence)
            self._drop_kept(theirs[0])
        self._check_floor(part.label, part.size - part.verified_bytes)

    def _check_floor(self, label: str, needed: int) -> None:
        """What is others' leaves a floor of the disk free, and what the person's own downloads still need."""
        free = self.free_bytes()
        own = sum(part.size - part.verified_bytes for part in self._parts.values()
                  if part.is_open and part.destination is Destination.DOWNLOAD)
        floor = min(FLOOR_BYTES_MAX, self._disk().total * FLOOR_PERCENT // 100)
        if needed + floor + own > free:
            raise no_room(label, needed, max(0, free - floor - own))

    def _drop_kept(self, file_id: bytes) -> None:
        if file_id in self._cache:
            self.evict(file_id)
        else:
            self._gave_way[file_id] = None
            while len(self._gave_way) > GAVE_WAY_MAX:
                self._gave_way.popitem(last=False)
            self._forget_part(file_id)

    def _yield_room(self, needed: float, spared: bytes = NOBODY) -> bool:
        """Drop what is kept for others until so many bytes are free for this person; whether anything went."""
        before = len(self._kept_for)
        for file_id, _ in self._contents_for_others():
            if self.free_bytes() >= needed:
                break
            if file_id != spared:
                self._drop_kept(file_id)
        return len(self._kept_for) < before

    def _with_room(self, work: Callable[[], _T], spared: bytes = NOBODY) -> _T:
        """Write something of this person's; where the disk is full, without what is kept for others."""
        try:
            return work()
        except OSError as error:
            if meaning(error)[0] is not ErrorKind.FULL or not self._yield_room(math.inf, spared):
                raise
        return work()

    def _disk(self) -> Any:
        with speaking(f"look at the folder {shown(self.folder, 1000)}"):
            return shutil.disk_usage(self.folder)

    def free_bytes(self) -> int:
        """The bytes that this user may still write."""
        return int(self._disk().free)

    def room_bytes(self) -> int:
        """The same for what this person wants: what is kept for others gives way to it."""
        return self.free_bytes() + self._on_disk_for_others()

    def _content(self, file_id: bytes) -> Union[SharedFile, Content]:
        content = self._shared.first(file_id) or self._cache.get(file_id) or self._parts.get(file_id)
        if content is None:
            raise LibraryError(ErrorKind.UNKNOWN, "No such file here.")
        return content

    def _read_shared(self, file_id: bytes, start: int, length: int) -> Buffer:
        failure: Optional[OSError] = None
        for shared in self._shared.places(file_id):
            if shared.is_folder:
                return shared.listing[start:start + length]
            try:
                return self._read_pack(shared, start, length) if shared.members else \
                    self._read_place(shared, start, length)
            except StillChanging:
                pass
            except OSError as error:
                if not is_changed(error):
                    failure = error
        if failure is not None:        # nobody has seen that it was changed
            raise trouble(failure, "read a shared file") from failure
        raise LibraryError(ErrorKind.CHANGED, "The file was changed or removed after it was shared.")

    def _read_place(self, shared: SharedFile, start: int, length: int) -> Buffer:
        try:
            descriptor = self._files.get(shared.path)
            data = read_into(self._buffers, descriptor, length, start)
            # Looked at after the reading: whoever writes sets the time before the bytes.
            if fingerprint_of(os.fstat(descriptor)) == shared.fingerprint and len(data) == length:
                return data
        except OSError:
            self._files.drop(shared.path)
            raise
        self._files.drop(shared.path)
        raise StillChanging

    @staticmethod
    def _read_pack(shared: SharedFile, start: int, length: int) -> bytes:
        data, end, position = bytearray(), start + length, 0
        for path, fingerprint in shared.members:
            size = fingerprint[0]
            if position + size > start:
                first = max(start - position, 0)
                data += read_member(path, fingerprint, first, min(end - position, size) - first)
            position += size
            if position >= end:
                break
        return bytes(data)

    def _read_part(self, part: Content, index: int, start: int, length: int) -> Buffer:
        path = self._part_path(part.file_id)
        with speaking("read a kept file"):
            self._look(part, path)
        if index in part.doubted and part.stamp is not None:
            self._hash_doubted(part, path, [index])
        if index in part.doubted or not has_piece(part.verified, index):
            raise LibraryError(ErrorKind.MISSING, "This piece is not here yet.")
        return self._read_own(path, start, length)

    def _read_own(self, path: str, start: int, length: int) -> Buffer:
        with speaking("read a kept file"):
            data = read_into(self._buffers, self._files.get(path, write=True), length, start)
        if len(data) != length:
            raise LibraryError(ErrorKind.CHANGED, "The kept file is shorter than it was.")
        return data

    # -- downloads --

    def begin(self, file_id: bytes, size: int, digests: bytes, destination: Destination = Destination.DOWNLOAD,
              label: str = "", is_folder: bool = False, person: bytes = NOBODY) -> Optional[bytearray]:
        """Make or resume a part file; returns the bitmap of its verified pieces. `person`: for whom, if it is another.

        After a restart what is there is hashed first, a part of it with each call: None means that it is to be called
        again, after what else waits for the disk.
        """
        check_manifest(file_id, size, digests)
        if label:
            check_name(label)
        if self.notice or self._has_vanished():
            self._open_for_writing()       # the disk may have been freed or mounted anew
        self._gave_way.pop(file_id, None)
        part = self._parts.get(file_id) or self._new_part(file_id, size, digests, destination, label, is_folder)
        if file_id not in self._parts and len(self._parts) >= PARTS_MAX:
            raise LibraryError(ErrorKind.FULL, f"There are already {PARTS_MAX} unfinished downloads.")
        with speaking(f"save {called(label)}"):
            path = self._part_path(file_id)
            if not self._is_checked(part, path):
                self._parts[file_id] = part
                return None
            if not part.is_open:
                self._check_room(part, person)
                self._with_room(partial(self._make_files, part), file_id)
                if part.destination is not Destination.DOWNLOAD:
                    self._count_kept(part, person)
                part.is_open = True
            elif part.is_stale or not os.path.lexists(path + ".map"):
                self._make_files(part)
            if destination is Destination.DOWNLOAD and part.destination is not Destination.DOWNLOAD:
                part.destination, part.label = destination, label
                self._count_gone(file_id)
                self._write_map(part, path + ".map")
        self._parts[file_id] = part
        return bytearray(part.verified)

    def _new_part(self, file_id: bytes, size: int, digests: bytes, destination: Destination, label: str,
                  is_folder: bool) -> Content:
        """A part that is begun; where its file is here already and only the map was lost, all of it is hashed."""
        part = Content(file_id, size, bytes(digests), label, is_folder, destination)
        found = stamp_at(self._part_path(file_id))
        if found is not None and size:
            part.claimed = list(range(min(-(-found[0] // piece_size_of(size)), piece_count_of(size))))
        return part

    def _is_checked(self, part: Content, path: str) -> bool:
        """Hash some of what is claimed, or was changed by another program: is nothing left of that?"""
        if part.is_open:
            self._look(part, path)
        if part.claimed:
            self._check_claims(part, path)
        elif part.doubted:
            self._hash_doubted(part, path)
        return not (part.claimed or part.doubted)

    def _look(self, part: Content, path: str) -> None:
        """Is the file as this node's own last write left it? Else nothing of it is believed before it is hashed."""
        found = stamp_at(path)
        if found != part.stamp:
            self._files.drop(path)
            part.doubt()
            part.stamp, part.is_stale = found, True

    def _hash_doubted(self, part: Content, path: str, indexes: Optional[List[int]] = None) -> None:
        """Hash some of the pieces that are in doubt: what is wrong is missing again."""
        right: Set[int] = set()
        chosen = indexes or sorted(part.doubted)[:max(1, SLICE_BYTES // piece_size_of(part.size))]
        with gone_is_wrong():
            descriptor = self._files.get(path, write=True)
            if os.fstat(descriptor).st_size > part.size:
                os.ftruncate(descriptor, part.size)
                part.stamp = stamp_of(os.fstat(descriptor))
            right = right_ones_by_two(self._beside.digest, part, descriptor, chosen)
        for index in chosen:
            if index in right:
                part.doubted.discard(index)
            else:
                part.unmark(index)

    def _make_files(self, part: Content) -> None:
        """The map as it is now, and the file anew where nothing of it is right."""
        path = self._part_path(part.file_id)
        if not part.verified_count:
            self._delete(path)
            self._files.put(path, create(path))
            part.stamp = stamp_at(path)
        self._write_map(part, path + ".map")
        remove(aside_of(path + ".map"))
        part.is_stale = False

    def _check_claims(self, part: Content, path: str) -> None:
        """Hash some of the pieces that the map claims: whatever is wrong is missing again."""
        claimed, part.claimed = part.claimed, []
        with gone_is_wrong(lambda: setattr(part, "claimed", claimed)):
            descriptor = self._files.get(path, write=True)
            status = os.fstat(descriptor)
            # A second name means a crash between linking and unlinking: under the other it is the user's file.
            if status.st_nlink > 1:
                return
            if status.st_size > part.size:
                os.ftruncate(descriptor, part.size)
            if part.stamp is None:
                part.stamp = stamp_of(os.fstat(descriptor))
            self._look(part, path)                   # what was hashed in an earlier call
            count = max(1, CLAIMS_BYTES_AT_ONCE // piece_size_of(part.size))
            descriptor = self._files.get(path, write=True)
            for index in right_ones_by_two(self._beside.digest, part, descriptor, claimed[:count]):
                part.mark(index)
            part.claimed = claimed[count:]

    def _check_room(self, part: Content, person: bytes) -> None:
        needed = part.size - part.verified_bytes
        if part.destination is Destination.CACHE:
            self._make_room(part)
        free = self.free_bytes()
        if part.destination is Destination.DOWNLOAD:
            self.check_room(part.label, needed)
            if needed > free:
                self._yield_room(needed, part.file_id)
        elif needed > free:
            raise no_room(part.label, needed, free)
        else:
            self._make_room_for_others(part, person)

    def _write_map(self, content: Content, path: str) -> None:
        """Write a map anew beside the old one, then replace it; later records are added one by one.

        It is flushed where there is something to lose: what it claims is hashed at a start, whenever it was flushed.
        """
        data = encode_map(content)
        self._files.drop(path)
        started = time.monotonic()
        is_replaced = content.verified_count and os.path.lexists(path)
        is_flushed = is_replaced or (content.size >= MAP_FLUSH_SIZE_MIN and started >= self._map_flush_from)
        write_anew(path, data, bool(is_flushed))
        if is_flushed:
            now = time.monotonic()
            self._map_flush_from = now + MAP_FLUSH_SHARE * (now - started)
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
        if has_piece(part.verified, index) and index not in part.doubted:
            return True
        if (digest or hashlib.sha256(data).digest()) != digest_at(part.digests, index):
            return False
        path = self._part_path(file_id)
        with speaking(f"save {called(part.label)}"):
            self._look(part, path)
            self._check_there(part, path)
            if part.destination is Destination.DOWNLOAD:
                self._with_room(partial(self._write_part, part, path, data, index), file_id)
            else:
                self._check_floor(part.label, len(data))
                self._write_part(part, path, data, index)
        part.map_end += MAP_RECORD.size
        part.mark(index)
        part.doubted.discard(index)
        return True

    def _write_part(self, part: Content, path: str, data: Buffer, index: int) -> None:
        descriptor = self._files.get(path, write=True)
        try:
            write_at(descriptor, data, index * piece_size_of(part.size))
        finally:
            part.stamp = stamp_of(os.fstat(descriptor))
        # At a place of its own: a record torn by a full disk is written over by the next.
        map_descriptor = self._files.get(path + ".map", write=True)
        write_at(map_descriptor, MAP_RECORD.pack(index), part.map_end)
        part.unflushed += len(data)
        if part.unflushed >= FLUSH_EVERY and self._beside.flush is not None:
            self._begin_flush(part, descriptor, map_descriptor)

    def _begin_flush(self, part: Content, *descriptors: int) -> None:
        flush = self._flushes.setdefault(part.file_id, Flush(self._beside.flush))
        if flush.is_over(0.0):
            part.unflushed = 0
            flush.begin(flush_copies, [os.dup(descriptor) for descriptor in descriptors])

    def _check_there(self, part: Content, path: str) -> None:
        """A write into what was removed would still succeed, into nothing."""
        if part.stamp is None:
            self._files.drop(path + ".map")
            claimed = [one for one in range(piece_count_of(part.size)) if has_piece(part.verified, one)]
            self._parts[part.file_id] = Content(part.file_id, part.size, part.digests, part.label, part.is_folder,
                                                part.destination, claimed)   # it may be back, with all that it had
            raise LibraryError(ErrorKind.GONE, f"Cannot save {called(part.label)}: the folder "
                                               f"{shown(self.folder, 1000)} was taken away.")

    def finish(self, file_id: bytes, name: str, flush: bool = True) -> Optional[Finished]:
        """Give a complete download its final name, never replacing anything; `flush=False` leaves it to `flush`.

        None: to be called again. CHANGED or MISSING: another program was at it, and `begin` tells what is left.
        """
        return self._operations.go_on(file_id, f"finish {name}", partial(self._finishing, file_id, name, flush))

    def _finishing(self, file_id: bytes, name: str, flush: bool) -> Steps[Finished]:
        part = self._complete(file_id)
        *parents, last = check_name(name).split("/")
        path = self._part_path(file_id)
        with speaking(f"save {shown(name)}"):
            twins = yield from find_twin(part, os.path.join(self.folder, *parents), last)
            yield from self._last_look(part, path, flush)
            status = self._settle(part, path, flush)
            with folder_in(self.folder, parents, flush) as place:
                final, was_there = give_name(place, path, status, last, partial(is_twin, twins), flush)
                final_path = os.path.join(place.path, final)
        self._forget_part(file_id)
        if not flush and not was_there:
            self._unflushed.add(final_path, *[place.path] * place.is_new)
        found = twins[final] if was_there else fingerprint_of(status)
        shared = shared_file("/".join((*parents, final)), final_path, found, part.digests, not parents)
        self.adopt([shared])
        return Finished(final_path, was_there, shared)

    def _last_look(self, part: Content, path: str, flush: bool) -> Steps[None]:
        """Hash all of it as it lies there now, while it is flushed; whatever else was at it since is seen.

        Only this makes sure: between two of our own writes another program's may go by unseen, where the disk's clock
        stands still meanwhile or both fall together, and what is written by a mapping changes no time at all.
        """
        for _ in range(LOOKS_MAX):
            self._files.drop(path)
            part.stamp = stamp_at(path)
            self._check_there(part, path)
            part.doubt()
            if flush and self._beside.flush is not None:
                self._begin_flush(part, self._files.get(path, write=True))
            begun = part.stamp
            while part.doubted and part.stamp == begun:
                self._hash_doubted(part, path)
                begun = part.stamp              # where it was too long, it has been cut
                if part.doubted:
                    yield
            if not part.is_complete:
                break
            while part.file_id in self._flushes and not self._flushes[part.file_id].is_over():
                yield
            if stamp_at(path) == part.stamp == begun:
                return
        raise LibraryError(ErrorKind.CHANGED, f"{called(part.label)} was changed here by another program.")

    def flush(self) -> bool:
        """Flush what was finished with `flush=False`, all together; False: to be called again."""
        return self._unflushed.flush()

    def keep_small(self, place: str, entries: List[FolderEntry], data: Buffer) -> Optional[List[Kept]]:
        """Write small files that came together, below a folder: flushed together, and only then named.

        Each is verified against its own id; what became of each is told. None: to be called again.
        """
        if not entries:
            return []
        first = entries[0]
        keeping = partial(self._keeping, place, entries, data)
        return self._operations.go_on(first.file_id, f"keep {place}/{first.path}", keeping)

    def _keeping(self, place: str, entries: List[FolderEntry], data: Buffer) -> Steps[List[Kept]]:
        kept: List[Kept] = []
        written: List[Tuple[FolderEntry, str, bytes]] = []
        position, view = 0, memoryview(data)
        with contextlib.ExitStack() as stack:
            for entry, number in zip(entries, self._small_numbers):
                content = view[position:position + entry.size]
                position += entry.size
                path = os.path.join(self._parts_folder, f"small-{number}")
                stack.callback(remove, path)
                written.append((entry, path, self._write_small(entry, path, content)))
            flush = Flush(self._beside.flush)
            flush.begin(flush_paths, [path for _, path, digests in written if digests])
            while not flush.is_over():
                yield
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
            self._with_room(partial(self._write_small_anew, path, content))
        return digests

    @staticmethod
    def _write_small_anew(path: str, content: memoryview) -> None:
        remove(path)
        descriptor = create(path)
        try:
            write_at(descriptor, content, 0)
        finally:
            os.close(descriptor)

    def _name_small(self, name: str, path: str, size: int, digests: bytes) -> Finished:
        *parents, last = check_name(name).split("/")
        same = Content(identity_of(size, digests), size, digests)
        twins = at_once(find_twin(same, os.path.join(self.folder, *parents), last))
        with speaking(f"save {shown(name)}"), contextlib.ExitStack() as stack:
            descriptor = open_regular(path)
            stack.callback(os.close, descriptor)    # open, so that its inode names nothing else until it is confirmed
            status = os.fstat(descriptor)
            is_right = holds(descriptor, size, digests) and stamp_of(os.fstat(descriptor)) == stamp_of(status)
            if not is_right:
                raise LibraryError(ErrorKind.CHANGED, f"{shown(name)} was changed here by another program.")
            if os.name == "nt":
                stack.pop_all().close()
            place = stack.enter_context(folder_in(self.folder, parents, is_synced=False))
            final, was_there = give_name(place, path, status, last, partial(is_twin, twins), is_synced=False)
            final_path = os.path.join(place.path, final)
        if not was_there:
            self._unflushed.add(final_path, *[place.path] * place.is_new)       # their names
        found = twins[final] if was_there else fingerprint_of(status)
        shared = shared_file("/".join((*parents, final)), final_path, found, digests, False)
        self.adopt([shared])
        return Finished(final_path, was_there, shared)

    def copy_local(self, file_id: bytes, name: str, flush: bool = True) -> Optional[Finished]:
        """Give a content that is here already (shared or cached) another name, by copying it on this disk.

        `flush=False` leaves that to `flush`. None: to be called again.
        """
        return self._operations.go_on(file_id, f"copy {name}", partial(self._copying, file_id, name, flush))

    def _copying(self, file_id: bytes, name: str, flush: bool) -> Steps[Finished]:
        size, digests = self.manifest(file_id)
        while self.begin(file_id, size, digests, label=name) is None:
            yield
        part, copied = self._parts[file_id], 0
        for index in range(piece_count_of(size)):
            if has_piece(part.verified, index):
                continue
            data = self.read(file_id, index, 0, piece_length(size, index))
            if not self.write_piece(file_id, index, data):
                raise LibraryError(ErrorKind.CHANGED, "The file was changed after it was shared.")
            copied += len(data)
            if copied >= SLICE_BYTES:
                copied = 0
                yield
        return (yield from self._finishing(file_id, name, flush))

    def make_folder(self, name: str) -> str:
        """Make an empty folder of a listing; returns its path."""
        return self._makings.make_one(name)

    def make_folders(self, listing_id: bytes, names: Iterable[str]) -> Optional[List[str]]:
        """Make a folder's empty folders, all or none; what cannot be made for its own reason is told.

        None: to be called again. Who calls no more has what was made removed by `unmake_folders`.
        """
        return self._makings.make(listing_id, names)

    def unmake_folders(self, listing_id: bytes) -> bool:
        """Remove what an interrupted `make_folders` has made; False: to be called again."""
        return self._makings.unmake(listing_id)

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
        if part is None and file_id in self._gave_way:
            raise LibraryError(ErrorKind.FULL, "It was dropped: the room on the disk is needed for something else.")
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
            status = os.lstat(path)
        if status.st_size != part.size or stamp_of(status) != part.stamp:
            raise LibraryError(ErrorKind.CHANGED, f"{called(part.label)} was changed here by another program.")
        return status

    def _forget_part(self, file_id: bytes) -> None:
        self._parts.pop(file_id, None)
        self._count_gone(file_id)
        self._flushes.pop(file_id, None)
        self._operations.end(file_id)
        self._delete(self._part_path(file_id))

    def _delete(self, path: str) -> None:
        for each in (path, path + ".map"):
            self._files.drop(each)
            remove(each)

    # -- the cache --

    def cached(self) -> List[CachedFile]:
        """The complete contents that are kept for others."""
        return [CachedFile(content.file_id, content.label, content.size, content.is_folder)
                for content in self._cache.values()]

    def cache_quota(self) -> int:
        """The bytes that the cache may take now: 1 GiB or a twentieth of what would be free without it, if less."""
        used = sum(content.size for content in self._cache.values())
        return min(CACHE_BYTES_MAX, (self.free_bytes() + used) * CACHE_FREE_PERCENT // 100)

    def finish_cache(self, file_id: bytes, label: str, is_folder: bool = False) -> bool:
        """Keep a complete content for others; False: to be called again."""
        caching = partial(self._caching, file_id, check_name(label), is_folder)
        return bool(self._operations.go_on(file_id, "cache", caching))

    def _caching(self, file_id: bytes, label: str, is_folder: bool) -> Steps[bool]:
        content = self._complete(file_id)
        source, target = self._part_path(file_id), self._cache_path(file_id)
        with speaking("keep a file in the cache"):
            yield from self._last_look(content, source, False)
            status = self._settle(content, source, False)
            content.label, content.is_folder, content.destination = label, is_folder, Destination.CACHE
            self._files.drop(source)
            try:
                self._write_map(content, target + ".map")
                os.replace(source, target)
                found = os.lstat(target)
                content.stamp = stamp_of(found)
                if fingerprint_of(found) != fingerprint_of(status):
                    raise LibraryError(ErrorKind.CHANGED, f"{called(label)} was changed here by another program.")
            except BaseException:
                self._delete(target)
                raise
        person, _ = self._kept_for.get(file_id, (NOBODY, 0))
        self._forget_part(file_id)
        self._cache[file_id] = content
        self._count_kept(content, person)
        return True

    def evict(self, file_id: bytes) -> None:
        """Drop a cached content."""
        if self._cache.pop(file_id, None) is not None:
            self._count_gone(file_id)
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
        """Read from the cache; a piece that was kept over a restart, or that another program may have changed, is
        hashed before it is served again.
        """
        path = self._cache_path(content.file_id)
        try:
            with speaking("read a kept file"):
                return self._read_looked_at(content, path, index, start, length)
        except LibraryError as error:
            if error.kind is not ErrorKind.SHORT:
                self.evict(content.file_id)
            raise

    def _read_looked_at(self, content: Content, path: str, index: int, start: int, length: int) -> Buffer:
        for _ in range(LOOKS_MAX):
            self._look_cached(content, path)
            self._check_cached(content, path, index)
            data = self._read_own(path, start, length)
            if stamp_of(os.fstat(self._files.get(path, write=True))) == content.stamp:
                self._cache.move_to_end(content.file_id)
                return data
        raise LibraryError(ErrorKind.CHANGED, "The kept file goes on being changed.")

    def _look_cached(self, content: Content, path: str) -> None:
        found = stamp_at(path)
        if found != content.stamp:
            self._files.drop(path)
            content.stamp = found
            for index in range(piece_count_of(content.size)):
                content.unmark(index)

    def _check_cached(self, content: Content, path: str, index: int) -> None:
        if has_piece(content.verified, index):
            return
        piece = self._read_own(path, index * piece_size_of(content.size), piece_length(content.size, index))
        if hashlib.sha256(piece).digest() != digest_at(content.digests, index):
            raise LibraryError(ErrorKind.CHANGED, "The kept file is damaged.")
        content.mark(index)


def is_as_announced(shared: SharedFile) -> bool:
    """Whether a shared content still lies there as it was announced, as far as a look at its times tells."""
    try:
        return shared.is_folder or fingerprint_of(os.lstat(shared.path)) == shared.fingerprint
    except OSError:
        return False


@contextlib.contextmanager
def gone_is_wrong(on_short: Callable[[], None] = lambda: None) -> Iterator[None]:
    """What cannot be read is fetched again; but not where only the system is short of something: that passes."""
    try:
        yield
    except OSError as error:
        if is_short(error):
            on_short()
            raise


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


Kept = Union[Finished, LibraryError]   # what became of one of many small files
