"""The member's side of the network of nodes: who is here, who rules, and what to do when the ruler falls silent.

`Roster` is the table of members; `Membership` is the state machine that every node has:

    IDLE -> SEARCHING -> JOINING -> JOINED <-> SUSPECT -> ELECTING -> (JOINING | JOINED to its own supernode)
                                      |-> FOLLOWING (Handover, Moved) -> JOINED | ELECTING

Peer owns one Membership, hands it the events of the links that it `owns`, all lone datagrams, and its timer.
The supernode of this very node is reached over LOCAL_LINK with the same messages as any other.
Pure: no socket, no thread, no clock.
"""

from __future__ import annotations

import enum
import hashlib
import math
import random
from typing import Any, Callable, Dict, Optional, Protocol, Tuple

from protocol import messages
from protocol.addresses import may_contact
from protocol.fields import Address
from protocol.hearsay import Hearsay
from protocol.membership.answering import Answering
from protocol.membership.belonging import Bond, Silent
from protocol.lateness import SLEPT_AFTER
from protocol.membership.contracts import Network, Owner, Seat
from protocol.membership.door import Standing
from protocol.membership.failover import Gone, Inquiry, Succession, Suspicion, TakeOver
from protocol.membership.following import Following, Missed, Turn
from protocol.membership.joining import Attempt, Elsewhere, Entered, Failed
from protocol.membership.labels import name_fault
from protocol.membership.local_link import LOCAL_LINK, LocalSide
from protocol.membership.proofs import node_id_of, random_bytes, share_digest
from protocol.membership.queries import Prober
from protocol.membership.roster import PageError, Roster
from protocol.membership.searching import (
    NO_LAST_NETWORK,
    Ask,
    Found,
    LastNetwork,
    Looks,
    Nobody,
    Search,
    Waits,
)
from protocol.membership.story import Story
from protocol.membership.view import Means, View
from protocol.membership.voice import Voice
from protocol.messages import (
    NO_NETWORK,
    NO_NODE,
    NOWHERE,
    ROLE_ALONE,
    ROLE_MEMBER,
    ROLE_SUPERNODE,
    Answer,
    MemberEntry,
    encode_parts,
)

__all__ = ["LOCAL_LINK", "LocalSide", "Membership", "Network", "Owner", "Roster", "Seat", "State", "share_digest"]

WAITING = "the network is there, but its supernode gives no sign; waiting for who takes over ..."
WAITED_IN_VAIN = "The network is there, but its supernode gives no sign and nobody took over yet; try again soon."


class State(enum.Enum):
    IDLE = "not started"
    SEARCHING = "looking for a network"
    JOINING = "joining"
    JOINED = "joined"
    SUSPECT = "the supernode is silent"
    ELECTING = "no supernode"
    FOLLOWING = "following to a new supernode"
    LEFT = "left"


class Phase(Protocol):
    """What this node is about in one of the states."""

    def next_deadline(self) -> float: ...

    def on_timer(self, now: float) -> Any:
        """What it found, one of _FINDINGS; None: it goes on."""


Place = Tuple[State, Optional[Phase]]


