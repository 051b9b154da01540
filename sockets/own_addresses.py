"""Has this machine other addresses than a moment ago? Looked at once a second, for no system tells a socket."""

from __future__ import annotations

import math
from typing import Callable, FrozenSet, Optional

from protocol.addresses import EVERY_ADDRESS, is_loopback
from sockets import groups
from sockets.interfaces import ANY_ROUTE, ANY_ROUTE_OF_SIX, address_towards, interfaces

LOOK_INTERVAL = 1.0  # seconds: what is under way stands still until then


def addresses_now() -> FrozenSet[str]:
    """The addresses of this machine, and by which it reaches far ones; loopback aside.

    Of IPv6 those of each link by which something would leave there: others that it has besides change nothing.
    """
    found = {ip for ip, _ in interfaces() if not is_loopback(ip)}
    for link in groups.links_anew():
        found |= {link.ip, link.own}
    return frozenset(found | {f"towards {address_towards(route)}" for route in (ANY_ROUTE, ANY_ROUTE_OF_SIX)})


class OwnAddresses:
    """What they were at the last look. A socket that is bound to one address never has another."""

    def __init__(self, bound_to: str, now: float, look: Callable[[], FrozenSet[str]] = addresses_now) -> None:
        self._look = look
        self._known: Optional[FrozenSet[str]] = None
        self.look_at = now if bound_to == EVERY_ADDRESS else math.inf

    def have_changed(self, now: float) -> bool:
        """Look, if it is time for that: is any of them new, or gone?"""
        if now < self.look_at:
            return False
        self.look_at = now + LOOK_INTERVAL
        before, self._known = self._known, self._look()
        return before is not None and before != self._known
