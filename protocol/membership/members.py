"""Who is here and who rules, as the other rooms of a node ask it; nothing is kept here.

Membership is the machine that joins, follows and fails over. Those who fetch and serve files want to know of it only
whom they may link to, by which name a person knows that node, and how to reach the supernode: that is `Members` (the
contract is in `protocol/exchange/contracts.py`), and what a person sees of the members is made here, too.
"""

from __future__ import annotations

from typing import AbstractSet, Any, Dict, FrozenSet, List, Optional

from protocol.facts import Health, Reached
from protocol.fields import Address
from protocol.membership.membership import Membership
from protocol.membership.office import Office
from protocol.messages import MemberEntry
from protocol.results import MemberRow, Reach


class Members:
    """The members of this node's network, this node among them."""

    def __init__(self, membership: Membership, office: Office) -> None:
        self._membership = membership
        self._office = office

    # ---- this node, and who rules

    @property
    def node_id(self) -> bytes:
        return self._membership.node_id

    @property
    def network_id(self) -> bytes:
        return self._membership.network_id

    @property
    def mesh(self) -> bool:
        """Does this node open links to other members?"""
        return self._membership.mesh

    @property
    def is_supernode(self) -> bool:
        return self._office.supernode is not None

    @property
    def may_rule(self) -> bool:
        """Does this node found networks, and take them over? A guest does not."""
        return self._membership.may_rule

    @property
    def port(self) -> int:
        """At which this node is reached, as far as it knows."""
        return self._membership.network.address[1]

    @property
    def reach(self) -> Reach:
        """Can others reach this node, as far as is known by now?"""
        return self._membership.ways.reach

    @property
    def is_merging(self) -> bool:
        """Did the supernode step down for another one of this network?"""
        return self._membership.story.is_merging

    @property
    def is_staying(self) -> bool:
        """Does the supernode rule no more, but stay a member?"""
        return self._membership.story.is_staying

    @property
    def has_supernode(self) -> bool:
        """Is there one to speak to? (This node's own counts.)"""
        return self._membership.is_joined

    @property
    def supernode_id(self) -> Optional[bytes]:
        return self._membership.supernode_id

    @property
    def round_trip(self) -> Optional[float]:
        """Seconds, to the supernode and back; None as long as that is not known."""
        return self._membership.round_trip

    def send_to_supernode(self, message: Any) -> bool:
        """False when there is none at present."""
        return self._membership.send_to_supernode(message)

    # ---- the others

    def member_count(self) -> int:
        return len(self._membership.roster)

    def is_member(self, node_id: bytes) -> bool:
        return node_id in self._membership.roster

    def has_mesh(self, node_id: bytes) -> bool:
        """Is this a member whose mesh is on?"""
        entry = self._membership.roster.get(node_id)
        return entry is not None and bool(entry.mesh)

    def label_of(self, node_id: bytes) -> str:
        return self._membership.label_of(node_id)

    def labels_of_others(self) -> FrozenSet[str]:
        """What the others are called."""
        return frozenset(self.label_of(entry.node_id) for entry in self._membership.roster
                         if entry.node_id != self.node_id)

    def place_of(self, node_id: bytes) -> Optional[Address]:
        """Where to contact this member, or None when it is unknown or must not be contacted."""
        return self._membership.ways.place_of(node_id)

    def seen_place(self, node_id: bytes) -> Optional[Address]:
        """Where the roster means this member to be, as seen from here; None when it is unknown."""
        return self._membership.ways.seen_place(node_id)

    def is_at(self, node_id: bytes, address: Address) -> bool:
        """Has this member, introduced by the supernode, shown that it receives there?"""
        return self._membership.ways.is_at(node_id, address)

    def is_certificate_of(self, node_id: bytes, link: int) -> bool:
        """May who is at the other end of this link be that member, by the certificate that it has shown?"""
        membership = self._membership
        return membership.identities.fits(node_id, membership.network.fingerprint(link))

    def is_out_of_reach(self, node_id: bytes) -> bool:
        """Is it known beforehand that nothing leads directly to this member?"""
        return self._membership.ways.is_out_of_reach(node_id)

    def may_dial(self, place: Address, now: float, keep: int = 0) -> float:
        """How many datagrams may try to connect there, so that `keep` are left? (protocol/hearsay.py; 0: not now)"""
        return self._membership.hearsay.may_dial(place, now, keep)

    def mates(self, at_most: int) -> List[bytes]:
        """The members that joined just before this one, as far as they have their mesh on: to stand by with.

        The last to come is first. With its own mesh off, or as the supernode (who has a link with each anyway), this
        node stands by with nobody.
        """
        if not self.mesh or self.is_supernode:
            return []
        before: List[bytes] = []
        for entry in self._membership.roster:
            if entry.node_id == self.node_id:
                break
            if entry.mesh and entry.present and entry.node_id != self.supernode_id:
                before.append(entry.node_id)
        return before[: -at_most - 1 : -1]

    # ---- what a person sees

    def rows(
        self, links: Dict[bytes, int], reached: AbstractSet[bytes], unreached: AbstractSet[bytes], now: float
    ) -> List[MemberRow]:
        """Who is here, in join order; `links` for pieces there are with each node, up with those who were reached."""
        rows = []
        for entry in self._membership.roster:
            way = self._way_to(entry, entry.node_id in reached, entry.node_id in unreached)
            fingerprint = self._membership.identities.fingerprint(entry.node_id)
            rows.append(self._row(entry, links, now)._replace(way=way, fingerprint=fingerprint))
        return rows

    def health(self, rows: List[MemberRow], now: float) -> Health:
        """What this node knows of its network, for whoever asks what is the matter; `rows`: who is here."""
        membership, known = self._membership, self.reach
        link = membership.supernode_link
        path = membership.network.figures(link) if link else None  # none by way of LOCAL_LINK
        reached = Reached(known.is_open, known.by, max(0.0, now - known.at), known.nat.value)
        return Health(membership.is_joined, tuple(rows), path, reached)

    def _way_to(self, entry: MemberEntry, is_reached: bool, is_unreached: bool) -> str:
        """How what this member has comes here, and why not directly; nothing as long as it was not tried."""
        if entry.node_id == self.node_id:
            return ""
        if not entry.present and not is_reached:  # it was under the supernode before, and did not come to the new one
            return "not back yet"
        if is_reached or (self.has_supernode and (self.is_supernode or entry.node_id == self.supernode_id)):
            return "direct"
        is_open = self.mesh and entry.mesh
        if is_open and not is_unreached:
            return ""
        why = "it did not answer" if is_open else "mesh off"
        return f"by way of {self.label_of(self.supernode_id or b'')}: {why}" if self.has_supernode else f"none: {why}"

    def _row(self, entry: MemberEntry, links: Dict[bytes, int], now: float) -> MemberRow:
        """A member as far as this node knows it: what only others know stays blank."""
        node_id, membership, supernode = entry.node_id, self._membership, self._office.supernode
        is_me, is_ruler = node_id == self.node_id, node_id == self.supernode_id
        heard = trip = None
        if is_me:
            members = supernode.linked_count() if supernode is not None else int(self.has_supernode)
            count = sum(links.values()) + members
        else:
            if supernode is not None:
                heard, trip = supernode.heard_ago(node_id, now), supernode.round_trip(node_id)
            elif is_ruler and self.has_supernode:
                heard, trip = max(0.0, now - membership.heard_at), membership.round_trip
            count = links.get(node_id, 0) + (heard is not None)
        place = membership.network.address if is_me else self.place_of(node_id) or entry.place
        role = "supernode" if is_ruler else "member"
        return MemberRow(self.label_of(node_id), place, role, is_me, count or None, trip, heard, entry.mesh)
