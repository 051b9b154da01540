"""One socket's side of the transport: many connections, and what comes from strangers.

Pure, like `connection.py`. Its owner (the network thread in `sockets/`, the simulator in the tests) does this:

    endpoint.receive(buffer, segment_size, address, now)    for each read: one datagram, or several of one size
    endpoint.on_timeout(now)                                when next_deadline() is reached
    for batch in endpoint.batches(now): ...                 after any of these and after any verb
    endpoint.events                                         a deque to be emptied

It keeps the connections in a `Directory` (which of them a packet is for), in `Turns` (which of them is asked next),
and within bounds for all together: `Admission`, `Intake` and `Backlogs`. What is left is what a packet of each type,
and each of these verbs, does.

Nothing is remembered of an address, and no more bytes go to it than came, before it has proved by a cookie that
it can receive there (RFC 9000 §8; `admission.py`).
"""

from __future__ import annotations

import collections
import hmac
import math
import random
from typing import Callable, Counter, Deque, Iterator, List, NamedTuple, Optional, Type, Union

from protocol import mishaps
from protocol.addresses import shown
from protocol.fields import Address, Buffer, WireError
from protocol.rates import RateLimit
from protocol.transport import packets as wire
from protocol.transport.admission import Admission
from protocol.transport.backlogs import Backlogs
from protocol.transport.congestion import CongestionController
from protocol.transport.connection import (
    BacklogDrained,
    Connection,
    ConnectionLost,
    Established,
    FrameReceived,
    PathChanged,
    State,
)
from protocol.transport.cubic import CubicQ
from protocol.transport.directory import Directory
from protocol.transport.flight import Batch, lone_batch
from protocol.transport.intake import Intake
from protocol.transport.moves import Moves
from protocol.transport.packets import CloseCode, PacketType
from protocol.transport.paths import path_proof
from protocol.transport.turns import Turns

log = mishaps.logger("transport")

CONNECTIONS_MAX = 2048  # two with each of a thousand nodes; idle ones cost less than 20 KB each
RESETS_PER_SECOND = 100  # to all: a restart is soon known to all who were there, and a flood draws no more
LONES_PER_SECOND = 5000  # messages outside connections that are handed on; a lab of 1,000 nodes probes with fewer
REPLIES_MAX = 4096  # answers to strangers that wait for the socket
KEY_WANTED = "this network wants a key"  # why a connection to one did not come about
FIRST_NUMBER_BITS = 32  # a random first packet number; numbers have 64 bits and never wrap


class LoneReceived(NamedTuple):
    """A message outside any connection; its sender has proved nothing."""

    address: Address
    message: bytes


class KeyWanted(NamedTuple):
    """Somebody at that address answered that its network has a key; `repeated` is what our packet began with."""

    address: Address
    repeated: bytes


Event = Union[Established, FrameReceived, BacklogDrained, PathChanged, ConnectionLost, LoneReceived, KeyWanted]


