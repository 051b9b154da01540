"""The terminal: how lines and progress are drawn, around the one that is being typed (read as readers.py has it)."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Any, Callable, List, Optional

from prompt.keyboard import HiddenReader, KeyReader, without_echo
from prompt.lines import place_of
from prompt.readers import Interrupted, PipeReader
from prompt.shortage import output_trouble
from prompt.stopping import Stops
from prompt.table import WRAPPED_UP_TO, wrapped
from protocol import mishaps
from protocol.looks import text_width

log = mishaps.logger("node")


class Terminal:
    """All output: lines, and on a terminal a progress line that stays just above the line being typed.

    `say` and `show_progress` only remember; `flush` draws, once for all that came together. Main thread only.
    """

    def __init__(self, can_edit: Optional[str] = None) -> None:
        self.is_asking = _is_terminal(sys.stdin)
        self._is_window = _is_terminal(sys.stdout)      # asked now: one that has closed is none any more
        self.can_redraw = self._is_window and os.environ.get("TERM") != "dumb"
        self.has_colour = self.can_redraw and not os.environ.get("NO_COLOR")
        self.is_reading = self.is_broken = False
        self.trouble = ""                       # why nothing can be said any more, if that is a failure
        self._pending: List[str] = []
        self._bell = ""
        self._progress = self._drawn = ""       # what should stand there, and what does
        self._drawn_columns = 0                 # the width of the window then
        self._has_pastes = False                # the terminal marks them
        self.stops = Stops(self)
        self.reader: Any = self._choose_reader(can_edit or os.environ.get("NODE_EDITOR", ""))

    def _choose_reader(self, wish: str) -> Any:
        if not (self.is_asking and self.can_redraw):
            return PipeReader(sys.stdin.fileno() if sys.stdin else os.open(os.devnull, os.O_RDONLY))
        if os.name == "nt":
            os.system("")                       # makes the Windows console understand escape sequences
        with contextlib.suppress(ImportError, AttributeError, ValueError, OSError):
            if wish != "keys":
                from prompt.editing import ReadlineReader
                return ReadlineReader()
        return KeyReader(self.write, self.columns)

    def columns(self) -> int:
        """The width of the window now."""
        try:
            return max(os.get_terminal_size(sys.stdout.fileno()).columns or 80, 10)
        except (OSError, ValueError, AttributeError):
            return 80

    def page(self) -> Optional[int]:
        """How many rows of a list a person sees at once; None where nobody looks at a window."""
        if not (self.is_asking and self.can_redraw):
            return None
        try:
            return max((os.get_terminal_size(sys.stdout.fileno()).lines or 24) - 4, 5)
        except (OSError, ValueError, AttributeError):
            return 20

    def width(self) -> Optional[int]:
        """Where to cut a line: nowhere if nobody's window is concerned."""
        return self.columns() - 1 if self.can_redraw else None

    def write(self, text: str) -> None:
        """Writes at once; a terminal that is gone is remembered, not raised."""
        if self.is_broken or not text:
            return
        try:
            sys.stdout.write(text)
            sys.stdout.flush()
        except (OSError, ValueError, AttributeError) as error:      # closed, or there never was one
            self.is_broken, self.trouble = True, output_trouble(error, self._is_window)

    def say(self, line: str, look: str = "") -> None:
        """One line, above what is being typed, when `flush` comes; in a narrow window no word of it is broken.

        `look`: the number of how all of it is drawn.
        """
        if self.can_redraw and self.columns() <= WRAPPED_UP_TO:
            indent = " " * (len(line) - len(line.lstrip(" ")) + 2)
            line = "\n".join(wrapped(line, self.columns() - 1, indent))
        self._pending.append(f"\x1b[{look}m{line}\x1b[0m" if look and self.has_colour else self._coloured(line))

    def ring(self) -> None:
        """The bell, together with the next line."""
        self._bell = "\a" if self.can_redraw else ""

    def _coloured(self, line: str) -> str:
        code = {"OK": "32", "!!": "31", "* ": "36"}.get(line[:2]) if self.has_colour else None
        return f"\x1b[{code}m{line[:2]}\x1b[0m{line[2:]}" if code else line

    def show_progress(self, line: str) -> None:
        """What the progress line should show; nothing where it cannot be redrawn."""
        self._progress = line if self.can_redraw else ""

    def flush(self) -> None:
        """Draws what is new, and all again in a window of another width."""
        progress = "" if self.stops.is_away else self._progress
        has_prompt = self.is_reading and not isinstance(self.reader, PipeReader) and not self.stops.is_away
        is_resized = has_prompt and self.columns() != self._drawn_columns
        if not self._pending and progress == self._drawn and not is_resized:
            return
        self._drawn_columns = self.columns()
        if has_prompt:
            self.reader.erase()
        said = "".join(line + "\n" for line in self._pending)
        text = self._erased_progress(has_prompt) + said + progress + self._bell
        self._pending, self._drawn, self._bell = [], progress, ""
        self.write(text + ("\n" if has_prompt and progress else ""))
        if has_prompt:
            self.reader.redraw()

    def put_aside(self) -> None:
        """The shell has the terminal next: it finds it as it was, and the cursor where the prompt stood."""
        has_prompt = self.is_reading and not isinstance(self.reader, PipeReader)
        if has_prompt:
            self.reader.erase()
        self.write(self._erased_progress(has_prompt))
        self._drawn = ""
        self._take_pastes(False)
        if has_prompt:
            self.reader.rest()

    def _take_pastes(self, is_on: bool) -> None:
        """Has the terminal mark where a paste begins and ends (it does so between two lines, too)."""
        if is_on != self._has_pastes and getattr(self.reader, "takes_pastes", False):
            self._has_pastes = is_on
            self.write("\x1b[?2004h" if is_on else "\x1b[?2004l")

    def lose(self) -> None:
        """Another job has the terminal: nothing of what is on the screen is ours to clear."""
        self._drawn = ""

    def take_up(self) -> None:
        """The terminal is ours again, and the cursor stands on a fresh line: the typed line is drawn there."""
        self._drawn, self._drawn_columns = "", self.columns()
        self._take_pastes(True)
        if self.is_reading and not isinstance(self.reader, PipeReader):
            self.reader.wake()
            self.reader.redraw()

    def _erased_progress(self, is_above: bool) -> str:
        """What clears the progress line, from the row below it (`is_above`) or from its own end."""
        if not self.can_redraw or not (self._drawn or is_above):
            return ""
        rows = self._rows(self._drawn) if self._drawn else 0
        up = rows - (0 if is_above else 1)
        return (f"\x1b[{up}A" if up > 0 else "") + "\r\x1b[J"

    def _rows(self, text: str) -> int:
        return max(1, -(-text_width(text) // self.columns()))

    def read_line(self, prompt: str, idle: Callable[[], None]) -> str:
        """The next line typed or piped; `idle` is called about ten times a second and may `flush`."""
        self.flush()
        idle()                                  # in the background it waits there
        is_piped = isinstance(self.reader, PipeReader)
        if self.is_asking and is_piped:
            self.write(prompt)
        if self._drawn and not is_piped:
            self.write("\n")
        self._take_pastes(True)
        self.is_reading, self._drawn_columns = True, self.columns()
        try:
            line = self.reader.read(prompt, idle)
        except Interrupted:
            if not is_piped:
                self.write(self._erased_progress(True))
                self._drawn = ""
            raise
        except EOFError:
            if not is_piped:
                self.write("\n")
                self._drawn = ""
            raise
        finally:
            self.is_reading = False
        if self._drawn and not is_piped:        # the progress line goes down: it stays the last one
            entered = prompt + self.reader.entered
            up = self._rows(self._drawn) + place_of(entered, self.columns())[0] + 1
            self.write(f"\x1b[{up}A\r\x1b[J{entered}\n")
            self._drawn = ""
        return line

    def look_soon(self) -> None:
        """From any thread: something arrived. Who waits for keys looks ten times a second anyway."""
        if isinstance(self.reader, PipeReader):
            self.reader.look_soon()

    def read_hidden(self, prompt: str, idle: Callable[[], None]) -> str:
        """The same of a line that is not shown while it is typed."""
        if isinstance(self.reader, PipeReader):
            with without_echo():
                return self.read_line(prompt, idle)
        usual, self.reader = self.reader, HiddenReader(self.write, self.columns)
        try:
            return self.read_line(prompt, idle)
        finally:
            self.reader = usual

    def typed(self) -> str:
        """What stood in the line when its reading was interrupted."""
        return "" if isinstance(self.reader, PipeReader) else self.reader.typed()

    def close(self) -> None:
        """Leaves the terminal as it was found, with the cursor on a fresh line."""
        self._progress = ""
        self.flush()
        self.leave()

    def leave(self) -> None:
        """No line is read any more."""
        self._take_pastes(False)


def _is_terminal(stream: Any) -> bool:
    try:
        return bool(stream) and stream.isatty()
    except ValueError:
        return False
