"""Random lives of a pair of connections: tiny windows, odd sizes, slow readers, bad links, MTU changes, stops, closes.

Held in each: what arrives is an exact prefix of what was sent; a clean end means all of it; nobody is let go for taking
nothing; nothing is left behind. A few seeds here; a long range by

    python node_tests/test_lives.py 500001-502000
    python node_tests/test_lives.py 500470 --packets life.trace     one, with its packets (node_tests/stage/timeline.py)
"""

from __future__ import annotations

import collections
import pathlib
import random
import sys
from typing import Any, Counter, Dict, List, Tuple

import pytest

if __name__ == "__main__":
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from node_tests.stage.simulator import Conditions, EndpointDriver, World
from node_tests.stage.usage import Tell, play_seeds
from protocol.transport import acknowledging, endpoint, frames
from protocol.transport import receiving as streams
from protocol.transport.connection import ConnectionLost, Established, FrameReceived, State

ADDRESSES = {"a": ("10.0.0.1", 1000), "b": ("10.0.0.2", 2000)}
OTHER = {"a": "b", "b": "a"}
SIZES = (0, 1, 5, 100, 1155, 1195, 1196, 3000, 16_384, 20_000, 70_000, 200_000)
LIMITS = (  # (module, name of a limit that a life draws anew)
    (streams, "RECEIVE_WINDOW_INITIAL"),
    (frames, "BODY_STEP"),
    (streams, "GAPS_MAX"),
    (endpoint, "FIRST_NUMBER_BITS"),
    (acknowledging, "NUMBER_RANGES_MAX"),
)


def draw_limits(rng: random.Random) -> None:
    window = rng.choice((2000, 5000, 20_000, 65_536))
    drawn = (window, window, rng.choice((4, 30, 1024)), rng.choice((32, 32, 8, 63)), rng.choice((8, 64, 1024)))
    for (module, name), value in zip(LIMITS, drawn):
        setattr(module, name, value)


def draw_conditions(rng: random.Random) -> Conditions:
    return Conditions(
        latency=rng.choice((0.0002, 0.001, 0.015, 0.1)),
        jitter=rng.choice((0, 0, 0.002, 0.03)),
        loss=rng.choice((0, 0.01, 0.05, 0.2, 0.35)),
        reorder=rng.choice((0, 0, 0.2, 0.5)),
        duplicate=rng.choice((0, 0.1, 0.5)),
        corrupt=rng.choice((0, 0, 0.02, 0.2)),
        rate=rng.choice((float("inf"), 12.5e6, 1.25e6, 125e3)),
        queue=rng.choice((0.02, 0.05, 0.5)),
        mtu=rng.choice((1280, 1500, 1500, 9000, 65_535)),
    )


