"""A lecture hall: what a thousand members make of a supernode, and what they must not make of it."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import Any, Dict, List, Set, Tuple

import pytest

import node_client
from node_tests.stage.amounts import amount
from node_tests.stage.house import ROOT
from node_tests.stage.stub_node import Lab
from node_tests.test_chat import Table
from prompt import threads
from protocol import messages
from protocol.lanes import PATIENT_EACH, Lanes, may_wait
from protocol.membership import failover
from protocol.membership import roster as roster_module
from protocol.membership.belonging import SUSPECT_AFTER
from protocol.membership.labels import Labels
from protocol.membership.roster import Change, Roster
from protocol.membership.view import View
from protocol.messages import (
    GONE,
    LEFT,
    NO_NODE,
    NOWHERE,
    Chat,
    Departure,
    Handover,
    MemberEntry,
    RosterRequest,
    RosterUpdate,
)
from protocol.network import Listener
from protocol.ruling import beats, reaching
from protocol.ruling.beats import PINGS_EACH
from protocol.ruling.gathering import APART_MAX, AT_ONCE_UP_TO, Gathering
from protocol.ruling.line import ARRIVES_EACH, RETURN_TIME, SILENT_MAX, Line
from protocol.ruling.register import Register
from sockets.links import Links, Posted


def entry(number: int, name: str = "") -> MemberEntry:
    name = name or f"m{number:04d}"
    return MemberEntry(number.to_bytes(8, "big"), name, (f"10.0.0.{number % 250}", 6020), number, True, True)


# ---- what members are called --------------------------------------------------------------------------------------


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> List[int]:
    """Of each time that all members' labels were found out: of how many."""
    counts: List[int] = []

    def labels(entries: Any, *more: Any) -> Labels:
        counts.append(len(entries))
        return Labels(entries, *more)

    monkeypatch.setattr(roster_module, "Labels", labels)
    return counts


@pytest.mark.parametrize("many", [1, 100])
def test_labels_are_found_out_once_for_each_update_however_many_it_names(counted: List[int], many: int) -> None:
    roster = Roster()
    roster.replace([entry(number) for number in range(300)], 1)
    roster.labels()
    del counted[:]
    departed = tuple(Departure(number.to_bytes(8, "big"), LEFT, 0) for number in range(1, 1 + many))
    came = tuple(entry(number) for number in range(300, 300 + many))
    changes = roster.apply(RosterUpdate(1, 2, came, departed), entry(0).node_id)
    assert len(changes) == 2 * many and counted == [300]


def test_an_update_tells_what_they_were_called_before_it_and_are_called_after_it() -> None:
    roster = Roster()
    first, second, third = (entry(number, "ana") for number in (1, 2, 3))
    roster.replace([entry(0), first, second], 1)
    labels = roster.labels()
    assert labels[first.node_id] == "ana" != labels[second.node_id]
    departed = (Departure(first.node_id, LEFT, 0), Departure(second.node_id, GONE, 8000))
    changes = roster.apply(RosterUpdate(1, 2, (third,), departed), entry(0).node_id)
    left = [Change("ana", False, None), Change(labels[second.node_id], False, 8.0)]
    assert changes == [*left, Change("ana", True, None)]


def test_an_update_that_loses_nobody_does_not_walk_over_the_roster(monkeypatch: pytest.MonkeyPatch) -> None:
    """To walk over it sorts it anew, at each of a thousand members with each update."""
    walks: List[int] = []
    walk = Roster.__iter__
    monkeypatch.setattr(Roster, "__iter__", lambda roster: walks.append(len(roster)) or walk(roster))
    view = View(Hall(2), entry(0).node_id, lambda: ())  # type: ignore[arg-type]
    view.found(bytes(8), bytes(16), entry(0))
    view.roster.replace([entry(number) for number in range(300)], 1)
    assert view.take_update(RosterUpdate(0, 2, (entry(7)._replace(mesh=False),), ())) == [] and not walks
    gone = tuple(Departure(entry(number).node_id, GONE, 8000) for number in (9, 8))
    assert len(view.take_update(RosterUpdate(0, 3, (), gone)) or ()) == 2
    assert list(view.lost_places) == [entry(8).place, entry(9).place], "in the order of the roster"


