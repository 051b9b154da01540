"""The member's side of the network of nodes, as the Peer of this node has it.

`Membership` is what Peer asks and tells. It is made of the `View` of the network, the `Course` of this node through its
states, its `Ways` to the other members, the `Voice` in the chat, the `Story` that its person was told, and what it is
`Answering` to others; each is in a file of its own name beside this one.

Peer owns one Membership, hands it the events of the links that it `owns`, all lone datagrams, and its timer.
The supernode of this very node is reached over LOCAL_LINK with the same messages as any other.
Pure: no socket, no thread, no clock.
"""

from __future__ import annotations

import math
import random
from typing import Any, Callable, Dict, Optional, Sequence

from protocol import messages
from protocol.credit import Credit
from protocol.fields import Address
from protocol.hearsay import Hearsay
from protocol.membership.answering import Answering
from protocol.membership.applying import Applicant
from protocol.membership.claims import NO_PAST, Claimant, Past
from protocol.membership.contracts import Audience, Machine, Owner, Seat
from protocol.membership.course import Course, State
from protocol.membership.crossing import Crossed, Crossing
from protocol.membership.door import Standing
from protocol.membership.founding import Founder
from protocol.membership.identities import Identities
from protocol.membership.key_hints import KeyHints
from protocol.membership.labels import name_fault
from protocol.membership.learning import Learner
from protocol.membership.local_link import LOCAL_LINK, LocalSide
from protocol.membership.overhearing import Overhearing
from protocol.membership.proofs import node_id_of, random_bytes, share_digest
from protocol.membership.queries import Prober, Purpose
from protocol.membership.resuming import NO_RULED, Ruled
from protocol.membership.roster import Roster
from protocol.membership.searching import NO_LAST_NETWORK, LastNetwork, Looks
from protocol.membership.story import Story
from protocol.membership.view import Means, View
from protocol.membership.voice import Voice
from protocol.membership.way_in import WayIn
from protocol.membership.ways import Ways
from protocol.messages import (
    NO_NETWORK,
    NO_NODE,
    NOWHERE,
    ROLE_ALONE,
    ROLE_MEMBER,
    ROLE_SUPERNODE,
    Answer,
    encode_parts,
)
from protocol.network import Network

__all__ = ["LOCAL_LINK", "LocalSide", "Membership", "Network", "Owner", "Roster", "Seat", "State", "share_digest"]


