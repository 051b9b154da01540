"""How chat looks: times, own lines and the bell at a terminal, and in a pipe what scripts have always read."""

from __future__ import annotations

import argparse
import re

import pytest

from node_tests.stage.fake_prompt import chat
from node_tests.stage.window import QUIET, Window, needs_pty
from prompt.chatting import BOLD, DIM, Chatting
from protocol.results import ChatReceived, Whispered


class Looks(argparse.Namespace):
    """A terminal that keeps what is shown, and how."""

    def __init__(self, **changes: bool) -> None:
        super().__init__(**{"is_asking": True, "can_redraw": True, "has_colour": True, **changes})
        self.shown, self.bells = [], 0

    def say(self, line: str, look: str = "") -> None:
        self.shown.append((look, line))

    def ring(self) -> None:
        self.bells += 1


def told(terminal, *events, times=True, bell=False, name="ana"):
    chatting = Chatting(terminal, 0.0, lambda: "12:31")
    chatting.has_times, chatting.has_bell = times, bell
    chatting.set_name(name)
    for number, event in enumerate(events):
        chatting.show(event, 10.0 * number)
    return terminal.shown


MINE, PRIVATE = ChatReceived("ana", "hello", True), Whispered("bo", "psst", False)


def test_a_person_sees_times_and_tells_own_lines_from_others():
    assert told(Looks(), chat("bo", "hi"), MINE, PRIVATE) == [
        ("", "12:31 <bo> hi"), (DIM, "12:31 <ana> hello"), (BOLD, "12:31 [bo -> me] psst")]
    assert told(Looks(has_colour=False), chat("bo", "hi"), MINE, times=False) == [
        ("", "<bo> hi"), (DIM, ">ana< hello")]  # a look that such a terminal does not draw


@pytest.mark.parametrize("changes", [{"is_asking": False}, {"can_redraw": False}])
def test_where_no_person_looks_a_line_is_as_it_always_was(changes):
    assert told(Looks(**changes), chat("bo", "hi"), MINE) == [("", "<bo> hi"), ("", "<ana> hello")]


def test_nobody_forges_an_own_or_a_private_line():
    shown = told(Looks(has_colour=False), chat("[bo -> me]", ">ana< x"), chat(">ana< x", "[bo -> me] y"),
                 Whispered("<bo> x", "\x1b[2J\n<bo> y", False), times=False)
    assert [line[0] for _, line in shown] == ["<", "<", "["]
    assert shown[2][1] == "[\\u{3c}bo\\u{3e} x -> me] \\u{1b}[2J\\u{a}<bo> y"


def test_the_bell_rings_for_ones_name_alone_and_only_so_often():
    for text, rings in (("ana, look", 1), ("hi ANA!", 1), ("banana", 0), ("ana2", 0), ("hi", 0)):
        looks = Looks()
        told(looks, chat("bo", text), bell=True)
        assert looks.bells == rings, text
    looks = Looks()
    told(looks, MINE, PRIVATE, chat("bo", "hi"), bell=True)
    assert looks.bells == 1  # for what is private
    chatting = Chatting(looks, 0.0)
    chatting.has_bell = True
    chatting.set_name("a(b")
    for number in range(1000):  # in a second
        chatting.show(chat("bo", "a(b"), number / 1000)
    assert looks.bells <= 3
    quiet = Looks()
    told(quiet, chat("bo", "ana"))
    assert quiet.bells == 0


@needs_pty
def test_times_and_own_lines_in_a_real_terminal():
    with Window(80, *QUIET, "--bell") as window:
        window.ready()
        window.type("T hello\r")
        window.tell(chat("bo", "hi me"))
        window.until(lambda lines: any(re.fullmatch(r"\d\d:\d\d <bo> hi me", line) for line in lines))
        window.until(lambda lines: any(re.fullmatch(r"\d\d:\d\d <me> hello", line) for line in lines))
        assert re.search(rb"\x1b\[2m\d\d:\d\d <me> hello\x1b\[0m", window.raw) and window.raw.count(b"\a") == 1
    with Window(80, *QUIET, "--no-times", NO_COLOR="1") as window:
        window.ready()
        window.type("T hello\r")
        window.until(lambda lines: ">me< hello" in lines)
        window.tell(chat("bo", "hi me"))
        window.until(lambda lines: "<bo> hi me" in lines)
        assert b"\a" not in window.raw
