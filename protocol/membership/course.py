"""Which state a node is in on its way through a network, and what leads from one to the next:

    IDLE -> SEARCHING -> JOINING -> JOINED <-> SUSPECT -> ELECTING -> (JOINING | JOINED to its own supernode)
                                      |-> FOLLOWING (Handover, Moved) -> JOINED | ELECTING

    state        phase                                            what it finds
    SEARCHING    Search (protocol/membership/searching.py)        Found, Nobody, Waits
    JOINING      Attempt (joining.py)                             Entered, Failed, Elsewhere, PutOff
    JOINED       Bond (belonging.py); none for one who rules      Silent
    SUSPECT      Suspicion (failover.py)                          Gone
    ELECTING     Succession (failover.py)                         Found, TakeOver
    FOLLOWING    Following (following.py)                         Found, Missed

A phase says when it goes on, and what it found; here stands what follows from that. An attempt that fails leads back to
where it came from. One who rules alone and tries another network stays JOINED meanwhile, with an Attempt. Pure.
"""

from __future__ import annotations

import enum
import math
from typing import Any, Callable, Dict, Optional, Protocol, Sequence, Tuple

from protocol import messages
from protocol.addresses import is_of_one_host
from protocol.fields import Address
from protocol.lateness import SLEPT_AFTER
from protocol.membership.applying import Applicant
from protocol.membership.belonging import Bond, Silent
from protocol.membership.contracts import Machine, Owner, Speaker
from protocol.membership.entering import Entrance
from protocol.membership.failover import Gone, Inquiry, Succession, Suspicion, TakeOver
from protocol.membership.following import Following, Missed, Turn
from protocol.membership.founding import Founder
from protocol.membership.joining import Attempt, Elsewhere, Entered, Failed, PutOff
from protocol.membership.local_link import LOCAL_LINK
from protocol.membership.queries import Purpose
from protocol.membership.resuming import NO_RULED, Resuming, Ruled
from protocol.membership.searching import Ask, Found, LastNetwork, Nobody, Search, Waits
from protocol.membership.story import Story
from protocol.membership.view import Means
from protocol.membership.voice import Voice
from protocol.membership.way_in import WayIn
from protocol.messages import NO_NETWORK, NOWHERE, Answer


class State(enum.Enum):
    """Where this node stands with its network; `Course` alone changes it."""
    IDLE = "not started"
    SEARCHING = "looking for a network"
    JOINING = "joining"
    JOINED = "joined"
    SUSPECT = "the supernode is silent"
    ELECTING = "no supernode"
    FOLLOWING = "following to a new supernode"
    LEFT = "left"


class Phase(Protocol):
    """What a node is about in one of the states."""

    def next_deadline(self) -> float: ...

    def on_timer(self, now: float) -> Any:
        """What it found, one of _FINDINGS; None: it goes on."""


Place = Tuple[State, Optional[Phase]]


