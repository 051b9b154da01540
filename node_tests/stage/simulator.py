"""A whole lab in one thread: virtual time, a seed, and links that lose, delay, repeat, damage and cut.

    world = World(seed=7)
    network = world.network(("10.0.0.1", 6020))    # what a Peer is handed as its network
    peer = Peer(network, ...)
    world.attach(network, peer)                    # its events go there, its deadlines are kept
    world.run(until=30.0)                          # or world.run_until(lambda: ..., limit=60.0)

`world.conditions` (a `Conditions`) holds for every pair of hosts; `world.between(ip_a, ip_b)` gives one way its own.
`world.cut(ips_a, ips_b)` and `world.heal()` make and mend partitions; `world.kill(network)` is SIGKILL: no good-bye;
`world.nat(ip, inside_ips, kind)` puts hosts behind one address, `world.firewall(ip)` lets answers only in (`nat.py`);
`network.stop()` and `network.go_on()` of a world of packets are SIGSTOP and SIGCONT. Several networks may have one IP
and ports of their own: they are on one machine, where 127.0.0.1 leads to all of them.
`World(..., packets=True, credentials=keys.members())` is a network with a key (`stage/keys.py`). The same seed replays
exactly, but for what OpenSSL takes from the system's randomness in such a network. With RDT_TRACE=FILE in the
environment every endpoint tells that file its packets, in virtual seconds (`protocol/transport/trace.py`);
`world.trace` is a function that is handed them instead.
"""

from __future__ import annotations

import dataclasses
import functools
import heapq
import itertools
import math
import os
import random
from typing import Any, Callable, Dict, List, Optional, Sequence, Set, Tuple

from disk.tracing import TraceFile
from node_tests.stage.casts import SimCasts
from node_tests.stage.nat import Firewall, Homes, NatBox, NatKind
from protocol.casts import CastPlan
from protocol.credentials import Credentials
from protocol.fields import Address, Buffer
from protocol.figures import PathFigures
from protocol.network import DoorListener
from protocol.transport import packets as wire
from protocol.transport.connection import ConnectionLost, Established, FrameReceived
from protocol.transport.controllers import CONTROLLERS, DEFAULT
from protocol.transport.endpoints import new_endpoint
from protocol.transport.flight import Batch
from protocol.transport.links import LinkTable
from sockets.door import DOOR_INTERVAL

SOCKET_BUFFER = 256  # datagrams that wait for a stopped process


@dataclasses.dataclass
class Conditions:
    """One direction of a path; times in seconds, rates in bytes per second."""

    latency: float = 0.001
    jitter: float = 0.0  # up to so much extra for each datagram,
    keeps_order: bool = False  # of which none overtakes another, but those that `reorder` picks
    loss: float = 0.0
    reorder: float = 0.0  # probability of 1-10 ms extra
    duplicate: float = 0.0
    corrupt: float = 0.0  # probability that one bit of a datagram flips
    rate: float = math.inf
    queue: float = 0.05  # seconds of bytes that the bottleneck holds
    mtu: int = 65_535  # larger IP packets vanish
    cut: bool = False
    burst_every: int = 0  # of so many datagrams in a row,
    burst_size: int = 0  # the first so many are lost
    policed_rate: float = math.inf  # a token bucket drops what goes beyond it, and queues nothing
    policed_burst: int = 30_000  # bytes that the bucket holds


CredentialsOf = Callable[[Address], Optional[Credentials]]  # of the endpoint at that address


def no_credentials(address: Address) -> Optional[Credentials]:
    """An open network."""
    return None


