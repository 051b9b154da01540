"""How a content is looked for, and when nobody is waited for any more.

It is searched for again whenever few sources give something, more and more seldom while any does. Is the mesh off, or
do only nodes offer whose mesh is off, the search goes *via* the supernode, whose own peer then fetches the content and
passes it on. A Fetch that nobody gives anything is *lonely*; after a while that is its end, and sooner if the last one
who had it has just dropped it.

Each `Lookout` belongs to one `Fetch`. Pure.
"""

from __future__ import annotations

import enum
from typing import Optional

from protocol.exchange.contracts import Surroundings
from protocol.exchange.download import Download
from protocol.exchange.source import Source, SourceState
from protocol.exchange.sources import TICK, SourceLinks
from protocol.messages import (
    DISK_ERROR,
    FILE_CHANGED,
    MESH_IS_OFF,
    NO_RIGHTS,
    NOT_READABLE,
    SHORT_OF_MEANS,
    UNKNOWN_FILE,
    Search,
)
from protocol.results import Notice

SEARCH_INTERVAL, SEARCH_INTERVAL_MAX = 3.0, 30.0  # doubled while there are sources, for more of them
SOURCES_WANTED = 4  # fewer: search again
NOBODY_AFTER = 10.0  # seconds without a source while there is a supernode
NOBODY_AFTER_WITHOUT_SUPERNODE = 60.0  # until one has taken over, and the others have announced what they share
NOBODY_AFTER_PUT_OFF = 90.0  # while one that was offered may not be tried: a minute, and the next search
NOBODY_AFTER_CHANGE = 2.0  # the same when the last source has just said that it has it no more
USELESS_TIME = 60.0  # a source that sent nothing or was too slow is left alone so long
HOPE_TIME = 30.0  # a source that has nothing new for us is hoped for so long
VIA_AFTER = 0.5  # seconds that a direct offer may come after one that cannot be used directly
UNREADABLE_CAUSES = {
    SHORT_OF_MEANS: "%s has too many files open at the moment, or no memory",
    NO_RIGHTS: "%s has no permission to read it",
    DISK_ERROR: "the disk of %s reports an error",
}
GIVING_UP = (UNKNOWN_FILE, FILE_CHANGED, NOT_READABLE, MESH_IS_OFF)  # refusals that end a source
SHORT_TIMES_MAX = 4  # that a source which is short of something is soon asked again, while nothing comes


class Prospect(enum.Enum):
    """What may still be expected."""

    HOPE = 1
    ALONE = 2  # nobody has given anything for too long
    GONE = 3  # nobody here has it any more


