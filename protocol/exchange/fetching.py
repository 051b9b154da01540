"""Contents that are wanted: where they come from, and what is done when a source fails.

A `Fetch` is one content that is wanted, for a job of the person (its `Wish`) or for the cache (then it is a relay). It
searches, gathers sources and owns a `Download`; a `Bulk` is a link that this node opened to a provider, one for all
that comes from it. A Fetch ends with all pieces verified, or with a sentence that says why not; until then it searches
again whenever it has too few sources. With the mesh off, or when only mesh-off nodes offer, it asks by way of the
supernode, whose own peer then fetches the content into its cache and serves it meanwhile. Losing a supernode ends no
Fetch: what it served is asked again.
"""

from __future__ import annotations

import math
import random
from collections import OrderedDict
from functools import partial
from typing import Any, Callable, Dict, Iterable, List, Optional, Tuple

from protocol import mishaps
from protocol.content.memory import MemoryPieces
from protocol.content.names import check_name
from protocol.content.parts import Destination
from protocol.content.pieces import FILE_SIZE_MAX, is_true_manifest, piece_size_of
from protocol.content.troubles import BadName, ErrorKind, size_text
from protocol.exchange.callers import NOT_A_MEMBER_REASON
from protocol.exchange.contracts import Host, in_slices, kind_of, sentence_of
from protocol.exchange.download import Download
from protocol.exchange.fetch import (
    HOPE_TIME,
    NOBODY_AFTER,
    NOBODY_AFTER_CHANGE,
    NOBODY_AFTER_WITHOUT_SUPERNODE,
    SEARCH_INTERVAL,
    SEARCH_INTERVAL_MAX,
    SOURCES_WANTED,
    VIA_AFTER,
    WITHOUT_OTHERS_MAX,
    Fetch,
    Thanks,
    Wish,
)
from protocol.exchange.picking import bits_of
from protocol.exchange.serving import MESH_OFF_REASON, Serving
from protocol.exchange.source import DROP_AFTER, Source, SourceState
from protocol.exchange.sources import (
    BAN_TIME,
    BULK_IDLE,
    FELLOWS_WANTED,
    JUDGED_MAX,
    MESH_DELAY,
    MESH_LINKS_MAX,
    MESH_RETRY,
    SOURCES_MAX,
    STRIKES_MAX,
    UNREACHABLE_TIME,
    USELESS_TIME,
    WHOLE_SOURCES_MORE,
    Bulk,
)
from protocol.fairness import FairShares
from protocol.hearsay import KEPT
from protocol.lateness import SLEPT_AFTER
from protocol.messages import (
    DISK_ERROR,
    FILE_CHANGED,
    MEMBERS_MAX,
    MESH_IS_OFF,
    NO_NODE,
    NO_RIGHTS,
    NOT_READABLE,
    NOWHERE,
    PURPOSE_BULK,
    REASON_BYTES_MAX,
    SHORT_OF_MEANS,
    UNKNOWN_FILE,
    LinkHello,
    ManifestPage,
    NewPieces,
    NotRelayed,
    Offer,
    OtherPiece,
    PieceData,
    PieceMap,
    PieceRefused,
    Queued,
    Relay,
    Search,
    TransferDone,
    encode_parts,
)
from protocol.results import Notice

log = mishaps.logger("transfer")
NOBODY_AFTER_PUT_OFF = 90.0  # while one that was offered may not be tried: a minute, and the next search
THANKS_TIME = 30.0  # seconds in which a source whose link was lost is still told that we have it all
THANKED_MAX = 256  # sources that are still to be told
LABELS_KEPT = 1024  # of nodes that gave something and may have left since
RELAY_UNWANTED_AFTER = 15.0
RELAYS_MAX, RELAYS_FOR_ONE_MAX = 64, 48  # contents fetched for others at once, and for one of them
RELAYS_SOUGHT_MAX = 128  # that nobody has offered yet: each is searched for every few seconds
RELAYS_FULL = "%s passes on as much for others as it can: try again soon"
SERVED_ON_BYTES_MAX, SERVED_ON_TIME = 32 << 20, 60.0  # of what is in memory, though it is of no use here any more
ALL_IN_FLIGHT_MAX = 64 << 20  # bytes asked or not yet written, for all contents together
DROPPED_MAX = 1000  # senseless messages on one link before it is closed
UNREAD_MAX = 8 << 20  # bytes that may wait on a link for somebody who goes on asking but does not read
UNREADABLE_CAUSES = {
    SHORT_OF_MEANS: "%s has too many files open at the moment, or no memory",
    NO_RIGHTS: "%s has no permission to read it",
    DISK_ERROR: "the disk of %s reports an error",
}
SHORT_TIMES_MAX = 4  # that a source which is short of something is soon asked again, while nothing comes
RECHECKS_MAX = 3  # of one content that another program changes here again and again
TICK = 0.5


