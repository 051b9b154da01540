"""The supernode's desk for what members are called: a label once given stays, and is kept for an hour for who had it.

A member gets its label with the roster that first names it, and all are told it (`Called`) before that roster. Who
leaves is told of, too (`WasCalled`), so that whoever rules next knows whose labels are not to be given away. Its own
label gets back: the same node; another one that shows what only that node could know (`membership/claims.py`); and who
comes from another part of the network, if that may bear the label and nobody has it here.

What a member says gives it nothing but a label of its own name that is free, or that it proves to be its own.
Pure: `now` is monotonic seconds.
"""

from __future__ import annotations

import hmac
from typing import Callable, Dict, Iterator, List, Mapping, NamedTuple, Optional

from protocol.fairness import FairRecords
from protocol.membership.claims import claim_of
from protocol.membership.contracts import Seat
from protocol.membership.labels import Labels
from protocol.membership.names import KEPT_LABELS_MAX, LABEL_KEPT, former_at, suffix_of
from protocol.messages import (
    GONE,
    MEMBERS_PER_PAGE,
    NO_CLAIM,
    Bearer,
    Called,
    Claim,
    FormerBearer,
    MemberEntry,
    WasCalled,
)
from protocol.ruling.line import Line
from protocol.ruling.register import Register


class _Label(NamedTuple):
    """What a member is called, and under which name that was."""

    name: str
    suffix: str


