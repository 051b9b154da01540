"""Files over a channel: offered, sent in spans, verified and confirmed by a receipt, or refused by either side.

    sender    FILE, FILE_DATA ..., FILE_END with the digest, and then it waits for
    receiver  FILE_RECEIPT with the same digest · FILE_DAMAGED: all of it once more, with checksums over its bytes

Either side may end it by FILE_REFUSED with the reason. What stands in each is in `protocol/transport/frames.py`; the
disk is the caller's, who hands in what reads and what writes.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
from typing import Callable, Iterator, Optional, Protocol

from protocol.addresses import shown
from protocol.fields import Buffer
from protocol.transport.frames import (
    FILE,
    FILE_DAMAGED,
    FILE_DATA,
    FILE_END,
    FILE_RECEIPT,
    FILE_REFUSED,
    SPAN_SIZE,
    Frame,
    behind_number,
    decode_offer,
    decode_reason,
    encode_number,
    encode_offer,
    encode_reason,
    number_of,
)
from sockets.channel import Channel
from sockets.udp import RdtError

Progress = Callable[[int, int], None]  # (bytes done, size)


class Reader(Protocol):
    """A file that is read from its beginning to its end."""

    @property
    def name(self) -> str:
        """Without its folder: a hint for who receives it."""

    @property
    def size(self) -> int:
        """Bytes in all."""

    def read(self, size: int) -> Buffer:
        """The next bytes, so many or the rest; what goes wrong with the file is its own error."""

    def hexdigest(self) -> str:
        """The SHA-256 of all that was read."""


class Writer(Protocol):
    """A file that is written from its beginning to its end."""

    def write(self, data: memoryview) -> None:
        """The next bytes; what goes wrong with the file is its own error."""

    def hexdigest(self) -> str:
        """The SHA-256 of all that was written."""


class Files:
    """The files of one channel: one is sent at a time, and one accepted, each by one caller."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._accepting, self._sending = threading.Lock(), threading.Lock()
        self._transfers = itertools.count(0 if channel.core.is_client else 1, 2)

    @contextlib.contextmanager
    def sending(self) -> Iterator[Sending]:
        """A file to be sent; RdtError when there is one already."""
        if not self._sending.acquire(blocking=False):
            raise RdtError(f"a file is being sent to {shown(self._channel.address)} already")
        try:
            yield Sending(self._channel, next(self._transfers))
        finally:
            self._sending.release()

    @contextlib.contextmanager
    def accepting(self, deadline: float) -> Iterator[None]:
        """Have the turn to accept a file, when those who asked before are done; RdtError when that is not in time."""
        with self._channel.turn(self._accepting, deadline, "no file"):
            yield

    def next_offer(self, deadline: float) -> Offer:
        """The next file that the other side wants to send; RdtError when none came in time, or none will."""
        channel = self._channel
        while True:
            frame = channel.take(channel.arrivals.files, deadline, "no file")
            said = decode_offer(frame.body) if frame.kind == FILE else None
            if said is None:
                continue  # the rest of a file that was refused
            offer = Offer(channel, said.transfer, said.size, said.name or "")
            if said.name is not None:
                return offer
            offer.refuse("its name is not UTF-8")


