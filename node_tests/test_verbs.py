"""What each verb does, returns and raises, in every order of the other side's and one's own acts (loopback)."""

from __future__ import annotations

import array
import contextlib
import errno
import os
import pathlib
import re
import select
import selectors
import socket
import sys
import threading
import time

import pytest

import rdt
from node_tests.stage.background import WAIT, in_background
from protocol.transport.frames import FRAME_HEADER_SIZE, MESSAGE
from sockets import dialling, hub
from sockets.arguments import ips_of
from sockets.dialling import Dial
from sockets.hub import result_of
from sockets.waiting import Waiting
from sockets.watch import Watch

MIB = 1 << 20
BACK_SOON = 5.0  # seconds that a verb which comes back "at once" may have on a busy machine


@pytest.fixture
def opened():
    """Opens transports; closes them in the end, whatever they say about what was not delivered."""
    made = []

    def open_one(**how):
        made.append(rdt.open("127.0.0.1", 0) if not how else rdt.Transport("127.0.0.1", 0, **how))
        if how:
            made[-1].start()
        return made[-1]

    yield open_one
    for transport in made:
        with contextlib.suppress(rdt.RdtError):
            transport.close(timeout=0)


@pytest.fixture
def ends(opened):
    """(one end, other end) of a connection between two transports."""
    here, there = opened(), opened()
    near = here.connect(there.address, timeout=WAIT)
    return near, there.accept(timeout=WAIT)


def fill(near):
    """Send until no more is taken: the other side does not read."""
    with pytest.raises(rdt.RdtError, match="took nothing in time"):
        while True:
            near.send(bytes(MIB), timeout=0.05)


def fall_silent(transport):
    """As a killed process does: no good-bye."""
    transport._network.stop(WAIT)


def error_of(verb, *args, **kwargs):
    with pytest.raises(rdt.RdtError) as caught:
        verb(*args, **kwargs)
    return str(caught.value)


# ---- several threads in one verb ----------------------------------------------------------------------------------


def test_long_messages_to_several_receivers_arrive_whole_each_at_one(ends):
    near, far = ends
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        sent = [bytes([number]) * (2 * MIB + number) for number in range(12)]
        receiving = [in_background(lambda: [far.receive(WAIT) for _ in range(4)]) for _ in range(3)]
        for message in sent:
            near.send(message, timeout=WAIT)
        assert sorted(message for result in receiving for message in result()) == sent
    finally:
        sys.setswitchinterval(interval)


def test_long_messages_of_several_senders_are_not_too_much_together(ends):
    """Their parts once came mixed, and 65 MiB of them at a time ended the connection."""
    near, far = ends
    sending = [in_background(near.send, bytes([number]) * (33 * MIB), timeout=WAIT) for number in (1, 2)]
    assert {far.receive(WAIT)[:1] for _ in sending} == {b"\1", b"\2"}
    for result in sending:
        result()


def test_a_receiver_whose_time_is_up_leaves_another_waiting(ends):
    near, far = ends
    waiting = in_background(far.receive)
    assert error_of(far.receive, timeout=0.05).endswith("within 0.05 s")  # not what was left of it at the last look
    near.send(b"for the other")
    assert waiting() == b"for the other"


def test_two_who_accept_files_take_one_each(ends, tmp_path):
    near, far = ends
    (tmp_path / "f.bin").write_bytes(os.urandom(3 * MIB))
    taking = [in_background(far.accept_file, tmp_path / "inbox", timeout=WAIT) for _ in range(2)]
    for _ in taking:
        near.send_file(tmp_path / "f.bin", timeout=WAIT)
    assert [result().size for result in taking] == [3 * MIB] * 2


def test_a_second_file_at_once_is_refused_to_its_sender(ends, tmp_path):
    near, far = ends
    (tmp_path / "f.bin").write_bytes(b"x")
    begun = threading.Event()
    first = in_background(near.send_file, tmp_path / "f.bin", lambda done, size: begun.set(), timeout=WAIT)
    assert begun.wait(WAIT)
    assert "is being sent" in error_of(near.send_file, tmp_path / "f.bin")
    far.accept_file(tmp_path / "inbox", timeout=WAIT)
    first()


