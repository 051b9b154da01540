"""Which pieces are asked of whom, without any network: `PieceChoice`, `Rate`, `Download`, `Uploads`, scripted hands."""

from __future__ import annotations

import hashlib
import random
from collections import Counter, defaultdict

import pytest

from node_tests.stage.hands import FILE, UploadHands
from protocol.content.pieces import FILE_SIZE_MAX, has_piece, set_piece
from protocol.exchange import picking as rules
from protocol.exchange import uploads as sending
from protocol.exchange.download import Download
from protocol.exchange.manifest import Lie, Manifest, manifest_pages
from protocol.exchange.picking import MIB, REQUESTS_PER_LINK_MAX, PieceChoice, in_flight_limit, window_of
from protocol.exchange.source import DROP_AFTER, SourceState
from protocol.exchange.uploads import (
    GIVEN_FORGOTTEN_AFTER,
    LINK_LOW,
    LINKS_AT_ONCE,
    SLOT_TURN,
    STUCK_AFTER,
    UPLOAD_SLOTS,
    UploadLink,
    Uploads,
)
from protocol.messages import (
    NO_PIECE,
    PIECE_MISSING,
    TOO_MANY_REQUESTS,
    AnyPieceRequest,
    CheckBulk,
    ManifestPage,
    ManifestRequest,
    OtherPiece,
    PieceCancel,
    PieceData,
    PieceMap,
    PieceMapRequest,
    PieceRefused,
    PieceRequest,
    Queued,
)
from protocol.rates import Rate


