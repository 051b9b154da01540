"""Nodes behind home routers, in the simulator: the boxes themselves (RFC 4787), and who reaches whom through them.

    python node_tests/test_nat.py nat 7          replays one random story and prints what everybody is told
    python node_tests/test_nat.py nat 0-999      runs many, and tells which fail
"""

import itertools
import os
import random
import sys

if __name__ == "__main__":
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import pytest
import test_network

from node_tests.stage.amounts import amount
from node_tests.stage.lab import PORT, Lab, Node, content
from node_tests.stage.nat import MAPPING_TIME, Homes, NatBox, NatKind
from node_tests.stage.simulator import Conditions
from node_tests.stage.usage import play_seeds
from prompt.lines import member_cells
from protocol.exchange.givers import CALL_PATIENCE, KNOCK_PATIENCE, SILENT_PATIENCE
from protocol.exchange.sources import UNREACHED_TIME
from protocol.messages import NOWHERE
from protocol.results import ChatReceived, DownloadDone, Notice, Outcome, Stopped, SupernodeChanged
from protocol.ruling.reaching import ASKED_TIME, TRY_TIME

INSIDE, OUTSIDE = ("192.168.1.2", 6020), "198.51.100.2"
UNREACHABLE = (
    "The network is there, but this machine cannot reach its supernode at 10.0.0.1:6020. "
    "Let the first node be one that all can reach."
)
WAITING_FOR_PUB = "pub is gone and nobody here can be reached by all; waiting for pub"
TIME_TO_TRY = 2 * (ASKED_TIME + TRY_TIME) + 2.0
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


# ---- stories: a public supernode, bo and di behind one router, cy behind another, pam public


HOSTS = {"pub": PUBLIC[0], "bo": "192.168.1.2", "di": "192.168.1.3", "cy": "192.168.2.2", "pam": "11.4.0.2"}
PAIRS = list(itertools.permutations(HOSTS, 2))
SIZE = 300_000


class Internet:
    """Whole nodes with routers between them; each shares a file for each other one."""

    def __init__(self, path, kinds, outside=("11.2.0.2", "11.3.0.2"), names=tuple(HOSTS), packets=True, seed=3):
        self.lab = Lab(path, seed, Conditions(latency=0.015), packets)
        self.world = self.lab.world
        self.boxes = [
            self.world.nat(outside[0], ["192.168.1.2", "192.168.1.3"], kinds[0], keeps_ports=False),
            self.world.nat(outside[1], ["192.168.2.2"], kinds[1], keeps_ports=False),
        ]
        self.nodes = {}
        for name in names:
            own = [(at, pair) for at, pair in enumerate(PAIRS) if pair[0] == name]
            shared = {"%s-for-%s.bin" % pair: content(SIZE, seed=at) for at, pair in own}
            self.nodes[name] = self.lab.node(name, ip=HOSTS[name], shared=shared)
        self.lab.run(1.0)

    def again(self, name):
        """It ended, and is started again in its folder."""
        return self.start(name, (HOSTS[name], PORT))

    def start(self, name, target):
        """It is started later than the others, with that address or, None, with Enter."""
        node = self.nodes[name] = Node(self.lab, name, 20 + len(self.lab.nodes), ip=HOSTS[name])
        self.lab.nodes.append(node)
        node.do("start", target, PORT, self.world.now)
        assert self.world.run_until(lambda: node.told(Outcome), self.world.now + 10)
        node.scan()
        return node

    def fetched(self, who, source):
        return self.nodes[who].fetched("%s-for-%s.bin" % (source, who), within=40)

    def place_of(self, who, other):
        """Where `who` reaches `other`."""
        return self.nodes[who].peer.membership.ways.place_of(self.nodes[other].peer.node_id)


@pytest.fixture
def internet(tmp_path):
    made = []

    def make(*args, **how):
        made.append(Internet(tmp_path, *args, **how))
        return made[-1]

    yield make
    for each in made:
        each.lab.close()


@pytest.mark.parametrize("kind", [NatKind.FULL_CONE, NatKind.PORT_RESTRICTED])
def test_every_pair_fetches_directly_through_routers_that_keep_one_port(internet, kind):
    net = internet((kind, kind))
    for who, source in PAIRS:
        done = net.fetched(who, source)
        assert isinstance(done, DownloadDone), (who, source, done)
        assert done.sources == (source,), (who, source, done)


def test_two_behind_one_router_meet_at_their_inside_addresses(internet):
    net = internet((NatKind.PORT_RESTRICTED, NatKind.PORT_RESTRICTED))
    assert isinstance(net.fetched("bo", "di"), DownloadDone)
    assert net.place_of("bo", "di") == ("192.168.1.3", 6020)
    assert net.place_of("di", "bo") == ("192.168.1.2", 6020)


