"""The other end of transfers: what this node has, offers and sends to those who ask.

A link that another node opened with `LinkHello` asks for manifests, piece maps and pieces; `Uploads` says whose turn it
is. A content is served when it is shared, cached, or being fetched (then only its verified pieces, and each new one is
told). What was not announced does not exist, whatever lies on the disk.
"""

from __future__ import annotations

import math
import random
from functools import partial
from typing import Any, Callable, Dict, Iterable, List, Optional, Set, Tuple

from protocol import mishaps
from protocol.content.pieces import piece_size_of
from protocol.content.troubles import ErrorKind, LibraryError
from protocol.exchange.casting import Casting
from protocol.exchange.contracts import Disk, Members, in_slices, kind_of
from protocol.exchange.download import Download
from protocol.exchange.holdings import Holdings
from protocol.exchange.manifest import manifest_pages
from protocol.exchange.receipts import Names, Receipts
from protocol.exchange.telling import traits_pages
from protocol.exchange.uploads import UploadLink, Uploads
from protocol.messages import (
    DISK_ERROR,
    FILE_CHANGED,
    NO_NODE,
    NO_PIECE,
    NO_RIGHTS,
    NOT_READABLE,
    PIECE_MISSING,
    PIECES_TOLD_MAX,
    SHORT_OF_MEANS,
    UNKNOWN_FILE,
    AnyPieceRequest,
    CastEnd,
    CastReady,
    CastSixWanted,
    CastTaken,
    CastWanted,
    CheckBulk,
    LinkHello,
    ManifestRequest,
    NewPieces,
    Offer,
    PieceCancel,
    PieceData,
    PieceMap,
    PieceMapRequest,
    PieceRefused,
    PieceRequest,
    Search,
    TraitsRequest,
    TransferDone,
    WrongPiece,
    encode,
    encode_parts,
)
from protocol.results import Share, TransferRow

log = mishaps.logger("transfer")

LINKS_PER_NODE_MAX = 4  # that one node may open to us
MANIFESTS_ASKED_MAX = 256  # at once on one link
REFUSED_TIME = 600.0  # seconds that an upload cancelled by a person is not begun again
SHORT_TRIES_MAX = 6  # of a span that could not be read for want of descriptors or memory, one with each tick
# Of what is not readable, and of all that is refused.
CAUSES: Dict[Optional[ErrorKind], int] = {
    ErrorKind.SHORT: SHORT_OF_MEANS,
    ErrorKind.DENIED: NO_RIGHTS,
    ErrorKind.DISK: DISK_ERROR,
}
REASONS: Dict[Optional[ErrorKind], int] = {
    ErrorKind.UNKNOWN: UNKNOWN_FILE,
    ErrorKind.MISSING: PIECE_MISSING,
    ErrorKind.CHANGED: FILE_CHANGED,
    **CAUSES,
}
LOOK_AGAIN_INTERVAL = 1.0  # seconds between two looks at files of which a piece was reported wrong
MESH_OFF_REASON = "its mesh is off"
TICK = 0.5  # seconds between two looks at what stands still, while anything is to be sent
TELL_INTERVAL = 0.2  # seconds that new pieces wait to be told together,
TELL_PART = 1 / 12  # if they add so much to what was told before;
TELL_INTERVAL_MAX = 1.0  # else so long, as those do that a cast brings to nearly all who would be told


