"""What tests of several files begin with."""

from __future__ import annotations

from pathlib import Path

import pytest
from lab import Lab

from library import Library


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
