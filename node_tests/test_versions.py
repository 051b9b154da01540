"""Programs of different ages in one network: they join, chat and fetch both ways, or say in one sentence why not.

An earlier program is taken from the history of this repository; where that is not at hand, its test is skipped. Whoever
changes what nodes say to each other adds a row to VERSIONS: the commit before the change.
"""

from __future__ import annotations

import functools
import io
import os
import subprocess
import tarfile
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple, Optional

import pytest

from node_tests.stage.amounts import amount
from node_tests.stage.running import ROOT, Running, free_port

THIS = ROOT / "node_client.py"
CONTENT_SIZE = 3_000_000  # bytes: some pieces


class Earlier(NamedTuple):
    """A program of the past, and what it is to this one."""

    commit: str
    what: str
    parting: Optional[str] = None  # None: they work together; else a pattern of this one's sentence about the other


VERSIONS = [
    Earlier("c16df42", "0.1.0, the first that a class had"),
    Earlier("419e1fc", "the last before the program moved into wings"),
    Earlier("944b035", "the last that knew no private lines"),
    Earlier("f8b6fe6", "the last that had IPv4 alone, and whose connections stayed where they were"),
    Earlier("166309b", "the last that knew no key"),
    Earlier("93b374f", "the last whose takers of a cast called each other meanwhile"),
    Earlier("5c1654e", "the last that asked others beside a cast that filled its link"),
    Earlier("90cc99b", "the last that pinged at each beat in a large hall, and cast by IPv4 alone"),
    Earlier("a9274b2", "the last that sent a frame's header in packets of its own"),
    Earlier("1eff785", "the last whose supernode counted chat without a gap"),
    Earlier("d6c347c", "the last that sent every slice of a cast at first"),
]

PRIVATE_VERSIONS = [Earlier("93b374f", "the last that sealed large datagrams, too, by BLAKE2b"), VERSIONS[-1]]
ROLES = ("earlier", "this")  # which of the two is the supernode
# The others with --full: each start costs, and what an earlier program compiles.
PLAYED = amount([(version, role) for version in VERSIONS for role in ROLES],
                [(VERSIONS[0], "earlier"), (VERSIONS[0], "this"), (VERSIONS[4], "earlier"), (VERSIONS[-1], "this")])
PRIVATE_PLAYED = amount([(version, role) for version in PRIVATE_VERSIONS for role in ROLES],
                        [(PRIVATE_VERSIONS[0], "this"), (PRIVATE_VERSIONS[1], "earlier")])
KEY = "h6xog-xq3vg-46brm-qtkkp-m5y4s-lzt7k"


