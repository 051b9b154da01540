"""The list of attacks and faults (`THREATS.md`) is whole and true, and the rows that no other file has tests for."""

from __future__ import annotations

import contextlib
import os
import random
import re
import types
from collections import Counter
from pathlib import Path

import pytest
import test_network

import rdt
from disk import library
from disk.scanner import Scanner
from node_tests.stage import stub_node
from node_tests.stage.amounts import amount
from node_tests.stage.folders import paths_below
from node_tests.stage.forged import init
from node_tests.stage.forger import Stranger
from node_tests.stage.held import held_bytes
from node_tests.stage.house import MODULES, calls_of
from node_tests.stage.lab import MIB, PORT, Lab, content
from node_tests.stage.outlaw import Outlaw, Strangers, offers_all
from node_tests.stage.running import Running, free_port, status_of
from node_tests.stage.simulator import Conditions, data_packet
from node_tests.stage.stranger import obeyed_by_all
from protocol import messages
from protocol.content.pieces import digests_of, identity_of, piece_length
from protocol.results import ChatReceived, DownloadDone, Left, SupernodeChanged

try:
    import resource
except ImportError:  # Windows
    resource = None

TESTS = Path(__file__).resolve().parent
ROWS = {"A": 12, "B": 9, "C": 8, "D": 13, "E": 13, "F": 17, "G": 8, "H": 8, "K": 12}  # the last number of each letter
NO_ROWS = {"A08", "B02", "B03", "B06", "C06", "D06", "E11", "F05", "F15", "H02"}  # numbers that mean nothing
NO_ROWS |= {"K05", "K07"}
WALL_CLOCK = {"time.time", "time.time_ns", "time.localtime", "time.gmtime", "datetime.now", "datetime.datetime.now"}
JOIN_TAG = messages.encode(messages.Join(bytes(16), 0, bytes(8), bytes(16), "", True, 0))[:1]
CITED = re.compile(r"\bTHREATS:? ([^)\n]+)")
LISTED = re.compile(r"^\| ([A-HK]\d\d) \|[^|]+\| (.+) \|$", re.M)


def rows():
    """The list: row -> what stands for it, in words and names of tests."""
    found = LISTED.findall((TESTS / "THREATS.md").read_text(encoding="utf-8"))
    assert len({row for row, _ in found}) == len(found), "a row is listed twice"
    return dict(found)


def test_every_row_is_listed_and_has_a_test_or_says_why_not():
    numbers = {"%s%02d" % (letter, number) for letter, last in ROWS.items() for number in range(1, last + 1)}
    assert set(rows()) == numbers - NO_ROWS
    assert all(re.search(r"test_\w+\.py::test_|no test: ", standing) for standing in rows().values())


def test_every_test_that_is_listed_exists():
    for row, standing in rows().items():
        for file, name in re.findall(r"(test_\w+\.py)::(\w+)", standing):
            source = (TESTS / file).read_text(encoding="utf-8")
            assert re.search(r"^def %s\(" % name, source, re.M), "%s: %s::%s is not there" % (row, file, name)


def test_every_row_that_a_comment_cites_is_listed():
    files = [*MODULES.values(), *TESTS.rglob("*.py")]
    cited = [text for path in files for text in CITED.findall(path.read_text(encoding="utf-8"))]
    found = [re.match(r"[A-HK]\d\d(?:, [A-HK]\d\d)*", text) for text in cited]
    assert len(cited) > 15 and all(found), cited
    assert {row for match in found for row in match[0].split(", ")} <= set(rows())


# ---- A: names and the download folder -----------------------------------------------------------------------------


def test_requests_that_do_not_exist_change_nothing(lab):
    """A10: there is no message to delete, rename or change a file; what has another tag is nothing at all."""
    ana = lab.node("ana", shared={"mine.txt": b"mine"})
    stranger = Stranger(lab)
    link, path = stranger.link_to(ana), os.path.join(ana.folder, "mine.txt")
    before, state, dropped = paths_below(ana.folder), os.stat(path), ana.peer.dropped
    unknown = set(range(256)) - set(messages.TABLE)
    for tag in sorted(unknown):
        for said in (b"", b"mine.txt", b"\x00\x08mine.txt\x00\x08ours.txt", b"mine.txt\x0009ED"):
            stranger.say(link, bytes([tag]) + said)
            stranger.network.send_lone((ana.ip, PORT), bytes([tag]) + said)
    lab.run(2)
    assert ana.peer.dropped == dropped + 2 * 4 * len(unknown) and not stranger.lost
    assert paths_below(ana.folder) == before and os.stat(path) == state


