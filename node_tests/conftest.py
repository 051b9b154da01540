"""What tests of several files begin with."""

from __future__ import annotations

import pytest
from lab import Lab


@pytest.fixture
def lab(tmp_path):
    """Whole nodes, whose folders lie in the test's own."""
    made = Lab(tmp_path)
    yield made
    made.close()
