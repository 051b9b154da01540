"""What is bounded in sum: memory that waits for remotes who do not take it, and places of connections.

Each remote is an endpoint of its own in virtual time; a deaf one never gives back credit, so nothing goes to it.
"""

from __future__ import annotations

import random
import sys
import tracemalloc

import pytest

import rdt
from node_tests.stage.amounts import amount
from node_tests.stage.forged import opened
from node_tests.stage.simulator import EndpointDriver, World
from protocol.messages import Offer, encode
from protocol.network import DoorListener
from protocol.transport.admission import CONNECTIONS_PER_HOST_MAX
from protocol.transport.connection import ConnectionLost, FrameReceived, State
from protocol.transport.endpoint import Endpoint
from protocol.transport.sending import VIEW_COST, HeldMemory, SendStream
from sockets.links import Posted

MIB = 1 << 20
SMALL = encode(Offer(1, b"f" * 32, bytes(8), bytes(8), True, True))


# ---- what waits in one stream -------------------------------------------------------------------------------------


def delivered(stream, size_max=1400):
    """All bytes of a stream, as a remote without limits gets them, in order."""
    stream.credit = stream.end
    found = b""
    while stream.has_something():
        offset, length, _ = stream.next_range(size_max, 700)
        found += b"".join(bytes(part) for part in stream.payloads(offset, length, 700))
    return found


def test_ten_thousand_small_messages_that_wait_cost_little_more_than_their_bytes():
    memory = HeldMemory()
    stream = SendStream(memory)
    for _ in range(10_000):
        stream.write_frame(0, SMALL)
    assert stream.backlog <= memory.total < 1.1 * stream.backlog
    stream.on_acknowledged(0, stream.end)
    assert memory.total == 0


def test_what_several_wait_for_counts_once_and_as_the_whole_that_it_keeps_alive():
    memory, whole = HeldMemory(), bytes(MIB)
    streams = [SendStream(memory) for _ in range(10)]
    for stream in streams:
        stream.write(memoryview(whole)[1000:21_000])
    assert memory.total == MIB + 10 * VIEW_COST
    for stream in streams[:9]:
        stream.on_acknowledged(0, stream.end)
    assert memory.total == MIB + VIEW_COST
    streams[9].release()
    assert memory.total == 0 and streams[9].backlog == 20_000  # still told as not delivered


def bytes_for_each(count, take, *args):
    """The memory that is kept for each of so many."""
    tracemalloc.start()
    try:
        for _ in range(count):
            take(*args)
        return tracemalloc.get_traced_memory()[0] / count
    finally:
        tracemalloc.stop()


@pytest.mark.skipif(sys.implementation.name != "cpython", reason="measured there")
def test_what_is_counted_for_what_waits_is_no_less_than_it_takes():
    whole, message = memoryview(bytes(MIB)), [bytes(SMALL)]
    for count in (5_000, 11_000, 22_000)[: amount(3, 2)]:  # tables of all sizes, just grown and nearly full
        assert bytes_for_each(count, SendStream().write, whole[:5000]) <= VIEW_COST
        alone = SendStream()
        assert bytes_for_each(count, lambda stream=alone: stream.write(bytes(5000))) <= VIEW_COST + 5000
        network = rdt.open_network("127.0.0.1", 0)  # not started: nothing is taken
        links = rdt.Links(network, DoorListener())
        assert bytes_for_each(count, links.send, 1, *message) <= Posted.COST
        network.release()


