"""Tracebacks in the log: a handler that fails a thousand times a second does not fill the disk with them."""

from __future__ import annotations

import logging
import sys

import pytest

from protocol.mishaps import INTERVAL, LINES_MAX, PLACES_MAX, Mishaps, logger


class Log:
    """A logger with the filter, and a clock that the test turns."""

    def __init__(self):
        self.mishaps, self.lines, self.now = Mishaps(), [], 1000.0
        self.log = logging.Logger("test")
        self.log.addFilter(self.mishaps)

    def say(self, text, *arguments, exc_info=None):
        record = self.log.makeRecord("test", logging.ERROR, __file__, 1, text, arguments, exc_info)
        record.created = self.now
        if self.log.filter(record):
            self.lines.append(record.getMessage())

    def fail(self, handler):
        try:
            handler()
        except Exception:
            self.say("dropped %s", "it", exc_info=sys.exc_info())


def one():
    raise ValueError("one")


def other():
    {}["other"]


def test_a_place_that_fails_again_and_again_is_told_once_a_minute_with_a_count():
    log = Log()
    for _ in range(700):
        log.fail(one)
        log.now += 0.01
    log.fail(other)  # has its own minute
    assert log.lines == ["dropped it", "dropped it"]
    log.now += INTERVAL
    log.fail(one)
    assert log.lines[2:] == ["dropped it (699 more of these were left out)"]
    log.fail(one)
    log.fail(one)
    (rest,) = log.mishaps.rest()
    assert rest.startswith("2 more ValueError at ") and rest.endswith("were left out") and not log.mishaps.rest()


def test_what_has_no_traceback_is_always_told():
    log = Log()
    for _ in range(3):
        log.say("the port is taken")
    assert len(log.lines) == 3


def test_a_flood_of_lines_of_one_place_is_told_sixty_times_a_minute_with_a_count():
    log = Log()
    for number in range(500):
        log.say("refused %d", number)
    assert len(log.lines) == LINES_MAX
    log.now += INTERVAL
    log.say("refused %d", 500)
    assert log.lines[LINES_MAX:] == ["refused 500 (before it %d more of these were left out)" % (500 - LINES_MAX)]
    for number in range(LINES_MAX + 6):
        log.say("refused %d", number)
    (rest,) = log.mishaps.rest()
    assert rest.startswith("7 more lines at ") and not log.mishaps.rest()


def test_a_name_that_another_node_made_up_breaks_no_line():
    log = Log()
    log.say("took in %s", "bo\n2026-11-27 INFO \x1b[2Ja\u202eb")
    assert log.lines == ["took in bo\\u{a}2026-11-27 INFO \\u{1b}[2Ja\\u{202e}b"]


def test_a_clock_that_is_set_back_hides_no_failure_for_a_year():
    log = Log()
    log.fail(one)
    log.now -= 365 * 86400.0
    log.fail(one)
    assert len(log.lines) == 2


def test_failures_at_many_places_are_remembered_within_a_bound():
    log = Log()
    places = [compile("\n" * number + "1 // 0", "made", "exec") for number in range(3 * PLACES_MAX)]
    for place in places:
        log.fail(lambda place=place: exec(place))
    assert len(log.lines) == 3 * PLACES_MAX and len(log.mishaps._told) == PLACES_MAX


@pytest.mark.parametrize("name", ["rdt", "node"])
def test_the_loggers_of_the_program_repeat_no_traceback(name, caplog):
    """Whichever room it is that asks for one: the same logger has the same filter once."""
    log = logger(name)
    assert log is logger(name) and len(log.filters) == 1
    failure = type("FailureOf" + name, (Exception,), {})
    for _ in range(50):
        try:
            raise failure
        except failure:
            log.exception("dropped")
    assert caplog.text.count("Traceback") == 1
