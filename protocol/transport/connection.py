"""One connection: its states, the order in which what it has to say goes out, and the events that it tells.

What it is made of are values that know one thing each, and are tested alone: `Handshake`, `Flight` (what goes out, with
`SendStream`, `Recovery`, `Pacer` and `PathMtu`), `Arrival` (what comes in, with `ReceiveStream` and `Acknowledging`),
`Vigil` (what is done while nothing comes, with `Liveness` and `Progress`), `Paths` and `Closing`.

Pure: takes packets and `now`, gives batches of datagrams, events and a next deadline. Only `Endpoint` makes
connections and calls them; the endpoint's owner calls `send_frame`, `consume`, `shut_down` and `fail`.

    CONNECTING --INIT_ACK--> ESTABLISHED --shut_down, fail--> CLOSING --their CLOSE, or 3 tries--> CLOSED
    HANDSHAKE  --any packet-> ESTABLISHED --their CLOSE------> DRAINING --3 probe timeouts-------> CLOSED

*Delivered* are the whole frames that the other side has taken in: its reader has them or can take them, even after the
end. While both live an acknowledgement says so; whoever closes says it once more, by a FINAL before each CLOSE, for the
last acknowledgements may be lost. So the end of a connection that still has something unacknowledged is not told before
the FINAL is there, or three probe timeouts have passed without one (an older program has none).
"""

from __future__ import annotations

import enum
import math
from typing import Any, List, NamedTuple, Optional, Tuple, Type

from protocol import fields, mishaps
from protocol.addresses import is_loopback, shown
from protocol.fields import Address, Buffer
from protocol.figures import PathFigures
from protocol.transport import packets as wire
from protocol.transport.arrival import Arrival
from protocol.transport.closing import Closing
from protocol.transport.flight import Batch, Flight, MakesBatch, lone_batch
from protocol.transport.frames import FRAME_SIZE_MAX
from protocol.transport.handshake import Handshake
from protocol.transport.liveness import Liveness
from protocol.transport.mtu import PathMtu
from protocol.transport.packets import CloseCode
from protocol.transport.paths import Paths
from protocol.transport.receiving import ReceiveStream
from protocol.transport.recovery import DATAGRAM_SIZE_BASE, AckViolation, Outcome, Recovery
from protocol.transport.sending import SEND_BACKLOG_MAX, SendStream
from protocol.transport.vigil import Vigil

log = mishaps.logger("transport")

ACK_DELAY_BELIEVED = 1.0  # seconds: it may claim any


class State(enum.Enum):
    """Where a connection stands in its life."""

    CONNECTING = "connecting"  # our INIT is under way
    HANDSHAKE = "handshake"  # their INIT was answered; nothing came since
    ESTABLISHED = "established"
    CLOSING = "closing"
    DRAINING = "draining"
    CLOSED = "closed"


class Established(NamedTuple):
    """The handshake is done."""

    connection: Connection


class FrameReceived(NamedTuple):
    """A whole frame, in the order sent."""

    connection: Connection
    kind: int
    body: bytearray


class BacklogDrained(NamedTuple):
    """The backlog fell to one of sending.BACKLOG_LOWS, or below."""

    connection: Connection


class PathChanged(NamedTuple):
    """The other end has another address from now on, and was asked there; `address` of the connection is that one."""

    connection: Connection
    before: Address


class ConnectionLost(NamedTuple):
    """The end, once for each connection. `is_clean`: both sides got everything that was sent."""

    connection: Connection
    reason: str
    is_clean: bool


