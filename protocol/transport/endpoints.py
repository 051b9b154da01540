"""Which endpoint a socket gets: of an open network or of one with a key, traced or not.

What only some need is imported when it is asked for: TLS and the trace cost a program time to load. Pure.
"""

from __future__ import annotations

import random
from typing import Any, Callable, Optional

from protocol.transport.endpoint import Endpoint


def new_endpoint(
    rng: random.Random, credentials: Optional[Any] = None, trace: Optional[Callable[[str], None]] = None, **named: Any
) -> Endpoint:
    """`credentials`: of the network's key; None: it is open. `trace` is handed lines of text. More as `Endpoint`."""
    if credentials is None and trace is None:
        return Endpoint(rng, **named)
    if credentials is None:
        from protocol.transport.trace import TracedEndpoint

        return TracedEndpoint(trace, rng, **named)  # type: ignore[arg-type]
    if trace is None:
        from protocol.transport.keyed import KeyedEndpoint

        return KeyedEndpoint(credentials, rng, **named)
    from protocol.transport.keyed_trace import TracedKeyedEndpoint

    return TracedKeyedEndpoint(trace, credentials, rng, **named)