# ---- B: the shared folder -----------------------------------------------------------------------------------------


def test_a_huge_file_is_hashed_in_less_than_half_of_the_time_while_five_take_something(lib, tmp_path, monkeypatch):
    """B08: by the program's own sign of a busy disk, and a clock of which each look stands for some work.

    That keep-alives are on time follows from whose threads these are (H05).
    """
    now, rests, given = [0.0], [], Counter()
    monkeypatch.setattr(library, "time", types.SimpleNamespace(monotonic=lambda: now[0]))
    data = content(100_000)
    file_id, digests = identity_of(len(data), digests_of(data)), digests_of(data)
    (tmp_path / "huge").mkdir()
    with open(tmp_path / "huge" / "huge.bin", "wb") as file:
        file.truncate(64 * MIB)

    def clock():
        now[0] += 0.002
        return now[0]

    def rest(seconds):
        """Meanwhile each of the five has its turn."""
        now[0] += seconds
        rests.append(seconds)
        for one in range(5):
            lib.write_piece(file_id, 0, data[: piece_length(len(data), 0)])
            given[one] += 1

    lib.begin(file_id, len(data), digests, label="taken")
    rest(0.0)
    scanner = Scanner(str(tmp_path / "huge"), clock=clock, is_disk_busy=lib.is_busy, rest=rest)
    assert [shared.name for shared in scanner.run_once().added] == ["huge.bin"]
    assert sum(rests) > now[0] / 2 and min(given.values()) > 30


# ---- F: membership ------------------------------------------------------------------------------------------------


def test_the_many_members_of_a_dead_supernode_are_served_by_the_next_one_without_a_storm():
    """F13: all within a minute, at less than 400 joins a second and thirty lone messages a member and second."""
    lab = stub_node.Lab(31, 3)
    for _ in range(amount(297, 57)):
        lab.add()
        lab.run(0.02)
    assert lab.wait(lab.agree, 60.0) is not None
    joins, lones_before = Counter(), set(lab.world.lones)
    heir = lab.nodes[1]
    on_message = heir.on_message

    def count(link, data, now):
        joins[int(now)] += data[:1] == JOIN_TAG
        on_message(link, data, now)

    heir.on_message = count
    lab.nodes[0].kill()
    assert lab.wait(lambda: obeyed_by_all(lab) == heir.membership.node_id, 60.0) is not None
    peak = max(count for second, count in lab.world.lones.items() if second not in lones_before)
    assert max(joins.values()) <= 400 and peak <= 30 * len(lab.nodes)


@pytest.mark.parametrize("when", ["handover sent", "promoted", "announced"])
def test_a_death_at_any_step_of_a_change_of_supernode_ends_in_one(when):
    """F16: as F01, whichever of the two dies at whichever step."""
    lab = stub_node.Lab(33, 6)
    old, heir = lab.nodes[:2]
    become = heir.become_supernode

    def promoted(seat, now):
        become(seat, now)
        if when == "announced":
            lab.world.after(0.3, heir.kill)
        else:
            heir.kill()
            heir.network.send = heir.network.send_lone = lambda *said, **kind: None  # not a word of it goes out

    if when == "handover sent":
        old.quit()
        old.kill()  # nothing but what is on its way already
    else:
        heir.become_supernode = promoted
        old.quit()
    lab.run(1.0)
    assert lab.wait(lambda: len(lab.rulers()) == 1, 15.0) is not None
    assert lab.wait(lab.agree, 80.0) is not None
    assert lab.rulers()[0] is (heir if when == "handover sent" else lab.nodes[2])


