"""The handshake of one side, alone: when INITs go out, with which cookie, and what their answer tells of the path."""

import pytest

from protocol.transport.handshake import ASK_INTERVALS, HANDSHAKE_TIMEOUT, INIT_INTERVALS, Handshake
from protocol.transport.packets import NO_COOKIE, CookiePacket

TOKEN, COOKIE, NONCE = b"t" * 16, b"c" * 20, b"n" * 16


def client():
    handshake = Handshake(b"client-1", 1.0)
    handshake.begin(NONCE, 1.0 + HANDSHAKE_TIMEOUT)
    return handshake


def cookie(value, nonce=NONCE):
    return CookiePacket(b"client-1", nonce, value)


def intervals(handshake, count):
    """Seconds from each of so many INITs to the next."""
    for _ in range(count):
        now = handshake.init_at
        handshake.next_init(7, 1000, TOKEN, now)
        yield handshake.init_at - now


def test_it_asks_often_until_it_has_a_cookie_and_then_more_seldom():
    handshake = client()
    assert list(intervals(handshake, 20)) == pytest.approx([*ASK_INTERVALS, *[ASK_INTERVALS[-1]] * 7])
    handshake.on_cookie(cookie(COOKIE), 3.0)
    assert handshake.init_at == 3.0
    assert list(intervals(handshake, 6)) == pytest.approx([*INIT_INTERVALS, *[INIT_INTERVALS[-1]] * 2])


def test_the_first_cookie_counts():
    handshake = client()
    assert handshake.next_init(7, 1000, TOKEN, 1.0).cookie == NO_COOKIE
    handshake.on_cookie(cookie(b"e" * 20, nonce=b"?" * 16), 1.05)  # of somebody who did not see our INIT
    handshake.on_cookie(cookie(COOKIE), 1.1)
    handshake.on_cookie(cookie(b"d" * 20), 1.2)
    assert handshake.next_init(7, 1000, TOKEN, 1.2) == (b"client-1", NONCE, 7, 1000, TOKEN, COOKIE)


@pytest.mark.parametrize("count", [1, 2])
def test_a_round_trip_is_measured_only_when_one_init_can_have_been_answered(count):
    handshake = client()
    handshake.on_cookie(cookie(COOKIE), 1.0)
    sent = list(intervals(handshake, count))
    measured = handshake.on_init_ack(TOKEN, 1.0 + sum(sent[:-1]) + 0.02)
    assert measured == (pytest.approx(0.02) if count == 1 else None)
    assert handshake.remote_token == TOKEN


def test_the_server_remembers_whom_it_took_in():
    packet = client().next_init(7, 1000, TOKEN, 1.0)
    server = Handshake(b"", 1.0)
    server.accept(packet)
    assert (server.client_id, server.nonce, server.remote_token) == (b"client-1", NONCE, TOKEN)
    assert server.deadline == 1.0 + HANDSHAKE_TIMEOUT
