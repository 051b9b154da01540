"""What sharers have told beside the contents that are on their way here: each file gets it before it has its name.

Owned by the disk thread, like the library that uses it.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Dict, List, Optional

from protocol.content.listing import FolderEntry
from protocol.content.traits import Traits, decode_traits
from protocol.fields import WireError
from protocol.latest import Latest

TOPS_MAX = 64                  # files and folders on their way at once, of which it is remembered


class Expected:
    """The traits of files by the names that they will have."""

    def __init__(self) -> None:
        self._files: Latest[str, Traits] = Latest(TOPS_MAX)
        self._folders: OrderedDict[str, Dict[str, Traits]] = OrderedDict()
        self._rest: Dict[str, List[Traits]] = {}        # of those with other names, until these are known

    def of(self, name: str) -> Optional[Traits]:
        """What was told of the file that is to have this name now; of one by itself it is said once."""
        top, _, path = name.partition("/")
        return self._folders.get(top, {}).get(path) if path else self._files.pop(top, None)

    def file(self, name: str, told: bytes) -> None:
        """A file comes; what makes no sense of what is told is as if it was not told."""
        traits = _sensible(told, 1)
        self.forget(name)
        if traits:
            self._files.put(name, traits[0])

    def folder(self, name: str, entries: List[FolderEntry], told: bytes) -> None:
        """The same of a folder with this listing."""
        paths = [entry.path for entry in entries if not entry.is_folder]
        traits = _sensible(told, len(paths))
        self.forget(name)
        self._folders[name] = dict(zip(paths, traits))
        self._rest[name] = traits[len(paths):]
        while len(self._folders) > TOPS_MAX:
            self.forget(next(iter(self._folders)))

    def more(self, name: str, entries: List[FolderEntry]) -> None:
        """And of those files in it whose names not all can keep."""
        paths = [entry.path for entry in entries if not entry.is_folder]
        self._folders.get(name, {}).update(zip(paths, self._rest.pop(name, ())))

    def forget(self, name: str) -> None:
        """It is here, or comes no more."""
        self._files.pop(name, None)
        self._folders.pop(name, None)
        self._rest.pop(name, None)


def _sensible(told: bytes, file_count: int) -> List[Traits]:
    try:
        return decode_traits(told, file_count)[1]
    except WireError:
        return []
