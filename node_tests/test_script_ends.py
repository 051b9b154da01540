"""How the program ends without a person: scripts that went wrong, no terminal, output or memory that gives out."""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Iterator

import pytest

from node_tests.stage import fake_prompt
from node_tests.stage.running import PATIENCE, ROOT
from node_tests.stage.window import quiet_session, script
from prompt import shortage, signals
from prompt.readers import decoded, without_mark
from prompt.session import INPUT_ENDED, STAYING

PROGRAM = [sys.executable, str(Path(fake_prompt.__file__))]  # the prompt over a fake node
on_posix = pytest.mark.skipif(os.name == "nt", reason="there are no such signals and devices")


# ---- scripts


NOT_UNDERSTOOD = ["Typo x", "R", "T", "P", "U", "K", "K one", "M maybe", "L fast", "Q now", "H no"]
NOT_DONE = ["B nosuch", "T " + "x" * 2049, "G +"]
LINES = [*NOT_UNDERSTOOD, *NOT_DONE, "C nowhere"]


def test_a_line_that_could_not_be_done_is_exit_code_1():
    lines, code = script("Typo x\nT on\nQ\n")
    assert code == 1 and "<me> on" in lines  # it is said, and the script goes on
    for line in LINES:
        session = quiet_session()
        session.node, session.wait_until = argparse.Namespace(ip="127.0.0.1", is_local=False), lambda *_: True
        session.do(line)
        assert session.exit_code == 1 and len(session.said) == 1 and not session.is_over, line


@pytest.mark.parametrize("line", NOT_UNDERSTOOD + NOT_DONE)
def test_what_could_not_be_done_is_marked_and_what_was_not_understood_is_not(line):
    session = quiet_session()
    session.node, session.wait_until = argparse.Namespace(ip="127.0.0.1", is_local=False), lambda *_: True
    session.do(line)
    assert [told.startswith("!!") for told in session.said] == [line in NOT_DONE]


def test_a_number_of_no_transfer_and_what_is_refused_are_failures_too():
    for text, code in (("!! There is no running transfer 7.", 1), ("!! x cannot be read.", 1), ("* x is shared", 0)):
        session = quiet_session()
        session.console._asking.say_result(text)
        assert (session.said, session.exit_code) == ([text], code)


