"""The path that a person means: as it is typed, or as a file manager or another terminal pastes it.

    /home/bo/my talk.pdf            as it is: also with blanks
    "my talk.pdf"  'my talk.pdf'    in quotes
    my\\ talk.pdf                    as a shell of Unix has it
    file:///home/bo/my%20talk.pdf   as a file manager has it
    'a.pdf' 'b c.pdf'               several, where each of them is there

A path that is there as it was typed is always meant as it was typed. And some paths hold what hardly anybody wants to
share with a room: keys, a whole home, the settings of the system, a whole disk. `danger_of` tells which.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from typing import Any, Iterator, List, Optional, Sequence

from protocol.content.names import HIDDEN
from protocol.looks import safe_text

KEYS = frozenset((
    ".ssh", ".gnupg", ".aws", ".azure", ".kube", ".docker", ".password-store", ".netrc", ".pgpass", ".git-credentials",
    ".mozilla", ".thunderbird", "id_rsa", "id_dsa", "id_ecdsa", "id_ed25519", "keychains", "keyrings",
))  # fmt: skip
SYSTEM_FOLDERS = ("/etc", "/proc", "/sys", "/dev", "/boot", "/root", "/var/lib")
OF_SYSTEM = "belongs to the system, and may hold keys or passwords"
MEMORY_DISK = "/dev/shm"        # of Linux: where programs and persons put what is soon over
SYSTEM_VARIABLES = ("SystemRoot", "ProgramData", "APPDATA", "LOCALAPPDATA")      # of Windows: where such folders are
HOMES = ("/home", "/Users")


def found_paths(text: str) -> Optional[List[str]]:
    """The absolute paths that a text means, of things that are there; None where it means none."""
    for reading in _readings(text):
        if not is_missing(os.path.expanduser(reading)):
            return [os.path.abspath(os.path.expanduser(reading))]
    several = [next((one for one in map(os.path.expanduser, _readings(word)) if not is_missing(one)), None)
               for word in _words(text)]
    found = [os.path.abspath(path) for path in several if path is not None]
    return found if found and len(found) == len(several) else None


def _readings(text: str) -> Iterator[str]:
    yield text
    text = text.strip()
    yield unquoted(text)
    if unquoted(text).lower().startswith("file:"):
        yield _of_address(unquoted(text))
    if os.name != "nt":                         # there a backslash parts folders
        yield re.sub(r"\\(.)", r"\1", text)


def _of_address(text: str) -> str:
    """The path of `file:///home/bo/a%20b`, with or without a host."""
    from urllib.parse import unquote
    path = unquote(text[len("file:"):], errors="surrogateescape")
    if path.startswith("//"):
        _, slash, path = path[2:].partition("/")        # behind the host
        path = slash + path
    return path[1:] if re.match("/[A-Za-z]:", path) else path


def _words(text: str) -> List[str]:
    """Several paths beside each other, each in quotes or with its blanks escaped, or one on each line."""
    words = [line for line in text.splitlines() if line.strip()]
    return words if len(words) > 1 else re.findall(r""""[^"]+"|'[^']+'|(?:\\.|[^\s\\])+""", text)


def unquoted(text: str) -> str:
    """A name or path without the quotes around it that a shell's habit or a drag-and-drop leaves."""
    return text[1:-1] if len(text) > 2 and text[0] == text[-1] and text[0] in "\"'" else text


def is_missing(path: str) -> bool:
    """Whether nothing is there; what may not be looked at is not missing."""
    try:
        os.lstat(path)
    except OSError as error:
        return isinstance(error, (FileNotFoundError, NotADirectoryError))
    except ValueError:                          # a zero byte: no path at all
        return True
    return False


# ---- what is shared only if it is meant

def danger_of(path: str) -> str:
    """What a person would share with this path and hardly means to, in words; empty if it is nothing like that."""
    real, home = os.path.realpath(path), os.path.realpath(os.path.expanduser("~"))
    whole = _danger_of_whole(real, home)
    if whole:
        return whole
    if os.path.ismount(real):
        return "is a whole disk"
    inner = os.path.relpath(real, home) if _is_inside(real, home) else ""
    if inner.startswith("."):
        return "is one of the hidden files of a home folder, where programs keep keys and settings"
    if any(_is_inside(real, folder) for folder in _system_folders(home)) and not _is_inside(real, MEMORY_DISK):
        return OF_SYSTEM
    return ""


def danger_of_folder(folder: str) -> str:
    """The same of what `--folder` names, where a disk beside the system's, or a part of what is private, is meant as it
    is. What is new, empty or was such a folder before gives nothing away unmeant.
    """
    with contextlib.suppress(OSError):          # it is not there, or opening it will tell what is the matter
        there = os.listdir(folder)
        if there and HIDDEN not in there:
            real, home = os.path.realpath(folder), os.path.realpath(os.path.expanduser("~"))
            return _danger_of_whole(real, home) or (OF_SYSTEM if real in _system_folders(home) else "")
    return ""


def _danger_of_whole(real: str, home: str) -> str:
    if os.path.dirname(real) == real:
        return "is a whole disk"
    if os.path.isdir(real) and (real == home or os.path.dirname(real) in HOMES):
        return "is a whole home folder, with all that is private in it"
    if _is_inside(home, real):
        return "has whole home folders in it"
    if not KEYS.isdisjoint(part.lower() for part in _parts(real)):
        return "holds keys or passwords"
    return ""


def why_refused(path: str, folder: str) -> str:
    """Why it cannot be shared whatever a person says, as the scanner has it; empty where nothing is seen against it.

    `folder`: the shared one.
    """
    from protocol.content.troubles import shown  # which the first line on the screen does not wait for
    real, folder = os.path.realpath(path), os.path.realpath(folder)
    try:
        mode = os.stat(real).st_mode
    except OSError:
        return ""
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        return f"{shown(real, 1000)} is no ordinary file or folder."
    if not os.access(real, os.R_OK):
        return f"{shown(real, 1000)} cannot be read: this user has no permission."
    if _is_inside(folder, real):
        return f"{shown(real, 1000)} cannot be shared as a whole: {shown(folder, 1000)} in it is shared already."
    return ""


def _parts(path: str) -> Sequence[str]:
    return re.split(r"[/\\]" if os.name == "nt" else "/", path)


def _system_folders(home: str) -> Iterator[str]:
    for folder in (*SYSTEM_FOLDERS, *map(os.environ.get, SYSTEM_VARIABLES)):
        real = os.path.realpath(folder) if folder else ""
        if os.path.exists(real) and not _is_inside(home, real):
            yield real


def _is_inside(path: str, folder: str) -> bool:
    """Whether a real path is the folder or in it."""
    path, folder = os.path.normcase(path), os.path.normcase(folder)
    return path == folder or path.startswith(os.path.join(folder, ""))


# ---- how a path is said

def relative_path(path: str) -> str:
    """A local path as short as it can be said from here."""
    with contextlib.suppress(ValueError, OSError):      # another drive; the current folder is gone
        relative = os.path.relpath(path)
        return path if relative.startswith("..") else relative
    return path


def short_path(path: Any) -> str:
    """The same, safe to print."""
    return safe_text(relative_path(os.fspath(path)), 4096)


def unasked_line(path: str, danger: str) -> str:
    """Why a path is not shared where nobody can be asked."""
    return f"{short_path(path)} {danger}: it is shared only by who can be asked whether that is meant"
