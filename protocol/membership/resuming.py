"""What one who rules keeps for a later run of its own: with it, it resumes its network where it comes back.

Others may rule parts of it by then, whom nobody elsewhere can reach (behind routers, after the only public node quit):
these are not gone to, but wait for it. Whoever else of the network answers is joined, as by any other node. Pure.
"""

from __future__ import annotations

from typing import Annotated, NamedTuple, Tuple

from protocol.fields import Buffer, Fixed, Many
from protocol.membership.proofs import is_proven
from protocol.membership.roster import TERM_STEP_MAX
from protocol.messages import NO_NETWORK, NODE_ID_SIZE, Answer, NetworkId, Secret, Term, record_of

SHUT_KEPT = 64  # members: the first of those who would take over


class Ruled(NamedTuple):
    """The network that this node ruled when it last ran, and who in it could not be reached by others."""

    network_id: NetworkId
    secret: Secret
    term: Term
    shut: Annotated[Tuple[bytes, ...], Many(Fixed(NODE_ID_SIZE), SHUT_KEPT)]


NO_RULED = Ruled(NO_NETWORK, bytes(16), 0, ())
_RULED = record_of(Ruled)


def encode_ruled(ruled: Ruled) -> bytes:
    """Nothing at all of one who did not rule."""
    return b"" if ruled == NO_RULED else _RULED.encode(ruled)


def decode_ruled(data: Buffer) -> Ruled:
    """NO_RULED when these bytes are none."""
    ruled: Ruled = _RULED.decode_whole(data, NO_RULED)
    return ruled


class Resuming:
    """A search of one that ruled: which answers come from parts that wait for it, and in which term it goes on."""

    def __init__(self, ruled: Ruled) -> None:
        self.ruled = ruled
        self._term = ruled.term

    @property
    def next_term(self) -> int:
        """One more than any that was heard."""
        return self._term + 1

    def is_waiting(self, answer: Answer) -> bool:
        """Does it rule, or obey one who does, whom others cannot reach?"""
        ruled = self.ruled
        if ruled == NO_RULED or answer.network_id != ruled.network_id:
            return False
        is_shut = answer.node_id in ruled.shut or answer.supernode_id in ruled.shut
        is_waiting = is_shut and answer.term <= ruled.term + TERM_STEP_MAX and is_proven(answer, ruled.secret)
        if is_waiting:
            self._term = max(self._term, answer.term)
        return is_waiting
