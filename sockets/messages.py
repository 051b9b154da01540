"""Whole messages over a channel: a long one goes in parts, of which a receiver gets all or none."""

from __future__ import annotations

import contextlib
import itertools
import threading

from protocol.transport.connection import CloseCode
from protocol.transport.frames import FRAME_SIZE_MAX, StreamViolation
from protocol.transport.links import MESSAGE
from sockets.channel import Channel
from sockets.kinds import LAST_PART, PART, PART_DROPPED, SPAN_SIZE, TRANSFER, Joining
from sockets.udp import RdtError


class Messages:
    """The messages of one channel, from any thread: each goes to, or comes from, one caller as a whole."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._numbers = itertools.count()  # of long messages
        self.joining = Joining()  # whose turn it is to receive has it
        # Callers' locks, not the protocol's: one message belongs to one caller from its beginning to its end.
        self._receiving, self._sending_long = threading.Lock(), threading.Lock()

    def send(self, message: bytes, deadline: float) -> None:
        """Queue it, once there is room; RdtError when there was none in time, or the channel is closed."""
        if len(message) <= FRAME_SIZE_MAX:
            self._channel.send_frame(MESSAGE, message, deadline=deadline)
        else:
            with self._channel.turn(self._sending_long, deadline, "another thread sends; no room"):
                self._send_long(memoryview(message), TRANSFER.pack(next(self._numbers) & 0xFFFFFFFF), deadline)

    def _send_long(self, message: memoryview, number: bytes, deadline: float) -> None:
        try:
            for start in range(0, len(message), SPAN_SIZE):
                kind = PART if start + SPAN_SIZE < len(message) else LAST_PART
                self._channel.send_frame(kind, number, message[start : start + SPAN_SIZE], deadline=deadline)
        except BaseException:
            with contextlib.suppress(RdtError):
                self._channel.put_frame(PART_DROPPED, number)
            raise

    def receive(self, deadline: float) -> bytes:
        """The next whole message; RdtError when none came in time, or none will."""
        channel = self._channel
        with channel.turn(self._receiving, deadline, "no message"):
            while True:
                frame = channel.take(channel.arrivals.messages, deadline, "no message")
                try:
                    message = self.joining.add(frame)
                except StreamViolation as violation:
                    channel.fail(CloseCode.LIMIT, str(violation))
                    continue
                if message is not None:
                    return message
