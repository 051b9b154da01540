"""Stories of the port that a person knows: whatever became of who had it, it leads to the network.

    python node_tests/test_door.py 0-499     plays many random ones, and tells which fail
"""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Any, List, Optional, Tuple

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import pytest

from node_tests.stage.lab import Lab, content
from node_tests.stage.lab import Node as LabNode
from node_tests.stage.simulator import World
from node_tests.stage.stub_node import PORT, StubNode
from node_tests.stage.usage import play_seeds
from protocol import messages
from protocol.hearsay import Hearsay
from protocol.membership.door import PORTS_BEHIND, at_door, is_better, leads_here, places_behind, ports_behind
from protocol.membership.queries import Prober
from protocol.membership.searching import Ask, Found, Search
from protocol.messages import NOWHERE, ROLE_MEMBER, ROLE_SUPERNODE, Answer
from protocol.results import ChatReceived, DownloadDone, Outcome, Stopped

Place = Tuple[str, int]
HERE, THERE, ELSEWHERE = "10.0.0.1", "10.0.0.2", "10.0.0.3"
BEYOND = "10.0.1.4"
QUIET = 700  # lone messages in a second that ten searching nodes may cause, most of them to ports behind the known one
SEARCH: Optional[Place] = None
AT_LOOPBACK, AT_OWN = ("127.0.0.1", PORT), (HERE, PORT)


class Program(StubNode):
    """As the program: a first node that cannot have the port, because something mute holds it, says so and ends."""

    def on_outcome(self, kind: str, address: Any, text: str, now: float) -> None:
        super().on_outcome(kind, address, text, now)
        if kind == "supernode" and self.network.address[1] != PORT:
            self.world.after(0.6, lambda: None if self.network.door is not None else self.quit())


class Site:
    """Machines with several nodes each, which bind as `node_client.py` does."""

    def __init__(self, seed: int = 1, packets: bool = False) -> None:
        self.world = World(seed, packets=packets)
        self.nodes: List[StubNode] = []
        self.others: List[Any] = []  # programs that hold a port and say nothing

    def node(self, name: str, ip: str = HERE, target: Optional[Place] = AT_OWN) -> StubNode:
        taken = self.world.networks
        port = next(port for port in (PORT, *ports_behind(PORT)) if (ip, port) not in taken)
        node = Program(self.world, ip, name, port)
        self.nodes.append(node)
        return node.start(target)

    def joined(self, name: str, ip: str = HERE, target: Optional[Place] = AT_OWN) -> StubNode:
        node = self.node(name, ip, target)
        assert self.world.run_until(lambda: node.membership.is_joined, self.world.now + 25), node.events
        self.run(0.5)
        return node

    def other_program(self, ip: str = HERE) -> Any:
        self.others.append(self.world.network((ip, PORT)))
        return self.others[-1]

    def run(self, seconds: float) -> None:
        self.world.run(self.world.now + seconds)

    def awake(self) -> List[StubNode]:
        return [node for node in self.nodes if node.network.alive and not node.is_asleep]

    def is_one(self) -> bool:
        """Do all that live obey one supernode, and see the same members?"""
        awake = self.awake()
        rulers = {node.membership.supernode_id for node in awake}
        is_joined = all(node.membership.is_joined for node in awake)
        return is_joined and len(rulers) == 1 and len({tuple(node.names()) for node in awake}) == 1

    def becomes_one(self, limit: float) -> bool:
        return self.world.run_until(self.is_one, self.world.now + limit)


def told(node: StubNode, kind: str) -> List[Any]:
    return [event for event in node.events if event[0] == kind]


def outcome(node: StubNode) -> str:
    return told(node, "outcome")[-1][1] if told(node, "outcome") else ""


def end(node: StubNode, how: str) -> None:
    {"quit": node.quit, "kill": node.kill, "stop": node.sleep}[how]()


# ---- the first of a machine goes ----------------------------------------------------------------------------------