class Connection:
    """One end of a connection."""

    recovery_class: Type[Recovery] = Recovery
    datagram_reserved = 0  # bytes of each datagram that the endpoint adds
    remote_fingerprint: Optional[bytes] = None  # SHA-256 of its certificate; in an open network nobody shows one

    def __init__(
        self, endpoint: Any, address: Address, local_id: bytes, is_client: bool, first_number: int, now: float
    ) -> None:
        self.endpoint = endpoint  # an `Endpoint`: its events, rng and limits
        self.address = address
        self.local_id = local_id
        self.remote_id = b""
        self.is_client = is_client
        self.state = State.CONNECTING if is_client else State.HANDSHAKE
        self.sending, self.receiving = self._new_streams()
        self.recovery = self.recovery_class(first_number, endpoint.new_controller(DATAGRAM_SIZE_BASE))
        self.first_number = first_number
        self.mtu = PathMtu(is_loopback(address[0]), self.datagram_reserved)
        self.flight = Flight(address, self.sending, self.recovery, self.mtu, endpoint)
        self.liveness = Liveness(is_client, now)
        rtt, intake = self.recovery.rtt, endpoint.intake
        self.arrival = Arrival(self.receiving, intake, self.liveness, rtt, endpoint.stats, now)
        self.acknowledging = self.arrival.acknowledging
        self.vigil = Vigil(self.sending, self.receiving, self.recovery, self.liveness, now)
        self.progress = self.vigil.progress
        self.closing = Closing(self.sending, self.receiving, rtt)
        self.handshake = Handshake(local_id if is_client else b"", now)
        self.used_at = now  # when messages went or came last; keep-alives are no use
        self.paths = Paths(endpoint.rng)

    def _new_streams(self) -> Tuple[SendStream, ReceiveStream]:
        return SendStream(self.endpoint.backlogs.memory), self.endpoint.intake.open()

    def __repr__(self) -> str:
        return f"<Connection to {shown(self.address)} {self.state.value}>"

    # ---- what the endpoint's user does

    @property
    def datagram_size(self) -> int:
        """Bytes of UDP payload in the largest datagrams that this side sends now."""
        return self.mtu.size

    @property
    def backlog(self) -> int:
        """Bytes handed over that the other side has not acknowledged."""
        return self.sending.backlog

    @property
    def taking_at(self) -> float:
        """When the other side last took something of what waits for it (see `Progress`); infinite: nothing does."""
        return self.progress.at if self.sending.backlog else math.inf

    @property
    def is_settled(self) -> bool:
        """Is there nothing more to wait for before the socket closes?"""
        return self.state is State.CLOSED or self.closing.has_answered

    def figures(self) -> PathFigures:
        """How the path does, for a person; from any thread."""
        return self.flight.figures(self.first_number, self.receiving)

    def send_frame(self, kind: int, *parts: Buffer, is_bulk: bool = False) -> bool:
        """Queue one frame; False, and nothing, once the connection ends. ValueError when it is over FRAME_SIZE_MAX.

        `is_bulk`: the last part carries a digest of its own, so that its packets need no checksum over them.
        """
        if sum(len(part) for part in parts) > FRAME_SIZE_MAX:
            raise ValueError(f"a message of more than {FRAME_SIZE_MAX} bytes")
        if self.backlog > SEND_BACKLOG_MAX:
            self.fail(CloseCode.LIMIT, "does not take what is sent to it", self.endpoint.now)
        is_open = self.state in (State.CONNECTING, State.HANDSHAKE, State.ESTABLISHED)
        if not is_open or self.closing.reason is not None:
            return False
        was_idle = not self.sending.backlog
        self.sending.write_frame(kind, *parts, is_bulk=is_bulk)
        if was_idle:
            self.progress.note(max(self.progress.at, self.endpoint.now))
        self.used_at = self.endpoint.now
        self.endpoint.backlogs.keep_within(self.endpoint.now)
        self.endpoint.touch(self)
        return True

    def check_bulk(self) -> None:
        """Let checksums cover bulk, too, from now on: what arrived once was damaged."""
        self.flight.check_bulk()

    def consume(self, body_size: int) -> None:
        """The user is done with a frame of that body: its bytes may be replaced by others (flow control)."""
        self.arrival.consume(body_size)
        self.endpoint.touch(self)

    def shut_down(self, reason: str) -> None:
        """Orderly end: deliver what was sent, then close."""
        if self.closing.reason is None:
            self.closing.want(reason)
            self.endpoint.touch(self)

    def fail(self, code: int, reason: str, now: float) -> None:
        """End at once and say why; what was not delivered is lost."""
        if self.state in (State.CLOSING, State.DRAINING, State.CLOSED):
            return
        if self.state is State.CONNECTING:
            self._end(reason, False)
            return
        self._begin_closing(code, reason, now)
        self._tell_lost(reason, False)

    def give_up(self, reason: str, now: float) -> None:
        """As `fail`, but told only when the other side has said what it took, or three tries are over."""
        if self.state in (State.HANDSHAKE, State.ESTABLISHED):
            self.closing.want(reason)
            self._begin_closing(CloseCode.ABANDONED, reason, now)
        else:
            self.fail(CloseCode.ABANDONED, reason, now)

    def drop(self, reason: str) -> None:
        """The socket is gone: over at once, and nobody is told but the owner."""
        if self.state is not State.CLOSED:
            self.closing.abandon()
            self._end(self.closing.reason or reason, False)

    # ---- state

    def _set_state(self, state: State) -> None:
        self.state = state
        if state in (State.CLOSING, State.DRAINING, State.CLOSED):
            self.sending.release()  # nothing of it is sent any more: others may use the room
        if state is State.ESTABLISHED:
            self.endpoint.events.append(Established(self))
            log.info("connected %s %s", "to" if self.is_client else "by", shown(self.address))
        elif state is State.CLOSED:
            self.arrival.end()
            self.endpoint.forget(self)

    def _tell_lost(self, reason: str, is_clean: bool) -> None:
        if self.closing.tell():
            self.endpoint.events.append(ConnectionLost(self, reason, is_clean))
            ended = "closed" if is_clean else "NOT cleanly closed"
            log.info("connection to %s %s: %s (%s)", shown(self.address), ended, reason or "no reason", self.figures())

    def _end(self, reason: str, is_clean: bool) -> None:
        self._tell_lost(reason, is_clean)
        self._set_state(State.CLOSED)

    def _begin_closing(self, code: int, reason: str, now: float) -> None:
        self.closing.begin(self.remote_id, code, reason, now)
        self._set_state(State.CLOSING)
        self.endpoint.touch(self)  # whoever asked for it: the CLOSE goes out now, not at the next alarm

    # ---- handshake

    def on_init_ack(self, packet: wire.InitAckPacket, now: float) -> None:
        """The other side has taken us; its INIT_ACK is also the first sample of the round trip."""
        round_trip = self.handshake.on_init_ack(packet.reset_token, now)
        if round_trip is not None:
            self.recovery.rtt.on_sample(round_trip, 0.0)
        self._meet(packet.server_id, packet.first_packet_number, packet.credit)
        self.flight.owe_ping()  # the other side believes in us when something comes back to its id
        self._establish(now)

    def accept_init(self, packet: wire.InitPacket) -> None:
        """The server's side of the handshake: the address has proved itself."""
        self.handshake.accept(packet)
        self._meet(packet.client_id, packet.first_packet_number, packet.credit)

    def _meet(self, remote_id: bytes, first_number: int, credit: int) -> None:
        """Now the other side is known: by which id, with which number it begins, how far it lets us send."""
        self.remote_id = remote_id
        self.acknowledging.begin(first_number)
        self.flight.meet(remote_id, credit)
        self.paths.meet(remote_id, self.handshake.remote_token)
        self.endpoint.know_remote(self)

    def _on_alive(self, now: float) -> None:
        self.liveness.heard(now)
        if self.state is State.HANDSHAKE:
            self._establish(now)

    def _establish(self, now: float) -> None:
        self.vigil.begin(now)
        self._set_state(State.ESTABLISHED)
        self.flight.search_mtu()

    # ---- another address

    def move(self, address: Address, now: float) -> None:
        """The other side has shown that it is there, and no more where it was; only its port may be another."""
        self.address = address
        self.flight.move(address, now)
        self.acknowledging.hasten(now)  # what was said last may have gone to where nobody is any more
        self.liveness.heard(now)

    def give_sign(self, now: float) -> None:
        """This side may have another address: the other one shall see something of it soon."""
        if self.state is State.ESTABLISHED:
            self.paths.on_own_address_changed(now)
            self.ask_sign()

    def ask_sign(self) -> None:
        """The other side shall say that it is there: a PING, which its transport acknowledges at once."""
        if self.state is State.ESTABLISHED:
            self.flight.owe_ping()
            self.endpoint.touch(self)

    # ---- received packets

    def on_run(self, run: wire.BulkRun, payloads: List[memoryview], now: float) -> None:
        """A run of BULK packets: at once where all of them are new, else one by one."""
        if self.state is State.ESTABLISHED and self.arrival.on_run(run, payloads, now):
            self._hand_out(now)
        else:
            for packet in run.one_by_one(payloads):
                self.on_data(*packet, now)

    def on_data(self, number: int, oldest: int, offset: int, payload: memoryview, now: float) -> None:
        """A DATA packet; `payload` is only valid during the call. WireError: it has no data."""
        if self.state in (State.CLOSING, State.DRAINING):
            self.closing.say_again(now)
        elif self.arrival.on_data(number, oldest, offset, payload, now):
            if self.state is State.HANDSHAKE and not self.arrival.violation:
                self._establish(now)
            self._hand_out(now)

    def _hand_out(self, now: float) -> None:
        """Tell of the frames that are whole; of a violation, too, but first of what was whole before it."""
        self.used_at = now
        if self.arrival.frames:
            for frame in self.arrival.take():
                self.endpoint.events.append(FrameReceived(self, frame.kind, frame.body))
            if self.endpoint.intake.is_full():
                self.fail(CloseCode.LIMIT, "sent more messages than anybody reads", now)
        if self.arrival.violation:
            self.fail(CloseCode.PROTOCOL, self.arrival.violation, now)

    def on_ping(self, number: int, oldest: int, now: float) -> None:
        """A PING, which is answered by an acknowledgement at once."""
        if self.state in (State.CLOSING, State.DRAINING):
            self.closing.say_again(now)
        elif self.arrival.on_ping(number, oldest, now):
            self._on_alive(now)

    def on_ack(self, packet: wire.AckPacket, now: float) -> None:
        """What arrived there, and how far we may send (RFC 9002 §5 to §7). A lie about it ends the connection."""
        if self.state in (State.DRAINING, State.CLOSED):
            return
        self._on_alive(now)
        self.vigil.on_credit(packet.credit, now)
        try:
            delay = min(packet.delay_us / 1e6, ACK_DELAY_BELIEVED)
            outcome = self.recovery.on_ack(packet.ranges, delay, now)
        except AckViolation as violation:
            self.fail(CloseCode.PROTOCOL, str(violation), now)
            return
        self._on_outcome(outcome, now)
        if self.paths.take_new():  # the other end has seen that it is there, and takes in what comes from there
            self.flight.begin_path(now)

    def _on_outcome(self, outcome: Outcome, now: float) -> None:
        self.flight.on_outcome(outcome, now)
        self.progress.on_acknowledged(now)
        if self.sending.has_drained():
            self.endpoint.events.append(BacklogDrained(self))

    def on_close(self, packet: wire.ClosePacket, now: float) -> None:
        """The other side closes: an answer to our own CLOSE, or the first word of it (RFC 9000 §10.2)."""
        if self.state is State.CLOSING:
            self.closing.on_close(packet)
            self._end(self.closing.reason or packet.reason, self.closing.is_done)
            return
        if self.state in (State.DRAINING, State.CLOSED):
            self.closing.say_again(now)
            return
        self.closing.drain(self.remote_id, packet, now)
        self._set_state(State.DRAINING)
        if self.closing.is_undelivered_sure:
            self._answer_close(now)  # else they say it again, with a FINAL that we did not get

    def _answer_close(self, now: float) -> None:
        """Everything about the end is known that ever will be: tell it, and let them go."""
        self._tell_lost(self.closing.answer(now), self.closing.is_clean)

    def on_final(self, packet: wire.FinalPacket, now: float) -> None:
        """What the remote took in, as it closes: it counts as acknowledged."""
        if packet.received > self.sending.sent_to:
            raise fields.WireError("took in more than was sent")
        if self.state is State.CLOSED:
            return
        self.closing.on_final(packet.received)
        if self.closing.owes_answer:
            self._answer_close(now)

    def on_reset(self, now: float) -> None:
        """The remote has no memory of this connection, and proved that it is the remote."""
        if self.state in (State.CLOSING, State.DRAINING):
            self._end(self.closing.reason or "", False)
        elif self.state is not State.CLOSED:
            self._end("it has lost its memory of us (restarted)", False)

    # ---- time

    def next_deadline(self) -> float:
        """When on_timeout wants to be called, and next_batch behind it."""
        if self.state is State.CONNECTING:
            return min(self.handshake.init_at, self.handshake.deadline)
        if self.state in (State.CLOSING, State.DRAINING):
            return min(self.closing.say_at, self.closing.end_at)
        if self.state is State.CLOSED:
            return math.inf
        deadline = self.handshake.deadline if self.state is State.HANDSHAKE else self.mtu.again_at
        return min(deadline, self.recovery.next_deadline(), self.vigil.next_deadline(), self.paths.next_deadline())

    def next_turn(self) -> float:
        """When next_batch alone wants to be called: an acknowledgement is due, or data waits for the pacer only."""
        if self.state is State.ESTABLISHED and self.flight.may_send(-math.inf):
            return min(self.acknowledging.due_at, self.flight.pacer.next_at)
        return self.acknowledging.due_at if self.state in (State.ESTABLISHED, State.HANDSHAKE) else math.inf

    def on_timeout(self, now: float) -> None:
        """Do what time asks for; packets come out of next_batch."""
        if self.state in (State.CONNECTING, State.HANDSHAKE) and now >= self.handshake.deadline:
            self._end("timed out" if self.is_client else "did not finish its handshake", False)
        elif self.state in (State.CLOSING, State.DRAINING):
            if now < self.closing.end_at:
                return
            if self.closing.owes_answer:
                self._answer_close(now)
            else:
                self._end(self.closing.reason or "", self.closing.is_done)
        elif self.state in (State.HANDSHAKE, State.ESTABLISHED):
            self._on_live_timeout(now)

    def _on_live_timeout(self, now: float) -> None:
        """Between handshake and end: give the other side up, or do what is due on the way to it."""
        failure = self.vigil.failure(now)
        if failure is not None:
            self.fail(*failure, now)
            return
        address = self.paths.found(now)
        if address is not None:
            self.endpoint.move(self, address, now)
        if now >= self.recovery.next_deadline():
            outcome, is_probe_time = self.recovery.on_timeout(now)
            self._on_outcome(outcome, now)
            if is_probe_time:
                self.flight.owe_probes()
        if self.vigil.is_silent(now):
            self.flight.owe_ping()
        if now >= self.mtu.again_at:
            self.flight.search_mtu()
        if self.vigil.is_credit_wanted(now):
            self.flight.owe_ping()

    # ---- what to send

    def next_batch(self, now: float) -> Optional[Batch]:
        """The next datagrams to send, or None until the next deadline, packet or call."""
        if self.state is State.ESTABLISHED or self.state is State.HANDSHAKE:
            self.arrival.raise_credit(now)
        make = self._waiting(now)
        return make(now) if make is not None else None

    def may_have_more(self, now: float) -> bool:
        """Behind a batch: is next_batch to be asked again at once? As a rule nothing waits."""
        return self._waiting(now) is not None

    def _waiting(self, now: float) -> Optional[MakesBatch]:
        """What makes the next batch, in the order in which all goes out; None: nothing waits."""
        is_established = self.state is State.ESTABLISHED
        if not is_established and self.state is not State.HANDSHAKE:
            if self.state is State.CONNECTING:
                return self._init_batch
            return self._close_batch if self.state is not State.CLOSED else None
        if self.paths.to_ask(self.address, now) is not None:
            return self._challenge_batch
        # Acknowledgements first: they are small, and somebody waits; before a CLOSE for all that came until then.
        is_leaving = self.closing.reason is not None and not self.sending.backlog
        if now >= self.acknowledging.due_at or (is_leaving and self.acknowledging.due_at < math.inf):
            return self._ack_batch
        if not is_established:
            return None  # half open: it gets nothing but INIT_ACK until it has used its connection id
        if is_leaving:
            return self._leave
        make = self.flight.waiting(now)
        if make is None and (self.progress.ask_at < math.inf or self.sending.is_blocked()):
            return self._credit_batch
        return make

    def _init_batch(self, now: float) -> Optional[Batch]:
        if now < self.handshake.init_at:
            return None
        token = self.endpoint.reset_token(self.local_id)
        packet = self.handshake.next_init(self.first_number, self.receiving.credit, token, now)
        return lone_batch(self.address, wire.encode_init(packet))

    def _challenge_batch(self, now: float) -> Optional[Batch]:
        address = self.paths.to_ask(self.address, now)
        return lone_batch(address, self.paths.ask(address, now)) if address is not None else None

    def _ack_batch(self, now: float) -> Batch:
        return lone_batch(self.address, self.arrival.ack(self.remote_id, now))

    def _credit_batch(self, now: float) -> Optional[Batch]:
        return self.flight.ping_batch(now) if self.vigil.is_credit_wanted(now) else None

    def _leave(self, now: float) -> Optional[Batch]:
        self._begin_closing(CloseCode.DONE, self.closing.reason or "", now)
        return self._close_batch(now)

    def _close_batch(self, now: float) -> Optional[Batch]:
        packet = self.closing.next_packet(now)
        return lone_batch(self.address, packet) if packet is not None else None
