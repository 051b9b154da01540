"""Which of a machine's addresses is shown and told first: that of a LAN, where there is one."""

import pytest

from sockets import groups, interfaces
from sockets.groups import Link
from sockets.interfaces import Interface

LO = Interface("lo", "127.0.0.1", "127.255.255.255")
LAN, OTHER_LAN = Interface("eth0", "10.9.1.1", "10.9.1.255"), Interface("wlan0", "10.9.2.1", "10.9.2.255")
DOCKER, VPN = Interface("docker0", "172.17.0.1", "172.17.255.255"), Interface("tun0", "10.8.0.2", "10.8.0.2")


@pytest.fixture
def machine(monkeypatch):
    monkeypatch.setattr(groups, "links", list)
    return lambda *found: monkeypatch.setattr(interfaces, "_interfaces_by_ioctl", lambda: list(found))


def test_addresses_of_lans_come_before_those_of_tunnels_and_containers(machine):
    machine(DOCKER, LO, VPN, LAN, OTHER_LAN)
    assert [ip for ip, _ in interfaces.interfaces()] == [each.ip for each in (LO, LAN, OTHER_LAN, DOCKER, VPN)]


@pytest.mark.parametrize(
    ("found", "routed", "shown"),
    [
        ((LO, VPN, LAN), VPN, LAN),  # the tunnel is the default route, and the room is not there
        ((LO, LAN, OTHER_LAN), OTHER_LAN, OTHER_LAN),
        ((LO, VPN), VPN, VPN),  # it is all that there is
        ((LO, DOCKER, LAN), None, LAN),  # no route at all
    ],
)
def test_a_tunnel_is_shown_only_where_there_is_no_lan(machine, found, routed, shown):
    machine(*found)
    assert interfaces.lan_address(routed.ip if routed else None) == shown.ip


def test_without_any_network_no_address_is_shown(machine):
    machine(LO)
    assert interfaces.lan_address(None) is None
    assert not interfaces.has_network()


def test_addresses_of_ipv6_are_told_unless_they_are_good_on_one_link_only(machine, monkeypatch):
    machine(LO)
    found = [Link(2, "fd00::8", "fe80::8%tun0"), Link(3, "", "fe80::7%wlan0"), Link(4, "fd00::9", "fe80::9%eth0")]
    monkeypatch.setattr(groups, "links", lambda: found)
    monkeypatch.setattr(groups, "name_of", lambda number: ["tun0", "wlan0", "eth0"][number - 2])
    assert interfaces.six_addresses() == ["fd00::9", "fd00::8"]
    assert interfaces.lan_address(None) == "fd00::9" and interfaces.has_network()
    monkeypatch.setattr(groups, "links", lambda: found[1:2])
    assert not interfaces.six_addresses() and interfaces.has_network()
    assert interfaces.lan_address(None) == "fe80::7%wlan0"  # there is no other
