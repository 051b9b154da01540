"""Relays are shared by those who ask for them: what nobody has takes no place, and a full one says so (X09)."""

from __future__ import annotations

import pytest

from node_tests.stage.lab import Lab, content
from node_tests.stage.outlaw import Outlaw, offers_all
from node_tests.stage.simulator import Conditions
from protocol import messages
from protocol.exchange import relays
from protocol.messages import NOWHERE
from protocol.results import DownloadDone, Stopped


@pytest.fixture
def lab(tmp_path):
    made = Lab(tmp_path, 5, Conditions(latency=0.002))
    yield made
    made.close()


def ask_relay(x, file_id, number, size=1 << 30):
    x.say(x.link, messages.Search(number, file_id, size, "x%d" % number, False, bytes(8), NOWHERE, True))


def ask_for_what_does_not_exist(lab, outlaws, count, first=0):
    for x in outlaws:
        for number in range(first, first + count):
            ask_relay(x, x.node_id + number.to_bytes(24, "big"), number)
    lab.run(0.3)


@pytest.mark.parametrize("outlaws", [2, 5])
def test_who_asks_for_relays_of_what_does_not_exist_keeps_nobody_from_one(lab, outlaws):
    ana, cy = lab.node("ana"), lab.node("cy", mesh=False)
    lab.node("bo", shared={"want.bin": content(100_000)})
    others = [Outlaw(lab, 60 + number, "x%d" % number).join(ana) for number in range(outlaws)]
    ask_for_what_does_not_exist(lab, others, 60)
    counted = ana.peer.fetching.relays
    assert counted.sought.total == min(outlaws * relays.RELAYS_FOR_ONE_MAX, relays.RELAYS_SOUGHT_MAX)
    assert counted.offered.total == 0
    assert isinstance(cy.fetched("want.bin"), DownloadDone)
    assert all("as much for others" in full.reason for x in others for full in x.all_of(messages.NotRelayed)[:5])


def test_a_person_reads_that_the_supernode_passes_on_as_much_as_it_can(lab, monkeypatch):
    """All places are taken, by others who have no more than this one would have: it is told, and nothing is untrue."""
    monkeypatch.setattr(relays, "RELAYS_MAX", 1)
    ana, cy, di = lab.node("ana"), lab.node("cy", mesh=False), lab.node("di", mesh=False)
    bo = lab.node("bo", shared={"one.bin": content(300_000), "two.bin": content(300_001)}, disk_delay=0.5)
    assert cy.fetch("one.bin").kind == "started"
    assert lab.world.run_until(lambda: ana.peer.fetching.relays.offered.total, lab.world.now + 5)
    stopped = di.fetched("two.bin")
    assert isinstance(stopped, Stopped)
    assert stopped.reason == "ana passes on as much for others as it can: try again soon"
    assert lab.world.run_until(lambda: cy.told(DownloadDone), lab.world.now + 60) and bo.is_alive
    lab.run(20)
    assert ana.peer.fetching.relays.offered.total == ana.peer.fetching.relays.sought.total == 0
    assert isinstance(di.fetched("two.bin"), DownloadDone)


def test_who_has_most_relays_gives_one_up_for_who_has_none(lab, monkeypatch):
    monkeypatch.setattr(relays, "RELAYS_MAX", 4)
    ana, cy = lab.node("ana"), lab.node("cy", mesh=False)
    files = {"f%d.bin" % number: content(200_000, number) for number in range(6)}
    bo = lab.node("bo", shared={**files, "want.bin": content(100_000)}, disk_delay=0.3)
    x = Outlaw(lab).join(ana)
    for number, shared in enumerate(one for one in bo.peer.holdings._shared.all() if one.name != "want.bin"):
        ask_relay(x, shared.file_id, number, 200_000)
    assert lab.world.run_until(lambda: ana.peer.fetching.relays.offered.total == 4, lab.world.now + 5)
    assert cy.fetch("want.bin").kind == "started"
    assert lab.world.run_until(lambda: cy.told((DownloadDone, Stopped)), lab.world.now + 60)
    assert cy.told(DownloadDone)
    assert any("as much for others" in full.reason for full in x.all_of(messages.NotRelayed))


