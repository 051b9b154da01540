"""The links to nodes that give, what is thought of those nodes, and what they are still to be told.

A `SourceLink` is one that this node opened, one for all that comes from the node there: contents come by it (each a
`Taker`), or it stands by because the mesh is on, or a receipt is to be brought. `Standing` remembers who is left alone,
content by content: one who lies about a file may still be the only one that has another.

`SourceLinks` belongs to `Fetching`; each Fetch asks it for links and judges by it. Pure.
"""

from __future__ import annotations

import math
import random
from collections import deque
from typing import Any, Callable, Deque, Dict, Iterable, List, Optional, Protocol, Set, Tuple

from protocol.exchange.contracts import Surroundings
from protocol.exchange.source import Source
from protocol.fields import Address
from protocol.hearsay import KEPT
from protocol.latest import Latest
from protocol.messages import (
    NO_PIECE,
    PURPOSE_BULK,
    CastComing,
    CastEnd,
    CastOffer,
    LinkHello,
    ManifestPage,
    NewPieces,
    OtherPiece,
    PieceCancel,
    PieceData,
    PieceMap,
    PieceRefused,
    Queued,
    TraitsPage,
    TransferDone,
    encode_parts,
)

STRIKES_MAX = 2  # THREATS: G01
JUDGED_MAX = 4096  # strikes and bans remembered
CONTENTS_KNOWN_MAX = 1024  # of one link
BULK_IDLE = 10.0  # seconds until a link that nothing comes by is closed
DROPPED_MAX = 1000  # senseless messages on one link before it is closed
MESH_LINKS_MAX = 8  # members to stand by with; a link each, so a transfer begins at once
MESH_DELAY, MESH_RETRY = (0.5, 3.0), (10.0, 30.0)  # seconds, drawn by lot: many may have joined at once
MESH_PATIENCE = 20.0  # seconds that the first of these links waits while something comes: it has more use for the time
LAST_WORDS_TIME = 30.0  # seconds in which a source whose link was lost is still told that it is over
TOLD_MAX = 256  # sources that are still to be told
LABELS_KEPT = 1024  # of nodes that gave something and may have left since
UNREACHED_TIME = 60.0  # seconds in which a member that was called in vain is not called again
UNREACHED_MAX = 1024  # members of whom that is remembered
ASTRAY_TIME = 2.0  # seconds in which a link follows to another address of its other end, if it can
ELSEWHERE = "the other end is elsewhere by now"
TICK = 0.5  # seconds between two looks at all contents and links

ABOUT_ONE_CONTENT = (
    PieceData, PieceMap, NewPieces, ManifestPage, PieceRefused, OtherPiece, TraitsPage, CastOffer, CastComing, CastEnd,
)  # fmt: skip


class Taker(Protocol):
    """A content that comes by links, and what it is told of each of them."""

    @property
    def file_id(self) -> bytes: ...

    def on_link_up(self, link: SourceLink, now: float) -> None: ...
    def on_link_lost(self, link: SourceLink, reason: str, now: float) -> None: ...
    def on_queued(self, link: SourceLink, position: int, now: float) -> None: ...
    def on_message(self, link: SourceLink, message: Any, now: float) -> bool:
        """About this content; False if it was not asked for."""


