"""Bad airs in the simulator: what one of ours gets of them alone, how several share them, how long their queues are.

    python node_tests/bench/bench_air.py [--seeds N] [--controller NAME] [CASE...]       a table; without cases, of all

Goodput in Mbit/s of the 20 that the air carries (or what the case's name says), the median of the seeds and each of
them; of several flows each one's and Jain's index; of a queue its mean and its 95th percentile in milliseconds.
"""

from __future__ import annotations

import argparse
import pathlib
import statistics
import sys
from concurrent.futures import ProcessPoolExecutor
from typing import Any, Callable, Dict, List, NamedTuple, Sequence, Tuple

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

from node_tests.stage.simulator import Pair, PlainFlow
from protocol.transport.controllers import CONTROLLERS, DEFAULT

MBIT = 1e6 / 8  # bytes per second
WARM = 3.0  # seconds before the goodput of one flow counts
SETTLED = 10.0  # seconds before that of several does

Air = Dict[str, Any]


def air(rate: float = 20.0, queue: float = 0.1, **conditions: Any) -> Air:
    """What a `Pair` is made with; the rate in Mbit/s."""
    return {"rate": rate * MBIT, "queue": queue, **conditions}


LATE = {"latency": 0.002, "jitter": 0.050}  # each by itself, so that they overtake
IN_ORDER = {"latency": 0.002, "jitter": 0.030, "keeps_order": True}
AIRS = {
    "clean": air(latency=0.005),
    "jitter": air(**IN_ORDER),
    "loss2": air(latency=0.015, loss=0.02),
    "loss10": air(latency=0.015, loss=0.10),
    "loss30": air(latency=0.015, loss=0.30),
    "wifi": air(**IN_ORDER, loss=0.02, reorder=0.02),
    "late": air(**LATE),
    "late5": air(**LATE, loss=0.05),
    "late10": air(**LATE, loss=0.10),
    "late30": air(**LATE, loss=0.30),
    "fast late": air(100, **LATE),
    "far loss5": air(100, latency=0.025, loss=0.05),
    "far loss10": air(100, latency=0.025, loss=0.10),
    "slow jitter": air(2, queue=0.3, **IN_ORDER),
    "slow late": air(2, queue=0.3, latency=0.002, jitter=0.030),
}


class Result(NamedTuple):
    """What one run brought; it prints itself."""

    value: float  # what the table's median is of: Mbit/s, or a share
    text: str

    def __str__(self) -> str:
        return self.text


def alone(seed: int, controller: str, conditions: Air, seconds: float = 9.0) -> Result:
    """One flow: its goodput."""
    pair = Pair(seed=seed, controller=controller, **conditions)
    pair.connected(limit=30)
    pair.stream()
    pair.world.run(pair.world.now + WARM)
    rate = pair.rate_over(seconds) / MBIT
    return Result(rate, "%.2f" % rate)


def jain(shares: Sequence[float]) -> float:
    """1 when all have as much, 1/n when one has all (Jain's fairness index)."""
    return sum(shares) ** 2 / (len(shares) * sum(share**2 for share in shares) or 1.0)


def siblings(seed: int, controller: str, conditions: Air, count: int = 3, seconds: float = 20.0) -> Result:
    """Flows that come two seconds apart; what each has once all are there."""
    pairs = [Pair(seed=seed, controller=controller, **conditions)]
    world = pairs[0].world
    pairs[0].stream()
    for number in range(1, count):
        world.run(2.0 * number)
        pairs.append(Pair(beside=pairs[-1], controller=controller))
        pairs[-1].stream()
    world.run(world.now + SETTLED)
    before = [pair.streamed for pair in pairs]
    world.run(world.now + seconds)
    rates = [(pair.streamed - start) / seconds / MBIT for pair, start in zip(pairs, before)]
    return Result(jain(rates), f"{'+'.join(f'{rate:.1f}' for rate in rates)}={sum(rates):.1f} J={jain(rates):.2f}")


def beside_tcp(seed: int, controller: str, conditions: Air, is_ours_first: bool = True) -> Result:
    """Our share beside a CUBIC that came two seconds later, or before."""
    pair = Pair(seed=seed, controller=controller, **conditions)
    world = pair.world
    flow = PlainFlow(world, ("10.0.0.1", 9), ("10.0.0.2", 9), "cubic", 2.0 if is_ours_first else 0.0)
    world.at(0.0 if is_ours_first else 2.0, pair.stream)
    world.run(SETTLED)
    before = flow.received
    ours, theirs = pair.rate_over(20.0) / MBIT, (flow.received - before) / 20.0 / MBIT
    return Result(ours / (ours + theirs), "%.1f:%.1f=%.2f" % (ours, theirs, ours / (ours + theirs)))


