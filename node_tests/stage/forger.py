"""A member that is dialled for what it offers, and gives what is not true."""

from __future__ import annotations

from node_tests.stage.lab import PORT
from protocol import messages
from protocol.membership.proofs import node_id_of
from protocol.messages import encode


class Stranger:
    """Speaks the messages of the network, but keeps none of its rules; a member as soon as it asks for pieces."""

    def __init__(self, lab, number=66):
        self.lab, self.world = lab, lab.world
        self.opening = bytes([number]) * 16
        self.node_id = node_id_of(self.opening)
        self.network = lab.world.network(("10.0.0.%d" % number, PORT))
        self.heard, self.lost, self.is_up = [], [], False
        lab.world.attach(self.network, self)

    def next_deadline(self):
        return float("inf")

    def on_link_up(self, link, address, incoming, now):
        self.is_up = True

    def on_link_lost(self, link, reason, now):
        self.lost.append(reason)

    def on_message(self, link, data, now):
        self.heard.append(messages.decode(data))

    def on_lone(self, address, data, now):
        pass

    def connect(self, node):
        self.is_up = False
        link = self.network.connect((node.ip, PORT))
        assert self.world.run_until(lambda: self.is_up, self.world.now + 1)
        return link

    def join(self):
        supernode = next(node for node in self.lab.nodes if node.peer.is_supernode)
        self.say(self.connect(supernode), messages.Join(bytes(16), 0, self.node_id, self.opening, "x", True, 0))
        self.lab.run(0.5)
        self.heard.clear()

    def link_to(self, node):
        """A link for pieces to this node, as a member opens it."""
        self.join()
        link = self.connect(node)
        self.say(link, messages.LinkHello(messages.PURPOSE_BULK, node.peer.network_id, self.node_id))
        return link

    def say(self, link, message):
        self.network.send(link, message if isinstance(message, bytes) else encode(message))

    def refusals(self):
        return [message for message in self.heard if isinstance(message, messages.PieceRefused)]
