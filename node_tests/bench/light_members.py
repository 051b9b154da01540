"""Light members: so many in one process, each with a socket of its own, in the network of a real supernode.

    python node_tests/bench/light_members.py --members N --port PORT [--limit SECONDS]

`bench_members.py` starts it and gives it orders, one JSON object a line; it answers in the same form. A light member
has a UDP socket, an endpoint, a table of links and a `Membership` of its own, and no files, only their names. What a
real node pays for itself (decoding what a thousand others are sent as well, what each is called on a screen) is shared
or left out here, so that one process can be a thousand. Loopback only.
"""

from __future__ import annotations

import argparse
import collections
import heapq
import itertools
import json
import math
import os
import pathlib
import random
import select
import socket
import sys
import time
from typing import Any, Callable, Counter, Deque, Dict, Iterable, List, Optional, Sequence, Tuple

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

from node_tests.stage.quiet import Quiet
from protocol import messages
from protocol.fields import Address, Buffer
from protocol.figures import PathFigures
from protocol.membership import view
from protocol.membership.local_link import LocalSide
from protocol.membership.membership import Membership
from protocol.membership.names import Names
from protocol.membership.proofs import share_digest
from protocol.membership.roster import Change, Roster
from protocol.messages import NOWHERE, ShareEntry, decode
from protocol.transport.endpoint import Endpoint
from protocol.transport.links import LinkTable

LOOPBACK = "127.0.0.1"
SOCKET_BUFFER = 4 << 20  # bytes
READS_PER_TURN = 64  # datagrams of one member
ALARMS_PER_TURN = 256  # of all
SHARED_SIZE_LEAST = 60  # bytes: from there on a message is decoded once for all
DECODED_MAX = 400  # such messages that are kept
START_AGAIN_AFTER = 2.0  # seconds: so soon a person would try again
WATCHERS = 3  # members who note when they hear a line
SEARCHED_FILE = 7  # of a member's files

TAG_NAMES = {tag: kind.__name__ for tag, kind in messages.TABLE.items()}


class LightRoster(Roster):
    """Nobody looks at a screen here: all are called as they call themselves."""

    def label_of(self, node_id: bytes, name: str = "") -> str:
        entry = self.get(node_id)
        return name if entry is None else entry.name

    def labels(self) -> Dict[bytes, str]:
        return {entry.node_id: entry.name for entry in self}

    def difference(self, before: Dict[bytes, str], without: Sequence[Optional[bytes]]) -> List[Change]:
        return []


class LightNames(Names):
    """Nor is anybody asked later what somebody was called."""

    def hear(self, bearers: Iterable[messages.Bearer]) -> None:
        pass

    def retain(self, node_ids: Iterable[bytes]) -> None:
        pass


class Tally:
    """What came and went, of all members together."""

    def __init__(self) -> None:
        self.messages: Counter[int] = collections.Counter()  # by tag
        self.bytes: Counter[int] = collections.Counter()
        self.events: Counter[str] = collections.Counter()
        self.datagrams = 0
        self.late = 0.0  # seconds that an alarm was late, at most

    def take_late(self) -> float:
        late, self.late = self.late, 0.0
        return late


class Decoder:
    """What many are sent alike is decoded once."""

    def __init__(self) -> None:
        self._decoded: Dict[bytes, Any] = {}

    def __call__(self, data: Buffer) -> Any:
        if len(data) < SHARED_SIZE_LEAST:
            return decode(data)
        key = bytes(data)
        message = self._decoded.get(key)
        if message is None:
            if len(self._decoded) >= DECODED_MAX:
                self._decoded.clear()
            message = self._decoded[key] = decode(key)
        return message