class World:
    """Virtual time and everything that happens in it."""

    def __init__(
        self,
        seed: int = 0,
        conditions: Optional[Conditions] = None,
        packets: bool = False,
        credentials: CredentialsOf = no_credentials,
    ) -> None:
        self.packets = packets  # the real transport below the roles, or whole messages
        self.rng = random.Random(seed)
        self.now = 0.0
        self.conditions = conditions or Conditions()
        self.lones: Dict[int, int] = {}  # second -> lone messages sent in it, of a world without packets
        self.broadcasts = True  # not so between routed subnets
        self.homes = Homes()
        self.multicast = False  # do groups reach anybody? (`casts.py`)
        self.groups: Dict[Address, List[SimCasts]] = {}
        self.deaf: Set[str] = set()
        self.groupless: Set[str] = set()
        self.trace: Optional[Callable[[str], None]] = None
        self.credentials = credentials
        self.tap: Optional[Callable[[Address, Address, bytes], None]] = None  # hears (from, to, datagram) of all
        self.networks: Dict[Address, Any] = {}
        self.drivers: Dict[Address, EndpointDriver] = {}
        self._packet_links: Dict[Tuple[str, str], PacketLink] = {}
        self._special: Dict[Tuple[str, str], Conditions] = {}
        self._cuts: Set[Tuple[str, str]] = set()
        self._heap: List[Tuple[float, int, Callable[[], None]]] = []
        self._ties = itertools.count()

    def at(self, when: float, action: Callable[[], None]) -> None:
        """Run the action at that instant."""
        heapq.heappush(self._heap, (when if when > self.now else self.now, next(self._ties), action))

    def after(self, delay: float, action: Callable[[], None]) -> None:
        self.at(self.now + delay, action)

    def run(self, until: float) -> None:
        """Let time pass to that instant."""
        heap = self._heap
        while heap and heap[0][0] <= until:
            self.now, _, action = heapq.heappop(heap)
            action()
        self.now = max(self.now, until)

    def run_until(self, condition: Callable[[], bool], limit: float) -> bool:
        """Let time pass until the condition holds, at most to `limit`; did it hold?"""
        heap = self._heap
        while not condition():
            if not heap or heap[0][0] > limit:
                self.now = max(self.now, limit)
                return condition()
            self.now, _, action = heapq.heappop(heap)
            action()
        return True

    def between(self, source_ip: str, target_ip: str) -> Conditions:
        """The conditions from one host to another, made its own on first use."""
        key = (source_ip, target_ip)
        if key not in self._special:
            self._special[key] = dataclasses.replace(self.conditions)
        return self._special[key]

    def link(self, source: Address, target: Address) -> PacketLink:
        """The bottleneck from one host to another: shared by all that runs between them."""
        key = (source[0], target[0])
        if key not in self._packet_links:
            self._packet_links[key] = PacketLink(self)
        return self._packet_links[key]

    def conditions_of(self, source_ip: str, target_ip: str) -> Conditions:
        return self._special.get((source_ip, target_ip), self.conditions)

    def is_cut(self, source_ip: str, target_ip: str) -> bool:
        if source_ip == target_ip:
            return False
        key = source_ip, target_ip
        return key in self._cuts or self._special.get(key, self.conditions).cut

    def network(self, address: Address) -> Any:
        """A node's place in this world."""
        return (PacketNetwork if self.packets else MessageNetwork)(self, address)

    def nat(self, outside_ip: str, inside_ips: List[str], kind: NatKind, keeps_ports: bool = True) -> NatBox:
        """These hosts are in a home of their own from now on, and seen from outside at that one address."""
        box = NatBox(outside_ip, inside_ips, kind, random.Random(self.rng.getrandbits(64)), keeps_ports)
        self.homes.add(box)
        return box

    def firewall(self, ip: str) -> Firewall:
        """That host lets in answers only, from now on."""
        return self.homes.add_firewall(ip)

    def is_place(self, address: Address) -> bool:
        """Is anybody there, or a box that knows who?"""
        return address in self.drivers or self.homes.has_box_at(address[0])

    def hears_broadcast(self, source: Address, target: Address, port: int) -> bool:
        """Does what `source` broadcasts to that port get to `target`?"""
        on_lan = self.broadcasts and self.homes.are_neighbours(source[0], target[0])
        return on_lan and target[1] == port and target != source

    def cut(self, side_a: List[str], side_b: List[str], both_ways: bool = True) -> None:
        """Nothing passes between the two sides; or nothing from the first to the second."""
        for a in side_a:
            for b in side_b:
                self._cuts.update({(a, b), (b, a)} if both_ways else {(a, b)})

    def heal(self) -> None:
        self._cuts.clear()

    def attach(self, network: Any, node: Any) -> None:
        """Events of this network go to this node from now on."""
        network.node = node
        network.rearm()

    def kill(self, network: Any) -> None:
        """As SIGKILL: it falls silent, and nobody is told."""
        network.alive = False
        network.casts.end_all()
        network.hold_door(0)
        self.networks.pop(network.address, None)
        driver = self.drivers.get(network.address)
        if driver is not None:
            driver.kill()


