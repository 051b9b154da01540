"""Fair shares: who gives way when a bounded thing is full."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.fairness import SERVED_MAX, STALE_ENTRIES_MAX, FairHosts, FairRecords, FairShares, FairTurns


def take(shares, person, cost=1):
    """As a caller does it: what the greediest loses is one thing of its own, here of the same cost."""
    while True:
        who = shares.gives_way(person, cost)
        if who is None:
            shares.take(person, cost)
            return True
        if who == person:
            return False
        shares.give_back(who, min(cost, shares.held(who)))


def test_who_comes_late_gets_its_share_from_who_holds_most():
    shares = FairShares(100)
    for greedy in "abcdefghij":
        for _ in range(100):
            take(shares, greedy)
    assert all(take(shares, "late") for _ in range(2))
    assert shares.held("late") == 2 and shares.total == 100
    assert min(shares.held(greedy) for greedy in "abcdefghij") >= 9


def test_one_alone_may_have_all_of_it_and_no_more():
    shares = FairShares(5)
    assert [take(shares, "a") for _ in range(7)] == [True] * 5 + [False] * 2
    assert shares.gives_way("a") == "a"


def test_equals_do_not_take_from_each_other_in_turn():
    shares = FairShares(4)
    for person in "aabb":
        assert take(shares, person)
    assert not take(shares, "a") and not take(shares, "b")
    assert (shares.held("a"), shares.held("b")) == (2, 2)


def holding(held):
    shares = FairHosts(sum(held.values()))
    for host, cost in held.items():
        shares.take(host, cost)
    return shares


@pytest.mark.parametrize(
    ("held", "host", "loser"),
    [
        ({"10.0.0.1": 3, "10.0.0.2": 1}, "10.0.0.3", "10.0.0.1"),
        ({"10.0.0.1": 1, "10.0.0.2": 1}, "10.0.0.3", "10.0.0.3"),
        ({"fd00::1": 1, "fd00::2": 2, "10.0.0.1": 2}, "10.0.0.2", "fd00::2"),  # the network has most
        ({"fd00::1": 1, "fd00::2": 1, "10.0.0.1": 2}, "fd00::3", "fd00::3"),  # it is its own network, all equal there
        ({"fd00::1": 1, "fd00::2": 3, "10.0.0.1": 2}, "fd00::3", "fd00::2"),
        ({"fd00::1": 1, "fd00::2": 1, "10.0.0.1": 5}, "fd00::3", "10.0.0.1"),
        ({"fd00::1": 2, "fd00:0:0:1::1": 3}, "fd00::2", "fd00::1"),  # not from another network that has as much
        ({"fe80::1%eth0": 3, "fe80::1%eth1": 1}, "fe80::9%eth1", "fe80::1%eth0"),
        ({b"node": 2, "fd00::1": 1}, "fd00::2", "fd00::2"),
    ],
)
def test_of_hosts_the_network_with_most_gives_way_and_in_it_the_host(held, host, loser):
    shares = holding(held)
    assert shares.gives_way(host) == loser
    for each, cost in held.items():
        shares.give_back(each, cost)
    assert shares.total == 0 and not shares._hosts and shares.gives_way(host) is None


def test_a_thousand_addresses_of_one_machine_take_no_more_than_its_share_from_the_others():
    shares = FairHosts(100)
    held = []
    for host in [f"10.0.0.{n}" for n in range(50)] + [f"2001:db8::{n:x}" for n in range(1, 1001)]:
        who = shares.gives_way(host)
        if who is not None and who != host:
            shares.give_back(who)
            held.remove(who)
        if who != host:
            shares.take(host)
            held.append(host)
    assert sum("." in host for host in held) == 50 and len(held) == 100
    assert shares.gives_way("10.0.1.1") in held[50:], "whoever comes later has a place"


def test_a_share_is_held_by_a_host_of_a_network_that_holds_one():
    shares = holding({"fd00::1": 6, "fd00::2": 2, "10.0.0.1": 4, "10.0.0.2": 1})
    assert [shares.holds_its_share(host) for host in ("fd00::1", "fd00::2", "10.0.0.1", "10.0.0.2")] == [1, 0, 0, 0]


def test_what_is_remembered_of_hosts_is_shared_between_networks():
    records = FairRecords(4, is_of_hosts=True)
    for number, host in enumerate(["fd00::1", "fd00::2", "fd00::3", "10.0.0.1", "10.0.0.2"]):
        records.put(host, number, "kept")
    assert {host for host, _, _ in records.all()} == {"fd00::2", "fd00::3", "10.0.0.1", "10.0.0.2"}


def test_nobody_gives_way_for_what_is_larger_than_the_whole():
    shares = FairShares(10)
    assert shares.gives_way("a", 11) == "a"
    shares.take("b", 10)
    assert shares.gives_way("a", 11) == "a"


def test_who_left_holds_nothing():
    shares = FairShares(3)
    shares.take("a", 3)
    shares.forget("a")
    shares.forget("never here")
    assert (shares.total, len(shares), shares.greediest()) == (0, 0, None)
    assert take(shares, "b", 3)


def test_more_cannot_be_given_back_than_was_taken():
    shares = FairShares(3)
    shares.take("a", 2)
    with pytest.raises(AssertionError):
        shares.give_back("a", 3)


@given(st.integers(1, 30), st.lists(st.tuples(st.sampled_from("abcde"), st.integers(1, 4)), max_size=120))
@settings(max_examples=200, deadline=None)
def test_shares_are_max_min_fair_and_within_the_limit(limit, wishes):
    """Whoever was refused holds as much as anybody could have given it: within one cost of the greediest."""
    shares = FairShares(limit)
    for person, cost in wishes:
        taken = take(shares, person, cost)
        assert shares.total <= limit
        assert shares.total == sum(shares.held(each) for each in "abcde")
        if not taken and shares.total + cost > limit:
            assert shares.held(person) + cost >= max(map(shares.held, "abcde")) or cost > limit
        greediest = shares.greediest()
        assert shares.held(greediest) == max(map(shares.held, "abcde"))


def test_many_takings_leave_no_heap_of_old_entries_behind():
    shares, rng = FairShares(1000), random.Random(7)
    for _ in range(20_000):
        take(shares, rng.randrange(300))
    assert len(shares._heap) <= 2 * len(shares) + STALE_ENTRIES_MAX
    assert shares.total == 1000


# ---- turns --------------------------------------------------------------------------------------------------------


def served(turns, costs, count):
    """Who is served, of persons who all always want something of their cost."""
    order = []
    for _ in range(count):
        person = min(costs, key=turns.start)
        turns.serve(person, costs[person])
        order.append(person)
    return order


def test_who_asks_for_dear_things_has_its_turn_as_seldom_as_they_are_dear():
    order = served(FairTurns(), {"dear": 10.0, "cheap": 1.0}, 110)
    assert order.count("cheap") == 100


def test_who_comes_late_is_next_and_has_saved_up_nothing():
    turns = FairTurns()
    served(turns, {"a": 1.0, "b": 1.0}, 100)
    order = served(turns, {"a": 1.0, "b": 1.0, "late": 1.0}, 30)
    assert "late" in order[:3] and order.count("late") == 10


def test_of_whom_was_served_no_more_are_remembered_than_may_be():
    turns = FairTurns()
    for person in range(3 * SERVED_MAX):
        turns.serve(person, 1.0)
    assert len(turns._ends) == SERVED_MAX


# ---- records ------------------------------------------------------------------------------------------------------


def test_who_has_most_records_loses_what_it_used_longest_ago_and_nobody_else_any():
    records = FairRecords(10)
    records.put("modest", 0, "kept")
    for number in range(100):
        records.put("greedy", number, number)
        records.put("greedy", 0, "used again")
    assert len(records) == 10 and records.of("modest") == [(0, "kept")]
    assert records.of("greedy") == [*((number, number) for number in range(92, 100)), (0, "used again")]
    assert records.put("late", 1, "x") == 92 and records.put("late", 1, "x") is None
    assert len(records) == 10 and records.get("late", 1) == "x" and records.get("greedy", 92) is None
    assert records.pop("late", 1) == "x" and records.pop("late", 1) is None and len(records) == len(list(records.all()))


def test_where_all_have_one_record_and_no_more_a_further_person_has_none():
    records = FairRecords(3)
    for person in "abcd":
        records.put(person, "key", person)
    assert [person for person, _, _ in records.all()] == ["a", "b", "c"]
