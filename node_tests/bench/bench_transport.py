"""How fast a file travels: this transport, the whole program, kernel TCP doing the same work, and other programs.

    python node_tests/bench/bench_transport.py [--size MIB] [--runs N] [--rows TEXT,TEXT...] [--no-peers] [--no-small]
                                         [--no-offload] [--veth] [--link [--cases NAMES] [--link-runs N]] [--svg FILE]
                                         [--markdown]
    python node_tests/bench/bench_transport.py --readme      # all of it, and its tables into README.md; needs root

Kernel TCP does here in Python what we do: (a) the receiver writes the file and verifies SHA-256 of what came, the
sender knows the digest beforehand; (b) the sender hashes the file while it sends, too. `send_file` hashes, so its peer
is (b); the program knows the digests of what it shares, so the peer of `R` is (a). Each in the better of TCP's two
congestion controllers. The rows take turns, so that a busy machine is busy for all; medians are compared. Other
programs run as they come and check what they check. Speed is never asserted: it belongs to the machine.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import io
import mmap
import os
import pathlib
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

from node_tests.bench import bench_ends, bench_link, bench_peers, netlab
from node_tests.bench.bench_ends import MIB, ROOT, WAIT, Process, rdt
from node_tests.bench.layers import SAID
from node_tests.stage.running import free_port

NO_OFFLOAD = {"RDT_NO_OFFLOAD": "1"}  # read by rdt.open
CHECKED = "SHA-256, flushed"
OPEN_ROW = "send_file to accept_file"
LAYOUT = "%-44s %7s %7s %7s %10s %10s %7s  %s"  # of the table
MESSAGE_SIZE, EXCHANGES, WARM_UP = 20_000, 2000, 100
TOUCHED_MAX = 3 << 30  # bytes of memory, and at most half of what is free, touched before each run
IDLE_CONNECTIONS, IDLE_SECONDS = 2000, 20.0
PICTURE = ROOT / "node_tests" / "pictures" / "goodput_loss.svg"
README_LINK_RUNS = 3
TROUBLES = (AssertionError, RuntimeError, OSError, subprocess.SubprocessError, rdt.RdtError)  # of one row, not of all
BEGIN, END = "<!-- measured: begin -->\n", "<!-- measured: end -->\n"


class Place(NamedTuple):
    """Where two ends lie, and how to start each there."""

    name: str
    ip: str  # of the giving end
    give_on: List[str]
    take_on: List[str]


LOOPBACK = Place("loopback", "127.0.0.1", [], [])


class Row(NamedTuple):
    """One line of the table; `peer` names the work of kernel TCP to compare with: a, b or neither."""

    name: str
    place: str
    peer: str
    checks: str
    run: Callable[[str, str], float]  # (path, folder) -> bytes per second


memory: Dict[str, int] = {}  # bytes that each end of ours held at most


# ---- one run of each row ------------------------------------------------------------------------------------------


def run_pair(kind: str, hashes: int, place: Place, env: Dict[str, str], path: str, folder: str) -> float:
    """TCP or the verbs, two processes, timed by the sender until the other side has said that all is well."""
    with Process("give", kind, place.ip, path, hashes, on=place.give_on, env=env) as giving:
        port = giving.read()["port"]
        with Process("take", kind, place.ip, port, folder, on=place.take_on, env=env) as taking:
            told = giving.read()
            if kind.startswith("rdt"):
                note_memory("send_file", told["memory"])
                note_memory("accept_file", taking.read()["memory"])
    assert told["sha256"] == digest_of(path).hex()
    return os.path.getsize(path) / float(told["seconds"])


def note_memory(end: str, size: Optional[int]) -> None:
    if size:
        memory[end] = max(memory.get(end, 0), size)


def run_program(env: Dict[str, str], path: str, folder: str) -> float:
    """Two node_client.py; the rate is the one that the requester's OK line tells."""
    here, there = os.path.join(folder, "here"), os.path.join(folder, "there")
    os.makedirs(here)
    os.link(path, os.path.join(here, "file.bin"))
    port = free_port()
    flags = ["--ip", "127.0.0.1", "--port", str(port)]
    with program([*flags, "--name", "a", "--folder", here], env) as source:
        line_of(source, b"* supernode at")
        wait_until_listed(flags, os.path.join(folder, "look"))
        with program([*flags, "--name", "b", "--folder", there], env) as asking:
            assert asking.stdin is not None
            asking.stdin.write(b"R file.bin\n")
            asking.stdin.flush()
            line = line_of(asking, b"OK file.bin").decode()
            note_memory("R: requester", peak_of(asking.pid))
        note_memory("R: source", peak_of(source.pid))
    assert bench_ends.hash_file(os.path.join(there, "file.bin")) == digest_of(path)
    number, unit = line.split(", ")[1].split(" ")[:2]
    return float(number) * {"kB/s": 1e3, "MB/s": 1e6, "GB/s": 1e9}[unit]