# ---- what all are told --------------------------------------------------------------------------------------------


class Hall(Table):
    """A supernode and so many members, all with the whole roster; who is told what in one go is kept."""

    def __init__(self, members: int) -> None:
        super().__init__()
        self.unread: Set[int] = set()  # links of those whose words lie unread
        self.heard: Dict[int, float] = {}  # by link, when its transport last heard something
        self.told_together: List[Tuple[int, int]] = []  # to how many, how many messages
        for link in range(1, members + 1):
            self.join(link, f"m{link:04d}", 0.02 * link)
            self.role.on_timer(0.02 * link)
        self.now = 0.02 * members + 1.0
        self.role.on_timer(self.now)
        self.sent.clear()
        del self.told_together[:]

    def send_to_all(self, links: Any, *said: bytes) -> None:
        if hasattr(self, "told_together"):
            self.told_together.append((len(links), len(said)))
        super().send_to_all(links, *said)

    def has_unread(self, link: int) -> bool:
        return link in self.unread

    def heard_at(self, link: int) -> float:
        return self.heard.get(link, -math.inf)

    def lines(self, link: int) -> List[str]:
        return [chat.text for chat in self.told(link)]


def test_a_class_hears_each_line_at_once() -> None:
    hall = Hall(AT_ONCE_UP_TO)
    for counter in (1, 2, 3):
        hall.say(5, counter, hall.now)
        assert len(hall.lines(1)) == counter


def test_in_a_lecture_hall_the_first_line_is_told_at_once_and_what_follows_together() -> None:
    hall = Hall(200)
    hall.say(5, 1, hall.now)
    assert hall.role.next_deadline() <= hall.now
    hall.role.on_timer(hall.now)
    assert hall.lines(1) == ["line 1"]
    for link in range(10, 16):
        hall.say(link, 1, hall.now + 0.01)
    hall.role.on_timer(hall.now + 0.01)
    assert hall.lines(1) == ["line 1"] and hall.role.next_deadline() <= hall.now + APART_MAX
    hall.role.on_timer(hall.now + APART_MAX)
    assert hall.lines(1) == hall.lines(200) == ["line 1"] * 7
    assert hall.told_together == [(200, 1), (200, 6)], "each time one thing to hand over, for all members"


@pytest.mark.parametrize("what", ["a member leaves", "one missed a version", "it hands over", "an echo"])
def test_what_waits_to_be_told_is_told_before_anything_changes(what: str) -> None:
    hall = Hall(100)
    hall.say(5, 1, hall.now)
    hall.role.on_timer(hall.now)
    hall.say(6, 1, hall.now)
    assert len(hall.lines(7)) == 1
    if what == "a member leaves":
        hall.role.register.on_leave(hall.role.register.on_link(6), None, hall.now)
        hall.role.on_timer(hall.now + 0.5)
    elif what == "one missed a version":
        hall.role.on_message(7, RosterRequest(1), hall.now)
    elif what == "it hands over":
        hall.role.hand_over(hall.now, lambda: None)
    else:
        hall.say(5, 1, hall.now)
    kinds = [type(message) for message in hall.sent[7] if type(message) in (Chat, RosterUpdate, Handover)]
    assert kinds[:2] == [Chat, Chat]
    counters = {(chat.node_id, chat.counter) for chat in hall.told(5)}
    assert len(counters) == 2


def test_who_comes_meanwhile_is_told_each_line_once_and_none_from_before() -> None:
    hall = Hall(100)
    hall.say(5, 1, hall.now)
    hall.role.on_timer(hall.now)
    hall.say(6, 1, hall.now)
    hall.join(101, "late", hall.now)
    hall.role.on_timer(hall.now + 0.5)
    assert not hall.told(101)
    hall.say(7, 1, hall.now + 0.6)
    hall.role.on_timer(hall.now + 1.0)
    assert len(hall.told(101)) == 1


