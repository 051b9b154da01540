"""The same file over loopback by other programs, as far as they are on this machine; used by bench_transport.py.

Each runs as it comes, both ends on this machine, from one folder into another; every copy is compared with the source
afterwards, outside the measured time. `--peers-python` names an interpreter that has aioquic and libtorrent.

    apt install openssh-server rsync curl srt-tools libudt-dev && pip install aioquic libtorrent
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import ctypes.util
import datetime
import getpass
import glob
import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

from node_tests.stage.running import free_port
from node_tests.stage.usage import run_end

LOCAL = "127.0.0.1"
MIB = 1 << 20
WAIT = 600.0  # seconds; a bound, not an expectation
START_BOUND = 20.0  # seconds in which a server has to listen
QUIC_DATAGRAM_SIZE = 16_384  # bytes; loopback carries it, and aioquic was faster with it than with 1,200
QUIC_AHEAD = 16  # MiB that the sender may be ahead of the receiver
UDT_LIBRARIES = ("/usr/lib/libudt.so*", "/usr/lib/*/libudt.so*", "/usr/local/lib/libudt.so*")


class Peer(NamedTuple):
    """Another program: what it does to be sure of the file, why it is missing here, one run in seconds."""

    name: str
    checks: str
    missing: Callable[[str], str]
    run: Callable[[str, str, str], float]  # (path of the file, folder to copy it to, interpreter for libraries)


# ---- programs -----------------------------------------------------------------------------------------------------


def _lacks(*programs: str) -> Callable[[str], str]:
    return lambda _: ", ".join(name for name in programs if _program(name) is None)


def _program(name: str) -> Optional[str]:
    return shutil.which(name, path=os.environ.get("PATH", "") + os.pathsep + "/usr/sbin")


@contextlib.contextmanager
def _serving(*command: str, port: int = 0) -> Iterator[subprocess.Popen[bytes]]:
    """A server beside; waits until its TCP port answers, if it has one, and stops it at the end."""
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE if not port else subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        if port:
            _await_port(port, process)
        yield process
    finally:
        process.kill()
        process.communicate()


def _await_port(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_BOUND
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection((LOCAL, port)).close()
            return
        except OSError:
            time.sleep(0.02)
    raise RuntimeError("%s does not listen" % process.args)  # type: ignore[str-bytes-safe]


def _timed(*command: str) -> float:
    began = time.monotonic()
    subprocess.run(command, check=True, timeout=WAIT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.monotonic() - began


def run_scp(path: str, folder: str, _: str) -> float:
    """From an sshd of our own, with keys that last as long as the run."""
    with tempfile.TemporaryDirectory() as home, _privilege_separation_folder():
        for name in ("host", "user"):
            keygen = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", os.path.join(home, name)]
            subprocess.run(keygen, check=True)
        shutil.copy(os.path.join(home, "user.pub"), os.path.join(home, "allowed"))
        port = free_port(socket.SOCK_STREAM)
        with open(os.path.join(home, "config"), "w") as config:
            config.write(
                "Port %d\nListenAddress %s\nHostKey %s/host\nAuthorizedKeysFile %s/allowed\nStrictModes no\nUsePAM no\n"
                "PidFile none\nPasswordAuthentication no\nPermitRootLogin yes\nSubsystem sftp internal-sftp\n"
                % (port, LOCAL, home, home)
            )
        sshd = _program("sshd")
        assert sshd is not None
        with _serving(sshd, "-D", "-f", os.path.join(home, "config"), port=port):
            return _timed(
                "scp", "-q", "-F", "none", "-P", str(port), "-i", os.path.join(home, "user"), "-o", "BatchMode=yes",
                "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
                "%s@%s:%s" % (getpass.getuser(), LOCAL, path), os.path.join(folder, "copy.bin"),
            )  # fmt: skip


@contextlib.contextmanager
def _privilege_separation_folder() -> Iterator[None]:
    """sshd started by root wants this folder, which only its service makes."""
    path = "/run/sshd"
    is_ours = hasattr(os, "geteuid") and os.geteuid() == 0 and not os.path.isdir(path)
    if is_ours:
        os.mkdir(path, 0o755)
    try:
        yield
    finally:
        if is_ours:
            os.rmdir(path)


def run_rsync(path: str, folder: str, _: str) -> float:
    """From a daemon of our own."""
    port = free_port(socket.SOCK_STREAM)
    with tempfile.TemporaryDirectory() as home:
        config = os.path.join(home, "config")
        as_root = "uid = 0\ngid = 0\n" if hasattr(os, "geteuid") and os.geteuid() == 0 else ""
        with open(config, "w") as file:
            file.write("use chroot = no\n%s[share]\npath = %s\nread only = yes\n" % (as_root, os.path.dirname(path)))
        daemon = ["rsync", "--daemon", "--no-detach", "--config", config, "--address", LOCAL, "--port", str(port)]
        with _serving(*daemon, port=port):
            source = "rsync://%s:%d/share/%s" % (LOCAL, port, os.path.basename(path))
            return _timed("rsync", "--whole-file", source, os.path.join(folder, "copy.bin"))


def run_http(path: str, folder: str, _: str) -> float:
    """From Python's own server by curl."""
    port = free_port(socket.SOCK_STREAM)
    server = [sys.executable, "-m", "http.server", "--bind", LOCAL, "--directory", os.path.dirname(path), str(port)]
    with _serving(*server, port=port):
        url = "http://%s:%d/%s" % (LOCAL, port, os.path.basename(path))
        return _timed("curl", "-s", "-f", "-o", os.path.join(folder, "copy.bin"), url)


