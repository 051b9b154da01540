"""Draws what went between two ends, packet by packet: time goes down, losses are crossed out, the window stands beside.

    python node_tests/stage/timeline.py --demo                       a simulated transfer with a loss; --seed, --loss,
                                                                     --size and --controller change it
    python node_tests/stage/timeline.py FILE [FILE] --svg out.svg    from traces of one or both ends
                                                                     (protocol/transport/trace.py)

Both ends may be in one file. With one end's trace alone, the other half of each way is guessed from the round trip, and
only what that end declared lost is crossed out. Two machines have two clocks: where a packet would arrive before it was
sent, one is shifted until the quickest packet takes as long each way. Of packets that are equal byte for byte (an INIT
that was repeated) the one sent last is taken for the one that arrived. What a path repeats is drawn once.
A PING that is padded probes for larger datagrams (RFC 8899): on most paths the last of them is lost, as it should be.
"""

from __future__ import annotations

import argparse
import collections
import html
import os
import pathlib
import sys
from typing import Dict, Iterable, List, NamedTuple, Optional, Sequence, Tuple

ROOT = pathlib.Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from node_tests.stage.simulator import Pair  # noqa: E402
from protocol.transport.controllers import CONTROLLERS, DEFAULT  # noqa: E402
from protocol.transport.trace import Record, decode_record  # noqa: E402

CLIENT, SERVER = 0, 1
NUMBERED = ("DATA", "BULK", "PING")
OF_SERVER = ("COOKIE", "INIT_ACK", "REFUSED")  # in the handshake packets bear the client's id, both ways
PACKETS_SHOWN = 200
DEMO_LIMIT = 60.0  # virtual seconds

Key = Tuple[Tuple[str, str], ...]  # what a packet says, the same at both ends


class Packet(NamedTuple):
    """One packet on its way; instants in seconds."""

    label: str
    kind: str
    source: int  # CLIENT or SERVER
    sent_at: float
    arrived_at: Optional[float]  # None: it was lost


class Window(NamedTuple):
    """What a sender knew at that instant; bytes and seconds."""

    at: float
    side: int
    cwnd: int
    flight: int
    rtt: float


class Transfer(NamedTuple):
    """One connection, in the order of sending."""

    names: Tuple[str, str]  # address of each end, as far as it is known
    packets: List[Packet]
    windows: List[Window]


class NothingThere(Exception):
    """The trace has no such connection."""


# ---- from lines to packets ----------------------------------------------------------------------------------------


def read(told: Iterable[str]) -> List[Record]:
    """The records of one or more traces, in pieces of whole lines, in the order of time; other lines are left out."""
    records = (decode_record(line) for line in "".join(told).splitlines(keepends=True))
    return sorted((record for record in records if record is not None), key=lambda record: record.at)


def ends_of(records: Sequence[Record], wanted: str = "") -> Tuple[str, str]:
    """(client's id, server's id) of the connection whose id begins so, or of the one with the most packets."""
    told = collections.Counter(record.connection for record in records)
    pairs: Dict[Tuple[str, str], int] = {}
    for record in records:
        if record.event == "opened":
            pair = (record.connection, record.fields["remote"])
            pair = pair if record.fields["side"] == "client" else (pair[1], pair[0])
            if any(each.startswith(wanted) for each in pair):
                pairs[pair] = told[pair[0]] + told[pair[1]]
    if not pairs:
        raise NothingThere("no connection%s was opened in this trace" % (" " + wanted if wanted else ""))
    return max(pairs, key=lambda pair: pairs[pair])


