"""Where a person's lines come from: a pipe, the system's readline, or the keys themselves."""

from __future__ import annotations

import codecs
import contextlib
import ctypes
import locale
import os
import queue
import re
import select
import signal
import sys
import threading
import time
import unicodedata
from typing import Any, Callable, Iterable, Iterator, List, Optional

from prompt.lines import place_of
from protocol import mishaps
from protocol.looks import UNPRINTABLE

log = mishaps.logger("node")

IDLE_SECONDS = 0.1                  # how often a waiting prompt looks for what arrived
PIPED_SECONDS = 0.5                 # the same where nothing is drawn, and whatever arrives says so
STUCK_SECONDS = 0.7                 # without such a look: readline waits for a key that the terminal has thrown away
LINE_END = "\u23ce"                 # how the end of a line looks within a paste of several
PASTE_BYTES_MAX = 1 << 20           # of a paste as keys
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


class ReadlineReader:
    """GNU readline's editing and history, with messages drawn between two keystrokes.

    Drawing from another thread would race with readline about the cursor, and Python's readline module does not tell
    where the cursor is. But while readline waits for a key it calls PyOS_InputHook ten times a second, on this very
    thread; and readline itself knows how to clear the rows of its line and how to draw them again, whatever their
    width, wrapping, search mode or cursor. These symbols come by ctypes; where one is missing (libedit, a static
    build) ImportError or AttributeError says so, and KeyReader takes over.
    """

    def __init__(self) -> None:
        import readline
        if "libedit" in (readline.__doc__ or "") or getattr(readline, "backend", "readline") != "readline":
            raise ImportError("libedit does not tell which rows it has drawn")
        # PyDLL, not CDLL: no other thread runs while readline's state is being used.
        self._library = library = ctypes.PyDLL(getattr(readline, "__file__", None))
        self._clear, self._draw = library.rl_clear_visible_line, library.rl_forced_update_display
        self._set, self._unset = library.rl_prep_terminal, library.rl_deprep_terminal
        self._enter = (library.rl_callback_sigcleanup, library.rl_replace_line, library.rl_stuff_char,
                       library.rl_callback_read_char)
        self._erase_empty = ctypes.c_int.in_dll(library, "rl_erase_empty_line")
        self._flush_c = ctypes.PyDLL(None).fflush
        self._hook_pointer = ctypes.c_void_p.in_dll(ctypes.pythonapi, "PyOS_InputHook")
        self._hook = ctypes.PYFUNCTYPE(ctypes.c_int)(self._on_idle)
        # Ctrl-Z has the terminal throw away what nobody has read. If readline was just about to read it, it waits there
        # for the next key and calls no hook but this one, at a signal: SIGALRM, when it was not idle for so long.
        self._woken = ctypes.PYFUNCTYPE(ctypes.c_int)(self._on_woken)
        self._signal_hook = ctypes.c_void_p()
        with contextlib.suppress(ValueError):   # before readline 6.3
            self._signal_hook = ctypes.c_void_p.in_dll(library, "rl_signal_event_hook")
        self._idle: Callable[[], None] = lambda: None
        self._is_left = self._is_to_leave = False
        self._get_line, self._forget, self._typed = readline.get_line_buffer, readline.clear_history, ""
        self._history_length, self._remove = readline.get_current_history_length, readline.remove_history_item
        self._history_item = readline.get_history_item
        self._point = ctypes.c_int.in_dll(library, "rl_point")
        self._encoding, self._mark = locale.getpreferredencoding(False), LINE_END
        if LINE_END.encode(self._encoding, "replace") == b"?":
            self._mark = "|"
        self._is_pasted, self.entered = False, ""
        self.takes_pastes = ctypes.c_int.in_dll(library, "rl_readline_version").value >= 0x700
        if self.takes_pastes:
            readline.parse_and_bind(r'"\e[200~": bracketed-paste-begin')

    def read(self, prompt: str, idle: Callable[[], None]) -> str:
        """The next line; EOFError for Ctrl-D; when `idle` raises Interrupted, that, with the line cleared."""
        self._idle, self._is_left, self._is_pasted, self._is_to_leave = idle, False, False, False
        self._hook_pointer.value = ctypes.cast(self._hook, ctypes.c_void_p).value
        self._signal_hook.value = ctypes.cast(self._woken, ctypes.c_void_p).value
        try:
            line = input(prompt)
        finally:
            self._hook_pointer.value = self._signal_hook.value = None
            self._erase_empty.value = 0
            signal.setitimer(signal.ITIMER_REAL, 0.0)
        if self._is_left:
            raise Interrupted
        self.entered = line
        return (line.replace(self._mark, "\n") if self._is_pasted else line).rstrip("\n")

    def _on_woken(self) -> int:
        """As idle, but the line cannot be left from here: who wants that says so again in a moment."""
        signal.setitimer(signal.ITIMER_REAL, STUCK_SECONDS)
        try:
            if not self._is_left:
                self._idle()
        except Interrupted:
            self._is_to_leave = True
        except Exception:
            log.exception("while drawing")
        return 0

    def _on_idle(self) -> int:
        try:
            if not self._is_left:
                signal.setitimer(signal.ITIMER_REAL, STUCK_SECONDS)
                self._fold_paste()
                self._idle()
                if self._is_to_leave:
                    raise Interrupted
        except Interrupted:
            self._leave()
        except Exception:
            log.exception("while drawing")
        return 0

    def _fold_paste(self) -> None:
        """A paste of several lines may be higher than the window: it is shown as one, with marks."""
        line = self._get_line()
        if "\n" not in line:
            return
        folded = line.rstrip("\n").replace("\n", self._mark)
        before = self._encoded(line)[:self._point.value].rstrip(b"\n").replace(b"\n", self._encoded(self._mark))
        self._is_pasted = True
        self.erase()
        self._enter[1](self._encoded(folded), 0)
        self._point.value = len(before)
        self.redraw()

    def _encoded(self, text: str) -> bytes:
        return text.encode(self._encoding, "surrogateescape")

    def complete_by(self, complete: Callable[[str], List[str]], show: Callable[[List[str]], None]) -> None:
        """Tab: `complete(what stands before the cursor)` gives what may stand there, and `show` gets several."""
        import readline
        found: List[str] = []

        def match(text: str, state: int) -> Optional[str]:
            if state == 0:
                found[:] = complete(text)
            return found[state] if state < len(found) else None
        readline.set_completer_delims("")       # the whole of it
        readline.set_completer(match)
        readline.set_completion_display_matches_hook(lambda text, matches, width: show(list(matches)))
        readline.parse_and_bind("tab: complete")
        readline.parse_and_bind("set show-all-if-ambiguous on")

    def _leave(self) -> None:
        # An exception cannot pass through readline from here, so an empty line is entered in the person's place, and
        # the alarm ends the select() that Python goes back to.
        self._is_left, self._typed = True, self._get_line()
        clean, replace, stuff, read = self._enter
        clean()
        self.erase()
        replace(b"", 1)
        self._erase_empty.value = 1
        stuff(ord("\n"))
        # Where keys wait, or the terminal has closed, Python itself goes on to read: a second time would abort.
        if not select.select([0], [], [], 0)[0]:
            read()
        signal.setitimer(signal.ITIMER_REAL, 0.005, 0.05)

    def typed(self) -> str:
        """What stood in the line when it was interrupted."""
        return self._typed

    def forget(self) -> None:
        """Empties the history: answers to questions are no commands."""
        self._forget()

    def unlearn(self, line: str) -> None:
        """Takes the last line out of the history, if it is this one: it was the answer to a question."""
        length = self._history_length()
        if length and self._history_item(length) == line:
            self._remove(length - 1)

    def erase(self) -> None:
        """Clears the rows of the line, and leaves the cursor at the start of the first."""
        self._clear()
        self._flush_c(None)

    def redraw(self) -> None:
        """Draws prompt, line and cursor from where the cursor of the terminal is."""
        self._draw()

    def rest(self) -> None:
        """Leaves the terminal as it was found, in the middle of a line."""
        self._unset()

    def wake(self) -> None:
        """Sets the terminal again, which another program has had."""
        self._unset()                           # else readline believes that it is set
        self._set(1)


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
        deadline = time.monotonic() + IDLE_SECONDS
        while not msvcrt.kbhit():                           # type: ignore[attr-defined, unused-ignore]
            if time.monotonic() > deadline:
                return []
            time.sleep(0.01)
        key = msvcrt.getwch()                               # type: ignore[attr-defined, unused-ignore]
        if key in "\x00\xe0" and msvcrt.kbhit():            # type: ignore[attr-defined, unused-ignore]
            return [KeyReader.WINDOWS.get(msvcrt.getwch(), "none")]     # type: ignore[attr-defined, unused-ignore]
        return [key]


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