@pytest.mark.parametrize("encoding", ["utf-16"])
def test_a_byte_order_mark_is_no_part_of_the_first_command(encoding):
    done = subprocess.run(PROGRAM, input="T caf\u00e9\r\nT on\r\nQ\r\n".encode(encoding), capture_output=True,
                          timeout=PATIENCE, cwd=ROOT)
    lines = done.stdout.decode().splitlines()
    assert done.returncode == 0 and lines[-2:] == ["<me> caf\u00e9", "<me> on"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le", "utf-16-be"])
def test_bytes_become_text_however_they_are_cut(encoding):
    data = "\ufeffT caf\u00e9 \u2603\n".encode(encoding)
    for size in (1, 2, 3, 100):
        chunks = [data[at : at + size] for at in range(0, len(data), size)]
        assert without_mark("".join(decoded(chunks))) == "T caf\u00e9 \u2603\n"


def test_two_files_with_marks_one_after_the_other():
    lines, code = script("\ufeffT one\n\ufeffT two\n")
    assert lines[-2:] == ["<me> one", "<me> two"] and code == 0


# ---- no terminal


def test_who_gives_no_commands_is_told_that_the_input_has_ended():
    lines, code = script("")
    assert (lines[-1], code) == (INPUT_ENDED, 0)


@pytest.mark.parametrize("has_told, has_shared, is_said", [
    (False, False, True), (True, True, True), (True, False, False)])
def test_who_shares_something_and_leaves_at_once_is_told(has_told, has_shared, is_said):
    session = quiet_session()
    session.was_told, session.console.sharing.has_shared, session.wait_until = has_told, has_shared, lambda *_: True
    session._on_end_of_input()
    assert session.said == [INPUT_ENDED] * is_said and session.is_over


class Staying:
    """A node that stays, and what it says."""

    def __init__(self, process: Any, control: int) -> None:
        self.process, self._control = process, control

    def tell(self, event: str) -> None:
        """Something happens in its network."""
        os.write(self._control, f"{event}\n".encode())

    def said(self, line: str) -> None:
        """Wait for this line."""
        assert any(said.rstrip("\n") == line for said in self.process.stdout), line


@contextlib.contextmanager
def staying(text: str, before: Any = None) -> Iterator[Staying]:
    listening, control = os.pipe()
    process = subprocess.Popen([*PROGRAM, "--stay"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
                               pass_fds=[listening], env={**os.environ, "FAKE_CONTROL": str(listening)},
                               preexec_fn=before)
    with process:
        try:
            process.stdin.write(text)
            process.stdin.close()
            yield Staying(process, control)
        finally:
            process.kill()
            os.close(listening)
            os.close(control)


@on_posix
@pytest.mark.parametrize("number, text, code", [
    (signal.SIGTERM, "Typo\n", 1), (signal.SIGINT, "", 130)])
def test_stay_goes_on_without_a_terminal_until_a_signal(number, text, code):
    with staying(text) as node:
        node.said(STAYING)
        node.tell("chat('bo', 'are you there?')")
        node.said("<bo> are you there?")
        node.process.send_signal(number)
        assert node.process.wait(PATIENCE) == code


@on_posix
def test_what_windows_has_for_sigterm_is_heeded_like_it(monkeypatch):
    heeded, came = [], []  # type: list, list
    monkeypatch.setattr(signal, "SIGBREAK", signal.SIGUSR2, raising=False)
    monkeypatch.setattr(signal, "signal", lambda number, handler: heeded.append(number))
    signals.set_up(lambda *_: None)
    for number in heeded:
        signals.note(number, came, False)
    assert {signal.SIGINT, signal.SIGTERM, signal.SIGUSR2} <= set(came) and signal.SIGALRM not in came


@on_posix
def test_nohup_keeps_it_when_the_terminal_closes():
    with staying("", before=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)) as node:
        node.said(STAYING)
        node.process.send_signal(signal.SIGHUP)
        node.tell("chat('bo', 'still there?')")
        node.said("<bo> still there?")
        node.process.send_signal(signal.SIGTERM)
        assert node.process.wait(PATIENCE) == 0


@on_posix
def test_a_signal_while_it_looks_for_a_network_is_no_failure():
    program = """
import os, signal, sys
import node_client
from node_tests.stage.fake_prompt import FakeNode
class Mute(FakeNode):
    def __init__(self, settings, notify):
        super().__init__(settings, lambda event: None)
        os.kill(os.getpid(), signal.{})
sys.exit(node_client.main(["--ip", "127.0.0.1"], Mute))
"""
    for name, code in (("SIGTERM", 0), ("SIGINT", 130)):
        done = subprocess.run([sys.executable, "-c", program.format(name)], input=b"", capture_output=True, cwd=ROOT,
                              timeout=PATIENCE)
        assert (done.returncode, done.stderr) == (code, b""), done


# ---- output and memory


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no full device")
@pytest.mark.parametrize("flags", [["--help"], ["--stay"]])
def test_a_full_disk_under_its_output_is_a_sentence_and_exit_code_6(flags):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with open("/dev/full", "wb") as full:
        done = subprocess.run([*PROGRAM, *flags], input=b"T x\n", stdout=full, stderr=subprocess.PIPE, cwd=ROOT,
                              timeout=PATIENCE, env=environment)
    assert done.returncode == 6
    assert done.stderr == b"Standard output cannot be written: no space left on device. This node has to end.\n"


@pytest.mark.parametrize("flags", [[], ["--help"]])
def test_a_reader_who_has_seen_enough_ends_it_quietly(flags):
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([*PROGRAM, *flags], input=b"T x\n", stdout=writing, stderr=subprocess.PIPE, cwd=ROOT,
                          timeout=PATIENCE)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, b"")


def test_memory_that_gives_out_in_a_thread_is_a_sentence_and_exit_code_6():
    done = subprocess.run(PROGRAM, input=b"T too large\nT on\n", capture_output=True, timeout=PATIENCE, cwd=ROOT)
    assert (done.returncode, done.stderr.decode()) == (6, shortage.NO_MEMORY + os.linesep)
    assert b"Traceback" not in done.stdout and b"mistake in the program" not in done.stdout


def test_lack_of_memory_has_many_names():
    short = (MemoryError(), RuntimeError("can't start new thread"), OSError(errno.ENOMEM, "Cannot allocate memory"),
             ImportError("x.so: failed to map segment from shared object"))
    assert all(map(shortage.is_memory_short, short))
    others = ValueError(), OSError(errno.EIO, "x"), ImportError("no module"), None
    assert not any(map(shortage.is_memory_short, others))


def test_memory_that_gives_out_at_the_start_is_a_sentence_and_exit_code_6():
    program = """
import sys
import node_client
def refuse(settings, notify):
    raise RuntimeError("can't start new thread")
sys.exit(node_client.main(["--ip", "127.0.0.1"], refuse))
"""
    done = subprocess.run([sys.executable, "-c", program], input=b"", capture_output=True, timeout=PATIENCE, cwd=ROOT)
    assert (done.returncode, done.stderr.decode()) == (6, shortage.NO_MEMORY + os.linesep)


def test_memory_that_gives_out_while_the_program_is_loaded_is_a_sentence_too():
    program = "from prompt import shortage; shortage.catch_uncaught(); raise MemoryError"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, cwd=ROOT, timeout=PATIENCE)
    assert (done.returncode, done.stderr.decode()) == (6, shortage.NO_MEMORY + os.linesep)
