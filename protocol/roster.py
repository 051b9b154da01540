"""What membership is made of: the roster and its labels, which addresses may be contacted, proofs.

Used by `protocol/membership.py` and `supernode.py`. Pure: no socket, no thread, no clock.
"""

from __future__ import annotations

import collections
import functools
import hashlib
import hmac
import ipaddress
import random
import unicodedata
from typing import Counter, Dict, FrozenSet, Iterable, Iterator, List, NamedTuple, Optional, Sequence, Set

from protocol import messages
from protocol.lines import safe_label
from protocol.looks import is_of_one_script, skeleton
from protocol.messages import NOWHERE, Answer, MemberEntry, ShareEntry
from protocol.wire import Address

NAME_CHARS_MAX = 32
PORT_MIN = 1024  # a roster may not send us to a system service
TERM_STEP_MAX = 1000  # a claim further above our term is a lie: the numbers would be burnt (THREATS: F09)
LOOKS_CACHED_MAX = 4096  # labels whose looks are remembered

_PRIVATE_BLOCKS = "10.0.0.0/8 172.16.0.0/12 192.168.0.0/16 169.254.0.0/16 127.0.0.0/8 198.18.0.0/15 fc00::/7 fe80::/10"
_PRIVATE = [ipaddress.ip_network(block) for block in [*_PRIVATE_BLOCKS.split(), "::1"]]
_SHARE_CODEC = messages.record_of(ShareEntry)


# ---- names --------------------------------------------------------------------------------------------------------


def fold(name: str) -> str:
    """The form in which two names are compared."""
    return unicodedata.normalize("NFKC", name).casefold().strip()


def name_fault(name: str) -> Optional[str]:
    """Why this cannot be a member's name, or None."""
    if not name.strip():
        return "the name is empty"
    if len(name) > NAME_CHARS_MAX:
        return "the name is longer than %d characters" % NAME_CHARS_MAX
    if any("\ud800" <= sign <= "\udfff" for sign in name):
        return "the name is not text"
    if not skeleton(name):
        return "nothing of the name can be seen"
    return None


@functools.lru_cache(LOOKS_CACHED_MAX)
def _looks_of(label: str) -> FrozenSet[str]:
    """All that a label can be taken for: as it is compared, as it is drawn, and letters for others that look alike."""
    return frozenset((fold(label), skeleton(label), skeleton(safe_label(label))))


@functools.lru_cache(LOOKS_CACHED_MAX)
def _may_be_plain(name: str) -> bool:
    return "~" not in skeleton(name) and is_of_one_script(name)


class _Labels:
    """Unique labels, none of which looks like another: whoever joined later gets digits of its node id, or its host.

    So does everyone with a `~` in its name, who could bear the label that another one would get, and everyone whose
    name mixes scripts. All members see the same labels: they follow from the roster alone, not from who came when here.
    """

    def __init__(self, entries: Sequence[MemberEntry]) -> None:
        self.labels: Dict[bytes, str] = {}
        self._taken: Set[str] = set()
        self._entries = entries
        self._hosts: Dict[str, Counter[str]] = {}  # of those whose names look alike; counted when it is wanted
        for entry in entries:
            any(self._give(entry, label) for label in self._forms(entry))

    def _give(self, entry: MemberEntry, label: str) -> bool:
        looks = _looks_of(label)
        if not looks.isdisjoint(self._taken):
            return False
        self._taken |= looks
        self.labels[entry.node_id] = label
        return True

    def _forms(self, entry: MemberEntry) -> Iterator[str]:
        """The labels that this member may bear, the best first; the last is nobody else's."""
        digits, host = entry.node_id.hex(), entry.place[0]
        if _may_be_plain(entry.name):
            yield entry.name
        is_namesake = "~" in skeleton(entry.name) or fold(entry.name) in self._taken
        if not is_namesake and self._is_alone_at(host, entry.name):
            yield "%s@%s" % (entry.name, host)
        for count in range(4, len(digits) + 1, 2):
            yield "%s~%s" % (entry.name, digits[:count])

    def _is_alone_at(self, host: str, name: str) -> bool:
        """Does its host tell it from all whose names look like its own? (Where the supernode is, its roster hides.)"""
        if not self._hosts:
            for entry in self._entries:
                self._hosts.setdefault(skeleton(entry.name), collections.Counter())[entry.place[0]] += 1
        hosts = self._hosts[skeleton(name)]
        return "." in host and NOWHERE[0] not in hosts and not is_loopback(host) and hosts[host] == 1


# ---- the roster ---------------------------------------------------------------------------------------------------


class Change(NamedTuple):
    """A member came or left."""

    label: str
    has_joined: bool
    silent: Optional[float]  # seconds without a sign, for one who left without good-bye


class PageError(ValueError):
    """Pages that do not fit one behind the other: the sender's fault."""


class Pages:
    """Collects the pages of a roster."""

    def __init__(self) -> None:
        self.entries: List[MemberEntry] = []

    def add(self, page: messages.RosterPage) -> bool:
        """Is the roster complete now?"""
        if page.first == 0:
            self.entries = []
        stop = page.first + len(page.members)
        is_next = page.first == len(self.entries) and stop <= page.total <= messages.MEMBERS_MAX
        if not is_next or not page.members:
            raise PageError("the roster's pages do not follow each other")
        self.entries += page.members
        return len(self.entries) >= page.total


