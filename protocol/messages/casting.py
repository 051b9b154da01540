"""On a bulk link: one send of a content for many at once."""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple, Tuple

from protocol.casts import HOLES_TOLD_MAX
from protocol.fields import Blob, Many
from protocol.messages.words import Bool, CastNumber, Count, FileId, Milliseconds, Nonce, SliceIndex, record_of

PIECES_CAST_MAX = 4096  # as many as a content has


class Hole(NamedTuple):
    """Missing slices of a cast, numbered through the content."""

    first: SliceIndex
    slices: Count


CastMap = Annotated[bytes, Blob(PIECES_CAST_MAX // 8)]


class CastWanted(NamedTuple):
    """To a source that has it all: I would take this content by a cast, together with others."""

    file_id: FileId


class CastSixWanted(NamedTuple):
    """The same of a cast by IPv6, to a source that is reached so; what is offered then is one."""

    file_id: FileId


class CastOffer(NamedTuple):
    """From the source: listen to this cast's group, which follows from the session (protocol/casts.py).

    If it has begun, these pieces are yet to come, and who hears it takes part at once; else it is told by CastComing.
    """

    file_id: FileId
    session: Nonce
    coming: CastMap
    takers: Count
    interval_ms: Milliseconds  # between two reports; held against its limits


class CastReady(NamedTuple):
    """I hear it, and this is what I have not: bit i of byte i//8, most significant first, is piece i."""

    file_id: FileId
    session: Nonce
    missing: CastMap


class CastComing(NamedTuple):
    """These pieces come, in order, to so many at once; report so often."""

    file_id: FileId
    session: Nonce
    coming: CastMap
    takers: Count
    interval_ms: Milliseconds  # held against its limits


class CastTaken(NamedTuple):
    """To the caster, every now and then: how it comes, and which slices are missing (protocol/casts.py)."""

    file_id: FileId
    session: Nonce
    highest: CastNumber
    received: CastNumber
    lost: CastNumber
    is_through: Bool
    holes: Annotated[Tuple[Any, ...], Many(record_of(Hole), HOLES_TOLD_MAX)]


class CastEnd(NamedTuple):
    """Either end: no more of it, from me or to me. What is missing is asked for as always."""

    file_id: FileId
    session: Nonce
