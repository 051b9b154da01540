"""What the rooms of the exchange ask of the node they are part of: of its members and its disk."""

from __future__ import annotations

from typing import Any, Callable, FrozenSet, NamedTuple, Optional, Protocol

from protocol.content.parts import Origin
from protocol.content.troubles import ErrorKind, LibraryError
from protocol.fields import Address

After = Callable[[Any, Optional[Exception], float], None]


class Members(Protocol):
    """Who is here and who rules (`protocol/membership/members.py`)."""

    @property
    def is_supernode(self) -> bool: ...
    @property
    def has_supernode(self) -> bool: ...
    @property
    def supernode_id(self) -> Optional[bytes]: ...
    @property
    def round_trip(self) -> Optional[float]: ...
    @property
    def node_id(self) -> bytes: ...
    @property
    def network_id(self) -> bytes: ...
    @property
    def mesh(self) -> bool: ...

    def has_mesh(self, node_id: bytes) -> bool: ...
    def is_member(self, node_id: bytes) -> bool: ...
    def member_count(self) -> int: ...
    def label_of(self, node_id: bytes) -> str: ...
    def labels_of_others(self) -> FrozenSet[str]: ...
    def place_of(self, node_id: bytes) -> Optional[Address]: ...
    def seen_place(self, node_id: bytes) -> Optional[Address]: ...
    def is_certificate_of(self, node_id: bytes, link: int) -> bool: ...
    def is_at(self, node_id: bytes, address: Address) -> bool: ...
    def is_out_of_reach(self, node_id: bytes) -> bool: ...
    def may_dial(self, place: Address, now: float, keep: int = 0) -> float: ...
    def send_to_supernode(self, message: Any) -> bool: ...


class Runs(Protocol):
    def run(self, job: Callable[[], Any], then: After) -> None:
        """The job on the disk thread, then `then(result, error, now)` here."""


class Disk(Runs, Protocol):
    """The disk thread (`protocol/exchange/disk_jobs.py`)."""

    def silence(self, now: float) -> float: ...


class Surroundings(NamedTuple):
    """What fetching and jobs are handed of the node that they are part of."""

    members: Members
    holdings: Any  # holdings.py
    disk: Disk
    notify: Callable[[Any], None]  # tell the person
    next_number: Callable[[], int]  # of what a person sees on its way, fetched or sent


class Preparing(Protocol):
    """The disk jobs with which downloads begin. Each answers None as long as it is to be run again (`in_slices`)."""

    def file(self, file_id: bytes, name: str, is_cached: bool, origin: Origin) -> Callable[[], Any]:
        """What the library finished: it was copied on this disk; or False. `is_cached`: it is kept for others."""

    def file_in_folder(self, file_id: bytes, name: str, is_cached: bool, origin: Origin) -> Callable[[], Any]:
        """True: it stands there under this name; else as `file`, and flushed with its folder."""

    def folder(self, listing_id: bytes, name: str, listing: bytes, told: bytes = b"") -> Callable[[], Any]:
        """Its path, files that come alone, packs, and sentences on folders that could not be made.

        `told`: what its sharer tells beside it (protocol/content/traits.py).
        """

    def cached_folder(self, listing_id: bytes, name: str, told: bytes = b"") -> Callable[[], Any]:
        """The same of a listing that is in the cache."""

    def relayed_folder(self, listing_id: bytes, name: str, told: bytes = b"") -> Callable[[], Any]:
        """The same of a listing that was being relayed, too: from now on it is in the cache."""

    def more(self, name: str, listing: bytes) -> Callable[[], Any]:
        """Of a folder's files whose names not all can keep: those to come, those to be left out here, sentences."""

    def cached_more(self, file_id: bytes, name: str) -> Callable[[], Any]:
        """The same of a listing that is here."""

    def relayed_pack(self, file_id: bytes, name: str) -> Callable[[], bytes]:
        """The bytes of a pack that was being relayed, too: from now on it is in the cache."""


def in_slices(
    disk: Runs, job: Callable[[], Any], then: After, again: Any = None, is_over: Callable[[], object] = lambda: False
) -> None:
    """Run a disk job that does some of its work each time, and whatever else waits between, while it answers `again`.

    `is_over`: nobody wants the rest any more; then the result is None.
    """

    def after(result: Any, error: Optional[Exception], now: float) -> None:
        if error is None and result is again:
            if not is_over():
                disk.run(job, after)
                return
            result = None
        then(result, error, now)

    disk.run(job, after)


def sentence_of(error: Exception) -> str:
    """What a person is told about an error of the library."""
    text = str(getattr(error, "sentence", "") or "the disk job failed")
    return text[:-1] if text.endswith(".") else text


def kind_of(error: Exception) -> Optional[ErrorKind]:
    """What went wrong in the library; None for a mistake in the program."""
    return error.kind if isinstance(error, LibraryError) else None


class Part(Protocol):
    """What of a role does something by the clock."""

    def on_timer(self, now: float) -> None: ...

    def next_deadline(self) -> float: ...