def test_what_is_told_to_a_thousand_waits_once_and_no_longer_than_its_time() -> None:
    gathering, now = Gathering(), 0.0
    assert gathering.add(b"one", 1000) and gathering.next_deadline() < now
    assert gathering.tell(now) == [b"one"]
    assert gathering.add(b"two", 1000) and gathering.next_deadline() == now + APART_MAX
    assert gathering.add(b"three", 100_000) and gathering.next_deadline() == now + APART_MAX
    assert gathering.take() == [b"two", b"three"] and gathering.next_deadline() > 1e9
    assert not gathering.add(b"one", AT_ONCE_UP_TO)


class _Thread:
    """A network thread whose inbox is a list."""

    def __init__(self) -> None:
        self.address, self.endpoint, self.watch, self.credentials = ("127.0.0.1", 1), self, None, None
        self.inbox, self.posted = self, []  # type: Any, List[Any]

    def post(self, action: Any) -> None:
        self.posted.append(action)

    def bound_waiting(self, *bounds: int) -> None: ...

    def attach(self, face: Any) -> None: ...


def test_a_message_to_all_is_one_entry_of_the_queue_and_is_held_once() -> None:
    thread, sent = _Thread(), []  # type: _Thread, List[Any]
    links = Links(thread, Listener())  # type: ignore[arg-type, misc]
    links._table.send = lambda link, *parts, **kind: sent.append((link, parts))  # type: ignore[method-assign]
    links.send_to_all(range(1, 2001, 2), b"hello", b"all")
    assert len(thread.posted) == 1 and links.held_before() == len(b"helloall") + Posted.COST
    assert links.backlog(7) == links.backlog(1999) == len(b"helloall")
    thread.posted.pop()()
    assert sent[:3] == [(1, (b"hello",)), (1, (b"all",)), (3, (b"hello",))] and len(sent) == 2000
    assert links.held_before() == links.backlog(7) == 0


# ---- what is heard first ------------------------------------------------------------------------------------------

SEARCH = messages.encode(messages.Search(1, bytes(32), 1000, "lab.iso", False, NO_NODE, NOWHERE, False))
PING = messages.encode(messages.Ping(1, 3, 0))
SAY = messages.encode(messages.Say(1, "hello"))


def test_searches_offers_and_requests_for_lists_may_wait_and_nothing_else() -> None:
    waiting = [kind for tag, kind in messages.TABLE.items() if may_wait(bytes([tag]))]
    assert set(waiting) == {messages.Search, messages.Offer, messages.ListRequest}
    assert not may_wait(b"") and may_wait(SEARCH) and not may_wait(PING) and not may_wait(SAY)


def test_each_lane_stays_in_order_and_the_patient_one_gets_on_however_much_else_there_is() -> None:
    lanes: Lanes[Tuple[str, int]] = Lanes()
    for number in range(100):
        lanes.put(("search", number), may_wait=True)
        lanes.put(("ping", number))
    taken = [lanes.take() for _ in range(len(lanes))]
    assert [number for kind, number in taken if kind == "search"] == list(range(100))
    assert [number for kind, number in taken if kind == "ping"] == list(range(100))
    assert [kind for kind, _ in taken[:PATIENT_EACH]] == ["ping"] * (PATIENT_EACH - 1) + ["search"]
    assert taken[-1] == ("search", 99)
    with pytest.raises(IndexError):
        lanes.take()


