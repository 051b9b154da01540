"""B and U: what a person shares from elsewhere, and what is asked before keys, homes or the system are shared."""

from __future__ import annotations

from typing import Any

from prompt.asking import Asking, Life
from prompt.lines import format_size, short_id
from prompt.paths import danger_of, found_paths, short_path, unasked_line, unquoted, why_refused
from prompt.table import share_table
from protocol.looks import safe_text


class Sharing:
    """What is shared beside the folder."""

    def __init__(self, life: Life, asking: Asking) -> None:
        self.has_shared = False  # something, by B
        self._life = life
        self._asking = asking

    def share(self, path: str) -> None:
        """B: share a file or folder from elsewhere; without a path, list what is shared."""
        if not path:
            self._asking.ask(lambda peer, now, done: done((peer.shares(), peer.left_out())), self._show_shares)
            return
        found = found_paths(path)
        if found is None:
            self._asking.refuse(f"!! {safe_text(path)}  there is no such file or folder")
            return
        for full in found:
            if self._is_meant(full):
                self.has_shared = True
                self._asking.ask(
                    lambda peer, now, done, full=full: peer.share(full, now, done),  # type: ignore[misc]
                    self._say_share,
                )

    def _is_meant(self, path: str) -> bool:
        """Whether a path may be shared: of keys, a home, the system or a whole disk a person says so twice."""
        danger = danger_of(path)
        if not danger:
            return True
        if not self._life.terminal.is_asking:
            self._asking.refuse(f"!! {unasked_line(path, danger)}")
            return False
        why_not = why_refused(path, self._life.node.folder)
        if why_not:  # nobody is asked in vain
            self._asking.refuse(f"!! {why_not}")
            return False
        self._asking.say(f"{short_path(path)} {danger}.")
        is_meant = self._life.confirm("Share it with everybody here?")
        self._asking.say("" if is_meant else "* not shared")
        return is_meant

    def unshare(self, what: str) -> None:
        """U: share no longer what B has shared."""
        name, paths = unquoted(what).rstrip("/") or what, found_paths(what) or []
        if not name:
            self._asking.refuse("U needs a name or a path of what B lists: U intro.pdf")
            return
        self._asking.ask(
            lambda peer, now, done: peer.unshare(name, paths[0] if paths else name, now, done), self._say_share
        )

    def _show_shares(self, found: Any) -> None:
        """B alone: what is shared from elsewhere, and where it lies."""
        rows, left_out = found or ((), ())
        cells = [
            (safe_text(row.name), format_size(row.size), f"id {short_id(row.file_id)}", short_path(row.path))
            for row in rows
        ]
        for line in share_table(cells, self._asking.width()) or [
            "You share nothing yet. B path shares a file or folder."
        ]:
            self._asking.say(line)
        for _, why in left_out:
            self._asking.say(f"* {safe_text(why, 1100)}")

    def _say_share(self, text: Any) -> None:
        self._asking.say_result(text)
        token = object()
        if not self._life.terminal.is_asking:  # in a script the next command may rely on it
            self._asking.due.add(token)
        self._life.node.look_now(lambda: self._life.later(lambda: self._asking.due.discard(token)))
