"""What a person asks for: the list of files, and a file of it, by its row or by its name.

Each question is answered once, by `done`; what becomes of a download that was started is told by events. Nothing is
fetched that is here already under its name, or on its way to it; under another name it is copied on this disk.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Callable, Collection, Iterable, List, Optional

from protocol import mishaps
from protocol.content.parts import PartInfo
from protocol.exchange.contracts import Disk, Members
from protocol.exchange.jobs import Jobs
from protocol.exchange.lists import Lists
from protocol.exchange.stream_job import Taker
from protocol.messages import NO_NODE, ListRow
from protocol.results import FetchAnswer, HalfHere, ListEntry, Notice

CUT_SHORT = "Only the first %d of %d files are listed; a part of the name finds the others: G notes"

log = mishaps.logger("peer")

Answer = Callable[[FetchAnswer], None]


class Orders:
    """The questions of the person at this node about files."""

    def __init__(
        self, library: Any, disk: Disk, members: Members, jobs: Jobs, lists: Lists, notify: Callable[[Any], None]
    ) -> None:
        self._library = library
        self._disk = disk
        self._members = members
        self._jobs = jobs
        self._lists = lists
        self._notify = notify

    def list_files(self, pattern: str, now: float, done: Callable[[Optional[List[ListEntry]]], None]) -> None:
        """The files of the network, numbered; `done` gets them, or None when nobody answered."""

        def listed(rows: Optional[List[ListRow]], total: int, now: float) -> None:
            """The rows have come; None: nobody answered."""
            if rows is not None and len(rows) < total:
                self._notify(Notice(CUT_SHORT % (len(rows), total)))
            done(None if rows is None else entries_of(rows, self._members.label_of))

        self._lists.ask(pattern, now, listed)

    def stream(self, what: ListEntry, taker: Taker, now: float, done: Answer) -> None:
        """Hand the content of a file to somebody, in order, and keep nothing of it."""
        if not self._is_running(what, done):
            self._begin(what, done, now, taker)

    def fetch(self, what: ListEntry, now: float, done: Answer) -> None:
        """Fetch a row of a list."""
        if not self._is_running(what, done):
            look = partial(self._library.standing, what.file_id, what.name)
            self._disk.run(look, partial(self._on_looked_here, what, done))

    def _is_running(self, what: ListEntry, done: Answer) -> bool:
        """Is it on its way already? Then that is the answer."""
        running = self._jobs.running(what.file_id, what.name)
        if running is not None:
            done(FetchAnswer("running", (what,), running.number))
        return running is not None

    def _on_looked_here(
        self, what: ListEntry, done: Answer, path: Any, error: Optional[Exception], now: float
    ) -> None:
        if path:
            done(FetchAnswer("already here", (what,), None, path))
        elif self._is_running(what, done):  # it was asked for twice in a moment
            return
        else:
            self._begin(what, done, now)

    def _begin(self, what: ListEntry, done: Answer, now: float, taker: Optional[Taker] = None) -> None:
        if not self._members.has_supernode:
            done(FetchAnswer("no network", (what,)))
            return
        job = self._jobs.add(what, now, taker)
        done(FetchAnswer("started", (what,), job.number))
        self._jobs.begin_next(now)

    def find(self, name: str, now: float, done: Callable[[Optional[List[ListEntry]]], None]) -> None:
        """What this name means, see `best_of`; `done` gets None when nobody answered."""
        self.list_files(name, now, lambda found: done(None if found is None else best_of(found, name)))

    def fetch_name(self, name: str, now: float, done: Answer) -> None:
        """Fetch what this name means, if it means one content; see `best_of`."""

        def listed(rows: Optional[List[ListRow]], total: int, now: float) -> None:
            """The rows have come; None: nobody answered."""
            if rows is None:
                done(FetchAnswer("no network"))
                return
            found = best_of(entries_of(rows, self._members.label_of), name, self._members.node_id)
            if len(found) == 1:
                self.fetch(found[0], now, done)
            else:
                if not found:
                    log.info("nobody here has %s", name)
                done(FetchAnswer("several" if found else "nobody", tuple(found)))

        if self._members.has_supernode:
            self._lists.ask(name, now, listed)
        else:
            done(FetchAnswer("no network"))

    def unfinished(self, done: Callable[[List[PartInfo]], None]) -> None:
        """What lies half here and is not on its way."""

        def listed(parts: Any, error: Optional[Exception], now: float) -> None:
            left = unfinished_of(parts or (), self._jobs.on_their_way())
            done([part for part in left if not self._jobs.tells_of(part)])

        self._disk.run(self._library.parts, listed)

    def tell_unfinished(self) -> None:
        """The person hears what of that there is, at the start."""

        def listed(parts: List[PartInfo]) -> None:
            """Nothing is said where there is none."""
            if parts:
                self._notify(HalfHere(tuple((part.label, part.verified_bytes, part.size) for part in parts)))

        self.unfinished(listed)


def unfinished_of(parts: Iterable[PartInfo], on_their_way: Collection[bytes]) -> List[PartInfo]:
    """Those with something verified that nobody is fetching now, by name."""
    found = (part for part in parts if part.verified_bytes and not part.is_folder and part.file_id not in on_their_way)
    return sorted(found, key=lambda part: part.label)


def entries_of(rows: Iterable[ListRow], label_of: Callable[[bytes], str]) -> List[ListEntry]:
    """The rows as a person sees them, numbered."""
    return [
        ListEntry(number, row.name, row.total_size if row.is_folder else row.size, row.file_id, row.is_folder,
                  row.file_count, tuple(label_of(holder) for holder in row.holders), row.sources, row.size,
                  row.holders)
        for number, row in enumerate(rows, 1)
    ]  # fmt: skip


def best_of(entries: List[ListEntry], name: str, me: bytes = NO_NODE) -> List[ListEntry]:
    """Those that somebody means who says this name: exactly, else regardless of case, else as a pattern.

    What nobody but this node has under a name is not meant where others have another version under that name.
    """
    exact = [entry for entry in entries if entry.name == name]
    alike = [entry for entry in entries if entry.name.casefold() == name.casefold()]
    others = {entry.name for entry in entries if entry.holder_ids != (me,)}
    return [entry for entry in exact or alike or entries if entry.holder_ids != (me,) or entry.name not in others]