@pytest.mark.parametrize("packets", [False, True])
@pytest.mark.parametrize("target", [AT_LOOPBACK, AT_OWN, SEARCH])
@pytest.mark.parametrize("delay", [0, 1, 20])
@pytest.mark.parametrize("how", ["quit", "kill", "stop"])
def test_the_port_leads_to_the_network_when_who_had_it_is_gone(
    how: str, delay: int, target: Optional[Place], packets: bool
) -> None:
    if packets and (how == "stop" or target is SEARCH):
        pytest.skip("told by whole messages")  # the stub's stop is one of the node, not of its socket
    site = Site(seed=delay + len(how), packets=packets)
    ana, bo, cy = (site.joined(name, target=target) for name in ("ana", "bo", "cy"))
    end(ana, how)
    site.run(delay)
    dan = site.node("dan", target=target)
    site.run(3.0)
    assert outcome(dan) or told(dan, "notice"), "something is said within three seconds"
    assert site.world.run_until(lambda: outcome(dan) == "joined", site.world.now + 14), dan.events
    assert site.becomes_one(15.0)
    assert max(site.world.lones.values(), default=0) < QUIET, "no question is answered by a question without end"
    assert bo.is_ruling and len(bo.names()) == 3 and outcome(site.joined("eve", target=target)) == "joined"


@pytest.mark.parametrize("how", ["quit", "kill"])
def test_the_first_one_that_comes_back_with_the_same_command_joins_through_the_door(how: str) -> None:
    site = Site(seed=4)
    ana, bo = site.joined("ana"), site.joined("bo")
    end(ana, how)
    site.run(10)
    assert bo.network.door is not None
    back = site.joined("ana")
    assert outcome(back) == "joined" and back.network.address[1] in ports_behind(PORT)
    assert site.becomes_one(5.0) and bo.names() == ["bo", "ana"]


def test_a_machine_elsewhere_is_led_through_the_door_to_the_supernode() -> None:
    for target in (AT_OWN, SEARCH):
        site = Site(seed=5)
        ana, bo = site.joined("ana"), site.joined("bo")
        ana.quit()
        site.run(2)
        dan = site.joined("dan", THERE, target)
        assert dan.membership.supernode_id == bo.membership.node_id
        assert dan.membership.supernode_address == bo.network.address


def test_the_next_of_the_machine_takes_the_door_when_its_holder_goes_and_it_closes_with_the_node() -> None:
    site = Site(seed=6)
    at_ana = (THERE, PORT)
    ana, bo, cy = site.joined("ana", THERE, at_ana), site.joined("bo", HERE, at_ana), site.joined("cy", HERE, at_ana)
    assert bo.network.door is None and cy.network.door is None and bo.network.address == AT_OWN
    bo.kill()
    site.run(0.3)
    assert cy.network.door is not None
    di = site.joined("di")
    cy.quit()
    site.run(0.5)
    assert di.network.door is not None
    di.quit()
    site.run(0.5)
    assert AT_OWN not in site.world.networks
    site.run(12)
    assert ana.names() == ["ana"]


def test_a_port_that_another_program_took_is_passed_by() -> None:
    for target in (AT_OWN, AT_LOOPBACK, SEARCH):
        site = Site(seed=7)
        ana, bo, cy = (site.joined(name, target=target) for name in ("ana", "bo", "cy"))
        ana.network.close()
        site.other_program()
        site.run(1)
        dan = site.node("dan", target=target)
        assert site.world.run_until(lambda: outcome(dan) == "joined", site.world.now + 17), dan.events  # noqa: B023
        assert site.becomes_one(15.0) and bo.is_ruling
        site.others[-1].close()
        site.run(0.5)
        assert AT_OWN in site.world.networks, "the port is free again, and somebody has a door there"


