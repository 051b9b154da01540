"""A file that was fetched and not changed here gives way to its new version; nothing else ever does (THREATS: A05)."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from disk import fetched, updates
from disk.fetched import FetchedNames, Version
from disk.library import Library
from disk.places import Folder
from node_tests.stage.lab import MIB, content
from prompt.console import line_for
from protocol.content.parts import Origin
from protocol.content.pieces import digests_of, identity_of, piece_count_of, piece_size_of
from protocol.content.troubles import LibraryError
from protocol.results import Clashes, DownloadDone, Stopped, Updated

ANA = Origin(frozenset({"ana"}), frozenset({"ana", "cy"}))
OLD, NEW, MINE = b"first version", b"second, newer version", b"what the person wrote"


def fetch(lib: Library, data: bytes, name: str = "config", origin=ANA):
    """As a job does, once all pieces are here."""
    file_id = identity_of(len(data), digests_of(data))
    while lib.begin(file_id, len(data), digests_of(data), label=name) is None:
        pass
    size = piece_size_of(len(data))
    for index in range(piece_count_of(len(data))):
        assert lib.write_piece(file_id, index, data[index * size:(index + 1) * size])
    finished = None
    while finished is None:
        finished = lib.finish(file_id, name, True, origin)
    return finished


def aside(folder: Path) -> list:
    place = folder / ".node" / "replaced"
    return sorted(place.iterdir()) if place.is_dir() else []


def there(folder: Path) -> dict:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".node"}


def line_of(done: DownloadDone) -> str:
    return line_for(done, "shared")


# ---- from the command to the disk


@pytest.mark.parametrize("size", [30, 5 * MIB])
def test_an_update_that_nobody_changed_here_is_replaced_and_told_also_after_a_restart(lab, size):
    ana = lab.node("ana", shared={"config.txt": content(size, 1)})
    bo = lab.node("bo")
    assert isinstance(bo.fetched("config.txt"), DownloadDone)
    bo.scan()
    bo.library.close()
    bo.library.open()
    newest = ana.put("config.txt", content(size + 5, 2))
    ana.scan()
    done = bo.fetched("config.txt")     # a name of which nobody else has the version that is here is clear
    assert isinstance(done, DownloadDone) and done.sources == ("ana",)
    folder = Path(bo.folder)
    assert there(folder) == {"config.txt": newest} and [one.read_bytes() for one in aside(folder)] == [content(size, 1)]
    assert done.clashes == Clashes(1, str(aside(folder)[0]))
    assert " -> " in line_of(done) and "config.txt (updated; the version before: " in line_of(done)
    lab.run(1)
    assert [(row.size, row.sources) for row in bo.list()] == [(size + 5, 2)], "the old one is announced no more"
    bo.scan()
    assert [row.sources for row in lab.nodes[0].list()] == [2] and bo.fetch("config.txt").kind == "already here"
    cy = lab.node("cy")
    assert set(cy.fetched("config.txt").sources) <= {"ana", "bo"} and cy.read("config.txt") == newest


def test_of_a_folder_what_is_new_replaces_what_was_fetched_and_what_was_changed_here_stays(lab):
    tree = {"talks/%02d.txt" % number: b"file %d" % number for number in range(20)}
    tree["talks/large.bin"] = content(2 * MIB, 1)
    ana = lab.node("ana", shared=tree)
    bo = lab.node("bo")
    assert isinstance(bo.fetched("talks"), DownloadDone)
    bo.put("talks/03.txt", MINE)
    bo.scan()
    new = {name: data + b" again" for name, data in tree.items() if name != "talks/07.txt"}
    for name, data in new.items():
        ana.put(name, data)
    ana.scan()
    done = bo.fetched("talks")
    assert isinstance(done, DownloadDone), done
    assert all(bo.read(name) == data for name, data in new.items() if name != "talks/03.txt")
    assert bo.read("talks/03.txt") == MINE and bo.read("talks/03 (2).txt") == b"file 3 again"
    assert bo.read("talks/07.txt") == b"file 7"
    assert (done.clashes.replaced, done.clashes.beside, done.clashes.name) == (19, 1, "talks/03.txt")
    line = line_of(done)
    assert "talks (19 files updated; the versions before: " in line and line.endswith(
        ".node/replaced); talks/03.txt was changed here and is kept, the new one is beside it")
    assert len(aside(Path(bo.folder))) == 19
    assert bo.fetched("talks").was_there


@pytest.mark.parametrize("change, why", [(b"x" * len(OLD), "was changed here"), (None, "is another file")])
def test_what_the_person_has_there_keeps_its_name_and_the_line_says_why(lab, change, why):
    ana = lab.node("ana", shared={"config": OLD})
    bo = lab.node("bo", shared={} if change else {"config": MINE})
    if change:
        bo.fetched("config")
        status = os.stat(bo.folder + "/config")
        bo.put("config", change)
        os.utime(bo.folder + "/config", ns=(status.st_atime_ns, status.st_mtime_ns))    # its time tells nothing
        ana.put("config", NEW)
        ana.scan()
        bo.scan()
    done = bo.fetched("config")
    kept, new = (change, NEW) if change else (MINE, OLD)
    assert there(Path(bo.folder)) == {"config": kept, "config (2)": new} and not aside(Path(bo.folder))
    assert line_of(done).endswith("; config %s and is kept, the new one is beside it" % why)
    assert bo.fetch("config").kind == "already here"
    for version in (b"third", b"fourth"):
        ana.put("config", version)
        ana.scan()
        bo.scan()
        bo.fetched("config")
    assert there(Path(bo.folder)) == {"config": kept, "config (2)": b"fourth"}, "which is updated beside it"


def test_another_version_of_somebody_who_is_here_too_is_no_update(lab):
    lab.node("ana", shared={"notes": b"of ana"})
    cy = lab.node("cy", shared={"notes": b"of cy"})
    bo = lab.node("bo")
    rows = {row.holders[0]: row for row in bo.list()}
    for who in ("ana", "cy"):
        bo.do("fetch", rows[who], lab.world.now, lambda answer: None)
        lab.run(2)
    assert there(Path(bo.folder)) == {"notes": b"of ana", "notes (2)": b"of cy"}
    assert bo.told(DownloadDone)[1].clashes.why == "is a version of somebody else"
    cy.put("notes", b"of cy, newer")
    cy.scan()
    bo.do("fetch", next(row for row in bo.list() if row.holders == ("cy",)), lab.world.now, lambda answer: None)
    lab.run(2)
    assert there(Path(bo.folder)) == {"notes": b"of ana", "notes (2)": b"of cy, newer"}


def test_what_is_updated_in_a_folder_that_does_not_end_well_is_told(lab):
    tree = {"talks/a.bin": content(2 * MIB, 1), "talks/b.bin": content(2 * MIB, 2)}
    ana = lab.node("ana", shared=tree)
    bo = lab.node("bo")
    bo.fetched("talks")
    for number, name in enumerate(tree):
        ana.put(name, content(2 * MIB, number + 10))
    ana.scan()
    ana.put("talks/b.bin", b"changed, and not yet seen")
    assert isinstance(bo.fetched("talks", within=240), Stopped)
    updated, = bo.told(Updated)
    assert updated.clashes.replaced == 1 and bo.read("talks/b.bin") == tree["talks/b.bin"]
    assert line_for(updated, "shared").startswith("* talks was updated in part (updated; the version before: ")


def test_a_name_of_which_only_this_node_has_another_version_is_clear(lab):
    lab.node("ana", shared={"config": NEW})
    bo = lab.node("bo", shared={"config": MINE})
    lab.node("cy", shared={"other": OLD})
    assert bo.fetch("config").kind == "started"
    lab.nodes[2].put("config", OLD)
    lab.nodes[2].scan()
    assert bo.fetch("config").kind == "several"


# ---- at the moment of the rename


def at_move(monkeypatch, work) -> None:
    """Have another program do this just before the old version is moved aside."""
    move = Folder.give_back

    def moving(place, name, target):
        if "replaced" in target:
            work(Path(place.path) / name)
        move(place, name, target)

    monkeypatch.setattr(Folder, "give_back", moving)


def save(path: Path) -> None:
    """As an editor does: a new file over the old one."""
    path.with_name("save~").write_bytes(MINE)
    os.replace(path.with_name("save~"), path)


@pytest.mark.parametrize("work", [save, lambda path: path.write_bytes(MINE), lambda path: path.unlink()])
def test_what_the_person_saves_just_before_the_old_version_moves_keeps_the_name(lib, folder, monkeypatch, work):
    fetch(lib, OLD)
    at_move(monkeypatch, work)
    finished = fetch(lib, NEW)
    is_gone = not (folder / "config").exists() or (folder / "config").read_bytes() == NEW
    if is_gone:                             # it was removed: somebody has to have that name
        assert set(there(folder).values()) == {NEW}
    else:
        assert there(folder) == {"config": MINE, "config (2)": NEW} and finished.beside == "was changed here"
    assert not aside(folder) and not finished.aside


def test_what_is_saved_between_the_move_and_the_new_name_keeps_the_name(lib, folder, monkeypatch):
    fetch(lib, OLD)
    move = Folder.give_back

    def moving(place, name, target):
        move(place, name, target)
        (folder / "config").write_bytes(MINE)

    monkeypatch.setattr(Folder, "give_back", moving)
    finished = fetch(lib, NEW)
    assert there(folder) == {"config": MINE, "config (2)": NEW}
    assert [one.read_bytes() for one in aside(folder)] == [OLD] and finished.aside == str(aside(folder)[0])


def test_what_is_written_into_the_old_version_while_it_moves_comes_back_beside_the_new_one(lib, folder, monkeypatch):
    fetch(lib, OLD)
    mapped = os.open(folder / "config", os.O_RDWR)      # by a mapping, say, which tells no time
    put_aside = updates.Updates.put_aside

    def moving(self, place, old):
        target = put_aside(self, place, old)
        os.pwrite(mapped, MINE, 0)
        return target

    monkeypatch.setattr(updates.Updates, "put_aside", moving)
    finished = fetch(lib, NEW)
    os.close(mapped)
    assert there(folder) == {"config": NEW, "config (2)": MINE}
    assert not aside(folder) and not finished.aside
    clashes = Clashes().with_one(finished)
    assert clashes == Clashes(written="config (2)")
    done = DownloadDone(1, "config", 4, 0.0, ("ana",), bytes(32), "shared/config", None, False, 4, clashes)
    assert line_for(done, "shared").endswith("; what was written into the version before at that moment is config (2)")


def test_what_is_new_is_remembered_though_nobody_waits_for_the_last_look_at_the_old(lib, folder, monkeypatch):
    fetch(lib, OLD)

    def settle(self):
        while True:     # a large one, and the download is cancelled meanwhile
            yield

    with monkeypatch.context() as slow:
        slow.setattr(updates.Way, "settle", settle)
        file_id = identity_of(len(NEW), digests_of(NEW))
        while lib.begin(file_id, len(NEW), digests_of(NEW), label="config") is None:
            pass
        lib.write_piece(file_id, 0, NEW)
        assert not any(lib.finish(file_id, "config", True, ANA) for _ in range(10)) and there(folder) == {"config": NEW}
    newest = NEW + b" again"
    assert fetch(lib, newest).aside and there(folder) == {"config": newest}


@pytest.mark.parametrize("thing", ["link", "folder", "pipe"])
def test_what_is_no_ordinary_file_any_more_is_left_alone(lib, folder, tmp_path, monkeypatch, thing):
    if os.name == "nt":
        pytest.skip("no links for this user")
    outside = tmp_path / "outside"
    outside.write_bytes(OLD)

    def exchange(path: Path) -> None:
        path.unlink()
        {"link": lambda: path.symlink_to(outside), "folder": path.mkdir, "pipe": lambda: os.mkfifo(path)}[thing]()

    for is_late in (False, True):
        fetch(lib, OLD)
        if is_late:
            at_move(monkeypatch, exchange)
        else:
            exchange(folder / "config")
        finished = fetch(lib, NEW)
        assert (folder / "config (2)").read_bytes() == NEW and not finished.aside and not aside(folder)
        assert outside.read_bytes() == OLD and os.lstat(folder / "config").st_size >= 0
        monkeypatch.undo()
        for name in ("config", "config (2)"):
            path = folder / name
            path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()


def test_where_the_new_version_does_not_get_its_name_the_old_one_has_it_again(lib, folder, monkeypatch):
    fetch(lib, OLD)
    take_in, tries = Folder.take_in, []

    def taking(place, source, name):
        tries.append(name)
        if len(tries) == 2:
            raise OSError(5, "Input/output error")
        take_in(place, source, name)

    monkeypatch.setattr(Folder, "take_in", taking)
    with pytest.raises(LibraryError):
        fetch(lib, NEW)
    assert there(folder) == {"config": OLD} and not aside(folder)


@pytest.mark.parametrize("state", ["a file", "read-only", "another disk"])
def test_where_nothing_can_be_put_aside_both_are_kept(lib, folder, monkeypatch, state):
    fetch(lib, OLD)
    if state == "a file":
        (folder / ".node" / "replaced").write_bytes(b"in the way")
    else:
        number = 18 if state == "another disk" else 30

        def refuse(*_):
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(Folder, "give_back", refuse)
    finished = fetch(lib, NEW)
    assert there(folder) == {"config": OLD, "config (2)": NEW} and finished.beside == "cannot be put aside"


# ---- what is remembered, and what is kept aside


def test_only_what_a_person_asked_for_replaces_anything(lib, folder):
    fetch(lib, OLD)
    fetch(lib, NEW, origin=None)
    assert there(folder) == {"config": OLD, "config (2)": NEW} and not aside(folder)


def test_a_file_of_the_person_with_the_same_content_is_still_the_persons(lib, folder):
    (folder / "config").write_bytes(OLD)
    assert fetch(lib, OLD).was_there
    fetch(lib, NEW)
    assert there(folder) == {"config": OLD, "config (2)": NEW}


def test_the_place_for_what_was_replaced_is_bounded_and_the_oldest_goes_first(lib, folder, monkeypatch):
    monkeypatch.setattr(updates, "REPLACED_FILES_MAX", 5)
    monkeypatch.setattr(updates, "REPLACED_BYTES_MAX", 35)
    for number in range(12):
        fetch(lib, b"version %02d" % number)
    assert [one.read_bytes() for one in aside(folder)] == [b"version 08", b"version 09", b"version 10"]
    fetch(lib, b"x" * 41)
    finished = fetch(lib, b"after that")
    assert finished.beside == "is too large to be put aside" and (folder / "config").read_bytes() == b"x" * 41
    monkeypatch.setattr(updates, "REPLACED_BYTES_MAX", 1000)
    lib._updates._kept, lib._updates._number = None, 0           # as after a restart
    for number in range(9):
        fetch(lib, b"small %d" % number, "other")
    assert [one.read_bytes() for one in aside(folder)] == [b"small %d" % number for number in range(3, 8)]


def test_names_are_remembered_across_restarts_and_up_to_a_bound(tmp_path, monkeypatch):
    monkeypatch.setattr(fetched, "FETCHED_ROWS_MAX", 20)
    monkeypatch.setattr(fetched, "FETCHED_ROWS_SPARE", 5)
    (tmp_path / ".node").mkdir()
    names = FetchedNames(str(tmp_path))
    for number in range(30):
        names.note("t/%d \udcff" % number, Version(bytes(32), number, "%d" % number, frozenset({"ana", "b o"})))
    names.close()
    again = FetchedNames(str(tmp_path))
    assert again.find("t/29 \udcff") == Version(bytes(32), 29, "29", frozenset({"ana", "b o"}))
    assert again.find("t/0 \udcff") is None and again.find("t/29") is None
    again.close()
    with closing(sqlite3.connect(tmp_path / ".node" / fetched.FETCHED_FILE)) as database:
        assert 10 <= database.execute("SELECT COUNT(*) FROM fetched").fetchone()[0] <= 21


def test_the_file_of_names_is_opened_once_and_what_is_finished_stands_in_it_at_once(lib, folder, tmp_path, monkeypatch):
    connect, opened = sqlite3.connect, []
    monkeypatch.setattr(sqlite3, "connect", lambda *how, **more: (opened.append(how[0]), connect(*how, **more))[1])
    for number in range(3):
        fetch(lib, b"%d" % number, "small %d" % number)
    assert opened == [str(folder / ".node" / fetched.FETCHED_FILE)]
    kept = tmp_path / "kept.db"  # as it lies there should the process be killed now
    kept.write_bytes(Path(opened[0]).read_bytes())
    with closing(connect(kept)) as database:
        assert database.execute("SELECT COUNT(*) FROM fetched").fetchone() == (3,)


@pytest.mark.parametrize("harm", ["damaged", "without SQLite"])
def test_where_nothing_is_remembered_both_are_kept(lib, folder, monkeypatch, harm):
    fetch(lib, OLD)
    lib.close()
    if harm == "damaged":
        (folder / ".node" / fetched.FETCHED_FILE).write_bytes(b"no database" * 1000)
    else:
        monkeypatch.setattr("disk.digests.sqlite3", None)
    with Library(str(folder)) as again:
        fetch(again, NEW)
    assert there(folder) == {"config": OLD, "config (2)": NEW}
