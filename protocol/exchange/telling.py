"""What is told beside a content (protocol/content/traits.py), by its sources to who fetches it. Pure.

It is asked for before anything else on a link, so that it is here before the first piece; a source of an earlier
version does not answer, and nobody waits for it. Nothing of it is verified: the first who tells is believed, but that
something was left out of a folder is believed of whoever says so.
"""

from __future__ import annotations

from typing import Any, Dict, List, Tuple

from protocol.content.traits import TRAITS_BYTES_MAX, left_out_in
from protocol.messages import TRAITS_PER_PAGE, TraitsPage, TraitsRequest
from protocol.results import LeftOut

HEARD_OF_MAX = 4  # sources of one content that are asked: of a large folder each tells a megabyte


class Hearing:
    """What the sources of one content tell beside it."""

    def __init__(self, file_id: bytes, holdings: Any) -> None:
        self.told = b""
        self._file_id = file_id
        self._holdings = holdings  # remembers it, for others
        self._coming: Dict[int, bytearray] = {}  # by link
        self._totals: Dict[int, int] = {}  # of the same: how much there is, by the first page
        self._asked = 0

    @property
    def left_out(self) -> Tuple[LeftOut, ...]:
        """What of the folder is not shared."""
        return left_out_in(self.told)

    def ask(self, link: int, is_folder: bool) -> List[TraitsRequest]:
        """What to send to a new source: a request, or nothing if enough was heard."""
        if link in self._coming or self._asked >= HEARD_OF_MAX or (self.told and not is_folder):
            return []
        self._asked += 1
        self._coming[link] = bytearray()
        return [TraitsRequest(self._file_id)]

    def on_page(self, link: int, page: TraitsPage) -> bool:
        """A part of an answer; False if it was not asked for, or does not fit."""
        data = self._coming.get(link)
        if data is None:
            return False
        data += page.data
        total = self._totals.setdefault(link, page.total)
        is_fitting = (page.first == len(data) - len(page.data) and page.total == total
                      and len(data) <= total <= TRAITS_BYTES_MAX)
        if is_fitting and len(data) < page.total and page.data:
            return True
        del self._coming[link], self._totals[link]
        if is_fitting and len(data) == page.total and data:
            self._take(bytes(data))
        return is_fitting

    def _take(self, told: bytes) -> None:
        if not self.told or (left_out_in(told) and not self.left_out):
            self.told = told
            self._holdings.remember_traits(self._file_id, told)


def traits_pages(file_id: bytes, told: bytes) -> List[TraitsPage]:
    """The answer to a TraitsRequest; one empty page where there is nothing to tell."""
    return [TraitsPage(file_id, start, len(told), told[start : start + TRAITS_PER_PAGE])
            for start in range(0, max(len(told), 1), TRAITS_PER_PAGE)]
