"""How the program does with many files and with huge ones, on loopback, as a person has it.

    python node_tests/bench/bench_files.py [--cases small,scan,list,sparse,yield] [--files N] [--scanned N] [--flat]
                                           [--listed N] [--sparse GIB] [--runs N] [--folder DIR] [--markdown]

    small    one `R` of a folder of 10,000 files of 1 kB: files per second in all and by tenths; rsync's daemon beside
    scan     100,000 files shared: how soon the prompt answers meanwhile, when all are listed, and a second start
    list     `G` with 5,000 entries: how soon it has answered, on the supernode and on a member
    sparse   a sparse file of 5 GiB shared and fetched: the memory of both ends
    yield    a file fetched while its source hashes a huge one

Speed and memory are never asserted: they belong to the machine.
"""

from __future__ import annotations

import argparse
import contextlib
import filecmp
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
from pathlib import Path
from typing import Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

from node_tests.bench import bench_link, bench_peers, bench_transport
from node_tests.stage import running
from node_tests.stage.running import Running, free_port

running.PATIENCE = 900.0  # seconds; a bound, not an expectation
G_EVERY = 0.7  # seconds: who asks for long lists more often has to wait for it
ASK_EVERY = 0.1  # seconds between two questions to a busy node
FLAT_SECONDS = 12.0  # for which a node is asked that lists no more than a part of its files
SMALL_SIZE = 1000  # bytes of a small file
GIB = 1 << 30


class Figure(NamedTuple):
    """One line of the table."""

    case: str
    what: str
    value: str
    aim: str = ""


# ---- nodes and files ----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def node(home: Path, port: int, name: str) -> Iterator[Running]:
    """A program in a folder of its own, as soon as its process runs."""
    (home / name / "shared").mkdir(parents=True, exist_ok=True)
    flags = ["--ip", "127.0.0.1", "--port", port, "--name", name, "--folder", home / name / "shared"]
    with Running("node_client.py", *flags, cwd=home / name) as one:
        yield one
        one.type("Q")
        with contextlib.suppress(AssertionError):
            one.end()


def is_up(one: Running) -> Running:
    one.expect(r"^\* (joined|supernode at)")
    return one


