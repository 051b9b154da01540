"""One node that gives us a content: what it has, what it owes, how fast it is."""

from __future__ import annotations

import enum
import math
from typing import Any, Dict, Iterable, Optional, Sequence, Set

from protocol.exchange.picking import PieceChoice, window_of
from protocol.messages import SPAN_BYTES_MAX, PieceMap
from protocol.rates import Rate

MEASURED_AFTER = 2.0  # seconds until a source's rate is believed
ASK_OTHERS_AFTER = 3.0  # seconds without a byte: its pieces are asked elsewhere
SLOT_TAKEN_BACK_AFTER = 0.2  # seconds; who really serves keeps a slot for us longer
DROP_AFTER = 20.0  # seconds without a byte: the source is dropped
BRINGING_MIN = 8 << 10  # bytes between two looks, of a piece that is not whole yet: many sources of one who has a slow
# link need longer for a piece each than anybody is waited for
OVERDUE = 2  # times as long as a piece should take by its source's rate: then another one is asked whatever its own is
LATE_MAX = 64  # pieces that were taken back and may come all the same
SLOW_RATE, SLOW_AFTER = 64 * 1024, 15.0  # bytes per second; a source so slow for so long is dropped if there are others


class SourceState(enum.Enum):
    OPENED = 1  # the link is up, its piece map has been asked for
    READY = 2
    QUEUED = 3  # it has no upload slot for us yet


class Owed:
    """A piece asked of a source."""

    __slots__ = ("length", "received", "is_coming", "_buffer")

    def __init__(self, length: int) -> None:
        self.length = length
        self.received = 0
        self.is_coming = False  # in exchange for another one, whatever becomes of what was asked for this one
        self._buffer: Optional[bytearray] = None  # only for a piece that comes in several spans

    def add(self, data: Any) -> Optional[Any]:
        """The next bytes of it; the whole when these were the last, not copied if it came at once."""
        start, self.received = self.received, self.received + len(data)
        if self._buffer is None and self.received == self.length:
            return data
        if self._buffer is None:
            self._buffer = bytearray(self.length)
        self._buffer[start : self.received] = data
        return self._buffer if self.received == self.length else None

    def exchange(self) -> None:
        """It comes in any case, and once. One of several spans is forgotten by the source, and must be asked again."""
        self.is_coming = self.length <= SPAN_BYTES_MAX


