"""Does a path lose what is above the base size, while smaller packets sent after it arrive? (RFC 8899 §4.3)

Only what is declared lost counts, for then something that was sent later did arrive: in the silence of an outage, or
of a process that stands still, nothing is learnt about sizes. What was sent before the last such loss was known is of
the same flight, and counts once with it. A value; `Recovery` tells it what became of packets.
"""

from __future__ import annotations

from typing import List, Tuple

BLACK_HOLE_FLIGHTS = 3  # in which what is larger was lost and nothing of that size arrived: then the path loses it all


class BlackHole:
    """What of one connection arrived and was lost, by its size."""

    __slots__ = ("arrived_size", "_arrived_to", "_flights", "_flight_from", "_ignored_below")

    def __init__(self) -> None:
        self.arrived_size = 0  # of the largest packet that arrived since the size was last reduced
        self._arrived_to = -1  # number of the last packet of that size that arrived
        self._flights: List[Tuple[int, int]] = []  # (datagram size, first number lost) of flights with such a loss
        self._flight_from = -1  # what is lost below this number belongs to the last of them
        self._ignored_below = -1  # older packets arrived before the path changed

    def on_arrived(self, size: int, number: int) -> None:
        """Packets of that size came through, the last with this number."""
        if number < self._ignored_below:
            return
        if size > self.arrived_size:
            self.arrived_size, self._arrived_to = size, number
        elif size == self.arrived_size:
            self._arrived_to = max(self._arrived_to, number)
        if self._flights:
            self._flights = [flight for flight in self._flights if flight[0] > size or flight[1] > number]

    def on_lost(self, size: int, first: int, last: int, next_packet_number: int) -> None:
        """Packets `first` to `last` of that size, or some of them, were declared lost."""
        if last < self._flight_from or (size <= self.arrived_size and last < self._arrived_to):
            return
        self._flight_from = next_packet_number
        self._flights.append((size, first))

    @property
    def is_found(self) -> bool:
        """Did BLACK_HOLE_FLIGHTS flights lose packets of a size of which none has come through since?"""
        return len(self._flights) >= BLACK_HOLE_FLIGHTS

    def forget(self) -> None:
        """The datagrams become smaller: a larger one of these flights that arrives after all says that it was wrong."""
        self._ignored_below = min((first for _, first in self._flights), default=self._ignored_below)
        self._flights.clear()
        self.arrived_size, self._arrived_to = 0, -1
