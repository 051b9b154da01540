"""Frames, alone: what stands in each body, long messages in parts, and the cutting of a stream."""

import pytest

from protocol.transport import frames
from protocol.transport.frames import FRAME_HEADER, Frame, Framer, LongMessages, StreamViolation

MIB = 1 << 20


def frame(body, kind=0):
    return FRAME_HEADER.pack(kind, len(body)) + body


# ---- bodies -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("offer", [(2, 0, ""), (7, 1 << 40, "Ω.iso"), (0xFFFFFFFF, 5, "../evil.txt")])
def test_an_offer_comes_out_as_it_went_in(offer):
    assert frames.decode_offer(frames.encode_offer(*offer)) == offer


def test_an_offer_may_be_too_short_or_have_a_name_that_is_none():
    assert frames.decode_offer(bytes(11)) is None
    assert frames.decode_offer(bytes(12) + b"\xff") == (0, 0, None)


def test_a_number_stands_before_what_it_is_about():
    body = frames.encode_number(77) + b"abc"
    assert frames.number_of(body) == 77 and frames.behind_number(body) == b"abc"
    assert frames.number_of(body[:3]) == -1


def test_a_reason_has_its_limit_whoever_wrote_it():
    assert len(frames.encode_reason("x" * 1000)) == len(frames.decode_reason(b"y" * 1000)) == frames.REASON_SIZE_MAX
    assert frames.decode_reason(b"\xff!") == "\ufffd!"
    assert frames.decode_reason("\x1b[2J\nOK \u202e\x9b".encode()) == "\ufffd[2J\ufffdOK \ufffd\ufffd"


# ---- long messages ------------------------------------------------------------------------------------------------


def sent(message, number):
    return [Frame(kind, bytearray(frames.encode_number(number) + part))
            for kind, part in frames.parts_of(memoryview(message))]  # fmt: skip


def test_the_parts_of_several_messages_may_come_mixed():
    one, two = b"1" * (2 * MIB + 1), b"2" * (2 * MIB)
    joining = LongMessages()
    whole = [joining.take(each) for pair in zip(sent(one, 1), sent(two, 2) + [Frame(9, bytearray(4))]) for each in pair]
    assert [each for each in whole if each is not None] == [two, one]
    assert joining.size == 0


def test_a_message_that_was_given_up_leaves_nothing():
    joining = LongMessages()
    for each in sent(b"x" * 3 * MIB, 5)[:2]:
        assert joining.take(each) is None
    assert joining.size > 2 * MIB
    assert joining.take(Frame(frames.PART_DROPPED, bytearray(frames.encode_number(5)))) is None
    assert joining.size == 0


def test_parts_without_end_are_a_violation_and_are_forgotten():
    joining = LongMessages()
    with pytest.raises(StreamViolation, match="too long"):
        for _ in range(66):
            joining.take(Frame(frames.PART, bytearray(4 + MIB)))
    assert joining.size == 0


# ---- cutting ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [1, 3, 6, 100])
def test_frames_come_out_whole_however_the_bytes_are_cut(step):
    bodies = [b"", b"hello", b"x" * 70, b""]
    data, framer, found = b"".join(frame(body, kind) for kind, body in enumerate(bodies)), Framer(), []
    for start in range(0, len(data), step):
        framer.feed(memoryview(data)[start : start + step], 1 << 16, found)
    assert [(kind, bytes(body)) for kind, body in found] == list(enumerate(bodies))
    assert (framer.waiting, framer.unconsumed, framer.begun) == (4, len(data), 0)


def test_the_next_bytes_of_a_body_can_be_put_into_their_place():
    framer, found = Framer(), []
    framer.feed(memoryview(frame(bytes(10)))[:7], 1 << 16, found)
    assert framer.place(9) is None and framer.begun == 7
    assert framer.take_run([memoryview(b"12345"), memoryview(b"678")], 8, 5, found)
    assert bytes(found[0].body) == b"\x00\x0012345678"
    assert framer.place(1) is None  # no body has begun


def test_a_claim_takes_no_more_memory_than_the_reader_has_shown_to_be_good_for():
    for trusted, held in ((0, frames.BODY_STEP), (1 << 20, 1 << 20)):
        framer = Framer()
        framer.feed(memoryview(FRAME_HEADER.pack(0, 1 << 20)), trusted, [])
        assert framer.held_bytes == held


def test_one_frame_more_than_may_wait_is_a_violation():
    framer, found = Framer(frames_max=2), []
    with pytest.raises(StreamViolation, match="than anybody reads"):
        framer.feed(memoryview(frame(b"") * 5), 1 << 16, found)
    assert len(found) == framer.waiting == 3
    framer.consume(5)
    assert framer.waiting == 2
