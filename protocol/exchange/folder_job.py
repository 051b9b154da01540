"""A folder that a person asked for: its listing, kept in memory, then its files, a few at a time.

    the listing -> its folders are made -> packs of small files, each in memory -> the other files -> all is flushed

A pack or a file that is here already, or stands there from an earlier time, is not moved again. One file that cannot be
had does not keep the others away; a full disk keeps all waiting.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import Any, Callable, Deque, Dict, List, Optional, Sequence, Tuple

from protocol.content.listing import FOLDER_BYTES_MAX, FolderEntry, Pack
from protocol.content.traits import left_out_in
from protocol.content.troubles import ErrorKind, size_text
from protocol.exchange.contracts import in_slices, kind_of, sentence_of
from protocol.exchange.fetch import Cause, Fetch
from protocol.exchange.job import Job, JobHands
from protocol.results import LeftOut, ListEntry, Notice

PACKS_AT_ONCE = 2  # of 16 MiB in memory at most
PACK_FILES_PER_JOB = 1000  # named by one job of the disk: others wait for it, too
FOLDER_FILES_AT_ONCE, FOLDER_BYTES_AT_ONCE = 16, 16 << 20  # many small files, but few large ones


class FolderJob(Job):
    """A folder: its listing, then its files."""

    def __init__(self, hands: JobHands, number: int, entry: ListEntry, now: float) -> None:
        super().__init__(hands, number, entry, now)
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
        self._told = b""  # beside the listing, by who gave it
        self._more: Optional[Any] = None  # the listing of other names, while it is waited for
        self._not_kept = LeftOut("here", 0)  # names that this machine cannot keep

    def begin(self, now: float) -> None:
        """Its listing first: it is here, or somebody else fetches it, or it is fetched as any content is."""
        entry = self.entry
        if self.end_state:  # cancelled while another job wished for the same
            return
        if entry.content_size > FOLDER_BYTES_MAX:
            self.stop("its list of files is too long", now)
        elif self._around.holdings.size_of(entry.file_id) is not None:  # under another name, or for others
            self._told = self._around.holdings.traits_of(entry.file_id)
            self._prepare_folder(self._preparing.cached_folder(entry.file_id, entry.name, self._told))
        elif self._fetching.is_wished(entry.file_id):
            self.begin_after(entry.file_id)
        else:
            self.want(entry.file_id, entry.content_size, entry.name, True, now)

    def verified(self) -> int:
        return self.verified_at_end if self.end_state else self.done_bytes + super().verified()

    def is_verifying(self) -> bool:
        return self.is_closing

    @property
    def left_out(self) -> Tuple[LeftOut, ...]:
        return (*left_out_in(self._told), *[self._not_kept] * bool(self._not_kept.count))

    def on_all_pieces(self, fetch: Fetch, now: float) -> None:
        """A pack, a file or the listing is here."""
        name = self.entry.name
        pack = self.unpacking.get(fetch.file_id)
        if pack is not None:
            fetch.givers.unfollow()
            if fetch.store.memory is not None:
                self._unpack(pack, memoryview(fetch.store.memory.data), now, fetch)
            else:  # it was being relayed for somebody, too
                read = self._preparing.relayed_pack(fetch.file_id, fetch.name)
                self._around.disk.run(read, partial(self._on_pack_read, pack, fetch))
        elif self._more is not None and fetch.file_id == self._more.file_id:
            self._read_more(fetch)
        elif fetch.file_id != self.entry.file_id:
            # Flushed all together at the end: one call for many small files.
            finish = partial(self._library.finish, fetch.file_id, fetch.name, False, self.origin)
            then = partial(self._on_file_finished, fetch)
            in_slices(self._around.disk, finish, then, is_over=lambda: self.end_state)
        elif fetch.store.memory is not None:
            self._told, listing = fetch.hearing.told, bytes(fetch.store.memory.data)
            self._prepare_folder(self._preparing.folder(fetch.file_id, name, listing, self._told))
        else:  # it was being relayed for somebody, too
            self._told = fetch.hearing.told
            self._prepare_folder(self._preparing.relayed_folder(fetch.file_id, name, self._told))

    def _prepare_folder(self, prepare: Callable[[], Any]) -> None:
        """Read the listing and make the folders in it, whatever else waits for the disk between."""
        in_slices(self._around.disk, prepare, self._on_listing, is_over=lambda: self.end_state)

    def _on_listing(self, prepared: Any, error: Optional[Exception], now: float) -> None:
        """Its folders are made: begin with its files. The scanner leaves the folder alone until all of it is here."""
        if self.end_state:  # cancelled meanwhile
            unmake = partial(self._library.unmake_folders, self.entry.file_id)
            in_slices(self._around.disk, unmake, lambda *_: None, False)
            return
        if error is not None:
            self.stop(sentence_of(error), now, is_full=kind_of(error) is ErrorKind.FULL)
            return
        self.path, entries, packs, self.failures, self._more = prepared
        self.packs = deque(packs)
        for fetch in list(self.fetches):
            self._told = fetch.hearing.told or self._told  # one more may have told what is left out
            self.providers = tuple(fetch.givers.whole())
            if fetch.store.memory is None:
                self._around.holdings.on_cache_changed(lambda: None)
            self.drop(fetch, now, is_used=True)
        self._around.holdings.hold(self.entry.name)
        self.is_held = True
        self.waiting = deque(entries)
        self.size = sum(entry.size for entry in entries) + sum(pack.size for pack in packs)
        if self.size > self.entry.size:  # nobody can know before: a person may not want so much
            come, said = size_text(self.size), size_text(self.entry.size)
            self._around.notify(Notice(f"{self.entry.name} has {come}, not {said} as the list says"))
        self._begin_more(now)
        self._go_on(now)

    # ---- files whose names not all can keep

    def _begin_more(self, now: float) -> None:
        """Their listing is fetched, or here; without it the folder is not complete."""
        if self.end_state or self._more is None:
            return
        file_id, size = self._more
        if self._around.holdings.size_of(file_id) is not None:
            self._prepare_more(self._preparing.cached_more(file_id, self.entry.name), None)
        elif self._fetching.is_wished(file_id):
            self._fetching.when_ended(file_id, self._begin_more)
        else:
            self.want(file_id, size, f"{self.entry.name}/other names", True, now, self.providers)

    def _read_more(self, fetch: Fetch) -> None:
        fetch.givers.unfollow()
        if fetch.store.memory is not None:
            self._prepare_more(self._preparing.more(self.entry.name, bytes(fetch.store.memory.data)), fetch)
        else:  # it was being relayed for somebody, too
            take = self._preparing.relayed_pack(fetch.file_id, fetch.name)
            self._around.disk.run(take, partial(self._on_relayed_more, fetch))

    def _on_relayed_more(self, fetch: Fetch, data: Any, error: Optional[Exception], now: float) -> None:
        self._around.holdings.on_cache_changed(lambda: None)
        if error is not None:
            self._on_more(fetch, None, error, now)
        else:
            self._prepare_more(self._preparing.more(self.entry.name, data), fetch)

    def _prepare_more(self, prepare: Callable[[], Any], fetch: Optional[Fetch]) -> None:
        in_slices(self._around.disk, prepare, partial(self._on_more, fetch), is_over=lambda: self.end_state)

    def _on_more(self, fetch: Optional[Fetch], found: Any, error: Optional[Exception], now: float) -> None:
        """They come like the others; those that this machine cannot keep are told."""
        self._more = None
        if self.end_state:
            return
        if fetch is not None:
            self.drop(fetch, now, is_used=error is None)
        if error is not None:
            self.failures.append(f"some files: {sentence_of(error)}")
        else:
            entries, left_out, troubles = found
            self.failures += troubles
            self.waiting.extend(entries)
            self.size += sum(entry.size for entry in entries)
            if left_out:
                self._not_kept = LeftOut("here", len(left_out), left_out[0].path)
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
        if not self.waiting and not self.busy and self._more is None:
            self.is_closing = True
            in_slices(self._around.disk, self._library.flush, self._on_flushed, False, lambda: self.end_state)

    # ---- packs of small files

    def _begin_pack(self, pack: Pack, now: float) -> None:
        """Get the small files of a pack: none to fetch, read where they are here, else wished for."""
        if self.end_state:
            return
        name = f"{self.entry.name}/small files"
        if not pack.size:  # of empty files
            self._unpack(pack, memoryview(b""), now, None)
        elif self._around.holdings.size_of(pack.file_id) is not None:
            read = partial(self._library.contents, pack.file_id)
            self._around.disk.run(read, partial(self._on_pack_read, pack, None))
        elif self._fetching.is_wished(pack.file_id):
            self._fetching.when_ended(pack.file_id, partial(self._begin_pack, pack))
        else:
            self.want(pack.file_id, pack.size, name, True, now, self.providers)

    def _on_pack_read(
        self, pack: Pack, fetch: Optional[Fetch], data: Any, error: Optional[Exception], now: float
    ) -> None:
        """A pack is here in one piece, to be cut into its files; or it could not be read."""
        if fetch is not None and fetch.store.memory is None:
            self._around.holdings.on_cache_changed(lambda: None)
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
        keep = partial(self._library.keep_small, self.entry.name, members, data[:size], self.origin)
        then = partial(self._on_unpacked, pack, data[size:], fetch, first)
        in_slices(self._around.disk, keep, then, is_over=lambda: self.end_state)

    def _on_unpacked(
        self, pack: Pack, rest: memoryview, fetch: Optional[Fetch], first: int, kept: Any,
        error: Optional[Exception], now: float,
    ) -> None:  # fmt: skip
        """Some files of a pack are written and named, or each refused; go on with the rest of the pack.

        A full disk holds all back that are still to come, and they come alone then.
        """
        for one in kept or ():
            if not isinstance(one, Exception):
                self.note(one)
        if self.end_state:
            return
        if error is not None:
            if fetch is not None:
                self.drop(fetch, now)
            if kind_of(error) in (ErrorKind.FULL, ErrorKind.SHORT):
                self.pause_for_room(self.short_words(error))
            self._give_up_pack(pack, pack.members[first:], now)
            return
        members = pack.members[first : first + PACK_FILES_PER_JOB]
        self._count_unpacked(members, kept, now)
        if first + len(members) < len(pack.members):
            self._unpack(pack, rest, now, fetch, first + len(members))
            return
        if fetch is not None:
            self.drop(fetch, now, is_used=True)
        self._give_up_pack(pack, (), now)

    def _count_unpacked(self, members: Sequence[FolderEntry], kept: Sequence[Any], now: float) -> None:
        for member, one in zip(members, kept):
            if isinstance(one, Exception):
                self.waiting.append(member)  # tried once more, alone
            else:
                self.new_files += not one.was_there
                self.done_bytes += member.size
                self.rate.add(member.size, now)
        self.tell_progress(now)

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
        name = f"{self.entry.name}/{entry.path}"
        is_cached = self._around.holdings.is_cached(entry.file_id)
        prepare = self._preparing.file_in_folder(entry.file_id, name, is_cached, self.origin)
        then = partial(self._on_prepared, entry, name)
        in_slices(self._around.disk, prepare, then, is_over=lambda: self.end_state)

    def _on_prepared(self, entry: Any, name: str, here: Any, error: Optional[Exception], now: float) -> None:
        """It is here, cannot be had, waits for room, or is asked for; one refusal does not keep the others away."""
        self.note(here)
        if self.end_state:
            return
        if error is None and here is False:
            if self._fetching.is_wished(entry.file_id):
                self._fetching.when_ended(entry.file_id, partial(self._prepare, entry))
            else:
                self.want(entry.file_id, entry.size, name, False, now, self.providers)
            return
        if error is not None and kind_of(error) in (ErrorKind.FULL, ErrorKind.SHORT):
            self._put_back(entry.file_id)
            self.pause_for_room(self.short_words(error))
            return
        if error is not None:
            self.failures.append(f"{name}: {sentence_of(error)}")
        elif here is not True:
            self.new_files += not here.was_there
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
        if self.has_come(fetch, finished, error, now):
            self.new_files += 1
            self.drop(fetch, now)
            self._file_over(fetch.file_id, fetch.download.size, now)

    def on_failed(self, fetch: Fetch, reason: str, now: float) -> None:
        """One file that cannot be had does not keep the others away; a full disk keeps all waiting."""
        if fetch.cause in (Cause.FULL, Cause.SHORT) and not self.end_state and self.is_held:
            self._put_back(fetch.file_id)
            self.wait_for_room(fetch, now, reason if fetch.cause is Cause.SHORT else "")
            return
        self.drop(fetch, now)
        self.discard_gone(fetch)
        if self.end_state:
            return
        if fetch.file_id == self.entry.file_id:
            self.stop(reason, now, is_full=fetch.cause is Cause.FULL)
        elif self._more is not None and fetch.file_id == self._more.file_id:
            self._more = None
            self.failures.append(f"{fetch.name}: {reason}")
            self._go_on(now)
        elif fetch.file_id in self.unpacking:
            pack = self.unpacking[fetch.file_id]
            self._give_up_pack(pack, pack.members, now)
        else:
            self.failures.append(f"{fetch.name}: {reason}")
            self._file_over(fetch.file_id, fetch.download.verified_bytes, now)

    def _on_flushed(self, _: Any, error: Optional[Exception], now: float) -> None:
        """All is on the disk that came: now it may be told."""
        if self.end_state:
            return
        if error is not None:
            self.failures.append(sentence_of(error))
        if self.failures:
            more = f" (and {len(self.failures) - 1} more)" if len(self.failures) > 1 else ""
            self.stop(f"not complete: {self.failures[0]}{more}", now)
            return
        self._release()
        self.done(self.path, not self.new_files and bool(self.size), now)

    def stop(self, reason: str, now: float, tell: bool = True, keep: bool = True, is_full: bool = False) -> None:
        """As any job; the listing that it keeps in memory is let go of, too."""
        super().stop(reason, now, tell, keep, is_full)
        self._fetching.let_go(self)
        self._release()

    def _release(self) -> None:
        if self.is_held:
            self.is_held = False
            self._around.disk.run(partial(self._library.expected.forget, self.entry.name), lambda *_: None)
            self._around.holdings.release(self.entry.name)
