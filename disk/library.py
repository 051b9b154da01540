"""The contents of one node on its disk: what it shares, unfinished downloads, the cache.

`Library` is owned by one disk thread, without locks; every method may block on the disk. Below the folder's hidden
`.node` it keeps `lock`, `parts/<id>` with `parts/<id>.map` (unfinished downloads), and `cache/<id>` with
`cache/<id>.map`. Nobody else opens files, but the scanner (`disk/scanner.py`). It is the face of

    SharedFiles  (disk/shared.py)     what is shared, read where it stands
    Downloads    (disk/downloads.py)  what comes: its pieces, its final names
    SmallFiles   (disk/small.py)      the same of many small files at once
    Expected     (disk/expected.py)   what was told beside what comes: times and execute bits
    Cache        (disk/cache.py)      what is kept for others
    Parts        (disk/parts.py)      the hidden files of what comes, at which other programs may be at any time
    Shelf        (disk/shelf.py)      a hidden folder of contents with their maps: of the parts, and of the cache
    Updates      (disk/updates.py)    which file of an earlier fetch gives way to a new version, and where it goes
    Room         (disk/room.py)       what any of it may take of the disk, and what gives way

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
import math
import os
import secrets
import time
from functools import partial
from typing import Iterable, List, Optional, Tuple, TypeVar, Union

from disk.access import READ_BUFFERS_MAX, OpenFiles, open_regular, read_at, remove, write_anew
from disk.accounts import NOBODY, Accounts
from disk.cache import Cache, CachedFile
from disk.downloads import Downloads, Finished, PieceWrite
from disk.expected import Expected
from disk.flushing import Beside, Submit, Unflushed
from disk.lock import FolderLock
from disk.looking import SLICE_BYTES
from disk.making import Makings
from disk.maps import MapWriter
from disk.parts import Parts
from disk.room import Room, RoomLeft, disk_of
from disk.shared import SharedFiles
from disk.shelf import Means, Shelf, make_private
from disk.small import Kept, SmallFiles
from disk.steps import Operations, Steps
from disk.updates import Updates
from protocol.buffers import BufferPool
from protocol.content.listing import FOLDER_BYTES_MAX, FolderEntry
from protocol.content.names import HIDDEN, check_any, check_name
from protocol.content.parts import Content, Destination, Origin, PartInfo
from protocol.content.pieces import check_manifest, has_piece, piece_count_of, piece_length, piece_size_of
from protocol.content.shares import SharedFile
from protocol.content.troubles import ErrorKind, FolderInUse, LibraryError, shown, size_text, speaking
from protocol.fields import Buffer

KEPT_BYTES_MAX = 4096          # of each of these
NETWORK_FILE = "network"       # below the hidden folder
NETWORK_AGE_MAX = 3600.0       # seconds: later, its members' addresses may be anybody's
RULED_FILE = "ruled"           # likewise: the network that this node ruled
RULED_AGE_MAX = 86_400.0       # seconds
PAST_FILE = "name"             # likewise: who this node was, and the key by which it shows that
PAST_KEY_SIZE = 16
BUSY_TIME = 0.3                # seconds after a piece was read or written in which transfers have the disk

_T = TypeVar("_T")


def open_folder(folder: str, named: bool = True, hidden: str = HIDDEN) -> Library:
    """Open a library; where the person did not name the folder, the next free of `shared-2`, `shared-3` ... serves."""
    for number in range(1, 100):
        library = Library(folder if number == 1 else f"{folder}-{number}", hidden)
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

    def __init__(self, folder: str, hidden: str = HIDDEN) -> None:
        """`hidden`: the name of the folder in it that holds all but the contents themselves."""
        self.folder = os.path.abspath(folder)
        self.dropped: List[str] = []   # sentences about what lay here unfinished for too long
        self.notice = ""               # why nothing can be saved here, if so; sharing and chat go on
        self._hidden = os.path.join(self.folder, hidden)
        self._lock = FolderLock(self.folder, os.path.join(self._hidden, "lock"))
        self._files, buffers, accounts = OpenFiles(), BufferPool(READ_BUFFERS_MAX), Accounts()
        self._beside = Beside()
        self._operations = Operations()
        self._unflushed = Unflushed(self._beside)
        self._makings = Makings(self.folder, self._operations, self._unflushed)
        means = Means(self._files, buffers, MapWriter(), accounts)
        parts, cache = (Shelf(os.path.join(self._hidden, name), means) for name in ("parts", "cache"))
        self._shelves = parts, cache
        self._shared = SharedFiles(self._files, buffers)
        self._parts = Parts(self.folder, parts, self._beside, self._operations)
        self._cache = Cache(cache, self._parts, accounts)
        self._room = Room(self.folder, lambda: self.free_bytes(), self._parts, cache, accounts)
        self._updates, self.expected = Updates(self.folder), Expected()
        self._downloads = Downloads(self.folder, self._parts, self._room, accounts, self._shared, self._unflushed,
                                    self._updates, self.expected)
        self._small = SmallFiles(self.folder, parts.folder, self._room, self._shared, self._beside, self._unflushed,
                                 self._updates, self._downloads, self.expected)
        self._moved_at = -math.inf                                 # when a piece was last read or written

    def is_busy(self) -> bool:
        """Whether transfers use the disk now; any thread may ask."""
        return time.monotonic() - self._moved_at < BUSY_TIME

    def use_threads(self, flush: Submit, digest: Optional[Submit] = None) -> None:
        """Have files flushed, and half of what is looked at again hashed, on threads beside; else all is done here."""
        self._beside.use(flush, digest)

    # ---- opening and closing

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
            self.dropped += self._parts.load(time.time())
            self._cache.load()
        self.notice = ""

    def _has_vanished(self) -> bool:
        """Whether the node's own folder was taken away, with all that was kept in it."""
        if all(shelf.is_there() for shelf in self._shelves):
            return False
        if not os.path.isdir(self.folder):      # never made anew: it may be a disk that will be mounted again
            raise LibraryError(ErrorKind.GONE, f"The folder {shown(self.folder, 1000)} is gone.")
        for shelf in self._shelves:
            shelf.forget_all()
        return True

    def close(self) -> None:
        """Close all files and give the folder free; what was fetched for others and is unfinished goes."""
        for file_id in list(self._parts.contents):
            self.discard(file_id)
        self._close_files()

    def _close_files(self) -> None:
        self._operations.end_all()
        self._updates.fetched.close()
        self._files.close()
        self._lock.drop()

    def __enter__(self) -> Library:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _make_hidden_folders(self) -> None:
        make_private(self._hidden)
        for shelf in self._shelves:
            shelf.make()

    # ---- the network of before

    def keep_network(self, data: bytes) -> None:
        """Keep what a later run needs in order to find the present network again; only a help, so it may fail."""
        with contextlib.suppress(OSError):
            write_anew(os.path.join(self._hidden, NETWORK_FILE), data)

    def last_network(self) -> bytes:
        """What was kept, if that is not long ago; else nothing."""
        return self._kept(NETWORK_FILE, NETWORK_AGE_MAX)

    def _kept(self, name: str, age_max: float = math.inf) -> bytes:
        with contextlib.suppress(OSError):
            descriptor = open_regular(os.path.join(self._hidden, name))
            try:
                if abs(time.time() - os.fstat(descriptor).st_mtime) <= age_max:
                    return read_at(descriptor, KEPT_BYTES_MAX, 0)
            finally:
                os.close(descriptor)
        return b""

    # ---- who this node was

    def keep_past(self, data: bytes) -> None:
        """Keep what a later run needs in order to be called as this one; only a help, so it may fail."""
        with contextlib.suppress(OSError):  # the folder is this user's alone, as long as nobody changes that
            write_anew(os.path.join(self._hidden, PAST_FILE), data, is_secret=True)

    def past(self) -> bytes:
        """What was kept; else nothing."""
        return self._kept(PAST_FILE)

    def keep_ruled(self, data: bytes) -> None:
        """Keep what a later run needs in order to resume the network that this one rules; nothing: it rules none."""
        path = os.path.join(self._hidden, RULED_FILE)
        with contextlib.suppress(OSError):
            if data:
                write_anew(path, data, is_secret=True)
            else:
                remove(path)

    def ruled(self) -> bytes:
        """What was kept, if that is not long ago; else nothing."""
        return self._kept(RULED_FILE, RULED_AGE_MAX)

    def memory(self) -> Tuple[bytes, bytes, bytes, bytes]:
        """What this node knows of its earlier runs.

        Its last network, who it was, a key for one who was nobody, and what it ruled.
        """
        return self.last_network(), self.past(), secrets.token_bytes(PAST_KEY_SIZE), self.ruled()

    # ---- what is shared

    def adopt(self, files: Iterable[SharedFile]) -> None:
        """Serve these from now on."""
        self._shared.adopt(files)

    def withdraw(self, gone: Iterable[Union[SharedFile, bytes]]) -> None:
        """Stop serving these files, or all that has one of these ids."""
        self._shared.withdraw(gone)

    # ---- what is here

    def manifest(self, file_id: bytes) -> Tuple[int, bytes]:
        """The size and piece digests of a content that is here, whole or in part."""
        content = self._content(file_id)
        self._cache.note_use(file_id)
        return content.size, content.digests

    def read(self, file_id: bytes, index: int, offset: int, length: int) -> Buffer:
        """Read bytes of a piece: from a shared file that is still as announced, the cache, or a verified part."""
        content, self._moved_at = self._content(file_id), time.monotonic()
        in_range = 0 <= index < piece_count_of(content.size) and offset >= 0 and length >= 0
        if not in_range or offset + length > piece_length(content.size, index):
            raise LibraryError(ErrorKind.MALFORMED, "No such place in this file.")
        start = index * piece_size_of(content.size) + offset
        if isinstance(content, SharedFile):
            return self._shared.read(file_id, start, length)
        if file_id in self._cache:
            return self._cache.read(content, index, start, length)
        return self._parts.read(content, index, start, length)

    def _content(self, file_id: bytes) -> Union[SharedFile, Content]:
        content = self._shared.by_id.first(file_id) or self._cache.get(file_id) or self._parts.contents.get(file_id)
        if content is None:
            raise LibraryError(ErrorKind.UNKNOWN, "No such file here.")
        return content

    def contents(self, file_id: bytes) -> bytes:
        """The whole of a small content, such as a folder's listing."""
        size, _ = self.manifest(file_id)
        if size > FOLDER_BYTES_MAX:
            raise LibraryError(ErrorKind.TOO_BIG, f"{size_text(size)} is too big for a folder's listing.")
        pieces = range(piece_count_of(size))
        return b"".join(self.read(file_id, index, 0, piece_length(size, index)) for index in pieces)

    def wrong_places(self, file_id: bytes, index: int) -> Optional[List[str]]:
        """The shared files that do not hold what was announced for a piece, as they lie there now.

        None: to be called again.
        """
        return self._operations.go_on(file_id, f"look at {index}", partial(self._shared.looking, file_id, index))

    def has(self, file_id: bytes) -> bool:
        """Whether it is here whole, shared or kept for others, as far as is known without a look at it."""
        return file_id in self._shared.by_id or file_id in self._cache

    def local_copy(self, file_id: bytes) -> Optional[str]:
        """The path of a shared file with this content that is still as announced."""
        return self._shared.local_copy(file_id)

    def standing(self, file_id: bytes, name: str) -> Optional[str]:
        """Where this content is shared under the name, or under the one that it got as another file has that."""
        return self._shared.standing(file_id, name, os.path.join(self.folder, name))

    def stands(self, file_id: bytes, name: str) -> bool:
        """Whether the shared folder holds this content under the name (or beside what has that), as announced."""
        path = os.path.join(self.folder, *name.split("/"))
        return self._shared.stands(file_id, path) or self._shared.stands_beside(file_id, name, path)

    # ---- room on the disk

    def check_room(self, label: str, needed: int) -> None:
        """Refuse what this person wants and the disk has no room for, even without all that is kept for others."""
        self._room.check(label, needed)

    def others_quota(self) -> int:
        """The bytes that all that is kept for others may take now."""
        return self._room.others_quota()

    def free_bytes(self) -> int:
        """The bytes that this user may still write."""
        return int(disk_of(self.folder).free)

    def room_left(self) -> RoomLeft:
        """The same for what this person wants: what is kept for others gives way to it."""
        return self._room.left()

    # ---- downloads

    def begin(self, file_id: bytes, size: int, digests: bytes, destination: Destination = Destination.DOWNLOAD,
              label: str = "", is_folder: bool = False, person: bytes = NOBODY) -> Optional[bytearray]:
        """Make or resume a part file; returns the bitmap of its verified pieces. `person`: for whom, if it is another.

        After a restart what is there is hashed first, a part of it with each call: None means that it is to be called
        again, after what else waits for the disk.
        """
        check_manifest(file_id, size, digests)
        if label:
            (check_name if destination is Destination.DOWNLOAD else check_any)(label)
        if self.notice or self._has_vanished():
            self._open_for_writing()       # the disk may have been freed or mounted anew
        return self._downloads.begin(file_id, size, digests, destination, label, is_folder, person)

    def piece_write(self, file_id: bytes, index: int, data: Buffer) -> PieceWrite:
        """`write_piece` as a job, whose digest may be computed on another thread before it runs."""
        return PieceWrite(self.write_piece, file_id, index, data)

    def write_piece(self, file_id: bytes, index: int, data: Buffer, digest: Optional[bytes] = None) -> bool:
        """Verify a piece and keep it; False, and nothing written, when it is not the piece that was asked for."""
        part = self._parts.wanted(file_id)
        self._moved_at = time.monotonic()
        return self._downloads.write_piece(part, index, data, digest)

    def finish(self, file_id: bytes, name: str, flush: bool = True, origin: Optional[Origin] = None
               ) -> Optional[Finished]:
        """Give a complete download its final name, never replacing anything; `flush=False` leaves it to `flush`.

        Only what this node fetched from who gives the new version (`origin`, if a person asked for it), and nobody
        changed here, gives way: it is put aside. None: to be called again. CHANGED or MISSING: another program was at
        it, and `begin` tells what is left.
        """
        finishing = partial(self._downloads.finishing, file_id, name, flush, origin)
        return self._noted(self._operations.go_on(file_id, f"finish {name}", finishing))

    def _noted(self, result: Optional[_T]) -> Optional[_T]:
        """What is remembered of it outlives this process, when it is over."""
        if result is not None:
            self._updates.fetched.commit()
        return result

    def flush(self) -> bool:
        """Flush what was finished with `flush=False`, all together; False: to be called again."""
        return self._unflushed.flush()

    def keep_small(self, place: str, entries: List[FolderEntry], data: Buffer, origin: Optional[Origin] = None
                   ) -> Optional[List[Kept]]:
        """Write small files that came together, below a folder: flushed together, and only then named as by `finish`.

        Each is verified against its own id; what became of each is told. None: to be called again.
        """
        if not entries:
            return []
        first = entries[0]
        keeping = partial(self._small.keeping, place, entries, data, origin)
        return self._noted(self._operations.go_on(first.file_id, f"keep {place}/{first.path}", keeping))

    def copy_local(self, file_id: bytes, name: str, flush: bool = True, origin: Optional[Origin] = None
                   ) -> Optional[Finished]:
        """Give a content that is here already (shared or cached) another name, by copying it on this disk.

        `flush` and `origin` as for `finish`. None: to be called again.
        """
        copying = partial(self._copying, file_id, name, flush, origin)
        return self._noted(self._operations.go_on(file_id, f"copy {name}", copying))

    def _copying(self, file_id: bytes, name: str, flush: bool, origin: Optional[Origin]) -> Steps[Finished]:
        """The pieces that are missing there, read from wherever they are here, and then its final name."""
        size, digests = self.manifest(file_id)
        while self.begin(file_id, size, digests, label=name) is None:
            yield
        part, copied = self._parts.contents[file_id], 0
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
        return (yield from self._downloads.finishing(file_id, name, flush, origin))

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
        return self._downloads.infos()

    def discard(self, file_id: bytes, own: bool = False) -> None:
        """Drop an unfinished content that was fetched for others; what this node's person began only with `own`."""
        self._downloads.discard(file_id, own)

    # ---- the cache

    def cached(self) -> List[CachedFile]:
        """The complete contents that are kept for others."""
        return self._cache.files()

    def cache_quota(self) -> int:
        """The bytes that the cache may take now: 1 GiB or a twentieth of what would be free without it, if less."""
        return self._room.cache_quota()

    def finish_cache(self, file_id: bytes, label: str, is_folder: bool = False) -> bool:
        """Keep a complete content for others; False: to be called again."""
        caching = partial(self._cache.taking_in, file_id, check_any(label), is_folder)
        return bool(self._operations.go_on(file_id, "cache", caching))

    def evict(self, file_id: bytes) -> None:
        """Drop a cached content."""
        self._cache.evict(file_id)
