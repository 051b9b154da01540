"""Random parts of one network, of membership and supernodes alone: after deaths, good-byes, cuts and sleeps one rules.

Far cheaper than the stories of `test_network.py` (no packets, no files: 0.1 s each), so that many can be played.

    python node_tests/test_parts_meet.py 0-999     plays many, and tells which fail
"""

from __future__ import annotations

import os
import random
import sys
from typing import Dict, List

if __name__ == "__main__":
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import pytest

from node_tests.stage.amounts import amount
from node_tests.stage.simulator import World
from node_tests.stage.stub_node import StubNode
from node_tests.stage.usage import Tell, play_seeds
from protocol.membership.membership import State

SEEDS, BLOCK = amount(400, 10), amount(20, 10)
AGREED_AFTER = 35.0  # seconds from the end of the faults until each network has one supernode, and all obey it
WALLED = (0, 1, 2)  # hosts that let in answers only
START_AGAIN = 3.0  # seconds until who found no network tries the next place


class Parts:
    """One seed: the dice, the nodes and the faults."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.world = World(seed)
        self.world.conditions.loss = self.rng.choice((0.0, 0.0, 0.05, 0.15))
        self.world.conditions.latency = self.rng.choice((0.001, 0.02))
        self.world.broadcasts = self.rng.random() < 0.5
        self.ips = ["10.0.0.%d" % number for number in range(1, self.rng.randint(4, 10))]
        self.nodes: List[StubNode] = []
        self.others = random.Random(-seed - 1)  # dice of what came later: the first ones fall as before
        self.part_old = self.others.choice((0.0, 0.5))  # of the nodes, of an older program that asks nobody to try it
        for ip in self.others.sample(self.ips, self.others.choice(WALLED)):
            self.world.firewall(ip)
        self.clear_at = self.rng.uniform(60.0, 160.0)

    def living(self) -> List[StubNode]:
        return [node for node in self.nodes if node.network.alive]

    def members(self) -> List[StubNode]:
        return [node for node in self.living() if node.membership.is_joined and not node.is_asleep]

    def run(self) -> None:
        for _ in self.ips:
            self.world.at(self.rng.uniform(0.0, 20.0), self.join)
        for _ in range(self.rng.randint(15, 50)):
            self.world.at(self.rng.uniform(5.0, self.clear_at), self.something)
        self.world.run(self.clear_at)
        self.world.heal()
        for node in self.living():
            self.wake(node)
        self.world.run(self.clear_at + AGREED_AFTER)

    def something(self) -> None:
        events = (
            (self.join, 26), (self.kill, 9), (self.kill_ruler, 12), (self.quit, 9), (self.cut, 20), (self.sleep, 6),
        )  # fmt: skip
        kinds, weights = zip(*events)
        self.rng.choices(kinds, weights)[0]()

    def join(self) -> None:
        used = {node.network.address[0] for node in self.living()}
        free = [ip for ip in self.ips if ip not in used]
        if free:
            node = StubNode(self.world, self.rng.choice(free), "n%d" % len(self.nodes))
            node.asks_reach = self.others.random() >= self.part_old
            self.nodes.append(node)
            self.start(node)

    def start(self, node: StubNode) -> None:
        """By any member; the first one founds the network. Again after a while, should it have found none."""
        if not node.network.alive or node.membership.state is State.LEFT:
            return
        if node.membership.state is State.IDLE:
            others = self.members()
            if others or self.living() == [node]:
                node.start((self.rng.choice(others) if others else node).network.address)
        self.world.after(START_AGAIN, lambda: self.start(node))

    def kill(self) -> None:
        if len(self.members()) > 1:
            self.rng.choice(self.members()).kill()

    def kill_ruler(self) -> None:
        rulers = [node for node in self.members() if node.is_ruling]
        if rulers and len(self.members()) > 1:
            self.rng.choice(rulers).kill()

    def quit(self) -> None:
        if len(self.members()) > 1:
            self.rng.choice(self.members()).quit()

    def cut(self) -> None:
        """One node from all others, or two or three parts; seldom one way only."""
        ips = self.rng.sample(self.ips, len(self.ips))
        count = self.rng.choice((1, 2, 2, 2, 3))
        sides = [ips[:1], ips[1:]] if count == 1 else [ips[first::count] for first in range(count)]
        both_ways = self.rng.random() < 0.85
        for number, side in enumerate(sides):
            for other in sides[number + 1 :]:
                self.world.cut(side, other, both_ways)
        self.world.after(self.rng.uniform(5.0, 60.0), self.world.heal)

    def sleep(self) -> None:
        if self.members():
            node = self.rng.choice(self.members())
            node.sleep()
            self.world.after(self.rng.uniform(1.0, 25.0), lambda: self.wake(node))

    def wake(self, node: StubNode) -> None:
        if node.network.alive and node.is_asleep:
            node.wake()


def apart(seed: int) -> List[str]:
    """The networks of this seed that do not have one supernode obeyed by all, as a person would tell it."""
    parts = Parts(seed)
    parts.run()
    networks: Dict[bytes, List[StubNode]] = {}
    for node in parts.members():
        networks.setdefault(node.membership.network_id, []).append(node)
    faults = []
    for people in networks.values():
        rulers = [node.membership.name for node in people if node.is_ruling]
        if len(rulers) != 1 or len({(node.membership.supernode_id, node.membership.term) for node in people}) != 1:
            faults.append("seed %d: %s rule over %d" % (seed, rulers, len(people)))
    return faults


@pytest.mark.parametrize("first", range(0, SEEDS, BLOCK))
def test_parts_that_meet_again_have_one_supernode(first: int) -> None:
    assert [fault for seed in range(first, first + BLOCK) for fault in apart(seed)] == []


def play(seed: int, tell: Tell) -> None:
    """One seed; AssertionError when a network has not one supernode that all of it obey."""
    faults = apart(seed)
    assert not faults, "\n".join(faults)


if __name__ == "__main__":
    sys.exit(play_seeds(play, __doc__))
