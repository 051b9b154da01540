"""Members, holdings and disk as the one host that `Fetching` and `Jobs` ask.

Only names are joined here. It goes as soon as those two are handed the three themselves, as `Serving` is.
"""

from __future__ import annotations

from typing import Any, Callable, Optional

from protocol.exchange.contracts import After, Disk, Members
from protocol.exchange.holdings import Holdings
from protocol.fields import Address


class TransferHost:
    """Implements `protocol.exchange.contracts.Host`."""

    def __init__(
        self,
        members: Members,
        holdings: Holdings,
        disk: Disk,
        notify: Callable[[Any], None],
        next_number: Callable[[], int],
    ) -> None:
        self.members = members
        self.holdings = holdings
        self.disk = disk
        self.notify = notify
        self.next_number = next_number  # of what a person sees on its way, fetched or sent

    # ---- members

    @property
    def is_supernode(self) -> bool:
        return self.members.is_supernode

    @property
    def has_supernode(self) -> bool:
        return self.members.has_supernode

    @property
    def supernode_id(self) -> Optional[bytes]:
        return self.members.supernode_id

    @property
    def node_id(self) -> bytes:
        return self.members.node_id

    @property
    def network_id(self) -> bytes:
        return self.members.network_id

    @property
    def mesh(self) -> bool:
        return self.members.mesh

    def has_mesh(self, node_id: bytes) -> bool:
        return self.members.has_mesh(node_id)

    def is_member(self, node_id: bytes) -> bool:
        return self.members.is_member(node_id)

    def member_count(self) -> int:
        return self.members.member_count()

    def label_of(self, node_id: bytes) -> str:
        return self.members.label_of(node_id)

    def place_of(self, node_id: bytes) -> Optional[Address]:
        return self.members.place_of(node_id)

    def seen_place(self, node_id: bytes) -> Optional[Address]:
        return self.members.seen_place(node_id)

    def may_dial(self, place: Address, now: float, keep: int = 0) -> float:
        return self.members.may_dial(place, now, keep)

    def send_to_supernode(self, message: Any) -> bool:
        return self.members.send_to_supernode(message)

    # ---- holdings

    def size_of_own(self, file_id: bytes) -> Optional[int]:
        return self.holdings.size_of(file_id)

    def is_cached(self, file_id: bytes) -> bool:
        return self.holdings.is_cached(file_id)

    def on_finished(self, shared: Any) -> None:
        self.holdings.on_finished(shared)

    def on_cache_changed(self, then: Callable[[], None]) -> None:
        self.holdings.on_cache_changed(then)

    def hold(self, name: str) -> None:
        self.holdings.hold(name)

    def release(self, name: str) -> None:
        self.holdings.release(name)

    # ---- disk

    def run(self, job: Callable[[], Any], then: After) -> None:
        self.disk.run(job, then)

    def disk_silence(self, now: float) -> float:
        return self.disk.silence(now)
