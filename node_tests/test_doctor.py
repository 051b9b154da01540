"""What `D` and `doctor` tell: facts in, rows and objects and a verdict out; each trouble has its next step."""

from __future__ import annotations

import json

import pytest

from prompt import doctor
from protocol.facts import (
    Clock,
    Disk,
    Facts,
    Firewall,
    FirewallState,
    Health,
    Holder,
    Machine,
    OwnAddress,
    Reached,
)
from protocol.figures import PathFigures
from protocol.looks import text_width
from protocol.results import MemberRow, NatKind

LAN = OwnAddress("10.0.0.8", "eth0", leads_out=True, leads_to_network=True)
DOCKER = OwnAddress("172.17.0.1", "docker0", is_detour=True)
UFW = Firewall("ufw", FirewallState.UNKNOWN, "sudo ufw allow 6020/udp", 6020)
SHUT = UFW._replace(state=FirewallState.SHUT)
RELOADING = "sudo firewall-cmd --permanent --add-port=6020/udp && sudo firewall-cmd --reload"
FIREWALLD = Firewall("firewalld", FirewallState.UNKNOWN, RELOADING, 6020)
MACHINE = Machine((LAN,), 6020, 6020, True, None, Firewall(), Disk("shared", 12_000_000_000, 80_000_000_000),
                  Clock(1_795_819_000.0))  # fmt: skip
ANA = MemberRow("ana", ("10.0.0.7", 6020), "supernode", False, 1, 0.0004, 1.0, True)
ME = MemberRow("me", ("0.0.0.0", 6020), "member", True, 1, None, None, True)
BO = MemberRow("bo", ("10.0.0.8", 6020), "member", False, None, 0.012, None, True)
PATH = PathFigures(0.0004, 64_000, 812, 3, 0, 4_000_000, 1_000_000, 0, 1472)
HEALTH = Health(True, (ANA, ME), PATH, Reached(True, "ana", 12.0, "no NAT"))
FACTS = Facts(MACHINE, HEALTH)
ALONE = Facts(MACHINE, Health(True, (ME._replace(role="supernode"),)))
OUTSIDE = Facts(MACHINE, target="10.0.0.7", outside="Nobody answers at 10.0.0.7:6020.")


def on_machine(**changes):
    return FACTS._replace(machine=MACHINE._replace(**changes))


def with_health(**changes):
    return FACTS._replace(health=HEALTH._replace(**changes))


def row_of(facts, check):
    """What is told of one check, and its next step."""
    (finding,) = [finding for finding in doctor.find(facts) if finding.check == check]
    return finding.told, finding.step, finding.is_trouble


def test_where_all_is_well_the_screen_says_so():
    assert doctor.lines_of(doctor.find(FACTS)) == [
        "   network   ana's, at 10.0.0.7:6020: 2 nodes, open (no key)",
        "   addresses eth0 10.0.0.8 (to the supernode and out)",
        "   port      6020 leads to this node",
        "   firewall  none found, as far as this user may look",
        "   reached   yes: ana got through, 0:12 ago",
        "   NAT       no NAT",
        "   path      0.4 ms to ana, 3 of 812 packets lost, 1472 bytes a datagram",
        "   disk      12.0 GB of 80.0 GB free for shared",
        "   clock     2026-11-27 22:36 UTC",
        "* no trouble found",
    ]


