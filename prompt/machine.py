"""The doors by which a node looks at the machine it is on: the text of a file, and what a program prints.

Both are bounded, and give None for what cannot be had: an absent program is no trouble. Nothing here needs root.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from typing import Callable, Optional, Sequence

READ_MAX = 4 << 20  # characters of a file
RUN_SECONDS = 2.0  # for one program
ALL_SECONDS = 4.0  # for all that are asked for one answer
PR_SET_DUMPABLE = 4  # prctl(2)
TOOLS = ("/usr/sbin", "/sbin", "/usr/local/sbin")  # where such programs lie, and no user's PATH leads


def read(path: str) -> Optional[str]:
    """What stands in a file, the first 4 MiB of it."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(READ_MAX)
    except OSError:
        return None


def keep_no_traces() -> None:
    """Has the system write no memory of this process to a file when it crashes, and show it to no other program.

    By the limit for such files, and on Linux by the flag that also holds for a program that takes them by a pipe. What
    lies in swap, or what root reads, is beyond it.
    """
    with contextlib.suppress(ImportError, OSError, ValueError):     # Windows writes none unless it is set up to
        import resource
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        with contextlib.suppress(ImportError, OSError, AttributeError):
            import ctypes
            ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)


def runner(clock: Callable[[], float] = time.monotonic, seconds: float = ALL_SECONDS
           ) -> Callable[[Sequence[str]], Optional[str]]:
    """`run(words)`: what a program prints that ends well; in all they take no longer than so many seconds."""
    import subprocess  # slow to load, and rarely needed
    deadline = clock() + seconds
    environment = {**os.environ, "LC_ALL": "C", "PATH": os.pathsep.join([os.environ.get("PATH", ""), *TOOLS])}

    def run(words: Sequence[str]) -> Optional[str]:
        """What the program prints; None if it fails, or there is no time left for it."""
        left = min(RUN_SECONDS, deadline - clock())
        if left <= 0:
            return None
        try:
            done = subprocess.run(words, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                  stderr=subprocess.DEVNULL, timeout=left, text=True, errors="replace")
        except (OSError, ValueError, subprocess.SubprocessError):
            return None
        return done.stdout if done.returncode == 0 else None

    return run
