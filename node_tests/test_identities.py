"""Who is who in a private network: certificates as members tell them, and a name that comes back with another one."""

from contextlib import closing

from node_tests.stage.keys import member, members
from node_tests.stage.lab import Lab
from protocol.membership.identities import PINS_MAX, Identities
from protocol.messages import MEMBERS_MAX, Fingerprints, Identity
from protocol.results import OtherKey

ME, BO, CY = b"m" * 8, b"b" * 8, b"c" * 8


def print_of(number):
    return number.to_bytes(32, "big")


def said(node_id, name, number, is_lasting=True):
    return [Identity(node_id, name, print_of(number), is_lasting)]


def test_a_name_that_comes_back_with_another_lasting_key_is_told_once():
    known = Identities(ME, print_of(0))
    assert known.hear(said(BO, "bo", 1), []) == []
    assert known.hear(said(BO, "bo", 1), []) == known.hear(said(CY, "bo", 1), []) == []
    assert known.hear(said(CY, "bo", 2), []) == ["bo"]
    assert known.hear(said(CY, "bo", 2), []) == []
    assert known.hear(said(CY, "bo", 1), []) == []  # it is the first one again
    assert known.hear(said(CY, "bo", 3, is_lasting=False), []) == ["bo"]  # who does not show it may be another
    assert known.fingerprint(CY) == print_of(3) and known.fingerprint(ME) == print_of(0)


def test_who_has_a_new_key_each_time_is_no_news():
    known = Identities(ME, print_of(0))
    for number in range(1, 9):
        assert known.hear(said(number.to_bytes(8, "big"), "bo", number, is_lasting=False), []) == []
    assert known.hear(said(BO, "bo", 9), []) == [] and known.hear(said(BO, "bo", 8, False), []) == ["bo"]


def test_in_an_open_network_nothing_is_said_or_heard():
    known = Identities(ME, None)
    assert known.own() is None and known.hear(said(BO, "bo", 1), []) == [] and known.fingerprint(BO) == b""


def test_what_a_liar_who_rules_can_have_kept_has_a_bound():
    known = Identities(ME, print_of(0))
    for number in range(3 * PINS_MAX):
        known.hear(said(number.to_bytes(8, "big"), f"n{number % 7}" if number % 2 else f"m{number}", number), [BO])
    assert len(known._known) <= MEMBERS_MAX and len(known._pins) <= PINS_MAX and len(known._told) <= PINS_MAX
    known.hear(said(BO, "bo", 5), [BO])
    assert known.fingerprint(BO) == print_of(5)


def fingerprints(node):
    return {row.label: row.fingerprint for row in node.peer.members(node.lab.world.now)}


def test_members_see_each_others_certificates_whoever_rules(tmp_path):
    with closing(Lab(tmp_path, 3, packets=True, credentials=members())) as lab:
        ana, bo, cy = (lab.node(name) for name in ("ana", "bo", "cy"))
        lab.run(5)
        right = {name: member(number).fingerprint for number, name in enumerate(("ana", "bo", "cy"))}
        assert fingerprints(ana) == fingerprints(bo) == fingerprints(cy) == right
        ana.quit()
        lab.run(8)
        del right["ana"]
        assert fingerprints(bo) == fingerprints(cy) == right


def test_a_name_that_comes_back_with_another_key_is_told_to_who_saw_the_first(tmp_path):
    with closing(Lab(tmp_path, 3, packets=True, credentials=members())) as lab:
        ana, bo = lab.node("ana"), lab.node("bo", has_lasting_key=True)
        lab.run(5)
        cy = lab.node("cy")
        lab.run(3)
        bo.quit()
        lab.run(3)
        lab.node("bo", has_lasting_key=True)  # at another place, with another certificate
        lab.run(5)
        assert [node.told(OtherKey) for node in (ana, cy)] == [[OtherKey("bo")]] * 2


def test_a_certificate_that_the_link_does_not_show_is_not_told(tmp_path):
    with closing(Lab(tmp_path, 3, packets=True, credentials=members())) as lab:
        ana, bo, cy = (lab.node(name) for name in ("ana", "bo", "cy"))
        lab.run(5)
        before = fingerprints(cy)
        lies = (
            Fingerprints((Identity(bo.peer.node_id, "bo", print_of(7), True),)),
            Fingerprints((Identity(cy.peer.node_id, "cy", member(1).fingerprint, True),)),
            Fingerprints(tuple(Identity(bo.peer.node_id, "bo", member(1).fingerprint, True) for _ in range(2))),
        )
        for lie in lies:
            bo.peer.membership.send_to_supernode(lie)
        lab.run(2)
        assert fingerprints(cy) == fingerprints(ana) == before
