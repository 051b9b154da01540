"""What a member does that has no roles and no person, with what its Membership tells of them: nothing."""

from __future__ import annotations


class Quiet:
    """The part of `Owner` and `Audience` (protocol/membership/contracts.py) that is of no interest to a stand-in."""

    def on_member_joined(self, label: str, now: float) -> None:
        pass

    def on_other_key(self, name: str, now: float) -> None:
        pass

    def on_reached(self, node_id: bytes, now: float) -> None:
        pass

    def on_reach_known(self, now: float) -> None:
        pass

    def on_roster_changed(self, now: float) -> None:
        pass
