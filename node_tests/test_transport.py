"""Two endpoints and a bad link, in virtual time: what arrives is equal, in time, and nothing stays behind."""

import random

import pytest

from node_tests.stage.simulator import EndpointDriver, Pair, data_packet, flip_bit
from protocol.transport import packets as wire
from protocol.transport.admission import CONNECTIONS_PER_HOST_MAX
from protocol.transport.connection import ConnectionLost, Established, State
from protocol.transport.endpoint import LONES_PER_SECOND, Endpoint
from protocol.transport.handshake import HANDSHAKE_TIMEOUT
from protocol.transport.liveness import IDLE_TIMEOUT
from protocol.transport.sending import SMALL_PART_MAX, SendStream

MEGABYTE = 1_000_000
LINK = 100e6 / 8  # bytes per second


# ---- a good link, a bad link --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "conditions", "share"),
    [
        ("all of it", {"loss": 0.03, "reorder": 0.05, "duplicate": 0.05, "corrupt": 0.01}, 0.3),
    ],
)
def test_ten_megabytes_arrive_equal_over(name, conditions, share):
    pair = Pair(seed=3, **conditions)
    seconds = pair.transfer(10 * MEGABYTE, limit=60)
    assert 10 * MEGABYTE / seconds >= share * LINK
    pair.finish()


def test_a_third_of_the_packets_lost_both_ways_still_ends():
    pair = Pair(seed=4, loss=0.3)
    pair.transfer(MEGABYTE, limit=120)
    pair.finish()


def test_acknowledgements_lost_do_not_hold_the_data_up():
    pair = Pair(seed=5)
    pair.world.between("10.0.0.2", "10.0.0.1").loss = 0.3
    assert pair.transfer(10 * MEGABYTE, limit=30) < 4.0
    assert pair.there.recovery.packets_spurious < 0.01 * pair.a.sent


def test_reordering_is_learnt_and_no_longer_taken_for_loss():
    pair = Pair(seed=6, reorder=0.2)
    pair.transfer(5 * MEGABYTE, limit=30)
    spurious = pair.there.recovery.packets_spurious
    sent = pair.a.sent
    pair.transfer(10 * MEGABYTE, limit=30)
    assert pair.there.recovery.packets_spurious - spurious <= 0.01 * (pair.a.sent - sent)


def test_bytes_go_both_ways_at_once():
    pair = Pair(seed=7, loss=0.01)
    assert pair.connected()
    for index in range(200):
        pair.there.send_frame(0, b"there %d" % index)
        pair.back.send_frame(0, b"back %d" % index)
    pair.a.pump()
    pair.b.pump()
    pair.world.run(5)
    assert pair.received["b"] == [b"there %d" % index for index in range(200)]
    assert pair.received["a"] == [b"back %d" % index for index in range(200)]


# ---- the path changes ---------------------------------------------------------------------------------------------


def test_larger_datagrams_are_found_and_used():
    pair = Pair(seed=8, mtu=9000)
    pair.transfer(2 * MEGABYTE, limit=10)
    assert pair.there.datagram_size == 8972


def test_a_path_mtu_that_shrinks_in_mid_transfer_is_a_black_hole_of_seconds():
    pair = Pair(seed=9, mtu=1500)
    pair.transfer(2 * MEGABYTE, limit=10)
    assert pair.there.datagram_size == 1472
    pair.world.conditions.mtu = 1280
    assert pair.transfer(2 * MEGABYTE, limit=30) < 8
    assert pair.there.datagram_size == 1200


def test_a_link_dead_for_ten_seconds_goes_on_within_two_of_its_return():
    pair = Pair(seed=10)
    data = pair.send(10 * MEGABYTE)
    pair.world.run(0.5)
    pair.world.cut(["10.0.0.1"], ["10.0.0.2"])
    pair.world.run(10.5)
    before = len(pair.received["b"])
    pair.world.heal()
    pair.world.run(12.5)
    assert len(pair.received["b"]) > before
    assert pair.world.run_until(lambda: sum(map(len, pair.received["b"])) == len(data), 30)
    assert b"".join(pair.received["b"]) == data


