"""A console at whose node everything is answered at once."""

from __future__ import annotations

import argparse
from typing import Any

from node_tests.stage.fake_prompt import entry
from prompt.console import Console
from protocol.results import FetchAnswer

FILES = [entry(1, "lab.iso"), entry(2, "a.jpg", file_id=b"2" * 32), entry(3, "b.jpg", file_id=b"3" * 32),
         entry(4, "photos", is_folder=True, file_id=b"4" * 32), entry(5, "c.jpg", file_id=b"5" * 32)]


class Desk:
    """A console at whose node everything is answered at once; `here` is on the disk, `gone` is nobody's."""

    def __init__(self, files: list = FILES, is_asking: bool = False) -> None:
        self.files, self.lines, self.fetched, self.failed = files, [], [], 0
        self.here: set = set()
        self.gone: set = set()
        self.signals: list = []
        self.time = 0.0
        self.node = argparse.Namespace(peer=self, folder="shared", call=lambda closure: closure(0.0))
        self.terminal = argparse.Namespace(is_asking=is_asking, can_redraw=False, width=lambda: None,
                                           page=lambda: None)
        self.console = Console(self)            # type: ignore[arg-type]

    def clock(self) -> float:
        return self.time

    def say(self, line: str) -> None:
        self.lines.append(line)

    def later(self, closure: Any) -> None:
        closure()

    def fail(self) -> None:
        self.failed += 1

    def list_files(self, pattern: str, now: float, done: Any) -> None:
        part = pattern.strip("*").replace("[", "").replace("]", "")
        done([row for row in self.files if part in row.name and "/" not in pattern])

    def fetch(self, row: Any, now: float, done: Any) -> None:
        if row.name in self.here or row.name in self.gone:
            return done(FetchAnswer("already here" if row.name in self.here else "nobody", (row,), None, row.name))
        self.fetched.append(row.name)
        done(FetchAnswer("started", (row,), len(self.fetched)))

    def fetch_name(self, name: str, now: float, done: Any) -> None:
        found = [row for row in self.files if row.name == name] or [row for row in self.files if name in row.name]
        if len(found) != 1:
            return done(FetchAnswer("several" if found else "nobody", tuple(found)))
        self.fetch(found[0], now, done)

    def cancel(self, number: int, now: float) -> str:
        return f"{number} is cancelled"

    def does(self, *commands: str) -> list:
        """The lines that these commands (`G ...`, `R ...`) print."""
        for command in commands:
            self.lines.clear()
            {"G": self.console.list_files, "R": self.console.fetch}[command[0]](command[2:])
        return self.lines
