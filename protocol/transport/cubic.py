"""The congestion controller that is used: how fast to send. Pure arithmetic on bytes, seconds and packet numbers.

`CubicQ` is CUBIC (RFC 9438) that wants evidence before it slows down for a loss. On a bad air what is late is not lost
(`Recovery` waits for a packet as long as others took that were overtaken: RFC 8985 §6.2), and what is lost was not a
queue's. One number says how much of it: the *noise*, the part of the packets that the link loses whatever is sent. It
is measured where the rate certainly fits: from a cut for a queue until the window is nearly back (FITS), and in trials.

    what the round trips show          what must be lost                       the window then
    ---------------------------------  --------------------------------------  ----------------------------------------
    a queue: the lowest recent one     more than the noise, by three           0.7 of it (RFC 9438 §4.6)
    is above the path's own by more    standard deviations; where there is
    than `queue_threshold`             no noise, any packet
    no queue                           heavily: HEAVY_LOSS (slow start: twice  below what came through, for a trial; if
                                       it), and 1.5 times the noise, by two    the loss stays it is noise, and the
                                       deviations                              window is what it was
    nothing: a path under BLIND_RTT    any packet                              0.7 of it
    a queue that is its own            nothing                                 at most the cap

A policer's loss, or that of a very shallow queue, goes away at the lower rate; random loss stays: a slow start whose
delivery still grew with its window then goes on. Where packets overtake each other, the luckiest of a few is late, too:
by as much a queue must be longer to be seen (LUCK), and by more round trips while much is lost and no noise is known.

Alone on a link with a deep queue it does not fill the queue: the window is capped, after a short drain has shown that
the queue was its own. When the queue stays in spite of the cap, others are there, and it is plain CUBIC again; so it is
when a queue overflows where the link itself loses nothing: the cap should have kept it shorter.

It finds the rate of the path in three ways: by slow start, which ends where a queue or losses show that the pipe is
full, with the window that this pipe holds; by CUBIC; and, while there is no queue, by climbs: the window grows from
round to round as long as the delivery grows with it, and goes back to where it was when it no longer does.

CUBIC itself is in `curve.py`, climbs and drains in `climbing.py`, what may be concluded from in `evidence.py`, the
contract in `congestion.py`.
"""

from __future__ import annotations

import math
from typing import NamedTuple, Optional, Tuple

from protocol.transport.climbing import Climb, Drain
from protocol.transport.congestion import Acknowledged
from protocol.transport.curve import CubicCurve, Epoch
from protocol.transport.evidence import HEAVY_SAMPLE, Delivery, LinkNoise, RecentRtt, is_beyond

INITIAL_WINDOW_PACKETS = 10  # RFC 9002 §7.2
INITIAL_WINDOW_MAX = 14_720  # bytes
MINIMUM_WINDOW_PACKETS = 4


class _Saved(NamedTuple):
    """What a reaction to a loss changes, and undoing it restores."""

    window: float
    ssthresh: float
    epoch: Epoch
    known_rates: Tuple[float, float]
    drain_ended_at: float


