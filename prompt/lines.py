"""What happened, as a person reads it: sizes, times, tables, and one line for each result.

Pure: a value goes in, text comes out. Whatever came from another node passes `safe_text` or `safe_label` on its way
(THREATS: C01, A03); `prompt/console.py` decides when a line is shown.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable, Dict, Iterable, List, Optional, Sequence, Set, Tuple

from prompt.firewall import unreachable_text
from prompt.network_key import other_key_line, other_line, short_fingerprint
from protocol import results
from protocol.addresses import shown
from protocol.figures import PathFigures
from protocol.left_out import count_left_out, words_of
from protocol.looks import CHAT_COLUMNS_MAX, cut, safe_label, safe_text, skeleton, text_width
from protocol.results import CHAT_BYTES_MAX

if TYPE_CHECKING:
    from protocol.content.parts import PartInfo

HALF_HERE_MAX = 3  # names in the line at the start; of more only the number
UNFINISHED_MAX = 20  # rows of what lies half here; a folder may have left thousands

# ---- values as a person reads them


def format_size(size: float) -> str:
    """A size in decimal units: `512 B`, `4.2 GB`."""
    for unit, scale in (("kB", 1e3), ("MB", 1e6), ("GB", 1e9), ("TB", 1e12), ("PB", 1e15)):
        if size < 999.5 and unit == "kB":
            return f"{size:.0f} B"
        if size < 999.95 * scale or unit == "PB":
            return f"{size / scale:.1f} {unit}"
    raise AssertionError("the last unit takes every size")


def format_part(part: int, size: int) -> str:
    """How much of a size, both in the unit of the whole: `1.7/4.2 GB`."""
    number, unit = format_size(size).split(" ")
    scale = {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12, "PB": 1e15}[unit]
    return f"{part / scale:.{0 if unit == 'B' else 1}f}/{number} {unit}"


def share_of(part: int, whole: int) -> str:
    """So much of a whole (0: not known): `178.0 MB of 200.0 MB`; only the whole where it is all, or more."""
    sizes = format_size(part), format_size(whole or part)
    return " of ".join(sizes) if part < whole and sizes[0] != sizes[1] else sizes[1]


def format_rate(bytes_per_second: float) -> str:
    """A rate: `88.4 MB/s`."""
    return format_size(bytes_per_second) + "/s"


def format_time(seconds: float) -> str:
    """A length of time: `0:49`, `1:02:03`."""
    minutes, second = divmod(int(max(0.0, min(seconds, 3.6e8)) + 0.5), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def format_percent(verified: int, size: int) -> str:
    """Verified bytes in percent, rounded down; 100 % is only said by the line that reports it done."""
    return f"{min(99, verified * 100 // size) if size else 0}%"


def count_of(count: int, noun: str) -> str:
    """`1 node`, `4 nodes`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def place_of(text: str, columns: int) -> Tuple[int, int]:
    """Row and column of the cursor after `text` was written from column 0; a wide character is never split."""
    row = column = 0
    for character in text:
        width = text_width(character)
        if column + width > columns:
            row, column = row + 1, 0
        column += width
    return (row + 1, 0) if column >= columns else (row, column)


def table(rows: Iterable[Sequence[str]], right: Sequence[int] = (), columns: Optional[int] = None,
          gap: int = 2) -> List[str]:
    """Aligned lines; the columns numbered in `right` are flush right; lines are cut only when `columns` is given."""
    body = [list(row) for row in rows]
    widths = [max(map(text_width, cells)) for cells in zip(*body)]
    lines = []
    for row in body:
        pads = [" " * (width - text_width(cell)) for cell, width in zip(row, widths)]
        cells = [pad + cell if i in right else cell + pad for i, (cell, pad) in enumerate(zip(row, pads))]
        line = " " * gap + (" " * gap).join(cells).rstrip()
        lines.append(line if columns is None else cut(line, columns))
    return lines


