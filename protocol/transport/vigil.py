"""What a connection does while nothing comes: it asks for a sign, or for credit, and at last gives the other side up.

It joins `Liveness` (is the other side there?) and `Progress` (does it take what is sent to it?) with what is on its way
in both directions, as `Flight` and `Arrival` join what goes out and what comes in. A value with `now`.
"""

from __future__ import annotations

from typing import Optional, Tuple

from protocol.transport.liveness import IDLE_TIMEOUT, NO_PROGRESS_TIMEOUT, Liveness, Progress
from protocol.transport.packets import CloseCode
from protocol.transport.receiving import ReceiveStream
from protocol.transport.recovery import Recovery
from protocol.transport.sending import SendStream


class Vigil:
    """One side's patience with the other."""

    def __init__(
        self, sending: SendStream, receiving: ReceiveStream, recovery: Recovery, liveness: Liveness, now: float
    ) -> None:
        self.progress = Progress(sending, now)
        self._sending = sending
        self._receiving = receiving
        self._recovery = recovery
        self._liveness = liveness

    def begin(self, now: float) -> None:
        """The handshake is over: from now on the other side can speak and take something."""
        self._liveness.heard(now)
        self.progress.begin(now)

    def on_credit(self, credit: int, now: float) -> None:
        """It lets us send as far as there; an older packet that comes late may name less, and says nothing new."""
        if credit > self._sending.credit:
            self.progress.on_allowed(credit, now)
            self._sending.allow(credit)

    def next_deadline(self) -> float:
        """When one of the questions below has another answer, if nothing comes meanwhile."""
        progress = self.progress
        return min(progress.ask_at, progress.deadline, self._liveness.idle_at, self._sign_wanted_at())

    def failure(self, now: float) -> Optional[Tuple[CloseCode, str]]:
        """With which code, and why in words, to give it up; None: not yet."""
        if now >= self._liveness.idle_at:
            return CloseCode.GOING_AWAY, f"no sign of life for {IDLE_TIMEOUT:.0f} s"
        if now >= self.progress.deadline:
            return CloseCode.LIMIT, f"took nothing for {NO_PROGRESS_TIMEOUT:.0f} s"
        return None

    def is_silent(self, now: float) -> bool:
        """Was nothing said for so long that it shall give a sign?"""
        return now >= self._sign_wanted_at()

    def _sign_wanted_at(self) -> float:
        """When to ask the other side for a sign: seldom, or soon when it fell silent in the middle of a frame."""
        recovery = self._recovery
        if self._receiving.is_awaiting and not recovery.bytes_in_flight:
            return self._liveness.ask_at(recovery.last_sent_at)
        return self._liveness.keep_alive_at(recovery.last_sent_at)

    def is_credit_wanted(self, now: float) -> bool:
        """Shall it say now how far we may go? While it gives no credit it is asked ever again: its word may be lost."""
        recovery = self._recovery
        return self.progress.is_to_ask(recovery.has_outstanding(), recovery.rtt.probe_timeout, now)