def test_the_wall_clock_is_asked_for_the_age_of_files_and_to_be_told_and_for_nothing_else():
    """F17: so no setting of it can end a connection, a membership or a wait. Suspension: see the list."""
    asks = {(name, call) for name, path in MODULES.items() for call in calls_of(path) if call in WALL_CLOCK}
    told_by_the_doctor = {("node_client", "time.time"), ("prompt.doctor", "time.gmtime")}
    assert asks == {("disk.library", "time.time"), ("disk.hashing", "time.time_ns")} | told_by_the_doctor


# ---- G: content and sources ---------------------------------------------------------------------------------------


def refuses_for_ever(x):
    """A source that is too busy whenever it is asked for a piece."""
    busy = messages.TOO_MANY_REQUESTS
    x.asked = lambda link, request: x.say(link, messages.PieceRefused(request.file_id, request.index, busy))
    return x


def test_sources_that_are_busy_for_ever_keep_nobody_out(lab):
    """G06: the honest one offers last."""
    data = content(3 * MIB)
    ana, bo, cy = lab.node("ana"), lab.node("bo", shared={"lab.iso": data}), lab.node("cy")
    lab.world.between(bo.ip, ana.ip).latency = 0.02
    crowd = [refuses_for_ever(offers_all(Outlaw(lab, 60 + number).join(ana), data)) for number in range(9)]
    assert cy.fetch("lab.iso").kind == "started"
    for _ in range(25):
        for x in crowd:
            x.say(x.link, messages.Ping(1, 1))
        lab.run(1)
    assert [done.sources for done in cy.told(DownloadDone)] == [("bo",)]


def test_of_the_only_source_that_is_busy_for_ever_the_person_sees_why(lab):
    """G06."""
    data = content(3 * MIB)
    ana, cy = lab.node("ana"), lab.node("cy")
    x = refuses_for_ever(offers_all(Outlaw(lab).join(ana), data))
    file_id = identity_of(len(data), digests_of(data))
    x.say(x.link, messages.ShareAdd((messages.ShareEntry(file_id, len(data), "lab.iso", False, 1, len(data), False),)))
    lab.run(1)
    assert cy.fetch("lab.iso").kind == "started"
    x.live(60)
    assert cy.row().state == "waiting for x" and not cy.told(DownloadDone)
    assert len(x.all_of((messages.PieceRequest, messages.AnyPieceRequest))) < 200


# ---- H: the machine -----------------------------------------------------------------------------------------------


def test_stalls_of_three_seconds_everywhere_are_no_deaths(tmp_path):
    """H04: the processes of a machine that has too much to do stand still, each for up to 3 s again and again."""
    lab = Lab(tmp_path, 3, Conditions(jitter=0.01), packets=True)
    rng = random.Random(3)
    nodes = [lab.node(name) for name in ("ana", "bo", "cy", "di", "ed")]
    for _ in range(amount(100, 25)):
        stalled = rng.sample(nodes, rng.randrange(1, 5))
        for node in stalled:
            node.network.stop()
        lab.run(rng.uniform(0.5, 3.0))
        for node in stalled:
            node.network.go_on()
        lab.run(rng.uniform(0.1, 2.0))
    lab.run(5)
    assert not any(node.told((SupernodeChanged, Left)) for node in nodes)
    nodes[1].do("say", "fine", lab.world.now)
    lab.run(1)
    assert all([said.text for said in node.told(ChatReceived)] == ["fine"] for node in nodes)
    lab.close()


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="Linux limits another process's memory")
def test_a_node_with_little_memory_outlives_two_floods(tmp_path):
    """H03: 256 MB more than at its start, under segments of one byte (E05) and first packets without end (D04)."""
    for name in ("ana", "bo"):
        (tmp_path / name).mkdir()
    port = free_port()
    flags = ["node_client.py", "--ip", "127.0.0.1", "--port", port, "--log", "log", "--name"]
    with Running(*flags, "ana", cwd=tmp_path / "ana") as ana, rdt.open("127.0.0.1", 0) as outlaw:
        ana.expect(r"^\* supernode at")
        most = (status_of(ana.process.pid, "VmSize") << 10) + 256 * MIB
        resource.prlimit(ana.process.pid, resource.RLIMIT_AS, (most, most))
        made = outlaw.connect(("127.0.0.1", port)).channel.core
        strangers = Strangers(16)
        for number in range(amount(200_000, 8_000)):
            packet = data_packet(made.remote_id, 10_000 + 2 * number, 1000 + 2 * number, b"x")
            outlaw._network.datagrams.socket.sendto(packet, ("127.0.0.1", port))
            strangers.send(number, init(number.to_bytes(16, "big")), ("127.0.0.1", port))
        strangers.close()
        with Running(*flags, "bo", cwd=tmp_path / "bo") as bo:
            bo.expect(r"^\* joined ana's network")
            bo.type("T still here")
            ana.expect("^<bo> still here$")
            assert bo.end() == ana.end() == 0, ana.story()
    assert "Error" not in (tmp_path / "ana" / "log").read_text(encoding="utf-8")


