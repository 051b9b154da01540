"""The prompt as a person and as a script meet it: lines, questions, commands, and a real terminal."""

from __future__ import annotations

import argparse
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import unicodedata

import pytest

from node_tests.stage.amounts import amount
from node_tests.stage.fake_prompt import (
    HOME,
    ID,
    SHARES,
    SIZE,
    FakePeer,
    chat,
    downloaded,
    entry,
    outcome,
    sent,
    stopped,
    transfer,
)
from node_tests.stage.running import free_port
from node_tests.stage.window import PROGRAM, QUIET, Screen, Window, both_editors, needs_pty, quiet_session, script
from prompt import lines, network_key, readers, settings
from prompt.commands import help_lines, parse_command, show_help, unknown_line
from prompt.console import Console, line_for
from prompt.keyboard import KeyReader
from prompt.lines import format_size, place_of, progress_line, share_lines
from prompt.session import LEAVE_SECONDS
from prompt.terminal import Terminal
from prompt.threads import DiskThread, NodeThread
from protocol.looks import safe_text, text_width
from protocol.results import (
    FetchAnswer,
    Joined,
    KeyWanted,
    Left,
    Notice,
    OtherKey,
    Paused,
    Progress,
    Resumed,
    SupernodeChanged,
    Unsaid,
    UploadDone,
    UploadEnded,
)

# ---------------------------------------------------------------- values and lines

def test_sizes_rates_and_times_read_as_promised():
    assert [format_size(n) for n in (0, 999, 1000, 999_949, 999_950, 4_200_000_000, 80_000_000)] == [
        "0 B", "999 B", "1.0 kB", "999.9 kB", "1.0 MB", "4.2 GB", "80.0 MB"]
    assert lines.format_rate(88_400_000) == "88.4 MB/s"
    assert [lines.format_time(t) for t in (0, 48.9, 59.6, 3723)] == ["0:00", "0:49", "1:00", "1:02:03"]
    assert lines.format_part(1_740_000_000, 4_200_000_000) == "1.7/4.2 GB"


def test_a_percent_is_rounded_down_and_never_100_before_the_end():
    assert [lines.format_percent(n, 1000) for n in (0, 419, 999, 1000)] == ["0%", "41%", "99%", "99%"]


