"""Addresses that only a message named: how much may be sent there before they have answered.

A roster, an offer, a redirection can name any address, also that of somebody who never heard of this program. One liar
in the room of a thousand would have a thousand nodes send to a victim of its choice. So each such address gets three
datagrams a minute until something comes back that only who received there can know: a query's nonce, a handshake's
(RFC 9000 §21.5; THREATS: F11). Everything that dials or probes asks here first; what a person typed, and what is sent
back along the way it came, does not.

    hearsay.may_send(address, now)     one datagram: is it allowed? If so, it is counted
    hearsay.may_dial(address, now)     how many first packets of a handshake are allowed; they are counted at once
    hearsay.on_answer(address, now)    it has answered: for some minutes it is no hearsay

Pure.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import List, Optional

from protocol.roster import is_loopback
from protocol.wire import Address

UNANSWERED_MAX = 3  # datagrams to one address in a minute (THREATS: request forgery)
HOST_UNANSWERED_MAX = 30  # to all ports of one host: a liar may name them all; ten nodes behind one NAT may be silent
MINUTE = 60.0  # seconds
PROVEN_TIME = 600.0  # seconds after an answer in which an address is no hearsay
ADDRESSES_MAX = 2048  # hosts among them: a roster's 1,024 members and their hosts; who names more is not believed


class _Place:
    """What was sent to an address, or to a whole host, and when it last answered."""

    __slots__ = ("answered_at", "limit", "sent_at")

    def __init__(self, limit: int) -> None:
        self.answered_at = -PROVEN_TIME
        self.limit = limit
        self.sent_at: List[float] = []  # of the last minute, at most `limit`

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

    def __init__(self) -> None:
        self._places: OrderedDict[Address, _Place] = OrderedDict()  # the one used last is the last

    def __len__(self) -> int:
        return len(self._places)

    def may_send(self, address: Address, now: float) -> bool:
        """Count one datagram to this address, if it may go out."""
        return self._take(address, 1, now) == 1

    def may_dial(self, address: Address, now: float) -> int:
        """Count as many first packets of a handshake as may still go out (0: do not dial now), and say how many.

        All of them are counted at once: the transport repeats them by itself.
        """
        return self._take(address, UNANSWERED_MAX, now)

    def on_answer(self, address: Address, now: float) -> None:
        """Something came from there that only who received our datagrams there can know."""
        place = self._place(address, UNANSWERED_MAX, now)
        if place is not None:
            place.answered_at = now
            place.sent_at.clear()

    def _take(self, address: Address, wanted: int, now: float) -> int:
        place = self._place(address, UNANSWERED_MAX, now)
        if place is None or place.is_proven(now):
            return 0 if place is None else wanted
        counted = [place]
        if not is_loopback(address[0]):
            host = self._place((address[0], 0), HOST_UNANSWERED_MAX, now)
            if host is None:
                return 0
            counted.append(host)
        count = min(wanted, *(each.left(now) for each in counted), UNANSWERED_MAX)
        for each in counted:
            each.sent_at += [now] * count
        return count

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
