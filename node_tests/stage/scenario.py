"""What the scenario scripts share: flags, a node that remembers what it was told, waiting with a bound, the verdict.

A scenario is run side by side with others, in several terminals or on several machines. It says what it expects,
prints what happens, and its last line is `PASS` or `FAIL: why`, its exit code 0 or 1.

    scenario.run(__doc__, body, flags)      body(arguments) returns, or raises Failed

Whatever a node tells (results.*) arrives on its node thread and is kept in a queue; the script itself has one thread.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import queue
import random
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Callable, Iterator, List, Optional

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

# The scripts take the program's modules from here: then the line above has been run before they are looked for.
import node_client  # noqa: E402
import rdt  # noqa: E402, F401
from prompt.console import line_for  # noqa: E402
from prompt.readers import next_of  # noqa: E402
from prompt.settings import DEFAULT_PORT, NodeError, Settings, check_ip, check_port  # noqa: E402
from protocol import results  # noqa: E402, F401
from protocol.membership import election, failover  # noqa: E402, F401

DEFAULT_TIMEOUT = 30.0  # seconds for each wait
LIST_INTERVAL = 0.2  # seconds: nothing tells that the list of the network changed, so it is asked for again
LEAVE_TIMEOUT = 3.0
CONTENT_STEP = 1 << 20  # bytes made at once


class Failed(Exception):
    """The scenario did not go as it should, with a sentence for a person."""


# ---- the frame of every script ------------------------------------------------------------------------------------


def say(line: str) -> None:
    """One line, at once, also where the output is a pipe."""
    print(line, flush=True)


def parser_for(title: str, port: int = DEFAULT_PORT) -> argparse.ArgumentParser:
    """The flags that every scenario has."""
    parser = argparse.ArgumentParser(description=title, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ip", default="127.0.0.1", type=check_ip, help="where the first one is")
    parser.add_argument("--port", default=port, type=port_or_any, help="its UDP port (default %(default)s)")
    parser.add_argument("--name", default="", help="how the others see this one")
    parser.add_argument("--folder", help="where files are kept (default: a temporary folder)")
    parser.add_argument("--timeout", type=float, default=DEFAULT_TIMEOUT, help="seconds for each wait (%(default)g)")
    return parser


def add_content_flags(parser: argparse.ArgumentParser) -> None:
    """What is common to the one who shares and the one who fetches."""
    parser.add_argument("--seed", type=int, default=7, help="what the content is made from (default %(default)d)")
    parser.add_argument("--size", type=int, default=20_000_000, help="bytes of the file (default %(default)d)")
    parser.add_argument("--mesh-off", action="store_true", help="as the command M off: by way of the supernode")


def port_or_any(text: str) -> int:
    """A port; 0, a free one, is for the scripts that can do without a known one."""
    return 0 if text.strip() == "0" else check_port(text)


def run(
    title: str, body: Callable[[argparse.Namespace], None], parser: Optional[argparse.ArgumentParser] = None
) -> int:
    """Flags, what is expected, the scenario in its folder, and the verdict as exit code."""
    arguments = (parser or parser_for(title)).parse_args()
    signal.signal(signal.SIGTERM, _on_sigterm)  # what was started is stopped, as after Ctrl-C
    say(title.strip().split("\n\n")[0])
    try:
        with _folder_of(arguments):
            body(arguments)
    except Failed as failure:
        say("FAIL: %s" % failure)
        return 1
    except KeyboardInterrupt:
        say("FAIL: interrupted")
        return 1
    except Exception as error:  # a scenario must always come to its verdict
        say("FAIL: %s: %s" % (type(error).__name__, error))
        return 1
    say("PASS")
    return 0


def _on_sigterm(*_: object) -> None:
    raise Failed("terminated")


@contextlib.contextmanager
def _folder_of(arguments: argparse.Namespace) -> Iterator[None]:
    if arguments.folder:
        os.makedirs(arguments.folder, exist_ok=True)
        yield
        return
    with tempfile.TemporaryDirectory(prefix="node_scenario_", **_FORGIVING) as folder:
        arguments.folder = folder
        yield


# Windows keeps a file that a scanner has open: a leftover temporary folder is no failure of the scenario.
_FORGIVING: Any = {"ignore_cleanup_errors": True} if sys.version_info >= (3, 10) else {}


def expect(is_true: Any, why: str) -> None:
    """The scenario has failed unless this holds."""
    if not is_true:
        raise Failed(why)


# ---- content that everyone can make for himself -------------------------------------------------------------------


def content(seed: int, size: int) -> Iterator[bytes]:
    """The same bytes for the same seed, everywhere."""
    rng = random.Random(seed)
    for start in range(0, size, CONTENT_STEP):
        yield rng.randbytes(min(CONTENT_STEP, size - start))


def fetched_line(name: str) -> str:
    """What node_request.py says when it has the file."""
    return "%s is fetched" % name


def content_name(seed: int, size: int) -> str:
    """What the file made from that seed is called."""
    return "seed-%d-%d.bin" % (seed, size)


def content_sha256(seed: int, size: int) -> str:
    """What the fetched file must have."""
    digest = hashlib.sha256()
    for data in content(seed, size):
        digest.update(data)
    return digest.hexdigest()


def make_file(folder: str, seed: int, size: int, name: str = "") -> str:
    """Write the file of that seed; its path."""
    path = os.path.join(folder, name or content_name(seed, size))
    with open(path, "wb") as file:
        for data in content(seed, size):
            file.write(data)
    return path


def file_sha256(path: str) -> str:
    """The plain SHA-256 of a file on disk, in hex."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for data in iter(lambda: file.read(CONTENT_STEP), b""):
            digest.update(data)
    return digest.hexdigest()


