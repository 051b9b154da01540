"""The network as this node sees it: which one it is, who rules it and where, who is in it, and whom to believe.

`View` is read by all phases of a member (protocol/membership/course.py), and by what it answers to others; it changes
by its own verbs alone. Addresses are translated here: a roster says where the supernode sees a member, and what a
message names may not be contacted everywhere. Pure.
"""

from __future__ import annotations

import hashlib
import itertools
import random
from typing import AbstractSet, Any, Callable, Dict, Iterable, List, NamedTuple, Optional, Sequence, Tuple, Union

from protocol import messages
from protocol.addresses import is_loopback, is_of_link, may_contact, seen_from
from protocol.fields import Address
from protocol.latest import Latest
from protocol.membership.contracts import Seat
from protocol.membership.heirs import Heirlooms, heirloom_of
from protocol.membership.local_link import LOCAL_LINK
from protocol.membership.lost import LostPlaces
from protocol.membership.names import Names, suffix_of
from protocol.membership.proofs import is_proven
from protocol.membership.queries import Prober
from protocol.membership.resuming import NO_RULED, SHUT_KEPT, Ruled
from protocol.membership.roster import TERM_STEP_MAX, Change, Pages, Roster
from protocol.membership.searching import PLACES_KEPT, LastNetwork
from protocol.messages import NO_NETWORK, NOWHERE, SHUT_ORDER, Answer, Called, Chat, MemberEntry, WasCalled
from protocol.network import Network

TERM_JOINED_MAX = 1 << 31  # in a network that we come to: above it, terms could run out
ON_LINKS_MAX = 1024  # addresses of one link with their interfaces: a roster's members
KNOWN_SUPERNODES_MAX = 8  # places where supernodes of this network were