def queue(seed: int, controller: str, conditions: Air) -> Result:
    """How long one flow's queue is, and what part of its packets it had no room for, in percent."""
    pair = Pair(seed=seed, controller=controller, **conditions)
    pair.stream()
    pair.world.run(4.0)
    link, delays, before = pair.world.link(Pair.A, Pair.B), [], pair.streamed
    dropped, carried = link.overflowed, link.carried
    for _ in range(200):
        pair.world.run(pair.world.now + 0.05)
        delays.append(link.queue_delay * 1e3)
    mean, late = statistics.mean(delays), sorted(delays)[190]
    rate = (pair.streamed - before) / 10.0 / MBIT
    dropped, carried = link.overflowed - dropped, link.carried - carried
    part = 100 * dropped / (dropped + carried)
    return Result(mean, "%.1f q=%.0f/%.0f drops=%d=%.1f%%" % (rate, mean, late, dropped, part))


def turns_bad(seed: int, controller: str, conditions: Air, bad: Air) -> Result:
    """The air turns bad for five seconds and good again: the part of the clean rate within three seconds of that."""
    pair = Pair(seed=seed, controller=controller, **conditions)
    pair.stream()
    pair.world.run(5.0)
    clean = pair.rate_over(3.0) / MBIT
    way = pair.world.between(Pair.A[0], Pair.B[0])
    good = {name: getattr(way, name) for name in bad}
    for name, value in bad.items():
        setattr(way, name, value)
    worse = pair.rate_over(5.0) / MBIT
    for name, value in good.items():
        setattr(way, name, value)
    pair.world.run(pair.world.now + 2.0)
    after = pair.rate_over(1.0) / MBIT
    return Result(after / clean, "%.1f>%.1f>%.1f" % (clean, worse, after))


def after_pause(seed: int, controller: str, conditions: Air) -> Result:
    """Five seconds, a silence of three, and how long 5 MB take then, as Mbit/s."""
    pair = Pair(seed=seed, controller=controller, **conditions)
    pair.transfer(8_000_000, 60.0)
    pair.world.run(pair.world.now + 3.0)
    rate = 5_000_000 / pair.transfer(5_000_000, 60.0) / MBIT
    return Result(rate, "%.2f" % rate)


CASES: Dict[str, Tuple[Callable[..., Result], Dict[str, Any]]] = {
    **{name: (alone, {"conditions": conditions}) for name, conditions in AIRS.items()},
    **{f"3 on {name}": (siblings, {"conditions": AIRS[name]}) for name in ("clean", "jitter", "wifi", "late", "late5")},
    **{
        "tcp %s ours, %s" % (order, name): (beside_tcp, {"conditions": conditions, "is_ours_first": order == "after"})
        for name, conditions in {
            "clean": air(latency=0.015),
            "jitter": AIRS["jitter"],
            "5 ms": air(latency=0.010, jitter=0.005, keeps_order=True),
            "100 Mbit/s": air(100, queue=0.05, latency=0.015),
            "deep": air(queue=0.4, latency=0.015),
        }.items()
        for order in ("after", "before")
    },
    **{
        "queue of 1 s, %s" % name: (queue, {"conditions": {**AIRS[name], "queue": 1.0}})
        for name in ("clean", "jitter", "wifi", "late", "late5")
    },
    **{
        "queue of 10 ms, %s" % name: (queue, {"conditions": {**AIRS[name], "queue": 0.01}})
        for name in ("clean", "jitter", "late", "late5")
    },
    "turns wifi": (turns_bad, {"conditions": AIRS["clean"], "bad": {**IN_ORDER, "latency": 0.005, "loss": 0.02}}),
    "turns late": (turns_bad, {"conditions": AIRS["clean"], "bad": {"jitter": 0.05, "loss": 0.1}}),
    **{"pause, %s" % name: (after_pause, {"conditions": AIRS[name]}) for name in ("clean", "wifi", "late")},
}


def main(argv: Sequence[str] = ()) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--controller", choices=list(CONTROLLERS), default=DEFAULT)
    parser.add_argument("cases", nargs="*", metavar="CASE", help="words that a case's name begins with")
    arguments = parser.parse_args(argv or None)
    with ProcessPoolExecutor() as pool:
        jobs = {
            name: [pool.submit(run, seed, arguments.controller, **how) for seed in range(1, arguments.seeds + 1)]
            for name, (run, how) in CASES.items()
            if not arguments.cases or any(name.startswith(words) for words in arguments.cases)
        }
        for name, started in jobs.items():
            results: List[Result] = [job.result() for job in started]
            print("%-24s %6.2f  %s" % (name, statistics.median(r.value for r in results), "  ".join(map(str, results))),
                  flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
