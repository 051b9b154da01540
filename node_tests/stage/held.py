"""What one node of a lab holds in memory."""

from __future__ import annotations

import gc
import random
import sys
import types

from disk.library import Library
from node_tests.stage.lab import Lab
from node_tests.stage.simulator import World
from protocol.buffers import BufferPool

NOT_ITS_OWN = (
    type, types.ModuleType, types.FunctionType, types.BuiltinFunctionType, World, Lab, Library, random.Random,
    BufferPool,  # a fixed budget: buffers that are used again
)  # fmt: skip


def held(node):
    """Every object that this node alone holds: its roles and its transport, not the world around it."""
    seen, waiting = {}, [vars(node.peer), vars(node.network.driver.endpoint)]
    around = {id(node), id(node.network), id(node.network.driver), id(node.network.links)}
    while waiting:
        one = waiting.pop()
        if id(one) not in seen and id(one) not in around and not isinstance(one, NOT_ITS_OWN):
            seen[id(one)] = one
            waiting.extend(gc.get_referents(one))
    return seen.values()


def held_bytes(node):
    return sum(map(sys.getsizeof, held(node)))
