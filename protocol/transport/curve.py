"""CUBIC's curve: how a window grows between two reductions (RFC 9438 §4.2-4.7).

A value: it says what the window becomes, and `CubicQ` whose it is. Windows in bytes, times in seconds.
"""

from __future__ import annotations

from typing import Optional, Tuple

from protocol.transport.congestion import Acknowledged

Epoch = Tuple[float, Optional[float]]


class CubicCurve:
    """Quickly back to the window that was too large, slowly past it, and then faster and faster."""

    C = 0.4  # packets per second cubed, §5.1
    BETA = 0.7  # §4.6
    FAST_CONVERGENCE = 0.85  # (1 + BETA) / 2, §4.7

    def __init__(self) -> None:
        self.window_max = 0.0  # Wmax
        self._epoch_start: Optional[float] = None
        self._grown_at = 0.0  # when it last let the window grow
        self._k = 0.0  # seconds
        self._estimate = 0.0  # West: what Reno would have

    @property
    def epoch(self) -> Epoch:
        """For `recall`."""
        return self.window_max, self._epoch_start

    def recall(self, epoch: Epoch) -> None:
        """The reduction since was a mistake."""
        self.window_max, self._epoch_start = epoch

    def aim(self, window_max: float) -> None:
        """The growth heads for this window: so much was there before."""
        self.window_max = window_max

    def restart(self) -> None:
        """The window became another one: the growth begins from there."""
        self._epoch_start = None

    def reduced(self, window: float) -> float:
        """There was a queue at that window: the one after it. Who has less than before leaves more to others (§4.7)."""
        self.window_max = window * (self.FAST_CONVERGENCE if window < self.window_max else 1.0)
        return self.BETA * window

    def grown(self, window: float, size: int, ack: Acknowledged) -> float:
        """The window after this acknowledgement, of packets of that size (§4.2-4.5)."""
        if self._epoch_start is None:
            self._epoch_start = ack.now
            self._estimate = window
            self.window_max = max(self.window_max, window)
            self._k = ((self.window_max - window) / size / self.C) ** (1 / 3)
        else:
            # §5.8: time in which the window was not in use does not count. Where it is, growth is never further apart
            # than a round trip.
            self._epoch_start += max(0.0, ack.now - self._grown_at - ack.smoothed_rtt)
        self._grown_at = ack.now
        elapsed = ack.now - self._epoch_start + ack.smoothed_rtt
        target = self.C * (elapsed - self._k) ** 3 * size + self.window_max
        target = min(max(target, window), 1.5 * window)
        alpha = 3 * (1 - self.BETA) / (1 + self.BETA) if self._estimate < self.window_max else 1.0
        self._estimate += alpha * size * ack.size / window
        window += (target - window) * ack.size / window
        return max(window, min(self._estimate, 1.5 * window))
