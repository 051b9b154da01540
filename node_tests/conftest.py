"""What tests of several files begin with."""

from __future__ import annotations

from pathlib import Path

import amounts
import pytest
from lab import Lab

from library import Library

WORKERS = 3  # processes that share the tests: two cores are busy while one waits for a program; `-n` says otherwise


def pytest_addoption(parser):
    parser.addoption("--full", action="store_true", help="play the whole range of every long test: about ten minutes")


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads its options
def pytest_cmdline_main(config):
    """Share them without being asked; who has no tests left takes some from another (`worksteal`)."""
    asked = config.option
    is_plain = not hasattr(config, "workerinput") and getattr(asked, "numprocesses", "no such plugin") is None
    if is_plain and not asked.usepdb and asked.dist in ("no", "worksteal"):
        asked.numprocesses, asked.dist = WORKERS, "worksteal"


def pytest_configure(config):
    amounts.is_full = config.getoption("--full")


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
