#!/usr/bin/env python3
"""Makes one file of the program that runs by itself: python .ci/pack.py [FILE].

Python's own `zipapp`, compressed, without the tests, without comments and docstrings, which are half of the program,
and indented by less: who reads it reads the tree. Line numbers stay what they are there, so a log says the same.
"""

from __future__ import annotations

import argparse
import ast
import io
import shutil
import sys
import tempfile
import tokenize
import zipapp
from pathlib import Path
from typing import Optional, Sequence, Set

ROOT = Path(__file__).resolve().parent.parent
FILES = ("node_client.py", "peer.py", "rdt.py", "supernode.py")
FOLDERS = ("disk", "prompt", "protocol", "sockets")
# Not zipapp's own `main="node_client:main"`: that forgets the exit code.
MAIN = """import sys

from node_client import main

sys.exit(main())
"""


def bare(source: bytes) -> bytes:
    """A module without its comments and docstrings, each statement in its line."""
    text = source.decode("utf-8")
    lines = source.splitlines(keepends=True)
    for kind, _, (row, column), _, line in tokenize.tokenize(io.BytesIO(source).readline):
        if kind == tokenize.COMMENT and not line.startswith("#!"):
            lines[row - 1] = text_before(lines[row - 1], column).rstrip() + b"\n"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node, clean=False):
            said = node.body[0]
            first, last = said.lineno - 1, int(said.end_lineno or said.lineno) - 1
            rest = lines[last][said.end_col_offset:]
            lines[first : last + 1] = [lines[first][: said.col_offset] + b'""' + (rest if first == last else b"\n"),
                                       *[b"\n"] * (last - first)]
    return b"".join(lines)


def narrow(source: bytes) -> bytes:
    """A module indented by one column for each four, but for the inside of long strings."""
    kept = rows_inside_strings(source) if b'"""' in source or b"'''" in source or b"\\\n" in source else set()
    lines = source.splitlines(keepends=True)
    for row, line in enumerate(lines):
        if row not in kept:
            code = line.lstrip(b" ")
            lines[row] = b" " * -(-(len(line) - len(code)) // 4) + code
    return b"".join(lines)


def rows_inside_strings(source: bytes) -> Set[int]:
    """Of each token over several rows, those behind its first, counted from 0."""
    rows: Set[int] = set()
    for _, _, (first, _), (last, _), _ in tokenize.tokenize(io.BytesIO(source).readline):
        rows.update(range(first, last))
    return rows


def text_before(line: bytes, column: int) -> bytes:
    """The first so many characters of a line."""
    return line.decode("utf-8")[:column].encode("utf-8")


def pack(target: Path) -> None:
    """Writes it; on Unix it can be started like any program."""
    with tempfile.TemporaryDirectory() as place:
        tree = Path(place) / "tree"
        tree.mkdir()
        for name in FILES:
            shutil.copy(ROOT / name, tree)
        for name in FOLDERS:
            shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
        for module in tree.rglob("*.py"):
            module.write_bytes(narrow(bare(module.read_bytes())))
        (tree / "__main__.py").write_text(MAIN, encoding="utf-8")
        zipapp.create_archive(tree, target, "/usr/bin/env python3", compressed=True)


def main(argv: Optional[Sequence[str]] = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", nargs="?", default="lab-share.pyz", type=Path, help="default lab-share.pyz")
    target = parser.parse_args(argv).file
    pack(target)
    print(f"{target}  {target.stat().st_size / 1e3:.0f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