class Roster:
    """The members in join order, at one version."""

    def __init__(self) -> None:
        self.version = 0
        self._entries: Dict[bytes, MemberEntry] = {}
        self._ordered: Optional[List[MemberEntry]] = None
        self._label: Optional[Dict[bytes, str]] = None

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[MemberEntry]:
        if self._ordered is None:
            self._ordered = sorted(self._entries.values(), key=lambda entry: (entry.order, entry.node_id))
        return iter(list(self._ordered))

    def __contains__(self, node_id: bytes) -> bool:
        return node_id in self._entries

    def get(self, node_id: bytes) -> Optional[MemberEntry]:
        return self._entries.get(node_id)

    def put(self, entry: MemberEntry) -> bool:
        """Add or change a line; was it new? A full roster takes no new line."""
        is_new = entry.node_id not in self._entries
        if is_new and len(self._entries) >= messages.MEMBERS_MAX:
            return False
        self._entries[entry.node_id] = entry
        self._changed()
        return is_new

    def remove(self, node_id: bytes) -> Optional[MemberEntry]:
        entry = self._entries.pop(node_id, None)
        self._changed()
        return entry

    def replace(self, entries: Iterable[MemberEntry], version: int) -> None:
        self._entries = {entry.node_id: entry for entry in entries}
        self.version = version
        self._changed()

    def _changed(self) -> None:
        self._ordered = self._label = None

    def labels(self) -> Dict[bytes, str]:
        return {entry.node_id: self.label_of(entry.node_id) for entry in self}

    def difference(self, before: Dict[bytes, str], without: Sequence[Optional[bytes]]) -> List[Change]:
        """Who left and who came since the labels `before`, some aside."""
        left = [node_id for node_id in before if node_id not in self and node_id not in without]
        came = [entry.node_id for entry in self if entry.node_id not in before and entry.node_id not in without]
        changes = [Change(before[node_id], False, None) for node_id in left]
        return changes + [Change(self.label_of(node_id), True, None) for node_id in came]

    def apply(self, update: messages.RosterUpdate, own_id: bytes) -> List[Change]:
        """Take over an update of the next version; what it changes for a person."""
        self.version = update.version
        changes = []
        for departure in update.departed:
            label = self.label_of(departure.node_id)
            if departure.node_id != own_id and self.remove(departure.node_id) is not None:
                silent = departure.silent_ms / 1000 if departure.how == messages.GONE else None
                changes.append(Change(label, False, silent))
        for entry in update.changed:
            if self.put(entry) and entry.node_id != own_id:
                changes.append(Change(self.label_of(entry.node_id), True, None))
        return changes

    def label_of(self, node_id: bytes, name: str = "") -> str:
        """How a person sees this member; one who is not in the roster always carries digits of its id."""
        if self._label is None:
            self._label = _Labels(list(self)).labels
        known = self._label.get(node_id)
        return known if known is not None else "%s~%s" % (name, node_id.hex()[:4])

    def succession(self, without: Optional[bytes]) -> List[MemberEntry]:
        """Who takes over, in order, when that one is gone."""
        return [entry for entry in self if entry.node_id != without]


# ---- addresses ----------------------------------------------------------------------------------------------------


def is_loopback(ip: str) -> bool:
    try:
        return ipaddress.ip_address(ip).is_loopback
    except ValueError:
        return False


def may_contact(address: Address, near: Sequence[str]) -> bool:
    """May an address that only a message named be contacted? Private ones, and those in the /16 of the IPs `near`.

    Otherwise a lying roster would turn every member's datagrams on a victim of its choice (THREATS: F11).
    """
    try:
        ip = ipaddress.ip_address(address[0])
    except ValueError:
        return False
    if not PORT_MIN <= address[1] <= 65535 or ip.is_multicast or ip.is_unspecified:
        return False
    if ip.version == 4 and ip.packed[3] == 255:
        return False  # most likely a broadcast address
    if any(ip in block for block in _PRIVATE if block.version == ip.version):
        return True
    return ip.version == 4 and any(_is_near(address[0], other) for other in near)


def _is_near(ip: str, other: str) -> bool:
    """In the same /16: a campus with public addresses is seldom one /24, and its halves must find each other again."""
    return "." in other and ip.split(".")[:2] == other.split(".")[:2]


def seen_from(place: Address, teller: Address) -> Address:
    """A loopback address that another machine names means that machine."""
    if is_loopback(place[0]) and not is_loopback(teller[0]):
        return teller[0], place[1]
    return place


# ---- proofs -------------------------------------------------------------------------------------------------------


def node_id_of(opening: bytes) -> bytes:
    """The node id that this secret opens."""
    return hashlib.sha256(opening).digest()[: messages.NODE_ID_SIZE]


def with_proof(answer: Answer, secret: bytes) -> Answer:
    """The Answer, with the HMAC over all of it (the asker's nonce included) that only members can make."""
    blank = answer._replace(proof=bytes(16))
    return blank._replace(proof=hmac.new(secret, messages.encode(blank), "sha256").digest()[:16])


def is_proven(answer: Answer, secret: bytes) -> bool:
    return bool(secret) and hmac.compare_digest(with_proof(answer, secret).proof, answer.proof)


def share_digest(entries: Iterable[ShareEntry]) -> bytes:
    """SHA-256 over the sorted entries: equal lists have equal digests, whatever their order."""
    digest = hashlib.sha256()
    for data in sorted(_SHARE_CODEC.encode(entry) for entry in entries):
        digest.update(len(data).to_bytes(4, "big") + data)
    return digest.digest()


def random_bytes(rng: random.Random, size: int) -> bytes:
    return rng.getrandbits(8 * size).to_bytes(size, "big")
