"""An endpoint and its connections in a network that has a key: sealed datagrams (`sealing.py`), TLS inside (`veil.py`).

Subclasses, so that an open network pays nothing. They add to what an `Endpoint` does:

    every datagram is sealed as it leaves, and one that is not sealed as it must be is dropped and counted
    a connection is `Established` when the other side has been admitted by its certificate, and not before
    whoever knocks without a seal is told, a few times a second, that there is a key; nothing else is said to strangers
    the reason for an orderly end goes under the veil: outside of it only the transport's own words are said

Pure.
"""

from __future__ import annotations

import hashlib
import random
from typing import Any, Optional, Tuple, Type

from protocol import mishaps
from protocol.addresses import shown
from protocol.buffers import BufferPool
from protocol.fields import Address, Buffer, WireError
from protocol.latest import Latest
from protocol.rates import Bucket
from protocol.transport import packets as wire
from protocol.transport.connection import Connection, State
from protocol.transport.endpoint import HANDLERS, Endpoint
from protocol.transport.flight import Batch
from protocol.transport.frames import GOODBYE
from protocol.transport.packets import CloseCode, PacketType
from protocol.transport.receiving import ReceiveStream
from protocol.transport.sealing import (
    FRONT,
    HELLO_TYPES,
    ID_AT,
    SEALED_SIZE_LEAST,
    TYPE_AT,
    Meeting,
    SealKey,
    connection_keys,
    hello_key,
    sealed_cuts_of,
)
from protocol.transport.sending import SendStream
from protocol.transport.veil import WORN_OUT, Veil, VeiledFramer, VeiledSendStream

log = mishaps.logger("transport")

HINTS_PER_SECOND = 10  # answers to strangers who knock without a seal
TAKEN_MAX = 4096  # INITs remembered, by nonce: none makes a second connection
RECORDS_KEPT_MAX = 8 << 20  # bytes of large records, sent and acknowledged, whose memory is used again
WRONG_SEAL = "dropped: wrong seal"
WHY = "another key, an older program, or changed on the way"
_INIT, _LONE = int(PacketType.INIT), int(PacketType.LONE)
_STREAM_TYPES = (int(PacketType.DATA), int(PacketType.BULK))


class KeyedConnection(Connection):
    """A connection whose datagrams are sealed, and whose bytes are TLS."""

    datagram_reserved = FRONT

    def _new_streams(self) -> Tuple[SendStream, ReceiveStream]:
        """Both read and written by way of the veil."""
        endpoint = self.endpoint
        credentials = endpoint.credentials
        self.veil = Veil(credentials.client_context if self.is_client else credentials.server_context, self.is_client)
        self.seals: Optional[SealKey] = None  # what is sent, once the other side is known
        self.opens: Optional[SealKey] = None  # what comes
        self._is_admitted = False
        self._veiled = VeiledSendStream(endpoint.backlogs.memory, self.veil, endpoint.records)
        intake = endpoint.intake
        receiving = intake.open()
        say = self._veiled.write_records
        receiving.read_by(VeiledFramer(self.veil, intake.frames_max, intake.bodies, say, lambda: receiving.window))
        return self._veiled, receiving

    # ---- the handshake

    def _meet(self, remote_id: bytes, first_number: int, credit: int) -> None:
        super()._meet(remote_id, first_number, credit)
        secret, nonce = self.endpoint.credentials.seal_key, self.handshake.nonce
        if self.is_client:
            meeting = Meeting(self.local_id, remote_id, nonce, self.handshake.remote_token)
            self.seals, self.opens = connection_keys(secret, meeting)
        else:
            meeting = Meeting(remote_id, self.local_id, nonce, self.endpoint.reset_token(self.local_id))
            self.opens, self.seals = connection_keys(secret, meeting)
        self.veil.meet(meeting.binding())

    def _set_state(self, state: State) -> None:
        if state is State.ESTABLISHED and not self._is_admitted:
            self.state = state
            self._veiled.write_records(self.veil.begin(self.endpoint.now))
        else:
            super()._set_state(state)

    def _admit(self) -> None:
        """The other side has shown that it is a member, and that it saw the same handshake."""
        self._is_admitted = True
        if self.veil.certificate is not None:
            self.remote_fingerprint = hashlib.sha256(self.veil.certificate).digest()
        self._veiled.open()
        if self.state is State.ESTABLISHED:
            self._set_state(State.ESTABLISHED)  # and now it is told

    def _hand_out(self, now: float) -> None:
        if self.veil.is_open and not self._is_admitted:
            self._admit()
        super()._hand_out(now)

    def send_frame(self, kind: int, *parts: Buffer, is_bulk: bool = False) -> bool:
        """As in an open network; the bytes go under the veil, and wait there until the other side is admitted."""
        is_taken = super().send_frame(kind, *parts, is_bulk=is_bulk)
        if is_taken and self.veil.is_worn_out:
            self.shut_down(WORN_OUT)
        return is_taken

    # ---- time, and what leaves

    def next_deadline(self) -> float:
        deadline = super().next_deadline()
        return min(deadline, self.veil.deadline) if self.state is State.ESTABLISHED else deadline

    def _on_live_timeout(self, now: float) -> None:
        if now >= self.veil.deadline:
            self.fail(CloseCode.LIMIT, "did not finish its handshake", now)
        else:
            super()._on_live_timeout(now)

    def next_batch(self, now: float) -> Optional[Batch]:
        """As in an open network, sealed."""
        batch = super().next_batch(now)
        if batch is None:
            return None
        key = self.seals or self.endpoint.hello  # an INIT goes out before the other side is known
        return key.seal_batch(batch)  # type: ignore[no-any-return]  # the endpoint is Any here

    # ---- the end

    def shut_down(self, reason: str) -> None:
        """As in an open network; the reason goes under the veil."""
        if self.closing.reason is None and self.state in (State.CONNECTING, State.HANDSHAKE, State.ESTABLISHED):
            if self.veil.is_open:
                self.closing.begin_last_word()
            self._veiled.write_frame(GOODBYE, reason.encode("utf-8", "replace")[: wire.REASON_SIZE_MAX])
        super().shut_down(reason)

    def _begin_closing(self, code: int, reason: str, now: float) -> None:
        super()._begin_closing(code, "" if code == CloseCode.DONE else reason, now)

    def on_close(self, packet: wire.ClosePacket, now: float) -> None:
        super().on_close(packet._replace(reason=packet.reason or self.veil.goodbye or ""), now)

    def _tell_lost(self, reason: str, is_clean: bool) -> None:
        super()._tell_lost(reason, is_clean and not self._veiled.waiting_size)


