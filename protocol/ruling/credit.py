"""What an address has sent, less what it was sent: no hint of a stranger brings more bytes out than it cost.

A hint (Stale: "there is a later term") is shorter than the Query that it causes, and its source may be forged. So it
is followed only when that address has paid for the Query: with the padding of its own Queries, that is what their
Answers were shorter, or with many hints.

Pure.
"""

from __future__ import annotations

from typing import Dict

from protocol.fields import Address

ADDRESSES_MAX = 1024  # remembered; who is forgotten pays anew
CREDIT_MAX = 4096  # bytes: what was saved up long ago does not come out at once


class Credit:
    """Bytes to the good of each address."""

    def __init__(self) -> None:
        self._bytes: Dict[Address, int] = {}  # who earned last, last

    def earn(self, address: Address, size: int) -> None:
        """So many bytes more came from there than will be sent back."""
        has = self._bytes.pop(address, 0)
        if len(self._bytes) >= ADDRESSES_MAX:
            del self._bytes[next(iter(self._bytes))]
        self._bytes[address] = min(CREDIT_MAX, has + size)

    def spend(self, address: Address, size: int) -> bool:
        """May so many be sent there? Then they are."""
        if self._bytes.get(address, 0) < size:
            return False
        self._bytes[address] -= size
        return True
