"""What a person can ask for: each command, and what is told when its answer or anything else comes.

The larger ones have rooms of their own: `Files` (G, R), `Sharing` (B, U), and `Awaited`, the downloads that run.
"""

from __future__ import annotations

import functools
import itertools
from typing import Any, Callable, Dict, Iterable, Optional, Sequence

from prompt import doctor, lines
from prompt.arguments import limits_of
from prompt.asking import Asking, Life
from prompt.awaited import Awaited
from prompt.chatting import Chatting
from prompt.comings import Comings
from prompt.completion import local_paths
from prompt.files import Files
from prompt.lines import (
    limits_line,
    member_cells,
    mesh_line,
    share_lines,
    transfer_cells,
    unfinished_rows,
    whisper_line,
)
from prompt.paths import short_path
from prompt.settings import DEFAULT_FOLDER, check_targets
from prompt.sharing import Sharing
from prompt.standing import Hashing, folder_text
from prompt.table import fitted
from protocol import results
from protocol.addresses import is_loopback
from protocol.looks import cut
from protocol.results import CHAT_BYTES_MAX, SAYS_UNCONFIRMED_MAX

# Seconds, of a script's chat: without a line that gets through (a supernode may have to be found first), and for all.
SCRIPT_SAY_SECONDS = 20.0, 60.0
HASHING_INTERVAL = 0.5  # seconds between two looks at how far that is


def line_for(event: Any, folder: str = DEFAULT_FOLDER) -> str:
    """The line that tells a notification, with paths as short as they can be said from here."""
    if isinstance(event, (results.DownloadDone, results.Updated)) and event.clashes and event.clashes.aside:
        event = event._replace(clashes=event.clashes._replace(aside=short_path(event.clashes.aside)))
    if isinstance(event, results.DownloadDone):
        event = event._replace(path=short_path(event.path))
    return lines.line_for(event, folder)