def whence_of(row: results.TransferRow) -> str:
    """With whom, and whether others get it by the same send: `from ana (to 27 at once)`."""
    sources = ", ".join(map(safe_label, row.sources))
    at_once = f" (to {row.at_once} at once)" if row.at_once > 1 else ""
    return f"{'to' if row.direction == 'S' else 'from'} {sources}{at_once}" if sources else ""


# ---- lines that appear by themselves

def progress_line(row: results.TransferRow, width: Optional[int] = None) -> str:
    """One line for a running transfer; a long name gives way before the numbers do."""
    parts = []
    if row.size and (row.verified or row.state == "receiving"):
        parts += [format_percent(row.verified, row.size), format_part(row.verified, row.size)]
    if row.state in ("receiving", "sending", ""):
        parts.append(format_rate(row.rate))
        if row.seconds_left is not None:
            parts.append(f"{format_time(row.seconds_left)} left")
    else:
        parts.append(safe_text(row.state))
    if row.sources:
        parts.append(whence_of(row))
    name = safe_text(row.name)
    if width is not None:
        room = width - text_width("  ".join(parts[:4])) - 4
        name = cut(name, max(room, 12))
    line = f"{row.direction} {name}  " + "  ".join(parts)
    return line if width is None else cut(line, width)


def short_id(file_id: bytes) -> str:
    """The first 8 hex digits of a file's identity, the same at both ends."""
    return file_id.hex()[:8]


def _line_for_outcome(event: results.Outcome, folder: str) -> str:
    where = shown(event.address) if event.address else ""
    if event.kind == "supernode":
        return f"* supernode at {where} (nobody here yet; you are the first). Folder: {folder}"
    if event.kind == "joined":
        whose = f"{safe_label(event.supernode_label)}'s"
        return f"* joined {whose} network at {where}: {count_of(event.count, 'node')}. Folder: {folder}"
    return "!! " + (safe_text(event.text) or f"Nobody answers at {where}.")


def _line_for_left(event: results.Left, folder: str) -> str:
    who, left = safe_label(event.label), count_of(event.count, "node")
    if event.silent_seconds:
        return f"* {who} is gone (no sign for {event.silent_seconds:.0f} s; {left})"
    return f"* {who} left ({left})"


def _line_for_supernode(event: results.SupernodeChanged, folder: str) -> str:
    """Who rules now, and what became of who did before."""
    old = safe_label(event.old_label)
    if event.is_staying and event.is_merger:
        return f"* {safe_label(event.new_label)} reaches more of the network than this node; it is the supernode now"
    if event.is_staying:
        ruler = "you are now the supernode" if event.is_me else f"the supernode is now {safe_label(event.new_label)}"
        return f"* {old} hands over and stays; {ruler}"
    if event.is_merger:
        return f"* two parts of the network are one again; the supernode is now {safe_label(event.new_label)}"
    why = f"is gone (no sign for {event.silent_seconds:.0f} s)" if event.silent_seconds else "left"
    if event.is_me:
        return f"* {old} {why}; you are now the supernode"
    return f"* {old} {why}; the supernode is now {safe_label(event.new_label)}"


def _clashes(clashes: Optional[results.Clashes]) -> str:
    """What a download met under its names, behind its line."""
    if clashes is None:
        return ""
    told, aside = "", safe_text(clashes.aside, 4096)
    if clashes.replaced == 1:
        told = f" (updated; the version before: {aside})"
    elif clashes.replaced:
        told = f" ({clashes.replaced} files updated; the versions before: {aside.rpartition('/')[0] or aside})"
    if clashes.beside:
        more = f" (and {clashes.beside - 1} more)" if clashes.beside > 1 else ""
        told += f"; {safe_text(clashes.name)} {clashes.why} and is kept, the new one is beside it{more}"
    if clashes.written:
        told += f"; what was written into the version before at that moment is {safe_text(clashes.written)}"
    return told


