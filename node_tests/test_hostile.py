"""The program under attack: by strangers on loopback, and by members that keep no rule (A, C to G of THREATS.md)."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import re
import select
import socket
import threading
import time
from collections import deque
from pathlib import Path

import pytest

import rdt
from node_tests.stage.amounts import amount
from node_tests.stage.lab import MIB, PORT, Lab, Node, content
from node_tests.stage.outlaw import (
    BAD_NAMES,
    BAD_PLACES,
    NASTY,
    Outlaw,
    Strangers,
    entry_of,
    nonsense,
    offers_all,
    value_for,
)
from node_tests.stage.running import Running, free_port, status_of
from node_tests.stage.simulator import Pair, data_packet
from node_tests.stage.window import quiet_session
from prompt.session import WAITING_LINES_MAX
from protocol import messages
from protocol.content import names
from protocol.content.pieces import digests_of, identity_of
from protocol.exchange.lists import LIST_ROWS_MAX
from protocol.membership.chat import ChatDesk
from protocol.membership.labels import fold
from protocol.membership.proofs import node_id_of
from protocol.membership.roster import Roster
from protocol.messages import NOWHERE, MemberEntry, encode
from protocol.network import Listener
from protocol.results import ChatReceived, DownloadDone, ListEntry, Outcome, Stopped, UploadDone
from protocol.ruling.index import Index
from protocol.transport import acknowledging, links
from protocol.transport import packets as wire
from protocol.transport import receiving as streams

ON_LINUX = os.path.isdir("/proc/self")


def dropped_by_kernel(port):
    """Datagrams that did not fit into the receive buffer of the socket at this port."""
    lines = Path("/proc/net/udp").read_text().splitlines()[1:]
    return sum(int(line.split()[-1]) for line in lines if line.split()[1].endswith(":%04X" % port))


class Eavesdropper:
    """Stands between one node and another, passes everything on at a bounded rate, and remembers what it saw."""

    def __init__(self, target, bytes_per_second):
        self.target = target
        self.near, self.far = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
        for sock in (self.near, self.far):
            sock.bind(("127.0.0.1", 0))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * MIB)
        self.address = self.near.getsockname()
        self.client = None
        self.seen = deque(maxlen=300)
        self.rate = bytes_per_second
        self._is_over = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._is_over = True
        self._thread.join(5)
        self.near.close()
        self.far.close()

    def _run(self):
        free_at = time.monotonic()
        while not self._is_over:
            for sock in select.select([self.near, self.far], [], [], 0.1)[0]:
                data, address = sock.recvfrom(65_536)
                self.seen.append(data)
                if sock is self.near:
                    self.client = address
                    self.far.sendto(data, self.target)
                elif self.client is not None:
                    self.near.sendto(data, self.client)
                free_at = max(free_at, time.monotonic() - 0.01) + len(data) / self.rate
                time.sleep(max(0.0, free_at - time.monotonic()))


def random_datagram(rng):
    """Noise of any length; most of it with a right opening, so that it gets past the checksum."""
    data = bytearray(os.urandom(rng.choice((0, 7, 20, 40, 100, 200, 1400, rng.randrange(9000)))))
    if len(data) >= wire.PREFIX_SIZE and rng.random() < 0.7:
        data[4:6] = bytes([wire.VERSION, rng.randrange(12)])
        wire.seal(data)
    return data


def damaged(data, rng, with_right_checksum):
    """A copy with some bits, bytes or its end changed."""
    copy = bytearray(data)
    for _ in range(rng.randrange(1, 4)):
        place = rng.randrange(min(len(copy), 80)) if rng.random() < 0.7 else rng.randrange(len(copy))
        copy[place] ^= rng.randrange(1, 256)
    if rng.random() < 0.1:
        del copy[rng.randrange(1, len(copy)) :]
    return wire.seal(copy) if with_right_checksum and len(copy) >= wire.PREFIX_SIZE else copy


@pytest.mark.skipif(not ON_LINUX, reason="memory and threads of another process are read from /proc")
def test_noise_and_damage_during_a_transfer(tmp_path):
    """D01, D02: it ends right, no thread dies, memory stays bounded, and strangers get back less than they sent."""
    seed = random.SystemRandom().randrange(10**6)
    print("seed", seed)
    rng, port = random.Random(seed), free_port()
    content = os.urandom(amount(60_000_000, 8_000_000))
    logs = [tmp_path / "ana.log", tmp_path / "bo.log"]
    for name in ("ana", "bo"):
        (tmp_path / name / "shared").mkdir(parents=True)
    (tmp_path / "ana" / "shared" / "lab.iso").write_bytes(content)
    (tmp_path / "ana" / "shared" / "small.bin").write_bytes(content[:100_000])
    ana_at, flags = ("127.0.0.1", port), ["node_client.py", "--ip", "127.0.0.1", "--port"]
    strangers = Strangers(16)
    with Running(*flags, port, "--name", "ana", "--log", logs[0], cwd=tmp_path / "ana") as ana:
        ana.expect(r"^\* supernode at")
        ana.ask_until("G", "lab.iso")
        with Eavesdropper(ana_at, 1.5e6) as between, \
                Running(*flags, between.address[1], "--name", "bo", "--log", logs[1], cwd=tmp_path / "bo") as bo:
            bo.expect(r"^\* joined ana's network")
            bo_at = ("127.0.0.1", between.client[1])
            bo.ask_until("G", "small.bin")
            bo.type("R small.bin")
            bo.expect(r"^OK small\.bin")  # now every thread that a transfer needs is there
            bo.type("R lab.iso")
            bo.ask_until("V", r"receiving +\d+%")
            nodes = [ana.process.pid, bo.process.pid]
            threads = [status_of(pid, "Threads") for pid in nodes]
            memory = [status_of(pid, "VmRSS") for pid in nodes]
            began = time.monotonic()
            for number in range(amount(200_000, 8_000)):
                target = bo_at if number % 3 == 0 else ana_at
                if number % 2:
                    strangers.send(number, random_datagram(rng), target)
                elif number % 4:
                    strangers.send(number, damaged(rng.choice(between.seen), rng, rng.random() < 0.5), target)
                else:  # from the very address of the other end, as damage on the way is
                    sock = between.near if target is bo_at else between.far
                    sock.sendto(damaged(rng.choice(between.seen), rng, False), target)
                if number % 100 == 0:
                    strangers.listen()
                    time.sleep(max(0.0, began + number / 30_000 - time.monotonic()))
            attacked = time.monotonic() - began
            between.rate = 1e9  # the attack is over: now the rest may hurry
            assert bo.count(r"^OK lab\.iso") == 0, "the transfer was over before the attack was"
            done = bo.expect(r"^OK lab\.iso .* in (\d+):(\d+),")
            lost = sum(map(dropped_by_kernel, (port, bo_at[1])))
            print("did not get through to a node:", lost)
            print("attack %.1f s, transfer %s:%s" % (attacked, *done.groups()))
            time.sleep(0.2)
            strangers.listen()
            assert 0 < strangers.received < strangers.sent
            assert [status_of(pid, "Threads") for pid in nodes] == threads
            peaks = [status_of(pid, "VmHWM") - before for pid, before in zip(nodes, memory)]
            print("grown by KiB", peaks, "replies", strangers.received, "of", strangers.sent)
            assert max(peaks) < 64 << 10
            bo.type("T still here")
            ana.expect("^<bo> still here$")
            for one in (bo, ana):
                assert one.end() == 0, one.story()
    strangers.close()
    kept = tmp_path / "bo" / "shared" / "lab.iso"
    assert hashlib.sha256(kept.read_bytes()).digest() == hashlib.sha256(content).digest()
    for log in logs:
        assert "Traceback" not in log.read_text(), log.read_text()[:5000]


# ---- inside the transport -----------------------------------------------------------------------------------------


def arrive(pair, datagram):
    """As if `a` had sent it."""
    pair.b.endpoint.receive(memoryview(datagram), len(datagram), Pair.A, pair.world.now)


def numbered(pair, number, offset, payload):
    """A DATA packet of `a`, so many behind the first one."""
    return data_packet(pair.back.local_id, pair.first + number, offset, payload, floor=number)


def connected_pair(seed=1):
    pair = Pair(seed=seed)
    assert pair.connected()
    pair.first = pair.back.acknowledging.largest + 1
    return pair


def test_numbers_with_gaps_do_not_fill_the_memory():
    """E05: every second packet number is left out, and none is ever called settled."""
    pair = connected_pair()
    for number in range(0, 20_000, 2):
        arrive(pair, wire.encode_ping(pair.back.local_id, pair.first + number, number))
    assert len(pair.back.acknowledging.numbers) <= acknowledging.NUMBER_RANGES_MAX


def test_one_byte_segments_side_by_side_do_not_fill_the_memory():
    """E05: no gap between them, so that they are one range, but thousands of objects."""
    pair = connected_pair()
    for number in range(20_000):
        arrive(pair, numbered(pair, number, number + 1, b"x"))
    assert len(pair.back.receiving._runs) <= streams.GAPS_MAX


EMPTY = b"\x00\x00\x00\x00\x00"  # a frame without a body


@pytest.mark.parametrize("order", ["in order", "the first one last"])
def test_a_flood_of_empty_messages_ends_the_connection(order):
    """C03, E05: nobody who sends by the window's rules has so many unread messages; who floods is closed."""
    pair = connected_pair()
    pair.reading = False
    pair.back.receiving.framer.frames_max = links.MESSAGES_WAITING_MAX
    pair.back.receiving.window = pair.back.receiving.credit = streams.RECEIVE_WINDOW_MAX
    packets = [numbered(pair, number, 1000 * number, EMPTY * 200) for number in range(200)]
    for packet in packets if order == "in order" else packets[1:] + packets[:1]:
        arrive(pair, packet)
    pair.b.pump()
    assert pair.lost["b"].reason == "sent more messages than anybody reads"
    assert len(pair.unread) <= links.MESSAGES_WAITING_MAX + 1


