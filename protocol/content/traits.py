"""What is told beside a content and is no part of its identity: when each file was changed, whether its owner may run
it, and what of a folder is not shared, and why.

Two who have the same bytes have the same content, whatever their clocks and modes: a touch splits no swarm. So nothing
here is verified, and all of it is bounded: of modes the owner's execute bit alone, of times those from 1970 to 2100.
Pure.
"""

from __future__ import annotations

import struct
from typing import Iterable, List, NamedTuple, Sequence, Tuple

from protocol.content.listing import FOLDER_ENTRIES_MAX
from protocol.fields import Reader, Text, WireError
from protocol.left_out import UNKNOWN_KIND, WHY
from protocol.results import LeftOut

MTIME_MAX_NS = 4_102_444_800 * 10**9   # the beginning of 2100
EXAMPLE_BYTES_MAX = 1024
KINDS_MAX = 32
_LEFT_OUT = struct.Struct(">BI")       # kind, count; then an example
_TRAITS = struct.Struct(">BQ")         # flags, time
_EXECUTABLE = 1                        # of the flags; no other has a meaning
TRAITS_BYTES_MAX = 1 + KINDS_MAX * (_LEFT_OUT.size + 2 + EXAMPLE_BYTES_MAX) + FOLDER_ENTRIES_MAX * _TRAITS.size


class Traits(NamedTuple):
    """Of a file."""

    is_executable: bool
    mtime_ns: int


_KINDS = {code: kind for kind, (code, _) in WHY.items() if kind != "here"}


def encode_traits(left_out: Sequence[LeftOut], files: Iterable[Traits]) -> bytes:
    """What is left out, then the traits of each file in the order of the listing."""
    parts = [bytes([len(left_out)])]
    for kind, count, example in left_out:
        text = example.encode("utf-8", "backslashreplace")[:EXAMPLE_BYTES_MAX].decode("utf-8", "ignore")
        parts += (_LEFT_OUT.pack(WHY[kind][0], count), Text(EXAMPLE_BYTES_MAX).encode(text))
    parts += (_TRAITS.pack(_EXECUTABLE * one.is_executable, _in_bounds(one.mtime_ns)) for one in files)
    return b"".join(parts)


def decode_traits(data: bytes, file_count: int) -> Tuple[List[LeftOut], List[Traits]]:
    """The same, or WireError; no traits at all if they are of fewer files. Those of other names follow the others."""
    reader = Reader(data)
    left_out: List[LeftOut] = []
    kinds = reader.take(1)[0]
    if kinds > KINDS_MAX:
        raise WireError("too many reasons")
    for _ in range(kinds):
        code, count = _LEFT_OUT.unpack(reader.take(_LEFT_OUT.size))
        left_out.append(LeftOut(_KINDS.get(code, UNKNOWN_KIND), count, Text(EXAMPLE_BYTES_MAX).decode(reader)))
    if reader.left() < file_count * _TRAITS.size or reader.left() % _TRAITS.size:
        return left_out, []
    records = _TRAITS.iter_unpack(reader.take(reader.left()))
    return left_out, [Traits(bool(flags & _EXECUTABLE), _in_bounds(mtime_ns)) for flags, mtime_ns in records]


def left_out_in(data: bytes) -> Tuple[LeftOut, ...]:
    """What a source tells to have left out of a folder; nothing if it makes no sense."""
    try:
        return tuple(decode_traits(data, 0)[0])
    except WireError:
        return ()


def _in_bounds(mtime_ns: int) -> int:
    return min(max(mtime_ns, 0), MTIME_MAX_NS)
