"""One content on its way: `Download` fetches it from several sources, `Uploads` serves what others ask for.

Neither does any I/O: each is handed its verbs (`DownloadHands`, `UploadHands`) and told what happened, with `now`.

A source (one link to one node) goes OPENED -> READY -> (QUEUED -> READY)* until it is dropped. Bytes in flight are
counted from the request until the piece is on the disk, so a slow disk slows the asking and memory stays bounded.
The unit of trust is the piece: the store refuses one whose digest is wrong, and the source that sent it gets a strike.
"""

from __future__ import annotations

import enum
import math
import random
from collections import OrderedDict, deque
from typing import Any, Deque, Dict, List, NamedTuple, Optional, Protocol, Sequence, Set, Tuple

from protocol import mishaps
from protocol.chat import Bucket
from protocol.content import DIGEST_BYTES, FILE_SIZE_MAX, PIECES_MAX
from protocol.download import PieceChoice, Rate, in_flight_limit, window_of
from protocol.fairness import FairRecords, FairShares
from protocol.messages import (
    DIGESTS_PER_PAGE,
    NO_PIECE,
    SPAN_BYTES_MAX,
    TOO_MANY_REQUESTS,
    AnyPieceRequest,
    CheckBulk,
    ManifestPage,
    ManifestRequest,
    OtherPiece,
    PieceCancel,
    PieceData,
    PieceMap,
    PieceMapRequest,
    PieceRefused,
    PieceRequest,
    Queued,
)

log = mishaps.logger("transfer")

REQUESTS_PER_LINK_MAX = 32  # THREATS: E06
MEASURED_AFTER = 2.0  # seconds until a source's rate is believed
ASK_OTHERS_AFTER = 3.0  # seconds without a byte: its pieces are asked elsewhere
SLOT_TAKEN_BACK_AFTER = 0.2  # seconds; who really serves keeps a slot for us longer
DROP_AFTER = 20.0  # seconds without a byte: the source is dropped
SLOW_RATE, SLOW_AFTER = 64 * 1024, 15.0  # bytes per second; a source so slow for so long is dropped if there are others
MANIFEST_AFTER = 3.0  # seconds until another source is asked for the manifest

UPLOAD_SLOTS = 8  # links that are served at once
SLOT_IDLE = 1.0  # a slot not used for so long goes to the next in the queue
SLOT_RESERVED = 5.0  # a slot just given is kept so long for its first request
SLOT_FROZEN = 3.0  # while others wait, a slot is kept so long for who takes nothing of what is on its way to it
SLOT_TURN = 30.0  # while others wait, a slot is held no longer;
SLOT_TURN_STEP = 4.0  # but when many are held so long, they are not all taken back at once
# While others wait, a slot by which so little goes gives way: THREATS G06 (a source as slow would be dropped, too).
SLOT_SLOW_RATE, SLOT_SLOW_AFTER = SLOW_RATE, SLOW_AFTER
QUEUE_MAX = 256  # links that wait; the node that has most of them there gives way
UPLOAD_BACKLOG_MAX = 4 << 20  # bytes handed to a link and not yet delivered, when nobody else wants any
# While several want something, they are served one after the other: then each gets large runs of packets, and little
# waits in queues where it cannot be taken back.
LINKS_AT_ONCE = 3  # that have more than LINK_LOW on their way
LINK_LOW = 64 << 10  # bytes on its way at which a link may have its next turn; links tell when they fall to it
STUCK_AFTER = 0.3  # seconds without any delivery: a link that stands does not keep others waiting
GIVEN_FORGOTTEN_AFTER = 10.0  # seconds without a request: who asks for a content then begins anew
GIVEN_MAX = 64  # contents whose given pieces are counted
SUBSCRIPTIONS_MAX = 256  # contents whose new pieces are told on one link
SENT_RECORDS_MAX = 16_384  # of all links together, about 1 KB each: who got which content of us
CONTENTS_KNOWN_MAX = 1024  # of one link
FOLDERS_COUNTED_MAX = 16
DONE_LINES_PER_SECOND, DONE_LINES_BURST = 2.0, 50.0  # that a person is told of one link


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

    def per_second(self, now: float) -> float:
        return self.rate.per_second(now) if self.rate else 0.0


class Lie(Exception):
    """What a source sent cannot be true."""


class Manifest:
    """Collects the pages of one source's manifest; holds no more than the size in its first page justifies."""

    def __init__(self, now: float) -> None:
        self.asked_at = now
        self.size = -1
        self.digests = bytearray()

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


