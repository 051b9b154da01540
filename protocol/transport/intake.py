"""Room for what arrives, on all connections of an endpoint together; the counterpart of `Backlogs`, for what leaves.

Each connection has bounds of its own (its receive window, FRAMES_WAITING_MAX); two thousand of them together would
still fill the machine. So all share one sum of windows and one of unread frames, and memory of bodies is used again.
"""

from __future__ import annotations

from protocol.buffers import BufferPool
from protocol.transport.frames import FRAMES_WAITING_MAX
from protocol.transport.receiving import RECEIVE_WINDOW_MAX, ReceiveStream

RECEIVE_WINDOWS_MAX = 256 << 20  # bytes of credit given to all remotes together
FRAMES_WAITING_IN_ALL = 1 << 20  # unread frames of all connections: 256 MiB in the worst case
BODIES_KEPT_MAX = 24 << 20  # bytes of message bodies that are used again


class Intake:
    """What all streams of an endpoint that were opened here, and not closed since, may take in, and have unread."""

    def __init__(self) -> None:
        self.windows = 0  # bytes of receive window that all have together
        self.unread = 0  # whole frames of all that no reader has taken
        self.frames_max = FRAMES_WAITING_MAX  # unread, of a stream opened from now on
        self.bodies = BufferPool(BODIES_KEPT_MAX)

    def bound(self, frames_max: int) -> None:
        """No more unread frames than that in each stream opened from now on."""
        self.frames_max = frames_max

    def open(self) -> ReceiveStream:
        """The stream of a new connection, with the least window: everybody gets that one."""
        receiving = ReceiveStream(self.frames_max, self.bodies)
        self.windows += receiving.window
        return receiving

    def close(self, receiving: ReceiveStream) -> None:
        """Its connection is over: others may have its window."""
        self.windows -= receiving.window

    def grow(self, receiving: ReceiveStream) -> None:
        """Double a receive window that was used up once more, as long as all of them together stay within bounds."""
        window = receiving.window
        if receiving.is_window_used() and window < RECEIVE_WINDOW_MAX and self.windows + window <= RECEIVE_WINDOWS_MAX:
            self.windows += window
            receiving.double_window()

    def count(self, change: int) -> None:
        """A stream has so many unread frames more, or fewer."""
        self.unread += change

    def is_full(self) -> bool:
        """Are more frames unread than all connections together may have?"""
        return self.unread > FRAMES_WAITING_IN_ALL
