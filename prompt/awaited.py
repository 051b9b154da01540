"""Downloads that were asked for at this prompt: how each stands, which have ended, and what a script waits for."""

from __future__ import annotations

import math
from typing import Dict, List, Optional, Tuple

from prompt.asking import Asking, Life
from prompt.choosing import Batch
from prompt.lines import progress_line
from protocol import results

SCRIPT_PAUSE_SECONDS = 60.0  # how long a script waits for room on the disk
PROGRESS_SECONDS = 30.0  # where no line can be redrawn: one line for this or for ...
PROGRESS_PERCENT = 10  # ... this much


class Awaited:
    """All of them, by the numbers of their transfers."""

    def __init__(self, life: Life, asking: Asking) -> None:
        self.running: Dict[int, results.TransferRow] = {}  # the latest of each
        self.batches: List[Batch] = []  # several downloads by one command
        self._asked: set[int] = set()  # those that were asked for here and run
        self._ended: set[int] = set()
        self._paused: Dict[int, float] = {}  # those that wait for room on the disk, and since when
        self._told: Dict[int, Tuple[float, int]] = {}  # when, and at what percent, a progress line was printed
        self._life = life
        self._asking = asking

    # ---- what was asked for

    def begin(self, number: int) -> bool:
        """It was asked for here; False if it has ended before that was known."""
        if number in self._ended:
            return False
        self._asked.add(number)
        return True

    def begin_batch(self, count: int) -> Batch:
        """So many are asked for by one command."""
        batch = Batch(count, self._life.clock())
        self.batches.append(batch)
        return batch

    def on_answer(self, batch: Batch, name: str, answer: Optional[results.FetchAnswer]) -> None:
        """What became of one that was asked for with others."""
        kind, transfer = (answer.kind, answer.transfer) if answer else ("", None)
        if transfer is not None and self.begin(transfer):
            batch.on_started(transfer, name)
        elif transfer is not None or kind == "already here":
            batch.on_here()
        else:
            self._life.fail()
            batch.on_refused(name)
        self._end_batch(batch)

    # ---- how it stands

    def on_progress(self, row: results.TransferRow) -> None:
        """It has come so far."""
        if row.direction != "R" or row.number in self._ended:
            return
        if row.state in ("done", "stopped"):
            self.running.pop(row.number, None)
            return
        self.running[row.number] = row
        if not self._life.terminal.can_redraw:
            self._tell_progress(row)

    def _tell_progress(self, row: results.TransferRow) -> None:
        now, percent = self._life.clock(), row.verified * 100 // row.size if row.size else 0
        told_at, told_percent = self._told.setdefault(row.number, (now, percent))
        if percent // PROGRESS_PERCENT > told_percent // PROGRESS_PERCENT or now - told_at >= PROGRESS_SECONDS:
            self._told[row.number] = (now, percent)
            self._asking.say(progress_line(row))

    def line(self, columns: int) -> str:
        """The line that is redrawn while some run; nothing where none does."""
        if not self.running:
            return ""
        more = f"  (+{len(self.running) - 1} more: V)" if len(self.running) > 1 else ""
        return progress_line(self.running[min(self.running)], columns - len(more)) + more

    def on_pause(self, number: int) -> None:
        """It waits for room on the disk."""
        self._paused.setdefault(number, self._life.clock())

    def on_resume(self, number: int) -> None:
        """It goes on."""
        self._paused.pop(number, None)

    # ---- how it ends

    def on_end(self, number: int, is_failure: bool) -> None:
        """It has ended; if it was asked for here and did not come as it should, a script's exit code says so."""
        if is_failure and number in self._asked:
            self._life.fail()
        self._ended.add(number)
        self._asked.discard(number)
        self._paused.pop(number, None)
        self.running.pop(number, None)
        self._told.pop(number, None)

    def cancel(self, number: int) -> None:
        """It ends by a command: what was cancelled by hand has not failed."""
        if number in self.running or number in self._asked:
            self.on_end(number, False)
            self.tell_batches(number, None)

    def tell_batches(self, transfer: int, size: Optional[int]) -> None:
        """It has brought so much, or nothing (None): a line tells of all where it was the last of several."""
        for batch in [one for one in self.batches if one.on_end(transfer, size)]:
            self._end_batch(batch)

    def _end_batch(self, batch: Batch) -> None:
        """The last of what one command asked for has ended: a line tells of all."""
        if batch.is_over and batch in self.batches:
            self.batches.remove(batch)
            self._asking.say(batch.line(self._life.clock()))

    def await_all(self) -> None:
        """A script ends when what it asked for has ended, or has waited for room on the disk for long enough."""
        life = self._life
        while (
            not life.wait_until(self._has_nothing_to_await, 3600.0) and not life.signals and not life.terminal.is_broken
        ):
            pass
        if self._asked and not life.signals:
            life.fail()
            self._asking.say("!! ended without what waits for room on the disk; what came is kept for a later R")

    def _has_nothing_to_await(self) -> bool:
        too_long = self._life.clock() - SCRIPT_PAUSE_SECONDS
        return all(self._paused.get(number, math.inf) <= too_long for number in self._asked)
