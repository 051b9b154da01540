"""How a node gets into a network: the search for one, and the attempt to join that it makes at the moment.

Whether, and where, to try next is for the `Course` to say; here is what there is to choose from, and the link of the
attempt. Both are over when the node is in. Pure.
"""

from __future__ import annotations

from typing import Any, Optional

from protocol.fields import Address
from protocol.membership.applying import Applicant
from protocol.membership.joining import Attempt
from protocol.membership.searching import Search
from protocol.messages import NO_NETWORK, Answer

BUSY_WAIT_MAX = 4.0  # seconds, where others answered as well; who is honestly busy asks for no more


class WayIn:
    """At most one search, and at most one attempt."""

    def __init__(self, applicant: Applicant) -> None:
        self._applicant = applicant
        self.forget()

    def forget(self) -> None:
        """Nothing is searched or tried any more; whoever wants the link of an attempt closed drops it first."""
        self.search: Optional[Search] = None  # until this node is in a network
        self.attempt: Optional[Attempt] = None

    def begin_search(self, search: Search) -> None:
        """This node wants into a network."""
        self.search = search

    def begin(self, attempt: Attempt) -> None:
        """It tries to join there; no other attempt is being made."""
        self.attempt = attempt

    def drop(self, reason: str) -> None:
        """The present attempt, if there is one, has failed or is of no use any more."""
        attempt, self.attempt = self.attempt, None
        if attempt is not None:
            attempt.give_up(reason)

    def since(self, otherwise: float) -> float:
        """When this node began to search; `otherwise`: where it does not."""
        return self.search.since if self.search is not None else otherwise

    def owns(self, link: int) -> bool:
        """Is it the link of the present attempt?"""
        return self.attempt is not None and link == self.attempt.link

    def on_link_up(self, now: float) -> None:
        """The link of the present attempt is there: it begins with our Join."""
        attempt = self.attempt
        assert attempt is not None
        attempt.on_link_up(now)
        self.send_join(attempt)

    def send_join(self, attempt: Attempt) -> None:
        """Ask the supernode at the other end of its link to take this node in."""
        told = NO_NETWORK if self.search is None else self.search.network_at(attempt.address)
        self._applicant.send_join(attempt, told)

    def instead(self, now: float) -> Optional[Address]:
        """Whom else to ask, where who answered a search first is busy; None: nobody now, so that one is waited for."""
        search, attempt = self.search, self.attempt
        if attempt is None or search is None or search.target is not None:
            return None
        place: Optional[Address] = search.instead_of(attempt.address)
        if place is None and search.has_others(attempt.address):
            attempt.wait_at_most(now + BUSY_WAIT_MAX)
        return place

    def after(self, mute: Address) -> Optional[Address]:
        """Whom else to ask, where who answered a search takes nobody in; None where a person said whom."""
        return self.search.after(mute) if self.search is not None and self.search.target is None else None

    def on_late_answer(self, address: Address, answer: Answer, purpose: Any, now: float) -> bool:
        """An answer to the search, while one that was quicker is being joined already.

        Who was quicker may take nobody in; True: it has put this node off, and here is the first other one to ask.
        """
        search, attempt = self.search, self.attempt
        if search is None or attempt is None:
            return False
        had_others = search.has_others(attempt.address)
        search.on_answer(address, answer, purpose, now)
        return attempt.link is None and not had_others and search.has_others(attempt.address)
