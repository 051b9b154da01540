"""The node's threads beside that of the network: who owns the roles, the library, the scanner.

Each runs closures that others hand it, one at a time, or tells the node's what it found: nothing here needs a lock.
Made and started by `node_client.py`. (`sockets/thread.py` has the network's; the prompt's is the program's first.)
"""

from __future__ import annotations

import concurrent.futures
import functools
import queue
import threading
from typing import Any, Callable, List, NamedTuple, Optional, Protocol

from prompt.readers import next_of
from protocol import mishaps
from protocol.lanes import Lanes

log = mishaps.logger("node")

SCANNER_STOP_SECONDS = 1.0          # it looks at its flag after every MiB
JOBS_AHEAD = 2                      # that wait for the disk when the next one is begun beside it
RESULTS_AT_ONCE = 16                # of written pieces, told to the node together
EVENTS_PER_TURN = 64                # of the node thread before it looks at its deadline


class Roles(Protocol):
    """What the node thread asks of those who live on it."""

    def on_timer(self, now: float) -> None: ...

    def next_deadline(self) -> float: ...


class NodeThread:
    """Runs closures and the roles' timer, one at a time; what fails is logged and dropped, and the thread lives."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.inbox: Lanes[Optional[Callable[[float], None]]] = Lanes()
        self.failures = 0
        self._bell: queue.SimpleQueue[None] = queue.SimpleQueue()   # rung once for each that is in the inbox
        self._roles: Optional[Roles] = None     # from `start` on
        self._deadline = 0.0                # of the roles, as they told it after the last turn
        self._thread = threading.Thread(target=self._run, name="node", daemon=True)

    def start(self, roles: Roles) -> None:
        """Starts the thread."""
        self._roles = roles
        self._thread.start()

    def call(self, closure: Callable[[float], None], may_wait: bool = False) -> None:
        """From any thread: has `closure(now)` run on the node thread, behind others if it may wait."""
        self.inbox.put(closure, may_wait)
        self._bell.put(None)

    def stop(self) -> None:
        """From any thread: ends it after what is in the inbox and may not wait."""
        self.inbox.put(None)
        self._bell.put(None)
        self._thread.join(1.0)

    def _run(self) -> None:
        while self._turn():
            pass

    def _turn(self) -> bool:
        """Do what waits, but not for ever, then what time asks for; False: this thread shall end."""
        for count in range(EVENTS_PER_TURN):
            try:
                next_of(self._bell, self._patience() if count == 0 else 0.0)
            except queue.Empty:
                break
            closure = self.inbox.take()
            if closure is None:
                return False
            self._guarded(closure)
        self._guarded(self._on_time)
        return True

    def _on_time(self, now: float) -> None:
        assert self._roles is not None
        self._deadline = now                    # should the roles fail to tell theirs
        deadline = self._roles.next_deadline()  # asks all that live there: never twice for nothing
        if now >= deadline:
            self._roles.on_timer(now)
            deadline = self._roles.next_deadline()
        self._deadline = deadline

    def _patience(self) -> float:
        # After a failed timer the deadline may stay in the past: never spin on it.
        wait = self._deadline - self.clock()
        return min(max(wait, 0.05 if self.failures else 0.0), 1.0)

    def _guarded(self, closure: Callable[[float], None]) -> None:
        try:
            closure(self.clock())
        except Exception:
            self.failures += 1
            log.exception("an event on the node thread was dropped")


class _Job(NamedTuple):
    """What the disk thread is to do, and who hears what came of it."""

    run: Callable[[], Any]
    done: Callable[[Any, Optional[Exception], float], None]
    is_common: bool                     # one of many alike, of which the node hears several at once
    ahead: Any                          # the part of it that is done beside, if it is


class DiskThread:
    """Runs the library's blocking calls in order, and hands each result to the node thread."""

    def __init__(self, node: NodeThread) -> None:
        self._node = node
        self._jobs: queue.SimpleQueue[Optional[_Job]] = queue.SimpleQueue()
        self._digests = concurrent.futures.ThreadPoolExecutor(1, "digest")
        self._flushes = concurrent.futures.ThreadPoolExecutor(1, "flush")
        self.submits = self._flushes.submit, self._digests.submit
        self._thread = threading.Thread(target=self._run, name="disk", daemon=True)

    def start(self) -> None:
        """Starts the thread, and the one beside it."""
        self._thread.start()
        self._digests.submit(bool)              # an executor makes its thread with the first job

    def __call__(self, job: Callable[[], Any], done: Callable[[Any, Optional[Exception], float], None]) -> None:
        """From any thread: `job()` here, then `done(result, error, now)` on the node thread.

        A job may have an `ahead`: what can be done before its turn comes, beside this thread. That is worth its while
        when others wait. What comes of such a job is told together with what comes of the like behind it.
        """
        prepare = getattr(job, "ahead", None)
        is_late = self._jobs.qsize() >= JOBS_AHEAD
        ahead = self._digests.submit(prepare) if prepare is not None and is_late else None
        self._jobs.put(_Job(job, done, prepare is not None, ahead))

    def stop(self, timeout: float) -> None:
        """Ends it after the jobs that wait."""
        self._jobs.put(None)
        self._thread.join(timeout)
        self._digests.shutdown(wait=False)
        self._flushes.shutdown(wait=False)

    def _run(self) -> None:
        told: List[Callable[[float], None]] = []    # what came of the last jobs, and the node has yet to hear
        for job in iter(functools.partial(self._next_job, told), None):
            result, error = None, None
            try:
                if job.ahead is not None:
                    job.ahead.result()
                result = job.run()
            except Exception as caught:
                error = caught
            told.append(functools.partial(_finish_job, job.done, result, error))
            if not job.is_common or len(told) >= RESULTS_AT_ONCE:
                self._tell(told)

    def _next_job(self, told: List[Callable[[float], None]]) -> Optional[_Job]:
        """Before it is waited for, or takes longer than those before it, the node hears of these."""
        try:
            job = self._jobs.get_nowait()
        except queue.Empty:
            self._tell(told)
            return self._jobs.get()
        if job is None or not job.is_common:
            self._tell(told)
        return job

    def _tell(self, told: List[Callable[[float], None]]) -> None:
        """The node thread wakes once for all of them."""
        for closure in told:
            self._node.call(closure)
        told.clear()


