"""How a person gives the network key, what is read of it, and that it is nowhere to be seen."""

import os
import stat
import subprocess
import sys

import pytest

from disk import network_key as files
from node_client import _key_of
from node_tests.stage.running import ROOT
from node_tests.stage.window import Window, needs_pty, script
from prompt import network_key
from prompt.settings import NodeError, parse_flags
from protocol.credentials import KeyTrouble, KeyWish
from protocol.keys import phrase

KEY = "h6xog-xq3vg-46brm-qtkkp-m5y4s-lzt7k"
CODE = "cdf5"
has_modes = pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")


def key_file(path, text=KEY + "\n", mode=0o600, encoding="utf-8"):
    path.write_text(text, encoding=encoding)
    path.chmod(mode)
    return str(path)


# ---- files


def test_a_key_file_is_one_line(tmp_path):
    for encoding in ("utf-8", "utf-16-le", "utf-16-be"):    # the last two as PowerShell writes `--new-key > FILE`
        assert files.key_in(key_file(tmp_path / "a", f"\ufeff{KEY}\r\n", encoding=encoding)) == KEY
    with pytest.raises(KeyTrouble, match="one line"):
        phrase.typed_key(files.key_in(key_file(tmp_path / "b", "one line of it\nand another one\n")))
    (tmp_path / "c").write_bytes(b"\xff\xfe\x80" * 9)
    (tmp_path / "c").chmod(0o600)
    with pytest.raises(KeyTrouble, match="no text in UTF-8"):
        files.key_in(str(tmp_path / "c"))
    with pytest.raises(KeyTrouble, match="longer than"):
        phrase.typed_key(files.key_in(key_file(tmp_path / "d", "x" * 100_000)))
    for path in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(KeyTrouble, match="cannot be read: "):
            files.key_in(str(path))


@has_modes
@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660, 0o610])
def test_a_key_file_that_others_can_read_is_refused_with_what_to_do(tmp_path, mode):
    path = key_file(tmp_path / "my key", mode=mode)
    with pytest.raises(KeyTrouble) as told:
        files.key_in(path)
    assert str(told.value) == f"Others on this machine can get at the key in \"{path}\": chmod 600 '{path}'"


def test_a_key_is_kept_for_its_owner_alone_and_forgotten(tmp_path):
    folder = str(tmp_path / "shared")
    os.mkdir(folder)
    before = os.umask(0)
    try:
        assert files.keep(folder, KEY) and files.keep(folder, KEY)
    finally:
        os.umask(before)
    kept = os.stat(files.kept_at(folder))
    assert os.name == "nt" or stat.S_IMODE(kept.st_mode) == 0o600
    assert files.key_in(files.kept_at(folder)) == KEY
    assert os.listdir(os.path.join(folder, ".node")) == ["key"]
    files.forget(folder)
    files.forget(folder)
    assert os.listdir(os.path.join(folder, ".node")) == []
    assert not files.keep(str(tmp_path / "nowhere"), KEY)


def test_an_identity_is_made_once_and_read_again(tmp_path):
    path = str(tmp_path / "me")
    assert files.identity_in(path, lambda: 12345) == files.identity_in(path, lambda: 99) == 12345
    assert os.name == "nt" or stat.S_IMODE(os.stat(path).st_mode) == 0o600
    for damaged in ("", KEY, files.IDENTITY_HEAD + "0" * 64, files.IDENTITY_HEAD + "f" * 64, "x" * 22 + "1" * 64):
        with pytest.raises(KeyTrouble, match="holds no identity"):
            files.identity_in(key_file(tmp_path / "bad", damaged), lambda: 1)
    with pytest.raises(KeyTrouble, match="cannot be written"):
        files.identity_in(str(tmp_path / "no" / "where"), lambda: 1)


# ---- what is meant


def wish(*argv, folder="", typed=""):
    return network_key.wish_of(parse_flags(argv), folder, typed)


def test_what_was_said_last_is_meant(tmp_path, monkeypatch):
    path, folder = key_file(tmp_path / "file"), str(tmp_path)
    files.keep(folder, "the phrase that is kept")
    monkeypatch.setenv("LAB_SHARE_KEY", "the phrase in the environment")
    asked = _key_of(wish("--ask-key", folder=folder, typed="the phrase that was typed"))
    assert asked.phrase == "the phrase that was typed"
    monkeypatch.setenv("LAB_SHARE_KEY", "the phrase in the environment")
    assert _key_of(wish("--key-file", path, folder=folder)).phrase == KEY
    monkeypatch.setenv("LAB_SHARE_KEY", "the phrase in the environment")
    assert _key_of(wish(folder=folder)).phrase == "the phrase in the environment"
    assert _key_of(wish(folder=folder)).phrase == "the phrase that is kept"  # what stood there was taken away
    assert _key_of(wish("--no-key", "who", folder=folder)) is None and files.key_in(files.kept_at(folder))
    assert _key_of(wish("--no-key", folder=folder)) is None
    assert _key_of(wish(folder=folder)) is None
    asked = _key_of(wish("--no-key", folder=folder, typed="the phrase that was typed"))  # the network wanted one
    assert asked.phrase == "the phrase that was typed"


def test_an_identity_needs_a_key(tmp_path):
    with pytest.raises(NodeError, match="--identity is for a network with a key"):
        _key_of(wish("--identity", str(tmp_path / "me"), folder=str(tmp_path)))
    named = ["--key-file", key_file(tmp_path / "file"), "--identity", str(tmp_path / "me")]
    first, second = (_key_of(wish(*named, folder=str(tmp_path))).credentials for _ in range(2))
    assert first.fingerprint == second.fingerprint and first.check_code == CODE


