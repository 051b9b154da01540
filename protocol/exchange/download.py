"""One content on its way: `Download` fetches it from several sources at once.

It does no I/O: it is handed its verbs (`DownloadHands`) and told what happened, with `now`.

A source (one link to one node) goes OPENED -> READY -> (QUEUED -> READY)* until it is dropped. Bytes in flight are
counted from the request until the piece is on the disk, so a slow disk slows the asking and memory stays bounded.
The unit of trust is the piece: the store refuses one whose digest is wrong, and the source that sent it gets a strike.
"""

from __future__ import annotations

import math
import random
from functools import partial
from typing import Any, Dict, List, Optional, Protocol, Sequence

from protocol import mishaps
from protocol.content.pieces import DIGEST_BYTES, PIECES_MAX
from protocol.exchange.cast_source import CastSource
from protocol.exchange.debts import DebtHands, Debts
from protocol.exchange.manifest import Lie, ManifestHands, ManifestsAsked
from protocol.exchange.patience import Patience, Verdict
from protocol.exchange.picking import REQUESTS_PER_LINK_MAX, PieceChoice, in_flight_limit
from protocol.exchange.source import Source, SourceState
from protocol.messages import (
    NO_PIECE,
    AnyPieceRequest,
    CheckBulk,
    ManifestPage,
    PieceMap,
    PieceMapRequest,
    PieceRequest,
    WrongPiece,
)
from protocol.rates import Rate

log = mishaps.logger("transfer")


