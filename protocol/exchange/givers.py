"""Who gives a content that is wanted: taken as a source, called where nothing led yet, left alone, heard.

A node is taken when it offers the content, or (a *fellow*) because it fetches the same; there are places for so many,
and who only lets us wait makes room. One to whom no way leads is remembered as such: what it has comes by way of the
supernode meanwhile, and from itself as soon as a way is found.

`Givers` belongs to one `Fetch` and is what its links tell (their `Taker`). Pure.
"""

from __future__ import annotations

import math
import random
from typing import Any, Callable, Dict, List, Optional, Protocol

from protocol import mishaps
from protocol.exchange.callers import NOT_A_MEMBER_REASON
from protocol.exchange.casting import TAKERS_MIN
from protocol.exchange.catching import Catching
from protocol.exchange.contracts import Members
from protocol.exchange.download import Download
from protocol.exchange.lookout import USELESS_TIME, Lookout
from protocol.exchange.serving import MESH_OFF_REASON
from protocol.exchange.source import DROP_AFTER, Source, SourceState
from protocol.exchange.sources import SourceLink, SourceLinks
from protocol.exchange.telling import Hearing
from protocol.messages import (
    FILE_CHANGED,
    UNKNOWN_FILE,
    CastComing,
    CastEnd,
    CastOffer,
    ManifestPage,
    NewPieces,
    Offer,
    OtherPiece,
    PieceData,
    PieceMap,
    PieceRefused,
    TraitsPage,
    TransferDone,
)
from protocol.results import ListEntry

log = mishaps.logger("transfer")

SOURCES_MAX = 10  # of one content at once
WHOLE_SOURCES_MORE = 4  # that have it all, beyond those
FELLOWS_WANTED = 12  # of those who fetch the same: each of more is taken by lot, so that no few serve all
FELLOWS_KEPT_MAX = 64  # drawn, and not called yet because a cast may come: by it each gets what a fellow could give
FEW_PATIENCE = 0.3  # seconds from the first of them; by then they are as many as a cast takes, or are called
HOPE_LOOK = 0.15  # seconds until it is looked whether there is still hope of a cast
MISSED_MAX = 64  # that offer one content, and cannot be reached
# Seconds, or round trips to the supernode if those are more, until it is asked by way of the supernode, too.
CALL_PATIENCE, CALL_ROUND_TRIPS = 1.0, 3.0
KNOCK_PATIENCE = 0.5  # the same while both only knock, ten times a second: a way that there is shows after two or three
SILENT_PATIENCE = 5.0  # seconds in which a source sends nothing of what it owes, until the supernode is asked as well
UNREACHABLE_TIME = 10.0  # a node that could not be connected to is not tried again so long


class Wanted(Protocol):
    """The content that they give (`Fetch`)."""

    @property
    def file_id(self) -> bytes: ...
    @property
    def name(self) -> str: ...
    @property
    def folder(self) -> Optional[ListEntry]: ...
    @property
    def is_complete(self) -> bool: ...
    @property
    def is_ended(self) -> bool: ...

    def may_take_source(self, now: float) -> bool:
        """Is there a place for it among those that are offered? If not, it has failed."""


