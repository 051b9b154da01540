"""The table of all contents that are wanted: who is told what happens, and what bounds them all together.

A `Fetch` (`fetch.py`) is one content; it takes its sources by the links of `SourceLinks` (`sources.py`); what is
fetched for others is counted by `Relays` (`relays.py`). With the mesh off, or when only mesh-off nodes offer, a content
is asked for by way of the supernode, whose own peer then fetches it into its cache and serves it meanwhile. Losing a
supernode ends no Fetch: what it served is asked again.

`Fetching` belongs to the Peer, which tells it what comes for transfers; what others ask of us goes on to `Serving`.
"""

from __future__ import annotations

import math
import random
from collections import OrderedDict
from typing import Any, Callable, Dict, List, Optional, Set, Tuple

from protocol import mishaps
from protocol.content.names import check_any
from protocol.content.pieces import FILE_SIZE_MAX
from protocol.content.troubles import BadName
from protocol.exchange.contracts import Surroundings
from protocol.exchange.download import Download
from protocol.exchange.fetch import Fetch, Wish
from protocol.exchange.relays import Relays
from protocol.exchange.serving import MESH_OFF_REASON, Serving
from protocol.exchange.sources import TICK, SourceLinks
from protocol.fields import Address
from protocol.lateness import SLEPT_AFTER
from protocol.messages import NO_NODE, NOWHERE, LinkHello, NotRelayed, Offer, Relay, Search
from protocol.rates import Limit

log = mishaps.logger("transfer")

SERVED_ON_BYTES_MAX, SERVED_ON_TIME = 32 << 20, 60.0  # of what is in memory, though it is of no use here any more
ALL_IN_FLIGHT_MAX = 64 << 20  # bytes asked or not yet written, for all contents together
UNREAD_MAX = 8 << 20  # bytes that may wait on a link for somebody who goes on asking but does not read


