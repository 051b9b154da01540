"""Shares a file made from a seed, and stays until it was fetched.

Expects: the file comes into the list of the network with this node as its source, and `--times` others fetch it whole.
The other end is node_request.py with the same --seed and --size.
"""

from __future__ import annotations

import argparse
import sys

from stage import scenario
from stage.scenario import Member, expect, results, say


def body(arguments: argparse.Namespace) -> None:
    name = scenario.content_name(arguments.seed, arguments.size)
    expect(arguments.size > 0, "--size has to be more: nothing is sent of an empty file, so nobody hears of its fetch")
    scenario.make_file(arguments.folder, arguments.seed, arguments.size)
    say("shared: %s  SHA-256 %s" % (name, scenario.content_sha256(arguments.seed, arguments.size)))
    with Member(arguments, "share-%d" % arguments.seed) as node:
        if arguments.mesh_off:
            node.set_mesh(False)
        node.wait_for_files(lambda rows: name in [row.name for row in rows], name)
        say("ready: %s is in the list" % name)
        scenario.ask_for("node_request.py", arguments, "--seed %d --size %d" % (arguments.seed, arguments.size))

        def fetched() -> int:
            # Who took all of it from another requester tells only by chat; a person's `R` tells only by what we sent.
            sent = sum(event.name == name for event in node.all(results.UploadDone))
            return max(sent, node.chat().count(scenario.fetched_line(name)))

        node.wait(lambda: fetched() >= arguments.times, "%d fetches of %s" % (arguments.times, name))
        most = max((event.size for event in node.all(results.UploadDone)), default=0)
        # Some pieces cross on the way with the news that another requester gave them; a fetch counted twice is more.
        expect(most <= 1.5 * arguments.size, "%d bytes were sent for one fetch of %d" % (most, arguments.size))


if __name__ == "__main__":
    parser = scenario.parser_for(__doc__)
    scenario.add_content_flags(parser)
    parser.add_argument("--times", type=int, default=1, help="how often it is to be fetched (default %(default)d)")
    sys.exit(scenario.run(__doc__, body, parser))
