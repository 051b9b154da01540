"""Flushing on a thread beside the disk's, so that other disk jobs have their turn meanwhile.

Each `Flush` is owned by the disk thread. Without a thread beside (`submit` is None) what is begun is done at once.
"""

from __future__ import annotations

import concurrent.futures
import os
from typing import Any, Callable, Iterable, List, Optional

from disk.access import flush_file, flush_folder
from protocol.content.troubles import shown, speaking

Submit = Callable[..., "concurrent.futures.Future[Any]"]
PATIENCE = 0.02                # seconds that one disk job waits for a flush: then the others have their turn


class Beside:
    """The threads beside the disk's. What would be done by one that is not there (None) is done by the disk's own."""

    def __init__(self) -> None:
        self.flush: Optional[Submit] = None
        self.digest: Optional[Submit] = None

    def use(self, flush: Submit, digest: Optional[Submit]) -> None:
        """There are threads from now on."""
        self.flush, self.digest = flush, digest


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


def flush_paths(paths: List[str]) -> None:
    """Flush files, and the names of folders: many at once by one call for all, where the system has one."""
    if hasattr(os, "sync") and len(paths) > 1:
        os.sync()
        return
    for path in paths:
        with speaking(f"save {shown(path, 1000)}"):
            if os.path.isdir(path):
                flush_folder(os.path.dirname(path))
            else:
                flush_file(path)
                flush_folder(os.path.dirname(path))


class Unflushed:
    """What got its name without being flushed: it is flushed later, all together."""

    def __init__(self, beside: Beside) -> None:
        self._beside = beside
        self._paths: List[str] = []
        self._flush = Flush(None)

    def add(self, *paths: str) -> None:
        """Files, and folders that are new, to be flushed with the next."""
        self._paths += paths

    def flush(self) -> bool:
        """Flush all of it; False: to be called again."""
        if self._flush.is_over(0.0) and self._paths:
            paths, self._paths = self._paths, []
            self._flush = Flush(self._beside.flush)
            self._flush.begin(flush_paths, paths)
        return self._flush.is_over()
