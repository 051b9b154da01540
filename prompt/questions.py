"""The questions at the start, each asked until its answer is right; and why some are asked once more.

What flags have said is not asked, and where nobody can be asked the defaults hold. On the prompt thread alone.
"""

from __future__ import annotations

import argparse
import os
import textwrap
from typing import Any, Callable, Dict, Optional, Sequence

from prompt import network_key
from prompt.readers import Interrupted
from prompt.settings import DEFAULT_FOLDER, DEFAULT_PORT, NodeError, Settings, check_name, check_port, default_name
from prompt.terminal import Terminal
from prompt.where import IP_HELP, NAME_HELP, PORT_HELP, Place, check_place, is_name, parted
from protocol.addresses import shown
from protocol.credentials import KeyTrouble
from protocol.looks import safe_text
from protocol.results import Outcome


class Quit(Interrupted):
    """A person answered that the program shall end."""


class Questions:
    """To one person; what was typed as a key is kept until it turns out to be wrong."""

    def __init__(self, terminal: Terminal, idle: Callable[[], None], signals: Callable[[], Any]) -> None:
        """`idle`: what a waiting prompt does; `signals`: those that came, for what takes its time."""
        self._terminal, self._idle, self._signals = terminal, idle, signals
        self._typed_key = ""

    def settings(self, flags: argparse.Namespace) -> Settings:
        """What the flags leave open is asked; Interrupted when the person, or a signal, wants no more of it."""
        hint = getattr(flags, "default_ip", None)
        ip, named_port, others = flags.ip, None, getattr(flags, "others", ())
        if ip is False:
            ip, named_port, others = self._ask(f"IP [{hint or 'search this network'}]: ",
                                               lambda text: self._placed(text.strip() or hint or ""), IP_HELP)
        default = str(getattr(flags, "default_port", DEFAULT_PORT))
        port = named_port or flags.port or self._ask(
            f"Port [{default}]: ", lambda text: check_port(text.strip() or default), PORT_HELP)
        name = flags.name or self._ask(f"Name [{default_name()}]: ", check_name, NAME_HELP)
        folder = os.path.expanduser(flags.folder or DEFAULT_FOLDER)
        if getattr(flags, "ask_key", False) and not self._typed_key:
            self._typed_key = self._ask_key()
        key = network_key.wish_of(flags, folder, self._typed_key)
        return Settings(ip, port, name, folder, bool(flags.folder), getattr(flags, "trace", None) or "",
                        getattr(flags, "up", None), getattr(flags, "down", None), others=others,
                        casts=not getattr(flags, "no_cast", False), key=key)

    def once_more(self, flags: argparse.Namespace, settings: Settings, trouble: NodeError) -> argparse.Namespace:
        """Flags that leave open what this trouble calls for; the other answers are known by now.

        A key that was typed is asked for first of all, where nobody sees it; none: the place may be another one.
        """
        known = {"ip": settings.ip, "port": settings.port, "name": settings.name}
        if trouble.again == ("key",):
            self._typed_key = ""
            return _with(flags, known, ask_key=True)
        if "key" in trouble.again:
            again = self._ask_key(network_key.KEY_AGAIN, may_be_empty=True)
            if again:
                self._typed_key = again
                return _with(flags, known)
        ip, port = trouble.hint or (None, settings.port)
        known.update({"ip": False} if "ip" in trouble.again else {}, port=None)
        return _with(flags, known, default_ip=ip, default_port=port)

    def _ask_key(self, question: str = network_key.KEY_QUESTION, may_be_empty: bool = False) -> str:
        from protocol.keys.phrase import typed_key

        def check(text: str) -> str:
            return typed_key(text) if text.strip() or not may_be_empty else ""

        key: str = self._ask(question, check, network_key.KEY_HELP, is_hidden=True)
        return key

    def _placed(self, text: str) -> Place:
        """Where a person means; a name is looked up, which may take its time."""
        if is_name(parted(text)[0]):
            self._terminal.say(f"Looking up {safe_text(text, 60)} ...")
            self._terminal.flush()
        return check_place(text, self._signals)

    def _ask(self, question: str, check: Callable[[str], Any], explained: Sequence[str],
             is_hidden: bool = False) -> Any:
        """The checked answer; asked again until it is right, and not at all where nobody can be asked.

        `?` has it `explained`, and `q` ends the program.
        """
        read = self._terminal.read_hidden if is_hidden else self._terminal.read_line
        while self._terminal.is_asking:
            try:
                answer = read(question, self._idle)
                if answer.strip().lower() in ("q", "quit", "exit"):
                    raise Quit
                if answer.strip() in ("?", "h", "H", "help"):
                    self._explain(explained)
                    continue
                return check(answer)
            except (ValueError, KeyTrouble) as error:
                self._terminal.say(str(error))
            except EOFError:
                raise Interrupted from None
        return check("")

    def _explain(self, lines: Sequence[str]) -> None:
        for line in lines:
            for row in textwrap.wrap(line, self._terminal.columns() - 1):
                self._terminal.say(row)


def _with(flags: argparse.Namespace, known: Dict[str, Any], **others: Any) -> argparse.Namespace:
    return argparse.Namespace(**{**vars(flags), **known, **others})


def why_not(settings: Settings, outcome: Optional[Outcome], wants_key: bool, has_key: bool,
            is_asking: bool) -> NodeError:
    """Why no network was joined with these settings, and what to ask once more.

    `wants_key`: a network that was found has one; `has_key`: so has this node.
    """
    kind = outcome.kind if outcome else ""
    if wants_key and (settings.ip or kind == "supernode"):
        return NodeError(network_key.KEY_ASKED if is_asking else network_key.KEY_WANTED, again=("key",))
    again = ("key",) if settings.key.is_asked else ()
    if kind == "supernode" and has_key:
        return NodeError(network_key.no_answer(f"Port {settings.port} of this machine is in use"),
                         again=("port", *again))
    if kind == "supernode":
        return NodeError(f"Port {settings.port} of this machine is in use by another program, "
                         "and no node answers there.", again=("port",))
    text, hint = safe_text(outcome.text) if outcome else "", None
    if kind == "nobody" and settings.ip:
        other = f" {text}." if text else ""
        hint = outcome.address if text and outcome else None
        place = shown((settings.ip, settings.port))
        text = f"Nobody answers at {place}, and this machine cannot be the supernode there."
        text = network_key.no_answer(place) if has_key else text + other
    return NodeError(text or "No network was found, and none could be opened here.", hint=hint,
                     again=("ip", "port", *again))
