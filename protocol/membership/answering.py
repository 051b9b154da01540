"""What a node says of itself and its network to whoever asks: by query, at the door, and to a Join that went astray.

The rules are in `protocol/membership/door.py`; here is who they are applied for, and how often. Pure.
"""

from __future__ import annotations

from typing import Any, Callable, List, Sequence

from protocol import messages
from protocol.addresses import is_loopback
from protocol.fields import Address
from protocol.membership.door import Standing, answer_of, at_door, leads_here
from protocol.membership.searching import LOOPBACK
from protocol.membership.view import Means
from protocol.messages import NO_NETWORK, NOWHERE, encode, encode_parts
from protocol.rates import Bucket

ANSWERS_PER_SECOND = 3000.0  # a thousand members may ask at once; a flood costs no more than this


class Answering:
    """Answers; `standing` tells what the node is at that moment."""

    def __init__(
        self,
        means: Means,
        own_ips: Callable[[], Sequence[str]],
        standing: Callable[[float], Standing],
        on_answered: Callable[[Address, float], None] = lambda address, now: None,
    ) -> None:
        """`on_answered`: somebody there asked, and was told who this is."""
        self._network, self._rng, self._prober, self._view = means
        self._own_ips = own_ips
        self._standing = standing
        self._on_answered = on_answered
        self._answers = Bucket(ANSWERS_PER_SECOND, ANSWERS_PER_SECOND, 0.0)

    def is_question(self, address: Address, message: Any, known_port: int) -> bool:
        """Is this a Query, or a question about a place that leads to our network?"""
        if type(message) is not messages.Wanted:
            return type(message) is messages.Query
        is_ours = leads_here(message.place, address, self._view.known_supernodes, self._all_own_ips(), known_port)
        return is_ours and self._view.network_id != NO_NETWORK

    def answer(self, address: Address, question: Any, now: float) -> None:
        """Say what this node is, if the one who asks may be answered now."""
        if self._may_answer(question, now):
            answer = encode(answer_of(self._standing(now), question.nonce, self._view.secret, self._rng))
            self._network.send_lone(address, answer)
            self._earn(address, question, answer)
            self._on_answered(address, now)

    def answer_at_door(self, address: Address, question: Any, known_port: int, now: float) -> None:
        """At the door a ruler speaks as a member that names itself; who is in no network has nothing to say there."""
        if self._view.network_id != NO_NETWORK and self._may_answer(question, now):
            standing = self._standing(now)
            told = at_door(standing, self._view.is_ruler, self._place_told_at_door(standing, known_port))
            answer = encode(answer_of(told, question.nonce, self._view.secret, self._rng))
            self._network.send_by_door(address, answer)
            self._earn(address, question, answer)

    def send_on(self, link: int, known_port: int, now: float) -> None:
        """Somebody takes this node for the supernode, or has come to its door: say who is."""
        standing = self._standing(now)
        place = self._place_told_at_door(standing, known_port) if link < 0 else standing.supernode
        self._network.send(link, *encode_parts(messages.NotSupernode(standing.term, place)))
        self._network.disconnect(link, "not the supernode")

    def _earn(self, address: Address, question: Any, answer: bytes) -> None:
        """The question was longer than its answer: that much more may be sent there (protocol/credit.py)."""
        if not self._view.is_ruler:  # who rules reckons for itself
            self._prober.earn(address, len(encode(question)) - len(answer))

    def _may_answer(self, question: Any, now: float) -> bool:
        return not self._prober.is_own(question.nonce) and self._answers.take(now)

    def _place_told_at_door(self, standing: Standing, known_port: int) -> Address:
        """Where the supernode is, unless it had this very port: asking at the door again leads nowhere."""
        ip, port = place = self._own_place() if self._view.is_ruler else standing.supernode
        return NOWHERE if port == known_port and (is_loopback(ip) or ip in self._all_own_ips()) else place

    def _own_place(self) -> Address:
        """Where this node itself is reached from its own machine; who is elsewhere takes loopback for that machine."""
        ip, port = self._network.address
        return (LOOPBACK if ip == NOWHERE[0] else ip), port

    def _all_own_ips(self) -> List[str]:
        return [self._network.address[0], *self._own_ips()]
