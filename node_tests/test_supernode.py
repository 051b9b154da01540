"""What the supernode does for its members: admission, roster, index and lists, searches, limits."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from typing import Any, Dict, Iterator, List, Tuple

import pytest

from node_tests.stage.amounts import amount
from node_tests.stage.stranger import Stranger, obeyed_by_all
from node_tests.stage.stub_node import PORT, Lab, StubNode, share
from protocol import messages
from protocol.addresses import NETWORK_SHARE
from protocol.membership.chat import HOST_BURST, HOST_PER_SECOND
from protocol.membership.proofs import node_id_of, random_bytes
from protocol.messages import NO_NODE, ListPage, ListRequest, Offer, Relay, Search, SharesWanted, encode
from protocol.ruling import doubt as doubt_room
from protocol.ruling import index as index_room
from protocol.ruling.alarm import WAITING_INTERVAL
from protocol.ruling.catalogue import ROWS_PER_REQUEST_FITTED, WORK_PER_SECOND
from protocol.ruling.index import CHANGES_ONE_BY_ONE, Index
from protocol.ruling.line import SILENT_MAX
from protocol.ruling.newcomers import (
    ADDRESSES_MAX,
    JOINS_BURST,
    JOINS_PER_SECOND,
    JOINS_WAITING_MAX,
    Admission,
    Waiting,
)
from protocol.ruling.whereabouts import GIVERS_TOLD, SEEKERS_TOLD, TOLD_ALL_EACH, TOLD_ALL_UP_TO


def received(node: StubNode, kind: Any) -> List[Any]:
    return [message for message in node.received if type(message) is kind]


def announce(lab: Lab, node: StubNode, *entries: Any) -> None:
    node.shares = list(entries)
    node._do(node.on_joined, lab.world.now)
    lab.run(0.5)


def listing(lab: Lab, node: StubNode, pattern: str = "") -> List[Any]:
    """All rows, page by page, as Peer asks for them."""
    rows: List[Any] = []
    while True:
        node.received.clear()
        node.send(ListRequest(1, pattern, len(rows)))
        lab.run(0.1)
        page = received(node, ListPage)[-1]
        rows += page.rows
        if len(rows) >= page.total or not page.rows:
            return rows


# ---- shares and lists ---------------------------------------------------------------------------------------------


def test_a_list_names_each_content_with_its_holders_and_comes_in_pages() -> None:
    lab = Lab(1, 3)
    announce(lab, lab.nodes[0], *[share(number) for number in range(130)])
    announce(lab, lab.nodes[1], *[share(number) for number in range(120, 140)])
    rows = listing(lab, lab.nodes[2])
    assert len(rows) == 140 and len({row.file_id for row in rows}) == 140
    both = next(row for row in rows if row.name == "file125.bin")
    assert both.sources == 2
    assert set(both.holders) == {lab.nodes[0].membership.node_id, lab.nodes[1].membership.node_id}


def test_a_pattern_filters_by_wildcard_or_by_a_part_of_the_name_in_any_case() -> None:
    lab = Lab(2, 2)
    announce(lab, lab.nodes[1], share(1, "Notes.PDF"), share(2, "lab.iso"), share(3, "old notes.txt"))
    assert [row.name for row in listing(lab, lab.nodes[0], "*.pdf")] == ["Notes.PDF"]
    assert [row.name for row in listing(lab, lab.nodes[0], "NOTES")] == ["Notes.PDF", "old notes.txt"]
    assert [row.name for row in listing(lab, lab.nodes[0], "lab.???")] == ["lab.iso"]
    assert listing(lab, lab.nodes[0], "*a*" * 40) == []
    assert listing(lab, lab.nodes[0], "[") == []


def test_equal_names_with_other_contents_are_two_rows_and_one_content_with_two_names_too() -> None:
    lab = Lab(3, 3)
    announce(lab, lab.nodes[1], share(1, "a.txt"), share(2, "b.txt"))
    announce(lab, lab.nodes[2], share(3, "a.txt"), share(2, "c.txt"))
    rows = listing(lab, lab.nodes[0])
    assert [row.name for row in rows] == ["a.txt", "a.txt", "b.txt", "c.txt"]
    assert [row.sources for row in rows] == [1, 1, 2, 2]


def test_added_and_withdrawn_shares_and_those_of_a_member_who_left() -> None:
    lab = Lab(4, 3)
    announce(lab, lab.nodes[1], share(1))
    lab.nodes[1].send(messages.ShareAdd((share(2), share(3))))
    lab.nodes[1].send(messages.ShareRemove((share(1), share(77))))
    lab.nodes[2].send(messages.ShareRemove((share(2),)))  # not its own
    lab.run(0.1)
    assert [row.name for row in listing(lab, lab.nodes[2])] == ["file2.bin", "file3.bin"]
    lab.nodes[1].quit()
    lab.run(1.0)
    assert listing(lab, lab.nodes[2]) == []


def test_a_rejoin_with_the_same_list_sends_it_only_once() -> None:
    lab = Lab(5, 2)
    announce(lab, lab.nodes[1], *[share(number) for number in range(300)])
    assert len(received(lab.nodes[1], messages.SharesWanted)) == 1
    link = lab.nodes[1].membership.supernode_link
    lab.world.after(0.0, lambda: lab.nodes[1].network._lose(link, "reset"))
    lab.run(3.0)
    assert lab.agree() and len(received(lab.nodes[1], messages.SharesWanted)) == 1
    assert len(lab.nodes[0].supernode.catalogue.index) == 300
    lab.nodes[1].send(messages.ShareAdd((share(300),)))
    lab.nodes[1].shares.append(share(300))
    lab.nodes[1]._do(lab.nodes[1].on_joined, lab.world.now)
    lab.run(0.5)
    assert len(received(lab.nodes[1], messages.SharesWanted)) == 1


def test_only_the_supernodes_own_peer_has_cached_files() -> None:
    lab = Lab(6, 2)
    for node in lab.nodes:
        announce(lab, node, share(1)._replace(cached=True))
    index = lab.nodes[0].supernode.catalogue.index
    assert [entry.cached for node in lab.nodes for entry in index.shares_of(node.membership.node_id)] == [True, False]


def test_shares_over_the_limits_are_refused_and_counted() -> None:
    index = Index()
    assert index.add(b"a" * 8, [share(number) for number in range(10_005)]) == 5
    assert len(index) == 10_000
    index.forget(b"a" * 8)
    assert len(index) == 0 and index.page("", 0) == (0, ())
    assert not index._rows and not index._holders and not index._row_uses


def test_a_row_shows_what_most_of_its_sharers_say_of_it_whoever_came_first() -> None:
    """The first lies about how much is in a popular folder; who fetched it shares it, too, and has seen the truth."""
    index, lies = Index(), [b"lie1    ", b"lie2    "]
    true = share(1, "dir")._replace(is_folder=True, file_count=12, total_size=9000)

    def shown() -> List[Any]:
        return [(row.file_count, row.total_size, row.sources) for row in index.page("", 0)[1]]

    index.add(lies[0], [true._replace(file_count=1, total_size=1)])
    assert shown() == [(1, 1, 1)]  # nobody knows better
    index.add(b"ana     ", [true])
    index.add(b"bo      ", [true])
    assert shown() == [(12, 9000, 3)]
    index.add(lies[1], [true._replace(file_count=7)])
    index.replace(lies[0], [true._replace(file_count=7)])
    assert shown() == [(12, 9000, 4)]  # as many say it: what was shown stays
    index.forget(b"ana     ")
    assert shown() == [(7, 9000, 3)]
    index.forget(lies[0])
    index.forget(lies[1])
    assert shown() == [(12, 9000, 1)] and not index._doubted
    index.forget(b"bo      ")
    assert shown() == [] and not index._doubted


def test_the_size_of_a_file_is_that_of_its_content_whatever_else_is_said_of_it() -> None:
    index = Index()
    index.add(b"liar    ", [share(1)._replace(file_count=99, total_size=1 << 40)])
    (row,) = index.page("", 0)[1]
    assert (row.file_count, row.total_size) == (1, row.size)


def test_ten_who_fill_the_index_leave_a_newcomer_its_rows(monkeypatch) -> None:
    monkeypatch.setattr(index_room, "INDEX_ENTRIES_MAX", 1000)
    index = Index()
    greedy = [bytes([number]) * 8 for number in range(10)]
    for number, member in enumerate(greedy):
        index.add(member, [share(1000 * number + each) for each in range(1000)])
    assert index.add(b"honest!!", [share(70_000, "honest.pdf"), share(70_001)]) == 0
    assert [row.holders for row in index.page("honest.pdf", 0)[1]] == [(b"honest!!",)]
    assert len(index) == index.page("", 0)[0] == 1000
    held = [len(index.shares_of(member)) for member in greedy]
    assert sum(held) == 998 and min(held) >= 99
    first = index.shares_of(greedy[0])
    assert [entry.file_id for entry in first] == [share(each).file_id for each in range(len(first))]  # not the last


def test_shares_that_found_no_room_are_asked_for_again_when_there_is_some(monkeypatch) -> None:
    monkeypatch.setattr(index_room, "INDEX_ENTRIES_MAX", 10)
    lab = Lab(31, 3)
    ruler, first, second = lab.nodes
    assert ruler.supernode is not None
    announce(lab, first, *[share(number) for number in range(10)])
    announce(lab, second, *[share(number) for number in range(20, 28)])
    index = ruler.supernode.catalogue.index
    assert [len(index.shares_of(node.membership.node_id)) for node in (first, second)] == [5, 5]
    first.received.clear()
    announce(lab, second)
    lab.run(2.0)
    assert received(first, SharesWanted) == [SharesWanted()]
    announce(lab, first, *[share(number) for number in range(10)])
    assert len(index) == 10 and not index.is_short(first.membership.node_id)


def test_index_always_equals_what_its_members_said() -> None:
    rng = random.Random(7)
    index = Index()
    said: dict = {}
    for _ in range(400):
        member = rng.choice([b"a" * 8, b"b" * 8, b"c" * 8])
        entries = [share(rng.randrange(30)) for _ in range(rng.randrange(6))]
        verb = rng.choice(["add", "remove", "replace", "forget"])
        mine = said.setdefault(member, set())
        if verb == "add":
            index.add(member, entries)
            mine.update(entries)
        elif verb == "remove":
            index.remove(member, entries)
            mine.difference_update(entries)
        elif verb == "replace":
            index.replace(member, entries)
            said[member] = set(entries)
        else:
            index.forget(member)
            said[member] = set()
        assert len(index) == sum(len(entries) for entries in said.values())
        rows = index.page("", 0)[1]
        assert {row.file_id for row in rows} == {entry.file_id for entries in said.values() for entry in entries}
        for row in rows:
            holders = {member for member, entries in said.items() if any(e.file_id == row.file_id for e in entries)}
            assert set(row.holders) == holders and row.sources == len(holders)


def test_who_asks_for_many_lists_in_a_row_gets_them_all_if_later() -> None:
    lab = Lab(21, 2)
    ruler, asker = lab.nodes
    assert ruler.supernode is not None
    for number in range(2):
        shares = [share(10_000 * number + each) for each in range(10_000)]
        ruler.supernode.catalogue.index.add(bytes([number]) * 8, shares)
    announce(lab, asker, share(1, "mine.txt"))
    asker.received.clear()
    for number in range(30):
        asker.send(ListRequest(number, "file*%d.bin" % number, 0))
    lab.run(0.1)
    assert 10 < len(received(asker, ListPage)) < 30
    lab.run(4.0)
    assert [page.request_id for page in received(asker, ListPage)] == list(range(30))
    assert all(page.rows for page in received(asker, ListPage)) and not ruler.supernode.dropped


def test_lists_and_searches_of_all_together_have_a_bound_and_who_asked_least_has_its_turn() -> None:
    """Each member's own bound was no bound: ten of them looked through a full index all the supernode's time."""
    lab = Lab(21, 6)
    ruler, *greedy, modest = lab.nodes
    assert ruler.supernode is not None
    rows = amount(10_000, 2_000)
    for number in range(10):
        shares = [share(rows * number + each) for each in range(rows)]
        ruler.supernode.catalogue.index.add(bytes([number]) * 8, shares)
    cost_of_each = 1 + 10 * rows / ROWS_PER_REQUEST_FITTED
    for second in range(4):
        for number in range(16 * len(greedy)):
            greedy[number % len(greedy)].send(ListRequest(number, "*%d?*%d" % (number, second), 0))
        lab.run(1.0)
    modest.send(ListRequest(1, "*7", 0))
    lab.run(2 * cost_of_each / WORK_PER_SECOND + WAITING_INTERVAL)
    assert [page.request_id for page in received(modest, ListPage)] == [1]
    listed = [len(received(node, ListPage)) for node in greedy]
    assert sum(listed) <= 6 * WORK_PER_SECOND / cost_of_each and max(listed) - min(listed) <= 1
    modest.send(search(bytes(32)))
    lab.run(2 * cost_of_each / WORK_PER_SECOND + WAITING_INTERVAL)
    assert len(received(ruler, Search)) == 1


def test_a_list_of_the_index_stays_in_order_while_files_come_and_go() -> None:
    index, rng = Index(), random.Random(22)
    mine: set = set()
    for _ in range(100):
        index.remove(b"a" * 8, gone := rng.sample(sorted(mine), min(len(mine), rng.randrange(4))))
        mine.difference_update(gone)
        index.add(b"a" * 8, new := [share(rng.randrange(40)) for _ in range(rng.randrange(5))])
        mine.update(new)
        assert [row.name for row in index.page("", 0)[1]] == sorted(entry.name for entry in mine)


def test_many_changes_of_the_index_and_few_leave_the_same_order_and_a_list_once_begun_as_it_was() -> None:
    index = Index()
    for count in (2, CHANGES_ONE_BY_ONE + 1, 5):
        index.add(b"a" * 8, [share(1000 * count + number, "%d-%d" % (number, count)) for number in range(count)])
        index.page("", 0)
    before = index.page("", 0)
    index.remove(b"a" * 8, index.shares_of(b"a" * 8)[::100])
    index.add(b"a" * 8, [share(7, "0")])
    assert index.page("", 50)[0] == before[0] and index.page("", 0)[0] == before[0] - 2
    names = [line[0] for line in index._in_order()]
    assert names == sorted(entry.name for entry in index.shares_of(b"a" * 8))


def test_a_name_with_brackets_is_found_as_it_stands_and_the_very_name_comes_first() -> None:
    index = Index()
    names = ("a notes [1].pdf", "notes [1].pdf", "notes 1.pdf", "Notes [1].pdf")
    index.add(b"a" * 8, [share(number, name) for number, name in enumerate(names)])
    found = [row.name for row in index.page("notes [1].pdf", 0)[1]]
    assert found == ["notes [1].pdf", "Notes [1].pdf", "a notes [1].pdf", "notes 1.pdf"]
    assert [row.name for row in index.page("*[1].pdf", 0)[1]] == ["notes 1.pdf"]


# ---- searches -----------------------------------------------------------------------------------------------------


def search(file_id: bytes, via_supernode: bool = False) -> Search:
    return Search(5, file_id, 10, "x", False, b"forged!!", ("8.8.8.8", 53), via_supernode)


def test_a_search_reaches_all_others_with_the_true_requester_and_the_offer_comes_back() -> None:
    lab = Lab(8, 4)
    asker, holder = lab.nodes[2], lab.nodes[3]
    asker.send(search(bytes(32)))
    lab.run(0.1)
    assert not received(asker, Search)
    for node in (lab.nodes[0], lab.nodes[1], holder):
        (seen,) = received(node, Search)
        assert (seen.requester, seen.place) == (asker.membership.node_id, asker.network.address)
    holder.send(Offer(5, bytes(32), asker.membership.node_id, b"forged!!", True, True))
    lab.run(0.1)
    (offer,) = received(asker, Offer)
    assert offer.provider == holder.membership.node_id
    assert asker.membership.ways.place_of(offer.provider) == holder.network.address


def found_by(lab: Lab, asker: StubNode, file_id: bytes) -> List[StubNode]:
    """Who is told of its search."""
    for node in lab.nodes:
        node.received.clear()
    asker.send(search(file_id))
    lab.run(0.3)
    return [node for node in lab.nodes if received(node, Search)]


def test_in_a_large_network_a_search_goes_to_those_who_have_it_and_to_some_who_seek_it_too() -> None:
    """Everybody asks for one file at once, and nobody is told of each of these searches (17: a lecture hall)."""
    lab = Lab(10, TOLD_ALL_UP_TO + 8)
    holder, seekers = lab.nodes[3], lab.nodes[4:]
    announce(lab, holder, share(1)._replace(size=10))
    file_id = holder.shares[0].file_id
    assert len(found_by(lab, seekers[0], file_id)) == len(lab.nodes) - 1
    told = [found_by(lab, seeker, file_id) for seeker in seekers[1:20]]
    assert set(told[0]) == {holder, seekers[0]} and set(told[1]) == {holder, *seekers[:2]}
    assert max(map(len, told)) <= GIVERS_TOLD + SEEKERS_TOLD and all(holder in nodes for nodes in told)
    lab.run(TOLD_ALL_EACH)
    assert len(found_by(lab, seekers[21], file_id)) == len(lab.nodes) - 1


def test_what_nobody_is_known_to_have_is_searched_everywhere_and_who_offered_it_is_remembered() -> None:
    lab = Lab(11, TOLD_ALL_UP_TO + 8)
    asker, other, quiet = lab.nodes[2:5]
    for node in (asker, other):
        assert len(found_by(lab, node, bytes(32))) == len(lab.nodes) - 1
    quiet.send(Offer(5, bytes(32), asker.membership.node_id, NO_NODE, True, True))
    lab.run(0.1)
    assert set(found_by(lab, other, bytes(32))) == {quiet, asker}
    quiet.quit()
    lab.run(1.0)
    assert len(found_by(lab, lab.nodes[7], bytes(32))) == len(lab.nodes) - 2


def test_who_was_misled_is_heard_by_everybody_the_third_time() -> None:
    """A liar says that it shares what it does not have: it is asked, and then all are."""
    lab = Lab(12, TOLD_ALL_UP_TO + 8)
    liar, asker, other = lab.nodes[3:6]
    announce(lab, liar, share(1)._replace(size=10))
    file_id = liar.shares[0].file_id
    counts = [len(found_by(lab, other, file_id))] + [len(found_by(lab, asker, file_id)) for _ in range(3)]
    assert counts == [len(lab.nodes) - 1, 2, 2, len(lab.nodes) - 1]


def test_a_search_by_way_of_the_supernode_goes_to_its_own_peer_alone() -> None:
    lab = Lab(9, 3)
    lab.nodes[1].send(search(bytes(32), via_supernode=True))
    lab.run(0.1)
    (relay,) = received(lab.nodes[0], Relay)
    assert relay.requester == lab.nodes[1].membership.node_id
    assert not received(lab.nodes[2], Search) and not received(lab.nodes[0], Search)
    lab.nodes[0].send(Offer(5, bytes(32), relay.requester, NO_NODE, False, True))
    lab.run(0.1)
    assert received(lab.nodes[1], Offer)[0].provider == lab.nodes[0].membership.node_id
    assert lab.nodes[1].membership.ways.place_of(lab.nodes[0].membership.node_id) == ("10.0.0.1", PORT)


def test_an_offer_to_nobody_is_dropped() -> None:
    lab = Lab(10, 2)
    for target in (NO_NODE, b"unknown!"):
        lab.nodes[1].send(Offer(5, bytes(32), target, NO_NODE, True, True))
    lab.run(0.1)
    assert lab.nodes[0].supernode.dropped == 2


# ---- roster -------------------------------------------------------------------------------------------------------


def test_a_member_changes_its_own_line_and_everyone_sees_it() -> None:
    lab = Lab(11, 3)
    node = lab.nodes[1]
    node._do(node.membership.set_mesh, False, lab.world.now)
    lab.run(0.1)
    for other in lab.nodes:
        assert [entry.mesh for entry in other.membership.roster] == [True, False, True]


def test_a_member_who_missed_a_version_asks_for_all() -> None:
    lab = Lab(12, 3)
    lab.nodes[1].membership.roster.version -= 3
    lab.nodes[1].membership.roster.remove(lab.nodes[2].membership.node_id)
    lab.add("late")
    lab.run(3.0)
    assert lab.agree() and ("joined", "n2") in lab.nodes[1].events[-3:]


def test_a_loopback_address_means_the_supernodes_machine() -> None:
    lab = Lab(13, 1)
    StubNode(lab.world, "127.0.0.1", "same machine", 7001)
    far = lab.add("far")
    lab.run(1.0)
    entry = messages.MemberEntry(b"same mac", "same", ("127.0.0.1", 7001), 9, True, True)
    member = far.membership
    update = messages.RosterUpdate(1, member.roster.version + 1, (entry,), ())
    far._do(member.on_message, member.supernode_link, update, lab.world.now)
    assert member.ways.place_of(b"same mac") == ("10.0.0.1", 7001)


def test_names_that_are_no_names_are_refused_for_good() -> None:
    lab = Lab(14, 1)
    stranger = Stranger(lab.world, "10.0.0.66")
    for name in ("", "  ", "x" * 33):
        stranger.join(("10.0.0.1", PORT), name=name)
        lab.run(1.0)
        assert stranger.last(messages.Busy).retry_after_ms == 0
    assert lab.agree()


# ---- limits -------------------------------------------------------------------------------------------------------


def openings(rng: random.Random) -> Iterator[Dict[str, Any]]:
    """What newcomers say of themselves, one after the other."""
    for number in itertools.count():
        opening = random_bytes(rng, 16)
        yield {"opening": opening, "node_id": node_id_of(opening), "name": "m%d" % number}


def test_a_thousand_that_come_and_leave_at_once_are_all_taken_in_and_chat_goes_on() -> None:
    lab = Lab(15, 2)
    stranger = Stranger(lab.world, "127.0.0.1")  # from one address elsewhere it takes longer, see below
    joins = {}
    for fields in itertools.islice(openings(random.Random(15)), 1000):
        joins[stranger.join(("10.0.0.1", PORT), **fields)] = fields
    stranger.answer = None
    busy_links: List[int] = []

    def on_message(link: int, data: bytes, now: float) -> None:
        tag = data[0]
        if tag == encode(messages.Busy(1, ""))[0]:
            busy_links.append(link)
            fields = joins[link]
            lab.world.after(1.0, lambda: joins.setdefault(stranger.join(("10.0.0.1", PORT), **fields), fields))
        elif tag == encode(messages.Pong(0, 0))[0]:
            pass

    stranger.on_message = on_message  # type: ignore[method-assign]
    lab.run(0.5)
    lab.nodes[1].say("still here?")
    lab.run(1.5)
    assert lab.nodes[0].chat == [("n1", "still here?")]
    lab.run(6.0)
    assert busy_links and len(lab.nodes[0].supernode) == 1002
    assert len(lab.nodes[1].membership.roster) == 1002
    for link in joins:
        stranger.send(link, messages.Leave())
    lab.nodes[1].say("and now?")
    newcomer = lab.add()
    lab.run(2.0)
    assert lab.nodes[0].chat[1:] == [("n1", "and now?")] and newcomer.membership.is_joined
    assert lab.nodes[0].names() == lab.nodes[1].names() == ["n0", "n1", "n2"]


def test_an_address_has_room_for_a_class_and_then_for_eight_newcomers_a_second() -> None:
    lab = Lab(18, 2)
    supernode = lab.nodes[0].supernode
    flood = Stranger(lab.world, "10.1.0.1")
    newcomers = openings(random.Random(18))
    for _ in range(6):
        for fields in itertools.islice(newcomers, 30):
            flood.join(("10.0.0.1", PORT), **fields)
        lab.run(1.0)
    assert 64 + 8 * 4 <= len(supernode) - 2 <= 64 + 8 * 6
    other = Stranger(lab.world, "10.1.0.2")
    other.join(("10.0.0.1", PORT))
    lab.run(1.0)
    assert other.last(messages.Welcome) and not any(type(message) is messages.Busy for message in other.messages)


def come_and_go(lab: Lab, host: str, count: int, seed: int) -> Dict[str, Any]:
    """So many join from there and lose their links at once; who would be the next one."""
    crowd, newcomers = Stranger(lab.world, host), openings(random.Random(seed))
    for fields in itertools.islice(newcomers, count):
        crowd.join(("10.0.0.1", PORT), **fields)
    lab.run(0.2 + count / JOINS_PER_SECOND)
    lab.world.kill(crowd.network)
    for line in list(lab.nodes[0].supernode.register._lines.values()):
        if line.link is not None and line.entry.place[0] == host:
            lab.nodes[0].on_link_lost(line.link, "lost", lab.world.now)
    return next(newcomers)


@pytest.mark.parametrize("host, is_taken_in", (("127.0.0.1", True), ("10.1.0.1", False)))
def test_a_whole_lab_that_is_away_on_this_machine_keeps_no_newcomer_of_it_out(host: str, is_taken_in: bool) -> None:
    """After a failover all of it is away; at any other address one that comes and goes would fill the roster."""
    lab = Lab(20, 2)
    fields = come_and_go(lab, host, 64, 20)
    newcomer = Stranger(lab.world, host, PORT + 1)
    newcomer.join(("10.0.0.1", PORT), **fields)
    lab.run(1.0)
    assert any(type(message) is messages.Welcome for message in newcomer.messages) == is_taken_in
    assert any(type(message) is messages.Busy for message in newcomer.messages) != is_taken_in


def test_who_comes_and_goes_without_end_on_this_machine_fills_the_roster_for_some_seconds_and_no_more() -> None:
    lab = Lab(21, 2)
    ruler = lab.nodes[0].supernode
    for second in range(amount(6, 2)):
        come_and_go(lab, "127.0.0.%d" % (2 + second), 200, second)
    assert ruler is not None and len(ruler) == amount(messages.MEMBERS_MAX, 2 + 2 * 200)
    lab.run(SILENT_MAX + 1.0)
    newcomer = lab.add()
    lab.run(2.0)
    assert newcomer.membership.is_joined and lab.agree() and len(ruler) == 3


def flooded(count: int) -> Tuple[Lab, Stranger]:
    """Somebody joins as often at once as some seconds have room for: 500 as two and a half."""
    lab = Lab(19, 2)
    flood = Stranger(lab.world, "127.0.0.1")
    for fields in itertools.islice(openings(random.Random(19)), count):
        flood.join(("10.0.0.1", PORT), **fields)
    lab.run(0.12)
    return lab, flood


def test_who_joins_during_a_flood_from_elsewhere_is_next() -> None:
    """It was told to come again later, and then once more: four seconds until it was in."""
    count = amount(500, 300)
    lab, flood = flooded(count)
    other = Stranger(lab.world, "10.1.0.2")
    other.join(("10.0.0.1", PORT))
    lab.run(2 * WAITING_INTERVAL)
    assert other.last(messages.Welcome) and not any(type(message) is messages.Busy for message in other.messages)
    lab.run(2.0)
    kinds = Counter(type(message) for message in flood.messages)
    assert kinds[messages.Welcome] == count and not kinds[messages.Busy]


def test_a_join_that_waits_is_answered_when_the_supernode_leaves_and_forgotten_when_its_link_is_lost() -> None:
    lab, flood = flooded(500)
    ruler = lab.nodes[0].supernode
    waiting = len(ruler.reception._admission)
    gone = ruler.reception._admission.all()[0]
    ruler.on_link_lost(gone.link, "lost", lab.world.now)
    assert waiting > 250 and len(ruler.reception._admission) == waiting - 1 and not ruler.owns(gone.link)
    ruler.hand_over(lab.world.now, lambda: None)
    lab.run(0.1)
    assert not len(ruler.reception._admission)
    assert Counter(type(message) for message in flood.messages)[messages.NotSupernode] == waiting - 1


def test_when_all_places_to_wait_are_taken_who_has_most_of_them_comes_again() -> None:
    rates = Admission(0.0)

    def waiting(host: str, link: int) -> Waiting:
        return Waiting(link, (host, 1), None)

    assert all(rates.has_turn("10.0.0.1", 0.0) for _ in range(int(JOINS_BURST)))
    assert not rates.has_turn("10.0.0.1", 0.0)
    assert not any(rates.put_off(waiting("10.0.0.1", link)) for link in range(JOINS_WAITING_MAX))
    assert rates.put_off(waiting("10.0.0.1", 9999)) == waiting("10.0.0.1", 9999)
    assert rates.put_off(waiting("10.0.0.2", 10000)) == waiting("10.0.0.1", JOINS_WAITING_MAX - 1)
    assert len(rates) == JOINS_WAITING_MAX and rates.next(0.0) is None and not rates.has_turn("10.0.0.3", 1.0)
    assert rates.next(1.0) == waiting("10.0.0.2", 10000) and rates.next(1.0) == waiting("10.0.0.1", 0)


def test_all_addresses_of_an_ipv6_network_are_ten_newcomers_hosts_and_have_one_turn() -> None:
    rates = Admission(0.0)
    assert sum(rates.admits(f"2001:db8::{n:x}", True, 0.0) for n in range(1, 2000)) == 64 * NETWORK_SHARE
    assert rates.admits("2001:db8:0:1::1", True, 0.0) and not rates.admits("2001:db8::1", True, 0.0)
    while rates.has_turn("2001:db8::1", 0.0):
        pass
    hosts = ["2001:db8::1", "2001:db8::1", "2001:db8::2", "2001:db8::3", "10.0.0.1", "10.0.0.1"]
    for link, host in enumerate(hosts):
        assert rates.put_off(Waiting(link, (host, 1), None)) is None
    served = [waiting.address[0] for waiting in iter(lambda: rates.next(1.0), None)]
    assert served == ["10.0.0.1", "2001:db8::2", "10.0.0.1", "2001:db8::1", "2001:db8::3", "2001:db8::1"]


def test_members_that_come_back_are_no_newcomers() -> None:
    """After a failover all of a class behind one NAT come again at once; each proves who it was."""
    rates = Admission(0.0)
    assert all(rates.admits("10.1.0.1", False, 0.0) for _ in range(150))
    assert sum(rates.admits("10.1.0.1", True, 1.0) for _ in range(150)) == 64
    assert all(rates.admits("127.0.0.1", True, 5.0) for _ in range(150))


def test_the_table_of_addresses_is_bounded_and_its_oldest_goes_first() -> None:
    rates = Admission(0.0)
    for number in range(3000):
        rates.admits("10.%d.%d.1" % divmod(number, 250), True, float(number))
    assert len(rates._newcomers) == ADDRESSES_MAX and "10.11.249.1" in rates._newcomers


def test_the_network_is_full_at_1024() -> None:
    lab = Lab(16, 1)
    supernode = lab.nodes[0].supernode
    assert supernode is not None
    template = next(iter(supernode.register._lines.values()))
    for number in range(1023):
        supernode.register._lines[number.to_bytes(8, "big")] = type(template)(template.entry, lab.world.now)
    stranger = Stranger(lab.world, "10.0.0.66")
    stranger.join(("10.0.0.1", PORT))
    lab.run(1.0)
    assert "full" in stranger.last(messages.Busy).reason


def test_a_chat_flood_from_one_does_not_drown_the_others() -> None:
    lab = Lab(17, 3)
    for number in range(3000):
        lab.nodes[2].send(messages.Say(number + 1, "flood"))
    lab.nodes[1].say("hello")
    lab.run(2.0)
    texts = [text for _, text in lab.nodes[1].chat]
    assert "hello" in texts and texts.count("flood") <= 40 + 2 * 20
    assert lab.nodes[0].supernode.dropped > 2000


def test_a_host_of_many_members_has_the_room_of_a_few_and_each_of_them_has_its_turn() -> None:
    """Forty of one host told 1,600 lines at once, and 800 a second: nobody could read another's."""
    lab = Lab(17, 3)
    flood = Stranger(lab.world, "10.1.0.1")
    links = [flood.join(("10.0.0.1", PORT), **fields) for fields in itertools.islice(openings(random.Random(17)), 41)]
    lab.run(2.0)
    for number, link in itertools.product(range(64), links[1:]):
        flood.send(link, messages.Say(number + 1, "flood"))
    lab.run(0.5)
    lab.nodes[2].say("hello")
    flood.send(links[0], messages.Say(1, "I am behind the same router"))
    lab.run(1.5)
    texts = [text for _, text in lab.nodes[1].chat]
    assert texts.count("flood") <= HOST_BURST + 2.1 * HOST_PER_SECOND
    assert "hello" in texts and "I am behind the same router" in texts


