"""The role that keeps the network together: roster, chat in one order, index of shares, search, handover.

One node has it at a time. Its own peer is a member like any other, reached over LOCAL_LINK.
Every message of a member comes over that member's own link: what it says about others is not heard.

Here is the role's table of contents: each message and each alarm, and the desk that sees to it. The desks are in
`protocol/ruling`, chat's order is in `protocol/membership/chat.py`; each owns its state, and none knows this class.

A supernode ends in one of four ways: `hand_over` (the person quits), going over to another supernode of its network,
met after a partition or after it had slept (which of the two goes: `protocol/ruling/rivals.py`), for a member that
reaches those whom it cannot (`protocol/ruling/succession.py`), or, if nobody ever joined it, when its peer has been
taken in by another network that it met at its port (`on_better`). While it is not sure that it still rules, it holds
its tongue.
"""

from __future__ import annotations

import hashlib
import math
import random
from typing import Any, Callable, Dict, Iterator, Optional

from protocol import messages
from protocol.credit import Credit
from protocol.fields import Address
from protocol.hearsay import Hearsay
from protocol.membership.chat import ChatOrder
from protocol.membership.contracts import Seat
from protocol.membership.promises import Promises
from protocol.membership.proofs import random_bytes
from protocol.membership.queries import HINT_INTERVAL, Prober
from protocol.messages import GONE, Answer
from protocol.network import Network
from protocol.ruling.alarm import TICK, Alarm
from protocol.ruling.beats import Beats
from protocol.ruling.bridging import is_bridge
from protocol.ruling.catalogue import Catalogue
from protocol.ruling.doubt import Doubt
from protocol.ruling.identifying import Identifying
from protocol.ruling.introducing import Introducing
from protocol.ruling.line import Line
from protocol.ruling.naming import Naming
from protocol.ruling.neighbours import Neighbours
from protocol.ruling.parting import Parting
from protocol.ruling.reaching import Reaching
from protocol.ruling.reception import Reception
from protocol.ruling.register import Register
from protocol.ruling.rivals import Rivals
from protocol.ruling.succession import better_one, successor_of
from protocol.ruling.whispering import Whispering
from protocol.ruling.witnesses import Witnesses

YIELDS_AFTER, YIELDS_UNTIL = 9.0, 120.0  # seconds from taking office: who has not come back by then may be unable to

_Handler = Callable[[Line, Any, float], None]


