"""Who yields to whom: a living supernode and those who claim its office, in virtual time."""

from __future__ import annotations

import random
from typing import Any, List, Tuple, Union

import pytest

from node_tests.stage.stranger import Stranger, obeyed_by_all
from node_tests.stage.stub_node import PORT, Lab, StubNode
from protocol import messages
from protocol.credit import ANSWER_SIZE
from protocol.membership.heirs import heirloom_of, marked
from protocol.membership.lost import LostPlaces
from protocol.membership.promises import FIRST_WAIT, HOSTS_MAX, KEPT_AFTER, WAIT_MAX, Promises
from protocol.membership.proofs import node_id_of, with_proof
from protocol.messages import NOWHERE, ROLE_MEMBER, ROLE_SUPERNODE, Answer, decode, encode
from protocol.ruling.rivals import ALONE_AFTER, FORGOTTEN_AFTER, RIVALS_MAX, STANDS_AFTER, Meetings, gives_way

THRONE = b"throne!!"


def claim(query: messages.Query, lab: Lab, term: int, obeys: bytes = THRONE, **fields: Any) -> Answer:
    """What only a member can say, since it knows the secret: I rule in that term."""
    member = lab.nodes[0].membership
    answer = Answer(
        query.nonce, bytes(8), member.network_id, term, THRONE,
        ROLE_SUPERNODE, obeys, NOWHERE, 0, 9, "mallory", bytes(16),
    )._replace(**fields)  # fmt: skip
    return with_proof(answer, member._view.secret)


def throne(lab: Lab, ip: str = "10.0.0.66", port: int = PORT, term: int = 2) -> Stranger:
    """Somebody at that place claims to rule, whenever it is asked."""
    stranger = Stranger(lab.world, ip, port)
    stranger.answer = lambda query: claim(query, lab, term)
    return stranger


def hint(stranger: Stranger, lab: Lab, seconds: float) -> None:
    """It says to all, every second, that their term is old."""
    for _ in range(int(seconds)):
        for node in lab.nodes:
            stranger.network.send_lone(node.network.address, encode(messages.Stale(2, NOWHERE)))
        lab.run(1.0)


def nothing_changed(lab: Lab) -> bool:
    return lab.rulers() == [lab.nodes[0]] and lab.agree() and not any(node.changes for node in lab.nodes)


def test_a_member_of_one_seconds_standing_deposes_nobody() -> None:
    lab = Lab(51, 4)
    mallory = Stranger(lab.world, "10.0.0.66")
    mallory.join(("10.0.0.1", PORT))
    lab.run(1.0)
    assert mallory.last(messages.Welcome).secret == lab.nodes[0].membership._view.secret
    usurper = throne(lab, "10.0.0.67")
    hint(usurper, lab, 60.0)  # mallory is silent meanwhile, and counts as lost
    assert usurper.queries and nothing_changed(lab)


def test_a_supernode_that_lost_somebody_yields_to_none_but_those() -> None:
    lab = Lab(52, 5)
    lab.nodes[4].kill()
    lab.run(20.0)
    hint(throne(lab), lab, 60.0)
    assert nothing_changed(lab)


def test_a_supernode_that_has_slept_yields_to_no_stranger_to_its_members() -> None:
    lab = Lab(53, 4)
    usurper = throne(lab)
    lab.nodes[0].sleep()
    lab.run(3.5)
    lab.nodes[0].wake()
    hint(usurper, lab, 30.0)
    assert nothing_changed(lab)


def test_a_living_member_that_names_another_ruler_is_no_witness() -> None:
    lab = Lab(54, 4)
    usurper, liar = throne(lab), lab.nodes[3]

    def lie(address: Any, query: messages.Query, now: float) -> None:
        fields = {"node_id": liar.membership.node_id, "role": ROLE_MEMBER, "supernode": usurper.network.address}
        liar.network.send_lone(address, encode(claim(query, lab, 2, **fields)))

    liar.membership._answering.answer = lie  # type: ignore[method-assign]
    lab.nodes[2].kill()
    lab.run(20.0)
    hint(usurper, lab, 40.0)
    ruler = lab.nodes[0].supernode
    assert ruler is not None and ruler.term == 1
    assert [node.membership.supernode_id for node in lab.living()] == [ruler.seat.node_id] * 3


