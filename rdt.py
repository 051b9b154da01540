"""A reliable transport over UDP, as a program sees it: one socket, its thread, and the verbs.

    transport = rdt.open("127.0.0.1", 0)                    # binds, starts its network thread
    connection = transport.connect((ip, port))              # or transport.accept(), transport.accept_all()
    connection.send(b"..."); connection.receive()           # whole messages, in order
    connection.send_file(path); connection.accept_file(folder)
    transport.broadcast(b"..."); transport.disconnect(connection); transport.close()

Every verb may be called from any thread, and by several at once: each message and each file goes to one of them, whole.
Every timeout is in seconds; None is no limit. Every failure is an `RdtError` that names the other side and the cause;
a call that cannot be right (text instead of bytes, a port where the timeout stands) is a `WrongUse`, at once.

*Delivered* is what the other side's transport has taken in whole: its program has received it or still can, even after
the end. (Whether a program did something with a message, only an answer can tell; `send_file` waits for one.) What was
sent and not delivered is told by `disconnect` and `close`, as "5 bytes were not delivered"; "were perhaps not
delivered" where the other side fell silent, so that nobody can know.

How it works lies in `protocol/transport/` (sliding window, loss detection, congestion control); the socket, the one
thread that owns it and every connection, and the queues between that thread and the callers are in `sockets/`. Here are
the verbs: what each promises, and what a caller hands in and is told.

Roles do not block on verbs: `Links` gives them the same connections as numbered links and events.
"""

from __future__ import annotations

import os
import random
import time
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple

from disk.sequential import SequentialReader, SequentialWriter, path_text
from disk.tracing import TraceFile
from protocol.addresses import shown
from protocol.content.troubles import LibraryError
from protocol.credentials import Credentials
from protocol.fields import Buffer
from protocol.transport import controllers
from protocol.transport.frames import FRAME_SIZE_MAX, MESSAGE_SIZE_MAX
from sockets.arguments import WrongUse, deadline_of, message_of, port_of, resolved, seconds_of
from sockets.channel import BACKLOG_HIGH as BACKLOG_HIGH  # what the docstrings name can be had here
from sockets.channel import Channel
from sockets.files import Files, Offer, Progress
from sockets.hub import BROADCAST_HIGH as BROADCAST_HIGH
from sockets.hub import Hub
from sockets.links import Links as Links
from sockets.messages import Messages
from sockets.thread import NetworkThread
from sockets.udp import NO_OFFLOAD as NO_OFFLOAD
from sockets.udp import RdtError

TRACE = "RDT_TRACE"  # in the environment: a file for the packets of every transport (protocol/transport/trace.py)
LEAVE_TIME = 10.0  # seconds that `with` gives a connection to deliver what was sent

Path = Any  # text, bytes or a pathlib.Path


class FileReceipt(NamedTuple):
    """A file that was verified and kept at the other side (send_file) or here (accept_file)."""

    path: str
    size: int  # bytes
    sha256: str  # of the content, in hex
    seconds: float


def open(  # noqa: A001  the course's verb
    ip: str = "", port: int = 0, controller: str = controllers.DEFAULT, credentials: Optional[Credentials] = None
) -> Transport:
    """Bind a socket at that address (empty: every interface; port 0: a free one) and start its network thread.

    `transport.address` is where it is. `controller` is the congestion controller of what this side sends: "cubicq", or
    the plain "newreno". With `credentials` (of `disk/credentials.py`) it speaks to transports of the same key only:
    all is encrypted then, and who has not the key cannot connect.

    RdtError when the port is taken or the address is none of this machine; WrongUse when they are
    no address and no port, or no controller has that name.
    """
    if not isinstance(ip, str):
        raise WrongUse(f'cannot open {ip!r}: it is rdt.open("127.0.0.1", 6020)')
    if not isinstance(controller, str) or controller not in controllers.CONTROLLERS:
        names = ", ".join(controllers.CONTROLLERS)
        raise WrongUse(f"{controller!r} is no congestion controller; there are: {names}")
    number = port_of(port, f"cannot open {shown((ip, port))}")
    transport = Transport(ip, number, controller=controller, credentials=credentials)
    transport.start()
    return transport


def open_network(
    ip: str = "",
    port: int = 0,
    clock: Callable[[], float] = time.monotonic,
    rng: Optional[random.Random] = None,
    controller: str = controllers.DEFAULT,
    trace: str = "",
    credentials: Optional[Credentials] = None,
) -> NetworkThread:
    """Bind a socket there, and make its thread, to be started by who has it: for a `Transport`, or for `Links`.

    With `credentials` it speaks to those of the same key only (`protocol/credentials.py`), and to nobody else.
    It tells its packets to the file `trace`, or to the one that RDT_TRACE names. RdtError when the port is taken, the
    address is none of this machine, or that file cannot be written.
    """
    file = _open_trace(trace or os.environ.get(TRACE, ""))
    try:
        return NetworkThread(ip, port, clock, rng, controller, file, credentials)
    except BaseException:
        if file is not None:
            file.close()
        raise


