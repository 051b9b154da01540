"""The search for the path MTU, alone: what is probed, and what follows from each answer (RFC 8899)."""

from protocol.transport.mtu import MTU_PROBE_AGAIN, MTU_PROBE_AGAIN_MAX, MTU_PROBE_TRIES, PathMtu

LARGEST = 65_507


def searching(is_loopback=False, size_max=LARGEST):
    mtu = PathMtu(is_loopback)
    mtu.search(size_max, troubles=0)
    return mtu


def lose(mtu, now=1.0, troubles=0):
    """Every try of the present size."""
    for _ in range(MTU_PROBE_TRIES):
        size = mtu.next_probe()
        mtu.on_probe_lost(size, troubles, now)
    return size


def test_sizes_are_probed_one_at_a_time_from_the_smallest():
    mtu = searching()
    assert mtu.next_probe() == 1452
    assert not mtu.next_probe()
    assert mtu.on_probe_arrived(1452) and mtu.size == 1452
    assert mtu.next_probe() == 1472
    assert mtu.on_probe_arrived(1472) and mtu.next_probe() == 8972
    assert mtu.on_probe_arrived(8972) and not mtu.next_probe()


def test_loopback_has_sizes_of_its_own_and_no_socket_is_asked_for_more_than_it_takes():
    assert searching(is_loopback=True).next_probe() == 1472
    assert not searching(size_max=1400).next_probe()


def test_a_new_size_that_alone_is_lost_is_left_for_long():
    mtu = searching()
    assert lose(mtu) == 1452 and mtu.size == 1200
    assert not mtu.next_probe()
    assert mtu.again_at == 1.0 + MTU_PROBE_AGAIN_MAX


def test_lost_in_a_bad_time_it_is_asked_again_soon_and_then_ever_more_seldom():
    mtu = searching()
    for again in (1, 2, 4):
        lose(mtu, troubles=5)
        assert mtu.again_at == 1.0 + again * MTU_PROBE_AGAIN
        mtu.search(LARGEST, troubles=0)
        assert mtu.again_at > 1e9


def test_a_black_hole_leads_to_the_base_size_and_first_back_to_the_old_one():
    mtu = searching()
    mtu.use(8972)
    assert mtu.on_black_hole(LARGEST, troubles=0, now=5.0)
    assert (mtu.size, mtu.next_probe(), mtu.again_at) == (1200, 8972, 5.0 + MTU_PROBE_AGAIN)
    for _ in range(MTU_PROBE_TRIES):
        mtu.on_probe_lost(8972, 0, 6.0)
        assert mtu.next_probe() in (8972, 1452)
    assert mtu.again_at == 6.0 + MTU_PROBE_AGAIN  # it worked before: asked again soon


def test_who_was_late_to_arrive_tells_its_size_too():
    mtu = searching()
    assert mtu.use(1472) and not mtu.use(1472)
    assert mtu.next_probe() == 8972
