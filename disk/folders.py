"""Shared folders: each is announced as one entry, with its listing and the packs of its small files.

Owned by the scanner's thread.
"""

from __future__ import annotations

import hashlib
import os
from typing import Any, Dict, List, Tuple

from disk.access import StillChanging, read_member
from disk.digests import RACY_TIME_NS, DigestStore
from disk.known import Known
from disk.passing import Passing, Stopped
from disk.walk import Walk
from protocol.content.listing import FolderEntry, Pack, PathSet, in_order, more_entry, packs_in
from protocol.content.names import is_portable
from protocol.content.pieces import digests_of
from protocol.content.shares import (
    Fingerprint,
    SharedFile,
    Top,
    Troubles,
    shared_folder,
    shared_more,
    shared_pack,
    traits_of,
    with_more,
)
from protocol.content.traits import encode_traits
from protocol.content.troubles import LibraryError, is_short


class Folders:
    """All of them, by path, and what each was made of."""

    def __init__(self, known: Known, store: DigestStore, passing: Passing) -> None:
        self.held: set[str] = set()  # names of those that a download fills: they stay as they are
        self.packs: Dict[str, List[SharedFile]] = {}
        self._known = known
        self._store = store
        self._passing = passing
        self._shared: Dict[str, SharedFile] = {}
        self._contents: Dict[str, Tuple[Any, ...]] = {}  # what a listing was made of
        self._twins: Dict[str, List[str]] = {}  # in it, that others take for one with another

    def forget(self, walk: Walk) -> None:
        """Remove those that are no longer there."""
        for path in list(self._shared):
            if path not in walk.tops:
                self._forget_folder(path)

    def _forget_folder(self, path: str) -> None:
        self._contents.pop(path, None)
        self._twins.pop(path, None)
        if path in self._shared:
            self._passing.remove(self._shared.pop(path))
        self._passing.remove(*self.packs.pop(path, []))

    def show(self, path: str, top: Top, troubles: Troubles) -> None:
        """Announce a folder as one entry, when its content is new."""
        if top.name in self.held:  # a download fills it: each file that comes would be another folder to all
            return
        known = self._known.files
        files = [(name, known[path]) for name, path in top.members if path in known]
        for name in [name for name, path in top.members if path not in known]:
            top.leave_out("changing", name)
        contents = files, top.empty, dict(top.left_out)
        if self._contents.get(path) == contents:
            for twin in self._twins.get(path, ()):
                troubles.add("twin", f"{top.name}/{twin}")
            return
        self._forget_folder(path)  # whose id follows from its listing: it is another content now
        self._contents[path] = contents
        entries, others = self._entries(path, top, files, troubles)
        if entries or others:
            try:
                packs = self._packed(path, top.name, entries, dict(files))
            except (Stopped, OSError):
                self._contents.pop(path)  # it is listed at the next pass
                raise
            traits = _traits_of([*in_order(entries), *in_order(others)], dict(files), top)
            self._announce(path, top.name, entries, others, packs, traits, troubles)

    def _entries(
        self, path: str, top: Top, files: List[Tuple[str, SharedFile]], troubles: Troubles
    ) -> Tuple[List[FolderEntry], List[FolderEntry]]:
        """What stands in its listing, and what in the one of names that not all can keep."""
        entries, paths = [], PathSet()
        made = [FolderEntry(name, shared.size, shared.file_id, False) for name, shared in files]
        for entry in [*made, *(FolderEntry(name, 0, b"", True) for name in top.empty)]:
            if paths.add(entry.path):
                entries.append(entry)
            else:
                troubles.add("twin", f"{top.name}/{entry.path}")
                top.leave_out("twin", entry.path)
                self._twins.setdefault(path, []).append(entry.path)
        others = [entry for entry in entries if not is_portable(entry.path)]
        if others:  # apart, for who cannot keep one of them shall get all the rest
            apart = {entry.path for entry in others}
            entries = [entry for entry in entries if entry.path not in apart]
        return entries, others

    def _announce(
        self,
        path: str,
        name: str,
        entries: List[FolderEntry],
        others: List[FolderEntry],
        packs: List[SharedFile],
        traits: bytes,
        troubles: Troubles,
    ) -> None:
        """`others`: entries whose names not all can keep, in a listing of their own."""
        try:
            if others:
                more = shared_more(f"{name}/other names", f"{path}{os.sep}.more", others)
                entries = [*entries, more_entry(more.listing, more.file_id)]
                packs = [*packs, more]
            shared = shared_folder(name, path, entries, packs[:-1] if others else packs, traits)
            self._shared[path] = shared = with_more(shared, more) if others else shared
        except LibraryError:
            troubles.add("big", name)
        else:
            self.packs[path] = packs
            self._passing.add(*packs, shared)

    # ---- packs of small files

    def _packed(
        self, path: str, name: str, entries: List[FolderEntry], files: Dict[str, SharedFile]
    ) -> List[SharedFile]:
        """The packs of a folder's small files; none while any of them changes."""
        packs = []
        try:
            for number, pack in enumerate(packs_in(in_order(entries)), 1):
                members = tuple((files[entry.path].path, files[entry.path].fingerprint) for entry in pack.members)
                digests = self._digests_of_pack(pack, members)
                packs.append(
                    shared_pack(f"{name}/small files {number}", f"{path}{os.sep}.pack {number}", pack, digests, members)
                )
        except StillChanging:
            return []
        except OSError as error:
            if is_short(error):
                raise
            return []
        return packs

    def _digests_of_pack(self, pack: Pack, members: Tuple[Tuple[str, Fingerprint], ...]) -> bytes:
        """Digests of the pieces of a pack, hashed once and kept."""
        # The files are known by now, so what they are together depends on nothing but their ids.
        place = ":pack " + hashlib.sha256(b"".join(entry.file_id for entry in pack.members)).hexdigest()
        fingerprint = (pack.size, 0, 0)
        kept = self._store.find(place, fingerprint)
        if kept:
            return kept
        data = bytearray()
        for path, expected in members:
            self._passing.tick()
            data += read_member(path, expected, 0, expected[0])
        digests = digests_of(bytes(data))
        self._store.keep(place, fingerprint, digests, 2 * RACY_TIME_NS)
        return digests


def _traits_of(entries: List[FolderEntry], files: Dict[str, SharedFile], top: Top) -> bytes:
    """What is told beside its listing: of each file, in the order of the listings, and what is not shared."""
    traits = [traits_of(files[entry.path]) for entry in entries if not entry.is_folder]
    return encode_traits(list(top.left_out.values()), traits)