class DownloadHands(ManifestHands, DebtHands, Protocol):
    """What a Download wants done, by whoever has it made."""

    def requests_on(self, link: int) -> int:
        """Pieces asked on this link, for whichever download."""

    def arrived_on(self, link: int) -> int:
        """Bytes that have come by this link, of whole messages and of the one that is on its way; 0: not known."""

    def has_room(self, size: int) -> bool:
        """May so many bytes more be in flight, all downloads together?"""

    def may_ask(self, now: float) -> bool:
        """Does the limit of what is fetched let more be asked for now? If not, `fill_all` comes when it does."""

    def open_pieces(self, size: int, digests: bytes) -> None:
        """Make or resume the part file; answered by `on_opened`."""

    def on_piece(self, index: int, now: float) -> None:
        """One piece more is verified."""

    def on_all_pieces(self, now: float) -> None: ...

    def on_strike(self, source: Source, why: str, is_proof: bool, now: float) -> None:
        """It sent what is not true; with `is_proof` on purpose."""

    def on_useless(self, source: Source, why: str, now: float) -> None:
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
        self._fellows_to_come = 0
        self.verified_bytes = 0
        self.rate = Rate(now)
        self.is_opening = False
        self.is_ended = False
        self.dropped = 0  # messages that nobody asked for
        self._in_order = False  # are the pieces to come one behind the other?
        self.asked_at = -math.inf  # when a piece was asked for last
        self._hands = hands
        self._rng = rng
        self._manifests = ManifestsAsked(file_id, hands)
        self._debts = Debts(file_id, hands)
        self.cast = CastSource(self, self._debts)
        self._patience = Patience()

    @property
    def in_flight_bytes(self) -> int:
        """Asked, or received and not yet written."""
        return self._debts.in_flight_bytes

    @property
    def is_in_order(self) -> bool:
        """Are the pieces to come one behind the other?"""
        return self._in_order

    def wish_order(self, in_order: bool) -> None:
        """Shall the pieces come one behind the other? Where they are chosen already, they are not chosen anew."""
        self._in_order = in_order

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

    def expect_fellows(self, count: int) -> None:
        """So many are not called yet, and will give their part: windows are as if they gave it already."""
        self._fellows_to_come = count

    def take_as_giver(self, link: int, now: float) -> None:
        """It has something of the content, and so the manifest, too."""
        source = self.sources.get(link)
        if source is not None and source.take_as_giver():
            self._want_manifest(now)

    def remove_source(self, link: int, now: float) -> Optional[Source]:
        """The link is lost, or it shall not be asked any more."""
        source = self.sources.pop(link, None)
        if source is None:
            return None
        log.info("id %s: %s is no source any more", self.file_id.hex()[:8], source.label)
        self._debts.release(source, self.choice, cancel=not self.is_ended)
        self._manifests.forget(link)
        if self.choice is not None:
            self.choice.remove_map(link)
        self._want_manifest(now)
        self.fill_all(now)
        return source

    def _want_manifest(self, now: float) -> None:
        if self.choice is None and not self.is_opening:
            self._manifests.ask_one(self.sources.values(), now)

    def end(self) -> None:
        """No more is wanted, of anyone."""
        self.is_ended = True
        for source in self.sources.values():
            self._debts.release(source, self.choice, cancel=True)

    # ---- manifest and map

    def on_manifest_page(self, link: int, page: ManifestPage, now: float) -> None:
        """A page of the digests of all pieces; when they are whole and give the content's id, it may be opened."""
        source = self.sources.get(link)
        is_over = self.choice is not None or self.is_opening
        if source is None or is_over or link not in self._manifests:
            self.dropped += 1
            return
        source.on_manifest_page(now)
        try:
            whole = self._manifests.on_page(link, page, now)
        except Lie as lie:
            self._hands.on_strike(source, str(lie), True, now)
            self._want_manifest(now)
            return
        if whole is not None:
            self.open(*whole)

    def open(self, size: int, digests: bytes) -> None:
        """The manifest is known and true."""
        self.size, self.digests, self.is_opening = size, digests, True
        self.piece_size = self._hands.piece_size_of(size)
        self._hands.open_pieces(size, digests)

    def on_opened(self, bitmap: bytes, now: float) -> None:
        """The store is ready; `bitmap` is what it has from an earlier time."""
        if self.is_ended:
            return
        self.is_opening = False
        if self.choice is not None:
            self._on_opened_again(self.choice, bitmap, now)
            return
        count = len(self.digests) // DIGEST_BYTES
        self.choice = PieceChoice(count, bitmap, self._rng, self._in_order)
        self.verified_bytes = sum(self.length_of(index) for index in range(count) if self.choice.is_verified[index])
        self.rate = Rate(now)
        for source in self.sources.values():
            source.apply_map(self.choice)
        if not self.choice.missing:
            self._hands.on_all_pieces(now)
            return
        self.fill_all(now)

    def verified_count(self) -> int:
        """How many pieces are here."""
        return self.choice.count - self.choice.missing if self.choice is not None else 0

    def length_of(self, index: int) -> int:
        """Bytes of a piece: the last one is shorter, as a rule."""
        return min(self.piece_size, self.size - index * self.piece_size)

    def open_again(self) -> None:
        """Something else was at the store: it is asked anew what it has, answered by `on_opened`."""
        self.is_opening = True
        self._hands.open_pieces(self.size, self.digests)

    def _on_opened_again(self, choice: PieceChoice, bitmap: bytes, now: float) -> None:
        self.verified_bytes -= sum(map(self.length_of, choice.lose_all_but(bitmap)))
        if choice.missing:
            self.fill_all(now)
        else:
            self._hands.on_all_pieces(now)

    def on_piece_map(self, link: int, piece_map: PieceMap, now: float) -> None:
        """Which pieces a source has; whatever it gets later it tells by itself."""
        source = self.sources.get(link)
        if source is None or len(piece_map.bitmap) > PIECES_MAX // 8 or not source.on_map(piece_map, now):
            self.dropped += 1
            return
        if self.choice is not None:
            source.apply_map(self.choice)
            self._fill(source, now)

    def on_new_pieces(self, link: int, indexes: Sequence[int], now: float) -> None:
        """The source has these pieces, too."""
        source = self.sources.get(link)
        if source is None or (self.choice is None and max(indexes, default=0) >= PIECES_MAX):
            self.dropped += 1
            return
        self.take_as_giver(link, now)
        if source.on_new_pieces(indexes, self.choice, now):
            self._fill(source, now)

    # ---- asking

    def fill_all(self, now: float) -> None:
        """Ask every source for as much as its window allows, the fastest first."""
        if self.choice is None or not self.choice.has_something(now):
            return
        sources = self._askable()
        if len(sources) > 1:  # all together have room for so much in flight: who gives it back soonest goes first
            sources.sort(key=lambda source: -source.per_second(now))
        for source in sources:
            self._fill_as_one_of(len(sources), source, now)

    def _askable(self) -> List[Source]:
        return [source for source in self.sources.values() if source.may_be_asked()]

    def _fill(self, source: Source, now: float) -> None:
        if source.may_be_asked():
            self._fill_as_one_of(len(self._askable()), source, now)

    def _fill_as_one_of(self, sources: int, source: Source, now: float) -> None:
        """Ask it for pieces while its window, as one of so many sources, and all limits leave room for one more."""
        choice = self.choice
        if choice is None or not choice.missing or self.is_ended or not choice.has_something(now):
            return
        window = source.window(sources + self._fellows_to_come, self.piece_size, now)
        limit, is_sooner = in_flight_limit(self.piece_size), partial(self._is_sooner, source, now)
        while source.owed_bytes + self.piece_size <= window and self.in_flight_bytes + self.piece_size <= limit:
            if not self.cast.lets_ask():
                return
            if self._hands.requests_on(source.link) >= REQUESTS_PER_LINK_MAX:
                return
            if self.in_flight_bytes and not self._hands.has_room(self.piece_size):
                return  # but one piece is allowed to each, so that none starves
            if not self._hands.may_ask(now):
                self._patience.on_held_back(now)
                return
            index = choice.choose(source.link, now, is_sooner)
            if index is None:
                return
            self._ask(source, index, now)

    def _is_sooner(self, source: Source, now: float, asked: Any) -> bool:
        """Would it bring a piece sooner than who was asked for it? Ten who share one slow link would all bring two."""
        owing = self.sources.get(asked.source)
        return owing is None or source.is_sooner(self.piece_size, owing, asked.at, now)

    def _ask(self, source: Source, index: int, now: float) -> None:
        self._debts.ask(source, index, self.length_of(index), now)
        self.asked_at = now
        kind = AnyPieceRequest if self._may_be_other(source, index) else PieceRequest
        self._hands.send(source.link, kind(self.file_id, index))

    def _may_be_other(self, source: Source, index: int) -> bool:
        """Is this the only source of a piece that many want? Then it shall not give one twice before all once."""
        if self._in_order or not (source.is_complete and source.takes_other):
            return False
        if self.choice is None or not self.choice.is_rare(index):
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
            self._debts.forgive(source, asked)
        if self.choice.swap(link, asked, given, now):
            self._debts.exchange(source, given, self.length_of(given))
            return
        source.refuse_others()
        self._debts.refuse(source, self.choice, given)
        self._fill(source, now)

    # ---- receiving

    def on_piece_data(self, link: int, index: int, offset: int, data: Any, now: float) -> None:
        """Bytes of a piece; the data are not copied when the piece comes whole."""
        source = self.sources.get(link)
        owed = source.owed.get(index) if source is not None else None
        if source is None or owed is None:
            if source is None or not self._take_late(source, index, offset, data, now):
                self.dropped += 1  # never asked for, or cancelled meanwhile
            return
        size = len(data)
        if offset != owed.received:
            # The rest of an earlier answer that was cancelled; the whole of the new one follows it.
            self.dropped += 1
            return
        source.note_sign(now)
        if not size or offset + size > owed.length:
            self._debts.forgive(source, index)
            self._reopen_for(source, index)
            self._hands.on_strike(source, "a piece of the wrong length", True, now)
            return
        source.count(size, now)
        whole = owed.add(data)
        if whole is not None:
            self._on_whole_piece(source, index, whole, now)

    def _take_late(self, source: Source, index: int, offset: int, data: Any, now: float) -> bool:
        """It brings what was taken back from it: welcome all the same, if it is whole and has not come from another."""
        choice, was_owed = self.choice, source.note_late(index, len(data), now)
        if choice is None or self.is_ended or self.is_opening or not was_owed or not choice.is_wanted(index):
            return False
        if offset or len(data) != self.length_of(index):
            return False
        self._hands.note_asked(len(data))
        return self._debts.write(choice, index, data, source.link)

    def _reopen_for(self, source: Source, index: int) -> None:
        if self.choice is not None:
            self.choice.release(source.link, index)

    def _on_whole_piece(self, source: Source, index: int, data: Any, now: float) -> None:
        assert self.choice is not None
        self._debts.forgive(source, index)
        self._debts.write(self.choice, index, data, source.link)
        self._fill(source, now)

    def hold(self, link: int, is_held: bool, now: float) -> None:
        """Ask this source for nothing, nor wait for what it owes; or ask it again."""
        source = self.sources.get(link)
        if source is None or source.is_held == is_held:
            return
        source.hold(is_held)
        if is_held:
            self._debts.release(source, self.choice, cancel=True)
        else:
            self._fill(source, now)

    def on_written(self, index: int, link: int, is_right: bool, now: float) -> None:
        """The store has verified and written a piece, or refused it."""
        self._debts.on_written(self.length_of(index))
        choice = self.choice
        if choice is None or self.is_ended:
            return
        if not is_right:
            self._on_wrong_piece(index, link, now)
            return
        source = self.sources.get(link)
        if source is not None:
            source.note_right(index)
        others: List[Any] = choice.verify(index)  # by their links
        for other in others:
            self._debts.cancel(self.sources.get(other), index)
        self.verified_bytes += self.length_of(index)
        self.rate.add(self.length_of(index), now)
        self._hands.on_piece(index, now)
        if choice.missing:
            self.fill_all(now)
        else:
            self._hands.on_all_pieces(now)

    def _on_wrong_piece(self, index: int, link: int, now: float) -> None:
        """What came by that link is not what was announced: the piece is asked for anew, of the others first."""
        assert self.choice is not None
        for one in self.sources.values():
            if one.link != link:
                self._debts.cancel(one, index)
        source = self.sources.get(link)
        is_excused = source is not None and index in source.asked_unchecked
        # Their packets carry no checksum, for pieces have digests: so the first wrong one may be the path's fault.
        if source is not None and source.note_wrong(self.choice.asked_of(link)):
            self._hands.send(link, CheckBulk())
        self.choice.reopen(index)
        for one in list(self.sources.values()):
            if one.link != link:  # the others are asked before the one that was wrong
                self._fill(one, now)
        if source is not None and not is_excused:
            self._hands.send(link, WrongPiece(self.file_id, index))
            self._hands.on_strike(source, "a wrong piece", False, now)
        self.fill_all(now)

    def on_piece_refused(self, link: int, index: int, now: float) -> Optional[Source]:
        """The source that does not give a piece, if it was asked; the reasons are the caller's to judge."""
        source = self.sources.get(link)
        if source is None:
            self.dropped += 1
            return None
        was_owed = index in source.owed
        if was_owed:
            self._debts.take_back(source, index)
            if self.choice is not None:
                self.choice.remove_piece(link, index)
                self.choice.release(link, index)
                self.fill_all(now)
        return source if was_owed or index == NO_PIECE else None

    def on_queued(self, link: int, position: int, now: float) -> None:
        """The source has no upload slot for us, or now it has."""
        source = self.sources.get(link)
        if source is None or source.state is SourceState.OPENED:
            return
        was_queued = source.state is SourceState.QUEUED
        if not source.on_queued(position, now):
            self.dropped += 1  # each time we would ask anew
        elif position:
            self._debts.release(source, self.choice, cancel=False)  # who has us wait has forgotten what was asked
            self.fill_all(now)
        elif was_queued:
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
        self._manifests.on_slept(seconds, now)
        for source in self.sources.values():
            source.on_slept(seconds, now)

    def _check(self, source: Source, now: float) -> None:
        """Was it silent or slow for too long? Then it is passed over, or of no use."""
        self._manifests.ask_instead(source.link, self.sources, now)
        source.note_arrived(self._hands.arrived_on(source.link), now)
        if self.is_opening:
            source.rest()
            return
        verdict = self._patience.judge(source, self.sources.values(), self.choice, now)
        if verdict is Verdict.PASS_OVER:
            source.pass_over()
            self._debts.release(source, self.choice, cancel=True)
        elif verdict is not None:
            self._hands.on_useless(source, verdict.value, now)
