"""The taker: a content that is fetched here comes by a cast, if its source sends one, and by links as ever if not.

    CastWanted to a source that has it all  ->  CastOffer: the group is joined  ->  a probe is heard: CastReady
    CastComing: those pieces are asked of nobody  ->  pieces, CastTaken ...  ->  all here, CastEnd, silence or trouble

At its end, whatever the reason, what is missing is asked for by links. Each `Catching` belongs to one `Fetch`. Pure.
"""

from __future__ import annotations

import math
from typing import Any, Callable, Dict, List, NamedTuple, Optional

from protocol import mishaps
from protocol.casts import (
    BRINGS_NOTHING,
    CAST_PIECE_MAX,
    CastHeard,
    CastOver,
    CastPiece,
    CastPlan,
    CastReport,
    slice_size_of,
)
from protocol.content.pieces import has_piece
from protocol.exchange.cast import INTERVAL_MIN
from protocol.exchange.casting import CAST_SIZE_MIN
from protocol.exchange.download import Download
from protocol.exchange.picking import bitmap_of
from protocol.exchange.source import Source
from protocol.messages import CastComing, CastEnd, CastOffer, CastReady, CastSixWanted, CastTaken, CastWanted, Hole
from protocol.network import CastNetwork

log = mishaps.logger("transfer")

WRONG_MAX = 3  # pieces of a cast that were not what their digests say: somebody sends to the group who should not
INTERVAL_MAX = 10.0  # seconds between two reports
HELD_MAX = 0.5  # seconds in which a caster that was heard is not asked for pieces, until the cast begins
OFFERS_MAX, OFFERS_EACH = 4, 2  # casts of one content that are tried, and of them by one host
ASKED_MAX = 8  # hosts that are asked for one, one after the other
OFFER_PATIENCE = 3.0  # seconds from the question until the next one is asked, too: this one may be a liar or too old
BEGIN_PATIENCE = 5.0  # seconds from an offer until it is worth no more than another one: it was to begin within three
BESIDE_FIRST, BESIDE_MAX = 1.0, 30.0  # seconds until something is asked for beside the cast; the double each time that
BESIDE_LOSS = 0.03  # more than this part of the cast was lost meanwhile: there was no room for it
HOPES = (0.1, 1.0, 0.5, 1.5)  # seconds in which a source may be called, be there, offer a cast, and begin it


class _Asked(NamedTuple):
    """A source that was told that a cast is wanted."""

    host: str
    is_six: bool


