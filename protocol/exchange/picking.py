"""Which piece is asked of which source next, and how much of one source at once: no bytes of files, no clock. Pure.

`PieceChoice` knows which pieces are verified, which are asked of whom, and who has what. The rarest piece comes
first. Equally rare ones come in short runs, so that a disk reads forwards, and the runs at random, so that many who
fetch one file at once fetch different parts and can give them to each other. A piece is asked of one source,
except in the endgame: when nothing is left to ask, a source with room is asked for what another has owed for long.
"""

from __future__ import annotations

import itertools
import math
import random
from typing import Callable, Dict, Hashable, Iterable, Iterator, List, NamedTuple, Optional, Tuple

from protocol.content.pieces import set_piece

MIB = 1 << 20
REQUESTS_PER_LINK_MAX = 32  # THREATS: E06
IN_FLIGHT_BYTES_MAX = 16 * MIB  # asked or not yet written, for one download: what it may hold in memory
# What is asked early is chosen when little is known of who will have what: so no more than keeps a source busy.
SOURCE_WINDOW_MIN = MIB  # asked of the only source before its rate is known
SOURCE_WINDOW_SECONDS = 0.5  # worth of its measured rate
SOURCE_PIECES_MIN, ONLY_SOURCE_PIECES_MIN = 2, 4  # of one among several, and of the only one: one is on its way
ENDGAME_AFTER = 0.5  # a piece owed for so long may be asked of a second source
ASKED_SOURCES_MAX = 2  # of how many one piece may be asked at once
RESORT_SECONDS_EACH = 0.00025  # rarity changes all the time; the order follows after so long for each piece there is
RUN_PIECES = 4  # that are asked in the file's order
CAST, NOT_DUE = -1, 1e18  # a source that no link is: a cast (catching.py), which nobody is asked in the place of

Source = Hashable


