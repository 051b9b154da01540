"""What each of the one-line forms does, once the node is in a network: the exit code, or `Ended` with a sentence."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
from typing import Any, Callable, Dict, List, Optional, Protocol, Sequence, Set

from prompt import doctor, json_lines, lines
from prompt.awaited import SCRIPT_PAUSE_SECONDS
from prompt.choosing import WHOLE_FOLDER
from prompt.console import SCRIPT_SAY_SECONDS
from prompt.output import Ended, Output, StreamWriter
from prompt.settings import (
    EXIT_ADDRESS,
    EXIT_FAILED,
    EXIT_FLAGS,
    EXIT_INCOMPLETE,
    EXIT_INTERRUPTED,
    EXIT_NOT_FOUND,
    EXIT_OK,
)
from prompt.shortage import EXIT_SHORT
from protocol import results
from protocol.content.names import check_name
from protocol.content.troubles import BadName
from protocol.facts import Facts, Health
from protocol.looks import safe_label, safe_text

SETTLE_SECONDS = 1.5, 13.0  # for the path to be measured; in all, for two other members to try this node, one by one
EXAMINE_SECONDS = 15.0  # a disk, or a program that is asked, may be slow


class Run(Protocol):
    """What a verb asks of the run that it is part of (`OneShot`)."""

    flags: argparse.Namespace
    output: Output
    node: Any
    folder: str  # where things land
    clock: Callable[[], float]
    signals: List[int]
    outcome: Optional[results.Outcome]
    outside: str  # why there is no network
    ending: Optional[Any]  # DownloadDone or Stopped of what is fetched
    row: Optional[results.TransferRow]  # how that stands
    paused_at: Optional[float]  # since when it waits for room on the disk
    sent: Set[bytes]  # what somebody has all of
    has_heard: bool  # what was said came back

    def later(self, closure: Callable[[], None]) -> None: ...

    def wait(self, is_met: Callable[[], Any], seconds: float = ...) -> bool:
        """Waits for it; False when the time is over."""

    def ask(self, call: Callable[..., None], seconds: float = ...) -> Any:
        """What `call(peer, now, done)`, on the node thread, calls `done` with; None if it never does."""

    def end(self, event: Any) -> None:
        """This is how the transfer ended."""

LOOK_SECONDS = 1.0  # between two looks at how far a transfer is
SILENT_SECONDS = 8.0  # until a person is told that nothing comes
BUSY = ("receiving", "verifying", "copying on this disk")  # states in which something is done, be it slow


# ---- doctor, list, who, say


def examine(run: Run) -> int:
    """doctor: what is the matter with this machine and its network, and what to do about it."""
    if not run.outside:
        _settle(run)
    found: List[Facts] = []
    run.node.examine(lambda facts: run.later(lambda: found.append(facts)), os.getcwd())
    if not run.wait(lambda: found, EXAMINE_SECONDS):
        raise Ended(EXIT_FAILED, "This machine did not tell how it is; --log FILE tells the details.")
    findings = doctor.find(found[0]._replace(outside=run.outside))
    for told in doctor.objects_of(findings) if run.output.is_json else ():
        run.output.result(told, "")
    for line in doctor.lines_of(findings, run.output.width()):
        run.output.result(None, line)
    return EXIT_FAILED if doctor.has_trouble(findings) else EXIT_OK


def _settle(run: Run) -> None:
    def is_over() -> bool:
        return is_settled(run.ask(lambda peer, now, done: done(peer.health(now))))

    if not run.wait(is_over, SETTLE_SECONDS[0]):
        run.output.aside(None, "* waiting for another node to try whether it can reach this one ...")
        run.wait(is_over, SETTLE_SECONDS[1] - SETTLE_SECONDS[0])


def is_settled(health: Optional[Health]) -> bool:
    """Is known what a node learns in its first seconds?"""
    if health is None or not health.is_joined:
        return False
    is_tried = health.reached is None or health.reached.is_open is not None
    return is_tried and health.path is not None and health.path.round_trip is not None




def list_files(run: Run) -> int:
    """list: the files of the network."""
    pattern = run.flags.pattern
    rows = run.ask(lambda peer, now, done: peer.list_files(pattern, now, done))
    if rows is None:
        raise Ended(EXIT_ADDRESS, "The list did not come; try again soon.")
    if not rows and pattern:
        raise Ended(EXIT_NOT_FOUND, f'No file here matches "{safe_text(pattern, 60)}".')
    cells = [row[1:] for row in lines.file_rows(rows)]
    _tell_rows(run, [json_lines.file_object(row) for row in rows], cells, (1,))
    return EXIT_OK


def who(run: Run) -> int:
    """who: the others in the network."""
    rows = run.ask(lambda peer, now, done: done(peer.members(now))) or ()
    others = [row for row in rows if not row.is_me]     # this visit ends with this answer
    cells = [lines.member_cells(row) for row in others]
    _tell_rows(run, [json_lines.member_object(row) for row in others], cells, ())
    return EXIT_OK


def _tell_rows(run: Run, objects: Sequence[Any], cells: Sequence[Sequence[str]], right: Sequence[int]) -> None:
    if run.output.is_json:
        for one in objects:
            run.output.result(one, "")
    else:
        for line in lines.table(cells, right, run.output.width()):
            run.output.result(None, line.strip() if run.output.width() is None else line)


def say_line(run: Run) -> int:
    """say: a line of chat, which has come back when this ends."""
    text = " ".join(run.flags.text).encode("utf-8", "replace").decode("utf-8")
    is_taken = run.ask(lambda peer, now, done: done(peer.say(text, now)))
    if not is_taken or not run.wait(lambda: run.has_heard, SCRIPT_SAY_SECONDS[1]):
        raise Ended(EXIT_FAILED, "It could not be said.")
    if run.output.is_json:
        run.output.result({"event": "said", "text": text}, "")
    return EXIT_OK


# ---- get


def get(run: Run) -> int:
    """get: a file or folder into the present one, or to standard output."""
    entry = _find(run, bare(run.flags.wanted))
    if run.output.is_stream:
        return _stream(run, entry)
    _look_at(run, entry.name)
    return _fetched(run, lambda peer, now, done: peer.fetch(entry, now, done))


def _find(run: Run, name: str) -> results.ListEntry:
    found = _named(run, name) or _folder_around(run, name)
    if not found:
        raise Ended(EXIT_NOT_FOUND, f"{safe_text(name)}  nobody here has it")
    if len(found) > 1:
        rows = lines.table([row[1:] for row in lines.file_rows(found)], (1,))
        told = f'Several files match "{safe_text(name, 60)}"; one is to be named:'
        raise Ended(EXIT_FLAGS, "\n".join([told, *rows]))
    entry: results.ListEntry = found[0]
    return entry


def _named(run: Run, name: str) -> Sequence[results.ListEntry]:
    """What a person may mean by that."""
    found = run.ask(lambda peer, now, done: peer.find(name, now, done))
    if found is None:
        raise Ended(EXIT_ADDRESS, "The list did not come; try again soon.")
    named: Sequence[results.ListEntry] = found
    return named


def _folder_around(run: Run, name: str) -> Sequence[results.ListEntry]:
    """The folder whose whole content is meant, as `R` has it; a part of it alone is not given."""
    top, _, rest = name.partition("/")
    folders = [entry for entry in _named(run, top) if entry.is_folder and entry.name == top] if rest else []
    if folders and rest not in WHOLE_FOLDER:
        raise Ended(EXIT_NOT_FOUND, f"{safe_text(name)}  only whole folders are given: get {safe_text(top)}")
    return folders


def _look_at(run: Run, name: str) -> None:
    """What stands there already is hashed, so that none of it is fetched again."""
    try:
        check_name(name)                # it may lead anywhere; the download will refuse it
    except BadName:
        return
    path = os.path.abspath(os.path.join(run.folder, name))
    if "/" not in name and os.path.lexists(path):
        run.ask(lambda peer, now, done: peer.share(path, now, done))
        _scan(run, f"* reading what is here of {safe_text(name)} ...", 1.0)


def _fetched(run: Run, fetch: Callable[..., None]) -> int:
    """Asks for it and waits for its end."""
    answer = run.ask(fetch) or results.FetchAnswer("")
    if answer.kind == "already here":
        one, here = answer.entries[0], answer.path or ""
        run.end(results.DownloadDone(0, one.name, one.size, 0.0, (), one.file_id, here, None, True, 0))
        return EXIT_OK
    if answer.kind != "started":
        raise Ended(EXIT_ADDRESS, "There is no network at the moment; try again soon.")
    _await_end(run)
    run.output.check()
    if run.ending is None:
        kept = "" if run.output.is_stream else "; what came is kept, the same line goes on"
        raise Ended(EXIT_SHORT, f"The disk has no room for the rest{kept}.")
    return code_of_ending(run)


def _await_end(run: Run) -> None:
    """Waits for the end of what was asked for; where nothing comes for long, that is told once."""
    verified, since, is_told = 0, run.clock(), False
    while not run.wait(lambda: run.ending is not None or has_waited_for_room(run) or run.output.is_lost, LOOK_SECONDS):
        now, was, verified = run.clock(), verified, run.row.verified if run.row else 0
        is_busy = run.row is not None and run.row.state in BUSY
        if verified != was or is_busy or run.paused_at is not None:  # that is told by itself
            since, is_told = now, False
        elif now - since >= SILENT_SECONDS and not is_told:
            is_told = True
            state = f" ({safe_text(run.row.state)})" if run.row else ""
            text = f"nothing has come for {SILENT_SECONDS:.0f} s{state}; still trying"
            run.output.aside(results.Notice(text), f"* {safe_text(bare(run.flags.wanted))}  {text}")


def code_of_ending(run: Run) -> int:
    """The exit code of `get` by how its transfer ended."""
    if isinstance(run.ending, results.Stopped):
        return EXIT_SHORT if run.ending.is_full else EXIT_FAILED
    return EXIT_INCOMPLETE if run.ending and run.ending.left_out else EXIT_OK


def has_waited_for_room(run: Run) -> bool:
    """Has the disk had no room for the rest for as long as a script waits?"""
    return run.paused_at is not None and run.clock() - run.paused_at >= SCRIPT_PAUSE_SECONDS


def _stream(run: Run, entry: results.ListEntry) -> int:
    if entry.is_folder:
        raise Ended(EXIT_FLAGS, f"{safe_text(entry.name)} is a folder; get NAME - writes one file.")
    writer = StreamWriter(run.node.call, run.output)
    return _fetched(run, lambda peer, now, done: peer.stream(entry, writer.take, now, done))


# ---- share


def share(run: Run) -> int:
    """share: until another node has all of it, or for as long as the person wants."""
    for path in run.flags.paths:
        said = run.ask(lambda peer, now, done, path=path: peer.share(os.path.abspath(path), now, done))
        if not said or said.startswith("!!"):
            raise Ended(EXIT_FAILED, (said or "It cannot be shared.")[2:].strip())
    _scan(run, "* reading ...", 0.5)
    rows = run.ask(lambda peer, now, done: done(peer.shares())) or ()
    if not rows:
        raise Ended(EXIT_FAILED, "Nothing of this can be shared.")
    for row in rows:
        what = {"event": "shared", **json_lines.file_object(row)}
        run.output.result(what, f"* {lines.file_cells(row)[1]}  {lines.format_size(row.size)} is shared"
                                 f"  id {lines.short_id(row.file_id)}")
    return _wait_for_takers(run, {row.file_id for row in rows})


def _wait_for_takers(run: Run, wanted: Set[bytes]) -> int:
    if getattr(run.flags, "stay", False):
        with contextlib.suppress(Ended):
            run.wait(lambda: False)
        return EXIT_INTERRUPTED if signal.SIGINT in run.signals else EXIT_OK
    if run.outcome and run.outcome.kind == "joined":
        _see_who_has(run, wanted)
    if not wanted <= run.sent:
        run.output.aside(None, "* until somebody has it all; Ctrl-C ends it before")
    run.wait(lambda: wanted <= run.sent)
    return EXIT_OK


def _see_who_has(run: Run, wanted: Set[bytes]) -> None:
    """What another node has all of already needs nobody to fetch it."""
    for row in run.ask(lambda peer, now, done: done(peer.shares())) or ():
        for entry in run.ask(lambda peer, now, done, row=row: peer.find(row.name, now, done)) or ():
            others = [label for label, one in zip(entry.holders, entry.holder_ids) if one != run.node.peer.node_id]
            if entry.file_id in wanted and others:
                run.sent.add(entry.file_id)
                text = f"{safe_label(others[0])} has {safe_text(entry.name)} already"
                run.output.aside(results.Notice(text), f"* {text}")


def _scan(run: Run, told: str, after: float) -> None:
    """Waits until all that was named is read; that is told if it takes longer than so many seconds."""
    looked: List[bool] = []
    run.node.look_now(lambda: run.later(lambda: looked.append(True)))
    if not run.wait(lambda: looked, after):
        run.output.aside(None, told)
        run.wait(lambda: looked)


def bare(name: str) -> str:
    """A name as `list` shows it, without the slash of a folder."""
    return name.rstrip("/") or name


VERBS: Dict[str, Callable[[Run], int]] = {
    "get": get, "share": share, "list": list_files, "who": who, "say": say_line, "doctor": examine,
}  # fmt: skip