class Catching:
    """What comes of one content by a cast."""

    def __init__(
        self, download: Download, network: CastNetwork, send: Callable[[int, Any], None], may: Callable[[], bool]
    ) -> None:
        self.takers = 0  # at once, as the caster told when it began; 0: none is on its way here
        self.node_id = b""  # the caster's
        self._download = download
        self._network = network
        self._send = send
        self._may = may  # is a cast wanted here at all?
        self._asked: Dict[int, _Asked] = {}  # by link
        self._asked_at: Dict[str, float] = {}  # when each host was first
        self._is_in_vain = False  # there is a source that has it all, and cannot cast
        self._session: Optional[bytes] = None
        self._link = 0  # the caster's
        self._is_six = False  # does it go by IPv6?
        self._begun: Optional[CastOffer] = None  # an offer of one that had begun before
        self._offered_at = -math.inf  # when the cast that is listened to was
        self._held_at = 0.0  # when the caster was asked for nothing more
        self._wrong = 0
        self._beside_pause = BESIDE_FIRST  # until the next try whether there is room for more than the cast
        self._beside_at = math.inf
        self._offers: Dict[str, int] = {}  # that were taken, by host
        self._steps = -1  # towards a cast, when they were last looked at,
        self._hoped_until = -math.inf  # and how long that lets hope

    @property
    def session(self) -> Optional[bytes]:
        """Of the cast that this node listens to."""
        return self._session

    # ---- wanting

    def look(self, place_of: Callable[[int], Any], now: float) -> None:
        """Is there a source, among those that have it all, that could cast it? The same one for all: the least id.

        When nothing comes of that in its time, it is the next, and so on.
        """
        if self._may_look(now):
            download = self._download
            whole = sorted((one for one in download.sources.values() if one.is_complete), key=lambda one: one.node_id)
            self._ask_first(whole, place_of, now)

    def _may_look(self, now: float) -> bool:
        download, choice = self._download, self._download.choice
        if choice is None or self._is_taken_up(now) or not self._may_try():
            return False
        is_much = choice.missing * download.piece_size >= CAST_SIZE_MIN and download.piece_size <= CAST_PIECE_MAX
        return is_much and not download.is_in_order and self._may()

    def _is_taken_up(self, now: float) -> bool:
        """Does one come, or was one offered a moment ago?"""
        return self._session is not None and (self.takers > 0 or now - self._offered_at < BEGIN_PATIENCE)

    def _may_try(self) -> bool:
        return sum(self._offers.values()) < OFFERS_MAX

    def _ask_first(self, whole: List[Source], place_of: Callable[[int], Any], now: float) -> None:
        """One after the other, each that was not; until one has its time for an offer, which its host has but once."""
        places = [(source.link, (place_of(source.link) or ("",))[0]) for source in whole]
        able = [(link, ip) for link, ip in places if ip and self._network.can_cast(ip)]
        self._is_in_vain = bool(places) and not able
        for link, ip in able:
            asked_at = self._asked_at.get(ip, now)
            if link not in self._asked and (ip in self._asked_at or len(self._asked_at) < ASKED_MAX):
                self._asked[link], self._asked_at[ip] = _Asked(ip, ":" in ip), asked_at
                self._send(link, (CastSixWanted if ":" in ip else CastWanted)(self._download.file_id))
            if now - asked_at < OFFER_PATIENCE:
                return

    def is_hoped_for(self, size: int, is_called: bool, now: float) -> bool:
        """Does this content, of that size, come by a cast, or may it yet? One that has ended lets hope for no other.

        `is_called`: a source is there, or is called and may be there soon. On a machine that is full that takes long,
        and it would be fuller yet if all called each other meanwhile.
        """
        if self.takers:
            return True
        if self._is_in_vain or (self._offers and self._session is None):
            return False
        steps = is_called + len(self._asked) + (self._session is not None)
        if steps > self._steps:
            hope = HOPES[3 if self._session is not None else min(steps, 2)]
            self._steps, self._hoped_until = steps, now + hope
        return now < self._hoped_until and size >= CAST_SIZE_MIN and not self._download.is_in_order and self._may()

    # ---- what the caster says

    def on_message(self, link: int, node_id: bytes, place: Any, message: Any, now: float) -> bool:
        """From a source; False if it was not asked for."""
        if isinstance(message, CastOffer):
            return self._on_offer(link, node_id, place, message, now)
        if self._session is None or link != self._link or message.session != self._session:
            return isinstance(message, CastEnd)  # of one that has ended here
        if isinstance(message, CastComing):
            return self._on_coming(message, now)
        self.end(now)
        return True

    def _on_offer(self, link: int, node_id: bytes, place: Any, message: CastOffer, now: float) -> bool:
        """A source offers a cast: its group is joined, if nothing better is under way. False: none was asked of it."""
        asked = self._asked.get(link)
        if asked is None or place is None:
            return False
        offers = self._offers.get(asked.host, 0)
        is_same = (":" in place[0]) == asked.is_six  # the link may have moved since
        if is_same and offers < OFFERS_EACH and self._may_try() and not self._is_taken_up(now):
            self.leave(now)
            self._offers[asked.host] = offers + 1
            self._session, self._link, self.node_id, self._wrong = message.session, link, node_id, 0
            self._is_six, self._offered_at = asked.is_six, now
            self._begun = message if message.coming else None
            self._network.cast_join(message.session, place[0])
        return True

    def _on_coming(self, message: Any, now: float) -> bool:
        """The cast begins: what it brings is asked of nobody, and the network told to take it. False: not of ours."""
        download, choice = self._download, self._download.choice
        if self.takers or choice is None:
            return False
        if len(message.coming) != (choice.count + 7) // 8:  # of another content: nothing would ever end it
            self.leave(now)
            return False
        is_awaited = [index for index in range(choice.count) if has_piece(message.coming, index)]
        coming = bitmap_of(download.cast.expect(is_awaited), choice.count)
        download.hold(self._link, False, now)
        interval = min(max(message.interval_ms / 1000, INTERVAL_MIN), INTERVAL_MAX)
        self.takers = max(1, message.takers)
        self._beside_at = now + self._beside_pause
        slices = slice_size_of(self._is_six)
        self._network.cast_take(message.session, CastPlan(download.size, download.piece_size, coming, interval, slices))
        return True

    # ---- what the network tells

    def on_event(self, event: Any, now: float) -> None:
        """Of the session that is listened to."""
        if isinstance(event, CastHeard):
            self._on_heard(event, now)
        elif isinstance(event, CastPiece):
            if not self._download.cast.on_piece(event.index, event.data):
                self._network.cast_done(event.session, len(event.data))
        elif isinstance(event, CastReport):
            self._on_report(event, now)
        elif isinstance(event, CastOver):
            log.info("id %s: no cast here any more: %s", self._download.file_id.hex()[:8], event.reason)
            if event.reason == BRINGS_NOTHING:
                self._take_no_more_of_it()
            self.leave(now)

    def _on_heard(self, event: CastHeard, now: float) -> None:
        """Say so; what was asked of the caster need not come, so that its next words need not wait behind that."""
        choice = self._download.choice
        if choice is None:
            return
        pieces = range(choice.count)
        missing = filter(choice.is_wanted, pieces)
        told = CastReady(self._download.file_id, event.session, bitmap_of(missing, choice.count))
        self._send(self._link, told)
        if self._begun is not None:
            self._on_coming(self._begun, now)
        else:
            self._download.hold(self._link, True, now)
            self._held_at = now

    def check(self, now: float) -> None:
        """With each tick: a cast that does not begin is not waited for."""
        if self._session is not None and not self.takers and now - self._held_at >= HELD_MAX:
            self._download.hold(self._link, False, now)

    def _on_report(self, event: CastReport, now: float) -> None:
        holes = tuple(Hole(*hole) for hole in event.holes)
        about = self._download.file_id, event.session, event.highest, event.received, event.lost
        self._send(self._link, CastTaken(*about, event.is_through, holes))
        if event.is_through:
            self.end(now)
        else:
            self._look_beside(event, now)

    def _look_beside(self, event: CastReport, now: float) -> None:
        """Who came late needs what was cast before, too: of others, if the link carries more than the cast."""
        if event.lost > BESIDE_LOSS * (event.lost + event.received):
            self._beside_pause = min(2 * self._beside_pause, BESIDE_MAX)
            self._beside_at = now + self._beside_pause
        self._download.cast.ask_beside(now >= self._beside_at, now)

    def on_written(self, size: int, is_right: bool, now: float) -> None:
        """A piece of it was verified and written, or thrown away."""
        if self._session is None:
            return
        self._network.cast_done(self._session, size)
        self._wrong += not is_right
        if self._wrong >= WRONG_MAX:
            log.info("id %s: the cast brings wrong pieces; it is left", self._download.file_id.hex()[:8])
            self._take_no_more_of_it()
            self.leave(now)

    def _take_no_more_of_it(self) -> None:
        """With one such cast after the other its host could have us wait for minutes."""
        asked = self._asked.get(self._link)
        if asked is not None:
            self._offers[asked.host] = OFFERS_EACH

    # ---- the end

    def on_link_lost(self, link: int, now: float) -> None:
        """If the one that casts was there, nothing more comes by its cast."""
        self._asked.pop(link, None)
        if link == self._link:
            self.end(now)

    def leave(self, now: float) -> None:
        """End it of our own will: the caster is told."""
        if self._session is not None:
            self._send(self._link, CastEnd(self._download.file_id, self._session))
        self.end(now)

    def end(self, now: float) -> None:
        """Nothing more comes by it: the rest is asked for by links."""
        if self._session is None:
            return
        self._network.cast_end(self._session)
        self._download.hold(self._link, False, now)
        self._session, self._link, self.takers = None, 0, 0
        self._download.cast.end(now)
