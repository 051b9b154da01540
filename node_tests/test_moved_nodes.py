"""Whole nodes whose address changes while they chat and fetch: nobody leaves, nothing is lost, all know the place.

    python node_tests/test_moved_nodes.py moves 7          replays one random story and prints what everybody is told
    python node_tests/test_moved_nodes.py moves 0-999      runs many, and tells which fail; `routers`: behind routers
                                                           that forget whom they let in
"""

import os
import sys

if __name__ == "__main__":
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import pytest
import test_nat
import test_network

from node_tests.stage.amounts import amount
from node_tests.stage.lab import MIB, Lab, content
from node_tests.stage.simulator import Conditions
from node_tests.stage.usage import play_seeds
from protocol.results import ChatReceived, DownloadDone, Left, Outcome, Stopped, SupernodeChanged

SIZE = amount(10, 2) * MIB
LINE = Conditions(latency=0.002, rate=amount(1.5e6, 0.3e6), queue=0.05, mtu=1500)  # the file takes seven seconds


@pytest.fixture
def lab(tmp_path):
    made = Lab(tmp_path, seed=4, conditions=LINE, packets=True)
    yield made
    made.close()


def trio(lab):
    """ana rules, bo shares a file, cy will want it."""
    ana = lab.node("ana")
    bo = lab.node("bo", shared={"big.bin": content(SIZE)})
    cy = lab.node("cy")
    lab.run(2.0)
    assert [row.name for row in cy.list()] == ["big.bin"]
    return ana, bo, cy


def move(node, ip):
    """A new lease; the program sees it at its next look."""
    node.ip = ip
    node.network.move(ip)


def place_of(node, other):
    return node.peer.membership.ways.place_of(other.peer.node_id)


def nobody_left(nodes):
    for node in nodes:
        assert not node.told((Left, SupernodeChanged)), node.events
        assert len(node.told(Outcome)) == 1


def heard(lab, speaker, listeners, text, limit):
    """Seconds until all of them have read it."""
    began = lab.world.now
    assert speaker.do("say", text, lab.world.now)
    assert lab.world.run_until(
        lambda: all(any(event.text == text for event in one.told(ChatReceived)) for one in listeners), began + limit
    ), "not heard within %g s: %s" % (limit, text)
    return lab.world.now - began


@pytest.mark.parametrize("who", ["ana", "bo", "cy"])
def test_chat_goes_on_within_five_seconds_after_an_address_changed(lab, who):
    nodes = trio(lab)
    mover = next(node for node in nodes if node.name == who)
    for round_ in (1, 2):
        move(mover, "10.0.0.%d" % (100 + round_))
        for speaker in nodes:
            heard(lab, speaker, nodes, "%s says %d" % (speaker.name, round_), 5.0)
        lab.run(10.0)
    nobody_left(nodes)
    for node in nodes:
        if node is not mover:
            assert place_of(node, mover) == (mover.ip, mover.port)


@pytest.mark.parametrize("who", ["ana", "bo", "cy"])
def test_a_file_under_way_ends_right_with_at_most_five_seconds_lost(lab, who):
    nodes = ana, bo, cy = trio(lab)
    began = lab.world.now
    assert cy.fetch("big.bin").kind == "started"
    lab.run(2.0)
    move(next(node for node in nodes if node.name == who), "10.0.0.101")
    assert lab.world.run_until(lambda: cy.told((DownloadDone, Stopped)), began + 60)
    took = lab.world.now - began
    assert cy.told(DownloadDone) and cy.read("big.bin") == content(SIZE)
    assert took < SIZE / LINE.rate + 1.0 + 5.0, took
    assert cy.told(DownloadDone)[0].moved < SIZE + 2 * MIB  # no second download of what was there
    nobody_left(nodes)


@pytest.mark.parametrize("pause", [0.0, 0.3, 1.5][: amount(3, 1)])
@pytest.mark.parametrize("who", [("bo", "cy"), ("ana", "bo"), ("ana", "cy")], ids="-".join)
def test_a_file_under_way_ends_right_when_both_ends_of_a_link_move(lab, who, pause):
    """Neither can be asked where it was: the roster tells where both are, and a new link leads there."""
    nodes = _, bo, cy = trio(lab)
    began = lab.world.now
    assert cy.fetch("big.bin").kind == "started"
    lab.run(2.0)
    for number, name in enumerate(who):
        move(next(node for node in nodes if node.name == name), "10.0.0.%d" % (101 + number))
        lab.run(pause)
    assert lab.world.run_until(lambda: cy.told((DownloadDone, Stopped)), began + 60)
    took = lab.world.now - began
    assert cy.told(DownloadDone) and cy.read("big.bin") == content(SIZE)
    assert took < SIZE / LINE.rate + 1.0 + 5.0, took
    assert cy.told(DownloadDone)[0].sources == ("bo",) and cy.told(DownloadDone)[0].moved < SIZE + 2 * MIB
    for speaker in nodes:
        heard(lab, speaker, nodes, speaker.name + " is still here", 12.0)  # where neither knows: silence first
    nobody_left(nodes)