def left_out_text(event: results.DownloadDone) -> str:
    """How much of a folder is here, and why not the rest: `10 of 12 files (2 were not shared: links)`."""
    here = [one for one in event.left_out if one.kind == "here"]
    there = [one for one in event.left_out if one.kind != "here"]
    parts = []
    if there:
        count = count_left_out(there)
        parts.append(f"{count} {'was' if count == 1 else 'were'} not shared: {words_of(there)}")
    if here:
        parts.append(f"{count_left_out(here)} left out here: {words_of(here)}")
    whole = event.file_count + count_left_out(event.left_out)
    return f"{event.file_count} of {count_of(whole, 'file')} ({'; '.join(parts)})"


def _line_for_download(event: results.DownloadDone, folder: str) -> str:
    """What came, how fast and from whom, or that it was here, and where it lies."""
    name, end = safe_text(event.name), f"id {short_id(event.file_id)} -> {safe_text(str(event.path), 4096)}"
    end += _clashes(event.clashes)
    if event.left_out:
        name += "  " + left_out_text(event)
    if event.was_there:
        return f"OK {name}  {format_size(event.size)} was here already  {end}"
    if event.size and not event.moved:
        return f"OK {name}  {format_size(event.size)} in {format_time(event.seconds)}, from this disk  {end}"
    sources = ", ".join(map(safe_label, event.sources))
    if event.by_way_of:
        sources = f"{sources or 'the network'} by way of {safe_label(event.by_way_of)}"
    rate = format_rate(event.moved / max(event.seconds, 0.001))
    told = f"{format_size(event.size)} in {format_time(event.seconds)}, {rate}"
    return f"OK {name}  {told}{', from ' + sources if sources else ''}  {end}"


def here_line(entry: Any, path: str) -> str:
    """What was asked for is here already: the same words as where that is found later, or by a one-line form."""
    event = results.DownloadDone(0, entry.name, entry.size, 0.0, (), entry.file_id, path, None, True, 0)
    return _line_for_download(event, "")


def _line_for_upload(event: results.UploadDone, folder: str) -> str:
    what = f"sent {safe_text(event.name)} to {safe_label(event.to_label)}"
    part = share_of(event.size, event.whole)
    told = f"{part} in {format_time(event.seconds)}"
    if " of " in part:
        told += ", the rest was there or came from others"
    elif event.size > event.whole > 0:
        told += f" ({format_size(event.size)} with what was sent again)" * (format_size(event.size) != part)
    if not event.is_confirmed:
        told = f"{told}, but the link was lost before it was confirmed"
    return f"{'OK' if event.is_confirmed else '!!'} {what}  {told}  id {short_id(event.file_id)}"


def _line_for_upload_ended(event: results.UploadEnded, folder: str) -> str:
    part = share_of(event.size, event.whole)
    return (f"* {safe_label(event.to_label)} takes no more of {safe_text(event.name)}: {part} sent  "
            f"id {short_id(event.file_id)}")


def stopped_line(event: results.Stopped, how_on: str) -> str:
    """Why a download stopped; behind what is kept of it, how to go on."""
    how_far, why = format_percent(event.verified, event.size), safe_text(event.reason).rstrip(".")
    line = f"!! {safe_text(event.name)}  stopped at {how_far}: {why}"
    return f"{line}. {format_size(event.verified)} kept; {how_on}" if event.kept else line


def half_here(event: results.HalfHere, how_on: str) -> str:
    """What lies half here, and how to go on."""
    named = event.files[:HALF_HERE_MAX]
    names = ", ".join(f"{safe_text(name, 60)} {format_percent(verified, size)}" for name, verified, size in named)
    more = f" and {len(event.files) - len(named)} more" if len(event.files) > len(named) else ""
    return f"{names}{more} {'lies' if len(event.files) == 1 else 'lie'} half here: {how_on}"


def _line_for_paused(event: results.Paused, folder: str) -> str:
    free = format_size(event.free)
    why = f"the disk has no room: needs {format_size(event.needed)}, {free} free; goes on when there is"
    if not event.takes_files:
        why = f"the disk takes no more files (no inodes are left, though {free} are free); goes on when it does"
    return f"!! {safe_text(event.name)}  paused at {format_percent(event.verified, event.size)}: {why}"