def test_a_member_who_does_not_read_is_given_up() -> None:
    lab = Lab(18, 3)
    slow = next(link for link, line in lab.nodes[0].supernode.register._by_link.items() if line.entry.name == "n2")
    lab.nodes[0].network.backlog = lambda link: 9 << 20 if link == slow else 0  # type: ignore[method-assign]
    lab.run(1.0)
    assert [event[1] for event in lab.nodes[1].events if event[0] == "left"] == ["n2"]
    assert not lab.nodes[0].supernode.owns(slow)


def test_in_doubt_after_a_sleep_the_supernode_holds_its_tongue_and_then_goes_on() -> None:
    lab = Lab(19, 4)
    ruler = lab.nodes[0]
    for node in lab.nodes[1:3]:
        node.kill()  # the successors will not answer, so the doubt lasts its full time
    ruler.sleep()
    lab.run(2.6)
    ruler.wake()
    assert ruler.supernode.doubt.is_on(lab.world.now)
    lab.nodes[3].say("anybody?")
    lab.run(2.5)
    assert not lab.nodes[3].chat and lab.rulers() == [ruler]
    lab.run(1.0)
    assert lab.nodes[3].chat == [("n3", "anybody?")]


def test_in_doubt_a_good_bye_does_not_overtake_the_lines_that_were_said_before_it() -> None:
    lab = Lab(19, 5)
    ruler, (said, heard) = lab.nodes[0], lab.nodes[3:]
    for node in lab.nodes[1:3]:
        node.kill()
    ruler.sleep()
    lab.run(2.6)
    ruler.wake()
    assert ruler.supernode.doubt.is_on(lab.world.now)
    said.say("it is late")
    said.quit()
    lab.run(1.0)
    assert ruler.supernode.doubt.is_on(lab.world.now) and not heard.chat
    lab.run(3.0)
    assert heard.chat == [("n3", "it is late")]
    assert said.membership.node_id not in heard.membership.roster


