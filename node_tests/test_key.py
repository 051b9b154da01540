"""A network with a key, as its nodes and those outside see it: rows K01 and K02 of `THREATS.md`.

Whole nodes in the simulator. Attacks on the transport are in test_key_attacks.py, keys in test_keys.py.
"""

from contextlib import closing

import pytest

from node_tests.stage.keys import members
from node_tests.stage.lab import PORT, Lab, content
from node_tests.stage.simulator import Conditions
from protocol.results import ChatReceived, KeyWanted, Outcome, Whispered
from protocol.transport import packets as wire
from protocol.transport.sealing import hello_key

NICKS = ("zenobia", "yolanda", "xaviera")
FILE_NAME, CHAT, WHISPER = "quixotic-report.pdf", "the password is swordfish", "meet me at dawn"
MARKED = content(300_000, 5)
PIECES = [MARKED[at : at + 16] for at in range(0, len(MARKED) - 16, 1009)]


class Evening:
    """Three nodes that do all that nodes do; every datagram of it is kept."""

    def __init__(self, path, *credentials):
        self.lab = Lab(path, 3, Conditions(mtu=1500), True, *credentials)
        self.said = []
        self.lab.world.tap = lambda source, target, datagram: self.said.append(bytes(datagram))
        self.nodes = [self.come(nick, {FILE_NAME: MARKED} if nick == NICKS[1] else {}) for nick in NICKS]

    def come(self, nick, shared):
        node = self.lab.node(nick, shared=shared)
        self.lab.run(2)
        return node

    def go_through(self):
        """Join, chat, a private line, a list, a file by mesh and one by way of who rules, a handover, chat again."""
        first, second, third = self.nodes
        second.do("say", CHAT, self.lab.world.now)
        second.do("whisper", f"{NICKS[2]} {WHISPER}", self.lab.world.now, second.answers.append)
        self.lab.run(2)
        assert CHAT in [event.text for event in third.told(ChatReceived)]
        assert WHISPER in [event.text for event in third.told(Whispered)]
        assert FILE_NAME in [entry.name for entry in third.list()]
        assert third.fetched(FILE_NAME) and third.read(FILE_NAME) == MARKED
        first.quit()
        self.lab.run(8)
        second.do("say", CHAT + " again", self.lab.world.now)
        self.lab.run(2)
        assert CHAT + " again" in [event.text for event in third.told(ChatReceived)]

    def close(self):
        self.lab.close()

    def heard(self):
        """Which of what nobody outside may know stands in some datagram as it is."""
        words = [*NICKS, FILE_NAME, CHAT, WHISPER]
        all_of_it = b"\0".join(self.said)
        return {word for word in words if word.encode() in all_of_it} | {each for each in PIECES if each in all_of_it}


def test_k01_with_the_key_an_evening_goes_as_ever_and_nothing_of_it_can_be_read(tmp_path):
    with closing(Evening(tmp_path, members())) as evening:
        evening.go_through()
        assert len(evening.said) > 400 and evening.heard() == set()


def test_k01_without_a_key_all_of_it_can_be_read(tmp_path):
    """So that what the test above looks for is what there is to be found."""
    with closing(Evening(tmp_path)) as evening:
        evening.go_through()
        heard = evening.heard()
        assert heard >= {*NICKS, FILE_NAME, CHAT, WHISPER} and len(heard) > len(PIECES) - 10  # some were cut in two


def mixed(path, first, others):
    """A lab whose first node has credentials of the first kind, and all others of the second."""
    return Lab(path, 4, None, True, lambda address: (first if address[0] == "10.0.0.1" else others)(address))


def test_k02_who_comes_without_the_key_reads_that_it_needs_one_and_learns_nothing(tmp_path):
    keyed = members()
    said = []
    with closing(mixed(tmp_path, keyed, lambda address: None)) as lab:
        lab.node(NICKS[0], shared={FILE_NAME: MARKED})
        lab.world.tap = lambda source, target, datagram: said.append((source[0], bytes(datagram)))
        stranger = lab.node("stranger")
        lab.run(5)
        assert [event.kind for event in stranger.told(Outcome)] == ["nobody"]
        assert stranger.told(KeyWanted) == [KeyWanted(("10.0.0.1", PORT))]
        told = [datagram for source, datagram in said if source == "10.0.0.1"]
        hello = hello_key(keyed(("10.0.0.1", PORT)).seal_key)
        assert {len(each) for each in told if not hello.is_good(memoryview(each))} == {wire.KEYED.size}


def test_k02_with_the_wrong_key_nobody_is_found(tmp_path):
    with closing(mixed(tmp_path, members(1), members(2))) as lab:
        first = lab.node(NICKS[0], shared={FILE_NAME: MARKED})
        stranger = lab.node("stranger")
        lab.run(5)
        assert [event.kind for event in stranger.told(Outcome)] == ["nobody"] and not stranger.told(KeyWanted)
        assert first.network.driver.endpoint.wrong_seals > 0 and len(first.peer.members(lab.world.now)) == 1


# ---- whose certificate is whose


@pytest.fixture
def private(tmp_path):
    """Three members of a network with a key: ana rules, bo shares, cy looks on."""
    with closing(Lab(tmp_path, 5, Conditions(mtu=1500), True, members())) as lab:
        lab.node("ana")
        lab.node("bo", shared={FILE_NAME: MARKED})
        lab.node("cy")
        lab.run(3)
        yield lab


def misled(node, other):
    """From now on this node takes the other's certificate for a wrong one; links between them are cut."""
    known, node_id = node.peer.membership.identities._known, other.peer.membership.node_id
    known[node_id] = known[node_id]._replace(fingerprint=bytes(32))
    for one, two in ((node, other), (other, node)):
        for link in links_up(one, two):
            one.network.disconnect(link.link, "")
    node.lab.run(0.1)


def links_up(node, other):
    """Do links with the other one stand, as this node sees it?"""
    node_id = other.peer.membership.node_id
    return [link for link in node.peer.fetching.links._by_link.values() if link.node_id == node_id and link.is_up]


def test_who_answers_with_another_certificate_than_the_members_is_asked_for_nothing(private):
    _, bo, cy = private.nodes
    misled(cy, bo)
    cy.fetch(FILE_NAME)
    for _ in range(100):
        private.run(0.05)
        assert not links_up(cy, bo)


def test_who_calls_with_another_certificate_than_the_members_is_not_served(private):
    _, bo, cy = private.nodes
    misled(bo, cy)
    before = bo.peer._hellos.dropped
    cy.fetch(FILE_NAME)
    private.run(5)
    assert bo.peer._hellos.dropped > before


def test_who_rules_with_another_certificate_than_it_had_is_not_obeyed(private):
    ana, _, cy = private.nodes
    link = cy.peer.membership.supernode_link
    misled(cy, ana)
    cy.network.disconnect(link, "")
    private.run(3)
    assert cy.peer.membership.supernode_link is None


def test_nobody_joins_under_the_id_of_one_that_has_another_certificate(private):
    """Whoever got at a member's opening has not its private key."""
    ana, bo, cy = private.nodes
    known, node_id = ana.peer.supernode.identifying._known, cy.peer.membership.node_id
    known[node_id] = known[node_id]._replace(fingerprint=bytes(32))
    cy.network.disconnect(cy.peer.membership.supernode_link, "")
    private.run(4)
    assert ana.peer.supernode.register.get(cy.peer.membership.node_id).link is None
