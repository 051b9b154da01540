"""Two hosts joined by an emulated link, or by a veth pair, on one Linux machine; needs root.

    python node_tests/bench/netlab.py [--rate MBIT] [--delay MS] [--loss P] [--queue MS] [--reorder P] [--duplicate P]
                                [--jitter MS] [--late MS] [--loss-back P] [--mtu N] [--script FILE] [--stats]
                                -- SHELL COMMAND

`Link` makes two network namespaces, each with a TUN device, and carries every IP packet between them through a
bottleneck: a drop-tail queue at a rate each way, then a delay, with independent random loss, jitter, reordering and
duplication. Kernel TCP and UDP both cross the same link, so a transport can be held against TCP in one run.
`Veth` makes the two namespaces with a plain veth pair of MTU 1500 between them.

As a program it runs the command with A and B set to "ip netns exec ..." (put one before a command to run it on that
host) and A_IP, B_IP to the addresses, and exits with its status. --script FILE holds lines "SECONDS KEY VALUE" that
change rate, delay, jitter, late, loss, loss_back, reorder, duplicate, queue, mtu or cut (1 drops everything, 0
restores) meanwhile.
Packets over mtu are dropped silently: a black hole for who trusts in ICMP.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import heapq
import itertools
import os
import random
import select
import signal
import struct
import subprocess
import sys
import threading
import time
from typing import Deque, Dict, List, Optional, Tuple, TypeVar

TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000  # Linux's names
READS_PER_TURN = 64  # packets of one side before the other has its turn
IDLE_WAIT = 0.05  # seconds between two looks whether to stop
LATE_MIN, LATE_MAX = 0.001, 0.010  # seconds that a packet out of order comes late
ADDRESSES = ("198.18.0.1", "198.18.0.2")  # RFC 2544 §C.2.2: of networks under test, nobody's elsewhere
# Of what a person gives: Mbit/s and milliseconds.
UNITS = {"rate": 1e6, "delay": 1e-3, "queue": 1e-3, "jitter": 1e-3, "late": 1e-3}

_count = itertools.count(1)
Lab = TypeVar("Lab", bound="Hosts")


@dataclasses.dataclass
class Conditions:
    """What a link does to packets; may change while it carries some."""

    rate: float = 0.0  # bits per second each way; 0: unlimited
    delay: float = 0.0  # seconds one way
    loss: float = 0.0  # probability, a -> b
    loss_back: float = 0.0  # probability, b -> a
    queue: float = 0.05  # seconds at the rate; what finds more before it is dropped
    reorder: float = 0.0  # probability of coming late
    duplicate: float = 0.0
    mtu: int = 0  # bytes; larger packets are dropped silently; 0: the devices' 1500
    cut: float = 0.0  # 1: nothing arrives
    jitter: float = 0.0  # seconds, up to so much more for each packet, in order: as the radio's own repeats do it
    late: float = 0.0  # seconds, the same, and packets overtake each other


class Direction:
    """One way of the link: queue, bottleneck, delay line, far device."""

    def __init__(self, out: int, conditions: Conditions, is_back: bool, rng: random.Random) -> None:
        self.free_at = 0.0  # instant at which the bottleneck has sent all that is queued
        self.carried = self.queue_drops = self.lost = 0
        self.queue_peak = 0.0  # seconds
        self._out, self._conditions, self._is_back, self._rng = out, conditions, is_back, rng
        self._line: Deque[Tuple[float, bytes]] = collections.deque()
        self._line_end = 0.0  # instant at which the last of the line arrives
        self._late: List[Tuple[float, int, bytes]] = []  # heap of what leaves the order
        self._ties = itertools.count()

    def queue_delay(self, now: float) -> float:
        """Seconds that a packet that came now would wait."""
        return max(0.0, self.free_at - now)

    def take(self, packet: bytes, now: float) -> None:
        """A packet enters the queue, or is dropped."""
        conditions, rng = self._conditions, self._rng
        if conditions.cut or (conditions.mtu and len(packet) > conditions.mtu):
            self.lost += 1
            return
        start = max(now, self.free_at)
        if conditions.rate:
            if start - now > conditions.queue:
                self.queue_drops += 1
                return
            self.queue_peak = max(self.queue_peak, start - now)
            start += len(packet) * 8 / conditions.rate
        self.free_at = start
        loss = conditions.loss_back if self._is_back else conditions.loss
        if loss and rng.random() < loss:
            self.lost += 1
            return
        self._line_up(packet, start + conditions.delay)

    def _line_up(self, packet: bytes, at: float) -> None:
        conditions, rng = self._conditions, self._rng
        copies = 2 if conditions.duplicate and rng.random() < conditions.duplicate else 1
        for _ in range(copies):
            arrival = at + (rng.random() * conditions.jitter if conditions.jitter else 0.0)
            if conditions.late:
                heapq.heappush(self._late, (arrival + rng.random() * conditions.late, next(self._ties), packet))
            elif conditions.reorder and rng.random() < conditions.reorder:
                heapq.heappush(self._late, (arrival + rng.uniform(LATE_MIN, LATE_MAX), next(self._ties), packet))
            else:
                self._line_end = max(arrival, self._line_end)
                self._line.append((self._line_end, packet))

    def deliver(self, now: float) -> float:
        """Hand on what is due; the instant at which more will be."""
        line, late = self._line, self._late
        while line and line[0][0] <= now:
            self._hand_on(line.popleft()[1])
        while late and late[0][0] <= now:
            self._hand_on(heapq.heappop(late)[2])
        return min(line[0][0] if line else float("inf"), late[0][0] if late else float("inf"))

    def _hand_on(self, packet: bytes) -> None:
        try:
            os.write(self._out, packet)
            self.carried += 1
        except OSError:  # the namespace is gone, or its device is full
            self.lost += 1


class Hosts:
    """Two network namespaces; leaving the `with` removes them."""

    ips = ADDRESSES

    def __init__(self) -> None:
        number = "%d-%d" % (os.getpid(), next(_count))
        self.names = ["lab-%s-%s" % (letter, number) for letter in "ab"]

    def __enter__(self: Lab) -> Lab:
        try:
            for name in self.names:
                run_tool("ip", "netns", "add", name)
            self._join()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for name in self.names:
            subprocess.run(["ip", "netns", "del", name], stderr=subprocess.DEVNULL)

    def _join(self) -> None:
        raise NotImplementedError

    def on(self, host: int) -> List[str]:
        """What to put before a command so that it runs on that host (0 or 1)."""
        return ["ip", "netns", "exec", self.names[host]]

    def _bring_up(self, host: int, device: str, *options: str) -> None:
        name = self.names[host]
        run_tool("ip", "-n", name, "link", "set", "lo", "up")
        run_tool("ip", "-n", name, "addr", "add", self.ips[host] + "/24", "dev", device)
        run_tool("ip", "-n", name, "link", "set", device, *options, "up")


class Veth(Hosts):
    """Two hosts on a veth pair, as fast as the kernel carries."""

    def _join(self) -> None:
        run_tool("ip", "-n", self.names[0], "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns",
             self.names[1])  # fmt: skip
        for host in (0, 1):
            self._bring_up(host, "eth0", "mtu", "1500")


class Link(Hosts):
    """Two hosts and the thread that carries their packets under `conditions`."""

    def __init__(self, conditions: Conditions, seed: int = 1) -> None:
        super().__init__()
        self.conditions = conditions
        self.ways: List[Direction] = []  # a -> b, b -> a
        self._rng = random.Random(seed)
        self._devices: List[int] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._carry, name="link", daemon=True)

    def _join(self) -> None:
        for host in (0, 1):
            device = "t%d-%d" % (os.getpid(), next(_count))
            self._devices.append(_tun_in(self.names[host], device))
            self._bring_up(host, device, "txqueuelen", "10000")
        there, back = self._devices[1], self._devices[0]
        self.ways = [
            Direction(there, self.conditions, False, self._rng),
            Direction(back, self.conditions, True, self._rng),
        ]
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        super().__exit__()
        for device in self._devices:
            os.close(device)

    def _carry(self) -> None:
        way_from = dict(zip(self._devices, self.ways))
        while not self._stop.is_set():
            now = time.monotonic()
            due = min(way.deliver(now) for way in self.ways)
            wait = min(max(0.0, due - time.monotonic()), IDLE_WAIT)
            readable, _, _ = select.select(self._devices, [], [], wait)  # poll would round to a millisecond
            for device in readable:
                self._take_from(device, way_from[device])

    def _take_from(self, device: int, way: Direction) -> None:
        for _ in range(READS_PER_TURN):
            try:
                packet = os.read(device, 65_600)
            except OSError:  # nothing more, or the namespace is gone
                return
            way.take(packet, time.monotonic())

    def change(self, key: str, value: float) -> None:
        """Change one of the conditions, in the units of the command line."""
        if key not in {field.name for field in dataclasses.fields(Conditions)}:
            raise ValueError("a link has no %r" % key)
        setattr(self.conditions, key, value * UNITS.get(key, 1))

    def stats(self) -> str:
        """What each way did, in lines for a person."""
        return "\n".join(
            "link %s: carried %d, queue drops %d, lost %d, peak queue %.0f ms"
            % (name, way.carried, way.queue_drops, way.lost, way.queue_peak * 1e3)
            for name, way in zip(("a->b", "b->a"), self.ways)
        )


def run_tool(*command: str) -> None:
    """Run a program of the system; an error if it fails."""
    subprocess.run(command, check=True)


def _tun_in(namespace: str, name: str) -> int:
    """A TUN device that lives in the namespace; the descriptor stays usable here."""
    import fcntl  # Linux only, as all of this, but the file can be imported elsewhere

    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))
    run_tool("ip", "link", "set", name, "netns", namespace)
    return device


def missing() -> str:
    """Why no namespaces can be made here; empty when they can."""
    if not sys.platform.startswith("linux"):
        return "network namespaces are Linux's"
    if os.geteuid() != 0:
        return "network namespaces need root"
    return "" if os.path.exists("/dev/net/tun") else "there is no /dev/net/tun"


def end_well() -> None:
    """Let SIGTERM end the program as Ctrl-C does, so that no namespace stays behind."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


