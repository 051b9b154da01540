"""Limits of what is sent and fetched in a second: they hold, for all together, and chat passes."""

from __future__ import annotations

import pytest

from node_tests.stage.lab import MIB, content
from prompt.commands import parse_command
from prompt.console import Console
from protocol.rates import LIMIT_BURST_SECONDS, LIMIT_SPAN_MIN, Limit
from protocol.results import ChatReceived, DownloadDone, Stopped

RATE = 2e6  # bytes per second


def seconds_of(size, rate=RATE):
    """The least that this takes, if a burst is at hand at first and one piece may pass beforehand."""
    return (size - MIB) / rate - LIMIT_BURST_SECONDS


# ---- the limit itself


def test_no_limit_is_always_open():
    limit = Limit()
    limit.count(1 << 40)
    assert limit.is_open(0.0) and limit.span(MIB) == MIB


def test_what_passed_beyond_the_limit_is_made_up_for_before_more_passes():
    limit = Limit()
    limit.set_rate(1000.0, 5.0)
    assert limit.is_open(5.0)
    limit.count(3000)
    assert not limit.is_open(5.0) and limit.open_at() == 8.0
    assert not limit.is_open(7.9) and limit.is_open(limit.open_at())


def test_a_rest_saves_up_no_more_than_a_moment():
    limit = Limit()
    limit.set_rate(1000.0, 0.0)
    assert limit.is_open(3600.0)
    limit.count(1000)
    assert limit.open_at() == pytest.approx(3600 + 1 - LIMIT_BURST_SECONDS)


def test_what_does_not_come_after_all_is_given_back():
    limit = Limit()
    limit.set_rate(1000.0, 0.0)
    limit.count(3000)
    limit.count(-3000)
    assert limit.is_open(0.0)


def test_at_any_instant_that_it_names_it_is_open():
    """Else the one who waits for that instant would ask again and again in it."""
    limit, now = Limit(), 1e9
    limit.set_rate(1e6 / 3, now)
    for size in range(100_000, 200_000, 777):
        limit.count(size)
        now = max(now, limit.open_at())
        assert limit.is_open(now)


def test_a_low_limit_is_passed_in_small_spans():
    limit = Limit()
    limit.set_rate(100e3, 0.0)
    assert limit.span(MIB) == LIMIT_SPAN_MIN
    limit.set_rate(1e6, 0.0)
    assert limit.span(MIB) == 250_000
    limit.set_rate(1e9, 0.0)
    assert limit.span(MIB) == MIB


# ---- in a network


def ended(node):
    return node.told((DownloadDone, Stopped))


def test_what_a_node_sends_keeps_to_its_limit_whoever_asks(lab):
    data = content(6 * MIB)
    ana = lab.node("ana", shared={"lab.iso": data})
    takers = [lab.node(name) for name in ("bo", "cy")]
    ana.do("set_limits", RATE, None, lab.world.now)
    began = lab.world.now
    for node in takers:
        assert node.fetch("lab.iso").kind == "started"
    lab.world.run_until(lambda: all(map(ended, takers)), began + 60)
    assert all(isinstance(ended(node)[0], DownloadDone) for node in takers)
    assert seconds_of(len(data)) <= lab.world.now - began <= 2 * len(data) / RATE + 3
    assert all(node.read("lab.iso") == data for node in takers)


def test_what_a_node_fetches_keeps_to_its_limit_of_all_sources_together(lab):
    data = content(12 * MIB)
    for name in ("ana", "bo", "cy"):
        lab.node(name, shared={"lab.iso": data})
    di = lab.node("di")
    di.do("set_limits", None, RATE, lab.world.now)
    done = di.fetched("lab.iso")
    assert isinstance(done, DownloadDone), done
    assert seconds_of(len(data)) <= done.seconds <= len(data) / RATE + 3


