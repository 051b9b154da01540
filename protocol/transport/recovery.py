"""What a sender needs to know about its packets: what arrived, and what was lost.

Pure numbers: bytes, packet numbers and `now` (seconds, monotonic). Nothing here knows what the bytes mean.

    SentBatch       one record for up to a batch of packets that left together
    Recovery        acknowledgements, loss detection and probe timeout (RFC 9002 §6) over those records
"""

from __future__ import annotations

import bisect
import collections
import math
from typing import Deque, Iterator, List, NamedTuple, Optional, Set, Tuple

from protocol.rates import RecentMaximum
from protocol.transport.black_hole import BlackHole
from protocol.transport.congestion import Acknowledged, CongestionController
from protocol.transport.rtt import GRANULARITY, MAX_ACK_DELAY, RttEstimator

# 44 datagrams of 1,472 bytes are the most that one segmented send takes (65,507 bytes). With their headers these are
# more than a token bucket of 64 KB lets pass whole, and what it cuts apart comes packet by packet.
SEGMENTS_MAX = 42

PACKET_THRESHOLD = 3  # RFC 9002 §6.1.1
TIME_THRESHOLD = 9 / 8  # RFC 9002 §6.1.2
PROBE_TIMEOUT_MAX = 2.0  # the backoff's cap: uncapped, a 10 s black hole costs 6.5 s more
STOOD_STILL = 1.0  # seconds that an alarm may be late; beyond, this process did not run, and its waits tell nothing
PERSISTENT_CONGESTION_THRESHOLD = 3  # probe timeouts, RFC 9002 §7.6.1
DATAGRAM_SIZE_BASE = 1200  # RFC 8899 §5.1.2: passes everywhere
RECORDS_KEPT = 2  # a lost packet is remembered for so many times the wait, to notice that it was not lost
REORDERING_KEPT = 10.0  # seconds a bucket, of two, for which the longest that an overtaken packet took is remembered
REORDERING_SLACK = 1.1
REORDERING_MAX_RTTS = 3  # more than so many round trips of an overtaken packet are an accident


class AckViolation(Exception):
    """The remote acknowledged what was never sent: it is broken or lies."""


class SentBatch:
    """Packets `first` .. `first + count - 1`, sent together: a run of stream bytes cut into equal payloads, or a PING.

    A bit in `outstanding` is a packet neither acknowledged nor lost; one in `lost`, a packet declared lost and not
    acknowledged since. Bit i is packet `first + i`, which carried stream bytes from `offset + i * payload_size`.
    """

    __slots__ = (
        "first",
        "count",
        "offset",
        "length",
        "payload_size",
        "datagram_size",
        "sent_at",
        "outstanding",
        "lost",
        "mtu_probe",
        "is_app_limited",
        "delivered",
        "delivered_at",
        "first_sent_at",
    )

    def __init__(
        self,
        first: int,
        count: int,
        offset: int,
        length: int,
        payload_size: int,
        datagram_size: int,
        sent_at: float,
        mtu_probe: bool = False,
        is_app_limited: bool = False,
    ) -> None:
        self.first = first
        self.count = count
        self.offset = offset
        self.length = length  # stream bytes in all
        self.payload_size = payload_size  # stream bytes in each packet but the last
        self.datagram_size = datagram_size
        self.sent_at = sent_at
        self.outstanding = (1 << count) - 1
        self.lost = 0
        self.mtu_probe = mtu_probe
        self.is_app_limited = is_app_limited  # there was no more to send than this
        self.delivered = 0  # Recovery's count, and the instants behind it, when this was sent
        self.delivered_at = sent_at
        self.first_sent_at = sent_at

    def send(self, delivered: int, delivered_at: float, first_sent_at: float) -> None:
        """It leaves now; what a rate is reckoned from when it is acknowledged (see `_tell_congestion`)."""
        self.delivered, self.delivered_at, self.first_sent_at = delivered, delivered_at, first_sent_at

    def settle(self, mask: int) -> int:
        """The packets in the mask are acknowledged, or nothing will be heard of them any more; their datagram bytes.

        The last, shorter one is counted as a whole one.
        """
        self.outstanding &= ~mask
        return bin(mask).count("1") * self.datagram_size

    def lose(self, mask: int) -> int:
        """The packets in the mask are declared lost; their datagram bytes, as `settle` counts them."""
        self.lost |= mask
        return self.settle(mask)

    def find(self, mask: int) -> None:
        """The packets in the mask were declared lost, and are acknowledged after all."""
        self.lost &= ~mask

    def stream_ranges(self, mask: int) -> Iterator[Tuple[int, int]]:
        """The stream bytes [start, stop) of the packets in the mask, neighbours together."""
        if not self.length:
            return
        end = self.offset + self.length
        while mask:
            low = (mask & -mask).bit_length() - 1
            run = ~(mask >> low)
            width = (run & -run).bit_length() - 1  # ones from `low` upwards
            start = self.offset + low * self.payload_size
            yield start, min(start + width * self.payload_size, end)
            mask &= ~(((1 << width) - 1) << low)

    def whole(self, mask: int) -> int:
        """The packets in the mask that are of `datagram_size`: the last of several may be shorter."""
        if self.count > 1 and self.length < self.count * self.payload_size:
            return mask & ~(1 << (self.count - 1))
        return mask