def _open_trace(path: str) -> Optional[TraceFile]:
    try:
        return TraceFile(path) if path else None
    except OSError as error:
        raise RdtError(f"cannot trace to {path}: {error.strerror or error}") from error


# ---- a transport


class Transport:
    """One UDP socket and the thread that owns it; made by `open`."""

    def __init__(
        self,
        ip: str = "",
        port: int = 0,
        clock: Callable[[], float] = time.monotonic,
        rng: Optional[random.Random] = None,
        controller: str = controllers.DEFAULT,
        trace: str = "",
        credentials: Optional[Credentials] = None,
    ) -> None:
        self._network = open_network(ip, port, clock, rng, controller, trace, credentials)
        self.address = self._network.address
        self._hub = Hub(self._network)

    def start(self) -> None:
        """Start the network thread; `open` has done it."""
        self._network.start()

    def __enter__(self) -> Transport:
        return self

    def __exit__(self, kind: Any, *_: object) -> None:
        try:
            self.close()
        except RdtError:
            if kind is None:  # else the error that led here is the one to see
                raise

    def connect(self, address: Tuple[str, int], timeout: Optional[float] = 5.0) -> Connection:
        """Open a connection to the transport at `(host, port)`, and return when the other side has answered.

        Of a name with several addresses the next is called as well when one has not answered for a moment (RFC 8305),
        and the first that answers is taken. The other side finds it by `accept` a moment later. RdtError when nobody
        answers in time, all refuse, no such machine is known, or this transport is or gets closed. WrongUse when it
        is no such pair.
        """
        self._network.check_open()
        found = resolved(address)
        whom = shown(found[0] if len(found) == 1 else (address[0], found[0][1]))
        return Connection(self, self._hub.connect(found, seconds_of(timeout), whom))

    def accept(self, timeout: Optional[float] = None) -> Connection:
        """The next connection that another side opened, in the order they came; waits for one.

        It may have ended meanwhile: then `receive` gives what came, and then the end. RdtError when none came in
        time, and at once when this transport is closed, before or meanwhile.
        """
        return self._accept(1, timeout, "nobody connected")[0]

    def accept_all(self, count: int = 0, timeout: Optional[float] = None) -> List[Connection]:
        """Every connection that others opened and that was not accepted yet; may be empty.

        A connection is there when the first packet behind the handshake came, a moment after `connect` returned at
        its other side. `count` waits for so many and returns them: RdtError when they are fewer in time (they stay,
        for the next to accept), or when this transport is closed.
        """
        if not isinstance(count, int) or count < 0:
            raise WrongUse(f"{count!r} is no count: accept_all() takes who is there, accept_all(3) waits for three")
        return self._accept(count, timeout, f"fewer than {count} connected")

    def _accept(self, count: int, timeout: Optional[float], what: str) -> List[Connection]:
        return [Connection(self, channel) for channel in self._hub.accept(count, seconds_of(timeout), what)]

    def broadcast(self, data: Buffer, timeout: Optional[float] = 5.0) -> int:
        """Send a message of up to 1 MiB to every open connection; to how many it was handed (0: there is none).

        All get it at once but those with BROADCAST_HIGH bytes waiting: for room there it waits. RdtError names those
        that had none in time, and how many took it; they stay connected. One that ends meanwhile does not count.
        """
        message = message_of(data, FRAME_SIZE_MAX, " to broadcast")
        count, troubles = self._hub.send_to_all(message, deadline_of(timeout))
        if troubles:
            raise RdtError(f"the broadcast went to {count} and not to {len(troubles)}: {'; '.join(troubles)}")
        return count

    def disconnect(self, connection: Connection, timeout: Optional[float] = 10.0) -> None:
        """Close a connection once everything sent is delivered; it returns when the other side knows.

        RdtError says how much was not delivered, in time or before the other side closed or fell silent; the
        connection is over all the same, and asking again tells it again. What came before can still be received.
        WrongUse when it is no connection of this transport.
        """
        if not isinstance(connection, Connection):
            raise WrongUse(f"{connection!r} is no connection: it is transport.disconnect(connection)")
        if connection.transport is not self:
            raise WrongUse(f"{connection!r} is a connection of another transport")
        connection.channel.disconnect(seconds_of(timeout))

    def close(self, timeout: Optional[float] = 10.0) -> None:
        """Disconnect everybody, deliver what was sent, free the port. Every verb that waits comes back with RdtError.

        RdtError says what was not delivered, also of connections that ended earlier unless a verb has said it; the
        transport is closed all the same. Closing once more does nothing but wait for the first.
        """
        troubles = self._hub.close(seconds_of(timeout))
        if troubles:
            raise RdtError("; ".join(troubles))

    def stats(self) -> Dict[str, int]:
        """Counters of what was dropped, refused and failed, by cause."""
        return self._network.stats()


