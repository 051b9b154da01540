"""Where the verified pieces of a content on its way are kept: a part file of the library, or memory.

What a person fetches goes into a part file that stays if the rest never comes. What is fetched for others goes towards
the cache; too big for that, it passes through a part file which is dropped when those who wait have it. A folder's
listing and the packs of its small files are read at once, and stay in memory.

Each `Store` belongs to one `Fetch`. Pure: the library's methods run as disk jobs.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Callable, Optional

from protocol.content.memory import MemoryPieces
from protocol.content.parts import Destination
from protocol.content.troubles import ErrorKind
from protocol.exchange.contracts import After, Surroundings, in_slices, kind_of
from protocol.messages import Search

FOR_OTHERS = (Destination.CACHE, Destination.PASSING)


class Store:
    """The verified pieces of one content."""

    def __init__(self, content: Search, is_in_memory: bool, library: Any, around: Surroundings) -> None:
        self.name = content.name  # under which it is kept
        self.is_in_memory = is_in_memory
        self.memory: Optional[MemoryPieces] = None
        self.destination: Optional[Destination] = None  # of its part file, when that was begun
        self._file_id = content.file_id
        self._is_folder = content.is_folder
        self._library = library
        self._around = around
        self._size, self._digests = -1, b""
        self._person: Optional[bytes] = None  # who asked for it first has it counted as a share of the disk
        self._is_closed = False

    @property
    def is_passing(self) -> bool:
        """Is it relayed, but too big for the cache?"""
        return self.destination is Destination.PASSING

    def open(
        self, size: int, digests: bytes, piece_size: int, first: Destination, person: Optional[bytes], then: After
    ) -> None:
        """Make or resume it; answered by a bitmap of what is there. `first`: where to, if it was not begun before."""
        self._size, self._digests, self._person = size, digests, person
        if self.is_in_memory:
            self.memory = MemoryPieces(size, digests, piece_size)
            self._around.disk.run(lambda: b"", then)
        else:
            self._begin(self.destination or first, then)

    def _begin(self, destination: Destination, then: After) -> None:
        self.destination = destination
        self._around.disk.run(self._beginning(destination), partial(self._on_begun, destination, then))

    def _beginning(self, destination: Destination) -> Callable[[], Any]:
        """The disk job that makes or resumes the part file."""
        content = self._file_id, self._size, self._digests
        begin = partial(self._library.begin, *content, destination, self.name, self._is_folder)
        return begin if self._person is None else partial(begin, person=self._person)

    def _on_begun(
        self, destination: Destination, then: After, bitmap: Any, error: Optional[Exception], now: float
    ) -> None:
        """The place for the pieces is there, or not: then it is begun anew, or the content only passes through."""
        if error is None and bitmap is None:  # what is here from an earlier time is not all hashed yet
            if not self._is_closed:
                self._begin(destination, then)
            return
        is_cache = destination is Destination.CACHE
        if is_cache:
            self._around.holdings.on_cache_changed(lambda: None)  # older contents may have made room for it
        if self._is_closed:
            return
        if is_cache and error is not None and kind_of(error) is ErrorKind.FULL:
            self._begin(Destination.PASSING, then)
        else:
            then(bitmap, error, now)

    def name_for_person(self, name: str, is_folder: bool) -> None:
        """The person here wants it by this name; whoever had it relayed may have said anything."""
        self.name, self._is_folder, self._person = name, is_folder, None

    def adopt(self) -> None:
        """The person wants it, too: what is here of it is kept, whatever becomes of those it was fetched for."""
        if self.destination in FOR_OTHERS:
            self.destination = Destination.DOWNLOAD
            begin = self._beginning(self.destination)
            in_slices(self._around.disk, begin, lambda *_: None, is_over=lambda: self._is_closed)

    def write(self, index: int, data: Any, then: After) -> None:
        """Verify a piece and keep it; answered by whether it was right."""
        if self.memory is not None:
            self._around.disk.run(partial(self.memory.write_piece, index, data), then)
        else:
            self._around.disk.run(self._library.piece_write(self._file_id, index, data), then)

    def move_into_cache(self, then: After) -> None:
        """All is verified, and was fetched for others."""
        keep = partial(self._library.finish_cache, self._file_id, self.name, self._is_folder)
        in_slices(self._around.disk, keep, partial(self._on_moved, then), False, lambda: self._is_closed)

    def _on_moved(self, then: After, result: Any, error: Optional[Exception], now: float) -> None:
        if self._is_closed:
            return
        if error is None:
            self.destination = None  # it is the cache's
        then(result, error, now)

    def close(self) -> None:
        """Nothing more is written; what was fetched for others nobody could go on with."""
        self._is_closed = True
        if self.destination in FOR_OTHERS:
            self._around.disk.run(partial(self._library.discard, self._file_id), lambda *_: None)
