"""Two supernodes of one network meet: which of them gives way, and to whom nobody does.

After a partition, a sleep or a failover on a bad link there are two, each with members. That they know the network's
secret shows only that both were members once, and anybody may be: were the newer term enough, a member of one second's
standing would depose the supernode with two datagrams. So who gives way must see a *reason*:

- The other one belongs to us: it is where we lost somebody in silence, or such a one obeys it, or it holds the heirloom
  of such a one (`lost`, `heirs`).
- Or it is where one ruled whom all could reach, when nobody could reach this node (`Seat.awaited`). In turn, nobody
  goes over to one whom others cannot reach, until that one had time to come.
- Or there is nothing to lose: we rule nobody but ourselves, and did so for a while.

Another supernode is looked for each 10 s or so: where one was known, where members were lost, by broadcast, and where
somebody hints that it rules in a later term. Whoever took in nobody of a lone supernode that went there is followed
less and less often (`protocol/membership/promises.py`).

Pure: `now` is monotonic seconds.
"""

from __future__ import annotations

import math
import random
from typing import Callable, List, Tuple

from protocol import messages
from protocol.addresses import may_contact, seen_from
from protocol.credit import QUERY_SIZE, STALE_SIZE, Credit
from protocol.fields import Address
from protocol.latest import Latest
from protocol.membership.contracts import Seat
from protocol.membership.promises import Promises
from protocol.membership.proofs import is_proven
from protocol.membership.queries import Prober
from protocol.membership.roster import TERM_STEP_MAX
from protocol.messages import NO_NODE, NOWHERE, ROLE_MEMBER, ROLE_SUPERNODE, Answer
from protocol.network import Network
from protocol.ruling.doubt import Doubt
from protocol.ruling.line import Line
from protocol.ruling.register import Register
from protocol.ruling.witnesses import Witnesses

ALONE_AFTER = 12.0  # seconds without a member: those who are cut off have another supernode by then (6 s, 3 s a rank)
STANDS_AFTER = 8.0  # seconds that an older one rules on beside us: time enough to be hinted, to ask twice and to go
FORGOTTEN_AFTER = 30.0  # seconds without a meeting (there is one each 10 s)
RIVALS_MAX = 16  # other supernodes of this network, the latest met
HEAL_INTERVAL = 10.0  # seconds between two looks for one
HEAL_APART = 15.0  # seconds, at a place that has not answered lately (protocol/hearsay.py)
FIRST_HEAL = 1.0  # seconds from taking office to the first look at the latest: another may have taken it as well
LATEST_LOST, OTHER_LOST_ASKED = 16, 4  # places where another supernode is looked for, among these, and of all others
LATEST_KNOWN, AWAY_ASKED = 8, 8  # places of earlier supernodes, and of members without a link
CLAIM_HEAL_GAP = 5.0  # seconds between two looks for those who were lost, however many claim to rule
HEAL_AWAITED, AWAITED_APART = 5.1, 20.4  # seconds, to be back soon where all can be reached: three asked in a minute
SHUT_TIME = 60.0  # seconds of meeting one whom others cannot reach, in which it has time to come here
UNSETTLED_AFTER = 60.0  # seconds until a person is told that another half of the network stays apart


def gives_way(is_newer: bool, is_of_us: bool, alone_for: float, met_for: float) -> bool:
    """Do we go over to this other supernode of our network?

    `is_newer`: its term is the later one or, of equal ones, its id the smaller. `is_of_us`: it was shown to come from
    somebody whom we lost. `alone_for`: seconds for which nobody but this node itself was here. `met_for`: seconds since
    we met it first. The older one of two goes, as soon as it sees a reason. But who was lost is known only to those who
    were here then: the older one may know none of the other's people, all of whom came later, or took in those whom a
    dead supernode had known. Then it never goes, and the newer one, if it sees a reason, does: later, so that both do
    not go at once, each to where the other was.

    What a liar gains. Who can show that it comes from one of the lost was a member, and fell silent; no rule on what a
    supernode can see tells it from the other half of a parted network (README, "What it does not promise"). Its term is
    its own choice: that the newer one may go, too, gives it nothing. And who is alone goes over with one node, itself.
    If it was cut from its members, they have elected another by now, and lost *this* one in silence: should it come
    back obeying a liar, that is what any lost member can do.
    """
    has_reason = is_of_us or alone_for >= ALONE_AFTER
    return has_reason and (is_newer or met_for >= STANDS_AFTER)


