"""No line of chat is lost in silence: it is taken in order or refused in order, and its author hears about it."""

from __future__ import annotations

import math
import random
from typing import Any, Dict, List, Sequence

import pytest

from node_tests.stage.stranger import obeyed_by_all
from node_tests.stage.stub_node import Lab, StubNode
from protocol import messages
from protocol.membership.chat import (
    CHATS_BURST,
    RECENT_MAX,
    SAY_AGAIN_AFTER,
    SAYS_UNDERWAY_MAX,
    SAYS_WAITING_MAX,
    ChatDesk,
    ChatOrder,
)
from protocol.membership.contracts import Seat
from protocol.membership.proofs import node_id_of, random_bytes
from protocol.messages import Chat, Join, MemberEntry, RosterRequest, Say, SetMesh, SharesWanted, decode
from protocol.ruling.catalogue import SHARES_AGAIN_AFTER
from protocol.ruling.doubt import HELD_MAX
from supernode import Supernode

BO, CY = 2, 3  # links


class Table:
    """A supernode alone, whose members are links: what it sends them is kept."""

    address = ("10.0.0.1", 6020)

    def __init__(self, recent: int = 0) -> None:
        self.rng = rng = random.Random(1)
        self.sent: Dict[int, List[Any]] = {}
        self.network_id, me = random_bytes(rng, 16), random_bytes(rng, 8)
        chats = tuple(Chat(number, me, "ana", number, "old %d" % number) for number in range(1, recent + 1))
        ana = MemberEntry(me, "ana", messages.NOWHERE, 0, True, True)
        self.role = Supernode(self, rng, Seat(self.network_id, bytes(16), 3, me, (ana,), chats, (), (), 0), 0.0)

    def send(self, link: int, *parts: Any) -> None:
        self.sent.setdefault(link, []).append(decode(b"".join(bytes(part) for part in parts)))

    def send_to_all(self, links: Sequence[int], *said: bytes) -> None:
        for link in links:
            for message in said:
                self.send(link, message)

    def backlog(self, link: int) -> int:
        return 0

    def has_unread(self, link: int) -> bool:
        return False

    def heard_at(self, link: int) -> float:
        return -math.inf  # nothing but what is said to the role

    def disconnect(self, link: int, reason: str) -> None: ...

    def send_lone(self, *_: Any) -> None: ...

    def broadcast_lone(self, *_: Any) -> None: ...

    def join(self, link: int, name: str, now: float, seen: int = 0) -> None:
        opening = link.to_bytes(16, "big")
        join = Join(self.network_id, 3, node_id_of(opening), opening, name, True, seen)
        self.role.on_hello(link, ("10.0.0.%d" % link, 6020), join, now)

    def say(self, link: int, counter: int, now: float) -> None:
        self.role.on_message(link, Say(counter, "line %d" % counter), now)

    def pass_time(self, since: float, until: float) -> None:
        """The timer as the node thread keeps it; members give signs of life."""
        now = since
        while now <= until:
            for link in (BO, CY):
                self.role.on_message(link, messages.Pong(0, 3), now)
            self.role.on_timer(now)
            now += 0.05

    def told(self, link: int, kind: Any = Chat) -> List[Any]:
        return [message for message in self.sent.get(link, []) if type(message) is kind]

    def counters(self, link: int) -> List[int]:
        return [chat.counter for chat in self.told(link)]


@pytest.fixture
def table() -> Table:
    made = Table()
    made.join(BO, "bo", 1.0)
    made.join(CY, "cy", 1.0)
    made.pass_time(1.0, 1.5)
    return made


# ---- both ends of one line


def test_a_line_is_said_until_its_speaker_sees_it_in_the_one_order() -> None:
    speaker = MemberEntry(b"speaker!", "bo", messages.NOWHERE, 0, True, True)
    told: List[Chat] = []
    desk, order = ChatDesk(), ChatOrder((), told.append, lambda now: None)
    order.enter(speaker, 0.0)
    desk.say("one")
    desk.say("two")
    for say in desk.due(0.0):
        assert order.on_say(speaker.node_id, say, 0.0) is None
    assert [(chat.sequence, chat.counter, chat.text) for chat in told] == [(2, 1, "one"), (3, 2, "two")]
    again = order.on_say(speaker.node_id, Say(2, "two"), 1.0)  # its echo was lost
    assert len(told) == 2 and again == told[1]
    assert all(desk.on_chat(chat, speaker.node_id) for chat in told) and not desk.unconfirmed
    assert not desk.on_chat(again, speaker.node_id), "what comes twice is shown once"


