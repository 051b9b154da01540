"""What one node's transport did, an event a line, for a person and for `node_tests/stage/timeline.py`.

    RDT_TRACE=FILE python program.py        every transport of that program (and of those that it starts)
    python node_client.py --trace FILE      one node (but for its door, through which only newcomers are sent on)

A line is plain ASCII, words divided by one space, and only ever gains keys and events:

    SECONDS CONNECTION EVENT key=value ...

SECONDS are monotonic, with six decimals; two nodes of one machine share that clock. CONNECTION is this side's
connection id in hex, `-` where there is none. No value has a space; what other programs wrote is escaped.

    sent, received   address, type (of packets.PacketType), size (bytes of UDP payload); then by type:
                     DATA, BULK: number, offset (of the stream) · PING: number · ACK: largest, ranges (newest first, as
                     9-12,5-7), delay_us, credit · INIT, INIT_ACK: number (its sender's first), credit · CLOSE: code,
                     final_size, reason · FINAL: received · REFUSED: reason. What cannot be decoded has type=malformed
    opened           remote (the id at the other end), address, side (client or server): both ids are known now
    lost             number, count: these packets were declared lost (RFC 9002 §6.1); what they carried is sent again
    window           cwnd, flight (bytes), rtt, rttvar (seconds, RFC 9002 §5), delivered (bytes acknowledged in all):
                     behind each acknowledgement, and whenever time told of a loss
    moved            address: the other end is there from now on
    over             clean (1 or 0), lost, spurious (packets), reason
    full             bound (bytes): the file has reached it, and nothing more is written

A trace is as good as the connection's ids: whoever reads it while the connection lives can forge its packets.

Pure: `TracedEndpoint` hands each text of whole lines to the function that it was made with. It is a subclass, so that
an endpoint that is not traced pays nothing.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Tuple

from protocol.addresses import shown
from protocol.fields import Address, Buffer, WireError
from protocol.transport import packets as wire
from protocol.transport.connection import Connection
from protocol.transport.endpoint import Endpoint
from protocol.transport.flight import Batch
from protocol.transport.packets import PacketType
from protocol.transport.recovery import Outcome, Recovery, SentBatch

Fields = Dict[str, object]


class Record(NamedTuple):
    """One line."""

    at: float  # seconds, monotonic
    connection: str
    event: str
    fields: Dict[str, str]


def encode_record(at: float, connection: str, event: str, fields: Fields) -> str:
    """One line, with its end."""
    words = [f"{at:.6f}", connection, event, *(f"{name}={value!s}" for name, value in fields.items())]
    return " ".join(words) + "\n"


def decode_record(line: str) -> Optional[Record]:
    """The other way; None for what is no such line, as the last one of a program that was killed may be."""
    words = line.split()
    if len(words) < 3 or not line.endswith("\n"):
        return None
    try:
        at = float(words[0])
    except ValueError:
        return None
    return Record(at, words[1], words[2], {key: value for key, _, value in (word.partition("=") for word in words[3:])})


def plain(text: str) -> str:
    """What somebody else wrote, as one word of ASCII."""
    return ascii("_".join(text.split()))[1:-1]


# ---- what a packet says


def packet_fields(datagram: Buffer, size: int) -> Tuple[bytes, Fields]:
    """(connection id on the wire, what a line tells) of a packet, of which the header is enough for DATA and BULK."""
    view = memoryview(datagram)
    kind = PacketType(view[5])
    wire_id, fields = _DESCRIBED[kind](view)
    return wire_id, {"type": kind.name, "size": size, **fields}


def _data(view: memoryview) -> Tuple[bytes, Fields]:
    connection_id, number, _, offset = wire.decode_data_header(view)
    return connection_id, {"number": number, "offset": offset}


def _ping(view: memoryview) -> Tuple[bytes, Fields]:
    connection_id, number, _, _ = wire.decode_data_header(view)
    return connection_id, {"number": number}


def _ack(view: memoryview) -> Tuple[bytes, Fields]:
    packet = wire.decode_ack(view)
    ranges = ",".join(f"{low}-{high}" for low, high in packet.ranges)
    fields = {"largest": packet.largest, "ranges": ranges, "delay_us": packet.delay_us, "credit": packet.credit}
    return packet.connection_id, dict(fields)


def _init(view: memoryview) -> Tuple[bytes, Fields]:
    packet = wire.decode_init(view)
    return packet.client_id, {"number": packet.first_packet_number, "credit": packet.credit}


def _init_ack(view: memoryview) -> Tuple[bytes, Fields]:
    packet = wire.decode_init_ack(view)
    return packet.client_id, {"number": packet.first_packet_number, "credit": packet.credit}


def _close(view: memoryview) -> Tuple[bytes, Fields]:
    packet = wire.decode_close(view)
    return packet.connection_id, {"code": packet.code, "final_size": packet.final_size, "reason": plain(packet.reason)}


def _final(view: memoryview) -> Tuple[bytes, Fields]:
    packet = wire.decode_final(view)
    return packet.connection_id, {"received": packet.received}


def _refused(view: memoryview) -> Tuple[bytes, Fields]:
    packet = wire.decode_refused(view)
    return packet.client_id, {"reason": plain(packet.reason)}


_DESCRIBED: Dict[int, Callable[[memoryview], Tuple[bytes, Fields]]] = {
    PacketType.INIT: _init,
    PacketType.COOKIE: lambda view: (wire.decode_cookie(view).client_id, {}),
    PacketType.INIT_ACK: _init_ack,
    PacketType.DATA: _data,
    PacketType.BULK: _data,
    PacketType.ACK: _ack,
    PacketType.PING: _ping,
    PacketType.CLOSE: _close,
    PacketType.FINAL: _final,
    PacketType.RESET: lambda view: (wire.decode_reset(view).connection_id, {}),
    PacketType.LONE: lambda view: (b"", {}),
    PacketType.REFUSED: _refused,
    PacketType.PATH_CHALLENGE: lambda view: (wire.decode_path(view).connection_id, {}),
    PacketType.PATH_RESPONSE: lambda view: (wire.decode_path(view).connection_id, {}),
}


# ---- an endpoint that tells it


class TracedRecovery(Recovery):
    """Remembers which packets were declared lost until its connection has told it."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.vanished: List[Tuple[int, int]] = []  # (first number, count)

    def _on_vanished(self, record: SentBatch, mask: int) -> None:
        super()._on_vanished(record, mask)
        while mask:
            low = (mask & -mask).bit_length() - 1
            run = ~(mask >> low)
            count = (run & -run).bit_length() - 1
            self.vanished.append((record.first + low, count))
            mask &= ~(((1 << count) - 1) << low)


