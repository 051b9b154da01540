"""A lab of N hosts on one switch, on one Linux machine, as root; nothing of it reaches another network.

    python node_tests/bench/lanlab.py [--hosts N] [--rate MBIT] [--queue MS] -- SHELL COMMAND

One network namespace a host, with 198.18.0.1 .. 198.18.0.N/24, each on a veth pair into a bridge (the switch) in a
namespace of its own, so that broadcasts reach every host. With --rate, each host's uplink and downlink are limited to
it (the kernel's token bucket, --queue milliseconds deep). The command runs with H1 .. HN set to what puts a command on
that host (`$H3 CMD`), IP1 .. IPN to the addresses, and SW to the same for the switch (`$SW ip link set p3 down`).
"""

from __future__ import annotations

import argparse
import contextlib
import os
import pathlib
import subprocess
import sys
from typing import Dict, List

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

from node_tests.bench import netlab
from node_tests.bench.netlab import run_tool

BURST = "64kb"  # of the token bucket: a batch of datagrams that travels whole
HOSTS_MAX = 250
NEIGHBOURS = {"gc_thresh1": 128, "gc_thresh2": 512, "gc_thresh3": 1024}  # the room in one host's table
NEIGHBOUR_FOLDERS = [pathlib.Path("/proc/sys/net/%s/neigh/default" % family) for family in ("ipv4", "ipv6")]


class Lan:
    """Hosts numbered from 1; leaving the `with` removes them."""

    def __init__(self, hosts: int, rate: float = 0.0, queue: float = 50.0) -> None:
        self.rate = rate  # Mbit/s each way of each host; 0: unlimited
        self.queue = queue  # ms
        self.switch = "sw-%d" % os.getpid()
        self.names = ["h%d-%d" % (number, os.getpid()) for number in range(1, hosts + 1)]
        self._before: Dict[pathlib.Path, str] = {}  # what was changed of the kernel

    def __enter__(self) -> Lan:
        try:
            self._make_room_for_neighbours()
            run_tool("ip", "netns", "add", self.switch)
            run_tool("ip", "-n", self.switch, "link", "add", "br0", "type", "bridge")
            for device in ("lo", "br0"):
                run_tool("ip", "-n", self.switch, "link", "set", device, "up")
            for number in range(1, len(self.names) + 1):
                self._add_host(number)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for name in [*self.names, self.switch]:
            subprocess.run(["ip", "netns", "del", name], stderr=subprocess.DEVNULL)
        for setting, value in self._before.items():
            setting.write_text(value)

    def _make_room_for_neighbours(self) -> None:
        """Hosts have a table of neighbours each, but all namespaces share one: full, it has packets dropped untold."""
        for folder in NEIGHBOUR_FOLDERS:
            for name, each in reversed(NEIGHBOURS.items()):
                setting, wanted = folder / name, each * len(self.names)
                # Not there, or in a container for reading only: few hosts need no more.
                with contextlib.suppress(OSError):
                    before = setting.read_text()
                    if int(before) < wanted:
                        setting.write_text(str(wanted))
                        self._before[setting] = before

    def _add_host(self, number: int) -> None:
        host, switch, port = self.names[number - 1], self.switch, "p%d" % number
        run_tool("ip", "netns", "add", host)
        run_tool("ip", "-n", switch, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", host)
        run_tool("ip", "-n", switch, "link", "set", port, "master", "br0")
        run_tool("ip", "-n", switch, "link", "set", port, "up")
        run_tool("ip", "-n", host, "link", "set", "lo", "up")
        run_tool("ip", "-n", host, "addr", "add", self.ip(number) + "/24", "brd", "+", "dev", "eth0")
        run_tool("ip", "-n", host, "link", "set", "eth0", "up")
        if self.rate:
            self.limit(number, self.rate)

    def limit(self, number: int, rate: float) -> None:
        """Give that host so many Mbit/s each way."""
        for where, device in ((self.names[number - 1], "eth0"), (self.switch, "p%d" % number)):
            run_tool("tc", "-n", where, "qdisc", "replace", "dev", device, "root", "tbf", "rate", "%gmbit" % rate,
                     "burst", BURST, "latency", "%gms" % self.queue)  # fmt: skip

    def ip(self, number: int) -> str:
        return "198.18.0.%d" % number

    def on(self, number: int) -> List[str]:
        """What to put before a command so that it runs on that host."""
        return ["ip", "netns", "exec", self.names[number - 1]]

    def environment(self) -> Dict[str, str]:
        """The same for shell commands."""
        found = {"SW": "ip netns exec " + self.switch}
        for number in range(1, len(self.names) + 1):
            found["H%d" % number] = " ".join(self.on(number))
            found["IP%d" % number] = self.ip(number)
        return found


def missing() -> str:
    """Why no such lab can be made here; empty when it can."""
    return netlab.missing()


def main() -> int:
    """Run the command in the lab that the flags describe."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hosts", type=int, default=3)
    parser.add_argument("--rate", type=float, default=0, help="Mbit/s up and down for each host; 0: unlimited")
    parser.add_argument("--queue", type=float, default=50, help="ms at the rate")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    arguments = parser.parse_args()
    command = arguments.command[1:] if arguments.command[:1] == ["--"] else arguments.command
    if not command or not 0 < arguments.hosts <= HOSTS_MAX:
        parser.error("no command" if not command else "1 to %d hosts" % HOSTS_MAX)
    trouble = missing()
    if trouble:
        sys.exit(trouble)
    netlab.end_well()
    with Lan(arguments.hosts, arguments.rate, arguments.queue) as lan:
        is_line = len(command) == 1
        environment = {**os.environ, **lan.environment()}
        return subprocess.run(command[0] if is_line else command, shell=is_line, env=environment).returncode


if __name__ == "__main__":
    sys.exit(main())
