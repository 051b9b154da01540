"""Who asked for what is kept for others on this disk, and what it costs of it.

Owned by the disk thread, like the library that uses it; touches no file.
"""

from __future__ import annotations

from typing import Dict, Optional, Tuple

from protocol.content.parts import MAP_RECORD, Content
from protocol.content.pieces import piece_count_of
from protocol.fairness import FairShares

BLOCK_BYTES = 4096             # what the smallest file takes on a disk
NOBODY = b""                   # for whom a content is kept is not known after a restart


def cost_of(content: Content) -> int:
    """The bytes of the disk that a content takes when it is complete, with its map: each rounded up to whole blocks."""
    pieces = piece_count_of(content.size)
    size = content.size + len(content.digests) + MAP_RECORD.size * pieces
    return -(-size // BLOCK_BYTES) * BLOCK_BYTES + BLOCK_BYTES


class Accounts:
    """Contents that are kept for others, each counted for the person who asked for it first."""

    def __init__(self) -> None:
        self._shares = FairShares(0)
        self._kept: Dict[bytes, Tuple[bytes, int]] = {}        # content -> who asked for it, what it costs

    def __len__(self) -> int:
        return len(self._kept)

    def __contains__(self, file_id: bytes) -> bool:
        return file_id in self._kept

    def count(self, content: Content, person: bytes) -> None:
        """It is kept from now on, for this person, if it was not already."""
        if content.file_id not in self._kept:
            self._kept[content.file_id] = person, cost_of(content)
            self._shares.take(person, cost_of(content))

    def gone(self, file_id: bytes) -> None:
        """It is kept for others no more."""
        person, cost = self._kept.pop(file_id, (NOBODY, 0))
        if cost:
            self._shares.give_back(person, cost)

    def person_of(self, file_id: bytes) -> bytes:
        """Who asked for it."""
        return self._kept.get(file_id, (NOBODY, 0))[0]

    def gives_way(self, person: bytes, cost: int, quota: int) -> Optional[bytes]:
        """Whose content has to go before this person has so much kept, of `quota` for all; None: there is room."""
        self._shares.set_limit(quota)
        loser = self._shares.gives_way(person, cost)
        assert loser is None or isinstance(loser, bytes)
        return loser
