"""One pass of the scanner after the other: how long it may work and must rest, and what it has found.

Whoever works in a pass ticks between two steps, and says what was found; that is told about twice a second. Owned by
the scanner's thread.
"""

from __future__ import annotations

import gc
from typing import Any, Callable, List, Optional, Protocol, Tuple

from disk.digests import DigestStore
from protocol.content.shares import ScanResult, SharedFile, Troubles

REPORT_INTERVAL = 0.5  # seconds of scanning between two reports
REPORT_LONG = 1000  # contents in a report from which on the garbage collector is spared them
HASH_TIME_MAX = 10.0  # seconds of hashing in a pass: then new files are looked for
PASS_INTERVAL_MIN = 2.0  # seconds
PASS_IDLE_FACTOR = 20  # a pass costs at most a twentieth of the time
WORK_TIME, REST_TIME = 0.005, 0.02  # seconds of work, then of rest, while the disk serves transfers ...
BREATH_TIME = 0.0005  # ... and otherwise, so that other threads come to their turn


class StopFlag(Protocol):
    """What the scanner needs of a `threading.Event`."""

    def is_set(self) -> bool:
        """Whether the scan is to end."""


class Stopped(Exception):
    """The stop flag was seen, or the pass has had its time."""


class Passing:
    """The present pass: its time, and what it has found."""

    def __init__(
        self,
        store: DigestStore,
        stop: Optional[StopFlag],
        clock: Callable[[], float],
        is_disk_busy: Callable[[], bool],
        rest: Callable[[float], Any],
    ) -> None:
        self.clock = clock
        self.is_unfinished = False  # it had its time before all was hashed
        self.whole = ScanResult()  # all that it has found
        self._store = store
        self._stop = stop
        self._is_disk_busy, self._rest = is_disk_busy, rest
        self._rested_at = clock()
        self._step = ScanResult()  # what of it is not told yet
        self._report: Optional[Callable[[ScanResult], None]] = None
        self._reported_at = self._hash_until = self._idle_cost = 0.0
        self._warned: set[str] = set()  # kinds of trouble that the person knows
        self._left_out: List[Tuple[str, str]] = []

    # ---- its time

    def begin(self, report: Optional[Callable[[ScanResult], None]]) -> None:
        """A new one; `report` gets what was found about twice a second."""
        self.whole, self._step, self._report = ScanResult(), ScanResult(), report
        self._idle_cost, self._reported_at, self.is_unfinished = 0.0, self.clock(), False

    def next_in(self) -> float:
        """Seconds until the next pass is worth its cost."""
        return 0.0 if self.is_unfinished else max(PASS_INTERVAL_MIN, PASS_IDLE_FACTOR * self._idle_cost)

    def begin_hashing(self, started: float) -> None:
        """All was looked at: what that cost since `started` bounds how often it is done, and how long is hashed now."""
        self._idle_cost = self.clock() - started
        self._hash_until = self.clock() + max(HASH_TIME_MAX, PASS_IDLE_FACTOR * self._idle_cost)

    def was_in_vain(self, started: float) -> None:
        """What was hashed since then is of no use, as will be what is hashed in the next pass."""
        self._idle_cost += self.clock() - started

    def end_in_time(self) -> None:
        """Between two pieces: end the pass if it had its time; the next one goes on."""
        if self.clock() >= self._hash_until:
            self.is_unfinished = True
            raise Stopped

    def tick(self) -> None:
        """Between two steps of work: stop if asked to, report if it is time."""
        if self._stop is not None and self._stop.is_set():
            raise Stopped
        now = self.clock()
        if self._step and now - self._reported_at >= REPORT_INTERVAL:
            self.flush()
        if now - self._rested_at >= WORK_TIME:  # transfers have the disk first, and chat need not wait for a turn
            self._rest(REST_TIME if self._is_disk_busy() else BREATH_TIME)
            self._rested_at = self.clock()

    # ---- what it has found

    def add(self, *shared: SharedFile) -> None:
        """These are shared from now on."""
        self._step.added.extend(shared)

    def remove(self, *shared: SharedFile) -> None:
        """These are shared no longer."""
        self._step.removed.extend(shared)

    def warn(self, *sentences: str) -> None:
        """The person is told this."""
        self._step.warnings.extend(sentences)

    def end_with(self, troubles: Troubles) -> None:
        """What could not be shared: told where the person does not know it."""
        self.warn(*troubles.sentences(self._warned))
        self._warned = troubles.kinds()
        if not self.is_unfinished and troubles.left_out != self._left_out:
            self._left_out = troubles.left_out
            self._step.take(ScanResult(left_out=self._left_out))

    def end_short(self, cause: str) -> None:
        """Nothing was seen to be changed: what is known stays shared, and a later pass looks again."""
        short = Troubles()
        short.add("short", cause)
        self.warn(*short.sentences(self._warned))
        self._warned |= short.kinds()

    def flush(self) -> None:
        """Tell what was found since it was told last."""
        step, self._step, self._reported_at = self._step, ScanResult(), self.clock()
        self.whole.take(step)
        if step and self._report is not None:
            self._report(step)
        if len(step.added) >= REPORT_LONG:
            # They stay as long as they are shared, and are in no cycles: to look at 100,000 of them again and again
            # would stop all threads for a tenth of a second each time.
            gc.freeze()
        self._store.commit()
