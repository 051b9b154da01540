"""Answers that a network has a key, to a node that asked without one: of each place its person is told once. Pure."""

from __future__ import annotations

from protocol.fields import Address
from protocol.latest import Latest
from protocol.membership.queries import Prober

PLACES_MAX = 64  # addresses where a key is wanted, that the person was told of
NONCE_AT = slice(1, 9)  # in a Query or a Wanted, of which a hint repeats the first bytes: behind the tag


class KeyHints:
    """Where a key is wanted."""

    def __init__(self, prober: Prober) -> None:
        self._prober = prober
        self._places: Latest[Address, None] = Latest(PLACES_MAX)

    def is_news(self, address: Address, repeated: bytes) -> bool:
        """Has this node asked there, in the message that began so, and did not yet know that a key is wanted there?"""
        is_news = self._prober.is_own(repeated[NONCE_AT]) and address not in self._places
        if is_news:
            self._places.put(address, None)
        return is_news
