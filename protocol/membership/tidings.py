"""What the person at a node hears of its network: how it began, who came and left, who rules, what is said.

`Membership` tells it (it is the `Audience` there), as do those who bring private lines or go to another network. Of
being out of reach a person hears once, as long as the cause is the same. Pure.
"""

from __future__ import annotations

from typing import Any, Callable, Optional, Set

from protocol.fields import Address
from protocol.membership.members import Members
from protocol.results import (
    ChatReceived,
    Joined,
    KeyWanted,
    Left,
    NatKind,
    Notice,
    OtherKey,
    Outcome,
    SupernodeChanged,
    Unreachable,
    Unsaid,
    Whispered,
)


class Tidings:
    """Makes results (protocol/results.py) of it, in the words of the roster as it is then."""

    def __init__(self, notify: Callable[[Any], None], members: Callable[[], Members]) -> None:
        """`members`: who is here by then; not known yet where this is made."""
        self._notify = notify
        self._members = members
        self._told_unreachable: Set[NatKind] = set()

    # ---- what Membership tells

    def on_outcome(self, kind: str, address: Optional[Address], text: str, now: float) -> None:
        """How a search ended: "supernode", "joined", "nobody" or "refused" (`text` says why)."""
        members = self._members()
        supernode_id = members.supernode_id
        label = members.label_of(supernode_id) if supernode_id is not None else ""
        self._notify(Outcome(kind, address, label, members.member_count(), text))

    def on_supernode_changed(
        self, old_label: str, new_label: str, is_me: bool, silent_seconds: Optional[float], now: float
    ) -> None:
        """Another one rules; `silent_seconds`: of the one before, None if that one had said so."""
        members = self._members()
        how = members.is_merging, members.is_staying
        self._notify(SupernodeChanged(old_label, new_label, is_me, silent_seconds, *how))

    def on_member_joined(self, label: str, now: float) -> None:
        """Somebody came."""
        self._notify(Joined(label, self._members().member_count()))

    def on_member_left(self, label: str, silent_seconds: Optional[float], now: float) -> None:
        """Somebody left, or gave no sign for so many seconds."""
        self._notify(Left(label, self._members().member_count(), silent_seconds))

    def on_other_key(self, name: str, now: float) -> None:
        """Somebody of this name has another lasting key than who was called so before."""
        self._notify(OtherKey(name))

    def on_key_wanted(self, address: Address) -> None:
        """The network there has a key, and this node asked without one."""
        self._notify(KeyWanted(address))

    def on_reach_known(self, now: float) -> None:
        """Others can reach this node, or not: then its person hears it once, if there is something that may be done."""
        members = self._members()
        reach, ruler = members.reach, members.label_of(members.supernode_id or b"")
        is_symmetric = reach.nat is NatKind.SYMMETRIC and not members.is_supernode
        is_walled = reach.is_open is False and reach.nat in (NatKind.NONE, NatKind.UNKNOWN)
        if reach.is_open:
            self._told_unreachable.clear()
        elif (is_walled or is_symmetric) and members.may_rule and reach.nat not in self._told_unreachable:
            self._told_unreachable.add(reach.nat)
            self._notify(Unreachable(reach.by, ruler, members.is_supernode, members.port, reach.nat))

    def on_chat(self, label: str, text: str, is_me: bool, now: float) -> None:
        """A line of chat, its own ones among them."""
        self._notify(ChatReceived(label, text, is_me))

    def on_unsaid(self, count: int) -> None:
        """So many lines that were said will reach nobody."""
        self._notify(Unsaid(count))

    def on_notice(self, text: str) -> None:
        """A sentence about what this node does of its own accord."""
        self._notify(Notice(text))

    # ---- what others tell

    def on_whisper(self, label: str, text: str) -> None:
        """A private line of another member."""
        self._notify(Whispered(label, text, False))

    def stays(self, kind: str, address: Address, text: str) -> None:
        """This node does not go to the network there ("nobody" is there, or it is "refused"), and stays where it is."""
        self._notify(Outcome(kind, address, "", self._members().member_count(), text))
