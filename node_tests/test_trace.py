"""What a transport tells of its packets, in which form, up to which size; and the drawing of it."""

import os
import pathlib
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import pytest

import node_client
import rdt
from disk import tracing
from disk.tracing import TraceFile
from node_tests.stage import timeline
from node_tests.stage.simulator import Pair
from node_tests.stage.timeline import CLIENT, SERVER, Packet
from protocol.transport.connection import Connection
from protocol.transport.endpoint import Endpoint
from protocol.transport.trace import Record, decode_record, encode_record, plain

SEED, LOSS, SIZE = 10, 0.04, 20_000  # a life in which one packet of data is lost


@pytest.fixture(scope="module")
def told():
    return timeline.demo(SEED, LOSS, SIZE)


def of_one_end(told, side):
    """What the client's, or the server's, trace alone would hold."""
    ids = timeline.ends_of(timeline.read(told))
    records = [(line, decode_record(line)) for line in told]
    return [line for line, record in records if timeline.side_of(record, ids) == side]


# ---- the lines ----------------------------------------------------------------------------------------------------


def test_a_record_comes_back_as_it_was_written():
    line = encode_record(12.5, "c0ffee", "lost", {"number": 7, "count": 2})
    assert line == "12.500000 c0ffee lost number=7 count=2\n"
    assert decode_record(line) == Record(12.5, "c0ffee", "lost", {"number": "7", "count": "2"})


@pytest.mark.parametrize("line", ["", "\n", "12.5 c0\n", "then c0ffee sent\n", "12.5 c0ffee sent type=DA"])
def test_what_is_no_whole_line_is_no_record(line):
    assert decode_record(line) is None


def test_what_others_wrote_stays_one_word_of_ascii():
    assert plain("it is\nleaving \x1b[2J é") == "it_is_leaving_\\x1b[2J_\\xe9"


def test_every_packet_is_told_at_both_ends_and_a_lost_one_at_one(told):
    records = [decode_record(line) for line in told]
    assert None not in records
    sent = sum(record.event == "sent" for record in records)
    received = sum(record.event == "received" for record in records)
    pair = Pair(seed=SEED, loss=LOSS)  # the same life without a trace
    pair.transfer(SIZE, timeline.DEMO_LIMIT)
    pair.finish()
    assert sent == pair.a.sent + pair.b.sent
    links = pair.world._packet_links.values()
    assert received == sum(link.carried for link in links)
    assert [record.event for record in records].count("over") == 2


def test_losses_and_the_window_behind_each_acknowledgement_are_told(told):
    records = [decode_record(line) for line in told]
    lost = [record for record in records if record.event == "lost"]
    gone = [r for r in records if r.event == "sent" and r.fields.get("number") == lost[0].fields["number"]]
    assert len(lost) == 1 and gone[0].fields["type"] == "DATA"
    kinds = [(record.event, record.fields.get("type")) for record in records]
    for index, kind in enumerate(kinds):
        if kind == ("received", "ACK"):
            assert "window" in [event for event, _ in kinds[index + 1 : index + 3]]


def test_a_packet_that_is_none_is_told_as_malformed():
    told = []
    pair = Pair(trace=told.append)
    pair.b.endpoint.receive(memoryview(b"nonsense" * 4), 32, ("10.6.6.6", 6), 0.5)
    pair.b.endpoint.receive(memoryview(b"x"), 1, ("10.6.6.6", 6), 0.5)
    assert told[-2:] == ["0.500000 - received address=10.6.6.6:6 type=malformed size=%d\n" % size for size in (32, 1)]


def test_an_endpoint_that_is_not_traced_is_the_plain_one():
    pair = Pair()
    assert type(pair.a.endpoint) is Endpoint
    assert type(pair.there) is Connection


# ---- the file -----------------------------------------------------------------------------------------------------


def test_the_file_ends_at_its_bound_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(tracing, "TRACE_SIZE_MAX", 50)
    path = tmp_path / "t.trace"
    for _ in range(2):  # the second time it is full at once
        file = TraceFile(str(path))
        for number in range(9):
            file.write("%d.000000 - sent\n" % number)
        file.close()
    assert path.read_text() == (
        "0.000000 - sent\n1.000000 - sent\n2.000000 - sent\n3.000000 - full bound=50\n0.000000 - full bound=50\n"
    )


