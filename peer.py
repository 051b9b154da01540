"""The role that every node has: share, list, request, transfer, chat. This file is its table of contents.

`Peer` is told what happens on the network (`on_...`, always with `now`) and what the person wants (the commands), and
works through what it is handed: the `network`, the library by the `disk` runner, `notify`. Every message, command and
alarm comes in here and is passed on to whom it concerns:

    Membership (protocol/membership/membership.py)   who is here and who rules; it tells what changes (see its `Owner`)
    Members    (protocol/membership/members.py)      the same, as the others ask it
    Keepsakes  (protocol/membership/keepsakes.py)    what of it is kept for the next run
    Hellos     (protocol/exchange/hellos.py)         who opened a link to this node, until it is known
    Holdings   (protocol/exchange/holdings.py)       what is here whole, and what of it is announced
    Lists      (protocol/exchange/lists.py)          the lists of files that are on their way
    Orders     (protocol/exchange/orders.py)         what the person asks for: a list, a file
    Jobs       (protocol/exchange/jobs.py)           what the person is fetching, with numbers and states
    Fetching   (protocol/exchange/fetching.py)       contents that are wanted, and their sources
    Serving    (protocol/exchange/serving.py)        what others ask of this node
    Supernode  (supernode.py)                        only while this node rules; reached over LOCAL_LINK like any other

To follow one: a command goes from `Command.run` (prompt/commands.py) to its method here; an event from `Listener`
(protocol/network.py) by way of `NodeListener` (node_client.py) to the `on_...` of its name; a message from its class
(protocol/messages.py) to `on_message` and what that calls; an alarm from `_parts`.

Everything here runs on the node thread. The library's methods run as disk jobs only.
"""

from __future__ import annotations

import functools
import itertools
import random
from contextlib import contextmanager
from functools import partial
from typing import Any, Callable, Iterator, List, Optional, Protocol, Sequence, Set, Tuple

from protocol import messages, mishaps
from protocol.addresses import is_loopback, shown
from protocol.content.parts import PartInfo
from protocol.content.shares import ScanResult
from protocol.exchange.contracts import Preparing, Surroundings
from protocol.exchange.disk_jobs import DiskJobs, Submit
from protocol.exchange.fetching import Fetching
from protocol.exchange.hellos import Hellos
from protocol.exchange.holdings import Holdings, ScanFeed
from protocol.exchange.jobs import Jobs
from protocol.exchange.lists import Lists
from protocol.exchange.orders import Orders
from protocol.exchange.sources import MESH_LINKS_MAX
from protocol.exchange.stream_job import Taker
from protocol.exchange.unfinished import told, unfinished_of
from protocol.facts import Health, Reached
from protocol.fields import Address, WireError
from protocol.membership.claims import Past
from protocol.membership.contracts import Seat
from protocol.membership.keepsakes import Keepsakes
from protocol.membership.local_link import LOCAL_LINK, LocalLink
from protocol.membership.members import Members
from protocol.membership.membership import Membership
from protocol.membership.promises import Promises
from protocol.membership.proofs import share_digest
from protocol.membership.resuming import Ruled
from protocol.membership.searching import LastNetwork
from protocol.membership.whispers import Whispers
from protocol.messages import (
    PLACES_MAX,
    Answer,
    Claim,
    Guest,
    Join,
    LinkHello,
    ListPage,
    NotRelayed,
    Offer,
    Places,
    Relay,
    Search,
    ShareDigest,
    SharesWanted,
    decode,
)
from protocol.network import Network
from protocol.results import (
    ChatReceived,
    FetchAnswer,
    Joined,
    Left,
    ListEntry,
    MemberRow,
    NatKind,
    Notice,
    Outcome,
    Reach,
    SupernodeChanged,
    TransferRow,
    Unreachable,
    Unsaid,
    WhisperAnswer,
    Whispered,
)

log = mishaps.logger("peer")


