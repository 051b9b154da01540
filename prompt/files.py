"""G and R: the files of the network on the screen, and those that a person fetches, by row, name or pattern."""

from __future__ import annotations

import functools
from typing import Any, Callable, Dict, Iterable, List, Optional

from prompt import lines
from prompt.asking import Asking, Life
from prompt.awaited import Awaited
from prompt.choosing import ASKED_AGAIN_FROM, WHOLE_FOLDER, chosen, is_pattern, spans_in
from prompt.lines import format_size
from prompt.paths import short_path, unquoted
from prompt.table import file_lines
from protocol import results
from protocol.looks import safe_text

NO_LIST = "!! There is no list yet: G prints one."


class Files:
    """The last list, and what is taken from it."""

    def __init__(self, life: Life, asking: Asking, awaited: Awaited, show_running: Callable[[Any], None]) -> None:
        """`show_running`: shows these rows of transfers."""
        self._life = life
        self._asking = asking
        self._awaited = awaited
        self._show_transfers = show_running
        self._rows: Dict[int, results.ListEntry] = {}  # the last list of files on the screen, by number
        self._has_all_names = False  # it is of all files
        self._unshown: List[results.ListEntry] = []  # the pages of it that `G +` shows
        self._has_list = False  # one was shown, be it empty
        self._said_before = ""  # a pattern that fits many, to be said a second time

    # ---- the list

    def names(self) -> Iterable[str]:
        """In the last list."""
        return dict.fromkeys(entry.name for entry in self._rows.values())

    def show(self, pattern: str) -> None:
        """G: the files of the network."""
        if pattern == "+":
            if self._has_list:
                self._show_page("That list has no more rows.")
            else:
                self._asking.refuse(NO_LIST)
            return
        pattern = unquoted(pattern)
        none = (
            f'No file here matches "{safe_text(pattern, 60)}".'
            if pattern
            else "Nothing is shared here yet. B path shares a file or folder."
        )
        self._asking.ask(
            lambda peer, now, done: peer.list_files(pattern, now, done),
            lambda rows: self._show_files(rows, none, not pattern),
        )

    def _show_files(self, entries: Any, none: str = "", is_whole: bool = False) -> None:
        """The first page of a list that has come (None: it has not); `none` is said where nothing is to be shown."""
        if entries is None:
            self._life.fail()
            self._asking.say("!! The list did not come; try again soon")
            return
        self._has_list = True
        if not entries:  # the numbers on the screen stay good
            self._asking.say(none)
            return
        self._rows, self._has_all_names = {entry.number: entry for entry in entries}, is_whole
        self._unshown = list(entries)
        self._show_page(none)

    def _show_page(self, none: str) -> None:
        """As many rows of the list as fit the window; all where there is none."""
        count = self._life.terminal.page() or len(self._unshown)
        page, self._unshown = self._unshown[:count], self._unshown[count:]
        for line in file_lines(page, self._asking.width()) if page else [none]:
            self._asking.say(line)
        if self._unshown:
            self._asking.say(
                f"  {len(self._rows) - len(self._unshown)} of {len(self._rows)} rows; G + shows more, "
                "and R number takes any"
            )

    # ---- what is taken

    def fetch(self, what: str) -> None:
        """R: fetch by the number of the last list's row, or by name; several by their numbers, or by a pattern."""
        is_quoted = unquoted(what) != what  # then it is a name, whatever it looks like
        what = unquoted(what)
        what = what.rstrip("/") or what  # as G shows a folder
        spans = spans_in(what) if self._rows else []
        if not what:
            self._asking.refuse("R needs a name, or a number of the last list: R lab.iso")
            return
        entries, missing = chosen([] if is_quoted else spans, self._rows)
        if entries:
            self._fetch_rows(what, entries)
        elif missing and " " in what and all(entry.name != what for entry in self._rows.values()):
            self._life.fail()
            self._asking.say(
                f"!! The last list has {lines.count_of(len(self._rows), 'row')}; {missing} is none of them, "
                "and nothing was asked for."
            )
        elif spans and what.isdigit():
            self._fetch_called(what, functools.partial(self._on_fetch_answer, what))
        elif is_pattern(what):
            self._asking.ask(
                lambda peer, now, done: peer.list_files(what, now, done), functools.partial(self._fetch_fitting, what)
            )
        else:
            self._fetch_name(what)

    def _fetch_name(self, name: str) -> None:
        self._asking.ask(
            lambda peer, now, done: peer.fetch_name(name, now, done), functools.partial(self._on_fetch_answer, name)
        )

    def _fetch_rows(self, what: str, entries: List[results.ListEntry]) -> None:
        """Fetches these rows, and says so where a file has such a number for its name."""
        self._tell_taken(what, entries, self._rows.values())
        if len(entries) > 1:
            self._fetch_all(entries)
            return
        self._asking.ask(
            lambda peer, now, done: peer.fetch(entries[0], now, done), functools.partial(self._on_fetch_answer, what)
        )
        if not self._has_all_names:  # a list of what fits a pattern does not tell whether a file has that name
            fits_only_that = "".join(f"[{digit}]" for digit in what)
            self._asking.ask(
                lambda peer, now, done: peer.list_files(fits_only_that, now, done),
                functools.partial(self._tell_taken, what, entries),
            )

    def _tell_taken(self, what: str, taken: List[results.ListEntry], others: Any) -> None:
        if any(entry.name == what and entry.file_id != taken[0].file_id for entry in others or ()):
            row = f"row {what} of the list, {safe_text(taken[0].name)}" if len(taken) == 1 else f"the rows {what}"
            self._asking.say(f'* this is {row}; a file is named {what}, too: R "{what}" takes that')

    def _fetch_all(self, entries: List[results.ListEntry]) -> None:
        """Fetches several, each told as it ends; one line tells how all ended."""
        batch = self._awaited.begin_batch(len(entries))
        for entry in entries:
            self._asking.ask(
                lambda peer, now, done, entry=entry: peer.fetch(entry, now, done),  # type: ignore[misc]
                functools.partial(self._awaited.on_answer, batch, entry.name),
            )

    def _fetch_fitting(self, pattern: str, entries: Optional[List[results.ListEntry]]) -> None:
        """Fetches all names that fit a pattern; but the one that is spelled like it, if there is one."""
        named = [entry for entry in entries or () if entry.name == pattern]
        folder, _, rest = pattern.partition("/")
        if named:
            self._fetch_name(pattern)
        elif entries and len(entries) == 1:
            self._asking.ask(
                lambda peer, now, done: peer.fetch(entries[0], now, done),
                functools.partial(self._on_fetch_answer, pattern),
            )
        elif not entries and rest in WHOLE_FOLDER and not is_pattern(folder):
            self._asking.ask(
                lambda peer, now, done: peer.list_files(folder, now, done),
                functools.partial(self._fetch_folder, folder, pattern),
            )
        elif not entries:
            self._on_fetch_answer(pattern, results.FetchAnswer("no network" if entries is None else "nobody"))
        elif self._is_said_twice(pattern, entries):
            self._fetch_all(entries)

    def _fetch_folder(self, folder: str, pattern: str, entries: Optional[List[results.ListEntry]]) -> None:
        """All of a folder is the folder."""
        if any(entry.name == folder and entry.is_folder for entry in entries or ()):
            self._fetch_name(folder)
        else:
            self._on_fetch_answer(pattern, results.FetchAnswer("nobody"))

    def _is_said_twice(self, pattern: str, entries: List[results.ListEntry]) -> bool:
        """Whether a person means as many as that; a script does."""
        is_meant = len(entries) < ASKED_AGAIN_FROM or not self._life.terminal.is_asking or self._said_before == pattern
        self._said_before = "" if is_meant else pattern
        if not is_meant:
            self._asking.say(
                f"* {safe_text(pattern)} fits {lines.count_of(len(entries), 'file')}, "
                f"{format_size(sum(entry.size for entry in entries))}: say it again to fetch them all"
            )
        return is_meant

    def _fetch_called(self, number: str, show: Callable[[Any], None]) -> None:
        """Fetches the file that has this number for its name; the last list has no such row."""

        def listed(entries: Any) -> None:
            found = next((entry for entry in entries or () if entry.name == number), None)
            if found is not None:
                self._asking.ask(lambda peer, now, done: peer.fetch(found, now, done), show)
                return
            self._life.fail()
            self._say_no_row(number)

        self._asking.ask(lambda peer, now, done: peer.list_files(number, now, done), listed)

    def _say_no_row(self, number: str) -> None:
        last = f"The last list has {lines.count_of(len(self._rows), 'row')}, and no file is named {number}."
        self._asking.say(f"!! {last}" if self._has_list else f"!! {number}  there is no list yet: G prints one")

    def _on_fetch_answer(self, what: str, answer: Optional[results.FetchAnswer]) -> None:
        """What came of one R: it has begun, or why not."""
        answer = answer or results.FetchAnswer("")
        kind, name = answer.kind, safe_text(answer.entries[0].name if len(answer.entries) == 1 else what)
        if kind in ("started", "running"):
            if answer.transfer is not None:
                self._awaited.begin(answer.transfer)
            if kind == "running":
                self._show_running(name, answer.transfer)
        elif kind == "already here":
            self._asking.say(lines.here_line(answer.entries[0], short_path(answer.path or "")))
        elif kind == "several":
            self._life.fail()
            self._asking.say(f'Several files match "{safe_text(what, 60)}"; R number takes one:')
            self._show_files(answer.entries)
        elif kind == "nobody" and is_pattern(what) and " " in what:
            self._asking.refuse(f"!! {name}  no name fits that; several patterns are several lines")
        elif kind == "nobody" and "/" in what:
            self._explain_folder(what)
        elif kind == "nobody" and spans_in(what):
            self._life.fail()
            self._say_no_row(what)
        else:
            self._life.fail()
            why = {"nobody": "nobody here has it", "no network": "there is no network at the moment; try again soon"}
            self._asking.say(f"!! {name}  {why.get(kind, 'could not be asked for; the log has details')}")

    def _explain_folder(self, what: str) -> None:
        """What was asked for may lie in a folder that somebody shares."""
        top = what.split("/")[0]
        self._life.fail()

        def listed(entries: Any) -> None:
            is_there = any(entry.is_folder and entry.name == top for entry in entries or ())
            why = f"only whole folders are given: R {safe_text(top)}" if is_there else "nobody here has it"
            self._asking.say(f"!! {safe_text(what)}  {why}")

        self._asking.ask(lambda peer, now, done: peer.list_files(top, now, done), listed)

    def _show_running(self, name: str, number: Optional[int]) -> None:
        """R on what is on its way shows how it stands."""
        self._asking.say(f"* {name} is on its way already:")

        def show(rows: Any) -> None:
            self._show_transfers([row for row in rows or () if row.number == number])

        self._asking.ask(lambda peer, now, done: done(peer.transfers(now)), show)
