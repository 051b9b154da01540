"""What a shared content is: a size and the digests of its pieces, from which its identity follows.

Pure: nothing here touches a disk. `disk/` keeps contents, the roles speak of them, and both go by these rules. Every
refusal is a `LibraryError` with a sentence that can be shown to a person.
"""

from __future__ import annotations

import hashlib
from typing import Union

from protocol.content.troubles import ErrorKind, LibraryError

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
PIECE_SIZE_MIN = 64 * KIB      # below it the digests' own traffic would show
PIECE_SIZE_MAX = MIB           # for files up to 4 GiB; beyond, pieces grow so that no file has more than 4096
PIECES_WANTED = 256            # enough for many to give each other parts of one file; each piece costs each of them
PIECES_MAX = 4096
LARGE_FILE = 4 * GIB
FILE_SIZE_MAX = 1 << 44        # bytes (16 TiB): pieces of larger ones have places that a PieceData cannot tell
DIGEST_BYTES = 32


def piece_size_of(size: int) -> int:
    """The piece size in bytes for a file of this size: a power of two that every node computes alike."""
    wanted = -(-size // (PIECES_MAX if size > LARGE_FILE else PIECES_WANTED))
    power = 1 << max(0, wanted - 1).bit_length()
    return power if size > LARGE_FILE else min(max(power, PIECE_SIZE_MIN), PIECE_SIZE_MAX)


def piece_count_of(size: int) -> int:
    """How many pieces a file of this size has; an empty file has none."""
    return -(-size // piece_size_of(size))


def piece_length(size: int, index: int) -> int:
    """The length of one piece in bytes: only the last may be shorter."""
    piece_size = piece_size_of(size)
    return min(piece_size, size - index * piece_size)


def identity_of(size: int, digests: bytes) -> bytes:
    """The id of a content: SHA-256 over its size (8 bytes, big-endian) and the SHA-256 of each piece."""
    return hashlib.sha256(size.to_bytes(8, "big") + digests).digest()


def digest_at(digests: bytes, index: int) -> bytes:
    """The digest of one piece."""
    return digests[index * DIGEST_BYTES:(index + 1) * DIGEST_BYTES]


def digests_of(content: bytes) -> bytes:
    """The piece digests of a content that is in memory."""
    piece_size = piece_size_of(len(content))
    view = memoryview(content)
    return b"".join(
        hashlib.sha256(view[start:start + piece_size]).digest() for start in range(0, len(content), piece_size)
    )


def check_manifest(file_id: bytes, size: int, digests: bytes) -> None:
    """Raise `LibraryError` unless size and digests belong to the id (so they may come from any source)."""
    if type(size) is not int or not 0 <= size <= FILE_SIZE_MAX:
        raise LibraryError(ErrorKind.MALFORMED, "The declared size is impossible.")
    if len(digests) != piece_count_of(size) * DIGEST_BYTES or identity_of(size, digests) != file_id:
        raise LibraryError(ErrorKind.MALFORMED, "The list of piece digests does not belong to this file.")


def is_true_manifest(file_id: bytes, size: int, digests: bytes) -> bool:
    """The same as an answer."""
    try:
        check_manifest(file_id, size, digests)
    except LibraryError:
        return False
    return True


def has_piece(bitmap: Union[bytes, bytearray], index: int) -> bool:
    """Whether bit `index` is set (bit i of byte i // 8, most significant first)."""
    return bool(bitmap[index >> 3] & 0x80 >> (index & 7))


def set_piece(bitmap: bytearray, index: int) -> None:
    """Set bit `index`."""
    bitmap[index >> 3] |= 0x80 >> (index & 7)


def clear_piece(bitmap: bytearray, index: int) -> None:
    """Clear bit `index`."""
    bitmap[index >> 3] &= ~(0x80 >> (index & 7))
