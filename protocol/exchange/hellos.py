"""The first words on links that others open to this node, until it is known who they are.

A member says `LinkHello` and is served from then on, with all that it said meanwhile, once the roster shows that it is
who it says (`judge`, in `protocol/exchange/callers.py`); whom the roster does not mean to be there waits a little for
a newer one. Everybody else is refused, with a reason. What calls for membership (`Join`) is the Peer's to answer; it
takes such a link away by `take` or lets it try again by `put_off`.

Pure. Belongs to the Peer, on the node thread.
"""

from __future__ import annotations

from typing import Any, Callable, List, Sequence

from protocol.exchange.callers import NO_HELLO_REASON, NOT_A_MEMBER_REASON, Caller, Callers, Verdict, judge
from protocol.exchange.contracts import Members
from protocol.fields import Address
from protocol.messages import LinkHello, decode

OnMember = Callable[[int, LinkHello, List[Any], float], None]  # link, hello, the messages it sent since then, now


class Hellos:
    """Takes in whom the roster knows, refuses all others."""

    def __init__(
        self, network: Any, members: Members, own_addresses: Callable[[], Sequence[str]], on_member: OnMember
    ) -> None:
        self.dropped = 0  # links that were refused
        self._network = network
        self._members = members
        self._own_addresses = own_addresses
        self._on_member = on_member
        self._callers = Callers()

    def __contains__(self, link: int) -> bool:
        return link in self._callers

    def __len__(self) -> int:
        return len(self._callers)

    def is_unnamed(self, link: int) -> bool:
        """Has this caller not said yet who it is?"""
        return self._callers.get(link).hello is None

    def on_link_up(self, link: int, address: Address, now: float) -> None:
        """Somebody has called, and is to say who it is; where too many are, one of them is refused."""
        too_many = self._callers.add(link, address, now)
        if too_many is not None:
            self._network.disconnect(too_many, "too many links at once")

    def on_link_moved(self, link: int, address: Address) -> None:
        """A caller of whom it is not known who it is calls from there by now."""
        self._callers.move(link, address)

    def on_link_lost(self, link: int) -> None:
        self._callers.pop(link)

    def take(self, link: int) -> Address:
        """The link is somebody else's from now on; where it comes from."""
        address = self._callers.get(link).address
        self._callers.pop(link)
        return address

    def put_off(self, link: int, now: float) -> None:
        """It may say once more who it is."""
        self._callers.get(link).put_off(now)

    def on_message(self, link: int, message: Any, data: Any, now: float) -> None:
        """The first message says who it is; what follows waits until that is sure. None is served at the door."""
        caller, is_by_door = self._callers.get(link), link < 0
        if caller.hello is not None:
            if not caller.keep(data):
                self._refuse(link, "it says too much before it is known")
        elif isinstance(message, LinkHello) and not is_by_door:
            self._on_hello(caller, message, now)
        else:
            self._refuse(link, "the first message must say who it is")

    def _on_hello(self, caller: Caller, hello: LinkHello, now: float) -> None:
        """Somebody says which member it is: served if it is, and heard again later if it may be soon."""
        verdict = self._judge(hello, caller.address)
        if hello.network_id != self._members.network_id:
            self._refuse(caller.link, "not of this network")
        elif verdict is Verdict.LIE or not self._members.is_certificate_of(hello.node_id, caller.link):
            self._refuse(caller.link, NOT_A_MEMBER_REASON)
        elif verdict is Verdict.UNKNOWN:
            self._callers.wait(caller.link, hello, now)
        else:
            self._callers.pop(caller.link)
            self._on_member(caller.link, hello, [decode(data) for data in caller.kept], now)

    def _judge(self, hello: LinkHello, address: Address) -> Verdict:
        place = self._members.seen_place(hello.node_id)
        has_answered = self._members.is_at(hello.node_id, address)
        return judge(hello.node_id, address, self._members.node_id, place, self._own_addresses, has_answered)

    def judge_again(self, now: float) -> None:
        """Some who wait may be known by now: the roster changed, or one was reached where it calls from."""
        for caller in self._callers.waiting():
            hello = caller.hello
            if hello is not None and self._judge(hello, caller.address) is Verdict.MEMBER:
                self._on_hello(caller, hello, now)

    def _refuse(self, link: int, reason: str) -> None:
        self.dropped += 1
        self._callers.pop(link)
        self._network.disconnect(link, reason)

    def on_timer(self, now: float) -> None:
        for caller in self._callers.overdue(now):
            self._refuse(caller.link, NO_HELLO_REASON if caller.hello is None else NOT_A_MEMBER_REASON)

    def next_deadline(self) -> float:
        return self._callers.next_deadline()