def test_the_rest_of_a_file_given_up_is_taken_out_beside_a_reader(ends):
    """The queue was once turned round, while its reader took from it: whole files came out of order, as damaged."""
    waiting = Waiting()
    for number in range(5000):
        waiting.put(number)
    taken = in_background(lambda: [waiting.take() for _ in range(2000)])
    removed = {number for at in range(5) for number in waiting.remove(lambda number, at=at: number % 10 == at)}
    left = [number for number in range(5000) if number not in removed]
    got = taken()                       # before the rest goes, for which it might wait on a busy machine
    rest = waiting.take_several(0)
    assert got == sorted(got) and rest == sorted(rest)
    assert sorted(got + rest) == left


# ---- verbs that wait, and the end ---------------------------------------------------------------------------------


def test_whoever_waits_comes_back_when_the_own_transport_closes(ends, tmp_path):
    near, _ = ends
    here = near.transport
    waits = [
        in_background(error_of, here.accept),
        in_background(error_of, here.accept_all, 3),
        in_background(error_of, near.receive),
        in_background(error_of, near.accept_file, tmp_path),
    ]
    time.sleep(0.05)
    here.close()
    assert all("closed" in result() for result in waits)


def test_whoever_waits_comes_back_though_nothing_can_be_delivered(ends):
    near, _ = ends
    fill(near)
    waits = [in_background(error_of, near.receive), in_background(error_of, near.send, bytes(MIB))]
    assert "were not delivered" in error_of(near.transport.close, timeout=0.1)
    assert all("closed" in result() for result in waits)


def test_every_verb_on_what_is_closed_fails_at_once(ends, tmp_path):
    near, far = ends
    (tmp_path / "f.bin").write_bytes(b"x")
    here = near.transport
    here.close()
    here.close()
    began = time.monotonic()
    for verb, *args in (
        (here.connect, far.transport.address), (here.accept,), (here.accept, 1.0), (here.accept_all,),
        (here.accept_all, 1), (here.broadcast, b"x"), (near.send, b"x"), (near.send, bytes(3 * MIB)), (near.receive,),
        (near.send_file, tmp_path / "f.bin"), (near.accept_file, tmp_path),
    ):  # fmt: skip
        assert "closed" in error_of(verb, *args)
    here.disconnect(near)
    assert time.monotonic() - began < BACK_SOON


def test_each_side_is_told_who_closed(ends):
    near, far = ends
    near.transport.disconnect(near)
    assert error_of(near.send, b"x").endswith("closed by this side")
    assert error_of(near.receive).endswith("closed by this side")
    assert error_of(far.receive, WAIT).endswith("closed by the other side")
    assert error_of(far.send, b"x").endswith("closed by the other side")
    far.transport.disconnect(far)


def test_what_came_before_ones_own_disconnect_can_still_be_received(ends):
    near, far = ends
    near.send(b"one")
    near.send(b"two")
    assert far.receive(WAIT) == b"one"
    near.transport.disconnect(near)
    far.transport.disconnect(far)
    assert far.receive(WAIT) == b"two"
    assert "closed" in error_of(far.receive, WAIT)


def test_a_transport_never_started_closes():
    transport = rdt.Transport("127.0.0.1", 0)
    transport.close()
    assert "closed" in error_of(transport.accept)


def test_a_second_close_waits_for_the_first(ends):
    near, _ = ends
    fill(near)
    first = in_background(error_of, near.transport.close, timeout=0.3)
    while not near.transport._network.is_closing:
        time.sleep(0.001)
    near.transport.close()
    assert not near.transport._network.is_alive()
    assert "not delivered" in first()