LINES = [
    (outcome("supernode"), "* supernode at 127.0.0.1:6020 (nobody here yet; you are the first). Folder: shared"),
    (outcome("joined"), "* joined ana's network at 127.0.0.1:6020: 4 nodes. Folder: shared"),
    (Joined("bo", 5), "* bo joined (5 nodes)"),
    (Left("bo", 4, None), "* bo left (4 nodes)"),
    (Left("bo", 1, None), "* bo left (1 node)"),
    (Left("bo", 4, 6.02), "* bo is gone (no sign for 6 s; 4 nodes)"),
    (SupernodeChanged("ana", "me", True, None), "* ana left; you are now the supernode"),
    (SupernodeChanged("ana", "bo", False, None), "* ana left; the supernode is now bo"),
    (SupernodeChanged("ana", "me", True, None, False, True), "* ana hands over and stays; you are now the supernode"),
    (SupernodeChanged("ana", "bo", False, None, False, True), "* ana hands over and stays; the supernode is now bo"),
    (SupernodeChanged("me", "bo", False, None, True, True),
     "* bo reaches more of the network than this node; it is the supernode now"),
    (SupernodeChanged("ana", "bo", False, 6.1), "* ana is gone (no sign for 6 s); the supernode is now bo"),
    (chat("bo", "hello everyone"), "<bo> hello everyone"),
    (downloaded(), "OK lab.iso  4.2 GB in 0:49, 85.9 MB/s, from ana, bo  id 9f3c11ab -> shared/lab.iso"),
    (downloaded(moved=0, sources=()), "OK lab.iso  4.2 GB in 0:49, from this disk  id 9f3c11ab -> shared/lab.iso"),
    (downloaded(moved=SIZE // 2), "OK lab.iso  4.2 GB in 0:49, 42.9 MB/s, from ana, bo  id 9f3c11ab -> shared/lab.iso"),
    (downloaded(by_way_of="cy", sources=("ana",)),
     "OK lab.iso  4.2 GB in 0:49, 85.9 MB/s, from ana by way of cy  id 9f3c11ab -> shared/lab.iso"),
    (UploadDone("lab.iso", 4_200_000_000, 49.0, "bo", bytes.fromhex("9f3c11ab")),
     "OK sent lab.iso to bo  4.2 GB in 0:49  id 9f3c11ab"),
    (UploadDone("lab.iso", 4_200_000_000, 49.0, "bo", bytes.fromhex("9f3c11ab"), False),
     "!! sent lab.iso to bo  4.2 GB in 0:49, but the link was lost before it was confirmed  id 9f3c11ab"),
    (Unsaid(1), "!! 1 line of what you said could not be sent"),
    (Unsaid(3), "!! 3 lines of what you said could not be sent"),
    (Paused(1, "lab.iso", 1_740_000_000, SIZE, 2_460_000_000, 12_000_000),
     "!! lab.iso  paused at 41%: the disk has no room: needs 2.5 GB, 12.0 MB free; goes on when there is"),
    (sent(178_000_000, 200_000_000),
     "OK sent lab.iso to bo  178.0 MB of 200.0 MB in 0:49, the rest was there or came from others  id 9f3c11ab"),
    (sent(200_000_000, 200_000_000), "OK sent lab.iso to bo  200.0 MB in 0:49  id 9f3c11ab"),
    (sent(212_000_000, 200_000_000), "OK sent lab.iso to bo  200.0 MB in 0:49 (212.0 MB with what was sent again)  "
                                     "id 9f3c11ab"),
    (UploadEnded("lab.iso", 120_000_000, 300_000_000, "bo", ID),
     "* bo takes no more of lab.iso: 120.0 MB of 300.0 MB sent  id 9f3c11ab"),
    (Resumed(1, "lab.iso"), "* lab.iso goes on: there is room again"),
    (KeyWanted(("10.0.0.7", 6020)),
     "* the network at 10.0.0.7:6020 is private: it wants a key (--ask-key asks for it)"),
    (OtherKey("bo"),
     "!! bo has a NEW key: ask bo by another way whether that is so; until then it may be somebody else"),
    (stopped(), "!! lab.iso  stopped at 41%: ana left and nobody else has it. 1.7 GB kept; R lab.iso goes on"),
    (stopped(kept=False, reason="the disk is full"), "!! lab.iso  stopped at 41%: the disk is full"),
]


@pytest.mark.parametrize("event, line", LINES, ids=[type(event).__name__ for event, _ in LINES])
def test_each_notification_is_the_promised_line(event, line):
    assert line_for(event) == line


def test_the_progress_line_names_its_phase_and_fits_the_window():
    row = transfer()
    assert progress_line(row) == "R lab.iso  41%  1.7/4.2 GB  88.4 MB/s  0:28 left  from ana, bo"
    assert progress_line(transfer(state="asking", verified=0, sources=())) == "R lab.iso  asking"
    assert progress_line(transfer(state="queued 3rd", verified=0, sources=("ana",))) == \
        "R lab.iso  queued 3rd  from ana"
    assert progress_line(transfer(state="waiting for ana", sources=())) == \
        "R lab.iso  41%  1.7/4.2 GB  waiting for ana"
    for width in (79, 60, 39, 20, 10):
        assert text_width(progress_line(transfer(name="a very long name " * 9), width)) <= width
    assert "41%" in progress_line(transfer(name="a very long name " * 9), 60)


HOSTILE = ("\x1b[2J\x9b31m\x1b]52;c;aGk=\x07\x1b]8;;http://x\x1b\\ \r\n* ana left"
           "\u202e\u2066\u200b\u2028\ud800\U000e0041\u3164")


def test_hostile_text_becomes_one_harmless_line():
    for shown in (safe_text(HOSTILE), line_for(chat(HOSTILE, HOSTILE)),
                  line_for(Joined(HOSTILE, 2)), line_for(stopped(name=HOSTILE, reason=HOSTILE)),
                  progress_line(transfer(name=HOSTILE, state=HOSTILE, sources=(HOSTILE,)))):
        assert all(unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp") for c in shown)
    assert safe_text("a\x1bb") == "a\\u{1b}b"
    assert len(safe_text("e" + "\u0301" * 10_000)) == 5
    assert text_width(safe_text("\u6f22" * 300)) <= 255


def test_a_name_cannot_forge_the_prefix_of_a_chat_line():
    assert line_for(chat("bo> hello", "x")) == "<bo\\u{3e} hello> x"


def test_a_chat_of_2_kib_is_shown_whole():
    assert line_for(chat("bo", "a" * 2048)) == "<bo> " + "a" * 2048


# ---------------------------------------------------------------- questions and commands

@pytest.mark.parametrize("check, good, bad", [
    (settings.check_ip, {"": None, " 10.0.0.7 ": "10.0.0.7", "localhost": "127.0.0.1"},
     ["ten", "10.0.0", "::", "fe80::1", "0.0.0.0", "224.0.0.1", "010.0.0.1"]),
    (settings.check_port, {"": 6020, "1024": 1024, " 65535": 65535},
     ["0", "80", "1023", "65536", "x", "-1", "6_020"]),
    (settings.check_name, {"ana": "ana", "a" * 32: "a" * 32, " bo ": "bo"},
     ["   ", "a" * 33, "a\x1bb", "a\u200bb", "<ana>"]),
], ids=["ip", "port", "name"])
def test_answers_are_checked_and_refused_with_a_sentence(check, good, bad):
    assert {text: check(text) for text in good} == good
    for text in bad:
        with pytest.raises(ValueError, match=r"\.$"):
            check(text)


def test_the_default_name_is_one_that_would_be_accepted(monkeypatch):
    assert settings.check_name("") == settings.default_name()
    monkeypatch.setattr(settings.getpass, "getuser", lambda: "u" * 50)
    assert settings.check_name(settings.default_name()) == "u" * 32


def test_where_c_goes():
    def target(text, own_ip):
        first, = settings.check_targets(text, own_ip)
        return first

    assert target("7000", "10.0.0.2") == ("10.0.0.2", 7000)
    assert target("10.0.0.7 7000", "") == target("10.0.0.7:7000", "") == ("10.0.0.7", 7000)
    assert target("10.0.0.7", "") == ("10.0.0.7", 6020)
    for six in ("fd00::1 7000", "[fd00::1]:7000", "[fd00::1] 7000"):
        assert target(six, "") == ("fd00::1", 7000)
    assert target("fd00::1", "") == target("[fd00::1]", "") == ("fd00::1", 6020)
    for wrong in ("", "1 2 3", "10.0.0", "10.0.0.7:80", "10.0.0.7:7000 7000", "fe80::1", "fd00::1:: 7000"):
        with pytest.raises(ValueError):
            target(wrong, "10.0.0.2")


def test_letters_words_and_case_name_the_same_command():
    for line in ("R lab 1.iso", "r  lab 1.iso", "get lab 1.iso", " FETCH lab 1.iso ", "R\tlab 1.iso",
                 "R\u3000lab 1.iso"):
        command, argument = parse_command(line)
        assert command is not None and (command.run, argument) == (Console.fetch, "lab 1.iso")
    assert [parse_command(word)[0].run for word in "CTBGRWVKM?HQD"] == [
        Console.connect, Console.chat, Console.share, Console.list_files, Console.fetch, Console.who, Console.view,
        Console.cancel, Console.mesh, show_help, show_help, Console.quit, Console.doctor]


def test_unknown_input_is_named_and_a_guess_is_made():
    assert unknown_line("X") == 'Unknown: "X". Did you mean R? (? for help)'
    assert unknown_line("fech lab.iso") == 'Unknown: "fech". Did you mean R? (? for help)'
    assert unknown_line("qiut") == 'Unknown: "qiut". Did you mean Q? (? for help)'
    assert unknown_line("\x1b[2J") == 'Unknown: "\\u{1b}[2J". (? for help)'
    assert "Unknown" in unknown_line("everyone") and "mean" not in unknown_line("everyone")


def test_help_fits_one_screen_and_every_command_has_an_example():
    assert len(help_lines()) <= 20
    assert all(len(line) < 80 for line in help_lines())
    for letter in "CTBGRWVKM?HQD":
        assert "example" in help_lines(letter)[1]
        assert all(text_width(line) <= 40 for line in help_lines(letter, 40))
    told = " ".join(help_lines("D"))
    for shown in "addresses", "port", "firewall", "path", "disk", "clock", "!!":
        assert shown in told
    told = " ".join(help_lines("V"))
    for shown in "state", "percent", "rate", "left", "sources", "share", "round trip", "window", "loss", "half here":
        assert shown in told


# ---------------------------------------------------------------- the node thread

def test_a_failing_event_is_dropped_and_the_node_thread_lives(caplog):
    thread, seen = NodeThread(time.monotonic), threading.Event()
    thread.start(FakePeer(lambda event: None))
    thread.call(lambda now: 1 / 0)
    thread.call(lambda now: seen.set())
    assert seen.wait(5)
    assert thread.failures == 1
    assert "dropped" in caplog.text
    thread.stop()


def test_a_disk_job_hands_its_result_or_its_error_to_the_node_thread():
    thread = NodeThread(time.monotonic)
    thread.start(FakePeer(lambda event: None))
    disk, seen, both = DiskThread(thread), [], threading.Event()
    disk.start()
    disk(lambda: 7, lambda result, error, now: seen.append((result, error, threading.current_thread().name)))
    disk(lambda: 1 / 0, lambda result, error, now: (seen.append((result, type(error))), both.set()))
    assert both.wait(5)
    assert seen == [(7, None, "node"), (None, ZeroDivisionError)]
    disk.stop(1.0)
    thread.stop()


class PieceJob:
    """A disk job of which a part may be done beside."""

    def __init__(self, number, begins=None):
        self.number, self.begins, self.prepared = number, begins, []

    def ahead(self):
        self.prepared.append(threading.current_thread().name)

    def __call__(self):
        if self.begins is not None:
            self.begins.wait(5)
        return self.number


def test_what_came_of_several_pieces_is_told_together_and_what_waits_is_prepared_beside():
    thread = NodeThread(time.monotonic)
    disk, begins, seen, over = DiskThread(thread), threading.Event(), [], threading.Event()
    jobs = [PieceJob(0, begins), *map(PieceJob, range(1, 6))]
    called, call = [], thread.call
    thread.call = lambda closure: (called.append(len(seen)), call(closure))
    thread.start(FakePeer(lambda event: None))
    disk.start()
    for job in jobs:
        disk(job, lambda result, error, now: seen.append(result))
    disk(lambda: 9, lambda result, error, now: (seen.append(result), over.set()))
    begins.set()
    assert over.wait(5) and seen == [0, 1, 2, 3, 4, 5, 9]
    assert called[:6] == [0] * 6, "nothing of the six was told before all were done"
    prepared = [job.number for job in jobs if job.prepared]
    assert prepared and prepared == list(range(prepared[0], 6)) and prepared[0] >= 2
    assert all("digest" in name for job in jobs for name in job.prepared)
    disk.stop(1.0)
    thread.stop()


# ---------------------------------------------------------------- scripts: no terminal

def test_who_waits_for_a_piped_line_looks_as_soon_as_something_arrives(monkeypatch):
    """By the word of other threads and of a signal's handler alone: here it would look again after an hour."""
    monkeypatch.setattr(readers, "PIPED_SECONDS", 3600.0)
    reading, writing = os.pipe()
    reader, session, looks = readers.PipeReader(reading), quiet_session(), []
    session.terminal.look_soon = reader.look_soon
    arrivals = [
        lambda: session.notify(Notice("from the node")),
        lambda: session.on_signal(signal.SIGTERM, None),
        lambda: session.on_memory_short(),
        lambda: os.write(writing, b"Q\n"),
    ]

    def idle():
        looks.append(session.inbox.qsize())
        threading.Thread(target=arrivals[len(looks) - 1]).start()
    assert reader.read("", idle) == "Q"
    assert looks == [0, 1, 1, 1] and len(session.signals) == 2
    os.close(writing)
    reader.thread.join(5)
    os.close(reading)


def test_a_script_fetches_and_quits():
    lines, code = script("R notes.pdf\nQ\n", "--ip", "10.0.0.7")
    assert lines[0] == "Looking for a network ..."
    assert lines[1].startswith("* joined ana's network")
    assert lines[2].startswith("OPEN NETWORK (no key): anyone on this LAN can join,")
    assert lines[3].startswith("OK notes.pdf  4.2 GB in 0:49")
    assert (len(lines), code) == (4, 0)


def test_the_end_of_input_waits_for_what_was_asked():
    lines, code = script("G\nR 2")
    assert lines[-1].startswith("OK notes.pdf")
    assert "  1  lab.iso     4.2 GB  ana, bo  2 sources" in lines
    assert code == 0


@pytest.mark.parametrize("name, said", [
    ("bad", "!! bad  stopped at 41%: "), ("gone.txt", "!! gone.txt  nobody here has it")])
def test_a_failed_transfer_is_exit_code_1(name, said):
    lines, code = script(f"R {name}\nQ\n")
    assert any(line.startswith(said) for line in lines)
    assert code == 1


def test_a_folder_of_which_files_are_left_out_says_so_and_is_exit_code_1():
    lines, code = script("R fewer\nQ\n")
    told = "9 of 12 files (2 were not shared: links; 1 left out here: names that this machine cannot keep)"
    assert any(line.startswith(f"OK fewer  {told}  4.2 GB in 0:49") for line in lines) and code == 1


@pytest.mark.parametrize("command, said", [
    ("T too much", "!! Not sent: too much of what you said is still on its way. Try again soon."),
    ("B nowhere", "!! nowhere  there is no such file or folder"),
    ("C 6666", "!! Nobody answers at 127.0.0.1:6666; you stay where you are.")])
def test_a_command_of_a_script_that_came_to_nothing_is_exit_code_1(command, said):
    lines, code = script(f"{command}\nQ\n")
    assert said in lines and code == 1


def test_chat_that_could_not_be_sent_is_said_and_is_exit_code_1_in_a_script():
    session = quiet_session()
    session.on_event(Unsaid(2))
    assert (session.said, session.exit_code) == (["!! 2 lines of what you said could not be sent"], 1)


def test_what_cannot_be_opened_is_exit_code_3_and_wrong_flags_2():
    lines, code = script("Q\n", "--ip", "10.9.9.9")
    assert lines[-1] == "Nobody answers at 10.9.9.9:6020, and this machine cannot be the supernode there."
    assert code == 3
    for flags in (["--port", "80"], ["--ip", "ten"], ["--name", " "], ["--what"]):
        assert script("", *flags)[1] == 2


def test_nothing_but_plain_lines_goes_into_a_pipe():
    commands = ["T hi", "W", "V", "B", "M off", "M", "K 1", "H R", "C 7000", "R here", "X", "", "K", "T", "?"]
    lines, code = script("\n".join(commands), FORCE_COLOR="1")
    text = "\n".join(lines)
    assert code == 1                        # for X, K and T
    assert "\r" not in text and "\x1b" not in text and "> " not in text[:2]
    for said in ("<me> hi", "ana  10.0.0.7:6020  supernode", "queued 3rd", "mine.txt",
                 '* "d/link" is a link and is not shared', "mesh is off", "cancelled",
                 "for example: R lab.iso", "* joined cy's network at 127.0.0.1:7000",
                 "OK here  4.2 GB was here already  id 9f3c11ab -> shared/here",
                 'Unknown: "X". Did you mean R? (? for help)',
                 "K needs the number", "T needs a text", "hands over if supernode"):
        assert said in text, said


def test_the_doctor_tells_its_rows_in_order_and_troubles_are_no_failure_of_the_script():
    lines, code = script("D\nT hi\nd\ndoctor")
    rows = [line for line in lines if line[:3] in ("   ", "!! ", "* 2")]
    assert code == 0 and len(rows) == 3 * 13 and rows[:13] == rows[13:26] == rows[26:]
    assert rows[3:5] == ["!! port      6020 is held by nc (process 812)",
                         "   -> end that program, or start all nodes with --port 6021"]
    assert rows[12] == "* 2 troubles: addresses, port"
    assert lines.index("<me> hi") == lines.index(rows[12]) + 1


def test_several_matches_fetch_nothing_and_are_exit_code_1():
    lines, code = script("R two")
    assert code == 1 and 'Several files match "two"; R number takes one:' in lines


def test_a_transfer_shows_what_each_source_gave_and_gives():
    lines, _ = script("V\n")
    at = next(number for number, line in enumerate(lines) if "R lab.iso" in line)
    assert lines[at + 1:at + 4] == [
        "      from ana  62%  1.1 GB    54.1 MB/s", "      from bo   37%  660.0 MB  34.3 MB/s",
        "      from cy    0%  0 B       queued 3rd"]
    assert "S notes.pdf" in lines[at + 4]


def test_a_single_source_needs_no_lines_of_its_own():
    assert share_lines(transfer(shares=SHARES[:1])) == [] == share_lines(transfer())


def test_r_on_what_is_on_its_way_shows_how_it_stands():
    lines, code = script("R on its way\n")
    at = lines.index("* on its way is on its way already:")
    assert "R lab.iso  receiving  41%" in lines[at + 1] and "from ana" in lines[at + 2] and code == 0
    assert not any("S notes.pdf" in line for line in lines)


def test_a_script_gets_a_long_list_whole():
    lines, _ = script("G many\nG +\n")
    assert sum(".txt" in line for line in lines) == 5000 and lines[-1] == "That list has no more rows."
    assert "!! There is no list yet: G prints one." in script("G +\n")[0]


@pytest.mark.parametrize("what", ["*.bin fold/*", "*.bin *.txt"])
def test_several_patterns_in_one_line_are_explained(what):
    session = quiet_session()
    session.console.files._on_fetch_answer(what, FetchAnswer("nobody"))
    assert session.said == [f"!! {what}  no name fits that; several patterns are several lines"]
    assert session.exit_code == 1


def test_a_signal_that_ends_it_stands_in_the_log(caplog):
    caplog.set_level("INFO")
    session = quiet_session()
    session.on_signal(signal.SIGTERM, None)
    session._on_interrupt()
    assert session.is_over and "SIGTERM came" in caplog.text


def test_a_number_without_a_list_and_a_file_inside_a_folder_are_explained():
    lines, code = script("R 7\nR 7-9\nG zzz\nR 7\nR talks/a.txt\nR lab/a.txt\n")
    told = [line for line in lines if line.startswith("!! ")]
    assert told == ["!! 7  there is no list yet: G prints one",
                    "!! 7-9  there is no list yet: G prints one",
                    "!! The last list has 2 rows, and no file is named 7.",
                    "!! talks/a.txt  only whole folders are given: R talks",
                    "!! lab/a.txt  nobody here has it"] and code == 1


@pytest.mark.skipif(os.name == "nt", reason="there is no pseudo-terminal")
def test_a_person_gets_a_long_list_in_pages_of_the_window():
    with Window(80, *QUIET) as window:
        window.ready()
        window.type("G many\n")
        seen = window.until(lambda lines: any("20 of 5000 rows; G + shows more" in line for line in lines))
        assert any(line.startswith("  20  f20.txt") for line in seen) and "  21  f21.txt" not in "\n".join(seen)
        window.type("G +\n")
        window.shows("40 of 5000 rows", "  40  f40.txt")
        window.type("R 4999\n")
        window.shows("OK f4999.txt")
        window.type("Q\n")
        assert window.end() == 0


def test_a_number_is_a_row_of_the_last_list_first_and_then_a_name():
    lines, code = script("G\nR 99\nR 7-9\nR 2/\n")
    for number in ("99", "7-9"):
        assert f"!! The last list has 2 rows, and no file is named {number}." in lines
    assert any(line.startswith("OK notes.pdf") for line in lines) and code == 1
    lines, code = script("G\nR 5\n", FAKE_FILE="5")
    assert any(line.startswith("OK 5  ") for line in lines) and code == 0


def test_a_python_that_was_built_without_ctypes_edits_lines_by_the_keys(monkeypatch):
    monkeypatch.setitem(sys.modules, "ctypes", None)
    monkeypatch.delitem(sys.modules, "prompt.editing", raising=False)
    terminal = Terminal.__new__(Terminal)
    terminal.is_asking = terminal.can_redraw = True
    assert isinstance(terminal._choose_reader(""), KeyReader)


def test_what_was_not_understood_does_nothing_and_says_so():
    lines, code = script("quit now\nwho ana\nV 1\nD x\nH X\nH R x\nT %s\nT still here\n\n" % ("x" * 2049))
    text = "\n".join(lines)
    for said in ('Q stands alone; "now" after it', 'W stands alone; "ana"', 'V stands alone; "1"', "D stands alone",
                 'Unknown: "X". Did you mean R?', "R name, R 2 5-7", "2048 bytes fit, it has 2049", "<me> still here"):
        assert said in text, said
    assert "supernode" not in text.replace("* supernode", "") and "network   " not in text
    assert code == 1


def test_bytes_that_are_no_text_are_replaced():
    done = subprocess.run(PROGRAM, input=b"T caf\xe9\n", capture_output=True, timeout=20,
                          cwd=str(HOME))
    assert "<me> caf\ufffd" in done.stdout.decode("utf-8")


def test_what_keeps_the_program_from_starting_is_one_sentence_and_exit_code_2(tmp_path):
    for flags, said in ((["--log", str(tmp_path / "no" / "log")], "The log cannot be written to "),):
        done = subprocess.run([*PROGRAM, *flags], input=b"", capture_output=True, timeout=20)
        assert done.returncode == 2 and done.stderr.decode().startswith(said) and done.stderr.count(b"\n") == 1
    if os.name != "nt":
        program = [sys.executable, str(HOME / "node_client.py")]
        for command, said in (('exec "$@" >&-', b"Standard output is closed"),
                              ('rmdir "$PWD"; exec "$@"', b"The current folder is gone.")):
            (tmp_path / "cwd").mkdir(exist_ok=True)
            done = subprocess.run(["sh", "-c", command, "sh", *program], input=b"", capture_output=True, timeout=20,
                                  cwd=tmp_path / "cwd")
            assert (done.returncode, done.stderr[:len(said)]) == (2, said), done


def test_a_port_that_another_program_holds_is_said_and_is_exit_code_3():
    lines, code = script("Q\n", "--port", "7777")
    assert lines[-1] == "Port 7777 of this machine is in use by another program, and no node answers there."
    assert code == 3


def test_help_flag_fits_one_screen():
    lines, code = script("", "--help")
    assert code == 0 and len(lines) <= 24 and max(map(len, lines)) <= 80


def test_progress_in_a_pipe_is_a_line_for_10_percent_or_30_seconds():
    now = [0.0]
    session = quiet_session(clock=lambda: now[0])
    for percent in range(100):
        now[0] += 0.5
        session.on_event(Progress(transfer(verified=percent, size=100)))
    assert [line.split("  ")[1] for line in session.said] == [f"{p}%" for p in range(10, 100, 10)]
    session.said.clear()
    for _ in range(130):
        now[0] += 0.5
        session.on_event(Progress(transfer(number=2, verified=5, size=100)))
    assert len(session.said) == 2


def test_a_cancelled_transfer_is_not_a_failed_one():
    session = quiet_session()
    session.node = argparse.Namespace(folder="shared", call=lambda closure: None)
    session.console.files._on_fetch_answer("a", FetchAnswer("started", (entry(1, "a"),), 3))
    session.console.cancel("3")
    session.on_event(stopped(number=3))
    assert session.exit_code == 0
    session.console.files._on_fetch_answer("a", FetchAnswer("started", (entry(1, "a"),), 4))
    session.on_event(stopped(number=4))
    assert session.exit_code == 1


def test_a_script_waits_a_minute_for_room_on_the_disk_and_then_ends_with_exit_code_1():
    now = [0.0]
    session = quiet_session(clock=lambda: now[0])
    session.pump = lambda wait=0.0: now.__setitem__(0, now[0] + wait)   # only time passes
    session.terminal.is_broken = False
    for number in (1, 2):
        session.console.files._on_fetch_answer("lab.iso", FetchAnswer("started", (entry(1, "lab.iso"),), number))
    paused = Paused(1, "lab.iso", 1_740_000_000, SIZE, 2_460_000_000, 12_000_000)
    session.on_event(paused)
    now[0] = 50.0
    session.on_event(Resumed(1, "lab.iso"))
    session.on_event(paused)
    session.on_event(downloaded(number=2))
    session.console.quit("")
    assert 110.0 <= now[0] < 111.0 and (session.is_over, session.exit_code) == (True, 1)
    assert session.said[-1] == "!! ended without what waits for room on the disk; what came is kept for a later R"


# ---------------------------------------------------------------- a terminal

WIDE = "T hello this is a rather long line that wraps " + "\u6f22\u5b57" * 4 + " over the edge of the window"


def typed_rows(text: str, columns: int) -> list:
    """The rows that a terminal makes of prompt and text."""
    screen = Screen(columns)
    screen.feed("> " + text)
    return screen.lines()


def cursor_after(lines: list, text: str, columns: int) -> tuple:
    """Where the cursor belongs when `text` stands before it: the prompt's first row is found on the screen."""
    first = max(i for i, line in enumerate(lines) if line.startswith("> "))
    row, column = place_of("> " + text, columns)
    return first + row, column


@needs_pty
@both_editors
@pytest.mark.parametrize("columns", [40, 80][: amount(2, 1)])
def test_a_typed_line_stays_whole_with_its_cursor(editor, columns):
    with Window(columns, *QUIET, editor=editor) as window:
        window.ready()
        window.type(WIDE + "\x02" * 8)                  # Ctrl-B: eight to the left
        for number in range(7):
            window.tell(chat("bo", f"message {number} " + "long " * (number % 3) * 9))
            window.tell(Progress(transfer(verified=number * 500_000_000)))
            lines = window.shows(f"message {number}", f"R lab.iso  {number * 500 // 42}%")
            rows = typed_rows(WIDE, columns)
            lines = window.until(lambda lines, rows=rows: lines[-len(rows):] == rows)
            assert lines[-len(rows) - 1].startswith("R lab.iso")
            window.until(lambda lines: window.screen.cursor() == cursor_after(lines, WIDE[:-8], columns))
        assert sum(line.startswith("R lab.iso") for line in lines) == 1
        window.type("!\r")
        told = "<me> " + WIDE[2:-8] + "!" + WIDE[-8:]
        window.until(lambda lines: told.replace(" ", "") in "".join(lines).replace(" ", ""))
        window.tell(downloaded())
        window.until(lambda lines: lines[-1] == ">" and not any(line.startswith("R lab.iso") for line in lines))


@needs_pty
@both_editors
def test_a_line_that_fills_its_row_exactly_keeps_its_place(editor):
    with Window(40, *QUIET, editor=editor) as window:
        window.ready()
        text = "T " + "x" * 36
        window.type(text)
        window.shows(text)
        for number in range(3):
            window.tell(Joined(f"node{number}", 5))
            window.until(lambda lines, number=number: f"* node{number} joined (5 nodes)" in lines
                         and lines[-1] == "> " + text)
        assert window.screen.lines()[-4:] == [f"* node{number} joined (5 nodes)" for number in range(3)] + ["> " + text]


@needs_pty
def test_piped_commands_on_a_terminal_redraw_one_progress_line():
    commands, script_end = os.pipe()
    with Window(40, *QUIET, stdin=commands) as window:
        os.write(script_end, b"T hello\nR slow\n")
        window.shows("<me> hello")
        for percent in range(10, 14):
            window.tell(Progress(transfer(name="slow", verified=percent, size=100)))
            window.tell(Joined(f"node{percent}", percent))
            window.until(lambda lines, percent=percent: lines[-1].startswith(f"R slow  {percent}%"))
        window.tell(downloaded(name="slow"))
        os.close(script_end)
        assert window.end() == 0
        lines = window.screen.lines()
        first = lines.index("<me> hello")
        assert lines[first + 1:first + 5] == [f"* node{number} joined ({number} nodes)" for number in range(10, 14)]
        assert lines[first + 5].startswith("OK slow") and not any(line.startswith("R slow") for line in lines)
    os.close(commands)


@needs_pty
@both_editors
def test_history_brings_back_the_last_command(editor):
    with Window(80, *QUIET, editor=editor) as window:
        window.ready()
        window.type("T first\r")
        window.shows("<me> first")
        window.type("\x1b[A\x01\x06\x06very \r")       # up, to the start, two to the right
        window.shows("<me> very first")


@needs_pty
@both_editors
def test_ctrl_c_clears_the_line_then_warns_then_quits_with_130(editor):
    with Window(80, *QUIET, editor=editor) as window:
        window.ready()
        window.type("T never sent")
        window.shows("never sent")
        window.type("\x03")
        window.until(lambda lines: lines[-1] == ">")
        window.type("\x03")
        window.until(lambda lines: "Ctrl-C again or Q to quit" in lines and lines[-1] == ">")
        window.type("T half")
        window.shows("T half")
        window.type("\x03")
        window.until(lambda lines: lines[-1] == ">")
        window.type("\x03")
        window.until(lambda lines: lines.count("Ctrl-C again or Q to quit") == 2 and lines[-1] == ">")
        window.type("\x03")
        assert window.end() == 130
        assert b"Traceback" not in window.raw


@needs_pty
@pytest.mark.parametrize("editor, how", [
    ("readline", "Q"), ("readline", "Ctrl-D"), ("readline", "SIGTERM"), ("readline", "SIGHUP"), ("keys", "Ctrl-D"),
    ("keys", "SIGTERM")])
def test_every_way_to_quit_is_exit_code_0(editor, how):
    with Window(80, *QUIET, editor=editor) as window:
        window.ready()
        if how.startswith("SIG"):
            window.process.send_signal(getattr(signal, how))
        else:
            window.type("Q\r" if how == "Q" else "\x04")
        assert window.end() == 0


@needs_pty
@both_editors
@pytest.mark.parametrize("is_typing", [True, False][: amount(2, 1)])
def test_a_closed_terminal_ends_it_as_q_does(editor, is_typing, tmp_path):
    told = tmp_path / "left"
    with Window(80, *QUIET, editor=editor, FAKE_LEAVE=str(told)) as window:
        window.ready()
        window.type("T half a line" if is_typing else "")
        window.shows("T half" if is_typing else ">")
        os.close(window.master)
        window.master = os.dup(window.control)          # for __exit__
        assert window.process.wait(8) == 0
        assert told.read_text() == "left properly"


@needs_pty
@both_editors
def test_a_key_that_comes_together_with_a_signal_does_no_harm(editor):
    with Window(80, *QUIET, editor=editor) as window:
        window.ready()
        window.process.send_signal(signal.SIGSTOP)      # so that it finds both at the same moment
        window.type("x")
        window.process.send_signal(signal.SIGTERM)
        window.process.send_signal(signal.SIGCONT)
        assert window.end() == 0


@needs_pty
def test_ctrl_c_while_another_network_is_tried_stays_in_the_present_one():
    with Window(80, *QUIET) as window:
        window.ready()
        window.type("C 6667\r")
        window.until(lambda lines: "> C 6667" in lines and lines[-1] == ">")
        window.type("\x03")
        told = "* the other network is not tried any more; you stay where you are"
        lines = window.until(lambda lines: told in lines and lines[-1] == ">")
        assert "Ctrl-C again or Q to quit" not in lines
        window.type("\x03")
        window.shows("Ctrl-C again or Q to quit")
        window.type("\x03")
        assert window.end() == 130


@needs_pty
def test_ctrl_c_while_leaving_ends_it_at_once():
    with Window(80, *QUIET, FAKE_LEAVE="never") as window:
        window.ready()
        window.type("Q\r")
        window.shows("* leaving")
        began = time.monotonic()
        window.type("\x03")
        assert window.end() == 130
        assert time.monotonic() - began < LEAVE_SECONDS / 2


@needs_pty
def test_questions_have_defaults_and_ask_again():
    with Window(80) as window:
        window.shows("IP [search this network]:")
        window.type("ten\r")
        window.shows('"ten" is not an IP address like 10.0.0.7.')
        window.type("10.9.9.9\r")
        window.shows("Port [6020]:")
        window.type("80\r")
        window.shows("A port is a number from 1024 to 65535.")
        window.type("\r")
        window.shows("Name [")
        window.type("    \r")
        window.shows("A name has 1 to 32 characters.")
        window.type("ana\r")
        lines = window.until(lambda lines: lines[-1] == "IP [search this network]:")
        first = lines.index("Nobody answers at 10.9.9.9:6020, and this machine cannot be the supernode")
        assert lines[first + 1] == "  there."  # broken between words, and no word in two
        window.type("\r")
        window.until(lambda lines: lines[-1].startswith("Port [6020]:"))
        window.type("\r")
        lines = window.shows("* supernode at 127.0.0.1:6020 (nobody here yet; you are the first).", "? lists")
        assert lines.count("Port [6020]:") == 2 and lines.count("IP [search this network]:") == 1
        assert sum(line.startswith("* Nobody else on this LAN. To a network beyond it: C and") for line in lines) == 1
        window.type("\r\r")
        window.until(lambda lines: lines[-3:] == [">"] * 3)
        window.type("\x1b[A")                           # the answers are not in the history of commands
        window.tell(Joined("bo", 2))
        window.until(lambda lines: lines[-2:] == ["* bo joined (2 nodes)", ">"])


@needs_pty
def test_a_taken_port_is_asked_for_again_and_nothing_else_is():
    with Window(80) as window:
        for question, answer in (("IP [", ""), ("Port [6020]:", "7777"), ("Name [", "ana")):
            window.until(lambda lines, question=question: lines and lines[-1].startswith(question))
            window.type(answer + "\r")
        window.until(lambda lines: lines[-1] == "Port [7777]:")
        window.type("7778\r")
        window.shows("* supernode at")


@needs_pty
def test_colour_is_for_terminals_without_no_color():
    for env, has_colour in (({}, True), ({"NO_COLOR": "1"}, False)):
        with Window(80, *QUIET, **env) as window:
            window.ready()
            assert (b"\x1b[36m" in window.raw) is has_colour


@needs_pty
def test_hostile_chat_sends_no_control_to_the_terminal():
    with Window(80, *QUIET, NO_COLOR="1") as window:
        window.ready()
        seen = len(window.raw)
        window.tell(chat(HOSTILE, HOSTILE + "\u00e9" * 3 + "end"))
        window.shows("end")
        text = window.raw[seen:].decode()
        assert not re.search("[\x00-\x08\x0b\x0c\x0e-\x1a\x7f\x80-\x9f\u202e\u200b]", text)
        assert set(re.findall(r"\x1b\[?[^A-Za-z]*[A-Za-z]", text)) <= {"\x1b[J", "\x1b[K", "\x1b[A", "\x1b[C"}


# ---------------------------------------------------------------- the program itself

@needs_pty
def test_two_programs_find_each_other_and_a_file_travels(tmp_path):
    port, content = str(free_port()), os.urandom(300_000)
    program = [sys.executable, str(HOME / "node_client.py"), "--ip", "127.0.0.1", "--port", port]
    for name in ("ana", "bo"):
        (tmp_path / name).mkdir()
    (tmp_path / "ana" / "shared").mkdir()
    (tmp_path / "ana" / "shared" / "lab.bin").write_bytes(content)
    ana = subprocess.Popen([*program, "--name", "ana"], cwd=tmp_path / "ana", stdin=subprocess.PIPE,
                           stdout=subprocess.PIPE, text=True)
    with ana:
        assert ana.stdout is not None and ana.stdin is not None
        assert ana.stdout.readline() == "Looking for a network ...\n"
        assert ana.stdout.readline().startswith(f"* supernode at 127.0.0.1:{port} (nobody here yet")
        bo = subprocess.run([*program, "--name", "bo"], cwd=tmp_path / "bo", capture_output=True, timeout=20,
                            input=b"G\nT hello\nR lab.bin\nQ\n")
        lines = bo.stdout.decode().splitlines()
        assert (bo.returncode, bo.stderr) == (0, b"")
        assert lines[1] == f"* joined ana's network at 127.0.0.1:{port}: 2 nodes. Folder: shared"
        assert lines[2] == network_key.OPEN_NETWORK
        assert "  1  lab.bin  300.0 kB  ana  1 source" in lines
        done = next(line for line in lines if line.startswith("OK lab.bin  300.0 kB in 0:0"))
        assert done.endswith(f"-> {os.path.join('shared', 'lab.bin')}")
        assert (tmp_path / "bo" / "shared" / "lab.bin").read_bytes() == content
        ana.send_signal(signal.SIGTERM)
        told = ana.stdout.read().splitlines()
        assert ana.wait(10) == 0
    assert told[:2] == [network_key.OPEN_NETWORK, "* bo joined (2 nodes)"] and told[-1] == "* bo left (1 node)"
    assert "<bo> hello" in told
    assert any(line.startswith("OK sent lab.bin to bo  300.0 kB in 0:0") for line in told)
    assert re.findall("id ([0-9a-f]{8})", done) == re.findall("id ([0-9a-f]{8})", " ".join(told))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", int(port)))             # given free
