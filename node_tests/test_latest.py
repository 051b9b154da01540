"""A table of the latest only, which others fill."""

from protocol.latest import Latest


def test_the_one_put_longest_ago_is_forgotten_and_told():
    table = Latest(2)
    assert table.put("a", 1) is None and table.put("b", 2) is None
    assert table.put("a", 3) is None, "what is here already takes no new room"
    assert table.put("c", 4) == 2
    assert list(table.items()) == [("a", 3), ("c", 4)]


def test_what_is_changed_in_place_becomes_no_younger():
    table = Latest(2)
    table.put("a", 1)
    table.put("b", 2)
    table["a"] -= 1
    assert table.put("c", 3) == 0
    assert table.forget_oldest() == 2 and list(table) == ["c"]