def run_srt(path: str, folder: str, _: str) -> float:
    """By the file tool of SRT, until the receiver has written all and ended."""
    port = free_port()
    link = "srt://%s:%d" % (LOCAL, port)
    # The sender's name for the file does not always arrive; then the one given here counts.
    target = "file://" + os.path.join(folder, "copy.bin")
    with _serving("srt-file-transmit", "-q", link + "?mode=listener", target) as receiver:
        time.sleep(0.5)  # nothing tells that it listens
        began = time.monotonic()
        subprocess.run(["srt-file-transmit", "-q", "file://" + path, link], check=True, timeout=WAIT,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
        receiver.wait(WAIT)
        return time.monotonic() - began


# ---- libraries, each end a process of its own ---------------------------------------------------------------------


def _run_ends(python: str, give: Sequence[str], take: Sequence[str]) -> float:
    """Start the giving end, hand its port to the taking one, and take its seconds."""
    with _serving(python, __file__, *give) as giving:
        assert giving.stdout is not None
        port = json.loads(giving.stdout.readline())["port"]
        taken = subprocess.run([python, __file__, *take, str(port)], check=True, timeout=WAIT, stdout=subprocess.PIPE)
    return float(json.loads(taken.stdout)["seconds"])


def _say(**values: object) -> None:
    print(json.dumps(values), flush=True)


def _lacks_module(name: str) -> Callable[[str], str]:
    def missing(python: str) -> str:
        found = subprocess.run([python, "-c", "import " + name], stderr=subprocess.DEVNULL)
        return name if found.returncode else ""

    return missing


def run_udt(path: str, folder: str, _: str) -> float:
    """By sendfile and recvfile of libudt."""
    copy = os.path.join(folder, "copy.bin")
    return _run_ends(sys.executable, ["udt-give", path], ["udt-take", copy])


def _udt_path() -> str:
    found = [path for pattern in UDT_LIBRARIES for path in sorted(glob.glob(pattern))]
    return found[0] if found else ctypes.util.find_library("udt") or ""


def _udt() -> Dict[str, Any]:
    """The functions of libudt, under the names that g++ gives them."""
    library = ctypes.CDLL(_udt_path())
    names = {
        "startup": "_ZN3UDT7startupEv", "socket": "_ZN3UDT6socketEiii", "bind": "_ZN3UDT4bindEiPK8sockaddri",
        "listen": "_ZN3UDT6listenEii", "accept": "_ZN3UDT6acceptEiP8sockaddrPi", "close": "_ZN3UDT5closeEi",
        "connect": "_ZN3UDT7connectEiPK8sockaddri", "send": "_ZN3UDT4sendEiPKcii", "recv": "_ZN3UDT4recvEiPcii",
        "sendfile": "_ZN3UDT9sendfile2EiPKcPlli", "recvfile": "_ZN3UDT9recvfile2EiPKcPlli",
    }  # fmt: skip
    functions = {name: getattr(library, symbol) for name, symbol in names.items()}
    for name in ("sendfile", "recvfile"):
        functions[name].restype = ctypes.c_int64
        functions[name].argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.POINTER(ctypes.c_int64), ctypes.c_int64,
                                    ctypes.c_int]  # fmt: skip
    functions["startup"]()
    return functions


