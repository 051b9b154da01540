"""A file that is handed to somebody in order, each piece once it is verified, and of which nothing is kept.

The pieces are asked for in their order and stand in a part file meanwhile: who takes them may be slower than they come.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Callable, Optional

from protocol.exchange.contracts import sentence_of
from protocol.exchange.fetch import Fetch
from protocol.exchange.job import FileJob, JobHands
from protocol.results import ListEntry

SPAN_BYTES = 1 << 20  # handed over at once

# Gets the next bytes, and what is to be called (on the node thread) when it wants more.
Taker = Callable[[bytes, Callable[[float], None]], None]


class StreamJob(FileJob):
    """A single file, for a taker instead of the disk."""

    in_order = True

    def __init__(self, hands: JobHands, number: int, entry: ListEntry, now: float, taker: Taker) -> None:
        super().__init__(hands, number, entry, now)
        self._taker = taker
        self._next = self._offset = 0  # the piece, and the byte of it, that comes next
        self._is_busy = False  # something is being read, or taken
        self._fetch: Optional[Fetch] = None  # another one after a wait for room

    def on_piece(self, fetch: Fetch, size: int, now: float) -> None:
        """What is next in order is handed over as far as it is here."""
        super().on_piece(fetch, size, now)
        self._fetch = fetch
        self._pour(now)

    def on_all_pieces(self, fetch: Fetch, now: float) -> None:
        """The rest is handed over, at the pace of who takes it."""
        self._fetch = fetch
        self._pour(now)

    def is_verifying(self) -> bool:
        return False  # what is all here was verified piece by piece

    def _pour(self, now: float) -> None:
        """Hand over the next bytes, if they are here and the taker wants some; or that was all."""
        fetch = self._fetch
        if self._is_busy or self.end_state or fetch is None or fetch.download.choice is None:
            return
        choice, download = fetch.download.choice, fetch.download
        if self._next == choice.count:
            self._finish(fetch, now)
        elif choice.is_verified[self._next]:
            self._is_busy = True
            length = min(SPAN_BYTES, download.length_of(self._next) - self._offset)
            read = partial(self._read, fetch.file_id, self._next, self._offset, length)
            self._around.disk.run(read, self._on_read)

    def _read(self, file_id: bytes, index: int, offset: int, length: int) -> bytes:
        """On the disk thread; the library uses its buffer again."""
        return bytes(self._library.read(file_id, index, offset, length))

    def _on_read(self, data: Any, error: Optional[Exception], now: float) -> None:
        if self.end_state:
            return
        if error is not None:  # another program was at the part
            self.stop(sentence_of(error), now, keep=False)
        else:
            self._taker(data, partial(self._on_taken, len(data)))

    def _on_taken(self, size: int, now: float) -> None:
        self._is_busy = False
        if self.end_state or self._fetch is None:
            return
        self._offset += size
        if self._offset >= self._fetch.download.length_of(self._next):
            self._next, self._offset = self._next + 1, 0
        self._pour(now)

    def _finish(self, fetch: Fetch, now: float) -> None:
        self.drop(fetch, now)
        self._around.disk.run(partial(self._library.discard, fetch.file_id, own=True), lambda *_: None)
        self.done("-", False, now)
