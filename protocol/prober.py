"""Queries out, Answers back, matched by nonce.

Used by `protocol/membership.py`, `protocol/opening.py` and `supernode.py`. Pure.
"""

from __future__ import annotations

import math
import random
from typing import Any, Dict, NamedTuple, Optional, Sequence

from protocol import messages
from protocol.messages import NOWHERE, Answer, Query, Wanted
from protocol.roster import may_contact, random_bytes
from protocol.wire import Address

QUERY_LIFETIME = 5.0  # seconds in which an Answer is still taken
QUERIES_PENDING_MAX = 2048
HINT_INTERVAL = 0.2  # seconds between two to one address: who answers may name another one, and that one the first
HINTS_PER_MINUTE = 3  # unanswered queries to an address that only a message named
HINTED_MAX = 256  # such addresses in a minute


class Asked(NamedTuple):
    """A Query that is out."""

    address: Optional[Address]  # None: it was broadcast
    purpose: Any
    at: float


class _Hints(NamedTuple):
    """How often an address was asked that only a message named."""

    since: float
    unanswered: int  # since then
    last_at: float

    def counts(self, now: float) -> bool:
        return now - self.since <= 60.0 if self.unanswered else now < self.last_at + HINT_INTERVAL


class Prober:
    """Queries out, Answers back, matched by nonce."""

    def __init__(self, network: Any, rng: random.Random) -> None:
        self._network = network
        self._rng = rng
        self._pending: Dict[bytes, Asked] = {}
        self._hints: Dict[Address, _Hints] = {}

    def ask(self, address: Address, purpose: Any, now: float, about: Optional[Address] = None) -> None:
        """Who is there? Or, `about` a place: does it lead to your network?"""
        self._network.send_lone(address, self._query(Asked(address, purpose, now), about))

    def broadcast(self, port: int, purpose: Any, now: float, about: Optional[Address] = None) -> None:
        self._network.broadcast_lone(port, self._query(Asked(None, purpose, now), about))

    def ask_hinted(
        self, address: Address, purpose: Any, near: Sequence[str], now: float, about: Optional[Address] = None
    ) -> bool:
        """Ask at an address that only a message named: not everywhere, and not often."""
        hints = self._hints.get(address, _Hints(now, 0, -math.inf))
        if now - hints.since > 60.0:
            hints = _Hints(now, 0, -math.inf)
        is_often = hints.unanswered >= HINTS_PER_MINUTE or now < hints.last_at + HINT_INTERVAL
        if is_often or address == NOWHERE or not may_contact(address, near):
            return False
        if address not in self._hints and not self._has_room_for_hint(now):
            return False
        self._hints[address] = _Hints(hints.since, hints.unanswered + 1, now)
        self.ask(address, purpose, now, about)
        return True

    def begin_anew(self) -> None:
        """A person wants to join: what an earlier wish has asked in vain does not count against this one."""
        self._hints.clear()

    def _has_room_for_hint(self, now: float) -> bool:
        """Somebody who names address after address makes us ask no more of them than this in a minute."""
        if len(self._hints) >= HINTED_MAX:
            self._hints = {place: hints for place, hints in self._hints.items() if hints.counts(now)}
        return len(self._hints) < HINTED_MAX

    def _query(self, asked: Asked, about: Optional[Address]) -> bytes:
        self._expire(asked.at)
        nonce = random_bytes(self._rng, 8)
        self._pending[nonce] = asked
        return messages.encode(Query(nonce) if about is None else Wanted(nonce, about))

    def _expire(self, now: float) -> None:
        """Forget what is too old or too much; a dict keeps the order of asking."""
        while self._pending:
            nonce, asked = next(iter(self._pending.items()))
            if now - asked.at <= QUERY_LIFETIME and len(self._pending) < QUERIES_PENDING_MAX:
                break
            del self._pending[nonce]

    def is_own(self, nonce: bytes) -> bool:
        """Did this Query come back to the one who asked?"""
        return nonce in self._pending

    def match(self, source: Address, answer: Answer, now: float) -> Optional[Asked]:
        """The Query that this answers, with the address that answered, or None for an Answer nobody asked for."""
        asked = self._pending.get(answer.nonce)
        if asked is None or now - asked.at > QUERY_LIFETIME:
            return None
        if asked.address is None:
            return asked._replace(address=source)
        del self._pending[answer.nonce]
        if asked.address in self._hints:
            self._hints[asked.address] = self._hints[asked.address]._replace(unanswered=0)
        return asked
