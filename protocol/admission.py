"""How fast newcomers are taken in: all together, and from each address.

One machine that joins under name after name would fill the roster with nodes that do nothing, and everybody's roster
updates with them. A class behind one NAT is one address as well, so an address has a burst for a class.
Members that come back (their node id is known, and opened) are not newcomers. On loopback, where a whole lab may run
on one machine, only the rate of all counts.

Pure: `now` is monotonic seconds.
"""

from __future__ import annotations

from typing import Dict

from protocol.chat import Bucket
from protocol.roster import is_loopback

JOINS_PER_SECOND = 200.0  # of all, with as much at once (THREATS: F13)
NEWCOMERS_BURST = 64  # from one address: a class behind one NAT
NEWCOMERS_PER_SECOND = 8.0  # after them: a second class is in within ten seconds
ADDRESSES_MAX = 1024  # remembered: as many as members; of 100 bytes each


class Admission:
    """Says of each Join whether there is room for it now."""

    def __init__(self, now: float) -> None:
        self._all = Bucket(JOINS_PER_SECOND, JOINS_PER_SECOND, now)
        self._newcomers: Dict[str, Bucket] = {}  # address -> its bucket; last asked for, last in order

    def admits(self, host: str, is_newcomer: bool, now: float) -> bool:
        """One Join from there. What its own address has no room for takes nothing from the others."""
        if is_newcomer and not is_loopback(host) and not self._bucket_of(host, now).take(now):
            return False
        return self._all.take(now)

    def _bucket_of(self, host: str, now: float) -> Bucket:
        bucket = self._newcomers.pop(host, None) or Bucket(NEWCOMERS_PER_SECOND, NEWCOMERS_BURST, now)
        if len(self._newcomers) >= ADDRESSES_MAX:  # who did not come for longest has most of its burst again
            del self._newcomers[next(iter(self._newcomers))]
        self._newcomers[host] = bucket
        return bucket
