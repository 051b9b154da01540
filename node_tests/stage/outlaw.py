"""Who keeps no rule: strangers on loopback, and a member that says what it likes."""

from __future__ import annotations

import contextlib
import socket

from node_tests.stage.lab import PORT
from protocol import fields, messages
from protocol.content.pieces import digests_of
from protocol.membership.proofs import node_id_of
from protocol.messages import NOWHERE, encode


class Strangers:
    """Sockets of nobody: what they sent and what came back, in bytes."""

    def __init__(self, count):
        self.sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(count)]
        for sock in self.sockets:
            sock.bind(("127.0.0.1", 0))
            sock.setblocking(False)
        self.sent = self.received = 0

    def send(self, number, data, target):
        with contextlib.suppress(OSError):
            self.sent += self.sockets[number % len(self.sockets)].sendto(data, target)

    def listen(self):
        for sock in self.sockets:
            with contextlib.suppress(OSError):
                while True:
                    self.received += len(sock.recv(65_536))

    def close(self):
        for sock in self.sockets:
            sock.close()


class Outlaw:
    """Speaks the messages of the network as it likes; `hears(link, message)` may answer."""

    def __init__(self, lab, number=66, name="x"):
        self.lab, self.world, self.name = lab, lab.world, name
        self.network = lab.world.network(("10.0.0.%d" % number, PORT))
        self.opening = bytes([number]) * 16
        self.node_id = node_id_of(self.opening)
        self.heard, self.lost, self.up, self.served = [], [], set(), []
        self.hears = lambda link, message: None
        lab.world.attach(self.network, self)

    def next_deadline(self):
        return float("inf")

    def on_link_up(self, link, address, incoming, now):
        self.up.add(link)
        if incoming:
            self.served.append(link)

    def on_link_lost(self, link, reason, now):
        self.up.discard(link)
        self.lost.append(reason)

    def on_message(self, link, data, now):
        message = messages.decode(data)
        self.heard.append(message)
        self.hears(link, message)

    def on_lone(self, address, data, now):
        self.heard.append(messages.decode(data))

    def on_writable(self, link, now):
        pass

    def connect(self, node):
        link = self.network.connect((node.ip, PORT))
        assert self.world.run_until(lambda: link in self.up, self.world.now + 1)
        return link

    def say(self, link, *said):
        for message in said:
            self.network.send(link, message if isinstance(message, bytes) else encode(message))

    def join(self, node, **changes):
        """By the protocol; `link` is the one to the supernode."""
        self.link = self.connect(node)
        fields = messages.Join(bytes(16), 0, self.node_id, self.opening, self.name, True, 0)
        self.say(self.link, fields._replace(**changes))
        assert self.world.run_until(lambda: self.all_of(messages.Welcome), self.world.now + 5)
        self.welcome = self.all_of(messages.Welcome)[-1]
        self.lab.run(0.5)
        return self

    def link_to(self, node, node_id=None):
        """A link for pieces."""
        link = self.connect(node)
        self.say(link, messages.LinkHello(messages.PURPOSE_BULK, self.welcome.network_id, node_id or self.node_id))
        self.lab.run(0.1)
        return link

    def all_of(self, kind):
        return [message for message in self.heard if isinstance(message, kind)]

    def live(self, seconds):
        """Time passes, and the supernode hears a sign of us."""
        for _ in range(int(seconds)):
            self.say(self.link, messages.Ping(1, 1))
            self.lab.run(1)


def entry_of(name, file_id=b"f" * 32, size=5):
    return messages.ShareEntry(file_id, size, name, False, 1, size, False)


BAD_NAMES = (
    "../x", "a/../../x", "/etc/x", "..", ".", "", "a//b", "..\\x", "C:evil", "\\\\srv\\s\\x", "\\\\?\\C:\\x",
    "a:stream", "f.txt::$DATA", "CON", "con.txt", "COM1", "LPT\u00b9", "x.", "x ", "a<b", "a*b",
    "a\x00b", "a\nb", "a\tb", "\x1b[2J", "\x9b2J", "a\x7f", "a\u202eb", "a\u2066b", "a\u200bb", "a\u2028b",
    "n" * 241, "n" * 1024, "\u6f22" * 100, ".node",
)  # fmt: skip


def offers_all(x, data):
    """It has everything that anybody looks for, and true lists of pieces."""

    def hears(link, message):
        if isinstance(message, messages.Search):
            x.say(x.link, messages.Offer(message.query_id, message.file_id, message.requester, bytes(8), True, True))
        elif isinstance(message, messages.ManifestRequest):
            x.say(link, messages.ManifestPage(message.file_id, len(data), 0, digests_of(data)))
        elif isinstance(message, messages.PieceMapRequest):
            x.say(link, messages.PieceMap(message.file_id, True, b""))
        elif isinstance(message, messages.PieceRequest):
            x.asked(link, message)

    x.hears = hears
    return x


BAD_PLACES = [
    ("8.8.8.8", 6020), ("0.0.0.0", 6020), ("255.255.255.255", 6020), ("224.0.0.1", 6020), ("10.0.0.255", 6020),
    ("10.0.0.3", 53), ("10.0.0.3", 0), ("2001:4860:4860::8888", 6020),
]  # fmt: skip


def value_for(codec, rng, known):
    """Some value of a field: often one that means something here, else an extreme or a random one."""
    if isinstance(codec, fields.Record):
        return codec.kind(*[value_for(field, rng, known) for field in codec.fields])
    if isinstance(codec, fields.Many):
        return tuple(value_for(codec.item, rng, known) for _ in range(min(codec.most, rng.choice((0, 1, 1, 2, 5)))))
    if isinstance(codec, fields.Number):
        most = 256**codec.size - 1
        fitting = [number for number in known if isinstance(number, int) and number <= most]
        return rng.choice([0, 1, 2, most // 2, most, rng.randrange(most), *fitting])
    if isinstance(codec, fields.Flag):
        return rng.random() < 0.5
    if isinstance(codec, fields.Fixed):
        fitting = [data for data in known if isinstance(data, bytes) and len(data) == codec.size]
        return rng.choice([bytes(codec.size), rng.getrandbits(8 * codec.size).to_bytes(codec.size, "big"), *fitting])
    if isinstance(codec, fields.Text):
        texts = ("", "a", "lab.iso", "../x", "*", "[z-a]", "\u202e", "\ufdfa" * 10, "x" * codec.most)
        return rng.choice(texts)[: codec.most]
    if isinstance(codec, fields.AddressField):
        return rng.choice([("10.0.0.%d" % rng.randrange(1, 70), PORT), ("127.0.0.1", PORT), NOWHERE, *BAD_PLACES])
    sizes = (0, 1, 64, min(codec.most, 1 << 18))
    return rng.choice((b"\xff", b"\x00")) * rng.choice(sizes)


def nonsense(rng, known):
    """A well-formed message that makes no sense, or the head of one."""
    kind = rng.choice([kind for kind in messages.TABLE.values() if kind not in (messages.Join, messages.Leave)])
    data = encode(value_for(messages.record_of(kind), rng, known))
    return data if rng.random() < 0.9 else data[: rng.randrange(len(data))]


NASTY = (
    "\x1b[2J\x1b]52;c;cHduZWQ=\x07", "a\r\n* ana left; you are now the supernode", "\x9b31m", "b\u202ecod.exe\u2066",
    "e" + "\u0301" * 1000, "\u2028OK lab.iso  4.2 GB", "\x00\x7f", "x" * 2048, "\ud7ff\ue000\U000e0041", "<ana> not me",
)  # fmt: skip
