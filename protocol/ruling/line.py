"""A line of the supernode's register: one member, as the supernode knows it.

It is kept while its member gives signs of life, and for a while when its link was lost or a failover has brought it
here without one. Pure: `now` is monotonic seconds.
"""

from __future__ import annotations

import math
from typing import Optional

from protocol import messages
from protocol.fields import Address
from protocol.membership.local_link import LOCAL_LINK
from protocol.messages import MemberEntry
from protocol.rates import Bucket

SILENT_MAX = 8.0  # seconds without a sign (four beats) until a member is gone
ARRIVES_EACH = 0.02  # seconds more, for each member, until one speaks that is still being sent the roster
FRESH = 4.0  # seconds in which a member counts as surely alive
RETURN_TIME = 60.0  # seconds that a line is kept for its member, after a failover or when it was lost
REQUESTS_PER_SECOND, REQUESTS_BURST = 200.0, 400.0  # lists and searches from one member
ROUND_TRIP_US_MAX = 60_000_000  # that a member may claim


class Line:
    """One member, as the supernode knows it."""

    def __init__(self, entry: MemberEntry, now: float) -> None:
        self.entry = entry
        self.link: Optional[int] = None
        self.is_ready = False  # it has been sent the roster; only then anything else
        self.heard_at = now
        self.heirloom: Optional[messages.Heirloom] = None  # what it gives to its own members, should it ever rule
        self.was_lost = False  # it comes back from where it gave no sign for a while
        self.round_trip: Optional[float] = None  # seconds, as the member measured it
        self.is_guest = False  # it rules nobody
        self.says_good_bye = False  # as soon as the doubt is over
        self.requests = Bucket(REQUESTS_PER_SECOND, REQUESTS_BURST, now)
        self.pings_each = 0.0  # seconds, if it was told to say so seldom that it lives; else it says so at each beat
        self._spoke_at = now  # when its role last said something
        self._expires_at = now + RETURN_TIME  # when it has no link
        self._returns_by = -math.inf if entry.present else self._expires_at  # after a failover, until it has spoken
        self._has_spoken = False  # since it came, as one who has the roster
        self._wished_mesh = entry.mesh

    @property
    def node_id(self) -> bytes:
        """Of the member."""
        return self.entry.node_id

    @property
    def is_own(self) -> bool:
        """Is this the peer of the supernode's own node?"""
        return self.link == LOCAL_LINK

    def is_fresh(self, now: float) -> bool:
        """Is it surely alive?"""
        return now - self.heard_at <= FRESH

    def is_silent(self, now: float, members: int = 0) -> bool:
        """Did it give no sign for so long that it counts as gone? Among so many, the roster takes a while to arrive."""
        return now - self.heard_at > SILENT_MAX + (0.0 if self._has_spoken else ARRIVES_EACH * members)

    def has_expired(self, now: float) -> bool:
        """Is it time to give up a member that has no link?"""
        return now >= self._expires_at

    def come(self, join: messages.Join, place: Address, order: int, now: float) -> None:
        """It is taken in, at first or again; the roster follows."""
        self.entry = self.entry._replace(name=join.name, place=place, order=order, mesh=join.mesh, present=True)
        self._wished_mesh = join.mesh
        self.heard_at = self._spoke_at = now
        self.round_trip, self.pings_each = None, 0.0
        self.is_ready = self._has_spoken = False

    def move(self, place: Address) -> None:
        """It is there from now on; the roster follows."""
        self.entry = self.entry._replace(place=place)

    def recall(self, was_lost: bool, heirloom: messages.Heirloom) -> None:
        """What it is to those who look for members that were lost."""
        self.was_lost, self.heirloom = was_lost, heirloom

    def connect(self, link: int) -> None:
        """It is at the end of that link."""
        self.link = link

    def disconnect(self) -> Optional[int]:
        """It has no link from now on; which one had it?"""
        link, self.link = self.link, None
        return link

    def lose_link(self, now: float) -> None:
        """Its link broke: it has time to come again by a new one; all of it, if it was only on its way back."""
        self.link = None
        self.is_ready = False
        returns_by = -math.inf if self._has_spoken else self._returns_by
        self._expires_at = max(now, self.heard_at + SILENT_MAX, returns_by)

    def hear(self, now: float, has_roster: bool = True) -> None:
        """A sign of life; and of having the roster, but for the Claim that comes right behind a Join."""
        self.heard_at = self._spoke_at = now
        self._has_spoken = self._has_spoken or has_roster

    def rest(self, pings_each: float) -> None:
        """It was told to send a Ping only so often, in seconds: between two of them its link shows that it lives."""
        self.pings_each = pings_each

    def hear_link(self, at: float) -> None:
        """Something came by its link then; a role that has not spoken for too long counts as gone all the same."""
        self.heard_at = max(self.heard_at, min(at, self._spoke_at + self.pings_each))

    def forgive(self, now: float) -> None:
        """It was not silent: nobody listened."""
        self.heard_at = self._spoke_at = now
        self._expires_at = max(self._expires_at, now + SILENT_MAX)

    def measure(self, round_trip_us: int) -> None:
        """The member says how long its Pings take; 0: it does not know yet."""
        if 0 < round_trip_us <= ROUND_TRIP_US_MAX:
            self.round_trip = round_trip_us / 1e6

    def await_roster(self) -> None:
        """It is to be sent the whole roster before anything else."""
        self.is_ready = False

    def have_roster(self) -> None:
        """It was sent the roster: whatever is for all is for it, too."""
        self.is_ready = True

    def take_order(self, order: int) -> None:
        """Its place among those who would take over is this one from now on."""
        self.entry = self.entry._replace(order=order)

    def wish_mesh(self, mesh: bool) -> None:
        """It wants links to other members, or none; see `switch_mesh`."""
        self._wished_mesh = mesh

    def switch_mesh(self, now: float) -> bool:
        """As it wishes, if its requests have room; somebody who switches without end has its last wish soon."""
        has_switched = self.entry.mesh != self._wished_mesh and self.requests.take(now)
        if has_switched:
            self.entry = self.entry._replace(mesh=self._wished_mesh)
        return has_switched

    def rule_nobody(self) -> None:
        """It says of itself that it is a guest, who takes over from nobody."""
        self.is_guest = True

    def say_good_bye(self) -> None:
        """It left while it was in doubt whether this node rules: it goes when that is over."""
        self.says_good_bye = True
