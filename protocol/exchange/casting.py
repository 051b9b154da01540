"""The caster: what several want of this node at once is sent to all of them by one cast.

    CastWanted of three nodes  ->  CastOffer, probes to the group  ->  CastReady of three  ->  CastComing, the pieces
    CastTaken with holes  ->  those slices once more  ->  all are through, or gone  ->  CastEnd

A cast never need be reliable: what does not come by it is asked for by links, as ever. So at any trouble it just ends.
Who loses more than half of what the others take leaves it, and so does who is silent. `Casting` is the table of all
casts of this node (each is a `Cast`, in `cast.py`); it stands beside `Uploads` in `Serving`. Pure.
"""

from __future__ import annotations

import math
import statistics
from functools import partial
from typing import Any, Callable, Dict, List, Optional, Set, Tuple

from protocol import mishaps
from protocol.casts import CAST_PIECE_MAX, CastOver, CastRoom, slices_of
from protocol.content.pieces import piece_length, piece_size_of
from protocol.exchange.cast import Cast
from protocol.exchange.cast_rate import RATE_MIN
from protocol.exchange.cast_takers import Taker
from protocol.exchange.uploads import Uploads
from protocol.exchange.wants import Takers, Wants
from protocol.latest import Latest
from protocol.messages import CastComing, CastEnd, CastOffer, CastReady, CastSixWanted, CastTaken, CastWanted
from protocol.network import CastNetwork

log = mishaps.logger("transfer")

CAST_SIZE_MIN = 3 << 20  # bytes: less is there before a cast has begun
TAKERS_MIN = 3  # hosts that want it at once: one of them can have as many node ids as it likes
CASTS_MAX = 2  # of this node at once: they share its link
TAKERS_MAX = 512  # of one cast
READY_PATIENCE = 0.3  # seconds from the third who hears it until the pieces begin without those who do not
PROBE_TIME = 3.0  # seconds in which three must have heard it
ROUND = 0.1  # seconds between two looks at what the takers report
SILENT_MAX = 2.5  # seconds without a report, beside its interval, until a taker is given up
SLOW_PART, SLOW_REPORTS = 0.5, 4  # who takes less than this part of what the others take, so many times in a row
AHEAD_SECONDS, AHEAD_MIN, AHEAD_MAX = 0.15, 768 << 10, 8 << 20  # worth of the rate, or bytes, read before they leave
REPAIRS_MAX = 2.0  # slices sent again, in contents: beyond, reports lie or casting is no gain
BESIDE_PART, BESIDE_MIN, BESIDE_STEP = 0.1, 500e3, 1.5  # of its rate, or bytes a second, that leave by links meanwhile;
# more where more are served by links than a tenth of those who take it: else three could push all others aside
NOT_AGAIN_TIME = 60.0  # seconds after a cast that failed, in which the content is not cast
FAILED_MAX = 64  # contents for which that is remembered
TRIAL_LAST = 0.5  # seconds before the end of the pass in which no slice is left out any more
DEAF_TIME, DEAF_MAX = 600.0, 1024  # seconds in which no cast is made for hosts that took one which nobody heard


