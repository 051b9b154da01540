"""What a person shares from elsewhere: which paths, whether they may be, and what is remembered of them between runs.

`add` and `find` are for any thread: they check, and what follows is done by `take` and `drop`, which are, like all
else, the scanner's thread's.
"""

from __future__ import annotations

import os
import stat
from typing import Callable, List, Tuple

from disk.access import open_regular
from disk.passing import Passing
from disk.remembered import Remembered, needs_a_word, told, why_not
from protocol.content.names import check_name
from protocol.content.troubles import ErrorKind, LibraryError, meaning, shown


class Elsewhere:
    """The paths outside of the shared folder."""

    def __init__(self, folder: str, passing: Passing, danger_of: Callable[[str], str]) -> None:
        """`danger_of` tells why a person would be asked whether a path is meant to be shared; else it is empty."""
        self.paths: List[str] = []
        self._folder = folder
        self._passing = passing
        self._danger_of = danger_of
        self._coming: List[str] = []  # paths of `add` that are still to be taken
        self._missing: List[str] = []  # shared from elsewhere, and not there
        self._remembered, self._has_recalled = Remembered(folder), False
        self._noted: Tuple[str, ...] = ()  # of both: what is remembered

    # ---- for any thread

    def add(self, path: str) -> str:
        """Its real path, to be taken; LibraryError for what may not be shared, or cannot be read."""
        real = os.path.realpath(path)
        self._check(real)
        self._coming.append(real)
        return real

    def find(self, name: str, path: str) -> str:
        """The real path of what `add` has shared, by its name or path.

        LibraryError says what else it is: it lies in the shared folder, it is a part of something, it is not shared.
        """
        real, paths = os.path.realpath(path), list(dict.fromkeys([*self.paths, *self._coming, *self._missing]))
        found = [real] if real in paths else [each for each in paths if os.path.basename(each) == name]
        if len(found) == 1:
            return found[0]
        if found:
            several = " and ".join(shown(each, 1000) for each in found)
            raise LibraryError(ErrorKind.DENIED, f"{several} are shared; U and one of the paths says which.")
        folder = os.path.realpath(self._folder)
        inside = next((each for each in paths if _is_inside(real, each)), None)
        if _is_inside(real, folder) or os.path.lexists(os.path.join(folder, name)):
            where = f"move it out of {shown(folder, 1000)}, and it is shared no longer."
            raise LibraryError(ErrorKind.DENIED, f"{shown(name)} lies in the shared folder: {where}")
        if inside:
            whole = f"{shown(inside, 1000)}; U {shown(os.path.basename(inside))} ends all of that."
            raise LibraryError(ErrorKind.DENIED, f"{shown(name)} is shared as a part of {whole}")
        raise LibraryError(ErrorKind.DENIED, f"{shown(name)} is not shared by you; B lists what is.")

    def _check(self, real: str) -> None:
        """LibraryError for what may not be shared, or cannot be read."""
        try:
            _check_readable(real)
        except OSError as error:
            kind, cause = meaning(error)
            raise LibraryError(kind, f"{shown(real, 1000)} cannot be read: {cause}.") from error
        self._check_apart(real)
        check_name(os.path.basename(real))

    def _check_apart(self, real: str) -> None:
        """Refuse what overlaps the shared folder: one file has one name here."""
        folder, path = os.path.realpath(self._folder), shown(real, 1000)
        if _is_inside(real, folder):
            raise LibraryError(ErrorKind.DENIED, f"{path} is shared already.")
        if _is_inside(folder, real):
            where = f"{shown(folder, 1000)} in it is shared already."
            raise LibraryError(ErrorKind.DENIED, f"{path} cannot be shared as a whole: {where}")

    # ---- for the owner

    def take(self, path: str) -> None:
        """`add` has found that it may be shared: from the next pass on it is."""
        self._coming.remove(path)
        self._share(path)

    def drop(self, path: str) -> None:
        """It is shared no longer."""
        for paths in (self.paths, self._missing):
            if path in paths:
                paths.remove(path)  # the next pass finds it gone, and forgets it

    def _share(self, path: str) -> None:
        if path not in self.paths:
            self.paths.append(path)

    def recall(self) -> None:
        """What was shared from elsewhere when this node last ran is shared again."""
        if self._has_recalled:
            return
        self._has_recalled = True
        recalled = self._remembered.recall(self._check_unasked)
        for path in recalled.shared:
            self._share(path)
        self._missing, self._noted = recalled.missing, (*self.paths, *recalled.missing)
        self._passing.warn(*told(recalled))

    def look_for_missing(self) -> None:
        """What was shared from elsewhere and was not there is shared again when it is, if it may be."""
        self._missing = [path for path in self._missing if path not in self.paths]
        for path in filter(os.path.lexists, list(self._missing)):
            self._missing.remove(path)
            refusal = why_not(path, self._check_unasked)
            if refusal:
                self._passing.warn(refusal)
            else:
                self._share(path)

    def note(self) -> None:
        """Have the next run know what is shared from elsewhere; it is told where that cannot be."""
        paths = *self.paths, *self._missing
        if paths != self._noted:
            self._noted = paths
            if not self._remembered.keep(paths):
                self._passing.warn("what B shares lasts until Q: it cannot be noted in the folder")

    def _check_unasked(self, real: str) -> None:
        """`_check`, of what is shared again with no word of a person's."""
        if self._danger_of(real):
            raise needs_a_word(real)
        self._check(real)


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
        os.close(open_regular(path))
    else:
        raise LibraryError(ErrorKind.DENIED, f"{shown(path, 1000)} is no ordinary file or folder.")
