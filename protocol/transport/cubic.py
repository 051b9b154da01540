"""How fast to send: congestion control. Pure arithmetic on bytes, seconds and packet numbers.

`CubicQ` is CUBIC (RFC 9438) that wants evidence before it slows down for a loss:

  - a queue: the lowest recent round-trip time stands above the path's own by more than `queue_threshold`;
  - heavy loss that goes away at a lower rate, as that of a policer or of a very shallow queue does (random loss stays,
    and is then taken for the link's noise);
  - a path so short (under BLIND_RTT) that a queue cannot be told from a busy scheduler.

Alone on a link with a deep queue it does not fill the queue: the window is capped, after a short drain has shown that
the queue was its own. When the queue stays in spite of the cap, others are there, and it is plain CUBIC again.

It finds the rate of the path in three ways: by slow start, which ends where a queue or losses show that the pipe is
full, with the window that this pipe holds; by CUBIC; and, while there is no queue, by climbs: the window grows from
round to round as long as the delivery grows with it, and goes back to where it was when it no longer does.
"""

from __future__ import annotations

import collections
import math
from typing import Deque, List, NamedTuple, Optional, Tuple

from protocol.transport.congestion import Acknowledged
from protocol.transport.evidence import _RecentRtt, _Round

INITIAL_WINDOW_PACKETS = 10  # RFC 9002 §7.2
INITIAL_WINDOW_MAX = 14_720  # bytes
MINIMUM_WINDOW_PACKETS = 4


class _Saved(NamedTuple):
    """What a reaction to a loss changes, and undoing it restores."""

    window: float
    ssthresh: float
    window_max: float
    epoch_start: Optional[float]
    known: List[float]