class Casting:
    """All casts of this node, by content."""

    def __init__(
        self,
        network: CastNetwork,
        library: Any,
        disk: Any,
        rng: Any,
        send: Callable[[int, Any], None],
        uploads: Uploads,
        is_on: bool = True,
    ) -> None:
        self._is_on = is_on
        self.dropped = 0
        self._network = network
        self._library = library
        self._disk = disk
        self._rng = rng
        self._send = send
        self._uploads = uploads
        self.limit: Optional[float] = None  # bytes per second of files that may leave this node, as a person has said
        self._beside: Optional[float] = None  # of these by links, while it casts
        self._casts: Dict[bytes, Cast] = {}
        self.wants = Wants()
        self._not_before: Latest[bytes, float] = Latest(FAILED_MAX)
        self._deaf: Latest[str, float] = Latest(DEAF_MAX)  # host -> until when it is offered none
        self._tick_at = math.inf

    # ---- what takers say

    def on_message(self, link: int, node_id: bytes, place: Any, size: int, message: Any, now: float) -> None:
        """From one who fetches this content of that size, which is here whole, and is seen at that place."""
        cast = self._casts.get(message.file_id)
        if isinstance(message, (CastWanted, CastSixWanted)):
            if place is not None and (":" in place[0]) == isinstance(message, CastSixWanted):
                self._on_wanted(link, node_id, place[0], size, message.file_id, now)
            return
        taker = cast.takers.get(link) if cast is not None and cast.session == message.session else None
        if cast is None or taker is None:
            self.dropped += 1
        elif isinstance(message, CastReady):
            self._on_ready(cast, taker, message, now)
        elif isinstance(message, CastTaken):
            self._on_taken(cast, taker, message, now)
        else:
            self._drop(cast, taker, False, now)

    def _on_wanted(self, link: int, node_id: bytes, towards: str, size: int, file_id: bytes, now: float) -> None:
        """Somebody would take a cast: one that runs is offered, or one begins when enough want it."""
        is_fit = size >= CAST_SIZE_MIN and piece_size_of(size) <= CAST_PIECE_MAX
        may = self._is_on and self._rate_max() >= RATE_MIN
        can = may and self._network.can_cast(towards)
        is_barred = now < max(self._not_before.get(file_id, -math.inf), self._deaf.get(towards, -math.inf))
        if not (is_fit and can) or is_barred:
            return
        cast, is_six = self._casts.get(file_id), ":" in towards
        if cast is not None:
            if cast.is_six == is_six:
                self._offer(cast, link, node_id, towards, now)
            return
        wanted = self.wants.add((file_id, is_six), link, node_id, towards)
        if len({host for _, host in wanted.values()}) >= TAKERS_MIN and len(self._casts) < CASTS_MAX:
            self._begin(file_id, size, towards, self.wants.take((file_id, is_six)), now)

    def _begin(self, file_id: bytes, size: int, towards: str, wanted: Takers, now: float) -> None:
        session = self._rng.getrandbits(64).to_bytes(8, "big")
        log.info("id %s: a cast is offered to %d", file_id.hex()[:8], len(wanted))
        cast = self._casts[file_id] = Cast(session, file_id, size, self._rng, now, ":" in towards)
        self._network.cast_open(session, towards, self._rate(cast))
        for link, (node_id, host) in wanted.items():
            self._offer(cast, link, node_id, host, now)
        self._tick_at = min(self._tick_at, now + ROUND)

    def _offer(self, cast: Cast, link: int, node_id: bytes, host: str, now: float) -> None:
        if len(cast.takers) < TAKERS_MAX and link not in cast.takers:
            cast.takers[link] = Taker(link, node_id, host, now)
            coming = cast.bitmap() if cast.is_begun else b""
            self._send(link, CastOffer(cast.file_id, cast.session, coming, len(cast.ready()) + 1, cast.interval_ms()))

    def _on_ready(self, cast: Cast, taker: Taker, message: CastReady, now: float) -> None:
        if taker.is_ready:
            self.dropped += 1
            return
        taker.be_ready(message.missing, now)
        if cast.is_begun:
            if not any(cast.coming_to(taker)):
                self._drop(cast, taker, True, now)
        elif len(cast.hosts()) >= TAKERS_MIN:
            cast.note_third(now)
        self._maybe_start(cast, now)

    def _maybe_start(self, cast: Cast, now: float) -> None:
        """With all who were offered, or a little after the third without the others."""
        if cast.is_begun or cast.third_at is None:
            return
        if len(cast.ready()) < len(cast.takers) and now - cast.third_at < READY_PATIENCE:
            return
        cast.begin(now)
        if cast.choose() < CAST_SIZE_MIN:
            self._end(cast, "there is little left to send", now)
            return
        log.info("id %s: cast to %d begins", cast.file_id.hex()[:8], len(cast.ready()))
        for taker in cast.ready():
            self._tell_coming(cast, taker, now)
        self._set_beside(now)
        self._pump(cast, now)

    def _tell_coming(self, cast: Cast, taker: Taker, now: float) -> None:
        coming = cast.coming_to(taker)
        if not any(coming):
            self._drop(cast, taker, True, now)
            return
        told = CastComing(cast.file_id, cast.session, coming, len(cast.ready()), cast.interval_ms())
        self._send(taker.link, told)

    def _on_taken(self, cast: Cast, taker: Taker, message: CastTaken, now: float) -> None:
        """A taker reports how it comes: what it misses is sent once more, and who has it all is let go."""
        if not cast.is_begun or not taker.is_ready:
            self.dropped += 1
            return
        seconds = max(taker.hear(now), cast.interval_ms() / 2000)
        if message.is_through:
            self._drop(cast, taker, False, now)
            return
        if message.received + message.lost:
            received, lost = taker.told_by(message, cast.sent)
            cast.losses.note(taker.link, lost / max(1, lost + received))
            cast.pull.note(taker.link, received * cast.slice_size / seconds)
        taker.tell_left_out(cast.trials.on_report(taker.link, message.highest, message.holes))
        if not taker.owe(cast.add_holes(message.highest, taker.missed(message.holes, cast.slices_each, now))):
            self._give_up(cast, taker, "misses more than was lost", now)
        if self._casts.get(cast.file_id) is cast:
            self._pump(cast, now)

    def on_link_lost(self, link: int, now: float) -> None:
        """Whoever was there takes part no more."""
        self.wants.drop_link(link)
        for cast in list(self._casts.values()):
            if link in cast.takers:
                self._drop(cast, cast.takers[link], False, now)

    def on_done(self, link: int, file_id: bytes, now: float) -> None:
        """It has it all, or wants no more of it."""
        cast = self._casts.get(file_id)
        if cast is not None and link in cast.takers:
            self._drop(cast, cast.takers[link], False, now)
        for is_six in (False, True):
            self.wants.drop((file_id, is_six), link)

    def _give_up(self, cast: Cast, taker: Taker, why: str, now: float) -> None:
        log.info("a taker of the cast %s", why)
        self._drop(cast, taker, True, now)

    def _drop(self, cast: Cast, taker: Taker, is_told: bool, now: float) -> None:
        """It takes part no more; `is_told`: it thinks it does."""
        cast.takers.pop(taker.link, None)
        cast.losses.forget(taker.link)
        cast.pull.forget(taker.link)
        if is_told:
            self._send(taker.link, CastEnd(cast.file_id, cast.session))
        if not cast.takers or (cast.is_begun and not cast.ready()):
            self._end(cast, "", now)

    # ---- sending

    def _rate(self, cast: Cast) -> float:
        return min(cast.rate.rate, self._rate_max())

    def _rate_max(self) -> float:
        """Bytes per second that a person lets leave."""
        return self.limit if self.limit is not None else math.inf

    def set_limit(self, limit: Optional[float], now: float) -> None:
        """So many bytes of files may leave in a second, by casts and by links; None: as many as can."""
        self.limit = limit
        self._limit_uploads(now)

    def _limit_uploads(self, now: float) -> None:
        """What goes to one by a link gives way to what goes to many: both leave by one cable."""
        limits = [rate for rate in (self.limit, self._beside) if rate is not None]
        self._uploads.limit.set_rate(min(limits, default=None), now)
        self._uploads.on_limit(now)

    def _set_beside(self, now: float) -> None:
        """A part of the rate of what is cast now; what is fair, where that is more."""
        begun = [cast for cast in self._casts.values() if cast.is_begun]
        beside = max(BESIDE_MIN, self._part_beside(begun) * min(map(self._rate, begun))) if begun else None
        before = self._beside
        if beside is None or before is None or not before / BESIDE_STEP < beside < before * BESIDE_STEP:
            self._beside = beside
            if beside != before:
                self._limit_uploads(now)

    def _part_beside(self, begun: List[Cast]) -> float:
        """What each of those beside has, that a host has which takes these casts, but never less than some."""
        takers = [taker for cast in begun for taker in cast.ready()]
        others = self._uploads.served({taker.node_id for taker in takers})
        return max(BESIDE_PART, others / max(1, len({taker.host for taker in takers})))

    def _pump(self, cast: Cast, now: float) -> None:
        """Hand over what is to be sent, until enough waits: first what was missed, then the next pieces."""
        ahead = min(max(AHEAD_MIN, self._rate(cast) * AHEAD_SECONDS), AHEAD_MAX)
        while cast.file_id in self._casts and self._network.cast_backlog(cast.session) + cast.reading < ahead:
            if cast.repairs:
                piece, slices = cast.repairs.popitem(last=False)
                self._with_piece(cast, piece, partial(self._send_again, cast, piece, slices), now)
            else:
                next_piece = cast.take_next(now)
                if next_piece is None:
                    return
                front = cast.front_behind(next_piece)
                self._with_piece(cast, next_piece, partial(self._send_first, cast, next_piece, front), now)

    def _with_piece(self, cast: Cast, piece: int, then: Callable[[bytes, float], None], now: float) -> None:
        """Read it, if it is not in memory any more."""
        data, length = cast.kept(piece), piece_length(cast.size, piece)
        if data is not None:
            then(data, now)
            return
        cast.note_reading(length)
        read = partial(self._library.read, cast.file_id, piece, 0, length)
        self._disk.run(read, partial(self._on_read, cast, piece, length, then))

    def _on_read(
        self, cast: Cast, piece: int, length: int, then: Callable[[bytes, float], None], data: Any,
        error: Optional[Exception], now: float,
    ) -> None:  # fmt: skip
        """A piece comes from the disk, to be cast."""
        cast.note_reading(-length)
        if self._casts.get(cast.file_id) is not cast:
            return
        if error is not None or len(data) != length:
            self._end(cast, "it could not be read", now)
            return
        cast.keep(piece, data)
        then(data, now)
        self._pump(cast, now)

    def _send_first(self, cast: Cast, piece: int, front: int, data: bytes, now: float) -> None:
        size, view, left_out = cast.slice_size, memoryview(data), self._choose_left_out(cast, piece, len(data))
        if left_out is None:
            self._network.cast_send(cast.session, piece, 0, data, front)
            cast.note_handed(piece, len(data))
        else:
            self._network.cast_send(cast.session, piece, 0, view[: left_out * size], None)
            behind = (left_out + 1) * size
            self._network.cast_send(cast.session, piece, behind, view[behind:], front)
            cast.note_handed(piece, len(data) - size)
            at = piece * cast.slices_each + left_out
            cast.trials.begin(at, cast.sent, cast.handed, cast.who_lack(piece))
        for taker in cast.ready():
            self._uploads.count_cast(taker.link, cast.file_id, len(data), now)

    def _choose_left_out(self, cast: Cast, piece: int, length: int) -> Optional[int]:
        """A slice of it that is left out at first; none near the end, where all would wait for it."""
        left = cast.coming.count(1, piece) * cast.piece_size
        if left < self._rate(cast) * TRIAL_LAST:
            return None
        return cast.trials.choose(cast.handed, slices_of(length, cast.slice_size), self._rate(cast))

    def _send_again(self, cast: Cast, piece: int, slices: Set[int], data: bytes, now: float) -> None:
        view = memoryview(data)
        for start, end in runs_of(slices):
            part = view[start * cast.slice_size : end * cast.slice_size]
            self._network.cast_send(cast.session, piece, start * cast.slice_size, part, None)
            cast.note_again(piece, start, len(part))

    def on_event(self, event: Any, now: float) -> None:
        """What the network tells of a cast of ours."""
        for cast in list(self._casts.values()):
            if cast.session == event.session:
                if isinstance(event, CastRoom):
                    self._pump(cast, now)
                elif isinstance(event, CastOver):
                    self._end(cast, event.reason, now)

    # ---- time

    def next_deadline(self) -> float:
        return self._tick_at

    def on_timer(self, now: float) -> None:
        """Once a round: the rate, who is slow or silent, and is it over?"""
        if now < self._tick_at:
            return
        for cast in list(self._casts.values()):
            self._look(cast, now)
        self._set_beside(now)
        self._tick_at = now + ROUND if self._casts else math.inf

    def _look(self, cast: Cast, now: float) -> None:
        """About once a round: has it begun, is it over, who is silent or too slow, and how fast does it go on?"""
        if not cast.is_begun:
            self._maybe_start(cast, now)
            if not cast.is_begun and now - cast.began_at >= PROBE_TIME:
                self._end(cast, "too few hear it", now)
            return
        if cast.is_over(now):
            self._end(cast, "", now)
            return
        patience = SILENT_MAX + cast.interval_ms() / 1000
        for taker in [one for one in cast.ready() if now - one.heard_at >= patience]:
            self._give_up(cast, taker, "is silent", now)
        losses = cast.losses.of_round() or {}
        for taker in self._slow(cast, losses):
            self._give_up(cast, taker, "is too slow for the others", now)
        self._drop_who_pulls(cast, now)
        if cast.trials.are_unheard(cast.handed - self._network.cast_backlog(cast.session), patience, now):
            for taker in cast.takers.values():
                self._deaf.put(taker.host, now + DEAF_TIME)
            self._end(cast, "nobody hears it", now)
        if self._casts.get(cast.file_id) is cast:
            self._set_rate(cast, losses, now)
        if self._casts.get(cast.file_id) is cast:
            self._pump(cast, now)

    def _drop_who_pulls(self, cast: Cast, now: float) -> None:
        """Those who alone hold it under half of what the others take, and so slowly that they are not too slow."""
        if not cast.pull.is_long(cast.rate.rate, now):
            return
        for taker in [cast.takers[link] for link in cast.losses.alone() if link in cast.takers]:
            self._give_up(cast, taker, "holds it far below what the others take", now)
            cast.rate.resume(cast.pull.best, now)

    def _slow(self, cast: Cast, losses: Dict[Any, float]) -> List[Taker]:
        """Those who would pull the rate under half of what the others can take."""
        usual = statistics.median(losses.values()) if losses else 0.0
        told = [taker for taker in cast.ready() if taker.link in losses]
        for taker in told:
            taker.note_slow(1.0 - losses[taker.link] < SLOW_PART * (1.0 - usual))
        return [taker for taker in told if taker.slow >= SLOW_REPORTS]

    def _set_rate(self, cast: Cast, losses: Dict[Any, float], now: float) -> None:
        """By the worst of those who are not about to leave."""
        counted = {taker.link: losses[taker.link] for taker in cast.ready() if taker.link in losses and not taker.slow}
        backlog = self._network.cast_backlog(cast.session)
        per_second = cast.sent_per_second(backlog, now)
        if not counted:
            return
        cast.rate.on_round(cast.losses.worst(counted), per_second if backlog else None, now, len(counted))
        self._network.cast_rate(cast.session, self._rate(cast))
        too_much = cast.repaired > REPAIRS_MAX * cast.count * cast.slices_each
        if cast.rate.is_hopeless(now) or too_much:
            self._end(cast, "it is of no use", now)

    def _end(self, cast: Cast, trouble: str, now: float) -> None:
        """Over, for whatever reason; with a trouble it is not tried again soon."""
        if self._casts.get(cast.file_id) is not cast:
            return
        del self._casts[cast.file_id]
        log.info("id %s: the cast ends%s", cast.file_id.hex()[:8], f": {trouble}" if trouble else "")
        self._network.cast_end(cast.session)
        for taker in cast.takers.values():
            self._send(taker.link, CastEnd(cast.file_id, cast.session))
        self._set_beside(now)
        if trouble:
            self._not_before.put(cast.file_id, now + NOT_AGAIN_TIME)

    def end_all(self, now: float) -> None:
        """This node leaves, or serves this no more."""
        for cast in list(self._casts.values()):
            self._end(cast, "this node leaves", now)


def runs_of(numbers: Set[int]) -> List[Tuple[int, int]]:
    """The runs (first, behind the last) of these numbers."""
    runs: List[Tuple[int, int]] = []
    for number in sorted(numbers):
        if runs and runs[-1][1] == number:
            runs[-1] = runs[-1][0], number + 1
        else:
            runs.append((number, number + 1))
    return runs
