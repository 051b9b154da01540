"""What commands ask of the node: closures for the node thread, whose answers come back to the prompt's."""

from __future__ import annotations

import contextlib
import queue
from typing import Any, Callable, List, Optional, Protocol

from prompt.readers import next_of
from prompt.terminal import Terminal
from protocol.looks import safe_text

KEY_SECONDS = 0.3  # that Tab waits for the node


class Life(Protocol):
    """What the commands ask of the program that they are part of."""

    @property
    def terminal(self) -> Terminal: ...
    @property
    def clock(self) -> Callable[[], float]: ...
    @property
    def node(self) -> Any: ...
    @property
    def signals(self) -> List[int]:
        """Those that came and were not yet heeded."""

    def say(self, line: str) -> None: ...
    def later(self, closure: Callable[[], None]) -> None:
        """From any thread: have this done by the prompt, soon."""

    def wait_until(self, is_met: Callable[[], bool], timeout: float) -> bool:
        """Show what arrives until `is_met`; False when the time is over or a signal came."""

    def confirm(self, question: str) -> bool:
        """Whether a person says yes; nobody does where nobody can be asked. Not while a line is read."""

    def finish_saying(self) -> None: ...
    def fail(self) -> None:
        """In a script, something that was asked for did not come."""

    def end(self) -> None:
        """No more commands."""


class Asking:
    """What is asked and not answered yet, and what is said of it."""

    def __init__(self, life: Life) -> None:
        self.due: set[object] = set()  # answers that a command still waits for
        self._life = life

    # ---- to the person

    def say(self, line: str) -> None:
        """One line for the person."""
        self._life.say(line)

    def width(self) -> Optional[int]:
        """Of the window, in columns; None where there is none."""
        return self._life.terminal.width()

    def refuse(self, line: str) -> None:
        """Says why a line was not done; a script's exit code says so, too.

        With `!!` if it was understood and could not be done, as all that fails; without, if it is to be said otherwise.
        """
        self._life.fail()
        self.say(line)

    def say_result(self, text: Any) -> None:
        """The line that a command ended with; a script's exit code tells if it was done."""
        if isinstance(text, str) and text:
            if text.startswith("!!"):
                self._life.fail()
            self.say(safe_text(text, 1024))

    # ---- of the node

    def ask(self, call: Callable[[Any, float, Callable[..., None]], None], show: Callable[[Any], None]) -> None:
        """Has `call(peer, now, done)` run on the node thread, and `show(result)` here when it calls `done(result)`."""
        token = object()
        self.due.add(token)

        def answered(result: Any) -> None:
            self.due.discard(token)
            show(result)

        def run(now: float) -> None:
            try:
                call(self._life.node.peer, now, lambda result=None: self._life.later(lambda: answered(result)))
            except Exception:
                self._life.later(self._life.fail)
                self._life.later(lambda: answered(None))
                raise

        self._life.node.call(run)

    def at_once(self, call: Callable[[Any, float], Any]) -> Any:
        """What the node says within a moment, or nothing. Nothing is drawn meanwhile: a key is being heeded."""
        answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._life.node.call(lambda now: answers.put(call(self._life.node.peer, now)))
        with contextlib.suppress(queue.Empty):
            return next_of(answers, KEY_SECONDS) or ()
        return ()

    def await_answers(self, patience: float) -> None:
        """Waits so many seconds for what the last command asked for; the next one does not wait for it again."""
        if not self._life.wait_until(lambda: not self.due, patience):
            self.due.clear()
