"""Does the other end of a connection have another address? How that is found out, and cannot be forged (RFC 9000 §9).

A connection is known by its id, so it may move: after a new lease, from cable to wifi, when a router forgot a port.
When something new of it comes from another address, that address and the old one are both asked: each gets a
*challenge*, random bytes, up to CHALLENGES times. Its answer is a code over them with what the other end told in the
handshake.

    new address answers, old one does not within ROUND of these times    the connection goes on at the new one
    old address answers                                                  it stays; the new one was a copier's
    new address does not answer                                          it stays; that address rests for REST

So whoever only copies datagrams, or passes on what comes to him, changes nothing: who was copied answers from where he
is. No more than AMPLIFICATION times the bytes that came from an address go there before it has answered (§8.1), and
nothing that came from there is taken in. A remote of an older version does not know challenges and answers none: it
stays where it is. Pure: a value with `now`.
"""

from __future__ import annotations

import hmac
import math
import random
from typing import Dict, Optional

from protocol.fields import Address
from protocol.latest import Latest
from protocol.transport.packets import PATH_SIZE, PATH_TOKEN_SIZE, PathPacket, encode_path_challenge

CHALLENGES = 3  # to each address of a round
ROUND = 3  # pauses from the first challenge until it is settled who is where, and
SPARE = 2  # more for an answer of the new address alone
PAUSE_LEAST, PAUSE_MOST = 0.1, 0.5  # seconds between two challenges: a probe timeout of the old path, within these
LATE = 0.05  # seconds: who looks so much later did not run meanwhile
AMPLIFICATION = 3  # RFC 9000 §8.1
CANDIDATES_MAX = 4  # addresses of one connection that are looked at together
REST = 3.0  # seconds in which an address that was not moved to is not looked at again
OWN_CHANGE_TIME = 5.0  # seconds between a change of own addresses and a challenge that shows it: the path is another
RESTING_MAX = 16  # of one connection, beyond which none is looked at


def path_proof(reset_token: bytes, challenge: bytes) -> bytes:
    """What an end of a connection answers; `reset_token` is the one that this end told in the handshake."""
    return hmac.digest(reset_token, b"path" + challenge, "sha256")[:PATH_TOKEN_SIZE]


class _Candidate:
    """An address from which something new came."""

    __slots__ = ("answer", "challenge", "count", "is_proven", "received", "say_at", "sent", "since")

    def __init__(self, challenge: bytes, answer: bytes, now: float) -> None:
        self.challenge, self.answer = challenge, answer
        self.since = self.say_at = now
        self.count = 0  # challenges sent
        self.received = self.sent = 0  # bytes
        self.is_proven = False

    def has_room(self) -> bool:
        """Did enough come from there for one challenge more?"""
        return self.sent + PATH_SIZE <= AMPLIFICATION * self.received

    def ask_anew(self, now: float) -> None:
        """Another round begins: it is asked as often as before, from now on."""
        self.count, self.say_at = 0, now

    def ask(self, pause: float, now: float) -> bytes:
        """The challenge, which is sent now, and again after a pause until all were sent."""
        self.count += 1
        self.sent += PATH_SIZE
        self.say_at = now + pause if self.count < CHALLENGES else math.inf
        return self.challenge

    def settled_at(self, pause: float) -> float:
        """When it is settled whether the connection goes on there."""
        return self.since + (ROUND if self.is_proven else ROUND + SPARE) * pause

    def wait(self, pause: float, now: float) -> None:
        """Nobody looked for a while, so answers may lie unread: it is settled a pause from now."""
        self.since += now + pause - self.settled_at(pause)

    def hear(self, size: int) -> None:
        """So many bytes came from there."""
        self.received += size

    def prove(self, answer: bytes) -> None:
        """An answer came from there; the right one proves that the other end is there."""
        self.is_proven = self.is_proven or hmac.compare_digest(answer, self.answer)


