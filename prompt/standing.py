"""What a person is told of what is shared here: how much it is, and how far long hashing is.

Pure: no clock; `now` is monotonic seconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Optional

from prompt.lines import count_of, format_part, format_percent, format_size

if TYPE_CHECKING:
    from protocol.content.shares import Standing

LONG_SECONDS = 3.0                  # of hashing, from which on it is told
LINES_SECONDS = 30.0                # between two lines where none can be redrawn


def folder_text(folder: str, standing: Optional[Standing]) -> str:
    """What stands behind `Folder: `; the folder alone where nothing is in it, or nobody has looked yet."""
    if standing is None or not standing.files:
        return folder
    hashing = f"; hashing {standing.waiting}" if standing.waiting else ""
    return f"{folder} ({count_of(standing.files, 'file')}, {format_size(standing.size)}{hashing})"


class Hashing:
    """Tells of hashing that lasts: on a line that is redrawn, else now and then, and when it is over."""

    def __init__(self) -> None:
        self._began_at: Optional[float] = None
        self._told_at = 0.0
        self._total = self._count = 0       # of this bout

    def _end(self, now: float) -> str:
        was_long = self._began_at is not None and now - self._began_at >= LONG_SECONDS
        told = f"* hashed {count_of(self._count, 'file')}, {format_size(self._total)}: shared now" if was_long else ""
        self._began_at, self._total, self._count = None, 0, 0
        return told

    def progress(self, standing: Optional[Standing], now: float) -> str:
        """The line to be redrawn; empty for none."""
        if standing is None or not standing.waiting:
            return ""
        if self._began_at is None:
            self._began_at = self._told_at = now
        self._total = max(self._total, standing.waiting_size)
        self._count = max(self._count, standing.waiting)
        if now - self._began_at < LONG_SECONDS:
            return ""
        hashed = self._total - standing.waiting_size
        return (f"hashing {count_of(standing.waiting, 'file')}  {format_percent(hashed, self._total)}  "
                f"{format_part(hashed, self._total)}")

    def line(self, standing: Optional[Standing], now: float, can_redraw: bool) -> str:
        """A line of its own, when one is due."""
        progress = self.progress(standing, now)
        if progress and not can_redraw and now - self._told_at >= LINES_SECONDS:
            self._told_at = now
            return f"* {progress}"
        return self._end(now) if standing is not None and not standing.waiting else ""
