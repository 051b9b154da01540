"""One line instead of a prompt: `get`, `share`, `list`, `who`, `say`, `doctor`, over a fake node and as programs."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from node_tests import test_doctor
from node_tests.stage.amounts import amount
from node_tests.stage.running import PATIENCE, ROOT, Running, free_port
from prompt import json_lines, verbs
from prompt.arguments import check_limit, limits_of
from prompt.oneshot import OneShot
from prompt.output import Output
from prompt.settings import NodeError, parse_flags
from protocol import results
from protocol.content.troubles import FolderInUse
from protocol.facts import Health, Reached

ID = bytes(range(32))
ENTRY = results.ListEntry(1, "lab.iso", 4000, ID, holders=("ana",), sources=1, holder_ids=(b"ana",))
FOLDER = ENTRY._replace(number=2, name="photos", is_folder=True, file_count=12)
DONE = results.DownloadDone(1, "lab.iso", 4000, 2.0, ("ana",), ID, "lab.iso", None, False, 4000)
STOPPED = results.Stopped(1, "lab.iso", 1000, 4000, "ana left and nobody else has it", True)
SENT = results.UploadDone("lab.iso", 4000, 1.0, "bo", ID)
ME = results.MemberRow("me", ("10.0.0.8", 6021), "member", True, 1, None, None, True)
ANA = ME._replace(label="ana", address=("10.0.0.7", 6020), role="supernode", is_me=False, round_trip=0.001)


class FakePeer:
    """Answers at once; `ends` is what a transfer leads to."""

    node_id = b"me"

    def __init__(self, notify, files=(ENTRY,), ends=(DONE,), fetched="started", found=None):
        self.found, self.fetching = found, None  # by name, where not each name finds all files
        self.notify, self.files, self.ends, self.fetched = notify, files, ends, fetched
        self.shared, self.said, self.has_left, self.limits = [], [], False, None

    def leave(self, now, done):
        self.has_left = True
        done()

    def list_files(self, pattern, now, done):
        done(self.files)

    def find(self, name, now, done):
        done(self.files if self.found is None else self.found.get(name, ()))

    def fetch(self, entry, now, done):
        self.fetching = entry
        done(results.FetchAnswer(self.fetched, (entry,), 1, "lab.iso"))
        for event in self.ends if self.fetched == "started" else ():
            self.notify(event)

    def stream(self, entry, taker, now, done):
        self.fetch(entry, now, done)

    def members(self, now):
        return [ANA, ME]

    def health(self, now):
        return test_doctor.HEALTH

    def say(self, text, now):
        self.said.append(text)
        self.notify(results.ChatReceived("me", text, True))
        return text != "unsayable"

    def share(self, path, now, done):
        self.shared.append(path)
        done(f"* {path} is shared")

    def shares(self):
        for event in self.ends:
            self.notify(event)
        return [ENTRY._replace(holders=("me",), holder_ids=(b"me",))]


class FakeNode:
    is_port_own, is_closed = True, False
    check_code = ""
    facts = test_doctor.FACTS

    def __init__(self, peer):
        self.peer = peer

    def call(self, closure):
        closure(0.0)

    def look_now(self, then):
        then()

    def examine(self, then, folder):
        self.examined = folder
        then(self.facts)

    def close(self, timeout):
        self.is_closed = True


class Play:
    """One line over a fake node: its exit code, what it told, and the node."""

    def __init__(self, capsys, *words, outcome="joined", error=None, **peer):
        self.node = self.settings = None
        once = OneShot(parse_flags(list(words)))
        self.code = once.run(lambda settings, notify: self._open(settings, notify, outcome, error, peer))
        self.out, self.err = capsys.readouterr()
        self.objects = [json.loads(line) for line in self.out.splitlines()] if "--json" in words else []

    def _open(self, settings, notify, outcome, error, peer):
        self.settings = settings
        if error is not None:
            raise error
        facts = peer.pop("facts", test_doctor.FACTS)
        self.node = FakeNode(FakePeer(notify, **peer))
        self.node.facts = facts
        notify(results.Outcome(outcome, settings.ip and (settings.ip, settings.port), "ana", 2, ""))
        return self.node


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


# ---- exit codes


@pytest.mark.parametrize("code, words, play", [
    (0, ["get", "lab.iso"], {}),
    (0, ["get", "lab.iso"], {"fetched": "already here"}),
    (0, ["list"], {}),
    (0, ["list"], {"files": ()}),
    (0, ["who"], {}),
    (0, ["say", "hello", "all"], {}),
    (0, ["doctor"], {}),
    (0, ["doctor", "--json"], {"outcome": "nobody"}),
    (1, ["doctor"], {"facts": test_doctor.OUTSIDE}),
    (1, ["doctor"], {"error": NodeError("Cannot use the folder.", 2, ())}),
    (1, ["say", "unsayable"], {}),
    (1, ["get", "lab.iso"], {"ends": (STOPPED,)}),
    (2, ["get", "iso"], {"files": (ENTRY, ENTRY._replace(name="other.iso"))}),
    (2, ["get", "photos", "-"], {"files": (FOLDER,)}),
    (2, ["get", "lab.iso", "-", "--json"], {}),
    (2, ["get", "lab.iso"], {"error": NodeError("Cannot use the folder.", 2, ())}),
    (2, ["get", ""], {}),
    (2, ["get", " "], {}),
    (2, ["share", ""], {}),
    (2, ["say", ""], {}),
    (2, ["say", "x" * 2049], {}),
    (3, ["list"], {"outcome": "nobody"}),
    (3, ["who", "--ip", "10.0.0.7"], {"outcome": "nobody"}),
    (3, ["get", "lab.iso"], {"outcome": "refused"}),
    (3, ["get", "lab.iso"], {"files": None}),
    (3, ["get", "lab.iso"], {"fetched": "no network"}),
    (3, ["list"], {"error": NodeError("No network can be used here.")}),
    (4, ["get", "lab.iso"], {"files": ()}),
    (4, ["list", "*.pdf"], {"files": ()}),
    (4, ["share", "no such file"], {}),
    (6, ["get", "lab.iso"], {"ends": (STOPPED._replace(verified=0, kept=False, is_full=True),)}),
    (6, ["get", "lab.iso"], {"error": MemoryError()}),
    (6, ["get", "lab.iso"], {"error": RuntimeError("can't start new thread")}),
])  # fmt: skip
def test_each_ending_has_its_exit_code_and_leaves_nothing_behind(capsys, tmp_path, code, words, play):
    ended = Play(capsys, *words, **play)
    assert ended.code == code, (ended.out, ended.err)
    assert not code or "!! " in ended.err + ended.out or '"error"' in ended.out
    assert ended.node is None or (ended.node.is_closed and ended.node.peer.has_left)
    assert os.listdir(tmp_path) == []
    assert ended.settings is None or not os.path.exists(ended.settings.visit.scans or ended.settings.folder)


def test_a_doctor_reports_where_there_is_no_network_too_and_looks_at_the_folder_here(capsys, tmp_path):
    alone = test_doctor.FACTS._replace(health=Health(), target="10.0.0.7")
    ended = Play(capsys, "doctor", "--ip", "10.0.0.7", "--json", outcome="nobody", facts=alone)
    network, *others = ended.objects
    assert ended.code == 1 and network["text"] == "Nobody answers at 10.0.0.7:6020" and not network["ok"]
    assert len(others) == 8 and all(each["ok"] for each in others)
    assert ended.node.examined == str(tmp_path)
    assert ended.settings.visit.takes_port and not ended.settings.visit.may_found


def test_a_doctor_waits_until_the_path_is_measured_and_somebody_has_tried(capsys):
    known = test_doctor.HEALTH
    assert verbs.is_settled(known) and verbs.is_settled(known._replace(reached=None))
    for early in (None, known._replace(reached=Reached()), known._replace(path=None), known._replace(is_joined=False),
                  known._replace(path=known.path._replace(round_trip=None))):  # fmt: skip
        assert not verbs.is_settled(early)


def test_where_a_thread_has_no_memory_nobody_waits_for_it(capsys, monkeypatch):
    from node_client import main

    def open_node(settings, notify):
        try:
            raise MemoryError
        except MemoryError:
            logging.getLogger("lab.node").exception("an event was dropped")     # and with it the answer
        node = FakeNode(FakePeer(notify))
        notify(results.Outcome("joined", ("10.0.0.7", 6020), "ana", 2, ""))
        node.call = lambda closure: None
        node.close = lambda timeout: None
        return node

    monkeypatch.setattr("prompt.oneshot.LEAVE_SECONDS", 0.0)
    monkeypatch.setattr("prompt.signals.set_up", lambda on_signal: None)
    assert main(["list"], open_node) == 6
    assert "Too little memory" in capsys.readouterr().err


def test_where_no_temporary_folder_can_be_made_that_is_said(capsys, monkeypatch):
    def refused(prefix):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("tempfile.mkdtemp", refused)
    ended = Play(capsys, "list")
    assert (ended.code, ended.err) == (6, "!! No temporary folder can be made: read-only file system.\n")


def test_a_folder_of_which_files_were_left_out_has_an_exit_code_of_its_own(capsys):
    done = results.DownloadDone(*DONE)._replace(left_out=(results.LeftOut("link", 1), results.LeftOut("deep", 1)))
    once = OneShot(parse_flags(["get", "photos"]))
    once.ending = done
    assert verbs.code_of_ending(once) == 5 and json_lines.OBJECTS[results.DownloadDone](done)["left_out"] == 2


def test_a_download_that_waits_a_minute_for_room_on_the_disk_ends(capsys):
    once, now = OneShot(parse_flags(["get", "lab.iso"])), [0.0]
    once.clock = lambda: now[0]
    once.on_event(results.Paused(1, "lab.iso", 1000, 4000, 3000, 10))
    assert not verbs.has_waited_for_room(once)
    now[0] = 61.0
    assert verbs.has_waited_for_room(once)
    once.on_event(results.Resumed(1, "lab.iso"))
    assert not verbs.has_waited_for_room(once)


def test_a_download_to_which_nothing_comes_says_so_once_until_something_comes(capsys, monkeypatch):
    once, now = OneShot(parse_flags(["get", "lab.iso"])), [0.0]
    once.clock = lambda: now[0]
    coming = {3: (1000, "waiting for ana"), 30: (1000, "receiving"), 50: (2000, "queued 2nd")}  # at these seconds

    def wait(is_met, seconds):
        now[0] += seconds
        if now[0] in coming:
            verified, state = coming[now[0]]
            once.on_event(results.Progress(ROW._replace(verified=verified, state=state)))
        return now[0] >= 90

    once.wait = wait
    verbs._await_end(once)
    told = "* lab.iso  nothing has come for 8 s ({}); still trying\n"
    assert capsys.readouterr().err == told.format("waiting for ana") + told.format("queued 2nd")


def test_a_signal_ends_it_properly_with_its_exit_code(capsys, caplog):
    caplog.set_level(logging.INFO)
    for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 1)):
        once = OneShot(parse_flags(["get", "lab.iso"]))

        def open_node(settings, notify, once=once, number=number):
            node = FakeNode(FakePeer(notify, ends=(results.Progress(ROW),)))
            notify(results.Outcome("joined", None, "ana", 2, ""))
            node.peer.fetch = lambda entry, now, done, begin=node.peer.fetch: (
                begin(entry, now, done), once.on_signal(number, None))
            node.peer.leave = lambda now, done: (notify(STOPPED._replace(reason="this node ends")), done())
            return node

        assert once.run(open_node) == code
        assert capsys.readouterr().err == "!! lab.iso  stopped at 25%; the same line goes on with it\n"
        assert f"{signal.Signals(number).name} came" in caplog.text


def test_output_that_takes_no_more_is_told(capsys, monkeypatch):
    class Full:
        def write(self, text):
            raise OSError(28, "No space left on device")

        def fileno(self):
            return 1

    monkeypatch.setattr(sys, "stdout", Full())
    ended = Play(capsys, "list")
    assert ended.code == 6 and "Standard output takes no more: no space left on device." in ended.err


@pytest.mark.parametrize("columns, width", [(0, None), (3, 9), (80, 79)])
def test_a_terminal_that_does_not_say_how_wide_it_is_shows_whole_rows(columns, width, monkeypatch):
    """In one of no size, as `script` and containers make them, every row was cut to nothing."""
    class Terminal:
        def fileno(self):
            return 1

        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stdout", Terminal())
    monkeypatch.setattr(os, "get_terminal_size", lambda descriptor: os.terminal_size((columns, 24)))
    assert Output(False, False).width() == width


# ---- what is told


ROW = results.TransferRow(1, "R", "lab.iso", "receiving", 1000, 4000, 500.0, 6.0, ("ana",))
EVENTS = [results.Progress(ROW), DONE, STOPPED, SENT, results.Paused(1, "lab.iso", 1, 4000, 3000, 10),
          results.Resumed(1, "lab.iso"), results.HalfHere((("a\x1b", 1, 2),)),
          results.Notice("a\x1b[2Jb \u202e")]  # fmt: skip


def keys_in_the_readme():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    table = text.split("With `--json`")[1].split("## ")[0]
    return set(re.findall(r"`([a-z_]+)`", table))


def test_every_object_is_a_line_of_ascii_whose_keys_the_readme_names():
    objects = [json_lines.object_of(event) for event in EVENTS]
    objects += [json_lines.file_object(ENTRY), json_lines.member_object(ANA)]
    assert json_lines.member_object(ANA._replace(heard_ago=1.23456))["heard_ago"] == 1.2
    assert json_lines.member_object(ANA._replace(heard_ago=None))["heard_ago"] is None
    for told in objects:
        line = json_lines.line_of(told)
        assert "\n" not in line and line.isascii() and json.loads(line) == told
        assert set(told) | {told.get("event", "event")} <= keys_in_the_readme()
    assert json_lines.object_of(results.Joined("bo", 3)) is None


def test_json_of_each_verb(capsys):
    assert Play(capsys, "list", "--json").objects == [json_lines.file_object(ENTRY)]
    assert Play(capsys, "who", "--json").objects == [json_lines.member_object(ANA)]  # and not of who asks
    assert Play(capsys, "say", "--json", "hi", "all").objects == [{"event": "said", "text": "hi all"}]
    got = Play(capsys, "get", "lab.iso", "--json", ends=(results.Progress(ROW), DONE))
    assert [told["event"] for told in got.objects] == ["progress", "done"]
    failed = Play(capsys, "get", "lab.iso", "--json", files=())
    assert failed.objects == [{"event": "error", "code": 4, "reason": "lab.iso  nobody here has it"}]


def test_results_go_to_standard_output_and_all_else_to_standard_error(capsys):
    ended = Play(capsys, "get", "lab.iso", ends=(results.Progress(ROW), results.Notice("slow"), DONE))
    assert ended.out.startswith("OK lab.iso  4.0 kB") and ended.out.count("\n") == 1
    assert ended.err == "* slow\n"  # no progress where nobody sees it
    assert Play(capsys, "list").out == "lab.iso  4.0 kB  ana  1 source\n"
    stopped = Play(capsys, "get", "lab.iso", ends=(STOPPED,))
    assert stopped.out == "" and stopped.err.endswith("1.0 kB kept; the same line goes on with it\n")


def test_of_a_file_for_standard_output_nothing_is_kept_and_nothing_else_is_said(capfd, tmp_path):
    stopped = Play(capfd, "get", "lab.iso", "-", ends=(STOPPED,))
    assert stopped.err == "!! lab.iso  stopped at 25%: ana left and nobody else has it\n"
    assert stopped.code == 1 and os.listdir(tmp_path) == []


def test_what_goes_wrong_with_one_line_about_the_network_ends_nothing(capsys):
    odd = results.Notice(None)  # nobody tells such a thing
    assert Play(capsys, "get", "lab.iso", ends=(odd, DONE)).code == 0


def test_a_text_is_said_when_it_came_back(capsys, monkeypatch):
    monkeypatch.setattr(verbs, "SCRIPT_SAY_SECONDS", (0.0, 0.0))
    monkeypatch.setattr(FakePeer, "say", lambda self, text, now: True)
    ended = Play(capsys, "say", "hello", "--json")
    assert ended.code == 1 and [told["event"] for told in ended.objects] == ["error"]


# ---- what kind of node it is


def test_only_share_may_open_a_network_and_announces_anything(capsys, tmp_path):
    (tmp_path / "lab.iso").write_bytes(b"")
    for words in (["get", "lab.iso"], ["list"], ["who"], ["say", "x"]):
        visit = Play(capsys, *words).settings.visit
        assert not visit.may_found and not visit.is_sharing
    shared = Play(capsys, "share", "lab.iso", outcome="supernode", ends=(SENT,))
    assert shared.settings.visit.may_found and shared.settings.visit.is_sharing and shared.code == 0
    assert shared.node.peer.shared == [str(tmp_path / "lab.iso")]


def test_keys_and_homes_are_not_shared_where_nobody_can_be_asked(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    (tmp_path / "home" / ".ssh").mkdir(parents=True)
    (tmp_path / "notes").write_bytes(b"")
    for path, why in (("home", "is a whole home folder"), ("home/.ssh", "holds keys or passwords")):
        refused = Play(capsys, "share", "notes", path)
        assert refused.code == 1 and refused.node is None and why in refused.err and "who can be asked" in refused.err
    assert Play(capsys, "share", "notes", ends=(SENT,), outcome="supernode").node.peer.shared == [
        str(tmp_path / "notes")]


def test_what_is_fetched_lands_here_or_where_it_is_told(capsys, tmp_path):
    assert Play(capsys, "get", "lab.iso").settings.folder == os.curdir
    there = Play(capsys, "get", "lab.iso", "--to", str(tmp_path / "new")).settings
    assert there.folder == str(tmp_path / "new") and there.visit.hidden.startswith(".node-get-")
    again, other = Play(capsys, "get", "lab.iso").settings, Play(capsys, "get", "other.iso").settings
    assert again.visit.hidden == there.visit.hidden != other.visit.hidden


def test_what_stands_there_already_is_looked_at_before_anything_is_fetched(capsys, tmp_path):
    assert Play(capsys, "get", "lab.iso").node.peer.shared == []
    (tmp_path / "lab.iso").write_bytes(b"x" * 4000)
    assert Play(capsys, "get", "lab.iso").node.peer.shared == [str(tmp_path / "lab.iso")]


def test_a_name_that_leads_outside_is_not_looked_at(capsys, tmp_path):
    for path in (tmp_path.parent / "outside", tmp_path / "lab.iso"):
        path.write_bytes(b"x" * 4000)
    (tmp_path / ".node").mkdir()
    for name in ("../outside", str(tmp_path / "lab.iso"), ".node", "a/../lab.iso"):
        assert Play(capsys, "get", "x", files=(ENTRY._replace(name=name),)).node.peer.shared == []


@pytest.mark.parametrize("wanted", ["photos", "photos/", "photos/*", "photos/**"])
def test_all_of_a_folder_is_the_folder(capsys, wanted):
    got = Play(capsys, "get", wanted, found={"photos": (FOLDER,)})
    assert got.code == 0 and got.node.peer.fetching == FOLDER


@pytest.mark.parametrize("wanted, told", [
    ("photos/a.jpg", "!! photos/a.jpg  only whole folders are given: get photos"),
    ("photos/*.jpg", "!! photos/*.jpg  only whole folders are given: get photos"),
    ("lab.iso/x", "!! lab.iso/x  nobody here has it"),
    ("other/*", "!! other/*  nobody here has it"),
])  # fmt: skip
def test_a_part_of_a_folder_is_explained_as_R_explains_it(capsys, wanted, told):
    got = Play(capsys, "get", wanted, found={"photos": (FOLDER,), "lab.iso": (ENTRY,)})
    assert got.code == 4 and got.err == told + "\n"


def test_two_of_the_same_at_once_is_told_and_the_state_of_the_first_stays(capsys, tmp_path):
    error = NodeError("in use", 2, ())
    error.__cause__ = FolderInUse("in use")
    hidden = Play(capsys, "get", "lab.iso").settings.visit.hidden
    (tmp_path / hidden).mkdir()
    ended = Play(capsys, "get", "lab.iso", error=error)
    assert ended.code == 2 and "lab.iso is being fetched into . already" in ended.err and (tmp_path / hidden).is_dir()


def test_a_part_stays_for_the_next_time_and_nothing_else_does(capsys, tmp_path):
    hidden = tmp_path / Play(capsys, "get", "lab.iso").settings.visit.hidden
    (hidden / "parts").mkdir(parents=True)
    assert Play(capsys, "get", "lab.iso", ends=(STOPPED,)).code == 1 and not hidden.exists()
    (hidden / "parts").mkdir(parents=True)
    (hidden / "parts" / "some").write_bytes(b"x")
    assert Play(capsys, "get", "lab.iso", ends=(STOPPED,)).code == 1 and hidden.exists()
    assert Play(capsys, "get", "lab.iso").code == 0 and not hidden.exists()


def test_what_lies_half_here_is_told_without_the_commands_of_the_prompt(capsys):
    half, text = results.HalfHere((("lab.iso", 1000, 4000),)), "lab.iso 25% lies half here: this line goes on with it"
    assert Play(capsys, "get", "lab.iso", ends=(half, DONE)).err == f"* {text}\n"
    told = Play(capsys, "get", "lab.iso", "--json", ends=(half, DONE)).objects
    assert told[0] == {"event": "notice", "text": text}


def test_a_share_ends_at_once_when_another_node_has_all_of_it(capsys, tmp_path):
    (tmp_path / "lab.iso").write_bytes(b"")
    ended = Play(capsys, "share", "lab.iso", ends=())
    assert ended.code == 0 and "* ana has lab.iso already" in ended.err


# ---- words and limits


@pytest.mark.parametrize("text, rate", [("5M", 5e6), ("500k", 5e5), (" 1.5g ", 1.5e9), ("off", None), ("0", None)])
def test_a_limit_is_a_number_with_its_unit(text, rate):
    assert check_limit(text) == rate


@pytest.mark.parametrize("text", ["5", "", "M", "-5M", "nanM", "infM", "5 MB/s", "1k", "99999b", "\u0665M x"])
def test_what_is_no_limit_is_told_in_a_sentence(text):
    with pytest.raises(ValueError, match="^A limit is .*[.]$"):
        check_limit(text)


def test_the_limits_command_changes_one_or_both_or_tells():
    assert limits_of("") == {} and limits_of("off") == {"up": None, "down": None}
    assert limits_of("UP 5M") == {"up": 5e6} and limits_of("down off up 1M") == {"down": None, "up": 1e6}
    for text in ("5M", "up", "up 5M down", "sideways 5M"):
        with pytest.raises(ValueError, match="^L is told"):
            limits_of(text)


@pytest.mark.parametrize("words", [["fly"], ["get"], ["get", "a", "b"], ["share"], ["say"], ["list", "a", "b"],
                                   ["--folder", "x", "list"], ["get", "a", "--up", "5"], ["--json"]])  # fmt: skip
def test_wrong_words_end_with_exit_code_2(words, capsys):
    with pytest.raises(SystemExit) as end:
        parse_flags(words)
    assert end.value.code == 2 and "usage: node_client.py" in capsys.readouterr().err


def test_flags_may_stand_before_the_word_and_behind_it():
    before, behind = (parse_flags(words) for words in (
        ["--ip", "10.0.0.7", "--up", "5M", "get", "a"], ["get", "a", "--ip", "10.0.0.7", "--up", "5M"]))
    assert (before.ip, before.up) == (behind.ip, behind.up) == ("10.0.0.7", 5e6)
    assert parse_flags(["list"]).ip is parse_flags([]).ip is False and parse_flags([]).verb is None


# ---- as programs


def call(port, *words, **how):
    command = [sys.executable, str(ROOT / "node_client.py"), words[0], "--ip", "127.0.0.1", "--port", str(port)]
    return subprocess.run([*command, *words[1:]], capture_output=True, timeout=PATIENCE, **how)


def test_a_lab_in_single_lines(tmp_path):
    port, megabytes = free_port(), amount(40, 16)
    data = os.urandom(megabytes * 1_000_000)
    (tmp_path / "lab.iso").write_bytes(data)
    bo = tmp_path / "bo"
    bo.mkdir()
    flags = ("--ip", "127.0.0.1", "--port", port, "--name", "ana")
    with Running("node_client.py", *flags, "share", "lab.iso", "--stay", cwd=tmp_path) as ana:
        ana.expect(r"^\* lab\.iso  %d\.0 MB is shared" % megabytes)
        listed = call(port, "list", "--json", cwd=bo)
        assert listed.returncode == 0, listed
        told = json.loads(listed.stdout)
        assert (told["name"], told["size"], told["holders"]) == ("lab.iso", len(data), ["ana"])
        stream = call(port, "get", "lab.iso", "-", cwd=bo)
        assert (stream.returncode, stream.stdout == data) == (0, True) and os.listdir(bo) == []

        broken_off_is_gone_on_with(port, bo, ana, "%dM" % (megabytes // 2))
        assert (bo / "lab.iso").read_bytes() == data and os.listdir(bo) == ["lab.iso"]
        again = call(port, "get", "lab.iso", cwd=bo)
        assert again.returncode == 0 and b"was here already" in again.stdout and b"B shares" not in again.stderr
        shared = call(port, "share", "lab.iso", cwd=bo)
        assert (shared.returncode, b"* ana has lab.iso already" in shared.stderr) == (0, True), shared
        if os.name != "nt":
            ana.signal(signal.SIGTERM)
            assert ana.end() == 0, ana.story()


def broken_off_is_gone_on_with(port: int, folder: Path, sharer: Running, rate: str) -> None:
    """Ctrl-C in the middle; the same line fetches the rest, and no more."""
    flags = ("--ip", "127.0.0.1", "--port", port, "--json", "--down")
    with Running("node_client.py", "get", "lab.iso", *flags, rate, cwd=folder) as getting:
        getting.expect(r'"verified": [1-9]')
        getting.signal(signal.SIGINT)
        assert getting.end() == 130, getting.story()
    done = call(port, "get", "lab.iso", "--json", cwd=folder)
    assert done.returncode == 0, done
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert told[-1]["event"] == "done" and told[-1]["moved"] < told[-1]["size"]


def test_a_file_from_one_line_to_another_with_no_other_node(tmp_path):
    port, bo = free_port(), tmp_path / "bo"
    bo.mkdir()
    (tmp_path / "notes.txt").write_bytes(b"hello")
    with Running("node_client.py", "share", "notes.txt", "--ip", "127.0.0.1", "--port", port, cwd=tmp_path) as share:
        share.expect(r"^\* notes\.txt  5 B is shared")
        got = call(port, "get", "notes.txt", cwd=bo)
        assert got.returncode == 0 and (bo / "notes.txt").read_bytes() == b"hello"
        assert share.end() == 0, share.story()
        share.expect("^OK sent notes.txt to ")
    assert sorted(os.listdir(tmp_path)) == ["bo", "notes.txt"]


def test_where_no_network_is_none_is_opened(tmp_path):
    alone = call(free_port(), "list", cwd=tmp_path)
    assert alone.returncode == 3 and alone.stdout == b"" and alone.stderr.count(b"\n") == 1
    assert os.listdir(tmp_path) == []


# ---- the doctor, on this machine


def examined(port, cwd, *before):
    """What `doctor --json` tells, by check; its exit code says whether there is a trouble."""
    command = [*before, sys.executable, str(ROOT / "node_client.py"), "doctor", "--json"]
    place = ("--ip", "127.0.0.1", "--port", str(port)) if port else ()
    done = subprocess.run([*command, *place], capture_output=True, timeout=PATIENCE, cwd=cwd)
    objects = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(objects) == 9 and done.returncode == int(not all(each["ok"] for each in objects)), done
    assert os.listdir(cwd) == []
    return {each["check"]: each for each in objects}


def test_a_doctor_beside_a_network_of_this_machine(tmp_path):
    port, here = free_port(), tmp_path / "here"
    here.mkdir()
    flags = ("--ip", "127.0.0.1", "--port", port, "--name", "ana")
    with Running("node_client.py", *flags, cwd=tmp_path) as ana:
        ana.expect("you are the first")
        told = examined(port, here)
        assert (told["network"]["supernode"], told["network"]["nodes"]) == ("ana", 2)
        assert (told["port"]["holder"], told["port"]["ok"]) == ("ana", True) and told["port"]["own"] != port
        assert told["path"]["round_trip"] > 0 and told["path"]["datagram_size"] >= 1200
        assert told["disk"]["folder"] == str(here) and told["disk"]["free"] > 0
        ana.ask("D", rf"^   port      {port} leads to this node$")
        ana.expect(r"^\* (no|\d) trouble")
        ana.type("Q")
        assert ana.end() == 0, ana.story()


def test_a_doctor_names_the_program_that_has_the_port(tmp_path):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        told = examined(port, tmp_path)
        assert "Nobody answers" in told["network"]["text"]
        if sys.platform.startswith("linux"):
            assert not told["port"]["ok"] and told["port"]["pid"] == os.getpid()
            assert "--port" in told["port"]["next"]
    told = examined(port, tmp_path)
    assert told["port"]["ok"] and told["port"]["own"] == port


def test_a_doctor_on_a_machine_without_a_network(tmp_path):
    bare = ["unshare", "-n"] if os.name == "posix" and os.geteuid() == 0 else ["unshare", "-r", "-n"]
    try:
        subprocess.run([*bare, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("network namespaces cannot be made here")
    told = examined(0, tmp_path, *bare)
    assert told["addresses"]["addresses"] == [] and not told["addresses"]["ok"] and told["addresses"]["next"]
    assert (told["network"]["joined"], told["network"]["ok"]) == (False, True)
    assert told["port"]["ok"] and told["path"]["round_trip"] is None
