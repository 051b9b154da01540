"""How chat looks to a person at a terminal: with times, own lines unlike others', a bell for one's name if wanted.

In a pipe each line stays what scripts know, `<bo> hello`. What others say can never look like an own line, like a
private one or like a time: each of these begins with a character that no other line of theirs begins with, and a label
cannot hold `<` or `>` (see `safe_label`).

    12:31 <bo> hello        said to all by another
    12:31 >me< hello        own, where there is no colour; else <me> hello, dim
    12:31 [bo -> me] hello  private
"""

from __future__ import annotations

import re
import time
from typing import Any, Callable

from prompt.lines import line_for
from protocol import results
from protocol.looks import safe_label
from protocol.rates import Bucket

BELLS_INTERVAL, BELLS_BURST = 2.0, 1    # seconds for each: what others say may not ring without end
DIM, BOLD = "2", "1"                    # of the terminal's looks


class Chatting:
    """Shows what was said, as this person wants it."""

    def __init__(self, terminal: Any, now: float,
                 wall_time: Callable[[], str] = lambda: time.strftime("%H:%M")) -> None:
        self.has_times, self.has_bell = True, False
        self._terminal, self._wall_time = terminal, wall_time
        self._bells = Bucket(1 / BELLS_INTERVAL, BELLS_BURST, now)
        self._own_name = re.compile(r"(?!)")

    def show_with(self, has_times: bool, has_bell: bool) -> None:
        """Shall the time stand before each line, and shall it ring where this node is called by name?"""
        self.has_times, self.has_bell = has_times, has_bell

    def set_name(self, name: str) -> None:
        """What rings, if that is wanted."""
        self._own_name = re.compile(rf"(?<!\w){re.escape(name)}(?!\w)", re.IGNORECASE)

    def show(self, event: Any, now: float) -> None:
        """A line of chat (ChatReceived), or a private one (Whispered)."""
        line = line_for(event, "")
        if not (self._terminal.is_asking and self._terminal.can_redraw):
            self._terminal.say(line)
            return
        is_mine, is_private = event.is_me, isinstance(event, results.Whispered)
        if is_mine and not is_private and not self._terminal.has_colour:
            label = safe_label(event.label)
            line = f">{label}<" + line[len(label) + 2:]
        when = f"{self._wall_time()} " if self.has_times else ""
        self._terminal.say(when + line, DIM if is_mine else BOLD if is_private else "")
        calls_me = is_private or self._own_name.search(event.text)
        if self.has_bell and calls_me and not is_mine and self._bells.take(now):
            self._terminal.ring()
