"""What a member says in the chat, and what it hears: its `ChatDesk`, between the person and the supernode.

Pure.
"""

from __future__ import annotations

import math
from typing import Callable, Tuple

from protocol.membership.chat import ChatDesk, Farewell, Farewells
from protocol.membership.contracts import Audience, Speaker
from protocol.membership.view import View
from protocol.messages import Chat, Welcome
from protocol.results import CHAT_BYTES_MAX

SAID_LATELY = 15.0  # seconds before a supernode's last sign: what it told then may not have reached everybody. Whom it
# does not hear for 8 s it counts as lost, and who comes back asks for what it missed; until then only it could tell


class Voice:
    """Says again what was not heard, shows what others say, and tells when all was said."""

    def __init__(self, audience: Audience, view: View, speaker: Speaker) -> None:
        self._audience = audience
        self._view = view
        self._speaker = speaker
        self._desk = ChatDesk()
        self._farewells = Farewells()

    @property
    def unconfirmed(self) -> int:
        """Lines said of which no echo came."""
        return self._desk.unconfirmed

    @property
    def sequence(self) -> int:
        """Of the last line heard."""
        return self._desk.sequence

    def recent(self) -> Tuple[Chat, ...]:
        """The last lines, for the others should this node rule."""
        return tuple(self._desk.recent)

    # ---- what the person says

    def say(self, text: str, now: float) -> bool:
        """Take a line of chat; False when it is empty, too long, or too much waits already."""
        data = text.encode("utf-8", "replace")
        is_taken = 0 < len(data) <= CHAT_BYTES_MAX and self._desk.say(data.decode("utf-8"))
        if is_taken:
            self.speak(now)
        return is_taken

    def finish(self, patience: float, at_most: float, now: float, then: Callable[[], None], left: int) -> None:
        """`then()` when all but `left` lines are confirmed, none was for `patience` seconds, or after `at_most`."""
        if self._desk.unconfirmed <= left:
            then()
        else:
            self._farewells.add(Farewell(left, patience, at_most, now, then))

    def speak(self, now: float) -> None:
        """Send what is due, if there is a supernode to hear it."""
        if self._speaker.is_joined:
            for say in self._desk.due(now):
                self._speaker.send_to_supernode(say)

    def on_timer(self, now: float) -> None:
        self.speak(now)
        self._farewells.on_timer(now)

    def next_deadline(self) -> float:
        due_at = self._desk.next_deadline() if self._speaker.is_joined else math.inf
        return min(due_at, self._farewells.next_deadline())

    # ---- what it hears

    def on_chat(self, chat: Chat, now: float) -> None:
        """A line that the supernode has told: it is shown once, and confirms one of this node's own."""
        unconfirmed = self._desk.unconfirmed
        if self._desk.on_chat(chat, self._view.node_id, now):
            label = self._view.roster.label_of(chat.node_id, chat.name)
            self._audience.on_chat(label, chat.text, chat.node_id == self._view.node_id, now)
        if self._desk.unconfirmed < unconfirmed:
            self._farewells.on_confirmed(self._desk.unconfirmed, now)

    # ---- from network to network

    def on_entered(self, welcome: Welcome, is_first: bool, heard_at: float) -> None:
        """There is a supernode; it may be another one than the one last heard at that instant (else: infinity)."""
        self._desk.count_from(welcome.chat_sequence, is_first)
        self._desk.send_again(heard_at - SAID_LATELY)

    def go_over(self) -> None:
        """From a network where nobody else ever was to another one: what was said alone is said there."""
        self._desk.go_over(self._view.node_id)

    def forget_network(self) -> None:
        """This node leaves it: of what nobody there has confirmed its person is told."""
        unsaid = self._desk.forget_network()
        if unsaid:
            self._audience.on_unsaid(unsaid)
