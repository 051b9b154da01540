"""The end of a connection, alone: what is said, how often, and until when (RFC 9000 §10.2)."""

import math

import pytest

from protocol.transport import packets as wire
from protocol.transport.closing import CLOSE_TRIES, LATE_ANSWERS_MAX, Closing
from protocol.transport.frames import FRAME_HEADER, FRAME_HEADER_SIZE
from protocol.transport.packets import CloseCode, ClosePacket, PacketType
from protocol.transport.receiving import ReceiveStream
from protocol.transport.rtt import RttEstimator
from protocol.transport.sending import SendStream

THEM, US = b"them-id!", b"ours-id!"
TOOK = 30  # bytes of theirs that became whole frames here
THEIRS = ClosePacket(US, CloseCode.DONE, TOOK, "bye")


def ending():
    """The end of a connection that has 5 bytes under way, on a path of 50 ms."""
    rtt, sending, receiving = RttEstimator(), SendStream(), ReceiveStream()
    rtt.on_sample(0.05, 0.0)
    sending.write_frame(0, b"")
    receiving.on_data(
        0, memoryview(FRAME_HEADER.pack(0, TOOK - FRAME_HEADER_SIZE) + bytes(TOOK - FRAME_HEADER_SIZE)), []
    )
    return Closing(sending, receiving, rtt), rtt.probe_timeout


def said(closing, now):
    """The types of what goes out now."""
    found = []
    while True:
        packet = closing.next_packet(now)
        if packet is None:
            return found
        found.append(wire.decode_prefix(memoryview(packet)))


def test_who_closes_says_it_three_times_with_a_final_before_each_and_then_waits_once_more():
    closing, interval = ending()
    closing.begin(THEM, CloseCode.DONE, "done", 1.0)
    for attempt in range(CLOSE_TRIES):
        assert said(closing, 1.0 + attempt * interval) == [PacketType.FINAL, PacketType.CLOSE]
    assert closing.say_at == math.inf
    assert closing.end_at == pytest.approx(1.0 + CLOSE_TRIES * interval)
    assert closing.is_begun_here and closing.is_done


def test_a_final_tells_the_bytes_that_were_taken_in():
    closing, interval = ending()
    closing.begin(THEM, CloseCode.DONE, "done", 1.0)
    assert wire.decode_final(memoryview(closing.next_packet(1.0))) == (THEM, TOOK)


def test_who_is_told_answers_once_and_again_only_when_asked():
    closing, interval = ending()
    closing.drain(THEM, THEIRS, 1.0)
    assert said(closing, 1.0) == [] and closing.end_at == 1.0 + 3 * interval
    closing.answer(1.2)
    assert said(closing, 1.2) == [PacketType.FINAL, PacketType.CLOSE]
    assert said(closing, 9.0) == [] and closing.end_at == 1.2 + 3 * interval
    closing.say_again(1.5)
    assert said(closing, 1.5) == [PacketType.FINAL, PacketType.CLOSE]
    assert not closing.is_begun_here


def test_a_remote_that_goes_on_sending_draws_a_few_answers_only():
    closing, interval = ending()
    closing.drain(THEM, THEIRS, 1.0)
    closing.answer(1.0)
    count = 0
    for _ in range(100):
        count += len(said(closing, 1.0))
        closing.say_again(1.0)
    assert count <= 2 * LATE_ANSWERS_MAX


def test_a_failure_is_no_orderly_end():
    closing, interval = ending()
    closing.begin(THEM, CloseCode.PROTOCOL, "a lie", 1.0)
    assert not closing.is_done


@pytest.mark.parametrize(("received", "undelivered", "is_clean"), [(None, 5, False), (2, 3, False), (5, 0, True)])
def test_what_was_not_delivered_is_known_for_sure_by_the_others_last_word(received, undelivered, is_clean):
    closing, _ = ending()
    if received is not None:
        closing.on_final(received)
    closing.drain(THEM, THEIRS, 1.0)
    assert (closing.undelivered, closing.is_undelivered_sure) == (undelivered, received is not None)
    assert closing.is_clean == is_clean and closing.missing == 0


def test_an_answer_is_owed_until_it_is_known_what_was_taken():
    closing, interval = ending()
    assert not closing.owes_answer
    closing.drain(THEM, THEIRS, 1.0)
    closing.say_again(1.0)  # a late packet of theirs draws nothing before it
    assert closing.owes_answer and said(closing, 1.0) == [] and not closing.has_answered
    closing.answer(1.1)
    assert not closing.owes_answer and not closing.has_answered
    assert said(closing, 1.1) == [PacketType.FINAL, PacketType.CLOSE] and closing.has_answered
