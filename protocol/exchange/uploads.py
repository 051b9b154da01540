"""Which link is served next, with what, and how much at once: eight slots, a fair queue, turns by what was given."""

from __future__ import annotations

import math
from collections import deque
from typing import Any, Deque, Dict, List, NamedTuple, Optional, Protocol, Sequence, Set, Tuple

from protocol import mishaps
from protocol.exchange.picking import REQUESTS_PER_LINK_MAX
from protocol.exchange.source import SLOW_AFTER, SLOW_RATE
from protocol.fairness import FairRecords, FairShares
from protocol.latest import Latest
from protocol.messages import (
    MEMBERS_MAX,
    SPAN_BYTES_MAX,
    TOO_MANY_REQUESTS,
    OtherPiece,
    PieceData,
    PieceRefused,
    Queued,
)
from protocol.rates import Bucket, Limit, Rate

log = mishaps.logger("transfer")

UPLOAD_SLOTS = 8  # links that are served at once
SLOT_IDLE = 1.0  # a slot not used for so long goes to the next in the queue
SLOT_RESERVED = 5.0  # a slot just given is kept so long for its first request
SLOT_FROZEN = 3.0  # while others wait, a slot is kept so long for who takes nothing of what is on its way to it
SLOT_TURN = 30.0  # while others wait, a slot is held no longer;
SLOT_TURN_STEP = 4.0  # but when many are held so long, they are not all taken back at once
# While others wait, a slot by which so little goes gives way: THREATS G06 (a source as slow would be dropped, too).
SLOT_SLOW_RATE, SLOT_SLOW_AFTER = SLOW_RATE, SLOW_AFTER
QUEUE_MAX = 256  # links that wait; the node that has most of them there gives way
UPLOAD_BACKLOG_MAX = 4 << 20  # bytes handed to a link and not yet delivered, when nobody else wants any
# While several want something, they are served one after the other: then each gets large runs of packets, and little
# waits in queues where it cannot be taken back.
LINKS_AT_ONCE = 3  # that have more than LINK_LOW on their way
LINK_LOW = 64 << 10  # bytes on its way at which a link may have its next turn; links tell when they fall to it
STUCK_AFTER = 0.3  # seconds without any delivery: a link that stands does not keep others waiting
GIVEN_FORGOTTEN_AFTER = 10.0  # seconds without a request: who asks for a content then begins anew
GIVEN_MAX = 64  # contents whose given pieces are counted
SUBSCRIPTIONS_MAX = 256  # contents whose new pieces are told on one link ...
SUBSCRIPTIONS_IN_ALL_MAX = 16_384  # ... and on all together, of 250 bytes each; the node that has most gives way
SENT_RECORDS_MAX = 16_384  # of all links together, about 1 KB each: who got which content of us
FOLDERS_COUNTED_MAX = 16  # of one link, the latest: their files are many uploads, and one for a person
DONE_LINES_PER_SECOND, DONE_LINES_BURST = 2.0, 50.0  # that a person is told of one node


class Sent(NamedTuple):
    """What one link got of one content."""

    number: int
    started_at: float
    at: float
    size: int
    rate: Rate


class _Job:
    """A piece that was asked for; `offset` is how far it has been read."""

    __slots__ = ("file_id", "index", "offset", "length", "may_be_other")

    def __init__(self, file_id: bytes, index: int, length: int, may_be_other: bool = False) -> None:
        self.file_id = file_id
        self.index = index
        self.length = length
        self.may_be_other = may_be_other
        self.offset = 0


