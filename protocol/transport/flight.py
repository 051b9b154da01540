"""What one side has in flight: the packets that carry its stream, PINGs and probes, from the window to their fate.

It joins the parts that each know one thing: `SendStream` which bytes go next, `Recovery` what became of packets,
`Pacer` how large a batch is and when it leaves, `PathMtu` how large a datagram may be. `Connection` says in which
order all that it has to say goes out; the batches made here are the part of it that has packet numbers.
"""

from __future__ import annotations

import math
import random
from typing import Callable, List, NamedTuple, Optional, Protocol

from protocol.addresses import is_loopback
from protocol.fields import Address, Buffer
from protocol.figures import PathFigures
from protocol.transport.congestion import CongestionController
from protocol.transport.mtu import PathMtu
from protocol.transport.pacing import Pacer
from protocol.transport.packets import DATA_HEADER_SIZE, BatchHead, bulk_headers, data_headers, encode_ping
from protocol.transport.receiving import ReceiveStream
from protocol.transport.recovery import DATAGRAM_SIZE_BASE, Outcome, Recovery, SentBatch
from protocol.transport.sending import SendStream

PROBES = 2  # at each probe timeout (RFC 9002 §6.2.4): one of full size, and one that passes everywhere
SKIP_EVERY = (0.5, 1.5)  # a packet number is left out after so many windows, to catch blind acknowledgements:
SKIP_BYTES_MAX = 32 << 20  # by then a liar has not doubled its rate; and at least once in so many bytes


class Batch(NamedTuple):
    """Datagrams to one address: `count` of `segment_size` bytes each, the last may be shorter.

    `buffers` holds header and payload in turn, `per_datagram` of them for each datagram. The headers are good until
    the endpoint is asked for the next batch.
    """

    address: Address
    segment_size: int
    count: int  # type: ignore[assignment]  # a tuple's method of that name is not missed
    per_datagram: int
    buffers: List[Buffer]


MakesBatch = Callable[[float], Optional[Batch]]  # with `now`; None: it came to nothing


def lone_batch(address: Address, datagram: Buffer) -> Batch:
    """One datagram."""
    return Batch(address, len(datagram), 1, 1, [datagram])


class Outlet(Protocol):
    """Where the packets of all connections leave this machine: the `Endpoint`, and what it has for each of them."""

    rng: random.Random
    datagram_size_max: int  # bytes: what this machine's socket takes
    new_controller: Callable[[int], CongestionController]  # for a path of which nothing is known; by its datagram size

    def header_views(self, headers: Buffer) -> List[memoryview]:
        """The headers of a batch, cut apart in memory that is used again."""