def test_a_link_dead_for_good_is_said_at_both_ends():
    pair = Pair(seed=11)
    pair.send(10 * MEGABYTE)
    pair.world.run(0.5)
    pair.world.cut(["10.0.0.1"], ["10.0.0.2"])
    assert pair.world.run_until(lambda: len(pair.lost) == 2, 40)
    assert pair.lost["a"].reason == pair.lost["b"].reason == "no sign of life for 30 s"
    assert not pair.lost["a"].is_clean
    pair.world.run(80)
    assert not pair.a.endpoint.connections
    assert not pair.b.endpoint.connections


def test_the_last_packet_lost_is_probed_for():
    pair = Pair(seed=12)
    assert pair.connected()
    pair.world.run(1)
    pair.a.filter = lambda datagram: None  # everything that leaves now is lost
    pair.send(500)
    pair.world.run(1.01)
    pair.a.filter = None
    assert pair.world.run_until(lambda: pair.received["b"], 1.5)


def test_why_the_other_side_closes_is_one_line_that_steers_no_terminal():
    """An RdtError says it, which programs print and Python does."""
    pair = Pair()
    assert pair.connected()
    pair.there.shut_down("\x1b[2Jdone\n\u202eOK")
    pair.a.pump()
    assert pair.world.run_until(lambda: "b" in pair.lost, pair.world.now + 5.0)
    assert pair.lost["b"].reason == "\ufffd[2Jdone\ufffd\ufffdOK"
    refused = wire.encode_refused(wire.RefusedPacket(bytes(8), bytes(16), "\x9b2J"))
    assert wire.decode_refused(memoryview(refused)).reason == "\ufffd2J"


def test_a_close_that_is_lost_is_said_again():
    pair = Pair(seed=13)
    pair.transfer(1000, limit=2)
    closes = []

    def lose_the_first_close(datagram):
        if datagram[5] == wire.PacketType.CLOSE:
            closes.append(datagram)
            return None if len(closes) == 1 else datagram
        return datagram

    pair.a.filter = lose_the_first_close
    pair.finish()
    assert len(closes) >= 2
    assert pair.lost["a"].is_clean
    assert pair.lost["b"].is_clean


# ---- flow control and life ----------------------------------------------------------------------------------------


def test_a_reader_that_never_reads_is_given_up_after_a_minute():
    pair = Pair(seed=15)
    assert pair.connected()
    pair.reading = False
    pair.send(12 * MEGABYTE)
    assert pair.world.run_until(lambda: "a" in pair.lost, 80)
    assert pair.lost["a"].reason == "took nothing for 60 s"


def test_an_idle_connection_is_kept_alive_for_ever_at_little_cost():
    pair = Pair(seed=16)
    assert pair.connected()
    pair.world.run(10)
    sent = pair.a.sent + pair.b.sent
    pair.world.run(610)
    assert not pair.lost
    assert pair.a.sent + pair.b.sent - sent <= 2 * 60 + 40  # a PING and its answer every ten seconds; an MTU search
    pair.transfer(100_000, limit=2)


def test_the_remote_that_vanishes_is_noticed():
    pair = Pair(seed=17)
    assert pair.connected()
    pair.b.kill()
    assert pair.world.run_until(lambda: "a" in pair.lost, IDLE_TIMEOUT + 5)


def test_a_remote_that_restarted_tells_that_it_has_forgotten_us():
    pair = Pair(seed=18)
    assert pair.connected()
    secret = pair.b.endpoint._secret
    pair.b.kill()
    pair.b = EndpointDriver(pair.world, Pair.B, lambda event: None)
    pair.b.endpoint._secret = secret  # else its token would rightly not be believed
    pair.send(1000)
    assert pair.world.run_until(lambda: "a" in pair.lost, 2)


def test_what_was_sent_is_delivered_before_the_close():
    pair = Pair(seed=19, loss=0.05)
    assert pair.connected()
    data = pair.send(2 * MEGABYTE)
    pair.there.shut_down("done")
    pair.a.pump()
    assert pair.world.run_until(lambda: len(pair.lost) == 2, 60)
    assert b"".join(pair.received["b"]) == data
    assert pair.lost["b"].is_clean


def test_both_close_at_once():
    pair = Pair(seed=20)
    assert pair.connected()
    pair.back.shut_down("b leaves")
    pair.there.shut_down("a leaves")
    pair.a.pump()
    pair.b.pump()
    assert pair.world.run_until(lambda: len(pair.lost) == 2, 5)
    pair.world.run(20)
    assert not pair.a.endpoint.connections
    assert not pair.b.endpoint.connections


