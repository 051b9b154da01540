"""Work for the disk: it is done on another thread, and what comes of it is told in a turn of the node."""

from __future__ import annotations

from functools import partial
from typing import Any, Callable, ContextManager, Optional

from protocol.exchange.contracts import After

Submit = Callable[[Callable[[], Any], After], None]  # the job there, then after(result, error, now) on the node thread


class DiskJobs:
    """The disk as the roles have it; jobs are done one behind the other."""

    def __init__(
        self, submit: Submit, turn: Callable[[float], ContextManager[None]], clock: Callable[[], float]
    ) -> None:
        self._submit = submit
        self._turn = turn
        self._clock = clock  # the instant of the present turn
        self._count = 0  # jobs on their way
        self._answered_at = 0.0  # when the last one came back, or the first one began to wait

    def run(self, job: Callable[[], Any], then: After) -> None:
        """The job on the disk thread, then `then(result, error, now)` on this one."""
        if not self._count:
            self._answered_at = self._clock()
        self._count += 1
        self._submit(job, partial(self._on_done, then))

    def _on_done(self, then: After, result: Any, error: Optional[Exception], now: float) -> None:
        with self._turn(now):
            self._count, self._answered_at = self._count - 1, now
            then(result, error, now)

    def silence(self, now: float) -> float:
        """Seconds for which the disk has owed an answer."""
        return now - self._answered_at if self._count else 0.0
