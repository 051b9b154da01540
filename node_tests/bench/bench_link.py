"""How fast data travels over links that are not loopback: this transport beside kernel TCP CUBIC and BBR.

    python node_tests/bench/bench_link.py [--cases NAME,NAME...] [--seconds S] [--runs N] [--controller NAME]
                                          [--svg FILE] [--markdown]

Needs root: every case runs between two network namespaces over the link that `netlab.py` emulates, the same for each
kind of flow, one after the other. What counts is what has arrived at the receiver. --svg measures goodput at several
rates of loss and draws it, instead of the cases. --controller newreno swaps this transport's congestion controller.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import pathlib
import statistics
import sys
import tempfile
import threading
import time
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

from node_tests.bench import bench_ends, drawing, netlab
from node_tests.bench.netlab import Conditions, Link
from protocol.transport.controllers import CONTROLLERS, DEFAULT

RDT = "rdt"
LABELS = {"tcp:cubic": "TCP CUBIC", "tcp:bbr": "TCP BBR", RDT: "this transport"}
MBIT = 1e6 / 8  # bytes
OVERHEAD = 1.0  # seconds that a run takes beside its flows
FILE_ROOM = 1.2  # size of a file, in what the link can carry meanwhile: it never ends early
SHARED_SECONDS, SHARED_FROM = 60.0, 15.0  # shares are counted from there to the end
SECOND_STARTS = 2.0  # seconds after the first
DEEP_FROM = 5.0  # seconds of start-up before the standing queue is looked at
QUEUE_SAMPLE_INTERVAL = 0.01
AIR_SINCE = 3.0  # seconds
FAULT_AT, CUT_SECONDS = 3.0, 10.0
TRANSFER_SIZE, TRANSFER_BOUND = 100_000_000, 60.0  # bytes, seconds: of the transfers with a fault in the middle
LOSSES = (0.0, 0.001, 0.01, 0.02, 0.05, 0.10)

USUAL = Conditions(rate=100e6, delay=0.025, queue=0.1)
SHARED = dataclasses.replace(USUAL, queue=0.05)
AIR = Conditions(rate=20e6, queue=0.1)  # as a radio has it


class Arrivals(NamedTuple):
    """What a receiver told: (instant, bytes so far) each, and whether the whole file is there."""

    notes: List[Tuple[float, int]]
    is_finished: bool
    trouble: str

    def bytes_at(self, instant: float) -> float:
        """Bytes that had come, with a straight line between two notes."""
        before = (self.notes[0][0], 0) if self.notes else (instant, 0)
        for after in self.notes:
            if after[0] >= instant:
                part = (instant - before[0]) / (after[0] - before[0]) if after[0] > before[0] else 1.0
                return before[1] + max(0.0, part) * (after[1] - before[1])
            before = after
        return before[1]

    def goodput(self, since: float, until: float) -> float:
        """Mbit/s."""
        return (self.bytes_at(until) - self.bytes_at(since)) / (until - since) / MBIT

    @property
    def began(self) -> float:
        return self.notes[0][0] if self.notes else 0.0


class Settings(NamedTuple):
    """What the flags say, and what this machine has."""

    kinds: List[str]
    seconds: float
    runs: int
    folder: str
    controller: str = DEFAULT  # the congestion controller of our flows

    def end_of(self, kind: str) -> str:
        """What the end of such a flow is called in bench_ends.py."""
        return "%s:%s" % (RDT, self.controller) if kind == RDT else kind


class Case(NamedTuple):
    """One line of the table."""

    name: str
    title: str
    run: Callable[[Settings], Dict[str, str]]
    seconds: Callable[[Settings], float]


# ---- flows --------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _source(folder: str, size: float) -> Iterator[str]:
    """A file of zeros that takes no room."""
    with tempfile.NamedTemporaryFile(dir=folder, suffix=".zeros") as file:
        file.truncate(int(size))
        yield file.name


def run_flows(link: Link, flows: Sequence[Tuple[str, float]], seconds: float, size: float, settings: Settings,
              during: Optional[Callable[[], None]] = None) -> List[Arrivals]:  # fmt: skip
    """Start each (kind, seconds later) from host 0 to host 1, and end them all after so many seconds."""
    with contextlib.ExitStack() as stack:
        path = stack.enter_context(_source(settings.folder, size))
        home = stack.enter_context(tempfile.TemporaryDirectory(dir=settings.folder))
        sinks = []
        for number, (kind, _) in enumerate(flows):
            where = os.path.join(home, str(number))
            os.mkdir(where)
            process = bench_ends.Process("sink", kind, link.ips[1], where, on=link.on(1))
            sinks.append(stack.enter_context(process))
        ports = [sink.read()["port"] for sink in sinks]
        timer = threading.Timer(seconds, _end_all, [sinks])
        stack.callback(timer.cancel)
        timer.start()
        if during is not None:
            threading.Thread(target=during, daemon=True).start()
        began = time.monotonic()
        for (kind, later), port in zip(flows, ports):
            time.sleep(max(0.0, began + later - time.monotonic()))
            end = bench_ends.Process("pour", settings.end_of(kind), link.ips[1], port, path, on=link.on(0))
            stack.enter_context(end)
        told = [sink.read() for sink in sinks]
    return [Arrivals([(at, done) for at, done in one["arrivals"]], one["finished"], one["trouble"]) for one in told]


def _end_all(sinks: Sequence[bench_ends.Process]) -> None:
    for sink in sinks:
        if sink.process.stdin is not None:
            sink.process.stdin.close()


def alone(conditions: Conditions, kind: str, settings: Settings, seed: int, since: float = 0.0) -> float:
    """Mbit/s of one flow from its first moment on, or from so many seconds later."""
    size = conditions.rate / 8 * settings.seconds * FILE_ROOM
    with Link(dataclasses.replace(conditions), seed) as link:
        flow = run_flows(link, [(kind, 0.0)], settings.seconds + OVERHEAD, size, settings)[0]
    return flow.goodput(flow.began + since, flow.began + settings.seconds) if flow.notes else 0.0


def _spread(values: Sequence[float]) -> str:
    median = statistics.median(values)
    return "%.1f" % median if len(values) == 1 else "%.1f (%.1f–%.1f)" % (median, min(values), max(values))


# ---- the cases ----------------------------------------------------------------------------------------------------


def _bulk(name: str, title: str, conditions: Conditions, since: float = 0.0) -> Case:
    def run(settings: Settings) -> Dict[str, str]:
        results: Dict[str, List[float]] = {kind: [] for kind in settings.kinds}
        for seed in range(1, settings.runs + 1):
            for kind in settings.kinds:
                results[kind].append(alone(conditions, kind, settings, seed, since))
        return {kind: _spread(values) for kind, values in results.items()}

    return Case(name, title, run, lambda s: (s.seconds + 2 * OVERHEAD) * len(s.kinds) * s.runs)


def _shared(name: str, title: str, flows: Sequence[Tuple[str, float]], conditions: Conditions = SHARED) -> Case:
    """Several flows at once; goodput of each after a while, with our share, or Jain's index when all are alike."""
    seconds, since = SHARED_SECONDS, SHARED_FROM

    def run(settings: Settings) -> Dict[str, str]:
        with Link(dataclasses.replace(conditions)) as link:
            size = conditions.rate / 8 * seconds * FILE_ROOM
            began = time.monotonic()
            told = run_flows(link, flows, seconds + OVERHEAD, size, settings)
        # The first of them began when its connection was made.
        began = min((flow.began for flow in told if flow.notes), default=began)
        rates = [flow.goodput(began + since, began + seconds) for flow in told]
        return _told_shares([kind for kind, _ in flows], rates)

    return Case(name, title, run, lambda s: seconds + 2 * OVERHEAD)