class _Given:
    """Which pieces of one content were given to anybody lately."""

    def __init__(self, size: int, piece_size: int, now: float) -> None:
        self.piece_size = piece_size
        self.size = size
        self.asked_at = now
        self._is_given = bytearray(-(-size // piece_size))
        self._next = 0  # those below are given

    def length_of(self, index: int) -> int:
        return min(self.piece_size, self.size - index * self.piece_size)

    def give(self, index: int, may_be_other: bool) -> int:
        """The piece to give to who asks for this one."""
        if self._is_given[index] and may_be_other:
            self._next = self._is_given.find(0, self._next)
            if self._next < 0:
                self._next = len(self._is_given)
            else:
                index = self._next
        self._is_given[index] = 1
        return index


class UploadLink:
    """One link on which somebody asks us for pieces."""

    def __init__(self, link: int, node_id: bytes, label: str, done_lines: Bucket) -> None:
        self.link = link
        self.node_id = node_id  # checked before it came here: the person that slots and places go by
        self.label = label
        self.done_lines = done_lines  # of its node, whatever links that opens one behind the other
        self.jobs: Deque[_Job] = deque()
        self.reading_bytes = 0
        self.turn = 0  # the number of the last turn of its node
        self.seen_on_way, self.seen_at = 0, -math.inf  # bytes on its way; when any were delivered last
        self.has_slot = False
        self.slot_at = 0.0
        self.used_at = 0.0
        self.read_bytes = 0  # handed to it in all
        self.rated_at, self.rated_bytes = 0.0, 0  # when its rate was looked at last, and what was delivered by then
        self.told_position = 0
        self.told: Dict[bytes, None] = {}  # contents whose new pieces it is told, in the order of asking
        self.folders: Deque[bytes] = deque(maxlen=FOLDERS_COUNTED_MAX)  # what it fetches of them is counted together


class UploadHands(Protocol):
    """What Uploads want done."""

    def send(self, link: int, message: Any) -> None: ...

    def backlog(self, link: int) -> int: ...

    def read(self, link: int, file_id: bytes, index: int, offset: int, length: int, now: float) -> None:
        """Read a span; answered by `on_read`, at once or later."""

    def next_number(self) -> int: ...

    def counted_as(self, upload: UploadLink, file_id: bytes) -> bytes:
        """The content, or the folder that it is sent as a part of."""


class Uploads:
    """Who is served what, in which order, and who waits."""

    def __init__(self, hands: UploadHands) -> None:
        self.links: Dict[int, UploadLink] = {}
        self.waiting: Deque[int] = deque()
        self.limit = Limit()  # of what is read in order to be sent, to all together
        self._held_until = math.inf  # when the limit lets the next span pass, while one waits for that
        self._hands = hands
        self._turns = 0
        self._is_pumping = False  # what is in memory is read, and sent, before `read` returns
        self._turns_ended_at = -math.inf
        self._given: Latest[bytes, _Given] = Latest(GIVEN_MAX)
        self._done_lines: Latest[bytes, Bucket] = Latest(MEMBERS_MAX)
        self._slots, self._places = FairShares(UPLOAD_SLOTS), FairShares(QUEUE_MAX)  # a person is a node
        self._subscriptions = FairShares(SUBSCRIPTIONS_IN_ALL_MAX)
        self._sent = FairRecords(SENT_RECORDS_MAX)  # by node, under (link, content)

    def add(self, link: int, node_id: bytes, label: str) -> None:
        """A node has opened a link to be served by; `label`: how it is called now."""
        lines = self._done_lines.get(node_id) or Bucket(DONE_LINES_PER_SECOND, DONE_LINES_BURST, 0.0)
        self._done_lines.put(node_id, lines)
        self.links[link] = UploadLink(link, node_id, label, lines)

    def remove(self, link: int, now: float) -> None:
        """Its link is gone: its slot, its place and what it was told of are free for others."""
        upload = self.links.get(link)
        if upload is not None:
            self._free_slot(upload)
            self._leave_queue(upload)
            for file_id in list(upload.told):
                self.unsubscribe(link, file_id)
            del self.links[link]
            self._give_slots(now)
            self._pump(now)

    # ---- requests

    def on_whole_request(
        self, link: int, file_id: bytes, index: int, size: int, piece_size: int, may_be_other: bool, now: float
    ) -> None:
        """A piece of a content that is all here is asked for."""
        given = self._given.get(file_id)
        if given is None or now - given.asked_at >= GIVEN_FORGOTTEN_AFTER:
            given = _Given(size, piece_size, now)
        given.asked_at = now
        self._given.put(file_id, given)
        self.on_request(link, file_id, index, given.length_of(index), now, may_be_other)

    def on_request(
        self, link: int, file_id: bytes, index: int, length: int, now: float, may_be_other: bool = False
    ) -> None:
        """A piece that we have is asked for."""
        upload = self.links[link]
        if len(upload.jobs) >= REQUESTS_PER_LINK_MAX:
            self._hands.send(link, PieceRefused(file_id, index, TOO_MANY_REQUESTS))
            return
        if not upload.has_slot and not self._take_slot(upload, now):
            return
        upload.used_at = now
        upload.jobs.append(_Job(file_id, index, length, may_be_other))
        self._begin_sent(upload, self._hands.counted_as(upload, file_id), now)
        self._pump(now)

    def _begin_sent(self, upload: UploadLink, counted: bytes, now: float) -> None:
        """From now on what it gets of this content is counted, if it was not before."""
        if self._sent.get(upload.node_id, (upload.link, counted)) is None:
            number = self._hands.next_number()
            self._sent.put(upload.node_id, (upload.link, counted), Sent(number, now, now, 0, Rate(now)))
            log.info("S %d begins: id %s to %s", number, counted.hex()[:8], upload.label)

    def count_cast(self, link: int, file_id: bytes, length: int, now: float) -> None:
        """So much of it goes to that link by a cast, which needs no slot."""
        upload = self.links.get(link)
        if upload is not None:
            self._begin_sent(upload, self._hands.counted_as(upload, file_id), now)
            self._count(upload, file_id, length, now)

    def on_cancel(self, link: int, file_id: bytes, index: int) -> None:
        """It is not wanted any more. What fits one span comes whole once it has begun, as the other side relies on."""
        jobs = self.links[link].jobs
        begun = [job for job in jobs if job.offset and job.length <= SPAN_BYTES_MAX]
        self._drop_job(link, file_id, index, begun)

    def _drop_job(self, link: int, file_id: bytes, index: int, spared: Sequence[_Job] = ()) -> None:
        upload, place = self.links[link], (file_id, index)
        upload.jobs = deque(job for job in upload.jobs if (job.file_id, job.index) != place or job in spared)

    def _pump(self, now: float) -> None:
        """Read ahead, for one link after the other, until enough is on its way."""
        if self._is_pumping:
            return
        self._is_pumping = True
        try:
            upload = self._next_turn(now)
            while upload is not None and self.limit.is_open(now):
                self._read_next(upload, now)
                upload = self._next_turn(now)
            self._held_until = math.inf if upload is None else self.limit.open_at()
        finally:
            self._is_pumping = False

    def next_deadline(self) -> float:
        """When something that waits only for the limit may pass."""
        return self._held_until

    def on_limit(self, now: float) -> None:
        """Its time may have come, or it is another one now."""
        self._pump(now)

    def _next_turn(self, now: float) -> Optional[UploadLink]:
        """The link to read something for: the one whose node had its last turn longest ago."""
        wanting = [upload for upload in self.links.values() if upload.jobs]
        if not wanting:
            return None
        loaded = [upload for upload in self.links.values() if self._is_loaded(upload, now)]
        if len(wanting) == 1 and (not loaded or loaded == wanting):
            return wanting[0] if self._on_way(wanting[0], now) < UPLOAD_BACKLOG_MAX else None
        if len(loaded) >= LINKS_AT_ONCE:
            return None
        served = {upload.node_id for upload in loaded}  # one turn at a time for each
        ready = [one for one in wanting if one.node_id not in served and self._on_way(one, now) <= LINK_LOW]
        return min(ready, key=lambda upload: upload.turn, default=None)

    def _on_way(self, upload: UploadLink, now: float) -> int:
        size = upload.reading_bytes + self._hands.backlog(upload.link)
        if size < upload.seen_on_way or upload.seen_on_way <= LINK_LOW:
            upload.seen_at = now  # something was delivered; what is only added, as news of pieces are, is no sign
        upload.seen_on_way = size
        return size

    def _is_loaded(self, upload: UploadLink, now: float) -> bool:
        return self._on_way(upload, now) > LINK_LOW and now - upload.seen_at < STUCK_AFTER

    def _read_next(self, upload: UploadLink, now: float) -> None:
        """Have the next span of the first piece that this link waits for read; its node has had its turn."""
        job = upload.jobs[0]
        if not job.offset:
            self._begin_job(upload, job)
        offset, length = job.offset, min(self.limit.span(SPAN_BYTES_MAX), job.length - job.offset)
        self.limit.count(length)
        job.offset += length
        if job.offset >= job.length:
            upload.jobs.popleft()
        upload.reading_bytes += length
        self._turns += 1
        for one in self.links.values():
            if one.node_id == upload.node_id:
                one.turn = self._turns
        self._hands.read(upload.link, job.file_id, job.index, offset, length, now)

    def _begin_job(self, upload: UploadLink, job: _Job) -> None:
        given = self._given.get(job.file_id)
        if given is None:
            return
        asked, job.index = job.index, given.give(job.index, job.may_be_other)
        if job.index != asked:
            job.length = given.length_of(job.index)
            self._hands.send(upload.link, OtherPiece(job.file_id, asked, job.index))

    def on_read(self, link: int, file_id: bytes, index: int, offset: int, length: int, data: Any, now: float) -> None:
        """A span was read."""
        upload = self.links.get(link)
        if upload is None:
            return
        upload.reading_bytes -= length
        upload.read_bytes += length
        upload.used_at = now
        self._count(upload, file_id, length, now)
        self._hands.send(link, PieceData(file_id, index, offset, data))
        self._pump(now)

    def _count(self, upload: UploadLink, file_id: bytes, length: int, now: float) -> None:
        counted = self._hands.counted_as(upload, file_id)
        sent = self._sent.get(upload.node_id, (upload.link, counted))
        if sent is not None:
            sent.rate.add(length, now)
            is_listing = file_id in upload.folders  # of a folder: no byte of its files
            sent = sent._replace(size=sent.size + (0 if is_listing else length), at=now)
            self._sent.put(upload.node_id, (upload.link, counted), sent)

    def on_unreadable(self, link: int, file_id: bytes, index: int, length: int, reason: int, now: float) -> None:
        """A span could not be read: the rest of the piece is not tried."""
        upload = self.links.get(link)
        if upload is None:
            return
        upload.reading_bytes -= length
        self._drop_job(link, file_id, index)
        self._hands.send(link, PieceRefused(file_id, index, reason))
        self._pump(now)

    def on_writable(self, link: int, now: float) -> None:
        """Most of what was sent on it has left: there is room for the next spans."""
        upload = self.links.get(link)
        if upload is not None:
            upload.used_at = now
            self._pump(now)

    # ---- slots

    def _take_slot(self, upload: UploadLink, now: float) -> bool:
        """A free slot; or a place in the queue, and the request is forgotten: it is asked again when it is its turn."""
        if not self.waiting and self._slots.gives_way(upload.node_id) is None:
            self._hold_slot(upload, now, now)
            return True
        if upload.link not in self.waiting and not self._enter_queue(upload):
            return False
        upload.told_position = self.waiting.index(upload.link) + 1
        self._hands.send(upload.link, Queued(upload.told_position))
        self._share_slots(now)
        return False

    def _hold_slot(self, upload: UploadLink, now: float, used_at: float) -> None:
        upload.has_slot, upload.slot_at, upload.used_at = True, now, used_at
        upload.rated_at, upload.rated_bytes = now, self._delivered(upload)
        self._slots.take(upload.node_id)

    def _free_slot(self, upload: UploadLink) -> None:
        if upload.has_slot:
            upload.has_slot = False
            self._slots.give_back(upload.node_id)

    def _enter_queue(self, upload: UploadLink) -> bool:
        """A place at its end; when there is none, the node that has most links there loses the last one."""
        who = self._places.gives_way(upload.node_id)
        if who == upload.node_id:
            return False
        if who is not None:
            last = next(self.links[link] for link in reversed(self.waiting) if self.links[link].node_id == who)
            self._leave_queue(last)
            self._hands.send(last.link, Queued(0))  # it may ask again, as one who comes now
        self.waiting.append(upload.link)
        self._places.take(upload.node_id)
        return True

    def _leave_queue(self, upload: UploadLink) -> None:
        if upload.link in self.waiting:
            self.waiting.remove(upload.link)
            self._places.give_back(upload.node_id)

    def _give_slots(self, now: float) -> None:
        """To the first in the queue of those whose node has the fewest."""
        while self._slots.total < UPLOAD_SLOTS and self.waiting:
            upload = min(map(self.links.__getitem__, self.waiting), key=lambda one: self._slots.held(one.node_id))
            self._leave_queue(upload)
            upload.told_position = 0
            self._hold_slot(upload, now, now + SLOT_RESERVED - SLOT_IDLE)
            self._hands.send(upload.link, Queued(0))

    def _share_slots(self, now: float) -> None:
        """A node that has several slots gives one to a node that waits and would not have more with it."""
        for upload in [self.links[link] for link in self.waiting]:
            who = self._slots.gives_way(upload.node_id)
            if upload.has_slot or who is None or who == upload.node_id:
                continue
            holding = [one for one in self.links.values() if one.has_slot and one.node_id == who]
            self._end_turn(min(holding, key=lambda one: one.slot_at))
            self._give_slots(now)

    def _end_turn(self, upload: UploadLink) -> None:
        """Take its slot back, and let it wait for the next one; it is told so, for it has to ask again."""
        self._free_slot(upload)
        upload.jobs.clear()
        self._enter_queue(upload)

    def on_timer(self, now: float) -> None:
        """About once a second: pass idle and long-held slots on, tell the queue how it moves."""
        self._pump(now)
        if not self.waiting:
            return
        for upload in self.links.values():
            is_busy = upload.jobs or upload.reading_bytes or self._hands.backlog(upload.link)
            if not is_busy and now - upload.used_at >= SLOT_IDLE:
                self._free_slot(upload)
        self._end_turns(now)
        self._give_slots(now)
        for place, link in enumerate(self.waiting):
            upload = self.links[link]
            if upload.told_position != place + 1:
                upload.told_position = place + 1
                self._hands.send(link, Queued(place + 1))

    def _end_turns(self, now: float) -> None:
        """Take back as many slots as others wait for, of those who are frozen or slow, or have held theirs for long."""
        holding = sorted((one for one in self.links.values() if one.has_slot), key=lambda one: one.slot_at)
        wanted = len(self.waiting) - (UPLOAD_SLOTS - len(holding))
        frozen = [one for one in holding if self._is_frozen(one, now) or self._is_slow(one, now)]
        ended = frozen[: max(0, wanted)]
        if now - self._turns_ended_at >= SLOT_TURN_STEP:
            long_held = [one for one in holding if one not in frozen and now - one.slot_at >= SLOT_TURN]
            ended += long_held[: max(0, wanted - len(ended))]
        for upload in ended:
            self._end_turn(upload)
            if upload not in frozen:
                self._turns_ended_at = now

    def _is_frozen(self, upload: UploadLink, now: float) -> bool:
        """Does it take nothing of what was sent? (What is still being read is the disk's fault.)"""
        self._on_way(upload, now)
        return self._hands.backlog(upload.link) > LINK_LOW and now - upload.seen_at >= SLOT_FROZEN

    def _is_slow(self, upload: UploadLink, now: float) -> bool:
        """Was so little delivered to it that others should have its slot? (Nor is the disk's slowness its fault.)"""
        seconds = now - upload.rated_at
        if seconds < SLOT_SLOW_AFTER or self.limit.rate is not None:
            return False
        before, upload.rated_bytes = upload.rated_bytes, self._delivered(upload)
        upload.rated_at = now
        return not upload.reading_bytes and upload.rated_bytes - before < SLOT_SLOW_RATE * seconds

    def _delivered(self, upload: UploadLink) -> int:
        return upload.read_bytes - self._hands.backlog(upload.link)

    # ---- who wants to know

    def subscribe(self, link: int, file_id: bytes) -> None:
        """It is told of each new piece of this content. When all places are taken, who has most loses its oldest."""
        upload = self.links[link]
        if file_id in upload.told or len(upload.told) >= SUBSCRIPTIONS_MAX:
            return
        who = self._subscriptions.gives_way(upload.node_id)
        if who == upload.node_id:
            return
        if who is not None:
            loser = max((one for one in self.links.values() if one.node_id == who), key=lambda one: len(one.told))
            self.unsubscribe(loser.link, next(iter(loser.told)))
        upload.told[file_id] = None
        self._subscriptions.take(upload.node_id)

    def unsubscribe(self, link: int, file_id: bytes) -> None:
        """It is told of no more pieces of this content, if it was told of any."""
        upload = self.links[link]
        if file_id in upload.told:
            del upload.told[file_id]
            self._subscriptions.give_back(upload.node_id)

    def has_work(self) -> bool:
        """Is there something that time may bring on?"""
        return bool(self.waiting) or any(upload.jobs for upload in self.links.values())

    def served(self, beside: Set[bytes]) -> int:
        """How many nodes are given something by links now, beside these."""
        held = [one for one in self.links.values() if one.has_slot and (one.jobs or one.reading_bytes)]
        return len({one.node_id for one in held} - beside)

    def subscribers(self, file_id: bytes) -> List[int]:
        """The links on which new pieces of it are told."""
        return [upload.link for upload in self.links.values() if file_id in upload.told]

    def rows(self, now: float) -> List[Tuple[UploadLink, bytes, Sent]]:
        """What was sent in the last three seconds, to whom."""
        sent_now = [(link, file_id, sent) for _, (link, file_id), sent in self._sent.all() if now - sent.at < 3.0]
        return [(self.links[link], file_id, sent) for link, file_id, sent in sent_now if link in self.links]

    # ---- what was sent

    def sent_on(self, upload: UploadLink) -> List[Tuple[bytes, Sent]]:
        """Which contents it got, and how much of each; its link may be lost."""
        of_node = self._sent.of(upload.node_id)
        return [(file_id, sent) for (link, file_id), sent in of_node if link == upload.link]

    def forget_sent(self, upload: UploadLink, file_id: bytes) -> Optional[Sent]:
        """It is told, or was never to be."""
        sent: Optional[Sent] = self._sent.pop(upload.node_id, (upload.link, file_id))
        return sent

    def go_on_from(self, before: UploadLink, upload: UploadLink) -> None:
        """An earlier link of the same node is lost: what it got there counts together with what it gets here."""
        for file_id, sent in self.sent_on(before):
            self.forget_sent(before, file_id)
            here = self._sent.get(upload.node_id, (upload.link, file_id))
            if here is not None:
                sent = here._replace(started_at=sent.started_at, size=here.size + sent.size)
            self._sent.put(upload.node_id, (upload.link, file_id), sent)
        upload.folders.extendleft(reversed([folder for folder in before.folders if folder not in upload.folders]))