class KeyedEndpoint(Endpoint):
    """Many connections on one socket of a network that has a key."""

    connection_class: Type[Connection] = KeyedConnection
    cuts_of = staticmethod(sealed_cuts_of)

    def __init__(self, credentials: Any, rng: random.Random, **named: Any) -> None:
        super().__init__(rng, **named)
        self.credentials = credentials
        self.datagram_size_max -= FRONT
        self.hello = hello_key(credentials.seal_key)
        self.records = BufferPool(RECORDS_KEPT_MAX)
        self._told_at = 1  # wrong seals, of which the log tells next
        self._hints = Bucket(HINTS_PER_SECOND, HINTS_PER_SECOND, 0.0)
        self._taken: Latest[bytes, None] = Latest(TAKEN_MAX)  # nonces of INITs

    @property
    def wrong_seals(self) -> int:
        """Datagrams that were not sealed as they must be."""
        return self.stats[WRONG_SEAL]

    # ---- what leaves

    def _reply(self, address: Address, datagram: bytearray) -> None:
        key: Optional[SealKey] = self.hello
        if datagram[5] not in HELLO_TYPES:  # a PATH_RESPONSE
            remote_id = bytes(datagram[wire.PREFIX_SIZE : wire.PREFIX_SIZE + wire.CONNECTION_ID_SIZE])
            connection: Any = self.directory.of_remote(address, remote_id)
            key = connection.seals if connection is not None else None
        if key is not None:
            super()._reply(address, _sealed(key, datagram))

    def lone_datagram(self, message: Buffer) -> Buffer:
        return _sealed(self.hello, wire.encode_lone(message))

    # ---- what comes

    def receive(
        self, buffer: memoryview, segment_size: int, address: Address, now: float, cuts: Optional[wire.Cuts] = None
    ) -> None:
        """As in an open network; what is not sealed as it must be is dropped and counted."""
        self.now = now
        if len(buffer) <= segment_size:
            self._receive_datagram(buffer, address, now)
            return
        count = -(-len(buffer) // segment_size)
        last_length = len(buffer) - (count - 1) * segment_size - FRONT - wire.DATA_HEADER_SIZE
        if last_length > 0:
            cuts = cuts or sealed_cuts_of(buffer, segment_size)
            if self._are_sealed_bulk(buffer, cuts, count, last_length):
                self._receive_good(buffer, segment_size, address, cuts, count, last_length)
                return
        for start in range(0, len(buffer), segment_size):
            self._receive_datagram(buffer[start : start + segment_size], address, now)

    def _are_sealed_bulk(self, buffer: memoryview, cuts: wire.Cuts, count: int, last_length: int) -> bool:
        """Are all of so many sealed as those of the first one's connection must be, and is that one of its stream?"""
        connection: Any = self.directory.by_local.get(bytes(buffer[ID_AT]))
        if connection is None or connection.opens is None or buffer[TYPE_AT] not in _STREAM_TYPES:
            return False
        last = cuts.covered[count - 1][: last_length + wire.DATA_HEADER_SIZE - wire.CHECKSUM.size]
        return bool(connection.opens.are_good(cuts.tags[:count], [*cuts.covered[: count - 1], last]))

    def _receive_good(
        self, buffer: memoryview, segment_size: int, address: Address, cuts: wire.Cuts, count: int, last_length: int
    ) -> None:
        """Take in the runs of what is well sealed, and what is in none of them one by one."""
        headers, at, connection_id = b"".join(cuts.headers[:count]), 0, bytes(buffer[ID_AT])
        while at < count:
            run = wire.decode_bulk_run(headers, last_length, segment_size - FRONT, has_checksums=False)
            stop = at + (run.packets if run is not None else 1)
            is_theirs = run is not None and run.head.connection_id == connection_id
            if run is None or not is_theirs or not self._receive_run(run, cuts.payloads[at:stop], address):
                for start in range(at * segment_size, stop * segment_size, segment_size):
                    self._receive_checked(buffer[start : start + segment_size], connection_id, address)
            headers, at = headers[(stop - at) * wire.DATA_HEADER_SIZE :], stop

    def _receive_checked(self, datagram: memoryview, connection_id: bytes, address: Address) -> None:
        """It is sealed as those of that connection must be: if it is one of them, its seal is not checked again."""
        if datagram[ID_AT] == connection_id and datagram[TYPE_AT] not in HELLO_TYPES:
            self._guarded(datagram, address)
        else:
            self._receive_datagram(datagram, address, self.now)

    def _receive_datagram(self, datagram: memoryview, address: Address, now: float) -> None:
        if self.is_sealed(datagram):
            self._guarded(datagram, address)
        else:
            self._maybe_tell(address)
            self._maybe_hint(datagram, address, now)

    def _maybe_tell(self, address: Address) -> None:
        """In the log, at the first wrong seal, the tenth, the hundredth: a flood of them writes few lines."""
        if self.wrong_seals >= self._told_at:
            self._told_at *= 10
            seals = self.wrong_seals
            log.info("dropped for a wrong seal so far: %d, the last from %s (%s)", seals, shown(address), WHY)

    def is_sealed(self, datagram: memoryview) -> bool:
        """Was it sealed by a member, for this connection if it is of one, and not changed since?"""
        if len(datagram) < SEALED_SIZE_LEAST:
            self.stats["malformed: shorter than a prefix"] += 1
            return False
        key: Optional[SealKey] = self.hello
        if datagram[TYPE_AT] not in HELLO_TYPES:
            connection: Any = self.directory.by_local.get(bytes(datagram[ID_AT]))
            key = connection.opens if connection is not None else None
        if key is None:
            self.stats["dropped: unknown connection"] += 1
            return False
        if key.is_good(datagram):
            return True
        self.stats[WRONG_SEAL] += 1
        return False

    def _guarded(self, datagram: memoryview, address: Address) -> None:
        """What is well sealed is handled as an open one: it may be malformed all the same."""
        opened = datagram[FRONT:]
        try:
            packet_type = wire.decode_sealed_prefix(opened)
            if packet_type == _INIT and self._is_repeated(wire.decode_init(opened), address):
                self.stats["dropped: repeated handshake"] += 1
                return
            handler = HANDLERS.get(packet_type)
            if handler is None:
                raise WireError("unknown packet type")
            handler(self, opened, address, self.now)
        except WireError as error:
            self.stats[f"malformed: {error}"] += 1

    # ---- strangers

    def _maybe_hint(self, datagram: memoryview, address: Address, now: float) -> None:
        """Who knocks in the clear reads that there is a key, in fewer bytes than it sent; nobody else hears a word."""
        if len(datagram) <= wire.KEYED.size or datagram[5] not in (_INIT, _LONE):
            return
        try:
            wire.decode_prefix(datagram)
        except WireError:
            return
        if self._hints.take(now):
            super()._reply(address, wire.encode_keyed(datagram))

    def _is_repeated(self, packet: wire.InitPacket, address: Address) -> bool:
        """Did it make a connection that is over? Somebody who has heard it says it again, and gets no answer."""
        return packet.nonce in self._taken and self.directory.of_client(address, packet.client_id) is None

    def _accept(self, packet: wire.InitPacket, address: Address, now: float) -> None:
        self._taken.put(packet.nonce, None)
        super()._accept(packet, address, now)


def _sealed(key: SealKey, datagram: bytearray) -> bytearray:
    return bytearray(b"".join(key.seal([datagram])))
