"""The verbs, over real sockets on loopback."""

import contextlib
import hashlib
import os
import random
import socket

import pytest

import rdt
from node_tests.stage.background import WAIT, in_background
from node_tests.stage.recorder import Recorder
from protocol.transport import frames
from protocol.transport import packets as wire
from sockets.udp import Datagrams


@pytest.fixture
def ends():
    """Two transports with a connection between them: (one end, other end)."""
    with rdt.open("127.0.0.1", 0) as here, rdt.open("127.0.0.1", 0) as there:
        near = here.connect(there.address, timeout=WAIT)
        far = there.accept(timeout=WAIT)
        yield near, far


def test_messages_arrive_whole_and_in_order(ends):
    near, far = ends
    for size in (0, 1, 1000, 100_000, 1 << 20):
        near.send(bytes([size % 251]) * size)
    for size in (0, 1, 1000, 100_000, 1 << 20):
        assert far.receive(timeout=WAIT) == bytes([size % 251]) * size
    far.send(b"back")
    assert near.receive(timeout=WAIT) == b"back"


def test_a_long_message_arrives_whole_beside_short_ones(ends):
    near, far = ends
    long = os.urandom(9_000_001)
    sending = in_background(near.send, long)
    assert near.transport.broadcast(b"meanwhile") == 1
    got = sorted((far.receive(timeout=WAIT), far.receive(timeout=WAIT)), key=len)
    sending()
    assert got == [b"meanwhile", long]


def test_a_message_without_end_is_not_collected_for_ever(ends):
    near, far = ends
    receiving = in_background(far.receive, timeout=WAIT)
    with pytest.raises(rdt.RdtError):
        for _ in range(200):
            near.channel.send_frame(frames.PART, bytes(4), bytes(1 << 20))
    with pytest.raises(rdt.RdtError, match="too long"):
        receiving()


def test_the_end_of_a_connection_raises_again_and_again(ends):
    near, far = ends
    near.send(b"last words")
    near.transport.disconnect(near, timeout=WAIT)
    assert far.receive(timeout=WAIT) == b"last words"
    for _ in range(2):
        with pytest.raises(rdt.RdtError, match="127.0.0.1"):
            far.receive(timeout=WAIT)
    with pytest.raises(rdt.RdtError):
        near.send(b"too late")


def test_accept_all_takes_everybody_who_waits():
    with rdt.open("127.0.0.1", 0) as server, rdt.open("127.0.0.1", 0) as client:
        assert server.accept_all() == []
        made = [client.connect(server.address, timeout=WAIT) for _ in range(3)]
        accepted = [server.accept(timeout=WAIT)]
        while len(accepted) < 3:
            accepted += server.accept_all()
        assert server.broadcast(b"to all") == 3
        assert [connection.receive(timeout=WAIT) for connection in made] == [b"to all"] * 3


@pytest.mark.parametrize("size", [0, 1, 1 << 20, 5_000_001])
def test_a_file_is_kept_and_receipted_at_both_ends(ends, tmp_path, size):
    near, far = ends
    content = random.Random(size).getrandbits(8 * size).to_bytes(size, "big")
    (tmp_path / "notes.bin").write_bytes(content)
    seen = []
    accepting = in_background(far.accept_file, str(tmp_path / "inbox"), timeout=WAIT)
    sent = near.send_file(
        str(tmp_path / "notes.bin"), progress=lambda done, total: seen.append((done, total)), timeout=WAIT
    )
    kept = accepting()
    assert kept.sha256 == sent.sha256 == hashlib.sha256(content).hexdigest()
    assert kept.size == sent.size == size
    assert (tmp_path / "inbox" / "notes.bin").read_bytes() == content
    assert size == 0 or seen[-1] == (size, size)


def test_a_second_file_of_that_name_gets_another(ends, tmp_path):
    near, far = ends
    for content in (b"first", b"second"):
        (tmp_path / "notes.txt").write_bytes(content)
        accepting = in_background(far.accept_file, str(tmp_path / "inbox"), timeout=WAIT)
        near.send_file(str(tmp_path / "notes.txt"), timeout=WAIT)
        accepting()
    assert (tmp_path / "inbox" / "notes.txt").read_bytes() == b"first"
    assert (tmp_path / "inbox" / "notes (2).txt").read_bytes() == b"second"


def test_a_receiver_that_cannot_keep_the_file_says_so_at_both_ends(ends, tmp_path):
    near, far = ends
    (tmp_path / "big.bin").write_bytes(bytes(3_000_000))
    (tmp_path / "inbox").write_text("a file where the folder should be")
    accepting = in_background(far.accept_file, str(tmp_path / "inbox"), timeout=WAIT)
    with pytest.raises(rdt.RdtError, match="did not take the file"):
        near.send_file(str(tmp_path / "big.bin"), timeout=WAIT)
    with pytest.raises(rdt.RdtError, match="cannot keep the file"):
        accepting()
    near.send(b"and the connection lives")
    assert far.receive(timeout=WAIT) == b"and the connection lives"


