"""A person's lines by the keys themselves, for terminals without GNU readline, and for what shall not be seen."""

from __future__ import annotations

import codecs
import contextlib
import os
import re
import select
import sys
import time
import unicodedata
from typing import Any, Callable, Iterator, List, Optional

from prompt.lines import place_of
from prompt.readers import IDLE_SECONDS, LINE_END, Interrupted
from protocol.looks import UNPRINTABLE

PASTE_BYTES_MAX = 1 << 20           # of a paste as keys


class KeyReader:
    """A small line editor with history, for terminals without GNU readline (Windows, macOS's libedit)."""

    MOVES = {"\x01": "home", "\x05": "end", "\x02": "left", "\x06": "right", "\x10": "up", "\x0e": "down",
             "\x7f": "back", "\x08": "back", "\x15": "kill", "\x0b": "cut", "\x17": "word", "\r": "enter",
             "\n": "enter", "\x04": "eof", "\x03": "stop", "\t": "tab",
             "\x1b[A": "up", "\x1b[B": "down", "\x1b[C": "right", "\x1b[D": "left", "\x1b[H": "home", "\x1b[F": "end",
             "\x1bOA": "up", "\x1bOB": "down", "\x1bOC": "right", "\x1bOD": "left", "\x1bOH": "home", "\x1bOF": "end",
             "\x1b[1~": "home", "\x1b[4~": "end", "\x1b[3~": "delete"}
    WINDOWS = {"H": "up", "P": "down", "M": "right", "K": "left", "G": "home", "O": "end", "S": "delete"}

    def __init__(self, write: Callable[[str], None], columns: Callable[[], int]) -> None:
        self._write, self._columns = write, columns
        self._prompt, self._text, self._cursor, self._before = "", "", 0, ""
        self._keys: Any = None                  # from the first line on
        self._paste: Optional[List[str]] = None     # what came of one that has not ended
        self._is_pasted, self.entered, self.takes_pastes = False, "", os.name != "nt"
        self._complete: Callable[[str], List[str]] = lambda before: []
        self._show: Callable[[List[str]], None] = lambda matches: None
        self._past: List[str] = []
        self._ahead: List[str] = []
        self._at = 0

    def read(self, prompt: str, idle: Callable[[], None]) -> str:
        """The next line; EOFError for Ctrl-D on an empty one, Interrupted for Ctrl-C."""
        self._prompt, self._text, self._cursor, self._before = prompt, "", 0, ""
        self._paste, self._is_pasted = None, False
        self._at = len(self._past)
        self._keys = self._keys or (_WindowsKeys() if os.name == "nt" else _Keys())
        with self._keys:
            self.redraw()
            try:
                while True:
                    idle()
                    self._ahead += self._keys.next() if not self._ahead else []
                    while self._ahead:          # what is typed ahead waits for the next line
                        if self._on_key(self._ahead.pop(0)):
                            return self._entered()
            except Interrupted:
                self.erase()
                raise

    def _entered(self) -> str:
        self._cursor = len(self._text)
        self.erase()
        self._write(self._prompt + self._text + "\r\n")
        if self._text.strip() and self._text not in self._past[-1:]:
            self._past.append(self._text)
        self.entered = self._text
        return self._text.replace(LINE_END, "\n") if self._is_pasted else self._text

    def _on_key(self, key: str) -> bool:
        """Edits the line by one key; True when it is entered."""
        if key == "\x1b[200~" or self._paste is not None:
            self._on_pasted(key)
            return False
        move = self.MOVES.get(key, key if len(key) > 1 else "")
        if move == "stop":
            raise Interrupted
        if move == "eof" and not self._text:
            raise EOFError
        if move == "enter":
            return True
        self._edit(move, key)
        self.erase()
        self.redraw()
        return False

    def _edit(self, move: str, key: str) -> None:
        """One key: move the cursor, change the text at it, go through the past, or complete a word."""
        before, after = self._text[:self._cursor], self._text[self._cursor:]
        if move in ("left", "right", "home", "end"):
            step = {"left": self._cursor - 1, "right": self._cursor + 1, "home": 0, "end": len(self._text)}[move]
            self._cursor = max(0, min(step, len(self._text)))
            return
        if move == "tab":
            matches = self._complete(before)
            common = os.path.commonprefix(matches)
            before = common if len(matches) == 1 or len(common) >= len(before) else before
            if len(matches) > 1:
                self._show(matches)
        elif move in ("up", "down"):
            self._at = max(0, min(self._at + (-1 if move == "up" else 1), len(self._past)))
            before, after = (self._past + [""])[self._at], ""
        elif move == "back":
            before = before[:-1]
        elif move in ("delete", "eof"):
            after = after[1:]
        elif move == "cut":
            after = ""
        elif move == "kill":
            before = ""
        elif move == "word":
            before = before.rstrip()[:len(before.rstrip()) - len(before.rstrip().split(" ")[-1])]
        elif len(key) == 1 and unicodedata.category(key) not in UNPRINTABLE:
            before += key
        self._text, self._cursor = before + after, len(before)

    def _on_pasted(self, key: str) -> None:
        """A key of a paste: nothing of it is a command, and its lines are one."""
        if self._paste is None:
            self._paste = []
        elif key != "\x1b[201~":
            if len(key) == 1 and len(self._paste) < PASTE_BYTES_MAX:
                self._paste.append(key)
            return
        else:
            text = "".join(self._paste).replace("\r\n", "\n").replace("\r", "\n").rstrip("\n").replace("\t", " ")
            self._paste, self._is_pasted = None, self._is_pasted or "\n" in text
            drawn = "".join(c for c in text.replace("\n", LINE_END) if unicodedata.category(c) not in UNPRINTABLE)
            self._text = self._text[:self._cursor] + drawn + self._text[self._cursor:]
            self._cursor += len(drawn)
            self.erase()
            self.redraw()

    def complete_by(self, complete: Callable[[str], List[str]], show: Callable[[List[str]], None]) -> None:
        """Tab: `complete(what stands before the cursor)` gives what may stand there, and `show` gets several."""
        self._complete, self._show = complete, show

    def typed(self) -> str:
        """What stands in the line now."""
        return self._text

    def forget(self) -> None:
        """Empties the history: answers to questions are no commands."""
        self._past = []

    def unlearn(self, line: str) -> None:
        """Takes the last line out of the history, if it is this one: it was the answer to a question."""
        if self._past[-1:] == [line]:
            del self._past[-1:]

    def erase(self) -> None:
        """Clears the rows of the line, and leaves the cursor at the start of the first."""
        row = place_of(self._before, self._columns())[0]    # the window may have another width than it had then
        self._write((f"\x1b[{row}A" if row else "") + "\r\x1b[J")
        self._before = ""

    def redraw(self) -> None:
        """Draws prompt, line and cursor from where the cursor of the terminal is."""
        columns, text = self._columns(), self._prompt + self._text
        end_row, end_column = place_of(text, columns)
        self._before = text[:len(self._prompt) + self._cursor]
        row, column = place_of(self._before, columns)
        # A full row leaves the terminal's cursor on its last column, waiting: the new line makes it certain.
        out = text + ("\r\n" if end_column == 0 and end_row else "")
        out += f"\x1b[{end_row - row}A" if end_row > row else ""
        self._write(out + "\r" + (f"\x1b[{column}C" if column else ""))

    def rest(self) -> None:
        """Leaves the terminal as it was found, in the middle of a line."""
        self._keys.rest()

    def wake(self) -> None:
        """Sets the terminal again, which another program has had."""
        self._keys.wake()


