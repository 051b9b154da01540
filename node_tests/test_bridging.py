"""Two LANs, of which one machine is on both: who searches on the second one gets in, wherever the first node is."""

import os

import pytest

from node_tests.stage.lab import PORT, Lab, Node, content
from node_tests.stage.simulator import Conditions
from protocol.membership.overhearing import ASKED_TIMES, ASKED_WITHIN, TELL_INTERVAL, Overhearing
from protocol.messages import NOWHERE, Beyond
from protocol.results import ChatReceived, DownloadDone, Joined, Left, Outcome, SupernodeChanged
from protocol.ruling.bridging import is_bridge

ONE, TWO = "10.9.1.%d", "10.9.2.%d"


@pytest.fixture(params=[False, True], ids=["messages", "packets"])
def lab(tmp_path, request):
    made = Lab(tmp_path, 5, Conditions(latency=0.005), packets=request.param)
    yield made
    made.close()


def search(lab, name, *ips):
    """Enter at the question for the IP, on a machine with these addresses; the first one is its place."""
    os.makedirs(str(lab.path / name), exist_ok=True)
    lab.path.joinpath(name, name + ".bin").write_bytes(content(100_000, seed=ord(name[0])))
    node = Node(lab, name, 50 + len(lab.nodes), ip=ips[0], also=ips[1:])
    lab.nodes.append(node)
    node.do("start", None, PORT, lab.world.now)
    assert lab.world.run_until(lambda: node.told(Outcome), lab.world.now + 25)
    node.scan()
    return node


def test_who_is_on_the_second_lan_gets_in_by_the_member_that_is_on_both(lab):
    x = search(lab, "x", ONE % 2)
    host = search(lab, "host", ONE % 1, TWO % 1)
    lab.run(10.0)
    assert [x.supernode_label(), host.supernode_label()] == ["x", "x"]
    lab.world.cut([ONE % 2], [TWO % 2])
    began = lab.world.now
    y = search(lab, "y", TWO % 2)
    assert y.told(Outcome)[0].kind == "joined" and lab.world.now - began < 10.0
    lab.run(5.0)
    assert [node.supernode_label() for node in (x, host, y)] == ["host"] * 3
    assert len({node.peer.network_id for node in (x, host, y)}) == 1
    y.do("say", "here I am", lab.world.now)
    lab.run(1.0)
    assert [[event.text for event in node.told(ChatReceived)] for node in (x, host, y)] == [["here I am"]] * 3
    done = x.fetched("y.bin")
    assert isinstance(done, DownloadDone) and done.by_way_of == "host"


def test_all_read_that_who_hands_over_to_the_bridge_stays(lab):
    x = search(lab, "x", ONE % 2)
    host, bo = search(lab, "host", ONE % 1, TWO % 1), search(lab, "bo", ONE % 3)
    lab.run(10.0)
    lab.world.cut([ONE % 2, ONE % 3], [TWO % 2])
    search(lab, "y", TWO % 2)
    lab.run(20.0)
    told = [node.told((SupernodeChanged, Left, Joined))[-2:] for node in (host, bo, x)]
    assert told == [
        [SupernodeChanged("x", "host", True, None, is_staying=True), Joined("y", 4)],
        [SupernodeChanged("x", "host", False, None, is_staying=True), Joined("y", 4)],
        [SupernodeChanged("x", "host", False, None, is_merger=True, is_staying=True), Joined("y", 4)],
    ]


def test_nobody_yields_where_all_get_to_the_supernode(lab):
    x = search(lab, "x", ONE % 2)
    search(lab, "host", ONE % 1, TWO % 1)
    lab.run(10.0)
    search(lab, "z", ONE % 3)
    search(lab, "w", TWO % 3)  # a router leads there
    lab.run(20.0)
    assert [node.supernode_label() for node in lab.nodes] == ["x"] * 4 and x.peer.is_supernode


def test_a_member_that_is_on_no_other_lan_or_was_not_reached_gets_no_office_by_saying_so(lab):
    x, bo = search(lab, "x", ONE % 2), search(lab, "bo", ONE % 3)
    lab.world.firewall(ONE % 1)
    host = search(lab, "host", ONE % 1, TWO % 1)
    lab.run(15.0)
    for node in (bo, host):
        node.peer.membership.send_to_supernode(Beyond((TWO % 2, PORT)))
    lab.run(5.0)
    assert [node.supernode_label() for node in lab.nodes] == ["x"] * 3 and x.peer.is_supernode


@pytest.mark.parametrize(
    ("own", "other", "newcomer", "is_it"),
    [
        ([ONE % 2], [ONE % 1, TWO % 1], TWO % 2, True),
        ([ONE % 2], [ONE % 1, TWO % 1], ONE % 3, False),  # it is on our LAN
        ([ONE % 2], [ONE % 1, TWO % 1], "10.9.3.2", False),  # on none of both
        ([ONE % 2, "10.8.0.2"], [ONE % 1, TWO % 1], TWO % 2, False),  # those at 10.8 would be lost
        ([ONE % 2, TWO % 9], [ONE % 1, TWO % 1], TWO % 2, False),
        ([ONE % 2], [TWO % 1], TWO % 2, False),
        ([], [ONE % 1, TWO % 1], TWO % 2, False),
    ],
)
def test_a_bridge_is_on_all_our_lans_and_on_that_of_the_newcomer(own, other, newcomer, is_it):
    places = [[(ip, PORT) for ip in ips] for ips in (own, other)]
    assert is_bridge(*places, (newcomer, PORT)) is is_it
    assert not (is_it and is_bridge(*places[::-1], (newcomer, PORT))), "never both ways"


class Member:
    is_ruler, supernode_address = False, (ONE % 2, PORT)

    def __init__(self):
        self.told = []
        self.overhearing = Overhearing(self, self, lambda: [ONE % 1, TWO % 1])

    def send_to_supernode(self, message):
        self.told.append(message)

    def ask(self, ip, count, every, now=0.0):
        for number in range(count):
            self.overhearing.on_question((ip, PORT), now + number * every)


def test_only_who_asks_on_and_on_from_another_lan_is_told_of_and_not_often():
    member = Member()
    member.ask(TWO % 2, ASKED_TIMES - 1, 0.5)
    member.ask(ONE % 3, 50, 0.5)
    member.ask("192.0.2.7", 50, 0.5)
    member.ask(TWO % 4, 50, ASKED_WITHIN)
    assert member.told == []
    member.ask(TWO % 3, 100, 0.1, 300.0)
    assert member.told == [Beyond((TWO % 3, PORT))] * (1 + int(10.0 / TELL_INTERVAL) - 1)
    member.supernode_address = NOWHERE
    member.ask(TWO % 5, 20, 0.5, 400.0)
    assert len(member.told) == 2
