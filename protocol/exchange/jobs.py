"""What a person asked for: downloads with a number, a state in words and an end.

A job for a file has one Fetch. A job for a folder has one for the listing, kept in memory, and then one for each file,
a few at a time; what is here already is copied on this disk or stands there from an earlier time, and is not moved
again.
Nothing is reported done that is not verified, flushed and under its final name.
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from functools import partial
from typing import AbstractSet, Any, Callable, Deque, Dict, List, Optional, Sequence, Tuple

from prompt.lines import format_size
from protocol import mishaps
from protocol.content.listing import Pack, decode_listing
from protocol.content.names import check_name
from protocol.exchange.contracts import AGAIN, in_slices, kind_of, sentence_of
from protocol.exchange.fetch import Fetch
from protocol.exchange.fetching import Fetching
from protocol.exchange.source import ASK_OTHERS_AFTER, SourceState
from protocol.figures import PathFigures
from protocol.messages import NO_NODE
from protocol.rates import Rate
from protocol.results import DownloadDone, ListEntry, Notice, Paused, Progress, Resumed, Share, Stopped, TransferRow

log = mishaps.logger("transfer")

PACKS_AT_ONCE = 2  # of 16 MiB in memory at most
PACK_FILES_PER_JOB = 1000  # named by one job of the disk: others wait for it, too
FOLDER_FILES_AT_ONCE, FOLDER_BYTES_AT_ONCE = 16, 16 << 20  # many small files, but few large ones
LISTING_SIZE_MAX = 32 << 20  # bytes of a folder's listing
PROGRESS_INTERVAL = 0.5  # at most twice a second for each transfer
TICK = 0.5
ENDED_KEPT = 20  # ended jobs that are still shown
RECEIVING = "receiving"  # the only state with a rate and a time left
DISK_SLOW_AFTER = 3.0  # seconds in which the disk has not answered: then it is named as what is waited for
ROOM_INTERVAL, ROOM_INTERVAL_MAX = 1.0, 30.0  # seconds between looks for room, doubled while it is not enough after all
ROOM_SPARE = 64 << 10  # bytes beside the content: its map and folders
RUNNING_MAX = 6  # jobs at once; the others wait for their turn


Prepared = Tuple[str, List[Any], List[Pack], List[str]]
Plan = Tuple[List[str], List[Any], List[Pack]]  # of a folder: folders to be made, files that come alone, packs


class Job:
    """One download that a person asked for. It is the Wish of its fetches."""

    def __init__(self, jobs: Jobs, number: int, entry: ListEntry, now: float) -> None:
        self.jobs = jobs
        self.number = number
        self.entry = entry
        self.size = entry.size
        self.started_at = now
        self.rate = Rate(now)
        self.told_at = now - PROGRESS_INTERVAL
        self.fetches: Dict[Fetch, None] = {}  # ordered, unlike a set: a test's seed replays exactly
        self.gave: Dict[bytes, int] = {}  # node -> bytes, of ended fetches
        self.gave_via = NO_NODE
        self.kept: Dict[bytes, int] = {}  # content -> verified bytes of fetches that wait for room on the disk
        self.pause = ""  # why it waits, in words
        self.short_of = ""  # of what the system was short, in a sentence, until that was told
        self.was_short = self.is_quiet = False  # it was told so; it goes on without a word
        self.look_at, self.look_interval = math.inf, ROOM_INTERVAL  # when to look for room again
        self.has_begun = False
        self.end_state = ""  # "done" or "stopped"
        self.verified_at_end = 0

    def verified(self) -> int:
        if self.end_state:
            return self.verified_at_end
        verified = dict(self.kept)
        for fetch in self.fetches:
            if not fetch.is_in_memory:
                verified[fetch.file_id] = max(fetch.download.verified_bytes, verified.get(fetch.file_id, 0))
        return sum(verified.values())

    def labels(self) -> Tuple[str, ...]:
        """Who gave something, the most generous first."""
        gave = self.given()
        return tuple(self.jobs.fetching.label_of(node_id) for node_id in sorted(gave, key=lambda one: -gave[one]))

    def given(self) -> Dict[bytes, int]:
        """Bytes by node; by its id, since a label passes to somebody else when people leave."""
        gave = dict(self.gave)
        for fetch in self.fetches:
            for node_id, size in fetch.gave.items():
                gave[node_id] = gave.get(node_id, 0) + size
        return gave

    def begin(self, now: float) -> None:
        raise NotImplementedError

    def want(
        self, file_id: bytes, size: int, name: str, in_memory: bool, now: float, providers: Tuple[bytes, ...] = ()
    ) -> None:
        fetch = self.jobs.fetching.want(self, file_id, size, name, in_memory, now, list(providers))
        fetch.folder = self.entry if self.entry.is_folder else None
        self.fetches[fetch] = None

    def on_piece(self, fetch: Fetch, size: int, now: float) -> None:
        self.look_interval = ROOM_INTERVAL
        if not fetch.is_in_memory:
            self.rate.add(size, now)
        self.tell_progress(now)

    def on_all_pieces(self, fetch: Fetch, now: float) -> None:
        raise NotImplementedError

    def on_failed(self, fetch: Fetch, reason: str, now: float) -> None:
        self.discard_gone(fetch)
        self.stop(reason, now, keep=not (fetch.is_gone or fetch.is_lost))

    def on_unfinished(self, fetch: Fetch, error: Exception, now: float) -> None:
        """All pieces came, but the file has not got its name."""
        if not self.jobs.fetching.open_again(fetch, error, now):
            fetch.is_full, fetch.is_short = kind_of(error) == "FULL", kind_of(error) == "SHORT"
            self.on_failed(fetch, sentence_of(error), now)

    # ---- a full disk

    def wait_for_room(self, fetch: Fetch, now: float, short_of: str = "") -> None:
        """What is here stays; the rest goes on when the disk has room for it, or when what was short may be there."""
        if not fetch.is_in_memory:
            self.kept[fetch.file_id] = max(fetch.download.verified_bytes, self.kept.get(fetch.file_id, 0))
        self.drop(fetch, now)
        self.look_for_room(now, not self.pause, short_of)

    def look_for_room(self, now: float, is_news: bool = False, short_of: str = "") -> None:
        self.pause = self.pause or "paused: %s" % (short_of or "the disk is full")
        self.look_at = math.inf
        self.short_of = short_of
        self.jobs.host.run(self.jobs.library.room_bytes, partial(self._on_room_seen, is_news))

    def _on_room_seen(self, is_news: bool, free: Any, error: Optional[Exception], now: float) -> None:
        if self.end_state or not self.pause:
            return
        if self.short_of:
            if is_news and not self.was_short:  # told once
                self.was_short = True
                self.jobs.host.notify(Notice("%s waits: %s" % (self.entry.name, self.short_of)))
            self.look_at, self.short_of = now + self.look_interval, ""
            self.look_interval = min(2 * self.look_interval, ROOM_INTERVAL_MAX)
            self.is_quiet = True
            return
        needed = self.size - self.verified()
        free = 0 if error is not None else free
        self.pause = "paused: needs %s, %s free" % (format_size(needed), format_size(free))
        if is_news:
            paused = Paused(self.number, self.entry.name, self.verified(), self.size, needed, free)
            self.jobs.host.notify(paused)
        if is_news or free < needed + ROOM_SPARE:
            self.look_at = now + self.look_interval
        else:
            # Should it not be enough after all (a quota is not told), the next look is later.
            self.look_interval = min(2 * self.look_interval, ROOM_INTERVAL_MAX)
            self.pause, self.rate = "", Rate(now)
            if not self.is_quiet:
                self.jobs.host.notify(Resumed(self.number, self.entry.name))
            self.is_quiet = False
            self.go_on(now)

    @staticmethod
    def short_words(error: Exception) -> str:
        """Of what the system is short, in a sentence; nothing if it is the disk's room."""
        return sentence_of(error) if kind_of(error) == "SHORT" else ""

    def go_on(self, now: float) -> None:
        """There is room again."""
        self.begin(now)

    def discard_gone(self, fetch: Fetch) -> None:
        """A part of what nobody has any more would only lie about."""
        if fetch.is_gone and not fetch.is_in_memory:
            self.jobs.host.run(partial(self.jobs.library.discard, fetch.file_id, own=True), lambda *_: None)

    def note(self, finished: Any) -> None:
        """What bears its final name is shared, though the job may have been cancelled while the disk was at it."""
        if finished is not None and finished is not True:
            self.jobs.host.on_finished(finished.shared)

    def drop(self, fetch: Fetch, now: float, is_used: bool = False) -> None:
        """The fetch is over; `is_used`: it has served its purpose, and may serve others on."""
        self.fetches.pop(fetch, None)
        for node_id, size in fetch.gave.items():
            self.gave[node_id] = self.gave.get(node_id, 0) + size
        self.gave_via = fetch.gave_via if fetch.gave_via != NO_NODE else self.gave_via
        if is_used:
            self.jobs.fetching.retire(fetch, now)
        else:
            self.jobs.fetching.end(fetch, now)

    def stop(self, reason: str, now: float, tell: bool = True, keep: bool = True) -> None:
        """End without success; verified pieces stay on the disk, unless `keep` says that nobody has the rest."""
        if self.end_state:
            return
        self.verified_at_end, self.end_state = self.verified(), "stopped"
        for fetch in list(self.fetches):
            self.drop(fetch, now)
        if tell:
            verified, name = self.verified_at_end, self.entry.name
            self.jobs.host.notify(Stopped(self.number, name, verified, self.size, reason, keep and bool(verified)))
        else:
            log.info("R %d %s ends with %d bytes: %s", self.number, self.entry.name, self.verified_at_end, reason)
        self.jobs.on_ended(now)

    def done(self, path: str, was_there: bool, now: float) -> None:
        """All is verified, flushed and under its final name."""
        entry, via = self.entry, None
        self.jobs.fetching.thank(self.gave, entry.file_id, now)
        self.end_state, self.verified_at_end = "done", self.size
        sources = self.labels()
        if self.gave_via != NO_NODE and entry.holders and self.gave_via not in entry.holder_ids:
            sources, via = entry.holders, self.jobs.fetching.label_of(self.gave_via)
        seconds, moved = max(now - self.started_at, 0.0), sum(self.gave.values())
        self.jobs.host.notify(
            DownloadDone(
                self.number, entry.name, self.size, seconds, sources, entry.file_id, path, via, was_there, moved
            )
        )
        self.jobs.on_ended(now)

    # ---- what a person sees

    def tell_progress(self, now: float) -> None:
        if now - self.told_at >= PROGRESS_INTERVAL and not self.end_state:
            self.told_at = now
            self.jobs.host.notify(Progress(self.row(now)))

    def row(self, now: float) -> TransferRow:
        verified, rate, left = self.verified(), 0.0, None
        state = self.end_state or self.state_in_words(now)
        if state == RECEIVING:
            rate = self.rate.per_second(now)
            left = (self.size - verified) / rate if rate >= 1.0 else None
        labels = self.labels()
        return TransferRow(
            self.number, "R", self.entry.name, state, verified, self.size, rate, left, labels, self.shares(now)
        )

    def shares(self, now: float) -> Tuple[Share, ...]:
        """What each source has given and gives now, the most generous first; then those that only wait."""
        gave, rates, states = self.given(), {}, {}  # type: Dict[bytes, int], Dict[bytes, float], Dict[bytes, str]
        paths: Dict[bytes, Optional[PathFigures]] = {}
        for fetch in self.fetches:
            for source in fetch.download.sources.values():
                one = source.node_id
                gave.setdefault(one, 0)
                rates[one] = rates.get(one, 0.0) + source.per_second(now)
                states[one] = self.state_of(source, now)
                paths[one] = self.jobs.fetching.network.figures(source.link)
        label_of = self.jobs.fetching.label_of
        return tuple(Share(label_of(one), gave[one], rates.get(one, 0.0), states.get(one, ""), paths.get(one))
                     for one in sorted(gave, key=lambda one: -gave[one]))

    @staticmethod
    def state_of(source: Any, now: float) -> str:
        if source.state is SourceState.QUEUED:
            return "queued %s" % ordinal(source.position)
        if source.owed and now - source.heard_at >= ASK_OTHERS_AFTER:
            return "silent for %.0f s" % (now - source.heard_at)
        return ""

    def is_verifying(self) -> bool:
        return bool(self.fetches) and all(fetch.is_complete for fetch in self.fetches)

    def state_in_words(self, now: float) -> str:
        if not self.has_begun:
            return "waiting for its turn"
        if self.pause:
            return self.pause
        if self.is_verifying():
            return "verifying"
        if self.jobs.host.disk_silence(now) >= DISK_SLOW_AFTER:
            return "waiting for the disk"
        sources = [source for fetch in self.fetches for source in fetch.download.sources.values()]
        ready = [source for source in sources if source.state is SourceState.READY]
        if any(now - source.heard_at < ASK_OTHERS_AFTER for source in ready):
            return RECEIVING
        if ready:
            return "waiting for %s" % ready[0].label
        queued = [source.position for source in sources if source.state is SourceState.QUEUED]
        if queued:
            return "queued %s" % ordinal(min(queued))
        if not self.jobs.host.has_supernode:
            return "waiting for a supernode"
        lost = [fetch.last_source for fetch in self.fetches if fetch.last_source]
        return "waiting for %s" % lost[0] if lost and not sources else "asking"


