"""What a person asked for: the table of downloads, each with a number, a few at a time."""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Any, List, Optional, Set

from protocol.content.parts import PartInfo
from protocol.exchange.contracts import Preparing, Surroundings
from protocol.exchange.fetching import Fetching
from protocol.exchange.folder_job import FolderJob
from protocol.exchange.job import FileJob, Job, JobHands
from protocol.exchange.stream_job import StreamJob, Taker
from protocol.results import ListEntry, TransferRow

TICK = 0.5  # seconds between two lines of progress, while anything is fetched
ENDED_KEPT = 20  # ended jobs that are still shown
RUNNING_MAX = 6  # jobs at once; the others wait for their turn


class Jobs:
    """All downloads that a person asked for."""

    def __init__(self, fetching: Fetching, around: Surroundings, library: Any, preparing: Preparing) -> None:
        self._fetching = fetching
        self._around = around
        self._hands = JobHands(fetching, around, library, preparing, self.begin_next)
        self.jobs: OrderedDict[int, Job] = OrderedDict()
        self._tick_at = math.inf

    def add(self, entry: ListEntry, now: float, taker: Optional[Taker] = None) -> Job:
        """Fetch a file or folder for a person, or hand a file to a taker; it begins with `begin_next`."""
        number = self._around.next_number()
        self._forget_stopped(entry.file_id)
        if taker is not None:
            job: Job = StreamJob(self._hands, number, entry, now, taker)
        else:
            job = (FolderJob if entry.is_folder else FileJob)(self._hands, number, entry, now)
        self.jobs[number] = job
        self._tick_at = min(self._tick_at, now + TICK)
        self._forget_old()
        return job

    def begin_next(self, now: float) -> None:
        """Begin what may begin now."""
        for job in list(self.jobs.values()):
            running = sum(one.has_begun and not one.end_state for one in self.jobs.values())
            if not job.has_begun and not job.end_state and running < RUNNING_MAX:
                job.start(now)

    def running(self, file_id: bytes, name: Optional[str] = None) -> Optional[Job]:
        """The job that fetches this content (under this name), if one runs."""
        running = (job for job in self.jobs.values() if not job.end_state and job.entry.file_id == file_id)
        return next((job for job in running if name in (None, job.entry.name)), None)

    def _forget_old(self) -> None:
        ended = [number for number, job in self.jobs.items() if job.end_state]
        for number in ended[: max(0, len(ended) - ENDED_KEPT)]:
            del self.jobs[number]

    def _forget_stopped(self, file_id: bytes) -> None:
        """It goes on under another number: one row tells of it."""
        for number, job in list(self.jobs.items()):
            if job.end_state == "stopped" and job.entry.file_id == file_id:
                del self.jobs[number]

    def cancel(self, number: int, now: float) -> str:
        """Stop a download or an upload; a line for the person."""
        job = self.jobs.get(number)
        if job is None or job.end_state:
            return self._fetching.serving.cancel(number, now) or f"!! There is no running transfer {number}."
        kept = "; what is here is kept for a later R" if job.verified() else ""
        job.stop("cancelled", now, tell=False)
        return f"{job.entry.name} is cancelled{kept}"

    def rows(self, now: float) -> List[TransferRow]:
        """Every transfer, downloads first."""
        return [job.row(now) for job in self.jobs.values()] + self._fetching.serving.rows(now)

    def next_deadline(self) -> float:
        return self._tick_at

    def on_timer(self, now: float) -> None:
        if now >= self._tick_at:
            running = [job for job in self.jobs.values() if not job.end_state]
            for job in running:
                job.tell_progress(now)
                if now >= job.look_at:
                    job.look_for_room()
            self._tick_at = now + TICK if running else math.inf

    def end_all(self, reason: str, now: float) -> None:
        """The node leaves its network."""
        for job in reversed(list(self.jobs.values())):  # those that wait first: none shall begin now
            job.stop(reason, now)

    def tells_of(self, part: PartInfo) -> bool:
        """Is it what a download left that stopped, and is still in the table?"""
        return any(
            job.end_state == "stopped"
            and (job.entry.file_id == part.file_id or part.label.startswith(f"{job.entry.name}/"))
            for job in self.jobs.values()
        )

    def on_their_way(self) -> Set[bytes]:
        """The contents that are being fetched, or wait for room on the disk."""
        running = [job for job in self.jobs.values() if not job.end_state]
        return {fetch.file_id for job in running for fetch in job.fetches}.union(*(job.kept for job in running))
