"""What a person shared from elsewhere, kept between runs: a list of paths in the node's hidden folder.

The list is only a help, and whoever can write into the folder can write it: a copied folder may bring a stranger's. So
a list that is not this user's own is not read, each path in it is looked at as if it were typed, and what a person
would be asked about (a disk's root, a home folder, anything hidden, the system's own folders) is not shared again by
itself. Owned by the scanner's thread.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
from typing import Callable, List, NamedTuple, Sequence

from disk.access import open_regular, read_at, remove, write_anew
from protocol.content.names import HIDDEN
from protocol.content.troubles import ErrorKind, LibraryError, shown

SHARES_FILE = "shares.json"    # below the hidden folder
SHARES_MAX = 1000              # paths
SHARES_BYTES_MAX = 4 << 20     # a thousand of the longest paths
TOLD_MAX = 5                   # paths in the line that tells them; of more only the number
SYSTEM_FOLDERS = ("/bin", "/boot", "/dev", "/etc", "/lib", "/proc", "/root", "/run", "/sbin", "/sys", "/usr", "/var",
                  "/System", "/Library")


class Recalled(NamedTuple):
    """What was remembered, by what becomes of it."""

    shared: List[str]
    missing: List[str]         # looked at again in each pass
    refused: List[str]         # sentences


class Remembered:
    """The list on the disk, and what of it is believed."""

    def __init__(self, folder: str) -> None:
        self._path = os.path.join(folder, HIDDEN, SHARES_FILE)
        self._kept: List[str] = []

    def recall(self, check: Callable[[str], None]) -> Recalled:
        """The paths of the last run; `check` raises LibraryError for one that may not be shared."""
        recalled = Recalled([], [], [])
        for path in self._read(recalled.refused):
            refusal = why_not(path, check)
            if refusal:
                recalled.refused.append(refusal)
            else:
                (recalled.shared if os.path.lexists(path) else recalled.missing).append(path)
        self._kept = recalled.shared + recalled.missing
        return recalled

    def keep(self, paths: Sequence[str]) -> bool:
        """Have these remembered; False when that cannot be done."""
        if list(paths) == self._kept:
            return True
        try:
            if paths:
                data = json.dumps({"shared": list(paths)}, indent=1).encode("ascii")
                if len(paths) > SHARES_MAX or len(data) > SHARES_BYTES_MAX:
                    return False
                write_anew(self._path, data, is_flushed=True)
            else:
                remove(self._path)
        except OSError:
            return False
        self._kept = list(paths)
        return True

    def _read(self, refused: List[str]) -> List[str]:
        """The paths that are kept; none where the file is not there, not ours or damaged, which `refused` is told."""
        try:
            descriptor = open_regular(self._path)
        except OSError:
            return []
        try:
            if not _is_own(os.fstat(descriptor)):
                refused.append(f"{shown(self._path, 1000)} can be written by others, so what it lists is not shared.")
                return []
            data = read_at(descriptor, SHARES_BYTES_MAX, 0)
        except OSError:
            return []
        finally:
            os.close(descriptor)
        with contextlib.suppress(ValueError, RecursionError, TypeError, KeyError):
            paths = json.loads(data)["shared"]
            if isinstance(paths, list) and len(paths) <= SHARES_MAX and all(map(_is_path, paths)):
                return list(dict.fromkeys(paths))
        refused.append(f"{shown(self._path, 1000)} is damaged: what it listed is not shared, B path shares it again.")
        return []


def _is_path(path: object) -> bool:
    """Is it a path as this program writes it: absolute, and said without detours?"""
    try:
        os.fsencode(str(path))
    except UnicodeEncodeError:                  # half a character: this system has no such name
        return False
    return isinstance(path, str) and "\0" not in path and os.path.isabs(path) and os.path.normpath(path) == path


def _is_own(status: os.stat_result) -> bool:
    """Did this user write it, and can nobody else?"""
    if not hasattr(os, "getuid"):
        return True
    return status.st_uid == os.getuid() and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def why_not(path: str, check: Callable[[str], None]) -> str:
    """Why this is not shared again: it lies elsewhere than it says, needs a person's word, or `check` refuses it."""
    try:
        if is_delicate(path):
            return needs_a_word(path).sentence
        if os.path.realpath(path) != path:
            return f"{shown(path, 1000)} is a link now, so it is not shared again."
        if os.path.lexists(path):
            check(path)
    except LibraryError as error:
        return error.sentence
    except OSError as error:
        return f"{shown(path, 1000)} cannot be read: {(error.strerror or 'refused').lower()}."
    return ""


def needs_a_word(path: str) -> LibraryError:
    """Why it is not shared again."""
    return LibraryError(ErrorKind.DENIED, f"{shown(path, 1000)} is not shared again by itself: B shares it.")


def is_delicate(path: str) -> bool:
    """A disk's root, a home folder or what holds it, anything hidden, the system's own.

    More than B asks about (`danger_of` in prompt/paths.py, which the scanner asks besides): here nobody is asked, and
    the list may be a stranger's.
    """
    home = os.path.realpath(os.path.expanduser("~"))
    is_hidden = any(part.startswith(".") for part in path.split(os.sep))
    holds_home = os.path.join(home, "").startswith(os.path.join(path, ""))
    is_system = any(path == folder or path.startswith(folder + "/") for folder in SYSTEM_FOLDERS)
    is_inside_home = home != os.sep and path.startswith(os.path.join(home, ""))
    return os.path.dirname(path) == path or os.path.ismount(path) or is_hidden or holds_home or (
        is_system and not is_inside_home)


def told(recalled: Recalled) -> List[str]:
    """What the person is told of it."""
    sentences = []
    if recalled.shared:
        sentences.append(f"shared again, as B had it: {_named(recalled.shared)}")
    if recalled.missing:
        sentences.append(f"not there now, and shared again when it is: {_named(recalled.missing)}")
    return sentences + recalled.refused[:TOLD_MAX]


def _named(paths: Sequence[str]) -> str:
    more = f" and {len(paths) - TOLD_MAX} more" if len(paths) > TOLD_MAX else ""
    return ", ".join(shown(path, 200) for path in paths[:TOLD_MAX]) + more
