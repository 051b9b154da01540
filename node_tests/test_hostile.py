"""The program under attack: by strangers on loopback, and by members that keep no rule (THREATS: A, C, D, E, F, G)."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import re
import select
import socket
import threading
import time
from collections import deque
from pathlib import Path

import pytest
from running import Running, free_port
from simulator import Pair

from protocol import connection, streams, wire

MIB = 1 << 20
ON_LINUX = os.path.isdir("/proc/self")


def status_of(pid, field):
    """A number from /proc/<pid>/status: VmRSS and VmHWM in KiB, Threads."""
    text = Path("/proc/%d/status" % pid).read_text()
    found = re.search(r"^%s:\s+(\d+)" % field, text, re.M)
    assert found, text
    return int(found.group(1))


def dropped_by_kernel(port):
    """Datagrams that did not fit into the receive buffer of the socket at this port."""
    lines = Path("/proc/net/udp").read_text().splitlines()[1:]
    return sum(int(line.split()[-1]) for line in lines if line.split()[1].endswith(":%04X" % port))


class Eavesdropper:
    """Stands between one node and another, passes everything on at a bounded rate, and remembers what it saw."""

    def __init__(self, target, bytes_per_second):
        self.target = target
        self.near, self.far = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
        for sock in (self.near, self.far):
            sock.bind(("127.0.0.1", 0))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * MIB)
        self.address = self.near.getsockname()
        self.client = None
        self.seen = deque(maxlen=300)
        self._rate = bytes_per_second
        self._is_over = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._is_over = True
        self._thread.join(5)
        self.near.close()
        self.far.close()

    def _run(self):
        free_at = time.monotonic()
        while not self._is_over:
            for sock in select.select([self.near, self.far], [], [], 0.1)[0]:
                data, address = sock.recvfrom(65_536)
                self.seen.append(data)
                if sock is self.near:
                    self.client = address
                    self.far.sendto(data, self.target)
                elif self.client is not None:
                    self.near.sendto(data, self.client)
                free_at = max(free_at, time.monotonic() - 0.01) + len(data) / self._rate
                if free_at > time.monotonic():
                    time.sleep(free_at - time.monotonic())


def random_datagram(rng):
    """Noise of any length; most of it with a right opening, so that it gets past the checksum."""
    data = bytearray(os.urandom(rng.choice((0, 7, 20, 40, 100, 200, 1400, rng.randrange(9000)))))
    if len(data) >= wire.PREFIX_SIZE and rng.random() < 0.7:
        data[4:6] = bytes([wire.VERSION, rng.randrange(12)])
        wire.seal(data)
    return data


def damaged(data, rng, with_right_checksum):
    """A copy with some bits, bytes or its end changed."""
    copy = bytearray(data)
    for _ in range(rng.randrange(1, 4)):
        place = rng.randrange(min(len(copy), 80)) if rng.random() < 0.7 else rng.randrange(len(copy))
        copy[place] ^= rng.randrange(1, 256)
    if rng.random() < 0.1:
        del copy[rng.randrange(1, len(copy)) :]
    return wire.seal(copy) if with_right_checksum and len(copy) >= wire.PREFIX_SIZE else copy


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


@pytest.mark.skipif(not ON_LINUX, reason="memory and threads of another process are read from /proc")
def test_200_000_datagrams_of_noise_and_damage_during_a_transfer(tmp_path):
    """D01, D02: it ends right, no thread dies, memory stays bounded, and strangers get back less than they sent."""
    seed = random.SystemRandom().randrange(10**6)
    print("seed", seed)
    rng, port = random.Random(seed), free_port()
    content = os.urandom(100_000_000)
    logs = [tmp_path / "ana.log", tmp_path / "bo.log"]
    for name in ("ana", "bo"):
        (tmp_path / name / "shared").mkdir(parents=True)
    (tmp_path / "ana" / "shared" / "lab.iso").write_bytes(content)
    ana_at, flags = ("127.0.0.1", port), ["node_client.py", "--ip", "127.0.0.1", "--port"]
    strangers = Strangers(16)
    with Running(*flags, port, "--name", "ana", "--log", logs[0], cwd=tmp_path / "ana") as ana:
        ana.expect(r"^\* supernode at")
        ana.ask_until("G", "lab.iso")
        with Eavesdropper(ana_at, 12e6) as between, \
                Running(*flags, between.address[1], "--name", "bo", "--log", logs[1], cwd=tmp_path / "bo") as bo:
            bo.expect(r"^\* joined ana's network")
            bo_at = ("127.0.0.1", between.client[1])
            bo.type("R lab.iso")
            bo.ask_until("V", r"receiving +\d+%")
            nodes = [ana.process.pid, bo.process.pid]
            threads = [status_of(pid, "Threads") for pid in nodes]
            memory = [status_of(pid, "VmRSS") for pid in nodes]
            began = time.monotonic()
            for number in range(200_000):
                target = bo_at if number % 3 == 0 else ana_at
                if number % 2:
                    strangers.send(number, random_datagram(rng), target)
                elif number % 4:
                    strangers.send(number, damaged(rng.choice(between.seen), rng, rng.random() < 0.5), target)
                else:  # from the very address of the other end, as damage on the way is
                    sock = between.near if target is bo_at else between.far
                    sock.sendto(damaged(rng.choice(between.seen), rng, False), target)
                if number % 100 == 0:
                    strangers.listen()
                    time.sleep(max(0.0, began + number / 30_000 - time.monotonic()))
            attacked = time.monotonic() - began
            assert bo.count("^OK") == 0, "the transfer was over before the attack was"
            done = bo.expect(r"^OK lab\.iso .* in (\d+):(\d+),")
            lost = sum(map(dropped_by_kernel, (port, bo_at[1])))
            print("did not get through to a node:", lost)
            print("attack %.1f s, transfer %s:%s" % (attacked, *done.groups()))
            time.sleep(0.2)
            strangers.listen()
            assert 0 < strangers.received < strangers.sent
            assert [status_of(pid, "Threads") for pid in nodes] == threads
            peaks = [status_of(pid, "VmHWM") - before for pid, before in zip(nodes, memory)]
            print("grown by KiB", peaks, "replies", strangers.received, "of", strangers.sent)
            assert max(peaks) < 64 << 10
            bo.type("T still here")
            ana.expect("^<bo> still here$")
            for one in (bo, ana):
                assert one.end() == 0, one.story()
    strangers.close()
    kept = tmp_path / "bo" / "shared" / "lab.iso"
    assert hashlib.sha256(kept.read_bytes()).digest() == hashlib.sha256(content).digest()
    for log in logs:
        assert "Traceback" not in log.read_text(), log.read_text()[:5000]


# ---- inside the transport -----------------------------------------------------------------------------------------


def arrive(pair, datagram):
    """As if `a` had sent it."""
    pair.b.endpoint.receive(memoryview(datagram), len(datagram), Pair.A, pair.world.now)


def data_packet(pair, number, offset, payload):
    fields = (pair.back.local_id, pair.first + number, number, offset)
    return wire.seal(bytearray(wire.DATA_HEADER.pack(0, wire.VERSION, wire.PacketType.DATA, 0, *fields) + payload))


def connected_pair(seed=1):
    pair = Pair(seed=seed)
    assert pair.connected()
    pair.first = pair.back._largest_received + 1
    return pair


def test_numbers_with_gaps_do_not_fill_the_memory():
    """E05: every second packet number is left out, and none is ever called settled."""
    pair = connected_pair()
    for number in range(0, 20_000, 2):
        arrive(pair, wire.encode_ping(pair.back.local_id, pair.first + number, number))
    assert len(pair.back._numbers) <= connection.NUMBER_RANGES_MAX


def test_one_byte_segments_side_by_side_do_not_fill_the_memory():
    """E05: no gap between them, so that they are one range, but thousands of objects."""
    pair = connected_pair()
    for number in range(20_000):
        arrive(pair, data_packet(pair, number, number + 1, b"x"))
    assert len(pair.back.receiving._segments) <= streams.GAPS_MAX


EMPTY = b"\x00\x00\x00\x00\x00"  # a frame without a body


@pytest.mark.parametrize("order", ["in order", "the first one last"])
def test_a_flood_of_empty_messages_waits_as_bytes_until_the_reader_comes(order):
    """C03, E05: a reader that is slower than the network is handed a bounded number of messages, and then the rest."""
    pair = connected_pair()
    pair.reading = False
    packets = [data_packet(pair, number, 1000 * number, EMPTY * 200) for number in range(60)]
    for packet in packets if order == "in order" else packets[1:] + packets[:1]:
        arrive(pair, packet)
    pair.b.pump()
    assert len(pair.unread) <= streams.FRAMES_WAITING_MAX + 200
    while pair.unread:
        pair.unread.pop().connection.consume_bytes(0)
        pair.b.pump()
    assert len(pair.received["b"]) == 60 * 200


def test_what_waits_for_the_reader_is_not_lost_by_a_close():
    pair = Pair(seed=1)
    assert pair.connected()
    pair.reading = False
    for _ in range(3 * streams.FRAMES_WAITING_MAX):
        pair.there.send_frame(0, b"")
    pair.there.shut_down("done")
    pair.a.pump()
    pair.world.run(pair.world.now + 100)
    assert pair.lost["a"].is_clean and "b" not in pair.lost
    pair.read()
    assert len(pair.received["b"]) == 3 * streams.FRAMES_WAITING_MAX
    assert pair.lost["b"].is_clean
    pair.world.run(pair.world.now + 100)
    assert not pair.b.endpoint.connections
