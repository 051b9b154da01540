"""Upload slots and places in the queue go by node, in fair shares (X10), and a slow slot gives way (THREATS: G06)."""

from __future__ import annotations

import random

from node_tests.stage.hands import FILE, UploadHands
from protocol.exchange.picking import MIB
from protocol.exchange.uploads import (
    QUEUE_MAX,
    SLOT_SLOW_AFTER,
    SLOT_SLOW_RATE,
    SLOT_TURN,
    SUBSCRIPTIONS_IN_ALL_MAX,
    SUBSCRIPTIONS_MAX,
    UPLOAD_SLOTS,
    Uploads,
)
from protocol.messages import Queued


def uploads_of(*nodes):
    """Links 1, 2, ... of the nodes with these names, each asking for one piece."""
    hands = UploadHands()
    uploads = Uploads(hands)
    for link, node in enumerate(nodes, 1):
        uploads.add(link, node.encode().ljust(8), node)
        uploads.on_request(link, FILE, 0, MIB, 0.0)
    return hands, uploads


def holders(uploads):
    return [upload.label for upload in uploads.links.values() if upload.has_slot]


def test_a_node_that_comes_gets_a_slot_at_once_of_one_that_has_several():
    hands, uploads = uploads_of(*["greedy"] * 4, *["eager"] * 4)
    assert sorted(holders(uploads)) == ["eager"] * 4 + ["greedy"] * 4
    uploads.add(9, b"modest  ", "modest")
    uploads.on_request(9, FILE, 0, MIB, 0.1)
    assert sorted(holders(uploads)) == ["eager"] * 4 + ["greedy"] * 3 + ["modest"]
    assert [message for link, message in hands.take(Queued) if link == 9] == [Queued(1), Queued(0)]
    uploads.on_timer(0.5)
    assert (1, Queued(1)) in hands.take(Queued)  # whose slot that was: it has to ask again
    uploads.on_timer(0.9)
    assert sorted(holders(uploads)) == ["eager"] * 4 + ["greedy"] * 3 + ["modest"]  # and takes none back


def test_a_free_slot_goes_to_the_node_that_has_fewest():
    _, uploads = uploads_of(*"abcdefg", "h", "a", "a", "a", "new")
    uploads.remove(2, 0.1)
    assert sorted(holders(uploads)) == ["a", "c", "d", "e", "f", "g", "h", "new"]


def drained(hands, uploads, rates, seconds, step=1.0):
    """Each link is given all that it asks for and takes so many bytes a second of it; who has lost its slot then?"""
    now = 0.0
    lost = set()
    while now < seconds:
        now += step
        for link in uploads.links:
            upload = uploads.links[link]
            if upload.has_slot and not upload.jobs:
                uploads.on_request(link, FILE, 0, MIB, now)
        reads, hands.reads[:] = hands.reads[:], []
        for read in reads:
            hands.in_link[read[0]] += read[-1]
            uploads.on_read(*read, b"d", now)
        for link, rate in rates.items():
            hands.in_link[link] = max(0, hands.in_link[link] - int(rate * step))
        uploads.on_timer(now)
        lost |= {link for link, message in hands.take(Queued) if message.position and link <= UPLOAD_SLOTS}
    return lost


def test_a_slot_that_moves_under_the_floor_gives_way_while_others_wait():
    hands, uploads = uploads_of(*"abcdefgh", "new", "newer")
    rates = dict.fromkeys(range(1, 11), 4 * SLOT_SLOW_RATE)
    rates[3] = SLOT_SLOW_RATE / 4
    assert drained(hands, uploads, rates, SLOT_SLOW_AFTER + 5) == {3}
    assert "new" in holders(uploads)


def test_a_slow_slot_is_left_to_its_node_while_nobody_waits():
    hands, uploads = uploads_of(*"abcdefgh")
    assert drained(hands, uploads, dict.fromkeys(range(1, 9), SLOT_SLOW_RATE / 4), 2 * SLOT_TURN) == set()
    assert len(holders(uploads)) == UPLOAD_SLOTS


def test_who_fills_the_queue_makes_room_for_who_comes():
    hands, uploads = uploads_of(*"abcdefgh", *["greedy"] * QUEUE_MAX)
    assert len(uploads.waiting) == QUEUE_MAX
    for number in range(3):
        link = 1000 + number
        uploads.add(link, b"new%05d" % number, "new%d" % number)
        uploads.on_request(link, FILE, 0, MIB, 0.0)
        assert link in uploads.waiting and len(uploads.waiting) <= QUEUE_MAX
    before = len(uploads.waiting)
    uploads.add(2000, b"greedy  ", "greedy")
    uploads.on_request(2000, FILE, 0, MIB, 0.0)
    assert 2000 not in uploads.waiting and len(uploads.waiting) == before
    assert hands.take(Queued)


def test_what_is_counted_is_what_is_held_whatever_happens():
    for seed in range(30):
        rng = random.Random(seed)
        hands = UploadHands()
        uploads, now, links = Uploads(hands), 0.0, 0
        for _ in range(300):
            now += rng.random() * 2
            what = rng.random()
            if what < 0.3:
                links += 1
                uploads.add(links, bytes([rng.randrange(12)]) * 8, "")
            elif what < 0.4 and uploads.links:
                uploads.remove(rng.choice(list(uploads.links)), now)
            elif what < 0.8 and uploads.links:
                uploads.on_request(rng.choice(list(uploads.links)), FILE, rng.randrange(9), MIB, now)
            elif hands.reads:
                uploads.on_read(*hands.reads.pop(0), b"d", now)
            if rng.random() < 0.3:
                uploads.on_timer(now)
            held = [upload for upload in uploads.links.values() if upload.has_slot]
            assert len(held) == uploads._slots.total <= UPLOAD_SLOTS, seed
            assert len(uploads.waiting) == len(set(uploads.waiting)) == uploads._places.total
            assert not any(upload.link in uploads.waiting for upload in held)


def test_who_has_news_of_pieces_told_on_all_its_links_leaves_room_for_others():
    """A greedy node takes all there is; whoever comes then is told what it asks for."""
    uploads, links = Uploads(UploadHands()), SUBSCRIPTIONS_IN_ALL_MAX // SUBSCRIPTIONS_MAX + 2

    def contents(link):
        return [b"%16d%16d" % (link, number) for number in range(SUBSCRIPTIONS_MAX + 1)]

    for link in range(links):
        uploads.add(link, b"greedy  ", "greedy")
        for file_id in contents(link):
            uploads.subscribe(link, file_id)

    def told():
        return [len(upload.told) for upload in uploads.links.values()]

    assert max(told()) == SUBSCRIPTIONS_MAX and sum(told()) == SUBSCRIPTIONS_IN_ALL_MAX
    uploads.add(links, b"modest  ", "modest")
    wanted = contents(links)[:20]
    for file_id in wanted * 2:
        uploads.subscribe(links, file_id)
    assert all(uploads.subscribers(file_id) == [links] for file_id in wanted)
    assert sum(told()) == SUBSCRIPTIONS_IN_ALL_MAX and told()[-1] == 20
    uploads.unsubscribe(links, wanted[0])
    for link in list(uploads.links):
        uploads.remove(link, 0.0)
    assert not uploads._subscriptions.total
