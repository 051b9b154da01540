"""All transfers of one node: which contents are wanted, by which links they come, and who is served.

    Job     what a person asked for: a file, or a folder (its listing first, then its files, a few at a time)
    Fetch   one content that is wanted, by a job or for the cache: searches, gathers sources, owns a `Download`
    Bulk    a link that this node opened to a provider; one for all contents that come from it
    Uploads the other direction (see transfer.py)

A Fetch ends with all pieces verified, or with a sentence that says why not; until then it searches again whenever it has too
few sources. With the mesh off, or when only mesh-off nodes offer, it asks by way of the supernode, whose own peer then
fetches the content into its cache and serves it meanwhile. Losing a supernode ends no Fetch: what it served is asked again.
Pure: disk jobs, links and notifications go through the owner (`Host`).
"""

from __future__ import annotations

import hashlib
import math
import random
from collections import OrderedDict, deque
from functools import partial
from typing import Any, Callable, Deque, Dict, List, NamedTuple, Optional, Protocol, Set, Tuple

from protocol import messages
from protocol.download import Rate
from protocol.messages import (
    FILE_CHANGED,
    MESH_IS_OFF,
    NO_NODE,
    NO_PIECE,
    NOT_READABLE,
    NOWHERE,
    PIECE_MISSING,
    PURPOSE_BULK,
    UNKNOWN_FILE,
    Have,
    LinkHello,
    ManifestPage,
    ManifestRequest,
    Offer,
    PieceCancel,
    PieceData,
    PieceMap,
    PieceMapRequest,
    PieceRefused,
    PieceRequest,
    Queued,
    Relay,
    Search,
    TransferDone,
    encode_parts,
)
from protocol.results import DownloadDone, ListEntry, Notice, Progress, Stopped, TransferRow, UploadDone
from protocol.transfer import DIGEST_SIZE, FILE_SIZE_MAX, Download, Source, SourceState, Uploads, manifest_pages

SEARCH_INTERVAL, SEARCH_INTERVAL_MAX = 3.0, 30.0  # doubled while there are sources, for more of them
SOURCES_WANTED = 4  # fewer: search again
SOURCES_MAX = 8  # of one content at once
NOBODY_AFTER = 10.0  # seconds without a source while there is a supernode
NOBODY_AFTER_WITHOUT_SUPERNODE = 60.0
HOPE_TIME = 30.0  # a source that has nothing new for us is hoped for so long
VIA_AFTER = 0.5  # seconds that a direct offer may come after one that cannot be used directly
UNREACHABLE_TIME = 10.0  # a node that could not be connected to is not tried again so long
MESH_OFF_REASON = "its mesh is off"
USELESS_TIME = 60.0  # a source that sent nothing or was too slow is left alone so long
STRIKES_MAX, BAN_TIME = 2, 600.0  # THREATS: G01
JUDGED_MAX = 4096  # strikes and bans remembered
BULK_IDLE = 10.0  # seconds until a link that nothing comes by is closed
RELAY_UNWANTED_AFTER = 15.0
FETCHES_MAX = 64  # relays for others at once
FOLDER_FILES_AT_ONCE = 4
LISTING_SIZE_MAX = 32 << 20  # bytes of a folder's listing
PROGRESS_INTERVAL = 0.5  # at most twice a second for each transfer
TICK = 0.5
DROPPED_MAX = 1000  # senseless messages on one link before it is closed
LINKS_PER_NODE_MAX = 4  # bulk links that one node may open to us
ENDED_KEPT = 20  # ended transfers that are still shown

After = Callable[[Any, Optional[Exception], float], None]


class FileRules(NamedTuple):
    """The library's pure functions and values that transfers need."""

    piece_size_of: Callable[[int], int]
    is_true_manifest: Callable[[bytes, int, bytes], bool]
    decode_folder: Callable[[bytes], List[Any]]
    check_name: Callable[[str], str]
    to_download: Any
    to_cache: Any


class Host(Protocol):
    """What transfers ask of the node they are part of."""

    @property
    def is_supernode(self) -> bool: ...
    @property
    def has_supernode(self) -> bool: ...
    @property
    def supernode_id(self) -> Optional[bytes]: ...
    @property
    def node_id(self) -> bytes: ...
    @property
    def network_id(self) -> bytes: ...
    @property
    def mesh(self) -> bool: ...

    def label_of(self, node_id: bytes) -> str: ...
    def place_of(self, node_id: bytes) -> Any: ...
    def send_to_supernode(self, message: Any) -> bool: ...
    def notify(self, event: Any) -> None: ...
    def run(self, job: Callable[[], Any], then: After) -> None:
        """The job on the disk thread, then `then(result, error, now)` here."""

    def next_number(self) -> int: ...
    def size_of_own(self, file_id: bytes) -> Optional[int]:
        """The size of a content that is here whole (shared or cached), else None."""

    def is_cached(self, file_id: bytes) -> bool: ...
    def name_of_own(self, file_id: bytes) -> str: ...
    def files_in(self, file_id: bytes) -> List[bytes]:
        """The contents in a folder that this node shares; none for a file."""

    def has_under_name(self, file_id: bytes, name: str) -> bool: ...
    def on_finished(self, shared: Any) -> None:
        """A download is under its final name: share it."""

    def on_cache_changed(self, then: Callable[[], None]) -> None: ...
    def hold(self, name: str) -> None: ...
    def release(self, name: str) -> None: ...


def sentence_of(error: Exception) -> str:
    """What a person is told about an error of the library."""
    text = str(getattr(error, "sentence", "") or "the disk job failed")
    return text[:-1] if text.endswith(".") else text


def kind_of(error: Exception) -> str:
    return str(getattr(getattr(error, "kind", None), "name", ""))


