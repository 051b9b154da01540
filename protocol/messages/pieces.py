"""On a bulk link: a content, piece by piece."""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple, Tuple

from protocol.fields import Blob, Many, Number, Rest
from protocol.messages.words import (
    Bool,
    ClaimedSize,
    Code,
    FileId,
    NetworkId,
    NodeId,
    PieceIndex,
    PieceOffset,
    QueuePlace,
    TraitsPlace,
)

DIGESTS_PER_PAGE = 1024  # 32 KiB
TRAITS_PER_PAGE = 32 << 10
SPAN_BYTES_MAX = 1 << 20  # the most file bytes in one message
PIECE_MAP_BYTES_MAX = 1 << 19  # four million pieces
PIECES_TOLD_MAX = 1024  # in one NewPieces
# LinkHello.purpose; nobody reads it. Older programs say 2 on links that stand by.
PURPOSE_BULK = 1
# PieceRefused.reason
UNKNOWN_FILE, FILE_CHANGED, PIECE_MISSING, NOT_READABLE, MESH_IS_OFF, TOO_MANY_REQUESTS = 1, 2, 3, 4, 5, 6
# Why something is NOT_READABLE, which is told behind it, of no piece: programs that do not know these take nothing from
# them but that this piece does not come.
SHORT_OF_MEANS, NO_RIGHTS, DISK_ERROR = 7, 8, 9
NO_PIECE = 0xFFFFFFFF  # PieceRefused.index when the manifest or the piece map was asked for


class LinkHello(NamedTuple):
    """A member opens a further link to another: for pieces (bulk) or to stand by (mesh)."""

    purpose: Code
    network_id: NetworkId
    node_id: NodeId


class ManifestRequest(NamedTuple):
    """Ask a source for the digests of all pieces."""

    file_id: FileId


class ManifestPage(NamedTuple):
    """SHA-256 of each piece, in order; together with the size they hash to the identity."""

    file_id: FileId
    size: ClaimedSize
    first: PieceIndex
    digests: Annotated[bytes, Blob(DIGESTS_PER_PAGE * 32)]


class PieceMapRequest(NamedTuple):
    """Tell me what you have, and of each further piece when you have it."""

    file_id: FileId


class PieceMap(NamedTuple):
    """Bit i of byte i//8, most significant first, is piece i."""

    file_id: FileId
    complete: Bool
    bitmap: Annotated[bytes, Blob(PIECE_MAP_BYTES_MAX)]  # empty when complete


class PieceRequest(NamedTuple):
    """Ask a source for this piece and no other."""

    file_id: FileId
    index: PieceIndex  # type: ignore[assignment]


class PieceData(NamedTuple):
    """Bytes of one piece from `offset` in it; a piece over SPAN_BYTES_MAX comes in several."""

    file_id: FileId
    index: PieceIndex  # type: ignore[assignment]
    offset: PieceOffset
    data: Annotated[Any, Rest(SPAN_BYTES_MAX)]


class PieceRefused(NamedTuple):
    """This piece (or with NO_PIECE, the content) is not given, and why."""

    file_id: FileId
    index: PieceIndex  # type: ignore[assignment]
    reason: Code


class PieceCancel(NamedTuple):
    """This piece (or with NO_PIECE, the content, a folder with all that is in it) is not needed any more."""

    file_id: FileId
    index: PieceIndex  # type: ignore[assignment]


class Queued(NamedTuple):
    """Your place in the queue for an upload slot; 0: it is your turn."""

    position: QueuePlace


class TransferDone(NamedTuple):
    """I have it all, verified and kept."""

    file_id: FileId


class CheckBulk(NamedTuple):
    """A piece came damaged: let checksums cover what you send me, too."""


class NewPieces(NamedTuple):
    """More pieces that can be had here; a content has 4,096 at most."""

    file_id: FileId
    indexes: Annotated[Tuple[int, ...], Many(Number(2), PIECES_TOLD_MAX)]


class AnyPieceRequest(NamedTuple):
    """This piece; or, if somebody was given it, one that was given to nobody yet: you are the only source I know."""

    file_id: FileId
    index: PieceIndex  # type: ignore[assignment]


class OtherPiece(NamedTuple):
    """Instead of the piece asked for by AnyPieceRequest comes this one."""

    file_id: FileId
    asked: PieceIndex
    given: PieceIndex


class WrongPiece(NamedTuple):
    """This piece came from you with checksums that were right, and is not what its digest says: look at your file."""

    file_id: FileId
    index: PieceIndex  # type: ignore[assignment]


class TraitsRequest(NamedTuple):
    """What do you tell beside this content: times, execute bits, what of a folder is not shared?"""

    file_id: FileId


class TraitsPage(NamedTuple):
    """A part of that (protocol/content/traits.py), from byte `first` of `total`; nothing is told with a total of 0."""

    file_id: FileId
    first: TraitsPlace
    total: TraitsPlace
    data: Annotated[bytes, Blob(TRAITS_PER_PAGE)]