class LightNetwork:
    """The network as a light member has it: nothing but links and lone messages."""

    def __init__(self, address: Address, endpoint: Endpoint, table: LinkTable) -> None:
        self.address = address
        self._endpoint, self._table = endpoint, table
        self._numbers = itertools.count(1, 2)

    def connect(self, address: Address, tries: float = math.inf) -> int:
        link = next(self._numbers)
        self._table.connect(link, address, time.monotonic(), tries)
        return link

    def send(self, link: int, *parts: Buffer, is_bulk: bool = False) -> None:
        self._table.send(link, *parts, is_bulk=is_bulk)

    def send_to_all(self, links: Sequence[int], *said: bytes) -> None:
        self._table.send_to_all(links, *said)

    def check_bulk(self, link: int) -> None:
        self._table.check_bulk(link)

    def backlog(self, link: int) -> int:
        return self._table.backlog(link)

    def fingerprint(self, link: int) -> Optional[bytes]:
        """This hall has no key."""
        return None

    def has_unread(self, link: int) -> bool:
        return self._table.has_unread(link)

    def heard_at(self, link: int) -> float:
        return self._table.heard_at(link)

    def ask_sign(self, link: int) -> None:
        self._table.ask_sign(link)

    def figures(self, link: int) -> Optional[PathFigures]:
        return self._table.figures(link)

    def disconnect(self, link: int, reason: str) -> None:
        self._table.disconnect(link, reason)

    def send_lone(self, address: Address, message: bytes) -> None:
        self._endpoint.send_lone(address, message)

    def send_fresh(self, address: Address, message: bytes) -> None:
        """Its port is as good as a fresh one: on loopback nothing tells them apart."""
        self._endpoint.send_lone(address, message)

    def broadcast_lone(self, port: int, message: bytes) -> None:
        pass

    def hold_door(self, port: int) -> None:
        pass

    def send_by_door(self, address: Address, message: bytes) -> None:
        pass