def test_another_network_known_by_a_port_close_behind_is_not_taken_for_this_one() -> None:
    site = Site(seed=8)
    other = StubNode(site.world, HERE, "zoe", PORT + 2)
    other._do(other.membership.start, (HERE, PORT + 2), PORT + 2, 0.0)
    site.run(2)
    assert outcome(other) == "supernode"
    ana = site.joined("ana")
    assert outcome(ana) == "supernode" and ana.membership.network_id != other.membership.network_id


def test_a_newcomer_waits_for_who_takes_over_and_founds_nothing_meanwhile() -> None:
    site = Site(seed=9)
    ana, bo, cy = (site.joined(name) for name in ("ana", "bo", "cy"))
    ana.kill()
    bo.kill()
    dan = site.node("dan")
    site.run(3)
    waiting = "the network is there, but its supernode gives no sign; waiting for who takes over ..."
    assert told(dan, "notice") == [("notice", waiting)]
    assert not outcome(dan)
    assert site.world.run_until(lambda: outcome(dan) == "joined", site.world.now + 13) and cy.is_ruling


def test_when_nobody_takes_over_in_time_that_is_said_and_no_second_network_founded() -> None:
    site = Site(seed=14)
    ana, bo = site.joined("ana"), site.joined("bo")
    ana.sleep()
    bo.membership._course._inquiry.gone_after = lambda now: 60.0  # type: ignore[method-assign]  # it hopes for long
    dan = site.node("dan")
    site.run(22)
    kind, _, text = told(dan, "outcome")[-1][1:]
    assert kind == "refused" and text.startswith("The network is there, but its supernode gives no sign")


def test_one_that_slept_while_it_searched_asks_again_before_it_founds_a_network() -> None:
    site = Site(seed=15)
    site.joined("ana", THERE, (THERE, PORT))
    dan = site.node("dan", HERE, SEARCH)
    dan.sleep()
    site.run(10)
    dan._slept.clear()  # what came meanwhile did not fit into the socket
    dan.wake()
    site.run(3)
    assert outcome(dan) == "joined"


# ---- what the door says -------------------------------------------------------------------------------------------


class Asker:
    """Asks and joins wherever it likes, and keeps what it is told."""

    def __init__(self, world: World, ip: str = ELSEWHERE) -> None:
        self.network, self.world = world.network((ip, PORT)), world
        self.answers: List[Answer] = []
        self.messages: List[Any] = []
        self.lost: List[str] = []
        world.attach(self.network, self)

    def ask(self, place: Place, message: Any = None) -> Optional[Answer]:
        self.answers.clear()
        self.network.send_lone(place, messages.encode(message or messages.Query(bytes(8))))
        self.world.run(self.world.now + 0.1)
        return self.answers[-1] if self.answers else None

    def on_lone(self, address: Any, data: bytes, now: float) -> None:
        message = messages.decode(data)
        if type(message) is Answer:
            self.answers.append(message)

    def on_link_up(self, link: int, address: Any, incoming: bool, now: float) -> None:
        join = messages.Join(messages.NO_NETWORK, 0, bytes(8), bytes(16), "x", True, 0)
        self.network.send(link, *messages.encode_parts(join))

    def on_message(self, link: int, data: bytes, now: float) -> None:
        self.messages.append(messages.decode(data))

    def on_link_lost(self, link: int, reason: str, now: float) -> None:
        self.lost.append(reason)

    def on_timer(self, now: float) -> None:
        pass

    def next_deadline(self) -> float:
        return float("inf")


def test_the_door_of_a_member_gives_the_true_age_of_what_it_knows() -> None:
    site = Site(seed=10)
    ana, bo, cy = (site.joined(name) for name in ("ana", "bo", "cy"))
    ana.kill()
    site.run(3.0)
    asker = Asker(site.world)
    answer = asker.ask(AT_OWN)
    assert answer is not None and answer.role == ROLE_MEMBER and answer.supernode_id == ana.membership.node_id
    assert 2000 < answer.heard_ago_ms < 6000, "a dead supernode is not vouched for"


