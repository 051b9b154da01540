"""The supernode's reception: who is taken in, who is told to come again, and who is sent away.

Pure: `now` is monotonic seconds.
"""

from __future__ import annotations

import random
from typing import Any, Optional

from protocol import messages
from protocol.fields import Address
from protocol.membership.chat import ChatOrder
from protocol.membership.contracts import Seat
from protocol.membership.labels import name_fault
from protocol.membership.local_link import LOCAL_LINK
from protocol.membership.proofs import node_id_of
from protocol.messages import NOWHERE
from protocol.ruling.alarm import Alarm
from protocol.ruling.catalogue import Catalogue
from protocol.ruling.doubt import Doubt
from protocol.ruling.neighbours import Neighbours
from protocol.ruling.newcomers import Admission, Waiting
from protocol.ruling.register import Register
from protocol.ruling.rivals import Rivals
from protocol.ruling.witnesses import Witnesses

BUSY_MS, BUSY_SPREAD_MS = 500, 1500  # until who found no room comes again: at least, and how far apart they come


class Reception:
    """Who waits to be taken in; whoever has been is told to all the other desks."""

    def __init__(
        self,
        seat: Seat,
        commitment: bytes,
        rng: random.Random,
        register: Register,
        chat: ChatOrder,
        catalogue: Catalogue,
        doubt: Doubt,
        witnesses: Witnesses,
        rivals: Rivals,
        neighbours: Neighbours,
        alarm: Alarm,
        now: float,
    ) -> None:
        """`commitment`: the hash of what a Handover will show."""
        self._seat = seat
        self._commitment = commitment
        self._rng = rng
        self._register = register
        self._chat = chat
        self._catalogue = catalogue
        self._doubt = doubt
        self._witnesses = witnesses
        self._rivals = rivals
        self._neighbours = neighbours
        self._alarm = alarm
        self._admission = Admission(now)

    def __contains__(self, link: int) -> bool:
        """Does a Join wait that came by this link?"""
        return link in self._admission

    def on_join(self, link: int, address: Address, join: messages.Join, now: float) -> None:
        """Take it in, put it off, or refuse it. The own peer is always taken in."""
        if link == LOCAL_LINK:  # without its own peer nobody rules, and it floods nothing
            self._take_in(link, address, join, now)
            return
        refusal = self._refusal(address, join, now)
        if refusal is not None:
            self._register.refuse(link, refusal)
        elif not self._admission.admits(address[0], not self._register.is_known(join.node_id), now):
            self._register.refuse(link, self._too_many())
        elif self._admission.has_turn(address[0], now):
            self._take_in(link, address, join, now)
        else:
            self._put_off(Waiting(link, address, join), now)

    def _put_off(self, waiting: Waiting, now: float) -> None:
        loser = self._admission.put_off(waiting)
        if loser is not None:
            self._register.refuse(loser.link, self._too_many())
        self._alarm.set(now)

    def serve(self, now: float) -> None:
        """Take in those who have their turn by now, if nothing has come between."""
        waiting = self._admission.next(now)
        while waiting is not None:
            refusal = self._refusal(waiting.address, waiting.join, now)
            if refusal is not None:
                self._register.refuse(waiting.link, refusal)
            else:
                self._take_in(*waiting, now)
            waiting = self._admission.next(now)
        if len(self._admission):
            self._alarm.set(now)

    def move(self, link: int, address: Address) -> None:
        """Who waits there is at another address by now; nothing if nobody does."""
        self._admission.move(link, address)

    def forget(self, link: int) -> None:
        """The link was lost: nobody waits there."""
        self._admission.discard(link)

    def close(self, message: Any) -> None:
        """Nobody is taken in any more: this is what all who wait are told."""
        for waiting in self._admission.all():
            self._admission.discard(waiting.link)
            self._register.refuse(waiting.link, message)

    def _too_many(self) -> messages.Busy:
        return messages.Busy(BUSY_MS + self._rng.randrange(BUSY_SPREAD_MS), "too many at once")

    def _refusal(self, address: Address, join: messages.Join, now: float) -> Any:
        """What to answer when this Join is not taken, else None."""
        fault = self._fault(join)
        if fault is not None:
            return messages.Busy(0, fault)
        if join.network_id == self._seat.network_id and join.term > self._seat.term:
            self._rivals.heal_soon(now)  # who rules in a later term?
            return messages.NotSupernode(self._seat.term, NOWHERE)
        if self._neighbours.is_going(now) or self._doubt.is_on(now):
            return self._too_many()  # come again: in a moment it is known who rules here, and whether anybody does
        return self._register.refusal(join.node_id, address[0])

    def _fault(self, join: messages.Join) -> Optional[str]:
        """Why nobody takes it in, now or later."""
        # An id is the hash of an opening that nobody shows but to join: who only saw an id cannot come under it.
        if join.node_id != node_id_of(join.opening) or join.node_id == self._seat.node_id:
            return "this node id is not yours"
        return name_fault(join.name)

    def _take_in(self, link: int, address: Address, join: messages.Join, now: float) -> None:
        """Enter it at every desk that must know of it, and welcome it."""
        if link != LOCAL_LINK:
            self._neighbours.come()
        # Both are asked before it is in the register, which then knows it.
        was_lost, is_new = self._witnesses.is_lost(address, now), join.node_id not in self._register
        line = self._register.take_in(link, address, join, now)
        self._witnesses.come(line, join, was_lost)
        if is_new:
            self._chat.enter(line.entry, now)
        # What it has seen is counted in its own network: from another one it has seen nothing of this chat.
        self._chat.come(line.entry, join.chat_seen if join.network_id == self._seat.network_id else 0)
        self._catalogue.come(line, now)
        welcome = messages.Welcome(
            self._seat.network_id, self._seat.term, self._seat.node_id, self._seat.secret, self._commitment,
            line.entry.order, self._register.version, self._chat.sequence,
        )  # fmt: skip
        self._register.send(line, welcome)