def test_in_doubt_many_good_byes_of_one_member_are_one_and_take_nobodys_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doubt_room, "HELD_MAX", 2)
    lab = Lab(19, 5)
    ruler, (greedy, heard) = lab.nodes[0], lab.nodes[3:]
    for node in lab.nodes[1:3]:
        node.kill()
    ruler.sleep()
    lab.run(2.6)
    ruler.wake()
    for line in ("one", "two", "three"):
        greedy.say(line)
    for _ in range(100):
        greedy.send(messages.Leave())
    lab.run(1.0)
    heard.say("room")
    lab.run(0.5)
    assert len(ruler.supernode.doubt._held) == 3
    lab.run(2.5)
    assert heard.chat[:2] == [("n3", "one"), ("n4", "room")]


def test_in_doubt_a_member_who_says_very_much_leaves_the_others_their_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doubt_room, "HELD_MAX", 100)
    lab = Lab(19, 5)
    ruler = lab.nodes[0]
    for node in lab.nodes[1:3]:
        node.kill()
    ruler.sleep()
    lab.run(2.6)
    ruler.wake()
    for number in range(200):
        lab.nodes[3].send(messages.ListRequest(number, "", 0))
    lab.run(0.2)
    lab.nodes[4].say("anybody?")
    lab.run(0.2)
    assert ruler.supernode.doubt.is_on(lab.world.now)
    held = ruler.supernode.doubt._held
    assert [message.text for _, message in held if isinstance(message, messages.Say)] == ["anybody?"]
    assert len(held) <= 100
    lab.run(4.0)
    assert ("n4", "anybody?") in lab.nodes[3].chat
    assert not ruler.supernode.doubt._held and not ruler.supernode.doubt._shares.total


