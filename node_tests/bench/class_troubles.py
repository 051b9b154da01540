"""A class in trouble: the scenes of `bench_class.py` in which one host, a port, the switch or all links are bad.

Each scene says in its note what the host that it is about got. Some need `iptables` on this machine.
"""

from __future__ import annotations

import hashlib
import math
import os
import pathlib
import random
import shutil
import socket
import statistics
import struct
import subprocess
import sys
import threading
import time
from typing import Callable, Dict, Iterator, List, Tuple

from node_tests.bench import bench_ends
from node_tests.bench.classroom import HERE, ROUND_MB, SCENE_BOUND, Class, Node, Result, Settings
from node_tests.bench.netlab import run_tool
from protocol.casts import SLICE_SIZE, slices_of
from protocol.content.pieces import piece_size_of
from protocol.fields import WireError
from protocol.transport.casting import SLICE, CastDatagram, decode_cast_header, encode_cast_header

LOSS = 0.01
FLOW_PORT = 5001
FLOW_SETTLE = 1.0  # seconds that the flow has the link alone
PHOTOS, PHOTO_SIZE = 2000, 50_000
FORGED_RATE, FORGED_BURST = 10_000, 100  # datagrams a second; between two looks at the clock
FORGED_WHOLE = 0.1  # part of them that is a whole slice: else they would only fill the cable
CHAT_INTERVAL = 0.5
QUERY_INTERVAL, QUERIES = 1.0, 4  # of the querier, which then falls silent
MEMBERSHIP = 300  # hundredths of a second until a port that says nothing is forgotten
IGMP_QUERY, IGMP_PROTOCOL = 0x11, 2


def slow(settings: Settings, path: str, home: str) -> Result:
    """One host has a tenth of the others' rate."""
    with Class(settings, path, home, [1]) as room:
        one = room.nodes[2]
        room.lan.limit(2, settings.rate / 10)
        meter, began = room.meter(), room.ask()
        result = room.await_done([node for node in room.askers() if node is not one], began, meter)
        at = one.expect("OK " + room.name, bound=SCENE_BOUND)[0]
        allowed, took = settings.size * 8 / (settings.rate * 1e5), at - began
        came = meter.received(1) / settings.size
        return result._replace(note="the slow one: %.1f s, its link allows %.1f s; %.2f files came" % (
            took, allowed, came))  # fmt: skip


def lossy(settings: Settings, path: str, home: str) -> Result:
    """Behind each host's link one in a hundred is lost."""
    with Class(settings, path, home, [1]) as room:
        for host in range(1, room.hosts + 1):
            _drop(room, host, "-m", "statistic", "--mode", "random", "--probability", str(LOSS))
        meter, began = room.meter(), room.ask()
        return room.await_done(room.askers(), began, meter)


def lossy_thirty(settings: Settings, path: str, home: str) -> Result:
    """The same with thirty."""
    return lossy(settings._replace(hosts=31), path, home)


def blocked(settings: Settings, path: str, home: str) -> Result:
    """One port drops all multicast."""
    with Class(settings, path, home, [1]) as room:
        _drop(room, 2, "-d", "239.255.0.0/16")
        one = room.nodes[2]
        meter, began = room.meter(), room.ask()
        result = room.await_done([node for node in room.askers() if node is not one], began, meter)
        at = one.expect("OK " + room.name, bound=SCENE_BOUND)[0]
        return result._replace(note="the one behind the port: %.1f s" % (at - began))


def _drop(room: Class, host: int, *what: str) -> None:
    run_tool(*room.lan.on(host), "iptables", "-A", "INPUT", *what, "-j", "DROP")


def late(settings: Settings, path: str, home: str) -> Result:
    """One asks when the others have half."""
    with Class(settings, path, home, [1]) as room:
        *others, one = room.askers()
        meter, began = room.meter(), room.ask(others)
        room.await_part(meter, 0.5, others)
        asked = room.ask([one])
        result = room.await_done(others, began, meter)
        at = one.expect("OK " + room.name, bound=SCENE_BOUND)[0]
        assert room.has_file(one), "the late one kept another file"
        return result._replace(note="the late one: %.1f s, asked at %.1f s" % (at - asked, asked - began))


