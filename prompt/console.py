"""The prompt: each command, what it asks the node for, and what is told when the answer or anything else comes."""

from __future__ import annotations

import argparse
import contextlib
import functools
import math
import os
import queue
import signal
import time
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

from prompt import lines
from prompt.comings import Comings
from prompt.commands import help_lines, parse_command, unknown_line
from prompt.lines import (
    file_rows,
    format_size,
    member_cells,
    mesh_line,
    progress_line,
    safe_text,
    share_lines,
    short_id,
    table,
    transfer_cells,
)
from prompt.readers import IDLE_SECONDS, Interrupted, next_of
from prompt.settings import (
    DEFAULT_FOLDER,
    DEFAULT_PORT,
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_OK,
    NodeError,
    Settings,
    check_ip,
    check_name,
    check_port,
    check_target,
    default_name,
)
from prompt.terminal import Terminal
from protocol import mishaps, results
from protocol.membership.chat import SAYS_UNCONFIRMED_MAX

log = mishaps.logger("node")

CHAT_BYTES_MAX = 2048               # what the wire carries
ANSWER_SECONDS = 0.5                # how long the prompt stays away for a command's answer
SCRIPT_ANSWER_SECONDS = 30.0        # the same for piped commands, which rely on each other
JOIN_SECONDS = 25.0                 # an outcome comes within 3 s, or 15 s while a network replaces its supernode
DOOR_SECONDS = 0.6                  # for a supernode to get the port, if who had it when this node started is gone
LEAVE_SECONDS = 3.0                 # a handover takes at most 2 s
SAY_SECONDS = 1.5, 10.0             # before leaving: without a line that gets through, and for all lines said
SCRIPT_SAY_SECONDS = 20.0, 60.0     # the same for piped commands: a new supernode may have to be found first
SCRIPT_PAUSE_SECONDS = 60.0         # how long a script waits for room on the disk
PROGRESS_SECONDS = 30.0             # where no line can be redrawn: one line for this or for ...
PROGRESS_PERCENT = 10               # ... this much
WAITING_LINES_MAX = 10_000          # lines for a terminal that was stopped (Ctrl-S); then chat and comings are left out
DISPENSABLE = (results.ChatReceived, results.Joined, results.Left, results.Notice, results.Progress)


def relative_path(path: str) -> str:
    """A local path as short as it can be said from here."""
    with contextlib.suppress(ValueError, OSError):      # another drive; the current folder is gone
        relative = os.path.relpath(path)
        return path if relative.startswith("..") else relative
    return path


def short_path(path: Any) -> str:
    """The same, safe to print."""
    return safe_text(relative_path(os.fspath(path)), 4096)


