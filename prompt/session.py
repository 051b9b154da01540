"""The life of the program: from the first question to the exit code. The commands between are the `Console`'s.

    run:  _open (ask, join; again while the person may mend it)  ->  _serve (a line, a command)  ->  _leave

Everything here runs on the prompt thread, which owns the terminal. Other threads reach it by its inbox alone
(`notify`, `later`); whoever waits does what is in there meanwhile, and draws (`pump`). A signal only leaves a note.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import queue
import signal
import time
from typing import Any, Callable, List, Optional

from prompt import network_key, signals
from prompt.commands import LETTERS, SAYING, letter_of, parse_command, stray_line, unknown_line
from prompt.completion import Completion, choice_lines
from prompt.console import SCRIPT_SAY_SECONDS, Console
from prompt.paths import danger_of_folder, short_path, unasked_line
from prompt.questions import Questions, Quit, why_not
from prompt.readers import IDLE_SECONDS, LINE_END, Interrupted, next_of
from prompt.settings import EXIT_FAILED, EXIT_FLAGS, EXIT_INTERRUPTED, EXIT_OK, NodeError, Settings
from prompt.shortage import EXIT_SHORT, NO_MEMORY, end_at_once, is_memory_short
from prompt.terminal import Terminal
from protocol import mishaps, results
from protocol.fields import Address
from protocol.looks import safe_label

log = mishaps.logger("node")

ANSWER_SECONDS = 0.5                # how long the prompt stays away for a command's answer
SCRIPT_ANSWER_SECONDS = 30.0        # the same for piped commands, which rely on each other
IN_NO_NETWORK = "* This machine is in no network: only programs on it can join here"
BEYOND_THIS_LAN = "* Nobody else on this LAN. To a network beyond it: C and a machine's address there (C 10.0.0.7)"
JOIN_SECONDS = 25.0                 # an outcome comes within 3 s, or 15 s while a network replaces its supernode
LOOK_SECONDS = 0.3                  # for the first look at what is shared, which is told with the outcome
DOOR_SECONDS = 0.6                  # for a supernode to get the port, if who had it when this node started is gone
LEAVE_SECONDS = 3.0                 # a handover takes at most 2 s
SAY_SECONDS = 1.5, 10.0             # before leaving: without a line that gets through, and for all lines said
WAITING_LINES_MAX = 10_000          # lines for a terminal that was stopped (Ctrl-S); then chat and comings are left out
INPUT_ENDED = ("* the input has ended, and without a terminal nobody can type Q later: this node leaves "
               "(with --stay it goes on sharing)")
STAYING = "* the input has ended; this node goes on sharing until SIGTERM or Ctrl-C"
DISPENSABLE = (results.ChatReceived, results.Whispered, results.Joined, results.Left, results.HalfHere,
               results.Notice, results.Unreachable, results.Progress)


class Session:
    """One run of the program at one terminal, with one node at a time."""

    def __init__(self, terminal: Terminal, clock: Callable[[], float] = time.monotonic) -> None:
        self.terminal, self.clock = terminal, clock
        self.console = Console(self)
        self._questions = Questions(terminal, self.idle, lambda: self.signals)
        self.inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self.node: Any = None
        self.exit_code = EXIT_OK
        self.is_over = self.is_leaving = self.is_joining = self.was_warned = False
        self.stays = self.was_told = False      # --stay; something was piped in
        self.trouble = ""                       # what ended it from below, for standard error
        self.signals: List[int] = []
        self.outcome: Optional[results.Outcome] = None
        self.key_wanted_at: Optional[Address] = None    # a network there has a key, and this node has none
        self._held: List[Any] = []              # while joining, the outcome and what came behind it

    # ---- waiting and drawing

    def notify(self, event: Any) -> None:
        """From the node thread: something to tell; but not more and more to a screen that stands still."""
        if isinstance(event, DISPENSABLE) and self.inbox.qsize() >= WAITING_LINES_MAX:
            return
        self.inbox.put(functools.partial(self.on_event, event))
        if not isinstance(event, results.Progress):     # for which a look now and then is enough
            self.terminal.look_soon()

    def later(self, closure: Callable[[], None]) -> None:
        """From any thread: have this done by the prompt, soon."""
        self.inbox.put(closure)
        self.terminal.look_soon()

    def pump(self, wait: float = 0.0) -> None:
        """Does what is in the inbox, waiting for the first up to `wait` seconds, and draws."""
        self.terminal.stops.heed()
        with contextlib.suppress(queue.Empty):
            closure = next_of(self.inbox, wait)
            while True:
                try:
                    closure()
                except Exception:
                    log.exception("a notification was dropped")
                closure = self.inbox.get_nowait()
        self.console.draw()
        self.terminal.flush()
        self.is_over = self.is_over or self.terminal.is_broken

    def idle(self) -> None:
        """What a waiting prompt does ten times a second, or where nothing is drawn, when something arrived."""
        self.pump()
        while self.terminal.stops.is_away and not (self.signals or self.is_over):
            self.pump(IDLE_SECONDS)
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

    def on_event(self, event: Any) -> None:
        """A notification: how joining ended is for `_join` to tell (or `_open` says why not, and asks again)."""
        if isinstance(event, results.Outcome):
            self.outcome = event
        elif isinstance(event, results.KeyWanted):
            self.key_wanted_at = event.address
        if self.is_joining and (self.outcome is not None or isinstance(event, results.KeyWanted)):
            self._held.append(event)
        else:
            self.console.on_event(event)

    # ---- how it ends

    def fail(self) -> None:
        """In a script, something that was asked for did not come: the exit code says so."""
        if not self.terminal.is_asking and self.exit_code == EXIT_OK:
            self.exit_code = EXIT_FAILED

    def end(self) -> None:
        """No more commands. A script's Ctrl-C has ended its waiting by now, and shall not end the leaving."""
        if not self.terminal.is_asking:
            if self.signals:
                log.info("%s came", signals.names_of(self.signals))
            if signal.SIGINT in self.signals:
                self.exit_code = EXIT_INTERRUPTED
            self.signals = []
        self.is_over = True

    def on_signal(self, number: int, frame: Any) -> None:
        """A signal handler: only remembers."""
        signals.note(number, self.signals, self.is_leaving)
        self.terminal.look_soon()

    def on_memory_short(self) -> None:
        """From any thread: one could not go on without memory. What can be left properly is."""
        if self.is_leaving:                     # and even that needs some
            end_at_once()
        self.trouble = self.trouble or NO_MEMORY
        self.signals.append(signal.SIGTERM)     # ends whatever is waited for
        self.terminal.look_soon()

    def _on_failure(self, error: Exception) -> None:
        if is_memory_short(error):
            self.trouble = NO_MEMORY
            return
        log.exception("the prompt failed")
        self.say("!! This node has to end because of a mistake in the program; --log FILE tells the details.")
        self.exit_code = EXIT_FAILED

    def _on_interrupt(self, is_starting: bool = False) -> None:
        """Ctrl-C, or another signal: clear the line, stop what goes on, warn, or leave."""
        came, self.signals = self.signals or [signal.SIGINT], []
        if self.is_over:
            return
        log.info("%s came", signals.names_of(came))
        if any(number != signal.SIGINT for number in came):
            self.is_over = True
        elif is_starting or not self.terminal.is_asking or (self.was_warned and not self.terminal.typed()):
            self.is_over, self.exit_code = True, EXIT_INTERRUPTED
        elif self.terminal.typed() or not self.console.stop_going():
            self.was_warned = not self.terminal.typed()
            self.say("Ctrl-C again or Q to quit" if self.was_warned else "")

    # ---- from the questions to the exit code

    def run(self, flags: argparse.Namespace, open_node: Callable[[Settings, Callable[[Any], None]], Any]) -> int:
        """From the questions to the exit code."""
        self.stays = getattr(flags, "stay", False)
        self.console.chatting.show_with(not getattr(flags, "no_times", False), getattr(flags, "bell", False))
        try:
            if self._open(flags, open_node):
                self._serve()
        except Quit:
            self.is_over = True
        except Interrupted:
            self._on_interrupt(is_starting=True)
        except Exception as error:
            self._on_failure(error)
        finally:
            self._leave()
        self.trouble = self.trouble or self.terminal.trouble
        return EXIT_SHORT if self.trouble else self.exit_code

    def _open(self, flags: argparse.Namespace, open_node: Callable[..., Any]) -> bool:
        """Ask, and join; ask again what was wrong, as long as somebody is there to answer. False: it is over."""
        if getattr(flags, "ask_key", False) and not self.terminal.is_asking:
            self.say(network_key.NOBODY_TO_ASK)
            self.exit_code = EXIT_FLAGS
            return False
        while True:
            settings = self._questions.settings(flags)
            try:
                self._check_folder(settings)
                self.say("Looking for a network ...")
                self.terminal.flush()
                self._join(settings, open_node)
                return True
            except NodeError as error:
                self.is_over = self.is_over or self.terminal.is_broken
                if self.signals or self.is_over:        # that is why it did not join
                    raise Interrupted from None
                self.say(str(error))
                if not (self.terminal.is_asking and error.again):
                    self.exit_code = error.code
                    return False
                flags = self._questions.once_more(flags, settings, error)

    def _join(self, settings: Settings, open_node: Callable[..., Any]) -> None:
        """Opens a node and waits for its outcome; NodeError says why not."""
        self.outcome, self.key_wanted_at, self.is_joining, self._held = None, None, True, []
        self.console.chatting.set_name(settings.name)
        is_new = not settings.is_folder_chosen and not os.path.exists(settings.folder)
        self.node = open_node(settings, self.notify)
        if is_new and (self.terminal.is_asking or self.stays) and os.path.isdir(settings.folder):
            self.console.on_made(os.path.abspath(settings.folder))
        if not settings.is_folder_chosen and settings.folder != self.node.folder:
            self.say(f"* {settings.folder} is in use by another node here; this one uses {self.node.folder}")
        self.wait_until(lambda: self.outcome is not None, JOIN_SECONDS)
        kind = self.outcome.kind if self.outcome else ""
        if kind == "joined" or (kind == "supernode" and self.wait_until(lambda: self.node.is_port_own, DOOR_SECONDS)):
            self.wait_until(lambda: self.node.standing() is not None, LOOK_SECONDS)
            self.is_joining = False
            for event in self._held:
                self.console.on_event(event)
            self._tell_privacy(settings)
            if kind == "supernode" and not settings.ip and not self.node.has_network:
                self.say(IN_NO_NETWORK)
            elif kind == "supernode" and not settings.ip and self.terminal.is_asking:
                self.say(BEYOND_THIS_LAN)   # a search goes no farther, and nobody is told that a router stands between
            return
        has_key = bool(self.node.check_code)
        self._leave_node()
        raise why_not(settings, self.outcome, bool(self.key_wanted_at), has_key, self.terminal.is_asking)

    def _check_folder(self, settings: Settings) -> None:
        """A home, a disk, keys or a system's folder is shared by --folder only once a person has said yes."""
        danger = danger_of_folder(settings.folder) if settings.is_folder_chosen else ""
        if not danger:
            return
        if not self.terminal.is_asking:
            raise NodeError(f"{unasked_line(settings.folder, danger)}: start once at a terminal.", EXIT_FLAGS, ())
        self.say(f"{short_path(settings.folder)} {danger}.")
        if not self.confirm("Share it with everybody here?"):
            raise NodeError("* not shared: --folder DIR names another folder", EXIT_FLAGS, ())

    def _tell_privacy(self, settings: Settings) -> None:
        """Who may join here, at each start."""
        assert self.outcome is not None
        whose = settings.name if self.outcome.kind == "supernode" else self.outcome.supernode_label
        self.say(network_key.start_line(self.node.check_code, safe_label(whose)))
        if settings.key.is_asked:
            self.say(self.node.keep_key())

    def _serve(self) -> None:
        """Lines are read and done until the end."""
        self.terminal.reader.forget()
        self.terminal.reader.complete_by(Completion(LETTERS, self.console.sources()), self._show_choices)
        if self.terminal.is_asking:
            self.say("? lists the commands.")
        while not self.is_over:
            try:
                line = self.terminal.read_line("> " if self.terminal.is_asking else "", self.idle)
            except EOFError:
                self._on_end_of_input()
                return
            except Interrupted:
                self._on_interrupt()
                continue
            parts = [part for part in line.splitlines() if part.strip()]
            if len(parts) > 1 and self.terminal.is_asking:
                self._on_paste(parts)
                continue
            for part in parts:
                if not self.is_over:
                    self.do(part)

    def _on_end_of_input(self) -> None:
        """As Q; but who gave no commands, or shared something, may have meant this node to stay, and is told."""
        is_script = not self.terminal.is_asking
        if is_script and self.stays:
            self.say(STAYING)
            while not (self.signals or self.is_over):
                self.wait_until(lambda: self.is_over, 3600.0)
            self._on_interrupt()
            return
        if is_script and not (self.was_told and not self.console.sharing.has_shared):
            self.say(INPUT_ENDED)
        self.console.quit("")

    def _on_paste(self, parts: List[str]) -> None:
        """Several lines that were pasted: a text behind T, paths behind B, else a person says what they are."""
        letter = letter_of(parts[0])
        text = f" {LINE_END} ".join(parts)
        if letter in SAYING or letter == "B":
            self.do("\n".join(parts) if letter == "B" else text)
            return
        self.say(f"This paste has {len(parts)} lines, and nothing is done yet: t says it as one chat message, "
                 "c does each line as a command, Enter forgets it.")
        answer = self._answer("t, c or Enter: ")
        for part in {"t": [f"T {text}"], "c": parts}.get(answer, []):
            if not self.is_over:
                self.do(part)

    def _show_choices(self, matches: List[str]) -> None:
        for line in choice_lines(matches, self.terminal.columns() - 1):
            self.say(line)

    def do(self, line: str) -> None:
        """One command; its answer is awaited for a moment, so that lists and prompts stay in order."""
        if not line.strip():
            return
        self.was_warned, self.was_told = False, True
        command, argument = parse_command(line)
        if command is None:
            self.console.refuse(unknown_line(line))
        elif argument and command.stands_alone:
            self.console.refuse(stray_line(line))
        else:
            command.run(self.console, argument)
        self.console.await_answers(ANSWER_SECONDS if self.terminal.is_asking else SCRIPT_ANSWER_SECONDS)

    def confirm(self, question: str) -> bool:
        """Whether a person says yes; nobody does where nobody can be asked. Not while a line is read."""
        return self.terminal.is_asking and self._answer(f"{question} [y/N]: ") in ("y", "yes")

    def _answer(self, question: str) -> str:
        """What a person says, in small letters; nothing for Ctrl-C and Ctrl-D."""
        try:
            answer = self.terminal.read_line(question, self.idle)
        except (EOFError, Interrupted):
            self.signals = [number for number in self.signals if number != signal.SIGINT]
            return ""
        self.terminal.reader.unlearn(answer)
        return answer.strip().lower()

    def finish_saying(self) -> None:
        """What was said shall be sent before this node goes, as far as that can be waited for."""
        node, said = self.node, []              # type: Any, List[bool]
        patience, at_most = SAY_SECONDS if self.terminal.is_asking else SCRIPT_SAY_SECONDS
        node.call(lambda now: node.peer.finish_saying(
            patience, at_most, now, lambda: self.later(lambda: said.append(True))))
        self.wait_until(lambda: bool(said), at_most + 1.0)

    def _leave(self) -> None:
        self.terminal.leave()
        if signal.SIGINT in self.signals:       # once more, after quitting had begun
            os._exit(EXIT_INTERRUPTED)
        self.is_leaving, self.signals = True, []
        self.console.tell_rest()
        if self.node:
            self.say("* leaving ..." if self.terminal.is_asking else "")
            self._leave_node()
        self.pump()
        self.terminal.close()

    def _leave_node(self) -> None:
        node, left = self.node, []              # type: Any, List[bool]
        if not self.is_joining:
            self.finish_saying()
        node.call(lambda now: node.peer.leave(now, lambda *_: self.later(lambda: left.append(True))))
        self.wait_until(lambda: bool(left), LEAVE_SECONDS)
        node.close(1.0)
        self.node = None
