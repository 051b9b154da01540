"""Lines of coming and going: single ones at once, many as one."""

from __future__ import annotations

import random
from typing import Any, List, Tuple

from prompt.comings import Comings
from protocol.results import Joined, Left


def told(events: List[Tuple[float, Any]], until: float) -> List[Tuple[float, str]]:
    """(when, line) of all that a screen shows, looking ten times a second."""
    comings, lines, events = Comings(0.0), [], list(events)
    for tenth in range(int(until * 10) + 1):
        now = tenth / 10
        while events and events[0][0] <= now:
            lines.append((now, comings.tell(events.pop(0)[1], now)))
        lines.append((now, comings.due(now)))
    return [(now, line) for now, line in lines if line]


def test_a_single_coming_is_told_at_once() -> None:
    events = [(1.0, Joined("bo", 2)), (2.0, Left("bo", 1, None)), (3.0, Left("cy", 1, 8.2)), (90.0, Joined("bo", 2))]
    assert told(events, 100.0) == [
        (1.0, "* bo joined (2 nodes)"),
        (2.0, "* bo left (1 node)"),
        (3.0, "* cy is gone (no sign for 8 s; 1 node)"),
        (90.0, "* bo joined (2 nodes)"),
    ]


def test_a_class_that_sits_down_together_is_two_lines_more_than_a_group() -> None:
    events = [(1.0 + number / 10, Joined("n%d" % number, number + 2)) for number in range(30)]
    lines = [line for _, line in told(events, 60.0)]
    assert lines[:4] == ["* n%d joined (%d nodes)" % (number, number + 2) for number in range(4)]
    assert lines[4:] == ["* 26 joined (31 nodes)"]


def test_a_few_are_told_by_name_and_one_as_ever() -> None:
    comings = Comings(0.0)
    for number in range(4):
        assert comings.tell(Joined("n%d" % number, number + 2), 0.0)
    assert comings.tell(Joined("bo", 6), 0.1) == comings.tell(Left("cy", 5, None), 0.2) == comings.due(0.3) == ""
    assert comings.rest() == "* bo joined; cy left (5 nodes)"
    assert comings.tell(Left("di", 4, 9.0), 0.4) == ""
    assert comings.rest() == "* di is gone (no sign for 9 s; 4 nodes)" and comings.rest() == ""


def test_a_flood_of_joins_writes_at_most_ten_lines_in_any_minute() -> None:
    rng = random.Random(3)
    events: List[Tuple[float, Any]] = []
    for tenth in range(3000):
        for _ in range(rng.choice((0, 1, 12))):
            label = "j%d\x1b[2J" % rng.randrange(10**6)
            events.append((tenth / 10, rng.choice((Joined(label, 9), Left(label, 8, None)))))
    lines = told(events, 310.0)
    moments = [now for now, _ in lines]
    assert max(sum(since <= now < since + 60.0 for now in moments) for since in moments) <= 10
    assert any("joined, " in line and "left (" in line for _, line in lines)
    numbers = [int(word) for _, line in lines[4:] for word in line.split()[1::2] if word.isdigit()]
    assert sum(numbers) == len(events) - 4 and not any("\x1b" in line for _, line in lines)