def beside(settings: Settings, path: str, home: str) -> Result:
    """A flow of kernel TCP CUBIC into one of the receivers."""
    with Class(settings, path, home, [1], spare=1) as room:
        receiver, sender = 2, room.hosts + 1
        ends = [sys.executable, str(HERE / "bench_class.py")]
        sink = subprocess.Popen([*room.lan.on(receiver), *ends, "tcp-sink", room.lan.ip(receiver)],
                                stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)  # fmt: skip
        flow = None
        try:
            assert sink.stdout is not None and sink.stdout.readline(), "no sink"
            flow = subprocess.Popen([*room.lan.on(sender), *ends, "tcp-flow", room.lan.ip(receiver)])
            time.sleep(FLOW_SETTLE)
            meter, began, before = room.meter(), room.ask(), _came(sink)
            node = room.nodes[receiver]
            at = node.expect("OK " + room.name, bound=SCENE_BOUND)[0]
            share = (_came(sink) - before) * 8 / (settings.rate * 1e6 * (time.monotonic() - began))
            others = [one for one in room.askers() if one is not node]
            result = room.await_done(others, began, meter)
            return result._replace(note="TCP got %.2f of that link, whose host was done in %.1f s" % (
                share, at - began))  # fmt: skip
        finally:
            for process in (flow, sink):
                if process is not None:
                    process.kill()
                    process.wait()


def _came(sink: subprocess.Popen[bytes]) -> int:
    assert sink.stdin is not None and sink.stdout is not None
    sink.stdin.write(b"\n")
    return int(sink.stdout.readline())


def tcp_sink(ip: str) -> None:
    """Takes what comes, and tells on each line how much that is."""
    came = [0]
    with socket.create_server((ip, FLOW_PORT)) as server:
        print("ready", flush=True)
        connection = server.accept()[0]

    def take() -> None:
        buffer = bytearray(1 << 18)
        while True:
            size = connection.recv_into(buffer)
            if not size:
                return
            came[0] += size

    threading.Thread(target=take, daemon=True).start()
    for _ in sys.stdin:
        print(came[0], flush=True)


def tcp_flow(ip: str) -> None:
    """Sends for as long as it is let."""
    with bench_ends.tcp_socket("tcp:cubic") as sock:
        sock.connect((ip, FLOW_PORT))
        while True:
            sock.sendall(bytes(1 << 16))


def sixty(settings: Settings, path: str, home: str) -> Result:
    """Sixty ask at once."""
    with Class(settings, path, home, [1], hosts=61) as room:
        meter, began = room.meter(), room.ask()
        result = room.await_done(room.askers(), began, meter)
        return result._replace(note="%.2f core-seconds each" % (result.cpu / room.hosts))


# ---- switches --------------------------------------------------------------------------------------------------------


def snooping(settings: Settings, path: str, home: str) -> Result:
    """The switch snoops, and its querier goes away in the middle: it forgets all members 3 s later."""
    with Class(settings, path, home, [1], spare=1) as room:
        for name, value in (
            ("mcast_igmp_version", 2), ("mcast_membership_interval", MEMBERSHIP), ("mcast_querier_interval", 25500),
            ("mcast_snooping", 1),
        ):  # fmt: skip
            run_tool("ip", "-n", room.lan.switch, "link", "set", "br0", "type", "bridge", name, str(value))
        ends = [sys.executable, str(HERE / "bench_class.py")]
        querier = subprocess.Popen([*room.lan.on(room.hosts + 1), *ends, "querier", room.lan.ip(room.hosts + 1)])
        try:
            time.sleep(QUERY_INTERVAL * (QUERIES - 1))
            meter, began = room.meter(), room.ask()
            result = room.await_done(room.askers(), began, meter)
            said = sum(node.count("at once") for node in room.nodes.values())
            return result._replace(note="%d lines tell of a cast" % said)
        finally:
            querier.kill()
            querier.wait()


