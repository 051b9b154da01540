"""Climbs and drains of the congestion controller, alone, and the evidence that it has."""

import math

import pytest

from protocol.transport.climbing import Climb, Drain
from protocol.transport.congestion import Acknowledged
from protocol.transport.evidence import Delivery, LinkNoise, RecentRtt

BASE = 0.05  # seconds


def acknowledged(now, rtt, in_flight):
    return Acknowledged(now, 1, 1000, rtt, rtt, 1e6, False, 10, 20, in_flight, True)


# ---- climbs -------------------------------------------------------------------------------------------------------


def climbing(window=100_000.0, rate=1e6, is_in_queue=False):
    climb = Climb()
    climb.begin(window, rate, is_in_queue)
    return climb


def test_a_climb_grows_faster_from_round_to_round_but_not_where_others_are_in_the_queue():
    for is_in_queue, steps in ((False, [1 / 16, 1 / 16, 1 / 8, 1 / 8, 1 / 4, 1 / 4]), (True, [1 / 16] * 6)):
        climb, found = climbing(is_in_queue=is_in_queue), []
        for number in range(6):
            found.append(climb.step)
            assert climb.goes_on(1e6 * 2**number, True, False)
        assert found == steps


def test_a_climb_that_brings_nothing_in_three_rounds_goes_back():
    climb = climbing()
    assert climb.goes_on(1e6, True, False) and climb.goes_on(1e6, True, False)
    assert not climb.goes_on(1.05e6, True, False)
    assert climb.end(150_000.0) == 100_000.0 and not climb.is_on


@pytest.mark.parametrize(("is_calm", "has_loss"), [(False, False), (True, True)])
def test_a_queue_or_a_loss_ends_it_at_once(is_calm, has_loss):
    assert not climbing().goes_on(2e6, is_calm, has_loss)


def test_it_goes_back_to_the_last_window_that_brought_more():
    climb = climbing()
    for _ in range(3):
        climb.goes_on(2e6, True, False)
    assert climb.is_step_over
    climb.hold(130_000.0, 2e6)
    assert climb.end(150_000.0) == 130_000.0


def test_who_found_nothing_asks_ever_more_seldom_until_the_path_is_another_one():
    climb, waits = climbing(), []
    for _ in range(6):
        climb.end(1.0)
        climb.rest(0.0, BASE)
        waits.append(climb.after)
    assert waits == [1.0, 2.0, 4.0, 8.0, 8.0, 8.0]
    climb.forget_failures()
    climb.rest(0.0, BASE)
    assert climb.after == 1.0


# ---- drains -------------------------------------------------------------------------------------------------------


def test_a_drain_looks_at_the_round_trip_once_the_old_window_has_emptied():
    drain = Drain()
    drain.begin(100_000.0, 0.3, 1.0)
    assert not drain.on_acknowledged(acknowledged(1.1, 0.01, 90_000), 20_000.0, BASE)  # still full of the old ones
    assert not drain.on_acknowledged(acknowledged(1.2, 0.01, 20_000), 20_000.0, BASE)
    assert not drain.on_acknowledged(acknowledged(1.25, 0.06, 20_000), 20_000.0, BASE)
    assert drain.on_acknowledged(acknowledged(1.31, 0.07, 20_000), 20_000.0, BASE)
    assert (drain.lowest_rtt, drain.window_before) == (0.06, 100_000.0)
    assert drain.is_queue_gone(BASE, 0.004) and not drain.is_queue_gone(0.01, 0.004)
    drain.end(1.31)
    assert not drain.is_on and not drain.is_due(21.0) and drain.is_due(21.5)


def test_a_window_that_does_not_empty_is_not_waited_for_for_ever():
    drain = Drain()
    drain.begin(100_000.0, 0.3, 1.0)
    assert not drain.on_acknowledged(acknowledged(3.1, 0.3, 90_000), 20_000.0, BASE)
    assert drain.on_acknowledged(acknowledged(3.3, None, 90_000), 20_000.0, BASE)
    assert drain.lowest_rtt == 0.3


@pytest.mark.parametrize(("rtts", "is_gone"), [((0.08, 0.08, 0.08), False), ((0.08, 0.10, 0.12), True)])
def test_a_drain_does_not_take_jitter_for_the_queue_of_others(rtts, is_gone):
    """The lowest of a few round trips lies above the path's own where they differ so much; a queue has them alike."""
    drain = Drain()
    drain.begin(100_000.0, 0.15, 1.0)
    assert not drain.on_acknowledged(acknowledged(1.2, 0.15, 20_000), 20_000.0, BASE)
    for number, rtt in enumerate(rtts):
        drain.on_acknowledged(acknowledged(1.21 + number / 100, rtt, 20_000), 20_000.0, BASE)
    assert drain.is_queue_gone(BASE, 0.004) is is_gone


# ---- evidence -----------------------------------------------------------------------------------------------------


def rounds_of(noise, delivery, count, lost, delivered=100, fits=True):
    """So many rounds with as many packets lost; was the last the end of a trial?"""
    for _ in range(count):
        delivery.round.note_arrivals(delivered)
        delivery.round.note_loss(lost, lost)
        is_over = noise.on_round(delivery, fits)
        delivery.next_round()
    return is_over