class Lookout:
    """The search for one content, and the hope for it."""

    def __init__(
        self, content: Search, download: Download, around: Surroundings, links: SourceLinks, now: float
    ) -> None:
        self.content = content  # the Search to be sent
        self.search_at = now
        self.is_via = False  # the last search went by way of the supernode
        self.last_source = ""  # label of the source that was lost last
        self.trouble = ""  # why the last source was given up, in words
        self._download = download
        self._around = around
        self._links = links
        self._interval = SEARCH_INTERVAL
        self._wants_via = False  # only mesh-off nodes offered
        self.is_put_off = False  # a source may not be tried again before a minute is over (protocol/hearsay.py)
        self._short_times = 0  # sources said that they were short of something since the last piece came
        self._lonely_since: Optional[float] = now  # since when no source gives anything
        self._changed_at: Optional[float] = None  # when the last source said that it has it no more

    def correct(self, size: int, is_folder: bool) -> None:
        """The person was shown it so; whoever had it relayed may have lied."""
        self.content = self.content._replace(size=size, is_folder=is_folder)

    # ---- searching

    def search(self, now: float) -> None:
        """Ask the supernode who has it."""
        must_go_via = not self._around.members.mesh or (self._wants_via and not self._is_given(now))
        self.is_via = must_go_via and not self._around.members.is_supernode
        self._around.members.send_to_supernode(self.content._replace(via_supernode=self.is_via))
        self.search_at = now + self._interval
        self._interval = min(2 * self._interval, SEARCH_INTERVAL_MAX) if self._is_served() else SEARCH_INTERVAL

    def search_soon(self, now: float) -> None:
        """Those who are asked already may have all of it."""
        self.search_at = now + TICK

    def search_now(self, now: float) -> None:
        """With the next look; what was right before (the mesh was on) is not any more."""
        self.search_at = now

    def on_joined(self, is_missing: bool, now: float) -> None:
        """There is a supernode, perhaps a new one: ask for what is still missing."""
        self._interval, self._changed_at = SEARCH_INTERVAL, None
        self.be_patient(now)
        if is_missing:
            self.search(now)

    def be_patient(self, now: float) -> None:
        """So far nobody could be found: the loneliness counts from now."""
        if self._lonely_since is not None:
            self._lonely_since = now

    def on_closed_offer(self, now: float) -> bool:
        """One whose mesh is off has it; True if the search by way of the supernode is to come soon."""
        self._wants_via = True
        is_asking = any(not link.is_fellow(self.content.file_id) for link in self._links.of(self.content.file_id))
        if self.is_via or is_asking or self._is_given(now):
            return False
        self.search_at = min(self.search_at, now + VIA_AFTER)
        return True

    def go_via(self, now: float) -> None:
        """Nothing leads to one who has it, from here: the next search goes by way of the supernode, and soon."""
        if not self._wants_via and not self.is_via and not self._is_given(now):
            self.search_at = min(self.search_at, now)
        self._wants_via = True

    def want_direct(self) -> None:
        """The supernode does not pass it on: the next search asks those who have it once more."""
        self._wants_via = False

    def want_via(self) -> None:
        """A source serves nobody but by way of the supernode."""
        self._wants_via = True

    # ---- what becomes of sources

    def note_trouble(self, why: str) -> None:
        """Why a source is given up; told if no other is found."""
        self.trouble = why

    def put_off(self, label: str) -> None:
        """A source may not be tried now, as it did not answer just before; it is worth waiting for."""
        self.trouble = f"{label} cannot be reached (it did not answer just now)"
        self.is_put_off = True

    def on_reached(self) -> None:
        """A source was connected to."""
        self.is_put_off = False

    def on_piece(self, is_from_source: bool) -> None:
        """Somebody gives: all troubles are over."""
        self._lonely_since = None
        if is_from_source:
            self.trouble, self._changed_at, self._short_times = "", None, 0

    def on_source_lost(self, source: Optional[Source], now: float) -> None:
        """Without any source it is searched for soon."""
        if source is not None:
            self.last_source = source.label
        if not self._download.sources:
            self._interval = SEARCH_INTERVAL
            self.search_at = min(self.search_at, now + TICK)

    def on_refused(self, source: Source, reason: int, name: str) -> Optional[float]:
        """A source does not give it: for how many seconds it is left alone then, or None if it stays a source."""
        if reason in UNREADABLE_CAUSES:
            source.note_cause(reason)  # what follows from it is told next
            return None
        return self._pause_after(source, reason, name) if reason in GIVING_UP else None

    def _pause_after(self, source: Source, reason: int, name: str) -> float:
        """Seconds for which a source that gave this reason is left alone; the person is told where it is worth it."""
        if reason == FILE_CHANGED:
            self.trouble = f"it was changed or removed at {source.label}"
            told = f"{name} was changed or removed at {source.label}; that source is not used"
            self._around.notify(Notice(told))
            return SEARCH_INTERVAL if self.is_via else USELESS_TIME  # the supernode may fetch it from somebody else
        if reason == NOT_READABLE:
            self.trouble = UNREADABLE_CAUSES.get(source.cause, "%s cannot read it") % source.label
            if source.cause == SHORT_OF_MEANS and self._short_times < SHORT_TIMES_MAX:
                self._short_times += 1
                return SEARCH_INTERVAL  # it passes
        elif reason == UNKNOWN_FILE:
            self.trouble = f"{source.label} no longer shares it"
            return SEARCH_INTERVAL  # it may have it again, as the supernode's cache does
        return USELESS_TIME

    def on_dropped(self, now: float) -> None:
        """The last source that had it has just said that it has it no more."""
        self._changed_at, self.last_source = now, ""

    # ---- hope

    def look(self, now: float, is_cast: bool = False) -> Prospect:
        """With each tick: search if there are too few sources, and say what may be expected.

        While it is cast to this node, further sources are not needed.
        """
        if self._has_hope(now):
            self._lonely_since = None
        elif self._lonely_since is None:
            self._lonely_since = now
        are_few = not is_cast and self._count_ready() < SOURCES_WANTED
        if now >= self.search_at and are_few and self._around.members.has_supernode:
            self.search(now)
        if self._is_gone(now):
            return Prospect.GONE
        return Prospect.ALONE if self._is_lonely(now) else Prospect.HOPE

    def why_alone(self) -> str:
        """Why nobody gives it, in words."""
        if self.trouble:
            return f"{self.trouble}, and nobody else has it"
        if self.last_source:
            return f"{self.last_source} left and nobody else has it"
        return "nobody here has it"

    def may_go_on(self) -> bool:
        """Is there a source that has what is missing, or may have it? Who only waits for us is none."""
        choice, sources = self._download.choice, self._download.sources
        for link in self._links.of(self.content.file_id):
            source = sources.get(link.link)
            if source is None or choice is None or source.state is SourceState.OPENED or choice.is_useful(link.link):
                return True
        return False

    def _is_lonely(self, now: float) -> bool:
        if self._lonely_since is None or any(not link.is_up for link in self._links.of(self.content.file_id)):
            return False
        patience = NOBODY_AFTER if self._around.members.has_supernode else NOBODY_AFTER_WITHOUT_SUPERNODE
        if self.is_put_off:
            patience = NOBODY_AFTER_PUT_OFF
        return now - self._lonely_since >= patience

    def _is_gone(self, now: float) -> bool:
        """Has the last source dropped this content, and did nobody else offer it since?"""
        if self._changed_at is None or self.may_go_on():
            return False
        is_direct = self._around.members.has_supernode and not (self.is_via or self._wants_via)
        return is_direct and now - self._changed_at >= NOBODY_AFTER_CHANGE

    def _has_hope(self, now: float) -> bool:
        """Is there a source that gives something, or may soon?"""
        choice = self._download.choice
        if self._download.is_opening:
            return True
        for source in self._download.sources.values():
            if not self._is_giving(source):
                continue
            if source.state is not SourceState.READY or source.owed or now - source.news_at < HOPE_TIME:
                return True
            if choice is not None and choice.is_useful(source.link):
                return True
        return False

    def _count_ready(self) -> int:
        """Sources that may be asked; those that have us wait do not count, nor those who have nothing either."""
        sources = self._download.sources.values()
        return sum(source.state is not SourceState.QUEUED and self._is_giving(source) for source in sources)

    def _is_served(self) -> bool:
        return any(self._is_giving(source) for source in self._download.sources.values())

    def _is_given(self, now: float) -> bool:
        """Has a source come, or given something, since the last search? One that only could is no reason to do without
        those who give by way of the supernode: it may be lying, or have us wait.
        """
        return any(
            self._is_giving(source) and now - source.news_at < SEARCH_INTERVAL
            for source in self._download.sources.values()
        )

    def _is_giving(self, source: Source) -> bool:
        """May it have something for us? One who fetches the content itself has it when it says so."""
        choice = self._download.choice
        return not source.is_fellow or (choice is not None and choice.is_useful(source.link))
