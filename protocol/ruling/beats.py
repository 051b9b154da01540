"""How members show that they live: each by a Ping at every beat, or, in a large hall, mostly by their links alone.

A Ping costs a supernode four datagrams with their acknowledgements and two turns of its roles; of a thousand members
these take a fifth of a core. A question of the transport and its acknowledgement are two datagrams, and no role is
called. So each member of a large hall is told that a Ping now and then will do; at the beats between, it asks for a
sign by its link (`membership/belonging.py`), and both see there that the other lives, as often as before. A program
that does not know this goes on with its Pings.

Pure: `now` is monotonic seconds.
"""

from __future__ import annotations

from typing import Iterator

from protocol import messages
from protocol.network import Network
from protocol.ruling.gathering import AT_ONCE_UP_TO
from protocol.ruling.line import Line
from protocol.ruling.register import Register

PINGS_EACH = 8.0  # seconds from one Ping of a member to the next, in a large hall: every fourth beat
LOOK_AFTER = 1.0  # seconds from a sign until its link is looked at for another
HALL = AT_ONCE_UP_TO  # members; of fewer the Pings cost nothing


class Beats:
    """Who is told to send few Pings, and is heard by its link."""

    def __init__(self, network: Network, register: Register) -> None:
        self._network = network
        self._register = register

    def news(self, line: Line) -> Iterator[messages.PingSeldom]:
        """What this member is told, once, where there are many."""
        if self._register.link_count() > HALL and not line.is_own and not line.pings_each:
            line.rest(PINGS_EACH)
            yield messages.PingSeldom(int(1000 * PINGS_EACH))

    def look(self, line: Line, now: float) -> None:
        """Before this member is judged: did its link show that it lives? If it came when there were few, tell it."""
        if line.link is None:
            return
        if line.pings_each:
            if now - line.heard_at > LOOK_AFTER:
                line.hear_link(self._network.heard_at(line.link))
        elif line.is_ready:
            for message in self.news(line):
                self._register.send(line, message)
