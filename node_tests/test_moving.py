"""A connection follows its other end to another address, and nobody who copies datagrams takes it away."""

import collections
import math
import random

import pytest

from node_tests.stage.amounts import amount
from node_tests.stage.simulator import EndpointDriver, Pair, data_packet
from protocol.transport import packets as wire
from protocol.transport.admission import CONNECTIONS_PER_HOST_MAX
from protocol.transport.connection import PathChanged
from protocol.transport.mtu import DATAGRAM_SIZE_BASE
from protocol.transport.packets import PacketType
from protocol.transport.paths import PAUSE_LEAST, REST, Paths, path_proof

MEGABYTE = 1_000_000
RATE = amount(25e6, 6e6) / 8  # bytes a second of the link: four times as many packets show nothing more
NOTICED = 1.0  # seconds until a machine sees that its own address is another
ELSEWHERE = ("10.0.0.77", 1000)
PATHS = (PacketType.PATH_CHALLENGE, PacketType.PATH_RESPONSE)


def moving_pair(**how):
    """Two connected ends, and a list of the moves that each was told of: (side, before, now)."""
    pair = Pair(seed=how.pop("seed", 5), **{"rate": RATE, "queue": 25 * 1500 / RATE, **how})
    pair.moves = []
    for side, driver in (("a", pair.a), ("b", pair.b)):
        driver.on_event = listener(pair, side, driver.on_event)
    assert pair.connected()
    pair.world.run(pair.world.now + 1.0)
    return pair


def listener(pair, side, inner):
    def on_event(event):
        if isinstance(event, PathChanged):
            pair.moves.append((side, event.before, event.connection.address))
        inner(event)

    return on_event


def says(pair, made, text, limit):
    """Seconds until the other end has what this one says now; None: not in so many."""
    side = "b" if made is pair.there else "a"
    before, began = len(pair.received[side]), pair.world.now
    made.send_frame(0, text)
    (pair.a if made is pair.there else pair.b).pump()
    if not pair.world.run_until(lambda: len(pair.received[side]) > before, began + limit):
        return None
    assert pair.received[side][before:] == [text]
    return pair.world.now - began


# ---- it moves


@pytest.mark.parametrize("speaker", ["a", "b"])
def test_an_idle_connection_goes_on_from_the_new_address(speaker):
    pair = moving_pair()
    pair.a.move(ELSEWHERE, NOTICED)
    made = pair.there if speaker == "a" else pair.back
    assert says(pair, made, b"are you there", 5.0) is not None
    pair.world.run(pair.world.now + 2)
    assert pair.moves == [("b", Pair.A, ELSEWHERE)]
    assert pair.back.address == ELSEWHERE and pair.there.address == Pair.B
    assert says(pair, pair.back, b"and back", 1.0) is not None
    pair.finish()


@pytest.mark.parametrize("mover", ["source", "requester"])
@pytest.mark.parametrize("loss", [0.05, 0.0][: amount(2, 1)])
def test_a_transfer_goes_on_and_ends_right(mover, loss):
    size = amount(5, 2) * MEGABYTE
    still = moving_pair(seed=6, loss=loss)
    usual = still.transfer(size, 60)
    pair = moving_pair(seed=6, loss=loss)
    pair.world.after(0.5, lambda: (pair.a if mover == "source" else pair.b).move(ELSEWHERE, NOTICED))
    took = pair.transfer(size, 60)
    assert len(pair.moves) == 1
    assert took < usual + 5.0, (took, usual)
    pair.finish()


def test_a_router_that_gives_another_port_costs_no_window():
    """The path is the same one but for the port: what was learnt of it stays (RFC 9000, section 9.4)."""
    pair = moving_pair()
    pair.stream()
    pair.world.run(pair.world.now + 3)
    window = pair.there.recovery.congestion.window
    pair.b.move((Pair.B[0], 4321), 0.2)
    assert pair.world.run_until(lambda: pair.moves, pair.world.now + 3)
    assert pair.there.mtu.size > DATAGRAM_SIZE_BASE
    assert pair.there.recovery.congestion.window > window / 3
    assert pair.rate_over(3.0) > 0.64 * RATE


