"""What a Peer answers and tells: values for the one who shows them to a person."""

from __future__ import annotations

import enum
from typing import Any, NamedTuple, Optional, Tuple

from protocol.figures import PathFigures

CHAT_BYTES_MAX = 2048  # one line of chat (THREATS: C03)
SAYS_UNCONFIRMED_MAX = 500  # lines of one member that are on their way, or wait to be said

Address = Tuple[str, int]


class ListEntry(NamedTuple):
    """A row of the list of files: one content under one name."""

    number: int
    name: str
    size: int  # of the file, or of all files in the folder
    file_id: bytes
    is_folder: bool = False
    file_count: int = 1
    holders: Tuple[str, ...] = ()  # labels; the first few
    sources: int = 0
    content_size: int = 0  # what the id stands for: the file, or the folder's listing
    holder_ids: Tuple[bytes, ...] = ()  # of the same; labels are for people
    path: str = ""  # where it lies on this machine, in the list of what this node shares


class FetchAnswer(NamedTuple):
    """How a request began: "started", "already here", "several", "running", "nobody" or "no network"."""

    kind: str
    entries: Tuple[ListEntry, ...] = ()
    transfer: Optional[int] = None
    path: Optional[str] = None


class MemberRow(NamedTuple):
    """One node, as `W` shows it; times in seconds."""

    label: str
    address: Address
    role: str  # "supernode" or "member"
    is_me: bool
    links: Optional[int]  # of this node: all of them; of others: those with this node; None: none with it
    round_trip: Optional[float]  # seconds
    heard_ago: Optional[float]  # seconds
    mesh: bool
    way: str = ""  # "direct", by whom and why, or "not back yet"; empty as long as nothing was tried
    fingerprint: bytes = b""  # of its certificate, in a network with a key


class NatKind(enum.Enum):
    """What there is between this node and the others, as far as it is seen; the values are words for a person."""

    UNKNOWN = "unknown"
    NONE = "no NAT"
    KEEPS_PORT = "keeps the port"
    CHANGES_PORT = "changes the port"
    SYMMETRIC = "shows another port to each"


class Reach(NamedTuple):
    """Can others reach this node where it did not speak first?"""

    is_open: Optional[bool] = None  # None: not known, or not yet
    by: str = ""  # label of the node that tried
    at: float = 0.0  # when that was known, monotonic seconds
    nat: NatKind = NatKind.UNKNOWN


class Share(NamedTuple):
    """What one source has given to a download, or one node has got of an upload."""

    label: str
    size: int
    rate: float
    state: str = ""  # in words, if it gives nothing now
    path: Optional[PathFigures] = None


class TransferRow(NamedTuple):
    """One transfer, as `V` shows it; sizes in bytes, rate in bytes per second."""

    number: int
    direction: str  # "R" received, "S" sent
    name: str
    state: str  # in words
    verified: int
    size: int
    rate: float
    seconds_left: Optional[float]
    sources: Tuple[str, ...]
    shares: Tuple[Share, ...] = ()
    at_once: int = 0  # nodes that take it by one cast, this one among them; 0: it comes by links


class Outcome(NamedTuple):
    """How joining or opening a network ended: "supernode", "joined", "nobody" or "refused"."""

    kind: str
    address: Optional[Address]
    supernode_label: str
    count: int  # type: ignore[assignment]
    text: str


class OtherKey(NamedTuple):
    """Who has this name has another lasting key than who had it before."""

    name: str


class KeyWanted(NamedTuple):
    """The network there is private, and this node has no key."""

    address: Address


class Joined(NamedTuple):
    """A node came; so many are here now."""

    label: str
    count: int  # type: ignore[assignment]


class Left(NamedTuple):
    """A node went; so many are here now."""

    label: str
    count: int  # type: ignore[assignment]
    silent_seconds: Optional[float]  # None: it said good-bye


class SupernodeChanged(NamedTuple):
    """Another node is the supernode now."""

    old_label: str
    new_label: str
    is_me: bool
    silent_seconds: Optional[float]
    is_merger: bool = False  # nobody left: two parts of the network met, and one supernode rules on
    is_staying: bool = False  # the old one is a member now; with `is_merger`, it is this node itself


class ChatReceived(NamedTuple):
    """A line of chat, also an own one."""

    label: str
    text: str
    is_me: bool