class Part(Protocol):
    """What of a role does something by the clock."""

    def on_timer(self, now: float) -> None: ...

    def next_deadline(self) -> float: ...


class Peer:
    """One node, as roles see it."""

    def __init__(
        self,
        network: Network,
        library: Any,
        preparing: Preparing,
        disk: Submit,
        rng: random.Random,
        notify: Callable[[Any], None],
        make_supernode: Callable[..., Any],
        name: str,
        scanner: Optional[ScanFeed] = None,
        own_addresses: Callable[[], Sequence[str]] = tuple,
        mesh: bool = True,
        may_rule: bool = True,
        is_sharing: bool = True,
        casts: bool = True,
    ) -> None:
        self.network = network
        self.library = library
        self.notify = notify
        self.dropped = 0  # messages that fitted nowhere
        self._rng = rng
        self._own_addresses = own_addresses
        self._make_supernode = make_supernode
        self._promises = Promises()
        self._local = LocalLink(network, self._on_supernode_message)
        self.membership = Membership(self._local.peer_side, rng, self, name, mesh, may_rule)
        self._members = Members(self.membership, self._local)
        self.disk = DiskJobs(disk, self._turn, lambda: self._now)
        self.holdings = Holdings(library, self.disk, self._members, notify, scanner, is_sharing)
        around = Surroundings(self._members, self.holdings, self.disk, notify, partial(next, itertools.count(1)))
        self.fetching = Fetching(network, library, rng, around, casts)
        self.serving = self.fetching.serving
        self.jobs = Jobs(self.fetching, around, library, preparing)
        self._now = 0.0
        self._keepsakes = Keepsakes(library, self.disk.run)
        self._told_unreachable: Set[NatKind] = set()
        self._hellos = Hellos(network, self._members, own_addresses, self._on_member)
        self._lists = Lists(rng, self.membership.send_to_supernode)
        self._whispers = Whispers(self.membership, self._on_whisper)
        self._orders = Orders(library, self.disk, self._members, self.jobs, self._lists, notify)

    # ---- commands

    def start(
        self, target: Optional[Address], search_port: int, now: float, others: Sequence[Address] = ()
    ) -> None:
        """Join the network at `target`, or search one, or be the first; an Outcome tells.

        `others`: more addresses of the machine at `target`.
        """

        def recalled(last: LastNetwork, past: Past, ruled: Ruled, now: float) -> None:
            self.membership.start(target, search_port, now, last, past, ruled, others)

        with self._turn(now):
            self.holdings.on_cache_changed()
            self._keepsakes.recall(recalled)
            self.unfinished(now, self._tell_unfinished)

    def _tell_unfinished(self, parts: List[PartInfo]) -> None:
        if parts:
            self.notify(Notice(told(parts)))

    def connect_to(self, ip: str, port: int, now: float, others: Sequence[Address] = ()) -> None:
        """Go to the network there, once that has taken this node in; leave the present one properly then.

        `others`: more addresses of that machine.
        """

        def looked(there: Address, answer: Optional[Answer]) -> None:
            if answer is None:
                self._stay("nobody", there, f"Nobody answers at {shown(there)}; you stay where you are.")
            elif answer.network_id == self.membership.network_id:
                self._stay("refused", there, "You are in that network already.")
            else:
                self.membership.cross_to(there, self._now, functools.partial(crossed, there))

        def crossed(there: Address, why_not: str, now: float) -> None:
            if why_not:
                told = f"The network at {shown(there)} does not take you in ({why_not}); you stay where you are."
                self._stay("refused", there, told)
                return
            self._stop_transfers("you left that network", now)
            self._depart(now, lambda: self._cross_over(there))

        with self._turn(now):
            if self.membership.is_crossing:
                self._stay("refused", (ip, port), "You are on your way into another network already.")
            elif (ip, port) == self.membership.supernode_address or (ip, port) == self.network.address:
                self._stay("refused", (ip, port), "You are in that network already.")
            else:
                self.membership.look_at((ip, port), now, looked, others)

    def stay(self, now: float) -> None:
        """Go nowhere after all; too late once another network has taken this node in."""
        with self._turn(now):
            if self.membership.is_crossing:
                self.on_notice("the other network has taken this node in already")
            elif self.membership.is_trying_another:
                self.membership.stay("its person stays")
                self.on_notice("the other network is not tried any more; you stay where you are")

    def _stay(self, kind: str, address: Address, text: str) -> None:
        self.notify(Outcome(kind, address, "", self._members.member_count(), text))

    def _cross_over(self, address: Address) -> None:
        """The old network is left; should the new one be gone by now, it is looked for as at a start."""
        crossed = self.membership.cross_over(self._now)
        if crossed is None:
            self.membership.start(address, address[1], self._now)
            return
        for message in crossed.said:
            if self.membership.owns(crossed.link):  # one of them may have sent this node elsewhere
                self._on_supernode_message(crossed.link, message, self._now)

    def leave(self, now: float, done: Callable[..., None]) -> None:
        """Good-bye: hand over if this is the supernode."""
        with self._turn(now):
            self.membership.stay("this node ends")
            self._stop_transfers("this node ends", now)
            self._depart(now, done)

    def _stop_transfers(self, reason: str, now: float) -> None:
        self.jobs.end_all(reason, now)
        self.fetching.end_all(now)

    def _depart(self, now: float, then: Callable[[], Any]) -> None:
        self.network.hold_door(0)  # another node of this machine takes it

        def departed() -> None:
            with self._turn(self._now):
                self._whispers.end_all()
                self.membership.leave(self._now)
                self.drop_supernode(self._now)
                self.holdings.forget_announced()
                then()

        if self.supernode is not None:
            self._keepsakes.keep_ruled()
            self.supernode.hand_over(now, departed)
        else:
            departed()

    def say(self, text: str, now: float) -> bool:
        """Chat; False when it is not taken, because too much waits already."""
        with self._turn(now):
            return self.membership.say(text, now)

    def whisper(self, line: str, now: float, done: Callable[[WhisperAnswer], None]) -> None:
        """Say something to one member alone: a name, a blank, a text. `done` gets what became of it."""
        with self._turn(now):
            self._whispers.say(line, now, done)

    def _on_whisper(self, label: str, text: str) -> None:
        self.notify(Whispered(label, text, False))

    def finish_saying(
        self, patience: float, at_most: float, now: float, then: Callable[[], None], left: int = 0
    ) -> None:
        """Before leaving: `then()` when all that was said came back, or there is no more hope; see `Voice.finish`."""
        with self._turn(now):
            self.membership.finish_saying(patience, at_most, now, then, left)

    def why_unsaid(self) -> str:
        """Why a line was not taken."""
        if self.membership.network_id == messages.NO_NETWORK:
            return "there is no network at the moment"
        return "too much of what you said is still on its way. Try again soon"

    def set_mesh(self, on: bool, now: float) -> None:
        """Links and transfers directly between members, or everything by way of the supernode."""
        with self._turn(now):
            self.membership.set_mesh(on, now)
            self.fetching.links.set_mates(self._members.mates(MESH_LINKS_MAX), now)
            self.fetching.on_mesh_set(now)

    def set_limits(self, up: Optional[float], down: Optional[float], now: float) -> None:
        """How many bytes of files may leave and come in a second; None: as many as can. Chat is not limited."""
        with self._turn(now):
            self.fetching.set_limits(up, down, now)

    def limits(self) -> Tuple[Optional[float], Optional[float]]:
        """What `set_limits` set: up, down."""
        return self.fetching.limits()

    def share(self, path: str, now: float, done: Callable[[str], None]) -> None:
        """Share a file or folder that lies elsewhere; `done` gets a line for the person."""
        with self._turn(now):
            self.holdings.share(path, done)

    def unshare(self, name: str, path: str, now: float, done: Callable[[str], None]) -> None:
        """Share no longer what was shared from elsewhere; `done` gets a line for the person."""
        with self._turn(now):
            self.holdings.unshare(name, path, done)

    def on_scanned(self, result: ScanResult, now: float) -> None:
        """The scanner found or lost something of what is shared."""
        with self._turn(now):
            self.holdings.on_scanned(result)

    def when_scanned(self, then: Callable[[], None]) -> None:
        """`then` is called as soon as all that the scanner has reported is announced."""
        self.holdings.when_scanned(then)

    def left_out(self) -> List[Tuple[str, str]]:
        """What lies in the shared places and is not shared: names, with the reason in words."""
        return self.holdings.left_out()

    def shares(self) -> List[ListEntry]:
        """What this node announces."""
        return self.holdings.rows(self.membership.name)

    def list_files(self, pattern: str, now: float, done: Callable[[Optional[List[ListEntry]]], None]) -> None:
        """The files of the network, numbered; `done` gets them, or None when nobody answered."""
        with self._turn(now):
            self._orders.list_files(pattern, now, done)

    def fetch(self, what: ListEntry, now: float, done: Callable[[FetchAnswer], None]) -> None:
        """Fetch a row of a list."""
        with self._turn(now):
            self._orders.fetch(what, now, done)

    def find(self, name: str, now: float, done: Callable[[Optional[List[ListEntry]]], None]) -> None:
        """The files that somebody means who says this name; `done` gets them, or None when nobody answered."""
        with self._turn(now):
            self._orders.find(name, now, done)

    def stream(self, what: ListEntry, taker: Taker, now: float, done: Callable[[FetchAnswer], None]) -> None:
        """Hand a file of a list to somebody, in order; see `protocol/exchange/stream_job.py`."""
        with self._turn(now):
            self._orders.stream(what, taker, now, done)

    def fetch_name(self, name: str, now: float, done: Callable[[FetchAnswer], None]) -> None:
        """Fetch what this name means, if it means one content; see `Orders`."""
        with self._turn(now):
            self._orders.fetch_name(name, now, done)

    def members(self, now: float) -> List[MemberRow]:
        """Who is here, in join order."""
        fetching = self.fetching
        return self._members.rows(fetching.link_counts(), fetching.reached(), fetching.links.unreached(now), now)

    def health(self, now: float) -> Health:
        """What this node knows of its network, for whoever asks what is the matter."""
        link = self.membership.supernode_link
        path = self.network.figures(link) if link else None  # none by way of LOCAL_LINK
        known = self.reach
        reached = Reached(known.is_open, known.by, max(0.0, now - known.at), known.nat.value)
        return Health(self.membership.is_joined, tuple(self.members(now)), path, reached)

    def transfers(self, now: float) -> List[TransferRow]:
        """What is fetched and sent at the moment."""
        return self.jobs.rows(now)

    def unfinished(self, now: float, done: Callable[[List[PartInfo]], None]) -> None:
        """What lies half here and is not on its way."""

        def listed(parts: Any, error: Optional[Exception], now: float) -> None:
            left = unfinished_of(parts or (), self.jobs.on_their_way())
            done([part for part in left if not self.jobs.tells_of(part)])

        with self._turn(now):
            self.disk.run(self.library.parts, listed)

    def cancel(self, number: int, now: float) -> str:
        """End the transfer of this number in `transfers`; returns what a person is told of it."""
        with self._turn(now):
            return self.jobs.cancel(number, now)

    # ---- events of the network

    def on_link_up(self, link: int, address: Address, incoming: bool, now: float) -> None:
        """A link is there: one that somebody opened here says first who it is; one of ours is known by who dialled."""
        with self._turn(now):
            self.membership.on_proven(address, now)  # a cookie went there and came back
            if incoming:
                self._hellos.on_link_up(link, address, now)
            elif self.membership.owns(link):
                self.membership.on_link_up(link, address, incoming, now)
            elif self.fetching.owns(link):
                self.fetching.on_link_up(link, now)

    def on_link_moved(self, link: int, address: Address, now: float) -> None:
        """Whoever is at its other end has another address: the supernode tells a member's new place to all."""
        with self._turn(now):
            self.membership.hearsay.on_answer(address, now)  # a challenge went there and was answered
            self._hellos.on_link_moved(link, address)
            if self.membership.owns(link):
                self.membership.on_link_moved(link, address)
            if self.supernode is not None and self.supernode.owns(link):
                self.supernode.on_link_moved(link, address, now)
            if self.fetching.owns(link):
                self.fetching.on_link_moved(link, address)

    def on_own_address_changed(self, now: float) -> None:
        """This machine has other addresses than a moment ago; its connections follow by themselves."""
        with self._turn(now):
            self._tell_places()

    def on_link_lost(self, link: int, reason: str, now: float) -> None:
        """It is closed, by either side or by silence: whoever had it learns of it."""
        with self._turn(now):
            self._hellos.on_link_lost(link)
            if self.membership.owns(link):
                self.membership.on_link_lost(link, reason, now)
            if self.supernode is not None and self.supernode.owns(link):
                self.supernode.on_link_lost(link, reason, now)
            if self.fetching.owns(link):
                self.fetching.on_link_lost(link, reason, now)

    def on_message(self, link: int, data: Any, now: float) -> None:
        """Bytes of one message came by a link: whose link it is says who takes it; what is malformed is counted."""
        with self._turn(now):
            message = self._decoded(data)
            if message is None:
                return
            if self.fetching.owns(link):
                self.fetching.on_message(link, message, now)
            elif link not in self._hellos:
                self._on_role_message(link, message, now)
            elif isinstance(message, Join) and self._hellos.is_unnamed(link):
                self._on_join(link, message, now)
            elif isinstance(message, Claim):
                self.dropped += 1  # behind a Join that was not taken
            else:
                self._hellos.on_message(link, message, data, now)

    def _decoded(self, data: Any) -> Any:
        """The message in these bytes; None, and counted, when there is none."""
        try:
            return decode(data)
        except WireError:
            self.dropped += 1
            return None

    def _on_join(self, link: int, join: Join, now: float) -> None:
        """Somebody wants to be a member; it goes where the answer sends it, or asks again later."""
        if self.supernode is not None and link > 0:
            self.supernode.on_hello(link, self._hellos.take(link), join, now)
        else:
            self.membership.on_stray_join(link, now)
            self._hellos.put_off(link, now)

    def _on_member(self, link: int, hello: LinkHello, said: List[Any], now: float) -> None:
        """A member opened a link in order to be served, and said some things before it was known."""
        self.serving.on_hello(link, hello, now)
        for message in said:
            if self.fetching.owns(link):
                self.fetching.on_message(link, message, now)

    def _on_role_message(self, link: int, message: Any, now: float) -> None:
        if self.supernode is not None and self.supernode.owns(link) and link != LOCAL_LINK:
            if isinstance(message, Join):
                self.dropped += 1  # one link, one member: else one could fill the roster
            else:
                self.supernode.on_message(link, message, now)
        elif self.membership.owns(link):
            self._on_supernode_message(link, message, now)
        else:
            self.dropped += 1

    def _on_supernode_message(self, link: int, message: Any, now: float) -> None:
        """From the supernode, or from one that this node is about to join."""
        if self.membership.on_message(link, message, now):
            return  # it was about membership or chat
        fits = self._whispers.on_message(message)
        if fits is not None:
            self.dropped += not fits
        elif isinstance(message, Search):
            self.fetching.on_search(message, now)
        elif isinstance(message, Offer):
            self.fetching.on_offer(message, now)
        elif isinstance(message, NotRelayed):
            self.fetching.on_not_relayed(message, now)
        elif isinstance(message, SharesWanted):
            self.holdings.send_shares()
        elif isinstance(message, ListPage):
            self.dropped += not self._lists.on_page(message, now)
        elif isinstance(message, Relay) and link == LOCAL_LINK:
            self.fetching.on_relay(message, now)
        else:
            self.dropped += 1

    def on_writable(self, link: int, now: float) -> None:
        """What was queued on it is sent, or nearly: there is room for more of what is served."""
        with self._turn(now):
            self.serving.on_writable(link, now)

    def on_lone(self, address: Address, data: bytes, now: float) -> None:
        """A message without a link, which anybody may have sent, from wherever it says."""
        with self._turn(now):
            message = self._decoded(data)
            if message is None:
                return
            if self.supernode is None or not self.supernode.on_lone(address, message, now):
                self.membership.on_lone(address, message, now)

    def on_door_lone(self, address: Address, data: bytes, now: float) -> None:
        """Somebody asks at the port that people know; nothing else is answered there."""
        with self._turn(now):
            message = self._decoded(data)
            if message is None:
                return
            if self.supernode is not None and isinstance(message, messages.Query):
                self.supernode.on_asked(address, message, now)
            self.membership.on_door_lone(address, message, now)

    def on_cast(self, event: Any, now: float) -> None:
        """A cast, of which this node is an end, goes on (protocol/casts.py)."""
        with self._turn(now):
            self.fetching.on_cast(event, now)

    # ---- time

    @contextmanager
    def _turn(self, now: float) -> Iterator[None]:
        """Everything that happens to this node at one instant; whatever calls the roles from outside stands in one.

        Afterwards peer and own supernode hear what each said to the other meanwhile.
        """
        self._now = max(self._now, now)
        yield
        self._local.carry(self._now)

    def _parts(self) -> Iterator[Part]:
        """All that do something by the clock; one that begins to rule in its turn has its own at once."""
        yield self.membership
        if self.supernode is not None:
            yield self.supernode
        yield from (self.fetching, self.jobs, self._hellos, self._lists, self._whispers)

    def on_timer(self, now: float) -> None:
        """Let each part do what is due."""
        with self._turn(now):
            for part in self._parts():
                part.on_timer(now)

    def next_deadline(self) -> float:
        """When `on_timer` wants to be called; `inf`: not before something else happens."""
        return min(part.next_deadline() for part in self._parts())

    # ---- what Membership tells and asks (its Owner)

    @property
    def is_ruling(self) -> bool:
        return self.supernode is not None and not self.supernode.has_ended

    def can_serve_at(self, ip: str) -> bool:
        return is_loopback(ip) or ip == self.network.address[0] or ip in self._own_addresses()

    def own_addresses(self) -> Sequence[str]:
        return self._own_addresses()

    def become_supernode(self, seat: Seat, now: float) -> None:
        """Take the office: the other role of this node lives from now on, its own peer joined to it locally."""
        self._local.cut()
        log.info("this node rules from now on, in term %d", seat.term)
        local, membership = self._local.supernode_side, self.membership
        role = self._make_supernode(
            local, self._rng, seat, now, membership.hearsay, self.on_notice, membership.go_over, self._promises,
            membership.credit,
        )  # fmt: skip
        self._local.open(role)

    def drop_supernode(self, now: float) -> None:
        self._local.cut()

    def on_outcome(self, kind: str, address: Optional[Address], text: str, now: float) -> None:
        supernode_id = self.supernode_id
        label = self.label_of(supernode_id) if supernode_id is not None else ""
        self.notify(Outcome(kind, address, label, self._members.member_count(), text))

    def on_joined(self, now: float) -> None:
        """There is a supernode, the first or another: it learns what is shared here, and is asked what waited."""
        known_port = self.membership.search_port
        is_there = known_port == self.network.address[1] or not self.membership.may_rule
        self.network.hold_door(0 if is_there else known_port)
        if not self.membership.may_rule:
            self._members.send_to_supernode(Guest())
        self._tell_places()
        self.membership.ask_reach(now)
        entries = self.holdings.announce_anew()
        self._members.send_to_supernode(ShareDigest(share_digest(entries), len(entries)))
        self._lists.on_joined()
        self.holdings.announce()
        self.fetching.on_joined(now)

    def _tell_places(self) -> None:
        """The supernode learns which addresses this machine has, for those who cannot reach it where it is seen."""
        places = [(ip, self.network.address[1]) for ip in self._own_addresses()]
        self._members.send_to_supernode(Places(tuple(places[:PLACES_MAX])))

    def on_supernode_lost(self, now: float) -> None:
        self.fetching.on_supernode_lost(now)

    def on_supernode_changed(
        self, old_label: str, new_label: str, is_me: bool, silent_seconds: Optional[float], now: float
    ) -> None:
        self.notify(SupernodeChanged(old_label, new_label, is_me, silent_seconds, self.membership.is_merging))

    def on_member_joined(self, label: str, now: float) -> None:
        self.notify(Joined(label, self._members.member_count()))

    def on_member_left(self, label: str, silent_seconds: Optional[float], now: float) -> None:
        self.notify(Left(label, self._members.member_count(), silent_seconds))

    def on_reached(self, node_id: bytes, now: float) -> None:
        self._hellos.judge_again(now)
        self.fetching.on_reached(node_id, now)

    def on_reach_known(self, now: float) -> None:
        """Others can reach this node, or not: then its person hears it once, if there is something that may be done."""
        reach, ruler = self.membership.reach, self.label_of(self.supernode_id or b"")
        is_symmetric = reach.nat is NatKind.SYMMETRIC and not self.is_supernode
        is_walled = reach.is_open is False and reach.nat in (NatKind.NONE, NatKind.UNKNOWN)
        if reach.is_open:
            self._told_unreachable.clear()
        elif (is_walled or is_symmetric) and self.membership.may_rule and reach.nat not in self._told_unreachable:
            self._told_unreachable.add(reach.nat)
            self.notify(Unreachable(reach.by, ruler, self.is_supernode, self.network.address[1], reach.nat))

    def on_roster_changed(self, now: float) -> None:
        """Somebody came or went: whom to stand by with, and whom to ask after a restart."""
        self.fetching.links.set_mates(self._members.mates(MESH_LINKS_MAX), now)
        self._hellos.judge_again(now)
        self.fetching.on_roster_changed(now)
        self._keepsakes.keep(self.membership.last_network(), self.membership.past(), self.membership.ruled())

    def on_chat(self, label: str, text: str, is_me: bool, now: float) -> None:
        self.notify(ChatReceived(label, text, is_me))

    def on_unsaid(self, count: int) -> None:
        self.notify(Unsaid(count))

    def on_notice(self, text: str) -> None:
        self.notify(Notice(text))

    # ---- who this is

    @property
    def supernode(self) -> Any:
        """The other role of this node, while it rules."""
        return self._local.supernode

    @property
    def is_supernode(self) -> bool:
        return self._members.is_supernode

    @property
    def supernode_id(self) -> Optional[bytes]:
        return self._members.supernode_id

    @property
    def node_id(self) -> bytes:
        return self._members.node_id

    @property
    def network_id(self) -> bytes:
        return self._members.network_id

    @property
    def mesh(self) -> bool:
        return self._members.mesh

    @property
    def reach(self) -> Reach:
        """Can others reach this node, as far as is known by now?"""
        return self.membership.reach

    def label_of(self, node_id: bytes) -> str:
        return self._members.label_of(node_id)
