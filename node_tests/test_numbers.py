"""Numbers at their edges, in every field of every packet and message: none ends a thread or a node's arithmetic.

What such a number is held against, and what happens then, is the business of the other rooms' tests; here it is enough
that nobody stumbles, and that everybody goes on afterwards.
"""

from __future__ import annotations

import pytest
from simulator import Pair

from protocol import wire
from protocol.connection import State
from protocol.wire import PacketType

LARGEST = 2**64 - 1


def edges(size, most):
    """What is tried in a field of that many bytes, of which `most` is the largest that is taken."""
    tried = (0, 1, most - 1, most, most + 1, 2**31, 2**32 - 1, 2**63 - 1, LARGEST)
    return sorted({number for number in tried if 0 <= number < 256**size})


# ---- packets ------------------------------------------------------------------------------------------------------

LAYOUTS = {
    PacketType.INIT: wire.INIT,
    PacketType.INIT_ACK: wire.INIT_ACK,
    PacketType.DATA: wire.DATA_HEADER,
    PacketType.BULK: wire.DATA_HEADER,
    PacketType.PING: wire.DATA_HEADER,
    PacketType.ACK: wire.ACK_HEADER,
    PacketType.CLOSE: wire.CLOSE,
}
SIZES = {"B": 1, "H": 2, "I": 4, "Q": 8}


def number_fields(layout):
    """(place among the fields behind the prefix, bytes) of each number in a packet."""
    letters = [letter for letter in layout.format if letter.isalpha()]
    return [(place, SIZES[letter]) for place, letter in enumerate(letters[4:]) if letter in SIZES]


def with_number(datagram, layout, place, number):
    """The packet with another number at that place, and checksums that are right."""
    fields = list(layout.unpack_from(datagram))
    fields[4 + place] = number
    changed = bytearray(datagram)
    layout.pack_into(changed, 0, *fields)
    if fields[2] == PacketType.BULK:
        wire.CHECKSUM.pack_into(changed, 0, wire._bulk_checksum(memoryview(changed)))
        return bytes(changed)
    return bytes(wire.seal(changed))


PLACES = [
    pytest.param(kind, place, size, id="%s-%d" % (kind.name, place))
    for kind, layout in LAYOUTS.items()
    for place, size in number_fields(layout)
]


@pytest.mark.parametrize(("kind", "place", "size"), PLACES)
def test_any_number_in_any_packet_leaves_the_endpoint_whole(kind, place, size):
    """The packets of a real connection, each of one kind with that number in it, from the handshake to the end."""
    for number in edges(size, wire.PACKET_NUMBER_MAX):
        pair = Pair(seed=7)

        def changed(datagram, number=number):
            is_it = datagram[5] == kind
            return with_number(datagram, LAYOUTS[kind], place, number) if is_it else datagram

        pair.a.filter = pair.b.filter = changed
        if pair.connected(1.0):
            pair.there.send_frame(0, bytes(100_000), is_bulk=True)
            pair.send(20_000)
            pair.back.send_frame(0, b"back")
            pair.b.pump()
        pair.world.run(2.0)
        pair.there.shut_down("done")
        pair.a.pump()
        pair.world.run(100.0)
        assert pair.there.state is State.CLOSED
        assert not pair.a.endpoint.connections and not pair.b.endpoint.connections


@pytest.mark.parametrize("first", [LARGEST, LARGEST - 1, wire.PACKET_NUMBER_MAX + 1, wire.PACKET_NUMBER_MAX])
def test_a_handshake_whose_numbers_are_used_up_brings_nobody_to_a_stop(first):
    """Its first number is the last that there is: no acknowledgement could tell the packets behind it."""
    pair = Pair(seed=8)
    pair.there.first_number = first
    pair.world.run(1.0)
    made = pair.b.endpoint.connections
    assert bool(made) == (first <= wire.PACKET_NUMBER_MAX)
    for remote_id in [one.local_id for one in made] or [bytes(8)]:
        for index in (0, 1, 5, wire.BATCH_PACKETS_MAX - 1, 2**16 - 1):
            fields = (0, wire.VERSION, PacketType.PING, wire.DATA_HEADER_SIZE, remote_id, first, 0, 0, 1, index)
            ping = wire.seal(bytearray(wire.DATA_HEADER.pack(*fields)))
            pair.b.endpoint.receive(memoryview(ping), len(ping), Pair.A, pair.world.now)
            pair.b.pump()
            pair.world.run(pair.world.now + 0.1)
    pair.world.run(100.0)
    assert not pair.b.endpoint.connections
