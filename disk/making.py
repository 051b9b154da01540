"""The empty folders of a listing: made in slices, and removed again in slices when that fails or nobody wants them.

Owned by the disk thread, like the library that uses it.
"""

from __future__ import annotations

import contextlib
import os
from functools import partial
from typing import Dict, Iterable, List, Optional

from disk.flushing import Unflushed
from disk.places import folder_in
from disk.steps import Operations, Steps
from protocol.content.names import check_name
from protocol.content.troubles import ErrorKind, LibraryError, shown, speaking

FOLDERS_AT_ONCE = 256          # made or removed in one slice, some milliseconds: others wait for the disk, too
MAKING, UNMAKING = "make folders", "unmake folders"
SPOILED_KINDS = (ErrorKind.NAME, ErrorKind.LINK, ErrorKind.DENIED)     # of one place; the rest can be made


class FolderMaking:
    """Folders below a root that are made together: all of them, or none is left."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.made: List[str] = []      # by this call, parents before what is in them
        self.troubles: List[str] = []  # of single places, that spoil nothing else

    def make(self, names: Iterable[str]) -> Steps[List[str]]:
        """Make them, the first with all others in it; what cannot be made for a reason of its own is told.

        Another failure removes what was made.
        """
        failure: Optional[LibraryError] = None
        for count, name in enumerate(names, 1):
            try:
                self._make_one(name)
            except LibraryError as error:
                if error.kind not in SPOILED_KINDS or count == 1:
                    failure = error
                    break
                self.troubles.append(error.sentence.rstrip("."))
            if count % FOLDERS_AT_ONCE == 0:
                yield
        if failure is not None:
            yield from self.unmake()
            raise failure
        return self.troubles

    def _make_one(self, name: str) -> None:
        components = check_name(name).split("/")
        with speaking(f"make the folder {shown(name)}"), folder_in(self.root, components, False, self.made):
            pass

    def unmake(self) -> Steps[None]:
        """Remove what was made and is still empty."""
        count = 0
        while self.made:
            with contextlib.suppress(OSError):  # the person has put something into it, or removed it
                os.rmdir(self.made.pop())
            count += 1
            if count % FOLDERS_AT_ONCE == 0:
                yield


class Makings:
    """The folders that are in the making, by the listing that names them."""

    def __init__(self, root: str, operations: Operations, unflushed: Unflushed) -> None:
        self._root = root
        self._operations = operations
        self._unflushed = unflushed
        self._makings: Dict[bytes, FolderMaking] = {}

    def make_one(self, name: str) -> str:
        """Make an empty folder; returns its path."""
        components = check_name(name).split("/")
        with speaking(f"make the folder {shown(name)}"), folder_in(self._root, components, False) as place:
            self._unflushed.add(*[place.path] * place.is_new)
            return place.path

    def make(self, listing_id: bytes, names: Iterable[str]) -> Optional[List[str]]:
        """Make them all or none; what cannot be made for its own reason is told. None: to be called again."""
        making = self._makings.setdefault(listing_id, FolderMaking(self._root))
        try:
            troubles = self._operations.go_on(listing_id, MAKING, partial(making.make, names))
        except LibraryError:
            self._makings.pop(listing_id, None)
            raise
        if troubles is not None:
            self._unflushed.add(*self._makings.pop(listing_id).made)
        return troubles

    def unmake(self, listing_id: bytes) -> bool:
        """Remove what an interrupted `make` has made; False: to be called again."""
        making = self._makings.get(listing_id)
        if making is None:
            return True
        self._operations.end_one(listing_id, MAKING)
        return bool(self._operations.go_on(listing_id, UNMAKING, partial(self._unmaking, listing_id, making)))

    def _unmaking(self, listing_id: bytes, making: FolderMaking) -> Steps[bool]:
        yield from making.unmake()
        self._makings.pop(listing_id, None)
        return True
