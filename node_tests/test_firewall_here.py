"""What a firewall's own words say of a port, as each system's programs print them; and who has a port."""

from __future__ import annotations

import os
import socket
import sys
from typing import NamedTuple

import pytest

from node_tests.stage.running import PATIENCE
from prompt import machine
from protocol.facts import Firewall, FirewallState, Holder
from sockets import interfaces, leading
from sockets.firewall import found
from sockets.holders import holder_of
from sockets.interfaces import Interface

NONE, OFF, UNKNOWN = FirewallState.NONE, FirewallState.OFF, FirewallState.UNKNOWN
OPEN, SHUT = FirewallState.OPEN, FirewallState.SHUT
CONF, RULES, DEFAULT = "/etc/ufw/ufw.conf", "/etc/ufw/user.rules", "/etc/default/ufw"
ON = {CONF: "# on\nENABLED=yes\nLOGLEVEL=low\n", DEFAULT: 'DEFAULT_INPUT_POLICY="DROP"\n'}
TUPLE = "*filter\n### RULES ###\n\n### tuple ### {} 0.0.0.0/0 any {} in\n-A ufw-user-input -p udp ...\n"
STATE, QUERY = ("firewall-cmd", "--state"), ("firewall-cmd", "--query-port=6020/udp")
IPTABLES, NFT = ("iptables", "-S", "INPUT"), ("nft", "list", "ruleset")
NETSH, MAC = ("netsh", "advfirewall", "show", "currentprofile"), ("socketfilterfw", "--getglobalstate")


def looked(platform, files=(), told=()):
    """What is found where files hold these texts, and programs (by name) print those; all else is absent."""
    files, told = dict(files), dict(told)
    return found(files.get, lambda words: told.get((os.path.basename(words[0]), *words[1:])), 6020, platform)


def test_where_nothing_is_found_and_nothing_may_be_read_there_is_no_trouble():
    for platform in ("linux", "darwin", "win32", "freebsd14"):
        assert looked(platform) == Firewall(port=6020)


# ---- Linux


@pytest.mark.parametrize("files, state", [
    ({CONF: "ENABLED=no\n"}, OFF),
    (ON, UNKNOWN),  # the rules are root's
    ({**ON, RULES: ""}, SHUT),
    ({**ON, RULES: TUPLE.format("allow udp 6020", "0.0.0.0/0")}, OPEN),
    ({**ON, RULES: TUPLE.format("limit any 6000:6100", "0.0.0.0/0")}, OPEN),
    ({**ON, RULES: TUPLE.format("allow tcp 6020", "0.0.0.0/0")}, SHUT),
    ({**ON, RULES: TUPLE.format("allow udp 6021", "0.0.0.0/0")}, SHUT),
    ({**ON, RULES: TUPLE.format("deny udp 6020", "0.0.0.0/0")}, SHUT),
    ({**ON, RULES: TUPLE.format("allow udp 6020", "10.0.0.0/8")}, UNKNOWN),  # some may come
    ({**ON, RULES: "", DEFAULT: 'DEFAULT_INPUT_POLICY="ACCEPT"'}, OPEN),
])  # fmt: skip
def test_ufw(files, state):
    assert looked("linux", files) == Firewall("ufw", state, "sudo ufw allow 6020/udp", 6020)


@pytest.mark.parametrize("told, state", [
    ({STATE: "running\n", QUERY: "yes\n"}, OPEN),
    ({STATE: "running\n"}, UNKNOWN),
    ({STATE: "not running\n"}, NONE),
])  # fmt: skip
def test_firewalld(told, state):
    wall = looked("linux", told=told)
    assert wall.state is state and (state is NONE or "--add-port=6020/udp" in wall.remedy)


