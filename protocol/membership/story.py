"""What a person is told of the network: how it began, who rules, who came and who left; each thing once.

Pure.
"""

from __future__ import annotations

from typing import Dict, List, Optional

from protocol.membership.contracts import Audience, Owner
from protocol.membership.roster import Change
from protocol.membership.view import View


class Story:
    """How it went since this node searched for its network."""

    def __init__(self, owner: Owner, audience: Audience, view: View) -> None:
        self._owner = owner
        self._audience = audience
        self._view = view
        self.forget()

    def forget(self) -> None:
        self.was_joined = False
        self.is_merging = False  # the supernode stepped down for another one of our network
        self._told_lost = False
        self._silent: Optional[float] = None  # how long the lost supernode was silent; None: it said good-bye
        self._last_label = ""  # of the last supernode

    # ---- the supernode goes

    def on_goodbye(self, is_merging: bool) -> None:
        """It named who comes after it: its successor, or another supernode for which it steps down."""
        self._silent = None
        self.is_merging = self.is_merging or is_merging

    def on_gone(self, silent: float) -> None:
        """It gave no sign for so many seconds."""
        self._silent = silent

    def on_election(self) -> None:
        """Whoever was named does not rule."""
        self.is_merging = False

    def on_lost(self, now: float) -> None:
        """From now on there is none."""
        if not self._told_lost and self.was_joined:
            self._told_lost = True
            self._owner.on_supernode_lost(now)

    def is_unplanned(self, old_id: Optional[bytes]) -> bool:
        """Is this another supernode than that one, which had said nothing?"""
        return self.was_joined and old_id != self._view.supernode_id and self._silent is not None

    # ---- this node is, or is again, in a network

    def on_entered(self, old_id: Optional[bytes], before: Dict[bytes, str], now: float) -> None:
        """It was under that supernode, with the labels of those who were there, or nowhere."""
        view, audience = self._view, self._audience
        is_first, self.was_joined = not self.was_joined, True
        self._told_lost = False
        label = view.roster.label_of(view.supernode_id or b"")
        if is_first:
            audience.on_outcome("supernode" if view.is_ruler else "joined", view.supernode_address, "", now)
        elif old_id != view.supernode_id:
            audience.on_supernode_changed(self._last_label, label, view.is_ruler, self._silent, now)
        self._silent, self.is_merging, self._last_label = None, False, label
        changes = [] if is_first else view.roster.difference(before, [old_id, view.supernode_id])
        self.on_changes(changes, now)

    def on_changes(self, changes: List[Change], now: float) -> None:
        """Who came and who left; the lines of others may have changed as well."""
        for change in changes:
            if change.has_joined:
                self._audience.on_member_joined(change.label, now)
            else:
                self._audience.on_member_left(change.label, change.silent, now)
        self._owner.on_roster_changed(now)
