"""How much of a long test is played: what fits into some minutes, or with `python -m pytest --full` all of it."""

from __future__ import annotations

from typing import TypeVar

Number = TypeVar("Number", int, float)

is_full = False  # conftest.py sets it from the flag, before any test is collected


def amount(full: Number, quick: Number) -> Number:
    """How many seeds, examples, datagrams or virtual seconds: `full` of them with `--full`, else `quick`."""
    return full if is_full else quick