class Givers:
    """The nodes that give one content, or may. Implements Taker."""

    def __init__(
        self,
        wanted: Wanted,
        download: Download,
        lookout: Lookout,
        links: SourceLinks,
        hearing: Hearing,
        members: Members,
        rng: random.Random,
        wake: Callable[[float], None],
        catching: Catching,
    ) -> None:
        self.file_id = wanted.file_id
        self._wanted = wanted
        self._download = download
        self._lookout = lookout
        self._links = links
        self._hearing = hearing
        self._catching = catching
        self._members = members
        self._rng = rng
        self._wake = wake  # look at all fetches by then
        self._no_way_since: Optional[float] = None  # who offers it is nowhere that may be called
        self._fellows: Dict[bytes, float] = {}  # who are yet to be called, and when they were met
        self._offered: Dict[bytes, bool] = {}  # by whom, though there is no way to it; has it all?

    # ---- sources

    def on_offer(self, offer: Offer, now: float) -> None:
        """Somebody has (pieces of) it."""
        if self._links.standing.is_left_alone(offer.provider, self.file_id, now):
            return
        is_ruler = self._members.is_supernode or offer.provider == self._members.supernode_id
        if is_ruler or (self._members.mesh and offer.mesh):
            self._take_offer(offer.provider, offer.complete, now)
        elif self._lookout.on_closed_offer(now):
            self._wake(self._lookout.search_at)

    def _take_offer(self, provider: bytes, is_whole: bool, now: float) -> None:
        """Ask it; or at once by way of the supernode, where no way leads to it, or led a short while ago."""
        is_hopeless = self._links.is_unreached(provider, now) or self._members.is_out_of_reach(provider)
        if self._links.to(provider) is None and is_hopeless:
            self._miss(provider, is_whole)
            self._go_via(now)
        else:
            self.use(provider, now, is_whole)

    def on_reached(self, node_id: bytes, now: float) -> None:
        """A way was found to one that offered it, and could not be reached."""
        if node_id in self._offered and not self._wanted.is_complete and not self._wanted.is_ended:
            self._links.standing.pardon(node_id, self.file_id)
            self.use(node_id, now, self._offered[node_id])

    def _miss(self, provider: bytes, is_whole: bool) -> None:
        """It offers this content, and nothing leads there yet."""
        if len(self._offered) < MISSED_MAX:
            self._offered[provider] = is_whole

    def meet(self, node_id: bytes, now: float) -> None:
        """Take one who fetches the same as a source, before it has anything of it."""
        if self._wanted.is_complete or self._lookout.is_via or node_id == self._members.node_id:
            return
        is_open = self._members.mesh and self._members.has_mesh(node_id)
        is_left_alone = self._links.standing.is_left_alone(node_id, self.file_id, now)
        if is_open and not is_left_alone and self._is_drawn():
            self._fellows[node_id] = now
            self._download.expect_fellows(len(self._fellows))
            self.call_fellows(now)
            self._wake(now + HOPE_LOOK)

    def call_fellows(self, now: float) -> None:
        """Those who were met and not called: not while a cast comes or may come, for that brings all that they have."""
        if not self._fellows or self._is_cast_hoped_for(now):
            return
        fellows, self._fellows = self._fellows, {}
        self._download.expect_fellows(0)
        for node_id in fellows:
            if not self._links.standing.is_left_alone(node_id, self.file_id, now):
                self.use(node_id, now, is_fellow=True)

    def _is_cast_hoped_for(self, now: float) -> bool:
        are_few = len(self._fellows) < TAKERS_MIN - 1 and now - min(self._fellows.values()) >= FEW_PATIENCE
        if len(self._fellows) > FELLOWS_KEPT_MAX or (are_few and self._catching.session is None):
            return False
        is_called = any(not link.is_fellow(self.file_id) for link in self._links.of(self.file_id))
        return self._catching.is_hoped_for(self._lookout.content.size, is_called, now)

    def _is_drawn(self) -> bool:
        """By lot, so that FELLOWS_WANTED of all members are, and no few serve all."""
        return self._rng.random() * self._members.member_count() < FELLOWS_WANTED

    def whole(self) -> List[bytes]:
        """The nodes that have all of it and give it directly."""
        sources = self._download.sources.values()
        return [] if self._lookout.is_via else [source.node_id for source in sources if source.is_complete]

    def unfollow(self) -> None:
        """Whoever tells us of new pieces of it need not any more."""
        for link in self._links.of(self.file_id):
            if link.is_up:
                self._links.send(link.link, TransferDone(self.file_id))

    def use(self, provider: bytes, now: float, is_whole: bool = False, is_fellow: bool = False) -> None:
        """Take this node as a source, by a link that is there or a new one."""
        link = self._links.to(provider)
        if link is not None and self.file_id in link.takers:
            if not is_fellow:
                self._promote(link, now)
            return
        if not self._has_place(is_whole, now) or not self._wanted.may_take_source(now):
            return
        if link is None:
            place = self._members.place_of(provider)
            if place is None and is_fellow:
                return
            if place is None:
                self._miss(provider, is_whole)
                self._no_way_since = now if self._no_way_since is None else self._no_way_since
                self._wake(now + self._patience(KNOCK_PATIENCE))
                return
            link = self._links.open(place, provider, now)
            if link is None and is_fellow:
                return
            if link is None:
                self._miss(provider, is_whole)
                self._links.standing.leave_alone(provider, self.file_id, now + UNREACHABLE_TIME)
                self._go_via(now)
                self._lookout.put_off(self._members.label_of(provider))
                return
        link.take(self, is_fellow)
        if link.is_up:
            self._add_source(link, now)
        else:
            self._wake(now + self._patience())

    def _add_source(self, link: SourceLink, now: float) -> None:
        label, is_fellow = self._members.label_of(link.node_id), link.is_fellow(self.file_id)
        if not is_fellow:
            self._ask_traits(link)
        self._download.add_source(link.link, link.node_id, label, now, is_fellow)

    def _ask_traits(self, link: SourceLink) -> None:
        """What this source tells beside the content; of what is in a folder, the folder's listing has told it."""
        of_folder = self._wanted.folder
        if of_folder is None or of_folder.file_id == self.file_id:
            for request in self._hearing.ask(link.link, self._lookout.content.is_folder):
                self._links.send(link.link, request)

    def _promote(self, link: SourceLink, now: float) -> None:
        """One who was taken because it fetches the same offers something by now."""
        if link.is_up and link.is_fellow(self.file_id):
            self._ask_traits(link)
        link.promote(self.file_id)
        self._download.take_as_giver(link.link, now)

    def _has_place(self, is_whole: bool, now: float) -> bool:
        """Is there room for one source more? One that has kept us waiting for long makes room for it."""
        if len(self._links.of(self.file_id)) < SOURCES_MAX + WHOLE_SOURCES_MORE * is_whole:
            return True
        for source in list(self._download.sources.values()):
            if source.state is SourceState.QUEUED and now - source.news_at >= DROP_AFTER:
                self.leave(source, now + USELESS_TIME, now)
                return True
        return False

    def leave(self, source: Source, until: float, now: float) -> None:
        """This source is not asked any more, and not taken again until then."""
        self._links.let_go(source.link, self.file_id, now)
        self._links.standing.leave_alone(source.node_id, self.file_id, until)
        self._lookout.on_source_lost(self._download.remove_source(source.link, now), now)

    # ---- casts

    def look_for_cast(self, now: float) -> None:
        """Is there one who could cast it? By way of the supernode there is none."""
        if not (self._lookout.is_via or self._wanted.is_ended or self._wanted.is_complete):
            self._catching.look(self._place_of, now)

    def _place_of(self, number: int) -> Any:
        """Where a link leads."""
        return next((link.place for link in self._links.of(self.file_id) if link.link == number), None)

    # ---- what comes by links (Taker)

    def on_link_up(self, link: SourceLink, now: float) -> None:
        """The link to one that was called is there: it is a source from now on."""
        self._lookout.on_reached()
        self._add_source(link, now)

    def on_link_lost(self, link: SourceLink, reason: str, now: float) -> None:
        """A source is gone, or was called in vain: it is left alone for a while, and others are looked for."""
        standing = self._links.standing
        if not link.is_up:
            self._links.note_unreached(link.node_id, now)
            standing.leave_alone(link.node_id, self.file_id, now + UNREACHABLE_TIME)
            if not link.is_fellow(self.file_id):  # a fellow has offered nothing
                self._miss(link.node_id, False)
                self._go_via(now)
                self._lookout.note_trouble(f"{self._members.label_of(link.node_id)} cannot be reached ({reason})")
        elif reason in (MESH_OFF_REASON, NOT_A_MEMBER_REASON):  # by way of the supernode, then
            self._lookout.want_via()
            standing.leave_alone(link.node_id, self.file_id, now + UNREACHABLE_TIME)
        self._lookout.on_source_lost(self._download.remove_source(link.link, now), now)
        self._catching.on_link_lost(link.link, now)

    def on_queued(self, link: SourceLink, position: int, now: float) -> None:
        self._download.on_queued(link.link, position, now)

    def on_message(self, link: SourceLink, message: Any, now: float) -> bool:
        """From a source; False if it was not asked for."""
        download, dropped = self._download, self._download.dropped
        if isinstance(message, PieceData):
            download.on_piece_data(link.link, message.index, message.offset, message.data, now)
        elif isinstance(message, NewPieces):
            download.on_new_pieces(link.link, message.indexes, now)
        elif isinstance(message, OtherPiece):
            download.on_other_piece(link.link, message.asked, message.given, now)
        elif isinstance(message, PieceMap):
            download.on_piece_map(link.link, message, now)
            self.look_for_cast(now)
        elif isinstance(message, ManifestPage):
            download.on_manifest_page(link.link, message, now)
        elif isinstance(message, TraitsPage):
            return self._hearing.on_page(link.link, message)
        elif isinstance(message, (CastOffer, CastComing, CastEnd)):
            return self._catching.on_message(link.link, link.node_id, link.place, message, now)
        else:
            self._on_refused(link, message, now)
        return download.dropped == dropped

    def _on_refused(self, link: SourceLink, refused: PieceRefused, now: float) -> None:
        """A source does not give what it was asked for: it is left for a while, and others are looked for."""
        source, name = self._download.on_piece_refused(link.link, refused.index, now), self._wanted.name
        log.info("%s, piece %d: link %d refused it, reason %d", name, refused.index, link.link, refused.reason)
        pause = self._lookout.on_refused(source, refused.reason, name) if source is not None else None
        if source is None or pause is None:
            return
        self.leave(source, now + pause, now)
        has_changed = refused.reason in (FILE_CHANGED, UNKNOWN_FILE) and not self._lookout.is_via
        if has_changed and source.is_complete and not self._lookout.may_go_on():  # perhaps the last that had it all
            self._lookout.on_dropped(now)
            if self._members.has_supernode and not self._wanted.is_ended:
                self._lookout.search(now)

    # ---- who cannot be reached

    def look_for_ways(self, now: float) -> None:
        """Who has not answered by now may be behind a router or a firewall: the supernode has a link with it.

        That begins while it is still being called, not when that has failed; should it answer, both give.
        """
        links = [link for link in self._links.of(self.file_id) if not link.is_fellow(self.file_id)]
        late_at = {link.node_id: link.late_at(self._patience()) for link in links}
        if self._no_way_since is not None:
            at = self._no_way_since + self._patience(KNOCK_PATIENCE)
            late_at.update((each, at) for each in self._offered if self._links.to(each) is None)
            self._no_way_since = None if now >= at else self._no_way_since
        late = [node_id for node_id, at in late_at.items() if now >= at]
        for node_id in late:
            self._links.note_unreached(node_id, now)
        if late or self._is_waiting_in_vain(now):
            self._lookout.go_via(now)
        self._wake(min((at for at in late_at.values() if at > now), default=math.inf))

    def _is_waiting_in_vain(self, now: float) -> bool:
        """Has a source fallen silent? What lies between may be cut, and both still be with the supernode."""
        owing = [each for each in self._download.sources.values() if each.owed and not each.is_fellow]
        return any(now - each.heard_at >= SILENT_PATIENCE for each in owing)

    def _patience(self, least: float = CALL_PATIENCE) -> float:
        """Seconds that a member is called alone."""
        return max(least, CALL_ROUND_TRIPS * (self._members.round_trip or 0.0))

    def _go_via(self, now: float) -> None:
        """By way of the supernode, then; the next look is at once."""
        self._lookout.go_via(now)
        self._wake(now)
