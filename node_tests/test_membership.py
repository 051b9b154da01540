"""Stories of the network of nodes in virtual time: who joins, who rules, who follows, who is not believed."""

from __future__ import annotations

import random
from typing import Any, Dict, List, Tuple

import pytest

from node_tests.stage.simulator import World
from node_tests.stage.stranger import Stranger, obeyed_by_all
from node_tests.stage.stub_node import PORT, Lab, StubNode, share
from protocol import messages
from protocol.addresses import may_contact, seen_from
from protocol.membership.chat import ChatDesk
from protocol.membership.labels import name_fault
from protocol.membership.membership import State
from protocol.membership.proofs import is_proven, random_bytes, share_digest, with_proof
from protocol.membership.roster import Roster
from protocol.membership.way_in import BUSY_WAIT_MAX
from protocol.messages import NOWHERE, ROLE_SUPERNODE, Answer, MemberEntry, decode, encode


def outcome(node: StubNode) -> str:
    return next((event[1] for event in node.events if event[0] == "outcome"), "")


# ---- opening ------------------------------------------------------------------------------------------------------


def test_first_node_at_its_own_address_becomes_the_supernode_within_three_seconds() -> None:
    world = World(seed=1)
    node = StubNode(world, "10.0.0.1", "ana").start(("10.0.0.1", PORT))
    assert world.run_until(lambda: outcome(node) == "supernode", 3.0)
    assert node.membership.is_supernode and node.membership.term == 1


def test_nobody_at_another_machines_address_is_said_and_asked_again() -> None:
    world = World(seed=1)
    node = StubNode(world, "10.0.0.2", "bo").start(("10.0.0.1", PORT))
    world.run(until=3.0)
    assert outcome(node) == "nobody" and node.membership.state == State.IDLE
    ana = StubNode(world, "10.0.0.1", "ana").start(None)
    world.run(until=7.0)
    node.start(("10.0.0.1", PORT))
    world.run(until=9.0)
    assert node.membership.is_joined and ana.names() == ["ana", "bo"]


def test_a_search_finds_the_supernode_on_the_lan_and_is_joined_through_a_member_too() -> None:
    lab = Lab(2, 2)
    found = StubNode(lab.world, "10.0.0.9", "lan").start(None)
    by_member = StubNode(lab.world, "10.0.0.8", "hop").start(("10.0.0.2", PORT))
    lab.run(2.0)
    assert outcome(found) == outcome(by_member) == "joined"
    assert by_member.membership.supernode_address == ("10.0.0.1", PORT)


@pytest.mark.parametrize(
    "how, limit", [("mute", 7.0), ("closes", 3.0), ("busy", 3.0), ("refuses", 3.0), ("drips", 7.0)]
)
def test_a_supernode_that_answers_a_search_first_and_takes_nobody_in_keeps_nobody_out(how: str, limit: float) -> None:
    lab = Lab(3, 2)
    mute = Stranger(lab.world, "10.0.0.66")

    def put_off(link: int, data: bytes, now: float) -> None:
        if how == "closes":
            mute.network.disconnect(link, "no")
        elif how == "busy":
            mute.send(link, messages.Busy(1000, "come again"))
        elif how == "refuses":
            mute.send(link, messages.Busy(0, "the network is full (1024 nodes)"))
        elif how == "drips":
            mute.send(link, messages.Welcome(b"n" * 16, 1, b"m" * 8, bytes(16), bytes(32), 1, 1, 0))
            drip(link, 0)

    def drip(link: int, place: int) -> None:
        """A roster of which one member comes each second."""
        member = messages.MemberEntry(place.to_bytes(8, "big"), "m%d" % place, NOWHERE, place, False, True)
        mute.send(link, messages.RosterPage(1, 1, place, 1000, (member,)))
        lab.world.after(1.0, lambda: drip(link, place + 1))

    mute.on_message = put_off  # type: ignore[method-assign]
    lab.world.between("10.0.0.66", "10.0.0.9").latency = 0.0
    mute.answer = lambda query: Answer(
        query.nonce, bytes(8), b"n" * 16, 1, b"m" * 8, ROLE_SUPERNODE, bytes(8), NOWHERE, 0, 99, "m", bytes(16)
    )
    newcomer = StubNode(lab.world, "10.0.0.9", "new").start(None)
    lab.run(limit)
    assert mute.up and outcome(newcomer) == "joined"
    assert newcomer.membership.network_id == lab.nodes[0].membership.network_id


def test_who_answers_a_search_late_is_asked_as_soon_as_it_does_when_the_quicker_one_is_busy() -> None:
    lab = Lab(3, 2)
    mute = Stranger(lab.world, "10.0.0.66")
    mute.on_message = lambda link, data, now: mute.send(link, messages.Busy(25_000, "no"))  # type: ignore
    mute.answer = lambda query: Answer(
        query.nonce, bytes(8), b"n" * 16, 1, b"m" * 8, ROLE_SUPERNODE, bytes(8), NOWHERE, 0, 99, "m", bytes(16)
    )
    lab.world.between("10.0.0.1", "10.0.0.9").latency = 0.3
    lab.world.between("10.0.0.2", "10.0.0.9").latency = 0.3
    newcomer = StubNode(lab.world, "10.0.0.9", "new").start(None)
    lab.run(4.0)
    assert mute.up and outcome(newcomer) == "joined"