def test_the_door_of_the_supernode_says_so_as_a_member_that_names_itself() -> None:
    site = Site(seed=11)
    ana, bo = site.joined("ana"), site.joined("bo")
    ana.quit()
    site.run(1.0)
    asker = Asker(site.world)
    answer = asker.ask(AT_OWN)
    assert answer is not None and answer.role == ROLE_MEMBER and answer.heard_ago_ms == 0
    assert answer.node_id == answer.supernode_id == bo.membership.node_id and answer.supernode == bo.network.address
    direct = asker.ask(bo.network.address)
    assert direct is not None and direct.role == ROLE_SUPERNODE


@pytest.mark.parametrize("packets", [False, True])
def test_a_join_that_comes_to_the_door_is_sent_on(packets: bool) -> None:
    site = Site(seed=12, packets=packets)
    ana, bo, cy = (site.joined(name) for name in ("ana", "bo", "cy"))
    ana.quit()
    site.run(1.0)
    holder = next(node for node in site.awake() if node.network.door is not None)
    asker = Asker(site.world)
    asker.network.connect(AT_OWN)
    site.run(1.0)
    assert [type(message) for message in asker.messages] == [messages.NotSupernode]
    assert asker.messages[0].supernode == bo.network.address and asker.lost
    assert holder.names() == ["bo", "cy"]


def test_a_door_in_no_network_and_a_place_that_leads_nowhere_are_silent() -> None:
    site = Site(seed=13)
    _, bo = site.joined("ana"), site.joined("bo")
    asker = Asker(site.world)
    for place in ((THERE, PORT), (HERE, PORT + 1), (NOWHERE[0], PORT + 1)):
        assert asker.ask(AT_OWN, messages.Wanted(bytes(8), place)) is None
    for place in (AT_OWN, (NOWHERE[0], PORT)):
        assert asker.ask(bo.network.address, messages.Wanted(bytes(8), place)) is not None
    alone = StubNode(site.world, THERE, "dan", PORT)
    assert asker.ask((THERE, PORT), messages.Wanted(bytes(8), (THERE, PORT))) is None
    assert outcome(alone) == ""


def test_places_of_former_supernodes_lead_here_and_loopback_means_the_teller() -> None:
    known = [("10.0.0.9", PORT), ("127.0.0.1", 7000)]
    assert leads_here(("10.0.0.9", PORT), (THERE, 1), known, [HERE], PORT)
    assert not leads_here(("10.0.0.9", 7000), (THERE, 1), known, [HERE], PORT)
    assert leads_here((HERE, 7000), (THERE, 1), known, [HERE], PORT)
    assert leads_here(("127.0.0.1", PORT), ("127.0.0.1", 1), [], [HERE], PORT)
    assert not leads_here(("127.0.0.1", PORT), (THERE, 1), [], [HERE], PORT), "that is the asker's machine"


def test_ports_behind_end_where_ports_end() -> None:
    assert len(places_behind((HERE, PORT))) == PORTS_BEHIND and list(ports_behind(65533)) == [65534, 65535]
    assert list(ports_behind(65535)) == []


# ---- a supernode that nobody ever joined --------------------------------------------------------------------------


def lone_and_large(seed: int) -> Tuple[Site, StubNode, List[StubNode]]:
    """Two networks that did not see each other begin, one of them with one node."""
    site = Site(seed)
    site.world.broadcasts = False
    large = [site.joined("ana"), site.joined("bo")]
    dan = site.joined("dan", THERE, (THERE, PORT))
    assert outcome(dan) == "supernode"
    return site, dan, large


