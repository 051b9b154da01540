"""Every command of the README runs as it stands; of benchmarks, test runs and installations, what they name is there.

What looks for a network or uses an address runs in a network namespace that has nothing but itself.
"""

import contextlib
import re
import shlex
import subprocess
import sys
from typing import List

import pytest

from node_tests.stage.running import PATIENCE, ROOT, Running

ADDRESS = "10.0.0.7"  # the README's
HOST = f"ip link set lo up && ip address add {ADDRESS}/32 dev lo && echo ready && exec cat"
TIMELINE = "python node_tests/stage/timeline.py FILE"
NOT_RUN = ("pip install", "apt install", "-m pytest")


def commands() -> List[str]:
    """What the README tells to type into a shell, in its order, without prompts and comments."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    found = []
    for block, line, span in re.findall(r"(?s:(```.*?```))|^    (.+)$|`([^`\n]+)`", text, re.MULTILINE):
        command = re.sub(r"^\$ |\s+#.*$", "", line or span).strip()
        if not block and re.search(r"(^|\| |&& |sudo )python ", command) and command not in found:
            found.append(command)
    return found


def words_of(command: str) -> List[str]:
    """The script that a command names, and its flags; without `sudo` and `python`."""
    return shlex.split(command.partition("python ")[2])


@pytest.fixture
def on():
    """What puts a command on a host of its own, with loopback and the README's address."""
    for flags, enter in (["-n"], ["-n"]), (["-r", "-n"], ["-U", "-n", "--preserve-credentials"]):
        try:
            host = subprocess.Popen(["unshare", *flags, "sh", "-c", HOST], stdin=subprocess.PIPE,
                                    stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)  # fmt: skip
        except OSError:
            break
        with host:
            is_ready = host.stdout.readline() == b"ready\n"
            if is_ready:
                yield ["nsenter", "-t", str(host.pid), *enter]
            host.stdin.close()
        if is_ready:
            return
    pytest.skip("network namespaces cannot be made here")


def starts_and_is_the_first(command, on, tmp_path):
    with Running(*words_of(command), on=on, cwd=tmp_path) as node:
        node.expect("you are the first")
        node.type("Q")
        assert node.end() == 0


@contextlib.contextmanager
def ana(on, tmp_path):
    """A node at the README's address, which shares its file."""
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "notes.pdf").write_bytes(b"notes")
    flags = ["--ip", ADDRESS, "--folder", "theirs", "--name", "ana"]
    with Running("node_client.py", *flags, on=on, cwd=tmp_path) as node:
        node.expect("you are the first")
        node.ask_until("B", "notes.pdf")
        yield
    assert (tmp_path / "shared" / "notes.pdf").read_bytes() == b"notes"


def fetches_from_a_script(command, on, tmp_path):
    line = command.replace("python node_client.py", f"{sys.executable} {ROOT / 'node_client.py'}")
    with ana(on, tmp_path):
        done = subprocess.run([*on, "sh", "-c", line], cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0 and "OK notes.pdf" in done.stdout, done.stdout + done.stderr


def fetches_and_draws_its_packets(command, on, tmp_path):
    with ana(on, tmp_path), Running(*words_of(command), on=on, cwd=tmp_path) as node:
        node.ask("R notes.pdf", "OK notes.pdf")
        node.type("Q")
        assert node.end() == 0
    with Running(*words_of(TIMELINE), cwd=tmp_path) as timeline:
        assert timeline.end() == 0 and timeline.count("-- INIT --")


def ends_well(command, on, tmp_path):
    """A script that needs nobody; of a range of seeds, the first alone."""
    script, *flags = (re.sub(r"^(\d+)-\d+$", r"\1", word) for word in words_of(command))
    with Running(script, *flags, cwd=tmp_path) as running:
        assert running.end() == 0, running.story()


def makes_one_file(command, on, tmp_path):
    ends_well(command, on, tmp_path)
    assert (tmp_path / "lab-share.pyz").stat().st_size


RUN = {  # the first that fits a command runs it
    r"node_client\.py$": starts_and_is_the_first,
    r"node_client\.py --new-key$": ends_well,
    r"node_client\.py --ask-key$": None,  # at a terminal: test_key_files.py
    r"\| python node_client\.py --ip ": fetches_from_a_script,
    r"node_client\.py --trace FILE$": fetches_and_draws_its_packets,
    r"stage/timeline\.py --demo$": ends_well,
    TIMELINE: None,  # with the trace of the one above
    r"test_\w+\.py (\w+ )?[\d-]+$": ends_well,
    r"node_(supernode|share|request)\.py ": None,  # together, below
    r"node_client\.py (share|get) lab\.iso$": None,  # the same
    r"\.ci/pack\.py$": makes_one_file,
}


def is_not_run(command):
    return any(words in command for words in NOT_RUN) or "/bench/" in command


@pytest.mark.parametrize("command", [command for command in commands() if not is_not_run(command)])
def test_a_command_does_what_the_readme_says(command, on, tmp_path):
    (run, *_) = [run for pattern, run in RUN.items() if re.search(pattern, command)]
    if run is not None:
        run(command, on, tmp_path)


def test_a_file_goes_from_one_machine_to_another_by_two_lines_and_no_question(on, tmp_path):
    share, get = [command for command in commands() if re.search(r"node_client\.py (share|get) lab\.iso$", command)]
    (tmp_path / "here").mkdir()
    (tmp_path / "lab.iso").write_bytes(b"all of it")
    with Running(*words_of(share), on=on, cwd=tmp_path) as sharer:
        sharer.expect("lab.iso .* is shared")
        with Running(*words_of(get), on=on, cwd=tmp_path / "here") as getter:
            assert (getter.end(), sharer.end()) == (0, 0), getter.story() + sharer.story()
    assert (tmp_path / "here" / "lab.iso").read_bytes() == b"all of it"


def test_three_terminals_side_by_side_end_with_pass(on):
    lines = [command for command in commands() if re.search(r"node_(supernode|share|request)\.py ", command)]
    assert len(lines) == 3
    with Running(*words_of(lines[0]), on=on) as ruler:
        ruler.expect("start node_share.py")
        with Running(*words_of(lines[1]), on=on) as share:
            share.expect("start node_request.py")
            with Running(*words_of(lines[2]), on=on) as request:
                assert [node.end() for node in (request, share, ruler)] == [0, 0, 0]
                assert request.last().startswith("PASS"), request.story()


@pytest.mark.parametrize("command", [command for command in commands() if is_not_run(command)])
def test_what_a_benchmark_or_a_test_run_names_is_there(command):
    for name in re.findall(r"[\w/]+\.py\b", command):
        assert (ROOT / name).exists()
    if "/bench/" in command:
        script, *flags = words_of(command)
        told = subprocess.run([sys.executable, script, "--help"], cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert {flag for flag in flags if flag.startswith("--")} <= set(re.findall(r"--[\w-]+", told.stdout))