@pytest.mark.parametrize("seed", range(20))
def test_whatever_the_sizes_and_whenever_it_is_acknowledged_the_bytes_come_as_they_were_handed_over(seed):
    rng, memory = random.Random(seed), HeldMemory()
    stream, told, found = SendStream(memory), b"", b""
    kept = []  # views that were handed out keep what they showed
    for _ in range(200):
        size = rng.choice((0, 1, 5, 60, 300, 2000, 4095, 4096, 20_000))
        body = rng.getrandbits(8 * size + 1).to_bytes(size + 1, "big")
        before = stream.end
        stream.write_frame(rng.randrange(9), body[:3], body[3:], is_bulk=rng.random() < 0.5)
        shown = b"".join(bytes(p) for p in stream.payloads(before, stream.end - before, 900))
        kept.append((stream.payloads(before, stream.end - before, 900), shown))
        told += shown
        assert shown.endswith(body)
        if rng.random() < 0.3:
            found += delivered(stream, rng.randrange(1, 9000))
            stream.on_acknowledged(0, rng.randrange(stream.acknowledged_to, stream.end + 1))
    found += delivered(stream)
    assert found == told
    assert all(b"".join(bytes(part) for part in parts) == shown for parts, shown in kept)
    stream.on_acknowledged(0, stream.end)
    assert memory.total == 0


# ---- what waits for all -------------------------------------------------------------------------------------------


class Crowd:
    """One endpoint in the middle, and remotes that connected to it: deaf ones, and such as read at once."""

    def __init__(self, held_max):
        self.world, self.lost, self.links = World(1), {}, {}
        self.middle = EndpointDriver(self.world, ("10.0.0.1", 1), self._on_event)
        self.middle.endpoint.backlogs.bound(held_max)

    def _on_event(self, event):
        if isinstance(event, ConnectionLost):
            self.lost[event.connection.address] = event.reason

    def join(self, host, port=1, reads=True):
        address = (host, port)

        def on_event(event):
            if isinstance(event, FrameReceived) and reads:
                event.connection.consume(len(event.body))

        driver = EndpointDriver(self.world, address, on_event)
        driver.endpoint.connect(self.middle.address, self.world.now)
        driver.pump()
        self.world.run(self.world.now + 0.3)
        (self.links[address],) = [each for each in self.middle.endpoint.connections if each.address == address]
        return address

    def say(self, address, *parts):
        self.middle.endpoint.now = self.world.now
        taken = self.links[address].send_frame(0, *parts)
        self.middle.pump()
        return taken

    def held(self):
        return self.middle.endpoint.backlogs.memory.total


def test_members_who_never_read_hold_no_more_together_than_there_is_for_all_and_the_readers_stay():
    crowd = Crowd(MIB)
    deaf = [crowd.join("10.0.1.%d" % n, reads=False) for n in range(12)]
    honest = [crowd.join("10.0.2.%d" % n) for n in range(3)]
    most = 0
    for _ in range(30):
        for address in deaf + honest:
            for _ in range(4):
                crowd.say(address, bytes(1500))
        most = max(most, crowd.held())
        crowd.world.run(crowd.world.now + 0.1)
    assert most <= 1.1 * MIB
    assert set(crowd.lost) and set(crowd.lost) <= set(deaf)
    assert all("took nothing for" in reason and "room is needed" in reason for reason in crowd.lost.values())
    assert all(crowd.links[address].state is State.ESTABLISHED for address in honest)


def test_a_fast_receiver_of_much_is_not_closed_for_slow_ones_who_hold_little_each():
    crowd = Crowd(4 * MIB)
    deaf = [crowd.join("10.0.1.%d" % n, reads=False) for n in range(20)]
    fast = crowd.join("10.0.2.1")
    for _ in range(40):
        for address in deaf:
            crowd.say(address, bytes(20_000))
        while crowd.links[fast].backlog < 2 * MIB:
            assert crowd.say(fast, bytes(250_000))
        crowd.world.run(crowd.world.now + 0.5)
    assert crowd.lost and fast not in crowd.lost


