"""What the disk refuses, as sentences for people: which error of the system means what."""

from __future__ import annotations

import contextlib
import errno
from enum import Enum
from typing import Dict, Iterator, Optional, Tuple


class ErrorKind(Enum):
    """What went wrong, for code; the sentence is for people."""

    UNKNOWN = "unknown"        # no such content here
    MISSING = "missing"        # known, but this piece is not here yet
    CHANGED = "changed"        # the file is no longer what was announced
    MALFORMED = "malformed"    # what another node gave is not well-formed
    NAME = "name"              # a name that is refused, or too long for this disk
    FULL = "full"              # disk, quota or cache has no room
    TOO_BIG = "too big"
    READ_ONLY = "read-only"
    DENIED = "denied"
    GONE = "gone"              # a file or folder is not there
    LINK = "link"              # a link or a file stands where a folder should be
    IN_USE = "in use"
    DISK = "disk"              # the disk or the system failed otherwise
    SHORT = "short"            # the system is short of something, such as descriptors or memory: it passes


class LibraryError(Exception):
    """A refusal or failure: `kind` for code, `sentence` for people."""

    def __init__(self, kind: ErrorKind, sentence: str) -> None:
        super().__init__(sentence)
        self.kind = kind
        self.sentence = sentence


class BadName(LibraryError):
    """A name that could leave the folder, mislead a person, or not exist on another system."""

    def __init__(self, sentence: str, is_long: bool = False) -> None:
        super().__init__(ErrorKind.NAME, sentence)
        self.is_long = is_long         # it, or the path to it


class FolderInUse(LibraryError):
    """Another running node has the folder."""

    def __init__(self, sentence: str) -> None:
        super().__init__(ErrorKind.IN_USE, sentence)


class NoMoreFiles(OSError):
    """The disk may have room for bytes, but none for one file more."""


def size_text(size: int) -> str:
    """Show a size to a person in decimal units: `4.2 GB`."""
    if size < 1000:
        return f"{size} B"
    value, units = size / 1000, ["PB", "TB", "GB", "MB", "kB"]
    while value >= 999.95 and len(units) > 1:
        value /= 1000
        units.pop()
    return f"{value:.1f} {units[-1]}"


def shown(name: str, longest: int = 60) -> str:
    """Quote a name so that a terminal takes no orders from it."""
    short = name if len(name) <= longest else name[:longest - 3] + "..."
    if not short.isprintable():
        short = "".join(c if c.isprintable() else f"\\u{{{ord(c):x}}}" for c in short)
    return f'"{short}"'


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
NO_MORE_FILES = "the disk takes no more files (no inodes are left), whatever room it has"
GONE_KINDS = (ErrorKind.GONE, ErrorKind.LINK)      # another thing stands there, or nothing


def meaning(error: OSError) -> Tuple[ErrorKind, str]:
    """The kind of an error of the system, and its cause in words."""
    if isinstance(error, NoMoreFiles):
        return ErrorKind.FULL, NO_MORE_FILES
    return ERRNO_MEANING.get(error.errno, (ErrorKind.DISK, (error.strerror or "the system refused").lower()))


def is_short(error: OSError) -> bool:
    """Whether the system is short of something, which says nothing about the file."""
    return meaning(error)[0] is ErrorKind.SHORT


def is_changed(error: OSError) -> bool:
    """Whether it was seen that the file is not there any more, or that something else stands in its place."""
    return meaning(error)[0] in GONE_KINDS or error.errno == errno.EINVAL      # not a regular file (`open_regular`)


def trouble(error: OSError, doing: str) -> LibraryError:
    """The same as a sentence; `doing`: what could not be done, as in "write to the disk"."""
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
    """What a person calls that file; some have no name here."""
    return shown(label) if label else "the file"


def no_room(label: str, needed: int, free: int) -> LibraryError:
    """`needed` and `free` in bytes."""
    sentence = f"No room for {called(label)}: needs {size_text(needed)}, {size_text(free)} free."
    return LibraryError(ErrorKind.FULL, sentence)