def test_of_several_that_are_busy_each_is_asked_again_soon_whatever_one_of_them_asks_for() -> None:
    """The liar answers first and asks for as long as it can; the other is really busy, for a moment."""
    world, strangers = World(seed=3), []
    for ip in ("10.0.0.66", "10.0.0.67"):
        stranger = Stranger(world, ip)
        stranger.answer = lambda query: Answer(
            query.nonce, bytes(8), b"n" * 16, 1, b"m" * 8, ROLE_SUPERNODE, bytes(8), NOWHERE, 0, 99, "m", bytes(16)
        )
        strangers.append(stranger)
    asked: List[float] = []

    def busy(stranger: Stranger, delay: int) -> Any:
        def on_message(link: int, data: bytes, now: float) -> None:
            if isinstance(messages.decode(data), messages.Join):
                asked.append(now)
                stranger.send(link, messages.Busy(delay, "come again"))

        return on_message

    for stranger, delay in zip(strangers, (25_000, 500)):
        stranger.on_message = busy(stranger, delay)  # type: ignore[method-assign]
    StubNode(world, "10.0.0.9", "new").start(None)
    world.run(until=14.0)
    gaps = [later - before for before, later in zip(asked, [*asked[1:], world.now])]
    assert len([at for at in asked if at < 0.2]) == 2 and max(gaps) <= BUSY_WAIT_MAX + 0.5 and len(asked) < 40


@pytest.mark.parametrize("seed", range(5))
def test_two_that_search_at_once_end_in_one_network(seed: int) -> None:
    world = World(seed=seed)
    nodes = [StubNode(world, "10.0.0.%d" % number, "n%d" % number).start(None) for number in (1, 2, 3)]
    world.run(until=8.0)
    assert [outcome(node) for node in nodes].count("supernode") == 1
    assert len({node.membership.network_id for node in nodes}) == 1


def test_search_survives_loss() -> None:
    world = World(seed=3)
    world.conditions.loss = 0.2
    StubNode(world, "10.0.0.1", "ana").start(("10.0.0.1", PORT))
    world.run(until=3.0)
    node = StubNode(world, "10.0.0.2", "bo").start(("10.0.0.1", PORT))
    world.run(until=6.0)
    assert outcome(node) == "joined"


def test_a_look_tells_whether_somebody_is_there_and_changes_nothing() -> None:
    lab = Lab(4, 2)
    seen: List[Any] = []
    node = lab.nodes[1]
    node._do(node.membership.look_at, ("10.0.0.1", PORT), lab.world.now, lambda _, found: seen.append(found))
    node._do(node.membership.look_at, ("10.0.0.77", PORT), lab.world.now, lambda _, found: seen.append(found))
    lab.run(2.0)
    assert [found and found.node_id for found in seen] == [lab.nodes[0].membership.node_id, None]
    assert node.membership.is_joined


def test_a_member_asked_to_take_somebody_in_names_its_supernode() -> None:
    lab = Lab(5, 2)
    stranger = Stranger(lab.world, "10.0.0.66")
    stranger.join(("10.0.0.2", PORT))
    lab.run(1.0)
    assert stranger.last(messages.NotSupernode).supernode == ("10.0.0.1", PORT)
    assert stranger.lost


# ---- joining, leaving, chat ---------------------------------------------------------------------------------------


def test_join_and_leave_are_told_to_everyone() -> None:
    lab = Lab(6, 3)
    assert lab.agree()
    lab.nodes[2].quit()
    lab.run(1.0)
    assert ("left", "n2", None) in lab.nodes[0].events and ("left", "n2", None) in lab.nodes[1].events
    assert lab.agree()


def test_a_killed_member_is_gone_for_all_with_its_seconds_of_silence() -> None:
    lab = Lab(7, 3)
    lab.nodes[2].kill()
    assert lab.wait(lab.agree, 12.0) is not None
    event = next(event for event in lab.nodes[1].events if event[0] == "left")
    assert event[1] == "n2" and 6.0 <= event[2] <= 12.0


def test_equal_names_never_give_equal_labels() -> None:
    lab = Lab(8, 1)
    for name in ("Bo", "bo", "ＢＯ"):
        lab.add(name)
        lab.run(1.0)
    labels = [lab.nodes[0].membership.label_of(entry.node_id) for entry in lab.nodes[0].membership.roster]
    suffix = lab.nodes[2].membership.node_id.hex()[:4]
    assert labels[1] == "Bo" and labels[2] == "bo~" + suffix
    assert len({label.casefold() for label in labels}) == 4
    assert labels == [lab.nodes[3].membership.label_of(entry.node_id) for entry in lab.nodes[3].membership.roster]


