"""What a node says of what it shares: remembered from run to run, counted, hashed; and what lies half here."""

from __future__ import annotations

import argparse
import json
import os
import stat

import pytest

from disk import remembered
from disk.remembered import Remembered, is_delicate
from disk.scanner import Scanner
from node_tests.stage.lab import MIB, content
from node_tests.stage.window import quiet_session, script
from prompt.lines import line_for, unfinished_rows
from prompt.paths import danger_of
from prompt.standing import LINES_SECONDS, LONG_SECONDS, Hashing, folder_text
from protocol.content.names import HIDDEN
from protocol.content.parts import PartInfo
from protocol.content.shares import Standing
from protocol.content.troubles import LibraryError
from protocol.exchange.orders import unfinished_of
from protocol.results import HalfHere, Progress, Stopped


@pytest.fixture
def places(tmp_path):
    """A shared folder, and things that lie elsewhere."""
    folder = os.path.realpath(tmp_path / "shared")
    os.makedirs(os.path.join(folder, HIDDEN))
    for name in ("notes.txt", "talk.txt"):
        (tmp_path / name).write_bytes(name.encode())
    return folder, os.path.realpath(tmp_path)


def list_of(folder):
    return os.path.join(folder, HIDDEN, remembered.SHARES_FILE)


def put(folder, text, mode=0o600):
    with open(list_of(folder), "w", encoding="utf-8") as file:
        file.write(text)
    os.chmod(list_of(folder), mode)


def scanned(folder):
    """Names and warnings of a run's first pass."""
    scanner = Scanner(folder)
    result = scanner.run_once()
    scanner.close()
    return sorted(file.name for file in result.added), result.warnings


# ---- from run to run


def test_what_b_shared_is_shared_again_and_it_is_said(places):
    folder, elsewhere = places
    scanner = Scanner(folder)
    for name in ("notes.txt", "talk.txt"):
        scanner.add_path(os.path.join(elsewhere, name))
    assert not scanner.run_once().warnings
    scanner.close()
    notes, talk = (os.path.join(elsewhere, name) for name in ("notes.txt", "talk.txt"))
    assert scanned(folder) == (["notes.txt", "talk.txt"], [f'shared again, as B had it: "{notes}", "{talk}"'])
    os.unlink(talk)
    assert scanned(folder) == (["notes.txt"], [f'shared again, as B had it: "{notes}"',
                                               f'not there now, and shared again when it is: "{talk}"'])
    with open(talk, "w", encoding="utf-8") as file:
        file.write("back")
    assert scanned(folder)[0] == ["notes.txt", "talk.txt"]  # a disk that was not in the drive


def test_what_comes_back_while_the_node_runs_is_shared(places):
    folder, elsewhere = places
    path = os.path.join(elsewhere, "later.txt")
    put(folder, json.dumps({"shared": [path]}))
    scanner = Scanner(folder)
    assert "not there now" in scanner.run_once().warnings[0]
    with open(path, "w", encoding="utf-8") as file:
        file.write("here")
    assert [file.name for file in scanner.run_once().added] == ["later.txt"]
    scanner.close()


@pytest.mark.skipif(os.name == "nt", reason="who may make links there is another matter")
def test_what_comes_back_as_something_else_is_looked_at_again(places):
    folder, elsewhere = places
    path = os.path.join(elsewhere, "later", "talk.txt")
    put(folder, json.dumps({"shared": [path, os.path.join(elsewhere, ".ssh", "id")]}))
    scanner = Scanner(folder)
    assert ["by itself" in line for line in scanner.run_once().warnings] == [False, True]  # though it is not there
    os.symlink(elsewhere, os.path.join(elsewhere, "later"))
    result = scanner.run_once()
    assert not result.added and "is a link now" in result.warnings[0] and not scanner.run_once().warnings
    scanner.close()
    assert scanned(folder) == ([], [])  # and is forgotten


def test_what_cannot_be_remembered_is_told(places, monkeypatch):
    folder, elsewhere = places
    monkeypatch.setattr(remembered, "write_anew", lambda *_, **__: (_ for _ in ()).throw(OSError(28, "full")))
    scanner = Scanner(folder)
    scanner.add_path(os.path.join(elsewhere, "notes.txt"))
    assert scanner.run_once().warnings == ["what B shares lasts until Q: it cannot be noted in the folder"]
    assert scanner.run_once().warnings == []
    scanner.close()


@pytest.mark.parametrize("text", [
    "", "{", "[]", '{"shared": 5}', '{"shared": [5]}', '{"shared": ["notes.txt"]}', '{"shared": ["/a/../etc"]}',
    '{"shared": ["/a\\u0000b"]}', "[" * 100_000, json.dumps({"shared": ["/x"] * 1001}), '{"shared": null}', "\x00\xff",
    '{"other": []}'])
def test_a_damaged_list_shares_nothing_and_is_said(places, text):
    folder, _ = places
    put(folder, text)
    names, warnings = scanned(folder)
    assert names == [] and len(warnings) == 1 and "is damaged" in warnings[0]