@pytest.mark.parametrize("seed", range(amount(3, 1)))
def test_no_message_of_a_member_breaks_the_supernode(seed: int) -> None:
    print("seed", seed)
    lab = Lab(20 + seed, 3)
    rng = random.Random(seed)
    kinds = list(messages.TABLE.values())
    for _ in range(600):
        message = random_message(rng, rng.choice(kinds))
        if message is not None and type(message) not in (messages.Leave, messages.Join):
            lab.nodes[2].send(message)
        if rng.random() < 0.05:
            lab.run(0.05)
    lab.run(30.0)
    assert lab.rulers() == [lab.nodes[0]] and obeyed_by_all(lab) is not None
    lab.nodes[1].say("fine")
    lab.run(0.5)
    assert ("n1", "fine") in lab.nodes[0].chat


def random_message(rng: random.Random, kind: Any) -> Any:
    """Some well-formed message of this kind, by decoding random bytes; None when none is found."""
    tag = next(tag for tag, other in messages.TABLE.items() if other is kind)
    for _ in range(30):
        body = bytes(rng.choice([0, 0, 0, 1, 4, rng.randrange(256)]) for _ in range(rng.randrange(300)))
        try:
            return messages.decode(bytes([tag]) + body)
        except messages.WireError as error:
            if "left over" in str(error):
                for size in range(len(body)):
                    try:
                        return messages.decode(bytes([tag]) + body[:size])
                    except messages.WireError:
                        continue
    return None


@pytest.mark.parametrize("seed", range(amount(3, 1)))
def test_no_message_of_a_supernode_breaks_a_member(seed: int) -> None:
    print("seed", seed)
    lab = Lab(30 + seed, 3)
    rng = random.Random(seed)
    kinds = list(messages.TABLE.values())
    victim = lab.nodes[2]
    for _ in range(600):
        message = random_message(rng, rng.choice(kinds))
        link = victim.membership.supernode_link
        if message is not None and link is not None:
            victim._to_own_peer(link, message, lab.world.now)
        if rng.random() < 0.05:
            lab.run(0.05)
    lab.run(60.0)
    assert obeyed_by_all(lab) is not None
