"""When the supernode looks again at what it put off: one instant, which any of its desks may bring nearer. Pure."""

from __future__ import annotations

import math

TICK = 0.5  # seconds between two looks at the members
WAITING_INTERVAL = 0.1  # seconds between two looks whether what was put off has its turn


class Alarm:
    """Set by who has put something off; whoever it rings for looks at all that waits."""

    def __init__(self) -> None:
        self.at = math.inf

    def set(self, now: float) -> None:
        """Something waits since now."""
        self.at = min(self.at, now + WAITING_INTERVAL)

    def rings(self, now: float) -> bool:
        """Is it time? Then it is silent until it is set again."""
        is_time = now >= self.at
        if is_time:
            self.at = math.inf
        return is_time
