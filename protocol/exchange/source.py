"""One node that gives us a content: what it has, what it owes, how fast it is."""

from __future__ import annotations

import enum
import math
from typing import Dict, Optional, Set

from protocol.exchange.manifest import Manifest
from protocol.messages import PieceMap
from protocol.rates import Rate

MEASURED_AFTER = 2.0  # seconds until a source's rate is believed
ASK_OTHERS_AFTER = 3.0  # seconds without a byte: its pieces are asked elsewhere
SLOT_TAKEN_BACK_AFTER = 0.2  # seconds; who really serves keeps a slot for us longer
DROP_AFTER = 20.0  # seconds without a byte: the source is dropped
SLOW_RATE, SLOW_AFTER = 64 * 1024, 15.0  # bytes per second; a source so slow for so long is dropped if there are others
MANIFEST_AFTER = 3.0  # seconds until another source is asked for the manifest


class SourceState(enum.Enum):
    OPENED = 1  # the link is up, its piece map has been asked for
    READY = 2
    QUEUED = 3  # it has no upload slot for us yet


class _Owed:
    """A piece asked of a source."""

    __slots__ = ("length", "received", "buffer", "is_coming")

    def __init__(self, length: int) -> None:
        self.length = length
        self.received = 0
        self.buffer: Optional[bytearray] = None  # only for a piece that comes in several spans
        self.is_coming = False  # in exchange for another one, whatever becomes of what was asked for this one


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
        self.owed: Dict[int, _Owed] = {}
        self.owed_bytes = 0
        self.rate: Optional[Rate] = None
        self.heard_at = now  # or when it last owed nothing
        self.slow_since: Optional[float] = None
        self.is_passed_over = False
        self.news_at = now  # when it last had something new for us, or sent bytes
        self.map: Optional[PieceMap] = None  # until the pieces are known
        self.is_complete = False  # it has said that it has the whole
        self.early: Set[int] = set()  # pieces it told meanwhile
        self.is_checked = False  # it was told to let checksums cover pieces
        self.asked_unchecked: Set[int] = set()  # pieces asked before that: the link may be to blame for them
        self.is_suspect = False  # its last piece was wrong: one more at a time, until it gives a right one
        self.manifest: Optional[Manifest] = None  # while it is asked for it
        self.cause = 0  # why it cannot read what is asked for, as it has told

    def note_cause(self, cause: int) -> None:
        """It tells why it cannot read what is asked for."""
        self.cause = cause

    def per_second(self, now: float) -> float:
        return self.rate.per_second(now) if self.rate else 0.0
