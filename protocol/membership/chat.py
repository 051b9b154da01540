"""A member's side of chat: what was said is said until it comes back, what comes twice is shown once.

Pure: no socket, no thread, no clock.
"""

from __future__ import annotations

import collections
import math
from typing import Deque, Dict, List, Sequence, Tuple

from protocol.messages import SAYS_UNCONFIRMED_MAX, SEQUENCE_MAX, Chat, Say
from protocol.rates import Bucket

SAYS_PER_SECOND = 15.0  # below what a supernode relays for one member
SAYS_BURST = 10.0
SAYS_UNDERWAY_MAX = 30  # without their echo: after a pause they come all at once, and a supernode takes 40 so
SAID_LATELY = 5.0  # seconds before a supernode's last sign: what it took then it may not have told to everybody
SAY_AGAIN_AFTER = 5.0  # seconds without the echo: the supernode dropped it
RECENT_MAX = 200  # lines kept, so that a new supernode can repeat them to those who missed them
SHOWN_MAX = 4096  # lines remembered, not to be shown twice; many more than are ever repeated


class ChatDesk:
    """Says waiting for their echo, what was shown, the last lines."""

    def __init__(self, now: float = 0.0) -> None:
        self._counter = 0
        self._says: Deque[Say] = collections.deque()  # not confirmed, in order
        self._confirmed: Deque[Tuple[float, Say]] = collections.deque(maxlen=SAYS_UNDERWAY_MAX)  # the last, and when
        self._sent = 0  # how many of them are out at the present supernode
        self._sent_at = 0.0
        self._bucket = Bucket(SAYS_PER_SECOND, SAYS_BURST, now)
        # Line by line, not the last counter of each speaker: one forged high one would silence it for ever.
        self._shown: Dict[Tuple[bytes, int], None] = {}
        self.recent: Deque[Chat] = collections.deque(maxlen=RECENT_MAX)
        self.sequence = 0  # of the last Chat seen

    @property
    def unconfirmed(self) -> int:
        """Lines said of which no echo came."""
        return len(self._says)

    def say(self, text: str) -> bool:
        """Queue a line; False when too many are waiting."""
        if len(self._says) >= SAYS_UNCONFIRMED_MAX:
            return False
        self._counter += 1
        self._says.append(Say(self._counter, text))
        return True

    def send_again(self, since: float = math.inf) -> None:
        """There is a new supernode: all that was not confirmed goes to it, in order.

        So does what the lost one confirmed from `since` on: it may have died before it had told all others.
        """
        while self._confirmed:
            at, say = self._confirmed.pop()
            if at >= since:
                self._says.appendleft(say)
        self._sent = 0

    def forget_network(self) -> int:
        """Begin anew; how many lines were said in vain?"""
        unsaid = len(self._says)
        self._says.clear()
        self._confirmed.clear()
        self._shown.clear()
        self.recent.clear()
        self._sent = self.sequence = 0
        return unsaid

    def go_over(self, own_id: bytes) -> None:
        """From a network where nobody else ever was to another one: what was said alone is said there."""
        said = [Say(chat.counter, chat.text) for chat in self.recent if chat.node_id == own_id]
        self._says.extendleft(reversed(said))
        self._confirmed.clear()
        self.recent.clear()
        self._sent = self.sequence = 0

    def due(self, now: float) -> List[Say]:
        """What to send now."""
        if self._sent and now - self._sent_at > SAY_AGAIN_AFTER:
            self._sent = 0
        says = []
        while self._may_send() and self._bucket.take(now):
            says.append(self._says[self._sent])
            self._sent += 1
            self._sent_at = now
        return says

    def _may_send(self) -> bool:
        return self._sent < min(len(self._says), SAYS_UNDERWAY_MAX)

    def next_deadline(self) -> float:
        if self._may_send():
            return self._bucket.ready_at() + 1e-6
        return self._sent_at + SAY_AGAIN_AFTER + 1e-6 if self._says else math.inf

    def on_chat(self, chat: Chat, own_id: bytes, now: float = 0.0) -> bool:
        """A line came: is it to be shown?"""
        if chat.node_id == own_id and chat.counter > self._counter:
            return False  # we never said that
        self.sequence = max(self.sequence, chat.sequence)
        if chat.node_id == own_id:
            while self._says and self._says[0].counter <= chat.counter:
                self._confirmed.append((now, self._says.popleft()))
                self._sent = max(0, self._sent - 1)
        line = chat.node_id, chat.counter
        if line in self._shown:
            return False
        if len(self._shown) >= SHOWN_MAX:
            del self._shown[next(iter(self._shown))]
        self._shown[line] = None
        self.recent.append(chat)
        return True


def counted_anew(recent: Sequence[Chat]) -> Tuple[Chat, ...]:
    """The lines in places of which there are enough behind them, for one who goes on counting from the last.

    A lying supernode may have used them up. Who saw them there is told none of them again.
    """
    if all(chat.sequence <= SEQUENCE_MAX // 2 for chat in recent):
        return tuple(recent)
    return tuple(chat._replace(sequence=place) for place, chat in enumerate(recent, 1))


def missed(recent: Deque[Chat], seen: int) -> Tuple[Chat, ...]:
    """The lines after the last one seen; nothing for a member who comes for the first time."""
    return tuple(chat for chat in recent if chat.sequence > seen) if seen else ()
