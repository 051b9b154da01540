"""What the rooms of transfers ask of the node they are part of."""

from __future__ import annotations

from typing import AbstractSet, Any, Callable, Optional, Protocol

from protocol.content.troubles import ErrorKind, LibraryError

After = Callable[[Any, Optional[Exception], float], None]


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

    def has_mesh(self, node_id: bytes) -> bool:
        """Is this a member whose mesh is on?"""

    def is_member(self, node_id: bytes) -> bool:
        """Is this node in the roster?"""

    def member_count(self) -> int: ...
    def label_of(self, node_id: bytes) -> str: ...
    def place_of(self, node_id: bytes) -> Any: ...
    def may_dial(self, place: Any, now: float, keep: int = 0) -> float:
        """How many datagrams may try to connect there, so that `keep` are left? (protocol/hearsay.py; 0: not now)"""

    def send_to_supernode(self, message: Any) -> bool: ...
    def notify(self, event: Any) -> None: ...
    def run(self, job: Callable[[], Any], then: After) -> None:
        """The job on the disk thread, then `then(result, error, now)` here."""

    def disk_silence(self, now: float) -> float:
        """Seconds for which the disk has owed an answer."""

    def next_number(self) -> int: ...
    def size_of_own(self, file_id: bytes) -> Optional[int]:
        """The size of a content that is here whole (shared or cached), else None."""

    def is_cached(self, file_id: bytes) -> bool: ...
    def name_of_own(self, file_id: bytes) -> str: ...
    def total_of(self, file_id: bytes) -> int:
        """The bytes of all files in a folder that is here; 0 for others."""

    def files_in(self, file_id: bytes) -> AbstractSet[bytes]:
        """The contents in a folder that this node shares; none for a file."""

    def on_finished(self, shared: Any) -> None:
        """A download is under its final name: share it."""

    def on_cache_changed(self, then: Callable[[], None]) -> None: ...
    def hold(self, name: str) -> None: ...
    def release(self, name: str) -> None: ...


class Preparing(Protocol):
    """The disk jobs with which downloads begin. Each answers None as long as it is to be run again (`in_slices`)."""

    def file(self, file_id: bytes, name: str, is_cached: bool) -> Callable[[], Any]:
        """What the library finished: it was copied on this disk; or False. `is_cached`: it is kept for others."""

    def file_in_folder(self, file_id: bytes, name: str, is_cached: bool) -> Callable[[], Any]:
        """True: it stands there under this name; else as `file`, and flushed with its folder."""

    def folder(self, listing_id: bytes, name: str, listing: bytes) -> Callable[[], Any]:
        """Its path, files that come alone, packs, and sentences on folders that could not be made."""

    def cached_folder(self, listing_id: bytes, name: str) -> Callable[[], Any]:
        """The same of a listing that is in the cache."""

    def relayed_folder(self, listing_id: bytes, name: str) -> Callable[[], Any]:
        """The same of a listing that was being relayed, too: from now on it is in the cache."""

    def relayed_pack(self, file_id: bytes, name: str) -> Callable[[], bytes]:
        """The bytes of a pack that was being relayed, too: from now on it is in the cache."""


def in_slices(
    host: Host, job: Callable[[], Any], then: After, again: Any = None, is_over: Callable[[], object] = lambda: False
) -> None:
    """Run a disk job that does some of its work each time, and whatever else waits between, while it answers `again`.

    `is_over`: nobody wants the rest any more; then the result is None.
    """

    def after(result: Any, error: Optional[Exception], now: float) -> None:
        if error is None and result is again:
            if not is_over():
                host.run(job, after)
                return
            result = None
        then(result, error, now)

    host.run(job, after)


def sentence_of(error: Exception) -> str:
    """What a person is told about an error of the library."""
    text = str(getattr(error, "sentence", "") or "the disk job failed")
    return text[:-1] if text.endswith(".") else text


def kind_of(error: Exception) -> Optional[ErrorKind]:
    """What went wrong in the library; None for a mistake in the program."""
    return error.kind if isinstance(error, LibraryError) else None