def test_chat_reaches_everyone_once_in_one_order_with_the_speaker_included() -> None:
    lab = Lab(9, 5, jitter=0.01)
    for turn in range(20):
        for node in lab.nodes:
            node.say("%d" % turn)
    lab.run(5.0)
    assert len(lab.nodes[0].chat) == 100 and len(set(lab.nodes[0].chat)) == 100
    assert all(node.chat == lab.nodes[0].chat for node in lab.nodes)


def test_chat_said_while_the_supernode_dies_arrives_once_with_the_next() -> None:
    lab = Lab(10, 5)
    rng = random.Random(10)
    for moment in range(40):
        lab.world.after(moment * 0.4, lambda m=moment: rng.choice(lab.nodes[1:]).say("line %d" % m))
    lab.run(5.0)
    lab.nodes[0].kill()
    lab.run(30.0)
    for node in lab.nodes[1:]:
        texts = [text for _, text in node.chat]
        assert len(texts) == len(set(texts)) == 40
        assert node.chat == lab.nodes[1].chat


def test_a_line_that_does_not_fit_is_refused_at_once() -> None:
    lab = Lab(44, 2)
    member = lab.nodes[1].membership
    assert not member.say("", lab.world.now) and not member.say("x" * 2049, lab.world.now)
    lab.nodes[1].say("half a pair: \ud83d")
    lab.run(1.0)
    assert lab.nodes[0].chat == [("n1", "half a pair: ?")]


def test_two_thousand_lines_pasted_at_once_do_not_grow_without_end() -> None:
    desk = ChatDesk()
    taken = sum(desk.say("x") for _ in range(2000))
    assert taken == 500 and len(desk.due(0.0)) == 10


# ---- handover -----------------------------------------------------------------------------------------------------


def test_handover_puts_all_under_the_first_that_joined_within_a_second() -> None:
    lab = Lab(11, 8)
    lab.nodes[0].quit()
    lab.nodes[3].say("while changing")
    took = lab.wait(lambda: len(lab.living()) == 7 and lab.agree(), 2.0)
    assert took is not None and took < 1.0
    assert lab.rulers() == [lab.nodes[1]] and lab.nodes[1].membership.term == 2
    lab.run(1.0)
    assert [node.chat for node in lab.nodes[1:]] == [[("n3", "while changing")]] * 7
    changed = [event for event in lab.nodes[4].events if event[0] == "changed"]
    assert changed == [("changed", "n0", "n1", False, None)]


def test_a_supernode_alone_leaves_at_once_and_a_chain_of_handovers_keeps_the_order() -> None:
    lab = Lab(12, 5)
    for index in range(4):
        lab.nodes[index].quit()
        assert lab.wait(lambda i=index: lab.rulers() == [lab.nodes[i + 1]] and lab.agree(), 3.0) is not None
    lab.nodes[4].quit()
    lab.run(0.5)
    assert not lab.living()


def test_successor_that_dies_right_after_the_handover_is_passed_over() -> None:
    lab = Lab(13, 5)
    lab.nodes[0].quit()
    lab.nodes[1].kill()
    lab.run(0.5)
    assert lab.wait(lambda: lab.rulers() == [lab.nodes[2]], 12.0) is not None
    assert lab.wait(lab.agree, 18.0) is not None


def test_index_is_complete_again_soon_after_a_handover() -> None:
    lab = Lab(14, 6)
    for number, node in enumerate(lab.nodes):
        node.shares = [share(1000 * number + i) for i in range(250)]
        node._do(node.on_joined, lab.world.now)
    lab.run(1.0)
    assert len(lab.nodes[0].supernode.catalogue.index) == 1500
    lab.nodes[0].quit()
    assert lab.wait(lambda: lab.rulers() == [lab.nodes[1]] and len(lab.nodes[1].supernode.catalogue.index) == 1250, 3.0)


# ---- failover -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("killed, limit", [(1, 12.0), (2, 15.0), (3, 18.0)])
def test_next_in_join_order_takes_over_when_the_first_ones_are_killed(killed: int, limit: float) -> None:
    lab = Lab(15 + killed, 10)
    for node in lab.nodes[:killed]:
        node.kill()
    assert lab.wait(lambda: bool(lab.rulers()), limit) is not None
    assert lab.rulers() == [lab.nodes[killed]]
    assert lab.wait(lambda: obeyed_by_all(lab) == lab.nodes[killed].membership.node_id, 30.0 - limit) is not None


def test_failover_with_loss_and_jitter_ends_in_one_supernode() -> None:
    lab = Lab(19, 8, jitter=0.02)
    lab.world.conditions.loss = 0.1
    lab.nodes[0].kill()
    assert lab.wait(lambda: bool(lab.rulers()), 16.0) is not None
    assert lab.wait(lab.agree, 20.0) is not None


