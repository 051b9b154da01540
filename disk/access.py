"""Single files: opened, but never through a link; read, written and hashed at a place; removed.

Any thread may call these. What fails is an OSError: who calls says it in a sentence (`speaking`).
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import math
import os
import stat
from collections import OrderedDict
from typing import Callable, Iterator, Optional, Union

from protocol.buffers import BufferPool
from protocol.content.parts import Stamp
from protocol.content.pieces import MIB, digest_at, piece_count_of, piece_size_of
from protocol.content.shares import Fingerprint
from protocol.content.traits import Traits
from protocol.content.troubles import NoMoreFiles, is_short
from protocol.fields import Buffer

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

READ_SIZE = MIB                # bytes hashed between two looks at the stop flag
READ_BUFFERS_MAX = 16 * MIB    # used again while a file is sent
OPEN_FILES_MAX = 32            # descriptors kept open between calls ...
OPEN_FILES_SHARE = 8           # ... and an eighth of what this process may have at most: sockets need some, too


def os_flags(*names: str) -> int:
    """The named `os.open` flags that this system has."""
    return sum(getattr(os, name, 0) for name in names)


# O_NONBLOCK: a FIFO must not hold the thread. O_NOFOLLOW: a link is not the file that was announced.
OPEN_FLAGS = os_flags("O_NONBLOCK", "O_NOFOLLOW", "O_CLOEXEC", "O_BINARY", "O_NOINHERIT")
# Errors of a flush that mean that something is lost; others, that such things are not flushed there.
NOT_WRITTEN = {errno.EIO, errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}
_REPARSE_POINT = 0x400   # Windows: links, junctions, files that are only in the cloud


def fingerprint_of(status: os.stat_result) -> Fingerprint:
    """What must not change between announcing a file and sending it."""
    # Windows gives different inodes by name and by descriptor on some file systems: size and time must do there.
    return status.st_size, status.st_mtime_ns, 0 if os.name == "nt" else status.st_ino


def changed_ns_of(status: os.stat_result) -> int:
    """When anything of a file was changed last, be it only its time; 0 where the system does not say."""
    return 0 if os.name == "nt" else status.st_ctime_ns     # Windows' ctime is when it was made


def is_executable(status: os.stat_result) -> bool:
    """Whether its owner may run it, where the system has a bit for that."""
    return os.name != "nt" and bool(status.st_mode & stat.S_IXUSR)


def give_traits(path: str, descriptor: int, traits: Traits) -> None:
    """Have an open file of ours be of the time that its sharer told, and of all modes the owner's execute bit.

    What a disk does not keep of it is left: the bytes are what was asked for.
    """
    times = traits.mtime_ns, traits.mtime_ns
    with contextlib.suppress(OSError, OverflowError):
        if traits.is_executable and hasattr(os, "fchmod"):
            os.fchmod(descriptor, stat.S_IMODE(os.fstat(descriptor).st_mode) | stat.S_IXUSR)
    with contextlib.suppress(OSError, OverflowError):
        os.utime(descriptor if os.utime in os.supports_fd else path, ns=times)


def stamp_of(status: os.stat_result) -> Stamp:
    """What differs as soon as somebody else has written to a file, cut it, or put another in its place."""
    # Some disks keep times to 2 s only: that they differ proves nothing wrong.
    return (*fingerprint_of(status), changed_ns_of(status))


def stamp_at(path: str) -> Optional[Stamp]:
    """The stamp of what stands there now, None if it is nothing."""
    try:
        return stamp_of(os.lstat(path))
    except (FileNotFoundError, NotADirectoryError):
        return None


def is_link(status: os.stat_result) -> bool:
    """Whether it leads elsewhere: a link, or what Windows has instead."""
    return stat.S_ISLNK(status.st_mode) or bool(getattr(status, "st_file_attributes", 0) & _REPARSE_POINT)


def open_regular(path: str, write: bool = False, dir_fd: Optional[int] = None) -> int:
    """Open a regular file, never through a link in its last component; OSError otherwise."""
    if not hasattr(os, "O_NOFOLLOW") and is_link(os.lstat(path)):
        raise OSError(errno.ELOOP, "a link", path)
    descriptor = os.open(path, OPEN_FLAGS | (os.O_RDWR if write else os.O_RDONLY), dir_fd=dir_fd)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", path)
    return descriptor


def create(path: str, dir_fd: Optional[int] = None, mode: int = 0o644) -> int:
    """Create a file that was not there; the system applies the umask, and no execute bit is ever set."""
    with making(path if dir_fd is None else dir_fd):
        return os.open(path, OPEN_FLAGS | os.O_RDWR | os.O_CREAT | os.O_EXCL, mode, dir_fd=dir_fd)


@contextlib.contextmanager
def making(place: Union[str, int]) -> Iterator[None]:
    """A file or folder is made there (a path, or the folder's descriptor); NoMoreFiles where the disk has no inodes."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENOSPC and not files_left(os.path.dirname(place) if isinstance(place, str) else place):
            raise NoMoreFiles(errno.ENOSPC, "no inodes left") from error
        raise


def files_left(place: Union[str, int]) -> float:
    """How many files more the disk takes on which a folder (its path, or a descriptor) is; inf where nobody counts."""
    try:
        disk = os.statvfs(place)
    except (AttributeError, OSError):   # Windows
        return math.inf
    return disk.f_favail if disk.f_files else math.inf


def read_at(descriptor: int, length: int, offset: int) -> bytes:
    """Read exactly `length` bytes, less only at the end of the file."""
    if hasattr(os, "pread"):
        data = os.pread(descriptor, length, offset)
    else:
        os.lseek(descriptor, offset, os.SEEK_SET)
        data = os.read(descriptor, length)
    if len(data) == length or not data:
        return data
    return data + read_at(descriptor, length - len(data), offset + len(data))


def read_into(buffers: BufferPool, descriptor: int, length: int, offset: int) -> memoryview:
    """The same, into a buffer that is used again when nobody holds the view any more."""
    if not hasattr(os, "preadv"):  # Windows, older macOS
        return memoryview(read_at(descriptor, length, offset))
    view, filled = memoryview(buffers.take(length)), 0
    while filled < length:
        count = os.preadv(descriptor, [view[filled:]], offset + filled)
        if not count:
            break
        filled += count
    return view[:filled]


def write_at(descriptor: int, data: Buffer, offset: int) -> None:
    """Write all of it."""
    view = memoryview(data)
    while view:
        if hasattr(os, "pwrite"):
            written = os.pwrite(descriptor, view, offset)
        else:
            os.lseek(descriptor, offset, os.SEEK_SET)
            written = os.write(descriptor, view)
        view, offset = view[written:], offset + written


def leave_hole(descriptor: int, offset: int, length: int) -> bool:
    """Have a range of zeros be a hole of the file, if it is one already or lies beyond the end; else False.

    A hole reads as zeros whatever happens meanwhile, so nothing need be written there.
    """
    end = offset + length
    if os.fstat(descriptor).st_size <= offset:
        os.ftruncate(descriptor, end)
        return True
    if not hasattr(os, "SEEK_DATA"):
        return False
    try:
        is_hole = os.lseek(descriptor, offset, os.SEEK_DATA) >= end
    except OSError as error:
        if error.errno != errno.ENXIO:     # ENXIO: no data up to the end of the file
            return False
        is_hole = True
    if is_hole and os.fstat(descriptor).st_size < end:
        os.ftruncate(descriptor, end)
    return is_hole


@functools.lru_cache(maxsize=64)
def digest_of_zeros(length: int) -> bytes:
    """SHA-256 of so many zeros."""
    hasher, block = hashlib.sha256(), bytes(min(length, READ_SIZE))
    for start in range(0, length, READ_SIZE):
        hasher.update(block[:length - start])
    return hasher.digest()


def digest_range(descriptor: int, offset: int, length: int, tick: Callable[[], None]) -> bytes:
    """SHA-256 of a range (shorter where the file ends), with a tick before each read."""
    hasher = hashlib.sha256()
    end = offset + length
    while offset < end:
        tick()
        data = read_at(descriptor, min(READ_SIZE, end - offset), offset)
        if not data:
            break
        hasher.update(data)
        offset += len(data)
    return hasher.digest()


def holds(descriptor: int, size: int, digests: bytes) -> bool:
    """Whether an open file has this content: stops at the first piece that differs."""
    if os.fstat(descriptor).st_size != size:
        return False
    piece_size = piece_size_of(size)
    return all(
        digest_range(descriptor, index * piece_size, piece_size, no_tick) == digest_at(digests, index)
        for index in range(piece_count_of(size))
    )


def no_tick() -> None:
    """For `digest_range`, where nothing is to be done before each read."""


def remove(path: str) -> None:
    """Remove a file, if it is there and can be removed."""
    with contextlib.suppress(OSError):
        os.unlink(path)


def write_anew(path: str, data: bytes, is_flushed: bool = False, is_secret: bool = False) -> None:
    """Write a small file beside the old one, then replace that one; `is_flushed`: a power cut leaves one or the other.

    `is_secret`: it is this user's alone from its first byte on. Where that fails, nothing is left beside the old one.
    """
    remove(path + "~")
    try:
        _write_new(path + "~", data, is_flushed, 0o600 if is_secret else 0o644)
        os.replace(path + "~", path)
    except BaseException:
        remove(path + "~")
        raise
    if is_flushed:
        flush_folder(os.path.dirname(path))


def _write_new(path: str, data: bytes, is_flushed: bool, mode: int) -> None:
    descriptor = create(path, mode=mode)
    try:
        write_at(descriptor, data, 0)
        if is_flushed:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def flush_file(path: str) -> None:
    """Have what was written to a file outlive a power cut."""
    descriptor = open_regular(path, write=True)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def flush_folder(path: str) -> None:
    """Have the names in a folder outlive a power cut, where the system can; see `flush_names`."""
    if hasattr(os, "O_DIRECTORY"):
        try:
            descriptor = os.open(path, os.O_RDONLY | os_flags("O_DIRECTORY", "O_CLOEXEC"))
        except OSError:                 # one that may be written to and not read, for example
            return
        try:
            flush_names(descriptor)
        finally:
            os.close(descriptor)


def flush_names(descriptor: int) -> None:
    """The same of an open folder. Some disks flush no folders; but one that could not write says so."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno in NOT_WRITTEN:
            raise


# ---- files that others may change, and files that are used again and again

class StillChanging(Exception):
    """The file changed while it was hashed."""


def read_member(path: str, expected: Fingerprint, offset: int, length: int) -> bytes:
    """A part of a file in a pack, if it is still as it was announced; else `StillChanging` or an OSError."""
    descriptor = open_regular(path)
    try:
        data = read_at(descriptor, length, offset)
        if fingerprint_of(os.fstat(descriptor)) != expected or len(data) != length:
            raise StillChanging
        return data
    finally:
        os.close(descriptor)


def _open_files_max() -> int:
    try:
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    except (AttributeError, OSError, ValueError):     # Windows has no such limit
        return OPEN_FILES_MAX
    return OPEN_FILES_MAX if soft < 0 else max(2, min(OPEN_FILES_MAX, soft // OPEN_FILES_SHARE))


class OpenFiles:
    """Descriptors kept open between calls: the least recently used is closed first."""

    def __init__(self) -> None:
        self._open: OrderedDict[str, int] = OrderedDict()
        self._count_max = _open_files_max()

    def get(self, path: str, write: bool = False) -> int:
        """The descriptor of a file, opened if need be."""
        if path in self._open:
            self._open.move_to_end(path)
            return self._open[path]
        try:
            return self.put(path, open_regular(path, write))
        except OSError as error:
            if not is_short(error) or not self._open:
                raise
        self.close()       # they are opened again when they are needed
        return self.put(path, open_regular(path, write))

    def put(self, path: str, descriptor: int) -> int:
        """Keep a descriptor."""
        self.drop(path)
        self._open[path] = descriptor
        if len(self._open) > self._count_max:
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