def test_a_ping_behind_ten_thousand_searches_is_heard_next() -> None:
    """By the program's own listener and thread, before this is started; each turn hears a few."""
    thread, heard = threads.NodeThread(lambda: 0.0), []  # type: threads.NodeThread, List[bytes]
    node = Roles()
    node.call, node.hear = thread.call, lambda link, data, now: heard.append(data)
    thread._roles = node
    listener = node_client.NodeListener(node)  # type: ignore[arg-type]
    for _ in range(10_000):
        listener.on_message(2, SEARCH)
    listener.on_message(4, PING)
    listener.on_message(6, SAY)
    assert thread._turn() and heard[:2] == [PING, SAY] and set(heard[2:]) == {SEARCH}
    while len(heard) < 10_002:
        assert thread._turn()
    assert not len(thread.inbox) and thread.failures == 0


class Roles:
    """A node without any."""

    call: Any
    hear: Any

    def on_timer(self, now: float) -> None: ...

    def next_deadline(self) -> float:
        return 1e9


def test_nobody_is_judged_silent_while_his_words_lie_unread() -> None:
    hall = Hall(3)
    hall.unread = {2}
    until = hall.now + 2 * SILENT_MAX
    while hall.now < until:
        hall.now += 0.25
        hall.role.on_message(1, messages.Pong(0, 3), hall.now)
        hall.role.on_timer(hall.now)
    assert [hall.role.register.on_link(link) is not None for link in (1, 2, 3)] == [True, True, False]
    hall.unread = set()
    hall.role.on_timer(hall.now + 0.5)
    assert hall.role.register.on_link(2) is None, "he has said nothing else"


# ---- how members show that they live ------------------------------------------------------------------------------


def test_in_a_large_hall_each_is_told_once_that_a_ping_now_and_then_will_do_and_in_a_class_nobody() -> None:
    hall = Hall(AT_ONCE_UP_TO)
    links = [*range(1, AT_ONCE_UP_TO + 1), 200]
    hall.role.on_timer(hall.now + 1.0)
    assert not any(hall.told(link, messages.PingSeldom) for link in links)
    hall.join(200, "late", hall.now + 1.1)
    for moment in (2.0, 2.5, 3.0):
        hall.role.on_timer(hall.now + moment)
    for link in links:
        assert hall.told(link, messages.PingSeldom) == [messages.PingSeldom(int(1000 * PINGS_EACH))]


def test_who_was_told_so_lives_by_his_link_but_no_longer_than_his_role_may_be_silent() -> None:
    hall = Hall(AT_ONCE_UP_TO + 10)
    hall.role.on_timer(hall.now + 0.5)
    for link in range(1, AT_ONCE_UP_TO + 11):
        hall.role.on_message(link, messages.Ping(1, 3, 0), hall.now)
    began = hall.now
    gone: Dict[int, float] = {}
    while hall.now < began + PINGS_EACH + 2 * SILENT_MAX:
        hall.now += 0.5
        for link in range(1, AT_ONCE_UP_TO + 11):
            if link != 2:  # whose process ended: not even its transport answers
                hall.heard[link] = hall.now
            if link > 3:  # and the role of the third one hangs
                hall.role.on_message(link, messages.Ping(1, 3, 0), hall.now)
            if hall.role.register.on_link(link) is None:
                gone.setdefault(link, hall.now - began)
        hall.role.on_timer(hall.now)
        line = hall.role.register.on_link(1)
        assert line is None or hall.now - began > PINGS_EACH or line.is_fresh(hall.now)
    assert SILENT_MAX < gone[2] <= SILENT_MAX + 1.5, "as soon as without"
    assert PINGS_EACH + SILENT_MAX < gone[3] <= PINGS_EACH + SILENT_MAX + 1.5
    assert set(gone) == {1, 2, 3}


