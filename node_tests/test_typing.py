"""Tab and pastes, in both line editors: what is typed is completed, and a pasted text is never many commands."""

from __future__ import annotations

import os
import sys
import types
from pathlib import Path

import pytest

from node_tests.stage.fake_prompt import chat
from node_tests.stage.window import QUIET, Window, both_editors, needs_pty
from prompt import keyboard
from prompt.commands import LETTERS, letter_of
from prompt.completion import Completion, choice_lines, local_paths
from prompt.keyboard import KeyReader, split_keys
from prompt.readers import LINE_END

COMPLETE = Completion(LETTERS, {"R": lambda _: ["lab.iso", "Lab notes.pdf", "evil\x1b[2J", "hid\u202eden"],
                                "M": lambda _: ["on", "off"], "P": lambda _: ["ana "]})


@pytest.mark.parametrize("before, after", [
    ("fe", ["fetch "]), ("r", ["r "]), ("ge", ["get "]), ("c", ["c "]), ("", []), ("xyz", []),
    ("R lab", ["R lab.iso", "R Lab notes.pdf"]), ("get LAB.", ["get lab.iso"]), ("R  lab n", ["R Lab notes.pdf"]),
    ("R evil", []), ("R hid", []), ("m o", ["m on", "m off"]), ("P a", ["P ana "]), ("T lab", []), ("X lab", [])])
def test_a_line_is_completed_by_what_its_command_takes(before, after):
    assert COMPLETE(before) == after


def test_commands_are_known_by_their_letters_and_words():
    assert [letter_of(line) for line in ("t hi", "say hi", "P ana hi", "share x")] == ["T", "T", "P", "B"]