def test_members_that_died_with_the_supernode_are_dropped_after_a_minute() -> None:
    lab = Lab(20, 6)
    for index in (0, 4, 5):
        lab.nodes[index].kill()
    lab.run(20.0)
    assert lab.nodes[1].is_ruling and len(lab.nodes[2].membership.roster) == 5
    lab.run(60.0)
    assert len(lab.nodes[2].membership.roster) == 3 and lab.agree()


def test_link_that_breaks_while_the_supernode_lives_is_opened_again() -> None:
    lab = Lab(21, 4)
    node = lab.nodes[2]
    lab.world.after(0.0, lambda: node.network._lose(node.membership.supernode_link, "reset"))
    lab.run(0.2)
    assert lab.wait(lab.agree, 3.0) is not None
    assert lab.rulers() == [lab.nodes[0]] and not [event for event in node.events if event[0] == "changed"]


def test_supernode_silent_for_four_seconds_stays_supernode() -> None:
    lab = Lab(22, 5)
    lab.nodes[0].sleep()
    lab.run(4.0)
    lab.nodes[0].wake()
    lab.run(20.0)
    assert lab.rulers() == [lab.nodes[0]] and lab.agree()
    assert not any(node.changes for node in lab.nodes)


def test_sleeper_steps_down_soon_after_it_wakes_and_says_nothing_before() -> None:
    lab = Lab(23, 6)
    lab.nodes[4].shares = [share(4)]
    lab.nodes[4]._do(lab.nodes[4].on_joined, lab.world.now)
    lab.nodes[0].sleep()
    lab.run(30.0)
    assert lab.rulers()[-1] is lab.nodes[1]
    lab.nodes[0].wake()
    took = lab.wait(lambda: lab.rulers() == [lab.nodes[1]], 5.0)
    assert took is not None
    assert lab.wait(lab.agree, 10.0) is not None
    assert len(lab.nodes[1].supernode.catalogue.index) == 1


def test_whole_lab_suspended_for_an_hour_goes_on_as_it_was() -> None:
    lab = Lab(24, 5)
    for node in lab.nodes:
        node.sleep()
    lab.run(3600.0)
    for node in lab.nodes:
        node.wake()
    assert lab.wait(lab.agree, 30.0) is not None
    assert lab.rulers() == [lab.nodes[0]]


def test_failover_of_forty_asks_no_storm_of_queries() -> None:
    lab = Lab(45, 40)
    sent: Dict[int, int] = {}

    def counting(send_lone: Any) -> Any:
        def count(address: Any, data: bytes) -> None:
            second = int(lab.world.now)
            sent[second] = sent.get(second, 0) + 1
            send_lone(address, data)

        return count

    for node in lab.nodes:
        node.network.send_lone = counting(node.network.send_lone)
    for node in lab.nodes[:2]:
        node.kill()
    assert lab.wait(lambda: obeyed_by_all(lab) == lab.nodes[2].membership.node_id, 30.0) is not None
    assert max(sent.values()) <= 40 * 30


# ---- partitions ---------------------------------------------------------------------------------------------------


def test_partition_gives_two_supernodes_and_heals_to_one() -> None:
    lab = Lab(25, 10)
    for number, node in enumerate(lab.nodes):
        node.shares = [share(number)]
        node._do(node.on_joined, lab.world.now)
    ips = [node.network.address[0] for node in lab.nodes]
    lab.world.cut(ips[:5], ips[5:])
    lab.run(60.0)
    assert lab.rulers() == [lab.nodes[0], lab.nodes[5]]
    lab.world.heal()
    assert lab.wait(lambda: len(lab.rulers()) == 1 and lab.agree(), 30.0) is not None
    lab.run(3.0)
    assert len(lab.rulers()[0].supernode.catalogue.index) == 10


def test_both_sides_elected_in_the_same_term_and_the_smaller_id_rules_everywhere() -> None:
    lab = Lab(26, 9)
    ips = [node.network.address[0] for node in lab.nodes]
    lab.nodes[0].kill()
    lab.world.cut(ips[:5], ips[5:])
    lab.run(40.0)
    terms = sorted(node.membership.term for node in lab.rulers())
    assert len(terms) == 2
    lab.world.heal()
    assert lab.wait(lambda: len(lab.rulers()) == 1 and lab.agree(), 30.0) is not None


@pytest.mark.parametrize("hears, is_heard", [(False, True), (True, False)])
def test_one_way_loss_at_the_supernode_does_not_make_it_flap(hears: bool, is_heard: bool) -> None:
    lab = Lab(27, 5)
    others = [node.network.address[0] for node in lab.nodes[1:]]
    for ip in others:
        lab.world.between("10.0.0.1", ip).cut = not is_heard
        lab.world.between(ip, "10.0.0.1").cut = not hears
    lab.run(120.0)
    assert max(len(node.changes) for node in lab.nodes[1:]) <= 2
    assert len({node.membership.supernode_id for node in lab.nodes[1:]}) == 1
    lab.world._special.clear()
    assert lab.wait(lab.agree, 40.0) is not None


