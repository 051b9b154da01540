"""IPv6 alone and beside IPv4, and the border where addresses are translated. Real sockets on ::1 where there is one.

    python node_tests/test_six.py families 7          replays one random story and prints what everybody is told
    python node_tests/test_six.py families 0-999      runs many, and tells which fail
"""

from __future__ import annotations

import argparse
import contextlib
import ipaddress
import os
import random
import socket
import sys
import threading

if __name__ == "__main__":
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import pytest
import test_nat
import test_network

import rdt
from node_tests.stage.amounts import amount
from node_tests.stage.lab import MIB, Lab, Node, content
from node_tests.stage.usage import play_seeds
from protocol.addresses import is_loopback, is_of_link, may_contact, network_of, seen_from, shown
from protocol.fields import AddressField, Reader
from protocol.hearsay import Hearsay
from protocol.membership.searching import OTHER_INTERVAL, OTHERS_MAX, ROUNDS, Nobody, Search
from protocol.messages import MemberEntry
from protocol.results import ChatReceived, DownloadDone, Notice, Outcome, SupernodeChanged
from protocol.ruling.succession import better_one, successor_of
from protocol.transport.flight import Batch
from sockets import border, groups
from sockets.arguments import resolved
from sockets.border import Border, index_of, socket_at
from sockets.door import Door
from sockets.udp import Datagrams, RdtError


def has_six():
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
        probe.bind(("::1", 0))
        return socket.has_ipv6
    return False


def has_both():
    with contextlib.suppress(OSError), socket_at("", 0) as sock:
        return sock.family == socket.AF_INET6
    return False


needs_six = pytest.mark.skipif(not has_six(), reason="this machine has no IPv6 loopback")
needs_both = pytest.mark.skipif(not (has_six() and has_both()), reason="no socket for both families here")


# ---- what addresses mean


def test_an_address_is_shown_as_the_questions_take_it():
    assert shown(("fd00::1", 6020)) == "[fd00::1]:6020" and shown(("10.0.0.7", 6020)) == "10.0.0.7:6020"
    assert shown(("fe80::1%eth0", 6020)) == "[fe80::1%eth0]:6020"


def test_near_is_the_same_48_and_an_address_of_one_link_is_no_hearsay():
    assert may_contact(("fd00::1", 6020), []) and is_loopback("::1")
    assert may_contact(("2001:db8:1:2::3", 6020), ["2001:db8:1:9::7"])
    assert not may_contact(("2001:db8:2:2::3", 6020), ["2001:db8:1:9::7"])
    assert not may_contact(("2001:db8:1:2::3", 6020), ["10.0.0.7"])
    assert not may_contact(("203.0.113.7", 6020), ["2001:db8:1:9::7"])
    assert not may_contact(("ff12::1", 6020), []) and not may_contact(("::", 6020), [])
    assert not may_contact(("fe80::1", 6020), []) and may_contact(("fe80::1%eth0", 6020), [])
    assert [is_of_link(ip) for ip in ("fe80::1", "FEBF::1", "fec0::1", "fd00::1", "10.0.0.7")] == [1, 1, 0, 0, 0]


def test_what_one_machine_can_have_all_addresses_of_is_a_network_of_64_bits():
    assert network_of("2001:db8:1:2:3::4") == network_of("2001:DB8:1:2::") == "2001:db8:1:2::/64"
    assert network_of("fe80::1%eth0") == "fe80::/64%eth0" != network_of("fe80::1%eth1")
    assert [network_of(ip) for ip in ("10.0.0.7", "::1", "", "lab:7")] == ["10.0.0.7", "::1", "", "lab:7"]


def test_an_interface_is_told_to_nobody():
    place = AddressField()
    assert place.decode(Reader(place.encode(("fe80::1%eth0", 6020)))) == ("fe80::1", 6020)
    assert place.decode(Reader(place.encode(("fd00::1", 6020)))) == ("fd00::1", 6020)


