"""Who is at the other end of a link that somebody opened to us.

The first message on such a link names a node id, and anybody may write any id there. It is believed when the link comes
from where the roster means that member to be: a node has one UDP socket, so a link comes from the host and port of its
line in the roster, as seen from here (`Members.seen_place` knows loopback members and the supernode's own line).
An id that is not known there yet is that of a newcomer, or of one who came back from elsewhere: it waits, with what
it says meanwhile, until the roster tells of it, but not for long. Who is no member gets a refusal and nothing else.

A member that the supernode introduced to this one is believed where it has answered a Knock, too
(`protocol/membership/knocking.py`). `judge` decides, and nothing else does.

Pure. What they say, and are told, is in `protocol/exchange/hellos.py`; who was taken in, or refused, is forgotten here.
"""

from __future__ import annotations

import enum
import math
from typing import Callable, Dict, Iterator, List, Optional, Sequence

from protocol.addresses import is_loopback
from protocol.fairness import FairHosts
from protocol.fields import Address
from protocol.messages import LinkHello

HELLO_TIMEOUT = 5.0  # seconds: an incoming link says who it is, or is closed
PROOF_TIMEOUT = 5.0  # seconds from then: a supernode tells of a newcomer within half a second (UPDATE_DELAY_MAX)
CALLERS_MAX = 256  # links of which it is not known yet who is there; the host that has most of them gives way
KEPT_BYTES_MAX = 1 << 16  # of what one says while it waits: a thousand receipts, or all requests for a content
KEPT_OVERHEAD = 64  # bytes that each message costs beside its own
NO_HELLO_REASON = "it did not say who it is"
NOT_A_MEMBER_REASON = "not known as a member at this address"


class Verdict(enum.Enum):
    """What is to be thought of a claim."""

    MEMBER = 1
    UNKNOWN = 2  # the roster does not mean this member to be there; a newer one may
    LIE = 3


def judge(
    claimed: bytes,
    address: Address,
    own_id: bytes,
    place: Optional[Address],
    own_addresses: Callable[[], Sequence[str]],
    has_answered: bool = False,
) -> Verdict:
    """Is who calls from `address` the member that it says it is? `place`: where the roster has that member.

    `has_answered`: that member has answered from this very address.
    """
    if claimed == own_id:
        return Verdict.LIE
    if has_answered:
        return Verdict.MEMBER
    if place is not None and is_same_place(address, place, own_addresses):
        return Verdict.MEMBER
    return Verdict.UNKNOWN


def is_same_place(one: Address, other: Address, own_addresses: Callable[[], Sequence[str]]) -> bool:
    """Do both lead to one socket? This machine has its loopback address and others."""
    if one[1] != other[1]:
        return False
    if one[0] == other[0]:
        return True
    inside, outside = (one[0], other[0]) if is_loopback(one[0]) else (other[0], one[0])
    return is_loopback(inside) and outside in own_addresses()


class Caller:
    """One incoming link, until it is known who is there."""

    def __init__(self, link: int, address: Address, deadline: float) -> None:
        self.link = link
        self.address = address
        self.deadline = deadline
        self.hello: Optional[LinkHello] = None
        self.kept: List[bytes] = []  # what it said after the hello
        self._room = KEPT_BYTES_MAX

    def put_off(self, now: float) -> None:
        """It may say once more who it is."""
        self.deadline = now + HELLO_TIMEOUT

    def keep(self, data: bytes) -> bool:
        """It says more before it is known; False when that is too much."""
        self._room -= len(data) + KEPT_OVERHEAD
        if self._room < 0:
            return False
        self.kept.append(bytes(data))
        return True


class Callers:
    """The incoming links of which it is not known yet who is there. A person is a host here: nothing else is sure."""

    def __init__(self) -> None:
        self._by_link: Dict[int, Caller] = {}
        self._shares = FairHosts(CALLERS_MAX)

    def __contains__(self, link: int) -> bool:
        return link in self._by_link

    def __len__(self) -> int:
        return len(self._by_link)

    def add(self, link: int, address: Address, now: float) -> Optional[int]:
        """A link came up; the link that gives way for it (this one itself, if no host has more), None for none."""
        loser = None
        who = self._shares.gives_way(address[0])
        if who == address[0]:
            return link
        if who is not None:
            loser = next(one.link for one in self._by_link.values() if one.address[0] == who)
            self.pop(loser)
        self._by_link[link] = Caller(link, address, now + HELLO_TIMEOUT)
        self._shares.take(address[0])
        return loser

    def get(self, link: int) -> Caller:
        return self._by_link[link]

    def pop(self, link: int) -> Optional[Caller]:
        """It is known, or lost."""
        caller = self._by_link.pop(link, None)
        if caller is not None:
            self._shares.give_back(caller.address[0])
        return caller

    def move(self, link: int, address: Address) -> None:
        """It has another address from now on; nothing if it is none of these."""
        caller = self._by_link.get(link)
        if caller is not None:
            self._shares.give_back(caller.address[0])
            caller.address = address
            self._shares.take(address[0])

    def wait(self, link: int, hello: LinkHello, now: float) -> None:
        """It named an id that the roster does not mean to be there, so far."""
        caller = self._by_link[link]
        caller.hello, caller.deadline = hello, now + PROOF_TIMEOUT

    def waiting(self) -> Iterator[Caller]:
        """Those who are judged again when the roster has changed."""
        return iter([caller for caller in self._by_link.values() if caller.hello is not None])

    def overdue(self, now: float) -> Iterator[Caller]:
        return iter([caller for caller in self._by_link.values() if now >= caller.deadline])

    def next_deadline(self) -> float:
        return min((caller.deadline for caller in self._by_link.values()), default=math.inf)
