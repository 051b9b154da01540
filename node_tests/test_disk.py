"""A disk that is full, read-only, gone or slow while files come: what is said, what is kept, and how it goes on."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from functools import partial
from pathlib import Path
from typing import Iterator, List

import pytest

import disk.looking
import disk.parts
from disk import library
from disk.library import Library
from node_tests.stage.lab import MIB, Lab, Node, content
from node_tests.stage.running import Running, free_port
from prompt.lines import line_for
from protocol.content.troubles import ErrorKind, LibraryError
from protocol.exchange import holdings
from protocol.exchange.contracts import in_slices
from protocol.results import DownloadDone, Notice, Paused, Resumed, Stopped


class Disk:
    """The disk of one node, with as much room as the story wants; what is written takes of it."""

    def __init__(self, node: Node, room: int) -> None:
        self.room, self.tells = room, True
        self._library = node.library
        self._write_piece = node.library.write_piece
        node.library.write_piece = self._write  # type: ignore[method-assign]
        node.library.free_bytes = lambda: max(self.room, 0)  # type: ignore[method-assign]

    def _write(self, file_id, index, data, digest=None):
        if len(data) > self.room:
            raise LibraryError(ErrorKind.FULL, "Cannot save it: the disk is full.")
        is_right = self._write_piece(file_id, index, data, digest)
        self.room -= len(data)
        return is_right


def full_disk(lab: Lab, shared: dict, room: int) -> tuple[Node, Disk]:
    lab.node("ana", shared=shared, disk_delay=0.01)
    bo = lab.node("bo")
    return bo, Disk(bo, room)


def test_what_does_not_fit_is_refused_before_the_first_byte_with_both_numbers(lab):
    bo, _ = full_disk(lab, {"big.bin": content(80 * MIB)}, 50_000_000)
    stopped = bo.fetched("big.bin")
    assert isinstance(stopped, Stopped) and stopped.verified == 0 and not stopped.kept
    assert stopped.reason == 'No room for "big.bin": needs 83.9 MB, 50.0 MB free'
    assert stopped.is_full
    assert not bo.library.parts()


def test_a_folder_that_does_not_fit_is_refused_before_anything_of_it_is_here(lab):
    tree = {"talks/a.bin": content(3 * MIB, 1), "talks/b.bin": content(3 * MIB, 2)}
    bo, _ = full_disk(lab, tree, 4_000_000)
    stopped = bo.fetched("talks")
    assert isinstance(stopped, Stopped) and stopped.reason == 'No room for "talks": needs 6.3 MB, 4.0 MB free'
    assert stopped.is_full
    assert not (Path(bo.folder) / "talks").exists()


def test_a_folder_that_names_what_is_here_again_and_again_is_refused_where_its_copies_do_not_fit(lab):
    """A folder of a hundred thousand names for one file that somebody had filled his disk by copies, unasked."""
    data = content(2 * MIB, 1)
    lab.node("ana", shared={f"talks/{name}.bin": data for name in "abc"}, disk_delay=0.01)
    bo = lab.node("bo", shared={"mine.bin": data})
    disk = Disk(bo, 5_000_000)
    stopped = bo.fetched("talks")
    assert isinstance(stopped, Stopped) and stopped.reason == 'No room for "talks": needs 6.3 MB, 5.0 MB free'
    assert not (Path(bo.folder) / "talks").exists()
    disk.room = 7_000_000
    assert isinstance(bo.fetched("talks"), DownloadDone)
    (Path(bo.folder) / "talks" / "b.bin").unlink()
    bo.scan()
    disk.room = 3_000_000  # for the one that is missing
    assert isinstance(bo.fetched("talks"), DownloadDone) and (Path(bo.folder) / "talks" / "b.bin").exists()


def test_a_disk_that_fills_on_the_way_pauses_with_both_numbers_and_goes_on_when_there_is_room(lab):
    data = content(30 * MIB)
    bo, disk = full_disk(lab, {"big.bin": data}, 40 * MIB)
    number = bo.fetch("big.bin").transfer
    lab.world.run_until(lambda: bo.row().verified > 5 * MIB, 60)
    disk.room = 2 * MIB                     # somebody else took the rest
    assert lab.world.run_until(lambda: bo.told(Paused), lab.world.now + 20)
    paused = bo.told(Paused)[0]
    assert (paused.number, paused.size) == (number, 30 * MIB) and paused.needed == paused.size - paused.verified
    line = line_for(paused, "shared")
    assert line.startswith("!! big.bin  paused at ") and "MB, " in line and line.endswith("free; goes on when there is")
    lab.run(60)
    assert len(bo.told(Paused)) == 1 and not bo.told(Stopped) and bo.row().state.startswith("paused: needs ")
    assert bo.row().verified >= paused.verified
    disk.room = paused.needed - MIB         # not enough yet
    lab.run(5)
    assert not bo.told(Resumed)
    disk.room = 40 * MIB
    assert lab.world.run_until(lambda: bo.told(DownloadDone), lab.world.now + 20)
    assert bo.read("big.bin") == data and len(bo.told(Resumed)) == 1
    assert bo.told(DownloadDone)[0].moved < 30 * MIB + 3 * MIB, "pieces that were here came again"


def test_a_folder_pauses_as_a_whole_and_its_files_go_on(lab):
    tree = {"talks/%d.bin" % number: content(2 * MIB, number) for number in range(8)}
    bo, disk = full_disk(lab, tree, 40 * MIB)
    bo.fetch("talks")
    lab.world.run_until(lambda: bo.row().verified > 5 * MIB, 60)
    disk.room = MIB // 2
    assert lab.world.run_until(lambda: bo.told(Paused), lab.world.now + 20)
    lab.run(20)
    assert len(bo.told(Paused)) == 1 and not bo.told(Stopped)
    disk.room = 40 * MIB
    assert lab.world.run_until(lambda: bo.told(DownloadDone), lab.world.now + 20)
    assert all(bo.read(name) == data for name, data in tree.items())


def test_a_quota_that_is_not_told_makes_the_looks_rarer(lab):
    bo, disk = full_disk(lab, {"big.bin": content(30 * MIB)}, 40 * MIB)
    bo.fetch("big.bin")
    lab.world.run_until(lambda: bo.row().verified > 5 * MIB, 60)
    disk.room = 0
    bo.library.free_bytes = lambda: 1 << 40
    lab.run(300)
    assert 3 < len(bo.told(Resumed)) < 30 and not bo.told(Stopped)


def test_a_paused_download_can_be_cancelled_and_leaves_the_others_alone(lab):
    small = content(100_000, 7)
    bo, disk = full_disk(lab, {"big.bin": content(30 * MIB), "small.bin": small}, 40 * MIB)
    number = bo.fetch("big.bin").transfer
    lab.world.run_until(lambda: bo.row().verified > 5 * MIB, 60)
    disk.room = 200_000
    assert lab.world.run_until(lambda: bo.told(Paused), lab.world.now + 20)
    disk.room = 200_000
    assert isinstance(bo.fetched("small.bin"), DownloadDone) and bo.read("small.bin") == small
    assert "kept" in bo.do("cancel", number, lab.world.now)
    disk.room = 100 * MIB
    lab.run(60)
    assert not bo.told(Resumed) and isinstance(bo.fetched("big.bin"), DownloadDone)


def test_a_disk_that_becomes_read_only_is_named_and_what_was_verified_is_kept(lab):
    bo, disk = full_disk(lab, {"big.bin": content(30 * MIB)}, 40 * MIB)
    bo.fetch("big.bin")
    lab.world.run_until(lambda: bo.row().verified > 5 * MIB, 60)

    def refuse(*_):
        raise LibraryError(ErrorKind.READ_ONLY, "Cannot save big.bin: the disk is read-only.")

    writes, bo.library.write_piece = bo.library.write_piece, refuse
    assert lab.world.run_until(lambda: bo.told(Stopped), lab.world.now + 20)
    stopped = bo.told(Stopped)[0]
    assert "read-only" in stopped.reason and stopped.kept and stopped.verified > 5 * MIB
    bo.library.write_piece = writes
    assert isinstance(bo.fetched("big.bin"), DownloadDone)


def test_a_download_folder_that_vanishes_is_said_and_a_later_request_works(lab):
    data = content(20 * MIB)
    lab.node("ana", shared={"big.bin": data}, disk_delay=0.02)
    bo = lab.node("bo")
    bo.fetch("big.bin")
    lab.world.run_until(lambda: bo.row().verified > 5 * MIB, 60)
    shutil.rmtree(bo.folder)
    assert lab.world.run_until(lambda: bo.told(Stopped), lab.world.now + 60)
    stopped = bo.told(Stopped)[0]
    assert stopped.reason == 'Cannot save "big.bin": the folder "%s" was taken away' % bo.folder
    assert not stopped.kept, "what came before is gone with the folder"
    assert bo.fetched("big.bin").reason == 'The folder "%s" is gone' % bo.folder
    os.makedirs(bo.folder)
    assert isinstance(bo.fetched("big.bin"), DownloadDone) and bo.read("big.bin") == data


def test_a_download_folder_that_was_away_goes_on_with_what_it_had(lab, tmp_path):
    lab.node("ana", shared={"big.bin": content(20 * MIB)}, disk_delay=0.02)
    bo = lab.node("bo")
    bo.fetch("big.bin")
    lab.world.run_until(lambda: bo.row().verified > 10 * MIB, 60)
    os.rename(bo.folder, tmp_path / "away")
    assert lab.world.run_until(lambda: bo.told(Stopped), lab.world.now + 60)
    os.rename(tmp_path / "away", bo.folder)
    done = bo.fetched("big.bin")
    assert isinstance(done, DownloadDone) and done.moved < 11 * MIB


def test_a_slow_disk_is_named_and_holds_nothing_else_up(lab):
    ana = lab.node("ana", shared={"big.bin": content(3 * MIB)})
    bo = lab.node("bo", disk_delay=0.01)
    bo.fetch("big.bin")
    bo.disk_delay = 5.0
    states: List[str] = []
    for _ in range(60):
        lab.run(0.5)
        states += [row.state for row in bo.peer.transfers(lab.world.now)]
    assert "waiting for the disk" in states
    assert not bo.told(Stopped) and len(ana.peer.members(lab.world.now)) == 2
    assert not [event for event in ana.events if isinstance(event, Notice)]
    assert lab.world.run_until(lambda: bo.told(DownloadDone), lab.world.now + 600)


# ---- a real disk of 50 MB, and real programs ----------------------------------------------------------------------


@contextlib.contextmanager
def small_disk(folder: Path, size: str = "50m") -> Iterator[Path]:
    """A file system of its own below the test's folder, gone with the test."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0 or not shutil.which("mount"):
        pytest.skip("mounting a tmpfs needs root, and Linux")
    folder.mkdir(parents=True)
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=" + size, "tmpfs", str(folder)], capture_output=True)
    if done.returncode:
        pytest.skip("nothing can be mounted here: %s" % done.stderr.decode(errors="replace").strip())
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_on_a_small_disk_too_much_is_refused_and_what_fills_it_waits_for_room(tmp_path):
    shared = tmp_path / "ana" / "shared"
    shared.mkdir(parents=True)
    (shared / "eighty.bin").write_bytes(os.urandom(1000) * 80_000)
    (shared / "forty.bin").write_bytes(os.urandom(40_000_000))
    flags = ["--ip", "127.0.0.1", "--port", free_port()]
    with small_disk(tmp_path / "bo" / "shared") as disk, \
            Running("node_client.py", *flags, "--name", "ana", cwd=tmp_path / "ana") as ana, \
            Running("node_client.py", *flags, "--name", "bo", cwd=tmp_path / "bo") as bo:  # fmt: skip
        ana.expect(r"Folder: shared( \(2 files, 120\.0 MB.*\))?$")
        bo.ask_until("G eighty*", r"eighty\.bin")
        bo.ask_until("G forty*", r"forty\.bin")
        bo.ask("R eighty.bin", r'^!! eighty\.bin  stopped at 0%: No room for "eighty\.bin": needs 80\.0 MB, 5\d\.\d MB')
        filler = disk / ".filler"           # asked for and filled at once: there is room when it begins, and then not
        bo.type("R forty.bin")
        filler.write_bytes(bytes(15_000_000))
        bo.expect(r"^!! forty\.bin  (paused at \d+%: the disk has no room|stopped at 0%: No room).* needs \d+\.\d MB, ")
        filler.unlink()
        if bo.count(r"^!! forty\.bin  stopped"):
            bo.type("R forty.bin")          # the disk was full before the first byte
        bo.expect(r"^OK forty\.bin  40\.0 MB")
        assert (disk / "forty.bin").read_bytes() == (shared / "forty.bin").read_bytes()
        assert bo.end() == (1 if bo.count("^!! .* stopped") else 0)


