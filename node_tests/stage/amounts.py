"""How much of a long test is played: what fits into some minutes, or with `python -m pytest --full` all of it."""

from __future__ import annotations

from typing import Any, Callable, TypeVar

import pytest

Amount = TypeVar("Amount")

is_full = False  # conftest.py sets it from the flag, before any test is collected


def amount(full: Amount, quick: Amount) -> Amount:
    """How many seeds, examples, datagrams or virtual seconds, or which: `full` with `--full`, else `quick`."""
    return full if is_full else quick


def only_in_full(test: Callable[..., Any]) -> Callable[..., Any]:
    """A seed that once failed, or a story that others tell in short: it takes long and is played with `--full`."""
    return pytest.mark.skipif(not is_full, reason="it is played with --full")(test)