class Whispered(NamedTuple):
    """A private line: from the one that the label names, or to that one (`is_me`), who has been shown it."""

    label: str
    text: str
    is_me: bool


class WhisperAnswer(NamedTuple):
    """What became of a private line.

    "heard", "unheard" (no sign came), "gone" or "left"; or it was not sent: "unknown", "ambiguous" (`labels` are
    meant), "self", "empty", "too long", "full", "no network".
    """

    kind: str
    label: str
    text: str
    labels: Tuple[str, ...] = ()


class Progress(NamedTuple):
    """How a download stands."""

    row: TransferRow


class Unsaid(NamedTuple):
    """So many lines of chat of this node reached nobody: it left before they could be sent."""

    line_count: int


class Clashes(NamedTuple):
    """What a download met under its names: an older version that gave way, or a file that keeps the name."""

    replaced: int = 0  # files of which the version before was put aside
    aside: str = ""  # where the last of these lies
    beside: int = 0  # files that got another name
    name: str = ""  # the name that the first of these was to have, ...
    why: str = ""  # ... and why what has that keeps it, in words that follow it
    written: str = ""  # what somebody wrote into one that was just replaced is under this name

    def with_one(self, finished: Any) -> Clashes:
        """One file more is finished."""
        clashes = self
        if finished.aside:
            clashes = clashes._replace(replaced=self.replaced + 1, aside=finished.aside)
        if finished.beside:
            clashes = clashes._replace(beside=self.beside + 1, name=self.name or finished.asked,
                                       why=self.why or finished.beside)
        return clashes._replace(written=self.written or finished.written)


class LeftOut(NamedTuple):
    """So many files of a folder are not shared, or could not be kept here, for one reason; and one of them."""

    kind: str  # a key of WHY in protocol/left_out.py, or "other"
    count: int  # type: ignore[assignment]
    example: str = ""


class DownloadDone(NamedTuple):
    """A download ended well: verified, flushed, under its final name."""

    number: int
    name: str
    size: int
    seconds: float
    sources: Tuple[str, ...]
    file_id: bytes
    path: str
    by_way_of: Optional[str]
    was_there: bool
    moved: int  # bytes that came over the network for it: fewer than the size after a resume
    clashes: Optional[Clashes] = None
    left_out: Tuple[LeftOut, ...] = ()  # of a folder: what is not here of it, and why
    file_count: int = 1  # files that are here


class Updated(NamedTuple):
    """Files of a download were updated, though it has not ended well."""

    name: str
    clashes: Clashes


class UploadDone(NamedTuple):
    """Somebody has all of what this node sent."""

    name: str
    size: int
    seconds: float
    to_label: str
    file_id: bytes
    is_confirmed: bool = True  # False: the link was lost before it said that it has all
    whole: int = 0  # bytes of the content, of which `size` were sent here; 0: not known


class UploadEnded(NamedTuple):
    """Somebody takes no more of what this node sent, and said so, or has switched its mesh off."""

    name: str
    size: int
    whole: int  # 0: not known
    to_label: str
    file_id: bytes


class Stopped(NamedTuple):
    """A download ended without success, and why."""

    number: int
    name: str
    verified: int
    size: int
    reason: str
    kept: bool
    is_full: bool = False  # the disk had no room for it, from the start


class Paused(NamedTuple):
    """The disk has no room for the rest: the download waits for it."""

    number: int
    name: str
    verified: int
    size: int
    needed: int
    free: int
    takes_files: bool = True  # False: the disk has no inodes left, whatever is free


class Resumed(NamedTuple):
    """A download that waited for room on the disk goes on."""

    number: int
    name: str


class Unreachable(NamedTuple):
    """Others cannot reach this node where it did not speak first."""

    by: str  # label of who tried; empty, if that is not why it is told
    supernode_label: str
    is_ruler: bool
    port: int  # of this node
    nat: NatKind  # NONE: a firewall; SYMMETRIC: only those of whom one is open or a neighbour meet


class HalfHere(NamedTuple):
    """What of earlier downloads lies half here, as the node starts; how to go on, each prompt says in its way."""

    files: Tuple[Tuple[str, int, int], ...]  # by name: that, the verified bytes, the size


class Notice(NamedTuple):
    """A sentence for the person."""

    text: str