class _Driven(DoorListener):
    """What both kinds of simulated network share: hand events to the node, keep its deadline."""

    def __init__(self, world: World, address: Address) -> None:
        self.world = world
        self.address = address
        self.alive = True
        self.is_stopped = False
        self.node: Any = None
        self._armed = math.inf
        self._door_port = 0
        self._fresh_port = 50_000
        self.casts = SimCasts(self)
        self.door: Any = None  # the network at the port that people know, while this one holds it
        if address in world.networks:
            raise OSError("address in use: %s:%d" % address)
        world.networks[address] = self

    def close(self) -> None:
        """The process ends in order: its address is free again."""
        self.world.kill(self)

    def seen(self, address: Address) -> Address:
        """Loopback is this machine."""
        return (self.address[0], address[1]) if address[0].startswith("127.") else address

    def send_to_all(self, links: Sequence[int], *said: bytes) -> None:
        for link in links:
            for message in said:
                self.send(link, message)

    def send(self, link: int, *parts: Any, is_bulk: bool = False) -> None:
        raise NotImplementedError

    def hold_door(self, port: int) -> None:
        """As `rdt.Links`: a second network at that port of this machine, as soon as it is free."""
        if port != self._door_port:
            self._door_port = port
            door, self.door = self.door, None
            if door is not None:
                self.world.kill(door)
            self._try_door()

    def _try_door(self) -> None:
        if not self.alive or not self._door_port or self.door is not None:
            return
        place = self.address[0], self._door_port
        if self.is_stopped or getattr(self.node, "is_asleep", False) or place in self.world.networks:
            self.world.after(DOOR_INTERVAL, self._try_door)
        else:
            self.door = self.world.network(place)
            self.world.attach(self.door, _Door(self))

    def fresh_place(self) -> Address:
        """A port of this host that nothing was sent from before."""
        self._fresh_port += 1
        return self.address[0], self._fresh_port

    def send_by_door(self, address: Address, message: bytes) -> None:
        if self.door is not None:
            self.door.send_lone(address, message)

    def on_link_up(self, link: int, address: Address, incoming: bool) -> None:
        self._tell(lambda node, now: node.on_link_up(link, address, incoming, now))

    def on_link_lost(self, link: int, reason: str) -> None:
        self._tell(lambda node, now: node.on_link_lost(link, reason, now))

    def on_link_moved(self, link: int, address: Address) -> None:
        self._tell(lambda node, now: node.on_link_moved(link, address, now))

    def on_own_address_changed(self) -> None:
        self._tell(lambda node, now: node.on_own_address_changed(now))

    def on_message(self, link: int, data: Buffer) -> None:
        self._tell(lambda node, now: node.on_message(link, data, now))

    def on_writable(self, link: int) -> None:
        self._tell(lambda node, now: node.on_writable(link, now))

    def on_lone(self, address: Address, data: bytes) -> None:
        self._tell(lambda node, now: node.on_lone(address, data, now))

    def on_cast(self, event: Any) -> None:
        self._tell(lambda node, now: node.on_cast(event, now))

    def on_key_wanted(self, address: Address, repeated: bytes) -> None:
        self._tell(lambda node, now: node.on_key_wanted(address, repeated, now))

    def can_cast(self, towards: str) -> bool:
        return self.world.credentials(self.address) is None and self.casts.can_cast(towards)

    def fingerprint(self, link: int) -> Optional[bytes]:
        return None

    def cast_open(self, session: bytes, towards: str, rate: float) -> None:
        self.casts.open(session, towards, rate)

    def cast_send(self, session: bytes, piece: int, offset: int, data: Buffer, front: Optional[int]) -> None:
        self.casts.send(session, piece, offset, bytes(data), front)

    def cast_rate(self, session: bytes, rate: float) -> None:
        self.casts.set_rate(session, rate)

    def cast_backlog(self, session: bytes) -> int:
        return self.casts.backlog(session)

    def cast_join(self, session: bytes, caster_ip: str) -> None:
        self.casts.join(session, caster_ip)

    def cast_take(self, session: bytes, plan: CastPlan) -> None:
        self.casts.take(session, plan)

    def cast_done(self, session: bytes, size: int) -> None:
        self.casts.done(session, size)

    def cast_end(self, session: bytes) -> None:
        self.casts.end(session)

    def on_door_lone(self, address: Address, data: bytes) -> None:
        self._tell(lambda node, now: node.on_door_lone(address, data, now))

    def _tell(self, event: Callable[[Any, float], None]) -> None:
        if self.alive and self.node is not None:
            event(self.node, self.world.now)
            self.rearm()

    def rearm(self) -> None:
        """Wake the node at its next deadline; call it after any direct call to the node, too."""
        if self.node is None or not self.alive:
            return
        deadline = self.node.next_deadline()
        if deadline < self._armed - 1e-9:
            self._armed = deadline
            self.world.at(deadline, lambda: self._wake(deadline))

    def _wake(self, deadline: float) -> None:
        if deadline != self._armed or self.is_stopped:
            return  # an earlier deadline took its place
        self._armed = math.inf
        if self.alive and self.node is not None:
            if self.node.next_deadline() <= self.world.now + 1e-9:
                self.node.on_timer(self.world.now)
            self.rearm()


class _Door:
    """What comes to a door goes to the node that holds it: links with negative numbers, lone messages told apart."""

    def __init__(self, holder: Any) -> None:
        self.holder = holder

    def on_lone(self, address: Address, message: bytes, now: float) -> None:
        self.holder.on_door_lone(address, message)

    def on_link_up(self, link: int, address: Address, incoming: bool, now: float) -> None:
        self.holder.on_link_up(-link, address, incoming)

    def on_link_lost(self, link: int, reason: str, now: float) -> None:
        self.holder.on_link_lost(-link, reason)

    def on_link_moved(self, link: int, address: Address, now: float) -> None:
        self.holder.on_link_moved(-link, address)

    def on_own_address_changed(self, now: float) -> None:
        """Who holds it sees that, too."""

    def on_message(self, link: int, data: Any, now: float) -> None:
        self.holder.on_message(-link, data)

    def on_writable(self, link: int, now: float) -> None:
        pass

    def on_timer(self, now: float) -> None:
        pass

    def next_deadline(self) -> float:
        return math.inf