def test_a_call_that_goes_to_the_wrong_place_is_made_anew_where_the_member_answers(internet):
    """Both boxes are in the supernode's /16: their addresses may be dialled at once, and one of them leads nowhere."""
    net = internet((NatKind.PORT_RESTRICTED, NatKind.PORT_RESTRICTED), outside=("203.0.1.2", "203.0.2.2"))
    for who, source in (("bo", "di"), ("cy", "bo"), ("di", "cy")):
        view = net.nodes[who].peer.membership._view
        assert view.place_of(net.nodes[source].peer.node_id)[0].startswith("203.0.")
        done = net.fetched(who, source)
        assert isinstance(done, DownloadDone) and done.sources == (source,) and done.seconds < 3.0


@pytest.mark.parametrize("one", ["pam", "pub"])
@pytest.mark.parametrize("is_first", [True, False])
def test_behind_routers_that_change_ports_those_still_meet_of_whom_one_is_open_or_a_neighbour(internet, one, is_first):
    net = internet((NatKind.SYMMETRIC, NatKind.SYMMETRIC))
    for pair in ((one, "cy"), ("bo", "di")):
        who, source = pair if is_first else pair[::-1]
        done = net.fetched(who, source)
        assert isinstance(done, DownloadDone) and done.sources == (source,)


def test_one_behind_a_changing_router_and_one_behind_a_full_cone_meet_where_the_first_knocks_from(internet):
    net = internet((NatKind.SYMMETRIC, NatKind.FULL_CONE))
    for who, source in (("bo", "cy"), ("cy", "di")):
        done = net.fetched(who, source)
        assert isinstance(done, DownloadDone) and done.sources == (source,)


@pytest.mark.parametrize("mesh", [True, False], ids=["mesh on", "mesh off"])
def test_those_who_cannot_meet_fetch_by_way_of_the_supernode_which_begins_while_they_still_try(internet, mesh):
    net = internet((NatKind.SYMMETRIC, NatKind.SYMMETRIC))
    for who, source in (("bo", "cy"), ("cy", "di")):
        net.nodes[who].do("set_mesh", mesh, net.world.now)
        done = net.fetched(who, source)
        assert isinstance(done, DownloadDone) and (done.sources, done.by_way_of) == ((source,), "pub")
        assert done.seconds < 3.0, done


def test_a_member_that_was_called_in_vain_is_not_waited_for_again_by_the_next_file_nor_for_ever(internet):
    net = internet((NatKind.SYMMETRIC, NatKind.SYMMETRIC))
    bo, cy = net.nodes["bo"], net.nodes["cy"]
    for number in range(2):
        cy.put(f"more{number}.bin", content(100_000, seed=90 + number))
    cy.scan()
    net.lab.run(1.0)
    first, second = bo.fetched("more0.bin"), bo.fetched("more1.bin")
    assert [each.by_way_of for each in (first, second)] == ["pub", "pub"]
    assert first.seconds > CALL_PATIENCE > 0.5 > second.seconds
    assert first.seconds < KNOCK_PATIENCE + 0.7, "asked for elsewhere at once, not a tick later"
    links = bo.peer.fetching.links
    assert links.is_unreached(cy.peer.node_id, net.world.now)
    assert not links.is_unreached(cy.peer.node_id, net.world.now + UNREACHED_TIME)


def test_w_tells_of_each_member_how_what_it_has_comes_and_nothing_of_whom_nobody_has_called(internet):
    net = internet((NatKind.SYMMETRIC, NatKind.SYMMETRIC))
    bo = net.nodes["bo"]
    ways = {row.label: row.way for row in bo.peer.members(net.world.now)}
    assert ways == {"pub": "direct", "bo": "", "di": ways["di"], "cy": "", "pam": ways["pam"]}
    for source in ("cy", "pam"):
        assert isinstance(net.fetched("bo", source), DownloadDone)
    ways = {row.label: row.way for row in bo.peer.members(net.world.now)}
    assert (ways["cy"], ways["pam"]) == ("by way of pub: it did not answer", "direct")
    bo.do("set_mesh", False, net.world.now)
    net.lab.run(30.0)
    ways = {row.label: row.way for row in bo.peer.members(net.world.now)}
    assert (ways["pub"], ways["cy"], ways["pam"]) == ("direct", "by way of pub: mesh off", "by way of pub: mesh off")
    assert {row.way for row in net.nodes["pub"].peer.members(net.world.now)} == {"", "direct"}