def querier(ip: str) -> None:
    """Asks which groups are listened to, a few times, and then no more."""
    query = struct.pack(">BBH4s", IGMP_QUERY, 10, 0, bytes(4))
    query = query[:2] + struct.pack(">H", _checksum(query)) + query[4:]
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, IGMP_PROTOCOL) as sock:
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(ip))
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 1)
        for _ in range(QUERIES):
            sock.sendto(query, ("224.0.0.1", 0))
            time.sleep(QUERY_INTERVAL)


def flooding(settings: Settings, path: str, home: str) -> Result:
    """The switch floods; a host with a tenth of the rate takes no part, and chats."""
    with Class(settings, path, home, [1], hosts=settings.hosts + 1) as room:
        witness = room.nodes[room.hosts]
        run_tool("ip", "-n", room.lan.switch, "link", "set", "br0", "type", "bridge", "mcast_snooping", "0")
        room.lan.limit(room.hosts, settings.rate / 10)
        askers = [node for node in room.askers() if node is not witness]
        meter, began = room.meter(), room.ask(askers)
        is_over = threading.Event()
        delays: List[float] = []
        talking = threading.Thread(target=lambda: delays.extend(_chat_delays(room.nodes[3], witness, is_over)))
        talking.start()
        result = room.await_done(askers, began, meter)
        is_over.set()
        talking.join()
        return result._replace(note="chat with the one beside: median %.2f s, most %.2f s of %d" % (
            statistics.median(delays), max(delays), len(delays)))  # fmt: skip


def _chat_delays(one: Node, other: Node, is_over: threading.Event) -> Iterator[float]:
    """How long a line takes from each to the other, again and again."""
    number = 0
    while not is_over.is_set():
        for source, target in ((one, other), (other, one)):
            number += 1
            said = time.monotonic()
            source.type("T line%d" % number)
            yield target.expect("<h%d> line%d" % (source.host, number), bound=SCENE_BOUND)[0] - said
        time.sleep(CHAT_INTERVAL)


# ---- a forger --------------------------------------------------------------------------------------------------------


def forged(settings: Settings, path: str, home: str) -> Result:
    """Somebody on the switch sends to the group in the caster's name: every field right, but the bytes."""
    with Class(settings, path, home, [1], spare=1) as room:
        host = room.hosts + 1
        ends = [sys.executable, str(HERE / "bench_class.py"), "forger"]
        forger = subprocess.Popen([*room.lan.on(host), *ends, str(settings.size)], stdout=subprocess.PIPE)
        try:
            meter, began = room.meter(), room.ask()
            result = room.await_done(room.askers(), began, meter)
        finally:
            forger.terminate()
            told = forger.communicate()[0].decode().split()
        memory = max(node.memory() for node in room.nodes.values())
        per_second = int(told[-1]) if told else 0
        return result._replace(note="%d forged a second; %.0f MB resident at most" % (per_second, memory))


def forger(size: str) -> None:
    """Waits for the first datagram of a cast, and forges from then on."""
    device = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))  # type: ignore[attr-defined]
    device.bind(("eth0", 0))
    own = device.getsockname()[4]
    source, group, head = _first_of_a_cast(device)
    rng, piece_size = random.Random(1), piece_size_of(int(size))
    began, count = time.monotonic(), 0
    while True:
        for _ in range(FORGED_BURST):
            datagram = _forged(rng, head, int(size), piece_size)
            device.send(_frame(own, source, group, datagram))
        count += FORGED_BURST
        time.sleep(max(0.0, began + count / FORGED_RATE - time.monotonic()))
        if not count % FORGED_RATE:
            print(round(count / (time.monotonic() - began)), flush=True)


