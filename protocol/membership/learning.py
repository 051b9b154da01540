"""What a supernode tells its members of the network: who is in it, what they are called, who was lost, who would rule.

The roster is kept equal by numbered updates; when one is missed, all of it is asked for again. Pure.
"""

from __future__ import annotations

from typing import Union

from protocol import messages
from protocol.membership.contracts import Audience, Speaker
from protocol.membership.identities import Identities
from protocol.membership.roster import PageError
from protocol.membership.story import Story
from protocol.membership.view import View


class Learner:
    """This node, as a member that is told what its supernode knows."""

    def __init__(
        self, view: View, story: Story, speaker: Speaker, identities: Identities, audience: Audience
    ) -> None:
        self._view = view
        self._story = story
        self._speaker = speaker
        self._identities = identities
        self._audience = audience

    def on_roster_page(self, page: messages.RosterPage, now: float) -> None:
        """A roster sent anew, because a version was missed."""
        try:
            changes = self._view.take_page(page)
        except PageError:
            self._view.drop()
            return
        if changes is not None:
            self._story.on_changes(changes, now)

    def on_roster_update(self, update: messages.RosterUpdate, now: float) -> None:
        """Lines of the roster that changed; behind one that was missed, all are asked for."""
        if not self._view.is_news(update):
            self._view.drop()
            return
        changes = self._view.take_update(update)
        if changes is None:
            self._speaker.send_to_supernode(messages.RosterRequest(self._view.roster.version))
        else:
            self._story.on_changes(changes, now)

    def on_lost(self, lost: messages.Lost, now: float) -> None:
        """Where members were of whom it heard no more."""
        self._view.hear_of_lost(lost.places)

    def on_heirs(self, heirs: messages.Heirs, now: float) -> None:
        """By what those are known who may come to rule elsewhere."""
        for heirloom in heirs.heirlooms:
            self._view.heirlooms.add(heirloom)

    def on_names(self, message: Union[messages.Called, messages.WasCalled], now: float) -> None:
        """What members are called, or were."""
        self._view.hear_names(message, now)

    def on_fingerprints(self, message: messages.Fingerprints, now: float) -> None:
        """Which certificates members have."""
        here = (entry.node_id for entry in self._view.roster)
        for name in self._identities.hear(message.identities, here):
            self._audience.on_other_key(name, now)

    def on_stays(self, stays: messages.Stays, now: float) -> None:
        """It will name another one, and be a member under that one."""
        self._story.on_stays()

    def on_ping(self, ping: messages.Ping, now: float) -> None:
        """It asks for a sign of life."""
        self._speaker.send_to_supernode(messages.Pong(ping.stamp, self._view.term))