class FileJob(Job):
    """A single file."""

    def on_failed(self, fetch: Fetch, reason: str, now: float) -> None:
        if fetch.is_short and not self.end_state:
            self.wait_for_room(fetch, now, reason)
        elif fetch.is_full and not self.end_state and (fetch.download.verified_bytes or self.kept):
            self.wait_for_room(fetch, now)
        else:
            super().on_failed(fetch, reason, now)

    def begin(self, now: float) -> None:
        """Look here first: it may be in the cache, or have come with a folder meanwhile."""
        if self.end_state:  # cancelled while another job wished for the same
            return
        is_cached = self.jobs.host.is_cached(self.entry.file_id)
        prepare = partial(self.jobs.prepare_file, self.entry.file_id, self.entry.name, is_cached)
        in_slices(self.jobs.host, prepare, self._on_looked, AGAIN, lambda: self.end_state)

    def _on_looked(self, here: Any, error: Optional[Exception], now: float) -> None:
        entry = self.entry
        self.note(here)
        if self.end_state:
            return
        if error is not None and kind_of(error) == "SHORT":
            self.look_for_room(now, not self.pause, sentence_of(error))
        elif error is not None:
            self.stop(sentence_of(error), now)
        elif here is None and self.jobs.fetching.is_wished(entry.file_id):
            self.jobs.fetching.when_ended(entry.file_id, self.begin)
        elif here is None:
            self.want(entry.file_id, entry.content_size, entry.name, False, now)
        else:
            self.done(here.path, here.was_there, now)

    def on_all_pieces(self, fetch: Fetch, now: float) -> None:
        finish = partial(self.jobs.library.finish, fetch.file_id, fetch.name)
        in_slices(self.jobs.host, finish, partial(self._on_finished, fetch), is_over=lambda: self.end_state)

    def _on_finished(self, fetch: Fetch, finished: Any, error: Optional[Exception], now: float) -> None:
        self.note(finished)
        if self.end_state:
            return
        if error is not None:
            self.on_unfinished(fetch, error, now)
            return
        self.drop(fetch, now)
        self.done(finished.path, finished.was_there, now)