def _first_of_a_cast(device: socket.socket) -> Tuple[bytes, Tuple[bytes, int], CastDatagram]:
    """(sender's IP, group and port, header) of the first slice that comes by."""
    while True:
        frame = device.recv(2048)
        if frame[12:14] == b"\x08\x00" and frame[23] == socket.IPPROTO_UDP and frame[30:32] == b"\xef\xff":
            try:
                head = decode_cast_header(frame[42:])
            except WireError:
                continue
            if head.kind == SLICE:
                return frame[26:30], (frame[30:34], int.from_bytes(frame[36:38], "big")), head


def _forged(rng: random.Random, head: CastDatagram, size: int, piece_size: int) -> bytes:
    """A slice where one can be: the short last one of a piece, or any."""
    piece = rng.randrange(math.ceil(size / piece_size))
    length = min(piece_size, size - piece * piece_size)
    last = slices_of(length) - 1
    place = rng.randrange(last + 1) if rng.random() < FORGED_WHOLE else last
    head = head._replace(piece=piece, offset=place * SLICE_SIZE)
    return encode_cast_header(head) + rng.randbytes(min(SLICE_SIZE, length - place * SLICE_SIZE))


def _frame(own: bytes, source: bytes, group: Tuple[bytes, int], data: bytes) -> bytes:
    """An Ethernet frame with that datagram, by our own card but in the name of `source`."""
    ip, port = group
    mac = b"\x01\x00\x5e" + bytes([ip[1] & 0x7F]) + ip[2:]
    header = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 28 + len(data), 0, 0x4000, 1, socket.IPPROTO_UDP, 0, source, ip)
    header = header[:10] + struct.pack(">H", _checksum(header)) + header[12:]
    return mac + own + b"\x08\x00" + header + struct.pack(">HHHH", 40_000, port, 8 + len(data), 0) + data


def _checksum(data: bytes) -> int:
    """RFC 1071."""
    total = sum(struct.unpack(">%dH" % (len(data) // 2), data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


# ---- a folder of photos ----------------------------------------------------------------------------------------------


def photos(settings: Settings, path: str, home: str) -> Result:
    """Thirty fetch a folder of 2,000 photos of 50 KB."""
    folder = pathlib.Path(home, "h1", "photos")
    folder.mkdir(parents=True)
    for number in range(PHOTOS):
        (folder / ("%04d.jpg" % number)).write_bytes(os.urandom(PHOTO_SIZE))
    size, right = PHOTOS * PHOTO_SIZE, _digest(folder)
    sized = settings._replace(size=size, hosts=31)
    with Class(sized, path, home, [1], name="photos") as room:
        meter, began = room.meter(), room.ask()
        result = room.await_done(
            room.askers(), began, meter, is_right=lambda node: _digest(pathlib.Path(node.folder, "photos")) == right
        )
        shutil.rmtree(folder)
        return result._replace(note="files of %d MB" % (size // ROUND_MB))


def _digest(folder: pathlib.Path) -> str:
    sha256 = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        sha256.update(file.name.encode() + file.read_bytes())
    return sha256.hexdigest()


SCENES: List[Tuple[str, str, Callable[[Settings, str, str], Result]]] = [
    ("slow", "one at a tenth of the rate: the others", slow),
    ("lossy", "1 % lost at each host", lossy),
    ("lossy30", "1 % lost at each host, thirty", lossy_thirty),
    ("blocked", "one port drops multicast: the others", blocked),
    ("late", "one asks at half: the others", late),
    ("beside", "TCP into one: the others", beside),
    ("forged", "forged datagrams to the group", forged),
    ("snooping", "a snooping switch loses its querier", snooping),
    ("flooding", "a flooding switch, a slow one beside", flooding),
    ("photos", "thirty fetch 2,000 photos", photos),
    ("sixty", "sixty ask at once", sixty),
]
ENDS: Dict[str, Callable[..., None]] = {
    "tcp-sink": tcp_sink, "tcp-flow": tcp_flow, "querier": querier, "forger": forger,
}  # fmt: skip