@pytest.mark.skipif(os.name == "nt", reason="there are no modes")
def test_a_list_that_others_can_write_is_not_read(places):
    folder, elsewhere = places
    put(folder, json.dumps({"shared": [os.path.join(elsewhere, "notes.txt")]}), 0o666)
    names, warnings = scanned(folder)
    assert names == [] and "can be written by others" in warnings[0]
    os.unlink(list_of(folder))
    os.symlink(os.path.join(elsewhere, "notes.txt"), list_of(folder))
    assert scanned(folder) == ([], [])  # a link is no list


def test_a_hostile_list_shares_no_secrets(places, monkeypatch):
    folder, elsewhere = places
    home = os.path.join(elsewhere, "home", "bo")
    os.makedirs(os.path.join(home, ".ssh"))
    os.makedirs(os.path.join(home, "talks"))
    monkeypatch.setenv("HOME", home)
    monkeypatch.setenv("USERPROFILE", home)
    for path in (os.sep, home, os.path.dirname(home), os.path.join(home, ".ssh"), os.path.join(home, ".ssh", "id")):
        assert is_delicate(path), path
    assert not is_delicate(os.path.join(home, "talks")) and not is_delicate(os.path.join(elsewhere, "notes.txt"))
    if os.name != "nt":
        assert is_delicate("/etc") and is_delicate("/etc/passwd") and is_delicate("/root/x")
        os.symlink(os.path.join(home, ".ssh"), os.path.join(elsewhere, "innocent"))
        put(folder, json.dumps({"shared": [os.path.join(elsewhere, "innocent"), os.path.join(home, ".ssh"), folder]}))
        names, warnings = scanned(folder)
        assert names == [] and ["is a link now" in warnings[0], "by itself: B shares it" in warnings[1],
                                "is shared already" in warnings[2]] == [True] * 3


@pytest.mark.skipif(os.name == "nt", reason="such names are names there")
def test_a_list_with_half_a_character_is_damaged(places):
    folder, _ = places
    put(folder, '{"shared": ["/a\\ud800b"]}')
    names, warnings = scanned(folder)
    assert names == [] and len(warnings) == 1 and "is damaged" in warnings[0]


def test_what_b_asks_about_is_not_shared_again_by_itself_though_it_is_not_hidden(places, monkeypatch):
    folder, elsewhere = places
    home = os.path.join(elsewhere, "home")
    os.makedirs(home)
    for variable in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(variable, home)
    key, later, notes = (os.path.join(elsewhere, name) for name in ("id_rsa", "id_dsa", "notes.txt"))
    with open(key, "wb") as file:
        file.write(b"key")
    put(folder, json.dumps({"shared": [key, later, notes]}))
    scanner = Scanner(folder, danger_of=danger_of)
    result = scanner.run_once()
    assert [file.name for file in result.added] == ["notes.txt"]
    assert f'"{key}" is not shared again by itself: B shares it.' in result.warnings
    with open(later, "wb") as file:  # it was not there at first
        file.write(b"key")
    result = scanner.run_once()
    assert result.added == [] and result.warnings == [f'"{later}" is not shared again by itself: B shares it.']
    scanner.close()


def test_any_list_at_all_is_read_without_harm(places):
    folder, elsewhere = places
    whole = json.dumps({"shared": [os.path.join(elsewhere, "notes.txt")]})
    for at in range(len(whole)):
        for changed in (whole[:at], whole[:at] + "\\" + whole[at + 1 :], whole[:at] + '"' + whole[at:]):
            put(folder, changed)

            def refuse(path):
                raise LibraryError(0, path)
            found = Remembered(folder).recall(refuse)
            assert not found.shared


def test_the_list_is_private(places):
    folder, elsewhere = places
    assert Remembered(folder).keep([os.path.join(elsewhere, "notes.txt")])
    if os.name != "nt":
        assert stat.S_IMODE(os.stat(list_of(folder)).st_mode) & 0o022 == 0
    assert Remembered(folder).keep([]) and not Remembered(folder).keep(["/x"] * 1001)


# ---- how much, and how far


def test_the_scanner_counts_what_is_shared_and_what_waits(places):
    folder, elsewhere = places
    for number in range(3):
        with open(os.path.join(folder, f"{number}.bin"), "wb") as file:
            file.write(content(3 * MIB))
    seen = []
    ticks = iter(range(10**6))  # every look at the clock is time for a rest
    scanner = Scanner(folder, clock=lambda: float(next(ticks)), rest=lambda seconds: seen.append(scanner.standing()))
    assert scanner.standing() is None
    while scanner.run_once() or scanner.next_pass_in() == 0.0:
        pass
    assert scanner.standing() == Standing(3, 9 * MIB, 0, 0)
    waiting = [one.waiting_size for one in seen if one is not None]
    assert waiting == sorted(waiting, reverse=True) and waiting[0] == 9 * MIB and len(set(waiting)) > 3
    scanner.close()