def test_one_that_was_lost_and_rules_alone_is_yielded_to() -> None:
    lab = Lab(55, 4)
    lost = lab.nodes[3]
    lab.world.cut(["10.0.0.4"], ["10.0.0.1", "10.0.0.2", "10.0.0.3"])
    lab.run(40.0)
    assert lab.rulers() == [lab.nodes[0], lost]
    lab.world.heal()
    assert lab.wait(lambda: lab.rulers() == [lost] and lab.agree(), 30.0) is not None


def test_a_ruler_whom_one_of_the_lost_obeys_is_yielded_to() -> None:
    """The supernode slept; its member at the second place has gone over to one that nobody here ever heard of."""
    lab = Lab(56, 3)
    ruler = lab.nodes[0].supernode
    assert ruler is not None
    lab.nodes[2].kill()
    lab.run(20.0)
    usurper = throne(lab)
    witness = Stranger(lab.world, "10.0.0.3")  # at the place where somebody was lost
    witness.answer = lambda query: claim(
        query, lab, 2, node_id=b"witness!", role=ROLE_MEMBER, supernode=usurper.network.address
    )
    assert lab.wait(lambda: ruler.has_ended, 15.0) is not None


def test_halves_that_each_went_through_several_supernodes_find_together() -> None:
    lab = Lab(57, 8)
    ips = [node.network.address[0] for node in lab.nodes]
    lab.world.cut(ips[:4], ips[4:])
    lab.run(30.0)
    for old in (0, 4):  # one half by a good-bye, the other by a death
        lab.nodes[old].quit() if old == 0 else lab.nodes[old].kill()
    lab.run(30.0)
    lab.nodes[5].quit()
    lab.run(5.0)
    assert lab.rulers() == [lab.nodes[1], lab.nodes[6]]
    lab.world.heal()
    assert lab.wait(lambda: len(lab.rulers()) == 1 and lab.agree(), 30.0) is not None


def test_a_newcomer_who_rules_in_time_knows_whom_the_network_lost_before_it_came() -> None:
    """Both halves are cut, one is taken over by one that came after the cut: it looks where the other half is."""
    lab = Lab(57, 4)
    ips = [node.network.address[0] for node in lab.nodes]
    lab.world.cut(ips[:1], ips[1:])
    lab.run(60.0)
    newcomer = StubNode(lab.world, "10.0.0.9", "new").start(("10.0.0.1", PORT))
    lab.nodes.append(newcomer)
    lab.world.cut(["10.0.0.9"], ips[1:])
    lab.run(5.0)
    assert newcomer.membership.is_joined
    lab.nodes[0].quit()
    lab.run(5.0)
    assert lab.rulers() == [lab.nodes[1], newcomer]
    assert newcomer.supernode is not None and set(newcomer.supernode.witnesses.lost_places) >= {("10.0.0.3", PORT)}
    for node in lab.nodes:
        node.network.broadcast_lone = lambda port, data: None  # type: ignore[method-assign]
    lab.world.heal()
    assert lab.wait(lambda: len(lab.rulers()) == 1 and lab.agree(), 30.0) is not None


def half_of_newcomers(lab: Lab, verb: str) -> None:
    """The last node is cut off and rules; somebody joins it, and then rules alone."""
    others = ["10.0.0.1", "10.0.0.2"]
    lab.world.cut(["10.0.0.3"], others)
    lab.run(40.0)
    lab.nodes.append(StubNode(lab.world, "10.0.0.9", "new").start(("10.0.0.3", PORT)))
    lab.world.cut(["10.0.0.9"], others)
    lab.run(5.0)
    getattr(lab.nodes[2], verb)()
    lab.run(40.0)


@pytest.mark.parametrize("verb", ["quit", "kill"])
def test_an_heir_of_the_lost_is_yielded_to_though_all_of_them_are_gone(verb: str) -> None:
    lab = Lab(59, 3)
    half_of_newcomers(lab, verb)
    assert lab.rulers() == [lab.nodes[0], lab.nodes[3]]
    lab.world.heal()
    assert lab.wait(lambda: lab.rulers() == [lab.nodes[3]] and lab.agree(), 30.0) is not None