def unpack(commit: str, folder: Path) -> Path:
    """The program of a commit; skips where there is no such history."""
    command = ["git", "-C", str(ROOT), "archive", "--format=tar", commit, "--", ".", ":(exclude)node_tests"]
    try:
        packed = subprocess.run(command, capture_output=True)
    except OSError as error:
        pytest.skip("git cannot be run, so there is no earlier program to test against: %s" % error)
    if packed.returncode:
        trouble = packed.stderr.decode(errors="replace").strip()
        pytest.skip("no commit %s here (no history, or a shallow one): %s" % (commit, trouble))
    with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as tree:
        tree.extractall(folder, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    return folder / THIS.name


@pytest.fixture(scope="session")
def program_of(tmp_path_factory):
    """The same by the commit, but unpacked once in this process: what Python compiles of it serves the next test."""
    return functools.cache(lambda commit: unpack(commit, tmp_path_factory.mktemp(commit)))


class Pair:
    """Two programs on loopback, each with a file to share; the first one opens the network."""

    def __init__(self, stack: ExitStack, home: Path, first: Path, second: Path, key: str = "") -> None:
        self.port, self.home, self._stack, self._key = free_port(), home, stack, key
        self.ana = self._start(first, "ana", r"^\* supernode at ")
        self.bo = self._start(second, "bo", "")

    def _start(self, program: Path, name: str, pattern: str) -> Running:
        shared = self.home / name / "shared"
        shared.mkdir(parents=True)
        (shared / ("of_%s.bin" % name)).write_bytes(os.urandom(CONTENT_SIZE))
        flags = ("--ip", "127.0.0.1", "--port", self.port, "--name", name)
        one = self._stack.enter_context(Running(str(program), *flags, cwd=self.home / name, LAB_SHARE_KEY=self._key))
        one.expect(pattern)
        return one

    def fetch(self, requester: Running, name: str, sharer: str) -> None:
        """`name` asks for what `sharer` shares."""
        file = "of_%s.bin" % sharer
        requester.ask_until("G %s" % file, r"%s  3\.0 MB  %s" % (file.replace(".", r"\."), sharer))
        requester.ask("R %s" % file, r"^OK %s .*, from %s " % (file.replace(".", r"\."), sharer))
        assert (self.home / name / "shared" / file).read_bytes() == (self.home / sharer / "shared" / file).read_bytes()


def named(played) -> str:
    """Of a test, behind its name."""
    version, supernode = played
    return f"{version.commit}-{supernode}"


def work_together(pair: Pair) -> None:
    """Join, chat and fetch both ways; the member outlives its supernode."""
    ana, bo = pair.ana, pair.bo
    bo.expect(r"^\* joined ana's network at 127\.0\.0\.1:%d: 2 nodes\." % pair.port)
    ana.expect(r"^\* bo joined \(2 nodes\)$")
    for one, name in ((ana, "ana"), (bo, "bo")):
        one.type("T %s is here" % name)
        for reader in (ana, bo):
            reader.expect("^<%s> %s is here$" % (name, name))
    pair.fetch(ana, "ana", "bo")
    pair.fetch(bo, "bo", "ana")
    ana.type("Q")
    assert ana.end() == 0, ana.story()
    bo.expect(r"^\* ana left; you are now the supernode$")
    assert bo.end() == 0, bo.story()
    for one in (ana, bo):
        assert one.count("Traceback|^!!") == 0, one.story()


@pytest.mark.parametrize("earlier, supernode", PLAYED, ids=map(named, PLAYED))
def test_an_earlier_program_and_this_one_share_a_network_or_say_why_not(tmp_path, program_of, earlier, supernode):
    old = program_of(earlier.commit)
    with ExitStack() as stack:
        pair = Pair(stack, tmp_path, *((old, THIS) if supernode == "earlier" else (THIS, old)))
        if earlier.parting is None:
            work_together(pair)
        else:
            (pair.bo if supernode == "earlier" else pair.ana).expect(earlier.parting)


@pytest.mark.parametrize("earlier, supernode", PRIVATE_PLAYED, ids=map(named, PRIVATE_PLAYED))
def test_an_earlier_program_and_this_one_share_a_private_network(tmp_path, program_of, earlier, supernode):
    old = program_of(earlier.commit)
    with ExitStack() as stack:
        pair = Pair(stack, tmp_path, *((old, THIS) if supernode == "earlier" else (THIS, old)), key=KEY)
        for one in (pair.ana, pair.bo):
            one.expect(r"^\* ana's network \(private, check cdf5\)$")
        work_together(pair)


def test_one_line_fetches_from_an_earlier_program_which_hears_what_it_does_not_know(tmp_path, program_of):
    """A guest tells its supernode that it is one; an earlier one lets that pass."""
    old, port = program_of(VERSIONS[-1].commit), free_port()
    shared, here = tmp_path / "ana" / "shared", tmp_path / "here"
    shared.mkdir(parents=True)
    here.mkdir()
    (shared / "notes.pdf").write_bytes(os.urandom(CONTENT_SIZE))
    flags = ("--ip", "127.0.0.1", "--port", port)
    with Running(str(old), *flags, "--name", "ana", cwd=tmp_path / "ana") as ana:
        ana.expect(r"^\* supernode at ")
        ana.ask_until("G", "notes.pdf")
        with Running("node_client.py", "get", "notes.pdf", *flags, "--name", "bo", cwd=here) as get:
            assert get.end() == 0, get.story()
        ana.expect(r"^\* bo left")
        assert ana.count("Traceback|^!!") == 0, ana.story()
    assert (here / "notes.pdf").read_bytes() == (shared / "notes.pdf").read_bytes()
