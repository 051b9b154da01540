"""The one-line forms: `get`, `share`, `list`, `who`, `say`, `doctor`. A node for one thing, without a prompt.

    run:  a place for the node's state  ->  join (all but share found no network)  ->  the verb  ->  leave

What was asked for goes to standard output, as text or as JSON; everything else to standard error. `get` works in the
folder where the file is to land, with its state in a hidden folder beside it, which stays only if a part of the file is
here and the rest is not: the same line goes on with it. All else is in a temporary folder.

Everything here runs on the prompt thread, as in `Session`; a signal only leaves a note.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import hashlib
import os
import queue
import shutil
import signal
import tempfile
import time
from typing import Any, Callable, List, Optional, Set

from prompt import json_lines, lines, network_key, signals, verbs
from prompt.console import line_for
from prompt.output import Ended, Output, OutputLost
from prompt.paths import danger_of, unasked_line
from prompt.readers import IDLE_SECONDS, next_of
from prompt.session import DOOR_SECONDS, JOIN_SECONDS, LEAVE_SECONDS
from prompt.settings import (
    DEFAULT_FOLDER,
    DEFAULT_PORT,
    EXIT_ADDRESS,
    EXIT_FAILED,
    EXIT_FLAGS,
    EXIT_INTERRUPTED,
    EXIT_NOT_FOUND,
    EXIT_OK,
    NodeError,
    Settings,
    Visit,
    default_name,
)
from prompt.shortage import EXIT_SHORT, NO_MEMORY, is_memory_short
from protocol import mishaps, results
from protocol.addresses import shown
from protocol.content.names import HIDDEN
from protocol.content.troubles import FolderInUse
from protocol.looks import safe_label, safe_text
from protocol.results import CHAT_BYTES_MAX

log = mishaps.logger("node")

ANSWER_SECONDS = 30.0           # for what the network is asked; a list gives up by itself before
NO_NETWORK = "There is no network here. The first one is opened by share, or by the program without such a word."


class OneShot:
    """One run of a one-line form."""

    def __init__(self, flags: argparse.Namespace, clock: Callable[[], float] = time.monotonic) -> None:
        self.flags, self.clock = flags, clock
        self.output = Output(getattr(flags, "json", False), getattr(flags, "output", None) == "-")
        self.inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self.node: Any = None
        self.signals: List[int] = []
        self.is_leaving = self.is_short = False     # is_short: of memory
        self.is_key_wanted = False                  # a network has a key, and this node has none
        self.outcome: Optional[results.Outcome] = None
        self.outside = ""                           # why there is no network, for `doctor`, which goes on without
        self.ending: Optional[Any] = None           # DownloadDone or Stopped of what `get` fetches
        self.row: Optional[results.TransferRow] = None  # how it stands
        self.paused_at: Optional[float] = None      # since when it waits for room on the disk
        self.sent: Set[bytes] = set()               # what somebody has all of
        self.has_heard = False                      # what was said came back
        self._is_end_told = False                   # why it ends was said; that the node leaves is no news
        self.folder = self._temporary = self._hidden = ""

    # ---- what arrives

    def notify(self, event: Any) -> None:
        """From the node thread: something to tell."""
        self.later(functools.partial(self.on_event, event))

    def later(self, closure: Callable[[], None]) -> None:
        """From any thread: have this done by the prompt thread, soon."""
        self.inbox.put(closure)

    def on_signal(self, number: int, frame: Any) -> None:
        """A signal handler: only remembers."""
        signals.note(number, self.signals, self.is_leaving)

    def on_memory_short(self) -> None:
        """From any thread: one could not go on without memory, so what is waited for may never come."""
        self.is_short = True

    def on_event(self, event: Any) -> None:
        """Remembers what is waited for, and tells what concerns this verb."""
        if isinstance(event, results.Outcome):
            self.outcome = event
        elif isinstance(event, results.KeyWanted):
            self.is_key_wanted = True
        elif isinstance(event, results.Progress):
            self.row = event.row
            self.output.progress(event)
        elif isinstance(event, (results.DownloadDone, results.Stopped)):
            self.end(event)
        elif isinstance(event, results.UploadDone):
            self._on_sent(event)
        elif isinstance(event, results.Paused):
            self.paused_at = self.clock() if self.paused_at is None else self.paused_at
            self.output.aside(event, line_for(event))
        elif isinstance(event, results.Resumed):
            self.paused_at = None
            self.output.aside(event, line_for(event))
        elif isinstance(event, results.HalfHere):
            self.output.aside(event, f"* {lines.half_here(event, json_lines.THIS_LINE)}")
        elif isinstance(event, results.Notice):
            self.output.aside(event, line_for(event))
        elif isinstance(event, results.ChatReceived):
            self.has_heard = self.has_heard or event.is_me

    def end(self, event: Any) -> None:
        """This is how the transfer ended."""
        self.ending = event
        if isinstance(event, results.Stopped):
            if self._is_end_told and not self.output.is_json:
                return
            if self.output.is_stream:           # what came is removed at the end: there is no going on
                event = event._replace(kept=False)
            self.output.aside(event, lines.stopped_line(event, "the same line goes on with it"))
        elif self.output.is_stream:
            self.output.aside(event, lines.line_for(event._replace(path="standard output"), ""))
        else:
            self.output.result(json_lines.object_of(event), line_for(event))

    def _on_sent(self, event: results.UploadDone) -> None:
        if self.flags.verb == "share":
            self.output.result(json_lines.object_of(event), line_for(event))
            if event.is_confirmed:
                self.sent.add(event.file_id)

    def _pump(self, wait: float) -> None:
        with contextlib.suppress(queue.Empty):
            closure = next_of(self.inbox, wait)
            while True:
                self._guarded(closure)
                closure = self.inbox.get_nowait()

    def _guarded(self, closure: Callable[[], None]) -> None:
        try:
            closure()
        except OutputLost:
            if not self.is_leaving:             # what else is to be done is done then
                raise
        except Exception:
            log.exception("a notification was dropped")

    def wait(self, is_met: Callable[[], Any], seconds: float = float("inf")) -> bool:
        """Waits for it; False when the time is over. A signal ends the run, and so does a lack of memory."""
        deadline = self.clock() + seconds
        while not is_met():
            if self.signals and not self.is_leaving:
                self._pump(0.0)                 # how it stands now
                log.info("%s came", signals.names_of(self.signals))
                raise Ended(EXIT_INTERRUPTED if signal.SIGINT in self.signals else EXIT_FAILED)
            if self.is_short and not self.is_leaving:
                raise MemoryError
            if self.clock() > deadline:
                return False
            self._pump(IDLE_SECONDS)
        return True

    def ask(self, call: Callable[..., None], seconds: float = ANSWER_SECONDS) -> Any:
        """What `call(peer, now, done)`, on the node thread, calls `done` with; None if it never does."""
        answers: List[Any] = []

        def run(now: float) -> None:
            try:
                call(self.node.peer, now, lambda answer=None: self.later(lambda: answers.append(answer)))
            except Exception:
                self.later(lambda: answers.append(None))
                raise
        self.node.call(run)
        self.wait(lambda: answers, seconds)
        return answers[0] if answers else None

    # ---- from the flags to the exit code

    def run(self, open_node: Callable[[Settings, Callable[[Any], None]], Any]) -> int:
        """The exit code; whatever happens, the node leaves properly and its state is cleared away."""
        code = EXIT_FAILED
        try:
            code = self._run(open_node)
            self.output.check()
        except Exception as error:
            code = self._code_of(error)
        finally:
            code = self._leave(code)
        return code

    def _run(self, open_node: Callable[..., Any]) -> int:
        self._check()
        try:
            self._temporary = tempfile.mkdtemp(prefix="lab-share-")
        except OSError as error:
            why = (error.strerror or "refused").lower()
            raise Ended(EXIT_SHORT, f"No temporary folder can be made: {why}.") from None
        self._join(open_node)
        return verbs.VERBS[self.flags.verb](self)

    def _code_of(self, error: Exception) -> int:
        """The exit code of what ended it, which is told as far as that can be."""
        if isinstance(error, OutputLost) and self.output.is_reader_gone and self.flags.verb in ("list", "who"):
            return EXIT_OK                      # it has seen enough
        if isinstance(error, OutputLost):
            self.output.fail(EXIT_SHORT, str(error))
            return EXIT_SHORT
        if is_memory_short(error):
            self.output.fail(EXIT_SHORT, NO_MEMORY)
            return EXIT_SHORT
        if isinstance(error, Ended):
            why = error.why or self._how_it_stands()
            self._is_end_told = bool(why)
            self.output.fail(error.code, why)
            return error.code
        log.error("the one-line form failed", exc_info=error)
        self.output.fail(EXIT_FAILED, "This ends because of a mistake in the program; --log FILE tells the details.")
        return EXIT_FAILED

    def _how_it_stands(self) -> str:
        """Of what was interrupted."""
        if self.flags.verb == "share" and self.node:
            return "ended before another node had all of it"
        if self.row is None or self.ending is not None or self.output.is_stream:
            return ""
        how = lines.format_percent(self.row.verified, self.row.size)
        return f"{safe_text(self.row.name)}  stopped at {how}; the same line goes on with it"

    def _leave(self, code: int) -> int:
        if signal.SIGINT in self.signals and code == EXIT_OK:
            code = EXIT_INTERRUPTED
        self.is_leaving = True
        if self.node:
            self._leave_node()
        self.output.close()
        self._clear_away(code)
        return code

    def _leave_node(self) -> None:
        left: List[bool] = []
        self.node.call(lambda now: self.node.peer.leave(now, lambda *_: self.later(lambda: left.append(True))))
        self.wait(lambda: left, LEAVE_SECONDS)
        self.node.close(1.0)
        self._pump(0.0)

    # ---- the node and its place

    def _check(self) -> None:
        """What is wrong with the words, before anything is begun."""
        flags = self.flags
        if flags.verb == "get" and not flags.wanted.strip():  # it would fit every name, and so the only one
            raise Ended(EXIT_FLAGS, "get needs a name as list shows it, and this one is empty.")
        if flags.verb == "get" and self.output.is_stream and self.output.is_json:
            raise Ended(EXIT_FLAGS, "get NAME - writes the file itself to standard output, so --json has no place.")
        if flags.verb == "say":
            size = len(" ".join(flags.text).encode("utf-8", "replace"))
            if not 0 < size <= CHAT_BYTES_MAX:
                raise Ended(EXIT_FLAGS, f"A text has 1 to {CHAT_BYTES_MAX} bytes; this one has {size}.")
        for path in flags.paths if flags.verb == "share" else ():
            if not path:
                raise Ended(EXIT_FLAGS, "share needs a path, and this one is empty.")
            if not os.path.lexists(path):
                raise Ended(EXIT_NOT_FOUND, f"{safe_text(path)}  there is no such file or folder")
            danger = danger_of(path)
            if danger:
                raise Ended(EXIT_FAILED, unasked_line(path, danger))

    def _settings(self) -> Settings:
        """Of a node that is there for one thing: its state lies in a hidden or temporary folder of its own."""
        flags = self.flags
        visit = Visit(flags.verb == "share", flags.verb == "share", takes_port=flags.verb == "doctor")
        folder = self._temporary
        if flags.verb == "get" and not (self.output.is_stream and not flags.to):
            folder = os.path.expanduser(flags.to or os.curdir)
            # By the name: so several may be fetched into one folder at once, and the same line finds its state again.
            name = verbs.bare(flags.wanted).encode("utf-8", "replace")
            self._hidden = f"{HIDDEN}-get-{hashlib.sha256(name).hexdigest()[:12]}"
            visit = visit._replace(hidden=self._hidden, scans=self._temporary)
        return Settings(flags.ip or None, flags.port or DEFAULT_PORT, flags.name or default_name(), folder, True,
                        flags.trace or "", flags.up, flags.down, visit, flags.others, not flags.no_cast,
                        network_key.wish_of(flags, DEFAULT_FOLDER))

    def _join(self, open_node: Callable[..., Any]) -> None:
        """Opens a node and waits how it comes into a network; Ended where the word needs one and there is none."""
        settings = self._settings()
        self.folder, self._was_there = settings.folder, os.path.isdir(settings.folder)
        try:
            self.node = open_node(settings, self.notify)
        except NodeError as error:
            if isinstance(error.__cause__, FolderInUse):
                self._hidden = ""           # it is the other one's
                raise Ended(EXIT_FLAGS, f"{safe_text(self.flags.wanted)} is being fetched into "
                                        f"{safe_text(settings.folder, 1000)} already.") from None
            raise Ended(EXIT_FAILED if self.flags.verb == "doctor" else error.code, str(error)) from None
        self.wait(lambda: self.outcome is not None, JOIN_SECONDS)
        kind = self.outcome.kind if self.outcome else ""
        if kind == "supernode" and not self.wait(lambda: self.node.is_port_own, DOOR_SECONDS):
            raise Ended(EXIT_ADDRESS, self._why_taken(settings))
        if kind == "supernode" and self.flags.verb == "share":
            self.output.remark(network_key.start_line(self.node.check_code, safe_label(settings.name)))
        if kind not in ("joined", "supernode"):
            self.outside = self._why_outside(settings)
            if self.flags.verb != "doctor":
                raise Ended(EXIT_ADDRESS, self.outside)

    def _why_taken(self, settings: Settings) -> str:
        if self.is_key_wanted:
            return network_key.KEY_WANTED
        if self.node.check_code:
            return network_key.no_answer(f"Port {settings.port} of this machine is in use")
        return f"Port {settings.port} of this machine is in use by another program, and no node answers there."

    def _why_outside(self, settings: Settings) -> str:
        if self.is_key_wanted:
            return network_key.KEY_WANTED
        if self.node.check_code:
            place = settings.ip and shown((settings.ip, settings.port))
            return network_key.no_answer(place) if place else network_key.NO_NETWORK
        text = safe_text(self.outcome.text) if self.outcome else ""
        if text and self.outcome and self.outcome.kind == "refused":
            return text
        if settings.ip:
            return f"Nobody answers at {shown((settings.ip, settings.port))}." + (f" {text}." if text else "")
        return NO_NETWORK

    def _clear_away(self, code: int) -> None:
        """Nothing is left but what was asked for; and what is here of it, if the rest is to come."""
        if self._hidden:
            state = os.path.join(self.folder, self._hidden)
            parts = os.path.join(state, "parts")
            has_part = code != EXIT_OK and os.path.isdir(parts) and bool(os.listdir(parts))
            if not has_part or self.output.is_stream:
                shutil.rmtree(state, ignore_errors=True)
            if not self._was_there:
                with contextlib.suppress(OSError):
                    os.rmdir(self.folder)      # made for this, and empty
        if self._temporary:
            shutil.rmtree(self._temporary, ignore_errors=True)
