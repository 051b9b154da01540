"""One content that is wanted: where it comes from, what is done when a source fails, and how it ends.

A `Fetch` is for a job of the person (its `Wish`), or for those who cannot fetch it themselves (then it is a relay), or
for both. It owns a `Download` and is its hands; a `Store` keeps what comes, a `Lookout` searches and says how long to
hope, `Givers` takes nodes as sources. It ends with all pieces verified, or with a sentence that says why not. Nobody
but itself changes it.

    look  ->  givers.on_offer / meet  ->  givers.on_link_up, on_message ...  ->  on_all_pieces  |  fail  ->  end

Fetches stand in a `Table` (`fetching.py`), which tells them what happens. Pure.
"""

from __future__ import annotations

import enum
import random
from functools import partial
from typing import Any, Dict, List, Optional, Protocol

from protocol import mishaps
from protocol.content.parts import Destination
from protocol.content.pieces import is_true_manifest, piece_size_of
from protocol.content.troubles import ErrorKind, size_text
from protocol.exchange.catching import Catching
from protocol.exchange.contracts import Surroundings, kind_of, sentence_of
from protocol.exchange.download import Download
from protocol.exchange.givers import Givers
from protocol.exchange.lookout import USELESS_TIME, Lookout, Prospect
from protocol.exchange.picking import CAST, bits_of
from protocol.exchange.relays import Waiting
from protocol.exchange.serving import Serving
from protocol.exchange.source import Source
from protocol.exchange.sources import SourceLinks
from protocol.exchange.store import Store
from protocol.exchange.telling import Hearing
from protocol.messages import NO_NODE, NotRelayed, Search
from protocol.results import ListEntry, Notice

log = mishaps.logger("transfer")

BAN_TIME = 600.0  # seconds that a source is left alone which sent what is not true (THREATS: G01)
WITHOUT_OTHERS_MAX = 1 << 20  # bytes of a content that is mostly here before others could be found
RECHECKS_MAX = 3  # of one content that another program changes here again and again


class Cause(enum.Enum):
    """Why a Fetch failed, as far as that decides what is done next."""

    OTHER = 1
    FULL = 2  # the disk has no room
    SHORT = 3  # the system was short of something, which passes
    LOST = 4  # what was here of it was taken away with its folder
    GONE = 5  # nobody here has this content any more


CAUSES: Dict[Optional[ErrorKind], Cause] = {
    ErrorKind.FULL: Cause.FULL,
    ErrorKind.SHORT: Cause.SHORT,
    ErrorKind.GONE: Cause.LOST,
}


class Wish(Protocol):
    """What somebody wants with a content: told once how its Fetch ended, and of each piece until then."""

    @property
    def folder(self) -> Optional[ListEntry]:
        """The folder of which it is the listing or a part, if any."""

    @property
    def in_order(self) -> bool:
        """Shall the pieces come one behind the other?"""

    def on_piece(self, fetch: Fetch, size: int, now: float) -> None: ...

    def on_all_pieces(self, fetch: Fetch, now: float) -> None:
        """All is verified; the Fetch serves others until it is ended."""

    def on_failed(self, fetch: Fetch, reason: str, now: float) -> None: ...


class Table(Protocol):
    """What a Fetch asks of the table in which it stands."""

    @property
    def library(self) -> Any: ...
    @property
    def rng(self) -> random.Random: ...
    @property
    def around(self) -> Surroundings: ...
    @property
    def links(self) -> SourceLinks: ...
    @property
    def serving(self) -> Serving: ...
    @property
    def network(self) -> Any: ...
    @property
    def may_catch(self) -> bool:
        """May contents come by casts?"""

    def wake(self, at: float) -> None:
        """Look at all fetches by then."""

    def has_room(self, size: int) -> bool:
        """May so many bytes more be in flight, all contents together?"""

    def may_ask(self, now: float) -> bool:
        """Does the limit let more be asked for? If not, all are asked again when it does."""

    def note_asked(self, size: int) -> None: ...

    def may_take_source(self, fetch: Fetch, now: float) -> bool:
        """Is there a place for it among those that are offered? If not, it has failed."""

    def on_ended(self, fetch: Fetch, now: float) -> None:
        """Forget it; who else wishes for this content has its turn."""