def test_a_lone_supernode_goes_to_the_larger_network_at_its_port_and_says_so() -> None:
    site, dan, (ana, bo) = lone_and_large(20)
    dan.say("anybody here?")
    site.run(1)
    site.world.broadcasts = True
    assert site.becomes_one(12.0)
    assert dan.events[-1][0] != "lost" and told(dan, "outcome")[-1][1:3] == ("joined", ana.network.address)
    assert ("notice", "a network was here before; nobody had joined this node, so it goes there") in dan.events
    site.run(1)
    assert dan.chat == bo.chat == [("dan", "anybody here?")], "what was said alone is said there, and once"
    assert not dan.is_ruling and dan.membership.roster.labels() == bo.membership.roster.labels()


@pytest.mark.parametrize("seed", range(6))
def test_of_two_lone_ones_the_smaller_id_wins(seed: int) -> None:
    site = Site(seed)
    site.world.broadcasts = False
    # Not neighbours, whom each would ask one by one.
    ana, bo = site.joined("ana", HERE, SEARCH), site.joined("bo", BEYOND, SEARCH)
    assert outcome(ana) == outcome(bo) == "supernode"
    site.world.broadcasts = True
    assert site.becomes_one(12.0)
    winner = min((ana, bo), key=lambda node: node.membership.node_id)
    assert winner.is_ruling and len(winner.names()) == 2


def test_two_networks_that_both_have_members_stay_two_and_say_so() -> None:
    site, dan, (ana, bo) = lone_and_large(22)
    eve = site.joined("eve", THERE, (THERE, PORT))
    site.world.broadcasts = True
    site.run(40)
    assert dan.is_ruling and ana.is_ruling and len(dan.names()) == len(ana.names()) == 2
    for node in (dan, ana):
        assert [event for event in told(node, "notice") if "another network is at" in event[1]], node.events
    eve.quit()
    site.run(30)
    assert dan.is_ruling, "somebody had joined it"


def test_who_is_only_asked_by_a_larger_network_finds_it_by_asking_back() -> None:
    site, dan, (ana, bo) = lone_and_large(23)
    ana.membership.search_port = PORT
    dan.supernode.rivals._next_heal = float("inf")  # its own broadcasts do not get there
    for _ in range(2):  # the first alone has not paid for an Answer and a question
        ana._do(ana.supernode._prober.ask, dan.network.address, "heal", site.world.now)
    assert site.becomes_one(5.0)
    assert outcome(dan) == "joined"


def test_whoever_asks_a_lone_supernode_is_sent_no_more_than_it_has_sent() -> None:
    """Its address may be forged: with the question that is asked back it once got 1.4 times as many bytes."""
    site = Site(25)
    dan = site.joined("dan", THERE, (THERE, PORT))
    site.world.broadcasts = False  # what it asks everybody is nobody's doing
    asker, got = Asker(site.world, BEYOND), []  # no neighbour, whom it asks one by one
    asker.on_lone = lambda address, data, now: got.append(len(data))  # type: ignore[method-assign]
    for asked in range(1, 6):
        asker.ask(dan.network.address)
        site.run(6.0)
        assert sum(got) <= asked * len(messages.encode(messages.Query(bytes(8))))
    assert len(got) > 5, "it is asked back after all"


def test_a_network_that_does_not_take_it_in_costs_a_lone_supernode_nothing() -> None:
    site = Site(24)
    dan = site.joined("dan", THERE, (THERE, PORT))
    liar = Asker(site.world, ELSEWHERE)

    def on_lone(address: Any, data: bytes, now: float) -> None:
        message = messages.decode(data)
        if type(message) is messages.Query:
            fields = 9, bytes(7) + b"L", ROLE_SUPERNODE, bytes(8), NOWHERE, 0, 500, "big", bytes(16)
            liar.network.send_lone(address, messages.encode(Answer(message.nonce, bytes(8), bytes(15) + b"N", *fields)))

    liar.on_lone = on_lone  # type: ignore[method-assign]
    site.run(5)
    dan.say("still here")
    site.run(120)
    assert dan.is_ruling and dan.membership.is_joined and dan.chat == [("dan", "still here")]
    joins = [message for message in liar.messages if type(message) is messages.Join]
    assert 1 <= len(joins) <= 5, "tried more and more seldom"
    assert not told(dan, "lost")
    eve = site.joined("eve", THERE, (THERE, PORT))
    assert outcome(eve) == "joined" and dan.is_ruling


