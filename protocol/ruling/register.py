"""The supernode's register: a line for each member, the link that it is on, and what all members are told of it.

A line (line.py) is kept while its member may be here or come back; then its member is gone. What changes (news.py) is
told to all together, a moment later, as the roster's next version; who just came is sent the whole of it, and only then
anything else.

Pure: `now` is monotonic seconds.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, Iterable, List, Optional, Tuple

from protocol import messages, mishaps
from protocol.addresses import NETWORK_SHARE, is_loopback, network_of, shown
from protocol.fields import Address
from protocol.hearsay import Hearsay
from protocol.latest import Latest
from protocol.membership.contracts import Seat
from protocol.membership.local_link import LOCAL_LINK
from protocol.messages import (
    GONE,
    LEFT,
    MEMBERS_MAX,
    NAME_BYTES_MAX,
    NOWHERE,
    SHUT_ORDER,
    Departure,
    MemberEntry,
    encode,
    encode_parts,
)
from protocol.network import Network
from protocol.ruling.gathering import Gathering
from protocol.ruling.line import RETURN_TIME, Line
from protocol.ruling.news import News

log = mishaps.logger("supernode")

AWAY_PER_HOST_MAX = 64  # members at one address, loopback aside, with lost links; else a host's comings fill the roster
BACKLOG_MAX = 8 << 20  # bytes queued for a member who does not read, until it is given up


class Register:
    """All members by node id and by link, what changed since the last update, and who waits for the roster."""

    def __init__(
        self, network: Network, seat: Seat, hearsay: Hearsay, departing: Callable[[Line, int, float], None], now: float
    ) -> None:
        """`departing`: told of a line, and how (LEFT or GONE), before it is taken out."""
        self.dropped = 0  # messages refused
        self._network = network
        self._hearsay = hearsay
        self._term = seat.term
        self._own_id = seat.node_id
        self._departing = departing
        self._lines: Dict[bytes, Line] = {}
        for order, entry in enumerate(seat.members[:MEMBERS_MAX]):
            self._lines[entry.node_id] = Line(entry._replace(present=False, order=order), now)
        self._next_order = len(self._lines)
        self._by_link: Dict[int, Line] = {}
        self._gone: Latest[bytes, Tuple[MemberEntry, float]] = Latest(MEMBERS_MAX)  # node id -> its entry, until when
        self._news = News(seat.term)
        self._accompanied_at = now  # when it last had a member other than itself
        self._gathering = Gathering()

    # ---- questions

    @property
    def version(self) -> int:
        """Of the roster, as all are told it."""
        return self._news.version

    def __len__(self) -> int:
        return len(self._lines)

    def __contains__(self, node_id: bytes) -> bool:
        return node_id in self._lines

    def is_known(self, node_id: bytes) -> bool:
        """Is it here, or was it until a minute ago?"""
        return node_id in self._lines or node_id in self._gone

    def get(self, node_id: Optional[bytes]) -> Optional[Line]:
        """The line of that member; None for one who is not here, or for nobody."""
        return None if node_id is None else self._lines.get(node_id)

    def ready(self, node_id: bytes) -> Optional[Line]:
        """The line of a member who may be sent anything."""
        line = self._lines.get(node_id)
        return line if line is not None and line.link is not None and line.is_ready else None

    def on_link(self, link: int) -> Optional[Line]:
        """The line of the member at the end of that link, if it is one."""
        return self._by_link.get(link)

    @property
    def own(self) -> Optional[Line]:
        """The line of this node's own peer, once it has joined."""
        return self._by_link.get(LOCAL_LINK)

    def lines(self) -> List[Line]:
        """All, in the order in which they came, as they are now."""
        return list(self._lines.values())

    def in_order(self) -> List[Line]:
        """The order in which members would take over."""
        return sorted(self._lines.values(), key=lambda line: (line.entry.order, line.node_id))

    def alive(self, now: float) -> List[Line]:
        """Who may rule next, in join order."""
        present = (line for line in self.in_order() if line.link not in (None, LOCAL_LINK) and not line.is_guest)
        return [line for line in present if line.is_ready and line.is_fresh(now)]

    def linked_count(self) -> int:
        """Links with members; the own peer is none."""
        return sum(link != LOCAL_LINK for link in self._by_link)

    def link_count(self) -> int:
        """To how many a message to all is sent."""
        return len(self._by_link)

    def alone_for(self, now: float) -> float:
        """Seconds without a member other than this node itself."""
        return 0.0 if self.linked_count() else now - self._accompanied_at

    def heard_ago(self, node_id: bytes, now: float) -> Optional[float]:
        """Seconds since that member gave a sign; None for one who is not here."""
        line = self._lines.get(node_id)
        if line is None or line.link is None:
            return None
        return 0.0 if line.is_own else now - line.heard_at

    def round_trip(self, node_id: bytes) -> Optional[float]:
        """Seconds, as that member measured it last; None if it is not here or has not yet."""
        line = self._lines.get(node_id)
        return line.round_trip if line is not None and line.link is not None else None

    def own_name_size(self) -> int:
        """Bytes of the name in this node's Answers."""
        line = self._lines.get(self._own_id)
        return NAME_BYTES_MAX if line is None else len(line.entry.name.encode("utf-8"))

    # ---- sending

    def send(self, line: Line, message: Any) -> None:
        """To one member that has a link."""
        assert line.link is not None
        self._network.send(line.link, *encode_parts(message))

    def broadcast(self, message: Any, without: Optional[Line] = None) -> None:
        """To all who have the roster, behind what waits to be told to them."""
        self.tell_waiting()
        self._tell_all([encode(message)], without)

    def gather(self, message: Any) -> None:
        """To all who have the roster, in a moment: in a large network together with what else is said meanwhile."""
        data = encode(message)
        if not self._gathering.add(data, len(self._by_link)):
            self._tell_all([data])

    def tell_waiting(self) -> None:
        """What was gathered is told before anything changes: who is here, who has the roster, who rules."""
        waiting = self._gathering.take()
        if waiting:
            self._tell_all(waiting)

    def _tell_all(self, said: List[bytes], without: Optional[Line] = None) -> None:
        links = [link for link, line in self._by_link.items() if line.is_ready and line is not without]
        self._network.send_to_all(links, *said)

    # ---- who comes

    def refusal(self, node_id: bytes, host: str) -> Optional[messages.Busy]:
        """What somebody is answered for whom there is no room."""
        if node_id not in self._lines and len(self._lines) >= MEMBERS_MAX:
            return messages.Busy(0, f"the network is full ({MEMBERS_MAX} nodes)")
        if node_id not in self._lines and self._has_too_many_away(host):
            return messages.Busy(2000, "too many went away from that address")
        return None

    def _has_too_many_away(self, host: str) -> bool:
        """On loopback, where a whole lab may run, all of it may be away after a failover: there only the rate counts.

        Whoever floods from there could fill the roster with links that it keeps as well; lost ones are gone after 8 s.
        """
        away = [line.entry.place[0] for line in self._lines.values() if line.link is None]
        network = network_of(host)
        of_network = sum(network_of(ip) == network for ip in away) if network != host else 0
        is_too_many = away.count(host) >= AWAY_PER_HOST_MAX or of_network >= AWAY_PER_HOST_MAX * NETWORK_SHARE
        return is_too_many and not is_loopback(host)

    def refuse(self, link: int, message: Any) -> None:
        """Answer a Join that is not taken; whoever was on that link is on none."""
        log.info("link %d is not taken in: %r", link, message)
        self._network.send(link, *encode_parts(message))
        line = self._by_link.pop(link, None)
        if line is not None:
            line.disconnect()
        self._network.disconnect(link, "not taken in")

    def take_in(self, link: int, address: Address, join: messages.Join, now: float) -> Line:
        """A member, new or not, comes by this link; it is sent the roster with the next update."""
        line = self._lines.get(join.node_id) or self._new_line(join, now)
        self._replace_link(line, link)
        order = line.entry.order
        if line.entry.name != join.name:  # as one who comes now: who came before it under that name has the first right
            order = self._new_order()
        line.come(join, NOWHERE if link == LOCAL_LINK else address, order, now)
        self._news.await_roster(line)
        who, where = join.node_id.hex(), shown(address)
        log.info("took in %s, node %s at %s; %d are here", join.name, who, where, len(self._lines))
        self.mark(line, now)
        return line

    def _new_line(self, join: messages.Join, now: float) -> Line:
        entry, _ = self._gone.pop(join.node_id, (None, 0.0))
        if entry is None:
            entry = MemberEntry(join.node_id, join.name, NOWHERE, self._new_order(), join.mesh, True)
        line = self._lines[join.node_id] = Line(entry, now)
        self._news.is_back(join.node_id)
        return line

    def _new_order(self) -> int:
        order = self._next_order
        self._next_order += 1
        return order

    def _replace_link(self, line: Line, link: int) -> None:
        """The member comes by this link from now on; whoever was on it before is not."""
        other = self._by_link.get(link)
        if other is not None and other is not line:
            self.dropped += 1
            other.disconnect()  # one link, two node ids: the first one loses it
        if line.link is not None and line.link != link:
            self._by_link.pop(line.link, None)
            self._network.disconnect(line.link, "it joined again by another link")
        line.connect(link)
        self._by_link[link] = line

    def move(self, link: int, address: Address, now: float) -> None:
        """The member on that link has another address from now on; nothing if it has none."""
        line = self._by_link.get(link)
        if line is not None:
            line.move(address)
            log.info("%s, node %s, is at %s by now", line.entry.name, line.node_id.hex(), shown(address))
            self.mark(line, now)

    # ---- what members say of themselves

    def may_ask(self, line: Line, now: float) -> bool:
        """One request more of this member."""
        if line.requests.take(now):
            return True
        self.dropped += 1
        return False

    def on_ping(self, line: Line, ping: messages.Ping, now: float) -> None:
        """It is told the term; an older one than ours shows that it missed who rules."""
        line.measure(ping.round_trip_us)
        if not line.is_own:
            self._hearsay.on_answer(line.entry.place, now)
        self.send(line, messages.Pong(ping.stamp, self._term))
        if ping.term < self._term:
            self.send(line, messages.Stale(self._term, NOWHERE))

    def on_pong(self, line: Line, pong: messages.Pong, now: float) -> None:
        """Its arrival was the sign of life."""

    def on_leave(self, line: Line, leave: messages.Leave, now: float) -> None:
        """It says good-bye; the own peer is only gone with its supernode."""
        if not line.is_own:
            self._depart(line, LEFT, now)

    def on_set_mesh(self, line: Line, message: messages.SetMesh, now: float) -> None:
        """It wants links to other members, or none from now on."""
        self.wish_mesh(line, message, now)
        self.switch_mesh(line, now)

    def on_guest(self, line: Line, message: messages.Guest, now: float) -> None:
        """It takes over from nobody."""
        line.rule_nobody()

    def on_tried(self, line: Line, is_open: bool, now: float) -> None:
        """Others can reach this member, or not: then it takes over only when none of them is left.

        All compute the heir from the roster, programs of any version alike; so what changes is its place there.
        """
        order = line.entry.order % SHUT_ORDER + (0 if is_open else SHUT_ORDER)
        if order != line.entry.order and not line.is_own:
            line.take_order(order)
            self.mark(line, now)

    def wish_mesh(self, line: Line, message: messages.SetMesh, now: float) -> None:
        """What it wants is known, and comes about at one of the next looks."""
        line.wish_mesh(message.mesh)

    def switch_mesh(self, line: Line, now: float) -> None:
        """All are told of what it wished, if it may wish again so soon."""
        if line.switch_mesh(now):
            self.mark(line, now)

    def wants_roster(self, line: Line, now: float) -> bool:
        """It missed a version, and is sent the whole of it soon; False if it is to be sent it anyway, or asks a lot."""
        if not self.may_ask(line, now) or self._news.is_awaited_by(line) or not line.is_ready:
            return False
        self.tell_waiting()
        line.await_roster()
        self._news.await_roster(line)
        self._news.hasten(now)
        return True

    # ---- who goes

    def lose_link(self, link: int, now: float) -> None:
        """It has a while to come again by another link."""
        line = self._by_link.pop(link, None)
        if line is not None and line.link == link:
            line.lose_link(now)

    def forgive_silence(self, now: float) -> None:
        """This node slept: nobody else was silent, and it was not alone."""
        for line in self._lines.values():
            line.forgive(now)
        self._accompanied_at = now

    def on_tick(self, now: float) -> None:
        """Is anybody here? Whom was it long enough to remember?"""
        if self.linked_count():
            self._accompanied_at = now
        for node_id in [node_id for node_id, (_, until) in self._gone.items() if until <= now]:
            del self._gone[node_id]

    def check(self, line: Line, now: float) -> None:
        """Is this member still here?"""
        if line.link is None:
            if line.has_expired(now):
                self._depart(line, GONE, now)
        elif line.is_own:
            line.hear(now)
        elif self._is_silent(line, now) or self._network.backlog(line.link) > BACKLOG_MAX:
            self._depart(line, GONE, now)

    def _is_silent(self, line: Line, now: float) -> bool:
        """Nobody is judged while his words lie unread: it is this node then that is late."""
        if line.link is None or not line.is_silent(now, len(self._lines)):
            return False
        return not self._network.has_unread(line.link)

    def _depart(self, line: Line, how: int, now: float) -> None:
        """Take this line out; `how`: it said good-bye, or it is gone and may come back."""
        node_id = line.node_id
        log.info("%s, node %s, %s", line.entry.name, node_id.hex(), "is gone" if how == GONE else "left")
        self._departing(line, how, now)
        del self._lines[node_id]
        link = line.disconnect()
        if link is not None:
            self._by_link.pop(link, None)
            self._network.disconnect(link, "gone" if how == GONE else "left")
        if how == GONE:
            self._gone.put(node_id, (line.entry, now + RETURN_TIME))  # to its old place, should it come back
        self.mark(line, now)
        silent_ms = int(1000 * min(1e6, max(0.0, now - line.heard_at)))
        self._news.depart(Departure(node_id, how, silent_ms))

    # ---- updates

    def next_deadline(self) -> float:
        """When `flush` is due."""
        return self._news.next_deadline()

    def gathered_deadline(self) -> float:
        """When `tell_gathered` is due."""
        return self._gathering.next_deadline()

    def tell_gathered(self, now: float) -> None:
        """Tell what was gathered, if it is time."""
        if now >= self._gathering.next_deadline():
            self._tell_all(self._gathering.tell(now))

    def mark(self, line: Line, now: float) -> None:
        """This line changed: tell everyone soon, together with what else changes meanwhile."""
        self._news.change(line.node_id, len(self._lines), now)

    def flush(
        self, now: float, news: Callable[[Line], Iterable[Any]], before: Callable[[], Iterable[Any]] = tuple
    ) -> None:
        """Send what changed to those who have the roster, and the whole of it to those who just came.

        `news`: what else one of these is to know; `before`: what all of these are to know before the roster.
        """
        self.tell_waiting()  # who just came has heard it, or is told it below
        for update in self._news.take_updates(self._lines):
            self.broadcast(update)
        newcomers = self._news.take_newcomers()
        pages = [encode_parts(page) for page in (*before(), *self._pages())] if newcomers else []
        for line in newcomers:
            if line.link is None or line.is_ready:
                continue
            for page in pages:
                self._network.send(line.link, *page)
            line.have_roster()
            for message in news(line):
                self.send(line, message)

    def _pages(self) -> List[messages.RosterPage]:
        return self._news.pages(tuple(line.entry for line in self.in_order()))

    # ---- the end

    def tell_last(self, message: Any) -> None:
        """The last message, to all who are here, with or without the roster."""
        for line in self._lines.values():
            if line.link is not None:
                line.have_roster()
            else:
                line.await_roster()
        self.broadcast(message)

    def close(self) -> List[int]:
        """The links that are to be closed, each after what was sent on it."""
        links = [link for link in self._by_link if link != LOCAL_LINK]
        self._by_link.clear()
        return links
