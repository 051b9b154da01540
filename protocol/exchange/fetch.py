"""One content that is wanted, for whom, and how far it is."""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from typing import Deque, Dict, Optional, Protocol, Tuple

from protocol.content.memory import MemoryPieces
from protocol.content.parts import Destination
from protocol.exchange.download import CONTENTS_KNOWN_MAX, Download
from protocol.fairness import FairShares
from protocol.messages import NO_NODE, Search
from protocol.results import ListEntry

SEARCH_INTERVAL, SEARCH_INTERVAL_MAX = 3.0, 30.0  # doubled while there are sources, for more of them
SOURCES_WANTED = 4  # fewer: search again
NOBODY_AFTER = 10.0  # seconds without a source while there is a supernode
NOBODY_AFTER_WITHOUT_SUPERNODE = 60.0
NOBODY_AFTER_CHANGE = 2.0  # the same when the last source has just said that it has it no more
HOPE_TIME = 30.0  # a source that has nothing new for us is hoped for so long
VIA_AFTER = 0.5  # seconds that a direct offer may come after one that cannot be used directly
WITHOUT_OTHERS_MAX = 1 << 20  # bytes of a content that is mostly here before others could be found


class Wish(Protocol):
    """What somebody wants with a content: told once how its Fetch ended, and of each piece until then."""

    def on_piece(self, fetch: Fetch, size: int, now: float) -> None: ...

    def on_all_pieces(self, fetch: Fetch, now: float) -> None:
        """All is verified; the Fetch serves others until it is ended."""

    def on_failed(self, fetch: Fetch, reason: str, now: float) -> None: ...


class Thanks:
    """What a source is to be told: that we have all of these, because it gave something of them."""

    def __init__(self, until: float) -> None:
        self.until = until
        self.file_ids: Deque[bytes] = deque(maxlen=CONTENTS_KNOWN_MAX)


class Fetch:
    """One content that is wanted."""

    def __init__(self, content: Search, download: Download, now: float) -> None:
        self.content = content  # the Search to be sent
        self.file_id = content.file_id
        self.name = content.name  # under which it is kept
        self.download = download
        self.wish: Optional[Wish] = None  # None: a relay
        self.is_in_memory = False
        self.memory: Optional[MemoryPieces] = None
        self.folder: Optional[ListEntry] = None  # of which it is the listing or a part
        self.relay_for: OrderedDict[bytes, int] = OrderedDict()  # requester -> query id
        self.relayed_at = -math.inf
        self.counted: Optional[Tuple[FairShares, bytes]] = None  # of which relays it is one, and whose share it is
        self.is_passing = False  # relayed, but too big for the cache
        self.search_at = now
        self.search_interval = SEARCH_INTERVAL
        self.is_via = False  # the last search went by way of the supernode
        self.wants_via = False  # only mesh-off nodes offered
        self.lonely_since: Optional[float] = now  # since when no source gives anything
        self.is_put_off = False  # a source may not be tried again before a minute is over (protocol/hearsay.py)
        self.last_source = ""  # label of the source that was lost last
        self.trouble = ""  # why the last source was given up, in words
        self.changed_at: Optional[float] = None  # when the last source said that it has it no more
        self.is_full = False  # it failed because the disk has no room
        self.short_times = 0  # sources said that they were short of something since the last piece came
        self.is_short = False  # it failed because the system was short of something, which passes
        self.is_lost = False  # it failed because what was here of it was taken away with its folder
        self.is_gone = False  # it failed because nobody here has this content any more
        self.gave: Dict[bytes, int] = {}  # node -> bytes
        self.gave_via = NO_NODE  # the supernode that gave them by its cache
        self.destination: Optional[Destination] = None  # of its part file, when that was begun
        self.rechecks = 0  # times that another program had changed it
        self.is_complete = False
        self.is_ended = False
        self.served_until = -math.inf  # by others, when it is over here