class CubicQ:
    """CUBIC that asks for evidence of a queue before it slows down for a loss."""

    CONSERVATIVE_ROUNDS = 5  # of slow start at a quarter of its speed, once there is a queue (RFC 9406 §4.2)
    BLIND_RTT = 0.002  # seconds: below, every loss counts
    HEAVY_LOSS = 0.03  # of the packets of the last HEAVY_ROUNDS rounds
    HEAVY_LOSS_OF_START = 2 * HEAVY_LOSS  # slow start sends soon twice what fits, and then loses far more
    HEAVY_RANGES = 6  # one burst is not heavy loss
    NOISE_LEAST = 0.003  # below, the link is taken to lose nothing by itself
    FITS = 0.84  # of the window that made a queue: so much fits, and what is lost of it the link loses by itself
    LUCK = 1 / 4  # of the lateness: the luckiest of some packets is late by so much, without any queue
    BELOW_DELIVERY = 0.85  # of what came through: a policer then has nothing left to drop
    REFILL = 1 / 16
    CAP_GAIN = 1.5  # of the round trip: half of it may stand in the queue
    CAP_SLACK_RTT = 0.005  # seconds, and
    CAP_SLACK_SIZE = 128 << 10  # bytes: keep loopback and LAN fast, where the round trip is mostly the scheduler's
    BASE_RTT_AGE = 10.0  # seconds after which a drain may raise the base
    ACK_SPACING = 0.001  # seconds that a packet waits until the acknowledgement goes that tells of it

    def __init__(self, datagram_size: int) -> None:
        self.datagram_size = datagram_size
        self.window: float = min(INITIAL_WINDOW_PACKETS * datagram_size, INITIAL_WINDOW_MAX)
        self.ssthresh = math.inf
        self.base_rtt = math.inf  # the path's own round trip, as far as it was seen without a queue
        self.jitter = 0.0  # seconds that the path adds to it on the average, without a queue
        self.is_alone = False
        self._base_at = 0.0
        self.curve = CubicCurve()
        self._recent_rtt = RecentRtt()
        self._latest_rtt = math.inf
        self._delivery = Delivery()
        self._link = LinkNoise()
        self._before_trial = (0.0, math.inf, 0.0)  # window, ssthresh and Wmax
        self.climb = Climb()
        self.drain = Drain()
        self._reacted_below = -1  # losses of packets below this number were answered already
        self._undo: Optional[_Saved] = None
        self._undo_packets = 0
        self._conservative_rounds = 0  # left
        self._crowded_rounds = 0
        self._fits_to = 0.0  # bytes: a smaller window than this came down for a loss, and is not back yet
        self._lateness = 0.0  # seconds that an overtaken packet takes at most beyond the path's own round trip

    # ---- what it knows

    @property
    def minimum_window(self) -> int:
        """Bytes. Of jumbo datagrams it has as few: four of them would be more than a slow path's share."""
        return MINIMUM_WINDOW_PACKETS * min(self.datagram_size, 1472)

    @property
    def queue_threshold(self) -> float:
        """Seconds of queueing that count as a queue; the upper bound keeps CoDel's 5 ms visible."""
        return min(max(self.base_rtt / 12, 0.001), 0.005) + self._lateness * self.LUCK

    @property
    def path_rtt(self) -> float:
        """What a packet's round trip takes on the average when there is no queue, until its acknowledgement is here."""
        return self.base_rtt + self.jitter + min(self.base_rtt / 32, self.ACK_SPACING)

    @property
    def noise(self) -> float:
        """The part of the packets that the link loses at any rate."""
        return self._link.noise

    @property
    def _noise_limit(self) -> float:
        """More than this part of the packets is not lost by a link of that noise, which is not known well."""
        return 1.5 * self.noise + 0.02

    @property
    def known_rate(self) -> float:
        """The highest rate of the last 10 to 20 seconds, in bytes per second."""
        return self._delivery.known_rate

    @property
    def pipe(self) -> float:
        """Bytes that the path holds without a queue, with those in them that the link loses."""
        return 0.98 * self.known_rate * self.path_rtt / (1 - self.noise)

    @property
    def recent_rate(self) -> float:
        """The highest rate of the last rounds, in bytes per second."""
        return self._delivery.recent_rate

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
        if self.drain.is_on:
            return max(self.recent_rate, self.window / max(smoothed_rtt, 1e-6))
        return 1.25 * self.window / max(smoothed_rtt, 1e-6)

    # ---- acknowledgements

    def on_acknowledged(self, ack: Acknowledged) -> None:
        """Note what it shows; then drain, climb or grow, and judge the round that ends with it."""
        if ack.largest >= self._reacted_below:  # as losses are counted
            self._delivery.round.note_arrivals(ack.packets)
        self._lateness = max(0.0, ack.overtaken_rtt - self.base_rtt)
        if ack.rtt is not None:
            self._note_rtt(ack.now, ack.rtt)
        if ack.rate and (not ack.is_app_limited or ack.rate > self.known_rate):
            self._delivery.note_rate(ack.now, ack.rate)
        if self.drain.is_on:
            if self.drain.on_acknowledged(ack, self.window, self.base_rtt):
                self._end_drain(ack.now)
        elif ack.is_window_limited and not self._link.trial_rounds:
            self._grow(ack)
        if self._delivery.is_round_over(ack.largest, ack.oldest, ack.now):
            self._end_round(ack)

    def _note_rtt(self, now: float, rtt: float) -> None:
        if rtt <= self.base_rtt:
            self.base_rtt = rtt
            self._base_at = now
        self._latest_rtt = rtt
        samples = RecentRtt.SAMPLES_LATE if self._is_unsure else RecentRtt.SAMPLES
        self._recent_rtt.add(now, rtt, max(self.base_rtt / 2, 0.010), samples)
        self._delivery.round.note_rtt(rtt)

    @property
    def _is_unsure(self) -> bool:
        """Do packets overtake each other, and is more lost than a cut takes away, of a noise that is not known yet?

        Each queue that is only seen by chance would then cost a cut, one behind the other from the first moment on.
        """
        if self.noise or not self._lateness:
            return False
        lost, total, _ = self._delivery.losses()
        return lost > LinkNoise.MOST_OF_BLOCK * total

    def _end_round(self, ack: Acknowledged) -> None:
        """Once a round trip: what the link gave meanwhile, whether others are there, and how to go on."""
        delivery = self._delivery
        delivery.begin_round_end(ack.next_packet_number, ack.now + ack.overtaken_rtt)
        if self._link.on_round(delivery, self._fits):
            self._judge_suspicion()
        self._conservative_rounds = max(0, self._conservative_rounds - 1)
        if not self.drain.is_on:
            if self.is_alone:
                self._look_for_others()
            self._climb_on(ack)
            self._measure_jitter()
        delivery.next_round()

    def _measure_jitter(self) -> None:
        last = self._delivery.round
        # Not in slow start, whose queue grows; but who is alone may be held below ssthresh by the cap that this lifts.
        if last.samples >= RecentRtt.SAMPLES and (self.window >= self.ssthresh or self.is_alone):
            self.jitter += (min(last.spread, max(self.base_rtt, self._lateness)) - self.jitter) / 8

    def _grow(self, ack: Acknowledged) -> None:
        """The window after an acknowledgement: slow start, refill after a mistake, climb, or CUBIC."""
        if self.window < self.ssthresh:
            self.window += ack.size
            # HyStart++ (RFC 9406 §4.2): a queue that stays for a while means that the pipe is full.
            limit = 0.004 if self.base_rtt < 0.016 else min(self.base_rtt / 12, 0.016)
            limit += self._lateness * self.LUCK
            if self._delivery.round.samples >= 8 and self.queue_delay > limit:
                self._leave_slow_start(ack.now, 1.0)
                self._conservative_rounds = self.CONSERVATIVE_ROUNDS
        else:
            if self.window < self.pipe and self.queue_delay < self.queue_threshold:
                self.window += ack.size * self.REFILL  # a cut that was a mistake is made good soon
            if self._conservative_rounds:
                self.window += ack.size / 4
            elif self.climb.is_on:
                self.window += ack.size * self.climb.step
            self.window = self.curve.grown(self.window, min(self.datagram_size, 1472), ack)
        self._hold_to_cap(ack)

    def _leave_slow_start(self, now: float, least: float) -> None:
        """On with the window that fills the pipe, but with that part of the present one; a climb may follow."""
        pipe = self._delivery.rate_of(2) * self.path_rtt
        self.curve.aim(self.window)
        self._reduce_to(max(min(pipe, self.window), least * self.window))
        self.climb.put_off(now + self.base_rtt)

    # ---- climbs

    def _climb_on(self, ack: Acknowledged) -> None:
        """At the end of a round: is there more to be had, at a path that shows no queue?"""
        last, climb, link = self._delivery.round, self.climb, self._link
        if self.window < self.ssthresh or link.trial_rounds:
            return
        is_calm = last.min_rtt - self.base_rtt < self.queue_threshold and last.samples >= 4
        has_loss = is_beyond(last.lost, last.lost + last.delivered, self._noise_limit, 2)
        if not climb.is_on:
            may_climb = is_calm or (not self.is_alone and self.base_rtt >= self.BLIND_RTT)
            if may_climb and last.rate and not has_loss and ack.is_window_limited and ack.now >= climb.after:
                climb.begin(self.window, self._delivery.rate_of(2), not is_calm)
            return
        if not last.rate:
            return  # the application's round, not the path's
        rate = self._delivery.rate_of(2)
        if not climb.goes_on(rate, is_calm, has_loss):
            self._end_climb(ack.now, ack.next_packet_number)
        elif climb.is_step_over:
            climb.hold(self.window if climb.is_in_queue else min(self.window, rate * self.path_rtt), rate)
            self.curve.restart()

    def _end_climb(self, now: float, next_packet_number: int) -> None:
        """It found nothing, or the end: back to the window that the path is known to hold."""
        self.window = self.climb.end(self.window)
        self.climb.rest(now, self.base_rtt)
        if not self.climb.is_in_queue:  # else CUBIC's time goes on, as that of the others does
            self.curve.restart()
            self._reacted_below = next_packet_number  # what it had too much in flight may still be lost

    # ---- alone with a deep queue

    @property
    def cap(self) -> float:
        """Bytes beyond which a window only makes a queue longer."""
        round_trip = max(self.CAP_GAIN * self.base_rtt, self.base_rtt + self.CAP_SLACK_RTT)
        return self.recent_rate * (round_trip + self.jitter) + self.CAP_SLACK_SIZE

    def _hold_to_cap(self, ack: Acknowledged) -> None:
        if self.window < self.ssthresh or not self.recent_rate or self.window <= self.cap:
            return
        if self.drain.is_due(ack.now):
            self._begin_drain(ack)
        elif self.is_alone:
            self.window = self.cap

    def _begin_drain(self, ack: Acknowledged) -> None:
        """Send less for two round trips: does the queue go away with us?"""
        self.drain.begin(self.window, ack.smoothed_rtt, ack.now)
        self.climb.stop()
        self.window = max(0.5 * self.recent_rate * self.base_rtt, self.minimum_window)

    def _end_drain(self, now: float) -> None:
        drain = self.drain
        self.is_alone = drain.is_queue_gone(self.base_rtt, self.queue_threshold)
        if now - self._base_at > self.BASE_RTT_AGE:
            self.base_rtt, self._base_at = drain.lowest_rtt, now
        self._stop_drain(now)
        self.window = min(drain.window_before, self.cap) if self.is_alone else drain.window_before
        self._crowded_rounds = 0

    def _stop_drain(self, now: float) -> None:
        self.drain.end(now)
        self.curve.restart()

    def _look_for_others(self) -> None:
        """Three rounds with a queue that the cap cannot explain: somebody else is there."""
        own = max(self.CAP_GAIN * self.base_rtt, self.base_rtt + self.CAP_SLACK_RTT) + self.jitter
        if self.recent_rate:
            own += self.CAP_SLACK_SIZE / self.recent_rate
        lowest = self._delivery.round.min_rtt
        crowded = lowest < math.inf and lowest > 1.15 * own + 0.002
        self._crowded_rounds = self._crowded_rounds + 1 if crowded else 0
        if self._crowded_rounds >= 3:
            self.is_alone = False
            self._forget_rates(1)
            self.curve.aim(self.window)
            self._reduce_to(self.curve.BETA * self.window)

    def _forget_rates(self, rounds: int) -> None:
        """The share of before is history; what the last rounds showed counts."""
        self.climb.forget_failures()
        self._delivery.forget_rates(rounds)

    # ---- loss

    def on_lost(self, now: float, packets: int, ranges: int, largest_lost: int, next_packet_number: int) -> None:
        """Slow down once for all that was sent before (RFC 9002 §7.3.2), and only for more than the link's own loss."""
        if self._undo_packets > 0:
            self._undo_packets += packets
        if largest_lost < self._reacted_below:
            return  # sent before the last reaction, which was for these, too: RFC 9002 §7.3.2
        self._delivery.round.note_loss(packets, ranges)
        is_queue = self.queue_delay > self.queue_threshold or self.base_rtt < self.BLIND_RTT
        if not (self._is_beyond_noise() if is_queue else self._is_heavy()):
            return
        self._reacted_below = next_packet_number
        if self._fits and not self._link.trial_rounds:
            self._link.count(self._delivery.round)
        known_rates, drain_ended_at = self._delivery.known_rates, self.drain.ended_at
        self._undo = _Saved(self.window, self.ssthresh, self.curve.epoch, known_rates, drain_ended_at)
        self._undo_packets = packets
        if self.drain.is_on:
            self.window = self.drain.window_before
            self._stop_drain(now)
        self._conservative_rounds = 0
        self.climb.rest(now, self.base_rtt)
        self.curve.restart()  # a smaller window, or none: CUBIC's time begins anew in any case
        before, did_fit, was_starting = self.window, self._fits, self.window < self.ssthresh
        self._react(now, is_queue, next_packet_number)
        if not is_queue:
            self._fits_to = 0.0  # the trial tells
        elif not did_fit:
            self._fits_to = min(self.FITS * before, self.window / self.FITS)
            if was_starting:  # it may be twice too large still: what came through tells what fits
                self._fits_to = min(self._fits_to, self._delivery.rate_of(2) * self.path_rtt)
        self.climb.stop()
        self._delivery.forget_losses()

    def _react(self, now: float, is_queue: bool, next_packet_number: int) -> None:
        """Something was lost: who drove it into that, slow start, a climb or others, decides what is given up."""
        if self.window < self.ssthresh:
            delivery = self._delivery
            is_growing = delivery.rate_of(2) > 1.25 * delivery.rate_before(3)
            self._leave_slow_start(now, 0.5 if is_queue else 1 / 3)
            if not is_queue:
                self._suspect(math.inf if is_growing else self.ssthresh)  # inf: then slow start goes on
                self.window *= self.BELOW_DELIVERY
        elif self.climb.is_on:
            self._end_climb(now, next_packet_number)  # that is where the loss came from
            if self.climb.is_in_queue and is_queue:
                self._reduce_for_queue(now)
        elif is_queue:
            self._reduce_for_queue(now)
        else:
            self._reduce_for_heavy_loss()

    def _reduce_for_queue(self, now: float) -> None:
        if self.noise <= self.NOISE_LEAST:  # others fill it, or the cap is no shorter: a drain would ask in vain
            self.is_alone = False
            self.drain.end(now)
        if self.queue_delay > self.base_rtt / 4:
            self._forget_rates(3)  # a real, shared queue
        self._reduce_to(self.curve.reduced(self.window))

    def _reduce_to(self, window: float) -> None:
        self.window = self.ssthresh = max(window, self.minimum_window)
        self.curve.restart()

    def _reduce_for_heavy_loss(self) -> None:
        # By the part that came through: a rate and a round trip of few packets may both be far too low, and a trial
        # with the least window lasts for seconds.
        lost, total, _ = self._delivery.losses()
        self._suspect(self.ssthresh)
        through = self.window * (total - lost) / total
        self.curve.aim(through)
        self._forget_rates(3)
        self._reduce_to(self.BELOW_DELIVERY * through)

    @property
    def _fits(self) -> bool:
        """Did the window come down for a queue, and is not back yet? What is lost then is no queue's."""
        return self.window <= self._fits_to

    def _is_beyond_noise(self) -> bool:
        """There is a queue: is more lost than the link loses by itself, by three standard deviations?"""
        lost, total, _ = self._delivery.losses()
        if self.noise <= self.NOISE_LEAST or self.base_rtt < self.BLIND_RTT:
            return lost > 0
        return is_beyond(lost, total, self.noise, 3)

    def _suspect(self, ssthresh: float) -> None:
        """Begin to measure whether the loss goes away with the rate. If not: on with this window and that ssthresh."""
        self._link.begin_trial(self._delivery)
        self._before_trial = (self.window, ssthresh, self.curve.window_max)

    def _is_heavy(self) -> bool:
        if self._link.trial_rounds:
            return False  # the last answer is still being weighed
        delivery = self._delivery
        lost, total, ranges = delivery.losses()
        least = self.HEAVY_LOSS if self.window >= self.ssthresh else self.HEAVY_LOSS_OF_START
        limit = max(least, self._noise_limit)
        # By two standard deviations: 6 of 100 are lost at 3 % often enough.
        return total >= HEAVY_SAMPLE and ranges >= self.HEAVY_RANGES and is_beyond(lost, total, limit, 2)

    def _judge_suspicion(self) -> None:
        """The rate came down for a heavy loss: if that did not help, the link is to blame, and it goes back up."""
        if self._link.is_link_to_blame():
            window, ssthresh, window_max = self._before_trial
            self.window, self.ssthresh = max(self.window, window), ssthresh
            self.curve.aim(max(self.curve.window_max, window_max))
            self.curve.restart()
            self.climb.put_off(0.0)
        self._delivery.forget_losses()

    def on_spurious(self, packets: int) -> None:
        """Packets declared lost were acknowledged: if that was all, take the reaction back (RFC 9438 §4.9)."""
        self._delivery.round.take_back_loss(packets)
        self._undo_packets -= packets
        if self._undo is not None and self._undo_packets <= 0:
            self.window = max(self.window, self._undo.window)
            self.ssthresh = self._undo.ssthresh
            self.curve.recall(self._undo.epoch)
            self._delivery.recall_rates(self._undo.known_rates)
            self.drain.recall(self._undo.drain_ended_at)
            self._undo = None

    def on_persistent_congestion(self) -> None:
        """RFC 9002 §7.6; and §5.2: the path may be another one now, with another round trip."""
        self.base_rtt = self._latest_rtt
        self._recent_rtt = RecentRtt()
        self.jitter = 0.0
        self.ssthresh = max(self.window * self.curve.BETA, self.minimum_window)
        self.window = self.minimum_window
        self.curve.restart()
        self.drain.stop()
        self.climb.stop()
        self._undo = None

    def on_datagram_size(self, size: int) -> None:
        """The path takes larger or smaller datagrams now; an early window is counted in the new ones."""
        if self.ssthresh == math.inf and size > self.datagram_size:
            self.window = max(self.window, INITIAL_WINDOW_PACKETS * min(size, 8972))
        self.datagram_size = size
