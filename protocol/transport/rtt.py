"""How long a round trip takes (RFC 9002 §5)."""

from __future__ import annotations

import math

GRANULARITY = 0.001  # seconds, RFC 9002 §6.1.2
INITIAL_RTT = 0.1  # seconds; RFC 9002 says 0.333, a lab is a LAN
MAX_ACK_DELAY = 0.005  # seconds that the receiver may hold an acknowledgement back


class RttEstimator:
    """Smoothed round-trip time and its variance, in seconds (RFC 9002 §5)."""

    __slots__ = ("latest", "minimum", "smoothed", "variance", "samples")

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Nothing is known of the path."""
        self.latest = INITIAL_RTT
        self.minimum = math.inf
        self.smoothed = INITIAL_RTT
        self.variance = INITIAL_RTT / 2
        self.samples = 0

    def on_sample(self, latest_rtt: float, ack_delay: float) -> None:
        """A round trip in seconds, and how long the other side held its acknowledgement back (RFC 9002 §5.3)."""
        self.latest = latest_rtt
        self.samples += 1
        if self.samples == 1:
            self.minimum = self.smoothed = latest_rtt
            self.variance = latest_rtt / 2
            return
        self.minimum = min(self.minimum, latest_rtt)
        adjusted_rtt = latest_rtt
        if latest_rtt >= self.minimum + ack_delay:
            adjusted_rtt = latest_rtt - ack_delay
        self.variance = 3 / 4 * self.variance + 1 / 4 * abs(self.smoothed - adjusted_rtt)
        self.smoothed = 7 / 8 * self.smoothed + 1 / 8 * adjusted_rtt

    def restart_minimum(self) -> None:
        """After persistent congestion the path may be another: its least round trip is looked for anew (§5.2)."""
        self.minimum = self.latest

    @property
    def probe_timeout(self) -> float:
        """RFC 9002 §6.2.1, without the backoff."""
        return self.smoothed + max(4 * self.variance, GRANULARITY) + MAX_ACK_DELAY
