"""Credentials for simulated networks that have a key, made without the long stretching of a phrase.

    World(..., credentials=members())        all who are there have one key, each has a certificate of its own

Making one costs 40 ms, so those of a process are used again. What OpenSSL adds to a handshake (ephemeral keys, and
signatures that differ by a byte or two in length) is not from the world's seed: the same story has other bytes under
TLS each time, and a handshake's last packet may be a little longer or shorter. So no test may hang on the sizes of a
handshake, nor on the very packet that a seeded loss hits.
"""

from __future__ import annotations

import functools
import hashlib
from typing import Callable, Dict

from disk.credentials import made_of
from protocol.credentials import Credentials
from protocol.fields import Address
from protocol.keys.phrase import parted

MEMBERS = 8  # that have certificates of their own; further ones share them


@functools.cache
def member(number: int, key: int = 1) -> Credentials:
    """The credentials of one member of the network with that key."""
    return made_of(parted(hashlib.sha512(b"key %d" % key).digest() + bytes(18)), 1000 + number)


def members(key: int = 1) -> Callable[[Address], Credentials]:
    """Who has a place in this world gets the next of them; whoever is there once more, the same."""
    numbers: Dict[Address, int] = {}

    def credentials_of(address: Address) -> Credentials:
        return member(numbers.setdefault(address, len(numbers)) % MEMBERS, key)

    return credentials_of
