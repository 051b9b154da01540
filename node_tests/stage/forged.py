"""Packets as a hostile remote makes them, and an endpoint that they arrive at."""

from __future__ import annotations

from protocol.transport import packets as wire
from protocol.transport.connection import State
from protocol.transport.frames import FRAME_HEADER
from protocol.transport.packets import PacketType

SECRET = bytes(16)


def kind_of(datagram):
    return wire.decode_prefix(memoryview(datagram))


def ack_of_pairs(connection_id, largest, pairs, credit=0):
    """An acknowledgement with any (gap, length) pairs at all, also such as no encoder writes."""
    header = wire.ACK_HEADER.pack(0, wire.VERSION, PacketType.ACK, 0, connection_id, largest, 0, credit, len(pairs))
    tail = b"".join(gap.to_bytes(4, "big") + length.to_bytes(4, "big") for gap, length in pairs)
    return wire.seal(bytearray(header + tail))


def frame(body, kind=0):
    return FRAME_HEADER.pack(kind, len(body)) + body


def arrive(driver, datagram, source):
    """As if it came from that address."""
    driver.endpoint.receive(memoryview(datagram), len(datagram), source, driver.world.now)
    driver.pump()


def answers_to(endpoint, datagram, address, now):
    endpoint.receive(memoryview(datagram), len(datagram), address, now)
    return [b"".join(bytes(part) for part in batch.buffers) for batch in endpoint.batches(now)]


def init(nonce=b"n" * 16, client_id=b"c" * 8, cookie=wire.NO_COOKIE):
    return wire.encode_init(wire.InitPacket(client_id, nonce, 7, 1000, SECRET, cookie))


def opened(endpoint, address, now, client_id=b"c" * 8, used=True):
    """A connection that somebody at that address opened by the rules; None if it was refused."""
    cookie = wire.decode_cookie(memoryview(answers_to(endpoint, init(client_id=client_id), address, now)[0])).cookie
    answers = answers_to(endpoint, init(client_id=client_id, cookie=cookie), address, now)
    if kind_of(answers[0]) != PacketType.INIT_ACK:
        return None
    made = endpoint.directory.by_local[wire.decode_init_ack(memoryview(answers[0])).server_id]
    if used:
        answers_to(endpoint, wire.encode_ping(made.local_id, 7, 0), address, now)
        assert made.state is State.ESTABLISHED
    return made
