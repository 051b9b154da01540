"""Why files of a folder are not shared, or cannot be kept: the kinds, and their words."""

from __future__ import annotations

from typing import Dict, Sequence, Tuple

from protocol.results import LeftOut

# What is left out, in words for many of a kind. The numbers are told, so they are only ever added to.
WHY: Dict[str, Tuple[int, str]] = {
    "name": (1, "names that other systems cannot keep"),
    "deep": (2, "names or paths that are too long"),
    "link": (3, "links"),
    "special": (4, "no ordinary files"),
    "twin": (5, "names that are one on some systems"),
    "unreadable": (6, "no permission to read"),
    "broken": (7, "errors of the disk"),
    "changing": (8, "still changing"),
    "huge": (9, "too large"),
    "many": (10, "too many files"),
    "here": (11, "names that this machine cannot keep"),     # told by nobody: it is found at the receiver
}
UNKNOWN_KIND = "other"                 # of a later version
UNKNOWN_WORDS = "reasons that this version does not know"


def words_of(left_out: Sequence[LeftOut]) -> str:
    """Why they were left out: the only reason, or each with its number."""
    words = [(one.count, WHY.get(one.kind, (0, UNKNOWN_WORDS))[1]) for one in left_out]
    if len(words) == 1:
        return words[0][1]
    return ", ".join(f"{text} ({count})" for count, text in words)


def count_left_out(left_out: Sequence[LeftOut]) -> int:
    """How many files it is in all."""
    return sum(one.count for one in left_out)
