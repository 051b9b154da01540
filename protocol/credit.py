"""What an address has sent, less what it was sent: no hint of a stranger brings more bytes out than it cost.

A hint (Stale: "there is a later term") is shorter than the Query that it causes, and its source may be forged. So it
is followed only when that address has paid for the Query: with the padding of its own Queries, that is what their
Answers were shorter, or with many hints. Likewise for an address that only messages named, when all is spent that may
be asked there (`protocol/hearsay.py`): two supernodes that asked each other in vain while they were parted meet when
each hears what the other asks by broadcast. It is one account for a whole node, as a member and when it rules.

Pure.
"""

from __future__ import annotations

from protocol import messages
from protocol.fields import Address
from protocol.latest import Latest
from protocol.messages import NOWHERE
from protocol.rates import Bucket

ADDRESSES_MAX = 1024  # remembered; who is forgotten pays anew
CREDIT_MAX = 4096  # bytes: what was saved up long ago does not come out at once
HINTS_PER_SECOND, HINTS_BURST = 0.5, 2.0  # of all that were paid for
QUERY_SIZE = len(messages.encode(messages.Query(bytes(8))))
WANTED_SIZE = len(messages.encode(messages.Wanted(bytes(8), NOWHERE)))
STALE_SIZE = len(messages.encode(messages.Stale(0, NOWHERE)))
ANSWER_SIZE = 97  # at most, beside the name


class Credit:
    """Bytes to the good of each address, and how much of it may be spent."""

    def __init__(self, now: float = 0.0) -> None:
        self._hints = Bucket(HINTS_PER_SECOND, HINTS_BURST, now)
        self._bytes: Latest[Address, int] = Latest(ADDRESSES_MAX)  # in the order in which they last earned

    def earn(self, address: Address, size: int) -> None:
        """So many bytes more came from there than will be sent back."""
        self._bytes.put(address, min(CREDIT_MAX, self._bytes.get(address, 0) + size))

    def earn_by_query(self, address: Address, name_size: int) -> None:
        """A Query came from there; its Answer bears a name of so many bytes."""
        self.earn(address, QUERY_SIZE - ANSWER_SIZE - name_size)

    def spend(self, address: Address, size: int) -> bool:
        """May so many be sent there? Then they are."""
        if self._bytes.get(address, 0) < size:
            return False
        self._bytes[address] -= size
        return True

    def pay(self, address: Address, size: int, now: float) -> bool:
        """The same for what a hint is to cause, of which there is only so much for all."""
        return self.spend(address, size) and self._hints.take(now)
