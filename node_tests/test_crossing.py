"""C: this node stays in its own network until another one has taken it in."""

from __future__ import annotations

import pytest

from node_tests.stage.lab import PORT, Lab, Node, content
from node_tests.stage.outlaw import Outlaw
from node_tests.stage.simulator import Conditions
from protocol import messages
from protocol.results import ChatReceived, DownloadDone, Left, Notice, Outcome, Stopped


@pytest.fixture
def lab(tmp_path):
    made = Lab(tmp_path, 6, Conditions(latency=0.003))
    yield made
    made.close()


@pytest.fixture
def real_lab(tmp_path):
    """The same over the real transport: a link is closed once what was sent on it is delivered."""
    made = Lab(tmp_path, 6, Conditions(latency=0.003), packets=True)
    yield made
    made.close()


def other_network(lab, *names):
    """A second network, whose first node nobody of the first one has met."""
    nodes = []
    for number, name in enumerate(names):
        node = Node(lab, name, 50 + number)
        lab.nodes.append(node)
        nodes.append(node.start((nodes[0].ip, PORT) if nodes else None))
    return nodes


def go(lab, node, address, within=15):
    """What its person reads of that."""
    before = len(node.told(Outcome))
    node.do("connect_to", *address, lab.world.now)
    assert lab.world.run_until(lambda: len(node.told(Outcome)) > before, lab.world.now + within)
    lab.run(0.5)
    return node.told(Outcome)[-1]


def network_of(node):
    membership = node.peer.membership
    return membership.network_id if membership.is_joined else None


def says(lab, node, text):
    """Who reads it."""
    node.do("say", text, lab.world.now)
    lab.run(0.5)
    living = [each for each in lab.nodes if each.is_alive]
    return {each.name for each in living if text in [line.text for line in each.told(ChatReceived)]}


def test_a_member_goes_over_and_both_networks_hear_of_it(lab):
    ana, bo = lab.node("ana"), lab.node("bo", shared={"b.bin": content(10_000)})
    eve, fay = other_network(lab, "eve", "fay")
    outcome = go(lab, bo, (eve.ip, PORT))
    assert (outcome.kind, outcome.supernode_label, outcome.count) == ("joined", "eve", 3)
    assert [left.label for left in ana.told(Left)] == ["bo"] and ana.told(Left)[0].silent_seconds is None
    lab.run(2)
    assert says(lab, bo, "here") == {"bo", "eve", "fay"}
    assert isinstance(fay.fetched("b.bin"), DownloadDone)


def test_where_a_member_of_the_other_network_answers_it_leads_there_as_well(lab):
    lab.node("ana")
    bo = lab.node("bo")
    eve, fay = other_network(lab, "eve", "fay")
    assert go(lab, bo, (fay.ip, PORT)).kind == "joined" and network_of(bo) == network_of(eve)


def test_the_one_who_rules_hands_over_when_it_goes(lab):
    ana, bo, cy = lab.node("ana"), lab.node("bo"), lab.node("cy")
    (eve,) = other_network(lab, "eve")
    assert go(lab, ana, (eve.ip, PORT)).kind == "joined"
    lab.run(5)
    assert network_of(ana) == network_of(eve) and bo.peer.is_supernode and network_of(cy) == network_of(bo)
    assert says(lab, cy, "we stay") == {"bo", "cy"} and says(lab, ana, "I went") == {"ana", "eve"}


def says_that_it_rules(x):
    """What this outlaw does with what comes outside connections."""
    answer = messages.Answer(bytes(8), bytes(8), b"n" * 16, 5, b"x" * 8, messages.ROLE_SUPERNODE, b"x" * 8,
                             messages.NOWHERE, 0, 3, "x", bytes(16))

    def lone(address, data, now):
        message = messages.decode(data)
        if isinstance(message, messages.Query):
            x.network.send_lone(address, messages.encode(answer._replace(nonce=message.nonce)))

    return lone


@pytest.mark.parametrize("how", ["nobody is there", "it is busy", "it refuses", "it is mute", "it lies"])
def test_where_nobody_takes_it_in_it_stays_and_its_download_goes_on(lab, how):
    ana = lab.node("ana", shared={"big.bin": content(3_000_000)}, disk_delay=0.4)
    bo = lab.node("bo")
    x = Outlaw(lab, 60) if how != "nobody is there" else None

    def hears(link, message):
        if not isinstance(message, messages.Join):
            return
        if how == "it is busy":
            x.say(link, messages.Busy(5000, "later"))
        elif how == "it refuses":
            x.say(link, messages.NotSupernode(5, messages.NOWHERE))
        elif how == "it lies":
            x.say(link, messages.Welcome(network_of(bo), 9, b"x" * 8, bytes(16), bytes(32), 1, 1, 0))

    if x is not None:
        x.on_lone, x.hears = says_that_it_rules(x), hears
    assert bo.fetch("big.bin").kind == "started"
    was = network_of(bo)
    outcome = go(lab, bo, ("10.0.0.60", PORT))
    assert outcome.kind in ("nobody", "refused") and outcome.text.endswith("you stay where you are.")
    assert network_of(bo) == was == network_of(ana) and not ana.told(Left)
    assert lab.world.run_until(lambda: bo.told((DownloadDone, Stopped)), lab.world.now + 120) and bo.told(DownloadDone)
    assert says(lab, bo, "still here") == {"ana", "bo"}