class Life:
    """One pair from its handshake to its end; the seed decides everything."""

    def __init__(self, seed: int) -> None:
        self.rng = rng = random.Random(seed)
        draw_limits(rng)
        self.conditions = draw_conditions(rng)
        self.world = World(seed, self.conditions)
        self.is_corrupt = self.conditions.corrupt > 0
        self.checks_bulk = rng.random() < 0.5
        self.sent: Dict[str, List[Tuple[bytes, bool]]] = {"a": [], "b": []}
        self.got: Dict[str, List[bytes]] = {"a": [], "b": []}
        self.lost: Dict[str, ConnectionLost] = {}
        self.ends: Dict[str, Any] = {}  # the connection of each side
        self.shut: List[str] = []  # sides that closed in order
        self.reading_takes = {side: rng.choice((0.0, 0.0, 0.0, 0.01, 0.2)) for side in "ab"}  # seconds for a frame
        self.drivers = {
            side: EndpointDriver(self.world, ADDRESSES[side], lambda event, side=side: self._on_event(side, event))
            for side in "ab"
        }
        self.ends["a"] = self.drivers["a"].endpoint.connect(ADDRESSES["b"], 0.0)
        if self.checks_bulk:
            self.ends["a"].check_bulk()
        self.drivers["a"].pump()
        self._plan_messages()
        self._plan_troubles()
        self.how = rng.choice(("a", "b", "both", "fail", "none"))
        self._plan_end(rng.uniform(0.05, rng.choice((0.5, 5, 30))))

    def _on_event(self, side: str, event: Any) -> None:
        if isinstance(event, Established):
            self.ends.setdefault(side, event.connection)
            if self.checks_bulk:
                event.connection.check_bulk()
        elif isinstance(event, ConnectionLost) and event.connection is self.ends.get(side):
            assert side not in self.lost, "told twice"
            self.lost[side] = event
        elif isinstance(event, FrameReceived):
            assert side not in self.lost, "a message after the end"
            self.got[side].append(bytes(event.body))
            self._read(side, event)

    def _read(self, side: str, event: FrameReceived) -> None:
        def done() -> None:
            event.connection.consume(len(event.body))
            self.drivers[side].pump()

        if self.reading_takes[side]:
            self.world.after(self.reading_takes[side] * self.rng.random() * 2, done)
        else:
            event.connection.consume(len(event.body))

    def _plan_messages(self) -> None:
        for side in "ab":
            if self.rng.random() < 0.85:
                for _ in range(self.rng.choice((3, 20, 60))):
                    at = self.rng.uniform(0.0, self.rng.choice((0.2, 3.0, 20.0)))
                    self.world.at(at, lambda side=side: self._write(side))

    def _write(self, side: str) -> None:
        end = self.ends.get(side)
        if end is None or side in self.lost or side in self.shut:
            return
        for _ in range(self.rng.choice((1, 1, 3))):
            if end.backlog > 400_000:
                break
            head = self.rng.getrandbits(72).to_bytes(9, "big")[: self.rng.choice((0, 0, 1, 9))]
            size = self.rng.choice(SIZES)
            data, is_bulk = self.rng.getrandbits(8 * size + 1).to_bytes(size + 1, "big")[1:], self.rng.random() < 0.5
            if end.state in (State.CONNECTING, State.HANDSHAKE, State.ESTABLISHED):
                self.sent[side].append((head + data, is_bulk))
            end.send_frame(7, head, data, is_bulk=is_bulk)
        self.drivers[side].pump()

    def _plan_troubles(self) -> None:
        rng, world, hosts = self.rng, self.world, [[ADDRESSES[side][0]] for side in "ab"]
        if rng.random() < 0.3:
            mtu = rng.choice((1280, 1400, 1500, 9000))
            world.at(rng.uniform(0.5, 10), lambda: setattr(self.conditions, "mtu", mtu))
        for _ in range(rng.choice((0, 0, 1, 2))):
            at = rng.uniform(0, 15)
            world.at(at, lambda: world.cut(*hosts, rng.random() < 0.5))
            world.at(at + rng.choice((0.5, 3, 12, 40)), world.heal)
        for driver in self.drivers.values():
            if rng.random() < 0.2:
                at = rng.uniform(0, 15)
                world.at(at, lambda driver=driver: setattr(driver, "is_stopped", True))
                world.at(at + rng.choice((0.5, 4, 20)), driver.go_on)

    def _plan_end(self, at: float) -> None:
        if self.how in ("a", "both"):
            self.world.at(at, lambda: self._shut("a"))
        if self.how in ("b", "both"):
            self.world.at(at + self.rng.choice((0, 0.01, 1)), lambda: self._shut("b"))
        if self.how == "fail":
            self.world.at(at, lambda: self._fail(self.rng.choice("ab")))

    def _shut(self, side: str) -> None:
        if side in self.ends:
            self.shut.append(side)
            self.ends[side].shut_down("over")
            self.drivers[side].pump()
        elif "a" not in self.lost:
            self.world.after(0.5, lambda: self._shut(side))

    def _fail(self, side: str) -> None:
        if side in self.ends:
            self.ends[side].fail(4, "gave up", self.world.now)
            self.drivers[side].pump()

    def run(self) -> None:
        """Let it live for a minute, heal the path, close it, and look."""
        self.world.run(60.0)
        self.world.heal()
        self.conditions.loss = self.conditions.corrupt = 0.0
        self.world.run(160.0)
        if "a" not in self.lost:
            self._shut("a")
        self.world.run(420.0)
        for side in self.ends:
            assert side in self.lost, "%s was never told the end: %s" % (side, self.ends[side])
            assert "took nothing" not in self.lost[side].reason
            self._check_messages(side)
        for driver in self.drivers.values():
            self._check_nothing_left(driver.endpoint)

    def _check_messages(self, side: str) -> None:
        sent, got = self.sent[side], self.got[OTHER[side]]
        may_be_damaged = self.is_corrupt and not self.checks_bulk
        assert len(got) <= len(sent)
        for index, ((wanted, is_bulk), found) in enumerate(zip(sent, got)):
            is_excused = is_bulk and may_be_damaged and len(wanted) == len(found)
            assert found == wanted or is_excused, "message %d from %s differs" % (index, side)
        closed_alone = self.shut == [side] and self.how != "fail"
        if closed_alone and self.lost[side].is_clean and OTHER[side] in self.lost:
            assert len(got) == len(sent), "%s closed cleanly, but only a part arrived" % side

    @staticmethod
    def _check_nothing_left(left: endpoint.Endpoint) -> None:
        assert not left.connections
        assert (left.intake.windows, left.intake.unread) == (0, 0)
        assert not (left.admission.per_host or left.turns.deadlines or left.turns.ready)
        assert not (left.directory.by_remote or left.directory.by_client)


@pytest.fixture
def limits(monkeypatch):
    """What a life draws anew is as before when the test is over."""
    for module, name in LIMITS:
        monkeypatch.setattr(module, name, getattr(module, name))


@pytest.mark.parametrize("seed", [*range(1, 13), 500470, 500911])
def test_a_random_life_keeps_its_promises(limits, seed):
    Life(seed).run()


def main() -> int:
    reasons: Counter[str] = collections.Counter()

    def play(seed: int, tell: Tell) -> None:
        life = Life(seed)
        try:
            life.run()
        finally:
            reasons.update(lost.reason for lost in life.lost.values())

    return play_seeds(play, __doc__, about=lambda: "; ends: %s" % dict(reasons))


if __name__ == "__main__":
    sys.exit(main())
