"""The program: questions, prompt, commands, what a person sees, and the threads.

    prompt thread (main)   owns the terminal; reads lines, draws everything; its inbox is `Console.inbox`
    node thread            owns the roles (`Peer`, and `Supernode` when it is one); its inbox is `NodeThread.inbox`
    disk thread            owns the library: everything that may block on a disk
    scanner thread         owns the scanner: looks for new and changed files to share
    network thread         owns the socket; made by `rdt.Transport`

A command is a closure put into the node's inbox; its answer, and every notification, is a closure put into the
console's. So nothing here needs a lock. Only this file prints, reads input or argv, and makes threads (`rdt` its own).
"""
from __future__ import annotations

import sys

if sys.version_info < (3, 9):  # noqa: UP036  said here, before an import fails
    sys.exit("Python 3.9 or newer is needed; this is %d.%d." % sys.version_info[:2])

import argparse
import codecs
import concurrent.futures
import contextlib
import ctypes
import functools
import getpass
import ipaddress
import logging
import os
import queue
import random
import select
import signal
import socket
import threading
import time
import unicodedata
from typing import TYPE_CHECKING, Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from protocol import lines, results
from protocol.commands import help_lines, parse_command, unknown_line
from protocol.lines import (
    UNPRINTABLE,
    file_cells,
    format_size,
    member_cells,
    mesh_line,
    place_of,
    progress_line,
    safe_text,
    share_lines,
    short_id,
    table,
    text_width,
    transfer_cells,
)

if TYPE_CHECKING:                       # `open_node` imports them, once the first line is on the screen
    import library as files
    import peer
    import rdt
    import supernode
    from disk.scanner import Scanner
    from protocol.content import LibraryError
    from protocol.shares import ScanResult

log = logging.getLogger("node")

DEFAULT_PORT = 6020
DEFAULT_FOLDER = "shared"
NAME_LENGTH_MAX = 32                # what the wire carries
CHAT_BYTES_MAX = 2048               # the same
IDLE_SECONDS = 0.1                  # how often a waiting prompt looks for what arrived
ANSWER_SECONDS = 0.5                # how long the prompt stays away for a command's answer
SCRIPT_ANSWER_SECONDS = 30.0        # the same for piped commands, which rely on each other
JOIN_SECONDS = 12.0                 # an outcome comes within 3 s; this is for when something is broken
SCANNER_STOP_SECONDS = 1.0          # it looks at its flag after every MiB
LEAVE_SECONDS = 3.0                 # a handover takes at most 2 s
PROGRESS_SECONDS = 30.0             # where no line can be redrawn: one line for this or for ...
PROGRESS_PERCENT = 10               # ... this much
WAITING_LINES_MAX = 10_000          # lines for a terminal that was stopped (Ctrl-S); then chat and comings are left out
DISPENSABLE = (results.ChatReceived, results.Joined, results.Left, results.Notice, results.Progress)
EVENTS_PER_TURN = 64                # of the node thread before it looks at its deadline

ANY_ROUTE = "198.51.100.1"          # an address that is nobody's: the default route leads there

EXIT_OK, EXIT_FAILED, EXIT_FLAGS, EXIT_ADDRESS, EXIT_INTERRUPTED = 0, 1, 2, 3, 130


def short_path(path: Any) -> str:
    """A local path as short as it can be said from here, safe to print."""
    text = os.fspath(path)
    with contextlib.suppress(ValueError, OSError):      # another drive; the current folder is gone
        relative = os.path.relpath(text)
        text = text if relative.startswith("..") else relative
    return safe_text(text, 4096)


def line_for(event: Any, folder: str = DEFAULT_FOLDER) -> str:
    """The line that tells a notification, with paths as short as they can be said from here."""
    if isinstance(event, results.DownloadDone):
        event = event._replace(path=short_path(event.path))
    return lines.line_for(event, folder)


# ---------------------------------------------------------------- the terminal

class Interrupted(Exception):
    """Ends the reading of a line: a signal came, or the program is over."""