@pytest.mark.parametrize("packets", [False, True], ids=["messages", "packets"])
def test_a_hall_rests_on_few_pings_finds_the_dead_as_soon_and_counts_nobody_else_as_gone(
    monkeypatch: pytest.MonkeyPatch, packets: bool
) -> None:
    pings: List[bytes] = []
    on_ping = Register.on_ping
    monkeypatch.setattr(Register, "on_ping", lambda self, line, *more: (
        line.is_own or pings.append(line.node_id), on_ping(self, line, *more))[1])  # fmt: skip
    lab = Lab(4, 6, packets)
    old = lab.nodes[3]  # a program that knows nothing of it
    del old.membership._handlers[messages.PingSeldom]
    monkeypatch.setattr(beats, "HALL", 2)
    assert agree_within(lab, 20)
    lab.run(5.0)
    pings.clear()
    lab.run(32.0)
    counts = [pings.count(node.membership.node_id) for node in lab.nodes[1:]]
    assert 15 <= counts[2] <= 17 and all(3 <= count <= 5 for at, count in enumerate(counts) if at != 2)
    assert lab.agree() and not any(each[0] == "left" for node in lab.nodes for each in node.events)
    lab.nodes[5].kill()
    took = lab.wait(lambda: any(each[0] == "left" for each in lab.nodes[1].events), 20.0)
    assert took is not None and took <= SILENT_MAX + 2.0
    lab.nodes[0].kill()
    took = lab.wait(lambda: lab.rulers() == [lab.nodes[1]], 20.0)
    assert took is not None and took <= failover.GONE_AFTER + 3.0
    assert agree_within(lab, 20)


def test_a_supernode_whose_role_hangs_is_not_believed_by_its_link_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beats, "HALL", 2)
    lab = Lab(4, 5, True)
    assert agree_within(lab, 20)
    lab.run(10.0)
    hung = lab.nodes[0]
    lab.world.networks[hung.network.address].node = None  # its transport goes on
    took = lab.wait(lambda: lab.nodes[1].is_ruling, 40.0)
    assert took is not None and failover.GONE_AFTER < took <= PINGS_EACH + SUSPECT_AFTER + failover.GONE_AFTER


# ---- when the supernode dies --------------------------------------------------------------------------------------

SLOW_HALL, SLOW_ONES = amount(130, 80), 20  # members; of these, far away
PAGE_TIME = 3.0  # seconds that a page takes to them


def fill(lab: Lab, members: int) -> None:
    for _ in range(members):
        lab.add()
        lab.run(0.02)
    assert agree_within(lab, 20)


def agree_within(lab: Lab, seconds: int) -> bool:
    """Looked at once a second: among so many a look is dear."""
    for _ in range(seconds):
        lab.run(1.0)
        if lab.agree():
            return True
    return False


def slow_down(network: Any, hosts: Set[str]) -> None:
    """Each long message from this one to those hosts takes a while, one after the other."""
    send = network.send

    def send_slowly(link: int, *parts: Any, **kind: Any) -> None:
        target = network._links.get(link)
        if target is not None and target[0].address[0] in hosts and sum(map(len, parts)) > 1500:
            network._last_at[link] = max(network.world.now, network._last_at.get(link, 0.0)) + PAGE_TIME
        send(link, *parts, **kind)

    network.send = send_slowly


def test_the_slow_ones_of_a_hall_come_to_the_next_supernode_and_nobody_is_told_that_they_are_gone() -> None:
    lab = Lab(5, 3)
    fill(lab, SLOW_HALL - 3)
    slow, heir = lab.nodes[-SLOW_ONES:], lab.nodes[1]
    slow_down(heir.network, {node.network.address[0] for node in slow})
    told = {node: len(node.events) for node in lab.nodes}
    lab.nodes[0].kill()
    assert agree_within(lab, 60) and lab.rulers() == [heir]
    names = {node.membership.name for node in lab.living()}
    gone = [each for node in lab.living() for each in node.events[told[node] :] if each[0] == "left"]
    assert [each for each in gone if each[1] in names] == []


def test_who_comes_back_after_a_failover_and_loses_its_link_before_it_speaks_has_all_the_time_there_was() -> None:
    here = entry(1)
    returning, newcomer = Line(here._replace(present=False), 0.0), Line(here, 0.0)
    for line in (returning, newcomer):
        line.connect(7)
        line.lose_link(3.0)
    assert newcomer.has_expired(SILENT_MAX) and not returning.has_expired(RETURN_TIME - 0.1)
    assert returning.has_expired(RETURN_TIME)
    returning.hear(4.0)
    returning.lose_link(5.0)
    assert returning.has_expired(4.0 + SILENT_MAX), "it had come, and spoken"


