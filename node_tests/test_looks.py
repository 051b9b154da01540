"""What a person can tell apart: names of members and files that were made to look like another's (C02, A03)."""

from __future__ import annotations

import sys
import unicodedata

import pytest

from node_tests.stage.lab import PORT, Lab
from node_tests.stage.outlaw import Outlaw
from prompt.lines import file_rows
from protocol.looks import (
    LABEL_COLUMNS_MAX,
    UNPRINTABLE,
    is_drawn,
    is_of_one_script,
    safe_label,
    safe_text,
    skeleton,
    text_width,
)
from protocol.membership.labels import NAME_CHARS_MAX, name_fault
from protocol.membership.roster import Roster
from protocol.messages import NOWHERE, MemberEntry
from protocol.results import ListEntry

ANA_TWINS = [  # most of them were drawn as exactly "ana"
    "\u0430na", "an\u0430", "\u0430n\u0430", "ana\u180f", "ana\u200b", "\uff41na", "ANA", "ana ", "ana\u2800",
    "ana\U000e0100", "ana\ufe0f", "a\u034fna", "ana\U0001d173", "\u03b1na", "\u1d00n\u1d00", "\u0251na", "an\u0101",
    "a\u200ana", "ana\u3164", "ana\u115f", "ana\u17b4", "ana\u2060", "\U0001d41a\U0001d427\U0001d41a", "a\u0578a",
]  # fmt: skip


def labels_of(*members):
    """Of (name, host) each, in join order."""
    roster = Roster()
    for number, (name, host) in enumerate(members, 1):
        place = (host, PORT) if host else NOWHERE
        roster.put(MemberEntry(bytes([number]) * 8, name, place, number, True, True))
    return list(roster.labels().values())


def as_seen(label):
    """What an eye makes of a line on the screen."""
    return skeleton(safe_label(label))


# ---- one character ------------------------------------------------------------------------------------------------


def test_what_is_drawn_as_nothing_is_known_by_what_unicode_says_of_it():
    """All that has the property Default_Ignorable_Code_Point, and the blanks that letters and symbols can be."""
    ignorable = [
        0x00AD, 0x034F, 0x061C, 0x115F, 0x1160, 0x17B4, 0x17B5, *range(0x180B, 0x1810), *range(0x200B, 0x2010),
        *range(0x202A, 0x202F), *range(0x2060, 0x2070), 0x3164, *range(0xFE00, 0xFE10), 0xFEFF, 0xFFA0,
        *range(0xFFF0, 0xFFF9), *range(0x1BCA0, 0x1BCA4), *range(0x1D173, 0x1D17B), *range(0xE0000, 0xE1000), 0x2800,
    ]  # fmt: skip
    assert not [hex(code) for code in ignorable if is_drawn(chr(code))]
    assert all(safe_text(chr(code)) == "\\u{%x}" % code for code in ignorable)


def test_hardly_anything_that_is_drawn_is_taken_for_nothing():
    refused = [
        code for code in range(sys.maxunicode + 1)
        if not is_drawn(chr(code)) and unicodedata.category(chr(code)) not in UNPRINTABLE
    ]  # fmt: skip
    assert len(refused) < 320 and len([code for code in refused if not 0xFE00 <= code % 0xE0000 <= 0xFE0F]) < 280
    assert all(map(is_drawn, "aé漢\U0001f600\u0301 \u3000ＡأЖ"))


def test_a_mark_at_the_beginning_does_not_stand_on_what_goes_before():
    assert safe_label("\u0338ana") == "\\u{338}ana" and safe_text("e\u0301") == "e\u0301"


# ---- labels -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("twin", ANA_TWINS, ids=ascii)
def test_a_name_that_looks_like_anothers_is_told_apart(twin):
    first, second = labels_of(("ana", ""), (twin, "127.0.0.1"))
    assert first == "ana" and second == twin + "~0202"
    assert as_seen(first) != as_seen(second)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("\u0441\u043e\u0440", "cop"),  # all Cyrillic
        ("\u039c\u0391\u03a1\u0399\u0391", "MAPIA"),  # all Greek
        ("\u0578\u057d", "nu"),  # all Armenian
        ("alice", "al\u0131ce"),
        ("alice", "aIice"),
        ("bell", "be1l"),
        ("marnie", "mamie"),
        ("lab-7", "lab\u20107"),
        ("lab-7", "lab\u22127"),
        ("Jos\u00e9", "Jose"),
        ("ana\u200b", "ana\\u{200b}"),  # as the first is drawn
    ],
)
def test_look_alikes_of_one_script_are_told_apart_and_the_first_keeps_its_name(one, other):
    for first, second in ((one, other), (other, one)):
        labels = labels_of((first, ""), (second, ""))
        assert labels[1] == second + "~0202" and as_seen(labels[0]) != as_seen(labels[1])
        assert labels[0] in (first, first + "~0101")


def test_names_of_every_script_in_use_are_borne_as_they_are():
    names = [
        "ana", "Zo\u00eb", "\u041e\u043b\u044c\u0433\u0430", "\u0395\u03bb\u03ad\u03bd\u03b7", "\u5f20\u4f1f",
        "\u3055\u304f\u3089", "\u30a8\u30fc\u30b9", "\uae40\ubbfc", "\u05d3\u05d5\u05d3",
        "\u0641\u0627\u0637\u0645\u0629", "\u0905\u0928\u0928\u094d\u092f\u093e",
        "\u0e2a\u0e21", "ana@lab-07", "bo.2", "\u5f20\u4f1fWei", "bo \U0001f600",
    ]  # fmt: skip
    assert all(map(is_of_one_script, names))
    assert labels_of(*((name, "") for name in names)) == names