def test_loss_that_stays_at_a_lower_rate_is_the_links_and_loss_that_goes_away_is_not():
    for lost, is_to_blame in ((10, True), (0, False)):
        noise, delivery = LinkNoise(), Delivery()
        rounds_of(noise, delivery, 1, 10, fits=False)
        noise.begin_trial(delivery)
        delivery.forget_losses()
        assert not rounds_of(noise, delivery, 2, 50)  # what was sent before the cut
        assert not rounds_of(noise, delivery, 1, lost)
        assert rounds_of(noise, delivery, 1, lost)
        assert noise.is_link_to_blame() == is_to_blame
        assert noise.noise == lost / (100 + lost)


def test_a_trial_goes_on_until_there_are_packets_to_judge_by():
    noise, delivery = LinkNoise(), Delivery()
    rounds_of(noise, delivery, 1, 10, delivered=90)
    noise.begin_trial(delivery)
    assert not rounds_of(noise, delivery, 2 + 19, 0, delivered=5)
    assert rounds_of(noise, delivery, 1, 0, delivered=5)
    assert not noise.is_link_to_blame() and noise.noise == 0


@pytest.mark.parametrize(("lost", "is_to_blame"), [(4, True), (2, False)])
def test_what_may_be_chance_does_not_say_that_the_loss_went_away(lost, is_to_blame):
    """A trial begins where more was lost than usual: a hundred packets at the usual rate of loss lose fewer."""
    noise, delivery = LinkNoise(), Delivery()
    rounds_of(noise, delivery, 1, 10, delivered=90)
    noise.begin_trial(delivery)
    rounds_of(noise, delivery, 2, 0)
    rounds_of(noise, delivery, 2, lost // 2, delivered=50 - lost // 2)
    assert noise.is_link_to_blame() == is_to_blame


def test_loss_at_a_rate_that_fits_is_learnt_in_blocks_and_within_bounds():
    noise, delivery = LinkNoise(), Delivery()
    rounds_of(noise, delivery, 10, 50, fits=False)
    assert noise.noise == 0
    rounds_of(noise, delivery, 3, 1, delivered=30)
    assert noise.noise == 0  # of 93 packets nothing is believed
    rounds_of(noise, delivery, 1, 1, delivered=30)
    assert noise.noise == pytest.approx(4 / 124 / 4)
    rounds_of(noise, delivery, 100, 300)
    assert noise.noise == pytest.approx(LinkNoise.MOST_OF_BLOCK, rel=0.01)


def test_what_many_blocks_lose_by_chance_leaves_a_noise_where_it_is():
    noise, delivery = LinkNoise(), Delivery()
    noise.noise = 0.3
    for _ in range(50):
        rounds_of(noise, delivery, 1, 25, delivered=75)
        rounds_of(noise, delivery, 1, 35, delivered=65)
    assert noise.noise == pytest.approx(0.3, abs=0.02)
    rounds_of(noise, delivery, 1, 60, delivered=40)
    assert noise.noise == pytest.approx(0.3, abs=0.02)


def test_a_rate_that_may_not_fit_can_only_show_that_the_link_loses_less():
    noise, delivery = LinkNoise(), Delivery()
    rounds_of(noise, delivery, 100, 10, delivered=90)
    rounds_of(noise, delivery, 20, 50, fits=False)
    rounds_of(noise, delivery, 20, 7, delivered=93, fits=False)  # as lucky rounds are
    assert noise.noise == pytest.approx(0.1)
    rounds_of(noise, delivery, 20, 0, fits=False)
    assert noise.noise < 0.05


def test_a_round_waits_for_those_that_others_overtake():
    delivery = Delivery()
    delivery.begin_round_end(100, 2.0)
    assert not delivery.is_round_over(99, 98, 2.5) and not delivery.is_round_over(100, 98, 1.9)
    assert delivery.is_round_over(100, 98, 2.0) and delivery.is_round_over(101, 100, 1.9)


def test_the_known_rate_lasts_from_ten_to_twenty_seconds_and_the_recent_one_a_few_rounds():
    delivery = Delivery()
    delivery.note_rate(1.0, 5e6)
    assert delivery.known_rate == delivery.recent_rate == 5e6
    for second in range(2, 40):
        delivery.next_round()
        delivery.note_rate(float(second), 1e6)
        if second == 12:
            assert delivery.known_rate == 5e6 and delivery.recent_rate == 1e6
    assert delivery.known_rate == 1e6


def test_rounds_that_showed_no_rate_push_none_out():
    delivery = Delivery()
    delivery.note_rate(1.0, 5e6)
    for _ in range(100):
        delivery.next_round()
    assert delivery.recent_rate == 5e6


def test_a_span_with_too_few_samples_goes_on():
    recent = RecentRtt()
    recent.add(0.0, 0.05, 1.0)
    for index in range(RecentRtt.SAMPLES):
        recent.add(100.0 + index, 0.08, 1000.0)
    assert recent.lowest == 0.05
    for span in range(2):
        for index in range(RecentRtt.SAMPLES + 1):
            recent.add(5000.0 * (span + 1) + index, 0.09, 1000.0)
    assert recent.lowest < math.inf and recent.lowest >= 0.08
