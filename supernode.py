"""The role that keeps the network together: roster, chat in one order, index of shares, search, handover.

One node has it at a time. Its own peer is a member like any other, reached over LOCAL_LINK.
Every message of a member comes over that member's own link: what it says about others is not heard.
"""

from __future__ import annotations

import random
from typing import Any, Callable

from protocol import messages
from protocol.membership import Network, Seat
from protocol.wire import Address


class Supernode:
    """The ruling supernode of one term, from become_supernode to handover or step-down."""

    def __init__(self, network: Network, rng: random.Random, seat: Seat, now: float) -> None: ...

    def owns(self, link: int) -> bool:
        """Is this the link of a member (LOCAL_LINK included once its peer joined)?"""

    def on_hello(self, link: int, address: Address, join: messages.Join, now: float) -> None:
        """A Join, the first message on a link (or again on the same)."""

    def on_message(self, link: int, message: Any, now: float) -> None: ...

    def on_link_lost(self, link: int, reason: str, now: float) -> None: ...

    def on_lone(self, address: Address, message: Any, now: float) -> bool:
        """True when this was an Answer to a Query of its own."""

    def on_timer(self, now: float) -> None: ...

    def next_deadline(self) -> float: ...

    def hand_over(self, now: float, done: Callable[[], None]) -> None:
        """Planned leave: Handover to all; done() when it is delivered to everyone, at the latest after 2 s."""
