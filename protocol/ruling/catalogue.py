"""The supernode's catalogue: what each member says that it shares, lists of it all, and searches with their offers.

A member announces its shares page by page, or as a digest when they are known here already; it is believed about its
own list only. Lists and searches cost work, of which there is so much a second for all: what that has no room for
waits, and who had least goes first. Search and Offer find their way from member to member here; what is fetched then
goes between them, or by way of this node's own peer (Relay).

Pure: `now` is monotonic seconds.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from typing import Any, Deque, Dict, List, Optional, Sequence, Tuple

from protocol import messages
from protocol.fairness import FairTurns
from protocol.membership.proofs import share_digest
from protocol.messages import NO_NODE, ShareEntry
from protocol.rates import Bucket
from protocol.ruling.alarm import Alarm
from protocol.ruling.index import Index, has_wildcard
from protocol.ruling.introducing import Introducing
from protocol.ruling.line import Line
from protocol.ruling.register import Register
from protocol.ruling.whereabouts import Whereabouts

WORK_PER_SECOND = 500.0  # requests of all together, with as much at once: a quarter of a core
ROWS_PER_REQUEST = 2500  # looking through so many rows for a list counts as one request more ...
ROWS_PER_REQUEST_FITTED = 1000  # ... and through so many with a wildcard
MEMBERS_PER_REQUEST = 32  # to whom a search is told
ASKS_WAITING_MAX = 64  # requests for lists and searches of one member, put off until they have their turn
SHARES_PER_SECOND, SHARES_BURST = 20.0, 200.0  # pages of shares from one member: two whole lists, then one each 5 s
SHARES_AGAIN_AFTER = 5.0  # seconds from a page that was refused until all are asked for: then a whole list has room
GATHERED_WITHIN = 3.0  # seconds from the begin of a rule: who was a member before has come again and told its shares
OFFERS_PER_SECOND, OFFERS_BURST = 1000.0, 2000.0  # from one member


class Sharing:
    """One member, as far as its shares and its requests go."""

    def __init__(self, now: float) -> None:
        self.pages: List[ShareEntry] = []  # of the list that is on its way
        self.asks: Deque[Any] = deque()  # requests for lists, and searches, that wait for their turn
        self.shares = Bucket(SHARES_PER_SECOND, SHARES_BURST, now)
        self.offers = Bucket(OFFERS_PER_SECOND, OFFERS_BURST, now)
        self._digest: Optional[bytes] = None  # of its shares here, as it announced it; None: unknown
        self._announced: Optional[bytes] = None
        self._want_at = math.inf  # when it is asked for all that it shares

    def announce(self, message: messages.ShareDigest, known: Sequence[ShareEntry]) -> bool:
        """It has a list with that digest; is it the one that is here?"""
        if self._digest is None and len(known) == message.count:
            self._digest = share_digest(known)
        self._announced = message.digest
        return self._digest == message.digest

    def begin_list(self) -> None:
        """All that it shares is told anew."""
        self.pages = []

    def add_page(self, entries: Sequence[ShareEntry]) -> None:
        """A page of that list."""
        self.pages.extend(entries)

    def end_list(self) -> None:
        """All of it is here, as it was announced: its own word about its own list, a lie only costs itself."""
        self.pages = []
        self._digest = self._announced

    def change(self) -> None:
        """What is here is not what was announced."""
        self._digest = None

    def want(self, at: float) -> None:
        """It is to be asked for its list at that instant."""
        self._want_at = at

    def is_wanted(self, now: float) -> bool:
        """Is it time to ask it for its list?"""
        return now >= self._want_at

    def has_been_asked(self) -> None:
        """Its list is on its way, or will be."""
        self._want_at = math.inf


class Catalogue:
    """The index, whose list is on its way, and whose requests wait."""

    def __init__(self, register: Register, introducing: Introducing, alarm: Alarm, now: float) -> None:
        self.index = Index()
        self.dropped = 0  # messages and rows refused
        self._register = register
        self._introducing = introducing
        self._alarm = alarm
        self._whereabouts = Whereabouts(register, self.index)
        self._sharings: Dict[bytes, Sharing] = {}
        self._asking: Dict[bytes, Line] = {}  # whose requests wait
        self._turns = FairTurns()
        self._work = Bucket(WORK_PER_SECOND, WORK_PER_SECOND, now)
        self._untold = {line.node_id for line in register.lines()}  # members of the rule before: what have they?
        self._gathers_until = now + GATHERED_WITHIN

    def come(self, line: Line, now: float) -> None:
        """The member has a new link: it asks again."""
        self._of(line, now).asks.clear()

    def forget(self, node_id: bytes) -> None:
        """The member is gone, and its shares with it."""
        self.index.forget(node_id)
        self._sharings.pop(node_id, None)
        self._untold.discard(node_id)

    def _of(self, line: Line, now: float) -> Sharing:
        if line.node_id not in self._sharings:
            self._sharings[line.node_id] = Sharing(now)
        return self._sharings[line.node_id]

    # ---- shares

    def on_share_digest(self, line: Line, message: messages.ShareDigest, now: float) -> None:
        """What a member shares has this digest: if it is not what is known of it, all is asked for."""
        sharing = self._of(line, now)
        is_known = sharing.announce(message, self.index.shares_of(line.node_id))
        if not is_known or self.index.is_short(line.node_id):
            sharing.want(now)
            self.want_shares(line, now)
        else:
            self._untold.discard(line.node_id)

    def want_shares(self, line: Line, now: float) -> None:
        """Have the member tell all that it shares, if that is due."""
        sharing = self._sharings.get(line.node_id)
        if sharing is not None and sharing.is_wanted(now) and line.link is not None and line.requests.take(now):
            sharing.has_been_asked()
            self._register.send(line, messages.SharesWanted())

    def want_shares_again(self, line: Line, message: Any, now: float) -> None:
        """This message about its shares found no room: it is asked for all of them."""
        self._of(line, now).want(now + SHARES_AGAIN_AFTER)

    def ask_for_what_found_no_room(self) -> None:
        """The index was full and has room again: one member at each look says once more what it shares."""
        line = self._register.get(self.index.next_short())
        if line is not None and line.link is not None:
            self._register.send(line, messages.SharesWanted())

    def _may_share(self, line: Line, now: float) -> bool:
        sharing = self._of(line, now)
        if not sharing.shares.take(now):
            self.dropped += 1
            sharing.change()
            sharing.want(now + SHARES_AGAIN_AFTER)
            return False
        return True

    def on_share_page(self, line: Line, page: messages.SharePage, now: float) -> None:
        """A page of all that a member shares; with the last one, if none is missing, it is what counts."""
        if not self._may_share(line, now):
            return
        sharing = self._of(line, now)
        if page.first == 0:
            sharing.begin_list()
        if page.first != len(sharing.pages) or page.total > messages.SHARES_MAX:
            self.dropped += 1
            return
        sharing.add_page(_marked(line, page.entries))
        if len(sharing.pages) >= page.total:
            self.dropped += self.index.replace(line.node_id, sharing.pages)
            sharing.end_list()
            self._untold.discard(line.node_id)

    def on_share_add(self, line: Line, message: messages.ShareAdd, now: float) -> None:
        """It shares these as well."""
        if self._may_share(line, now):
            self.dropped += self.index.add(line.node_id, _marked(line, message.entries))
            self._of(line, now).change()

    def on_share_remove(self, line: Line, message: messages.ShareRemove, now: float) -> None:
        """It shares these no longer."""
        if self._may_share(line, now):
            self.index.remove(line.node_id, message.entries)
            self._of(line, now).change()

    # ---- lists and searches

    def on_ask(self, line: Line, request: Any, now: float) -> None:
        """A request for a list, or a search: done at once while nobody waits."""
        asks = self._of(line, now).asks
        if len(asks) >= ASKS_WAITING_MAX:
            self.dropped += 1
            return
        asks.append(request)
        is_first = not self._asking
        self._asking[line.node_id] = line
        if is_first:
            self.serve(now)

    def serve(self, now: float) -> None:
        """Do what the members' buckets and the common one have room for, whoever had least first.

        The rest waits, since who asks wants an answer; and so does a list for what members of the rule before share,
        for a moment: who has not told it yet would be missing.
        """
        asking = self._still_asking()
        waiting = [self._turn_of(node_id) for node_id in asking if not self._is_early(node_id, now)]
        heapq.heapify(waiting)
        while waiting:
            _, _, node_id = waiting[0]
            line, asks = asking[node_id], self._sharings[node_id].asks
            cost = self._cost_of(line, asks[0], now)
            if line.requests.has(now, cost):
                if not self._work.take(now, cost):
                    break  # nor may anybody else: many cheap ones would keep a dear one waiting for ever
                line.requests.take(now, cost)
                self._turns.serve(node_id, cost)
                self._answer(line, asks.popleft(), now)
                if asks and not self._is_early(node_id, now):
                    heapq.heapreplace(waiting, self._turn_of(node_id))
                    continue
            heapq.heappop(waiting)
        self._asking = self._still_asking()
        if self._asking:
            self._alarm.set(now)

    def _still_asking(self) -> Dict[bytes, Line]:
        return {
            node_id: line
            for node_id, line in self._asking.items()
            if line.link is not None and self._sharings[node_id].asks
        }

    def _is_early(self, node_id: bytes, now: float) -> bool:
        """Does it want a list, and not all of it can be here yet?"""
        wants_list = isinstance(self._sharings[node_id].asks[0], messages.ListRequest)
        return wants_list and bool(self._untold) and now < self._gathers_until

    def _turn_of(self, node_id: bytes) -> Tuple[float, int, bytes]:
        return self._turns.start(node_id), self._asking[node_id].entry.order, node_id

    def _cost_of(self, line: Line, request: Any, now: float) -> float:
        """In requests: one, and what it makes the supernode look through or send."""
        if isinstance(request, messages.Search):
            are_all = self._whereabouts.are_all_told(line, request, now)
            return 1.0 + (self._register.link_count() / MEMBERS_PER_REQUEST if are_all else 0.0)
        if self.index.is_at_hand(request.pattern, request.first):
            return 1.0
        rows_for_one = ROWS_PER_REQUEST_FITTED if has_wildcard(request.pattern) else ROWS_PER_REQUEST
        return 1.0 + len(self.index) / rows_for_one

    def _answer(self, line: Line, request: Any, now: float) -> None:
        if isinstance(request, messages.Search):
            self._search(line, request, now)
        else:
            total, rows = self.index.page(request.pattern, request.first)
            self._register.send(line, messages.ListPage(request.request_id, request.first, total, rows))

    def _search(self, line: Line, search: messages.Search, now: float) -> None:
        """Ask the others who may have it, or have the own peer fetch it for one who wants no connection to others."""
        own = self._register.own
        if search.via_supernode and own is not None and line is not own:
            relay = messages.Relay(
                search.query_id, search.file_id, search.size, search.name, search.is_folder, line.node_id
            )
            self._register.send(own, relay)
            return
        asked = self._whereabouts.whom_to_ask(line, search, now)
        search = search._replace(requester=line.node_id, place=line.entry.place)
        if asked is None:
            self._register.broadcast(search, without=line)
        for other in asked or ():
            self._register.send(other, search)

    # ---- answers from member to member

    def on_offer(self, line: Line, offer: messages.Offer, now: float) -> None:
        """It has what somebody searches: on to that one, in its own name."""
        target = self._register.ready(offer.to) if self._of(line, now).offers.take(now) else None
        if target is None or offer.to == NO_NODE:
            self.dropped += 1
            return
        self._whereabouts.on_offer(offer.file_id, line.node_id)
        self._introducing.introduce(line, target, now)
        self._register.send(target, offer._replace(provider=line.node_id))

    def on_not_relayed(self, line: Line, answer: messages.NotRelayed, now: float) -> None:
        """Our own peer could not fetch what it was to fetch for somebody: on to that one."""
        target = self._register.ready(answer.to) if line.is_own else None  # nobody else relays
        if target is None:
            self.dropped += 1
            return
        self._register.send(target, answer)


def _marked(line: Line, entries: Tuple[ShareEntry, ...]) -> Tuple[ShareEntry, ...]:
    """Only the supernode's own peer has a cache of the network."""
    if line.is_own:
        return entries
    return tuple(entry._replace(cached=False) if entry.cached else entry for entry in entries)
