"""What a signal leaves behind: a note, for whoever waits looks ten times a second."""

from __future__ import annotations

import os
import signal
from typing import Iterable, List

from prompt.settings import EXIT_INTERRUPTED


def names_of(came: Iterable[int]) -> str:
    """As a log tells them: `SIGHUP`."""
    return " and ".join(signal.Signals(number).name for number in dict.fromkeys(came))


def note(number: int, came: List[int], is_leaving: bool) -> None:
    """From a signal handler: it came. While the program is leaving, Ctrl-C once more ends it at once."""
    if number == signal.SIGINT and is_leaving:
        os._exit(EXIT_INTERRUPTED)
    if not is_leaving and number in (signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", 0)):
        came.append(number)