class MessageNetwork(_Driven):
    """Links as the transport promises them, without packets: whole messages, in order, until the link is lost.

    For tests of roles alone. A link across a cut or to a dead node is lost after 30 s, as the idle timeout has it.
    """

    IDLE_TIMEOUT = 30.0

    def __init__(self, world: World, address: Address) -> None:
        super().__init__(world, address)
        self._numbers = itertools.count(1)
        self._links: Dict[int, Tuple[MessageNetwork, int]] = {}
        self._last_at: Dict[int, float] = {}
        self._heard: Dict[int, float] = {}  # by link, when something last came

    def send_fresh(self, address: Address, message: bytes) -> None:
        source, target = self._reach(address, from_place=self.fresh_place())
        if target is not None:
            self._carry(target, lambda: target.on_lone(source, bytes(message)))

    def send_lone(self, address: Address, message: bytes) -> None:
        self._send_lone(address, message)

    def _send_lone(self, address: Address, message: bytes, is_broadcast: bool = False) -> None:
        assert len(message) <= 1100
        second = int(self.world.now)
        self.world.lones[second] = self.world.lones.get(second, 0) + 1
        source, target = self._reach(address, is_broadcast)
        if target is not None:
            self._carry(target, lambda: target.on_lone(source, bytes(message)))

    def _reach(
        self, address: Address, is_broadcast: bool = False, from_place: Optional[Address] = None
    ) -> Tuple[Address, Optional[MessageNetwork]]:
        """Who gets what is sent to that address, if anybody, and as whom it sees this node."""
        homes, now, address = self.world.homes, self.world.now, self.seen(address)
        source = homes.leave(from_place or self.address, address, now, is_broadcast)
        place = homes.enter(source, address, now) if source is not None else None
        return source or self.address, self.world.networks.get(place) if place is not None else None

    def broadcast_lone(self, port: int, message: bytes) -> None:
        for address in list(self.world.networks):
            if not self.world.hears_broadcast(self.address, address, port):
                continue
            if self.world.homes.has_firewall(self.address[0]):
                self._send_lone(address, message, is_broadcast=True)
            else:
                self.send_lone(address, message)

    def _carry(self, target: Any, action: Callable[[], None]) -> None:
        source_ip, target_ip = self.address[0], target.address[0]
        conditions = self.world.conditions_of(source_ip, target_ip)
        if self.world.is_cut(source_ip, target_ip) or self.world.rng.random() < conditions.loss:
            return
        delay = conditions.latency + self.world.rng.random() * conditions.jitter
        self.world.after(delay, lambda: action() if target.alive else None)

    def connect(self, address: Address, tries: float = math.inf) -> int:
        address = self.seen(address)
        link = next(self._numbers)
        source, target = self._reach(address)
        if target is not None and not self.world.is_cut(self.address[0], target.address[0]):
            self.world.after(2 * self._latency(target), lambda: self._connected(link, target, source, address))
        else:
            self.world.after(5.0, lambda: self.on_link_lost(link, "timed out"))
        return link

    def _latency(self, target: MessageNetwork) -> float:
        return self.world.conditions_of(self.address[0], target.address[0]).latency

    def _connected(self, link: int, target: MessageNetwork, source: Address, address: Address) -> None:
        if not (self.alive and target.alive):
            self.on_link_lost(link, "timed out")
            return
        remote = next(target._numbers)
        self._links[link] = (target, remote)
        target._links[remote] = (self, link)
        target.on_link_up(remote, source, True)
        self.on_link_up(link, address, False)

    def check_bulk(self, link: int) -> None:
        """Whole messages are never damaged here."""

    def send(self, link: int, *parts: Any, is_bulk: bool = False) -> None:
        if link < 0 and self.door is not None:
            self.door.send(-link, *parts)
        if link not in self._links:
            return
        target, remote = self._links[link]
        data = b"".join(bytes(part) for part in parts)
        if not target.alive or self.world.is_cut(self.address[0], target.address[0]):
            self.world.after(self.IDLE_TIMEOUT, lambda: self._lose(link, "no sign for 30 s"))
            return
        arrival = max(self.world.now + self._latency(target), self._last_at.get(link, 0.0))
        self._last_at[link] = arrival
        self.world.at(arrival, lambda: target._deliver(remote, data))

    def _deliver(self, link: int, data: bytes) -> None:
        if link in self._links:
            self._heard[link] = self.world.now
            self.on_message(link, data)

    def backlog(self, link: int) -> int:
        return 0

    def has_unread(self, link: int) -> bool:
        return False  # all that came was heard

    def heard_at(self, link: int) -> float:
        return self._heard.get(link, -math.inf)

    def ask_sign(self, link: int) -> None:
        if link in self._links:
            target, remote = self._links[link]
            self._carry(target, lambda: target._give_sign(remote))

    def _give_sign(self, link: int) -> None:
        """What the transport does by itself: it acknowledges, and both sides have heard something."""
        if link in self._links and not self.is_stopped and not getattr(self.node, "is_asleep", False):
            self._heard[link] = self.world.now
            asker, remote = self._links[link]
            self._carry(asker, lambda: asker._heard.__setitem__(remote, asker.world.now))

    def figures(self, link: int) -> Optional[PathFigures]:
        return None

    def disconnect(self, link: int, reason: str) -> None:
        if link < 0 and self.door is not None:
            self.door.disconnect(-link, reason)
        if link not in self._links:
            return
        target, remote = self._links[link]
        arrival = max(self.world.now + self._latency(target), self._last_at.get(link, 0.0))
        if not self.world.is_cut(self.address[0], target.address[0]):
            self.world.at(arrival, lambda: target._lose(remote, reason))
        self.world.after(0.0, lambda: self._lose(link, reason))

    def _lose(self, link: int, reason: str) -> None:
        if self._links.pop(link, None) is not None:
            self.on_link_lost(link, reason)


