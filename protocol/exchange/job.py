"""One download that a person asked for: its fetches, its state in words, its end.

    waiting for its turn -> asking, queued, receiving, verifying -> done, or stopped
                            paused, while the disk has no room or the system is short of something

A job for a file has one Fetch. What is here already is copied on this disk, and is not moved again.
Nothing is reported done that is not verified, flushed and under its final name.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any, Callable, Dict, NamedTuple, Optional, Tuple

from protocol import mishaps
from protocol.content.names import check_name
from protocol.content.parts import Origin
from protocol.content.troubles import BadName, ErrorKind, size_text
from protocol.exchange.contracts import Preparing, Surroundings, in_slices, kind_of, sentence_of
from protocol.exchange.fetch import Cause, Fetch
from protocol.exchange.fetching import Fetching
from protocol.exchange.source import ASK_OTHERS_AFTER, SourceState
from protocol.figures import PathFigures
from protocol.messages import NO_NODE
from protocol.rates import Rate
from protocol.results import (
    Clashes,
    DownloadDone,
    LeftOut,
    ListEntry,
    Notice,
    Paused,
    Progress,
    Resumed,
    Share,
    Stopped,
    TransferRow,
    Updated,
)

log = mishaps.logger("transfer")

PROGRESS_INTERVAL = 0.5  # at most twice a second for each transfer
RECEIVING = "receiving"  # the only state with a rate and a time left
DISK_SLOW_AFTER = 3.0  # seconds in which the disk has not answered: then it is named as what is waited for
ROOM_INTERVAL, ROOM_INTERVAL_MAX = 1.0, 30.0  # seconds between looks for room, doubled while it is not enough after all
ROOM_SPARE = 64 << 10  # bytes beside the content: its map and folders


class JobHands(NamedTuple):
    """What a job asks for."""

    fetching: Fetching
    around: Surroundings
    library: Any  # its methods run as disk jobs only
    preparing: Preparing
    on_ended: Callable[[float], None]  # another may have its turn


class Job:
    """One download that a person asked for. It is the Wish of its fetches."""

    in_order = False

    def __init__(self, hands: JobHands, number: int, entry: ListEntry, now: float) -> None:
        self._fetching, self._around, self._library, self._preparing, self._on_ended = hands
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
        self.twin = ""  # the name under which another job fetches the same
        self.has_begun = False
        self.origin = Origin(frozenset(entry.holders), frozenset())
        self.clashes = Clashes()
        self.end_state = ""  # "done" or "stopped"
        self.verified_at_end = 0

    def verified(self) -> int:
        """Bytes that are here, of all that it fetches; what is kept in memory does not count."""
        if self.end_state:
            return self.verified_at_end
        verified = dict(self.kept)
        for fetch in self.fetches:
            if not fetch.store.is_in_memory:
                verified[fetch.file_id] = max(fetch.download.verified_bytes, verified.get(fetch.file_id, 0))
        return sum(verified.values())

    def labels(self) -> Tuple[str, ...]:
        """Who gave something, the most generous first."""
        gave = self.given()
        return tuple(self._fetching.links.label_of(node_id) for node_id in sorted(gave, key=lambda one: -gave[one]))

    def given(self) -> Dict[bytes, int]:
        """Bytes by node; by its id, since a label passes to somebody else when people leave."""
        gave = dict(self.gave)
        for fetch in self.fetches:
            for node_id, size in fetch.gave.items():
                gave[node_id] = gave.get(node_id, 0) + size
        return gave

    def start(self, now: float) -> None:
        """It is its turn."""
        self.has_begun = True
        here = self._around.members.labels_of_others()
        self.origin = Origin(frozenset(self.entry.holders) & here, here)
        entry, name, who = self.entry, self.entry.name, ", ".join(self.entry.holders)
        log.info("R %d %s begins: %d bytes, id %s, of %s", self.number, name, self.size, entry.file_id.hex()[:8],
                 who or "whoever has it")
        try:
            check_name(name)
        except BadName as error:
            self.stop(sentence_of(error), now)
            return
        if "/" in name:
            self.stop("its name is refused: only a folder holds names with a slash", now)
        else:
            self.begin(now)

    @property
    def left_out(self) -> Tuple[LeftOut, ...]:
        """What of a folder is not here, though all that was announced of it is."""
        return ()

    @property
    def folder(self) -> Optional[ListEntry]:
        """The folder whose listing and parts are fetched, if it is one."""
        return self.entry if self.entry.is_folder else None

    def begin(self, now: float) -> None:
        """Look here first, then ask for it."""
        raise NotImplementedError

    def begin_after(self, file_id: bytes) -> None:
        """This content is on its way under another name: it is copied when it is here."""
        self.twin = self._fetching.fetches[file_id].name
        self._fetching.when_ended(file_id, self._begin_in_turn)

    def _begin_in_turn(self, now: float) -> None:
        self.twin = ""
        self.begin(now)

    def want(
        self, file_id: bytes, size: int, name: str, in_memory: bool, now: float, providers: Tuple[bytes, ...] = ()
    ) -> None:
        """Have it fetched; `providers`: nodes that are known to have it."""
        fetch = self._fetching.want(self, file_id, size, name, in_memory, now, list(providers))
        self.fetches[fetch] = None

    def on_piece(self, fetch: Fetch, size: int, now: float) -> None:
        """So many bytes more are verified."""
        if not fetch.store.is_in_memory:
            self.rate.add(size, now)
            if not self.pause:  # else it is one that had begun, and says nothing of those that wait
                self.look_interval = ROOM_INTERVAL
        self.tell_progress(now)

    def on_all_pieces(self, fetch: Fetch, now: float) -> None:
        raise NotImplementedError

    def on_failed(self, fetch: Fetch, reason: str, now: float) -> None:
        """It cannot be had: the job ends with that reason, and keeps what may still be of use."""
        self.discard_gone(fetch)
        self.stop(reason, now, keep=fetch.cause not in (Cause.GONE, Cause.LOST), is_full=fetch.cause is Cause.FULL)

    def on_unfinished(self, fetch: Fetch, error: Exception, now: float) -> None:
        """All pieces came, but the file has not got its name."""
        if not fetch.goes_on_after(error):
            fetch.note_unfinished(error)
            self.on_failed(fetch, sentence_of(error), now)

    def has_come(self, fetch: Fetch, finished: Any, error: Optional[Exception], now: float) -> bool:
        """The disk has done with a file: has it its name, and does this job still wait for that?"""
        self.note(finished)
        if error is not None and not self.end_state:
            self.on_unfinished(fetch, error, now)
        return error is None and not self.end_state

    # ---- a full disk

    def wait_for_room(self, fetch: Fetch, now: float, short_of: str = "") -> None:
        """What is here stays; the rest goes on when the disk has room for it, or when what was short may be there."""
        if not fetch.store.is_in_memory:
            self.kept[fetch.file_id] = max(fetch.download.verified_bytes, self.kept.get(fetch.file_id, 0))
        self.drop(fetch, now)
        self.pause_for_room(short_of)

    def pause_for_room(self, short_of: str = "") -> None:
        """It waits, however many files of it fail at once: the first has it wait, and its next look is for all."""
        if not self.pause:
            self.pause = f"paused: {short_of or 'the disk is full'}"
            self.look_for_room(True, short_of)

    def look_for_room(self, is_news: bool = False, short_of: str = "") -> None:
        """Ask the disk how much there is; `short_of`: what else is missing, if not bytes."""
        self.look_at = math.inf
        self.short_of = short_of
        self._around.disk.run(self._library.room_left, partial(self._on_room_seen, is_news))

    def _on_room_seen(self, is_news: bool, room: Any, error: Optional[Exception], now: float) -> None:
        """Go on if there is room, else look again later; what waits for something that passes just tries again then."""
        if self.end_state or not self.pause:
            return
        if self.short_of:
            if is_news and not self.was_short:  # told once
                self.was_short = True
                self._around.notify(Notice(f"{self.entry.name} waits: {self.short_of}"))
            self.look_at, self.short_of = now + self.look_interval, ""
            self.look_interval = min(2 * self.look_interval, ROOM_INTERVAL_MAX)
            self.is_quiet = True
            return
        needed = self.size - self.verified()
        free, takes_files = (0, True) if error is not None else room
        self.pause = f"paused: needs {size_text(needed)}, {size_text(free)} free"
        if not takes_files:
            self.pause = "paused: the disk takes no more files"
        if is_news:
            paused = Paused(self.number, self.entry.name, self.verified(), self.size, needed, free, takes_files)
            self._around.notify(paused)
        if is_news or free < needed + ROOM_SPARE or not takes_files:
            self.look_at = now + self.look_interval
        else:
            # Should it not be enough after all (a quota is not told), the next look is later.
            self.look_interval = min(2 * self.look_interval, ROOM_INTERVAL_MAX)
            self.pause, self.rate = "", Rate(now)
            if not self.is_quiet:
                self._around.notify(Resumed(self.number, self.entry.name))
            self.is_quiet = False
            self.go_on(now)

    @staticmethod
    def short_words(error: Exception) -> str:
        """Of what the system is short, in a sentence; nothing if it is the disk's room."""
        return sentence_of(error) if kind_of(error) is ErrorKind.SHORT else ""

    def go_on(self, now: float) -> None:
        """There is room again."""
        self.begin(now)

    def discard_gone(self, fetch: Fetch) -> None:
        """A part of what nobody has any more would only lie about."""
        if fetch.cause is Cause.GONE and not fetch.store.is_in_memory:
            self._around.disk.run(partial(self._library.discard, fetch.file_id, own=True), lambda *_: None)

    def note(self, finished: Any) -> None:
        """What bears its final name is shared, though the job may have been cancelled while the disk was at it."""
        if finished and finished is not True:
            self._around.holdings.on_finished(finished.shared, finished.old_id)
            self.clashes = self.clashes.with_one(finished)

    def drop(self, fetch: Fetch, now: float, is_used: bool = False) -> None:
        """The fetch is over; `is_used`: it has served its purpose, and may serve others on."""
        self.fetches.pop(fetch, None)
        for node_id, size in fetch.gave.items():
            self.gave[node_id] = self.gave.get(node_id, 0) + size
        self.gave_via = fetch.gave_via if fetch.gave_via != NO_NODE else self.gave_via
        if is_used:
            self._fetching.retire(fetch, now)
        else:
            fetch.end(now)

    def stop(self, reason: str, now: float, tell: bool = True, keep: bool = True, is_full: bool = False) -> None:
        """End without success; verified pieces stay on the disk, unless `keep` says that nobody has the rest.

        `is_full`: the disk had no room for it, from the start.
        """
        if self.end_state:
            return
        self.verified_at_end, self.end_state = self.verified(), "stopped"
        asked = {source.node_id: 0 for fetch in self.fetches for source in fetch.download.sources.values()}
        for fetch in list(self.fetches):
            self.drop(fetch, now)
        self._fetching.links.call_off({**self.gave, **asked}, self.entry.file_id, now)
        if self.clashes.replaced:
            log.info("R %d %s: %d files were updated all the same", self.number, self.entry.name, self.clashes.replaced)
            if tell:
                self._around.notify(Updated(self.entry.name, self.clashes))
        if tell:
            verified, name = self.verified_at_end, self.entry.name
            is_kept = keep and bool(verified)
            self._around.notify(Stopped(self.number, name, verified, self.size, reason, is_kept, is_full))
        else:
            log.info("R %d %s ends with %d bytes: %s", self.number, self.entry.name, self.verified_at_end, reason)
        self._on_ended(now)

    def done(self, path: str, was_there: bool, now: float) -> None:
        """All is verified, flushed and under its final name."""
        entry, via = self.entry, None
        self._fetching.links.thank(self.gave, entry.file_id, now)
        self.end_state, self.verified_at_end = "done", self.size
        sources = self.labels()
        if self.gave_via != NO_NODE and entry.holders and self.gave_via not in entry.holder_ids:
            sources, via = entry.holders, self._fetching.links.label_of(self.gave_via)
        seconds, moved = max(now - self.started_at, 0.0), sum(self.gave.values())
        self._around.notify(
            DownloadDone(
                self.number, entry.name, self.size, seconds, sources, entry.file_id, path, via, was_there, moved,
                self.clashes if self.clashes != Clashes() else None, self.left_out,
                entry.file_count - sum(one.count for one in self.left_out if one.kind == "here"),
            )  # fmt: skip
        )
        self._on_ended(now)

    # ---- what a person sees

    def tell_progress(self, now: float) -> None:
        """The person sees how far it is, a few times a second."""
        if now - self.told_at >= PROGRESS_INTERVAL and not self.end_state:
            self.told_at = now
            self._around.notify(Progress(self.row(now)))

    def row(self, now: float) -> TransferRow:
        """How it stands, as `V` shows it."""
        verified, rate, left = self.verified(), 0.0, None
        state = self.end_state or self.state_in_words(now)
        if state == RECEIVING:
            rate = self.rate.per_second(now)
            left = (self.size - verified) / rate if rate >= 1.0 else None
        labels = self.labels()
        return TransferRow(
            self.number, "R", self.entry.name, state, verified, self.size, rate, left, labels, self.shares(now),
            self.at_once(),
        )  # fmt: skip

    def at_once(self) -> int:
        """To how many a cast brings what is on its way here; 0: none does."""
        return max((fetch.catching.takers for fetch in self.fetches), default=0)

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
                paths[one] = self._fetching.network.figures(source.link)
        label_of = self._fetching.links.label_of
        return tuple(Share(label_of(one), gave[one], rates.get(one, 0.0), states.get(one, ""), paths.get(one))
                     for one in sorted(gave, key=lambda one: -gave[one]))

    @staticmethod
    def state_of(source: Any, now: float) -> str:
        """What a person sees beside a source that gives nothing just now."""
        if source.state is SourceState.QUEUED:
            return f"queued {ordinal(source.position)}"
        if source.owed and now - source.heard_at >= ASK_OTHERS_AFTER:
            return f"silent for {now - source.heard_at:.0f} s"
        return ""

    def is_verifying(self) -> bool:
        return bool(self.fetches) and all(fetch.is_complete for fetch in self.fetches)

    def state_in_words(self, now: float) -> str:
        """What it does, or what it waits for: the nearest cause first."""
        if not self.has_begun:
            return "waiting for its turn"
        if self.pause:
            return self.pause
        if self.twin:
            return f"waiting for {self.twin}, which is the same"
        if self.is_verifying():
            return "verifying"
        if self._around.disk.silence(now) >= DISK_SLOW_AFTER:
            return "waiting for the disk"
        if self.at_once():
            return RECEIVING
        sources = [source for fetch in self.fetches for source in fetch.download.sources.values()]
        ready = [source for source in sources if source.state is SourceState.READY]
        if any(now - source.heard_at < ASK_OTHERS_AFTER for source in ready):
            return RECEIVING
        if ready:
            return f"waiting for {ready[0].label}"
        queued = [source.position for source in sources if source.state is SourceState.QUEUED]
        if queued:
            return f"queued {ordinal(min(queued))}"
        if not self._around.members.has_supernode:
            return "waiting for a supernode"
        lost = [fetch.lookout.last_source for fetch in self.fetches if fetch.lookout.last_source]
        return f"waiting for {lost[0]}" if lost and not sources else "asking"


