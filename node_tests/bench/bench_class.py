"""A class fetches one file at once: so many hosts on a switch, 100 Mbit/s each, beside other programs that can.

    python node_tests/bench/bench_class.py [--scenes NAME,NAME...] [--hosts N] [--size MB] [--rate MBIT] [--runs N]
                                           [--no-cast] [--no-peers] [--peers-python PYTHON] [--svg FILE] [--markdown]

Needs root: every host is a network namespace (`lanlab.py`), every node a `node_client.py` that is typed to. A scene's
time goes from the request, typed at all at once, to the `OK` line of the last, after which the file is compared. What
the first source sent is counted by its interface. All hosts share this machine's cores: the table tells how busy they
were, for on few of them it is they, not the links, that set the pace. --svg draws whose pieces came when. The scenes
with trouble, from `slow` on, are played when they are named: some take a minute.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import pathlib
import platform
import queue
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT))

from node_tests.bench import (  # noqa: E402
    bench_ends,
    bench_link,
    bench_peers,
    bench_transport,
    class_casters,
    class_troubles,
    drawing,
    lanlab,
    netlab,
)
from node_tests.bench.classroom import (  # noqa: E402
    NAME,
    ROUND_MB,
    SCENE_BOUND,
    START_BOUND,
    Class,
    Meter,
    Result,
    Settings,
    digest_of,
)
from node_tests.stage.usage import run_end  # noqa: E402

TORRENT_PORT, HTTP_PORT = 6881, 8000
FREEZE_SECONDS = 20.0
RESTART_AFTER = 1.0  # seconds that a killed supernode is away
LIE_EVERY = 10  # pieces
TORRENT_PIECE, TORRENT_SLOTS = 256 << 10, 20
PICTURE_STEPS, PICTURE_SOURCES = 12, 3
TROUBLES = (AssertionError, RuntimeError, OSError, subprocess.SubprocessError)


# ---- scenes ----------------------------------------------------------------------------------------------------------


def mesh(settings: Settings, path: str, home: str) -> Result:
    """The supernode has the file, all others ask at once."""
    with Class(settings, path, home, [1]) as room:
        meter, began = room.meter(), room.ask()
        return room.await_done(room.askers(), began, meter)


def thirty(settings: Settings, path: str, home: str) -> Result:
    """Thirty ask."""
    return mesh(settings._replace(hosts=31), path, home)


def off(settings: Settings, path: str, home: str) -> Result:
    """Every mesh is off; the holder is not the supernode, the supernode asks too."""
    with Class(settings, path, home, [2], mesh=False) as room:
        meter, began = room.meter(), room.ask()
        result = room.await_done(room.askers(), began, meter)
        limit = settings.size * 8 * (settings.hosts - 2) / (settings.rate * 1e6)
        return result._replace(note="one uplink allows %.1f s; supernode sent %.2f files" % (
            limit, meter.sent(0) / settings.size))  # fmt: skip


def faults(settings: Settings, path: str, home: str) -> Result:
    """In the middle two freeze for 20 s and one is killed; counted are the others."""
    with Class(settings, path, home, [1]) as room:
        askers = room.askers()
        frozen, killed, others = askers[:2], askers[2], askers[3:]
        meter, began = room.meter(), room.ask()
        room.await_part(meter, 0.4)
        for node in frozen:
            node.process.send_signal(signal.SIGSTOP)
        killed.process.kill()
        thaw = threading.Timer(FREEZE_SECONDS, lambda: [one.process.send_signal(signal.SIGCONT) for one in frozen])
        thaw.start()
        result = room.await_done(others, began, meter)
        thaw.join()
        late = [node.expect("OK " + NAME, bound=SCENE_BOUND)[0] - began for node in frozen]
        return result._replace(note="the frozen two: %s" % ", ".join("%.1f s" % one for one in late))


def liar(settings: Settings, path: str, home: str) -> Result:
    """One of three sources flips a bit in every tenth piece."""
    with Class(settings, path, home, [1, 2, 3], liar=2, hosts=4) as room:
        meter, began, asking = room.meter(), room.ask(), room.askers()[0]
        result = room.await_done([asking], began, meter)
        named = [line for _, line in asking.lines if "wrong piece" in line]
        return result._replace(note="%d wrong; %s" % (len(named), named[-1] if named else "nobody named"))


def honest(settings: Settings, path: str, home: str) -> Result:
    """Three sources that tell the truth, to compare with."""
    with Class(settings, path, home, [1, 2, 3], hosts=4) as room:
        meter, began = room.meter(), room.ask()
        return room.await_done(room.askers(), began, meter)


def restart(settings: Settings, path: str, home: str) -> Result:
    """The supernode, which asks too, is killed in the middle and started again."""
    with Class(settings, path, home, [2]) as room:
        others = [node for node in room.askers() if node.host != 1]
        meter, began = room.meter(), room.ask()
        room.await_part(meter, 0.4)
        room.nodes[1].kill()
        time.sleep(RESTART_AFTER)
        again = room.start(1)
        again.expect("* joined")
        result = room.await_done(others, began, meter)
        again.type("R " + NAME)
        at, _ = again.expect("OK " + NAME)
        assert bench_ends.hash_file(again.path) == digest_of(path)
        return result._replace(note="the restarted supernode: %.1f s" % (at - began))


# ---- other programs --------------------------------------------------------------------------------------------------


def http(settings: Settings, path: str, home: str) -> Result:
    """Python's http.server on the first host, curl on the others."""
    with lanlab.Lan(settings.hosts, settings.rate) as lan, contextlib.ExitStack() as stack:
        serve = [sys.executable, "-m", "http.server", "--directory", os.path.dirname(path), str(HTTP_PORT)]
        server = subprocess.Popen([*lan.on(1), *serve], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        stack.callback(server.wait)
        stack.callback(server.kill)
        url = "http://%s:%d/%s" % (lan.ip(1), HTTP_PORT, os.path.basename(path))
        probe = [*lan.on(2), "curl", "-s", "-I", "--retry-connrefused", "--retry", "50", "--retry-delay", "1", url]
        subprocess.run(probe, check=True, timeout=START_BOUND, stdout=subprocess.DEVNULL)
        meter, began = Meter([server.pid]), time.monotonic()
        ends: queue.SimpleQueue[float] = queue.SimpleQueue()
        for host in range(2, settings.hosts + 1):
            copy = os.path.join(home, "copy-%d" % host)
            process = subprocess.Popen([*lan.on(host), "curl", "-s", "-f", "-o", copy, url])
            stack.callback(process.wait)
            stack.callback(process.kill)
            threading.Thread(target=lambda one=process: ends.put(_ended(one)), daemon=True).start()  # type: ignore[misc]
        times = sorted(ends.get(timeout=2 * SCENE_BOUND) - began for _ in range(2, settings.hosts + 1))
        meter.stop()
        return Result(times, meter.sent(0) / settings.size, 1.0, meter.busy, meter.cpu)


def _ended(process: subprocess.Popen[bytes]) -> float:
    code = process.wait()
    if code:
        print("curl ended with %d" % code, file=sys.stderr)
    return time.monotonic()


def torrent(settings: Settings, path: str, home: str) -> Result:
    """libtorrent over TCP, 256 KiB pieces, everyone told of everyone."""
    made = os.path.join(home, "file.torrent")
    ends = [settings.python, "-W", "ignore", str(HERE / "bench_class.py")]
    subprocess.run([*ends, "torrent-make", path, made, str(TORRENT_PIECE)], check=True, timeout=START_BOUND)
    with lanlab.Lan(settings.hosts, settings.rate) as lan, contextlib.ExitStack() as stack:
        processes = []
        for host in range(1, settings.hosts + 1):
            where = os.path.dirname(path) if host == 1 else os.path.join(home, "h%d" % host)
            os.makedirs(where, exist_ok=True)
            process = subprocess.Popen([*lan.on(host), *ends, "torrent", made, where, str(int(host == 1))],
                                       stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)  # fmt: skip
            stack.callback(process.wait)
            stack.callback(process.kill)
            processes.append(process)
        for process in processes:
            assert process.stdout is not None and process.stdout.readline(), "libtorrent did not start"
        meter, began = Meter([process.pid for process in processes]), time.monotonic()
        for host, process in enumerate(processes[1:], 2):
            assert process.stdin is not None
            process.stdin.write(json.dumps([lan.ip(other) for other in range(1, host)]).encode() + b"\n")
        times = sorted(json.loads(process.stdout.readline())["at"] - began for process in processes[1:])  # type: ignore
        meter.stop()
        taken = statistics.mean(meter.received(host) for host in range(1, settings.hosts)) / settings.size
        return Result(times, meter.sent(0) / settings.size, taken, meter.busy, meter.cpu)


def torrent_thirty(settings: Settings, path: str, home: str) -> Result:
    """Thirty ask."""
    return torrent(settings._replace(hosts=31), path, home)


def torrent_end(made: str, folder: str, is_seed: str) -> None:
    """One end of libtorrent's scene: says that it is there, is told the others, says when it has all."""
    import libtorrent as lt

    session = lt.session({
        "listen_interfaces": "0.0.0.0:%d" % TORRENT_PORT, "enable_dht": False, "enable_lsd": False,
        "enable_upnp": False, "enable_natpmp": False, "alert_mask": 0, "enable_incoming_utp": False,
        "enable_outgoing_utp": False, "unchoke_slots_limit": TORRENT_SLOTS,
    })  # fmt: skip
    handle = bench_peers.torrent_added(session, made, folder, bool(int(is_seed)))
    while str(handle.status().state) != ("seeding" if int(is_seed) else "downloading"):
        time.sleep(0.01)
    bench_ends.say(ready=True)
    for ip in json.loads(sys.stdin.readline() or "[]"):
        handle.connect_peer((ip, TORRENT_PORT))
    while not handle.status().is_seeding:
        time.sleep(0.01)
    bench_ends.say(at=time.monotonic())
    sys.stdin.read()


# ---- a node that is watched, or lies ---------------------------------------------------------------------------------


def run_node(trace: str, lies: str, *flags: str) -> None:
    """node_client.py that notes each piece with its source, or flips a bit in every tenth that it gives."""
    import node_client
    from disk import library as files
    from protocol.exchange.fetch import Fetch

    if int(lies):
        read = files.Library.read

        def lying(self: Any, file_id: bytes, index: int, *where: int) -> Any:
            data = read(self, file_id, index, *where)
            return bytes([data[0] ^ 1]) + bytes(data[1:]) if index % LIE_EVERY == 0 else data

        files.Library.read = lying  # type: ignore[method-assign]
    notes = os.open(trace, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    count = Fetch._count_piece

    def counting(self: Fetch, index: int, link: int, now: float) -> None:
        source = self.download.sources.get(link)
        os.write(notes, b"%.4f %d %s\n" % (now, index, (source.label if source else "?").encode()))
        count(self, index, link, now)

    Fetch._count_piece = counting  # type: ignore[method-assign]
    sys.exit(node_client.main(flags))


# ---- table and picture -----------------------------------------------------------------------------------------------


class Scene(NamedTuple):
    """One line of the table."""

    name: str
    title: str
    run: Callable[[Settings, str, str], Result]
    missing: Callable[[str], str] = lambda _: ""


SCENES = [
    Scene("mesh", "all ask at once", mesh),
    Scene("thirty", "thirty ask at once", thirty),
    Scene("off", "mesh off, by way of the supernode", off),
    Scene("faults", "two frozen for 20 s, one killed", faults),
    Scene("honest", "one asks three sources", honest),
    Scene("liar", "one of the three lies", liar),
    Scene("restart", "supernode killed and restarted", restart),
]
TROUBLED = [Scene(*each) for each in class_troubles.SCENES]
PEERS = [
    Scene("torrent", "libtorrent, TCP", torrent, bench_peers._lacks_module("libtorrent")),
    Scene("torrent30", "libtorrent, thirty ask at once", torrent_thirty, bench_peers._lacks_module("libtorrent")),
    Scene("http", "http.server + curl", http, bench_peers._lacks("curl")),
    Scene("udpcast", "udp-sender, udp-receiver", class_casters.udpcast, bench_peers._lacks("udp-sender")),
    Scene("udpcast30", "udpcast, thirty receive", class_casters.udpcast_thirty, bench_peers._lacks("udp-sender")),
    Scene("uftp", "uftp, uftpd", class_casters.uftp, bench_peers._lacks("uftp")),
    Scene("uftp30", "uftp, thirty receive", class_casters.uftp_thirty, bench_peers._lacks("uftp")),
]


def measure(scenes: Sequence[Scene], settings: Settings, runs: int) -> Dict[str, List[Result]]:
    """The scenes take turns."""
    results: Dict[str, List[Result]] = {scene.name: [] for scene in scenes}
    with tempfile.TemporaryDirectory(dir=settings.folder) as folder:
        path = os.path.join(folder, "source", NAME)
        os.mkdir(os.path.dirname(path))
        with open(path, "wb") as file:
            left = settings.size
            while left:
                file.write(os.urandom(min(left, ROUND_MB)))
                left -= min(left, ROUND_MB)
        for number in range(runs):
            for scene in scenes:
                home = os.path.join(folder, "run")
                os.mkdir(home)
                try:
                    result = scene.run(settings, path, home)
                    results[scene.name].append(result)
                    line = "run %d of %d: %s" % (number + 1, runs, "  ".join(cells_of(scene.title, [result])))
                    print(line, file=sys.stderr, flush=True)
                except TROUBLES as error:
                    print("%s: %s" % (scene.name, error), file=sys.stderr, flush=True)
                keep_traces(home)
                shutil.rmtree(home)
    return results


traces: Dict[int, List[Tuple[float, int, str]]] = {}


def keep_traces(home: str) -> None:
    """What the watched nodes noted in the last run: (when, piece, source) by host."""
    found = {}
    for note in pathlib.Path(home).glob("trace-*"):
        rows = [line.split(" ", 2) for line in note.read_text().splitlines()]
        found[int(note.name.partition("-")[2])] = [(float(at), int(index), label) for at, index, label in rows]
    if found:
        traces.clear()
        traces.update(found)


LAYOUT = "%-36s %18s %10s %18s %14s %11s %13s  %s"
HEADER = ["scene", "last, s", "median, s", "first source sent", "each received", "cores busy", "nodes' CPU, s", ""]


def cells_of(title: str, results: Sequence[Result]) -> List[str]:
    """One line of the table: medians over the runs, with the least and the most time of the last node."""
    def middle(values: Iterator[float]) -> float:
        return statistics.median(values)

    lasts = [result.seconds[-1] for result in results]
    last = "%.1f" % middle(iter(lasts))
    if len(lasts) > 1:
        last += " (%.1f–%.1f)" % (min(lasts), max(lasts))
    return [
        title, last, "%.1f" % middle(statistics.median(result.seconds) for result in results),
        "%.2f files" % middle(result.sent for result in results),
        "%.3f files" % middle(result.taken for result in results),
        "%.0f %%" % (100 * middle(result.busy for result in results)),
        "%.1f" % middle(result.cpu for result in results), results[-1].note,
    ]  # fmt: skip


def draw(path: str, settings: Settings, began: float) -> None:
    """What had come, over time: from the first source, from the next best, from all others."""
    rows = sorted(row for notes in traces.values() for row in notes)
    if not rows:
        return
    total, end = len(rows), rows[-1][0]
    count: Dict[str, int] = {}
    for _, _, label in rows:
        count[label] = count.get(label, 0) + 1
    first = rows[0][2]
    marks = [began + (end - began) * step / PICTURE_STEPS for step in range(PICTURE_STEPS + 1)]

    def share(is_meant: Callable[[str], bool]) -> List[float]:
        return [100 * sum(at <= mark and is_meant(label) for at, _, label in rows) / total for mark in marks]

    lines = {
        "from the first source": share(lambda label: label == first),
        "from each other": share(lambda label: label != first),
        "all pieces of all": share(lambda label: True),
    }
    title = "One file of %d MB, %d ask at once: whose pieces came when" % (settings.size // ROUND_MB, len(traces) - 1)
    ticks = ["%.1f" % (mark - began) for mark in marks]
    pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
    pathlib.Path(path).write_text(drawing.line_chart(title, "seconds", "%", ticks, lines, 100.0), encoding="utf-8")


def picked(names: Optional[str], has_peers: bool) -> List[Scene]:
    """The scenes of these names, or all."""
    known = {scene.name: scene for scene in [*SCENES, *TROUBLED, *PEERS]}
    unknown = set((names or "").split(",")) - set(known) - {""}
    if unknown:
        sys.exit("no scene is called %s; there are: %s" % (", ".join(sorted(unknown)), ", ".join(known)))
    if names:
        return [known[name] for name in names.split(",")]
    return [*SCENES, *PEERS] if has_peers else SCENES


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    every = [*SCENES, *TROUBLED, *PEERS]
    parser.add_argument("--scenes", metavar="NAMES", help=",".join(scene.name for scene in every))
    parser.add_argument("--hosts", type=int, default=11, help="one that has the file included (default 11)")
    parser.add_argument("--size", type=int, default=50, help="MB of the file (default 50)")
    parser.add_argument("--rate", type=float, default=100, help="Mbit/s of each host, each way (default 100)")
    parser.add_argument("--runs", type=int, default=1, help="of each scene (default 1)")
    parser.add_argument("--settle", type=float, default=2.0, help="seconds between start and request (default 2)")
    parser.add_argument("--folder", default=bench_link.default_folder(), help="where files lie")
    parser.add_argument("--no-cast", action="store_true", help="all nodes without casts: the swarm alone")
    parser.add_argument("--no-peers", action="store_true", help="without other programs")
    parser.add_argument("--peers-python", default=sys.executable, help="interpreter that has libtorrent")
    parser.add_argument("--svg", metavar="FILE", help="draw whose pieces came when, in the first scene's last run")
    parser.add_argument("--trace", metavar="FILE", help="keep the notes of that run: host, instant, piece, source")
    parser.add_argument("--markdown", action="store_true", help="a table for the README")
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    trouble = lanlab.missing()
    if trouble:
        sys.exit("the class needs a lab of namespaces: " + trouble)
    netlab.end_well()
    settings = Settings(arguments.hosts, arguments.size * ROUND_MB, arguments.rate, arguments.folder,
                        arguments.settle, arguments.peers_python, False,
                        ("--no-cast",) if arguments.no_cast else ())  # fmt: skip
    load, absent, scenes = os.getloadavg()[0], [], []
    for scene in picked(arguments.scenes, not arguments.no_peers):
        lacking = scene.missing(settings.python)
        if lacking:
            absent.append("%s (no %s)" % (scene.title, lacking))
        else:
            scenes.append(scene)
    if arguments.svg or arguments.trace:
        watched(scenes[0], settings, arguments)
        return
    results = measure(scenes, settings, arguments.runs)
    about = "%d hosts, %d MB, %g Mbit/s each; %d run%s; Python %s, %s %s, %d cores, load %.1f at the start, %s" % (
        settings.hosts, arguments.size, settings.rate, arguments.runs, "" if arguments.runs == 1 else "s in turn",
        platform.python_version(), platform.system(), platform.release(), os.cpu_count() or 0, load,
        time.strftime("%Y-%m-%d"),
    )  # fmt: skip
    print("%s.\n" % about)
    titles = {scene.name: scene.title for scene in scenes}
    rows = [cells_of(titles[name], found) for name, found in results.items() if found]
    bench_transport.print_table([HEADER, *rows], LAYOUT, arguments.markdown)
    failed = [titles[name] for name, found in results.items() if len(found) < arguments.runs]
    for what, names in (("failed at least once", failed), ("not present", absent)):
        if names:
            print("\n%s: %s" % (what, "; ".join(names)))


def watched(scene: Scene, settings: Settings, arguments: argparse.Namespace) -> None:
    """One scene with every piece noted; what is noted costs a little."""
    results = measure([scene], settings._replace(is_traced=True), arguments.runs)[scene.name]
    if not results or not traces:
        sys.exit("there is nothing to draw")
    end = max(row[0] for notes in traces.values() for row in notes)
    if arguments.svg:
        draw(arguments.svg, settings, end - results[-1].seconds[-1])
    if arguments.trace:
        with open(arguments.trace, "w", encoding="utf-8") as file:
            for host, notes in sorted(traces.items()):
                file.writelines("%d %.4f %d %s\n" % (host, *row) for row in notes)


ENDS: Dict[str, Callable[..., None]] = {
    **class_troubles.ENDS, "node": run_node, "torrent": torrent_end, "torrent-make": bench_peers.torrent_make,
}  # fmt: skip

if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1] in ENDS:
        run_end(ENDS, __doc__)
    else:
        main()