@pytest.mark.parametrize("side", [1, 3])
def test_flapping_link_changes_the_supernode_at_most_once_in_twenty_seconds(side: int) -> None:
    lab = Lab(28, 6)
    ips = [node.network.address[0] for node in lab.nodes]
    for _ in range(18):
        lab.world.cut(ips[:side], ips[side:])
        lab.run(5.0)
        lab.world.heal()
        lab.run(5.0)
    for node in lab.nodes:
        gaps = [later - earlier for earlier, later in zip(node.changes, node.changes[1:])]
        assert len(node.changes) <= 9 and all(gap >= 18.0 for gap in gaps[1:]), node.changes
    assert lab.wait(lab.agree, 30.0) is not None


# ---- lies ---------------------------------------------------------------------------------------------------------


def forged_claims(lab: Lab, stranger: Stranger, term: int, secret: bytes = b"") -> None:
    victim = lab.nodes[1].membership
    entry = lab.nodes[2].membership.node_id

    def answer(query: messages.Query) -> Answer:
        claim = Answer(
            query.nonce, bytes(8), victim.network_id, term, entry,
            ROLE_SUPERNODE, messages.NO_NODE, NOWHERE, 0, 9, "x", bytes(16),
        )  # fmt: skip
        return with_proof(claim, secret)

    stranger.answer = answer


@pytest.mark.parametrize("term", [2, 2**32 - 1])
def test_strangers_claims_and_orders_move_nobody(term: int) -> None:
    lab = Lab(30, 4)
    stranger = Stranger(lab.world, "10.0.0.66")
    forged_claims(lab, stranger, term)
    opening = bytes(32)
    ids = [node.membership.node_id for node in lab.nodes]
    page = messages.RosterPage(term, 99, 0, 1, (MemberEntry(ids[1], "x", ("8.8.8.8", 6020), 0, True, True),))
    orders = [
        messages.Handover(term, ids[2], opening),
        messages.Moved(term, ("10.0.0.66", PORT), ids[2]),
        messages.Stale(term, ("10.0.0.66", PORT)),
        messages.RosterUpdate(term, 99, page.members, ()),
        page,
    ]
    links = [stranger.network.connect(node.network.address) for node in lab.nodes]
    lab.run(0.5)
    for link, _ in zip(links, lab.nodes):
        for order in orders:
            stranger.send(link, order)
            stranger.network.send_lone(lab.nodes[1].network.address, encode(order))
    lab.run(30.0)
    assert lab.rulers() == [lab.nodes[0]] and lab.agree()
    assert not any(node.changes for node in lab.nodes)


def test_members_orders_about_others_are_dropped_and_counted() -> None:
    lab = Lab(31, 4)
    ids = [node.membership.node_id for node in lab.nodes]
    evil = lab.nodes[3]
    entry = MemberEntry(ids[1], "owned", ("8.8.8.8", 6020), 0, True, True)
    for order in (
        messages.RosterUpdate(1, 99, (entry,), ()),
        messages.RosterPage(1, 99, 0, 1, (entry,)),
        messages.Handover(2, ids[3], bytes(32)),
        messages.Moved(2, ("10.0.0.4", PORT), ids[3]),
        messages.Welcome(bytes(16), 2, ids[3], bytes(16), bytes(32), 0, 1, 1),
    ):
        evil.send(order)
    lab.run(5.0)
    assert lab.nodes[0].supernode.dropped >= 5
    assert lab.rulers() == [lab.nodes[0]] and lab.agree()
    assert lab.nodes[1].names() == ["n0", "n1", "n2", "n3"]


def test_nobody_takes_another_members_line() -> None:
    lab = Lab(32, 3)
    stranger = Stranger(lab.world, "10.0.0.66")
    stranger.join(("10.0.0.1", PORT), node_id=lab.nodes[1].membership.node_id)
    lab.run(2.0)
    assert stranger.last(messages.Busy).retry_after_ms == 0
    assert lab.nodes[2].membership.ways.place_of(lab.nodes[1].membership.node_id) == ("10.0.0.2", PORT)


def test_handover_without_the_opening_of_the_commitment_is_not_obeyed() -> None:
    lab = Lab(33, 3)
    victim = lab.nodes[1].membership
    order = messages.Handover(victim.term + 1, lab.nodes[2].membership.node_id, bytes(32))
    lab.nodes[1]._do(victim.on_message, victim.supernode_link, order, lab.world.now)
    assert victim.dropped == 1 and victim.state == State.JOINED


def test_liar_in_the_roster_who_claims_to_rule_does_not_depose_the_living_supernode() -> None:
    lab = Lab(34, 5)
    liar = lab.nodes[1]
    secret = liar.membership._view.secret

    def lie(address: Any, query: messages.Query, now: float) -> None:
        claim = Answer(
            query.nonce, bytes(8), liar.membership.network_id, 7, liar.membership.node_id,
            ROLE_SUPERNODE, messages.NO_NODE, NOWHERE, 0, 5, "n1", bytes(16),
        )  # fmt: skip
        liar.network.send_lone(address, encode(with_proof(claim, secret)))

    liar.membership._answering.answer = lie  # type: ignore[method-assign]
    lab.run(15.0)
    lab.world.after(0.0, lambda: lab.nodes[3].network._lose(lab.nodes[3].membership.supernode_link, "reset"))
    lab.run(30.0)
    assert lab.rulers() == [lab.nodes[0]] and lab.agree()
    assert not any(node.changes for node in lab.nodes)