class Endpoint:
    """Many connections on one socket. `rng` should be secrets.SystemRandom() outside of tests."""

    connection_class: Type[Connection] = Connection
    cuts_of = staticmethod(wire.cuts_of)  # makes the `cuts` that `receive` may be given

    def __init__(
        self,
        rng: random.Random,
        connections_max: int = CONNECTIONS_MAX,
        datagram_size_max: int = wire.DATAGRAM_SIZE_MAX,
        new_controller: Callable[[int], CongestionController] = CubicQ,
    ) -> None:
        self.rng = rng
        self.now = 0.0
        self.datagram_size_max = datagram_size_max
        self.new_controller = new_controller  # of each connection, with its datagram size in bytes
        self.events: Deque[Event] = collections.deque()
        self.stats: Counter[str] = collections.Counter()
        self._headers = memoryview(bytearray(wire.DATA_HEADER_SIZE * wire.BATCH_PACKETS_MAX))
        self._header_views = [
            self._headers[start : start + wire.DATA_HEADER_SIZE]
            for start in range(0, len(self._headers), wire.DATA_HEADER_SIZE)
        ]
        self.accepts = True  # takes connections from others
        self._secret = rng.getrandbits(256).to_bytes(32, "big")
        self.admission = Admission(self._secret, connections_max)
        self._moves = Moves(self.admission)
        self.directory = Directory()
        self.turns = Turns()
        self.intake = Intake()
        self.backlogs = Backlogs(self.directory.by_local.values(), self.stats)
        self._replies: Deque[Batch] = collections.deque()
        self._resets = RateLimit(RESETS_PER_SECOND)
        self._lones = RateLimit(LONES_PER_SECOND)

    @property
    def connections(self) -> List[Connection]:
        """All that are not over, as they are now."""
        return list(self.directory.by_local.values())

    def has_connections(self) -> bool:
        """Is there any?"""
        return bool(self.directory.by_local)

    def connection_count(self) -> int:
        """How many there are."""
        return len(self.directory.by_local)

    # ---- what the owner does

    def connect(self, address: Address, now: float, timeout: float = 5.0, tries: float = math.inf) -> Connection:
        """Begin a handshake; Established or ConnectionLost will tell how it went.

        No more than `tries` datagrams go out until the first comes back.
        """
        self.now = now
        connection = self._new(address, True, now)
        connection.handshake.begin(self._random_bytes(16), now + timeout, tries)
        self.touch(connection)
        return connection

    def send_lone(self, address: Address, message: Buffer) -> None:
        """One datagram outside any connection."""
        self._reply(address, wire.encode_lone(message))

    def lone_datagram(self, message: Buffer) -> Buffer:
        """The same datagram, for who sends it from elsewhere."""
        return wire.encode_lone(message)

    def on_own_address_changed(self, now: float) -> None:
        """This machine has other addresses than before: the other ends shall see soon where it is."""
        self.now = now
        for connection in self.connections:
            connection.give_sign(now)

    def close_all(self, reason: str) -> None:
        """Orderly end of every connection; no new ones are taken."""
        self.accepts = False
        for connection in self.connections:
            if connection.state is State.CONNECTING:
                connection.fail(CloseCode.GOING_AWAY, reason, self.now)
            else:
                connection.shut_down(reason)

    def give_up_all(self, reason: str, now: float) -> None:
        """There is no more time to deliver what was sent: end all connections, and ask what they took."""
        self.now = now
        for connection in self.connections:
            connection.give_up(reason, now)

    def drop_all(self, reason: str) -> None:
        """The socket is gone, and every connection with it."""
        self.accepts = False
        for connection in self.connections:
            connection.drop(reason)

    def next_deadline(self) -> float:
        """When on_timeout wants to be called; it may come early, for nothing."""
        return -math.inf if self._replies else self.turns.next_deadline()

    def on_timeout(self, now: float) -> None:
        """Do what time asks of the connections whose deadline is over; packets come out of `batches`."""
        self.now = now
        self.turns.call_due(now)

    def batches(self, now: float) -> Iterator[Batch]:
        """What is to be sent now, a batch of each connection in turn. The caller may stop early and come again."""
        self.now = now
        while self._replies:
            yield self._replies.popleft()
        yield from self.turns.batches(now)

    # ---- what connections call

    def header_views(self, headers: Buffer) -> List[memoryview]:
        """The headers of a batch, cut apart, in memory that the next batch uses again."""
        size = len(headers)
        self._headers[:size] = headers
        return self._header_views[: size // wire.DATA_HEADER_SIZE]

    def touch(self, connection: Connection) -> None:
        """It may have something to send, or another deadline, if it is not over."""
        if connection.state is not State.CLOSED:
            self.turns.touch(connection)

    def know_remote(self, connection: Connection) -> None:
        """The handshake told the remote's id."""
        self.directory.know_remote(connection)

    def move(self, connection: Connection, address: Address, now: float) -> None:
        """The other end of this connection has shown that it is there now."""
        before = connection.address
        log.info("connection to %s goes on with %s", shown(before), shown(address))
        connection.move(address, now)
        self.directory.move(connection, before)
        self.admission.on_gone(before[0])
        self.admission.on_made(address[0])
        self.events.append(PathChanged(connection, before))

    def forget(self, connection: Connection) -> None:
        """The connection is over; only its late packets will ever come."""
        self.directory.forget(connection)
        self.turns.drop(connection)
        self.admission.on_gone(connection.address[0])

    def bound_waiting(self, frames_max: int, held_max: int) -> None:
        """Bounds of this endpoint's user: unread frames of each connection made from now on, bytes held for all."""
        self.intake.bound(frames_max)
        self.backlogs.bound(held_max)

    def count_before(self, held_before: Callable[[], int]) -> None:
        """Count, too, what this says is on its way here; by who hands it over."""
        self.backlogs.count_before(held_before)

    def look_for_room(self, now: float) -> None:
        """Somebody waits for room: make some, if there is too little."""
        self.now = now
        self.backlogs.keep_within(now)

    def reset_token(self, connection_id: bytes) -> bytes:
        """Proves that a RESET comes from the endpoint that had that id (RFC 9000 §10.3)."""
        return hmac.digest(self._secret, b"reset" + connection_id, "sha256")[: wire.RESET_TOKEN_SIZE]

    def _new(self, address: Address, is_client: bool, now: float) -> Connection:
        local_id = self._random_bytes(wire.CONNECTION_ID_SIZE)
        first_number = self.rng.getrandbits(FIRST_NUMBER_BITS)
        connection = self.connection_class(self, address, local_id, is_client, first_number, now)
        self.directory.add(connection)
        self.admission.on_made(address[0])
        return connection

    def _random_bytes(self, count: int) -> bytes:
        return self.rng.getrandbits(8 * count).to_bytes(count, "big")

    def _reply(self, address: Address, datagram: bytearray) -> None:
        if len(self._replies) < REPLIES_MAX:
            self._replies.append(lone_batch(address, datagram))

    # ---- what arrives

    def receive(
        self, buffer: memoryview, segment_size: int, address: Address, now: float, cuts: Optional[wire.Cuts] = None
    ) -> None:
        """Take in one datagram, or several of `segment_size` bytes (the last may be shorter) from one address.

        `cuts`: views of the memory where the buffer begins, if the caller keeps them: they cost as much as the rest.
        """
        self.now = now
        if len(buffer) <= segment_size:
            self._receive_datagram(buffer, address, now)
            return
        count = -(-len(buffer) // segment_size)
        last_length = len(buffer) - (count - 1) * segment_size - wire.DATA_HEADER_SIZE
        if last_length <= 0:
            self._receive_each(buffer, segment_size, address)
            return
        cuts = cuts or wire.cuts_of(buffer, segment_size)
        headers, at = b"".join(cuts.headers[:count]), 0
        while at < count:
            run = wire.decode_bulk_run(headers, last_length, segment_size)
            stop = at + (run.packets if run is not None else 1)
            if run is None or not self._receive_run(run, cuts.payloads[at:stop], address):
                self._receive_each(buffer[at * segment_size : stop * segment_size], segment_size, address)
            headers, at = headers[(stop - at) * wire.DATA_HEADER_SIZE :], stop

    def _receive_each(self, buffer: memoryview, segment_size: int, address: Address) -> None:
        for start in range(0, len(buffer), segment_size):
            self._receive_datagram(buffer[start : start + segment_size], address, self.now)

    def _receive_run(self, run: wire.BulkRun, payloads: List[memoryview], address: Address) -> bool:
        """Hand a run to its connection; False if there is none that takes it."""
        connection = self.directory.by_local.get(run.head.connection_id)
        if connection is None or connection.address != address or not connection.remote_id:
            return False
        self.turns.touch(connection)
        last_length = run.size - (run.packets - 1) * run.head.step
        payloads[-1] = payloads[-1][:last_length]
        connection.on_run(run, payloads, self.now)
        return True

    def _receive_datagram(self, datagram: memoryview, address: Address, now: float) -> None:
        try:
            handler = HANDLERS.get(wire.decode_prefix(datagram))
            if handler is None:
                raise WireError("unknown packet type")
            handler(self, datagram, address, now)
        except WireError as error:
            self.stats[f"malformed: {error}"] += 1

    def _find(self, connection_id: bytes, datagram: memoryview, address: Address, now: float) -> Optional[Connection]:
        """The connection that a packet is for; None where it proves nothing, which is counted."""
        connection = self.directory.by_local.get(connection_id)
        if connection is None:
            self._maybe_reset(connection_id, datagram, address, now)
        elif connection.address != address:  # nothing of it is taken in before that address has proved itself
            self.stats["dropped: other address"] += 1
            self._moves.on_elsewhere(connection, datagram, address, now)
            self.turns.touch(connection)
        elif not connection.remote_id:
            self.stats["dropped: before the handshake"] += 1
        else:
            self.turns.touch(connection)
            return connection
        return None

    def _on_path_challenge(self, datagram: memoryview, address: Address, now: float) -> None:
        """Answered where it came from, if the other end of the connection is there, in as many bytes."""
        packet = wire.decode_path(datagram)
        connection = self.directory.by_local.get(packet.connection_id)
        if connection is not None and connection.address == address and connection.remote_id:
            connection.paths.on_challenged(now)
            proof = path_proof(self.reset_token(connection.local_id), packet.token)
            self._reply(address, wire.encode_path_response(wire.PathPacket(connection.remote_id, proof)))

    def _on_path_response(self, datagram: memoryview, address: Address, now: float) -> None:
        packet = wire.decode_path(datagram)
        connection = self.directory.by_local.get(packet.connection_id)
        if connection is not None:
            connection.paths.on_answer(address, packet.token, connection.address, now)
            self.turns.touch(connection)

    def _maybe_reset(self, connection_id: bytes, datagram: memoryview, address: Address, now: float) -> None:
        """Tell a stranger that we do not know its connection, in fewer bytes than it sent: so no two can loop."""
        self.stats["dropped: unknown connection"] += 1
        if len(datagram) > wire.RESET.size and datagram[5] in _ANSWERED_BY_RESET and self._resets.allows("", now):
            self._reply(address, wire.encode_reset(wire.ResetPacket(connection_id, self.reset_token(connection_id))))

    def _on_data(self, datagram: memoryview, address: Address, now: float) -> None:
        connection_id, number, oldest, offset = wire.decode_data_header(datagram)
        connection = self._find(connection_id, datagram, address, now)
        if connection is not None:
            connection.on_data(number, oldest, offset, datagram[wire.DATA_HEADER_SIZE :], now)

    def _on_ping(self, datagram: memoryview, address: Address, now: float) -> None:
        connection_id, number, oldest, _ = wire.decode_data_header(datagram)
        connection = self._find(connection_id, datagram, address, now)
        if connection is not None:
            connection.on_ping(number, oldest, now)

    def _on_ack(self, datagram: memoryview, address: Address, now: float) -> None:
        try:
            packet = wire.decode_ack(datagram)
        except wire.BadRanges as error:
            connection = self._find(error.connection_id, datagram, address, now)
            if connection is not None:
                connection.fail(CloseCode.PROTOCOL, str(error), now)
            raise  # and it counts as malformed, whoever sent it
        connection = self._find(packet.connection_id, datagram, address, now)
        if connection is not None:
            connection.on_ack(packet, now)

    def _on_close(self, datagram: memoryview, address: Address, now: float) -> None:
        packet = wire.decode_close(datagram)
        connection = self._find(packet.connection_id, datagram, address, now)
        if connection is not None:
            connection.on_close(packet, now)

    def _on_final(self, datagram: memoryview, address: Address, now: float) -> None:
        packet = wire.decode_final(datagram)
        connection = self._find(packet.connection_id, datagram, address, now)
        if connection is not None:
            connection.on_final(packet, now)

    def _on_reset(self, datagram: memoryview, address: Address, now: float) -> None:
        packet = wire.decode_reset(datagram)
        connection = self.directory.of_remote(address, packet.connection_id)
        if connection is not None and hmac.compare_digest(packet.token, connection.handshake.remote_token):
            connection.on_reset(now)

    def _on_lone(self, datagram: memoryview, address: Address, now: float) -> None:
        if self._lones.allows("", now):
            self.events.append(LoneReceived(address, wire.decode_lone(datagram)))
        else:
            self.stats["dropped: too many lone messages"] += 1

    # ---- handshake

    def _on_init(self, datagram: memoryview, address: Address, now: float) -> None:
        """Somebody would connect: a cookie to a stranger, a place to who brings one back."""
        packet = wire.decode_init(datagram)
        known = self.directory.of_client(address, packet.client_id)
        if known is not None:
            if known.handshake.nonce == packet.nonce and known.state is not State.CLOSED:
                self._send_init_ack(known)  # the first answer was lost
            return
        if self.admission.is_cookie_good(packet, address, now):
            self._accept(packet, address, now)
            return
        cookie = self.admission.new_cookie(packet, address, now)
        if cookie is not None:
            self._reply(address, wire.encode_cookie(wire.CookiePacket(packet.client_id, packet.nonce, cookie)))
        else:
            self.stats["dropped: too many handshakes"] += 1

    def _accept(self, packet: wire.InitPacket, address: Address, now: float) -> None:
        """Make the connection, or say why not."""
        others = self.directory.by_local.values()
        refusal = self.admission.refusal(address, others, now) if self.accepts else "it is leaving"
        if refusal:
            self.stats[f"refused: {refusal}"] += 1
            log.info("refused a connection from %s: %s", shown(address), refusal)
            self._reply(address, wire.encode_refused(wire.RefusedPacket(packet.client_id, packet.nonce, refusal)))
            return
        connection = self._new(address, False, now)
        connection.accept_init(packet)
        self.directory.know_client(connection)
        self._send_init_ack(connection)
        self.touch(connection)

    def _send_init_ack(self, connection: Connection) -> None:
        client_id, local_id = connection.handshake.client_id, connection.local_id
        fields = (client_id, local_id, connection.first_number, connection.receiving.credit)
        packet = wire.InitAckPacket(*fields, self.reset_token(local_id))
        self._reply(connection.address, wire.encode_init_ack(packet))

    def _connecting(self, client_id: bytes, address: Address) -> Optional[Connection]:
        connection = self.directory.by_local.get(client_id)
        if connection is None or connection.address != address or connection.state is not State.CONNECTING:
            return None
        self.turns.touch(connection)
        return connection

    def _on_cookie(self, datagram: memoryview, address: Address, now: float) -> None:
        packet = wire.decode_cookie(datagram)
        connection = self._connecting(packet.client_id, address)
        if connection is not None:
            connection.handshake.on_cookie(packet, now)

    def _on_init_ack(self, datagram: memoryview, address: Address, now: float) -> None:
        packet = wire.decode_init_ack(datagram)
        connection = self._connecting(packet.client_id, address)
        # Without a cookie nobody takes an INIT: an answer to one that had none is made up.
        if connection is not None and connection.handshake.cookie != wire.NO_COOKIE:
            connection.on_init_ack(packet, now)

    def _on_refused(self, datagram: memoryview, address: Address, now: float) -> None:
        packet = wire.decode_refused(datagram)
        connection = self._connecting(packet.client_id, address)
        if connection is not None and packet.nonce == connection.handshake.nonce:
            connection.fail(CloseCode.LIMIT, packet.reason, now)

    def _on_keyed(self, datagram: memoryview, address: Address, now: float) -> None:
        """What asked without a key is told so: a connection that is being opened, and whoever sent a lone message."""
        repeated = wire.decode_keyed(datagram)
        connection = self._connecting(repeated[: wire.CONNECTION_ID_SIZE], address)
        if connection is not None and repeated[wire.CONNECTION_ID_SIZE :] == connection.handshake.nonce:
            connection.fail(CloseCode.LIMIT, KEY_WANTED, now)
        if self._lones.allows("", now):
            self.events.append(KeyWanted(address, repeated))


HANDLERS = {
    int(PacketType.INIT): Endpoint._on_init,
    int(PacketType.COOKIE): Endpoint._on_cookie,
    int(PacketType.INIT_ACK): Endpoint._on_init_ack,
    int(PacketType.DATA): Endpoint._on_data,
    int(PacketType.BULK): Endpoint._on_data,
    int(PacketType.ACK): Endpoint._on_ack,
    int(PacketType.PING): Endpoint._on_ping,
    int(PacketType.CLOSE): Endpoint._on_close,
    int(PacketType.FINAL): Endpoint._on_final,
    int(PacketType.RESET): Endpoint._on_reset,
    int(PacketType.LONE): Endpoint._on_lone,
    int(PacketType.REFUSED): Endpoint._on_refused,
    int(PacketType.PATH_CHALLENGE): Endpoint._on_path_challenge,
    int(PacketType.PATH_RESPONSE): Endpoint._on_path_response,
    int(PacketType.KEYED): Endpoint._on_keyed,
}
# INIT and LONE need no connection; and on CLOSE, FINAL or RESET two who both forgot would go on for ever.
_ANSWERED_BY_RESET = (PacketType.DATA, PacketType.BULK, PacketType.ACK, PacketType.PING)