def test_an_address_of_ipv4_in_the_dress_of_ipv6_is_read_as_what_it_is():
    for ip in ("10.0.0.7", "255.255.255.255", "127.0.0.1", "203.0.113.7"):
        dressed = b"\x06" + ipaddress.IPv6Address(f"::ffff:{ip}").packed + (6020).to_bytes(2, "big")
        assert AddressField().decode(Reader(dressed)) == (ip, 6020)


# ---- the border


@needs_both
def test_the_border_translates_both_ways_and_is_bounded(monkeypatch):
    monkeypatch.setattr(border, "ADDRESSES_KEPT", 3)
    monkeypatch.setattr(border, "name_of", lambda index: {7: "eth7"}[index])
    monkeypatch.setattr(border, "index_of", lambda name: {"eth7": 7, "": 0}[name])
    pairs = [
        (("::ffff:10.0.0.7", 1, 0, 0), ("10.0.0.7", 1)), (("fd00::1", 2, 0, 0), ("fd00::1", 2)),
        (("fe80::1", 3, 0, 7), ("fe80::1%eth7", 3)), (("::1", 4, 0, 0), ("::1", 4)),
        (("::ffff:a00:1:7", 5, 0, 0), ("::ffff:a00:1:7", 5)),
    ]  # fmt: skip
    with socket_at("", 0) as sock:
        there = Border(sock)
        assert there.own_address(sock) == ("0.0.0.0", sock.getsockname()[1])
        for outside, inside in pairs * 2:
            assert there.inside(outside) == there.inside(outside) == inside
            assert there.outside(inside) == there.outside(inside) == outside
        assert len(there._inside) <= 3 and len(there._outside) <= 3


def test_a_socket_of_one_family_sends_nothing_to_the_other():
    with socket_at("127.0.0.1", 0) as sock, pytest.raises(OSError):
        Border(sock).outside(("fd00::1", 6020))


@needs_six
def test_a_socket_of_ipv6_alone_sends_nothing_to_the_other():
    with socket_at("::1", 0) as sock, pytest.raises(OSError):
        Border(sock).outside(("127.0.0.1", 6020))


def test_where_there_is_no_ipv6_a_socket_for_every_address_is_one_of_ipv4(monkeypatch):
    monkeypatch.setattr(socket, "has_ipv6", False)
    datagrams = Datagrams("", 0)
    with contextlib.closing(datagrams):
        assert datagrams.socket.family == socket.AF_INET and datagrams.address[0] == "0.0.0.0"
        assert datagrams.join_groups() == []


@needs_both
def test_a_port_that_one_family_has_is_taken_for_both():
    with socket_at("127.0.0.1", 0) as sock, pytest.raises(RdtError, match="is taken by another program"):
        Datagrams("", sock.getsockname()[1])
    with socket_at("::1", 0) as sock, pytest.raises(RdtError, match="is taken by another program"):
        Datagrams("", sock.getsockname()[1])


def test_an_address_that_a_caller_of_the_transport_names_is_as_its_packets_will_have_it():
    number, name = socket.if_nameindex()[0]
    for said in (f"fe80::1%{number}", f"FE80::1%{name}"):
        assert resolved((said, 6020)) == [(f"fe80::1%{border.name_of(number)}", 6020)]
    assert resolved(("::ffff:127.0.0.1", 6020)) == resolved(("127.0.0.1", 6020)) == [("127.0.0.1", 6020)]


@needs_both
def test_elsewhere_than_on_linux_a_port_that_ipv4_has_is_looked_at_before(monkeypatch):
    asked = []
    bound = border._bound
    monkeypatch.setattr(border, "_bound", lambda family, ip, port: asked.append(ip) or bound(family, ip, port))
    with socket_at("", 0) as sock:
        port = sock.getsockname()[1]
    monkeypatch.setattr(sys, "platform", "darwin")
    with socket_at("", port) as sock:
        assert asked == ["::", "0.0.0.0", "::"] and sock.family == socket.AF_INET6


