"""The one-line forms: `get`, `share`, `list`, `who`, `say`. A node that is there for one thing, without a prompt.

    run:  a place for the node's state  ->  join (get, list, who and say found no network)  ->  the verb  ->  leave

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
from typing import Any, Callable, List, Optional, Sequence, Set

from prompt import json_lines, lines
from prompt.console import CHAT_BYTES_MAX, SCRIPT_PAUSE_SECONDS, SCRIPT_SAY_SECONDS, line_for
from prompt.output import Output, OutputLost, StreamWriter
from prompt.readers import IDLE_SECONDS, next_of
from prompt.session import DOOR_SECONDS, JOIN_SECONDS, LEAVE_SECONDS
from prompt.settings import (
    DEFAULT_PORT,
    EXIT_ADDRESS,
    EXIT_FAILED,
    EXIT_FLAGS,
    EXIT_INCOMPLETE,
    EXIT_INTERRUPTED,
    EXIT_NOT_FOUND,
    EXIT_OK,
    EXIT_OUTPUT,
    NodeError,
    Settings,
    Visit,
    default_name,
)
from protocol import mishaps, results
from protocol.content.names import HIDDEN, check_name
from protocol.content.troubles import BadName, FolderInUse
from protocol.looks import safe_label, safe_text

log = mishaps.logger("node")

ANSWER_SECONDS = 30.0           # for what the network is asked; a list gives up by itself before
NO_NETWORK = "There is no network here. The first one is opened by share, or by the program without such a word."


class Ended(Exception):
    """Ends the run with this exit code; a sentence says why."""

    def __init__(self, code: int, why: str = "") -> None:
        super().__init__(why)
        self.code, self.why = code, why


class OneShot:
    """One run of a one-line form."""

    def __init__(self, flags: argparse.Namespace, clock: Callable[[], float] = time.monotonic) -> None:
        self.flags, self.clock = flags, clock
        self.output = Output(getattr(flags, "json", False), getattr(flags, "output", None) == "-")
        self.inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self.node: Any = None
        self.signals: List[int] = []
        self.is_leaving = False
        self.outcome: Optional[results.Outcome] = None
        self.ending: Optional[Any] = None           # DownloadDone or Stopped of what `get` fetches
        self.row: Optional[results.TransferRow] = None  # how it stands
        self.paused_at: Optional[float] = None      # since when it waits for room on the disk
        self.sent: Set[bytes] = set()               # what somebody has all of
        self.unsaid = 0
        self._temporary = self._hidden = ""

    # ---- what arrives

    def notify(self, event: Any) -> None:
        """From the node thread: something to tell."""
        self.later(functools.partial(self.on_event, event))

    def later(self, closure: Callable[[], None]) -> None:
        """From any thread: have this done by the prompt thread, soon."""
        self.inbox.put(closure)

    def on_signal(self, number: int, frame: Any) -> None:
        """A signal handler: only remembers; whoever waits looks ten times a second."""
        if number == signal.SIGINT and self.is_leaving:
            os._exit(EXIT_INTERRUPTED)
        if not self.is_leaving and number in (signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", 0)):
            self.signals.append(number)

    def on_event(self, event: Any) -> None:
        """Remembers what is waited for, and tells what concerns this verb."""
        if isinstance(event, results.Outcome):
            self.outcome = event
        elif isinstance(event, results.Progress):
            self.row = event.row
            self.output.progress(event)
        elif isinstance(event, (results.DownloadDone, results.Stopped)):
            self._on_ending(event)
        elif isinstance(event, results.UploadDone):
            self._on_sent(event)
        elif isinstance(event, results.Paused):
            self.paused_at = self.clock() if self.paused_at is None else self.paused_at
            self.output.aside(event, line_for(event))
        elif isinstance(event, results.Resumed):
            self.paused_at = None
            self.output.aside(event, line_for(event))
        elif isinstance(event, results.Notice):
            self.output.aside(event, line_for(event))
        elif isinstance(event, results.Unsaid):
            self.unsaid += event.line_count

    def _on_ending(self, event: Any) -> None:
        self.ending = event
        if isinstance(event, results.Stopped):
            again = f"{safe_text(event.name)} goes on"
            told = line_for(event).replace(f"; R {again}", "; the same line goes on with it")
            self.output.aside(event, told)
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
                closure()
                closure = self.inbox.get_nowait()

    def _wait(self, is_met: Callable[[], Any], seconds: float = float("inf")) -> bool:
        """Waits for it; False when the time is over. A signal ends the run."""
        deadline = self.clock() + seconds
        while not is_met():
            if self.signals and not self.is_leaving:
                self._pump(0.0)                 # how it stands now
                raise Ended(EXIT_INTERRUPTED if signal.SIGINT in self.signals else EXIT_FAILED)
            if self.clock() > deadline:
                return False
            self._pump(IDLE_SECONDS)
        return True

    def _ask(self, call: Callable[..., None]) -> Any:
        """What `call(peer, now, done)`, on the node thread, calls `done` with; None if it never does."""
        answers: List[Any] = []

        def run(now: float) -> None:
            call(self.node.peer, now, lambda answer=None: self.later(lambda: answers.append(answer)))
        self.node.call(run)
        self._wait(lambda: answers, ANSWER_SECONDS)
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
        verbs = {"get": self._get, "share": self._share, "list": self._list, "who": self._who, "say": self._say}
        self._temporary = tempfile.mkdtemp(prefix="lab-share-")
        self._check()
        self._join(open_node)
        return verbs[self.flags.verb]()

    def _code_of(self, error: Exception) -> int:
        if isinstance(error, OutputLost) and self.output.is_reader_gone and self.flags.verb in ("list", "who"):
            return EXIT_OK                      # it has seen enough
        if isinstance(error, OutputLost):
            self.output.fail(EXIT_OUTPUT, str(error))
            return EXIT_OUTPUT
        if isinstance(error, MemoryError):
            self.output.fail(EXIT_OUTPUT, "There is not enough memory for this.")
            return EXIT_OUTPUT
        if isinstance(error, Ended):
            self.output.fail(error.code, error.why or self._how_it_stands())
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
        with contextlib.suppress(OutputLost):
            if self.node:
                self._leave_node()
            self.output.close()
        if self.unsaid and code == EXIT_OK:
            code = EXIT_FAILED
        self._clear_away(code)
        return code

    def _leave_node(self) -> None:
        left: List[bool] = []
        self.node.call(lambda now: self.node.peer.leave(now, lambda *_: self.later(lambda: left.append(True))))
        self._wait(lambda: left, LEAVE_SECONDS)
        self.node.close(1.0)
        self._pump(0.0)

    # ---- the node and its place

    def _check(self) -> None:
        """What is wrong with the words, before anything is begun."""
        flags = self.flags
        if flags.verb == "get" and self.output.is_stream and self.output.is_json:
            raise Ended(EXIT_FLAGS, "get NAME - writes the file itself to standard output, so --json has no place.")
        if flags.verb == "say":
            size = len(" ".join(flags.text).encode("utf-8", "replace"))
            if not 0 < size <= CHAT_BYTES_MAX:
                raise Ended(EXIT_FLAGS, f"A text has 1 to {CHAT_BYTES_MAX} bytes; this one has {size}.")
        for path in flags.paths if flags.verb == "share" else ():
            if not os.path.lexists(path):
                raise Ended(EXIT_NOT_FOUND, f"{safe_text(path)}  there is no such file or folder")

    def _settings(self) -> Settings:
        flags = self.flags
        visit = Visit(may_found=flags.verb == "share", is_sharing=flags.verb == "share")
        folder = self._temporary
        if flags.verb == "get" and not (self.output.is_stream and not flags.to):
            folder = os.path.expanduser(flags.to or os.curdir)
            # By the name: so several may be fetched into one folder at once, and the same line finds its state again.
            name = _bare(flags.wanted).encode("utf-8", "replace")
            self._hidden = f"{HIDDEN}-get-{hashlib.sha256(name).hexdigest()[:12]}"
            visit = visit._replace(hidden=self._hidden, scans=self._temporary)
        return Settings(flags.ip or None, flags.port or DEFAULT_PORT, flags.name or default_name(), folder, True,
                        flags.trace or "", flags.up, flags.down, visit)

    def _join(self, open_node: Callable[..., Any]) -> None:
        settings = self._settings()
        self._folder, self._was_there = settings.folder, os.path.isdir(settings.folder)
        try:
            self.node = open_node(settings, self.notify)
        except NodeError as error:
            if isinstance(error.__cause__, FolderInUse):
                self._hidden = ""           # it is the other one's
                raise Ended(EXIT_FLAGS, f"{safe_text(self.flags.wanted)} is being fetched into "
                                        f"{safe_text(settings.folder, 1000)} already.") from None
            raise Ended(error.code, str(error)) from None
        self._wait(lambda: self.outcome is not None, JOIN_SECONDS)
        kind = self.outcome.kind if self.outcome else ""
        if kind == "supernode" and not self._wait(lambda: self.node.is_port_own, DOOR_SECONDS):
            raise Ended(EXIT_ADDRESS, f"Port {settings.port} of this machine is in use by another program, "
                                      "and no node answers there.")
        if kind not in ("joined", "supernode"):
            raise Ended(EXIT_ADDRESS, self._why_outside(settings))

    def _why_outside(self, settings: Settings) -> str:
        text = safe_text(self.outcome.text) if self.outcome else ""
        if text and self.outcome and self.outcome.kind == "refused":
            return text
        if settings.ip:
            return f"Nobody answers at {settings.ip}:{settings.port}." + (f" {text}." if text else "")
        return NO_NETWORK

    def _clear_away(self, code: int) -> None:
        """Nothing is left but what was asked for; and what is here of it, if the rest is to come."""
        if self._hidden:
            state = os.path.join(self._folder, self._hidden)
            parts = os.path.join(state, "parts")
            has_part = code != EXIT_OK and os.path.isdir(parts) and bool(os.listdir(parts))
            if not has_part or self.output.is_stream:
                shutil.rmtree(state, ignore_errors=True)
            if not self._was_there:
                with contextlib.suppress(OSError):
                    os.rmdir(self._folder)      # made for this, and empty
        if self._temporary:
            shutil.rmtree(self._temporary, ignore_errors=True)

    # ---- list, who, say

    def _list(self) -> int:
        pattern = self.flags.pattern
        rows = self._ask(lambda peer, now, done: peer.list_files(pattern, now, done))
        if rows is None:
            raise Ended(EXIT_ADDRESS, "The list did not come; try again soon.")
        if not rows and pattern:
            raise Ended(EXIT_NOT_FOUND, f'No file here matches "{safe_text(pattern, 60)}".')
        cells = [row[1:] for row in lines.file_rows(rows)]
        self._tell_rows([json_lines.file_object(row) for row in rows], cells, (1,))
        return EXIT_OK

    def _who(self) -> int:
        rows = self._ask(lambda peer, now, done: done(peer.members(now))) or ()
        others = [row for row in rows if not row.is_me]     # this visit ends with this answer
        cells = [lines.member_cells(row) for row in others]
        self._tell_rows([json_lines.member_object(row) for row in others], cells, ())
        return EXIT_OK

    def _tell_rows(self, objects: Sequence[Any], cells: Sequence[Sequence[str]], right: Sequence[int]) -> None:
        if self.output.is_json:
            for one in objects:
                self.output.result(one, "")
        else:
            for line in lines.table(cells, right, self.output.width()):
                self.output.result(None, line.strip() if self.output.width() is None else line)

    def _say(self) -> int:
        text = " ".join(self.flags.text).encode("utf-8", "replace").decode("utf-8")
        patience, at_most = SCRIPT_SAY_SECONDS

        def say(peer: Any, now: float, done: Callable[..., None]) -> None:
            if peer.say(text, now):
                peer.finish_saying(patience, at_most, now, lambda: done(True))
            else:
                done(False)
        said: List[Any] = []
        self.node.call(lambda now: say(self.node.peer, now, lambda answer: self.later(lambda: said.append(answer))))
        self._wait(lambda: said, at_most + 1.0)
        if not said or not said[0]:
            raise Ended(EXIT_FAILED, "It could not be said.")
        if self.output.is_json:
            self.output.result({"event": "said", "text": text}, "")
        return EXIT_OK

    # ---- get

    def _get(self) -> int:
        entry = self._find(_bare(self.flags.wanted))
        if self.output.is_stream:
            return self._stream(entry)
        self._look_at(entry.name)
        return self._fetched(lambda peer, now, done: peer.fetch(entry, now, done))

    def _find(self, name: str) -> results.ListEntry:
        found = self._ask(lambda peer, now, done: peer.find(name, now, done))
        if found is None:
            raise Ended(EXIT_ADDRESS, "The list did not come; try again soon.")
        if not found:
            raise Ended(EXIT_NOT_FOUND, f"{safe_text(name)}  nobody here has it")
        if len(found) > 1:
            rows = lines.table([row[1:] for row in lines.file_rows(found)], (1,))
            told = f'Several files match "{safe_text(name, 60)}"; one is to be named:'
            raise Ended(EXIT_FLAGS, "\n".join([told, *rows]))
        entry: results.ListEntry = found[0]
        return entry

    def _look_at(self, name: str) -> None:
        """What stands there already is hashed, so that none of it is fetched again."""
        try:
            check_name(name)                # it may lead anywhere; the download will refuse it
        except BadName:
            return
        path = os.path.abspath(os.path.join(self._folder, name))
        if "/" not in name and os.path.lexists(path):
            self._ask(lambda peer, now, done: peer.share(path, now, done))
            looked: List[bool] = []
            self.node.look_now(lambda: self.later(lambda: looked.append(True)))
            self._wait(lambda: looked)

    def _fetched(self, fetch: Callable[..., None]) -> int:
        """Asks for it and waits for its end."""
        answer = self._ask(fetch) or results.FetchAnswer("")
        if answer.kind == "already here":
            one, here = answer.entries[0], answer.path or ""
            self._on_ending(results.DownloadDone(0, one.name, one.size, 0.0, (), one.file_id, here, None, True, 0))
            return EXIT_OK
        if answer.kind != "started":
            raise Ended(EXIT_ADDRESS, "There is no network at the moment; try again soon.")
        self._wait(lambda: self.ending is not None or self._has_waited_for_room() or self.output.is_lost)
        self.output.check()
        if self.ending is None:
            raise Ended(EXIT_OUTPUT, "The disk has no room for the rest; what came is kept, the same line goes on.")
        return self._code_of_ending()

    def _code_of_ending(self) -> int:
        if isinstance(self.ending, results.Stopped):
            return EXIT_FAILED
        return EXIT_INCOMPLETE if getattr(self.ending, "left_out", 0) else EXIT_OK

    def _has_waited_for_room(self) -> bool:
        return self.paused_at is not None and self.clock() - self.paused_at >= SCRIPT_PAUSE_SECONDS

    def _stream(self, entry: results.ListEntry) -> int:
        if entry.is_folder:
            raise Ended(EXIT_FLAGS, f"{safe_text(entry.name)} is a folder; get NAME - writes one file.")
        writer = StreamWriter(self.node.call, self.output)
        return self._fetched(lambda peer, now, done: peer.stream(entry, writer.take, now, done))

    # ---- share

    def _share(self) -> int:
        for path in self.flags.paths:
            said = self._ask(lambda peer, now, done, path=path: peer.share(os.path.abspath(path), now, done))
            if not said or said.startswith("!!"):
                raise Ended(EXIT_FAILED, (said or "It cannot be shared.")[2:].strip())
        self.output.aside(None, "* reading ...")
        looked: List[bool] = []
        self.node.look_now(lambda: self.later(lambda: looked.append(True)))
        self._wait(lambda: looked)
        rows = self._ask(lambda peer, now, done: done(peer.shares())) or ()
        if not rows:
            raise Ended(EXIT_FAILED, "Nothing of this can be shared.")
        for row in rows:
            what = {"event": "shared", **json_lines.file_object(row)}
            self.output.result(what, f"* {lines.file_cells(row)[1]}  {lines.format_size(row.size)} is shared"
                                     f"  id {lines.short_id(row.file_id)}")
        return self._wait_for_takers({row.file_id for row in rows})

    def _wait_for_takers(self, wanted: Set[bytes]) -> int:
        if getattr(self.flags, "stay", False):
            with contextlib.suppress(Ended):
                self._wait(lambda: False)
            return EXIT_INTERRUPTED if signal.SIGINT in self.signals else EXIT_OK
        if self.outcome and self.outcome.kind == "joined":
            self._see_who_has(wanted)
        if not wanted <= self.sent:
            self.output.aside(None, "* until somebody has it all; Ctrl-C ends it before")
        self._wait(lambda: wanted <= self.sent)
        return EXIT_OK

    def _see_who_has(self, wanted: Set[bytes]) -> None:
        """What another node has all of already needs nobody to fetch it."""
        for row in self._ask(lambda peer, now, done: done(peer.shares())) or ():
            for entry in self._ask(lambda peer, now, done, row=row: peer.find(row.name, now, done)) or ():
                others = [label for label, one in zip(entry.holders, entry.holder_ids) if one != self.node.peer.node_id]
                if entry.file_id in wanted and others:
                    self.sent.add(entry.file_id)
                    text = f"{safe_label(others[0])} has {safe_text(entry.name)} already"
                    self.output.aside(results.Notice(text), f"* {text}")


def _bare(name: str) -> str:
    """A name as `list` shows it, without the slash of a folder."""
    return name.rstrip("/") or name