def test_two_downloads_share_a_limit(lab):
    first, second = content(8 * MIB), content(8 * MIB, seed=8)
    lab.node("ana", shared={"first.iso": first, "second.iso": second})
    bo = lab.node("bo")
    bo.do("set_limits", None, RATE, lab.world.now)
    bo.fetch("first.iso")
    bo.fetch("second.iso")
    lab.run(4)
    shares = sorted(row.verified for row in bo.peer.transfers(lab.world.now))
    assert shares[0] >= shares[1] / 2 > 0
    lab.world.run_until(lambda: len(ended(bo)) == 2, lab.world.now + 60)
    assert (bo.read("first.iso"), bo.read("second.iso")) == (first, second)


def test_chat_does_not_wait_for_a_limit(lab):
    ana = lab.node("ana", shared={"lab.iso": content(4 * MIB)})
    bo = lab.node("bo")
    ana.do("set_limits", 100e3, 100e3, lab.world.now)
    bo.fetch("lab.iso")
    lab.run(2)
    assert not ended(bo)
    ana.do("say", "hello", lab.world.now)
    lab.run(0.2)
    assert [event.text for event in bo.told(ChatReceived)] == ["hello"]


def test_a_limit_may_be_changed_and_taken_away_on_the_way(lab):
    data = content(20 * MIB)
    ana = lab.node("ana", shared={"lab.iso": data})
    bo = lab.node("bo")
    ana.do("set_limits", 100e3, None, lab.world.now)
    bo.do("set_limits", None, 200e3, lab.world.now)
    bo.fetch("lab.iso")
    lab.run(30)
    assert bo.row().state == "receiving" and bo.row().verified < 30 * 100e3 + 2 * MIB
    ana.do("set_limits", None, None, lab.world.now)
    bo.do("set_limits", None, None, lab.world.now)
    assert (ana.peer.limits(), bo.peer.limits()) == ((None, None), (None, None))
    lab.run(3)
    assert isinstance(ended(bo)[0], DownloadDone) and bo.read("lab.iso") == data


def test_a_folder_of_small_files_keeps_to_the_limit(lab):
    files = {f"talks/{number}.txt": content(20_000, seed=number) for number in range(200)}
    lab.node("ana", shared=files)
    bo = lab.node("bo")
    bo.do("set_limits", None, 1e6, lab.world.now)
    done = bo.fetched("talks")
    assert isinstance(done, DownloadDone) and done.seconds >= seconds_of(4e6, 1e6)


# ---- at the prompt


class Prompt:
    """As much of the program as the command L needs, over a node in the simulator."""

    def __init__(self, node):
        self.clock = lambda: node.world.now
        self.terminal, self.signals, self.said, self.has_failed = None, [], [], False
        self.node = self
        self.peer, self.call = node.peer, lambda closure: closure(node.world.now)
        self.later, self.say = lambda closure: closure(), self.said.append

    def fail(self):
        self.has_failed = True


@pytest.mark.parametrize("line, limits, told", [
    ("L", (1e6, None), "* files are sent at 1.0 MB/s at most, fetched without limit"),
    ("L down 20M", (1e6, 20e6), "* files are sent at 1.0 MB/s at most, fetched at 20.0 MB/s at most"),
    ("limit UP 500k", (5e5, None), "* files are sent at 500.0 kB/s at most, fetched without limit"),
    ("L up off down 2G", (None, 2e9), "* files are sent without limit, fetched at 2.0 GB/s at most"),
    ("l off", (None, None), "* files are sent without limit, fetched without limit"),
    ("L 5M", (1e6, None), "L is told up or down and how fast: L up 5M; L off takes both limits away, L alone tells."),
    ("L up 5", (1e6, None), "A limit is a number with k, M or G, such as 5M (5 MB/s), or off."),
])  # fmt: skip
def test_limits_are_set_and_told_at_the_prompt(lab, line, limits, told):
    node = lab.node("ana")
    node.do("set_limits", 1e6, None, lab.world.now)
    prompt = Prompt(node)
    command, argument = parse_command(line)
    command.run(Console(prompt), argument)
    assert (node.peer.limits(), prompt.said) == (limits, [told])
    assert prompt.has_failed == (not told.startswith("*"))
