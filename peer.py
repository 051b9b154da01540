"""The role that every node has: share, list, request, transfer, chat. This file is its table of contents.

`Peer` is told what happens on the network (`on_...`, always with `now`) and what the person wants (the commands), and
works through what it is handed: the `network`, the library by the `disk` runner, `notify`. Every message, command and
alarm comes in here and is passed on to whom it concerns:

    Membership (protocol/membership/membership.py)   who is here and who rules; it tells what changes (see its `Owner`)
    Members    (protocol/membership/members.py)      the same, as the others ask it
    Tidings    (protocol/membership/tidings.py)      what the person hears of it
    Home       (protocol/membership/home.py)         where this node is for others
    Passage    (protocol/membership/passage.py)      the way into another network, that the person wishes
    Keepsakes  (protocol/membership/keepsakes.py)    what of it is kept for the next run
    Office     (protocol/membership/office.py)       whether this node rules, and with it:
    Supernode  (supernode.py)                        only while this node rules; reached over LOCAL_LINK like any other
    Whispers   (protocol/membership/whispers.py)     private lines
    Switchboard, at the end of this file             whose a link is, and so who takes its messages
    Hellos     (protocol/exchange/hellos.py)         who opened a link to this node, until it is known
    Holdings   (protocol/exchange/holdings.py)       what is here whole, and what of it is announced
    Lists      (protocol/exchange/lists.py)          the lists of files that are on their way
    Orders     (protocol/exchange/orders.py)         what the person asks for: a list, a file
    Jobs       (protocol/exchange/jobs.py)           what the person is fetching, with numbers and states
    Fetching   (protocol/exchange/fetching.py)       contents that are wanted, and their sources
    Serving    (protocol/exchange/serving.py)        what others ask of this node

To follow one: a command goes from `Command.run` (prompt/commands.py) to its method here; an event from `Listener`
(protocol/network.py) by way of `NodeListener` (node_client.py) to the `on_...` of its name; a message from its class
(protocol/messages/) to `Switchboard.on_message` and what that calls; an alarm from `_parts`.

Everything here runs on the node thread. The library's methods run as disk jobs only.
"""

from __future__ import annotations

import itertools
import random
from contextlib import contextmanager
from functools import partial
from typing import Any, Callable, Iterator, List, Optional, Sequence, Tuple