# ---- a node, and what it has told ---------------------------------------------------------------------------------


class Member:
    """A node of the program, driven by a script: its commands as calls with answers, its notifications as a list."""

    def __init__(self, arguments: argparse.Namespace, name: str) -> None:
        self.timeout = arguments.timeout
        self.name = arguments.name or name
        self.told: List[Any] = []  # every notification so far but progress, in order
        self.told_at: List[float] = []
        self.count = 0  # nodes in the network
        self._arguments = arguments
        self._inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._node: Any = None

    def __enter__(self) -> Member:
        arguments = self._arguments
        settings = Settings(arguments.ip, arguments.port, self.name, arguments.folder, True)
        try:
            self._node = node_client.open_node(settings, self._inbox.put)
        except NodeError as error:
            raise Failed(str(error)) from error
        try:
            self.wait(lambda: self.all(results.Outcome), "outcome of the search for a network")
            outcome = self.all(results.Outcome)[0]
            expect(outcome.kind in ("supernode", "joined"), outcome.text or "no network could be joined or opened")
            is_usable = outcome.kind == "joined" or self._node.is_port_own
            expect(is_usable, "port %d is taken, and no node answers there" % arguments.port)
        except BaseException:
            self.leave()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()

    @property
    def is_first(self) -> bool:
        """Did this node open the network?"""
        return bool(self.all(results.Outcome)[0].kind == "supernode")

    def all(self, kind: Any) -> List[Any]:
        """The notifications of a kind so far."""
        return [event for event in self.told if isinstance(event, kind)]

    def chat(self) -> List[str]:
        """All chat lines so far, in the order in which they came."""
        return [event.text for event in self.all(results.ChatReceived)]

    def time_of(self, event: Any) -> float:
        """When a notification arrived."""
        return next(at for known, at in zip(self.told, self.told_at) if known is event)

    def wait(self, is_met: Callable[[], Any], what: str) -> None:
        """Take notifications until it is met; Failed when that takes too long."""
        expect(self.take(is_met, self.timeout), "no %s within %g s" % (what, self.timeout))

    def take(self, is_met: Callable[[], Any], timeout: float) -> bool:
        """Take notifications until it is met; False when the time is over."""
        deadline = time.monotonic() + timeout
        while not is_met():
            try:
                event = next_of(self._inbox, deadline - time.monotonic())
            except queue.Empty:
                return bool(is_met())
            if isinstance(event, _Answer):
                event.keep()
            else:
                self._on_event(event)
        return True

    def _on_event(self, event: Any) -> None:
        if isinstance(event, results.Progress):
            return
        self.told.append(event)
        self.told_at.append(time.monotonic())
        if isinstance(event, (results.Outcome, results.Joined, results.Left)):
            self.count = event.count
        say(line_for(event, self._arguments.folder))

    def ask(self, command: Callable[[Any, float, Callable[..., None]], Any], what: str) -> Any:
        """Have `command(peer, now, done)` run on the node thread; what `done` was given."""
        answers: List[Any] = []

        def done(answer: Any = None, *_: Any) -> None:
            self._inbox.put(_Answer(answers, answer))

        self._node.call(lambda now: command(self._node.peer, now, done))
        self.wait(lambda: answers, "answer to %s" % what)
        return answers[0]

    def say(self, text: str) -> None:
        """Chat, as the command T."""
        is_taken = self.ask(lambda peer, now, done: done(peer.say(text, now)), "T")
        expect(is_taken, "too much of what was said waits already: %r was not taken" % text)

    def list(self, pattern: str = "") -> List[Any]:
        """The files of the network, as the command G."""
        return list(self.ask(lambda peer, now, done: peer.list_files(pattern, now, done), "G") or [])

    def wait_for_files(self, is_met: Callable[[List[Any]], Any], what: str) -> List[Any]:
        """Ask for the list until it is as it should be."""
        limit = self.timeout
        deadline = time.monotonic() + limit
        while True:
            rows = self.list()
            if is_met(rows):
                return rows
            if time.monotonic() > deadline:
                found = ", ".join(sorted(row.name for row in rows)) or "nothing"
                raise Failed("the list did not come to have %s within %g s; it has %s" % (what, limit, found))
            self.take(lambda: False, LIST_INTERVAL)

    def look_now(self) -> None:
        """Have the folder looked through at once, for what was just put into it."""
        self._node.look_now()

    def set_mesh(self, is_on: bool) -> None:
        """As the command M."""
        self.ask(lambda peer, now, done: done(peer.set_mesh(is_on, now)), "M")

    def leave(self) -> None:
        """As the command Q: hands over if supernode, delivers what was sent, ends the threads."""
        if self._node is None:
            return
        left: List[Any] = []
        node, self._node = self._node, None
        node.call(lambda now: node.peer.leave(now, lambda *_: self._inbox.put(_Answer(left, True))))
        self.take(lambda: left, LEAVE_TIMEOUT)
        node.close(1.0)
        self.take(lambda: False, 0.0)


class _Answer:
    """An answer on its way from the node thread to the script."""

    def __init__(self, answers: List[Any], answer: Any) -> None:
        self._answers, self._answer = answers, answer

    def keep(self) -> None:
        self._answers.append(self._answer)


def command_line(script: str, arguments: argparse.Namespace, flags: str = "") -> str:
    """How to start the script that this one waits for."""
    where = "" if arguments.ip == "127.0.0.1" else " --ip %s" % (arguments.ip or '""')
    line = "python node_tests/%s%s --port %d %s" % (script, where, arguments.port, flags)
    return line.rstrip()


def ask_for(script: str, arguments: argparse.Namespace, flags: str = "") -> None:
    """Say what is waited for."""
    say("waiting: start %s in another terminal: %s" % (script, command_line(script, arguments, flags)))