def test_the_first_line_says_how_much_is_shared():
    assert folder_text("shared", None) == folder_text("shared", Standing(0, 0, 0, 0)) == "shared"
    assert folder_text("shared", Standing(12, 1_200_000_000, 3, 9)) == "shared (12 files, 1.2 GB; hashing 3)"
    assert folder_text("shared", Standing(1, 5, 0, 0)) == "shared (1 file, 5 B)"
    lines, code = script("Q\n", FAKE_STANDING="12 1200000000 3 5")
    assert lines[-2].endswith("you are the first). Folder: shared (12 files, 1.2 GB; hashing 3)") and code == 0


def test_long_hashing_shows_how_far_it_is_and_when_it_is_over():
    hashing = Hashing()
    assert hashing.line(Standing(9, 900, 9, 900), 0.0, True) == ""
    assert hashing.progress(Standing(9, 900, 9, 900), LONG_SECONDS - 0.1) == ""
    assert hashing.progress(Standing(9, 900, 5, 450), LONG_SECONDS) == "hashing 5 files  50%  450/900 B"
    assert hashing.line(Standing(9, 900, 5, 450), LINES_SECONDS, False) == "* hashing 5 files  50%  450/900 B"
    assert hashing.line(Standing(9, 900, 4, 360), LINES_SECONDS + 1, False) == ""
    assert hashing.line(Standing(9, 900, 0, 0), LINES_SECONDS + 2, False) == "* hashed 9 files, 900 B: shared now"
    assert hashing.line(Standing(9, 900, 0, 0), LINES_SECONDS + 3, False) == ""
    for waiting, now in ((1, 100.0), (0, 101.0)):  # a short bout
        assert hashing.line(Standing(10, 905, waiting, 5 * waiting), now, True) == ""


def test_hashing_stands_on_the_progress_line():
    now, shown, standing = [0.0], [], [Standing(3, 900, 2, 450)]
    session = quiet_session(clock=lambda: now[0])
    session.terminal.can_redraw, session.terminal.columns = True, lambda: 80
    session.terminal.show_progress = shown.append
    session.node = argparse.Namespace(standing=lambda: standing[0])
    for now[0] in (1.0, 2.0 + LONG_SECONDS):
        session.console.draw()
    standing[0] = Standing(3, 900, 0, 0)
    now[0] += 1.0
    session.console.draw()
    assert shown == ["", "hashing 2 files  0%  0/450 B", ""]
    assert session.said[-1] == "* hashed 2 files, 450 B: shared now"


# ---- what lies half here


def test_who_leaves_in_mid_download_says_so_and_the_next_start_tells_what_lies_half_here(lab):
    lab.node("ana")
    lab.node("bo", shared={"run9.tif": content(40 * MIB)}, disk_delay=0.05)
    cy = lab.node("cy")
    assert cy.fetch("run9.tif").kind == "started"
    assert lab.world.run_until(lambda: any(event.row.verified > 10 * MIB for event in cy.told(Progress)), 60)
    lying = []
    cy.do("unfinished", lab.world.now, lying.append)
    lab.run(0.1)
    assert lying == [[]]  # it is on its way
    cy.quit()
    (stopped,) = cy.told(Stopped)
    percent = stopped.verified * 100 // stopped.size
    assert line_for(stopped, "").startswith(f"!! run9.tif  stopped at {percent}%: this node ends. ")
    assert line_for(stopped, "").endswith(" kept; R run9.tif goes on")
    again = lab.node("cy")
    assert [line_for(event, "") for event in again.told(HalfHere)] == [
        f"* run9.tif {percent}% lies half here: R goes on, V lists what does"]
    again.do("unfinished", lab.world.now, lying.append)
    lab.run(0.1)
    assert unfinished_rows(lying[-1])[0][::4] == ("run9.tif", "R run9.tif goes on")
    assert again.fetched("run9.tif").moved < 32 * MIB
    again.do("unfinished", lab.world.now, lying.append)
    lab.run(0.1)
    assert lying[-1] == []


def test_many_unfinished_files_make_one_line():
    parts = [PartInfo(bytes([number]), 100, 25, f"f/{number}\x1b", False) for number in range(30)]
    parts += [PartInfo(b"x", 100, 0, "nothing", False), PartInfo(b"y", 100, 50, "listing", True)]
    left = unfinished_of(parts, {bytes([0])})
    assert len(left) == 29
    told = HalfHere(tuple((part.label, part.verified_bytes, part.size) for part in left))
    assert line_for(told, "") == ("* f/1\\u{1b} 25%, f/10\\u{1b} 25%, f/11\\u{1b} 25% and 26 more lie half here: "
                                  "R goes on, V lists what does")
    rows = unfinished_rows(left)
    assert len(rows) == 21 and rows[-1][0] == "and 9 more" and rows[0][1::3] == ("half here", "R f goes on")