class View:
    """What a node knows of its network; nothing, while it is in none."""

    def __init__(self, network: Network, node_id: bytes, own_ips: Callable[[], Sequence[str]]) -> None:
        self.node_id = node_id
        self._network = network
        self._own_ips = own_ips
        self.dropped = 0  # messages that were not obeyed, in all networks
        self._on_links: Latest[str, str] = Latest(ON_LINKS_MAX)
        self.forget()

    def forget(self) -> None:
        """This node is in no network any more: nothing of the last one is known, but for what was dropped."""
        self.names = Names()
        self.roster = Roster(self.names)
        self.network_id = NO_NETWORK
        self.secret = b""
        self.commitment = b""  # the digest of what the supernode shows when it hands over
        self.term = 0
        self.term_seen = 0  # the highest that a member has named
        self.supernode_id: Optional[bytes] = None
        self.supernode_link: Optional[int] = None  # LOCAL_LINK when this node rules; None while there is no supernode
        self.supernode_address: Optional[Address] = None
        self.known_supernodes: List[Address] = []  # latest last
        self.lost_places = LostPlaces()
        self.awaited: Optional[Address] = None  # where the last one ruled under whom nobody could reach this node
        self.heirlooms = Heirlooms()
        self.wants_roster = False  # a version was missed
        self._pages = Pages()

    # ---- questions

    @property
    def is_ruler(self) -> bool:
        return self.supernode_link == LOCAL_LINK

    def near(self) -> List[str]:
        """IPs whose /24 counts as our own network."""
        ips = list(self._own_ips())
        if self.supernode_address is not None and not self.is_ruler:
            ips.append(self.supernode_address[0])
        return ips

    def can_reach(self, ip: str) -> bool:
        """May something go there at all: has this machine an address of that family, or the interface's name?"""
        if is_of_link(ip):
            return "%" in ip
        own = [each for each in self._own_ips() if not is_loopback(each)]
        return not own or is_loopback(ip) or any((":" in each) == (":" in ip) for each in own)

    def place_of(self, node_id: bytes) -> Optional[Address]:
        """Where to contact this member, or None when it is unknown or must not be contacted."""
        place = self.seen_place(node_id)
        if place is None or node_id == self.supernode_id or self._has_link_with(node_id):
            return place
        # First by what needs no look at this machine's interfaces, which for thirty members at each beat adds up.
        heard = [] if self.supernode_address is None or self.is_ruler else [self.supernode_address[0]]
        return place if may_contact(place, heard) or may_contact(place, self.near()) else None

    def _has_link_with(self, node_id: bytes) -> bool:
        """Who rules has a link with each member, which comes from its place: that is no hearsay."""
        entry = self.roster.get(node_id)
        return self.is_ruler and entry is not None and entry.present

    def miss_supernode(self, place: Address) -> None:
        """The one that was named did not answer there: should this node ever rule, it may be looked for again."""
        if may_contact(place, self.near()) or place in self.known_supernodes:
            self.lost_places.add(place)

    def seen_place(self, node_id: bytes) -> Optional[Address]:
        """Where the roster means this member to be, as seen from here; None when it is unknown."""
        if node_id == self.supernode_id:
            return self.supernode_address
        entry = self.roster.get(node_id)
        if entry is None or entry.place == NOWHERE:
            return None
        return self.seen_by_ruler(entry.place)

    def seen_by_ruler(self, place: Address) -> Address:
        """A place that the supernode names, as seen from here."""
        if is_of_link(place[0]):
            place = self._on_links.get(place[0], place[0]), place[1]
        if self.is_ruler or self.supernode_address is None:
            return place
        return seen_from(place, self.supernode_address)

    def see(self, ip: str) -> None:
        """A link leads there: on which interface an address is that is good on one link only, is known here alone."""
        if is_of_link(ip):
            self._on_links.put(ip.partition("%")[0], ip)

    def last_network(self) -> LastNetwork:
        """What a later run of this node needs in order to find this network again."""
        others = (self.place_of(entry.node_id) for entry in self.roster if entry.node_id != self.node_id)
        return LastNetwork(self.network_id, tuple(itertools.islice(filter(None, others), PLACES_KEPT)))

    def is_trusted(self, answer: Answer) -> bool:
        """Is this a member of our network, in a believable term? Whoever else is heard is counted."""
        is_ours = answer.network_id == self.network_id and answer.node_id != self.node_id
        is_trusted = is_ours and self.is_believable(answer.term) and is_proven(answer, self.secret)
        if not is_trusted:
            self.drop()
        return is_trusted

    def drop(self) -> None:
        """A message is not obeyed."""
        self.dropped += 1

    def obeys(self, handover: messages.Handover) -> bool:
        """Does this hand over our network? Whoever rules it alone can open the commitment."""
        is_genuine = hashlib.sha256(handover.opening).digest() == self.commitment
        # The very next term: a handover that skipped some would burn the numbers that an election needs.
        is_next = handover.term == self.term + 1 and handover.successor in self.roster
        return is_genuine and is_next and not self.is_ruler

    def is_believable(self, term: int) -> bool:
        return term <= self.term + TERM_STEP_MAX

    def takes(self, welcome: messages.Welcome) -> bool:
        """Is this the Welcome of the network that this node is in, or of any if it is in none?"""
        is_same = self.network_id in (NO_NETWORK, welcome.network_id) and self.secret in (b"", welcome.secret)
        most = self.term + TERM_STEP_MAX if self.network_id != NO_NETWORK else TERM_JOINED_MAX
        return is_same and self.term <= welcome.term <= most

    def takes_other(self, welcome: messages.Welcome) -> bool:
        """Is this the Welcome of another network?"""
        return welcome.network_id != self.network_id and welcome.term <= TERM_JOINED_MAX

    # ---- who rules

    def found(self, network_id: bytes, secret: bytes, me: MemberEntry) -> None:
        """A new network, of this node alone, or one that it ruled in an earlier run."""
        self.network_id, self.secret, self.term_seen = network_id, secret, 0
        self.roster.replace([me], 0)

    def seat(
        self, term: int, opening: bytes, mesh: bool, recent_chat: Iterable[Chat], search_port: int, now: float
    ) -> Seat:
        """What this node starts from when it rules in that term; `opening` is the secret that its node id opens."""
        self._await_supernode(self._network.address)
        self.heirlooms.add(heirloom_of(self.node_id, opening, self.network_id))
        bearers = tuple(self.names.pass_on(self.roster.labels(), self.roster))
        gone = self.roster.get(self.supernode_id or b"")
        if gone is not None:
            self.names.leave(gone, self.roster.label_of(gone.node_id), now)
        return Seat(
            self.network_id, self.secret, term, self.node_id, self._lines_for_seat(mesh), tuple(recent_chat),
            tuple(self.known_supernodes), tuple(self.lost_places), search_port, self.heirlooms.all(), bearers,
            tuple(self.names.former(now)), self.awaited, seen_by_six=self._seen_by_six(),
        )  # fmt: skip

    @property
    def is_shut(self) -> bool:
        """Can others not reach this node, as the supernode tells all?"""
        mine = self.roster.get(self.node_id)
        return mine is not None and mine.order >= SHUT_ORDER

    def _await_supernode(self, next_one: Address) -> None:
        """Another one rules from now on, or this node: should the one before come back, who is shut goes there."""
        if self.is_shut and not self.is_ruler and self.supernode_address is not None:
            self.awaited = self.supernode_address
        if self.awaited == next_one:
            self.awaited = None

    def ruled(self) -> Ruled:
        """What a later run needs in order to resume this network, if this node rules it."""
        if not self.is_ruler:
            return NO_RULED
        shut = (entry.node_id for entry in self.roster if entry.order >= SHUT_ORDER)
        return Ruled(self.network_id, self.secret, self.term, tuple(itertools.islice(shut, SHUT_KEPT)))

    def _seen_by_six(self) -> Dict[bytes, bool]:
        """By IPv6, or IPv4: whatever may be sent there. The supernode itself is seen by nobody."""
        return {entry.node_id: ":" in entry.place[0] for entry in self.roster if entry.place != NOWHERE}

    def _lines_for_seat(self, mesh: bool) -> Tuple[MemberEntry, ...]:
        """The roster as this node sees it: addresses of its own view, the others not back yet."""
        lines = []
        for entry in self.roster.succession(without=self.supernode_id):
            is_me = entry.node_id == self.node_id
            place = NOWHERE if is_me else self.place_of(entry.node_id) or NOWHERE
            lines.append(entry._replace(place=place, present=is_me, mesh=mesh if is_me else entry.mesh))
        return tuple(lines)

    def rule(self, term: int) -> None:
        """This node is the supernode from now on."""
        self.supernode_link = LOCAL_LINK
        self.term = term

    def enter(
        self,
        welcome: messages.Welcome,
        link: int,
        address: Address,
        entries: Sequence[MemberEntry],
        version: int,
        names: Sequence[Any] = (),
        now: float = 0.0,
    ) -> None:
        """Welcome and roster of the supernode there are complete; `names`: what it told of what they are called."""
        self._await_supernode(address)
        self._remember_lost(self.roster.labels().keys() - {entry.node_id for entry in entries})
        self.network_id, self.secret, self.commitment = welcome.network_id, welcome.secret, welcome.commitment
        self.term = welcome.term
        self.hear_term(self.term)
        self.supernode_id, self.supernode_link, self.supernode_address = welcome.supernode_id, link, address
        self._remember_supernode(address)
        self.wants_roster = False
        self._take_names(names, [entry.node_id for entry in entries], now)
        self.roster.replace(entries, version)

    def _take_names(self, names: Sequence[Any], node_ids: Iterable[bytes], now: float) -> None:
        """A supernode of an earlier version tells none: what was told before of those who are still here holds."""
        if names:
            self.names.forget()
        for message in names:
            self.hear_names(message, now)
        self.names.retain(node_ids)

    def hear_names(self, message: Union[Called, WasCalled], now: float) -> None:
        """What members are called, or were."""
        if isinstance(message, Called):
            self.names.hear(message.bearers)
        else:
            self.names.hear_former(message.bearers, now)
        self.roster.relabel()

    def suffix(self) -> Optional[str]:
        """What stands behind this node's own name; None while it is in no roster."""
        mine = self.roster.get(self.node_id)
        return None if mine is None else suffix_of(self.roster.label_of(self.node_id), mine.name)

    def move_supernode(self, address: Address) -> None:
        """It has another address from now on, and has answered there."""
        self.supernode_address = address
        self._remember_supernode(address)

    def _remember_supernode(self, address: Address) -> None:
        if address in self.known_supernodes:
            self.known_supernodes.remove(address)
        if address != self._network.address:
            self.known_supernodes = [*self.known_supernodes, address][-KNOWN_SUPERNODES_MAX:]

    def hear_term(self, term: int) -> None:
        self.term_seen = max(self.term_seen, term)

    def step_back_to(self, term: int) -> None:
        """The supernode that we are sent to may be of an older term: it takes in nobody of a newer one."""
        self.term = min(self.term, term)

    def end_own_rule(self) -> None:
        """The supernode was this node, and has ended: no place to look from or for."""
        self.supernode_id = self.supernode_address = None

    def lose_link(self) -> Optional[int]:
        """There is no link to the supernode any more; which was it?"""
        link, self.supernode_link = self.supernode_link, None
        return link

    # ---- who is in it, and who was

    def is_news(self, update: messages.RosterUpdate) -> bool:
        return update.term == self.term and update.version > self.roster.version

    def take_update(self, update: messages.RosterUpdate) -> Optional[List[Change]]:
        """What the update changes; None when one before it was missed, and the whole roster is wanted."""
        if update.version != self.roster.version + 1:
            self.wants_roster = True
            return None
        self._remember_lost({departure.node_id for departure in update.departed if departure.how == messages.GONE})
        changes = self.roster.apply(update, self.node_id)
        self.names.drop(departure.node_id for departure in update.departed)
        return changes

    def take_page(self, page: messages.RosterPage) -> Optional[List[Change]]:
        """A page of the roster that was wanted: what it changes, once it is complete. Raises PageError."""
        if page.term != self.term or not self._pages.add(page):
            return None
        self.wants_roster = False
        before = self.roster.labels()
        self.roster.replace(self._pages.entries, page.version)
        self.names.retain(entry.node_id for entry in self._pages.entries)
        return self.roster.difference(before, [])

    def _remember_lost(self, node_ids: AbstractSet[bytes]) -> None:
        """Should this node ever rule: they may be in the other half of a parted network."""
        for entry in self.roster.those(node_ids):
            self.lost_places.add(self.place_of(entry.node_id) or NOWHERE)

    def lose_supernode(self) -> None:
        """It is gone without a good-bye."""
        self.lost_places.add(self.supernode_address or NOWHERE)

    def hear_of_lost(self, places: Iterable[Address]) -> None:
        """Lost before this node came. It is looked there only should this node rule, and only where one may look."""
        if self.supernode_address is None:
            return
        near = self.near()
        for place in places:
            place = self.seen_by_ruler(place)
            if may_contact(place, near):
                self.lost_places.add(place)


class Means(NamedTuple):
    """What every phase of a member works with."""

    network: Network
    rng: random.Random
    prober: Prober
    view: View