@contextlib.contextmanager
def program(flags: Sequence[str], env: Dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """A node_client.py that ends when the block does."""
    command = [sys.executable, str(ROOT / "node_client.py"), *flags]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env={**os.environ, **env}
    )
    try:
        yield process
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=30.0)
    finally:
        process.kill()
        process.communicate()


def line_of(process: subprocess.Popen[bytes], start: bytes) -> bytes:
    """The first line that starts so, waited for."""
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        said.append(line)
        if line.lstrip(b"> ").startswith(start):
            return line
    raise RuntimeError("the program ended before it said %r: %r" % (start, said[-5:]))


def wait_until_listed(flags: Sequence[str], folder: str) -> None:
    """The source hashes its file first."""
    command = [sys.executable, str(ROOT / "node_client.py"), *flags, "--name", "c", "--folder", folder]
    deadline = time.monotonic() + WAIT
    while time.monotonic() < deadline:
        if b"file.bin" in subprocess.run(command, input=b"G\n", capture_output=True, timeout=WAIT).stdout:
            return
    raise RuntimeError("the file was never listed")


def peak_of(pid: int) -> Optional[int]:
    """Bytes of memory that a running process held at most, where /proc tells."""
    with contextlib.suppress(OSError, StopIteration):
        lines = pathlib.Path("/proc/%d/status" % pid).read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) << 10
    return None


_digests: Dict[str, bytes] = {}