def joins(
    lab: Lab, name: str, where: StubNode, away: List[StubNode], ip: str = "", port: int = PORT
) -> StubNode:  # fmt: skip
    """Somebody new on this side of the cut."""
    ip = ip or "10.0.0.%d" % (len(lab.nodes) + 20)
    lab.world.cut([ip], [node.network.address[0] for node in away])
    newcomer = StubNode(lab.world, ip, name, port).start(where.network.address)
    lab.nodes.append(newcomer)
    lab.run(5.0)
    assert newcomer.membership.is_joined
    return newcomer


def test_where_nobody_is_left_who_could_tell_the_halves_stay_apart_and_both_persons_are_told_once() -> None:
    """It cannot be told from a member that made it up; who wants to go there types its address."""
    lab = Lab(59, 3)
    here, there = lab.nodes[:2], lab.nodes[2:]
    lab.world.cut(["10.0.0.3"], ["10.0.0.1", "10.0.0.2"])
    lab.run(40.0)
    there += [joins(lab, name, there[0], here) for name in ("eva", "fay")]
    here += [joins(lab, name, here[0], there) for name in ("gus", "hal")]
    for node in (here[0], here[1], there[0]):
        node.quit()
        lab.run(5.0)
    notices: List[str] = []
    assert lab.rulers() == [there[1], here[2]]
    for ruler in lab.rulers():
        assert ruler.supernode is not None
        ruler.supernode.neighbours._on_notice = notices.append
    lab.world.heal()
    lab.run(200.0)
    assert lab.rulers() == [there[1], here[2]]
    assert sorted(notice.split(",")[0] for notice in notices) == [
        "another network is at 10.0.0.23:6020 (eva",
        "another network is at 10.0.0.25:6020 (gus",
    ]


# ---- who was known only to the dead -------------------------------------------------------------------------------


def two_heirs_of_a_dead_supernode(lab: Lab) -> Tuple[List[StubNode], List[StubNode]]:
    """The supernode dies; in one half the next one takes over, its newcomer follows it by a good-bye, and rules in a
    later term. The older half knows nobody there: only the dead one could have known the heirloom that shows it."""
    older, newer = [lab.nodes[2]], [lab.nodes[1]]
    lab.world.cut(["10.0.0.2"], ["10.0.0.3"])
    lab.nodes[0].kill()
    lab.run(40.0)
    assert lab.rulers() == [newer[0], older[0]]
    return older, newer


def check_that_they_find_together(lab: Lab, ruler: StubNode, seconds: float) -> None:
    lab.world.heal()
    assert lab.wait(lambda: lab.rulers() == [ruler] and lab.agree(), seconds) is not None
    lab.run(60.0)
    assert lab.rulers() == [ruler] and lab.agree()


def test_a_newer_supernode_that_is_alone_goes_over_to_the_older_one_that_cannot_know_it() -> None:
    lab = Lab(64, 3)
    older, newer = two_heirs_of_a_dead_supernode(lab)
    older.append(joins(lab, "eva", older[0], newer))
    newer.append(joins(lab, "fay", newer[0], older))
    newer[0].quit()
    lab.run(20.0)
    assert lab.rulers() == [older[0], newer[1]] and newer[1].membership.term > older[0].membership.term
    check_that_they_find_together(lab, older[0], 30.0)


def test_a_newer_supernode_with_members_goes_over_to_the_older_one_that_it_lost_and_that_cannot_know_it() -> None:
    """Its members come after it, into an earlier term; who takes over from there is newer than all that were."""
    lab = Lab(65, 3)
    older, newer = two_heirs_of_a_dead_supernode(lab)
    older.append(joins(lab, "eva", older[0], newer))
    newer += [joins(lab, name, newer[0], older) for name in ("fay", "gus")]
    newer[0].quit()
    lab.run(5.0)
    last_term = newer[1].membership.term
    assert lab.rulers() == [older[0], newer[1]] and last_term > older[0].membership.term
    check_that_they_find_together(lab, older[0], 30.0)
    assert {node.membership.term for node in lab.living()} == {2}
    older[0].kill()
    assert lab.wait(lambda: len(lab.rulers()) == 1 and lab.agree(), 40.0) is not None
    assert lab.rulers()[0].membership.term > 2


