"""The prompt over a fake node (`fake_prompt.py`) as a person and as a script meet it: in a terminal, and by a pipe."""

from __future__ import annotations

import argparse
import codecs
import contextlib
import os
import re
import select
import signal
import struct
import subprocess
import sys
import time
import unicodedata
from typing import Any, Callable

import pytest

from node_tests.stage import fake_prompt
from node_tests.stage.fake_prompt import HOME
from node_tests.stage.running import end_process
from prompt.session import Session

PROGRAM = [sys.executable, fake_prompt.__file__]
QUIET = ("--ip", "127.0.0.1", "--port", "6020", "--name", "me")
needs_pty = pytest.mark.skipif(os.name == "nt", reason="pseudo-terminals and SIGTERM are things of Unix")
both_editors = pytest.mark.parametrize("editor", ["readline", "keys"])


class Screen:
    """As much of a VT100 as readline and the prompt use: what a person would see."""

    def __init__(self, columns: int, rows: int = 24) -> None:
        self.columns, self.rows = columns, rows
        self.cells = [[" "] * columns for _ in range(rows)]
        self.x = self.y = 0
        self.rest = ""

    def feed(self, text: str) -> None:
        text = self.rest + text
        for match in re.finditer(r"\x1b\[[?>]?[0-9;]*[@-~]|\x1b[=>()][B0]?|\x1b.|.", text, re.S):
            if match.group() in ("\x1b", "\x1b["):
                self.rest = text[match.start():]        # the end of it has not come yet
                return
            self.put(match.group())
        self.rest = ""

    def put(self, token: str) -> None:
        if token.startswith("\x1b["):
            self.control(token[-1], token[2:-1])
        elif token == "\r":
            self.x = 0
        elif token == "\n":
            self.down()
        elif token == "\b":
            self.x = max(0, min(self.x, self.columns) - 1)
        elif token >= " " and not token.startswith("\x1b"):
            self.write(token)

    def write(self, character: str) -> None:
        width = 2 if unicodedata.east_asian_width(character) in "WF" else 1
        if self.x + width > self.columns:
            self.x = 0
            self.down()
        self.cells[self.y][self.x:self.x + width] = [character] + [""] * (width - 1)
        self.x += width

    def down(self) -> None:
        self.y += 1
        if self.y == self.rows:
            self.y -= 1
            self.cells = self.cells[1:] + [[" "] * self.columns]

    def control(self, final: str, argument: str) -> None:
        if argument.startswith(("?", ">")):
            return
        count = max(1, int(argument.split(";")[0] or 0))
        self.x = min(self.x, self.columns - 1)
        row = self.cells[self.y]
        if final in "AB":
            self.y = max(0, min(self.rows - 1, self.y + (count if final == "B" else -count)))
        elif final in "CD":
            self.x = max(0, min(self.columns - 1, self.x + (count if final == "C" else -count)))
        elif final == "G":
            self.x = count - 1
        elif final == "P":
            self.cells[self.y] = row[:self.x] + row[self.x + count:] + [" "] * count
        elif final == "@":
            self.cells[self.y] = (row[:self.x] + [" "] * count + row[self.x:])[:self.columns]
        elif final in "JK":
            assert argument in ("", "0") or final == "K", argument
            row[self.x:] = [" "] * (self.columns - self.x)
            for y in range(self.y + 1, self.rows if final == "J" else 0):
                self.cells[y] = [" "] * self.columns
        elif final != "m":
            raise AssertionError(f"the screen does not know {argument}{final}")

    def lines(self) -> list:
        """The rows down to the last that shows something; of a blank screen its first, as an editor blanks it
        between two looks."""
        lines = ["".join(row).rstrip() for row in self.cells]
        while len(lines) > 1 and not lines[-1]:
            lines.pop()
        return lines

    def cursor(self) -> tuple:
        return self.y, self.x


class Window:
    """The prompt in a pseudo-terminal of a given size."""

    def __init__(self, columns: int, *flags: str, editor: str = "", stdin: Any = None, before: tuple = (),
                 **env: str) -> None:
        import fcntl
        import pty
        import termios
        self.screen, self.raw = Screen(columns), b""
        self.decoder = codecs.getincrementaldecoder("utf-8")("replace")
        master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        control, self.control = os.pipe()
        drop = ("COLUMNS", "LINES", "NO_COLOR")

        def begin() -> None:
            fcntl.ioctl(1, termios.TIOCSCTTY, 0)
            signal.signal(signal.SIGHUP, signal.SIG_DFL)    # the tests may run under nohup, which all inherit

        env = {**{k: v for k, v in os.environ.items() if k not in drop}, "TERM": "xterm", "NODE_EDITOR": editor,
               "FAKE_CONTROL": str(control), "INPUTRC": "/dev/null", "LC_ALL": "C.UTF-8", **env}
        self.process = subprocess.Popen(
            [*before, *PROGRAM, *flags], stdin=stdin or slave, stdout=slave, stderr=slave, env=env,
            pass_fds=(control,), start_new_session=True, cwd=str(HOME),
            preexec_fn=begin)
        os.close(slave)
        os.close(control)
        self.master = master

    def tell(self, event: Any) -> None:
        os.write(self.control, f"{event!r}\n".encode())

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def until(self, is_met: Callable[[list], Any], timeout: float = 8.0) -> list:
        deadline = time.monotonic() + timeout
        while not is_met(self.screen.lines()):
            assert time.monotonic() < deadline, "\n".join(self.screen.lines())
            self.read()
        return self.screen.lines()

    def read(self, patience: float = 0.05) -> bool:
        """Take in what has come, or comes in so many seconds; was there anything?"""
        data = b""
        if select.select([self.master], [], [], patience)[0]:
            with contextlib.suppress(OSError):  # nobody has the other end any more
                data = os.read(self.master, 65536)
                self.raw += data
                self.screen.feed(self.decoder.decode(data))
        return bool(data)

    def shows(self, *texts: str) -> list:
        return self.until(lambda lines: all(text in "".join(lines) for text in texts))

    def ready(self) -> list:
        return self.until(lambda lines: "? lists the commands." in lines and lines[-1] == ">")

    def end(self) -> int:
        self.until(lambda lines: self.process.poll() is not None)
        while self.read(0.0):
            pass  # what it said last
        return self.process.returncode

    def __enter__(self) -> Window:
        return self

    def __exit__(self, *_: Any) -> None:
        end_process(self.process)
        os.close(self.master)
        os.close(self.control)


def script(text: str, *flags: str, **env: str) -> tuple:
    """What the prompt says to piped input, and its exit code."""
    done = subprocess.run([*PROGRAM, *flags], input=text.encode(), capture_output=True, timeout=20,
                          cwd=str(HOME), env={**os.environ, **env})
    assert done.stderr == b"" or done.returncode == 2, done.stderr
    return done.stdout.decode().splitlines(), done.returncode


def quiet_session(**options: Any) -> Any:
    """A session whose lines are kept in `said`."""
    terminal = argparse.Namespace(can_redraw=False, is_asking=False, look_soon=lambda: None)
    session: Any = Session(terminal, **options)     # type: ignore[arg-type]
    session.said = []
    terminal.say = session.said.append
    return session
