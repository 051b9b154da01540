"""Lists the files of the network, fetches one by name, and compares its SHA-256 with what the seed gives.

Expects: the file is in the list once somebody shares it, arrives whole under its own name, and is shared from here
then. The other end is node_share.py with the same --seed and --size.
"""

from __future__ import annotations

import argparse
import sys

from stage import scenario
from stage.scenario import Failed, Member, expect, results, say


def body(arguments: argparse.Namespace) -> None:
    name = scenario.content_name(arguments.seed, arguments.size)
    expected = scenario.content_sha256(arguments.seed, arguments.size)
    with Member(arguments, "request") as node:
        if arguments.mesh_off:
            node.set_mesh(False)
        scenario.ask_for("node_share.py", arguments, "--seed %d --size %d" % (arguments.seed, arguments.size))
        rows = node.wait_for_files(lambda rows: name in [row.name for row in rows], name)
        for row in rows:
            say("  %s  %d bytes  from %s" % (row.name, row.size, ", ".join(row.holders)))
        done = fetch(node, name)
        found = scenario.file_sha256(done.path)
        say("SHA-256 %s of %s" % (found, done.path))
        expect(found == expected, "the content is not that of the seed: %s was expected" % expected)
        expect(done.size == arguments.size, "%d bytes were told, %d expected" % (done.size, arguments.size))
        node.say(scenario.fetched_line(name))
        node.wait_for_files(lambda rows: any(row.name == name and node.name in _names(row) for row in rows),
                            "%s with this node as a source" % name)


def fetch(node: Member, name: str) -> results.DownloadDone:
    """The command R, to its end."""
    answer = node.ask(lambda peer, now, done: peer.fetch_name(name, now, done), "R")
    expect(answer.kind == "started", "R %s was answered with: %s" % (name, answer.kind))
    node.wait(lambda: node.all(results.DownloadDone) or node.all(results.Stopped), "end of the transfer")
    if node.all(results.Stopped):
        raise Failed("the transfer stopped: %s" % node.all(results.Stopped)[0].reason)
    return node.all(results.DownloadDone)[0]


def _names(row: object) -> list[str]:
    return [label.split("~")[0] for label in getattr(row, "holders", ())]  # two of one name are told apart by `~7f3a`


if __name__ == "__main__":
    parser = scenario.parser_for(__doc__)
    scenario.add_content_flags(parser)
    sys.exit(scenario.run(__doc__, body, parser))