def test_a_folder_of_many_files_waits_once_for_who_cannot_be_reached(internet):
    net = internet((NatKind.SYMMETRIC, NatKind.SYMMETRIC))
    bo, cy = net.nodes["bo"], net.nodes["cy"]
    for number in range(6):
        cy.put(f"photos/p{number}.jpg", content(300_000, seed=70 + number))
    cy.scan()
    net.lab.run(1.0)
    done = bo.fetched("photos")
    assert isinstance(done, DownloadDone) and done.seconds < 2 * CALL_PATIENCE + 1.5
    assert all(bo.read(f"photos/p{number}.jpg") == content(300_000, seed=70 + number) for number in range(6))


def test_who_answers_late_gives_directly_from_then_on(tmp_path):
    """A firewall lets bo's answers through after five seconds; meanwhile the supernode has begun to pass it on."""
    lab = Lab(tmp_path, 4, Conditions(latency=0.01))
    ana, bo = lab.node("ana"), lab.node("bo", shared={"big.bin": content(4_000_000)}, disk_delay=1.0)
    cy = lab.node("cy")
    lab.world.cut([bo.ip], [cy.ip])
    assert cy.fetch("big.bin").kind == "started"
    lab.run(CALL_PATIENCE + 1.0)
    assert [fetch.wish for fetch in ana.peer.fetching.fetches.values()] == [None]
    lab.world.heal()
    assert lab.world.run_until(lambda: cy.told((DownloadDone, Stopped)), lab.world.now + 300)
    assert cy.told(DownloadDone) and cy.read("big.bin") == content(4_000_000)
    lab.close()


def test_where_the_way_is_cut_in_mid_transfer_it_goes_on_by_way_of_the_supernode(tmp_path):
    lab = Lab(tmp_path, 4, Conditions(latency=0.005, rate=1e6), packets=True)
    _, bo = lab.node("ana"), lab.node("bo", shared={"big.bin": content(4_000_000)})
    cy = lab.node("cy")
    assert cy.fetch("big.bin").kind == "started"
    lab.run(1.5)
    assert 0 < cy.row().verified < 4_000_000
    lab.world.cut([bo.ip], [cy.ip])
    assert lab.world.run_until(lambda: cy.told((DownloadDone, Stopped)), lab.world.now + 60)
    (done,) = cy.told((DownloadDone, Stopped))
    assert isinstance(done, DownloadDone) and done.by_way_of == "ana" and done.seconds < 4.0 + SILENT_PATIENCE + 8.0
    assert cy.read("big.bin") == content(4_000_000)
    lab.close()


def test_who_hears_members_but_cannot_reach_their_supernode_is_told_so(tmp_path):
    """Two LANs, of which only bo is in both."""
    lab = Lab(tmp_path, 3)
    ana, _ = lab.node("ana"), lab.node("bo")
    lab.world.cut([ana.ip], ["10.0.0.9"])
    os.makedirs(str(tmp_path / "dan"))
    dan = Node(lab, "dan", 9)
    dan.do("start", None, PORT, lab.world.now)
    assert lab.world.run_until(lambda: dan.told(Outcome), lab.world.now + 60)
    assert [(outcome.kind, outcome.text) for outcome in dan.told(Outcome)] == [("refused", UNREACHABLE)]
    dan.kill()
    lab.close()


def test_w_does_not_call_those_direct_who_have_not_come_to_the_new_supernode(internet):
    net = internet((NatKind.PORT_RESTRICTED,) * 2, names=("pub", "bo", "cy"), packets=False)
    net.lab.run(TIME_TO_TRY)
    net.nodes["pub"].quit()
    bo = net.nodes["bo"]
    assert net.world.run_until(lambda: bo.peer.is_supernode, net.world.now + 60)
    (cy,) = [row for row in bo.peer.members(net.world.now) if row.label == "cy"]
    assert cy.way == "not back yet"
    assert "0.0.0.0" not in " ".join(member_cells(cy._replace(address=NOWHERE)))
    net.again("pub")
    net.lab.run(RETURN_TIME)
    ways = {row.label: row.way for row in net.nodes["pub"].peer.members(net.world.now)}
    assert ways == {"pub": "", "bo": "direct", "cy": "direct"}


# ---- the first node, which all could reach, quits and comes back


RETURN_TIME = 30.0  # seconds until there is one network again


def labels(nodes):
    return [node.supernode_label() for node in nodes]


