"""Which program has a UDP port of this machine, as far as this user may know.

`read` gives the text of a file, `run` what a program prints, both None when that cannot be had: the doors are handed
in. Linux tells it in /proc (proc(5)); elsewhere lsof and netstat are asked.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
from typing import Callable, Iterator, Optional, Sequence

from protocol.facts import Holder

Read = Callable[[str], Optional[str]]
Run = Callable[[Sequence[str]], Optional[str]]

LINES_MAX = 20_000  # of a table of sockets
LINKS_MAX = 200_000  # descriptors that are looked at


def holder_of(read: Read, run: Run, port: int, platform: str = sys.platform) -> Optional[Holder]:
    """Who has it; None when nobody has, or nothing tells. `Holder()`: somebody of whom nothing is told."""
    if platform.startswith("linux"):
        return _by_proc(read, port)
    if platform == "win32":
        return _by_netstat(run, port)
    return _by_lsof(run(["lsof", "-nP", "-a", f"-iUDP:{port}", "-Fpc"]) or "")


# ---- Linux


def _by_proc(read: Read, port: int) -> Optional[Holder]:
    inodes = {inode for name in ("udp", "udp6") for inode in _inodes(read(f"/proc/net/{name}") or "", port)}
    if not inodes:
        return None
    for pid in _pids_with(inodes):
        return Holder(_name_of(read, pid), pid)
    return Holder()


def _inodes(table: str, port: int) -> Iterator[str]:
    """Of the sockets that are bound to that port, as /proc/net/udp has them: address:port in hex, ..., inode."""
    for line in table.splitlines()[1:LINES_MAX]:
        words = line.split()
        if len(words) > 9 and words[1].rpartition(":")[2] == f"{port:04X}":
            yield words[9]


def _pids_with(inodes: set[str]) -> Iterator[int]:
    wanted, seen = {f"socket:[{inode}]" for inode in inodes}, 0
    for pid in filter(str.isdigit, _entries("/proc")):
        for descriptor in _entries(f"/proc/{pid}/fd"):
            seen += 1
            with contextlib.suppress(OSError):  # it has ended, or closed it
                if os.readlink(f"/proc/{pid}/fd/{descriptor}") in wanted:
                    yield int(pid)
                    break
        if seen > LINKS_MAX:
            return


def _entries(folder: str) -> Sequence[str]:
    with contextlib.suppress(OSError):  # another user's
        return os.listdir(folder)
    return ()


def _name_of(read: Read, pid: int) -> str:
    """What it was started as: of a script its own name, not that of what reads it."""
    words = [word for word in (read(f"/proc/{pid}/cmdline") or "").split("\0") if word]
    program = os.path.basename(words[0]) if words else ""
    if re.fullmatch(r"(python|pypy|perl|ruby|node|sh|bash)[\d.]*", program):
        script = next((word for word in words[1:] if not word.startswith("-")), "")
        return os.path.basename(script)[:40] or program
    return program[:40]


# ---- elsewhere


def _by_lsof(told: str) -> Optional[Holder]:
    """`p812` and `cnc`, a line each."""
    pid, name = re.search(r"^p(\d{1,9})$", told, re.M), re.search(r"^c(.+)$", told, re.M)
    return Holder(name.group(1)[:40] if name else "", int(pid.group(1))) if pid else None


def _by_netstat(run: Run, port: int) -> Optional[Holder]:
    """`  UDP    0.0.0.0:6020    *:*    812`, and the name of 812 in the first of a row of quoted cells."""
    found = re.search(rf"^ *UDP +\S+:{port} +\S+ +(\d{{1,9}}) *$", run(["netstat", "-ano", "-p", "UDP"]) or "", re.M)
    if not found:
        return None
    row = run(["tasklist", "/FI", f"PID eq {found.group(1)}", "/FO", "CSV", "/NH"]) or ""
    name = re.match(r'\s*"([^"]+)"', row)
    return Holder(name.group(1)[:40] if name else "", int(found.group(1)))
