"""The file of a trace: lines are appended whole, up to a bound. What they say is in `protocol/transport/trace.py`.

Owned by the network thread whose packets it tells.
"""

from __future__ import annotations

import contextlib

from protocol import mishaps

TRACE_SIZE_MAX = 64 << 20  # bytes of the file, what was in it before included: about 700,000 packets

log = mishaps.logger("trace")


class TraceFile:
    """Appends each text with one write, so that the lines of several processes stay whole; OSError when it cannot.

    At TRACE_SIZE_MAX a last line says that it is full; a disk that fails ends it, too. Neither troubles who writes.
    """

    def __init__(self, path: str) -> None:
        self._file = open(path, "ab", buffering=0)  # noqa: SIM115  closed by `close`
        self._room = TRACE_SIZE_MAX - self._file.tell()

    def write(self, text: str) -> None:
        """Append whole lines, in ASCII; nothing once the file is full, closed or refused by the disk."""
        if self._file.closed or not text:
            return
        data = text.encode("ascii")
        self._room -= len(data)
        if self._room < 0:
            at = text.partition(" ")[0]
            data = b"%b - full bound=%d\n" % (at.encode("ascii"), TRACE_SIZE_MAX)
        try:
            self._file.write(data)
        except OSError as error:
            log.warning("the trace ends: %s", error)
            self._room = -1
        if self._room < 0:
            self.close()

    def close(self) -> None:
        """What was told is on the disk, or lost: nobody is bothered with it."""
        with contextlib.suppress(OSError):
            self._file.close()
