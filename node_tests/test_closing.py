"""The end of a connection, told truly at both ends: what was taken in, and what was not."""

from __future__ import annotations

import pytest

from node_tests.stage.keys import members
from node_tests.stage.simulator import Pair, data_packet
from protocol.transport import packets as wire
from protocol.transport.connection import State
from protocol.transport.packets import PacketType


def connected(**conditions):
    pair = Pair(**conditions)
    assert pair.connected()
    pair.world.run(pair.world.now + 1)
    return pair


def without(*kinds):
    """A filter that loses packets of these kinds."""
    return lambda datagram: None if datagram[5] in kinds else datagram


def told_at_both_ends(pair, seconds=5.0):
    assert pair.world.run_until(lambda: len(pair.lost) == 2, pair.world.now + seconds)


def test_a_message_that_was_read_counts_as_delivered_though_every_acknowledgement_is_lost():
    pair = connected()
    pair.a.filter = without(PacketType.ACK)
    pair.back.send_frame(0, b"hello " * 100)
    pair.b.pump()
    assert pair.world.run_until(lambda: pair.received["a"], pair.world.now + 1)
    pair.there.shut_down("done")
    pair.a.pump()
    told_at_both_ends(pair)
    assert pair.lost["b"].is_clean
    assert pair.back.closing.undelivered == pair.back.backlog == 0


@pytest.mark.parametrize("conditions", [{}, {"credentials": members()}], ids=["open", "with a key"])
def test_nothing_is_missed_when_both_close_at_once(conditions):
    """With a key each tells by its stream, too, why it closes, and who has closed does not take that in any more."""
    pair = connected(**conditions)
    pair.back.shut_down("closed")
    pair.b.pump()
    assert pair.world.run_until(lambda: pair.back.state is State.CLOSING, pair.world.now + 1)
    pair.there.shut_down("closed")
    pair.a.pump()
    told_at_both_ends(pair)
    assert pair.there.closing.undelivered == pair.back.closing.undelivered == 0
    assert pair.lost["a"].is_clean and pair.lost["b"].is_clean


def test_with_a_key_what_was_not_delivered_is_told_without_the_word_of_the_end():
    pair = connected(credentials=members())
    pair.b.filter = lambda datagram: None if len(datagram) > 1000 else datagram
    pair.back.send_frame(0, bytes(10_000))
    left = pair.back.sending.end - pair.back.sending.acknowledged_to
    pair.b.pump()
    pair.back.shut_down("closed")
    pair.b.pump()
    pair.there.shut_down("closed")
    pair.a.pump()
    told_at_both_ends(pair)
    assert pair.back.closing.undelivered == left > 10_000


@pytest.mark.parametrize("seed", range(40))
def test_what_the_reader_got_is_what_the_sender_is_told_whatever_is_lost(seed):
    """A closes in the middle of B's messages: B knows to the byte which of them A has."""
    print("seed", seed)
    pair = connected(seed=seed, loss=0.1)
    for _ in range(30):
        pair.back.send_frame(0, bytes(3000))
    pair.b.pump()
    pair.world.run(pair.world.now + 0.02 + seed / 1000)
    pair.there.shut_down("enough")
    pair.a.pump()
    told_at_both_ends(pair, 30)
    # Three FINALs lost in a row would leave it open; at none of these seeds.
    assert pair.back.closing.is_undelivered_sure
    assert pair.back.closing.undelivered == 3005 * (30 - len(pair.received["a"]))


def test_a_final_that_is_lost_is_said_again_with_the_next_close():
    pair = connected()
    finals = []

    def lose_the_first(datagram):
        if datagram[5] == PacketType.FINAL:
            finals.append(datagram)
            return None if len(finals) == 1 else datagram
        return None if datagram[5] == PacketType.ACK else datagram

    pair.a.filter = lose_the_first
    pair.back.send_frame(0, b"hello")
    pair.b.pump()
    pair.world.run_until(lambda: pair.received["a"], pair.world.now + 1)
    pair.there.shut_down("done")
    pair.a.pump()
    told_at_both_ends(pair)
    assert len(finals) == 2
    assert pair.lost["b"].is_clean and pair.lost["a"].is_clean


