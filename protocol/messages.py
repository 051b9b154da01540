"""What roles say to each other: one class a message, one table of tags.

A message is a NamedTuple; its annotations say how each field is encoded (`protocol/fields.py` has the codecs).
On the wire it is one byte of tag and the fields in order; bytes left over are malformed. Tags are only ever added to.

    data = encode(Chat(...))        # b"".join(encode_parts(...)); parts spare large pieces a copy
    message = decode(data)          # or WireError, whatever the bytes
"""

from __future__ import annotations

from typing import Annotated, Any, Callable, Dict, List, NamedTuple, Tuple, Type, TypeVar, get_type_hints

from protocol.casts import HOLES_TOLD_MAX
from protocol.fields import (
    Address,
    AddressField,
    Blob,
    Buffer,
    Fixed,
    Flag,
    Many,
    Number,
    Reader,
    Record,
    Rest,
    Text,
    WireError,
)
from protocol.results import CHAT_BYTES_MAX

NODE_ID_SIZE = 8
NETWORK_ID_SIZE = 16
NAME_BYTES_MAX = 128  # 32 characters of up to 4 bytes
FILE_NAME_BYTES_MAX = 1024
REASON_BYTES_MAX = 300
MEMBERS_MAX = 1024
MEMBERS_PER_PAGE = 100
HEIRLOOMS_MAX = 8  # of the latest rulers of one part of a network
SUFFIX_BYTES_MAX = 32  # what is behind a name: `~` and the digits of an id, or `@` and an address
OPENINGS_MAX = 8  # earlier runs of a node that a Claim shows
PLACES_MAX = 4  # own addresses that a member tells, one for each interface
LOST_TOLD_MAX = 64  # places; a newcomer may rule long after those who saw who was lost are gone
SHARES_MAX = 10_000  # files that one node may announce
SHARES_PER_PAGE = 100
LIST_PER_PAGE = 50
HOLDERS_NAMED_MAX = 8  # holders named in a row of the list; all are counted
DIGESTS_PER_PAGE = 1024  # 32 KiB
TRAITS_PER_PAGE = 32 << 10
SPAN_BYTES_MAX = 1 << 20  # the most file bytes in one message
PIECE_MAP_BYTES_MAX = 1 << 19  # four million pieces
PIECES_CAST_MAX = 4096  # as many as a content has
PIECES_TOLD_MAX = 1024  # in one NewPieces
HEARD_SHOWN, HEARD_GONE = 1, 2  # of a private line
PROVE_PADDING = 4 + HEIRLOOMS_MAX * (8 + 16)  # as for a Query
QUERY_PADDING = 128  # a Query is longer than its Answer, so nobody can use us to multiply traffic
KNOCK_PADDING = 19  # a Knocked has an IPv6 place instead
WANTED_PADDING = QUERY_PADDING + NAME_BYTES_MAX - 19  # nor is a Wanted, with an IPv6 place, longer than a Query

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
FileName = Annotated[str, Text(FILE_NAME_BYTES_MAX)]
Reason = Annotated[str, Text(REASON_BYTES_MAX)]
Suffix = Annotated[str, Text(SUFFIX_BYTES_MAX)]
Place = Annotated[Address, AddressField()]

# Answer.role
ROLE_MEMBER, ROLE_SUPERNODE, ROLE_ALONE = 1, 2, 0  # alone: searching, or between two networks
# LinkHello.purpose; nobody reads it. Older programs say 2 on links that stand by.
PURPOSE_BULK = 1
# Departure.how
LEFT, GONE = 1, 2
# PieceRefused.reason
UNKNOWN_FILE, FILE_CHANGED, PIECE_MISSING, NOT_READABLE, MESH_IS_OFF, TOO_MANY_REQUESTS = 1, 2, 3, 4, 5, 6
# Why something is NOT_READABLE, which is told behind it, of no piece: programs that do not know these take nothing from
# them but that this piece does not come.
SHORT_OF_MEANS, NO_RIGHTS, DISK_ERROR = 7, 8, 9
NO_PIECE = 0xFFFFFFFF  # PieceRefused.index when the manifest or the piece map was asked for

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


