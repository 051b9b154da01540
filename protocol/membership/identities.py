"""Who is who in a private network: the certificates of its members, as who rules tells them.

A member says what its own certificate is, and who rules holds that against the one it sees at the other end of the
link (`protocol/ruling/identifying.py`). A link counts as a member's only if it shows the certificate that is known as
its own. A lasting one (`--identity`) is remembered by the name of who has it, the first time that it is seen in this
run; whoever has that name with another one is told of, once. In an open network nothing of this is said or heard. Pure.
"""

from __future__ import annotations

from typing import Dict, Iterable, List, Optional, Set

from protocol.credentials import FINGERPRINT_SIZE
from protocol.latest import Latest
from protocol.messages import MEMBERS_MAX, Fingerprints, Identity

PINS_MAX = 1024  # names with a lasting certificate; who was seen longest ago is forgotten


class Identities:
    """Of this node, and of the members of its network."""

    def __init__(self, node_id: bytes, own: Optional[bytes], is_lasting: bool = False) -> None:
        """`own`: the fingerprint of this node's certificate; None in an open network."""
        assert own is None or len(own) == FINGERPRINT_SIZE
        self._own = None if own is None else Identity(node_id, "", own, is_lasting)
        self._known: Dict[bytes, Identity] = {}
        self._pins: Latest[str, bytes] = Latest(PINS_MAX)
        self._told: Set[Identity] = set()

    def own(self) -> Optional[Fingerprints]:
        """What who rules is to be told; nothing in an open network."""
        return None if self._own is None else Fingerprints((self._own,))

    def fingerprint(self, node_id: bytes) -> bytes:
        """Of a member's certificate; nothing where it is not known."""
        known = self._own if self._own and node_id == self._own.node_id else self._known.get(node_id)
        return b"" if known is None else known.fingerprint

    def fits(self, node_id: bytes, shown: Optional[bytes]) -> bool:
        """May who has shown that certificate be this member? None: the link is gone, or leads to this node itself."""
        known = self._known.get(node_id)
        return known is None or shown is None or shown == known.fingerprint

    def hear(self, identities: Iterable[Identity], is_here: Iterable[bytes]) -> List[str]:
        """Who rules tells these; the names that have another key than before."""
        if self._own is None:
            return []
        here, changed = set(is_here), []
        for identity in identities:
            if len(self._known) >= MEMBERS_MAX:
                self._known = {node_id: known for node_id, known in self._known.items() if node_id in here}
            if len(self._known) < MEMBERS_MAX:
                self._known[identity.node_id] = identity
            if identity.node_id != self._own.node_id and self._is_other(identity):
                changed.append(identity.name)
        return changed

    def _is_other(self, identity: Identity) -> bool:
        """Was this name another's, who keeps his key? The first one stays what it is held against."""
        pinned = self._pins.get(identity.name)
        if pinned is None:
            if identity.is_lasting:
                self._pins.put(identity.name, identity.fingerprint)
            return False
        if pinned == identity.fingerprint or identity in self._told:
            return False
        if len(self._told) < PINS_MAX:
            self._told.add(identity)
        return True
