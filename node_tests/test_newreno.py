"""NewReno by numbers worked by hand, over a lossy path in virtual time, and chosen by a program."""

import math

import pytest

import rdt
from node_tests.stage.simulator import Pair
from protocol.transport.congestion import Acknowledged
from protocol.transport.newreno import NewReno

MEGABYTE = 1_000_000


def acknowledged(size, largest=10, **changes):
    values = Acknowledged(1.0, size // 1000, size, 0.05, 0.05, 0.0, False, largest, largest + 10, 10**6, True)
    return values._replace(**changes)


def avoiding_congestion(window):
    """A controller past slow start, with that window in bytes."""
    controller = NewReno(1000)
    controller.window = controller.ssthresh = float(window)
    return controller


@pytest.mark.parametrize(("datagram_size", "window"), [(1200, 12_000), (1472, 14_720), (8972, 17_944)])
def test_the_first_window_is_ten_datagrams_and_bounded(datagram_size, window):
    assert NewReno(datagram_size).window == window


def test_slow_start_grows_by_what_was_acknowledged():
    controller = NewReno(1000)
    controller.on_acknowledged(acknowledged(4000))
    assert (controller.window, controller.ssthresh) == (14_000, math.inf)


def test_congestion_avoidance_grows_by_a_datagram_for_a_window_acknowledged():
    controller = avoiding_congestion(50_000)
    for _ in range(50):
        controller.on_acknowledged(acknowledged(1000))
    assert controller.window == pytest.approx(51_000, rel=0.001)


def test_a_loss_halves_the_window_once_in_a_recovery_period():
    controller = avoiding_congestion(80_000)
    controller.on_lost(1.0, 1, 1, largest_lost=50, next_packet_number=100)
    assert (controller.window, controller.ssthresh) == (40_000, 40_000)
    controller.on_lost(1.1, 5, 2, largest_lost=99, next_packet_number=120)  # sent before the period began
    assert controller.window == 40_000
    controller.on_acknowledged(acknowledged(1000, largest=99))
    assert controller.window == 40_000
    controller.on_acknowledged(acknowledged(1000, largest=100))  # the first of those sent in it: it is over
    assert controller.window == 40_025
    controller.on_lost(1.2, 1, 1, largest_lost=100, next_packet_number=140)
    assert controller.window == pytest.approx(20_012.5)


def test_losses_leave_the_minimum_of_two_datagrams():
    controller = avoiding_congestion(3000)
    controller.on_lost(1.0, 1, 1, largest_lost=50, next_packet_number=100)
    assert (controller.window, controller.ssthresh) == (2000, 1500)


def test_a_window_that_is_not_in_use_does_not_grow():
    controller = NewReno(1000)
    controller.on_acknowledged(acknowledged(4000, is_window_limited=False))
    assert controller.window == 10_000


def test_after_persistent_congestion_slow_start_climbs_from_the_minimum_to_the_threshold():
    controller = avoiding_congestion(80_000)
    controller.on_lost(1.0, 40, 1, largest_lost=50, next_packet_number=100)
    controller.on_persistent_congestion()
    assert (controller.window, controller.ssthresh) == (2000, 40_000)
    controller.on_acknowledged(acknowledged(2000, largest=60))
    assert controller.window == 4000


def test_larger_datagrams_raise_an_early_window_and_the_minimum():
    early, later = NewReno(1200), avoiding_congestion(5000)
    early.on_datagram_size(1472)
    later.on_datagram_size(8972)
    assert (early.window, later.window) == (14_720, 17_944)


def test_it_leaves_a_quarter_faster_than_a_window_in_a_round_trip():
    assert avoiding_congestion(50_000).pacing_rate(0.05) == pytest.approx(1_250_000)


def test_a_transfer_over_a_lossy_path_arrives_whole_and_halves_for_losses_that_are_no_congestion():
    """Where a packet in fifty is lost by chance, CubicQ keeps the link busy; NewReno cannot."""
    seconds = {}
    for controller in ("newreno", "cubicq"):
        pair = Pair(seed=3, loss=0.02, controller=controller)
        seconds[controller] = pair.transfer(2 * MEGABYTE, limit=60)
        pair.finish()
    assert seconds["newreno"] > 2 * seconds["cubicq"]


def test_alone_on_a_clean_link_it_uses_more_than_half_of_it():
    pair = Pair(seed=3, controller="newreno")
    # 0.84 s at best; slow start and each halving lose some of it, for the queue holds but 25 packets.
    assert pair.transfer(10 * MEGABYTE, limit=10) < 1.68
    assert isinstance(pair.there.recovery.congestion, NewReno)


def test_a_program_chooses_it_by_name():
    with rdt.open("127.0.0.1", 0, controller="newreno") as here, rdt.open("127.0.0.1", 0) as there:
        near, far = here.connect(there.address), there.accept(timeout=10)
        near.send(b"hello")
        assert far.receive(timeout=10) == b"hello"
        assert isinstance(near.channel.core.recovery.congestion, NewReno)
        assert not isinstance(far.channel.core.recovery.congestion, NewReno)


@pytest.mark.parametrize("wrong", ["reno", "", 7, ["newreno"]])
def test_an_unknown_controller_is_a_wrong_use_that_names_the_known_ones(wrong):
    with pytest.raises(rdt.WrongUse, match="is no congestion controller; there are: cubicq, newreno"):
        rdt.open("127.0.0.1", 0, controller=wrong)
