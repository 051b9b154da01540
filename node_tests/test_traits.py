"""What is told beside a content: times, execute bits, what of a folder is not shared; none of it is its identity."""

from __future__ import annotations

import os
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from disk.scanner import Scanner
from node_tests.stage.folders import fill
from node_tests.stage.lab import content
from prompt.lines import line_for
from protocol import messages
from protocol.content.traits import (
    MTIME_MAX_NS,
    TRAITS_BYTES_MAX,
    Traits,
    decode_traits,
    encode_traits,
    left_out_in,
)
from protocol.exchange.telling import HEARD_OF_MAX, Hearing, traits_pages
from protocol.fields import WireError
from protocol.left_out import WHY, words_of
from protocol.messages import TraitsPage
from protocol.results import DownloadDone, LeftOut

POSIX = os.name != "nt"
needs_posix = pytest.mark.skipif(not POSIX, reason="needs modes and links")
ID = bytes(32)
OLD = 1_000_000_000 * 10**9 + 123_456_789       # of 2001


class Memory:
    """Holdings that remember nothing but the last."""

    told = b""

    def remember_traits(self, file_id, told):
        self.told = told


# ---- as bytes --------------------------------------------------------------------------------------------------------

KINDS = st.sampled_from(sorted(WHY.keys() - {"here"}))
LEFT_OUT = st.lists(st.builds(LeftOut, KINDS, st.integers(0, 2**32 - 1), st.text(max_size=50)), max_size=4)


@given(LEFT_OUT, st.lists(st.builds(Traits, st.booleans(), st.integers(0, MTIME_MAX_NS)), max_size=9))
def test_what_is_told_comes_as_it_was_said(left_out, files):
    data = encode_traits(left_out, files)
    assert decode_traits(data, len(files)) == (left_out, files)
    assert left_out_in(data) == tuple(left_out)
    assert decode_traits(data, len(files) + 1) == (left_out, [])


@given(st.binary(max_size=200), st.integers(0, 3))
def test_no_bytes_at_all_do_more_than_be_refused(data, file_count):
    left_out_in(data)
    try:
        left_out, files = decode_traits(data, file_count)
    except WireError:
        return
    assert len(files) in (0, file_count) and all(0 <= one.mtime_ns <= MTIME_MAX_NS for one in files)


@pytest.mark.parametrize("told, kept", [(-1, 0), (0, 0), (OLD, OLD), (292_000_000 * 31_556_952 * 10**9, MTIME_MAX_NS)])
def test_times_are_those_from_1970_to_2100(told, kept):
    if told <= 2**64 - 1:
        assert decode_traits(encode_traits((), [Traits(False, told)]), 1)[1] == [Traits(False, kept)]
    wild = b"\x00" + b"\xff" * 9        # all flags, and the largest time that the field holds
    assert decode_traits(wild, 1)[1] == [Traits(True, MTIME_MAX_NS)]


# ---- as it is heard --------------------------------------------------------------------------------------------------

def test_nobody_else_tells_what_this_machine_cannot_keep():
    told = encode_traits([LeftOut("here", 4_000_000_000, "x"), LeftOut("link", 1, "y")], ())
    assert left_out_in(told) == (LeftOut("other", 4_000_000_000, "x"), LeftOut("link", 1, "y"))


def test_it_is_heard_in_pages_and_nothing_that_was_not_asked_for():
    hearing, told = Hearing(ID, Memory()), encode_traits((), [Traits(True, OLD)] * 5000)
    pages = traits_pages(ID, told)
    assert len(pages) == 2 and not hearing.on_page(1, pages[0])
    assert len(hearing.ask(1, False)) == 1 and not hearing.ask(1, False)
    assert all(hearing.on_page(1, page) for page in pages) and hearing.told == told
    assert not hearing.on_page(1, pages[0]) and not hearing.ask(2, False)


@pytest.mark.parametrize("pages", [
    [TraitsPage(ID, 1, 2, b"a")], [TraitsPage(ID, 0, TRAITS_BYTES_MAX + 1, b"a")], [TraitsPage(ID, 0, 1, b"ab")],
    [TraitsPage(ID, 0, 9, b"a"), TraitsPage(ID, 0, 9, b"b")], [TraitsPage(ID, 0, 9, b"a"), TraitsPage(ID, 1, 1, b"")]])
def test_pages_that_do_not_fit_end_it(pages):
    hearing = Hearing(ID, Memory())
    hearing.ask(1, True)
    assert [hearing.on_page(1, page) for page in pages][-1] is False
    assert hearing.told == b"" and not hearing.on_page(1, TraitsPage(ID, 0, 1, b"\x00"))


def test_of_a_folder_all_are_asked_since_not_all_know_what_is_missing():
    whole, short = encode_traits((), []), encode_traits([LeftOut("link", 2, "x")], [])
    hearing = Hearing(ID, Memory())
    for link in range(100):
        for _ in hearing.ask(link, True):
            for page in traits_pages(ID, short if link == 3 else whole if link else b""):
                assert hearing.on_page(link, page)
    assert hearing.left_out == (LeftOut("link", 2, "x"),) and not hearing.ask(HEARD_OF_MAX, True)


# ---- from one disk to another ----------------------------------------------------------------------------------------