@pytest.mark.parametrize("size", [0, 9, 1 << 40])
@pytest.mark.parametrize("who", ["the supernode's own person", "one with its mesh off"])
def test_one_who_has_a_relay_begun_with_a_wrong_size_keeps_nobody_from_the_file(lab, who, size):
    ana, cy = lab.node("ana"), lab.node("cy", mesh=False)
    bo = lab.node("bo", shared={"want.bin": content(300_000)}, disk_delay=0.5)
    x = Outlaw(lab).join(ana)
    ask_relay(x, next(iter(bo.peer.holdings._shared)), 1, size)
    assert lab.world.run_until(lambda: ana.peer.fetching.relays.offered.total, lab.world.now + 5)
    done = (cy if who == "one with its mesh off" else ana).fetched("want.bin")
    assert isinstance(done, DownloadDone), done


@pytest.mark.parametrize("answer", [
    pytest.param(lambda x, link, wanted: None, id="mute"),
    pytest.param(lambda x, link, wanted: x.say(link, messages.Queued(0)), id="busy"),
    pytest.param(lambda x, link, wanted: x.say(link, messages.PieceRefused(wanted.file_id, wanted.index, 3)),
                 id="refuses"),
])
def test_one_who_only_could_give_keeps_nobody_from_those_who_give_by_way_of_the_supernode(lab, answer):
    """All who have it have their mesh off, but for a liar: the second search goes by way of the supernode (G06)."""
    data = content(300_000)
    ana = lab.node("ana")
    lab.node("bo", shared={"lab.iso": data}, mesh=False)
    cy = lab.node("cy")
    x = offers_all(Outlaw(lab).join(ana), data)
    x.asked = lambda link, wanted: answer(x, link, wanted)
    assert cy.fetch("lab.iso").kind == "started"
    assert lab.world.run_until(lambda: cy.told(DownloadDone), lab.world.now + 8)
    assert cy.told(DownloadDone)[0].by_way_of == "ana" and cy.read("lab.iso") == data and x.served


def test_a_liar_that_has_no_piece_keeps_nobody_from_them_either(lab):
    data = content(300_000)
    ana = lab.node("ana")
    lab.node("bo", shared={"lab.iso": data}, mesh=False)
    cy = lab.node("cy")
    x = offers_all(Outlaw(lab).join(ana), data)
    hears = x.hears

    def has_nothing(link, message):
        if isinstance(message, messages.PieceMapRequest):
            x.say(link, messages.PieceMap(message.file_id, False, b""))
        else:
            hears(link, message)

    x.hears = has_nothing
    assert cy.fetch("lab.iso").kind == "started"
    assert lab.world.run_until(lambda: cy.told(DownloadDone), lab.world.now + 8) and x.served


def test_one_who_only_fetches_the_same_and_cannot_be_reached_sends_nobody_by_way_of_the_supernode(lab):
    lab.node("ana")
    lab.node("cy", shared={"big.bin": content(3_000_000)}, disk_delay=3.0)  # who has it answers late, and directly
    bo, di = lab.node("bo"), lab.node("di")
    lab.world.cut([bo.ip], [di.ip])
    assert bo.fetch("big.bin").kind == "started"
    lab.run(0.2)
    assert di.fetch("big.bin").kind == "started"
    (fetch,) = bo.peer.fetching.fetches.values()
    met = lab.world.run_until(lambda: bo.peer.fetching.links.is_unreached(di.peer.node_id, lab.world.now), 30.0)
    assert met and not fetch.givers._offered and not fetch.lookout._wants_via
    lab.run(10)
    assert not fetch.lookout.is_via and "di" not in fetch.lookout.trouble
