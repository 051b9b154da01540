"""A lecture hall: what a thousand members make of a supernode, and what they must not make of it."""

from __future__ import annotations

from typing import Any, List

import pytest

from protocol.membership import roster as roster_module
from protocol.membership.labels import Labels
from protocol.membership.roster import Change, Roster
from protocol.messages import GONE, LEFT, Departure, MemberEntry, RosterUpdate


def entry(number: int, name: str = "") -> MemberEntry:
    name = name or f"m{number:04d}"
    return MemberEntry(number.to_bytes(8, "big"), name, (f"10.0.0.{number % 250}", 6020), number, True, True)


# ---- what members are called --------------------------------------------------------------------------------------


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> List[int]:
    """Of each time that all members' labels were found out: of how many."""
    counts: List[int] = []

    def labels(entries: Any, *more: Any) -> Labels:
        counts.append(len(entries))
        return Labels(entries, *more)

    monkeypatch.setattr(roster_module, "Labels", labels)
    return counts


@pytest.mark.parametrize("many", [1, 100])
def test_labels_are_found_out_once_for_each_update_however_many_it_names(counted: List[int], many: int) -> None:
    roster = Roster()
    roster.replace([entry(number) for number in range(300)], 1)
    roster.labels()
    del counted[:]
    departed = tuple(Departure(number.to_bytes(8, "big"), LEFT, 0) for number in range(1, 1 + many))
    came = tuple(entry(number) for number in range(300, 300 + many))
    changes = roster.apply(RosterUpdate(1, 2, came, departed), entry(0).node_id)
    assert len(changes) == 2 * many and counted == [300]


def test_an_update_tells_what_they_were_called_before_it_and_are_called_after_it() -> None:
    roster = Roster()
    first, second, third = (entry(number, "ana") for number in (1, 2, 3))
    roster.replace([entry(0), first, second], 1)
    labels = roster.labels()
    assert labels[first.node_id] == "ana" != labels[second.node_id]
    departed = (Departure(first.node_id, LEFT, 0), Departure(second.node_id, GONE, 8000))
    changes = roster.apply(RosterUpdate(1, 2, (third,), departed), entry(0).node_id)
    left = [Change("ana", False, None), Change(labels[second.node_id], False, 8.0)]
    assert changes == [*left, Change("ana", True, None)]
