"""The ends of a measured transfer, each a process of its own, and how a benchmark starts them.

    with Process("take", "tcp", "127.0.0.1", folder) as taking:
        port = taking.read()["port"]

Each end prints one JSON object a line: first, if it listens, its port, at last what it measured. Times are monotonic
and of one machine, so that those of two ends can be compared.

    give KIND IP FILE HASHES           listens, sends the file, says the seconds until the other side had verified it
    take KIND IP PORT FOLDER           connects, keeps the file that comes, verified
    sink KIND IP FOLDER                listens, takes what comes until its input ends, says how many bytes had come when
    pour KIND IP PORT FILE             connects and sends the file
    echo                               sends every message back
    rest COUNT SECONDS [PORT]          opens or takes so many connections, and says what they cost while nothing is said

KIND is "rdt" or "tcp"; a colon and the name of a congestion controller may follow, or for give and take of rdt the
layers of a network with a key (`layers.py`).
"""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import queue
import socket
import subprocess
import sys
import threading
import time
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import rdt  # noqa: E402
from node_tests.stage.running import end_process  # noqa: E402
from node_tests.stage.usage import run_end  # noqa: E402
from protocol.transport import controllers  # noqa: E402

MIB = 1 << 20
TCP_CONGESTION = 13  # Linux's option at IPPROTO_TCP
WAIT = 600.0  # seconds; a bound, not an expectation
BUFFERS = 8  # of a MiB each, between the thread that receives and the one that hashes
SAMPLE_INTERVAL = 0.02  # seconds between two notes of how much had come
IDLE_SETTLES = 15.0  # seconds after which new connections have found their path MTU


