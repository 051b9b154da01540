"""What the network thread sleeps on."""

from __future__ import annotations

import select
import selectors
from typing import List, Optional


class Watch:
    """Sleeps until the socket, the inbox of the network thread or the door has something.

    By select(), whose timeout has microseconds, as pacing wants: what else there is counts milliseconds. But select()
    knows no descriptor from 1,024 on; a program that has so many open gets what its platform has.
    """

    def __init__(self, datagrams: int, wakened: int) -> None:
        self._datagrams, self._reading = datagrams, [datagrams, wakened]
        self._selector: Optional[selectors.BaseSelector] = None
        self._choose()

    def _choose(self) -> None:
        try:
            select.select(self._reading, [], [], 0)
        except ValueError:
            self._selector = selectors.DefaultSelector()
            for descriptor in self._reading:
                self._selector.register(descriptor, selectors.EVENT_READ)

    def add(self, descriptor: int) -> None:
        """Wait for this one, too."""
        self._reading.append(descriptor)
        if self._selector is not None:
            self._selector.register(descriptor, selectors.EVENT_READ)
        else:
            self._choose()

    def drop(self, descriptor: int) -> None:
        """Wait for this one no more."""
        self._reading.remove(descriptor)
        if self._selector is not None:
            self._selector.unregister(descriptor)

    def wait(self, timeout: float, is_full: bool) -> List[int]:
        """Which can be read; comes back too when the socket, which was full, takes more."""
        if self._selector is None:
            return select.select(self._reading, self._reading[:1] if is_full else [], [], timeout)[0]
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if is_full else 0)
        if self._selector.get_key(self._datagrams).events != wanted:
            self._selector.modify(self._datagrams, wanted)
        return [key.fd for key, events in self._selector.select(timeout) if events & selectors.EVENT_READ]

    def wait_for_others(self, timeout: float) -> List[int]:
        """The same of all but the socket; at once, and none, where a platform's own way is used instead of select()."""
        return select.select(self._reading[1:], [], [], timeout)[0] if self._selector is None else []

    def close(self) -> None:
        """Give the selector's descriptor back, where there is one."""
        if self._selector is not None:
            self._selector.close()
