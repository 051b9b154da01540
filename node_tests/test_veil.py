"""The veil alone: two ends of TLS in memory, however their records are cut on the way."""

import random

import pytest

from node_tests.stage.keys import member
from protocol.buffers import BufferPool
from protocol.transport.frames import FRAME_SIZE_MAX, MESSAGE, StreamViolation
from protocol.transport.sending import HeldMemory
from protocol.transport.veil import FED_AT_ONCE, Veil, VeiledFramer, VeiledSendStream, covered_max

MIB = 1 << 20


class End:
    """One side of a connection: what it sends lies in `sending`, what comes goes to `framer`."""

    def __init__(self, is_client):
        ours = member(0)
        self.veil = Veil(ours.client_context if is_client else ours.server_context, is_client)
        self.veil.meet(b"what both saw")
        self.pool = BufferPool(8 * MIB)
        self.sending = VeiledSendStream(HeldMemory(), self.veil, self.pool)
        self.framer = VeiledFramer(self.veil, 1000, BufferPool(0), self.sending.write_records, lambda: 4 * MIB)
        self.frames = []

    def leaving(self):
        """All that was not taken yet."""
        start, self.sending.sent_to = self.sending.sent_to, self.sending.end
        size = self.sending.end - start
        return b"".join(self.sending.payloads(start, size, 1400)) if size else b""

    def feed(self, data):
        self.framer.feed(memoryview(data), 4 * MIB, self.frames)

    def told(self):
        frames, self.frames = self.frames, []
        return [bytes(frame.body) for frame in frames]


@pytest.fixture
def ends():
    client, server = End(True), End(False)
    client.sending.write_records(client.veil.begin(0.0))
    for _ in range(3):
        server.feed(client.leaving())
        client.feed(server.leaving())
    assert client.veil.is_open and server.veil.is_open and not client.told() and not server.told()
    return client, server


def some_frames(rng):
    sizes = (0, 1, 5000, 16_384, 70_000, 0, 300_000, 8191, 8192, FRAME_SIZE_MAX)
    return [rng.randbytes(size) for size in sizes]


def sent(end, bodies):
    for body in bodies:
        end.sending.write_frame(MESSAGE, body[:3], body[3:])
    return end.leaving()


@pytest.mark.parametrize("step_max", [30, 1400, 20_000, 3 * FED_AT_ONCE])
def test_frames_come_out_whole_however_their_records_are_cut(ends, step_max):
    rng = random.Random(step_max)
    bodies = some_frames(rng)
    records, at = memoryview(sent(ends[0], bodies)), 0
    while at < len(records):
        step = rng.randint(1, step_max)
        ends[1].feed(records[at : at + step])
        at += step
    assert ends[1].told() == bodies and ends[1].framer.begun == 0


@pytest.mark.parametrize("step", [1400, 9000, 65_000])
def test_a_run_of_payloads_is_as_good_as_each_of_them(ends, step):
    bodies = some_frames(random.Random(step))
    records = memoryview(sent(ends[0], bodies))
    for start in range(0, len(records), 40 * step):
        part = records[start : start + 40 * step]
        payloads = [part[at : at + step] for at in range(0, len(part), step)]
        assert ends[1].framer.take_run(payloads, len(part), step, ends[1].frames)
    assert ends[1].told() == bodies and ends[1].framer.begun == 0


def test_before_the_other_side_is_admitted_no_run_is_taken():
    end = End(False)
    assert not end.framer.take_run([memoryview(bytes(1400))] * 2, 2800, 1400, end.frames)
    assert end.framer.begun == 0


@pytest.mark.parametrize("false", [b"\x17\x03\x03\x00\x20" + bytes(32), b"no record of TLS at all" * 3])
def test_what_was_whole_before_a_false_record_is_told_first(ends, false):
    records = sent(ends[0], [b"first", b"second"])
    with pytest.raises(StreamViolation):
        ends[1].feed(records + false)
    assert ends[1].told() == [b"first", b"second"]


def test_behind_the_last_whole_frame_lies_what_is_begun(ends):
    first, second = sent(ends[0], [b"first"]), sent(ends[0], [b"second" * 5000])
    ends[1].feed(first + second[:20_000])
    assert ends[1].told() == [b"first"] and ends[1].framer.begun == 20_000
    ends[1].feed(second[20_000:])
    assert ends[1].framer.begun == 0


def test_the_memory_of_large_records_is_used_again_when_they_are_acknowledged(ends):
    sending = ends[0].sending

    def memory_of_next():
        start = sending.end
        sending.write_frame(MESSAGE, b"front", bytes(MIB))
        return sending.payloads(start, 1000, 1000)[0].obj

    first = id(memory_of_next())
    second = id(memory_of_next())
    assert second != first
    sending.on_acknowledged(0, sending.end)
    assert {id(memory_of_next()), id(memory_of_next())} == {first, second}


@pytest.mark.parametrize("size", [0, 1, 16_384, 16_385, FED_AT_ONCE + 1, FRAME_SIZE_MAX])
def test_records_are_as_long_as_is_said_at_most(ends, size):
    place = memoryview(bytearray(covered_max(size)))
    filled = ends[0].veil.cover_into(place, bytes(size))
    assert size <= filled <= len(place)
