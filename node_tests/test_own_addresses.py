"""A machine that gets another address sees it at its next look, and shows itself to those it is connected with."""

import argparse
import random
import socket
import sys

import pytest

import node_client
from protocol.transport.endpoint import Endpoint
from sockets import border, groups, interfaces, own_addresses
from sockets.groups import Link
from sockets.interfaces import ANY_ROUTE_OF_SIX
from sockets.own_addresses import LOOK_INTERVAL, OwnAddresses, addresses_now


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


@pytest.fixture
def machine(monkeypatch):
    """Its IPv6 links may be set, and by which address it reaches far ones of each family."""
    there = argparse.Namespace(links=[], towards={})
    monkeypatch.setattr(groups, "_links_now", lambda: list(there.links))
    monkeypatch.setattr(own_addresses, "interfaces", lambda: [("127.0.0.1", "127.0.0.1"), ("10.0.0.1", "10.0.0.255")])
    monkeypatch.setattr(own_addresses, "address_towards", there.towards.get)
    return there


@pytest.mark.parametrize("after", [
    [Link(2, "fd00::101", "fe80::1%eth0")], [Link(2, "fd00::1", "fe80::9%eth0")], [Link(2, "", "fe80::1%eth0")], [],
    [Link(2, "fd00::1", "fe80::1%eth0"), Link(3, "fd01::1", "fe80::2%wlan0")]])  # fmt: skip
def test_another_address_of_ipv6_is_seen_as_well(machine, after):
    machine.links = [Link(2, "fd00::1", "fe80::1%eth0")]
    watch = OwnAddresses("0.0.0.0", 10.0)
    assert not watch.have_changed(10.0) and not watch.have_changed(11.0)
    machine.links = after
    assert watch.have_changed(12.0) and not watch.have_changed(13.0)
    assert groups.links() == after, "and whoever asks meanwhile is told of them as they are now"


def test_another_way_out_by_ipv6_is_seen_as_well(machine):
    machine.links = [Link(2, "fd00::1", "fe80::1%eth0")]
    watch = OwnAddresses("0.0.0.0", 10.0)
    assert not watch.have_changed(10.0)
    machine.towards[ANY_ROUTE_OF_SIX] = "fd00::1"
    assert watch.have_changed(11.0)


@pytest.mark.parametrize("missing", ["IPV6_MULTICAST_IF", "IPPROTO_IPV6", "AF_INET6", "if_nameindex", "fcntl"])
def test_a_python_that_was_built_without_these_knows_fewer_addresses(monkeypatch, missing):
    if missing == "fcntl":
        monkeypatch.setitem(sys.modules, missing, None)
    else:
        monkeypatch.delattr(socket, missing)
        assert groups.links_anew() == []
        assert all(":" not in each for each in addresses_now() if not each.startswith("towards"))
    assert all("." in ip for ip, _ in interfaces.interfaces())
    with border.socket_at("127.0.0.1", 0) as sock:
        assert not border.Border(sock).is_six


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
