"""The maps of a hidden folder of contents: written, and what there is of them at a start, with and without their files.

A stray costs only itself, and what is not understood is put aside, never removed with what it may belong to.
Owned by the disk thread, like the library that uses it.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import struct
import time
from typing import Iterator, Optional, Tuple

from disk.access import open_regular, remove, write_anew
from protocol.content.parts import Content, decode_map, encode_map
from protocol.content.pieces import KIB, MIB
from protocol.content.troubles import LibraryError, is_short

MAP_BYTES_MAX = 256 * KIB      # header, 4096 digests and as many records
MAP_FLUSH_SIZE_MIN = MIB       # a smaller content is fetched again sooner than its map is flushed ...
MAP_FLUSH_SHARE = 20           # ... and those flushes take a twentieth of the time at most: a folder has many files
ASIDE = "bad-"                 # before the name of a map that cannot be read: no version takes it for one, nor its part


class MapWriter:
    """Writes maps anew, and flushes as many of them as the time allows."""

    def __init__(self) -> None:
        self._flush_from = -math.inf       # when a map may be flushed again that replaces none

    def write(self, content: Content, path: str) -> None:
        """Write a map beside the old one, then replace that one; later records are added one by one.

        It is flushed where there is something to lose: what it claims is hashed at a start, whenever it was flushed.
        """
        data = encode_map(content)
        started = time.monotonic()
        is_replaced = content.verified_count and os.path.lexists(path)
        is_flushed = is_replaced or (content.size >= MAP_FLUSH_SIZE_MIN and started >= self._flush_from)
        write_anew(path, data, bool(is_flushed))
        if is_flushed:
            now = time.monotonic()
            self._flush_from = now + MAP_FLUSH_SHARE * (now - started)
        content.mapped(len(data))


def load_maps(folder: str, is_kept: bool) -> Iterator[Tuple[float, Content]]:
    """The contents of a hidden folder with the time of their last use.

    `is_kept`: a file without a good map stays, for its digests come again with the manifest; else it goes.
    """
    names = set(os.listdir(folder))
    for name in sorted(names):
        path = os.path.join(folder, name)
        file_id, end = name[:64], name[64:]
        if not re.fullmatch("[0-9a-f]{64}", file_id) or end not in ("", ".map"):
            if not (name.startswith(ASIDE) and name[len(ASIDE):].partition(".")[0] in names):
                remove(path)
        elif end and file_id not in names:
            remove(path)
        elif end:
            loaded = _load(path, bytes.fromhex(file_id))
            if loaded is not None:
                yield loaded
            elif not is_kept:
                remove(path)
                remove(path[:-len(end)])
        elif not is_kept and file_id + ".map" not in names:
            remove(path)


def _load(path: str, file_id: bytes) -> Optional[Tuple[float, Content]]:
    """What a map says; one that says nothing sensible is put aside, one that cannot be read now is left alone."""
    try:
        with open(open_regular(path), "rb") as file:
            return os.fstat(file.fileno()).st_mtime, decode_map(file.read(MAP_BYTES_MAX), file_id)
    except OSError as error:
        if is_short(error):
            raise
        _put_aside(path)
    except (ValueError, struct.error, LibraryError):
        _put_aside(path)
    return None


def _put_aside(path: str) -> None:
    with contextlib.suppress(OSError):
        os.replace(path, aside_of(path))


def aside_of(path: str) -> str:
    """Where a map is put that cannot be read."""
    folder, name = os.path.split(path)
    return os.path.join(folder, ASIDE + name)
