"""What tests of files on disk begin with: contents, folders filled with files, a library, another process."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from disk import library
from disk.library import Library
from protocol.content.listing import decode_listing
from protocol.content.parts import Destination
from protocol.content.pieces import digests_of, identity_of, piece_count_of, piece_length, piece_size_of

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
POSIX = os.name == "posix"
needs_posix = pytest.mark.skipif(not POSIX, reason="needs POSIX")


def bytes_of(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).getrandbits(8 * size).to_bytes(size, "big") if size else b""


class Content:
    """A content as its announcer knows it."""

    def __init__(self, size: int, seed: int = 1) -> None:
        self.data = bytes_of(size, seed)
        self.size = size
        self.digests = digests_of(self.data)
        self.file_id = identity_of(size, self.digests)
        self.count = piece_count_of(size)

    def piece(self, index: int) -> bytes:
        start = index * piece_size_of(self.size)
        return self.data[start:start + piece_length(self.size, index)]


def fetch(lib: Library, content: Content, name: str, **how: object) -> library.Finished:
    lib.begin(content.file_id, content.size, content.digests, label="x")
    for index in range(content.count):
        assert lib.write_piece(content.file_id, index, content.piece(index))
    return lib.finish(content.file_id, name, **how)


def fill(folder: Path, **files: bytes) -> None:
    for name, data in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def run_python(code: str, *arguments: str) -> str:
    """Run code in a process of its own, with limits or rights that this one cannot take for itself."""
    prelude = """
import os, sys
from disk.scanner import Scanner
from disk.library import Library
from protocol.content.listing import *
from protocol.content.pieces import *
from protocol.content.troubles import *
"""
    environment = dict(os.environ, PYTHONPATH=str(Path(library.__file__).resolve().parents[1]))
    done = subprocess.run([sys.executable, "-c", prelude + textwrap.dedent(code), *arguments], env=environment,
                          capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def world_readable(path: Path) -> str:
    """The path, its parents open to every user as far as pytest made them."""
    made_by_pytest = next((parent for parent in path.parents if parent.name.startswith("pytest-of-")), path.parent)
    for parent in path.parents:
        if made_by_pytest in (parent, *parent.parents):
            parent.chmod(0o755)
    return str(path)


def entries_of(listing):
    """What a folder's listing names, without its packs."""
    return decode_listing(listing)[0]


def tree_of(folder: Path) -> dict[str, bytes]:
    """All that is in a folder but the node's own things; links are told by their target."""
    found = {}
    for root, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name != ".node"]
        for name in files + folders:
            path = Path(root, name)
            if path.is_symlink():
                found[str(path.relative_to(folder))] = os.readlink(path).encode()
            elif path.is_file():
                found[str(path.relative_to(folder))] = path.read_bytes()
    return found


def restarted(lib: Library) -> Library:
    """The same folder as the next process finds it (a close writes nothing, so a kill leaves the same)."""
    lib.close()
    again = Library(lib.folder)
    again.open()
    return again


def keep(lib: Library, content: Content, label: str = "label") -> None:
    lib.begin(content.file_id, content.size, content.digests, Destination.CACHE)
    for index in range(content.count):
        assert lib.write_piece(content.file_id, index, content.piece(index))
    lib.finish_cache(content.file_id, label)


def paths_below(folder):
    return sorted(os.path.join(place, name) for place, _, names in os.walk(folder) for name in names)
