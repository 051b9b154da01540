"""What an address has sent, less what it was sent."""

from __future__ import annotations

from protocol.credit import ADDRESSES_MAX, CREDIT_MAX, Credit


def test_what_was_not_earned_is_not_spent() -> None:
    credit = Credit()
    assert not credit.spend(("10.0.0.1", 6020), 1)
    credit.earn(("10.0.0.1", 6020), 100)
    assert not credit.spend(("10.0.0.1", 6021), 100) and not credit.spend(("10.0.0.1", 6020), 101)
    assert credit.spend(("10.0.0.1", 6020), 100) and not credit.spend(("10.0.0.1", 6020), 1)


def test_neither_the_bytes_nor_the_addresses_grow_without_end() -> None:
    credit = Credit()
    for number in range(5000):
        credit.earn(("10.0.0.1", 6020), 100)
        credit.earn(("10.1.0.1", number), 100)
    assert not credit.spend(("10.0.0.1", 6020), CREDIT_MAX + 1) and credit.spend(("10.0.0.1", 6020), CREDIT_MAX)
    assert len(credit._bytes) == ADDRESSES_MAX and not credit.spend(("10.1.0.1", 0), 1)
