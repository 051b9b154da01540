"""Whole messages over a channel: a long one goes in parts, of which a receiver gets all or none."""

from __future__ import annotations

import contextlib
import itertools
import threading
from typing import Optional

from protocol.transport.frames import (
    FRAME_SIZE_MAX,
    MESSAGE,
    PART_DROPPED,
    Frame,
    LongMessages,
    StreamViolation,
    encode_number,
    parts_of,
)
from protocol.transport.packets import CloseCode
from sockets.channel import Channel
from sockets.udp import RdtError


class Messages:
    """The messages of one channel, from any thread: each goes to, or comes from, one caller as a whole."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._numbers = itertools.count()  # of long messages
        self.joining = LongMessages()  # whose turn it is to receive has it
        # Callers' locks, not the protocol's: one message belongs to one caller from its beginning to its end.
        self._receiving, self._sending_long = threading.Lock(), threading.Lock()

    def send(self, message: bytes, deadline: float) -> None:
        """Queue it, once there is room; RdtError when there was none in time, or the channel is closed."""
        if len(message) <= FRAME_SIZE_MAX:
            self._channel.send_frame(MESSAGE, message, deadline=deadline)
        else:
            with self._channel.turn(self._sending_long, deadline, "another thread sends; no room"):
                self._send_long(memoryview(message), encode_number(next(self._numbers) & 0xFFFFFFFF), deadline)

    def _send_long(self, message: memoryview, number: bytes, deadline: float) -> None:
        try:
            for kind, part in parts_of(message):
                self._channel.send_frame(kind, number, part, deadline=deadline)
        except BaseException:
            with contextlib.suppress(RdtError):
                self._channel.put_frame(PART_DROPPED, number)
            raise

    def receive(self, deadline: float) -> bytes:
        """The next whole message; RdtError when none came in time, or none will."""
        channel = self._channel
        with channel.turn(self._receiving, deadline, "no message"):
            while True:
                message = self._joined(channel.take(channel.arrivals.messages, deadline, "no message"))
                if message is not None:
                    return message

    def _joined(self, frame: Frame) -> Optional[bytes]:
        """The message that is whole with this frame, if one is."""
        if frame.kind == MESSAGE:
            return bytes(frame.body)
        try:
            return self.joining.take(frame)
        except StreamViolation as violation:
            self._channel.fail(CloseCode.LIMIT, str(violation))
            return None
