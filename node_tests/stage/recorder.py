"""What a real socket tells the roles, written down for a test to take."""

from __future__ import annotations

import queue
from typing import Any

from prompt.readers import next_of
from protocol.fields import Address, Buffer
from protocol.network import DoorListener


class Recorder(DoorListener):
    """Each event as a tuple, its name first, in the order in which they came."""

    def __init__(self) -> None:
        self._events: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def next(self, timeout: float) -> Any:
        """The oldest that was not taken yet; queue.Empty when none came in so many seconds."""
        return next_of(self._events, timeout)

    def on_link_up(self, link: int, address: Address, incoming: bool) -> None:
        self._events.put(("on_link_up", link, address, incoming))

    def on_link_lost(self, link: int, reason: str) -> None:
        self._events.put(("on_link_lost", link, reason))

    def on_message(self, link: int, data: Buffer) -> None:
        self._events.put(("on_message", link, data))

    def on_writable(self, link: int) -> None:
        self._events.put(("on_writable", link))

    def on_lone(self, address: Address, data: bytes) -> None:
        self._events.put(("on_lone", address, data))

    def on_door_lone(self, address: Address, data: bytes) -> None:
        self._events.put(("on_door_lone", address, data))