def test_numbers_and_offsets_beyond_32_bits():
    pair = Pair(seed=21, loss=0.01)
    assert pair.connected()
    for sending, receiving in ((pair.there, pair.back), (pair.back, pair.there)):
        sending.sending.end = sending.sending.sent_to = sending.sending.acknowledged_to = (1 << 40) - 5000
        receiving.receiving.next_offset = (1 << 40) - 5000
        receiving.receiving.credit = sending.sending.credit = (1 << 40) + 60_000
        number = (1 << 32) - 50
        sending.recovery.next_packet_number = sending.recovery._floor = number
        sending.recovery.largest_acknowledged = number - 1
        receiving.acknowledging.begin(number)
        receiving.acknowledging.numbers.forget_below(1 << 33)
        sending.recovery._records.clear()
        sending.recovery._firsts.clear()
        sending.recovery._head = sending.recovery.bytes_in_flight = 0
    pair.transfer(3 * MEGABYTE, limit=20)
    pair.finish()


# ---- handshake ----------------------------------------------------------------------------------------------------


def test_fifty_connect_under_30_percent_loss():
    slow = 0
    for seed in range(50):
        pair = Pair(seed=seed, loss=0.3)
        pair.there.handshake.deadline = 20.0
        assert pair.connected(limit=20), seed
        slow += pair.world.now > 5
    assert slow <= 2


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("side", ["a", "b"])
def test_the_first_flight_lost(side, count):
    lost = []

    def lose(datagram):
        lost.append(datagram)
        return None if len(lost) <= count else datagram

    pair = Pair(seed=count, filters=(lose, None) if side == "a" else (None, lose))
    assert pair.connected(limit=2.2)


def test_nobody_there_is_said_after_the_timeout():
    pair = Pair(seed=22)
    nobody = pair.a.endpoint.connect(("10.0.0.9", 1), pair.world.now)
    pair.a.pump()
    pair.world.run(HANDSHAKE_TIMEOUT + 0.1)
    assert nobody.state is State.CLOSED
    assert pair.lost["a"].reason == "timed out"


@pytest.mark.parametrize("tries", [1, 2, 3])
def test_where_few_datagrams_may_go_no_more_do_until_something_comes_back(tries):
    pair = Pair(seed=24)
    assert pair.connected()
    began, kinds = pair.world.now, []
    pair.a.filter = lambda datagram: (kinds.append(datagram[5]), datagram)[1]
    nobody = pair.a.endpoint.connect(("10.0.0.9", 1), began, tries=tries)
    pair.a.pump()
    pair.world.run(began + HANDSHAKE_TIMEOUT + 0.1)
    assert kinds.count(wire.PacketType.INIT) == tries
    assert nobody.state is State.CLOSED and pair.lost["a"].reason == "timed out"


def test_few_tries_are_no_limit_once_a_cookie_has_come():
    """Everything but the COOKIE is lost for two seconds: the INITs with it go on."""
    pair = Pair(seed=25)
    assert pair.connected()
    address = pair.b.address
    pair.b.filter = lambda datagram: datagram if datagram[5] == wire.PacketType.COOKIE else None
    made = pair.a.endpoint.connect(address, pair.world.now, tries=1)
    pair.a.pump()
    pair.world.run(pair.world.now + 2.0)
    assert made.state is State.CONNECTING
    pair.b.filter = None
    assert pair.world.run_until(lambda: made.state is State.ESTABLISHED, pair.world.now + 1.0)


def test_both_connect_at_once():
    pair = Pair(seed=23)
    pair.b.endpoint.connect(Pair.A, 0.0)
    pair.b.pump()
    pair.world.run(2)
    assert all(made.state is State.ESTABLISHED for made in pair.a.endpoint.connections + pair.b.endpoint.connections)
    assert len(pair.a.endpoint.connections) == len(pair.b.endpoint.connections) == 2


def test_a_leaving_endpoint_refuses():
    pair = Pair(seed=24)
    pair.b.endpoint.accepts = False
    assert pair.world.run_until(lambda: "a" in pair.lost, 3)
    assert pair.lost["a"].reason == "it is leaving"


