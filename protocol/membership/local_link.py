"""The link by which a supernode is a member of its own network."""

from __future__ import annotations

from typing import Any, Deque

LOCAL_LINK = 0  # between a peer and the supernode of the same node


class LocalSide:
    """A network with one link more: what is sent on LOCAL_LINK goes into a queue for the role at the other end."""

    def __init__(self, network: Any, outbox: Deque[bytes]) -> None:
        self._network = network
        self._outbox = outbox

    def __getattr__(self, verb: str) -> Any:
        return getattr(self._network, verb)

    def send(self, link: int, *parts: Any) -> None:
        if link == LOCAL_LINK:
            self._outbox.append(b"".join(bytes(part) for part in parts))
        else:
            self._network.send(link, *parts)

    def disconnect(self, link: int, reason: str) -> None:
        if link != LOCAL_LINK:
            self._network.disconnect(link, reason)
