"""Messages and a file over a bad path: what arrives must be what was sent, and the speed is told.

Expects: all messages once and in order, and one file with equal SHA-256, although a forwarder between the two ends
loses, repeats, delays and damages datagrams by the dice of --seed, and carries none longer than Ethernet does.
Without --port both ends are here, on loopback; with it the first of two such scripts is the receiving end, and the
second sends by way of its own forwarder.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import heapq
import random
import selectors
import socket
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Counter, Dict, List, Optional, Tuple

from stage import scenario
from stage.scenario import Failed, expect, rdt, say

Address = Tuple[str, int]
MESSAGES = 100
DELAY_MAX = 0.004  # seconds that a datagram out of order comes late
BUFFER_SIZE = 4 << 20  # of the sockets, so that hardly anything is lost but by the dice


def body(arguments: argparse.Namespace) -> None:
    expect(arguments.ip, "--ip has to say where; only nodes search a network")
    try:
        if arguments.port == 0:
            both_ends(arguments)
            return
        try:
            transport = rdt.open(arguments.ip, arguments.port)
        except rdt.RdtError as error:
            say("%s: this end sends" % error)
            send_to((arguments.ip, arguments.port), arguments)
            return
        with transport:
            say("ready at %s:%d" % transport.address)
            scenario.ask_for("node_lossy.py", arguments, "--loss %g" % arguments.loss)
            receive_all(transport, arguments)
    except rdt.RdtError as error:
        raise Failed(str(error)) from error


def both_ends(arguments: argparse.Namespace) -> None:
    """The receiving end on a thread of its own, the sending end here."""
    with rdt.open(arguments.ip, 0) as transport, ThreadPoolExecutor(1) as pool:
        receiving = pool.submit(receive_all, transport, arguments)
        send_to(transport.address, arguments)
        receiving.result(arguments.timeout)


# ---- the two ends -------------------------------------------------------------------------------------------------


def receive_all(transport: rdt.Transport, arguments: argparse.Namespace) -> None:
    """Messages in order, then a file; the digest of it goes back."""
    connection = transport.accept(arguments.timeout)
    for number in range(MESSAGES):
        text = connection.receive(arguments.timeout)
        expect(text == message(number), "message %d came as %r" % (number, text[:40]))
    say("all %d messages came once and in order" % MESSAGES)
    receipt = connection.accept_file(arguments.folder, timeout=arguments.timeout)
    say("took %d bytes in %.2f s, SHA-256 %s" % (receipt.size, receipt.seconds, receipt.sha256))
    expect(scenario.file_sha256(receipt.path) == receipt.sha256, "what was kept is not what the receipt says")
    connection.send(receipt.sha256.encode())
    with contextlib.suppress(rdt.RdtError):  # the sender closes
        connection.receive(arguments.timeout)


def send_to(target: Address, arguments: argparse.Namespace) -> None:
    """The same from the other side, by way of the forwarder if there is to be loss."""
    if not arguments.loss:
        send_all(target, arguments)
        return
    with Forwarder(target, arguments.loss, arguments.datagram, random.Random(arguments.seed)) as forwarder:
        say("by way of a forwarder that loses %g %% (seed %d)" % (arguments.loss * 100, arguments.seed))
        send_all(forwarder.address, arguments)
        say("the forwarder: %s" % ", ".join("%d %s" % (count, what) for what, count in sorted(forwarder.stats.items())))
    expect(forwarder.stats["lost"], "nothing was lost: the path was not bad at all")


def send_all(target: Address, arguments: argparse.Namespace) -> None:
    """Messages, a file, and the comparison of the digests."""
    path = scenario.make_file(arguments.folder, arguments.seed, arguments.size)
    with rdt.open("", 0) as transport:
        connection = transport.connect(target, timeout=arguments.timeout)
        for number in range(MESSAGES):
            connection.send(message(number))
        receipt = connection.send_file(path, timeout=arguments.timeout)
        expected = scenario.content_sha256(arguments.seed, arguments.size)
        expect(receipt.sha256 == expected, "the receipt is for another content")
        expect(connection.receive(arguments.timeout).decode() == expected, "the other end kept another content")
        rate = receipt.size / max(receipt.seconds, 1e-6) / 1e6
        say("sent %d bytes in %.2f s: %.1f MB/s at %g %% loss" % (
            receipt.size, receipt.seconds, rate, arguments.loss * 100))
        say("dropped here: %s" % (transport.stats() or "nothing"))
        transport.disconnect(connection)


def message(number: int) -> bytes:
    """Of growing length, so that some take several datagrams."""
    return b"message %d " % number + b"." * (number * 40)


# ---- the bad path -------------------------------------------------------------------------------------------------


class Forwarder:
    """A UDP proxy on loopback for whoever sends to it: it loses, repeats, delays and damages by its dice."""

    def __init__(self, target: Address, loss: float, size_max: int, rng: random.Random) -> None:
        self.stats: Counter[str] = collections.Counter()
        self._target, self._size_max, self._rng = target, size_max, rng
        self._chances = (("lost", loss), ("repeated", loss / 2), ("late", loss), ("damaged", loss / 10))
        self._front = self._socket("127.0.0.1")
        self.address: Address = self._front.getsockname()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._front, selectors.EVENT_READ)
        self._backs: Dict[Address, socket.socket] = {}  # by the address of the one who sends through us
        self._late: List[Tuple[float, int, socket.socket, bytes, Address]] = []  # heap: due, tie, how, what, where to
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="forwarder", daemon=True)

    def __enter__(self) -> Forwarder:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join(2.0)
        for sock in [self._front, *self._backs.values()]:
            sock.close()
        self._selector.close()

    def _socket(self, ip: str) -> socket.socket:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, option, BUFFER_SIZE)
        sock.bind((ip, 0))
        sock.setblocking(False)
        return sock

    def _run(self) -> None:
        while not self._is_over.is_set():
            for key, _ in self._selector.select(self._patience()):
                self._take_from(key.fileobj, key.data)  # type: ignore[arg-type]
            while self._late and self._late[0][0] <= time.monotonic():
                self._send(*heapq.heappop(self._late)[2:])

    def _patience(self) -> float:
        return min(max(self._late[0][0] - time.monotonic(), 0.0), 0.1) if self._late else 0.1

    def _take_from(self, sock: socket.socket, client: Optional[Address]) -> None:
        for _ in range(64):
            try:
                data, sender = sock.recvfrom(65535)
            except OSError:  # nothing more, or an earlier send found nobody
                return
            if client is None:
                self._pass_on(self._back_for(sender), data, self._target)
            else:
                self._pass_on(self._front, data, client)

    def _back_for(self, client: Address) -> socket.socket:
        if client not in self._backs:
            self._backs[client] = self._socket("127.0.0.1" if self._target[0].startswith("127.") else "")
            self._selector.register(self._backs[client], selectors.EVENT_READ, client)
        return self._backs[client]

    def _pass_on(self, sock: socket.socket, data: bytes, address: Address) -> None:
        """Throw the dice for one datagram; they are thrown alike for each, whatever they show."""
        if len(data) > self._size_max:
            self.stats["too long"] += 1
            return
        fate = {what for what, chance in self._chances if self._rng.random() < chance}
        place, change, delay = self._rng.randrange(max(len(data), 1)), self._rng.randrange(1, 256), self._rng.random()
        self.stats.update(fate if "lost" not in fate else ["lost"])
        self.stats["taken"] += 1
        if "lost" in fate:
            return
        if "damaged" in fate and data:
            data = data[:place] + bytes([data[place] ^ change]) + data[place + 1 :]
        if "repeated" in fate:
            self._send(sock, data, address)
        if "late" in fate:
            due = time.monotonic() + delay * DELAY_MAX
            heapq.heappush(self._late, (due, self.stats["taken"], sock, data, address))
        else:
            self._send(sock, data, address)

    def _send(self, sock: socket.socket, data: bytes, address: Address) -> None:
        try:
            sock.sendto(data, address)
        except OSError:
            self.stats["not sent"] += 1  # one loss more


if __name__ == "__main__":
    parser = scenario.parser_for(__doc__, port=0)
    parser.add_argument("--loss", type=float, default=0.05, help="part of the datagrams that is lost (default 0.05)")
    parser.add_argument("--seed", type=int, default=7, help="of the dice and of the content (default %(default)d)")
    parser.add_argument("--datagram", type=int, default=1472, help="bytes that the path carries (default %(default)d)")
    parser.add_argument("--size", type=int, default=20_000_000, help="bytes of the file (default %(default)d)")
    sys.exit(scenario.run(__doc__, body, parser))
