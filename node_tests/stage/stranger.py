"""Somebody outside of a lab of members, and what all in it agree on."""

from __future__ import annotations

from typing import Any, List, Tuple

from node_tests.stage.simulator import World
from node_tests.stage.stub_node import PORT, Lab
from protocol import messages
from protocol.membership.membership import State
from protocol.membership.proofs import node_id_of
from protocol.messages import decode, encode, encode_parts


class Stranger:
    """A socket in hostile hands: it sends what it likes and answers as it likes."""

    def __init__(self, world: World, ip: str, port: int = PORT) -> None:
        self.network = world.network((ip, port))
        self.world = world
        self.queries: List[Tuple[Any, Any]] = []
        self.messages: List[Any] = []
        self.lost: List[int] = []
        self.up: List[int] = []
        self.answer: Any = None
        self.lie: Any = None
        world.attach(self.network, self)

    def on_lone(self, address: Any, data: bytes, now: float) -> None:
        message = decode(data)
        if type(message) is messages.Query:
            self.queries.append((address, message))
            if self.answer is not None:
                self.network.send_lone(address, encode(self.answer(message)))

    def on_message(self, link: int, data: bytes, now: float) -> None:
        self.messages.append(decode(data))

    def on_link_up(self, link: int, address: Any, incoming: bool, now: float) -> None:
        self.up.append(link)

    def on_link_lost(self, link: int, reason: str, now: float) -> None:
        self.lost.append(link)

    def on_timer(self, now: float) -> None:
        pass

    def next_deadline(self) -> float:
        return float("inf")

    def join(self, target: Any, **fields: Any) -> int:
        link = self.network.connect(target)
        opening = bytes(15) + b"X"
        join = messages.Join(messages.NO_NETWORK, 0, node_id_of(opening), opening, "x", True, 0)._replace(**fields)
        self.world.after(0.1, lambda: self.send(link, join))
        return link

    def send(self, link: int, message: Any) -> None:
        self.network.send(link, *encode_parts(message))

    def last(self, kind: Any) -> Any:
        return [message for message in self.messages if type(message) is kind][-1]


def obeyed_by_all(lab: Lab) -> Any:
    """The one supernode that all living nodes are joined to, or None."""
    members = [node.membership for node in lab.living()]
    rulers = {member.supernode_id if member.state == State.JOINED else None for member in members}
    return rulers.pop() if len(rulers) == 1 else None