class FolderJob(Job):
    """A folder: its listing, then its files."""

    def __init__(self, jobs: Jobs, number: int, entry: ListEntry, now: float) -> None:
        super().__init__(jobs, number, entry, now)
        self.path = ""
        self.waiting: Deque[Any] = deque()  # entries of the listing
        self.busy: Dict[bytes, Any] = {}  # id -> entry of the listing
        self.packs: Deque[Pack] = deque()  # of small files, that come first
        self.unpacking: Dict[bytes, Pack] = {}
        self.later: Dict[bytes, Deque[Any]] = {}  # by id: entries whose content is on its way under another name
        self.providers: Tuple[bytes, ...] = ()  # gave the listing, so they are asked for the files first
        self.done_bytes = 0
        self.new_files = 0
        self.failures: List[str] = []
        self.is_held = self.is_closing = False

    def begin(self, now: float) -> None:
        entry = self.entry
        if self.end_state:  # cancelled while another job wished for the same
            return
        if entry.content_size > LISTING_SIZE_MAX:
            self.stop("its list of files is too long", now)
        elif self.jobs.host.is_cached(entry.file_id):
            self._prepare_folder(partial(self.jobs.plan_cached_folder, entry.file_id, entry.name))
        elif self.jobs.fetching.is_wished(entry.file_id):
            self.jobs.fetching.when_ended(entry.file_id, self.begin)
        else:
            self.want(entry.file_id, entry.content_size, entry.name, True, now)

    def verified(self) -> int:
        return self.verified_at_end if self.end_state else self.done_bytes + super().verified()

    def is_verifying(self) -> bool:
        return self.is_closing

    def on_all_pieces(self, fetch: Fetch, now: float) -> None:
        jobs, name = self.jobs, self.entry.name
        pack = self.unpacking.get(fetch.file_id)
        if pack is not None:
            jobs.fetching.unfollow(fetch)
            if fetch.memory is not None:
                self._unpack(pack, memoryview(fetch.memory.data), now, fetch)
            else:  # it was being relayed for somebody, too
                read = partial(jobs.take_relayed_pack, fetch.file_id, fetch.name)
                jobs.host.run(read, partial(self._on_pack_read, pack, fetch))
        elif fetch.file_id != self.entry.file_id:
            # Flushed all together at the end: one call for many small files.
            finish = partial(jobs.library.finish, fetch.file_id, fetch.name, False)
            then = partial(self._on_file_finished, fetch)
            in_slices(jobs.host, finish, then, is_over=lambda: self.end_state)
        elif fetch.memory is not None:
            listing = bytes(fetch.memory.data)
            self._prepare_folder(partial(jobs.plan_folder, name, listing))
        else:  # it was being relayed for somebody, too
            self._prepare_folder(partial(jobs.plan_relayed_folder, fetch.file_id, name))

    def _prepare_folder(self, plan: Callable[[], Plan]) -> None:
        """Read the listing and make the folders in it, whatever else waits for the disk between."""
        prepare = FolderPreparation(self.jobs.library, self.entry.file_id, self.entry.name, plan)
        in_slices(self.jobs.host, prepare, self._on_listing, is_over=lambda: self.end_state)

    def _on_listing(self, prepared: Any, error: Optional[Exception], now: float) -> None:
        if self.end_state:  # cancelled meanwhile
            unmake = partial(self.jobs.library.unmake_folders, self.entry.file_id)
            in_slices(self.jobs.host, unmake, lambda *_: None, False)
            return
        if error is not None:
            self.stop(sentence_of(error), now)
            return
        self.path, entries, packs, self.failures = prepared
        self.packs = deque(packs)
        for fetch in list(self.fetches):
            self.providers = tuple(self.jobs.fetching.providers_of(fetch))
            if fetch.memory is None:
                self.jobs.host.on_cache_changed(lambda: None)
            self.drop(fetch, now, is_used=True)
        self.jobs.host.hold(self.entry.name)
        self.is_held = True
        self.waiting = deque(entries)
        self.size = sum(entry.size for entry in entries) + sum(pack.size for pack in packs)
        self._go_on(now)

    def _go_on(self, now: float) -> None:
        """Begin with the next files, or end."""
        if self.end_state or self.is_closing or self.pause:
            return
        while self.packs and len(self.unpacking) < PACKS_AT_ONCE:
            pack = self.packs.popleft()
            self.unpacking[pack.file_id] = pack
            self._begin_pack(pack, now)
        if self.unpacking:
            return
        while self.waiting and self._has_room(self.waiting[0].size):
            entry = self.waiting.popleft()
            if entry.file_id in self.busy:
                self.later.setdefault(entry.file_id, deque()).append(entry)
            else:
                self.busy[entry.file_id] = entry
                self._prepare(entry, now)
        if not self.waiting and not self.busy:
            self.is_closing = True
            in_slices(self.jobs.host, self.jobs.library.flush, self._on_flushed, False, lambda: self.end_state)

    # ---- packs of small files

    def _begin_pack(self, pack: Pack, now: float) -> None:
        if self.end_state:
            return
        name = "%s/small files" % self.entry.name
        if self.jobs.host.is_cached(pack.file_id):
            read = partial(self.jobs.library.contents, pack.file_id)
            self.jobs.host.run(read, partial(self._on_pack_read, pack, None))
        elif self.jobs.fetching.is_wished(pack.file_id):
            self.jobs.fetching.when_ended(pack.file_id, partial(self._begin_pack, pack))
        else:
            self.want(pack.file_id, pack.size, name, True, now, self.providers)

    def _on_pack_read(
        self, pack: Pack, fetch: Optional[Fetch], data: Any, error: Optional[Exception], now: float
    ) -> None:
        if fetch is not None and fetch.memory is None:
            self.jobs.host.on_cache_changed(lambda: None)
        if self.end_state:
            return
        if error is not None:
            if fetch is not None:
                self.drop(fetch, now)
            self._give_up_pack(pack, pack.members, now)
        else:
            self._unpack(pack, memoryview(data), now, fetch)

    def _unpack(self, pack: Pack, data: memoryview, now: float, fetch: Optional[Fetch], first: int = 0) -> None:
        """Have the next of its files written and named."""
        members = pack.members[first : first + PACK_FILES_PER_JOB]
        size = sum(member.size for member in members)
        keep = partial(self.jobs.library.keep_small, self.entry.name, members, data[:size])
        then = partial(self._on_unpacked, pack, data[size:], fetch, first)
        in_slices(self.jobs.host, keep, then, is_over=lambda: self.end_state)

    def _on_unpacked(
        self, pack: Pack, rest: memoryview, fetch: Optional[Fetch], first: int, kept: Any,
        error: Optional[Exception], now: float,
    ) -> None:  # fmt: skip
        for one in kept or ():
            if not isinstance(one, Exception):
                self.note(one)
        if self.end_state:
            return
        if error is not None:
            if fetch is not None:
                self.drop(fetch, now)
            if kind_of(error) in ("FULL", "SHORT"):
                self.look_for_room(now, not self.pause, self.short_words(error))
            self._give_up_pack(pack, pack.members[first:], now)
            return
        members = pack.members[first : first + PACK_FILES_PER_JOB]
        for member, one in zip(members, kept):
            if isinstance(one, Exception):
                self.waiting.append(member)  # tried once more, alone
            else:
                self.new_files += not one.was_there
                self.done_bytes += member.size
                self.rate.add(member.size, now)
        self.tell_progress(now)
        if first + len(members) < len(pack.members):
            self._unpack(pack, rest, now, fetch, first + len(members))
            return
        if fetch is not None:
            self.drop(fetch, now, is_used=True)
        self._give_up_pack(pack, (), now)

    def _give_up_pack(self, pack: Pack, missing: Sequence[Any], now: float) -> None:
        """The pack is over; what of it is missing is fetched file by file."""
        self.unpacking.pop(pack.file_id, None)
        self.waiting.extendleft(reversed(missing))
        self._go_on(now)

    def _has_room(self, size: int) -> bool:
        busy = sum(entry.size for entry in self.busy.values())
        is_small = busy + size <= FOLDER_BYTES_AT_ONCE and len(self.busy) < FOLDER_FILES_AT_ONCE
        return is_small or len(self.busy) < 2

    def _prepare(self, entry: Any, now: float) -> None:
        if self.end_state:
            return
        name = "%s/%s" % (self.entry.name, entry.path)
        is_cached = self.jobs.host.is_cached(entry.file_id)
        prepare = partial(self.jobs.prepare_in_folder, entry.file_id, name, is_cached)
        in_slices(self.jobs.host, prepare, partial(self._on_prepared, entry, name), AGAIN, lambda: self.end_state)

    def _on_prepared(self, entry: Any, name: str, here: Any, error: Optional[Exception], now: float) -> None:
        self.note(here)
        if self.end_state:
            return
        if error is None and here is None:
            if self.jobs.fetching.is_wished(entry.file_id):
                self.jobs.fetching.when_ended(entry.file_id, partial(self._prepare, entry))
            else:
                self.want(entry.file_id, entry.size, name, False, now, self.providers)
            return
        if error is not None and kind_of(error) in ("FULL", "SHORT"):
            self._put_back(entry.file_id)
            self.look_for_room(now, not self.pause, self.short_words(error))
            return
        if error is not None:
            self.failures.append("%s: %s" % (name, sentence_of(error)))
        elif here is not True:
            self.new_files += 1
        self._file_over(entry.file_id, entry.size, now)

    def _put_back(self, file_id: bytes) -> None:
        """This file waits for room on the disk."""
        entry = self.busy.pop(file_id, None)
        if entry is not None:
            self.waiting.appendleft(entry)

    def go_on(self, now: float) -> None:
        self._go_on(now)

    def _file_over(self, file_id: bytes, size: int, now: float) -> None:
        self.done_bytes += size
        self.kept.pop(file_id, None)
        self.busy.pop(file_id, None)
        self._next_of(file_id)
        self.tell_progress(now)
        self._go_on(now)

    def _next_of(self, file_id: bytes) -> None:
        """The content came: it is copied to its next name."""
        later = self.later.get(file_id)
        if later:
            self.waiting.appendleft(later.popleft())
        else:
            self.later.pop(file_id, None)

    def _on_file_finished(self, fetch: Fetch, finished: Any, error: Optional[Exception], now: float) -> None:
        self.note(finished)
        if self.end_state:
            return
        if error is not None:
            self.on_unfinished(fetch, error, now)
            return
        self.new_files += 1
        self.drop(fetch, now)
        self._file_over(fetch.file_id, fetch.download.size, now)

    def on_failed(self, fetch: Fetch, reason: str, now: float) -> None:
        """One file that cannot be had does not keep the others away; a full disk keeps all waiting."""
        if (fetch.is_full or fetch.is_short) and not self.end_state and self.is_held:
            self._put_back(fetch.file_id)
            self.wait_for_room(fetch, now, reason if fetch.is_short else "")
            return
        self.drop(fetch, now)
        self.discard_gone(fetch)
        if self.end_state:
            return
        if fetch.file_id == self.entry.file_id:
            self.stop(reason, now)
        elif fetch.file_id in self.unpacking:
            pack = self.unpacking[fetch.file_id]
            self._give_up_pack(pack, pack.members, now)
        else:
            self.failures.append("%s: %s" % (fetch.name, reason))
            self._file_over(fetch.file_id, fetch.download.verified_bytes, now)

    def _on_flushed(self, _: Any, error: Optional[Exception], now: float) -> None:
        if self.end_state:
            return
        if error is not None:
            self.failures.append(sentence_of(error))
        if self.failures:
            more = " (and %d more)" % (len(self.failures) - 1) if len(self.failures) > 1 else ""
            self.stop("not complete: %s%s" % (self.failures[0], more), now)
            return
        self._release()
        self.done(self.path, not self.new_files and bool(self.size), now)

    def stop(self, reason: str, now: float, tell: bool = True, keep: bool = True) -> None:
        super().stop(reason, now, tell, keep)
        self.jobs.fetching.let_go(self)
        self._release()

    def _release(self) -> None:
        if self.is_held:
            self.is_held = False
            self.jobs.host.release(self.entry.name)