class HiddenReader(KeyReader):
    """A line that is not shown while it is typed, and that no history keeps."""

    def redraw(self) -> None:
        """Draws the prompt alone."""
        hidden, self._text, self._cursor = (self._text, self._cursor), "", 0
        super().redraw()
        self._text, self._cursor = hidden

    def _entered(self) -> str:
        self.erase()
        self._write(self._prompt + "\r\n")
        return self._text


@contextlib.contextmanager
def without_echo() -> Iterator[None]:
    """Standard input is a terminal that does not show what is typed; nothing where it has no such mode."""
    try:
        import termios
        descriptor = sys.stdin.fileno()
        mode = termios.tcgetattr(descriptor)
    except (ImportError, OSError, ValueError, AttributeError, termios.error):
        yield
        return
    quiet = mode[:3] + [mode[3] & ~termios.ECHO | termios.ECHONL] + mode[4:]
    termios.tcsetattr(descriptor, termios.TCSADRAIN, quiet)
    try:
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, mode)


class _Keys:
    """The keys of a terminal of Unix, which is in key-by-key mode while this is entered."""

    def __init__(self) -> None:
        self._descriptor = sys.stdin.fileno()
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest = ""                         # the begin of an escape sequence

    def __enter__(self) -> None:
        import termios
        import tty
        self._mode = termios.tcgetattr(self._descriptor)
        tty.setcbreak(self._descriptor, termios.TCSADRAIN)

    def __exit__(self, *_: Any) -> None:
        self.rest()

    def wake(self) -> None:
        """Key by key again. A terminal that has closed (SIGCONT comes behind SIGHUP) is found out by reading."""
        import termios
        import tty
        with contextlib.suppress(termios.error):
            tty.setcbreak(self._descriptor, termios.TCSADRAIN)

    def rest(self) -> None:
        import termios
        with contextlib.suppress(termios.error):
            termios.tcsetattr(self._descriptor, termios.TCSADRAIN, self._mode)

    def next(self) -> List[str]:
        """What was typed, after a moment at most; EOFError when the terminal is gone."""
        if not select.select([self._descriptor], [], [], IDLE_SECONDS)[0]:
            text, self._rest = self._rest, ""   # it was no more than that
            return split_keys(text)
        try:
            data = os.read(self._descriptor, 4096)
        except OSError:                         # the terminal has closed
            data = b""
        if not data:
            raise EOFError
        text = self._rest + self._decoder.decode(data)
        begun = re.search(r"\x1b(\[[0-9;]*|O)?$", text)
        self._rest = begun.group() if begun else ""
        return split_keys(text[:len(text) - len(self._rest)])


