"""What a node keeps in its folder for its next run: where its network is, and who it was in it. Only a help. Pure."""

from __future__ import annotations

from functools import partial
from typing import Any, Callable, Optional

from protocol.membership.claims import NO_PAST, Past, decode_past, encode_past
from protocol.membership.searching import NO_LAST_NETWORK, LastNetwork, decode_last_network, encode_last_network

Run = Callable[[Callable[[], Any], Callable[[Any, Optional[Exception], float], None]], None]  # a disk job, then ...


class Keepsakes:
    """What is kept at the moment; written when it changes."""

    def __init__(self, library: Any, run: Run) -> None:
        self._library = library
        self._run = run
        self._last_network = NO_LAST_NETWORK
        self._past = NO_PAST

    def recall(self, then: Callable[[LastNetwork, Past, float], None]) -> None:
        """What an earlier run has kept: then(last network, past, now)."""

        def recalled(data: Any, _: Optional[Exception], now: float) -> None:
            last, past, key = data or (b"", b"", NO_PAST.key)
            self._past = decode_past(past, key)
            then(decode_last_network(last), self._past, now)

        self._run(self._library.memory, recalled)

    def keep(self, last: LastNetwork, past: Past) -> None:
        """This is so now."""
        if last.places and last != self._last_network:
            self._last_network = last
            self._run(partial(self._library.keep_network, encode_last_network(last)), lambda *_: None)
        if past != self._past:
            self._past = past
            self._run(partial(self._library.keep_past, encode_past(past)), lambda *_: None)
