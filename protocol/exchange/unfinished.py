"""What of a person's downloads lies half here, from this run or an earlier one. Pure."""

from __future__ import annotations

from typing import Collection, Iterable, List

from protocol.content.parts import PartInfo
from protocol.content.troubles import shown
from protocol.results import HOW_ON

TOLD_MAX = 3  # names in the line at the start; of more only the number


def unfinished_of(parts: Iterable[PartInfo], on_their_way: Collection[bytes]) -> List[PartInfo]:
    """Those with something verified that nobody is fetching now, by name."""
    found = (part for part in parts if part.verified_bytes and not part.is_folder and part.file_id not in on_their_way)
    return sorted(found, key=lambda part: part.label)


def told(parts: List[PartInfo]) -> str:
    """The line about them for a person who starts; empty when there are none."""
    if not parts:
        return ""
    names = [f"{shown(part.label)[1:-1]} {min(99, part.verified_bytes * 100 // part.size)}%" for part in parts]
    more = f" and {len(parts) - TOLD_MAX} more" if len(parts) > TOLD_MAX else ""
    lie = "lies" if len(parts) == 1 else "lie"
    return f"{', '.join(names[:TOLD_MAX])}{more} {lie} half here: {HOW_ON}"