def test_who_has_no_key_imports_nothing_for_one(tmp_path):
    told = "import sys, node_client; from protocol.credentials import KeyWish; node_client._key_of(KeyWish()); "
    told += "node_client._import_node(); print([name for name in sys.modules if name == 'ssl' or 'keys' in name])"
    done = subprocess.run([sys.executable, "-c", told], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_first_line_waits_for_no_table_of_messages_and_no_inspection():
    """Each of them takes as long as a third of the rest of the start."""
    told = "import sys, node_client; print([name for name in ('protocol.messages', 'inspect') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", told], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_python_without_ssl_is_told(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ssl", None)
    monkeypatch.delitem(sys.modules, "disk.credentials", raising=False)
    with pytest.raises(NodeError, match="This Python has no ssl module.* without a key this one does"):
        _key_of(KeyWish(typed=KEY))


# ---- flags


@pytest.mark.parametrize("argv", [["--key", KEY], [f"--key={KEY}"], ["--key"], ["get", "--key", KEY, "lab.iso"]])
def test_a_key_on_the_command_line_is_refused_and_not_said_again(argv, capsys):
    with pytest.raises(SystemExit) as end:
        parse_flags(argv)
    told = capsys.readouterr().err
    assert end.value.code == 2 and "a key on the command line can be read by everybody" in told and KEY not in told


def test_a_new_key_is_printed_alone_where_no_person_looks():
    run = [sys.executable, "node_client.py", "--new-key"]
    keys = [subprocess.run(run, cwd=ROOT, capture_output=True, text=True) for _ in range(2)]
    assert [done.returncode for done in keys] == [0, 0] and [done.stderr for done in keys] == ["", ""]
    assert keys[0].stdout != keys[1].stdout
    for done in keys:
        assert phrase.typed_key(done.stdout) + "\n" == done.stdout and len(done.stdout) == 36


def test_a_script_is_not_asked_for_a_key():
    lines, code = script("Q\n", "--ask-key")
    assert (lines, code) == ([network_key.NOBODY_TO_ASK], 2)
    with pytest.raises(SystemExit):
        parse_flags(["get", "lab.iso", "--ask-key"])


def test_the_start_tells_who_can_join():
    lines, code = script("Q\n", "--ip", "10.0.0.7")
    assert (lines[2], code) == (network_key.OPEN_NETWORK, 0)
    lines, code = script("Q\n", "--ip", "10.0.0.7", FAKE_CODE="4f1c")
    assert (lines[2], code) == ("* ana's network (private, check 4f1c)", 0)
    lines, code = script("Q\n", "--name", "bo", FAKE_CODE="4f1c")
    assert (lines[2], code) == ("* bo's network (private, check 4f1c)", 0)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such links and pipes")
def test_a_key_file_that_is_no_file_is_told_in_plain_words(tmp_path):
    """A person read `too many levels of symbolic links` of `--key-file <(pass lab)`."""
    (tmp_path / "link").symlink_to(key_file(tmp_path / "a"))
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "pipe"):
        with pytest.raises(KeyTrouble, match="cannot be read: it is a link, a folder, a pipe or a device; name"):
            files.key_in(str(tmp_path / name))


# ---- at a terminal


@needs_pty
@pytest.mark.parametrize("editor, term", [("", "xterm"), ("keys", "xterm"), ("", "dumb")])
def test_a_key_is_asked_for_without_echo(editor, term):
    flags = ("--ip", "", "--port", "6020", "--name", "me", "--ask-key")
    with Window(80, *flags, editor=editor, TERM=term, FAKE_CODE=CODE) as window:
        window.until(lambda lines: lines and lines[-1] == "Key (not shown):")
        window.type("?\r")
        window.shows("six groups of five")
        window.until(lambda lines: lines[-1] == "Key (not shown):")
        window.type(KEY[:-1] + "l\r")
        window.shows("a slip in it")
        window.until(lambda lines: lines[-1] == "Key (not shown):")
        window.type(KEY + "\r")
        window.shows(f"* me's network (private, check {CODE})", "* the key is kept")
        window.until(lambda lines: lines[-1] == ">")
        window.type("Q\r" if term == "dumb" else "\x1b[A\x1b[A\x15Q\r")  # nor is it in the history of commands
        assert window.end() == 0
        for part in (KEY, KEY[:5], KEY[-5:]):
            assert part.encode() not in window.raw


@needs_pty
def test_where_nobody_answers_with_a_key_it_is_asked_for_again_first_and_unseen():
    """The first question was for the IP: who had mistyped the key typed it there, for all to see."""
    again = network_key.KEY_AGAIN.strip()
    with Window(80, "--ip", "10.9.9.9", "--port", "6020", "--name", "me", "--ask-key", FAKE_CODE=CODE) as window:
        window.until(lambda lines: lines and lines[-1] == "Key (not shown):")
        for asked in (1, 2):
            window.type(KEY + "\r")
            window.until(lambda lines, asked=asked: lines[-1] == again and lines.count(again) == asked)
        window.shows("10.9.9.9:6020: no answer with this key")
        window.type("\r")
        window.until(lambda lines: lines[-1] == "IP [search this network]:")
        window.type("127.0.0.1\r")
        window.until(lambda lines: lines[-1] == "Port [6020]:")
        window.type("\r")
        window.shows(f"* ana's network (private, check {CODE})", "* the key is kept")
        window.until(lambda lines: lines[-1] == ">")
        window.type("Q\r")
        assert window.end() == 0 and KEY[:5].encode() not in window.raw