TROUBLES = [  # facts, the check that finds it, what is said, what to do
    (OUTSIDE, "network", "Nobody answers at 10.0.0.7:6020",
     "see that the program runs there, and ask for its doctor on that machine, too"),
    (with_health(is_joined=False), "network", "its supernode is silent",
     "wait: another node takes over within 15 s; else C and an address"),
    (on_machine(addresses=()), "addresses", "127.0.0.1 alone",
     "plug in a cable or join a wifi; until then only programs on it can join"),
    (on_machine(addresses=(LAN._replace(is_up=False),)), "addresses", "eth0 10.0.0.8 (no cable)",
     "plug its cable in, or switch it on"),
    (on_machine(addresses=(OwnAddress("169.254.3.4", "eth0"), OwnAddress("fe80::4", "eth1"))), "addresses",
     "eth0 169.254.3.4 (this LAN); eth1 fe80::4 (this LAN)",
     "nobody gave it an address: ask the network for one again, or look at the router"),
    (on_machine(addresses=(OwnAddress("169.254.3.4", "eth0"), DOCKER)), "addresses",
     "eth0 169.254.3.4 (this LAN); docker0 172.17.0.1 (a tunnel or container)",
     "nobody gave it an address: ask the network for one again, or look at the router"),
    (on_machine(has_port=False, own_port=6021, holder=Holder("nc", 812)), "port", "6020 is held by nc (process 812)",
     "end that program, or start all nodes with --port 6021"),
    (on_machine(has_port=False, own_port=6021, holder=Holder()), "port", "6020 is held by a program of another user",
     "who: sudo ss -ulpn sport = :6020; else start all nodes with --port 6021"),
    (on_machine(firewall=SHUT)._replace(health=HEALTH._replace(reached=None)), "firewall",
     "ufw keeps out what comes to UDP port 6020", "sudo ufw allow 6020/udp"),
    (with_health(reached=Reached(False, "bo", 75.0, "no NAT")), "reached",
     "no: bo did not get through, 1:15 ago",
     "open UDP port 6020 in this machine's firewall, or in one between (root sees more)"),
    (with_health(reached=Reached(False, "bo", 3.0, "keeps the port")), "reached",
     "no: bo did not get through, 0:03 ago",
     "have the router pass UDP port 6020 on to here; till then files go by way of ana"),
    (with_health(members=(BO, ME._replace(role="supernode")), reached=Reached(False, "bo", 3.0, "changes the port")),
     "reached", "no: bo did not get through, 0:03 ago",
     "have the router pass UDP port 6020 on to here; till then nobody can join by it"),
    (with_health(reached=Reached(False, "bo", 3.0))._replace(machine=MACHINE._replace(firewall=UFW)), "reached",
     "no: bo did not get through, 0:03 ago", "sudo ufw allow 6020/udp"),
    (with_health(reached=Reached(False, "bo", 3.0))._replace(machine=MACHINE._replace(firewall=SHUT)), "reached",
     "no: bo did not get through, 0:03 ago", "open the firewall as said above"),
    (with_health(path=PATH._replace(lost=80)), "path",
     "0.4 ms to ana, 80 of 812 packets lost, 1472 bytes a datagram",
     "many are lost: go nearer to the access point, or take a cable"),
    (with_health(path=PATH._replace(round_trip=2.1)), "path",
     "2100.0 ms to ana, 3 of 812 packets lost, 1472 bytes a datagram",
     "something fills the line: V shows what this node sends, L slows it"),
    (on_machine(disk=Disk("shared", 120_000_000, 80_000_000_000)), "disk", "120.0 MB of 80.0 GB free for shared",
     "make room there, or use a folder on another disk: --folder, or get --to"),
    (on_machine(disk=MACHINE.disk._replace(takes_files=False)), "disk",
     "12.0 GB of 80.0 GB free for shared, but no inodes", "remove some files there, however small"),
    (on_machine(disk=MACHINE.disk._replace(trouble="it cannot be written to")), "disk",
     "shared: it cannot be written to", "use a folder that you may write to: --folder, or get --to"),
    (on_machine(clock=Clock(0.0)), "clock", "1970-01-01 00:00 UTC, which cannot be",
     f"set it: {doctor.CLOCK_STEPS.get(doctor.sys.platform, doctor.CLOCK_STEP)}"),
]  # fmt: skip


@pytest.mark.parametrize("facts, check, told, step", TROUBLES, ids=[f"{row[1]}-{row[2][:30]}" for row in TROUBLES])
def test_each_trouble_has_its_next_step_in_the_line_below(facts, check, told, step):
    findings = doctor.find(facts)
    assert row_of(facts, check) == (told, step, True) and doctor.has_trouble(findings)
    lines = doctor.lines_of(findings)
    at = lines.index(f"!! {check.ljust(10)}{told}")
    assert lines[at + 1] == f"   -> {step}" and check in lines[-1]


def test_every_check_can_find_a_trouble_but_the_kind_of_nat():
    assert {row[1] for row in TROUBLES} == {finding.check for finding in doctor.find(FACTS)} - {"NAT", "firewall"} | {
        "firewall"}


