"""How a node that was here under another node id shows that it was that one: a secret in its own folder.

A node id lives as long as its process. From the key in its folder, the network and its node id a node reckons an
*opening*, and tells who rules only the digest of that, its *claim*; all members know the claim, for each may rule next.
Who comes back shows the opening, which nobody but it could know, and tells the claim of its new node id. So an opening
is worth nothing once it was shown, and a ruler to whom it was shown cannot come back as that node later.

Pure. What is kept in the folder: the key, and which node this one was in which network, the last few times.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Annotated, NamedTuple, Optional, Tuple

from protocol.fields import Buffer, Fixed, Many
from protocol.messages import NO_CLAIM, NO_NETWORK, OPENINGS_MAX, Claim, NetworkId, NodeId, Opening, record_of

KEY_SIZE = 16


class Run(NamedTuple):
    """This node was that one, in that network."""

    network_id: NetworkId
    node_id: NodeId


class Past(NamedTuple):
    """What a node's folder keeps of who it was."""

    key: Annotated[bytes, Fixed(KEY_SIZE)]  # shown to nobody
    runs: Annotated[Tuple[Run, ...], Many(record_of(Run), OPENINGS_MAX)]  # latest first


NO_PAST = Past(bytes(KEY_SIZE), ())  # of a node without a folder of its own
_PAST = record_of(Past)


def encode_past(past: Past) -> bytes:
    """As it is kept in the folder."""
    return _PAST.encode(past)


def decode_past(data: Buffer, key: bytes) -> Past:
    """With this key and no past when these bytes are none."""
    past: Past = _PAST.decode_whole(data, Past(key, ()))
    return past


def opening_of(key: bytes, network_id: bytes, node_id: bytes) -> bytes:
    """What this node shows when it comes back into the network in which it was that one."""
    return hmac.new(key, b"name" + network_id + node_id, "sha256").digest()[:16]


def claim_of(opening: bytes) -> bytes:
    """What it tells of that before."""
    return hashlib.sha256(opening).digest()[:16]


class Claimant:
    """This node, as one who may come back."""

    def __init__(self, node_id: bytes) -> None:
        self._node_id = node_id
        self.past = NO_PAST

    def remember(self, past: Past) -> None:
        """That was found in its folder."""
        self.past = past

    def enter(self, network_id: bytes) -> None:
        """It is in that network; a later run will want to show it."""
        if self.past.key != NO_PAST.key:
            run = Run(network_id, self._node_id)
            others = tuple(other for other in self.past.runs if other != run)
            self.past = self.past._replace(runs=(run, *others)[:OPENINGS_MAX])

    def claim(self, network_id: bytes, suffix: Optional[str]) -> Claim:
        """What it says there; `suffix`: behind its name there until now, None if it comes anew."""
        if self.past.key == NO_PAST.key or network_id == NO_NETWORK:
            return Claim(NO_CLAIM, suffix is not None, suffix or "", ())
        openings = tuple(
            Opening(run.node_id, opening_of(self.past.key, *run))
            for run in self.past.runs
            if run.network_id == network_id and run.node_id != self._node_id
        )
        own = claim_of(opening_of(self.past.key, network_id, self._node_id))
        return Claim(own, suffix is not None, suffix or "", openings)