def test_a_supernode_that_was_left_by_all_is_not_taken_from_the_next_ones_who_come_before_it_is_long_alone() -> None:
    """Between two members nobody is here for a moment: that is no time for a stranger to take the office."""
    lab = Lab(66, 2)
    lab.nodes[1].quit()
    lab.run(1.0)
    hint(throne(lab), lab, ALONE_AFTER - 4.0)
    joins(lab, "eva", lab.nodes[0], [])
    hint(throne(lab, "10.0.0.67"), lab, 60.0)
    assert nothing_changed(lab)


def test_who_is_alone_goes_to_a_newer_one_and_rules_again_where_that_was_an_empty_promise() -> None:
    lab = Lab(67, 2)
    alone, ruler = lab.nodes[0], lab.nodes[0].supernode
    assert ruler is not None
    lab.nodes[1].quit()
    usurper = throne(lab)
    hint(usurper, lab, ALONE_AFTER + 5.0)
    assert ruler.has_ended
    lab.world.kill(usurper.network)
    assert lab.wait(lambda: lab.rulers() == [alone], 30.0) is not None
    assert alone.membership.term > ruler.term


def test_a_liar_who_never_takes_anybody_in_is_followed_less_and_less() -> None:
    """It claims each next term as soon as it is asked, and hints without end; it took a third of all time so."""
    lab = Lab(68, 2)
    alone = lab.nodes[0]
    lab.nodes[1].quit()
    liar = Stranger(lab.world, "10.0.0.66")
    liar.answer = lambda query: claim(query, lab, alone.membership.term + 1)
    astray = 0
    for _ in range(600):
        liar.network.send_lone(alone.network.address, encode(messages.Stale(99, NOWHERE)))
        lab.run(1.0)
        astray += lab.rulers() != [alone]
    assert 4 * 5 <= astray <= 6 * 8


def test_an_empty_promise_doubles_the_wait_for_the_next_one_of_that_host_and_a_kept_one_ends_it() -> None:
    promises, now, wait = Promises(), 0.0, FIRST_WAIT
    for _ in range(8):
        promises.follow("10.0.0.66", now)
        promises.rules_again(now + 6.0)
        assert not promises.may_follow("10.0.0.66", now + 6.0 + wait - 0.1) and promises.may_follow("10.0.0.7", now)
        now += 6.0 + wait
        assert promises.may_follow("10.0.0.66", now)
        wait = min(WAIT_MAX, 2 * wait)
    promises.follow("10.0.0.66", now)
    promises.rules_again(now + KEPT_AFTER)
    assert promises.may_follow("10.0.0.66", now + KEPT_AFTER)


def test_no_more_than_so_many_liars_are_remembered() -> None:
    promises = Promises()
    for number in range(2 * HOSTS_MAX):
        promises.follow("10.0.1.%d" % number, 0.0)
        promises.rules_again(6.0)
    known = [number for number in range(2 * HOSTS_MAX) if not promises.may_follow("10.0.1.%d" % number, 6.0)]
    assert known == list(range(HOSTS_MAX, 2 * HOSTS_MAX))


def test_who_gives_way_in_all_cases() -> None:
    long = 1000.0
    for is_newer, is_of_us, alone_for, met_for, expected in (
        (True, True, 0.0, 0.0, True),
        (True, False, 0.0, long, False),  # a stranger's word against members who are here
        (True, False, ALONE_AFTER - 1, long, False),
        (True, False, ALONE_AFTER, 0.0, True),
        (False, True, 0.0, 0.0, False),  # the older one is to go, and has time for it
        (False, True, 0.0, STANDS_AFTER, True),
        (False, False, 0.0, long, False),
        (False, False, ALONE_AFTER, STANDS_AFTER, True),
        (False, False, ALONE_AFTER - 1, STANDS_AFTER, False),
    ):
        assert gives_way(is_newer, is_of_us, alone_for, met_for) == expected


def test_a_rival_is_met_from_the_first_time_on_until_it_was_not_met_for_a_while() -> None:
    rivals = Meetings()
    assert [rivals.meet(b"a", now) for now in (100.0, 110.0, 135.0)] == [0.0, 10.0, 35.0]
    assert rivals.meet(b"a", 136.0 + FORGOTTEN_AFTER) == 0.0
    for number in range(RIVALS_MAX):
        rivals.meet(b"%d" % number, 170.0)
    assert rivals.meet(b"a", 171.0) == 0.0


