"""What who rules has told its members: what each is called, and what those were called who left within the hour.

Every member keeps it, because it may rule next: then nobody who is here loses the label that it has, and nobody gets
one that was heard here lately. A ruler's word is held against the roster (`labels.may_bear`), and both tables have a
bound. Pure: `now` is monotonic seconds.
"""

from __future__ import annotations

from typing import Dict, Iterable, Iterator, List, Tuple

from protocol.messages import MEMBERS_MAX, NO_CLAIM, Bearer, FormerBearer, MemberEntry

LABEL_KEPT = 3600.0  # seconds that a label is kept for who had it
KEPT_LABELS_MAX = 256  # of those who left
BEARERS_MAX = 2 * MEMBERS_MAX  # what comes is told before the roster, what goes is forgotten after it


class Names:
    """By node id: who is called what, and who was."""

    def __init__(self) -> None:
        self._bearers: Dict[bytes, Bearer] = {}
        self._former: Dict[bytes, Tuple[FormerBearer, float]] = {}  # the one that left last is last; until when

    def suffixes(self) -> Dict[bytes, str]:
        """What stands behind the names of those who were told of."""
        return {node_id: bearer.suffix for node_id, bearer in self._bearers.items()}

    def hear(self, bearers: Iterable[Bearer]) -> None:
        """These are here, or come with the next version of the roster."""
        for bearer in bearers:
            if bearer.node_id in self._bearers or len(self._bearers) < BEARERS_MAX:
                self._bearers[bearer.node_id] = bearer
            self._former.pop(bearer.node_id, None)

    def hear_former(self, bearers: Iterable[FormerBearer], now: float) -> None:
        """These have left."""
        for bearer in bearers:
            until = now + LABEL_KEPT - bearer.gone_ms / 1000
            self._former.pop(bearer.node_id, None)
            if until > now:
                self._former[bearer.node_id] = bearer, until
        while len(self._former) > KEPT_LABELS_MAX:
            del self._former[next(iter(self._former))]

    def forget(self) -> None:
        """Another one rules, and tells it all."""
        self._bearers.clear()
        self._former.clear()

    def leave(self, entry: MemberEntry, label: str, now: float) -> None:
        """The one who ruled has left, and told nobody of it."""
        for bearer in self.pass_on({entry.node_id: label}, [entry]):
            self.hear_former([FormerBearer(entry.node_id, entry.name, bearer.suffix, bearer.claim, 0)], now)

    def drop(self, node_ids: Iterable[bytes]) -> None:
        """The roster says that they are gone."""
        for node_id in node_ids:
            self._bearers.pop(node_id, None)

    def retain(self, node_ids: Iterable[bytes]) -> None:
        """Of the others nothing is to be known but what they were called."""
        self._bearers = {node_id: self._bearers[node_id] for node_id in node_ids if node_id in self._bearers}

    def pass_on(self, labels: Dict[bytes, str], entries: Iterable[MemberEntry]) -> Iterator[Bearer]:
        """For the next ruler: what these are called, whoever found that out."""
        for entry in entries:
            known = self._bearers.get(entry.node_id)
            claim = NO_CLAIM if known is None else known.claim
            yield Bearer(entry.node_id, suffix_of(labels[entry.node_id], entry.name), claim)

    def former(self, now: float) -> List[FormerBearer]:
        """What those were called whose hour is not over."""
        return former_at(self._former.values(), now)


def former_at(kept: Iterable[Tuple[FormerBearer, float]], now: float) -> List[FormerBearer]:
    """Those whose time is not over, each with how long it has been gone by now."""
    return [
        bearer._replace(gone_ms=int(1000 * max(0.0, now + LABEL_KEPT - until))) for bearer, until in kept if until > now
    ]


def suffix_of(label: str, name: str) -> str:
    """What of a label stands behind the name."""
    return label[len(name) :]