MIXED = ["\u0410nna", "Zo\u0451", "lab\u09ea", "\ua4ee\ua4e0\ua4ee", "\u13aa\u13c1\u13aa"]  # Lisu, Cherokee


@pytest.mark.parametrize("name", MIXED, ids=ascii)
def test_a_name_that_mixes_scripts_or_has_one_that_nobody_writes_is_never_plain(name):
    """Nobody else needs be here for it to mislead: the one whom it looks like may come, or have left."""
    assert labels_of((name, "")) == [name + "~0101"]
    assert labels_of((name, "10.0.0.9")) == [name + "@10.0.0.9"]


def test_a_look_alike_is_told_apart_by_its_host_where_that_differs():
    ana, twin = ("ana", "10.0.0.7"), ("\u0430na", "10.0.0.9")
    assert labels_of(ana, twin) == ["ana", "\u0430na@10.0.0.9"]
    assert labels_of(ana, ("\u0430na", "10.0.0.7")) == ["ana", "\u0430na~0202"]  # on one machine
    assert labels_of(("ana", ""), twin) == ["ana", "\u0430na~0202"]  # where the supernode is, its roster does not say
    assert labels_of(ana, twin, ("an\u0430", "10.0.0.9")) == ["ana", "\u0430na~0202", "an\u0430~0303"]
    assert labels_of(ana, ("ana@10.0.0.9", "10.0.0.8"), twin) == ["ana", "ana@10.0.0.9", "\u0430na~0303"]


@pytest.mark.parametrize("tilde", ["~", "\uff5e", "\u223c", "\u301c", "\u2053", "\u02dc"])
def test_nobody_has_the_label_that_another_would_get(tilde):
    names = [("ana%s0303" % tilde, ""), ("ana", ""), ("ana", "")]
    labels = labels_of(*names)
    assert labels[1:] == ["ana", "ana~0303"] and labels[0].endswith("~0101")


def test_a_long_name_does_not_push_out_what_tells_it_apart():
    for name in ("\u6f22" * NAME_CHARS_MAX, "\u202e" * NAME_CHARS_MAX, "<" * NAME_CHARS_MAX, "x" * 128):
        labels = [safe_label(label) for label in labels_of(*[(name, "")] * 20)]
        assert len(set(labels)) == 20 and all(text_width(label) <= LABEL_COLUMNS_MAX for label in labels)
    ends = [safe_label(label) for label in labels_of(("\u6f22" * 31 + "\u4e2d", ""), ("\u6f22" * 31 + "\u4eba", ""))]
    assert ends[0] != ends[1]


def test_all_see_the_same_labels_whatever_came_and_went_before_them():
    """Where people speak of "ana", all must mean the same one: who was here earlier has no other names for them."""
    ana = MemberEntry(b"ana-----", "ana", NOWHERE, 1, True, True)
    twin = MemberEntry(b"mallory!", "\u0430na", NOWHERE, 2, True, True)
    old, new = Roster(), Roster()
    for roster in (old, new):
        roster.put(ana)
    old.put(twin)
    assert old.label_of(ana.node_id) == "ana" != old.label_of(twin.node_id)
    old.remove(ana.node_id)
    old.put(ana._replace(order=3))
    new.remove(ana.node_id)
    for entry in (ana._replace(order=3), twin):
        new.put(entry)
    assert old.labels() == new.labels()


def test_a_member_that_changes_its_name_stands_behind_those_who_had_it(tmp_path):
    """For those who come later, too: they only know the order."""
    lab = Lab(tmp_path)
    ana = lab.node("ana")
    x = Outlaw(lab, name="zed").join(ana)
    bo = lab.node("bo")
    x.join(ana, name="bo")
    lab.run(2)
    x.live(1)
    cy = lab.node("cy")
    for node in (ana, bo, cy):
        assert node.peer.label_of(bo.peer.node_id) == "bo"
        assert node.peer.label_of(x.node_id) == "bo~" + x.node_id.hex()[:4]
    lab.close()


def test_a_name_of_which_nothing_is_drawn_is_none():
    for name in ("\u200b", "\u2800", "\u3164\u180f", "\u0301", "\x1b"):
        assert name_fault(name) == "nothing of the name can be seen"
    assert name_fault("\u00b7") is name_fault("\U0001f600") is None


# ---- files --------------------------------------------------------------------------------------------------------


def row(number, name):
    return ListEntry(number, name, 5, bytes([number]) * 32, False, 1, ("ana",), 1, 5)


def test_files_whose_names_look_alike_tell_their_ids_in_the_list():
    shared = ["lab.iso", "l\u0430b.iso", "lab.iso\u180f", "other", "lab.iso"]
    names = [cells[1] for cells in file_rows([row(number, name) for number, name in enumerate(shared, 1)])]
    assert names == [
        "lab.iso (id 01010101)", "l\u0430b.iso (id 02020202)", "lab.iso\\u{180f} (id 03030303)", "other",
        "lab.iso (id 05050505)",
    ]  # fmt: skip
    assert [cells[1] for cells in file_rows([row(1, "lab.iso"), row(2, "lab.iso")])] == ["lab.iso"] * 2
