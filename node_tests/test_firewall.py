"""A host that lets in answers only: it finds the network, is fetched from, and its person learns what to do."""

import os

import pytest

from node_tests.stage.lab import PORT, Lab, Node, content
from node_tests.stage.nat import MAPPING_TIME
from node_tests.stage.simulator import Conditions
from prompt.firewall import TOOLS, how_to_open, system_of
from prompt.lines import line_for
from protocol.membership.searching import SEARCH_TIME
from protocol.membership.sweep import LANS_MAX, PER_SECOND, Sweep, lans_of, neighbours_of
from protocol.results import DownloadDone, NatKind, Outcome, Unreachable
from protocol.ruling.neighbours import SWEEP_AGAIN
from protocol.ruling.reaching import ASKED_TIME, TRY_TIME

TIME = 2 * (ASKED_TIME + TRY_TIME) + 2.0


@pytest.fixture(params=[False, True], ids=["messages", "packets"])
def lab(tmp_path, request):
    made = Lab(tmp_path, 5, Conditions(latency=0.005), packets=request.param)
    yield made
    made.close()


def search(lab, name, number):
    """Enter at the question for the IP; how it ended."""
    os.makedirs(str(lab.path / name))
    node = Node(lab, name, number)
    lab.nodes.append(node)
    node.do("start", None, PORT, lab.world.now)
    assert lab.world.run_until(lambda: node.told(Outcome), lab.world.now + 20)
    return node


def test_a_search_finds_the_network_though_no_answer_to_a_broadcast_comes_in(lab):
    ana = lab.node("ana")
    lab.world.firewall("10.0.0.9")
    began = lab.world.now
    dan = search(lab, "dan", 9)
    assert dan.told(Outcome)[0].kind == "joined" and dan.peer.network_id == ana.peer.network_id
    assert lab.world.now - began < 3.0


def test_a_first_node_that_lets_nobody_in_meets_the_network_that_was_founded_beside_it(lab):
    lab.world.firewall("10.0.0.1")
    ana = search(lab, "ana", 1)
    lab.run(SWEEP_AGAIN + MAPPING_TIME + 4.0)  # what it asked of others opens its firewall for a while
    cy = search(lab, "cy", 3)
    assert [node.told(Outcome)[0].kind for node in (ana, cy)] == ["supernode"] * 2
    di = search(lab, "di", 4)
    assert di.told(Outcome)[0].kind == "joined"
    lab.run(4 * SWEEP_AGAIN)
    assert [node.supernode_label() for node in (ana, cy, di)] == ["cy"] * 3
    lab.run(TIME)
    told = [line_for(event, "") for event in ana.told(Unreachable)]
    assert len(told) == 1
    assert told[0].startswith("* others cannot reach this machine: a firewall lets in answers only (tried by ")
    assert "what you share goes by way of cy. To open it: " in told[0] and "6020" in told[0]


def test_who_lets_in_answers_only_is_fetched_from_and_fetches(lab):
    lab.node("ana"), lab.node("bo", shared={"bo.bin": content(300_000, seed=1)})
    lab.world.firewall("10.0.0.3")
    cy = lab.node("cy", shared={"cy.bin": content(300_000, seed=2)})
    lab.run(TIME)
    lab.run(60.0)  # the holes of what was said before are closed
    done = lab.nodes[1].fetched("cy.bin")
    assert isinstance(done, DownloadDone) and done.seconds < 3.0
    assert isinstance(cy.fetched("bo.bin"), DownloadDone)
    assert len(cy.told(Unreachable)) == 1 and not lab.nodes[1].told(Unreachable)


def test_a_first_node_that_shuts_its_door_is_told_that_nobody_more_can_join(lab):
    ana, _ = lab.node("ana"), lab.node("bo")
    lab.world.firewall("10.0.0.1")
    ana.do("on_joined", lab.world.now)
    lab.run(TIME)
    (event,) = ana.told(Unreachable)
    assert "(tried by bo); nobody more can join here. To open it: " in line_for(event, "")


# ---- the neighbours one by one


def test_each_neighbour_of_a_lan_is_asked_once_and_no_faster_than_the_pace():
    sweep, now, asked = Sweep(["10.0.0.7"], PORT, 5.0), 5.0, []
    while sweep.next_deadline() < 60.0:
        now = max(now, sweep.next_deadline())
        due = sweep.due(now)
        assert len(due) <= PER_SECOND / 20 and sweep.due(now) == []
        asked += due
    assert sorted(asked) == sorted({("10.0.0.%d" % host, PORT) for host in range(1, 255)} - {("10.0.0.7", PORT)})
    assert asked[0] == ("10.0.0.8", PORT) and now - 5.0 < SEARCH_TIME
    assert now - 5.0 >= len(asked) / PER_SECOND - 0.05


def test_only_lans_by_which_this_node_is_reached_are_asked():
    own = ["192.168.1.5", "203.0.113.9", "10.1.2.3", "172.17.0.1", "fd00::1"]
    assert lans_of("0.0.0.0", own) == ["192.168.1.5", "10.1.2.3"][:LANS_MAX]
    assert lans_of("10.1.2.3", own) == ["10.1.2.3"]
    assert lans_of("127.0.0.1", own) == lans_of("203.0.113.9", own) == []
    assert len(neighbours_of("10.0.0.255")) == 254 and len(neighbours_of("10.0.0.1")) == 253


def test_nobody_is_asked_one_by_one_where_somebody_answers_by_broadcast(lab):
    lab.node("ana")
    sent = []
    lone = lab.world.networks
    dan_at = ("10.0.0.9", PORT)
    os.makedirs(str(lab.path / "dan"))
    dan = Node(lab, "dan", 9)
    lab.nodes.append(dan)
    send = dan.network.send_lone
    dan.network.send_lone = lambda address, message: (sent.append(address), send(address, message))
    dan.do("start", None, PORT, lab.world.now)
    assert lab.world.run_until(lambda: dan.told(Outcome), lab.world.now + 20)
    assert dan_at in lone and dan.told(Outcome)[0].kind == "joined"
    assert len({address for address in sent if address[0].startswith("10.0.0.")}) < 10


# ---- what the person types


@pytest.mark.parametrize(
    ("platform", "tools", "system", "command"),
    [
        ("linux", ["ufw"], "ufw", "sudo ufw allow 6021/udp"),
        ("linux", ["firewalld"], "firewalld", "--permanent --add-port=6021/udp && sudo firewall-cmd --reload"),
        ("linux", [], "iptables", "sudo iptables -I INPUT -p udp --dport 6021 -j ACCEPT"),
        ("win32", [], "windows", "dir=in action=allow protocol=UDP localport=6021"),
        ("darwin", [], "macos", "socketfilterfw --add /usr/bin/python3 --unblockapp /usr/bin/python3"),
        ("sunos5", [], "", "let UDP port 6021 in"),
    ],
)
def test_the_command_that_opens_the_port_is_that_of_the_system(platform, tools, system, command):
    assert system_of(platform, lambda path: path in [TOOLS[tool] for tool in tools]) == system
    assert command in how_to_open(6021, system, "/usr/bin/python3")


def test_who_shows_another_port_to_each_is_told_what_that_means():
    line = line_for(Unreachable("", "ana", False, 6020, NatKind.SYMMETRIC), "")
    assert line == "* the router here shows another port to each, so what cannot come directly goes by way of ana"
