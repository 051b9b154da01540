"""What a node tells those who follow its download: many pieces in a message, and soon while few are known."""

import random
from types import SimpleNamespace
from unittest.mock import MagicMock

from protocol.exchange.serving import TELL_INTERVAL, TELL_INTERVAL_MAX, TELL_PART, Serving
from protocol.messages import NewPieces, decode

FILE, NODE = b"f" * 32, b"n" * 16
FOLLOWERS = (1, 3)


def serving(verified):
    """Of a download that has so many pieces, and what it said to whom."""
    download, said = SimpleNamespace(verified_count=lambda: verified[0]), []
    network = MagicMock()
    network.send_to_all = lambda links, *told: said.append((tuple(links), [decode(one) for one in told]))
    holdings = MagicMock()
    holdings.size_of.return_value = None
    one = Serving(
        network, MagicMock(), MagicMock(), holdings, MagicMock(), MagicMock(), MagicMock(), lambda _: download,
        MagicMock(), MagicMock(), MagicMock(), random.Random(1), False,
    )  # fmt: skip
    for link in FOLLOWERS:
        one.uploads.add(link, NODE, "bo")
        one.uploads.subscribe(link, FILE)
    return one, said


def tell(one, verified, index, now):
    verified[0] += 1
    one.tell_pieces(FILE, (index,), now)


def test_the_first_pieces_are_told_soon_and_to_all_who_follow_in_one_hand_over():
    verified = [0]
    one, said = serving(verified)
    tell(one, verified, 7, 1.0)
    tell(one, verified, 4, 1.1)
    assert one.next_deadline() == 1.0 + TELL_INTERVAL
    one.on_timer(1.0 + TELL_INTERVAL)
    assert said == [(FOLLOWERS, [NewPieces(FILE, (7, 4))])]


def test_one_piece_more_where_many_are_known_waits_for_others_but_not_for_ever():
    verified = [100]
    one, said = serving(verified)
    tell(one, verified, 7, 1.0)
    assert one.next_deadline() == 1.0 + TELL_INTERVAL_MAX
    one.on_timer(1.0 + TELL_INTERVAL_MAX)
    assert said == [(FOLLOWERS, [NewPieces(FILE, (7,))])]


def test_as_soon_as_they_add_a_good_part_to_what_is_known_they_are_told_soon():
    verified = [100]
    one, _ = serving(verified)
    for index in range(int(TELL_PART * 100)):
        tell(one, verified, index, 1.0)
    assert one.next_deadline() == 1.0 + TELL_INTERVAL_MAX
    tell(one, verified, 90, 1.1)
    assert one.next_deadline() == 1.1 + TELL_INTERVAL