class Member(Quiet):
    """One light member: it drives its endpoint, and is what its Membership asks and tells (`Owner`)."""

    def __init__(self, number: int, hall: Hall) -> None:
        self.number, self.name = number, f"m{number:04d}"
        self.hall = hall
        self.rng = random.Random(hall.rng.random())
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((LOOPBACK, 0))
        self.socket.setblocking(False)
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            self.socket.setsockopt(socket.SOL_SOCKET, option, SOCKET_BUFFER)
        self.armed = math.inf  # the alarm that is set
        self.restart_at = math.inf
        self.shares: List[ShareEntry] = []
        self._own_ids: set[bytes] = set()
        self.offers: Dict[int, float] = {}  # by query: when the first one came
        self.heard: Dict[str, float] = {}  # when a line of chat came; of watchers
        self.listed: Optional[Tuple[int, float]] = None
        self.forget()

    def forget(self) -> None:
        """It starts anew, as another node at the same address."""
        self.endpoint = Endpoint(self.rng)
        self.table = LinkTable(self.endpoint, self)
        self._incoming: set[int] = set()
        address = self.socket.getsockname()
        self.network = LightNetwork(address, self.endpoint, self.table)
        self._outbox: Deque[bytes] = collections.deque()
        side = LocalSide(self.network, self._outbox)
        self.membership = Membership(side, self.rng, self, self, self, self.name, mesh=False)
        self.joined_at = 0.0

    def start(self, now: float) -> None:
        self.restart_at = math.inf
        self.membership.start((LOOPBACK, self.hall.port), self.hall.port, now)
        self.hall.wake(self)

    def leave(self, now: float) -> None:
        self.membership.leave(now)
        self.hall.wake(self)

    def say(self, text: str, now: float) -> None:
        self.membership.say(text, now)
        self.hall.wake(self)

    def tell(self, message: Any) -> None:
        """To the supernode."""
        self.membership.send_to_supernode(message)
        self.hall.wake(self)

    def share(self, count: int) -> None:
        base = (self.number + 1) * 100_000
        self.shares = [
            ShareEntry((base + i).to_bytes(4, "big") * 8, 1000 + i, f"{self.name}-file{i:03d}.bin", False, 1, 1000 + i,
                       False) for i in range(count)
        ]  # fmt: skip
        self._own_ids = {entry.file_id for entry in self.shares}
        self._announce()
        self.hall.wake(self)

    def search(self, query: int, entry: ShareEntry) -> None:
        self.tell(messages.Search(query, entry.file_id, entry.size, entry.name, False, bytes(8), NOWHERE, False))

    # ---- driving

    def read(self) -> None:
        self.hall.wake(self)
        for _ in range(READS_PER_TURN):
            try:
                size, address = self.socket.recvfrom_into(self.hall.buffer)
            except OSError:
                return
            self.hall.tally.datagrams += 1
            self.endpoint.receive(self.hall.buffer[:size], size, address, time.monotonic())

    def turn(self, now: float) -> None:
        """Do what is due, send what there is, and set the alarm."""
        if now >= self.restart_at:
            self.start(now)
        if self.endpoint.next_deadline() <= now:
            self.endpoint.on_timeout(now)
        is_done = False
        while not is_done:
            if self.membership.next_deadline() <= now:
                self.membership.on_timer(now)
            while self.endpoint.events:
                self.table.on_event(self.endpoint.events.popleft())
            is_done = not self._send(now) and not self.endpoint.events
        self._arm(now)

    def _send(self, now: float) -> bool:
        has_sent = False
        for batch in self.endpoint.batches(now):
            has_sent = True
            for at in range(0, batch.count * batch.per_datagram, batch.per_datagram):
                self.hall.tally.datagrams += 1
                try:
                    self.socket.sendmsg(batch.buffers[at : at + batch.per_datagram], [], 0, batch.address)
                except OSError as error:
                    self.hall.tally.events[f"send: {error.strerror}"] += 1
        return has_sent

    def _arm(self, now: float) -> None:
        deadline = min(self.endpoint.next_deadline(), self.membership.next_deadline(), self.restart_at)
        deadline = max(deadline, now + 0.001)
        if deadline < math.inf and deadline != self.armed:
            self.armed = deadline
            self.hall.set_alarm(deadline, self)

    # ---- what its table of links tells (`Listener`)

    def on_link_up(self, link: int, address: Address, incoming: bool) -> None:
        if incoming:
            self._incoming.add(link)
        elif self.membership.owns(link):
            self.membership.on_link_up(link, address, incoming, time.monotonic())

    def on_link_lost(self, link: int, reason: str) -> None:
        self._incoming.discard(link)
        if self.membership.owns(link):
            self.hall.tally.events[f"link lost: {reason}"] += 1
            self.membership.on_link_lost(link, reason, time.monotonic())

    def on_link_moved(self, link: int, address: Address) -> None:
        pass

    def on_writable(self, link: int) -> None:
        pass

    def on_cast(self, event: Any) -> None:
        pass

    def on_own_address_changed(self) -> None:
        pass

    def on_lone(self, address: Address, data: bytes) -> None:
        self.membership.on_lone(address, self.hall.decode(data), time.monotonic())

    def on_message(self, link: int, data: Buffer) -> None:
        now = time.monotonic()
        self.hall.tally.messages[data[0]] += 1
        self.hall.tally.bytes[data[0]] += len(data)
        message = self.hall.decode(data)
        if link in self._incoming and isinstance(message, messages.Join):
            self.membership.on_stray_join(link, now)
        elif self.membership.owns(link):
            self._on_supernode_message(link, message, now)
        self.table.consume(link, len(data))

    def _on_supernode_message(self, link: int, message: Any, now: float) -> None:
        if isinstance(message, messages.Busy):
            self.hall.tally.events[f"Busy: {message.reason}"] += 1
        if self.membership.on_message(link, message, now):
            return
        if isinstance(message, messages.SharesWanted):
            self._send_shares()
        elif isinstance(message, messages.Search) and message.file_id in self._own_ids:
            self._offer(message)
        elif isinstance(message, messages.Offer):
            self.offers.setdefault(message.query_id, now)
        elif isinstance(message, messages.ListPage):
            self.listed = message.total, now

    def _offer(self, search: messages.Search) -> None:
        values = {"query_id": search.query_id, "file_id": search.file_id, "size": search.size, "to": search.requester,
                  "provider": self.membership.node_id, "place": self.network.address, "complete": True}  # fmt: skip
        self.tell(messages.Offer(*[values.get(field, 0) for field in messages.Offer._fields]))

    def _announce(self) -> None:
        self.membership.send_to_supernode(messages.ShareDigest(share_digest(self.shares), len(self.shares)))

    def _send_shares(self) -> None:
        for first in range(0, max(1, len(self.shares)), messages.SHARES_PER_PAGE):
            entries = tuple(self.shares[first : first + messages.SHARES_PER_PAGE])
            self.membership.send_to_supernode(messages.SharePage(first, len(self.shares), entries))

    # ---- what its Membership asks and tells (`Owner`)

    @property
    def is_ruling(self) -> bool:
        return False

    def can_serve_at(self, ip: str) -> bool:
        return False  # as if the supernode were on another machine

    def own_addresses(self) -> Sequence[str]:
        return ()

    def become_supernode(self, seat: Any, now: float) -> None:
        self.hall.tally.events["a light member should rule, and cannot"] += 1

    def drop_supernode(self, now: float) -> None:
        self._outbox.clear()

    def on_outcome(self, kind: str, address: Optional[Address], text: str, now: float) -> None:
        self.hall.tally.events[f"outcome: {kind} {text}"] += 1
        if kind in ("nobody", "refused"):
            self.restart_at = now + START_AGAIN_AFTER

    def on_joined(self, now: float) -> None:
        self.joined_at = now
        self.membership.send_to_supernode(messages.Places(()))
        self.membership.ways.ask_reach(now)
        self._announce()

    def on_supernode_lost(self, now: float) -> None:
        self.hall.tally.events["supernode lost"] += 1

    def on_supernode_changed(self, old: str, new: str, is_me: bool, silent: Optional[float], now: float) -> None:
        self.hall.tally.events["supernode changed"] += 1

    def on_member_left(self, label: str, silent: Optional[float], now: float) -> None:
        self.hall.tally.events["told that a member left" if silent is None else "told that a member is gone"] += 1

    def on_chat(self, label: str, text: str, is_me: bool, now: float) -> None:
        if self.number < WATCHERS:
            self.heard[text] = now

    def on_unsaid(self, count: int) -> None:
        self.hall.tally.events["unsaid"] += count

    def on_notice(self, text: str) -> None:
        self.hall.tally.events[f"notice: {text}"] += 1


