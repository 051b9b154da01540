"""Programs that run beside a test: start, read their lines as they come, type, wait with a bound, stop."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, List, Match, Optional, Sequence

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 60.0  # seconds: the machine may be busy with other things; what works takes a few
STORY_LINES = 50  # from the beginning and from the end of what a program printed
ASK_INTERVAL = 0.05  # seconds between two questions about what nothing announces


def free_port(kind: int = socket.SOCK_DGRAM) -> int:
    """A port of loopback (UDP's, as a rule) that nobody uses now."""
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def end_process(process: subprocess.Popen[bytes]) -> None:
    """It ends now, if it runs still, and what leads to it is closed."""
    if process.poll() is None:
        process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()


def status_of(pid, field):
    """A number from /proc/<pid>/status: VmRSS and VmHWM in KiB, Threads."""
    text = Path("/proc/%d/status" % pid).read_text()
    found = re.search(r"^%s:\s+(\d+)" % field, text, re.M)
    assert found, text
    return int(found.group(1))


class Running:
    """A Python program in a process of its own; leaving the `with` stops it."""

    def __init__(
        self, script: str, *flags: object, cwd: Any = ROOT, on: Sequence[str] = (), python: Sequence[str] = (),
        **environment: str,
    ) -> None:  # fmt: skip
        """`on`: what puts it on another host; `python`: flags for the interpreter; the rest: its environment."""
        command = [*on, sys.executable, *python, str(ROOT / script), *map(str, flags)]
        environment = {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8", **environment}
        self.title = " ".join([script, *map(str, flags)])
        self.lines: List[str] = []
        self._has_more = threading.Condition()
        self._is_at_end = False
        self.process = subprocess.Popen(command, cwd=cwd, env=environment, stdin=subprocess.PIPE, bufsize=0,
                                        stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._thread.join(PATIENCE)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()

    def _read(self) -> None:
        assert self.process.stdout is not None
        rest = b""
        for data in iter(lambda: os.read(self.process.stdout.fileno(), 65536), b""):  # type: ignore[union-attr]
            *whole, rest = (rest + data).split(b"\n")
            self._keep([line.decode("utf-8", "replace").rstrip("\r") for line in whole])
        self._keep([rest.decode("utf-8", "replace")] if rest else [], is_at_end=True)

    def _keep(self, lines: Sequence[str], is_at_end: bool = False) -> None:
        with self._has_more:
            self.lines += lines
            self._is_at_end = is_at_end
            self._has_more.notify_all()

    def type(self, *lines: str) -> None:
        """Commands on its standard input."""
        assert self.process.stdin is not None
        self.process.stdin.write("".join(line + "\n" for line in lines).encode())

    def expect(self, pattern: str, since: int = 0) -> Match[str]:
        """The first line from number `since` on in which the pattern is found, waited for."""
        deadline = time.monotonic() + PATIENCE
        with self._has_more:
            while True:
                for line in self.lines[since:]:
                    found = re.search(pattern, line)
                    if found:
                        return found
                left = deadline - time.monotonic()
                assert not self._is_at_end and left > 0, self.story("said nothing like %r" % pattern)
                self._has_more.wait(left)

    def ask(self, command: str, pattern: str) -> Match[str]:
        """Type a command, and wait for a line that comes after it."""
        since = len(self.lines)
        self.type(command)
        return self.expect(pattern, since)

    def ask_until(self, command: str, pattern: str) -> Match[str]:
        """Type a command again and again, until its answer is as it should be; for what nothing announces."""
        for _ in range(int(PATIENCE / ASK_INTERVAL)):
            since = len(self.lines)
            self.type(command, "M")
            self.expect(r"^\* mesh is o", since)  # the command has said all
            for line in self.lines[since:]:
                found = re.search(pattern, line)
                if found:
                    return found
            with self._has_more:
                self._has_more.wait(ASK_INTERVAL)
        raise AssertionError(self.story("%s never said %r" % (command, pattern)))

    def end(self) -> int:
        """Its exit code, after no more input comes."""
        assert self.process.stdin is not None
        if not self.process.stdin.closed:
            self.process.stdin.close()
        try:
            code = self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            raise AssertionError(self.story("did not end")) from None
        self._thread.join(PATIENCE)
        return code

    def kill(self) -> None:
        """SIGKILL, or what comes nearest to it; nothing of it goes on."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def signal(self, number: int) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def story(self, trouble: str = "") -> str:
        """What it printed, for the one who reads a failing test."""
        shown = self.lines[:STORY_LINES] + ["..."] + self.lines[-STORY_LINES:]
        shown = shown if len(self.lines) > len(shown) else self.lines
        return "%s: %s; it printed:\n%s" % (self.title, trouble, "\n".join(shown))

    def count(self, pattern: str) -> int:
        """How many of its lines have the pattern."""
        return sum(bool(re.search(pattern, line)) for line in self.lines)

    def last(self) -> Optional[str]:
        """Its last line."""
        return self.lines[-1] if self.lines else None
