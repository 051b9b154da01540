"""What is shared, the list of it, and who has it."""

from __future__ import annotations

from typing import Annotated, NamedTuple, Tuple

from protocol.fields import Fixed, Many, Text
from protocol.messages.words import (
    NODE_ID_SIZE,
    Bool,
    ClaimedCount,
    ClaimedSize,
    Count,
    Digest,
    FileId,
    NodeId,
    Place,
    Reason,
    RequestId,
    RowCount,
    ShareCount,
    record_of,
)

FILE_NAME_BYTES_MAX = 1024
SHARES_MAX = 10_000  # files that one node may announce
SHARES_PER_PAGE = 100
LIST_PER_PAGE = 50
HOLDERS_NAMED_MAX = 8  # holders named in a row of the list; all are counted
FileName = Annotated[str, Text(FILE_NAME_BYTES_MAX)]


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


Shares = Annotated[Tuple[ShareEntry, ...], Many(record_of(ShareEntry), SHARES_PER_PAGE)]
Rows = Annotated[Tuple[ListRow, ...], Many(record_of(ListRow), LIST_PER_PAGE)]


class ShareDigest(NamedTuple):
    """What I share, in short (SHA-256 over the sorted entries), so that a rejoin need not send it all."""

    digest: Digest
    count: ShareCount  # type: ignore[assignment]


class SharesWanted(NamedTuple):
    """To a member: tell all that you share."""


class SharePage(NamedTuple):
    """A part of all that a member shares, from place `first` of `total`."""

    first: ShareCount
    total: ShareCount
    entries: Shares


class ShareAdd(NamedTuple):
    """What a member shares from now on."""

    entries: Shares


class ShareRemove(NamedTuple):
    """What a member no longer shares."""

    entries: Shares


class ListRequest(NamedTuple):
    """Ask the supernode for the rows that a pattern fits, from row `first` on."""

    request_id: RequestId
    pattern: FileName
    first: RowCount


class ListPage(NamedTuple):
    """Rows of a list, from row `first` of `total`."""

    request_id: RequestId
    first: RowCount
    total: RowCount
    rows: Rows


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


class Offer(NamedTuple):
    """I have it. To the requester, by way of the supernode, which fills in the provider."""

    query_id: RequestId
    file_id: FileId
    to: NodeId
    provider: NodeId
    complete: Bool
    mesh: Bool


class Relay(NamedTuple):
    """The supernode to its own peer: fetch this into the cache and offer yourself to the requester."""

    query_id: RequestId
    file_id: FileId
    size: ClaimedSize
    name: FileName
    is_folder: Bool
    requester: NodeId


class NotRelayed(NamedTuple):
    """The supernode's own peer to the requester, by way of the supernode: I cannot pass it on, and why."""

    query_id: RequestId
    file_id: FileId
    to: NodeId
    is_gone: Bool  # nobody here has this content any more
    reason: Reason
