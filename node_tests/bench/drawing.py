"""Line charts as SVG, written by hand, readable on a light and on a dark page."""

from __future__ import annotations

import html
from typing import Dict, List, Sequence

WIDTH, HEIGHT = 720, 400
LEFT, RIGHT, TOP, BOTTOM = 62, 20, 74, 52  # room around the plot
STEPS = 5  # of the vertical axis
# (on a light page, on a dark one) each; told apart by their dashes and marks too
COLOURS = (("#b45309", "#fbbf24"), ("#1d4ed8", "#7dabff"), ("#047857", "#34d399"), ("#7c3aed", "#c4a5ff"))
DASHES = ("7 5", "2 4", "", "12 4 2 4")

STYLE = """
  text { font: 13px system-ui, sans-serif; fill: #1f2328 }
  .title { font-weight: 600 }
  .grid { stroke: #8b949e; stroke-opacity: .35 }
  .axis { stroke: #59636e }
  .line { fill: none; stroke-width: 2.5 }
%s
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 }
    .axis { stroke: #9198a1 }
%s
  }
"""


def line_chart(title: str, across: str, up: str, ticks: Sequence[str], lines: Dict[str, List[float]],
               highest: float) -> str:  # fmt: skip
    """One line for each name, its values at equal distances, labelled by the ticks; the axis goes up to `highest`."""
    parts = [_text(WIDTH / 2, 22, title, "middle", "title")]
    parts += _grid(up, highest)
    parts += _ticks(across, ticks)
    for number, (name, values) in enumerate(lines.items()):
        parts += _legend(number, len(lines), name)
        parts += _line(number, [(_x(i, len(ticks)), _y(value, highest)) for i, value in enumerate(values)])
    head = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" role="img" aria-label="%s">' % (
        WIDTH, HEIGHT, html.escape(title, quote=True))  # fmt: skip
    return "\n".join([head, "<style>%s</style>" % _style(len(lines)), *parts, "</svg>", ""])


def _style(count: int) -> str:
    rules = []
    for scheme in (0, 1):
        pairs = [(number, COLOURS[number % len(COLOURS)][scheme]) for number in range(count)]
        rules.append("\n".join("  .s%d { stroke: %s } .m%d { fill: %s }" % (n, c, n, c) for n, c in pairs))
    return STYLE % tuple(rules)


def _x(index: int, count: int) -> float:
    inset = 24
    return LEFT + inset + index * (WIDTH - LEFT - RIGHT - 2 * inset) / max(1, count - 1)


def _y(value: float, highest: float) -> float:
    return HEIGHT - BOTTOM - value / highest * (HEIGHT - TOP - BOTTOM)


def _text(x: float, y: float, text: str, anchor: str = "start", kind: str = "") -> str:
    return '<text x="%.1f" y="%.1f" text-anchor="%s" class="%s">%s</text>' % (x, y, anchor, kind, html.escape(text))


def _straight(x1: float, y1: float, x2: float, y2: float, kind: str, dash: str = "") -> str:
    dashes = ' stroke-dasharray="%s"' % dash if dash else ""
    return '<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" class="%s"%s/>' % (x1, y1, x2, y2, kind, dashes)


def _grid(up: str, highest: float) -> List[str]:
    parts = [_text(LEFT - 8, TOP - 12, up, "end")]
    for step in range(STEPS + 1):
        value = highest * step / STEPS
        y = _y(value, highest)
        parts.append(_straight(LEFT, y, WIDTH - RIGHT, y, "grid" if step else "axis"))
        parts.append(_text(LEFT - 8, y + 4, "%g" % value, "end"))
    return parts


def _ticks(across: str, ticks: Sequence[str]) -> List[str]:
    bottom = HEIGHT - BOTTOM
    parts = [_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 10, across, "middle")]
    for index, tick in enumerate(ticks):
        x = _x(index, len(ticks))
        parts += [_straight(x, bottom, x, bottom + 5, "axis"), _text(x, bottom + 20, tick, "middle")]
    return parts


def _mark(number: int, x: float, y: float) -> str:
    shape = number % 3
    if shape == 0:
        return '<rect x="%.1f" y="%.1f" width="8" height="8" class="m%d"/>' % (x - 4, y - 4, number)
    if shape == 1:
        corners = "%.1f,%.1f %.1f,%.1f %.1f,%.1f" % (x - 5, y + 4, x + 5, y + 4, x, y - 5)
        return '<polygon points="%s" class="m%d"/>' % (corners, number)
    return '<circle cx="%.1f" cy="%.1f" r="4.5" class="m%d"/>' % (x, y, number)


def _line(number: int, points: Sequence[tuple[float, float]]) -> List[str]:
    dash = DASHES[number % len(DASHES)]
    dashes = ' stroke-dasharray="%s"' % dash if dash else ""
    where = " ".join("%.1f,%.1f" % point for point in points)
    return [
        '<polyline points="%s" class="line s%d"%s/>' % (where, number, dashes),
        *(_mark(number, x, y) for x, y in points),
    ]


def _legend(number: int, count: int, name: str) -> List[str]:
    x, y = LEFT + 24 + number * (WIDTH - LEFT - RIGHT - 48) / max(1, count), 44.0
    line = _straight(x, y, x + 34, y, "line s%d" % number, DASHES[number % len(DASHES)])
    return [line, _mark(number, x + 17, y), _text(x + 42, y + 4, name)]
