"""The kinds of frames that the verbs use, and how a long message is put together from its parts. Pure."""

from __future__ import annotations

import struct
from typing import Dict, List, Optional

from protocol.transport.frames import FRAME_COST, Frame, StreamViolation
from protocol.transport.links import MESSAGE

FILE, FILE_DATA, FILE_END, FILE_RECEIPT, FILE_REFUSED = 1, 2, 3, 4, 5  # frame kinds; 0 is MESSAGE
FILE_DAMAGED = 8  # asks for the file once more, with checksums over its bytes
PART, LAST_PART = 6, 7  # of a message that is too long for one frame; each names its message by a number
PART_DROPPED = 9  # the rest of that message will not come
SPAN_SIZE = 1 << 20  # bytes of a file, or of a long message, in one frame
MESSAGE_SIZE_MAX = 64 << 20  # bytes that a receiver puts together
TRANSFER = struct.Struct(">I")
FILE_HEADER = struct.Struct(">IQ")


class Joining:
    """Long messages on their way here; of several at once, for several threads may send."""

    def __init__(self) -> None:
        self._parts: Dict[bytes, List[bytearray]] = {}  # by the number of their message
        self.size = 0  # bytes, with what each part costs beside its own

    def add(self, frame: Frame) -> Optional[bytes]:
        """The message that is whole with this frame, if one is; StreamViolation when too much waits to be whole."""
        if frame.kind == MESSAGE:
            return bytes(frame.body)
        number, part = bytes(frame.body[: TRANSFER.size]), frame.body[TRANSFER.size :]
        if frame.kind != PART_DROPPED:
            self._parts.setdefault(number, []).append(part)
            self.size += len(part) + FRAME_COST
        if self.size > MESSAGE_SIZE_MAX + SPAN_SIZE:
            self._parts, self.size = {}, 0
            raise StreamViolation("sent a message that is too long")
        if frame.kind == PART or number not in self._parts:
            return None
        parts = self._parts.pop(number)
        self.size -= sum(len(part) + FRAME_COST for part in parts)
        return b"".join(parts) if frame.kind == LAST_PART else None
