"""Both ends of chat: a member says a line until it comes back, the supernode puts all lines into one order.

A line goes out as a `Say` with its speaker's own counter (`ChatDesk.due`), has its place in the order and goes to all
as a `Chat` (`ChatOrder.on_say`), and is confirmed when its speaker sees it there; what comes twice is shown once
(`ChatDesk.on_chat`). The supernode takes a speaker's lines in order or refuses them in order: who said a later one
before an earlier one was taken would lose the earlier, for all count what they are told.

Pure: no socket, no thread, no clock.
"""

from __future__ import annotations

import collections
import math
from typing import Callable, Deque, Dict, Iterable, List, Optional, Sequence, Tuple

from protocol.addresses import NETWORK_SHARE, is_loopback, network_of
from protocol.latest import Latest
from protocol.messages import MEMBERS_MAX, NOWHERE, SEQUENCE_MAX, Chat, MemberEntry, Say
from protocol.rates import Bucket
from protocol.results import SAYS_UNCONFIRMED_MAX

SAYS_PER_SECOND = 15.0  # below what a supernode relays for one member
SAYS_BURST = 10.0
SAYS_UNDERWAY_MAX = 30  # without their echo: after a pause they come all at once, and a supernode takes 40 so
SAY_AGAIN_AFTER = 5.0  # seconds without the echo: the supernode dropped it
RECENT_MAX = 200  # lines kept, so that a new supernode can repeat them to those who missed them
SHOWN_MAX = 4096  # lines remembered, not to be shown twice; many more than are ever repeated
CHATS_PER_SECOND, CHATS_BURST = 20.0, 40.0  # that a supernode relays for one member (THREATS: C03)
HOST_PER_SECOND, HOST_BURST = 60.0, 240.0  # of all members at one address, loopback aside: a class behind one NAT
PLACES_LEFT = 1 << 16  # in the order, at each change of supernode
SAYS_WAITING_MAX = 64  # lines of one member, put off until they have room; more are refused, with all that follow


# ---- a member