def test_claim_out_of_turn_is_not_followed_while_an_earlier_rank_lives() -> None:
    lab = Lab(35, 6)
    liar = lab.nodes[4]
    secret = liar.membership._view.secret
    network_id = liar.membership.network_id

    def lie(address: Any, query: messages.Query, now: float) -> None:
        claim = Answer(
            query.nonce, bytes(8), network_id, 2, liar.membership.node_id,
            ROLE_SUPERNODE, messages.NO_NODE, NOWHERE, 0, 5, "n4", bytes(16),
        )  # fmt: skip
        liar.network.send_lone(address, encode(with_proof(claim, secret)))

    liar.membership._answering.answer = lie  # type: ignore[method-assign]
    lab.nodes[0].kill()
    lab.run(12.0)
    obeyed = {lab.nodes[index].membership.supernode_id for index in (1, 2, 3, 5)}
    assert obeyed == {lab.nodes[1].membership.node_id}


def test_lying_supernode_cannot_send_members_to_foreign_addresses() -> None:
    lab = Lab(36, 3)
    victim = lab.nodes[1].membership
    bad = ["8.8.8.8", "0.0.0.0", "255.255.255.255", "224.0.0.1", "10.0.0.255"]
    entries = [MemberEntry(bytes([n] * 8), "b%d" % n, (ip, 6020), 50 + n, True, True) for n, ip in enumerate(bad, 1)]
    entries.append(MemberEntry(bytes([9] * 8), "low", ("10.0.0.3", 80), 60, True, True))
    update = messages.RosterUpdate(1, victim.roster.version + 1, tuple(entries), ())
    lab.nodes[1]._do(victim.on_message, victim.supernode_link, update, lab.world.now)
    assert all(victim.ways.place_of(entry.node_id) is None for entry in entries)
    sent: List[Any] = []
    send_lone = lab.nodes[1].network.send_lone
    lab.nodes[1].network.send_lone = lambda address, data: (sent.append(address[0]), send_lone(address, data))
    lab.nodes[0].kill()
    lab.run(20.0)
    assert not set(sent) & set(bad)


def test_lying_supernode_cannot_make_the_next_one_run_out_of_numbers() -> None:
    lab = Lab(37, 3)
    for node in lab.nodes[1:]:
        member = node.membership
        me = member.roster.get(member.node_id)
        assert me is not None
        entries = [entry._replace(order=2**32 - 1 - entry.order) for entry in member.roster]
        update = messages.RosterUpdate(1, member.roster.version + 1, tuple(entries), ())
        member.roster.version = 2**32 - 2
        chat = messages.Chat(2**64 - 1, b"somebody", "x", 2**64 - 1, "x")
        for message in (update._replace(version=2**32 - 1), chat):
            assert member.supernode_link is not None
            node.on_message(member.supernode_link, encode(message), lab.world.now)
    lab.nodes[0].kill()
    lab.run(25.0)
    assert obeyed_by_all(lab) is not None
    lab.nodes[1].say("on we go")
    lab.run(1.0)
    assert lab.nodes[2].chat == [("n1", "on we go")]


def test_the_last_place_in_the_chat_is_not_the_end_of_all_chat() -> None:
    """A lying supernode's line stands in the last place that there is: the next one counts anew, and is heard."""
    lab = Lab(39, 4)
    for node in lab.nodes[1:]:
        chat = messages.Chat(messages.SEQUENCE_MAX, b"somebody", "x", 2**64 - 1, "the last")
        assert node.membership.supernode_link is not None
        node.on_message(node.membership.supernode_link, encode(chat), lab.world.now)
    lab.nodes[0].kill()
    lab.run(25.0)
    assert obeyed_by_all(lab) is not None
    for number in range(3):
        lab.nodes[1 + number].say("line %d" % number)
        lab.run(1.0)
    assert [text for _, text in lab.nodes[3].chat] == ["the last", "line 0", "line 1", "line 2"]
    late = StubNode(lab.world, "10.0.0.9", "late").start(lab.nodes[1].network.address)
    lab.run(3.0)
    late.say("hello")
    lab.run(1.0)
    assert lab.nodes[1].chat[-1] == ("late", "hello") and not any(node.malformed for node in lab.nodes)


def test_who_takes_over_when_all_terms_are_burnt_begins_anew() -> None:
    """Nobody could tell a later term to anybody: a network of its own, that others may come to, is better than none."""
    lab = Lab(40, 2)
    bo = lab.nodes[1]
    bo.membership._view.term = bo.membership._view.term_seen = messages.TERM_MAX
    before = bo.membership.network_id
    lab.nodes[0].kill()
    lab.run(25.0)
    assert bo.membership.is_supernode and bo.membership.term == 1 and bo.membership.network_id != before
    cy = StubNode(lab.world, "10.0.0.9", "cy").start(bo.network.address)
    lab.run(5.0)
    bo.say("on we go")
    lab.run(1.0)
    assert cy.chat == [("n1", "on we go")]


