"""One content on its way to many: who takes part and what each misses, what is sent next, and what once more.

A value with `now`; `Casting` (`casting.py`) has one for each cast, and does what it says. Pure.
"""

from __future__ import annotations

import math
import random
from collections import OrderedDict
from typing import Any, Dict, Iterable, List, Optional, Set

from protocol.casts import slice_size_of, slices_of
from protocol.content.pieces import piece_length, piece_size_of
from protocol.exchange.cast_rate import CastRate, Losses, Pull
from protocol.exchange.cast_takers import Taker
from protocol.exchange.cast_trials import Trials
from protocol.exchange.picking import bitmap_of, bits_of
from protocol.latest import Latest

INTERVAL_MIN, INTERVAL_EACH = 0.1, 0.004  # seconds between two reports of a taker: for many longer, so that all their
# reports together stay far below what is cast (RFC 5740 calls it feedback implosion)
RECENT_MAX = 12 << 20  # bytes of pieces kept in memory to send parts of them again
AGAIN_MAX = 1 << 16  # slices of which is remembered when they were sent again: more than are ever on their way
AFTER_MIN = 5.0  # seconds, or as long as the pass took, in which what was missed is sent again: who reports for ever
# that something is missing would hold a cast, and all uploads beside it, for ever


class Cast:
    """One content on its way to many."""

    def __init__(
        self, session: bytes, file_id: bytes, size: int, rng: random.Random, now: float, is_six: bool = False
    ) -> None:
        self.session = session
        self.file_id = file_id
        self.size = size
        self.takers: Dict[int, Taker] = {}  # by link
        self.rate = CastRate()
        self.losses = Losses()
        self.pull = Pull()
        self.trials = Trials(rng)
        self.is_begun = False
        self.handed = 0  # bytes given to the network
        self.reading = 0  # bytes asked of the disk
        self.next = 0  # the next piece of the one pass
        self.repaired = 0  # slices sent again
        self.piece_size = piece_size_of(size)
        self.count = -(-size // self.piece_size)
        self.is_six = is_six
        self.slice_size = slice_size_of(is_six)
        self.slices_each = slices_of(self.piece_size, self.slice_size)
        self.coming = bytearray(self.count)  # 1: this piece is wanted, and yet to be sent
        self.repairs: OrderedDict[int, Set[int]] = OrderedDict()  # piece -> slices to be sent again
        self.began_at = now
        self.third_at: Optional[float] = None  # when the third was ready
        self.begun_at = self.passed_at = math.inf  # when the one pass began, and when all of it was handed over
        self.looked_at = now  # and what had left by then
        self.looked_sent = 0
        self.sent = 0  # slices handed over so far: the number of the last one
        self._numbers: Dict[int, int] = {}  # piece -> number of the last slice of it, when it was sent whole
        self._again: Latest[int, int] = Latest(AGAIN_MAX)  # slice -> the number by which it was sent again last
        self._recent: OrderedDict[int, bytes] = OrderedDict()
        self._recent_size = 0

    # ---- who takes part

    def ready(self) -> List[Taker]:
        return [taker for taker in self.takers.values() if taker.is_ready]

    def hosts(self) -> Set[str]:
        """Of those who take part."""
        return {taker.host for taker in self.ready()}

    def choose(self) -> int:
        """Mark what two hosts or more want; the bytes of it."""
        wants: List[Set[str]] = [set() for _ in range(self.count)]
        for taker in self.ready():
            for index in bits_of(taker.missing or b"", self.count):
                wants[index].add(taker.host)
        for index, wanted in enumerate(wants):
            self.coming[index] = len(wanted) >= 2
        return sum(self.coming) * self.piece_size

    def who_lack(self, piece: int) -> List[int]:
        """The links of those who take part and lack that piece."""
        return [taker.link for taker in self.ready() if taker.lacks(piece)]

    def coming_to(self, taker: Taker) -> bytes:
        """Of what it has not, the pieces that are yet to be sent."""
        missing = bits_of(taker.missing or b"", self.count)
        return bitmap_of((index for index in missing if self.coming[index]), self.count)

    def bitmap(self) -> bytes:
        """The pieces that are yet to be sent."""
        return bitmap_of((index for index in range(self.count) if self.coming[index]), self.count)

    def is_over(self, now: float) -> bool:
        """Was there time enough behind the pass for all that was missed?"""
        return now - self.passed_at >= max(AFTER_MIN, self.passed_at - self.begun_at)

    def interval_ms(self) -> int:
        """Between two reports of a taker."""
        return int(1000 * (INTERVAL_MIN + INTERVAL_EACH * len(self.takers)))

    def note_third(self, now: float) -> None:
        """There are enough now; counted from when that was so first."""
        self.third_at = now if self.third_at is None else self.third_at

    def begin(self, now: float) -> None:
        """The pass begins."""
        self.is_begun = True
        self.looked_at = self.begun_at = now

    # ---- what is sent next

    def take_next(self, now: float) -> Optional[int]:
        """The next piece of the pass, which is then no longer to come; None: the pass is over."""
        self.next = self.coming.find(1, self.next)
        if self.next < 0:
            self.next = self.count
            self.passed_at = min(self.passed_at, now)
            return None
        self.coming[self.next] = 0
        return self.next

    def front_behind(self, piece: int) -> int:
        """All slices below this were sent once, when that piece was."""
        following = self.coming.find(1, piece)
        return (following if following >= 0 else self.count) * self.slices_each

    def keep(self, piece: int, data: bytes) -> None:
        """It may have to be sent again, in part, and soon."""
        if piece not in self._recent:
            self._recent[piece] = data
            self._recent_size += len(data)
        while self._recent_size > RECENT_MAX:
            self._recent_size -= len(self._recent.popitem(last=False)[1])

    def kept(self, piece: int) -> Optional[bytes]:
        return self._recent.get(piece)

    def note_reading(self, change: int) -> None:
        """So many bytes more are asked of the disk; less, with a negative number."""
        self.reading += change

    def sent_per_second(self, backlog: int, now: float) -> float:
        """Bytes a second that left since this was asked last; so many that were handed over still wait."""
        sent = self.handed - backlog
        per_second = (sent - self.looked_sent) / max(now - self.looked_at, 1e-3)
        self.looked_at, self.looked_sent = now, sent
        return per_second

    def note_handed(self, piece: int, size: int) -> None:
        """That piece of so many bytes is on its way."""
        self.handed += size
        self.sent += slices_of(size, self.slice_size)
        self._numbers[piece] = self.sent

    def note_again(self, piece: int, start: int, size: int) -> None:
        """So many bytes of that piece, from that slice on, are on their way once more."""
        self.handed += size
        first, slices = piece * self.slices_each + start, slices_of(size, self.slice_size)
        self.repaired += slices
        for index in range(first, first + slices):
            self.sent += 1
            self._again.put(index, self.sent)

    def add_holes(self, highest: int, holes: Iterable[Any]) -> int:
        """Somebody has missed these slices, having seen all up to that number: what left later may still come.

        How many of them are sent again just for that.
        """
        added = 0
        for first, slices in holes:
            piece, start = divmod(first, self.slices_each)
            if self._numbers.get(piece, math.inf) > highest:
                continue
            behind = min(start + slices, slices_of(piece_length(self.size, piece), self.slice_size))
            base = first - start
            missing = [index for index in range(start, behind) if self._again.get(base + index, 0) <= highest]
            if missing:
                repairs = self.repairs.setdefault(piece, set())
                known = len(repairs)
                repairs.update(missing)
                added += len(repairs) - known
        return added
