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
import hashlib
import math
from typing import Any, Callable, Dict, Optional, Protocol, Sequence, Tuple

from protocol import messages
from protocol.addresses import is_of_one_host, shown
from protocol.fields import Address
from protocol.lateness import SLEPT_AFTER
from protocol.membership.belonging import Bond, Silent
from protocol.membership.claims import Claimant
from protocol.membership.contracts import Audience, Machine, Owner, Speaker
from protocol.membership.failover import Gone, Inquiry, Succession, Suspicion, TakeOver
from protocol.membership.following import Following, Missed, Turn
from protocol.membership.joining import Attempt, Elsewhere, Entered, Failed, PutOff
from protocol.membership.local_link import LOCAL_LINK
from protocol.membership.proofs import random_bytes
from protocol.membership.queries import Purpose
from protocol.membership.resuming import NO_RULED, Resuming, Ruled
from protocol.membership.searching import Ask, Found, LastNetwork, Nobody, Search, Waits
from protocol.membership.story import Story
from protocol.membership.sweep import lans_of
from protocol.membership.view import TERM_JOINED_MAX, Means
from protocol.membership.voice import Voice
from protocol.messages import NO_NETWORK, NOWHERE, ROLE_SUPERNODE, Answer, MemberEntry, encode_parts

WAITING = "the network is there, but its supernode gives no sign; waiting for who takes over ..."
BUSY_WAIT_MAX = 4.0  # seconds, where others answered as well; who is honestly busy asks for no more
WAITED_IN_VAIN = "The network is there, but its supernode gives no sign and nobody took over yet; try again soon."


