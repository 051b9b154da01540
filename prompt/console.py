"""What a person can ask for: each command, and what is told when its answer or anything else comes."""

from __future__ import annotations

import contextlib
import functools
import itertools
import math
import os
import queue
from typing import Any, Callable, Dict, Iterable, List, Optional, Protocol, Sequence, Tuple

from prompt import lines
from prompt.arguments import limits_of
from prompt.chatting import Chatting
from prompt.choosing import ASKED_AGAIN_FROM, Batch, chosen, is_pattern, spans_in
from prompt.comings import Comings
from prompt.completion import local_paths
from prompt.lines import (
    format_size,
    limits_line,
    member_cells,
    mesh_line,
    progress_line,
    share_lines,
    short_id,
    transfer_cells,
    unfinished_rows,
    whisper_line,
)
from prompt.paths import danger_of, found_paths, unquoted
from prompt.readers import next_of
from prompt.settings import DEFAULT_FOLDER, check_target
from prompt.standing import Hashing, folder_text
from prompt.table import file_lines, fitted, share_table
from prompt.terminal import Terminal
from protocol import results
from protocol.addresses import is_loopback
from protocol.looks import cut, safe_text
from protocol.results import CHAT_BYTES_MAX, SAYS_UNCONFIRMED_MAX

SCRIPT_SAY_SECONDS = 20.0, 60.0     # of a script's chat: without a line that gets through (a supernode may have to
                                    # be found first), and for all lines said
SCRIPT_PAUSE_SECONDS = 60.0         # how long a script waits for room on the disk
NO_LIST = "There is no list yet: G prints one."
KEY_SECONDS = 0.3                   # that Tab waits for the node
PROGRESS_SECONDS = 30.0             # where no line can be redrawn: one line for this or for ...
HASHING_INTERVAL = 0.5              # seconds between two looks at how far that is
PROGRESS_PERCENT = 10               # ... this much


def relative_path(path: str) -> str:
    """A local path as short as it can be said from here."""
    with contextlib.suppress(ValueError, OSError):      # another drive; the current folder is gone
        relative = os.path.relpath(path)
        return path if relative.startswith("..") else relative
    return path


def short_path(path: Any) -> str:
    """The same, safe to print."""
    return safe_text(relative_path(os.fspath(path)), 4096)


def unasked_line(path: str, danger: str) -> str:
    """Why a path is not shared where nobody can be asked."""
    return f"{short_path(path)} {danger}: it is shared only by who can be asked whether that is meant"


def line_for(event: Any, folder: str = DEFAULT_FOLDER) -> str:
    """The line that tells a notification, with paths as short as they can be said from here."""
    if isinstance(event, (results.DownloadDone, results.Updated)) and event.clashes and event.clashes.aside:
        event = event._replace(clashes=event.clashes._replace(aside=short_path(event.clashes.aside)))
    if isinstance(event, results.DownloadDone):
        event = event._replace(path=short_path(event.path))
    return lines.line_for(event, folder)


class Life(Protocol):
    """What the commands ask of the program that they are part of."""

    @property
    def terminal(self) -> Terminal: ...
    @property
    def clock(self) -> Callable[[], float]: ...
    @property
    def node(self) -> Any: ...
    @property
    def signals(self) -> List[int]:
        """Those that came and were not yet heeded."""

    def say(self, line: str) -> None: ...
    def later(self, closure: Callable[[], None]) -> None:
        """From any thread: have this done by the prompt, soon."""

    def wait_until(self, is_met: Callable[[], bool], timeout: float) -> bool:
        """Show what arrives until `is_met`; False when the time is over or a signal came."""

    def confirm(self, question: str) -> bool:
        """Whether a person says yes; nobody does where nobody can be asked. Not while a line is read."""

    def finish_saying(self) -> None: ...
    def fail(self) -> None:
        """In a script, something that was asked for did not come."""

    def end(self) -> None:
        """No more commands."""


