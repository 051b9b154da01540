"""What ends the program from below: output that cannot be written, memory that is used up.

Each is told by a sentence and has a code of its own.

The sentence goes to standard error, for standard output may be what failed; there is never a traceback. A reader who
has gone (`| head`, a closed terminal) is no failure: the program ends quietly.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import sys
from typing import Any, Callable

EXIT_SHORT = 6                      # standard output, the disk or the memory takes no more
NO_MEMORY = "Too little memory: this node has to end. End other programs, or let it have more (ulimit -v)."
# What a system says, in a word of its own, when it has no memory for a thread or for a library.
SHORT_WORDS = ("can't start new thread", "cannot allocate", "failed to map", "out of memory")
READER_IS_GONE = {errno.EPIPE, errno.EINVAL, errno.EBADF, errno.ESHUTDOWN, errno.ECONNRESET}  # EINVAL: Windows' pipe


def is_memory_short(error: Any) -> bool:
    """Whether memory is what was missing; also where it was missing for a thread, or while something was loaded."""
    if isinstance(error, (RuntimeError, ImportError)):
        return any(word in str(error).lower() for word in SHORT_WORDS)
    return isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM)


def output_trouble(error: BaseException, is_terminal: bool) -> str:
    """The sentence about output that could not be written; empty where only its reader is gone."""
    if is_terminal or not isinstance(error, OSError) or error.errno in READER_IS_GONE:
        return ""
    return f"Standard output cannot be written: {(error.strerror or 'refused').lower()}. This node has to end."


def tell(sentence: str) -> None:
    """Says it on standard error, if there is one."""
    with contextlib.suppress(OSError, ValueError, AttributeError, MemoryError):
        print(sentence, file=sys.stderr, flush=True)


def end_at_once() -> None:
    """Nothing can be done any more without memory."""
    with contextlib.suppress(OSError):
        os.write(2, NO_MEMORY.encode() + b"\n")
    os._exit(EXIT_SHORT)


def catch_uncaught() -> None:
    """Lack of memory is a sentence and a code of its own even while the program is being loaded."""
    before = sys.excepthook

    def on_uncaught(kind: Any, error: Any, traceback: Any) -> None:
        if is_memory_short(error):
            end_at_once()
        before(kind, error, traceback)
    sys.excepthook = on_uncaught


class MemoryWatch(logging.Handler):
    """Hears that some thread could not go on for lack of memory: each of them logs what it drops."""

    def __init__(self, on_short: Callable[[], None]) -> None:
        super().__init__(logging.ERROR)
        self._on_short = on_short

    def emit(self, record: logging.LogRecord) -> None:
        """Called by `logging`: a traceback says that memory is short."""
        error = record.exc_info[1] if record.exc_info else None
        if is_memory_short(error) and not isinstance(error, OSError):   # a call that is refused is tried again
            self._on_short()


def drain(stream: Any) -> str:
    """Has written what waits in a stream of ours, so that nothing is left for the interpreter's end to fail at.

    The sentence about it, or an empty one.
    """
    try:
        if stream is not None:
            stream.flush()
    except (OSError, ValueError) as error:
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return output_trouble(error, False)
    return ""
