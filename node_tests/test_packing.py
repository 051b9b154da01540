"""The program as one file, and as a package that pip installs: both run, and end with the exit codes of the tree."""

from __future__ import annotations

import dis
import importlib.util
import os
import re
import runpy
import shutil
import subprocess
import sys
import types
import zipfile
from pathlib import Path

import pytest

from node_tests.stage.running import PATIENCE, ROOT

SIZE_MAX = 470_000  # bytes, of the one file
PACK = runpy.run_path(str(ROOT / ".ci" / "pack.py"))


def called(place: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A Python that knows nothing of the tree."""
    return subprocess.run([sys.executable, *words], cwd=place, capture_output=True, text=True, timeout=PATIENCE,
                          env={**os.environ, "PYTHONPATH": "", **environment})


def says_its_usage_and_keeps_its_exit_codes(place: Path, *start: str, **environment: str) -> str:
    """What it says of itself."""
    told = called(place, *start, "--help", **environment)
    assert told.returncode == 0 and "get NAME" in told.stdout, told
    assert called(place, *start, "fly", **environment).returncode == 2
    # This one is what `main` returns.
    returned = called(place, *start, "list", "--log", "no/such/folder", **environment)
    assert returned.returncode == 2 and returned.stderr.startswith("The log cannot be written"), returned
    return told.stdout


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    target = tmp_path_factory.mktemp("packed") / "lab-share.pyz"
    PACK["pack"](target)
    return target


def test_one_file_runs_by_itself(packed, tmp_path):
    told = says_its_usage_and_keeps_its_exit_codes(tmp_path, str(packed))
    assert "usage: lab-share.pyz " in told
    assert packed.stat().st_size < SIZE_MAX
    if os.name != "nt":
        assert os.access(packed, os.X_OK)


def meaning(text: str) -> list:
    """What a module is to Python, function by function, with the line of each instruction; without docstrings."""
    codes, told = [compile(text, "module", "exec", optimize=2)], []
    for code in codes:
        codes += [one for one in code.co_consts if isinstance(one, types.CodeType)]
        values = [one for one in code.co_consts if not isinstance(one, types.CodeType)]
        told.append((code.co_name, code.co_code, code.co_names, values, list(dis.findlinestarts(code))))
    return told


def test_the_one_file_says_to_python_what_the_tree_says_line_by_line(packed):
    with zipfile.ZipFile(packed) as archive:
        modules = {name: archive.read(name).decode("utf-8") for name in archive.namelist() if name.endswith(".py")}
    del modules["__main__.py"]
    tree = {path.name for path in ROOT.glob("*.py")}
    for folder in PACK["FOLDERS"]:
        tree |= {path.relative_to(ROOT).as_posix() for path in (ROOT / folder).rglob("*.py")}
    assert set(modules) == tree
    for name, text in modules.items():
        assert meaning(text) == meaning((ROOT / name).read_text(encoding="utf-8")), name


BARE = '''#!/usr/bin/env python3
"""About."""
def f(a):  # why
    """One.

    Two.
    """
    return "# no comment", """
    # nor this"""  # \u00e9


class C: "all of it"
x = "\u00e9"  # \u00e9
'''


def test_comments_and_docstrings_go_and_lines_stay():
    assert PACK["bare"](BARE.encode()).decode() == '''#!/usr/bin/env python3
""
def f(a):
    ""



    return "# no comment", """
    # nor this"""


class C: ""
x = "\u00e9"
'''


def test_code_moves_to_the_left_and_what_stands_inside_a_string_stays():
    wide = 'def f(a):\n    if a:\n        return ("""\n    b""",\n                \'c\')\n'
    assert PACK["narrow"](wide.encode()).decode() == 'def f(a):\n if a:\n  return ("""\n    b""",\n    \'c\')\n'


# ---- a package


def packages_in_the_tree():
    found = {"lab_share"}
    for folder in PACK["FOLDERS"]:
        inits = (ROOT / folder).rglob("__init__.py")
        found |= {"lab_share." + ".".join(path.parent.relative_to(ROOT).parts) for path in inits}
    return found


def test_the_package_holds_the_whole_tree():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    listed = re.findall(r'"([\w.]+)"', text.split("packages = [")[1].split("]")[0])
    assert set(listed) == packages_in_the_tree() and len(listed) == len(set(listed))
    assert 'lab-share = "lab_share.node_client:main"' in text and 'package-dir = { "lab_share" = "." }' in text


def test_the_tree_runs_inside_a_package_and_takes_no_names_from_others(tmp_path):
    """As `pip install` lays it down; beside it is somebody else's `disk`."""
    package = tmp_path / "site" / "lab_share"
    package.mkdir(parents=True)
    for name in PACK["FILES"]:
        shutil.copy(ROOT / name, package)
    for name in PACK["FOLDERS"]:
        shutil.copytree(ROOT / name, package / name, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "site" / "disk.py").write_text("MINE = True\n")
    site = str(tmp_path / "site")
    entry = "import sys; from lab_share.node_client import main; sys.exit(main())"
    says_its_usage_and_keeps_its_exit_codes(tmp_path, "-c", entry, PYTHONPATH=site)
    assert called(tmp_path, "-c", "import disk; disk.MINE", PYTHONPATH=site).returncode == 0


def can_build_wheels() -> bool:
    """Are all tools for it here, so that nothing is downloaded?"""
    if importlib.util.find_spec("setuptools") is None:
        return False
    import setuptools
    return importlib.util.find_spec("wheel") is not None or int(setuptools.__version__.split(".")[0]) >= 71


@pytest.mark.skipif(not can_build_wheels(), reason="needs setuptools of 2024, or wheel beside it")
def test_the_wheel_holds_one_package_and_its_command(tmp_path):
    tree = tmp_path / "tree"
    tree.mkdir()
    for name in (*PACK["FILES"], "pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, tree)
    for name in PACK["FOLDERS"]:
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    build = "import sys; from setuptools import build_meta; print(build_meta.build_wheel(sys.argv[1]))"
    built = called(tree, "-c", build, str(tmp_path))
    assert built.returncode == 0, built.stderr
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        names = wheel.namelist()
        command = next(wheel.read(name).decode() for name in names if name.endswith("entry_points.txt"))
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"lab_share"}
    assert "lab_share/protocol/exchange/fetch.py" in names and "lab-share = lab_share.node_client:main" in command
