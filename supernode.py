"""The role that keeps the network together: roster, chat in one order, index of shares, search, handover.

One node has it at a time. Its own peer is a member like any other, reached over LOCAL_LINK.
Every message of a member comes over that member's own link: what it says about others is not heard.

A supernode ends in one of three ways: `hand_over` (the person quits), going over to another supernode of its network,
met after a partition or after it had slept (which of the two goes: `protocol/ruling/rivals.py`), or, if nobody ever
joined it, when its peer has been taken in by another network that it met at its port (`on_better`). While it is not
sure that it still rules, it holds its tongue.
"""

from __future__ import annotations

import hashlib
import math
import random
from typing import Any, Callable, Dict, Iterator, Optional, Set, Tuple

from protocol import messages, mishaps
from protocol.addresses import may_contact, seen_from
from protocol.fields import Address
from protocol.hearsay import Hearsay
from protocol.membership.chat import ChatOrder
from protocol.membership.contracts import Network, Seat
from protocol.membership.door import is_better
from protocol.membership.heirs import LOST_HEIRLOOMS_MAX, Heirlooms, heirloom_of, is_heir, marked
from protocol.membership.labels import name_fault
from protocol.membership.local_link import LOCAL_LINK
from protocol.membership.lost import LostPlaces
from protocol.membership.promises import Promises
from protocol.membership.proofs import is_proven, node_id_of, random_bytes
from protocol.membership.queries import HINT_INTERVAL, Prober
from protocol.membership.roster import TERM_STEP_MAX
from protocol.messages import (
    GONE,
    NO_NODE,
    NOWHERE,
    ROLE_MEMBER,
    ROLE_SUPERNODE,
    Answer,
)
from protocol.rates import Bucket
from protocol.ruling.alarm import TICK, Alarm
from protocol.ruling.catalogue import Catalogue
from protocol.ruling.credit import Credit
from protocol.ruling.doubt import Doubt
from protocol.ruling.newcomers import Admission, Waiting
from protocol.ruling.register import Line, Register
from protocol.ruling.rivals import Rivals, gives_way

log = mishaps.logger("supernode")

