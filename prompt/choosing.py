"""What a person chose to fetch: rows of the last list by their numbers, or what fits a pattern; and how it ended.

Several at once are a `Batch`: each is told as it ends, and one line at the end tells of all. Pure.
"""

from __future__ import annotations

import re
from typing import Dict, List, Optional, Sequence, Tuple

from prompt.lines import count_of, format_size, format_time
from protocol import results
from protocol.looks import safe_text

SPANS = re.compile(r"\d{1,8}(?:-\d{1,8})?(?:[ ,]+\d{1,8}(?:-\d{1,8})?)*", re.ASCII)
WHOLE_FOLDER = ("*", "**")  # behind a folder's name and a slash
ASKED_AGAIN_FROM = 50           # files that a pattern may fit before a person says it a second time
MISSED_TOLD = 3                 # names of what did not come


def spans_in(text: str) -> List[Tuple[int, int]]:
    """The numbers in `2 3 5` or `2-4, 9`, as first and last of each span; none where there is anything else."""
    if not SPANS.fullmatch(text):
        return []
    pairs = (span.partition("-") for span in re.split("[ ,]+", text))
    return [(int(first), int(last or first)) for first, _, last in pairs]


def chosen(spans: Sequence[Tuple[int, int]], rows: Dict[int, results.ListEntry]
           ) -> Tuple[List[results.ListEntry], Optional[str]]:
    """These rows, each once; and the first number or span that names none, if any does."""
    numbers: Dict[int, None] = {}
    for first, last in spans:
        if not (first <= last and first in rows and last in rows):
            return [], str(first) if first == last or first not in rows else f"{first}-{last}"
        numbers.update(dict.fromkeys(range(first, last + 1)))
    return [rows[number] for number in numbers if number in rows], None


def is_pattern(text: str) -> bool:
    """Does it mean all names that fit it?"""
    return any(sign in text for sign in "*?[")


class Batch:
    """Several files or folders that one command asked for."""

    def __init__(self, count: int, now: float) -> None:
        self._count, self._began = count, now
        self._unanswered = count
        self._running: Dict[int, List[str]] = {}        # transfers, and which of these come by each
        self._came = self._here = self._size = 0
        self._missed: List[str] = []

    @property
    def is_over(self) -> bool:
        return not self._unanswered and not self._running

    def on_started(self, transfer: int, name: str) -> None:
        """One of them is on its way."""
        self._unanswered -= 1
        self._running.setdefault(transfer, []).append(name)

    def on_here(self) -> None:
        """One of them is here already."""
        self._unanswered -= 1
        self._here += 1

    def on_refused(self, name: str) -> None:
        """One of them cannot be had."""
        self._unanswered -= 1
        self._missed.append(name)

    def on_end(self, transfer: int, size: Optional[int]) -> bool:
        """A transfer has brought so much, or nothing (None): is it of one of these?"""
        names = self._running.pop(transfer, [])
        if size is None:
            self._missed += names
        elif names:
            self._came += len(names)
            self._size += size
        return bool(names)

    def line(self, now: float) -> str:
        """How it ended."""
        if self._here == self._count:
            return f"OK all {self._count} were here already"
        told = f"{self._came} of {self._count} came, {format_size(self._size)} in {format_time(now - self._began)}"
        if self._here:
            told += f"; {count_of(self._here, 'file')} {'was' if self._here == 1 else 'were'} here already"
        if not self._missed:
            return f"OK {told}"
        names = ", ".join(safe_text(name, 60) for name in self._missed[:MISSED_TOLD])
        more = f" and {len(self._missed) - MISSED_TOLD} more" if len(self._missed) > MISSED_TOLD else ""
        return f"!! {told}; not {names}{more}"
