"""One look at what lies in the shared places; owned by the scanner's thread."""

from __future__ import annotations

import errno
import os
import stat
from typing import Callable, Dict, List, Optional

from disk.access import changed_ns_of, fingerprint_of, is_link
from protocol.content.names import check_name
from protocol.content.pieces import FILE_SIZE_MAX
from protocol.content.shares import SCAN_FILES_MAX, Found, Top, Troubles
from protocol.content.troubles import BadName, is_changed, is_short


class Walk:
    """One look at what lies in the shared places: names and fingerprints, nothing is opened."""

    def __init__(self, tick: Callable[[], None]) -> None:
        self.files: Dict[str, Found] = {}
        self.tops: Dict[str, Top] = {}
        self.troubles = Troubles()
        self.has_seen_folder = True
        self._tick = tick

    def add_folder_itself(self, folder: str) -> None:
        """Look at the shared folder: each of its files and folders is shared by itself."""
        try:
            children = self._children(folder)
        except OSError as error:
            if is_short(error):
                raise
            self.troubles.add("folder", folder)
            self.has_seen_folder = False        # it may be back, with all that is known of it
            return
        for child in children:
            self.add(folder + os.sep + child, child, None)

    def add(self, path: str, name: str, top: Optional[Top]) -> None:
        """Look at a file or folder; `top` is the shared folder that it is in, if any."""
        self._tick()
        if len(self.files) >= SCAN_FILES_MAX:
            self.troubles.add("many", name)
            return
        try:
            check_name(name)
            status = os.lstat(path)
        except BadName:
            self.troubles.add("name", name)
        except OSError as error:
            if not is_changed(error):      # else it went while we looked
                self.add_trouble(error, name)
        else:
            self._add_checked(path, name, top, status)

    def _add_checked(self, path: str, name: str, top: Optional[Top], status: os.stat_result) -> None:
        if is_link(status):
            self.troubles.add("link", name)
        elif stat.S_ISDIR(status.st_mode):
            if top is None:
                top = self.tops[path] = Top(name)
            self._add_folder(path, name, top)
        elif stat.S_ISREG(status.st_mode) and status.st_size > FILE_SIZE_MAX:
            self.troubles.add("huge", name)
        elif stat.S_ISREG(status.st_mode):
            if top is not None:
                top.members.append((name[len(top.name) + 1:], path))
            self.files[path] = Found(name, top is None, fingerprint_of(status), changed_ns_of(status))
        else:
            self.troubles.add("special", name)

    def _add_folder(self, path: str, name: str, top: Top) -> None:
        try:
            children = self._children(path)
        except OSError as error:
            if not is_changed(error):      # else it went while we looked
                self.add_trouble(error, name)
            return
        if not children and name != top.name:
            top.empty.append(name[len(top.name) + 1:])
        for child in children:
            self.add(path + os.sep + child, f"{name}/{child}", top)

    @staticmethod
    def _children(path: str) -> List[str]:
        """What is in a folder, without dotfiles."""
        return sorted(name for name in os.listdir(path) if not name.startswith("."))

    def add_trouble(self, error: OSError, name: str) -> None:
        """Count what cannot be read by its cause; where the system is only short of something, the walk ends here."""
        if is_short(error):
            raise error
        self.troubles.add("broken" if error.errno == errno.EIO else "unreadable", name)