def make(node, name, data, mtime_ns, mode=0o644):
    node.put(name, data)
    path = os.path.join(node.folder, name)
    os.chmod(path, mode)
    os.utime(path, ns=(mtime_ns, mtime_ns))
    return path


def seen(node, name):
    status = os.stat(os.path.join(node.folder, name))
    return stat.S_IMODE(status.st_mode), status.st_mtime_ns


@needs_posix
@pytest.mark.parametrize("mesh", [True, False])
def test_the_owners_execute_bit_and_the_time_travel_and_no_other_bit(lab, mesh):
    lab.node("ana")
    bo = lab.node("bo")
    make(bo, "run", content(300_000), OLD, 0o4755)
    make(bo, "far", content(1000, 3), 5_000_000_000 * 10**9)
    for number in range(12):
        make(bo, f"d/{number}.sh", bytes([number]) * 500, OLD + number, 0o100 + 0o600 * (number % 2))
    make(bo, "d/big", content(200_000, 2), OLD)
    bo.scan()
    cy = lab.node("cy", mesh=mesh)
    for name in ("run", "far", "d"):
        assert isinstance(cy.fetched(name), DownloadDone)
    assert seen(cy, "run") == (0o744, OLD) and seen(cy, "far") == (0o644, MTIME_MAX_NS)
    assert seen(cy, "d/big") == (0o644, OLD)
    assert [seen(cy, f"d/{number}.sh") for number in range(12)] == [(0o744, OLD + number) for number in range(12)]
    cy.scan()           # it is the same content here, whatever it is hashed from
    assert {(row.name, row.sources >= 2) for row in cy.list()} == {("run", True), ("far", True), ("d", True)}


@needs_posix
def test_a_copy_made_here_is_as_its_original_and_not_as_what_came_under_its_name_before(lab):
    lab.node("ana")
    bo, cy = lab.node("bo"), lab.node("cy")
    make(bo, "run", content(5000), OLD, 0o755)
    bo.scan()
    assert isinstance(cy.fetched("run"), DownloadDone) and seen(cy, "run") == (0o744, OLD)
    os.remove(os.path.join(cy.folder, "run"))
    make(cy, "mine", content(4000, 2), OLD + 5)
    make(bo, "run", content(4000, 2), OLD + 9)
    cy.scan()
    bo.scan()
    done = cy.fetched("run")
    assert done.moved == 0 and seen(cy, "run") == (0o644, OLD + 5)


@needs_posix
def test_what_changes_its_bytes_and_its_mode_at_once_is_nowhere_what_it_was(lab):
    lab.node("ana")
    bo = lab.node("bo")
    make(bo, "run", content(3000), OLD, 0o755)
    bo.scan()
    make(bo, "run", content(4000, 2), OLD + 9)
    bo.scan()
    assert [(row.name, row.size) for row in bo.list()] == [("run", 4000)]


@needs_posix
def test_a_touch_or_a_mode_splits_no_swarm(lab):
    lab.node("ana", shared={"d/a": b"1", "x": b"2"})
    bo = lab.node("bo", shared={"d/a": b"1", "x": b"2"})
    make(bo, "d/a", b"1", OLD, 0o755)
    make(bo, "x", b"2", OLD, 0o755)
    bo.scan()
    assert [(row.name, row.sources) for row in bo.list()] == [("d", 2), ("x", 2)]


@needs_posix
def test_what_of_a_folder_is_not_shared_is_told_to_who_fetches_it_and_at_its_sharer(lab):
    lab.node("ana")
    bo = lab.node("bo", shared={"d/a": b"1", "d/b": b"2", "d/A": b"3"})
    os.symlink("a", os.path.join(bo.folder, "d", "link"))
    bo.scan()
    cy = lab.node("cy")
    done = cy.fetched("d")
    assert {(one.kind, one.count) for one in done.left_out} == {("link", 1), ("twin", 1)} and done.file_count == 2
    line = line_for(done, "shared")
    assert line.startswith("OK d  2 of 4 files (2 were not shared: ")
    assert "links (1)" in line and "names that are one on some systems (1)" in line
    assert dict(bo.peer.left_out()) == {
        "d/link": '"d/link" is a link and is not shared',
        "d/a": '"d/a" has the same name as another on some systems and is not shared with its folder'}
    cy.scan()
    dee = lab.node("dee")
    bo.quit()
    assert dee.fetched("d").left_out == done.left_out       # cy has heard of it
    os.unlink(os.path.join(cy.folder, "d", "b"))
    cy.scan()
    assert not cy.peer.left_out()


def test_a_folder_tells_what_of_it_is_still_changing_or_unreadable(tmp_path):
    fill(tmp_path, d__a=b"1", d__b=b"2")
    scanner = Scanner(str(tmp_path))
    folder = next(one for one in scanner.run_once().added if one.is_folder)
    assert left_out_in(folder.traits) == ()
    assert words_of([LeftOut("link", 2)]) == "links"


def test_an_earlier_version_that_does_not_answer_is_not_waited_for(lab, monkeypatch):
    bo = lab.node("bo", shared={"x": content(300_000), "d/a": b"1"})
    handlers = bo.peer.fetching.serving._handlers
    del handlers[messages.TraitsRequest]
    cy = lab.node("cy")
    assert isinstance(cy.fetched("x"), DownloadDone) and isinstance(cy.fetched("d"), DownloadDone)
