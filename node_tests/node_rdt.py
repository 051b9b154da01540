"""The course's verbs by hand: the first of these is the accepting end, the others connect to it.

Expects: the first opens the port and accepts `--others` connections; each says its name and gets it back; one broadcast
reaches all; each sends a file and gets one, with equal SHA-256 at both ends; a disconnected end is told so.
"""

from __future__ import annotations

import argparse
import os
import sys
from typing import List

from stage import scenario
from stage.scenario import Failed, expect, rdt, say

GREETING = b"welcome to all"
GOOD_BYE = b"good-bye"
FILE_SIZE = 300_000


def body(arguments: argparse.Namespace) -> None:
    expect(arguments.ip, "--ip has to say where; only nodes search a network")
    try:
        try:
            transport = rdt.open(arguments.ip, arguments.port)
        except rdt.RdtError as error:
            say("%s: this end connects" % error)
            with rdt.open("", 0) as transport:
                connect_end(transport, arguments)
            return
        with transport:
            accept_end(transport, arguments)
    except rdt.RdtError as error:
        raise Failed(str(error)) from error


# ---- the first ----------------------------------------------------------------------------------------------------


def accept_end(transport: rdt.Transport, arguments: argparse.Namespace) -> None:
    """Accept all, and serve each in turn."""
    say("ready at %s:%d" % transport.address)
    scenario.ask_for("node_rdt.py", arguments)
    connections = accept_number(transport, arguments.others, arguments.timeout)
    for connection in connections:
        name = connection.receive(arguments.timeout)
        say("%s:%d says it is %s" % (*connection.address, name.decode()))
        connection.send(b"hello " + name)
    expect(transport.broadcast(GREETING) == len(connections), "the broadcast was not handed to all")
    for seed, connection in enumerate(connections):
        exchange_as_first(connection, seed, arguments)
    for connection in connections:
        expect(connection.receive(arguments.timeout) == GOOD_BYE, "the last message is not a good-bye")
        transport.disconnect(connection)
    expect(transport.accept_all() == [], "somebody else is connected")


def accept_number(transport: rdt.Transport, count: int, timeout: float) -> List[rdt.Connection]:
    """`accept` waits for one; `accept_all` takes what has come besides."""
    connections: List[rdt.Connection] = []
    while len(connections) < count:
        connections.append(transport.accept(timeout))
        connections += transport.accept_all()
    expect(len(connections) == count, "%d connected, %d were expected" % (len(connections), count))
    return connections


def exchange_as_first(connection: rdt.Connection, seed: int, arguments: argparse.Namespace) -> None:
    """Take the other's file, and send it one."""
    taken = connection.accept_file(arguments.folder, timeout=arguments.timeout)
    say("took %s: %d bytes, SHA-256 %s" % (os.path.basename(taken.path), taken.size, taken.sha256))
    expect(scenario.file_sha256(taken.path) == taken.sha256, "what was kept is not what the receipt says")
    connection.send(taken.sha256.encode())
    path = scenario.make_file(arguments.folder, seed, FILE_SIZE, "from-first-%d.bin" % seed)
    sent = connection.send_file(path, timeout=arguments.timeout)
    expect(sent.sha256 == scenario.content_sha256(seed, FILE_SIZE), "the other end confirmed another content")


# ---- the others ---------------------------------------------------------------------------------------------------


def connect_end(transport: rdt.Transport, arguments: argparse.Namespace) -> None:
    """Connect, exchange messages and files, say good-bye."""
    name = (arguments.name or "end-%d" % os.getpid()).encode()
    connection = transport.connect((arguments.ip, arguments.port), timeout=arguments.timeout)
    connection.send(name)
    expect(connection.receive(arguments.timeout) == b"hello " + name, "the own name did not come back")
    expect(connection.receive(arguments.timeout) == GREETING, "the broadcast did not come next")
    say("the name came back, and the broadcast came")
    seed = os.getpid()
    path = scenario.make_file(arguments.folder, seed, FILE_SIZE)
    progress: List[int] = []
    sent = connection.send_file(path, lambda done, size: progress.append(done), timeout=arguments.timeout)
    say("sent %d bytes in %.3f s, SHA-256 %s" % (sent.size, sent.seconds, sent.sha256))
    expect(progress[-1:] == [FILE_SIZE] and progress == sorted(progress), "the progress went %s" % progress)
    expect(connection.receive(arguments.timeout).decode() == sent.sha256, "the ends disagree about the content")
    taken = connection.accept_file(os.path.join(arguments.folder, "taken"), timeout=arguments.timeout)
    expect(scenario.file_sha256(taken.path) == taken.sha256, "what was kept is not what the receipt says")
    connection.send(GOOD_BYE)
    expect_end(connection, arguments.timeout)
    refuse_here(transport)


def expect_end(connection: rdt.Connection, timeout: float) -> None:
    """The end of a connection raises; it is never an empty message."""
    try:
        data = connection.receive(timeout)
    except rdt.RdtError as error:
        say("disconnected: %s" % error)
        expect("closed" in str(error), "the end was told as: %s" % error)
        return
    raise Failed("the first did not disconnect but said %r" % data)


def refuse_here(transport: rdt.Transport) -> None:
    """A verb on what is over fails with a sentence, at once."""
    try:
        transport.connect(("127.0.0.1", 9), timeout=0.2)
    except rdt.RdtError as error:
        say("as expected: %s" % error)
        return
    raise Failed("a connection to nobody was made")


if __name__ == "__main__":
    parser = scenario.parser_for(__doc__)
    parser.add_argument("--others", type=int, default=1, help="how many connect to the first (default %(default)d)")
    sys.exit(scenario.run(__doc__, body, parser))
