"""Casts in the simulator: what `sockets/casts.py` is to real nodes, over the world's links.

`world.multicast` says whether datagrams to groups reach anybody; `world.deaf` holds the IPs of hosts whose switch port
drops them, `world.groupless` those that cannot join a group. Each that has joined one gets its own copy, with the loss,
delay and queue of its own path.
"""

from __future__ import annotations

import functools
import math
from typing import Any, Dict, List

from protocol.casts import CastOver, CastPlan, group_of
from protocol.transport.casting import CastReceiver, CastSender


class SimCasts:
    """The casts of one simulated network."""

    def __init__(self, network: Any) -> None:
        self.network, self.world = network, network.world
        self.sending: Dict[bytes, CastSender] = {}
        self.receiving: Dict[bytes, CastReceiver] = {}
        self.sent = 0  # datagrams
        self._casters: Dict[bytes, str] = {}
        self._armed: Dict[bytes, float] = {}

    def can_cast(self, towards: str) -> bool:
        return self.world.multicast and not towards.startswith("127.")

    def open(self, session: bytes, towards: str, rate: float) -> None:
        self.sending[session] = CastSender(session, rate, self.world.now, ":" in towards)
        self._arm(session)

    def send(self, session: bytes, *span: Any) -> None:
        if session in self.sending:
            self.sending[session].add(*span)
            self._arm(session)

    def set_rate(self, session: bytes, rate: float) -> None:
        if session in self.sending:
            self.sending[session].set_rate(rate)

    def backlog(self, session: bytes) -> int:
        return self.sending[session].backlog if session in self.sending else 0

    def join(self, session: bytes, caster_ip: str) -> None:
        if self.network.address[0] in self.world.groupless:
            self.world.after(0.0, lambda: self.network.on_cast(CastOver(session, "no multicast here: no route")))
            return
        self.receiving[session] = CastReceiver(session)
        self._casters[session] = caster_ip
        self.world.groups.setdefault(group_of(session, ":" in caster_ip), []).append(self)

    def take(self, session: bytes, plan: CastPlan) -> None:
        if session in self.receiving:
            self.receiving[session].take(plan, self.world.now)
            self._arm(session)

    def done(self, session: bytes, size: int) -> None:
        if session in self.receiving:
            self.receiving[session].done(size)

    def end(self, session: bytes) -> None:
        self.sending.pop(session, None)
        if self.receiving.pop(session, None) is not None:
            self.world.groups[group_of(session, ":" in self._casters[session])].remove(self)

    def end_all(self) -> None:
        for session in [*self.sending, *self.receiving]:
            self.end(session)

    # ---- time

    def _arm(self, session: bytes) -> None:
        one = self.sending.get(session) or self.receiving.get(session)
        at = one.next_deadline() if one is not None else math.inf
        if at < self._armed.get(session, math.inf):
            self._armed[session] = at
            self.world.at(at, lambda: self._alarm(session, at))

    def _alarm(self, session: bytes, at: float) -> None:
        if self._armed.get(session) != at:
            return
        del self._armed[session]
        if not self.network.alive:
            return
        if self.network.is_stopped:
            self.world.after(0.05, lambda: self._arm(session))
            return
        sender, receiver = self.sending.get(session), self.receiving.get(session)
        if sender is not None:
            self._send(sender)
        if receiver is not None:
            receiver.on_timer(self.world.now)
            self._tell(receiver.events)
        self._arm(session)

    def _send(self, sender: CastSender) -> None:
        batch = sender.next_batch(self.world.now)
        if batch is None:
            return
        for index in range(batch.count):
            datagram = b"".join(batch.buffers[2 * index : 2 * index + 2])
            self.cast(sender.group, datagram)
        self._tell(sender.events)

    def cast(self, group: Any, datagram: bytes, as_ip: str = "") -> None:
        """One datagram to whoever is in the group, as from this host or another."""
        self.sent += 1
        world, source = self.world, as_ip or self.network.address[0]
        for one in list(world.groups.get(group, ())):
            target = one.network.address[0]
            if target in world.deaf or world.is_cut(source, target) or one.network is self.network:
                continue
            link, conditions = world.link((source, 0), (target, 0)), world.conditions_of(source, target)
            for arrival in link.carry(len(datagram), conditions):
                world.at(arrival, functools.partial(one.hear, source, datagram))

    def hear(self, source: str, datagram: bytes) -> None:
        if not self.network.alive or self.network.is_stopped:
            return
        for session, receiver in list(self.receiving.items()):
            if self._casters[session] == source:
                receiver.on_run(memoryview(datagram), len(datagram), self.world.now)
                if receiver.events:
                    self._tell(receiver.events)
                self._arm(session)

    def _tell(self, events: List[Any]) -> None:
        told, events[:] = list(events), []
        for event in told:
            self.network.on_cast(event)