class Serving:
    """Everything that leaves this node."""

    def __init__(
        self,
        network: Any,
        library: Any,
        members: Members,
        holdings: Holdings,
        disk: Disk,
        notify: Callable[[Any], None],
        next_number: Callable[[], int],
        partial_of: Callable[[bytes], Optional[Download]],
        in_memory: Callable[[bytes], Any],
        name_of_wanted: Callable[[bytes], Optional[str]],
        on_asker: Callable[[bytes, bytes, float], bool],
        rng: random.Random,
        casts: bool = True,
    ) -> None:
        self.network = network
        self.library = library
        self.members = members
        self.holdings = holdings
        self.disk = disk
        self.notify = notify
        self.next_number = next_number  # of what a person sees on its way
        self.uploads = Uploads(self)
        self.names = Names(members, holdings, name_of_wanted, in_memory)
        self._receipts = Receipts(self.uploads, self.names, self._whole_of, holdings, notify, self._tick_soon)
        self.casting = Casting(network, library, disk, rng, self.send, self.uploads, casts)
        self.dropped = 0
        self._partial_of = partial_of  # the download of a content whose pieces may be served already
        self._in_memory = in_memory  # its fetch, if the pieces are not on the disk
        self._on_asker = on_asker  # who asks what we have of this content; is it being fetched here?
        self._new_pieces: Dict[bytes, List[int]] = {}  # not told yet, by content
        self._tell_at = math.inf
        self._refused: Dict[Tuple[bytes, bytes], float] = {}  # (node, content) -> until: cancelled by a person
        self._manifests_asked: Dict[int, Set[bytes]] = {}  # by link, while they are read
        self._look_again_at = -math.inf  # when who reports a wrong piece is heard again
        self._short: Dict[Tuple[int, bytes, int, int, int], Tuple[int, float]] = {}  # span -> tries, when again
        self._tick_at = math.inf
        self._handlers: Dict[Any, Callable[[int, Any, float], None]] = {
            ManifestRequest: self._on_manifest_request,
            PieceMapRequest: self._on_piece_map_request,
            TraitsRequest: self._on_traits_request,
            PieceRequest: self._on_piece_request,
            AnyPieceRequest: self._on_piece_request,
            PieceCancel: self._on_cancel,
            WrongPiece: self._on_wrong_piece,
            TransferDone: self._on_transfer_done,
            **dict.fromkeys((CastWanted, CastSixWanted, CastReady, CastTaken, CastEnd), self._on_cast_message),
            CheckBulk: lambda link, message, now: self.network.check_bulk(link),
        }

    # ---- links

    def owns(self, link: int) -> bool:
        return link in self.uploads.links

    def on_hello(self, link: int, hello: LinkHello, now: float) -> None:
        """A member (that it is one was checked: protocol/exchange/callers.py) opens a link to be served by."""
        others = sum(upload.node_id == hello.node_id for upload in self.uploads.links.values())
        if others >= LINKS_PER_NODE_MAX:
            self.network.disconnect(link, "too many links")
        elif not (self.members.mesh or self.members.is_supernode or hello.node_id == self.members.supernode_id):
            self.network.disconnect(link, MESH_OFF_REASON)
        else:
            self.uploads.add(link, hello.node_id, self.members.label_of(hello.node_id))
            self._receipts.go_on(self.uploads.links[link])

    def on_link_lost(self, link: int, reason: str, now: float) -> None:
        """What was sent there may be all of it: that is told when its receipt comes, or has not come for long."""
        self._manifests_asked.pop(link, None)
        upload = self.uploads.links.get(link)
        self.uploads.remove(link, now)
        self.casting.on_link_lost(link, now)
        if upload is None:
            return
        if reason == MESH_OFF_REASON:  # what it gets by another way is not what was sent here
            for file_id, _ in self.uploads.sent_on(upload):
                self._receipts.on_called_off(upload, file_id, now)
        else:
            self._receipts.on_link_lost(upload, now)

    def on_message(self, link: int, message: Any, now: float) -> None:
        """What does not fit on such a link is dropped: nobody pushes a file to us."""
        handler = self._handlers.get(type(message))
        if handler is None:
            self.dropped += 1
        else:
            handler(link, message, now)

    def on_mesh_set(self) -> None:
        """With the mesh off, only the supernode's node is served (all are, if it is this one)."""
        if not (self.members.mesh or self.members.is_supernode):
            for upload in self.uploads.links.values():
                if upload.node_id != self.members.supernode_id:
                    self.network.disconnect(upload.link, MESH_OFF_REASON)

    # ---- what is here

    def size_of(self, file_id: bytes) -> Optional[int]:
        """The size of a content of which anything can be served."""
        size = self.holdings.size_of(file_id)
        if size is not None:
            return size
        download = self._partial_of(file_id)
        return download.size if download is not None else None

    def _is_whole(self, file_id: bytes) -> bool:
        return self.holdings.size_of(file_id) is not None

    def _is_refused(self, node_id: bytes, file_id: bytes, now: float) -> bool:
        """Has the person here cancelled what goes there of it?"""
        return self._refused.get((node_id, file_id), -math.inf) > now

    def _has_piece(self, file_id: bytes, index: int) -> bool:
        if self._is_whole(file_id):
            return True
        download = self._partial_of(file_id)
        return download is not None and download.choice is not None and bool(download.choice.is_verified[index])

    def on_search(self, search: Search, now: float) -> None:
        """Somebody looks for a content: offer it if it is here, or pieces of it."""
        if search.requester == self.members.node_id or self._is_refused(search.requester, search.file_id, now):
            return
        if self.offer(search.file_id, search.query_id, search.requester):
            self.names.note(search.requester, search.file_id, search.name)

    def offer(self, file_id: bytes, query_id: int, requester: bytes, with_nothing: bool = False) -> bool:
        """Offer it to the requester, by way of the supernode; `with_nothing`: even before the first piece is here."""
        is_complete = self._is_whole(file_id)
        download = None if is_complete else self._partial_of(file_id)
        if not is_complete and (download is None or not (download.verified_bytes or with_nothing)):
            return False
        offer = Offer(query_id, file_id, requester, NO_NODE, is_complete, self.members.mesh)
        return self.members.send_to_supernode(offer)

    def is_wanted(self, file_id: bytes) -> bool:
        """Does anybody follow our download of it?"""
        return bool(self.uploads.subscribers(file_id))

    def tell_pieces(self, file_id: bytes, indexes: Iterable[int], now: float, is_cast: bool = False) -> None:
        """More pieces can be had here; told together with others, soon."""
        if self.is_wanted(file_id):
            news = self._new_pieces.setdefault(file_id, [])
            news.extend(indexes)
            is_due_soon = not is_cast and self._is_much_news(file_id, len(news))
            self._tell_at = min(self._tell_at, now + (TELL_INTERVAL if is_due_soon else TELL_INTERVAL_MAX))

    def _is_much_news(self, file_id: bytes, count: int) -> bool:
        """Is it worth a message to each? Who knows of many pieces here has enough to ask for."""
        download = self._partial_of(file_id)
        return download is None or count >= TELL_PART * (download.verified_count() - count)

    def _tell_new_pieces(self) -> None:
        news, self._new_pieces, self._tell_at = self._new_pieces, {}, math.inf
        for file_id, indexes in news.items():
            for start in range(0, len(indexes), PIECES_TOLD_MAX):
                told = NewPieces(file_id, tuple(indexes[start : start + PIECES_TOLD_MAX]))
                self.network.send_to_all(self.uploads.subscribers(file_id), encode(told))

    def tell_ended(self, file_id: bytes) -> None:
        """Our own download ended without the whole: who follows it shall look elsewhere."""
        if not self._is_whole(file_id):
            for link in self.uploads.subscribers(file_id):
                self.uploads.unsubscribe(link, file_id)
                self.send(link, PieceRefused(file_id, NO_PIECE, UNKNOWN_FILE))

    # ---- requests

    def _on_manifest_request(self, link: int, message: ManifestRequest, now: float) -> None:
        """The digests of all pieces, read on the disk once for a link at a time."""
        asked = self._manifests_asked.setdefault(link, set())

        def answer(manifest: Any, error: Optional[Exception], now: float) -> None:
            """They are read, or cannot be."""
            asked.discard(message.file_id)
            if error is not None:
                self.send(link, PieceRefused(message.file_id, NO_PIECE, UNKNOWN_FILE))
                if self.holdings.is_cached(message.file_id):
                    self.holdings.on_cache_changed()
                return
            for page in manifest_pages(message.file_id, *manifest):
                self.send(link, page)

        if self.size_of(message.file_id) is None:
            self.send(link, PieceRefused(message.file_id, NO_PIECE, UNKNOWN_FILE))
        elif message.file_id in asked or len(asked) >= MANIFESTS_ASKED_MAX:
            self.dropped += 1  # each is a disk job, and the answer to the first is one to all
        else:
            asked.add(message.file_id)
            self.disk.run(partial(self._manifest, message.file_id, self._partial_of(message.file_id)), answer)

    def _manifest(self, file_id: bytes, download: Optional[Download]) -> Tuple[int, bytes]:
        """On the disk thread; what is in memory the library does not know."""
        return (download.size, download.digests) if download is not None else self.library.manifest(file_id)

    def _on_traits_request(self, link: int, message: TraitsRequest, now: float) -> None:
        told = self.holdings.traits_of(message.file_id) if self.size_of(message.file_id) is not None else b""
        for page in traits_pages(message.file_id, told):
            self.send(link, page)

    def _on_piece_map_request(self, link: int, message: PieceMapRequest, now: float) -> None:
        """What is here of it; of what is being fetched the asker is told each further piece, too."""
        file_id, download = message.file_id, self._partial_of(message.file_id)
        is_fetched = self._on_asker(file_id, self.uploads.links[link].node_id, now)
        if self._is_whole(file_id):
            self.send(link, PieceMap(file_id, True, b""))
        elif download is not None and download.choice is not None:
            self.send(link, PieceMap(file_id, False, download.choice.bitmap()))
            self.uploads.subscribe(link, file_id)
        elif is_fetched:
            self.send(link, PieceMap(file_id, False, b""))  # it is told what comes
            self.uploads.subscribe(link, file_id)
        else:
            self.send(link, PieceRefused(file_id, NO_PIECE, UNKNOWN_FILE))

    def _on_piece_request(self, link: int, message: Any, now: float) -> None:
        """A piece that is here waits for its turn in the uploads; else it is refused, with the reason."""
        file_id, index = message.file_id, message.index
        size = self.size_of(file_id)
        if size is None or self._is_refused(self.uploads.links[link].node_id, file_id, now):
            # Of one whom a person here has cancelled it is as if it were not here: so it asks others, and not again.
            self.send(link, PieceRefused(file_id, index, UNKNOWN_FILE))
            return
        piece_size = piece_size_of(size)
        if index * piece_size >= size or not self._has_piece(file_id, index):
            self.send(link, PieceRefused(file_id, index, PIECE_MISSING))
            return
        self._tick_soon(now)
        if self._is_whole(file_id):
            is_any = isinstance(message, AnyPieceRequest)
            self.uploads.on_whole_request(link, file_id, index, size, piece_size, is_any, now)
        else:
            self.uploads.on_request(link, file_id, index, min(piece_size, size - index * piece_size), now)

    def _on_cast_message(self, link: int, message: Any, now: float) -> None:
        """Only what is here whole is cast; a fellow may come by one that is fetched here."""
        size, node_id = self.holdings.size_of(message.file_id), self.uploads.links[link].node_id
        if size is None or self._is_refused(node_id, message.file_id, now):
            self.dropped += 1
            return
        self.casting.on_message(link, node_id, self.members.place_of(node_id), size, message, now)

    def _on_transfer_done(self, link: int, message: TransferDone, now: float) -> None:
        self.casting.on_done(link, message.file_id, now)
        self.uploads.unsubscribe(link, message.file_id)
        self._receipts.on_done(self.uploads.links[link], message.file_id, now)

    def _on_cancel(self, link: int, message: PieceCancel, now: float) -> None:
        """A piece is not wanted any more; or nothing of the content is: what is asked of it later is another fetch."""
        self.uploads.on_cancel(link, message.file_id, message.index)
        if message.index == NO_PIECE:
            self.casting.on_done(link, message.file_id, now)
            self.uploads.unsubscribe(link, message.file_id)
            self._receipts.on_called_off(self.uploads.links[link], message.file_id, now)

    def _on_wrong_piece(self, link: int, message: WrongPiece, now: float) -> None:
        """Is the file what was announced? It is looked at, a piece at a time: who says so has to be right."""
        upload, file_id, size = self.uploads.links[link], message.file_id, self.holdings.size_of(message.file_id)
        counted = self.counted_as(upload, file_id)
        # Who got nothing of it cannot know; and every look reads a piece, whoever is right.
        was_sent = any(one == counted for one, _ in self.uploads.sent_on(upload))
        if size is None or message.index * piece_size_of(size) >= size or not was_sent or now < self._look_again_at:
            self.dropped += 1
            return
        self._look_again_at = now + LOOK_AGAIN_INTERVAL
        log.info("id %s, piece %d: %s says that it is wrong", file_id.hex()[:8], message.index, upload.label)
        look = partial(self.library.wrong_places, file_id, message.index)
        in_slices(self.disk, look, self._on_looked_again)

    def _on_looked_again(self, paths: Any, error: Optional[Exception], now: float) -> None:
        for path in paths or ():
            log.info("%s is not what was announced: it is hashed again", path)
            self.holdings.doubt(path)

    def _whole_of(self, file_id: bytes) -> int:
        """The bytes of a file, or of all files in a folder; 0 where that is not known here."""
        return self.holdings.total_of(file_id) or self.size_of(file_id) or 0

    # ---- what Uploads want done (UploadHands)

    def send(self, link: int, message: Any) -> None:
        """A message to one that is served; a refusal is logged."""
        if isinstance(message, PieceRefused):
            label, what = self._label_at(link), message.file_id.hex()[:8]
            log.info("id %s, piece %d: refused to %s, reason %d", what, message.index, label, message.reason)
        self.network.send(link, *encode_parts(message), is_bulk=isinstance(message, PieceData))

    def _label_at(self, link: int) -> str:
        upload = self.uploads.links.get(link)
        return self.names.label_of(upload) if upload is not None else f"link {link}"

    def backlog(self, link: int) -> int:
        return int(self.network.backlog(link))

    def counted_as(self, upload: UploadLink, file_id: bytes) -> bytes:
        return self.names.counted_as(upload, file_id)

    def read(self, link: int, file_id: bytes, index: int, offset: int, length: int, now: float) -> None:
        """Read a span of a piece, from memory or by the disk thread; it is sent when it is here."""
        answer = partial(self._on_read, (link, file_id, index, offset, length))
        fetch = self._in_memory(file_id)
        if fetch is None:
            self.disk.run(partial(self.library.read, file_id, index, offset, length), answer)
            return
        try:  # at once: the disk may be busy for long with the files of another pack
            answer(fetch.store.memory.read(index, offset, length), None, now)
        except LibraryError as error:
            answer(None, error, now)

    def _on_read(
        self, span: Tuple[int, bytes, int, int, int], data: Any, error: Optional[Exception], now: float
    ) -> None:
        """A span comes from the disk, on its way to whoever asked; an error becomes the reason why it is not given."""
        if error is None:
            self._short.pop(span, None)
            self.uploads.on_read(*span, data, now)
            return
        link, file_id, index, _, length = span
        reason = REASONS.get(kind_of(error), DISK_ERROR)
        if reason in (FILE_CHANGED, UNKNOWN_FILE) and self.holdings.is_cached(file_id):
            reason = UNKNOWN_FILE  # the library has dropped it: it can be fetched anew
            self.holdings.on_cache_changed()
        if reason == SHORT_OF_MEANS and self._try_again(span, now):
            return
        self.uploads.on_unreadable(link, file_id, index, length, reason, now)
        if reason in CAUSES.values():  # nor can any other piece: the cause goes first, then what follows from it
            self.send(link, PieceRefused(file_id, NO_PIECE, NOT_READABLE))

    def _try_again(self, span: Tuple[int, bytes, int, int, int], now: float) -> bool:
        """What could not be read for want of descriptors or memory is read a little later, some times."""
        tries = self._short.get(span, (0, 0.0))[0] + 1
        if tries > SHORT_TRIES_MAX or span[0] not in self.uploads.links:
            self._short.pop(span, None)
            return False
        self._short[span] = tries, now + TICK
        self._tick_soon(now)
        return True

    def _read_short_again(self, now: float) -> None:
        for span, (tries, at) in list(self._short.items()):
            if span[0] not in self.uploads.links:
                del self._short[span]
            elif now >= at:
                self._short[span] = tries, math.inf
                self.read(*span, now)

    # ---- time, and what a person sees

    def on_writable(self, link: int, now: float) -> None:
        self.uploads.on_writable(link, now)

    def _tick_soon(self, now: float) -> None:
        """There is something to be looked after a tick later."""
        self._tick_at = min(self._tick_at, now + TICK)

    def next_deadline(self) -> float:
        return min(self._tick_at, self._tell_at, self.uploads.next_deadline(), self.casting.next_deadline())

    def on_timer(self, now: float) -> None:
        """What is due: news of pieces, what a limit held back, each tick receipts and what could not be read."""
        if now >= self._tell_at:
            self._tell_new_pieces()
        if now >= self.uploads.next_deadline():
            self.uploads.on_limit(now)
        self.casting.on_timer(now)
        if now >= self._tick_at:
            self.uploads.on_timer(now)
            self._receipts.on_tick(now)
            self._read_short_again(now)
            has_work = self.uploads.has_work() or self._receipts.has_work() or self._short
            self._tick_at = now + TICK if has_work else math.inf

    def cancel(self, number: int, now: float) -> str:
        """Stop sending; a line for the person, empty if there is no such upload."""
        for upload, file_id, sent in self.uploads.rows(now):
            if sent.number == number:
                self._refused[upload.node_id, file_id] = now + REFUSED_TIME
                self.network.disconnect(upload.link, "cancelled there")
                return f"sending {self.names.of(upload, file_id)} to {self.names.label_of(upload)} is cancelled"
        return ""

    def rows(self, now: float) -> List[TransferRow]:
        """What is being sent."""
        rows = []
        for upload, file_id, sent in self.uploads.rows(now):
            size = sent.size if file_id in upload.folders else self.size_of(file_id) or 0
            size, rate = self.holdings.total_of(file_id) or size, sent.rate.per_second(now)
            left = (size - sent.size) / rate if rate >= 1.0 and size > sent.size else None
            name, done, label = self.names.of(upload, file_id), min(sent.size, size), self.names.label_of(upload)
            share = Share(label, done, rate, "", self.network.figures(upload.link))
            rows.append(TransferRow(sent.number, "S", name, "sending", done, size, rate, left, (label,), (share,)))
        return rows

    def end_all(self, now: float) -> None:
        """This node leaves its network: what is known to have been taken is told, and nothing more is sent."""
        self.casting.end_all(now)
        self._receipts.end_all()
        for link in self.uploads.links:
            self.network.disconnect(link, "left")