def answer_of(term: int, count: int, node_id: bytes) -> Answer:
    return Answer(bytes(8), bytes(8), b"N" * 16, term, node_id, ROLE_SUPERNODE, bytes(8), NOWHERE, 0, count, "x",
                  bytes(16))  # fmt: skip


def test_larger_or_older_is_better_then_the_smaller_id_and_at_last_who_does_not_come() -> None:
    own, less, more = b"5" * 8, b"4" * 8, b"6" * 8
    assert is_better(answer_of(1, 2, more), own, 0) and is_better(answer_of(2, 1, more), own, 0)
    assert is_better(answer_of(1, 1, less), own, 0) and not is_better(answer_of(1, 1, more), own, 2)
    assert is_better(answer_of(1, 1, more), own, 3)


def test_while_it_hands_over_a_supernodes_door_names_nobody() -> None:
    site = Site(25)
    ana = site.joined("ana")
    standing = ana.membership._standing(site.world.now)._replace(role=messages.ROLE_ALONE)
    told_there = at_door(standing, True, AT_OWN)
    assert (told_there.role, told_there.supernode, told_there.supernode_id) == (ROLE_MEMBER, NOWHERE, bytes(8))


def test_shares_and_a_download_of_a_lone_supernode_go_on_in_the_network_that_it_goes_to(tmp_path: Path) -> None:
    lab = Lab(tmp_path, seed=3)
    ana, bo = lab.node("ana", shared={"a.bin": content(3_000_000)}), lab.node("bo")
    lab.world.broadcasts = False
    (tmp_path / "zoe").mkdir()
    (tmp_path / "zoe" / "z.bin").write_bytes(content(50_000, seed=9))
    zoe = LabNode(lab, "zoe", 9)
    lab.nodes.append(zoe)
    zoe.start()
    assert zoe.told(Outcome)[-1].kind == "supernode"
    answers: List[Any] = []
    zoe.do("fetch", ana.list("a.bin")[0], lab.world.now, answers.append)
    zoe.do("say", "is anybody here?", lab.world.now)
    lab.run(1.0)
    assert [answer.kind for answer in answers] == ["started"] and not zoe.told(DownloadDone)
    lab.world.broadcasts = True
    assert lab.world.run_until(lambda: bool(zoe.told(DownloadDone)), lab.world.now + 15), zoe.events
    assert zoe.read("a.bin") == content(3_000_000) and not zoe.told(Stopped)
    assert [event.kind for event in zoe.told(Outcome)] == ["supernode", "joined"]
    lab.run(2.0)
    assert bo.fetched("z.bin") and [event.text for event in bo.told(ChatReceived)] == ["is anybody here?"]
    lab.close()


# ---- an address where nobody answers ------------------------------------------------------------------------------


@pytest.mark.parametrize("delay", [0, 1, 20])
@pytest.mark.parametrize("how", ["quit", "kill"])
def test_the_network_whose_supernode_was_at_the_address_is_joined_where_it_is_now(how: str, delay: int) -> None:
    site = Site(30)
    ana, bo, _ = site.joined("ana"), site.joined("bo", THERE), site.joined("cy", ELSEWHERE)
    end(ana, how)
    site.run(delay)
    dan = site.node("dan", "10.0.0.4")
    assert site.world.run_until(lambda: outcome(dan) == "joined", site.world.now + 17), dan.events
    where = "nobody answers at %s:%d; the network that was there is at %s:%d now" % (*AT_OWN, *bo.network.address)
    assert ("notice", where) in dan.events
    assert site.becomes_one(10.0)