def test_to_a_member_of_the_own_network_is_no_way_at_all(lab):
    ana, bo, cy = lab.node("ana"), lab.node("bo"), lab.node("cy")
    for address in ((ana.ip, PORT), (bo.ip, PORT), (cy.ip, PORT)):
        outcome = go(lab, cy, address)
        assert (outcome.kind, outcome.text) == ("refused", "You are in that network already.")
    assert not ana.told(Left) and not bo.told(Left) and says(lab, cy, "x") == {"ana", "bo", "cy"}


def test_should_the_other_one_die_at_the_very_moment_it_is_looked_for_as_at_a_start(lab):
    ana, bo = lab.node("ana"), lab.node("bo")
    (eve,) = other_network(lab, "eve")
    ana.do("connect_to", eve.ip, PORT, lab.world.now)
    assert lab.world.run_until(lambda: ana.peer.membership._crossing._entered, lab.world.now + 5)
    crossing = ana.peer.membership._crossing
    crossing.on_link_lost("reset", lab.world.now)
    assert lab.world.run_until(lambda: len(ana.told(Outcome)) > 1, lab.world.now + 20)
    lab.run(3)
    assert network_of(ana) == network_of(eve) and bo.peer.is_supernode


def test_what_it_is_told_while_it_hands_over_is_heard_by_all_whom_it_concerns(real_lab):
    lab = real_lab
    ana, bo = lab.node("ana"), lab.node("bo")
    (eve,) = other_network(lab, "eve")
    lab.world.cut([ana.ip], [bo.ip])  # the handover takes all its time
    ana.do("connect_to", eve.ip, PORT, lab.world.now)
    assert lab.world.run_until(lambda: len(eve.peer.members(lab.world.now)) == 2, lab.world.now + 5)
    eve.do("say", "welcome", lab.world.now)
    line = eve.peer.supernode.register.get(ana.peer.node_id)
    eve.peer.supernode.register.send(line, messages.SharesWanted())
    wanted = []
    ana.peer.holdings.send_shares = lambda: wanted.append(network_of(ana))
    lab.run(0.5)
    assert ana.peer.supernode is not None and not ana.told(ChatReceived)
    lab.run(4)
    assert network_of(ana) == network_of(eve)
    assert [event.text for event in ana.told(ChatReceived)] == ["welcome"]
    assert wanted == [network_of(eve)]


@pytest.mark.parametrize("after", [0.2, 1.0])  # while it is looked for, and while it is asked to take this node in
def test_who_stays_after_all_is_in_its_network_and_in_no_other(lab, after):
    ana, bo = lab.node("ana"), lab.node("bo")
    x = Outlaw(lab, 60)
    if after > 0.5:
        x.on_lone = says_that_it_rules(x)
    bo.do("connect_to", "10.0.0.60", PORT, lab.world.now)
    lab.run(after)
    bo.do("stay", lab.world.now)
    bo.do("stay", lab.world.now)
    assert bool(x.up) == (after > 0.5)
    lab.run(8)
    assert [event.text for event in bo.told(Notice)] == [
        "the other network is not tried any more; you stay where you are"]
    assert not x.up and len(bo.told(Outcome)) == 1 and network_of(bo) == network_of(ana) and not ana.told(Left)


def test_who_was_taken_in_is_told_that_it_goes_and_goes_nowhere_else_meanwhile(real_lab):
    lab = real_lab
    ana, bo = lab.node("ana"), lab.node("bo")
    (eve,) = other_network(lab, "eve")
    lab.world.cut([ana.ip], [bo.ip])
    ana.do("connect_to", eve.ip, PORT, lab.world.now)
    assert lab.world.run_until(lambda: ana.peer.membership.is_crossing, lab.world.now + 5)
    ana.do("stay", lab.world.now)
    assert [event.text for event in ana.told(Notice)] == ["the other network has taken this node in already"]
    ana.do("connect_to", "10.0.0.77", PORT, lab.world.now)
    assert ana.told(Outcome)[-1].text == "You are on your way into another network already."
    lab.run(5)
    assert network_of(ana) == network_of(eve)


def test_who_goes_while_it_still_tries_elsewhere_leaves_nothing_behind(lab):
    lab.node("ana")
    bo = lab.node("bo")
    x = Outlaw(lab, 60)
    bo.peer.membership.cross_to(("10.0.0.60", PORT), lab.world.now, lambda why, now: None)
    lab.run(0.5)
    assert x.up and any(isinstance(message, messages.Join) for message in x.heard)
    bo.quit()
    assert not x.up
