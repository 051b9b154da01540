"""Request forgery: one who rules names an address that never heard of this program, in every way that there is.

F11: whatever is said, each member sends there no more than three datagrams in any minute, handshakes included.
"""

from __future__ import annotations

import pytest

from node_tests.stage.amounts import amount
from node_tests.stage.lab import PORT, Lab, Node
from node_tests.stage.outlaw import Outlaw
from protocol import messages
from protocol.exchange import relays
from protocol.hearsay import HOST_UNANSWERED_MAX, UNANSWERED_MAX, Hearsay
from protocol.membership.proofs import with_proof
from protocol.messages import NOWHERE, MemberEntry, encode
from protocol.results import DownloadDone, ListEntry, Outcome

VICTIM = ("10.0.0.99", 7000)
FAR_VICTIM = ("203.0.113.66", 7000)  # nobody's neighbour
NETWORK, SECRET, FILE = b"n" * 16, b"s" * 16, b"f" * 32
PHANTOMS = 150  # members in the roster, all of them at the victim's address


class Liar(Outlaw):
    """Rules a network in which whoever asks and joins is welcome, and names only victims."""

    def __init__(self, lab, victims):
        super().__init__(lab, 1, "liar")
        self.phantoms = [
            MemberEntry(number.to_bytes(8, "big"), "p%d" % number, victims[number % len(victims)], number, True, True)
            for number in range(1, PHANTOMS + 1)
        ]
        self.members = {}  # link -> the line of who joined by it
        self.hears = self.answer

    def on_lone(self, address, data, now):
        query = messages.decode(data)
        if isinstance(query, messages.Query):
            answer = messages.Answer(
                query.nonce, bytes(8), NETWORK, 1, self.node_id, messages.ROLE_SUPERNODE, self.node_id,
                NOWHERE, 0, PHANTOMS, "liar", bytes(16),
            )  # fmt: skip
            self.network.send_lone(address, encode(with_proof(answer, SECRET)))

    def answer(self, link, message):
        if isinstance(message, messages.Join):
            me = MemberEntry(message.node_id, message.name, ("10.0.0.2", PORT), PHANTOMS + 1, True, True)
            self.members[link] = me
            lines = (MemberEntry(self.node_id, "liar", NOWHERE, 0, True, True), *self.phantoms, me)
            self.say(link, messages.Welcome(NETWORK, 1, self.node_id, SECRET, bytes(32), len(lines), 1, 1))
            for first in range(0, len(lines), messages.MEMBERS_PER_PAGE):
                page = lines[first : first + messages.MEMBERS_PER_PAGE]
                self.say(link, messages.RosterPage(1, 1, first, len(lines), page))
        elif isinstance(message, messages.Ping):
            self.say(link, messages.Pong(message.stamp, 1))
        elif isinstance(message, messages.Search):
            for phantom in self.phantoms:
                offer = messages.Offer(message.query_id, message.file_id, bytes(8), phantom.node_id, True, True)
                self.say(link, offer)

    def seek(self):
        """Somebody else wants what a member has, or fetches."""
        for link in self.members:
            for phantom in self.phantoms[:5]:
                self.say(link, messages.Search(1, FILE, 9, "a.bin", False, phantom.node_id, phantom.place, False))

    def send_away(self):
        for link, member in self.members.items():
            self.say(link, messages.Moved(2, self.phantoms[member.order % PHANTOMS].place, self.phantoms[0].node_id))


class Watch:
    """When a node sent a datagram to a victim."""

    def __init__(self, node, victims):
        self.at, self.node = [], node
        driver = node.network.driver
        send_raw = driver.send_raw

        def watched(address, datagram):
            if address in victims:
                self.at.append(node.world.now)
            send_raw(address, datagram)

        driver.send_raw = watched

    def most_in_a_minute(self):
        return max((sum(at - 60.0 < other <= at for other in self.at) for at in self.at), default=0)


def story(path, victims):
    """Two members of a liar's network: in peace, while they fetch, sent away, and when it is gone."""
    lab = Lab(path, packets=True)
    liar = Liar(lab, victims)
    nodes, watches = [], []
    for number, name in enumerate(("bo", "cy"), 2):
        node = Node(lab, name, number)
        lab.nodes.append(node)
        nodes.append(node)
        watches.append(Watch(node, victims))
        node.start(("10.0.0.1", PORT))
        assert node.told(Outcome)[-1].kind == "joined"
    lab.run(60)
    for node in nodes:
        node.do("fetch", ListEntry(1, "a.bin", 9, FILE, content_size=9), lab.world.now, lambda answer: None)
    for _ in range(60):
        liar.seek()
        lab.run(1)
    liar.send_away()
    lab.run(60)
    lab.world.kill(liar.network)
    lab.run(120)
    lab.close()
    return watches


