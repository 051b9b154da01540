"""The roster: who is in the network, equal at all members, as the supernode tells it in pages and updates. Pure."""

from __future__ import annotations

from typing import Dict, Iterable, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from protocol import messages
from protocol.membership.labels import Labels
from protocol.membership.names import Names
from protocol.messages import MemberEntry

TERM_STEP_MAX = 1000  # a claim further above our term is a lie: the numbers would be burnt (THREATS: F09)


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


def _place_of(entry: MemberEntry) -> Tuple[int, bytes]:
    """By id as well: should two have one place in the order, all members still see the same succession."""
    return entry.order, entry.node_id


class Roster:
    """The members in join order, at one version."""

    def __init__(self, names: Optional[Names] = None) -> None:
        """`names`: what who rules told of what they are called."""
        self.version = 0
        self._names = Names() if names is None else names
        self._entries: Dict[bytes, MemberEntry] = {}
        self._ordered: Optional[List[MemberEntry]] = None
        self._label: Optional[Dict[bytes, str]] = None

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[MemberEntry]:
        if self._ordered is None:
            self._ordered = sorted(self._entries.values(), key=_place_of)
        return iter(list(self._ordered))  # a copy: who walks over it may remove whom it meets

    def those(self, node_ids: Iterable[bytes]) -> List[MemberEntry]:
        """The lines of these, as far as they are members, in order; a few are found without a walk over all."""
        return sorted(filter(None, map(self._entries.get, node_ids)), key=_place_of)

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
        """It left; its line, if there was one."""
        entry = self._entries.pop(node_id, None)
        self._changed()
        return entry

    def replace(self, entries: Iterable[MemberEntry], version: int) -> None:
        """All of it is another one, of that version."""
        self._entries = {entry.node_id: entry for entry in entries}
        self.version = version
        self._changed()

    def relabel(self) -> None:
        """What they are called was told anew."""
        self._label = None

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
        """Take over an update of the next version; what it changes for a person.

        What they are called is found out once before it and once after it, however many it names.
        """
        self.version = update.version
        changes = []
        # Before any is removed: then its label may pass to somebody else.
        labels = [self.label_of(departure.node_id) for departure in update.departed]
        for departure, label in zip(update.departed, labels):
            if departure.node_id != own_id and self.remove(departure.node_id) is not None:
                silent = departure.silent_ms / 1000 if departure.how == messages.GONE else None
                changes.append(Change(label, False, silent))
        came = [entry.node_id for entry in update.changed if self.put(entry) and entry.node_id != own_id]
        return changes + [Change(self.label_of(node_id), True, None) for node_id in came]

    def label_of(self, node_id: bytes, name: str = "") -> str:
        """How a person sees this member; one who is not in the roster always carries digits of its id."""
        if self._label is None:
            self._label = Labels(list(self), self._names.suffixes()).labels
        known = self._label.get(node_id)
        return known if known is not None else f"{name}~{node_id.hex()[:4]}"

    def succession(self, without: Optional[bytes]) -> List[MemberEntry]:
        """Who takes over, in order, when that one is gone."""
        return [entry for entry in self if entry.node_id != without]
