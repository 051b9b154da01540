"""A shelf: one hidden folder of contents, each a file named by its id with its map beside it.

There are two, of what is on its way (`disk/parts.py`) and of what is complete and kept for others (`disk/cache.py`).
Owned by the disk thread, like the library that uses it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections import OrderedDict
from typing import NamedTuple, Optional

from disk.access import OpenFiles, create, is_link, making, read_into, remove, stamp_at, stamp_of
from disk.accounts import Accounts
from disk.maps import MapWriter, aside_of
from protocol.buffers import BufferPool
from protocol.content.parts import Content, Stamp
from protocol.content.troubles import ErrorKind, LibraryError, speaking
from protocol.fields import Buffer


class Means(NamedTuple):
    """What all shelves of one library share."""

    files: OpenFiles
    buffers: BufferPool
    maps: MapWriter
    accounts: Accounts


class Shelf:
    """The contents of one hidden folder. What is taken off is counted for nobody any more, and its files are gone."""

    def __init__(self, folder: str, means: Means) -> None:
        self.folder = folder
        self.contents: OrderedDict[bytes, Content] = OrderedDict()     # the least recently used first
        self._files, self._buffers, self._maps, self._accounts = means

    def make(self) -> None:
        """Make the folder, if it is not there."""
        make_private(self.folder)

    def is_there(self) -> bool:
        """Whether the folder is there, and was not taken away."""
        return os.path.isdir(self.folder)

    # ---- what stands on it

    def put(self, content: Content) -> None:
        """A content stands here from now on, as the last."""
        self.contents[content.file_id] = content

    def use(self, file_id: bytes) -> None:
        """It was used just now."""
        self.contents.move_to_end(file_id)

    def note_use(self, file_id: bytes) -> None:
        """The same, so that it outlives this process."""
        with contextlib.suppress(OSError):
            os.utime(self._map_path(file_id))

    def take_off(self, file_id: bytes) -> bool:
        """Drop a content with its files; whether it stood here."""
        was_here = self.contents.pop(file_id, None) is not None
        if was_here:
            self._accounts.gone(file_id)
        self.delete(file_id)
        return was_here

    def forget_all(self) -> None:
        """The folder was taken away, with all that stood here."""
        for file_id in list(self.contents):
            self._accounts.gone(file_id)
        self.contents.clear()

    # ---- its files

    def path(self, file_id: bytes) -> str:
        """Where the file of a content is."""
        return os.path.join(self.folder, file_id.hex())

    def _map_path(self, file_id: bytes) -> str:
        return self.path(file_id) + ".map"

    def stamp(self, file_id: bytes) -> Optional[Stamp]:
        """The file as it stands there now, None if it does not."""
        return stamp_at(self.path(file_id))

    def written_at(self, file_id: bytes) -> float:
        """When its file was last written; long ago if it is not there."""
        found = self.stamp(file_id)
        return found[1] / 1e9 if found is not None else 0.0

    def delete_strays(self, before: float) -> None:
        """Remove what stands for nothing here, such as files without a map, and was last written before then."""
        known = {file_id.hex() for file_id in self.contents}
        for name in os.listdir(self.folder):
            path = os.path.join(self.folder, name)
            with contextlib.suppress(OSError):
                if name.partition(".")[0] not in known and os.lstat(path).st_mtime < before:
                    remove(path)

    def open(self, file_id: bytes) -> int:
        """A descriptor of the file, kept open."""
        return self._files.get(self.path(file_id), write=True)

    def open_stamp(self, file_id: bytes) -> Stamp:
        """The file that is kept open, as it is now."""
        return stamp_of(os.fstat(self.open(file_id)))

    def close(self, file_id: bytes) -> None:
        """The file is opened anew when it is needed: it may be another one."""
        self._files.drop(self.path(file_id))

    def create(self, file_id: bytes) -> None:
        """Make the file anew, empty."""
        self.delete(file_id)
        path = self.path(file_id)
        self._files.put(path, create(path))

    def read(self, file_id: bytes, start: int, length: int) -> Buffer:
        """Bytes of the file as it is; CHANGED where it ends before."""
        with speaking("read a kept file"):
            data = read_into(self._buffers, self.open(file_id), length, start)
        if len(data) != length:
            raise LibraryError(ErrorKind.CHANGED, "The kept file is shorter than it was.")
        return data

    def delete(self, file_id: bytes) -> None:
        """Remove the file and its map, if they are there."""
        for path in (self.path(file_id), self._map_path(file_id)):
            self._files.drop(path)
            remove(path)

    def take_in(self, content: Content, source: str) -> None:
        """Move a complete file here, its map first: a file without one is not believed at a start."""
        self._files.drop(source)
        self.write_map(content)
        os.replace(source, self.path(content.file_id))

    # ---- its maps

    def write_map(self, content: Content) -> None:
        """Write the map of a content anew."""
        path = self._map_path(content.file_id)
        self._files.drop(path)
        self._maps.write(content, path)

    def has_map(self, file_id: bytes) -> bool:
        """Whether the map is there, and was not taken away."""
        return os.path.lexists(self._map_path(file_id))

    def open_map(self, file_id: bytes) -> int:
        """A descriptor of the map, kept open."""
        return self._files.get(self._map_path(file_id), write=True)

    def close_map(self, file_id: bytes) -> None:
        """The map is opened anew when it is needed."""
        self._files.drop(self._map_path(file_id))

    def remove_aside(self, file_id: bytes) -> None:
        """There is a good map again: the one that could not be read is not needed."""
        remove(aside_of(self._map_path(file_id)))


def make_private(path: str) -> None:
    """Make a folder for this user alone, if it is not there; OSError where a link or a file stands in its place."""
    with contextlib.suppress(FileExistsError), making(path):
        os.mkdir(path, 0o700)
    status = os.lstat(path)
    if is_link(status) or not stat.S_ISDIR(status.st_mode):
        raise OSError(errno.ENOTDIR, "not a folder", path)