def test_whoever_rules_brings_nobody_to_send_more_than_three_datagrams_a_minute_to_a_stranger(tmp_path):
    for watch in story(tmp_path, [VICTIM]):
        assert 0 < watch.most_in_a_minute() <= UNANSWERED_MAX


def test_nor_to_one_far_away_which_is_asked_only_when_who_ruled_goes_there(tmp_path):
    for watch in story(tmp_path, [FAR_VICTIM]):
        assert 0 < len(watch.at) <= UNANSWERED_MAX


def test_nor_many_more_to_all_ports_of_a_strangers_machine(tmp_path):
    for watch in story(tmp_path, [(VICTIM[0], VICTIM[1] + number) for number in range(PHANTOMS)]):
        assert 0 < watch.most_in_a_minute() <= HOST_UNANSWERED_MAX


@pytest.mark.parametrize("name", ["a", "n" * 32])
def test_who_is_asked_asks_back_in_no_more_bytes_than_came(lab, name):
    """A lone supernode wants to know who asked: the address may be forged."""
    ana = lab.node(name)
    x = Outlaw(lab, 99)
    lab.world.broadcasts = False
    sent = []
    send_lone = ana.network.send_lone

    def sending(address, data):
        if address == x.network.address:  # its neighbours are asked whoever asks it
            sent.append(len(data))
        send_lone(address, data)

    ana.network.send_lone = sending
    came = 0
    for number in range(60):
        query = encode(messages.Query(number.to_bytes(8, "big")))
        came += len(query)
        x.network.send_lone((ana.ip, PORT), query)
        lab.run(1)
        assert sum(sent) <= came
    assert len(sent) > 60, "it did ask"


@pytest.mark.parametrize("relays_for_one", [0, relays.RELAYS_FOR_ONE_MAX])
def test_a_source_that_was_silent_just_before_is_waited_for(lab, monkeypatch, relays_for_one):
    """Three datagrams to it were lost: what a person wants from there comes by way of the supernode; where that passes
    nothing on, it comes when the minute is over.
    """
    monkeypatch.setattr(relays, "RELAYS_FOR_ONE_MAX", relays_for_one)
    lab.node("ana")
    lab.node("cy", shared={"a.bin": b"a" * 1000})
    bo = lab.node("bo")
    hearsay = bo.peer.membership.hearsay = Hearsay()
    assert hearsay.may_dial(("10.0.0.2", PORT), lab.world.now) == UNANSWERED_MAX
    bo.peer.membership._prober._hearsay = hearsay
    asked = lab.world.now
    done = bo.fetched("a.bin", 90.0)
    assert isinstance(done, DownloadDone)
    if relays_for_one:
        assert done.by_way_of == "ana" and lab.world.now - asked < 3.0
    else:
        assert done.by_way_of is None and lab.world.now - asked > 50.0


def test_members_know_those_who_take_over_first_before_it_matters(tmp_path):
    """So each of them may be asked as often as an election wants, though some datagrams are lost."""
    lab = Lab(tmp_path, packets=True)
    nodes = [lab.node("n%d" % number) for number in range(12)]
    lab.run(10)
    places = [(node.ip, node.port) for node in nodes]
    for node, place in zip(nodes[1:], places[1:]):
        hearsay = node.peer.membership.hearsay
        assert all(hearsay.is_proven(other, lab.world.now) for other in places if other != place), node.name
    lab.run(amount(900, 350))
    assert all(nodes[3].peer.membership.hearsay.has_answered(place, 320.0, lab.world.now) for place in places[4:])
    lab.close()


def test_an_answer_to_a_broadcast_in_a_strangers_name_brings_the_stranger_three_questions_and_no_more(lab):
    """Whoever is in the LAN hears the question, and a member can make the proof."""
    ana = lab.node("ana")
    lab.node("bo")
    ruler, sent = ana.peer.supernode, []
    send_lone = ana.network.send_lone
    ana.network.send_lone = lambda address, data: (sent.append((address, data)), send_lone(address, data))
    for _ in range(50):
        ruler._prober.broadcast(PORT, "heal", lab.world.now)
        forged = messages.Answer(
            list(ruler._prober._pending)[-1], bytes(8), ruler.seat.network_id, ruler.term, b"v" * 8,
            messages.ROLE_SUPERNODE, b"v" * 8, NOWHERE, 0, 5, "v", bytes(16),
        )  # fmt: skip
        assert ruler.on_lone(VICTIM, with_proof(forged, ruler.seat.secret), lab.world.now)
        lab.run(1)
    to_victim = [messages.decode(data) for address, data in sent if address == VICTIM]
    assert len(to_victim) == UNANSWERED_MAX and {type(message) for message in to_victim} == {messages.Query}
    assert not ruler.has_ended
