"""When each of many wants to be called: the earliest word counts, and what is over leaves nothing behind."""

from __future__ import annotations

import math
import random
from typing import Dict, List

import pytest

from node_tests.stage.simulator import Pair
from protocol.transport.connection import Connection
from protocol.transport.deadlines import STALE_DEADLINES_MAX, Deadlines


def test_each_is_called_once_at_the_earliest_time_that_it_named() -> None:
    deadlines: Deadlines[str] = Deadlines()
    deadlines.set("ana", 5.0)
    deadlines.set("bo", 4.0)
    deadlines.set("ana", 3.0)
    deadlines.set("ana", 7.0)  # later: it is asked again when it is called
    assert deadlines.next() == 3.0
    assert list(deadlines.due(2.9)) == []
    assert list(deadlines.due(10.0)) == ["ana", "bo"]
    assert deadlines.next() == math.inf and len(deadlines) == 0


def test_who_is_over_is_not_called_and_who_never_wants_to_be_waits_for_nothing() -> None:
    deadlines: Deadlines[str] = Deadlines()
    deadlines.set("ana", 1.0)
    deadlines.set("bo", math.inf)
    deadlines.drop("ana")
    deadlines.drop("cy")
    assert "ana" not in deadlines and "bo" not in deadlines
    assert deadlines.next() == math.inf, "nobody is woken for who is over"
    assert list(deadlines.due(2.0)) == []


def test_one_may_set_its_next_deadline_while_it_is_called_and_the_heap_stays_small() -> None:
    rng, deadlines = random.Random(7), Deadlines[int]()
    wanted: Dict[int, float] = {}
    for step in range(5000):
        one, at = rng.randrange(20), step + rng.random() * 30
        wanted[one] = min(at, wanted.get(one, math.inf))
        deadlines.set(one, at)
        for called in deadlines.due(step):
            assert wanted.pop(called) <= step
        assert all(at > step for at in wanted.values()), "nobody is forgotten"
        assert len(deadlines._heap) <= 2 * len(deadlines) + STALE_DEADLINES_MAX + 1


def test_an_alarm_whose_reason_has_come_meanwhile_asks_no_connection_for_packets(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A message costs its sender three looks: for the packet, for one behind it, and when it is acknowledged."""
    looks: List[Connection] = []
    next_batch = Connection.next_batch
    monkeypatch.setattr(Connection, "next_batch", lambda one, now: looks.append(one) or next_batch(one, now))
    pair = Pair(seed=5)
    assert pair.connected()
    pair.world.run(pair.world.now + 3.0)
    del looks[:]
    for _ in range(20):
        pair.send(70)
        pair.world.run(pair.world.now + 1.0)
    assert len(pair.received["b"]) == 20 and looks.count(pair.there) <= 3 * 20


def test_who_waits_for_the_pacer_has_its_turn_without_a_look_at_its_timers(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = Pair(seed=5)
    assert pair.connected()
    pair.world.run(pair.world.now + 3.0)
    made, endpoint, now = pair.there, pair.a.endpoint, pair.world.now
    list(endpoint.batches(now))
    timers = made.next_deadline()
    made.flight.pacer.next_at = now + 0.001
    made.send_frame(1, b"hello")
    assert list(endpoint.batches(now)) == [] and endpoint.next_deadline() == now + 0.001 < timers
    monkeypatch.setattr(made, "on_timeout", lambda now: 1 / 0)
    endpoint.on_timeout(now + 0.001)
    assert list(endpoint.batches(now + 0.001)), "it is sent"
