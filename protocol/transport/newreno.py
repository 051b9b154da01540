"""NewReno as RFC 9002 §7 and its appendix B state it: the plainest congestion controller there is.

    slow start             §7.3.1   the window grows by what was acknowledged, until a loss
    recovery period        §7.3.2   a loss halves it; what was sent before that brings no second cut and no growth
    congestion avoidance   §7.3.3   behind the threshold it grows by one datagram a round trip
    persistent congestion  §7.6.2   nothing came through for long: down to the minimum
    application-limited    §7.8     a window that is not in use does not grow

Pure arithmetic on bytes and packet numbers. It takes every loss for a full queue; what `CubicQ` knows more, to tell
the two apart, is to be seen beside it: `rdt.open(ip, port, controller="newreno")`.
"""

from __future__ import annotations

import math

from protocol.transport.congestion import Acknowledged
from protocol.transport.cubic import INITIAL_WINDOW_MAX, INITIAL_WINDOW_PACKETS

MINIMUM_WINDOW_PACKETS = 2  # RFC 9002 §7.2
LOSS_REDUCTION_FACTOR = 0.5  # RFC 9002 §7.3.2
PACING_GAIN = 1.25  # RFC 9002 §7.7: N, so that what is lost to late timers does not hold the window back


class NewReno:
    """A `CongestionController`: a window, a threshold, and the packet number that ends the recovery period."""

    def __init__(self, datagram_size: int) -> None:
        self.datagram_size = datagram_size  # bytes
        self.window: float = self.initial_window  # bytes
        self.ssthresh = math.inf  # bytes: below it is slow start
        self._recovery_end = -1  # packets below this number were sent before the recovery period began

    @property
    def initial_window(self) -> int:
        """RFC 9002 §7.2: ten datagrams, but no more than 14,720 bytes unless two are."""
        return min(INITIAL_WINDOW_PACKETS * self.datagram_size, max(INITIAL_WINDOW_MAX, self.minimum_window))

    @property
    def minimum_window(self) -> int:
        """Bytes: with two datagrams in flight acknowledgements keep coming (RFC 9002 §7.2)."""
        return MINIMUM_WINDOW_PACKETS * self.datagram_size

    def on_acknowledged(self, ack: Acknowledged) -> None:
        """RFC 9002 §B.5. The first packet of the recovery period that arrives ends it: `largest` is that packet."""
        if ack.largest < self._recovery_end or not ack.is_window_limited:
            return
        if self.window < self.ssthresh:
            self.window += ack.size
        else:
            self.window += self.datagram_size * ack.size / self.window

    def on_lost(self, now: float, packets: int, ranges: int, largest_lost: int, next_packet_number: int) -> None:
        """RFC 9002 §B.6: one reaction to all that was on its way when it began."""
        if largest_lost < self._recovery_end:
            return
        self._recovery_end = next_packet_number
        self.ssthresh = self.window * LOSS_REDUCTION_FACTOR
        self.window = max(self.ssthresh, self.minimum_window)

    def on_spurious(self, packets: int) -> None:
        """RFC 9002 takes no reaction back: a loss that was none has cost half of the window."""

    def on_persistent_congestion(self) -> None:
        """RFC 9002 §7.6.2 and §B.8: the minimum, from which slow start climbs at once."""
        self.window = self.minimum_window
        self._recovery_end = -1

    def on_datagram_size(self, size: int) -> None:
        """RFC 9002 §7.2: the window's bounds are counted in datagrams of the new size."""
        self.datagram_size = size
        least = self.initial_window if self.ssthresh == math.inf else self.minimum_window
        self.window = max(self.window, least)

    def pacing_rate(self, smoothed_rtt: float) -> float:
        """Bytes per second (RFC 9002 §7.7)."""
        return PACING_GAIN * self.window / max(smoothed_rtt, 1e-6)
