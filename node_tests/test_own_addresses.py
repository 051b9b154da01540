"""A machine that gets another address sees it at its next look, and shows itself to those it is connected with."""

import random

import node_client
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


def test_the_address_that_is_shown_is_one_that_the_machine_still_has(monkeypatch):
    own = ["10.0.0.1", "10.8.0.1"]
    monkeypatch.setattr(node_client, "own_addresses", lambda: own)
    monkeypatch.setattr(node_client.interfaces, "address_towards", lambda target: own[0])
    monkeypatch.setattr(node_client.interfaces, "lan_address", lambda routed: routed)
    node = node_client.Node.__new__(node_client.Node)
    node._ip = "10.8.0.1"
    assert node.ip == "10.8.0.1"
    own[:] = ["10.0.0.101"]
    assert node.ip == "10.0.0.101"
    own.clear()  # for a moment none at all: what it was is as good as any
    assert node.ip == "10.0.0.101"
