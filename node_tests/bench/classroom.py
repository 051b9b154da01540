"""A classroom to measure in: hosts on a switch, a `node_client.py` on each that is typed to, counters, and the clock.

The scenes are in `bench_class.py` and `class_troubles.py`; the rows of other programs in `bench_class.py` and
`class_casters.py`.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import statistics
import subprocess
import sys
import threading
import time
from typing import Callable, Dict, Iterable, List, NamedTuple, Optional, Sequence, Tuple

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT))

from node_tests.bench import bench_ends, lanlab  # noqa: E402

PORT = 6020
NAME = "image.bin"
START_BOUND, SCENE_BOUND, STOP_BOUND = 60.0, 180.0, 10.0  # seconds; bounds, not expectations
LOOK_INTERVAL = 0.02  # seconds between two looks at the counters
LIST_INTERVAL = 0.3  # seconds between two looks whether all see the file
ROUND_MB = 1_000_000


class Settings(NamedTuple):
    """What the flags say."""

    hosts: int
    size: int  # bytes
    rate: float  # Mbit/s
    folder: str
    settle: float
    python: str  # that has libtorrent
    is_traced: bool
    flags: Tuple[str, ...] = ()  # of every node


class Result(NamedTuple):
    """What one run of a scene showed."""

    seconds: List[float]  # of each that got it, sorted
    sent: float  # by the first source, in files
    taken: float  # by all that got it, in files for each
    busy: float  # share of this machine's cores, whatever keeps them busy
    cpu: float  # seconds of CPU that the nodes used
    note: str = ""


# ---- counters of the kernel ------------------------------------------------------------------------------------------


def traffic(pid: int) -> Tuple[int, int]:
    """Bytes (received, sent) by eth0 of the host on which that process runs."""
    for line in pathlib.Path("/proc/%d/net/dev" % pid).read_text().splitlines():
        name, _, numbers = line.partition(":")
        if name.strip() == "eth0":
            columns = numbers.split()
            return int(columns[0]), int(columns[8])
    raise RuntimeError("the host has no eth0")


def cpu_times() -> Tuple[float, float]:
    """Seconds of all cores (busy, in all) since the machine started."""
    columns = [int(column) for column in pathlib.Path("/proc/stat").read_text().split("\n")[0].split()[1:9]]
    ticks = os.sysconf("SC_CLK_TCK")
    return (sum(columns) - columns[3] - columns[4]) / ticks, sum(columns) / ticks


def cpu_of(pid: int) -> float:
    """Seconds of CPU that a process has used."""
    with contextlib.suppress(OSError):
        columns = pathlib.Path("/proc/%d/stat" % pid).read_text().rpartition(")")[2].split()
        return (int(columns[11]) + int(columns[12])) / os.sysconf("SC_CLK_TCK")
    return 0.0


class Meter:
    """CPU of the machine and bytes of each host, from its making on."""

    def __init__(self, pids: Sequence[int]) -> None:
        self._pids = list(pids)
        self._began = [traffic(pid) for pid in pids]
        self._used = sum(map(cpu_of, pids))
        self._cpu = cpu_times()
        self.cpu = self.busy = 0.0

    def stop(self) -> None:
        busy, total = (after - before for before, after in zip(self._cpu, cpu_times()))
        self.busy = busy / max(total, 1e-9)
        self.cpu = sum(map(cpu_of, self._pids)) - self._used

    def received(self, number: int) -> int:
        return traffic(self._pids[number])[0] - self._began[number][0]

    def sent(self, number: int) -> int:
        return traffic(self._pids[number])[1] - self._began[number][1]


# ---- nodes -----------------------------------------------------------------------------------------------------------


class Node:
    """A node_client.py on a host, typed to; leaving the `with` stops it."""

    def __init__(self, lan: lanlab.Lan, host: int, folder: str, flags: Sequence[str] = (), first: int = 1,
                 more: Sequence[str] = ()) -> None:  # fmt: skip
        self.host = host
        self.folder = os.path.join(folder, "h%d" % host)
        os.makedirs(self.folder, exist_ok=True)
        program = [str(HERE / "bench_class.py"), "node", *flags] if flags else [str(ROOT / "node_client.py")]
        where = ["--ip", lan.ip(first), "--port", str(PORT), "--name", "h%d" % host, "--folder", self.folder]
        self.process = subprocess.Popen(
            [*lan.on(host), sys.executable, *program, *where, *more], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, bufsize=0, env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )  # fmt: skip
        self.lines: List[Tuple[float, str]] = []
        self._has_more = threading.Condition()
        self._is_at_end = False
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    @property
    def pid(self) -> int:
        return self.process.pid  # `ip netns exec` becomes the program

    @property
    def path(self) -> str:
        return os.path.join(self.folder, NAME)

    def _read(self) -> None:
        assert self.process.stdout is not None
        for data in iter(self.process.stdout.readline, b""):
            with self._has_more:
                self.lines.append((time.monotonic(), data.decode("utf-8", "replace").lstrip("> ").rstrip()))
                self._has_more.notify_all()
        with self._has_more:
            self._is_at_end = True
            self._has_more.notify_all()

    def type(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line.encode() + b"\n")

    def expect(self, *starts: str, since: int = 0, bound: float = START_BOUND) -> Tuple[float, str]:
        """When it said the first line that begins so, and the line."""
        deadline = time.monotonic() + bound
        with self._has_more:
            while True:
                for at, line in self.lines[since:]:
                    if line.startswith(starts):
                        return at, line
                left = deadline - time.monotonic()
                if self._is_at_end or left <= 0:
                    said = "\n  ".join(line for _, line in self.lines[-12:])
                    raise RuntimeError("h%d did not say %r in %.0f s:\n  %s" % (self.host, starts, bound, said))
                self._has_more.wait(left)

    def memory(self) -> float:
        """MB that were resident at most."""
        status = pathlib.Path("/proc/%d/status" % self.pid).read_text()
        return next(int(line.split()[1]) / 1000 for line in status.splitlines() if line.startswith("VmHWM"))

    def count(self, text: str) -> int:
        return sum(text in line for _, line in self.lines)

    def stop(self) -> None:
        """Ask it to leave, or end it."""
        if self.process.poll() is None:
            with contextlib.suppress(OSError):
                self.process.send_signal(signal.SIGCONT)
                self.type("Q")
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(STOP_BOUND)
        self.kill()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self._thread.join(STOP_BOUND)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


class Class:
    """The nodes of a scene: the first host's is the supernode, the holders have the file."""

    def __init__(self, settings: Settings, path: str, home: str, holders: Sequence[int], mesh: bool = True,
                 liar: int = 0, hosts: int = 0, spare: int = 0, name: str = NAME) -> None:  # fmt: skip
        self.settings, self.path, self.home = settings, path, home
        self.spare = spare  # hosts without a node, behind all others
        self.name = name  # of what is fetched: another one is put there by whoever makes the room
        self.holders, self.mesh, self.liar = list(holders), mesh, liar
        self.hosts = hosts or settings.hosts
        self.nodes: Dict[int, Node] = {}
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Class:
        try:
            self.lan = self._stack.enter_context(lanlab.Lan(self.hosts + self.spare, self.settings.rate))
            for host in self.holders:
                os.makedirs(os.path.join(self.home, "h%d" % host), exist_ok=True)
                if self.name == NAME:
                    os.link(self.path, os.path.join(self.home, "h%d" % host, NAME))
            for host in range(1, self.hosts + 1):
                self.start(host)
                if host == 1:
                    self.nodes[1].expect("* supernode at")
            for node in self.nodes.values():
                node.expect("* supernode at", "* joined")
            self._wait_until_listed()
            if not self.mesh:
                for node in self.nodes.values():
                    node.type("M off")
            time.sleep(self.settings.settle)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        threads = [threading.Thread(target=node.stop) for node in self.nodes.values()]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self._stack.close()

    def start(self, host: int) -> Node:
        flags: List[str] = []
        if self.settings.is_traced or host == self.liar:
            flags = [self.trace_of(host), str(int(host == self.liar))]
        node = self.nodes[host] = Node(self.lan, host, self.home, flags, more=self.settings.flags)
        return node

    def trace_of(self, host: int) -> str:
        return os.path.join(self.home, "trace-%d" % host)

    def _wait_until_listed(self) -> None:
        deadline = time.monotonic() + START_BOUND
        for node in self.nodes.values():
            while True:
                since = len(node.lines)
                node.type("G")
                with contextlib.suppress(RuntimeError):
                    _, line = node.expect("1  " + self.name, since=since, bound=LIST_INTERVAL)
                    if "%d source" % len(self.holders) in line:
                        break
                if time.monotonic() > deadline:
                    raise RuntimeError("h%d never listed the file" % node.host)

    def askers(self) -> List[Node]:
        return [node for host, node in self.nodes.items() if host not in self.holders]

    def meter(self) -> Meter:
        return Meter([node.pid for node in self.nodes.values()])

    def ask(self, nodes: Optional[Iterable[Node]] = None) -> float:
        """All that have it not, or these, ask for it now; when."""
        began = time.monotonic()
        for node in self.askers() if nodes is None else nodes:
            node.type("R " + self.name)
        return began

    def await_part(self, meter: Meter, part: float, nodes: Optional[Iterable[Node]] = None) -> None:
        """Wait until so large a part of all that is asked for, or that these asked for, has come."""
        hosts = [node.host - 1 for node in (self.askers() if nodes is None else nodes)]
        deadline = time.monotonic() + SCENE_BOUND
        while sum(map(meter.received, hosts)) < part * len(hosts) * self.settings.size:
            if time.monotonic() > deadline:
                raise RuntimeError("too little came")
            time.sleep(LOOK_INTERVAL)

    def await_done(self, nodes: Sequence[Node], began: float, meter: Meter, note: str = "",
                   first: int = 0, is_right: Optional[Callable[[Node], bool]] = None) -> Result:  # fmt: skip
        """Wait for their OK, and see that they have the right file."""
        times = sorted(node.expect("OK " + self.name, "!!", bound=SCENE_BOUND)[0] - began for node in nodes)
        meter.stop()
        for node in nodes:
            node.expect("OK " + self.name)
            assert (is_right or self.has_file)(node), "h%d kept another file" % node.host
        size = self.settings.size
        sent = meter.sent((first or self.holders[0]) - 1) / size
        taken = statistics.mean(meter.received(node.host - 1) for node in nodes) / size
        return Result(times, sent, taken, meter.busy, meter.cpu, note)

    def has_file(self, node: Node) -> bool:
        return bench_ends.hash_file(node.path) == digest_of(self.path)


_digests: Dict[str, bytes] = {}


def digest_of(path: str) -> bytes:
    if path not in _digests:
        _digests[path] = bench_ends.hash_file(path)
    return _digests[path]