def test_a_connection_that_was_made_too_late_for_its_caller_is_closed_again(opened):
    here, there = opened(), opened()
    resume, asleep = threading.Event(), threading.Event()
    there._network.inbox.post(lambda: (asleep.set(), resume.wait(WAIT)))
    assert asleep.wait(WAIT)
    assert "timed out" in error_of(result_of, _posted_connect(here, there), 0.01, "cannot connect")
    resume.set()
    bound = time.monotonic() + WAIT
    while there._network.endpoint.next_deadline() == float("inf") or here._hub._channels or there._hub._channels:
        assert time.monotonic() < bound
        time.sleep(0.001)
    assert not here._hub._established()


def _posted_connect(here, there):
    dial = Dial([there.address], WAIT, here._network.clock(), "there")
    here._network.inbox.post(lambda: here._hub._begin(dial))
    while not here._hub._connecting:
        time.sleep(0.001)
    return dial.answer


# ---- what was not delivered ---------------------------------------------------------------------------------------


def test_close_tells_what_was_lost_while_it_waited(ends):
    near, far = ends
    for _ in range(3):
        near.send(bytes(1_000_000))
    closing = in_background(error_of, near.transport.close, timeout=WAIT)
    far.transport.disconnect(far)
    said = closing()
    got = 0  # whole ones that had come before the end can still be received
    with contextlib.suppress(rdt.RdtError):
        while far.receive(timeout=0):
            got += 1
    left = (3 - got) * (1_000_000 + 5)
    assert left and "%d bytes were not delivered to 127.0.0.1:%d" % (left, far.transport.address[1]) in said


def test_disconnect_tells_what_the_other_side_left_and_tells_it_again(ends):
    near, far = ends
    near.send(bytes(MIB))
    far.transport.disconnect(far)
    for _ in range(2):
        text = error_of(near.transport.disconnect, near, timeout=WAIT)
        assert "%d bytes were not delivered" % (MIB + 5) in text and "closed by the other side" in text
    near.transport.close()  # a verb has said it


def test_close_tells_of_ends_that_no_verb_has_told(ends):
    near, far = ends
    near.send(bytes(MIB))
    far.transport.disconnect(far)
    assert near.channel.ended.wait(WAIT)
    assert "%d bytes were not delivered" % (MIB + 5) in error_of(near.transport.close)


def test_leaving_a_connection_by_with_tells_it_too_but_hides_no_other_error(ends):
    near, far = ends
    near.send(bytes(MIB))
    far.transport.disconnect(far)
    assert near.channel.ended.wait(WAIT)
    with pytest.raises(ZeroDivisionError), near:
        print(1 / 0)
    with pytest.raises(rdt.RdtError, match="not delivered"), near:
        pass


def test_disconnect_that_runs_out_of_time_tells_and_ends_it(ends):
    near, far = ends
    fill(near)
    assert "were not delivered" in error_of(near.transport.disconnect, near, timeout=0.05)
    assert "closed" in error_of(near.send, b"x")
    far.receive(WAIT)  # the first was on its way whole, or it is not there
    near.transport.close()


def test_a_message_posted_behind_the_end_is_told(ends):
    """send() had its check behind it when the connection ended: it returned, and disconnect() knew of nothing."""
    near, far = ends
    with near.transport._network.inbox.gate:
        near.channel._posted_size += 5
    far.transport.disconnect(far)
    assert near.channel.ended.wait(WAIT)
    near.channel.post(lambda: near.channel._queue_frame(MESSAGE, (b"hello",), 5, False))
    assert "5 bytes were not delivered" in error_of(near.transport.disconnect, near)


@pytest.mark.parametrize("seed", range(10))
def test_sending_while_the_other_side_closes_loses_nothing_silently_and_reports_nothing_that_was_read(ends, seed):
    near, far = ends
    got, sent = [], 0

    def read_all():
        with contextlib.suppress(rdt.RdtError):
            while True:
                got.append(far.receive(WAIT))

    reading = in_background(read_all)
    for _ in range(3 * seed):
        near.send(b"x" * 50)
        sent += 1
    closing = in_background(far.transport.disconnect, far)
    with contextlib.suppress(rdt.RdtError):
        for _ in range(20):
            near.send(b"x" * 50)
            sent += 1
    said = ""
    try:
        near.transport.disconnect(near, timeout=WAIT)
    except rdt.RdtError as error:
        said = str(error)
    closing()
    reading()
    assert ("not delivered" in said) == (sent > len(got)), (sent, len(got), said)


