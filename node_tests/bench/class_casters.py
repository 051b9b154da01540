"""Other programs that send one file to a class by multicast, for the table of `bench_class.py`: udpcast and uftp.

Both with their own defaults, but the rate: a little under that of the links, for neither finds it out. Debian has them
in the packages `udpcast` and `uftp`. Their time goes from the start of the sender, who waits for the receivers.
"""

from __future__ import annotations

import contextlib
import os
import queue
import resource
import subprocess
import threading
import time
from typing import Callable, List

from node_tests.bench import bench_ends, lanlab
from node_tests.bench.classroom import SCENE_BOUND, Meter, Result, Settings, digest_of

RATE_PART = 0.94  # of the links' rate, in bytes of files: the rest is headers
RECEIVERS_READY = 1.0  # seconds until they listen

Command = Callable[[int], List[str]]


def udpcast(settings: Settings, path: str, home: str) -> Result:
    """udp-sender on the first host; nobody presses a key."""
    rate = "%dk" % (settings.rate * 1000 * RATE_PART)
    receivers = settings.hosts - 1
    send = ["udp-sender", "--file", path, "--min-receivers", str(receivers), "--nokbd", "--max-bitrate", rate,
            "--interface", "eth0"]  # fmt: skip

    def take(host: int) -> List[str]:
        return ["udp-receiver", "--file", _copy(home, host), "--nokbd", "--interface", "eth0"]

    return _cast(settings, path, home, send, take)


def udpcast_thirty(settings: Settings, path: str, home: str) -> Result:
    """To thirty."""
    return udpcast(settings._replace(hosts=31), path, home)


def uftp(settings: Settings, path: str, home: str) -> Result:
    """uftp on the first host, told whom to wait for; uftpd on the others ends when the file is there."""
    hosts = ["0x%08x" % host for host in range(2, settings.hosts + 1)]
    send = ["uftp", "-q", "-R", str(int(settings.rate * 1000 * RATE_PART)), "-I", "eth0", "-H", ",".join(hosts),
            "-D", "image.bin", path]  # fmt: skip

    def take(host: int) -> List[str]:
        os.makedirs(os.path.join(home, "h%d" % host), exist_ok=True)
        where = os.path.join(home, "h%d" % host)
        return ["uftpd", "-d", "-q", "-t", "-I", "eth0", "-U", "0x%08x" % host, "-D", where, "-P", where + ".pid"]

    return _cast(settings, path, home, send, take, is_daemon=True)


def uftp_thirty(settings: Settings, path: str, home: str) -> Result:
    """To thirty."""
    return uftp(settings._replace(hosts=31), path, home)


def _copy(home: str, host: int) -> str:
    os.makedirs(os.path.join(home, "h%d" % host), exist_ok=True)
    return os.path.join(home, "h%d" % host, "image.bin")


def _cast(settings: Settings, path: str, home: str, send: List[str], take: Command, is_daemon: bool = False) -> Result:
    """Receivers first; a receiver that is a daemon goes on, so its time is the sender's."""
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with lanlab.Lan(settings.hosts, settings.rate) as lan, contextlib.ExitStack() as stack:
        ends: queue.SimpleQueue[float] = queue.SimpleQueue()
        processes = []
        counter = subprocess.Popen([*lan.on(1), "sleep", str(int(2 * SCENE_BOUND))], **quiet)  # type: ignore[call-overload]
        stack.callback(counter.wait)  # it stays, so that what its host has sent can be read
        stack.callback(counter.kill)
        for host in range(2, settings.hosts + 1):
            process = subprocess.Popen([*lan.on(host), *take(host)], **quiet)  # type: ignore[call-overload]
            stack.callback(process.wait)
            stack.callback(process.kill)
            processes.append(process)
        time.sleep(RECEIVERS_READY)
        meter, used, began = Meter([counter.pid]), _used(), time.monotonic()
        sender = subprocess.Popen([*lan.on(1), *send], **quiet)  # type: ignore[call-overload]
        stack.callback(sender.wait)
        stack.callback(sender.kill)
        watched = [sender] if is_daemon else processes
        for process in watched:
            threading.Thread(target=lambda one=process: ends.put(_ended(one)), daemon=True).start()  # type: ignore[misc]
        times = sorted(ends.get(timeout=SCENE_BOUND) - began for _ in watched)
        sent = meter.sent(0) / settings.size
        meter.stop()
        for process in (sender, *processes):
            process.kill()
            process.wait()
        right = sum(_is_right(_copy(home, host), path) for host in range(2, settings.hosts + 1))
        return Result(times, sent, 1.0, meter.busy, _used() - used, "%d of %d have it" % (right, settings.hosts - 1))


def _used() -> float:
    """Seconds of CPU of all processes that were begun here and have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _ended(process: subprocess.Popen[bytes]) -> float:
    process.wait()
    return time.monotonic()


def _is_right(copy: str, path: str) -> bool:
    return os.path.exists(copy) and bench_ends.hash_file(copy) == digest_of(path)
