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
        self.delivered += packets

    def note_rtt(self, rtt: float) -> None:
        self.min_rtt = min(self.min_rtt, rtt)
        self.rtts += rtt
        self.samples += 1

    def note_rate(self, rate: float) -> None:
        self.rate = max(self.rate, rate)

    def note_loss(self, packets: int, ranges: int) -> None:
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

    __slots__ = ("_before", "_lowest", "_samples", "_since")

    def __init__(self) -> None:
        self._before = math.inf
        self._lowest = math.inf
        self._samples = 0
        self._since = -math.inf

    def add(self, now: float, rtt: float, span: float) -> None:
        if now - self._since > span and self._samples >= self.SAMPLES:
            self._before, self._lowest = self._lowest, math.inf
            self._samples, self._since = 0, now
        self._lowest = min(self._lowest, rtt)
        self._samples += 1

    @property
    def lowest(self) -> float:
        return min(self._before, self._lowest)


class Delivery:
    """The last rounds, and the rates that the path has shown."""

    HEAVY_ROUNDS = 4  # that a rate of loss is taken from
    RATES_KEPT = 10  # rounds
    KNOWN_FOR = 10.0  # seconds a bucket; two are kept

    def __init__(self) -> None:
        self.round = Round()  # the present one
        self._rounds: Deque[Round] = collections.deque([self.round], maxlen=self.RATES_KEPT)
        self._round_end = -1  # the round lasts until this packet number is acknowledged
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
        self.round.note_rate(rate)
        self._known.note(now, rate)

    def is_round_over(self, largest: int) -> bool:
        """Does an acknowledgement of that packet end the round?"""
        return largest >= self._round_end

    def begin_round_end(self, next_packet_number: int) -> None:
        """What is sent from here on belongs to the next round."""
        self._round_end = next_packet_number

    def next_round(self) -> None:
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
        for each in self._rounds:
            each.forget_losses()


class LinkNoise:
    """The loss that the link has by itself.

    Two measures: `calm_loss`, of rounds without a queue; and `noise`, of a *trial*: the rate came down for a heavy loss
    that showed no queue, and what is lost at a rate that certainly fits is the link's own. While a trial lasts, nothing
    else is concluded from losses.
    """

    NOISE_SAMPLE = 30  # packets
    NOISE_MAX = 0.5
    CALM_LOSS_MAX = 0.1
    TRIAL_ROUNDS = 4

    def __init__(self) -> None:
        self.noise = 0.0  # part of the packets that the link loses at any rate
        self.calm_loss = 0.0  # part of the packets lost in rounds without a queue
        self.trial_rounds = 0  # left
        self._suspected = 0.0  # part of the packets whose loss began the trial
        self._lost, self._total = 0, 0  # packets of the trial that count

    def begin_trial(self, delivery: Delivery) -> None:
        """The rate comes down: does the loss go away with it?"""
        lost, total, _ = delivery.losses()
        self._suspected = lost / total
        self.trial_rounds, self._lost, self._total = self.TRIAL_ROUNDS, 0, 0

    def on_round(self, delivery: Delivery, is_calm: bool) -> bool:
        """A round is over; `is_calm`: it showed no queue. Is the trial over with it?"""
        last = delivery.round
        if last.delivered >= 16 and is_calm:
            part = last.lost / (last.lost + last.delivered)
            self.calm_loss += (min(part, self.CALM_LOSS_MAX) - self.calm_loss) / 16
        if self.trial_rounds:
            self.trial_rounds -= 1
            if self.trial_rounds < 2:  # the first two rounds still tell of what was sent before the cut
                self._lost += last.lost
                self._total += last.lost + last.delivered
            return not self.trial_rounds
        lost, total, _ = delivery.losses()
        expected = self.noise * total
        if total >= HEAVY_SAMPLE and lost < expected - 2 * math.sqrt(expected):
            self.noise = 0.75 * self.noise + 0.25 * lost / total
        return False

    def is_link_to_blame(self) -> bool:
        """The trial is over: did the loss stay, although the rate came down?"""
        if self._total < self.NOISE_SAMPLE:
            return False
        self.noise = min(self._lost / self._total, self.NOISE_MAX)
        return self.noise >= 0.5 * self._suspected