@pytest.mark.parametrize("packets", [False, True], ids=["messages", "packets"])
@pytest.mark.parametrize("end", ["quit", "kill"])
@pytest.mark.parametrize("kind", [NatKind.SYMMETRIC, NatKind.PORT_RESTRICTED][: amount(2, 1)])
def test_a_public_first_node_that_comes_back_has_its_network_again(internet, kind, end, packets):
    net = internet((kind, kind), names=("pub", "bo", "di", "cy"), packets=packets)
    net.lab.run(TIME_TO_TRY)
    pub, others = net.nodes["pub"], [net.nodes[name] for name in ("bo", "di", "cy")]
    assert [node.peer.reach.is_open for node in others] == [False] * 3
    network_id = pub.peer.network_id
    getattr(pub, end)()
    net.lab.run(60.0)
    assert "cy" in labels(others) and len(set(labels(others))) > 1  # islands
    told = [event.text for node in others for event in node.told(Notice)]
    assert WAITING_FOR_PUB in told
    again = net.again("pub")
    assert again.told(Outcome)[0].kind == "supernode" and again.peer.network_id == network_id
    assert net.world.run_until(lambda: labels(others) == ["pub"] * 3, net.world.now + RETURN_TIME), labels(others)
    heard = [again.peer.label_of(node.peer.node_id) for node in others]
    assert heard == ["bo", "di", "cy"]
    net.nodes["bo"].do("say", "all here?", net.world.now)
    net.lab.run(2.0)
    assert ["all here?" in [event.text for event in node.told(ChatReceived)] for node in (again, *others)] == [True] * 4
    net.lab.run(90.0)
    assert labels([again, *others]) == ["pub"] * 4


@pytest.mark.parametrize("end", ["quit", "kill"])
@pytest.mark.parametrize("kind", [NatKind.PORT_RESTRICTED, NatKind.SYMMETRIC])
def test_who_joined_an_island_of_one_home_meanwhile_goes_with_it_to_the_first_node(internet, kind, end):
    """It never was under that one, and has only the word of who ruled its island."""
    net = internet((kind, kind), names=("pub", "bo", "cy"), packets=False)
    net.lab.run(TIME_TO_TRY)
    getattr(net.nodes["pub"], end)()
    net.lab.run(60.0)
    assert net.nodes["bo"].peer.is_supernode
    di = net.start("di", None)
    assert di.supernode_label() == "bo"
    net.lab.run(5.0)
    net.again("pub")
    others = [net.nodes[name] for name in ("bo", "di", "cy")]
    assert net.world.run_until(lambda: labels(others) == ["pub"] * 3, net.world.now + RETURN_TIME), labels(others)
    assert [event.new_label for event in di.told(SupernodeChanged)] == ["pub"]


@pytest.mark.parametrize("kind", NatKind)
def test_who_looks_for_a_network_where_a_neighbour_is_in_one_beyond_the_router_joins_it(internet, kind):
    net = internet((kind, kind), names=("pub", "bo", "cy"), packets=False)
    began = net.world.now
    di = net.start("di", None)
    assert [(outcome.kind, outcome.address) for outcome in di.told(Outcome)] == [("joined", (HOSTS["pub"], PORT))]
    assert net.world.now - began < 3.0


# ---- random stories: the first node is open to all and stays, most others are in homes or walled, links are bad


STORIES, PLAYED = amount(40, 1), amount(2, 1)
WALLED = (7, 8, 9)  # hosts that let in answers only, one of them in a home
HOMES = (("11.2.0.2", (2, 3, 4)), ("11.3.0.2", (5, 6)), ("11.4.0.2", (7,)))


class NatPerson(test_network.Person):
    def try_to_join(self):
        """Only the first node can be reached by everybody."""
        self.hint = self.story.people[0].network.address
        super().try_to_join()


class NatStory(test_network.Story):
    command = "test_nat.py nat"
    person = NatPerson
    homes, walled = HOMES, WALLED

    def __init__(self, *args, **how):
        super().__init__(*args, **how)
        kinds = NatKind.FULL_CONE, NatKind.PORT_RESTRICTED
        for ip, numbers in self.homes:
            inside = ["10.0.0.%d" % number for number in numbers]
            self.world.nat(ip, inside, self.rng.choice(kinds), keeps_ports=self.rng.random() < 0.5)
        for number in self.walled:
            self.world.firewall("10.0.0.%d" % number)

    def _something(self):
        events = (
            (self._chat, 20), (self._share, 14), (self._fetch, 40), (self._cancel, 3), (self._mesh, 3),
            (self._remove, 2), (self._leave, 3), (self._return, 8),
        )  # fmt: skip
        kinds, weights = zip(*events)
        self.rng.choices(kinds, weights)[0]()

    def _leave(self):
        """Who rules stays: nobody else could be reached by all."""
        person = self._anyone([one for one in self.members() if one is not self.people[0]])
        if person is not None:
            self.tell("%-4s leaves" % person.name)
            person.go()


@pytest.mark.parametrize("first", range(0, STORIES, PLAYED))
def test_random_networks_across_routers_end_well(first):
    for seed in range(first, first + PLAYED):
        test_network.play(seed, kind=NatStory)


if __name__ == "__main__":
    sys.exit(play_seeds(test_network.play, __doc__, {"nat": NatStory}))