def choice_of(count, have=(), seed=1):
    bitmap = bytearray((count + 7) // 8)
    for index in have:
        set_piece(bitmap, index)
    return PieceChoice(count, bytes(bitmap), random.Random(seed))


def taken(choice, source, count, now=0.0):
    return [choice.choose(source, now) for _ in range(count)]


# ---- the choice of pieces


def test_each_piece_is_asked_of_one_source_only():
    choice = choice_of(100)
    choice.set_map("a", True)
    choice.set_map("b", True)
    asked = []
    for _ in range(50):
        asked += [choice.choose("a", 0.0), choice.choose("b", 0.0)]
    assert sorted(asked) == list(range(100))
    assert choice.choose("a", 0.0) is None


def test_equally_rare_pieces_are_asked_in_short_runs_each_somewhere_else():
    choice = choice_of(48)
    choice.set_map("a", True)
    order = taken(choice, "a", 48)
    runs = [order[start : start + rules.RUN_PIECES] for start in range(0, 48, rules.RUN_PIECES)]
    assert all(run == list(range(run[0], run[0] + rules.RUN_PIECES)) for run in runs)
    assert runs != sorted(runs) and sorted(order) == list(range(48))
    assert len({taken_first(seed) for seed in range(20)}) > 5


def taken_first(seed):
    choice = choice_of(50, seed=seed)
    choice.set_map("a", True)
    return choice.choose("a", 0.0)


def test_the_rarest_pieces_come_first():
    choice = choice_of(16)
    choice.set_map("all", True)
    choice.set_map("half", False, b"\xff\x00")
    choice.set_map("quarter", False, b"\xf0\x00")
    order = taken(choice, "all", 16)
    assert set(order[:8]) == set(range(8, 16))
    assert set(order[8:12]) == set(range(4, 8))
    assert set(order[12:]) == set(range(4))


def test_verified_pieces_are_never_asked_again():
    choice = choice_of(8, have=(0, 3, 7))
    choice.set_map("a", True)
    assert choice.missing == 5
    assert sorted(taken(choice, "a", 5)) == [1, 2, 4, 5, 6]
    assert choice.choose("a", 0.0) is None


def test_a_partial_source_is_asked_only_for_what_it_has():
    choice = choice_of(16)
    choice.set_map("a", False, b"\x80\x01")
    assert sorted(taken(choice, "a", 2)) == [0, 15]
    assert choice.choose("a", 0.0) is None
    assert choice.add_piece("a", 5) and not choice.add_piece("a", 5)
    assert choice.choose("a", 0.0) == 5


def test_what_a_lost_source_owed_is_asked_elsewhere():
    choice = choice_of(4)
    choice.set_map("a", True)
    choice.set_map("b", True)
    asked = taken(choice, "a", 4)
    assert choice.choose("b", 0.0) is None
    for index in asked:
        choice.release("a", index)
    choice.remove_map("a")
    assert sorted(taken(choice, "b", 4)) == [0, 1, 2, 3]


def test_in_the_endgame_a_piece_is_asked_of_a_second_source_and_of_no_third():
    choice = choice_of(1)
    for source in "abc":
        choice.set_map(source, True)
    assert choice.choose("a", 0.0) == 0
    assert choice.choose("b", 0.1) is None  # not owed for long yet
    assert choice.choose("b", 1.0) == 0
    assert choice.choose("c", 2.0) is None
    assert sorted(choice.verify(0)) == ["a", "b"]
    assert choice.missing == 0


def test_in_the_endgame_no_second_source_is_asked_that_would_bring_it_later():
    choice = choice_of(2)
    for source in "ab":
        choice.set_map(source, True)
    assert choice.choose("a", 0.0) is not None and choice.choose("a", 0.1) is not None
    assert choice.choose("b", 1.0, lambda asked: False) is None
    assert choice.choose("b", 1.0, lambda asked: asked.at > 0.0) == choice.asked_of("b")[0]
    assert [one.at for one in choice.asked[choice.asked_of("b")[0]]] == [0.1, 1.0]


def test_a_piece_on_its_way_to_the_disk_is_not_asked_again():
    choice = choice_of(1)
    choice.set_map("a", True)
    choice.set_map("b", True)
    choice.choose("a", 0.0)
    choice.settle("a", 0)
    assert choice.choose("b", 100.0) is None
    choice.reopen(0)  # it was wrong
    assert choice.choose("b", 100.0) == 0


def test_indexes_out_of_range_and_strange_bitmaps_do_no_harm():
    choice = choice_of(3)
    choice.set_map("a", False, b"\xff" * 500)
    assert not choice.add_piece("a", 3) and not choice.add_piece("a", 1 << 31)
    choice.remove_piece("a", 1 << 31)
    assert sorted(taken(choice, "a", 3)) == [0, 1, 2]


def test_an_empty_content_misses_nothing():
    choice = choice_of(0)
    choice.set_map("a", True)
    assert choice.missing == 0 and choice.choose("a", 0.0) is None and choice.bitmap() == b""


def test_random_histories_keep_the_books_right():
    for seed in range(30):
        rng = random.Random(seed)
        choice, count = choice_of(40, seed=seed), 40
        owed = defaultdict(set)
        now = 0.0
        for _ in range(600):
            now += rng.random() * 0.3
            source = rng.choice("abcd")
            act = rng.randrange(6)
            if act == 0 and source not in owed:
                choice.set_map(source, rng.random() < 0.5, rng.randbytes(5))
                owed[source] = set()
            elif act == 1 and source in owed:
                for index in owed.pop(source):
                    choice.release(source, index)
                choice.remove_map(source)
            elif act in (2, 3) and source in owed:
                index = choice.choose(source, now)
                if index is not None:
                    assert index not in owed[source] and not choice.is_verified[index], seed
                    owed[source].add(index)
            elif act == 4 and owed[source] if source in owed else False:
                index = owed[source].pop()
                for other in choice.verify(index):
                    owed[other].discard(index)
            elif source in owed:
                choice.add_piece(source, rng.randrange(count))
            asked = Counter(index for indexes in owed.values() for index in indexes)
            assert {index: len(who) for index, who in choice.asked.items()} == asked, seed
            assert max(asked.values(), default=0) <= rules.ASKED_SOURCES_MAX, seed


# ---- rates and windows


def test_a_rate_is_right_from_the_start_and_follows_within_five_seconds():
    rate = Rate(0.0)
    now = 0.0
    for _ in range(20):
        now += 0.1
        rate.add(1_000_000, now)
    assert rate.per_second(now) == pytest.approx(10e6, rel=0.15)
    for _ in range(50):
        now += 0.1
        rate.add(100_000, now)
    assert rate.per_second(now) < 4e6
    assert rate.per_second(now + 30) < 100


def test_windows_follow_the_rate_within_their_bounds():
    assert window_of(0.0, False, 1, MIB) == 4 * MIB
    assert window_of(0.0, False, 1, 65536) == MIB
    assert window_of(0.0, False, 8, 65536) == 2 * 65536  # one among several: little is decided early
    assert window_of(100e6, True, 1, MIB) == 16 * MIB
    assert window_of(100_000.0, True, 2, MIB) == MIB  # a slow one among others: one piece
    assert window_of(100_000.0, True, 1, MIB) == 4 * MIB  # the only one
    assert window_of(100e6, True, 8, MIB) == 2 * MIB
    assert in_flight_limit(MIB) == 16 * MIB
    assert in_flight_limit(32 * MIB) == 64 * MIB


# ---- a download with scripted hands


class Hands:
    """Remembers what a Download wants done."""

    def __init__(self, content, piece_size):
        self.content = content
        self.piece_size = piece_size
        self.pieces = [content[start : start + piece_size] for start in range(0, len(content), piece_size)]
        self.digests = b"".join(hashlib.sha256(piece).digest() for piece in self.pieces)
        self.sent = []
        self.requests = Counter()
        self.arrived = Counter()
        self.writes = []
        self.strikes = []
        self.useless = []
        self.is_done = False
        self.verified = []

    def send(self, link, message):
        self.sent.append((link, message))

    def piece_size_of(self, size):
        return self.piece_size

    def is_true_manifest(self, file_id, size, digests):
        return digests == self.digests and size == len(self.content)

    def requests_on(self, link):
        return self.requests[link]

    def count_requests(self, link, change):
        self.requests[link] += change

    def arrived_on(self, link):
        return self.arrived[link]

    def has_room(self, size):
        return sum(self.requests.values()) < 1000

    def may_ask(self, now):
        return True

    def note_asked(self, size):
        pass

    def open_pieces(self, size, digests):
        self.opened = size, digests

    def write(self, index, data, link):
        self.writes.append((index, data, link))

    def on_piece(self, index, now):
        self.verified.append(index)

    def on_all_pieces(self, now):
        self.is_done = True

    def on_strike(self, source, why, is_proof, now):
        self.strikes.append((source.link, why))
        if is_proof or len(self.strikes) > 1:
            self.download.remove_source(source.link, now)

    def on_useless(self, source, why, now):
        self.useless.append((source.link, why))
        self.download.remove_source(source.link, now)

    def requested(self, link):
        """Takes the piece requests that were sent on a link."""
        kinds = PieceRequest, AnyPieceRequest
        found = [message.index for to, message in self.sent if to == link and isinstance(message, kinds)]
        self.sent = [one for one in self.sent if not (one[0] == link and isinstance(one[1], kinds))]
        return found

    def write_all(self, download, now):
        for index, data, link in self.writes[:]:
            self.writes.remove((index, data, link))
            download.on_written(index, link, bytes(data) == self.pieces[index], now)


def started(size=40 * 65536, piece_size=65536, links=(1,), have=b""):
    content = random.Random(5).getrandbits(8 * size).to_bytes(size, "big") if size else b""
    hands = Hands(content, piece_size)
    download = hands.download = Download(FILE, hands, random.Random(1), 0.0)
    for link in links:
        download.add_source(link, bytes([link]) * 8, "node%d" % link, 0.0)
    for page in manifest_pages(FILE, size, hands.digests):
        download.on_manifest_page(links[0], page, 0.0)
    download.on_opened(have or bytes((len(hands.pieces) + 7) // 8), 0.0)
    for link in links:
        download.on_piece_map(link, PieceMap(FILE, True, b""), 0.0)
    return hands, download


def serve(hands, download, link, now):
    for index in hands.requested(link):
        download.on_piece_data(link, index, 0, memoryview(hands.pieces[index]), now)


def test_a_download_asks_for_manifest_and_map_and_ends_with_every_piece_written():
    hands, download = started()
    kinds = [type(message) for _, message in hands.sent[:2]]
    assert kinds == [ManifestRequest, PieceMapRequest]
    now = 0.0
    while not hands.is_done:
        now += 0.01
        assert now < 5
        serve(hands, download, 1, now)
        hands.write_all(download, now)
    assert sorted(hands.verified) == list(range(40))
    assert download.verified_bytes == len(hands.content)
    assert download.in_flight_bytes == 0 and hands.requests[1] == 0


def test_fellows_who_are_not_called_yet_make_windows_as_small_as_those_who_are():
    """What a source is asked for alone, before a cast, would hold up the words that belong to the cast."""
    asked = []
    for fellows in (0, 7):
        hands = Hands(random.Random(5).randbytes(40 * 65536), 65536)
        download = hands.download = Download(FILE, hands, random.Random(1), 0.0)
        download.expect_fellows(fellows)
        download.add_source(1, bytes(8), "ana", 0.0)
        for page in manifest_pages(FILE, len(hands.content), hands.digests):
            download.on_manifest_page(1, page, 0.0)
        download.on_opened(bytes(5), 0.0)
        download.on_piece_map(1, PieceMap(FILE, True, b""), 0.0)
        asked.append(len(hands.requested(1)))
    hands, download = started(links=range(1, 9))
    assert asked[0] > asked[1] == len(hands.requested(8)) > 0


def test_a_piece_that_comes_whole_is_handed_to_the_disk_without_a_copy():
    hands, download = started()
    index = hands.requested(1)[0]
    view = memoryview(hands.pieces[index])
    download.on_piece_data(1, index, 0, view, 0.1)
    assert hands.writes[0][1] is view


def test_what_is_in_flight_is_bounded_and_counts_until_it_is_written():
    hands, download = started(size=64 * MIB, piece_size=MIB)
    now = 0.0
    while True:
        now += 0.01
        indexes = hands.requested(1)
        if not indexes:
            break
        for index in indexes:
            download.on_piece_data(1, index, 0, memoryview(hands.pieces[index]), now)
        assert download.in_flight_bytes <= rules.IN_FLIGHT_BYTES_MAX
    assert len(hands.writes) == 16  # the disk has not written one: nothing more is asked
    hands.write_all(download, now)
    assert hands.requested(1)


def test_requests_on_one_link_are_bounded():
    hands, download = started(size=200 * 16384, piece_size=16384)
    assert len(hands.requested(1)) == REQUESTS_PER_LINK_MAX


def test_a_large_piece_comes_in_spans_in_order():
    hands, download = started(size=3 * MIB, piece_size=2 * MIB)
    for index in hands.requested(1):
        piece = hands.pieces[index]
        for offset in range(0, len(piece), MIB):
            download.on_piece_data(1, index, offset, piece[offset : offset + MIB], 0.1)
    hands.write_all(download, 0.2)
    assert hands.is_done and not hands.strikes


@pytest.mark.parametrize("data", [b"", b"x" * 65537])
def test_a_piece_of_the_wrong_length_is_a_strike_and_is_asked_elsewhere(data):
    hands, download = started(links=(1, 2))
    download.on_piece_data(1, hands.requested(1)[0], 0, data, 0.1)
    assert hands.strikes == [(1, "a piece of the wrong length")]
    assert not hands.writes
    finish_from(hands, download, 2)


@pytest.mark.parametrize("offset", [1, 65535, 65536, 1 << 40])
def test_bytes_out_of_place_are_dropped_and_the_piece_comes_from_elsewhere(offset):
    hands, download = started(links=(1, 2))
    download.on_piece_data(1, hands.requested(1)[0], offset, b"x", 0.1)
    assert download.dropped == 1 and not hands.strikes and not hands.writes
    finish_from(hands, download, 2)


def finish_from(hands, download, link):
    now = 0.1
    while not hands.is_done and now < 5:
        now += 0.1
        download.on_timer(now)
        serve(hands, download, link, now)
        hands.write_all(download, now)
    assert hands.is_done


def test_what_comes_late_of_a_cancelled_answer_does_no_harm_to_its_honest_source():
    hands, download = started(size=3 * MIB, piece_size=2 * MIB)
    first = hands.requested(1)
    download.on_queued(1, 1, 0.1)
    download.on_queued(1, 0, 0.4)  # all is asked again; of the first answer, some is still on its way
    index = next(index for index in hands.requested(1) if index in first and len(hands.pieces[index]) > MIB)
    piece = hands.pieces[index]
    for offset in (MIB, 0, MIB):
        download.on_piece_data(1, index, offset, piece[offset : offset + MIB], 0.5)
    assert download.dropped == 1 and not hands.strikes
    hands.write_all(download, 0.6)
    assert download.choice.is_verified[index]


def test_data_that_nobody_asked_for_is_dropped():
    hands, download = started()
    asked = set(hands.requested(1))
    other = next(index for index in range(40) if index not in asked)
    download.on_piece_data(1, other, 0, hands.pieces[other], 0.1)
    download.on_piece_data(9, next(iter(asked)), 0, b"x", 0.1)
    download.on_piece_data(1, NO_PIECE, 0, b"x", 0.1)
    assert download.dropped == 3 and not hands.writes


def test_a_wrong_piece_is_asked_of_another_source_first():
    hands, download = started(size=65536, links=(1, 2))
    assert hands.requested(1) == [0]
    download.on_piece_data(1, 0, 0, b"x" * 65536, 0.1)
    hands.write_all(download, 0.1)
    assert hands.strikes == [(1, "a wrong piece")]
    assert hands.requested(2) == [0] and not hands.is_done


def test_who_sent_a_wrong_piece_owes_one_at_a_time_until_it_sends_a_right_one():
    hands, download = started(size=40 * 65536)
    first, *others = hands.requested(1)
    download.on_piece_data(1, first, 0, b"x" * 65536, 0.1)
    others += hands.requested(1)  # asked for its room, before the disk had judged it
    hands.write_all(download, 0.1)
    for index in others:
        assert not hands.requested(1)
        download.on_piece_data(1, index, 0, hands.pieces[index], 0.2)
        hands.write_all(download, 0.2)
    (last,) = hands.requested(1)
    download.on_piece_data(1, last, 0, hands.pieces[last], 0.3)
    hands.write_all(download, 0.3)
    assert len(hands.requested(1)) > 3


def test_a_silent_source_is_passed_over_after_three_seconds_and_dropped_after_twenty():
    hands, download = started(size=20 * 65536, links=(1, 2))
    first = hands.requested(1)
    now = 0.0
    while now < 3.5:
        now += 0.25
        serve(hands, download, 2, now)
        hands.write_all(download, now)
        download.on_timer(now)
    assert hands.is_done or set(hands.requested(2)) <= set(first)
    hands, download = started(links=(1,))
    for _ in range(int(DROP_AFTER) + 2):
        now += 1.0
        download.on_timer(now)
    assert hands.useless == [(1, "sends nothing")]


@pytest.mark.parametrize("is_useful", [False, True])
def test_bytes_that_nobody_asked_for_are_no_sign_of_a_source(is_useful):
    hands, download = started(links=(1, 2))
    asked = set(hands.requested(1))
    other = next(index for index in range(40) if index not in asked)
    for step in range(1, 9):
        now = step * 0.5
        if is_useful:
            download.on_piece_data(1, min(asked), step - 1, b"x", now)
        else:
            download.on_piece_data(1, other, 0, hands.pieces[other], now)
        download.on_timer(now)
    assert download.sources[1].is_passed_over != is_useful


def test_what_comes_of_a_piece_that_was_taken_back_is_a_sign_once():
    hands, download = started(links=(1, 2))
    asked = hands.requested(1)
    for step in range(1, 4):
        download.on_timer(float(step))
    source = download.sources[1]
    assert source.is_passed_over and not source.owed
    for at, heard_at in ((3.5, 3.5), (9.0, 3.5)):
        download.on_piece_data(1, asked[0], 0, hands.pieces[asked[0]], at)
        assert source.heard_at == heard_at and not source.is_passed_over


@pytest.mark.parametrize("each, is_waited_for", [(16 << 10, True), (100, False)])
def test_who_brings_bytes_of_a_piece_is_waited_for_though_no_piece_is_whole(each, is_waited_for):
    hands, download = started(size=20 * MIB, piece_size=MIB, links=(1, 2))
    for step in range(1, 20):
        hands.arrived[1] += each
        serve(hands, download, 2, step * 0.5)
        download.on_timer(step * 0.5)
    assert download.sources[1].is_passed_over != is_waited_for
    cancelled = [to for to, message in hands.sent if isinstance(message, PieceCancel)]
    assert (1 in cancelled) != is_waited_for


def test_bytes_that_nobody_asked_for_are_no_part_of_a_piece_either():
    hands, download = started(links=(1, 2))
    asked = set(hands.requested(1))
    other = next(index for index in range(40) if index not in asked)
    for step in range(1, 9):
        hands.arrived[1] += len(hands.pieces[other])
        download.on_piece_data(1, other, 0, hands.pieces[other], step * 0.5)
        download.on_timer(step * 0.5)
    assert download.sources[1].is_passed_over and not hands.writes


def passed_over(links=(1, 2)):
    """A download whose first source was silent for too long, what that owed, and when."""
    hands, download = started(links=links)
    asked = hands.requested(1)
    for step in range(1, 4):
        download.on_timer(float(step))
    assert download.sources[1].is_passed_over and not hands.writes
    return hands, download, asked


def test_a_piece_that_was_taken_back_and_comes_all_the_same_is_kept_and_comes_from_nobody_else():
    hands, download, asked = passed_over()
    index = asked[0]
    while index not in download.sources[2].owed:  # it is asked of the other one meanwhile
        first = min(download.sources[2].owed)
        download.on_piece_data(2, first, 0, hands.pieces[first], 3.1)
        hands.write_all(download, 3.1)
    in_flight = download.in_flight_bytes
    download.on_piece_data(1, index, 0, hands.pieces[index], 3.2)
    assert hands.writes == [(index, hands.pieces[index], 1)] and not download.dropped
    hands.write_all(download, 3.2)
    assert download.choice.is_verified[index] and (2, PieceCancel(FILE, index)) in hands.sent
    assert index not in download.sources[2].owed and download.in_flight_bytes <= in_flight
    finish_from(hands, download, 2)
    assert len(hands.verified) == len(set(hands.verified)) == 40 and not download.in_flight_bytes


def test_of_a_piece_that_was_taken_back_only_the_whole_is_kept_and_only_once():
    hands, download, asked = passed_over()
    download.on_piece_data(1, asked[0], 0, hands.pieces[asked[0]][:-1], 3.1)
    download.on_piece_data(1, asked[0], 0, hands.pieces[asked[0]], 3.1)
    download.on_piece_data(1, asked[1], 1, hands.pieces[asked[1]], 3.1)
    assert not hands.writes and download.dropped == 3
    download.on_piece_data(1, asked[2], 0, b"x" * 65536, 3.2)
    hands.write_all(download, 3.2)
    assert hands.strikes == [(1, "a wrong piece")] and not download.choice.is_verified[asked[2]]
    finish_from(hands, download, 2)


def last_piece(rates):
    """A download of two sources that have brought so many bytes a second, of which the first owes the last piece."""
    hands, download = started(size=MIB, piece_size=MIB, links=(1, 2))
    assert hands.requested(1) == [0] and not hands.requested(2)
    for link, rate in rates.items():
        download.sources[link].rate = Rate(-10.0)
        for step in range(-100, 0):
            download.sources[link].count(rate // 10, step / 10)
    return hands, download


def doubled_at(rates):
    """After how many seconds the second one is asked, too; None: not within 20."""
    hands, download = last_piece(rates)
    for step in range(1, 40):
        for link, rate in rates.items():  # which both still have
            download.sources[link].count(rate // 2, step / 2)
            hands.arrived[link] += rate // 2
        download.on_timer(step / 2)
        if hands.requested(2):
            return step / 2
    return None


def test_who_brings_the_last_piece_at_the_rate_of_all_is_not_doubled_before_it_is_long_overdue():
    rate = 262_144  # a piece takes four seconds
    assert 7.0 <= doubled_at({1: rate, 2: rate}) <= 9.0
    assert doubled_at({1: rate, 2: 20 * rate}) == 0.5  # the other brings it first
    assert doubled_at({1: 20 * rate, 2: rate}) == 0.5  # it is overdue by now
    assert doubled_at({1: 0, 2: rate}) == doubled_at({1: rate}) == 0.5  # of one there is no rate to go by


def test_the_only_source_is_not_passed_over():
    hands, download = started(links=(1,))
    asked = hands.requested(1)
    for step in range(10):
        download.on_timer(step * 1.0)
    assert not any(isinstance(message, PieceCancel) for _, message in hands.sent)
    download.on_piece_data(1, asked[0], 0, hands.pieces[asked[0]], 10.0)
    assert hands.writes


def test_a_queued_source_owes_nothing_until_its_turn():
    hands, download = started(links=(1,))
    assert hands.requested(1)
    download.on_queued(1, 3, 0.1)
    assert download.sources[1].state is SourceState.QUEUED
    assert download.in_flight_bytes == 0 and hands.requests[1] == 0
    for step in range(60):
        download.on_timer(step * 1.0)  # waiting in a queue is no fault
    assert not hands.useless
    download.on_queued(1, 0, 60.0)
    assert hands.requested(1)


def test_a_refused_piece_is_not_asked_of_that_source_again_until_it_has_it():
    hands, download = started(size=65536, links=(1,))
    assert hands.requested(1) == [0]
    download.on_piece_refused(1, 0, 0.1)
    download.on_timer(1.0)
    assert hands.requested(1) == []
    download.on_new_pieces(1, (0,), 1.1)
    assert hands.requested(1) == [0]


def test_a_resumed_download_asks_only_for_what_is_missing():
    bitmap = bytearray(5)
    for index in range(40):
        if index not in (7, 9):
            set_piece(bitmap, index)
    hands, download = started(have=bytes(bitmap))
    assert sorted(hands.requested(1)) == [7, 9]
    assert download.verified_bytes == 38 * 65536


# ---- many fetch one content at once


def with_a_fellow():
    """One source that has it all and owes three pieces at least, and one who fetches it too and has nothing yet."""
    hands, download = started(size=200 * 65536, links=(1,))
    download.add_source(2, b"2" * 8, "fellow", 0.1, is_fellow=True)
    download.on_piece_map(2, PieceMap(FILE, False, b""), 0.1)
    serve(hands, download, 1, 0.2)
    hands.write_all(download, 0.2)
    assert len(download.sources[1].owed) > 3
    return hands, download


def end_from(hands, download, link):
    """All that is owed comes from there, until the end."""
    for now in range(1, 200):
        for index in list(download.sources[link].owed):
            download.on_piece_data(link, index, 0, hands.pieces[index], float(now))
        hands.write_all(download, float(now))
        download.on_timer(float(now))
    assert hands.is_done and not hands.strikes


def test_a_fellow_is_no_one_to_ask_for_the_manifest_while_there_is_another():
    hands = Hands(b"z" * (40 * 65536), 65536)
    download = hands.download = Download(FILE, hands, random.Random(1), 0.0)
    download.add_source(2, b"2" * 8, "fellow", 0.0, is_fellow=True)
    download.add_source(1, b"1" * 8, "ana", 0.0)
    assert [link for link, message in hands.sent if isinstance(message, ManifestRequest)] == [1]


def test_what_a_fellow_gets_is_asked_of_it():
    hands, download = with_a_fellow()
    choice = download.choice
    new = [index for index in range(200) if index not in choice.asked and not choice.is_verified[index]][:3]
    download.on_new_pieces(2, tuple(new), 0.2)
    assert set(hands.requested(2)) <= set(new) and hands.requests[2] > 1


def test_news_before_the_manifest_is_remembered_within_bounds():
    hands = Hands(b"z" * (40 * 65536), 65536)
    download = hands.download = Download(FILE, hands, random.Random(1), 0.0)
    download.add_source(2, b"2" * 8, "fellow", 0.0)
    download.on_piece_map(2, PieceMap(FILE, False, b""), 0.0)
    download.on_new_pieces(2, (3, 4), 0.0)
    download.on_new_pieces(2, (5, 60_000), 0.0)
    download.on_new_pieces(9, (5,), 0.0)
    assert download.dropped == 2
    for one in manifest_pages(FILE, len(hands.content), hands.digests):
        download.on_manifest_page(2, one, 0.1)
    download.on_opened(bytes(5), 0.1)
    assert sorted(hands.requested(2)) == [3, 4]


def test_the_only_whole_source_may_give_another_piece_than_was_asked_for():
    hands, download = with_a_fellow()
    asked = next(iter(download.sources[1].owed))
    assert (1, AnyPieceRequest(FILE, asked)) in hands.sent
    choice = download.choice
    other = next(index for index in range(200) if index not in choice.asked and not choice.is_verified[index])
    requests, in_flight = hands.requests[1], download.in_flight_bytes
    download.on_other_piece(1, asked, other, 0.3)
    assert other in download.sources[1].owed and asked not in download.sources[1].owed
    assert (hands.requests[1], download.in_flight_bytes) == (requests, in_flight)
    download.on_piece_data(1, other, 0, hands.pieces[other], 0.4)
    hands.write_all(download, 0.4)
    assert choice.is_verified[other]
    end_from(hands, download, 1)


@pytest.mark.parametrize("given", [None, 200, 1 << 31])
def test_another_piece_that_is_not_wanted_is_cancelled_and_the_source_is_not_asked_so_again(given):
    hands, download = with_a_fellow()
    owed = sorted(download.sources[1].owed)
    given = owed[1] if given is None else given  # asked for already, or none at all
    download.on_other_piece(1, owed[0], given, 0.2)
    assert (1, PieceCancel(FILE, given)) in hands.sent
    hands.sent.clear()
    download.on_piece_data(1, owed[2], 0, hands.pieces[owed[2]], 0.3)
    assert not any(isinstance(message, AnyPieceRequest) for _, message in hands.sent)
    download.on_other_piece(1, owed[3], 199, 0.4)
    download.on_other_piece(7, owed[3], 199, 0.4)
    assert download.dropped == 2
    end_from(hands, download, 1)


@pytest.mark.parametrize("spans", [1, 2])
def test_after_an_exchange_that_is_not_wanted_nothing_is_owed_that_never_comes(spans, monkeypatch):
    """The source has forgotten what it gave another piece for; and what was cancelled, but for what it had read."""
    monkeypatch.setattr("protocol.exchange.source.SPAN_BYTES_MAX", 65536 // spans)
    hands, download = with_a_fellow()
    source = download.sources[1]
    owed = sorted(source.owed)
    hands.sent.clear()
    download.on_other_piece(1, owed[0], owed[1], 0.2)
    download.on_other_piece(1, owed[2], 199, 0.2)  # was on its way already
    comes = {199} | ({owed[1]} if spans == 1 else set())
    for index in (*owed[:3], 199):
        is_asked = any(message == PieceRequest(FILE, index) for _, message in hands.sent)
        assert (is_asked or index in comes) == (index in source.owed), index


# ---- manifests that lie (THREATS: G03, A12)


def page(first, count, size=40 * 65536, fill=b"d"):
    return ManifestPage(FILE, size, first, fill * (32 * count))


@pytest.mark.parametrize(
    "pages",
    [
        [page(0, 41)],  # too long
        [page(1, 2)],  # does not begin at the beginning
        [page(0, 10), page(9, 10)],  # overlaps
        [page(0, 10), page(10, 10, size=50 * 65536)],  # another size
        [page(0, 0)],  # empty for a file that is not
        [page(0, 40, fill=b"x")],  # not of this file
        [page(0, 1, size=FILE_SIZE_MAX + 1)],
        [page(0, 1, size=2**64 - 1)],
        [page(0, 1, size=1 << 40)],  # more pieces than any file has
    ],
)
def test_a_lying_manifest_is_refused_and_another_source_asked(pages):
    hands = Hands(b"z" * (40 * 65536), 65536)
    download = hands.download = Download(FILE, hands, random.Random(1), 0.0)
    download.add_source(1, b"1" * 8, "liar", 0.0)
    download.add_source(2, b"2" * 8, "ana", 0.0)
    for one in pages:
        download.on_manifest_page(1, one, 0.0)
    assert [link for link, _ in hands.strikes] == [1]
    assert (2, ManifestRequest(FILE)) in hands.sent
    for one in manifest_pages(FILE, len(hands.content), hands.digests):
        download.on_manifest_page(2, one, 0.1)
    assert hands.opened[0] == len(hands.content)


def test_manifest_pages_nobody_asked_for_are_dropped():
    hands, download = started()
    download.on_manifest_page(1, page(0, 40), 0.1)
    download.on_manifest_page(7, page(0, 40), 0.1)
    assert download.dropped == 2 and not hands.strikes


def test_a_long_manifest_travels_in_pages():
    digests = bytes(range(256)) * (32 * 2560 // 256)
    manifest = Manifest(0.0)
    pages = manifest_pages(FILE, 2560, digests)
    assert len(pages) == 3
    assert [manifest.add(one, 2560) for one in pages] == [False, False, True]
    assert bytes(manifest.digests) == digests
    with pytest.raises(Lie):
        manifest.add(pages[0], 2560)


# ---- uploads


def upload_links(count):
    hands = UploadHands()
    uploads = Uploads(hands)
    for link in range(1, count + 1):
        uploads.add(link, bytes([link]) * 8, "node%d" % link)
    return hands, uploads


def test_what_was_sent_is_remembered_up_to_a_bound_in_sum_and_the_greedy_lose_theirs(monkeypatch):
    """Each link had a bound of its own, and links are many."""
    monkeypatch.setattr(sending, "SENT_RECORDS_MAX", 20)
    hands, uploads = upload_links(3)

    def fetch(link, number):
        uploads.on_request(link, bytes([number]) * 32, 0, 1000, 0.0)
        uploads.on_read(link, bytes([number]) * 32, 0, 0, 1000, b"d", 0.0)

    fetch(3, 1)
    for number in range(60):
        fetch(1 + number % 2, number)
    assert [sum(row[0].link == link for row in uploads.rows(0.0)) for link in (1, 2, 3)] == [10, 9, 1]
    uploads.remove(1, 0.0)
    uploads.add(4, bytes([1]) * 8, "node1")
    before, again = UploadLink(1, bytes([1]) * 8, "node1", uploads.links[4].done_lines), uploads.links[4]
    uploads.go_on_from(before, again)
    assert len(uploads.sent_on(again)) == 10 and not uploads.sent_on(before)
    file_id, sent = uploads.sent_on(again)[0]
    assert uploads.forget_sent(again, file_id) == sent and len(uploads.sent_on(again)) == 9


def test_reading_ahead_stops_at_four_mebibytes_and_goes_on_when_the_link_drains():
    hands, uploads = upload_links(1)
    for index in range(10):
        uploads.on_request(1, FILE, index, MIB, 0.0)
    assert len(hands.reads) == 4
    hands.in_link[1] = 4 * MIB
    for read in hands.reads[:]:
        uploads.on_read(*read, b"d", 0.1)
    assert len(hands.take(PieceData)) == 4 and len(hands.reads) == 4
    hands.in_link[1] = 0
    uploads.on_writable(1, 0.2)
    assert len(hands.reads) == 8


def test_many_links_are_served_one_after_the_other():
    hands, uploads = upload_links(5)
    for index in range(3):
        for link in uploads.links:
            uploads.on_request(link, FILE, index, 2 * LINK_LOW, 0.0)
    assert len({read[0] for read in hands.reads}) == LINKS_AT_ONCE
    served, now = [], 0.0
    while hands.reads:
        now += 0.01
        read = hands.reads.pop(0)
        served.append(read[0])
        uploads.on_read(*read, b"d", now)
        uploads.on_writable(read[0], now)
    assert len(served) == 15 and max(served[:10].count(link) for link in uploads.links) <= 3
    assert [served.count(link) for link in uploads.links] == [3] * 5


def test_one_person_with_many_links_gets_no_more_turns_than_others():
    hands = UploadHands()
    uploads = Uploads(hands)
    for link, node_id in ((1, b"greedy.."), (2, b"greedy.."), (3, b"greedy.."), (4, b"modest..")):
        uploads.add(link, node_id, "node%d" % link)
    for index in range(8):
        for link in uploads.links:
            uploads.on_request(link, FILE, index, 2 * LINK_LOW, 0.0)
    served = []
    while hands.reads:
        read = hands.reads.pop(0)
        served.append(read[0])
        uploads.on_read(*read, b"d", 0.1)
        uploads.on_writable(read[0], 0.1)
    assert len(served) == 32 and served[:20].count(4) == 8  # in every second turn, as long as it wants something


def test_links_that_stand_keep_nobody_waiting():
    hands, uploads = upload_links(LINKS_AT_ONCE + 2)
    for index in range(4):
        for link in uploads.links:
            uploads.on_request(link, FILE, index, 2 * LINK_LOW, 0.0)
    frozen = [read[0] for read in hands.reads]
    for read in hands.reads:
        hands.in_link[read[0]] = read[-1]
        uploads.on_read(*read, b"d", 0.0)
    hands.reads.clear()
    uploads.on_timer(STUCK_AFTER / 2)
    assert not hands.reads
    hands.in_link.update(frozen)  # news for them are added all the time
    uploads.on_timer(2 * STUCK_AFTER)
    assert hands.reads and not {read[0] for read in hands.reads} & set(frozen)


def asked_for(uploads, link, index, now=0.0, may_be_other=True):
    uploads.on_whole_request(link, FILE, index, 9 * 1000 + 5, 1000, may_be_other, now)


def test_no_piece_is_given_twice_before_all_are_given_once():
    hands, uploads = upload_links(2)
    for link in (1, 2):
        for index in range(5):
            asked_for(uploads, link, index)
    given = [read[2] for read in hands.reads]
    while hands.reads:
        read = hands.reads.pop(0)
        uploads.on_read(*read, b"d", 0.1)
        given += [one[2] for one in hands.reads if one[2] not in given]
    assert sorted(given) == list(range(10))
    others = hands.take(OtherPiece)
    assert others and all(link == 2 for link, _ in others)
    data = {message.index for link, message in hands.take(PieceData) if link == 2}
    assert {message.given for _, message in others} <= data


def test_who_wants_one_piece_gets_that_one_and_a_later_session_begins_anew():
    hands, uploads = upload_links(2)
    asked_for(uploads, 1, 3)
    asked_for(uploads, 2, 3, may_be_other=False)
    assert not hands.take(OtherPiece)
    asked_for(uploads, 2, 3, 1.0)
    assert hands.take(OtherPiece) == [(2, OtherPiece(FILE, 3, 0))]
    asked_for(uploads, 2, 3, 1.0 + GIVEN_FORGOTTEN_AFTER)
    assert not hands.take(OtherPiece)
    asked_for(uploads, 1, 9, 1.0 + GIVEN_FORGOTTEN_AFTER)
    assert hands.reads[-1][2:] == (9, 0, 5)  # the last piece is shorter


def test_a_large_piece_is_sent_in_spans_and_an_unreadable_one_is_refused_once():
    hands, uploads = upload_links(1)
    uploads.on_request(1, FILE, 0, 3 * MIB + 5, 0.0)
    assert [(offset, length) for *_, offset, length in hands.reads] == [
        (0, MIB), (MIB, MIB), (2 * MIB, MIB), (3 * MIB, 5),
    ]  # fmt: skip
    hands, uploads = upload_links(1)
    uploads.on_request(1, FILE, 0, 8 * MIB, 0.0)
    uploads.on_unreadable(1, FILE, 0, MIB, PIECE_MISSING, 0.1)
    assert hands.take(PieceRefused) == [(1, PieceRefused(FILE, 0, PIECE_MISSING))]
    assert len(hands.reads) == 4  # the rest of the piece is not read any more


def test_more_requests_than_allowed_are_refused():
    hands, uploads = upload_links(1)
    for index in range(REQUESTS_PER_LINK_MAX + 10):
        uploads.on_request(1, FILE, index, MIB, 0.0)
    refused = hands.take(PieceRefused)
    assert refused and all(message.reason == TOO_MANY_REQUESTS for _, message in refused)
    assert len(uploads.links[1].jobs) <= REQUESTS_PER_LINK_MAX


def test_a_cancelled_piece_is_not_read():
    hands, uploads = upload_links(1)
    for index in range(10):
        uploads.on_request(1, FILE, index, MIB, 0.0)
    for index in range(4, 10):
        uploads.on_cancel(1, FILE, index)
    for read in hands.reads[:]:
        uploads.on_read(*read, b"d", 0.1)
    assert len(hands.reads) == 4


def test_beyond_the_slots_links_wait_their_turn_in_order():
    hands, uploads = upload_links(UPLOAD_SLOTS + 3)
    for link in uploads.links:
        uploads.on_request(link, FILE, 0, MIB, 0.0)
    waiting = [(link, message.position) for link, message in hands.take(Queued)]
    assert waiting == [(UPLOAD_SLOTS + 1, 1), (UPLOAD_SLOTS + 2, 2), (UPLOAD_SLOTS + 3, 3)]
    uploads.remove(1, 1.0)
    uploads.on_timer(1.0)
    told = hands.take(Queued)
    assert (UPLOAD_SLOTS + 1, Queued(0)) in told and (UPLOAD_SLOTS + 2, Queued(1)) in told
    for read in hands.reads[:]:
        if read[0] != 1:
            uploads.on_read(*read, b"d", 1.0)
    uploads.on_timer(3.0)  # the others are idle now: their slots pass on
    turns = {link for link, message in hands.take(Queued) if not message.position}
    assert turns == {UPLOAD_SLOTS + 2, UPLOAD_SLOTS + 3}


def test_a_slot_held_for_long_goes_to_who_waits():
    hands, uploads = upload_links(UPLOAD_SLOTS + 1)
    for link in uploads.links:
        uploads.on_request(link, FILE, 0, MIB, 0.0)
    hands.take(Queued)
    now = 0.0
    while now < SLOT_TURN + 1:
        now += 1.0
        hands.in_link.update({link: 1 for link in uploads.links if not hands.in_link[link]})
        uploads.on_timer(now)
    # One waited, so one loses its slot; the others, who held theirs as long, keep what they asked for.
    assert hands.take(Queued) == [(UPLOAD_SLOTS + 1, Queued(0)), (1, Queued(1))]
    assert [link for link, upload in uploads.links.items() if upload.has_slot] == list(range(2, UPLOAD_SLOTS + 2))


def test_the_slot_of_who_is_frozen_soon_goes_to_who_waits():
    hands, uploads = upload_links(UPLOAD_SLOTS + 1)
    for link in uploads.links:
        uploads.on_request(link, FILE, 0, MIB, 0.0)
    for read in hands.reads:  # which grows meanwhile
        uploads.on_read(*read, b"d", 0.0)
    hands.take(Queued)
    frozen, last = 2, UPLOAD_SLOTS + 1
    for tick in range(1, 6):
        for link in uploads.links:
            hands.in_link[link] = MIB if link == frozen else MIB - tick
        uploads.on_timer(float(tick))
    assert [link for link, upload in uploads.links.items() if not upload.has_slot] == [frozen]
    assert hands.take(Queued) == [(last, Queued(0)), (frozen, Queued(1))]


def test_bit_helpers_agree():
    bits = bytearray(2)
    set_piece(bits, 0)
    set_piece(bits, 9)
    assert bytes(bits) == b"\x80\x40" and has_piece(bits, 9) and not has_piece(bits, 8)


def test_the_first_wrong_piece_turns_checksums_on_and_those_asked_before_are_excused():
    hands, download = started(size=80 * 65536)
    before = hands.requested(1)
    for index in before[:3]:
        download.on_piece_data(1, index, 0, bytes(65536), 1.0)
    before += hands.requested(1)
    hands.write_all(download, 1.0)
    assert hands.strikes == [(1, "a wrong piece")]
    assert [message for _, message in hands.sent if isinstance(message, CheckBulk)] == [CheckBulk()]
    for index in before[3:]:
        download.on_piece_data(1, index, 0, bytes(65536), 1.5)  # these were on their way already
        hands.write_all(download, 1.5)
    assert len(hands.strikes) == 1
    after = hands.requested(1)
    download.on_piece_data(1, after[0], 0, bytes(65536), 2.0)  # asked with checksums on: nobody else is to blame
    hands.write_all(download, 2.0)
    assert hands.strikes == [(1, "a wrong piece")] * 2
