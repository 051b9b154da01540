"""What a signal leaves behind: a note, for whoever waits looks often enough, or is told to."""

from __future__ import annotations

import os
import signal
from typing import Any, Callable, Iterable, List

from prompt.settings import EXIT_INTERRUPTED


def set_up(on_signal: Callable[[int, Any], None]) -> None:
    """Ctrl-C, a closed terminal, SIGTERM and what Windows has for it (Ctrl-Break) end things properly.

    SIGALRM is what ReadlineReader wakes select() by.
    """
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK", "SIGALRM"):
        number = getattr(signal, name, None)
        if number is not None and not (name == "SIGHUP" and signal.getsignal(number) == signal.SIG_IGN):   # nohup
            signal.signal(number, on_signal)


def names_of(came: Iterable[int]) -> str:
    """As a log tells them: `SIGHUP`."""
    return " and ".join(signal.Signals(number).name for number in dict.fromkeys(came))


def note(number: int, came: List[int], is_leaving: bool) -> None:
    """From a signal handler: it came. While the program is leaving, Ctrl-C once more ends it at once."""
    if number == signal.SIGINT and is_leaving:
        os._exit(EXIT_INTERRUPTED)
    if not is_leaving and number != getattr(signal, "SIGALRM", 0):
        came.append(number)
