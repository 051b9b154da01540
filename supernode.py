"""The role that keeps the network together: roster, chat in one order, index of shares, search, handover.

One node has it at a time. Its own peer is a member like any other, reached over LOCAL_LINK.
Every message of a member comes over that member's own link: what it says about others is not heard.

A supernode ends in one of three ways: `hand_over` (the person quits), going over to another supernode of its network,
met after a partition or after it had slept (which of the two goes: `protocol/ruling/rivals.py`), or, if nobody ever
joined it, when its peer has been taken in by another network that it met at its port (`on_better`). While it is not
sure that it still rules, it holds its tongue.
"""

from __future__ import annotations

import hashlib
import heapq
import math
import random
from collections import deque
from typing import Any, Callable, Deque, Dict, Hashable, List, Optional, Set, Tuple

from protocol import messages, mishaps
from protocol.addresses import is_loopback, may_contact, seen_from
from protocol.fairness import FairShares, FairTurns
from protocol.fields import Address
from protocol.hearsay import Hearsay
from protocol.membership.chat import ChatOrder
from protocol.lateness import SLEPT_AFTER
from protocol.membership.contracts import Network, Seat
from protocol.membership.door import is_better
from protocol.membership.heirs import LOST_HEIRLOOMS_MAX, Heirlooms, heirloom_of, is_heir, marked
from protocol.membership.labels import name_fault
from protocol.membership.local_link import LOCAL_LINK
from protocol.membership.lost import LostPlaces
from protocol.membership.promises import Promises
from protocol.membership.proofs import is_proven, node_id_of, random_bytes, share_digest
from protocol.membership.queries import HINT_INTERVAL, Prober
from protocol.membership.roster import TERM_STEP_MAX
from protocol.messages import (
    GONE,
    LEFT,
    MEMBERS_MAX,
    MEMBERS_PER_PAGE,
    NAME_BYTES_MAX,
    NO_NODE,
    NOWHERE,
    ROLE_MEMBER,
    ROLE_SUPERNODE,
    Answer,
    Departure,
    MemberEntry,
    ShareEntry,
    encode_parts,
)
from protocol.rates import Bucket
from protocol.ruling.alarm import Alarm
from protocol.ruling.credit import Credit
from protocol.ruling.index import Index, has_wildcard
from protocol.ruling.newcomers import Admission, Waiting
from protocol.ruling.rivals import Rivals, gives_way

log = mishaps.logger("supernode")

TICK = 0.5  # seconds between two looks at the members
SILENT_MAX = 8.0  # seconds without a sign (four beats) until a member is gone
FRESH = 4.0  # seconds in which a member counts as surely alive
RETURN_TIME = 60.0  # seconds that a line is kept for its member, after a failover or when it was lost
REQUESTS_PER_SECOND, REQUESTS_BURST = 200.0, 400.0  # lists and searches from one member
WORK_PER_SECOND = 500.0  # as many requests of all together, with as much at once: a quarter of a core
ROWS_PER_REQUEST = 2500  # looking through so many rows for a list counts as one request more ...
ROWS_PER_REQUEST_FITTED = 1000  # ... and through so many with a wildcard
MEMBERS_PER_REQUEST = 32  # to whom a search is told
ASKS_WAITING_MAX = 64  # requests for lists and searches of one member, put off until they have their turn
SHARES_PER_SECOND, SHARES_BURST = 20.0, 200.0  # pages of shares from one member: two whole lists, then one each 5 s
SHARES_AGAIN_AFTER = 5.0  # seconds from a page that was refused until all are asked for: then a whole list has room
OFFERS_PER_SECOND, OFFERS_BURST = 1000.0, 2000.0  # from one member
AWAY_PER_HOST_MAX = 64  # members at one address, loopback aside, with lost links; else a host's comings fill the roster
UPDATE_DELAY_EACH, UPDATE_DELAY_MAX = 0.001, 0.5  # seconds a roster update waits for more, for each member and at most
BACKLOG_MAX = 8 << 20  # bytes queued for a member who does not read, until it is given up
ROUND_TRIP_US_MAX = 60_000_000  # that a member may claim
HEAL_INTERVAL = 10.0
HEAL_APART = 15.0  # seconds, at a place that has not answered lately (protocol/hearsay.py)
FIRST_HEAL = 1.0  # seconds from taking office to the first look at the latest: another may have taken it as well
LATEST_LOST, OTHER_LOST_ASKED = 16, 4  # places where another supernode is looked for, among these, and of all others
WITNESS_TIME = 15.0  # seconds that the word of a lost member counts; it is asked each 10
CLAIM_HEAL_GAP = 5.0  # seconds between two looks for those who were lost, however many claim to rule
UNSETTLED_AFTER = 60.0  # seconds until a person is told that another half of the network stays apart
PROVES_PER_SECOND, PROVES_BURST = 1.0, 4.0  # however many claim to rule
PROOFS_MAX = 16  # waited for
WITNESSED_MAX = 16  # other supernodes of the same network
HINTS_PER_SECOND = 0.5  # of all that were paid for
QUERY_SIZE = len(messages.encode(messages.Query(bytes(8))))
WANTED_SIZE = len(messages.encode(messages.Wanted(bytes(8), NOWHERE)))
STALE_SIZE = len(messages.encode(messages.Stale(0, NOWHERE)))
ANSWER_SIZE = 97  # at most, beside the name
DOUBT_TIME = 3.0  # seconds to find out whether somebody took over meanwhile
DOUBT_QUERY_INTERVAL = 0.5
DOUBT_APART = 1.0  # seconds, at a place that has not answered lately (protocol/hearsay.py)
HELD_MAX = 10_000  # messages kept while in doubt, and files that they announce: 1 KB each, and 12 MB at worst
HANDOVER_TIME = 2.0
ASK_BACK_AFTER = 2.0  # seconds: who asks may be about to join
GO_OVER_TIME = 6.0  # seconds for the other network to take this node in; who wants to join comes again after it
GO_OVER_AGAIN = 10.0  # until the next try, doubled with each: a stranger's empty promise keeps nobody away for long
OTHER_NETWORKS_TOLD_MAX = 16


def _cost_held(message: Any) -> int:
    """Of these that are kept: one, and one more for each file that it tells of."""
    return 1 + len(getattr(message, "entries", ()))


