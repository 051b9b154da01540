"""How the path of one connection does, in a few numbers, for the log and for a person. Pure."""

from __future__ import annotations

from typing import NamedTuple, Optional


class PathFigures(NamedTuple):
    """What one end knows of both ways.

    Of the way here it sees only what comes late: bytes that arrived behind later ones, because they were lost and sent
    again, or overtaken.
    """

    round_trip: Optional[float]  # seconds, smoothed; None: nothing was measured yet
    window: int  # bytes: the congestion window of what this end sends
    sent: int  # packets, probes included
    lost: int  # of them, without those that came after all
    resent: int  # bytes
    receive_window: int  # bytes that the other end may send ahead of what was read here
    received: int  # bytes
    late: int  # of them
    datagram_size: int = 0  # bytes of UDP payload that the path takes, as far as was tried; 0: not known

    @property
    def lost_part(self) -> float:
        return self.lost / self.sent if self.sent else 0.0

    @property
    def late_part(self) -> float:
        return self.late / self.received if self.received else 0.0

    def __str__(self) -> str:
        trip = "unknown" if self.round_trip is None else f"{self.round_trip * 1e3:.1f} ms"
        sent = f"lost {self.lost} of {self.sent} packets, {self.resent} bytes sent again"
        here = f"{self.received} bytes here, {self.late} late"
        return f"round trip {trip}, window {self.window}, {sent}; {here}"
