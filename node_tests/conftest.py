"""What tests of several files begin with."""

from __future__ import annotations

import contextlib
import functools
import gc
import math
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from disk.library import Library
from node_tests.stage import amounts, usage
from node_tests.stage.lab import Lab

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("disk", "prompt", "protocol", "sockets", "node_tests")
WORKERS = 5  # processes that share the tests: two cores are busy while some wait for a program; `-n` says otherwise


def pytest_addoption(parser):
    parser.addoption("--full", action="store_true", help="play the whole range of every long test: about ten minutes")
    parser.addoption("--packets", metavar="FILE", help="tell every simulated packet to this file")


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads its options
def pytest_cmdline_main(config):
    """Share them without being asked; who has no tests left takes some from another (`worksteal`)."""
    asked = config.option
    is_plain = not hasattr(config, "workerinput") and getattr(asked, "numprocesses", "no such plugin") is None
    if is_plain and not asked.usepdb and asked.dist in ("no", "worksteal"):
        asked.numprocesses, asked.dist = WORKERS, "worksteal"


def pytest_configure(config):
    if not hasattr(config, "workerinput"):
        _keep_compiled(config)
    amounts.is_full = config.getoption("--full")
    if config.getoption("--packets"):
        usage.begin_packets(config.getoption("--packets"))


@pytest.hookimpl(hookwrapper=True)
def pytest_collection():
    """What it makes stays to the end: to look for garbage in it, again and again, takes a fifth of its time."""
    gc.disable()
    yield
    gc.freeze()
    gc.enable()


def _keep_compiled(config):
    """What the hundreds of started programs have compiled lies in one folder: where nothing may be written beside the
    sources, each start would compile the whole program, which costs four times the rest. pytest's cache keeps it for
    the next run, but for what was compiled of trees that are gone then; without that cache it is gone as well. A run
    inside of a test uses the folder of the run that the test belongs to."""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    if os.environ.get("PYTHONPYCACHEPREFIX"):
        return
    folder, is_kept = _folder_for_compiled(config)
    os.environ["PYTHONPYCACHEPREFIX"] = str(folder)
    config.add_cleanup(functools.partial(_drop_compiled, folder, is_kept))
    if config.getoption("numprocesses", None) and config.args == config.getini("testpaths"):
        _compile_in_halves(config, folder / "newest-source")


def _folder_for_compiled(config):
    """Where, and is it kept for the next run? Not without pytest's cache, nor where that cannot be written."""
    if getattr(config, "cache", None) is not None:
        with contextlib.suppress(OSError):
            folder = Path(config.cache.mkdir("compiled"))
            if os.access(folder, os.W_OK):
                return folder, True
    return Path(tempfile.mkdtemp(prefix="lab-share-compiled-")), False


def _drop_compiled(folder, is_kept):
    """All of it, or what belongs to temporary folders; not this tree, should it stand among them."""
    if not is_kept:
        shutil.rmtree(folder, ignore_errors=True)
        return
    temporary = Path(tempfile.gettempdir())
    for path in folder.joinpath(*temporary.parts[1:]).glob("*"):
        if temporary / path.name not in ROOT.parents:
            shutil.rmtree(path, ignore_errors=True)


def _compile_in_halves(config, marker):
    """Before the workers begin: each would compile all tests and the whole program, all of them at the same time.
    `marker` tells for which state of the sources that is done."""
    sources = [*ROOT.glob("*.py"), *(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))]
    newest = "%s %r" % (sys.version, max(path.stat().st_mtime for path in sources))
    if marker.exists() and marker.read_text() == newest:
        return
    files = sorted(str(path) for path in Path(__file__).parent.glob("test_*.py"))
    collect = [sys.executable, "-m", "pytest", "-n", "0", "--collect-only", "-q", "-p", "no:cacheprovider"]
    halves = [subprocess.Popen([*collect, *half], cwd=config.rootpath, stdout=subprocess.DEVNULL)
              for half in (files[::2], files[1::2])]
    for half in halves:
        half.wait()  # what fails there fails in the workers, too, and is told by them
    marker.write_text(newest)


def _endpoints_made():
    """So far, by the simulator, if a test has loaded it."""
    module = sys.modules.get("node_tests.stage.simulator")
    return module.EndpointDriver.made if module is not None else 0


def pytest_runtest_setup(item):
    item.endpoints_before = _endpoints_made()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item):
    """A test of simulated packets that fails says how to see them."""
    outcome = yield
    report = outcome.get_result()
    if report.failed and _endpoints_made() > getattr(item, "endpoints_before", math.inf):
        command = "python -m pytest -n 0 --packets packets.trace %s" % shlex.quote(item.nodeid)
        report.sections.append(("replay with its packets", "%s\n%s" % (command, usage.DRAW % "packets.trace")))


@pytest.fixture
def lab(tmp_path):
    """Whole nodes, whose folders lie in the test's own."""
    made = Lab(tmp_path)
    yield made
    made.close()


@pytest.fixture
def lib(tmp_path):
    """An open library, whose folder lies in the test's own."""
    with Library(str(tmp_path / "shared")) as opened:
        yield opened


@pytest.fixture
def folder(lib):
    return Path(lib.folder)