@pytest.mark.parametrize("facts, check, told", [
    (ALONE, "network", "this node is the supernode: 1 node, open (no key)"),
    (ALONE._replace(check_code="4f1c"), "network", "this node is the supernode: 1 node, private (check 4f1c)"),
    (FACTS._replace(check_code="4f1c"), "network", "ana's, at 10.0.0.7:6020: 2 nodes, private (check 4f1c)"),
    (ALONE, "path", "there is no other node"),
    (ALONE, "reached", "not known: nobody else is there who could try"),
    (ALONE._replace(health=ALONE.health._replace(reached=Reached())), "reached",
     "not known: nobody else is there who could try"),
    (with_health(reached=None), "reached", "not known: nobody has tried yet"),
    (with_health(reached=Reached(True, "ana", 1.0, NatKind.UNKNOWN.value)), "NAT",
     "not known: nobody has told how this node is seen"),
    (ALONE, "NAT", "not known: nobody has told how this node is seen"),
    (ALONE._replace(health=Health(True, (ME._replace(role="supernode"), BO))), "path", "at most 12.0 ms, to bo"),
    (with_health(reached=Reached()), "reached", "not known: nobody has tried yet"),
    (with_health(reached=Reached(True, "ana", 1.0, "shows another port to each")), "NAT", "shows another port to each"),
    (with_health(members=(ANA, ME, BO))._replace(machine=MACHINE._replace(has_port=False, own_port=6021)), "port",
     "6020 is bo's, a node on this machine; this node has 6021"),
    (with_health(members=(ANA._replace(address=("10.0.0.8", 6022)), ME))._replace(  # by the door of who rules
        machine=MACHINE._replace(has_port=False, own_port=6021, holder=Holder("python3", 7), is_rulers=True)), "port",
     "6020 is ana's, a node on this machine; this node has 6021"),
    (on_machine(has_port=True, own_port=6021), "port", "6020 leads to this node; this node has 6021"),
    (on_machine(has_port=False, own_port=6021), "port", "6020 is nobody's; this node has 6021"),
    (FACTS._replace(is_visit=True), "port", "6020 is nobody's: a node could have it"),
    (on_machine(firewall=SHUT), "firewall", "ufw keeps out what comes to UDP port 6020"),  # and yet ana got in
    (on_machine(firewall=UFW._replace(state=FirewallState.OFF)), "firewall", "ufw is off, or keeps nothing out"),
    (on_machine(firewall=UFW._replace(state=FirewallState.OPEN)), "firewall", "ufw lets UDP port 6020 in"),
    (on_machine(firewall=UFW), "firewall", "ufw is on; its rules cannot be read here"),
    (on_machine(clock=Clock(1_795_819_000.0, -7200.0)), "clock",
     "2026-11-27 22:36 UTC, set by 2:00:00 since the start, unless this machine slept"),
    (with_health(path=PATH._replace(sent=8, lost=4)), "path",
     "0.4 ms to ana, 4 of 8 packets lost, 1472 bytes a datagram"),
    (with_health(path=PATH._replace(datagram_size=1200)), "path",
     "0.4 ms to ana, 3 of 812 packets lost, 1200 bytes a datagram (the least)"),
])  # fmt: skip
def test_what_is_no_trouble_is_told_without_a_step(facts, check, told):
    assert row_of(facts, check) == (told, "", False)


def test_a_firewall_that_is_on_and_not_known_to_be_shut_is_no_trouble_but_told_how_to_open():
    facts = on_machine(firewall=UFW)._replace(health=HEALTH._replace(reached=None))
    assert row_of(facts, "firewall")[1:] == ("if others cannot reach this node: sudo ufw allow 6020/udp", False)


def test_what_a_visit_at_another_port_meets_is_no_trouble_of_the_node_at_the_known_one():
    facts = with_health(reached=Reached(False, "bo", 3.0))._replace(is_visit=True)
    assert row_of(facts, "reached")[2]
    machine = MACHINE._replace(has_port=False, own_port=50123)
    assert row_of(facts._replace(machine=machine), "reached")[1:] == (
        "that is about port 50123 alone; ask D of the node that has 6020", False)


def test_every_kind_of_nat_that_a_node_may_learn_of_has_its_words():
    for kind in NatKind:
        told, _, is_trouble = row_of(with_health(reached=Reached(True, "ana", 1.0, kind.value)), "NAT")
        assert not is_trouble and (told == kind.value) == (kind is not NatKind.UNKNOWN)


def test_no_network_is_no_trouble_where_it_was_only_searched_for():
    told, step, is_trouble = row_of(Facts(MACHINE), "network")
    assert (told, is_trouble) == ("none found on this machine or the LAN", False) and "--ip" in step