class TracedConnection(Connection):
    """Tells losses, the window and the end."""

    recovery_class = TracedRecovery

    def _on_outcome(self, outcome: Outcome, now: float) -> None:
        super()._on_outcome(outcome, now)
        recovery = self.recovery
        assert isinstance(recovery, TracedRecovery)
        for number, count in recovery.vanished:
            self.endpoint.tell(now, self.local_id, "lost", {"number": number, "count": count})
        recovery.vanished.clear()
        rtt = recovery.rtt
        window: Fields = {"cwnd": int(recovery.congestion.window), "flight": recovery.bytes_in_flight}
        window.update(rtt=f"{rtt.smoothed:.6f}", rttvar=f"{rtt.variance:.6f}", delivered=recovery.delivered)
        self.endpoint.tell(now, self.local_id, "window", window)

    def move(self, address: Address, now: float) -> None:
        """As `Connection`, and tells it."""
        super().move(address, now)
        self.endpoint.tell(now, self.local_id, "moved", {"address": shown(address)})

    def _tell_lost(self, reason: str, is_clean: bool) -> None:
        if not self.closing.is_told:
            fields: Fields = {"clean": int(is_clean), "lost": self.recovery.packets_lost}
            fields.update(spurious=self.recovery.packets_spurious, reason=plain(reason))
            self.endpoint.tell(self.endpoint.now, self.local_id, "over", fields)
        super()._tell_lost(reason, is_clean)


class TracedEndpoint(Endpoint):
    """Tells every packet, in the order in which this endpoint met them; `write` is handed one or more whole lines."""

    connection_class = TracedConnection

    def __init__(self, write: Callable[[str], None], *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._write = write

    def tell(self, now: float, connection_id: bytes, event: str, fields: Fields) -> None:
        """Write one line of this connection, or of none."""
        self._write(encode_record(now, connection_id.hex() or "-", event, fields))

    def know_remote(self, connection: Connection) -> None:
        """As `Endpoint`; with both ids known the connection counts as opened."""
        super().know_remote(connection)
        side = "client" if connection.is_client else "server"
        fields: Fields = {"remote": connection.remote_id.hex(), "address": shown(connection.address), "side": side}
        self.tell(self.now, connection.local_id, "opened", fields)

    def batches(self, now: float) -> Iterator[Batch]:
        """As `Endpoint`, each batch once it was told."""
        for batch in super().batches(now):
            self._write("".join(self._sent_lines(batch, now)))
            yield batch

    def _sent_lines(self, batch: Batch, now: float) -> Iterator[str]:
        for start in range(0, batch.count * batch.per_datagram, batch.per_datagram):
            parts = batch.buffers[start : start + batch.per_datagram]
            wire_id, fields = packet_fields(self._opened(parts[0]), sum(map(len, parts)))
            yield self._packet_line(now, "sent", batch.address, wire_id, fields)

    def receive(
        self, buffer: memoryview, segment_size: int, address: Address, now: float, cuts: Optional[wire.Cuts] = None
    ) -> None:
        """As `Endpoint`; what cannot be decoded is told, too."""
        datagrams = [buffer[start : start + segment_size] for start in range(0, len(buffer), segment_size)]
        self._write("".join(self._received_line(datagram, address, now) for datagram in datagrams))
        super().receive(buffer, segment_size, address, now, cuts)

    def _received_line(self, datagram: memoryview, address: Address, now: float) -> str:
        try:
            self._check(datagram)
            wire_id, fields = packet_fields(self._opened(datagram), len(datagram))
        except (WireError, ValueError):  # ValueError: no such type
            wire_id, fields = b"", {"type": "malformed", "size": len(datagram)}
        return self._packet_line(now, "received", address, wire_id, fields)

    def _opened(self, datagram: Buffer) -> Buffer:
        """The packet that begins with these bytes, as an open network has it."""
        return datagram

    def _check(self, datagram: memoryview) -> None:
        """WireError: it is none of this network's."""
        wire.decode_prefix(datagram)

    def _packet_line(self, now: float, event: str, address: Address, wire_id: bytes, fields: Fields) -> str:
        """By this side's id of the connection, whichever side's the packet carries."""
        known = self.directory.of_remote(address, wire_id)
        name = (known.local_id if known is not None else wire_id).hex() or "-"
        return encode_record(now, name, event, {"address": shown(address), **fields})