class Hall:
    """All light members, their one clock, and who gives them orders."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.port = arguments.port
        self.rng = random.Random(arguments.seed)
        self.tally, self.decode = Tally(), Decoder()
        self.buffer = memoryview(bytearray(1 << 16))
        self._until = time.monotonic() + arguments.limit
        self._dirty: Dict[Member, None] = {}
        self._alarms: List[Tuple[float, int, Member]] = []
        self._ties = itertools.count()
        self._typed = b""
        self.members = [Member(number, self) for number in range(arguments.members)]
        self._by_fd = {member.socket.fileno(): member for member in self.members}

    def wake(self, member: Member) -> None:
        """It has something to do."""
        self._dirty[member] = None

    def set_alarm(self, deadline: float, member: Member) -> None:
        heapq.heappush(self._alarms, (deadline, next(self._ties), member))

    def run(self) -> None:
        """Until the orders end."""
        poll = select.epoll()
        for fd in (0, *self._by_fd):
            poll.register(fd, select.EPOLLIN)
        self.answer("ready")
        is_over = False
        while not is_over and time.monotonic() < self._until:
            ready = [fd for fd, _ in poll.poll(self._patience(), 256)]
            for fd in ready:
                if fd:
                    self._by_fd[fd].read()
            is_over = 0 in ready and not self._obey_all()
            self._ring(time.monotonic())
            dirty, self._dirty = self._dirty, {}
            for member in dirty:
                member.turn(time.monotonic())

    def _patience(self) -> float:
        if self._dirty:
            return 0.0
        return max(0.0, min(0.5, self._alarms[0][0] - time.monotonic())) if self._alarms else 0.5

    def _ring(self, now: float) -> None:
        for _ in range(ALARMS_PER_TURN):
            if not self._alarms or self._alarms[0][0] > now:
                return
            deadline, _, member = heapq.heappop(self._alarms)
            if member.armed == deadline:
                member.armed = math.inf
                self.tally.late = max(self.tally.late, now - deadline)
                self.wake(member)

    # ---- orders

    def _obey_all(self) -> bool:
        """Do what the orders that came say; False at their end."""
        data = os.read(0, 1 << 16)
        *lines, self._typed = (self._typed + data).split(b"\n")
        for line in lines:
            order = json.loads(line)
            _ORDERS[order.pop("do")](self, **order)
        return bool(data)

    def answer(self, kind: str, **values: Any) -> None:
        """A line for who gives the orders."""
        os.write(1, (json.dumps({"kind": kind, "at": time.monotonic(), **values}) + "\n").encode())

    def join(self) -> None:
        for member in self.members:
            member.start(time.monotonic())

    def leave(self, number: int) -> None:
        self.members[number].leave(time.monotonic())

    def rejoin(self, number: int) -> None:
        self.members[number].forget()
        self.members[number].start(time.monotonic())

    def share(self, count: int) -> None:
        for member in self.members:
            member.share(count)

    def say(self, number: int, text: str) -> None:
        self.members[number].say(text, time.monotonic())

    def search(self, number: int, holder: int, query: int) -> None:
        self.members[number].search(query, self.members[holder].shares[SEARCHED_FILE])

    def rush(self, query: int, count: int) -> None:
        """So many ask at once for a file of the first one."""
        entry = self.members[0].shares[SEARCHED_FILE]
        for asker in self.members[1 : 1 + count]:
            asker.search(query, entry)

    def list_files(self, number: int, pattern: str) -> None:
        self.members[number].listed = None
        self.members[number].tell(messages.ListRequest(1, pattern, 0))

    def tell_list(self, number: int) -> None:
        self.answer("list", list=self.members[number].listed)

    def tell_offers(self, query: int) -> None:
        got = [member.offers[query] for member in self.members if query in member.offers]
        is_joined = sum(member.membership.is_joined for member in self.members)
        self.answer("offers", got=len(got), last=max(got, default=0.0), joined=is_joined)

    def tell_heard(self) -> None:
        self.answer("heard", lines=[member.heard for member in self.members[1:WATCHERS]])

    def tell_state(self) -> None:
        joined = [member for member in self.members if member.membership.is_joined]
        rulers = collections.Counter((member.membership.supernode_id or b"").hex() for member in joined)
        self.answer(
            "state", joined=len(joined), ruler=rulers.most_common(1), rulers=len(rulers),
            last_joined_at=max((member.joined_at for member in self.members), default=0.0),
            lengths=collections.Counter(len(member.membership.roster) for member in joined).most_common(2),
            states=collections.Counter(member.membership.state.name for member in self.members),
            messages={TAG_NAMES.get(tag, str(tag)): count for tag, count in self.tally.messages.items()},
            bytes={TAG_NAMES.get(tag, str(tag)): count for tag, count in self.tally.bytes.items()},
            datagrams=self.tally.datagrams, events=self.tally.events, late=self.tally.take_late(),
        )  # fmt: skip


_ORDERS: Dict[str, Callable[..., None]] = {
    "join": Hall.join,
    "leave": Hall.leave,
    "rejoin": Hall.rejoin,
    "share": Hall.share,
    "say": Hall.say,
    "search": Hall.search,
    "rush": Hall.rush,
    "list": Hall.list_files,
    "tell_list": Hall.tell_list,
    "tell_offers": Hall.tell_offers,
    "tell_heard": Hall.tell_heard,
    "tell_state": Hall.tell_state,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--members", type=int, required=True)
    parser.add_argument("--port", type=int, required=True, help="of the supernode, on loopback")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--limit", type=float, default=900.0, help="seconds until it ends whatever happens")
    arguments = parser.parse_args()
    view.Roster, view.Names = LightRoster, LightNames  # type: ignore[misc]
    Hall(arguments).run()


if __name__ == "__main__":
    main()