class FileJob(Job):
    """A single file."""

    is_copying = False  # or looking for what may be copied, which takes a moment

    def state_in_words(self, now: float) -> str:
        return "copying on this disk" if self.is_copying and not self.pause else super().state_in_words(now)

    def on_failed(self, fetch: Fetch, reason: str, now: float) -> None:
        """Where only room is missing it waits for that, if there is anything that is worth it."""
        if fetch.cause is Cause.SHORT and not self.end_state:
            self.wait_for_room(fetch, now, reason)
        elif fetch.cause is Cause.FULL and not self.end_state and (fetch.download.verified_bytes or self.kept):
            self.wait_for_room(fetch, now)
        else:
            super().on_failed(fetch, reason, now)

    def begin(self, now: float) -> None:
        """Look here first: it may be in the cache, or have come with a folder meanwhile."""
        if self.end_state:  # cancelled while another job wished for the same
            return
        is_cached = self._around.holdings.is_cached(self.entry.file_id)
        self._expect(self.entry.name, self._around.holdings.traits_of(self.entry.file_id))
        prepare = self._preparing.file(self.entry.file_id, self.entry.name, is_cached, self.origin)
        self.is_copying = True
        in_slices(self._around.disk, prepare, self._on_looked, is_over=lambda: self.end_state)

    def _on_looked(self, here: Any, error: Optional[Exception], now: float) -> None:
        """It is here, or nobody else fetches it, or it is waited for until the other job has it."""
        entry = self.entry
        self.is_copying = False
        self.note(here)
        if self.end_state:
            return
        if error is not None and kind_of(error) is ErrorKind.SHORT:
            self.pause_for_room(sentence_of(error))
        elif error is not None:
            self.stop(sentence_of(error), now, is_full=kind_of(error) is ErrorKind.FULL)
        elif here is False and self._fetching.is_wished(entry.file_id):
            self.begin_after(entry.file_id)
        elif here is False:
            self.want(entry.file_id, entry.content_size, entry.name, False, now)
        else:
            self.done(here.path, here.was_there, now)

    def on_all_pieces(self, fetch: Fetch, now: float) -> None:
        """The library verifies it once more and gives it its final name."""
        self._expect(fetch.name, fetch.hearing.told)
        finish = partial(self._library.finish, fetch.file_id, fetch.name, True, self.origin)
        in_slices(self._around.disk, finish, partial(self._on_finished, fetch), is_over=lambda: self.end_state)

    def _expect(self, name: str, told: bytes) -> None:
        """What comes under this name is as this tells; not as an earlier content that came under it."""
        self._around.disk.run(partial(self._library.expected.file, name, told), lambda *_: None)

    def _on_finished(self, fetch: Fetch, finished: Any, error: Optional[Exception], now: float) -> None:
        if self.has_come(fetch, finished, error, now):
            self.drop(fetch, now)
            self.done(finished.path, finished.was_there, now)


def ordinal(number: int) -> str:
    """`1st`, `2nd`, `3rd`, `4th`."""
    ending = "th" if 10 <= number % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"