class Fetching:
    """All contents that are wanted, by id and by query. Implements Table."""

    def __init__(self, network: Any, library: Any, rng: random.Random, around: Surroundings, casts: bool) -> None:
        self.library = library
        self.casts = casts  # is a cast taken where one is to be had?
        self.rng = rng
        self.around = around
        self.links = SourceLinks(network, around, rng, self.wake)
        self.relays = Relays(around)
        self.serving = Serving(
            network, library, around.members, around.holdings, around.disk, around.notify, around.next_number,
            self._partial_of, self._in_memory, self._name_of, self._on_asker, rng, casts,
        )  # fmt: skip
        self.fetches: Dict[bytes, Fetch] = {}
        self.served_on: OrderedDict[bytes, Fetch] = OrderedDict()  # ended, but others still take it from our memory
        self.network = network
        self.limit = Limit()  # of what is asked for, of all sources together
        self._held_until = math.inf  # when the limit lets more be asked for, while something waits for that
        self._served_until: Dict[bytes, float] = {}
        self._by_query: Dict[int, Fetch] = {}
        self._when_ended: Dict[bytes, List[Callable[[float], None]]] = {}
        self._dropped = 0
        self._tick_at = math.inf

    @property
    def dropped(self) -> int:
        """Messages that nobody asked for."""
        return self._dropped + self.links.dropped

    # ---- wanting

    def want(
        self, wish: Wish, file_id: bytes, size: int, name: str, in_memory: bool, now: float, asked_first: List[bytes]
    ) -> Fetch:
        """Fetch a content that nobody else here wishes for at this time (see `is_wished`)."""
        fetch = self.fetches.get(file_id)
        if fetch is None:
            fetch = self._add(file_id, size, name, in_memory, in_memory, now)
        self.relays.remove(fetch)  # nobody's share any more: the person here wants it
        fetch.grant(wish, size, name, in_memory, asked_first, now)
        return fetch

    def is_wished(self, file_id: bytes) -> bool:
        """Must another wish wait? Also while a relayed content is on its way into the cache, out of its part file."""
        fetch = self.fetches.get(file_id)
        return fetch is not None and (fetch.wish is not None or (fetch.is_complete and not fetch.store.is_passing))

    def when_ended(self, file_id: bytes, then: Callable[[float], None]) -> None:
        """Two may wish for one content at a time: the second has its turn when the first is done."""
        self._when_ended.setdefault(file_id, []).append(then)

    def _add(self, file_id: bytes, size: int, name: str, is_folder: bool, is_in_memory: bool, now: float) -> Fetch:
        query_id = self.rng.getrandbits(32)
        content = Search(query_id, file_id, size, name, is_folder, NO_NODE, NOWHERE, False)
        fetch = self.fetches[file_id] = self._by_query[query_id] = Fetch(content, is_in_memory, self, now)
        self.wake(now + TICK)
        return fetch

    # ---- what a Fetch asks (Table)

    def wake(self, at: float) -> None:
        self._tick_at = min(self._tick_at, at)

    def has_room(self, size: int) -> bool:
        return sum(fetch.download.in_flight_bytes for fetch in self.fetches.values()) + size <= ALL_IN_FLIGHT_MAX

    def may_ask(self, now: float) -> bool:
        """Does the limit let more be asked for now? If not, those who wait are called when it does."""
        is_open = self.limit.is_open(now)
        if not is_open:
            self._held_until = min(self._held_until, self.limit.open_at())
        return is_open

    def note_asked(self, size: int) -> None:
        self.limit.count(size)

    def set_limits(self, up: Optional[float], down: Optional[float], now: float) -> None:
        """How many bytes of files may be sent and fetched in a second; None: as many as can."""
        self.serving.casting.set_limit(up, now)
        self.limit.set_rate(down, now)
        self._held_until = now

    def limits(self) -> Tuple[Optional[float], Optional[float]]:
        """Of what is sent, and of what is fetched."""
        return self.serving.casting.limit, self.limit.rate

    def _ask_on(self, now: float) -> None:
        """The limit lets something pass: who has waited for longest asks first."""
        self._held_until = math.inf
        for fetch in sorted(self.fetches.values(), key=lambda fetch: fetch.download.asked_at):
            fetch.download.fill_all(now)

    def may_take_source(self, fetch: Fetch, now: float) -> bool:
        return self.relays.on_offered(fetch, now)

    def on_ended(self, fetch: Fetch, now: float) -> None:
        """It is out of the table; who waits for its end is told."""
        self.relays.remove(fetch)
        self.fetches.pop(fetch.file_id, None)
        self._by_query.pop(fetch.query_id, None)
        if fetch.file_id not in self.served_on:
            self.serving.tell_ended(fetch.file_id)
        for then in self._when_ended.pop(fetch.file_id, ()):
            then(now)

    @property
    def may_catch(self) -> bool:
        """May contents come by casts? They do not slow down to a limit that a person has set."""
        return self.casts and self.around.members.mesh and self.limit.rate is None

    def on_cast(self, event: Any, now: float) -> None:
        """The network tells of a cast, to whom it is of; one that is over here is told to nobody."""
        for fetch in list(self.fetches.values()):
            if fetch.catching.session == event.session:
                fetch.on_cast(event, now)
                return
        self.serving.casting.on_event(event, now)

    # ---- what is in memory, and served on

    def retire(self, fetch: Fetch, now: float) -> None:
        """It is of no use here any more, but others are served on if it is in memory.

        A folder is announced only when all of it is here and scanned; until then they would lose us as a source.
        """
        if fetch.store.memory is not None:
            self.served_on[fetch.file_id] = fetch
            self._served_until[fetch.file_id] = now + SERVED_ON_TIME
            while sum(one.download.size for one in self.served_on.values()) > SERVED_ON_BYTES_MAX:
                self._serve_no_more(next(iter(self.served_on)))
        fetch.end(now)

    def let_go(self, wish: Wish) -> None:
        """Nothing that this wish has fetched is served on."""
        for file_id in [file_id for file_id, fetch in self.served_on.items() if fetch.wish is wish]:
            self._serve_no_more(file_id)

    def _serve_no_more(self, file_id: bytes) -> None:
        del self.served_on[file_id], self._served_until[file_id]
        if file_id not in self.fetches:
            self.serving.tell_ended(file_id)

    def _check_served_on(self, now: float) -> None:
        """When it is announced, or old, the memory is let go."""
        for file_id, until in list(self._served_until.items()):
            if now >= until or self.around.holdings.size_of(file_id) is not None:
                self._serve_no_more(file_id)

    def _served(self, file_id: bytes) -> Optional[Fetch]:
        return self.served_on.get(file_id) or self.fetches.get(file_id)

    def _name_of(self, file_id: bytes) -> Optional[str]:
        """What a content is called that is on its way here."""
        fetch = self.fetches.get(file_id)
        return fetch.name if fetch is not None else None

    def _partial_of(self, file_id: bytes) -> Optional[Download]:
        """A download whose verified pieces may be served."""
        fetch = self._served(file_id)
        return fetch.download if fetch is not None and fetch.download.choice is not None else None

    def _in_memory(self, file_id: bytes) -> Optional[Fetch]:
        """The same, if its pieces are not on the disk."""
        fetch = self._served(file_id)
        return fetch if fetch is not None and fetch.store.memory is not None else None

    # ---- what the supernode tells

    def on_joined(self, now: float) -> None:
        """There is a supernode, perhaps a new one."""
        for fetch in list(self.fetches.values()):
            fetch.lookout.on_joined(not fetch.is_complete, now)

    def on_supernode_lost(self, now: float) -> None:
        """Nobody can be searched for: how long each has had no source counts anew from now."""
        for fetch in self.fetches.values():
            fetch.lookout.be_patient(now)

    def on_mesh_set(self, now: float) -> None:
        """With the mesh off, no link but those with the supernode's node stays."""
        self.serving.on_mesh_set()
        if self.around.members.mesh or self.around.members.is_supernode:
            return
        self.links.close_all_but(self.around.members.supernode_id, MESH_OFF_REASON)
        for fetch in self.fetches.values():
            fetch.lookout.search_now(now)
            self._tick_at = now

    def on_offer(self, offer: Offer, now: float) -> None:
        """Somebody has (pieces of) what we look for."""
        fetch = self._by_query.get(offer.query_id)
        is_mine = offer.provider == self.around.members.node_id
        if fetch is None or fetch.file_id != offer.file_id or is_mine or fetch.is_complete:
            self._dropped += 1
        else:
            fetch.givers.on_offer(offer, now)

    def on_reached(self, node_id: bytes, now: float) -> None:
        """A way to this member was found: what it offered can be asked for there."""
        self.links.redial(node_id, now)
        for fetch in list(self.fetches.values()):
            fetch.givers.on_reached(node_id, now)

    def on_roster_changed(self, now: float) -> None:
        """Some who were called in vain may be elsewhere by now: what belongs to the old place is over."""
        self.links.mean_all(now)
        for node_id in self.links.moved():
            self.on_reached(node_id, now)

    def on_not_relayed(self, answer: NotRelayed, now: float) -> None:
        """The supernode cannot pass on what we look for."""
        fetch = self._by_query.get(answer.query_id)
        if fetch is None or fetch.file_id != answer.file_id or fetch.is_complete:
            self._dropped += 1
        else:
            fetch.on_not_relayed(answer, now)

    def on_search(self, search: Search, now: float) -> None:
        """Somebody looks for a content: if it is fetched here too, each can give the other what it gets."""
        self.serving.on_search(search, now)
        self._on_asker(search.file_id, search.requester, now)

    def _on_asker(self, file_id: bytes, node_id: bytes, now: float) -> bool:
        """Somebody asks what we have of a content; is it on its way here?"""
        fetch = self.fetches.get(file_id)
        if fetch is not None:
            fetch.givers.meet(node_id, now)
        return file_id in self.fetches

    def on_relay(self, relay: Relay, now: float) -> None:
        """The supernode asks its own peer to fetch this and serve it."""
        if relay.requester == self.around.members.node_id or relay.size > FILE_SIZE_MAX:
            return
        fetch = self.fetches.get(relay.file_id)
        if fetch is None and self.around.holdings.size_of(relay.file_id) is None:
            fetch = self._new_relay(relay, now)
        if fetch is not None:
            fetch.waiting.add(relay.requester, relay.query_id, now)
        self.serving.names.note(relay.requester, relay.file_id, relay.name)
        self.serving.offer(relay.file_id, relay.query_id, relay.requester, True)

    def _new_relay(self, relay: Relay, now: float) -> Optional[Fetch]:
        """Begin to fetch it for one who cannot; None, and the requester is told, where there is no room for it."""
        try:
            check_any(relay.name)
        except BadName:  # a name that could not even be kept in the cache
            self._dropped += 1
            return None
        if not self.relays.has_room(relay.requester, now):
            full = NotRelayed(relay.query_id, relay.file_id, relay.requester, False, self.relays.why_full())
            who = self.around.members.label_of(relay.requester)
            log.info("%s is not relayed for %s: %s", relay.name, who, full.reason)
            self.around.members.send_to_supernode(full)
            return None
        fetch = self._add(relay.file_id, relay.size, relay.name, relay.is_folder, False, now)
        self.relays.add(fetch, relay.requester)
        fetch.look(now)
        return fetch

    # ---- links

    def owns(self, link: int) -> bool:
        return self.links.owns(link) or self.serving.owns(link)

    def link_counts(self) -> Dict[bytes, int]:
        """How many links for pieces there are with each node, either way."""
        counts: Dict[bytes, int] = {}
        for node_id in self.links.nodes() + [upload.node_id for upload in self.serving.uploads.links.values()]:
            counts[node_id] = counts.get(node_id, 0) + 1
        return counts

    def reached(self) -> Set[bytes]:
        """The nodes with which a link for pieces is up, either way."""
        asking = {upload.node_id for upload in self.serving.uploads.links.values()}
        return asking | self.links.nodes_reached()

    def on_link_up(self, link: int, now: float) -> None:
        self.links.on_up(link, now)

    def on_member(self, link: int, hello: LinkHello, said: List[Any], now: float) -> None:
        """A member opened a link in order to be served, and said some things before it was known."""
        self.serving.on_hello(link, hello, now)
        for message in said:
            if self.owns(link):
                self.on_message(link, message, now)

    def on_link_moved(self, link: int, address: Address) -> None:
        self.links.on_moved(link, address)

    def on_link_lost(self, link: int, reason: str, now: float) -> None:
        """Whoever was served there, or gave something, is gone."""
        self.serving.on_link_lost(link, reason, now)
        self.links.on_lost(link, reason, now)

    def on_message(self, link: int, message: Any, now: float) -> None:
        """From a source, or from one that we serve."""
        if self.network.backlog(link) > UNREAD_MAX:
            self._dropped += 1
            self.network.disconnect(link, "it does not read")
        elif self.links.owns(link):
            self.links.on_message(link, message, now)
        else:
            self.serving.on_message(link, message, now)

    # ---- time

    def next_deadline(self) -> float:
        return min(self._tick_at, self._held_until, self.links.next_deadline(), self.serving.next_deadline())

    def on_timer(self, now: float) -> None:
        """What is due: sending, links, what a limit held back, and with each tick a look at all that is wanted."""
        self.serving.on_timer(now)
        self.links.on_timer(now)
        if now >= self._held_until:
            self._ask_on(now)
        if now < self._tick_at:
            return
        late, self._tick_at = now - self._tick_at, math.inf  # whoever wants a look before the next tick says so now
        if late > SLEPT_AFTER:  # what came meanwhile waits to be read
            for fetch in self.fetches.values():
                fetch.on_slept(late, now)
        for fetch in list(self.fetches.values()):
            if not fetch.is_ended:
                fetch.check(now)
        self._check_served_on(now)
        self.links.on_tick(now)
        has_work = self.fetches or self.served_on or self.links.has_work()
        if has_work:
            self.wake(now + TICK)

    def end_all(self, now: float) -> None:
        """The node leaves: nothing is asked any more, parts stay."""
        self._when_ended.clear()
        self.served_on.clear()
        self._served_until.clear()
        for fetch in list(self.fetches.values()):
            fetch.end(now)
        self.links.end_all()
        self.serving.end_all(now)