def test_small_messages_that_nobody_reads_yet_all_wait_and_are_read_after_the_close():
    pair = connected_pair()
    pair.reading = False
    count = streams.RECEIVE_WINDOW_INITIAL // len(EMPTY)
    for _ in range(count):
        pair.there.send_frame(0, b"")
    pair.there.shut_down("done")
    pair.a.pump()
    pair.world.run(pair.world.now + 10)
    assert pair.lost["a"].is_clean and pair.lost["b"].is_clean
    assert len(pair.received["b"]) == count


def test_a_hundred_thousand_small_messages_wait_for_a_busy_reader():
    """After large messages the window is wide open: an honest program is not cut off for using it."""
    pair = connected_pair()
    for _ in range(10):
        pair.there.send_frame(0, bytes(1 << 20))
    pair.a.pump()
    pair.world.run(pair.world.now + 20)
    assert pair.back.receiving.window == streams.RECEIVE_WINDOW_MAX
    pair.reading, count = False, amount(100_000, 20_000)
    for _ in range(count):
        pair.there.send_frame(0, b"hello")
    pair.a.pump()
    pair.world.run(pair.world.now + 5)
    pair.read()
    pair.world.run(pair.world.now + 20)
    assert len(pair.received["b"]) == 10 + count
    assert not pair.lost
    assert pair.b.endpoint.intake.unread == 0