class Console:
    """What a person can ask for: commands become closures for the node thread, notifications become lines."""

    def __init__(self, life: Life) -> None:
        self._made_folder = ""  # the whole path of the folder, if it was made just now
        self._life = life
        self._asking = Asking(life)
        self.awaited = Awaited(life, self._asking)
        self.files = Files(life, self._asking, self.awaited, self._show_transfers)
        self.sharing = Sharing(life, self._asking)
        self.chatting = Chatting(life.terminal, life.clock())
        self._comings = Comings(life.clock())  # lines of coming and going, gathered when many come
        self._hashing, self._hashing_at = Hashing(), 0.0
        self._is_going = False  # by C, to another network

    def say(self, line: str) -> None:
        """One line for the person."""
        self._asking.say(line)

    def width(self) -> Optional[int]:
        """Of the window, in columns; None where there is none."""
        return self._asking.width()

    def refuse(self, line: str) -> None:
        """Says why a line was not done; a script's exit code says so, too."""
        self._asking.refuse(line)

    def await_answers(self, patience: float) -> None:
        """Waits so many seconds for what the last command asked for; the next one does not wait for it again."""
        self._asking.await_answers(patience)

    # ---- what is drawn

    def draw(self) -> None:
        """What has become due to be shown."""
        now = self._life.clock()
        self.say(self._comings.due(now))
        if self._life.node and now >= self._hashing_at:
            self._hashing_at = now + HASHING_INTERVAL
            self.say(self._hashing.line(self._life.node.standing(), now, self._life.terminal.can_redraw))
        self._draw_progress()

    def _draw_progress(self) -> None:
        terminal, now = self._life.terminal, self._life.clock()
        line = ""
        if terminal.can_redraw:
            line = self.awaited.line(terminal.columns() - 1)
            standing = self._life.node.standing() if self._life.node and not line else None
            if standing and standing.waiting:
                line = cut(self._hashing.progress(standing, now), terminal.columns() - 1)
        terminal.show_progress(line)

    def tell_rest(self) -> None:
        """What was gathered, to be told in one line, is told now: the program ends."""
        self.say(self._comings.rest())

    # ---- notifications

    def on_event(self, event: Any) -> None:
        """Tells one notification."""
        if isinstance(event, results.Progress):
            self.awaited.on_progress(event.row)
            return
        if isinstance(event, (results.ChatReceived, results.Whispered)):
            self.chatting.show(event, self._life.clock())
            return
        if isinstance(event, (results.Joined, results.Left)):
            self.say(self._comings.tell(event, self._life.clock()))
            return
        if isinstance(event, (results.DownloadDone, results.Stopped)):
            is_short = isinstance(event, results.Stopped) or bool(event.left_out)
            self.awaited.on_end(event.number, is_short)
        if isinstance(event, results.Paused):
            self.awaited.on_pause(event.number)
        if isinstance(event, results.Resumed):
            self.awaited.on_resume(event.number)
        if isinstance(event, results.Unsaid):
            self._life.fail()
        if isinstance(event, results.Outcome):
            if "connect" in self._asking.due and event.kind not in ("joined", "supernode"):
                self._life.fail()
            self._asking.due.discard("connect")
            self._is_going = False
            if event.address and event.address[0] == "0.0.0.0":
                event = event._replace(address=(self._life.node.ip, event.address[1]))
        self.say(line_for(event, self._folder() if isinstance(event, results.Outcome) else DEFAULT_FOLDER))
        if isinstance(event, (results.DownloadDone, results.Stopped)):
            self.awaited.tell_batches(event.number, event.size if isinstance(event, results.DownloadDone) else None)

    def on_made(self, path: str) -> None:
        """The folder was made just now: its whole path is told, for it may not be where it was meant to be."""
        self._made_folder = path

    def _folder(self) -> str:
        """The folder, and how much is shared there."""
        if not self._life.node:
            return DEFAULT_FOLDER
        return folder_text(self._made_folder or self._life.node.folder, self._life.node.standing())

    # ---- commands, one method each

    def sources(self) -> Dict[str, Callable[[str], Iterable[str]]]:
        """What the arguments of commands may be, for Tab."""

        def listed(_: str) -> Iterable[str]:
            return self.files.names()

        return {
            "R": listed, "G": listed, "B": local_paths, "M": lambda _: ("on", "off"),
            "K": lambda _: map(str, self.awaited.running),
            "U": lambda _: (row.name for row in self._asking.at_once(lambda peer, now: peer.shares())),
            "P": lambda _: (f"{row.label} " for row in self._asking.at_once(lambda peer, now: peer.members(now))
                            if not row.is_me),
        }  # fmt: skip

    def _show_table(self, rows: Sequence[Sequence[str]], right: Sequence[int], names: Sequence[int], none: str) -> None:
        """A line for each row; in a narrow window the columns `names` give way, or a row takes several lines."""
        for line in itertools.chain(*fitted(rows, right, self.width(), names)) if rows else [none]:
            self.say(line)

    def list_files(self, pattern: str) -> None:
        """G: the files of the network."""
        self.files.show(pattern)

    def fetch(self, what: str) -> None:
        """R: fetch by the number of the last list's row, or by name; several by their numbers, or by a pattern."""
        self.files.fetch(what)

    def share(self, path: str) -> None:
        """B: share a file or folder from elsewhere; without a path, list what is shared."""
        self.sharing.share(path)

    def unshare(self, what: str) -> None:
        """U: share no longer what B has shared."""
        self.sharing.unshare(what)

    def chat(self, text: str) -> None:
        """T: chat with everyone."""
        text = text.encode("utf-8", "replace").decode("utf-8")  # half a character cannot travel
        if not text:
            self.refuse("T needs a text: T hello everyone")
            return
        if len(text.encode()) > CHAT_BYTES_MAX:
            self.refuse(f"!! Not sent: the text is too long; {CHAT_BYTES_MAX} bytes fit, it has {len(text.encode())}.")
            return
        self._asking.ask(functools.partial(self._tell, text, not self._life.terminal.is_asking), self._say_untaken)

    def _tell(self, text: str, may_wait: bool, peer: Any, now: float, done: Callable[..., None]) -> None:
        """On the node thread: say it; a script waits for room."""
        if peer.say(text, now) is not False:
            done("")
        elif may_wait:
            peer.finish_saying(
                *SCRIPT_SAY_SECONDS,
                now,
                lambda: self._tell(text, False, peer, now, done),
                left=SAYS_UNCONFIRMED_MAX - 1,
            )
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
        self._asking.ask(lambda peer, now, done: peer.whisper(line, now, done), self._on_whisper_answer)

    def _on_whisper_answer(self, answer: Optional[results.WhisperAnswer]) -> None:
        if answer is not None and answer.kind == "heard":
            self.chatting.show(results.Whispered(answer.label, answer.text, True), self._life.clock())
        elif answer is not None:
            self.refuse(whisper_line(answer))

    def who(self, _: str) -> None:
        """W: who is here."""
        self._asking.ask(lambda peer, now, done: done(peer.members(now)), self._show_members)

    def _show_members(self, rows: Any) -> None:
        own = self._life.node.ip
        rows = [
            row._replace(address=(own, row.address[1])) if row.is_me and row.address[0] == "0.0.0.0" else row
            for row in rows or ()
        ]
        self._show_table([member_cells(row) for row in rows], (), (0,), "Nobody is here: there is no network.")

    def doctor(self, _: str) -> None:
        """D: what is the matter with this machine and its network."""
        self._asking.ask(lambda peer, now, done: self._life.node.examine(done), self._show_facts)

    def _show_facts(self, facts: Any) -> None:
        for line in doctor.lines_of(doctor.find(facts), self.width()) if facts else ():
            self.say(line)

    def view(self, _: str) -> None:
        """V: the transfers."""
        self._asking.ask(lambda peer, now, done: done(peer.transfers(now)), self._show_transfers)
        self._asking.ask(lambda peer, now, done: peer.unfinished(now, done), self._show_unfinished)

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
        self.awaited.cancel(int(number))
        self._asking.ask(lambda peer, now, done: done(peer.cancel(int(number), now)), self._asking.say_result)

    def mesh(self, wish: str) -> None:
        """M: this node's mesh switch."""
        if wish.lower() not in ("on", "off", ""):
            self.refuse("M is switched by M on or M off; M alone tells.")
            return
        if wish:
            self._asking.ask(
                lambda peer, now, done: done(peer.set_mesh(wish.lower() == "on", now)),
                lambda _: self.say(mesh_line(wish.lower() == "on")),
            )
        else:
            self._asking.ask(lambda peer, now, done: done(peer.mesh), lambda is_on: self.say(mesh_line(bool(is_on))))

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

        self._asking.ask(change, lambda limits: self.say(limits_line(*limits or (None, None))))

    def connect(self, where: str) -> None:
        """C: leave this network properly and join the one at another address."""
        try:
            (ip, port), *others = check_targets(where, self._life.node.ip)
        except ValueError as error:
            self.refuse(str(error))
            return
        if self._life.node.is_local and not is_loopback(ip):
            self.refuse("!! This node was opened for this machine only, at 127.0.0.1; start it anew to go elsewhere.")
            return
        self._life.finish_saying()
        self._asking.due.add("connect")
        self._is_going = True
        self._life.node.call(lambda now: self._life.node.peer.connect_to(ip, port, now, others))

    def stop_going(self) -> bool:
        """Ctrl-C while another network is tried: this node stays where it is. False when none is tried."""
        was_going, self._is_going = self._is_going, False
        if was_going:
            self._life.node.call(lambda now: self._life.node.peer.stay(now))
        return was_going

    def quit(self, _: str) -> None:
        """Q: at once at a terminal; in a script once the transfers that it asked for have ended."""
        if not self._life.terminal.is_asking:
            self.awaited.await_all()
        self._life.end()