class Clock:
    """Real time that a test may put forward."""

    def __init__(self):
        self.ahead = 0.0

    def __call__(self):
        return time.monotonic() + self.ahead


@pytest.mark.parametrize("verb", ["close", "disconnect"])
def test_a_remote_that_falls_silent_while_a_verb_waits_is_told_as_what_it_is(opened, verb):
    """close() once returned as if all were well when the idle limit fell inside its wait."""
    clock = Clock()
    here, there = opened(clock=clock), opened()
    near = here.connect(there.address, timeout=WAIT)
    near.send(b"read")
    assert there.accept(WAIT).receive(WAIT) == b"read"
    while near.channel.core.backlog:
        time.sleep(0.001)
    fall_silent(there)
    near.send(b"x")
    ending = in_background(error_of, *((here.close,) if verb == "close" else (here.disconnect, near)), timeout=WAIT)
    while not near.channel._is_leaving:
        time.sleep(0.001)
    while not near.channel.ended.is_set():
        clock.ahead += 1.0
        here._network.inbox.wake()
        time.sleep(0.01)
    assert "6 bytes were perhaps not delivered" in ending()


def test_a_kept_file_has_its_receipt_though_the_sender_is_gone(ends, tmp_path, monkeypatch):
    near, far = ends
    (tmp_path / "f.bin").write_bytes(b"whole")
    finish = rdt.SequentialWriter.finish

    def finish_late(writer):
        path = finish(writer)
        near.transport.close(timeout=WAIT)
        assert far.channel.ended.wait(WAIT)
        return path

    monkeypatch.setattr(rdt.SequentialWriter, "finish", finish_late)
    sending = in_background(error_of, near.send_file, tmp_path / "f.bin", timeout=WAIT)
    assert far.accept_file(tmp_path / "inbox", timeout=WAIT).size == 5
    assert (tmp_path / "inbox" / "f.bin").read_bytes() == b"whole"
    assert "closed" in sending()


# ---- wrong use ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [("127.0.0.1", 28099), ("127.0.0.1:28099", 1), (None,), (("127.0.0.1",),), (("127.0.0.1", 70_000),), (("", 1),),
     (("127.0.0.1", "x"),), (("127.0.0.1", 1.5),), ((5, 5),), (("127.0.0.1", 9), -1), (("127.0.0.1", 9), "2"),
     (("127.0.0.1", 9), float("nan")), (("0.0.0.0", 9),)],
    ids=repr,
)  # fmt: skip
def test_connect_to_what_is_no_address_is_wrong_use_at_once(opened, arguments):
    transport = opened()
    began = time.monotonic()
    with pytest.raises(rdt.WrongUse) as caught:
        transport.connect(*arguments)
    assert isinstance(caught.value, rdt.RdtError) and isinstance(caught.value, (TypeError, ValueError))
    assert time.monotonic() - began < BACK_SOON


def test_the_error_shows_what_was_given_and_what_is_right(opened):
    text = error_of(opened().connect, "127.0.0.1:28099", 1)
    assert "127.0.0.1:28099" in text and 'connect(("127.0.0.1", 6020))' in text


@pytest.mark.parametrize(
    "arguments", [("127.0.0.1", 70_000), ("127.0.0.1", -1), (None, 0), (("127.0.0.1", 0),)], ids=repr
)
def test_open_of_what_is_no_address_is_wrong_use(arguments):
    with pytest.raises(rdt.WrongUse):
        rdt.open(*arguments)


def test_a_port_may_be_text(opened):
    here, there = opened(), opened()
    assert here.connect((there.address[0], str(there.address[1])), timeout=WAIT)


@pytest.mark.parametrize("data", ["text", None, 5, [1, 2], 1.5], ids=repr)
def test_a_message_that_is_no_bytes_is_wrong_use(ends, data):
    for verb in (ends[0].send, ends[0].transport.broadcast):
        with pytest.raises(rdt.WrongUse, match="a message is bytes"):
            verb(data)
    ends[0].send(b"and the connection lives")
    assert ends[1].receive(WAIT) == b"and the connection lives"