def _told_shares(kinds: Sequence[str], rates: Sequence[float]) -> Dict[str, str]:
    total = sum(rates) or 1.0
    if len(set(kinds)) == 1:
        index = total**2 / (len(rates) * sum(rate**2 for rate in rates) or 1.0)
        return {kinds[0]: "%s; Jain %.3f" % (" + ".join("%.1f" % rate for rate in rates), index)}
    return {kind: "%.1f; share %.2f" % (rate, rate / total) for kind, rate in zip(kinds, rates)}


def _queued(name: str, title: str, conditions: Conditions) -> Case:
    """Goodput; the delay in the bottleneck's queue after start-up, mean and 95th percentile; what found it full."""

    def run(settings: Settings) -> Dict[str, str]:
        return {kind: _standing_queue(dataclasses.replace(conditions), kind, settings) for kind in settings.kinds}

    return Case(name, title, run, lambda s: (s.seconds + 2 * OVERHEAD) * len(s.kinds))


def _standing_queue(conditions: Conditions, kind: str, settings: Settings) -> str:
    delays: List[float] = []
    with Link(conditions) as link:
        watch = _QueueWatch(link, delays, min(DEEP_FROM, settings.seconds / 2))
        size = conditions.rate / 8 * settings.seconds * FILE_ROOM
        flow = run_flows(link, [(kind, 0.0)], settings.seconds + OVERHEAD, size, settings, watch.run)[0]
        watch.stop()
        drops = watch.drops
    rate = flow.goodput(flow.began, flow.began + settings.seconds) if flow.notes else 0.0
    p95 = statistics.quantiles(delays, n=20)[-1]
    return "%.1f; %.0f / %.0f ms; %.1f %%" % (rate, statistics.mean(delays) * 1e3, p95 * 1e3, 100 * drops)


