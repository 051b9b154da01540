"""The supernode's desk for who can be reached: it has members try each other from ports that nobody ever sent to.

A member asks for it when it comes, as those of older programs do not. Another one that is elsewhere is asked to try it;
where there is none, or where that one may not lead to the other (a private address), this node itself, from a fresh
port. Only who received what was sent can tell its nonce. What came of it is kept for each member and told to it. Pure.
"""

from __future__ import annotations

import functools
import random
from collections import OrderedDict
from typing import Dict, Iterable, List, NamedTuple, Optional, Tuple

from protocol import mishaps
from protocol.addresses import is_loopback, is_private
from protocol.latest import Latest
from protocol.membership.proofs import random_bytes
from protocol.messages import MEMBERS_MAX, Reach, Reached, ReachWanted, Tried, TryReach
from protocol.rates import Bucket
from protocol.ruling.line import Line
from protocol.ruling.register import Register

log = mishaps.logger("supernode")

ASKED_TIME = 3.0  # seconds until who was asked to try has said that it did
TRY_TIME = 3.0  # seconds, from then on, until what it sent has come in
TRIES_MAX = 2  # by different nodes, before a member counts as one that cannot be reached
TRIES_PER_SECOND, TRIES_BURST = 20.0, 20.0  # of all
KINDS_CACHED_MAX = 2 * MEMBERS_MAX  # addresses
MUTE_TIME = 60.0  # seconds in which nobody is asked again that did not say that it tried: it may be of an older program


@functools.lru_cache(KINDS_CACHED_MAX)
def _kind_of(ip: str) -> Tuple[bool, bool, bool]:
    """Of which sort of network it is; for each that is tried, all members are asked for it."""
    return is_private(ip), is_loopback(ip), ":" in ip


class _Trial(NamedTuple):
    """Somebody was asked to try a member."""

    node_id: bytes
    by: bytes
    until: float
    is_sent: bool = False


class Reaching:
    """Who waits to be tried, who is being tried, and what is known."""

    def __init__(self, register: Register, rng: random.Random, shut: Iterable[bytes], now: float) -> None:
        """`shut`: nobody could reach these, as was known before."""
        self.dropped = 0
        self._is_open: Latest[bytes, bool] = Latest(MEMBERS_MAX)  # of who was tried, whether still here or not
        for node_id in shut:
            self._is_open.put(node_id, False)
        self._register = register
        self._rng = rng
        self._tried: OrderedDict[bytes, List[bytes]] = OrderedDict()  # who waits or is tried -> who did so in vain
        self._trials: Dict[bytes, _Trial] = {}  # by nonce; at most one of each member
        self._mute: Latest[bytes, float] = Latest(MEMBERS_MAX)
        self._in_vain: Latest[bytes, bytes] = Latest(MEMBERS_MAX)  # node -> who tried it last, when it counted as shut
        self._paces = Bucket(TRIES_PER_SECOND, TRIES_BURST, now)

    # ---- what members say

    def on_wanted(self, line: Line, message: ReachWanted, now: float) -> None:
        """It wants to know whether others can reach it; it waits for its turn."""
        if self._register.may_ask(line, now):
            self._tried.setdefault(line.node_id, [])

    def on_tried(self, line: Line, message: Tried, now: float) -> None:
        """It has sent what it was asked to send; from now on the other one must have heard it soon."""
        trial = self._trials.get(message.nonce)
        if trial is None:
            return  # it was reached before this came
        if trial.by != line.node_id or trial.is_sent:
            self.dropped += 1
            return
        self._trials[message.nonce] = trial._replace(until=now + TRY_TIME, is_sent=True)

    def on_reached(self, line: Line, message: Reached, now: float) -> None:
        """A member tells a nonce that it can only have from who tried it."""
        trial = self._trials.get(message.nonce)
        if trial is None or trial.node_id != line.node_id:
            self.dropped += 1
            return
        del self._trials[message.nonce]
        self._conclude(line, trial.by, True, now)

    def forget(self, node_id: bytes) -> None:
        """The member is gone."""
        self._tried.pop(node_id, None)
        self._mute.pop(node_id, None)

    def is_open(self, node_id: bytes) -> bool:
        """Was it tried, the last time with success?"""
        return self._is_open.get(node_id) is True

    def is_shut(self, node_id: bytes) -> bool:
        """Was it tried, the last time in vain?"""
        return self._is_open.get(node_id) is False

    # ---- time

    def on_tick(self, now: float) -> None:
        """What was tried in vain, and who is tried next."""
        for nonce in [nonce for nonce, trial in self._trials.items() if now >= trial.until]:
            self._give_up(self._trials.pop(nonce), now)
        being_tried = {trial.node_id for trial in self._trials.values()}
        for node_id in [node_id for node_id in self._tried if node_id not in being_tried]:
            line = self._register.ready(node_id)
            if line is not None and not self._go_on(line, now):
                return

    def _give_up(self, trial: _Trial, now: float) -> None:
        if not trial.is_sent:
            self._mute.put(trial.by, now + MUTE_TIME)
        elif trial.node_id in self._tried:
            self._tried[trial.node_id].append(trial.by)

    def _go_on(self, line: Line, now: float) -> bool:
        """Have it tried once more, or conclude; False when no more may be tried at present."""
        tried = self._tried[line.node_id]
        by = self._next(line, tried, now)
        if by is None:
            if tried:
                self._in_vain.put(line.node_id, tried[0])
                self._conclude(line, tried[-1], False, now)
            return True  # else somebody may come who can try it
        if not self._paces.take(now):
            return False
        nonce = random_bytes(self._rng, 8)
        self._trials[nonce] = _Trial(line.node_id, by.node_id, now + ASKED_TIME)
        self._register.send(by, TryReach(nonce, line.node_id, line.entry.place))
        return True

    def _next(self, line: Line, tried: List[bytes], now: float) -> Optional[Line]:
        """Who tries it now: another member first, and this node where no member says enough."""
        if len(tried) >= TRIES_MAX:
            return None
        own, is_inside = self._register.own, not line.is_own and _kind_of(line.entry.place[0])[0]
        others = [] if tried and is_inside else [
            one for one in self._register.lines()
            if one.node_id not in tried and self._can_try(one, line) and self._mute.get(one.node_id, 0.0) <= now
        ]  # fmt: skip
        if others:  # a member asks again after some minutes: then not the same one, who may be a liar
            in_vain = self._in_vain.get(line.node_id)
            return self._rng.choice([one for one in others if one.node_id != in_vain] or others)
        is_own_turn = own is not None and own is not line and own.node_id not in tried and (is_inside or not tried)
        return own if is_own_turn else None

    def _can_try(self, one: Line, line: Line) -> bool:
        """Is it elsewhere, and on a network from which that member's address leads there as well?"""
        if one is line or one.is_own or one.link is None or not one.is_ready or one.is_guest:
            return False
        if line.is_own:
            return True
        host, other = line.entry.place[0], one.entry.place[0]
        return host != other and _kind_of(host) == _kind_of(other)

    def _conclude(self, line: Line, by: bytes, is_open: bool, now: float) -> None:
        log.info("node %s %s be reached, tried by %s", line.node_id.hex(), "can" if is_open else "cannot", by.hex())
        self._tried.pop(line.node_id, None)
        self._is_open.put(line.node_id, is_open)
        self._register.on_tried(line, is_open, now)
        self._register.send(line, Reach(is_open, by, line.entry.place))
