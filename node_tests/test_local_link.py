"""The link between a peer and the supernode of the same node: no role is ever called from inside the other."""

from __future__ import annotations

import pytest

from protocol.membership.local_link import LOCAL_LINK, LocalLink
from protocol.messages import NO_NETWORK, Join, Leave, Ping, Pong, encode, encode_parts


class Network:
    address = ("10.0.0.1", 6020)

    def __init__(self):
        self.sent, self.closed = [], []

    def send(self, link, *parts, is_bulk=False):
        self.sent.append((link, b"".join(parts)))

    def disconnect(self, link, reason):
        self.closed.append(link)


class Ends:
    """Both roles: each notes what it hears, and answers the first time."""

    def __init__(self):
        self.network, self.heard = Network(), []
        self.inside = 0
        self.link = LocalLink(self.network, self._peer_hears)

    def _hear(self, who, message, side, answer):
        assert not self.inside, "called from inside a role"
        self.inside += 1
        self.heard.append((who, type(message)))
        if answer is not None and len(self.heard) < 6:
            side.send(LOCAL_LINK, *encode_parts(answer))
            self.link.carry(1.0)  # as one who ends a turn inside it
        self.inside -= 1

    def _peer_hears(self, link, message, now):
        assert link == LOCAL_LINK
        self._hear("peer", message, self.link.peer_side, Pong(1, 1))

    def on_message(self, link, message, now):
        self._hear("supernode", message, self.link.supernode_side, Ping(1, 1, 0))

    def on_hello(self, link, address, message, now):
        assert link == LOCAL_LINK and address == self.network.address
        self.on_message(link, message, now)


@pytest.fixture
def ends():
    ends = Ends()
    ends.link.open(ends)
    return ends


def test_what_is_said_waits_for_the_end_of_the_turn_and_is_carried_until_both_are_silent(ends):
    ends.link.peer_side.send(LOCAL_LINK, *encode_parts(Join(NO_NETWORK, 0, b"n" * 8, b"o" * 16, "ana", True, 0)))
    assert not ends.heard
    ends.link.carry(0.0)
    assert ends.heard == [("supernode", Join), *[("peer", Ping), ("supernode", Pong)] * 2, ("peer", Ping)]


def test_a_link_that_is_cut_carries_nothing_more_and_leads_nowhere(ends):
    ends.link.peer_side.send(LOCAL_LINK, encode(Leave()))
    ends.link.supernode_side.send(LOCAL_LINK, encode(Leave()))
    ends.link.cut()
    ends.link.carry(0.0)
    ends.link.peer_side.send(LOCAL_LINK, encode(Leave()))
    ends.link.carry(0.0)
    assert not ends.heard and ends.link.supernode is None


def test_other_links_are_the_networks_and_this_one_cannot_be_closed(ends):
    ends.link.peer_side.send(7, b"a", b"b")
    ends.link.peer_side.disconnect(7, "")
    ends.link.supernode_side.disconnect(LOCAL_LINK, "")
    assert ends.network.sent == [(7, b"ab")] and ends.network.closed == [7]