def test_a_network_whose_terms_are_burnt_is_not_joined() -> None:
    world = World(seed=38)
    liar = Stranger(world, "10.0.0.1")
    liar.answer = lambda query: Answer(
        query.nonce, bytes(8), b"n" * 16, 2**32 - 1, b"liar1234", ROLE_SUPERNODE, b"liar1234", NOWHERE, 0, 1, "x",
        bytes(16),
    )  # fmt: skip
    welcome = messages.Welcome(b"n" * 16, 2**32 - 1, b"liar1234", bytes(16), bytes(32), 1, 1, 1)
    liar.on_message = lambda link, data, now: liar.send(link, welcome)  # type: ignore[method-assign]
    node = StubNode(world, "10.0.0.2", "bo").start(("10.0.0.1", PORT))
    world.run(until=10.0)
    assert outcome(node) == "refused"


def test_who_answers_a_search_and_then_no_join_is_named_as_a_person_reads_why() -> None:
    """It read `!! no answer`, and nothing else."""
    world = World(seed=39)
    mute = Stranger(world, "10.0.0.1")
    mute.answer = lambda query: Answer(
        query.nonce, bytes(8), b"n" * 16, 1, b"mute1234", ROLE_SUPERNODE, b"mute1234", NOWHERE, 0, 1, "x", bytes(16)
    )  # fmt: skip
    node = StubNode(world, "10.0.0.2", "bo").start(("10.0.0.1", PORT))
    world.run(until=60.0)
    told = [event[3] for event in node.events if event[0] == "outcome"]
    assert told == [f"The network at 10.0.0.1:{PORT} did not take this node in: no answer"]


# ---- pure parts ---------------------------------------------------------------------------------------------------


def test_addresses_that_a_message_names() -> None:
    near = ["203.0.113.7"]
    for ip in ("10.1.2.3", "172.31.0.1", "192.168.1.1", "169.254.3.4", "127.0.0.1", "198.18.5.5", "203.0.200.99"):
        assert may_contact((ip, 6020), near), ip
    for ip in ("8.8.8.8", "0.0.0.0", "255.255.255.255", "239.1.1.1", "172.32.0.1", "203.1.113.7", "x", ""):
        assert not may_contact((ip, 6020), near), ip
    assert not may_contact(("10.1.2.3", 1023), near)
    assert seen_from(("127.0.0.1", 7000), ("10.0.0.5", 6020)) == ("10.0.0.5", 7000)
    assert seen_from(("127.0.0.1", 7000), ("127.0.0.1", 6020)) == ("127.0.0.1", 7000)
    assert seen_from(("10.0.0.9", 7000), ("10.0.0.5", 6020)) == ("10.0.0.9", 7000)


def test_proof_covers_every_field_of_an_answer() -> None:
    secret = b"s" * 16
    blank = Answer(
        bytes(8), bytes(8), bytes(16), 3, bytes(8), ROLE_SUPERNODE, messages.NO_NODE, NOWHERE, 5, 2, "ana", bytes(16)
    )
    answer = with_proof(blank, secret)
    assert is_proven(answer, secret) and not is_proven(answer, b"t" * 16) and not is_proven(answer, b"")
    changes: Dict[str, Any] = {
        "nonce": b"1" * 8, "own_nonce": b"1" * 8, "network_id": b"1" * 16, "term": 4, "node_id": b"1" * 8,
        "role": 1, "supernode_id": b"1" * 8, "supernode": ("10.0.0.1", 1), "heard_ago_ms": 6,
        "member_count": 3, "name": "bo",
    }  # fmt: skip
    for field, value in changes.items():
        assert not is_proven(answer._replace(**{field: value}), secret), field
    assert len(encode(answer._replace(name="x" * 128))) <= len(encode(messages.Query(bytes(8))))


def test_roster_keeps_join_order_and_has_room_for_1024() -> None:
    rng = random.Random(1)
    roster = Roster()
    entries = [MemberEntry(random_bytes(rng, 8), "n", NOWHERE, order, True, True) for order in range(1030)]
    rng.shuffle(entries)
    taken = sum(roster.put(entry) for entry in entries)
    assert taken == len(roster) == messages.MEMBERS_MAX
    orders = [entry.order for entry in roster]
    assert orders == sorted(orders)
    labels = [roster.label_of(entry.node_id) for entry in roster]
    assert len(set(labels)) == len(labels)


def test_names_that_are_refused_and_digests_that_do_not_depend_on_order() -> None:
    assert name_fault("ana") is None and name_fault(" ") and name_fault("x" * 33)
    shares = [share(number) for number in range(5)]
    assert share_digest(shares) == share_digest(shares[::-1]) != share_digest(shares[:4])


