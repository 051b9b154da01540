"""What Tab makes of a line that is begun: commands, files of the last list, members, paths on this machine.

`Completion` gets the line up to the cursor and gives all that may stand in its place; both line editors ask it.
"""

from __future__ import annotations

import itertools
import os
import re
from typing import Callable, Dict, Iterable, List, Sequence

from prompt.table import name_columns
from protocol.looks import safe_text

LOOKED_AT_MAX = 5000            # entries of a folder
SHOWN_MAX = 60                  # choices that are shown

Source = Callable[[str], Iterable[str]]     # what an argument begins with -> what it may be


class Completion:
    """Completes lines: `words` are the commands' (each with its letter), `sources` what their arguments may be."""

    def __init__(self, words: Dict[str, str], sources: Dict[str, Source]) -> None:
        self._words, self._sources = words, sources

    def __call__(self, before: str) -> List[str]:
        """What may stand before the cursor instead; none where nothing fits."""
        word, blank, rest = before.lstrip().partition(" ")
        if not blank:
            if word.lower() in self._words:
                return [f"{word} "]
            return [f"{known} " for known in self._words if word and known.startswith(word.lower())]
        source = self._sources.get(self._words.get(word.lower(), word.upper()))
        head, rest = before[:len(before) - len(rest)], rest.lstrip()
        found = source(rest) if source is not None else ()
        return [head + one for one in found if is_plain(one) and one.casefold().startswith(rest.casefold())]


def is_plain(text: str) -> bool:
    """May it be put into a line as it is? What others named may hold what no terminal should get."""
    return safe_text(text, 4096) == text


def choice_lines(matches: Sequence[str], columns: int) -> List[str]:
    """Several that fit, without what they have in common before their last word or folder."""
    common = os.path.commonprefix(list(matches))
    start = max(common.rfind("/"), common.find(" ")) + 1
    more = [f"  ... and {len(matches) - SHOWN_MAX} more"] if len(matches) > SHOWN_MAX else []
    return name_columns([match[start:] for match in matches[:SHOWN_MAX]], columns) + more


def local_paths(typed: str) -> List[str]:
    """The paths on this machine that begin like this; hidden ones only where the dot is typed."""
    quote = typed[:1] if typed[:1] in ("'", '"') else ""
    body = typed[len(quote):]
    if body == "~":
        return [f"{quote}~/"]
    at = max(body.rfind("/"), body.rfind(os.sep)) + 1
    base, start = body[:at], body[at:]
    found = _entries(base, start)
    if not found and "\\" in body:               # as a shell of Unix has blanks
        quote, (base, start) = "", (re.sub(r"\\(.)", r"\1", part) for part in (base, start))
        found = _entries(base, start)
    return [f"{quote}{base}{name}" for name in found]


def _entries(base: str, start: str) -> List[str]:
    """Names in a folder that begin so, in order; a folder's with a slash behind it."""
    found = []
    try:
        with os.scandir(os.path.expanduser(base) or ".") as entries:
            for entry in itertools.islice(entries, LOOKED_AT_MAX):
                is_meant = entry.name.casefold().startswith(start.casefold())
                if is_meant and (start or not entry.name.startswith(".")):
                    found.append(entry.name + ("/" if entry.is_dir() else ""))
    except (OSError, ValueError):
        return []
    return sorted(found)
