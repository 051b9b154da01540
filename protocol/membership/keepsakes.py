"""What a node keeps in its folder for its next run: its last network, who it was there, what it ruled. A help. Pure."""

from __future__ import annotations

from functools import partial
from typing import Any, Callable, Optional

from protocol.membership.claims import NO_PAST, Past, decode_past, encode_past
from protocol.membership.resuming import NO_RULED, Ruled, decode_ruled, encode_ruled
from protocol.membership.searching import NO_LAST_NETWORK, LastNetwork, decode_last_network, encode_last_network

Run = Callable[[Callable[[], Any], Callable[[Any, Optional[Exception], float], None]], None]  # a disk job, then ...


class Keepsakes:
    """What is kept at the moment; written when it changes."""

    def __init__(self, library: Any, run: Run) -> None:
        self._library = library
        self._run = run
        self._last_network = NO_LAST_NETWORK
        self._past = NO_PAST
        self._ruled = NO_RULED

    def recall(self, then: Callable[[LastNetwork, Past, Ruled, float], None]) -> None:
        """What an earlier run has kept: then(last network, past, what it ruled, now)."""

        def recalled(data: Any, _: Optional[Exception], now: float) -> None:
            last, past, key, ruled = data or (b"", b"", NO_PAST.key, b"")
            self._past = decode_past(past, key)
            self._ruled = decode_ruled(ruled)
            then(decode_last_network(last), self._past, self._ruled, now)

        self._run(self._library.memory, recalled)

    def keep(self, last: LastNetwork, past: Past, ruled: Ruled) -> None:
        """This is so now."""
        if last.places and last != self._last_network:
            self._last_network = last
            self._run(partial(self._library.keep_network, encode_last_network(last)), lambda *_: None)
        if past != self._past:
            self._past = past
            self._run(partial(self._library.keep_past, encode_past(past)), lambda *_: None)
        if ruled != self._ruled:
            self._ruled = ruled
            self.keep_ruled()

    def keep_ruled(self) -> None:
        """What this node rules is of now: it may be long since it was written."""
        self._run(partial(self._library.keep_ruled, encode_ruled(self._ruled)), lambda *_: None)