class Meetings:
    """Since when other supernodes of our network are met; when there are too many, the one met longest ago goes."""

    def __init__(self) -> None:
        self._met: Latest[bytes, Tuple[float, float]] = Latest(RIVALS_MAX)  # node id -> at first, at last

    def meet(self, node_id: bytes, now: float) -> float:
        """It is met; for how many seconds now?"""
        since, last = self._met.get(node_id, (now, now))
        if now - last > FORGOTTEN_AFTER:
            since = now
        self._met.put(node_id, (since, now))
        return now - since


class Rivals:
    """The desk: looks for other supernodes of our network, and says of each that is met whether we go over to it."""

    def __init__(
        self,
        network: Network,
        rng: random.Random,
        seat: Seat,
        register: Register,
        doubt: Doubt,
        witnesses: Witnesses,
        prober: Prober,
        credit: Credit,
        promises: Promises,
        tell: Callable[[Address, Answer], None],
        is_shut: Callable[[bytes], bool],
        now: float,
    ) -> None:
        """`promises`: which hosts are not followed for now; `tell`: the person hears of a network at that place.

        `is_shut`: is this somebody whom others cannot reach, as far as is known here?
        """
        self.dropped = 0  # claims refused
        self._network = network
        self._rng = rng
        self._seat = seat
        self._register = register
        self._doubt = doubt
        self._witnesses = witnesses
        self._prober = prober
        self._credit = credit
        self._promises = promises
        self._tell = tell
        self._is_shut = is_shut
        self._meetings = Meetings()
        self._next_heal = now + rng.random() * FIRST_HEAL
        self._healed_at = -math.inf
        promises.rules_again(now)

    # ---- looking for others

    def next_deadline(self) -> float:
        """When `heal` is due."""
        return self._next_heal

    def heal_soon(self, now: float, gap: float = 1.0) -> None:
        """There is reason to look at once, but not within so many seconds of the last look."""
        self._next_heal = min(self._next_heal, max(now, self._healed_at + gap))

    def heal(self, now: float) -> None:
        """Look for another supernode of this network: where one was, at members who are away, and by broadcast."""
        interval = HEAL_INTERVAL if self._seat.awaited is None else HEAL_AWAITED
        self._next_heal = now + interval * (0.9 + 0.2 * self._rng.random())
        self._healed_at = now
        if self._seat.awaited is not None:
            self._prober.ask(self._seat.awaited, "heal", now, AWAITED_APART)
        for place in dict.fromkeys(self._places()):
            if place not in (self._network.address, NOWHERE, self._seat.awaited):
                self._prober.ask(place, "heal", now, HEAL_APART)
        if self._seat.search_port:
            self._prober.broadcast(self._seat.search_port, "heal", now)

    def _places(self) -> List[Address]:
        lost = self._witnesses.lost_places
        away = [line.entry.place for line in self._register.lines() if line.link is None]
        away += lost.latest(LATEST_LOST)
        places = list(self._seat.known_supernodes[-LATEST_KNOWN:])
        places += self._rng.sample(away, min(AWAY_ASKED, len(away)))
        return places + lost.some(OTHER_LOST_ASKED, self._rng)

    def on_hint(self, address: Address, stale: messages.Stale, now: float) -> None:
        """Somebody says that it rules in a later term."""
        self._credit.earn(address, STALE_SIZE)
        if stale.term >= self._seat.term:
            self._ask_if_paid(address, now)

    def _ask_if_paid(self, address: Address, now: float) -> None:
        """Another one may rule there: asked, once its address has sent as many bytes as that costs."""
        near = [place[0] for place in self._seat.known_supernodes]
        if may_contact(address, near) and self._credit.pay(address, QUERY_SIZE, now):
            self._prober.ask_freely(address, "heal", now)

    def on_prove(self, address: Address, prove: messages.Prove, now: float) -> None:
        """Another ruler wants to know whether we come from those whom it lost."""
        if self._witnesses.prove(address, prove, now):
            self._ask_if_paid(address, now)  # only who rules wants a proof, and it may be for us to go

    def on_proof(self, address: Address, proof: messages.Proof, now: float) -> None:
        """Who claims to rule may have shown that it is of us: then it is met once more."""
        if self._witnesses.is_shown(address, proof, now):
            self._prober.ask(address, "heal", now)

    # ---- meeting one

    def is_winner(self, address: Address, answer: Answer, now: float) -> bool:
        """Somebody answers who says that it is of our network: is it a supernode to which we go over?"""
        is_believable = answer.node_id != self._seat.node_id and answer.term <= self._seat.term + TERM_STEP_MAX
        if not is_believable or not is_proven(answer, self._seat.secret):
            self.dropped += 1
        elif answer.role == ROLE_SUPERNODE:
            return self._meet(address, answer, now)
        elif answer.role == ROLE_MEMBER:
            self._hear_member(address, answer, now)
        return False

    def _hear_member(self, address: Address, answer: Answer, now: float) -> None:
        # Equal or lower terms, too: that supernode may know nobody on this side, and is to follow us.
        obeys_another = answer.supernode_id not in (NO_NODE, self._seat.node_id)
        if obeys_another:
            self._witnesses.hear_member(address, answer, now)
        if answer.term > self._seat.term or obeys_another:
            self._prober.ask_hinted(seen_from(answer.supernode, address), "heal", [address[0]], now)
        if answer.term <= self._seat.term:
            if answer.supernode_id == NO_NODE:  # it looks for who rules, and may have spent its questions here
                self._prober.ask(address, "pay", now)
            self._doubt.did_not_rule(answer.node_id, now)

    def _meet(self, address: Address, answer: Answer, now: float) -> bool:
        """Another supernode of our network: one of the two gives way."""
        line = self._register.get(answer.node_id)
        if line is not None and self._is_with_us(line, now):
            self.dropped += 1  # it follows us and claims to rule: a liar
            return False
        is_newer = (-answer.term, answer.node_id) < (-self._seat.term, self._seat.node_id)
        is_of_us = address == self._seat.awaited or self._witnesses.is_of_us(address, answer.node_id, now)
        met_for = self._meetings.meet(answer.node_id, now)
        if self._is_shut(answer.node_id) and met_for < SHUT_TIME:
            self._stay(address, False, now)
            return False
        if self._may_follow(address[0], now) and gives_way(is_newer, is_of_us, self._register.alone_for(now), met_for):
            if not self._register.linked_count():
                self._promises.follow(address[0], now)
            return True
        if met_for > UNSETTLED_AFTER:
            self._tell(address, answer)
        if not is_of_us:
            self._witnesses.ask_whose_heir(address, answer.node_id, now)
        self._stay(address, is_newer, now)
        return False

    def _is_with_us(self, line: Line, now: float) -> bool:
        """Does this member surely follow us? (Who has slept is not sure of anybody.)"""
        return line.link is not None and line.is_fresh(now) and not self._doubt.is_on(now)

    def _may_follow(self, host: str, now: float) -> bool:
        """Nobody with members is held back by what it found there when it was alone."""
        return self._register.linked_count() > 0 or self._promises.may_follow(host, now)

    def _stay(self, address: Address, is_newer: bool, now: float) -> None:
        """We do not go over: look for a reason to, or give the other one ours."""
        if is_newer:
            self.dropped += 1
            self.heal_soon(now, CLAIM_HEAL_GAP)  # those whom we lost may know it
        else:
            self._prober.ask(address, "pay", now)  # so that it may ask us in turn
            self._network.send_lone(address, messages.encode(messages.Stale(self._seat.term, NOWHERE)))