def why_in_vain(search: Search) -> str:
    """What a person is told whose node was not taken in, though members have answered."""
    place = search.beyond_reach()
    if place is None:
        return WAITED_IN_VAIN
    return (
        f"The network is there, but this machine cannot reach its supernode at {shown(place)}. "
        "Let the first node be one that all can reach."
    )


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
        self,
        means: Means,
        owner: Owner,
        audience: Audience,
        machine: Machine,
        speaker: Speaker,
        opening: bytes,
        chat: Voice,
        story: Story,
        claimant: Claimant,
    ) -> None:
        self._means = means
        self._network, self._rng, self._prober, self._view = means
        self._owner = owner
        self._audience = audience
        self._machine = machine
        self._speaker = speaker
        self._opening = opening  # the secret that the node id opens
        self._chat = chat
        self._claimant = claimant
        self._story = story
        self.bond = Bond(means, speaker)
        self._inquiry = Inquiry(means)
        self._turn = Turn(means)
        self._forget_network()
        self._set_state(State.IDLE, None)

    def _forget_network(self, keeps_chat: bool = False) -> None:
        self._view.forget()
        if not keeps_chat:
            self._chat.forget_network()
        self._search: Optional[Search] = None  # until this node is in a network
        self._attempt: Optional[Attempt] = None
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
            self._on_follow_answer(address, answer, now)
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
        self._search = Search(
            self._prober, self._rng, self._view.node_id, self._network.address, self._machine.own_addresses(),
            target, self._speaker.search_port, now, last, Resuming(ruled), others,
        )  # fmt: skip
        self._set_state(State.SEARCHING, self._search)
        self._act_on(self._search.on_timer(now), now)

    def _on_search_answer(self, address: Address, answer: Answer, purpose: Ask, now: float) -> None:
        if isinstance(self._phase, Search):
            self._phase.on_answer(address, answer, purpose, now)
            self._act_on(self._phase.on_timer(now), now)
        elif self._search is not None and self._attempt is not None and self.state is State.JOINING:
            # Who was quicker may take nobody in; if it has put this node off, the slower one is asked at once.
            had_others = self._search.has_others(self._attempt.address)
            self._search.on_answer(address, answer, purpose, now)
            if self._attempt.link is None and not had_others and self._search.has_others(self._attempt.address):
                self._on_put_off(PutOff(), now)

    def _on_waits(self, waits: Waits, now: float) -> None:
        self._audience.on_notice(WAITING)

    def _on_found(self, found: Found, now: float) -> None:
        search = self._phase
        if isinstance(search, Search) and search.target is not None:
            nobody, other = f"nobody answers at {shown(search.target)}", shown(found.address)
            if search.has_moved(found.address):
                self._audience.on_notice(f"{nobody}; the network that was there is at {other} now")
            elif search.is_elsewhere(found.address):
                self._audience.on_notice(f"{nobody}; the network of last time is at {other}")
        self._join(found.address, (self.state, self._phase), now)

    def _on_nobody(self, nobody: Nobody, now: float) -> None:
        """Nobody answered: this node founds a network, if it stands where people look for one."""
        search = self._search
        assert search is not None
        if search.has_waited and self._network.address[1] != self._speaker.search_port:
            self._end_search("refused", search.target, why_in_vain(search), now)  # a member has the port
        elif self._speaker.may_rule and (search.target is None or self._machine.can_serve_at(search.target[0])):
            self._found_or_resume(search.resuming, now)
        else:
            hint = search.hint
            text = "" if hint is None else f"{hint.name}'s network is at {shown(hint.address)}"
            self._end_search("nobody", search.target if hint is None else hint.address, text, now)

    def _end_search(self, kind: str, address: Optional[Address], text: str, now: float) -> None:
        self._forget_network()
        self._set_state(State.IDLE, None)
        self._audience.on_outcome(kind, address, text, now)

    def leave(self, now: float) -> None:
        """Say good-bye and forget the network; a Supernode of this node has handed over before."""
        link = self._view.supernode_link
        if link is not None and link != LOCAL_LINK:
            self._network.send(link, *encode_parts(messages.Leave()))
            self._network.disconnect(link, "leaving")
        self._drop_attempt("leaving")
        self._forget_network()
        self._set_state(State.LEFT, None)

    # ---- joining

    def _join(self, address: Address, origin: Place, now: float, hops: int = 0) -> None:
        """Try to join there; should it fail, this node goes back to the origin."""
        self._drop_attempt("trying elsewhere")
        self._drop_link("joining anew")
        is_search = origin[0] is State.SEARCHING
        self._attempt = Attempt(self._means, address, now, self._since(), hops, is_search)
        self._try(self._attempt, State.JOINING, origin, now)

    def go_over(self, address: Address, now: float) -> None:
        """This node rules, and nobody ever joined it: try the network there, and rule on until that has taken it in."""
        if self._attempt is None and self._view.is_ruler and self.state is State.JOINED:
            self._attempt = Attempt(self._means, address, now, now, is_to_another=True)
            self._try(self._attempt, State.JOINED, (State.JOINED, None), now)

    def _try(self, attempt: Attempt, state: State, origin: Place, now: float) -> None:
        self._came_from = origin
        self._set_state(state, attempt)
        self._act_on(attempt.dial(now), now)

    def _since(self) -> float:
        """Since when has this node had no supernode?"""
        return self._search.since if self._search is not None else self.bond.heard_at

    def is_attempt(self, link: int) -> bool:
        return self._attempt is not None and link == self._attempt.link

    def _drop_attempt(self, reason: str) -> None:
        attempt, self._attempt = self._attempt, None
        if attempt is not None:
            attempt.give_up(reason)

    def _drop_link(self, reason: str) -> None:
        link = self._view.lose_link()
        if link is not None and link != LOCAL_LINK:
            self._network.disconnect(link, reason)

    def on_attempt_up(self, now: float) -> None:
        """The link of the present attempt is there: it begins with our Join."""
        attempt = self._attempt
        assert attempt is not None
        self._prober.hearsay.on_answer(attempt.address, now)  # on this machine the link may show another one
        self.send_join(attempt)

    def send_join(self, attempt: Attempt) -> None:
        """Ask the supernode at the other end of its link to take this node in."""
        come_from, seen = (self._view.network_id, self._view.term), self._chat.sequence
        if attempt.is_to_another:
            come_from, seen = (NO_NETWORK, 0), 0
        name, mesh = self._speaker.name, self._speaker.mesh
        join = messages.Join(*come_from, self._view.node_id, self._opening, name, mesh, seen)
        assert attempt.link is not None
        self._network.send(attempt.link, *encode_parts(join))
        self._network.send(attempt.link, *encode_parts(self._claim(attempt)))

    def _claim(self, attempt: Attempt) -> messages.Claim:
        """Behind the Join, and so heard before a label is given; a search may have been told which network it is."""
        view = self._view
        if view.network_id != NO_NETWORK and not attempt.is_to_another:
            return self._claimant.claim(view.network_id, view.suffix())
        network_id = NO_NETWORK if self._search is None else self._search.network_at(attempt.address)
        return self._claimant.claim(network_id, None)

    def on_attempt_lost(self, reason: str, now: float) -> None:
        """The link of the present attempt is lost: it has failed."""
        if self._attempt is not None:
            self._on_failed(self._attempt.on_link_lost(reason), now)

    def on_attempt_message(self, message: Any, now: float) -> None:
        """What comes by the link of the present attempt: a welcome and the roster, a refusal, or another place."""
        if type(message) is messages.Moved:
            if self._view.is_ruler:  # our own supernode has met a better one before this node had even joined it
                self.on_moved(message, now)
        elif self._attempt is not None:
            self._act_on(self._attempt.on_message(message, now), now)

    def _on_elsewhere(self, elsewhere: Elsewhere, now: float) -> None:
        self._join(elsewhere.address, self._came_from, now, elsewhere.hops)

    def _on_put_off(self, put_off: PutOff, now: float) -> None:
        """Who answered a search first, and is busy then, is not the only one that answered."""
        search, attempt = self._search, self._attempt
        if attempt is None or search is None or search.target is not None or self._came_from[0] is not State.SEARCHING:
            return
        place = search.instead_of(attempt.address)
        if place is not None:
            self._join(place, self._came_from, now)
        elif search.has_others(attempt.address):
            attempt.wait_at_most(now + BUSY_WAIT_MAX)

    def enter(self, entered: Entered, now: float) -> None:
        """This node, which is in no network, was taken in by that one while it was in another."""
        self._on_entered(entered._replace(is_other=False), now)

    def _on_entered(self, entered: Entered, now: float) -> None:
        """Welcome and roster are here: this node is a member."""
        if entered.is_other:
            self._leave_own(now)
        view, story = self._view, self._story
        old_id, before, is_first = view.supernode_id, view.roster.labels(), not story.was_joined
        view.enter(
            entered.welcome, entered.link, entered.address, entered.entries, entered.version, entered.names, now
        )
        self._claimant.enter(view.network_id)
        self._attempt = self._search = None
        self._turn.drop()
        # One that died may have confirmed lines that it told to nobody; one that merges has told them all.
        is_other = old_id not in (None, view.supernode_id) and not story.is_merging
        self._chat.on_entered(entered.welcome, is_first, self.bond.heard_at if is_other else math.inf)
        self._set_state(State.JOINED, None if view.is_ruler else self.bond)
        self._inquiry.on_entered(story.is_unplanned(old_id), now)
        self.bond.begin(now)
        story.on_entered(old_id, before, now)
        if not is_first and view.lost_places and not view.is_ruler:  # it may heal what this node saw break
            latest = view.lost_places.latest(messages.LOST_TOLD_MAX)
            self._speaker.send_to_supernode(messages.Lost(tuple(latest)))
        self._speaker.send_to_supernode(self._claimant.claim(view.network_id, view.suffix()))
        self._owner.on_joined(now)
        self._chat.speak(now)

    def _leave_own(self, now: float) -> None:
        """The other network has taken this node in: its own one, in which it was alone, is no more."""
        self._audience.on_notice("a network was here before; nobody had joined this node, so it goes there")
        self._owner.drop_supernode(now)
        self._forget_network(keeps_chat=True)
        self._chat.go_over()

    def _on_failed(self, failed: Failed, now: float) -> None:
        """Back to where this attempt came from."""
        attempt = self._attempt
        assert attempt is not None
        if failed.is_false:
            self._view.drop()
        self._drop_attempt(failed.reason)
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
        search = self._search
        assert search is not None
        place = search.after(mute) if search.target is None else None
        if place is not None:
            self._join(place, self._came_from, now)
        else:
            self._end_search("refused", mute, why_in_vain(search) if search.has_waited else failed.reason, now)

    # ---- ruling

    def _found_or_resume(self, resuming: Resuming, now: float) -> None:
        ruled = resuming.ruled
        if ruled == NO_RULED or ruled.term > TERM_JOINED_MAX:
            self._found_network(now)
            return
        self._view.found(ruled.network_id, ruled.secret, self._own_entry())
        self._promote(resuming.next_term, now, ruled)

    def _own_entry(self) -> MemberEntry:
        return MemberEntry(self._view.node_id, self._speaker.name, NOWHERE, 0, self._speaker.mesh, True)

    def _found_network(self, now: float) -> None:
        network_id, secret = random_bytes(self._rng, 16), random_bytes(self._rng, 16)
        self._view.found(network_id, secret, self._own_entry())
        self._promote(1, now)

    def _promote(self, term: int, now: float, resumed: Ruled = NO_RULED) -> None:
        """Become the supernode: the owner makes one, and this node joins it as any other would."""
        mesh, port = self._speaker.mesh, self._speaker.search_port
        # Made while the supernode before is still the one that places are seen from.
        seat = self._view.seat(term, self._opening, mesh, self._chat.recent(), port, now)
        lans = tuple(lans_of(self._network.address[0], self._machine.own_addresses()))
        seat = seat._replace(shut=resumed.shut, is_resumed=resumed != NO_RULED, lans=lans)
        if self._view.is_shut and seat.awaited is not None:
            gone = self._view.roster.label_of(self._view.supernode_id or b"")
            self._audience.on_notice(f"{gone} is gone and nobody here can be reached by all; waiting for {gone}")
        self._drop_attempt("taking over")
        self._view.rule(term)
        self._came_from = self.state, self._phase
        attempt = Attempt(self._means, self._network.address, now, self._since(), link=LOCAL_LINK)
        self._attempt = attempt
        self._set_state(State.JOINING, attempt)
        self._owner.become_supernode(seat, now)
        self.send_join(attempt)

    # ---- handover and step-down

    def on_handover(self, message: messages.Handover, now: float) -> None:
        """Only from the present supernode (this is its link), who alone can open the commitment."""
        view = self._view
        is_genuine = hashlib.sha256(message.opening).digest() == view.commitment
        # The very next term: a handover that skipped some would burn the numbers that an election needs.
        if not is_genuine or message.term != view.term + 1 or message.successor not in view.roster or view.is_ruler:
            view.drop()
            return
        self._story.on_goodbye(is_merging=False)
        view.hear_term(message.term)
        if message.successor == view.node_id:
            if self._speaker.may_rule:
                self._drop_link("following the handover")
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
        self._drop_attempt("following")
        self._drop_link("following to the next supernode")
        port = self._speaker.search_port
        following = Following(self._means, self._turn, address, node_id, term, port, now)
        self._set_state(State.FOLLOWING, following)
        self._story.on_lost(now)
        self._act_on(following.on_timer(now), now)

    def _on_follow_answer(self, address: Address, answer: Answer, now: float) -> None:
        if isinstance(self._phase, Following) and self._view.is_trusted(answer):
            self._phase.on_answer(address, answer, now)

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
        self._drop_attempt("the supernode is gone")
        self._drop_link("no sign of it")
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
        view.hear_term(answer.term)
        is_ruling = answer.role == ROLE_SUPERNODE and answer.term >= view.term
        if is_ruling and answer.node_id == view.supernode_id:
            self._on_supernode_lives(now)
            return
        self._inquiry.on_answer(address, answer, isinstance(self._phase, (Suspicion, Succession)), now)
        if isinstance(self._phase, Succession):
            self._phase.on_answer(answer, now)

    def _on_supernode_lives(self, now: float) -> None:
        """It answered a probe: go on, or open a new link if ours is lost or stuck."""
        if not isinstance(self._phase, (Suspicion, Succession)):
            return
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
