"""What follows when a network has taken this node in: it knows that network, and lives in it from then on.

Between the two the `Course` says that this node has joined; whoever is told may ask it. Pure.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple, Optional

from protocol.membership.applying import Applicant
from protocol.membership.belonging import Bond
from protocol.membership.contracts import Owner
from protocol.membership.failover import Inquiry
from protocol.membership.joining import Entered
from protocol.membership.story import Story
from protocol.membership.view import View
from protocol.membership.voice import Voice


class Before(NamedTuple):
    """How it was before this node came in."""

    supernode_id: Optional[bytes]
    labels: Any  # of the members that it knew
    is_first: bool  # it was in no network yet


class Entrance:
    """Of one node, into whichever network."""

    def __init__(
        self, view: View, owner: Owner, applicant: Applicant, bond: Bond, inquiry: Inquiry, chat: Voice, story: Story
    ) -> None:
        self._view = view
        self._owner = owner
        self._applicant = applicant
        self._bond = bond
        self._inquiry = inquiry
        self._chat = chat
        self._story = story

    def arrive(self, entered: Entered, now: float) -> Before:
        """Welcome and roster are here: from now on this node knows that network."""
        view, story = self._view, self._story
        before = Before(view.supernode_id, view.roster.labels(), not story.was_joined)
        view.enter(
            entered.welcome, entered.link, entered.address, entered.entries, entered.version, entered.names, now
        )
        self._applicant.enter()
        # One that died may have confirmed lines that it told to nobody; one that merges has told them all.
        is_other = before.supernode_id not in (None, view.supernode_id) and not story.is_merging
        self._chat.on_entered(entered.welcome, before.is_first, self._bond.heard_at if is_other else math.inf)
        return before

    def settle(self, before: Before, now: float) -> None:
        """It has joined: signs of life go out, its person and its owner are told, and what waits is said."""
        self._inquiry.on_entered(self._story.is_unplanned(before.supernode_id), now)
        self._bond.begin(now)
        self._story.on_entered(before.supernode_id, before.labels, now)
        self._applicant.speak_first(before.is_first)
        self._owner.on_joined(now)
        self._chat.speak(now)