# ---- the supernode takes lines in order, or refuses them in order


def test_what_comes_all_at_once_after_a_pause_is_told_in_order_when_there_is_room(table: Table) -> None:
    lines = CHATS_BURST + SAYS_WAITING_MAX
    for counter in range(1, int(lines) + 1):
        table.say(BO, counter, 1.5)
    table.pass_time(1.5, 6.0)
    assert table.counters(CY) == table.counters(BO) == list(range(1, int(lines) + 1))


def test_after_a_refused_line_nothing_is_taken_until_it_comes_again(table: Table) -> None:
    first_refused = int(CHATS_BURST + SAYS_WAITING_MAX) + 1
    for counter in range(1, first_refused + 1):
        table.say(BO, counter, 1.5)
    table.pass_time(1.5, 6.0)  # by now there is room
    table.say(BO, first_refused + 1, 6.0)
    assert first_refused + 1 not in table.counters(CY)
    table.say(BO, first_refused, 6.1)
    table.say(BO, first_refused + 1, 6.1)
    assert table.counters(CY) == list(range(1, first_refused + 2))


def test_a_line_said_again_while_it_waits_is_told_once(table: Table) -> None:
    for _ in range(2):
        for counter in range(1, 61):
            table.say(BO, counter, 1.5)
    table.pass_time(1.5, 4.0)
    assert table.counters(CY) == list(range(1, 61))


def test_a_line_that_did_not_fit_among_what_is_held_in_doubt_is_not_overtaken(table: Table) -> None:
    table.role.on_timer(20.0)  # it slept
    assert table.role.doubt.is_on(20.0)
    for number in range(HELD_MAX - 1):
        table.role.on_message(BO, RosterRequest(number), 20.0)
    for counter in (1, 2, 3):
        table.say(BO, counter, 20.0)
    table.pass_time(20.1, 24.0)
    table.say(BO, 4, 24.0)
    assert table.counters(CY) == [1]
    for counter in (1, 2, 3, 4):  # as the author does that saw no echo
        table.say(BO, counter, 25.0)
    assert table.counters(CY) == [1, 2, 3, 4]


def test_what_comes_when_the_doubt_is_just_over_does_not_overtake_what_is_held(table: Table) -> None:
    table.role.on_timer(20.0)  # it slept
    table.say(BO, 1, 20.0)
    table.role.on_timer(22.0)
    assert not table.role.doubt.is_on(23.1)
    table.say(BO, 2, 23.1)  # before the timer comes
    assert table.counters(CY) == [1, 2]


def test_who_leaves_while_the_supernode_is_in_doubt_is_heard_to_the_end(table: Table) -> None:
    table.role.on_timer(20.0)  # it slept
    table.say(BO, 1, 20.0)
    table.role.on_message(BO, messages.Leave(), 20.0)
    table.role.on_link_lost(BO, "leaving", 20.0)
    table.role.on_timer(22.0)
    assert not table.counters(CY)
    table.role.on_timer(23.1)
    assert table.counters(CY) == [1] and len(table.role) == 2


def test_who_leaves_is_heard_to_the_end(table: Table) -> None:
    for counter in range(1, 61):
        table.say(BO, counter, 1.5)
    table.role.on_message(BO, messages.Leave(), 1.5)
    assert table.counters(CY) == list(range(1, 61))


def test_who_comes_again_by_a_new_link_is_bound_by_no_refusal_of_the_old_one(table: Table) -> None:
    for counter in range(1, 200):
        table.say(BO, counter, 1.5)
    table.pass_time(1.5, 6.0)
    opening = BO.to_bytes(16, "big")
    join = Join(table.network_id, 3, node_id_of(opening), opening, "bo", True, 0)
    table.role.on_hello(8, ("10.0.0.2", 6020), join, 6.0)
    table.say(8, 300, 6.1)  # it was elsewhere, and was told what it said in vain
    assert table.counters(CY)[-1] == 300


# ---- between a Join and its roster


@pytest.mark.parametrize("seen", (50, 80))
def test_a_line_said_between_a_join_and_its_roster_reaches_one_who_had_counted_further(seen: int) -> None:
    table = Table(recent=50)
    table.join(BO, "bo", 1.0, seen=50)
    table.role.on_timer(1.6)
    table.join(CY, "cy", 2.0, seen=seen)
    table.say(BO, 1, 2.0005)
    table.role.on_timer(2.6)
    table.say(BO, 2, 3.0)
    assert table.counters(CY) == [1, 2]


