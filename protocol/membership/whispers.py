"""What a person says to one member alone, and what others say so to him: both ends of it.

A private line goes to the supernode as a `Whisper`, which gives it to that member as a `Whispered`; when its person
has been shown it, a `Heard` comes back the same way. Until then it is said again, for a bounded time: a program that
does not know private lines is as silent as one that is not reached, and that is what its speaker is told. As chat does,
it travels in the clear, and whoever rules could read or forge it.

Pure: no socket, no thread, no clock.
"""

from __future__ import annotations

import math
from typing import Any, Callable, Dict, Iterable, List, NamedTuple, Optional, Tuple

from protocol.latest import Latest
from protocol.membership.chat import SAYS_BURST, SAYS_PER_SECOND, SHOWN_MAX
from protocol.membership.membership import Membership
from protocol.messages import HEARD_GONE, HEARD_SHOWN, Heard, Whisper, Whispered
from protocol.rates import Bucket
from protocol.results import CHAT_BYTES_MAX, WhisperAnswer

WHISPERS_MAX = 50  # private lines on their way
AGAIN_AFTER = 4.0  # seconds without a sign: said again
PATIENCE = 16.0  # seconds: a supernode that died has been followed by then

Done = Callable[[WhisperAnswer], None]


class Addressee(NamedTuple):
    """A member, as a person may call it."""

    node_id: bytes
    label: str
    name: str


def find(line: str, members: Iterable[Addressee]) -> Tuple[List[Addressee], str]:
    """Whom a line begins with, the longest name first, and what is said to them; all whom that may mean."""
    quote = line[:1] if line[:1] in ('"', "'") else ""
    best: List[Addressee] = []
    length = 0
    for member in members:
        for called in dict.fromkeys((member.label, member.name)):
            begin = f"{quote}{called}{quote}"
            fits = line.casefold().startswith(begin.casefold()) and line[len(begin) :][:1] in ("", " ")
            if fits and len(begin) > length:
                best, length = [], len(begin)
            if fits and len(begin) == length and member not in best:
                best.append(member)
    exact = [member for member in best if line[len(quote) : length - len(quote)] == member.label]
    return exact or best, line[length:].strip()


class _Pending:
    """A private line that is on its way."""

    def __init__(self, whisper: Whisper, label: str, done: Done, now: float) -> None:
        self.whisper, self.label, self.done = whisper, label, done
        self.send_at = now
        self.ends_at = now + PATIENCE

    def end(self, kind: str) -> None:
        self.done(WhisperAnswer(kind, self.label, self.whisper.text))


class Whispers:
    """Says private lines until their addressee has been shown them, and shows those of others once."""

    def __init__(self, membership: Membership, show: Callable[[str, str], None]) -> None:
        """`show(label, text)`: somebody says this to the person of this node alone."""
        self._membership = membership
        self._show = show
        self._counter = 0
        self._pending: Dict[int, _Pending] = {}
        self._shown: Latest[Tuple[bytes, int], None] = Latest(SHOWN_MAX)
        self._bucket = Bucket(SAYS_PER_SECOND, SAYS_BURST, 0.0)

    # ---- what the person says

    def say(self, line: str, now: float, done: Done) -> None:
        """`line`: a name, a blank, a text. `done` is called once, after PATIENCE at the latest."""
        membership = self._membership
        members = [Addressee(entry.node_id, membership.label_of(entry.node_id), entry.name)
                   for entry in membership.roster if entry.present]  # fmt: skip
        found, text = find(line, members)
        text = text.encode("utf-8", "replace").decode("utf-8")
        refusal = self._why_not(found, text)
        if refusal:
            labels = tuple(member.label for member in found)
            done(WhisperAnswer(refusal, labels[0] if labels else "", text or line, labels))
            return
        self._counter += 1
        whisper = Whisper(found[0].node_id, self._counter, text)
        self._pending[self._counter] = _Pending(whisper, found[0].label, done, now)
        self.on_timer(now)

    def _why_not(self, found: List[Addressee], text: str) -> str:
        if not self._membership.is_joined and not found:
            return "no network"
        if len(found) != 1:
            return "ambiguous" if found else "unknown"
        if found[0].node_id == self._membership.node_id:
            return "self"
        if not text or len(text.encode()) > CHAT_BYTES_MAX:
            return "too long" if text else "empty"
        return "full" if len(self._pending) >= WHISPERS_MAX else ""

    def on_timer(self, now: float) -> None:
        for counter, pending in list(self._pending.items()):
            if now >= pending.ends_at:
                del self._pending[counter]
                pending.end("unheard")
            elif now >= pending.send_at and self._bucket.take(now):
                pending.send_at = now + AGAIN_AFTER
                self._membership.send_to_supernode(pending.whisper)  # if there is none, later

    def next_deadline(self) -> float:
        ready_at = 0.0 if self._bucket.level >= 1.0 else self._bucket.ready_at() + 1e-6
        return min((min(max(one.send_at, ready_at), one.ends_at) for one in self._pending.values()), default=math.inf)

    def end_all(self) -> None:
        """This node leaves its network."""
        pending, self._pending = list(self._pending.values()), {}
        for one in pending:
            one.end("left")

    # ---- what comes from the supernode

    def on_message(self, message: Any) -> Optional[bool]:
        """Was it about private lines, and did it fit? None: it was about something else."""
        if isinstance(message, Whispered):
            return self._on_whispered(message)
        return self._on_heard(message) if isinstance(message, Heard) else None

    def _on_whispered(self, message: Whispered) -> bool:
        line = message.node_id, message.counter
        is_new = line not in self._shown and bool(message.text) and message.node_id != self._membership.node_id
        if is_new:
            self._shown.put(line, None)
            self._show(self._membership.label_of(message.node_id, message.name), message.text)
        if line in self._shown:
            self._membership.send_to_supernode(Heard(message.node_id, message.counter, HEARD_SHOWN))
        return is_new

    def _on_heard(self, heard: Heard) -> bool:
        pending = self._pending.get(heard.counter)
        if pending is None or pending.whisper.to != heard.node_id or heard.how not in (HEARD_SHOWN, HEARD_GONE):
            return False  # said by one to whom it was not said
        del self._pending[heard.counter]
        pending.end("heard" if heard.how == HEARD_SHOWN else "gone")
        return True
