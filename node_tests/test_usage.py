"""Every script says how it is called, replays what a seed told, and ends with a verdict and an exit code."""

import os
import pathlib
import runpy
import subprocess
import sys

import pytest

from node_tests.stage import usage

ROOT = pathlib.Path(__file__).resolve().parent.parent
SCRIPTS = ["node_client.py"] + sorted(
    str(path.relative_to(ROOT).as_posix())
    for path in (ROOT / "node_tests").rglob("*.py")
    if '\nif __name__ == "__main__":\n' in path.read_text(encoding="utf-8") and path.name != "test_usage.py"
)
SEEDED = ("test_lives.py", "test_network.py", "test_door.py")


def called(*words, **how):
    """A Python that runs beside, with pipes."""
    options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, *words], cwd=ROOT, **{**options, **how})


def ended(process):
    """(exit code, standard output, standard error)"""
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_tells_its_usage_when_asked_and_when_called_wrongly(script, monkeypatch, capsys):
    for flag, code in (("--help", 0), ("--no-such-flag", 2)):
        monkeypatch.setattr(sys, "argv", [script, flag])
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(ROOT / script), run_name="__main__")
        told, other = capsys.readouterr()[:: -1 if code else 1]
        assert end.value.code == code and told.startswith("usage: ") and not other


@pytest.mark.parametrize("text", ["", "nonsense", "-", "9-3", "-3", "1.5", "1-2-3"])
def test_what_is_no_range_of_seeds_is_a_wrong_argument(text, capsys):
    with pytest.raises(SystemExit) as end:
        usage.play_seeds(lambda seed, tell: None, "title", argv=["--", text])
    assert end.value.code == 2
    assert "is no seed and no range of them" in capsys.readouterr().err


def holds_but_for_three(seed, tell):
    if tell is not None:
        tell("the story of %d" % seed)
    if seed == 3:
        raise AssertionError("it broke")


def test_a_seed_that_holds_says_so(capsys):
    assert usage.play_seeds(holds_but_for_three, "title", argv=["2"]) == 0
    story, verdict = capsys.readouterr().out.splitlines()
    assert story == "the story of 2" and verdict.startswith("seed 2 holds (")


def test_a_seed_that_does_not_hold_ends_with_exit_code_1_and_a_traceback(capsys):
    assert usage.play_seeds(holds_but_for_three, "title", argv=["3"]) == 1
    told = capsys.readouterr()
    assert "seed 3: AssertionError: it broke\nseed 3 does NOT hold (" in told.out and "Traceback" in told.err


def test_a_range_names_the_seeds_that_do_not_hold(capsys):
    assert usage.play_seeds(holds_but_for_three, "title", argv=["1-4"]) == 1
    told = capsys.readouterr().out
    assert told.startswith("seed 3: AssertionError: it broke\n4 played, 1 FAILED: 3; ")
    assert usage.play_seeds(holds_but_for_three, "title", argv=["4-9"]) == 0
    assert capsys.readouterr().out.startswith("6 played, all hold; ")


def test_a_kind_stands_before_the_seeds(capsys):
    played = []
    assert usage.play_seeds(lambda *told: played.append(told), "title", {"hard": 7}, ["hard", "1-2"]) == 0
    assert played == [(1, None, 7), (2, None, 7)]
    with pytest.raises(SystemExit):
        usage.play_seeds(lambda *told: None, "title", {"hard": 7}, ["soft", "1"])


def test_a_life_is_replayed_with_its_packets(tmp_path):
    path = tmp_path / "life.trace"
    path.write_text("of an earlier one\n")
    code, out, _ = ended(called("node_tests/test_lives.py", "3", "--packets", str(path)))
    assert code == 0 and out.startswith("seed 3 holds (")
    code, out, _ = ended(called("node_tests/stage/timeline.py", str(path)))
    assert code == 0 and "-- INIT --" in out


FAILING = """
from node_tests.stage.simulator import Pair

def test_that_fails():
    assert Pair().connected() is None

def test_without_packets_that_fails():
    assert False
"""


def test_a_failing_test_of_packets_prints_what_replays_it_with_them(tmp_path):
    (tmp_path / "test_it.py").write_text(FAILING)
    trace = tmp_path / "packets.trace"
    path = os.pathsep.join([str(ROOT), str(ROOT / "node_tests")])
    words = ["-m", "pytest", "-p", "conftest", "-p", "no:cacheprovider", "-n", "0", "--rootdir", str(tmp_path)]
    words += ["--packets", str(trace), str(tmp_path / "test_it.py")]
    code, out, err = ended(called(*words, env={**os.environ, "PYTHONPATH": path}))
    assert code == 1, err
    assert out.count("python -m pytest -n 0 --packets packets.trace test_it.py::test_that_fails\n") == 1
    assert "test_it.py::test_without_packets_that_fails\n" not in out.split("short test summary")[0]
    assert "type=INIT " in trace.read_text()


@pytest.mark.parametrize("script", SEEDED)
def test_a_range_is_played_to_its_end(script):
    code, out, err = ended(called("node_tests/" + script, "5-6"))
    assert (code, err) == (0, "") and out.splitlines()[-1].startswith("2 played, all hold; ")
