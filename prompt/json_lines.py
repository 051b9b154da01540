"""What a one-line form tells as JSON: one object a line. The README's table has the keys; keys are only ever added.

Sizes are bytes, rates bytes per second, times seconds; `id` is the whole identity of a content in hex. Names stand as
others gave them: who shows them on a terminal makes them harmless first.
"""

from __future__ import annotations

import json
from typing import Any, Callable, Dict, Optional

from prompt.firewall import unreachable_text
from prompt.lines import half_here
from protocol import results
from protocol.left_out import count_left_out

THIS_LINE = "this line goes on with it"  # how a one-line form goes on with what lies half here

Object = Dict[str, Any]


def line_of(told: Object) -> str:
    """One line of ASCII: whatever stands in a name is escaped."""
    return json.dumps(told, ensure_ascii=True)


def file_object(entry: results.ListEntry) -> Object:
    """A row of `list`."""
    return {"name": entry.name, "size": entry.size, "id": entry.file_id.hex(), "folder": entry.is_folder,
            "files": entry.file_count, "holders": list(entry.holders), "sources": entry.sources}


def member_object(row: results.MemberRow) -> Object:
    """A row of `who`."""
    heard = None if row.heard_ago is None else round(row.heard_ago, 1)
    return {"name": row.label, "ip": row.address[0], "port": row.address[1], "role": row.role, "mesh": row.mesh,
            "links": row.links, "round_trip": row.round_trip, "heard_ago": heard, "way": row.way,
            "fingerprint": row.fingerprint.hex()}


def _progress(event: results.Progress) -> Object:
    row = event.row
    return {"event": "progress", "name": row.name, "state": row.state, "verified": row.verified, "size": row.size,
            "rate": row.rate, "seconds_left": row.seconds_left, "sources": list(row.sources)}


def _done(event: results.DownloadDone) -> Object:
    return {"event": "done", "name": event.name, "size": event.size, "seconds": event.seconds, "moved": event.moved,
            "sources": list(event.sources), "id": event.file_id.hex(), "path": str(event.path),
            "was_there": event.was_there, "left_out": count_left_out(event.left_out)}


def _stopped(event: results.Stopped) -> Object:
    return {"event": "stopped", "name": event.name, "verified": event.verified, "size": event.size,
            "reason": event.reason, "kept": event.kept}


def _sent(event: results.UploadDone) -> Object:
    return {"event": "sent", "name": event.name, "size": event.size, "seconds": event.seconds, "to": event.to_label,
            "id": event.file_id.hex(), "confirmed": event.is_confirmed}


OBJECTS: Dict[type, Callable[[Any], Object]] = {
    results.Progress: _progress,
    results.DownloadDone: _done,
    results.Stopped: _stopped,
    results.UploadDone: _sent,
    results.Paused: lambda event: {"event": "paused", "name": event.name, "needed": event.needed, "free": event.free},
    results.Resumed: lambda event: {"event": "resumed", "name": event.name},
    results.HalfHere: lambda event: {"event": "notice", "text": half_here(event, THIS_LINE)},
    results.Notice: lambda event: {"event": "notice", "text": event.text},
    results.Unreachable: lambda event: {"event": "notice", "text": unreachable_text(event)},
}


def object_of(event: Any) -> Optional[Object]:
    """What a notification is told as; None for what is not told."""
    make = OBJECTS.get(type(event))
    return make(event) if make is not None else None