def test_one_machine_gets_so_many_connections_and_no_more():
    pair = Pair(seed=25)
    for _ in range(CONNECTIONS_PER_HOST_MAX + 10):
        pair.a.endpoint.connect(Pair.B, pair.world.now)
        pair.a.pump()
        pair.world.run(pair.world.now + 0.2)
    assert len(pair.b.endpoint.connections) == CONNECTIONS_PER_HOST_MAX
    assert pair.lost["a"].reason == "too many connections from one machine"


# ---- hostile and broken remotes -----------------------------------------------------------------------------------


def stranger(pair, address=("10.6.6.6", 666)):
    """Somebody who sends raw datagrams and counts what comes back."""
    driver = EndpointDriver(pair.world, address, lambda event: None)
    driver.heard = []
    driver.endpoint.receive = lambda data, size, source, now: driver.heard.append(bytes(data))
    return driver


def test_random_datagrams_do_nothing_and_get_less_than_they_sent():
    pair = Pair(seed=26)
    assert pair.connected()
    x, rng = stranger(pair), random.Random(26)
    sent = 0
    for _ in range(3000):
        datagram = rng.getrandbits(8 * 200).to_bytes(200, "big")[: rng.randrange(200)]
        if rng.random() < 0.7 and len(datagram) >= wire.PREFIX_SIZE:
            datagram = bytearray(datagram)
            datagram[4:6] = bytes([wire.VERSION, rng.randrange(12)])
            datagram = bytes(wire.seal(datagram))
        sent += len(datagram)
        x.send_raw(Pair.B, datagram)
        pair.world.run(pair.world.now + 0.0002)
    pair.transfer(MEGABYTE, limit=5)
    assert sum(map(len, x.heard)) < sent
    assert len(pair.b.endpoint.connections) == 1


def test_damaged_copies_of_real_datagrams_during_a_transfer():
    pair = Pair(seed=27)
    assert pair.connected()
    x, rng, seen = stranger(pair), random.Random(27), []
    pair.a.filter = lambda datagram: seen.append(datagram) or datagram
    data = pair.send(3 * MEGABYTE)
    for _ in range(4000):
        pair.world.run(pair.world.now + 0.0002)
        if seen:
            copy = flip_bit(rng.choice(seen[-50:]), rng)
            if rng.random() < 0.5 and len(copy) > 8:
                copy = bytes(wire.seal(bytearray(copy)))
            x.send_raw(Pair.B, copy)
    assert pair.world.run_until(lambda: sum(map(len, pair.received["b"])) == len(data), 30)
    assert b"".join(pair.received["b"]) == data


def test_any_bytes_to_a_live_connection_from_its_own_address():
    """A broken remote: damage with a right checksum, from the right address. It may end the connection, never more."""
    for seed in range(12):
        pair = Pair(seed=seed)
        assert pair.connected()
        rng, seen = random.Random(seed), []
        pair.a.filter = lambda datagram, seen=seen: seen.append(datagram) or datagram
        pair.send(MEGABYTE)
        for _ in range(300):
            pair.world.run(pair.world.now + 0.001)
            copy = bytearray(flip_bit(rng.choice(seen), rng))
            pair.b.endpoint.receive(memoryview(wire.seal(copy)), len(copy), Pair.A, pair.world.now)
            pair.b.pump()
        pair.world.run(pair.world.now + 100)
        assert not pair.lost or isinstance(pair.lost.get("b") or pair.lost.get("a"), ConnectionLost)


@pytest.mark.parametrize("beyond", [0, 5, 10**6, 2**62], ids=["the next", "a few more", "many more", "absurd"])
def test_who_acknowledges_what_was_never_sent_is_closed(beyond):
    pair = Pair(seed=28)
    assert pair.connected()
    largest = pair.there.recovery.next_packet_number + beyond
    datagram = wire.encode_ack(wire.AckPacket(pair.there.local_id, largest, 0, 10**9, [(largest - 5, largest)]))
    pair.a.endpoint.receive(memoryview(datagram), len(datagram), Pair.B, pair.world.now)
    pair.a.pump()
    assert pair.lost["a"].reason == "acknowledged packets that were never sent"


