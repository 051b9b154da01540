"""Which files the program has, what each imports, and which functions it calls."""

from __future__ import annotations

import ast
import functools
import pathlib

ROOT = pathlib.Path(__file__).resolve().parents[2]
WINGS = ("content", "keys", "transport", "membership", "ruling", "exchange")  # of protocol/; beside them: its ground
PACKAGES = ("protocol", "sockets", "disk", "prompt")
MODULES = {path.stem: path for path in ROOT.glob("*.py")}
for package in PACKAGES:
    inner = [path for path in (ROOT / package).rglob("*.py") if path.stem != "__init__"]
    MODULES.update({".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in inner})
    faces = [path for path in (ROOT / package).rglob("__init__.py") if path.read_bytes().count(b"\n") > 1]
    MODULES.update({".".join(path.relative_to(ROOT).parent.parts): path for path in faces})


@functools.cache  # several laws look at each file
def nodes_of(path):
    """All of the syntax of a file, node by node; the module itself is the first."""
    return nodes_in(path.read_text(encoding="utf-8"))


def nodes_in(source):
    """The same of a text."""
    return tuple(ast.walk(ast.parse(source)))


@functools.cache
def imports_of(path):
    """Every module that a file imports, wherever in it."""
    names = set()
    for node in nodes_of(path):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module)
            names.update(
                f"{node.module}.{alias.name}" for alias in node.names if f"{node.module}.{alias.name}" in MODULES
            )
    return frozenset(names)


@functools.cache
def calls_of(path):
    """Names of the functions that a file calls."""
    return frozenset(ast.unparse(node.func) for node in nodes_of(path) if isinstance(node, ast.Call))