def transfer_of(records: Sequence[Record], wanted: str = "") -> Transfer:
    """The packets of one connection, from what one or both of its ends told."""
    ids = ends_of(records, wanted)
    sides = [(side_of(record, ids), record) for record in records if record.connection in ids]
    told = {side for side, record in sides if record.connection == ids[side]}
    sides = aligned(sides)
    windows = [_window(side, record) for side, record in sides if record.event == "window"]
    firsts = [_first_number(sides, side) for side in (CLIENT, SERVER)]
    packets: List[Packet] = []
    for source in (CLIENT, SERVER):
        sent = [record for side, record in sides if side == source and record.event == "sent"]
        came = [record for side, record in sides if side != source and record.event == "received"]
        if told == {CLIENT, SERVER}:
            instants = [(record, record.at, arrived) for record, arrived in matched(sent, came)]
        else:
            instants = _guessed(sent, came, sides, windows)
        packets += [Packet(_label(one, firsts, source), one.fields["type"], source, *at) for one, *at in instants]
    packets.sort(key=lambda packet: packet.sent_at)
    return Transfer(_names(sides), packets, windows)


def side_of(record: Record, ids: Tuple[str, str]) -> int:
    """At which end this was noted."""
    if record.event in ("sent", "received") and record.connection == ids[CLIENT]:
        kind = record.fields["type"]
        if kind == "INIT" or kind in OF_SERVER:
            return CLIENT if (kind == "INIT") == (record.event == "sent") else SERVER
    return ids.index(record.connection)


def key_of(record: Record) -> Key:
    return tuple(pair for pair in record.fields.items() if pair[0] != "address")


def aligned(sides: List[Tuple[int, Record]]) -> List[Tuple[int, Record]]:
    """The same by one clock: the server's is shifted if something came before it was sent."""
    sent = {(side, key_of(r)): r.at for side, r in sides if r.event == "sent" and r.fields["type"] in NUMBERED}
    least = [float("inf"), float("inf")]  # seconds on the way from each end
    for side, record in sides:
        if record.event == "received" and (1 - side, key_of(record)) in sent:
            least[1 - side] = min(least[1 - side], record.at - sent[1 - side, key_of(record)])
    if min(least) >= 0 or max(least) == float("inf"):
        return sides
    shift = (least[SERVER] - least[CLIENT]) / 2
    return [(side, r._replace(at=r.at + shift) if side == SERVER else r) for side, r in sides]


def matched(sent: Sequence[Record], came: Sequence[Record]) -> List[Tuple[Record, Optional[float]]]:
    """Each packet that was sent, and when it arrived; None: never."""
    waiting: Dict[Key, List[int]] = collections.defaultdict(list)
    arrived: Dict[int, float] = {}
    events = sorted([(r.at, 0, i) for i, r in enumerate(sent)] + [(r.at, 1, i) for i, r in enumerate(came)])
    for at, is_arrival, index in events:
        if not is_arrival:
            waiting[key_of(sent[index])].append(index)
        elif waiting[key_of(came[index])]:
            arrived[waiting[key_of(came[index])].pop()] = at
    return [(record, arrived.get(index)) for index, record in enumerate(sent)]


def _guessed(sent: Sequence[Record], came: Sequence[Record], sides: Sequence[Tuple[int, Record]],
             windows: Sequence[Window]) -> List[Tuple[Record, float, Optional[float]]]:  # fmt: skip
    """What one end alone tells: half a round trip each way, and lost what it took for lost."""
    half = min((window.rtt for window in windows), default=0.0) / 2
    lost = set()
    for _, record in sides:
        if record.event == "lost":
            first, count = int(record.fields["number"]), int(record.fields["count"])
            lost.update(map(str, range(first, first + count)))
    is_lost = [r.fields["type"] in NUMBERED and r.fields["number"] in lost for r in sent]
    known = [(record, record.at, None if gone else record.at + half) for record, gone in zip(sent, is_lost)]
    return [*known, *((record, record.at - half, record.at) for record in came)]


def _window(side: int, record: Record) -> Window:
    fields = record.fields
    return Window(record.at, side, int(fields["cwnd"]), int(fields["flight"]), float(fields["rtt"]))


def _first_number(sides: Sequence[Tuple[int, Record]], source: int) -> int:
    """The packet number from which this end counts: it is random, and the drawing begins with 0."""
    numbers = [
        int(record.fields["number"])
        for side, record in sides
        if "number" in record.fields and (side == source) == (record.event != "received")
    ]
    return min(numbers, default=0)