def play(link: Link, path: str) -> None:
    """Change the conditions as the script says."""
    began = time.monotonic()
    with open(path, encoding="utf-8") as script:
        for line in script:
            if line.strip() and not line.startswith("#"):
                at, key, value = line.split()
                time.sleep(max(0.0, began + float(at) - time.monotonic()))
                link.change(key, float(value))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=0, help="Mbit/s each way; 0: unlimited")
    parser.add_argument("--delay", type=float, default=0, help="ms one way")
    parser.add_argument("--loss", type=float, default=0, help="probability a -> b, and b -> a but for --loss-back")
    parser.add_argument("--loss-back", type=float, help="probability b -> a")
    parser.add_argument("--queue", type=float, default=50, help="ms at the rate")
    parser.add_argument("--reorder", type=float, default=0, help="probability of coming late")
    parser.add_argument("--jitter", type=float, default=0, help="ms more at most, in order")
    parser.add_argument("--late", type=float, default=0, help="ms more at most, out of order")
    parser.add_argument("--duplicate", type=float, default=0, help="probability")
    parser.add_argument("--mtu", type=int, default=0, help="drop larger packets silently; 0: the devices' 1500")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--script", metavar="FILE")
    parser.add_argument("--stats", action="store_true", help="say at the end what each way did")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    arguments = parser.parse_args()
    if arguments.command[:1] == ["--"]:
        del arguments.command[0]
    if not arguments.command:
        parser.error("no command")
    return arguments


