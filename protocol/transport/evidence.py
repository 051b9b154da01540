"""What a congestion controller may conclude from: rounds of acknowledgements, delays, rates, and the link's own loss.

    RecentRtt   the lowest round trip seen lately: does a queue stand above the path's own?
    Delivery    what came through and what was lost, round by round (a round: until what was sent in it is told of)
    LinkNoise   which part of the packets the link loses by itself, whatever is sent

Values; who concludes is `CubicQ`.
"""

from __future__ import annotations

import collections
import math
from typing import Deque, Tuple

from protocol.rates import RecentMaximum

HEAVY_SAMPLE = 100  # packets: of fewer, no rate of loss is believed


def is_beyond(lost: int, total: int, part: float, deviations: float) -> bool:
    """Were more of the packets lost than that part, by so many standard deviations, also of a small count?

    The root of a count varies by 1/2, however large the count is.
    """
    return math.sqrt(lost) > math.sqrt(part * total) + deviations / 2


def is_below(lost: int, total: int, part: float, deviations: float) -> bool:
    """The same the other way: were fewer lost?"""
    return math.sqrt(lost) < math.sqrt(part * total) - deviations / 2


class Round:
    """What happened while one window of packets was on its way."""

    __slots__ = ("delivered", "lost", "loss_ranges", "min_rtt", "rate", "rtts", "samples")

    def __init__(self) -> None:
        self.delivered = 0  # packets
        self.lost = 0  # packets
        self.loss_ranges = 0
        self.rate = 0.0  # bytes per second, the highest that the path showed
        self.min_rtt = math.inf
        self.rtts = 0.0  # sum, seconds
        self.samples = 0

    def note_arrivals(self, packets: int) -> None:
        """So many packets more were acknowledged in it."""
        self.delivered += packets

    def note_rtt(self, rtt: float) -> None:
        """A sample of the round trip, in seconds."""
        self.min_rtt = min(self.min_rtt, rtt)
        self.rtts += rtt
        self.samples += 1

    @property
    def spread(self) -> float:
        """Seconds by which the mean of the samples lies above the lowest."""
        return self.rtts / self.samples - self.min_rtt if self.samples else 0.0

    def note_rate(self, rate: float) -> None:
        """A rate of delivery, in bytes per second: the highest counts, for others were held up."""
        self.rate = max(self.rate, rate)

    def note_loss(self, packets: int, ranges: int) -> None:
        """So many packets more were lost in it, in so many runs."""
        self.lost += packets
        self.loss_ranges += ranges

    def take_back_loss(self, packets: int) -> None:
        """They were not lost."""
        self.lost = max(0, self.lost - packets)

    def forget_losses(self) -> None:
        """They were answered, or judged."""
        self.lost = self.loss_ranges = self.delivered = 0


class RecentRtt:
    """The lowest round-trip time of one or two spans of time; a span without enough samples goes on."""

    SAMPLES = 8  # a lone sample, or three, may all have waited for the scheduler
    SAMPLES_LATE = 24  # where packets overtake each other eight are late often enough, without any queue

    __slots__ = ("_before", "_lowest", "_samples", "_since")

    def __init__(self) -> None:
        self._before = math.inf
        self._lowest = math.inf
        self._samples = 0
        self._since = -math.inf

    def add(self, now: float, rtt: float, span: float, samples: int = SAMPLES) -> None:
        """A sample in seconds; a span ends after so many seconds, once it has so many of them."""
        if now - self._since > span and self._samples >= samples:
            self._before, self._lowest = self._lowest, math.inf
            self._samples, self._since = 0, now
        self._lowest = min(self._lowest, rtt)
        self._samples += 1

    @property
    def lowest(self) -> float:
        """Seconds; infinite before the first sample."""
        return min(self._before, self._lowest)