def make_files(folder: Path, count: int, size: int, per_folder: int = 1000) -> None:
    """Files of different contents, so many in each folder."""
    for start in range(0, count, per_folder):
        inner = folder / ("d%03d" % (start // per_folder)) if per_folder < count else folder
        inner.mkdir(parents=True, exist_ok=True)
        for number in range(start, min(start + per_folder, count)):
            head = b"%09d " % number
            (inner / ("f%06d.txt" % number)).write_bytes((head * (size // len(head) + 1))[:size])


def seconds_for(one: Running, command: str, pattern: str) -> float:
    """From typing a command until the line that ends its answer."""
    began = time.perf_counter()
    one.ask(command, pattern)
    return time.perf_counter() - began


def memory_of(one: Running) -> str:
    return "%.0f MB" % ((bench_transport.peak_of(one.process.pid) or 0) / 1e6)


def cpu_of(one: Running) -> float:
    """Seconds of a core that it has used."""
    words = Path("/proc/%d/stat" % one.process.pid).read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


# ---- the cases ----------------------------------------------------------------------------------------------------


def case_small(home: Path, arguments: argparse.Namespace) -> List[Figure]:
    """A folder of many small files by one R; the time of each file is when it got its name."""
    source = home / "ana" / "shared" / "many"
    make_files(source, arguments.files, SMALL_SIZE, arguments.files)
    port = free_port()
    with node(home, port, "ana") as ana:
        is_up(ana).ask_until("G", r"many/ \(%d files\)" % arguments.files)
        with node(home, port, "bo") as bo:
            is_up(bo)
            used = cpu_of(ana), cpu_of(bo)
            began, wall = time.perf_counter(), time.time()
            bo.ask("R many", r"^(OK|!!) many")
            seconds = time.perf_counter() - began
            used = cpu_of(ana) - used[0], cpu_of(bo) - used[1]
            memory = "source %s, requester %s" % (memory_of(ana), memory_of(bo))
    target = home / "bo" / "shared" / "many"
    named = sorted(os.stat(entry.path).st_ctime for entry in os.scandir(target))
    assert len(named) == arguments.files
    _, differ, missing = filecmp.cmpfiles(source, target, os.listdir(source), shallow=False)
    assert not differ and not missing
    tenths = tenths_of([wall, *named])
    return [
        Figure("small", "files per second by one R", "%.0f" % (arguments.files / seconds), ">= 1,000"),
        Figure("small", "the same by tenths", " ".join("%.0f" % rate for rate in tenths)),
        Figure("small", "the last tenth against the first", "%.2f" % (tenths[-1] / tenths[0]), ">= 0.80"),
        Figure("small", "seconds of a core, source and requester", "%.1f and %.1f" % used),
        Figure("small", "memory at most", memory),
        *rsync_figures(source, home),
    ]


def tenths_of(times: Sequence[float]) -> List[float]:
    """Events per second in each tenth of them."""
    count = (len(times) - 1) // 10
    return [count / max(times[(part + 1) * count] - times[part * count], 1e-6) for part in range(10)]


def rsync_figures(source: Path, home: Path) -> List[Figure]:
    if shutil.which("rsync") is None:
        return [Figure("small", "rsync daemon", "not present")]
    port = free_port(socket.SOCK_STREAM)
    config = home / "config"
    as_root = "uid = 0\ngid = 0\n" if hasattr(os, "geteuid") and os.geteuid() == 0 else ""
    config.write_text("use chroot = no\n%s[share]\npath = %s\nread only = yes\n" % (as_root, source))
    daemon = ["rsync", "--daemon", "--no-detach", "--config", str(config), "--address", "127.0.0.1"]
    figures = []
    with bench_peers._serving(*daemon, "--port", str(port), port=port):
        for words, what in (([], "rsync daemon"), (["--fsync"], "rsync daemon, each file flushed")):
            target = home / "rsync"
            command = ["rsync", "-r", *words, "rsync://127.0.0.1:%d/share/" % port, str(target)]
            began = time.perf_counter()
            is_done = subprocess.run(command, stderr=subprocess.DEVNULL).returncode == 0
            seconds = time.perf_counter() - began
            if is_done:
                rate = len(os.listdir(target)) / seconds
                figures.append(Figure("small", what, "%.0f files/s" % rate))
            shutil.rmtree(target, ignore_errors=True)
    return figures


def case_scan(home: Path, arguments: argparse.Namespace) -> List[Figure]:
    """Many files shared: the first start hashes all, the second none."""
    make_files(home / "ana" / "shared", arguments.scanned, 100, arguments.scanned if arguments.flat else 1000)
    folders = 0 if arguments.flat else -(-arguments.scanned // 1000)
    figures = []
    for start in ("first", "second"):
        port = free_port()
        began = time.perf_counter()
        with node(home, port, "ana") as ana:
            is_up(ana)
            joined = time.perf_counter() - began
            answers, ready = ask_while_scanning(ana, folders, began)
            figures += [
                Figure("scan", "%s start: the node is up" % start, "%.2f s" % joined),
                Figure("scan", "%s start: all %d files are listed" % (start, arguments.scanned), "%.1f s" % ready,
                       "<= 3 s" if start == "second" else ""),
                Figure("scan", "%s start: the prompt's answer meanwhile, median and most" % start,
                       "%.0f and %.0f ms" % (statistics.median(answers) * 1e3, max(answers) * 1e3), "<= 200 ms"),
                Figure("scan", "%s start: memory at most" % start, memory_of(ana)),
            ]  # fmt: skip
            time.sleep(arguments.rest)
            used = cpu_of(ana)
            time.sleep(arguments.rest)
            at_rest = (cpu_of(ana) - used) / max(arguments.rest, 0.1)
            figures.append(Figure("scan", "%s start: at rest later" % start, "%.1f %% of a core" % (at_rest * 100)))
    return figures


def ask_while_scanning(one: Running, folders: int, began: float) -> tuple[List[float], float]:
    """How long each answer took until all is listed, and when that was."""
    answers, number, done = [], 0, 0.0
    while True:
        number += 1
        answers.append(seconds_for(one, "W", r"this is you$"))
        answers.append(seconds_for(one, "T hello %d" % number, r"^<ana> hello %d$" % number))
        since = len(one.lines)
        answers.append(seconds_for(one, "G d*\nunknown%d" % number, r'^Unknown: "unknown%d' % number))
        listed = sum("files)" in line for line in one.lines[since:])
        whole = sum("(1000 files)" in line for line in one.lines[since:])
        is_whole = listed >= folders and whole >= folders - 1 if folders else one.count("^. Only the first 10000 files")
        if is_whole and not done:
            done = time.perf_counter() - began
        if is_whole and (folders or time.perf_counter() - began > FLAT_SECONDS):
            return answers, done
        time.sleep(ASK_EVERY)


def case_list(home: Path, arguments: argparse.Namespace) -> List[Figure]:
    """A long list, asked again and again."""
    make_files(home / "ana" / "shared", arguments.listed, 20, arguments.listed)
    port, figures = free_port(), []
    with node(home, port, "ana") as ana, node(home, port, "bo") as bo:
        is_up(ana)
        is_up(bo).ask_until("G f%06d*" % (arguments.listed - 1), r"f%06d\.txt" % (arguments.listed - 1))
        for one, where in ((ana, "on the supernode"), (bo, "on a member")):
            for command in ("G", "G f*9.txt"):
                times = []
                for number in range(10):
                    mark = "unknown%s%d" % (command[-5:-4], number)
                    times.append(seconds_for(one, "%s\n%s" % (command, mark), r'^Unknown: "%s' % mark))
                    time.sleep(G_EVERY)
                value = "%.0f and %.0f ms" % (statistics.median(times) * 1e3, max(times) * 1e3)
                what = "%s of %d entries %s, median and most" % (command, arguments.listed, where)
                figures.append(Figure("list", what, value, "<= 300 ms"))
    return figures


def case_sparse(home: Path, arguments: argparse.Namespace) -> List[Figure]:
    """A huge file of which the disk holds almost nothing at the source."""
    size = arguments.sparse * GIB
    (home / "ana" / "shared").mkdir(parents=True)
    path = home / "ana" / "shared" / "huge.bin"
    with open(path, "wb") as file:
        file.truncate(size)
        for place in (0, size // 3, size - 4096):
            file.seek(place)
            file.write(b"%020d" % place)
    free = shutil.disk_usage(home).free
    if free < size * 1.1:
        return [Figure("sparse", "the disk has no room", "%.1f GB free" % (free / 1e9))]
    port = free_port()
    with node(home, port, "ana") as ana, node(home, port, "bo") as bo:
        is_up(ana)
        hashing = time.perf_counter()
        is_up(bo).ask_until("G huge*", r"huge\.bin")
        hashing = time.perf_counter() - hashing
        began = time.perf_counter()
        line = bo.ask("R huge.bin", r"^(OK|!!) huge").string
        seconds = time.perf_counter() - began
        memory = [memory_of(ana), memory_of(bo)]
    is_right = line.startswith("OK") and filecmp.cmp(path, home / "bo" / "shared" / "huge.bin", shallow=False)
    return [
        Figure("sparse", "%d GiB, hashed" % arguments.sparse, "%.0f s" % hashing),
        Figure("sparse", "fetched" + ("" if is_right else ", and is WRONG"), "%.0f MB/s" % (size / seconds / 1e6)),
        Figure("sparse", "memory at most, source and requester", " and ".join(memory), "<= 120 MB"),
    ]


def case_yield(home: Path, arguments: argparse.Namespace) -> List[Figure]:
    """A file fetched while its source has nothing else to do, and while it hashes a huge one."""
    shared, port, rates = home / "ana" / "shared", free_port(), []
    shared.mkdir(parents=True)
    for name in ("first.bin", "second.bin"):
        with open(shared / name, "wb") as file:
            for _ in range(512):
                file.write(os.urandom(1 << 20))
    with node(home, port, "ana") as ana, node(home, port, "bo") as bo:
        is_up(ana)
        is_up(bo).ask_until("G second*", r"second\.bin")
        rates.append((512 << 20) / seconds_for(bo, "R first.bin", r"^(OK|!!) first"))
        with open(shared / "huge.bin", "wb") as file:
            file.truncate(1 << 40)
        time.sleep(5.0)  # until the scanner is at it
        used = cpu_of(ana)
        time.sleep(1.0)
        is_hashing = cpu_of(ana) - used > 0.2
        rates.append((512 << 20) / seconds_for(bo, "R second.bin", r"^(OK|!!) second"))
    values = tuple(rate / 1e6 for rate in rates)
    return [
        Figure("yield", "R alone and while its source hashes" + ("" if is_hashing else " (it did not)"),
               "%.0f and %.0f MB/s" % values, ">= 0.50 of it"),
    ]  # fmt: skip


CASES: Dict[str, Callable[[Path, argparse.Namespace], List[Figure]]] = {
    "small": case_small, "scan": case_scan, "list": case_list, "sparse": case_sparse,
    "yield": case_yield,
}  # fmt: skip


# ---- the program --------------------------------------------------------------------------------------------------


def parse(words: Optional[Sequence[str]] = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", default=",".join(CASES), help="divided by commas (default all)")
    parser.add_argument("--files", type=int, default=10_000, help="of the case small (default 10000)")
    parser.add_argument("--scanned", type=int, default=100_000, help="files of the case scan (default 100000)")
    parser.add_argument("--flat", action="store_true", help="the case scan without folders")
    parser.add_argument("--listed", type=int, default=5_000, help="entries of the case list (default 5000)")
    parser.add_argument("--sparse", type=int, default=5, help="GiB of the case sparse (default 5)")
    parser.add_argument("--rest", type=float, default=25.0, help="seconds of rest that are looked at (default 25)")
    parser.add_argument("--runs", type=int, default=1, help="of each case (default 1)")
    parser.add_argument("--folder", default=bench_link.default_folder(), help="where files lie")
    parser.add_argument("--markdown", action="store_true")
    arguments = parser.parse_args(words)
    arguments.cases = arguments.cases.split(",")
    unknown = [case for case in arguments.cases if case not in CASES]
    if unknown:
        parser.error("no such case: %s" % ", ".join(unknown))
    return arguments


def show(figures: Sequence[Figure], is_markdown: bool) -> None:
    if is_markdown:
        print("| case | what | measured | aim |\n| --- | --- | ---: | --- |")
    for figure in figures:
        print(("| %s | %s | %s | %s |" if is_markdown else "%-7s %-62s %-34s %s") % figure, flush=True)


def main() -> None:
    arguments = parse()
    print("Python %s, %s, %d cores, load %.1f at the start, %s\n" % (
        platform.python_version(), platform.system(), os.cpu_count() or 0, os.getloadavg()[0],
        time.strftime("%Y-%m-%d")), flush=True)  # fmt: skip
    for case in arguments.cases:
        for _ in range(arguments.runs):
            with tempfile.TemporaryDirectory(dir=arguments.folder) as home:
                show(CASES[case](Path(home), arguments), arguments.markdown)


if __name__ == "__main__":
    main()
