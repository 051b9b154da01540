"""What members say, to all or to one alone."""

from __future__ import annotations

from typing import Annotated, NamedTuple

from protocol.fields import Text
from protocol.messages.words import Code, Counter, Name, NodeId, Sequence
from protocol.results import CHAT_BYTES_MAX

HEARD_SHOWN, HEARD_GONE = 1, 2  # of a private line


class Say(NamedTuple):
    """A line of chat, on its way to the supernode, which puts all lines in one order."""

    counter: Counter  # the speaker's own, rises by one
    text: Annotated[str, Text(CHAT_BYTES_MAX)]


class Chat(NamedTuple):
    """A line of chat in its place in the one order."""

    sequence: Sequence  # the supernode's: one order for all
    node_id: NodeId
    name: Name
    counter: Counter
    text: Annotated[str, Text(CHAT_BYTES_MAX)]


class Whisper(NamedTuple):
    """A line for one member alone, on its way to the supernode."""

    to: NodeId
    counter: Counter  # the speaker's own, of its private lines
    text: Annotated[str, Text(CHAT_BYTES_MAX)]


class Whispered(NamedTuple):
    """A line for this member alone, from that one."""

    node_id: NodeId
    name: Name
    counter: Counter
    text: Annotated[str, Text(CHAT_BYTES_MAX)]


class Heard(NamedTuple):
    """A private line was shown to its person, or cannot be: to the supernode, who said it; from it, to whom."""

    node_id: NodeId
    counter: Counter
    how: Code  # HEARD_...
