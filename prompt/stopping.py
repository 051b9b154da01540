"""Ctrl-Z, `fg`, `bg` and `&`: the terminal belongs to the shell while this program is stopped or in the background.

A signal only leaves a note; whoever waits heeds it (`Stops.heed`, ten times a second), when nothing is half drawn.
In the background the node goes on, and what happens is told in plain lines; the terminal is neither read nor set until
the program is in the foreground again. Nothing of this is on Windows.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

WAITING = "* in the background: fg brings the prompt"


class Stops:
    """What became of the program's hold on its terminal."""

    def __init__(self, terminal: Any) -> None:
        self.is_away = False            # in the background
        self._terminal = terminal
        self._is_asked = self._has_come_back = self._was_here = False
        self._is_heard = False

    def hear(self) -> None:
        """From now on: `heed` has to be called again and again."""
        if not hasattr(signal, "SIGTSTP") or not hasattr(os, "tcgetpgrp"):
            return
        self._is_heard = True
        signal.signal(signal.SIGTSTP, self._on_stop)
        signal.signal(signal.SIGCONT, self._on_continued)
        # Setting the terminal from the background would stop every thread, and the node with them.
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)

    def _on_stop(self, number: int, frame: Any) -> None:
        self._is_asked = True

    def _on_continued(self, number: int, frame: Any) -> None:
        self._has_come_back = True

    def heed(self) -> None:
        """Stop if that was asked for; take the terminal up again when it is ours again."""
        if not self._is_heard:
            return
        if self._is_asked:
            self._stop()
        was_away, self.is_away = self.is_away, is_in_background()
        if self.is_away:
            self._terminal.lose()
            if not (was_away or self._was_here):
                self._terminal.say(WAITING)
        elif was_away or self._has_come_back:
            self._has_come_back = False
            self._terminal.take_up()
        self._was_here = self._was_here or not self.is_away

    def _stop(self) -> None:
        self._is_asked = False
        if not self.is_away:
            self._terminal.put_aside()
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        signal.raise_signal(signal.SIGTSTP)     # here all threads stand still until SIGCONT
        signal.signal(signal.SIGTSTP, self._on_stop)
        self._has_come_back = True


def is_in_background() -> bool:
    """Does the terminal at standard input belong to another job now? (Not if it is gone: its end is to be read.)"""
    try:
        return os.tcgetpgrp(sys.stdin.fileno()) not in (os.getpgrp(), 0)
    except (OSError, ValueError, AttributeError):
        return False
