"""One try to become a member: connect, Join, Welcome, roster.

`Attempt` is the phase of a node that joins. It is told what comes by its link, and says in the end that this node has
Entered, that this Failed, or that it is to be tried Elsewhere; where a failure leads back to, the `Course` knows.
Its own supernode is joined in the same way, over a link that needs no dialling. Pure.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Union

from protocol import messages
from protocol.addresses import may_contact, seen_from
from protocol.fields import Address
from protocol.membership.local_link import LOCAL_LINK
from protocol.membership.queries import Purpose
from protocol.membership.roster import PageError, Pages
from protocol.membership.view import Means
from protocol.messages import NOWHERE, MemberEntry

NAMES_PAGES_MAX = 32  # of what members are called; more than the largest network needs
HOPS_MAX = 3  # redirections from one node to the next
JOIN_TIMEOUT = 5.0  # seconds of one try without a step on the way: call, link, welcome, lines of the roster
ROSTER_TIME, ROSTER_RATE = 10.0, 100  # seconds from the welcome for names and the roster, of which so many
# lines are to come in each second more: a thousand welcomed at once get theirs late, but not drop by drop
JOIN_TIME_MAX = 60.0  # for all attempts at a busy supernode, and for the longest


class Entered(NamedTuple):
    """The supernode there has taken this node in, and told it who else is in its network."""

    welcome: messages.Welcome
    link: int
    address: Address
    entries: Sequence[MemberEntry]
    version: int
    is_other: bool  # network than the one that this node was in
    names: Sequence[Any] = ()  # what it told of what they are called


class Failed(NamedTuple):
    """It did not: nobody is there, or somebody refuses."""

    reason: str
    is_false: bool = False  # what was said is not obeyed, but counted


class Elsewhere(NamedTuple):
    """There the next attempt is to be made, so many redirections on."""

    address: Address
    hops: int


class PutOff(NamedTuple):
    """It is busy, and asks to come again later."""


Finding = Union[Entered, Failed, Elsewhere, PutOff, None]  # None: go on


class Attempt:
    """One try to join the supernode at an address."""

    def __init__(
        self,
        means: Means,
        address: Address,
        now: float,
        since: float,
        hops: int = 0,
        is_search: bool = False,
        is_to_another: bool = False,
        link: Optional[int] = None,
    ) -> None:
        self.address = address
        self.link = link  # None: waiting to try again
        self.is_to_another = is_to_another  # network than the one that this node is in
        self._means = means
        self._hops = hops
        self._is_search = is_search  # a newcomer goes where it is sent
        self._deadline = now + JOIN_TIMEOUT
        self._stepped_at = now
        self._lines = 0  # of the roster that have come; its pages may begin anew
        self._gives_up_at = since + JOIN_TIME_MAX  # `since` it has no supernode, however often one was busy
        self._again_at = now
        self._welcome: Optional[messages.Welcome] = None
        self._pages = Pages()
        self._names: List[Any] = []

    def dial(self, now: float) -> Optional[Failed]:
        """Open the link there, if anything may be sent to that place."""
        tries = self._means.prober.hearsay.may_dial(self.address, now)
        if not tries:
            return Failed("nobody answers there")
        self.link = self._means.network.connect(self.address, tries)
        return None

    def give_up(self, reason: str) -> None:
        """Close the link, if there is one that can be closed; it still says which it was."""
        if self.link is not None and self.link != LOCAL_LINK:
            self._means.network.disconnect(self.link, reason)

    def on_link_up(self, now: float) -> None:
        """The link is there; it begins with our Join."""
        self.on_step(now)
        self._means.prober.hearsay.on_answer(self.address, now)  # on this machine the link may show another one

    def on_step(self, now: float) -> None:
        """It gets on: a thousand are welcomed at once, and who gives up a slow one begins anew behind all others."""
        self._stepped_at = now
        self._wait(now)

    def _wait(self, now: float) -> None:
        """Something came behind the last step: whoever has it come drop by drop is waited for no longer."""
        until = min(now + JOIN_TIMEOUT, self._stepped_at + ROSTER_TIME + self._lines / ROSTER_RATE, self._gives_up_at)
        self._deadline = max(self._deadline, until)

    def next_deadline(self) -> float:
        return self._again_at if self.link is None else self._deadline

    def on_timer(self, now: float) -> Finding:
        if now < self.next_deadline():
            return None
        if self.link is None:  # it was busy, and asked us to come again now
            return Elsewhere(self.address, self._hops)
        return Failed("no answer")

    def on_link_lost(self, reason: str) -> Failed:
        """The link is closed: the attempt has failed."""
        self.link = None
        return Failed(reason)

    def on_message(self, message: Any, now: float) -> Finding:
        """What comes by the link; what has no place in a joining is ignored."""
        handler = _HANDLERS.get(type(message))
        return None if handler is None else handler(self, message, now)

    def _on_welcome(self, welcome: messages.Welcome, now: float) -> Finding:
        view = self._means.view
        is_right = view.takes_other(welcome) if self.is_to_another else view.takes(welcome)
        if not is_right or self._welcome is not None:
            return Failed("it belongs to another network", is_false=True)
        self._welcome = welcome
        self.on_step(now)
        return None

    def _on_page(self, page: messages.RosterPage, now: float) -> Finding:
        try:
            is_complete = self._pages.add(page)
        except PageError as error:
            return Failed(str(error))
        self._lines = max(self._lines, len(self._pages.entries))
        self._wait(now)
        if not is_complete or self._welcome is None or self.link is None:
            return None
        entries = self._pages.entries
        return Entered(self._welcome, self.link, self.address, entries, page.version, self.is_to_another, self._names)

    def _on_names(self, message: Any, now: float) -> None:
        if len(self._names) < NAMES_PAGES_MAX:
            self._names.append(message)
            self._wait(now)

    def _on_not_supernode(self, message: messages.NotSupernode, now: float) -> Finding:
        place = seen_from(message.supernode, self.address)
        near = [*self._means.view.near(), self.address[0]]
        if not self._is_search:
            self._means.prober.ask_hinted(place, Purpose.POLL, near, now)  # the election weighs what it says
        elif place not in (NOWHERE, self.address) and self._hops < HOPS_MAX and may_contact(place, near):
            return Elsewhere(place, self._hops + 1)
        return Failed("it is not the supernode, and names nobody who is")

    def _on_busy(self, busy: messages.Busy, now: float) -> Finding:
        delay = busy.retry_after_ms / 1000
        if self.is_to_another or busy.retry_after_ms == 0 or now + delay > self._gives_up_at:
            return Failed(busy.reason or "it refuses")
        self.give_up("busy")
        self.link = None
        self._again_at = now + delay * (1.0 + self._means.rng.random())
        return PutOff()

    def wait_at_most(self, until: float) -> None:
        """There are others to ask: nobody but this one says that it is to be waited for so long."""
        self._again_at = min(self._again_at, until)


_HANDLERS: Dict[Any, Callable[[Attempt, Any, float], Finding]] = {
    messages.Welcome: Attempt._on_welcome,
    messages.RosterPage: Attempt._on_page,
    messages.NotSupernode: Attempt._on_not_supernode,
    messages.Busy: Attempt._on_busy,
    messages.Called: Attempt._on_names,
    messages.WasCalled: Attempt._on_names,
}