class MemberEntry(NamedTuple):
    """One line of the roster."""

    node_id: NodeId
    name: Name
    place: Place  # NOWHERE for the supernode itself: it is where it was reached
    order: Order  # join order: the lowest living one succeeds; SHUT_ORDER more for one that others cannot reach
    mesh: Bool
    present: Bool  # False: known from before a failover, not back yet


class Heirloom(NamedTuple):
    """Who was of this node's people when it ruled has its key, or can make a mark with it (membership/heirs.py)."""

    node_id: NodeId
    key: Secret


class Bearer(NamedTuple):
    """What a member is called: its name in the roster, and this behind it (membership/labels.py)."""

    node_id: NodeId
    suffix: Suffix
    claim: Secret  # the digest of what it shows when it comes back as another node (membership/claims.py)


class Identity(NamedTuple):
    """Whose certificate has which fingerprint, in a network with a key."""

    node_id: NodeId
    name: Name  # said by who rules; a member leaves it out
    fingerprint: Digest
    is_lasting: Bool  # it outlives the run


class FormerBearer(NamedTuple):
    """What somebody was called who is no longer here: nobody else is, for an hour."""

    node_id: NodeId
    name: Name
    suffix: Suffix
    claim: Secret
    gone_ms: Milliseconds  # for how long


class Opening(NamedTuple):
    """What only the node can show that was this one, in an earlier run."""

    node_id: NodeId
    opening: Secret


class ShareEntry(NamedTuple):
    """One file or folder that a node shares."""

    file_id: FileId
    size: ClaimedSize  # of the content; for a folder, of its listing
    name: FileName
    is_folder: Bool
    file_count: ClaimedCount  # files in the folder; 1 for a file
    total_size: ClaimedSize  # bytes in the folder; the size for a file
    cached: Bool  # in the supernode's cache, not in a shared folder


class ListRow(NamedTuple):
    """One content of the network under one name."""

    file_id: FileId
    size: ClaimedSize
    name: FileName
    is_folder: Bool
    file_count: ClaimedCount
    total_size: ClaimedSize
    sources: Count
    holders: Annotated[Tuple[bytes, ...], Many(Fixed(NODE_ID_SIZE), HOLDERS_NAMED_MAX)]


class Departure(NamedTuple):
    """A member who is no longer here."""

    node_id: NodeId
    how: Code  # LEFT or GONE
    silent_ms: Milliseconds  # how long there was no sign of it


Members = Annotated[Tuple[MemberEntry, ...], Many(record_of(MemberEntry), MEMBERS_PER_PAGE)]
Departures = Annotated[Tuple[Departure, ...], Many(record_of(Departure), MEMBERS_PER_PAGE)]
Heirlooms = Annotated[Tuple[Heirloom, ...], Many(record_of(Heirloom), HEIRLOOMS_MAX)]
Bearers = Annotated[Tuple[Bearer, ...], Many(record_of(Bearer), MEMBERS_PER_PAGE)]
FormerBearers = Annotated[Tuple[FormerBearer, ...], Many(record_of(FormerBearer), MEMBERS_PER_PAGE)]
Identities = Annotated[Tuple[Identity, ...], Many(record_of(Identity), MEMBERS_PER_PAGE)]
Openings = Annotated[Tuple[Opening, ...], Many(record_of(Opening), OPENINGS_MAX)]
Shares = Annotated[Tuple[ShareEntry, ...], Many(record_of(ShareEntry), SHARES_PER_PAGE)]
Rows = Annotated[Tuple[ListRow, ...], Many(record_of(ListRow), LIST_PER_PAGE)]