def test_who_drops_its_link_was_not_silent_and_is_no_heir_of_its_own() -> None:
    lab = Lab(60, 3)
    ruler = lab.nodes[0].supernode
    assert ruler is not None
    mallory = throne(lab)
    opening = bytes(15) + b"X"
    link = mallory.join(("10.0.0.1", PORT))
    lab.run(1.0)
    key = heirloom_of(node_id_of(opening), opening, lab.nodes[0].membership.network_id)
    plain = mallory.on_lone

    def on_lone(address: Any, data: bytes, now: float) -> None:
        prove = decode(data)
        if type(prove) is messages.Prove:
            proof = messages.Proof(prove.nonce, marked([key], prove.nonce, THRONE))
            mallory.network.send_lone(address, encode(proof))
        else:
            plain(address, data, now)

    mallory.on_lone = on_lone  # type: ignore[method-assign]
    mallory.network.disconnect(link, "at once")
    ruler._prober.ask(("10.0.0.66", PORT), "heal", lab.world.now)
    lab.run(2.0)
    assert mallory.queries and not ruler.has_ended and lab.rulers() == [lab.nodes[0]]


def test_parts_that_meet_in_turn_tell_each_other_whom_they_lost() -> None:
    """Who comes back from a part that was silent may tell of a third one; whoever was here all the time may not."""
    lab = Lab(63, 2)
    ruler = lab.nodes[0].supernode
    assert ruler is not None
    stranger = Stranger(lab.world, "10.0.0.77")
    lost = messages.Lost((("10.0.0.99", PORT),))
    link = stranger.join(("10.0.0.1", PORT))
    lab.run(1.0)
    stranger.send(link, lost)
    lab.run(1.0)
    assert ("10.0.0.99", PORT) not in ruler.witnesses.lost_places, "it was not lost"
    lab.run(15.0)
    link = stranger.join(("10.0.0.1", PORT))
    lab.run(1.0)
    stranger.send(link, lost)
    lab.run(1.0)
    assert ("10.0.0.99", PORT) in ruler.witnesses.lost_places


# ---- hints --------------------------------------------------------------------------------------------------------


def bytes_to(lab: Lab, node: StubNode) -> List[Any]:
    """(address, size) of each datagram outside a connection that this node sends from now on."""
    sent: List[Any] = []
    node.network.broadcast_lone = lambda port, data: None  # type: ignore[method-assign]
    send_lone = node.network.send_lone
    node.network.send_lone = lambda address, data: (  # type: ignore[method-assign]
        sent.append((address, len(data))), send_lone(address, data))[1]  # fmt: skip
    return sent


def test_no_hint_brings_more_bytes_than_it_cost() -> None:
    """Sources are easily forged: each hint may bring its victim no more than was sent in its name."""
    lab = Lab(61, 2)
    victim = Stranger(lab.world, "10.0.0.66")
    sent, paid = bytes_to(lab, lab.nodes[0]), 0
    for number in range(60):
        for message in (messages.Stale(2, NOWHERE), messages.Query(number.to_bytes(8, "big"))):
            if type(message) is messages.Stale or number % 10 == 0:
                victim.network.send_lone(("10.0.0.1", PORT), encode(message))
                paid += len(encode(message))
        lab.run(3.0)
        assert sum(size for address, size in sent if address[0] == "10.0.0.66") <= paid
    assert victim.queries  # who pays is asked in the end


def test_no_proof_is_longer_than_the_question_that_draws_it() -> None:
    """Asked in a victim's name, who holds all the heirlooms that fit sends it no more than was paid."""
    lab = Lab(64, 2)
    ruler, paid = lab.nodes[0].supernode, 0
    assert ruler is not None
    for number in range(messages.HEIRLOOMS_MAX):
        ruler.witnesses._heirlooms.add(messages.Heirloom(b"%8d" % number, bytes(16)))
    victim = Stranger(lab.world, "10.0.0.66")
    sent = bytes_to(lab, lab.nodes[0])
    for number in range(30):
        prove = encode(messages.Prove(number.to_bytes(8, "big")))
        victim.network.send_lone(("10.0.0.1", PORT), prove)
        paid += len(prove)
        lab.run(0.5)
        assert sum(size for address, size in sent if address[0] == "10.0.0.66") <= paid
    longest = messages.Proof(bytes(8), tuple(ruler.witnesses._heirlooms.all()))
    assert len(longest.marks) == messages.HEIRLOOMS_MAX and len(encode(longest)) <= len(prove)
    assert len([address for address, _ in sent if address[0] == "10.0.0.66"]) > 10, "it was answered"


