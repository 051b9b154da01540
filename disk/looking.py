"""Hashing what lies on the disk against the digests of a content: pieces of a part, and files that may be the same.

Owned by the disk thread, like the library that uses it.
"""

from __future__ import annotations

import concurrent.futures
import os
from typing import Dict, List, Optional, Set

from disk.access import digest_range, fingerprint_of, no_tick, open_regular
from disk.flushing import Submit
from disk.places import Folder, candidates_of
from disk.steps import Steps
from protocol.content.parts import Content
from protocol.content.pieces import MIB, digest_at, piece_count_of, piece_length, piece_size_of
from protocol.content.shares import Fingerprint
from protocol.content.troubles import is_short

SLICE_BYTES = 64 * MIB         # hashed or copied in one slice: others wait for the disk, too


def right_ones(content: Content, descriptor: int, indexes: List[int]) -> Set[int]:
    """Which of these pieces an open file holds."""
    piece_size = piece_size_of(content.size)

    def is_right(index: int) -> bool:
        length = piece_length(content.size, index)
        return digest_range(descriptor, index * piece_size, length, no_tick) == digest_at(content.digests, index)

    return set(filter(is_right, indexes))


def right_ones_by_two(submit: Optional[Submit], content: Content, descriptor: int, indexes: List[int]) -> Set[int]:
    """The same, half of them on a thread beside, where there is one and a descriptor can be read by two."""
    half = len(indexes) // 2
    if submit is None or not half or not hasattr(os, "pread"):
        return right_ones(content, descriptor, indexes)
    others = submit(right_ones, content, descriptor, indexes[half:])
    try:
        return right_ones(content, descriptor, indexes[:half]) | others.result()
    finally:
        concurrent.futures.wait([others])       # it must not read by a descriptor that is closed


def find_twin(content: Content, folder: str, name: str) -> Steps[Dict[str, Fingerprint]]:
    """Which of the files that bear the name, or one that would be tried next, has this very content, and as what."""
    for candidate in candidates_of(name):
        path = os.path.join(folder, candidate)
        try:
            size = os.lstat(path).st_size
        except OSError:
            break
        if size == content.size:
            found = yield from _fingerprint_if_same(content, path)
            if found is not None:
                return {candidate: found}
    return {}


def is_twin(twins: Dict[str, Fingerprint], place: Folder, name: str) -> bool:
    """Whether what bears the name is still the file that was hashed."""
    return name in twins and fingerprint_of(place.status(name)) == twins[name]


def _fingerprint_if_same(content: Content, path: str) -> Steps[Optional[Fingerprint]]:
    """The fingerprint of what stands there, if each piece is the content's, and it stayed as it is; else None."""
    try:
        descriptor = open_regular(path)
    except OSError as error:
        if is_short(error):
            raise
        return None
    try:
        found, hashed = fingerprint_of(os.fstat(descriptor)), 0
        for index in range(piece_count_of(content.size)):
            if not right_ones(content, descriptor, [index]):
                return None
            hashed += piece_length(content.size, index)
            if hashed >= SLICE_BYTES:
                hashed = 0
                yield
        return found if fingerprint_of(os.fstat(descriptor)) == found and found[0] == content.size else None
    except OSError:                     # it cannot be read: that is no trouble of what is to be saved beside it
        return None
    finally:
        os.close(descriptor)