class Paths:
    """The addresses at which the other end of one connection may be now: mostly none."""

    __slots__ = (
        "_candidates", "_challenged_at", "_is_new", "_old", "_own_changed_at", "_pause", "_remote_id",
        "_remote_token", "_resting", "_rng",
    )  # fmt: skip

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._remote_id = self._remote_token = b""
        self._candidates: Dict[Address, _Candidate] = {}
        self._resting: Latest[Address, float] = Latest(RESTING_MAX)
        self._old: Optional[_Candidate] = None  # the present address, asked in this round
        self._pause = PAUSE_LEAST
        self._own_changed_at = self._challenged_at = -math.inf
        self._is_new = False

    def meet(self, remote_id: bytes, remote_token: bytes) -> None:
        """Now the other end is known: by which id, and what it told in the handshake for its answers."""
        self._remote_id, self._remote_token = remote_id, remote_token

    def is_resting(self, address: Address, now: float) -> bool:
        """Was it looked at just before, in vain?"""
        return now < self._resting.get(address, -math.inf)

    def may_begin(self, address: Address, now: float) -> bool:
        """Would something new from there begin a look at it?"""
        if address in self._candidates or self.is_resting(address, now) or len(self._candidates) >= CANDIDATES_MAX:
            return False
        # Who names ever other addresses has had his share of them for a while.
        return len(self._resting) < RESTING_MAX or now >= min(self._resting.values())

    def begin(self, address: Address, probe_timeout: float, now: float) -> None:
        """Something new came from there: ask that address, and the present one."""
        if not self._candidates:
            self._pause = min(max(probe_timeout, PAUSE_LEAST), PAUSE_MOST)
        if self._old is None:
            self._old = self._new(now)
        self._old.ask_anew(now)
        self._candidates[address] = self._new(now)

    def _new(self, now: float) -> _Candidate:
        challenge = self._rng.getrandbits(8 * PATH_TOKEN_SIZE).to_bytes(PATH_TOKEN_SIZE, "big")
        return _Candidate(challenge, path_proof(self._remote_token, challenge), now)

    def on_bytes(self, address: Address, size: int) -> None:
        """So much came from there."""
        candidate = self._candidates.get(address)
        if candidate is not None:
            candidate.hear(size)

    def on_answer(self, address: Address, answer: bytes, here: Address, now: float) -> None:
        """An answer to a challenge came; `here` is where the connection is at present."""
        if address == here:
            asked = [*self._candidates.values(), *([self._old] if self._old is not None else [])]
            # To whichever challenge: one that another has passed on shows as well who is still there.
            if any(hmac.compare_digest(answer, each.answer) for each in asked):
                self._settle(now)
            return
        candidate = self._candidates.get(address)
        if candidate is not None:
            candidate.prove(answer)

    def _settle(self, now: float) -> None:
        """The other end is where it was."""
        for address in self._candidates:
            self._resting.put(address, now + REST)
        self.forget()

    def forget(self) -> None:
        """Look at none any more."""
        self._candidates.clear()
        self._old = None

    # ---- this end moves

    def on_own_address_changed(self, now: float) -> None:
        """This machine has other addresses; whether that is so on this path, the other end will show."""
        self._own_changed_at = now
        self._compare()

    def on_challenged(self, now: float) -> None:
        """The other end asks where this one is: from there, then, something came that it did not know."""
        self._challenged_at = now
        self._compare()

    def _compare(self) -> None:
        """Did both happen? Either may be seen first."""
        if abs(self._challenged_at - self._own_changed_at) < OWN_CHANGE_TIME:
            self._own_changed_at, self._is_new = -math.inf, True

    def take_new(self) -> bool:
        """The other end acknowledges something: is that the first time by another network? (RFC 9000 §9.4)

        Where only a router's port changed, this machine has the addresses that it had.
        """
        is_new, self._is_new = self._is_new, False
        return is_new

    # ---- time

    def next_deadline(self) -> float:
        """When `to_ask` or `found` has something to say, if nothing comes meanwhile."""
        if not self._candidates or self._old is None:
            return math.inf
        at = self._old.say_at
        for each in self._candidates.values():
            at = min(at, each.settled_at(self._pause), each.say_at if each.has_room() else math.inf)
        return at

    def to_ask(self, here: Address, now: float) -> Optional[Address]:
        """To whom a challenge is to be sent now; `here` is where the connection is at present."""
        if self._old is None:
            return None
        for address, each in self._candidates.items():
            if now >= each.say_at and each.has_room():
                return address
        return here if now >= self._old.say_at else None

    def ask(self, address: Address, now: float) -> bytearray:
        """The challenge, which is sent to that address now."""
        asked = self._candidates.get(address, self._old)
        assert asked is not None
        return encode_path_challenge(PathPacket(self._remote_id, asked.ask(self._pause, now)))

    def found(self, now: float) -> Optional[Address]:
        """The address at which the connection goes on, once that is settled."""
        if self._old is None:
            return None
        for each in self._candidates.values():
            if now > each.settled_at(self._pause) + LATE:
                each.wait(self._pause, now)
        due = [address for address, each in self._candidates.items() if now >= each.settled_at(self._pause)]
        proven = [address for address in due if self._candidates[address].is_proven]
        for address in due:
            del self._candidates[address]
            if address not in proven:
                self._resting.put(address, now + REST)
        if proven:
            self.forget()
            return proven[-1]
        if not self._candidates:
            self._old = None
        return None
