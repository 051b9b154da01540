"""How large a datagram the path of one connection takes: the search for it (RFC 8899).

A value with `now`. It says which size to probe, one at a time, and is told what became of the probe; who sends the
padded PING, and who looks for black holes, is the connection's business. All sizes are those of the UDP payload.

    searching --probe arrived--> the next larger size --none left--> done
    searching --probe lost MTU_PROBE_TRIES times--> done, and again at `again_at`
    any       --black hole--> base size, and again at `again_at`
"""

from __future__ import annotations

import math
from typing import List, Sequence

from protocol.transport.recovery import DATAGRAM_SIZE_BASE

DATAGRAM_SIZES_PROBED = (1452, 1472, 8972)  # IPv6 on Ethernet, IPv4 on Ethernet, jumbo frames
DATAGRAM_SIZES_LOOPBACK = (1472, 16_356, 65_507)  # as Ethernet, macOS's loopback (16,384 bytes), the most of IPv4
MTU_PROBE_TRIES = 3  # MAX_PROBES, RFC 8899 §5.1.2
MTU_PROBE_AGAIN_MAX = 600.0  # seconds, RFC 8899 §5.1.1
MTU_PROBE_AGAIN = 2.0  # seconds, doubled each time: for a size that worked before, or when other packets were lost, too


class PathMtu:
    """The datagram size in use, and the search for a larger one.

    The verbs that may change the size say whether they did. `troubles` is what else went wrong on the path so far:
    where it rose meanwhile, a lost probe says little about its size.
    """

    __slots__ = (
        "again_at", "size", "_candidates", "_pending", "_reserved", "_rest", "_sizes", "_tries", "_troubles", "_worked",
    )  # fmt: skip

    def __init__(self, is_loopback: bool, reserved: int = 0) -> None:
        """`reserved`: bytes of each datagram that are not the connection's (a seal), and not counted here."""
        self._reserved = reserved
        self.begin(is_loopback)

    def begin(self, is_loopback: bool) -> None:
        """Nothing is known of the path: neither of the first, nor of one that the connection has moved to."""
        self.size = DATAGRAM_SIZE_BASE
        self.again_at = math.inf  # when to search again
        sizes = DATAGRAM_SIZES_LOOPBACK if is_loopback else DATAGRAM_SIZES_PROBED
        self._candidates: Sequence[int] = [size - self._reserved for size in sizes]
        self._sizes: List[int] = []  # still to be probed, ascending
        self._tries = 0  # of the present one that were lost
        self._pending = 0  # the size whose probe is under way; 0: none
        self._rest = MTU_PROBE_AGAIN
        self._worked = DATAGRAM_SIZE_BASE  # the largest size that ever did
        self._troubles = 0  # when the search began

    def search(self, size_max: int, troubles: int) -> None:
        """Begin to probe what is larger than the present size, up to what this machine's socket takes."""
        self._sizes = [size for size in self._candidates if self.size < size <= size_max]
        self._tries = 0
        self._troubles = troubles
        self.again_at = math.inf

    @property
    def wants_probe(self) -> bool:
        """Would `next_probe` give one?"""
        return bool(self._sizes) and not self._pending

    def next_probe(self) -> int:
        """The size of the probe to send now; 0: none. It counts as under way until one of the next two is called."""
        if not self.wants_probe:
            return 0
        self._pending = self._sizes[0]
        return self._pending

    def on_probe_arrived(self, size: int) -> bool:
        """Datagrams of that size get through; is it larger than what is used so far? It is used then."""
        self._pending = 0
        self._tries = 0
        return size > self.size and self.use(size)

    def on_probe_lost(self, size: int, troubles: int, now: float) -> None:
        """Packets of this size did not get through; after the last try none as large is sent for a while (RFC 8899)."""
        self._pending = 0
        self._tries += 1
        if self._tries >= MTU_PROBE_TRIES:
            self._tries = 0
            self._sizes = [smaller for smaller in self._sizes if smaller < size]
            is_sure = size > self._worked and self._troubles == troubles
            self.again_at = now + (MTU_PROBE_AGAIN_MAX if is_sure else self._rest)
            self._rest = min(2 * self._rest, MTU_PROBE_AGAIN_MAX)

    def use(self, size: int) -> bool:
        """A datagram of that size did arrive."""
        self._sizes = [larger for larger in self._sizes if larger > size]
        return self._set_size(size)

    def on_black_hole(self, size_max: int, troubles: int, now: float) -> bool:
        """Down to the base size; the old one is tried at once, and if it is no longer to be had, those below it."""
        before = self.size
        self._set_size(DATAGRAM_SIZE_BASE)
        self.search(size_max, troubles)
        self._sizes = [before] * (before > DATAGRAM_SIZE_BASE) + [each for each in self._sizes if each < before]
        self._rest = MTU_PROBE_AGAIN
        self.again_at = now + self._rest
        return before != self.size

    def _set_size(self, size: int) -> bool:
        has_changed = size != self.size
        self.size = size
        self._worked = max(self._worked, size)
        return has_changed