class Outcome(NamedTuple):
    """What became of earlier packets, as stream byte ranges."""

    acknowledged: List[Tuple[int, int]]
    lost: List[Tuple[int, int]]
    mtu_acknowledged: int  # largest MTU probe that came through; 0: none
    mtu_lost: int
    progressed: bool  # anything newly acknowledged


class _News:
    """What one acknowledgement says that was not known."""

    __slots__ = ("acknowledged", "is_overtaken", "late", "mtu", "newest", "packets", "size", "spurious", "_before",
                 "_sent_sum", "_timed")  # fmt: skip

    def __init__(self, acknowledged: List[Tuple[int, int]], largest_before: int) -> None:
        self.acknowledged = acknowledged  # stream byte ranges
        self.packets = self.size = 0  # newly acknowledged, and their datagram bytes
        self.spurious = 0  # packets that had been declared lost
        self.mtu = 0  # size of the largest MTU probe that came through
        self.newest: Optional[SentBatch] = None
        self.is_overtaken = False  # some of them were, by others
        self.late = math.inf  # when the oldest of those, or of the spurious ones, was sent
        self._before = largest_before  # largest number acknowledged before
        self._timed = 0  # packets of those newly acknowledged that are no MTU probes,
        self._sent_sum = 0.0  # and the sum of the instants at which they left

    def on_new(self, record: SentBatch, mask: int) -> None:
        """These packets of the record are acknowledged now."""
        size = record.settle(mask)
        packets = size // record.datagram_size
        self.size += size
        self.packets += packets
        self.acknowledged.extend(record.stream_ranges(mask))
        if not record.mtu_probe:
            self._timed += packets
            self._sent_sum += packets * record.sent_at
        if record.mtu_probe and record.datagram_size > DATAGRAM_SIZE_BASE:
            self.mtu = max(self.mtu, record.datagram_size)
        if self.newest is None or record.first > self.newest.first:
            self.newest = record
        if record.first + mask.bit_length() - 1 < self._before:
            self.late = min(self.late, record.sent_at)
            self.is_overtaken |= not record.mtu_probe

    @property
    def mean_sent_at(self) -> float:
        """The instant at which those newly acknowledged left, in the mean; MTU probes left aside."""
        return self._sent_sum / self._timed

    def on_spurious(self, record: SentBatch, mask: int) -> None:
        """These packets of the record had been declared lost, and were only late."""
        self.spurious += bin(mask).count("1")
        self.late = min(self.late, record.sent_at)


