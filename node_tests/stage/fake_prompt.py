"""The prompt over a fake node: what the tests of the terminal and of scripts talk to, run as a program.

What a line on the descriptor FAKE_CONTROL says is an event to tell; what events and rows look like is made here.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path
from typing import Any, Callable, Sequence

HOME = Path(__file__).resolve().parents[2]
if str(HOME) not in sys.path:
    sys.path.insert(0, str(HOME))

import node_client  # noqa: E402
from prompt.threads import NodeThread  # noqa: E402
from protocol import facts, results  # noqa: E402
from protocol.content.shares import Standing  # noqa: E402
from protocol.fields import Address  # noqa: E402
from protocol.results import (  # noqa: E402
    ChatReceived,
    DownloadDone,
    FetchAnswer,
    LeftOut,
    ListEntry,
    MemberRow,
    Notice,
    Outcome,
    Share,
    Stopped,
    TransferRow,
    UploadDone,
    WhisperAnswer,
)

# ---- what peer.py hands over

ID = bytes.fromhex("9f3c11ab" + "00" * 28)
SIZE = 4_200_000_000


def entry(number: int, name: str, **changes: Any) -> ListEntry:
    return ListEntry(number, name, SIZE, ID, holders=("ana", "bo"), sources=2)._replace(**changes)


def transfer(**changes: Any) -> TransferRow:
    row = TransferRow(1, "R", "lab.iso", "receiving", 1_740_000_000, SIZE, 88_400_000.0, 28.0, ("ana", "bo"))
    return row._replace(**changes)


def outcome(kind: str, **changes: Any) -> Outcome:
    return Outcome(kind, ("127.0.0.1", 6020), "ana", 4, "")._replace(**changes)


FEWER = {"left_out": (LeftOut("link", 2, "up"), LeftOut("here", 1, "a:b")), "file_count": 9}


def downloaded(**changes: Any) -> DownloadDone:
    event = DownloadDone(1, "lab.iso", SIZE, 48.9, ("ana", "bo"), ID, "shared/lab.iso", None, False, SIZE)
    return event._replace(**changes)


def sent(size: int, whole: int) -> UploadDone:
    return UploadDone("lab.iso", size, 48.9, "bo", ID, True, whole)


def stopped(**changes: Any) -> Stopped:
    event = Stopped(1, "lab.iso", 1_740_000_000, SIZE, "ana left and nobody else has it", True)
    return event._replace(**changes)


def chat(label: str, text: str) -> ChatReceived:
    return ChatReceived(label, text, False)


# ---- a fake node

class FakePeer:
    """Answers every command at once; downloads end when the name says how."""

    def __init__(self, notify: Callable[[Any], None]) -> None:
        self.notify, self.calls = notify, []
        self.deadline = float("inf")
        self.ending: list = []
        self.mesh = True

    def next_deadline(self) -> float:
        return self.deadline

    def on_timer(self, now: float) -> None:
        self.deadline = float("inf")
        for event in self.ending:
            self.notify(event)
        self.ending = []

    def say(self, text: str, now: float) -> bool:
        if text == "too much":
            return False
        if text == "too large":
            raise MemoryError
        self.notify(ChatReceived("me", text, True))
        return True

    def whisper(self, line: str, now: float, done: Callable) -> None:
        name, _, text = line.partition(" ")
        done(WhisperAnswer("heard" if name == "bo" else "unknown", name, text))

    def why_unsaid(self) -> str:
        return "too much of what you said is still on its way. Try again soon"

    def finish_saying(self, patience: float, at_most: float, now: float, then: Callable, left: int = 0) -> None:
        then()

    def share(self, path: str, now: float, done: Callable) -> None:
        done(f"* {os.path.basename(path)} is shared")

    def left_out(self) -> list:
        return [("d/link", '"d/link" is a link and is not shared')]

    def shares(self) -> list:
        return [entry(1, "mine.txt", size=12)]

    def list_files(self, pattern: str, now: float, done: Callable) -> None:
        if os.environ.get("FAKE_FILE", "-") == pattern:
            return done([entry(1, pattern)])
        if pattern == "talks":
            return done([entry(1, "talks", is_folder=True, file_count=2)])
        if pattern == "many":
            return done([entry(number, f"f{number}.txt") for number in range(1, 5001)])
        done([entry(1, "lab.iso"), entry(2, "notes.pdf", size=12_000, holders=("bo",), sources=1)])

    def fetch(self, row: ListEntry, now: float, done: Callable) -> None:
        self.fetch_name(row.name, now, done)

    def fetch_name(self, name: str, now: float, done: Callable) -> None:
        if name in ("gone.txt", "7", "7-9", "talks/a.txt", "lab/a.txt"):
            return done(FetchAnswer("nobody"))
        if name == "two":
            return done(FetchAnswer("several", (entry(1, "two.a"), entry(2, "two.b"))))
        if name == "on its way":
            self.ending, self.deadline = [downloaded(name=name)], now + 0.2
            return done(FetchAnswer("running", (entry(1, name),), 1))
        if name == "here":
            return done(FetchAnswer("already here", (entry(1, name),), None, "shared/here"))
        done(FetchAnswer("started", (entry(1, name),), 1))
        if name != "slow":
            done_so = downloaded(name=name, **(FEWER if name == "fewer" else {}))
            self.ending.append(stopped(name=name) if name == "bad" else done_so)
            self.deadline = now + 0.2

    def members(self, now: float) -> list:
        return [MemberRow("ana", ("10.0.0.7", 6020), "supernode", False, 1, 0.0004, 1.0, True),
                MemberRow("me", ("10.0.0.8", 6020), "member", True, 1, None, None, True)]

    def transfers(self, now: float) -> list:
        return [transfer(shares=SHARES), TransferRow(2, "S", "notes.pdf", "queued 3rd", 0, 100, 0.0, None, ("bo",))]

    def unfinished(self, now: float, done: Callable) -> None:
        done([])

    def cancel(self, number: int, now: float) -> str:
        return f"* transfer {number} cancelled"

    def set_mesh(self, on: bool, now: float) -> None:
        self.mesh = on

    def connect_to(self, ip: str, port: int, now: float, others: Sequence[Address] = ()) -> None:
        if port == 6666:
            text = "Nobody answers at %s:%d; you stay where you are." % (ip, port)
            return self.notify(Outcome("nobody", (ip, port), "", 2, text))
        if port != 6667:                # there it is tried, and tried
            self.notify(Outcome("joined", (ip, port), "cy", 2, ""))

    def stay(self, now: float) -> None:
        self.notify(Notice("the other network is not tried any more; you stay where you are"))

    def leave(self, now: float, done: Callable) -> None:
        how = os.environ.get("FAKE_LEAVE", "")
        if how not in ("", "never"):
            time.sleep(0.3)             # a handover takes its time, and is waited for
            Path(how).write_text("left properly")
        if how != "never":
            done()


class FakeNode:
    """A node thread with a fake peer on it; a line on the control descriptor is an event to tell."""

    def __init__(self, settings: Any, notify: Callable[[Any], None]) -> None:
        self.check_code = os.environ.get("FAKE_CODE", "")
        self.folder, self.ip, self.is_port_own = "shared", "127.0.0.1", settings.port != 7777
        self.is_local, self.has_network = False, True
        self.thread = NodeThread(time.monotonic)
        self.peer = FakePeer(notify)
        self.call = self.thread.call
        self.thread.start(self.peer)
        if settings.ip == "10.9.9.9":
            self.call(lambda now: notify(outcome("nobody")))
            return
        self.call(lambda now: notify(outcome("joined" if settings.ip else "supernode")))
        if "FAKE_CONTROL" in os.environ:
            threading.Thread(target=self.listen, args=(int(os.environ["FAKE_CONTROL"]),), daemon=True).start()

    def listen(self, descriptor: int) -> None:
        for line in os.fdopen(descriptor):
            event = eval(line, {**vars(results), **globals()})
            self.call(lambda now, event=event: self.peer.notify(event))

    def examine(self, then: Callable[[Any], None]) -> None:
        # Of no network, nor any address: what is told does not depend on the machine that plays this.
        disk, clock = facts.Disk("shared", 12_000_000_000, 80_000_000_000), facts.Clock(1_795_819_000.0)
        wall = facts.Firewall("ufw", facts.FirewallState.UNKNOWN, "sudo ufw allow 6020/udp", 6020)
        machine = facts.Machine((), 6020, 6021, False, facts.Holder("nc", 812), wall, disk, clock)
        self.call(lambda now: then(facts.Facts(machine)))

    def keep_key(self) -> str:
        return "* the key is kept"

    def look_now(self, then: Callable[[], None]) -> None:
        then()

    def standing(self) -> Any:
        return Standing(*map(int, os.environ["FAKE_STANDING"].split())) if "FAKE_STANDING" in os.environ else None

    def close(self, timeout: float) -> None:
        self.thread.stop()


SHARES = (Share("ana", 1_100_000_000, 54_100_000.0), Share("bo", 660_000_000, 34_300_000.0),
          Share("cy", 0, 0.0, "queued 3rd"))


if __name__ == "__main__":
    sys.exit(node_client.main(open_node=FakeNode))
