"""What a node of a private network has in its hands: made by `disk/credentials.py`, used by the transport."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:                       # a node of an open network never imports it
    import ssl

KEY_FILE = "key"                        # in a folder's hidden one: kept for its nodes
SEAL_KEY_SIZE = 32
FINGERPRINT_SIZE = 32


class KeyTrouble(Exception):
    """The network key cannot be used as it is: a sentence for a person, in which the key itself never stands."""


@dataclass(frozen=True)
class Credentials:
    """Made once, at the start; the same for all connections of a node."""

    seal_key: bytes = field(repr=False)             # seals every datagram; all members have the same
    check_code: str                                 # four hex digits: two persons see that they have one key
    server_context: ssl.SSLContext = field(repr=False)
    client_context: ssl.SSLContext = field(repr=False)
    fingerprint: bytes                              # SHA-256 of the own certificate: who this node is


@dataclass(frozen=True)
class KeyWish:
    """What a person said about the key; nothing of it is secret where it is shown."""

    typed: str = field(default="", repr=False)      # asked for, or in the environment
    is_asked: bool = False                          # a person typed it, who is asked again, and whose key is kept
    file: str = ""
    identity: str = ""                              # a file with the node's own lasting key
    is_open: bool = False                           # an open network, whatever is kept ...
    is_forgotten: bool = False                      # ... and nothing is kept any more
    folder: str = ""                                # whose kept key serves, if nothing else is said

    @property
    def is_named(self) -> bool:
        """Was more said than nothing?"""
        return bool(self.typed or self.file or self.identity)
