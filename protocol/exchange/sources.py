"""The links to nodes that give, and who is left alone for a while."""

from __future__ import annotations

from typing import Dict

from protocol.exchange.fetch import Fetch

SOURCES_MAX = 10  # of one content at once
WHOLE_SOURCES_MORE = 4  # that have it all, beyond those
FELLOWS_WANTED = 12  # of those who fetch the same: each of more is taken by lot, so that no few serve all
UNREACHABLE_TIME = 10.0  # a node that could not be connected to is not tried again so long
USELESS_TIME = 60.0  # a source that sent nothing or was too slow is left alone so long
STRIKES_MAX, BAN_TIME = 2, 600.0  # THREATS: G01
JUDGED_MAX = 4096  # strikes and bans remembered
BULK_IDLE = 10.0  # seconds until a link that nothing comes by is closed
MESH_LINKS_MAX = 8  # members to stand by with; a link each, so a transfer begins at once
MESH_DELAY, MESH_RETRY = (0.5, 3.0), (10.0, 30.0)  # seconds, drawn by lot: many may have joined at once


class Bulk:
    """A link that we opened to a provider."""

    def __init__(self, link: int, node_id: bytes, now: float) -> None:
        self.link = link
        self.node_id = node_id
        self.is_up = False
        self.fetches: Dict[Fetch, bool] = {}  # is it a fellow? Ordered, unlike a set: a test's seed replays exactly
        self.requests = 0  # pieces asked and not yet received, for all contents
        self.used_at = now
        self.dropped = 0
