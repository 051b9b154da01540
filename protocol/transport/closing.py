"""The end of a connection: what both sides say, how often, and what is known of what was delivered.

A value with `now`, which looks at both streams. Who closes says FINAL and CLOSE up to CLOSE_TRIES times, until the
other side's CLOSE is there; who is told answers once, and again only when asked (RFC 9000 §10.2). Which of the two this
side is, CLOSING or DRAINING, is the connection's state; `theirs` is set for the latter.
"""

from __future__ import annotations

import math
from typing import Optional

from protocol.transport.packets import CloseCode, ClosePacket, FinalPacket, encode_close, encode_final
from protocol.transport.receiving import ReceiveStream
from protocol.transport.recovery import PROBE_TIMEOUT_MAX
from protocol.transport.rtt import RttEstimator
from protocol.transport.sending import SendStream

CLOSE_TRIES = 3  # a probe timeout apart; then the other side counts as gone
LATE_ANSWERS_MAX = 4 * CLOSE_TRIES  # CLOSEs that packets of a remote that did not get ours can draw


class Closing:
    """What was said and heard of the end of one connection."""

    def __init__(self, sending: SendStream, receiving: ReceiveStream, rtt: RttEstimator) -> None:
        self.reason: Optional[str] = None  # this side wants it to end; None: it does not
        self.is_begun_here = False  # this side ended it, whether or not the other side did, too
        self.is_told = False  # whoever has the connection here knows of its end
        self.theirs: Optional[ClosePacket] = None
        self.received: Optional[int] = None  # what the other side has taken in, by its own last word
        self.say_at = math.inf  # when to say FINAL and CLOSE
        self.end_at = math.inf  # when not to wait any longer
        self._sending = sending
        self._receiving = receiving
        self._rtt = rtt
        self._ours: Optional[ClosePacket] = None
        self._count = 0  # CLOSEs said
        self._is_final_said = False  # since the last CLOSE
        self._is_answered = False  # their CLOSE
        self._worth_to = math.inf  # offset: what is sent behind it need not arrive

    @property
    def is_done(self) -> bool:
        """Did this side close in order, everything being delivered?"""
        return self._ours is not None and self._ours.code == CloseCode.DONE

    @property
    def undelivered(self) -> int:
        """Once it is over: bytes handed over that are not delivered, as far as `is_undelivered_sure` goes."""
        delivered = self._sending.acknowledged_to if self.received is None else self.received
        return max(0, int(min(self._sending.end, self._worth_to)) - delivered)

    @property
    def is_undelivered_sure(self) -> bool:
        """Did the other side say what it took? (Else some of it may have arrived, and the word of it was lost.)"""
        return self.received is not None or not self._sending.backlog

    @property
    def missing(self) -> int:
        """Bytes that the other side had to send when it closed, and that never became whole frames here."""
        return max(0, self.theirs.final_size - self._receiving.whole_to) if self.theirs is not None else 0

    @property
    def is_clean(self) -> bool:
        """The other side closed in order, and both got everything."""
        if self.theirs is None or self.undelivered:
            return False
        return self.theirs.code == CloseCode.DONE and self.theirs.final_size == self._receiving.next_offset

    @property
    def owes_answer(self) -> bool:
        """The other side closes, and what it took in is not known yet."""
        return self.theirs is not None and not self._is_answered

    @property
    def has_answered(self) -> bool:
        """The other side closes, and there is nothing more to say to it."""
        return self._is_answered and self.say_at == math.inf

    @property
    def _interval(self) -> float:
        """Seconds; a remote that held its acknowledgements back shall not make us remember it for minutes."""
        return min(self._rtt.probe_timeout, PROBE_TIMEOUT_MAX)

    def want(self, reason: str) -> None:
        """This side wants it to end, once everything is delivered or given up."""
        self.reason = reason

    def begin_last_word(self) -> None:
        """Whatever is sent from now on says only why it ends; if both ends close at once, neither takes that in."""
        self._worth_to = self._sending.end

    def begin(self, remote_id: bytes, code: int, reason: str, now: float) -> None:
        """This side closes first."""
        self._ours = ClosePacket(remote_id, code, self._sending.end, reason)
        self.say_at = now
        self._count = 0
        self.is_begun_here = True

    def abandon(self) -> None:
        """This side ends it without a word, unless it was over: its socket is gone."""
        self.is_begun_here = self.is_begun_here or not self.is_told

    def tell(self) -> bool:
        """Its end is to be told here; False if it was."""
        was_told, self.is_told = self.is_told, True
        return not was_told

    def on_close(self, theirs: ClosePacket) -> None:
        """The other side's CLOSE, while we close."""
        self.theirs = theirs

    def on_final(self, received: int) -> None:
        """The other side's last word on what it has taken in: it counts as acknowledged."""
        self.received = received
        self._sending.on_acknowledged(0, received)

    def drain(self, remote_id: bytes, theirs: ClosePacket, now: float) -> None:
        """The other side closes; it gets `answer` when what it took in is known."""
        self.theirs = theirs
        self._ours = ClosePacket(remote_id, CloseCode.DONE, self._sending.end, "")
        self.end_at = now + 3 * self._interval

    def answer(self, now: float) -> str:
        """Once, and again only when asked; the reason that they gave."""
        assert self.theirs is not None
        self._is_answered = True
        self.say_at = now
        self._count = CLOSE_TRIES - 1
        self.end_at = now + 3 * self._interval
        return self.theirs.reason

    def say_again(self, now: float) -> None:
        """They did not get our CLOSE: once more, but not for every packet, nor before our answer is ready."""
        if self.say_at == math.inf and self._count < LATE_ANSWERS_MAX and not self.owes_answer:
            self.say_at = now

    def next_packet(self, now: float) -> Optional[bytearray]:
        """What to say now: a FINAL with the bytes that were taken in, then the CLOSE."""
        if now < self.say_at or self._ours is None:
            return None
        if not self._is_final_said:
            self._is_final_said = True
            return encode_final(FinalPacket(self._ours.connection_id, self._receiving.whole_to))
        self._is_final_said = False  # before the next CLOSE, again
        self._count += 1
        if self.theirs is not None or self._count > CLOSE_TRIES:
            self.say_at = math.inf
        elif self._count == CLOSE_TRIES:
            self.say_at, self.end_at = math.inf, now + self._interval
        else:
            self.say_at = now + self._interval
        return encode_close(self._ours)
