"""A node without files: Membership and Supernode wired as Peer does it, for tests of the network of nodes."""

from __future__ import annotations

import random
from collections import deque
from functools import partial
from typing import Any, Callable, Deque, List, Optional, Tuple

from node_tests.stage.quiet import Quiet
from node_tests.stage.simulator import World
from protocol import messages
from protocol.fields import WireError
from protocol.membership.contracts import Seat
from protocol.membership.local_link import LOCAL_LINK, LocalSide
from protocol.membership.membership import Membership
from protocol.membership.promises import Promises
from protocol.membership.proofs import share_digest
from protocol.messages import ShareEntry, decode, encode_parts
from supernode import Supernode

PORT = 6020


class StubNode(Quiet):
    """One process, as far as membership goes; `events` is what its person would have seen."""

    def __init__(self, world: World, ip: str, name: str, port: int = PORT, seed: Optional[int] = None) -> None:
        self.world = world
        self.network = world.network((ip, port))
        self.rng = random.Random(world.rng.random() if seed is None else seed)
        self._to_supernode: Deque[bytes] = deque()
        self._to_peer: Deque[bytes] = deque()
        self.membership = Membership(LocalSide(self.network, self._to_supernode), self.rng, self, self, self, name)
        self.supernode: Optional[Supernode] = None
        self._promises = Promises()
        self.incoming: dict = {}
        self.events: List[Tuple[Any, ...]] = []
        self.chat: List[Tuple[str, str]] = []
        self.received: List[Any] = []  # messages that are Peer's
        self.shares: List[ShareEntry] = []
        self.changes: List[float] = []
        self.obeyed: List[Tuple[bytes, int, Any]] = []
        self.malformed = 0  # messages
        self.asks_reach = False  # whether others can reach it, as programs do that are not old
        self.is_asleep = False
        self._slept: List[Callable[[float], None]] = []  # events that came meanwhile
        world.attach(self.network, self)

    # ---- what a person does

    def start(self, target: Optional[Tuple[str, int]] = None) -> StubNode:
        return self._do(self.membership.start, target, PORT, self.world.now)

    def say(self, text: str) -> None:
        self._do(self.membership.say, text, self.world.now)

    def quit(self) -> None:
        self.network.hold_door(0)
        if self.supernode is not None:
            self._do(self.supernode.hand_over, self.world.now, self._end)
        else:
            self._end()

    def _end(self) -> None:
        self.membership.leave(self.world.now)
        self.events.append(("quit", self.world.now))
        self.world.after(0.05, self.network.close)

    def kill(self) -> None:
        self.world.kill(self.network)

    def sleep(self) -> None:
        """SIGSTOP: time passes, datagrams wait."""
        self.is_asleep = True

    def wake(self) -> None:
        self.is_asleep = False
        waiting, self._slept = self._slept, []
        self.on_timer(self.world.now)
        for event in waiting:
            event(self.world.now)
        self.network.rearm()

    def send(self, message: Any) -> None:
        self._do(self.membership.send_to_supernode, message)

    def _do(self, verb: Any, *args: Any) -> StubNode:
        verb(*args)
        self._drain()
        self.network.rearm()
        return self

    # ---- events of the network

    def _decoded(self, data: bytes) -> Any:
        """As the real peer has it: what is malformed is dropped, and counted."""
        try:
            return decode(data)
        except WireError:
            self.malformed += 1
            return None

    def on_link_up(self, link: int, address: Any, incoming: bool, now: float) -> None:
        if self._put_off(self.on_link_up, link, address, incoming):
            return
        self.membership.hearsay.on_answer(address, now)
        if incoming:
            self.incoming[link] = address
        elif self.membership.owns(link):
            self.membership.on_link_up(link, address, incoming, now)
        self._drain()

    def on_link_lost(self, link: int, reason: str, now: float) -> None:
        if self._put_off(self.on_link_lost, link, reason):
            return
        self.incoming.pop(link, None)
        if self.membership.owns(link):
            self.membership.on_link_lost(link, reason, now)
        if self.supernode is not None and self.supernode.owns(link):
            self.supernode.on_link_lost(link, reason, now)
        self._drain()

    def on_message(self, link: int, data: bytes, now: float) -> None:
        if self._put_off(self.on_message, link, data):
            return
        message = self._decoded(data)
        if message is None:
            return
        if self.supernode is not None and self.supernode.owns(link):
            self._to_own_supernode(link, message, now)
        elif self.membership.owns(link):
            self._to_own_peer(link, message, now)
        elif link in self.incoming and type(message) is messages.Join:
            if self.supernode is not None and link > 0:
                self.supernode.on_hello(link, self.incoming[link], message, now)
            else:
                self.membership.on_stray_join(link, now)
        self._drain()

    def on_lone(self, address: Any, data: bytes, now: float) -> None:
        if self._put_off(self.on_lone, address, data):
            return
        message = self._decoded(data)
        if message is None:
            return
        if self.supernode is None or not self.supernode.on_lone(address, message, now):
            self.membership.on_lone(address, message, now)
        self._drain()

    def on_door_lone(self, address: Any, data: bytes, now: float) -> None:
        if not self._put_off(self.on_door_lone, address, data):
            message = decode(data)
            if self.supernode is not None and type(message) is messages.Query:
                self.supernode.on_asked(address, message, now)
            self.membership.on_door_lone(address, message, now)
            self._drain()

    def on_timer(self, now: float) -> None:
        if self.is_asleep:
            return
        self.membership.on_timer(now)
        if self.supernode is not None:
            self.supernode.on_timer(now)
        self._drain()

    def next_deadline(self) -> float:
        if self.is_asleep:
            return float("inf")
        deadline = self.membership.next_deadline()
        return deadline if self.supernode is None else min(deadline, self.supernode.next_deadline())

    def _put_off(self, event: Callable[..., None], *args: Any) -> bool:
        if self.is_asleep:
            self._slept.append(partial(event, *args))
        return self.is_asleep

    def _drain(self) -> None:
        while self._to_supernode or self._to_peer:
            if self._to_supernode:
                self._to_own_supernode(LOCAL_LINK, decode(self._to_supernode.popleft()), self.world.now)
            else:
                self._to_own_peer(LOCAL_LINK, decode(self._to_peer.popleft()), self.world.now)

    def _to_own_supernode(self, link: int, message: Any, now: float) -> None:
        if self.supernode is None:
            return
        if type(message) is messages.Join:
            address = self.network.address if link == LOCAL_LINK else self.incoming[link]
            self.supernode.on_hello(link, address, message, now)
        else:
            self.supernode.on_message(link, message, now)

    def _to_own_peer(self, link: int, message: Any, now: float) -> None:
        if not self.membership.on_message(link, message, now):
            self.received.append(message)
            if type(message) is messages.SharesWanted:
                pages = range(0, max(1, len(self.shares)), messages.SHARES_PER_PAGE)
                for first in pages:
                    entries = tuple(self.shares[first : first + messages.SHARES_PER_PAGE])
                    self.membership.send_to_supernode(messages.SharePage(first, len(self.shares), entries))

    # ---- what Membership asks and tells

    def can_serve_at(self, ip: str) -> bool:
        return ip in (self.network.address[0], "127.0.0.1")

    def own_addresses(self) -> List[str]:
        return [self.network.address[0]]

    def become_supernode(self, seat: Seat, now: float) -> None:
        local = LocalSide(self.network, self._to_peer)
        mine = self.membership
        self.supernode = Supernode(
            local, self.rng, seat, now, mine.hearsay, self.on_notice, mine.go_over, self._promises, mine.credit
        )

    def drop_supernode(self, now: float) -> None:
        self.supernode = None
        self._to_supernode.clear()
        self._to_peer.clear()

    def on_outcome(self, kind: str, address: Any, text: str, now: float) -> None:
        self.events.append(("outcome", kind, address, text))

    def on_joined(self, now: float) -> None:
        known_port = self.membership.search_port
        self.network.hold_door(0 if known_port == self.network.address[1] else known_port)
        self.obeyed.append((self.membership.network_id, self.membership.term, self.membership.supernode_id))
        if self.asks_reach:
            self.membership.ways.ask_reach(now)
        self.membership.send_to_supernode(messages.ShareDigest(share_digest(self.shares), len(self.shares)))

    def on_supernode_lost(self, now: float) -> None:
        self.events.append(("lost",))

    def on_supernode_changed(self, old: str, new: str, is_me: bool, silent: Optional[float], now: float) -> None:
        self.events.append(("changed", old, new, is_me, silent))
        self.changes.append(now)

    def on_member_joined(self, label: str, now: float) -> None:
        self.events.append(("joined", label))

    def on_member_left(self, label: str, silent: Optional[float], now: float) -> None:
        self.events.append(("left", label, silent))

    def on_chat(self, label: str, text: str, is_me: bool, now: float) -> None:
        self.chat.append((label, text))

    def on_unsaid(self, count: int) -> None:
        self.events.append(("unsaid", count))

    def on_notice(self, text: str) -> None:
        self.events.append(("notice", text))

    # ---- what tests ask

    @property
    def is_ruling(self) -> bool:
        return self.supernode is not None and not self.supernode.has_ended

    def names(self) -> List[str]:
        return [entry.name for entry in self.membership.roster if entry.present]