def test_a_mesh_switch_thrown_between_join_and_roster_is_known_to_all() -> None:
    lab = Lab(71, 2, latency=0.05)
    cy = lab.add("cy")
    member = cy.membership
    assert lab.wait(lambda: bool(member._way_in.attempt and member._way_in.attempt.link), 5.0) is not None
    lab.run(0.15)
    assert not member.is_joined
    cy._do(member.set_mesh, False, lab.world.now)
    lab.run(3.0)
    mine = lab.nodes[1].membership.roster.get(member.node_id)
    assert member.is_joined and mine is not None and not mine.mesh


# ---- other limits that lost something for ever


def test_the_last_of_many_mesh_switches_counts(table: Table) -> None:
    for number in range(1001):
        table.role.on_message(BO, SetMesh(number % 2 == 0), 1.5)
        table.role.on_message(BO, SetMesh(number % 2 == 1), 1.5)
    table.pass_time(1.5, 4.0)
    entry = table.told(CY, messages.RosterUpdate)[-1].changed[-1]
    assert entry.node_id == node_id_of(BO.to_bytes(16, "big")) and not entry.mesh


def test_shares_told_faster_than_they_are_taken_are_asked_for_again(table: Table) -> None:
    for _ in range(1000):
        table.role.on_message(BO, messages.ShareAdd(()), 1.5)
    table.pass_time(1.5, 2.5)
    assert not table.told(BO, SharesWanted)
    table.pass_time(2.5, 2.5 + SHARES_AGAIN_AFTER)
    assert len(table.told(BO, SharesWanted)) == 1


def test_a_roster_that_was_asked_for_in_vain_is_asked_for_again() -> None:
    lab = Lab(72, 3)
    late = lab.nodes[2].membership
    late.roster.version -= 1
    lab.nodes[0].supernode.register._by_link[_link_of(lab, 2)].requests.level = -1000.0
    lab.nodes[1].membership.set_mesh(False, lab.world.now)
    lab.run(0.5)
    assert late.roster.get(lab.nodes[1].membership.node_id).mesh
    lab.run(10.0)
    assert not late.roster.get(lab.nodes[1].membership.node_id).mesh


def _link_of(lab: Lab, number: int) -> int:
    role, node_id = lab.nodes[0].supernode, lab.nodes[number].membership.node_id
    return next(link for link, line in role.register._by_link.items() if line.entry.node_id == node_id)


# ---- the author


def test_no_more_is_underway_than_any_supernode_takes_at_once() -> None:
    desk = ChatDesk()
    for number in range(100):
        desk.say(str(number))
    sent = [say.counter for second in range(4) for say in desk.due(float(second))]
    assert sent == list(range(1, SAYS_UNDERWAY_MAX + 1))
    assert desk.next_deadline() > 2.0 + SAY_AGAIN_AFTER
    desk.on_chat(Chat(1, bytes(8), "me", 10, "9"), bytes(8), 4.0)
    assert [say.counter for say in desk.due(4.5)] == [31, 32, 33, 34, 35, 36, 37, 38, 39, 40]


@pytest.mark.parametrize("lived", [0.1, 7.0])  # seconds after it took the line: so long whom it cannot tell is a member
def test_what_a_supernode_took_just_before_its_death_is_told_by_the_next(lived: float) -> None:
    lab = Lab(73, 4)
    bo = lab.nodes[3]
    bo.say("long ago")
    lab.run(20.0)
    lab.world.cut(["10.0.0.1"], ["10.0.0.2"], both_ways=False)  # n1, the next in order, hears nothing any more
    bo.say("hello")
    lab.run(lived)
    assert bo.chat[-1] == ("n3", "hello") and bo.membership._chat.unconfirmed == 0
    lab.nodes[0].kill()
    lab.world.heal()
    assert lab.wait(lambda: obeyed_by_all(lab) == lab.nodes[1].membership.node_id, 30.0) is not None
    lab.run(1.0)
    for node in lab.living():
        assert [text for _, text in node.chat] == ["long ago", "hello"]


