"""Where a one-line form tells things: results to standard output, all else to standard error, or all as JSON lines.

With `--json` every object goes to standard output. How a transfer stands is drawn on standard error if that is a
terminal. `StreamWriter` is how the content of a file gets to standard output.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
import time
from typing import Any, Callable, Optional, Tuple

from prompt import json_lines
from prompt.lines import progress_line
from protocol import results

PROGRESS_SECONDS = 1.0          # between two objects about one transfer


class OutputLost(Exception):
    """Standard output takes no more; says why."""


class Ended(Exception):
    """Ends the run with this exit code; a sentence says why."""

    def __init__(self, code: int, why: str = "") -> None:
        super().__init__(why)
        self.code, self.why = code, why


def why_lost(error: Exception) -> str:
    """The sentence for it."""
    if isinstance(error, BrokenPipeError):
        return "Whoever read the output has ended before all of it was written."
    return f"Standard output takes no more: {(getattr(error, 'strerror', None) or 'it is closed').lower()}."


class Output:
    """What a person or a script reads of a one-line form."""

    def __init__(self, is_json: bool, is_stream: bool) -> None:
        self.is_json, self.is_stream = is_json, is_stream
        self.lost = ""                          # why standard output takes no more
        self.is_reader_gone = False             # that is why
        self._can_redraw = _is_terminal(sys.stderr) and os.environ.get("TERM") != "dumb"
        self._is_drawn = False
        self._told_at = float("-inf")           # when a progress object was written

    @property
    def is_lost(self) -> bool:
        return bool(self.lost)

    def check(self) -> None:
        """OutputLost if standard output takes no more."""
        if self.lost:
            raise OutputLost(self.lost)

    def lose(self, error: Exception) -> None:
        """It could not be written to; from any thread."""
        self.lost = self.lost or why_lost(error)
        self.is_reader_gone = isinstance(error, BrokenPipeError)

    def result(self, told: Optional[json_lines.Object], line: str) -> None:
        """What was asked for: as an object, or as a line."""
        if self.is_json and told is not None:
            self._write(json_lines.line_of(told))
        elif not self.is_json:
            self._write(line)

    def aside(self, event: Any, line: str) -> None:
        """What is told besides."""
        if not self.is_json:
            self._remark(line)
            return
        told = json_lines.object_of(event)
        if told is not None:
            self._write(json_lines.line_of(told))

    def remark(self, line: str) -> None:
        """What is for a person alone."""
        if not self.is_json:
            self._remark(line)

    def fail(self, code: int, why: str) -> None:
        """Why it ends with this exit code."""
        if self.is_json and not self.lost:
            try:
                self._write(json_lines.line_of({"event": "error", "code": code, "reason": why}))
            except OutputLost:
                self._remark(f"!! {self.lost}")
        elif why:
            self._remark(f"!! {why}")

    def progress(self, event: results.Progress) -> None:
        """How a transfer stands."""
        if event.row.direction != "R":
            return
        if self._can_redraw:
            self._is_drawn = True
            self._complain("\r" + progress_line(event.row, self._columns() - 1) + "\x1b[K")
        now = time.monotonic()
        if self.is_json and now - self._told_at >= PROGRESS_SECONDS:
            self._told_at = now
            self._write(json_lines.line_of(json_lines.object_of(event) or {}))

    def close(self) -> None:
        """Leaves a clean line."""
        self._clear()

    def width(self) -> Optional[int]:
        """Where to cut a row; nowhere if nobody's window is concerned, or it does not say how wide it is."""
        try:
            columns = os.get_terminal_size(sys.stdout.fileno()).columns if _is_terminal(sys.stdout) else 0
        except (OSError, ValueError, AttributeError):
            return None
        return max(columns, 10) - 1 if columns else None

    def _columns(self) -> int:
        try:
            return max(os.get_terminal_size(sys.stderr.fileno()).columns or 80, 10)
        except (OSError, ValueError, AttributeError):
            return 80

    def _write(self, line: str) -> None:
        self.check()
        self._clear()
        try:
            sys.stdout.write(line + "\n")
            sys.stdout.flush()
        except (OSError, ValueError, AttributeError) as error:
            self.lose(error)
            self.check()

    def _remark(self, line: str) -> None:
        self._clear()
        self._complain(line + "\n")

    def _clear(self) -> None:
        if self._is_drawn:
            self._is_drawn = False
            self._complain("\r\x1b[K")

    @staticmethod
    def _complain(text: str) -> None:
        try:
            sys.stderr.write(text)
            sys.stderr.flush()
        except (OSError, ValueError, AttributeError):   # there is nobody who would read it
            pass


class StreamWriter:
    """Writes a file's bytes to standard output, on a thread of its own: who reads them may be slow, or stand still."""

    def __init__(self, call: Callable[[Callable[[float], None]], None], output: Output) -> None:
        self._call = call                       # has a closure run on the node thread
        self._output = output
        self._waiting: queue.SimpleQueue[Tuple[bytes, Callable[[float], None]]] = queue.SimpleQueue()
        self._descriptor = sys.stdout.fileno()
        if os.name == "nt":
            import msvcrt
            msvcrt.setmode(self._descriptor, os.O_BINARY)  # type: ignore[attr-defined]
        threading.Thread(target=self._run, name="output", daemon=True).start()

    def take(self, data: bytes, more: Callable[[float], None]) -> None:
        """From the node thread: write this, then have `more` called there."""
        self._waiting.put((data, more))

    def _run(self) -> None:
        # os.write, because sys.stdout's own lock, held by a thread that waits, aborts the interpreter at exit.
        try:
            while True:
                data, more = self._waiting.get()
                rest = memoryview(data)
                while rest:
                    rest = rest[os.write(self._descriptor, rest):]
                self._call(more)
        except OSError as error:
            self._output.lose(error)


def _is_terminal(stream: Any) -> bool:
    try:
        return bool(stream) and stream.isatty()
    except ValueError:
        return False
