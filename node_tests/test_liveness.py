"""Is the other side there, and does it take what is sent to it: the two clocks of a connection, alone."""

import math

import pytest

from protocol.transport.liveness import (
    BLOCKED_PROBE_MAX,
    IDLE_TIMEOUT,
    KEEP_ALIVE_GRID,
    KEEP_ALIVE_INTERVAL,
    NO_PROGRESS_TIMEOUT,
    PROGRESS_LEAST,
    Liveness,
    Progress,
)
from protocol.transport.sending import SendStream


def test_who_is_not_heard_is_gone_however_often_it_was_spoken_to():
    life = Liveness(True, 1.0)
    assert life.keep_alive_at(20.0) > 20.0
    assert life.idle_at == 1.0 + IDLE_TIMEOUT
    life.heard(21.0)
    assert life.idle_at == 21.0 + IDLE_TIMEOUT


def test_the_client_asks_for_a_sign_first_and_what_came_or_went_puts_it_off():
    client, server = Liveness(True, 0.0), Liveness(False, 0.0)
    assert client.keep_alive_at(0.0) == KEEP_ALIVE_INTERVAL
    assert server.keep_alive_at(0.0) > client.keep_alive_at(0.0)
    assert client.keep_alive_at(3.0) == 3.0 + KEEP_ALIVE_INTERVAL


def test_keep_alives_of_many_connections_fall_together():
    lives = [Liveness(True, at / 1000) for at in range(1, 200)]
    assert {life.keep_alive_at(0.0) for life in lives} == {KEEP_ALIVE_INTERVAL + KEEP_ALIVE_GRID}


def waiting(size):
    """A stream with so many bytes to be delivered."""
    sending = SendStream()
    sending.write(bytes(size))
    sending.sent_to = size
    return sending


def test_a_byte_now_and_then_is_no_progress():
    sending = waiting(10 * PROGRESS_LEAST)
    progress = Progress(sending, 0.0)
    progress.note(1.0)
    sending.on_acknowledged(0, PROGRESS_LEAST - 1)
    progress.on_acknowledged(30.0)
    assert progress.deadline == 1.0 + NO_PROGRESS_TIMEOUT
    sending.on_acknowledged(0, PROGRESS_LEAST)
    progress.on_acknowledged(31.0)
    assert progress.deadline == 31.0 + NO_PROGRESS_TIMEOUT


def test_but_the_last_bytes_are():
    sending = waiting(5)
    progress = Progress(sending, 0.0)
    progress.note(1.0)
    sending.on_acknowledged(0, 5)
    progress.on_acknowledged(2.0)
    assert progress.at == 2.0


def blocked():
    """More waits than the credit of nothing allows."""
    sending = SendStream()
    sending.write(b"hello")
    return Progress(sending, 0.0)


def asked(progress, until):
    """The instants of questions to a remote that gives no credit, looked for at every deadline."""
    found, now = [], 0.0
    while now < until:
        if progress.is_to_ask(False, 0.1, now):
            found.append(now)
        now = progress.ask_at if progress.ask_at < math.inf else now
    return found


def test_who_gives_no_credit_is_asked_ever_more_seldom_and_never_given_up():
    times = asked(blocked(), 60.0)
    gaps = [after - before for before, after in zip(times, times[1:])]
    assert times[0] == pytest.approx(0.1) and gaps[0] == pytest.approx(0.2)
    assert gaps == pytest.approx(sorted(gaps)) and gaps[-1] == pytest.approx(BLOCKED_PROBE_MAX)


def test_credit_ends_the_questions():
    progress = blocked()
    asked(progress, 10.0)
    progress.on_credit()
    assert progress.ask_at == math.inf
    assert not progress.is_to_ask(True, 0.1, 11.0)  # an acknowledgement is to come, and will tell
    assert asked(progress, 0.2) == [pytest.approx(0.1)]


def test_room_to_go_on_is_progress_for_who_waited_for_it_and_words_are_none():
    sending = waiting(10)
    progress = Progress(sending, 0.0)
    progress.on_allowed(sending.credit + PROGRESS_LEAST, 1.0)
    assert progress.at == 0.0, "its acknowledgement is still to come"
    sending.on_acknowledged(0, 10)
    progress.on_allowed(sending.credit + PROGRESS_LEAST - 1, 2.0)
    assert progress.at == 0.0, "too little room"
    progress.on_allowed(sending.credit + PROGRESS_LEAST, 3.0)
    assert progress.at == 3.0


def test_who_has_nothing_to_take_is_never_late():
    sending = waiting(10)
    progress = Progress(sending, 5.0)
    assert progress.deadline == 5.0 + NO_PROGRESS_TIMEOUT
    sending.on_acknowledged(0, 10)
    assert progress.deadline == math.inf