class Fetch:
    """One content that is wanted. Implements DownloadHands, Wanted."""

    def __init__(self, content: Search, is_in_memory: bool, table: Table, now: float) -> None:
        self.file_id = content.file_id
        self.query_id = content.query_id
        self.download = Download(content.file_id, self, table.rng, now)
        self.store = Store(content, is_in_memory, table.library, table.around)
        self.lookout = Lookout(content, self.download, table.around, table.links, now)
        self.hearing = Hearing(content.file_id, table.around.holdings)  # what is told beside it
        self.catching = Catching(self.download, table.network, self.send, lambda: table.may_catch)  # of a cast
        self.givers = Givers(
            self, self.download, self.lookout, table.links, self.hearing, table.around.members, table.rng, table.wake,
            self.catching,
        )  # fmt: skip
        self.wish: Optional[Wish] = None  # None: a relay
        self.waiting = Waiting(content.file_id, table.around, table.serving)  # those it is relayed for
        self.gave: Dict[bytes, int] = {}  # node -> bytes
        self.gave_via = NO_NODE  # the supernode that gave them by its cache
        self.cause = Cause.OTHER  # why it failed
        self.is_complete = False
        self.is_ended = False
        self._table = table
        self._around = table.around
        self._links = table.links
        self._rechecks = 0  # times that another program had changed it

    @property
    def name(self) -> str:
        """Under which it is kept."""
        return self.store.name

    @property
    def folder(self) -> Optional[ListEntry]:
        """Of which it is the listing or a part."""
        return self.wish.folder if self.wish is not None else None

    # ---- wanting

    def grant(
        self, wish: Wish, size: int, name: str, in_memory: bool, asked_first: List[bytes], now: float
    ) -> None:
        """The person here wants it, maybe because it is relayed already."""
        assert self.wish is None
        self.wish = wish
        self.download.wish_order(wish.in_order)
        self.lookout.correct(size, in_memory)
        self.store.name_for_person(name, in_memory)
        if self._is_size_lie(self.download.size):
            return
        if not in_memory:
            self.store.adopt()
        if self.is_complete:
            wish.on_all_pieces(self, now)
        elif self.download.size < 0:
            for provider in asked_first:
                self.givers.use(provider, now)
            self.look(now)

    def look(self, now: float) -> None:
        """Search; meanwhile an unfinished or cached part may know the manifest."""
        size = self.lookout.content.size
        if size == 0 and is_true_manifest(self.file_id, 0, b""):
            self.download.open(0, b"")
            return
        if self.download.sources and size <= WITHOUT_OTHERS_MAX:
            self.lookout.search_soon(now)
        else:
            self.lookout.search(now)
        if not self.store.is_in_memory:
            self._around.disk.run(partial(self._table.library.manifest, self.file_id), self._on_known_manifest)

    def _on_known_manifest(self, manifest: Any, error: Optional[Exception], now: float) -> None:
        if error is None and not self.is_ended and self.download.size < 0:
            self.download.open(*manifest)

    def on_slept(self, seconds: float, now: float) -> None:
        """A lid was closed, or the machine was busy: nobody is to blame."""
        self.download.on_slept(seconds, now)
        self.lookout.be_patient(now)

    def on_cast(self, event: Any, now: float) -> None:
        """The network tells of the cast that this content comes by."""
        self.catching.on_event(event, now)

    # ---- what its Download wants done (DownloadHands)

    def send(self, link: int, message: Any) -> None:
        self._links.send(link, message)

    def may_take_source(self, now: float) -> bool:
        return self._table.may_take_source(self, now)

    def piece_size_of(self, size: int) -> int:
        return piece_size_of(size)

    def is_true_manifest(self, file_id: bytes, size: int, digests: bytes) -> bool:
        return is_true_manifest(file_id, size, digests)

    def requests_on(self, link: int) -> int:
        return self._links.requests_on(link)

    def count_requests(self, link: int, change: int) -> None:
        self._links.count_requests(link, change)

    def arrived_on(self, link: int) -> int:
        """Bytes that have come by this link; 0: there is none, or nothing is known of it."""
        figures = self._table.network.figures(link)
        return figures.received if figures is not None else 0

    def has_room(self, size: int) -> bool:
        return self._table.has_room(size)

    def may_ask(self, now: float) -> bool:
        return self._table.may_ask(now)

    def note_asked(self, size: int) -> None:
        self._table.note_asked(size)

    def open_pieces(self, size: int, digests: bytes) -> None:
        """The manifest is known: the store makes room, unless the size is another one than was announced."""
        if self.is_ended or self._is_size_lie(size):
            return
        is_relay = self.wish is None
        first = Destination.CACHE if is_relay else Destination.DOWNLOAD
        person = self.waiting.first() if is_relay else None
        self.store.open(size, digests, self.download.piece_size, first, person, self._on_store_open)

    def _is_size_lie(self, size: int) -> bool:
        """Has it another size, by its digests, than the person was shown? Then that is told, and it ends.

        Of a relay the size is but what one requester said: it keeps it from nobody.
        """
        shown = self.lookout.content.size
        if self.wish is None or size in (-1, shown):
            return False
        lie = f"size lie: announced with {shown} bytes, it has {size}"
        self._around.disk.run(lambda: None, lambda _, error, now: self.fail(lie, now))
        return True

    def _on_store_open(self, bitmap: Any, error: Optional[Exception], now: float) -> None:
        """The store knows what is here already; after another program was at it, what that cost is told."""
        if self.is_ended:
            return
        if error is not None:
            self._fail_by(error, now)
            return
        before = self.download.verified_bytes
        self.download.on_opened(bytes(bitmap), now)
        if self._rechecks:
            self._tell_lost(before - self.download.verified_bytes)
        else:
            self._table.serving.tell_pieces(self.file_id, bits_of(bytes(bitmap), len(bitmap) * 8), now)
            self.waiting.offer()
            self.givers.look_for_cast(now)

    def goes_on_after(self, error: Exception) -> bool:
        """Has another program been at what is here of it? What of that is still right stays, the rest is fetched again.

        False if the error is another one, or that program does it again and again.
        """
        is_changed = kind_of(error) in (ErrorKind.CHANGED, ErrorKind.MISSING)
        if not is_changed or self.store.memory is not None or self._rechecks >= RECHECKS_MAX:
            return False
        self._rechecks += 1
        self.is_complete = False
        self.download.open_again()
        return True

    def _tell_lost(self, lost: int) -> None:
        if lost > 0 and self.wish is not None:
            told = f"{self.name} was changed on this disk by another program; {size_text(lost)} of it are fetched again"
            self._around.notify(Notice(told))

    def write(self, index: int, data: Any, link: int) -> None:
        self.store.write(index, data, partial(self._on_written, index, link))

    def _on_written(self, index: int, link: int, is_right: Any, error: Optional[Exception], now: float) -> None:
        if self.is_ended:
            return
        if error is not None:
            self._fail_by(error, now)
            return
        if is_right:
            self._count_piece(index, link, now)
        if link == CAST:
            self.catching.on_written(self.download.length_of(index), bool(is_right), now)
        self.download.on_written(index, link, bool(is_right), now)

    def _count_piece(self, index: int, link: int, now: float) -> None:
        """Note who gave a verified piece: for the lookout, for thanks, and for the person."""
        size, source = self.download.length_of(index), self.download.sources.get(link)
        self.lookout.on_piece(source is not None or link == CAST)
        if link == CAST and self.catching.node_id:
            self.gave[self.catching.node_id] = self.gave.get(self.catching.node_id, 0) + size
        if source is not None:
            self.gave[source.node_id] = self.gave.get(source.node_id, 0) + size
            self._links.note_giver(source)
            if self.lookout.is_via and source.node_id == self._around.members.supernode_id:
                self.gave_via = source.node_id
        if self.wish is not None:
            self.wish.on_piece(self, size, now)

    def on_piece(self, index: int, now: float) -> None:
        self._table.serving.tell_pieces(self.file_id, (index,), now, self.catching.takers > 0)

    def on_strike(self, source: Source, why: str, is_proof: bool, now: float) -> None:
        """A source sent what is wrong; `is_proof`: nobody but it can be to blame. The person is told what follows."""
        if self.is_ended:
            return
        is_banned = self._links.standing.strike(source.node_id, self.file_id, is_proof)
        what = "it is not used any more" if is_banned else "it is asked again"
        self._around.notify(Notice(f"{source.label} sent {why} of {self.name}; {what}"))
        if is_banned:
            self.lookout.note_trouble(f"{source.label} sent {why}")
            self.givers.leave(source, now + BAN_TIME, now)

    def on_useless(self, source: Source, why: str, now: float) -> None:
        """It is left alone for a while, and the person sees why."""
        if not self.is_ended:
            self.lookout.note_trouble(f"{source.label} {why}")
            log.info("%s: %s", self.name, self.lookout.trouble)
            self.givers.leave(source, now + USELESS_TIME, now)

    def on_all_pieces(self, now: float) -> None:
        """Whoever wished it is told; a relay is kept in the cache for others."""
        self.is_complete = True
        self.catching.leave(now)
        if self.wish is not None:
            self.wish.on_all_pieces(self, now)
        elif not self.store.is_passing:
            self.store.move_into_cache(self._on_cached)

    def _on_cached(self, _: Any, error: Optional[Exception], now: float) -> None:
        if error is not None:
            if not self.goes_on_after(error):
                self.fail(sentence_of(error), now)
            return
        self._links.thank(self.gave, self.file_id, now)
        # Until the node knows that its cache has it, the fetch answers for it.
        self._around.holdings.on_cache_changed(partial(self.end, now))

    # ---- time, and the end

    def check(self, now: float) -> None:
        """With each tick: who is silent, who still waits, is there any hope?"""
        if not self.is_complete:
            self.download.on_timer(now)
            self.catching.check(now)
        if not self.is_ended:
            self._check_waiting(now)
        if self.is_ended or self.is_complete:
            return
        self.givers.look_for_ways(now)
        self.givers.call_fellows(now)
        self.givers.look_for_cast(now)
        prospect = self.lookout.look(now, self.catching.takers > 0)
        if prospect is not Prospect.HOPE:
            self.fail(self.lookout.why_alone(), now, Cause.GONE if prospect is Prospect.GONE else Cause.OTHER)

    def _check_waiting(self, now: float) -> None:
        """A relay that nobody waits for any more ends."""
        if self.wish is None and self.waiting.is_over(now):
            self.waiting.clear()
            self.fail("nobody waits for it any more", now)

    def on_not_relayed(self, answer: NotRelayed, now: float) -> None:
        """The supernode cannot pass it on to us; whoever gives it directly still may."""
        trouble = answer.reason or "the supernode cannot pass it on"
        self.lookout.note_trouble(trouble)
        self.lookout.want_direct()
        log.info("%s: not relayed, %s", self.name, trouble)
        is_alone = all(link.node_id == self._around.members.supernode_id for link in self._links.of(self.file_id))
        if is_alone and not self.lookout.is_put_off:
            self.fail(trouble, now, Cause.GONE if answer.is_gone else Cause.OTHER)

    def _fail_by(self, error: Exception, now: float) -> None:
        """The library could not go on; of a relay that is told in the words of those who wait for it."""
        sentence = sentence_of(error)
        if self.wish is None and kind_of(error) is ErrorKind.FULL:
            me, why = self._around.members.label_of(self._around.members.node_id), sentence.rpartition(": ")[2]
            sentence = f"{me} has no room to pass it on: {why}"
        self.fail(sentence, now, cause_of(error))

    def note_unfinished(self, error: Exception) -> None:
        """All is here, but did not get its final name: if the folder for that is gone, the pieces are not."""
        cause = cause_of(error)
        self.cause = cause if cause is not Cause.LOST else Cause.OTHER

    def fail(self, reason: str, now: float, cause: Cause = Cause.OTHER) -> None:
        """End without success, and tell those who wait for it."""
        if self.is_ended:
            return
        self.cause = cause
        self.end(now)
        self.waiting.tell_failed(reason, cause is Cause.GONE)
        if self.wish is not None:
            self.wish.on_failed(self, reason, now)

    def end(self, now: float) -> None:
        """Nothing more is asked for this content."""
        if self.is_ended:
            return
        self.is_ended = True
        self.catching.leave(now)
        self.download.end()
        for link in self._links.of(self.file_id):
            link.let_go(self.file_id, now)
        self.store.close()
        self._table.on_ended(self, now)


def cause_of(error: Exception) -> Cause:
    """What the library's error means for the fetch."""
    return CAUSES.get(kind_of(error), Cause.OTHER)