def test_a_disk_that_fails_ends_the_trace_and_nothing_else(tmp_path):
    file = TraceFile(str(tmp_path / "t.trace"))
    file._file.close()
    file._file = open(tmp_path / "t.trace", "rb", buffering=0)  # noqa: SIM115  a write to it fails
    file.write("0.000000 - sent\n")
    file.write("1.000000 - sent\n")
    assert file._file.closed


def test_a_program_is_traced_by_its_environment(tmp_path, monkeypatch):
    path = tmp_path / "t.trace"
    monkeypatch.setenv(rdt.TRACE, str(path))
    with rdt.open("127.0.0.1", 0) as here, rdt.open("127.0.0.1", 0) as there:
        near, far = here.connect(there.address), there.accept(timeout=10)
        near.send(bytes(300_000))
        far.receive(timeout=10)
    transfer = timeline.transfer_of(timeline.read(path.read_text().splitlines(keepends=True)))
    assert transfer.names == ("127.0.0.1:%d" % here.address[1], "127.0.0.1:%d" % there.address[1])
    assert {packet.kind for packet in transfer.packets} >= {"INIT", "COOKIE", "INIT_ACK", "DATA", "ACK", "CLOSE"}


def test_a_trace_that_cannot_be_written_is_said_at_once(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv(rdt.TRACE, str(tmp_path))
    with pytest.raises(rdt.RdtError, match="cannot trace to"):
        rdt.open("127.0.0.1", 0)
    assert node_client.main(["--trace", str(tmp_path)]) == 2
    assert "The trace cannot be written to" in capsys.readouterr().err


# ---- the drawing --------------------------------------------------------------------------------------------------


def test_packets_are_matched_by_what_they_say(told):
    transfer = timeline.transfer_of(timeline.read(told))
    gone = [packet.label for packet in transfer.packets if packet.arrived_at is None]
    assert gone == ["DATA 10", "PING 19", "PING 2"]  # the last two: larger datagrams than the path carries
    assert all(packet.arrived_at - packet.sent_at > 0.015 for packet in transfer.packets if packet.arrived_at)


def test_the_text_has_a_line_a_packet_crosses_out_the_lost_and_shows_the_window(told):
    transfer = timeline.transfer_of(timeline.read(told))
    head, *lines = timeline.as_text(transfer).splitlines()
    assert head.split() == ["10.0.0.1:1000", "10.0.0.2:2000"]
    assert len(lines) == len(transfer.packets)
    assert lines[0] == "  0.000000  |-- INIT ------------------------------------->|  0.015014"
    assert lines[1] == "  0.030020  |<----------------------------------- COOKIE --|  0.015014"
    crossed = [line for line in lines if "X" in line]
    assert crossed[0].startswith("  0.090264  |-- DATA 10 ------------X                      |")
    assert len(crossed) == 3
    assert any("cwnd 14400  in flight" in line for line in lines)


def test_the_picture_is_well_formed_with_an_arrow_for_each_packet_and_a_cross_for_each_loss(told):
    transfer = timeline.transfer_of(timeline.read(told))
    root = ElementTree.fromstring(timeline.as_svg(transfer))
    kinds = [element.get("class", "").split() for element in root.iter()]
    assert sum("packet" in kind for kind in kinds) == len(transfer.packets)
    assert sum("cross" in kind for kind in kinds) == 3
    assert {("cwnd",), ("flight",)} <= set(map(tuple, kinds))
    assert "10.0.0.1:1000" in [element.text for element in root.iter()]


def test_pieces_of_several_lines_are_read_as_lines(told):
    text = "".join(told)
    assert timeline.read([text[:-1], "\n"]) == timeline.read(told)


@pytest.mark.parametrize("side", [CLIENT, SERVER])
def test_one_ends_trace_is_enough_for_a_drawing(told, side):
    lines = of_one_end(told, side)
    transfer = timeline.transfer_of(timeline.read(lines))
    assert len(transfer.packets) == sum(decode_record(line).event in ("sent", "received") for line in lines)
    gone = [packet.label for packet in transfer.packets if packet.arrived_at is None]
    assert gone == (["DATA 10"] if side == CLIENT else [])
    ElementTree.fromstring(timeline.as_svg(transfer))


def test_two_machines_clocks_are_aligned(told):
    late = [decode_record(line) for line in of_one_end(told, SERVER)]
    shifted = [encode_record(record.at + 5000.0, *record[1:]) for record in late]
    transfer = timeline.transfer_of(timeline.read([*of_one_end(told, CLIENT), *shifted]))
    plain_one = timeline.transfer_of(timeline.read(told))
    assert [packet.label for packet in transfer.packets] == [packet.label for packet in plain_one.packets]
    for packet, expected in zip(transfer.packets, plain_one.packets):
        assert packet.sent_at == pytest.approx(expected.sent_at, abs=0.001)


def test_of_equal_packets_the_one_sent_last_arrived():
    first, second, came = (Record(at, "c", "sent", {"type": "INIT"}) for at in (0.0, 0.25, 0.265))
    assert timeline.matched([first, second], [came]) == [(first, None), (second, 0.265)]


def test_a_long_pause_is_cut_short():
    packets = [Packet("DATA 0", "DATA", CLIENT, 0.0, 0.01), Packet("DATA 1", "DATA", CLIENT, 60.0, 60.01)]
    scale = timeline.Scale(timeline.Transfer(("a", "b"), packets, []))
    assert scale.height(60.0) - scale.height(0.01) == timeline.GAP_MAX


def test_the_program_draws_a_demo_and_a_file(told, tmp_path, capsys):
    svg, path = tmp_path / "out.svg", tmp_path / "t.trace"
    path.write_text("".join(told))
    assert timeline.main(["--demo", "--svg", str(svg)]) == 0
    demo = capsys.readouterr().out
    assert timeline.main([str(path)]) == 0
    assert capsys.readouterr().out == demo
    ElementTree.parse(svg)
    assert demo.endswith("%d of %d packets, 3 lost\n" % ((demo.count("|") // 2,) * 2))


def test_the_program_says_what_is_wrong(tmp_path, capsys):
    empty = tmp_path / "empty.trace"
    empty.write_text("")
    assert timeline.main([str(empty)]) == 1
    assert "no connection was opened" in capsys.readouterr().err
    assert timeline.main([str(tmp_path / "none")]) == 1
    with pytest.raises(SystemExit) as end:
        timeline.main([])
    assert end.value.code == 2
    assert "one of both" in capsys.readouterr().err


def test_the_lines_of_the_readme_compare_the_controllers_and_draw_them(tmp_path):
    readme = pathlib.Path(rdt.__file__).with_name("README.md").read_text(encoding="utf-8")
    (code,) = re.findall("```python\n(from node_tests.stage.simulator .*?)```", readme, re.DOTALL)
    path = {**os.environ, "PYTHONPATH": str(pathlib.Path(rdt.__file__).parent)}
    command = [sys.executable, "-c", code]
    run = subprocess.run(command, cwd=tmp_path, env=path, capture_output=True, text=True, timeout=60)
    assert not run.returncode, run.stderr
    assert [line.split()[0] for line in run.stdout.splitlines()] == ["cubicq", "newreno", "stubborn"]
    for name in ("cubicq", "newreno", "stubborn"):
        root = ElementTree.parse(tmp_path / (name + ".svg")).getroot()
        assert sum("packet" in element.get("class", "").split() for element in root.iter()) == 200


def test_who_reads_a_few_lines_of_a_timeline_gets_them_and_no_traceback():
    script = pathlib.Path(timeline.__file__)
    drawing = subprocess.Popen([sys.executable, str(script), "--demo"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    drawing.stdout.close()  # before its first line
    assert drawing.stderr.read() == b"" and drawing.wait(60) == 0
    drawing.stderr.close()
