"""Large buffers that are used again: memory fresh from the system costs as much as a copy into it."""

from __future__ import annotations

import sys
from typing import Any, List


def _holders(buffers: List[bytearray], index: int) -> int:
    """How many references there are to a buffer in a list, as this function sees them; 0 where nobody can tell."""
    count: Any = getattr(sys, "getrefcount", None)
    is_exact = getattr(sys, "_is_gil_enabled", lambda: True)()
    return int(count(buffers[index])) if count is not None and is_exact else 0


_NOBODY = _holders([bytearray()], 0)  # what is counted when only the list holds it


class BufferPool:
    """Hands out buffers of a wanted size, with whatever stands in them from before.

    A buffer is handed out again when nobody else holds it, or a view of it, any more. Belongs to one thread; the
    holders may be others.
    """

    SIZE_LEAST = 64 << 10  # bytes: a smaller one is not worth keeping

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._bytes = 0
        self._buffers: List[bytearray] = []

    def take(self, size: int) -> bytearray:
        """One of exactly so many bytes, whatever stands in it; used again if one that nobody holds has the size."""
        if size < self.SIZE_LEAST:
            return bytearray(size)
        buffers = self._buffers
        for index in range(len(buffers)):
            if len(buffers[index]) == size and _NOBODY and _holders(buffers, index) == _NOBODY:
                return buffers[index]
        made = bytearray(size)
        while buffers and self._bytes + size > self._bytes_max:
            self._bytes -= len(buffers.pop(0))  # whoever holds it still may
        if self._bytes + size <= self._bytes_max:
            buffers.append(made)
            self._bytes += size
        return made