class Course:
    """The way of one node: search, join, belong, follow, doubt, succeed."""

    def __init__(
        self, means: Means, owner: Owner, machine: Machine, speaker: Speaker, applicant: Applicant, way_in: WayIn,
        founder: Founder, chat: Voice, story: Story,
    ) -> None:  # fmt: skip
        self._means = means
        self._network, self._rng, self._prober, self._view = means
        self._owner = owner
        self._machine = machine
        self._speaker = speaker
        self._way_in = way_in
        self._founder = founder
        self._chat = chat
        self._story = story
        self.bond = Bond(means, speaker)
        self._inquiry = Inquiry(means)
        self._entrance = Entrance(means.view, owner, applicant, self.bond, self._inquiry, chat, story)
        self._turn = Turn(means)
        self._forget_network()
        self._set_state(State.IDLE, None)

    def _forget_network(self, keeps_chat: bool = False) -> None:
        self._view.forget()
        if not keeps_chat:
            self._chat.forget_network()
        self._way_in.forget()
        self._came_from: Place = State.IDLE, None  # to the present attempt
        self._inquiry.forget()
        self._story.forget()
        self.bond.forget()
        self._turn.drop()

    def _set_state(self, state: State, phase: Optional[Phase]) -> None:
        """From now on its phase says what is to be done, and when; there is none while nothing is."""
        self.state, self._phase = state, phase

    def _act_on(self, finding: Any, now: float) -> None:
        if finding is not None:
            _FINDINGS[type(finding)](self, finding, now)

    def on_answer(self, address: Address, answer: Answer, purpose: Any, now: float) -> None:
        """Somebody has answered; that one to be met did is all that was wanted of it."""
        if purpose is Purpose.POLL:
            self._on_poll_answer(address, answer, now)
        elif purpose is Purpose.FOLLOW:
            if isinstance(self._phase, Following) and self._view.is_trusted(answer):
                self._phase.on_answer(address, answer, now)
        elif isinstance(purpose, Ask):
            self._on_search_answer(address, answer, purpose, now)

    # ---- time

    def next_deadline(self) -> float:
        return math.inf if self._phase is None else self._phase.next_deadline()

    def on_timer(self, now: float) -> None:
        """Let the phase do what is due, and act on what it found."""
        if self._phase is not None and now >= self._phase.next_deadline():
            self._act_on(self._phase.on_timer(now), now)

    def watch_sleep(self, now: float) -> None:
        """Were we late by more than a moment? Then nothing that we found out before counts."""
        if now > self.next_deadline() + SLEPT_AFTER:
            self._inquiry.election.on_sleep()
            if isinstance(self._phase, Search):
                self._phase.begin_anew(now)
            if isinstance(self._phase, (Suspicion, Succession)):  # others may have elected one meanwhile
                self._turn.drop()
                self._suspect(now)

    # ---- searching

    def start(
        self, target: Optional[Address], now: float, last: LastNetwork, ruled: Ruled = NO_RULED,
        others: Sequence[Address] = (),
    ) -> None:  # fmt: skip
        """Join at this address, or find a network; resume the one that it `ruled`, where it is missed.

        `others`: more addresses of the machine at `target`.
        """
        self._forget_network()
        self._prober.hearsay.begin_anew()
        search = Search(
            self._prober, self._rng, self._view.node_id, self._network.address, self._machine.own_addresses(),
            target, self._speaker.search_port, now, last, Resuming(ruled), others,
        )  # fmt: skip
        self._way_in.begin_search(search)
        self._set_state(State.SEARCHING, search)
        self._act_on(search.on_timer(now), now)

    def _on_search_answer(self, address: Address, answer: Answer, purpose: Ask, now: float) -> None:
        if isinstance(self._phase, Search):
            self._phase.on_answer(address, answer, purpose, now)
            self._act_on(self._phase.on_timer(now), now)
        elif self.state is State.JOINING and self._way_in.on_late_answer(address, answer, purpose, now):
            self._on_put_off(PutOff(), now)

    def _on_waits(self, waits: Waits, now: float) -> None:
        self._story.on_waits()

    def _on_found(self, found: Found, now: float) -> None:
        if isinstance(self._phase, Search):
            self._story.on_found(self._phase, found.address)
        self._join(found.address, (self.state, self._phase), now)

    def _on_nobody(self, nobody: Nobody, now: float) -> None:
        """Nobody answered: this node founds a network, if it stands where people look for one."""
        search = self._way_in.search
        assert search is not None
        if search.has_waited and self._network.address[1] != self._speaker.search_port:
            self._end_search()
            self._story.on_waited_in_vain(search, search.target, now)  # a member has the port
        elif self._speaker.may_rule and (search.target is None or self._machine.can_serve_at(search.target[0])):
            self._found_or_resume(search.resuming, now)
        else:
            self._end_search()
            self._story.on_nobody(search, now)

    def _end_search(self) -> None:
        self._forget_network()
        self._set_state(State.IDLE, None)

    def leave(self, now: float) -> None:
        """Say good-bye and forget the network; a Supernode of this node has handed over before."""
        self.bond.say_goodbye()
        self._way_in.drop("leaving")
        self._forget_network()
        self._set_state(State.LEFT, None)

    # ---- joining

    def _join(self, address: Address, origin: Place, now: float, hops: int = 0) -> None:
        """Try to join there; should it fail, this node goes back to the origin."""
        self._way_in.drop("trying elsewhere")
        self.bond.cut("joining anew")
        is_search = origin[0] is State.SEARCHING
        since = self._way_in.since(self.bond.heard_at)
        self._try(Attempt(self._means, address, now, since, hops, is_search), State.JOINING, origin, now)

    def go_over(self, address: Address, now: float) -> None:
        """This node rules, and nobody ever joined it: try the network there, and rule on until that has taken it in."""
        if self._way_in.attempt is None and self._view.is_ruler and self.state is State.JOINED:
            attempt = Attempt(self._means, address, now, now, is_to_another=True)
            self._try(attempt, State.JOINED, (State.JOINED, None), now)

    def _try(self, attempt: Attempt, state: State, origin: Place, now: float) -> None:
        self._came_from = origin
        self._way_in.begin(attempt)
        self._set_state(state, attempt)
        self._act_on(attempt.dial(now), now)

    def on_attempt_lost(self, reason: str, now: float) -> None:
        """The link of the present attempt is lost: it has failed."""
        if self._way_in.attempt is not None:
            self._on_failed(self._way_in.attempt.on_link_lost(reason), now)

    def on_attempt_message(self, message: Any, now: float) -> None:
        """What comes by the link of the present attempt: a welcome and the roster, a refusal, or another place."""
        if type(message) is messages.Moved:
            if self._view.is_ruler:  # our own supernode has met a better one before this node had even joined it
                self.on_moved(message, now)
        elif self._way_in.attempt is not None:
            self._act_on(self._way_in.attempt.on_message(message, now), now)

    def _on_elsewhere(self, elsewhere: Elsewhere, now: float) -> None:
        self._join(elsewhere.address, self._came_from, now, elsewhere.hops)

    def _on_put_off(self, put_off: PutOff, now: float) -> None:
        """Who answered a search first, and is busy then, is not the only one that answered."""
        if self._came_from[0] is State.SEARCHING:
            place = self._way_in.instead(now)
            if place is not None:
                self._join(place, self._came_from, now)

    def enter(self, entered: Entered, now: float) -> None:
        """This node, which is in no network, was taken in by that one while it was in another."""
        self._on_entered(entered._replace(is_other=False), now)

    def _on_entered(self, entered: Entered, now: float) -> None:
        """Welcome and roster are here: this node is a member."""
        if entered.is_other:
            self._leave_own(now)
        before = self._entrance.arrive(entered, now)
        self._way_in.forget()
        self._turn.drop()
        self._set_state(State.JOINED, None if self._view.is_ruler else self.bond)
        self._entrance.settle(before, now)

    def _leave_own(self, now: float) -> None:
        """The other network has taken this node in: its own one, in which it was alone, is no more."""
        self._story.on_goes_over()
        self._owner.drop_supernode(now)
        self._forget_network(keeps_chat=True)
        self._chat.go_over()

    def _on_failed(self, failed: Failed, now: float) -> None:
        """Back to where this attempt came from."""
        attempt = self._way_in.attempt
        assert attempt is not None
        if failed.is_false:
            self._view.drop()
        self._way_in.drop(failed.reason)
        if attempt.link == LOCAL_LINK:
            self._view.lose_link()
            self._owner.drop_supernode(now)
        state, phase = self._came_from
        if state is State.SEARCHING:  # a newcomer: the only one that a person waits for
            self._search_on(attempt.address, failed, now)
        elif attempt.is_to_another:
            self._set_state(State.JOINED, None)  # it rules on
        elif isinstance(phase, (Following, Succession)):
            phase.pause(now)
            self._set_state(state, phase)
        else:
            self._suspect(now).pause(now)

    def _search_on(self, mute: Address, failed: Failed, now: float) -> None:
        """Who answered a search first, and then takes nobody in, is not the only one that answered."""
        search, place = self._way_in.search, self._way_in.after(mute)
        assert search is not None
        if place is not None:
            self._join(place, self._came_from, now)
        else:
            self._end_search()
            self._story.on_refused(search, mute, failed.reason, now)

    # ---- ruling

    def _found_or_resume(self, resuming: Resuming, now: float) -> None:
        if self._founder.resume(resuming.ruled):
            self._promote(resuming.next_term, now, resuming.ruled)
        else:
            self._found_network(now)

    def _found_network(self, now: float) -> None:
        self._founder.found()
        self._promote(1, now)

    def _promote(self, term: int, now: float, resumed: Ruled = NO_RULED) -> None:
        """Become the supernode: the owner makes one, and this node joins it as any other would."""
        seat = self._founder.seat(term, resumed, now)
        self._story.on_takes_over(seat)
        self._way_in.drop("taking over")
        self._view.rule(term)
        self._came_from = self.state, self._phase
        since = self._way_in.since(self.bond.heard_at)
        attempt = Attempt(self._means, self._network.address, now, since, link=LOCAL_LINK)
        self._way_in.begin(attempt)
        self._set_state(State.JOINING, attempt)
        self._owner.become_supernode(seat, now)
        self._way_in.send_join(attempt)

    # ---- handover and step-down

    def on_handover(self, message: messages.Handover, now: float) -> None:
        """The present supernode (this is its link) says who rules next."""
        view = self._view
        if not view.obeys(message):
            view.drop()
            return
        self._story.on_goodbye(is_merging=False)
        view.hear_term(message.term)
        if message.successor == view.node_id:
            if self._speaker.may_rule:
                self.bond.cut("following the handover")
                self._promote(message.term, now)
            else:
                self._elect(now)  # a guest rules nobody: it follows whom the others find
            return
        place = view.place_of(message.successor)
        self._follow_to(place or NOWHERE, message.successor, message.term, now)

    def on_moved(self, message: messages.Moved, now: float) -> None:
        """Our supernode steps down for another one, mostly of a later term; unless it is our own, a query checks it.

        That one may be anywhere, as where who ruled behind a router goes back to the public node under which this one
        never was: three small datagrams tell (protocol/hearsay.py), and who names a place rules nobody any more.
        """
        view, place = self._view, message.supernode
        if view.is_ruler:  # it has ended, after a proven Answer from that place: nothing is left to doubt
            view.end_own_rule()
            self._owner.drop_supernode(now)
        else:
            place = view.seen_by_ruler(place)
            if not view.is_believable(message.term) or not is_of_one_host(place):
                view.drop()
                return
        view.step_back_to(message.term)
        self._story.on_goodbye(is_merging=True)
        self._follow_to(place, message.node_id, message.term, now)

    def _follow_to(self, address: Address, node_id: bytes, term: int, now: float) -> None:
        self._way_in.drop("following")
        self.bond.cut("following to the next supernode")
        port = self._speaker.search_port
        following = Following(self._means, self._turn, address, node_id, term, port, now)
        self._set_state(State.FOLLOWING, following)
        self._story.on_lost(now)
        self._act_on(following.on_timer(now), now)

    def _on_missed(self, missed: Missed, now: float) -> None:
        self._view.miss_supernode(missed.address)  # whoever of us rules there, with those who did reach it
        self._elect(now)

    # ---- suspicion and failover

    def on_link_lost(self, now: float) -> None:
        """The link to the supernode is no more."""
        self._view.lose_link()
        if self.state is State.JOINED:
            self._suspect(now)
        self._story.on_lost(now)

    def _on_silent(self, silent: Silent, now: float) -> None:
        self._suspect(now)

    def _suspect(self, now: float) -> Suspicion:
        """The supernode is silent or its link is lost."""
        suspicion = Suspicion(self._means, self.bond, self._inquiry, now)
        self._set_state(State.SUSPECT, suspicion)
        return suspicion

    def _on_gone(self, gone: Gone, now: float) -> None:
        self._story.on_gone(now - self.bond.heard_at)
        self._view.lose_supernode()
        self._elect(now)

    def _elect(self, now: float) -> None:
        """There is no supernode: find the one who takes over, or take over."""
        self._story.on_election()
        self._way_in.drop("the supernode is gone")
        self.bond.cut("no sign of it")
        succession = Succession(self._means, self._inquiry, self._turn, now, self._speaker.may_rule)
        self._set_state(State.ELECTING, succession)
        self._story.on_lost(now)
        self._act_on(succession.on_timer(now), now)

    def _on_take_over(self, found: TakeOver, now: float) -> None:
        """Rule in the next term; when liars have burnt them all, in a network of its own, where they begin anew."""
        if found.term is not None:
            self._promote(found.term, now)
        else:
            self._found_network(now)

    def _on_poll_answer(self, address: Address, answer: Answer, now: float) -> None:
        """Somebody answered while we doubt our supernode (or after a hint)."""
        view = self._view
        if view.network_id == NO_NETWORK or view.is_ruler or not view.is_trusted(answer):
            return
        is_given_up = isinstance(self._phase, Succession)
        is_in_doubt = is_given_up or isinstance(self._phase, Suspicion)
        if self._inquiry.is_alive(address, answer, is_in_doubt, is_given_up, now):
            if is_in_doubt:
                self._on_supernode_lives(address, now)
        elif isinstance(self._phase, Succession):
            self._phase.on_answer(answer, now)

    def _on_supernode_lives(self, place: Address, now: float) -> None:
        """It answered a probe: go on, or open a new link if ours is lost or stuck, or where it is by now."""
        if isinstance(self._phase, Succession) and self._view.supernode_address not in (None, place):
            self._view.move_supernode(place)
        self.bond.on_heard(now)
        self._inquiry.election.on_sign()
        address = self._view.supernode_address
        if self.bond.is_stuck(now) and address is not None:
            self._join(address, (State.SUSPECT, None), now)  # if that fails, all doubt begins anew
        elif isinstance(self._phase, Suspicion):
            self._trust_again(self.bond.next_beat, now)

    def on_heard_by_link(self, now: float) -> None:
        """The supernode said something by its link: it lives, and whoever was in doubt of it is so no more."""
        self.bond.on_heard_by_link(now)
        self._inquiry.election.on_sign()
        if isinstance(self._phase, Suspicion):  # of an election the link is closed already
            self._trust_again(self._phase.next_deadline(), now)

    def _trust_again(self, at: float, now: float) -> None:
        """The supernode that was in doubt lives."""
        self.bond.go_on(at, now)
        self._set_state(State.JOINED, self.bond)


_FINDINGS: Dict[Any, Callable[[Course, Any, float], None]] = {
    Found: Course._on_found,
    Nobody: Course._on_nobody,
    Waits: Course._on_waits,
    Entered: Course._on_entered,
    Failed: Course._on_failed,
    Elsewhere: Course._on_elsewhere,
    PutOff: Course._on_put_off,
    Silent: Course._on_silent,
    Gone: Course._on_gone,
    TakeOver: Course._on_take_over,
    Missed: Course._on_missed,
}
