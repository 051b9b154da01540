"""The end of a connection, alone: what is said, how often, and until when (RFC 9000 §10.2)."""

import math

from protocol.transport import packets as wire
from protocol.transport.closing import CLOSE_TRIES, LATE_ANSWERS_MAX, Closing
from protocol.transport.packets import CloseCode, ClosePacket, PacketType

INTERVAL = 0.5
OURS, THEIRS = ClosePacket(b"them-id!", CloseCode.DONE, 70, "done"), ClosePacket(b"ours-id!", CloseCode.DONE, 50, "bye")


def said(closing, now):
    """The types of what goes out now."""
    found = []
    while True:
        packet = closing.next_packet(30, INTERVAL, now)
        if packet is None:
            return found
        found.append(wire.decode_prefix(memoryview(packet)))


def test_who_closes_says_it_three_times_with_a_final_before_each_and_then_waits_once_more():
    closing = Closing()
    closing.begin(OURS, 1.0)
    for attempt in range(CLOSE_TRIES):
        assert said(closing, 1.0 + attempt * INTERVAL) == [PacketType.FINAL, PacketType.CLOSE]
    assert closing.say_at == math.inf
    assert closing.end_at == 1.0 + CLOSE_TRIES * INTERVAL
    assert closing.is_begun_here and closing.is_done


def test_a_final_tells_the_bytes_that_were_taken_in():
    closing = Closing()
    closing.begin(OURS, 1.0)
    assert wire.decode_final(memoryview(closing.next_packet(30, INTERVAL, 1.0))) == (OURS.connection_id, 30)


def test_who_is_told_answers_once_and_again_only_when_asked():
    closing = Closing()
    closing.drain(THEIRS, OURS, INTERVAL, 1.0)
    assert said(closing, 1.0) == [] and closing.end_at == 1.0 + 3 * INTERVAL
    closing.answer(INTERVAL, 1.2)
    assert said(closing, 1.2) == [PacketType.FINAL, PacketType.CLOSE]
    assert said(closing, 9.0) == [] and closing.end_at == 1.2 + 3 * INTERVAL
    closing.say_again(1.5)
    assert said(closing, 1.5) == [PacketType.FINAL, PacketType.CLOSE]
    assert not closing.is_begun_here


def test_a_remote_that_goes_on_sending_draws_a_few_answers_only():
    closing = Closing()
    closing.drain(THEIRS, OURS, INTERVAL, 1.0)
    closing.answer(INTERVAL, 1.0)
    count = 0
    for _ in range(100):
        count += len(said(closing, 1.0))
        closing.say_again(1.0)
    assert count <= 2 * LATE_ANSWERS_MAX


def test_a_failure_is_no_orderly_end():
    closing = Closing()
    closing.begin(OURS._replace(code=CloseCode.PROTOCOL), 1.0)
    assert not closing.is_done
