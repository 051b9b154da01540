"""Life with a supernode: tell it that this node lives, hear that it does, and know those who would take over.

`Bond` is the phase of a member. It says Silent when the supernode has given no sign for too long; that may be heard by
the link, or, while it is in doubt, by an answer to a query. Who rules itself has nobody to beat to. In a large hall the
supernode wants no Ping at most beats: there a sign of the link's transport will do (`ruling/beats.py`). Pure.
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
PINGS_EACH_MAX = 10.0  # seconds, whatever the supernode says: well within LINK_STUCK_AFTER
SIGN_TIME = 0.5  # seconds after a question for a sign, until it is noted when that came: the link may be lost later
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
        self._heard_at = 0.0  # when the supernode last gave a sign, as far as it was noted
        self.round_trip: Optional[float] = None  # seconds, of the last Ping
        self._means = means
        self._speaker = speaker
        self.forget()

    def forget(self) -> None:
        """This node leaves the network: nothing is due."""
        self.next_beat = 0.0
        self._link_heard_at = 0.0  # when it last said something by the link
        self._pings_each = 0.0  # seconds, if it wants a Ping so seldom; else one at each beat
        self._next_ping = 0.0
        self._sign_by = math.inf  # when the sign should have come that was asked for
        self._wake_at = math.inf

    def begin(self, now: float) -> None:
        """There is a supernode, that this node has just joined."""
        self.on_heard_by_link(now)
        self.round_trip = None
        self._pings_each = self._next_ping = 0.0
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
        """Look at who rules: silent for too long, or to be asked for a sign."""
        self._heard_at = self.heard_at
        if now >= self._sign_by:
            self._sign_by = math.inf
        if now >= self._heard_at + SUSPECT_AFTER:
            return Silent()
        self.beat_if_due(now)
        self._wake_at = min(self.next_beat, self._heard_at + SUSPECT_AFTER, self._sign_by)
        return None

    def beat_if_due(self, now: float) -> None:
        """Every BEAT_INTERVAL: a Ping, or another question for a sign; what had no effect before is said again."""
        if now < self.next_beat:
            return
        link = self._means.view.supernode_link
        if now < self._next_ping and now < self.heard_at + SUSPECT_AFTER and link is not None:
            self._means.network.ask_sign(link)
            self._sign_by = now + SIGN_TIME
        else:
            self._ping(now)
        self.next_beat = now + BEAT_INTERVAL
        self._say_again()
        self._meet_heirs(now)

    def _ping(self, now: float) -> None:
        round_trip_us = int(1e6 * (self.round_trip or 0.0))
        self._speaker.send_to_supernode(messages.Ping(int(now * 1e6), self._means.view.term, round_trip_us))
        self._next_ping = now + self._pings_each

    # ---- signs of life

    @property
    def heard_at(self) -> float:
        """When the supernode last gave a sign: by its role, or by its link, while its role speaks now and then."""
        link = self._means.view.supernode_link
        if not self._pings_each or link is None:
            return self._heard_at
        by_link = min(self._means.network.heard_at(link), self._link_heard_at + self._pings_each)
        return max(self._heard_at, by_link)

    def on_ping_seldom(self, message: messages.PingSeldom, now: float) -> None:
        """It sees by the link that this node lives, and need hear no Ping at each beat. (Not all ping at once.)"""
        self._pings_each = min(message.interval_ms / 1000, PINGS_EACH_MAX)
        self._next_ping = now + self._means.rng.random() * self._pings_each

    def on_heard(self, now: float) -> None:
        """It has answered a query."""
        self._heard_at = now

    def on_heard_by_link(self, now: float) -> None:
        self._heard_at = self._link_heard_at = now

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