class Fetching:
    """All contents that are wanted, and the links by which they come. Implements DownloadHands."""

    def __init__(self, network: Any, library: Any, rng: random.Random, host: Host) -> None:
        self.network = network
        self.library = library
        self.rng = rng
        self.host = host
        self.serving = Serving(network, library, host, self._partial_of, self._in_memory, self._on_asker)
        self.fetches: Dict[bytes, Fetch] = {}
        self.served_on: OrderedDict[bytes, Fetch] = OrderedDict()  # ended, but others still take it from our memory
        self.dropped = 0
        self._by_query: Dict[int, Fetch] = {}
        self._bulk: Dict[int, Bulk] = {}
        self._bulk_to: Dict[bytes, Bulk] = {}
        self._strikes: OrderedDict[Tuple[bytes, bytes], int] = OrderedDict()
        self._left_alone: OrderedDict[Tuple[bytes, bytes], float] = OrderedDict()  # (node, content) -> until
        self._when_ended: Dict[bytes, List[Callable[[float], None]]] = {}
        self._labels: OrderedDict[bytes, str] = OrderedDict()  # of those who gave something, as they were called then
        self._thanks: OrderedDict[bytes, Thanks] = OrderedDict()  # node -> what it is still to be told
        self._sought, self._relayed = FairShares(RELAYS_SOUGHT_MAX), FairShares(RELAYS_MAX)
        self._mates: List[bytes] = []
        self._mesh_at = math.inf  # when the next link to a mate is opened
        self._tick_at = math.inf

    # ---- wanting

    def want(
        self, wish: Wish, file_id: bytes, size: int, name: str, in_memory: bool, now: float, asked_first: List[bytes]
    ) -> Fetch:
        """Fetch a content that nobody else here wishes for at this time (see `is_wished`)."""
        fetch = self.fetches.get(file_id)
        if fetch is None:
            fetch = self._new_fetch(file_id, size, name, in_memory, now)
            fetch.is_in_memory = in_memory
        assert fetch.wish is None
        fetch.wish, fetch.name = wish, name
        self._count(fetch, None)  # nobody's share any more: the person here wants it
        fetch.content = fetch.content._replace(size=size, is_folder=in_memory)  # whoever had it relayed may have lied
        if self._is_size_lie(fetch, fetch.download.size):
            return fetch
        if fetch.destination in (Destination.CACHE, Destination.PASSING) and not in_memory:
            self._take_over(fetch)
        if fetch.is_complete:
            wish.on_all_pieces(fetch, now)
        elif fetch.download.size < 0:
            for provider in asked_first:
                self._use(fetch, provider, now)
            self._begin_looking(fetch, now)
        return fetch

    def _take_over(self, fetch: Fetch) -> None:
        """The person wants it, too: what is here of it is kept, whatever becomes of those it was fetched for."""
        fetch.destination = Destination.DOWNLOAD
        size, digests, is_folder = fetch.download.size, fetch.download.digests, fetch.content.is_folder
        begin = partial(self.library.begin, fetch.file_id, size, digests, fetch.destination, fetch.name, is_folder)
        in_slices(self.host, begin, lambda *_: None, is_over=lambda: fetch.is_ended)

    def is_wished(self, file_id: bytes) -> bool:
        """Must another wish wait? Also while a relayed content is on its way into the cache, out of its part file."""
        fetch = self.fetches.get(file_id)
        return fetch is not None and (fetch.wish is not None or (fetch.is_complete and not fetch.is_passing))

    def when_ended(self, file_id: bytes, then: Callable[[float], None]) -> None:
        """Two may wish for one content at a time: the second has its turn when the first is done."""
        self._when_ended.setdefault(file_id, []).append(then)

    def _new_fetch(self, file_id: bytes, size: int, name: str, is_folder: bool, now: float) -> Fetch:
        query_id = self.rng.getrandbits(32)
        content = Search(query_id, file_id, size, name, is_folder, NO_NODE, NOWHERE, False)
        fetch = Fetch(content, Download(file_id, self, self.rng, now), now)
        self.fetches[file_id] = self._by_query[query_id] = fetch
        self._tick_at = min(self._tick_at, now + TICK)
        return fetch

    def _begin_looking(self, fetch: Fetch, now: float) -> None:
        """Search; meanwhile an unfinished or cached part may know the manifest."""
        if fetch.content.size == 0 and is_true_manifest(fetch.file_id, 0, b""):
            fetch.download.open(0, b"")
            return
        if fetch.download.sources and fetch.content.size <= WITHOUT_OTHERS_MAX:
            fetch.search_at = now + TICK
        else:
            self._search(fetch, now)
        if not fetch.is_in_memory:
            self.host.run(partial(self.library.manifest, fetch.file_id), partial(self._on_known_manifest, fetch))

    def _on_known_manifest(self, fetch: Fetch, manifest: Any, error: Optional[Exception], now: float) -> None:
        if error is None and not fetch.is_ended and fetch.download.size < 0:
            fetch.download.open(*manifest)

    # ---- searching

    def _search(self, fetch: Fetch, now: float) -> None:
        is_served = self._is_served(fetch)
        must_go_via = not self.host.mesh or (fetch.wants_via and not is_served)
        fetch.is_via = must_go_via and not self.host.is_supernode
        self.host.send_to_supernode(fetch.content._replace(via_supernode=fetch.is_via))
        fetch.search_at = now + fetch.search_interval
        fetch.search_interval = min(2 * fetch.search_interval, SEARCH_INTERVAL_MAX) if is_served else SEARCH_INTERVAL

    def _count_ready(self, fetch: Fetch) -> int:
        """Sources that may be asked; those that have us wait do not count, nor those who have nothing either."""
        sources = fetch.download.sources.values()
        return sum(source.state is not SourceState.QUEUED and self._is_giving(fetch, source) for source in sources)

    @staticmethod
    def _is_giving(fetch: Fetch, source: Source) -> bool:
        """May it have something for us? One who fetches the content itself has it when it says so."""
        choice = fetch.download.choice
        return not source.is_fellow or (choice is not None and choice.is_useful(source.link))

    def _is_served(self, fetch: Fetch) -> bool:
        return any(self._is_giving(fetch, source) for source in fetch.download.sources.values())

    def on_joined(self, now: float) -> None:
        """There is a supernode, perhaps a new one: ask what is still missing."""
        for fetch in list(self.fetches.values()):
            fetch.search_interval, fetch.changed_at = SEARCH_INTERVAL, None
            if fetch.lonely_since is not None:
                fetch.lonely_since = now
            if not fetch.is_complete:
                self._search(fetch, now)

    def on_supernode_lost(self, now: float) -> None:
        for fetch in self.fetches.values():
            if fetch.lonely_since is not None:
                fetch.lonely_since = now

    def on_mesh_set(self, now: float) -> None:
        """With the mesh off, no link but those with the supernode's node stays."""
        self.serving.on_mesh_set()
        if self.host.mesh or self.host.is_supernode:
            return
        for bulk in self._bulk.values():
            if bulk.node_id != self.host.supernode_id:
                self.network.disconnect(bulk.link, MESH_OFF_REASON)
        for fetch in self.fetches.values():
            fetch.search_at = self._tick_at = now

    def on_offer(self, offer: Offer, now: float) -> None:
        """Somebody has (pieces of) what we look for."""
        fetch = self._by_query.get(offer.query_id)
        is_mine = offer.provider == self.host.node_id
        if fetch is None or fetch.file_id != offer.file_id or is_mine or fetch.is_complete:
            self.dropped += 1
            return
        if self._left_alone.get((offer.provider, fetch.file_id), -math.inf) > now:
            return
        is_ruler = self.host.is_supernode or offer.provider == self.host.supernode_id
        if is_ruler or (self.host.mesh and offer.mesh):
            self._use(fetch, offer.provider, now, is_whole=offer.complete)
            return
        fetch.wants_via = True
        is_asking = any(not is_fellow for is_fellow in (bulk.fetches[fetch] for bulk in self._providers(fetch)))
        if not fetch.is_via and not is_asking and not self._is_served(fetch):
            fetch.search_at = min(fetch.search_at, now + VIA_AFTER)
            self._tick_at = min(self._tick_at, fetch.search_at)

    def on_search(self, search: Search, now: float) -> None:
        """Somebody looks for a content: if it is fetched here too, each can give the other what it gets."""
        self.serving.on_search(search, now)
        self._meet(search.file_id, search.requester, now)

    def _on_asker(self, file_id: bytes, node_id: bytes, now: float) -> bool:
        """Somebody asks what we have of a content; is it on its way here?"""
        self._meet(file_id, node_id, now)
        fetch = self.fetches.get(file_id)
        return fetch is not None

    def _meet(self, file_id: bytes, node_id: bytes, now: float) -> None:
        """Take one who fetches the same as a source, before it has anything of it."""
        fetch = self.fetches.get(file_id)
        if fetch is None or fetch.is_complete or fetch.is_via or node_id == self.host.node_id:
            return
        is_open = self.host.mesh and self.host.has_mesh(node_id)
        is_left_alone = self._left_alone.get((node_id, file_id), -math.inf) > now
        if is_open and not is_left_alone and self.rng.random() * self.host.member_count() < FELLOWS_WANTED:
            self._use(fetch, node_id, now, is_fellow=True)

    # ---- sources

    def _providers(self, fetch: Fetch) -> List[Bulk]:
        return [bulk for bulk in self._bulk.values() if fetch in bulk.fetches]

    def providers_of(self, fetch: Fetch) -> List[bytes]:
        """The nodes that have all of this content and give it directly."""
        sources = fetch.download.sources.values()
        return [] if fetch.is_via else [source.node_id for source in sources if source.is_complete]

    def _use(
        self, fetch: Fetch, provider: bytes, now: float, is_whole: bool = False, is_fellow: bool = False
    ) -> None:
        """Take this node as a source, by a link that is there or a new one."""
        bulk = self._bulk_to.get(provider)
        if bulk is not None and fetch in bulk.fetches:
            if not is_fellow:
                self._promote(fetch, bulk, now)
            return
        if not self._has_place(fetch, is_whole, now) or not self._is_relayed_now(fetch, now):
            return
        if bulk is None:
            place = self.host.place_of(provider)
            if place is None:
                return
            bulk = self._open_bulk(place, provider, now)
            if bulk is None:
                self._leave_alone(provider, fetch.file_id, now + UNREACHABLE_TIME)
                fetch.trouble = "%s cannot be reached (it did not answer just now)" % self.host.label_of(provider)
                fetch.is_put_off = True
                return
        bulk.fetches[fetch] = is_fellow
        if bulk.is_up:
            fetch.download.add_source(bulk.link, provider, self.host.label_of(provider), now, is_fellow)

    @staticmethod
    def _promote(fetch: Fetch, bulk: Bulk, now: float) -> None:
        """One who was taken because it fetches the same offers something by now."""
        bulk.fetches[fetch] = False
        source = fetch.download.sources.get(bulk.link)
        if source is not None:
            fetch.download.take_as_giver(source, now)

    def _has_place(self, fetch: Fetch, is_whole: bool, now: float) -> bool:
        """Is there room for one source more? One that has kept us waiting for long makes room for it."""
        if len(self._providers(fetch)) < SOURCES_MAX + WHOLE_SOURCES_MORE * is_whole:
            return True
        for source in list(fetch.download.sources.values()):
            if source.state is SourceState.QUEUED and now - source.news_at >= DROP_AFTER:
                self._leave_source(fetch, source, now + USELESS_TIME, now)
                return True
        return False

    def _open_bulk(self, place: Any, node_id: bytes, now: float, keep: int = 0) -> Optional[Bulk]:
        """A new link; None when that place was tried in vain just now."""
        tries = self.host.may_dial(place, now, keep)
        if not tries:
            return None
        bulk = Bulk(self.network.connect(place, tries), node_id, now)
        self._bulk[bulk.link] = self._bulk_to[node_id] = bulk
        self._tick_at = min(self._tick_at, now + TICK)
        return bulk

    def _leave_source(self, fetch: Fetch, source: Source, until: float, now: float) -> None:
        bulk = self._bulk.get(source.link)
        if bulk is not None:
            bulk.fetches.pop(fetch, None)
            bulk.used_at = now
        self._leave_alone(source.node_id, fetch.file_id, until)
        self._lose_source(fetch, source.link, now)

    def _leave_alone(self, node_id: bytes, file_id: bytes, until: float) -> None:
        self._left_alone[node_id, file_id] = until
        while len(self._left_alone) > JUDGED_MAX:
            self._left_alone.popitem(last=False)

    def _lose_source(self, fetch: Fetch, link: int, now: float) -> None:
        source = fetch.download.remove_source(link, now)
        if source is not None:
            fetch.last_source = source.label
        if not fetch.download.sources:
            fetch.search_interval = SEARCH_INTERVAL
            fetch.search_at = min(fetch.search_at, now + TICK)

    # ---- the mesh: links that stand by

    def set_mates(self, mates: List[bytes], now: float) -> None:
        """The members to have a link with while the mesh is on, though nothing travels yet."""
        self._mates = mates[:MESH_LINKS_MAX]
        if any(mate not in self._bulk_to for mate in self._mates):
            self._mesh_at = min(self._mesh_at, now + self.rng.uniform(*MESH_DELAY))

    def _open_mesh_link(self, now: float) -> None:
        """One at a time."""
        missing = [mate for mate in self._mates if mate not in self._bulk_to]
        if missing:
            self._mesh_at = now + self.rng.uniform(*MESH_DELAY)
            place = self.host.place_of(missing[0])
            if place is None:
                self._mates.remove(missing[0])
            elif self._open_bulk(place, missing[0], now, KEPT) is None:
                self._mates.append(self._mates.pop(self._mates.index(missing[0])))  # the others first
        else:
            self._mesh_at = math.inf

    # ---- links

    def owns(self, link: int) -> bool:
        return link in self._bulk or self.serving.owns(link)

    def link_counts(self) -> Dict[bytes, int]:
        """How many links for pieces there are with each node, either way."""
        counts: Dict[bytes, int] = {}
        for node_id in [bulk.node_id for bulk in self._bulk.values()] + [
            upload.node_id for upload in self.serving.uploads.links.values()
        ]:
            counts[node_id] = counts.get(node_id, 0) + 1
        return counts

    def on_link_up(self, link: int, now: float) -> None:
        bulk = self._bulk.get(link)
        if bulk is None:
            return
        bulk.is_up, bulk.used_at = True, now
        thanks = self._thanks.get(bulk.node_id)
        self.send(link, LinkHello(PURPOSE_BULK, self.host.network_id, self.host.node_id))
        for file_id in thanks.file_ids if thanks is not None else ():
            self.send(link, TransferDone(file_id))
        label = self.host.label_of(bulk.node_id)
        for fetch, is_fellow in list(bulk.fetches.items()):
            fetch.is_put_off = False
            fetch.download.add_source(link, bulk.node_id, label, now, is_fellow)

    def on_link_lost(self, link: int, reason: str, now: float) -> None:
        self.serving.on_link_lost(link, now)
        bulk = self._bulk.pop(link, None)
        if bulk is None:
            return
        if self._bulk_to.get(bulk.node_id) is bulk:
            del self._bulk_to[bulk.node_id]
        if bulk.node_id in self._mates:
            self._mesh_at = max(now, min(self._mesh_at, now + self.rng.uniform(*MESH_RETRY)))
        for fetch in list(bulk.fetches):
            if not bulk.is_up:
                self._leave_alone(bulk.node_id, fetch.file_id, now + UNREACHABLE_TIME)
                fetch.trouble = "%s cannot be reached (%s)" % (self.host.label_of(bulk.node_id), reason)
            elif reason in (MESH_OFF_REASON, NOT_A_MEMBER_REASON):  # by way of the supernode, then
                fetch.wants_via = True
                self._leave_alone(bulk.node_id, fetch.file_id, now + UNREACHABLE_TIME)
            self._lose_source(fetch, link, now)

    def on_message(self, link: int, message: Any, now: float) -> None:
        """A message on one of our links; what nobody asked for is dropped."""
        bulk = self._bulk.get(link)
        if self.network.backlog(link) > UNREAD_MAX:
            self.dropped += 1
            self.network.disconnect(link, "it does not read")
        elif bulk is None:
            self.serving.on_message(link, message, now)
        elif not self._on_source_message(bulk, message, now):
            bulk.dropped += 1
            self.dropped += 1
            if bulk.dropped > DROPPED_MAX:
                self.network.disconnect(link, "too much that was not asked for")

    def _on_source_message(self, bulk: Bulk, message: Any, now: float) -> bool:
        """From a provider; False if nobody asked for it."""
        if isinstance(message, Queued):
            for each in list(bulk.fetches):
                each.download.on_queued(bulk.link, message.position, now)
            return True
        if not isinstance(message, (PieceData, PieceMap, NewPieces, ManifestPage, PieceRefused, OtherPiece)):
            return False
        fetch = self.fetches.get(message.file_id)
        if fetch is None or fetch not in bulk.fetches:
            return False
        download, dropped = fetch.download, fetch.download.dropped
        if isinstance(message, PieceData):
            download.on_piece_data(bulk.link, message.index, message.offset, message.data, now)
        elif isinstance(message, NewPieces):
            download.on_new_pieces(bulk.link, message.indexes, now)
        elif isinstance(message, OtherPiece):
            download.on_other_piece(bulk.link, message.asked, message.given, now)
        elif isinstance(message, PieceMap):
            download.on_piece_map(bulk.link, message, now)
        elif isinstance(message, ManifestPage):
            download.on_manifest_page(bulk.link, message, now)
        else:
            self._on_refused(fetch, bulk.link, message, now)
        return download.dropped == dropped

    def _on_refused(self, fetch: Fetch, link: int, refused: PieceRefused, now: float) -> None:
        source = fetch.download.on_piece_refused(link, refused.index, now)
        log.info("%s, piece %d: link %d refused it, reason %d", fetch.name, refused.index, link, refused.reason)
        if source is not None and refused.reason in UNREADABLE_CAUSES:
            source.cause = refused.reason  # what follows from it is told next
            return
        if source is None or (refused.reason not in (UNKNOWN_FILE, FILE_CHANGED, NOT_READABLE, MESH_IS_OFF)):
            return
        pause = USELESS_TIME
        if refused.reason == FILE_CHANGED:
            fetch.trouble = "it was changed or removed at %s" % source.label
            told = "%s was changed or removed at %s; that source is not used"
            self.host.notify(Notice(told % (fetch.name, source.label)))
            if fetch.is_via:
                pause = SEARCH_INTERVAL  # the supernode may fetch it from somebody else
        elif refused.reason == NOT_READABLE:
            fetch.trouble = UNREADABLE_CAUSES.get(source.cause, "%s cannot read it") % source.label
            if source.cause == SHORT_OF_MEANS and fetch.short_times < SHORT_TIMES_MAX:
                fetch.short_times += 1
                pause = SEARCH_INTERVAL  # it passes
        elif refused.reason == UNKNOWN_FILE:
            fetch.trouble = "%s no longer shares it" % source.label
            pause = SEARCH_INTERVAL  # it may have it again, as the supernode's cache does
        self._leave_source(fetch, source, now + pause, now)
        has_changed = source.is_complete and not fetch.is_via and refused.reason in (FILE_CHANGED, UNKNOWN_FILE)
        if has_changed and not self._may_go_on(fetch):
            fetch.changed_at, fetch.last_source = now, ""
            if self.host.has_supernode and not fetch.is_ended:
                self._search(fetch, now)

    # ---- what a Download wants done (DownloadHands)

    def send(self, link: int, message: Any) -> None:
        self.network.send(link, *encode_parts(message))

    def piece_size_of(self, size: int) -> int:
        return piece_size_of(size)

    def is_true_manifest(self, file_id: bytes, size: int, digests: bytes) -> bool:
        return is_true_manifest(file_id, size, digests)

    def requests_on(self, link: int) -> int:
        bulk = self._bulk.get(link)
        return bulk.requests if bulk else 0

    def count_requests(self, link: int, change: int) -> None:
        bulk = self._bulk.get(link)
        if bulk is not None:
            bulk.requests += change

    def has_room(self, size: int) -> bool:
        return sum(fetch.download.in_flight_bytes for fetch in self.fetches.values()) + size <= ALL_IN_FLIGHT_MAX

    def open_pieces(self, download: Download, size: int, digests: bytes) -> None:
        fetch = self.fetches.get(download.file_id)
        if fetch is None or fetch.download is not download:
            return
        if self._is_size_lie(fetch, size):
            return
        if fetch.is_in_memory:
            fetch.memory = MemoryPieces(size, digests, download.piece_size)
            self.host.run(lambda: b"", partial(self._on_begun, fetch, None))
        else:
            first = Destination.CACHE if fetch.wish is None else Destination.DOWNLOAD
            self._begin(fetch, fetch.destination or first)

    def _is_size_lie(self, fetch: Fetch, size: int) -> bool:
        """Has it another size, by its digests, than the person was shown? Then that is told, and it ends.

        Of a relay the size is but what one requester said: it keeps it from nobody.
        """
        if fetch.wish is None or size < 0 or size == fetch.content.size:
            return False
        lie = "size lie: announced with %d bytes, it has %d" % (fetch.content.size, size)
        self.host.run(lambda: None, lambda _, error, now: self.fail(fetch, lie, now))
        return True

    def open_again(self, fetch: Fetch, error: Exception, now: float) -> bool:
        """Has another program been at what is here of it? What of that is still right stays, the rest is fetched again.

        False if the error is another one, or that program does it again and again.
        """
        is_changed = kind_of(error) in (ErrorKind.CHANGED, ErrorKind.MISSING)
        if not is_changed or fetch.memory is not None or fetch.rechecks >= RECHECKS_MAX:
            return False
        fetch.rechecks += 1
        fetch.is_complete = False
        fetch.download.open_again()
        return True

    def _tell_lost(self, fetch: Fetch, before: int) -> None:
        lost = before - fetch.download.verified_bytes
        if lost > 0 and fetch.wish is not None:
            told = "%s was changed on this disk by another program; %s of it are fetched again"
            self.host.notify(Notice(told % (fetch.name, size_text(lost))))

    def _begin(self, fetch: Fetch, destination: Destination) -> None:
        fetch.destination = destination
        size, digests, is_folder = fetch.download.size, fetch.download.digests, fetch.content.is_folder
        begin = partial(self.library.begin, fetch.file_id, size, digests, destination, fetch.name, is_folder)
        if fetch.wish is None and fetch.relay_for:  # who asked for it first has it counted as a share of the disk
            begin = partial(begin, person=next(iter(fetch.relay_for)))
        self.host.run(begin, partial(self._on_begun, fetch, destination))

    def _on_begun(
        self, fetch: Fetch, destination: Any, bitmap: Any, error: Optional[Exception], now: float
    ) -> None:
        is_cache = destination is Destination.CACHE
        if error is None and bitmap is None:  # what is here from an earlier time is not all hashed yet
            if not fetch.is_ended:
                self._begin(fetch, destination)
            return
        if is_cache:
            self.host.on_cache_changed(lambda: None)  # older contents may have made room for it
        if fetch.is_ended:
            return
        if error is None and fetch.rechecks:
            before = fetch.download.verified_bytes
            fetch.download.on_opened(bytes(bitmap), now)
            self._tell_lost(fetch, before)
        elif error is None:
            fetch.download.on_opened(bytes(bitmap), now)
            self.serving.tell_pieces(fetch.file_id, bits_of(bytes(bitmap), len(bitmap) * 8), now)
            for requester, query_id in fetch.relay_for.items():
                self.serving.offer(fetch.file_id, query_id, requester, True)
        elif is_cache and kind_of(error) is ErrorKind.FULL:
            # Too big for the cache: it passes through a part file, which is dropped when those who wait have it.
            fetch.is_passing = True
            self._begin(fetch, Destination.PASSING)
        else:
            self.fail(fetch, self._why_not(fetch, error), now)

    def write(self, download: Download, index: int, data: Any, link: int) -> None:
        fetch = self.fetches[download.file_id]
        if fetch.memory is not None:
            job: Callable[[], bool] = partial(fetch.memory.write_piece, index, data)
        else:
            job = self.library.piece_write(download.file_id, index, data)
        self.host.run(job, partial(self._on_written, fetch, index, link))

    def _on_written(
        self, fetch: Fetch, index: int, link: int, is_right: Any, error: Optional[Exception], now: float
    ) -> None:
        if fetch.is_ended:
            return
        if error is not None:
            self.fail(fetch, self._why_not(fetch, error), now)
            return
        if is_right:
            self._count_piece(fetch, index, link, now)
        fetch.download.on_written(index, link, bool(is_right), now)

    def _count_piece(self, fetch: Fetch, index: int, link: int, now: float) -> None:
        fetch.lonely_since = None
        size, source = fetch.download.length_of(index), fetch.download.sources.get(link)
        if source is not None:
            fetch.trouble, fetch.changed_at, fetch.short_times = "", None, 0
            fetch.gave[source.node_id] = fetch.gave.get(source.node_id, 0) + size
            self._note_label(source)
            if fetch.is_via and source.node_id == self.host.supernode_id:
                fetch.gave_via = source.node_id
        if fetch.wish is not None:
            fetch.wish.on_piece(fetch, size, now)

    def on_piece(self, download: Download, index: int, now: float) -> None:
        self.serving.tell_pieces(download.file_id, (index,), now)

    def on_strike(self, download: Download, source: Source, why: str, is_proof: bool, now: float) -> None:
        fetch = self.fetches.get(download.file_id)
        if fetch is None:
            return
        key = source.node_id, fetch.file_id
        strikes = self._strikes[key] = STRIKES_MAX if is_proof else self._strikes.get(key, 0) + 1
        while len(self._strikes) > JUDGED_MAX:
            self._strikes.popitem(last=False)
        is_banned = strikes >= STRIKES_MAX
        what = "it is not used any more" if is_banned else "it is asked again"
        self.host.notify(Notice("%s sent %s of %s; %s" % (source.label, why, fetch.name, what)))
        if is_banned:
            self._strikes.pop(key, None)
            fetch.trouble = "%s sent %s" % (source.label, why)
            self._leave_source(fetch, source, now + BAN_TIME, now)

    def on_useless(self, download: Download, source: Source, why: str, now: float) -> None:
        fetch = self.fetches.get(download.file_id)
        if fetch is not None:
            fetch.trouble = "%s %s" % (source.label, why)
            log.info("%s: %s", fetch.name, fetch.trouble)
            self._leave_source(fetch, source, now + USELESS_TIME, now)

    def on_all_pieces(self, download: Download, now: float) -> None:
        fetch = self.fetches[download.file_id]
        fetch.is_complete = True
        if fetch.wish is not None:
            fetch.wish.on_all_pieces(fetch, now)
        elif not fetch.is_passing:
            keep = partial(self.library.finish_cache, fetch.file_id, fetch.name, fetch.content.is_folder)
            in_slices(self.host, keep, partial(self._on_cached, fetch), False, lambda: fetch.is_ended)

    # ---- ends

    def end(self, fetch: Fetch, now: float) -> None:
        """Nothing more is asked for this content; who else wishes for it has its turn."""
        if fetch.is_ended:
            return
        fetch.is_ended = True
        self._count(fetch, None)
        fetch.download.end()
        self.fetches.pop(fetch.file_id, None)
        self._by_query.pop(fetch.content.query_id, None)
        for bulk in self._providers(fetch):
            bulk.fetches.pop(fetch, None)
            bulk.used_at = now
        if fetch.file_id not in self.served_on:
            self.serving.tell_ended(fetch.file_id)
        if fetch.destination in (Destination.CACHE, Destination.PASSING):    # nobody could go on with it
            self.host.run(partial(self.library.discard, fetch.file_id), lambda *_: None)
        for then in self._when_ended.pop(fetch.file_id, ()):
            then(now)

    def retire(self, fetch: Fetch, now: float) -> None:
        """It is of no use here any more, but others are served on if it is in memory.

        A folder is announced only when all of it is here and scanned; until then they would lose us as a source.
        """
        if fetch.memory is not None:
            fetch.served_until = now + SERVED_ON_TIME
            self.served_on[fetch.file_id] = fetch
            while sum(one.download.size for one in self.served_on.values()) > SERVED_ON_BYTES_MAX:
                self._serve_no_more(next(iter(self.served_on)))
        self.end(fetch, now)

    def let_go(self, wish: Wish) -> None:
        """Nothing that this wish has fetched is served on."""
        for file_id in [file_id for file_id, fetch in self.served_on.items() if fetch.wish is wish]:
            self._serve_no_more(file_id)

    def _serve_no_more(self, file_id: bytes) -> None:
        del self.served_on[file_id]
        if file_id not in self.fetches:
            self.serving.tell_ended(file_id)

    def _check_served_on(self, now: float) -> None:
        """When it is announced, or old, the memory is let go."""
        for file_id, fetch in list(self.served_on.items()):
            if now >= fetch.served_until or self.host.size_of_own(file_id) is not None:
                self._serve_no_more(file_id)

    def fail(self, fetch: Fetch, reason: str, now: float) -> None:
        if fetch.is_ended:
            return
        self.end(fetch, now)
        words = reason.encode("utf-8", "replace")[:REASON_BYTES_MAX].decode("utf-8", "ignore")
        for requester, query_id in fetch.relay_for.items():
            self.host.send_to_supernode(NotRelayed(query_id, fetch.file_id, requester, fetch.is_gone, words))
        if fetch.wish is not None:
            fetch.wish.on_failed(fetch, reason, now)

    def _why_not(self, fetch: Fetch, error: Exception) -> str:
        """What is told about an error of the library; of a relay, in the words of those who wait for it."""
        sentence, fetch.is_lost = sentence_of(error), kind_of(error) is ErrorKind.GONE
        fetch.is_full, fetch.is_short = kind_of(error) is ErrorKind.FULL, kind_of(error) is ErrorKind.SHORT
        if fetch.wish is not None or kind_of(error) is not ErrorKind.FULL:
            return sentence
        me, cause = self.host.label_of(self.host.node_id), sentence.rpartition(": ")[2]
        return "%s has no room to pass it on: %s" % (me, cause)

    def on_not_relayed(self, answer: NotRelayed, now: float) -> None:
        """The supernode cannot pass it on to us; whoever gives it directly still may."""
        fetch = self._by_query.get(answer.query_id)
        if fetch is None or fetch.file_id != answer.file_id or fetch.is_complete:
            self.dropped += 1
            return
        fetch.trouble = answer.reason or "the supernode cannot pass it on"
        log.info("%s: not relayed, %s", fetch.name, fetch.trouble)
        if all(bulk.node_id == self.host.supernode_id for bulk in self._providers(fetch)):
            fetch.is_gone = answer.is_gone
            self.fail(fetch, fetch.trouble, now)

    def unfollow(self, fetch: Fetch) -> None:
        """Whoever tells us of new pieces of it need not any more."""
        for bulk in self._providers(fetch):
            if bulk.is_up:
                self.send(bulk.link, TransferDone(fetch.file_id))

    def _note_label(self, source: Source) -> None:
        self._labels[source.node_id] = source.label
        self._labels.move_to_end(source.node_id)
        if len(self._labels) > LABELS_KEPT:
            self._labels.popitem(last=False)

    def label_of(self, node_id: bytes) -> str:
        """How it is called now; or was, when it gave something."""
        was = self._labels.get(node_id)
        return self.host.label_of(node_id) if was is None or self.host.is_member(node_id) else was

    def thank(self, gave: Iterable[bytes], file_id: bytes, now: float) -> None:
        """Tell those who gave something that we have it all; again by a new link if theirs is lost before they hear."""
        for node_id in gave:
            thanks = self._thanks.setdefault(node_id, Thanks(now + THANKS_TIME))
            thanks.file_ids.append(file_id)
            bulk = self._bulk_to.get(node_id)
            if bulk is None:
                self._thank_by_new_link(node_id, now)
            elif bulk.is_up:
                self.send(bulk.link, TransferDone(file_id))
        while len(self._thanks) > THANKED_MAX:
            self._thanks.popitem(last=False)
        self._tick_at = min(self._tick_at, now + TICK)

    def _thank_by_new_link(self, node_id: bytes, now: float) -> None:
        place = self.host.place_of(node_id)
        may_link = self.host.mesh or self.host.is_supernode or node_id == self.host.supernode_id
        if place is None or not may_link or now >= self._thanks[node_id].until:
            del self._thanks[node_id]
        else:
            self._open_bulk(place, node_id, now)

    def _check_thanks(self, now: float) -> None:
        """What was delivered need not be said again; where there is no link, there has to be one."""
        for node_id in list(self._thanks):
            bulk = self._bulk_to.get(node_id)
            if bulk is None:
                self._thank_by_new_link(node_id, now)
            elif bulk.is_up and not self.network.backlog(bulk.link):
                del self._thanks[node_id]

    def _on_cached(self, fetch: Fetch, _: Any, error: Optional[Exception], now: float) -> None:
        if fetch.is_ended:
            return
        if error is not None:
            if not self.open_again(fetch, error, now):
                self.fail(fetch, sentence_of(error), now)
            return
        fetch.destination = None
        self.thank(fetch.gave, fetch.file_id, now)
        # Until the node knows that its cache has it, the fetch answers for it.
        self.host.on_cache_changed(partial(self.end, fetch, now))

    # ---- relays: the supernode's own peer fetches for those who do not connect to others

    def on_relay(self, relay: Relay, now: float) -> None:
        """The supernode asks its own peer to fetch this and serve it."""
        if relay.requester == self.host.node_id or relay.size > FILE_SIZE_MAX:
            return
        fetch = self.fetches.get(relay.file_id)
        if fetch is None and self.host.size_of_own(relay.file_id) is None:
            fetch = self._new_relay(relay, now)
        if fetch is not None:
            fetch.relay_for[relay.requester] = relay.query_id
            fetch.relayed_at = now
            while len(fetch.relay_for) > MEMBERS_MAX:
                fetch.relay_for.popitem(last=False)
        self.serving.note_name(relay.requester, relay.file_id, relay.name)
        self.serving.offer(relay.file_id, relay.query_id, relay.requester, True)

    def _new_relay(self, relay: Relay, now: float) -> Optional[Fetch]:
        try:
            check_name(relay.name)
        except BadName:  # a name that could not even be kept in the cache
            self.dropped += 1
            return None
        held = self._sought.held(relay.requester) + self._relayed.held(relay.requester)
        if held >= RELAYS_FOR_ONE_MAX or not self._make_room(self._sought, relay.requester, now):
            full = NotRelayed(relay.query_id, relay.file_id, relay.requester, False, self._why_full())
            log.info("%s is not relayed for %s: %s", relay.name, self.host.label_of(relay.requester), full.reason)
            self.host.send_to_supernode(full)
            return None
        fetch = self._new_fetch(relay.file_id, relay.size, relay.name, relay.is_folder, now)
        self._count(fetch, (self._sought, relay.requester))
        self._begin_looking(fetch, now)
        return fetch

    def _why_full(self) -> str:
        return RELAYS_FULL % self.host.label_of(self.host.node_id)

    def _is_relayed_now(self, fetch: Fetch, now: float) -> bool:
        """Somebody offers it: a relay takes its place only now, for what nobody has must keep nobody waiting."""
        if fetch.counted is None or fetch.counted[0] is self._relayed:
            return True
        _, requester = fetch.counted
        if not self._make_room(self._relayed, requester, now):
            self.fail(fetch, self._why_full(), now)
            return False
        self._count(fetch, (self._relayed, requester))
        return True

    def _make_room(self, shares: FairShares, requester: bytes, now: float) -> bool:
        """When there are too many, who has most loses the newest of its relays, rather one that no other waits for."""
        who = shares.gives_way(requester)
        if who is not None and who != requester:
            theirs = [fetch for fetch in self.fetches.values() if fetch.counted == (shares, who)]
            self.fail(min(reversed(theirs), key=lambda fetch: len(fetch.relay_for)), self._why_full(), now)
        return who != requester

    @staticmethod
    def _count(fetch: Fetch, counted: Optional[Tuple[FairShares, bytes]]) -> None:
        """From now on it is one of these relays, in this requester's share; None: it is none."""
        if fetch.counted is not None:
            shares, requester = fetch.counted
            shares.give_back(requester)
        fetch.counted = counted
        if counted is not None:
            counted[0].take(counted[1])

    def _served(self, file_id: bytes) -> Optional[Fetch]:
        return self.served_on.get(file_id) or self.fetches.get(file_id)

    def _partial_of(self, file_id: bytes) -> Optional[Download]:
        """A download whose verified pieces may be served."""
        fetch = self._served(file_id)
        return fetch.download if fetch is not None and fetch.download.choice is not None else None

    def _in_memory(self, file_id: bytes) -> Optional[Fetch]:
        """The same, if its pieces are not on the disk."""
        fetch = self._served(file_id)
        return fetch if fetch is not None and fetch.memory is not None else None

    def _check_relay(self, fetch: Fetch, now: float) -> None:
        """A relay that nobody waits for any more ends."""
        is_idle = fetch.wish is None and now - fetch.relayed_at > RELAY_UNWANTED_AFTER
        if is_idle and not self.serving.is_wanted(fetch.file_id):
            fetch.relay_for.clear()
            self.fail(fetch, "nobody waits for it any more", now)

    # ---- time

    def next_deadline(self) -> float:
        return min(self._tick_at, self._mesh_at, self.serving.next_deadline())

    def on_timer(self, now: float) -> None:
        self.serving.on_timer(now)
        if now >= self._mesh_at:
            self._open_mesh_link(now)
        if now < self._tick_at:
            return
        if now - self._tick_at > SLEPT_AFTER:
            self._on_slept(now - self._tick_at, now)
        for fetch in list(self.fetches.values()):
            if not fetch.is_ended:
                self._check(fetch, now)
        self._check_served_on(now)
        self._check_thanks(now)
        for bulk in list(self._bulk.values()):
            if bulk.fetches or bulk.node_id in self._mates:
                bulk.used_at = now
            elif bulk.is_up and now - bulk.used_at >= BULK_IDLE:
                self.network.disconnect(bulk.link, "no longer needed")
        has_work = self.fetches or self._bulk or self.served_on or self._thanks
        self._tick_at = now + TICK if has_work else math.inf

    def _on_slept(self, seconds: float, now: float) -> None:
        """A lid was closed, or the machine was busy: what came meanwhile waits to be read, and nobody is to blame."""
        for fetch in self.fetches.values():
            fetch.download.on_slept(seconds, now)
            if fetch.lonely_since is not None:
                fetch.lonely_since = now

    def _check(self, fetch: Fetch, now: float) -> None:
        if not fetch.is_complete:
            fetch.download.on_timer(now)
        if not fetch.is_ended:
            self._check_relay(fetch, now)
        if fetch.is_ended or fetch.is_complete:
            return
        if self._has_hope(fetch, now):
            fetch.lonely_since = None
        elif fetch.lonely_since is None:
            fetch.lonely_since = now
        has_few = self._count_ready(fetch) < SOURCES_WANTED
        if now >= fetch.search_at and has_few and self.host.has_supernode:
            self._search(fetch, now)
        self._check_loneliness(fetch, now)

    def _check_loneliness(self, fetch: Fetch, now: float) -> None:
        is_connecting = any(not bulk.is_up for bulk in self._providers(fetch))
        patience = NOBODY_AFTER if self.host.has_supernode else NOBODY_AFTER_WITHOUT_SUPERNODE
        if fetch.is_put_off:
            patience = NOBODY_AFTER_PUT_OFF
        if self._is_gone(fetch, now):
            fetch.is_gone = True
            self.fail(fetch, self._why_alone(fetch), now)
            return
        if fetch.lonely_since is not None and not is_connecting and now - fetch.lonely_since >= patience:
            self.fail(fetch, self._why_alone(fetch), now)

    def _has_hope(self, fetch: Fetch, now: float) -> bool:
        """Is there a source that gives something, or may soon?"""
        choice = fetch.download.choice
        if fetch.download.is_opening:
            return True
        for source in fetch.download.sources.values():
            if not self._is_giving(fetch, source):
                continue
            if source.state is not SourceState.READY or source.owed or now - source.news_at < HOPE_TIME:
                return True
            if choice is not None and choice.is_useful(source.link):
                return True
        return False

    def _may_go_on(self, fetch: Fetch) -> bool:
        """Is there a source that has what is missing, or may have it? Who only waits for us is none."""
        choice, sources = fetch.download.choice, fetch.download.sources
        for bulk in self._providers(fetch):
            source = sources.get(bulk.link)
            if source is None or choice is None or source.state is SourceState.OPENED or choice.is_useful(bulk.link):
                return True
        return False

    def _is_gone(self, fetch: Fetch, now: float) -> bool:
        """Has the last source dropped this content, and did nobody else offer it since?"""
        if fetch.changed_at is None or self._may_go_on(fetch):
            return False
        is_direct = self.host.has_supernode and not (fetch.is_via or fetch.wants_via)
        return is_direct and now - fetch.changed_at >= NOBODY_AFTER_CHANGE

    def _why_alone(self, fetch: Fetch) -> str:
        if fetch.trouble:
            return "%s, and nobody else has it" % fetch.trouble
        if fetch.last_source:
            return "%s left and nobody else has it" % fetch.last_source
        return "nobody here has it"

    def end_all(self, now: float) -> None:
        """The node leaves: nothing is asked any more, parts stay."""
        self._when_ended.clear()
        self._thanks.clear()
        self.served_on.clear()
        self._mates, self._mesh_at = [], math.inf
        for each in list(self.fetches.values()):
            self.end(each, now)
        for link in self._bulk:
            self.network.disconnect(link, "left")
        self.serving.end_all()
