"""What a person is told of the network: how it began, who rules, who came and who left; each thing once.

Pure.
"""

from __future__ import annotations

from typing import Dict, List, Optional

from protocol.addresses import shown
from protocol.fields import Address
from protocol.membership.contracts import Audience, Owner, Seat
from protocol.membership.roster import Change
from protocol.membership.searching import Search
from protocol.membership.view import View

WAITING = "the network is there, but its supernode gives no sign; waiting for who takes over ..."
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


class Story:
    """How it went since this node searched for its network."""

    def __init__(self, owner: Owner, audience: Audience, view: View) -> None:
        self._owner = owner
        self._audience = audience
        self._view = view
        self.forget()

    def forget(self) -> None:
        """This node leaves its network: the next one is a new story."""
        self.was_joined = False
        self.is_merging = False  # the supernode stepped down for another one of our network
        self.is_staying = False  # it rules no more, and stays a member
        self._told_lost = False
        self._silent: Optional[float] = None  # how long the lost supernode was silent; None: it said good-bye
        self._last_label = ""  # of the last supernode
        self._stays = ""  # label of the one before who rules now, as long as it is not back as a member

    # ---- the search

    def on_waits(self) -> None:
        """Members have answered, and nobody rules them."""
        self._audience.on_notice(WAITING)

    def on_found(self, search: Search, address: Address) -> None:
        """The network is at that address; where a person sent this node to another one, that is told."""
        if search.target is None:
            return
        nobody, other = f"nobody answers at {shown(search.target)}", shown(address)
        if search.has_moved(address):
            self._audience.on_notice(f"{nobody}; the network that was there is at {other} now")
        elif search.is_elsewhere(address):
            self._audience.on_notice(f"{nobody}; the network of last time is at {other}")

    def on_nobody(self, search: Search, now: float) -> None:
        """It is over, and nobody answered; but this node may know where the network is."""
        hint = search.hint
        whose = "" if hint is None else f"{hint.name}'s" if hint.name else "a"
        text = "" if hint is None else f"{whose} network is at {shown(hint.address)}"
        self._audience.on_outcome("nobody", search.target if hint is None else hint.address, text, now)

    def on_waited_in_vain(self, search: Search, address: Optional[Address], now: float) -> None:
        """It is over; members have answered, and this node was not taken in."""
        self._audience.on_outcome("refused", address, why_in_vain(search), now)

    def on_refused(self, search: Search, address: Address, reason: str, now: float) -> None:
        """It is over, and the supernode there takes nobody in, for that reason."""
        if search.has_waited:
            self.on_waited_in_vain(search, address, now)
        else:
            told = f"The network at {shown(address)} did not take this node in: {reason}"
            self._audience.on_outcome("refused", address, told, now)

    # ---- this node rules, or does so no more

    def on_takes_over(self, seat: Seat) -> None:
        """It begins to; one that all can reach may be missed."""
        if self._view.is_shut and seat.awaited is not None:
            gone = self._view.roster.label_of(self._view.supernode_id or b"")
            self._audience.on_notice(f"{gone} is gone and nobody here can be reached by all; waiting for {gone}")

    def on_goes_over(self) -> None:
        """It was alone, and leaves its own network for another one."""
        self._audience.on_notice("a network was here before; nobody had joined this node, so it goes there")

    # ---- the supernode goes

    def on_goodbye(self, is_merging: bool) -> None:
        """It named who comes after it: its successor, or another supernode for which it steps down."""
        self._silent = None
        self.is_merging = self.is_merging or is_merging

    def on_stays(self) -> None:
        """It will name who rules next, and be a member under that one."""
        self.is_staying = True

    def on_gone(self, silent: float) -> None:
        """It gave no sign for so many seconds."""
        self._silent = silent

    def on_election(self) -> None:
        """Whoever was named does not rule."""
        self.is_merging = self.is_staying = False

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
            self._stays = self._last_label if self.is_staying else ""
        self._silent, self.is_merging, self.is_staying, self._last_label = None, False, False, label
        changes = [] if is_first else view.roster.difference(before, [old_id, view.supernode_id])
        self.on_changes(changes, now)

    def on_changes(self, changes: List[Change], now: float) -> None:
        """Who came and who left; the lines of others may have changed as well."""
        for change in changes:
            if change.has_joined and change.label == self._stays:
                self._stays = ""  # nobody was told that it left
            elif change.has_joined:
                self._audience.on_member_joined(change.label, now)
            else:
                self._stays = "" if change.label == self._stays else self._stays
                self._audience.on_member_left(change.label, change.silent, now)
        self._owner.on_roster_changed(now)
