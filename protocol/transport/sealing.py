"""Sealed datagrams: the outer layer of a network that has a key.

    open      checksum 4 | version, type, length, ...
    sealed    tag 16     | the same bytes

A tag is taken over all bytes behind it, with a key: who has not the key can neither make one nor change a bit. It
stands where the open network has its checksum, so that header and payload stay two pieces, and what lies FRONT bytes
into a sealed datagram is laid out as an open one. `length` is that of the open one.

It is BLAKE2b with a key (RFC 7693 §2.9), and of LARGE_SIZE_LEAST bytes and more HMAC-SHA-256 (RFC 2104) cut to 16
bytes, which takes half the time on a processor with instructions for it, and twice the time on one without. Only
loopback and jumbo frames carry so much. The length alone decides, nothing is agreed on: a program that knows BLAKE2b
alone drops what is large, and so the search for the path's MTU (`mtu.py`) stays below.

Before a connection, and outside of any, the *hello* key seals, which all members share. Each connection has two keys
of its own, one for each direction, made from the ids and nonces of both sides: so nothing can be played again to
another connection, nor back to who said it. What a connection carries is hidden by TLS (`veil.py`); the tags alone hide
nothing: so a lone message of such a network carries no name.

Pure. The secret that all is made from is `Credentials.seal_key`.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Any, List, NamedTuple, Sequence, Tuple

from protocol.fields import Buffer
from protocol.transport.flight import Batch
from protocol.transport.packets import CHECKSUM, DATA_HEADER_SIZE, PREFIX_SIZE, Cuts, PacketType

TAG_SIZE = 16
FRONT = TAG_SIZE - CHECKSUM.size  # bytes that a sealed datagram has more than an open one
SEALED_SIZE_LEAST = FRONT + PREFIX_SIZE
KEY_SIZE = 32
ID_AT = slice(FRONT + PREFIX_SIZE, FRONT + PREFIX_SIZE + 8)  # where the connection id stands in a sealed datagram
TYPE_AT = FRONT + 5
# No more than 16 bytes each: RFC 7693 calls it personalization. The number is the version of the sealing.
HELLO, TO_SERVER, TO_CLIENT = b"hello 1", b"i->r 1", b"r->i 1"
LARGE = b"large 1"
LARGE_SIZE_LEAST = 8 << 10  # bytes behind the tag
# Said before a connection is there, or outside of any. A RESET is not among them: who sends one has lost the keys of
# the connection, and cannot tell a datagram of it from a stranger's, to whom nothing is said.
HELLO_TYPES = frozenset(
    map(int, (PacketType.INIT, PacketType.COOKIE, PacketType.INIT_ACK, PacketType.LONE, PacketType.REFUSED))
)


class SealKey:
    """Makes and checks the tags of one direction."""

    __slots__ = ("_large", "_small")

    def __init__(self, key: bytes, purpose: bytes) -> None:
        self._small: Any = hashlib.blake2b(key=key, digest_size=TAG_SIZE, person=purpose)
        self._large: Any = hmac.new(_derived(key, LARGE, purpose), digestmod="sha256")

    def _begun(self, size: int) -> Any:
        """What takes in that many bytes behind a tag; its digest begins with the tag."""
        return (self._large if size >= LARGE_SIZE_LEAST else self._small).copy()

    def seal(self, parts: List[Buffer]) -> List[Buffer]:
        """The parts of one open datagram, sealed; the first holds at least its checksum."""
        covered = parts[0][CHECKSUM.size :]
        state = self._begun(len(covered) + sum(map(len, parts[1:])))
        state.update(covered)
        for part in parts[1:]:
            state.update(part)
        return [state.digest()[:TAG_SIZE] + covered, *parts[1:]]

    def is_good(self, sealed: memoryview) -> bool:
        """Was all of it sealed with this key? Compared in constant time."""
        state = self._begun(len(sealed) - TAG_SIZE)
        state.update(sealed[TAG_SIZE:])
        return hmac.compare_digest(state.digest()[:TAG_SIZE], sealed[:TAG_SIZE])

    def are_good(self, tags: Sequence[Buffer], covered: Sequence[Buffer]) -> bool:
        """Do all of these tags belong to what they cover?"""
        small, large, found = self._small, self._large, []
        for each in covered:
            state = (small if len(each) < LARGE_SIZE_LEAST else large).copy()
            state.update(each)
            found.append(state.digest()[:TAG_SIZE])
        return hmac.compare_digest(b"".join(found), b"".join(tags))

    def seal_batch(self, batch: Batch) -> Batch:
        """All datagrams of a batch."""
        buffers = batch.buffers
        sealed = self._seal_pairs(buffers) if batch.per_datagram == 2 else self.seal(buffers)
        return batch._replace(segment_size=batch.segment_size + FRONT, buffers=sealed)

    def _seal_pairs(self, buffers: List[Buffer]) -> List[Buffer]:
        """Datagrams of a header and a payload each."""
        small, large, skipped = self._small, self._large, CHECKSUM.size
        sealed: List[Buffer] = list(buffers)
        for at in range(0, len(buffers), 2):
            covered, payload = buffers[at][skipped:], buffers[at + 1]
            state = (small if len(covered) + len(payload) < LARGE_SIZE_LEAST else large).copy()
            state.update(covered)
            state.update(payload)
            sealed[at] = state.digest()[:TAG_SIZE] + covered
        return sealed


def sealed_cuts_of(buffer: memoryview, segment_size: int) -> Cuts:
    """As `packets.cuts_of`, of sealed datagrams."""
    starts = range(0, len(buffer) - FRONT - DATA_HEADER_SIZE, segment_size)
    return Cuts(
        [buffer[at + FRONT : at + FRONT + DATA_HEADER_SIZE] for at in starts],
        [buffer[at + FRONT + DATA_HEADER_SIZE : at + segment_size] for at in starts],
        [buffer[at : at + TAG_SIZE] for at in starts],
        [buffer[at + TAG_SIZE : at + segment_size] for at in starts],
    )


class Meeting(NamedTuple):
    """What both sides of a connection said of themselves, in the clear, before it was there."""

    client_id: bytes
    server_id: bytes
    client_nonce: bytes
    server_nonce: bytes  # its reset token: made anew from its id and a secret of its run

    def binding(self) -> bytes:
        """All of it, one behind the other: each has a fixed length."""
        return b"".join(self)


def hello_key(secret: bytes) -> SealKey:
    """Of what is said before a connection is there."""
    return SealKey(_derived(secret, HELLO), HELLO)


def connection_keys(secret: bytes, meeting: Meeting) -> Tuple[SealKey, SealKey]:
    """(of what the client sends, of what the server sends)."""
    data = meeting.binding()
    client, server = (SealKey(_derived(secret, purpose, data), purpose) for purpose in (TO_SERVER, TO_CLIENT))
    return client, server


def _derived(secret: bytes, purpose: bytes, data: bytes = b"") -> bytes:
    return hashlib.blake2b(data, key=secret, digest_size=KEY_SIZE, person=purpose).digest()