class CubicQ:
    """CUBIC that asks for evidence of a queue before it slows down for a loss."""

    BETA = 0.7  # RFC 9438 §4.6
    CONSERVATIVE_ROUNDS = 5  # of slow start at a quarter of its speed, once there is a queue (RFC 9406 §4.2)
    C = 0.4  # packets per second cubed, RFC 9438 §5.1
    FAST_CONVERGENCE = 0.85  # (1 + BETA) / 2, RFC 9438 §4.7
    BLIND_RTT = 0.002  # seconds: below, every loss counts
    HEAVY_LOSS = 0.03  # of the packets of the last HEAVY_ROUNDS rounds
    OVERSHOOT_LOSS = 0.15  # the same in slow start, while the delivery still grows
    HEAVY_ROUNDS = 4
    HEAVY_RANGES = 6  # one burst is not heavy loss
    HEAVY_SAMPLE = 100  # packets
    NOISE_SAMPLE = 30  # packets
    NOISE_MAX = 0.5
    CALM_LOSS = 0.003  # loss in rounds without a queue, from which on the link is taken to lose by itself
    NOISY_SLACK = 1.05
    CALM_LOSS_MAX = 0.1
    BELOW_DELIVERY = 0.85  # of what came through: a policer then has nothing left to drop
    REFILL = 1 / 16
    CLIMBS = (1 / 16, 1 / 16, 1 / 8, 1 / 8, 1 / 4)  # of the window in each round of a climb; the last goes on
    CLIMB_STEP = 3  # rounds, after which the delivery must have grown
    CLIMB_GAIN = 1.08  # by so much
    CROWDED_GAIN = 1.08  # where others fill the queue: only who has less than half gains so much by a fifth more window
    CLIMB_AGAIN = 1.0  # seconds, and as many as CLIMB_ROUNDS last, from a reaction or a climb to the next
    CLIMB_AGAIN_MAX = 8.0  # seconds, when climb after climb finds nothing
    CLIMB_ROUNDS = 8
    CAP_GAIN = 1.5  # of the round trip: half of it may stand in the queue
    CAP_SLACK_RTT = 0.005  # seconds, and
    CAP_SLACK_SIZE = 128 << 10  # bytes: keep loopback and LAN fast, where the round trip is mostly the scheduler's
    DRAIN_AGAIN = 20.0  # seconds between two drains
    DRAIN_HOLD = 0.100  # seconds
    DRAIN_MAX = 2.0  # seconds
    BASE_RTT_AGE = 10.0  # seconds after which a drain may raise the base
    ACK_SPACING = 0.001  # seconds that a packet waits until the acknowledgement goes that tells of it
    RATES_KEPT = 10  # rounds
    KNOWN_FOR = 10.0  # seconds a bucket; two are kept

    def __init__(self, datagram_size: int) -> None:
        self.datagram_size = datagram_size
        self.window: float = min(INITIAL_WINDOW_PACKETS * datagram_size, INITIAL_WINDOW_MAX)
        self.ssthresh = math.inf
        self.base_rtt = math.inf  # the path's own round trip, as far as it was seen without a queue
        self.jitter = 0.0  # seconds that the path adds to it on the average, without a queue
        self.is_alone = False
        self.noise = 0.0  # part of the packets that the link loses at any rate
        self._base_at = 0.0
        self._window_max = 0.0  # Wmax, bytes
        self._epoch_start: Optional[float] = None
        self._grown_at = 0.0  # when CUBIC last let the window grow
        self._k = 0.0  # seconds
        self._window_estimate = 0.0  # West, bytes: what Reno would have
        self._recent_rtt = _RecentRtt()
        self._rounds: Deque[_Round] = collections.deque([_Round()], maxlen=self.RATES_KEPT)
        self._round_end = -1  # the round lasts until this packet number is acknowledged
        # Of rounds that showed one: an application's pause says nothing of the path, however many rounds it lasts.
        self._rates: Deque[float] = collections.deque(maxlen=self.RATES_KEPT - 1)
        self._past_rate = 0.0  # highest of them, bytes per second
        self._latest_rtt = math.inf
        self._known = [0.0, 0.0]  # highest rates of this bucket and the last, bytes per second
        self._known_since = 0.0
        self._calm_loss = 0.0  # part of the packets lost in rounds without a queue
        self._reacted_below = -1  # losses of packets below this number were answered already
        self._undo: Optional[_Saved] = None
        self._undo_packets = 0
        self._noise_rounds = 0  # rounds left until the noise has been measured
        self._noise_counts = [0, 0]  # lost, all
        self._suspicion = (0.0, 0.0, math.inf, 0.0)  # loss that it came down for; window, ssthresh and Wmax before
        self._conservative_rounds = 0  # left
        self._climb_round = -1  # rounds that the climb under way has lasted; -1: there is none
        self._climbs_in_queue = False  # others fill the queue, too: is our share less than theirs?
        self._climb_from = 0.0  # the window to go back to, bytes
        self._climb_rate = 0.0  # highest before this step of CLIMB_STEP rounds
        self._climb_after = 0.0  # the instant of the next
        self._climb_rest = self.CLIMB_AGAIN / 2  # seconds between two
        self._drain_until: Optional[float] = None  # a drain is under way; inf: the window has not emptied yet
        self._drain_began = 0.0
        self._drain_rtt = math.inf  # the lowest seen in it
        self._before_drain = (0.0, 0.0)  # window, smoothed RTT
        self._drained_at = -math.inf
        self._crowded_rounds = 0

    # ---- what it knows

    @property
    def minimum_window(self) -> int:
        return MINIMUM_WINDOW_PACKETS * min(self.datagram_size, 1472)

    @property
    def queue_threshold(self) -> float:
        """Seconds of queueing that count as a queue; the upper bound keeps CoDel's 5 ms visible."""
        return min(max(self.base_rtt / 12, 0.001), 0.005)

    @property
    def path_rtt(self) -> float:
        """What a packet's round trip takes on the average when there is no queue, until its acknowledgement is here."""
        return self.base_rtt + self.jitter + min(self.base_rtt / 32, self.ACK_SPACING)

    @property
    def known_rate(self) -> float:
        """The highest rate of the last 10 to 20 seconds, in bytes per second."""
        return max(self._known)

    @property
    def pipe(self) -> float:
        """Bytes that the path holds without a queue, with those in them that the link loses."""
        return 0.98 * self.known_rate * self.path_rtt / (1 - self._calm_loss)

    @property
    def recent_rate(self) -> float:
        """The highest rate of the last rounds, in bytes per second."""
        return max(self._past_rate, self._rounds[-1].rate)

    @property
    def queue_delay(self) -> float:
        """Lowest recent queueing delay in seconds."""
        lowest = self._recent_rtt.lowest
        return lowest - self.base_rtt if lowest < math.inf else 0.0

    def pacing_rate(self, smoothed_rtt: float) -> float:
        """Bytes per second (RFC 9002 §7.7).

        A quarter above the window in slow start, too: the window then still grows by 1.9 in a round, and what leaves
        is spread over the whole round. At twice the window it is one burst, which a shallow queue loses at half of
        the link's rate.
        """
        if self._drain_until is not None:
            return max(self.recent_rate, self.window / max(smoothed_rtt, 1e-6))
        return 1.25 * self.window / max(smoothed_rtt, 1e-6)

    # ---- acknowledgements

    def on_acknowledged(self, ack: Acknowledged) -> None:
        if ack.largest >= self._reacted_below:  # as losses are counted
            self._rounds[-1].delivered += ack.packets
        if ack.rtt is not None:
            self._note_rtt(ack.now, ack.rtt)
        if ack.rate and (not ack.is_app_limited or ack.rate > self.known_rate):
            self._note_rate(ack.now, ack.rate)
        if self._drain_until is not None:
            self._on_drain(ack)
        elif ack.is_window_limited and not self._noise_rounds:
            self._grow(ack)
        if ack.largest >= self._round_end:
            self._end_round(ack)

    def _note_rtt(self, now: float, rtt: float) -> None:
        if rtt <= self.base_rtt:
            self.base_rtt = rtt
            self._base_at = now
        self._latest_rtt = rtt
        self._recent_rtt.add(now, rtt, max(self.base_rtt / 2, 0.010))
        this_round = self._rounds[-1]
        this_round.min_rtt = min(this_round.min_rtt, rtt)
        this_round.rtts += rtt
        this_round.samples += 1

    def _note_rate(self, now: float, rate: float) -> None:
        this_round = self._rounds[-1]
        this_round.rate = max(this_round.rate, rate)
        if now - self._known_since > self.KNOWN_FOR:
            self._known = [0.0, self._known[0]]
            self._known_since = now
        self._known[0] = max(self._known[0], rate)

    def _end_round(self, ack: Acknowledged) -> None:
        self._round_end = ack.next_packet_number
        self._measure_noise()
        self._conservative_rounds = max(0, self._conservative_rounds - 1)
        if self._drain_until is None:
            if self.is_alone:
                self._look_for_others()
            self._climb(ack)
            self._measure_jitter()
        if self._rounds[-1].rate:
            self._rates.append(self._rounds[-1].rate)
            self._past_rate = max(self._rates)
        self._rounds.append(_Round())

    def _measure_jitter(self) -> None:
        last = self._rounds[-1]
        if last.samples >= _RecentRtt.SAMPLES and self.window >= self.ssthresh:
            spread = last.rtts / last.samples - last.min_rtt
            self.jitter += (min(spread, self.base_rtt) - self.jitter) / 8

    def _rate_of(self, rounds: int) -> float:
        """The highest rate of that many last rounds."""
        return max(each.rate for each in list(self._rounds)[-rounds:])

    def _grow(self, ack: Acknowledged) -> None:
        if self.window < self.ssthresh:
            self.window += ack.size
            # HyStart++ (RFC 9406 §4.2): a queue that stays for a while means that the pipe is full.
            limit = 0.004 if self.base_rtt < 0.016 else min(self.base_rtt / 12, 0.016)
            if self._rounds[-1].samples >= 8 and self.queue_delay > limit:
                self._leave_slow_start(ack.now, 1.0)
                self._conservative_rounds = self.CONSERVATIVE_ROUNDS
        else:
            if self.window < self.pipe and self.queue_delay < self.queue_threshold:
                self.window += ack.size * self.REFILL  # a cut that was a mistake is made good soon
            if self._conservative_rounds:
                self.window += ack.size / 4
            elif self._climb_round >= 0:
                step = 0 if self._climbs_in_queue else min(self._climb_round, len(self.CLIMBS) - 1)
                self.window += ack.size * self.CLIMBS[step]
            self._grow_cubic(ack)
        self._hold_to_cap(ack)

    def _leave_slow_start(self, now: float, least: float) -> None:
        """On with the window that fills the pipe, but with that part of the present one; a climb may follow."""
        pipe = self._rate_of(2) * self.path_rtt
        self._window_max = self.window
        self.window = max(min(pipe, self.window), least * self.window, self.minimum_window)
        self.ssthresh = self.window
        self._epoch_start = None
        self._climb_after = now + self.base_rtt

    def _grow_cubic(self, ack: Acknowledged) -> None:
        """RFC 9438 §4.2-4.5."""
        size = min(self.datagram_size, 1472)
        if self._epoch_start is None:
            self._epoch_start = ack.now
            self._window_estimate = self.window
            self._window_max = max(self._window_max, self.window)
            self._k = ((self._window_max - self.window) / size / self.C) ** (1 / 3)
        else:
            # RFC 9438 §5.8: time in which the window was not in use does not count. Where it is, growth is never
            # further apart than a round trip.
            self._epoch_start += max(0.0, ack.now - self._grown_at - ack.smoothed_rtt)
        self._grown_at = ack.now
        elapsed = ack.now - self._epoch_start + ack.smoothed_rtt
        target = self.C * (elapsed - self._k) ** 3 * size + self._window_max
        target = min(max(target, self.window), 1.5 * self.window)
        alpha = 3 * (1 - self.BETA) / (1 + self.BETA) if self._window_estimate < self._window_max else 1.0
        self._window_estimate += alpha * size * ack.size / self.window
        self.window += (target - self.window) * ack.size / self.window
        self.window = max(self.window, min(self._window_estimate, 1.5 * self.window))

    # ---- climbs

    def _climb(self, ack: Acknowledged) -> None:
        """At the end of a round: is there more to be had, at a path that shows no queue?"""
        last = self._rounds[-1]
        if self.window < self.ssthresh or self._noise_rounds:
            return
        is_calm = last.min_rtt - self.base_rtt < self.queue_threshold and last.samples >= 4
        has_loss = last.lost > 3 + (1.5 * max(self.noise, self._calm_loss) + 0.02) * (last.delivered + last.lost)
        if self._climb_round < 0:
            may_climb = is_calm or (not self.is_alone and self.base_rtt >= self.BLIND_RTT)
            if may_climb and last.rate and not has_loss and ack.is_window_limited and ack.now >= self._climb_after:
                self._climb_round, self._climb_from = 0, self.window
                self._climb_rate = self._rate_of(2)
                self._climbs_in_queue = not is_calm
            return
        if not last.rate:
            return  # the application's round, not the path's
        self._climb_round += 1
        rate = self._rate_of(2)
        is_step = self._climb_round % self.CLIMB_STEP == 0
        gain = self.CROWDED_GAIN if self._climbs_in_queue else self.CLIMB_GAIN
        if not (is_calm or self._climbs_in_queue) or has_loss or (is_step and rate <= gain * self._climb_rate):
            self._end_climb(ack.now, ack.next_packet_number)
        elif is_step:
            self._climb_rate = rate
            held = self.window if self._climbs_in_queue else min(self.window, rate * self.path_rtt)
            self._climb_from = max(self._climb_from, held)
            self._climb_rest = self.CLIMB_AGAIN
            self._epoch_start = None

    def _end_climb(self, now: float, next_packet_number: int) -> None:
        """It found nothing, or the end: back to the window that the path is known to hold."""
        self.window = min(self.window, self._climb_from)
        self._climb_round = -1
        self._climb_rest = min(2 * self._climb_rest, self.CLIMB_AGAIN_MAX)
        self._rest_from_climbing(now)
        if not self._climbs_in_queue:
            self._reacted_below = next_packet_number  # what it had too much in flight may still be lost

    def _rest_from_climbing(self, now: float) -> None:
        self._climb_after = now + max(self._climb_rest, self.CLIMB_ROUNDS * self.base_rtt)
        self._epoch_start = None

    # ---- alone with a deep queue

    @property
    def cap(self) -> float:
        """Bytes beyond which a window only makes a queue longer."""
        round_trip = max(self.CAP_GAIN * self.base_rtt, self.base_rtt + self.CAP_SLACK_RTT)
        return self.recent_rate * (round_trip + self.jitter) + self.CAP_SLACK_SIZE

    def _hold_to_cap(self, ack: Acknowledged) -> None:
        if self.window < self.ssthresh or not self.recent_rate or self.window <= self.cap:
            return
        if ack.now - self._drained_at > self.DRAIN_AGAIN:
            self._begin_drain(ack)
        elif self.is_alone:
            self.window = self.cap

    def _begin_drain(self, ack: Acknowledged) -> None:
        """Send less for two round trips: does the queue go away with us?"""
        self._before_drain = self.window, ack.smoothed_rtt
        self._drain_until = math.inf
        self._drain_began = ack.now
        self._drain_rtt = math.inf
        self._climb_round = -1
        self.window = max(0.5 * self.recent_rate * self.base_rtt, self.minimum_window)

    def _on_drain(self, ack: Acknowledged) -> None:
        assert self._drain_until is not None
        if self._drain_until == math.inf:
            if ack.bytes_in_flight <= self.window or ack.now - self._drain_began > self.DRAIN_MAX:
                self._drain_until = ack.now + max(self.DRAIN_HOLD, self.base_rtt)
            return
        if ack.rtt is not None:
            self._drain_rtt = min(self._drain_rtt, ack.rtt)
        if ack.now >= self._drain_until:
            self._end_drain(ack.now)

    def _end_drain(self, now: float) -> None:
        window, smoothed_rtt = self._before_drain
        lowest = min(self._drain_rtt, smoothed_rtt)
        standing = max(0.0, smoothed_rtt - self.base_rtt)
        self.is_alone = lowest <= self.base_rtt + 0.1 * standing + self.queue_threshold
        if now - self._base_at > self.BASE_RTT_AGE:
            self.base_rtt, self._base_at = lowest, now
        self._stop_drain(now)
        self.window = min(window, self.cap) if self.is_alone else window
        self._crowded_rounds = 0

    def _stop_drain(self, now: float) -> None:
        self._drain_until = None
        self._drained_at = now
        self._epoch_start = None

    def _look_for_others(self) -> None:
        """Three rounds with a queue that the cap cannot explain: somebody else is there."""
        own = max(self.CAP_GAIN * self.base_rtt, self.base_rtt + self.CAP_SLACK_RTT) + self.jitter
        if self.recent_rate:
            own += self.CAP_SLACK_SIZE / self.recent_rate
        crowded = self._rounds[-1].min_rtt < math.inf and self._rounds[-1].min_rtt > 1.15 * own + 0.002
        self._crowded_rounds = self._crowded_rounds + 1 if crowded else 0
        if self._crowded_rounds >= 3:
            self.is_alone = False
            self._forget_rates(1)
            self._window_max = self.window
            self.window = max(self.BETA * self.window, self.minimum_window)
            self.ssthresh = self.window
            self._epoch_start = None

    def _forget_rates(self, rounds: int) -> None:
        """The share of before is history; what the last rounds showed counts."""
        self._climb_rest = self.CLIMB_AGAIN
        self._known = [self._rate_of(rounds), 0.0]

    # ---- loss

    def on_lost(self, now: float, packets: int, ranges: int, largest_lost: int, next_packet_number: int) -> None:
        if self._undo_packets > 0:
            self._undo_packets += packets
        if largest_lost < self._reacted_below:
            return  # sent before the last reaction, which was for these, too: RFC 9002 §7.3.2
        this_round = self._rounds[-1]
        this_round.lost += packets
        this_round.loss_ranges += ranges
        is_queue = self.queue_delay > self.queue_threshold or self.base_rtt < self.BLIND_RTT
        if is_queue and self._calm_loss > self.CALM_LOSS and self.window < self.pipe * self.NOISY_SLACK:
            return  # the link loses packets by itself, and there is next to nothing in the queue that would be ours
        if not is_queue and not self._is_heavy():
            return
        self._reacted_below = next_packet_number
        self._undo = _Saved(self.window, self.ssthresh, self._window_max, self._epoch_start, self._known)
        self._undo_packets = packets
        if self._drain_until is not None:
            self.window = self._before_drain[0]
            self._stop_drain(now)
        self._conservative_rounds = 0
        self._rest_from_climbing(now)
        self._react(now, is_queue, next_packet_number)
        self._climb_round = -1
        self._forget_losses()

    def _react(self, now: float, is_queue: bool, next_packet_number: int) -> None:
        if self.window < self.ssthresh:
            if not is_queue:
                self._suspect()
            self._leave_slow_start(now, 0.5 if is_queue else 1 / 3)
            if not is_queue:
                self.window *= self.BELOW_DELIVERY
        elif self._climb_round >= 0:
            self._end_climb(now, next_packet_number)  # that is where the loss came from
            if self._climbs_in_queue and is_queue:
                self._reduce_for_queue()
        elif is_queue:
            self._reduce_for_queue()
        else:
            self._reduce_for_heavy_loss()

    def _reduce_for_queue(self) -> None:
        if self.queue_delay > self.base_rtt / 4:
            self._forget_rates(3)  # a real, shared queue
        shrinking = self.window < self._window_max
        self._window_max = self.window * (self.FAST_CONVERGENCE if shrinking else 1.0)
        # On a link that loses packets by itself, this loss may be one of those: the queue goes, the pipe stays full.
        floor = self.pipe if self._calm_loss > self.CALM_LOSS else 0.0
        self.window = max(self.BETA * self.window, min(floor, self.window), self.minimum_window)
        self.ssthresh = self.window
        self._epoch_start = None

    def _reduce_for_heavy_loss(self) -> None:
        self._suspect()
        rate = self._rate_of(3)
        pipe = self.BELOW_DELIVERY * rate * self.path_rtt
        self._window_max = min(self.window, rate * self.path_rtt) if rate else self.window
        self._forget_rates(3)
        self.window = max(min(self.window, pipe) if pipe else self.BETA * self.window, self.minimum_window)
        self.ssthresh = self.window
        self._epoch_start = None

    def _suspect(self) -> None:
        """Begin to measure whether the loss goes away with the rate."""
        lost, total, _ = self._counts()
        self._suspicion = (lost / total, self.window, self.ssthresh, self._window_max)
        self._noise_rounds, self._noise_counts = 4, [0, 0]

    def _forget_losses(self) -> None:
        """They were answered, or judged."""
        for each in self._rounds:
            each.lost = each.loss_ranges = each.delivered = 0

    def _counts(self) -> Tuple[int, int, int]:
        """(lost, all, ranges of lost packets) of the last rounds."""
        rounds: List[_Round] = list(self._rounds)[-self.HEAVY_ROUNDS :]
        lost = sum(each.lost for each in rounds)
        return lost, lost + sum(each.delivered for each in rounds), sum(each.loss_ranges for each in rounds)

    def _is_heavy(self) -> bool:
        if self._noise_rounds:
            return False  # the last answer is still being weighed
        lost, total, ranges = self._counts()
        limit = max(self.HEAVY_LOSS, 1.5 * self.noise + 0.02)
        if self.window < self.ssthresh and self._rate_of(1) > 1.25 * self._rounds[-min(3, len(self._rounds))].rate:
            limit = max(limit, self.OVERSHOOT_LOSS)  # the delivery grows with the window: the pipe may not be full
        chance = 2 * math.sqrt(limit * total)  # two standard deviations: 6 of 100 are lost at 3 % often enough
        return total >= self.HEAVY_SAMPLE and ranges >= self.HEAVY_RANGES and lost > limit * total + chance

    def _measure_noise(self) -> None:
        """Loss that stays at a rate that certainly fits is the link's own; loss that goes away was congestion."""
        last = self._rounds[-1]
        if last.delivered >= 16 and last.min_rtt - self.base_rtt < self.queue_threshold:
            part = last.lost / (last.lost + last.delivered)
            self._calm_loss += (min(part, self.CALM_LOSS_MAX) - self._calm_loss) / 16
        if self._noise_rounds:
            self._noise_rounds -= 1
            if self._noise_rounds < 2:  # the first two rounds still tell of what was sent before the cut
                self._noise_counts[0] += last.lost
                self._noise_counts[1] += last.lost + last.delivered
            if not self._noise_rounds:
                self._judge_suspicion()
            return
        lost, total, _ = self._counts()
        expected = self.noise * total
        if total >= self.HEAVY_SAMPLE and lost < expected - 2 * math.sqrt(expected):
            self.noise = 0.75 * self.noise + 0.25 * lost / total

    def _judge_suspicion(self) -> None:
        """The rate came down for a heavy loss: if that did not help, the link is to blame, and it goes back up."""
        loss, window, ssthresh, window_max = self._suspicion
        lost, total = self._noise_counts
        if total >= self.NOISE_SAMPLE:
            self.noise = min(lost / total, self.NOISE_MAX)
            if self.noise >= 0.5 * loss:
                if ssthresh < math.inf:
                    self.window, self.ssthresh = max(self.window, window), ssthresh
                else:
                    self.ssthresh = math.inf  # slow start goes on, and knows the noise
                self._window_max = max(self._window_max, window_max)
                self._epoch_start = None
        self._forget_losses()

    def on_spurious(self, packets: int) -> None:
        """Packets declared lost were acknowledged: if that was all, take the reaction back (RFC 9438 §4.9)."""
        self._rounds[-1].lost = max(0, self._rounds[-1].lost - packets)
        self._undo_packets -= packets
        if self._undo is not None and self._undo_packets <= 0:
            self.window = max(self.window, self._undo.window)
            self.ssthresh, self._window_max, self._epoch_start = self._undo[1:4]
            self._known = [max(pair) for pair in zip(self._known, self._undo.known)]
            self._undo = None

    def on_persistent_congestion(self) -> None:
        """RFC 9002 §7.6; and §5.2: the path may be another one now, with another round trip."""
        self.base_rtt = self._latest_rtt
        self._recent_rtt = _RecentRtt()
        self.jitter = 0.0
        self.ssthresh = max(self.window * self.BETA, self.minimum_window)
        self.window = self.minimum_window
        self._epoch_start = None
        self._drain_until = None
        self._climb_round = -1
        self._undo = None

    def on_datagram_size(self, size: int) -> None:
        """The path takes larger or smaller datagrams now; an early window is counted in the new ones."""
        if self.ssthresh == math.inf and size > self.datagram_size:
            self.window = max(self.window, INITIAL_WINDOW_PACKETS * min(size, 8972))
        self.datagram_size = size