class Process:
    """An end that runs beside, on a host of a network lab if `on` names one; leaving the `with` stops it."""

    def __init__(self, *words: object, on: Sequence[str] = (), env: Optional[Dict[str, str]] = None) -> None:
        command = [*on, sys.executable, __file__, *map(str, words)]
        self.title = " ".join(map(str, words))
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, **(env or {})}
        )

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        end_process(self.process)

    def read(self) -> Dict[str, Any]:
        """The next thing that it says."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError("%s ended with %s" % (self.title, self.process.wait()))
        return dict(json.loads(line))


def say(**values: object) -> None:
    print(json.dumps(values), flush=True)


def resident_peak() -> int:
    """Bytes of memory that this process held at most."""
    try:
        lines = pathlib.Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) << 10
    except (OSError, StopIteration):
        import resource  # which Windows lacks

        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def resident() -> int:
    """Bytes of memory that this process holds now."""
    return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


# ---- a file, verified ---------------------------------------------------------------------------------------------


class HashingThread:
    """SHA-256 of what is handed in, computed beside; `buffers` holds those that are free."""

    def __init__(self) -> None:
        self.buffers: queue.SimpleQueue[bytearray] = queue.SimpleQueue()
        for _ in range(BUFFERS):
            self.buffers.put(bytearray(MIB))
        self._filled: queue.SimpleQueue[Tuple[bytearray, int]] = queue.SimpleQueue()
        self._sha256 = hashlib.sha256()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def put(self, buffer: bytearray, size: int) -> None:
        self._filled.put((buffer, size))

    def _run(self) -> None:
        while True:
            buffer, size = self._filled.get()
            if not size:
                return
            self._sha256.update(memoryview(buffer)[:size])
            self.buffers.put(buffer)

    def digest(self) -> bytes:
        self._filled.put((bytearray(), 0))
        self._thread.join()
        return self._sha256.digest()


def hash_file(path: str) -> bytes:
    """SHA-256 of a file, in one reused buffer."""
    sha256, buffer = hashlib.sha256(), bytearray(MIB)
    with open(path, "rb", buffering=0) as file:
        for size in iter(lambda: file.readinto(buffer), 0):
            sha256.update(memoryview(buffer)[:size])
    return sha256.digest()


def tcp_socket(kind: str) -> socket.socket:
    sock = socket.socket()
    controller = kind.partition(":")[2]
    if controller:
        sock.setsockopt(socket.IPPROTO_TCP, TCP_CONGESTION, controller.encode())
    return sock


def opened(kind: str, ip: str) -> rdt.Transport:
    """A transport of this process, with the layers that stand behind the colon."""
    layers = kind.partition(":")[2]
    if not layers:
        return rdt.open(ip, 0)
    from node_tests.bench.layers import credentials

    return rdt.open(ip, 0, credentials=credentials(layers))


def give(kind: str, ip: str, path: str, hashes: str) -> None:
    if kind.startswith("rdt"):
        with opened(kind, ip) as transport:
            say(port=transport.address[1])
            receipt = transport.accept(WAIT).send_file(path, timeout=WAIT)
        say(seconds=receipt.seconds, sha256=receipt.sha256, memory=resident_peak())
        return
    with tcp_socket(kind) as server, open(path, "rb") as file:
        server.bind((ip, 0))
        server.listen()
        say(port=server.getsockname()[1])
        connection, _ = server.accept()
        with connection:
            began, own = time.monotonic(), []
            hashing = threading.Thread(target=lambda: own.append(hash_file(path)))
            if int(hashes):
                hashing.start()
            connection.sendall(os.path.getsize(path).to_bytes(8, "big"))
            connection.sendfile(file)
            said = connection.recv(32, socket.MSG_WAITALL)
            if int(hashes):
                hashing.join()
            seconds = time.monotonic() - began
    assert not own or own[0] == said
    say(seconds=seconds, sha256=said.hex(), memory=resident_peak())


def take(kind: str, ip: str, port: str, folder: str) -> None:
    if kind.startswith("rdt"):
        with opened(kind, ip if ip.startswith("127.") else "") as transport:
            transport.connect((ip, int(port))).accept_file(folder, timeout=WAIT)
    else:
        _take_tcp(ip, int(port), os.path.join(folder, "tcp.bin"))
    say(memory=resident_peak())


def _take_tcp(ip: str, port: int, path: str) -> None:
    """Write here, hash on a thread: the fastest of the arrangements tried."""
    hashing = HashingThread()
    with socket.create_connection((ip, port)) as sock, open(path, "wb", buffering=0) as file:
        left = int.from_bytes(sock.recv(8, socket.MSG_WAITALL), "big")
        while left:
            buffer = hashing.buffers.get()
            count = sock.recv_into(buffer, min(left, MIB), socket.MSG_WAITALL)
            if not count:
                raise RuntimeError("the connection ended %d bytes early" % left)
            file.write(memoryview(buffer)[:count])
            hashing.put(buffer, count)
            left -= count
        digest = hashing.digest()
        os.fsync(file.fileno())
        sock.sendall(digest)


# ---- a flow, counted where it arrives -----------------------------------------------------------------------------


class Arrivals:
    """How many bytes had come when; told at the end, once."""

    def __init__(self) -> None:
        self._notes: List[Tuple[float, int]] = []
        self._lock = threading.Lock()

    def note(self, done: int, _: int = 0) -> None:
        now = time.monotonic()
        if not self._notes or now - self._notes[-1][0] >= SAMPLE_INTERVAL:
            self._notes.append((now, done))

    def tell(self, done: Optional[int], trouble: str = "") -> None:
        """Say what came and end the process, whatever its other threads do."""
        with self._lock:  # never released: who comes second has nothing to say
            if done is not None:
                self._notes.append((time.monotonic(), done))
            say(arrivals=self._notes, finished=done is not None, trouble=trouble)
            os._exit(0)


def sink(kind: str, ip: str, folder: str) -> None:
    arrivals = Arrivals()
    run = _sink_rdt if kind == "rdt" else _sink_tcp
    threading.Thread(target=run, args=(ip, folder, arrivals), daemon=True).start()
    sys.stdin.read()
    arrivals.tell(None)


def _sink_rdt(ip: str, folder: str, arrivals: Arrivals) -> None:
    try:
        transport = rdt.open(ip, 0)
        say(port=transport.address[1])
        connection = transport.accept(WAIT)
        arrivals.note(0)
        size = connection.accept_file(folder, arrivals.note, WAIT).size
        transport.close()
    except rdt.RdtError as error:
        arrivals.tell(None, str(error))
        return
    arrivals.tell(size)


def _sink_tcp(ip: str, folder: str, arrivals: Arrivals) -> None:
    buffer, done = bytearray(MIB >> 2), 0
    with socket.socket() as server:
        server.bind((ip, 0))
        server.listen()
        say(port=server.getsockname()[1])
        connection, _ = server.accept()
        arrivals.note(0)
        with connection:
            for count in iter(lambda: connection.recv_into(buffer), 0):
                done += count
                arrivals.note(done)
    arrivals.tell(done)


def pour(kind: str, ip: str, port: str, path: str) -> None:
    protocol, _, controller = kind.partition(":")
    if protocol == "rdt":
        with rdt.open("", 0, controller or controllers.DEFAULT) as transport:
            transport.connect((ip, int(port))).send_file(path, timeout=WAIT)
        return
    with tcp_socket(kind) as sock, open(path, "rb") as file:
        sock.connect((ip, int(port)))
        sock.sendfile(file)


# ---- small figures ------------------------------------------------------------------------------------------------


def echo() -> None:
    """Send every message back until the other side closes."""
    with rdt.open("127.0.0.1", 0) as transport:
        say(port=transport.address[1])
        connection = transport.accept(WAIT)
        try:
            while True:
                connection.send(connection.receive())
        except rdt.RdtError:
            return


def rest(count: str, seconds: str, port: str = "") -> None:
    """Open (with a port) or take so many connections, let them rest, and say what they cost."""
    with rdt.open("127.0.0.1", 0) as transport:
        say(port=transport.address[1])
        before = resident()
        if port:
            kept = [transport.connect(("127.0.0.1", int(port))) for _ in range(int(count))]
        else:
            kept = [transport.accept(WAIT) for _ in range(int(count))]
        say(**cost_of_rest(before, len(kept), float(seconds)))
        sys.stdin.read()
        os._exit(0)  # thousands of goodbyes are not measured


def cost_of_rest(memory_before: int, count: int, seconds: float) -> Dict[str, float]:
    """Share of a core while idle, and bytes of memory for each connection."""
    time.sleep(IDLE_SETTLES)
    began, used = time.monotonic(), time.process_time()
    time.sleep(seconds)
    share = (time.process_time() - used) / (time.monotonic() - began)
    return {"core": share, "bytes_each": (resident() - memory_before) / count}


KINDS: Dict[str, Callable[..., None]] = {
    "give": give, "take": take, "sink": sink, "pour": pour, "echo": echo, "rest": rest,
}  # fmt: skip

if __name__ == "__main__":
    run_end(KINDS, __doc__)