def line_for(event: Any, folder: str = DEFAULT_FOLDER) -> str:
    """The line that tells a notification, with paths as short as they can be said from here."""
    if isinstance(event, results.DownloadDone):
        event = event._replace(path=short_path(event.path))
    return lines.line_for(event, folder)


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
        self.paused: Dict[int, float] = {}      # downloads that wait for room on the disk, and since when
        self.running: Dict[int, results.TransferRow] = {}   # the latest of each
        self.told: Dict[int, Tuple[float, int]] = {}    # when, and at what percent, a progress line was printed
        self.rows: Dict[int, results.ListEntry] = {}        # the last list of files, by number
        self.comings = Comings(clock())         # lines of coming and going, gathered when many come
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
            closure = next_of(self.inbox, wait)
            while True:
                try:
                    closure()
                except Exception:
                    log.exception("a notification was dropped")
                closure = self.inbox.get_nowait()
        self.say(self.comings.due(self.clock()))
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
        if isinstance(event, (results.Joined, results.Left)):
            self.say(self.comings.tell(event, self.clock()))
            return
        if isinstance(event, (results.DownloadDone, results.Stopped)):
            self._on_end(event.number, isinstance(event, results.Stopped) and event.number in self.asked)
        if isinstance(event, results.Paused):
            self.paused.setdefault(event.number, self.clock())
        if isinstance(event, results.Resumed):
            self.paused.pop(event.number, None)
        if isinstance(event, results.Unsaid):
            self._has_failed()
        if isinstance(event, results.Outcome):
            self.outcome = event
            if "connect" in self.due and event.kind not in ("joined", "supernode"):
                self._has_failed()
            self.due.discard("connect")
            if self.is_joining and event.kind != "joined":
                return                          # `_join` tells it, or `_open` says why not, and asks again
            if event.address and event.address[0] == "0.0.0.0":
                event = event._replace(address=(self.node.ip, event.address[1]))
        self.say(line_for(event, self.node.folder if self.node else DEFAULT_FOLDER))

    def _on_end(self, number: int, is_failure: bool) -> None:
        self.ended.add(number)
        self.asked.discard(number)
        self.paused.pop(number, None)
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
                ip, port = error.hint or (None, settings.port)
                flags = argparse.Namespace(**{**vars(flags), **known, "default_ip": ip, "default_port": port})

    def _ask_settings(self, flags: argparse.Namespace) -> Settings:
        hint = getattr(flags, "default_ip", None)
        ip = flags.ip
        if ip is False:
            ip = self._question("IP", hint or "search this network", lambda text: check_ip(text.strip() or hint or ""))
        default = str(getattr(flags, "default_port", DEFAULT_PORT))
        port = flags.port or self._question("Port", default, lambda text: check_port(text.strip() or default))
        name = flags.name or self._question("Name", default_name(), check_name)
        folder = os.path.expanduser(flags.folder or DEFAULT_FOLDER)
        return Settings(ip, port, name, folder, bool(flags.folder), getattr(flags, "trace", None) or "")

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
        if kind == "joined" or (kind == "supernode" and self.wait_until(lambda: self.node.is_port_own, DOOR_SECONDS)):
            self.is_joining = False
            if kind == "supernode":
                self.on_event(self.outcome)
            return
        self._leave_node()
        if kind == "supernode":
            raise NodeError(f"Port {settings.port} of this machine is in use by another program, "
                            "and no node answers there.", again=("port",))
        text, hint = safe_text(getattr(self.outcome, "text", "")), None
        if kind == "nobody" and settings.ip:
            other = f" {text}." if text else ""
            hint = self.outcome.address if text and self.outcome else None
            text = f"Nobody answers at {settings.ip}:{settings.port}, and this machine cannot be the supernode there."
            text += other
        raise NodeError(text or "No network was found, and none could be opened here.", hint=hint)

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
        self.say(self.comings.rest())
        if self.node:
            self.say("* leaving ..." if self.terminal.is_asking else "")
            self._leave_node()
        self.pump()
        self.terminal.close()

    def _say_patience(self) -> Tuple[float, float]:
        return SAY_SECONDS if self.terminal.is_asking else SCRIPT_SAY_SECONDS

    def _finish_saying(self) -> None:
        """What was said shall be sent before this node goes, as far as that can be waited for."""
        node, said = self.node, []              # type: Any, List[bool]
        patience, at_most = self._say_patience()
        node.call(lambda now: node.peer.finish_saying(
            patience, at_most, now, lambda: self.inbox.put(lambda: said.append(True))))
        self.wait_until(lambda: bool(said), at_most + 1.0)

    def _leave_node(self) -> None:
        node, left = self.node, []              # type: Any, List[bool]
        if not self.is_joining:
            self._finish_saying()
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
            self._has_failed()
            self.say("!! The list did not come; try again soon")
            return
        self.rows = {entry.number: entry for entry in entries}
        self.unshown = list(entries)
        self._show_page(none)

    def _show_page(self, none: str) -> None:
        """As many rows of the list as fit the window; all where there is none."""
        count = self.terminal.page() or len(self.unshown)
        page, self.unshown = self.unshown[:count], self.unshown[count:]
        self._show_table(file_rows(page), (0, 2), none)
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
        if not self.terminal.is_asking and self.exit_code == EXIT_OK:
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
        self._ask(functools.partial(self._tell, text, not self.terminal.is_asking), self._say_untaken)

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
            self._has_failed()
            self.say(f"!! Not sent: {why}.")

    def share(self, path: str) -> None:
        """B: share a file or folder from elsewhere; without a path, list what is shared."""
        if not path:
            self._ask(lambda peer, now, done: done(peer.shares()), self._show_shares)
            return
        found = next((p for p in map(os.path.expanduser, (path, unquoted(path))) if not is_missing(p)), None)
        if found is None:
            self._has_failed()
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
        self._finish_saying()
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
            while not self.wait_until(self._has_nothing_to_await, 3600.0) and not self.signals \
                    and not self.terminal.is_broken:
                pass
            if self.asked and not self.signals:
                self._has_failed()
                self.say("!! ended without what waits for room on the disk; what came is kept for a later R")
            if signal.SIGINT in self.signals:
                self.exit_code = EXIT_INTERRUPTED
            self.signals = []
        self.is_over = True

    def _has_nothing_to_await(self) -> bool:
        """A script ends when what it asked for has ended, or has waited for room on the disk for long enough."""
        too_long = self.clock() - SCRIPT_PAUSE_SECONDS
        return all(self.paused.get(number, math.inf) <= too_long for number in self.asked)


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
