"""A machine that gets another address sees it at its next look, and shows itself to those it is connected with."""

import random

from protocol.transport.endpoint import Endpoint
from sockets.own_addresses import LOOK_INTERVAL, OwnAddresses


def watch_of(*looks, bound_to="0.0.0.0"):
    """Finds these, one after the other."""
    found = iter(looks)
    return OwnAddresses(bound_to, 10.0, lambda: frozenset(next(found)))


def test_the_first_look_is_no_change_and_another_address_is():
    watch = watch_of(["10.0.0.1"], ["10.0.0.1"], [], ["10.0.0.101"], ["10.0.0.101"])
    at = 10.0
    seen = []
    for _ in range(5):
        seen.append(watch.have_changed(at))
        at += LOOK_INTERVAL
    assert seen == [False, False, True, True, False]


def test_between_two_looks_nothing_is_asked():
    watch = watch_of(["10.0.0.1"], ["10.0.0.101"])
    assert not watch.have_changed(10.0)
    assert not watch.have_changed(10.0 + LOOK_INTERVAL / 2)
    assert watch.have_changed(10.0 + LOOK_INTERVAL)


def test_a_socket_of_one_address_never_looks():
    watch = watch_of(bound_to="127.0.0.1")
    assert not watch.have_changed(1e9)


def test_who_has_no_connection_sends_nothing():
    endpoint = Endpoint(random.Random(1))
    endpoint.on_own_address_changed(5.0)
    assert not endpoint.has_connections() and not list(endpoint.batches(5.0))
