"""The file of the log."""

from __future__ import annotations

import logging
import os
from typing import Any

from protocol.looks import safe_text

LOG_BYTES_MAX = 16 << 20            # of the log, and of the one before it
LINE_COLUMNS_MAX = 1 << 14         # of a line: those of what is not shared name many files


class _Plain(logging.Formatter):
    """A line for each message: others say some of the words in it, and a terminal that shows the log obeys none.

    What an exception says may have several, which are indented: none looks like a line of the log.
    """

    def formatMessage(self, record: logging.LogRecord) -> str:
        return safe_text(super().formatMessage(record), LINE_COLUMNS_MAX)

    def formatException(self, ei: Any) -> str:
        return "\n".join("  " + safe_text(line, LINE_COLUMNS_MAX) for line in super().formatException(ei).split("\n"))


def log_handler(path: str) -> logging.FileHandler:
    """Writes the log, of which others can make any number of lines: it turns over into `path`.1, which it replaces."""
    from logging.handlers import RotatingFileHandler  # which imports much that who wants no log does not wait for
    if os.path.exists(path) and not os.path.isfile(path):   # a pipe, a device: it keeps nothing
        handler = logging.FileHandler(path, encoding="utf-8", errors="backslashreplace")
    else:
        handler = RotatingFileHandler(
            path, maxBytes=LOG_BYTES_MAX, backupCount=1, encoding="utf-8", errors="backslashreplace")
    handler.setFormatter(_Plain("%(asctime)s %(levelname)s %(threadName)s %(name)s: %(message)s"))
    return handler
