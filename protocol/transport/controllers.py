"""The congestion controllers by name: one line here, and `rdt.open` and the benchmark of links know another one."""

from __future__ import annotations

from typing import Callable, Dict

from protocol.transport.congestion import CongestionController
from protocol.transport.cubic import CubicQ
from protocol.transport.newreno import NewReno

CONTROLLERS: Dict[str, Callable[[int], CongestionController]] = {  # each is made with a datagram size in bytes
    "cubicq": CubicQ,
    "newreno": NewReno,
}
DEFAULT = "cubicq"
