"""What the sources of one content owe: the pieces that they were asked for, and the bytes of them in flight.

Bytes are in flight from the request until the piece is on the disk. What is asked is counted in four places, here, at
its source, on its link and against the limit of what is fetched; each verb keeps all of them equal. Pure.
"""

from __future__ import annotations

from typing import Any, Optional, Protocol

from protocol.exchange.picking import PieceChoice
from protocol.exchange.source import Source
from protocol.messages import PieceCancel


class DebtHands(Protocol):
    """What is done for it, by whoever has a Download made."""

    def send(self, link: int, message: object) -> None: ...

    def count_requests(self, link: int, change: int) -> None:
        """So many pieces more are asked for on this link; or less, with a negative number."""

    def note_asked(self, size: int) -> None:
        """So many bytes are asked for; a negative number will not come, after all."""

    def write(self, index: int, data: Any, link: int) -> None:
        """Verify and write; answered by the download's `on_written`."""


class Debts:
    """Who owes what of one content."""

    def __init__(self, file_id: bytes, hands: DebtHands) -> None:
        self.in_flight_bytes = 0  # asked, or received and not yet written
        self._file_id = file_id
        self._hands = hands

    # ---- asked

    def ask(self, source: Source, index: int, length: int, now: float) -> None:
        """The source is asked for this piece."""
        source.ask(index, length, now)
        self._hands.note_asked(length)
        self._count(source, length)

    def exchange(self, source: Source, index: int, length: int) -> None:
        """It gives this piece for another one, whose bytes the limit has let pass already."""
        source.owe(index, length)
        self._count(source, length)

    def _count(self, source: Source, length: int) -> None:
        self.in_flight_bytes += length
        self._hands.count_requests(source.link, 1)

    # ---- owed no more

    def forgive(self, source: Source, index: int) -> None:
        """The piece is here, or it comes no more; its bytes have passed the limit."""
        self.in_flight_bytes -= source.forgive(index)
        self._hands.count_requests(source.link, -1)

    def take_back(self, source: Source, index: int) -> None:
        """What is still to come of this piece will not."""
        owed = source.owed[index]
        self._hands.note_asked(owed.received - owed.length)
        self.forgive(source, index)

    def cancel(self, source: Optional[Source], index: int) -> None:
        """The source shall not send this piece, if it owes it."""
        if source is not None and index in source.owed:
            self.take_back(source, index)
            self._hands.send(source.link, PieceCancel(self._file_id, index))

    def release(self, source: Source, choice: Optional[PieceChoice], cancel: bool) -> None:
        """Take back everything that it owes, and tell it so with `cancel`; others may be asked for it."""
        for index in list(source.owed):
            self.take_back(source, index)
            if cancel:
                self._hands.send(source.link, PieceCancel(self._file_id, index))
            if choice is not None:
                choice.release(source.link, index)

    def refuse(self, source: Source, choice: PieceChoice, given: int) -> None:
        """Nobody wants what it gives, or it was asked of it as well: then it comes once, by what is read already."""
        self._hands.send(source.link, PieceCancel(self._file_id, given))
        owed = source.owed.get(given)
        if owed is None:
            return
        owed.exchange()
        if not owed.is_coming:
            self.take_back(source, given)
            choice.release(source.link, given)

    # ---- on its way to the disk

    def write(self, choice: PieceChoice, index: int, data: Any, link: int) -> bool:
        """A whole piece came by that link, asked for or not: to the disk with it. False if it is not wanted."""
        if not choice.is_wanted(index):
            return False
        choice.settle(link, index)
        self.in_flight_bytes += len(data)
        self._hands.write(index, data, link)
        return True

    def on_written(self, length: int) -> None:
        """They are written, or refused."""
        self.in_flight_bytes -= length
