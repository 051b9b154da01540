"""A private network as its members have it: programs with one key, with another, and with none."""

import contextlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from disk import network_key as files
from node_tests.stage.running import PATIENCE, ROOT, Running, free_port
from prompt import network_key
from protocol.keys import phrase

KEY, CODE = "h6xog-xq3vg-46brm-qtkkp-m5y4s-lzt7k", "cdf5"
OTHER_KEY = "a phrase that nobody here has"
NO_ANSWER = "no answer with this key (wrong key, old version, firewall, or nobody there)."
KEY_WANTED = "This network is private, it wants a key: --ask-key asks for it, --key-file FILE reads it."


def environment(key):
    return {**os.environ, "LAB_SHARE_KEY": key}


@contextlib.contextmanager
def node(home: Path, port: int, name: str, key: str = "", *flags: object):
    """A node in a folder of its own that has opened or joined a network; with a key in its environment."""
    (home / name / "shared").mkdir(parents=True, exist_ok=True)
    words = ("--ip", "127.0.0.1", "--port", port, "--name", name, *flags)
    with Running("node_client.py", *words, cwd=home / name, LAB_SHARE_KEY=key) as one:
        one.expect(r"^(OPEN NETWORK|.*\(private, check)")
        yield one


def run(home: Path, port: int, *words: str, key: str = "", says: str = "Q\n"):
    """The program in its end: what it said, on standard error, and its exit code."""
    home.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, str(ROOT / "node_client.py"), *words, "--ip", "127.0.0.1", "--port", str(port)]
    done = subprocess.run(
        command, cwd=home, input=says, capture_output=True, text=True, timeout=PATIENCE, env=environment(key)
    )
    return done.stdout.splitlines(), done.stderr.splitlines(), done.returncode


def test_members_of_a_private_network_share_chat_and_outlive_their_supernode(tmp_path):
    port = free_port()
    with node(tmp_path, port, "ana", KEY) as ana, node(tmp_path, port, "bo", KEY) as bo:
        for one in (ana, bo):
            one.expect(rf"^\* ana's network \(private, check {CODE}\)$")
            assert one.count("OPEN NETWORK") == 0
        (tmp_path / "ana" / "shared" / "lab.bin").write_bytes(bytes(range(256)) * 4000)
        bo.ask_until("G", r"lab\.bin  1\.0 MB  ana  1 source")
        bo.ask("R lab.bin", r"^OK lab\.bin  1\.0 MB .*, from ana")
        bo.ask("T hello", "^<bo> hello$")
        ana.expect("^<bo> hello$")
        out, error, code = run(tmp_path / "cy", port, "list", key=KEY)
        assert (out, error, code) == (["lab.bin  1.0 MB  ana, bo  2 sources"], [], 0)
        ana.type("Q")
        assert ana.end() == 0, ana.story()
        bo.expect(r"^\* ana left; you are now the supernode$")
        out, _, code = run(tmp_path / "cy", port, "who", key=KEY)
        assert code == 0 and [line.split()[0] for line in out] == ["bo"]


def test_who_has_no_key_or_another_one_stays_outside_and_reads_why(tmp_path):
    port = free_port()
    with node(tmp_path, port, "ana", KEY) as ana:
        out, error, code = run(tmp_path / "bo", port)
        assert (out, error, code) == (["Looking for a network ...", KEY_WANTED], [], 3)
        out, error, code = run(tmp_path / "bo", port, "list")
        assert (out, error, code) == ([], [f"!! {KEY_WANTED}"], 3)
        out, error, code = run(tmp_path / "bo", port, key=OTHER_KEY)
        told = f"Port {port} of this machine is in use: {NO_ANSWER}"
        assert (out, error, code) == (["Looking for a network ...", told], [], 3)
        out, error, code = run(tmp_path / "bo", port, "get", "lab.bin", key=OTHER_KEY)
        assert (out, error, code) == ([], [f"!! 127.0.0.1:{port}: {NO_ANSWER}"], 3)
        assert ana.count(" joined ") == 0, ana.story()


def test_a_key_that_is_kept_serves_the_next_start_and_the_one_line_forms(tmp_path):
    port = free_port()
    with node(tmp_path, port, "ana", KEY) as ana:
        assert files.keep(str(tmp_path / "ana" / "shared"), KEY)
        out, _, code = run(tmp_path / "ana", port, "--name", "bo")
        assert (out[3], code) == (f"* ana's network (private, check {CODE})", 0) and "Folder: shared-2" in out[2]
        out, _, code = run(tmp_path / "ana", port, "who")
        assert [line.split()[0] for line in out] == ["ana"] and code == 0
        ana.expect("^\\* bo joined")
    out, _, code = run(tmp_path / "ana", port, "--no-key")
    assert (out[2], code) == (network_key.OPEN_NETWORK, 0)
    out, _, code = run(tmp_path / "ana", port)
    assert (out[2], code) == (network_key.OPEN_NETWORK, 0)


