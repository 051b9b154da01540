"""How a node comes by the seat of a supernode: it founds a network, resumes its own, or takes one over.

What a supernode starts from is in the `Seat` (`contracts.py`); here it is made, of what this node knows of the network
by then. Who rules next is not decided here (`election.py`). Pure.
"""

from __future__ import annotations

from protocol.membership.contracts import Machine, Seat, Speaker
from protocol.membership.proofs import random_bytes
from protocol.membership.resuming import NO_RULED, Ruled
from protocol.membership.sweep import lans_of
from protocol.membership.view import TERM_JOINED_MAX, Means
from protocol.membership.voice import Voice
from protocol.messages import NOWHERE, MemberEntry


class Founder:
    """This node, as one who begins to rule."""

    def __init__(self, means: Means, machine: Machine, speaker: Speaker, opening: bytes, chat: Voice) -> None:
        self._means = means
        self._view = means.view
        self._machine = machine
        self._speaker = speaker
        self._opening = opening  # the secret that the node id opens
        self._chat = chat

    def found(self) -> None:
        """A new network, of this node alone."""
        network_id, secret = random_bytes(self._means.rng, 16), random_bytes(self._means.rng, 16)
        self._view.found(network_id, secret, self._own_entry())

    def resume(self, ruled: Ruled) -> bool:
        """The one that it ruled in an earlier run; False where there is none that can go on."""
        if ruled == NO_RULED or ruled.term > TERM_JOINED_MAX:
            return False
        self._view.found(ruled.network_id, ruled.secret, self._own_entry())
        return True

    def _own_entry(self) -> MemberEntry:
        return MemberEntry(self._view.node_id, self._speaker.name, NOWHERE, 0, self._speaker.mesh, True)

    def seat(self, term: int, resumed: Ruled, now: float) -> Seat:
        """Of this network, in that term; made while the supernode before is still the one that places are seen from."""
        mesh, port = self._speaker.mesh, self._speaker.search_port
        seat = self._view.seat(term, self._opening, mesh, self._chat.recent(), port, now)
        lans = tuple(lans_of(self._means.network.address[0], self._machine.own_addresses()))
        return seat._replace(
            shut=resumed.shut, is_resumed=resumed != NO_RULED, lans=lans, chat_counted=self._chat.sequence
        )
