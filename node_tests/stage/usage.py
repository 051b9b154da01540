"""How scripts here are called: those that play seeds, and those that are one end of a benchmark.

    sys.exit(play_seeds(play, __doc__))      SEED or FIRST-LAST, exit code 0 when all hold, 1 when one does not, 2 for
                                             wrong arguments; `play(seed, tell)` raises when the story does not hold
    run_end(ENDS, __doc__)                   the name of a function and its arguments
"""

from __future__ import annotations

import argparse
import inspect
import os
import time
import traceback
from typing import Any, Callable, Dict, List, Optional, Sequence

Tell = Optional[Callable[[str], None]]  # what a story that is played alone says on its way
PACKETS = "RDT_TRACE"  # the simulator and rdt.py look there
DRAW = "python node_tests/stage/timeline.py %s"


def seeds_of(text: str) -> Sequence[int]:
    """17, or 0-499 with both ends."""
    first, _, last = text.partition("-")
    if not (first.isdigit() and (last or first).isdigit() and int(first) <= int(last or first)):
        raise argparse.ArgumentTypeError("%r is no seed and no range of them, as 17 or 0-499" % text)
    return range(int(first), int(last or first) + 1)


def play_seeds(play: Callable[..., Any], title: Optional[str], kinds: Optional[Dict[str, Any]] = None,
               argv: Optional[Sequence[str]] = None, about: Callable[[], str] = str) -> int:  # fmt: skip
    """Play what the command line says, tell which seeds do not hold, and return the exit code.

    With `kinds` a word stands before the seeds, and `play` gets what it means as a third argument. `about` says more,
    behind the verdict.
    """
    parser = argparse.ArgumentParser(description=title, formatter_class=argparse.RawDescriptionHelpFormatter)
    if kinds:
        parser.add_argument("kind", choices=list(kinds))
    parser.add_argument("seeds", type=seeds_of, metavar="SEED", help="one, or a range as 0-499")
    parser.add_argument("--packets", metavar="FILE", help="tell every simulated packet there: " + DRAW % "FILE")
    arguments = parser.parse_args(argv)
    if arguments.packets:
        begin_packets(arguments.packets)
    extra = [kinds[arguments.kind]] if kinds else []
    tell = print if len(arguments.seeds) == 1 else None
    began, failed = time.monotonic(), []
    for seed in arguments.seeds:
        try:
            play(seed, tell, *extra)
        except Exception as error:
            failed.append(seed)
            if tell is not None:
                traceback.print_exc()
            print(_said(seed, error), flush=True)
    print(_verdict(arguments.seeds, failed, time.monotonic() - began) + about(), flush=True)
    return 1 if failed else 0


def begin_packets(path: str) -> None:
    """From now on every simulated endpoint tells its packets to this file, which begins anew."""
    open(path, "wb").close()
    os.environ[PACKETS] = os.path.abspath(path)


def _said(seed: int, error: Exception) -> str:
    text = str(error) or type(error).__name__
    return text if text.startswith("seed %d" % seed) else "seed %d: %s: %s" % (seed, type(error).__name__, text)


def _verdict(seeds: Sequence[int], failed: List[int], seconds: float) -> str:
    if len(seeds) == 1:
        return "seed %d %s (%.2f s)" % (seeds[0], "does NOT hold" if failed else "holds", seconds)
    which = "%d FAILED: %s" % (len(failed), " ".join(map(str, failed))) if failed else "all hold"
    return "%d played, %s; %.2f s each" % (len(seeds), which, seconds / len(seeds))


def run_end(ends: Dict[str, Callable[..., None]], title: Optional[str]) -> None:
    """Call the one that the command line names; one that does not fit is said with the usage."""
    parser = argparse.ArgumentParser(description=title, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("end", choices=list(ends))
    parser.add_argument("words", nargs=argparse.REMAINDER, help="its arguments")
    arguments = parser.parse_args()
    try:
        inspect.signature(ends[arguments.end]).bind(*arguments.words)
    except TypeError as error:
        parser.error("%s: %s" % (arguments.end, error))
    ends[arguments.end](*arguments.words)
