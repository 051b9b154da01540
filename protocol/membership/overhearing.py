"""Somebody on another LAN of this machine looks for the network, and does not get to its supernode.

A node that searches asks each half second; who reaches the supernode has found it after the first answer. One that goes
on asking this member, from a LAN of this machine on which the supernode is not, is told of to the supernode, which may
let this member rule (`protocol/ruling/bridging.py`). Pure.
"""

from __future__ import annotations

from typing import Callable, Sequence, Tuple

from protocol.addresses import lan_of
from protocol.fields import Address
from protocol.latest import Latest
from protocol.membership.contracts import Speaker
from protocol.membership.view import View
from protocol.messages import Beyond

ASKED_TIMES, ASKED_WITHIN = 5, 4.0  # seconds; of one who searches and is found, there are two questions or three
TELL_INTERVAL = 5.0  # seconds
ASKERS_MAX = 64  # the latest


class Overhearing:
    """Who asks, and how often."""

    def __init__(self, view: View, speaker: Speaker, own_ips: Callable[[], Sequence[str]]) -> None:
        self._view = view
        self._speaker = speaker
        self._own_ips = own_ips
        self._asked_at: Latest[Address, Tuple[float, ...]] = Latest(ASKERS_MAX)
        self._looked_at = -TELL_INTERVAL  # which LANs this machine is on; in a flood that costs too much

    def on_question(self, address: Address, now: float) -> None:
        """Somebody there asked who is here, and was answered."""
        supernode = self._view.supernode_address
        if self._view.is_ruler or supernode is None or lan_of(address[0]) == lan_of(supernode[0]):
            return
        times = [at for at in self._asked_at.get(address, ()) if now - at <= ASKED_WITHIN]
        self._asked_at.put(address, (*times, now)[-ASKED_TIMES:])
        if len(times) + 1 >= ASKED_TIMES and now - self._looked_at >= TELL_INTERVAL:
            self._looked_at = now
            if {lan_of(address[0]), lan_of(supernode[0])} <= {lan_of(ip) for ip in self._own_ips()}:
                self._speaker.send_to_supernode(Beyond(address))
