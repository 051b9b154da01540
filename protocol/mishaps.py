"""What may not flood the log: tracebacks, each place of the program once a minute, and other lines, each place sixty.

Whoever finds a packet that a handler stumbles over can send it a thousand times a second, and whoever comes and goes or
is refused can do that as often: the log, and the disk that it lies on, shall not pay for that. What was left out is
counted. And no name that another node made up breaks a line or hides a part of it.

For loggers of all rooms; any thread may log. Pure: the time is that of the record.
"""

from __future__ import annotations

import logging
from typing import Dict, List, Tuple

INTERVAL = 60.0  # seconds for which a place that was told is only counted
LINES_MAX = 60  # of one place in that time, without a traceback
PLACES_MAX = 100  # places that are remembered; the one told longest ago is forgotten

_Place = Tuple[str, str, int]  # kind of exception, file, line


class Mishaps:
    """A filter of logging: what it stops is counted."""

    def __init__(self) -> None:
        self._told: Dict[_Place, List[float]] = {}  # when, and how many were left out since; the oldest first
        self._lines: Dict[_Place, List[float]] = {}  # since when, and how many lines came since

    def filter(self, record: logging.LogRecord) -> bool:
        """Is this to be logged?"""
        if not record.exc_info or record.exc_info[2] is None:
            return self._has_room_for(record)
        place = _place_of(record)
        told = self._told.get(place)
        if told is not None and 0.0 <= record.created - told[0] < INTERVAL:  # a clock that was set back hides nothing
            told[1] += 1
            return False
        self._told.pop(place, None)
        if told is not None and told[1]:
            record.msg = f"{record.getMessage()} ({int(told[1])} more of these were left out)"
            record.args = ()
        self._told[place] = [record.created, 0]
        while len(self._told) > PLACES_MAX:
            self._told.pop(next(iter(self._told)), None)
        return True

    def _has_room_for(self, record: logging.LogRecord) -> bool:
        """The same for a line without a traceback, which is made harmless."""
        place = "lines", record.pathname, record.lineno
        since, count = self._lines.pop(place, (record.created, 0))
        left_out = 0
        if not 0.0 <= record.created - since < INTERVAL:
            since, count, left_out = record.created, 0, max(0, int(count) - LINES_MAX)
        self._lines[place] = [since, count + 1]
        while len(self._lines) > PLACES_MAX:
            self._lines.pop(next(iter(self._lines)), None)
        record.msg, record.args = _harmless(record.getMessage()), ()
        if left_out:
            record.msg += f" (before it {left_out} more of these were left out)"
        return count < LINES_MAX

    def rest(self) -> List[str]:
        """What was left out and not told yet, for the end of the program: a sentence for each place."""
        left = [(place, int(count)) for place, (_, count) in self._told.items() if count]
        left += [(place, int(count) - LINES_MAX) for place, (_, count) in self._lines.items() if count > LINES_MAX]
        self._told.clear()
        self._lines.clear()
        return [f"{count} more {kind} at {file}:{line} were left out" for (kind, file, line), count in left]


def _harmless(text: str) -> str:
    """On one line, whatever names are in it."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else f"\\u{{{ord(each):x}}}" for each in text)


def _place_of(record: logging.LogRecord) -> _Place:
    """Where it was raised."""
    assert record.exc_info and record.exc_info[2] is not None
    kind, traceback = record.exc_info[0], record.exc_info[2]
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    return getattr(kind, "__name__", "?"), traceback.tb_frame.f_code.co_filename, traceback.tb_lineno


MISHAPS = Mishaps()  # of this process: a traceback is the same whichever logger tells it


def logger(name: str) -> logging.Logger:
    """The logger of that name, which is not flooded."""
    found = logging.getLogger(name)
    found.addFilter(MISHAPS)
    return found
