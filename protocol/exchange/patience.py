"""How long a download waits for a source that it has asked: who is silent, who is slow, and what follows from it.

Who brings no piece and no bytes of one for three seconds is asked for nothing more, if another one can be; who brings
no piece for twenty is dropped, and so is who crawls while others have what it owes. Nobody is slow while the person's
own limit holds the asking back. Pure.
"""

from __future__ import annotations

import enum
import math
from typing import Collection, Optional

from protocol.exchange.picking import PieceChoice
from protocol.exchange.source import ASK_OTHERS_AFTER, DROP_AFTER, SLOW_AFTER, Source, SourceState


class Verdict(enum.Enum):
    """What is to become of a source, in the words that a person may be told."""

    SILENT = "sends nothing"
    SLOW = "is too slow"
    PASS_OVER = "asks others"


class Patience:
    """The patience of one download."""

    def __init__(self) -> None:
        self._held_back_at = -math.inf  # when the limit last let nothing be asked

    def on_held_back(self, now: float) -> None:
        """The limit of what is fetched lets nothing be asked just now."""
        self._held_back_at = now

    def judge(
        self, source: Source, sources: Collection[Source], choice: Optional[PieceChoice], now: float
    ) -> Optional[Verdict]:
        """Looked at about once a second; None: it is waited for."""
        silent = now - source.heard_at
        if not source.is_waited_for():
            source.rest()
            return None
        if now - self._held_back_at < SLOW_AFTER:
            source.rest()  # it is asked for no more than the limit lets pass
        if silent >= DROP_AFTER:
            return Verdict.SILENT
        still = min(silent, now - source.bringing_at)
        if still >= ASK_OTHERS_AFTER and source.owed and has_others(source, sources, choice):
            return Verdict.PASS_OVER
        if source.owed and source.is_slow(now) and has_others(source, sources, choice):
            return Verdict.SLOW
        return None


def has_others(source: Source, sources: Collection[Source], choice: Optional[PieceChoice]) -> bool:
    """Is there another source that would serve us?"""
    if choice is None:
        return False
    others = [one for one in sources if one is not source and not one.is_passed_over]
    return any(one.state is SourceState.READY and choice.is_useful(one.link) for one in others)
