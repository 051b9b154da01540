"""A verb that waits, on a thread beside the test."""

from __future__ import annotations

import threading

WAIT = 20.0  # seconds; a bound for a busy machine, not an expectation


def in_background(verb, *args, **kwargs):
    """Run a verb on a thread; the returned function gives its result or raises its error."""
    box = {}

    def work():
        try:
            box["result"] = verb(*args, **kwargs)
        except Exception as error:
            box["error"] = error

    thread = threading.Thread(target=work, daemon=True)
    thread.start()

    def result():
        thread.join(WAIT)
        assert not thread.is_alive(), "the verb hangs"
        if "error" in box:
            raise box["error"]
        return box["result"]

    return result
