"""How the disk is on which a folder lies, for whoever asks what is the matter."""

from __future__ import annotations

import os

from disk.access import files_left
from disk.room import FILES_OF_PART, disk_of
from protocol.content.troubles import LibraryError
from protocol.facts import Disk


def state_of(folder: str) -> Disk:
    """Its room, and why nothing can be written there; never raises."""
    try:
        disk = disk_of(folder)
    except LibraryError as error:
        return Disk(folder, trouble=str(error))
    trouble = "" if os.access(folder, os.W_OK) else "it cannot be written to"
    return Disk(folder, disk.free, disk.total, files_left(folder) >= FILES_OF_PART, trouble)
