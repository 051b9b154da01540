"""How fast a cast is sent: by what its takers report, once a round.

As TFMCC has it (RFC 4654), receivers report seldom and the worst decides; but not by TFMCC's equation, which at 1 % of
random loss would leave a tenth of a LAN: a cast lives with a few percent, for what is lost is sent once more to all. It
starts like slow start, gives way to more loss than that, comes back soon to where it was, and then rises gently.
Loss that is over with the next report was no queue but a busy taker, and slows nobody down: see `Losses`. Pure.
"""

from __future__ import annotations

import math
import statistics
from typing import Any, Dict, Hashable, List, Mapping, Optional

RATE_FIRST = 6e6  # bytes per second
RATE_MIN = 500e3  # below it casting is no gain
RATE_MAX = 1.2e9  # bytes per second, as 10 Gbit/s carry
LOSS_BORNE = 0.03  # of the datagrams of a round, at the worst of the takers
GIVING_WAY, GIVING_WAY_MOST = 0.8, 0.5  # by as much as was lost goes the rate down, within these parts of it
GROWTH_FIRST, GROWTH_BACK, GROWTH = 1.5, 1.15, 1.04  # a round; back to BACK of where it gave way
BACK = 0.9
WORTH_PART, WORTH_TIME = 0.25, 3.0  # of its best rate: what is slower for so many seconds leaves it to the swarm;
WORTH_ALL = 1.5  # but not while all takers together get so many times that best rate: no swarm on one medium does
REMEMBERED = 0.75  # part of what its earlier reports said that a taker's mean loss keeps with each new one
TOGETHER = 1 / 3  # of the takers: who lose at once have a queue in common
HOLD = 0.3  # seconds after giving way in which it does not rise: until reports tell of the new rate
PULLED_PART, PULL_TIME, PULL_REPORTS = 0.5, 1.0, 8  # a cast so far below what most of its takers took, for so many
# seconds, is not slowed down any longer for few that lost more than is borne in the mean of so many reports in a row
RESUMED = 0.75  # part of that from which it goes on without them
SENT_AHEAD = 1.5  # no more than so many times what really leaves: the socket may be what holds it


class Losses:
    """What the takers lose, report by report."""

    def __init__(self) -> None:
        self._in_a_row: Dict[Hashable, int] = {}  # reports of this taker with more loss than is borne
        self._of_round: Dict[Hashable, float] = {}
        self._mean: Dict[Hashable, float] = {}  # of its last reports: one in a hundred, lost in bursts, is no queue
        self._mean_in_a_row: Dict[Hashable, int] = {}  # reports by which that was more than is borne

    def note(self, taker: Hashable, loss: float) -> None:
        """It lost this part of what was sent since its last report."""
        self._of_round[taker] = max(loss, self._of_round.get(taker, 0.0))
        self._mean[taker] = REMEMBERED * self._mean.get(taker, 0.0) + (1 - REMEMBERED) * loss
        self._in_a_row[taker] = self._in_a_row.get(taker, 0) + 1 if loss > LOSS_BORNE else 0
        is_much = self._mean[taker] > LOSS_BORNE
        self._mean_in_a_row[taker] = self._mean_in_a_row.get(taker, 0) + 1 if is_much else 0

    def forget(self, taker: Hashable) -> None:
        """It takes part no more."""
        self._in_a_row.pop(taker, None)
        self._mean_in_a_row.pop(taker, None)
        self._of_round.pop(taker, None)
        self._mean.pop(taker, None)

    def of_round(self) -> Optional[Dict[Hashable, float]]:
        """What each lost that told something since the last round."""
        losses, self._of_round = self._of_round, {}
        return losses or None

    def worst(self, losses: Mapping[Any, float]) -> float:
        """Of those that show a queue: it lasts, or many have it at once, and so much that all would share it."""
        lossy = [loss for loss in losses.values() if loss > LOSS_BORNE]
        if len(lossy) > TOGETHER * len(losses) and sum(losses.values()) > LOSS_BORNE * len(losses):
            return max(lossy)
        return max((loss for taker, loss in losses.items() if self._lasts(taker)), default=0.0)

    def alone(self) -> List[Any]:
        """Those who have lost much for long; none of them where they are many: that is a queue in common."""
        long = [taker for taker, reports in self._mean_in_a_row.items() if reports >= PULL_REPORTS]
        return long if len(long) <= TOGETHER * len(self._mean_in_a_row) else []

    def _lasts(self, taker: Hashable) -> bool:
        return self._in_a_row.get(taker, 0) >= 2 and self._mean[taker] > LOSS_BORNE


class Pull:
    """Is the cast held far below what most of its takers can take? Then a few do it: with a queue, or with lies."""

    def __init__(self) -> None:
        self._took: Dict[Hashable, float] = {}  # bytes a second, by the last report of each
        self.best = 0.0  # that the median of them was
        self._low_since = math.inf

    def note(self, taker: Hashable, per_second: float) -> None:
        """It took so much since its last report."""
        self._took[taker] = per_second

    def forget(self, taker: Hashable) -> None:
        """It takes part no more."""
        self._took.pop(taker, None)

    def is_long(self, rate: float, now: float) -> bool:
        """Was the rate so low for long? To be asked once a round."""
        if self._took:
            self.best = max(self.best, statistics.median(self._took.values()))
        self._low_since = min(self._low_since, now) if rate < PULLED_PART * self.best else math.inf
        return now - self._low_since >= PULL_TIME


class CastRate:
    """The rate of one cast, in bytes per second."""

    def __init__(self) -> None:
        self.rate = RATE_FIRST
        self._is_starting = True
        self._back_to = 0.0  # below it, it rises fast
        self._held_until = -math.inf
        self._best = 0.0  # that was sent in a round
        self._worth_at = math.inf  # when it was last worth while

    def on_round(self, loss: float, sent: Optional[float], now: float, takers: int = 1) -> None:
        """The worst taker lost this part of what came in the round, in which so many bytes a second were sent.

        None: there was not always something to send, so that this says nothing of the rate.
        """
        self._best = max(self._best, sent or 0.0)
        worth = max(min(WORTH_PART, WORTH_ALL / takers) * self._best, RATE_MIN)
        if sent is None or min(sent, self.rate) > worth or self._worth_at == math.inf:
            self._worth_at = now
        if loss > LOSS_BORNE:
            self._give_way(loss, now)
        elif sent is not None and now >= self._held_until:
            most = min(sent * SENT_AHEAD, RATE_MAX)
            self.rate = max(self.rate, min(self.rate * self._growth(), most))

    def resume(self, taken: float, now: float) -> None:
        """Those who slowed it down alone take part no more; the others took so many bytes a second.

        Or they say so: nobody can have taken more than ever left.
        """
        self._back_to, self._worth_at = min(taken, self._best), now
        self.rate = max(self.rate, RESUMED * self._back_to)

    def _growth(self) -> float:
        if self._is_starting:
            return GROWTH_FIRST
        return GROWTH_BACK if self.rate < BACK * self._back_to else GROWTH

    def _give_way(self, loss: float, now: float) -> None:
        """Once for all that was lost before reports could tell of it."""
        if now < self._held_until:
            return
        self._is_starting, self._back_to = False, self.rate
        self._held_until = now + HOLD
        self.rate = max(RATE_MIN, self.rate * max(GIVING_WAY_MOST, min(GIVING_WAY, 1.0 - loss)))

    def is_hopeless(self, now: float) -> bool:
        """Has it been as slow as it can be, or far below its best, for long?"""
        return now - self._worth_at >= WORTH_TIME