def test_a_window_that_small_messages_use_does_not_grow():
    pair = connected_pair()
    for _ in range(amount(4, 2)):
        for _ in range(20_000):
            pair.there.send_frame(0, b"hello")
        pair.a.pump()
        pair.world.run(pair.world.now + 5)
    assert len(pair.received["b"]) == amount(80_000, 40_000)
    assert pair.back.receiving.window == streams.RECEIVE_WINDOW_INITIAL


# ---- members that keep no rule ------------------------------------------------------------------------------------


KEPT_BY_SOME = ("C:evil", "a:stream", "f.txt::$DATA", "CON", "con.txt", "COM1", "LPT\u00b9", "x.", "x ", "a<b", "a*b")


def test_names_that_only_some_can_keep_are_listed_and_refused_where_they_cannot(lab, monkeypatch):
    """A02: fetched by a machine that cannot keep them, they are refused with a sentence, and nothing is written."""
    ana, bo = lab.node("ana"), lab.node("bo")
    x = Outlaw(lab).join(ana)
    x.say(x.link, messages.ShareAdd(tuple(entry_of(name, name.encode().ljust(32)) for name in KEPT_BY_SOME)))
    lab.run(1)
    assert sorted(row.name for row in bo.list()) == sorted(KEPT_BY_SOME)
    monkeypatch.setattr(names, "IS_STRICT", True)
    before = sorted(os.listdir(bo.folder))
    for number, row in enumerate(bo.list(), 1):
        bo.do("fetch", row, lab.world.now, lambda answer: None)
        lab.run(0.1)
        assert len(bo.told(Stopped)) == number and "is refused" in bo.told(Stopped)[-1].reason
    assert sorted(os.listdir(bo.folder)) == before


def test_names_that_nobody_could_keep_are_not_even_listed(lab):
    """A01-A04: the list shows only the one good name, and asking for a bad one finds nothing."""
    ana, bo = lab.node("ana"), lab.node("bo")
    x = Outlaw(lab).join(ana)
    bad_names = [name for name in BAD_NAMES if name not in KEPT_BY_SOME]
    entries = [entry_of(name, bytes([number]) * 32) for number, name in enumerate(bad_names)]
    x.say(x.link, messages.ShareAdd(tuple(entries)), messages.ShareAdd((entry_of("%2e%2e%2fx"),)))
    x.say(x.link, messages.ShareAdd((entry_of("\u00e9\u6f22 good.txt"),)))
    lab.run(1)
    assert sorted(row.name for row in bo.list()) == ["%2e%2e%2fx", "\u00e9\u6f22 good.txt"]
    assert ana.peer.supernode.dropped == len(bad_names)
    assert bo.fetch("../x").kind == "nobody"


def test_ten_thousand_shares_and_no_more(lab):
    ana, bo = lab.node("ana"), lab.node("bo")
    x = Outlaw(lab).join(ana)
    for first in range(0, 12_000, 100):
        entries = [entry_of("f%d" % number, number.to_bytes(32, "big")) for number in range(first, first + 100)]
        x.say(x.link, messages.ShareAdd(tuple(entries)))
        if first % 4000 == 0:
            x.live(5)
    lab.run(1)
    assert len(ana.peer.supernode.catalogue.index) == messages.SHARES_MAX
    assert len(bo.list("f1*")) == 1111
    bo.do("say", "still fast", lab.world.now)
    lab.run(0.2)
    assert [said.text for said in ana.told(ChatReceived)] == ["still fast"]