class MemoryPieces:
    """The pieces of a content that is kept in memory: a folder's listing. Its methods hash, so they run as disk jobs."""

    def __init__(self, size: int, digests: bytes, piece_size: int) -> None:
        self.data = bytearray(size)
        self._digests = digests
        self._piece_size = piece_size

    def write_piece(self, index: int, data: Any) -> bool:
        if hashlib.sha256(data).digest() != self._digests[index * DIGEST_SIZE : (index + 1) * DIGEST_SIZE]:
            return False
        start = index * self._piece_size
        self.data[start : start + len(data)] = data
        return True


class Bulk:
    """A link that we opened to a provider."""

    def __init__(self, link: int, node_id: bytes, now: float) -> None:
        self.link = link
        self.node_id = node_id
        self.is_up = False
        self.fetches: Set[Fetch] = set()
        self.requests = 0  # pieces asked and not yet received, for all contents
        self.used_at = now
        self.dropped = 0


class Fetch:
    """One content that is wanted."""

    def __init__(self, content: Search, download: Download, now: float) -> None:
        self.content = content  # the Search to be sent, as far as it is known
        self.file_id = content.file_id
        self.download = download
        self.memory: Optional[MemoryPieces] = None
        self.is_in_memory = False
        self.job: Optional[Job] = None
        self.name = content.name  # under which it is kept
        self.relay_for: OrderedDict[bytes, int] = OrderedDict()  # requester -> query id
        self.relayed_at = -math.inf
        self.is_passing = False  # relayed, but too big for the cache
        self.search_at = now
        self.search_interval = SEARCH_INTERVAL
        self.is_via = False  # the last search went by way of the supernode
        self.wants_via = False
        self.lonely_since: Optional[float] = now
        self.last_source = ""  # label of the source that was lost last
        self.trouble = ""  # why the last source was given up, in words
        self.gave: Dict[str, int] = {}  # label -> bytes
        self.gave_via = ""  # the supernode that served it for others
        self.is_finishing = False
        self.is_ended = False


class Job:
    """What a person asked for, with a number."""

    def __init__(self, number: int, entry: ListEntry, now: float) -> None:
        self.number = number
        self.entry = entry
        self.started_at = now
        self.size = entry.size
        self.fetches: Set[Fetch] = set()
        self.gave: Dict[str, int] = {}
        self.gave_via = ""
        self.told_at = -math.inf
        self.end_state = ""
        self.verified_at_end = 0
        # a folder's
        self.waiting: Deque[Any] = deque()  # entries of the listing
        self.busy: Set[bytes] = set()
        self.providers: List[bytes] = []  # gave the listing, so they are asked for the files first
        self.later: List[Any] = []  # the same content under a second path: after the first
        self.done_bytes = 0
        self.failures: List[str] = []
        self.rate: Optional[Rate] = None
        self.path = ""
        self.new_files = 0
        self.is_closing = False

    def verified(self) -> int:
        if self.end_state:
            return self.verified_at_end
        if not self.entry.is_folder:
            return sum(fetch.download.verified_bytes for fetch in self.fetches)
        return self.done_bytes + sum(fetch.download.verified_bytes for fetch in self.fetches if not fetch.is_in_memory)

    def labels(self) -> Tuple[str, ...]:
        gave = dict(self.gave)
        for fetch in self.fetches:
            for label, size in fetch.gave.items():
                gave[label] = gave.get(label, 0) + size
        return tuple(sorted(gave, key=lambda label: -gave[label]))


def ordinal(number: int) -> str:
    ending = "th" if 10 <= number % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return "%d%s" % (number, ending)