def touch_memory() -> None:
    """Have the pages of the next run backed by the machine below this one.

    A virtual machine that has given free pages back pays up to 2.6 core-seconds a GiB for those of a new file, now and
    then, and whoever runs first pays for all.
    """
    if sys.platform.startswith("linux"):
        populate = getattr(mmap, "MAP_POPULATE", 0x8000)  # Python 3.10 names it
        free = os.sysconf("SC_AVPHYS_PAGES") * mmap.PAGESIZE
        size = min(TOUCHED_MAX, max(free // 2, mmap.PAGESIZE))
        mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | populate).close()


def digest_of(path: str) -> bytes:
    if path not in _digests:
        _digests[path] = bench_ends.hash_file(path)
    return _digests[path]


def run_peer(peer: bench_peers.Peer, python: str, path: str, folder: str) -> float:
    """Another program; its copy is compared with the source."""
    size = os.path.getsize(path)
    seconds = peer.run(path, folder, python)
    copies = [found for found in pathlib.Path(folder).rglob("*") if found.is_file() and found.stat().st_size == size]
    assert copies and bench_ends.hash_file(str(copies[0])) == digest_of(path), "%s made no true copy" % peer.name
    return size / seconds


# ---- the rows -----------------------------------------------------------------------------------------------------


def pair_rows(place: Place, is_without_offload: bool) -> List[Row]:
    """TCP and the verbs between the two ends of a place."""

    def row(name: str, peer: str, kind: str, hashes: int = 0, env: Optional[Dict[str, str]] = None) -> Row:
        return Row(name, place.name, peer, CHECKED, functools.partial(run_pair, kind, hashes, place, env or {}))

    rows = []
    for peer, hashes, what in (("a", 0, "digest known"), ("b", 1, "sender hashes too")):
        for kind in bench_link.kinds()[:-1]:
            rows.append(row("%s, %s (%s)" % (bench_link.LABELS[kind], what, peer), peer, kind, hashes))
    rows.append(row(OPEN_ROW, "b", "rdt"))
    rows += [row("send_file, %s" % said, "b", "rdt:%s" % layers) for layers, said in SAID.items()]
    if is_without_offload:
        rows.append(row("send_file, no offload", "b", "rdt", env=NO_OFFLOAD))
    return rows


def program_rows(is_without_offload: bool) -> List[Row]:
    """The whole program."""
    environments: Dict[str, Dict[str, str]] = {"R between two node_client.py": {}, "R, no offload": NO_OFFLOAD}
    rows = [
        Row(name, "loopback", "a", CHECKED, functools.partial(run_program, env)) for name, env in environments.items()
    ]
    return rows if is_without_offload else rows[:1]


def peer_rows(python: str) -> Tuple[List[Row], List[str]]:
    """Other programs that are here, and the names of those that are not."""
    rows, absent = [], []
    for peer in bench_peers.PEERS:
        missing = peer.missing(python)
        if missing:
            absent.append("%s (no %s)" % (peer.name, missing))
            continue
        rows.append(Row(peer.name, "loopback", "", peer.checks, functools.partial(run_peer, peer, python)))
    return rows, absent


def is_tcp(row: Row) -> bool:
    return row.name.startswith("TCP ")


def measure(rows: Sequence[Row], size: int, runs: int, folder: Optional[str]) -> Dict[Row, List[float]]:
    """Bytes per second of each row and run; the rows take turns."""
    results: Dict[Row, List[float]] = {row: [] for row in rows}
    with tempfile.TemporaryDirectory(dir=folder) as home:
        path = os.path.join(home, "source", "source.bin")
        os.mkdir(os.path.dirname(path))
        with open(path, "wb") as file:
            for _ in range(size // MIB):
                file.write(os.urandom(MIB))
        for number in range(runs):
            for row in rows:
                print("run %d of %d: %s, %s" % (number + 1, runs, row.place, row.name), file=sys.stderr, flush=True)
                where = os.path.join(home, "run")
                os.mkdir(where)
                try:
                    touch_memory()
                    results[row].append(row.run(path, where))
                except TROUBLES as error:
                    print("%s: %s: %r" % (row.place, row.name, error), file=sys.stderr, flush=True)
                shutil.rmtree(where)
    return results


# ---- the table ----------------------------------------------------------------------------------------------------


def table(results: Dict[Row, List[float]]) -> List[List[str]]:
    """The cells, header first; the ratio to the row's own peer is in bold type."""
    lines = [["MB/s", "median", "least", "most", "x TCP (a)", "x TCP (b)", "x open", "verified by"]]
    bests: Dict[Tuple[str, str], float] = {}
    for row, rates in results.items():
        if is_tcp(row):
            key = (row.place, row.peer)
            bests[key] = max(bests.get(key, 0.0), statistics.median(rates))
    for row, rates in results.items():
        median = statistics.median(rates)
        ratios = []
        for peer in "ab":
            best = bests.get((row.place, peer))
            ratio = "%.2f" % (median / best) if best and not (is_tcp(row) and row.peer != peer) else ""
            ratios.append("**%s**" % ratio if ratio and row.peer == peer and not is_tcp(row) else ratio)
        speeds = ["%.0f" % (rate / 1e6) for rate in (median, min(rates), max(rates))]
        name = row.name if row.place == "loopback" else "%s: %s" % (row.place, row.name)
        lines.append([name, *speeds, *ratios, times_open(row, results), row.checks])
    return lines


def times_open(row: Row, results: Dict[Row, List[float]]) -> str:
    """What a network with a key, or one of its layers, leaves of the open one's speed at the same place."""
    if row.name not in {"send_file, %s" % said for said in SAID.values()}:
        return ""
    rates = [rates for other, rates in results.items() if other[:2] == (OPEN_ROW, row.place)]
    return "%.2f" % (statistics.median(results[row]) / statistics.median(rates[0])) if rates else ""


def print_table(lines: Sequence[Sequence[str]], layout: str, is_markdown: bool) -> None:
    """The first line is the header; `layout` formats a line where it is not Markdown."""
    if is_markdown:
        rows = [lines[0], ["---"] + ["---:"] * (len(lines[0]) - 2) + ["---"], *lines[1:]]
        print("\n".join("| %s |" % " | ".join(line) for line in rows))
        return
    for line in lines:
        print(layout % tuple(line))


def print_items(items: Sequence[str], is_markdown: bool) -> None:
    print("\n".join(("- " if is_markdown else "") + item for item in items))


# ---- small figures ------------------------------------------------------------------------------------------------


def small_figures() -> List[str]:
    """A line each: an exchange of messages, connections that rest."""
    return [exchange(), *rest()]


def exchange() -> str:
    """Time of a message there and back."""
    with Process("echo") as other, rdt.open("127.0.0.1", 0) as transport:
        connection, message = transport.connect(("127.0.0.1", other.read()["port"])), os.urandom(MESSAGE_SIZE)
        times = []
        for _ in range(EXCHANGES):
            began = time.perf_counter()
            connection.send(message)
            connection.receive(WAIT)
            times.append((time.perf_counter() - began) * 1e6)
    tenths = statistics.quantiles(times[WARM_UP:], n=10)
    shown = (tenths[4], tenths[0], tenths[8])
    return "a message of 20 KB there and back: median %.0f µs (tenths under %.0f, over %.0f); aim: under 300" % shown


def rest() -> List[str]:
    """What idle connections cost each end."""
    with contextlib.ExitStack() as stack:
        taking = stack.enter_context(Process("rest", IDLE_CONNECTIONS, IDLE_SECONDS))
        port = taking.read()["port"]
        opening = stack.enter_context(Process("rest", IDLE_CONNECTIONS, IDLE_SECONDS, port))
        opening.read()
        told = [("took", taking.read()), ("opened", opening.read())]
    return [
        "%d idle connections, the end that %s them: %.1f %% of a core, %.1f KB each; aim: under 3 %% and 20 KB"
        % (IDLE_CONNECTIONS, verb, one["core"] * 100, one["bytes_each"] / 1024)
        for verb, one in told
    ]


def memory_figures(size: int) -> List[str]:
    """The most that each end of ours held."""
    if not memory:
        return []
    ends = ", ".join("%s %.0f MB" % (name, size / 1e6) for name, size in memory.items())
    return ["resident memory at most, file of %d MiB: %s; aim: under 100 MB" % (size // MIB, ends)]


# ---- the program --------------------------------------------------------------------------------------------------


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=1024, help="MiB (default 1024)")
    parser.add_argument("--runs", type=int, default=5, help="of each row (default 5)")
    parser.add_argument("--link-runs", type=int, help="of each flow over the link (default 1; with --readme 3)")
    parser.add_argument("--folder", default=bench_link.default_folder(), help="where files lie")
    parser.add_argument("--rows", metavar="TEXTS", help="only those whose name has one of these, divided by commas")
    parser.add_argument("--no-peers", action="store_true", help="without other programs")
    parser.add_argument("--peers-python", default=sys.executable, help="interpreter that has aioquic and libtorrent")
    parser.add_argument("--no-small", action="store_true", help="without the small figures")
    parser.add_argument("--no-offload", action="store_true", help="our rows with RDT_NO_OFFLOAD=1 too")
    parser.add_argument("--veth", action="store_true", help="between two namespaces at MTU 1500 too (root)")
    parser.add_argument("--link", action="store_true", help="the cases of bench_link.py too (root)")
    parser.add_argument("--readme", action="store_true", help="all, and the tables into README.md (root)")
    bench_link.add_flags(parser)
    arguments = parser.parse_args()
    if arguments.readme:
        arguments.no_offload = arguments.veth = arguments.link = arguments.markdown = True
        arguments.svg = arguments.svg or str(PICTURE)
    if (arguments.veth or arguments.link or arguments.svg) and netlab.missing():
        sys.exit(netlab.missing())
    return arguments


def transfers(arguments: argparse.Namespace) -> None:
    """Measure and print the table of transfers."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    rows = [*pair_rows(LOOPBACK, arguments.no_offload), *program_rows(arguments.no_offload)]
    absent: List[str] = []
    if not arguments.no_peers:
        others, absent = peer_rows(arguments.peers_python)
        rows += others
    with contextlib.ExitStack() as stack:
        if arguments.veth:
            lab = stack.enter_context(netlab.Veth())
            rows += pair_rows(Place("veth", lab.ips[0], lab.on(0), lab.on(1)), arguments.no_offload)
        if arguments.rows:
            rows = [row for row in rows if any(text in "%s: %s" % (row.place, row.name) for text in
                                               arguments.rows.split(","))]  # fmt: skip
        results = measure(rows, arguments.size * MIB, arguments.runs, arguments.folder)
    print("%s\n" % about(arguments, load))
    print_table(table({row: rates for row, rates in results.items() if rates}), LAYOUT, arguments.markdown)
    print()
    failed = ["%s: %s" % (row.place, row.name) for row, rates in results.items() if len(rates) < arguments.runs]
    if failed:
        print("failed at least once: %s\n" % "; ".join(failed))
    if absent:
        print("not present: %s\n" % "; ".join(absent))


def about(arguments: argparse.Namespace, load: float) -> str:
    """What was measured, on what, when; the load tells how busy the machine was with other things."""
    machine = "Python %s, %s %s, %d cores, load %.1f at the start, %s" % (
        platform.python_version(), platform.system(), platform.release(), os.cpu_count() or 0, load,
        time.strftime("%Y-%m-%d"),
    )  # fmt: skip
    return "%d MiB over loopback%s, medians of %d runs in turn; %s." % (
        arguments.size, " and veth at MTU 1500" if arguments.veth else "", arguments.runs, machine)  # fmt: skip


def report(arguments: argparse.Namespace) -> None:
    """Everything that the flags ask for, on standard output."""
    transfers(arguments)
    small = [] if arguments.no_small else small_figures()
    print_items([*small, *memory_figures(arguments.size * MIB)], arguments.markdown)
    runs = arguments.link_runs or (README_LINK_RUNS if arguments.readme else 1)
    if arguments.link:
        print()
        bench_link.run(argparse.Namespace(**{**vars(arguments), "svg": None}), runs)
    if arguments.svg:
        print()
        bench_link.run(arguments, runs)


class Tee(io.StringIO):
    """Keeps what is printed, and prints it."""

    def write(self, text: str) -> int:
        sys.__stdout__.write(text)  # type: ignore[union-attr]
        sys.__stdout__.flush()  # type: ignore[union-attr]
        return super().write(text)


def into_readme(text: str) -> None:
    """Put the tables where the README has its measured block."""
    readme = ROOT / "README.md"
    said = readme.read_text(encoding="utf-8")
    assert BEGIN in said and END in said, "README.md has no measured block"
    block = BEGIN + text.strip() + "\n" + END
    readme.write_text(re.sub(BEGIN + ".*?" + END, lambda _: block, said, flags=re.DOTALL), encoding="utf-8")


def main() -> None:
    arguments = parse()
    netlab.end_well()
    kept = Tee()
    with contextlib.redirect_stdout(kept):
        report(arguments)
    if arguments.readme:
        into_readme(kept.getvalue())


if __name__ == "__main__":
    main()