class Membership:
    """This node as a member: search, join, follow, beat, suspect, fail over."""

    def __init__(self, network: Network, rng: random.Random, owner: Owner, name: str, mesh: bool = True) -> None:
        fault = name_fault(name)
        if fault is not None:
            raise ValueError(fault)
        self.network = network
        self.rng = rng
        self.owner = owner
        self.name = name
        self.mesh = mesh
        self._opening = random_bytes(rng, 16)
        self.node_id = node_id_of(self._opening)
        self._view = View(network, self.node_id, owner.own_addresses)
        self.dropped = 0  # messages that were not obeyed
        self.search_port = 0
        self.hearsay = Hearsay()
        self._prober = Prober(network, rng, self.hearsay)
        self._means = Means(network, rng, self._prober, self._view)
        self._bond = Bond(self._means, self)
        self._inquiry = Inquiry(self._means)
        self._turn = Turn(self._means)
        self._answering = Answering(self._means, owner.own_addresses, self._standing)
        self._chat = Voice(owner, self._view, self)
        self._story = Story(owner, self._view)
        self._looks = Looks(self._prober)
        self._set_state(State.IDLE, None)
        self._forget_network()

    def _forget_network(self, keeps_chat: bool = False) -> None:
        self._view.forget()
        if not keeps_chat:
            self._chat.forget_network()
        self._search: Optional[Search] = None
        self._inquiry.forget()
        self._attempt: Optional[Attempt] = None
        self._came_from: Place = State.IDLE, None  # to the present attempt
        self._story.forget()
        self._bond.forget()
        self._turn.drop()

    def _set_state(self, state: State, phase: Optional[Phase]) -> None:
        """From now on its phase says what is to be done, and when; there is none while nothing is."""
        self.state, self._phase = state, phase

    def _act_on(self, finding: Any, now: float) -> None:
        if finding is not None:
            _FINDINGS[type(finding)](self, finding, now)

    # ---- questions ------------------------------------------------------------------------------------------------

    @property
    def roster(self) -> Roster:
        return self._view.roster

    @property
    def network_id(self) -> bytes:
        return self._view.network_id

    @property
    def term(self) -> int:
        return self._view.term

    @property
    def supernode_id(self) -> Optional[bytes]:
        return self._view.supernode_id

    @property
    def supernode_link(self) -> Optional[int]:
        """LOCAL_LINK when this node rules; None while there is no supernode."""
        return self._view.supernode_link

    @property
    def supernode_address(self) -> Optional[Address]:
        return self._view.supernode_address

    @property
    def is_supernode(self) -> bool:
        return self._view.is_ruler

    @property
    def heard_at(self) -> float:
        """When the supernode last gave a sign."""
        return self._bond.heard_at

    @property
    def round_trip(self) -> Optional[float]:
        """Seconds, of the last Ping."""
        return self._bond.round_trip

    @property
    def is_joined(self) -> bool:
        """Is there a supernode to speak to? (One that is merely suspected still counts.)"""
        return self.state in (State.JOINED, State.SUSPECT) and self.supernode_link is not None

    @property
    def is_merging(self) -> bool:
        """Did the supernode step down for another one of our network?"""
        return self._story.is_merging

    def label_of(self, node_id: bytes, name: str = "") -> str:
        return self.roster.label_of(node_id, name)

    def place_of(self, node_id: bytes) -> Optional[Address]:
        """Where to contact this member, or None when it is unknown or must not be contacted."""
        return self._view.place_of(node_id)

    def seen_place(self, node_id: bytes) -> Optional[Address]:
        """Where the roster means this member to be, as seen from here; None when it is unknown."""
        return self._view.seen_place(node_id)

    def last_network(self) -> LastNetwork:
        """What a later run of this node needs in order to find this network again."""
        return self._view.last_network()

    def owns(self, link: int) -> bool:
        return link == self.supernode_link or self._is_attempt(link)

    # ---- verbs ----------------------------------------------------------------------------------------------------

    def start(
        self, target: Optional[Address], search_port: int, now: float, last: LastNetwork = NO_LAST_NETWORK
    ) -> None:
        """Join at this address, or find a network (`last` helps with that); the owner hears on_outcome."""
        if self.state not in (State.IDLE, State.LEFT):
            raise ValueError("leave the present network first")
        self._forget_network()
        self.hearsay.begin_anew()
        self.search_port = search_port
        self._search = Search(
            self._prober, self.rng, self.node_id, self.network.address, self.owner.own_addresses(),
            target, search_port, now, last,
        )  # fmt: skip
        self._set_state(State.SEARCHING, self._search)
        self._act_on(self._search.on_timer(now), now)

    def look_at(self, address: Address, now: float, done: Callable[[bool], None]) -> None:
        """Is there a supernode, or a member who names one? done(True or False) within 1.5 s."""
        self._looks.look_at(address, now, done)

    def leave(self, now: float) -> None:
        """Say good-bye and forget the network; a Supernode of this node has handed over before."""
        if self.supernode_link not in (None, LOCAL_LINK):
            self.network.send(self.supernode_link, *encode_parts(messages.Leave()))
            self.network.disconnect(self.supernode_link, "leaving")
        self._drop_attempt("leaving")
        self._forget_network()
        self._set_state(State.LEFT, None)

    def say(self, text: str, now: float) -> bool:
        """Chat; False when too much waits already, the line is too long, or there is no network to say it in.

        What is taken is said again until it comes back; the owner hears on_unsaid of what never did.
        """
        return self.state not in (State.IDLE, State.LEFT) and self._chat.say(text, now)

    def finish_saying(
        self, patience: float, at_most: float, now: float, then: Callable[[], None], left: int = 0
    ) -> None:
        """`then()` when all but `left` lines are confirmed, none was for `patience` seconds, or after `at_most`."""
        self._chat.finish(patience, at_most, now, then, left)

    def set_mesh(self, on: bool, now: float) -> None:
        self.mesh = on
        self.send_to_supernode(messages.SetMesh(on))

    def send_to_supernode(self, message: Any) -> bool:
        """False when there is none at present; then ask again at on_joined."""
        if not self.is_joined:
            return False
        assert self.supernode_link is not None
        self.network.send(self.supernode_link, *encode_parts(message))
        return True

    # ---- events ---------------------------------------------------------------------------------------------------

    def on_link_up(self, link: int, address: Address, incoming: bool, now: float) -> None:
        if self._attempt is not None and link == self._attempt.link:
            self.hearsay.on_answer(self._attempt.address, now)  # on this machine the link may show another one
            self._send_join(link)

    def on_link_lost(self, link: int, reason: str, now: float) -> None:
        self._watch_sleep(now)
        if self._attempt is not None and link == self._attempt.link:
            self._on_failed(self._attempt.on_link_lost(reason), now)
        elif link == self.supernode_link and link != LOCAL_LINK:
            self._view.lose_link()
            if self.state == State.JOINED:
                self._suspect(now)
            self._story.on_lost(now)

    def on_message(self, link: int, message: Any, now: float) -> bool:
        """False: not about membership or chat, so it is Peer's (searches, offers, list pages ...)."""
        self._watch_sleep(now)
        if link == self.supernode_link:
            self._heard_link(now)
        if self._attempt is not None and self._is_attempt(link):
            self._on_attempt_message(self._attempt, message, now)
            return True
        handler = _HANDLERS.get(type(message))
        if handler is not None:
            handler(self, message, now)
        return handler is not None or type(message) in _NOT_FOR_PEER or not self.is_joined

    def _on_attempt_message(self, attempt: Attempt, message: Any, now: float) -> None:
        if type(message) is messages.Moved:
            self._on_moved_early(message, now)
        else:
            self._act_on(attempt.on_message(message, now), now)

    def _is_attempt(self, link: int) -> bool:
        return self._attempt is not None and link == self._attempt.link

    def on_stray_join(self, link: int, now: float) -> None:
        """Somebody takes this node for the supernode, or has come to its door: say who is."""
        self._answering.send_on(link, self.search_port, now)

    def on_lone(self, address: Address, message: Any, now: float) -> None:
        self._watch_sleep(now)
        if type(message) is Answer:
            self._on_answer(address, message, now)
        elif self._answering.is_question(address, message, self.search_port):
            self._answering.answer(address, message, now)

    def on_door_lone(self, address: Address, message: Any, now: float) -> None:
        """A datagram that came to the door, the port at which people look for the network."""
        self._watch_sleep(now)
        if self._answering.is_question(address, message, self.search_port):
            self._answering.answer_at_door(address, message, self.search_port, now)

    def _on_answer(self, address: Address, answer: Answer, now: float) -> None:
        asked = self._prober.match(address, answer, now)
        if asked is None or asked.address is None:
            self.dropped += 1
        elif isinstance(asked.purpose, Ask):
            self._on_search_answer(asked.address, answer, asked.purpose, now)
        else:
            _ANSWER_HANDLERS[asked.purpose](self, asked.address, answer, now)

    def _standing(self, now: float) -> Standing:
        """What this node is, as it tells others."""
        role = ROLE_ALONE
        if self.is_supernode:
            role = ROLE_SUPERNODE if self.owner.is_ruling else ROLE_ALONE  # while it hands over, nobody may come to it
        elif self.network_id != NO_NETWORK:
            role = ROLE_MEMBER
        obeys = self.supernode_id if self.is_joined and self.supernode_id is not None else NO_NODE
        is_known = self.is_joined and not self.is_supernode
        place = self.supernode_address if is_known else None
        return Standing(
            self.network_id, self.term, self.node_id, role, obeys, place or NOWHERE,
            now - self.heard_at, len(self.roster), self.name,
        )  # fmt: skip

    def on_timer(self, now: float) -> None:
        self._watch_sleep(now)
        self._looks.on_timer(now)
        if self._phase is not None and now >= self._phase.next_deadline():
            self._act_on(self._phase.on_timer(now), now)
        self._chat.on_timer(now)

    def _watch_sleep(self, now: float) -> None:
        """Were we late by more than a moment? Then nothing that we found out before counts."""
        if now > self._wake_at() + SLEPT_AFTER:
            self._inquiry.election.on_sleep()
            if isinstance(self._phase, Search):
                self._phase.begin_anew(now)
            if isinstance(self._phase, (Suspicion, Succession)):
                self._turn.drop()
                self._suspect(now)

    def _wake_at(self) -> float:
        return math.inf if self._phase is None else self._phase.next_deadline()

    def next_deadline(self) -> float:
        return min(self._wake_at(), self._chat.next_deadline(), self._looks.next_deadline())

    # ---- searching ------------------------------------------------------------------------------------------------

    def _on_waits(self, waits: Waits, now: float) -> None:
        self.owner.on_notice(WAITING)

    def _on_found(self, found: Found, now: float) -> None:
        search = self._phase
        if isinstance(search, Search) and search.target is not None and search.has_moved(found.address):
            places = (*search.target, *found.address)
            self.owner.on_notice("nobody answers at %s:%d; the network that was there is at %s:%d now" % places)
        self._join(found.address, (self.state, self._phase), now)

    def _on_nobody(self, nobody: Nobody, now: float) -> None:
        """Nobody answered: this node founds a network, if it stands where people look for one."""
        search = self._search
        assert search is not None
        if search.has_waited and self.network.address[1] != self.search_port:
            self._end_search("refused", search.target, WAITED_IN_VAIN, now)  # a member has the port
        elif search.target is None or self.owner.can_serve_at(search.target[0]):
            self._found_network(now)
        else:
            hint = search.hint
            text = "" if hint is None else "%s's network is at %s:%d" % (hint.name, *hint.address)
            self._end_search("nobody", search.target if hint is None else hint.address, text, now)

    def _on_search_answer(self, address: Address, answer: Answer, purpose: Ask, now: float) -> None:
        if isinstance(self._phase, Search):
            self._phase.on_answer(address, answer, purpose, now)
            self._act_on(self._phase.on_timer(now), now)

    def _end_search(self, kind: str, address: Optional[Address], text: str, now: float) -> None:
        self._forget_network()
        self._set_state(State.IDLE, None)
        self.owner.on_outcome(kind, address, text, now)

    def _on_look_answer(self, address: Address, answer: Answer, now: float) -> None:
        self._looks.on_answer(address, answer)

    # ---- ruling ---------------------------------------------------------------------------------------------------

    def _found_network(self, now: float) -> None:
        network_id, secret = random_bytes(self.rng, 16), random_bytes(self.rng, 16)
        self._view.found(network_id, secret, MemberEntry(self.node_id, self.name, NOWHERE, 0, self.mesh, True))
        self._promote(1, now)

    def _promote(self, term: int, now: float) -> None:
        """Become the supernode: the owner makes one, and this node joins it as any other would."""
        seat = self._view.seat(term, self._opening, self.mesh, self._chat.recent(), self.search_port)
        self._drop_attempt("taking over")
        self._view.rule(term)
        self._came_from = self.state, self._phase
        self._attempt = Attempt(self._means, self.network.address, now, self._since(), link=LOCAL_LINK)
        self._set_state(State.JOINING, self._attempt)
        self.owner.become_supernode(seat, now)
        self._send_join(LOCAL_LINK)

    # ---- joining --------------------------------------------------------------------------------------------------

    def _join(self, address: Address, origin: Place, now: float, hops: int = 0) -> None:
        """Try to join there; should it fail, this node goes back to the origin."""
        self._drop_attempt("trying elsewhere")
        self._drop_link("joining anew")
        self._came_from = origin
        is_search = origin[0] is State.SEARCHING
        self._attempt = Attempt(self._means, address, now, self._since(), hops, is_search)
        self._set_state(State.JOINING, self._attempt)
        self._act_on(self._attempt.dial(self.hearsay, now), now)

    def _since(self) -> float:
        """Since when has this node had no supernode?"""
        return self._search.since if self._search is not None else self.heard_at

    def go_over(self, address: Address, now: float) -> None:
        """This node rules, and nobody ever joined it: try the network there, and rule on until that has taken it in."""
        if self._attempt is None and self.is_supernode and self.state == State.JOINED:
            self._came_from = State.JOINED, None
            self._attempt = Attempt(self._means, address, now, now, is_to_another=True)
            self._set_state(State.JOINED, self._attempt)
            self._act_on(self._attempt.dial(self.hearsay, now), now)

    def _leave_own(self, now: float) -> None:
        """The other network has taken this node in: its own one, in which it was alone, is no more."""
        self.owner.on_notice("a network was here before; nobody had joined this node, so it goes there")
        self.owner.drop_supernode(now)
        self._forget_network(keeps_chat=True)
        self._chat.go_over()

    def _drop_attempt(self, reason: str) -> None:
        attempt, self._attempt = self._attempt, None
        if attempt is not None:
            attempt.give_up(reason)

    def _drop_link(self, reason: str) -> None:
        link = self._view.lose_link()
        if link not in (None, LOCAL_LINK):
            self.network.disconnect(link, reason)  # type: ignore[arg-type]

    def _send_join(self, link: int) -> None:
        come_from = self.network_id, self.term
        seen = self._chat.sequence
        if self._attempt is not None and self._attempt.is_to_another:
            come_from, seen = (NO_NETWORK, 0), 0
        join = messages.Join(*come_from, self.node_id, self._opening, self.name, self.mesh, seen)
        self.network.send(link, *encode_parts(join))

    def _on_elsewhere(self, elsewhere: Elsewhere, now: float) -> None:
        self._join(elsewhere.address, self._came_from, now, elsewhere.hops)

    def _enter(self, entered: Entered, now: float) -> None:
        """Welcome and roster are here: this node is a member."""
        welcome = entered.welcome
        if entered.is_other:
            self._leave_own(now)
        old_id = self.supernode_id
        before = self.roster.labels()
        self._view.enter(welcome, entered.link, entered.address, entered.entries, entered.version)
        self._attempt = None
        self._turn.drop()
        is_other = old_id not in (None, self.supernode_id) and not self.is_merging
        self._chat.on_entered(welcome, not self._story.was_joined, self.heard_at if is_other else math.inf)
        self._joined_again(now)
        self._tell_entered(old_id, before, now)

    def _on_lost(self, lost: messages.Lost, now: float) -> None:
        self._view.hear_of_lost(lost.places)

    def _on_heirs(self, heirs: messages.Heirs, now: float) -> None:
        for heirloom in heirs.heirlooms:
            self._view.heirlooms.add(heirloom)

    def _joined_again(self, now: float) -> None:
        self._set_state(State.JOINED, None if self.is_supernode else self._bond)
        self._inquiry.election.on_sign()
        self._inquiry.election.forget()
        self._bond.begin(now)

    def _tell_entered(self, old_id: Optional[bytes], before: Dict[bytes, str], now: float) -> None:
        is_first, self._search = not self._story.was_joined, None
        if self._story.is_unplanned(old_id):
            self._inquiry.on_unplanned_change(now)
        self._story.on_entered(old_id, before, now)
        lost = self._view.lost_places
        if not is_first and lost and not self.is_supernode:
            self.send_to_supernode(messages.Lost(tuple(lost.latest(messages.LOST_TOLD_MAX))))
        self.owner.on_joined(now)
        self._chat.speak(now)

    def _on_failed(self, failed: Failed, now: float) -> None:
        """Back to where this attempt came from."""
        attempt = self._attempt
        assert attempt is not None
        self.dropped += failed.is_false
        self._drop_attempt(failed.reason)
        if attempt.link == LOCAL_LINK:
            self._view.lose_link()
            self.owner.drop_supernode(now)
        state, phase = self._came_from
        if state is State.SEARCHING:
            if not failed.is_refusal and self._join_another(attempt.address, now):
                return
            has_waited = self._search is not None and self._search.has_waited
            self._end_search("refused", attempt.address, WAITED_IN_VAIN if has_waited else failed.reason, now)
        elif attempt.is_to_another:
            self._set_state(State.JOINED, None)  # it rules on
        elif isinstance(phase, (Following, Succession)):
            phase.pause(now)
            self._set_state(state, phase)
        else:
            self._suspect(now).pause(now)

    def _join_another(self, mute: Address, now: float) -> bool:
        """Who answered a search first, and then takes nobody in, is not the only one that answered."""
        search = self._search
        place = search.after(mute) if search is not None and search.target is None else None
        if place is not None:
            self._join(place, self._came_from, now)
        return place is not None

    # ---- as a member ----------------------------------------------------------------------------------------------

    def _heard_link(self, now: float) -> None:
        self._bond.on_heard_by_link(now)
        self._inquiry.election.on_sign()
        if isinstance(self._phase, Suspicion):
            self._trust_again(self._phase.next_deadline(), now)

    def _trust_again(self, at: float, now: float) -> None:
        """The supernode that was in doubt lives."""
        self._bond.go_on(at, now)
        self._set_state(State.JOINED, self._bond)

    def _on_silent(self, silent: Silent, now: float) -> None:
        self._suspect(now)

    def _on_met(self, address: Address, answer: Answer, now: float) -> None:
        """An heir is where the roster says: that it answered is all that was wanted."""

    def _on_pong(self, pong: messages.Pong, now: float) -> None:
        self._bond.on_pong(pong, now)
        if self.supernode_address is not None:
            self.hearsay.on_answer(self.supernode_address, now)

    def _on_ping(self, ping: messages.Ping, now: float) -> None:
        self.send_to_supernode(messages.Pong(ping.stamp, self.term))

    def _on_roster_page(self, page: messages.RosterPage, now: float) -> None:
        """A roster sent anew, because a version was missed."""
        try:
            changes = self._view.take_page(page)
        except PageError:
            self.dropped += 1
            return
        if changes is not None:
            self._story.on_changes(changes, now)

    def _on_roster_update(self, update: messages.RosterUpdate, now: float) -> None:
        if not self._view.is_news(update):
            self.dropped += 1
            return
        changes = self._view.take_update(update)
        if changes is None:
            self.send_to_supernode(messages.RosterRequest(self.roster.version))
        else:
            self._story.on_changes(changes, now)

    def _on_chat(self, chat: messages.Chat, now: float) -> None:
        self._chat.on_chat(chat, now)

    # ---- handover and step-down -----------------------------------------------------------------------------------

    def _on_handover(self, message: messages.Handover, now: float) -> None:
        """Only from the present supernode (this is its link), who alone can open the commitment."""
        is_genuine = hashlib.sha256(message.opening).digest() == self._view.commitment
        entry = self.roster.get(message.successor)
        if not is_genuine or message.term != self.term + 1 or entry is None or self.is_supernode:
            self.dropped += 1
            return
        self._story.on_goodbye(is_merging=False)
        self._view.hear_term(message.term)
        if message.successor == self.node_id:
            self._drop_link("following the handover")
            self._promote(message.term, now)
            return
        place = self.place_of(message.successor)
        self._follow_to(place or NOWHERE, message.successor, message.term, now)

    def _on_moved(self, message: messages.Moved, now: float) -> None:
        """Our supernode steps down for another one, mostly of a later term; unless it is our own, a query checks it."""
        place = message.supernode
        if self.is_supernode:  # it has ended, after a proven Answer from that place: nothing is left to doubt
            self._view.end_own_rule()
            self.owner.drop_supernode(now)
        else:
            place = self._view.seen_by_ruler(place)
            if not self._view.is_believable(message.term) or not may_contact(place, self._view.near()):
                self.dropped += 1
                return
        self._view.step_back_to(message.term)
        self._story.on_goodbye(is_merging=True)
        self._follow_to(place, message.node_id, message.term, now)

    def _on_moved_early(self, message: messages.Moved, now: float) -> None:
        """Our own supernode has met a better one before this node had even joined it."""
        if self.is_supernode:
            self._on_moved(message, now)

    def _follow_to(self, address: Address, node_id: bytes, term: int, now: float) -> None:
        self._drop_attempt("following")
        self._drop_link("following to the next supernode")
        following = Following(self._means, self._turn, address, node_id, term, now)
        self._set_state(State.FOLLOWING, following)
        self._story.on_lost(now)
        self._act_on(following.on_timer(now), now)

    def _on_missed(self, missed: Missed, now: float) -> None:
        self._elect(now)

    def _on_follow_answer(self, address: Address, answer: Answer, now: float) -> None:
        if isinstance(self._phase, Following) and self._is_trusted(answer):
            self._phase.on_answer(address, answer, now)

    # ---- suspicion and failover -----------------------------------------------------------------------------------

    def _suspect(self, now: float) -> Suspicion:
        """The supernode is silent or its link is lost."""
        suspicion = Suspicion(self._means, self._bond, self._inquiry, now)
        self._set_state(State.SUSPECT, suspicion)
        return suspicion

    def _on_gone(self, gone: Gone, now: float) -> None:
        self._story.on_gone(now - self.heard_at)
        self._view.lose_supernode()
        self._elect(now)

    def _elect(self, now: float) -> None:
        """The supernode is gone: find the one who takes over, or take over."""
        self._story.on_election()
        self._drop_attempt("the supernode is gone")
        self._drop_link("no sign of it")
        succession = Succession(self._means, self._inquiry, self._turn, now)
        self._set_state(State.ELECTING, succession)
        self._story.on_lost(now)
        self._act_on(succession.on_timer(now), now)

    def _on_take_over(self, found: TakeOver, now: float) -> None:
        """Rule in the next term; when liars have burnt them all, in a network of its own, where they begin anew."""
        if found.term is not None:
            self._promote(found.term, now)
        else:
            self._found_network(now)

    def _is_trusted(self, answer: Answer) -> bool:
        """Is this a member of our network? Whoever else says so is counted."""
        is_trusted = self._view.is_trusted(answer)
        self.dropped += not is_trusted
        return is_trusted

    def _on_poll_answer(self, address: Address, answer: Answer, now: float) -> None:
        """Somebody answered while we doubt our supernode (or after a hint)."""
        if self.network_id == NO_NETWORK or self.is_supernode or not self._is_trusted(answer):
            return
        self._view.hear_term(answer.term)
        is_ruling = answer.role == ROLE_SUPERNODE
        if is_ruling and answer.node_id == self.supernode_id and answer.term >= self.term:
            self._supernode_lives(now)
            return
        self._inquiry.on_answer(address, answer, isinstance(self._phase, (Suspicion, Succession)), now)
        if isinstance(self._phase, Succession):
            self._phase.on_answer(answer, now)

    def _supernode_lives(self, now: float) -> None:
        """It answered a probe: go on, or open a new link if ours is lost or stuck."""
        if not isinstance(self._phase, (Suspicion, Succession)):
            return
        self._bond.on_heard(now)
        self._inquiry.election.on_sign()
        if self._bond.is_stuck(now) and self.supernode_address is not None:
            self._join(self.supernode_address, (State.SUSPECT, None), now)
        elif isinstance(self._phase, Suspicion):
            self._trust_again(self._bond.next_beat, now)