def test_a_supernode_that_has_ended_follows_no_hint() -> None:
    lab = Lab(63, 2)
    ruler = lab.nodes[0].supernode
    assert ruler is not None
    asked: List[Any] = []
    lab.nodes[0].network.send_lone = lambda address, data: asked.append(address)  # type: ignore[method-assign]
    for is_over in (False, True):
        ruler._credit.earn(("10.0.0.66", PORT), 4096)
        assert ruler.on_lone(("10.0.0.66", PORT), messages.Stale(9, NOWHERE), lab.world.now)
        assert asked.count(("10.0.0.66", PORT)) == 1, is_over
        ruler.hand_over(lab.world.now, lambda: None)


def test_the_longest_answer_is_as_long_as_is_reckoned() -> None:
    nobody = Answer(bytes(8), bytes(8), bytes(16), 1, bytes(8), 1, bytes(8), ("::1", 1), 1, 1, "", bytes(16))
    assert len(encode(nobody)) == ANSWER_SIZE


def test_a_ruler_that_knows_the_other_pays_for_being_asked() -> None:
    """The other one knows no place here: it learns of us by our hint alone, and at the first one."""
    lab = Lab(62, 2)
    lab.world.cut(["10.0.0.1"], ["10.0.0.2"])
    lab.run(60.0)
    old, new = (node.supernode for node in lab.nodes)
    assert old is not None and new is not None and new.term > old.term
    for node in lab.nodes:
        node.network.broadcast_lone = lambda port, data: None  # type: ignore[method-assign]
    asks = old._prober.ask
    old._prober.ask = lambda *_: False  # type: ignore[method-assign]
    old._prober.ask_hinted = lambda address, purpose, near, now: asks(address, purpose, now)  # type: ignore
    lab.world.heal()
    assert lab.wait(lambda: old.has_ended, 12.0) is not None


def test_a_newer_one_that_is_alone_goes_over_though_it_has_asked_there_in_vain() -> None:
    """It asked while they were parted; what it may still ask (protocol/hearsay.py) is paid for by who asks it."""
    lab = Lab(64, 3)
    older, newer = two_heirs_of_a_dead_supernode(lab)
    older.append(joins(lab, "eva", older[0], newer))
    newer.append(joins(lab, "fay", newer[0], older))
    newer[0].quit()
    lab.run(20.0)
    assert lab.rulers() == [older[0], newer[1]] and newer[1].membership.term > older[0].membership.term
    asks_in_vain(lab, newer[1], older[0])
    check_that_they_find_together(lab, older[0], 30.0)


def asks_in_vain(lab: Lab, node: StubNode, place: Union[StubNode, Stranger]) -> None:
    """All that this node may ask at that place has just been asked, and whatever it may ask later, too."""
    node.membership.hearsay.may_dial(place.network.address, lab.world.now)
    lab.world.after(1.0, lambda: asks_in_vain(lab, node, place))


@pytest.mark.parametrize("port", [PORT, PORT + 1])
def test_two_that_have_asked_each_other_in_vain_meet_because_each_hears_the_other_ask_everybody(port: int) -> None:
    """Neither has ever had a sign of the other; what each asks by broadcast pays for the other's question.

    Where they have another port, they hear it at their doors.
    """
    lab = Lab(75, 3)
    here, there = lab.nodes[:1], lab.nodes[1:]
    lab.world.cut(["10.0.0.1"], ["10.0.0.2", "10.0.0.3"])
    lab.run(30.0)
    there.pop().quit()
    lab.run(2.0)
    eva = joins(lab, "eva", here[0], there, port=port)
    fay = joins(lab, "fay", there[0], [here[0], eva], port=port)
    joins(lab, "joe", there[0], [here[0], eva], "10.0.0.3")  # where somebody was lost: eva will have a reason to go
    here[0].quit()
    there[0].quit()
    lab.run(5.0)
    assert lab.rulers() == [eva, fay]
    asks_in_vain(lab, eva, fay)
    asks_in_vain(lab, fay, eva)
    check_that_they_find_together(lab, fay, 25.0)


