"""The supernode's desk for private lines: each goes on to the one that it is for, and the sign of its being heard back.

It keeps nothing but, for a while, who was given what by whom: only that one's sign is carried back. Private lines
count as chat does, in the same bucket (THREATS: C03); what finds no room is dropped, and its speaker says it again.

Pure.
"""

from __future__ import annotations

from typing import Tuple

from protocol.latest import Latest
from protocol.membership.chat import ChatOrder
from protocol.messages import HEARD_GONE, Heard, Whisper, Whispered
from protocol.ruling.line import Line
from protocol.ruling.register import Register

GIVEN_MAX = 4096  # private lines of which a sign is still carried back; the oldest is forgotten


class Whispering:
    """Carries private lines, and the signs that they were heard."""

    def __init__(self, register: Register, chat: ChatOrder) -> None:
        self.dropped = 0
        self._register = register
        self._chat = chat
        self._given: Latest[Tuple[bytes, bytes, int], None] = Latest(GIVEN_MAX)  # by whom, to whom, which

    def on_whisper(self, line: Line, whisper: Whisper, now: float) -> None:
        """A member says something to one other: on to that one, or back that it is gone."""
        to = self._register.ready(whisper.to)
        if not whisper.text or not self._chat.may_whisper(line.node_id, now):
            self.dropped += 1
        elif self._register.get(whisper.to) is None:
            if line.link is not None:  # what it said while this node was in doubt is heard now
                self._register.send(line, Heard(whisper.to, whisper.counter, HEARD_GONE))
        elif to is not None:  # else it is coming back, and its speaker will say it again
            self._given.put((line.node_id, to.node_id, whisper.counter), None)
            self._register.send(to, Whispered(line.node_id, line.entry.name, whisper.counter, whisper.text))

    def on_heard(self, line: Line, heard: Heard, now: float) -> None:
        """The sign that it was shown: on to who said it, if that was said to the one that gives the sign."""
        given = heard.node_id, line.node_id, heard.counter
        speaker = self._register.ready(heard.node_id)
        if given not in self._given:
            self.dropped += 1
        elif speaker is not None:
            del self._given[given]
            self._register.send(speaker, Heard(line.node_id, heard.counter, heard.how))
