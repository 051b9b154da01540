"""When the supernode falls silent: is it gone, and who rules next?

`Suspicion` is the phase in which a member asks the supernode, and others about it; it says Gone when none of them hears
it. `Succession` is the phase in which the members agree on the next one, by the rules of `election.py`;
it says Found when there is one to follow, or TakeOver when it is this node's turn. Both ask and hear by one `Inquiry`.
Every answer that gets here is proven to come from a member of the network. Pure.
"""

from __future__ import annotations

import math
from typing import List, NamedTuple, Optional, Union

from protocol.addresses import seen_from
from protocol.fields import Address
from protocol.hearsay import KEPT
from protocol.membership.belonging import Bond
from protocol.membership.door import speaks_at_door
from protocol.membership.election import CLAIM_WAIT, LAST_LOOK, PATIENCE, RANK_TIME, Election
from protocol.membership.following import Turn
from protocol.membership.queries import Purpose
from protocol.membership.searching import Found
from protocol.membership.view import Means
from protocol.messages import NO_NODE, ROLE_MEMBER, ROLE_SUPERNODE, TERM_MAX, Answer, MemberEntry

GONE_AFTER = 6.0  # seconds of silence, three own probes among them
GONE_AFTER_CHANGE = 12.0  # the same, soon after a change: a flapping link must not change the ruler each time
CHANGE_SETTLES = 20.0  # seconds that "soon" lasts (THREATS: F08)
PROBES = 3
PROBE_INTERVAL, PROBE_JITTER = 0.5, 0.2  # seconds; the second one at most more
POLL_INTERVAL, POLL_INTERVAL_EACH = 1.0, 0.002  # seconds; for each member: they ask and answer each other
ASKED_BESIDES, ASKED_AFTER_SLEEP = 2, 16  # members asked beside those who rank before us
ASKED_AHEAD = 4  # ranks asked before their turn comes: not all at once, a thousand members ask, too
HALL, AHEAD_IN_HALL = 200, 1  # members from which on each asks fewer: it is they who answer each other


class Gone(NamedTuple):
    """Nobody hears the supernode any more."""


class TakeOver(NamedTuple):
    """It is for this node to rule, in that term; None: liars have burnt them all."""

    term: Optional[int]


class Inquiry:
    """What a member asks about its supernode, and what it hears, as long as it is in one network."""

    def __init__(self, means: Means) -> None:
        self._means = means
        self.forget()

    def forget(self) -> None:
        """This node leaves its network: what it heard there says nothing of the next one."""
        self.election = Election(self._means.view.node_id)
        self._changed_at = -math.inf  # the last unplanned change of supernode

    def on_entered(self, is_unplanned: bool, now: float) -> None:
        """There is a supernode; is it another one, that nobody had announced?"""
        self.election.on_sign()
        self.election.forget()
        if is_unplanned:
            self._changed_at = now

    def gone_after(self, now: float) -> float:
        """Seconds of silence after which the supernode is given up."""
        return GONE_AFTER_CHANGE if now - self._changed_at < CHANGE_SETTLES else GONE_AFTER

    # ---- asking

    def ask_supernode(self, now: float) -> None:
        """Is it there? Nothing is asked while its place is not known."""
        address = self._means.view.supernode_address
        if address is not None:
            self._means.prober.ask(address, Purpose.POLL, now)

    def ask_member(self, node_id: bytes, now: float, keep: int) -> None:
        """The same of a member about it; so many datagrams to its place are kept for later (protocol/hearsay.py)."""
        place = self._means.view.place_of(node_id)
        if place is not None:
            self._means.prober.ask(place, Purpose.POLL, now, RANK_TIME if keep else 0.0, keep=keep)

    def others(self, count: int) -> List[MemberEntry]:
        """Some others, who may know more; many for one who has slept, since most may have left."""
        view = self._means.view
        count = ASKED_AFTER_SLEEP if self.election.has_slept else count
        entries = [e for e in view.roster.succession(view.supernode_id) if e.node_id != view.node_id]
        return self._means.rng.sample(entries, min(count, len(entries)))

    # ---- hearing

    def is_alive(self, address: Address, answer: Answer, is_in_doubt: bool, is_given_up: bool, now: float) -> bool:
        """Somebody of this network answered: was that the supernode itself, and does it still rule?"""
        view = self._means.view
        view.hear_term(answer.term)
        is_ruling = answer.role == ROLE_SUPERNODE and answer.term >= view.term
        if is_ruling and answer.node_id == view.supernode_id:
            return True
        self._on_answer(address, answer, is_in_doubt, is_given_up, now)
        return False

    def _on_answer(self, address: Address, answer: Answer, is_in_doubt: bool, is_given_up: bool, now: float) -> None:
        """Another member than the supernode; whom it knows is asked, if there may be another one by now.

        Or the same one elsewhere, where it was given up: its address and ours may have changed together.
        """
        view = self._means.view
        is_door = speaks_at_door(answer)
        if not is_door:
            self.election.hear(address, answer, view.supernode_id, now)
        # Equal terms, too: after a partition both sides may have elected (Election.best_claim).
        obeys_another = answer.term == view.term and answer.supernode_id not in (NO_NODE, view.supernode_id)
        is_ahead = is_door or (answer.role == ROLE_MEMBER and (answer.term > view.term or obeys_another))
        place = seen_from(answer.supernode, address)
        has_moved = is_given_up and answer.supernode_id == view.supernode_id and place != view.supernode_address
        if (is_in_doubt and is_ahead) or has_moved:
            near = [*view.near(), address[0], *(known[0] for known in view.known_supernodes)]
            self._means.prober.ask_hinted(place, Purpose.POLL, near, now)