class Membership:
    """This node as a member: what it knows, does, says and answers."""

    def __init__(
        self, network: Network, rng: random.Random, owner: Owner, audience: Audience, machine: Machine, name: str,
        mesh: bool = True, may_rule: bool = True, fingerprint: Optional[bytes] = None, has_lasting_key: bool = False,
    ) -> None:  # fmt: skip
        """`fingerprint`: of this node's certificate; with one the network has a key, and is not to be known outside."""
        fault = name_fault(name)
        if fault is not None:
            raise ValueError(fault)
        self.network = network
        self.rng = rng
        self.owner = owner
        self.name = name
        self._name_told = name if fingerprint is None else ""  # without a link, where nothing is hidden
        self.mesh = mesh
        self.may_rule = may_rule
        self.search_port = 0
        self.hearsay, self.credit = Hearsay(), Credit()
        opening = random_bytes(rng, 16)
        self.node_id = node_id_of(opening)
        self._view = View(network, self.node_id, machine.own_addresses)
        self._prober = Prober(network, rng, self.hearsay, self.credit)
        means = Means(network, rng, self._prober, self._view)
        overhearing = Overhearing(self._view, self, machine.own_addresses)
        self._answering = Answering(means, machine.own_addresses, self._standing, overhearing.on_question)
        self.identities = Identities(self.node_id, fingerprint, has_lasting_key)
        self._looks = Looks(self._prober)
        self.key_hints = KeyHints(self._prober)
        self.ways = Ways(means, owner, audience, self, machine.own_addresses)
        self._chat = Voice(audience, self._view, self)
        self.story = Story(owner, audience, self._view)
        self._claimant = Claimant(self.node_id)
        applicant = Applicant(means, self, opening, self._chat, self._claimant)
        self._way_in = WayIn(applicant)
        founder = Founder(means, machine, self, opening, self._chat)
        self._course = Course(means, owner, machine, self, applicant, self._way_in, founder, self._chat, self.story)
        self._crossing = Crossing(means, self._way_in.send_join)
        self._learner = Learner(self._view, self.story, self, self.identities, audience)
        self._timed = self._looks, self.ways, self._crossing, self._course, self._chat
        self._handlers = self._supernode_says()

    # ---- questions

    @property
    def state(self) -> State:
        return self._course.state

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
        return self._course.bond.heard_at

    @property
    def round_trip(self) -> Optional[float]:
        """Seconds, of the last Ping."""
        return self._course.bond.round_trip

    @property
    def is_joined(self) -> bool:
        """Is there a supernode to speak to? (One that is merely suspected still counts.)"""
        return self.state in (State.JOINED, State.SUSPECT) and self.supernode_link is not None

    @property
    def is_trying_another(self) -> bool:
        """Is it still open whether another network takes this node in?"""
        return self._crossing.is_trying or self._looks.next_deadline() < math.inf

    @property
    def is_crossing(self) -> bool:
        """Has another network taken this node in, which is about to leave its own?"""
        return self._crossing.is_ready

    @property
    def dropped(self) -> int:
        """Messages that were not obeyed."""
        return self._view.dropped

    def label_of(self, node_id: bytes, name: str = "") -> str:
        return self.roster.label_of(node_id, name)

    def last_network(self) -> LastNetwork:
        """What a later run of this node needs in order to find this network again."""
        return self._view.last_network()

    def ruled(self) -> Ruled:
        """What a later run of this node needs in order to resume the network that this one rules; NO_RULED: none."""
        return self._view.ruled()

    def past(self) -> Past:
        """What a later run of this node needs in order to be called as it was."""
        return self._claimant.past

    def owns(self, link: int) -> bool:
        return link == self.supernode_link or self._way_in.owns(link) or self._crossing.owns(link)

    # ---- verbs

    def start(
        self,
        target: Optional[Address],
        search_port: int,
        now: float,
        last: LastNetwork = NO_LAST_NETWORK,
        past: Past = NO_PAST,
        ruled: Ruled = NO_RULED,
        others: Sequence[Address] = (),
    ) -> None:
        """Join at this address, or find a network (`last` helps with that); the owner hears on_outcome.

        `others`: more addresses of that machine. `past`: who this node was before; it is remembered by the next start
        without one. `ruled`: what it ruled.
        """
        if self.state not in (State.IDLE, State.LEFT):
            raise ValueError("leave the present network first")
        if past != NO_PAST:
            self._claimant.remember(past)
        self.search_port = search_port
        self._course.start(target, now, last, ruled, others)

    def look_at(
        self, address: Address, now: float, done: Callable[[Address, Optional[Answer]], None],
        others: Sequence[Address] = (),
    ) -> None:  # fmt: skip
        """Is there a supernode, or a member who names one? done(where, what it answers, or None) within 1.5 s.

        `others`: more addresses of that machine.
        """
        self._looks.look_at(address, now, done, others)

    def cross_to(self, address: Address, now: float, done: Callable[[str, float], None]) -> None:
        """Try the network there, and stay in this one; done(why not, the time), or done("", the time): `cross_over`."""
        self._crossing.begin(address, now, done)

    def cross_over(self, now: float) -> Optional[Crossed]:
        """This node has left its network: it is in the one that has taken it in. None if that is gone by now.

        What that one's supernode has said since then is for the Peer to hear, as if it came now.
        """
        crossed = self._crossing.take()
        if crossed is not None:
            self.search_port = crossed.search_port
            self._course.enter(crossed.entered, now)
        return crossed

    def stay(self, reason: str) -> None:
        """Nobody wants to go over any more."""
        self._looks.forget()
        self._crossing.give_up(reason)

    def leave(self, now: float) -> None:
        """Say good-bye and forget the network; a Supernode of this node has handed over before."""
        self._course.leave(now)
        self.ways.forget()

    def go_over(self, address: Address, now: float) -> None:
        """This node rules, and nobody ever joined it: try the network there, and rule on until that has taken it in."""
        self._course.go_over(address, now)

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
        """Does this node open links to other members from now on? The supernode tells them."""
        self.mesh = on
        self.send_to_supernode(messages.SetMesh(on))

    def send_to_supernode(self, message: Any) -> bool:
        """False when there is none at present; then ask again at on_joined."""
        if not self.is_joined:
            return False
        assert self.supernode_link is not None
        self.network.send(self.supernode_link, *encode_parts(message))
        return True

    # ---- events

    def on_proven(self, address: Address, now: float) -> None:
        """Somebody receives there, by whatever link of this node."""
        self.hearsay.on_answer(address, now)
        self._view.see(address[0])

    def on_link_up(self, link: int, address: Address, incoming: bool, now: float) -> None:
        """A link that this node dialled in order to join is there."""
        if self._crossing.owns(link):
            self._crossing.on_link_up(now)
        elif self._way_in.owns(link):
            self._way_in.on_link_up(now)

    def on_link_moved(self, link: int, address: Address) -> None:
        """The supernode has another address; that of one which this node is about to join is of no interest."""
        if link == self.supernode_link:
            self._view.move_supernode(address)

    def on_link_lost(self, link: int, reason: str, now: float) -> None:
        """The supernode is gone, or one that this node was about to join."""
        self._course.watch_sleep(now)
        if self._crossing.owns(link):
            self._crossing.on_link_lost(reason, now)
        elif self._way_in.owns(link):
            self._course.on_attempt_lost(reason, now)
        elif link == self.supernode_link and link != LOCAL_LINK:
            self._course.on_link_lost(now)

    def on_message(self, link: int, message: Any, now: float) -> bool:
        """False: not about membership or chat, so it is Peer's (searches, offers, list pages ...)."""
        self._course.watch_sleep(now)
        if link == self.supernode_link:
            self._course.on_heard_by_link(now)
        if self._crossing.owns(link):
            self._crossing.on_message(message, now)
            return True
        if self._way_in.owns(link):
            shown = self.network.fingerprint(link)
            if type(message) is messages.Welcome and not self.identities.fits(message.supernode_id, shown):
                self.network.disconnect(link, "another certificate")
                self._course.on_attempt_lost("it has another certificate than that supernode", now)
            else:
                self._course.on_attempt_message(message, now)
            return True
        handler = self._handlers.get(type(message))
        if handler is not None:
            handler(message, now)
        # While it is no member, nothing that comes is for its Peer.
        return handler is not None or type(message) in _NOT_FOR_PEER or not self.is_joined

    def on_stray_join(self, link: int, now: float) -> None:
        """Somebody takes this node for the supernode, or has come to its door: say who is."""
        self._answering.send_on(link, self.search_port, now)

    def on_lone(self, address: Address, message: Any, now: float) -> None:
        """A message came without a link: an answer, a knock, or a question of somebody who looks for the network."""
        self._course.watch_sleep(now)
        if type(message) is Answer:
            self._on_answer(address, message, now)
        elif not self.ways.on_lone(address, message, now):
            self._on_question(address, message, now)

    def _on_question(self, address: Address, message: Any, now: float) -> None:
        """A guest without a supernode is silent: nobody shall wait for it to found a network, or to take one over."""
        if (self.may_rule or self.is_joined) and self._answering.is_question(address, message, self.search_port):
            self._answering.answer(address, message, now)

    def on_door_lone(self, address: Address, message: Any, now: float) -> None:
        """A datagram that came to the door, the port at which people look for the network."""
        self._course.watch_sleep(now)
        if self._answering.is_question(address, message, self.search_port):
            self._answering.answer_at_door(address, message, self.search_port, now)

    def _on_answer(self, address: Address, answer: Answer, now: float) -> None:
        asked = self._prober.match(address, answer, now)
        if asked is None or asked.address is None:
            self._view.drop()
        elif asked.purpose is Purpose.LOOK:
            self._looks.on_answer(asked.address, answer)
        else:
            self._course.on_answer(asked.address, answer, asked.purpose, now)

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
            now - self.heard_at, len(self.roster), self._name_told,
        )  # fmt: skip

    def on_timer(self, now: float) -> None:
        self._course.watch_sleep(now)
        for part in self._timed:
            part.on_timer(now)

    def next_deadline(self) -> float:
        return min([part.next_deadline() for part in self._timed])

    # ---- what the supernode tells

    def _supernode_says(self) -> Dict[Any, Callable[[Any, float], None]]:
        """To whom each of its messages goes."""
        course, learner = self._course, self._learner
        return {
            messages.RosterPage: learner.on_roster_page,
            messages.RosterUpdate: learner.on_roster_update,
            messages.Ping: learner.on_ping,
            messages.Pong: self._on_pong,
            messages.PingSeldom: course.bond.on_ping_seldom,
            messages.Handover: course.on_handover,
            messages.Moved: course.on_moved,
            messages.Stays: learner.on_stays,
            messages.Chat: self._chat.on_chat,
            messages.Lost: learner.on_lost,
            messages.Heirs: learner.on_heirs,
            messages.Called: learner.on_names,
            messages.WasCalled: learner.on_names,
            messages.Fingerprints: learner.on_fingerprints,
            messages.Introduce: self.ways.on_introduce,
            messages.TryReach: self.ways.on_try_reach,
            messages.Reach: self.ways.on_reach,
        }

    def _on_pong(self, pong: messages.Pong, now: float) -> None:
        self._course.bond.on_pong(pong, now)
        if self.supernode_address is not None:  # it answered what was sent there, so it can be dialled there as well
            self.hearsay.on_answer(self.supernode_address, now)


# Said to newcomers or by them: out of place to a member, and dropped.
_NOT_FOR_PEER = {messages.Join, messages.Welcome, messages.NotSupernode, messages.Busy, messages.Stale}