class Lab:
    """Several nodes in one world, one after the other in join order."""

    def __init__(self, seed: int, count: int, packets: bool = False, **conditions: Any) -> None:
        self.world = World(seed=seed, packets=packets)
        for key, value in conditions.items():
            setattr(self.world.conditions, key, value)
        self.nodes: List[StubNode] = []
        for _ in range(count):
            self.add()
            self.world.run_until(lambda: self.nodes[-1].membership.is_joined, self.world.now + 10)
        self.run(1.0)

    def add(self, name: str = "") -> StubNode:
        number = len(self.nodes)
        node = StubNode(self.world, "10.0.%d.%d" % (number // 200, number % 200 + 1), name or "n%d" % number)
        self.nodes.append(node)
        return node.start(("10.0.0.1", PORT) if number else None)

    def run(self, seconds: float) -> None:
        self.world.run(until=self.world.now + seconds)

    def wait(self, condition: Any, limit: float) -> Optional[float]:
        """Seconds until it holds, or None."""
        since = self.world.now
        held = self.world.run_until(condition, since + limit)
        return self.world.now - since if held else None

    def living(self) -> List[StubNode]:
        return [node for node in self.nodes if node.network.alive]

    def rulers(self) -> List[StubNode]:
        return [node for node in self.living() if node.is_ruling]

    def agree(self) -> bool:
        """All living nodes obey one supernode and see the same members, all present."""
        living = self.living()
        rulers = {node.membership.supernode_id for node in living}
        rosters = {tuple(node.names()) for node in living}
        is_joined = all(node.membership.is_joined for node in living)
        return is_joined and len(rulers) == len(rosters) == 1 and len(living[0].names()) == len(living)


def share(number: int, name: str = "") -> ShareEntry:
    file_id = number.to_bytes(32, "big")
    return ShareEntry(file_id, 1000 + number, name or "file%d.bin" % number, False, 1, 1000 + number, False)


__all__ = ["PORT", "Lab", "StubNode", "encode_parts", "share"]