def test_data_beyond_the_credit_closes():
    pair = Pair(seed=29)
    assert pair.connected()
    datagram = data_packet(pair.back.local_id, pair.back.acknowledging.largest + 1, pair.back.receiving.credit, b"x")
    pair.b.endpoint.receive(memoryview(datagram), len(datagram), Pair.A, pair.world.now)
    pair.b.pump()
    assert pair.lost["b"].reason == "sent more than the credit allows"


def test_gaps_and_memory_are_bounded_against_one_byte_segments():
    pair = Pair(seed=30)
    assert pair.connected()
    for index in range(3000):
        datagram = data_packet(pair.back.local_id, pair.back.acknowledging.largest + 1, 10 + 2 * index, b"x")
        pair.b.endpoint.receive(memoryview(datagram), len(datagram), Pair.A, pair.world.now)
    assert pair.back.receiving.held_bytes() <= 2 * 1024
    assert pair.b.endpoint.stats["dropped: too many gaps"] == 3000 - 1024


def test_packets_from_another_address_with_the_right_id_do_nothing():
    pair = Pair(seed=31)
    assert pair.connected()
    x = stranger(pair)
    x.send_raw(
        Pair.B, bytes(data_packet(pair.back.local_id, pair.back.acknowledging.largest + 1, 0, b"\x00\x00\x00\x00\x01X"))
    )
    x.send_raw(Pair.B, bytes(wire.encode_close(wire.ClosePacket(pair.back.local_id, 0, 0, "forged"))))
    x.send_raw(Pair.B, bytes(wire.encode_reset(wire.ResetPacket(pair.back.remote_id, bytes(16)))))
    pair.world.run(pair.world.now + 1)
    assert not pair.received["b"]
    assert not pair.lost


def test_a_reset_without_the_token_is_not_believed():
    pair = Pair(seed=32)
    assert pair.connected()
    datagram = wire.encode_reset(wire.ResetPacket(pair.back.remote_id, b"guess" + bytes(11)))
    pair.b.endpoint.receive(memoryview(datagram), len(datagram), Pair.A, pair.world.now)
    pair.b.pump()
    assert not pair.lost


def test_two_endpoints_that_do_not_know_each_other_do_not_talk_for_ever():
    pair = Pair(seed=33)
    assert pair.connected()
    pair.world.run(8)  # the search for the path MTU is over
    sent = pair.a.sent + pair.b.sent
    pair.b.send_raw(Pair.A, bytes(data_packet(b"nonsense", 1, 0, bytes(100))))
    pair.world.run(pair.world.now + 1)
    assert pair.a.sent + pair.b.sent - sent <= 2


# ---- address validation -------------------------------------------------------------------------------------------


def init(nonce=b"n" * 16, client_id=b"c" * 8, cookie=wire.NO_COOKIE):
    return wire.encode_init(wire.InitPacket(client_id, nonce, 7, 1000, bytes(16), cookie))


def answers_to(endpoint, datagram, address, now):
    endpoint.receive(memoryview(datagram), len(datagram), address, now)
    return [bytes(batch.buffers[0]) for batch in endpoint.batches(now)]


def test_a_flood_of_first_packets_leaves_no_state_and_gets_less_back():
    endpoint, rng = Endpoint(random.Random(1)), random.Random(2)
    received = answered = 0
    for index in range(20_000):
        datagram = init(nonce=rng.getrandbits(128).to_bytes(16, "big"))
        address = ("127.%d.%d.%d" % (index >> 16 & 255, index >> 8 & 255, index & 255), 1024 + index % 60_000)
        received += len(datagram)
        answered += sum(map(len, answers_to(endpoint, datagram, address, index / 5000)))
    assert not endpoint.connections
    assert 0 < answered < received
    assert endpoint.stats["dropped: too many handshakes"] > 0


def test_a_cookie_opens_one_connection_however_often_it_comes():
    endpoint, address = Endpoint(random.Random(1)), ("10.0.0.1", 5)
    cookie = wire.decode_cookie(memoryview(answers_to(endpoint, init(), address, 1.0)[0])).cookie
    for _ in range(1000):
        answers = answers_to(endpoint, init(cookie=cookie), address, 2.0)
        assert [answer[5] for answer in answers] == [wire.PacketType.INIT_ACK]
    assert len(endpoint.connections) == 1