def _label(record: Record, firsts: Sequence[int], source: int) -> str:
    kind, fields = record.fields["type"], record.fields
    if kind in NUMBERED:
        return "%s %d" % (kind, int(fields["number"]) - firsts[source])
    if kind == "ACK":
        return "ACK " + " ".join(_range_text(text, firsts[1 - source]) for text in fields["ranges"].split(",") if text)
    return kind


def _range_text(text: str, start: int) -> str:
    first, last = (int(number) - start for number in text.split("-"))
    return "%d" % first if first == last else "%d-%d" % (first, last)


def _names(sides: Sequence[Tuple[int, Record]]) -> Tuple[str, str]:
    names = ["client", "server"]
    for side, record in sides:
        if record.event == "opened":
            names[1 - side] = record.fields["address"]
    return names[CLIENT], names[SERVER]


def sender_of(transfer: Transfer) -> int:
    """The end that sends most: its window is what counts."""
    sent = collections.Counter(packet.source for packet in transfer.packets if packet.kind in NUMBERED)
    return max((CLIENT, SERVER), key=lambda side: sent[side])


# ---- as text ------------------------------------------------------------------------------------------------------

LANE = 46  # characters between the two ends


def as_text(transfer: Transfer) -> str:
    """A line a packet, in the order of sending; lost ones end at an X."""
    lines = ["%10s  %-*s  %s" % ("", LANE + 2, *transfer.names)]
    windows = [window for window in transfer.windows if window.side == sender_of(transfer)]
    shown: Optional[Window] = None
    for packet in transfer.packets:
        window = next((each for each in reversed(windows) if each.at <= packet.sent_at), None)
        beside = _window_text(window) if window is not shown else ""
        shown = window
        instants = [packet.sent_at, packet.arrived_at]
        left, right = instants if packet.source == CLIENT else reversed(instants)
        lines.append("%10s  |%s|  %-10s  %s" % (_instant(left), _arrow(packet), _instant(right), beside))
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _window_text(window: Optional[Window]) -> str:
    if window is None:
        return ""
    return "cwnd %d  in flight %d  rtt %.1f ms" % (window.cwnd, window.flight, window.rtt * 1e3)


def _instant(at: Optional[float]) -> str:
    return "" if at is None else "%.6f" % at


def _arrow(packet: Packet) -> str:
    label = " %s " % packet.label[: LANE - 10]
    if packet.source == CLIENT:
        line = "--" + label
        return (line + "-" * (LANE - 1 - len(line)) + ">") if packet.arrived_at is not None else _crossed(line)
    line = label + "--"
    if packet.arrived_at is not None:
        return "<" + "-" * (LANE - 1 - len(line)) + line
    return _crossed(line[::-1])[::-1]