class Mistake(Exception):
    """What a caller's own code may raise."""


def stumble(done, size):
    raise Mistake


@pytest.mark.parametrize("who", ["sender", "receiver"])
def test_a_mistake_in_the_callers_progress_ends_the_transfer_at_both_ends(ends, tmp_path, who):
    near, far = ends
    (tmp_path / "f.bin").write_bytes(bytes(6_000_000))
    at_far = stumble if who == "receiver" else None
    accepting = in_background(far.accept_file, str(tmp_path / "inbox"), progress=at_far, timeout=WAIT)
    with pytest.raises(Mistake if who == "sender" else rdt.RdtError):
        near.send_file(str(tmp_path / "f.bin"), progress=stumble if who == "sender" else None, timeout=WAIT)
    with pytest.raises(Mistake if who == "receiver" else rdt.RdtError):
        accepting()
    assert not list((tmp_path / "inbox").iterdir())
    accepting = in_background(far.accept_file, str(tmp_path / "inbox"), timeout=WAIT)
    near.send_file(str(tmp_path / "f.bin"), timeout=WAIT)
    assert accepting().size == 6_000_000


def test_a_file_is_not_held_up_by_messages_that_wait(ends, tmp_path):
    near, far = ends
    (tmp_path / "f.bin").write_bytes(bytes(3_000_000))
    for index in range(300):
        near.send(b"line %d" % index)
    accepting = in_background(far.accept_file, str(tmp_path / "inbox"), timeout=WAIT)
    near.send_file(str(tmp_path / "f.bin"), timeout=WAIT)
    accepting()
    assert far.receive(timeout=WAIT) == b"line 0"


@pytest.mark.parametrize("address", [("127.0.0.1", 0), ("127.0.0.1", 65_536), ("no such machine", 6020)])
def test_an_address_that_is_none(ends, address):
    with pytest.raises(rdt.RdtError, match="cannot connect to"):
        ends[0].transport.connect(address)


def test_a_name_that_leaves_the_folder_is_refused(ends, tmp_path):
    near, far = ends
    near.channel.send_frame(frames.FILE, frames.encode_offer(2, 3, "../evil.txt"))
    with pytest.raises(rdt.RdtError):
        far.accept_file(str(tmp_path / "inbox"), timeout=WAIT)
    assert not (tmp_path / "evil.txt").exists()


def test_a_file_that_is_not_there(ends, tmp_path):
    with pytest.raises(rdt.RdtError, match="cannot send to 127.0.0.1"):
        ends[0].send_file(str(tmp_path / "nothing"))


def test_nobody_answers():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent, rdt.open("127.0.0.1", 0) as here:
        silent.bind(("127.0.0.1", 0))
        with pytest.raises(rdt.RdtError, match="cannot connect to 127.0.0.1:%d: timed out" % silent.getsockname()[1]):
            here.connect(silent.getsockname(), timeout=0.5)


def test_nothing_came_in_time(ends):
    with pytest.raises(rdt.RdtError, match="no message from 127.0.0.1"):
        ends[0].receive(timeout=0.05)
    with pytest.raises(rdt.RdtError, match="nobody connected"):
        ends[0].transport.accept(timeout=0.05)


def test_a_port_that_is_taken():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 0))
        with pytest.raises(rdt.RdtError, match="is taken by another program"):
            rdt.open("127.0.0.1", other.getsockname()[1])


def test_an_address_of_another_machine():
    with pytest.raises(rdt.RdtError, match="is not an address of this machine"):
        rdt.open("198.51.100.1", 0)


def test_the_port_is_free_at_once_after_close():
    first = rdt.open("127.0.0.1", 0)
    port = first.address[1]
    first.close()
    rdt.open("127.0.0.1", port).close()
    with pytest.raises(rdt.RdtError, match="closed"):
        first.connect(("127.0.0.1", 9))


def test_close_delivers_what_was_sent():
    there = rdt.open("127.0.0.1", 0)
    here = rdt.open("127.0.0.1", 0)
    connection = here.connect(there.address, timeout=WAIT)
    accepted = there.accept(timeout=WAIT)
    for index in range(100):
        connection.send(b"%d" % index)
    here.close()
    assert [accepted.receive(timeout=WAIT) for _ in range(100)] == [b"%d" % index for index in range(100)]
    there.close()


def test_random_and_damaged_datagrams_during_a_transfer(ends, tmp_path):
    near, far = ends
    content = os.urandom(8_000_000)
    (tmp_path / "f.bin").write_bytes(content)
    rng = random.Random(7)
    accepting = in_background(far.accept_file, str(tmp_path / "inbox"), timeout=WAIT)
    sending = in_background(near.send_file, str(tmp_path / "f.bin"), timeout=WAIT)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as x:
        for index in range(5000):
            datagram = bytearray(rng.getrandbits(8 * 60).to_bytes(60, "big")[: rng.randrange(60)])
            if index % 2 and len(datagram) >= wire.PREFIX_SIZE:
                datagram[4:6] = bytes([wire.VERSION, rng.randrange(12)])
                wire.seal(datagram)
            x.sendto(datagram, near.transport.address if index % 3 else far.transport.address)
    assert sending().sha256 == accepting().sha256 == hashlib.sha256(content).hexdigest()
    assert near.transport._network.is_alive()
    assert far.transport._network.is_alive()


