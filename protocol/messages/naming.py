"""What members are called, what shows that one is who it was, and whose certificate is whose."""

from __future__ import annotations

from typing import Annotated, NamedTuple, Tuple

from protocol.fields import Many, Text
from protocol.messages.words import MEMBERS_PER_PAGE, Bool, Digest, Milliseconds, Name, NodeId, Secret, record_of

SUFFIX_BYTES_MAX = 32  # what is behind a name: `~` and the digits of an id, or `@` and an address
OPENINGS_MAX = 8  # earlier runs of a node that a Claim shows
Suffix = Annotated[str, Text(SUFFIX_BYTES_MAX)]


class Bearer(NamedTuple):
    """What a member is called: its name in the roster, and this behind it (membership/labels.py)."""

    node_id: NodeId
    suffix: Suffix
    claim: Secret  # the digest of what it shows when it comes back as another node (membership/claims.py)


class Identity(NamedTuple):
    """Whose certificate has which fingerprint, in a network with a key."""

    node_id: NodeId
    name: Name  # said by who rules; a member leaves it out
    fingerprint: Digest
    is_lasting: Bool  # it outlives the run


class FormerBearer(NamedTuple):
    """What somebody was called who is no longer here: nobody else is, for an hour."""

    node_id: NodeId
    name: Name
    suffix: Suffix
    claim: Secret
    gone_ms: Milliseconds  # for how long


class Opening(NamedTuple):
    """What only the node can show that was this one, in an earlier run."""

    node_id: NodeId
    opening: Secret


Bearers = Annotated[Tuple[Bearer, ...], Many(record_of(Bearer), MEMBERS_PER_PAGE)]
FormerBearers = Annotated[Tuple[FormerBearer, ...], Many(record_of(FormerBearer), MEMBERS_PER_PAGE)]
Identities = Annotated[Tuple[Identity, ...], Many(record_of(Identity), MEMBERS_PER_PAGE)]
Openings = Annotated[Tuple[Opening, ...], Many(record_of(Opening), OPENINGS_MAX)]


class Called(NamedTuple):
    """The supernode to its members, before the roster that names them: what they are called."""

    bearers: Bearers


class WasCalled(NamedTuple):
    """The supernode to its members: what those were called who left, for whoever rules next."""

    bearers: FormerBearers


class Claim(NamedTuple):
    """A member, behind its Join: what it was called, here or in an earlier run, and what it will show next time."""

    claim: Secret  # NO_CLAIM: it will show nothing
    is_called: Bool  # it has been in this network, and was called by its name and the suffix
    suffix: Suffix
    openings: Openings


class Fingerprints(NamedTuple):
    """A member to its supernode: its own alone. The supernode to its members: those of others."""

    identities: Identities