PATTERNS = ["[z-a]", "[!~-&&]", "[[?^-*!!-]*", "*" * 1000, "*a" * 300, "[" * 1000, "\ufdfa" * 300]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_pattern_made_to_hurt_is_answered_at_once(pattern):
    index = Index()
    index.add(b"x" * 8, [entry_of("a" * 200 + str(number), number.to_bytes(32, "big")) for number in range(2000)])
    began = time.monotonic()
    index.page(pattern, 0)
    assert time.monotonic() - began < 1.0


def test_lists_made_anew_again_and_again_cost_the_one_who_asks(lab):
    """Looking through 10,000 names counts as five requests: the burst of 400 pays for 80, and the rest has to wait."""
    ana, bo = lab.node("ana"), lab.node("bo")
    index, x = ana.peer.supernode.catalogue.index, Outlaw(lab).join(ana)
    index.add(b"somebody", [entry_of("f%d" % number, number.to_bytes(32, "big")) for number in range(10_000)])
    sorted_anew = []
    matching = index._matching
    index._matching = lambda pattern: sorted_anew.append(pattern) or matching(pattern)
    for number in range(300):
        x.say(x.link, messages.ShareAdd((entry_of("new%d" % number),)), messages.ListRequest(number, "f", 0))
    lab.run(1)
    assert len(sorted_anew) <= 85
    assert len(bo.list("f99")) == 111


def test_one_link_is_one_member(lab):
    """F12: one who joins as somebody else on the same link a thousand times does not fill the roster."""
    ana = lab.node("ana")
    x = Outlaw(lab).join(ana)
    for number in range(1200):
        opening = number.to_bytes(16, "big")
        x.say(x.link, messages.Join(bytes(16), 0, node_id_of(opening), opening, "y", True, 0))
        if number % 100 == 0:
            lab.run(1)
    lab.run(1)
    assert len(ana.peer.supernode) <= 2
    assert lab.node("bo").told(Outcome)[0].kind == "joined"


def test_a_host_that_comes_and_goes_does_not_fill_the_roster(lab):
    ana = lab.node("ana")
    x = Outlaw(lab).join(ana)
    for number in range(1200):
        opening, link = number.to_bytes(16, "big"), x.connect(ana)
        x.say(link, messages.Join(bytes(16), 0, node_id_of(opening), opening, "y", True, 0))
        lab.run(0.005)
        x.network.disconnect(link, "")
    assert len(ana.peer.supernode) < 200
    assert lab.node("bo").told(Outcome)[0].kind == "joined"


def test_no_set_of_names_makes_equal_labels_or_an_endless_search_for_one():
    """C02: all the labels that one might get are the names of others already."""
    last = b"\x5a" * 8
    names = ["ana"] + ["ana~" + last.hex()[:digits] for digits in range(4, 18, 2)]
    names += ["\uff21\uff4e\uff41", "ANA", "\u0430na", "ana\uff5e5a5a", "ana "]
    roster = Roster()
    for number, name in enumerate(names):
        roster.put(MemberEntry(bytes([number]) * 8, name, NOWHERE, number, True, True))
    roster.put(MemberEntry(last, "ana", NOWHERE, 99, True, True))
    labels = list(roster.labels().values())
    assert len({fold(label) for label in labels}) == len(names) + 1
    assert roster.label_of(bytes(8)) == "ana" and roster.label_of(last) == "ana~5a5a"


def test_hints_to_many_addresses_send_few_queries(lab):
    """Request forgery: a member names address after address where somebody might rule."""
    ana = lab.node("ana")
    x = Outlaw(lab).join(ana)
    asked = []
    ana.network.send_lone = lambda address, data: asked.append(address)
    for number in range(5000):
        x.say(x.link, messages.Stale(7, ("10.%d.%d.7" % divmod(number, 250), 6020)))
    lab.run(1)
    assert len(asked) < 20


def test_joins_in_a_later_term_cause_no_storm_of_queries(lab):
    ana = lab.node("ana")
    x = Outlaw(lab).join(ana)
    asked = []
    ana.network.broadcast_lone = lambda port, data: asked.append(port)
    for number in range(200):
        opening, link = number.to_bytes(16, "big"), x.connect(ana)
        x.say(link, messages.Join(x.welcome.network_id, 9, node_id_of(opening), opening, "y", True, 0))
        lab.run(0.02)
    assert len(asked) <= 200 * 0.03 + 2