HEAL_INTERVAL = 10.0
HEAL_APART = 15.0  # seconds, at a place that has not answered lately (protocol/hearsay.py)
FIRST_HEAL = 1.0  # seconds from taking office to the first look at the latest: another may have taken it as well
LATEST_LOST, OTHER_LOST_ASKED = 16, 4  # places where another supernode is looked for, among these, and of all others
WITNESS_TIME = 15.0  # seconds that the word of a lost member counts; it is asked each 10
CLAIM_HEAL_GAP = 5.0  # seconds between two looks for those who were lost, however many claim to rule
UNSETTLED_AFTER = 60.0  # seconds until a person is told that another half of the network stays apart
PROVES_PER_SECOND, PROVES_BURST = 1.0, 4.0  # however many claim to rule
PROOFS_MAX = 16  # waited for
WITNESSED_MAX = 16  # other supernodes of the same network
HINTS_PER_SECOND = 0.5  # of all that were paid for
QUERY_SIZE = len(messages.encode(messages.Query(bytes(8))))
WANTED_SIZE = len(messages.encode(messages.Wanted(bytes(8), NOWHERE)))
STALE_SIZE = len(messages.encode(messages.Stale(0, NOWHERE)))
ANSWER_SIZE = 97  # at most, beside the name
HANDOVER_TIME = 2.0
ASK_BACK_AFTER = 2.0  # seconds: who asks may be about to join
GO_OVER_TIME = 6.0  # seconds for the other network to take this node in; who wants to join comes again after it
GO_OVER_AGAIN = 10.0  # until the next try, doubled with each: a stranger's empty promise keeps nobody away for long
OTHER_NETWORKS_TOLD_MAX = 16


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
    ) -> None:
        self.network = network
        self.rng = rng
        self.network_id = seat.network_id
        self.term = seat.term
        self.node_id = seat.node_id
        self._dropped = 0
        self._secret = seat.secret
        self._opening = random_bytes(rng, 32)  # shown only in the Handover
        self._commitment = hashlib.sha256(self._opening).digest()
        self._on_notice = on_notice or (lambda text: None)
        self._known_supernodes = list(seat.known_supernodes)
        self._search_port = seat.search_port
        self._hearsay = Hearsay() if hearsay is None else hearsay
        self._prober = Prober(network, rng, self._hearsay)
        self.register = Register(network, seat, self._hearsay, self._departing, now)
        self._lost_places = LostPlaces(seat.lost_places)
        self._heirlooms = Heirlooms(seat.heirlooms)
        self._lost_heirlooms = Heirlooms(limit=LOST_HEIRLOOMS_MAX)
        self._proofs: Dict[bytes, Tuple[Address, bytes]] = {}  # nonce of a Prove -> where it went, who claims to rule
        self._proves = Bucket(PROVES_PER_SECOND, PROVES_BURST, now)
        self._obeyed_by_lost: Dict[bytes, float] = {}  # another supernode -> when one of the lost last named it
        self.doubt = Doubt(self.register, self._prober, now)
        self._waiting = Alarm()
        self.chat = ChatOrder(seat.recent_chat, self.register.broadcast, self._waiting.set)
        for line in self.register.lines():
            self.chat.enter(line.entry, now)
        self.catalogue = Catalogue(self.register, self._waiting, now)
        self._credit = Credit()
        self._rivals = Rivals()
        self._promises = Promises() if promises is None else promises
        self._promises.rules_again(now)
        self._hints = Bucket(HINTS_PER_SECOND, 2.0, now)
        self._admission = Admission(now)
        self._next_tick = now + TICK
        self.is_lone = seat.term == 1 and len(seat.members) == 1  # nobody ever joined it
        self._on_better = on_better or (lambda address, now: None)
        self._meetings: Dict[bytes, int] = {}  # with other networks, while it is lone
        self._asked_by: Optional[Tuple[Address, float]] = None  # the first since the last look, and when
        self._going_until = -math.inf
        self._go_again_at, self._go_again_after = -math.inf, GO_OVER_AGAIN
        self._next_heal = now + rng.random() * FIRST_HEAL
        self._healed_at = -math.inf
        self._successor: Optional[Address] = None  # where this one's members are sent when it no longer rules
        self._done: Optional[Callable[[], None]] = None
        self._leaving: Set[int] = set()
        self._leave_by = math.inf
        self._told_networks: Set[bytes] = set()
        self.has_ended = False
        self._handlers: Dict[Any, Callable[[Line, Any, float], None]] = {
            messages.Ping: self.register.on_ping,
            messages.Pong: self.register.on_pong,
            messages.Leave: self.register.on_leave,
            messages.Lost: self._on_lost,
            messages.SetMesh: self.register.on_set_mesh,
            messages.RosterRequest: self._on_roster_request,
            messages.Say: self._on_say,
            messages.ShareDigest: self.catalogue.on_share_digest,
            messages.SharePage: self.catalogue.on_share_page,
            messages.ShareAdd: self.catalogue.on_share_add,
            messages.ShareRemove: self.catalogue.on_share_remove,
            messages.ListRequest: self.catalogue.on_ask,
            messages.Search: self.catalogue.on_ask,
            messages.Offer: self.catalogue.on_offer,
            messages.NotRelayed: self.catalogue.on_not_relayed,
        }
        self._refused: Dict[Any, Callable[[Line, Any, float], None]] = {  # what found no room in doubt
            messages.Say: self._on_say_refused,
            messages.SetMesh: self.register.wish_mesh,
            messages.ShareDigest: self.catalogue.want_shares_again,
            messages.SharePage: self.catalogue.want_shares_again,
            messages.ShareAdd: self.catalogue.want_shares_again,
            messages.ShareRemove: self.catalogue.want_shares_again,
        }

    # ---- questions ------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.register)

    @property
    def dropped(self) -> int:
        """Messages refused: over a limit, or not the sender's to say."""
        return self._dropped + self.register.dropped + self.chat.dropped + self.catalogue.dropped

    def owns(self, link: int) -> bool:
        """Is this the link of a member (LOCAL_LINK included once its peer joined), or was it until just now?"""
        return self.register.on_link(link) is not None or link in self._leaving or link in self._admission

    def is_in_doubt(self, now: float) -> bool:
        return self.doubt.is_on(now)

    def heard_ago(self, node_id: bytes, now: float) -> Optional[float]:
        """Seconds since that member gave a sign; None for one who is not here."""
        return self.register.heard_ago(node_id, now)

    def linked_count(self) -> int:
        """Links with members; the own peer is none."""
        return self.register.linked_count()

    def round_trip(self, node_id: bytes) -> Optional[float]:
        """Seconds, as that member measured it last; None if it is not here or has not yet."""
        return self.register.round_trip(node_id)

    # ---- admission ------------------------------------------------------------------------------------------------

    def on_hello(self, link: int, address: Address, join: messages.Join, now: float) -> None:
        """A Join, the first message on a link (or again on the same)."""
        self._watch_sleep(now)
        if self.has_ended:
            self.register.refuse(link, messages.NotSupernode(self.term, self._successor or NOWHERE))
            return
        refusal = self._refusal(link, address, join, now)
        if refusal is not None:
            self.register.refuse(link, refusal)
        elif link == LOCAL_LINK:
            self._take_in(link, address, join, now)
        elif not self._admission.admits(address[0], not self.register.is_known(join.node_id), now):
            self.register.refuse(link, self._too_many())
        elif self._admission.has_turn(address[0], now):
            self._take_in(link, address, join, now)
        else:
            self._put_off(Waiting(link, address, join), now)

    def _put_off(self, waiting: Waiting, now: float) -> None:
        loser = self._admission.put_off(waiting)
        if loser is not None:
            self.register.refuse(loser.link, self._too_many())
        self._waiting.set(now)

    def _take_in_waiting(self, now: float) -> None:
        """Those who have their turn by now, if nothing has come between."""
        waiting = self._admission.next(now)
        while waiting is not None:
            refusal = self._refusal(*waiting, now)
            if refusal is not None:
                self.register.refuse(waiting.link, refusal)
            else:
                self._take_in(*waiting, now)
            waiting = self._admission.next(now)
        if len(self._admission):
            self._waiting.set(now)

    def _too_many(self) -> messages.Busy:
        return messages.Busy(500 + self.rng.randrange(1500), "too many at once")

    def _take_in(self, link: int, address: Address, join: messages.Join, now: float) -> None:
        self.is_lone = self.is_lone and link == LOCAL_LINK
        was_lost, is_new = self._is_lost(address, now), join.node_id not in self.register
        line = self.register.take_in(link, address, join, now)
        line.recall(was_lost, heirloom_of(join.node_id, join.opening, self.network_id))
        self._lost_heirlooms.discard(join.node_id)
        self._lost_places.discard(line.entry.place)
        if is_new:
            self.chat.enter(line.entry, now)
        self.chat.come(line.entry, join.chat_seen if join.network_id == self.network_id else 0)
        self.catalogue.come(line, now)
        self.register.send(line, self._welcome(line))

    def _refusal(self, link: int, address: Address, join: messages.Join, now: float) -> Any:
        """What to answer when this Join is not taken, else None."""
        if link == LOCAL_LINK:
            return None
        if join.node_id != node_id_of(join.opening) or join.node_id == self.node_id:
            return messages.Busy(0, "this node id is not yours")
        fault = name_fault(join.name)
        if fault is not None:
            return messages.Busy(0, fault)
        if join.network_id == self.network_id and join.term > self.term:
            self._heal_soon(now)  # who rules in a later term?
            return messages.NotSupernode(self.term, NOWHERE)
        is_going = self.is_lone and now < self._going_until  # it would be left alone here
        if is_going or self.is_in_doubt(now):
            return self._too_many()
        return self.register.refusal(join.node_id, address[0])

    def _welcome(self, line: Line) -> messages.Welcome:
        return messages.Welcome(
            self.network_id, self.term, self.node_id, self._secret, self._commitment,
            line.entry.order, self.register.version, self.chat.sequence,
        )  # fmt: skip

    def _departing(self, line: Line, how: int) -> None:
        """The register is about to take out this line: the other desks let go of its member, too."""
        self.chat.leave(line.node_id)
        self.catalogue.forget(line.node_id)
        if how == GONE:
            self._lost_places.add(line.entry.place)
            self._lost_heirlooms.add(line.heirloom)

    def _news_for(self, line: Line) -> Iterator[Any]:
        """What a newcomer is told beside the roster."""
        if self._lost_places:
            yield messages.Lost(tuple(self._lost_places.latest(messages.LOST_TOLD_MAX)))
        yield messages.Heirs(self._heirlooms.all())
        yield from self.chat.missed(line.node_id)

    # ---- messages of members --------------------------------------------------------------------------------------

    def on_message(self, link: int, message: Any, now: float) -> None:
        self._watch_sleep(now)
        line = self.register.on_link(link)
        if line is None or self.has_ended:
            return
        line.hear(now)
        if self.doubt.has_held() and not self.is_in_doubt(now):
            self._release(now)  # nothing overtakes what was said before it
        if type(message) not in self._handlers or line.says_good_bye:
            self._dropped += 1  # not a member's to say (rosters, handovers, claims), or no more
        elif self.is_in_doubt(now) and type(message) not in _ANSWERED_IN_DOUBT:
            self._hold(line, message, now)
        else:
            self._handlers[type(message)](line, message, now)

    def _hold(self, line: Line, message: Any, now: float) -> None:
        """Keep it until the doubt is over. What finds no room is said again: its owner sees to it."""
        for other, refused in self.doubt.hold(line, message):
            self._dropped += 1
            owner = self._refused.get(type(refused))
            if owner is not None:
                owner(other, refused, now)

    def _release(self, now: float) -> None:
        """The doubt is over: go on with what was held."""
        for line, message in self.doubt.release():
            self._handlers[type(message)](line, message, now)

    def _on_say_refused(self, line: Line, say: messages.Say, now: float) -> None:
        self.chat.refuse(line.node_id, say.counter)

    def _on_roster_request(self, line: Line, request: messages.RosterRequest, now: float) -> None:
        if self.register.wants_roster(line, now):
            self.chat.skip(line.node_id)

    def _on_say(self, line: Line, say: messages.Say, now: float) -> None:
        echo = self.chat.on_say(line.node_id, say, now)
        if echo is not None and line.link is not None and self.register.may_ask(line, now):
            self.register.send(line, echo)

    # ---- lost members, time ---------------------------------------------------------------------------------------

    def on_link_lost(self, link: int, reason: str, now: float) -> None:
        self._watch_sleep(now)
        self._leaving.discard(link)
        self._check_leaving(now)
        self._admission.discard(link)
        self.register.lose_link(link, now)

    def on_timer(self, now: float) -> None:
        self._watch_sleep(now)
        self._check_leaving(now)
        if self.has_ended:
            return
        if self.is_in_doubt(now):
            self.doubt.on_timer(now)
            return
        self._release(now)
        if now >= self._next_tick:
            self._next_tick = now + TICK
            self._look_at_members(now)
            self._ask_back(now)
        if now >= self._next_heal:
            self._next_heal = now + HEAL_INTERVAL * (0.9 + 0.2 * self.rng.random())
            self._heal(now)
        if now >= self.register.next_deadline():
            self.register.flush(now, self._news_for)
        if self._waiting.rings(now):
            self._take_in_waiting(now)
            self.catalogue.serve(now)
            self.chat.serve(now)

    def next_deadline(self) -> float:
        if self.has_ended:
            return self._leave_by
        if self.doubt.next_deadline() < math.inf:
            return self.doubt.next_deadline()
        return min(self._next_tick, self._next_heal, self.register.next_deadline(), self._waiting.at)

    def _look_at_members(self, now: float) -> None:
        self.register.on_tick(now)
        for line in self.register.lines():
            self.register.switch_mesh(line, now)
            self.catalogue.want_shares(line, now)
            self.register.check(line, now)
        self.catalogue.ask_for_what_found_no_room()

    # ---- sleep, partition, step-down ------------------------------------------------------------------------------

    def _watch_sleep(self, now: float) -> None:
        if self.doubt.has_slept(now) and not self.has_ended:
            self.doubt.begin(now)

    def _heal(self, now: float) -> None:
        """Look for another supernode of this network: where one was, at members who are away, and by broadcast."""
        self._healed_at = now
        away = [line.entry.place for line in self.register.lines() if line.link is None]
        away += self._lost_places.latest(LATEST_LOST)
        places = self._known_supernodes[-8:] + self.rng.sample(away, min(8, len(away)))
        places += self._lost_places.some(OTHER_LOST_ASKED, self.rng)
        for place in dict.fromkeys(places):
            if place not in (self.network.address, NOWHERE):
                self._prober.ask(place, "heal", now, HEAL_APART)
        if self._search_port:
            self._prober.broadcast(self._search_port, "heal", now)

    def on_lone(self, address: Address, message: Any, now: float) -> bool:
        """True when this was an Answer to a Query of its own (or a hint for a supernode)."""
        self._watch_sleep(now)
        if type(message) is messages.Stale:
            self._on_hint(address, message, now)
            return True
        if type(message) is messages.Query:
            self.on_asked(address, message, now)
        handler = _LONE_HANDLERS.get(type(message))
        if handler is not None:
            handler(self, address, message, now)
            return True
        if type(message) is not Answer:
            return False
        asked = self._prober.match(address, message, now)
        if asked is None or asked.address is None:
            return False
        if self.has_ended or asked.purpose == "pay":
            return True
        if asked.is_broadcast and not self._hearsay.is_proven(asked.address, now):
            self._prober.ask(asked.address, "heal", now, HINT_INTERVAL)  # is it there that this comes from?
        else:
            self._on_answer(asked.address, message, now)
        return True

    def on_asked(self, address: Address, query: messages.Query, now: float) -> None:
        """Somebody asks who is here, or at the door."""
        if self._prober.is_own(query.nonce):
            return
        self._credit.earn(address, QUERY_SIZE - ANSWER_SIZE - self.register.own_name_size())
        if self.is_lone:
            self._asked_by = self._asked_by or (address, now)

    def _ask_back(self, now: float) -> None:
        """Who asked at this port may be of a network that is known by it, and that this lone one does not reach.

        It has asked twice by then, or a forged address would be sent more bytes than were spent on it.
        """
        if self._asked_by is not None and now >= self._asked_by[1] + ASK_BACK_AFTER:
            address, self._asked_by = self._asked_by[0], None
            if self.is_lone and may_contact(address, []) and self._is_paid_for(address, WANTED_SIZE, now):
                self._prober.ask_freely(address, "heal", now, (NOWHERE[0], self._search_port))

    def _on_hint(self, address: Address, stale: messages.Stale, now: float) -> None:
        """Somebody says that it rules in a later term: asked, once its address has sent as many bytes as that costs."""
        self._credit.earn(address, STALE_SIZE)
        near = [place[0] for place in self._known_supernodes]
        if stale.term >= self.term and may_contact(address, near) and self._is_paid_for(address, QUERY_SIZE, now):
            self._prober.ask_freely(address, "heal", now)

    def _is_paid_for(self, address: Address, size: int, now: float) -> bool:
        """May so many bytes go there because as many came from there? Then they are spent."""
        return self._credit.spend(address, size) and self._hints.take(now)

    def _on_answer(self, address: Address, answer: Answer, now: float) -> None:
        if answer.network_id != self.network_id:
            self._meet_other(address, answer, now)
            return
        is_believable = answer.node_id != self.node_id and answer.term <= self.term + TERM_STEP_MAX
        if not is_believable or not is_proven(answer, self._secret):
            self._dropped += 1
        elif answer.role == ROLE_SUPERNODE:
            self._meet(address, answer, now)
        elif answer.role == ROLE_MEMBER:
            self._hear_member(address, answer, now)

    def _hear_member(self, address: Address, answer: Answer, now: float) -> None:
        # Equal or lower terms, too: that supernode may know nobody on this side, and is to follow us.
        obeys_another = answer.supernode_id not in (NO_NODE, self.node_id)
        if obeys_another and self._is_lost(address, now):
            self._hear_witness(answer.supernode_id, now)
        if answer.term > self.term or obeys_another:
            self._prober.ask_hinted(seen_from(answer.supernode, address), "heal", [address[0]], now)
        if answer.term > self.term:
            return
        self.doubt.did_not_rule(answer.node_id, now)

    def _meet(self, address: Address, answer: Answer, now: float) -> None:
        """Another supernode of our network: one of the two gives way, as `rivals` has it."""
        line = self.register.get(answer.node_id)
        if line is not None and self._is_with_us(line, now):
            self._dropped += 1  # it follows us and claims to rule: a liar
            return
        is_newer = (-answer.term, answer.node_id) < (-self.term, self.node_id)
        is_of_us = self._is_lost(address, now) or self._rules_over_lost(answer.node_id, now)
        met_for = self._rivals.meet(answer.node_id, now)
        is_hollow = not self.linked_count() and not self._promises.may_follow(address[0], now)
        if not is_hollow and gives_way(is_newer, is_of_us, self.register.alone_for(now), met_for):
            self._step_down(address, answer, now)
            return
        if met_for > UNSETTLED_AFTER:
            self._tell_network(address, answer)
        if not is_of_us:
            self._ask_whose_heir(address, answer.node_id, now)
        if is_newer:
            self._dropped += 1
            self._heal_soon(now, CLAIM_HEAL_GAP)  # those whom we lost may know it
        else:
            self._prober.ask(address, "pay", now)  # so that it may ask us in turn
            self.network.send_lone(address, messages.encode(messages.Stale(self.term, NOWHERE)))

    def _is_with_us(self, line: Line, now: float) -> bool:
        """Does this member surely follow us? (Who has slept is not sure of anybody.)"""
        return line.link is not None and line.is_fresh(now) and not self.is_in_doubt(now)

    def _ask_whose_heir(self, address: Address, ruler: bytes, now: float) -> None:
        """All whom we lost may be gone by now; somebody whom they took in may rule."""
        if not self._proves.take(now):
            return
        if len(self._proofs) >= PROOFS_MAX:
            del self._proofs[next(iter(self._proofs))]
        nonce = random_bytes(self.rng, 8)
        self._proofs[nonce] = address, ruler
        self.network.send_lone(address, messages.encode(messages.Prove(nonce)))

    def _on_prove(self, address: Address, prove: messages.Prove, now: float) -> None:
        if not self.has_ended and self._proves.take(now):
            marks = marked(self._heirlooms.all(), prove.nonce, self.node_id)
            self.network.send_lone(address, messages.encode(messages.Proof(prove.nonce, marks)))

    def _on_proof(self, address: Address, proof: messages.Proof, now: float) -> None:
        asked, ruler = self._proofs.pop(proof.nonce, (NOWHERE, NO_NODE))
        is_unsure = self.is_in_doubt(now)
        silent = [line for line in self.register.lines() if is_unsure or not line.is_fresh(now)]
        lost = {line.entry.node_id: line.heirloom for line in silent if line.heirloom is not None}
        lost.update(self._lost_heirlooms.by_id())
        if asked == address and not self.has_ended and is_heir(proof.marks, proof.nonce, ruler, lost):
            self._hear_witness(ruler, now)
            self._prober.ask(address, "heal", now)

    def _is_lost(self, address: Address, now: float) -> bool:
        """Was somebody lost there in silence, or may have been, and nobody came back from there since?"""
        lines = [line for line in self.register.lines() if line.entry.place == address]
        if any(line.is_fresh(now) for line in lines) and not self.is_in_doubt(now):
            return False
        return bool(lines) or address in self._lost_places

    def _on_lost(self, line: Line, lost: messages.Lost, now: float) -> None:
        """Where the part of the network that this member comes back from lost others: they may rule a third part."""
        if not line.was_lost or not self.register.may_ask(line, now):
            self._dropped += 1
            return
        teller = line.entry.place
        told = [seen_from(place, teller) for place in lost.places]
        places = [place for place in told if may_contact(place, [teller[0]]) and not self._is_here(place)]
        for place in places:
            self._lost_places.add(place)
        own = self.register.own
        if places and own is not None:  # should this node step down in turn
            self.register.send(own, messages.Lost(tuple(places)))

    def _is_here(self, place: Address) -> bool:
        return any(line.entry.place == place and line.link is not None for line in self.register.lines())

    def _hear_witness(self, ruler: bytes, now: float) -> None:
        self._obeyed_by_lost.pop(ruler, None)
        if len(self._obeyed_by_lost) >= WITNESSED_MAX:
            del self._obeyed_by_lost[next(iter(self._obeyed_by_lost))]
        self._obeyed_by_lost[ruler] = now

    def _rules_over_lost(self, ruler: bytes, now: float) -> bool:
        return now - self._obeyed_by_lost.get(ruler, -math.inf) <= WITNESS_TIME

    def _heal_soon(self, now: float, gap: float = 1.0) -> None:
        self._next_heal = min(self._next_heal, max(now, self._healed_at + gap))

    def _step_down(self, address: Address, winner: Answer, now: float) -> None:
        if not self.linked_count():
            self._promises.follow(address[0], now)
        self.register.tell_last(messages.Moved(winner.term, address, winner.node_id))
        self._end(address, now)

    def _meet_other(self, address: Address, answer: Answer, now: float) -> None:
        """Somebody of another network. Nobody is moved by a stranger's word, unless there is nobody to move."""
        if not self.is_lone or answer.role != ROLE_SUPERNODE:
            if self.is_lone and answer.role == ROLE_MEMBER:
                self._prober.ask_hinted(seen_from(answer.supernode, address), "heal", [address[0]], now)
            self._tell_network(address, answer)
            return
        if len(self._meetings) < OTHER_NETWORKS_TOLD_MAX or answer.network_id in self._meetings:
            self._meetings[answer.network_id] = self._meetings.get(answer.network_id, 0) + 1
        if not is_better(answer, self.node_id, self._meetings.get(answer.network_id, 0)):
            self._tell_network(address, answer)
        elif now >= self._go_again_at:
            self._going_until = now + GO_OVER_TIME
            self._go_again_at = now + self._go_again_after
            self._go_again_after *= 2
            self._on_better(address, now)

    def _tell_network(self, address: Address, answer: Answer) -> None:
        if answer.role != ROLE_SUPERNODE or answer.network_id in self._told_networks:
            return
        if len(self._told_networks) < OTHER_NETWORKS_TOLD_MAX:
            self._told_networks.add(answer.network_id)
            place = "%s:%d" % address
            self._on_notice("another network is at %s (%s, %d nodes)" % (place, answer.name, answer.member_count))

    # ---- the end --------------------------------------------------------------------------------------------------

    def hand_over(self, now: float, done: Callable[[], None]) -> None:
        """Planned leave: Handover to all; done() when it is delivered to everyone, at the latest after 2 s."""
        self._done = done
        if not self.has_ended:
            self.register.flush(now, self._news_for)
            successor = None if self.is_in_doubt(now) else self.register.first_alive(now)
            if successor is not None:
                self.register.broadcast(messages.Handover(self.term + 1, successor.entry.node_id, self._opening))
            self._end(successor.entry.place if successor is not None else None, now)
        self._check_leaving(now)

    def _end(self, successor: Optional[Address], now: float) -> None:
        """Rule no longer: close all links, each after what was sent on it."""
        self.has_ended = True
        self._successor = successor
        for waiting in self._admission.all():
            self._admission.discard(waiting.link)
            self.register.refuse(waiting.link, messages.NotSupernode(self.term, successor or NOWHERE))
        links = self.register.close()
        self.doubt.drop_held()
        self._leaving = set(links)
        self._leave_by = now + HANDOVER_TIME
        for link in links:
            self.network.disconnect(link, "the supernode leaves")

    def _check_leaving(self, now: float) -> None:
        if self.has_ended and (not self._leaving or now >= self._leave_by):
            self._leaving.clear()
            self._leave_by = math.inf
            done, self._done = self._done, None
            if done is not None:
                done()


_LONE_HANDLERS: Dict[Any, Callable[[Supernode, Address, Any, float], None]] = {
    messages.Prove: Supernode._on_prove,
    messages.Proof: Supernode._on_proof,
}
_ANSWERED_IN_DOUBT = {messages.Ping, messages.Pong}
