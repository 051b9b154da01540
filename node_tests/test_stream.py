"""A file that is handed over in order, each piece once it is verified: what `get NAME -` writes to standard output."""

from __future__ import annotations

import os

import pytest

from node_tests.stage.lab import MIB, content
from protocol.exchange.picking import PieceChoice
from protocol.results import DownloadDone, Stopped


class Reader:
    """Takes what comes; with `is_slow`, only when it is told to."""

    def __init__(self, node, is_slow=False):
        self.node, self.is_slow = node, is_slow
        self.data = b""
        self.wants_more = None

    def take(self, data, more):
        self.data += data
        self.wants_more = more
        if not self.is_slow:
            self.read_on()

    def read_on(self):
        more, self.wants_more = self.wants_more, None
        self.node.lab.world.after(0.001, lambda: more(self.node.lab.world.now))


def begin(node, reader, name="lab.iso"):
    entry = next(entry for entry in node.list(name) if entry.name == name)
    answers = []
    node.do("stream", entry, reader.take, node.world.now, answers.append)
    assert answers[0].kind == "started"


def ended(node):
    return node.told((DownloadDone, Stopped))


def run_until_ended(node, seconds=60):
    assert node.world.run_until(lambda: ended(node), node.world.now + seconds)
    return ended(node)[0]


@pytest.mark.parametrize("size", [0, 1, MIB, 9 * MIB + 17])
def test_all_bytes_come_in_order_and_nothing_is_kept(lab, size):
    data = content(size)
    lab.node("ana", shared={"lab.iso": data})
    bo = lab.node("bo")
    reader = Reader(bo)
    begin(bo, reader)
    assert isinstance(run_until_ended(bo), DownloadDone)
    lab.run(1)
    assert reader.data == data
    assert os.listdir(bo.folder) == [".node"] and os.listdir(os.path.join(bo.folder, ".node", "parts")) == []


def test_the_pieces_are_asked_for_in_their_order(lab):
    import random
    choice = PieceChoice(40, b"", random.Random(1), in_order=True)
    for source in ("a", "b"):
        choice.set_map(source, True)
    choice.add_piece("c", 7)
    assert [choice.choose("ab"[index % 2], 0.0) for index in range(40)] == list(range(40))


def test_a_reader_that_stands_still_gets_the_rest_when_it_goes_on(lab):
    data = content(5 * MIB)
    lab.node("ana", shared={"lab.iso": data})
    bo = lab.node("bo")
    reader = Reader(bo, is_slow=True)
    begin(bo, reader)
    lab.run(20)
    assert not ended(bo) and 0 < len(reader.data) <= MIB
    assert bo.row().verified == len(data)  # it came meanwhile
    reader.is_slow = False
    reader.read_on()
    assert isinstance(run_until_ended(bo), DownloadDone) and reader.data == data


def test_no_byte_of_a_wrong_piece_is_handed_over(lab):
    data = content(6 * MIB)
    liar, cy = lab.node("ana", shared={"lab.iso": data}), lab.node("cy", shared={"lab.iso": data})
    bo = lab.node("bo")
    read = liar.library.read

    def flipped(*place):
        piece = bytearray(read(*place))
        piece[0] ^= 1
        return piece

    liar.library.read = flipped
    reader = Reader(bo)
    begin(bo, reader)
    assert isinstance(run_until_ended(bo), DownloadDone) and reader.data == data
    assert ended(bo)[0].sources == (cy.name,)


def test_what_cannot_come_to_its_end_says_so(lab):
    lab.node("ana")
    bo = lab.node("bo", shared={"lab.iso": content(12 * MIB)})
    cy = lab.node("cy")
    cy.do("set_limits", None, 2e6, lab.world.now)
    reader = Reader(cy)
    begin(cy, reader)
    lab.run(2)
    bo.kill()
    assert isinstance(run_until_ended(cy, 120), Stopped)
    assert 0 < len(reader.data) < 12 * MIB and reader.data == content(12 * MIB)[: len(reader.data)]
