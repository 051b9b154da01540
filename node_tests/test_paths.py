"""What `B` takes and what it asks about first, and `U`, which takes it back."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from disk.scanner import Scanner
from node_tests.stage.desk import Desk
from node_tests.stage.window import QUIET, Window, both_editors, needs_pty, script
from prompt.paths import danger_of, danger_of_folder, found_paths, why_refused
from protocol.content.troubles import LibraryError

on_unix = pytest.mark.skipif(os.name == "nt", reason="paths of Unix")


@pytest.fixture
def talks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to be in, with two files."""
    for name in ("my talk (1).pdf", "notes.pdf"):
        (tmp_path / name).write_text(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@on_unix
@pytest.mark.parametrize("typed", [
    "my talk (1).pdf", "  my talk (1).pdf ", '"my talk (1).pdf"', "'my talk (1).pdf'", r"my\ talk\ \(1\).pdf",
    "file://{folder}/my%20talk%20(1).pdf", "file://localhost{folder}/my%20talk%20%281%29.pdf",
    "'file:{folder}/my%20talk%20(1).pdf'", "{folder}/my talk (1).pdf", "{folder}/my\\ talk\\ (1).pdf"])
def test_a_path_is_taken_as_it_is_typed_or_as_others_paste_it(talks, typed):
    assert found_paths(typed.format(folder=talks)) == [str(talks / "my talk (1).pdf")]


@on_unix
@pytest.mark.parametrize("typed", [
    "'my talk (1).pdf' notes.pdf", r"my\ talk\ \(1\).pdf notes.pdf", "'my talk (1).pdf' '{folder}/notes.pdf'",
    "{folder}/my talk (1).pdf\nnotes.pdf", "file://{folder}/my%20talk%20(1).pdf file://{folder}/notes.pdf"])
def test_several_may_be_pasted_at_once(talks, typed):
    assert found_paths(typed.format(folder=talks)) == [str(talks / "my talk (1).pdf"), str(talks / "notes.pdf")]


@on_unix
def test_what_is_there_as_it_was_typed_is_meant_as_it_was_typed(talks):
    (talks / r"my\ talk.pdf").write_text("odd")
    (talks / "file:a%20b").write_text("odd")
    for name in (r"my\ talk.pdf", "file:a%20b"):
        assert found_paths(name) == [str(talks / name)]
    for nothing in ("nothing.pdf", "notes.pdf nothing.pdf", "a\0b", "", "'", "file:", "file://", "\\", '"'):
        assert found_paths(nothing) is None or nothing == "", nothing


@on_unix
def test_keys_homes_the_system_and_whole_disks_are_asked_about(tmp_path, monkeypatch):
    home = tmp_path / "homes" / "bo"
    for folder in (".ssh", ".config/app", "work/.hidden", "backup/.gnupg"):
        (home / folder).mkdir(parents=True)
    (home / ".ssh" / "id_rsa").write_text("key")
    (home / "id_ed25519").write_text("key")
    (tmp_path / "link").symlink_to(home / ".ssh")
    monkeypatch.setenv("HOME", str(home))
    assert danger_of("/") == "is a whole disk"
    assert danger_of(str(home)).startswith("is a whole home folder")
    assert danger_of(str(home.parent)) == danger_of(str(tmp_path)) == "has whole home folders in it"
    for keys in (home / ".ssh", home / ".ssh" / "id_rsa", home / "id_ed25519", home / "backup/.gnupg",
                 tmp_path / "link"):
        assert danger_of(str(keys)) == "holds keys or passwords", keys
    assert "hidden files of a home folder" in danger_of(str(home / ".config" / "app"))
    for system in ("/etc", "/etc/passwd", "/proc/self"):
        assert danger_of(system).startswith("belongs to the system"), system
    assert [danger_of(str(home / fine)) for fine in ("work", "work/.hidden", "notes.pdf")] == ["", "", ""]
    assert danger_of("/dev/shm/lab") == "" and danger_of("/dev/shmoo").startswith("belongs to the system")


@on_unix
def test_a_script_shares_no_keys_and_no_system_and_ends_with_exit_code_1():
    lines, code = script("B /etc\nB /\nQ\n")
    assert [line for line in lines if line.startswith("!!")] == [
        "!! /etc belongs to the system, and may hold keys or passwords: "
        "it is shared only by who can be asked whether that is meant",
        "!! / is a whole disk: it is shared only by who can be asked whether that is meant"]
    assert code == 1 and not any("is shared as soon" in line or line == "* etc is shared" for line in lines)


def test_what_can_never_be_shared_is_known_before_anybody_is_asked(tmp_path):
    home, plain = tmp_path / "bo", tmp_path / "plain.txt"
    (home / "shared").mkdir(parents=True)
    plain.write_text("x")
    assert [why_refused(str(fine), str(home / "shared")) for fine in (plain, home.parent / "nothing")] == ["", ""]
    assert why_refused(str(home), str(home / "shared")).endswith("in it is shared already.")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        assert why_refused(str(tmp_path / "pipe"), "shared").endswith(" is no ordinary file or folder.")


@on_unix
def test_a_folder_for_shares_that_holds_what_is_private_takes_a_persons_word_once(tmp_path):
    home = tmp_path / "bo"
    home.mkdir()
    assert danger_of_folder(str(home)) == danger_of_folder(str(home / "new")) == ""
    (home / "taxes.pdf").write_text("x")
    assert danger_of_folder("/etc") and danger_of_folder("/")
    assert not danger_of_folder("/etc/ssl") and not danger_of_folder(os.getcwd()), "a part is meant as it is named"
    lines, code = script("Q\n", "--folder", str(home), HOME=str(home))
    assert (code, len(lines)) == (2, 1) and lines[0].endswith("whether that is meant: start once at a terminal.")
    with Window(200, *QUIET, "--folder", str(home), HOME=str(home)) as window:
        window.shows(" is a whole home folder, with all that is private in it.", "Share it with everybody here? [y/N]:")
        window.type("\r")
        window.shows("* not shared: --folder DIR names another folder")
        assert window.end() == 2
    with Window(200, *QUIET, "--folder", str(home), HOME=str(home)) as window:
        window.shows("Share it with everybody here? [y/N]:")
        window.type("y\r")
        window.ready()
    (home / ".node").mkdir()                        # it was such a folder before
    assert script("Q\n", "--folder", str(home), HOME=str(home))[1] == 0


@needs_pty
@pytest.mark.skipif(not os.path.exists("/dev/null"), reason="no devices in the tree of files")
def test_a_device_is_refused_and_nobody_is_asked_whether_it_is_meant():
    with Window(80, *QUIET) as window:
        window.ready()
        window.type("B /dev/null\r")
        window.until(lambda lines: lines[-2:] == ['!! "/dev/null" is no ordinary file or folder.', ">"])


@needs_pty
@both_editors
def test_a_person_is_asked_and_only_a_yes_shares(editor):
    with Window(80, *QUIET, editor=editor) as window:
        window.ready()
        for answer in ("n\r", "\r", "\x03", "\x04"):
            window.type("B /etc\r")
            window.until(lambda lines: lines[-1] == "Share it with everybody here? [y/N]:")
            window.type(answer)
            window.until(lambda lines: lines[-2:] == ["* not shared", ">"])
            window.type("\x1b[A")                       # the answer is not in the history, and nothing else is gone
            window.until(lambda lines: lines[-1] == "> B /etc")
            window.type("\x15M\r")
            window.until(lambda lines: lines[-2:] == ["* mesh is on: links and transfers are direct", ">"])
        window.type("B /etc\r")
        window.until(lambda lines: lines[-1] == "Share it with everybody here? [y/N]:")
        window.type("y\r")
        window.until(lambda lines: lines[-2:] == ["* etc is shared", ">"])
        window.type("\x1b[A")
        window.until(lambda lines: lines[-1] == "> B /etc")


# ---------------------------------------------------------------- U

class Sharer(Desk):
    """A desk whose node says yes to `U`, or no where the name has an `x`."""

    def unshare(self, name: str, path: str, now: float, done: Any) -> None:
        self.asked = (name, path)
        done(f"!! {name} is not shared by you; B lists what is." if "x" in name else f"* {path} is shared no longer")

    def look_now(self, then: Any) -> None:
        then()


def test_u_takes_a_name_or_a_path_and_a_script_hears_of_what_could_not_be_done(talks):
    desk = Sharer()
    desk.node.look_now = desk.look_now
    for typed, asked in (("gone.pdf", ("gone.pdf", "gone.pdf")), ("notes.pdf", ("notes.pdf", str(talks / "notes.pdf"))),
                         ('"my talk (1).pdf"', ("my talk (1).pdf", str(talks / "my talk (1).pdf")))):
        desk.console.unshare(typed)
        assert desk.asked == asked and desk.lines[-1] == f"* {asked[1]} is shared no longer"
    assert not desk.failed
    desk.console.unshare("x")
    assert desk.failed == 1
    desk.console.unshare("")
    assert desk.failed == 2 and desk.lines[-1] == "U needs a name or a path of what B lists: U intro.pdf"


def test_what_was_shared_from_elsewhere_is_withdrawn_by_its_name_or_path(tmp_path):
    for name in ("shared", "elsewhere/photos"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "shared" / "lab.iso").write_text("here")
    (tmp_path / "elsewhere" / "talk.pdf").write_text("talk")
    (tmp_path / "elsewhere" / "photos" / "1.jpg").write_text("one")
    scanner = Scanner(str(tmp_path / "shared"), rest=lambda seconds: None)
    talk, photos = (scanner.add_path(str(tmp_path / "elsewhere" / name)) for name in ("talk.pdf", "photos"))
    scanner.remove_path("talk.pdf", "talk.pdf")             # before the scanner has heard of it at all
    assert "talk.pdf" not in {shared.name for shared in scanner.run_once().added}
    scanner.add_path(talk)
    assert [shared.name for shared in scanner.run_once().added] == ["talk.pdf"]
    assert scanner.remove_path("talk.pdf", "talk.pdf") == talk
    assert [shared.name for shared in scanner.run_once().removed] == ["talk.pdf"]
    for name, path, why in (
            ("lab.iso", "lab.iso", "lies in the shared folder: move it out of"),
            ("1.jpg", os.path.join(photos, "1.jpg"), "is shared as a part of"),
            ("talk.pdf", talk, "is not shared by you; B lists what is.")):
        with pytest.raises(LibraryError, match=why):
            scanner.remove_path(name, path)
    (tmp_path / "photos").write_text("another of that name")
    scanner.add_path(str(tmp_path / "photos"))
    with pytest.raises(LibraryError, match="says which"):
        scanner.remove_path("photos", "photos")
    assert scanner.remove_path("photos", photos) == photos
    assert {shared.name for shared in scanner.run_once().removed} >= {"photos", "photos/1.jpg"}
    scanner.close()