class _WindowsKeys:
    """The keys of a Windows console."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: Any) -> None:
        pass

    def rest(self) -> None:
        """There is no Ctrl-Z here."""

    wake = rest

    def next(self) -> List[str]:
        """What was typed, after a moment at most."""
        import msvcrt
        console: Any = msvcrt
        deadline = time.monotonic() + IDLE_SECONDS
        while not console.kbhit():
            if time.monotonic() > deadline:
                return []
            time.sleep(0.01)
        key = console.getwch()
        if not (key in "\x00\xe0" or "\ud800" <= key < "\udc00") or not console.kbhit():
            return [key]
        more = console.getwch()
        if key == "\x00" or (key == "\xe0" and (more.isalnum() or more > "~")):
            return [KeyReader.WINDOWS.get(more, "none")]
        # \xe0 is a letter, too, of which a paste may have one before a blank; and a smile comes in two halves.
        return list((key + more).encode("utf-16", "surrogatepass").decode("utf-16", "replace"))


def split_keys(text: str) -> List[str]:
    """What a terminal sent, cut into keys: an escape sequence is one."""
    keys, at = [], 0
    while at < len(text):
        end = at + 1
        if text[at] == "\x1b" and text[end:end + 1] in ("[", "O"):
            end += 1
            while end < len(text) and not "@" <= text[end] <= "~":
                end += 1
            end += 1
        keys.append(text[at:end])
        at = end
    return keys
