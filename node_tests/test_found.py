"""The port that a person knows, over real sockets: the door of the transport, and the program as processes."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import socket
import time
from pathlib import Path
from typing import Any, Iterator, List, Optional, Tuple

import pytest

import rdt
from node_tests.stage.keys import member
from node_tests.stage.lab import MIB
from node_tests.stage.recorder import Recorder
from node_tests.stage.running import PATIENCE, Running, free_port
from prompt.session import Session
from prompt.settings import NodeError
from prompt.stopping import Stops
from protocol.credentials import Credentials
from protocol.membership.door import ports_behind
from protocol.messages import Answer, Query, Wanted, encode
from protocol.results import Outcome

LOOPBACK = "127.0.0.1"


class Ends:
    """A transport as the roles have it, and what it is told."""

    def __init__(self, credentials: Optional[Credentials] = None) -> None:
        self.events = Recorder()
        self.network = rdt.open_network(LOOPBACK, 0, credentials=credentials)
        self.links = rdt.Links(self.network, self.events)
        self.network.start()

    def next(self, kind: str) -> Any:
        """The next event of that kind."""
        while True:
            event = self.events.next(PATIENCE)
            if event[0] == kind:
                return event[1:]


@contextlib.contextmanager
def open_ends(*credentials: Optional[Credentials]) -> Iterator[List[Ends]]:
    ends = [Ends(each) for each in credentials]
    yield ends
    for one in ends:
        one.network.close(1.0)


@pytest.fixture
def pair() -> Iterator[List[Ends]]:
    with open_ends(None, None) as ends:
        yield ends


def wait_until(is_met: Any) -> None:
    deadline = time.monotonic() + PATIENCE
    while not is_met():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
        return True


def test_a_door_opens_when_its_port_is_free_answers_there_and_closes_with_the_transport(pair: List[Ends]) -> None:
    here, there = pair
    port = free_port()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other_program:
        other_program.bind((LOOPBACK, port))
        here.links.hold_door(port)
        here.links.send_by_door((LOOPBACK, 9), b"nobody has it yet")
        assert not here.links.has_door()
    wait_until(here.links.has_door)
    there.links.send_lone((LOOPBACK, port), b"who is there?")
    assert here.next("on_door_lone") == (there.network.address, b"who is there?")
    here.links.send_by_door(there.network.address, b"a member")
    assert there.next("on_lone") == ((LOOPBACK, port), b"a member")
    here.network.close(1.0)
    wait_until(lambda: is_free(port))


def test_a_link_by_the_door_has_a_negative_number_and_is_a_link_like_any_other(pair: List[Ends]) -> None:
    here, there = pair
    port = free_port()
    here.links.hold_door(port)
    wait_until(here.links.has_door)
    out = there.links.connect((LOOPBACK, port))
    link, address, is_incoming = here.next("on_link_up")
    assert link < 0 and address == there.network.address and is_incoming
    there.links.send(out, b"may I join?")
    message = here.next("on_message")
    assert (message[0], bytes(message[1])) == (link, b"may I join?")
    here.links.consumed(link, len(message[1]))
    here.links.send(link, b"there, not here")
    here.links.disconnect(link, "not the supernode")
    assert bytes(there.next("on_message")[1]) == b"there, not here"
    assert there.next("on_link_lost") == (out, "not the supernode")
    here.links.hold_door(0)
    wait_until(lambda: is_free(port))
    here.links.send(link, b"to nobody")
    there.links.send_lone(here.network.address, b"still here?")
    assert here.next("on_lone")[1] == b"still here?"


def test_of_a_link_by_the_door_is_known_what_is_known_of_any() -> None:
    """Whose certificate it shows, what waits for it or was not heard yet, and how its path does."""
    with open_ends(member(0), member(1)) as (here, there):
        port = free_port()
        here.links.hold_door(port)
        wait_until(here.links.has_door)
        out = there.links.connect((LOOPBACK, port))
        link = here.next("on_link_up")[0]
        assert link < 0 and here.links.fingerprint(link) == member(1).fingerprint
        assert there.next("on_link_up")[0] == out and there.links.fingerprint(out) == member(0).fingerprint
        there.links.send(out, b"may I join?")
        message = here.next("on_message")[1]
        assert here.links.has_unread(link) and here.links.figures(link) is not None
        here.links.consumed(link, len(message))
        wait_until(lambda: not here.links.has_unread(link))
        for _ in range(8):  # nobody there takes them out of its window
            here.links.send(link, bytes(MIB))
        assert here.links.backlog(link) > 0
        here.links.hold_door(0)
        wait_until(lambda: here.links.figures(link) is None)
        assert here.links.fingerprint(link) is None and not here.links.has_unread(link)


def test_a_door_opens_in_a_program_that_has_a_thousand_descriptors_open(pair: List[Ends]) -> None:
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < 1300:
        pytest.skip("so many may not be open here")
    here, there = pair
    port = free_port()
    with contextlib.ExitStack() as stack:
        for _ in range(1100):
            stack.enter_context(open(os.devnull))
        here.links.hold_door(port)
        wait_until(here.links.has_door)
        there.links.send_lone((LOOPBACK, port), b"who is there?")
        assert here.next("on_door_lone")[1] == b"who is there?"
        here.links.hold_door(0)
        here.links.hold_door(port)
        there.links.send_lone(here.network.address, b"still here?")
        assert here.next("on_lone")[1] == b"still here?"


def test_an_answer_is_never_longer_than_the_question_about_a_place() -> None:
    place, name = ("fd00::1", 6020), "\U0001f600" * 32
    longest = Answer(bytes(8), bytes(8), bytes(16), 1, bytes(8), 1, bytes(8), place, 0, 1, name, bytes(16))
    for question in (Query(bytes(8)), Wanted(bytes(8), ("10.0.0.1", 6020))):
        assert len(encode(longest)) <= len(encode(question))
    assert len(encode(Wanted(bytes(8), place))) == len(encode(Query(bytes(8)))), "who is asked asks back no more"


# ---- the program --------------------------------------------------------------------------------------------------


def node(home: Path, port: int, name: str) -> Running:
    (home / name).mkdir(parents=True, exist_ok=True)
    return Running("node_client.py", "--ip", LOOPBACK, "--port", port, "--name", name, cwd=home / name)


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Tuple[int, Running, Running]]:
    """A port, the first one there, and a member."""
    port = free_port()
    with node(tmp_path, port, "ana") as ana:
        ana.expect(r"^\* supernode at")
        with node(tmp_path, port, "bo") as bo:
            bo.expect(r"^\* joined ana")
            yield port, ana, bo


def test_after_the_first_one_quit_a_newcomer_and_itself_again_join_at_the_same_port(
    network: Tuple[int, Running, Running], tmp_path: Path
) -> None:
    port, ana, bo = network
    ana.type("Q")
    assert ana.end() == 0, ana.story()
    with node(tmp_path, port, "dan") as dan, node(tmp_path, port, "ana") as again:
        for one in (dan, again):
            behind = int(one.expect(r"^\* joined bo's network at 127\.0\.0\.1:(\d+)").group(1))
            assert behind in ports_behind(port)
        bo.ask_until("W", "^  ana .*member")
        bo.ask_until("W", "^  dan .*member")


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="SIGSTOP is a thing of Unix")
def test_while_the_first_one_stands_still_and_keeps_the_port_a_newcomer_waits_and_joins(
    network: Tuple[int, Running, Running], tmp_path: Path
) -> None:
    port, ana, bo = network
    ana.signal(signal.SIGSTOP)
    with node(tmp_path, port, "dan") as dan:
        dan.expect(r"^\* the network is there, but its supernode gives no sign; waiting for who takes over \.\.\.$")
        dan.expect(r"^\* joined bo's network")
        ana.signal(signal.SIGCONT)
        ana.expect(r"the supernode is now bo$")


# ---- a hint at the prompt -----------------------------------------------------------------------------------------


class Asked:
    """A terminal at which a person presses Enter, and a node that finds another network than the one looked for."""

    is_asking, can_redraw, is_broken = True, False, False

    def __init__(self) -> None:
        self.stops = Stops(self)
        self.said: List[str] = []
        self.questions: List[str] = []
        self.tried: List[Any] = []

    def read_line(self, question: str, idle: Any) -> str:
        self.questions.append(question)
        return ""

    def say(self, line: str) -> None:
        self.said.append(line)

    def flush(self) -> None: ...
    def look_soon(self) -> None: ...
    def show_progress(self, line: str) -> None: ...

    def open_node(self, settings: Any, notify: Any) -> Any:
        self.tried.append((settings.ip, settings.port))
        if settings.ip == "10.0.0.1":
            notify(Outcome("nobody", ("10.0.0.7", 6021), "", 0, "z\x1bo's network is at 10.0.0.7:6021"))
        else:
            notify(Outcome("joined", (settings.ip, settings.port), "zo", 3, ""))
        peer = argparse.Namespace(leave=lambda now, done: done())
        return argparse.Namespace(folder="shared", ip=LOOPBACK, is_port_own=True, peer=peer, close=lambda timeout: None,
                                  call=lambda closure: closure(0.0), standing=lambda: None, check_code="")


def test_another_network_that_was_found_is_the_default_of_the_next_question() -> None:
    person = Asked()
    session = Session(person)  # type: ignore[arg-type]
    flags = argparse.Namespace(ip="10.0.0.1", port=6020, name="me", folder=None, log=None)
    assert session._open(flags, person.open_node)
    assert person.questions == ["IP [10.0.0.7]: ", "Port [6021]: "]
    assert person.tried == [("10.0.0.1", 6020), ("10.0.0.7", 6021)]
    sentence = ("Nobody answers at 10.0.0.1:6020, and this machine cannot be the supernode there. "
                "z\\u{1b}o's network is at 10.0.0.7:6021.")
    assert sentence in person.said and "\x1b" not in "".join(person.said)


def test_where_nobody_can_be_asked_the_hint_is_said_and_the_exit_code_is_3() -> None:
    person = Asked()
    person.is_asking = False  # type: ignore[misc]
    session = Session(person)  # type: ignore[arg-type]
    flags = argparse.Namespace(ip="10.0.0.1", port=6020, name="me", folder=None, log=None)
    assert not session._open(flags, person.open_node) and session.exit_code == 3
    assert person.said[-1].endswith("z\\u{1b}o's network is at 10.0.0.7:6021.")
    assert NodeError("x").hint is None