class Flight:
    """The packets of one side of a connection."""

    def __init__(
        self, address: Address, sending: SendStream, recovery: Recovery, mtu: PathMtu, outlet: Outlet
    ) -> None:
        self.pacer = Pacer(recovery.rtt, recovery.reordering)
        self.checks_bulk = False  # checksums cover bulk, too: what arrived once was damaged
        self.resent = 0  # bytes that were lost, and are or were sent again
        self._address = address
        self._remote_id = b""
        self._sending = sending
        self._recovery = recovery
        self._mtu = mtu
        self._outlet = outlet
        self._header_views = outlet.header_views
        self._probes_owed = 0
        self._ping_owed = False
        self._skip_at = self._next_skip()

    def meet(self, remote_id: bytes, credit: int) -> None:
        """Now the other side is known: by which id, and how far it lets us send."""
        self._remote_id = remote_id
        self._sending.allow(credit)

    def check_bulk(self) -> None:
        """Let checksums cover bulk, too, from now on."""
        self.checks_bulk = True

    def move(self, address: Address, now: float) -> None:
        """The other side is there now: what was on its way goes once more. On another host it is at another path's end.
        """
        is_other_host, self._address = address[0] != self._address[0], address
        if is_other_host:
            self.begin_path(now)
        else:
            self._send_anew(None, now)

    def begin_path(self, now: float) -> None:
        """From now on packets take a path of which nothing is known; what was on its way goes once more."""
        self._send_anew(self._outlet.new_controller(DATAGRAM_SIZE_BASE), now)
        self._mtu.begin(is_loopback(self._address[0]))
        self.search_mtu()

    def _send_anew(self, controller: Optional[CongestionController], now: float) -> None:
        for start, stop in self._recovery.begin_path(controller):
            self._sending.on_lost(start, stop)
            self.resent += stop - start
        self._probes_owed = 0
        self.pacer.begin(now)
        self.owe_ping()

    def figures(self, first_number: int, receiving: ReceiveStream) -> PathFigures:
        """How the path does; packets are counted from this number on, and beside it stands what came the other way."""
        recovery = self._recovery
        trip = recovery.rtt.smoothed if recovery.rtt.samples else None
        sent = recovery.next_packet_number - first_number
        lost = max(0, recovery.packets_lost - recovery.packets_spurious)
        here = receiving.window, receiving.next_offset, receiving.late
        return PathFigures(trip, int(recovery.congestion.window), sent, lost, self.resent, *here, self._mtu.size)

    # ---- what became of it

    def on_outcome(self, outcome: Outcome, now: float) -> None:
        """An acknowledgement, or time, told of earlier packets."""
        for start, stop in outcome.acknowledged:
            self._sending.on_acknowledged(start, stop)
        for start, stop in outcome.lost:
            self._sending.on_lost(start, stop)
            self.resent += stop - start
        if outcome.progressed:
            self._probes_owed = 0
        self._on_sizes(outcome, now)

    def owe_probes(self) -> None:
        """A probe timeout: nothing was heard of what is in flight."""
        self._probes_owed = PROBES

    def owe_ping(self) -> None:
        """The other side shall give a sign."""
        self._ping_owed = True

    # ---- path MTU (RFC 8899)

    def search_mtu(self) -> None:
        """Probe for larger datagrams, up to what this machine's socket takes."""
        self._mtu.search(self._outlet.datagram_size_max, self._recovery.troubles)

    def _on_sizes(self, outcome: Outcome, now: float) -> None:
        """What arrived and what was lost tells how large a datagram may be."""
        recovery, mtu = self._recovery, self._mtu
        if outcome.mtu_acknowledged:
            self._tell_size(mtu.on_probe_arrived(outcome.mtu_acknowledged))
        elif outcome.mtu_lost:
            mtu.on_probe_lost(outcome.mtu_lost, recovery.troubles, now)
        if outcome.lost and recovery.black_hole.is_found:
            recovery.black_hole.forget()
            self._tell_size(mtu.on_black_hole(self._outlet.datagram_size_max, recovery.troubles, now))
        elif recovery.black_hole.arrived_size > mtu.size:
            self._tell_size(mtu.use(recovery.black_hole.arrived_size))

    def _tell_size(self, has_changed: bool) -> None:
        if has_changed:
            self._recovery.congestion.on_datagram_size(self._mtu.size)

    # ---- what leaves next

    def may_send(self, now: float) -> bool:
        """Is there data, and does the congestion window (and with a real `now`, the pacer) let it go?"""
        if not self._sending.has_something():
            return False
        recovery, pacer = self._recovery, self.pacer
        wanted = pacer.room_wanted(self._mtu.size, recovery.congestion.window, self._sending.unsent)
        if self._window_room() < wanted and recovery.has_outstanding():
            pacer.hold()
            return False
        return now == -math.inf or now >= pacer.next_at

    def _window_room(self) -> int:
        recovery = self._recovery
        return int(recovery.congestion.window) - recovery.bytes_in_flight

    def waiting(self, now: float) -> Optional[MakesBatch]:
        """What makes the next packets, in this order; None: nothing waits, or window or pacer hold it."""
        # RFC 9002 §7.5: a probe is never held back by the congestion window.
        if self._probes_owed:
            return self._probe_batch
        if self.may_send(now):
            return self._data_batch
        if self._ping_owed:
            return self.ping_batch
        return self._mtu_batch if self._mtu.wants_probe else None

    def _data_batch(self, now: float) -> Optional[Batch]:
        size, congestion = self._mtu.size, self._recovery.congestion
        rate = congestion.pacing_rate(self._recovery.rtt.smoothed)
        packets = self.pacer.burst(size, rate, congestion.window, self._window_room(), self.pacer.late(now))
        payload_size = size - DATA_HEADER_SIZE
        found = self._sending.next_range(packets * payload_size, payload_size)
        if found is None:
            return None
        self.pacer.on_sent(found[1], rate, now)
        return self._stream_batch(now, *found)

    def _probe_batch(self, now: float) -> Batch:
        # Which of the two arrives tells an outage from a black hole, in which all may be lost for its size alone.
        size = self._mtu.size if self._probes_owed == PROBES else DATAGRAM_SIZE_BASE
        self._probes_owed -= 1
        payload_size = size - DATA_HEADER_SIZE
        missing = self._sending.first_missing(payload_size)
        if missing is not None:
            return self._stream_batch(now, *missing, 1)
        found = self._sending.next_range(payload_size, payload_size)
        return self._stream_batch(now, *found) if found else self.ping_batch(now)

    def _stream_batch(self, now: float, offset: int, length: int, plain: int) -> Batch:
        """These bytes of the stream as packets, and their record.

        `plain`: so many packets at the front are not all bulk; a checksum covers them whole.
        """
        self._ping_owed = False  # they will give a sign
        sending, recovery, size = self._sending, self._recovery, self._mtu.size
        payload_size = size - DATA_HEADER_SIZE
        payloads = sending.payloads(offset, length, payload_size)
        count, number = len(payloads), recovery.next_packet_number
        head = BatchHead(self._remote_id, number, number - recovery.floor(), offset, payload_size)
        plain = count if self.checks_bulk else plain
        headers = data_headers(head, payloads[:plain])
        if plain < count:
            headers += bulk_headers(head, plain, count - plain, len(payloads[-1]))
        buffers: List[Buffer] = [b""] * (2 * count)
        buffers[0::2] = self._header_views(headers)
        buffers[1::2] = payloads
        sent_size, is_last = min(size, DATA_HEADER_SIZE + length), not sending.has_something()
        self._record(SentBatch(number, count, offset, length, payload_size, sent_size, now, is_app_limited=is_last))
        return Batch(self._address, size, count, 2, buffers)

    def ping_batch(self, now: float) -> Batch:
        """A PING, whether or not one is owed."""
        self._ping_owed = False
        return self._padded_ping(now, 0)

    def _mtu_batch(self, now: float) -> Batch:
        return self._padded_ping(now, self._mtu.next_probe())

    def _padded_ping(self, now: float, size: int) -> Batch:
        """A PING of so many bytes, to probe for a larger datagram; 0: of its own size."""
        number = self._recovery.next_packet_number
        datagram = encode_ping(self._remote_id, number, number - self._recovery.floor(), size)
        self._record(SentBatch(number, 1, 0, 0, 0, len(datagram), now, mtu_probe=bool(size), is_app_limited=True))
        return lone_batch(self._address, datagram)

    def _record(self, sent: SentBatch) -> None:
        self._recovery.on_sent(sent)
        if self._recovery.next_packet_number >= self._skip_at:
            self._recovery.skip_number()
            self._skip_at = self._next_skip()

    def _next_skip(self) -> int:
        """The packet number to leave out next: at random, so that nobody knows it who did not see what came."""
        window = min(self._recovery.congestion.window, SKIP_BYTES_MAX)
        packets = window / self._mtu.size * self._outlet.rng.uniform(*SKIP_EVERY)
        return self._recovery.next_packet_number + max(2, int(packets))