def test_for_programs_of_this_machine_alone_neither_addresses_nor_firewalls_are_a_trouble():
    bare = MACHINE._replace(addresses=(), firewall=SHUT)
    assert not doctor.has_trouble(doctor.find(Facts(bare, target="127.0.0.1", outside="Nobody answers.")))
    assert doctor.has_trouble(doctor.find(Facts(bare)))


def test_of_many_addresses_some_are_shown_and_all_counted():
    many = tuple(OwnAddress(f"10.0.{i}.1", f"eth{i}") for i in range(9))
    told, _, _ = row_of(on_machine(addresses=many), "addresses")
    assert told.endswith("eth2 10.0.2.1 (this LAN); 6 more") and "eth3" not in told


# ---- the screen

WORST = Facts(
    Machine(tuple(OwnAddress(f"169.254.100.{i}", f"enp0s{i}", is_up=False) for i in range(9)), 6020, 50123, False,
            Holder("some-other-program-with-a-long-name", 1_234_567), FIREWALLD._replace(state=FirewallState.SHUT),
            Disk("/home/somebody/shared", 1, 80_000_000_000), Clock(0.0)),
    Health(False, (ANA._replace(label="a" * 32), ME), PATH._replace(round_trip=4.0, datagram_size=1200),
           Reached(False, "b" * 32, 3600.0, "keeps the port")),
)  # fmt: skip


def rows_on(lines, columns):
    """How many rows of a window the lines take."""
    return sum(-(-max(text_width(line), 1) // columns) for line in lines)


@pytest.mark.parametrize("facts", [FACTS, ALONE, OUTSIDE, WORST, *(row[0] for row in TROUBLES)])
def test_it_fits_one_screen(facts):
    lines = doctor.lines_of(doctor.find(facts), 79)
    assert rows_on(lines, 80) <= 23                     # and the prompt below
    assert all(text_width(line) < 80 for line in lines if not line.startswith("   -> "))


@pytest.mark.parametrize("facts", [FACTS, WORST])
def test_in_a_narrow_window_no_word_is_broken(facts):
    findings = doctor.find(facts)
    wide, narrow = doctor.lines_of(findings), doctor.lines_of(findings, 39)
    assert "".join("".join(narrow).split()) == "".join("".join(wide).split())
    assert {word for line in narrow for word in line.split()} >= {"supernode", "addresses", "packets", "clock"}
    assert sum(text_width(line) > 39 for line in narrow) == 0


def test_nothing_from_another_node_reaches_the_terminal_as_it_is():
    evil = "a\x1b[2J\n\u202e"
    members = (ANA._replace(label=evil), ME, BO._replace(label=evil))
    health = Health(True, members, PATH._replace(lost=800), Reached(False, evil, 1.0, evil))
    facts = FACTS._replace(health=health, outside=evil, machine=MACHINE._replace(
        addresses=(LAN._replace(name=evil),), has_port=False, holder=Holder(evil, 5), disk=Disk(evil, 1, 2)))
    for shown in (facts, facts._replace(target="10.0.0.7", health=Health())):
        lines = doctor.lines_of(doctor.find(shown))
        assert lines and all(line.isprintable() for line in lines)


# ---- for a script

KEYS = {
    "network": {"joined", "nodes", "supernode", "private", "code"},
    "addresses": {"addresses"},
    "port": {"port", "own", "holder", "pid"},
    "firewall": {"program", "state"},
    "reached": {"open", "by"},
    "NAT": {"kind"},
    "path": {"round_trip", "sent", "lost", "datagram_size"},
    "disk": {"folder", "free", "total", "takes_files"},
    "clock": {"time", "shift"},
}


@pytest.mark.parametrize("facts", [FACTS, WORST])
def test_a_script_gets_an_object_for_each_check(facts):
    objects = [json.loads(json.dumps(each)) for each in doctor.objects_of(doctor.find(facts))]
    assert [each["check"] for each in objects] == list(KEYS)
    for each in objects:
        found = set(each) - {"check", "ok", "text", "next"}
        assert found <= KEYS[each["check"]] and found, each
        assert isinstance(each["ok"], bool) and each["text"] and (each["ok"] or each["next"])


def test_the_keys_are_all_there_where_all_is_known():
    for each in doctor.objects_of(doctor.find(FACTS)):
        assert set(each) == {"check", "ok", "text", "next", *KEYS[each["check"]]}
