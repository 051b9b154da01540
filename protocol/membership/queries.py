"""Queries out, Answers back, matched by nonce.

Used by a member in all its phases (protocol/membership/course.py), and by a supernode and its desks. Pure.
"""

from __future__ import annotations

import enum
import random
from typing import Any, Dict, NamedTuple, Optional, Sequence

from protocol import messages
from protocol.addresses import is_of_one_host, may_contact
from protocol.credit import QUERY_SIZE, Credit
from protocol.fields import Address
from protocol.hearsay import Hearsay, Outside
from protocol.membership.proofs import random_bytes
from protocol.messages import NOWHERE, Answer, Query, Wanted

QUERY_LIFETIME = 5.0  # seconds in which an Answer is still taken
QUERIES_PENDING_MAX = 2048  # without an answer so far; of more the oldest are forgotten
HINT_INTERVAL = 0.2  # seconds between two to one address: who answers may name another one, and that one the first


class Purpose(enum.Enum):
    """What for a member asks; one that searches has purposes of its own (protocol/membership/searching.py)."""

    LOOK = "is there a network to go to"
    MEET = "is one that may rule some day where the roster says"
    FOLLOW = "does the one rule that was named as the next"
    POLL = "who rules"


class Asked(NamedTuple):
    """A Query that is out."""

    address: Optional[Address]  # None: it was broadcast
    purpose: Any
    at: float
    is_broadcast: bool = False  # then anybody who heard it may have answered in the name of another address


class Prober:
    """Queries out, Answers back, matched by nonce."""

    def __init__(self, network: Any, rng: random.Random, hearsay: Hearsay, credit: Optional[Credit] = None) -> None:
        """`hearsay` and `credit` are the node's: what it sent and was sent, in whatever role."""
        self._network = network
        self._rng = rng
        self._hearsay = hearsay
        self._outside = Outside()
        self._credit = Credit() if credit is None else credit
        self._pending: Dict[bytes, Asked] = {}

    def ask_freely(self, address: Address, purpose: Any, now: float, about: Optional[Address] = None) -> None:
        """Who is there? Or, `about` a place: does it lead to your network?

        For where a person said, for this machine itself, and for who has sent as many bytes as this costs.
        """
        self._network.send_lone(address, self._query(Asked(address, purpose, now), about))

    def broadcast(self, port: int, purpose: Any, now: float, about: Optional[Address] = None) -> None:
        self._network.broadcast_lone(port, self._query(Asked(None, purpose, now), about))

    def ask(
        self, address: Address, purpose: Any, now: float, apart: float = 0.0, apart_proven: float = 0.0, keep: int = 0,
        about: Optional[Address] = None,
    ) -> bool:  # fmt: skip
        """The same, anywhere else: as often as `Hearsay.may_send` allows, or paid by what came from there (`earn`)."""
        is_allowed = self._hearsay.may_send(address, now, apart, apart_proven, keep)
        if not is_allowed and not keep and self._hearsay.is_used_up(address, now):
            is_allowed = self._credit.spend(address, QUERY_SIZE)
        if is_allowed:
            self.ask_freely(address, purpose, now, about)
        return is_allowed

    def ask_hinted(
        self, address: Address, purpose: Any, near: Sequence[str], now: float, about: Optional[Address] = None,
        keep: int = 0,
    ) -> bool:  # fmt: skip
        """Ask at an address that a message has just named: not everywhere, and not often.

        The supernode of one behind a router may be anywhere; few such addresses are asked at a time.
        """
        if address == NOWHERE:
            return False
        is_outside = not may_contact(address, near) and not self._hearsay.is_proven(address, now)
        if is_outside and not (is_of_one_host(address) and self._outside.may_try(address, now)):
            return False
        is_asked = self.ask(address, purpose, now, HINT_INTERVAL, HINT_INTERVAL, keep, about)
        if is_asked and is_outside:
            self._outside.on_tried(address, now)
        return is_asked

    def earn(self, address: Address, size: int) -> None:
        """So many bytes more came from there than were sent back."""
        self._credit.earn(address, size)

    @property
    def hearsay(self) -> Hearsay:
        """What may be sent to addresses that only messages named."""
        return self._hearsay

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
            return asked._replace(address=source, is_broadcast=True)
        del self._pending[answer.nonce]
        self._hearsay.on_answer(asked.address, now)
        self._outside.on_answer(asked.address)
        return asked