# ---- anything -----------------------------------------------------------------------------------------------------


KINDS = "kill quit sleep wake cut heal loss join"


def rulers_of_terms(lab: Lab) -> Dict[Tuple[bytes, int], Any]:
    """For each term of each network, whom other nodes obeyed in it."""
    obeyed: Dict[Tuple[bytes, int], Any] = {}
    for node in lab.nodes:
        for network_id, term, ruler in node.obeyed:
            if ruler != node.membership.node_id:
                obeyed.setdefault((network_id, term), set()).add(ruler)
    return obeyed


@pytest.mark.parametrize("seed", range(12))
def test_anything_may_happen_and_afterwards_all_agree_within_thirty_seconds(seed: int) -> None:
    print("seed", seed)
    lab = Lab(1000 + seed, 7, packets=seed % 3 == 0, jitter=0.01)
    rng = random.Random(seed)
    for _ in range(12):
        disturb(lab, rng)
        lab.run(rng.choice([0.5, 2.0, 5.0, 9.0, 15.0]))
    lab.world.heal()
    lab.world.conditions.loss = 0.0
    for node in lab.living():
        if node.is_asleep:
            node.wake()
        if node.membership.state == State.IDLE:
            node.kill()  # it was told that nobody is there
    assert lab.wait(lambda: len(lab.rulers()) == 1 and obeyed_by_all(lab) is not None, 30.0) is not None
    lab.run(70.0)
    assert lab.agree()
    for node in lab.living():
        node.say("all here")
    lab.run(3.0)
    assert len({tuple(node.chat[-len(lab.living()) :]) for node in lab.living()}) == 1


def disturb(lab: Lab, rng: random.Random, kinds: str = KINDS) -> None:
    living = lab.living()
    kind = rng.choice(kinds.split())
    node = rng.choice(living)
    asleep = [node for node in living if node.is_asleep]
    if kind == "kill" and len(living) > 3:
        node.kill()
    elif kind == "quit" and len(living) > 3 and not node.is_asleep:
        node.quit()
    elif kind == "sleep":
        node.sleep()
    elif kind == "wake" and asleep:
        asleep[0].wake()
    elif kind == "cut":
        ips = [node.network.address[0] for node in living]
        rng.shuffle(ips)
        lab.world.cut(ips[:2], ips[2:])
    elif kind == "heal":
        lab.world.heal()
    elif kind == "loss":
        lab.world.conditions.loss = rng.choice([0.0, 0.05, 0.2])
    elif kind == "join":
        number = len(lab.nodes)
        ruler = next((node for node in lab.rulers() if not node.is_asleep), None)
        if ruler is not None:
            newcomer = StubNode(lab.world, "10.0.0.%d" % (number + 1), "n%d" % number)
            lab.nodes.append(newcomer)
            newcomer.start(ruler.network.address)


@pytest.mark.parametrize("seed", range(8))
def test_without_partition_no_term_ever_has_two_rulers(seed: int) -> None:
    print("seed", seed)
    lab = Lab(2000 + seed, 7, jitter=0.01)
    rng = random.Random(seed)
    for _ in range(15):
        disturb(lab, rng, "kill quit sleep wake wake join")
        lab.run(rng.choice([0.5, 2.0, 5.0, 9.0, 15.0]))
    assert all(len(rulers) == 1 for rulers in rulers_of_terms(lab).values())


# ---- a supernode that ends ----------------------------------------------------------------------------------------


def test_a_supernode_steps_down_for_one_at_a_public_address_that_it_has_heard_itself() -> None:
    world = World(seed=31)
    ana = StubNode(world, "141.10.1.1", "ana").start(("141.10.1.1", PORT))
    world.run(3.0)
    cy = StubNode(world, "141.10.2.3", "cy").start(("141.10.1.1", PORT))
    world.run(6.0)
    assert cy.membership.supernode_id == ana.membership.node_id
    world.cut(["141.10.1.1"], ["141.10.2.3"])
    world.run(60.0)
    assert ana.is_ruling and cy.is_ruling
    world.heal()
    world.run(120.0)
    assert cy.is_ruling and ana.supernode is None and ana.membership.supernode_id == cy.membership.node_id
    assert ana.names() == cy.names() and len(ana.names()) == 2


def test_a_supernode_that_has_ended_does_not_say_that_it_rules() -> None:
    lab = Lab(32, 3)
    ruler, roles = lab.nodes[0], []
    ruler.network.send_lone = lambda _, data: roles.append(decode(data).role)  # type: ignore[method-assign]

    def ask(nonce: bytes) -> None:
        ruler.membership.on_lone(("10.0.0.9", PORT), messages.Query(nonce), lab.world.now)

    ask(b"1" * 8)
    assert ruler.supernode is not None
    ruler.supernode.hand_over(lab.world.now, lambda: None)
    ask(b"2" * 8)
    assert roles == [ROLE_SUPERNODE, messages.ROLE_ALONE]
