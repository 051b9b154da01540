"""The supernode's desk for certificates in a private network: who has which, held against what the link shows.

What a member says of its own is told to all if it is that of its link, and the member is told what is known of the
others. In an open network a link shows none, and nothing is told. Pure.
"""

from __future__ import annotations

from typing import Dict

from protocol.membership.local_link import LOCAL_LINK
from protocol.messages import MEMBERS_PER_PAGE, Fingerprints, Identity
from protocol.network import Network
from protocol.ruling.line import Line
from protocol.ruling.register import Register


class Identifying:
    """Of each member, by node id."""

    def __init__(self, network: Network, register: Register) -> None:
        self._network, self._register = network, register
        self._known: Dict[bytes, Identity] = {}
        self.dropped = 0  # messages refused

    def on_fingerprints(self, line: Line, message: Fingerprints, now: float) -> None:
        """A member says who it is, after it has come in or followed here."""
        if len(message.identities) != 1 or line.link is None or not self._register.may_ask(line, now):
            return
        said = message.identities[0]
        is_shown = line.is_own or self._network.fingerprint(line.link) == said.fingerprint
        if not is_shown or said.node_id != line.node_id:
            self.dropped += 1
            return
        others = [known for known in self._known.values() if known.node_id != line.node_id]
        for first in range(0, len(others), MEMBERS_PER_PAGE):
            self._register.send(line, Fingerprints(tuple(others[first : first + MEMBERS_PER_PAGE])))
        known = said._replace(name=line.entry.name)
        if not line.is_guest and self._known.get(line.node_id) != known:
            self._known[line.node_id] = known
            self._register.broadcast(Fingerprints((known,)))

    def is_anothers(self, node_id: bytes, link: int) -> bool:
        """Has the member of that id another certificate than the one who comes by this link?"""
        known = self._known.get(node_id)
        return known is not None and link != LOCAL_LINK and known.fingerprint != self._network.fingerprint(link)

    def forget(self, node_id: bytes) -> None:
        """It has left."""
        self._known.pop(node_id, None)
