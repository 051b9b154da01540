"""What `R` takes: rows of the list on the screen, several at once, patterns; and the line that tells how all ended."""

from __future__ import annotations

import pytest

from node_tests.stage.desk import FILES, Desk
from node_tests.stage.fake_prompt import downloaded, entry, stopped
from prompt.choosing import ASKED_AGAIN_FROM, Batch, chosen, spans_in


@pytest.mark.parametrize("text, spans", [
    ("2", [(2, 2)]), ("2 3 5", [(2, 2), (3, 3), (5, 5)]), ("2-4", [(2, 4)]), ("1, 3-4", [(1, 1), (3, 4)]),
    ("2 x", []), ("", []), ("-4", []), ("2-", []), ("123456789", []), ("\u0662", [])])
def test_numbers_and_spans_are_told_from_names(text, spans):
    assert spans_in(text) == spans


def test_each_row_is_taken_once_and_a_number_without_a_row_is_named():
    rows = {row.number: row for row in FILES}
    assert [row.number for row in chosen([(2, 3), (3, 4)], rows)[0]] == [2, 3, 4]
    assert chosen([(2, 2), (9, 9)], rows) == ([], "9")
    assert chosen([(2, 99_999_999)], rows) == ([], "2-99999999") and chosen([(4, 2)], rows) == ([], "4-2")


def test_numbers_mean_the_list_on_the_screen_also_after_one_that_found_nothing():
    desk = Desk()
    desk.does("G", "G zzz")
    assert desk.lines == ['No file here matches "zzz".']
    desk.does("R 5")
    assert desk.fetched == ["c.jpg"]
    desk.files = [entry(5, "d.png", file_id=b"7" * 32)]
    desk.does("G png", "R 5")                   # a new list is printed: its numbers count
    assert desk.fetched == ["c.jpg", "d.png"]


def test_a_number_that_is_a_row_and_a_name_says_which_was_taken_and_quotes_take_the_other():
    desk = Desk([*FILES, entry(6, "2", file_id=b"6" * 32)])
    assert desk.does("G", "R 2") == ['* this is row 2 of the list, a.jpg; a file is named 2, too: R "2" takes that']
    desk.does('R "2"')
    assert desk.fetched == ["a.jpg", "2"]
    desk.fetched.clear()
    desk.does("G jpg")                          # the file of that name is not on the screen
    assert desk.does("R 2") == ['* this is row 2 of the list, a.jpg; a file is named 2, too: R "2" takes that']
    assert desk.fetched == ["a.jpg"]
    desk.files[-1] = entry(6, "2-3", file_id=b"6" * 32)
    assert desk.does("G", "R 2-3") == ['* this is the rows 2-3; a file is named 2-3, too: R "2-3" takes that']


@pytest.mark.parametrize("command, names", [
    ("R 2 3 5", ["a.jpg", "b.jpg", "c.jpg"]), ("R 2-4", ["a.jpg", "b.jpg", "photos"]),
    ("R *.jpg", ["a.jpg", "b.jpg", "c.jpg"]), ('R "*.jpg"', ["a.jpg", "b.jpg", "c.jpg"]), ("R photos/*", ["photos"]),
    ("R lab*", ["lab.iso"])])
def test_several_are_fetched_at_once(command, names):
    desk = Desk()
    desk.does("G", command)
    assert desk.fetched == names and not desk.failed


def test_nothing_is_fetched_where_one_number_names_no_row():
    desk = Desk()
    assert desk.does("G", "R 2 9") == ["!! The last list has 5 rows; 9 is none of them, and nothing was asked for."]
    assert (desk.fetched, desk.failed) == ([], 1)
    desk.does("R 2024-11")
    assert desk.lines == ["!! The last list has 5 rows, and no file is named 2024-11."], "it may be a name as well"
    assert desk.does("R nothing/*") == ["!! nothing/*  nobody here has it"]


def test_a_name_that_looks_like_a_pattern_is_taken_by_itself():
    desk = Desk([entry(1, "a*"), entry(2, "ab", file_id=b"2" * 32)])
    desk.does("R a*")
    assert desk.fetched == ["a*"]


def test_one_line_tells_how_all_ended():
    desk = Desk()
    desk.here, desk.gone = {"b.jpg"}, {"photos"}
    desk.does("G", "R 1-5")
    assert desk.fetched == ["lab.iso", "a.jpg", "c.jpg"]
    desk.lines.clear()
    desk.time = 7.0
    desk.console.on_event(downloaded(number=1, name="lab.iso", size=4_000_000))
    desk.console.on_event(stopped(number=2, name="a.jpg", kept=False))
    assert len(desk.lines) == 2
    desk.console.cancel("3")
    assert desk.lines[2:] == ["!! 1 of 5 came, 4.0 MB in 0:07; 1 file was here already; not photos, a.jpg, c.jpg",
                              "3 is cancelled"]
    assert not desk.console.awaited.batches and desk.failed == 2


def test_the_summary_of_what_went_well():
    batch = Batch(2, 10.0)
    batch.on_started(1, "a")
    batch.on_started(1, "b")
    assert not batch.is_over and batch.on_end(1, 12_000) and not batch.on_end(2, 5)
    assert batch.is_over and batch.line(12.0) == "OK 2 of 2 came, 12.0 kB in 0:02"
    batch = Batch(2, 10.0)
    batch.on_here()
    batch.on_here()
    assert batch.line(12.0) == "OK all 2 were here already"


def test_a_person_says_a_pattern_twice_that_fits_very_many_and_a_script_once():
    many = [entry(number, f"{number}.jpg", file_id=b"%032d" % number) for number in range(1, ASKED_AGAIN_FROM + 1)]
    desk = Desk(many, is_asking=True)
    assert desk.does("R *.jpg") == ["* *.jpg fits 50 files, 210.0 GB: say it again to fetch them all"]
    desk.does("R *.jpg")
    assert len(desk.fetched) == ASKED_AGAIN_FROM
    script = Desk(many)
    script.does("R *.jpg")
    assert len(script.fetched) == ASKED_AGAIN_FROM