class SourceLink:
    """A link that we opened to a node that gives, or may soon."""

    def __init__(self, link: int, node_id: bytes, now: float, place: Optional[Address] = None) -> None:
        self.link = link
        self.place = place  # where it leads
        self.node_id = node_id
        self.is_up = False
        self.takers: Dict[bytes, Taker] = {}  # by content
        self.requests = 0  # pieces asked and not yet received, for all contents
        self._fellows: Set[bytes] = set()  # contents that the node there fetches itself, and may have nothing of
        self._opened_at = self._used_at = now
        self._dropped = 0
        self._meant: Optional[Address] = None  # where the roster means that node to be, since it came up
        self._astray_since = math.inf

    def late_at(self, patience: float) -> float:
        """When so many seconds have gone by in which it did not come up."""
        return math.inf if self.is_up else self._opened_at + patience

    def move(self, link: int, place: Address) -> None:
        """It leads to another place from now on."""
        self.link, self.place = link, place
        self._astray_since = math.inf

    def mean(self, place: Optional[Address], now: float) -> None:
        """The roster means that node to be there now: does the link lead to where it was?"""
        if self._meant not in (None, place) and place not in (None, self.place):
            self._astray_since = now
        self._meant = place

    def is_astray(self, now: float) -> bool:
        """Did it neither follow to the new place, nor bring anything since? So it is when both ends have moved."""
        return now - self._astray_since >= ASTRAY_TIME

    def take(self, taker: Taker, is_fellow: bool) -> None:
        """This content comes by it from now on; offered, or (`is_fellow`) only fetched at the other end, too."""
        self.takers[taker.file_id] = taker
        if is_fellow:
            self._fellows.add(taker.file_id)

    def promote(self, file_id: bytes) -> None:
        """One who was taken because it fetches the same offers something by now."""
        self._fellows.discard(file_id)

    def is_fellow(self, file_id: bytes) -> bool:
        """Was it taken for this content without an offer?"""
        return file_id in self._fellows

    def let_go(self, file_id: bytes, now: float) -> None:
        """This content comes by it no more."""
        self.takers.pop(file_id, None)
        self._fellows.discard(file_id)
        self._used_at = now

    def on_up(self, now: float) -> None:
        self.is_up, self._used_at = True, now

    def count_requests(self, change: int) -> None:
        self.requests += change

    def on_message(self, message: Any, now: float) -> bool:
        """From the node there; False if nobody asked for it."""
        self._astray_since = math.inf
        if isinstance(message, Queued):
            for each in list(self.takers.values()):
                each.on_queued(self, message.position, now)
            return True
        taker = self.takers.get(message.file_id) if isinstance(message, ABOUT_ONE_CONTENT) else None
        return taker is not None and taker.on_message(self, message, now)

    def drop(self) -> bool:
        """A message made no sense here; was it one too many?"""
        self._dropped += 1
        return self._dropped > DROPPED_MAX

    def is_idle(self, is_mate: bool, now: float) -> bool:
        """Has it been of no use for so long that it shall be closed?"""
        if self.takers or is_mate:
            self._used_at = now
        return self.is_up and now - self._used_at >= BULK_IDLE


class Standing:
    """What is thought of nodes, content by content: strikes, and who is left alone until when (THREATS: G01)."""

    def __init__(self) -> None:
        self._strikes: Latest[Tuple[bytes, bytes], int] = Latest(JUDGED_MAX)
        self._left_alone: Latest[Tuple[bytes, bytes], float] = Latest(JUDGED_MAX)

    def strike(self, node_id: bytes, file_id: bytes, is_proof: bool) -> bool:
        """It sent what is not true, once by mistake or (`is_proof`) on purpose; is that enough to ban it?"""
        key = node_id, file_id
        strikes = STRIKES_MAX if is_proof else self._strikes.get(key, 0) + 1
        self._strikes.put(key, strikes)
        if strikes >= STRIKES_MAX:
            self._strikes.pop(key, None)
        return strikes >= STRIKES_MAX

    def leave_alone(self, node_id: bytes, file_id: bytes, until: float) -> None:
        """It is not asked for this content until then."""
        self._left_alone.put((node_id, file_id), until)

    def pardon(self, node_id: bytes, file_id: bytes) -> None:
        """It was left alone because nothing led there, and now something does."""
        self._left_alone.pop((node_id, file_id), None)

    def is_left_alone(self, node_id: bytes, file_id: bytes, now: float) -> bool:
        return self._left_alone.get((node_id, file_id), -math.inf) > now


class LastWords:
    """What a source is to be told of contents of which it gave something: that we have all, or want no more."""

    def __init__(self, until: float) -> None:
        self.until = until
        self.messages: Deque[Any] = deque(maxlen=CONTENTS_KNOWN_MAX)


