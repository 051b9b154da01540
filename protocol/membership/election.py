"""Who follows whom when the supernode is gone: what every node can compute by itself from what it heard.

The order is the join order without the lost supernode. The member of rank k takes over when the supernode has been
gone for k times RANK_TIME and nobody of an earlier rank answers. Nobody follows a claim whose right it cannot see:
a claimant must rank before every member that answers, or have followers already. Who is in an earlier term missed an
election: it waits for all others, and nobody waits for it. Nobody takes over without a look at the last moment.

Every answer that gets here is proven to come from a member of the network. Pure.
"""

from __future__ import annotations

import math
from typing import Dict, Iterable, List, NamedTuple, Optional, Sequence

from protocol.addresses import is_loopback
from protocol.fields import Address
from protocol.messages import MEMBERS_MAX, NO_NODE, ROLE_MEMBER, ROLE_SUPERNODE, Answer

RANK_TIME = 3.0  # seconds that each earlier rank has for itself
CLAIM_WAIT = 0.5  # seconds for all that were asked to answer, before anything is decided
LAST_LOOK = 0.3  # seconds before its turn that a member asks once more, to hear of who took over meanwhile
ALIVE_FOR = 3.0  # seconds that an Answer says "this member lives"
VOUCH_MS_MAX = 3000  # who heard the supernode so short a time ago vouches for its life
PATIENCE = 15.0  # seconds after its turn until a member no longer waits for earlier ranks that answer but do not act


class Heard(NamedTuple):
    """A proven Answer of another member."""

    at: float
    answer: Answer
    address: Address

    @property
    def host(self) -> str:
        """One can have as many members as it likes; of those on loopback nobody can tell whose they are."""
        ip, port = self.address
        return f"{ip}:{port}" if is_loopback(ip) else ip


class Election:
    """What is heard from the suspicion on, and the rules."""

    def __init__(self, own_id: bytes) -> None:
        self.own_id = own_id
        self.term = 0  # of the lost supernode
        self.lost_id: Optional[bytes] = None
        self.order: List[bytes] = []
        self.gone_at = 0.0
        self.has_slept = False  # since the supernode last gave a sign: what this node knows may be old
        self._heard: Dict[bytes, Heard] = {}
        self._vouched_at = -math.inf
        self._asked_at = -math.inf

    def forget(self) -> None:
        """The supernode lives, or the doubt begins anew: what was heard before does not count."""
        self._heard.clear()
        self._vouched_at = -math.inf

    def on_sleep(self) -> None:
        """This node slept."""
        self.has_slept = True

    def on_sign(self) -> None:
        """The supernode gave a sign."""
        self.has_slept = False

    def begin(self, term: int, lost_id: Optional[bytes], order: Sequence[bytes], now: float) -> None:
        """The supernode is gone from now on."""
        self.term, self.lost_id, self.order, self.gone_at = term, lost_id, list(order), now
        self._asked_at = -math.inf

    def ask(self, now: float) -> None:
        """The earlier ranks, and those who claim to rule, are being asked."""
        self._asked_at = now

    def knows(self, now: float) -> bool:
        """Were they asked just now? Else somebody may have taken over since."""
        return now - self._asked_at <= CLAIM_WAIT + 1e-6

    def hear(self, address: Address, answer: Answer, lost_id: Optional[bytes], now: float) -> None:
        """What a member has answered: whom it obeys, and whether it still hears the one who is silent here."""
        if len(self._heard) < MEMBERS_MAX or answer.node_id in self._heard:
            self._heard[answer.node_id] = Heard(now, answer, address)
        if lost_id is not None and _vouches(answer, lost_id):
            self._vouched_at = now

    # ---- ranks

    def before_me(self) -> List[bytes]:
        return self.order[: self.order.index(self.own_id)] if self.own_id in self.order else self.order

    def _rank(self, node_id: bytes) -> int:
        return self.order.index(node_id) if node_id in self.order else len(self.order)

    def my_turn_at(self) -> float:
        return self.gone_at + RANK_TIME * len(self.before_me())

    # ---- whom to follow

    def claims(self, within: float, now: float) -> List[Heard]:
        """Other supernodes of this network, heard within so many seconds."""
        return [h for h in self._heard.values() if h.answer.role == ROLE_SUPERNODE and now - h.at <= within]

    def _members(self, now: float) -> List[Heard]:
        return [h for h in self._heard.values() if h.answer.role == ROLE_MEMBER and now - h.at <= ALIVE_FOR]

    def best_claim(self, now: float) -> Optional[Heard]:
        """The supernode to follow, if there is one with a right to it."""
        if now < self.gone_at + CLAIM_WAIT:
            return None
        # Equal terms: after a partition both sides may have elected; better to follow than to elect again.
        claims = [h for h in self.claims(ALIVE_FOR, now) if h.answer.term >= self.term and self._is_entitled(h, now)]
        return max(claims, key=lambda h: (h.answer.term, -self._rank(h.answer.node_id)), default=None)

    def _is_entitled(self, claim: Heard, now: float) -> bool:
        """Nobody alive ranks before it, or it is followed already; in the end, better a doubtful one than none."""
        claimant = claim.answer.node_id
        members = self._members(now)
        is_followed = any(h.answer.supernode_id == claimant for h in members)
        if is_followed or self.has_slept or now >= self.gone_at + PATIENCE:
            return True
        rank = self._rank(claimant)
        earlier = [h for h in members if self._rank(h.answer.node_id) < rank and h.answer.term >= self.term]
        return len(self.before_me()) > rank and not earlier

    # ---- when to take over

    def is_my_turn(self, now: float) -> bool:
        """Is it for this node to rule now, as far as it knows?"""
        turn_at = self.my_turn_at()
        if now < max(turn_at, self.gone_at + CLAIM_WAIT) or self._is_vouched(now):
            return False
        return now >= turn_at + PATIENCE or not self._must_wait(now)

    def _must_wait(self, now: float) -> bool:
        """Is there somebody alive who is to take over before us?"""
        members = self._members(now)
        if any(h.answer.term > self.term for h in members):
            return True  # they have elected already, while we were away: find whom
        first = set(self.before_me())
        waiting = (NO_NODE, self.lost_id)  # one who obeys somebody else will not take over
        # Nor will one of an earlier term: it waits for us, by the rule above.
        able = [h for h in members if h.answer.supernode_id in waiting and h.answer.term == self.term]
        return any(h.answer.node_id in first for h in able)

    def _is_vouched(self, now: float) -> bool:
        """Do others hear the lost supernode? Liars do not count for ever, unless most do: members, and their hosts."""
        if now - self._vouched_at > ALIVE_FOR:
            return False
        alive = [h for h in self._heard.values() if now - h.at <= ALIVE_FOR]
        vouching = [h for h in alive if self.lost_id is not None and _vouches(h.answer, self.lost_id)]
        return now < self.gone_at + 2 * PATIENCE or (
            2 * len(vouching) > len(alive) and 2 * _hosts(vouching) > _hosts(alive)  # this node does not hear it either
        )


def _vouches(answer: Answer, lost_id: bytes) -> bool:
    """Does it say that it heard that supernode just now?"""
    return answer.role == ROLE_MEMBER and answer.supernode_id == lost_id and answer.heard_ago_ms <= VOUCH_MS_MAX


def _hosts(those: Iterable[Heard]) -> int:
    return len({h.host for h in those})