def test_a_line_of_the_next_supernode_is_told_to_one_who_saw_another_in_its_place_from_the_last() -> None:
    """What the lost one told to some alone has places in its order that the next one knows nothing of."""
    lab = Lab(74, 3)
    ana, bo, cy = lab.nodes
    ana.say("first")
    lab.run(20.0)
    lab.world.cut(["10.0.0.1"], ["10.0.0.2"], both_ways=False)
    cy.say("to cy alone")
    lab.run(0.1)
    lab.world.cut(["10.0.0.1"], ["10.0.0.3"], both_ways=False)
    bo.say("to nobody")
    lab.run(0.1)
    assert [len(node.chat) for node in lab.nodes] == [3, 1, 2]
    ana.kill()
    lab.world.heal()
    assert lab.wait(lambda: obeyed_by_all(lab) == bo.membership.node_id, 30.0) is not None
    lab.run(1.0)
    for node in lab.living():
        assert sorted(text for _, text in node.chat) == ["first", "to cy alone", "to nobody"]


def test_after_a_change_nothing_is_said_again_that_the_next_supernode_may_have_forgotten_having_told() -> None:
    """It would be told to all once more: to a large hall, what many said."""
    desk, me = ChatDesk(), b"speaker!"
    for counter, place in ((1, 10), (2, 11)):
        desk.say(str(counter))
        desk.on_chat(Chat(place, me, "me", counter, str(counter)), me, 1.0)
    for counter in range(RECENT_MAX - 1):
        desk.on_chat(Chat(12 + counter, b"somebody", "bo", counter, "x"), me, 2.0)
    desk.send_again(since=0.0)
    assert [say.counter for say in desk.due(3.0)] == [2]


def stand_still(lab: Lab, ana: StubNode, bo: StubNode) -> None:
    ana.sleep()
    lab.run(5.0)
    ana.wake()


def lose_the_cable(lab: Lab, ana: StubNode, bo: StubNode) -> None:
    lab.world.cut([ana.network.address[0]], [bo.network.address[0]])
    lab.run(5.0)
    lab.world.heal()


@pytest.mark.parametrize("disturb", (stand_still, lose_the_cable))
def test_every_line_of_a_long_paste_arrives_once_whatever_stands_still_meanwhile(disturb: Any) -> None:
    lab = Lab(74, 3, packets=True)
    ana, bo, cy = lab.nodes
    said = ["line %d" % number for number in range(150)]
    for text in said:
        bo.say(text)
    lab.run(1.0)
    disturb(lab, ana, bo)
    lab.run(30.0)
    for node in (ana, bo, cy):
        assert [text for _, text in node.chat] == said


# ---- who leaves


def finish(lab: Lab, node: StubNode, patience: float = 1.5, at_most: float = 10.0) -> List[float]:
    """When the waiting was over; empty until then."""
    over: List[float] = []
    node._do(node.membership.finish_saying, patience, at_most, lab.world.now, lambda: over.append(lab.world.now))
    return over


def test_who_leaves_waits_until_all_that_it_said_came_back_and_not_longer() -> None:
    lab = Lab(75, 3)
    bo = lab.nodes[1]
    assert finish(lab, bo) == [lab.world.now]
    for number in range(40):
        bo.say("line %d" % number)
    over, since = finish(lab, bo), lab.world.now
    assert lab.wait(lambda: bool(over), 10.0) is not None
    assert over[0] - since < 2.5 and len(lab.nodes[2].chat) == 40
    bo.quit()
    assert not [event for event in bo.events if event[0] == "unsaid"]


def test_who_leaves_while_nothing_gets_through_is_told_how_many_lines_were_in_vain() -> None:
    lab = Lab(76, 2)
    bo = lab.nodes[1]
    lab.world.cut(["10.0.0.1"], ["10.0.0.2"])
    for number in range(5):
        bo.say("line %d" % number)
    over, since = finish(lab, bo), lab.world.now
    lab.run(5.0)
    assert over and 1.4 < over[0] - since < 1.7
    bo.quit()
    assert ("unsaid", 5) in bo.events


def test_a_script_goes_on_as_soon_as_there_is_room_for_one_line() -> None:
    lab = Lab(77, 2)
    bo = lab.nodes[1].membership
    while bo.say("x", lab.world.now):
        pass
    over: List[float] = []
    bo.finish_saying(20.0, 60.0, lab.world.now, lambda: over.append(lab.world.now), left=bo._chat.unconfirmed - 1)
    lab.nodes[1].network.rearm()
    assert lab.wait(lambda: bool(over), 2.0) is not None and bo.say("y", lab.world.now)


def test_a_line_is_refused_while_there_is_no_network_to_say_it_in() -> None:
    lab = Lab(78, 2)
    bo = lab.nodes[1]
    bo._do(bo.membership.leave, lab.world.now)
    assert not bo.membership.say("hello", lab.world.now)