def test_orders_of_a_member_are_heard_by_nobody(lab):
    """F09-F11: rosters, handovers and claims, on the member's link, on links for pieces, and as lone messages."""
    ana, bo, cy = lab.node("ana"), lab.node("bo"), lab.node("cy")
    x = Outlaw(lab).join(ana)
    links = [x.link, x.link_to(bo), x.link_to(ana)]
    me = MemberEntry(x.node_id, "evil", ("8.8.8.8", 53), 0, True, True)
    orders = [
        messages.RosterPage(1, 99, 0, 1, (me,)),
        messages.RosterUpdate(1, 99, (me,), (messages.Departure(bo.peer.node_id, 1, 0),)),
        messages.Handover(2, x.node_id, bytes(32)),
        messages.Moved(2, ("10.0.0.66", PORT), x.node_id),
        messages.Stale(2**32 - 1, ("10.0.0.66", PORT)),
        messages.Welcome(x.welcome.network_id, 2**32 - 1, x.node_id, x.welcome.secret, bytes(32), 0, 1, 1),
        messages.NotSupernode(9, ("10.0.0.66", PORT)),
        messages.Busy(1, "go away"),
        messages.Chat(2**63, bo.peer.node_id, "bo", 2**63, "bo never said this"),
        messages.Relay(1, b"f" * 32, 5, "../x", False, x.node_id),
        messages.ListPage(1, 0, 1, ()),
        messages.SharesWanted(),
        messages.Offer(1, b"f" * 32, bo.peer.node_id, cy.peer.node_id, True, True),
    ]
    for order in orders:
        for link in links:
            x.say(link, order)
        for node in (ana, bo, cy):
            x.network.send_lone((node.ip, PORT), encode(order))
    x.live(10)
    assert [node.supernode_label() for node in (ana, bo, cy)] == ["ana"] * 3 and ana.peer.is_supernode
    assert all(sorted(row.label for row in node.peer.members(lab.world.now)) == ["ana", "bo", "cy", "x"]
               for node in (ana, bo, cy))
    assert not any(node.told(ChatReceived) for node in (ana, bo, cy))


# ---- sources that lie ---------------------------------------------------------------------------------------------


def test_eight_sources_that_keep_us_waiting_keep_nobody_out(lab):
    """G06: all places are taken by nodes that say "queued" for ever; the honest one offers last."""
    data = content(3 * MIB)
    ana, bo, cy = lab.node("ana"), lab.node("bo", shared={"lab.iso": data}), lab.node("cy")
    lab.world.between(bo.ip, ana.ip).latency = 0.02
    crowd = [offers_all(Outlaw(lab, 60 + number, "x%d" % number).join(ana), data) for number in range(9)]
    for x in crowd:
        x.asked = lambda link, request, x=x: x.say(link, messages.Queued(5))
    assert cy.fetch("lab.iso").kind == "started"
    for _ in range(40):
        for x in crowd:
            x.say(x.link, messages.Ping(1, 1))
        lab.run(1)
    assert cy.told(DownloadDone) and cy.told(DownloadDone)[0].sources == ("bo",)


def test_a_source_that_plays_with_its_queue_and_its_map_is_left(lab):
    data = content(3 * MIB)
    ana, cy = lab.node("ana"), lab.node("cy")
    x = offers_all(Outlaw(lab).join(ana), data)
    file_id = identity_of(len(data), digests_of(data))
    x.say(x.link, messages.ShareAdd((entry_of("lab.iso", file_id, len(data)),)))
    requests = []
    x.asked = lambda link, request: requests.append(link)
    lab.run(1)
    assert cy.fetch("lab.iso").kind == "started"
    lab.run(1)
    for number in range(3000):
        x.say(requests[0], messages.Queued(1), messages.Queued(0))
        x.say(requests[0], messages.PieceMap(bytes(32), number % 2 == 0, b"\xff" * 512))
    lab.run(1)
    assert len(requests) < 200 and "too much that was not asked for" in x.lost


def test_done_is_told_only_for_what_was_sent_and_not_for_ever(lab):
    bo_data = content(1000)
    ana, bo = lab.node("ana"), lab.node("bo", shared={"a.txt": bo_data})
    x = Outlaw(lab).join(ana)
    link, file_id = x.link_to(bo), identity_of(1000, digests_of(bo_data))
    for _ in range(500):
        x.say(link, messages.PieceRequest(file_id, 0), messages.TransferDone(file_id))
    lab.run(1)
    assert len(bo.told(UploadDone)) == 0
    for _ in range(500):
        x.say(link, messages.PieceRequest(file_id, 0))
        lab.run(0.005)
        x.say(link, messages.TransferDone(file_id))
    assert 10 < len(bo.told(UploadDone)) < 80


def test_links_in_anothers_name_do_not_keep_it_away(lab):
    data = content(100_000)
    ana, bo, cy = lab.node("ana"), lab.node("bo", shared={"a.bin": data}), lab.node("cy")
    x = Outlaw(lab).join(ana)
    for _ in range(6):
        x.link_to(bo, node_id=cy.peer.node_id)
    for _ in range(6):
        x.link_to(bo)
    assert x.lost == ["too many links"] * 2
    assert isinstance(cy.fetched("a.bin"), DownloadDone)


