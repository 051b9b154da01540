"""What roles say to each other: every message by its number.

A message is a NamedTuple; its annotations say how each field is encoded (`protocol/fields.py` has the codecs).
On the wire it is one byte of tag and the fields in order; bytes left over are malformed. Tags are only ever added to.
The files beside this one have the messages, trade by trade, and in `words.py` what they are made of; everybody else
takes them from here:

    from protocol.messages import Chat, decode, encode      # or: from protocol import messages ... messages.Chat
    data = encode(Chat(...))        # b"".join(encode_parts(...)); parts spare large pieces a copy
    message = decode(data)          # or WireError, whatever the bytes
"""

from __future__ import annotations

from typing import Any, Dict, List

from protocol.fields import Buffer, Reader, WireError
from protocol.messages import casting, chat, finding, membership, naming, pieces, reaching, sharing, succession
from protocol.messages.casting import *
from protocol.messages.chat import *
from protocol.messages.finding import *
from protocol.messages.membership import *
from protocol.messages.naming import *
from protocol.messages.pieces import *
from protocol.messages.reaching import *
from protocol.messages.sharing import *
from protocol.messages.succession import *
from protocol.messages.words import *

TABLE: Dict[int, Any] = {
    1: finding.Query,
    2: finding.Answer,
    3: finding.Wanted,
    6: succession.Prove,
    7: succession.Proof,
    10: membership.Join,
    11: pieces.LinkHello,
    12: membership.Welcome,
    13: membership.NotSupernode,
    14: membership.Busy,
    15: membership.RosterPage,
    16: membership.RosterUpdate,
    18: membership.RosterRequest,
    19: membership.Ping,
    20: membership.Pong,
    21: membership.SetMesh,
    22: membership.Leave,
    23: succession.Handover,
    24: succession.Moved,
    25: succession.Stale,
    26: succession.Lost,
    27: succession.Heirs,
    28: succession.Stays,
    29: membership.Guest,
    30: chat.Say,
    31: chat.Chat,
    32: chat.Whisper,
    33: chat.Whispered,
    34: chat.Heard,
    35: naming.Called,
    36: naming.WasCalled,
    37: naming.Claim,
    38: membership.PingSeldom,
    40: sharing.ShareDigest,
    41: sharing.SharesWanted,
    42: sharing.SharePage,
    43: sharing.ShareAdd,
    44: sharing.ShareRemove,
    45: sharing.ListRequest,
    46: sharing.ListPage,
    47: sharing.Search,
    48: sharing.Offer,
    49: sharing.Relay,
    50: sharing.NotRelayed,
    60: pieces.ManifestRequest,
    61: pieces.ManifestPage,
    62: pieces.PieceMapRequest,
    63: pieces.PieceMap,
    65: pieces.PieceRequest,
    66: pieces.PieceData,
    67: pieces.PieceRefused,
    68: pieces.PieceCancel,
    69: pieces.Queued,
    70: pieces.TransferDone,
    71: pieces.CheckBulk,
    72: pieces.NewPieces,
    73: pieces.AnyPieceRequest,
    74: pieces.OtherPiece,
    75: pieces.TraitsRequest,
    76: pieces.TraitsPage,
    79: pieces.WrongPiece,
    80: reaching.Places,
    81: reaching.Introduce,
    82: reaching.Knock,
    83: reaching.Knocked,
    85: reaching.ReachWanted,
    86: reaching.TryReach,
    87: reaching.Tried,
    88: reaching.Unasked,
    89: reaching.Reached,
    90: reaching.Reach,
    91: reaching.Beyond,
    94: naming.Fingerprints,
    100: casting.CastWanted,
    101: casting.CastOffer,
    102: casting.CastReady,
    103: casting.CastComing,
    104: casting.CastTaken,
    105: casting.CastEnd,
    106: casting.CastSixWanted,
}
_BY_TAG = {tag: (kind, record_of(kind)) for tag, kind in TABLE.items()}
_BY_TYPE = {kind: (bytes([tag]), codec) for tag, (kind, codec) in _BY_TAG.items()}


def encode_parts(message: Any) -> List[Buffer]:
    """The message as buffers to be sent one behind the other."""
    tag, codec = _BY_TYPE[type(message)]
    return [tag, *codec.parts(message)]


def encode(message: Any) -> bytes:
    """The message as bytes; ValueError if a field does not fit."""
    return b"".join(encode_parts(message))


def decode(data: Buffer) -> Any:
    """The message that these bytes are, or WireError."""
    if len(data) == 0:
        raise WireError("empty message")
    entry = _BY_TAG.get(data[0])
    if entry is None:
        raise WireError("unknown message")
    reader = Reader(data, 1)
    message = entry[1].decode(reader)
    if reader.left():
        raise WireError("bytes left over behind the message")
    return message
