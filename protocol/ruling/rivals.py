"""Two supernodes of one network meet: which of them gives way, and to whom nobody does.

After a partition, a sleep or a failover on a bad link there are two, each with members. That they know the network's
secret shows only that both were members once, and anybody may be: were the newer term enough, a member of one second's
standing would depose the supernode with two datagrams. So who gives way must see a *reason*:

- The other one belongs to us: it is where we lost somebody in silence, or such a one obeys it, or it holds the heirloom
  of such a one (`lost`, `heirs`).
- Or there is nothing to lose: we rule nobody but ourselves, and did so for a while.

Pure: no socket, no thread, no clock.
"""

from __future__ import annotations

from typing import Dict, Tuple

ALONE_AFTER = 12.0  # seconds without a member: those who are cut off have another supernode by then (6 s, 3 s a rank)
STANDS_AFTER = 8.0  # seconds that an older one rules on beside us: time enough to be hinted, to ask twice and to go
FORGOTTEN_AFTER = 30.0  # seconds without a meeting (there is one each 10 s)
RIVALS_MAX = 16


def gives_way(is_newer: bool, is_of_us: bool, alone_for: float, met_for: float) -> bool:
    """Do we go over to this other supernode of our network?

    `is_newer`: its term is the later one or, of equal ones, its id the smaller. `is_of_us`: it was shown to come from
    somebody whom we lost. `alone_for`: seconds for which nobody but this node itself was here. `met_for`: seconds since
    we met it first. The older one of two goes, as soon as it sees a reason. But who was lost is known only to those who
    were here then: the older one may know none of the other's people, all of whom came later, or took in those whom a
    dead supernode had known. Then it never goes, and the newer one, if it sees a reason, does: later, so that both do
    not go at once, each to where the other was.

    What a liar gains. Who can show that it comes from one of the lost was a member, and fell silent; no rule on what a
    supernode can see tells it from the other half of a parted network (README, "What it does not promise"). Its term is
    its own choice: that the newer one may go, too, gives it nothing. And who is alone goes over with one node, itself.
    If it was cut from its members, they have elected another by now, and lost *this* one in silence: should it come
    back obeying a liar, that is what any lost member can do.
    """
    has_reason = is_of_us or alone_for >= ALONE_AFTER
    return has_reason and (is_newer or met_for >= STANDS_AFTER)


class Rivals:
    """Since when other supernodes of our network are met; when there are too many, the one met longest ago goes."""

    def __init__(self) -> None:
        self._met: Dict[bytes, Tuple[float, float]] = {}  # node id -> at first, at last; who was met last, last

    def meet(self, node_id: bytes, now: float) -> float:
        """It is met; for how many seconds now?"""
        since, last = self._met.pop(node_id, (now, now))
        if now - last > FORGOTTEN_AFTER:
            since = now
        if len(self._met) >= RIVALS_MAX:
            del self._met[next(iter(self._met))]
        self._met[node_id] = since, now
        return now - since