def _conditions(arguments: argparse.Namespace) -> Conditions:
    loss_back = arguments.loss if arguments.loss_back is None else arguments.loss_back
    return Conditions(
        arguments.rate * 1e6, arguments.delay / 1e3, arguments.loss, loss_back, arguments.queue / 1e3,
        arguments.reorder, arguments.duplicate, arguments.mtu, 0.0, arguments.jitter / 1e3, arguments.late / 1e3,
    )  # fmt: skip


def _environment(link: Link) -> Dict[str, str]:
    a, b = (" ".join(link.on(host)) for host in (0, 1))
    return {**os.environ, "A": a, "B": b, "A_IP": link.ips[0], "B_IP": link.ips[1]}


def main() -> int:
    """Run the command on the link that the flags describe."""
    arguments = _arguments()
    trouble: Optional[str] = missing()
    if trouble:
        sys.exit(trouble)
    end_well()
    with Link(_conditions(arguments), arguments.seed) as link:
        if arguments.script:
            threading.Thread(target=play, args=(link, arguments.script), daemon=True).start()
        is_line = len(arguments.command) == 1
        command = arguments.command[0] if is_line else arguments.command
        status = subprocess.run(command, shell=is_line, env=_environment(link)).returncode
        if arguments.stats:
            print(link.stats(), file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