def test_who_stood_still_for_a_moment_with_little_is_not_closed_for_those_with_much():
    crowd = Crowd(MIB)
    sleeper = crowd.join("10.0.2.1", reads=False)
    while crowd.links[sleeper].sending.sent_to == crowd.links[sleeper].sending.end:
        crowd.say(sleeper, SMALL)
        crowd.world.run(crowd.world.now + 0.01)
    crowd.world.run(crowd.world.now + 2)  # it has taken nothing for longest
    deaf = [crowd.join("10.0.1.%d" % n, reads=False) for n in range(4)]
    for _ in range(60):
        for address in deaf:
            crowd.say(address, bytes(15_000))
        crowd.world.run(crowd.world.now + 0.2)
    assert crowd.lost and sleeper not in crowd.lost


def test_one_machine_has_one_share_however_many_connections_it_opens():
    crowd = Crowd(MIB)
    honest = crowd.join("10.0.2.1", reads=False)
    for _ in range(20):
        crowd.say(honest, bytes(10_000))
    crowd.world.run(crowd.world.now + 5)
    deaf = [crowd.join("10.0.1.1", 100 + n, reads=False) for n in range(10)]
    for _ in range(60):
        for address in deaf:
            crowd.say(address, bytes(10_000))
        crowd.world.run(crowd.world.now + 0.2)
    assert crowd.lost and honest not in crowd.lost


def test_while_everybody_takes_what_is_sent_the_bound_may_be_passed_by_half_and_no_further():
    crowd = Crowd(MIB)
    reading = [crowd.join("10.0.2.%d" % n) for n in range(4)]
    for address in reading:  # all in one instant
        crowd.say(address, bytes(320_000))
    assert crowd.held() > MIB and not crowd.lost
    crowd.world.run(crowd.world.now + 20)
    assert not crowd.lost and crowd.held() == 0
    for address in reading:
        for _ in range(3):
            crowd.say(address, bytes(320_000))
    assert crowd.held() <= 1.5 * MIB and crowd.lost


def test_what_is_on_its_way_to_the_connections_counts_as_well():
    crowd = Crowd(MIB)
    deaf = crowd.join("10.0.1.1", reads=False)
    for _ in range(20):
        crowd.say(deaf, bytes(20_000))
    crowd.world.run(crowd.world.now + 3)
    assert not crowd.lost
    crowd.middle.endpoint.count_before(lambda: MIB)
    crowd.say(deaf, SMALL)
    assert crowd.links[deaf].state is not State.ESTABLISHED


# ---- places of connections ----------------------------------------------------------------------------------------


def test_when_all_places_are_taken_the_machine_with_most_of_them_gives_one_up_for_a_newcomer():
    endpoint = Endpoint(random.Random(1), connections_max=40)
    greedy = [opened(endpoint, ("10.0.0.6", 1000 + n), 1.0 + n / 100) for n in range(38)]
    others = [opened(endpoint, ("10.0.1.%d" % n, 5), 2.0) for n in range(2)]
    newcomers = [opened(endpoint, ("10.0.2.%d" % n, 5), 5.0 + n) for n in range(10)]
    assert all(newcomers) and all(one.state is State.ESTABLISHED for one in others + newcomers)
    assert [one for one in greedy if one.state is not State.ESTABLISHED] == greedy[:10]  # unused for longest
    assert opened(endpoint, ("10.0.0.6", 9999), 30.0) is None  # the greedy itself gets no more


def test_of_one_machine_the_program_with_most_connections_gives_one_up_for_another_program():
    endpoint = Endpoint(random.Random(1))
    most = CONNECTIONS_PER_HOST_MAX
    greedy = [opened(endpoint, ("10.0.0.6", 1000), 1.0 + n / 20, b"%08d" % n) for n in range(most)]
    assert opened(endpoint, ("10.0.0.6", 1000), 5.0, b"one more") is None
    other = opened(endpoint, ("10.0.0.6", 2000), 6.0)
    assert other is not None and other.state is State.ESTABLISHED
    assert [one for one in greedy if one.state is not State.ESTABLISHED] == greedy[:1]
    reasons = [event.reason for event in endpoint.events if isinstance(event, ConnectionLost)]
    assert reasons == ["another needs its place, and you have most"]
