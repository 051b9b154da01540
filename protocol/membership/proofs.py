"""What a node can prove: that an id is its own, that an answer is fresh, that two lists of shares are the same."""

from __future__ import annotations

import hashlib
import hmac
import random
from typing import Iterable

from protocol import messages
from protocol.messages import Answer, ShareEntry

_SHARE_CODEC = messages.record_of(ShareEntry)


def node_id_of(opening: bytes) -> bytes:
    """The node id that this secret opens."""
    return hashlib.sha256(opening).digest()[: messages.NODE_ID_SIZE]


def with_proof(answer: Answer, secret: bytes) -> Answer:
    """The Answer, with the HMAC over all of it (the asker's nonce included) that only members can make."""
    blank = answer._replace(proof=bytes(16))
    return blank._replace(proof=hmac.new(secret, messages.encode(blank), "sha256").digest()[:16])


def is_proven(answer: Answer, secret: bytes) -> bool:
    """Does who gave this answer know the secret of its network?"""
    return bool(secret) and hmac.compare_digest(with_proof(answer, secret).proof, answer.proof)


def share_digest(entries: Iterable[ShareEntry]) -> bytes:
    """SHA-256 over the sorted entries: equal lists have equal digests, whatever their order."""
    digest = hashlib.sha256()
    for data in sorted(_SHARE_CODEC.encode(entry) for entry in entries):
        digest.update(len(data).to_bytes(4, "big") + data)
    return digest.digest()


def random_bytes(rng: random.Random, size: int) -> bytes:
    """So many drawn bytes."""
    return rng.getrandbits(8 * size).to_bytes(size, "big")