from protocol import messages
from protocol.content.parts import PartInfo
from protocol.content.shares import ScanResult
from protocol.exchange.contracts import Part, Preparing, Surroundings
from protocol.exchange.disk_jobs import DiskJobs, Submit
from protocol.exchange.fetching import Fetching
from protocol.exchange.hellos import Hellos
from protocol.exchange.holdings import Holdings, ScanFeed
from protocol.exchange.jobs import Jobs
from protocol.exchange.lists import Lists
from protocol.exchange.orders import Orders
from protocol.exchange.sources import MESH_LINKS_MAX
from protocol.exchange.stream_job import Taker
from protocol.facts import Health
from protocol.fields import Address, WireError
from protocol.membership.claims import Past
from protocol.membership.contracts import Seat
from protocol.membership.home import Home
from protocol.membership.keepsakes import Keepsakes
from protocol.membership.local_link import LOCAL_LINK
from protocol.membership.members import Members
from protocol.membership.membership import Membership
from protocol.membership.office import Office
from protocol.membership.passage import Passage
from protocol.membership.proofs import share_digest
from protocol.membership.resuming import Ruled
from protocol.membership.searching import LastNetwork
from protocol.membership.tidings import Tidings
from protocol.membership.whispers import Whispers
from protocol.messages import NO_NETWORK, Join, ShareDigest, decode
from protocol.network import Network
from protocol.results import FetchAnswer, ListEntry, MemberRow, Reach, TransferRow, WhisperAnswer


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
        fingerprint: Optional[bytes] = None,
        has_lasting_key: bool = False,
    ) -> None:
        """`fingerprint`: of this node's certificate, in a network that has a key; lasting: it outlives this run."""
        self.network = network
        self.library = library
        self.notify = notify
        self._home = Home(network, own_addresses)
        self._tidings = Tidings(notify, lambda: self._members)
        self._office = Office(network, rng, make_supernode, self._hear_supernode)
        self.membership = Membership(
            self._office.peer_side, rng, self, self._tidings, self._home, name, mesh, may_rule, fingerprint,
            has_lasting_key,
        )
        self._members = Members(self.membership, self._office)
        self.disk = DiskJobs(disk, self._turn, lambda: self._now)
        self.holdings = Holdings(library, self.disk, self._members, notify, scanner, is_sharing)
        around = Surroundings(self._members, self.holdings, self.disk, notify, partial(next, itertools.count(1)))
        self.fetching = Fetching(network, library, rng, around, casts)
        self.serving = self.fetching.serving
        self.jobs = Jobs(self.fetching, around, library, preparing)
        self._now = 0.0
        self._keepsakes = Keepsakes(library, self.disk.run)
        self._lists = Lists(rng, self.membership.send_to_supernode)
        self._whispers = Whispers(self.membership, self._tidings.on_whisper)
        self._passage = Passage(self.membership, self._tidings, self._depart, self._hear_supernode, lambda: self._now)
        self._orders = Orders(library, self.disk, self._members, self.jobs, self._lists, notify)
        self._hellos = Hellos(network, self._members, self._home.own_addresses, self.fetching.on_member)
        self._switchboard = Switchboard(
            self.membership, self._office, self._hellos, self.fetching, self.holdings, self._lists, self._whispers
        )

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
            self._orders.tell_unfinished()

    def connect_to(self, ip: str, port: int, now: float, others: Sequence[Address] = ()) -> None:
        """Go to the network there, once that has taken this node in; leave the present one properly then.

        `others`: more addresses of that machine.
        """

        with self._turn(now):
            self._passage.go_to((ip, port), now, others)

    def stay(self, now: float) -> None:
        """Go nowhere after all; too late once another network has taken this node in."""
        with self._turn(now):
            self._passage.stay()

    def leave(self, now: float, done: Callable[..., None]) -> None:
        """Good-bye: hand over if this is the supernode."""
        with self._turn(now):
            self.membership.stay("this node ends")
            self._depart("this node ends", now, done)

    def _depart(self, reason: str, now: float, then: Callable[[], Any]) -> None:
        """Leave the present network properly: what goes on there ends, and another one rules, if this node did."""
        self.jobs.end_all(reason, now)
        self.fetching.end_all(now)
        self._home.leave_door()

        def departed() -> None:
            with self._turn(self._now):
                self._whispers.end_all()
                self.membership.leave(self._now)
                self._office.drop()
                self.holdings.forget_announced()
                then()

        if self.supernode is not None:
            self._keepsakes.keep_ruled()
        self._office.hand_over(now, departed)

    def say(self, text: str, now: float) -> bool:
        """Chat; False when it is not taken, because too much waits already."""
        with self._turn(now):
            return self.membership.say(text, now)

    def whisper(self, line: str, now: float, done: Callable[[WhisperAnswer], None]) -> None:
        """Say something to one member alone: a name, a blank, a text. `done` gets what became of it."""
        with self._turn(now):
            self._whispers.say(line, now, done)

    def finish_saying(
        self, patience: float, at_most: float, now: float, then: Callable[[], None], left: int = 0
    ) -> None:
        """Before leaving: `then()` when all that was said came back, or there is no more hope; see `Voice.finish`."""
        with self._turn(now):
            self.membership.finish_saying(patience, at_most, now, then, left)

    def why_unsaid(self) -> str:
        """Why a line was not taken."""
        if self.membership.network_id == NO_NETWORK:
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
        return self._members.health(self.members(now), now)

    def transfers(self, now: float) -> List[TransferRow]:
        """What is fetched and sent at the moment."""
        return self.jobs.rows(now)

    def unfinished(self, now: float, done: Callable[[List[PartInfo]], None]) -> None:
        """What lies half here and is not on its way."""

        with self._turn(now):
            self._orders.unfinished(done)

    def cancel(self, number: int, now: float) -> str:
        """End the transfer of this number in `transfers`; returns what a person is told of it."""
        with self._turn(now):
            return self.jobs.cancel(number, now)

    # ---- events of the network

    def on_link_up(self, link: int, address: Address, incoming: bool, now: float) -> None:
        """A link is there: one that somebody opened here says first who it is; one of ours is known by who dialled."""
        with self._turn(now):
            self._switchboard.on_link_up(link, address, incoming, now)

    def on_link_moved(self, link: int, address: Address, now: float) -> None:
        """Whoever is at its other end has another address: the supernode tells a member's new place to all."""
        with self._turn(now):
            self._switchboard.on_link_moved(link, address, now)

    def on_own_address_changed(self, now: float) -> None:
        """This machine has other addresses than a moment ago; its connections follow by themselves."""
        with self._turn(now):
            self._home.tell(self.membership)

    def on_link_lost(self, link: int, reason: str, now: float) -> None:
        """It is closed, by either side or by silence: whoever had it learns of it."""
        with self._turn(now):
            self._switchboard.on_link_lost(link, reason, now)

    def on_message(self, link: int, data: Any, now: float) -> None:
        """Bytes of one message came by a link: whose link it is says who takes it; what is malformed is counted."""
        with self._turn(now):
            self._switchboard.on_message(link, data, now)

    def on_writable(self, link: int, now: float) -> None:
        """What was queued on it is sent, or nearly: there is room for more of what is served."""
        with self._turn(now):
            self.serving.on_writable(link, now)

    def on_lone(self, address: Address, data: bytes, now: float) -> None:
        """A message without a link, which anybody may have sent, from wherever it says."""
        with self._turn(now):
            self._switchboard.on_lone(address, data, now)

    def on_door_lone(self, address: Address, data: bytes, now: float) -> None:
        """Somebody asks at the port that people know; nothing else is answered there."""
        with self._turn(now):
            self._switchboard.on_door_lone(address, data, now)

    def on_key_wanted(self, address: Address, repeated: bytes, now: float) -> None:
        """What this node asked there began with these bytes, and the answer is that the network has a key."""
        with self._turn(now):
            if self.membership.key_hints.is_news(address, repeated):
                self._tidings.on_key_wanted(address)

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
        self._office.carry(self._now)

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
        # Asked in each turn, and a generator costs half as much more.
        return min([part.next_deadline() for part in self._parts()])

    # ---- what Membership tells and asks (its Owner)

    @property
    def is_ruling(self) -> bool:
        return self._office.is_ruling

    def become_supernode(self, seat: Seat, now: float) -> None:
        """Take the office: the other role of this node lives from now on, its own peer joined to it locally."""
        self._office.take(seat, self.membership, self._tidings.on_notice, now)

    def drop_supernode(self, now: float) -> None:
        self._office.drop()

    def on_joined(self, now: float) -> None:
        """There is a supernode, the first or another: it learns what is shared here, and is asked what waited."""
        self._home.on_joined(self.membership, now)
        own = self.membership.identities.own()
        if own is not None:
            self._members.send_to_supernode(own)
        entries = self.holdings.announce_anew()
        self._members.send_to_supernode(ShareDigest(share_digest(entries), len(entries)))
        self._lists.on_joined()
        self.holdings.announce()
        self.fetching.on_joined(now)

    def on_supernode_lost(self, now: float) -> None:
        self.fetching.on_supernode_lost(now)

    def on_reached(self, node_id: bytes, now: float) -> None:
        """Who calls from there may be known by now, and what it has can be asked for."""
        self._hellos.judge_again(now)
        self.fetching.on_reached(node_id, now)

    def on_roster_changed(self, now: float) -> None:
        """Somebody came or went: whom to stand by with, and whom to ask after a restart."""
        self.fetching.links.set_mates(self._members.mates(MESH_LINKS_MAX), now)
        self._hellos.judge_again(now)
        self.fetching.on_roster_changed(now)
        self._keepsakes.keep(self.membership.last_network(), self.membership.past(), self.membership.ruled())

    def _hear_supernode(self, link: int, message: Any, now: float) -> None:
        """The supernode of this very node says something, or the one of a network that this node has come into."""
        self._switchboard.on_supernode_message(link, message, now)

    # ---- who this is

    @property
    def dropped(self) -> int:
        """Messages that fitted nowhere."""
        return self._switchboard.dropped

    @property
    def supernode(self) -> Any:
        """The other role of this node, while it rules."""
        return self._office.supernode

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
        return self.membership.ways.reach

    def label_of(self, node_id: bytes) -> str:
        return self._members.label_of(node_id)