_HANDLERS: Dict[Any, Callable[[Membership, Any, float], None]] = {
    messages.RosterPage: Membership._on_roster_page,
    messages.RosterUpdate: Membership._on_roster_update,
    messages.Ping: Membership._on_ping,
    messages.Pong: Membership._on_pong,
    messages.Handover: Membership._on_handover,
    messages.Moved: Membership._on_moved,
    messages.Chat: Membership._on_chat,
    messages.Lost: Membership._on_lost,
    messages.Heirs: Membership._on_heirs,
}
_FINDINGS: Dict[Any, Callable[[Membership, Any, float], None]] = {
    Found: Membership._on_found,
    Nobody: Membership._on_nobody,
    Waits: Membership._on_waits,
    Silent: Membership._on_silent,
    Missed: Membership._on_missed,
    Gone: Membership._on_gone,
    TakeOver: Membership._on_take_over,
    Entered: Membership._enter,
    Failed: Membership._on_failed,
    Elsewhere: Membership._on_elsewhere,
}
_NOT_FOR_PEER = {messages.Join, messages.Welcome, messages.NotSupernode, messages.Busy, messages.Stale}
_ANSWER_HANDLERS: Dict[str, Callable[[Membership, Address, Answer, float], None]] = {
    "look": Membership._on_look_answer,
    "poll": Membership._on_poll_answer,
    "follow": Membership._on_follow_answer,
    "meet": Membership._on_met,
}