class Soak(test_network.Story):
    """The random network of the tests for so long that whatever is forgotten to be let go would be seen."""

    def __init__(self, *fields):
        super().__init__(*fields)
        self.clear_at = amount(7200.0, 450.0)
        self.early = self.late = None  # (bytes that one holds, descriptors), see `held`

    def run(self):
        for _ in range(int(self.clear_at / 3)):
            self.world.at(self.rng.uniform(3.0, self.clear_at), self._something)
        self.world.at(self.clear_at / 3, self._look)
        super().run()
        self.late = self.held()

    def _look(self):
        self.early = self.held()

    def held(self):
        """The most bytes that one of them holds, and the most descriptors that one of them has in its folder."""
        opened = []
        for number in os.listdir("/proc/self/fd") if os.path.isdir("/proc/self/fd") else ():
            with contextlib.suppress(OSError):      # the listing's own
                opened.append(os.readlink(f"/proc/self/fd/{number}"))
        folders = [os.path.join(node.library.folder, "") for node in self.here()]
        descriptors = [sum(path.startswith(folder) for path in opened) for folder in folders]
        return max(map(held_bytes, self.here())), max(descriptors)


def test_nothing_grows_in_a_long_life():
    """H06: in virtual time, where a descriptor or an object that is kept for ever is seen as soon as in a real day."""
    story = test_network.play(5, kind=Soak)
    (early_bytes, early_descriptors), (late_bytes, late_descriptors) = story.early, story.late
    assert late_bytes < early_bytes + MIB and late_descriptors < early_descriptors + 10


SOME_PLACE = "a p\u00e4th with sp\u00e4ces"


def test_whatever_interpreter_flags_environment_and_place_two_programs_meet(tmp_path):
    """H08: -O, -W error, fixed and random hashes, the C locale, a folder with spaces and letters beyond ASCII.

    Versions of Python are what the tests are run with; no key needs `ssl`, for there is no key.
    """
    port, data = free_port(), content(300_000)
    for name in ("ana", "bo"):
        (tmp_path / SOME_PLACE / name / "shared").mkdir(parents=True)
    (tmp_path / SOME_PLACE / "ana" / "shared" / "a b.bin").write_bytes(data)
    flags = ["node_client.py", "--ip", "127.0.0.1", "--port", port, "--log", "log", "--name"]
    plain = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "PYTHONIOENCODING": "",
             "PYTHONHASHSEED": "random"}  # fmt: skip
    strict, optimized = ["-W", "error"], ["-O", "-W", "error"]
    with Running(*flags, "ana", cwd=tmp_path / SOME_PLACE / "ana", python=optimized, PYTHONHASHSEED="0") as ana:
        ana.expect(r"^\* supernode at")
        with Running(*flags, "bo", cwd=tmp_path / SOME_PLACE / "bo", python=strict, **plain) as bo:
            bo.expect(r"^\* joined ana's network")
            bo.ask_until("G", "a b.bin")
            bo.type("R a b.bin")
            bo.expect(r"^OK a b\.bin")
            bo.type("T h\u00e9llo")
            ana.expect("^<bo> h\u00e9llo$")
            for one in (bo, ana):
                assert one.end() == 0, one.story()
    assert (tmp_path / SOME_PLACE / "bo" / "shared" / "a b.bin").read_bytes() == data
    for name in ("ana", "bo"):
        assert "Traceback" not in (tmp_path / SOME_PLACE / name / "log").read_text(encoding="utf-8")