class FolderPreparation:
    """A disk job in slices: the plan of a folder, then its folders; the answer is path, files, packs, troubles."""

    def __init__(self, library: Any, listing_id: bytes, name: str, plan: Callable[[], Plan]) -> None:
        self._library = library
        self._listing_id = listing_id
        self._name = name
        self._make_plan = plan
        self._plan: Optional[Plan] = None

    def __call__(self) -> Optional[Prepared]:
        if self._plan is None:
            self._plan = self._make_plan()
            return None
        folders, alone, packs = self._plan
        troubles = self._library.make_folders(self._listing_id, folders)
        if troubles is None:
            return None
        return self._library.make_folder(self._name), alone, packs, troubles


class Jobs:
    """All downloads that a person asked for."""

    def __init__(self, fetching: Fetching) -> None:
        self.fetching = fetching
        self.host = fetching.host
        self.library = fetching.library
        self.jobs: OrderedDict[int, Job] = OrderedDict()
        self._tick_at = math.inf

    def add(self, entry: ListEntry, now: float) -> Job:
        """Fetch a file or folder for a person; it begins with `begin_next`."""
        kind, number = FolderJob if entry.is_folder else FileJob, self.host.next_number()
        job = self.jobs[number] = kind(self, number, entry, now)
        self._tick_at = min(self._tick_at, now + TICK)
        self._forget_old()
        return job

    def begin_next(self, now: float) -> None:
        """Begin what may begin now."""
        for job in list(self.jobs.values()):
            running = sum(one.has_begun and not one.end_state for one in self.jobs.values())
            if not job.has_begun and not job.end_state and running < RUNNING_MAX:
                job.has_begun = True
                entry, who = job.entry, ", ".join(job.entry.holders)
                log.info("R %d %s begins: %d bytes, id %s, of %s", job.number, entry.name, job.size,
                         entry.file_id.hex()[:8], who or "whoever has it")
                self._begin(job, now)

    on_ended = begin_next

    def _begin(self, job: Job, now: float) -> None:
        name = job.entry.name
        try:
            check_name(name)
        except Exception as error:
            job.stop(sentence_of(error), now)
            return
        if "/" in name:
            job.stop("its name is refused: only a folder holds names with a slash", now)
        else:
            job.begin(now)

    def running(self, file_id: bytes) -> Optional[Job]:
        """The job that fetches this content, if one runs."""
        return next((job for job in self.jobs.values() if not job.end_state and job.entry.file_id == file_id), None)

    def _forget_old(self) -> None:
        ended = [number for number, job in self.jobs.items() if job.end_state]
        for number in ended[: max(0, len(ended) - ENDED_KEPT)]:
            del self.jobs[number]

    def cancel(self, number: int, now: float) -> str:
        """Stop a download or an upload; a line for the person."""
        job = self.jobs.get(number)
        if job is None or job.end_state:
            return self.fetching.serving.cancel(number, now) or "There is no running transfer %d." % number
        kept = "; what is here is kept for a later R" if job.verified() else ""
        job.stop("cancelled", now, tell=False)
        return "%s is cancelled%s" % (job.entry.name, kept)

    def rows(self, now: float) -> List[TransferRow]:
        """Every transfer, downloads first."""
        return [job.row(now) for job in self.jobs.values()] + self.fetching.serving.rows(now)

    def next_deadline(self) -> float:
        return self._tick_at

    def on_timer(self, now: float) -> None:
        if now >= self._tick_at:
            running = [job for job in self.jobs.values() if not job.end_state]
            for job in running:
                job.tell_progress(now)
                if now >= job.look_at:
                    job.look_for_room(now)
            self._tick_at = now + TICK if running else math.inf

    def end_all(self, now: float, tell: bool) -> None:
        """The node leaves its network."""
        for job in reversed(list(self.jobs.values())):  # those that wait first: none shall begin now
            job.stop("you left that network", now, tell)

    # ---- disk jobs

    def prepare_in_folder(self, file_id: bytes, name: str, is_cached: bool) -> Any:
        """True if the file stands there already, else as `prepare_file`, and flushed with its folder."""
        return self.library.stands(file_id, name) or self.prepare_file(file_id, name, is_cached, flush=False)

    def prepare_file(self, file_id: bytes, name: str, is_cached: bool, flush: bool = True) -> Any:
        """A Finished if a copy was made on this disk, else None; or AGAIN."""
        if self.library.local_copy(file_id) is not None:
            return self.library.copy_local(file_id, name, flush) or AGAIN
        if is_cached:
            try:
                return self.library.copy_local(file_id, name, flush) or AGAIN
            except Exception as error:  # what the cache holds may be damaged: then it is fetched
                if kind_of(error) not in ("CHANGED", "UNKNOWN", "MISSING"):
                    raise
        return None

    def plan_folder(self, name: str, listing: bytes) -> Plan:
        """Decode the listing, and refuse what has no room: which folders are to be made, which files and packs come."""
        entries, packs = decode_listing(listing)
        here = {entry.file_id for entry in entries if self.library.local_copy(entry.file_id) is not None}
        self._check_room(name, [entry for entry in entries if entry.file_id not in here])
        folders = [name, *("%s/%s" % (name, entry.path) for entry in entries if entry.is_folder)]
        wanted = [pack for pack in packs if self._is_worth_its_way(pack, here)]
        packed = {member.path for pack in wanted for member in pack.members}
        alone = [entry for entry in entries if not entry.is_folder and entry.path not in packed]
        return folders, alone, wanted

    @staticmethod
    def _is_worth_its_way(pack: Pack, here: AbstractSet[bytes]) -> bool:
        """Not when more than half of it is here already."""
        return sum(entry.size for entry in pack.members if entry.file_id in here) <= pack.size // 2

    def _check_room(self, name: str, missing: List[Any]) -> None:
        """Refuse a folder that does not fit, before anything of it is here."""
        begun = {part.file_id: part.verified_bytes for part in self.library.parts()}
        self.library.check_room(name, sum(entry.size - begun.get(entry.file_id, 0) for entry in missing))

    def plan_cached_folder(self, file_id: bytes, name: str) -> Plan:
        return self.plan_folder(name, self.library.contents(file_id))

    def _finish_cache(self, file_id: bytes, name: str, is_folder: bool) -> None:
        """Of a content so small that it takes no slices."""
        while not self.library.finish_cache(file_id, name, is_folder):
            pass

    def take_relayed_pack(self, file_id: bytes, name: str) -> bytes:
        self._finish_cache(file_id, name, False)
        return bytes(self.library.contents(file_id))

    def plan_relayed_folder(self, file_id: bytes, name: str) -> Plan:
        self._finish_cache(file_id, name, True)
        return self.plan_cached_folder(file_id, name)


def ordinal(number: int) -> str:
    """`1st`, `2nd`, `3rd`, `4th`."""
    ending = "th" if 10 <= number % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return "%d%s" % (number, ending)
