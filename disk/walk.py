"""One look at what lies in the shared places; owned by the scanner's thread."""

from __future__ import annotations

import errno
import os
import stat
from typing import Callable, Dict, List, Optional

from disk.access import changed_ns_of, fingerprint_of, is_executable, is_link
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
            self._leave_out("many", name, top)
            return
        try:
            check_name(name)
            status = os.lstat(path)
        except BadName as error:
            self._leave_out("deep" if error.is_long else "name", name, top)
        except OSError as error:
            if not is_changed(error):      # else it went while we looked
                self.add_trouble(error, name, top)
        else:
            self._add_checked(path, name, top, status)

    def _add_checked(self, path: str, name: str, top: Optional[Top], status: os.stat_result) -> None:
        """What stands at that path: a folder, a file, or what is left out with its reason."""
        if is_link(status):  # it may lead anywhere, also out of the folder (THREATS: A06)
            self._leave_out("link", name, top)
        elif stat.S_ISDIR(status.st_mode):
            if top is None:
                top = self.tops[path] = Top(name)
            self._add_folder(path, name, top)
        elif stat.S_ISREG(status.st_mode) and status.st_size > FILE_SIZE_MAX:
            self._leave_out("huge", name, top)
        elif stat.S_ISREG(status.st_mode):
            if top is not None:
                top.members.append((name[len(top.name) + 1:], path))
            self.files[path] = Found(name, top is None, fingerprint_of(status), changed_ns_of(status),
                                     is_executable(status))
        else:
            self._leave_out("special", name, top)

    def _add_folder(self, path: str, name: str, top: Top) -> None:
        try:
            children = self._children(path)
        except OSError as error:
            if not is_changed(error):      # else it went while we looked
                self.add_trouble(error, name, top)
            return
        if not children and name != top.name:
            top.empty.append(name[len(top.name) + 1:])
        for child in children:
            self.add(path + os.sep + child, f"{name}/{child}", top)

    @staticmethod
    def _children(path: str) -> List[str]:
        """What is in a folder, without dotfiles: there programs keep keys and settings, and this one its own state."""
        return sorted(name for name in os.listdir(path) if not name.startswith("."))

    def _leave_out(self, kind: str, name: str, top: Optional[Top]) -> None:
        """This is not shared; if it is in a shared folder, that tells it."""
        self.troubles.add(kind, name)
        if top is not None:
            top.leave_out(kind, name[len(top.name) + 1:])

    def add_trouble(self, error: OSError, name: str, top: Optional[Top] = None) -> None:
        """Count what cannot be read by its cause; where the system is only short of something, the walk ends here."""
        if is_short(error):
            raise error
        self._leave_out("broken" if error.errno == errno.EIO else "unreadable", name, top)
