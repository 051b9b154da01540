"""Tables and sentences in a window of any width: columns stay, names give way, and no word is broken.

Pure, as `prompt/lines.py` is, which says what stands in a cell. Where there is no window (`columns` is None) nothing is
shortened: a script gets every name whole.
"""

from __future__ import annotations

import re
from typing import Iterator, List, Optional, Sequence, Tuple

from prompt.lines import file_rows, short_id, table
from protocol import results
from protocol.looks import cut, safe_label, safe_text, text_width

GAP = 2                     # blanks between two columns, and before the first
NAME_LEAST = 12             # columns that a name keeps
OWNERS_LEAST = 6            # and the owners of a file: `ana +9`
WRAPPED_UP_TO = 100         # columns: in a wider window the terminal wraps, and does it anew when its size changes


def cut_middle(text: str, columns: int) -> str:
    """Text of at most so many columns, `...` for its middle: the end of a name tells its kind or its number."""
    if text_width(text) <= columns:
        return text
    if columns < 7:
        return cut(text, columns)
    head = cut(text, (columns + 4) // 2)
    room, start = columns - text_width(head), len(text)
    while text_width(text[start - 1:]) <= room:
        start -= 1
    return head + text[start:]


def wrapped(text: str, columns: int, indent: str = "  ") -> List[str]:
    """Rows of at most so many columns, broken at blanks; a word that is longer than a row, where its parts meet.

    A part that is longer than a row is left to the terminal: whoever copies it from there has it whole.
    """
    if text_width(text) <= columns:
        return [text]
    rows, row = [], ""
    for part in _unbroken(text, columns - text_width(indent)):
        if row.strip() and text_width(row + part) > columns:
            rows.append(row)
            row, part = "", indent + part.lstrip()
        row += part
    return [*rows, row]


def _unbroken(text: str, columns: int) -> Iterator[str]:
    """Its words with the blanks before them; of one that is longer than a row (a path, a name) the parts."""
    for word in re.findall(" *[^ ]+", text):
        if text_width(word.lstrip()) <= columns:
            yield word
        else:
            yield from re.findall(r" *[^ /\\._-]+[/\\._-]*| *[/\\._-]+", word)


def fitted(rows: Sequence[Sequence[str]], right: Sequence[int], columns: Optional[int],
           names: Sequence[int]) -> List[List[str]]:
    """The lines of each row of a table: the columns `names` give way, the longest first; then rows are folded."""
    if columns is None or not rows:
        return [[line] for line in table(rows, right)]
    widths = [max(map(text_width, cells)) for cells in zip(*rows)]
    over = sum(width + GAP for width in widths if width) - columns
    while over > 0 and max(widths[name] for name in names) > NAME_LEAST:
        longest = max(names, key=lambda name: widths[name])
        widths[longest] -= 1
        over -= 1
    cells = [[cut_middle(cell, widths[i]) if i in names else cell for i, cell in enumerate(row)] for row in rows]
    if over <= 0:
        return [[line] for line in table(cells, right, columns)]
    return [_folded(row, columns) for row in cells]


def _folded(cells: Sequence[str], columns: int) -> List[str]:
    """A row that is wider than the window, as several: cells stay whole as far as that can be."""
    lines, line = [], ""
    for cell in filter(None, cells):
        longer = f"{line}  {cell}" if line else f"  {cell}"
        if line and text_width(longer) > columns:
            lines.append(line)
            longer = f"      {cell}"
        line = longer
    return [cut(line, columns) for line in [*lines, line]]


# ---- the list of files

def file_lines(entries: Sequence[results.ListEntry], columns: Optional[int]) -> List[str]:
    """A line for each file: number, name, size, owners and sources, whatever the names are and the window is."""
    rows = file_rows(entries)
    widths = [max(map(text_width, cells)) for cells in zip(*rows)]
    if columns is None or sum(width + GAP for width in widths) <= columns:
        return table(rows, (0, 2))
    counts, gap = [row[4] for row in rows], GAP
    room = columns - 5 * gap - widths[0] - widths[2] - widths[4]
    if room < 2 * NAME_LEAST:               # a narrow window: `x2` stands for `2 sources`
        counts, gap = [f"x{entry.sources}" for entry in entries], 1
        room = columns - 5 * gap - widths[0] - widths[2] - max(map(len, counts))
    # A third is the owners', or what the names leave; the names get what the owners need not.
    for_owners = min(widths[3], max(room // 3, room - widths[1], OWNERS_LEAST))
    owners = [_short_owners(entry, for_owners) for entry in entries]
    for_name = max(room - max(map(text_width, owners)), 1)
    cells = [(row[0], _short_name(entry, row[1], for_name), row[2], owned, count)
             for entry, row, owned, count in zip(entries, rows, owners, counts)]
    return table(cells, (0, 2), columns, gap)


def _short_name(entry: results.ListEntry, whole: str, columns: int) -> str:
    """The name with its middle left out; what says that it is a folder, or which of two alike, stays."""
    name = safe_text(entry.name)
    tail = whole[len(name):] if whole.startswith(name) else ""
    if text_width(tail) > columns - NAME_LEAST:
        tail = ("/" if entry.is_folder else "") + (f" ({short_id(entry.file_id)[:4]})" if "(id " in tail else "")
    return whole if text_width(whole) <= columns else cut_middle(name, max(columns - text_width(tail), 4)) + tail


def _short_owners(entry: results.ListEntry, columns: int) -> str:
    """As many owners as fit, and how many more there are."""
    labels = [safe_label(label) for label in entry.holders]
    whole = ", ".join(labels)
    if text_width(whole) <= columns or not labels:
        return whole
    count = max(entry.sources, len(labels))
    for shown in range(len(labels) - 1, 0, -1):
        text = f"{', '.join(labels[:shown])} +{count - shown}"
        if text_width(text) <= columns:
            return text
    more = f" +{count - 1}" if count > 1 else ""
    return cut_middle(labels[0], max(columns - len(more), 1)) + more


def share_table(cells: Sequence[Sequence[str]], columns: Optional[int]) -> List[str]:
    """What this node shares: name, size, id, path; a path is never shortened, and stands below where it is too long."""
    lines = table(cells, (1,))
    if columns is None or max(map(text_width, lines), default=0) <= columns:
        return lines
    above = fitted([row[:3] for row in cells], (1,), columns, (0,))
    return [line for rows, row in zip(above, cells) for line in (*rows, f"      {row[3]}")]


# ---- help

def help_table(rows: Sequence[Tuple[str, str, str]], columns: Optional[int]) -> List[str]:
    """What is typed, what it does, another word for it; in a narrow window without the last, and wrapped at words."""
    lines = table(rows)
    if columns is None or max(map(text_width, lines)) <= columns:
        return lines
    usage = max(text_width(row[0]) for row in rows)
    room, told = columns - usage - 2 * GAP, []      # type: int, List[str]
    for typed, does, _ in rows:
        first, *more = wrapped(does, room, "")
        told.append(f"  {typed}{' ' * (usage - text_width(typed))}  {first}")
        told += [" " * (usage + 2 * GAP) + row for row in more]
    return told


def name_columns(names: Sequence[str], columns: int) -> List[str]:
    """Names beside each other, as many as the window has room for in a row."""
    short = [cut_middle(name, max(columns - GAP, 1)) for name in names]
    width = max(map(text_width, short), default=0)
    count = max(1, (columns - GAP) // (width + GAP))
    padded = [name + " " * (width - text_width(name)) for name in short]
    return ["  " + "  ".join(padded[i:i + count]).rstrip() for i in range(0, len(padded), count)]
