"""A cast as one more source of a download: its pieces are asked of nobody, and links bring what they have room for.

`Source` is one node on one link and owes what it was asked for; a cast owes nothing, and stands as CAST (`picking.py`)
where a link stands else. `Catching` listens to the cast and says here what it brings; `Download` asks here whether
something may be asked for beside it. Pure.
"""

from __future__ import annotations

from typing import Any, Dict, List, Optional, Protocol, Sequence

from protocol.exchange.debts import Debts
from protocol.exchange.picking import CAST, PieceChoice
from protocol.exchange.source import Source


class Taker(Protocol):
    """The download that it is a source of."""

    sources: Dict[int, Source]
    choice: Optional[PieceChoice]
    is_opening: bool
    is_ended: bool

    def fill_all(self, now: float) -> None:
        """Ask all sources for as much as may be asked for."""


class CastSource:
    """What comes to one download by a cast."""

    def __init__(self, download: Taker, debts: Debts) -> None:
        self._is_coming = False
        self._may_ask_beside = False  # may links be asked meanwhile?
        self._download = download
        self._debts = debts

    def expect(self, indexes: Sequence[int]) -> List[int]:
        """These pieces come by a cast: whoever was asked for one need not send it. Those that do come so."""
        choice = self._download.choice
        if choice is None or self._download.is_ended:
            return []
        self._is_coming, self._may_ask_beside = True, False
        awaited = set(indexes)
        for source in self._download.sources.values():
            for index in awaited.intersection(source.owed):
                self._debts.cancel(source, index)
        return [index for index in indexes if choice.await_cast(index)]

    def ask_beside(self, may: bool, now: float) -> None:
        """While a cast comes: is there room for what it does not bring?"""
        if may != self._may_ask_beside:
            self._may_ask_beside = may
            self._download.fill_all(now)

    def lets_ask(self) -> bool:
        """Beside a cast one piece at a time comes by links, if any: what a link loses by it, all takers wait for."""
        if not self._is_coming:
            return True
        return self._may_ask_beside and not any(source.owed for source in self._download.sources.values())

    def on_piece(self, index: int, data: Any) -> bool:
        """It brought a piece; False if that is not wanted."""
        download, choice = self._download, self._download.choice
        if choice is None or download.is_ended or download.is_opening:
            return False
        return self._debts.write(choice, index, data, CAST)

    def end(self, now: float) -> None:
        """Nothing more comes by it: what is missing is asked for."""
        self._is_coming = False
        choice = self._download.choice
        if choice is not None and not self._download.is_ended:
            choice.end_cast()
            self._download.fill_all(now)
