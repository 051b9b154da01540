"""Private lines: shown to one alone, once, and what their speaker is told of that; in whole nodes and hostile hands."""

from __future__ import annotations

import pytest

from node_tests.stage.lab import Lab
from node_tests.stage.window import script
from prompt.lines import whisper_line
from protocol import messages
from protocol.membership.whispers import PATIENCE, WHISPERS_MAX, Addressee, find
from protocol.messages import HEARD_GONE, HEARD_SHOWN, Heard, Whisper, encode_parts
from protocol.results import ChatReceived, Whispered


@pytest.fixture
def lab(tmp_path):
    with_nodes = Lab(tmp_path)
    yield with_nodes
    with_nodes.close()


def whisper(node, line):
    """Say it; the list that gets the answer."""
    answers = []
    node.do("whisper", line, node.world.now, answers.append)
    return answers


def whispered(node, line, within=1.0):
    answers = whisper(node, line)
    node.world.run_until(lambda: answers, node.world.now + within)
    return answers[0] if answers else None


def heard(node):
    return [(event.label, event.text) for event in node.told(Whispered)]


def send(node, message):
    """What a hostile member says to the supernode."""
    node.peer.network.send(node.peer.membership.supernode_link, *encode_parts(message))
    node.network.rearm()


# ---- as it should be


def test_a_private_line_is_shown_to_one_alone_and_its_speaker_hears_of_it(lab):
    ana, bo, cy = (lab.node(name) for name in ("ana", "bo", "cy"))
    for number, (one, other) in enumerate(((bo, cy), (bo, ana), (ana, cy))):  # ana rules
        answer = whispered(one, f"{other.name} psst {number}")
        assert answer.kind == "heard" and (answer.label, answer.text) == (other.name, f"psst {number}")
        assert heard(other)[-1] == (one.name, f"psst {number}")
    assert [len(heard(node)) for node in (ana, bo, cy)] == [1, 0, 2]
    assert not any(node.told(ChatReceived) for node in (ana, bo, cy))


def test_what_cannot_be_said_is_told_at_once(lab):
    bo, long = lab.node("bo"), "x" * 2049
    lab.node("ana")
    for line, kind in (("cy hi", "unknown"), ("hi", "unknown"), ("bo hi", "self"), ("ana", "empty"), ("ana  ", "empty"),
                       (f"ana {long}", "too long")):
        answer = whispered(bo, line)
        assert answer.kind == kind, line
        assert whisper_line(answer).startswith("!! Not sent: ")
    assert not heard(bo)


def test_whom_a_line_means():
    ana, bo = Addressee(b"1", "ana", "ana"), Addressee(b"2", "bo@10.0.0.1", "bo")
    maria, twin = Addressee(b"3", "ana maria", "x"), Addressee(b"4", "bo@10.0.0.2", "bo")
    everybody = [ana, bo, maria]
    assert find("ana hello there", everybody) == ([ana], "hello there")
    assert find("ana maria hello", everybody) == ([maria], "hello")  # the longest
    assert find('"ana" maria hello', everybody) == ([ana], "maria hello")
    assert find("ANA hi", everybody) == ([ana], "hi") and find("anab hi", everybody)[0] == []
    assert find("bo hi", [*everybody, twin]) == ([bo, twin], "hi")  # both are called so
    assert find("bo@10.0.0.2 hi", [*everybody, twin]) == ([twin], "hi")
    upper = Addressee(b"5", "ANA", "ANA")
    assert find("ANA hi", [ana, upper]) == ([upper], "hi") and find("Ana hi", [ana, upper])[0] == [ana, upper]


def test_an_ambiguous_name_names_whom_it_may_mean(lab):
    lab.node("ana")
    lab.node("bo", number=7)
    other = lab.node("cy")
    answer = whispered(other, "nobody hi")
    assert answer.kind == "unknown" and "W lists who is here" in whisper_line(answer)
    twins = answer._replace(kind="ambiguous", labels=("bo@10.0.0.7", "bo@10.0.0.8"))
    assert whisper_line(twins) == "!! Not sent: several are called so; say which: bo@10.0.0.7, bo@10.0.0.8."


# ---- when something is amiss


def test_a_program_that_knows_no_private_lines_is_told_as_what_it_is(lab, monkeypatch):
    lab.node("ana")
    bo, cy = lab.node("bo"), lab.node("cy")
    monkeypatch.setattr(cy.peer._whispers, "on_message", lambda message: None)  # dropped, as all that is unknown
    answer = whispered(bo, "cy hi", PATIENCE + 1)
    assert answer.kind == "unheard" and "Perhaps it was not read" in whisper_line(answer)
    assert not heard(cy) and cy.peer.membership.is_joined


