"""The handshake of one connection, as far as it is no business of the endpoint: nonce, cookie, INITs and the deadline.

A value with `now`. The client asks without a cookie until it has one, then with it until the INIT_ACK is there; the
server remembers of whom it took the connection, to answer a repeated INIT as it did the first.
"""

from __future__ import annotations

import math
from typing import Optional, Tuple

from protocol.transport.packets import NO_COOKIE, CookiePacket, InitPacket

HANDSHAKE_TIMEOUT = 5.0  # seconds, both for the one who connects and for a half-open connection
INIT_INTERVALS = (0.25, 0.25, 0.5, 0.5)  # seconds between INITs; a lost answer is the common case on a LAN
# Before the cookie: under a flood of 20,000 INITs a second an endpoint has cookies for the first tenth of each second
# only (COOKIES_PER_SECOND), and whoever asks so often meets it.
ASK_INTERVALS = (0.08,) * 12 + (0.5,)
FEW_ASK_INTERVALS = (0.25, 1.0)  # where only so few may go out that none can be wasted on a short congestion


class Handshake:
    """One side's part in it."""

    __slots__ = ("client_id", "cookie", "deadline", "init_at", "nonce", "remote_token", "_count", "_sent_at", "_tries")

    def __init__(self, client_id: bytes, now: float) -> None:
        self.client_id = client_id
        self.nonce = b""
        self.cookie = NO_COOKIE
        self.remote_token = b""  # with which the remote will prove that a RESET is its own
        self.init_at = now  # when the next INIT goes out
        self.deadline = now + HANDSHAKE_TIMEOUT
        self._count = 0  # INITs sent with this cookie
        self._tries = math.inf  # INITs until a cookie shows that somebody is there
        self._sent_at = now

    def begin(self, nonce: bytes, deadline: float, tries: float = math.inf) -> None:
        """The client's side; no more than `tries` INITs go out until somebody answers."""
        self.nonce = nonce
        self.deadline = deadline
        self._tries = tries

    def accept(self, packet: InitPacket) -> None:
        """The server's side: the address has proved itself."""
        self.client_id = packet.client_id
        self.nonce = packet.nonce
        self.remote_token = packet.reset_token

    def on_cookie(self, packet: CookiePacket, now: float) -> None:
        """The first one that answers our INIT counts; with it the next INIT goes out at once."""
        if packet.nonce == self.nonce and self.cookie == NO_COOKIE:
            self.cookie = packet.cookie
            self._count = 0
            self.init_at = now

    def next_init(self, first_number: int, credit: int, token: bytes, now: float) -> InitPacket:
        """The INIT that goes out now; `init_at` is then that of the one after it."""
        self.init_at = now + self._interval()
        self._count += 1
        if self.cookie == NO_COOKIE and self._count >= self._tries:
            self.init_at = math.inf
        self._sent_at = now
        return InitPacket(self.client_id, self.nonce, first_number, credit, token, self.cookie)

    def _interval(self) -> float:
        """Seconds from this INIT to the next."""
        intervals: Tuple[float, ...] = INIT_INTERVALS
        if self.cookie == NO_COOKIE:
            intervals = ASK_INTERVALS if self._tries == math.inf else FEW_ASK_INTERVALS
        return intervals[min(self._count, len(intervals) - 1)]

    def on_init_ack(self, remote_token: bytes, now: float) -> Optional[float]:
        """It is done; the round trip in seconds, if it is clear which INIT was answered (RFC 9002 §5.1)."""
        self.remote_token = remote_token
        return max(now - self._sent_at, 1e-6) if self._count == 1 else None
