"""What a person is told of what was sent: under which name, to whom, and whether it was taken.

`Names` is how a content is called towards each who asks for it, and with which folder it is counted. `Receipts` waits
for a `TransferDone`: it may come by another link than the pieces went by, or never, and of many at once a few a second
are told. Both belong to `Serving`. Pure.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Callable, Deque, Optional, Tuple

from protocol.content.names import check_any
from protocol.content.troubles import BadName
from protocol.exchange.contracts import Members
from protocol.exchange.holdings import Holdings
from protocol.exchange.uploads import Sent, UploadLink, Uploads
from protocol.fairness import FairRecords
from protocol.latest import Latest
from protocol.results import ListEntry, UploadDone, UploadEnded

ASKED_NAMES_MAX = 4096  # names remembered, under which contents were asked for
RECEIPT_TIME = 45.0  # seconds from a lost link until it counts that nobody said to have all that was sent there
UNTHANKED_MAX = 256  # lost links on which something was sent
UNTOLD_MAX = 1024  # lines about contents that were taken, put off because there were too many at once


class Names:
    """How what is sent is called, so that both ends tell of it by one name."""

    def __init__(
        self,
        members: Members,
        holdings: Holdings,
        name_of_wanted: Callable[[bytes], Optional[str]],
        in_memory: Callable[[bytes], Any],
    ) -> None:
        self._members = members
        self._holdings = holdings
        self._name_of_wanted = name_of_wanted  # what it is called where it is fetched
        self._in_memory = in_memory  # its fetch, if the pieces are not on the disk
        self._asked = FairRecords(ASKED_NAMES_MAX)  # by node, under the content: the node's name for it

    def note(self, requester: bytes, file_id: bytes, name: str) -> None:
        """Remember what the requester calls this content, so that both ends tell of it by one name."""
        try:
            check_any(name)
        except BadName:  # no name that could be kept: ours is told
            return
        self._asked.put(requester, file_id, name)

    def of(self, upload: UploadLink, file_id: bytes) -> str:
        """As the one that asks for it has called it, else as this node does; its id where nobody does."""
        asked = self._asked.get(upload.node_id, file_id)
        return asked or self._holdings.name_of(file_id) or self._name_of_wanted(file_id) or file_id.hex()[:8]

    def label_of(self, upload: UploadLink) -> str:
        """How it is called now; or was, when its link came up."""
        return self._members.label_of(upload.node_id) if self._members.is_member(upload.node_id) else upload.label

    def counted_as(self, upload: UploadLink, file_id: bytes) -> bytes:
        """The content in whose row this is shown to the person: the folder that it is a part of, or itself."""
        fetch = self._in_memory(file_id)
        if fetch is not None and fetch.folder is not None:  # not announced here yet
            return self._counted_with(upload, fetch.folder)
        if file_id not in upload.folders and (
            self._holdings.files_in(file_id) or self._holdings.is_other_names(file_id)
        ):
            upload.folders.append(file_id)
        return next((folder for folder in upload.folders if file_id in self._holdings.files_in(folder)), file_id)

    def _counted_with(self, upload: UploadLink, folder: ListEntry) -> bytes:
        """A part of a folder that is still fetched here, and known by the name that it has in the list."""
        if folder.file_id not in upload.folders:
            upload.folders.append(folder.file_id)
            if self._asked.get(upload.node_id, folder.file_id) is None:
                self.note(upload.node_id, folder.file_id, folder.name)
        return folder.file_id


class Receipts:
    """Who has taken what was sent. `tick(now)` is called when there is something to be looked after a tick later."""

    def __init__(
        self,
        uploads: Uploads,
        names: Names,
        whole_of: Callable[[bytes], int],
        holdings: Holdings,
        notify: Callable[[Any], None],
        tick: Callable[[float], None],
    ) -> None:
        self._uploads = uploads
        self._names = names
        self._whole_of = whole_of  # the bytes of a content of which anything can be served; 0 if that is not known
        self._holdings = holdings
        self._notify = notify
        self._tick = tick
        self._unthanked: Latest[bytes, Tuple[UploadLink, float]] = Latest(UNTHANKED_MAX)  # until when
        self._untold: Deque[Tuple[UploadLink, bytes, Sent, float]] = deque(maxlen=UNTOLD_MAX)

    def go_on(self, upload: UploadLink) -> None:
        """What the node there got by an earlier link counts together with what it gets by this one."""
        before, _ = self._unthanked.pop(upload.node_id, (None, 0.0))
        if before is not None:
            self._uploads.go_on_from(before, upload)

    def on_link_lost(self, upload: UploadLink, now: float) -> None:
        """It may come by another link that it has all, so that the person here is told."""
        if not self._uploads.sent_on(upload):
            return
        self.go_on(upload)
        forgotten = self._unthanked.put(upload.node_id, (upload, now + RECEIPT_TIME))
        if forgotten is not None:  # it gives way to this one: what is known of it is told now, or never
            self._tell_unconfirmed(forgotten[0])
        self._tick(now)

    def on_done(self, upload: UploadLink, file_id: bytes, now: float) -> None:
        """It has it all: told once, and believed only if something of it was sent there."""
        sent = self._forget(upload, file_id)
        if sent is not None and sent.size:
            self._untold.append((upload, file_id, sent, now))
            self._tell_done(now)

    def on_called_off(self, upload: UploadLink, file_id: bytes, now: float) -> None:
        """It is over without the whole; told if anything was sent."""
        sent = self._forget(upload, file_id)
        if sent is not None and sent.size and upload.done_lines.take(now):
            name, whole = self._names.of(upload, file_id), self._whole_of(file_id)
            self._notify(UploadEnded(name, sent.size, whole, self._names.label_of(upload), file_id))

    def _forget(self, upload: UploadLink, file_id: bytes) -> Optional[Sent]:
        """What was sent of it, which is over now."""
        sent = self._uploads.forget_sent(upload, file_id)
        if file_id in upload.folders:
            upload.folders.remove(file_id)
        return sent

    def _check(self, now: float) -> None:
        for node_id in [node_id for node_id, (_, until) in self._unthanked.items() if now >= until]:
            self._tell_unconfirmed(self._unthanked.pop(node_id)[0])

    def _tell_unconfirmed(self, upload: UploadLink) -> None:
        """No receipt came: what was sent whole is told all the same, and that nobody said to have it."""
        for file_id, sent in self._uploads.sent_on(upload):
            self._uploads.forget_sent(upload, file_id)
            whole = self._holdings.total_of(file_id) or self._holdings.size_of(file_id)
            if whole and sent.size >= whole:  # of a part nobody could say whether it was of any use
                self._tell_sent(upload, file_id, sent, sent.at, False)

    def _tell_done(self, now: float) -> None:
        """Who takes many contents in a moment has their lines told a few a second."""
        waiting, self._untold = self._untold, deque(maxlen=UNTOLD_MAX)
        for upload, file_id, sent, at in waiting:
            if upload.done_lines.take(now):
                self._tell_sent(upload, file_id, sent, at, True)
            else:
                self._untold.append((upload, file_id, sent, at))
        if self._untold:
            self._tick(now)

    def _tell_sent(self, upload: UploadLink, file_id: bytes, sent: Sent, now: float, is_confirmed: bool) -> None:
        name, label, seconds = self._names.of(upload, file_id), self._names.label_of(upload), now - sent.started_at
        self._notify(UploadDone(name, sent.size, seconds, label, file_id, is_confirmed, self._whole_of(file_id)))

    # ---- time, and the end

    def has_work(self) -> bool:
        """Is there anything to be looked after with each tick?"""
        return bool(self._unthanked or self._untold)

    def on_tick(self, now: float) -> None:
        """About once a second: what is over by now, and what of it the person is told."""
        self._check(now)
        self._tell_done(now)

    def end_all(self) -> None:
        """The node leaves: what is known to have been taken is told, and nothing else."""
        for untold in self._untold:
            self._tell_sent(*untold, True)
        self._untold.clear()
        while self._unthanked:
            upload = self._unthanked.popitem()[1][0]
            for file_id, _ in self._uploads.sent_on(upload):
                self._uploads.forget_sent(upload, file_id)
