"""Nodes behind home routers, in the simulator: the boxes themselves (RFC 4787)."""

import random

import pytest

from node_tests.stage.nat import MAPPING_TIME, Homes, NatBox, NatKind

INSIDE, OUTSIDE = ("192.168.1.2", 6020), "198.51.100.2"
PUBLIC, STRANGER = ("203.0.113.1", 6020), ("203.0.113.9", 7000)


def box_of(kind, keeps_ports=True, ips=(INSIDE[0],)):
    return NatBox(OUTSIDE, list(ips), kind, random.Random(1), keeps_ports)


@pytest.mark.parametrize("kind", NatKind)
def test_what_a_host_asked_for_comes_back_in_until_its_box_forgets(kind):
    box = box_of(kind)
    ip, port = box.leave(INSIDE, PUBLIC, 0.0)
    assert ip == OUTSIDE
    assert box.enter(port, PUBLIC, MAPPING_TIME - 1) == INSIDE
    assert box.enter(port, PUBLIC, 2 * MAPPING_TIME) is None
    assert box.refused == 1


def test_only_a_full_cone_lets_a_stranger_in():
    let_in = {kind: box.enter(box.leave(INSIDE, PUBLIC, 0.0)[1], STRANGER, 1.0)
              for kind in NatKind for box in [box_of(kind)]}  # fmt: skip
    assert let_in == {NatKind.FULL_CONE: INSIDE, NatKind.PORT_RESTRICTED: None, NatKind.SYMMETRIC: None}


def test_a_symmetric_box_shows_another_port_to_each_and_the_others_one_to_all():
    ports = {kind: {box.leave(INSIDE, target, 0.0)[1] for target in (PUBLIC, STRANGER)}
             for kind in NatKind for box in [box_of(kind, keeps_ports=False)]}  # fmt: skip
    assert {kind: len(each) for kind, each in ports.items()} == {
        NatKind.FULL_CONE: 1, NatKind.PORT_RESTRICTED: 1, NatKind.SYMMETRIC: 2,
    }  # fmt: skip


def test_two_inside_hosts_with_one_port_get_two_outside():
    box = box_of(NatKind.PORT_RESTRICTED, ips=(INSIDE[0], "192.168.1.3"))
    first, second = box.leave(INSIDE, PUBLIC, 0.0), box.leave(("192.168.1.3", 6020), PUBLIC, 0.0)
    assert first == (OUTSIDE, 6020) and second != first
    assert box.enter(second[1], PUBLIC, 1.0) == ("192.168.1.3", 6020)


def test_inside_addresses_lead_nowhere_from_outside_and_a_box_has_no_hairpin():
    homes = Homes()
    homes.add(box_of(NatKind.FULL_CONE, ips=(INSIDE[0], "192.168.1.3")))
    assert homes.leave(PUBLIC, INSIDE, 0.0) is None
    assert homes.leave(INSIDE, ("192.168.1.3", 6020), 0.0) == INSIDE
    assert homes.leave(INSIDE, (OUTSIDE, 6020), 0.0) is None
    assert homes.enter(homes.leave(INSIDE, PUBLIC, 0.0), PUBLIC, 0.0) == PUBLIC
