"""What stands in the log of a node, and what V shows of the paths of its transfers."""

import contextlib
import logging

import pytest

import node_client
from disk import logs
from node_tests.stage.lab import Lab, content
from node_tests.stage.simulator import Conditions, Pair
from prompt.lines import share_lines
from protocol import mishaps
from protocol.figures import PathFigures
from protocol.results import ChatReceived, Joined, Share, TransferRow

SIZE = 3_000_000
FIGURES = PathFigures(0.0304, 64_000, 2000, 30, 43_200, 4_000_000, 1_000_000, 2500)


@pytest.fixture
def log(caplog):
    """What is logged; no minute of an earlier test counts."""
    mishaps.MISHAPS.rest()
    caplog.set_level(logging.INFO)
    return caplog


@pytest.fixture
def packet_lab(tmp_path):
    """Nodes over the real transport, on a link of 50 Mbit/s that loses a packet in fifty."""
    lab = Lab(tmp_path, conditions=Conditions(latency=0.01, loss=0.02, rate=50e6 / 8, mtu=1500), packets=True)
    yield lab
    lab.close()


def line_with(log, *words):
    """The first line that has all of these, or a failure that shows all lines."""
    found = [text for text in log.messages if all(word in text for word in words)]
    assert found, "\n".join(log.messages)
    return found[0]


def test_the_log_tells_who_came_and_rules_what_was_fetched_from_whom_and_how_each_connection_did(packet_lab, log):
    ana = packet_lab.node("ana", shared={"big.bin": content(SIZE)})
    bo = packet_lab.node("bo")
    packet_lab.run(1.0)
    assert bo.fetched("big.bin")
    bo.quit()
    packet_lab.run(5.0)
    assert ana.is_alive
    line_with(log, "this node rules from now on, in term 1")
    line_with(log, "took in bo, node ", "at 10.0.0.2:6020; 2 are here")
    line_with(log, "R 1 big.bin begins: 3000000 bytes, id ", ", of ana")
    line_with(log, ": ana is a source (link ")
    line_with(log, "S ", " begins: id ", " to bo")
    line_with(log, "connected to 10.0.0.1:6020")
    line_with(log, "bo, node ", ", left")
    line_with(log, "connection to 10.0.0.2:6020 closed: left (round trip ", " packets, 67164 bytes sent again; ")
    line_with(log, "connection to 10.0.0.1:6020 closed: left (round trip ", "; 3003745 bytes here, 65732 late)")


def test_each_refusal_is_told(packet_lab, log):
    packet_lab.node("ana", shared={"a.txt": b"x"})
    bo = packet_lab.node("bo")
    assert bo.fetch("b.txt").kind == "nobody"
    line_with(log, "nobody here has b.txt")
    pair = Pair()
    pair.b.endpoint.accepts = False
    pair.world.run(1.0)
    assert line_with(log, "refused a connection") == "refused a connection from 10.0.0.1:1000: it is leaving"


def test_words_of_others_are_one_harmless_line_in_the_file_of_the_log(tmp_path, log):
    """Any stranger could write lines of its own into it by why it closes, and steer the terminal that shows it."""
    hostile = "\x1b[2J\x9b\u202e\n2026-11-28 12:00:00,000 INFO node node: took in root"
    with contextlib.closing(logs.log_handler(str(tmp_path / "log"))) as handler:
        logging.getLogger().addHandler(handler)
        try:
            pair = Pair()
            assert pair.connected()
            pair.there.shut_down(hostile)
            pair.a.pump()
            pair.world.run(pair.world.now + 3.0)
        finally:
            logging.getLogger().removeHandler(handler)
        lone = logging.Logger("node")
        lone.addHandler(handler)
        try:
            raise ValueError(hostile)
        except ValueError:
            lone.exception("a mistake")
    text = (tmp_path / "log").read_text(encoding="utf-8")
    assert "closed: \\u{1b}[2J" in text and "ValueError: \\u{1b}[2J" in text
    assert all(line.isprintable() for line in text.split("\n"))
    assert "\n2026-11-28 12:00:00,000" not in text


def test_a_transfer_writes_no_line_for_each_packet(log):
    pair = Pair(loss=0.02, seed=3)
    pair.transfer(SIZE, limit=60)
    pair.finish()
    assert len(log.messages) == 4  # both came up, and both ended


def test_what_a_person_is_told_stands_in_the_log_without_chat(log):
    told = []
    for event in (Joined("bo", 2), ChatReceived("bo", "a secret", False)):
        node_client._tell(told.append, "shared", event)
    assert [type(event) for event in told] == [Joined, ChatReceived]
    assert log.messages == ["* bo joined (2 nodes)"]


# ---- V ------------------------------------------------------------------------------------------------------------


def test_v_shows_how_the_path_of_each_transfer_does(packet_lab):
    ana = packet_lab.node("ana", shared={"big.bin": content(SIZE)})
    bo = packet_lab.node("bo")
    packet_lab.run(1.0)
    assert bo.fetch("big.bin").kind == "started"
    assert packet_lab.world.run_until(lambda: bo.row().verified > SIZE // 3, packet_lab.world.now + 20)
    received, sent = bo.row().shares[0].path, ana.row().shares[0].path
    assert received.round_trip == pytest.approx(0.02, abs=0.02) and received.received > SIZE // 3
    assert 0.001 < received.late_part < 0.1 and 0.001 < sent.lost_part < 0.1
    assert sent.resent > 0 and sent.window > 0
    for row, whom in ((bo.row(), "from ana"), (ana.row(), "to bo")):
        (line,) = share_lines(row)
        assert whom in line and "  rtt " in line and " ms, window " in line and "lost" in line


def row(direction, *shares):
    return TransferRow(1, direction, "lab.iso", "receiving", 0, 10, 0.0, None, (), shares)


def test_of_what_is_received_the_room_ahead_is_shown_and_what_came_late():
    (line,) = share_lines(row("R", Share("ana", 1_000_000, 2e6, "", FIGURES)))
    assert line == "      from ana  100%  1.0 MB  2.0 MB/s  rtt 30.4 ms, window 4.0 MB, lost or late 0.2%"


def test_of_what_is_sent_the_congestion_window_is_shown_and_what_was_lost():
    (line,) = share_lines(row("S", Share("bo", 1_000_000, 2e6, "", FIGURES)))
    assert line == "      to bo  100%  1.0 MB  2.0 MB/s  rtt 30.4 ms, window 64.0 kB, lost 1.5%"


def test_nothing_measured_is_no_figure():
    fresh = PathFigures(None, 12_000, 0, 0, 0, 65_536, 0, 0)
    assert "rtt" not in share_lines(row("R", Share("ana", 0, 0.0, "", fresh)))[0]
    assert str(fresh).startswith("round trip unknown, window 12000, lost 0 of 0 packets, 0 bytes sent again; 0 bytes")


def test_bytes_behind_later_ones_are_late_once():
    pair = Pair(seed=3, loss=0.05)
    pair.transfer(SIZE, limit=60)
    back, there = pair.back.figures(), pair.there.figures()
    assert back.received == pair.there.sending.end
    assert 0.9 * there.resent < back.late <= there.resent  # but for what was lost behind all others
    calm = Pair(seed=3)
    calm.transfer(20_000, limit=60)
    assert calm.back.figures().late == 0


def test_the_figures_have_the_size_that_the_path_was_found_to_take():
    for mtu, size in ((1280, 1200), (1500, 1472), (9000, 8972)):
        pair = Pair(seed=3, mtu=mtu)
        pair.transfer(500_000, limit=60)
        assert pair.there.figures().datagram_size == size