@pytest.mark.parametrize("rules, state", [
    ("-P INPUT ACCEPT", OFF),
    ("-P INPUT DROP", SHUT),
    ("-P INPUT DROP\n-A INPUT -p udp -m udp --dport 6020 -j ACCEPT", OPEN),
    ("-P INPUT DROP\n-A INPUT -p udp -m udp --dport 6000:6030 -j ACCEPT", OPEN),
    ("-P INPUT DROP\n-A INPUT -p udp -m multiport --dports 53,6020 -j ACCEPT", OPEN),
    ("-P INPUT DROP\n-A INPUT -p udp -m udp --dport 6021 -j ACCEPT", SHUT),
    ("-P INPUT DROP\n-A INPUT -p tcp -m tcp --dport 6020 -j ACCEPT", SHUT),
    ("-P INPUT DROP\n-A INPUT -i lo -j ACCEPT\n-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT", SHUT),
    ("-P INPUT DROP\n-A INPUT -m state --state NEW -j ACCEPT", OPEN),
    ("-P INPUT DROP\n-A INPUT -s 10.0.0.0/8 -j ACCEPT", UNKNOWN),
    ("-P INPUT DROP\n-A INPUT -j LOG\n-A INPUT -j ufw-before-input", UNKNOWN),
    ("-P INPUT ACCEPT\n-A INPUT -j REJECT --reject-with icmp-port-unreachable", SHUT),
    ("-P INPUT ACCEPT\n-A INPUT -p udp -m udp --dport 53 -j DROP", OPEN),
    ("-P INPUT ACCEPT\n-A INPUT -m conntrack --ctstate INVALID -j DROP", OPEN),
])  # fmt: skip
def test_iptables_from_the_top(rules, state):
    wall = looked("linux", told={IPTABLES: rules + "\n"})
    assert (wall.program, wall.state) == ("iptables", state)
    assert wall.remedy == "sudo iptables -I INPUT -p udp --dport 6020 -j ACCEPT"


def nft(policy, *rules, hook="input"):
    body = "".join(f"\t\t{rule}\n" for rule in rules)
    return (f"table inet filter {{\n\tset s {{\n\t\ttype ipv4_addr\n\t}}\n\n\tchain incoming {{\n"
            f"\t\ttype filter hook {hook} priority filter; policy {policy};\n{body}\t}}\n}}\n")  # fmt: skip


@pytest.mark.parametrize("told, state", [
    (nft("accept"), NONE),
    (nft("drop", hook="forward"), NONE),
    (nft("drop"), SHUT),
    (nft("drop", 'iifname "lo" accept', "ct state established,related accept", "tcp dport 22 accept"), SHUT),
    (nft("drop", "ct state { established, related } counter packets 3 bytes 120 accept"), SHUT),
    (nft("drop", "udp dport 6020 accept"), OPEN),
    (nft("drop", "udp dport { 53, 6000-6030 } counter packets 0 bytes 0 accept"), OPEN),
    (nft("drop", "udp dport 6021 accept"), SHUT),
    (nft("drop", "ip saddr 10.0.0.0/8 accept"), UNKNOWN),
    (nft("drop", "jump input_wan"), UNKNOWN),
    (nft("accept", "counter packets 0 bytes 0 drop"), SHUT),
    (nft("accept", "udp dport 6020 reject with icmp port-unreachable"), SHUT),
    (nft("accept", "ct state invalid drop"), OPEN),
    (nft("accept", "accept") + nft("drop"), SHUT),  # what one chain lets in another may throw away
])  # fmt: skip
def test_nftables_from_the_top(told, state):
    wall = looked("linux", told={NFT: told})
    assert wall.state is state
    if state is not NONE:
        assert wall.remedy == "sudo nft insert rule inet filter incoming udp dport 6020 accept"


def test_of_several_the_one_that_keeps_the_port_out_is_named():
    files = {**ON, RULES: TUPLE.format("allow udp 6020", "0.0.0.0/0")}
    assert looked("linux", files, {IPTABLES: "-P INPUT ACCEPT\n"}).program == "ufw"
    assert looked("linux", files, {NFT: nft("drop")}).program == "nftables"
    assert looked("linux", {CONF: "ENABLED=no"}, {STATE: "running"}).program == "firewalld"


# ---- elsewhere


@pytest.mark.parametrize("text, state", [
    ("State                                 ON\nFirewall Policy      BlockInbound,AllowOutbound\n", UNKNOWN),
    ("Status                                EIN\nRichtlinie           BlockInbound,AllowOutbound\n", UNKNOWN),
    ("State                                 OFF\nFirewall Policy      BlockInbound,AllowOutbound\n", OFF),
    ("State                                 ON\nFirewall Policy      AllowInbound,AllowOutbound\n", OFF),
    ("State                                 ON\nFirewall Policy      BlockInboundAlways,AllowOutbound\n", SHUT),
])  # fmt: skip
def test_windows(text, state):
    wall = looked("win32", told={NETSH: text})
    assert (wall.program, wall.state) == ("Windows Defender", state) and wall.remedy.endswith("localport=6020")


@pytest.mark.parametrize("number, state", [(0, OFF), (1, UNKNOWN), (2, SHUT)])
def test_macos(number, state):
    wall = looked("darwin", told={MAC: f"Firewall is enabled. (State = {number})\n"})
    assert wall.state is state and "--unblockapp" in wall.remedy


# ---- who has a port