def test_one_member_does_not_take_all_relays(lab):
    ana, cy = lab.node("ana"), lab.node("cy", mesh=False)
    bo = lab.node("bo", shared={"a.bin": content(100_000)})
    x = Outlaw(lab).join(ana)
    for number in range(200):
        x.say(x.link, messages.Search(number, number.to_bytes(32, "big"), 9, "f", False, bytes(8), NOWHERE, True))
    lab.run(0.5)
    assert sum(fetch.wish is None for fetch in ana.peer.fetching.fetches.values()) < 60
    assert isinstance(cy.fetched("a.bin"), DownloadDone) and bo.told(UploadDone)


def test_who_asks_for_lists_of_pieces_and_does_not_read_is_left(tmp_path):
    """E03, E06: 37 bytes ask for 32 KiB; what waits for one who does not read stays bounded."""
    lab = Lab(tmp_path, packets=True)
    with open(tmp_path / "big.bin", "wb") as file:
        file.truncate(100 * MIB)
    ana = lab.node("ana")
    os.link(tmp_path / "big.bin", os.path.join(ana.folder, "big.bin"))
    ana.scan()
    x = Outlaw(lab).join(ana)
    link, file_id = x.link_to(ana), next(iter(ana.peer.holdings._shared))
    x.network.links._listener = Listener()  # it never takes anything any more
    most = 0
    for _ in range(amount(3000, 300)):
        for _ in range(10):
            x.say(link, messages.ManifestRequest(file_id))
        lab.run(0.01)
        most = max([most, *(made.backlog for made in ana.network.driver.endpoint.connections)])
    lab.run(70)
    assert MIB < most < 16 * MIB
    assert not ana.peer.serving.uploads.links
    lab.close()


# ---- a supernode that lies ----------------------------------------------------------------------------------------


class Tyrant(Outlaw):
    """Rules a network of its own: whoever asks is answered, whoever joins is welcome, and then told anything."""

    network_id = b"n" * 16

    def __init__(self, lab):
        super().__init__(lab, 1, "tyrant")
        self.orders = ()  # told to each who joins; functions are given its line of the roster

    def on_lone(self, address, data, now):
        query = messages.decode(data)
        if isinstance(query, messages.Query):
            self.network.send_lone(address, encode(messages.Answer(
                query.nonce, bytes(8), self.network_id, 1, self.node_id, messages.ROLE_SUPERNODE, messages.NO_NODE,
                NOWHERE, 0, 1, "tyrant", bytes(16),
            )))  # fmt: skip

    def welcome(self, **changes):
        fields = messages.Welcome(self.network_id, 1, self.node_id, b"s" * 16, bytes(32), 1, 1, 1)
        return fields._replace(**changes)

    def roster(self, *entries):
        lines = (MemberEntry(self.node_id, "tyrant", NOWHERE, 0, True, True), *entries)
        return messages.RosterPage(1, 1, 0, len(lines), lines)

    def greet(self, link, message):
        if isinstance(message, messages.Join):
            me = MemberEntry(message.node_id, message.name, ("10.0.0.2", PORT), 1, True, True)
            self.say(link, *[order(me) if callable(order) else order for order in self.orders])


def subject_of(lab, tyrant, *orders):
    """A node that comes to this network, and where it sends to from then on."""
    tyrant.hears, tyrant.orders = tyrant.greet, orders
    sent = []
    bo = Node(lab, "bo", 2)
    send_lone, connect = bo.network.send_lone, bo.network.connect
    bo.network.send_lone = lambda address, data: (sent.append(address), send_lone(address, data))
    bo.network.connect = lambda address, tries: (sent.append(address), connect(address, tries))[1]
    lab.nodes[:] = [bo]
    bo.do("start", ("10.0.0.1", PORT), PORT, lab.world.now)
    lab.run(5)
    return bo, sent


def test_places_in_a_lying_roster_are_never_sent_to(lab):
    """F11: not when standing by, not when fetching from there, not when the tyrant is gone."""
    tyrant = Tyrant(lab)
    lines = [MemberEntry(bytes([n] * 8), "n%d" % n, place, 0, True, True) for n, place in enumerate(BAD_PLACES, 1)]
    bo, sent = subject_of(lab, tyrant, tyrant.welcome(), lambda me: tyrant.roster(*lines, me))
    assert bo.told(Outcome)[0].kind == "joined"
    tyrant.hears = lambda link, message: [
        tyrant.say(link, messages.Offer(message.query_id, message.file_id, bytes(8), line.node_id, True, True))
        for line in lines if isinstance(message, messages.Search)
    ]  # fmt: skip
    bo.do("fetch", ListEntry(1, "a.bin", 9, b"f" * 32, content_size=9), lab.world.now, lambda answer: None)
    lab.run(15)
    lab.world.kill(tyrant.network)
    lab.run(40)
    assert bo.peer.is_supernode and bo.told(Stopped)
    assert not set(sent) & set(BAD_PLACES)


