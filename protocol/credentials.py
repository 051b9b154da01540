"""What a node of a private network has in its hands: made by `disk/credentials.py`, used by the transport."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:                       # a node of an open network never imports it
    import ssl

KEY_FILE = "key"                        # in a folder's hidden one: kept for its nodes
SEAL_KEY_SIZE = 32
FINGERPRINT_SIZE = 32


class KeyTrouble(Exception):
    """The network key cannot be used as it is: a sentence for a person, in which the key itself never stands."""


class Credentials(NamedTuple):
    """Made once, at the start; the same for all connections of a node."""

    seal_key: bytes                                 # seals every datagram; all members have the same
    check_code: str                                 # four hex digits: two persons see that they have one key
    server_context: ssl.SSLContext
    client_context: ssl.SSLContext
    fingerprint: bytes                              # SHA-256 of the own certificate: who this node is

    def __repr__(self) -> str:
        return f"<Credentials, check {self.check_code}>"


class KeyWish(NamedTuple):
    """What a person said about the key; nothing of it is secret where it is shown."""

    typed: str = ""                                 # asked for, or in the environment
    is_asked: bool = False                          # a person typed it, who is asked again, and whose key is kept
    file: str = ""
    identity: str = ""                              # a file with the node's own lasting key
    is_open: bool = False                           # an open network, whatever is kept ...
    is_forgotten: bool = False                      # ... and nothing is kept any more
    folder: str = ""                                # whose kept key serves, if nothing else is said

    def __repr__(self) -> str:
        return f"<KeyWish for {self.folder!r}>"

    @property
    def is_named(self) -> bool:
        """Was more said than nothing?"""
        return bool(self.typed or self.file or self.identity)
