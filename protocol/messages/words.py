"""The words that messages are made of: ids, names, places, counts, each with its limit."""

from __future__ import annotations

from typing import Annotated, Any, get_type_hints

from protocol.fields import Address, AddressField, Fixed, Flag, Number, Record, Text

NODE_ID_SIZE = 8
NETWORK_ID_SIZE = 16
NAME_BYTES_MAX = 128  # 32 characters of up to 4 bytes
REASON_BYTES_MAX = 300
MEMBERS_PER_PAGE = 100

U8 = Annotated[int, Number(1)]
U16 = Annotated[int, Number(2)]
U32 = Annotated[int, Number(4)]
U64 = Annotated[int, Number(8)]

# From these a node reckons on: what comes after the largest that is taken still fits into the field that tells it.
TERM_MAX = 0xFFFFFFFE  # the next supernode's is one more; no honest network gets so far
SHUT_ORDER = 1 << 31  # added to the join order of who cannot be reached: such a one succeeds behind all others
SEQUENCE_MAX = (1 << 63) - 1  # the next supernode counts on from the last line that it saw
Term = Annotated[int, Number(4, TERM_MAX)]
Sequence = Annotated[int, Number(8, SEQUENCE_MAX)]

# These are any number that the field holds, because nothing is reckoned from them: what they are held against is beside
# each. Whoever comes to reckon from one gives it a limit here.
Code = U8  # one of a few; an unknown one means nothing
ClaimedTerm = U32  # of somebody outside: held against TERM_STEP_MAX or TERM_JOINED_MAX before it is believed
Order = U32  # compared; a new supernode counts its own from 0 (at 200 joins a second for 124 days)
Version = U32  # taken only if it is the next; each supernode counts its own from 1, and a flush takes 1 ms or more
Count = U16  # of members or sources: shown; of the roster's lines: held against MEMBERS_MAX
ShareCount = U32  # held against SHARES_MAX, and against the entries themselves
RowCount = U32  # held against the rows themselves, and against LIST_ROWS_MAX
QueuePlace = U16  # shown
SeenSequence = U64  # compared
Counter = U64  # compared, and given back: whoever has said the last one is not heard again
Stamp = U64  # given back
RequestId = U32  # looked up, and given back
Milliseconds = U32  # shown or compared, as seconds; what is reckoned from one has a limit beside it
Microseconds = U32  # held against ROUND_TRIP_US_MAX
ClaimedSize = U64  # shown; held against FILE_SIZE_MAX, and against the manifest, before room is made for it
ClaimedCount = U32  # shown
PieceIndex = U32  # held against the pieces that there are
TraitsPlace = U32  # held against TRAITS_BYTES_MAX, and against what came of it
SliceIndex = U32  # held against the slices that were cast
CastNumber = U32  # compared
PieceOffset = U32  # held against what came of the piece; FILE_SIZE_MAX has it that every place in one fits

Bool = Annotated[bool, Flag()]
Nonce = Annotated[bytes, Fixed(8)]
NodeId = Annotated[bytes, Fixed(NODE_ID_SIZE)]
NetworkId = Annotated[bytes, Fixed(NETWORK_ID_SIZE)]
Secret = Annotated[bytes, Fixed(16)]
Digest = Annotated[bytes, Fixed(32)]
FileId = Annotated[bytes, Fixed(32)]
Name = Annotated[str, Text(NAME_BYTES_MAX)]
Reason = Annotated[str, Text(REASON_BYTES_MAX)]
Place = Annotated[Address, AddressField()]

NO_NODE = bytes(NODE_ID_SIZE)
NO_NETWORK = bytes(NETWORK_ID_SIZE)
NO_CLAIM = bytes(16)  # of a node that can show nothing should it come back
NOWHERE: Address = ("0.0.0.0", 0)


def record_of(kind: Any) -> Record:
    """The codec of a NamedTuple, read from its annotations."""
    hints = get_type_hints(kind, include_extras=True)
    return Record(kind, [_codec_of(hints[field]) for field in kind._fields])


def _codec_of(hint: Any) -> Any:
    return hint.__metadata__[0] if hasattr(hint, "__metadata__") else record_of(hint)