class Supernode:
    """The ruling supernode of one term, from become_supernode to handover or step-down."""

    def __init__(
        self,
        network: Network,
        rng: random.Random,
        seat: Seat,
        now: float,
        hearsay: Optional[Hearsay] = None,
        on_notice: Optional[Callable[[str], None]] = None,
        on_better: Optional[Callable[[Address, float], None]] = None,
        promises: Optional[Promises] = None,
        credit: Optional[Credit] = None,
    ) -> None:
        """`hearsay`, `promises` and `credit` are the node's.

        `on_better`: go there with the peer, a better network is there.
        """
        self.seat = seat
        self.term = seat.term
        self._network = network
        self._opening = random_bytes(rng, 32)  # shown only in the Handover
        commitment = hashlib.sha256(self._opening).digest()
        self._hearsay = Hearsay() if hearsay is None else hearsay
        promises = Promises() if promises is None else promises
        notice, go_over = on_notice or (lambda text: None), on_better or (lambda address, now: None)

        self._credit = credit = Credit(now) if credit is None else credit
        self._prober = prober = Prober(network, rng, self._hearsay, credit)
        self._waiting = alarm = Alarm()
        self.register = register = Register(network, seat, self._hearsay, self._departing, now)
        self.beats = Beats(network, register)
        self.chat = ChatOrder(seat.recent_chat, register.gather, alarm.set, seat.chat_counted)
        for line in register.lines():
            self.chat.enter(line.entry, now)
        self.naming = Naming(seat, register, self.chat.has_spoken, now)
        self.whispering = Whispering(register, self.chat)
        self.identifying = Identifying(network, register)
        self.reaching = Reaching(register, rng, seat.shut, now)
        self.introducing = Introducing(register, rng, self.reaching.is_shut)
        self.catalogue = Catalogue(register, self.introducing, alarm, now)
        self.doubt = doubt = Doubt(register, prober, now)
        self.witnesses = Witnesses(network, rng, seat, register, doubt, now)
        self.neighbours = Neighbours(seat, prober, credit, notice, go_over, now)
        self.rivals = Rivals(
            network, rng, seat, register, doubt, self.witnesses, prober, credit, promises, self.neighbours.tell,
            self.reaching.is_shut, now,
        )
        self.reception = Reception(
            seat, commitment, rng, register, self.chat, self.catalogue, doubt, self.witnesses, self.rivals,
            self.neighbours, alarm, now,
        )  # fmt: skip

        self._handlers = self._members_say()
        self._refused = self._members_say_again()
        self._lone_handlers = self._strangers_say()
        self._dropped = 0
        self._next_tick = now + TICK
        self._began, self._seen_by_six = now, seat.seen_by_six
        self._parting = Parting()

    # ---- contents: what is said

    def _members_say(self) -> Dict[Any, _Handler]:
        """What a member may say, and the desk that sees to it."""
        return {
            messages.Ping: self.register.on_ping,
            messages.Pong: self.register.on_pong,
            messages.Leave: self.register.on_leave,
            messages.SetMesh: self.register.on_set_mesh,
            messages.Guest: self.register.on_guest,
            messages.Claim: self.naming.on_claim,
            messages.Fingerprints: self.identifying.on_fingerprints,
            messages.RosterRequest: self._on_roster_request,
            messages.Say: self._on_say,
            messages.Whisper: self.whispering.on_whisper,
            messages.Heard: self.whispering.on_heard,
            messages.ShareDigest: self.catalogue.on_share_digest,
            messages.SharePage: self.catalogue.on_share_page,
            messages.ShareAdd: self.catalogue.on_share_add,
            messages.ShareRemove: self.catalogue.on_share_remove,
            messages.ListRequest: self.catalogue.on_ask,
            messages.Search: self.catalogue.on_ask,
            messages.Offer: self.catalogue.on_offer,
            messages.NotRelayed: self.catalogue.on_not_relayed,
            messages.Lost: self.witnesses.on_lost,
            messages.Places: self.introducing.on_places,
            messages.ReachWanted: self.reaching.on_wanted,
            messages.Tried: self.reaching.on_tried,
            messages.Reached: self.reaching.on_reached,
            messages.Beyond: self._on_beyond,
        }

    def _members_say_again(self) -> Dict[Any, _Handler]:
        """What found no room while in doubt, and has to come again."""
        return {
            messages.SetMesh: self.register.wish_mesh,
            messages.Say: self._on_say_refused,
            messages.ShareDigest: self.catalogue.want_shares_again,
            messages.SharePage: self.catalogue.want_shares_again,
            messages.ShareAdd: self.catalogue.want_shares_again,
            messages.ShareRemove: self.catalogue.want_shares_again,
        }

    def _strangers_say(self) -> Dict[Any, Callable[[Address, Any, float], None]]:
        return {
            messages.Stale: self.rivals.on_hint,
            messages.Prove: self.rivals.on_prove,
            messages.Proof: self.rivals.on_proof,
        }

    def on_hello(self, link: int, address: Address, join: messages.Join, now: float) -> None:
        """A Join, the first message on a link (or again on the same)."""
        self._wake(now)
        if self.has_ended:
            self.register.refuse(link, self._parting.farewell(self.term))
        elif self.identifying.is_anothers(join.node_id, link):
            self.register.refuse(link, messages.Busy(0, "this node id is not yours"))
        else:
            self.reception.on_join(link, address, join, now)

    def on_message(self, link: int, message: Any, now: float) -> None:
        """A member says something by its link: to its desk, if a member may say it, and once it is sure who is here."""
        self._wake(now)
        line = self.register.on_link(link)
        if line is None or self.has_ended:
            return
        line.hear(now, has_roster=type(message) is not messages.Claim)
        if self.doubt.has_held() and not self.doubt.is_on(now):
            self._release(now)  # nothing overtakes what was said before it
        handler = self._handlers.get(type(message))
        if handler is None or line.says_good_bye:
            self._dropped += 1  # not a member's to say (rosters, handovers, claims), or no more
        elif self.doubt.is_on(now) and type(message) not in (messages.Ping, messages.Pong):
            self._hold(line, message, now)
        else:
            handler(line, message, now)

    def on_link_moved(self, link: int, address: Address, now: float) -> None:
        """A member has another address, or one who waits to be taken in: all shall know where it is."""
        self._wake(now)
        self.reception.move(link, address)
        self.register.move(link, address, now)

    def on_link_lost(self, link: int, reason: str, now: float) -> None:
        """The link of a member, or of one who was about to become one; it has time to come back."""
        self._wake(now)
        self._parting.lose_link(link)
        self._parting.check(now)
        self.reception.forget(link)
        self.register.lose_link(link, now)

    # ---- contents: what comes without a link

    def on_lone(self, address: Address, message: Any, now: float) -> bool:
        """Was it for the supernode: an Answer to a Query of its own, a hint, or about heirs?"""
        self._wake(now)
        if isinstance(message, Answer):
            return self._on_answer(address, message, now)
        if isinstance(message, messages.Query):
            self.on_asked(address, message, now)
        handler = self._lone_handlers.get(type(message))
        if handler is not None and not self.has_ended:
            handler(address, message, now)
        return handler is not None

    def on_asked(self, address: Address, query: messages.Query, now: float) -> None:
        """Somebody asks who is here, or at the door."""
        if not self._prober.is_own(query.nonce):
            self._credit.earn_by_query(address, self.register.own_name_size())
            self.neighbours.on_asked(address, now)

    def _on_answer(self, address: Address, answer: Answer, now: float) -> bool:
        """Does it answer one of our own Queries?"""
        asked = self._prober.match(address, answer, now)
        if asked is None or asked.address is None:
            return False
        if self.has_ended or asked.purpose == "pay":
            return True
        if asked.is_broadcast and not self._hearsay.is_proven(asked.address, now):
            self._prober.ask(asked.address, "heal", now, HINT_INTERVAL)  # is it there that this comes from?
        elif answer.network_id != self.seat.network_id:
            self.neighbours.meet(asked.address, answer, now)
        elif self.rivals.is_winner(asked.address, answer, now):
            self._step_down(asked.address, answer, now)
        return True

    # ---- contents: time

    def on_timer(self, now: float) -> None:
        """What is due: in doubt after a sleep nothing but who is here, else silence, rivals, updates, and who waits."""
        self._wake(now)
        self._parting.check(now)
        if self.has_ended:
            return
        if self.doubt.is_on(now):
            self.doubt.on_timer(now)
            return
        self._release(now)
        self.register.tell_gathered(now)
        if now >= self._next_tick:
            self._next_tick = now + TICK
            self._look_at_members(now)
            self.neighbours.ask_back(now)
            self.neighbours.ask_neighbours(now)
            if YIELDS_AFTER <= now - self._began <= YIELDS_UNTIL and self._yield_to_who_reaches_more(now):
                return
        if now >= self.rivals.next_deadline():
            self.rivals.heal(now)
        if now >= self.register.next_deadline():
            self._flush(now)
        if self._waiting.rings(now):
            self.reception.serve(now)
            self.catalogue.serve(now)
            self.chat.serve(now)

    def next_deadline(self) -> float:
        """When `on_timer` wants to be called."""
        if self.has_ended:
            return self._parting.next_deadline()
        if self.doubt.next_deadline() < math.inf:
            return self.doubt.next_deadline()
        register = self.register
        return min(
            self._next_tick, self.rivals.next_deadline(), register.next_deadline(), register.gathered_deadline(),
            self._waiting.at,
        )  # fmt: skip

    def _wake(self, now: float) -> None:
        """Something happens; it may be the first after a sleep."""
        if self.doubt.has_slept(now) and not self.has_ended:
            self.doubt.begin(now)

    def _look_at_members(self, now: float) -> None:
        self.register.on_tick(now)
        for line in self.register.lines():
            self.register.switch_mesh(line, now)
            self.catalogue.want_shares(line, now)
            self.beats.look(line, now)
            self.register.check(line, now)
        self.catalogue.ask_for_what_found_no_room()
        self.reaching.on_tick(now)

    # ---- questions

    def __len__(self) -> int:
        return len(self.register)

    @property
    def has_ended(self) -> bool:
        """Does it rule no longer?"""
        return self._parting.has_begun

    @property
    def dropped(self) -> int:
        """Messages refused: over a limit, or not the sender's to say."""
        desks = (
            self.register, self.chat, self.whispering, self.catalogue, self.witnesses, self.rivals, self.reaching,
            self.identifying,
        )  # fmt: skip
        return self._dropped + sum(desk.dropped for desk in desks)

    def owns(self, link: int) -> bool:
        """Is this the link of a member (LOCAL_LINK included once its peer joined), or was it until just now?"""
        return self.register.on_link(link) is not None or self._parting.is_awaiting(link) or link in self.reception

    def linked_count(self) -> int:
        """Links with members; the own peer is none."""
        return self.register.linked_count()

    def heard_ago(self, node_id: bytes, now: float) -> Optional[float]:
        """Seconds since that member gave a sign; None for one who is not here."""
        return self.register.heard_ago(node_id, now)

    def round_trip(self, node_id: bytes) -> Optional[float]:
        """Seconds, as that member measured it last; None if it is not here or has not yet."""
        return self.register.round_trip(node_id)

    # ---- between two desks

    def _on_say(self, line: Line, say: messages.Say, now: float) -> None:
        echo = self.chat.on_say(line.node_id, say, now)
        if echo is not None and line.link is not None and self.register.may_ask(line, now):
            self.register.tell_waiting()  # by the echo's place it counts all before it as heard
            self.register.send(line, echo)

    def _on_say_refused(self, line: Line, say: messages.Say, now: float) -> None:
        self.chat.refuse(line.node_id, say.counter)

    def _on_roster_request(self, line: Line, request: messages.RosterRequest, now: float) -> None:
        if self.register.wants_roster(line, now):
            self.chat.skip(line.node_id)

    def _news_for(self, line: Line) -> Iterator[Any]:
        """What a newcomer is told beside the roster."""
        yield from self.witnesses.news()
        yield from self.chat.missed(line.node_id)
        yield from self.beats.news(line)

    def _flush(self, now: float) -> None:
        """Tell all who came and who left; what these are called, before that."""
        self.naming.give(now)
        for message in self.naming.news(now):
            self.register.broadcast(message)
        self.register.flush(now, self._news_for, lambda: self.naming.all(now))

    def _departing(self, line: Line, how: int, now: float) -> None:
        """The register is about to take out this line: the other desks let go of its member, too."""
        self.naming.depart(line, how, now)
        self.identifying.forget(line.node_id)
        self.chat.leave(line.node_id)
        self.catalogue.forget(line.node_id)
        self.introducing.forget(line.node_id)
        self.reaching.forget(line.node_id)
        if how == GONE:
            self.witnesses.lose(line)

    def _hold(self, line: Line, message: Any, now: float) -> None:
        """Keep it until the doubt is over; what finds no room for it is to be said again."""
        for other, refused in self.doubt.hold(line, message):
            self._dropped += 1
            say_again = self._refused.get(type(refused))
            if say_again is not None:
                say_again(other, refused, now)

    def _release(self, now: float) -> None:
        """There is no doubt, or no more: go on with what was held."""
        for line, message in self.doubt.release():
            self._handlers[type(message)](line, message, now)

    # ---- the end

    def hand_over(self, now: float, done: Callable[[], None]) -> None:
        """Planned leave: Handover to all; done() when it is delivered to everyone, at the latest after 2 s."""
        self._parting.when_over(done)
        if not self.has_ended:
            self._flush(now)
            successor = None if self.doubt.is_on(now) else successor_of(self.register, self.introducing, now)
            if successor is not None:
                self.register.broadcast(messages.Handover(self.term + 1, successor.node_id, self._opening))
            self._end(successor.entry.place if successor is not None else None, now)
        self._parting.check(now)

    def _yield_to_who_reaches_more(self, now: float) -> bool:
        """Does another one rule from now on, whom also those reach that this node misses?"""
        successor = better_one(self.register, self.introducing, self._seen_by_six, now)
        if successor is None or self.register.own is None:
            return False
        self._yield_to(successor, now)
        return True

    def _on_beyond(self, line: Line, message: messages.Beyond, now: float) -> None:
        """Somebody does not get here whom this member could take in: then it is to rule."""
        own, told = self.register.own, self.introducing.places_of
        if own is None or line.is_own or line.is_guest or not self.register.may_ask(line, now):
            return
        if self.reaching.is_open(line.node_id) and is_bridge(told(own.node_id), told(line.node_id), message.place):
            self._yield_to(line, now)

    def _yield_to(self, successor: Line, now: float) -> None:
        """As in a planned leave, but this node stays a member: its own peer follows as to a part of the network."""
        self._flush(now)
        self.register.broadcast(messages.Stays())
        self.register.broadcast(messages.Handover(self.term + 1, successor.node_id, self._opening), self.register.own)
        assert self.register.own is not None
        self.register.send(
            self.register.own, messages.Moved(self.term + 1, successor.entry.place, successor.node_id)
        )
        self._end(successor.entry.place, now)

    def _step_down(self, address: Address, winner: Answer, now: float) -> None:
        """Go over to another supernode of this network, with all members."""
        self.register.tell_last(messages.Moved(winner.term, address, winner.node_id))
        self._end(address, now)

    def _end(self, successor: Optional[Address], now: float) -> None:
        """Rule no longer: close all links, each after what was sent on it."""
        self._parting.begin(successor, now)
        self.reception.close(self._parting.farewell(self.term))
        self.doubt.drop_held()
        links = self.register.close()
        self._parting.await_end_of(links)
        for link in links:
            self._network.disconnect(link, "the supernode leaves")
