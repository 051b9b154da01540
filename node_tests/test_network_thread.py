"""The network thread and its inbox by themselves, without a face (loopback)."""

from __future__ import annotations

import socket
import threading

import pytest

import rdt
from sockets.thread import GATHERING_CONNECTIONS, GATHERING_SIZE_MAX, GATHERING_TIME, Face, Inbox

WAIT = 20.0  # seconds; a bound for a busy machine, not an expectation


def test_what_was_posted_before_the_end_is_done_in_order_and_what_comes_after_is_refused() -> None:
    inbox, done = Inbox("it is closed"), []
    for number in range(3):
        inbox.post(lambda number=number: done.append(number))  # type: ignore[misc]
    inbox.finish()
    assert done == [0, 1, 2]
    with pytest.raises(rdt.RdtError, match="it is closed"):
        inbox.post(lambda: done.append(3))
    inbox.close()
    assert done == [0, 1, 2]


def test_who_posts_wakes_the_thread_only_while_it_sleeps() -> None:
    inbox = Inbox("")
    inbox.post(int)
    assert inbox.begin_sleep(), "there is something already: no sleep"
    inbox.post(int)
    inbox.end_sleep([inbox.fileno()])  # and takes what woke it
    inbox.post(int)
    inbox.run()
    assert not inbox.begin_sleep()
    inbox.close()


def test_what_is_left_wakes_nobody_and_is_done_in_order_when_the_thread_comes_round() -> None:
    inbox, done = Inbox("it is closed"), []
    assert not inbox.begin_sleep()
    inbox.leave(lambda: done.append(1))
    with pytest.raises(BlockingIOError):
        inbox._wakened.recv(1)
    inbox.post(lambda: done.append(2))
    assert inbox._wakened.recv(1)
    inbox.run()
    assert done == [1, 2]
    inbox.leave(lambda: done.append(3))
    assert inbox.begin_sleep(), "it never sleeps with something left"
    inbox.finish()
    with pytest.raises(rdt.RdtError, match="it is closed"):
        inbox.leave(lambda: done.append(4))
    inbox.close()
    assert done == [1, 2, 3]


def test_a_thread_without_a_face_does_what_is_posted_and_frees_its_port() -> None:
    network = rdt.open_network("127.0.0.1", 0)
    network.start()
    done = threading.Event()
    network.inbox.post(done.set)
    assert done.wait(WAIT)
    assert network.close(WAIT) and not network.is_alive()
    assert not network.close(WAIT), "only the first ends anything"
    rdt.open_network("127.0.0.1", network.address[1]).release()


def test_a_face_is_told_of_the_closing_and_then_of_the_end() -> None:
    told = []

    class Listening(Face):
        def on_closing(self) -> None:
            told.append("closing")

        def on_over(self) -> None:
            told.append("over")

    network = rdt.open_network("127.0.0.1", 0)
    network.attach(Listening())
    network.start()
    network.close(WAIT)
    assert told == ["closing", "over"]


def test_a_trace_is_closed_when_there_is_no_socket_to_trace(tmp_path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    opened = []

    class Watched(rdt.TraceFile):
        def close(self) -> None:
            opened.append(self)
            super().close()

    monkeypatch.setattr(rdt, "TraceFile", Watched)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 0))
        with pytest.raises(rdt.RdtError, match="is taken by another program"):
            rdt.open_network("127.0.0.1", other.getsockname()[1], trace=str(tmp_path / "trace"))
    assert len(opened) == 1


class _Watch:
    """What the thread waits for, without waiting."""

    def __init__(self) -> None:
        self.waits: list[str] = []
        self.found: list[int] = []

    def wait_for_others(self, timeout: float) -> list[int]:
        assert 0 < timeout <= GATHERING_TIME
        self.waits.append("others")
        return self.found

    def wait(self, timeout: float, is_full: bool) -> list[int]:
        self.waits.append("all")
        return []

    def close(self) -> None: ...


def test_where_very_many_are_connected_what_comes_in_a_moment_is_taken_together_unless_there_is_more_to_do() -> None:
    thread = rdt.NetworkThread("127.0.0.1", 0)
    thread.watch.close()
    thread.watch = watch = _Watch()  # type: ignore[assignment]
    connected = [0]
    thread.endpoint.connection_count = lambda: connected[0]  # type: ignore[method-assign]

    def waits(moved: int = 100) -> list[str]:
        watch.waits.clear()
        thread._moved = moved
        thread._sleep()
        return list(watch.waits)

    try:
        assert waits() == ["all"]
        connected[0] = GATHERING_CONNECTIONS
        assert waits() == ["others", "all"]
        assert waits(GATHERING_SIZE_MAX + 1) == ["all"], "a transfer is under way"
        watch.found = [thread.inbox.fileno()]
        assert waits() == ["others"], "somebody has woken it"
        thread.inbox.post(lambda: None)
        assert waits() == ["all"], "something is there already"
    finally:
        thread.watch.close()
        thread.release()