def test_who_was_asked_as_a_member_may_ask_back_when_it_rules() -> None:
    """What came to it, to its door as well, counts for the node, whatever its role."""
    lab = Lab(76, 1)
    bo = joins(lab, "bo", lab.nodes[0], [], port=PORT + 1)
    stranger = Stranger(lab.world, "10.0.0.66")
    for number in range(2):
        stranger.network.send_lone((bo.network.address[0], PORT), encode(messages.Query(bytes([number]) * 8)))
    lab.run(1.0)
    lab.nodes[0].quit()
    lab.run(5.0)
    assert lab.rulers() == [bo] and bo.supernode is not None
    asks_in_vain(lab, bo, stranger)
    assert [bo.supernode._prober.ask(("10.0.0.66", PORT), "heal", lab.world.now) for _ in range(2)] == [True, False]


# ---- on the way to another one ------------------------------------------------------------------------------------


def parts_of_equal_terms(lab: Lab, *names: str) -> Tuple[List[StubNode], List[StubNode]]:
    """Here somebody new rules after a good-bye, with these members, there the second one after a cut.

    Nobody there knows anybody here; the rosters here name nobody there.
    """
    there = lab.nodes[1:]
    lab.world.cut(["10.0.0.1"], [node.network.address[0] for node in there])
    lab.run(30.0)
    here = [joins(lab, name, lab.nodes[0], there) for name in ("eva", *names)]
    lab.nodes[0].quit()
    lab.run(5.0)
    assert lab.rulers() == [there[0], here[0]] and {ruler.membership.term for ruler in lab.rulers()} == {2}
    return here, there


def rules_seen(node: StubNode) -> List[bytes]:
    return [ruler for _, _, ruler in node.obeyed if ruler == node.membership.node_id]


def test_who_did_not_hear_where_its_supernode_went_hears_it_from_those_who_did() -> None:
    """The other one rules in the same term; nobody else needs to take over."""
    lab = Lab(71, 3)
    here, there = parts_of_equal_terms(lab, "fay", "gus")
    lab.world.heal()
    lab.world.cut([here[2].network.address[0]], [here[0].network.address[0]])  # the one who came last, from its ruler
    assert lab.wait(lambda: lab.rulers() == [there[0]] and lab.agree(), 30.0) is not None
    assert not rules_seen(here[2])


def test_who_was_sent_to_one_that_it_could_not_reach_goes_there_once_it_can() -> None:
    """Meanwhile it rules, and not alone. Nobody there knows it, and whoever was lost once has left: all that tells it
    from a stranger is that it was sent there."""
    lab = Lab(72, 3)
    here, there = parts_of_equal_terms(lab, "fay")
    ivy = joins(lab, "ivy", there[0], here)
    for node in there:
        node.quit()
        lab.run(2.0)
    # Where somebody was lost: eva will go there.
    witness = StubNode(lab.world, "10.0.0.3", "joe").start(ivy.network.address)
    lab.nodes.append(witness)
    lab.run(5.0)
    lab.world.heal()
    lab.world.cut([here[1].network.address[0]], [ivy.network.address[0], "10.0.0.3"])
    assert lab.wait(lambda: lab.rulers() == [ivy], 30.0) is not None
    witness.quit()
    assert lab.wait(lambda: lab.rulers() == [here[1], ivy], 30.0) is not None
    joins(lab, "hal", here[1], [here[0], ivy])
    lab.run(60.0)
    assert lab.rulers() == [here[1], ivy]
    lab.world.heal()
    assert lab.wait(lambda: lab.rulers() == [ivy] and lab.agree(), 30.0) is not None


def test_who_has_spent_its_questions_at_the_next_ruler_follows_it_when_it_is_asked_from_there() -> None:
    lab = Lab(74, 3)
    eva = joins(lab, "eva", lab.nodes[0], [lab.nodes[1]])  # it has never heard of the one who takes over
    asks_in_vain(lab, eva, lab.nodes[1])
    lab.world.heal()
    lab.nodes[0].kill()
    assert lab.wait(lambda: lab.rulers() == [lab.nodes[1]] and lab.agree(), 20.0) is not None
    assert not rules_seen(eva)


