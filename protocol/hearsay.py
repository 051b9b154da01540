"""Addresses that only a message named: how much may be sent there before they have answered.

A roster, an offer, a redirection can name any address, also that of somebody who never heard of this program. One liar
in the room of a thousand would have a thousand nodes send to a victim of its choice. So each such address gets three
datagrams a minute until something comes back that only who received there can know: a query's nonce, a handshake's
cookie (RFC 9000 §21.5; THREATS: F11). Everything that dials or probes asks here first; what a person typed, and what is
sent back along the way it came and paid for by as many bytes (`protocol/credit.py`), does not. Of the three, some may
be kept for who needs them more. Members that the supernode introduces to each other knock at each place with ten small
ones (`protocol/membership/knocking.py`), which are counted apart, and so are the two by which one is tried.

    hearsay.may_send(address, now)     one datagram: is it allowed? If so, it is counted
    hearsay.may_dial(address, now)     how many first packets of a handshake are allowed; they are counted at once
    hearsay.on_answer(address, now)    it has answered: for some minutes it is no hearsay

Pure.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Dict, List, Optional

from protocol.addresses import NETWORK_SHARE, is_loopback, network_of
from protocol.fields import Address

UNANSWERED_MAX = 3  # datagrams to one address in a minute, whoever named it: no liar turns a room on a stranger
KEPT = 1  # of these three, for what a person wants, for a look at the last moment, and for connecting
HOST_UNANSWERED_MAX = 30  # to all ports of one host: a liar may name them all; ten nodes behind one NAT may be silent
KNOCKS_MAX = 10  # of under 100 bytes each, to one address in a minute: both sides of a router must have sent some
HOST_KNOCKS_MAX = 30  # to all ports of one host, for several may be behind one router
TRIES_MAX = 2  # of 17 bytes, to one address in a minute: can others reach it? (protocol/membership/reachable.py)
MINUTE = 61.0  # seconds; one more, for what leaves or arrives late
DIAL_TIME = 2.0  # seconds in which the first packets of a handshake leave (1.25: FEW_ASK_INTERVALS; and a late timer)
PROVEN_TIME = 600.0  # seconds after an answer in which an address is no hearsay
OUTSIDE_MAX = 8  # addresses that are nobody's private ones, and were tried in the last minute without an answer
ADDRESSES_MAX = 2048  # hosts among them: a roster's 1,024 members and their hosts; who names more is not believed


class _Place:
    """What was sent to an address, or to a whole host, and when it last answered."""

    __slots__ = ("answered_at", "limit", "sent_at")

    def __init__(self, limit: int) -> None:
        self.answered_at = -math.inf
        self.limit = limit
        self.sent_at: List[float] = []  # unanswered, of the last minute: at most `limit`; of a proven one the last

    def is_proven(self, now: float) -> bool:
        return now - self.answered_at < PROVEN_TIME

    def left(self, now: float) -> int:
        """How many more datagrams may go there now."""
        if self.is_proven(now):
            return self.limit
        self.sent_at = [at for at in self.sent_at if now - at < MINUTE]
        return self.limit - len(self.sent_at)


class Hearsay:
    """The one counter for each address that only a message named; of a whole node."""

    def __init__(self, address_max: int = UNANSWERED_MAX, host_max: int = HOST_UNANSWERED_MAX) -> None:
        """So many datagrams in a minute to one address, and to all ports of one host."""
        self._address_max, self._host_max = address_max, host_max
        self._places: OrderedDict[Address, _Place] = OrderedDict()  # the one used last is the last

    def __len__(self) -> int:
        return len(self._places)

    def may_send(
        self, address: Address, now: float, apart: float = 0.0, apart_proven: float = 0.0, keep: int = 0
    ) -> bool:
        """Count one datagram to this address, if it may go out.

        It may not within so many seconds after the last one, `apart` or, at a proven address, `apart_proven`; nor if it
        is one of the last `keep` of this minute.
        """
        place = self._place(address, self._address_max, now)
        if place is None or now < self._last_at(place) + (apart_proven if place.is_proven(now) else apart):
            return False
        if place.is_proven(now):
            place.sent_at = [now]
            return True
        return self._take(place, address, 1, keep, now) == 1

    def may_dial(self, address: Address, now: float, keep: int = 0) -> float:
        """Count as many first packets of a handshake as may still go out (0: do not dial now), and say how many.

        All of them are counted at once: the transport repeats them by itself. At a proven address there is no limit.
        """
        place = self._place(address, self._address_max, now)
        if place is None:
            return 0
        return math.inf if place.is_proven(now) else self._take(place, address, self._address_max, keep, now, DIAL_TIME)

    def on_answer(self, address: Address, now: float) -> None:
        """Something came from there that only who received our datagrams there can know."""
        place = self._place(address, self._address_max, now)
        if place is not None:
            place.answered_at = now
            place.sent_at.clear()

    def is_proven(self, address: Address, now: float) -> bool:
        return self.has_answered(address, PROVEN_TIME, now)

    def has_answered(self, address: Address, within: float, now: float) -> bool:
        """Did it answer in the last so many seconds?"""
        place = self._places.get(address)
        return place is not None and now - place.answered_at <= within

    def is_used_up(self, address: Address, now: float) -> bool:
        """May nothing more go there for a while, however it is spread?

        So it is when the address or its host has had all, or when the table has no room for it.
        """
        if self.is_proven(address, now):
            return False
        counted = self._counted(self._place(address, self._address_max, now), address, now)
        return not counted or any(each.left(now) <= 0 for each in counted)

    def begin_anew(self) -> None:
        """A person wants to join: what an earlier wish has asked in vain does not count against this one."""
        for place in self._places.values():
            place.sent_at.clear()

    @staticmethod
    def _last_at(place: _Place) -> float:
        return place.sent_at[-1] if place.sent_at else -math.inf

    def _take(self, place: _Place, address: Address, wanted: int, keep: int, now: float, delay: float = 0.0) -> int:
        """Count so many of the wanted ones as there may be, and say how many; `delay`: until the last has left."""
        counted = self._counted(place, address, now)
        if not counted:
            return 0
        count = max(0, min(wanted, place.left(now) - keep, *(each.left(now) for each in counted)))
        for each in counted:
            each.sent_at += [now + delay] * count
        return count

    def _counted(self, place: Optional[_Place], address: Address, now: float) -> List[_Place]:
        """What counts a datagram to this address: `place`, its own, its host's and network's; none without room."""
        if place is None:
            return []
        if is_loopback(address[0]):  # a whole lab runs on that host, and nobody who could be hurt
            return [place]
        network = network_of(address[0])
        found = [place, self._place((address[0], 0), self._host_max, now)]
        if network != address[0]:
            found.append(self._place((network, 0), self._host_max * NETWORK_SHARE, now))
        counted = [each for each in found if each is not None]
        return counted if len(counted) == len(found) else []

    def _place(self, address: Address, limit: int, now: float) -> Optional[_Place]:
        """The entry of this address; None when the table is full of addresses that are still counted."""
        place = self._places.get(address)
        if place is None:
            if len(self._places) >= ADDRESSES_MAX and not self._forget_oldest(now):
                return None
            place = self._places[address] = _Place(limit)
        self._places.move_to_end(address)
        return place

    def _forget_oldest(self, now: float) -> bool:
        """Make room, but never by an address that would get more because of it."""
        address, oldest = next(iter(self._places.items()))
        if oldest.left(now) < oldest.limit:
            return False
        del self._places[address]
        return True


class Outside:
    """Addresses beyond the house, which only messages named: few are tried at a time, for who names them may lie."""

    def __init__(self) -> None:
        self._tried: Dict[Address, float] = {}  # that has not answered -> when it was first tried

    def may_try(self, address: Address, now: float) -> bool:
        """Is it one of these, or is there room for one more?"""
        self._tried = {other: at for other, at in self._tried.items() if now - at < MINUTE}
        return address in self._tried or len(self._tried) < OUTSIDE_MAX

    def on_tried(self, address: Address, now: float) -> None:
        """Something went there."""
        self._tried.setdefault(address, now)

    def on_answer(self, address: Address) -> None:
        """Somebody is there: it takes no room from others."""
        self._tried.pop(address, None)