@pytest.mark.parametrize("offload", [True, False], ids=["segmented if the system can", "one by one"])
def test_with_and_without_segmentation(tmp_path, monkeypatch, offload):
    if not offload:
        monkeypatch.setenv(rdt.NO_OFFLOAD, "1")
    content = os.urandom(6_000_000)
    (tmp_path / "f.bin").write_bytes(content)
    with rdt.open("127.0.0.1", 0) as here, rdt.open("127.0.0.1", 0) as there:
        for transport in (here, there):
            transport._network.endpoint.datagram_size_max = 1472
        near = here.connect(there.address, timeout=WAIT)
        accepting = in_background(there.accept(timeout=WAIT).accept_file, str(tmp_path / "inbox"), timeout=WAIT)
        near.send_file(str(tmp_path / "f.bin"), timeout=WAIT)
        assert accepting().sha256 == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("offload", [True, False], ids=["merged by the system if it can", "merged here"])
@pytest.mark.parametrize("seed", range(5))
def test_datagrams_are_handed_on_as_they_came_merged_or_not(monkeypatch, seed, offload):
    print("seed", seed)
    rng = random.Random(seed)
    if not offload:
        monkeypatch.setenv(rdt.NO_OFFLOAD, "1")
    datagrams = Datagrams("127.0.0.1", 0)
    with contextlib.closing(datagrams), contextlib.ExitStack() as stack:
        senders = [stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) for _ in range(2)]
        sent, size, sender = [], 1472, senders[0]
        for _ in range(100):
            if rng.random() < 0.1:
                sender, size = rng.choice(senders), rng.choice((1472, 1472, 1000, 60, 30_000))
            length = size if rng.random() < 0.9 else rng.randrange(1, size)
            sent.append(rng.getrandbits(8 * length).to_bytes(length, "big"))
            sender.sendto(sent[-1], datagrams.address)
            if rng.random() < 0.05:
                receive_all(datagrams, sent, senders)
        receive_all(datagrams, sent, senders)
        assert not sent


def receive_all(datagrams, sent, senders):
    """Take all that is there, and what is expected of it off the front of `sent`."""
    ports = {sender.getsockname()[1] for sender in senders}
    for data, segment_size, address in datagrams.arrivals(1000):
        assert address[1] in ports
        for start in range(0, len(data), segment_size):
            assert bytes(data[start : start + segment_size]) == sent.pop(0)


def test_bytes_on_their_way_to_the_network_thread_count_as_backlog():
    """They once did not: a quick disk filled a link beyond what its own node allowed, which then gave the link up."""
    with rdt.open("127.0.0.1", 0) as there:
        network = rdt.open_network("127.0.0.1", 0)  # its thread does not run yet
        events = Recorder()
        links = rdt.Links(network, events)
        link = links.connect(there.address)
        messages = [b"%d" % index * 1_000_000 for index in range(3)]
        for message in messages:
            links.send(link, message[:10], message[10:])
        assert links.backlog(link) == 3_000_000
        network.start()
        accepted = there.accept(timeout=WAIT)
        assert [accepted.receive(timeout=WAIT) for _ in messages] == messages
        assert [events.next(WAIT)[0] for _ in range(2)] == ["on_link_up", "on_writable"]
        network.close(WAIT)
        assert links.backlog(link) == 0


def test_a_file_damaged_on_the_way_is_sent_again_with_checksums_over_its_bytes(ends, tmp_path):
    near, far = ends
    content = os.urandom(3_000_000)
    (tmp_path / "f.bin").write_bytes(content)
    sent, seen = near.transport._network.datagrams.send, []

    def damaging(batch, now):
        header = batch.buffers[0]
        seen.append(header[5])
        if header[5] == wire.PacketType.BULK:  # each of them: only what is checked comes through
            flipped = bytearray(batch.buffers[1])
            flipped[0] ^= 1
            batch = batch._replace(buffers=[header, flipped, *batch.buffers[2:]])
        return sent(batch, now)

    near.transport._network.datagrams.send = damaging
    accepting = in_background(far.accept_file, str(tmp_path / "inbox"), timeout=WAIT)
    receipt = near.send_file(str(tmp_path / "f.bin"), timeout=WAIT)
    assert receipt.sha256 == accepting().sha256 == hashlib.sha256(content).hexdigest()
    assert os.listdir(tmp_path / "inbox") == ["f.bin"]
    last = len(seen) - 1 - seen[::-1].index(wire.PacketType.BULK)
    assert wire.PacketType.DATA in seen[last:]