@pytest.mark.parametrize("members", [3, 200])
def test_who_is_being_sent_the_roster_is_waited_for_longer_the_more_are_sent_it(members: int) -> None:
    hall = Hall(members)
    line = hall.role.register.on_link(members)
    assert line is not None
    until = line.heard_at + SILENT_MAX + ARRIVES_EACH * members
    assert not line.is_silent(until - 0.1, members) and line.is_silent(until + 0.1, members)
    hall.role.on_message(members, messages.Claim(messages.NO_CLAIM, False, "", ()), line.heard_at)
    assert not line.is_silent(until - 0.1, members), "each says so right behind its Join, long before it has the roster"
    hall.role.on_message(members, messages.Ping(1, 3, 0), line.heard_at)
    assert line.is_silent(line.heard_at + SILENT_MAX + 0.1, members)


def election_in(seed: int, members: int) -> Tuple[float, float]:
    """A supernode of so many dies: the lone messages for each until all agree, and in the fullest second of that."""
    lab = Lab(seed, 3)
    fill(lab, members)
    before = set(lab.world.lones)
    lab.nodes[0].kill()
    assert agree_within(lab, 20) and lab.rulers() == [lab.nodes[1]]
    counts = [count for second, count in lab.world.lones.items() if second not in before]
    return sum(counts) / len(lab.nodes), max(counts) / len(lab.nodes)


@pytest.mark.parametrize("seed", [3, 1, 2, 4, 5, 6][: amount(6, 1)])
def test_the_members_of_a_hall_ask_each_other_little_while_they_elect_and_agree_as_soon(
    monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """It is they who answer: at a thousand, what all asked in each second took more than a core of one machine.

    How much falls into the fullest second is a matter of the seed (14 to 20 messages for each, and 17 to 26 if they ask
    as in a small network): the one who takes over tells all of it there. So it is compared with the same hall.
    """
    hall = amount(failover.HALL, failover.HALL // 3)
    monkeypatch.setattr(failover, "HALL", hall)
    in_all, at_most = election_in(seed, hall + 7)
    monkeypatch.setattr(failover, "HALL", 2 * hall)
    in_all_if_small, at_most_if_small = election_in(seed, hall + 7)
    assert in_all < 0.82 * in_all_if_small and at_most < 0.92 * at_most_if_small
    assert in_all < 60 and at_most < 21


# ---- who can be reached -------------------------------------------------------------------------------------------


def test_whose_turn_it_is_to_try_another_is_found_without_a_look_at_each_members_address(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It was asked of every pair of a member that waits and one that could try it: a third of a core at 300."""
    looked: List[str] = []
    is_private = reaching.is_private
    monkeypatch.setattr(reaching, "is_private", lambda ip: looked.append(ip) or is_private(ip))
    reaching._kind_of.cache_clear()
    hall = Hall(200)
    for link in range(1, 201):
        hall.role.on_message(link, messages.ReachWanted(), hall.now)
    for _ in range(amount(60, 20)):
        hall.now += 0.5
        for link in range(1, 201):
            hall.role.on_message(link, messages.Pong(0, 3), hall.now)
        hall.role.on_timer(hall.now)
    asked = sum(len(hall.told(link, messages.TryReach)) for link in range(1, 201))
    assert asked >= 200 and len(looked) <= 200
    reaching._kind_of.cache_clear()


# ---- the bench ----------------------------------------------------------------------------------------------------


def test_a_small_hall_joins_in_the_bench() -> None:
    """Its light members do what the program's do: they are kept up with it."""
    command = [sys.executable, "node_tests/bench/bench_members.py", "--members", "10", "--phases", "join"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "10 members joined" in done.stdout, done.stdout + done.stderr
