"""Several of these chat: each says some lines, and everyone must receive all lines once and in one order.

Expects: `--speakers` of these scripts in one network, in any order of starting. Each says `ready` until it has heard
all of them, then its lines; then it tells a digest of the order in which they came, and the digests must agree.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
from typing import Dict, List

from stage import scenario
from stage.scenario import Member, expect, results, say


def body(arguments: argparse.Namespace) -> None:
    with Member(arguments, "chat-%d" % os.getpid()) as node:
        token = os.urandom(4).hex()  # names may be equal
        meet(node, token, arguments)
        for number in range(1, arguments.lines + 1):
            node.say("%s line %d of %d" % (token, number, arguments.lines))
        total = arguments.speakers * arguments.lines
        node.wait(lambda: len(lines_of(node, "line")) >= total, "%d lines" % total)
        order = lines_of(node, "line")
        check_each(order, arguments)
        node.say("%s digest %s" % (token, digest_of(order)))
        node.wait(lambda: len(lines_of(node, "digest")) >= arguments.speakers, "%d digests" % arguments.speakers)
        digests = {line.split(" ", 2)[2] for line in lines_of(node, "digest")}
        expect(len(digests) == 1, "the lines came in different orders")
        expect(lines_of(node, "line") == order, "a line came once more")
        say("all %d lines once and in one order: digest %s" % (total, digests.pop()))


def meet(node: Member, token: str, arguments: argparse.Namespace) -> None:
    """Wait until all speakers are known to hear each other: who came later has not heard what was said before."""
    greeted = -1
    scenario.ask_for("node_chat.py", arguments, "--speakers %d --lines %d" % (arguments.speakers, arguments.lines))
    while len({line.split()[0] for line in lines_of(node, "ready")}) < arguments.speakers:
        if greeted < len(node.all(results.Joined)):
            greeted = len(node.all(results.Joined))
            node.say("%s ready" % token)
        heard = len(node.told)
        node.wait(lambda: len(node.told) > heard, "further speaker")  # noqa: B023  waited for at once


def lines_of(node: Member, kind: str) -> List[str]:
    """The chat lines `token kind ...` so far."""
    return [line for line in node.chat() if line.split()[1:2] == [kind]]


def digest_of(order: List[str]) -> str:
    """One short text for one order of lines."""
    return hashlib.sha256("\n".join(order).encode()).hexdigest()[:16]


def check_each(order: List[str], arguments: argparse.Namespace) -> None:
    """Every speaker's lines are there once, and in the order in which he said them."""
    numbers: Dict[str, List[int]] = {}
    for line in order:
        token, _, number = line.split()[:3]
        numbers.setdefault(token, []).append(int(number))
    expect(len(numbers) == arguments.speakers, "%d spoke, %d were expected" % (len(numbers), arguments.speakers))
    for token, found in numbers.items():
        expect(found == list(range(1, arguments.lines + 1)), "the lines of %s came as %s" % (token, found))


if __name__ == "__main__":
    parser = scenario.parser_for(__doc__)
    parser.add_argument("--speakers", type=int, default=2, help="how many of these chat (default %(default)d)")
    parser.add_argument("--lines", type=int, default=20, help="lines that each says (default %(default)d)")
    sys.exit(scenario.run(__doc__, body, parser))
