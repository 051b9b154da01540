"""What the disk refuses, as sentences for people: which error of the system means what."""

from __future__ import annotations

import contextlib
import errno
from typing import Dict, Iterator, Optional, Tuple

from protocol.content import ErrorKind, LibraryError, shown, size_text

ERRNO_MEANING: Dict[Optional[int], Tuple[ErrorKind, str]] = {
    errno.ENOSPC: (ErrorKind.FULL, "the disk is full"),
    getattr(errno, "EDQUOT", None): (ErrorKind.FULL, "your disk quota is used up"),
    errno.EFBIG: (ErrorKind.TOO_BIG, "the file is larger than this system allows"),
    errno.EROFS: (ErrorKind.READ_ONLY, "the disk is read-only"),
    errno.EACCES: (ErrorKind.DENIED, "this user has no permission"),
    errno.EPERM: (ErrorKind.DENIED, "this user has no permission"),
    errno.EIO: (ErrorKind.DISK, "the disk reports an error"),
    errno.ENAMETOOLONG: (ErrorKind.NAME, "the name is too long for this disk"),
    errno.ENOENT: (ErrorKind.GONE, "it is not there"),
    errno.ELOOP: (ErrorKind.LINK, "a link stands in the way"),
    errno.ENOTDIR: (ErrorKind.LINK, "a link or a file stands where a folder should be"),
    errno.EXDEV: (ErrorKind.DISK, "part of the folder lies on another disk"),
    errno.EMFILE: (ErrorKind.SHORT, "too many files are open"),
    errno.ENFILE: (ErrorKind.SHORT, "too many files are open on this machine"),
    errno.ENOMEM: (ErrorKind.SHORT, "this machine has no memory left"),
    errno.EAGAIN: (ErrorKind.SHORT, "this machine is too busy"),
    errno.ENOBUFS: (ErrorKind.SHORT, "this machine has no memory left"),
}
GONE_KINDS = (ErrorKind.GONE, ErrorKind.LINK)      # another thing stands there, or nothing


def meaning(error: OSError) -> Tuple[ErrorKind, str]:
    return ERRNO_MEANING.get(error.errno, (ErrorKind.DISK, (error.strerror or "the system refused").lower()))


def is_short(error: OSError) -> bool:
    """Whether the system is short of something, which says nothing about the file."""
    return meaning(error)[0] is ErrorKind.SHORT


def is_changed(error: OSError) -> bool:
    """Whether it was seen that the file is not there any more, or that something else stands in its place."""
    return meaning(error)[0] in GONE_KINDS or error.errno == errno.EINVAL      # not a regular file (`open_regular`)


def trouble(error: OSError, doing: str) -> LibraryError:
    kind, cause = meaning(error)
    return LibraryError(kind, f"Cannot {doing}: {cause}.")


@contextlib.contextmanager
def speaking(doing: str) -> Iterator[None]:
    """Turn the system's errors into sentences."""
    try:
        yield
    except OSError as error:
        raise trouble(error, doing) from error


def called(label: str) -> str:
    return shown(label) if label else "the file"


def no_room(label: str, needed: int, free: int) -> LibraryError:
    sentence = f"No room for {called(label)}: needs {size_text(needed)}, {size_text(free)} free."
    return LibraryError(ErrorKind.FULL, sentence)