class Source:
    """One node that gives pieces, on one link."""

    def __init__(self, link: int, node_id: bytes, label: str, now: float, is_fellow: bool = False) -> None:
        self.link = link
        self.node_id = node_id
        self.label = label
        self.is_fellow = is_fellow  # it fetches the content itself, and may have nothing of it yet
        self.takes_other = True  # it may be asked for whatever piece it has given to nobody
        self.state = SourceState.OPENED
        self.position = 0  # in its queue
        self.slot_at = -math.inf  # when it last gave us one
        self.owed: Dict[int, Owed] = {}
        self.owed_bytes = 0
        self.late: Set[int] = set()  # pieces that it owes no more, and that may come all the same
        self.rate: Optional[Rate] = None
        self.heard_at = now  # or when it last owed nothing
        self.bringing_at = -math.inf  # when bytes of a piece that is not whole were last seen to have come
        self._arrived = self._unasked = 0  # bytes of its link at the last look, and since then of what it did not owe
        self.slow_since: Optional[float] = None
        self.is_passed_over = False
        self.is_held = False  # it is about to cast
        self.news_at = now  # when it last had something new for us, or sent bytes
        self.map: Optional[PieceMap] = None  # until the pieces are known
        self.is_complete = False  # it has said that it has the whole
        self.early: Set[int] = set()  # pieces it told meanwhile
        self.is_checked = False  # it was told to let checksums cover pieces
        self.asked_unchecked: Set[int] = set()  # pieces asked before that: the link may be to blame for them
        self.is_suspect = False  # its last piece was wrong: one more at a time, until it gives a right one
        self.cause = 0  # why it cannot read what is asked for, as it has told

    # ---- what it has

    def take_as_giver(self) -> bool:
        """It has something of the content; False if that was known."""
        was_fellow, self.is_fellow = self.is_fellow, False
        return was_fellow

    def on_map(self, piece_map: PieceMap, now: float) -> bool:
        """What it has; False if that was told before."""
        if self.state is not SourceState.OPENED or self.map is not None:
            return False
        self.heard_at = self.news_at = now
        self.map, self.is_complete = piece_map, piece_map.complete
        return True

    def apply_map(self, choice: PieceChoice) -> None:
        """The pieces are known now: what it has can be chosen from."""
        if self.map is None:
            return
        choice.set_map(self.link, self.map.complete, self.map.bitmap)
        for index in self.early:
            choice.add_piece(self.link, index)
        self.map, self.early = None, set()
        if self.state is SourceState.OPENED:
            self.state = SourceState.READY

    def on_new_pieces(self, indexes: Sequence[int], choice: Optional[PieceChoice], now: float) -> bool:
        """It has these, too; is any of them news that can be chosen?"""
        if choice is None:
            self.early.update(indexes)
            return False
        news = [choice.add_piece(self.link, index) for index in indexes]
        if any(news):
            self.news_at = now
        return any(news)

    # ---- what it owes

    def may_be_asked(self) -> bool:
        return self.state is SourceState.READY and not (self.is_passed_over or self.is_held)

    def hold(self, is_held: bool) -> None:
        """It is to be asked for nothing for a moment; or that is over."""
        self.is_held = is_held

    def window(self, sources: int, piece_size: int, now: float) -> int:
        """How many bytes it may owe at once, being one of so many that may be asked."""
        if self.is_suspect:
            return piece_size
        is_measured = self.rate is not None and self.rate.age(now) >= MEASURED_AFTER
        return window_of(self.per_second(now), is_measured, sources, piece_size)

    def ask(self, index: int, length: int, now: float) -> None:
        """It is asked for this piece."""
        if not self.owed:
            self.heard_at = now
            if self.rate is None:
                self.rate = Rate(now)
        self.asked_unchecked.discard(index)
        self.owe(index, length)

    def owe(self, index: int, length: int) -> None:
        """It is to send this piece, asked for or in exchange."""
        self.owed[index] = Owed(length)
        self.late.discard(index)
        self.owed_bytes += length

    def forgive(self, index: int) -> int:
        """It owes this piece no more; the bytes of it."""
        owed = self.owed.pop(index)
        self.owed_bytes -= owed.length
        if owed.received < owed.length and len(self.late) < LATE_MAX:
            self.late.add(index)
        return owed.length

    def refuse_others(self) -> None:
        """It gave one that is not wanted: from now on it is asked for what it shall give, and nothing else."""
        self.takes_other = False

    # ---- what it sends

    def on_manifest_page(self, now: float) -> None:
        """A page of the digests, as it was asked for."""
        self.heard_at = now

    def note_sign(self, now: float) -> None:
        """Bytes came that were asked for."""
        self.heard_at = self.news_at = now
        self.is_passed_over = False

    def note_late(self, index: int, size: int, now: float) -> bool:
        """Bytes came that it does not owe; did it, once? Then they are a sign, but no more: it could have us wait."""
        self._unasked += size
        if index not in self.late:
            return False
        self.late.remove(index)
        self.note_sign(now)
        return True

    def note_arrived(self, total: int, now: float) -> None:
        """To be told at each look: so many bytes have come by its link, ever."""
        if total - self._arrived - self._unasked >= BRINGING_MIN and self.owed:
            self.bringing_at = now
        self._arrived, self._unasked = total, 0

    def count(self, size: int, now: float) -> None:
        """So many bytes of what it owes."""
        if self.rate is not None:
            self.rate.add(size, now)

    def note_right(self, index: int) -> None:
        """A piece was right; one asked before checksums covered it proves nothing."""
        if index not in self.asked_unchecked:
            self.is_suspect = False

    def note_wrong(self, asked: Iterable[int]) -> bool:
        """A piece was wrong; is it the first, so that checksums are to cover what comes after those `asked` already?"""
        self.is_suspect = True
        is_first, self.is_checked = not self.is_checked, True
        if is_first:
            self.asked_unchecked = set(asked)
        return is_first

    def on_queued(self, position: int, now: float) -> bool:
        """It has no upload slot for us, or now it has one; False if it gives and takes them back again and again."""
        if position and now - self.slot_at < SLOT_TAKEN_BACK_AFTER:
            return False
        self.heard_at, self.position = now, position
        if position:
            self.state = SourceState.QUEUED
        elif self.state is SourceState.QUEUED:
            self.state, self.slot_at = SourceState.READY, now
        return True

    def note_cause(self, cause: int) -> None:
        """It tells why it cannot read what is asked for."""
        self.cause = cause

    # ---- time

    def per_second(self, now: float) -> float:
        return self.rate.per_second(now) if self.rate else 0.0

    def is_sooner(self, size: int, owing: Source, asked_at: float, now: float) -> bool:
        """Would it bring so many bytes before that one has brought what it owes since then, by the rates of both?

        Who needs twice as long as it should may bring nothing any more; and of who gave nothing yet no rate is known.
        """
        rate, owing_rate = self.per_second(now), owing.per_second(now)
        if not rate or not owing_rate:
            return True
        expected = owing.owed_bytes / owing_rate
        return now + size / rate < asked_at + expected or now > asked_at + OVERDUE * expected

    def on_slept(self, seconds: float, now: float) -> None:
        """This node was not awake for so long: nobody was silent or slow meanwhile."""
        self.heard_at = min(self.heard_at + seconds, now)
        self.news_at = min(self.news_at + seconds, now)
        self.slow_since = None

    def is_waited_for(self) -> bool:
        """Is there anything that it should send?"""
        return bool(self.owed) or self.state is SourceState.OPENED or self.is_passed_over

    def rest(self) -> None:
        """Nothing is waited for just now: it cannot be slow either."""
        self.slow_since = None

    def pass_over(self) -> None:
        """It is silent: nothing is asked of it until it gives a sign."""
        self.is_passed_over = True

    def is_slow(self, now: float) -> bool:
        """Has it been too slow for too long?"""
        if self.per_second(now) >= SLOW_RATE:
            self.slow_since = None
        elif self.slow_since is None:
            self.slow_since = now
        return self.slow_since is not None and now - self.slow_since >= SLOW_AFTER