def test_what_was_held_in_doubt_of_one_whose_link_broke_costs_nobody_elses_words(lab):
    ana, bo, cy = (lab.node(name) for name in ("ana", "bo", "cy"))
    ruler, now = ana.peer.supernode, lab.world.now
    ruler.doubt.begin(now)
    link = ruler.register.get(bo.peer.node_id).link
    ruler.on_message(link, Whisper(b"nobody--", 1, "hi"), now)
    ruler.on_message(ruler.register.get(cy.peer.node_id).link, Whisper(ana.peer.node_id, 1, "me too"), now)
    ruler.on_link_lost(link, "a whim", now)
    lab.run(5)
    assert heard(ana) == [("cy", "me too")]


def test_who_leaves_meanwhile_is_told_to_have_left(lab):
    lab.node("ana")
    bo, cy = lab.node("bo"), lab.node("cy")
    send(bo, Whisper(b"nobody--", 1, "hi"))
    lab.run(0.5)
    assert bo.peer.dropped == 1  # the supernode says that nobody is there, of what this node never said
    answers = whisper(bo, "cy hi")
    bo.quit()
    assert answers[0].kind in ("left", "heard") and len(answers) == 1
    cy.do("whisper", "ana hi", lab.world.now, answers.append)
    assert lab.world.run_until(lambda: len(answers) == 2, lab.world.now + 1) and answers[1].kind == "heard"


def test_a_line_outlives_the_supernode_and_is_shown_once(lab):
    ana, bo, cy, di = (lab.node(name) for name in ("ana", "bo", "cy", "di"))
    lost = whisper(ana, "cy from one who dies")
    ana.kill()
    answer = whispered(di, "cy still there?", PATIENCE + 1)
    assert answer.kind == "heard" and bo.peer.is_supernode and not lost
    assert [text for _, text in heard(cy)].count("still there?") == 1


def test_a_line_whose_sign_was_lost_is_shown_once(lab, monkeypatch):
    lab.node("ana")
    bo, cy = lab.node("bo"), lab.node("cy")
    passed = bo.peer._whispers.on_message
    lost = []
    monkeypatch.setattr(bo.peer._whispers, "on_message",
                        lambda message: passed(message) if lost else lost.append(message))
    answer = whispered(bo, "cy hi", PATIENCE)
    assert answer.kind == "heard" and len(lost) == 1 and heard(cy) == [("bo", "hi")]


# ---- hostile members


def test_a_flood_of_private_lines_drowns_nobody(lab):
    ana, bo, cy = (lab.node(name) for name in ("ana", "bo", "cy"))
    for counter in range(2000):
        send(bo, Whisper(cy.peer.node_id, counter, "flood"))
    lab.run(2)
    assert 1 <= len(heard(cy)) <= 40 + 20 * 3  # a burst, and what chat may say a second
    assert ana.peer.supernode.dropped > 1500 and cy.peer.membership.is_joined
    lab.run(5)
    assert whispered(ana, "cy hi").kind == "heard" and bo.peer.membership.is_joined


def test_only_the_one_it_was_said_to_can_have_heard_it(lab, monkeypatch):
    ana, bo, cy, di = (lab.node(name) for name in ("ana", "bo", "cy", "di"))
    monkeypatch.setattr(cy.peer._whispers, "on_message", lambda message: None)  # silent
    answers = whisper(bo, "cy hi")
    lab.run(0.5)
    for how in (HEARD_SHOWN, HEARD_GONE, 77):
        for counter in range(3):
            send(di, Heard(bo.peer.node_id, counter, how))
            send(di, messages.Whispered(cy.peer.node_id, "cy", counter, "forged"))  # a supernode's to say
    lab.run(0.5)
    assert answers == [] and not heard(ana) and not heard(bo)
    send(cy, Heard(bo.peer.node_id, 1, 77))  # means nothing
    lab.run(0.5)
    assert answers == []


def test_too_many_at_once_are_refused_and_a_silent_room_costs_no_memory(lab, monkeypatch):
    lab.node("ana")
    bo, cy = lab.node("bo"), lab.node("cy")
    monkeypatch.setattr(cy.peer._whispers, "on_message", lambda message: None)
    answers = [whisper(bo, f"cy {number}") for number in range(WHISPERS_MAX + 1)]
    assert [len(answer) for answer in answers] == [0] * WHISPERS_MAX + [1] and answers[-1][0].kind == "full"
    lab.run(PATIENCE + 1)
    assert all(len(answer) == 1 for answer in answers) and answers[0][0].kind == "unheard"
    assert bo.peer._whispers.next_deadline() == float("inf")


# ---- the prompt


def test_p_at_the_prompt():
    lines, code = script("P bo psst\nP\nP zoe hi\nQ\n")
    assert lines[-3:] == ["[me -> bo] psst", "P needs a name and a text: P ana hello",
                          "!! Not sent: nobody here has such a name (W lists who is here): hi."]
    assert code == 1
