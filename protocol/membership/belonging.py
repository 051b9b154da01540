"""Life with a supernode: tell it that this node lives, hear that it does, and know those who would take over.

`Bond` is the phase of a member. It says Silent when the supernode has given no sign for too long; that may be heard by
the link, or, while it is in doubt, by an answer to a query. Who rules itself has nobody to beat to. Pure.
"""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple, Optional

from protocol import messages
from protocol.hearsay import KEPT
from protocol.membership.contracts import Speaker
from protocol.membership.local_link import LOCAL_LINK
from protocol.membership.queries import Purpose
from protocol.membership.view import Means
from protocol.messages import encode_parts

BEAT_INTERVAL = 2.0
SUSPECT_AFTER = 4.0  # seconds of silence
LINK_STUCK_AFTER = 15.0  # the supernode answers probes, but its link is silent: open a new one
ROUND_TRIP_MAX = 60.0  # seconds; a longer one was not measured
HEIRS_MET = 16  # of those who take over first: they are asked in peace, so that each is known when it matters
MET_AT_ONCE = 4  # at each beat
MEET_AGAIN = 300.0  # seconds; well before an answer is too old (PROVEN_TIME)
MEET_APART = 5.0  # seconds until one that did not answer is asked again


class Silent(NamedTuple):
    """The supernode has given no sign for too long."""


class Bond:
    """What holds this node and its supernode together."""

    def __init__(self, means: Means, speaker: Speaker) -> None:
        self.heard_at = 0.0  # when the supernode last gave a sign
        self.round_trip: Optional[float] = None  # seconds, of the last Ping
        self._means = means
        self._speaker = speaker
        self.forget()

    def forget(self) -> None:
        """This node leaves the network: nothing is due."""
        self.next_beat = 0.0
        self._link_heard_at = 0.0
        self._wake_at = math.inf

    def begin(self, now: float) -> None:
        """There is a supernode, that this node has just joined."""
        self.on_heard_by_link(now)
        self.round_trip = None
        self.next_beat = now + self._means.rng.random() * BEAT_INTERVAL
        self._wake_at = self.next_beat
        self._say_again()
        self._meet_heirs(now)

    def go_on(self, at: float, now: float) -> None:
        """It was in doubt, and lives: look again at that instant, or a beat from now."""
        self._wake_at = min(at, now + BEAT_INTERVAL)

    def say_goodbye(self) -> None:
        """This node leaves the network; its own supernode is told nothing, it has handed over before."""
        link = self._means.view.supernode_link
        if link is not None and link != LOCAL_LINK:
            self._means.network.send(link, *encode_parts(messages.Leave()))
            self._means.network.disconnect(link, "leaving")

    def cut(self, reason: str) -> None:
        """There is no link to the supernode any more."""
        link = self._means.view.lose_link()
        if link is not None and link != LOCAL_LINK:
            self._means.network.disconnect(link, reason)

    def next_deadline(self) -> float:
        return self._wake_at

    def on_timer(self, now: float) -> Optional[Silent]:
        if now >= self.heard_at + SUSPECT_AFTER:
            return Silent()
        self.beat_if_due(now)
        self._wake_at = min(self.next_beat, self.heard_at + SUSPECT_AFTER)
        return None

    def beat_if_due(self, now: float) -> None:
        """Every BEAT_INTERVAL: a Ping, and what had no effect before is said again."""
        if now < self.next_beat:
            return
        round_trip_us = int(1e6 * (self.round_trip or 0.0))
        self._speaker.send_to_supernode(messages.Ping(int(now * 1e6), self._means.view.term, round_trip_us))
        self.next_beat = now + BEAT_INTERVAL
        self._say_again()
        self._meet_heirs(now)

    # ---- signs of life

    def on_heard(self, now: float) -> None:
        """It has answered a query."""
        self.heard_at = now

    def on_heard_by_link(self, now: float) -> None:
        self.heard_at = self._link_heard_at = now

    def is_stuck(self, now: float) -> bool:
        """Is there no link, or one that says nothing though the supernode lives?"""
        return self._means.view.supernode_link is None or now - self._link_heard_at > LINK_STUCK_AFTER

    def on_pong(self, pong: messages.Pong, now: float) -> None:
        """It tells how long the way there and back takes; a time that cannot be is ignored."""
        round_trip = now - pong.stamp / 1e6
        if 0.0 <= round_trip <= ROUND_TRIP_MAX:
            self.round_trip = round_trip

    # ---- at each beat

    def _say_again(self) -> None:
        """What did not get there, because there was no supernode just then or it had too much to do."""
        view, speaker = self._means.view, self._speaker
        mine = view.roster.get(view.node_id)
        if mine is not None and mine.mesh != speaker.mesh:
            speaker.send_to_supernode(messages.SetMesh(speaker.mesh))
        if view.wants_roster:
            speaker.send_to_supernode(messages.RosterRequest(view.roster.version))

    def _meet_heirs(self, now: float) -> None:
        """Know by an answer of their own those who take over first. (Who rules knows all, by their links.)

        Not those who are away: what they might be asked in vain is missing when one of them rules elsewhere and is met.
        """
        view, prober = self._means.view, self._means.prober
        if view.is_ruler:
            return
        left = MET_AT_ONCE
        here = (entry for entry in view.roster if entry.present and entry.node_id != view.supernode_id)
        for entry in itertools.islice(here, HEIRS_MET):
            place = view.place_of(entry.node_id) if entry.node_id != view.node_id else None
            if left and place is not None and not prober.hearsay.has_answered(place, MEET_AGAIN, now):
                left -= prober.ask(place, Purpose.MEET, now, MEET_APART, MEET_APART, KEPT)