class Console:
    """What a person can ask for: commands become closures for the node thread, notifications become lines."""

    def __init__(self, life: Life) -> None:
        self.due: set[object] = set()           # answers that a command still waits for
        self.asked: set[int] = set()            # downloads that were asked for here and run
        self.ended: set[int] = set()
        self.paused: Dict[int, float] = {}      # downloads that wait for room on the disk, and since when
        self.running: Dict[int, results.TransferRow] = {}   # the latest of each
        self.told: Dict[int, Tuple[float, int]] = {}    # when, and at what percent, a progress line was printed
        self.rows: Dict[int, results.ListEntry] = {}        # the last list of files on the screen, by number
        self.batches: List[Batch] = []          # several downloads by one command
        self._has_all_names = False             # it is of all files
        self._said_before = ""                  # a pattern that fits many, to be said a second time
        self.unshown: List[results.ListEntry] = []          # the pages of it that `G +` shows
        self.has_list = False                   # one was shown, be it empty
        self.has_shared = False                 # something, by B
        self.made_folder = ""                   # the whole path of the folder, if it was made just now
        self._life = life
        self._comings = Comings(life.clock())   # lines of coming and going, gathered when many come
        self._hashing, self._hashing_at = Hashing(), 0.0
        self.chatting = Chatting(life.terminal, life.clock())

    def say(self, line: str) -> None:
        """One line for the person."""
        self._life.say(line)

    def width(self) -> Optional[int]:
        """Of the window, in columns; None where there is none."""
        return self._life.terminal.width()

    def refuse(self, line: str) -> None:
        """Says why a line was not done; a script's exit code says so, too."""
        self._life.fail()
        self.say(line)

    def draw(self) -> None:
        """What has become due to be shown."""
        now = self._life.clock()
        self.say(self._comings.due(now))
        if self._life.node and now >= self._hashing_at:
            self._hashing_at = now + HASHING_INTERVAL
            self.say(self._hashing.line(self._life.node.standing(), now, self._life.terminal.can_redraw))
        self._draw_progress()

    def tell_rest(self) -> None:
        """What was gathered, to be told in one line, is told now: the program ends."""
        self.say(self._comings.rest())

    def await_answers(self, patience: float) -> None:
        """Waits so many seconds for what the last command asked for; the next one does not wait for it again."""
        if not self._life.wait_until(lambda: not self.due, patience):
            self.due.clear()

    # -- notifications

    def on_event(self, event: Any) -> None:
        """Tells one notification."""
        if isinstance(event, results.Progress):
            self._on_progress(event.row)
            return
        if isinstance(event, (results.ChatReceived, results.Whispered)):
            self.chatting.show(event, self._life.clock())
            return
        if isinstance(event, (results.Joined, results.Left)):
            self.say(self._comings.tell(event, self._life.clock()))
            return
        if isinstance(event, (results.DownloadDone, results.Stopped)):
            is_short = isinstance(event, results.Stopped) or bool(event.left_out)
            self._on_end(event.number, is_short and event.number in self.asked)
        if isinstance(event, results.Paused):
            self.paused.setdefault(event.number, self._life.clock())
        if isinstance(event, results.Resumed):
            self.paused.pop(event.number, None)
        if isinstance(event, results.Unsaid):
            self._life.fail()
        if isinstance(event, results.Outcome):
            if "connect" in self.due and event.kind not in ("joined", "supernode"):
                self._life.fail()
            self.due.discard("connect")
            if event.address and event.address[0] == "0.0.0.0":
                event = event._replace(address=(self._life.node.ip, event.address[1]))
        self.say(line_for(event, self._folder() if isinstance(event, results.Outcome) else DEFAULT_FOLDER))
        if isinstance(event, (results.DownloadDone, results.Stopped)):
            self._tell_batches(event.number, event.size if isinstance(event, results.DownloadDone) else None)

    def _folder(self) -> str:
        """The folder, and how much is shared there."""
        if not self._life.node:
            return DEFAULT_FOLDER
        return folder_text(self.made_folder or self._life.node.folder, self._life.node.standing())

    def _tell_batches(self, transfer: int, size: Optional[int]) -> None:
        for batch in [one for one in self.batches if one.on_end(transfer, size)]:
            self._end_batch(batch)

    def _end_batch(self, batch: Batch) -> None:
        """The last of what one command asked for has ended: a line tells of all."""
        if batch.is_over and batch in self.batches:
            self.batches.remove(batch)
            self.say(batch.line(self._life.clock()))

    def _on_end(self, number: int, is_failure: bool) -> None:
        self.ended.add(number)
        self.asked.discard(number)
        self.paused.pop(number, None)
        self.running.pop(number, None)
        self.told.pop(number, None)
        if is_failure:
            self._life.fail()

    def _on_progress(self, row: results.TransferRow) -> None:
        if row.direction != "R" or row.number in self.ended:
            return
        if row.state in ("done", "stopped"):
            self.running.pop(row.number, None)
            return
        self.running[row.number] = row
        if not self._life.terminal.can_redraw:
            self._tell_progress(row)

    def _tell_progress(self, row: results.TransferRow) -> None:
        now, percent = self._life.clock(), row.verified * 100 // row.size if row.size else 0
        told_at, told_percent = self.told.setdefault(row.number, (now, percent))
        if percent // PROGRESS_PERCENT > told_percent // PROGRESS_PERCENT or now - told_at >= PROGRESS_SECONDS:
            self.told[row.number] = (now, percent)
            self.say(progress_line(row))

    def _draw_progress(self) -> None:
        if not self.running or not self._life.terminal.can_redraw:
            standing = self._life.node.standing() if self._life.node and self._life.terminal.can_redraw else None
            hashing = self._hashing.progress(standing, self._life.clock()) if standing and standing.waiting else ""
            self._life.terminal.show_progress(cut(hashing, self._life.terminal.columns() - 1) if hashing else "")
            return
        more = f"  (+{len(self.running) - 1} more: V)" if len(self.running) > 1 else ""
        room = self._life.terminal.columns() - 1 - len(more)
        self._life.terminal.show_progress(progress_line(self.running[min(self.running)], room) + more)

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
                call(self._life.node.peer, now, lambda result=None: self._life.later(lambda: answered(result)))
            except Exception:
                self._life.later(self._life.fail)
                self._life.later(lambda: answered(None))
                raise
        self._life.node.call(run)

    def sources(self) -> Dict[str, Callable[[str], Iterable[str]]]:
        """What the arguments of commands may be, for Tab."""
        def listed(_: str) -> Iterable[str]:
            return dict.fromkeys(entry.name for entry in self.rows.values())
        return {
            "R": listed, "G": listed, "B": local_paths, "M": lambda _: ("on", "off"),
            "K": lambda _: map(str, self.running),
            "U": lambda _: (row.name for row in self._at_once(lambda peer, now: peer.shares())),
            "P": lambda _: (f"{row.label} " for row in self._at_once(lambda peer, now: peer.members(now))
                            if not row.is_me),
        }  # fmt: skip

    def _at_once(self, call: Callable[[Any, float], Any]) -> Any:
        """What the node says within a moment, or nothing. Nothing is drawn meanwhile: a key is being heeded."""
        answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._life.node.call(lambda now: answers.put(call(self._life.node.peer, now)))
        with contextlib.suppress(queue.Empty):
            return next_of(answers, KEY_SECONDS) or ()
        return ()

    def _show_table(self, rows: Sequence[Sequence[str]], right: Sequence[int], names: Sequence[int], none: str) -> None:
        """A line for each row; in a narrow window the columns `names` give way, or a row takes several lines."""
        for line in itertools.chain(*fitted(rows, right, self.width(), names)) if rows else [none]:
            self.say(line)

    def list_files(self, pattern: str) -> None:
        """G: the files of the network."""
        if pattern == "+":
            if self.has_list:
                self._show_page("That list has no more rows.")
            else:
                self.refuse(NO_LIST)
            return
        pattern = unquoted(pattern)
        none = f'No file here matches "{safe_text(pattern, 60)}".' if pattern else \
            "Nothing is shared here yet. B path shares a file or folder."
        self._ask(lambda peer, now, done: peer.list_files(pattern, now, done),
                  lambda rows: self._show_files(rows, none, not pattern))

    def _show_files(self, entries: Any, none: str = "", is_whole: bool = False) -> None:
        if entries is None:
            self._life.fail()
            self.say("!! The list did not come; try again soon")
            return
        self.has_list = True
        if not entries:                         # the numbers on the screen stay good
            self.say(none)
            return
        self.rows, self._has_all_names = {entry.number: entry for entry in entries}, is_whole
        self.unshown = list(entries)
        self._show_page(none)

    def _show_page(self, none: str) -> None:
        """As many rows of the list as fit the window; all where there is none."""
        count = self._life.terminal.page() or len(self.unshown)
        page, self.unshown = self.unshown[:count], self.unshown[count:]
        for line in file_lines(page, self.width()) if page else [none]:
            self.say(line)
        if self.unshown:
            self.say(f"  {len(self.rows) - len(self.unshown)} of {len(self.rows)} rows; G + shows more, "
                     "and R number takes any")

    def fetch(self, what: str) -> None:
        """R: fetch by the number of the last list's row, or by name; several by their numbers, or by a pattern."""
        is_quoted = unquoted(what) != what      # then it is a name, whatever it looks like
        what = unquoted(what)
        what = what.rstrip("/") or what         # as G shows a folder
        spans = spans_in(what) if self.rows else []
        if not what:
            self.refuse("R needs a name, or a number of the last list: R lab.iso")
            return
        entries, missing = chosen([] if is_quoted else spans, self.rows)
        if entries:
            self._fetch_rows(what, entries)
        elif missing and " " in what and all(entry.name != what for entry in self.rows.values()):
            self._life.fail()
            self.say(f"!! The last list has {lines.count_of(len(self.rows), 'row')}; {missing} is none of them, "
                     "and nothing was asked for.")
        elif spans and what.isdigit():
            self._fetch_called(what, functools.partial(self._on_fetch_answer, what))
        elif is_pattern(what):
            self._ask(lambda peer, now, done: peer.list_files(what, now, done),
                      functools.partial(self._fetch_fitting, what))
        else:
            self._fetch_name(what)

    def _fetch_name(self, name: str) -> None:
        self._ask(lambda peer, now, done: peer.fetch_name(name, now, done),
                  functools.partial(self._on_fetch_answer, name))

    def _fetch_rows(self, what: str, entries: List[results.ListEntry]) -> None:
        """Fetches these rows, and says so where a file has such a number for its name."""
        self._tell_taken(what, entries, self.rows.values())
        if len(entries) > 1:
            self._fetch_all(entries)
            return
        self._ask(lambda peer, now, done: peer.fetch(entries[0], now, done),
                  functools.partial(self._on_fetch_answer, what))
        if not self._has_all_names:
            fits_only_that = "".join(f"[{digit}]" for digit in what)
            self._ask(lambda peer, now, done: peer.list_files(fits_only_that, now, done),
                      functools.partial(self._tell_taken, what, entries))

    def _tell_taken(self, what: str, taken: List[results.ListEntry], others: Any) -> None:
        if any(entry.name == what and entry.file_id != taken[0].file_id for entry in others or ()):
            row = f"row {what} of the list, {safe_text(taken[0].name)}" if len(taken) == 1 else f"the rows {what}"
            self.say(f'* this is {row}; a file is named {what}, too: R "{what}" takes that')

    def _fetch_all(self, entries: List[results.ListEntry]) -> None:
        """Fetches several, each told as it ends; one line tells how all ended."""
        batch = Batch(len(entries), self._life.clock())
        self.batches.append(batch)
        for entry in entries:
            self._ask(lambda peer, now, done, entry=entry: peer.fetch(entry, now, done),    # type: ignore[misc]
                      functools.partial(self._on_batch_answer, batch, entry))

    def _on_batch_answer(self, batch: Batch, entry: results.ListEntry, answer: Optional[results.FetchAnswer]) -> None:
        kind, transfer = (answer.kind, answer.transfer) if answer else ("", None)
        if transfer is not None and transfer not in self.ended:
            self.asked.add(transfer)
            batch.on_started(transfer, entry.name)
        elif transfer is not None or kind == "already here":
            batch.on_here()
        else:
            self._life.fail()
            batch.on_refused(entry.name)
        self._end_batch(batch)

    def _fetch_fitting(self, pattern: str, entries: Optional[List[results.ListEntry]]) -> None:
        """Fetches all names that fit a pattern; but the one that is spelled like it, if there is one."""
        named = [entry for entry in entries or () if entry.name == pattern]
        folder, _, rest = pattern.partition("/")
        if named:
            self._fetch_name(pattern)
        elif entries and len(entries) == 1:
            self._ask(lambda peer, now, done: peer.fetch(entries[0], now, done),
                      functools.partial(self._on_fetch_answer, pattern))
        elif not entries and rest in ("*", "**") and not is_pattern(folder):
            self._ask(lambda peer, now, done: peer.list_files(folder, now, done),
                      functools.partial(self._fetch_folder, folder, pattern))
        elif not entries:
            self._on_fetch_answer(pattern, results.FetchAnswer("no network" if entries is None else "nobody"))
        elif self._is_said_twice(pattern, entries):
            self._fetch_all(entries)

    def _fetch_folder(self, folder: str, pattern: str, entries: Optional[List[results.ListEntry]]) -> None:
        """All of a folder is the folder."""
        if any(entry.name == folder and entry.is_folder for entry in entries or ()):
            self._fetch_name(folder)
        else:
            self._on_fetch_answer(pattern, results.FetchAnswer("nobody"))

    def _is_said_twice(self, pattern: str, entries: List[results.ListEntry]) -> bool:
        """Whether a person means as many as that; a script does."""
        is_meant = len(entries) < ASKED_AGAIN_FROM or not self._life.terminal.is_asking or self._said_before == pattern
        self._said_before = "" if is_meant else pattern
        if not is_meant:
            self.say(f"* {safe_text(pattern)} fits {lines.count_of(len(entries), 'file')}, "
                     f"{format_size(sum(entry.size for entry in entries))}: say it again to fetch them all")
        return is_meant

    def _fetch_called(self, number: str, show: Callable[[Any], None]) -> None:
        """Fetches the file that has this number for its name; the last list has no such row."""
        def listed(entries: Any) -> None:
            found = next((entry for entry in entries or () if entry.name == number), None)
            if found is not None:
                self._ask(lambda peer, now, done: peer.fetch(found, now, done), show)
                return
            self._life.fail()
            self._say_no_row(number)
        self._ask(lambda peer, now, done: peer.list_files(number, now, done), listed)

    def _say_no_row(self, number: str) -> None:
        last = f"The last list has {lines.count_of(len(self.rows), 'row')}, and no file is named {number}."
        self.say(f"!! {last}" if self.has_list else f"!! {number}  {NO_LIST[0].lower()}{NO_LIST[1:-1]}")

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
            self._life.fail()
            self.say(f'Several files match "{safe_text(what, 60)}"; R number takes one:')
            self._show_files(answer.entries)
        elif kind == "nobody" and "/" in what:
            self._explain_folder(what)
        elif kind == "nobody" and what.isascii() and what.isdigit():
            self._life.fail()
            self._say_no_row(what)
        else:
            self._life.fail()
            why = {"nobody": "nobody here has it", "no network": "there is no network at the moment; try again soon"}
            self.say(f"!! {name}  {why.get(kind, 'could not be asked for; the log has details')}")

    def _explain_folder(self, what: str) -> None:
        """What was asked for may lie in a folder that somebody shares."""
        top = what.split("/")[0]
        self._life.fail()

        def listed(entries: Any) -> None:
            is_there = any(entry.is_folder and entry.name == top for entry in entries or ())
            why = f"only whole folders are given: R {safe_text(top)}" if is_there else "nobody here has it"
            self.say(f"!! {safe_text(what)}  {why}")
        self._ask(lambda peer, now, done: peer.list_files(top, now, done), listed)

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
            self.refuse("T needs a text: T hello everyone")
            return
        if len(text.encode()) > CHAT_BYTES_MAX:
            self.refuse(f"!! Not sent: the text is too long; {CHAT_BYTES_MAX} bytes fit, it has {len(text.encode())}.")
            return
        self._ask(functools.partial(self._tell, text, not self._life.terminal.is_asking), self._say_untaken)

    def _tell(self, text: str, may_wait: bool, peer: Any, now: float, done: Callable[..., None]) -> None:
        """On the node thread: say it; a script waits for room."""
        if peer.say(text, now) is not False:
            done("")
        elif may_wait:
            peer.finish_saying(*SCRIPT_SAY_SECONDS, now, lambda: self._tell(text, False, peer, now, done),
                               left=SAYS_UNCONFIRMED_MAX - 1)
        else:
            done(peer.why_unsaid())

    def _say_untaken(self, why: Any) -> None:
        if why:
            self._life.fail()
            self.say(f"!! Not sent: {why}.")

    def whisper(self, line: str) -> None:
        """P: say something to one member alone."""
        if not line:
            self.refuse("P needs a name and a text: P ana hello")
            return
        self._ask(lambda peer, now, done: peer.whisper(line, now, done), self._on_whisper_answer)

    def _on_whisper_answer(self, answer: Optional[results.WhisperAnswer]) -> None:
        if answer is not None and answer.kind == "heard":
            self.chatting.show(results.Whispered(answer.label, answer.text, True), self._life.clock())
        elif answer is not None:
            self.refuse(whisper_line(answer))

    def share(self, path: str) -> None:
        """B: share a file or folder from elsewhere; without a path, list what is shared."""
        if not path:
            self._ask(lambda peer, now, done: done((peer.shares(), peer.left_out())), self._show_shares)
            return
        found = found_paths(path)
        if found is None:
            self.refuse(f"!! {safe_text(path)}  there is no such file or folder")
            return
        for full in found:
            if self._is_meant(full):
                self.has_shared = True
                self._ask(lambda peer, now, done, full=full: peer.share(full, now, done),   # type: ignore[misc]
                          self._say_share)

    def _is_meant(self, path: str) -> bool:
        """Whether a path may be shared: of keys, a home, the system or a whole disk a person says so twice."""
        danger = danger_of(path)
        if not danger:
            return True
        if not self._life.terminal.is_asking:
            self.refuse(f"!! {unasked_line(path, danger)}")
            return False
        self.say(f"{short_path(path)} {danger}.")
        is_meant = self._life.confirm("Share it with everybody here?")
        self.say("" if is_meant else "* not shared")
        return is_meant

    def unshare(self, what: str) -> None:
        """U: share no longer what B has shared."""
        name, paths = unquoted(what).rstrip("/") or what, found_paths(what) or []
        if not name:
            self.refuse("U needs a name or a path of what B lists: U intro.pdf")
            return
        self._ask(lambda peer, now, done: peer.unshare(name, paths[0] if paths else name, now, done), self._say_share)

    def _show_shares(self, found: Any) -> None:
        rows, left_out = found or ((), ())
        cells = [(safe_text(row.name), format_size(row.size), f"id {short_id(row.file_id)}",
                  short_path(row.path)) for row in rows]
        for line in share_table(cells, self.width()) or ["You share nothing yet. B path shares a file or folder."]:
            self.say(line)
        for _, why in left_out:
            self.say(f"* {safe_text(why, 1100)}")

    def _say_share(self, text: Any) -> None:
        self._say_result(text)
        token = object()
        if not self._life.terminal.is_asking:         # in a script the next command may rely on it
            self.due.add(token)
        self._life.node.look_now(lambda: self._life.later(lambda: self.due.discard(token)))

    def _say_result(self, text: Any) -> None:
        if isinstance(text, str) and text:
            if text.startswith(("!!", "There is no ")):
                self._life.fail()
            self.say(safe_text(text, 1024))

    def who(self, _: str) -> None:
        """W: who is here."""
        self._ask(lambda peer, now, done: done(peer.members(now)), self._show_members)

    def _show_members(self, rows: Any) -> None:
        rows = [row._replace(address=(self._life.node.ip, row.address[1])) if row.address[0] == "0.0.0.0" else row
                for row in rows or ()]
        self._show_table([member_cells(row) for row in rows], (), (0,), "Nobody is here: there is no network.")

    def view(self, _: str) -> None:
        """V: the transfers."""
        self._ask(lambda peer, now, done: done(peer.transfers(now)), self._show_transfers)
        self._ask(lambda peer, now, done: peer.unfinished(now, done), self._show_unfinished)

    def _show_unfinished(self, parts: Any) -> None:
        for line in itertools.chain(*fitted(unfinished_rows(parts or ()), (2, 3), self.width(), (0,))):
            self.say(line)

    def _show_transfers(self, rows: Any) -> None:
        rows = rows or ()
        told = fitted([transfer_cells(row) for row in rows], (0, 3), self.width(), (1, 7))
        for row, told_of_it in zip(rows, told):
            for line in told_of_it:
                self.say(line)
            for share in share_lines(row, self.width()):
                self.say(share)
        if not rows:
            self.say("No transfers.")

    def cancel(self, number: str) -> None:
        """K: cancel a transfer."""
        if not (number.isascii() and number.isdigit() and len(number) < 9):
            self.refuse("K needs the number of a transfer as V shows it: K 1")
            return
        if int(number) in self.running or int(number) in self.asked:
            self._on_end(int(number), False)    # what was cancelled by hand has not failed
            self._tell_batches(int(number), None)
        self._ask(lambda peer, now, done: done(peer.cancel(int(number), now)), self._say_result)

    def mesh(self, wish: str) -> None:
        """M: this node's mesh switch."""
        if wish.lower() not in ("on", "off", ""):
            self.refuse("M is switched by M on or M off; M alone tells.")
            return
        if wish:
            self._ask(lambda peer, now, done: done(peer.set_mesh(wish.lower() == "on", now)),
                      lambda _: self.say(mesh_line(wish.lower() == "on")))
        else:
            self._ask(lambda peer, now, done: done(peer.mesh), lambda is_on: self.say(mesh_line(bool(is_on))))

    def limit(self, wish: str) -> None:
        """L: how fast files may be sent and fetched."""
        try:
            changes = limits_of(wish)
        except ValueError as error:
            self._life.fail()
            self.say(str(error))
            return

        def change(peer: Any, now: float, done: Callable[..., None]) -> None:
            if changes:
                up, down = peer.limits()
                peer.set_limits(changes.get("up", up), changes.get("down", down), now)
            done(peer.limits())
        self._ask(change, lambda limits: self.say(limits_line(*limits or (None, None))))

    def connect(self, where: str) -> None:
        """C: leave this network properly and join the one at another address."""
        try:
            target = check_target(where, self._life.node.ip)
        except ValueError as error:
            self.refuse(str(error))
            return
        if self._life.node.is_local and not is_loopback(target[0]):
            self.refuse("This node was opened for this machine only, at 127.0.0.1; start it anew to go elsewhere.")
            return
        self._life.finish_saying()
        self.due.add("connect")
        self._life.node.call(lambda now: self._life.node.peer.connect_to(target[0], target[1], now))

    def quit(self, more: str) -> None:
        """Q: at once at a terminal; in a script once the transfers that it asked for have ended."""
        if more:
            self.refuse(f'Q stands alone; "{safe_text(more, 40)}" after it was not understood, and nothing was done.')
            return
        if not self._life.terminal.is_asking:
            self._await_downloads()
        self._life.end()

    def _await_downloads(self) -> None:
        life = self._life
        while not life.wait_until(self._has_nothing_to_await, 3600.0) and not life.signals \
                and not life.terminal.is_broken:
            pass
        if self.asked and not life.signals:
            life.fail()
            self.say("!! ended without what waits for room on the disk; what came is kept for a later R")

    def _has_nothing_to_await(self) -> bool:
        """A script ends when what it asked for has ended, or has waited for room on the disk for long enough."""
        too_long = self._life.clock() - SCRIPT_PAUSE_SECONDS
        return all(self.paused.get(number, math.inf) <= too_long for number in self.asked)
