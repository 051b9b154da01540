"""Tables and sentences in windows of any width: no column is pushed out, no word is broken, and a pipe gets all."""

from __future__ import annotations

import re

import pytest

from node_tests.stage.fake_prompt import ID, chat, entry, transfer
from node_tests.stage.window import QUIET, Window, needs_pty
from prompt.commands import help_lines
from prompt.lines import table, transfer_cells
from prompt.table import cut_middle, file_lines, fitted, help_table, name_columns, share_table, wrapped
from protocol.looks import text_width

LONG = "2024-11-12 lecture 3, faults and how to bear them (second try).recording.mp4"
OWNERS = ("ana", "bo", "chris@workstation-17~f7c1", "dora")
LIST = [
    entry(1, "lab.iso"),
    entry(2, LONG, size=812_000_000, holders=OWNERS, sources=14),
    entry(13, "photos", size=2, is_folder=True, file_count=120, holders=("ana",), sources=1),
]


@pytest.mark.parametrize("columns", [99, 79, 60, 44, 39])
def test_one_long_name_takes_nothing_from_any_row(columns):
    first, long, folder = file_lines(LIST, columns)
    assert max(map(text_width, (first, long, folder))) <= columns
    for line, size, sources in ((first, "4.2 GB", 2), (long, "812.0 MB", 14), (folder, "2 B", 1)):
        assert size in line and re.search(rf"  {sources} sources?$|[ ]x{sources}$", line), line
    assert first.split()[1] == "lab.iso" and "ana" in first
    assert long.split()[1].startswith("2024") and "g.mp4 " in long, "its kind is its end"
    assert re.search(r"(ana|ana, bo|ana, bo, \S+) \+\d+ ", long)
    assert {line.index(size) + len(size) for line, size in ((first, "GB"), (long, "MB"), (folder, " B"))} == {
        first.index("GB") + 2}, "and the sizes stand under each other"


def test_where_all_fits_and_in_a_pipe_rows_are_as_they_were():
    assert file_lines(LIST[:1], 79) == ["  1  lab.iso  4.2 GB  ana, bo  2 sources"]
    whole = file_lines(LIST, None)
    assert LONG in whole[1] and ", ".join(OWNERS) in whole[1]


def test_names_that_look_alike_show_their_ids_in_a_narrow_window_too():
    twins = [entry(1, "lab l.iso" + " and more" * 4), entry(2, "lab I.iso" + " and more" * 4)]
    assert all("(id 9f3c11ab)" in line for line in file_lines(twins, 79))
    assert all(f"({ID.hex()[:4]})" in line for line in file_lines(twins, 39))


def test_the_owner_that_is_shown_keeps_what_tells_it_from_others():
    line, = file_lines([entry(1, LONG, holders=("chris@workstation-in-the-cellar~f7c1",), sources=1)], 79)
    assert "~f7c1" in line


@pytest.mark.parametrize("columns", [79, 39, 20])
def test_a_row_that_is_too_wide_for_its_window_takes_several_lines(columns):
    rows = [transfer_cells(transfer(name=LONG, sources=OWNERS)), transfer_cells(transfer(number=2))]
    told = fitted(rows, (0, 3), columns, (1, 7))
    assert all(text_width(line) <= columns for lines in told for line in lines)
    for lines in told:
        for cell in ("receiving", "41%", "1.7/4.2 GB", "88.4 MB/s", "0:28 left"):
            assert sum(cell in line for line in lines) == 1, lines
    assert fitted(rows, (0, 3), None, (1, 7)) == [[line] for line in table(rows, (0, 3))]


def test_the_path_of_what_is_shared_is_never_shortened():
    row = (LONG, "12 B", "id 9f3c11ab", "/home/bo/talks/" + LONG)
    assert share_table([row], None) == ["  " + "  ".join(row)] and share_table([], 79) == []
    first, path = share_table([row], 79)
    assert first.endswith(".mp4  12 B  id 9f3c11ab") and text_width(first) <= 79 and path.strip() == row[3]


def test_sentences_break_at_words_and_a_word_too_long_stands_alone():
    assert wrapped("* joined ana's network at 127.0.0.1:6020: 4 nodes. Folder: shared", 39) == [
        "* joined ana's network at", "  127.0.0.1:6020: 4 nodes. Folder:", "  shared"]
    assert wrapped("  a  b   c", 80) == ["  a  b   c"] and wrapped("", 10) == [""]
    assert wrapped("x" * 50 + " b", 10) == ["x" * 50, "  b"]
    told = "OK measurements-of-the-second-series-2026.tif  -> shared/measurements-of-the-second-series-2026.tif"
    assert wrapped(told, 39) == [
        "OK measurements-of-the-second-series-", "  2026.tif  -> shared/measurements-of-",
        "  the-second-series-2026.tif"]
    assert wrapped("      shared/measurements-of-the-second-series-2026.tif", 39) == [
        "      shared/measurements-of-the-", "  second-series-2026.tif"]
    for text in ("a" * 90 + "/b c", "x " * 40 + "y-" * 40, "/" * 100, "漢/" * 60):
        assert "".join(wrapped(text, 39)).replace(" ", "") == text.replace(" ", "")


def test_the_middle_gives_way_also_where_characters_are_wide():
    assert cut_middle("holidays.in.spain.jpg", 13) == "holid...n.jpg"
    for columns in range(1, 30):
        assert text_width(cut_middle("\u6f22" * 30, columns)) <= columns
        assert text_width(cut_middle("e\u0301" * 30, columns)) <= columns


@pytest.mark.parametrize("columns", [79, 44, 39])
def test_help_breaks_inside_no_word(columns):
    lines = help_lines("", columns)
    assert max(map(len, lines)) <= columns
    words = " ".join(help_lines()).split()
    assert set(" ".join(lines).split()) <= set(words)
    assert help_table([("A", "b", "")], None) == table([("A", "b", "")])


def test_names_stand_beside_each_other():
    assert name_columns(["lab.iso", "notes.pdf", "a"], 30) == ["  lab.iso    notes.pdf", "  a"]
    assert max(map(text_width, name_columns([LONG, "a"], 39))) <= 39


@needs_pty
def test_a_window_of_40_columns_breaks_no_word():
    with Window(40, *QUIET, "--no-times") as window:
        window.ready()
        window.type("?\r")
        lines = window.until(lambda lines: any(line.startswith("  Q ") for line in lines) and lines[-1] == ">")
        assert {word for line in lines for word in line.split() if word.startswith("supern")} == {"supernode"}
        window.tell(chat("bo", "words " * 12 + "end"))
        lines = window.until(lambda lines: any(line.endswith("end") for line in lines))
        at = lines.index("<bo> words words words words words")
        assert lines[at + 1:at + 3] == ["  words words words words words words", "  words end"]
