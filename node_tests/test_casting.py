"""One send for many: the datagrams of a cast, its rate, and whole nodes in the simulator that take one."""

import contextlib
import ipaddress
import itertools
import math
import os
import random
import socket
import sys
import time
from types import SimpleNamespace

import pytest
import test_fuzz
from hypothesis import given, settings
from hypothesis import strategies as st

from node_tests.stage.amounts import amount
from node_tests.stage.lab import MIB, Lab, content
from node_tests.stage.simulator import Conditions
from prompt.lines import progress_line
from protocol.addresses import is_of_link
from protocol.casts import (
    BRINGS_NOTHING,
    SLICE_SIZE,
    CastHeard,
    CastOver,
    CastPiece,
    CastPlan,
    CastReport,
    CastRoom,
    group_of,
    slice_size_of,
    slices_of,
)
from protocol.exchange import cast_trials, casting, catching
from protocol.exchange.cast import AFTER_MIN, Cast
from protocol.exchange.cast_rate import RATE_FIRST, RATE_MIN, CastRate, Losses
from protocol.exchange.cast_takers import LOOKS, Taker
from protocol.exchange.casting import CAST_SIZE_MIN, ROUND, Casting
from protocol.exchange.catching import BEGIN_PATIENCE, BESIDE_FIRST, OFFER_PATIENCE, Catching
from protocol.exchange.sources import MESH_PATIENCE, SourceLinks
from protocol.exchange.wants import WANTS_MAX, Wants
from protocol.fields import WireError
from protocol.messages import CastEnd, CastOffer, CastReady, CastSixWanted, CastTaken, CastWanted, Hole
from protocol.network import DoorListener
from protocol.results import DownloadDone, Stopped
from protocol.transport.casting import (
    CATCH_UP,
    NEWS_TIME,
    PROBE,
    SLICE,
    WHOLE_MAX,
    WHOLE_TIME,
    CastDatagram,
    CastReceiver,
    CastSender,
    decode_cast_header,
    encode_cast_header,
)
from sockets import groups, multicast
from sockets.casts import REST_MAX, Casts
from sockets.interfaces import address_towards, interfaces
from sockets.multicast import HAS_SIX, casting_socket, own_towards
from sockets.thread import Inbox
from sockets.watch import Watch