# ---- many files at once: a report of the scanner is taken in in slices ----


def names(count: int) -> dict:
    return {"%03d.txt" % number: b"%d" % number for number in range(count)}


@pytest.fixture
def bo(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Node:
    """A member that takes in ten contents in a turn, and whose disk needs a tenth of a second for them."""
    monkeypatch.setattr(holdings, "SCANNED_AT_ONCE", 10)
    lab.node("ana")
    return lab.node("bo", disk_delay=0.1)


def report(node: Node) -> None:
    """What the scanner has found comes in; nothing else happens meanwhile."""
    node.do("on_scanned", node.scanner.run_once(), node.world.now)


def test_a_long_report_is_taken_in_in_slices_and_other_things_have_their_turn_between_them(lab, bo):
    for name, data in names(35).items():
        bo.put(name, data)
    done: List[float] = []
    report(bo)
    bo.do("when_scanned", lambda: done.append(lab.world.now))
    assert bo.list() == [] and not done, "an answer comes while most of it waits"
    lab.run(1)
    assert len(done) == 1
    assert [row.name for row in bo.list()] == list(names(35))
    assert all(bo.library.local_copy(row.file_id) for row in bo.list()), "and the library serves it"


def test_a_short_report_is_announced_at_once(lab, bo):
    bo.put("a.txt", b"a")
    report(bo)
    done: List[bool] = []
    bo.do("when_scanned", lambda: done.append(True))
    assert done and [row.name for row in bo.list()] == ["a.txt"]


def test_a_report_that_comes_while_another_is_taken_in_has_the_last_word(lab, bo):
    for name, data in names(35).items():
        bo.put(name, data)
    report(bo)
    for number in range(0, 35, 2):
        os.unlink(os.path.join(bo.folder, "%03d.txt" % number))
    bo.put("001.txt", b"another content")
    report(bo)
    lab.run(2)
    assert [row.name for row in bo.list()] == ["%03d.txt" % number for number in range(1, 35, 2)]
    assert [row.size for row in bo.list("001*")] == [len(b"another content")]
    assert sorted(bo.library._shared.by_id) == sorted(row.file_id for row in bo.list())


def test_a_folder_that_vanishes_with_all_its_files_is_withdrawn_in_slices(lab, bo):
    for name, data in names(35).items():
        bo.put(name, data)
    bo.scan()
    lab.run(1)
    for name in names(35):
        os.unlink(os.path.join(bo.folder, name))
    report(bo)
    assert len(bo.list()) == 35, "the supernode is told when all of it is known here"
    lab.run(1)
    assert bo.list() == [] and not list(bo.library._shared.by_id)


def test_what_a_download_has_just_named_is_not_withdrawn_by_an_older_report(lab, bo):
    for name, data in names(25).items():
        bo.put(name, data)
    bo.scan()
    lab.run(1)
    shared = next(one for one in bo.peer.holdings._shared.all() if one.name == "024.txt")
    for name in names(25):
        os.unlink(os.path.join(bo.folder, name))
    report(bo)
    bo.put("024.txt", names(25)["024.txt"])
    bo.peer.holdings.on_finished(shared)
    bo.network.rearm()
    lab.run(1)
    assert list(bo.peer.holdings._shared) == [shared.file_id] and list(bo.library._shared.by_id) == [shared.file_id]
    assert [row.name for row in bo.list()] == ["024.txt"]


# ---- other programs at what comes, and what is fetched for others -------------------------------------------------


def part_in(node: Node) -> Path:
    return next(path for path in (Path(node.folder) / ".node" / "parts").iterdir() if len(path.name) == 64)


@pytest.mark.parametrize("begun", [3 * MIB, 9 * MIB])
def test_a_part_that_another_program_cuts_comes_right_and_only_what_was_lost_comes_twice(lab, begun):
    data = content(10 * MIB)
    lab.node("ana", shared={"big.bin": data}, disk_delay=0.01)
    bo = lab.node("bo")
    bo.fetch("big.bin")
    assert lab.world.run_until(lambda: bo.row().verified > begun, 60)
    os.truncate(part_in(bo), MIB)
    assert lab.world.run_until(lambda: bo.told((DownloadDone, Stopped)), lab.world.now + 60)
    done = bo.told((DownloadDone, Stopped))[0]
    assert isinstance(done, DownloadDone) and bo.read("big.bin") == data
    assert done.moved < len(data) + begun + MIB
    said = [event.text for event in bo.told(Notice)]
    assert any("big.bin was changed on this disk by another program" in text for text in said), said
    assert not any("wrong piece" in text for text in said), "no source is to blame"


def has_begun(node: Node) -> bool:
    return any(fetch.download.verified_bytes > 2 * MIB for fetch in node.peer.fetching.fetches.values())


@pytest.mark.parametrize(("name", "path"), [("talks", "talks/a.bin"), ("x.bin", "x.bin")])
def test_a_relayed_file_and_one_of_a_folder_survive_another_program_at_both_ends(lab, name, path):
    data = content(6 * MIB)
    ana = lab.node("ana")
    lab.node("bo", mesh=False, shared={path: data}, disk_delay=0.01)
    cy = lab.node("cy", mesh=False)
    cy.fetch(name)
    for node in (ana, cy):
        assert lab.world.run_until(partial(has_begun, node), 60)
        with open(part_in(node), "r+b") as file:
            file.write(b"X" * MIB)
    assert lab.world.run_until(lambda: cy.told((DownloadDone, Stopped)), lab.world.now + 90)
    assert cy.told(DownloadDone) and cy.read(path) == data


def test_a_part_that_is_changed_again_and_again_ends_with_a_sentence_and_no_file(lab):
    lab.node("ana", shared={"big.bin": content(2 * MIB)})
    bo = lab.node("bo")
    finish = bo.library.finish

    def cut_and_finish(*what):
        os.truncate(part_in(bo), MIB)
        return finish(*what)

    bo.library.finish = cut_and_finish
    stopped = bo.fetched("big.bin")
    assert isinstance(stopped, Stopped) and stopped.reason == '"big.bin" was changed here by another program'
    assert not os.path.exists(os.path.join(bo.folder, "big.bin"))
    bo.library.finish = finish
    assert isinstance(bo.fetched("big.bin"), DownloadDone) and bo.read("big.bin") == content(2 * MIB)


def test_while_a_long_file_is_copied_others_are_served(lab, monkeypatch):
    for module in (library, disk.looking, disk.parts):
        monkeypatch.setattr(module, "SLICE_BYTES", MIB)
    ana = lab.node("ana", shared={"big.bin": content(20 * MIB), "small.bin": content(MIB, 3)}, disk_delay=0.05)
    bo = lab.node("bo")
    shared = next(entry for entry in ana.list("big.bin"))
    copied = []
    copy = partial(ana.library.copy_local, shared.file_id, "copy.bin")
    in_slices(ana.peer.disk, copy, lambda *end: copied.append(end))
    assert isinstance(bo.fetched("small.bin"), DownloadDone) and not copied
    assert lab.world.run_until(lambda: copied, lab.world.now + 60) and ana.read("copy.bin") == content(20 * MIB)


def relaying(lab: Lab) -> tuple[Node, Node]:
    ana = lab.node("ana")
    lab.node("bo", mesh=False, shared={"big.bin": content(10 * MIB)}, disk_delay=0.02)
    cy = lab.node("cy", mesh=False)
    cy.fetch("big.bin")
    assert lab.world.run_until(lambda: any(
        fetch.download.verified_bytes > 3 * MIB for fetch in ana.peer.fetching.fetches.values()), 60)
    return ana, cy


def test_a_supernode_that_leaves_its_network_keeps_nothing_that_it_fetched_for_others(lab):
    ana, _ = relaying(lab)
    left: List[bool] = []
    ana.do("leave", lab.world.now, lambda *_: left.append(True))
    assert lab.world.run_until(lambda: left, lab.world.now + 5)
    lab.run(0.5)
    assert os.listdir(Path(ana.folder) / ".node" / "parts") == []


def test_what_the_person_wants_of_what_is_fetched_for_others_is_kept_for_a_later_run(lab):
    ana, _ = relaying(lab)
    ana.fetch("big.bin")
    lab.run(0.2)
    ana.kill()
    with Library(ana.folder) as again:
        assert [(part.label, part.verified_bytes > 3 * MIB) for part in again.parts()] == [("big.bin", True)]
