"""The file of the log."""

from __future__ import annotations

import logging
import os

LOG_BYTES_MAX = 16 << 20            # of the log, and of the one before it


def log_handler(path: str) -> logging.FileHandler:
    """Writes the log, of which others can make any number of lines: it turns over into `path`.1, which it replaces."""
    from logging.handlers import RotatingFileHandler  # which imports much that who wants no log does not wait for
    if os.path.exists(path) and not os.path.isfile(path):   # a pipe, a device: it keeps nothing
        handler = logging.FileHandler(path, encoding="utf-8", errors="backslashreplace")
    else:
        handler = RotatingFileHandler(
            path, maxBytes=LOG_BYTES_MAX, backupCount=1, encoding="utf-8", errors="backslashreplace")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(threadName)s %(name)s: %(message)s"))
    return handler
