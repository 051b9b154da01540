"""Opens the network, waits for some members to join, and sees all of them leave.

Expects: nobody is at this address yet; `--members` nodes join, each with a line of its own; after they have left, this
one is alone again. Start this first, then others (node_share.py, node_request.py, node_chat.py, or the program itself).
"""

from __future__ import annotations

import argparse
import sys

from stage import scenario
from stage.scenario import Member, expect, results, say


def body(arguments: argparse.Namespace) -> None:
    with Member(arguments, "supernode") as node:
        expect(node.is_first, "somebody is the supernode there already; this one was to be the first")
        say("ready: %d members are waited for" % arguments.members)
        scenario.ask_for("node_share.py", arguments)
        node.wait(lambda: len(node.all(results.Joined)) >= arguments.members, "%d members" % arguments.members)
        say("all are here: now they may leave")
        node.wait(lambda: node.count == 1, "end of all members")
        silent = [event.label for event in node.all(results.Left) if event.silent_seconds]
        expect(not silent, "gone without a good-bye: %s" % ", ".join(silent))


if __name__ == "__main__":
    parser = scenario.parser_for(__doc__)
    parser.add_argument("--members", type=int, default=2, help="how many have to join (default %(default)d)")
    sys.exit(scenario.run(__doc__, body, parser))
