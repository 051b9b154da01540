"""A cast: one send of a content's pieces to many on the LAN at once, by IP multicast. What all rooms know of it.

The *caster* has a content that several want and sends its pieces to a group; the *takers* put them together, verify
each by its digest as any other, and fetch by links what did not come. A cast is known by its *session*, drawn at
random, from which everybody computes the group and its port, so nobody can be made to join any other.

A piece is cast in *slices* of SLICE_SIZE bytes, one a datagram (`protocol/transport/casting.py`). Slices are numbered
through the content: piece times slices of a piece, and so on. Where the takers are reached by IPv6 it goes to a group
of IPv6, in slices of SLICE_SIZE_SIX.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Tuple

from protocol.fields import Address

SLICE_SIZE = 1440  # bytes; with its header, and those of UDP and IP, within 1,500, so that none is ever fragmented
SLICE_SIZE_SIX = 1200  # bytes, of a cast by IPv6: within the 1,280 that each of its links carries (RFC 8200 §5)
CAST_PIECE_MAX = 1 << 20  # bytes: of larger pieces too much would lie half here
HOLES_TOLD_MAX = 512  # runs of missing slices in one report
HOLE_SLICES_MAX = 0xFFFF  # in one run
BRINGS_NOTHING = "it brings little that is new"  # why a taker leaves one, and tries no other of that content

Holes = Tuple[Tuple[int, int], ...]  # (first slice, how many), slices numbered through the content


def group_of(session: bytes, is_six: bool = False) -> Address:
    """Where the datagrams of that session go; half of it shows there, the other half only members know.

    A group of 239.255.0.0/16, which switches do not flood as 224.0.0.x; or one of ff12::/16: that nobody assigned, and
    that no router lets out of the link (RFC 4291 §2.7), with an id as drawn ones have it (RFC 3307 §4.3).
    """
    port = 49152 + int.from_bytes(session[2:4], "big") % 16384
    if is_six:
        return f"ff12::6c61:6273:{0x8000 | int.from_bytes(session[:2], 'big'):x}:{session[2:4].hex()}", port
    return f"239.255.{session[0]}.{session[1]}", port


def slice_size_of(is_six: bool) -> int:
    """Bytes of a slice of a cast by IPv4 or IPv6."""
    return SLICE_SIZE_SIX if is_six else SLICE_SIZE


def slices_of(length: int, slice_size: int = SLICE_SIZE) -> int:
    """Slices of so many bytes."""
    return -(-length // slice_size)


class CastPlan(NamedTuple):
    """What a taker knows of what is cast."""

    size: int
    piece_size: int
    coming: bytes  # bit i of byte i // 8, most significant first, is piece i: is it to come?
    interval: float  # seconds between two reports
    slice_size: int = SLICE_SIZE  # bytes

    @property
    def slices_each(self) -> int:
        """Slices of a piece; the last one may have fewer."""
        return slices_of(self.piece_size, self.slice_size)


# ---- what the network tells the roles: each is an event with the session that it is of


class CastHeard(NamedTuple):
    """The first datagram of the group has come: this node can take part."""

    session: bytes


class CastPiece(NamedTuple):
    """All slices of a piece are here; it is yet to be verified. It holds its room until `cast_done` is called."""

    session: bytes
    index: int  # type: ignore[assignment]
    data: Any


class CastReport(NamedTuple):
    """How it comes, since the last one; `highest`: the largest number of a datagram so far."""

    session: bytes
    highest: int
    received: int
    lost: int
    holes: Holes
    is_through: bool  # all that was to come is here


class CastOver(NamedTuple):
    """Nothing comes, or can come, any more; or (at the caster) nothing can be sent."""

    session: bytes
    reason: str


class CastRoom(NamedTuple):
    """To the caster: most of what it has handed over is sent."""

    session: bytes
