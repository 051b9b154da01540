"""What a connection does while nothing comes, alone: ask for a sign, ask for credit, give the other side up."""

import math

from protocol.transport.cubic import CubicQ
from protocol.transport.frames import FRAME_HEADER
from protocol.transport.liveness import IDLE_TIMEOUT, KEEP_ALIVE_INTERVAL, NO_PROGRESS_TIMEOUT, SILENCE, Liveness
from protocol.transport.packets import CloseCode
from protocol.transport.receiving import ReceiveStream
from protocol.transport.recovery import DATAGRAM_SIZE_BASE, Recovery, SentBatch
from protocol.transport.sending import SendStream
from protocol.transport.vigil import Vigil


class Scene:
    """A connection of which the handshake ended at 0.0, and its parts."""

    def __init__(self):
        self.sending, self.receiving = SendStream(), ReceiveStream()
        self.recovery = Recovery(0, CubicQ(DATAGRAM_SIZE_BASE))
        self.liveness = Liveness(True, 0.0)
        self.vigil = Vigil(self.sending, self.receiving, self.recovery, self.liveness, 0.0)
        self.vigil.begin(0.0)


def test_an_idle_connection_wants_a_sign_seldom_and_ends_when_there_is_none():
    scene = Scene()
    assert scene.vigil.next_deadline() == KEEP_ALIVE_INTERVAL
    assert not scene.vigil.is_silent(KEEP_ALIVE_INTERVAL - 0.01) and scene.vigil.is_silent(KEEP_ALIVE_INTERVAL)
    assert scene.vigil.failure(IDLE_TIMEOUT - 0.01) is None
    assert scene.vigil.failure(IDLE_TIMEOUT) == (CloseCode.GOING_AWAY, "no sign of life for 30 s")


def test_half_a_frame_makes_it_ask_soon_but_not_while_something_is_on_its_way():
    scene = Scene()
    scene.receiving.on_data(0, memoryview(FRAME_HEADER.pack(0, 10)), [])
    scene.liveness.heard(5.0)
    assert scene.vigil.next_deadline() == 5.0 + SILENCE
    scene.recovery.on_sent(SentBatch(0, 1, 0, 0, 0, 100, 5.5))
    assert scene.vigil.next_deadline() == 5.5 + KEEP_ALIVE_INTERVAL


def test_who_takes_nothing_is_given_up_though_it_is_heard():
    scene = Scene()
    scene.sending.write_frame(0, bytes(100))
    scene.vigil.progress.note(1.0)
    scene.liveness.heard(1.0 + NO_PROGRESS_TIMEOUT)
    assert scene.vigil.failure(1.0 + NO_PROGRESS_TIMEOUT - 0.01) is None
    assert scene.vigil.failure(1.0 + NO_PROGRESS_TIMEOUT) == (CloseCode.LIMIT, "took nothing for 60 s")


def test_credit_is_asked_for_until_it_comes_and_never_falls():
    scene = Scene()
    scene.sending.write_frame(0, bytes(100))
    assert not scene.vigil.is_credit_wanted(0.0)
    asked_at = scene.vigil.progress.ask_at
    assert scene.vigil.is_credit_wanted(asked_at)
    scene.vigil.on_credit(1000, asked_at)
    assert scene.sending.credit == 1000 and not scene.vigil.is_credit_wanted(asked_at)
    assert scene.vigil.progress.ask_at == math.inf
    scene.vigil.on_credit(500, asked_at)
    assert scene.sending.credit == 1000