def window_of(rate: float, is_measured: bool, sources: int, piece_size: int) -> int:
    """How many bytes may be asked of one source at once.

    A slow source among others gets no more than it can send in half a second: what it owes delays the end.
    """
    window = int(rate * SOURCE_WINDOW_SECONDS)
    if sources <= 1:
        window = max(window, SOURCE_WINDOW_MIN, ONLY_SOURCE_PIECES_MIN * piece_size)
    elif not is_measured:
        window = max(window, SOURCE_PIECES_MIN * piece_size)
    window = min(window, IN_FLIGHT_BYTES_MAX // max(1, sources))
    return max(window, piece_size)


def in_flight_limit(piece_size: int) -> int:
    """Bytes in flight for a whole download; two pieces at least, so that one can travel while one is written."""
    return max(IN_FLIGHT_BYTES_MAX, 2 * piece_size)


def bits_of(bitmap: bytes, count: int) -> Iterator[int]:
    """Indexes of the set bits, most significant first, below `count`."""
    for place, byte in enumerate(bitmap):
        if byte:
            for bit in range(8):
                if byte & (0x80 >> bit) and place * 8 + bit < count:
                    yield place * 8 + bit


def bitmap_of(indexes: Iterable[int], count: int) -> bytes:
    """The bitmap of `count` bits in which these are set, as a PieceMap has it."""
    bitmap = bytearray((count + 7) // 8)
    for index in indexes:
        set_piece(bitmap, index)
    return bytes(bitmap)


class Asked(NamedTuple):
    source: Source
    at: float


class _Held:
    """What one source has, and in which order to ask it."""

    def __init__(self, count: int, is_complete: bool) -> None:
        self.is_complete = is_complete
        self.has = bytearray(b"\x01" * count if is_complete else bytes(count))
        self.order: List[int] = []  # the next one last
        self.is_stale = True
        self.sorted_at = -math.inf


class PieceChoice:
    """The pieces of one content: verified, asked, missing; and who has which."""

    def __init__(self, count: int, verified: bytes, rng: random.Random, in_order: bool = False) -> None:
        self.count = count
        self._in_order = in_order  # the first one first, for who takes them as a stream
        self.is_verified = bytearray(count)
        for index in bits_of(verified, count):
            self.is_verified[index] = 1
        self.missing = count - sum(self.is_verified)
        self.asked: Dict[int, List[Asked]] = {}
        self._held: Dict[Source, _Held] = {}
        self._rarity = [0] * count  # how many incomplete sources have it; complete ones add the same to all
        self._place = self._places(rng)  # of each piece, among equally rare ones
        self._resort_interval = count * RESORT_SECONDS_EACH
        self._due_at = -math.inf  # before it nobody is asked for what another one was asked for

    def _places(self, rng: random.Random) -> List[int]:
        if self._in_order:
            return list(range(self.count))
        runs = list(range(0, self.count, RUN_PIECES))
        rng.shuffle(runs)
        places = [0] * self.count
        order = (index for run in runs for index in range(run, min(run + RUN_PIECES, self.count)))
        for place, index in enumerate(order):
            places[index] = place
        return places

    # ---- who has what

    def set_map(self, source: Source, is_complete: bool, bitmap: bytes = b"") -> None:
        """The source has told all that it has."""
        self.remove_map(source)
        held = self._held[source] = _Held(self.count, is_complete)
        if is_complete:
            return
        for index in bits_of(bitmap, self.count):
            held.has[index] = 1
            self._rarity[index] += 1
        self._mark_stale()

    def add_piece(self, source: Source, index: int) -> bool:
        """The source has one piece more; was that news?"""
        held = self._held.get(source)
        if held is None or not 0 <= index < self.count or held.has[index]:
            return False
        held.has[index] = 1
        self._rarity[index] += 1
        if self._is_open(index):
            held.order.append(index)
        self._mark_stale()
        return True

    def is_rare(self, index: int) -> bool:
        """Has none of those who fetch it, too, told that it has this piece?"""
        return not self._rarity[index]

    def remove_piece(self, source: Source, index: int) -> None:
        """The source said that it does not have it after all."""
        held = self._held.get(source)
        if held is not None and 0 <= index < self.count and held.has[index]:
            held.has[index] = 0
            if not held.is_complete:
                self._rarity[index] -= 1

    def remove_map(self, source: Source) -> None:
        """The source is gone: what it had is as rare as without it."""
        held = self._held.pop(source, None)
        if held is not None and not held.is_complete:
            for index in range(self.count):
                self._rarity[index] -= held.has[index]
            self._mark_stale()

    def is_useful(self, source: Source) -> bool:
        """Has it told what it has, and is anything of it missing here?"""
        held = self._held.get(source)
        if held is None or not self.missing:
            return False
        if held.is_complete:
            return True
        return any(has and not mine for has, mine in zip(held.has, self.is_verified))

    def _mark_stale(self) -> None:
        for held in self._held.values():
            held.is_stale = True

    # ---- asking

    def has_something(self, now: float) -> bool:
        """Might somebody be asked for a piece now?"""
        return len(self.asked) < self.missing or now >= self._due_at

    def choose(
        self, source: Source, now: float, is_sooner: Callable[[Asked], bool] = lambda _: True
    ) -> Optional[int]:
        """The piece to ask this source for now, marked as asked; None if there is none.

        `is_sooner`: would it bring a piece sooner than another source, which has owed it for long?
        """
        held = self._held.get(source)
        if held is None:
            return None
        if held.is_stale and now >= held.sorted_at + self._resort_interval:
            self._sort(held, now)
        index = self._next_open(held)
        if index is None:
            index = self._endgame(source, held, now, is_sooner)
        if index is not None:
            self._note_asked(self.asked.setdefault(index, []), source, now)
        return index

    def _note_asked(self, asked: List[Asked], source: Source, now: float) -> None:
        asked.append(Asked(source, now))
        self._due_at = min(self._due_at, now + ENDGAME_AFTER)

    def _sort(self, held: _Held, now: float) -> None:
        """Put what this source has and nobody is asked for in order, the next piece last."""
        # For each piece that is asked for, as a rule: so the loops are those of the interpreter.
        is_verified, asked = self.is_verified, self.asked
        has = itertools.compress(range(self.count), held.has)
        held.order = [index for index in has if not is_verified[index] and index not in asked]
        if self._in_order:
            held.order.reverse()
        else:
            ranks = [rarity * self.count + place for rarity, place in zip(self._rarity, self._place)]
            held.order.sort(key=ranks.__getitem__, reverse=True)
        held.is_stale = False
        held.sorted_at = now

    def _next_open(self, held: _Held) -> Optional[int]:
        while held.order:
            index = held.order.pop()
            if held.has[index] and self._is_open(index):
                return index
        return None

    def _is_open(self, index: int) -> bool:
        return not self.is_verified[index] and index not in self.asked

    def _endgame(
        self, source: Source, held: _Held, now: float, is_sooner: Callable[[Asked], bool]
    ) -> Optional[int]:
        """Of what others were asked for, the piece that is due longest, if this source would bring it sooner."""
        if len(self.asked) < self.missing or now < self._due_at:
            return None  # something is still unasked, though this source does not have it; or all was asked just now
        due: List[Tuple[float, int]] = []
        for index, asked in self.asked.items():
            is_due = len(asked) < ASKED_SOURCES_MAX and asked[0].at <= now - ENDGAME_AFTER
            if is_due and held.has[index] and all(one.source != source for one in asked) and is_sooner(asked[0]):
                due.append((asked[0].at, index))
        if not due:
            self._due_at = min((asked[0].at for asked in self.asked.values()), default=math.inf) + ENDGAME_AFTER
        return min(due)[1] if due else None

    def swap(self, source: Source, index: int, other: int, now: float) -> bool:
        """The source gives another piece than it was asked for; is that one missing, and asked of nobody?"""
        self.release(source, index)
        if not 0 <= other < self.count or not self._is_open(other):
            return False
        asked = self.asked[other] = []
        self._note_asked(asked, source, now)
        return True

    def asked_of(self, source: Source) -> List[int]:
        """The pieces that were asked of this source and are not verified yet."""
        return [index for index, asked in self.asked.items() if any(one.source == source for one in asked)]

    def release(self, source: Source, index: int) -> None:
        """The source will not send this piece: another one may be asked."""
        asked = self.asked.get(index)
        if asked is None:
            return
        asked[:] = [one for one in asked if one.source != source]
        if not asked:
            del self.asked[index]
            self._reopen(index)

    def _reopen(self, index: int) -> None:
        for held in self._held.values():
            if held.has[index]:
                held.order.append(index)

    def await_cast(self, index: int) -> bool:
        """It comes by a cast: nobody is asked for it, until that is over. False if it is here, or about to be."""
        if not self.is_wanted(index):
            return False
        self.asked[index] = [Asked(CAST, NOT_DUE)]
        return True

    def end_cast(self) -> None:
        """What was to come by a cast and has not may be asked for."""
        for index in [index for index, asked in self.asked.items() if asked[0] == (CAST, NOT_DUE)]:
            self.release(CAST, index)

    def settle(self, source: Source, index: int) -> None:
        """All bytes of the piece came from there, asked or not, and go to the disk: nobody else need be asked."""
        asked = self.asked.setdefault(index, [])
        if not any(one.source == source for one in asked):
            asked.insert(0, Asked(source, math.inf))
        asked[0] = Asked(asked[0].source, math.inf)

    def is_wanted(self, index: int) -> bool:
        """Is it neither here nor on its way to the disk?"""
        return not self.is_verified[index] and not self.is_settled(index)

    def is_settled(self, index: int) -> bool:
        """Is the piece here, and on its way to the disk?"""
        asked = self.asked.get(index)
        return bool(asked) and asked[0].at == math.inf  # type: ignore[index]

    def reopen(self, index: int) -> None:
        """What came was wrong: the piece is missing again, whoever was asked."""
        if self.asked.pop(index, None) is not None:
            self._reopen(index)

    def lose_all_but(self, verified: bytes) -> List[int]:
        """Of what was verified only this is still here; the pieces that are missing again."""
        kept = set(bits_of(verified, self.count))
        lost = [index for index in range(self.count) if self.is_verified[index] and index not in kept]
        for index in lost:
            self.is_verified[index] = 0
            self.missing += 1
            self._reopen(index)
        return lost

    def verify(self, index: int) -> List[Source]:
        """The piece is verified and written; the sources that were asked for it."""
        if not self.is_verified[index]:
            self.is_verified[index] = 1
            self.missing -= 1
        return [one.source for one in self.asked.pop(index, ())]

    def bitmap(self) -> bytes:
        """The verified pieces, as a PieceMap has it."""
        return bitmap_of((index for index in range(self.count) if self.is_verified[index]), self.count)