class ChatDesk:
    """Says waiting for their echo, what was shown, the last lines."""

    def __init__(self, now: float = 0.0) -> None:
        self._counter = 0
        self._says: Deque[Say] = collections.deque()  # not confirmed, in order
        # The last ones, each with the instant and the place in the order.
        self._confirmed: Deque[Tuple[float, int, Say]] = collections.deque(maxlen=SAYS_UNDERWAY_MAX)
        self._sent = 0  # how many of them are out at the present supernode
        self._sent_at = 0.0
        self._bucket = Bucket(SAYS_PER_SECOND, SAYS_BURST, now)
        # Line by line, not the last counter of each speaker: one forged high one would silence it for ever.
        self._shown: Latest[Tuple[bytes, int], None] = Latest(SHOWN_MAX)
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

        So does what the lost one confirmed from `since` on: it may have died before it had told all others. Not what
        so much was told after that the new one may not remember it: it would be told to all once more.
        """
        while self._confirmed:
            at, place, say = self._confirmed.pop()
            if at >= since and self.sequence - place < RECENT_MAX:
                self._says.appendleft(say)
        self._sent = 0

    def count_from(self, sequence: int, is_first: bool) -> None:
        """That is the last line of the network that this node has entered.

        One who comes from the other half of a parted network has counted further, but by other lines.
        """
        self.sequence = sequence if is_first else min(self.sequence, sequence)

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
                self._confirmed.append((now, chat.sequence, self._says.popleft()))
                self._sent = max(0, self._sent - 1)
        line = chat.node_id, chat.counter
        if line in self._shown:
            return False
        self._shown.put(line, None)
        self.recent.append(chat)
        return True


class Farewell:
    """Somebody waits until what was said here is confirmed, or until there is no hope for it."""

    def __init__(self, left: int, patience: float, at_most: float, now: float, then: Callable[[], None]) -> None:
        self.then = then
        self._left = left  # so many lines may be unconfirmed
        self._patience = patience
        self._deadline = now + patience
        self._ends_at = now + at_most

    def on_confirmed(self, unconfirmed: int, now: float) -> None:
        """A line came back, and so many did not yet."""
        is_over = unconfirmed <= self._left
        self._deadline = now if is_over else now + self._patience

    def due_at(self) -> float:
        return min(self._deadline, self._ends_at)


class Farewells:
    """All who wait so."""

    def __init__(self) -> None:
        self._waiting: List[Farewell] = []

    def add(self, farewell: Farewell) -> None:
        self._waiting.append(farewell)

    def on_confirmed(self, unconfirmed: int, now: float) -> None:
        """So many lines are still on their way."""
        for farewell in self._waiting:
            farewell.on_confirmed(unconfirmed, now)

    def on_timer(self, now: float) -> None:
        for farewell in [one for one in self._waiting if now >= one.due_at()]:
            self._waiting.remove(farewell)
            farewell.then()

    def next_deadline(self) -> float:
        return min((farewell.due_at() for farewell in self._waiting), default=math.inf)


# ---- the supernode


class Speaker:
    """One member, as far as its chat goes."""

    def __init__(self, entry: MemberEntry, told: int, now: float) -> None:
        self.node_id, self.name = entry.node_id, entry.name
        self.told = told  # the counter of its last line that all were told
        self.seen = 0  # the sequence of the last line that it saw
        self._waiting: Deque[Say] = collections.deque()
        self._refused: Optional[int] = None  # the counter of a line that must come again before any later one
        self._bucket = Bucket(CHATS_PER_SECOND, CHATS_BURST, now)
        self._of_host: Optional[Bucket] = None  # the room that it shares with all others of its host

    def begin_anew(self, name: str, of_host: Optional[Bucket]) -> None:
        """It comes by a new link: it says all again that it saw no echo of, from the first on."""
        self.name, self._of_host = name, of_host
        self._refused = None

    def saw(self, sequence: int) -> None:
        """It has all lines up to this place, or is to be told none of them."""
        self.seen = sequence

    def count(self, counter: int) -> None:
        """All were told this line: what its speaker says again, because it saw no echo, is not told to all again."""
        self.told = max(self.told, counter)

    def waits(self, say: Say) -> bool:
        """Is it said again, while it waits?"""
        return bool(self._waiting) and say.counter <= self._waiting[-1].counter

    def takes(self, say: Say) -> bool:
        """Take the line, to be told in its turn, if it is the next one as far as anybody can tell."""
        if self._refused is not None and say.counter > self._refused:
            return False
        if len(self._waiting) >= SAYS_WAITING_MAX:
            self.refuse(say.counter)
            return False
        if say.counter == self._refused:
            self._refused = None
        self._waiting.append(say)
        return True

    def refuse(self, counter: int) -> None:
        """This line was not taken: nothing that was said after it may be, until it was said again."""
        self._refused = counter if self._refused is None else min(self._refused, counter)

    def may_whisper(self, now: float) -> bool:
        """Is there room for a private line, which counts as any other but does not wait?"""
        return not self._waiting and self._take(now)

    def due(self, now: float) -> Optional[Say]:
        """The next line, if there is room for it."""
        return self._waiting.popleft() if self._waiting and self._take(now) else None

    def _take(self, now: float) -> bool:
        """Is there room for one line, of its own and of its host?"""
        has_room = self._bucket.has(now) and (self._of_host is None or self._of_host.take(now))
        return has_room and self._bucket.take(now)

    def next(self) -> Optional[Say]:
        """The next line, room or not."""
        return self._waiting.popleft() if self._waiting else None

    def has_waiting(self) -> bool:
        return bool(self._waiting)


class ChatOrder:
    """The supernode's desk: the one order of all lines, each member's turn, and the last lines for who missed them."""

    def __init__(
        self, recent: Sequence[Chat], tell: Callable[[Chat], None], wait: Callable[[float], None], counted: int = 0
    ) -> None:
        """`tell`: a line to all; `wait`: something is put off, `serve` is to be called soon.

        `counted`: the place of the last line that this node knows of, 0 in a network that begins.
        """
        self._recent: Deque[Chat] = collections.deque(counted_anew(recent), maxlen=RECENT_MAX)
        self.sequence = first_place(counted, self._recent)  # of the last line
        self.dropped = 0  # lines refused
        self._speakers: Dict[bytes, Speaker] = {}
        self._waiting: Dict[bytes, Speaker] = {}  # of whom a line waits; first who was told last longest ago
        self._hosts: Latest[str, Bucket] = Latest(MEMBERS_MAX)
        self._tell = tell
        self._wait = wait

    def enter(self, entry: MemberEntry, now: float) -> None:
        """A new line of the roster: its last words may have been told in an earlier term."""
        told = max((chat.counter for chat in self._recent if chat.node_id == entry.node_id), default=0)
        self._speakers[entry.node_id] = Speaker(entry, told, now)

    def come(self, entry: MemberEntry, seen: int) -> None:
        """It is here, by a new link; `seen`: the last line that it knows of our network, 0 if of none."""
        speaker = self._speakers[entry.node_id]
        speaker.begin_anew(entry.name, self._room_of(entry))
        speaker.saw(min(seen or self.sequence, self.sequence))  # in another half it may have counted further

    def _room_of(self, entry: MemberEntry) -> Optional[Bucket]:
        """What a host may say, as many members as it may have; of IPv6, a network of ten."""
        host = entry.place[0]
        if entry.place == NOWHERE or is_loopback(host):  # the own peer, and a lab on one machine
            return None
        network = network_of(host)
        hosts = 1 if network == host else NETWORK_SHARE
        bucket = self._hosts.get(network) or Bucket(HOST_PER_SECOND * hosts, HOST_BURST * hosts, 0.0)
        self._hosts.put(network, bucket)
        return bucket

    def leave(self, node_id: bytes) -> None:
        """What it said until now is told, for it cannot say it again."""
        self._waiting.pop(node_id, None)
        speaker = self._speakers[node_id]
        say = speaker.next()
        while say is not None:
            self._tell_all(speaker, say)
            say = speaker.next()
        del self._speakers[node_id]

    def has_spoken(self, node_id: bytes) -> bool:
        """Were all told something that this member said?"""
        return self._speakers[node_id].told > 0

    def skip(self, node_id: bytes) -> None:
        """It asks for the roster anew, not for what was said."""
        self._speakers[node_id].saw(self.sequence)

    def missed(self, node_id: bytes) -> Tuple[Chat, ...]:
        """The lines after the last one that this member saw; none for one who comes for the first time."""
        seen = self._speakers[node_id].seen
        return tuple(chat for chat in self._recent if chat.sequence > seen) if seen else ()

    def on_say(self, node_id: bytes, say: Say, now: float) -> Optional[Chat]:
        """Take a line, put it off, or refuse it; the echo, if it was told already, for the speaker alone."""
        speaker = self._speakers.get(node_id)
        if speaker is None:
            return None
        if say.counter <= speaker.told:  # said again because the echo was lost with a link
            return self._chat_of(speaker, say)
        if not speaker.waits(say):
            if say.text and speaker.takes(say):
                self._waiting.setdefault(node_id, speaker)
                self.serve(now)
            else:
                self.dropped += 1
        return None

    def may_whisper(self, node_id: bytes, now: float) -> bool:
        """Is there room for a private line of this member?"""
        speaker = self._speakers.get(node_id)
        return speaker is not None and speaker.may_whisper(now)

    def refuse(self, node_id: bytes, counter: int) -> None:
        """A line that found no room on its way here."""
        self._speakers[node_id].refuse(counter)

    def serve(self, now: float) -> None:
        """Tell all what there is room for by now, a line of each who waits in turn."""
        is_told = True
        while is_told:
            is_told = False
            for node_id, speaker in list(self._waiting.items()):
                say = speaker.due(now)
                if say is not None:
                    is_told = True
                    self._tell_all(speaker, say)
                    del self._waiting[node_id]
                    if speaker.has_waiting():
                        self._waiting[node_id] = speaker
        if self._waiting:
            self._wait(now)

    def _tell_all(self, speaker: Speaker, say: Say) -> None:
        self.sequence += 1
        chat = self._chat_of(speaker, say)
        self._recent.append(chat)
        speaker.count(chat.counter)
        self._tell(chat)

    def _chat_of(self, speaker: Speaker, say: Say) -> Chat:
        return Chat(self.sequence, speaker.node_id, speaker.name, say.counter, say.text)


def first_place(counted: int, recent: Iterable[Chat]) -> int:
    """Behind all places that the last supernode may have given to lines which this node knows nothing of.

    Who saw one of those would be told nothing that has its place in the new order.
    """
    known = max([counted if counted <= SEQUENCE_MAX // 2 else 0] + [chat.sequence for chat in recent])
    return known + PLACES_LEFT if known else 1


def counted_anew(recent: Sequence[Chat]) -> Tuple[Chat, ...]:
    """The lines in places of which there are enough behind them, for one who goes on counting from the last.

    A lying supernode may have used them up. Who saw them there is told none of them again.
    """
    if all(chat.sequence <= SEQUENCE_MAX // 2 for chat in recent):
        return tuple(recent)
    return tuple(chat._replace(sequence=place) for place, chat in enumerate(recent, 1))
