"""The scenario scripts as people run them: side by side, as processes, on loopback; each must say PASS."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from typing import Iterator, List

import pytest

from node_tests.stage.amounts import amount
from node_tests.stage.running import PATIENCE, ROOT, Running, free_port

GENEROUS = ["--follow-within", 30, "--list-within", 40]  # a busy machine; the scripts have the rules' own


@contextlib.contextmanager
def side_by_side(*commands: List[object]) -> Iterator[List[Running]]:
    """Start the first, wait until it is ready, then the rest."""
    with contextlib.ExitStack() as stack:
        running = []
        for command in commands:
            script, *flags = command
            flags += ["--timeout", PATIENCE]
            running.append(stack.enter_context(Running("node_tests/%s" % script, *flags)))
            if len(running) == 1 and len(commands) > 1:
                running[0].expect("^ready|^waiting")
        yield running


def assert_pass(running: List[Running]) -> None:
    """Each comes to its end with PASS as its last line, and exit code 0; those first that others wait for."""
    for one in reversed(running):
        code = one.end()
        assert (code, one.last()) == (0, "PASS"), one.story("exit code %d" % code)


def test_a_file_is_shared_and_fetched_while_a_supernode_watches_them_come_and_go():
    port, file = ["--port", free_port()], ["--seed", 11, "--size", amount(5_000_000, 1_000_000)]
    with side_by_side(["node_supernode.py", *port, "--members", 3],
                      ["node_share.py", *port, *file, "--times", 2],
                      ["node_request.py", *port, *file, "--name", "bo"],
                      ["node_request.py", *port, *file, "--name", "cy"]) as running:
        assert_pass(running)


def test_a_file_comes_by_way_of_the_supernode_when_the_mesh_is_off():
    port, file = ["--port", free_port()], ["--seed", 12, "--size", 3_000_000]
    with side_by_side(["node_supernode.py", *port, "--members", 2],
                      ["node_share.py", *port, *file],
                      ["node_request.py", *port, *file, "--mesh-off"]) as running:
        assert_pass(running)
        assert "by way of supernode" in running[2].expect("^OK seed-12").string


@pytest.mark.parametrize("size", [1, 1 << 18][: amount(2, 1)])
def test_small_files_are_fetched_as_well(size):
    port, file = ["--port", free_port()], ["--seed", 13, "--size", size]
    with side_by_side(["node_share.py", *port, *file], ["node_request.py", *port, *file]) as running:
        assert_pass(running)


def test_four_chat_in_one_order():
    flags = ["--port", free_port(), "--speakers", 4, "--lines", 15]
    with side_by_side(*[["node_chat.py", *flags, "--name", name] for name in ("ana", "bo", "cy", "cy")]) as running:
        assert_pass(running)
        digests = {one.expect("one order: digest (.*)").group(1) for one in running}
        assert len(digests) == 1


def test_chat_loses_nothing_when_the_supernode_is_killed_in_the_midst_of_it(tmp_path):
    flags, lines, speakers = ["--port", free_port()], 60, amount(3, 2)
    chat = ["node_chat.py", *flags, "--speakers", speakers, "--lines", lines]
    with Running("node_client.py", *flags, "--ip", "127.0.0.1", "--folder", tmp_path) as supernode:
        supernode.expect(r"^\* supernode at")
        with side_by_side(*speakers * [chat]) as running:
            running[0].expect("line %d of" % (lines // 2))
            supernode.kill()
            assert_pass(running)
            assert {one.count("no sign for") for one in running} == {1}


def test_the_others_go_on_when_the_supernode_quits():
    others = amount(3, 2)
    flags = ["--port", free_port(), "--nodes", 1 + others]
    with side_by_side(["node_handover.py", *flags, "--leave"],
                      *[["node_handover.py", *flags, *GENEROUS] for _ in range(others)]) as running:
        assert_pass(running)
        assert {one.count("no sign") for one in running} == {0}


def test_the_others_go_on_when_the_supernode_is_killed():
    flags = ["--port", free_port(), "--nodes", 3]
    with side_by_side(["node_handover.py", *flags, "--kill"],
                      *[["node_handover.py", *flags, *GENEROUS] for _ in range(2)]) as running:
        assert_pass(running)


def test_the_courses_verbs_between_three_ends():
    port = ["--port", free_port()]
    with side_by_side(["node_rdt.py", *port, "--others", 2], ["node_rdt.py", *port], ["node_rdt.py", *port]) as running:
        assert_pass(running)


def test_messages_and_a_file_over_a_bad_path():
    with side_by_side(["node_lossy.py", "--loss", 0.05, "--size", amount(2_000_000, 500_000)]) as running:
        assert_pass(running)
        assert running[0].count(r"\d lost") == 1, running[0].story()


def test_two_ends_with_a_bad_path_between_two_processes():
    flags = ["--port", free_port(), "--size", amount(1_000_000, 300_000), "--seed", 3]
    with side_by_side(["node_lossy.py", *flags], ["node_lossy.py", *flags, "--loss", 0.1]) as running:
        assert_pass(running)


def test_a_script_alone_says_what_it_waits_for_and_fails():
    port = free_port()
    with Running("node_tests/node_request.py", "--port", port, "--timeout", 2.5) as alone:
        assert alone.end() == 1
        alone.expect("start node_share.py in another terminal: python node_tests/node_share.py --port %d" % port)
        assert (alone.last() or "").startswith("FAIL: "), alone.story()


@pytest.mark.parametrize("script", sorted(path.name for path in (ROOT / "node_tests").glob("node_*.py")))
def test_each_script_explains_itself(script):
    done = subprocess.run([sys.executable, os.path.join("node_tests", script), "--help"], cwd=ROOT, timeout=PATIENCE,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for word in ("Expects:", "--ip", "--port", "--name", "--folder", "--timeout"):
        assert word in done.stdout