@needs_both
def test_an_interface_that_came_back_with_another_number_is_found_again(monkeypatch):
    numbers = {"": 0, "eth7": 1000001}
    monkeypatch.setattr(border, "index_of", numbers.__getitem__)
    to = ("fe80::1%eth7", 6020)
    with contextlib.closing(Datagrams("", 0)) as datagrams:
        assert datagrams._border.outside(to)[3] == 1000001
        numbers["eth7"] = 1000002
        assert datagrams._border.outside(to)[3] == 1000001
        assert datagrams.send(Batch(to, 5, 1, 1, [b"hello"]), 0.0) == 1 and sum(datagrams.stats.values()) == 1
        assert datagrams._border.outside(to)[3] == 1000002


def test_interfaces_are_looked_at_once_a_second(monkeypatch):
    now, looks = [50.0], []
    monkeypatch.setattr(groups, "_kept", (0.0, []))
    monkeypatch.setattr(groups.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(groups, "_links_now", lambda: looks.append(now[0]) or [])
    for now[0] in (50.0, 50.5, 50.9, 51.0, 51.5):
        groups.links()
    assert looks == [50.0, 51.0]


@needs_both
def test_at_each_search_the_groups_are_joined_anew_at_the_door_too(monkeypatch):
    joined, listener = [], argparse.Namespace()
    monkeypatch.setattr(groups, "join", lambda sock: joined.append(sock.getsockname()[1]))
    with contextlib.closing(Datagrams("", 0)) as here:
        port = here.address[1]
    watch = argparse.Namespace(add=lambda fileno: None, drop=lambda fileno: None)
    door = Door("", watch, listener)
    door.join_groups()
    door.hold(port, 0.0)
    door.turn(0.0, [])
    del joined[:]
    door.join_groups()
    door.close()
    assert joined == [port]


def test_an_interface_is_known_by_name_and_number():
    number, name = socket.if_nameindex()[0]
    assert index_of(str(number)) == index_of(name) == number and index_of("") == 0
    with pytest.raises(OSError):
        index_of("none")


def test_links_have_no_loopback_and_say_their_group():
    for link in groups.links():
        assert link.ip != "::1" and link.group.startswith(groups.GROUP + "%") and "%" in link.own
        assert not is_of_link(link.ip)


# ---- the transport


@needs_both
@pytest.mark.parametrize("ends", [("::1", "::1"), ("", "::1"), ("::1", ""), ("", ""), ("", "127.0.0.1")])
def test_files_and_messages_travel_whatever_the_sockets_of_the_two_ends(tmp_path, ends):
    data = content(3 * MIB)
    (tmp_path / "a.bin").write_bytes(data)
    (tmp_path / "there").mkdir()
    here_ip = "127.0.0.1" if "127.0.0.1" in ends else "::1"
    with rdt.open(ends[0], 0) as server, rdt.open(ends[1], 0) as client:
        calling = client.connect((here_ip, server.address[1]), timeout=20)
        called = server.accept(timeout=20)
        assert called.address[0] == here_ip and calling.address == (here_ip, server.address[1])
        calling.send(b"hello")
        assert called.receive(timeout=20) == b"hello"
        receipts = []
        taking = threading.Thread(target=lambda: receipts.append(called.accept_file(tmp_path / "there")))
        taking.start()
        calling.send_file(tmp_path / "a.bin")
        taking.join(20)
        assert receipts and (tmp_path / "there" / "a.bin").read_bytes() == data


def test_every_address_is_no_place_to_connect_to():
    with rdt.open("127.0.0.1", 0) as transport:
        for ip in ("0.0.0.0", "::"):
            with pytest.raises(RdtError, match="that is every address of a machine"):
                transport.connect((ip, 6020))


# ---- who rules next


class Member:
    def __init__(self, name, seen, *told):
        self.node_id, self.told, self.link, self.is_own = name, told, 1, False
        self.entry = MemberEntry(name, name, (seen, 6020), 0, True, True)


class Members:
    """A register and the places that its members told."""

    def __init__(self, *lines, own=None):
        self._lines, self.own = lines, own

    def lines(self):
        return list(self._lines)

    def alive(self, now):
        return list(self._lines)

    def places_of(self, node_id):
        lines = [line for line in (*self._lines, self.own) if line is not None and line.node_id == node_id]
        return tuple((ip, 6020) for line in lines[:1] for ip in line.told)


FOUR, SIX = Member("four", "10.0.0.4", "10.0.0.4"), Member("six", "fd00::6", "fd00::6")
BOTH, EARLIER = Member("both", "10.0.0.5", "10.0.0.5", "fd00::5"), Member("earlier", "10.0.0.3")


@pytest.mark.parametrize(
    ("lines", "successor"),
    [
        ([FOUR, BOTH], FOUR),  # all have IPv4: the join order counts
        ([SIX, BOTH], SIX),
        ([EARLIER, FOUR, BOTH], EARLIER),
        ([FOUR, SIX, BOTH], BOTH),
        ([SIX, EARLIER, BOTH], BOTH),
        ([FOUR, SIX, EARLIER], FOUR),  # nobody reaches all: the one who reaches most
        ([SIX, FOUR, EARLIER], FOUR),
        ([Member("lab", "127.0.0.1"), SIX, FOUR], None),
        ([], None),
    ],
)
def test_who_rules_next_is_the_first_that_most_can_reach(lines, successor):
    members = Members(*lines)
    expected = successor or (lines[0] if lines else None)
    assert successor_of(members, members, 0.0) is expected


@pytest.mark.parametrize(
    ("own", "away", "lines", "found"),
    [
        (FOUR, ["fd00::6"], [FOUR, BOTH], BOTH),
        (FOUR, ["10.0.0.6", "2001:db8::6"], [FOUR, BOTH], BOTH),
        (FOUR, ["10.0.0.6"], [BOTH], None),
        (FOUR, [], [BOTH], None),
        (FOUR, [None], [BOTH], None),  # nobody knows where it was
        (FOUR, ["fd00::6"], [SIX], None),  # would lose those whom this one has
        (SIX, ["10.0.0.6"], [FOUR, BOTH], BOTH),
        (BOTH, ["10.0.0.6", "fd00::6"], [BOTH], None),
        (EARLIER, ["fd00::6"], [BOTH], None),  # what it has itself, it has not told yet
        (None, ["fd00::6"], [BOTH], None),
    ],
)
def test_who_rules_instead_reaches_all_that_this_one_does_and_the_family_of_the_missed(own, away, lines, found):
    missed = [Member(f"away{number}", "0.0.0.0") for number in range(len(away))]
    for line in missed:
        line.link = None
    members = Members(*missed, *lines, own=own)
    seen_by_six = {line.node_id: ":" in ip for line, ip in zip(missed, away) if ip}
    seen_by_six["both"] = True  # is here
    members.alive = lambda now: lines
    assert better_one(members, members, seen_by_six, 0.0) is found


# ---- whole nodes


def test_a_network_of_ipv6_alone_shares_chats_and_hands_over(tmp_path):
    lab = Lab(tmp_path, seed=4)
    data = content(2 * MIB)
    ana = lab.node("ana", ip="fd00::1", shared={"lab.iso": data})
    bo, cy = lab.node("bo", ip="fd00::2"), lab.node("cy", ip="fd00::3")
    done = cy.fetched("lab.iso")
    assert isinstance(done, DownloadDone) and done.sources == ("ana",) and done.by_way_of is None
    cy.do("say", "hello", lab.world.now)
    lab.run(1)
    assert [event.text for event in bo.told(ChatReceived)] == ["hello"]
    ana.quit()
    lab.run(3)
    assert bo.peer.is_supernode and cy.supernode_label() == "bo"
    assert [event.new_label for event in cy.told(SupernodeChanged)] == ["bo"]
    assert bo.fetched("lab.iso").sources == ("cy",)
    lab.close()


# ---- a name with several addresses (RFC 8305)

NAMED = [(ip, 6020) for ip in ("10.0.0.99", "fd00::98", "fd00::1", "fd00::97", "fd00::96", "fd00::95")]


def test_the_addresses_of_a_name_are_asked_one_after_the_other():
    asked = []
    prober = argparse.Namespace(
        ask_freely=lambda address, purpose, now, about=None: asked.append((now, address)), hearsay=Hearsay(),
        broadcast=lambda *_: None, ask_hinted=lambda *_, **__: None,
    )  # fmt: skip
    me, now = ("10.0.0.3", 6020), 0.0
    search = Search(prober, random.Random(1), b"me------", me, [], NAMED[0], 6020, now, others=NAMED[1:])
    while not isinstance(search.on_timer(now), Nobody):
        now = search.next_deadline()
    first = {address: at for at, address in reversed(asked) if address in NAMED}
    assert first == {address: OTHER_INTERVAL * count for count, address in enumerate(NAMED[: 1 + OTHERS_MAX])}
    assert max(sum(address == each for _, each in asked) for address in NAMED) <= ROUNDS


def test_a_name_leads_to_the_network_by_whichever_address_answers(tmp_path):
    lab = Lab(tmp_path, seed=4)
    lab.node("ana", ip="fd00::1")
    eve = Node(lab, "eve", 9, ip="fd00::2")
    lab.nodes.append(eve)
    began = lab.world.now
    eve.start(NAMED[0], NAMED[1:])
    outcome = eve.told(Outcome)[0]
    assert (outcome.kind, outcome.address) == ("joined", NAMED[2]) and lab.world.now - began < 3
    assert not eve.told(Notice), "nobody is told of an address at which nobody answered"
    lab.close()


def test_c_leads_there_by_whichever_address_answers_and_tells_of_the_first_where_none_does(tmp_path):
    lab = Lab(tmp_path, seed=4)
    lab.node("ana", ip="fd00::1")
    dan = Node(lab, "dan", 8, ip="fd00::3")
    lab.nodes.append(dan)
    dan.start()
    for others in (NAMED[1:], NAMED[3:]):
        dan.do("connect_to", *NAMED[0], lab.world.now, others)
        lab.run(5)
    told = [(outcome.kind, outcome.address) for outcome in dan.told(Outcome)]
    assert told[1:] == [("joined", NAMED[2]), ("nobody", NAMED[0])]
    lab.close()


def test_the_supernode_dies_and_the_next_is_found_at_its_ipv6_address(tmp_path):
    lab = Lab(tmp_path, seed=4)
    ana = lab.node("ana", ip="2001:db8:1:1::1")
    bo, cy = lab.node("bo", ip="2001:db8:1:2::2"), lab.node("cy", ip="2001:db8:1:3::3")
    lab.run(3)
    ana.kill()
    lab.run(20)
    assert bo.peer.is_supernode and cy.supernode_label() == "bo"
    lab.close()


def test_members_of_one_family_each_have_what_the_other_has_by_way_of_a_supernode_with_both(tmp_path):
    lab = Lab(tmp_path, seed=4)
    lab.node("ana", ip="10.0.0.1")
    four = lab.node("four", ip="10.0.0.2", shared={"four.bin": content(MIB, 1)}, mesh=False)
    six = lab.node("six", ip="fd00::3", shared={"six.bin": content(MIB, 2)}, mesh=False)
    lab.world.cut([four.ip], [six.ip])
    for node, name in ((six, "four.bin"), (four, "six.bin")):
        done = node.fetched(name)
        assert isinstance(done, DownloadDone) and done.by_way_of == "ana"
    four.do("say", "hello", lab.world.now)
    lab.run(1)
    assert [event.text for event in six.told(ChatReceived)] == ["hello"]
    lab.close()


@pytest.mark.parametrize("has_both", [True, False])
def test_one_who_has_both_families_rules_instead_of_one_who_lost_those_of_the_other(tmp_path, has_both):
    lab = Lab(tmp_path, seed=4)
    ana = lab.node("ana", ip="10.0.0.1", also=["fd00::1"])
    bo = lab.node("bo", ip="10.0.0.2")
    cy = lab.node("cy", ip="10.0.0.3", also=["fd00::3"] if has_both else [])
    six = lab.node("six", ip="2001:db8:1:1::4")  # where nobody may send on the word of a roster
    lab.world.cut([bo.ip] if has_both else [bo.ip, cy.ip], [six.ip])
    lab.run(3)
    ana.kill()
    lab.run(70)
    ruler = "cy" if has_both else "bo"
    assert [node.supernode_label() for node in (bo, cy)] == [ruler] * 2
    assert six.supernode_label() == (ruler if has_both else "six")
    assert {event.new_label for event in bo.told(SupernodeChanged)} == {"bo", ruler}
    if has_both:
        six.do("say", "hello", lab.world.now)
        lab.run(1)
        assert [event.text for event in bo.told(ChatReceived)] == ["hello"]
    lab.close()


# ---- random stories: the first node has both families, of the others some have one alone


SIX_ALONE, FOUR_ALONE = (2, 5, 8), (3, 6, 9)
STORIES, PLAYED = amount(40, 1), amount(2, 1)


class FamilyPerson(test_nat.NatPerson):
    def ip_of(self, number):
        return "fd00::%d" % number if number in SIX_ALONE else None


class FamilyStory(test_nat.NatStory):
    command = "test_six.py families"
    person = FamilyPerson
    homes = walled = ()

    def __init__(self, *args, **how):
        super().__init__(*args, **how)
        self.world.cut(["10.0.0.%d" % number for number in FOUR_ALONE], ["fd00::%d" % number for number in SIX_ALONE])


@pytest.mark.parametrize("first", range(0, STORIES, PLAYED))
def test_random_networks_of_two_families_end_well(first):
    for seed in range(first, first + PLAYED):
        story = test_network.play(seed, kind=FamilyStory)
        assert {":" in person.ip for person in story.people} == {True, False}


def test_where_there_are_addresses_of_one_link_only_each_adds_its_own_interface(tmp_path):
    lab = Lab(tmp_path, seed=4)
    ana = lab.node("ana", ip="fe80::1%eth0")
    bo, cy = lab.node("bo", ip="fe80::2%eth0", shared={"lab.iso": content(MIB)}), lab.node("cy", ip="fe80::3%eth0")
    assert not any("%" in entry.place[0] for entry in cy.peer.membership.roster)
    for node in (cy, ana):
        assert node.peer.membership.ways.place_of(bo.peer.node_id) == ("fe80::2%eth0", 6020)
        assert node.fetched("lab.iso").sources[0] in ("bo", "cy")
    ana.quit()
    lab.run(3)
    assert bo.peer.is_supernode and cy.supernode_label() == "bo"
    lab.close()


def test_a_supernode_of_two_links_reaches_the_members_of_each(tmp_path):
    lab = Lab(tmp_path, seed=4)
    view = lab.node("ana", ip="fe80::1%eth0").peer.membership._view
    for ip in ("fe80::2%eth0", "fe80::3%eth1", "fd00::4", "10.0.0.7"):
        view.see(ip)
    assert view.seen_by_ruler(("fe80::3", 7)) == ("fe80::3%eth1", 7)
    assert view.seen_by_ruler(("fe80::2", 7)) == ("fe80::2%eth0", 7)
    for place in (("fe80::9", 7), ("fd00::4", 7), ("10.0.0.7", 7)):
        assert view.seen_by_ruler(place) == place
    lab.close()


def test_what_another_machine_names_is_meant_on_its_own_link():
    assert seen_from(("fe80::3", 7), ("fe80::1%eth0", 9)) == ("fe80::3%eth0", 7)
    for place, teller in ((("fe80::3", 7), ("fd00::1", 9)), (("fe80::3%eth1", 7), ("fe80::1%eth0", 9))):
        assert seen_from(place, teller) == place


if __name__ == "__main__":
    sys.exit(play_seeds(test_network.play, __doc__, {"families": FamilyStory}))
