"""What nodes that keep no rule can do to one that does: nothing (THREATS: A01, A02, A11, A12, B01, E06, G03)."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from node_tests.stage.folders import paths_below
from node_tests.stage.forger import Stranger
from node_tests.stage.lab import MIB, PORT, content
from node_tests.stage.outlaw import Outlaw
from protocol import messages
from protocol.content import names
from protocol.content.pieces import digests_of, identity_of
from protocol.content.shares import ScanResult
from protocol.exchange.uploads import DONE_LINES_BURST, DONE_LINES_PER_SECOND
from protocol.results import DownloadDone, Notice, Stopped, UploadDone


def test_nobody_can_push_a_file(lab):
    ana = lab.node("ana", shared={"mine.txt": b"mine"})
    stranger = Stranger(lab)
    link = stranger.link_to(ana)
    before = paths_below(ana.folder)
    file_id = next(iter(ana.peer.holdings._shared))
    for message in (
        messages.PieceData(b"f" * 32, 0, 0, b"evil"),
        messages.PieceData(file_id, 0, 0, b"evil"),
        messages.ManifestPage(b"f" * 32, 4, 0, b"d" * 32),
        messages.PieceMap(b"f" * 32, True, b""),
        messages.NewPieces(b"f" * 32, (0,)),
        messages.Queued(1),
        messages.Offer(1, b"f" * 32, ana.peer.node_id, b"x" * 8, True, True),
        messages.TransferDone(file_id),
        b"\xff\xff",
        b"",
    ):
        stranger.say(link, message)
    lab.run(2)
    assert paths_below(ana.folder) == before and not ana.told(UploadDone)
    assert ana.peer.serving.dropped + ana.peer.fetching.dropped + ana.peer.dropped >= 9
    assert not stranger.lost


def test_the_first_message_must_say_who_it_is_and_soon(lab):
    ana = lab.node("ana")
    stranger = Stranger(lab)
    link = stranger.network.connect((ana.ip, PORT))
    lab.run(0.1)
    stranger.say(link, messages.PieceData(b"f" * 32, 0, 0, b"evil"))
    lab.run(1)
    assert stranger.lost == ["the first message must say who it is"]
    stranger.network.connect((ana.ip, PORT))
    lab.run(6)
    assert stranger.lost[1:] == ["it did not say who it is"]
    other = stranger.network.connect((ana.ip, PORT))
    lab.run(0.1)
    stranger.say(other, messages.LinkHello(messages.PURPOSE_BULK, b"n" * 16, b"x" * 8))
    lab.run(1)
    assert stranger.lost[2:] == ["not of this network"]


def test_what_was_not_announced_does_not_exist(lab):
    ana = lab.node("ana", shared={".secret": b"secret", "open.txt": b"open"})
    stranger = Stranger(lab)
    link = stranger.link_to(ana)
    hidden = identity_of(6, digests_of(b"secret"))
    for file_id in (hidden, b"f" * 32):
        stranger.say(link, messages.ManifestRequest(file_id))
        stranger.say(link, messages.PieceMapRequest(file_id))
        stranger.say(link, messages.PieceRequest(file_id, 0))
    lab.run(1)
    assert [refused.reason for refused in stranger.refusals()] == [messages.UNKNOWN_FILE] * 6
    stranger.heard.clear()
    shown = identity_of(4, digests_of(b"open"))
    for index in (1, 1 << 20, messages.NO_PIECE):
        stranger.say(link, messages.PieceRequest(shown, index))
    lab.run(1)
    assert [refused.reason for refused in stranger.refusals()] == [messages.PIECE_MISSING] * 3


def test_ten_thousand_requests_are_bounded_and_others_are_served(lab):
    data = content(4 * MIB)
    ana = lab.node("ana", shared={"lab.iso": data}, disk_delay=0.002)
    bo = lab.node("bo")
    stranger = Stranger(lab)
    link = stranger.link_to(ana)
    file_id = identity_of(len(data), digests_of(data))
    lab.run(0.1)
    reads = []
    read = ana.library.read
    ana.library.read = lambda *span: reads.append(span) or read(*span)
    for number in range(10_000):
        stranger.say(link, messages.PieceRequest(file_id, number % 64))
    lab.run(0.05)
    upload = next(iter(ana.peer.serving.uploads.links.values()))
    assert len(upload.jobs) <= 32 and upload.reading_bytes <= 4 * MIB
    assert isinstance(bo.fetched("lab.iso", within=20), DownloadDone)
    refused = [message for message in stranger.refusals() if message.reason == messages.TOO_MANY_REQUESTS]
    assert len(refused) > 9000


def announced_as(node, **changes):
    """From now on this node announces its first share otherwise than it is."""
    honest = node.peer.holdings.to_announce

    def lying():
        return {key: entry._replace(**changes) for key, entry in honest().items()}

    node.peer.holdings.to_announce = lying
    node.peer.holdings.announce()
    node.network.rearm()
    node.lab.run(0.5)


@pytest.mark.parametrize("size", [0, 5, 3 * MIB - 10, 3 * MIB + 10, 2**63 - 1, 2**64 - 1])
def test_an_announced_size_that_is_a_lie_is_told_and_takes_no_room(lab, size):
    lab.node("ana")
    bo = lab.node("bo", shared={"lab.iso": content(3 * MIB)})
    cy = lab.node("cy")
    announced_as(bo, size=size)
    stopped = cy.fetched("lab.iso")
    assert isinstance(stopped, Stopped) and "size lie" in stopped.reason
    assert not stopped.kept
    assert sum(os.path.getsize(path) for path in paths_below(cy.folder)) < 10_000


@pytest.mark.parametrize("size, is_told", [(5, True), (4 * MIB - 1, True), (4 * MIB, False), (2**40, False)])
def test_a_folder_that_is_larger_than_its_sharer_said_is_told_as_it_comes(lab, size, is_told):
    lab.node("ana")
    bo = lab.node("bo", shared={"talks/a.bin": content(2 * MIB, 1), "talks/b.bin": content(2 * MIB, 2)})
    cy = lab.node("cy")
    announced_as(bo, total_size=size)
    assert isinstance(cy.fetched("talks"), DownloadDone)
    told = [notice.text for notice in cy.told(Notice) if "talks has 4.2 MB, not " in notice.text]
    assert len(told) == is_told and all(text.endswith(" as the list says") for text in told)


@pytest.mark.parametrize("name", ["../../x", "/etc/x", "a/b", "..", "C:evil", "CON", "x\u202etxt", ".node", "a" * 241])
def test_a_name_that_is_refused_takes_nothing_and_writes_nothing(lab, monkeypatch, name):
    monkeypatch.setattr(names, "IS_STRICT", True)  # what some systems can keep, this one cannot
    lab.node("ana")
    bo = lab.node("bo", shared={"lab.iso": content(1000)})
    cy = lab.node("cy")
    announced_as(bo, name=name)
    rows = cy.list()
    before = paths_below(lab.path)
    for row in rows:  # a supernode may have refused it already
        answers = []
        cy.do("fetch", row, lab.world.now, answers.append)
        lab.run(2)
        assert cy.told(Stopped) and "refused" in cy.told(Stopped)[0].reason
    assert paths_below(lab.path) == before


@pytest.mark.parametrize("lie", ["digests", "size", "order", "long"])
def test_a_manifest_that_lies_bans_its_source_and_another_one_serves(lab, lie):
    data = content(3 * MIB)
    lab.node("ana")
    bo = lab.node("bo", shared={"lab.iso": data})
    honest = bo.peer.serving.send

    def lying(link, message):
        if isinstance(message, messages.ManifestPage):
            message = {
                "digests": message._replace(digests=b"d" * len(message.digests)),
                "size": message._replace(size=len(data) + 1),
                "order": message._replace(first=7),
                "long": message._replace(digests=message.digests + b"d" * 32),
            }[lie]
        honest(link, message)

    bo.peer.serving.send = lying
    cy = lab.node("cy")
    stopped = cy.fetched("lab.iso")
    assert isinstance(stopped, Stopped) and "bo sent" in stopped.reason
    lab.node("di", shared={"lab.iso": data})
    assert isinstance(cy.fetched("lab.iso"), DownloadDone)
    assert cy.read("lab.iso") == data and cy.told(DownloadDone)[0].sources == ("di",)


def test_a_listing_that_leads_out_of_the_folder_is_refused_as_a_whole(lab):
    lab.node("ana")
    bo = lab.node("bo", shared={"talks/a.txt": b"a"})
    shared = next(one for one in bo.peer.holdings._shared.all() if one.is_folder)
    evil = shared.listing.replace(b"a.txt", b"../ax")
    digests = digests_of(evil)
    evil_id = identity_of(len(evil), digests)
    false = replace(shared, listing=evil, digests=digests, file_id=evil_id, size=len(evil))
    bo.do("on_scanned", ScanResult([false], [shared], []), lab.world.now)
    lab.run(0.5)
    cy = lab.node("cy")
    before = paths_below(lab.path / "cy")
    stopped = cy.fetched("talks")
    assert isinstance(stopped, Stopped) and "refused" in stopped.reason, stopped
    assert paths_below(lab.path / "cy") == before


def test_who_comes_by_link_after_link_fills_no_screen(lab):
    """Each link had fifty lines of its own: a thousand in a second that something was sent, each of one byte."""
    ana = lab.node("ana", shared={"tiny.txt": b"x"})
    greedy = Outlaw(lab).join(ana)
    file_id, began = next(iter(ana.peer.holdings._shared)), lab.world.now
    for _ in range(12):
        link = greedy.link_to(ana)
        for _ in range(40):
            greedy.say(link, messages.PieceRequest(file_id, 0))
            lab.run(0.002)
            greedy.say(link, messages.TransferDone(file_id))
        lab.run(0.1)
        greedy.network.disconnect(link, "")
    lines = len(ana.told(UploadDone))
    assert DONE_LINES_BURST <= lines <= DONE_LINES_BURST + DONE_LINES_PER_SECOND * (lab.world.now - began) + 1
