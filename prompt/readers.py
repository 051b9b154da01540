"""Where a person's lines come from: a pipe; at a terminal readline (editing.py), or the keyboard (keyboard.py)."""

from __future__ import annotations

import codecs
import contextlib
import os
import queue
import threading
from typing import Any, Callable, Iterable, Iterator, List, Optional

IDLE_SECONDS = 0.1                  # how often a waiting prompt looks for what arrived
PIPED_SECONDS = 0.5                 # the same where nothing is drawn, and whatever arrives says so
LINE_END = "\u23ce"                 # how the end of a line looks within a paste of several
NO_LINE = object()


def next_of(inbox: queue.SimpleQueue[Any], wait: float) -> Any:
    """What comes next, or queue.Empty after so many seconds.

    Not by get(timeout) alone: up to Python 3.10 it may wait for ever if its time is up while it tries (the time that is
    left turns negative, which means no end). An attempt without waiting leaves the queue in a state that it bears.
    """
    try:
        return inbox.get_nowait()
    except queue.Empty:
        if wait <= 0:
            raise
    return inbox.get(timeout=wait)


def decoded(chunks: Iterable[bytes]) -> Iterator[str]:
    """The text in bytes as they come; UTF-8, or UTF-16 as some shells on Windows write it, with its mark before it."""
    head, decoder = b"", None  # type: bytes, Any
    for data in chunks:
        if decoder is None:
            head += data
            if head in (b"\xff", b"\xfe"):     # half of a mark
                continue
            is_wide = head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
            decoder, data = codecs.getincrementaldecoder("utf-16" if is_wide else "utf-8")("replace"), head
        yield decoder.decode(data)


def without_mark(line: str) -> str:
    """A line without the byte-order mark that an editor put before a file: it is no part of a command."""
    return line[1:] if line.startswith("\ufeff") else line


class Interrupted(Exception):
    """Ends the reading of a line: a signal came, or the program is over."""


class PipeReader:
    """Lines of standard input where no line can be edited: a thread reads, so that messages are shown meanwhile."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.lines: queue.SimpleQueue[Any] = queue.SimpleQueue()    # None at their end, NO_LINE for `look_soon`
        self.thread: Optional[threading.Thread] = None
        self._is_waiting = False

    def read(self, prompt: str, idle: Callable[[], None]) -> str:
        """The next line; EOFError at the end of input."""
        if self.thread is None:
            self.thread = threading.Thread(target=self._run, name="input", daemon=True)
            self.thread.start()
        while True:
            self._is_waiting = True         # before it looks: what arrives from now on ends the waiting
            idle()
            with contextlib.suppress(queue.Empty):
                line = next_of(self.lines, PIPED_SECONDS)
                if line is None:
                    self.lines.put(None)
                    raise EOFError
                if line is not NO_LINE:
                    return str(line)

    def look_soon(self) -> None:
        """From any thread, or a signal's handler: something arrived for whoever waits in `read`."""
        if self._is_waiting:
            self._is_waiting = False        # one is enough
            self.lines.put(NO_LINE)

    def _run(self) -> None:
        # os.read, because sys.stdin's own lock, held by a waiting thread, aborts the interpreter at exit.
        rest = ""
        with contextlib.suppress(OSError):
            for text in decoded(iter(lambda: os.read(self.descriptor, 65536), b"")):
                *lines, rest = (rest + text).split("\n")
                for line in lines:
                    self.lines.put(without_mark(line))
        if rest:
            self.lines.put(without_mark(rest))
        self.lines.put(None)

    def forget(self) -> None:
        """There is no history here."""

    def complete_by(self, complete: Callable[[str], List[str]], show: Callable[[List[str]], None]) -> None:
        """There is no Tab here."""

    def unlearn(self, line: str) -> None:
        """There is no history here."""

    def erase(self) -> None:
        """Nothing is drawn here."""

    def redraw(self) -> None:
        """Nothing is drawn here."""
