"""The supernode leaves, and the others go on: start one with --leave (or --kill), then the rest without.

Expects: all `--nodes` see each other's files. Then the supernode says so and quits as by Q: the others follow the first
that joined within 1 s, and their list is complete within 3 s. With --kill the supernode's process is killed instead
(SIGKILL): then nothing is said, and the rules of a crash hold, see CRASH_FOLLOW_TIME.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from typing import Any, List

from stage import scenario
from stage.scenario import Failed, Member, election, expect, failover, results, say

FOLLOW_TIME = 1.0  # seconds from the supernode's last word until the others follow the next
LIST_TIME = 3.0  # seconds until the list is complete again
# Silence is judged on the third look after GONE_AFTER, and a claim is weighed before it is acted upon.
CRASH_FOLLOW_TIME = failover.GONE_AFTER + election.RANK_TIME + election.CLAIM_WAIT
LAST_WORD = "the supernode goes now"
KILL_ME = "all heard it: this process may be killed"
FILE_SIZE = 1000  # bytes of the small file that each shares


def body(arguments: argparse.Namespace) -> None:
    if arguments.kill:
        kill_a_supernode(arguments)
    elif arguments.leave:
        with Member(arguments, "leaver") as node:
            lead(node, arguments)
    else:
        with Member(arguments, "follower-%d" % os.getpid()) as node:
            follow(node, arguments)


# ---- the one who leaves -------------------------------------------------------------------------------------------


def lead(node: Member, arguments: argparse.Namespace) -> None:
    """Be the supernode until all are known to all, then say so; the end of the script is the quitting."""
    expect(node.is_first, "somebody is the supernode there already; the one that leaves has to be the first")
    share_one(node, arguments)
    say("ready: %d nodes are waited for" % arguments.nodes)
    scenario.ask_for("node_handover.py", arguments, "--nodes %d" % arguments.nodes)
    node.wait(lambda: len(said(node, "sees all")) >= arguments.nodes - 1, "%d nodes that see all" % arguments.nodes)
    node.say(LAST_WORD)
    node.wait(lambda: LAST_WORD in node.chat(), "own last word")
    if arguments.stay:  # killed before its word is out, it would leave the others waiting for it
        others = arguments.nodes - 1
        node.wait(lambda: len(said(node, "heard it")) >= others, "%d nodes that heard it" % others)
        say(KILL_ME)
        node.take(lambda: False, arguments.timeout)
        raise Failed("it was not killed")


def kill_a_supernode(arguments: argparse.Namespace) -> None:
    """Have another process be the supernode, and kill it at its last word."""
    flags = ["--ip", arguments.ip, "--port", str(arguments.port), "--name", arguments.name or "victim",
             "--nodes", str(arguments.nodes), "--timeout", str(arguments.timeout),
             "--folder", arguments.folder, "--stay"]  # fmt: skip
    command = [sys.executable, os.path.abspath(__file__), "--leave"] + flags
    victim = subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True, encoding="utf-8")
    assert victim.stdout is not None
    try:
        for line in victim.stdout:
            if line.startswith("FAIL"):
                raise Failed(line.rstrip().partition(": ")[2])
            say(line.rstrip())
            if line.startswith(KILL_ME):
                return
        raise Failed("the supernode's process ended by itself")
    finally:
        victim.kill()  # on POSIX that is SIGKILL
        victim.wait()
        victim.stdout.close()
        say("the supernode's process is killed")


# ---- the others ---------------------------------------------------------------------------------------------------


def follow(node: Member, arguments: argparse.Namespace) -> None:
    """See all, see the supernode go, and see all that are left again."""
    expect(not node.is_first, "nobody was here; %s"
           % scenario.command_line("node_handover.py", arguments, "--leave --nodes %d" % arguments.nodes))
    own = share_one(node, arguments)
    files = node.wait_for_files(lambda rows: len(one_each(rows)) >= arguments.nodes, "%d files" % arguments.nodes)
    say("sees all %d files" % len(files))
    node.say("%s sees all" % own)
    node.wait(lambda: LAST_WORD in node.chat(), "last word of the supernode")
    went_at = node.time_of(next(event for event in node.told if getattr(event, "text", "") == LAST_WORD))
    node.say("%s heard it" % own)
    node.wait(lambda: node.all(results.SupernodeChanged), "new supernode")
    check_change(node, arguments, went_at)
    left = arguments.nodes - 1
    node.wait_for_files(lambda rows: len(one_each(rows)) == left and own in one_each(rows), "the %d files left" % left)
    listed_after = time.monotonic() - went_at
    say("list complete after %.2f s" % listed_after)
    node.say("%s has all again" % own)
    node.wait(lambda: len(said(node, "has all again")) >= left, "%d nodes that have all again" % left)
    check_list_time(node, arguments, listed_after)
    check_chat(node, left)


def check_change(node: Member, arguments: argparse.Namespace, went_at: float) -> None:
    """One change, in time, and of the kind that was agreed."""
    change = node.all(results.SupernodeChanged)[0]
    took = node.time_of(change) - went_at
    say("follows %s after %.2f s" % ("itself" if change.is_me else change.new_label, took))
    limit = arguments.follow_within or (CRASH_FOLLOW_TIME if change.silent_seconds else FOLLOW_TIME)
    expect(took <= limit, "the next supernode was followed after %.2f s, not within %g s" % (took, limit))


def check_list_time(node: Member, arguments: argparse.Namespace, took: float) -> None:
    """The list was complete soon after the one who went was known to be gone."""
    changes = node.all(results.SupernodeChanged)
    expect(len(changes) == 1, "the supernode changed %d times" % len(changes))
    limit = arguments.list_within or LIST_TIME + (CRASH_FOLLOW_TIME if changes[0].silent_seconds else 0.0)
    expect(took <= limit, "the list was complete after %.2f s, not within %g s" % (took, limit))


def check_chat(node: Member, left: int) -> None:
    """What was said while the supernode changed has come, and nothing has come twice."""
    heard = said(node, "heard it")
    expect(len(heard) == left, "of %d lines said at the change, %d came" % (left, len(heard)))
    expect(len(set(node.chat())) == len(node.chat()), "a line came twice: %s" % node.chat())


# ---- both ---------------------------------------------------------------------------------------------------------


def share_one(node: Member, arguments: argparse.Namespace) -> str:
    """Share a small file of one's own; its name."""
    seed = int.from_bytes(os.urandom(6), "big")
    name = "handover-%d.bin" % seed
    scenario.make_file(arguments.folder, seed, FILE_SIZE, name)
    node.look_now()
    return name


def one_each(rows: List[Any]) -> List[str]:
    """The files of these scripts in a list."""
    return [row.name for row in rows if row.name.startswith("handover-")]


def said(node: Member, what: str) -> List[str]:
    """Who said it."""
    return sorted({line.split()[0] for line in node.chat() if line.endswith(" " + what)})


if __name__ == "__main__":
    parser = scenario.parser_for(__doc__)
    parser.add_argument("--nodes", type=int, default=3, help="all nodes with the one that leaves (default %(default)d)")
    parser.add_argument("--leave", action="store_true", help="be the supernode, and quit when all are here")
    parser.add_argument("--kill", action="store_true", help="be the supernode in a process that is killed then")
    parser.add_argument("--stay", action="store_true", help="with --leave: say the last word, and wait to be killed")
    parser.add_argument("--follow-within", type=float, default=0.0, help="seconds (default: as the rules say)")
    parser.add_argument("--list-within", type=float, default=0.0, help="seconds (default: as the rules say)")
    sys.exit(scenario.run(__doc__, body, parser))