class Delivery:
    """The last rounds, and the rates that the path has shown."""

    HEAVY_ROUNDS = 4  # that a rate of loss is taken from
    RATES_KEPT = 10  # rounds
    KNOWN_FOR = 10.0  # seconds a bucket; two are kept

    def __init__(self) -> None:
        self.round = Round()  # the present one
        self._rounds: Deque[Round] = collections.deque([self.round], maxlen=self.RATES_KEPT)
        self._round_end = -1  # the round lasts until this packet number is acknowledged,
        self._round_until = -math.inf  # and until that instant
        # Of rounds that showed one: an application's pause says nothing of the path, however many rounds it lasts.
        self._rates: Deque[float] = collections.deque(maxlen=self.RATES_KEPT - 1)
        self._past_rate = 0.0  # highest of them, bytes per second
        self._known = RecentMaximum(self.KNOWN_FOR)  # bytes per second

    @property
    def known_rate(self) -> float:
        """The highest rate of the last 10 to 20 seconds, in bytes per second."""
        return self._known.value

    @property
    def known_rates(self) -> Tuple[float, float]:
        """The two of which it is the higher one: for `recall_rates`."""
        return self._known.buckets

    @property
    def recent_rate(self) -> float:
        """The highest rate of the last rounds, in bytes per second."""
        return max(self._past_rate, self.round.rate)

    def rate_of(self, rounds: int) -> float:
        """The highest rate of that many last rounds."""
        return max(each.rate for each in list(self._rounds)[-rounds:])

    def rate_before(self, rounds: int) -> float:
        """The rate of the round that is so many back, the present one being the first; or of the oldest."""
        return self._rounds[-min(rounds, len(self._rounds))].rate

    def losses(self) -> Tuple[int, int, int]:
        """(lost, all, ranges of lost packets) of the last HEAVY_ROUNDS."""
        rounds = list(self._rounds)[-self.HEAVY_ROUNDS :]
        lost = sum(each.lost for each in rounds)
        return lost, lost + sum(each.delivered for each in rounds), sum(each.loss_ranges for each in rounds)

    def note_rate(self, now: float, rate: float) -> None:
        """The path has shown this rate now, in bytes per second."""
        self.round.note_rate(rate)
        self._known.note(now, rate)

    def is_round_over(self, largest: int, oldest: int, now: float) -> bool:
        """Does an acknowledgement of that packet end the round? Where some overtake others it waits for them."""
        return largest >= self._round_end and (now >= self._round_until or oldest >= self._round_end)

    def begin_round_end(self, next_packet_number: int, until: float) -> None:
        """What is sent from here on belongs to the next round, which lasts at least until that instant."""
        self._round_end, self._round_until = next_packet_number, until

    def next_round(self) -> None:
        """The present round is over."""
        if self.round.rate:
            self._rates.append(self.round.rate)
            self._past_rate = max(self._rates)
        self.round = Round()
        self._rounds.append(self.round)

    def forget_rates(self, rounds: int) -> None:
        """The share of before is history; what so many last rounds showed counts."""
        self._known.begin_with(self.rate_of(rounds))

    def recall_rates(self, known_rates: Tuple[float, float]) -> None:
        """They were forgotten by mistake."""
        self._known.recall(known_rates)

    def forget_losses(self) -> None:
        """What was lost in the last rounds was answered, or judged."""
        for each in self._rounds:
            each.forget_losses()


class LinkNoise:
    """The part of the packets that the link loses by itself: what is lost although the rate certainly fits.

    It fits after it came down for a queue, until it is nearly back: what is lost then is counted in blocks. Where it
    came down for a heavy loss that showed no queue, it stays there for a *trial*; nothing else is concluded meanwhile.
    """

    BLOCK = 100  # packets
    GAIN = 1 / 4  # of a block
    MOST_OF_BLOCK = 0.1  # a cut takes away more than that: who has too much in flight by more does not pass for noise
    MOST = 0.5
    TRIAL_ROUNDS = 4  # and more, until there are HEAVY_SAMPLE packets to judge by

    def __init__(self) -> None:
        self.noise = 0.0  # part of the packets
        self.trial_rounds = 0  # left
        self._suspected = 0.0  # part of the packets whose loss began the trial
        self._lost, self._total = 0, 0  # packets that count, of the block or of the trial

    def count(self, told: Round) -> None:
        """These packets are told of, which were sent at a rate that fits."""
        self._lost += told.lost
        self._total += told.lost + told.delivered
        if self._total >= self.BLOCK:
            part = self._lost / self._total
            # Of more noise what may be chance counts as it is: cut off at the noise, that would only ever become less.
            if self.noise <= self.MOST_OF_BLOCK or is_beyond(self._lost, self._total, self.noise, 3):
                part = min(part, max(self.noise, self.MOST_OF_BLOCK))
            self.noise += self.GAIN * (part - self.noise)
            self._lost = self._total = 0

    def begin_trial(self, delivery: Delivery) -> None:
        """The rate comes down: does the loss go away with it?"""
        lost, total, _ = delivery.losses()
        self._suspected = lost / total
        self.trial_rounds, self._lost, self._total = self.TRIAL_ROUNDS, 0, 0

    def on_round(self, delivery: Delivery, fits: bool) -> bool:
        """A round is over; `fits`: its rate did. Is the trial over with it?"""
        told = delivery.round
        if self.trial_rounds:
            self.trial_rounds -= 1
            if self.trial_rounds < 2:  # the first two rounds still tell of what was sent before the cut
                self._lost += told.lost
                self._total += told.lost + told.delivered
                self.trial_rounds = max(self.trial_rounds, int(self._total < HEAVY_SAMPLE))
            return not self.trial_rounds
        if fits:
            self.count(told)
        if self.noise:  # it may be less by now
            lost, total, _ = delivery.losses()
            expected = self.noise * total
            if total >= HEAVY_SAMPLE and lost < expected - 2 * math.sqrt(expected):
                self.noise = 0.75 * self.noise + 0.25 * lost / total
        return False

    def is_link_to_blame(self) -> bool:
        """The trial is over: did the loss stay, although the rate came down? Of a few packets it may only seem less."""
        lost, total, self._lost, self._total = self._lost, self._total, 0, 0
        self.noise = min(lost / total, self.MOST)
        return not is_below(lost, total, 0.5 * self._suspected, 1)
