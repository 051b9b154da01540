"""How a node asks to be taken in: its Join, and behind it its Claim to have been a member before.

The Join opens the node id by its secret, so that nobody else can take its place; the Claim shows the past of a node,
to the network alone that it was in (`claims.py`). Pure.
"""

from __future__ import annotations

from protocol import messages
from protocol.membership.claims import Claimant
from protocol.membership.contracts import Speaker
from protocol.membership.joining import Attempt
from protocol.membership.view import Means
from protocol.membership.voice import Voice
from protocol.messages import NO_NETWORK, encode_parts


class Applicant:
    """This node, as one who wants to be a member."""

    def __init__(self, means: Means, speaker: Speaker, opening: bytes, chat: Voice, claimant: Claimant) -> None:
        self._network = means.network
        self._view = means.view
        self._speaker = speaker
        self._opening = opening  # the secret that the node id opens
        self._chat = chat
        self._claimant = claimant

    def send_join(self, attempt: Attempt, told: bytes) -> None:
        """Ask the supernode at the other end of its link to take this node in; `told`: which network that rules."""
        come_from, seen = (self._view.network_id, self._view.term), self._chat.sequence
        if attempt.is_to_another:
            come_from, seen = (NO_NETWORK, 0), 0
        name, mesh = self._speaker.name, self._speaker.mesh
        join = messages.Join(*come_from, self._view.node_id, self._opening, name, mesh, seen)
        assert attempt.link is not None
        self._network.send(attempt.link, *encode_parts(join))
        self._network.send(attempt.link, *encode_parts(self._claim(attempt, told)))

    def _claim(self, attempt: Attempt, told: bytes) -> messages.Claim:
        """Behind the Join, and so heard before a label is given; a search may have been told which network it is."""
        if self._view.network_id != NO_NETWORK and not attempt.is_to_another:
            return self._claim_here()
        return self._claimant.claim(told, None)

    def _claim_here(self) -> messages.Claim:
        return self._claimant.claim(self._view.network_id, self._view.suffix())

    def enter(self) -> None:
        """It was taken in; a later run will want to show it."""
        self._claimant.enter(self._view.network_id)

    def speak_first(self, is_first: bool) -> None:
        """As a member: where it saw others lost, if this is not its first network, and once more who it was.

        It knows for sure by now which network this is, and how it is called there.
        """
        view, speaker = self._view, self._speaker
        if not is_first and view.lost_places and not view.is_ruler:  # it may heal what this node saw break
            latest = view.lost_places.latest(messages.LOST_TOLD_MAX)
            speaker.send_to_supernode(messages.Lost(tuple(latest)))
        speaker.send_to_supernode(self._claim_here())