@pytest.mark.parametrize(
    ("change", "address", "now"),
    [
        (lambda cookie: cookie, ("10.0.0.1", 6), 2.0),
        (lambda cookie: cookie, ("10.0.0.2", 5), 2.0),
        (lambda cookie: cookie, ("10.0.0.1", 5), 25.0),
        (lambda cookie: bytes([cookie[0]]) + cookie[1:-1] + bytes([cookie[-1] ^ 1]), ("10.0.0.1", 5), 2.0),
        (lambda cookie: b"\xff" * 20, ("10.0.0.1", 5), 2.0),
    ],
    ids=["another port", "another host", "too old", "a flipped bit", "invented"],
)
def test_a_cookie_is_good_only_where_and_when_it_was_given(change, address, now):
    endpoint = Endpoint(random.Random(1))
    cookie = wire.decode_cookie(memoryview(answers_to(endpoint, init(), ("10.0.0.1", 5), 1.0)[0])).cookie
    answers = answers_to(endpoint, init(cookie=change(cookie)), address, now)
    assert not endpoint.connections
    assert [answer[5] for answer in answers] == [wire.PacketType.COOKIE]


@pytest.mark.parametrize("size", range(1, 1500, 13))
def test_no_first_packet_of_any_length_gets_more_back(size):
    endpoint = Endpoint(random.Random(1))
    datagram = bytearray(init()[:size]) + bytes(max(0, size - wire.INIT_SIZE))
    if len(datagram) >= wire.PREFIX_SIZE:
        wire.seal(datagram)
    answers = answers_to(endpoint, datagram, ("10.0.0.1", 5), 1.0)
    assert len(answers) <= 1
    assert sum(map(len, answers)) <= size


def test_a_half_open_connection_is_gone_after_its_time():
    endpoint, address = Endpoint(random.Random(1)), ("10.0.0.1", 5)
    cookie = wire.decode_cookie(memoryview(answers_to(endpoint, init(), address, 1.0)[0])).cookie
    answers_to(endpoint, init(cookie=cookie), address, 2.0)
    assert len(endpoint.connections) == 1
    endpoint.on_timeout(2.0 + HANDSHAKE_TIMEOUT)
    assert not endpoint.connections
    assert not any(isinstance(event, Established) for event in endpoint.events)


def test_a_flood_of_lone_messages_is_cut_to_what_a_node_can_take():
    endpoint = Endpoint(random.Random(1))
    datagram = memoryview(wire.encode_lone(b"who is there?"))
    for index in range(20_000):
        endpoint.receive(datagram, len(datagram), ("10.0.0.1", 5), 1.0 + index / 20_000)
    assert len(endpoint.events) <= LONES_PER_SECOND
    endpoint.receive(datagram, len(datagram), ("10.0.0.1", 5), 2.5)
    assert len(endpoint.events) == LONES_PER_SECOND + 1


# ---- what carries a digest of its own -----------------------------------------------------------------------------


def damage(at):
    """A filter that flips a bit of each bulk packet, in its header or behind it."""

    def flip(datagram):
        if datagram[5] != wire.PacketType.BULK:
            return datagram
        changed = bytearray(datagram)
        changed[at] ^= 1
        return bytes(changed)

    return flip


def test_damaged_bulk_is_for_its_reader_to_find_until_it_asks_for_checksums():
    pair = Pair(seed=90, filters=(damage(wire.DATA_HEADER_SIZE), None))
    assert pair.connected()
    content = bytes(50_000)
    pair.there.send_frame(0, b"head", content, is_bulk=True)
    pair.a.pump()
    assert pair.world.run_until(lambda: pair.received["b"], 5)
    [body] = pair.received["b"]
    assert body[:4] == b"head"  # what is not bulk is covered
    assert len(body) == 4 + len(content)
    assert body[4:] != content
    pair.there.check_bulk()
    pair.there.send_frame(0, b"head", content, is_bulk=True)
    pair.a.pump()
    assert pair.world.run_until(lambda: len(pair.received["b"]) == 2, 10)
    assert pair.received["b"][1] == b"head" + content


