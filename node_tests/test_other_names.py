"""Folders with names that not all systems can keep, or deeper than earlier versions take: who can keeps all of it."""

from __future__ import annotations

import os

import pytest

from disk.library import Library
from disk.making import FOLDERS_AT_ONCE
from disk.preparing import Preparing
from node_tests.stage.lab import content
from prompt.lines import line_for
from protocol.content import names
from protocol.content.listing import (
    FolderEntry,
    More,
    decode_listing,
    decode_more,
    encode_folder,
    encode_more,
    more_entry,
    without_more,
)
from protocol.content.pieces import digests_of, identity_of
from protocol.content.troubles import BadName, LibraryError
from protocol.results import DownloadDone, LeftOut, UploadDone

pytestmark = pytest.mark.skipif(names.IS_STRICT, reason="this system cannot keep such names")
DEEP = "/".join("abcdefghij" * 5) + "/x"
FOLDER = {"d/plain.txt": b"1", "d/12:30 meeting.txt": b"2", "d/what?/big": content(200_000), "d/" + DEEP: b"3",
          "d/con": b"4"}


def files_of(node, top="d"):
    root = os.path.join(node.folder, top)
    found = {}
    for folder, _, files in os.walk(root):
        for name in files:
            path = os.path.join(folder, name)
            with open(path, "rb") as file:
                found[f"{top}/{os.path.relpath(path, root)}"] = file.read()
    return found


def entry(path, data=b"1"):
    return FolderEntry(path, len(data), identity_of(len(data), digests_of(data)), False)


def test_many_folders_with_such_names_do_not_keep_others_waiting_for_the_disk(tmp_path):
    count = 3 * FOLDERS_AT_ONCE
    listing = encode_more([FolderEntry(f"{number:04d}: empty", 0, b"", True) for number in range(count)])
    with Library(str(tmp_path)) as library:
        library.make_folder("d")
        prepare, made, found = Preparing(library).more("d", listing), [0], None
        while found is None:
            found = prepare()
            made.append(len(os.listdir(tmp_path / "d")))
    assert made[-1] == count and not found.troubles
    assert max(after - before for before, after in zip(made, made[1:])) == FOLDERS_AT_ONCE


@pytest.mark.parametrize("mesh", [True, False])
def test_all_of_it_travels_between_machines_that_can_keep_it(lab, mesh):
    lab.node("ana")
    bo = lab.node("bo", shared=FOLDER)
    os.utime(os.path.join(bo.folder, "d", "con"), ns=(10**18, 10**18))
    os.makedirs(os.path.join(bo.folder, "d", "empty: really"))
    bo.scan()
    assert not bo.peer.left_out()
    cy = lab.node("cy", mesh=mesh)
    done = cy.fetched("d")
    assert isinstance(done, DownloadDone) and not done.left_out and done.file_count == len(FOLDER)
    assert files_of(cy) == FOLDER and os.path.isdir(os.path.join(cy.folder, "d", "empty: really"))
    assert os.stat(os.path.join(cy.folder, "d", "con")).st_mtime_ns == 10**18
    assert not any(name.startswith(".") for name in os.listdir(os.path.join(cy.folder, "d")))
    cy.scan()
    assert [row.sources for row in cy.list("d")] == [2 + (not mesh)]    # the same here, and in the cache
    lab.run(5.0)
    if mesh:
        (sent,) = bo.told(UploadDone)       # one folder, whatever it has been made of
        assert (sent.name, sent.size) == ("d", sum(map(len, FOLDER.values()))) and sent.is_confirmed
        cy.quit()
        lab.run(1.0)
        assert len(bo.told(UploadDone)) == 1


def test_a_file_by_itself_travels_too(lab):
    lab.node("ana")
    lab.node("bo", shared={"12:30 meeting.txt": b"minutes"})
    cy = lab.node("cy")
    assert isinstance(cy.fetched("12:30 meeting.txt"), DownloadDone) and cy.read("12:30 meeting.txt") == b"minutes"


def test_who_cannot_keep_some_keeps_the_rest_and_says_so(lab, monkeypatch):
    lab.node("ana")
    lab.node("bo", shared=FOLDER)
    cy = lab.node("cy")
    monkeypatch.setattr(names, "IS_STRICT", True)
    done = cy.fetched("d")
    assert isinstance(done, DownloadDone) and done.left_out == (LeftOut("here", 3, "12:30 meeting.txt"),)
    assert files_of(cy) == {name: FOLDER[name] for name in ("d/plain.txt", "d/" + DEEP)}
    assert line_for(done, "shared").startswith(
        "OK d  2 of 5 files (3 left out here: names that this machine cannot keep)  ")


def test_an_earlier_version_reads_the_listing_and_takes_what_it_can():
    others = encode_more([entry("a:b"), entry("/".join("a" * 20))])
    more = more_entry(others, identity_of(len(others), digests_of(others)))
    listing = encode_folder([entry("plain"), more])
    entries, packs = decode_listing(listing)     # which goes by the rules of the first version
    assert [one.path for one in entries if not one.is_folder] == ["plain"] and not packs
    assert without_more(entries) == ([entry("plain")], More(identity_of(len(others), digests_of(others)), len(others)))
    names.check_portable(more.path)


@pytest.mark.parametrize("path", ["../x", "/etc/x", "a/../x", "..", "a\\b", "a\x1bb", ".node/lock", "a//b", "x" * 241,
                                  "a\u202eb", "/".join("a" * 65)])
def test_no_listing_of_either_kind_names_what_no_system_may_keep(path):
    good = encode_more([entry("y" * 5)])
    name = path.encode()
    listing = good.replace(b"\0\x05" + bytes(7) + b"\x01yyyyy", bytes([0, len(name)]) + bytes(7) + b"\x01" + name)
    assert listing != good
    for decode in (decode_more, decode_listing):
        with pytest.raises(BadName):
            decode(listing)


@pytest.mark.parametrize("damage", ["cut", "longer", "magic", "out of order", "twice"])
def test_a_malformed_listing_of_other_names_is_refused(damage):
    good = encode_more([entry("a:1"), entry("b:2")])
    bad = {"cut": good[:-1], "longer": good + bytes(32), "magic": b"LST2" + good[4:],
           "out of order": good.replace(b"a:1", b"c:3"), "twice": good.replace(b"a:1", b"b:2")}[damage]
    with pytest.raises(LibraryError):
        decode_more(bad)


@pytest.mark.parametrize("name", [".more-0-" + "a" * 64, ".more-5-" + "A" * 64, ".more-99999999-" + "a" * 64,
                                  ".more-5-a"])
def test_what_only_looks_like_it_is_no_listing_of_other_names(name):
    assert without_more([FolderEntry(name, 0, b"", True)])[1] is None


def test_without_its_listing_of_other_names_a_folder_is_not_complete_and_the_rest_is_kept(lab):
    lab.node("ana")
    bo = lab.node("bo", shared=FOLDER)
    for shared in list(bo.library._shared.by_id.all()):
        if shared.name == "d/other names":
            bo.library.withdraw([shared])
            bo.peer.holdings._shared.discard(shared.file_id, shared.path)
    cy = lab.node("cy")
    stopped = cy.fetched("d", within=200)
    assert "not complete: d/other names" in stopped.reason and files_of(cy) == {"d/plain.txt": b"1"}
