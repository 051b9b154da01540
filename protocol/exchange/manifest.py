"""The digests of a content's pieces: how they travel in pages, and whom they unmask."""

from __future__ import annotations

from typing import Any, Dict, Iterable, List, Optional, Protocol, Tuple

from protocol.content.pieces import DIGEST_BYTES, FILE_SIZE_MAX, PIECES_MAX
from protocol.exchange.source import Source
from protocol.messages import DIGESTS_PER_PAGE, ManifestPage, ManifestRequest

MANIFEST_AFTER = 3.0  # seconds until another source is asked for the manifest


class Lie(Exception):
    """What a source sent cannot be true."""


class Manifest:
    """Collects the pages of one source's manifest; holds no more than the size in its first page justifies."""

    def __init__(self, now: float) -> None:
        self.asked_at = now
        self.size = -1
        self.digests = bytearray()

    def put_off(self, now: float) -> None:
        """It is waited for anew, from now on."""
        self.asked_at = now

    def on_slept(self, seconds: float, now: float) -> None:
        """This node was not awake for so long: nobody was silent meanwhile."""
        self.asked_at = min(self.asked_at + seconds, now)

    def add(self, page: ManifestPage, piece_count: int) -> bool:
        """Is it complete now? Lie if the page does not fit."""
        if self.size >= 0 and page.size != self.size:
            raise Lie("two sizes for one file")
        if piece_count > PIECES_MAX or page.first * DIGEST_BYTES != len(self.digests):
            raise Lie("a list of pieces out of order")
        self.size = page.size
        self.digests += page.digests
        left = piece_count * DIGEST_BYTES - len(self.digests)
        if left < 0 or (left and len(page.digests) != DIGESTS_PER_PAGE * DIGEST_BYTES):
            raise Lie("a list of pieces of the wrong length")  # only the last page is not full
        return not left


class ManifestHands(Protocol):
    """What asking for a manifest takes."""

    def send(self, link: int, message: Any) -> None: ...

    def piece_size_of(self, size: int) -> int: ...

    def is_true_manifest(self, file_id: bytes, size: int, digests: bytes) -> bool: ...


class ManifestsAsked:
    """The manifests of one content that sources were asked for, by link, until one of them is whole and true."""

    def __init__(self, file_id: bytes, hands: ManifestHands) -> None:
        self._file_id = file_id
        self._hands = hands
        self._by_link: Dict[int, Manifest] = {}

    def __contains__(self, link: int) -> bool:
        return link in self._by_link

    def ask_one(self, sources: Iterable[Source], now: float) -> None:
        """The first of them is asked for the digests, if nobody is; rather one that has something of the content."""
        source = None if self._by_link else min(sources, key=lambda one: one.is_fellow, default=None)
        if source is not None:
            self._ask(source.link, now)

    def ask_instead(self, late: int, links: Iterable[int], now: float) -> None:
        """If the source there has kept us waiting, another one is asked, too, and this one has its time again."""
        if not self._is_late(late, now):
            return
        other = next((link for link in links if link not in self._by_link), None)
        if other is not None:
            self._ask(other, now)
            self._by_link[late].put_off(now)

    def _ask(self, link: int, now: float) -> None:
        """The source there is asked; they come in pages."""
        self._by_link[link] = Manifest(now)
        self._hands.send(link, ManifestRequest(self._file_id))

    def forget(self, link: int) -> None:
        """No source is there any more."""
        self._by_link.pop(link, None)

    def on_page(self, link: int, page: ManifestPage, now: float) -> Optional[Tuple[int, bytes]]:
        """A page of one that was asked for: the size and all digests if that made it whole; Lie if it cannot be."""
        self._by_link[link].put_off(now)
        try:
            whole = self._add(self._by_link[link], page)
        except Lie:
            self.forget(link)
            raise
        if whole is not None:
            self._by_link.clear()  # all say the same, or lie: one list is enough in memory
        return whole

    def _add(self, manifest: Manifest, page: ManifestPage) -> Optional[Tuple[int, bytes]]:
        if page.size > FILE_SIZE_MAX:
            raise Lie("an impossible size")
        piece_size = self._hands.piece_size_of(page.size)
        if not manifest.add(page, -(-page.size // piece_size)):
            return None
        size, digests = manifest.size, bytes(manifest.digests)
        if not self._hands.is_true_manifest(self._file_id, size, digests):
            raise Lie("a list of pieces that does not belong to the file")
        return size, digests

    # ---- time

    def _is_late(self, link: int, now: float) -> bool:
        """Has the source there kept us waiting for it?"""
        return link in self._by_link and now - self._by_link[link].asked_at >= MANIFEST_AFTER

    def on_slept(self, seconds: float, now: float) -> None:
        """This node was not awake for so long: nobody was silent meanwhile."""
        for manifest in self._by_link.values():
            manifest.on_slept(seconds, now)


def manifest_pages(file_id: bytes, size: int, digests: bytes) -> List[ManifestPage]:
    """All digests in pages of DIGESTS_PER_PAGE; one page, an empty one, for an empty content."""
    step = DIGESTS_PER_PAGE * DIGEST_BYTES
    return [
        ManifestPage(file_id, size, start // DIGEST_BYTES, digests[start : start + step])
        for start in range(0, max(len(digests), 1), step)
    ]