class Naming:
    """Who is called what, who was, and who wants to be again."""

    def __init__(self, seat: Seat, register: Register, has_spoken: Callable[[bytes], bool], now: float) -> None:
        """`has_spoken`: was a line of this member told to all?"""
        self._register = register
        self._has_spoken = has_spoken
        names = {entry.node_id: entry.name for entry in seat.members}
        self._labels = {
            bearer.node_id: _Label(names[bearer.node_id], bearer.suffix)
            for bearer in seat.bearers
            if bearer.node_id in names
        }
        self._claims = {bearer.node_id: bearer.claim for bearer in seat.bearers if bearer.node_id in self._labels}
        self._asked: Dict[bytes, str] = {}  # by members whose label is due
        self._heirs: Dict[bytes, bytes] = {}  # of a member that is still here: who has shown that it was that one
        # By host, and node id: what it was called, until when.
        self._former = FairRecords(KEPT_LABELS_MAX, is_of_hosts=True)
        self._host_of: Dict[bytes, object] = {}
        self._untold: Dict[bytes, None] = {}  # labels that are new; ordered, so that a seed replays exactly
        self._untold_former: Dict[bytes, None] = {}
        for former in seat.former:  # nobody tells where they were: each counts as a host of its own
            self._keep(former.node_id, former, now + LABEL_KEPT - former.gone_ms / 1000)

    # ---- what members say

    def on_claim(self, line: Line, claim: Claim, now: float) -> None:
        """It says what it was called, and what it will show when it comes back."""
        if not self._register.may_ask(line, now):
            return
        node_id = line.node_id
        if claim.claim != self._claims.get(node_id, NO_CLAIM):
            self._claims[node_id] = claim.claim
            self._tell_anew(line, now)
        shown = self._shown_by(line, claim, now)
        if shown is not None:
            self._give_back(line, shown, now)
        elif claim.is_called and node_id not in self._labels and _is_own(line.entry, claim.suffix):
            self._asked[node_id] = claim.suffix

    def _give_back(self, line: Line, suffix: str, now: float) -> None:
        """Its label is its own, and was kept for it: nobody who comes at the same moment gets it."""
        self._labels[line.node_id] = _Label(line.entry.name, suffix)
        self._tell_anew(line, now)

    def _tell_anew(self, line: Line, now: float) -> None:
        if line.node_id in self._labels:
            self._untold[line.node_id] = None
            self._register.mark(line, now)

    def _shown_by(self, line: Line, claim: Claim, now: float) -> Optional[str]:
        """The label of one who left, that this member shows to have been."""
        for node_id, opening in claim.openings:
            former = self._former_of(node_id, now)
            if former is not None and former.name == line.entry.name and _opens(opening, former.claim):
                self._forget(node_id)
                return former.suffix if _fits(line.entry, former.suffix) else None
            if node_id in self._labels and node_id != line.node_id and _opens(opening, self._claims.get(node_id)):
                self._heirs[node_id] = line.node_id  # that run of it has died, and nobody has noticed yet
        return None

    # ---- who goes

    def depart(self, line: Line, how: int, now: float) -> None:
        """Keep what it is called, or give that to whom it was before."""
        node_id = line.node_id
        label, claim = self._labels.pop(node_id, None), self._claims.pop(node_id, NO_CLAIM)
        self._asked.pop(node_id, None)
        heir = self._register.get(self._heirs.pop(node_id, None))
        if label is None or (line.is_guest and not self._has_spoken(node_id)):
            return  # of whom nobody has heard
        if how == GONE and heir is not None and heir.entry.name == label.name and _fits(heir.entry, label.suffix):
            self._give_back(heir, label.suffix, now)
        else:
            former = FormerBearer(node_id, label.name, label.suffix, claim, 0)
            self._keep(line.entry.place[0], former, now + LABEL_KEPT)
            self._untold_former[node_id] = None

    def _keep(self, person: object, former: FormerBearer, until: float) -> None:
        self._forget(former.node_id)
        self._former.put(person, former.node_id, (former, until))
        self._host_of = {node_id: host for host, node_id, _ in self._former.all()}

    def _former_of(self, node_id: bytes, now: float) -> Optional[FormerBearer]:
        kept = self._former.get(self._host_of.get(node_id), node_id)
        return kept[0] if kept is not None and kept[1] > now else None

    def _forget(self, node_id: bytes) -> None:
        self._former.pop(self._host_of.pop(node_id, None), node_id)

    # ---- who is called what

    def give(self, now: float) -> None:
        """A label to all who have none yet, before the others are told of them."""
        lines = self._register.in_order()
        due = [line for line in lines if self._is_due(line)]
        if not due:
            return
        for line in due:
            self._take_back(line, now)
        due = [line for line in due if self._is_due(line)]
        told = {node_id: label.suffix for node_id, label in self._labels.items()}
        kept = [former.name + former.suffix for former in self._kept(now)]
        labels = Labels([line.entry for line in lines], told, kept, self._asked).labels
        self._asked.clear()
        for line in due:
            name = line.entry.name
            self._labels[line.node_id] = _Label(name, suffix_of(labels[line.node_id], name))
            self._untold[line.node_id] = None

    def _is_due(self, line: Line) -> bool:
        label = self._labels.get(line.node_id)
        return label is None or label.name != line.entry.name

    def _take_back(self, line: Line, now: float) -> None:
        """What it was called itself, if it has been here as the same node."""
        self._labels.pop(line.node_id, None)
        former = self._former_of(line.node_id, now)
        if former is not None:
            self._forget(line.node_id)
            if former.name == line.entry.name and _fits(line.entry, former.suffix):
                self._give_back(line, former.suffix, now)

    def _kept(self, now: float) -> List[FormerBearer]:
        """What those were called whose hour is not over; the others are forgotten."""
        for _, node_id, (_, until) in list(self._former.all()):
            if until <= now:
                self._forget(node_id)
        return former_at((kept for _, _, kept in self._former.all()), now)

    # ---- what members are told

    def news(self, now: float) -> Iterator[object]:
        """What all are to know before the next version of the roster."""
        untold, self._untold = self._untold, {}
        untold_former, self._untold_former = self._untold_former, {}
        if untold or untold_former:
            yield from self._pages(untold, [one for one in self._kept(now) if one.node_id in untold_former])

    def all(self, now: float) -> Iterator[object]:
        """What a newcomer is to know before the roster."""
        return self._pages(self._labels, self._kept(now))

    def _pages(self, node_ids: Mapping[bytes, object], former: List[FormerBearer]) -> Iterator[object]:
        bearers = [self._bearer(node_id) for node_id in node_ids if node_id in self._labels]
        for first in range(0, len(former), MEMBERS_PER_PAGE):
            yield WasCalled(tuple(former[first : first + MEMBERS_PER_PAGE]))
        for first in range(0, len(bearers), MEMBERS_PER_PAGE):
            yield Called(tuple(bearers[first : first + MEMBERS_PER_PAGE]))

    def _bearer(self, node_id: bytes) -> Bearer:
        return Bearer(node_id, self._labels[node_id].suffix, self._claims.get(node_id, NO_CLAIM))


def _opens(opening: bytes, claim: Optional[bytes]) -> bool:
    return claim not in (None, NO_CLAIM) and hmac.compare_digest(claim_of(opening), claim or b"")


def _fits(entry: MemberEntry, suffix: str) -> bool:
    """A host behind a name is that where the member is."""
    return suffix[:1] != "@" or suffix[1:] == entry.place[0]


def _is_own(entry: MemberEntry, suffix: str) -> bool:
    """Could this be its own, as far as anybody can tell without a proof?"""
    return _fits(entry, suffix) and (suffix[:1] != "~" or entry.node_id.hex().startswith(suffix[1:]))