class Sending:
    """One file on its way to the other side."""

    def __init__(self, channel: Channel, transfer: int) -> None:
        self._channel, self._transfer = channel, transfer
        self._number = encode_number(transfer)
        self._is_offered = False  # else the other side knows of nothing

    def send(self, reader: Reader, progress: Optional[Progress], deadline: float) -> str:
        """Offer it and send all of it; its digest. RdtError when it is refused, or as `Channel.send_frame`."""
        self._is_offered = True
        offer = encode_offer(self._transfer, reader.size, reader.name)
        self._channel.send_frame(FILE, offer, deadline=deadline)
        self._send_content(reader, progress, deadline)
        digest = reader.hexdigest()
        self._channel.send_frame(FILE_END, self._number, bytes.fromhex(digest), deadline=deadline)
        return digest

    def _send_content(self, reader: Reader, progress: Optional[Progress], deadline: float) -> None:
        done = 0
        while True:
            data = reader.read(SPAN_SIZE)
            if not data:
                return
            self._channel.send_frame(FILE_DATA, self._number, data, deadline=deadline, is_bulk=True)
            self._check_refused()
            done += len(data)
            if progress is not None:
                progress(done, reader.size)

    def _check_refused(self) -> None:
        receipts = self._channel.arrivals.receipts
        while len(receipts):
            self._read_receipt(self._channel.take(receipts, 0.0, ""))

    def is_kept(self, digest: str, deadline: float) -> bool:
        """Wait for the receipt; False when the file arrived damaged and is to be sent again, as it may be once."""
        channel = self._channel
        while True:
            said = self._read_receipt(channel.take(channel.arrivals.receipts, deadline, "no receipt"))
            if said == digest:
                return True
            if said == "" and not channel.checks_bulk:
                channel.check_bulk()
                return False
            if said is not None:
                raise RdtError(f"{shown(channel.address)} confirmed another content than was sent")

    def _read_receipt(self, frame: Frame) -> Optional[str]:
        """The digest that the receiver reports for this transfer, "" for damage; RdtError when it refused."""
        if number_of(frame.body) != self._transfer:
            return None  # about an earlier file
        said = behind_number(frame.body)
        if frame.kind == FILE_REFUSED:
            raise RdtError(f"{shown(self._channel.address)} did not take the file: {decode_reason(said)}")
        return said.hex() if frame.kind == FILE_RECEIPT else ""

    def give_up(self, reason: str) -> None:
        """Nothing more will come of it: tell the other side, if it knows of it."""
        if self._is_offered:
            _tell_refused(self._channel, self._number, reason)


class Offer:
    """One file that the other side wants to send."""

    def __init__(self, channel: Channel, transfer: int, size: int, name: str) -> None:
        self._channel = channel
        self.transfer, self.size, self.name = transfer, size, name
        self._number = encode_number(transfer)

    def receive(self, writer: Writer, progress: Optional[Progress], deadline: float) -> bool:
        """Write the file as it comes; is it the one that was sent? RdtError when it does not come whole."""
        channel, done = self._channel, 0
        while True:
            frame = channel.wait_for(channel.arrivals.files, deadline, "no more of the file")
            try:
                data = self._content_of(frame)
                if data is None:
                    continue
                if frame.kind == FILE_END:
                    return bytes(data).hex() == writer.hexdigest()
                writer.write(data)
                done += len(data)
            finally:
                channel.consume(frame)  # not before it is on the disk: a slow disk slows the sender down
            if progress is not None:
                progress(done, self.size)

    def _content_of(self, frame: Frame) -> Optional[memoryview]:
        """What a frame brings of this transfer; None: it is of another. RdtError when the sender gave up."""
        if number_of(frame.body) != self.transfer:
            return None
        data = behind_number(frame.body)
        if frame.kind == FILE_REFUSED:
            raise RdtError(f"{shown(self._channel.address)} gave up: {decode_reason(data)}")
        return data

    def ask_again(self) -> None:
        """It arrived damaged: the sender shall send it once more. RdtError when it cannot be told any more."""
        self._channel.put_frame(FILE_DAMAGED, self._number)

    def confirm(self, digest: str) -> None:
        """It is kept: tell the sender, if it can still be told; it is here all the same."""
        with contextlib.suppress(RdtError):
            self._channel.put_frame(FILE_RECEIPT, self._number, bytes.fromhex(digest))

    def refuse(self, reason: str) -> None:
        """It will not be kept: tell the sender, and pass over what still comes of it."""
        with contextlib.suppress(RdtError):
            self._channel.post(lambda: self._channel.arrivals.refuse(self.transfer))
        _tell_refused(self._channel, self._number, reason)


def _tell_refused(channel: Channel, number: bytes, reason: str) -> None:
    """Say, without waiting for room, that nothing will come of this file."""
    with contextlib.suppress(RdtError):
        channel.put_frame(FILE_REFUSED, number, encode_reason(reason))