def test_nobody_is_asked_in_vain_who_is_away_and_might_rule_elsewhere() -> None:
    lab = Lab(73, 3)
    lab.nodes[0].kill()
    lab.nodes[2].kill()
    assert lab.wait(lambda: lab.rulers() == [lab.nodes[1]], 30.0) is not None
    away = Stranger(lab.world, "10.0.0.3")
    newcomer = joins(lab, "eva", lab.nodes[1], [])
    lab.run(20.0)
    assert away.queries and newcomer.network.address not in [address for address, _ in away.queries]


# ---- the places of the lost ---------------------------------------------------------------------------------------


def places(host: str, count: int) -> List[Any]:
    return [(host, port) for port in range(5000, 5000 + count)]


def test_one_machine_that_comes_and_goes_pushes_no_other_machines_place_out() -> None:
    lost = LostPlaces([("10.0.0.1", PORT)], limit=16)
    for place in places("10.0.0.66", 1000):
        lost.add(place)
    assert len(lost) == 16 and ("10.0.0.1", PORT) in lost
    assert lost.latest(2) == [("10.0.0.66", 5998), ("10.0.0.66", 5999)]
    assert ("10.0.0.1", PORT) in lost.some(2, random.Random(1))


def test_the_addresses_of_one_ipv6_network_push_out_each_other_and_are_looked_at_in_turn_with_all() -> None:
    lost = LostPlaces([(f"10.0.0.{number}", PORT) for number in range(1, 9)], limit=16)
    for number in range(1, 1001):
        lost.add((f"2001:db8::{number:x}", PORT))
    assert len(lost) == 16 and ("10.0.0.1", PORT) in lost
    assert lost.latest(8) == [(f"2001:db8::{number:x}", PORT) for number in range(993, 1001)]
    assert sum("." in place[0] for place in lost.some(9, random.Random(1))) == 8


def test_where_as_many_machines_were_lost_as_there_is_room_for_the_oldest_place_goes() -> None:
    lost = LostPlaces([(f"10.0.0.{number}", PORT) for number in range(1, 6)], limit=4)
    assert [ip for ip, _ in lost] == ["10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5"]


def test_a_place_counts_once_and_not_when_somebody_is_there_again() -> None:
    lost = LostPlaces([*places("10.0.0.1", 3), *places("10.0.0.1", 1), NOWHERE])
    assert list(lost) == [("10.0.0.1", 5001), ("10.0.0.1", 5002), ("10.0.0.1", 5000)]
    lost.discard(("10.0.0.1", 5001))
    lost.discard(("10.0.0.1", 5001))
    assert len(lost) == 2


# ---- who says that the dead supernode lives


def vouchers(lab: Lab, ip: str, count: int) -> List[Stranger]:
    """Members of one host, each at a port of its own, that hear the first supernode whatever becomes of it."""
    ruler = lab.nodes[0]
    ruler_id, found = ruler.membership.node_id, []
    for number in range(count):
        one = Stranger(lab.world, ip, PORT + number)
        opening = bytes([number]) * 16
        fields = {"node_id": node_id_of(opening), "role": ROLE_MEMBER, "obeys": ruler_id}
        link = one.join(ruler.network.address, node_id=node_id_of(opening), opening=opening, name="x%d" % number)
        fields["supernode"] = ruler.network.address
        one.answer = lambda query, fields=fields: claim(query, lab, 1, **fields)
        found.append((one, link))
    lab.run(2.0)
    return [one for one, _ in found]


def rule_again(lab: Lab) -> bool:
    """Does one of those who live rule all of them within a minute?"""
    ids = [node.membership.node_id for node in lab.living()]
    return lab.wait(lambda: obeyed_by_all(lab) in ids, 60.0) is not None


def test_a_host_of_many_names_keeps_nobody_from_taking_over_for_ever() -> None:
    lab = Lab(57, 4)
    liars = vouchers(lab, "10.0.0.66", 6)
    assert all(one.last(messages.Welcome) for one in liars)
    lab.nodes[0].kill()
    assert rule_again(lab)
    assert any(one.queries for one in liars)


def test_one_liar_beside_two_keeps_neither_from_taking_over_for_ever() -> None:
    lab = Lab(58, 3)
    vouchers(lab, "10.0.0.66", 1)
    lab.nodes[0].kill()
    assert rule_again(lab)
