"""Numbers at their edges, in every field of every packet and message: none ends a thread or a node's arithmetic.

What such a number is held against, and what happens then, is the business of the other rooms' tests; here it is enough
that nobody stumbles, and that everybody goes on afterwards.
"""

from __future__ import annotations

import sys

import pytest

from node_tests.stage.lab import PORT, content
from node_tests.stage.outlaw import Outlaw, offers_all
from node_tests.stage.simulator import Pair
from protocol import fields, messages
from protocol.content.listing import FOLDER_ENTRIES_MAX
from protocol.content.pieces import FILE_SIZE_MAX, digests_of, identity_of, piece_count_of, piece_size_of
from protocol.fields import WireError
from protocol.messages import SPAN_BYTES_MAX, encode
from protocol.results import ChatReceived, DownloadDone
from protocol.transport import packets as wire
from protocol.transport.connection import State
from protocol.transport.packets import PacketType

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
    PacketType.FINAL: wire.FINAL,
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


# ---- messages -----------------------------------------------------------------------------------------------------


def numbers_in(codec, path=()):
    """(where it stands, its codec) for each number in a message, those of list entries included."""
    if isinstance(codec, fields.Number):
        return [(path, codec)]
    if isinstance(codec, fields.Many):
        return numbers_in(codec.item, (*path, 0))
    inner = enumerate(codec.fields) if isinstance(codec, fields.Record) else ()
    return [found for place, field in inner for found in numbers_in(field, (*path, place))]


def replaced(value, path, number):
    """The value with this number at the end of the path."""
    if not path:
        return number
    changed = list(value)
    changed[path[0]] = replaced(changed[path[0]], path[1:], number)
    return value._make(changed) if hasattr(value, "_make") else tuple(changed)


class Sense:
    """Values that mean something at the nodes of a lab, so that a false number gets as far as it can."""

    def __init__(self, network_id, node_id, file_id):
        self.by_size = {messages.NODE_ID_SIZE: node_id, messages.NETWORK_ID_SIZE: network_id, 32: file_id}

    def of(self, codec):
        if isinstance(codec, fields.Record):
            return codec.kind(*map(self.of, codec.fields))
        if isinstance(codec, fields.Many):
            return (self.of(codec.item),)
        if isinstance(codec, fields.Fixed):
            return self.by_size.get(codec.size, bytes(codec.size))
        plain = {fields.Number: 1, fields.Flag: True, fields.Text: "lab.iso", fields.AddressField: ("10.0.0.66", PORT)}
        return plain.get(type(codec), b"\xff" * 32)


def cases(sense):
    """Every message with every number in it at its edges, one at a time."""
    for kind in messages.TABLE.values():
        codec = messages.record_of(kind)
        for path, number in numbers_in(codec):
            for value in edges(number.size, number.most):
                yield replaced(sense.of(codec), path, value), value > number.most


@pytest.mark.parametrize("where", ["its ruler", "a member", "a requester", "a source", "a stranger", "anybody"])
def test_any_number_in_any_message_leaves_the_node_whole(lab, where):
    """What is over its limit is dropped; whatever else is said, by whomever, everybody goes on, and nothing raises."""
    data = content(300_000)
    ana, bo, cy = lab.node("ana"), lab.node("bo", shared={"lab.iso": data}), lab.node("cy")
    x = offers_all(Outlaw(lab).join(ana), data)
    x.asked = lambda link, request: None
    sense = Sense(ana.peer.network_id, x.node_id, identity_of(len(data), digests_of(data)))
    link = x.link_to(bo) if where == "a requester" else x.link
    if where == "a source":
        cy.do("fetch_name", "lab.iso", lab.world.now, lambda answer: None)
        lab.run(0.02)
    for message, is_over in cases(sense):
        if where == "its ruler":
            link = cy.peer.membership.supernode_link
            before = cy.peer.dropped
            cy.do("on_message", cy.peer.membership.supernode_link or 0, encode(message), lab.world.now)
            assert not is_over or cy.peer.dropped > before
        elif where == "a source":
            for link in [link for link in x.served if link in x.up]:
                x.say(link, message)
        elif where == "anybody":
            if len(encode(message)) < 1100:
                for node in (ana, bo, cy):
                    x.network.send_lone((node.ip, PORT), encode(message))
        elif type(message) is not messages.Leave:
            if link not in x.up or where == "a stranger":
                link = x.connect(bo if where != "a member" else ana)
            x.say(link, message)
        lab.run(0.002)
    lab.run(30)
    for node in (ana, bo, cy):
        node.do("say", "fine, " + node.name, lab.world.now)
    lab.run(2)
    assert {"fine, ana", "fine, bo", "fine, cy"} <= {said.text for said in bo.told(ChatReceived)}
    dan = lab.node("dan", 9)
    assert isinstance(dan.fetched("lab.iso"), DownloadDone) and dan.read("lab.iso") == data


def test_what_a_node_reckons_from_a_number_fits_into_what_tells_it():
    """The named limits, held against the fields that their results go into."""
    assert messages.TERM_MAX + 1 < 2**32 and messages.SEQUENCE_MAX < 2**64 // 2
    assert FOLDER_ENTRIES_MAX * FILE_SIZE_MAX < 2**64  # a folder's total size
    last = piece_size_of(FILE_SIZE_MAX) - SPAN_BYTES_MAX
    assert last < 2**32 and piece_count_of(FILE_SIZE_MAX) - 1 < messages.NO_PIECE
    ping = wire.encode_ping(bytes(8), wire.PACKET_NUMBER_MAX, 0)
    number = wire.decode_data_header(memoryview(ping))[1]
    assert wire.encode_ack(wire.AckPacket(bytes(8), number, 0, wire.CREDIT_MAX, [(number, number)]))


@pytest.mark.parametrize(
    "message",
    [
        messages.Handover(messages.TERM_MAX + 1, bytes(8), bytes(32)),
        messages.Chat(messages.SEQUENCE_MAX + 1, bytes(8), "x", 1, "y"),
    ],
)
def test_a_number_over_its_limit_is_malformed(message):
    with pytest.raises(WireError, match="over its limit"):
        messages.decode(encode(message))


def test_no_field_holds_enough_numbers_of_one_hash_to_slow_a_dict_down():
    """C07: an integer's hash is its remainder by 2^61 - 1, which has some thousand multiples in longer numbers only."""
    widest = max(codec.size for kind in messages.TABLE.values() for _, codec in numbers_in(messages.record_of(kind)))
    assert (256**widest - 1) // sys.hash_info.modulus <= 8