def test_another_host_begins_anew_with_window_and_datagrams():
    pair = moving_pair()
    pair.stream()
    pair.world.run(pair.world.now + 3)
    size, window = pair.there.mtu.size, pair.there.recovery.congestion.window
    pair.world.between(Pair.A[0], ELSEWHERE[0]).mtu = 1280  # what passed before does not any more
    pair.b.move(ELSEWHERE, 0.2)
    assert pair.world.run_until(lambda: pair.moves, pair.world.now + 3)
    assert pair.there.mtu.size == DATAGRAM_SIZE_BASE < size
    assert pair.there.recovery.congestion.window < window
    assert pair.rate_over(2.0) > 0.4 * RATE
    assert pair.there.mtu.size == DATAGRAM_SIZE_BASE


@pytest.mark.parametrize("has_other_addresses", [True, False], ids=["another network", "a router's other port"])
def test_who_moves_to_another_network_begins_anew_as_well(has_other_addresses):
    """The program sees that its machine has other addresses; where only a router's port changed, it does not."""
    pair = moving_pair()
    pair.stream()
    pair.world.run(pair.world.now + 3)
    sender = pair.there.recovery
    size, window = pair.there.mtu.size, sender.congestion.window
    new_controllers = []
    new_controller = pair.a.endpoint.new_controller
    pair.a.endpoint.new_controller = lambda size: new_controllers.append(pair.world.now) or new_controller(size)
    if has_other_addresses:
        pair.world.between(ELSEWHERE[0], Pair.B[0]).mtu = 1280
    pair.a.move(ELSEWHERE if has_other_addresses else (Pair.A[0], 4321), NOTICED if has_other_addresses else math.inf)
    assert pair.world.run_until(lambda: pair.moves, pair.world.now + 8)
    moved_at = pair.world.now
    pair.world.run(moved_at + 1.0)
    if has_other_addresses:
        assert len(new_controllers) == 1 and moved_at <= new_controllers[0] < moved_at + NOTICED
        assert pair.there.mtu.size == DATAGRAM_SIZE_BASE < size
    else:
        assert not new_controllers and pair.there.mtu.size == size and sender.congestion.window > window / 3
    assert pair.rate_over(2.0) > 0.4 * RATE


def test_it_moves_again_and_again_and_comes_back():
    pair = moving_pair()
    for address in (ELSEWHERE, ("10.0.0.78", 1000), Pair.A):
        pair.a.move(address, NOTICED)
        assert says(pair, pair.back, b"hello", 6.0) is not None
        pair.world.run(pair.world.now + 5)
    assert [now for _, _, now in pair.moves] == [ELSEWHERE, ("10.0.0.78", 1000), Pair.A]
    assert pair.b.endpoint.admission.per_host == {Pair.A[0]: 1}
    pair.finish()


def test_a_connection_that_has_moved_is_forgotten_whole():
    pair = moving_pair()
    pair.a.move(ELSEWHERE, NOTICED)
    pair.world.run(pair.world.now + 3)
    assert pair.moves
    pair.finish()
    for endpoint in (pair.a.endpoint, pair.b.endpoint):
        assert not endpoint.directory.by_client and not endpoint.directory.by_remote and not endpoint.admission.per_host


def test_who_lost_its_memory_says_so_to_where_the_other_one_is_now():
    pair = moving_pair()
    pair.a.move(ELSEWHERE, NOTICED)
    pair.world.run(pair.world.now + 3)
    assert pair.moves
    pair.back.endpoint.forget(pair.back)
    pair.there.send_frame(0, b"still there?")
    pair.a.pump()
    assert pair.world.run_until(lambda: "a" in pair.lost, pair.world.now + 5)
    assert "lost its memory" in pair.lost["a"].reason


