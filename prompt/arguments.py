"""The one-line forms: what stands behind `get`, `share`, `list`, `who`, `say` and `doctor`, and what a limit may be.

Added to the flags of the prompt by `parse_flags` (prompt/settings.py); done by prompt/oneshot.py.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from typing import Dict, Optional

LIMIT_MIN = 100_000             # bytes per second: a source much slower than this is given up by others
UNITS = {"k": 1e3, "m": 1e6, "g": 1e9}
LIMIT_HELP = "5M or 500k (bytes a second)"

USAGE = """{0} [flags]                asks, then has a prompt
       {0} [flags] get NAME [-]   fetch into this folder or --to DIR
       {0} [flags] share PATH ... until somebody has it, or --stay
       {0} [flags] list [PATTERN] | who | say TEXT | doctor"""

EPILOG = """\
NAME is as list shows it; - writes it to standard output. --json behind a word:
one object a line. Without a word, commands may be piped in; ? at the prompt.
Exit codes: 0 done, 1 a transfer failed, 2 wrong use, 3 no network or address,
6 output or memory, 130 Ctrl-C; of a word 4, not found, and 5, files left out."""


def program() -> str:
    """What it was started as: `lab-share` where it is installed."""
    name = os.path.basename(sys.argv[0]) if sys.argv else ""
    return name if name.startswith("lab-share") else "node_client.py"


def layout(prog: str) -> argparse.HelpFormatter:
    """How the help looks: one screen of 80 columns and 24 rows."""
    return argparse.RawDescriptionHelpFormatter(prog, max_help_position=16, width=79)


def check_limit(text: str) -> Optional[float]:
    """Bytes per second, None for `off`; ValueError with a sentence."""
    text = text.strip().lower()
    if text in ("off", "none", "0"):
        return None
    number, unit = text[:-1], text[-1:]
    try:
        rate = float(number) * UNITS[unit]
    except (ValueError, KeyError):
        rate = math.nan
    if not rate < math.inf:
        raise ValueError("A limit is a number with k, M or G, such as 5M (5 MB/s), or off.")
    if rate < LIMIT_MIN:
        raise ValueError("A limit is at least 100k (0.1 MB/s).")
    return rate


def limits_of(wish: str) -> Dict[str, Optional[float]]:
    """What `L` is to change: `up 5M down off`, `off` for both, nothing; ValueError with a sentence."""
    words = wish.lower().split()
    if words == ["off"]:
        return {"up": None, "down": None}
    ways, rates = words[::2], words[1::2]
    if len(ways) != len(rates) or not set(ways) <= {"up", "down"}:
        raise ValueError("L is told up or down and how fast: L up 5M; L off takes both limits away, L alone tells.")
    return {way: check_limit(rate) for way, rate in zip(ways, rates)}


def add_verbs(parser: argparse.ArgumentParser, shared: argparse.ArgumentParser) -> None:
    """The one-line forms; `shared` has the flags that may stand behind the word as well as before it."""
    shared.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="one object a line")
    verbs = parser.add_subparsers(dest="verb", metavar="WORD", prog=program(), help=argparse.SUPPRESS)

    def verb(name: str, does: str) -> argparse.ArgumentParser:
        return verbs.add_parser(name, parents=[shared], description=does, formatter_class=layout)

    get = verb("get", "Fetch a file or folder of the network into the present folder. Nothing is shared.")
    get.add_argument("wanted", metavar="NAME", help="as list shows it, or a pattern that fits one file alone")
    get.add_argument("output", metavar="-", nargs="?", choices=["-"], help="write it to standard output")
    get.add_argument("--to", metavar="DIR", help="where it lands, if not here; with -: where it is while it comes")
    share = verb("share", "Share files and folders until another node has all of them.")
    share.add_argument("paths", metavar="PATH", nargs="+")
    share.add_argument("--stay", action="store_true", default=argparse.SUPPRESS, help="go on until SIGTERM or Ctrl-C")
    verb("list", "List the files of the network.").add_argument("pattern", metavar="PATTERN", nargs="?", default="")
    verb("who", "Tell who is in the network.")
    verb("doctor", "Tell what is the matter with this machine and its network, and what to do about it.")
    verb("say", "Say something to everyone.").add_argument("text", metavar="TEXT", nargs="+")
