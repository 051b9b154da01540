"""What this node, as the supernode's own peer, fetches for those who do not connect to others.

`Waiting` is who waits for one content, however it came to be fetched here. `Relays` counts the contents that the person
here does not want: each requester has a fair share (`protocol/fairness.py`) of those that are looked for, and of those
that somebody offers and that are on their way. A relay moves from the one to the other when it is offered, for what
nobody has must keep nobody waiting. When there are too many, who has most loses the newest of its relays.

A `Waiting` belongs to each `Fetch`, `Relays` to `Fetching`. Pure.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Dict, Optional, Protocol, Tuple

from protocol.exchange.contracts import Surroundings
from protocol.exchange.serving import Serving
from protocol.fairness import FairShares
from protocol.messages import MEMBERS_MAX, REASON_BYTES_MAX, NotRelayed

RELAYS_MAX, RELAYS_FOR_ONE_MAX = 64, 48  # contents fetched for others at once, and for one of them
RELAYS_SOUGHT_MAX = 128  # that nobody has offered yet: each is searched for every few seconds
UNWANTED_AFTER = 15.0  # seconds without a request or anybody who follows it: nobody waits any more


class Waiting:
    """Those who wait for one content and cannot fetch it directly: requester -> query id, who came first first."""

    def __init__(self, file_id: bytes, around: Surroundings, serving: Serving) -> None:
        self._file_id = file_id
        self._around = around
        self._serving = serving
        self._queries: OrderedDict[bytes, int] = OrderedDict()
        self._asked_at = -math.inf

    def __len__(self) -> int:
        return len(self._queries)

    def add(self, requester: bytes, query_id: int, now: float) -> None:
        """One more, or once more."""
        self._queries[requester] = query_id
        self._asked_at = now
        while len(self._queries) > MEMBERS_MAX:
            self._queries.popitem(last=False)

    def first(self) -> Optional[bytes]:
        """Who asked for it first has it counted as a share of the disk."""
        return next(iter(self._queries), None)

    def offer(self) -> None:
        """It has begun: they may ask for it here."""
        for requester, query_id in self._queries.items():
            self._serving.offer(self._file_id, query_id, requester, True)

    def tell_failed(self, reason: str, is_gone: bool) -> None:
        """It will not come; `is_gone`: nobody has it any more."""
        words = reason.encode("utf-8", "replace")[:REASON_BYTES_MAX].decode("utf-8", "ignore")
        for requester, query_id in self._queries.items():
            self._around.members.send_to_supernode(NotRelayed(query_id, self._file_id, requester, is_gone, words))

    def is_over(self, now: float) -> bool:
        """Has nobody asked for it for long, and does nobody take it?"""
        return now - self._asked_at > UNWANTED_AFTER and not self._serving.is_wanted(self._file_id)

    def clear(self) -> None:
        """Nobody is told how it ends."""
        self._queries.clear()


class Relayed(Protocol):
    """A content that is fetched for others."""

    @property
    def waiting(self) -> Waiting: ...

    def fail(self, reason: str, now: float) -> None: ...


class Relays:
    """Whose share each of them counts in."""

    def __init__(self, around: Surroundings) -> None:
        self.sought, self.offered = FairShares(RELAYS_SOUGHT_MAX), FairShares(RELAYS_MAX)
        self._around = around
        self._counted: Dict[Relayed, Tuple[FairShares, bytes]] = {}  # the oldest first

    def has_room(self, requester: bytes, now: float) -> bool:
        """May one more be looked for, for this requester? Somebody else's may have to give way."""
        held = self.sought.held(requester) + self.offered.held(requester)
        return held < RELAYS_FOR_ONE_MAX and self._make_room(self.sought, requester, now)

    def add(self, relay: Relayed, requester: bytes) -> None:
        """It is looked for from now on."""
        self.sought.take(requester)
        self._counted[relay] = self.sought, requester

    def on_offered(self, relay: Relayed, now: float) -> bool:
        """Somebody has it: a relay takes its place only now. False if there is none, which was its end."""
        shares, requester = self._counted.get(relay, (self.offered, b""))
        if shares is self.offered:
            return True
        if not self._make_room(self.offered, requester, now):
            relay.fail(self.why_full(), now)
            return False
        self.sought.give_back(requester)
        self.offered.take(requester)
        self._counted[relay] = self.offered, requester
        return True

    def remove(self, relay: Relayed) -> None:
        """It is over, or the person here wants it: nobody's share any more."""
        if relay in self._counted:
            shares, requester = self._counted.pop(relay)
            shares.give_back(requester)

    def why_full(self) -> str:
        """What those read who are refused."""
        me = self._around.members.label_of(self._around.members.node_id)
        return f"{me} passes on as much for others as it can: try again soon"

    def _make_room(self, shares: FairShares, requester: bytes, now: float) -> bool:
        """When there are too many, who has most loses the newest of its relays, rather one that no other waits for."""
        who = shares.gives_way(requester)
        if who is not None and who != requester:
            theirs = [relay for relay, counted in self._counted.items() if counted == (shares, who)]
            min(reversed(theirs), key=lambda relay: len(relay.waiting)).fail(self.why_full(), now)
        return who != requester
