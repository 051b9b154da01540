"""What a congestion controller is told and what it answers: the contract."""

from __future__ import annotations

from typing import NamedTuple, Optional, Protocol


class Acknowledged(NamedTuple):
    """What one acknowledgement newly told."""

    now: float
    packets: int
    size: int  # bytes newly acknowledged
    rtt: Optional[float]  # a sample in seconds, if there was one
    smoothed_rtt: float
    rate: float  # bytes per second delivered over the last flight, 0 if not known
    is_app_limited: bool  # the rate is the application's, not the path's
    largest: int  # packet number
    next_packet_number: int
    bytes_in_flight: int  # behind this acknowledgement
    is_window_limited: bool
    oldest: int = -1  # packet number: what was sent before it had been told of already
    overtaken_rtt: float = 0.0  # seconds, the longest lately of a packet that others overtook; 0: none was


class CongestionController(Protocol):
    """How many bytes may be in flight, and how fast they go out; another one need only offer this."""

    window: float  # bytes

    def on_acknowledged(self, ack: Acknowledged) -> None:
        """Packets arrived: here a window grows (RFC 9002 §7.3.1, §7.3.3)."""

    def on_lost(self, now: float, packets: int, ranges: int, largest_lost: int, next_packet_number: int) -> None:
        """So many packets, in so many runs, were declared lost (§7.3.2).

        What was sent before `next_packet_number` knew nothing of it yet: its losses are of the same event.
        """

    def on_spurious(self, packets: int) -> None:
        """So many of those that were declared lost were only late: an answer to their loss may be taken back."""

    def on_persistent_congestion(self) -> None:
        """All was lost for so long that the path may be another one: begin with the least window (§7.6)."""

    def on_datagram_size(self, size: int) -> None:
        """Datagrams are of so many bytes from now on; the least window is counted in them (§7.2)."""

    def pacing_rate(self, smoothed_rtt: float) -> float:
        """Bytes per second at which batches leave (§7.7): a little more than window and round trip allow."""