def test_a_program_of_this_user_is_named_and_a_free_port_is_nobodys():
    if not sys.platform.startswith("linux"):
        pytest.skip("/proc is Linux's")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        holder = holder_of(machine.read, machine.runner(), port)
        assert holder is not None and holder.pid == os.getpid() and holder.name
    assert holder_of(machine.read, machine.runner(), port) is None


def test_of_another_users_program_is_known_that_it_has_the_port():
    row = "  12: 00000000:1784 00000000:0000 07 00000000:00000000 00:00000000 00000000  0  0 99999999999 2 0 0\n"
    files = {"/proc/net/udp": "  sl  local_address\n" + row}
    assert holder_of(files.get, lambda words: None, 6020, "linux") == Holder()
    assert holder_of(files.get, lambda words: None, 6021, "linux") is None


def test_windows_and_macos_are_asked_by_their_programs():
    told = {
        "netstat": "  UDP    0.0.0.0:60200     *:*      4\n  UDP    0.0.0.0:6020      *:*      812\n",
        "tasklist": '"nc.exe","812","Console","1","3,000 K"\n',
        "lsof": "p812\ncnc\nf5\n",
    }
    for platform, name in (("win32", "nc.exe"), ("darwin", "nc")):
        assert holder_of(lambda path: None, lambda words: told.get(words[0]), 6020, platform) == Holder(name, 812)
        assert holder_of(lambda path: None, lambda words: None, 6020, platform) is None


# ---- the doors


def test_a_program_that_is_absent_fails_or_lasts_gives_nothing(monkeypatch):
    monkeypatch.setattr(machine, "RUN_SECONDS", PATIENCE)  # the machine may be busy with other things
    run = machine.runner(seconds=3 * PATIENCE)
    assert run([sys.executable, "-c", "print('here')"]) == "here\n"
    assert run([sys.executable, "-c", "print('here'); raise SystemExit(1)"]) is None
    assert run(["no-such-program-anywhere"]) is None
    times = iter([0.0, 3.9999, 5.0])
    late = machine.runner(lambda: next(times), 4.0)
    assert late([sys.executable, "-c", "import time; time.sleep(60)"]) is None  # cut off
    assert late([sys.executable, "-c", "print('here')"]) is None  # not begun any more


def test_a_file_that_cannot_be_read_gives_nothing(tmp_path):
    (tmp_path / "there").write_text("text")
    assert machine.read(str(tmp_path / "there")) == "text"
    assert machine.read(str(tmp_path / "absent")) is None and machine.read(str(tmp_path)) is None


# ---- which address leads where


def test_each_address_says_where_it_leads(monkeypatch):
    found = [Interface("lo", "127.0.0.1", ""), Interface("eth0", "10.9.1.1", ""), Interface("tun0", "10.8.0.2", "")]
    ways = {interfaces.ANY_ROUTE: "10.8.0.2", "10.9.1.7": "10.9.1.1"}
    monkeypatch.setattr(leading, "with_names", lambda: found)
    monkeypatch.setattr(leading, "address_towards", ways.get)
    monkeypatch.setattr(leading, "_is_up", lambda name: name != "eth0")
    monkeypatch.setattr(leading.groups, "links", list)
    eth, tun = leading.addresses("10.9.1.7")
    assert (eth.ip, eth.is_up, eth.is_detour, eth.leads_out, eth.leads_to_network) == ("10.9.1.1", False, False, False,
                                                                                      True)  # fmt: skip
    assert (tun.ip, tun.is_up, tun.is_detour, tun.leads_out, tun.leads_to_network) == ("10.8.0.2", True, True, True,
                                                                                      False)  # fmt: skip
    assert not leading.addresses()[0].leads_to_network


def test_addresses_of_ipv6_are_told_behind_those_of_ipv4(monkeypatch):
    class Link(NamedTuple):
        name: str
        ip: str
        own: str

    six = [Link("tun0", "fd08::2", "fe80::8%tun0"), Link("eth0", "fd00::3", "fe80::3%eth0"),
           Link("eth1", "", "fe80::4%eth1"), Link("wlan0", "", "fe80::5%wlan0")]
    monkeypatch.setattr(leading, "with_names", lambda: [Interface("wlan0", "10.9.1.1", "")])
    monkeypatch.setattr(leading, "address_towards", {interfaces.ANY_ROUTE_OF_SIX: "fd00::3"}.get)
    monkeypatch.setattr(leading, "_is_up", lambda name: True)
    monkeypatch.setattr(leading.groups, "links", lambda: six)
    told = [(each.name, each.ip, each.leads_out) for each in leading.addresses()]
    assert told == [("wlan0", "10.9.1.1", False), ("eth0", "fd00::3", True), ("eth1", "fe80::4", False),
                    ("tun0", "fd08::2", False)]  # fmt: skip
