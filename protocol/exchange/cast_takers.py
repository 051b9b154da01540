"""One who takes a cast, as its caster knows it: what it lacks and reports, and what it may have sent again. Pure."""

from __future__ import annotations

from typing import Any, List, Optional, Tuple

from protocol.content.pieces import has_piece
from protocol.messages import CastTaken
from protocol.rates import Bucket

LOOKS = 20_000  # slices a second that one taker may have missed, and at once: each is looked up, and one message may
# name 370,000, again and again
ASKED_MORE_MAX = 6144  # slices that a taker may miss beyond what it says was lost: what came before it took part, or
# found no room with it. For more it is not sent anew to all


class Taker:
    """One who takes part, or was offered to."""

    def __init__(self, link: int, node_id: bytes, host: str, now: float) -> None:
        self.link = link
        self.node_id = node_id
        self.host = host
        self.missing: Optional[bytes] = None  # from when it is ready on
        self.heard_at = now
        self.slow = 0  # reports in a row by which it took much less than the others
        self._looks = Bucket(LOOKS, LOOKS, now)
        self._highest = 0  # number of a slice that it has seen
        self._owed = ASKED_MORE_MAX  # slices that may be sent again for it

    @property
    def is_ready(self) -> bool:
        return self.missing is not None

    def be_ready(self, missing: bytes, now: float) -> None:
        """It hears the cast, and has not these pieces."""
        self.missing, self.heard_at = missing, now

    def hear(self, now: float) -> float:
        """It says something; seconds since it last did."""
        since, self.heard_at = now - self.heard_at, now
        return since

    def note_slow(self, is_slow: bool) -> None:
        """Did it take much less than the others, by its last report?"""
        self.slow = self.slow + 1 if is_slow else 0

    def lacks(self, piece: int) -> bool:
        """Did it say that it has not that piece?"""
        return piece >> 3 < len(self.missing or b"") and has_piece(self.missing or b"", piece)

    def told_by(self, message: CastTaken, sent: int) -> Tuple[int, int]:
        """Slices that it took and lost since its last report, no more than there were; `sent`: of all so far.

        What was lost may be sent again for it.
        """
        came = max(0, min(message.highest, sent) - self._highest)
        self._highest += came
        lost = min(message.lost, came)
        self._owed += lost
        return min(message.received, came), lost

    def tell_left_out(self, slices: int) -> None:
        """So many that it misses had been left out on purpose (`cast_trials.py`)."""
        self._owed += slices

    def owe(self, slices: int) -> bool:
        """So many are sent again for it; False when these are more than it can have lost."""
        self._owed -= slices
        return self._owed >= 0

    def missed(self, holes: Tuple[Any, ...], slices_each: int, now: float) -> List[Any]:
        """Those of these that it may have looked up by now; what else it misses it tells again by its next report."""
        return [hole for hole in holes if self._looks.take(now, max(1, min(hole.slices, slices_each)))]