# ---- a connection


class Connection:
    """One open connection; made by Transport.connect and Transport.accept."""

    def __init__(self, transport: Transport, channel: Channel) -> None:
        self.transport = transport
        self.channel = channel  # what the verbs are made of
        self.address = channel.address
        self._messages, self._files = Messages(channel), Files(channel)

    def __repr__(self) -> str:
        return f"<rdt.Connection to {shown(self.address)}>"

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, kind: Any, *_: object) -> None:
        try:
            self.channel.disconnect(LEAVE_TIME)
        except RdtError:
            if kind is None:  # else the error that led here is the one to see
                raise

    def send(self, data: Buffer, timeout: Optional[float] = None) -> None:
        """Send one whole message, of up to 64 MiB; blocks while more than BACKLOG_HIGH bytes wait to be delivered.

        When it returns, the message is under way; `disconnect` and `close` tell if it was not delivered. RdtError when
        there was no room in time, or when the connection is or gets closed, by whichever side: then nothing of it
        will be received. WrongUse when it is no bytes, or too long.
        """
        self._messages.send(message_of(data, MESSAGE_SIZE_MAX), deadline_of(timeout))

    def receive(self, timeout: Optional[float] = None) -> bytes:
        """The next whole message, never a part of one; an empty message is b"", the end of the connection is not.

        RdtError when none came in time, and at the end, whoever closed: first come the messages that had arrived
        before it, then the error, again and again. Where several threads receive, each message goes to one.
        """
        return self._messages.receive(deadline_of(timeout))

    def send_file(
        self, path: Path, progress: Optional[Progress] = None, timeout: Optional[float] = None
    ) -> FileReceipt:
        """Send a file; returns only when the other side has verified and kept it. `progress(bytes done, size)`.

        RdtError when it cannot be read or changes meanwhile, when the other side does not take it (and why), when no
        receipt came in time, when the connection ends first, or when another thread is sending a file here. The other
        side is told, and the connection goes on. What `progress` raises ends it, too. WrongUse when it is no path.
        """
        name = _path(path, progress)
        began, deadline = time.monotonic(), deadline_of(timeout)
        with self._files.sending() as sending:
            try:
                while True:
                    with SequentialReader(name) as reader:
                        digest = sending.send(reader, progress, deadline)
                        if sending.is_kept(digest, deadline):
                            return FileReceipt(reader.path, reader.size, digest, time.monotonic() - began)
            except LibraryError as error:
                sending.give_up(str(error))
                raise RdtError(f"cannot send to {shown(self.address)}: {error}") from error
            except BaseException:
                sending.give_up("the sender gave up")
                raise

    def accept_file(
        self, folder: Path, progress: Optional[Progress] = None, timeout: Optional[float] = None
    ) -> FileReceipt:
        """Take the next file that the other side sends, verify it and keep it in the folder under a safe, free name.

        RdtError when none came whole in time, when it cannot be kept, when the sender gives it up, or when the
        connection ends first: then nothing is left of it, and the sender is told. What `progress` raises ends it, too.
        A receipt is true even where the sender could not be told any more. Where several threads accept, each takes
        a whole file in its turn. WrongUse when the folder is no path.
        """
        place, deadline, damaged = _path(folder, progress), deadline_of(timeout), -1
        with self._files.accepting(deadline):
            while True:
                offer = self._files.next_offer(deadline)
                receipt = self._keep(offer, place, progress, deadline, may_repeat=offer.transfer != damaged)
                if receipt is not None:
                    return receipt
                damaged = offer.transfer

    def _keep(
        self, offer: Offer, folder: str, progress: Optional[Progress], deadline: float, may_repeat: bool
    ) -> Optional[FileReceipt]:
        """Take the file that was offered; None when it came damaged and was asked for once more."""
        began = time.monotonic()
        try:
            with SequentialWriter(folder, offer.name, offer.size) as writer:
                if not offer.receive(writer, progress, deadline):
                    if not may_repeat:
                        raise RdtError(f"the file from {shown(self.address)} arrived damaged")
                    offer.ask_again()
                    return None
                path = writer.finish()
                digest = writer.hexdigest()
        except LibraryError as error:
            offer.refuse(str(error))
            raise RdtError(f"cannot keep the file from {shown(self.address)}: {error}") from error
        except BaseException:
            offer.refuse("the receiver gave up")
            raise
        offer.confirm(digest)
        return FileReceipt(path, offer.size, digest, time.monotonic() - began)


def _path(path: Path, progress: Optional[Progress]) -> str:
    """A path as text, whatever it came as; and `progress` is what can be called."""
    if progress is not None and not callable(progress):
        raise WrongUse(f"{progress!r} cannot be called as progress(bytes done, size)")
    try:
        return path_text(path)
    except (TypeError, ValueError) as error:
        raise WrongUse(f"{path!r} is no path: {error}") from None
