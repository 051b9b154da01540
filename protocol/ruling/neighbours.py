"""Other networks that a supernode meets at its port, or by broadcast: its person is told, and nobody is moved.

Nobody but itself, that is, if nobody ever joined it: then it goes to the better one (`protocol/membership/door.py` says
which), its peer first, while it rules on until that is taken in; and again after a wait that each time is doubled.

Pure: `now` is monotonic seconds.
"""

from __future__ import annotations

import math
from typing import Callable, Dict, Optional, Set, Tuple

from protocol.addresses import may_contact, seen_from, shown
from protocol.credit import WANTED_SIZE, Credit
from protocol.fields import Address
from protocol.membership.contracts import Seat
from protocol.membership.door import is_better
from protocol.membership.queries import Prober
from protocol.membership.sweep import Sweep
from protocol.messages import NOWHERE, ROLE_MEMBER, ROLE_SUPERNODE, Answer

ASK_BACK_AFTER = 2.0  # seconds: who asks may be about to join
GO_OVER_TIME = 6.0  # seconds for the other network to take this node in; who wants to join comes again after it
GO_OVER_AGAIN = 10.0  # until the next try, doubled with each: a stranger's empty promise keeps nobody away for long
SWEEP_AGAIN, SWEEP_AGAIN_MAX = 20.0, 640.0  # seconds until its neighbours are asked again, doubled with each round
OTHER_NETWORKS_TOLD_MAX = 16  # that a person is told of: whoever answers may make up a new one each time


class Neighbours:
    """Which networks were met and told of; and, while this one is lone, who asked here and where it goes."""

    def __init__(
        self,
        seat: Seat,
        prober: Prober,
        credit: Credit,
        on_notice: Callable[[str], None],
        on_better: Callable[[Address, float], None],
        now: float,
    ) -> None:
        # Nobody ever joined it; or nobody yet, since this node came back to it.
        self.is_lone = (seat.term == 1 or seat.is_resumed) and len(seat.members) == 1
        self._node_id, self._term = seat.node_id, seat.term
        self._search_port = seat.search_port
        self._prober = prober
        self._credit = credit
        self._on_notice = on_notice
        self._on_better = on_better
        self._told: Set[bytes] = set()  # networks
        self._meetings: Dict[bytes, int] = {}  # with other networks, while it is lone
        self._asked_by: Optional[Tuple[Address, float]] = None  # the first since the last look, and when
        self._going_until = -math.inf
        self._go_again_at, self._go_again_after = -math.inf, GO_OVER_AGAIN
        self._lans = seat.lans
        self._sweep: Optional[Sweep] = None
        self._sweep_again_at, self._sweep_again_after = now + SWEEP_AGAIN, SWEEP_AGAIN

    def come(self) -> None:
        """Somebody joined this network."""
        self.is_lone = False

    def is_going(self, now: float) -> bool:
        """May this node be elsewhere in a moment? Who joined it now would be left alone here."""
        return self.is_lone and now < self._going_until

    def on_asked(self, address: Address, now: float) -> None:
        """Somebody asked at this port."""
        if self.is_lone:
            self._asked_by = self._asked_by or (address, now)

    def ask_back(self, now: float) -> None:
        """Who asked at this port may be of a network that is known by it, and that this lone one does not reach.

        It has asked twice by then, or a forged address would be sent more bytes than were spent on it.
        """
        if self._asked_by is not None and now >= self._asked_by[1] + ASK_BACK_AFTER:
            address, self._asked_by = self._asked_by[0], None
            if self.is_lone and may_contact(address, []) and self._credit.pay(address, WANTED_SIZE, now):
                self._prober.ask_freely(address, "heal", now, (NOWHERE[0], self._search_port))

    def ask_neighbours(self, now: float) -> None:
        """While it is lone, now and then: should this host let in answers only, nobody who looks for it is heard."""
        if not self.is_lone or not self._lans:
            return
        if now >= self._sweep_again_at:
            self._sweep = Sweep(self._lans, self._search_port, now)
            self._sweep_again_after = min(2 * self._sweep_again_after, SWEEP_AGAIN_MAX)
            self._sweep_again_at = now + self._sweep_again_after
        for place in self._sweep.due(now) if self._sweep is not None else ():
            self._prober.ask_freely(place, "heal", now)

    def meet(self, address: Address, answer: Answer, now: float) -> None:
        """Somebody of another network. Nobody is moved by a stranger's word, unless there is nobody to move."""
        if not self.is_lone or answer.role != ROLE_SUPERNODE:
            if self.is_lone and answer.role == ROLE_MEMBER:
                self._prober.ask_hinted(seen_from(answer.supernode, address), "heal", [address[0]], now)
            self.tell(address, answer)
        elif not is_better(answer, self._node_id, self._count_meeting(answer.network_id), self._term):
            self.tell(address, answer)
        elif now >= self._go_again_at:
            self._going_until = now + GO_OVER_TIME
            self._go_again_at = now + self._go_again_after
            self._go_again_after *= 2
            self._on_better(address, now)

    def _count_meeting(self, network_id: bytes) -> int:
        if len(self._meetings) < OTHER_NETWORKS_TOLD_MAX or network_id in self._meetings:
            self._meetings[network_id] = self._meetings.get(network_id, 0) + 1
        return self._meetings.get(network_id, 0)

    def tell(self, address: Address, answer: Answer) -> None:
        """The person hears of each supernode's network once."""
        if answer.role != ROLE_SUPERNODE or answer.network_id in self._told:
            return
        if len(self._told) < OTHER_NETWORKS_TOLD_MAX:
            self._told.add(answer.network_id)
            whose = f"{answer.name}, " if answer.name else ""  # none is told where there is a key
            self._on_notice(f"another network is at {shown(address)} ({whose}{answer.member_count} nodes)")
