"""Climbs and drains: how `CubicQ` asks a path that shows no queue for more, and a queue whether it is its own.

    Climb   the window grows from round to round as long as the delivery grows with it; else back to where it was
    Drain   the window is small for two round trips: does the queue go away with us?

Values: they say when they begin and end and what they saw; the window is `CubicQ`'s.
"""

from __future__ import annotations

import math
from typing import Optional

from protocol.transport.congestion import Acknowledged
from protocol.transport.evidence import Round


class Climb:
    """The climb under way, if one is, and when the next may begin."""

    STEPS = (1 / 16, 1 / 16, 1 / 8, 1 / 8, 1 / 4)  # of the window in each round of a climb; the last goes on
    STEP_ROUNDS = 3  # after which the delivery must have grown
    GAIN = 1.08  # by so much; where others fill the queue only who has less than half gains it by a fifth more window
    AGAIN = 1.0  # seconds, and as many as AGAIN_ROUNDS last, from a reaction or a climb to the next
    AGAIN_MAX = 8.0  # seconds, when climb after climb finds nothing
    AGAIN_ROUNDS = 8

    def __init__(self) -> None:
        self.is_in_queue = False  # others fill the queue, too: is our share less than theirs?
        self.after = 0.0  # the instant of the next
        self._round = -1  # rounds that the climb under way has lasted; -1: there is none
        self._from = 0.0  # the window to go back to, bytes
        self._rate = 0.0  # highest before this step of STEP_ROUNDS
        self._rest = self.AGAIN / 2  # seconds between two

    @property
    def is_on(self) -> bool:
        """Is a climb under way?"""
        return self._round >= 0

    @property
    def step(self) -> float:
        """The part of what is acknowledged by which the window grows now."""
        return self.STEPS[0 if self.is_in_queue else min(self._round, len(self.STEPS) - 1)]

    @property
    def is_step_over(self) -> bool:
        """Has the window grown for the STEP_ROUNDS after which what it brought is judged?"""
        return self._round % self.STEP_ROUNDS == 0

    def begin(self, window: float, rate: float, is_in_queue: bool) -> None:
        """From that window (bytes), at that rate (bytes per second); `is_in_queue`: others fill the queue already."""
        self._round, self._from, self._rate = 0, window, rate
        self.is_in_queue = is_in_queue

    def goes_on(self, rate: float, is_calm: bool, has_loss: bool) -> bool:
        """A round is over: did the delivery grow, with no queue and no loss?"""
        self._round += 1
        is_in_vain = self.is_step_over and rate <= self.GAIN * self._rate
        return (is_calm or self.is_in_queue) and not has_loss and not is_in_vain

    def hold(self, window: float, rate: float) -> None:
        """A step has brought more: the path is known to hold that window."""
        self._rate = rate
        self._from = max(self._from, window)
        self._rest = self.AGAIN

    def end(self, window: float) -> float:
        """It found nothing, or the end: the window to go on with."""
        self.stop()
        self._rest = min(2 * self._rest, self.AGAIN_MAX)
        return min(window, self._from)

    def stop(self) -> None:
        """There is none under way."""
        self._round = -1

    def rest(self, now: float, base_rtt: float) -> None:
        """Not before some time."""
        self.after = now + max(self._rest, self.AGAIN_ROUNDS * base_rtt)

    def put_off(self, until: float) -> None:
        """None begins before that instant."""
        self.after = until

    def forget_failures(self) -> None:
        """The path is another one, or our share of it."""
        self._rest = self.AGAIN


class Drain:
    """The drain under way, if one is, and what it shows."""

    AGAIN = 20.0  # seconds between two drains
    HOLD = 0.100  # seconds
    MOST = 2.0  # seconds

    def __init__(self) -> None:
        self.window_before = 0.0
        self.ended_at = -math.inf
        self._until: Optional[float] = None  # inf: the window has not emptied yet
        self._began_at = 0.0
        self._rtt_before = 0.0  # smoothed
        self._seen = Round()  # the round trips in it, once the old window has emptied

    @property
    def is_on(self) -> bool:
        """Is a drain under way?"""
        return self._until is not None

    @property
    def lowest_rtt(self) -> float:
        """What the round trip came down to."""
        return min(self._seen.min_rtt, self._rtt_before)

    def is_queue_gone(self, base_rtt: float, queue_threshold: float) -> bool:
        """Did nearly all of the queue that stood there go away? Then it was ours alone.

        The lowest of a few is as much above the path's own as these differ: on a path with jitter that is no queue.
        """
        standing = max(0.0, self._rtt_before - base_rtt)
        return self.lowest_rtt <= base_rtt + 0.1 * standing + queue_threshold + self._seen.spread

    def is_due(self, now: float) -> bool:
        """Has the last one ended long enough ago?"""
        return now - self.ended_at > self.AGAIN

    def begin(self, window: float, smoothed_rtt: float, now: float) -> None:
        """The window is about to be made smaller than that one (bytes), until the queue should be gone."""
        self.window_before, self._rtt_before = window, smoothed_rtt
        self._until = math.inf
        self._began_at = now
        self._seen = Round()

    def on_acknowledged(self, ack: Acknowledged, window: float, base_rtt: float) -> bool:
        """Is it over with this acknowledgement? The round trip counts once the old window has emptied."""
        assert self._until is not None
        if self._until == math.inf:
            if ack.bytes_in_flight <= window or ack.now - self._began_at > self.MOST:
                self._until = ack.now + max(self.HOLD, base_rtt)
            return False
        if ack.rtt is not None:
            self._seen.note_rtt(ack.rtt)
        return ack.now >= self._until

    def end(self, now: float) -> None:
        """The queue had its time to go; the next drain comes some seconds later."""
        self.stop()
        self.ended_at = now

    def recall(self, ended_at: float) -> None:
        """The last one was broken off for nothing, and has shown nothing: the one before it counts, that ended then."""
        self.ended_at = ended_at

    def stop(self) -> None:
        """There is none under way."""
        self._until = None