def test_a_link_that_follows_by_itself_is_not_closed(lab):
    nodes = _, bo, cy = trio(lab)
    assert cy.fetch("big.bin").kind == "started"
    lab.run(2.0)
    (before,) = [link.link for link in cy.peer.fetching.links._by_link.values() if link.node_id == bo.peer.node_id]
    move(bo, "10.0.0.102")
    lab.run(4.5)
    (after,) = [link for link in cy.peer.fetching.links._by_link.values() if link.node_id == bo.peer.node_id]
    assert (after.link, after.place) == (before, ("10.0.0.102", bo.port))
    nobody_left(nodes)


def test_who_comes_after_the_supernode_moved_finds_it_and_the_members_by_their_new_places(lab):
    ana, bo, cy = trio(lab)
    move(ana, "10.0.0.101")
    lab.run(5.0)
    move(bo, "10.0.0.102")
    lab.run(5.0)
    lab.nodes[0].ip = ana.ip
    dan = lab.node("dan", 9)
    lab.run(2.0)
    assert place_of(dan, bo) == ("10.0.0.102", bo.port)
    assert isinstance(dan.fetched("big.bin"), DownloadDone)
    assert dan.read("big.bin") == content(SIZE)
    nobody_left([ana, bo, cy])


def test_the_supernode_learns_the_addresses_of_a_member_that_moved(lab):
    """Else it would take it for one behind a router, and have others knock where it was."""
    ana, bo, _ = trio(lab)
    move(bo, "10.0.0.102")
    lab.run(5.0)
    assert ana.peer.supernode.introducing._places[bo.peer.node_id] == (("10.0.0.102", bo.port),)


def test_who_was_called_in_vain_is_called_again_where_it_is_by_now(lab):
    ana, bo, cy = trio(lab)
    for number in range(2):
        bo.put("more%d.bin" % number, content(100_000, seed=90 + number))
    bo.scan()
    lab.run(1.0)
    lab.world.cut([bo.ip], [cy.ip])
    lab.run(40.0)  # the link that stood by is lost
    assert cy.fetched("more0.bin").by_way_of == "ana"
    assert cy.peer.fetching.links.is_unreached(bo.peer.node_id, lab.world.now)
    move(bo, "10.0.0.102")
    lab.run(3.0)
    assert not cy.peer.fetching.links.is_unreached(bo.peer.node_id, lab.world.now)
    done = cy.fetched("more1.bin")
    assert isinstance(done, DownloadDone) and not done.by_way_of
    nobody_left([ana, bo, cy])


def test_when_the_moved_supernode_dies_the_members_still_find_each_other(lab):
    ana, bo, cy = trio(lab)
    move(cy, "10.0.0.103")
    lab.run(5.0)
    move(ana, "10.0.0.101")
    lab.run(5.0)
    ana.kill()
    assert lab.world.run_until(lambda: cy.told(SupernodeChanged) and bo.told(SupernodeChanged), lab.world.now + 20)
    lab.run(3.0)
    assert bo.supernode_label() == cy.supernode_label() == "bo"
    heard(lab, cy, [bo, cy], "still two", 5.0)


# ---- random stories: as elsewhere, and hosts get other addresses, or routers forget


STORIES, PLAYED = amount(40, 1), amount(2, 1)


class MovingStory(test_network.Story):
    command = "test_moved_nodes.py moves"

    def _something(self):
        if self.rng.random() < 0.2:
            self._move()
        else:
            super()._something()

    def _move(self):
        """A host gets an address that nobody has."""
        person = self._anyone(self.here())
        if person is not None:
            ip = "10.0.1.%d" % self.rng.randrange(1, 250)
            if all(address[0] != ip for address in self.world.networks):
                self.tell("%-4s has %s instead of %s" % (person.name, ip, person.ip))
                person.ip = ip
                person.network.move(ip, told_after=self.rng.uniform(0.0, 1.0))


class ForgetfulRouters(test_nat.NatStory):
    command = "test_moved_nodes.py routers"

    def _something(self):
        if self.rng.random() < 0.1:
            self.tell("a router forgets")
            self.rng.choice(self.world.homes.boxes()).forget()
        else:
            super()._something()


@pytest.mark.parametrize("first", range(0, STORIES, PLAYED))
@pytest.mark.parametrize("kind", [MovingStory, ForgetfulRouters], ids=["moves", "routers"])
def test_random_networks_whose_addresses_change_end_well(first, kind):
    for seed in range(first, first + PLAYED):
        test_network.play(seed, kind=kind)


if __name__ == "__main__":
    sys.exit(play_seeds(test_network.play, __doc__, {"moves": MovingStory, "routers": ForgetfulRouters}))
