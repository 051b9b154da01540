"""What is remembered of the latest only: tables that others fill, and that may not grow for it.

Pure.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Optional, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Latest(OrderedDict[K, V]):
    """At most so many entries; the one put last is the last, and the one put longest ago is forgotten for it."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most

    def put(self, key: K, value: V) -> Optional[V]:
        """Keep it as the latest, whether it was here or not; returns what was forgotten for it, if anything was."""
        self[key] = value
        self.move_to_end(key)
        return self.forget_oldest() if len(self) > self.most else None

    def forget_oldest(self) -> V:
        """Room is needed for another reason than the count."""
        return self.popitem(last=False)[1]
