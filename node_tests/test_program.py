"""The program as a person has it: `python node_client.py` with flags and piped commands, several nodes on loopback."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Iterator

import pytest

from disk import logs
from node_tests.stage import scenario
from node_tests.stage.amounts import amount
from node_tests.stage.running import PATIENCE, ROOT, Running, free_port
from protocol.content.parts import decode_map
from protocol.content.pieces import piece_length, piece_size_of

BIG = amount(300_000_000, 36_000_000)  # bytes, three seconds on the way: long enough to be killed at part of it


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@contextlib.contextmanager
def node(home: Path, port: int, name: str, *flags: object) -> Iterator[Running]:
    """A node in a folder of its own that has joined, or opened, the network at the port."""
    (home / name / "shared").mkdir(parents=True, exist_ok=True)
    with Running("node_client.py", "--ip", "127.0.0.1", "--port", port, "--name", name, *flags, cwd=home / name) as one:
        one.expect(r"^\* (joined|supernode at)")
        yield one


def script(home: Path, port: int, commands: str, *flags: object) -> subprocess.CompletedProcess[str]:
    """A node to which all commands are piped at once, to its end."""
    home.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, str(ROOT / "node_client.py"), "--ip", "127.0.0.1", "--port", str(port)]
    return subprocess.run([*command, *map(str, flags)], cwd=home, input=commands, capture_output=True, text=True,
                          encoding="utf-8", timeout=PATIENCE)


def test_three_nodes_share_list_fetch_chat_and_outlive_their_supernode(tmp_path):
    port = free_port()
    with node(tmp_path, port, "ana") as ana, node(tmp_path, port, "bo") as bo, node(tmp_path, port, "cy") as cy:
        ana.expect(rf"^\* supernode at 127\.0\.0\.1:{port} \(nobody here yet; you are the first\)\. Folder: shared$")
        bo.expect(rf"^\* joined ana's network at 127\.0\.0\.1:{port}: 2 nodes\. Folder: shared$")
        ana.expect(r"^\* cy joined \(3 nodes\)$")

        elsewhere = tmp_path / "notes.pdf"
        elsewhere.write_bytes(os.urandom(2_000_000))
        bo.ask("B %s" % elsewhere, "notes.pdf is shared")
        cy.ask_until("G *.pdf", r"^  1  notes\.pdf  2\.0 MB  bo  1 source$")
        done = cy.ask("R 1", r"^OK notes\.pdf  2\.0 MB in 0:\d\d, .*, from bo  id ([0-9a-f]{8}) -> shared[/\\]notes\.")
        sent = bo.expect(r"^OK sent notes\.pdf to cy  2\.0 MB in 0:\d\d  id ([0-9a-f]{8})$")
        assert done.group(1) == sent.group(1)
        assert sha256(tmp_path / "cy" / "shared" / "notes.pdf") == sha256(elsewhere)
        again = cy.ask("R notes.pdf", r"^OK notes\.pdf  2\.0 MB was here already  id (\w{8}) -> shared[/\\]notes\.pdf$")
        assert again.group(1) == done.group(1)

        cy.type("T hello everyone \u2603")
        for one in (ana, bo, cy):
            one.expect("^<cy> hello everyone \u2603$")
        cy.ask("W", r"^  ana  127\.0\.0\.1:%d +supernode" % port)
        cy.expect(r"^  cy +127\.0\.0\.1:\d+ .*this is you$")
        cy.ask("V", r"R notes\.pdf +done +100%")
        cy.ask("X", r'^Unknown: "X"\. Did you mean R\? \(\? for help\)$')

        by_relay_is_fetched(tmp_path, ana, bo, cy)

        ana.type("Q")
        assert ana.end() == 0, ana.story()
        bo.expect(r"^\* ana left; you are now the supernode$")
        cy.expect(r"^\* ana left; the supernode is now bo$")
        (tmp_path / "bo" / "shared" / "after.txt").write_bytes(b"after the change")
        cy.ask_until("G after*", r"after\.txt  16 B  bo")
        cy.ask("R after.txt", r"^OK after\.txt  16 B .*from bo")
        cy.type("Q")
        assert cy.end() == 1, cy.story()        # for X
        bo.expect(r"^\* cy left \(1 node\)$")
        assert bo.end() == 0, bo.story()
        for one in (ana, bo, cy):
            assert one.count("Traceback|Error|\r|\x1b") == 0, one.story()


def by_relay_is_fetched(home: Path, ana: Running, bo: Running, cy: Running) -> None:
    """With the mesh off, a file comes by way of the supernode, which can serve it again."""
    cy.ask("M off", "^\\* mesh is off")
    (home / "bo" / "shared" / "relayed.bin").write_bytes(os.urandom(1_500_000))
    cy.ask_until("G relayed*", r"relayed\.bin  1\.5 MB  bo")
    cy.ask("R relayed.bin", r"^OK relayed\.bin  1\.5 MB .* by way of ana  id")
    assert sha256(home / "cy" / "shared" / "relayed.bin") == sha256(home / "bo" / "shared" / "relayed.bin")
    assert not (home / "ana" / "shared" / "relayed.bin").exists()       # a cached copy is not the person's file
    cy.ask("M on", "^\\* mesh is on")


def test_piped_commands_wait_for_the_join_and_for_their_transfers(tmp_path):
    port = free_port()
    with node(tmp_path, port, "ana") as ana:
        megabytes = amount(30, 10)
        content = os.urandom(megabytes * 1_000_000)
        (tmp_path / "ana" / "shared" / "lab.iso").write_bytes(content)
        (tmp_path / "ana" / "shared" / "empty.txt").write_bytes(b"")
        ana.ask_until("G", "lab.iso")
        ana.ask_until("G", "empty.txt")
        done = script(tmp_path / "bo", port, "R lab.iso\nR empty.txt\nQ\n", "--name", "bo")
        assert done.returncode == 0, done.stdout
        assert re.search(r"^OK lab\.iso  %d\.0 MB .*, from ana " % megabytes, done.stdout, re.M), done.stdout
        assert re.search(r"^OK empty\.txt  0 B ", done.stdout, re.M), done.stdout
        assert (tmp_path / "bo" / "shared" / "lab.iso").read_bytes() == content
        assert (tmp_path / "bo" / "shared" / "empty.txt").read_bytes() == b""
        assert "\r" not in done.stdout and "\x1b" not in done.stdout and done.stderr == ""
        ana.expect(r"^\* bo left \(1 node\)$")


def test_what_a_script_says_is_sent_before_it_goes_elsewhere_or_quits(tmp_path):
    port, other_port = free_port(), free_port()
    with node(tmp_path, port, "ana") as ana, node(tmp_path, other_port, "cy") as cy:
        here, there = (["%s %d" % (where, number) for number in range(15)] for where in ("here", "there"))
        commands = ["T " + text for text in here] + ["C %d" % other_port] + ["T " + text for text in there] + ["Q"]
        done = script(tmp_path / "bo", port, "\n".join(commands), "--name", "bo")
        assert (done.returncode, "!!" in done.stdout) == (0, False), done.stdout
        for one, said in ((ana, here), (cy, there)):
            one.expect("^<bo> " + said[-1])
            assert [line[5:] for line in one.lines if line.startswith("<bo> ")] == said


def test_a_folder_is_fetched_whole(tmp_path):
    port, talks = free_port(), tmp_path / "talks"
    (talks / "2024").mkdir(parents=True)
    (talks / "intro.txt").write_bytes(b"welcome")
    (talks / "2024" / "slides.bin").write_bytes(os.urandom(700_000))
    with node(tmp_path, port, "ana") as ana:
        ana.ask("B %s" % talks, "talks is shared")
        ana.ask_until("G", r"talks/ \(2 files\)")
        done = script(tmp_path / "bo", port, "R talks\n", "--name", "bo")
        assert done.returncode == 0, done.stdout
        for name in ("intro.txt", "2024/slides.bin"):
            assert (tmp_path / "bo" / "shared" / "talks" / name).read_bytes() == (talks / name).read_bytes()


def test_exit_codes(tmp_path):
    port = free_port()
    assert script(tmp_path / "a", port, "").returncode == 0
    missing = script(tmp_path / "a", port, "R nothing.pdf\nQ\n")
    assert (missing.returncode, "!! nothing.pdf  nobody here has it" in missing.stdout) == (1, True), missing.stdout
    wrong = script(tmp_path / "a", port, "", "--colour")
    assert (wrong.returncode, "Traceback" in wrong.stderr) == (2, False)
    assert script(tmp_path / "a", 80, "").returncode == 2
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other_program:
        other_program.bind(("127.0.0.1", port))
        taken = script(tmp_path / "a", port, "")
    assert (taken.returncode, "in use by another program" in taken.stdout) == (3, True), taken.stdout


def test_a_script_lists_what_it_has_just_shared(tmp_path):
    (tmp_path / "notes.bin").write_bytes(os.urandom(5_000_000))
    done = script(tmp_path / "a", free_port(), 'B "%s"\nG\nB shared\n' % (tmp_path / "notes.bin"), "--name", "ana")
    assert "  1  notes.bin  5.0 MB  ana  1 source" in done.stdout.splitlines(), done.stdout
    assert re.search("^!! .* is shared already", done.stdout, re.M), done.stdout


def test_a_chosen_folder_is_the_one_that_is_used(tmp_path):
    for folder in (str(tmp_path / "abs"), "./rel", "rel/"):
        done = script(tmp_path / "a", free_port(), "", "--folder", folder)
        assert (done.returncode, "in use" in done.stdout) == (0, False), done.stdout
    (tmp_path / "file").write_bytes(b"")
    done = script(tmp_path / "a", free_port(), "", "--folder", str(tmp_path / "file"))
    assert (done.returncode, "it is a file." in done.stdout) == (2, True), done.stdout


def test_a_second_node_in_one_place_takes_a_folder_of_its_own(tmp_path):
    port = free_port()
    flags = ["--ip", "127.0.0.1", "--port", port, "--name"]
    with Running("node_client.py", *flags, "ana", cwd=tmp_path) as ana:
        ana.expect(r"Folder: shared$")
        with Running("node_client.py", *flags, "bo", cwd=tmp_path) as bo:
            bo.expect(r"^\* shared is in use by another node here; this one uses shared-2$")
            bo.expect(r"2 nodes\. Folder: shared-2$")
            assert bo.end() == 0
        assert ana.end() == 0


def fetch_until_killed(tmp_path, port, ana, part):
    """SIGKILL when so much (a pattern) is there."""
    ana.ask("L up %dM" % (BIG // 3_000_000), r"^\* files are sent at ")
    with node(tmp_path, port, "bo") as bo:
        bo.type("R big.bin")
        bo.ask_until("V", r"  R big\.bin  receiving +" + part)
        bo.kill()
        assert bo.count("^OK") == 0, "the download was over before it could be killed"


def fetch_the_rest(tmp_path, port, ana):
    """Start again; the line that tells how much was sent this time."""
    ana.ask("L off", r"^\* files are sent without limit")
    with node(tmp_path, port, "bo") as bo:
        bo.ask("R big.bin", r"^OK big\.bin  %d\.0 MB" % (BIG // 1_000_000))
        assert bo.end() == 0
    return ana.expect(r"^OK sent big\.bin to bo\S*  ([\d.]+) MB")


def test_a_download_killed_at_part_of_it_goes_on_with_the_missing_pieces(tmp_path):
    port = free_port()
    (tmp_path / "ana" / "shared").mkdir(parents=True)
    path = Path(scenario.make_file(str(tmp_path / "ana" / "shared"), 5, BIG, "big.bin"))
    with node(tmp_path, port, "ana") as ana:
        ana.ask_until("G", "big.bin")
        fetch_until_killed(tmp_path, port, ana, r"([2-9]\d)%")
        assert not (tmp_path / "bo" / "shared" / "big.bin").exists()
        sent = fetch_the_rest(tmp_path, port, ana)
        assert float(sent.group(1)) < BIG / 1e6 - 5, "all of it was sent again: %s" % sent.string
        assert sha256(tmp_path / "bo" / "shared" / "big.bin") == sha256(path)


def test_a_killed_download_whose_part_was_damaged_fetches_only_what_is_missing_or_damaged(tmp_path):
    """G07: SIGKILL in the middle, then two of the pieces that were kept are changed by hand."""
    port = free_port()
    (tmp_path / "ana" / "shared").mkdir(parents=True)
    path = Path(scenario.make_file(str(tmp_path / "ana" / "shared"), 6, BIG, "big.bin"))
    with node(tmp_path, port, "ana") as ana:
        ana.ask_until("G", "big.bin")
        fetch_until_killed(tmp_path, port, ana, r"([3-9]\d)%")
        kept = damage_two_pieces(tmp_path / "bo" / "shared" / ".node" / "parts")
        sent = fetch_the_rest(tmp_path, port, ana)
        assert abs(float(sent.group(1)) - (BIG - kept) / 1e6) <= 0.1, "%s; %d bytes were kept" % (sent.string, kept)
        assert sha256(tmp_path / "bo" / "shared" / "big.bin") == sha256(path)


def damage_two_pieces(parts: Path) -> int:
    """Change a byte in the first and in the last piece that the map claims; how many bytes are still as they were."""
    part = next(path for path in parts.iterdir() if len(path.name) == 64)
    told = decode_map((parts / (part.name + ".map")).read_bytes(), bytes.fromhex(part.name))
    damaged = {told.claimed[0], told.claimed[-1]}
    with open(part, "r+b") as file:
        for index in damaged:
            place = index * piece_size_of(told.size) + piece_length(told.size, index) // 2
            file.seek(place)
            was = file.read(1)
            file.seek(place)
            file.write(bytes([was[0] ^ 1]))
    return sum(piece_length(told.size, index) for index in set(told.claimed) - damaged)


def test_a_shared_folder_that_is_taken_away_empties_the_list_and_back_it_refills(tmp_path):
    """B09: the node and its chat live on."""
    port = free_port()
    with node(tmp_path, port, "ana") as ana, node(tmp_path, port, "bo") as bo:
        shared = tmp_path / "ana" / "shared"
        (shared / "notes.txt").write_bytes(b"notes")
        bo.ask_until("G", r"notes\.txt  5 B  ana")
        shared.rename(tmp_path / "away")
        ana.expect(r"The shared folder cannot be read; it is shared again when it is back")
        bo.ask_until("G", "^Nothing is shared here yet")
        ana.type("T still here")
        bo.expect("^<ana> still here$")
        (tmp_path / "away").rename(shared)
        bo.ask_until("G", r"notes\.txt  5 B  ana")
        bo.ask("R notes.txt", r"^OK notes\.txt")
        assert bo.end() == 0 and ana.end() == 0


def put_huge_file(folder):
    """Hours of hashing, behind everything else."""
    with open(folder / "huge.bin", "wb") as file:
        file.truncate(1 << 40)


@pytest.mark.skipif(os.name == "nt", reason="such names cannot be made there")
def test_a_second_start_knows_what_the_first_has_hashed_and_names_of_all_kinds_do_no_harm(tmp_path):
    """B04, B07: what cannot be shared is told by one line of each kind, and the rest is shared, twice."""
    shared = tmp_path / "ana" / "shared"
    (shared / "many").mkdir(parents=True)
    for number in range(300):
        (shared / "many" / ("%03d.txt" % number)).write_bytes(b"%d" % number)
    with open(os.fsencode(shared) + b"/\xff\xfe", "wb"), open(shared / ("x" * 255), "wb"):
        pass
    os.mkfifo(shared / "fifo")
    for start in range(2):
        if amount(1, 0):                    # what cannot be shared is told after a look with ten seconds of its hashing
            put_huge_file(shared)
        port = free_port()
        with node(tmp_path, port, "ana") as ana:
            ana.ask_until("G", r"many/ \(300 files\)")
            ana.expect(r"has a name that other systems cannot keep and is not shared\.$")
            ana.expect(r"has too long a name, or lies too deep, and is not shared\.$")
            ana.expect(r"is no ordinary file and is not shared\.$")
            put_huge_file(shared)
            ana.ask("T hello %d" % start, "^<ana> hello %d$" % start)
            assert ana.end() == 0 and ana.count("Traceback") == 0, ana.story()
        (shared / "huge.bin").unlink()
    assert (shared / ".node" / "digests.db").stat().st_size > 0


@pytest.mark.skipif(os.name == "nt", reason="Windows ends a process at once by TerminateProcess")
def test_sigterm_ends_it_as_q_does(tmp_path):
    port = free_port()
    with node(tmp_path, port, "ana") as ana, node(tmp_path, port, "bo") as bo:
        ana.signal(signal.SIGTERM)
        bo.expect(r"^\* ana left; you are now the supernode$")
        assert ana.process.wait(PATIENCE) == 0, ana.story()


def test_a_log_turns_over_into_one_other_file_and_what_is_no_file_stays_where_it_is(tmp_path, monkeypatch):
    """Whoever makes a node write lines without end shall not fill its disk."""
    monkeypatch.setattr(logs, "LOG_BYTES_MAX", 2000)
    with contextlib.closing(logs.log_handler(str(tmp_path / "log"))) as handler:
        for number in range(1000):
            handler.emit(logging.LogRecord("x", logging.INFO, "x.py", 1, "line %d", (number,), None))
    assert sorted(os.listdir(tmp_path)) == ["log", "log.1"]
    assert all((tmp_path / name).stat().st_size <= 2000 for name in os.listdir(tmp_path))
    assert (tmp_path / "log").read_text().endswith("line 999\n")
    with contextlib.closing(logs.log_handler(os.devnull)) as handler:
        assert type(handler) is logging.FileHandler


def test_a_machine_without_a_network_says_who_can_join(tmp_path):
    alone = ["unshare", "-n"] if os.name == "posix" and shutil.which("unshare") else []
    if not alone or subprocess.run([*alone, "true"], capture_output=True).returncode:
        pytest.skip("network namespaces cannot be made here")
    with Running("node_client.py", "--name", "ana", cwd=tmp_path, on=alone) as ana:
        ana.expect("you are the first")
        ana.expect("This machine is in no network: only programs on it can join here")
        ana.type("Q")
        assert ana.end() == 0
