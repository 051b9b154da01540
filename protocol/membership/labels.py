"""What the members are called on a screen: names that are told apart, whatever somebody calls himself."""

from __future__ import annotations

import collections
import functools
import re
import unicodedata
from types import MappingProxyType
from typing import Counter, Dict, FrozenSet, Iterable, Iterator, Mapping, Optional, Sequence, Set

from protocol.addresses import is_loopback
from protocol.looks import is_of_one_script, safe_label, skeleton
from protocol.messages import NOWHERE, MemberEntry

NAME_CHARS_MAX = 32
LOOKS_CACHED_MAX = 4096  # labels whose looks are remembered
_DIGITS = re.compile("~(?:[0-9a-f]{2}){2,7}")  # all eight bytes stand behind the name of that node alone
_HOST = re.compile(r"@[0-9]{1,3}(?:\.[0-9]{1,3}){3}")
NOTHING: Mapping[bytes, str] = MappingProxyType({})


def fold(name: str) -> str:
    """The form in which two names are compared."""
    return unicodedata.normalize("NFKC", name).casefold().strip()


def name_fault(name: str) -> Optional[str]:
    """Why this cannot be a member's name, or None."""
    if not name.strip():
        return "the name is empty"
    if len(name) > NAME_CHARS_MAX:
        return f"the name is longer than {NAME_CHARS_MAX} characters"
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


def may_bear(entry: MemberEntry, suffix: str) -> bool:
    """May this stand behind its name? Only what one of its kind could have been given, whoever tells it."""
    if not suffix:
        return _may_be_plain(entry.name)
    if _HOST.fullmatch(suffix):
        return "~" not in skeleton(entry.name)
    return _DIGITS.fullmatch(suffix) is not None or suffix == f"~{entry.node_id.hex()}"


class Labels:
    """Unique labels, none of which looks like another: whoever joined later gets digits of its node id, or its host.

    So does everyone with a `~` in its name, who could bear the label that another one would get, and everyone whose
    name mixes scripts. All members see the same labels: as who rules has told them, so that nobody loses the one it
    has; else they follow from the roster alone, not from who came when here.
    """

    def __init__(
        self,
        entries: Sequence[MemberEntry],
        told: Mapping[bytes, str] = NOTHING,
        kept: Iterable[str] = (),
        asked: Mapping[bytes, str] = NOTHING,
    ) -> None:
        """`told`, and then `asked`: what stands behind whose name, where it may; `kept`: labels for nobody of these."""
        self.labels: Dict[bytes, str] = {}
        self._taken: Set[str] = set()
        self._entries = entries
        self._hosts: Dict[str, Counter[str]] = {}  # of those whose names look alike; counted when it is wanted
        self._give_all(told)
        for label in kept:
            self._taken |= _looks_of(label)
        self._give_all(asked)
        for entry in entries:
            if entry.node_id not in self.labels:
                any(self._give(entry, label) for label in self._forms(entry))

    def _give_all(self, suffixes: Mapping[bytes, str]) -> None:
        for entry in self._entries if suffixes else ():
            suffix = suffixes.get(entry.node_id)
            if suffix is not None and entry.node_id not in self.labels and may_bear(entry, suffix):
                self._give(entry, entry.name + suffix)

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
            yield f"{entry.name}@{host}"
        for count in range(4, len(digits) + 1, 2):
            yield f"{entry.name}~{digits[:count]}"

    def _is_alone_at(self, host: str, name: str) -> bool:
        """Does its host tell it from all whose names look like its own? (Where the supernode is, its roster hides.)"""
        if not self._hosts:
            for entry in self._entries:
                self._hosts.setdefault(skeleton(entry.name), collections.Counter())[entry.place[0]] += 1
        hosts = self._hosts[skeleton(name)]
        return "." in host and NOWHERE[0] not in hosts and not is_loopback(host) and hosts[host] == 1