def test_who_only_takes_in_speaks_when_a_router_gave_it_another_port():
    """Nothing tells it, and nothing comes any more: it asks for the rest of what is half here."""
    pair = moving_pair()
    pair.stream(frame=MEGABYTE // 4)
    pair.world.run(pair.world.now + 3)
    pair.b.move((Pair.B[0], 4321))
    assert pair.world.run_until(lambda: pair.moves, pair.world.now + 3)
    assert pair.moves == [("a", Pair.B, (Pair.B[0], 4321))]
    assert pair.rate_over(3.0) > 0.64 * RATE


# ---- an older program


def test_an_older_program_stays_where_it_is():
    """It knows neither packet: as before, the connection ends by silence, and is never in another's hands."""
    pair = moving_pair(filters=(lambda datagram: None if datagram[5] in PATHS else datagram, None))
    pair.a.move(ELSEWHERE, NOTICED)
    pair.send(MEGABYTE)
    sent = []
    pair.b.filter = lambda datagram: sent.append(datagram[5]) or datagram
    assert pair.world.run_until(lambda: len(pair.lost) == 2, pair.world.now + 70)
    assert {event.reason for event in pair.lost.values()} == {"no sign of life for 30 s"}
    assert not pair.moves
    assert 0 < sent.count(PacketType.PATH_CHALLENGE) < 100


# ---- others


class Copier:
    """Copies what `side` sends to an address of its own, from which it reaches the other end before the original."""

    def __init__(self, pair, answers=False, passes_on=False):
        self.pair = pair
        self.got = []
        self.driver = EndpointDriver(pair.world, ("10.6.6.6", 666), lambda event: None)
        self.driver.endpoint.receive = self._receive
        self._answers, self._passes_on = answers, passes_on
        pair.a.filter = self._on_sent

    def _on_sent(self, datagram):
        if datagram[5] != PacketType.PATH_RESPONSE or self._answers:
            self.driver.send_raw(Pair.B, datagram)
        return datagram

    def _receive(self, buffer, segment_size, address, now):
        self.got.append(bytes(buffer))
        if self._passes_on and buffer[5] == PacketType.PATH_CHALLENGE:  # with the address of who sent it
            self.pair.a.endpoint.receive(buffer, len(buffer), Pair.B, now)
            self.pair.a.pump()


@pytest.mark.parametrize(
    "answers", [pytest.param(True, id="copies answers, too"), pytest.param(False, id="copies")][: amount(2, 1)]
)
@pytest.mark.parametrize("passes_on", [False, True], ids=["", "passes challenges on"])
def test_who_copies_datagrams_gets_nothing_but_challenges(answers, passes_on):
    """Even a copier that is faster than who it copies, and passes on what comes to it, takes nothing away."""
    pair = moving_pair(latency=0.02)
    pair.world.between("10.6.6.6", Pair.B[0]).latency = 0.001
    pair.world.between(Pair.B[0], "10.6.6.6").latency = 0.001
    copier = Copier(pair, answers, passes_on)
    assert pair.transfer(amount(5, 2) * MEGABYTE, 60) < 10
    pair.world.run(pair.world.now + 10)
    assert not pair.moves and not pair.lost
    assert {datagram[5] for datagram in copier.got} == {PacketType.PATH_CHALLENGE}
    assert len(copier.got) <= 3 * 6  # three in each round, and it rests between them
    assert says(pair, pair.there, b"still here", 1.0) is not None
    pair.finish()


def test_who_makes_up_a_packet_gets_three_times_its_bytes_at_most():
    pair = moving_pair()
    stranger = EndpointDriver(pair.world, ("10.6.6.6", 666), lambda event: None)
    got = []
    stranger.endpoint.receive = lambda buffer, *rest: got.append(len(buffer))
    forged = data_packet(pair.back.local_id, pair.back.acknowledging.largest + 1, 0, b"x")
    stranger.send_raw(Pair.B, forged)
    pair.world.run(pair.world.now + 10)
    assert 0 < sum(got) <= 3 * len(forged)
    assert not pair.moves and not pair.received["b"]
    pair.finish()


def test_what_is_old_or_beyond_belief_asks_nobody():
    pair = moving_pair()
    says(pair, pair.there, b"one", 1.0)
    stranger = EndpointDriver(pair.world, ("10.6.6.6", 666), lambda event: None)
    got = []
    stranger.endpoint.receive = lambda buffer, *rest: got.append(buffer[5])
    largest = pair.back.acknowledging.largest
    for number in (largest, largest - 1, largest + (1 << 40)):
        stranger.send_raw(Pair.B, data_packet(pair.back.local_id, number, 0, b"x"))
    for largest in (pair.back.recovery.largest_acknowledged, pair.back.recovery.next_packet_number + 5):
        ack = wire.AckPacket(pair.back.local_id, largest, 0, 0, [(largest, largest)])
        stranger.send_raw(Pair.B, wire.encode_ack(ack))
    pair.world.run(pair.world.now + 3)
    assert not got
    pair.finish()


def test_a_flood_from_many_addresses_has_few_answers():
    """A member that names victims by forged source addresses: each gets a few small datagrams, all together a few."""
    pair = moving_pair()
    got = collections.Counter()
    places = [("10.6.6.%d" % number, 666) for number in range(1, 101)]
    strangers = [EndpointDriver(pair.world, place, lambda event: None) for place in places]
    for stranger in strangers:
        stranger.endpoint.receive = lambda buffer, size, address, now, stranger=stranger: got.update([stranger.address])
    for _ in range(50):
        for stranger in strangers:
            number = pair.back.acknowledging.largest + 1
            stranger.send_raw(Pair.B, data_packet(pair.back.local_id, number, 0, b"x" * 100))
        pair.world.run(pair.world.now + 0.1)
    assert 0 < sum(got.values()) <= 3 * 16 * 2  # sixteen addresses, and they rest for three seconds
    assert max(got.values()) <= 6
    assert says(pair, pair.there, b"still here", 1.0) is not None
    pair.finish()


def test_while_a_liar_is_looked_at_the_true_move_is_found():
    pair = moving_pair()
    stranger = EndpointDriver(pair.world, ("10.6.6.6", 666), lambda event: None)
    pair.a.move(ELSEWHERE, 0.3)
    for _ in range(20):
        stranger.send_raw(Pair.B, data_packet(pair.back.local_id, pair.back.acknowledging.largest + 1, 0, b"x"))
        pair.world.run(pair.world.now + 0.1)
    assert pair.moves == [("b", Pair.A, ELSEWHERE)]
    assert says(pair, pair.there, b"here", 1.0) is not None
    pair.finish()


def test_a_host_that_has_all_its_connections_gets_no_more_by_moving_them_there():
    pair = moving_pair()
    pair.b.endpoint.admission.per_host[ELSEWHERE[0]] = CONNECTIONS_PER_HOST_MAX
    pair.a.move(ELSEWHERE, 0.1)
    pair.world.run(pair.world.now + 5)
    assert not pair.moves
    pair.a.move((Pair.A[0], 999), 0.1)  # another port of where it is takes no further place
    pair.b.endpoint.admission.per_host[Pair.A[0]] = CONNECTIONS_PER_HOST_MAX
    pair.world.run(pair.world.now + 5)
    assert [now for _, _, now in pair.moves] == [(Pair.A[0], 999)]


def test_what_was_on_its_way_when_a_port_changed_is_no_loss_that_could_be_taken_back():
    """The acknowledgement was lost, not the packet: the controller learns nothing of it."""
    pair = moving_pair()
    told = []
    recovery = pair.there.recovery
    recovery.congestion.on_spurious = told.append
    pair.there.send_frame(0, b"x" * 500)
    for batch in pair.a.endpoint.batches(pair.world.now):
        pair.a._send(batch)
    number = recovery.next_packet_number - 1
    pair.a.endpoint.move(pair.there, (Pair.B[0], 4321), pair.world.now)
    outcome = recovery.on_ack([(number, number)], 0.0, pair.world.now + 0.01)
    assert sum(stop - start for start, stop in outcome.acknowledged) > 500
    assert not told and recovery.packets_spurious == 0


# ---- the value alone


def looking_at(*addresses, size=100):
    """Something new came from these at 0 s; and the challenges that go out then, by address."""
    paths = Paths(random.Random(1))
    paths.meet(b"r" * 8, b"t" * 16)
    for address in addresses:
        paths.begin(address, 0.01, 0.0)
        paths.on_bytes(address, size)
    asked = {}
    address = paths.to_ask(Pair.A, 0.0)
    while address is not None:
        asked[address] = wire.decode_path(memoryview(paths.ask(address, 0.0))).token
        address = paths.to_ask(Pair.A, 0.0)
    return paths, asked


def answer_from(paths, address, challenge, now):
    paths.on_answer(address, path_proof(b"t" * 16, challenge), Pair.A, now)


def test_it_moves_when_the_new_address_answers_and_the_old_one_was_given_its_time():
    paths, asked = looking_at(ELSEWHERE)
    assert set(asked) == {ELSEWHERE, Pair.A}
    answer_from(paths, ELSEWHERE, asked[ELSEWHERE], 0.01)
    settled_at = 3 * PAUSE_LEAST
    assert paths.found(settled_at - 0.01) is None
    assert paths.found(settled_at + 0.01) == ELSEWHERE
    assert paths.next_deadline() == math.inf and paths.found(settled_at + 1) is None


@pytest.mark.parametrize("whose", [Pair.A, ELSEWHERE], ids=["its own challenge", "one that was passed on"])
def test_an_answer_from_the_old_address_ends_the_look(whose):
    paths, asked = looking_at(ELSEWHERE)
    answer_from(paths, ELSEWHERE, asked[ELSEWHERE], 0.01)
    answer_from(paths, Pair.A, asked[whose], 0.02)
    assert paths.found(5.0) is None and paths.next_deadline() == math.inf
    assert not paths.may_begin(ELSEWHERE, 0.02 + REST - 0.1) and paths.may_begin(ELSEWHERE, 0.02 + REST)


def test_a_wrong_answer_and_one_from_somebody_else_prove_nothing():
    paths, asked = looking_at(ELSEWHERE)
    paths.on_answer(ELSEWHERE, path_proof(b"x" * 16, asked[ELSEWHERE]), Pair.A, 0.01)
    answer_from(paths, ELSEWHERE, asked[Pair.A], 0.01)
    answer_from(paths, ("10.6.6.6", 666), asked[ELSEWHERE], 0.01)
    assert paths.found(0.35) is None and paths.found(0.51) is None
    assert not paths.may_begin(ELSEWHERE, 0.6)


def test_who_stood_still_reads_first_what_the_old_address_said_meanwhile():
    for answers in (True, False):
        paths, asked = looking_at(ELSEWHERE)
        answer_from(paths, ELSEWHERE, asked[ELSEWHERE], 0.01)
        assert paths.found(10.0) is None
        if answers:
            answer_from(paths, Pair.A, asked[Pair.A], 10.0)
        assert paths.found(10.0 + PAUSE_LEAST + 0.01) == (None if answers else ELSEWHERE)


def test_where_little_came_from_little_goes():
    paths, asked = looking_at(ELSEWHERE, size=10)
    assert set(asked) == {Pair.A}
    paths.on_bytes(ELSEWHERE, 1)
    assert paths.to_ask(Pair.A, 0.01) == ELSEWHERE and paths.ask(ELSEWHERE, 0.01)
    assert paths.next_deadline() > 0.01