def _line_for_chat(event: results.ChatReceived, folder: str) -> str:
    return f"<{safe_label(event.label)}> {safe_text(event.text, CHAT_COLUMNS_MAX)}"


def _line_for_whispered(event: results.Whispered, folder: str) -> str:
    who, text = safe_label(event.label), safe_text(event.text, CHAT_COLUMNS_MAX)
    return f"[me -> {who}] {text}" if event.is_me else f"[{who} -> me] {text}"


def _line_for_unreachable(event: results.Unreachable, folder: str) -> str:
    return f"* {unreachable_text(event)}"


LINES: Dict[type, Callable[[Any, str], str]] = {
    results.Outcome: _line_for_outcome,
    results.Joined: lambda event, folder: f"* {safe_label(event.label)} joined ({count_of(event.count, 'node')})",
    results.Left: _line_for_left,
    results.SupernodeChanged: _line_for_supernode,
    results.ChatReceived: _line_for_chat,
    results.Whispered: _line_for_whispered,
    results.Unsaid: lambda event, folder: f"!! {count_of(event.line_count, 'line')} of what you said could not be sent",
    results.DownloadDone: _line_for_download,
    results.Updated: lambda event, folder: f"* {safe_text(event.name)} was updated in part{_clashes(event.clashes)}",
    results.UploadDone: _line_for_upload,
    results.UploadEnded: _line_for_upload_ended,
    results.Stopped: lambda event, folder: stopped_line(event, f"R {safe_text(event.name)} goes on"),
    results.Paused: _line_for_paused,
    results.Resumed: lambda event, folder: f"* {safe_text(event.name)} goes on: there is room again",
    results.HalfHere: lambda event, folder: f"* {half_here(event, 'R goes on, V lists what does')}",
    results.Notice: lambda event, folder: f"* {safe_text(event.text, 1024)}",
    results.OtherKey: lambda event, folder: f"!! {other_key_line(safe_label(event.name))}",
    results.KeyWanted: lambda event, folder: f"* {other_line(shown(event.address))}",
    results.Unreachable: _line_for_unreachable,
}


def line_for(event: Any, folder: str) -> str:
    """The line that tells a notification."""
    return LINES[type(event)](event, safe_text(folder))


def whisper_line(answer: results.WhisperAnswer) -> str:
    """Why a private line was not heard, or perhaps not."""
    who, text = safe_label(answer.label), safe_text(answer.text, 60)
    why = {
        "unheard": f"{who} has given no sign of it. Perhaps it was not read: "
                   "its program, or the supernode's, may be older than private lines",
        "gone": f"{who} has left", "left": f"you left before {who} was reached",
        "unknown": f"nobody here has such a name (W lists who is here): {text}",
        "ambiguous": f"several are called so; say which: {', '.join(map(safe_label, answer.labels[:6]))}",
        "self": "that is you", "empty": f"there is no text for {who}: P {who} hello",
        "full": "too much of what you said is still on its way. Try again soon",
        "no network": "there is no network at the moment",
        "too long": f"the text is too long; {CHAT_BYTES_MAX} bytes fit",
    }
    return f"!! Not {'delivered' if answer.kind in ('unheard', 'gone', 'left') else 'sent'}: {why[answer.kind]}."


# ---- rows of the lists

def mesh_line(is_on: bool) -> str:
    """What the mesh switch means."""
    return "* mesh is on: links and transfers are direct" if is_on else \
        "* mesh is off: no links but to the supernode; files come by way of it"


def limits_line(up: Optional[float], down: Optional[float]) -> str:
    """How fast files may be sent and fetched."""
    told = [f"{does} at {format_rate(rate)} at most" if rate else f"{does} without limit"
            for does, rate in (("sent", up), ("fetched", down))]
    return f"* files are {', '.join(told)}"


def file_rows(entries: Sequence[results.ListEntry]) -> List[Sequence[str]]:
    """Rows of the list; where two names look alike and are not the same, each tells its content's id."""
    names: Dict[str, Set[str]] = {}
    for entry in entries:
        names.setdefault(skeleton(entry.name), set()).add(entry.name)
    return [file_cells(entry, len(names[skeleton(entry.name)]) > 1) for entry in entries]