class DownloadHands(Protocol):
    """What a Download wants done."""

    def send(self, link: int, message: Any) -> None: ...

    def piece_size_of(self, size: int) -> int: ...

    def is_true_manifest(self, file_id: bytes, size: int, digests: bytes) -> bool: ...

    def requests_on(self, link: int) -> int:
        """Pieces asked on this link, for whichever download."""

    def count_requests(self, link: int, change: int) -> None: ...

    def has_room(self, size: int) -> bool:
        """May so many bytes more be in flight, all downloads together?"""

    def open_pieces(self, download: Download, size: int, digests: bytes) -> None:
        """Make or resume the part file; answered by `on_opened`."""

    def write(self, download: Download, index: int, data: Any, link: int) -> None:
        """Verify and write; answered by `on_written`."""

    def on_piece(self, download: Download, index: int, now: float) -> None:
        """One piece more is verified."""

    def on_all_pieces(self, download: Download, now: float) -> None: ...

    def on_strike(self, download: Download, source: Source, why: str, is_proof: bool, now: float) -> None:
        """It sent what is not true; with `is_proof` on purpose."""

    def on_useless(self, download: Download, source: Source, why: str, now: float) -> None:
        """Drop it from this download: it does not serve us."""


class Download:
    """The pieces of one content, from sources to the store."""

    def __init__(self, file_id: bytes, hands: DownloadHands, rng: random.Random, now: float) -> None:
        self.file_id = file_id
        self.size = -1  # until the manifest is here
        self.digests = b""
        self.piece_size = 0
        self.choice: Optional[PieceChoice] = None
        self.sources: Dict[int, Source] = {}
        self.in_flight_bytes = 0  # asked, or received and not yet written
        self.verified_bytes = 0
        self.rate = Rate(now)
        self.is_opening = False
        self.is_ended = False
        self.dropped = 0  # messages that nobody asked for
        self._hands = hands
        self._rng = rng

    # ---- sources

    def add_source(self, link: int, node_id: bytes, label: str, now: float, is_fellow: bool = False) -> None:
        """The link to a provider is up: ask what it has, and the manifest if nobody else is asked."""
        if link in self.sources or self.is_ended:
            return
        self.sources[link] = Source(link, node_id, label, now, is_fellow)
        log.info("id %s: %s is a source (link %d)", self.file_id.hex()[:8], label, link)
        if not is_fellow:
            self._want_manifest(now)
        self._hands.send(link, PieceMapRequest(self.file_id))

    def take_as_giver(self, source: Source, now: float) -> None:
        """It has something of the content, and so the manifest, too."""
        if source.is_fellow:
            source.is_fellow = False
            self._want_manifest(now)

    def _ask_manifest(self, source: Source, now: float) -> None:
        source.manifest = Manifest(now)
        self._hands.send(source.link, ManifestRequest(self.file_id))

    def remove_source(self, link: int, now: float) -> Optional[Source]:
        """The link is lost, or it shall not be asked any more."""
        source = self.sources.pop(link, None)
        if source is None:
            return None
        log.info("id %s: %s is no source any more", self.file_id.hex()[:8], source.label)
        self._release(source, cancel=not self.is_ended)
        if self.choice is not None:
            self.choice.remove_map(link)
        self._want_manifest(now)
        self.fill_all(now)
        return source

    def _want_manifest(self, now: float) -> None:
        if self.choice is not None or self.is_opening or any(one.manifest for one in self.sources.values()):
            return
        source = min(self.sources.values(), key=lambda one: one.is_fellow, default=None)
        if source is not None:
            self._ask_manifest(source, now)

    def _release(self, source: Source, cancel: bool) -> None:
        """Take back everything that it owes."""
        for index, owed in list(source.owed.items()):
            self._forgive(source, index, owed)
            if cancel:
                self._hands.send(source.link, PieceCancel(self.file_id, index))
            if self.choice is not None:
                self.choice.release(source.link, index)

    def _forgive(self, source: Source, index: int, owed: _Owed) -> None:
        del source.owed[index]
        source.owed_bytes -= owed.length
        self.in_flight_bytes -= owed.length
        self._hands.count_requests(source.link, -1)

    def end(self) -> None:
        """No more is wanted, of anyone."""
        self.is_ended = True
        for source in self.sources.values():
            self._release(source, cancel=True)

    # ---- manifest and map

    def on_manifest_page(self, link: int, page: ManifestPage, now: float) -> None:
        source = self.sources.get(link)
        if source is None or source.manifest is None or self.choice is not None or self.is_opening:
            self.dropped += 1
            return
        source.heard_at = source.manifest.asked_at = now
        try:
            if page.size > FILE_SIZE_MAX:
                raise Lie("an impossible size")
            piece_size = self._hands.piece_size_of(page.size)
            if not source.manifest.add(page, -(-page.size // piece_size)):
                return
            size, digests = source.manifest.size, bytes(source.manifest.digests)
            if not self._hands.is_true_manifest(self.file_id, size, digests):
                raise Lie("a list of pieces that does not belong to the file")
        except Lie as lie:
            source.manifest = None
            self._hands.on_strike(self, source, str(lie), True, now)
            self._want_manifest(now)
            return
        for one in self.sources.values():
            one.manifest = None
        self.open(size, digests)

    def open(self, size: int, digests: bytes) -> None:
        """The manifest is known and true."""
        self.size, self.digests, self.is_opening = size, digests, True
        self.piece_size = self._hands.piece_size_of(size)
        self._hands.open_pieces(self, size, digests)

    def on_opened(self, bitmap: bytes, now: float) -> None:
        """The store is ready; `bitmap` is what it has from an earlier time."""
        if self.is_ended:
            return
        self.is_opening = False
        if self.choice is not None:
            self._on_opened_again(self.choice, bitmap, now)
            return
        count = len(self.digests) // DIGEST_BYTES
        self.choice = PieceChoice(count, bitmap, self._rng)
        self.verified_bytes = sum(self.length_of(index) for index in range(count) if self.choice.is_verified[index])
        self.rate = Rate(now)
        for source in list(self.sources.values()):
            self._apply_map(source)
        if not self.choice.missing:
            self._hands.on_all_pieces(self, now)
            return
        self.fill_all(now)

    def length_of(self, index: int) -> int:
        return min(self.piece_size, self.size - index * self.piece_size)

    def open_again(self) -> None:
        """Something else was at the store: it is asked anew what it has, answered by `on_opened`."""
        self.is_opening = True
        self._hands.open_pieces(self, self.size, self.digests)

    def _on_opened_again(self, choice: PieceChoice, bitmap: bytes, now: float) -> None:
        self.verified_bytes -= sum(map(self.length_of, choice.lose_all_but(bitmap)))
        if choice.missing:
            self.fill_all(now)
        else:
            self._hands.on_all_pieces(self, now)

    def on_piece_map(self, link: int, piece_map: PieceMap, now: float) -> None:
        source = self.sources.get(link)
        is_first = source is not None and source.state is SourceState.OPENED and source.map is None
        if source is None or not is_first or len(piece_map.bitmap) > PIECES_MAX // 8:
            self.dropped += 1
            return
        source.heard_at = source.news_at = now
        source.map, source.is_complete = piece_map, piece_map.complete
        if self.choice is not None:
            self._apply_map(source)
            self._fill(source, now)

    def _apply_map(self, source: Source) -> None:
        if source.map is None or self.choice is None:
            return
        self.choice.set_map(source.link, source.map.complete, source.map.bitmap)
        for index in source.early:
            self.choice.add_piece(source.link, index)
        source.map, source.early = None, set()
        if source.state is SourceState.OPENED:
            source.state = SourceState.READY

    def on_new_pieces(self, link: int, indexes: Sequence[int], now: float) -> None:
        """The source has these pieces, too."""
        source = self.sources.get(link)
        if source is None or (self.choice is None and max(indexes, default=0) >= PIECES_MAX):
            self.dropped += 1
            return
        self.take_as_giver(source, now)
        if self.choice is None:
            source.early.update(indexes)
        else:
            news = [self.choice.add_piece(link, index) for index in indexes]
            if any(news):
                source.news_at = now
                self._fill(source, now)

    # ---- asking

    def fill_all(self, now: float) -> None:
        """Ask every source for as much as its window allows, the fastest first."""
        sources = list(self.sources.values())
        if len(sources) > 1:
            sources.sort(key=lambda source: -source.per_second(now))
        for source in sources:
            self._fill(source, now)

    def _fill(self, source: Source, now: float) -> None:
        choice = self.choice
        if choice is None or not choice.missing or source.state is not SourceState.READY:
            return
        if source.is_passed_over or self.is_ended:
            return
        is_measured = source.rate is not None and source.rate.age(now) >= MEASURED_AFTER
        ready = sum(one.state is SourceState.READY and not one.is_passed_over for one in self.sources.values())
        window = window_of(source.per_second(now), is_measured, ready, self.piece_size)
        if source.is_suspect:
            window = self.piece_size
        limit = in_flight_limit(self.piece_size)
        while source.owed_bytes + self.piece_size <= window and self.in_flight_bytes + self.piece_size <= limit:
            if self._hands.requests_on(source.link) >= REQUESTS_PER_LINK_MAX:
                return
            if self.in_flight_bytes and not self._hands.has_room(self.piece_size):
                return  # but one piece is allowed to each, so that none starves
            index = choice.choose(source.link, now)
            if index is None:
                return
            self._ask(source, index, now)

    def _ask(self, source: Source, index: int, now: float) -> None:
        if not source.owed:
            source.heard_at = now
            if source.rate is None:
                source.rate = Rate(now)
        source.asked_unchecked.discard(index)
        self._owe(source, index)
        kind = AnyPieceRequest if self._may_be_other(source, index) else PieceRequest
        self._hands.send(source.link, kind(self.file_id, index))

    def _owe(self, source: Source, index: int) -> None:
        owed = source.owed[index] = _Owed(self.length_of(index))
        source.owed_bytes += owed.length
        self.in_flight_bytes += owed.length
        self._hands.count_requests(source.link, 1)

    def _may_be_other(self, source: Source, index: int) -> bool:
        """Is this the only source of a piece that many want? Then it shall not give one twice before all once."""
        if not (source.is_complete and source.takes_other and self.choice is not None and self.choice.is_rare(index)):
            return False
        return len(self.sources) > 1 and sum(one.is_complete for one in self.sources.values()) == 1

    def on_other_piece(self, link: int, asked: int, given: int, now: float) -> None:
        """The source gives another piece than it was asked for, because somebody else was given that."""
        source = self.sources.get(link)
        owed = source.owed.get(asked) if source is not None else None
        if source is None or owed is None or owed.received or self.choice is None:
            self.dropped += 1
            return
        self.dropped += not source.takes_other  # it was asked so before it was known to give what is not wanted
        if owed.is_coming:
            asked = NO_PIECE  # it comes for another one that was asked for, so this exchange costs nothing
        else:
            self._forgive(source, asked, owed)
        if self.choice.swap(link, asked, given, now):
            self._owe(source, given)
            return
        source.takes_other = False
        self._cancel_exchanged(source, given)
        self._fill(source, now)

    def _cancel_exchanged(self, source: Source, given: int) -> None:
        """Nobody wants it, or it was asked of this source as well: then it comes once, by what is read already.

        A piece of several spans is not: the source forgets what it has not read, and must be asked again.
        """
        self._hands.send(source.link, PieceCancel(self.file_id, given))
        owed = source.owed.get(given)
        if owed is None:
            return
        owed.is_coming = owed.length <= SPAN_BYTES_MAX
        if not owed.is_coming:
            self._forgive(source, given, owed)
            self._reopen_for(source, given)

    # ---- receiving

    def on_piece_data(self, link: int, index: int, offset: int, data: Any, now: float) -> None:
        """Bytes of a piece; the data are not copied when the piece comes whole."""
        source = self.sources.get(link)
        owed = source.owed.get(index) if source is not None else None
        if source is None or owed is None:
            self.dropped += 1  # never asked for, or cancelled meanwhile
            if source is not None:
                self._note_sign(source, now)
            return
        size = len(data)
        if offset != owed.received:
            # The rest of an earlier answer that was cancelled; the whole of the new one follows it.
            self.dropped += 1
            return
        self._note_sign(source, now)
        if not size or offset + size > owed.length:
            self._forgive(source, index, owed)
            self._reopen_for(source, index)
            self._hands.on_strike(self, source, "a piece of the wrong length", True, now)
            return
        if source.rate is not None:
            source.rate.add(size, now)
        owed.received += size
        if owed.received < owed.length or owed.buffer is not None:
            if owed.buffer is None:
                owed.buffer = bytearray(owed.length)
            owed.buffer[offset : offset + size] = data
            if owed.received < owed.length:
                return
            data = owed.buffer
        self._on_whole_piece(source, index, owed, data, now)

    @staticmethod
    def _note_sign(source: Source, now: float) -> None:
        source.heard_at = source.news_at = now
        source.is_passed_over = False

    def _reopen_for(self, source: Source, index: int) -> None:
        if self.choice is not None:
            self.choice.release(source.link, index)

    def _on_whole_piece(self, source: Source, index: int, owed: _Owed, data: Any, now: float) -> None:
        choice = self.choice
        assert choice is not None
        self._forgive(source, index, owed)
        if not choice.is_verified[index] and not choice.is_settled(index):
            choice.settle(index)
            self.in_flight_bytes += owed.length  # until it is written
            self._hands.write(self, index, data, source.link)
        self._fill(source, now)

    def on_written(self, index: int, link: int, is_right: bool, now: float) -> None:
        """The store has verified and written a piece, or refused it."""
        self.in_flight_bytes -= self.length_of(index)
        choice = self.choice
        if choice is None or self.is_ended:
            return
        if not is_right:
            self._on_wrong_piece(index, link, now)
            return
        source = self.sources.get(link)
        if source is not None and index not in source.asked_unchecked:
            source.is_suspect = False
        for other in choice.verify(index):
            self._cancel(other, index)
        self.verified_bytes += self.length_of(index)
        self.rate.add(self.length_of(index), now)
        self._hands.on_piece(self, index, now)
        if choice.missing:
            self.fill_all(now)
        else:
            self._hands.on_all_pieces(self, now)

    def _cancel(self, link: Any, index: int) -> None:
        source = self.sources.get(link)
        owed = source.owed.get(index) if source else None
        if source is not None and owed is not None:
            self._forgive(source, index, owed)
            self._hands.send(source.link, PieceCancel(self.file_id, index))

    def _on_wrong_piece(self, index: int, link: int, now: float) -> None:
        assert self.choice is not None
        for one in self.sources.values():
            if one.link != link:
                self._cancel(one.link, index)
        source = self.sources.get(link)
        is_excused = source is not None and index in source.asked_unchecked
        if source is not None:
            source.is_suspect = True
        if source is not None and not source.is_checked:
            source.is_checked = True
            source.asked_unchecked = set(self.choice.asked_of(link))
            self._hands.send(link, CheckBulk())
        self.choice.reopen(index)
        for one in list(self.sources.values()):
            if one.link != link:  # the others are asked before the one that was wrong
                self._fill(one, now)
        if source is not None and not is_excused:
            self._hands.on_strike(self, source, "a wrong piece", False, now)
        self.fill_all(now)

    def on_piece_refused(self, link: int, index: int, now: float) -> Optional[Source]:
        """The source that does not give a piece, if it was asked; the reasons are the caller's to judge."""
        source = self.sources.get(link)
        if source is None:
            self.dropped += 1
            return None
        owed = source.owed.get(index)
        if owed is not None:
            self._forgive(source, index, owed)
            if self.choice is not None:
                self.choice.remove_piece(link, index)
                self.choice.release(link, index)
                self.fill_all(now)
        return source if owed is not None or index == NO_PIECE else None

    def on_queued(self, link: int, position: int, now: float) -> None:
        """The source has no upload slot for us, or now it has."""
        source = self.sources.get(link)
        if source is None or source.state is SourceState.OPENED:
            return
        if position and now - source.slot_at < SLOT_TAKEN_BACK_AFTER:
            self.dropped += 1  # given and taken back, again and again: each time we would ask anew
            return
        source.heard_at, source.position = now, position
        if position:
            source.state = SourceState.QUEUED
            self._release(source, cancel=False)
            self.fill_all(now)
        elif source.state is SourceState.QUEUED:
            source.state, source.slot_at = SourceState.READY, now
            self._fill(source, now)

    # ---- time

    def on_timer(self, now: float) -> None:
        """About once a second: who is silent, who is slow, what the endgame may ask."""
        for source in list(self.sources.values()):
            if source.link in self.sources:
                self._check(source, now)
        self.fill_all(now)

    def on_slept(self, seconds: float, now: float) -> None:
        """This node was not awake for so long: nobody was silent or slow meanwhile."""
        for source in self.sources.values():
            source.heard_at = min(source.heard_at + seconds, now)
            source.news_at = min(source.news_at + seconds, now)
            source.slow_since = None
            if source.manifest is not None:
                source.manifest.asked_at = min(source.manifest.asked_at + seconds, now)

    def _check(self, source: Source, now: float) -> None:
        if source.manifest is not None and now - source.manifest.asked_at >= MANIFEST_AFTER:
            self._ask_another_for_manifest(source, now)
        silent = now - source.heard_at
        is_waited_for = source.owed or source.state is SourceState.OPENED or source.is_passed_over
        if not is_waited_for or self.is_opening:
            source.slow_since = None
            return
        if silent >= DROP_AFTER:
            self._hands.on_useless(self, source, "sends nothing", now)
        elif silent >= ASK_OTHERS_AFTER and source.owed and self._has_others(source):
            source.is_passed_over = True
            self._release(source, cancel=True)
        elif source.owed:
            self._check_rate(source, now)

    def _ask_another_for_manifest(self, source: Source, now: float) -> None:
        others = [one for one in self.sources.values() if one.manifest is None]
        if others:
            self._ask_manifest(others[0], now)
            source.manifest.asked_at = now  # type: ignore[union-attr]

    def _has_others(self, source: Source) -> bool:
        """Is there another source that would serve us?"""
        if self.choice is None:
            return False
        others = [one for one in self.sources.values() if one is not source and not one.is_passed_over]
        return any(one.state is SourceState.READY and self.choice.is_useful(one.link) for one in others)

    def _check_rate(self, source: Source, now: float) -> None:
        if source.per_second(now) >= SLOW_RATE:
            source.slow_since = None
            return
        if source.slow_since is None:
            source.slow_since = now
        elif now - source.slow_since >= SLOW_AFTER and self._has_others(source):
            self._hands.on_useless(self, source, "is too slow", now)


# ---- the other end --------------------------------------------------------------------------------------------------


class Sent(NamedTuple):
    """What one link got of one content."""

    number: int
    started_at: float
    at: float
    size: int
    rate: Rate


class _Job:
    """A piece that was asked for; `offset` is how far it has been read."""

    __slots__ = ("file_id", "index", "offset", "length", "may_be_other")

    def __init__(self, file_id: bytes, index: int, length: int, may_be_other: bool = False) -> None:
        self.file_id = file_id
        self.index = index
        self.length = length
        self.may_be_other = may_be_other
        self.offset = 0


class _Given:
    """Which pieces of one content were given to anybody lately."""

    def __init__(self, size: int, piece_size: int, now: float) -> None:
        self.piece_size = piece_size
        self.size = size
        self.asked_at = now
        self._is_given = bytearray(-(-size // piece_size))
        self._next = 0  # those below are given

    def length_of(self, index: int) -> int:
        return min(self.piece_size, self.size - index * self.piece_size)

    def give(self, index: int, may_be_other: bool) -> int:
        """The piece to give to who asks for this one."""
        if self._is_given[index] and may_be_other:
            self._next = self._is_given.find(0, self._next)
            if self._next < 0:
                self._next = len(self._is_given)
            else:
                index = self._next
        self._is_given[index] = 1
        return index


class UploadLink:
    """One link on which somebody asks us for pieces."""

    def __init__(self, link: int, node_id: bytes, label: str) -> None:
        self.link = link
        self.node_id = node_id  # checked before it came here: the person that slots and places go by
        self.label = label
        self.done_lines = Bucket(DONE_LINES_PER_SECOND, DONE_LINES_BURST, 0.0)
        self.jobs: Deque[_Job] = deque()
        self.reading_bytes = 0
        self.turn = 0  # the number of the last turn of its node
        self.seen_on_way, self.seen_at = 0, -math.inf  # bytes on its way; when any were delivered last
        self.has_slot = False
        self.slot_at = 0.0
        self.used_at = 0.0
        self.read_bytes = 0  # handed to it in all
        self.rated_at, self.rated_bytes = 0.0, 0  # when its rate was looked at last, and what was delivered by then
        self.told_position = 0
        self.told: Set[bytes] = set()  # contents whose new pieces it is told
        self.folders: Deque[bytes] = deque(maxlen=FOLDERS_COUNTED_MAX)  # what it fetches of them is counted together


class UploadHands(Protocol):
    """What Uploads want done."""

    def send(self, link: int, message: Any) -> None: ...

    def backlog(self, link: int) -> int: ...

    def read(self, link: int, file_id: bytes, index: int, offset: int, length: int, now: float) -> None:
        """Read a span; answered by `on_read`, at once or later."""

    def next_number(self) -> int: ...

    def counted_as(self, upload: UploadLink, file_id: bytes) -> bytes:
        """The content, or the folder that it is sent as a part of."""


class Uploads:
    """Who is served what, in which order, and who waits."""

    def __init__(self, hands: UploadHands) -> None:
        self.links: Dict[int, UploadLink] = {}
        self.waiting: Deque[int] = deque()
        self._hands = hands
        self._turns = 0
        self._is_pumping = False  # what is in memory is read, and sent, before `read` returns
        self._turns_ended_at = -math.inf
        self._given: OrderedDict[bytes, _Given] = OrderedDict()
        self._slots, self._places = FairShares(UPLOAD_SLOTS), FairShares(QUEUE_MAX)  # a person is a node
        self._sent = FairRecords(SENT_RECORDS_MAX)  # by node, under (link, content)

    def add(self, link: int, node_id: bytes, label: str) -> None:
        self.links[link] = UploadLink(link, node_id, label)

    def remove(self, link: int, now: float) -> None:
        upload = self.links.get(link)
        if upload is not None:
            self._free_slot(upload)
            self._leave_queue(upload)
            del self.links[link]
            self._give_slots(now)
            self._pump(now)

    # ---- requests

    def on_whole_request(
        self, link: int, file_id: bytes, index: int, size: int, piece_size: int, may_be_other: bool, now: float
    ) -> None:
        """A piece of a content that is all here is asked for."""
        given = self._given.get(file_id)
        if given is None or now - given.asked_at >= GIVEN_FORGOTTEN_AFTER:
            given = self._given[file_id] = _Given(size, piece_size, now)
        given.asked_at = now
        self._given.move_to_end(file_id)
        if len(self._given) > GIVEN_MAX:
            self._given.popitem(last=False)
        self.on_request(link, file_id, index, given.length_of(index), now, may_be_other)

    def on_request(
        self, link: int, file_id: bytes, index: int, length: int, now: float, may_be_other: bool = False
    ) -> None:
        """A piece that we have is asked for."""
        upload = self.links[link]
        if len(upload.jobs) >= REQUESTS_PER_LINK_MAX:
            self._hands.send(link, PieceRefused(file_id, index, TOO_MANY_REQUESTS))
            return
        if not upload.has_slot and not self._take_slot(upload, now):
            return
        upload.used_at = now
        upload.jobs.append(_Job(file_id, index, length, may_be_other))
        counted = self._hands.counted_as(upload, file_id)
        if self._sent.get(upload.node_id, (link, counted)) is None:
            number = self._hands.next_number()
            self._sent.put(upload.node_id, (link, counted), Sent(number, now, now, 0, Rate(now)))
            log.info("S %d begins: id %s to %s", number, counted.hex()[:8], upload.label)
        self._pump(now)

    def on_cancel(self, link: int, file_id: bytes, index: int) -> None:
        upload = self.links[link]
        upload.jobs = deque(job for job in upload.jobs if (job.file_id, job.index) != (file_id, index))

    def _pump(self, now: float) -> None:
        """Read ahead, for one link after the other, until enough is on its way."""
        if self._is_pumping:
            return
        self._is_pumping = True
        try:
            upload = self._next_turn(now)
            while upload is not None:
                self._read_next(upload, now)
                upload = self._next_turn(now)
        finally:
            self._is_pumping = False

    def _next_turn(self, now: float) -> Optional[UploadLink]:
        """The link to read something for: the one whose node had its last turn longest ago."""
        wanting = [upload for upload in self.links.values() if upload.jobs]
        loaded = [upload for upload in self.links.values() if self._is_loaded(upload, now)]
        if len(wanting) == 1 and (not loaded or loaded == wanting):
            return wanting[0] if self._on_way(wanting[0], now) < UPLOAD_BACKLOG_MAX else None
        if not wanting or len(loaded) >= LINKS_AT_ONCE:
            return None
        served = {upload.node_id for upload in loaded}  # one turn at a time for each
        ready = [one for one in wanting if one.node_id not in served and self._on_way(one, now) <= LINK_LOW]
        return min(ready, key=lambda upload: upload.turn, default=None)

    def _on_way(self, upload: UploadLink, now: float) -> int:
        size = upload.reading_bytes + self._hands.backlog(upload.link)
        if size < upload.seen_on_way or upload.seen_on_way <= LINK_LOW:
            upload.seen_at = now  # something was delivered; what is only added, as news of pieces are, is no sign
        upload.seen_on_way = size
        return size

    def _is_loaded(self, upload: UploadLink, now: float) -> bool:
        return self._on_way(upload, now) > LINK_LOW and now - upload.seen_at < STUCK_AFTER

    def _read_next(self, upload: UploadLink, now: float) -> None:
        job = upload.jobs[0]
        if not job.offset:
            self._begin_job(upload, job)
        offset, length = job.offset, min(SPAN_BYTES_MAX, job.length - job.offset)
        job.offset += length
        if job.offset >= job.length:
            upload.jobs.popleft()
        upload.reading_bytes += length
        self._turns += 1
        for one in self.links.values():
            if one.node_id == upload.node_id:
                one.turn = self._turns
        self._hands.read(upload.link, job.file_id, job.index, offset, length, now)

    def _begin_job(self, upload: UploadLink, job: _Job) -> None:
        given = self._given.get(job.file_id)
        if given is None:
            return
        asked, job.index = job.index, given.give(job.index, job.may_be_other)
        if job.index != asked:
            job.length = given.length_of(job.index)
            self._hands.send(upload.link, OtherPiece(job.file_id, asked, job.index))

    def on_read(self, link: int, file_id: bytes, index: int, offset: int, length: int, data: Any, now: float) -> None:
        """A span was read."""
        upload = self.links.get(link)
        if upload is None:
            return
        upload.reading_bytes -= length
        upload.read_bytes += length
        upload.used_at = now
        counted = self._hands.counted_as(upload, file_id)
        sent = self._sent.get(upload.node_id, (link, counted))
        if sent is not None:
            sent.rate.add(length, now)
            is_listing = file_id in upload.folders  # of a folder: no byte of its files
            sent = sent._replace(size=sent.size + (0 if is_listing else length), at=now)
            self._sent.put(upload.node_id, (link, counted), sent)
        self._hands.send(link, PieceData(file_id, index, offset, data))
        self._pump(now)

    def on_unreadable(self, link: int, file_id: bytes, index: int, length: int, reason: int, now: float) -> None:
        """A span could not be read: the rest of the piece is not tried."""
        upload = self.links.get(link)
        if upload is None:
            return
        upload.reading_bytes -= length
        self.on_cancel(link, file_id, index)
        self._hands.send(link, PieceRefused(file_id, index, reason))
        self._pump(now)

    def on_writable(self, link: int, now: float) -> None:
        upload = self.links.get(link)
        if upload is not None:
            upload.used_at = now
            self._pump(now)

    # ---- slots

    def _take_slot(self, upload: UploadLink, now: float) -> bool:
        """A free slot; or a place in the queue, and the request is forgotten: it is asked again when it is its turn."""
        if not self.waiting and self._slots.gives_way(upload.node_id) is None:
            self._hold_slot(upload, now, now)
            return True
        if upload.link not in self.waiting and not self._enter_queue(upload):
            return False
        upload.told_position = self.waiting.index(upload.link) + 1
        self._hands.send(upload.link, Queued(upload.told_position))
        self._share_slots(now)
        return False

    def _hold_slot(self, upload: UploadLink, now: float, used_at: float) -> None:
        upload.has_slot, upload.slot_at, upload.used_at = True, now, used_at
        upload.rated_at, upload.rated_bytes = now, self._delivered(upload)
        self._slots.take(upload.node_id)

    def _free_slot(self, upload: UploadLink) -> None:
        if upload.has_slot:
            upload.has_slot = False
            self._slots.give_back(upload.node_id)

    def _enter_queue(self, upload: UploadLink) -> bool:
        """A place at its end; when there is none, the node that has most links there loses the last one."""
        who = self._places.gives_way(upload.node_id)
        if who == upload.node_id:
            return False
        if who is not None:
            last = next(self.links[link] for link in reversed(self.waiting) if self.links[link].node_id == who)
            self._leave_queue(last)
            self._hands.send(last.link, Queued(0))  # it may ask again, as one who comes now
        self.waiting.append(upload.link)
        self._places.take(upload.node_id)
        return True

    def _leave_queue(self, upload: UploadLink) -> None:
        if upload.link in self.waiting:
            self.waiting.remove(upload.link)
            self._places.give_back(upload.node_id)

    def _give_slots(self, now: float) -> None:
        """To the first in the queue of those whose node has the fewest."""
        while self._slots.total < UPLOAD_SLOTS and self.waiting:
            upload = min(map(self.links.__getitem__, self.waiting), key=lambda one: self._slots.held(one.node_id))
            self._leave_queue(upload)
            upload.told_position = 0
            self._hold_slot(upload, now, now + SLOT_RESERVED - SLOT_IDLE)
            self._hands.send(upload.link, Queued(0))

    def _share_slots(self, now: float) -> None:
        """A node that has several slots gives one to a node that waits and would not have more with it."""
        for upload in [self.links[link] for link in self.waiting]:
            who = self._slots.gives_way(upload.node_id)
            if upload.has_slot or who is None or who == upload.node_id:
                continue
            holding = [one for one in self.links.values() if one.has_slot and one.node_id == who]
            self._end_turn(min(holding, key=lambda one: one.slot_at))
            self._give_slots(now)

    def _end_turn(self, upload: UploadLink) -> None:
        """Take its slot back, and let it wait for the next one; it is told so, for it has to ask again."""
        self._free_slot(upload)
        upload.jobs.clear()
        self._enter_queue(upload)

    def on_timer(self, now: float) -> None:
        """About once a second: pass idle and long-held slots on, tell the queue how it moves."""
        self._pump(now)
        if not self.waiting:
            return
        for upload in self.links.values():
            is_busy = upload.jobs or upload.reading_bytes or self._hands.backlog(upload.link)
            if not is_busy and now - upload.used_at >= SLOT_IDLE:
                self._free_slot(upload)
        self._end_turns(now)
        self._give_slots(now)
        for place, link in enumerate(self.waiting):
            upload = self.links[link]
            if upload.told_position != place + 1:
                upload.told_position = place + 1
                self._hands.send(link, Queued(place + 1))

    def _end_turns(self, now: float) -> None:
        """Take back as many slots as others wait for, of those who are frozen or slow, or have held theirs for long."""
        holding = sorted((one for one in self.links.values() if one.has_slot), key=lambda one: one.slot_at)
        wanted = len(self.waiting) - (UPLOAD_SLOTS - len(holding))
        frozen = [one for one in holding if self._is_frozen(one, now) or self._is_slow(one, now)]
        ended = frozen[: max(0, wanted)]
        if now - self._turns_ended_at >= SLOT_TURN_STEP:
            long_held = [one for one in holding if one not in frozen and now - one.slot_at >= SLOT_TURN]
            ended += long_held[: max(0, wanted - len(ended))]
        for upload in ended:
            self._end_turn(upload)
            if upload not in frozen:
                self._turns_ended_at = now

    def _is_frozen(self, upload: UploadLink, now: float) -> bool:
        """Does it take nothing of what was sent? (What is still being read is the disk's fault.)"""
        self._on_way(upload, now)
        return self._hands.backlog(upload.link) > LINK_LOW and now - upload.seen_at >= SLOT_FROZEN

    def _is_slow(self, upload: UploadLink, now: float) -> bool:
        """Was so little delivered to it that others should have its slot? (Nor is the disk's slowness its fault.)"""
        seconds = now - upload.rated_at
        if seconds < SLOT_SLOW_AFTER:
            return False
        before, upload.rated_bytes = upload.rated_bytes, self._delivered(upload)
        upload.rated_at = now
        return not upload.reading_bytes and upload.rated_bytes - before < SLOT_SLOW_RATE * seconds

    def _delivered(self, upload: UploadLink) -> int:
        return upload.read_bytes - self._hands.backlog(upload.link)

    # ---- who wants to know

    def subscribe(self, link: int, file_id: bytes) -> None:
        upload = self.links[link]
        if len(upload.told) < SUBSCRIPTIONS_MAX:
            upload.told.add(file_id)

    def has_work(self) -> bool:
        """Is there something that time may bring on?"""
        return bool(self.waiting) or any(upload.jobs for upload in self.links.values())

    def subscribers(self, file_id: bytes) -> List[int]:
        return [upload.link for upload in self.links.values() if file_id in upload.told]

    def rows(self, now: float) -> List[Tuple[UploadLink, bytes, Sent]]:
        """What was sent in the last three seconds, to whom."""
        sent_now = [(link, file_id, sent) for _, (link, file_id), sent in self._sent.all() if now - sent.at < 3.0]
        return [(self.links[link], file_id, sent) for link, file_id, sent in sent_now if link in self.links]

    # ---- what was sent

    def sent_on(self, upload: UploadLink) -> List[Tuple[bytes, Sent]]:
        """Which contents it got, and how much of each; its link may be lost."""
        of_node = self._sent.of(upload.node_id)
        return [(file_id, sent) for (link, file_id), sent in of_node if link == upload.link]

    def forget_sent(self, upload: UploadLink, file_id: bytes) -> Optional[Sent]:
        """It is told, or was never to be."""
        sent: Optional[Sent] = self._sent.pop(upload.node_id, (upload.link, file_id))
        return sent

    def go_on_from(self, before: UploadLink, upload: UploadLink) -> None:
        """An earlier link of the same node is lost: what it got there counts together with what it gets here."""
        for file_id, sent in self.sent_on(before):
            self.forget_sent(before, file_id)
            here = self._sent.get(upload.node_id, (upload.link, file_id))
            if here is not None:
                sent = here._replace(started_at=sent.started_at, size=here.size + sent.size)
            self._sent.put(upload.node_id, (upload.link, file_id), sent)
        upload.folders.extendleft(reversed([folder for folder in before.folders if folder not in upload.folders]))