class _Line:
    """One member, as the supernode knows it."""

    def __init__(self, entry: MemberEntry, now: float) -> None:
        self.entry = entry
        self.link: Optional[int] = None
        self.is_ready = False  # it has been sent the roster; only then anything else
        self.heard_at = now
        self.heirloom: Optional[messages.Heirloom] = None  # what it gives to its own members, should it ever rule
        self.was_lost = False  # it comes back from where it gave no sign for a while
        self.round_trip: Optional[float] = None  # seconds, as the member measured it
        self.expires_at = now + RETURN_TIME  # when it has no link
        self.wished_mesh = entry.mesh
        self.requests = Bucket(REQUESTS_PER_SECOND, REQUESTS_BURST, now)
        self.shares = Bucket(SHARES_PER_SECOND, SHARES_BURST, now)
        self.offers = Bucket(OFFERS_PER_SECOND, OFFERS_BURST, now)
        self.pages: List[ShareEntry] = []
        self.asks: Deque[Any] = deque()  # requests for lists, and searches, that wait for their turn
        self.digest: Optional[bytes] = None  # of its shares here, as it announced it; None: unknown
        self.announced: Optional[bytes] = None
        self.says_good_bye = False  # as soon as the doubt is over
        self.want_shares_at = math.inf


class Supernode:
    """The ruling supernode of one term, from become_supernode to handover or step-down."""

    def __init__(
        self,
        network: Network,
        rng: random.Random,
        seat: Seat,
        now: float,
        hearsay: Optional[Hearsay] = None,
        on_notice: Optional[Callable[[str], None]] = None,
        on_better: Optional[Callable[[Address, float], None]] = None,
        promises: Optional[Promises] = None,
    ) -> None:
        self.network = network
        self.rng = rng
        self.network_id = seat.network_id
        self.term = seat.term
        self.node_id = seat.node_id
        self.version = 1  # everyone gets the whole roster when it comes back
        self.index = Index()
        self._dropped = 0
        self._secret = seat.secret
        self._opening = random_bytes(rng, 32)  # shown only in the Handover
        self._commitment = hashlib.sha256(self._opening).digest()
        self._on_notice = on_notice or (lambda text: None)
        self._known_supernodes = list(seat.known_supernodes)
        self._search_port = seat.search_port
        self._hearsay = Hearsay() if hearsay is None else hearsay
        self._prober = Prober(network, rng, self._hearsay)
        self._lines: Dict[bytes, _Line] = {}
        self._by_link: Dict[int, _Line] = {}
        self._gone: Dict[bytes, Tuple[MemberEntry, float]] = {}  # node id -> its line, until when
        self._lost_places = LostPlaces(seat.lost_places)
        self._heirlooms = Heirlooms(seat.heirlooms)
        self._lost_heirlooms = Heirlooms(limit=LOST_HEIRLOOMS_MAX)
        self._proofs: Dict[bytes, Tuple[Address, bytes]] = {}  # nonce of a Prove -> where it went, who claims to rule
        self._proves = Bucket(PROVES_PER_SECOND, PROVES_BURST, now)
        self._obeyed_by_lost: Dict[bytes, float] = {}  # another supernode -> when one of the lost last named it
        self._waiting = Alarm()
        self._chat = ChatOrder(seat.recent_chat, self._broadcast, self._waiting.set)
        for order, entry in enumerate(seat.members[:MEMBERS_MAX]):
            self._lines[entry.node_id] = _Line(entry._replace(present=False, order=order), now)
            self._chat.enter(entry, now)
        self._next_order = len(self._lines)
        self._credit = Credit()
        self._rivals = Rivals()
        self._promises = Promises() if promises is None else promises
        self._promises.rules_again(now)
        self._accompanied_at = now  # when it last had a member other than itself
        self._hints = Bucket(HINTS_PER_SECOND, 2.0, now)
        self._admission = Admission(now)
        self._changed: Dict[bytes, None] = {}  # ordered, unlike a set: a test's seed replays exactly
        self._departed: Dict[bytes, Departure] = {}
        self._newcomers: List[_Line] = []
        self._asking: Dict[bytes, _Line] = {}  # whose requests wait
        self._turns = FairTurns()
        self._work = Bucket(WORK_PER_SECOND, WORK_PER_SECOND, now)
        self._flush_at = math.inf
        self._next_tick = now + TICK
        self.is_lone = seat.term == 1 and len(seat.members) == 1  # nobody ever joined it
        self._on_better = on_better or (lambda address, now: None)
        self._meetings: Dict[bytes, int] = {}  # with other networks, while it is lone
        self._asked_by: Optional[Tuple[Address, float]] = None  # the first since the last look, and when
        self._going_until = -math.inf
        self._go_again_at, self._go_again_after = -math.inf, GO_OVER_AGAIN
        self._next_heal = now + rng.random() * FIRST_HEAL
        self._healed_at = -math.inf
        self._awake_at = now  # the last event of any kind
        self._doubt_until = -math.inf
        self._doubt_asked: Set[bytes] = set()
        self._next_doubt_query = math.inf
        self._held: Deque[Tuple[_Line, Any]] = deque()
        self._held_shares = FairShares(HELD_MAX)  # by node id
        self._successor: Optional[Address] = None  # where this one's members are sent when it no longer rules
        self._done: Optional[Callable[[], None]] = None
        self._leaving: Set[int] = set()
        self._leave_by = math.inf
        self._told_networks: Set[bytes] = set()
        self.has_ended = False

    # ---- questions ------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._lines)

    @property
    def dropped(self) -> int:
        """Messages refused: over a limit, or not the sender's to say."""
        return self._dropped + self._chat.dropped

    def owns(self, link: int) -> bool:
        """Is this the link of a member (LOCAL_LINK included once its peer joined), or was it until just now?"""
        return link in self._by_link or link in self._leaving or link in self._admission

    def is_in_doubt(self, now: float) -> bool:
        return now < self._doubt_until

    def heard_ago(self, node_id: bytes, now: float) -> Optional[float]:
        """Seconds since that member gave a sign; None for one who is not here."""
        line = self._lines.get(node_id)
        if line is None or line.link is None:
            return None
        return 0.0 if line.link == LOCAL_LINK else now - line.heard_at

    def linked_count(self) -> int:
        """Links with members; the own peer is none."""
        return sum(link != LOCAL_LINK for link in self._by_link)

    def round_trip(self, node_id: bytes) -> Optional[float]:
        """Seconds, as that member measured it last; None if it is not here or has not yet."""
        line = self._lines.get(node_id)
        return line.round_trip if line is not None and line.link is not None else None

    # ---- admission ------------------------------------------------------------------------------------------------

    def on_hello(self, link: int, address: Address, join: messages.Join, now: float) -> None:
        """A Join, the first message on a link (or again on the same)."""
        self._watch_sleep(now)
        if self.has_ended:
            self._refuse(link, messages.NotSupernode(self.term, self._successor or NOWHERE))
            return
        refusal = self._refusal(link, address, join, now)
        if refusal is not None:
            self._refuse(link, refusal)
        elif link == LOCAL_LINK:
            self._take_in(link, address, join, now)
        elif not self._admission.admits(address[0], self._is_newcomer(join), now):
            self._refuse(link, self._too_many())
        elif self._admission.has_turn(address[0], now):
            self._take_in(link, address, join, now)
        else:
            self._put_off(Waiting(link, address, join), now)

    def _put_off(self, waiting: Waiting, now: float) -> None:
        loser = self._admission.put_off(waiting)
        if loser is not None:
            self._refuse(loser.link, self._too_many())
        self._waiting.set(now)

    def _take_in_waiting(self, now: float) -> None:
        """Those who have their turn by now, if nothing has come between."""
        waiting = self._admission.next(now)
        while waiting is not None:
            refusal = self._refusal(*waiting, now)
            if refusal is not None:
                self._refuse(waiting.link, refusal)
            else:
                self._take_in(*waiting, now)
            waiting = self._admission.next(now)
        if len(self._admission):
            self._waiting.set(now)

    def _too_many(self) -> messages.Busy:
        return messages.Busy(500 + self.rng.randrange(1500), "too many at once")

    def _is_newcomer(self, join: messages.Join) -> bool:
        return join.node_id not in self._lines and join.node_id not in self._gone

    def _take_in(self, link: int, address: Address, join: messages.Join, now: float) -> None:
        self.is_lone = self.is_lone and link == LOCAL_LINK
        was_lost = self._is_lost(address, now)
        line = self._lines.get(join.node_id) or self._new_line(join, now)
        self._replace_link(line, link)
        if line.entry.name != join.name:  # as one who comes now: who came before it under that name has the first right
            line.entry = line.entry._replace(order=self._next_order)
            self._next_order += 1
        place = NOWHERE if link == LOCAL_LINK else address
        line.entry = line.entry._replace(name=join.name, place=place, mesh=join.mesh, present=True)
        line.wished_mesh = join.mesh
        line.was_lost = was_lost
        line.heirloom = heirloom_of(join.node_id, join.opening, self.network_id)
        self._lost_heirlooms.discard(join.node_id)
        self._lost_places.discard(place)
        line.heard_at, line.round_trip = now, None
        line.is_ready = False
        self._chat.come(line.entry, join.chat_seen if join.network_id == self.network_id else 0)
        self._send(link, self._welcome(line))
        self._newcomers.append(line)
        log.info("took in %s, node %s at %s:%d; %d are here", join.name, join.node_id.hex(), *address, len(self._lines))
        self._mark(join.node_id, now)

    def _refusal(self, link: int, address: Address, join: messages.Join, now: float) -> Any:
        """What to answer when this Join is not taken, else None."""
        if link == LOCAL_LINK:
            return None
        if join.node_id != node_id_of(join.opening) or join.node_id == self.node_id:
            return messages.Busy(0, "this node id is not yours")
        fault = name_fault(join.name)
        if fault is not None:
            return messages.Busy(0, fault)
        if join.network_id == self.network_id and join.term > self.term:
            self._heal_soon(now)  # who rules in a later term?
            return messages.NotSupernode(self.term, NOWHERE)
        is_going = self.is_lone and now < self._going_until  # it would be left alone here
        if is_going or self.is_in_doubt(now):
            return self._too_many()
        if join.node_id not in self._lines and len(self._lines) >= MEMBERS_MAX:
            return messages.Busy(0, "the network is full (%d nodes)" % MEMBERS_MAX)
        if join.node_id not in self._lines and self._has_too_many_away(address[0]):
            return messages.Busy(2000, "too many went away from that address")
        return None

    def _has_too_many_away(self, host: str) -> bool:
        """On loopback, where a whole lab may run, all of it may be away after a failover: there only the rate counts.

        Whoever floods from there could fill the roster with links that it keeps as well; lost ones are gone after 8 s.
        """
        away = sum(line.link is None and line.entry.place[0] == host for line in self._lines.values())
        return away >= AWAY_PER_HOST_MAX and not is_loopback(host)

    def _refuse(self, link: int, message: Any) -> None:
        log.info("link %d is not taken in: %r", link, message)
        self._send(link, message)
        line = self._by_link.pop(link, None)
        if line is not None:
            line.link = None
        self.network.disconnect(link, "not taken in")

    def _new_line(self, join: messages.Join, now: float) -> _Line:
        gone = self._gone.pop(join.node_id, None)
        if gone is None:
            line = _Line(MemberEntry(join.node_id, join.name, NOWHERE, self._next_order, join.mesh, True), now)
            self._next_order += 1
        else:
            line = _Line(gone[0], now)
        self._lines[join.node_id] = line
        self._chat.enter(line.entry, now)
        self._departed.pop(join.node_id, None)
        return line

    def _replace_link(self, line: _Line, link: int) -> None:
        """The member comes by this link from now on; whoever was on it before is not."""
        other = self._by_link.get(link)
        if other is not None and other is not line:
            self._dropped += 1
            other.link = None  # one link, two node ids: the first one loses it
        if line.link is not None and line.link != link:
            self._by_link.pop(line.link, None)
            self.network.disconnect(line.link, "it joined again by another link")
        line.link = link
        line.asks.clear()  # it asks again
        self._by_link[link] = line

    def _welcome(self, line: _Line) -> messages.Welcome:
        return messages.Welcome(
            self.network_id, self.term, self.node_id, self._secret, self._commitment,
            line.entry.order, self.version, self._chat.sequence,
        )  # fmt: skip

    # ---- the roster -----------------------------------------------------------------------------------------------

    def _mark(self, node_id: bytes, now: float) -> None:
        """This line changed: tell everyone soon, together with what else changes meanwhile."""
        self._changed[node_id] = None
        self._flush_at = min(self._flush_at, now + min(UPDATE_DELAY_MAX, UPDATE_DELAY_EACH * len(self._lines)))

    def _depart(self, line: _Line, how: int, now: float) -> None:
        node_id = line.entry.node_id
        log.info("%s, node %s, %s", line.entry.name, node_id.hex(), "is gone" if how == GONE else "left")
        self._chat.leave(node_id)
        del self._lines[node_id]
        self._drop_link(line, "gone" if how == GONE else "left")
        self.index.forget(node_id)
        if how == GONE:
            if len(self._gone) >= MEMBERS_MAX:
                del self._gone[next(iter(self._gone))]
            self._gone[node_id] = line.entry, now + RETURN_TIME
            self._lost_places.add(line.entry.place)
            self._lost_heirlooms.add(line.heirloom)
        self._mark(node_id, now)
        self._changed.pop(node_id, None)
        silent_ms = int(1000 * min(1e6, max(0.0, now - line.heard_at)))
        self._departed[node_id] = Departure(node_id, how, silent_ms)

    def _drop_link(self, line: _Line, reason: str) -> None:
        link, line.link = line.link, None
        if link is not None:
            self._by_link.pop(link, None)
            self.network.disconnect(link, reason)

    def _flush(self, now: float) -> None:
        """Send what changed to those who have the roster, and the whole of it to those who just came."""
        self._flush_at = math.inf
        changed = [self._lines[node_id].entry for node_id in self._changed if node_id in self._lines]
        departed = list(self._departed.values())
        self._changed.clear()
        self._departed.clear()
        while changed or departed:
            self.version += 1
            update = messages.RosterUpdate(
                self.term, self.version, tuple(changed[:MEMBERS_PER_PAGE]), tuple(departed[:MEMBERS_PER_PAGE])
            )
            del changed[:MEMBERS_PER_PAGE], departed[:MEMBERS_PER_PAGE]
            self._broadcast(update)
        newcomers, self._newcomers = self._newcomers, []
        pages = [encode_parts(page) for page in self._roster_pages()] if newcomers else []
        for line in newcomers:
            if line.link is not None and not line.is_ready:
                self._send_roster(line, pages)

    def _roster_pages(self) -> List[messages.RosterPage]:
        entries = [line.entry for line in self._in_order()]
        firsts = range(0, len(entries), MEMBERS_PER_PAGE)
        return [
            messages.RosterPage(self.term, self.version, first, len(entries), tuple(entries[first:][:MEMBERS_PER_PAGE]))
            for first in firsts
        ]

    def _send_roster(self, line: _Line, pages: List[Any]) -> None:
        assert line.link is not None
        for page in pages:
            self.network.send(line.link, *page)
        line.is_ready = True
        if self._lost_places:
            self._send(line.link, messages.Lost(tuple(self._lost_places.latest(messages.LOST_TOLD_MAX))))
        self._send(line.link, messages.Heirs(self._heirlooms.all()))
        for chat in self._chat.missed(line.entry.node_id):
            self._send(line.link, chat)

    def _in_order(self) -> List[_Line]:
        return sorted(self._lines.values(), key=lambda line: (line.entry.order, line.entry.node_id))

    def _send(self, link: int, message: Any) -> None:
        self.network.send(link, *encode_parts(message))

    def _broadcast(self, message: Any, without: Optional[_Line] = None) -> None:
        parts = encode_parts(message)
        for link, line in list(self._by_link.items()):
            if line.is_ready and line is not without:
                self.network.send(link, *parts)

    # ---- messages of members --------------------------------------------------------------------------------------

    def on_message(self, link: int, message: Any, now: float) -> None:
        self._watch_sleep(now)
        line = self._by_link.get(link)
        if line is None or self.has_ended:
            return
        line.heard_at = now
        if self._held and not self.is_in_doubt(now):
            self._release(now)  # nothing overtakes what was said before it
        if type(message) not in _HANDLERS or line.says_good_bye:
            self._dropped += 1  # not a member's to say (rosters, handovers, claims), or no more
        elif self.is_in_doubt(now) and type(message) not in _ANSWERED_IN_DOUBT:
            self._hold(line, message)
        else:
            _HANDLERS[type(message)](self, line, message, now)

    def _hold(self, line: _Line, message: Any) -> None:
        """Keep a message until the doubt is over. When there are too many, who has most of them says its last again."""
        if type(message) is messages.Leave:  # it is not said again, but once by each: it needs no share
            line.says_good_bye = True
            self._held.append((line, message))
            return
        cost, node_id = _cost_held(message), line.entry.node_id
        who = self._held_shares.gives_way(node_id, cost)
        while who is not None and who != node_id:
            self._drop_last_held(who)
            who = self._held_shares.gives_way(node_id, cost)
        if who == node_id:
            self._refuse_held(line, message)
        else:
            self._held_shares.take(node_id, cost)
            self._held.append((line, message))

    def _drop_last_held(self, node_id: Hashable) -> None:
        behind, (line, message) = next(
            (behind, held)
            for behind, held in enumerate(reversed(self._held), 1)
            if held[0].entry.node_id == node_id and type(held[1]) is not messages.Leave
        )
        del self._held[-behind]
        self._held_shares.give_back(node_id, _cost_held(message))
        self._refuse_held(line, message)

    def _refuse_held(self, line: _Line, message: Any) -> None:
        self._dropped += 1
        if isinstance(message, messages.Say):
            self._chat.refuse(line.entry.node_id, message.counter)
        elif isinstance(message, messages.SetMesh):
            line.wished_mesh = message.mesh
        elif type(message) in _ABOUT_SHARES:
            line.want_shares_at = self._awake_at + SHARES_AGAIN_AFTER

    def _on_ping(self, line: _Line, ping: messages.Ping, now: float) -> None:
        assert line.link is not None
        if 0 < ping.round_trip_us <= ROUND_TRIP_US_MAX:
            line.round_trip = ping.round_trip_us / 1e6
        if line.link != LOCAL_LINK:
            self._hearsay.on_answer(line.entry.place, now)
        self._send(line.link, messages.Pong(ping.stamp, self.term))
        if ping.term < self.term:
            self._send(line.link, messages.Stale(self.term, NOWHERE))

    def _on_pong(self, line: _Line, pong: messages.Pong, now: float) -> None:
        pass  # its arrival was the sign of life

    def _on_leave(self, line: _Line, leave: messages.Leave, now: float) -> None:
        if line.link != LOCAL_LINK:
            self._depart(line, LEFT, now)

    def _on_set_mesh(self, line: _Line, message: messages.SetMesh, now: float) -> None:
        line.wished_mesh = message.mesh
        self._switch_mesh(line, now)

    def _switch_mesh(self, line: _Line, now: float) -> None:
        """As it wishes; somebody who switches on and off without end has its last wish soon."""
        if line.entry.mesh != line.wished_mesh and line.requests.take(now):
            line.entry = line.entry._replace(mesh=line.wished_mesh)
            self._mark(line.entry.node_id, now)

    def _on_roster_request(self, line: _Line, request: messages.RosterRequest, now: float) -> None:
        if self._may_ask(line, now) and line not in self._newcomers and line.is_ready:
            line.is_ready = False
            self._chat.skip(line.entry.node_id)
            self._newcomers.append(line)
            self._flush_at = min(self._flush_at, now + UPDATE_DELAY_MAX)

    def _may_ask(self, line: _Line, now: float, count: float = 1.0) -> bool:
        if line.requests.take(now, count):
            return True
        self._dropped += 1
        return False

    def _on_say(self, line: _Line, say: messages.Say, now: float) -> None:
        echo = self._chat.on_say(line.entry.node_id, say, now)
        if echo is not None and line.link is not None and self._may_ask(line, now):
            self._send(line.link, echo)

    # ---- shares, lists, searches ----------------------------------------------------------------------------------

    def _on_share_digest(self, line: _Line, message: messages.ShareDigest, now: float) -> None:
        shares = self.index.shares_of(line.entry.node_id)
        if line.digest is None and len(shares) == message.count:
            line.digest = share_digest(shares)
        line.announced = message.digest
        is_known = line.digest == message.digest and not self.index.is_short(line.entry.node_id)
        if not is_known:
            line.want_shares_at = now
            self._want_shares(line, now)

    def _want_shares(self, line: _Line, now: float) -> None:
        """Have the member tell all that it shares, if that is due."""
        if now >= line.want_shares_at and line.link is not None and line.requests.take(now):
            line.want_shares_at = math.inf
            self._send(line.link, messages.SharesWanted())

    def _may_share(self, line: _Line, now: float) -> bool:
        if not line.shares.take(now):
            self._dropped += 1
            line.digest = None
            line.want_shares_at = now + SHARES_AGAIN_AFTER
            return False
        return True

    def _on_share_page(self, line: _Line, page: messages.SharePage, now: float) -> None:
        if not self._may_share(line, now):
            return
        if page.first == 0:
            line.pages = []
        if page.first != len(line.pages) or page.total > messages.SHARES_MAX:
            self._dropped += 1
            return
        line.pages += self._marked(line, page.entries)
        if len(line.pages) >= page.total:
            self._dropped += self.index.replace(line.entry.node_id, line.pages)
            line.pages = []
            line.digest = line.announced  # its own word about its own list: a lie only costs itself

    def _marked(self, line: _Line, entries: Tuple[ShareEntry, ...]) -> Tuple[ShareEntry, ...]:
        """Only the supernode's own peer has a cache of the network."""
        if line.link == LOCAL_LINK:
            return entries
        return tuple(entry._replace(cached=False) if entry.cached else entry for entry in entries)

    def _on_share_add(self, line: _Line, message: messages.ShareAdd, now: float) -> None:
        if not self._may_share(line, now):
            return
        self._dropped += self.index.add(line.entry.node_id, self._marked(line, message.entries))
        line.digest = None

    def _on_share_remove(self, line: _Line, message: messages.ShareRemove, now: float) -> None:
        if not self._may_share(line, now):
            return
        self.index.remove(line.entry.node_id, message.entries)
        line.digest = None

    def _on_ask(self, line: _Line, request: Any, now: float) -> None:
        """A request for a list, or a search: done at once while nobody waits."""
        if len(line.asks) >= ASKS_WAITING_MAX:
            self._dropped += 1
            return
        line.asks.append(request)
        is_first = not self._asking
        self._asking[line.entry.node_id] = line
        if is_first:
            self._serve_asks(now)

    def _serve_asks(self, now: float) -> None:
        """Do what the members' buckets and the common one have room for, whoever had least first.

        The rest waits, since who asks wants an answer.
        """
        asking = {node_id: line for node_id, line in self._asking.items() if line.asks and line.link is not None}
        waiting = [self._turn_of(node_id) for node_id in asking]
        heapq.heapify(waiting)
        while waiting:
            _, _, node_id = waiting[0]
            line = asking[node_id]
            cost = self._cost_of(line.asks[0])
            if line.requests.has(now, cost):
                if not self._work.take(now, cost):
                    break  # nor may anybody else: many cheap ones would keep a dear one waiting for ever
                line.requests.take(now, cost)
                self._turns.serve(node_id, cost)
                self._serve(line, line.asks.popleft(), now)
                if line.asks:
                    heapq.heapreplace(waiting, self._turn_of(node_id))
                    continue
            heapq.heappop(waiting)
        self._asking = {node_id: line for node_id, line in self._asking.items() if line.asks and line.link is not None}
        if self._asking:
            self._waiting.set(now)

    def _turn_of(self, node_id: bytes) -> Tuple[float, int, bytes]:
        return self._turns.start(node_id), self._asking[node_id].entry.order, node_id

    def _cost_of(self, request: Any) -> float:
        if isinstance(request, messages.Search):
            return 1.0 + len(self._by_link) / MEMBERS_PER_REQUEST
        if self.index.is_at_hand(request.pattern, request.first):
            return 1.0
        rows_for_one = ROWS_PER_REQUEST_FITTED if has_wildcard(request.pattern) else ROWS_PER_REQUEST
        return 1.0 + len(self.index) / rows_for_one

    def _serve(self, line: _Line, request: Any, now: float) -> None:
        if isinstance(request, messages.Search):
            self._on_search(line, request)
        else:
            assert line.link is not None
            total, rows = self.index.page(request.pattern, request.first)
            self._send(line.link, messages.ListPage(request.request_id, request.first, total, rows))

    def _on_search(self, line: _Line, search: messages.Search) -> None:
        local = self._by_link.get(LOCAL_LINK)
        requester = line.entry.node_id
        if search.via_supernode and local is not None and line is not local:
            relay = messages.Relay(
                search.query_id, search.file_id, search.size, search.name, search.is_folder, requester
            )
            self._send(LOCAL_LINK, relay)
            return
        self._broadcast(search._replace(requester=requester, place=line.entry.place), without=line)

    def _on_offer(self, line: _Line, offer: messages.Offer, now: float) -> None:
        target = self._lines.get(offer.to) if line.offers.take(now) else None
        if target is None or target.link is None or not target.is_ready or offer.to == NO_NODE:
            self._dropped += 1
            return
        self._send(target.link, offer._replace(provider=line.entry.node_id))

    def _on_not_relayed(self, line: _Line, answer: messages.NotRelayed, now: float) -> None:
        target = self._lines.get(answer.to) if line.link == LOCAL_LINK else None  # nobody else relays
        if target is None or target.link is None or not target.is_ready:
            self._dropped += 1
            return
        self._send(target.link, answer)

    # ---- lost members, time ---------------------------------------------------------------------------------------

    def on_link_lost(self, link: int, reason: str, now: float) -> None:
        self._watch_sleep(now)
        self._leaving.discard(link)
        self._check_leaving(now)
        self._admission.discard(link)
        line = self._by_link.pop(link, None)
        if line is not None and line.link == link:
            line.link = None
            line.is_ready = False
            line.expires_at = max(now, line.heard_at + SILENT_MAX)  # time to come again by a new link

    def on_timer(self, now: float) -> None:
        self._watch_sleep(now)
        self._check_leaving(now)
        if self.has_ended:
            return
        if self.is_in_doubt(now):
            if now >= self._next_doubt_query:
                self._ask_successors(now)
            return
        self._release(now)
        if now >= self._next_tick:
            self._next_tick = now + TICK
            self._look_at_members(now)
            self._ask_back(now)
        if now >= self._next_heal:
            self._next_heal = now + HEAL_INTERVAL * (0.9 + 0.2 * self.rng.random())
            self._heal(now)
        if now >= self._flush_at:
            self._flush(now)
        if self._waiting.rings(now):
            self._take_in_waiting(now)
            self._serve_asks(now)
            self._chat.serve(now)

    def next_deadline(self) -> float:
        if self.has_ended:
            return self._leave_by
        if self._doubt_until > self._awake_at:
            return min(self._doubt_until, self._next_doubt_query)
        return min(self._next_tick, self._next_heal, self._flush_at, self._waiting.at)

    def _look_at_members(self, now: float) -> None:
        if self.linked_count():
            self._accompanied_at = now
        for line in list(self._lines.values()):
            self._switch_mesh(line, now)
            self._want_shares(line, now)
            if line.link is None:
                if now >= line.expires_at:
                    self._depart(line, GONE, now)
            elif line.link == LOCAL_LINK:
                line.heard_at = now
            elif now - line.heard_at > SILENT_MAX or self._does_not_read(line.link):
                self._depart(line, GONE, now)
        for node_id in [node_id for node_id, gone in self._gone.items() if gone[1] <= now]:
            del self._gone[node_id]
        self._ask_for_what_found_no_room()

    def _ask_for_what_found_no_room(self) -> None:
        """The index was full and has room again: one member at each look says once more what it shares."""
        line = self._lines.get(self.index.next_short() or NO_NODE)
        if line is not None and line.link is not None:
            self._send(line.link, messages.SharesWanted())

    def _does_not_read(self, link: int) -> bool:
        return self.network.backlog(link) > BACKLOG_MAX

    # ---- sleep, partition, step-down ------------------------------------------------------------------------------

    def _watch_sleep(self, now: float) -> None:
        """Were we late by more than a moment? Then somebody may have taken over, and nobody was silent."""
        late, self._awake_at = now - self._awake_at - TICK, now
        if late <= SLEPT_AFTER or self.has_ended:
            return
        for line in self._lines.values():
            line.heard_at = now
            line.expires_at = max(line.expires_at, now + SILENT_MAX)
        self._accompanied_at = now
        self._ask_successors(now)
        if self._doubt_asked:
            self._doubt_until = now + DOUBT_TIME

    def _ask_successors(self, now: float) -> None:
        """Ask the first three who would have taken over, again those who did not answer."""
        lines = [line for line in self._in_order() if line.entry.place != NOWHERE][:3]
        if self.is_in_doubt(now):
            lines = [line for line in lines if line.entry.node_id in self._doubt_asked]
        self._doubt_asked = {line.entry.node_id for line in lines}
        for line in lines:
            self._prober.ask(line.entry.place, "doubt", now, DOUBT_APART)
        self._next_doubt_query = now + DOUBT_QUERY_INTERVAL

    def _release(self, now: float) -> None:
        """The doubt is over: go on with what was held, also of one whose link was lost meanwhile."""
        self._doubt_until = -math.inf
        held, self._held = self._held, deque()
        self._held_shares = FairShares(HELD_MAX)
        for line, message in held:
            _HANDLERS[type(message)](self, line, message, now)

    def _heal(self, now: float) -> None:
        """Look for another supernode of this network: where one was, at members who are away, and by broadcast."""
        self._healed_at = now
        away = [line.entry.place for line in self._lines.values() if line.link is None]
        away += self._lost_places.latest(LATEST_LOST)
        places = self._known_supernodes[-8:] + self.rng.sample(away, min(8, len(away)))
        places += self._lost_places.some(OTHER_LOST_ASKED, self.rng)
        for place in dict.fromkeys(places):
            if place not in (self.network.address, NOWHERE):
                self._prober.ask(place, "heal", now, HEAL_APART)
        if self._search_port:
            self._prober.broadcast(self._search_port, "heal", now)

    def on_lone(self, address: Address, message: Any, now: float) -> bool:
        """True when this was an Answer to a Query of its own (or a hint for a supernode)."""
        self._watch_sleep(now)
        if type(message) is messages.Stale:
            self._on_hint(address, message, now)
            return True
        if type(message) is messages.Query:
            self.on_asked(address, message, now)
        handler = _LONE_HANDLERS.get(type(message))
        if handler is not None:
            handler(self, address, message, now)
            return True
        if type(message) is not Answer:
            return False
        asked = self._prober.match(address, message, now)
        if asked is None or asked.address is None:
            return False
        if self.has_ended or asked.purpose == "pay":
            return True
        if asked.is_broadcast and not self._hearsay.is_proven(asked.address, now):
            self._prober.ask(asked.address, "heal", now, HINT_INTERVAL)  # is it there that this comes from?
        else:
            self._on_answer(asked.address, message, now)
        return True

    def on_asked(self, address: Address, query: messages.Query, now: float) -> None:
        """Somebody asks who is here, or at the door."""
        if self._prober.is_own(query.nonce):
            return
        self._credit.earn(address, QUERY_SIZE - ANSWER_SIZE - self._own_name_size())
        if self.is_lone:
            self._asked_by = self._asked_by or (address, now)

    def _ask_back(self, now: float) -> None:
        """Who asked at this port may be of a network that is known by it, and that this lone one does not reach.

        It has asked twice by then, or a forged address would be sent more bytes than were spent on it.
        """
        if self._asked_by is not None and now >= self._asked_by[1] + ASK_BACK_AFTER:
            address, self._asked_by = self._asked_by[0], None
            if self.is_lone and may_contact(address, []) and self._is_paid_for(address, WANTED_SIZE, now):
                self._prober.ask_freely(address, "heal", now, (NOWHERE[0], self._search_port))

    def _on_hint(self, address: Address, stale: messages.Stale, now: float) -> None:
        """Somebody says that it rules in a later term: asked, once its address has sent as many bytes as that costs."""
        self._credit.earn(address, STALE_SIZE)
        near = [place[0] for place in self._known_supernodes]
        if stale.term >= self.term and may_contact(address, near) and self._is_paid_for(address, QUERY_SIZE, now):
            self._prober.ask_freely(address, "heal", now)

    def _is_paid_for(self, address: Address, size: int, now: float) -> bool:
        """May so many bytes go there because as many came from there? Then they are spent."""
        return self._credit.spend(address, size) and self._hints.take(now)

    def _own_name_size(self) -> int:
        line = self._lines.get(self.node_id)
        return NAME_BYTES_MAX if line is None else len(line.entry.name.encode("utf-8"))

    def _on_answer(self, address: Address, answer: Answer, now: float) -> None:
        if answer.network_id != self.network_id:
            self._meet_other(address, answer, now)
            return
        is_believable = answer.node_id != self.node_id and answer.term <= self.term + TERM_STEP_MAX
        if not is_believable or not is_proven(answer, self._secret):
            self._dropped += 1
        elif answer.role == ROLE_SUPERNODE:
            self._meet(address, answer, now)
        elif answer.role == ROLE_MEMBER:
            self._hear_member(address, answer, now)

    def _hear_member(self, address: Address, answer: Answer, now: float) -> None:
        # Equal or lower terms, too: that supernode may know nobody on this side, and is to follow us.
        obeys_another = answer.supernode_id not in (NO_NODE, self.node_id)
        if obeys_another and self._is_lost(address, now):
            self._hear_witness(answer.supernode_id, now)
        if answer.term > self.term or obeys_another:
            self._prober.ask_hinted(seen_from(answer.supernode, address), "heal", [address[0]], now)
        if answer.term > self.term:
            return
        self._doubt_asked.discard(answer.node_id)
        if not self._doubt_asked and self.is_in_doubt(now):
            self._doubt_until = now  # those who would have taken over did not

    def _meet(self, address: Address, answer: Answer, now: float) -> None:
        """Another supernode of our network: one of the two gives way, as `rivals` has it."""
        line = self._lines.get(answer.node_id)
        if line is not None and self._is_with_us(line, now):
            self._dropped += 1  # it follows us and claims to rule: a liar
            return
        is_newer = (-answer.term, answer.node_id) < (-self.term, self.node_id)
        is_of_us = self._is_lost(address, now) or self._rules_over_lost(answer.node_id, now)
        met_for = self._rivals.meet(answer.node_id, now)
        is_hollow = not self.linked_count() and not self._promises.may_follow(address[0], now)
        if not is_hollow and gives_way(is_newer, is_of_us, self._alone_for(now), met_for):
            self._step_down(address, answer, now)
            return
        if met_for > UNSETTLED_AFTER:
            self._tell_network(address, answer)
        if not is_of_us:
            self._ask_whose_heir(address, answer.node_id, now)
        if is_newer:
            self._dropped += 1
            self._heal_soon(now, CLAIM_HEAL_GAP)  # those whom we lost may know it
        else:
            self._prober.ask(address, "pay", now)  # so that it may ask us in turn
            self.network.send_lone(address, messages.encode(messages.Stale(self.term, NOWHERE)))

    def _alone_for(self, now: float) -> float:
        return 0.0 if self.linked_count() else now - self._accompanied_at

    def _is_with_us(self, line: _Line, now: float) -> bool:
        """Does this member surely follow us? (Who has slept is not sure of anybody.)"""
        return line.link is not None and now - line.heard_at <= FRESH and not self.is_in_doubt(now)

    def _ask_whose_heir(self, address: Address, ruler: bytes, now: float) -> None:
        """All whom we lost may be gone by now; somebody whom they took in may rule."""
        if not self._proves.take(now):
            return
        if len(self._proofs) >= PROOFS_MAX:
            del self._proofs[next(iter(self._proofs))]
        nonce = random_bytes(self.rng, 8)
        self._proofs[nonce] = address, ruler
        self.network.send_lone(address, messages.encode(messages.Prove(nonce)))

    def _on_prove(self, address: Address, prove: messages.Prove, now: float) -> None:
        if not self.has_ended and self._proves.take(now):
            marks = marked(self._heirlooms.all(), prove.nonce, self.node_id)
            self.network.send_lone(address, messages.encode(messages.Proof(prove.nonce, marks)))

    def _on_proof(self, address: Address, proof: messages.Proof, now: float) -> None:
        asked, ruler = self._proofs.pop(proof.nonce, (NOWHERE, NO_NODE))
        is_unsure = self.is_in_doubt(now)
        silent = [line for line in self._lines.values() if is_unsure or now - line.heard_at > FRESH]
        lost = {line.entry.node_id: line.heirloom for line in silent if line.heirloom is not None}
        lost.update(self._lost_heirlooms.by_id())
        if asked == address and not self.has_ended and is_heir(proof.marks, proof.nonce, ruler, lost):
            self._hear_witness(ruler, now)
            self._prober.ask(address, "heal", now)

    def _is_lost(self, address: Address, now: float) -> bool:
        """Was somebody lost there in silence, or may have been, and nobody came back from there since?"""
        lines = [line for line in self._lines.values() if line.entry.place == address]
        if any(now - line.heard_at <= FRESH for line in lines) and not self.is_in_doubt(now):
            return False
        return bool(lines) or address in self._lost_places

    def _on_lost(self, line: _Line, lost: messages.Lost, now: float) -> None:
        """Where the part of the network that this member comes back from lost others: they may rule a third part."""
        if not line.was_lost or not self._may_ask(line, now):
            self._dropped += 1
            return
        teller = line.entry.place
        told = [seen_from(place, teller) for place in lost.places]
        places = [place for place in told if may_contact(place, [teller[0]]) and not self._is_here(place)]
        for place in places:
            self._lost_places.add(place)
        if places and LOCAL_LINK in self._by_link:  # should this node step down in turn
            self._send(LOCAL_LINK, messages.Lost(tuple(places)))

    def _is_here(self, place: Address) -> bool:
        return any(line.entry.place == place and line.link is not None for line in self._lines.values())

    def _hear_witness(self, ruler: bytes, now: float) -> None:
        self._obeyed_by_lost.pop(ruler, None)
        if len(self._obeyed_by_lost) >= WITNESSED_MAX:
            del self._obeyed_by_lost[next(iter(self._obeyed_by_lost))]
        self._obeyed_by_lost[ruler] = now

    def _rules_over_lost(self, ruler: bytes, now: float) -> bool:
        return now - self._obeyed_by_lost.get(ruler, -math.inf) <= WITNESS_TIME

    def _heal_soon(self, now: float, gap: float = 1.0) -> None:
        self._next_heal = min(self._next_heal, max(now, self._healed_at + gap))

    def _step_down(self, address: Address, winner: Answer, now: float) -> None:
        for line in self._lines.values():
            line.is_ready = line.link is not None
        if not self.linked_count():
            self._promises.follow(address[0], now)
        self._broadcast(messages.Moved(winner.term, address, winner.node_id))
        self._end(address, now)

    def _meet_other(self, address: Address, answer: Answer, now: float) -> None:
        """Somebody of another network. Nobody is moved by a stranger's word, unless there is nobody to move."""
        if not self.is_lone or answer.role != ROLE_SUPERNODE:
            if self.is_lone and answer.role == ROLE_MEMBER:
                self._prober.ask_hinted(seen_from(answer.supernode, address), "heal", [address[0]], now)
            self._tell_network(address, answer)
            return
        if len(self._meetings) < OTHER_NETWORKS_TOLD_MAX or answer.network_id in self._meetings:
            self._meetings[answer.network_id] = self._meetings.get(answer.network_id, 0) + 1
        if not is_better(answer, self.node_id, self._meetings.get(answer.network_id, 0)):
            self._tell_network(address, answer)
        elif now >= self._go_again_at:
            self._going_until = now + GO_OVER_TIME
            self._go_again_at = now + self._go_again_after
            self._go_again_after *= 2
            self._on_better(address, now)

    def _tell_network(self, address: Address, answer: Answer) -> None:
        if answer.role != ROLE_SUPERNODE or answer.network_id in self._told_networks:
            return
        if len(self._told_networks) < OTHER_NETWORKS_TOLD_MAX:
            self._told_networks.add(answer.network_id)
            place = "%s:%d" % address
            self._on_notice("another network is at %s (%s, %d nodes)" % (place, answer.name, answer.member_count))

    # ---- the end --------------------------------------------------------------------------------------------------

    def hand_over(self, now: float, done: Callable[[], None]) -> None:
        """Planned leave: Handover to all; done() when it is delivered to everyone, at the latest after 2 s."""
        self._done = done
        if not self.has_ended:
            self._flush(now)
            successor = None if self.is_in_doubt(now) else self._first_alive(now)
            if successor is not None:
                self._broadcast(messages.Handover(self.term + 1, successor.entry.node_id, self._opening))
            self._end(successor.entry.place if successor is not None else None, now)
        self._check_leaving(now)

    def _first_alive(self, now: float) -> Optional[_Line]:
        for line in self._in_order():
            if line.link not in (None, LOCAL_LINK) and line.is_ready and now - line.heard_at <= FRESH:
                return line
        return None

    def _end(self, successor: Optional[Address], now: float) -> None:
        """Rule no longer: close all links, each after what was sent on it."""
        self.has_ended = True
        self._successor = successor
        for waiting in self._admission.all():
            self._admission.discard(waiting.link)
            self._refuse(waiting.link, messages.NotSupernode(self.term, successor or NOWHERE))
        links = [link for link in self._by_link if link != LOCAL_LINK]
        self._by_link.clear()
        self._held.clear()
        self._leaving = set(links)
        self._leave_by = now + HANDOVER_TIME
        for link in links:
            self.network.disconnect(link, "the supernode leaves")

    def _check_leaving(self, now: float) -> None:
        if self.has_ended and (not self._leaving or now >= self._leave_by):
            self._leaving.clear()
            self._leave_by = math.inf
            done, self._done = self._done, None
            if done is not None:
                done()