class SourceLinks:
    """All links that we opened. `wake(at)` is called when it has something to look after by then."""

    def __init__(self, network: Any, around: Surroundings, rng: random.Random, wake: Callable[[float], None]) -> None:
        self.standing = Standing()
        self.dropped = 0
        self._network = network
        self._around = around
        self._rng = rng
        self._wake = wake
        self._by_link: Dict[int, SourceLink] = {}
        self._by_node: Dict[bytes, SourceLink] = {}
        self._labels: Latest[bytes, str] = Latest(LABELS_KEPT)  # of those who gave something, as they were called then
        # node -> until when it is not called again, and where it was meant to be then
        self._unreached: Latest[bytes, Tuple[float, Optional[Address]]] = Latest(UNREACHED_MAX)
        self._last_words: Latest[bytes, LastWords] = Latest(TOLD_MAX)  # node -> what it is still to be told
        self._mates: List[bytes] = []
        self._mesh_at = math.inf  # when the next link to a mate is opened,
        self._mesh_due = math.inf  # and when it is whatever comes

    # ---- links

    def owns(self, link: int) -> bool:
        return link in self._by_link

    def to(self, node_id: bytes) -> Optional[SourceLink]:
        """The link to this node, up or on its way."""
        return self._by_node.get(node_id)

    def of(self, file_id: bytes) -> List[SourceLink]:
        """The links by which this content comes, or may."""
        return [link for link in self._by_link.values() if file_id in link.takers]

    def open(self, place: Any, node_id: bytes, now: float, keep: int = 0) -> Optional[SourceLink]:
        """A new link to the node at this place; None when that was tried in vain just now."""
        tries = self._around.members.may_dial(place, now, keep)
        if not tries:
            return None
        link = SourceLink(self._network.connect(place, tries), node_id, now, place)
        self._by_link[link.link] = self._by_node[node_id] = link
        self._wake(now + TICK)
        return link

    def redial(self, node_id: bytes, now: float) -> None:
        """This node answers at another place than the one where it is being called."""
        link, place = self._by_node.get(node_id), self._around.members.place_of(node_id)
        if link is None or link.is_up or place in (None, link.place):
            return
        tries = self._around.members.may_dial(place, now)
        if tries:
            del self._by_link[link.link]
            self._network.disconnect(link.link, "it answers elsewhere")
            link.move(self._network.connect(place, tries), place)
            self._by_link[link.link] = link

    def on_moved(self, link: int, place: Address) -> None:
        """A source has another address from now on; nothing if it is none of ours."""
        source = self._by_link.get(link)
        if source is not None:
            source.move(link, place)

    def note_unreached(self, node_id: bytes, now: float) -> None:
        """No way leads there, as far as was tried: what it has comes by way of the supernode, without trying again."""
        self._unreached.put(node_id, (now + UNREACHED_TIME, self._around.members.place_of(node_id)))

    def note_reached(self, node_id: bytes) -> None:
        self._unreached.pop(node_id, None)

    def is_unreached(self, node_id: bytes, now: float) -> bool:
        """Was it called in vain a short while ago?"""
        return now < self._unreached.get(node_id, (now, None))[0]

    def moved(self) -> List[bytes]:
        """Those who were called in vain, or are called still, and are meant to be elsewhere by now; told once."""
        called = {node_id: place for node_id, (_, place) in self._unreached.items()}
        called.update((link.node_id, link.place) for link in self._by_link.values() if not link.is_up)
        place_of = self._around.members.place_of
        found = [node_id for node_id, place in called.items() if place_of(node_id) not in (None, place)]
        for node_id in found:
            self.note_reached(node_id)
        return found

    def mean_all(self, now: float) -> None:
        """The roster has changed: where are those to whom a link is up?"""
        for link in self._by_link.values():
            if link.is_up:
                link.mean(self._around.members.place_of(link.node_id), now)

    def unreached(self, now: float) -> Set[bytes]:
        """All who were."""
        return {node_id for node_id in self._unreached if self.is_unreached(node_id, now)}

    def nodes_reached(self) -> Set[bytes]:
        """The nodes at the other end of links that are up."""
        return {link.node_id for link in self._by_link.values() if link.is_up}

    def let_go(self, link: int, file_id: bytes, now: float) -> None:
        """This content comes no more by that link, if it is there."""
        if link in self._by_link:
            self._by_link[link].let_go(file_id, now)

    def send(self, link: int, message: Any) -> None:
        self._network.send(link, *encode_parts(message))

    def requests_on(self, link: int) -> int:
        """Pieces asked on this link and not yet received, for all contents."""
        return self._by_link[link].requests if link in self._by_link else 0

    def count_requests(self, link: int, change: int) -> None:
        """So many pieces more are asked for on this link, or less."""
        if link in self._by_link:
            self._by_link[link].count_requests(change)

    def nodes(self) -> List[bytes]:
        """The node at the other end of each link."""
        return [link.node_id for link in self._by_link.values()]

    def close_all_but(self, node_id: Optional[bytes], reason: str) -> None:
        """Only the links with this node stay."""
        for link in self._by_link.values():
            if link.node_id != node_id:
                self._network.disconnect(link.link, reason)

    def on_up(self, number: int, now: float) -> None:
        """Say who we are, what was still to be said, and then ask."""
        link = self._by_link.get(number)
        if link is None:
            return
        if not self._around.members.is_certificate_of(link.node_id, number):
            self._network.disconnect(number, "it is another node")
            return
        link.on_up(now)
        link.mean(self._around.members.place_of(link.node_id), now)
        self.note_reached(link.node_id)
        self.send(number, LinkHello(PURPOSE_BULK, self._around.members.network_id, self._around.members.node_id))
        words = self._last_words.get(link.node_id)
        for message in words.messages if words is not None else ():
            self.send(number, message)
        for taker in list(link.takers.values()):
            taker.on_link_up(link, now)

    def on_lost(self, number: int, reason: str, now: float) -> None:
        """A link has ended, or could not be opened: all that came by it, or was to, hears so."""
        link = self._by_link.pop(number, None)
        if link is None:
            return
        if self._by_node.get(link.node_id) is link:
            del self._by_node[link.node_id]
        if link.node_id in self._mates:
            self._mesh_at = max(now, min(self._mesh_at, now + self._rng.uniform(*MESH_RETRY)))
        for taker in list(link.takers.values()):
            taker.on_link_lost(link, reason, now)

    def on_message(self, number: int, message: Any, now: float) -> None:
        """What nobody asked for is dropped; who sends nothing else is cut off."""
        link = self._by_link[number]
        if not link.on_message(message, now):
            self.dropped += 1
            if link.drop():
                self._network.disconnect(number, "too much that was not asked for")

    # ---- the mesh: links that stand by

    def set_mates(self, mates: List[bytes], now: float) -> None:
        """The members to have a link with while the mesh is on, though nothing travels yet."""
        self._mates = mates[:MESH_LINKS_MAX]
        if any(mate not in self._by_node for mate in self._mates):
            self._mesh_at = min(self._mesh_at, now + self._rng.uniform(*MESH_DELAY))

    def _open_mesh_link(self, now: float) -> None:
        """One at a time; and not now, if something comes."""
        missing = [mate for mate in self._mates if mate not in self._by_node]
        if not missing:
            self._mesh_at = self._mesh_due = math.inf
            return
        self._mesh_at = now + self._rng.uniform(*MESH_DELAY)
        is_busy = any(link.takers for link in self._by_link.values())
        self._mesh_due = min(self._mesh_due, now + MESH_PATIENCE) if is_busy else math.inf
        if is_busy and now < self._mesh_due:
            return
        place = self._around.members.place_of(missing[0])
        if place is None:
            self._mates.remove(missing[0])
        elif self.open(place, missing[0], now, KEPT) is None:
            self._mates.append(self._mates.pop(self._mates.index(missing[0])))  # the others first

    # ---- who gave something: how it was called, and what it is still to be told

    def note_giver(self, source: Source) -> None:
        """It gave something: its label is remembered, should it leave before that is told."""
        self._labels.put(source.node_id, source.label)

    def label_of(self, node_id: bytes) -> str:
        """How it is called now; or was, when it gave something."""
        was = self._labels.get(node_id)
        return self._around.members.label_of(node_id) if was is None or self._around.members.is_member(node_id) else was

    def thank(self, gave: Iterable[bytes], file_id: bytes, now: float) -> None:
        """Tell those who gave something that we have it all; again by a new link if theirs is lost before they hear."""
        self._say_last(gave, TransferDone(file_id), now)

    def call_off(self, asked: Iterable[bytes], file_id: bytes, now: float) -> None:
        """The same, that we want no more of it: what is asked later is another fetch."""
        self._say_last(asked, PieceCancel(file_id, NO_PIECE), now)

    def _say_last(self, nodes: Iterable[bytes], message: Any, now: float) -> None:
        for node_id in nodes:
            words = self._last_words.get(node_id) or LastWords(now + LAST_WORDS_TIME)
            words.messages.append(message)
            self._last_words.put(node_id, words)
            link = self._by_node.get(node_id)
            if link is None:
                self._say_by_new_link(node_id, now)
            elif link.is_up:
                self.send(link.link, message)
        self._wake(now + TICK)

    def _say_by_new_link(self, node_id: bytes, now: float) -> None:
        members = self._around.members
        place = members.place_of(node_id)
        may_link = members.mesh or members.is_supernode or node_id == members.supernode_id
        if place is None or not may_link or now >= self._last_words[node_id].until:
            del self._last_words[node_id]
        else:
            self.open(place, node_id, now)

    def _check_last_words(self, now: float) -> None:
        """What was delivered need not be said again; where there is no link, there has to be one."""
        for node_id in list(self._last_words):
            link = self._by_node.get(node_id)
            if link is None:
                self._say_by_new_link(node_id, now)
            elif link.is_up and not self._network.backlog(link.link):
                del self._last_words[node_id]

    # ---- time

    def has_work(self) -> bool:
        """Is there anything to be looked after with each tick?"""
        return bool(self._by_link or self._last_words)

    def next_deadline(self) -> float:
        """When the next link to a mate is due; ticks are its owner's."""
        return self._mesh_at

    def on_timer(self, now: float) -> None:
        if now >= self._mesh_at:
            self._open_mesh_link(now)

    def on_tick(self, now: float) -> None:
        """About once a second: links that nobody needs any more are closed."""
        self._check_last_words(now)
        for link in list(self._by_link.values()):
            if link.is_idle(link.node_id in self._mates, now):
                self._network.disconnect(link.link, "no longer needed")
            elif link.is_astray(now):
                self._network.disconnect(link.link, ELSEWHERE)
                self.on_lost(link.link, ELSEWHERE, now)

    def end_all(self) -> None:
        """The node leaves: nobody is told anything more, nothing stands by."""
        self._last_words.clear()
        self._mates, self._mesh_at, self._mesh_due = [], math.inf, math.inf
        for link in self._by_link:
            self._network.disconnect(link, "left")