class Transfers:
    """Everything that moves files in one node."""

    def __init__(self, network: Any, library: Any, rules: FileRules, rng: random.Random, host: Host) -> None:
        self.network = network
        self.library = library
        self.rules = rules
        self.rng = rng
        self.host = host
        self.jobs: OrderedDict[int, Job] = OrderedDict()
        self.fetches: Dict[bytes, Fetch] = {}
        self.uploads = Uploads(self)
        self.dropped = 0
        self._by_query: Dict[int, Fetch] = {}
        self._bulk: Dict[int, Bulk] = {}
        self._bulk_to: Dict[bytes, Bulk] = {}
        self._strikes: OrderedDict[Tuple[bytes, bytes], int] = OrderedDict()
        self._left_alone: OrderedDict[Tuple[bytes, bytes], float] = OrderedDict()  # (node, content) -> until
        self._refused: Dict[Tuple[bytes, bytes], float] = {}  # uploads cancelled by a person
        self._tick_at = math.inf
        self._handlers: Dict[Any, Callable[[int, Any, float], None]] = {
            ManifestRequest: self._on_manifest_request,
            PieceMapRequest: self._on_piece_map_request,
            PieceRequest: self._on_piece_request,
            PieceCancel: lambda link, message, now: self.uploads.on_cancel(link, message.file_id, message.index),
            TransferDone: self._on_transfer_done,
        }

    # ---- commands

    def start(self, entry: ListEntry, now: float) -> Job:
        """Fetch a file or folder for a person."""
        job = Job(self.host.next_number(), entry, now)
        self.jobs[job.number] = job
        self._forget_old_jobs()
        if entry.is_folder:
            job.rate = Rate(now)
            if entry.content_size > LISTING_SIZE_MAX:
                self._stop_job(job, "its list of files is too long", now)
                return job
        self._fetch_for(job, entry.file_id, entry.content_size, entry.name, entry.is_folder, now)
        return job

    def running(self, file_id: bytes) -> Optional[Job]:
        """The job that fetches this content, if one runs."""
        return next((job for job in self.jobs.values() if not job.end_state and job.entry.file_id == file_id), None)

    def _forget_old_jobs(self) -> None:
        ended = [number for number, job in self.jobs.items() if job.end_state]
        for number in ended[: max(0, len(ended) - ENDED_KEPT)]:
            del self.jobs[number]

    def cancel(self, number: int, now: float) -> str:
        """Stop a transfer; a line for the person."""
        job = self.jobs.get(number)
        if job is not None and not job.end_state:
            verified = job.verified()
            self._stop_job(job, "cancelled", now, tell=False)
            kept = "; what is here is kept for a later R" if verified else ""
            return "%s is cancelled%s" % (job.entry.name, kept)
        for upload, file_id, sent in self.uploads.rows(now):
            if sent.number == number:
                self._refused[upload.node_id, file_id] = now + BAN_TIME
                self.network.disconnect(upload.link, "cancelled there")
                return "sending %s to %s is cancelled" % (self.host.name_of_own(file_id), upload.label)
        return "There is no running transfer %d." % number

    def on_mesh_set(self, now: float) -> None:
        """With the mesh off, no link but those with the supernode's node stays."""
        if self.host.mesh or self.host.is_supernode:
            return
        for one in [*self._bulk.values(), *self.uploads.links.values()]:
            if one.node_id != self.host.supernode_id:
                self.network.disconnect(one.link, MESH_OFF_REASON)
        for fetch in self.fetches.values():
            fetch.search_at = now
            self._tick_at = now

    def link_counts(self) -> Dict[bytes, int]:
        """How many bulk links there are with each node."""
        counts: Dict[bytes, int] = {}
        for one in [*self._bulk.values(), *self.uploads.links.values()]:
            counts[one.node_id] = counts.get(one.node_id, 0) + 1
        return counts

    def end_all(self, now: float) -> None:
        """The node leaves: nothing is asked any more, parts stay."""
        for fetch in list(self.fetches.values()):
            self._end(fetch)
        for link in [*self._bulk, *self.uploads.links]:
            self.network.disconnect(link, "left")

    # ---- fetches

    def _fetch_for(self, job: Job, file_id: bytes, size: int, name: str, is_listing: bool, now: float) -> Fetch:
        fetch = self.fetches.get(file_id)
        if fetch is None or fetch.is_ended or fetch.job is not None:
            fetch = self._new_fetch(file_id, size, name, is_listing, now)
            fetch.is_in_memory = is_listing
        elif is_listing:
            # It is being relayed: the listing is small, wait for the cache's copy like anybody else.
            fetch.job = job
        fetch.job, fetch.name = job, name
        job.fetches.add(fetch)
        if fetch.download.size < 0:
            self._look_for_part(fetch, now)
        return fetch

    def _new_fetch(self, file_id: bytes, size: int, name: str, is_folder: bool, now: float) -> Fetch:
        query_id = self.rng.getrandbits(32)
        content = Search(query_id, file_id, size, name, is_folder, NO_NODE, NOWHERE, False)
        fetch = Fetch(content, Download(file_id, self, self.rng, now), now)
        self.fetches[file_id] = self._by_query[query_id] = fetch
        self._tick_at = min(self._tick_at, now + TICK)
        return fetch

    def _look_for_part(self, fetch: Fetch, now: float) -> None:
        """An unfinished or cached part knows its manifest; search meanwhile."""
        if fetch.content.size == 0 and self.rules.is_true_manifest(fetch.file_id, 0, b""):
            fetch.download.open(0, b"")
            return
        self._search(fetch, now)
        if not fetch.is_in_memory:
            self.host.run(partial(self.library.manifest, fetch.file_id), partial(self._on_known_manifest, fetch))

    def _on_known_manifest(self, fetch: Fetch, manifest: Any, error: Optional[Exception], now: float) -> None:
        if error is None and not fetch.is_ended and fetch.download.size < 0:
            fetch.download.open(*manifest)

    def _search(self, fetch: Fetch, now: float) -> None:
        via = not self.host.is_supernode and (not self.host.mesh or (fetch.wants_via and not fetch.download.sources))
        self.host.send_to_supernode(fetch.content._replace(via_supernode=via))
        fetch.is_via = via
        fetch.search_at = now + fetch.search_interval
        is_served = bool(fetch.download.sources)
        fetch.search_interval = min(2 * fetch.search_interval, SEARCH_INTERVAL_MAX) if is_served else SEARCH_INTERVAL

    def on_joined(self, now: float) -> None:
        """There is a supernode, perhaps a new one: ask what is still missing."""
        for fetch in list(self.fetches.values()):
            fetch.search_interval = SEARCH_INTERVAL
            if fetch.lonely_since is not None:
                fetch.lonely_since = now
            if not fetch.is_finishing:
                self._search(fetch, now)

    def on_supernode_lost(self, now: float) -> None:
        for fetch in self.fetches.values():
            if fetch.lonely_since is not None:
                fetch.lonely_since = now

    def on_offer(self, offer: Offer, now: float) -> None:
        """Somebody has (pieces of) what we look for."""
        fetch = self._by_query.get(offer.query_id)
        if fetch is None or fetch.file_id != offer.file_id or offer.provider == self.host.node_id or fetch.is_finishing:
            self.dropped += 1
            return
        if self._is_left_alone(offer.provider, fetch.file_id, now):
            return
        is_direct = self.host.is_supernode or offer.provider == self.host.supernode_id or (
            self.host.mesh and offer.mesh
        )
        if not is_direct:
            fetch.wants_via = True
            if not fetch.is_via and not self._providers(fetch):
                fetch.search_at = min(fetch.search_at, now + VIA_AFTER)
                self._tick_at = min(self._tick_at, fetch.search_at)
            return
        self._use(fetch, offer.provider, now)

    def _providers(self, fetch: Fetch) -> List[Bulk]:
        return [bulk for bulk in self._bulk.values() if fetch in bulk.fetches]

    def _use(self, fetch: Fetch, provider: bytes, now: float) -> None:
        """Take this node as a source, by a link that is there or a new one."""
        bulk = self._bulk_to.get(provider)
        if bulk is None:
            place = self.host.place_of(provider)
            if place is None or len(self._providers(fetch)) >= SOURCES_MAX:
                return
            bulk = Bulk(self.network.connect(place), provider, now)
            self._bulk[bulk.link] = self._bulk_to[provider] = bulk
        elif fetch in bulk.fetches or len(self._providers(fetch)) >= SOURCES_MAX:
            return
        bulk.fetches.add(fetch)
        if bulk.is_up:
            fetch.download.add_source(bulk.link, provider, self.host.label_of(provider), now)

    def _leave_source(self, fetch: Fetch, source: Source, until: float, now: float) -> None:
        bulk = self._bulk.get(source.link)
        if bulk is not None:
            bulk.fetches.discard(fetch)
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

    def _is_left_alone(self, node_id: bytes, file_id: bytes, now: float) -> bool:
        return self._left_alone.get((node_id, file_id), -math.inf) > now

    # ---- what a Download wants done (DownloadHands)

    def send(self, link: int, message: Any) -> None:
        self.network.send(link, *encode_parts(message))

    send_parts = send

    def piece_size_of(self, size: int) -> int:
        return self.rules.piece_size_of(size)

    def is_true_manifest(self, file_id: bytes, size: int, digests: bytes) -> bool:
        return self.rules.is_true_manifest(file_id, size, digests)

    def requests_on(self, link: int) -> int:
        bulk = self._bulk.get(link)
        return bulk.requests if bulk else 0

    def count_requests(self, link: int, change: int) -> None:
        bulk = self._bulk.get(link)
        if bulk is not None:
            bulk.requests += change

    def open_pieces(self, download: Download, size: int, digests: bytes) -> None:
        fetch = self.fetches.get(download.file_id)
        if fetch is None or fetch.download is not download:
            return
        if size != fetch.content.size:
            self._fail(fetch, "size lie: announced with %d bytes, it has %d" % (fetch.content.size, size), None)
        elif fetch.is_in_memory:
            fetch.memory = MemoryPieces(size, digests, download.piece_size)
            self.host.run(lambda: b"", partial(self._on_begun, fetch, False))
        else:
            self._begin(fetch, self.rules.to_download if fetch.job else self.rules.to_cache)

    def _begin(self, fetch: Fetch, destination: Any) -> None:
        download, is_folder = fetch.download, fetch.content.is_folder
        begin = partial(self.library.begin, fetch.file_id, download.size, download.digests, destination, fetch.name, is_folder)
        self.host.run(begin, partial(self._on_begun, fetch, destination is self.rules.to_cache))

    def _on_begun(self, fetch: Fetch, is_cache: bool, bitmap: Any, error: Optional[Exception], now: float) -> None:
        if fetch.is_ended:
            return
        if error is None:
            fetch.download.on_opened(bytes(bitmap), now)
            self._offer_relayed(fetch)
        elif is_cache and kind_of(error) == "FULL":
            # Too big for the cache: it passes through a part file, which is dropped when those who wait have it.
            fetch.is_passing = True
            self._begin(fetch, self.rules.to_download)
        else:
            self._fail(fetch, sentence_of(error), now)

    def write(self, download: Download, index: int, data: Any, link: int) -> None:
        fetch = self.fetches[download.file_id]
        if fetch.memory is not None:
            job = partial(fetch.memory.write_piece, index, data)
        else:
            job = partial(self.library.write_piece, download.file_id, index, data)
        self.host.run(job, partial(self._on_written, fetch, index, link))

    def _on_written(self, fetch: Fetch, index: int, link: int, is_right: Any, error: Optional[Exception], now: float) -> None:
        if error is not None:
            if not fetch.is_ended:
                self._fail(fetch, sentence_of(error), now)
            return
        if is_right:
            source = fetch.download.sources.get(link)
            if source is not None:
                size = fetch.download.length_of(index)
                fetch.gave[source.label] = fetch.gave.get(source.label, 0) + size
                if fetch.is_via:
                    fetch.gave_via = source.label
                if fetch.job is not None and fetch.job.rate is not None and not fetch.is_in_memory:
                    fetch.job.rate.add(size, now)
            fetch.lonely_since, fetch.trouble = None, ""
        fetch.download.on_written(index, link, bool(is_right), now)
        if fetch.job is not None and not fetch.is_ended:
            self._tell_progress(fetch.job, now)

    def on_piece(self, download: Download, index: int) -> None:
        for link in self.uploads.subscribers(download.file_id):
            self.send(link, Have(download.file_id, index))

    def on_strike(self, download: Download, source: Source, why: str, is_proof: bool, now: float) -> None:
        fetch = self.fetches.get(download.file_id)
        if fetch is None:
            return
        key = source.node_id, fetch.file_id
        strikes = self._strikes[key] = STRIKES_MAX if is_proof else self._strikes.get(key, 0) + 1
        while len(self._strikes) > JUDGED_MAX:
            self._strikes.popitem(last=False)
        self.host.notify(Notice("%s sent %s of %s; it is not used" % (source.label, why, fetch.name)))
        if strikes >= STRIKES_MAX:
            del self._strikes[key]
            fetch.trouble = "%s sent %s" % (source.label, why)
            self._leave_source(fetch, source, now + BAN_TIME, now)

    def on_useless(self, download: Download, source: Source, why: str, now: float) -> None:
        fetch = self.fetches.get(download.file_id)
        if fetch is not None:
            fetch.trouble = "%s %s" % (source.label, why)
            self._leave_source(fetch, source, now + USELESS_TIME, now)

    def on_all_pieces(self, download: Download, now: float) -> None:
        fetch = self.fetches[download.file_id]
        fetch.is_finishing = True
        if fetch.job is None:
            self._finish_relay(fetch)
        elif fetch.is_in_memory:
            assert fetch.memory is not None
            listing = bytes(fetch.memory.data)
            self.host.run(partial(self._prepare_folder, fetch.job.entry.name, listing), partial(self._on_listing, fetch))
        else:
            flush = not fetch.job.entry.is_folder
            finish = partial(self.library.finish, fetch.file_id, fetch.name, flush)
            self.host.run(finish, partial(self._on_file_finished, fetch))

    # ---- ends

    def _end(self, fetch: Fetch) -> None:
        """Nothing more is asked for this content."""
        fetch.is_ended = True
        fetch.download.end()
        if self.fetches.get(fetch.file_id) is fetch:
            del self.fetches[fetch.file_id]
        self._by_query.pop(fetch.content.query_id, None)
        for bulk in self._providers(fetch):
            bulk.fetches.discard(fetch)
        if fetch.job is not None:
            fetch.job.fetches.discard(fetch)
            for label, size in fetch.gave.items():
                fetch.job.gave[label] = fetch.job.gave.get(label, 0) + size
            fetch.job.gave_via = fetch.gave_via or fetch.job.gave_via

    def _fail(self, fetch: Fetch, reason: str, now: Optional[float]) -> None:
        verified, job = fetch.download.verified_bytes, fetch.job
        if job is not None and not job.entry.is_folder:
            self._stop_job(job, reason, now)
            return
        self._end(fetch)
        for link in self.uploads.subscribers(fetch.file_id):
            self.send(link, PieceRefused(fetch.file_id, NO_PIECE, UNKNOWN_FILE))
        if job is None:
            self.host.run(partial(self.library.discard, fetch.file_id), lambda *_: None)
        elif fetch.is_in_memory:
            self._stop_job(job, reason, now)
        else:
            job.failures.append("%s: %s" % (fetch.name, reason))
            job.done_bytes += verified
            job.busy.discard(fetch.file_id)
            self._go_on_with_folder(job, now)

    def _stop_job(self, job: Job, reason: str, now: Optional[float], tell: bool = True) -> None:
        job.verified_at_end = job.verified()
        job.end_state = "stopped"
        is_nothing = not job.verified_at_end
        for fetch in list(job.fetches):
            self._end(fetch)
            for link in self.uploads.subscribers(fetch.file_id):
                self.send(link, PieceRefused(fetch.file_id, NO_PIECE, UNKNOWN_FILE))
        if job.entry.is_folder:
            self.host.release(job.entry.name)
        if tell:
            stopped = Stopped(job.number, job.entry.name, job.verified_at_end, job.size, reason, not is_nothing)
            self.host.notify(stopped)

    def _finish_relay(self, fetch: Fetch) -> None:
        if fetch.is_passing:
            return  # served from the part file until nobody wants it any more
        keep = partial(self.library.finish_cache, fetch.file_id, fetch.name, fetch.content.is_folder)
        self.host.run(keep, partial(self._on_relay_finished, fetch))

    def _on_relay_finished(self, fetch: Fetch, _: Any, error: Optional[Exception], now: float) -> None:
        if fetch.is_ended:
            return
        if error is not None:
            self._fail(fetch, sentence_of(error), now)
            return
        self._thank(fetch.gave, fetch.file_id)
        # Until the node knows that its cache has it, the fetch answers for it.
        self.host.on_cache_changed(partial(self._end, fetch))

    def _thank(self, gave: Dict[str, int], file_id: bytes) -> None:
        """Tell those who gave something that we have it all."""
        for bulk in self._bulk.values():
            if self.host.label_of(bulk.node_id) in gave:
                self.send(bulk.link, TransferDone(file_id))

    def _on_file_finished(self, fetch: Fetch, finished: Any, error: Optional[Exception], now: float) -> None:
        if fetch.is_ended:
            return
        job = fetch.job
        assert job is not None
        if error is not None:
            self._fail(fetch, sentence_of(error), now)
            return
        self.host.on_finished(finished.shared)
        if job.entry.is_folder:
            job.done_bytes += fetch.download.verified_bytes
            job.new_files += 1
            self._end(fetch)
            job.busy.discard(fetch.file_id)
            self._go_on_with_folder(job, now)
        else:
            self._end(fetch)
            self._done(job, finished.path, finished.was_there, now)

    def _done(self, job: Job, path: str, was_there: bool, now: float) -> None:
        self._thank(job.gave, job.entry.file_id)
        job.end_state, job.verified_at_end = "done", job.size
        sources, via = tuple(sorted(job.gave, key=lambda label: -job.gave[label])), None
        holders = tuple(label for label in job.entry.holders if label != job.gave_via)
        if job.gave_via and holders:
            sources, via = holders, job.gave_via
        seconds = max(now - job.started_at, 0.0)
        entry = job.entry
        self.host.notify(
            DownloadDone(job.number, entry.name, job.size, seconds, sources, entry.file_id, path, via, was_there)
        )

    # ---- folders

    def _prepare_folder(self, name: str, listing: bytes) -> Tuple[str, List[Any], List[str]]:
        """On the disk thread: decode the listing, make the folder and the empty ones in it."""
        entries = self.rules.decode_folder(listing)
        path = self.library.make_folder(name)
        troubles = []
        for entry in entries:
            if entry.is_folder:
                try:
                    self.library.make_folder("%s/%s" % (name, entry.path))
                except Exception as error:  # one bad place does not spoil the rest; it is told at the end
                    troubles.append(sentence_of(error))
        return path, [entry for entry in entries if not entry.is_folder], troubles

    def _on_listing(self, fetch: Fetch, prepared: Any, error: Optional[Exception], now: float) -> None:
        job = fetch.job
        if fetch.is_ended or job is None:
            return
        if error is not None:
            self._fail(fetch, sentence_of(error), now)
            return
        job.path, entries, job.failures = prepared
        providers = [source.node_id for source in fetch.download.sources.values()] if not fetch.is_via else []
        self._end(fetch)
        self.host.hold(job.entry.name)
        job.waiting = deque(entries)
        job.size = sum(entry.size for entry in entries)
        job.providers = providers
        self._go_on_with_folder(job, now)

    def _go_on_with_folder(self, job: Job, now: Optional[float]) -> None:
        """Begin with the next files, or end."""
        while job.waiting and len(job.busy) < FOLDER_FILES_AT_ONCE and not job.end_state:
            entry = job.waiting.popleft()
            if entry.file_id in job.busy:
                job.later.append(entry)
                continue
            job.busy.add(entry.file_id)
            name = "%s/%s" % (job.entry.name, entry.path)
            prepare = partial(self._prepare_file, entry.file_id, name, self.host.has_under_name(entry.file_id, name))
            self.host.run(prepare, partial(self._on_file_prepared, job, entry, name))
        if job.later and not job.busy:
            job.waiting.extend(job.later)
            job.later = []
            self._go_on_with_folder(job, now)
        elif not job.waiting and not job.busy and not job.later and not job.end_state and not job.is_closing:
            job.is_closing = True
            self.host.run(self.library.flush, partial(self._on_folder_flushed, job))

    def _prepare_file(self, file_id: bytes, name: str, is_known: bool) -> Any:
        """On the disk thread: True if the file stands there already, a Finished if a copy was made, else None."""
        if self.library.local_copy(file_id) is None:
            return None
        return True if is_known else self.library.copy_local(file_id, name)

    def _on_file_prepared(self, job: Job, entry: Any, name: str, here: Any, error: Optional[Exception], now: float) -> None:
        if job.end_state:
            return
        if error is None and here is None:
            fetch = self._fetch_for(job, entry.file_id, entry.size, name, False, now)
            for provider in job.providers:
                self._use(fetch, provider, now)
            return
        if error is not None:
            job.failures.append("%s: %s" % (name, sentence_of(error)))
        elif here is not True:
            self.host.on_finished(here.shared)
            job.new_files += 1
        job.done_bytes += entry.size
        job.busy.discard(entry.file_id)
        self._go_on_with_folder(job, now)

    def _on_folder_flushed(self, job: Job, _: Any, error: Optional[Exception], now: float) -> None:
        if job.end_state:
            return
        if error is not None:
            job.failures.append(sentence_of(error))
        if job.failures:
            more = " (and %d more)" % (len(job.failures) - 1) if len(job.failures) > 1 else ""
            self._stop_job(job, "not complete: %s%s" % (job.failures[0], more), now)
            return
        self.host.release(job.entry.name)
        self._done(job, job.path, not job.new_files and bool(job.size), now)

    # ---- links

    def owns(self, link: int) -> bool:
        return link in self._bulk or link in self.uploads.links

    def on_link_up(self, link: int, now: float) -> None:
        bulk = self._bulk.get(link)
        if bulk is None:
            return
        bulk.is_up, bulk.used_at = True, now
        self.send(link, LinkHello(PURPOSE_BULK, self.host.network_id, self.host.node_id))
        label = self.host.label_of(bulk.node_id)
        for fetch in list(bulk.fetches):
            fetch.download.add_source(link, bulk.node_id, label, now)

    def on_hello(self, link: int, hello: LinkHello, now: float) -> None:
        """A member opens a link to be served by."""
        others = sum(upload.node_id == hello.node_id for upload in self.uploads.links.values())
        if hello.network_id != self.host.network_id or others >= LINKS_PER_NODE_MAX:
            self.network.disconnect(link, "not of this network" if others < LINKS_PER_NODE_MAX else "too many links")
        elif not (self.host.mesh or self.host.is_supernode or hello.node_id == self.host.supernode_id):
            self.network.disconnect(link, MESH_OFF_REASON)
        else:
            self.uploads.add(link, hello.node_id, self.host.label_of(hello.node_id))

    def on_link_lost(self, link: int, reason: str, now: float) -> None:
        self.uploads.remove(link, now)
        bulk = self._bulk.pop(link, None)
        if bulk is None:
            return
        if self._bulk_to.get(bulk.node_id) is bulk:
            del self._bulk_to[bulk.node_id]
        for fetch in list(bulk.fetches):
            if not bulk.is_up:
                self._leave_alone(bulk.node_id, fetch.file_id, now + UNREACHABLE_TIME)
                fetch.trouble = "%s cannot be reached (%s)" % (self.host.label_of(bulk.node_id), reason)
            elif reason == MESH_OFF_REASON:
                fetch.wants_via = True
                self._leave_alone(bulk.node_id, fetch.file_id, now + UNREACHABLE_TIME)
            self._lose_source(fetch, link, now)

    def on_writable(self, link: int, now: float) -> None:
        self.uploads.on_writable(link, now)

    def on_message(self, link: int, message: Any, now: float) -> None:
        """A message on one of our links; what does not fit there is dropped."""
        bulk = self._bulk.get(link)
        if bulk is not None:
            if not self._on_source_message(bulk, message, now):
                bulk.dropped += 1
                self.dropped += 1
                if bulk.dropped > DROPPED_MAX:
                    self.network.disconnect(link, "too much that was not asked for")
            return
        handler = self._handlers.get(type(message))
        if handler is None or link not in self.uploads.links:
            self.dropped += 1
            return
        handler(link, message, now)

    def _on_source_message(self, bulk: Bulk, message: Any, now: float) -> bool:
        """From a provider; False if nobody asked for it."""
        if isinstance(message, Queued):
            for fetch in list(bulk.fetches):
                fetch.download.on_queued(bulk.link, message.position, now)
            return True
        if not isinstance(message, (PieceData, PieceMap, Have, ManifestPage, PieceRefused)):
            return False
        fetch = self.fetches.get(message.file_id)
        if fetch is None or fetch not in bulk.fetches:
            return False
        download, dropped = fetch.download, fetch.download.dropped
        if isinstance(message, PieceData):
            download.on_piece_data(bulk.link, message.index, message.offset, message.data, now)
        elif isinstance(message, Have):
            download.on_have(bulk.link, message.index, now)
        elif isinstance(message, PieceMap):
            download.on_piece_map(bulk.link, message, now)
        elif isinstance(message, ManifestPage):
            download.on_manifest_page(bulk.link, message, now)
        else:
            self._on_refused(fetch, bulk.link, message, now)
        return download.dropped == dropped

    def _on_refused(self, fetch: Fetch, link: int, refused: PieceRefused, now: float) -> None:
        source = fetch.download.on_piece_refused(link, refused.index, now)
        if source is None or (refused.reason not in (UNKNOWN_FILE, FILE_CHANGED, NOT_READABLE, MESH_IS_OFF)):
            return
        if refused.reason == FILE_CHANGED:
            fetch.trouble = "the file was changed at %s" % source.label
            self.host.notify(Notice("%s was changed at %s; that source is not used" % (fetch.name, source.label)))
        elif refused.reason == NOT_READABLE:
            fetch.trouble = "%s cannot read it" % source.label
        elif refused.reason == UNKNOWN_FILE:
            fetch.trouble = "%s does not have it any more" % source.label
        pause = SEARCH_INTERVAL if refused.reason == UNKNOWN_FILE else USELESS_TIME
        self._leave_source(fetch, source, now + pause, now)

    # ---- the other end: what others ask of us

    def _size_here(self, file_id: bytes) -> Optional[int]:
        size = self.host.size_of_own(file_id)
        if size is not None:
            return size
        fetch = self.fetches.get(file_id)
        return fetch.download.size if fetch is not None and self._can_serve(fetch) else None

    def _can_serve(self, fetch: Fetch) -> bool:
        return fetch.download.choice is not None and fetch.memory is None and not fetch.is_ended

    def _on_manifest_request(self, link: int, message: ManifestRequest, now: float) -> None:
        if self._size_here(message.file_id) is None:
            self.send(link, PieceRefused(message.file_id, NO_PIECE, UNKNOWN_FILE))
            return

        def then(manifest: Any, error: Optional[Exception], now: float) -> None:
            if error is not None:
                self.send(link, PieceRefused(message.file_id, NO_PIECE, UNKNOWN_FILE))
                return
            for page in manifest_pages(message.file_id, *manifest):
                self.send(link, page)

        self.host.run(partial(self.library.manifest, message.file_id), then)

    def _on_piece_map_request(self, link: int, message: PieceMapRequest, now: float) -> None:
        file_id, fetch = message.file_id, self.fetches.get(message.file_id)
        if self.host.size_of_own(file_id) is not None:
            self.send(link, PieceMap(file_id, True, b""))
        elif fetch is not None and self._can_serve(fetch):
            self.send(link, PieceMap(file_id, False, fetch.download.choice.bitmap()))  # type: ignore[union-attr]
            self.uploads.subscribe(link, file_id)
        else:
            self.send(link, PieceRefused(file_id, NO_PIECE, UNKNOWN_FILE))

    def _on_piece_request(self, link: int, message: PieceRequest, now: float) -> None:
        file_id, index = message.file_id, message.index
        size = self._size_here(file_id)
        piece_size = self.rules.piece_size_of(size) if size is not None else 0
        if size is None or self._refused.get((self.uploads.links[link].node_id, file_id), -math.inf) > now:
            self.send(link, PieceRefused(file_id, index, UNKNOWN_FILE))
        elif index * piece_size >= size or not self._has_piece(file_id, index):
            self.send(link, PieceRefused(file_id, index, PIECE_MISSING))
        else:
            self._tick_at = min(self._tick_at, now + TICK)
            self.uploads.on_request(link, file_id, index, min(piece_size, size - index * piece_size), now)

    def _has_piece(self, file_id: bytes, index: int) -> bool:
        if self.host.size_of_own(file_id) is not None:
            return True
        choice = self.fetches[file_id].download.choice
        return choice is not None and bool(choice.is_verified[index])

    def backlog(self, link: int) -> int:
        return int(self.network.backlog(link))

    def next_number(self) -> int:
        return self.host.next_number()

    def read(self, link: int, file_id: bytes, index: int, offset: int, length: int) -> None:
        job = partial(self.library.read, file_id, index, offset, length)
        self.host.run(job, partial(self._on_read, link, file_id, index, offset, length))

    def _on_read(
        self, link: int, file_id: bytes, index: int, offset: int, length: int,
        data: Any, error: Optional[Exception], now: float,
    ) -> None:  # fmt: skip
        if error is None:
            self.uploads.on_read(link, file_id, index, offset, length, data, now)
            return
        kinds = {"UNKNOWN": UNKNOWN_FILE, "MISSING": PIECE_MISSING, "CHANGED": FILE_CHANGED}
        reason = kinds.get(kind_of(error), NOT_READABLE)
        if reason == FILE_CHANGED and self.host.is_cached(file_id):
            reason = UNKNOWN_FILE  # the library has dropped it: it can be fetched anew
            self.host.on_cache_changed(lambda: None)
        self.uploads.on_unreadable(link, file_id, index, length, reason, now)

    def _on_transfer_done(self, link: int, message: TransferDone, now: float) -> None:
        upload = self.uploads.links[link]
        upload.told.discard(message.file_id)
        sent = upload.sent.pop(message.file_id, None)
        if sent is None:
            return
        started_at, size = sent.started_at, sent.size
        for file_id in self.host.files_in(message.file_id):
            part = upload.sent.pop(file_id, None)
            size += part.size if part is not None else 0
        name = self.host.name_of_own(message.file_id)
        self.host.notify(UploadDone(name, size, now - started_at, upload.label, message.file_id))

    def on_search(self, search: Search, now: float) -> None:
        """Somebody looks for a content: offer it if it is here, or pieces of it."""
        if search.requester == self.host.node_id:
            return
        if self._refused.get((search.requester, search.file_id), -math.inf) <= now:
            self._offer(search.file_id, search.query_id, search.requester)

    def _offer(self, file_id: bytes, query_id: int, requester: bytes) -> bool:
        fetch = self.fetches.get(file_id)
        is_complete = self.host.size_of_own(file_id) is not None
        if not is_complete and (fetch is None or not self._can_serve(fetch)):
            return False
        if not is_complete and fetch is not None and not fetch.download.verified_bytes and not fetch.relay_for:
            return False
        offer = Offer(query_id, file_id, requester, NO_NODE, is_complete, self.host.mesh)
        return self.host.send_to_supernode(offer)

    # ---- relays: the supernode's own peer fetches for those who do not connect to others

    def on_relay(self, relay: Relay, now: float) -> None:
        """The supernode asks its own peer to fetch this and serve it."""
        if relay.requester == self.host.node_id or relay.size > FILE_SIZE_MAX:
            return
        fetch = self.fetches.get(relay.file_id)
        if fetch is None and self.host.size_of_own(relay.file_id) is None:
            try:
                self.rules.check_name(relay.name)
            except Exception:  # a name that could not even be kept in the cache
                self.dropped += 1
                return
            if sum(one.job is None for one in self.fetches.values()) >= FETCHES_MAX:
                return
            fetch = self._new_fetch(relay.file_id, relay.size, relay.name, relay.is_folder, now)
            self._look_for_part(fetch, now)
        if fetch is not None:
            fetch.relay_for[relay.requester] = relay.query_id
            fetch.relayed_at = now
            while len(fetch.relay_for) > messages.MEMBERS_MAX:
                fetch.relay_for.popitem(last=False)
        self._offer(relay.file_id, relay.query_id, relay.requester)

    def _offer_relayed(self, fetch: Fetch) -> None:
        for requester, query_id in fetch.relay_for.items():
            self._offer(fetch.file_id, query_id, requester)

    def _check_relay(self, fetch: Fetch, now: float) -> None:
        """A relay that nobody waits for any more ends."""
        if fetch.job is None and now - fetch.relayed_at > RELAY_UNWANTED_AFTER:
            if not self.uploads.subscribers(fetch.file_id):
                self._fail(fetch, "nobody waits for it any more", now)

    # ---- time

    def next_deadline(self) -> float:
        return self._tick_at

    def on_timer(self, now: float) -> None:
        if now < self._tick_at:
            return
        self.uploads.on_timer(now)
        for fetch in list(self.fetches.values()):
            if not fetch.is_ended:
                self._check_fetch(fetch, now)
        for bulk in list(self._bulk.values()):
            if bulk.fetches:
                bulk.used_at = now
            elif bulk.is_up and now - bulk.used_at >= BULK_IDLE:
                self.network.disconnect(bulk.link, "no longer needed")
        for job in self.jobs.values():
            if not job.end_state:
                self._tell_progress(job, now)
        is_busy = self.fetches or self._bulk or self.uploads.waiting
        self._tick_at = now + TICK if is_busy else math.inf

    def _check_fetch(self, fetch: Fetch, now: float) -> None:
        if fetch.is_finishing:
            self._check_relay(fetch, now)
            return
        fetch.download.on_timer(now)
        if fetch.is_ended or fetch.is_finishing:
            return
        if self._has_hope(fetch, now):
            fetch.lonely_since = None
        elif fetch.lonely_since is None:
            fetch.lonely_since = now
        has_few = len(fetch.download.sources) < SOURCES_WANTED
        if now >= fetch.search_at and has_few and self.host.has_supernode:
            self._search(fetch, now)
        self._check_relay(fetch, now)
        is_connecting = any(not bulk.is_up for bulk in self._providers(fetch))
        if fetch.lonely_since is not None and not fetch.is_ended and not is_connecting:
            patience = NOBODY_AFTER if self.host.has_supernode else NOBODY_AFTER_WITHOUT_SUPERNODE
            if now - fetch.lonely_since >= patience:
                self._fail(fetch, self._why_alone(fetch), now)

    def _has_hope(self, fetch: Fetch, now: float) -> bool:
        """Is there a source that gives something, or may soon?"""
        choice = fetch.download.choice
        if fetch.download.is_opening:
            return True
        for source in fetch.download.sources.values():
            if source.state is not SourceState.READY or source.owed or now - source.news_at < HOPE_TIME:
                return True
            if choice is not None and choice.is_useful(source.link):
                return True
        return False

    def _why_alone(self, fetch: Fetch) -> str:
        if fetch.trouble:
            return "%s, and nobody else has it" % fetch.trouble
        if fetch.last_source:
            return "%s left and nobody else has it" % fetch.last_source
        return "nobody here has it"

    # ---- what a person sees

    def _tell_progress(self, job: Job, now: float) -> None:
        if now - job.told_at >= PROGRESS_INTERVAL and not job.end_state:
            job.told_at = now
            self.host.notify(Progress(self._row_of(job, now)))

    def rows(self, now: float) -> List[TransferRow]:
        """Every transfer, downloads first."""
        rows = [self._row_of(job, now) for job in self.jobs.values()]
        for upload, file_id, sent in self.uploads.rows(now):
            size = self._size_here(file_id) or 0
            rate = sent.rate.per_second(now)
            left = (size - sent.size) / rate if rate > 0 and size > sent.size else None
            name = self.host.name_of_own(file_id)
            rows.append(
                TransferRow(sent.number, "S", name, "sending", min(sent.size, size), size, rate, left, (upload.label,))
            )
        return rows

    def _row_of(self, job: Job, now: float) -> TransferRow:
        verified, rate, left = job.verified(), 0.0, None
        if not job.end_state:
            rates = [job.rate] if job.rate is not None else [fetch.download.rate for fetch in job.fetches]
            rate = sum(one.per_second(now) for one in rates)
            left = (job.size - verified) / rate if rate >= 1.0 else None
        entry = job.entry
        state = job.end_state or self._state_of(job, now)
        return TransferRow(job.number, "R", entry.name, state, verified, job.size, rate, left, job.labels())

    def _state_of(self, job: Job, now: float) -> str:
        fetches = list(job.fetches)
        if job.is_closing or any(fetch.is_finishing for fetch in fetches):
            return "verifying"
        sources = [source for fetch in fetches for source in fetch.download.sources.values()]
        if any(source.owed or source.state is SourceState.READY for source in sources):
            return "receiving"
        queued = [source.position for source in sources if source.state is SourceState.QUEUED]
        if queued:
            return "queued %s" % ordinal(min(queued))
        if not self.host.has_supernode:
            return "waiting for a supernode"
        lost = [fetch.last_source for fetch in fetches if fetch.last_source]
        return "waiting for %s" % lost[0] if lost and not sources else "asking"
