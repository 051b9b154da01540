"""Updates: a file that this node fetched, and that nobody changed here, gives way to its new version.

    way_for   is what has the name still the version that was fetched under it, from who gives the new one? It is hashed
    make      at the last moment it is moved aside, and looked at there: is it the file that was hashed?
    settle    hashed once more there: what somebody wrote into it at the very moment comes back, beside the new one

Nothing is written over or removed under a name of the person's (THREATS: A05). What was put aside lies in
`.node/replaced`, up to a bound; the oldest goes first.

Owned by the disk thread, like the library that uses it.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from typing import Iterator, List, NamedTuple, Optional, Tuple

from disk.access import digest_range, fingerprint_of, no_tick, open_regular, remove
from disk.fetched import FetchedNames, Version
from disk.looking import SLICE_BYTES
from disk.places import Folder, candidates_of, folder_in
from disk.room import disk_of
from disk.shelf import make_private
from disk.steps import Steps
from protocol.content.names import HIDDEN
from protocol.content.parts import Origin
from protocol.content.pieces import GIB, identity_of, piece_count_of, piece_length, piece_size_of
from protocol.content.shares import Fingerprint
from protocol.content.troubles import is_short

REPLACED_FOLDER = "replaced"   # below the hidden folder
REPLACED_BYTES_MAX = GIB
REPLACED_PERCENT = 5           # of the disk, if that is less
REPLACED_FILES_MAX = 1000
NUMBERED = re.compile("[0-9a-f]{8}-", re.ASCII)     # how names there begin

# What is said of a file that keeps its name, so that the new one is beside it.
CHANGED = "was changed here"
ANOTHER = "is another file"
OTHERS = "is a version of somebody else"
TOO_LARGE = "is too large to be put aside"
STUCK = "cannot be put aside"


class Old(NamedTuple):
    """The version that gives way."""

    name: str
    file_id: bytes
    fingerprint: Fingerprint


class Updates:
    """What was fetched under which name, and the place for what gave way."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.fetched = FetchedNames(root)
        self._aside = os.path.join(root, HIDDEN, REPLACED_FOLDER)
        self._kept: Optional[List[Tuple[str, int]]] = None     # names there with their sizes, the oldest first
        self._number = 0               # of the last name there

    def way_for(self, parents: List[str], name: str, origin: Optional[Origin]) -> Steps[Way]:
        """How a new version may come to the name. `origin`: whence; None if no person asked for it."""
        why = ""
        for candidate in candidates_of(name) if origin is not None else ():
            path = os.path.join(self.root, *parents, candidate)
            if not os.path.lexists(path):
                break
            found, version = None, self.fetched.find("/".join((*parents, candidate)))
            reason = self._why_not(version, name, origin)
            if not reason and version is not None:
                found = yield from fingerprint_if(path, version.file_id, version.size)
                if found is not None:
                    return Way(self, parents, Old(candidate, version.file_id, found), "")
            why = why or reason or CHANGED
        return Way(self, parents, None, why)

    def _why_not(self, version: Optional[Version], name: str, origin: Optional[Origin]) -> str:
        if version is None or origin is None or version.asked != name:
            return ANOTHER
        if not version.gives_way_to(origin):
            return OTHERS
        return TOO_LARGE if version.size > self._bytes_max() else ""

    def _bytes_max(self) -> int:
        """What all that was put aside may take."""
        return min(REPLACED_BYTES_MAX, disk_of(self.root).total * REPLACED_PERCENT // 100)

    def note(self, parents: List[str], final: str, asked: str, content: Tuple[bytes, int],
             origin: Optional[Origin]) -> None:
        """This content was fetched under this name."""
        if origin is not None:
            self.fetched.note("/".join((*parents, final)), Version(*content, asked, origin.givers))

    # ---- what was put aside

    def put_aside(self, place: Folder, old: Old) -> Optional[str]:
        """Where it lies now; None if it is not that file any more, or cannot be moved: then all is as it was."""
        try:
            make_private(self._aside)
            target = self._free_name(old.name)
            place.give_back(old.name, target)
        except (OSError, NotImplementedError):
            return None
        if _fingerprint_at(target) == old.fingerprint:
            return target
        self.put_back(place, old.name, target)
        return None

    def _free_name(self, name: str) -> str:
        """A name there that sorts behind all others; with its number it is at most 249 bytes long."""
        numbers = [int(one[:8], 16) for one, _ in self._looked() if NUMBERED.match(one)]
        self._number = max([self._number, *numbers[-1:]]) + 1
        path = os.path.join(self._aside, f"{self._number:08x}-{name}")
        if os.path.lexists(path):
            raise FileExistsError(path)
        return path

    @staticmethod
    def put_back(place: Folder, name: str, source: str) -> Optional[str]:
        """Give what was moved aside its name again, or the first free one beside it; None if it stays there."""
        for candidate in candidates_of(name):
            try:
                if stat.S_ISDIR(os.lstat(source).st_mode):
                    if os.path.lexists(os.path.join(place.path, candidate)):
                        continue
                    os.rename(source, os.path.join(place.path, candidate))
                else:
                    place.take_in(source, candidate)
                return candidate
            except FileExistsError:
                continue
            except OSError:
                return None
        return None

    def count(self, path: str) -> None:
        """One more was put aside: the oldest go that are too many."""
        kept, name = self._looked(), os.path.basename(path)
        kept[:] = [one for one in kept if one[0] != name] + [(name, os.lstat(path).st_size)]
        while len(kept) > REPLACED_FILES_MAX or sum(size for _, size in kept) > self._bytes_max():
            remove(os.path.join(self._aside, kept.pop(0)[0]))

    def _looked(self) -> List[Tuple[str, int]]:
        """What is there, of earlier runs too."""
        if self._kept is None:
            self._kept = []
            for name in sorted(os.listdir(self._aside)):
                with contextlib.suppress(OSError):
                    self._kept.append((name, os.lstat(os.path.join(self._aside, name)).st_size))
        return self._kept


class Way:
    """The way of one new version to its name. `why`: why it got another one, if it did."""

    def __init__(self, updates: Updates, parents: List[str], old: Optional[Old], why: str) -> None:
        self._updates = updates
        self._parents = parents
        self._old = old
        self.why = why
        self.aside = ""                # where the old version lies, if it gave way
        self.written = ""              # the name of what somebody wrote into it at that moment

    @property
    def old_id(self) -> bytes:
        """The version that gave way."""
        return self._old.file_id if self.aside and self._old is not None else b""

    def make(self, place: Folder, name: str) -> bool:
        """Is the name free now? Only if the old version is still there, and could be put aside."""
        if self._old is None or name != self._old.name or self.aside:
            return False
        self.aside = self._updates.put_aside(place, self._old) or ""
        if not self.aside:
            self.why = self.why or (CHANGED if _is_other(place, self._old) else STUCK)
        return bool(self.aside)

    @contextlib.contextmanager
    def undone_by_failure(self, place: Folder) -> Iterator[None]:
        """Where the new version does not come to its name after all, the old one has it again."""
        try:
            yield
        except BaseException:
            if self.aside and self._old is not None:
                self._updates.put_back(place, self._old.name, self.aside)
            raise

    def settle(self) -> Steps[None]:
        """The new version has its name: is what was put aside really the old one?"""
        if not self.aside or self._old is None:
            return
        try:
            found = yield from fingerprint_if(self.aside, self._old.file_id, self._old.fingerprint[0])
            if found is not None:
                self._updates.count(self.aside)
                return
            with folder_in(self._updates.root, self._parents, False) as place:
                name = self._updates.put_back(place, self._old.name, self.aside)
                if name is not None:
                    self.aside, self.why, self.written = "", CHANGED, "/".join((*self._parents, name))
        except OSError:                # it stays where it is, and is told
            return


def _fingerprint_at(path: str) -> Optional[Fingerprint]:
    """Of an ordinary file; None of anything else."""
    status = os.lstat(path)
    return fingerprint_of(status) if stat.S_ISREG(status.st_mode) else None


def _is_other(place: Folder, old: Old) -> bool:
    """Does something else bear its name, or nothing?"""
    try:
        return fingerprint_of(place.status(old.name)) != old.fingerprint
    except OSError:
        return True


def fingerprint_if(path: str, file_id: bytes, size: int) -> Steps[Optional[Fingerprint]]:
    """The fingerprint of a file that has this very content; None if it has another, or cannot be read."""
    try:
        descriptor = open_regular(path)
    except OSError as error:
        if is_short(error):                         # which says nothing about the file
            raise
        return None
    try:
        found, digests, hashed = fingerprint_of(os.fstat(descriptor)), bytearray(), 0
        if found[0] != size:
            return None
        for index in range(piece_count_of(size)):
            length = piece_length(size, index)
            digests += digest_range(descriptor, index * piece_size_of(size), length, no_tick)
            hashed += length
            if hashed >= SLICE_BYTES:
                hashed = 0
                yield
        is_same = identity_of(size, bytes(digests)) == file_id and fingerprint_of(os.fstat(descriptor)) == found
        return found if is_same else None
    except OSError:                                 # it cannot be read to its end: it stays
        return None
    finally:
        os.close(descriptor)