def test_views_of_any_items_and_steps_are_sent_whole(ends):
    """A view of doubles was measured in items and sent in bytes: the message vanished."""
    near, far = ends
    wide = array.array("d", [1.5] * 150_000)
    backwards, table = memoryview(b"abcdef")[::-2], memoryview(bytes(range(12))).cast("B", (3, 4))
    own = bytearray(b"mine")
    for data in (memoryview(wide), wide, backwards, table, own):
        near.send(data)
    own[:] = b"gone"
    assert [far.receive(WAIT) for _ in range(5)] == [wide.tobytes()] * 2 + [b"fdb", bytes(range(12)), b"mine"]
    assert near.transport.broadcast(memoryview(wide)[:1000]) == 1
    assert far.receive(WAIT) == wide.tobytes()[:8000]


def test_a_message_over_the_limit_is_wrong_use(ends):
    for verb, size in ((ends[0].send, 64 * MIB + 1), (ends[0].transport.broadcast, 2 * MIB)):
        with pytest.raises(rdt.WrongUse, match="too long"):
            verb(memoryview(bytes(size)))


@pytest.mark.parametrize("path", [None, 5, "", "a\0b", ["x"]], ids=repr)
def test_a_path_that_is_none_is_wrong_use(ends, path):
    for verb in (ends[0].send_file, ends[0].accept_file):
        with pytest.raises(rdt.WrongUse, match="is no path"):
            verb(path, timeout=WAIT)
    with pytest.raises(rdt.WrongUse, match="progress"):
        ends[0].accept_file("somewhere", 10)


@pytest.mark.parametrize("form", [str, pathlib.Path, os.fsencode], ids=["text", "pathlib", "bytes"])
def test_paths_in_each_form(ends, tmp_path, form):
    near, far = ends
    (tmp_path / "f.bin").write_bytes(b"content")
    accepting = in_background(far.accept_file, form(tmp_path / "inbox"), timeout=WAIT)
    assert near.send_file(form(tmp_path / "f.bin"), timeout=WAIT).path == os.path.realpath(tmp_path / "f.bin")
    assert accepting().path == str(tmp_path / "inbox" / "f.bin")


def test_disconnect_of_what_is_no_connection_of_this_transport(ends):
    near, far = ends
    for other in (None, near.transport, far):
        with pytest.raises(rdt.WrongUse, match="connection"):
            near.transport.disconnect(other)
    far.send(b"it lives")
    assert near.receive(WAIT) == b"it lives"


# ---- broadcast and accept_all -------------------------------------------------------------------------------------


