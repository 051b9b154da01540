"""A person's lines by GNU readline: its editing and history, with what arrives drawn between two keystrokes."""

from __future__ import annotations

import contextlib
import ctypes
import locale
import select
import signal
from typing import Callable, List, Optional

from prompt.readers import LINE_END, Interrupted
from protocol import mishaps

log = mishaps.logger("node")

STUCK_SECONDS = 0.7                 # without a look: readline waits for a key that the terminal has thrown away


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
        return self._meanwhile(self._idle, self._leave_soon)

    def _on_idle(self) -> int:
        return self._meanwhile(self._look, self._leave)

    def _meanwhile(self, look: Callable[[], None], leave: Callable[[], None]) -> int:
        """What a hook does while readline waits for a key, through which no exception may pass; 0, as C wants it."""
        try:
            if not self._is_left:
                look()
        except Interrupted:
            leave()
        except Exception:
            log.exception("while drawing")
        return 0

    def _look(self) -> None:
        signal.setitimer(signal.ITIMER_REAL, STUCK_SECONDS)
        self._fold_paste()
        self._idle()
        if self._is_to_leave:
            raise Interrupted

    def _leave_soon(self) -> None:
        self._is_to_leave = True

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
        """Out of readline, with what was typed so far kept."""
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