@pytest.mark.parametrize("what", ["two welcomes", "pages without end", "a page twice", "total of 65535", "a huge term"])
def test_a_welcome_that_makes_no_sense_is_told_and_leaves_nothing(lab, what):
    tyrant = Tyrant(lab)
    lines = tuple(MemberEntry(number.to_bytes(8, "big"), "m", NOWHERE, 5, True, True) for number in range(100))
    pages = [messages.RosterPage(1, 1, 100 * number, 1024, lines) for number in range(amount(600, 60))]
    bo, _ = subject_of(lab, tyrant, *{
        "two welcomes": [tyrant.welcome(), tyrant.welcome(), lambda me: tyrant.roster(me)],
        "pages without end": [tyrant.welcome(), *pages],
        "a page twice": [tyrant.welcome(), pages[0], pages[0], pages[1], pages[1]],
        "total of 65535": [tyrant.welcome(), pages[0]._replace(total=65535)],
        "a huge term": [tyrant.welcome(term=2**32 - 1), lambda me: tyrant.roster(me)],
    }[what])  # fmt: skip
    lab.run(10)
    membership = bo.peer.membership
    if what == "pages without end":  # the first 1,024 make a roster; what follows makes none
        assert len(membership.roster) <= messages.MEMBERS_MAX
    else:
        assert bo.told(Outcome)[0].kind == "refused"
        assert not len(membership.roster) and membership.supernode_link is None


def test_rows_that_name_other_contents_end_as_failures_that_say_so(lab):
    """The list of a lying supernode: an identity nobody has, sizes of 2**64 - 1, and rows without end."""
    tyrant = Tyrant(lab)
    bo, _ = subject_of(lab, tyrant, tyrant.welcome(), lambda me: tyrant.roster(me))
    row = messages.ListRow(b"f" * 32, 2**64 - 1, "lab.iso", False, 2**32 - 1, 2**64 - 1, 65535, (b"nobody!!",))

    def hears(link, message):
        if isinstance(message, messages.ListRequest):
            rows = (row._replace(name="\x1b]0;pwned\x07%d" % message.first),) + (row,) * 49
            tyrant.say(link, messages.ListPage(message.request_id, message.first, 2**32 - 1, rows))
        elif isinstance(message, messages.Search):
            offer = messages.Offer(message.query_id, message.file_id, bytes(8), tyrant.node_id, True, True)
            tyrant.say(link, offer)
        elif isinstance(message, messages.ManifestRequest):
            tyrant.say(link, messages.ManifestPage(message.file_id, 2**64 - 1, 0, bytes(32768)))

    tyrant.hears = hears
    rows = bo.list()
    assert len(rows) <= LIST_ROWS_MAX
    for entry in rows[:2]:
        bo.do("fetch", entry, lab.world.now, lambda answer: None)
    lab.run(30)
    reasons = [stopped.reason for stopped in bo.told(Stopped)]
    assert len(reasons) == 2 and "refused" in reasons[0] and "an impossible size" in reasons[1], reasons


def test_forged_lines_silence_nobody_for_longer_than_the_forger_rules():
    """A high counter in bo's name, and a line in our own that we never said: later ones are shown all the same."""
    desk = ChatDesk()
    bo, me = b"bobobobo", b"mememeee"
    assert desk.on_chat(messages.Chat(5, bo, "bo", 2**64 - 1, "forged"), me)
    assert not desk.on_chat(messages.Chat(6, me, "me", 1, "forged"), me)
    assert desk.say("mine")
    assert desk.on_chat(messages.Chat(7, me, "me", 1, "mine"), me)
    for counter in range(1, 5):
        assert desk.on_chat(messages.Chat(7 + counter, bo, "bo", counter, "true"), me)
        assert not desk.on_chat(messages.Chat(7 + counter, bo, "bo", counter, "true"), me)


# ---- anything at all ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(amount(4, 1)))
@pytest.mark.parametrize("where", ["the supernode", "a link for pieces", "a strange link", "a downloader", "the ruler"])
def test_no_message_by_anybody_at_any_place_raises(lab, where, seed):
    """C05, H07: in the simulator an exception ends the test; in the program it would be a logged traceback."""
    rng, data = random.Random(seed), content(3 * MIB)
    ana, bo = lab.node("ana"), lab.node("bo", shared={"lab.iso": data, "talks/x.txt": b"xx"})
    cy = lab.node("cy")
    x = offers_all(Outlaw(lab).join(ana), data)
    x.asked = lambda link, request: None
    known = [node.peer.node_id for node in lab.nodes] + list(bo.peer.holdings._shared) + [x.node_id, *x.welcome]
    known += [ana.peer.supernode.register.version + 1, 2, len(data)]
    links = {"the supernode": [x.link], "a link for pieces": [x.link_to(bo), x.link_to(ana)]}.get(where, [])
    for number in range(400):
        message = nonsense(rng, known)
        if where == "a downloader" and number % 100 == 0:
            cy.do("fetch_name", rng.choice(("lab.iso", "talks")), lab.world.now, lambda answer: None)
            lab.run(0.2)
        if where == "the ruler":
            link = cy.peer.membership.supernode_link
            lab.run(5) if link is None else cy.do("on_message", link, message, lab.world.now)
        else:
            links = [link for link in links + x.served if link in x.up] or [x.connect(ana)]
            x.say(rng.choice(links), message)
            if len(message) < 1100:
                x.network.send_lone((rng.choice((ana, bo, cy)).ip, PORT), message)
        if rng.random() < 0.1:
            lab.run(rng.choice((0.01, 0.1, 1.0)))
    lab.run(60)
    cy.do("say", "fine", lab.world.now)
    lab.run(1)
    assert "fine" in [said.text for said in cy.told(ChatReceived)]
    if where != "the ruler":
        assert ana.peer.is_supernode and "fine" in [said.text for said in bo.told(ChatReceived)]