def test_a_key_opens_no_open_network(tmp_path):
    port = free_port()
    with node(tmp_path, port, "ana") as ana:
        out, _, code = run(tmp_path / "bo", port, key=KEY)
        assert (out[1:], code) == ([f"Port {port} of this machine is in use: {NO_ANSWER}"], 3)
        assert ana.count(" joined ") == 0, ana.story()


def test_a_share_tells_who_may_join_and_its_json_is_as_it_was(tmp_path):
    (tmp_path / "f.txt").write_text("f")
    for key, line in (("", network_key.OPEN_NETWORK), (KEY, rf"* bo's network (private, check {CODE})")):
        with Running("node_client.py", "share", "f.txt", "--ip", "127.0.0.1", "--port", free_port(), "--name", "bo",
                     "--stay", cwd=tmp_path, LAB_SHARE_KEY=key) as one:  # fmt: skip
            one.expect("^" + re.escape(line) + "$")
        with Running("node_client.py", "share", "f.txt", "--ip", "127.0.0.1", "--port", free_port(), "--json",
                     cwd=tmp_path, LAB_SHARE_KEY=key) as one:  # fmt: skip
            one.expect('"event": "shared"')
            assert all(told.startswith("{") for told in one.lines), one.story()


# ---- the key is nowhere to be seen


def seen_of(pid):
    """What others of this machine can read of a process."""
    for name in ("cmdline", "environ", "maps", "comm"):
        with contextlib.suppress(PermissionError):
            yield (Path("/proc") / str(pid) / name).read_bytes()
    yield subprocess.run(["ps", "-ww", "-o", "args=", "-p", str(pid)], capture_output=True).stdout


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="no /proc here")
def test_the_key_is_nowhere_to_be_seen(tmp_path):
    """K09. Its own file is the only place; `environ` would show what was given there, to this user alone."""
    port, key_file = free_port(), tmp_path / "the.key"
    key_file.write_text(KEY + "\n")
    key_file.chmod(0o600)
    flags = ("--key-file", key_file, "--log", tmp_path / "log", "--trace", tmp_path / "trace")
    with node(tmp_path, port, "ana", "", *flags) as ana, node(tmp_path, port, "bo", "", *flags) as bo:
        (tmp_path / "ana" / "shared" / "lab.bin").write_bytes(os.urandom(3_000_000))
        bo.ask_until("G", "lab.bin")
        bo.ask("R lab.bin", "^OK lab.bin")
        for command in ("W", "V", "B", "H", "L", "M", "R nothing"):
            bo.type(command)
        bo.ask("D", r"trouble")
        seen = [b"".join(seen_of(one.process.pid)) for one in (ana, bo)]
        limits = Path(f"/proc/{bo.process.pid}/limits").read_text()
        bo.type("Q")
        assert bo.end() in (0, 1)
    out, error, _ = run(tmp_path / "cy", port, "doctor", "--json", "--key-file", str(key_file))
    texts = ["\n".join(one.lines).encode() for one in (ana, bo)] + ["\n".join(out + error).encode()] + seen
    kept = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and path != key_file]
    assert len(kept) > 6 and (tmp_path / "log").stat().st_size > 200
    key = phrase.stretched(KEY)
    authority = key.authority.to_bytes(32, "big")
    for secret in (KEY.encode(), KEY[:17].encode(), key.seal_key, key.seal_key.hex().encode(), authority):
        assert not [text for text in texts + kept if secret in text]
    assert re.search(r"Max core file size +0 +0 ", limits), limits


@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")
def test_a_process_with_a_key_leaves_no_core_and_no_traces():
    """Not even to a program that the system pipes cores to: `dumpable` of prctl(2) is off."""
    told = (
        "import ctypes, resource; from node_client import _key_of; from protocol.credentials import KeyWish;"
        f"_key_of(KeyWish(typed={KEY!r}));"
        "print(resource.getrlimit(resource.RLIMIT_CORE), ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))"
    )
    done = subprocess.run([sys.executable, "-c", told], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "(0, 0) 0\n", done


def test_a_crash_does_not_tell_the_key():
    """What is written of an exception shows values: of none of ours is the key one."""
    from disk.network_key import key_of
    from protocol.credentials import KeyWish

    wish = KeyWish(typed=KEY, is_asked=True)
    made = key_of(wish)
    for shown in (repr(wish), str(wish), repr(made), str(made), repr(made.credentials), f"{(wish, made)}"):
        assert KEY not in shown and repr(made.credentials.seal_key) not in shown