_HANDLERS: Dict[Any, Callable[[Supernode, _Line, Any, float], None]] = {
    messages.Ping: Supernode._on_ping,
    messages.Pong: Supernode._on_pong,
    messages.Leave: Supernode._on_leave,
    messages.Lost: Supernode._on_lost,
    messages.SetMesh: Supernode._on_set_mesh,
    messages.RosterRequest: Supernode._on_roster_request,
    messages.Say: Supernode._on_say,
    messages.ShareDigest: Supernode._on_share_digest,
    messages.SharePage: Supernode._on_share_page,
    messages.ShareAdd: Supernode._on_share_add,
    messages.ShareRemove: Supernode._on_share_remove,
    messages.ListRequest: Supernode._on_ask,
    messages.Search: Supernode._on_ask,
    messages.Offer: Supernode._on_offer,
    messages.NotRelayed: Supernode._on_not_relayed,
}
_LONE_HANDLERS: Dict[Any, Callable[[Supernode, Address, Any, float], None]] = {
    messages.Prove: Supernode._on_prove,
    messages.Proof: Supernode._on_proof,
}
_ABOUT_SHARES = {messages.ShareDigest, messages.SharePage, messages.ShareAdd, messages.ShareRemove}
_ANSWERED_IN_DOUBT = {messages.Ping, messages.Pong}