def test_a_screen_that_stands_still_does_not_collect_chat_for_ever():
    """C03: the person has stopped the terminal; what is said meanwhile is bounded, the end of a download is kept."""
    session = quiet_session()
    for number in range(3 * WAITING_LINES_MAX):
        session.notify(ChatReceived("bo", "flood %d" % number, False))
    session.notify(Stopped(1, "lab.iso", 0, 9, "nobody here has it", False))
    assert session.inbox.qsize() == WAITING_LINES_MAX + 1


# ---- the program, with an outlaw in its network -------------------------------------------------------------------

HARMFUL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069]")


def frames_over_the_limit(connection):
    """A header that announces 4 GiB, past our own checks."""
    made = connection.channel.core
    connection.channel.post(lambda: made.sending.write(b"\x00\xff\xff\xff\xff"))
    connection.channel.post(lambda: connection.transport._network.endpoint.touch(made))


def test_an_outlaw_in_the_network_of_two_programs(tmp_path):
    """C01-C05, H07: text, names, cut messages and floods; the programs print plain lines and log no failure."""
    port, rng = free_port(), random.Random(5)
    for name in ("ana", "bo"):
        (tmp_path / name / "shared").mkdir(parents=True)
    flags = ["node_client.py", "--ip", "127.0.0.1", "--port", port, "--log", "log", "--name"]
    with contextlib.ExitStack() as stack:
        ana = stack.enter_context(Running(*flags, "ana", cwd=tmp_path / "ana"))
        ana.expect("^\\* supernode at")
        bo = stack.enter_context(Running(*flags, "bo", cwd=tmp_path / "bo"))
        bo.expect("^\\* joined")
        outlaw = stack.enter_context(rdt.open("127.0.0.1", 0))
        opening, link = os.urandom(16), outlaw.connect(("127.0.0.1", port))
        me = node_id_of(opening)
        link.send(encode(messages.Join(bytes(16), 0, me, opening, "\uff21NA\x1b[31m>\n", True, 0)))
        welcome = messages.decode(link.receive(5))
        bulk = outlaw.connect(("127.0.0.1", port))
        bulk.send(encode(messages.LinkHello(messages.PURPOSE_BULK, welcome.network_id, me)))
        bo.expect(r"^\* \uff21NA\\u\{1b\}\[31m\\u\{3e\}\\u\{a\} joined \(3 nodes\)$")

        for number, text in enumerate(NASTY, 1):
            link.send(encode(messages.Say(number, text)))
        bo.expect(r"^<.*> \\u\{0\}\\u\{7f\}$")
        bo.expect(r"^<\uff21NA[^<>]*> <ana> not me$")
        known = [me, welcome.network_id, welcome.supernode_id, 2, 3]
        for _ in range(amount(3000, 500)):
            for connection in (link, bulk):
                connection.send(nonsense(rng, known))
        for kind in messages.TABLE.values():
            if kind not in (messages.Leave, messages.Join):
                whole = encode(value_for(messages.record_of(kind), rng, known))
                for size in range(min(len(whole), 300)):
                    link.send(whole[:size])
        link.send(encode(messages.ShareAdd(tuple(entry_of(name) for name in (*NASTY[:4], "G\u00fcnther.txt")))))
        for number in range(amount(10_000, 1_500)):
            link.send(encode(messages.Say(2**40 + number, "flood %d" % number)))
        began = time.monotonic()
        bo.ask("T hello", "^<bo> hello$")
        assert time.monotonic() - began < 5.0
        bo.ask_until("G G*nther*", r"^  1  G\u00fcnther\.txt  5 B  \uff21NA")
        assert bo.count("flood") < 500
        frames_over_the_limit(bulk)
        with pytest.raises(rdt.RdtError, match="announced a message over the limit"):
            while True:
                bulk.receive(10)
        for one in (bo, ana):
            one.type("Q")
            assert one.end() == 0, one.story()
            assert not [line for line in one.lines if HARMFUL.search(line)]
    for name in ("ana", "bo"):
        log = (tmp_path / name / "log").read_text(encoding="utf-8")
        assert "Traceback" not in log, log[:5000]