class Switchboard:
    """Whose each link is, and to whom each message of another node goes; what fits nowhere is dropped and counted.

    A link that somebody opened here is nobody's, until it is known who that is; then it is of whom this node serves
    (fetching), or of a member (the supernode). One that this node opened is of whoever dialled. It is one's at a time.
    """

    def __init__(
        self, membership: Membership, office: Office, hellos: Hellos, fetching: Fetching, holdings: Holdings,
        lists: Lists, whispers: Whispers,
    ) -> None:  # fmt: skip
        self.dropped = 0
        self._membership = membership
        self._office = office
        self._hellos = hellos
        self._fetching = fetching
        self._holdings = holdings
        self._lists = lists
        self._whispers = whispers

    # ---- links

    def on_link_up(self, link: int, address: Address, incoming: bool, now: float) -> None:
        """A link is there, from or to that address."""
        self._membership.on_proven(address, now)  # a cookie went there and came back
        if incoming:
            self._hellos.on_link_up(link, address, now)
        elif self._membership.owns(link):
            self._membership.on_link_up(link, address, incoming, now)
        elif self._fetching.owns(link):
            self._fetching.on_link_up(link, now)

    def on_link_moved(self, link: int, address: Address, now: float) -> None:
        """Whoever is at its other end has another address."""
        self._membership.hearsay.on_answer(address, now)  # a challenge went there and was answered
        self._hellos.on_link_moved(link, address)
        if self._membership.owns(link):
            self._membership.on_link_moved(link, address)
        if self._office.owns(link):
            self._office.supernode.on_link_moved(link, address, now)
        if self._fetching.owns(link):
            self._fetching.on_link_moved(link, address)

    def on_link_lost(self, link: int, reason: str, now: float) -> None:
        """It is closed: whoever had it learns of it."""
        self._hellos.on_link_lost(link)
        if self._membership.owns(link):
            self._membership.on_link_lost(link, reason, now)
        if self._office.owns(link):
            self._office.supernode.on_link_lost(link, reason, now)
        if self._fetching.owns(link):
            self._fetching.on_link_lost(link, reason, now)

    # ---- messages by a link

    def on_message(self, link: int, data: Any, now: float) -> None:
        """Bytes of one message: whose link it is says who takes it."""
        message = self._decoded(data)
        if message is None:
            return
        if self._fetching.owns(link):
            self._fetching.on_message(link, message, now)
        elif link not in self._hellos:
            self._on_role_message(link, message, now)
        elif isinstance(message, Join) and self._hellos.is_unnamed(link):
            self._on_join(link, message, now)
        elif isinstance(message, messages.Claim):
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
        supernode = self._office.supernode
        if supernode is not None and link > 0:
            supernode.on_hello(link, self._hellos.take(link), join, now)
        else:
            self._membership.on_stray_join(link, now)
            self._hellos.put_off(link, now)

    def _on_role_message(self, link: int, message: Any, now: float) -> None:
        if self._office.owns(link):
            if isinstance(message, Join):
                self.dropped += 1  # one link, one member: else one could fill the roster
            else:
                self._office.supernode.on_message(link, message, now)
        elif self._membership.owns(link):
            self.on_supernode_message(link, message, now)
        else:
            self.dropped += 1

    def on_supernode_message(self, link: int, message: Any, now: float) -> None:
        """From the supernode, or from one that this node is about to join."""
        if self._membership.on_message(link, message, now):
            return  # it was about membership or chat
        fits = self._whispers.on_message(message)
        if fits is not None:
            self.dropped += not fits
        elif isinstance(message, messages.Search):
            self._fetching.on_search(message, now)
        elif isinstance(message, messages.Offer):
            self._fetching.on_offer(message, now)
        elif isinstance(message, messages.NotRelayed):
            self._fetching.on_not_relayed(message, now)
        elif isinstance(message, messages.SharesWanted):
            self._holdings.send_shares()
        elif isinstance(message, messages.ListPage):
            self.dropped += not self._lists.on_page(message, now)
        elif isinstance(message, messages.Relay) and link == LOCAL_LINK:
            self._fetching.on_relay(message, now)
        else:
            self.dropped += 1

    # ---- messages without one

    def on_lone(self, address: Address, data: bytes, now: float) -> None:
        """Anybody may have sent it, from wherever it says: the supernode here is asked first whether it is for it."""
        message, supernode = self._decoded(data), self._office.supernode
        if message is not None and (supernode is None or not supernode.on_lone(address, message, now)):
            self._membership.on_lone(address, message, now)

    def on_door_lone(self, address: Address, data: bytes, now: float) -> None:
        """It came to the port that people know: somebody asks who is there."""
        message, supernode = self._decoded(data), self._office.supernode
        if message is None:
            return
        if supernode is not None and isinstance(message, messages.Query):
            supernode.on_asked(address, message, now)
        self._membership.on_door_lone(address, message, now)