class PacketLink:
    """One direction of a path between two hosts, with the state of its bottleneck."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._free_at = 0.0
        self._arrived_at = 0.0  # the last datagram that none overtakes
        self._count = 0
        self._tokens = 0.0  # bytes
        self._tokens_at = -math.inf
        self.dropped = 0  # datagrams, whatever the reason
        self.overflowed = 0  # of these, what the queue had no room for
        self.carried = 0

    @property
    def queue_delay(self) -> float:
        """Seconds that what is queued now takes."""
        return max(0.0, self._free_at - self.world.now)

    def carry(self, size: int, conditions: Conditions) -> List[float]:
        """When a datagram of that size arrives: no, one or two instants."""
        arrivals = self._carry(size + 28, conditions)  # IP and UDP headers
        if arrivals:
            self.carried += 1
        else:
            self.dropped += 1
        return arrivals

    def _carry(self, size: int, conditions: Conditions) -> List[float]:
        now, rng = self.world.now, self.world.rng
        if size > conditions.mtu or (conditions.policed_rate < math.inf and not self._has_tokens(size, conditions)):
            return []
        start = self._free_at if self._free_at > now else now
        if conditions.rate < math.inf:
            if start - now > conditions.queue:
                self.overflowed += 1
                return []
            self._free_at = start = start + size / conditions.rate
        if conditions.loss and rng.random() < conditions.loss:
            return []
        if conditions.burst_every and self._is_in_burst(conditions):
            return []
        arrival = start + conditions.latency + (rng.random() * conditions.jitter if conditions.jitter else 0.0)
        if conditions.reorder and rng.random() < conditions.reorder:
            arrival += rng.uniform(0.001, 0.010)
        elif conditions.keeps_order:
            self._arrived_at = arrival = max(arrival, self._arrived_at)
        twice = conditions.duplicate and rng.random() < conditions.duplicate
        return [arrival, arrival] if twice else [arrival]

    def _has_tokens(self, size: int, conditions: Conditions) -> bool:
        gained = (self.world.now - self._tokens_at) * conditions.policed_rate
        self._tokens = min(conditions.policed_burst, self._tokens + gained)
        self._tokens_at = self.world.now
        if self._tokens < size:
            return False
        self._tokens -= size
        return True

    def _is_in_burst(self, conditions: Conditions) -> bool:
        self._count += 1
        return self._count % conditions.burst_every >= conditions.burst_every - conditions.burst_size


class PlainFlow:
    """Cross traffic: an endless sender with the congestion control of a TCP, "cubic" (RFC 9438) or "newreno".

    Only what others feel of it: a window of full packets, loss by three later ones, one cut a round, no pacing.
    """

    SIZE = 1472  # bytes of UDP, to count as our own datagrams do

    def __init__(self, world: World, source: Address, target: Address, kind: str = "cubic", start: float = 0.0) -> None:
        self.world = world
        self.is_cubic = kind == "cubic"
        self.window = 10.0  # packets
        self.received = 0  # bytes
        self._path = (source, target)
        self._ssthresh = math.inf
        self._next = 0
        self._highest = -1
        self._outstanding: Dict[int, float] = {}  # packet -> when it was sent, oldest first
        self._recovery_point = -1
        self._min_rtt = math.inf
        self._rtts: List[float] = []  # of this round
        self._round_end = 0
        self._window_max = 0.0
        self._epoch_start = -1.0
        self._estimate = 0.0  # what Reno would have
        self._heard_at = start
        world.at(start, self._send)
        world.at(start + 1.0, self._watch)

    def _send(self) -> None:
        world, (source, target) = self.world, self._path
        conditions = world.conditions_of(source[0], target[0])
        latency_back = world.conditions_of(target[0], source[0]).latency
        while len(self._outstanding) < int(self.window):
            number, self._next = self._next, self._next + 1
            self._outstanding[number] = world.now
            for arrival in world.link(source, target).carry(self.SIZE, conditions)[:1]:
                world.at(arrival + latency_back, lambda number=number: self._on_acknowledged(number))

    def _watch(self) -> None:
        """Nothing came for a second: as after a timeout."""
        if self.world.now - self._heard_at >= 1.0:
            self._outstanding.clear()
            self._ssthresh, self.window, self._epoch_start = max(self.window / 2, 2.0), 1.0, -1.0
            self._send()
        self.world.after(1.0, self._watch)

    def _on_acknowledged(self, number: int) -> None:
        self.received += self.SIZE
        self._heard_at = now = self.world.now
        sent_at = self._outstanding.pop(number, None)
        self._highest = max(self._highest, number)
        if sent_at is not None:
            self._grow(now, now - sent_at, number)
        lost = []
        for oldest in self._outstanding:
            if oldest > self._highest - 3:
                break
            lost.append(oldest)
        for oldest in lost:
            del self._outstanding[oldest]
        if lost and lost[-1] > self._recovery_point:
            self._cut()
        self._send()

    def _grow(self, now: float, rtt: float, number: int) -> None:
        self._min_rtt = min(self._min_rtt, rtt)
        if self.window < self._ssthresh:
            self._slow_start(rtt, number)
        elif not self.is_cubic:
            self.window += 1 / self.window
        else:
            if self._epoch_start < 0:
                self._epoch_start, self._estimate = now, self.window
                self._window_max = max(self._window_max, self.window)
                self._k = ((self._window_max - self.window) / 0.4) ** (1 / 3)
            target = 0.4 * (now - self._epoch_start + rtt - self._k) ** 3 + self._window_max
            self._estimate += (0.53 if self._estimate < self._window_max else 1.0) / self.window
            self.window += max(0.0, min(target, 1.5 * self.window) - self.window) / self.window
            self.window = max(self.window, self._estimate)

    def _slow_start(self, rtt: float, number: int) -> None:
        """With HyStart, as Linux has it."""
        self.window += 1
        if number >= self._round_end:
            self._round_end, self._rtts = self._next, []
        self._rtts.append(rtt)
        limit = min(max(self._min_rtt / 8, 0.004), 0.016)
        if len(self._rtts) == 8 and min(self._rtts) > self._min_rtt + limit:
            self._ssthresh = self.window

    def _cut(self) -> None:
        self._recovery_point = self._next
        shrinking = self.window < self._window_max
        self._window_max = self.window * (0.85 if shrinking else 1.0)
        self.window = max(self.window * (0.7 if self.is_cubic else 0.5), 2.0)
        self._ssthresh, self._epoch_start = self.window, -1.0


@functools.cache
def _trace_file(path: str) -> TraceFile:
    return TraceFile(path)


def _trace_of_environment() -> Optional[Callable[[str], None]]:
    path = os.environ.get("RDT_TRACE")
    return _trace_file(path).write if path else None


class EndpointDriver:
    """An Endpoint in the simulator: its datagrams travel over the world's links, its deadlines are kept.

    `on_event` is given each of the endpoint's events. `filter(datagram)` may drop (None) or change what is sent.
    """

    made = 0  # in this process

    def __init__(self, world: World, address: Address, on_event: Callable[[Any], None]) -> None:
        self.world = world
        self.address = address
        self.alive = True
        rng, trace = random.Random(world.rng.getrandbits(64)), world.trace or _trace_of_environment()
        self.endpoint = new_endpoint(rng, world.credentials(address), trace)
        self.on_event = on_event
        self.filter: Optional[Callable[[bytes], Optional[bytes]]] = None
        self.sent = 0  # datagrams
        self.batches = 0  # in which they left
        self.sent_bytes = 0
        self.is_stopped = False
        self._waiting: List[Tuple[Address, bytes]] = []  # in the socket's buffer, while the process is stopped
        self._armed = math.inf
        self._busy = False
        if address in world.drivers:
            raise OSError("address in use: %s:%d" % address)
        world.drivers[address] = self
        EndpointDriver.made += 1

    def pump(self) -> None:
        """Send what is to be sent, hand out events, set the alarm; after every verb and every arrival."""
        if self._busy or not self.alive or self.is_stopped:
            return
        self._busy = True
        endpoint, now = self.endpoint, self.world.now
        again = True
        while again and self.alive:
            for batch in endpoint.batches(now):
                self._send(batch)
            again = bool(endpoint.events)
            while endpoint.events:
                self.on_event(endpoint.events.popleft())
        self._busy = False
        deadline = endpoint.next_deadline()
        if deadline < self._armed - 1e-9:
            self._armed = max(deadline, now)
            self.world.at(self._armed, functools.partial(self._alarm, self._armed))

    def _alarm(self, at: float) -> None:
        if at != self._armed or self.is_stopped:
            return
        self._armed = math.inf
        if self.alive:
            self.endpoint.on_timeout(self.world.now)
            self.pump()

    def go_on(self) -> None:
        """The process runs again: late timers, and what waited in the socket's buffer."""
        self.is_stopped = False
        self._alarm(self._armed)
        waiting, self._waiting = self._waiting, []
        for source, datagram in waiting:
            self.endpoint.receive(memoryview(datagram), len(datagram), source, self.world.now)
        self.pump()

    def _send(self, batch: Batch) -> None:
        self.batches += 1
        buffers, step = batch.buffers, batch.per_datagram
        for start in range(0, batch.count * step, step):
            self.send_raw(batch.address, b"".join(buffers[start : start + step]))

    def send_raw(self, address: Address, datagram: bytes) -> None:
        """Any bytes at all, as from this address."""
        self.send_from(self.address, address, datagram)

    def send_from(self, place: Address, address: Address, datagram: bytes, is_broadcast: bool = False) -> None:
        """The same from any port of this host."""
        if self.filter is not None:
            filtered = self.filter(datagram)
            if filtered is None:
                return
            datagram = filtered
        self.sent += 1
        self.sent_bytes += len(datagram)
        world = self.world
        if world.tap is not None:
            world.tap(place, address, datagram)
        source = world.homes.leave(place, address, world.now, is_broadcast) if world.homes.are_any else place
        if source is None or not world.is_place(address) or world.is_cut(self.address[0], address[0]):
            return
        conditions = world.conditions_of(self.address[0], address[0])
        for arrival in world.link(self.address, address).carry(len(datagram), conditions):
            arrived = datagram
            if conditions.corrupt and world.rng.random() < conditions.corrupt:
                arrived = flip_bit(datagram, world.rng)
            world.at(arrival, functools.partial(self._arrive, source, address, arrived))

    def _arrive(self, source: Address, address: Address, datagram: bytes) -> None:
        world, place = self.world, self._place(source, address)
        target = world.drivers.get(place) if place is not None else None
        if target is None or (place != address and world.is_cut(self.address[0], target.address[0])):
            return
        if target.is_stopped:
            if len(target._waiting) < SOCKET_BUFFER:
                target._waiting.append((source, datagram))
        elif target.alive:
            target.endpoint.receive(memoryview(datagram), len(datagram), source, world.now)
            target.pump()

    def _place(self, source: Address, address: Address) -> Optional[Address]:
        homes = self.world.homes
        return homes.enter(source, address, self.world.now) if homes.are_any else address

    def move(self, address: Address, told_after: float = math.inf) -> None:
        """The host has another address from now on (or its router another port); the program learns of it then."""
        if address in self.world.drivers:
            raise OSError("address in use: %s:%d" % address)
        if self.world.drivers.get(self.address) is self:
            del self.world.drivers[self.address]
        self.address = address
        self.world.drivers[address] = self
        if told_after < math.inf:
            self.world.after(told_after, self._notice_address)

    def _notice_address(self) -> None:
        if self.alive and not self.is_stopped:
            self.endpoint.on_own_address_changed(self.world.now)
            self.pump()

    def kill(self) -> None:
        self.alive = False
        self.world.drivers.pop(self.address, None)


