"""Lists on their way: what is asked of the supernode, what is taken of its answers, and when a list is over."""

from __future__ import annotations

import random

import pytest

from protocol.exchange.lists import LIST_PAGES_AHEAD, LIST_TIMEOUT, Lists
from protocol.messages import FILE_NAME_BYTES_MAX, LIST_PER_PAGE, ListPage, ListRow


def rows(first, count):
    return tuple(
        ListRow(b"%032d" % number, 1, "%d.txt" % number, False, 1, 1, 1, ()) for number in range(first, first + count)
    )


class Desk:
    """A supernode's end, and what the person was told: (rows, total) for each list."""

    def __init__(self):
        self.asked, self.told = [], []
        self.lists = Lists(random.Random(1), self._on_sent)

    def _on_sent(self, request):
        self.asked.append(request)
        return True

    def ask(self, pattern="", now=0.0):
        self.lists.ask(pattern, now, lambda rows, total, now: self.told.append((rows, total)))
        return self

    def answers(self, first, count, total, now=1.0):
        return self.lists.on_page(ListPage(self.asked[0].request_id, first, total, rows(first, count)), now)


def test_the_first_page_tells_how_many_are_asked_at_once():
    desk = Desk().ask()
    assert [request.first for request in desk.asked] == [0]
    assert desk.answers(0, LIST_PER_PAGE, 100 * LIST_PER_PAGE)
    assert [request.first for request in desk.asked] == [n * LIST_PER_PAGE for n in range(1 + LIST_PAGES_AHEAD)]
    assert not desk.told


def test_a_list_is_told_when_its_last_row_is_here():
    desk = Desk().ask()
    assert desk.answers(0, LIST_PER_PAGE, LIST_PER_PAGE + 1) and not desk.told
    assert desk.answers(LIST_PER_PAGE, 1, LIST_PER_PAGE + 1)
    (told, total), = desk.told
    assert tuple(told) == rows(0, LIST_PER_PAGE + 1) and total == len(told)
    assert desk.lists.next_deadline() == float("inf")


@pytest.mark.parametrize("first", [1, LIST_PER_PAGE, 2**31])
def test_a_page_out_of_order_or_to_no_question_is_refused(first):
    desk = Desk().ask()
    assert not desk.answers(first, 1, first + 1)
    assert desk.answers(0, 0, 0) and desk.told == [([], 0)]
    assert not desk.answers(0, 0, 0), "that list is over"


def test_a_new_supernode_is_asked_for_what_is_missing():
    desk = Desk().ask()
    desk.answers(0, LIST_PER_PAGE, 3 * LIST_PER_PAGE)
    del desk.asked[1:]
    desk.lists.on_joined()
    assert [request.first for request in desk.asked[1:]] == [LIST_PER_PAGE]


def test_silence_ends_a_list_with_what_came_and_none_means_that_nobody_answered():
    desk = Desk().ask()
    assert desk.lists.next_deadline() == LIST_TIMEOUT
    desk.lists.on_timer(LIST_TIMEOUT)
    assert desk.told == [(None, 0)]
    desk = Desk().ask()
    desk.answers(0, 2, 5, now=3.0)
    desk.lists.on_timer(LIST_TIMEOUT)
    assert not desk.told, "every page gives it time again"
    desk.lists.on_timer(3.0 + LIST_TIMEOUT)
    assert desk.told == [(list(rows(0, 2)), 5)]


@pytest.mark.parametrize("pattern", ["x" * (FILE_NAME_BYTES_MAX + 1), "half \udcff"])
def test_no_name_is_like_a_pattern_that_cannot_be_sent(pattern):
    desk = Desk().ask(pattern)
    assert desk.told == [([], 0)] and not desk.asked
