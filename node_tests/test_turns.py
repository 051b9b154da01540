"""Whose turn it is: behind a batch nobody is asked again for whom nothing waits, and nobody is forgotten by that."""

from collections import Counter

import pytest

from node_tests.stage.keys import members
from node_tests.stage.simulator import Pair
from protocol.transport.connection import Connection, State

SIZE = 400_000


@pytest.fixture
def asked(monkeypatch):
    """Holds of each look behind a batch, in any story, that where it saw nothing there was nothing; counts both."""
    counts = Counter()
    look = Connection.may_have_more

    def may_have_more(self, now):
        may = look(self, now)
        counts[may] += 1
        assert may or (self.state is State.ESTABLISHED and self.next_batch(now) is None)
        return may

    monkeypatch.setattr(Connection, "may_have_more", may_have_more)
    return counts


@pytest.mark.parametrize("has_key", [False, True])
@pytest.mark.parametrize(
    "conditions",
    [
        {},
        {"latency": 0.0001, "rate": 1e9 / 8, "mtu": 65000},
        {"loss": 0.05, "duplicate": 0.02, "reorder": 0.1},
        {"loss": 0.3},
        {"corrupt": 0.02, "rate": 1e6 / 8},
        {"mtu": 1300, "latency": 0.1},
    ],
)
def test_where_nothing_is_seen_behind_a_batch_nothing_is_to_be_sent(asked, conditions, has_key):
    credentials = {"credentials": members()} if has_key else {}
    pair = Pair(seed=7, **credentials, **conditions)
    pair.transfer(SIZE, limit=600)
    for size in (10, 3000):
        for connection in (pair.there, pair.back):
            connection.send_frame(0, bytes(size))
        pair.a.pump()
        pair.b.pump()
        pair.world.run(pair.world.now + 1.0)
    pair.there.shut_down("done")
    pair.a.pump()
    assert pair.world.run_until(lambda: len(pair.lost) == 2, pair.world.now + 60)
    assert asked[True] and asked[False]


def test_a_reader_who_stops_is_asked_for_credit_all_the_same(asked):
    pair = Pair(seed=3)
    pair.reading = False
    pair.world.run(1.0)
    for _ in range(40):
        pair.there.send_frame(0, bytes(50_000))
    pair.a.pump()
    pair.world.run(10.0)
    assert pair.there.sending.is_blocked() and asked[False]
    pair.read()
    for _ in range(100):
        pair.world.run(pair.world.now + 0.5)
        pair.read()
    assert not pair.there.backlog


def test_who_only_takes_is_not_asked_again_behind_each_acknowledgement(asked):
    pair = Pair(seed=5)
    pair.transfer(SIZE, limit=60)
    assert asked[False] > asked[True]


def test_a_challenge_that_goes_out_does_not_keep_back_what_the_reader_made_room_for():
    pair = Pair(seed=6)
    pair.reading = False
    pair.send(1_000_000, frame=10_000)
    pair.world.run(1.0)
    before = pair.back.receiving.credit
    pair.back.paths.begin(("10.0.0.9", 9), 0.01, pair.world.now)
    pair.back.paths.on_bytes(("10.0.0.9", 9), 1000)
    pair.read()
    assert pair.back.receiving.credit > before