def test_another_network_is_a_hint_and_is_not_joined() -> None:
    site = Site(31)
    site.joined("zoe", THERE, (THERE, PORT))
    site.joined("yan", ELSEWHERE, (THERE, PORT))
    dan = site.node("dan", "10.0.0.4", ("10.0.0.77", PORT))
    site.run(3)
    assert told(dan, "outcome") == [("outcome", "nobody", (THERE, PORT), "zoe's network is at 10.0.0.2:6020")]


def test_who_answers_at_the_address_is_joined_though_others_know_it() -> None:
    site = Site(32)
    ana, bo, cy = site.joined("ana"), site.joined("bo", THERE), site.joined("cy", ELSEWHERE)
    ana.kill()
    site.run(20)
    site.world.broadcasts = False
    new = site.joined("new", HERE, AT_OWN)
    di = site.joined("di", HERE, AT_OWN)
    site.world.broadcasts = True
    dan = site.joined("dan", "10.0.0.4", AT_OWN)
    assert dan.membership.network_id == new.membership.network_id == di.membership.network_id
    assert not told(dan, "notice") and bo.is_ruling and cy.membership.is_joined


@pytest.mark.parametrize("ruler_answers", [True, False])
def test_one_who_claims_an_address_keeps_nobody_from_the_member_that_is_there(ruler_answers: bool) -> None:
    """Its first answer is lost, so everybody is asked who knows it, and what it names was asked for another reason."""
    impostor, dan = ("10.0.0.77", PORT), ("10.0.0.4", PORT)
    network = World().network(dan)
    prober, rng = Prober(network, random.Random(1), Hearsay()), random.Random(2)
    search = Search(prober, rng, b"dan-----", dan, [dan[0]], (THERE, PORT), PORT, 0.0)
    who = (b"n" * 16, 1, b"somebody", ROLE_SUPERNODE, bytes(8))
    blank = Answer(bytes(8), bytes(8), *who, NOWHERE, 0, 9, "", bytes(16))
    member = blank._replace(role=ROLE_MEMBER, supernode=AT_OWN)
    assert search.on_timer(0.0) is None and search.on_timer(0.5) is None
    search.on_answer(impostor, blank, Ask.FORMER, 0.52)
    search.on_answer((THERE, PORT), member, Ask.BEYOND, 0.52)
    search.on_answer((THERE, PORT), member, Ask.SEARCH, 0.53)
    if ruler_answers:
        search.on_answer(AT_OWN, blank, Ask.BEYOND, 0.54)
    assert search.on_timer(0.6) == (Found(AT_OWN) if ruler_answers else None)
    assert search.on_timer(1.5) != Found(impostor)


@pytest.mark.parametrize("delay", [0, 3, 20])
def test_the_first_one_comes_back_to_its_own_address_with_a_new_folder(delay: int) -> None:
    site = Site(33)
    ana, bo, _ = site.joined("ana"), site.joined("bo", THERE), site.joined("cy", ELSEWHERE)
    ana.kill()
    site.run(delay)
    back = site.node("ana")
    assert site.world.run_until(lambda: bool(outcome(back)), site.world.now + 17)
    assert site.becomes_one(30.0) and bo.is_ruling and len(bo.names()) >= 3
    assert back.network.address == AT_OWN


def test_who_comes_back_to_its_own_address_is_told_that_the_network_is_elsewhere_now() -> None:
    site = Site(34)
    ana, bo, _ = site.joined("ana"), site.joined("bo", THERE), site.joined("cy", ELSEWHERE)
    last = ana.membership.last_network()
    ana.kill()
    site.run(20)
    back = Program(site.world, HERE, "ana", PORT)
    site.nodes.append(back)
    back.membership.start(AT_OWN, PORT, site.world.now, last)
    back.network.rearm()
    assert site.becomes_one(17.0) and bo.is_ruling and outcome(back) == "joined"
    where = "nobody answers at %s:%d; the network of last time is at %s:%d" % (*AT_OWN, *bo.network.address)
    assert told(back, "notice") == [("notice", where)]