ENDS = (DownloadDone, Stopped)
SIZE, RATE = amount(5 * MIB, 7 * MIB // 2), amount(4e6, 2.8e6)  # of the file and the links of a class
SMALL = amount(SIZE, SIZE // 2)  # of a file that comes by links for the most part


@pytest.fixture
def make_class(tmp_path, monkeypatch):
    """A node that has a file, and so many that have not."""
    labs = []

    def make(count, size=SIZE, seed=1, rate=RATE, is_six=False, **conditions):
        lab = Lab(tmp_path, seed, Conditions(rate=rate, mtu=1500, **conditions), packets=True)
        labs.append(lab)
        lab.world.multicast = True
        lab.data = content(size)
        for module in (casting, catching):
            monkeypatch.setattr(module, "CAST_SIZE_MIN", min(CAST_SIZE_MIN, size))
        six = [f"fd00::{number + 1}" if is_six else None for number in range(count + 1)]
        ana = lab.node("ana", shared={"lab.iso": lab.data}, ip=six[0])
        return lab, ana, [lab.node(f"n{number}", ip=ip) for number, ip in enumerate(six[1:])]

    yield make
    for lab in labs:
        lab.close()


def ask_all(lab, takers):
    """All ask at once."""
    for taker in takers:
        taker.do("fetch_name", "lab.iso", lab.world.now, taker.answers.append)


def on_way(takers):
    """Who takes a cast now."""
    return [taker for taker in takers if any(one.catching.takers for one in taker.peer.fetching.fetches.values())]


def wait_for_all(lab, takers, within=60.0):
    done = lab.world.run_until(lambda: all(taker.told(ENDS) for taker in takers), lab.world.now + within)
    assert done, [taker.events[-1:] for taker in takers]
    for taker in takers:
        assert isinstance(taker.told(ENDS)[0], DownloadDone), taker.told(ENDS)
        assert taker.read("lab.iso") == lab.data


def begin(lab, takers, at_least=3):
    """All ask, and so many take a cast."""
    ask_all(lab, takers)
    assert lab.world.run_until(lambda: len(on_way(takers)) >= at_least, lab.world.now + 5)


def has_ended(lab, nodes):
    lab.run(1.0)
    return not any(node.network.casts.sending or node.network.casts.receiving for node in nodes)


def test_a_class_takes_one_cast(make_class):
    lab, ana, takers = make_class(5)
    begin(lab, takers, 5)
    lab.run(1.0)
    assert takers[0].row().at_once == 5 and " (to 5 at once)" in progress_line(takers[0].row())
    wait_for_all(lab, takers)
    assert len(lab.data) < ana.network.casts.sent * 1440 < 1.3 * len(lab.data)
    assert has_ended(lab, [ana, *takers])
    assert all(taker.told(ENDS)[0].sources == ("ana",) for taker in takers if len(taker.told(ENDS)[0].sources) == 1)


def test_a_class_that_has_ipv6_alone_takes_one_cast_by_it(make_class):
    lab, ana, takers = make_class(5, is_six=True, loss=0.005)
    begin(lab, takers, 5)
    ((group, _),) = lab.world.groups
    assert ipaddress.ip_address(group) in ipaddress.ip_network("ff12::/16")
    wait_for_all(lab, takers)
    assert len(lab.data) < ana.network.casts.sent * 1200 < 1.5 * len(lab.data)
    assert has_ended(lab, [ana, *takers])


@pytest.mark.parametrize("lan, kind, is_offered", [
    ("10.0.0.", CastWanted, True), ("fd00::", CastSixWanted, True),  # as who sends it sees the caster
    ("fd00::", CastWanted, False), ("10.0.0.", CastSixWanted, False),
])  # fmt: skip
def test_who_asks_for_a_cast_by_one_family_and_is_reached_by_the_other_is_offered_none(lan, kind, is_offered):
    sent, network = [], SimpleNamespace(can_cast=lambda towards: True, cast_open=lambda *_: None)
    uploads = SimpleNamespace()
    casting = Casting(network, None, None, random.Random(1), lambda link, message: sent.append(link), uploads)
    for link in (1, 3, 5):
        casting.on_message(link, b"node%d" % link, (f"{lan}{link}", 6020), 8 * MIB, kind(bytes(32)), 0.0)
    assert sent == ([1, 3, 5] if is_offered else [])


def test_who_wants_it_by_the_other_family_is_not_offered_a_cast_that_runs():
    sent, network = [], SimpleNamespace(can_cast=lambda towards: True, cast_open=lambda *_: None)
    casting = Casting(network, None, None, random.Random(1), lambda link, message: sent.append(link), SimpleNamespace())
    told = [(1, "fd00::1"), (3, "fd00::2"), (5, "10.0.0.3"), (7, "10.0.0.4"), (9, "fd00::5"), (11, "10.0.0.6")]
    for link, ip in told:
        kind = CastSixWanted if ":" in ip else CastWanted
        casting.on_message(link, b"node%d" % link, (ip, 6020), 8 * MIB, kind(bytes(32)), 0.0)
    assert sent == [1, 3, 9]


def test_who_wants_many_contents_pushes_out_nobody_elses_want():
    """G06. One link that would take all that is here, again and again, between those who want one thing each."""
    sent, network = [], SimpleNamespace(can_cast=lambda towards: True, cast_open=lambda *_: None)
    casting = Casting(network, None, None, random.Random(1), lambda link, message: sent.append(link), SimpleNamespace())
    lab = bytes(32)
    for link in (1, 3):
        casting.on_message(link, b"node%d" % link, (f"10.0.0.{link}", 6020), 8 * MIB, CastWanted(lab), 0.0)
        for number in range(1, WANTS_MAX + 100):
            other = CastWanted(number.to_bytes(32, "big"))
            casting.on_message(99, b"greedy", ("10.0.0.99", 6020), 8 * MIB, other, 0.0)
    assert len(casting.wants) <= WANTS_MAX
    casting.on_message(5, b"node5", ("10.0.0.5", 6020), 8 * MIB, CastWanted(lab), 0.0)
    assert sent == [1, 3, 5]
    casting.on_link_lost(99, 0.0)
    assert not len(casting.wants)


def test_who_has_got_it_or_comes_from_elsewhere_now_wants_it_once_or_not_at_all():
    wants = Wants()
    content, other = (bytes(32), False), (bytes(32), True)
    wants.add(content, 1, b"a", "10.0.0.1")
    wants.add(other, 1, b"a", "10.0.0.1")
    assert wants.add(content, 1, b"a", "10.0.0.7") == {1: (b"a", "10.0.0.7")} and len(wants) == 2
    assert wants.add(content, 3, b"b", "10.0.0.2") == {1: (b"a", "10.0.0.7"), 3: (b"b", "10.0.0.2")}
    wants.drop(content, 1)
    wants.drop(content, 1)
    assert wants.take(content) == {3: (b"b", "10.0.0.2")} and not wants.take(content) and len(wants) == 1
    wants.drop_link(1)
    assert not len(wants)


def test_a_group_of_ipv6_is_nobodys_stays_on_its_link_and_tells_half_of_the_session():
    for session in (bytes(8), b"\xff" * 8, os.urandom(8)):
        ip, port = group_of(session, is_six=True)
        packed = ipaddress.IPv6Address(ip).packed
        assert packed[:2] == b"\xff\x12" and packed[12] & 0x80 and 49152 <= port < 65536
        assert group_of(session[:4] + b"else", is_six=True) == (ip, port)


def test_two_who_ask_take_no_cast(make_class):
    lab, ana, takers = make_class(2)
    ask_all(lab, takers)
    wait_for_all(lab, takers)
    assert not ana.network.casts.sent


def fellows_called(takers):
    """How many times one of them has taken another as a fellow."""
    all_links = ((fetch.file_id, taker.peer.fetching.links.of(fetch.file_id))
                 for taker in takers for fetch in taker.peer.fetching.fetches.values())  # fmt: skip
    return sum(link.is_fellow(file_id) for file_id, links in all_links for link in links)


def test_fellows_do_not_call_each_other_while_a_cast_comes(make_class):
    lab, ana, takers = make_class(6)
    begin(lab, takers, 6)
    lab.run(1.2)
    assert len(on_way(takers)) == 6 and not fellows_called(takers)
    wait_for_all(lab, takers)


def test_fellows_do_not_call_each_other_while_the_source_of_a_cast_is_yet_called(make_class):
    lab, ana, takers = make_class(6, size=6 * MIB, latency=0.1)
    ask_all(lab, takers)
    called = 0
    while len(on_way(takers)) < 6 and lab.world.now < 30.0:
        lab.run(0.05)
        called = max(called, fellows_called(takers))
    assert len(on_way(takers)) == 6 and not called
    wait_for_all(lab, takers)


def test_links_that_stand_by_are_opened_when_the_cast_is_over(make_class):
    lab, ana, takers = make_class(6, size=amount(6 * MIB, SIZE))
    begin(lab, takers, 6)

    def links():
        return sum(len(taker.peer.fetching.links._by_link) for taker in takers)

    before = links()
    while len(on_way(takers)) == 6:
        assert links() == before
        lab.run(0.05)
    wait_for_all(lab, takers)
    assert lab.world.run_until(lambda: links() > before, lab.world.now + 10)


def test_a_mate_that_nobody_reaches_does_not_let_links_be_opened_while_the_next_content_comes():
    dialled, numbers = [], itertools.count(2)
    members = SimpleNamespace(may_dial=lambda place, now, keep=0: 0.0 if place == "dead" else 3.0)
    members.place_of = {b"source": "source", b"dead": "dead", b"mate": "mate"}.get
    network = SimpleNamespace(connect=lambda place, tries: dialled.append(place) or next(numbers))
    links = SourceLinks(network, SimpleNamespace(members=members), random.Random(1), lambda at: None)
    source = links.open("source", b"source", 0.0)
    for begins, mates in ((0, [b"dead"]), (100, [b"dead", b"mate"])):
        source.take(SimpleNamespace(file_id=b"content"), False)
        links.set_mates(mates, begins)
        for now in range(begins, begins + int(MESH_PATIENCE)):
            links.on_timer(now)
        assert dialled == ["source"]
        for now in range(begins + int(MESH_PATIENCE), begins + 50):
            links.on_timer(now)
        source.let_go(b"content", begins + 50)
        links.on_timer(begins + 60)
    assert dialled == ["source", "mate"], "it waits for so long, and no longer"


def test_fellows_call_each_other_soon_where_the_source_cannot_cast(make_class):
    lab, ana, takers = make_class(6, size=SMALL)
    for taker in takers:
        taker.network.casts.can_cast = lambda towards: False
    ask_all(lab, takers)
    assert lab.world.run_until(lambda: fellows_called(takers) >= 6, lab.world.now + 0.8)
    wait_for_all(lab, takers)


def test_fellows_call_each_other_when_the_cast_they_waited_for_has_ended(make_class):
    lab, ana, takers = make_class(6, size=SMALL + MIB)
    begin(lab, takers, 6)
    lab.run(0.5)
    ana.peer.serving.casting.end_all(lab.world.now)
    assert lab.world.run_until(lambda: fellows_called(takers) >= 6, lab.world.now + 1.0)
    wait_for_all(lab, takers)


@pytest.mark.parametrize("count, is_cast", [(2, True), (6, False)][: amount(2, 1)])
def test_fellows_too_few_for_a_cast_or_that_want_none_call_each_other_soon(make_class, count, is_cast):
    lab, ana, takers = make_class(count, size=SMALL)
    for taker in takers:
        taker.peer.fetching.casts = is_cast
    ask_all(lab, takers)
    assert lab.world.run_until(lambda: fellows_called(takers) >= count, lab.world.now + 1.5)
    wait_for_all(lab, takers)


def test_who_wants_no_cast_takes_none_and_the_others_do(make_class):
    lab, ana, takers = make_class(4)
    takers[0].peer.fetching.casts = False
    begin(lab, takers)
    lab.run(0.5)
    assert takers[0] not in on_way(takers)
    wait_for_all(lab, takers)


def test_what_is_lost_is_sent_once_more(make_class):
    lab, ana, takers = make_class(4, size=8 * MIB, loss=0.01)  # of less, the end would be much
    begin(lab, takers)
    wait_for_all(lab, takers)
    assert len(lab.data) < ana.network.casts.sent * 1440 < 1.6 * len(lab.data)


def test_what_one_misses_is_sent_though_something_else_of_that_piece_just_was():
    cast = Cast(b"session!", b"f" * 32, 4 * MIB, random.Random(1), 0.0)
    cast.note_handed(0, cast.piece_size)
    whole = cast.slices_each
    cast.add_holes(whole, ((3, 2), (9, 1)))
    assert cast.repairs.pop(0) == {3, 4, 9}
    cast.note_again(0, 3, 2 * 1440)
    cast.add_holes(whole, ((3, 2), (9, 1), (11, 2)))  # of another one, who cannot have what is on its way yet
    assert cast.repairs.pop(0) == {9, 11, 12}
    cast.add_holes(whole + 1, ((3, 2),))
    assert cast.repairs.pop(0) == {3}
    cast.add_holes(whole + 2, ((4, 1),))
    assert cast.repairs.pop(0) == {4}
    cast.add_holes(whole - 1, ((20, 1),))  # it has not seen the end of the first time
    assert not cast.repairs


def test_the_packs_of_a_folder_are_cast_as_any_content(make_class):
    lab, ana, takers = make_class(4, size=10)
    rng = random.Random(2)
    photos = {f"photos/{number:03}.jpg": rng.randbytes(20_000) for number in range(300)}
    for name, data in photos.items():
        ana.put(name, data)
    for _ in range(2):
        ana.scan()
        lab.run(2.0)
    for taker in takers:
        taker.do("fetch_name", "photos", lab.world.now, taker.answers.append)
    assert lab.world.run_until(lambda: all(taker.told(ENDS) for taker in takers), lab.world.now + 60)
    for taker in takers:
        assert isinstance(taker.told(ENDS)[0], DownloadDone)
        assert all(taker.read(name) == data for name, data in photos.items())
    assert 0.5 * 6e6 < ana.network.casts.sent * 1440 < 2 * 6e6


def test_one_whose_port_drops_multicast_is_served_as_ever(make_class):
    lab, ana, takers = make_class(4)
    lab.world.deaf.add(takers[2].ip)
    lab.world.groupless.add(takers[3].ip)
    takers.append(lab.node("n4"))
    begin(lab, takers)
    wait_for_all(lab, takers)
    assert has_ended(lab, [ana, *takers])


def test_where_nobody_hears_the_group_all_is_as_ever(make_class):
    lab, ana, takers = make_class(4, size=SMALL)
    lab.world.deaf.update(taker.ip for taker in takers)
    ask_all(lab, takers)
    wait_for_all(lab, takers)
    assert has_ended(lab, [ana, *takers])


def test_a_slow_one_leaves_the_cast_and_holds_nobody_up(make_class):
    lab, ana, takers = make_class(5, size=2 * SIZE)
    for source in [ana, *takers]:
        lab.world.between(source.ip, takers[0].ip).rate = RATE / 10
    begin(lab, takers, 4)
    began = lab.world.now
    wait_for_all(lab, takers[1:])
    assert lab.world.now - began < 3.0 * len(lab.data) / RATE
    wait_for_all(lab, takers, 120.0)


def test_one_who_comes_late_takes_the_rest_of_it(make_class):
    lab, ana, takers = make_class(4, size=2 * SIZE)
    begin(lab, takers[:3])
    lab.run(1.5)
    ask_all(lab, takers[3:])
    assert lab.world.run_until(lambda: on_way(takers[3:]), lab.world.now + 1)
    wait_for_all(lab, takers)


def download_of(taker):
    """The one that it has."""
    (fetch,) = taker.peer.fetching.fetches.values()
    return fetch.download


def owed_by_links(taker):
    """Pieces that others are asked for."""
    return sum(len(source.owed) for source in download_of(taker).sources.values())


def test_who_comes_late_asks_for_nothing_beside_a_cast_that_fills_its_link(make_class):
    lab, ana, takers = make_class(4, size=8 * MIB, rate=2e6)
    begin(lab, takers[:3])
    lab.run(1.5)
    late = takers[3]
    ask_all(lab, [late])
    assert lab.world.run_until(lambda: on_way([late]), lab.world.now + 1)
    most, joined = 0, lab.world.now
    while on_way([late]):
        if lab.world.now < joined + BESIDE_FIRST:
            assert download_of(late).asked_at <= joined
        else:  # what was asked before has come
            most = max(most, owed_by_links(late))
        lab.run(0.02)
    assert lab.world.now > joined + BESIDE_FIRST and most <= 1
    wait_for_all(lab, takers)


def test_who_comes_late_asks_others_beside_a_cast_that_leaves_room_for_it(make_class):
    lab, ana, takers = make_class(4, size=9 * MIB)
    ana.peer.set_limits(6e5, None, lab.world.now)
    begin(lab, takers[:3])
    lab.run(6.0)
    late = takers[3]
    ask_all(lab, [late])
    assert lab.world.run_until(lambda: on_way([late]), lab.world.now + 1)
    lab.run(BESIDE_FIRST / 2)
    before = download_of(late).verified_bytes
    lab.run(BESIDE_FIRST / 2 + 3.0)
    assert on_way([late]) and download_of(late).verified_bytes - before > 2 * 3.5 * 6e5
    wait_for_all(lab, takers)


def test_a_cast_lives_on_when_takers_stand_still_or_die(make_class):
    lab, ana, takers = make_class(5, size=2 * SIZE)
    begin(lab, takers, 5)
    lab.run(0.5)
    takers[0].kill()
    takers[1].network.stop()
    wait_for_all(lab, takers[2:])
    takers[1].network.go_on()
    wait_for_all(lab, takers[1:])


def test_the_caster_dies_and_the_others_have_it_from_each_other(make_class):
    lab, ana, takers = make_class(4)
    bo = lab.node("bo", shared={"lab.iso": lab.data})
    begin(lab, takers, 3)
    casters = [node for node in (ana, bo) if node.network.casts.sending]
    assert len(casters) == 1
    lab.run(0.5)
    if casters[0] is ana:
        ana.network.stop()
    else:
        bo.kill()
    wait_for_all(lab, takers, 90.0)


@pytest.fixture
def make_class_with_a_liar(make_class):
    """Two whole sources; first the one with the lesser id, which is asked for a cast before the other."""

    def make(count=4, **conditions):
        lab, ana, takers = make_class(count, **conditions)
        bo = lab.node("bo", shared={"lab.iso": lab.data})
        liar, other = sorted((ana, bo), key=lambda node: node.peer.node_id)
        return lab, liar, other, takers

    return make


def never_offers(casting):
    casting.on_message = lambda *_: None


def offers_and_sends_no_probe(casting):
    can_cast, nothing = casting._network.can_cast, lambda *_: None
    casting._network = SimpleNamespace(can_cast=can_cast, cast_open=nothing, cast_end=nothing)
    casting._look = lambda cast, now: None


def never_begins(casting):
    casting._maybe_start = casting._look = lambda cast, now: None


def ends_at_once(casting):
    casting._maybe_start = lambda cast, now: casting._end(cast, "", now)


def begins_and_sends_probes_alone(casting):
    casting._pump = lambda cast, now: None


def sends_what_nobody_needs(casting):
    casting._pump = lambda cast, now: casting._network.cast_send(cast.session, 0, 0, bytes(65536), 1)


LIES = [never_offers, begins_and_sends_probes_alone, never_begins, offers_and_sends_no_probe, ends_at_once,
        sends_what_nobody_needs]  # fmt: skip


@pytest.mark.parametrize("lie", LIES[: amount(6, 0)])
def test_a_source_that_does_not_cast_keeps_no_other_from_it_for_long(make_class_with_a_liar, lie):
    lab, liar, other, takers = make_class_with_a_liar(size=24 * MIB, rate=1e6)
    lie(liar.peer.serving.casting)
    ask_all(lab, takers)
    assert lab.world.run_until(lambda: other.network.casts.sending, lab.world.now + 20)
    assert lab.world.run_until(lambda: len(on_way(takers)) == 4, lab.world.now + 2)
    assert all(fetch.catching.node_id == other.peer.node_id
               for taker in takers for fetch in taker.peer.fetching.fetches.values())  # fmt: skip


def test_whole_nodes_ask_the_next_source_when_the_first_offers_nothing(make_class_with_a_liar):
    lab, liar, other, takers = make_class_with_a_liar(3, size=12 * MIB, rate=4e5)
    never_offers(liar.peer.serving.casting)
    ask_all(lab, takers)
    wanted = other.peer.serving.casting.wants
    assert lab.world.run_until(lambda: len(wanted) or other.network.casts.sending, lab.world.now + OFFER_PATIENCE + 2)


class Wanting:
    """A Catching of a content that so many sources have, each a host with one link; what it says, and to whom."""

    def __init__(self, count):
        self.said, self.joined, self.now = [], [], 10.0
        choice = SimpleNamespace(missing=100, count=100, is_verified=[False] * 100, is_settled=lambda index: False)
        self.sources = {link: SimpleNamespace(link=link, node_id=bytes([link]), is_complete=True)
                        for link in range(1, count + 1)}  # fmt: skip
        cast = SimpleNamespace(expect=lambda indexes: indexes, end=lambda now: None)
        download = SimpleNamespace(choice=choice, sources=self.sources, piece_size=1 << 16, size=100 << 16,
                                   file_id=bytes(32), is_in_order=False, hold=lambda *_: None, cast=cast)
        network = SimpleNamespace(can_cast=lambda towards: True, cast_end=lambda session: None,
                                  cast_take=lambda session, plan: None, cast_done=lambda session, size: None,
                                  cast_join=lambda session, ip: self.joined.append(ip))  # fmt: skip
        self.hosts = {link: f"10.0.0.{link}" for link in self.sources}
        self.catching = Catching(download, network, lambda *told: self.said.append(told), lambda: True)

    def place_of(self, link):
        return self.hosts[link], 6020

    def look_for(self, seconds):
        """Whom it asks for a cast meanwhile."""
        before, until = len(self.said), self.now + seconds
        while self.now < until:
            self.catching.look(self.place_of, self.now)
            self.now += 0.1
        return [link for link, message in self.said[before:] if isinstance(message, CastWanted)]

    def offer(self, link, session):
        """That source offers one; is it taken?"""
        message = CastOffer(bytes(32), session, b"", 3, 100)
        assert self.catching.on_message(link, bytes([link]), self.place_of(link), message, self.now)
        return self.catching.session == session


def test_the_next_source_is_asked_when_one_offers_nothing_in_its_time_and_none_twice():
    wanting = Wanting(3)
    assert wanting.look_for(OFFER_PATIENCE - 0.2) == [1]
    assert wanting.look_for(OFFER_PATIENCE) == [2]
    assert wanting.look_for(100.0) == [3]
    assert wanting.offer(1, b"at last!"), "the first may have had too few that want it"


def test_several_sources_of_one_host_have_their_time_together_and_a_new_link_gives_it_no_other():
    wanting = Wanting(5)
    wanting.hosts.update(dict.fromkeys(range(1, 5), "10.0.0.66"))
    asked = wanting.look_for(OFFER_PATIENCE - 0.2)
    wanting.catching.on_link_lost(1, wanting.now)
    del wanting.sources[1]
    wanting.sources[9] = SimpleNamespace(link=9, node_id=b"0", is_complete=True)
    wanting.hosts[9] = "10.0.0.66"
    asked += wanting.look_for(1.0)
    assert asked[0] == 1 and asked[-1] == 5


def test_an_offer_that_does_not_begin_gives_way_to_another_ones():
    wanting = Wanting(2)
    wanting.look_for(0.5)
    assert wanting.offer(1, b"session1")
    assert not wanting.look_for(BEGIN_PATIENCE - 0.2), "while that one may begin, nobody else is asked"
    assert wanting.look_for(1.0) == [2] and wanting.catching.session == b"session1"
    assert wanting.offer(2, b"session2")
    assert wanting.joined == ["10.0.0.1", "10.0.0.2"] and (1, CastEnd(bytes(32), b"session1")) in wanting.said


def test_one_host_has_so_many_casts_to_try_and_one_that_brought_nothing_is_the_last():
    wanting, tried = Wanting(3), []
    for link in (1, 1, 1, 2, 2, 2, 3):
        wanting.look_for(2 * OFFER_PATIENCE)
        session = b"session%d" % len(tried)
        tried.append(wanting.offer(link, session))
        wanting.catching.on_event(CastOver(session, BRINGS_NOTHING if link == 2 else "too slow"), wanting.now)
    assert tried == [True, True, False, True, False, False, False]


def forge(lab, caster, change, seconds, every=0.0005):
    """From now on somebody sends to the caster's group, as from its address, what `change` makes of the session."""
    until = lab.world.now + seconds

    def again():
        for session, sender in caster.network.casts.sending.items():
            caster.network.casts.cast(sender.group, change(session))
        if lab.world.now < until:
            lab.world.after(every, again)

    again()


def test_forged_datagrams_cost_the_cast_and_no_byte(make_class):
    lab, ana, takers = make_class(4, size=5 * MIB, rate=1e8)
    rng = random.Random(5)

    def forged(session):
        head = CastDatagram(SLICE, session, rng.randrange(2**32), rng.randrange(128), 0, rng.randrange(2**32))
        return encode_cast_header(head) + rng.randbytes(1440)

    begin(lab, takers, 4)
    forge(lab, ana, forged, 5.0)
    wait_for_all(lab, takers, 120.0)
    assert has_ended(lab, takers)


def test_a_caster_that_names_pieces_of_another_content_is_left(make_class, monkeypatch):
    lab, ana, takers = make_class(3)
    monkeypatch.setattr(Cast, "coming_to", lambda cast, taker: b"\xff" * 9)
    ask_all(lab, takers)
    assert lab.world.run_until(lambda: any(taker.network.casts.receiving for taker in takers), lab.world.now + 2)
    lab.run(1.0)
    assert not any(taker.network.casts.receiving for taker in takers)
    wait_for_all(lab, takers)


def test_nonsense_in_the_group_is_dropped_and_counted(make_class):
    lab, ana, takers = make_class(4, size=5 * MIB, rate=1e8)
    rng = random.Random(5)
    begin(lab, takers, 4)
    forge(lab, ana, lambda session: rng.randbytes(rng.randrange(1, 1480)), 5.0)
    wait_for_all(lab, takers)


def test_a_forged_report_can_at_most_end_the_cast(make_class):
    lab, ana, takers = make_class(4)
    begin(lab, takers, 4)
    fetch = next(iter(takers[0].peer.fetching.fetches.values()))
    session, link = fetch.catching.session, fetch.catching._link
    holes = tuple(Hole(first, 65535) for first in range(0, 2**32, 2**24))
    for _ in range(200):
        fetch.send(link, CastTaken(fetch.file_id, session, 2**32 - 1, 0, 2**32 - 1, False, holes))
    wait_for_all(lab, takers)
    assert ana.network.casts.sent * 1440 < 6 * len(lab.data)


# ---- the parts


def receiver_of(size=3 * 65536, piece=65536, slice_size=SLICE_SIZE):
    receiver = CastReceiver(b"sessions")
    count = -(-size // piece)
    receiver.take(CastPlan(size, piece, bytes([0xFF] * ((count + 7) // 8)), 0.1, slice_size), 0.0)
    return receiver


def datagrams_of(sender, now=0.0):
    """All that it sends of what it was given, without regard to time."""
    while sender.backlog:
        batch = sender.next_batch(now)
        now += 0.001 if batch is None else 0.0
        for index in range(batch.count if batch is not None else 0):
            yield b"".join(bytes(part) for part in batch.buffers[2 * index : 2 * index + 2])


def test_pieces_come_out_as_they_went_in_and_holes_are_known_exactly():
    data = random.Random(3).randbytes(3 * 65536)
    sender, receiver = CastSender(b"sessions", 1e9, 0.0), receiver_of()
    for piece in range(3):
        sender.add(piece, 0, data[piece * 65536 : (piece + 1) * 65536], (piece + 1) * 46)
    lost = {10, 11, 60}
    for number, datagram in enumerate(datagrams_of(sender)):
        if number not in lost:
            receiver.on_run(memoryview(datagram), len(datagram), 0.01)
    sender.add(2, 45 * 1440, data[2 * 65536 + 45 * 1440 :], None)  # once more, and with it how far the pass has come
    for datagram in datagrams_of(sender):
        receiver.on_run(memoryview(datagram), len(datagram), 0.02)
    receiver.on_timer(0.02 + WHOLE_TIME)
    whole = {event.index: bytes(event.data) for event in receiver.events if isinstance(event, CastPiece)}
    assert whole == {2: data[2 * 65536 :]}
    report = receiver.events[-1]
    assert isinstance(report, CastReport) and not report.is_through
    assert report.holes == ((10, 2), (60, 1)) and report.lost == 3


@pytest.mark.parametrize("rate, count", [(RATE_MIN, 16), (6e6, 20), (12.5e6, 42), (1e9, 42)])
def test_a_batch_is_what_leaves_in_five_milliseconds_but_never_short(rate, count):
    sender = CastSender(b"sessions", rate, 0.0)
    sender.add(0, 0, bytes(65536 * 4), None)
    batch = sender.next_batch(0.1)
    assert (batch.count, len(batch.buffers)) == (count, 2 * count)
    assert sender.next_deadline() >= 0.1 + count * 1440 / rate - CATCH_UP


def test_whole_pieces_are_handed_on_together_and_none_for_long():
    data = random.Random(3).randbytes(65536)
    sender, receiver = CastSender(b"sessions", 1e9, 0.0), receiver_of(56 * 65536)
    each = WHOLE_MAX // 65536

    def send(*pieces, now):
        for piece in pieces:
            sender.add(piece, 0, data, (piece + 1) * 46)
        for datagram in datagrams_of(sender):
            receiver.on_run(memoryview(datagram), len(datagram), now)
        receiver.on_timer(now)
        told = [event.index for event in receiver.events if isinstance(event, CastPiece)]
        receiver.events.clear()
        return told

    assert send(0, 1, now=0.01) == [] and receiver.next_deadline() <= 0.01 + WHOLE_TIME
    assert send(2, now=0.01 + WHOLE_TIME) == [0, 1, 2]
    assert send(*range(3, 4 + each), now=0.3) == list(range(3, 3 + each))  # enough of them
    assert send(*range(4 + each, 54), now=0.31) == []
    assert send(54, now=0.3 + WHOLE_TIME) == list(range(3 + each, 55))
    assert send(55, now=0.31 + WHOLE_TIME) == [55]  # the last


def test_what_is_whole_is_handed_on_before_a_cast_is_over():
    data = random.Random(3).randbytes(65536)
    sender, receiver = CastSender(b"sessions", 1e9, 0.0), receiver_of()
    sender.add(1, 0, data, 92)
    for datagram in datagrams_of(sender):
        receiver.on_run(memoryview(datagram), len(datagram), 0.0)
    receiver.events.clear()
    receiver._late_left = 0
    receiver.on_timer(3.0)
    assert [type(event) for event in receiver.events] == [CastPiece, CastOver]


def told_by(runs, slice_size):
    """What a receiver tells of these (run, size of each datagram): pieces, and a report."""
    receiver = receiver_of(slice_size=slice_size)
    for run, size in runs:
        receiver.on_run(memoryview(run), size, 0.01)
    receiver.on_timer(0.2)
    return [event._replace(data=bytes(event.data)) if isinstance(event, CastPiece) else event
            for event in receiver.events], receiver.dropped  # fmt: skip


@pytest.mark.parametrize("seed", range(20))
def test_a_run_is_taken_as_its_datagrams_would_be_one_by_one(seed):
    rng, is_six = random.Random(seed), bool(seed % 4 == 3)
    data, slice_size = rng.randbytes(3 * 65536), slice_size_of(is_six)
    sender, datagrams = CastSender(b"sessions", 1e9, 0.0, is_six), []
    for piece in [*range(3), rng.randrange(3)]:
        front = (piece + 1) * slices_of(65536, slice_size)
        sender.add(piece, 0, data[piece * 65536 : (piece + 1) * 65536], front)
    datagrams = [one for one in datagrams_of(sender) if rng.random() > 0.02]
    for _ in range(3):
        place = rng.randrange(len(datagrams))
        kind = rng.randrange(4)
        if kind == 0:
            datagrams.insert(place, datagrams[rng.randrange(len(datagrams))])
        elif kind == 1:
            damaged = bytearray(datagrams[place])
            damaged[rng.randrange(4, 30)] ^= 1 << rng.randrange(8)  # what the checksum covers
            datagrams[place] = bytes(damaged)
        elif kind == 2:
            head = decode_cast_header(datagrams[place])._replace(session=b"another!")
            datagrams[place] = encode_cast_header(head) + datagrams[place][30:]
        else:
            datagrams[place : place + 2] = reversed(datagrams[place : place + 2])
    runs, left = [], list(datagrams)
    while left:
        count = next((at for at, one in enumerate(left) if len(one) != slice_size + 30), len(left)) + 1
        count = min(count, rng.randint(1, 90))
        runs.append((b"".join(left[:count]), len(left[0])))
        del left[:count]
    assert told_by(runs, slice_size) == told_by([(one, len(one)) for one in datagrams], slice_size)


def test_no_datagram_of_a_cast_is_larger_than_every_path_takes():
    for is_six, headers, most in ((False, 28, 1500), (True, 48, 1280)):
        sender = CastSender(b"sessions", 1e9, 0.0, is_six)
        probe = sender.next_batch(1.0).segment_size
        sender.add(0, 0, bytes(65536), 46)
        assert max(map(len, datagrams_of(sender, 2.0))) == probe <= most - headers


@pytest.mark.parametrize("change", [{"session": b"another!"}, {"piece": 3}, {"offset": 1}, {"offset": 65536}])
def test_a_datagram_that_does_not_fit_is_dropped(change):
    receiver = receiver_of()
    head = CastDatagram(SLICE, b"sessions", 1, 0, 0, 0)._replace(**change)
    datagram = encode_cast_header(head) + bytes(1440)
    receiver.on_run(memoryview(datagram), len(datagram), 0.0)
    assert receiver.dropped == 1 and not receiver._parts


def test_memory_is_bounded_whatever_comes():
    receiver = CastReceiver(b"sessions")
    receiver.take(CastPlan(4096 << 20, 1 << 20, bytes([0xFF] * 512), 0.1), 0.0)
    for piece in range(4096):
        datagram = encode_cast_header(CastDatagram(SLICE, b"sessions", piece, piece, 0, 0)) + bytes(1440)
        receiver.on_run(memoryview(datagram), len(datagram), 0.0)
    assert len(receiver._parts) <= 24


def overs_of(receiver, kind, every, until, piece=0):
    """What ends the cast where such datagrams come so often, and when; None: nothing does."""
    now, number = 0.0, 0
    while now < until:
        now, number = now + every, number + 1
        datagram = encode_cast_header(CastDatagram(kind, b"sessions", number, piece, 0, 0)) + bytes(1440)
        receiver.on_run(memoryview(datagram), len(datagram), now)
        receiver.on_timer(now)
        overs = [event.reason for event in receiver.events if isinstance(event, CastOver)]
        if overs:
            return overs[0], now
    return None, now


def test_silence_ends_a_cast_in_the_time_of_twelve_probes():
    receiver = receiver_of()
    receiver.on_timer(0.59)
    assert not any(isinstance(event, CastOver) for event in receiver.events)
    receiver.on_timer(receiver.next_deadline())
    assert receiver.events[-1] == CastOver(b"sessions", "nothing comes any more")
    assert receiver.next_deadline() > 1e9


def test_who_was_late_itself_listens_once_more_before_it_calls_that_silence():
    receiver = receiver_of()
    receiver.on_timer(5.0)  # it stood still
    assert isinstance(receiver.events[-1], CastReport) and receiver.next_deadline() <= 5.3
    receiver.on_timer(5.31)
    assert receiver.events[-1] == CastOver(b"sessions", "nothing comes any more")


def test_nobody_waits_for_a_caster_that_sends_probes_alone():
    reason, at = overs_of(receiver_of(), PROBE, 0.05, 10.0)
    assert reason == "only probes come" and at < 2.3


def test_nobody_waits_for_a_cast_that_trickles():
    reason, at = overs_of(receiver_of(), SLICE, 0.01, 10.0)
    assert reason == "it is too slow" and 2.9 < at < 3.3


@pytest.mark.parametrize("slices", [1, 600])
def test_nobody_waits_for_a_cast_that_brings_what_is_here_already(slices):
    receiver, now, number = receiver_of(64 * MIB, MIB), 0.0, 0
    while not any(isinstance(event, CastOver) for event in receiver.events) and now < 60.0:
        now, number = now + 0.002, number + 1  # 500 a second, all of one piece
        head = CastDatagram(SLICE, b"sessions", number, 0, 1440 * (number % slices), 0)
        receiver.on_run(memoryview(encode_cast_header(head) + bytes(1440)), 1470, now)
        receiver.on_timer(now)
    assert receiver.events[-1] == CastOver(b"sessions", BRINGS_NOTHING) and now <= NEWS_TIME + 0.2


@pytest.mark.parametrize("each, is_left", [(200e3, True), (300e3, False)])
def test_no_caster_holds_those_who_take_it_at_a_trickle_of_what_is_new(each, is_left):
    """It sends much, which all others would have to wait for, of which as little is new as a true one never sends."""
    receiver, now, number, new = receiver_of(64 * MIB, MIB), 0.0, 0, 0
    while not any(isinstance(event, CastOver) for event in receiver.events) and now < 40.0:
        now, number = now + 0.002, number + 1  # 720 kB/s
        is_new = new * SLICE_SIZE < each * now
        new += is_new
        piece, slice_ = divmod(new, MIB // SLICE_SIZE) if is_new else (0, 0)
        head = CastDatagram(SLICE, b"sessions", number, piece, SLICE_SIZE * slice_, 0)
        receiver.on_run(memoryview(encode_cast_header(head) + bytes(SLICE_SIZE)), SLICE_SIZE + 30, now)
        receiver.on_timer(now)
    assert (receiver.events[-1] == CastOver(b"sessions", BRINGS_NOTHING)) == is_left
    assert not is_left or now <= NEWS_TIME + 0.2


def test_a_cast_that_brings_something_new_is_taken_though_most_of_it_is_for_others():
    receiver, now, number = receiver_of(64 * MIB, MIB), 0.0, 0
    receiver._coming[1:32] = bytes(31)
    receiver._left -= 31
    for piece in [0] * 30 + [32 + piece for piece in range(32)]:
        for offset in range(0, MIB - 1440, 1440):
            now, number = now + 0.0005, number + 1
            head = CastDatagram(SLICE, b"sessions", number, piece, offset, 0)
            receiver.on_run(memoryview(encode_cast_header(head) + bytes(1440)), 1470, now)
            receiver.on_timer(now)
    assert now > NEWS_TIME and not any(isinstance(event, CastOver) for event in receiver.events)


@pytest.mark.parametrize("reason, is_last", [(BRINGS_NOTHING, True), ("nothing comes any more", False)])
def test_who_left_a_cast_that_brought_nothing_takes_no_other_of_that_content(make_class, reason, is_last):
    lab, ana, takers = make_class(3)
    begin(lab, takers)
    (fetch,) = takers[0].peer.fetching.fetches.values()
    takers[0].do("on_cast", CastOver(fetch.catching.session, reason), lab.world.now)
    assert fetch.catching.session is None
    offer = CastOffer(fetch.file_id, b"another!", b"", 3, 100)
    link = next(iter(fetch.catching._asked))
    assert fetch.catching.on_message(link, b"ana", (ana.ip, 6020), offer, lab.world.now)
    assert (fetch.catching.session is None) == is_last
    fetch.catching.leave(lab.world.now)
    wait_for_all(lab, takers)


@pytest.mark.parametrize("holes", [(), (Hole(0, 1),)])
def test_takers_that_report_for_ever_hold_neither_the_cast_nor_the_uploads_beside_it(holes):
    size, network, now = 8 * MIB, test_fuzz._Group(), 0.0
    sent, disk = [], test_fuzz._Disk()
    casting = Casting(network, test_fuzz._Zeroes(), disk, random.Random(1), lambda link, message: sent.append(message),
                      test_fuzz._Slots())  # fmt: skip
    for kind in (CastWanted, CastReady):
        for link in (1, 2, 3):
            session = next((cast.session for cast in casting._casts.values()), b"")
            message = kind(bytes(32)) if kind is CastWanted else kind(bytes(32), session, b"\xff" * 16)
            casting.on_message(link, bytes([link]), (f"10.0.0.{link}", 1), size, message, now)
    (cast,) = casting._casts.values()
    assert cast.is_begun and casting._beside is not None
    while casting._casts and now < 60.0:
        now += ROUND
        report = CastTaken(bytes(32), session, 2**32 - 1, 0, 0, False, holes)
        for link in (1, 2, 3):
            casting.on_message(link, bytes([link]), (f"10.0.0.{link}", 1), size, report, now)
        casting.on_timer(now)
    assert now < AFTER_MIN + 1.0 and casting._beside is None
    assert sum(isinstance(message, CastEnd) for message in sent) == 3


class OwnCasts:
    """The casts of one node, with takers that do what a test says: each is a link of a host."""

    def __init__(self, size=8 * MIB):
        self.sent, self.size, self.now, self.others = [], size, 0.0, 0
        uploads = test_fuzz._Slots()
        uploads.served = lambda beside: self.others
        network = test_fuzz._Group()
        network.cast_backlog = lambda session: 1 << 30  # so that nothing more is handed over
        self.casting = Casting(network, test_fuzz._Zeroes(), test_fuzz._Disk(), random.Random(1),
                               lambda link, message: self.sent.append((link, message)), uploads)  # fmt: skip

    @property
    def cast(self):
        return next(iter(self.casting._casts.values()), None)

    def say(self, link, message, host=None):
        place = (f"10.0.0.{host or link}", 6020)
        self.casting.on_message(link, b"node%d" % link, place, self.size, message, self.now)

    def want(self, links, host=None):
        for link in links:
            self.say(link, CastWanted(bytes(32)), host)

    def ready(self, links, host=None, missing=b"\xff" * 512):
        for link in links:
            self.say(link, CastReady(bytes(32), self.cast.session, missing), host)

    def offers(self):
        return [link for link, message in self.sent if isinstance(message, CastOffer)]


def test_many_nodes_of_one_host_are_one_that_wants_a_cast():
    """Three node ids of one machine had a cast of their own, beside which all others got a tenth."""
    casts = OwnCasts()
    casts.want([1, 2, 3, 4], host=66)
    casts.want([5], host=7)
    assert not casts.offers()
    casts.want([6], host=8)
    assert casts.offers() == [1, 2, 3, 4, 5, 6]
    casts.ready([1, 2, 3, 4], host=66)
    casts.now = 0.5
    casts.casting.on_timer(casts.now)
    assert not casts.cast.is_begun, "they are not three who hear it"
    casts.ready([5, 6])
    assert casts.cast.is_begun


def test_what_one_host_alone_lacks_is_not_cast_whatever_its_nodes_say():
    casts = OwnCasts(size=16 * MIB)
    casts.want([1, 3, 4])
    casts.want([2], host=1)
    eighth = casts.cast.count // 8
    casts.ready([1, 2], missing=b"\xff" * eighth)
    casts.ready([3, 4], missing=b"\xff" * (eighth // 2) + bytes(eighth // 2))
    assert casts.cast.is_begun and casts.cast.bitmap() == b"\xff" * (eighth // 2) + bytes(eighth // 2)


@pytest.mark.parametrize("others, takers, part", [(0, 10, 0.1), (1, 10, 0.1), (3, 3, 1.0), (6, 3, 2.0), (8, 32, 0.25)])
def test_beside_a_cast_each_has_by_its_link_what_one_who_takes_it_has(others, takers, part):
    casts = OwnCasts(size=64 * MIB)
    casts.others = others
    casts.want(range(1, takers + 1))
    casts.ready(range(1, takers + 1))
    assert casts.cast.is_begun
    assert casts.casting._beside == pytest.approx(max(500e3, part * RATE_FIRST))


class Stream(OwnCasts):
    """The same of a cast that is on its way: each taker gets all of it, up to 12 MB a second, and reports so."""

    LINK, STEP = 12e6, 0.02  # bytes a second, seconds

    def __init__(self, size, takers):
        super().__init__(size)
        self.backlog, self.handed, self.number = 0.0, 0, 0.0
        self.holes, self._ends = [], {}  # what was left out; where each piece ends that was sent
        self.rate = RATE_FIRST
        network = self.casting._network
        network.cast_backlog = lambda session: int(self.backlog)
        network.cast_send, network.cast_rate = self._send, self._set_rate
        self.links = range(1, takers + 1)
        self.want(self.links)
        self.ready(self.links)
        self._told = dict.fromkeys(self.links, (0.0, 0.0, 0.0))  # when, and of that what came and what was lost since

    def _send(self, session, piece, offset, data, front):
        self.backlog += len(data)
        self.handed += len(data)
        end, first = self._ends.get(piece, 0), piece * self.cast.slices_each
        if offset > end:
            self.holes.append(Hole(first + end // SLICE_SIZE, (offset - end) // SLICE_SIZE))
        self.holes = [hole for hole in self.holes if hole.first != first + offset // SLICE_SIZE]
        self._ends[piece] = max(end, offset + len(data))

    def _set_rate(self, session, rate):
        self.rate = rate

    def run(self, lie=lambda link, came, lost: (came, lost, ())):
        """Until all has left once, or the cast has ended: the seconds, and how many contents were sent.

        Who says nothing of holes tells what it misses.
        """
        while self.cast and (self.cast.passed_at == math.inf or self.backlog):
            self.now += self.STEP
            leaves = min(self.backlog, self.rate * self.STEP)
            self.backlog -= leaves
            self.number += leaves / SLICE_SIZE
            part = min(1.0, self.LINK * self.STEP / leaves) if leaves else 1.0
            self.casting.on_event(CastRoom(self.cast.session), self.now)
            for link in self.links:
                at, came, lost = self._told[link]
                self._told[link] = at, came + part * leaves / SLICE_SIZE, lost + (1 - part) * leaves / SLICE_SIZE
                if self.cast and self.now - at >= self.cast.interval_ms() / 1000:
                    came, lost, holes = lie(link, *self._told[link][1:])
                    self._told[link] = self.now, 0.0, 0.0
                    about = bytes(32), self.cast.session, int(self.number), int(came), int(lost)
                    self.say(link, CastTaken(*about, False, holes or tuple(self.holes)))
            self.casting.on_timer(self.now)
        return self.now, self.handed / self.size


def test_a_cast_whose_takers_lose_what_its_link_does_not_carry_is_as_fast_as_that_and_loses_none_of_them():
    stream = Stream(50 * MIB, 10)
    seconds, sent = stream.run()
    assert stream.cast and len(stream.cast.takers) == 10 and sent == pytest.approx(1.0, abs=0.01)
    assert seconds < 1.2 * 50 * MIB / Stream.LINK


@pytest.mark.parametrize("part", [0.05, 0.2, 0.45])
def test_one_who_loses_alone_is_soon_served_by_itself(part):
    """By the air, or by lies: it slowed the cast to all down until that was of no use, in six seconds."""
    stream = Stream(50 * MIB, 10)
    seconds, _ = stream.run(lambda link, came, lost: (came, lost, ()) if link > 1 else
                            (came * (1 - part), lost + came * part, ()))  # fmt: skip
    assert stream.cast and stream.cast.passed_at < math.inf and set(stream.cast.takers) == set(range(2, 11))
    assert (1, CastEnd(bytes(32), stream.cast.session)) in stream.sent
    assert seconds < 1.6 * 50 * MIB / Stream.LINK


@pytest.mark.parametrize("takers, liars", [(3, 2), (10, 7)])
def test_takers_that_say_they_took_more_than_was_sent_make_no_cast_faster(takers, liars):
    """Most of them said so, and when one who lost much had left it, it went on at terabytes a second."""
    stream, rates = Stream(50 * MIB, takers), []
    stream.casting._network.cast_rate = lambda session, rate: (rates.append(rate), stream._set_rate(session, rate))
    stream.run(lambda link, came, lost: (came * 0.9, lost + came * 0.1, ()) if link == 1 else
               (2**32 - 1, 0, ()) if link <= 1 + liars else (came, lost, ()))  # fmt: skip
    assert max(rates) < 4 * Stream.LINK
    assert stream.casting._beside is None or stream.casting._beside < 4 * Stream.LINK


def test_a_cast_goes_on_no_faster_than_it_ever_left_whatever_its_takers_took():
    rate = CastRate()
    rate.on_round(0.0, 5e6, 0.1)
    rate.on_round(0.2, 5e6, 0.2)
    rate.resume(1e13, 0.3)
    assert rate.rate < 10e6


@pytest.mark.parametrize("told", [None, (2**32 - 1, 2**26)])
def test_one_who_has_all_sent_again_that_it_cannot_have_lost_is_served_by_itself(told):
    """As it says nothing was lost, or more than was sent, but a small part of what came."""
    stream = Stream(50 * MIB, 10)
    holes = tuple(Hole(piece * stream.cast.slices_each, 65535) for piece in range(512))
    seconds, sent = stream.run(lambda link, *got: (*got, ()) if link > 1 else (*(told or got), holes))
    assert stream.cast and set(stream.cast.takers) == set(range(2, 11)) and sent < 1.25
    assert seconds < 1.6 * 50 * MIB / Stream.LINK


def test_a_taker_that_misses_all_again_and_again_has_little_of_it_looked_up():
    """One message of 3 kB named 370,000 slices: 13 of them a second kept a core busy."""
    size, now = 512 * MIB, 10.0
    cast, taker = Cast(b"session!", bytes(32), size, random.Random(1), 0.0), Taker(1, b"liar", "10.0.0.1", now)
    holes = tuple(Hole(piece * cast.slices_each, 65535) for piece in range(512))
    looked = 0
    for _ in range(100):
        now += 0.01
        looked += len(taker.missed(holes, cast.slices_each, now)) * cast.slices_each
    assert LOOKS / 2 < looked < 2.1 * LOOKS
    honest = Taker(3, b"honest", "10.0.0.3", now)
    few = tuple(Hole(piece * cast.slices_each, 30) for piece in range(512))
    assert tuple(honest.missed(few, cast.slices_each, now)) == few


DEAF = (Hole(0, 0),)


@pytest.mark.parametrize("lie", [
    lambda link, came, lost: (came, lost, DEAF),
    lambda link, came, lost: (0, 0, DEAF),
    lambda link, came, lost: (came * 0.97, came * 0.03, [Hole(int(came) * link * 7 + n, 3) for n in range(0, 90, 9)]),
], ids=["all came", "nothing is told", "some is missed"])  # fmt: skip
def test_hosts_that_do_not_listen_have_little_sent_to_nobody(lie):
    """They said that all came, and four gigabytes went to the group, past all others, for a few words."""
    stream = Stream(512 * MIB, 3)
    stream.run(lie)
    assert stream.handed < 80 * MIB and not stream.cast
    stream.now += 100.0
    stream.want(stream.links)
    assert not stream.cast, "they are offered no other so soon"
    stream.want(range(11, 14))
    assert stream.cast and len(stream.cast.takers) == 3


def test_who_hears_a_cast_shows_it_and_has_all_of_it(make_class, monkeypatch):
    monkeypatch.setattr(cast_trials, "APART_MIN", 128 << 10)
    monkeypatch.setattr(cast_trials, "APART_TIME", 0.05)
    monkeypatch.setattr(casting, "TRIAL_LAST", 0.1)
    left_out, choose = [], cast_trials.Trials.choose
    monkeypatch.setattr(cast_trials.Trials, "choose", lambda *about: left_out.append(choose(*about)) or left_out[-1])
    lab, ana, takers = make_class(4, loss=0.005)
    begin(lab, takers, 4)
    wait_for_all(lab, takers)
    assert sum(slice_ is not None for slice_ in left_out) > 3
    assert len(lab.data) < ana.network.casts.sent * 1440 < 1.4 * len(lab.data)


def test_nobody_listens_for_ever_to_what_is_sent_again_and_again():
    receiver = receiver_of()
    reason, _ = overs_of(receiver, SLICE, 0.001, 10.0)
    assert reason == "more comes than there is" and receiver._slices < 5 * 3 * 46


def test_who_may_send_little_casts_nothing(make_class):
    lab, ana, takers = make_class(3, size=SMALL)
    ana.peer.fetching.set_limits(400e3, None, lab.world.now)
    ask_all(lab, takers)
    wait_for_all(lab, takers)
    assert not ana.network.casts.sent


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=100))
def test_no_bytes_make_the_decoder_raise_anything_else(data):
    with contextlib.suppress(WireError):
        assert encode_cast_header(decode_cast_header(data)) == data[:30]


def test_the_rate_rises_gives_way_to_loss_and_bears_a_little():
    rate = CastRate()
    for step in range(10):
        rate.on_round(0.01, rate.rate, step * 0.1)
    high = rate.rate
    assert high > 5 * RATE_FIRST
    rate.on_round(0.3, high, 1.1)
    assert rate.rate == 0.7 * high
    for step in range(3):
        rate.on_round(0.0, rate.rate, 1.5 + step * 0.1)
    assert 0.9 * high < rate.rate < high and not rate.is_hopeless(2.0)
    for step in range(200):
        rate.on_round(0.5, rate.rate, 2 + step)
    assert rate.rate == RATE_MIN and rate.is_hopeless(202.0)


def test_a_cast_that_was_fast_and_is_slow_for_long_is_left_to_the_swarm():
    rate = CastRate()
    rate.on_round(0.0, 10e6, 0.0)
    for step in range(40):
        assert not rate.is_hopeless(step * 0.1) or step > 29
        rate.on_round(0.0, 2e6, step * 0.1)
    assert rate.is_hopeless(4.0)


def test_a_cast_to_many_goes_on_at_a_rate_that_to_few_is_not_worth_while():
    few, many = CastRate(), CastRate()
    for rate, takers in ((few, 5), (many, 60)):
        for step in range(40):
            rate.on_round(0.0, 12e6 if step < 5 else 1e6, step * 0.1, takers)
    assert few.is_hopeless(4.0) and not many.is_hopeless(4.0)


def worst_of(losses_told):
    """What counts of the last round, where one of three takers told these."""
    losses, worst = Losses(), 0.0
    for loss in losses_told:
        for taker, told in (("a", loss), ("b", 0.0), ("c", 0.0)):
            losses.note(taker, told)
        worst = losses.worst(losses.of_round())
    return worst


def test_a_little_loss_that_comes_in_bursts_is_no_queue_and_one_that_stays_is():
    assert worst_of([0.0, 0.0, 0.04, 0.04]) == 0.0
    assert worst_of([0.0, 0.0, 0.1, 0.1]) == 0.1
    assert worst_of([0.0, *[0.04] * 8]) == 0.04


def test_bursts_that_a_few_lose_in_one_round_are_no_queue_in_common():
    losses = Losses()
    for taker, loss in enumerate((0.037, 0.037, 0.037, 0.0, 0.0, 0.0, 0.0)):  # a run of 44 of 1,190 datagrams
        losses.note(taker, loss)
    assert losses.worst(losses.of_round()) == 0.0


def test_loss_counts_when_it_lasts_or_many_have_it_at_once():
    losses = Losses()
    losses.note("a", 0.5)  # it was busy
    losses.note("b", 0.0)
    losses.note("c", 0.0)
    assert losses.worst(losses.of_round()) == 0.0
    losses.note("a", 0.2)
    losses.note("b", 0.0)
    losses.note("c", 0.0)
    assert losses.worst(losses.of_round()) == 0.2
    other = Losses()
    for taker, loss in (("a", 0.1), ("b", 0.2), ("c", 0.0)):
        other.note(taker, loss)
    assert other.worst(other.of_round()) == 0.2
    assert other.of_round() is None


# ---- the sockets


class Heard(DoorListener):
    """Keeps the events."""

    def __init__(self):
        self.events = []

    def on_cast(self, event):
        self.events.append(event)

    def of(self, kind):
        return [event for event in self.events if isinstance(event, kind)]


def own_of_six():
    """An address of this machine with its interface, as `own_towards` has them; None: it has no IPv6."""
    link = next(iter(groups.links()), None) if HAS_SIX else None
    return link and f"{link.ip or link.own.partition('%')[0]}%{link.number}"


@contextlib.contextmanager
def ends_at(own):
    """A caster and a taker that have this address."""
    inbox = Inbox("closed")
    watch = Watch(inbox.fileno(), inbox.fileno())
    made = [Casts("0.0.0.0", watch, Heard(), lambda towards: own) for _ in range(2)]
    yield own, made[0], made[1]
    for casts in made:
        casts.end_all()
    inbox.close()


@pytest.fixture
def ends():
    """Both on the loopback interface, which no real cast takes."""
    with ends_at("127.0.0.1") as made:
        yield made


def own_session():
    """Drawn: from it follows the group, and what another test casts on this machine meanwhile is not for this one."""
    return os.urandom(8)


def turn_until(condition, *all_casts, seconds=5.0):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        for casts in all_casts:
            casts.turn(time.monotonic(), [one.datagrams.fileno() for one in casts._receiving.values()])
    return condition()


def test_pieces_travel_by_real_multicast_on_one_machine(ends):
    cast_all(*ends)


def test_pieces_travel_by_real_multicast_of_ipv6_on_one_machine():
    own = own_of_six()
    if own is None:
        pytest.skip("no IPv6 on this machine")
    with ends_at(own) as made:
        cast_all(*made)


def cast_all(own, caster, taker):
    """Four pieces, the last of which is short."""
    is_six = ":" in own
    session, data = own_session(), random.Random(8).randbytes(3 * 65536 + 1000)
    taker.join(session, own)
    caster.open(session, own, 20e6, time.monotonic())
    if not turn_until(lambda: taker._listener.of(CastHeard), caster, taker, seconds=2.0):
        pytest.skip("no multicast on this machine")
    plan = CastPlan(len(data), 65536, b"\xf0", 0.05, slice_size_of(is_six))
    taker.take(session, plan, time.monotonic())
    for piece in range(4):
        front = (piece + 1) * plan.slices_each
        caster.send(session, piece, 0, data[piece * 65536 : (piece + 1) * 65536], front)
    turn_until(lambda: len(taker._listener.of(CastPiece)) == 4, caster, taker)
    pieces = {event.index: bytes(event.data) for event in taker._listener.of(CastPiece)}
    assert b"".join(pieces[piece] for piece in range(4)) == data
    assert turn_until(lambda: any(report.is_through for report in taker._listener.of(CastReport)), caster, taker)
    assert not caster.backlog(session)


def test_a_taker_rests_between_two_looks_and_is_watched_when_nothing_comes(ends):
    own, caster, taker = ends
    session, now = own_session(), time.monotonic()
    taker.join(session, own)
    receiving = taker._receiving[session]
    watched = [receiving.datagrams.fileno()]
    caster.open(session, own, 20e6, now)
    if not turn_until(lambda: taker._listener.of(CastHeard), caster, taker, seconds=2.0):
        pytest.skip("no multicast on this machine")
    assert receiving.is_watched and not receiving.is_resting(time.monotonic()), "a probe is no stream"
    now = time.monotonic()
    taker.take(session, CastPlan(1 << 20, 65536, b"\xff" * 2, 10.0), now)
    receiving._looked_at = now - 1.0
    for at in (now, now + REST_MAX / 2):  # what comes while it rests is not looked at
        caster.send(session, 0, 0, bytes(1440), None)
        caster.turn(time.monotonic() + 1.0, [])
        assert receiving.datagrams.socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        taker.turn(at, watched)
        assert not receiving.is_watched and receiving.is_resting(at) and taker.next_deadline() <= now + REST_MAX
    slices = receiving.receiver._slices
    taker.turn(now + 1.01 * REST_MAX, [])
    assert receiving.receiver._slices == slices + 1 and not receiving.is_watched
    taker.turn(now + 2.02 * REST_MAX, [])
    assert receiving.is_watched and not receiving.is_resting(now + 2.02 * REST_MAX)


def test_a_taker_with_a_small_buffer_looks_before_it_is_full(ends):
    own, _, taker = ends
    session = own_session()
    taker.join(session, own)
    receiving = taker._receiving[session]
    receiving.receiver.take(CastPlan(1 << 20, 65536, b"\xff" * 2, 10.0), 0.0)
    room = receiving.datagrams.receive_buffer_size()
    receiving._looked_at = 0.0
    receiving._rest(room // 2, 0.01)  # half of it in 10 ms: a quarter comes in 5
    assert receiving.is_resting(0.0149) and not receiving.is_resting(0.0151)


def test_ten_thousand_forged_datagrams_over_real_sockets_end_the_cast_and_fill_no_memory(ends):
    own, caster, taker = ends
    session, data = own_session(), random.Random(8).randbytes(4 * 65536)
    taker.join(session, own)
    caster.open(session, own, 20e6, time.monotonic())
    if not turn_until(lambda: taker._listener.of(CastHeard), caster, taker, seconds=2.0):
        pytest.skip("no multicast on this machine")
    taker.take(session, CastPlan(len(data), 65536, b"\xf0", 0.05), time.monotonic())
    rng, receiver, group = random.Random(9), taker._receiving[session].receiver, caster._sending[session].sender.group
    forger = casting_socket(own)
    for burst in range(100):
        for number in range(100):
            head = CastDatagram(SLICE, session, number, rng.randrange(4), 1440 * rng.randrange(45), rng.randrange(184))
            with contextlib.suppress(BlockingIOError):
                forger.sendto(encode_cast_header(head) + bytes(1440), group)
        if burst == 5:
            caster.send(session, 0, 0, data[:65536], 46)
        caster.turn(time.monotonic(), [])
        taker.turn(time.monotonic(), [taker._receiving[session].datagrams.fileno()])
        assert receiver._parts_size + receiver._unread <= len(data)
    forger.close()
    assert turn_until(lambda: taker._listener.of(CastOver), taker)
    assert taker._listener.of(CastOver)[0].reason == "more comes than there is"
    assert all(len(event.data) == 65536 for event in taker._listener.of(CastPiece))


def test_what_comes_from_another_address_than_the_casters_is_not_read(ends):
    own, caster, taker = ends
    session = own_session()
    taker.join(session, own)
    taker._receiving[session]._caster_ip = "198.51.100.7"
    caster.open(session, own, 20e6, time.monotonic())
    turn_until(lambda: False, caster, taker, seconds=0.3)
    assert not taker._listener.events


@pytest.mark.parametrize("own, found", [
    ("fd00::7", "fd00::7%3"), ("fd01::8", "fd01::8%2"),  # an interface's own, or one of its network
    ("fd07::9", None), ("fe80::7", "fe80::7%eth0"), ("10.0.0.7", "10.0.0.7"), ("::1", None), (None, None),
])  # fmt: skip
def test_a_cast_leaves_by_the_interface_that_leads_to_its_takers(own, found, monkeypatch):
    links = [groups.Link(2, "fd01::7", "fe80::1%eth1"), groups.Link(3, "fd00::7", "fe80::2%eth0"),
             groups.Link(4, "fd00::9", "fe80::3%wlan0"), groups.Link(5, "", "fe80::4%docker0")]  # fmt: skip
    monkeypatch.setattr(multicast, "address_towards", lambda towards, number=0: None if number else own)
    monkeypatch.setattr(groups, "links", lambda: links)
    with pytest.raises(OSError) if found is None else contextlib.nullcontext():
        assert own_towards("fe80::99%eth0" if own == "fe80::7" else "fd00::99") == found
    monkeypatch.setattr(groups, "links", lambda: links[:1] + links[3:])
    assert own != "fd07::9" or own_towards("fd00::99") == "fd07::9%2", "there is but one that leads anywhere"


def test_of_several_links_with_several_networks_it_is_the_one_by_which_that_address_leads_there(monkeypatch):
    """What the system tells of each goes before what its one known address lets guess."""
    links = [groups.Link(2, "fd00::7", "fe80::1%eth1"), groups.Link(3, "fd01::7", "fe80::2%eth0")]
    towards = {0: "fd02::7", 2: "fd00::7", 3: "fd02::7"}
    monkeypatch.setattr(multicast, "address_towards", lambda target, number=0: towards[number])
    monkeypatch.setattr(groups, "links", lambda: links)
    assert own_towards("fd02::99") == "fd02::7%3"
    towards.update({0: "fd00::7", 2: None, 3: "fd00::7"})
    assert own_towards("fd02::99") == "fd00::7%3", "by the route, though another link has that address"


def test_the_way_there_by_one_interface_has_the_same_address_or_there_is_none():
    own = address_towards("198.51.100.1")
    if own is None or not hasattr(socket, "if_nameindex"):
        pytest.skip("no way out of this machine")
    ways = [address_towards("198.51.100.1", number) for number, _ in socket.if_nameindex()]
    assert set(ways) <= {own, None} | {ip for ip, _ in interfaces()}
    assert sys.platform != "linux" or own in ways


def test_the_own_address_towards_one_of_a_link_is_found_with_its_interface():
    link = next((link for link in groups.links() if is_of_link(link.own)), None)
    if link is None:
        pytest.skip("no address of a link on this machine")
    assert f"{address_towards(link.own)}%{link.name}" == link.own


def test_where_the_system_has_no_multicast_of_ipv6_there_is_no_cast_by_it(monkeypatch):
    inbox = Inbox("closed")
    casts = Casts("0.0.0.0", Watch(inbox.fileno(), inbox.fileno()), Heard())
    for has_six in (True, False):
        monkeypatch.setattr("sockets.casts.HAS_SIX", has_six)
        assert casts.can_cast("fd00::7") == has_six and casts.can_cast("10.0.0.7") and not casts.can_cast("::1")
    inbox.close()


def test_on_loopback_there_is_no_cast():
    inbox = Inbox("closed")
    watch = Watch(inbox.fileno(), inbox.fileno())
    assert not Casts("127.0.0.1", watch, Heard()).can_cast("10.0.0.7")
    assert not Casts("0.0.0.0", watch, Heard()).can_cast("127.0.0.1")
    listener = Heard()
    Casts("0.0.0.0", watch, listener).join(b"sessions", "127.0.0.1")
    assert isinstance(listener.events[0], CastOver)
    inbox.close()