def file_cells(entry: results.ListEntry, with_id: bool = False) -> Sequence[str]:
    """Number, name, size, holders and sources of a row of `G`."""
    name = safe_text(entry.name) + (f"/ ({count_of(entry.file_count, 'file')})" if entry.is_folder else "")
    name += f" (id {short_id(entry.file_id)})" if with_id else ""
    holders = ", ".join(map(safe_label, entry.holders))
    return (str(entry.number), name, format_size(entry.size), holders, count_of(entry.sources, "source"))


def member_cells(row: results.MemberRow) -> Sequence[str]:
    """Label, address, role, links, round trip, sign of life and way of a row of `W`."""
    trip = "" if row.round_trip is None else f"{row.round_trip * 1000:.1f} ms"
    heard = "this is you" if row.is_me else "" if row.heard_ago is None else f"heard {row.heard_ago:.0f} s ago"
    role = row.role + ("" if row.mesh else ", mesh off")
    links = "" if row.links is None else count_of(row.links, "link")
    key = f"key {short_fingerprint(row.fingerprint)}" if row.fingerprint else ""
    place = shown(row.address) if row.address[1] else ""  # of who is not back yet none may be known
    return safe_label(row.label), place, role, links, trip, heard, safe_text(row.way), key


def transfer_cells(row: results.TransferRow) -> Sequence[str]:
    """A row of `V`, by columns: number, direction and name, state, percent, how much, rate, time left, with whom."""
    is_moving = row.state in ("receiving", "sending")
    left = f"{format_time(row.seconds_left)} left" if is_moving and row.seconds_left is not None else ""
    percent = "100%" if row.state == "done" else format_percent(row.verified, row.size)
    whence = whence_of(row)
    if row.direction == "R" and row.state == "stopped" and row.verified:
        whence = "R goes on"  # the name stands before it
    return (str(row.number), row.direction + " " + safe_text(row.name), safe_text(row.state), percent,
            format_part(row.verified, row.size), format_rate(row.rate) if is_moving else "", left,
            whence)


def unfinished_rows(parts: Sequence[PartInfo]) -> List[Sequence[str]]:
    """Rows of what lies half here and is not on its way."""
    rows: List[Sequence[str]] = [
        (safe_text(part.label), "half here", format_percent(part.verified_bytes, part.size),
         format_part(part.verified_bytes, part.size), f"R {safe_text(part.label.partition('/')[0])} goes on")
        for part in parts[:UNFINISHED_MAX]]
    if len(parts) > UNFINISHED_MAX:
        rows.append((f"and {len(parts) - UNFINISHED_MAX} more", "", "", "", ""))
    return rows


def share_lines(row: results.TransferRow, columns: Optional[int] = None) -> List[str]:
    """A line for each source of a download (of a lone one, if its path is known), or for who is sent to: its share of
    what moved, its rate, and how its path does."""
    if len(row.shares) < 2 and not any(share.path for share in row.shares):
        return []
    total, whence = sum(share.size for share in row.shares), "to" if row.direction == "S" else "from"
    cells = [(f"    {whence} {safe_label(share.label)}", f"{share.size * 100 // total if total else 0}%",
              format_size(share.size), safe_text(share.state) or (format_rate(share.rate) if share.rate >= 1 else ""),
              path_text(share.path, row.direction)) for share in row.shares]
    return table(cells, (1,), columns)


def path_text(path: Optional[PathFigures], direction: str) -> str:
    """Round trip, window and loss: of what is sent the congestion window, of what is received what may come ahead."""
    if path is None:
        return ""
    trip = "" if path.round_trip is None else f"rtt {path.round_trip * 1e3:.1f} ms, "
    if direction == "S":
        return f"{trip}window {format_size(path.window)}, lost {path.lost_part:.1%}"
    return f"{trip}window {format_size(path.receive_window)}, lost or late {path.late_part:.1%}"