def data_packet(connection_id: bytes, number: int, offset: int, payload: bytes, floor: int = 0) -> bytearray:
    """A lone DATA packet with a right checksum, of whoever knows (or guessed) the id."""
    fields = (connection_id, number, floor, offset, 0, 0)
    return wire.seal(bytearray(wire.DATA_HEADER.pack(0, wire.VERSION, wire.PacketType.DATA, 0, *fields) + payload))


def flip_bit(datagram: bytes, rng: random.Random) -> bytes:
    damaged = bytearray(datagram)
    damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
    return bytes(damaged)


class PacketNetwork(_Driven):
    """A node's network over the real transport: packets, acknowledgements, loss, all of it."""

    def __init__(self, world: World, address: Address) -> None:
        super().__init__(world, address)
        self.driver = EndpointDriver(world, address, self._on_event)
        self.links = LinkTable(self.driver.endpoint, self)
        self._numbers = itertools.count(1, 2)

    def _on_event(self, event: Any) -> None:
        self.links.on_event(event)

    def on_message(self, link: int, data: Buffer) -> None:
        self.links.consume(link, len(data))
        super().on_message(link, data)

    def connect(self, address: Address, tries: float = math.inf) -> int:
        link = next(self._numbers)
        self.links.connect(link, self.seen(address), self.world.now, tries)
        self._pump_soon()
        return link

    def send(self, link: int, *parts: Any, is_bulk: bool = False) -> None:
        if link < 0:
            if self.door is not None:
                self.door.send(-link, *parts)
            return
        self.links.send(link, *parts, is_bulk=is_bulk)
        self._pump_soon()

    def check_bulk(self, link: int) -> None:
        self.links.check_bulk(link)

    def backlog(self, link: int) -> int:
        return self.links.backlog(link)

    def fingerprint(self, link: int) -> Optional[bytes]:
        if link < 0:
            return self.door.fingerprint(-link) if self.door is not None else None
        return self.links.fingerprint(link)

    def has_unread(self, link: int) -> bool:
        return link > 0 and self.links.has_unread(link)

    def heard_at(self, link: int) -> float:
        if link < 0:
            return self.door.heard_at(-link) if self.door is not None else -math.inf
        return self.links.heard_at(link)

    def ask_sign(self, link: int) -> None:
        if link > 0:
            self.links.ask_sign(link)
            self._pump_soon()

    def figures(self, link: int) -> Optional[PathFigures]:
        return self.links.figures(link)

    def disconnect(self, link: int, reason: str) -> None:
        if link < 0:
            if self.door is not None:
                self.door.disconnect(-link, reason)
            return
        self.links.disconnect(link, reason)
        self._pump_soon()

    def send_lone(self, address: Address, message: bytes) -> None:
        assert len(message) <= 1100
        self.driver.endpoint.send_lone(self.seen(address), message)
        self._pump_soon()

    def send_fresh(self, address: Address, message: bytes) -> None:
        self.driver.send_from(self.fresh_place(), self.seen(address), self.driver.endpoint.lone_datagram(message))

    def broadcast_lone(self, port: int, message: bytes) -> None:
        for address in list(self.world.drivers):
            if not self.world.hears_broadcast(self.address, address, port):
                continue
            if self.world.homes.has_firewall(self.address[0]):
                datagram = self.driver.endpoint.lone_datagram(message)
                self.driver.send_from(self.address, address, datagram, is_broadcast=True)
            else:
                self.driver.endpoint.send_lone(address, message)
        self._pump_soon()

    def move(self, ip: str, told_after: float = 1.0) -> None:
        """The host has that address instead; the program sees it so many seconds later."""
        address = ip, self.address[1]
        if address in self.world.networks:
            raise OSError("address in use: %s:%d" % address)
        if self.door is not None:
            self.door.move(ip, told_after)
        if self.world.networks.get(self.address) is self:
            del self.world.networks[self.address]
        self.world.networks[address] = self
        self.address = address
        self.driver.move(address, told_after)
        self.world.after(told_after, self._notice_address)

    def _notice_address(self) -> None:
        if not self.is_stopped:
            self.on_own_address_changed()

    def stop(self) -> None:
        """SIGSTOP: the process stands still, and time goes by."""
        self.is_stopped = self.driver.is_stopped = True
        if self.door is not None:
            self.door.stop()

    def go_on(self) -> None:
        self.is_stopped = False
        self.driver.go_on()
        if self.door is not None:
            self.door.go_on()
        self._wake(self._armed)

    def _pump_soon(self) -> None:
        self.world.after(0.0, self.driver.pump)


