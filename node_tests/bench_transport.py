"""How fast a file travels over loopback: this transport, the whole program, and kernel TCP doing the same work.

    python node_tests/bench_transport.py [--size MIB] [--runs N] [--folder DIR]

Every row reads a file, verifies SHA-256 at the receiver, and has it flushed under its name at the end. The rows take
turns, so that a busy machine is busy for all; medians and ratios to the better of TCP's two congestion controllers are
printed. Speed is never asserted: it belongs to the machine.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import pathlib
import platform
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Callable, Dict, List, Optional

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import rdt  # noqa: E402

MIB = 1 << 20
TCP_CONGESTION = 13  # Linux's option at IPPROTO_TCP
WAIT = 300.0  # seconds; a bound, not an expectation


# ---- the receiving ends, each a process of its own ----------------------------------------------------------------


def receive_tcp(port: int, folder: str, controller: str) -> None:
    """Connect, read to the end, hash and write each MiB, flush, and answer with the digest."""
    with socket.create_connection(("127.0.0.1", port)) as sock:
        digest, buffer = hashlib.sha256(), bytearray(MIB)
        path = os.path.join(folder, "tcp.bin")
        with open(path, "wb", buffering=0) as file:
            size = int.from_bytes(sock.recv(8, socket.MSG_WAITALL), "big")
            while size:
                count = sock.recv_into(buffer, min(size, MIB), socket.MSG_WAITALL)
                digest.update(memoryview(buffer)[:count])
                file.write(memoryview(buffer)[:count])
                size -= count
            os.fsync(file.fileno())
        sock.sendall(digest.digest())


def receive_rdt(port: int, folder: str, _: str) -> None:
    with rdt.open("127.0.0.1", 0) as transport:
        transport.connect(("127.0.0.1", port)).accept_file(folder, timeout=WAIT)


RECEIVERS: Dict[str, Callable[[int, str, str], None]] = {"tcp": receive_tcp, "rdt": receive_rdt}


def start_receiver(kind: str, port: int, folder: str, controller: str = "") -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, __file__, "--receive", kind, str(port), folder, controller])


# ---- one run of each row; bytes per second ------------------------------------------------------------------------


def run_tcp(path: str, folder: str, controller: str) -> float:
    with socket.socket() as server, open(path, "rb") as file:
        server.setsockopt(socket.IPPROTO_TCP, TCP_CONGESTION, controller.encode())
        server.bind(("127.0.0.1", 0))
        server.listen()
        process = start_receiver("tcp", server.getsockname()[1], folder)
        connection, _ = server.accept()
        with connection:
            began, size = time.monotonic(), os.path.getsize(path)
            connection.sendall(size.to_bytes(8, "big"))
            connection.sendfile(file)
            said = connection.recv(32, socket.MSG_WAITALL)
            seconds = time.monotonic() - began
        process.wait(WAIT)
        assert said == digest_of(path)
    return size / seconds


def run_verbs(path: str, folder: str) -> float:
    with rdt.open("127.0.0.1", 0) as transport:
        process = start_receiver("rdt", transport.address[1], folder)
        receipt = transport.accept(WAIT).send_file(path, timeout=WAIT)
    process.wait(WAIT)
    assert receipt.sha256 == digest_of(path).hex()
    return receipt.size / receipt.seconds


def run_program(path: str, folder: str) -> float:
    """Two node_client.py; the rate is the one that the requester's OK line tells."""
    here, there = os.path.join(folder, "here"), os.path.join(folder, "there")
    os.makedirs(here)
    os.link(path, os.path.join(here, "file.bin"))
    port = free_port()
    program = [sys.executable, str(ROOT / "node_client.py"), "--ip", "127.0.0.1", "--port", str(port)]
    source = subprocess.Popen(
        [*program, "--name", "a", "--folder", here], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert source.stdin is not None and source.stdout is not None
    try:
        wait_for_line(source, b"* supernode at")
        wait_until_listed(program, os.path.join(folder, "look"))
        asked = subprocess.run(
            [*program, "--name", "b", "--folder", there], input=b"R file.bin\n", capture_output=True, timeout=WAIT
        )
    finally:
        source.stdin.close()
        source.stdout.close()
        source.wait(WAIT)
    assert hashlib.sha256(pathlib.Path(there, "file.bin").read_bytes()).digest() == digest_of(path)
    line = next(line for line in asked.stdout.decode().splitlines() if line.startswith("OK file.bin"))
    number, unit = line.split(", ")[1].split(" ")[:2]
    return float(number) * {"kB/s": 1e3, "MB/s": 1e6, "GB/s": 1e9}[unit]


def wait_for_line(process: subprocess.Popen[bytes], start: bytes) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(start):
            return
    raise AssertionError("the program ended before it said %r" % start)


def wait_until_listed(program: List[str], folder: str) -> None:
    """The source hashes its file first."""
    deadline = time.monotonic() + WAIT
    while time.monotonic() < deadline:
        looked = subprocess.run(
            [*program, "--name", "c", "--folder", folder], input=b"G\n", capture_output=True, timeout=WAIT
        )
        if b"file.bin" in looked.stdout:
            return
    raise AssertionError("the file was never listed")


# ---- the table ----------------------------------------------------------------------------------------------------


_digests: Dict[str, bytes] = {}


def digest_of(path: str) -> bytes:
    if path not in _digests:
        _digests[path] = hashlib.sha256(pathlib.Path(path).read_bytes()).digest()
    return _digests[path]


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def controllers() -> List[str]:
    """The congestion controllers of TCP that this kernel lets us choose."""
    found = []
    for name in ("cubic", "bbr"):
        with socket.socket() as sock:
            try:
                sock.setsockopt(socket.IPPROTO_TCP, TCP_CONGESTION, name.encode())
                found.append(name)
            except OSError:
                continue
    return found


def measure(size: int, runs: int, folder: Optional[str]) -> Dict[str, List[float]]:
    rows: Dict[str, Callable[[str, str], float]] = {
        "TCP %s, Python" % name: (lambda path, where, name=name: run_tcp(path, where, name)) for name in controllers()
    }
    rows["send_file to accept_file"] = run_verbs
    rows["R between two node_client.py"] = run_program
    results: Dict[str, List[float]] = {name: [] for name in rows}
    with tempfile.TemporaryDirectory(dir=folder) as home:
        path = os.path.join(home, "source.bin")
        with open(path, "wb") as file:
            for _ in range(size // MIB):
                file.write(os.urandom(MIB))
        for _ in range(runs):
            for name, run in rows.items():
                where = os.path.join(home, "run")
                os.makedirs(where)
                results[name].append(run(path, where))
                shutil.rmtree(where)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=1024, help="MiB (default 1024)")
    parser.add_argument("--runs", type=int, default=5, help="of each row (default 5)")
    parser.add_argument("--folder", default="/dev/shm" if os.path.isdir("/dev/shm") else None, help="where files lie")
    parser.add_argument("--receive", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.receive:
        kind, port, folder, controller = arguments.receive
        RECEIVERS[kind](int(port), folder, controller)
        return
    results = measure(arguments.size * MIB, arguments.runs, arguments.folder)
    tcp = max((statistics.median(rates) for name, rates in results.items() if name.startswith("TCP")), default=0.0)
    print("%d MiB over loopback, medians of %d, Python %s, %s, %d cores" % (
        arguments.size, arguments.runs, platform.python_version(), platform.system(), os.cpu_count() or 0))  # fmt: skip
    print("%-32s %8s %8s %8s %8s" % ("", "MB/s", "least", "most", "x TCP"))
    for name, rates in results.items():
        median = statistics.median(rates)
        ratio = "%8.2f" % (median / tcp) if tcp else ""
        print("%-32s %8.0f %8.0f %8.0f %s" % (name, median / 1e6, min(rates) / 1e6, max(rates) / 1e6, ratio))


if __name__ == "__main__":
    main()