class _QueueWatch:
    """Notes the queue's delay again and again."""

    def __init__(self, link: Link, delays: List[float], start_up: float) -> None:
        self._link, self._delays, self._start_up, self._stop = link, delays, start_up, threading.Event()
        self._before = (0, 0)

    @property
    def drops(self) -> float:
        """The part of the packets that found the queue full since the start-up."""
        carried, dropped = (now - before for now, before in zip(self._counts(), self._before))
        return dropped / max(1, carried + dropped)

    def _counts(self) -> Tuple[int, int]:
        return self._link.ways[0].carried, self._link.ways[0].queue_drops

    def run(self) -> None:
        if self._stop.wait(self._start_up):
            return
        self._before = self._counts()
        while not self._stop.wait(QUEUE_SAMPLE_INTERVAL):
            self._delays.append(self._link.ways[0].queue_delay(time.monotonic()))

    def stop(self) -> None:
        self._stop.set()


def cut(settings: Settings) -> Dict[str, str]:
    """A transfer in whose middle nothing arrives for ten seconds: when it went on, and how long it took in all."""

    def break_it(link: Link) -> None:
        link.change("cut", 1)
        time.sleep(CUT_SECONDS)
        link.change("cut", 0)

    return _faulty(settings, break_it, CUT_SECONDS)


def mtu(settings: Settings) -> Dict[str, str]:
    """A transfer in whose middle the path carries no packets over 1,280 bytes any more, and does not say so."""
    return _faulty(settings, lambda link: link.change("mtu", 1280), 0.0)


def _faulty(settings: Settings, fault: Callable[[Link], None], lasts: float) -> Dict[str, str]:
    told = {}
    for kind in settings.kinds:
        with Link(dataclasses.replace(USUAL)) as link:
            _probe_mtu(link)
            at: List[float] = []

            def strike(link: Link = link, at: List[float] = at) -> None:
                time.sleep(FAULT_AT)
                at.append(time.monotonic())
                fault(link)

            flow = run_flows(link, [(kind, 0.0)], TRANSFER_BOUND, TRANSFER_SIZE, settings, strike)[0]
        told[kind] = _told_fault(flow, at[0] + lasts if at else 0.0)
    return told


def _probe_mtu(link: Link) -> None:
    """Let TCP search the path MTU when packets vanish; as Linux comes, it waits for an ICMP for ever."""
    for host in (0, 1):
        netlab.run_tool(*link.on(host), "sh", "-c", "echo 1 > /proc/sys/net/ipv4/tcp_mtu_probing")


