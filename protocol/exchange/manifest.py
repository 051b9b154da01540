"""The digests of a content's pieces: how they travel in pages, and whom they unmask."""

from __future__ import annotations

from typing import List

from protocol.content.pieces import DIGEST_BYTES, PIECES_MAX
from protocol.messages import DIGESTS_PER_PAGE, ManifestPage


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


def manifest_pages(file_id: bytes, size: int, digests: bytes) -> List[ManifestPage]:
    step = DIGESTS_PER_PAGE * DIGEST_BYTES
    return [
        ManifestPage(file_id, size, start // DIGEST_BYTES, digests[start : start + step])
        for start in range(0, max(len(digests), 1), step)
    ]