def _crossed(line: str) -> str:
    """As far as the middle, or as its label takes."""
    return (line + "-" * max(0, LANE // 2 - len(line)) + "X").ljust(LANE)


# ---- as a picture -------------------------------------------------------------------------------------------------

LEFT, RIGHT = 110.0, 520.0  # where the two ends stand
PLOT_LEFT, PLOT_RIGHT = 640.0, 900.0  # and the window
TOP, WIDTH = 60.0, 940.0
ROUND_TRIP_HEIGHT = 240.0
GAP_MAX = 60.0  # of a pause in which nothing is sent and nothing arrives
LABEL_HEIGHT = 11.0

STYLE = """
  text { font: 10px system-ui, sans-serif; fill: #1f2328 }
  .name { font-size: 13px; font-weight: 600 }
  .end, .axis { stroke: #59636e }
  .packet { stroke: #1d4ed8; marker-end: url(#head) }
  .ack { stroke: #8b949e }
  .head { fill: #8b949e }
  .lost { stroke: #c2410c; marker-end: none }
  .cross { stroke: #c2410c; stroke-width: 2; fill: none }
  .cwnd { stroke: #b45309; fill: none; stroke-width: 2 }
  .flight { stroke: #047857; fill: none }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 }
    .packet { stroke: #7dabff }
    .ack { stroke: #6e7681 }
    .lost, .cross { stroke: #fb923c }
    .cwnd { stroke: #fbbf24 }
    .flight { stroke: #34d399 }
  }
"""
HEAD = (
    '<defs><marker id="head" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
    '<path class="head" d="M0 0 L8 4 L0 8 z"/></marker></defs>'
)


class Scale:
    """Seconds to height: in proportion, but long pauses are cut short."""

    def __init__(self, transfer: Transfer) -> None:
        instants = {packet.sent_at for packet in transfer.packets}
        instants |= {packet.arrived_at for packet in transfer.packets if packet.arrived_at is not None}
        self._instants = sorted(instants)
        per_second = ROUND_TRIP_HEIGHT / (2 * quickest(transfer))
        self._heights, before = [TOP], self._instants[0] if self._instants else 0.0
        for at in self._instants[1:]:
            self._heights.append(self._heights[-1] + min((at - before) * per_second, GAP_MAX))
            before = at

    @property
    def bottom(self) -> float:
        return self._heights[-1]

    def height(self, at: float) -> float:
        """Of an instant between two that are drawn: at the later one."""
        for instant, height in zip(self._instants, self._heights):
            if instant >= at:
                return height
        return self.bottom


def quickest(transfer: Transfer) -> float:
    """Seconds that the quickest packet takes; something, if none is known."""
    ways = [each.arrived_at - each.sent_at for each in transfer.packets if each.arrived_at is not None]
    return max(min(ways, default=0.0), 1e-5)


def as_svg(transfer: Transfer) -> str:
    """Slanted arrows between two lines; beside them the congestion window and the bytes in flight of who sends most."""
    scale = Scale(transfer)
    bottom = scale.bottom + 20
    parts = ['<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d">' % (WIDTH, bottom + 10)]
    parts += ["<style>%s</style>" % STYLE, HEAD]
    for x, name in zip((LEFT, RIGHT), transfer.names):
        parts += [_text(x, TOP - 24, name, "middle", "name"), _line(x, TOP - 14, x, bottom, "end")]
    labelled = [0.0, 0.0]
    for packet in transfer.packets:
        parts += _packet(packet, scale, labelled)
    parts += _plot(transfer, scale)
    return "\n".join([*parts, "</svg>", ""])


def _packet(packet: Packet, scale: Scale, labelled: List[float]) -> List[str]:
    """Its arrow; and its label and instant, unless they would lie upon those before."""
    x1, x2 = (LEFT, RIGHT) if packet.source == CLIENT else (RIGHT, LEFT)
    y1 = scale.height(packet.sent_at)
    kind = "packet ack" if packet.kind == "ACK" else "packet"
    if packet.arrived_at is not None:
        parts = [_line(x1, y1, x2, scale.height(packet.arrived_at), kind)]
    else:
        x, y = (x1 + x2) / 2, y1 + ROUND_TRIP_HEIGHT / 4
        parts = [_line(x1, y1, x, y, kind + " lost")]
        parts.append('<path class="cross" d="M%.1f %.1fl10 10m0 -10l-10 10"/>' % (x - 5, y - 5))
    if y1 >= labelled[packet.source] + LABEL_HEIGHT:
        labelled[packet.source] = y1
        is_left = packet.source == CLIENT
        label = packet.label if len(packet.label) < 20 else packet.label[:18] + "…"
        outwards, inwards = ("end", "start") if is_left else ("start", "end")
        parts.append(_text(x1 + (-6 if is_left else 6), y1 + 3, "%.1f ms" % (packet.sent_at * 1e3), outwards))
        parts.append(_text(x1 + (6 if is_left else -6), y1 - 2, label, inwards))
    return parts


def _plot(transfer: Transfer, scale: Scale) -> List[str]:
    windows = [window for window in transfer.windows if window.side == sender_of(transfer)]
    if not windows:
        return []
    highest = max(max(window.cwnd, window.flight) for window in windows)
    parts = [_line(PLOT_LEFT, TOP - 14, PLOT_LEFT, scale.bottom + 20, "axis")]
    title = "congestion window, in flight: up to %d bytes" % highest
    parts.append(_text((PLOT_LEFT + PLOT_RIGHT) / 2, TOP - 24, title, "middle"))
    for name in ("cwnd", "flight"):
        widths = [getattr(each, name) / highest * (PLOT_RIGHT - PLOT_LEFT) for each in windows]
        points = ["%.1f,%.1f" % (PLOT_LEFT + w, scale.height(each.at)) for w, each in zip(widths, windows)]
        parts.append('<polyline class="%s" points="%s"/>' % (name, " ".join(points)))
    return parts


def _text(x: float, y: float, text: str, anchor: str, kind: str = "") -> str:
    name = ' class="%s"' % kind if kind else ""
    return '<text x="%.1f" y="%.1f" text-anchor="%s"%s>%s</text>' % (x, y, anchor, name, html.escape(text))


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return '<line class="%s" x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f"/>' % (kind, x1, y1, x2, y2)


# ---- the program --------------------------------------------------------------------------------------------------


def demo(seed: int, loss: float, size: int, controller: str = DEFAULT) -> List[str]:
    """The trace of a simulated transfer over 100 Mbit/s and 30 ms, of both ends, from handshake to close."""
    told: List[str] = []
    pair = Pair(seed=seed, loss=loss, controller=controller, trace=told.append)
    pair.transfer(size, DEMO_LIMIT)
    pair.finish()
    return "".join(told).splitlines(keepends=True)


def shown_part(transfer: Transfer, since: float, count: int) -> Transfer:
    packets = [packet for packet in transfer.packets if packet.sent_at >= since][:count]
    until = packets[-1].sent_at if packets else since
    windows = [window for window in transfer.windows if since <= window.at <= until]
    return transfer._replace(packets=packets, windows=windows)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("files", nargs="*", metavar="FILE", help="traces, by RDT_TRACE or --trace")
    made.add_argument("--demo", action="store_true", help="a simulated transfer instead")
    made.add_argument("--seed", type=int, default=10, help="of the demo (default %(default)d)")
    made.add_argument("--loss", type=float, default=0.04, help="part of it that is lost (default %(default)g)")
    made.add_argument("--size", type=int, default=20_000, help="bytes that it sends (%(default)d)")
    made.add_argument("--controller", choices=list(CONTROLLERS), default=DEFAULT, help="of the demo (%(default)s)")
    made.add_argument("--connection", metavar="ID", default="", help="how its id begins (else: the largest)")
    made.add_argument("--from", type=float, default=0.0, dest="since", metavar="AT", help="leave out what was before")
    made.add_argument("--packets", type=int, default=PACKETS_SHOWN, help="draw so many (default %(default)d)")
    made.add_argument("--svg", metavar="FILE", help="a picture, too")
    return made


def main(argv: Optional[Sequence[str]] = None) -> int:
    flags = parser()
    arguments = flags.parse_args(argv)
    if arguments.demo == bool(arguments.files):
        flags.error("one of both: traces, or --demo")
    try:
        if arguments.demo:
            told = demo(arguments.seed, arguments.loss, arguments.size, arguments.controller)
        else:
            told = [pathlib.Path(name).read_text(encoding="ascii", errors="replace") for name in arguments.files]
        transfer = transfer_of(read(told), arguments.connection)
    except (OSError, NothingThere) as error:
        print(error, file=sys.stderr)
        return 1
    part = shown_part(transfer, arguments.since, arguments.packets)
    if arguments.svg:
        pathlib.Path(arguments.svg).write_text(as_svg(part), encoding="utf-8")
    lost = sum(packet.arrived_at is None for packet in part.packets)
    say("%s%d of %d packets, %d lost" % (as_text(part), len(part.packets), len(transfer.packets), lost))
    return 0


def say(text: str) -> None:
    """Print it, as far as anybody reads: `| head` has enough after its lines."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nor is there a word at the end


if __name__ == "__main__":
    sys.exit(main())