def _finish_job(done: Callable[[Any, Optional[Exception], float], None], result: Any, error: Optional[Exception],
                now: float) -> None:
    done(result, error, now)


class ScannerThread:
    """Looks for files to share, again and again; what it finds goes to the node thread."""

    def __init__(self, scanner: Any, report: Callable[[Any], None], is_over: threading.Event) -> None:
        self.scanner, self._report, self.is_over = scanner, report, is_over
        self._asked = threading.Event()         # set: look now
        self._waiting: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="scanner", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def look_now(self, then: Callable[[], None]) -> None:
        """From any thread: the next pass begins at once; `then` is called here once all is read that it found."""
        self._waiting.put(then)
        self._asked.set()

    def stop(self) -> None:
        """Ends it; a pass that runs is given up."""
        self.is_over.set()
        self._asked.set()
        if self._thread.is_alive():
            self._thread.join(SCANNER_STOP_SECONDS)     # it still has the file of the kept digests

    def _run(self) -> None:
        waiting: List[Callable[[], None]] = []
        while not self.is_over.is_set():
            for _ in range(self._waiting.qsize()):
                waiting.append(self._waiting.get())
            try:
                self.scanner.run_once(self._report)
            except Exception:
                log.exception("a pass over the shared folder failed")
            pause = self.scanner.next_pass_in()
            while pause and waiting:            # without a pause the pass was given up, and goes on
                waiting.pop()()
            self._asked.wait(pause)
            self._asked.clear()
        self.scanner.close()