def test_local_paths_are_completed_as_they_were_begun(tmp_path, monkeypatch):
    for name in ("my talk.pdf", "my talks/one.pdf", ".hidden"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert local_paths("") == ["my talk.pdf", "my talks/"] and local_paths(".") == [".hidden"]
    assert local_paths("'MY t") == ["'my talk.pdf", "'my talks/"]
    assert local_paths("my talks/") == ["my talks/one.pdf"] and local_paths("no/") == []
    assert local_paths(str(tmp_path / "my talks" / "o")) == [str(tmp_path / "my talks" / "one.pdf")]
    if os.name != "nt":
        assert local_paths(r"my\ talks/o") == ["my talks/one.pdf"]
        assert local_paths("~") == ["~/"] and local_paths("~/my talks/") == ["~/my talks/one.pdf"]


def test_choices_are_shown_without_what_they_share():
    assert choice_lines(["R lab.iso", "R Lab notes.pdf"], 79) == ["  lab.iso        Lab notes.pdf"]
    assert choice_lines(["B ~/talks/a", "B ~/talks/b"], 79) == ["  a  b"]
    assert choice_lines([f"R {number}" for number in range(1000)], 39)[-1] == "  ... and 940 more"


@needs_pty
@both_editors
def test_tab_completes_what_was_begun_and_shows_several(editor, tmp_path):
    (tmp_path / "my talk.pdf").write_text("")
    with Window(80, *QUIET, "--no-times", editor=editor) as window:
        window.ready()
        window.type("G\r")
        window.until(lambda lines: any("notes.pdf" in line for line in lines) and lines[-1] == ">")
        window.type("fet\tno\t")
        window.until(lambda lines: lines[-1] == "> fetch notes.pdf")
        window.type("\x15R \t")
        window.until(lambda lines: lines[-2:] == ["  lab.iso    notes.pdf", "> R"])
        window.type("L\t\r")
        window.until(lambda lines: any(line.startswith("OK lab.iso") for line in lines) and lines[-1] == ">")
        window.type(f"B {tmp_path}/my\t")
        window.until(lambda lines: "".join(lines).replace(" ", "").endswith("/mytalk.pdf"))
        window.type("\x15U m\t")                        # FakePeer shares mine.txt
        window.until(lambda lines: lines[-1] == "> U mine.txt")


PASTED = "\x1b[200~%s\x1b[201~"
THIRTY = "\r".join(f"Q line {number}" for number in range(30))


@needs_pty
@both_editors
def test_a_pasted_text_of_thirty_lines_is_no_command_until_a_person_says_so(editor):
    with Window(80, *QUIET, "--no-times", editor=editor) as window:
        window.ready()
        assert b"\x1b[?2004h" in window.raw
        window.type(PASTED % THIRTY)
        window.shows(LINE_END.join(("Q line 28", "Q line 29")))
        window.tell(chat("bo", "hello"))
        window.until(lambda lines: "<bo> hello" in lines)
        window.type("\r")
        window.until(lambda lines: lines[-1] == "t, c or Enter:")
        window.type("\r")
        window.until(lambda lines: lines[-1] == ">")
        assert window.process.poll() is None and not any("Q stands alone" in line for line in window.screen.lines())
        window.type(PASTED % "M\r\nG\r\n" + "\r")
        window.until(lambda lines: lines[-1] == "t, c or Enter:")
        window.type("c\r")
        window.until(lambda lines: "* mesh is on: links and transfers are direct" in lines
                     and any(line.startswith("  2  notes.pdf") for line in lines) and lines[-1] == ">")
        window.type("Q\r")
        assert window.end() == 0
        assert window.raw.count(b"\x1b[?2004h") == window.raw.count(b"\x1b[?2004l")


@needs_pty
@both_editors
def test_what_is_pasted_behind_t_is_one_message_and_a_single_line_is_as_if_typed(editor):
    with Window(80, *QUIET, "--no-times", editor=editor) as window:
        window.ready()
        window.type("T " + PASTED % "first\n  second\nthird\n" + "!\r")
        told = f"<me> first {LINE_END}   second {LINE_END} third!"
        window.until(lambda lines: lines[-2:] == [told, ">"])
        window.type(PASTED % "T caf\u00e9\n" + "s\r")
        window.until(lambda lines: lines[-2:] == ["<me> caf\u00e9s", ">"])
        window.type(PASTED % "one\ntwo" + "\r")
        window.until(lambda lines: lines[-1] == "t, c or Enter:")
        window.type("t\r")
        window.until(lambda lines: lines[-2:] == [f"<me> one {LINE_END} two", ">"])
        window.type("\x1b[A")                           # the answer is not in the history
        window.shows(f"> one{LINE_END}two")


def test_the_keys_of_a_paste_are_taken_as_text_and_an_end_in_two_halves_is_an_end():
    reader = KeyReader(lambda text: None, lambda: 80)
    for key in split_keys("T \x1b[200~a\tb\x1b[A\x07\rQ\r\n\x1b[201~c"):
        assert not reader._on_key(key)
    assert reader.typed() == f"T a b{LINE_END}Qc"
    assert reader._on_key("\r") and reader._entered() == "T a b\nQc"


@needs_pty
def test_keys_that_come_in_pieces_are_the_same_keys():
    with Window(80, *QUIET, "--no-times", editor="keys") as window:
        window.ready()
        window.type("T a\x1b[20")
        window.shows("> T a")
        for piece in ("0~b\rc\x1b[2", "01~", "d\r\x1b[20"):
            window.type(piece)
        window.until(lambda lines: lines[-2:] == [f"<me> ab {LINE_END} cd", ">"])


def test_keys_of_windows_come_in_pairs_and_so_do_letters(monkeypatch):
    typed = list("\xe0H\xe0K\x00;voil\xe0 l\xe0\r\ud83d\ude00") + ["\xe0"]
    console = types.SimpleNamespace(kbhit=lambda: bool(typed), getwch=lambda: typed.pop(0))
    monkeypatch.setitem(sys.modules, "msvcrt", console)
    keys: list = []
    while typed:
        keys += keyboard._WindowsKeys().next()
    assert keys == ["up", "left", "none", *"voil\xe0 l\xe0\r\U0001f600\xe0"]


def test_nothing_is_completed_from_what_cannot_be_read(tmp_path: Path):
    assert local_paths("a\0b/") == [] and local_paths(str(tmp_path / "nothing" / "x")) == []


@needs_pty
@both_editors
def test_a_paste_that_comes_while_a_command_runs_is_a_paste_too(editor):
    with Window(80, *QUIET, "--no-times", editor=editor) as window:
        window.ready()
        window.type("M\rM\r" + PASTED % THIRTY + "\r")
        window.until(lambda lines: lines[-1] == "t, c or Enter:")
        window.type("\r")
        window.until(lambda lines: lines[-1] == ">")
        assert window.process.poll() is None and not any("Q stands alone" in line for line in window.screen.lines())