def test_an_older_program_without_a_last_word_leaves_it_open_and_is_forgotten_all_the_same():
    pair = connected()
    pair.a.filter = without(PacketType.ACK, PacketType.FINAL)
    pair.back.send_frame(0, b"hello")
    pair.b.pump()
    pair.world.run(pair.world.now + 0.1)
    pair.there.shut_down("done")
    pair.a.pump()
    told_at_both_ends(pair)
    assert pair.back.closing.undelivered == 10 and not pair.back.closing.is_undelivered_sure
    assert not pair.lost["b"].is_clean and pair.lost["b"].reason == "done"
    pair.world.run(pair.world.now + 10)
    assert not pair.a.endpoint.connections and not pair.b.endpoint.connections


def test_an_older_program_that_knows_no_final_ends_as_it_always_did():
    pair = connected()
    pair.a.filter = pair.b.filter = without(PacketType.FINAL)  # unknown types are dropped
    began = pair.world.now
    pair.transfer(50_000, limit=5)
    pair.finish()
    assert pair.lost["a"].is_clean and pair.lost["b"].is_clean
    assert pair.world.now < began + 20


def test_with_nothing_unacknowledged_the_end_waits_for_nobody():
    pair = connected()
    pair.a.filter = without(PacketType.FINAL)
    pair.there.shut_down("done")
    pair.a.pump()
    assert pair.world.run_until(lambda: "b" in pair.lost, pair.world.now + 0.03)


def test_giving_up_is_told_with_what_the_other_side_took():
    """The acknowledgement of the first message is lost, the second is too much for a reader that rests."""
    pair = connected()
    pair.b.filter = without(PacketType.ACK)
    pair.there.send_frame(0, b"read")
    pair.a.pump()
    pair.world.run_until(lambda: pair.received["b"], pair.world.now + 1)
    pair.there.send_frame(0, bytes(1_000_000))
    pair.a.pump()
    pair.world.run(pair.world.now + 1)
    pair.there.give_up("gave up", pair.world.now)
    assert "a" not in pair.lost
    pair.a.pump()
    told_at_both_ends(pair)
    assert pair.there.closing.is_undelivered_sure and pair.there.closing.undelivered == 1_000_005
    assert pair.lost["b"].reason == "gave up" and pair.back.closing.missing == 1_000_005


@pytest.mark.parametrize("how", ["give_up", "fail"])
def test_an_end_asked_for_between_packets_goes_out_at_once(how):
    """It lay there until the next alarm, ten seconds away, unless a packet came before."""
    pair = connected()
    pair.world.run(pair.world.now + 2)
    if how == "give_up":
        pair.there.give_up("why", pair.world.now)
    else:
        pair.there.fail(wire.CloseCode.LIMIT, "why", pair.world.now)
    pair.a.pump()
    assert pair.world.run_until(lambda: "b" in pair.lost, pair.world.now + 0.1)
    assert pair.lost["b"].reason == "why"


def test_giving_up_at_one_that_fell_silent_ends_and_says_that_it_does_not_know():
    pair = connected()
    pair.b.kill()
    pair.there.send_frame(0, b"hello")
    pair.there.give_up("gave up", pair.world.now)
    pair.a.pump()
    assert pair.world.run_until(lambda: "a" in pair.lost, pair.world.now + 5)
    assert pair.there.closing.undelivered == 10 and not pair.there.closing.is_undelivered_sure


def test_a_last_word_about_what_was_never_sent_is_malformed():
    pair = connected()
    final = wire.encode_final(wire.FinalPacket(pair.there.local_id, 1))
    pair.a.endpoint.receive(memoryview(final), len(final), Pair.B, pair.world.now)
    assert pair.a.endpoint.stats["malformed: took in more than was sent"] == 1
    assert pair.there.closing.undelivered == 0 and pair.there.state is State.ESTABLISHED


def test_messages_whole_before_a_broken_one_are_handed_out_and_count_as_taken_in():
    pair = connected()
    broken = b"\x00\x00\x00\x00\x02hi" + b"\x00\xff\xff\xff\xff"
    number = pair.back.acknowledging.largest + 1
    packet = data_packet(pair.back.local_id, number, pair.back.receiving.next_offset, broken)
    pair.b.endpoint.receive(memoryview(packet), len(packet), Pair.A, pair.world.now)
    pair.b.pump()
    assert pair.received["b"] == [b"hi"]
    assert pair.lost["b"].reason == "announced a message over the limit"


def test_a_connection_whose_socket_is_gone_is_over_at_once():
    pair = connected()
    pair.there.send_frame(0, b"hello")
    pair.a.endpoint.drop_all("closed")
    pair.a.pump()
    assert pair.lost["a"].reason == "closed" and pair.there.closing.undelivered == 10
    assert not pair.a.endpoint.connections