def _told_fault(flow: Arrivals, over_at: float) -> str:
    if not flow.is_finished:
        done = flow.notes[-1][1] if flow.notes else 0
        return "not finished in %.0f s (%d MB there) %s" % (TRANSFER_BOUND, done // 10**6, flow.trouble)
    went_on = next((at for at, _ in flow.notes if at > over_at + 0.1), flow.notes[-1][0])
    return "on after %.1f s; %.1f s in all" % (went_on - over_at, flow.notes[-1][0] - flow.began)


def _air(name: str, title: str, loss: float = 0.0, **conditions: Any) -> Case:
    """A bad air of 20 Mbit/s, as a radio has it; without the first seconds, in which one may learn it."""
    air = dataclasses.replace(AIR, loss=loss, loss_back=loss, **conditions)
    return _bulk(name, "air of 20 Mbit/s, " + title, air, AIR_SINCE)


LOSS = "100 Mbit/s, 50 ms, %s"
QUEUED = "%s: Mbit/s; its delay, mean / p95; dropped"
IN_ORDER: Dict[str, Any] = {"delay": 0.002, "jitter": 0.030}
LATE: Dict[str, Any] = {"delay": 0.002, "late": 0.050}
AIR_IN_ORDER, AIR_LATE = dataclasses.replace(AIR, **IN_ORDER), dataclasses.replace(AIR, **LATE)
TCP_FIRST = [("tcp:cubic", 0.0), (RDT, SECOND_STARTS)]
TCP_SECOND = [(RDT, 0.0), ("tcp:cubic", SECOND_STARTS)]
CASES = [
    _bulk("clean", LOSS % "no loss", USUAL),
    _bulk("loss1", LOSS % "1 % loss", dataclasses.replace(USUAL, loss=0.01, loss_back=0.01)),
    _bulk("loss5", LOSS % "5 % loss", dataclasses.replace(USUAL, loss=0.05, loss_back=0.05)),
    _bulk("loss10", LOSS % "10 % loss", dataclasses.replace(USUAL, loss=0.10, loss_back=0.10)),
    _bulk("acks", LOSS % "1 % loss, 30 % of acks", dataclasses.replace(USUAL, loss=0.01, loss_back=0.3)),
    _bulk("reorder", LOSS % "20 % out of order", dataclasses.replace(USUAL, reorder=0.2)),
    _bulk("gigabit", "1,000 Mbit/s, 1 ms", Conditions(rate=1e9, delay=0.0005, queue=0.05)),
    _air("jitter", "jitter of 30 ms", **IN_ORDER),
    _air("wifi", "jitter of 30 ms, 2 % lost, 2 % overtaken", 0.02, reorder=0.02, **IN_ORDER),
    _air("late", "each up to 50 ms late", **LATE),
    _air("late5", "so late, 5 % lost", 0.05, **LATE),
    _air("late10", "so late, 10 % lost", 0.10, **LATE),
    _air("late30", "so late, 30 % lost", 0.30, **LATE),
    _air("loss30", "30 ms, 30 % lost", 0.30, delay=0.015),
    _shared("tcp-first", "shared, TCP first", TCP_FIRST),
    _shared("tcp-second", "shared, TCP second", TCP_SECOND),
    _shared("tcp-two", "two of TCP CUBIC", [("tcp:cubic", 0.0), ("tcp:cubic", SECOND_STARTS)]),
    _shared("tcp-first-jitter", "air with jitter, shared, TCP first", TCP_FIRST, AIR_IN_ORDER),
    _shared("tcp-second-jitter", "air with jitter, shared, TCP second", TCP_SECOND, AIR_IN_ORDER),
    _shared("two", "two of ours", [(RDT, 0.0), (RDT, SECOND_STARTS)]),
    _shared("five", "five of ours", [(RDT, 0.5 * n) for n in range(5)]),
    _queued("deep", QUEUED % "queue of 1 s", dataclasses.replace(USUAL, queue=1.0)),
    _queued("deep-jitter", QUEUED % "air with jitter, queue of 1 s", dataclasses.replace(AIR_IN_ORDER, queue=1.0)),
    _queued("deep-late", QUEUED % "late air, queue of 1 s", dataclasses.replace(AIR_LATE, queue=1.0)),
    _queued("deep-late5", QUEUED % "late, 5 % lost, queue of 1 s",
            dataclasses.replace(AIR_LATE, loss=0.05, loss_back=0.05, queue=1.0)),
    _queued("short-late", QUEUED % "late air, queue of 10 ms", dataclasses.replace(AIR_LATE, queue=0.01)),
    _queued("short-late5", QUEUED % "late, 5 % lost, queue of 10 ms",
            dataclasses.replace(AIR_LATE, loss=0.05, loss_back=0.05, queue=0.01)),
    Case("cut", "100 MB, cut for 10 s in the middle", cut, lambda s: 25.0 * len(s.kinds)),
    Case("mtu", "100 MB, path MTU falls to 1,280 in the middle", mtu, lambda s: 15.0 * len(s.kinds)),
]  # fmt: skip


# ---- the tables ---------------------------------------------------------------------------------------------------


def kinds() -> List[str]:
    """TCP with the controllers that this kernel lets us choose, and ours."""
    found = []
    for kind in ("tcp:cubic", "tcp:bbr"):
        with contextlib.suppress(OSError):
            bench_ends.tcp_socket(kind).close()
            found.append(kind)
    return [*found, RDT]


def measure(cases: Sequence[Case], settings: Settings, is_markdown: bool) -> None:
    """Run the cases and print each line as it is known."""
    needed = sum(case.seconds(settings) for case in cases)
    print("%d cases, about %.0f minutes" % (len(cases), needed / 60), file=sys.stderr, flush=True)
    _print_header("over an emulated link; Mbit/s", settings, is_markdown)
    for case in cases:
        try:
            told = case.run(settings)
        except (RuntimeError, OSError) as error:
            print("%s: %r" % (case.name, error), file=sys.stderr, flush=True)
            told = dict.fromkeys(settings.kinds, "failed")
        _print_line([case.title, *(told.get(kind, "") for kind in settings.kinds)], is_markdown)


def _print_header(title: str, settings: Settings, is_markdown: bool) -> None:
    labels = [LABELS[kind] for kind in settings.kinds]
    if settings.controller != DEFAULT:
        labels[-1] += ", " + settings.controller
    _print_line([title, *labels], is_markdown)
    if is_markdown:
        _print_line(["---"] * (len(settings.kinds) + 1), is_markdown)


def _print_line(cells: Sequence[str], is_markdown: bool) -> None:
    if is_markdown:
        print("| %s |" % " | ".join(cells), flush=True)
    else:
        print(("%-46s" + " %26s" * (len(cells) - 1)) % tuple(cells), flush=True)


def draw(path: str, settings: Settings, is_markdown: bool) -> None:
    """Measure goodput at each rate of loss, and draw it."""
    needed = (settings.seconds + 2 * OVERHEAD) * len(LOSSES) * len(settings.kinds) * settings.runs
    print("goodput against loss, about %.0f minutes" % (needed / 60), file=sys.stderr, flush=True)
    lines: Dict[str, List[float]] = {LABELS[kind]: [] for kind in settings.kinds}
    _print_header("random loss each way; Mbit/s", settings, is_markdown)
    for loss in LOSSES:
        conditions = dataclasses.replace(USUAL, loss=loss, loss_back=loss)
        for kind in settings.kinds:
            values = [alone(conditions, kind, settings, seed) for seed in range(1, settings.runs + 1)]
            lines[LABELS[kind]].append(statistics.median(values))
        _print_line(["%g %%" % (loss * 100), *("%.1f" % values[-1] for values in lines.values())], is_markdown)
    runs = "one run" if settings.runs == 1 else "median of %d runs" % settings.runs
    picture = drawing.line_chart(
        "Goodput against random loss: 100 Mbit/s, round trip 50 ms; %s of %.0f s" % (runs, settings.seconds),
        "loss each way, %", "Mbit/s",
        ["%g" % (loss * 100) for loss in LOSSES], lines, 100.0,
    )  # fmt: skip
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        file.write(picture)


def chosen(names: Optional[str]) -> List[Case]:
    """The cases of these names, or all."""
    known = {case.name: case for case in CASES}
    unknown = set((names or "").split(",")) - set(known) - {""}
    if unknown:
        sys.exit("no case is called %s; there are: %s" % (", ".join(sorted(unknown)), ", ".join(known)))
    return [known[name] for name in names.split(",")] if names else CASES


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Those that bench_transport.py has too."""
    parser.add_argument("--cases", metavar="NAMES", help="of the link: " + ",".join(case.name for case in CASES))
    parser.add_argument("--seconds", type=float, default=15.0, help="that a flow over the link lasts (default 15)")
    ours = "congestion controller of ours (default %(default)s)"
    parser.add_argument("--controller", choices=list(CONTROLLERS), default=DEFAULT, help=ours)
    parser.add_argument("--svg", metavar="FILE", help="draw goodput against loss")
    parser.add_argument("--markdown", action="store_true", help="tables for the README")


def default_folder() -> Optional[str]:
    return "/dev/shm" if os.path.isdir("/dev/shm") else None


def run(arguments: argparse.Namespace, runs: int) -> None:
    """What the flags ask for."""
    trouble = netlab.missing()
    if trouble:
        sys.exit(trouble)
    netlab.end_well()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        settings = Settings(kinds(), arguments.seconds, runs, folder, arguments.controller)
        if arguments.svg:
            draw(arguments.svg, settings, arguments.markdown)
        else:
            measure(chosen(arguments.cases), settings, arguments.markdown)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_flags(parser)
    parser.add_argument("--runs", type=int, default=1, help="of each flow that is alone (default 1)")
    parser.add_argument("--folder", default=default_folder(), help="where files lie")
    arguments = parser.parse_args()
    run(arguments, arguments.runs)


if __name__ == "__main__":
    main()
