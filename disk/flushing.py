"""Flushing on a thread beside the disk's, so that other disk jobs have their turn meanwhile.

Each `Flush` is owned by the disk thread. Without a thread beside (`submit` is None) what is begun is done at once.
"""

from __future__ import annotations

import concurrent.futures
import os
from typing import Any, Callable, Iterable, Optional

Submit = Callable[..., "concurrent.futures.Future[Any]"]
PATIENCE = 0.02                # seconds that one disk job waits for a flush: then the others have their turn


class Flush:
    """What was begun, one thing at a time."""

    def __init__(self, submit: Optional[Submit]) -> None:
        self._submit = submit
        self._running: Optional[concurrent.futures.Future[Any]] = None

    def begin(self, work: Callable[..., None], *arguments: Any) -> None:
        """Have it done; what was begun before must be over."""
        assert self._running is None
        if self._submit is None:
            work(*arguments)
        else:
            self._running = self._submit(work, *arguments)

    def is_over(self, patience: float = PATIENCE) -> bool:
        """Whether what was begun is done; how it failed is raised here, once."""
        if self._running is None:
            return True
        if not concurrent.futures.wait([self._running], patience).done:
            return False
        running, self._running = self._running, None
        running.result()
        return True


def flush_copies(descriptors: Iterable[int]) -> None:
    """Flush by descriptors of this call's own (the owner's may be closed meanwhile), and close them."""
    try:
        for descriptor in descriptors:
            os.fsync(descriptor)
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
