"""The end of a connection: what both sides say, how often, and what is known of what was delivered.

A value with `now`. Who closes says FINAL and CLOSE up to CLOSE_TRIES times, until the other side's CLOSE is there; who
is told answers once, and again only when asked (RFC 9000 §10.2). Which of the two this side is, CLOSING or DRAINING,
is the connection's state; `theirs` is set for the latter.
"""

from __future__ import annotations

import math
from typing import Optional

from protocol.transport import packets as wire
from protocol.transport.packets import CloseCode, ClosePacket

CLOSE_TRIES = 3
LATE_ANSWERS_MAX = 4 * CLOSE_TRIES  # CLOSEs that packets of a remote that did not get ours can draw


class Closing:
    """What was said and heard of the end of one connection."""

    __slots__ = (
        "end_at",
        "is_begun_here",
        "reason",
        "received",
        "say_at",
        "theirs",
        "_count",
        "_is_final_said",
        "_ours",
    )

    def __init__(self) -> None:
        self.reason: Optional[str] = None  # this side wants it to end; None: it does not
        self.is_begun_here = False  # this side ended it, whether or not the other side did, too
        self.theirs: Optional[ClosePacket] = None
        self.received: Optional[int] = None  # what the other side has taken in, by its own last word
        self.say_at = math.inf  # when to say FINAL and CLOSE
        self.end_at = math.inf  # when not to wait any longer
        self._ours: Optional[ClosePacket] = None
        self._count = 0  # CLOSEs said
        self._is_final_said = False  # since the last CLOSE

    @property
    def is_done(self) -> bool:
        """Did this side close in order, everything being delivered?"""
        return self._ours is not None and self._ours.code == CloseCode.DONE

    def want(self, reason: str) -> None:
        """This side wants it to end, once everything is delivered or given up."""
        self.reason = reason

    def begin(self, ours: ClosePacket, now: float) -> None:
        """This side closes first."""
        self._ours = ours
        self.say_at = now
        self._count = 0
        self.is_begun_here = True

    def abandon(self) -> None:
        """This side ends it without a word: its socket is gone."""
        self.is_begun_here = True

    def on_close(self, theirs: ClosePacket) -> None:
        """The other side's CLOSE, while we close."""
        self.theirs = theirs

    def on_final(self, received: int) -> None:
        """The other side's last word on what it has taken in."""
        self.received = received

    def drain(self, theirs: ClosePacket, ours: ClosePacket, interval: float, now: float) -> None:
        """The other side closes; it gets `answer` when what it took in is known."""
        self.theirs = theirs
        self._ours = ours
        self.end_at = now + 3 * interval

    def answer(self, interval: float, now: float) -> None:
        """Once; and again only when asked."""
        self.say_at = now
        self._count = CLOSE_TRIES - 1
        self.end_at = now + 3 * interval

    def say_again(self, now: float) -> None:
        """They did not get our CLOSE: once more, but not for every packet."""
        if self.say_at == math.inf and self._count < LATE_ANSWERS_MAX:
            self.say_at = now

    def next_packet(self, whole_to: int, interval: float, now: float) -> Optional[bytearray]:
        """What to say now: a FINAL with the bytes that were taken in, then the CLOSE."""
        if now < self.say_at or self._ours is None:
            return None
        if not self._is_final_said:
            self._is_final_said = True
            return wire.encode_final(wire.FinalPacket(self._ours.connection_id, whole_to))
        self._is_final_said = False  # before the next CLOSE, again
        self._count += 1
        if self.theirs is not None or self._count > CLOSE_TRIES:
            self.say_at = math.inf
        elif self._count == CLOSE_TRIES:
            self.say_at, self.end_at = math.inf, now + interval
        else:
            self.say_at = now + interval
        return wire.encode_close(self._ours)
