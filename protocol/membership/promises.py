"""Hosts that a supernode without members went over to, and that did not take it in.

Nothing but a claim to rule moves such a one (`protocol/ruling/rivals.py`), and any former member can make that claim.
It rules again some seconds later, as a new supernode that knows nothing of it; so the node keeps these, that the same
liar does not send it away each time that it has been alone for long enough: each empty promise doubles the wait until
the next one from there is followed. A host it is, since a node id and a port are the claimant's own choice.

Pure: `now` is monotonic seconds.
"""

from __future__ import annotations

import math
from typing import Optional, Tuple

from protocol.latest import Latest

FIRST_WAIT = 20.0  # seconds from ruling again; it is heard after 12 s alone, and a liar cost a third of all time
WAIT_MAX = 640.0  # then a liar keeps it away for one second in a hundred, and the other half of a network is found
KEPT_AFTER = 60.0  # seconds away: whoever rules again so late was taken in, and lost that supernode since
HOSTS_MAX = 64  # remembered; the one whose promise was broken longest ago is forgotten


class Promises:
    """Which hosts made empty ones, and until when none of theirs is followed; of a whole node."""

    def __init__(self) -> None:
        self._broken: Latest[str, Tuple[float, float]] = Latest(HOSTS_MAX)  # host -> until when, the wait
        self._followed: Optional[Tuple[str, float]] = None  # the last one, and when

    def follow(self, host: str, now: float) -> None:
        """This node gives up its office for a supernode there."""
        self._followed = host, now

    def rules_again(self, now: float) -> None:
        """This node takes office: was it in vain that it gave it up?"""
        followed, self._followed = self._followed, None
        if followed is None:
            return
        host, since = followed
        _, last_wait = self._broken.pop(host, (0.0, FIRST_WAIT / 2))
        if now - since < KEPT_AFTER:
            wait = min(WAIT_MAX, 2 * last_wait)
            self._broken.put(host, (now + wait, wait))

    def may_follow(self, host: str, now: float) -> bool:
        """Is a promise from there worth trying?"""
        return now >= self._broken.get(host, (-math.inf, 0.0))[0]
