"""Frames: what the bytes of a connection are cut into, each with its kind and length."""

from __future__ import annotations

import struct
from typing import NamedTuple

FRAME_HEADER = struct.Struct(">BI")
FRAME_HEADER_SIZE = FRAME_HEADER.size
FRAME_SIZE_MAX = (1 << 20) + (1 << 16)  # a span of 1 MiB and what goes before it; a longer message is refused
FRAME_COST = 256  # bytes that a waiting frame costs beside its own
FRAMES_WAITING_MAX = 1 << 18  # whole frames that the reader has not taken: 64 MiB in the worst case
BODY_STEP = 64 << 10  # a body's memory grows with what has arrived, not with what its header claims


class StreamViolation(Exception):
    """The remote broke flow control or framing: the connection is closed with this reason."""


class Frame(NamedTuple):
    kind: int
    body: bytearray
