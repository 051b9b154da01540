"""How one who rules shows that it comes from members whom another part of the network lost, though all are gone.

Each node has a key that follows from the secret that its node id opens: it showed that secret to the supernode that
took it in. Who rules gives its key to its members, and they keep it with those of earlier rulers; so an *heirloom* says
"I was of its people". The supernode that lost that ruler in silence reckons the same key, and asks for a mark with it.
Members on its own side never had the key: it was given away on the other side alone.

Pure.
"""

from __future__ import annotations

import hmac
from typing import Dict, Iterable, Optional, Tuple

from protocol.latest import Latest
from protocol.messages import HEIRLOOMS_MAX, Heirloom

MARK_SIZE = 16


def heirloom_of(node_id: bytes, opening: bytes, network_id: bytes) -> Heirloom:
    """What this node gives to its members when it rules, and what a supernode knows of a node that it took in."""
    return Heirloom(node_id, hmac.new(opening, b"heirloom" + network_id, "sha256").digest()[:MARK_SIZE])


def marked(heirlooms: Iterable[Heirloom], nonce: bytes, ruler: bytes) -> Tuple[Heirloom, ...]:
    """In the place of each key what only its holder can make of the nonce, for this ruler alone."""
    return tuple(
        Heirloom(node_id, hmac.new(key, nonce + ruler, "sha256").digest()[:MARK_SIZE]) for node_id, key in heirlooms
    )


def is_heir(marks: Iterable[Heirloom], nonce: bytes, ruler: bytes, lost: Dict[bytes, Heirloom]) -> bool:
    """Does one of the marks show the heirloom of one that was lost?"""
    for mark in marks:
        heirloom = lost.get(mark.node_id)
        if heirloom is not None and hmac.compare_digest(marked([heirloom], nonce, ruler)[0].key, mark.key):
            return True
    return False


class Heirlooms:
    """Some heirlooms, latest last; when there are too many, the oldest is dropped."""

    def __init__(self, heirlooms: Iterable[Heirloom] = (), limit: int = HEIRLOOMS_MAX) -> None:
        self._by_id: Latest[bytes, Heirloom] = Latest(limit)
        for heirloom in heirlooms:
            self.add(heirloom)

    def add(self, heirloom: Optional[Heirloom]) -> None:
        """Those of one member; the oldest are forgotten where there are too many."""
        if heirloom is not None:
            self._by_id.put(heirloom.node_id, heirloom)

    def discard(self, node_id: bytes) -> None:
        self._by_id.pop(node_id, None)

    def all(self) -> Tuple[Heirloom, ...]:
        return tuple(self._by_id.values())

    def by_id(self) -> Dict[bytes, Heirloom]:
        return self._by_id
