"""Long operations in slices: what else waits for the disk has its turn between two of them.

Owned by the disk thread. An operation is a generator; each `next` does one slice, some tens of milliseconds.
"""

from __future__ import annotations

import inspect
from typing import Any, Callable, Dict, Generator, Optional, Tuple, TypeVar

_T = TypeVar("_T")
Steps = Generator[None, None, _T]   # a long operation, of which one slice is done with each `next`


def at_once(steps: Steps[_T]) -> _T:
    """All slices one after the other: for what is small."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]


class Operations:
    """The long operations that are under way: by content, and to what end."""

    def __init__(self) -> None:
        self._steps: Dict[Tuple[bytes, str], Steps[Any]] = {}

    def go_on(self, file_id: bytes, goal: str, begin: Callable[[], Steps[_T]]) -> Optional[_T]:
        """The next slice of an operation, begun if it is not under way; its result after the last one, None before."""
        steps = self._steps.get((file_id, goal)) or begin()
        self._steps[file_id, goal] = steps
        try:
            next(steps)
        except StopIteration as end:
            self._steps.pop((file_id, goal), None)
            return end.value  # type: ignore[no-any-return]
        except BaseException:
            self._steps.pop((file_id, goal), None)
            raise
        return None

    def end(self, file_id: bytes) -> None:
        """What was under way with this content is over: whoever asks again begins anew."""
        for key, steps in list(self._steps.items()):
            if key[0] == file_id and inspect.getgeneratorstate(steps) != inspect.GEN_RUNNING:   # it may be one of them
                self._steps.pop(key).close()

    def end_one(self, file_id: bytes, goal: str) -> None:
        """One operation is over, if it was under way."""
        begun = self._steps.pop((file_id, goal), None)
        if begun is not None:
            begun.close()

    def end_all(self) -> None:
        """Nothing goes on: the files are closed."""
        for key in list(self._steps):
            self._steps.pop(key).close()