def test_broadcast_says_whom_it_did_not_reach_and_drops_nobody(opened):
    server, clients = opened(), [opened() for _ in range(2)]
    slow, quick = [client.connect(server.address, timeout=WAIT) for client in clients]
    server.accept_all(2, timeout=WAIT)
    while True:
        try:
            assert server.broadcast(bytes(MIB), timeout=0) == 2
        except rdt.RdtError as error:
            assert str(error).startswith("the broadcast went to 1 and not to 1: 127.0.0.1:%d" % clients[0].address[1])
            break
        assert len(quick.receive(WAIT)) == MIB
    assert len(quick.receive(WAIT)) == MIB
    for _ in range(rdt.BROADCAST_HIGH // MIB):
        assert len(slow.receive(WAIT)) == MIB
    assert server.broadcast(b"again", timeout=WAIT) == 2


def test_broadcast_counts_only_those_that_are_open(ends):
    near, far = ends
    assert near.transport.broadcast(b"one") == 1
    far.transport.disconnect(far)
    assert near.channel.ended.wait(WAIT)
    assert near.transport.broadcast(b"none") == 0


def test_accept_all_waits_for_as_many_as_are_asked_for(opened):
    server, clients = opened(), [opened() for _ in range(3)]
    for client in clients:
        client.connect(server.address, timeout=WAIT)
    accepted = server.accept_all(count=3, timeout=WAIT)
    assert [each.address for each in accepted] and len(accepted) == 3
    assert server.accept_all() == []


def test_accept_all_that_gets_too_few_leaves_them_to_the_next(opened):
    server, client = opened(), opened()
    client.connect(server.address, timeout=WAIT)
    assert "fewer than 2 connected" in error_of(server.accept_all, 2, timeout=0.2)
    assert server.accept(timeout=WAIT)
    for count in (-1, "3", None):
        with pytest.raises(rdt.WrongUse):
            server.accept_all(count)


def test_connections_that_nobody_accepts_do_not_pile_up(opened, monkeypatch):
    monkeypatch.setattr(hub, "ACCEPTED_MAX", 2)
    server, client = opened(), opened()
    made = [client.connect(server.address, timeout=WAIT) for _ in range(3)]
    assert "nobody accepts connections there" in error_of(made[2].receive, WAIT)
    assert len(server.accept_all(2, timeout=WAIT)) == 2
    client.connect(server.address, timeout=WAIT).send(b"room again")
    assert server.accept(WAIT).receive(WAIT) == b"room again"


# ---- what must not pile up ----------------------------------------------------------------------------------------


def test_senders_wait_for_room_in_the_sum_of_all_and_nobody_who_reads_is_closed_for_it(opened):
    """Each had room of its own: what waited for all together passed its bound, and the slowest were closed."""
    here = opened()
    here._network.endpoint.backlogs.bound(4 * MIB)
    pairs = []
    for _ in range(6):
        there = opened()
        pairs.append((here.connect(there.address, timeout=WAIT), there.accept(timeout=WAIT)))

    def send(near):
        for number in range(10):
            near.send(bytes([number]) * MIB, timeout=WAIT)

    def receive(there):
        return [there.receive(timeout=WAIT)[0] for _ in range(10)]

    senders = [in_background(send, near) for near, _ in pairs]
    readers = [in_background(receive, there) for _, there in pairs]
    assert all(read() == list(range(10)) for read in readers)
    assert not any(send() for send in senders)
    assert not here.stats().get("closed: took nothing while others needed the room")


def test_who_takes_nothing_does_not_keep_the_room_of_all_from_who_does(opened):
    here, deaf, reading = opened(), opened(), opened()
    here._network.endpoint.backlogs.bound(4 * MIB)
    full = here.connect(deaf.address, timeout=WAIT)
    with pytest.raises(rdt.RdtError, match="too much waits for others"):
        while True:
            full.send(bytes(MIB), timeout=0.05)
    here.connect(reading.address, timeout=WAIT).send(bytes(MIB), timeout=WAIT)
    assert reading.accept(timeout=WAIT).receive(timeout=WAIT) == bytes(MIB)
    with pytest.raises(rdt.RdtError, match="took nothing for .* and room is needed"):
        full.send(b"more", timeout=WAIT)


def test_a_reader_wakes_the_network_thread_only_when_the_sender_is_to_hear_of_it(ends, monkeypatch):
    """It was woken for each message that was read, and had nothing to say."""
    near, far = ends
    inbox, woken = far.transport._network.inbox, []
    monkeypatch.setattr(inbox, "wake_up", lambda: woken.append(True) or inbox.wake())
    for number in range(100):
        near.send(b"%d" % number)
        assert far.receive(WAIT) == b"%d" % number
    assert not woken
    monkeypatch.setattr(far.channel.core.arrival, "is_news", lambda size: size >= 4 + FRAME_HEADER_SIZE)
    for message, count in ((b"one", 0), (b"four", 1)):
        near.send(message)
        assert far.receive(WAIT) == message
        assert len(woken) == count


def test_what_came_of_a_long_message_that_was_given_up_is_dropped(ends):
    """It once lay at the receiver for ever, and at 64 MiB of such the connection was ended."""
    near, far = ends
    for _ in range(14):
        with pytest.raises(rdt.RdtError, match="took nothing in time"):
            near.send(bytes(20 * MIB), timeout=0)
        near.send(b"small", timeout=WAIT)
        assert far.receive(WAIT) == b"small"
        assert far._messages.joining.size == 0 and not far._messages.joining._parts


def test_a_send_that_ran_out_of_time_has_sent_nothing(ends):
    near, far = ends
    fill(near)
    with pytest.raises(rdt.RdtError, match="took nothing in time"):
        near.send(b"never", timeout=0.01)
    while near.channel.waiting_size() > rdt.BACKLOG_HIGH:
        assert far.receive(WAIT) == bytes(MIB)
    near.send(b"last")
    while True:
        message = far.receive(WAIT)
        if message != bytes(MIB):
            break
    assert message == b"last"


def test_files_not_taken_are_not_remembered_for_ever(ends, tmp_path):
    near, far = ends
    (tmp_path / "f.bin").write_bytes(bytes(10_000))
    (tmp_path / "inbox").write_text("a file where the folder should be")
    for _ in range(5):
        accepting = in_background(error_of, far.accept_file, tmp_path / "inbox", timeout=WAIT)
        assert "did not take the file" in error_of(near.send_file, tmp_path / "f.bin", timeout=WAIT)
        accepting()
    near.send(b"behind them")
    assert far.receive(WAIT) == b"behind them"
    assert not far.channel.arrivals._refused


# ---- more than 1,024 descriptors ----------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform == "win32", reason="there select() counts sockets, whatever their numbers")
def test_a_program_with_many_open_files_has_a_transport_that_works_and_rests():
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2048 if hard == resource.RLIM_INFINITY else min(2048, hard)
    if wanted < 1200:
        pytest.skip("this system gives no process so many")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    try:
        with contextlib.ExitStack() as stack:
            null = stack.enter_context(open(os.devnull, "rb"))
            for _ in range(1100):
                stack.callback(os.close, os.dup(null.fileno()))
            here, there = (stack.enter_context(rdt.open("127.0.0.1", 0)) for _ in range(2))
            with pytest.raises(ValueError):
                select.select([here._network.datagrams.fileno()], [], [], 0)
            near = here.connect(there.address, timeout=WAIT)
            near.send(bytes(3 * MIB))
            assert there.accept(WAIT).receive(WAIT) == bytes(3 * MIB)
            used = time.process_time()
            time.sleep(0.3)
            assert time.process_time() - used < 0.2  # it spun
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_full_socket_is_waited_for_by_either_means():
    left, right = socket.socketpair()
    with left, right:
        watch = Watch(left.fileno(), right.fileno())
        with contextlib.closing(watch):
            for selector in (None, selectors.SelectSelector()):
                watch._selector = selector
                if selector is not None:
                    for descriptor in watch._reading:
                        selector.register(descriptor, selectors.EVENT_READ)
                began = time.monotonic()
                assert watch.wait(WAIT, True) == []
                assert time.monotonic() - began < WAIT / 2
                assert watch.wait(0.0, False) == []
                right.send(b"x")
                assert watch.wait(WAIT, False) == [left.fileno()]
                left.recv(1)


@pytest.mark.parametrize("error, said", [
    (socket.gaierror(socket.EAI_NONAME, "unknown"), "no such machine is known"),
    (socket.gaierror(socket.EAI_AGAIN, "Temporary failure"), "could not be looked up: Temporary failure"),
    (OSError(errno.EMFILE, "Too many open files"), "could not be looked up: Too many open files")])  # fmt: skip
def test_a_name_that_could_not_be_looked_up_is_not_called_unknown(opened, monkeypatch, error, said):
    def refused(host, *_):
        raise error

    monkeypatch.setattr(socket, "getaddrinfo", refused)
    with pytest.raises(rdt.RdtError, match=said):
        opened().connect(("printer", 6020))


# ---- a name with several addresses (RFC 8305)


@pytest.fixture
def lab7(monkeypatch):
    """A machine of that name, at whichever loopback addresses a test says."""
    ips = []
    found = socket.getaddrinfo

    def look_up(host, *how):
        return [info for ip in ips for info in found(ip, *how)] if host == "lab7" else found(host, *how)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return ips


@pytest.fixture
def silent():
    """A port where nobody answers, at 127.0.0.2 and 127.0.0.3; at 127.0.0.1 it is free."""
    one, two = socket.socket(socket.AF_INET, socket.SOCK_DGRAM), socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with one, two:
        one.bind(("127.0.0.2", 0))
        two.bind(("127.0.0.3", one.getsockname()[1]))
        yield one.getsockname()[1]


@pytest.mark.parametrize("timeout", [WAIT, None])
def test_the_first_address_that_answers_is_taken_and_the_others_are_called_no_more(opened, lab7, silent, timeout):
    lab7 += ["127.0.0.2", "127.0.0.1", "127.0.0.3"]
    here, there = opened(), rdt.open("127.0.0.1", silent)
    with there:
        near = here.connect(("lab7", silent), timeout)
        assert near.address == ("127.0.0.1", silent)
        far = there.accept(WAIT)
        near.send(b"hello")
        assert far.receive(WAIT) == b"hello"
        assert here.broadcast(b"to one") == 1
        bound = time.monotonic() + WAIT
        while len(here._network.endpoint.connections) > 1 or here._hub._connecting or here._hub._dials:
            assert time.monotonic() < bound
            time.sleep(0.001)
        near.transport.disconnect(near)


@pytest.mark.parametrize("timeout", [0.05, 0.6])
def test_where_no_address_of_a_name_answers_all_are_named_with_why(opened, lab7, silent, timeout):
    lab7 += ["127.0.0.2", "127.0.0.3"]
    error = error_of(opened().connect, ("lab7", silent), timeout)
    assert error == f"cannot connect to lab7:{silent} (127.0.0.2, 127.0.0.3): timed out"


def test_one_address_refuses_the_next_is_called_at_once_and_each_has_its_own_reason(opened, lab7, silent, monkeypatch):
    lab7 += ["127.0.0.1", "127.0.0.2"]
    monkeypatch.setattr(dialling, "OTHER_INTERVAL", 600.0)  # the second one is called for the refusal, or never
    here, there = opened(), rdt.open("127.0.0.1", silent)
    with there:
        there._network.inbox.post(lambda: setattr(there._network.endpoint, "accepts", False))
        error = error_of(here.connect, ("lab7", silent), 1.5)
    assert re.fullmatch(rf"cannot connect to lab7:{silent}: 127.0.0.1: (?!timed).+; 127.0.0.2: timed out", error)


def test_a_transport_that_closes_meanwhile_ends_the_calls_of_all_addresses(opened, lab7, silent, monkeypatch):
    lab7 += ["127.0.0.2", "127.0.0.3"]
    monkeypatch.setattr(dialling, "OTHER_INTERVAL", 600.0)  # one is called, one is left
    here = opened()
    calling = in_background(error_of, here.connect, ("lab7", silent), None)
    while not here._hub._connecting:
        time.sleep(0.001)
    here.close(0)
    assert "closed" in calling()


def test_no_more_than_five_addresses_of_a_name_are_called():
    dial = Dial([(f"10.0.0.{number}", 6020) for number in range(9)], 5.0, 100.0, "lab7:6020")
    calls = []
    while dial.has_more():
        calls.append(dial.next_call(dial.next_at))
    assert [(ip, at - 100, left) for (ip, _), at, left in calls] == [
        (f"10.0.0.{number}", number * 0.25, 5 - number * 0.25) for number in range(5)]  # fmt: skip


def test_addresses_of_a_name_are_called_by_turns_of_each_family(lab7):
    lab7 += ["::1", "::2", "127.0.0.2", "127.0.0.2", "127.0.0.3", "127.0.0.4"]
    assert ips_of("lab7") == ["127.0.0.2", "::1", "127.0.0.3", "::2", "127.0.0.4"]


def test_a_transport_that_gets_no_socket_says_why(monkeypatch):
    def refused(*args):
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(socket, "socket", refused)
    with pytest.raises(rdt.RdtError, match="Too many open files"):
        rdt.open("127.0.0.1", 0)