class Suspicion:
    """The supernode is silent or its link is lost: ask it, and others about it."""

    def __init__(self, means: Means, bond: Bond, inquiry: Inquiry, now: float) -> None:
        self._means = means
        self._bond = bond
        self._inquiry = inquiry
        self._probes_sent = 0
        self._wake_at = now
        inquiry.election.forget()
        for entry in inquiry.others(ASKED_BESIDES + 1):
            inquiry.ask_member(entry.node_id, now, KEPT)

    def next_deadline(self) -> float:
        return self._wake_at

    def pause(self, now: float) -> None:
        """It could not be joined; ask again after a moment."""
        self._wake_at = now + POLL_INTERVAL

    def on_timer(self, now: float) -> Optional[Gone]:
        """Ask it once more; after PROBES of these and a long enough silence it is gone."""
        if self._means.view.supernode_link is not None:
            self._bond.beat_if_due(now)
        if now >= self._bond.heard_at + self._inquiry.gone_after(now) and self._probes_sent >= PROBES:
            return Gone()
        self._inquiry.ask_supernode(now)
        self._probes_sent += 1
        self._wake_at = now + PROBE_INTERVAL + PROBE_JITTER * self._means.rng.random()
        return None


class Succession:
    """The supernode is gone: find the one who takes over, or take over; a guest (not `may_rule`) only looks on."""

    def __init__(self, means: Means, inquiry: Inquiry, turn: Turn, now: float, may_rule: bool = True) -> None:
        self._means = means
        self._may_rule = may_rule
        self._inquiry = inquiry
        self._turn = turn
        self._wake_at = self._poll_at = now
        view = means.view
        self._is_hall = len(view.roster) >= HALL
        order = [entry.node_id for entry in view.roster.succession(without=view.supernode_id)]
        if not may_rule:  # whoever else takes over has a right to it
            order.sort(key=lambda node_id: node_id == view.node_id)
        inquiry.election.begin(view.term, view.supernode_id, order, now)

    def next_deadline(self) -> float:
        return self._wake_at

    def pause(self, now: float) -> None:
        """Whom we followed could not be joined; ask again after a moment."""
        self._wake_at = now + POLL_INTERVAL

    def on_timer(self, now: float) -> Union[Found, TakeOver, None]:
        """Go to a new supernode when our turn in the crowd comes; take over when that is ours to do; else ask on."""
        election = self._inquiry.election
        if self._turn.is_taken:
            self._wake_at = self._turn.at
            return self._turn.come(now)
        if self._follows_claim(now):
            return None
        is_my_turn = self._may_rule and election.is_my_turn(now)
        if is_my_turn and election.knows(now):
            term_seen = self._means.view.term_seen
            return TakeOver(term_seen + 1 if term_seen < TERM_MAX else None)
        if now >= self._poll_at or not self._is_hall or self._is_last_look(now):
            self._poll(now)
        self._wake_at = now + LAST_LOOK if is_my_turn else self._next_moment(now)
        return None

    def on_answer(self, answer: Answer, now: float) -> None:
        """One that may rule: follow it, but never a new poll here: answers would cause queries without end."""
        if answer.role != ROLE_MEMBER and not self._turn.is_taken:
            self._follows_claim(now)

    def _follows_claim(self, now: float) -> bool:
        """Is there a claim to follow? Then do, when our turn in the crowd comes."""
        claim = self._inquiry.election.best_claim(now)
        if claim is not None:
            self._turn.take(claim.address, now)
            self._wake_at = self._turn.at
        return claim is not None

    def _poll(self, now: float) -> None:
        """Ask the lost supernode, those whose turn is before mine, and some others who may know more."""
        inquiry, election, roster = self._inquiry, self._inquiry.election, self._means.view.roster
        inquiry.ask_supernode(now)
        election.ask(now)
        self._poll_at = now + max(POLL_INTERVAL, POLL_INTERVAL_EACH * len(roster))
        turn = int((now - election.gone_at) / RANK_TIME) + (AHEAD_IN_HALL if self._is_hall else ASKED_AHEAD)
        before = [roster.get(node_id) for node_id in election.before_me()[:turn]]
        asked = [entry.node_id for entry in [*before, *inquiry.others(ASKED_BESIDES)] if entry is not None]
        keep = 0 if self._is_last_look(now) else KEPT
        for node_id in dict.fromkeys(asked):
            inquiry.ask_member(node_id, now, keep)
        for claim in election.claims(PATIENCE, now):
            self._means.prober.ask(claim.address, Purpose.POLL, now)

    def _is_last_look(self, now: float) -> bool:
        """Is it about to be our turn?"""
        return now >= self._inquiry.election.my_turn_at() - LAST_LOOK - 1e-6

    def _next_moment(self, now: float) -> float:
        """When there may be something to decide, or to ask."""
        election = self._inquiry.election
        turn_at = election.my_turn_at()
        moments = [election.gone_at + CLAIM_WAIT, turn_at - LAST_LOOK, turn_at, self._poll_at]
        return min(moment for moment in moments if moment > now)
