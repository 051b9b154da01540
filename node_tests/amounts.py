"""How much of a long test is played: as much as fits into three minutes, or with `python -m pytest --full` all of it."""

from __future__ import annotations

is_full = False  # conftest.py sets it from the flag, before any test is collected


def amount(full: int, quick: int) -> int:
    """How many seeds, examples or datagrams: `full` of them with `--full`, else `quick`."""
    return full if is_full else quick
