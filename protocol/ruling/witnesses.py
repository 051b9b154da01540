"""Who was lost in silence, and what shows that another supernode comes from one of them (see `rivals`).

That is so if it stands where somebody was lost; if one of the lost obeys it; or if it marks a nonce with the heirloom
of one of the lost, though all of those are gone by now (see `lost` and `heirs` of membership).

Pure: `now` is monotonic seconds.
"""

from __future__ import annotations

import math
import random
from typing import Dict, Iterator, List, Tuple, Union

from protocol import messages
from protocol.addresses import may_contact, seen_from
from protocol.fields import Address
from protocol.latest import Latest
from protocol.membership.contracts import Seat
from protocol.membership.heirs import Heirlooms, heirloom_of, is_heir, marked
from protocol.membership.lost import LostPlaces
from protocol.membership.proofs import random_bytes
from protocol.messages import MEMBERS_MAX, NO_NODE, NOWHERE, Answer
from protocol.network import Network
from protocol.rates import Bucket
from protocol.ruling.doubt import Doubt
from protocol.ruling.line import Line
from protocol.ruling.register import Register

WITNESS_TIME = 15.0  # seconds that the word of a lost member counts; it is asked each 10
WITNESSED_MAX = 16  # other supernodes of the same network
PROVES_PER_SECOND, PROVES_BURST = 1.0, 4.0  # however many claim to rule
PROOFS_MAX = 16  # waited for
LOST_HEIRLOOMS_MAX = MEMBERS_MAX  # all but one of the largest network may be cut off at once


class Witnesses:
    """Places and heirlooms of the lost, whom they obey now, and who was asked for a mark."""

    def __init__(
        self, network: Network, rng: random.Random, seat: Seat, register: Register, doubt: Doubt, now: float
    ) -> None:
        self.dropped = 0  # messages refused
        self.lost_places = LostPlaces(seat.lost_places)
        self._network = network
        self._rng = rng
        self._seat = seat
        self._register = register
        self._doubt = doubt
        self._heirlooms = Heirlooms(seat.heirlooms)
        self._lost_heirlooms = Heirlooms(limit=LOST_HEIRLOOMS_MAX)
        # Another supernode -> when one of the lost last named it.
        self._obeyed_by_lost: Latest[bytes, float] = Latest(WITNESSED_MAX)
        # The nonce of a Prove -> where it went, who claims to rule.
        self._proofs: Latest[bytes, Tuple[Address, bytes]] = Latest(PROOFS_MAX)
        self._proves = Bucket(PROVES_PER_SECOND, PROVES_BURST, now)

    # ---- members come and go

    def is_lost(self, address: Address, now: float) -> bool:
        """Was somebody lost there in silence, or may have been, and nobody came back from there since?"""
        lines = [line for line in self._register.lines() if line.entry.place == address]
        if any(line.is_fresh(now) for line in lines) and not self._doubt.is_on(now):
            return False
        return bool(lines) or address in self.lost_places

    def come(self, line: Line, join: messages.Join, was_lost: bool) -> None:
        """Somebody was taken in, who `was_lost` until then."""
        line.recall(was_lost, heirloom_of(join.node_id, join.opening, self._seat.network_id))
        self._lost_heirlooms.discard(join.node_id)
        self.lost_places.discard(line.entry.place)

    def lose(self, line: Line) -> None:
        """A member fell silent, and is given up."""
        self.lost_places.add(line.entry.place)
        self._lost_heirlooms.add(line.heirloom)

    def news(self) -> Iterator[Union[messages.Lost, messages.Heirs]]:
        """What a newcomer is to know, should it rule one day."""
        if self.lost_places:
            yield messages.Lost(tuple(self.lost_places.latest(messages.LOST_TOLD_MAX)))
        yield messages.Heirs(self._heirlooms.all())

    def on_lost(self, line: Line, lost: messages.Lost, now: float) -> None:
        """Where the part of the network that this member comes back from lost others: they may rule a third part."""
        if not line.was_lost or not self._register.may_ask(line, now):
            self.dropped += 1
            return
        places = self._away(lost.places, line.entry.place)
        for place in places:
            self.lost_places.add(place)
        own = self._register.own
        if places and own is not None:  # should this node step down in turn
            self._register.send(own, messages.Lost(tuple(places)))

    def _away(self, places: Tuple[Address, ...], teller: Address) -> List[Address]:
        """Those of them where we may look for somebody, and nobody is with us."""
        told = [seen_from(place, teller) for place in places]
        here = {line.entry.place for line in self._register.lines() if line.link is not None}
        return [place for place in told if may_contact(place, [teller[0]]) and place not in here]

    # ---- what shows whose a supernode is

    def is_of_us(self, address: Address, ruler: bytes, now: float) -> bool:
        """Does this supernode come from somebody whom we lost?"""
        obeyed_at = self._obeyed_by_lost.get(ruler, -math.inf)
        return self.is_lost(address, now) or now - obeyed_at <= WITNESS_TIME

    def hear_member(self, address: Address, answer: Answer, now: float) -> None:
        """A member that obeys another supernode: that one is of us, if the member was."""
        if self.is_lost(address, now):
            self._obeyed_by_lost.put(answer.supernode_id, now)

    def ask_whose_heir(self, address: Address, ruler: bytes, now: float) -> None:
        """All whom we lost may be gone by now; somebody whom they took in may rule."""
        if not self._proves.take(now):
            return
        nonce = random_bytes(self._rng, 8)
        self._proofs.put(nonce, (address, ruler))
        self._network.send_lone(address, messages.encode(messages.Prove(nonce)))

    def prove(self, address: Address, prove: messages.Prove, now: float) -> bool:
        """Show whose heirlooms we hold; False: we have shown them often enough just now."""
        if not self._proves.take(now):
            return False
        marks = marked(self._heirlooms.all(), prove.nonce, self._seat.node_id)
        self._network.send_lone(address, messages.encode(messages.Proof(prove.nonce, marks)))
        return True

    def is_shown(self, address: Address, proof: messages.Proof, now: float) -> bool:
        """Does it answer our question, and show that who claims to rule there is an heir of the lost?"""
        asked, ruler = self._proofs.pop(proof.nonce, (NOWHERE, NO_NODE))
        is_shown = asked == address and is_heir(proof.marks, proof.nonce, ruler, self._heirlooms_of_lost(now))
        if is_shown:
            self._obeyed_by_lost.put(ruler, now)
        return is_shown

    def _heirlooms_of_lost(self, now: float) -> Dict[bytes, messages.Heirloom]:
        """Of those who were given up, and of all who are silent now: in doubt, that may be anybody."""
        is_unsure = self._doubt.is_on(now)
        silent = [line for line in self._register.lines() if is_unsure or not line.is_fresh(now)]
        lost = {line.node_id: line.heirloom for line in silent if line.heirloom is not None}
        lost.update(self._lost_heirlooms.by_id())
        return lost
