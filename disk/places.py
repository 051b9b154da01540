"""Folders, and the names that finished files get in them: nothing is ever replaced, no link followed.

Any thread may call these.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import time
from typing import Callable, Iterator, List, Optional, Tuple

from disk.access import create, fingerprint_of, flush_names, is_link, making, os_flags
from protocol.content.troubles import ErrorKind, LibraryError, shown

CANDIDATES_MAX = 1000          # "name (2)" ... before giving up
RENAME_TRIES, RENAME_DELAY = 10, 0.1   # Windows: a virus scanner may hold the file for a moment

_HAS_DIR_FD = hasattr(os, "O_DIRECTORY") and hasattr(os, "link") and (
    {os.open, os.mkdir, os.stat, os.unlink, os.link} <= os.supports_dir_fd)


class Folder:
    """An open directory: names are looked up in it, links are not followed."""

    def __init__(self, path: str, descriptor: Optional[int]) -> None:
        self.path = path
        self.is_new = False            # made by `child`
        self._descriptor = descriptor

    @classmethod
    def open(cls, path: str) -> Folder:
        """Open a folder that the person chose (it may be a link)."""
        return cls(path, os.open(path, os.O_RDONLY | os_flags("O_DIRECTORY", "O_CLOEXEC")) if _HAS_DIR_FD else None)

    def __enter__(self) -> Folder:
        return self

    def __exit__(self, *_: object) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)

    def _at(self, name: str) -> str:
        return name if self._descriptor is not None else os.path.join(self.path, name)

    def status(self, name: str) -> os.stat_result:
        """What stands under the name, itself and not what it may point to."""
        return os.stat(self._at(name), dir_fd=self._descriptor, follow_symlinks=False)

    def child(self, name: str, is_synced: bool = True) -> Folder:
        """Open a folder in this one, made if absent; a link or a file in its place is an OSError."""
        is_new = False
        with contextlib.suppress(FileExistsError), making(os.path.join(self.path, name)):
            os.mkdir(self._at(name), dir_fd=self._descriptor)
            is_new = True
        place = self._open_child(name)
        place.is_new = is_new
        if is_new and is_synced:
            self.sync()
        return place

    def _open_child(self, name: str) -> Folder:
        path = os.path.join(self.path, name)
        if self._descriptor is not None:
            flags = os.O_RDONLY | os_flags("O_DIRECTORY", "O_CLOEXEC", "O_NOFOLLOW")
            return Folder(path, os.open(name, flags, dir_fd=self._descriptor))
        status = self.status(name)
        if is_link(status) or not stat.S_ISDIR(status.st_mode):
            raise OSError(errno.ENOTDIR, "not a folder", path)
        return Folder(path, None)

    def create(self, name: str) -> int:
        """Create a file in this folder."""
        return create(self._at(name), self._descriptor)

    def remove(self, name: str) -> None:
        """Remove a file of this folder."""
        os.unlink(self._at(name), dir_fd=self._descriptor)

    def give_back(self, name: str, source: str) -> None:
        """Move a file out of this folder again, to where it came from."""
        os.replace(self._at(name), source, src_dir_fd=self._descriptor)

    def take_in(self, source: str, name: str) -> None:
        """Move a file into this folder; FileExistsError where the name is taken, by anything at all."""
        if os.name == "nt":
            _rename_windows(source, self._at(name))
            return
        try:
            os.link(source, self._at(name), dst_dir_fd=self._descriptor, follow_symlinks=False)
        except FileExistsError:
            raise
        except (OSError, NotImplementedError, AttributeError):     # a disk, or a system, without hard links
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
            flush_names(self._descriptor)


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
def folder_in(root: str, components: List[str], is_synced: bool = True,
              made: Optional[List[str]] = None) -> Iterator[Folder]:
    """A folder below another, its parents made one by one, never through a link.

    New ones are flushed, unless all is to be flushed together later (`is_synced=False`), and are noted in `made`.
    """
    with contextlib.ExitStack() as stack:
        place = stack.enter_context(Folder.open(root))
        for component in components:
            place = stack.enter_context(place.child(component, is_synced))
            if place.is_new and made is not None:
                made.append(place.path)
        yield place


class LastFolder:
    """`folder_in` for many files one after the other: what was opened last stays open while its path leads there."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._components: List[str] = []
        self._place: Optional[Folder] = None
        self._status: Optional[os.stat_result] = None
        self._open = contextlib.ExitStack()

    def __enter__(self) -> LastFolder:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def at(self, components: List[str]) -> Folder:
        """This folder below the root, not flushed; it is open until another is asked for."""
        if self._place is None or components != self._components or not self._leads_there(self._place):
            self._open.close()
            self._place = None
            self._place = self._open.enter_context(folder_in(self._root, components, is_synced=False))
            self._components, self._status = components, os.lstat(self._place.path)
        else:
            self._place.is_new = False
        return self._place

    def _leads_there(self, place: Folder) -> bool:
        """Nobody moved or removed it meanwhile, or put a link in its place."""
        with contextlib.suppress(OSError):
            return self._status is not None and os.path.samestat(os.lstat(place.path), self._status)
        return False


def candidates_of(name: str) -> Iterator[str]:
    """The names that are tried one after the other."""
    stem, extension = os.path.splitext(name)
    return (name if number == 1 else f"{stem} ({number}){extension}" for number in range(1, CANDIDATES_MAX + 1))


def give_name(place: Folder, source: str, status: os.stat_result, name: str,
              is_same: Callable[[Folder, str], bool], is_synced: bool = True,
              make_way: Callable[[Folder, str], bool] = lambda place, name: False) -> Tuple[str, bool]:
    """Give a finished file, which was verified with this status, the first free name; stop at one that already holds
    the same content. What has a name may make way (`disk/updates.py`).
    """
    for candidate in candidates_of(name):
        try:
            place.take_in(source, candidate)
        except FileExistsError:
            if is_same(place, candidate):
                return candidate, True
            if not (make_way(place, candidate) and _is_taken_in(place, source, candidate)):
                continue
        _confirm(place, candidate, source, status)
        if is_synced:
            place.sync()
        return candidate, False
    raise LibraryError(ErrorKind.NAME, f"There are too many files called {shown(name)}.")


def _is_taken_in(place: Folder, source: str, name: str) -> bool:
    """Take it in where the name is free; somebody may have been faster."""
    try:
        place.take_in(source, name)
    except FileExistsError:
        return False
    return True


def _confirm(place: Folder, name: str, source: str, status: os.stat_result) -> None:
    """Check that what got the final name is the very file that was verified, and as it was then."""
    found = place.status(name)
    if fingerprint_of(found) == fingerprint_of(status) and (os.name == "nt" or os.path.samestat(found, status)):
        return
    if os.name == "nt" or os.path.samestat(found, status):
        place.give_back(name, source)
        raise LibraryError(ErrorKind.CHANGED, f"{shown(name)} was changed by another program before it had its name.")
    place.remove(name)
    raise LibraryError(ErrorKind.CHANGED, f"{shown(name)} was exchanged by another program; it is not kept.")