def _sockaddr(port: int) -> bytes:
    return socket.AF_INET.to_bytes(2, sys.byteorder) + port.to_bytes(2, "big") + socket.inet_aton(LOCAL) + bytes(8)


def udt_give(path: str) -> None:
    udt, port, size = _udt(), free_port(), os.path.getsize(path)
    server = udt["socket"](int(socket.AF_INET), int(socket.SOCK_STREAM), 0)
    assert udt["bind"](server, _sockaddr(port), 16) == 0
    udt["listen"](server, 1)
    _say(port=port)
    connection = udt["accept"](server, ctypes.create_string_buffer(16), ctypes.byref(ctypes.c_int(16)))
    udt["send"](connection, size.to_bytes(8, "big"), 8, 0)
    udt["sendfile"](connection, path.encode(), ctypes.byref(ctypes.c_int64(0)), size, MIB)
    sys.stdin.read()


def udt_take(path: str, port: str) -> None:
    udt, head = _udt(), ctypes.create_string_buffer(8)
    connection = udt["socket"](int(socket.AF_INET), int(socket.SOCK_STREAM), 0)
    assert udt["connect"](connection, _sockaddr(int(port)), 16) == 0
    began = time.monotonic()
    udt["recv"](connection, head, 8, 0)
    size = int.from_bytes(head.raw, "big")
    taken = udt["recvfile"](connection, path.encode(), ctypes.byref(ctypes.c_int64(0)), size, MIB)
    assert taken == size, "libudt took %d of %d bytes" % (taken, size)
    _say(seconds=time.monotonic() - began)
    udt["close"](connection)


def run_quic(path: str, folder: str, python: str) -> float:
    """On one stream of aioquic."""
    copy = os.path.join(folder, "copy.bin")
    return _run_ends(python, ["quic-give", path], ["quic-take", copy])


def _quic_configuration(is_client: bool) -> Any:
    import ssl

    from aioquic.quic.configuration import QuicConfiguration

    configuration = QuicConfiguration(is_client=is_client, alpn_protocols=["bench"], verify_mode=ssl.CERT_NONE)
    configuration.max_data = configuration.max_stream_data = QUIC_AHEAD * MIB
    configuration.max_datagram_size = QUIC_DATAGRAM_SIZE
    return configuration