class Pair:
    """Two endpoints and a link: what most tests of the transport need.

    `a` opens the connection `there`; `back` is the other end of it, once it exists. Frames that arrive are read at once
    unless `reading` is off; `received` holds their bodies by endpoint. `controller` names `a`'s congestion controller.
    """

    A, B = ("10.0.0.1", 1000), ("10.0.0.2", 2000)

    def __init__(
        self,
        seed: int = 1,
        filters: Tuple[Any, Any] = (None, None),
        beside: Optional[Pair] = None,
        controller: str = DEFAULT,
        trace: Optional[Callable[[str], None]] = None,
        credentials: CredentialsOf = no_credentials,
        **conditions: Any,
    ) -> None:
        values = {"latency": 0.015, "rate": 100e6 / 8, "queue": 25 * 1500 / (100e6 / 8), "mtu": 1500, **conditions}
        self.world = beside.world if beside else World(seed, Conditions(**values), credentials=credentials)
        if beside is not None:  # another connection over the same link
            self.A, self.B = (self.A[0], beside.A[1] + 1), (self.B[0], beside.B[1] + 1)
        self.world.trace = trace or self.world.trace
        self.received: Dict[str, List[bytes]] = {"a": [], "b": []}
        self.streamed = 0  # bytes of `stream` that arrived
        self._streams = False
        self.lost: Dict[str, Any] = {}
        self.reading = True
        self.unread: List[Any] = []
        self.back: Any = None
        self.a = EndpointDriver(self.world, self.A, lambda event: self._on_event("a", event))
        self.b = EndpointDriver(self.world, self.B, lambda event: self._on_event("b", event))
        self.a.filter, self.b.filter = filters
        self.a.endpoint.new_controller = CONTROLLERS[controller]
        self.there = self.a.endpoint.connect(self.B, self.world.now)
        self.a.pump()

    def _on_event(self, side: str, event: Any) -> None:
        if isinstance(event, Established) and side == "b":
            self.back = event.connection
        elif isinstance(event, ConnectionLost):
            self.lost[side] = event
        elif isinstance(event, FrameReceived):
            if self._streams:
                self.streamed += len(event.body)
            else:
                self.received[side].append(bytes(event.body))
            if self.reading:
                event.connection.consume(len(event.body))
            else:
                self.unread.append(event)

    def read(self) -> None:
        """The reader wakes up and takes all that waits."""
        self.reading = True
        for event in self.unread:
            event.connection.consume(len(event.body))
        self.unread.clear()
        self.b.pump()

    def connected(self, limit: float = 10.0) -> bool:
        return self.world.run_until(lambda: self.back is not None, self.world.now + limit)

    def send(self, size: int, frame: int = 100_000) -> bytes:
        """Hand over that many bytes at `a`, in frames."""
        data = self.world.rng.getrandbits(8 * size).to_bytes(size, "big")
        for start in range(0, size, frame):
            self.there.send_frame(0, data[start : start + frame])
        self.a.pump()
        return data

    def stream(self, frame: int = 50_000) -> None:
        """Send without end from now on; what arrives is counted and forgotten."""
        self._streams = True
        while self.there.backlog < 4_000_000 and not self.lost:
            self.there.send_frame(0, bytes(frame))
        self.a.pump()
        self.world.after(0.02, self.stream)

    def rate_over(self, seconds: float) -> float:
        """Bytes per second that `stream` brings in the next seconds."""
        before = self.streamed
        self.world.run(self.world.now + seconds)
        return (self.streamed - before) / seconds

    def transfer(self, size: int, limit: float) -> float:
        """Send that many bytes and wait until they are there; the seconds it took. AssertionError when they differ."""
        began, before = self.world.now, sum(map(len, self.received["b"]))
        data = self.send(size)
        arrived = self.world.run_until(lambda: sum(map(len, self.received["b"])) >= before + size, began + limit)
        assert arrived, "after %g s only %d of %d bytes: %s" % (
            limit,
            sum(map(len, self.received["b"])) - before,
            size,
            self.lost,
        )
        assert b"".join(self.received["b"])[before:] == data
        return self.world.now - began

    def finish(self) -> None:
        """Close in order; both ends must know, and forget."""
        self.there.shut_down("done")
        self.a.pump()
        assert self.world.run_until(lambda: len(self.lost) == 2, self.world.now + 10)
        self.world.run(self.world.now + 10)
        assert not self.a.endpoint.connections
        assert not self.b.endpoint.connections