class PipeReader:
    """Lines of standard input where no line can be edited: a thread reads, so that messages are shown meanwhile."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.lines: queue.SimpleQueue[Optional[str]] = queue.SimpleQueue()
        self.thread: Optional[threading.Thread] = None

    def read(self, prompt: str, idle: Callable[[], None]) -> str:
        """The next line; EOFError at the end of input."""
        if self.thread is None:
            self.thread = threading.Thread(target=self._run, name="input", daemon=True)
            self.thread.start()
        while True:
            idle()
            with contextlib.suppress(queue.Empty):
                line = self.lines.get(timeout=IDLE_SECONDS)
                if line is None:
                    self.lines.put(None)
                    raise EOFError
                return line

    def _run(self) -> None:
        # os.read, because sys.stdin's own lock, held by a waiting thread, aborts the interpreter at exit.
        decoder, rest = codecs.getincrementaldecoder("utf-8")("replace"), ""
        with contextlib.suppress(OSError):
            for data in iter(lambda: os.read(self.descriptor, 65536), b""):
                *lines, rest = (rest + decoder.decode(data)).split("\n")
                for line in lines:
                    self.lines.put(line)
        if rest:
            self.lines.put(rest)
        self.lines.put(None)

    def forget(self) -> None:
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
        self._enter = (library.rl_callback_sigcleanup, library.rl_replace_line, library.rl_stuff_char,
                       library.rl_callback_read_char)
        self._erase_empty = ctypes.c_int.in_dll(library, "rl_erase_empty_line")
        self._flush_c = ctypes.PyDLL(None).fflush
        self._hook_pointer = ctypes.c_void_p.in_dll(ctypes.pythonapi, "PyOS_InputHook")
        self._hook = ctypes.PYFUNCTYPE(ctypes.c_int)(self._on_idle)
        self._idle: Callable[[], None] = lambda: None
        self._is_left = False
        self._get_line, self._forget, self._typed = readline.get_line_buffer, readline.clear_history, ""

    def read(self, prompt: str, idle: Callable[[], None]) -> str:
        """The next line; EOFError for Ctrl-D; when `idle` raises Interrupted, that, with the line cleared."""
        self._idle, self._is_left = idle, False
        self._hook_pointer.value = ctypes.cast(self._hook, ctypes.c_void_p).value
        try:
            line = input(prompt)
        finally:
            self._hook_pointer.value, self._erase_empty.value = None, 0
            signal.setitimer(signal.ITIMER_REAL, 0.0)
        if self._is_left:
            raise Interrupted
        return line

    def _on_idle(self) -> int:
        try:
            if not self._is_left:
                self._idle()
        except Interrupted:
            self._leave()
        except Exception:
            log.exception("while drawing")
        return 0

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

    def erase(self) -> None:
        """Clears the rows of the line, and leaves the cursor at the start of the first."""
        self._clear()
        self._flush_c(None)

    def redraw(self) -> None:
        """Draws prompt, line and cursor from where the cursor of the terminal is."""
        self._draw()


class KeyReader:
    """A small line editor with history, for terminals without GNU readline (Windows, macOS's libedit)."""

    MOVES = {"\x01": "home", "\x05": "end", "\x02": "left", "\x06": "right", "\x10": "up", "\x0e": "down",
             "\x7f": "back", "\x08": "back", "\x15": "kill", "\x0b": "cut", "\x17": "word", "\r": "enter",
             "\n": "enter", "\x04": "eof", "\x03": "stop",
             "\x1b[A": "up", "\x1b[B": "down", "\x1b[C": "right", "\x1b[D": "left", "\x1b[H": "home", "\x1b[F": "end",
             "\x1bOA": "up", "\x1bOB": "down", "\x1bOC": "right", "\x1bOD": "left", "\x1bOH": "home", "\x1bOF": "end",
             "\x1b[1~": "home", "\x1b[4~": "end", "\x1b[3~": "delete"}
    WINDOWS = {"H": "up", "P": "down", "M": "right", "K": "left", "G": "home", "O": "end", "S": "delete"}

    def __init__(self, write: Callable[[str], None], columns: Callable[[], int]) -> None:
        self._write, self._columns = write, columns
        self._prompt, self._text, self._cursor, self._row = "", "", 0, 0
        self._past: List[str] = []
        self._ahead: List[str] = []
        self._at = 0

    def read(self, prompt: str, idle: Callable[[], None]) -> str:
        """The next line; EOFError for Ctrl-D on an empty one, Interrupted for Ctrl-C."""
        self._prompt, self._text, self._cursor, self._row = prompt, "", 0, 0
        self._at = len(self._past)
        with _key_source() as next_keys:
            self.redraw()
            try:
                while True:
                    idle()
                    self._ahead += next_keys() if not self._ahead else []
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
        return self._text

    def _on_key(self, key: str) -> bool:
        """Edits the line by one key; True when it is entered."""
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
        before, after = self._text[:self._cursor], self._text[self._cursor:]
        if move in ("left", "right", "home", "end"):
            step = {"left": self._cursor - 1, "right": self._cursor + 1, "home": 0, "end": len(self._text)}[move]
            self._cursor = max(0, min(step, len(self._text)))
            return
        if move in ("up", "down"):
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

    def typed(self) -> str:
        """What stands in the line now."""
        return self._text

    def forget(self) -> None:
        """Empties the history: answers to questions are no commands."""
        self._past = []

    def erase(self) -> None:
        """Clears the rows of the line, and leaves the cursor at the start of the first."""
        self._write((f"\x1b[{self._row}A" if self._row else "") + "\r\x1b[J")
        self._row = 0

    def redraw(self) -> None:
        """Draws prompt, line and cursor from where the cursor of the terminal is."""
        columns, text = self._columns(), self._prompt + self._text
        end_row, end_column = place_of(text, columns)
        self._row, column = place_of(text[:len(self._prompt) + self._cursor], columns)
        # A full row leaves the terminal's cursor on its last column, waiting: the new line makes it certain.
        out = text + ("\r\n" if end_column == 0 and end_row else "")
        out += f"\x1b[{end_row - self._row}A" if end_row > self._row else ""
        self._write(out + "\r" + (f"\x1b[{column}C" if column else ""))


@contextlib.contextmanager
def _key_source() -> Iterator[Callable[[], List[str]]]:
    """Gives a function that waits a moment for keys; the terminal is in key-by-key mode meanwhile."""
    if os.name == "nt":
        yield _windows_keys
        return
    import termios
    import tty
    descriptor, decoder = sys.stdin.fileno(), codecs.getincrementaldecoder("utf-8")("replace")
    mode = termios.tcgetattr(descriptor)

    def next_keys() -> List[str]:
        if not select.select([descriptor], [], [], IDLE_SECONDS)[0]:
            return []
        try:
            data = os.read(descriptor, 4096)
        except OSError:                         # the terminal has closed
            data = b""
        if not data:
            raise EOFError
        return split_keys(decoder.decode(data))

    try:
        tty.setcbreak(descriptor, termios.TCSADRAIN)
        yield next_keys
    finally:
        with contextlib.suppress(termios.error):
            termios.tcsetattr(descriptor, termios.TCSADRAIN, mode)


def _windows_keys() -> List[str]:
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


class Terminal:
    """All output: lines, and on a terminal a progress line that stays just above the line being typed.

    `say` and `show_progress` only remember; `flush` draws, once for all that came together. Main thread only.
    """

    def __init__(self, can_edit: Optional[str] = None) -> None:
        self.is_asking = _is_terminal(sys.stdin)
        self.can_redraw = _is_terminal(sys.stdout) and os.environ.get("TERM") != "dumb"
        self.has_colour = self.can_redraw and not os.environ.get("NO_COLOR")
        self.is_reading = self.is_broken = False
        self._pending: List[str] = []
        self._progress = self._drawn = ""       # what should stand there, and what does
        self.reader: Any = self._choose_reader(can_edit or os.environ.get("NODE_EDITOR", ""))

    def _choose_reader(self, wish: str) -> Any:
        if not (self.is_asking and self.can_redraw):
            return PipeReader(sys.stdin.fileno() if sys.stdin else os.open(os.devnull, os.O_RDONLY))
        if os.name == "nt":
            os.system("")                       # makes the Windows console understand escape sequences
        with contextlib.suppress(ImportError, AttributeError, ValueError, OSError):
            if wish != "keys":
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
        except (OSError, ValueError, AttributeError):       # closed, or there never was one
            self.is_broken = True

    def say(self, line: str) -> None:
        """One line, above what is being typed, when `flush` comes."""
        self._pending.append(self._coloured(line))

    def _coloured(self, line: str) -> str:
        code = {"OK": "32", "!!": "31", "* ": "36"}.get(line[:2]) if self.has_colour else None
        return f"\x1b[{code}m{line[:2]}\x1b[0m{line[2:]}" if code else line

    def show_progress(self, line: str) -> None:
        """What the progress line should show; nothing where it cannot be redrawn."""
        self._progress = line if self.can_redraw else ""

    def flush(self) -> None:
        """Draws what is new."""
        if not self._pending and self._progress == self._drawn:
            return
        if self.is_reading and self.can_redraw:
            self.reader.erase()
        has_prompt = self.is_reading and not isinstance(self.reader, PipeReader)
        text = self._erased_progress(has_prompt) + "".join(line + "\n" for line in self._pending) + self._progress
        self._pending, self._drawn = [], self._progress
        self.write(text + ("\n" if has_prompt and self._progress else ""))
        if self.is_reading and self.can_redraw:
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
        is_piped = isinstance(self.reader, PipeReader)
        if self.is_asking and is_piped:
            self.write(prompt)
        if self._drawn and not is_piped:
            self.write("\n")
        self.is_reading = True
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
            up = self._rows(self._drawn) + place_of(prompt + line, self.columns())[0] + 1
            self.write(f"\x1b[{up}A\r\x1b[J{prompt}{line}\n")
            self._drawn = ""
        return line

    def typed(self) -> str:
        """What stood in the line when its reading was interrupted."""
        return "" if isinstance(self.reader, PipeReader) else self.reader.typed()

    def close(self) -> None:
        """Leaves the terminal as it was found, with the cursor on a fresh line."""
        self._progress = ""
        self.flush()


def _is_terminal(stream: Any) -> bool:
    try:
        return bool(stream) and stream.isatty()
    except ValueError:
        return False


# ---------------------------------------------------------------- flags and questions

class Settings(NamedTuple):
    """What flags or questions said."""
    ip: Optional[str]               # None: search this network
    port: int
    name: str
    folder: str
    is_folder_chosen: bool          # then another node's use of it is an error, not a reason for `shared-2`


def default_name() -> str:
    """`user@host`, as far as this machine tells them."""
    user, host = "node", "lab"
    with contextlib.suppress(Exception):        # no such user: KeyError, OSError or ImportError, by version and system
        user = getpass.getuser()
    with contextlib.suppress(OSError):
        host = socket.gethostname().split(".")[0] or host
    kept = "".join(c for c in f"{user}@{host}" if c not in "<>" and safe_text(c) == c)
    return kept[:NAME_LENGTH_MAX] or "node"


def check_ip(text: str) -> Optional[str]:
    """An IPv4 address, or None for a search; ValueError with a sentence."""
    text = text.strip()
    if not text:
        return None
    try:
        address = ipaddress.ip_address("127.0.0.1" if text.lower() == "localhost" else text)
    except ValueError:
        raise ValueError(f'"{safe_text(text, 60)}" is not an IP address like 10.0.0.7.') from None
    if address.version != 4:
        raise ValueError("An IPv4 address like 10.0.0.7 is needed; IPv6 is not used yet.")
    if address.is_multicast or address.is_unspecified or str(address) == "255.255.255.255":
        raise ValueError(f"{address} is not the address of one machine.")
    return str(address)


def check_port(text: str) -> int:
    """A port from 1024 to 65535; ValueError with a sentence."""
    text = text.strip() or str(DEFAULT_PORT)
    if not (text.isascii() and text.isdigit() and len(text) < 6 and 1024 <= int(text) <= 65535):
        raise ValueError("A port is a number from 1024 to 65535.")
    return int(text)


def check_name(text: str) -> str:
    """A name of 1 to 32 visible characters, the default for none; ValueError with a sentence."""
    if not text:
        return default_name()
    text = text.strip()
    if not text or len(text) > NAME_LENGTH_MAX:
        raise ValueError(f"A name has 1 to {NAME_LENGTH_MAX} characters.")
    if safe_text(text) != text or "<" in text or ">" in text:
        raise ValueError("A name has only visible characters, without < and >.")
    return text


def check_target(text: str, own_ip: str) -> Tuple[str, int]:
    """The address that `C` names: `port`, `ip port`, `ip:port` or `ip`; ValueError with a sentence."""
    words = text.replace(":", " ").split()
    if not 1 <= len(words) <= 2:
        raise ValueError("C needs a port, or an ip and a port: C 10.0.0.7:6020")
    if len(words) == 1 and "." in words[0]:
        words.append(str(DEFAULT_PORT))
    return (check_ip(words[0]) if len(words) == 2 else None) or own_ip, check_port(words[-1])


def _flag(check: Callable[[str], Any]) -> Callable[[str], Any]:
    @functools.wraps(check)
    def checked(text: str) -> Any:
        try:
            return check(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None
    return checked


def parse_flags(argv: Optional[Sequence[str]]) -> argparse.Namespace:
    """The command line; wrong flags end the program with exit code 2, as argparse does."""
    parser = argparse.ArgumentParser(
        prog="node_client.py", description="Share files and chat with the machines of this network.",
        epilog="Each flag skips its question. Commands may be piped in, one a line. At the prompt, ? lists them. "
               "Exit codes: 0, 1 a transfer failed, 2 wrong flags, 3 the address cannot be used, 130 Ctrl-C.")
    parser.add_argument("--ip", type=_flag(check_ip), default=False, metavar="IP",
                        help='where the supernode is, or an own address to be it; "" searches this network')
    parser.add_argument("--port", type=_flag(check_port), help=f"its UDP port (default {DEFAULT_PORT})")
    parser.add_argument("--name", type=_flag(check_name), help="how others see you (default user@host)")
    parser.add_argument("--folder", metavar="DIR",
                        help=f"what is in it is shared, what is fetched lands in it (default {DEFAULT_FOLDER})")
    parser.add_argument("--log", metavar="FILE", help="write details here")
    return parser.parse_args(argv)


# ---------------------------------------------------------------- threads

class NodeThread:
    """Runs closures and the roles' timer, one at a time; what fails is logged and dropped, and the thread lives."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.inbox: queue.SimpleQueue[Optional[Callable[[float], None]]] = queue.SimpleQueue()
        self.peer: Any = None               # set before `start`
        self.failures = 0
        self._deadline = 0.0                # of the roles, as they told it after the last turn
        self._thread = threading.Thread(target=self._run, name="node", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def call(self, closure: Callable[[float], None]) -> None:
        """From any thread: has `closure(now)` run on the node thread."""
        self.inbox.put(closure)

    def stop(self) -> None:
        """From any thread: ends it after what is in the inbox."""
        self.inbox.put(None)
        self._thread.join(1.0)

    def _run(self) -> None:
        while self._turn():
            pass

    def _turn(self) -> bool:
        for count in range(EVENTS_PER_TURN):
            try:
                # Without time to wait never get(timeout): up to Python 3.10 it may then wait for ever.
                wait = self._patience() if count == 0 else 0.0
                closure = self.inbox.get(timeout=wait) if wait > 0 else self.inbox.get_nowait()
            except queue.Empty:
                break
            if closure is None:
                return False
            self._guarded(closure)
        self._guarded(self._on_time)
        return True

    def _on_time(self, now: float) -> None:
        self._deadline = now                    # should the roles fail to tell theirs
        if now >= self.peer.next_deadline():
            self.peer.on_timer(now)
        self._deadline = self.peer.next_deadline()

    def _patience(self) -> float:
        # After a failed timer the deadline may stay in the past: never spin on it.
        wait = self._deadline - self.clock()
        return min(max(wait, 0.05 if self.failures else 0.0), 1.0)

    def _guarded(self, closure: Callable[[float], None]) -> None:
        try:
            closure(self.clock())
        except Exception:
            self.failures += 1
            log.exception("an event on the node thread was dropped")


class DiskThread:
    """Runs the library's blocking calls in order, and hands each result to the node thread."""

    def __init__(self, node: NodeThread) -> None:
        self._node = node
        self._jobs: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._digests = concurrent.futures.ThreadPoolExecutor(1, "digest")
        self._thread = threading.Thread(target=self._run, name="disk", daemon=True)

    def start(self) -> None:
        """Starts the thread, and the one beside it."""
        self._thread.start()
        self._digests.submit(bool)              # an executor makes its thread with the first job

    def __call__(self, job: Callable[[], Any], done: Callable[[Any, Optional[Exception], float], None]) -> None:
        """From any thread: `job()` here, then `done(result, error, now)` on the node thread.

        A job's `ahead`, if it has one, is begun at once on a thread beside this one, and done before the job.
        """
        ahead = getattr(job, "ahead", None)
        self._jobs.put((job, done, ahead and self._digests.submit(ahead)))

    def stop(self, timeout: float) -> None:
        """Ends it after the jobs that wait."""
        self._jobs.put(None)
        self._thread.join(timeout)
        self._digests.shutdown(wait=False)

    def _run(self) -> None:
        for job, done, ahead in iter(self._jobs.get, None):
            result, error = None, None
            try:
                if ahead is not None:
                    ahead.result()
                result = job()
            except Exception as caught:
                error = caught
            self._node.call(functools.partial(_finish_job, done, result, error))


def _finish_job(done: Callable[[Any, Optional[Exception], float], None], result: Any, error: Optional[Exception],
                now: float) -> None:
    done(result, error, now)


class ScannerThread:
    """Looks for files to share, again and again; what it finds goes to the node thread."""

    def __init__(self, scanner: Any, report: Callable[[Any], None], is_over: threading.Event) -> None:
        self._scanner, self._report, self.is_over = scanner, report, is_over
        self._asked = threading.Event()         # set: look now
        self._waiting: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="scanner", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def look_now(self, then: Callable[[], None]) -> None:
        """From any thread: the next pass begins at once; `then` is called here once all is read that it found."""
        self._waiting.put(then)
        self._asked.set()

    def stop(self) -> None:
        """Ends it; a pass that runs is given up."""
        self.is_over.set()
        self._asked.set()
        if self._thread.is_alive():
            self._thread.join(SCANNER_STOP_SECONDS)     # it still has the file of the kept digests

    def _run(self) -> None:
        waiting: List[Callable[[], None]] = []
        while not self.is_over.is_set():
            for _ in range(self._waiting.qsize()):
                waiting.append(self._waiting.get())
            try:
                self._scanner.run_once(self._report)
            except Exception:
                log.exception("a pass over the shared folder failed")
            pause = self._scanner.next_pass_in()
            while pause and waiting:            # without a pause the pass was given up, and goes on
                waiting.pop()()
            self._asked.wait(pause)
            self._asked.clear()
        self._scanner.close()


# ---------------------------------------------------------------- commands

class Console:
    """The prompt: commands become closures for the node thread, notifications become lines."""

    def __init__(self, terminal: Terminal, clock: Callable[[], float] = time.monotonic) -> None:
        self.terminal, self.clock = terminal, clock
        self.inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self.node: Any = None
        self.exit_code = EXIT_OK
        self.is_over = self.is_leaving = self.is_joining = self.was_warned = False
        self.signals: List[int] = []
        self.due: set[object] = set()           # answers that a command still waits for
        self.asked: set[int] = set()            # downloads that were asked for here and run
        self.ended: set[int] = set()
        self.running: Dict[int, results.TransferRow] = {}   # the latest of each
        self.told: Dict[int, Tuple[float, int]] = {}    # when, and at what percent, a progress line was printed
        self.rows: Dict[int, results.ListEntry] = {}        # the last list of files, by number
        self.unshown: List[results.ListEntry] = []          # the pages of it that `G +` shows
        self.outcome: Optional[results.Outcome] = None

    # -- waiting and drawing

    def notify(self, event: Any) -> None:
        """From the node thread: something to tell; but not more and more to a screen that stands still."""
        if isinstance(event, DISPENSABLE) and self.inbox.qsize() >= WAITING_LINES_MAX:
            return
        self.inbox.put(functools.partial(self.on_event, event))

    def pump(self, wait: float = 0.0) -> None:
        """Does what is in the inbox, waiting for the first up to `wait` seconds, and draws."""
        with contextlib.suppress(queue.Empty):
            closure = self.inbox.get(timeout=wait) if wait else self.inbox.get_nowait()
            while True:
                try:
                    closure()
                except Exception:
                    log.exception("a notification was dropped")
                closure = self.inbox.get_nowait()
        self._draw_progress()
        self.terminal.flush()
        self.is_over = self.is_over or self.terminal.is_broken

    def idle(self) -> None:
        """What a waiting prompt does ten times a second."""
        self.pump()
        if self.signals or self.is_over:
            raise Interrupted

    def wait_until(self, is_met: Callable[[], bool], timeout: float) -> bool:
        """Shows what arrives until `is_met`; False when the time is over or a signal came."""
        deadline = self.clock() + timeout
        while not is_met():
            # A terminal that is gone ends the waiting, but not for a handover.
            if self.signals or (self.terminal.is_broken and not self.is_leaving) or self.clock() > deadline:
                return False
            self.pump(IDLE_SECONDS)
        self.pump()
        return True

    def say(self, line: str) -> None:
        """One line for the person."""
        if line:
            self.terminal.say(line)

    # -- notifications

    def on_event(self, event: Any) -> None:
        """Tells one notification."""
        if isinstance(event, results.Progress):
            self._on_progress(event.row)
            return
        if isinstance(event, (results.DownloadDone, results.Stopped)):
            self._on_end(event.number, isinstance(event, results.Stopped) and event.number in self.asked)
        if isinstance(event, results.Outcome):
            self.outcome = event
            self.due.discard("connect")
            if self.is_joining and (event.kind == "nobody" or event.kind == "refused" or
                                    (event.kind == "supernode" and not self.node.is_port_own)):
                return                          # `_open` says why, and asks again
            if event.address and event.address[0] == "0.0.0.0":
                event = event._replace(address=(self.node.ip, event.address[1]))
        self.say(line_for(event, self.node.folder if self.node else DEFAULT_FOLDER))

    def _on_end(self, number: int, is_failure: bool) -> None:
        self.ended.add(number)
        self.asked.discard(number)
        self.running.pop(number, None)
        self.told.pop(number, None)
        if is_failure:
            self._has_failed()

    def _on_progress(self, row: results.TransferRow) -> None:
        if row.direction != "R" or row.number in self.ended:
            return
        if row.state in ("done", "stopped"):
            self.running.pop(row.number, None)
            return
        self.running[row.number] = row
        if not self.terminal.can_redraw:
            self._tell_progress(row)

    def _tell_progress(self, row: results.TransferRow) -> None:
        now, percent = self.clock(), row.verified * 100 // row.size if row.size else 0
        told_at, told_percent = self.told.setdefault(row.number, (now, percent))
        if percent // PROGRESS_PERCENT > told_percent // PROGRESS_PERCENT or now - told_at >= PROGRESS_SECONDS:
            self.told[row.number] = (now, percent)
            self.say(progress_line(row))

    def _draw_progress(self) -> None:
        if not self.running or not self.terminal.can_redraw:
            self.terminal.show_progress("")
            return
        more = f"  (+{len(self.running) - 1} more: V)" if len(self.running) > 1 else ""
        room = self.terminal.columns() - 1 - len(more)
        self.terminal.show_progress(progress_line(self.running[min(self.running)], room) + more)

    # -- the life of the program

    def run(self, flags: argparse.Namespace, open_node: Callable[[Settings, Callable[[Any], None]], Any]) -> int:
        """From the questions to the exit code."""
        try:
            if self._open(flags, open_node):
                self._serve()
        except Interrupted:
            self._on_interrupt(is_starting=True)
        except Exception:
            log.exception("the prompt failed")
            self.say("!! This node has to end because of a mistake in the program; --log FILE tells the details.")
            self.exit_code = EXIT_FAILED
        finally:
            self._leave()
        return self.exit_code

    def _open(self, flags: argparse.Namespace, open_node: Callable[..., Any]) -> bool:
        while True:
            settings = self._ask_settings(flags)
            self.say("Looking for a network ...")
            self.terminal.flush()
            try:
                self._join(settings, open_node)
                return True
            except NodeError as error:
                self.say(str(error))
                if not (self.terminal.is_asking and error.again) or self.signals:
                    self.exit_code = EXIT_INTERRUPTED if self.signals else error.code
                    return False
                known = {"ip": settings.ip, "port": settings.port, "name": settings.name}
                known.update({"ip": False} if "ip" in error.again else {}, port=None)
                flags = argparse.Namespace(**{**vars(flags), **known, "default_port": settings.port})

    def _ask_settings(self, flags: argparse.Namespace) -> Settings:
        ip = self._question("IP", "search this network", check_ip) if flags.ip is False else flags.ip
        default = str(getattr(flags, "default_port", DEFAULT_PORT))
        port = flags.port or self._question("Port", default, lambda text: check_port(text.strip() or default))
        name = flags.name or self._question("Name", default_name(), check_name)
        return Settings(ip, port, name, os.path.expanduser(flags.folder or DEFAULT_FOLDER), bool(flags.folder))

    def _question(self, what: str, default: str, check: Callable[[str], Any]) -> Any:
        """The checked answer; asked again until it is right, and not at all where nobody can be asked."""
        while self.terminal.is_asking:
            try:
                return check(self.terminal.read_line(f"{what} [{default}]: ", self.idle))
            except ValueError as error:
                self.say(str(error))
            except EOFError:
                raise Interrupted from None
        return check("")

    def _join(self, settings: Settings, open_node: Callable[..., Any]) -> None:
        """Opens a node and waits for its outcome; NodeError says why not."""
        self.outcome, self.is_joining = None, True
        self.node = open_node(settings, self.notify)
        if not settings.is_folder_chosen and settings.folder != self.node.folder:
            self.say(f"* {settings.folder} is in use by another node here; this one uses {self.node.folder}")
        self.wait_until(lambda: self.outcome is not None, JOIN_SECONDS)
        kind = self.outcome.kind if self.outcome else ""
        if kind == "joined" or (kind == "supernode" and self.node.is_port_own):
            self.is_joining = False
            return
        self._leave_node()
        if kind == "supernode":
            raise NodeError(f"Port {settings.port} of this machine is in use by another program, "
                            "and no node answers there.", again=("port",))
        raise NodeError(getattr(self.outcome, "text", "") or (
            f"Nobody answers at {settings.ip}:{settings.port}, and this machine cannot be the supernode there."
            if settings.ip else "No network was found, and none could be opened here."))

    def _serve(self) -> None:
        self.terminal.reader.forget()
        if self.terminal.is_asking:
            self.say("? lists the commands.")
        while not self.is_over:
            try:
                line = self.terminal.read_line("> " if self.terminal.is_asking else "", self.idle)
            except EOFError:
                self.quit("")
                return
            except Interrupted:
                self._on_interrupt()
                continue
            for part in line.splitlines():      # a paste may hold several
                if not self.is_over:
                    self.do(part)

    def do(self, line: str) -> None:
        """One command; its answer is awaited for a moment, so that lists and prompts stay in order."""
        if not line.strip():
            return
        self.was_warned = False
        command, argument = parse_command(line)
        if command is None:
            self.say(unknown_line(line))
        else:
            getattr(self, command.method)(argument)
        patience = ANSWER_SECONDS if self.terminal.is_asking else SCRIPT_ANSWER_SECONDS
        if not self.wait_until(lambda: not self.due, patience):
            self.due.clear()                    # the next command does not wait for it again

    def _on_interrupt(self, is_starting: bool = False) -> None:
        signals, self.signals = self.signals or [signal.SIGINT], []
        if self.is_over:
            return
        if any(number != signal.SIGINT for number in signals):
            self.is_over = True
        elif is_starting or (self.was_warned and not self.terminal.typed()):
            self.is_over, self.exit_code = True, EXIT_INTERRUPTED
        else:
            self.was_warned = not self.terminal.typed()
            self.say("Ctrl-C again or Q to quit" if self.was_warned else "")

    def on_signal(self, number: int, frame: Any) -> None:
        """A signal handler: only remembers; whoever waits looks ten times a second."""
        if number == signal.SIGINT and self.is_leaving:
            os._exit(EXIT_INTERRUPTED)
        if not self.is_leaving and number in (signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", 0)):
            self.signals.append(number)

    def _leave(self) -> None:
        if signal.SIGINT in self.signals:       # once more, after quitting had begun
            os._exit(EXIT_INTERRUPTED)
        self.is_leaving, self.signals = True, []
        if self.node:
            self.say("* leaving ..." if self.terminal.is_asking else "")
            self._leave_node()
        self.pump()
        self.terminal.close()

    def _leave_node(self) -> None:
        node, left = self.node, []              # type: Any, List[bool]
        node.call(lambda now: node.peer.leave(now, lambda *_: self.inbox.put(lambda: left.append(True))))
        self.wait_until(lambda: bool(left), LEAVE_SECONDS)
        node.close(1.0)
        self.node = None

    # -- commands, one method each

    def _ask(self, call: Callable[[Any, float, Callable[..., None]], None], show: Callable[[Any], None]) -> None:
        """Has `call(peer, now, done)` run on the node thread, and `show(result)` here when it calls `done(result)`."""
        token = object()
        self.due.add(token)

        def answered(result: Any) -> None:
            self.due.discard(token)
            show(result)

        def run(now: float) -> None:
            try:
                call(self.node.peer, now, lambda result=None: self.inbox.put(lambda: answered(result)))
            except Exception:
                self.inbox.put(lambda: answered(None))
                raise
        self.node.call(run)

    def _show_table(self, rows: Sequence[Sequence[str]], right: Sequence[int], none: str) -> None:
        for line in table(rows, right, self.terminal.width()) if rows else [none]:
            self.say(line)

    def list_files(self, pattern: str) -> None:
        """G: the files of the network."""
        if pattern == "+":
            self._show_page("That list has no more rows." if self.rows else "There is no list yet: G makes one.")
            return
        pattern = unquoted(pattern)
        none = f'No file here matches "{safe_text(pattern, 60)}".' if pattern else \
            "Nothing is shared here yet. B path shares a file or folder."
        self._ask(lambda peer, now, done: peer.list_files(pattern, now, done),
                  lambda rows: self._show_files(rows, none))

    def _show_files(self, entries: Any, none: str = "") -> None:
        if entries is None:
            self.say("!! The list did not come; try again soon")
            return
        self.rows = {entry.number: entry for entry in entries}
        self.unshown = list(entries)
        self._show_page(none)

    def _show_page(self, none: str) -> None:
        """As many rows of the list as fit the window; all where there is none."""
        count = self.terminal.page() or len(self.unshown)
        page, self.unshown = self.unshown[:count], self.unshown[count:]
        self._show_table([file_cells(entry) for entry in page], (0, 2), none)
        if self.unshown:
            self.say(f"  {len(self.rows) - len(self.unshown)} of {len(self.rows)} rows; G + shows more, "
                     "and R number takes any")

    def fetch(self, what: str) -> None:
        """R: fetch by the number of the last list's row, or by name."""
        what = unquoted(what)
        what = what.rstrip("/") or what         # as G shows a folder
        if not what:
            self.say("R needs a name, or a number of the last list: R lab.iso")
            return
        entry = self.rows.get(int(what)) if what.isascii() and what.isdigit() and len(what) < 9 else None
        show = functools.partial(self._on_fetch_answer, what)
        if entry is not None:
            self._ask(lambda peer, now, done: peer.fetch(entry, now, done), show)
        elif self.rows and what.isascii() and what.isdigit():
            self._fetch_called(what, show)
        else:
            self._ask(lambda peer, now, done: peer.fetch_name(what, now, done), show)

    def _fetch_called(self, number: str, show: Callable[[Any], None]) -> None:
        """Fetches the file that has this number for its name; the last list has no such row."""
        def listed(entries: Any) -> None:
            found = next((entry for entry in entries or () if entry.name == number), None)
            if found is not None:
                self._ask(lambda peer, now, done: peer.fetch(found, now, done), show)
                return
            self._has_failed()
            self.say(f"!! The last list has {lines.count_of(len(self.rows), 'row')}, and no file is named {number}.")
        self._ask(lambda peer, now, done: peer.list_files(number, now, done), listed)

    def _has_failed(self) -> None:
        """In a script, something that was asked for did not come: the exit code says so."""
        if not self.terminal.is_asking:
            self.exit_code = EXIT_FAILED

    def _on_fetch_answer(self, what: str, answer: Optional[results.FetchAnswer]) -> None:
        answer = answer or results.FetchAnswer("")
        kind, name = answer.kind, safe_text(answer.entries[0].name if len(answer.entries) == 1 else what)
        if kind in ("started", "running"):
            if answer.transfer is not None and answer.transfer not in self.ended:
                self.asked.add(answer.transfer)
            if kind == "running":
                self._show_running(name, answer.transfer)
        elif kind == "already here":
            self.say(f"* {name} is here already: {short_path(answer.path or '')}")
        elif kind == "several":
            self._has_failed()
            self.say(f'Several files match "{safe_text(what, 60)}"; R number takes one:')
            self._show_files(answer.entries)
        else:
            self._has_failed()
            why = {"nobody": "nobody here has it", "no network": "there is no network at the moment; try again soon"}
            self.say(f"!! {name}  {why.get(kind, 'could not be asked for; the log has details')}")

    def _show_running(self, name: str, number: Optional[int]) -> None:
        """R on what is on its way shows how it stands."""
        self.say(f"* {name} is on its way already:")

        def show(rows: Any) -> None:
            self._show_transfers([row for row in rows or () if row.number == number])
        self._ask(lambda peer, now, done: done(peer.transfers(now)), show)

    def chat(self, text: str) -> None:
        """T: chat with everyone."""
        text = text.encode("utf-8", "replace").decode("utf-8")      # half a character cannot travel
        if not text:
            self.say("T needs a text: T hello everyone")
            return
        if len(text.encode()) > CHAT_BYTES_MAX:
            self.say(f"!! Not sent: the text is too long; {CHAT_BYTES_MAX} bytes fit, it has {len(text.encode())}.")
            return
        self._ask(lambda peer, now, done: done(peer.say(text, now)), self._say_untaken)

    def _say_untaken(self, is_taken: Any) -> None:
        if is_taken is False:
            self.say("!! Not sent: too much of what you said is still on its way. Try again soon.")

    def share(self, path: str) -> None:
        """B: share a file or folder from elsewhere; without a path, list what is shared."""
        if not path:
            self._ask(lambda peer, now, done: done(peer.shares()), self._show_shares)
            return
        found = next((p for p in map(os.path.expanduser, (path, unquoted(path))) if not is_missing(p)), None)
        if found is None:
            self.say(f"!! {safe_text(path)}  there is no such file or folder")
            return
        full = os.path.abspath(found)
        self._ask(lambda peer, now, done: peer.share(full, now, done), self._say_share)

    def _show_shares(self, rows: Any) -> None:
        cells = [(safe_text(row.name), format_size(row.size), f"id {short_id(row.file_id)}") for row in rows or ()]
        self._show_table(cells, (1,), "You share nothing yet. B path shares a file or folder.")

    def _say_share(self, text: Any) -> None:
        self._say_result(text)
        token = object()
        if not self.terminal.is_asking:         # in a script the next command may rely on it
            self.due.add(token)
        self.node.look_now(lambda: self.inbox.put(lambda: self.due.discard(token)))

    def _say_result(self, text: Any) -> None:
        if isinstance(text, str) and text:
            self.say(safe_text(text, 1024))

    def who(self, _: str) -> None:
        """W: who is here."""
        self._ask(lambda peer, now, done: done(peer.members(now)), self._show_members)

    def _show_members(self, rows: Any) -> None:
        rows = [row._replace(address=(self.node.ip, row.address[1])) if row.address[0] == "0.0.0.0" else row
                for row in rows or ()]
        self._show_table([member_cells(row) for row in rows], (), "Nobody is here: there is no network.")

    def view(self, _: str) -> None:
        """V: the transfers."""
        self._ask(lambda peer, now, done: done(peer.transfers(now)), self._show_transfers)

    def _show_transfers(self, rows: Any) -> None:
        rows = rows or ()
        told = table([transfer_cells(row) for row in rows], (0, 3), self.terminal.width())
        for row, line in zip(rows, told):
            self.say(line)
            for share in share_lines(row, self.terminal.width()):
                self.say(share)
        if not rows:
            self.say("No transfers.")

    def cancel(self, number: str) -> None:
        """K: cancel a transfer."""
        if not (number.isascii() and number.isdigit() and len(number) < 9):
            self.say("K needs the number of a transfer as V shows it: K 1")
            return
        if int(number) in self.running or int(number) in self.asked:
            self._on_end(int(number), False)    # what was cancelled by hand has not failed
        self._ask(lambda peer, now, done: done(peer.cancel(int(number), now)), self._say_result)

    def mesh(self, wish: str) -> None:
        """M: this node's mesh switch."""
        if wish.lower() not in ("on", "off", ""):
            self.say("M is switched by M on or M off; M alone tells.")
            return
        if wish:
            self._ask(lambda peer, now, done: done(peer.set_mesh(wish.lower() == "on", now)),
                      lambda _: self.say(mesh_line(wish.lower() == "on")))
        else:
            self._ask(lambda peer, now, done: done(peer.mesh), lambda is_on: self.say(mesh_line(bool(is_on))))

    def connect(self, where: str) -> None:
        """C: leave this network properly and join the one at another address."""
        try:
            target = check_target(where, self.node.ip)
        except ValueError as error:
            self.say(str(error))
            return
        if self.node.is_local and not target[0].startswith("127."):
            self.say("This node was opened for this machine only, at 127.0.0.1; start it anew to go elsewhere.")
            return
        self.due.add("connect")
        self.node.call(lambda now: self.node.peer.connect_to(target[0], target[1], now))

    def help(self, what: str) -> None:
        """?: one screen, or one command with an example."""
        for line in help_lines(what):
            self.say(line)

    def quit(self, more: str) -> None:
        """Q: at once at a terminal; in a script once the transfers that it asked for have ended."""
        if more:
            self.say(f'Q stands alone; "{safe_text(more, 40)}" after it was not understood, and nothing was done.')
            return
        if not self.terminal.is_asking:
            while not self.wait_until(lambda: not self.asked, 3600.0) and not self.signals \
                    and not self.terminal.is_broken:
                pass
            if signal.SIGINT in self.signals:
                self.exit_code = EXIT_INTERRUPTED
            self.signals = []
        self.is_over = True


def is_missing(path: str) -> bool:
    """Whether nothing is there; what may not be looked at is not missing."""
    try:
        os.lstat(path)
    except OSError as error:
        return isinstance(error, (FileNotFoundError, NotADirectoryError))
    except ValueError:                          # a zero byte: no path at all
        return True
    return False


def unquoted(text: str) -> str:
    """A name or path without the quotes around it that a shell's habit or a drag-and-drop leaves."""
    return text[1:-1] if len(text) > 2 and text[0] == text[-1] and text[0] in "\"'" else text


# ---------------------------------------------------------------- putting it together

def own_addresses(ip: Optional[str] = None) -> List[str]:
    """This machine's IPv4 addresses, and `ip` if it is one; no loopback."""
    found = [own for own, _ in rdt.interfaces()]
    if ip and rdt.address_towards(ip) == ip:    # not by bind(): some systems grant that for any address
        found.append(ip)
    return [own for own in dict.fromkeys(found) if not own.startswith("127.")]


class NodeError(Exception):
    """The node cannot be opened: a sentence for a person, the exit code, and the questions to ask again."""

    def __init__(self, sentence: str, code: int = EXIT_ADDRESS, again: Sequence[str] = ("ip", "port")) -> None:
        super().__init__(sentence)
        self.code, self.again = code, again


def set_up_logging(path: Optional[str]) -> None:
    """Details go to the file, if one is wanted, and never to the screen."""
    root = logging.getLogger()
    root.addHandler(logging.NullHandler())
    if path:
        handler = logging.FileHandler(path, encoding="utf-8", errors="backslashreplace") \
            if sys.version_info >= (3, 9) else logging.FileHandler(path)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(threadName)s %(name)s: %(message)s"))
        root.addHandler(handler)
        root.setLevel(logging.DEBUG)
    sys.unraisablehook = lambda details: log.error("ignored: %r", details.exc_value)
    threading.excepthook = lambda details: log.error("a thread ended", exc_info=details.exc_value)


def set_up_signals(console: Console) -> None:
    """Ctrl-C, a closed terminal and SIGTERM end things properly; SIGALRM is what ReadlineReader wakes select() by."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGALRM"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), console.on_signal)


class Node:
    """One node with all its threads; made stopped, and only ever used by the prompt thread."""

    def __init__(self, settings: Settings, notify: Callable[[Any], None], library: files.Library,
                 transport: rdt.Transport, is_port_own: bool) -> None:
        self.folder, self.is_port_own = _folder_shown(library.folder), is_port_own
        self.ip = rdt.address_towards(settings.ip or ANY_ROUTE) or next(iter(own_addresses()), "127.0.0.1")
        self.is_local = transport.address[0].startswith("127.")
        self._thread = NodeThread(time.monotonic)
        self.call = self._thread.call
        self._disk = DiskThread(self._thread)
        self._library, self._transport = library, transport
        is_over = threading.Event()
        scanner = Scanner(library.folder, is_over, is_disk_busy=library.is_busy)
        self._scanner = ScannerThread(scanner, self._on_scanned, is_over)
        self._links = rdt.Links(transport, self._emit)
        self.peer = self._thread.peer = peer.Peer(
            self._links, library, self._disk, random.SystemRandom(), notify, supernode.Supernode, settings.name,
            scanner, functools.partial(own_addresses, settings.ip))

    def look_now(self, then: Callable[[], None] = lambda: None) -> None:
        """Has the scanner look at once; `then` is called on the node thread once it has announced what was found."""
        self._scanner.look_now(lambda: self.call(lambda now: self.peer.when_scanned(then)))

    def _emit(self, event: str, *arguments: Any) -> None:
        self._thread.call(functools.partial(self._hand_in, event, arguments))

    def _hand_in(self, event: str, arguments: Tuple[Any, ...], now: float) -> None:
        try:
            getattr(self.peer, event)(*arguments, now)
        finally:
            if event == "on_message":           # its bytes made room: the sender may go on
                self._links.consumed(arguments[0], len(arguments[1]))

    def _on_scanned(self, result: ScanResult) -> None:
        self._thread.call(functools.partial(self.peer.on_scanned, result))

    def start(self, settings: Settings) -> None:
        """Starts the threads, and looks for the network."""
        for thread in (self._thread, self._disk, self._scanner, self._transport):
            thread.start()              # the transport last: its events need somebody who takes them
        target = (settings.ip, settings.port) if settings.ip else None
        self.call(lambda now: self.peer.start(target, settings.port, now))

    def close(self, timeout: float) -> None:
        """Ends the threads, delivers what was sent, and gives port and folder free."""
        self._scanner.stop()
        self._thread.stop()
        with contextlib.suppress(rdt.RdtError):
            self._transport.close(timeout)
        self._disk(self._library.close, lambda *_: None)    # there, for a job may still be at its files
        self._disk.stop(timeout)


def _folder_shown(folder: str) -> str:
    relative = os.path.relpath(folder)
    return folder if relative.startswith("..") else relative


def _import_node() -> None:
    """Most of the program's time to start: a person sees the first line before it."""
    global LibraryError, Scanner, files, peer, rdt, supernode
    import library as files
    import peer
    import rdt
    import supernode
    from disk.scanner import Scanner
    from protocol.content import LibraryError


def open_node(settings: Settings, notify: Callable[[Any], None]) -> Node:
    """A node with all its threads, started; NodeError says why not."""
    _import_node()
    try:
        library = files.open_folder(settings.folder, settings.is_folder_chosen)
    except LibraryError as error:
        raise NodeError(str(error), EXIT_FLAGS, ()) from error
    try:
        transport, is_port_own = _open_transport(settings)
    except rdt.RdtError as error:
        library.close()
        raise NodeError(f"No network can be used here: {safe_text(str(error))}.") from error
    node = Node(settings, notify, library, transport, is_port_own)
    if library.notice:
        notify(results.Notice(library.notice))
    node.start(settings)
    return node


def _open_transport(settings: Settings) -> Tuple[rdt.Transport, bool]:
    """A socket at the port asked for, or at a free one when another node of this machine has it."""
    # An address of this machine alone is kept to it; any other is asked for from all interfaces.
    ip = settings.ip if settings.ip and settings.ip.startswith("127.") else "0.0.0.0"
    try:
        return rdt.Transport(ip, settings.port), True
    except rdt.RdtError as error:
        log.info("%s; a free one is used", error)
        return rdt.Transport(ip, 0), False


def _trouble_of(log_path: Optional[str]) -> str:
    """Why the program cannot even begin, as a sentence; sets up the logging."""
    if sys.stdout is None:
        return "Standard output is closed: there is nowhere to say anything. Redirect it to a file instead."
    try:
        os.getcwd()
    except OSError:
        return "The current folder is gone. Change to one that exists, and start again."
    try:
        set_up_logging(log_path)
    except OSError as error:
        return f"The log cannot be written to {safe_text(log_path or '')}: {(error.strerror or 'refused').lower()}."
    return ""


def main(argv: Optional[Sequence[str]] = None, open_node: Callable[..., Any] = open_node) -> int:
    """The program."""
    flags = parse_flags(argv)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    trouble = _trouble_of(flags.log)
    if trouble:
        if sys.stderr is not None:
            print(trouble, file=sys.stderr)
        return EXIT_FLAGS
    console = Console(Terminal())
    set_up_signals(console)
    code = console.run(flags, open_node)
    if console.terminal.is_broken and sys.stdout is not None:
        with contextlib.suppress(OSError, ValueError):      # what Python itself flushes at exit goes nowhere, quietly
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code


if __name__ == "__main__":
    sys.exit(main())