# ---- random stories -----------------------------------------------------------------------------------------------


class Story:
    """Some minutes on three machines: nodes come and go in all ways, ports are taken and given free."""

    def __init__(self, seed: int) -> None:
        self.site, self.rng = Site(seed), random.Random(seed)
        self.count = 0
        self.was_empty = False  # for a moment no member lived: a newcomer then founds a network with every right
        self.told: List[str] = []

    def play(self) -> None:
        self.come()
        self.site.run(4)
        for _ in range(12):
            kinds = (self.come, self.come, self.come, self.go, self.go, self.wake, self.take_port, self.free_port)
            self.rng.choice(kinds)()
            self.was_empty = self.was_empty or not any(node.membership.is_joined for node in self.site.awake())
            self.site.run(self.rng.choice((0.0, 0.3, 1.0, 4.0, 15.0)))
        for node in self.site.nodes:
            if node.is_asleep:
                node.wake()
        while self.site.others:
            self.free_port()

    def tell(self, line: str) -> None:
        self.told.append("%7.2f %s" % (self.site.world.now, line))

    def come(self) -> None:
        """Where one who knows the network would look: at a machine that has a node of it, or everywhere."""
        if len(self.site.awake()) >= 8:
            return
        self.count += 1
        ip = self.rng.choice((HERE, HERE, THERE, ELSEWHERE))
        places = [(node.network.address[0], PORT) for node in self.site.awake()]
        target = self.rng.choice([*places, SEARCH]) if places else SEARCH
        node = self.site.node("n%d" % self.count, ip, target)
        self.tell("%s starts on %s:%d at %s" % (node.membership.name, *node.network.address, target))

    def go(self) -> None:
        awake = self.site.awake()
        if len(awake) > 1:
            node, how = self.rng.choice(awake), self.rng.choice(("quit", "kill", "stop"))
            self.tell("%s: %s" % (node.membership.name, how))
            end(node, how)

    def wake(self) -> None:
        asleep = [node for node in self.site.nodes if node.is_asleep and node.network.alive]
        if asleep:
            node = self.rng.choice(asleep)
            self.tell("%s goes on" % node.membership.name)
            node.wake()

    def take_port(self) -> None:
        ip = self.rng.choice((HERE, THERE, ELSEWHERE))
        if (ip, PORT) not in self.site.world.networks:
            self.tell("another program at %s" % ip)
            self.site.other_program(ip)

    def free_port(self) -> None:
        if self.site.others:
            self.site.others.pop(self.rng.randrange(len(self.site.others))).close()

    def fault(self) -> str:
        """Why this did not end well, or nothing."""
        members = [node for node in self.site.awake() if node.membership.is_joined]
        networks = {node.membership.network_id for node in members}
        lone = [node.membership.name for node in members if node.is_ruling and node.supernode.neighbours.is_lone]
        if len(networks) > 1 and (lone or not self.was_empty):
            return "%d networks, alone: %s" % (len(networks), ", ".join(lone))
        for ip in sorted({node.network.address[0] for node in members}):
            late = self.site.joined("late at %s" % ip, ip, (ip, PORT))
            if late.membership.network_id not in networks or outcome(late) != "joined":
                return "a newcomer at %s came elsewhere" % ip
        return ""


@pytest.mark.parametrize("seed", range(25))
def test_random_comings_and_goings_end_in_one_network_at_every_port(seed: int) -> None:
    story = Story(seed)
    story.play()
    story.site.run(60)
    fault = story.fault()
    assert max(story.site.world.lones.values()) < QUIET, "\n".join(story.told)
    assert not fault, "\n".join([fault, *story.told])


if __name__ == "__main__":
    test = test_random_comings_and_goings_end_in_one_network_at_every_port
    sys.exit(play_seeds(lambda seed, tell: test(seed), __doc__))
