"""Is the other side still there, and does it take what is sent to it? Values with `now`.

Liveness   who was heard when: idle timeout and keep-alive (RFC 9000 §10.1)
Progress   what it took when; and the questions to one that gives no credit
"""

from __future__ import annotations

import math

from protocol.transport.sending import SendStream

IDLE_TIMEOUT = 30.0  # seconds without any packet
KEEP_ALIVE_INTERVAL = 10.0  # seconds: one may be lost, and the next still comes before IDLE_TIMEOUT
KEEP_ALIVE_GRID = 0.25  # seconds: at whose multiples the connections of an endpoint wake it together
# Seconds of silence in the middle of a frame, until the rest is asked for: a router may have forgotten this side, and
# who speaks shows where he is.
SILENCE = 1.0
NO_PROGRESS_TIMEOUT = 60.0  # seconds that a remote may leave our data unacknowledged or unread
# Bytes to be taken in that time, or all that waited when it began: a byte now and then is none (RFC 9000 §21.6).
PROGRESS_LEAST = 16 << 10
BLOCKED_PROBE_MAX = 5.0  # seconds between questions to a remote that gives no credit


class Liveness:
    """When packets last came."""

    __slots__ = ("heard_at", "_interval")

    def __init__(self, is_client: bool, now: float) -> None:
        # The other end asks first, and is heard.
        self._interval = (1.0 if is_client else 1.25) * KEEP_ALIVE_INTERVAL
        self.heard_at = now  # when a packet of the other side last came

    def heard(self, now: float) -> None:
        """A packet of the other side came, whatever stands in it."""
        self.heard_at = now

    @property
    def idle_at(self) -> float:
        """Then it counts as gone."""
        return self.heard_at + IDLE_TIMEOUT

    def ask_at(self, spoke_at: float) -> float:
        """When to ask where the rest of what came half stays."""
        return max(self.heard_at, spoke_at) + SILENCE

    def keep_alive_at(self, spoke_at: float) -> float:
        """When to ask for a sign: all in step, so that a thousand idle connections share a few wake-ups."""
        return math.ceil((max(self.heard_at, spoke_at) + self._interval) / KEEP_ALIVE_GRID) * KEEP_ALIVE_GRID


class Progress:
    """When the other side last took a good part of what waits for it."""

    __slots__ = ("ask_at", "at", "_ask_interval", "_goal", "_sending")

    def __init__(self, sending: SendStream, now: float) -> None:
        self.at = now
        self.ask_at = math.inf  # when to ask for credit
        self._sending = sending
        self._goal = 0  # stream offset that must be acknowledged for the next progress
        self._ask_interval = 0.0

    def begin(self, now: float) -> None:
        """The handshake is over: from now on it can take something."""
        self.at = now

    def note(self, now: float) -> None:
        """It took enough, or there is something for it from now on: of what waits it shall take some more."""
        self.at = now
        self._goal = min(self._sending.acknowledged_to + PROGRESS_LEAST, self._sending.end)

    def on_acknowledged(self, now: float) -> None:
        """Something was acknowledged: was it enough to count?"""
        if self._sending.acknowledged_to >= self._goal:
            self.note(now)

    @property
    def deadline(self) -> float:
        """Then it has taken nothing for too long; infinite while there is nothing for it."""
        return self.at + NO_PROGRESS_TIMEOUT if self._sending.backlog else math.inf

    def on_allowed(self, credit: int, now: float) -> None:
        """It lets us send on, up to a higher offset than before."""
        # Room to go on is progress when it was what we waited for; with data on its way, words cost nothing.
        sending = self._sending
        was_waited_for = sending.acknowledged_to == sending.sent_to
        if was_waited_for and credit - sending.credit >= PROGRESS_LEAST:
            self.note(now)
        self.on_credit()

    def on_credit(self) -> None:
        """It gave some: there is nothing to ask."""
        self.ask_at = math.inf
        self._ask_interval = 0.0

    def is_to_ask(self, is_under_way: bool, probe_timeout: float, now: float) -> bool:
        """Ask it for credit now? While it gives none it is asked from time to time: its word may have been lost.

        `is_under_way`: something is, whose acknowledgement will tell the credit, too.
        """
        if is_under_way or not self._sending.is_blocked():
            self.ask_at = math.inf
        elif self.ask_at == math.inf:
            self._ask_interval = min(max(2 * self._ask_interval, probe_timeout), BLOCKED_PROBE_MAX)
            self.ask_at = now + self._ask_interval
        elif now >= self.ask_at:
            self.ask_at = math.inf
            return True
        return False
