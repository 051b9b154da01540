"""Who takes over, and how soon: those who slept, those of an older term, and what happened in the last second."""

from __future__ import annotations

from typing import Any, Optional

from node_tests.stage.stranger import obeyed_by_all
from node_tests.stage.stub_node import PORT, Lab, StubNode
from protocol.membership.election import CLAIM_WAIT, LAST_LOOK, PATIENCE, RANK_TIME, Election
from protocol.membership.membership import State
from protocol.messages import NO_NODE, NOWHERE, ROLE_MEMBER, ROLE_SUPERNODE, Answer

OLD, ANA, BO, CY = (bytes(7) + bytes([number]) for number in range(1, 5))


def answer(node_id: bytes, role: int = ROLE_MEMBER, term: int = 3, obeys: bytes = NO_NODE) -> Answer:
    return Answer(bytes(8), bytes(8), bytes(16), term, node_id, role, obeys, NOWHERE, 60_000, 4, "x", bytes(16))


def electing(node_id: bytes, has_slept: bool = False) -> Election:
    """The supernode of term 3 is gone since 0.0; ana, bo and cy are left, in this order."""
    election = Election(node_id)
    election.begin(3, OLD, [ANA, BO, CY], 0.0)
    election.has_slept = has_slept
    return election


def hear(election: Election, heard: Answer, now: float) -> None:
    election.hear(("10.0.0.9", PORT), heard, OLD, now)


def is_turn(election: Election, now: float, *heard: Answer) -> bool:
    for each in heard:
        hear(election, each, now)
    return election.is_my_turn(now)


def test_one_who_slept_waits_for_those_before_it_and_for_nobody_else() -> None:
    assert is_turn(electing(ANA, has_slept=True), 1.0, answer(BO), answer(CY))
    assert not is_turn(electing(BO, has_slept=True), 3.5, answer(ANA), answer(CY))


def test_one_of_an_earlier_term_waits_for_the_others_and_they_do_not_wait_for_it() -> None:
    ana, bo = electing(ANA), electing(BO)
    ana.term = 2  # cut off, or asleep, while the last one took over
    assert not is_turn(ana, 3.5, answer(BO), answer(CY))
    assert is_turn(bo, 3.5, answer(ANA, term=2), answer(CY))


def test_a_claim_is_followed_though_one_of_an_earlier_term_ranks_before_it() -> None:
    cy = electing(CY)
    for heard in (answer(ANA, term=2), answer(BO, ROLE_SUPERNODE, term=4)):
        hear(cy, heard, 3.0)
    claim = cy.best_claim(3.0)
    assert claim is not None and claim.answer.node_id == BO
    hear(cy, answer(ANA, term=3), 3.0)
    assert cy.best_claim(3.0) is None
    assert cy.best_claim(PATIENCE) is None  # what is old says nothing


def test_a_member_knows_for_half_a_second_what_it_asked_for() -> None:
    ana = electing(ANA)
    assert not ana.knows(1.0)
    ana.ask(1.0)
    assert ana.knows(1.0 + CLAIM_WAIT) and not ana.knows(1.1 + CLAIM_WAIT)


# ---- stories


def ruled_by(lab: Lab, node: StubNode, within: float) -> Optional[float]:
    return lab.wait(lambda: lab.rulers() == [node] and obeyed_by_all(lab) == node.membership.node_id, within)


def test_a_lab_that_slept_while_its_supernode_died_elects_as_soon_as_it_wakes() -> None:
    lab = Lab(61, 5)
    for node in lab.nodes[1:]:
        node.sleep()
    lab.nodes[0].kill()
    lab.run(40.0)
    for node in lab.nodes[1:]:
        node.wake()
    assert ruled_by(lab, lab.nodes[1], 8.0) is not None


def test_a_sleeper_of_an_earlier_term_delays_no_election() -> None:
    lab = Lab(62, 6)
    lab.nodes[1].sleep()
    lab.run(1.0)
    lab.nodes[0].kill()
    assert lab.wait(lambda: lab.rulers() == [lab.nodes[2]], 20.0) is not None
    lab.run(20.0)
    lab.nodes[2].kill()
    lab.run(1.0)
    lab.nodes[1].wake()
    assert ruled_by(lab, lab.nodes[3], 20.0) is not None


def gone_at(node: StubNode) -> float:
    return node.membership._course._inquiry.election.gone_at


def test_who_took_over_in_the_last_second_is_heard_before_another_does() -> None:
    lab = Lab(63, 3)
    lab.world.cut(["10.0.0.2"], ["10.0.0.3"])
    lab.nodes[0].kill()
    late = lab.nodes[2]
    assert lab.wait(lambda: late.membership.state is State.ELECTING, 10.0) is not None
    lab.world.run(gone_at(late) + RANK_TIME - LAST_LOOK - 0.1)  # the poll before is over, and heard nothing
    lab.world.heal()
    assert ruled_by(lab, lab.nodes[1], 5.0) is not None
    assert not any(event[0] == "changed" and event[3] for event in late.events)


def test_two_that_took_over_at_once_find_each_other_within_seconds() -> None:
    lab = Lab(64, 6)
    ips = [node.network.address[0] for node in lab.nodes]
    lab.nodes[0].kill()
    lab.world.cut(ips[:3], ips[3:])
    assert lab.wait(lambda: len(lab.rulers()) == 2, 30.0) is not None
    lab.world.heal()
    assert lab.wait(lambda: len(lab.rulers()) == 1, 2.0) is not None
    assert lab.wait(lambda: bool(obeyed_by_all(lab)), 5.0) is not None


def test_a_new_supernode_looks_for_another_within_a_second() -> None:
    lab = Lab(65, 3)
    asked: Any = []
    lab.nodes[0].kill()
    ruler = lab.nodes[1]
    assert lab.wait(lambda: ruler.is_ruling, 10.0) is not None
    broadcast = ruler.network.broadcast_lone
    ruler.network.broadcast_lone = lambda *args: (asked.append(lab.world.now), broadcast(*args))[1]
    since = lab.world.now
    lab.run(1.0)
    assert asked and asked[0] - since <= 1.0