class Recovery:
    """The records of one connection's sent packets, and what acknowledgements and time say about them (RFC 9002)."""

    def __init__(self, first_packet_number: int, congestion: CongestionController) -> None:
        self.rtt = RttEstimator()
        self.congestion = congestion
        self.black_hole = BlackHole()
        self.next_packet_number = first_packet_number
        self.largest_acknowledged = first_packet_number - 1
        self.bytes_in_flight = 0
        self.probe_count = 0  # probe timeouts in a row without an acknowledgement
        # Seconds from sending to acknowledgement of one that others overtook, 0 where none was: RACK's reordering
        # window (RFC 8985 §6.2) by what was seen.
        self.reordering = RecentMaximum(REORDERING_KEPT)
        self.loss_time = math.inf
        self.last_sent_at = -math.inf
        self._still_until = -math.inf  # this process did not run just before that instant
        self.delivered = 0  # bytes acknowledged in all
        self._delivered_at = 0.0
        self._first_sent_at = 0.0  # when the packet was sent whose acknowledgement came last
        self.packets_lost = 0
        self.packets_spurious = 0
        self.probe_timeouts = 0  # in all
        self._records: List[SentBatch] = []
        self._firsts: List[int] = []  # first packet number of each record, for bisection
        self._head = 0  # records before it are settled
        self._seen: Set[Tuple[int, int]] = set()  # ranges of the last acknowledgement: nothing new in them
        # Numbers never sent, to catch those who acknowledge blindly.
        self._skipped: Deque[int] = collections.deque(maxlen=16)
        self._floor = first_packet_number
        self._path_from = first_packet_number  # what was sent before tells of the path that was left

    def floor(self) -> int:
        """The oldest packet number whose fate is still of interest."""
        return self._floor

    def skip_number(self) -> None:
        """Leave one packet number out (RFC 9000 §21.4): whoever acknowledges it lies."""
        self._skipped.append(self.next_packet_number)
        self.next_packet_number += 1

    @property
    def troubles(self) -> int:
        """Rises with whatever went wrong on the path, MTU probes left aside."""
        return self.packets_lost + self.probe_timeouts

    def has_outstanding(self) -> bool:
        """Is anything on its way of which it is not known what became of it?"""
        return self.bytes_in_flight > 0

    def on_sent(self, batch: SentBatch) -> None:
        """These packets leave now, with the next numbers."""
        assert batch.first == self.next_packet_number
        if not self.bytes_in_flight:
            self._delivered_at = self._first_sent_at = batch.sent_at
        batch.send(self.delivered, self._delivered_at, self._first_sent_at)
        self.next_packet_number += batch.count
        self.bytes_in_flight += batch.count * batch.datagram_size
        self.last_sent_at = batch.sent_at
        self._records.append(batch)
        self._firsts.append(batch.first)

    def begin_path(self, congestion: Optional[CongestionController]) -> List[Tuple[int, int]]:
        """The packets take another path: what was on its way is lost, as stream byte ranges, and that is no sign of
        congestion there. With another controller all that was measured is forgotten, too (RFC 9000 §9.4).
        """
        lost: List[Tuple[int, int]] = []
        for record in self._records[self._head :]:
            if record.mtu_probe:
                record.settle(record.outstanding)
            else:
                lost.extend(record.stream_ranges(record.outstanding))
                record.lose(record.outstanding)
        self.bytes_in_flight = self.probe_count = 0
        self.loss_time = math.inf
        self._path_from = self.next_packet_number
        if congestion is not None:
            self.congestion, self.black_hole = congestion, BlackHole()
            self.reordering.begin_with(0.0)
            self.rtt.begin()
        return lost

    # ---- acknowledgements

    def on_ack(self, ranges: List[Tuple[int, int]], ack_delay: float, now: float) -> Outcome:
        """Take in (first, last) ranges, newest first; `ack_delay` in seconds. AckViolation: numbers never sent."""
        outcome = Outcome([], [], 0, 0, False)
        if not ranges:
            return outcome
        self._check(ranges)
        in_flight_before = self.bytes_in_flight
        deadline = self.next_deadline() if now - self.last_sent_at > STOOD_STILL else math.inf
        news = _News(outcome.acknowledged, self.largest_acknowledged)
        self._take(ranges, news)
        rtt_sample = self._sample(news, ranges[0][1], ack_delay, deadline, now)
        if news.late < math.inf and news.late >= self._still_until:
            self.reordering.note(now, now - news.late)
        else:
            self.reordering.forget_old(now)
        self.largest_acknowledged = max(self.largest_acknowledged, ranges[0][1])
        self.bytes_in_flight -= news.size
        if news.spurious:
            self.packets_spurious += news.spurious
            self.congestion.on_spurious(news.spurious)
        probes = self.probe_count
        if news.newest is not None:
            self.probe_count = 0
            self.delivered += news.size
            self._delivered_at = now
            self._tell_congestion(news.newest, news.packets, news.size, rtt_sample, in_flight_before, now)
        mtu_lost = self._detect_loss(now, outcome.lost, probes)
        self._settle(now)
        return outcome._replace(mtu_acknowledged=news.mtu, mtu_lost=mtu_lost, progressed=news.packets > 0)

    def _take(self, ranges: List[Tuple[int, int]], news: _News) -> None:
        """Tell apart what in the ranges is new, what was given up and is here after all, and what is known."""
        for packet_range in ranges:
            if packet_range in self._seen:
                continue
            for record, mask in self._touched(*packet_range):
                if record.lost & mask:
                    self._take_back(record, record.lost & mask, news)
                mask &= record.outstanding
                if mask:
                    news.on_new(record, mask)
                    if record.datagram_size > DATAGRAM_SIZE_BASE:
                        self._on_arrived(record, mask)
        self._seen = set(ranges)

    def _take_back(self, record: SentBatch, mask: int, news: _News) -> None:
        """Declared lost, and here after all: its bytes are, whatever was sent again meanwhile."""
        record.find(mask)
        news.acknowledged.extend(record.stream_ranges(mask))
        if record.first >= self._path_from:
            news.on_spurious(record, mask)
            self._on_arrived(record, mask)

    def _sample(self, news: _News, largest: int, ack_delay: float, deadline: float, now: float) -> Optional[float]:
        """The round trip in seconds, if this acknowledgement tells one."""
        # The newest is the luckiest of those that it tells of: on a path where they overtake each other the round trip
        # would seem to be a quarter of what it is, and what is paced, and given up, by it would be far too early.
        if news.is_overtaken:
            return self._sample_rtt(news.mean_sent_at, 0.0, deadline, now)
        if news.newest is not None and self._tells_rtt(news.newest, largest):
            return self._sample_rtt(news.newest.sent_at, ack_delay, deadline, now)
        return None

    def _tells_rtt(self, newest: SentBatch, largest: int) -> bool:
        # RFC 9002 §5.1: only the largest number, and only if it is new, tells how long the way was; what was sent
        # before it may have arrived long ago, its acknowledgement lost.
        return largest > self.largest_acknowledged and newest.first <= largest < newest.first + newest.count

    def _sample_rtt(self, sent_at: float, ack_delay: float, deadline: float, now: float) -> Optional[float]:
        """How long what left then was on its way, in seconds; None if nobody knows whose time that was."""
        sample = max(now - sent_at, 1e-6)
        if sample > STOOD_STILL and self._was_still_since(sent_at, deadline, now):
            return None
        self.rtt.on_sample(sample, ack_delay)
        return sample

    def _was_still_since(self, sent_at: float, deadline: float, now: float) -> bool:
        """Did this process stand still while the packet was on its way? Then who knows how long that was."""
        if now > deadline + STOOD_STILL:
            self._still_until = now
        return sent_at < self._still_until

    def _tell_congestion(
        self, newest: SentBatch, packets: int, size: int, rtt: Optional[float], in_flight_before: int, now: float
    ) -> None:
        """What an acknowledgement says of the path: its round trip, and the rate at which packets were delivered."""
        # As in draft-cheng-iccrg-delivery-rate-estimation §3: neither faster than it was sent, nor than it arrived.
        interval = max(now - newest.delivered_at, newest.sent_at - newest.first_sent_at)
        self._first_sent_at = newest.sent_at
        rate = (self.delivered - newest.delivered) / interval if interval > 0 and self.rtt.samples else 0.0
        window = self.congestion.window
        slack = 2 * SEGMENTS_MAX * 1472  # a window is in use although the pacer holds a batch or two back
        is_limited = 2 * in_flight_before >= window or in_flight_before + slack >= window
        self.congestion.on_acknowledged(
            Acknowledged(
                now,
                packets,
                size,
                rtt,
                self.rtt.smoothed,
                rate,
                newest.is_app_limited,
                newest.first + newest.count - 1,
                self.next_packet_number,
                self.bytes_in_flight,
                is_limited,
                self._floor,
                self._overtaken_rtt,
            )
        )

    def _check(self, ranges: List[Tuple[int, int]]) -> None:
        if ranges[0][1] >= self.next_packet_number:
            raise AckViolation("acknowledged packets that were never sent")
        for number in self._skipped:
            if any(first <= number <= last for first, last in ranges):
                raise AckViolation("acknowledged a packet number that was skipped")

    def _touched(self, first: int, last: int) -> Iterator[Tuple[SentBatch, int]]:
        """The records that lie in the range, newest first, each with the mask of its packets in it."""
        records = self._records
        index = bisect.bisect_right(self._firsts, last) - 1
        while index >= self._head:
            record = records[index]
            low = first - record.first
            high = last - record.first
            if low >= record.count:
                return
            mask = (1 << min(high + 1, record.count)) - 1
            if low > 0:
                mask &= -1 << low
            yield record, mask
            index -= 1

    def _on_arrived(self, record: SentBatch, mask: int) -> None:
        whole = record.whole(mask)
        if whole and record.datagram_size > DATAGRAM_SIZE_BASE:
            self.black_hole.on_arrived(record.datagram_size, record.first + whole.bit_length() - 1)

    def _on_vanished(self, record: SentBatch, mask: int) -> None:
        whole = record.whole(mask)
        if whole and record.datagram_size > DATAGRAM_SIZE_BASE:
            first, last = record.first + (whole & -whole).bit_length() - 1, record.first + whole.bit_length() - 1
            self.black_hole.on_lost(record.datagram_size, first, last, self.next_packet_number)

    @property
    def loss_delay(self) -> float:
        """Seconds after which a packet that a later one overtook counts as lost (RFC 9002 §6.1.2)."""
        usual = TIME_THRESHOLD * max(self.rtt.smoothed, self.rtt.latest)
        return max(usual, REORDERING_SLACK * self._overtaken_rtt, GRANULARITY)

    @property
    def _overtaken_rtt(self) -> float:
        """Seconds that a packet took lately which others overtook, within bounds; 0: there was none."""
        return min(self.reordering.value, REORDERING_MAX_RTTS * self.rtt.smoothed)

    def _detect_loss(self, now: float, lost: List[Tuple[int, int]], probes: int = 0) -> int:
        """Declare lost what RFC 9002 §6.1 says; returns the size of an MTU probe that was lost, or 0.

        `probes` is how many probe timeouts in a row went before the acknowledgement that told.
        """
        delay = self.loss_delay
        below = -1 if self.reordering.value else self.largest_acknowledged - PACKET_THRESHOLD
        self.loss_time = math.inf
        mtu_lost = packets = ranges = 0
        largest_lost = -1
        for index in range(self._head, len(self._records)):
            record = self._records[index]
            if record.first >= self.largest_acknowledged:
                break
            if not record.outstanding:
                continue
            by_time = record.sent_at + delay <= now  # as loss_time is computed: to the same bit
            top = self.largest_acknowledged - 1 if by_time else below
            mask = record.outstanding & ((1 << max(0, min(top - record.first + 1, record.count))) - 1)
            if mask:
                if record.mtu_probe:  # RFC 8899 §3: it tells of its size, and is no sign of congestion
                    self.bytes_in_flight -= record.settle(mask)
                    mtu_lost = record.datagram_size
                    continue
                self.bytes_in_flight -= record.lose(mask)
                self._on_vanished(record, mask)
                packets += bin(mask).count("1")
                before = len(lost)
                lost.extend(record.stream_ranges(mask))
                ranges += max(len(lost) - before, 1)
                largest_lost = record.first + mask.bit_length() - 1
            if record.outstanding and not by_time:
                self.loss_time = min(self.loss_time, record.sent_at + delay)
        if packets:
            self.packets_lost += packets
            self.congestion.on_lost(now, packets, ranges, largest_lost, self.next_packet_number)
            span = PERSISTENT_CONGESTION_THRESHOLD * self.rtt.probe_timeout
            if probes >= PERSISTENT_CONGESTION_THRESHOLD and self._lost_span() >= span:
                self.rtt.restart_minimum()
                self.congestion.on_persistent_congestion()
        return mtu_lost

    def _lost_span(self) -> float:
        """The longest time in which all that was sent was lost (RFC 9002 §7.6.2).

        A remote that only stood still acknowledges the most of it when it goes on.
        """
        longest, since = 0.0, math.inf
        for record in self._records[self._head :]:
            if record.mtu_probe:
                continue
            since = min(since, record.sent_at) if record.lost == (1 << record.count) - 1 else math.inf
            longest = max(longest, record.sent_at - since)
        return longest

    def _settle(self, now: float) -> None:
        """Drop settled records from the front; lost ones stay a while, in case they were not lost."""
        records = self._records
        kept = RECORDS_KEPT * (self.loss_delay if self.reordering.value else self.rtt.smoothed)
        forget_before = now - kept - MAX_ACK_DELAY
        head = self._head
        while head < len(records):
            record = records[head]
            if record.outstanding or (record.lost and record.sent_at > forget_before):
                break
            head += 1
        self._head = head
        if head > 256 and head * 2 > len(records):
            del records[:head]
            del self._firsts[:head]
            self._head = 0
        self._floor = records[self._head].first if self._head < len(records) else self.next_packet_number
        # Not by the floor alone: all before a skipped number may be settled while those behind it are on their way.
        while self._skipped and self._skipped[0] < min(self._floor, self.largest_acknowledged):
            self._skipped.popleft()

    # ---- time

    def next_deadline(self) -> float:
        """When on_timeout wants to be called (RFC 9002 §6.2.1)."""
        if self.loss_time < math.inf:
            return self.loss_time
        if not self.bytes_in_flight:
            return math.inf
        if not self.probe_count:
            return self.last_sent_at + self.rtt.probe_timeout
        backoff = self.rtt.probe_timeout * (1 << min(self.probe_count, 16))
        return self.last_sent_at + min(backoff, max(PROBE_TIMEOUT_MAX, self.rtt.probe_timeout))

    def on_timeout(self, now: float) -> Tuple[Outcome, bool]:
        """What is lost by time, and whether a probe is to be sent."""
        lost: List[Tuple[int, int]] = []
        if now > self.next_deadline() + STOOD_STILL:
            self._still_until = now
        if self.loss_time < math.inf:
            mtu_lost = self._detect_loss(now, lost)
            self._settle(now)
            return Outcome([], lost, 0, mtu_lost, False), False
        mtu_lost = self._give_up_mtu_probes()
        if not self.has_outstanding():  # nothing but the MTU probe: that it was lost tells of its size alone
            return Outcome([], lost, 0, mtu_lost, False), False
        self.probe_count += 1
        self.probe_timeouts += 1
        return Outcome([], lost, 0, mtu_lost, False), True

    def _give_up_mtu_probes(self) -> int:
        """An MTU probe without an answer is lost; it must not keep the probe timer running."""
        lost = 0
        for record in self._records[self._head :]:
            if record.mtu_probe and record.outstanding:
                self.bytes_in_flight -= record.settle(record.outstanding)
                lost = record.datagram_size
        return lost