class Hole(NamedTuple):
    """Missing slices of a cast, numbered through the content."""

    first: SliceIndex
    slices: Count


CastMap = Annotated[bytes, Blob(PIECES_CAST_MAX // 8)]
OwnPlaces = Annotated[Tuple[Address, ...], Many(AddressField(), PLACES_MAX)]

_BY_TAG: Dict[int, Tuple[Any, Record]] = {}
_BY_TYPE: Dict[Any, Tuple[bytes, Record]] = {}
Kind = TypeVar("Kind")


def _message(tag: int) -> Callable[[Type[Kind]], Type[Kind]]:
    def register(kind: Type[Kind]) -> Type[Kind]:
        assert tag not in _BY_TAG
        codec = record_of(kind)
        _BY_TAG[tag] = kind, codec
        _BY_TYPE[kind] = bytes([tag]), codec
        return kind

    return register


# ---- outside any connection ---------------------------------------------------------------------------------------


@_message(1)
class Query(NamedTuple):
    """Who is there? Padded so that the Answer is never longer."""

    nonce: Nonce
    padding: Annotated[bytes, Fixed(QUERY_PADDING + NAME_BYTES_MAX)] = bytes(QUERY_PADDING + NAME_BYTES_MAX)


@_message(2)
class Answer(NamedTuple):
    """Who I am and, if a member, where my supernode is. The HMAC proves it to members (membership/proofs.py)."""

    nonce: Nonce  # the Query's
    own_nonce: Nonce
    network_id: NetworkId
    term: ClaimedTerm
    node_id: NodeId
    role: Code
    supernode_id: NodeId  # whom the answering member obeys; NO_NODE if there is none
    supernode: Place  # where it knows its supernode; NOWHERE if it has none or is one
    heard_ago_ms: Milliseconds  # how long ago the member last heard its supernode
    member_count: Count
    name: Name
    proof: Annotated[bytes, Fixed(16)]


@_message(3)
class Wanted(NamedTuple):
    """Does this place lead to your network? Who can say yes sends its Answer; the others are silent.

    Yes: a supernode of it was there, or it is the port, on the answering machine, that people know it by. An address
    NOWHERE asks for the port alone: is it the one that your network is known by?
    """

    nonce: Nonce
    place: Place
    padding: Annotated[bytes, Fixed(WANTED_PADDING)] = bytes(WANTED_PADDING)


@_message(6)
class Prove(NamedTuple):
    """You rule, and I know none of you: whose heir are you? Padded so that the Proof is never longer."""

    nonce: Nonce
    padding: Annotated[bytes, Fixed(PROVE_PADDING)] = bytes(PROVE_PADDING)


@_message(7)
class Proof(NamedTuple):
    """Marks, made of the nonce with the heirlooms that I have."""

    nonce: Nonce
    marks: Heirlooms


@_message(82)
class Knock(NamedTuple):
    """To a member that the supernode introduced, at each of its places. Padded so that the Knocked is not longer."""

    nonce: Nonce  # of the introduction
    node_id: NodeId  # who knocks
    token: Nonce  # another one for each place: who gives it back receives there
    padding: Annotated[bytes, Fixed(KNOCK_PADDING)] = bytes(KNOCK_PADDING)


@_message(83)
class Knocked(NamedTuple):
    """Back along the way that the Knock came: it has arrived."""

    nonce: Nonce
    node_id: NodeId  # who answers
    token: Nonce
    seen: Place  # where the Knock came from


# ---- first message on a link --------------------------------------------------------------------------------------


@_message(10)
class Join(NamedTuple):
    """A node asks the supernode to be taken in; on a rejoin it says which network it comes from."""

    network_id: NetworkId  # NO_NETWORK at first
    term: Term
    node_id: NodeId
    opening: Secret  # the node id is the head of its SHA-256: nobody can join under another's id
    name: Name
    mesh: Bool
    chat_seen: SeenSequence  # sequence of the last Chat seen, so that what was missed is said again; 0 at first


@_message(11)
class LinkHello(NamedTuple):
    """A member opens a further link to another: for pieces (bulk) or to stand by (mesh)."""

    purpose: Code
    network_id: NetworkId
    node_id: NodeId


# ---- supernode and member -----------------------------------------------------------------------------------------


@_message(12)
class Welcome(NamedTuple):
    """The supernode takes a member in; the roster follows in pages."""

    network_id: NetworkId
    term: Term
    supernode_id: NodeId
    secret: Secret  # proves Answers between members
    commitment: Digest  # SHA-256 of what a Handover must show
    order: Order  # the new member's own
    version: Version  # of the roster whose pages follow
    chat_sequence: SeenSequence


@_message(13)
class NotSupernode(NamedTuple):
    """Ask there instead; NOWHERE: nobody is known."""

    term: Term
    supernode: Place


@_message(14)
class Busy(NamedTuple):
    """Not now; or, with no time to retry after, not at all."""

    retry_after_ms: Milliseconds
    reason: Reason


@_message(15)
class RosterPage(NamedTuple):
    """A part of the roster, from place `first` of `total`."""

    term: Term
    version: Version
    first: Count
    total: Count
    members: Members


@_message(16)
class RosterUpdate(NamedTuple):
    """Members who joined, came back or changed their line, and who left; version is one more than the last."""

    term: Term
    version: Version
    changed: Members
    departed: Departures


@_message(18)
class RosterRequest(NamedTuple):
    """A version was missed: send it all."""

    version: Version


@_message(19)
class Ping(NamedTuple):
    """Is the other end there? Answered by Pong."""

    stamp: Stamp  # the asker's own; comes back as it is
    term: Term
    round_trip_us: Microseconds = 0  # as the asker measured it last, so that nobody need ask back; 0: not yet


@_message(20)
class Pong(NamedTuple):
    """The answer to a Ping, with its stamp."""

    stamp: Stamp
    term: Term


@_message(38)
class PingSeldom(NamedTuple):
    """The supernode of a large hall to a member: its link shows that it lives; a Ping need come only so often."""

    interval_ms: Milliseconds


@_message(21)
class SetMesh(NamedTuple):
    """A member's mesh switch, now."""

    mesh: Bool


@_message(22)
class Leave(NamedTuple):
    """Good-bye, from a member."""


@_message(29)
class Guest(NamedTuple):
    """A member is there for one thing: it will rule nobody, so a handover names another one."""


@_message(23)
class Handover(NamedTuple):
    """The supernode leaves: the successor rules from this term on. `opening` hashes to the Welcome's commitment."""

    term: Term
    successor: NodeId
    opening: Digest


@_message(24)
class Moved(NamedTuple):
    """The supernode steps down for another one: look there (and check)."""

    term: Term
    supernode: Place
    node_id: NodeId


@_message(25)
class Stale(NamedTuple):
    """You spoke in an old term; a hint to check, never a proof."""

    term: Term
    supernode: Place


@_message(26)
class Lost(NamedTuple):
    """Where members were lost in silence, latest last: to a newcomer, and from one who comes back from another part."""

    places: Annotated[Tuple[Address, ...], Many(AddressField(), LOST_TOLD_MAX)]


@_message(80)
class Places(NamedTuple):
    """A member to the supernode: the own addresses at which others may reach it, too."""

    places: OwnPlaces


@_message(81)
class Introduce(NamedTuple):
    """The supernode to two members, one of which offers the other something: knock there, it does the same."""

    node_id: NodeId  # the other one
    nonce: Nonce  # that only the two know, and who rules
    seen: Place  # where the supernode sees the other one
    own: Place  # where it sees the one who is told
    places: OwnPlaces  # of the other one, as it told them


@_message(85)
class ReachWanted(NamedTuple):
    """A member to the supernode: can others reach me, where I did not speak first? Answered by Reach."""


@_message(86)
class TryReach(NamedTuple):
    """The supernode to a member: send an Unasked to that one from a port to which it never sent anything."""

    nonce: Nonce  # that one learns it from the Unasked alone
    node_id: NodeId
    place: Place  # where the supernode sees that one; NOWHERE: it is the supernode


@_message(87)
class Tried(NamedTuple):
    """Back to the supernode: the Unasked is on its way."""

    nonce: Nonce


@_message(88)
class Unasked(NamedTuple):
    """Without a link, from a port of its own. Nothing is sent back there."""

    nonce: Nonce


@_message(89)
class Reached(NamedTuple):
    """To the supernode: an Unasked has come here."""

    nonce: Nonce


@_message(90)
class Reach(NamedTuple):
    """The supernode to a member: what came of it."""

    is_open: Bool
    by: NodeId  # who tried
    seen: Place  # where the supernode sees the member; NOWHERE: it is the supernode


@_message(91)
class Beyond(NamedTuple):
    """A member to the supernode: somebody there looks for this network, reaches me, and does not get to you."""

    place: Place


@_message(28)
class Stays(NamedTuple):
    """The supernode to all, before it names who rules next: it does not leave, but is a member under that one."""


@_message(27)
class Heirs(NamedTuple):
    """The supernode to its members: its own heirloom, and those that it has of earlier rulers."""

    heirlooms: Heirlooms


@_message(35)
class Called(NamedTuple):
    """The supernode to its members, before the roster that names them: what they are called."""

    bearers: Bearers


@_message(36)
class WasCalled(NamedTuple):
    """The supernode to its members: what those were called who left, for whoever rules next."""

    bearers: FormerBearers


@_message(37)
class Claim(NamedTuple):
    """A member, behind its Join: what it was called, here or in an earlier run, and what it will show next time."""

    claim: Secret  # NO_CLAIM: it will show nothing
    is_called: Bool  # it has been in this network, and was called by its name and the suffix
    suffix: Suffix
    openings: Openings


# ---- chat ---------------------------------------------------------------------------------------------------------


@_message(30)
class Say(NamedTuple):
    """A line of chat, on its way to the supernode, which puts all lines in one order."""

    counter: Counter  # the speaker's own, rises by one
    text: Annotated[str, Text(CHAT_BYTES_MAX)]


@_message(31)
class Chat(NamedTuple):
    """A line of chat in its place in the one order."""

    sequence: Sequence  # the supernode's: one order for all
    node_id: NodeId
    name: Name
    counter: Counter
    text: Annotated[str, Text(CHAT_BYTES_MAX)]


@_message(32)
class Whisper(NamedTuple):
    """A line for one member alone, on its way to the supernode."""

    to: NodeId
    counter: Counter  # the speaker's own, of its private lines
    text: Annotated[str, Text(CHAT_BYTES_MAX)]


@_message(33)
class Whispered(NamedTuple):
    """A line for this member alone, from that one."""

    node_id: NodeId
    name: Name
    counter: Counter
    text: Annotated[str, Text(CHAT_BYTES_MAX)]


@_message(34)
class Heard(NamedTuple):
    """A private line was shown to its person, or cannot be: to the supernode, who said it; from it, to whom."""

    node_id: NodeId
    counter: Counter
    how: Code  # HEARD_...


# ---- what is shared, and search -----------------------------------------------------------------------------------


@_message(40)
class ShareDigest(NamedTuple):
    """What I share, in short (SHA-256 over the sorted entries), so that a rejoin need not send it all."""

    digest: Digest
    count: ShareCount  # type: ignore[assignment]


@_message(41)
class SharesWanted(NamedTuple):
    """To a member: tell all that you share."""


@_message(42)
class SharePage(NamedTuple):
    """A part of all that a member shares, from place `first` of `total`."""

    first: ShareCount
    total: ShareCount
    entries: Shares


@_message(43)
class ShareAdd(NamedTuple):
    """What a member shares from now on."""

    entries: Shares


@_message(44)
class ShareRemove(NamedTuple):
    """What a member no longer shares."""

    entries: Shares


@_message(45)
class ListRequest(NamedTuple):
    """Ask the supernode for the rows that a pattern fits, from row `first` on."""

    request_id: RequestId
    pattern: FileName
    first: RowCount


@_message(46)
class ListPage(NamedTuple):
    """Rows of a list, from row `first` of `total`."""

    request_id: RequestId
    first: RowCount
    total: RowCount
    rows: Rows


@_message(47)
class Search(NamedTuple):
    """Who has this content, or pieces of it? The supernode fills in requester and place, and forwards it to all."""

    query_id: RequestId
    file_id: FileId
    size: ClaimedSize
    name: FileName
    is_folder: Bool
    requester: NodeId
    place: Place
    via_supernode: Bool  # do not connect to me: the supernode shall fetch it and serve me


@_message(48)
class Offer(NamedTuple):
    """I have it. To the requester, by way of the supernode, which fills in the provider."""

    query_id: RequestId
    file_id: FileId
    to: NodeId
    provider: NodeId
    complete: Bool
    mesh: Bool


@_message(49)
class Relay(NamedTuple):
    """The supernode to its own peer: fetch this into the cache and offer yourself to the requester."""

    query_id: RequestId
    file_id: FileId
    size: ClaimedSize
    name: FileName
    is_folder: Bool
    requester: NodeId


@_message(50)
class NotRelayed(NamedTuple):
    """The supernode's own peer to the requester, by way of the supernode: I cannot pass it on, and why."""

    query_id: RequestId
    file_id: FileId
    to: NodeId
    is_gone: Bool  # nobody here has this content any more
    reason: Reason


# ---- on a bulk link -----------------------------------------------------------------------------------------------


@_message(60)
class ManifestRequest(NamedTuple):
    """Ask a source for the digests of all pieces."""

    file_id: FileId


@_message(61)
class ManifestPage(NamedTuple):
    """SHA-256 of each piece, in order; together with the size they hash to the identity."""

    file_id: FileId
    size: ClaimedSize
    first: PieceIndex
    digests: Annotated[bytes, Blob(DIGESTS_PER_PAGE * 32)]


@_message(62)
class PieceMapRequest(NamedTuple):
    """Tell me what you have, and of each further piece when you have it."""

    file_id: FileId


@_message(63)
class PieceMap(NamedTuple):
    """Bit i of byte i//8, most significant first, is piece i."""

    file_id: FileId
    complete: Bool
    bitmap: Annotated[bytes, Blob(PIECE_MAP_BYTES_MAX)]  # empty when complete


@_message(65)
class PieceRequest(NamedTuple):
    """Ask a source for this piece and no other."""

    file_id: FileId
    index: PieceIndex  # type: ignore[assignment]


@_message(66)
class PieceData(NamedTuple):
    """Bytes of one piece from `offset` in it; a piece over SPAN_BYTES_MAX comes in several."""

    file_id: FileId
    index: PieceIndex  # type: ignore[assignment]
    offset: PieceOffset
    data: Annotated[Any, Rest(SPAN_BYTES_MAX)]


@_message(67)
class PieceRefused(NamedTuple):
    """This piece (or with NO_PIECE, the content) is not given, and why."""

    file_id: FileId
    index: PieceIndex  # type: ignore[assignment]
    reason: Code


@_message(68)
class PieceCancel(NamedTuple):
    """This piece (or with NO_PIECE, the content, a folder with all that is in it) is not needed any more."""

    file_id: FileId
    index: PieceIndex  # type: ignore[assignment]


@_message(69)
class Queued(NamedTuple):
    """Your place in the queue for an upload slot; 0: it is your turn."""

    position: QueuePlace


@_message(70)
class TransferDone(NamedTuple):
    """I have it all, verified and kept."""

    file_id: FileId


@_message(71)
class CheckBulk(NamedTuple):
    """A piece came damaged: let checksums cover what you send me, too."""


@_message(72)
class NewPieces(NamedTuple):
    """More pieces that can be had here; a content has 4,096 at most."""

    file_id: FileId
    indexes: Annotated[Tuple[int, ...], Many(Number(2), PIECES_TOLD_MAX)]


@_message(73)
class AnyPieceRequest(NamedTuple):
    """This piece; or, if somebody was given it, one that was given to nobody yet: you are the only source I know."""

    file_id: FileId
    index: PieceIndex  # type: ignore[assignment]


@_message(74)
class OtherPiece(NamedTuple):
    """Instead of the piece asked for by AnyPieceRequest comes this one."""

    file_id: FileId
    asked: PieceIndex
    given: PieceIndex


@_message(79)
class WrongPiece(NamedTuple):
    """This piece came from you with checksums that were right, and is not what its digest says: look at your file."""

    file_id: FileId
    index: PieceIndex  # type: ignore[assignment]


@_message(75)
class TraitsRequest(NamedTuple):
    """What do you tell beside this content: times, execute bits, what of a folder is not shared?"""

    file_id: FileId


@_message(76)
class TraitsPage(NamedTuple):
    """A part of that (protocol/content/traits.py), from byte `first` of `total`; nothing is told with a total of 0."""

    file_id: FileId
    first: TraitsPlace
    total: TraitsPlace
    data: Annotated[bytes, Blob(TRAITS_PER_PAGE)]


# ---- casts, on a bulk link ----------------------------------------------------------------------------------------


@_message(100)
class CastWanted(NamedTuple):
    """To a source that has it all: I would take this content by a cast, together with others."""

    file_id: FileId


@_message(106)
class CastSixWanted(NamedTuple):
    """The same of a cast by IPv6, to a source that is reached so; what is offered then is one."""

    file_id: FileId


@_message(101)
class CastOffer(NamedTuple):
    """From the source: listen to this cast's group, which follows from the session (protocol/casts.py).

    If it has begun, these pieces are yet to come, and who hears it takes part at once; else it is told by CastComing.
    """

    file_id: FileId
    session: Nonce
    coming: CastMap
    takers: Count
    interval_ms: Milliseconds  # between two reports; held against its limits


@_message(102)
class CastReady(NamedTuple):
    """I hear it, and this is what I have not: bit i of byte i//8, most significant first, is piece i."""

    file_id: FileId
    session: Nonce
    missing: CastMap


@_message(103)
class CastComing(NamedTuple):
    """These pieces come, in order, to so many at once; report so often."""

    file_id: FileId
    session: Nonce
    coming: CastMap
    takers: Count
    interval_ms: Milliseconds  # held against its limits


@_message(104)
class CastTaken(NamedTuple):
    """To the caster, every now and then: how it comes, and which slices are missing (protocol/casts.py)."""

    file_id: FileId
    session: Nonce
    highest: CastNumber
    received: CastNumber
    lost: CastNumber
    is_through: Bool
    holes: Annotated[Tuple[Any, ...], Many(record_of(Hole), HOLES_TOLD_MAX)]


@_message(105)
class CastEnd(NamedTuple):
    """Either end: no more of it, from me or to me. What is missing is asked for as always."""

    file_id: FileId
    session: Nonce


# ---- who is who, in a network with a key


@_message(94)
class Fingerprints(NamedTuple):
    """A member to its supernode: its own alone. The supernode to its members: those of others."""

    identities: Identities


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


def all_messages() -> List[Tuple[int, Any]]:
    """(tag, class) of every message, for the README's table and the tests."""
    return [(tag, entry[0]) for tag, entry in sorted(_BY_TAG.items())]