def _certify(configuration: Any) -> None:
    """A certificate that lasts a day; the other end does not look at it."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    now = datetime.datetime.now(datetime.timezone.utc)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now,
                                      now + datetime.timedelta(days=1))  # fmt: skip
    configuration.certificate, configuration.private_key = builder.sign(key, hashes.SHA256()), key


def quic_give(path: str) -> None:
    asyncio.run(_quic_give(path))


async def _quic_give(path: str) -> None:
    from aioquic.asyncio import serve

    tasks: List[Any] = []

    async def give(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(1)
        writer.write(os.path.getsize(path).to_bytes(8, "big"))
        ahead = 0
        with open(path, "rb") as file:
            for data in iter(lambda: file.read(MIB), b""):
                writer.write(data)  # keeps all it is given: so the receiver says a byte for each MiB that it has
                ahead += 1
                if ahead >= QUIC_AHEAD:
                    ahead -= len(await reader.read(QUIC_AHEAD))

    configuration, port = _quic_configuration(False), free_port()
    _certify(configuration)
    loop = asyncio.get_running_loop()
    handler = lambda reader, writer: tasks.append(loop.create_task(give(reader, writer)))  # noqa: E731
    await serve(LOCAL, port, configuration=configuration, stream_handler=handler)
    _say(port=port)
    await asyncio.sleep(WAIT)


def quic_take(path: str, port: str) -> None:
    asyncio.run(_quic_take(path, int(port)))


async def _quic_take(path: str, port: int) -> None:
    from aioquic.asyncio import connect

    async with connect(LOCAL, port, configuration=_quic_configuration(True)) as client:
        began = time.monotonic()
        reader, writer = await client.create_stream()
        writer.write(b"\0")
        left = int.from_bytes(await reader.readexactly(8), "big")
        told = left
        with open(path, "wb") as file:
            while left:
                data = await reader.read(MIB)
                file.write(data)
                left -= len(data)
                if told - left >= MIB:
                    writer.write(bytes((told - left) // MIB))
                    told -= (told - left) // MIB * MIB
        _say(seconds=time.monotonic() - began)


def _run_torrent(kind: str) -> Callable[[str, str, str], float]:
    def run(path: str, folder: str, python: str) -> float:
        torrent = os.path.join(folder, "file.torrent")
        subprocess.run([python, "-W", "ignore", __file__, "torrent-make", path, torrent], check=True)
        return _run_ends(python, ["torrent-give", kind, torrent, os.path.dirname(path)],
                         ["torrent-take", kind, torrent, folder])  # fmt: skip

    return run


def torrent_make(path: str, torrent: str, piece_size: str = str(MIB)) -> None:
    """Pieces of so many bytes, verified by SHA-256 (BEP 52)."""
    import libtorrent as lt

    storage = lt.file_storage()
    storage.add_file(os.path.basename(path), os.path.getsize(path))
    made = lt.create_torrent(storage, int(piece_size), lt.create_torrent.v2_only)
    lt.set_piece_hashes(made, os.path.dirname(path))
    with open(torrent, "wb") as file:
        file.write(lt.bencode(made.generate()))


def _session(kind: str) -> Any:
    import libtorrent as lt

    is_tcp = kind == "tcp"
    return lt.session({
        "listen_interfaces": LOCAL + ":0", "enable_dht": False, "enable_lsd": False, "enable_upnp": False,
        "enable_natpmp": False, "allow_multiple_connections_per_ip": True, "alert_mask": 0,
        "enable_incoming_tcp": is_tcp, "enable_outgoing_tcp": is_tcp, "enable_incoming_utp": not is_tcp,
        "enable_outgoing_utp": not is_tcp,
    })  # fmt: skip


def torrent_added(session: Any, torrent: str, folder: str, is_seed: bool) -> Any:
    """The handle of a file that is given (and then here) or taken."""
    import libtorrent as lt

    parameters = lt.add_torrent_params()
    parameters.ti, parameters.save_path = lt.torrent_info(torrent), folder
    parameters.flags &= ~(lt.torrent_flags.paused | lt.torrent_flags.auto_managed)
    if is_seed:
        parameters.flags |= lt.torrent_flags.seed_mode
    return session.add_torrent(parameters)


def torrent_give(kind: str, torrent: str, folder: str) -> None:
    session = _session(kind)
    handle = torrent_added(session, torrent, folder, is_seed=True)
    while not session.listen_port() or not handle.status().is_seeding:
        time.sleep(0.01)
    _say(port=session.listen_port())
    sys.stdin.read()


def torrent_take(kind: str, torrent: str, folder: str, port: str) -> None:
    session = _session(kind)
    handle = torrent_added(session, torrent, folder, is_seed=False)
    while str(handle.status().state) != "downloading":
        time.sleep(0.01)
    began = time.monotonic()
    handle.connect_peer((LOCAL, int(port)))
    while not handle.status().is_seeding:
        time.sleep(0.005)
    _say(seconds=time.monotonic() - began)


PEERS = [
    Peer("scp (own sshd)", "encrypted, authenticated", _lacks("sshd", "scp", "ssh-keygen"), run_scp),
    Peer("rsync daemon", "its own checksum", _lacks("rsync"), run_rsync),
    Peer("http.server + curl", "nothing", _lacks("curl"), run_http),
    Peer("SRT, srt-file-transmit", "nothing", _lacks("srt-file-transmit"), run_srt),
    Peer("UDT, sendfile", "nothing", lambda _: "" if _udt_path() else "libudt", run_udt),
    Peer("QUIC, aioquic", "encrypted, authenticated", _lacks_module("aioquic"), run_quic),
    Peer("libtorrent over TCP", "SHA-256 of each MiB", _lacks_module("libtorrent"), _run_torrent("tcp")),
    Peer("libtorrent over uTP", "SHA-256 of each MiB", _lacks_module("libtorrent"), _run_torrent("utp")),
]

ENDS: Dict[str, Callable[..., None]] = {
    "udt-give": udt_give, "udt-take": udt_take, "quic-give": quic_give, "quic-take": quic_take,
    "torrent-make": torrent_make, "torrent-give": torrent_give, "torrent-take": torrent_take,
}  # fmt: skip

if __name__ == "__main__":
    run_end(ENDS, __doc__)