def test_the_header_of_bulk_is_always_covered():
    content = bytes(range(200)) * 100
    for at in range(wire.DATA_HEADER_SIZE):
        if at == 5:
            continue  # the type: then it is no bulk packet, and the checksum is over other bytes
        pair = Pair(seed=91, filters=(damage(at), None))
        assert pair.connected()
        pair.there.send_frame(0, b"head", content, is_bulk=True)
        pair.a.pump()
        pair.world.run(3)
        assert pair.received["b"] in ([], [b"head" + content])  # what a probe repeats is covered, and may arrive
        assert sum(count for cause, count in pair.b.endpoint.stats.items() if cause.startswith("malformed")) > 3


def test_a_header_shares_a_packet_with_the_bulk_behind_it():
    seen = []
    pair = Pair(seed=93, filters=(lambda datagram: seen.append(datagram) or datagram, None))
    assert pair.connected()
    pair.world.run(3.0)  # the datagrams have their size
    seen.clear()
    bodies = [bytes([number]) * 100_000 for number in range(1, 4)]
    for body in bodies:
        pair.there.send_frame(0, b"head", body, is_bulk=True)
    pair.a.pump()
    assert pair.world.run_until(lambda: len(pair.received["b"]) == 3, pair.world.now + 5)
    assert pair.received["b"] == [b"head" + body for body in bodies]
    plain = [datagram for datagram in seen if datagram[5] == wire.PacketType.DATA]
    bulk = [datagram for datagram in seen if datagram[5] == wire.PacketType.BULK]
    assert [len(datagram) for datagram in plain] == 3 * [pair.there.datagram_size]
    assert all(b"head" + body[:1000] in bytes(datagram) for datagram, body in zip(plain, bodies))
    assert len([datagram for datagram in bulk if len(datagram) < pair.there.datagram_size]) == 3  # the end of each


def test_every_range_to_send_is_of_one_kind_behind_its_front():
    """Whatever is written, in packets of whatever size: its bytes, and only what is all bulk goes without checksum."""
    rng = random.Random(94)
    for _ in range(200):
        sending, content, kinds = SendStream(), b"", b""
        for _ in range(rng.randrange(1, 8)):
            size, is_bulk = rng.choice([1, 13, 700, 5000, 20_000]), rng.random() < 0.5
            is_bulk = is_bulk and size >= SMALL_PART_MAX
            part = rng.randbytes(size)
            sending.write(part, is_bulk)
            content, kinds = content + part, kinds + bytes([is_bulk]) * size
        sending.allow(rng.randrange(len(content) + 1))
        payload_size, found = rng.choice([100, 1432, 9000, 65_467]), b""
        while len(found) < len(content):
            chosen = sending.next_range(rng.randrange(1, 20) * payload_size, payload_size)
            if chosen is None:
                sending.allow(len(content))
                continue
            offset, length, plain = chosen
            payloads = sending.payloads(offset, length, payload_size)
            assert offset == len(found) and len(payloads) >= plain
            assert all(len(payload) == payload_size for payload in payloads[:-1])
            assert b"\0" not in kinds[offset + plain * payload_size : offset + length]
            found += b"".join(payloads)
        assert found == content


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (2, 1, 0), (0, 0, 2, 1)], ids=str)
def test_runs_that_were_merged_arrive_in_whatever_order(order):
    held = []

    def hold(datagram):
        if datagram[5] != wire.PacketType.BULK:
            return datagram
        held.append(datagram)
        return None

    pair = Pair(seed=92, filters=(hold, None))
    assert pair.connected()
    pair.world.run(1.0)
    content = bytes(range(256)) * 100
    pair.there.send_frame(0, b"head", content, is_bulk=True)
    pair.a.pump()
    assert pair.world.run_until(lambda: len(held) >= 8 and pair.back.receiving.next_offset, 2)
    payload_size = len(held[0]) - wire.DATA_HEADER_SIZE
    assert pair.back.receiving.next_offset == payload_size  # the header, and what fills up its packet
    runs = [b"".join(held[0:2]), b"".join(held[2:5]), b"".join(held[5:8])]
    for number in order:
        pair.b.endpoint.receive(memoryview(runs[number]), len(held[0]), Pair.A, pair.world.now)
    assert pair.back.receiving.next_offset == 9 * payload_size
    pair.a.filter = None
    pair.b.pump()
    assert pair.world.run_until(lambda: pair.received["b"], 10)
    assert pair.received["b"] == [b"head" + content]
