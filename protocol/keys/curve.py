"""The curve P-256 (FIPS 186-4, D.1.2.3) and its signatures (ECDSA), in plain integers.

Not constant in time, so it runs at the start only and never in answer to a packet. What it makes is checked by
OpenSSL before it is used: see `disk/credentials.py`.
"""

from __future__ import annotations

import hmac
from typing import Tuple

PRIME = 2**256 - 2**224 + 2**192 + 2**96 - 1
ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
BASE = (0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296,
        0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5)

Point = Tuple[int, int]
Jacobian = Tuple[int, int, int]         # x = X/Z^2, y = Y/Z^3; Z = 0 is the point at infinity
INFINITY = (1, 1, 0)


def public_point(private: int) -> Point:
    """The point of a private key from 1 to ORDER - 1."""
    return _times(private)


def encoded(point: Point) -> bytes:
    """Uncompressed (SEC 1, section 2.3.3): 65 bytes."""
    return b"\x04" + point[0].to_bytes(32, "big") + point[1].to_bytes(32, "big")


def signature(private: int, digest: bytes) -> Tuple[int, int]:
    """ECDSA (FIPS 186-4, section 6.4) of a SHA-256 digest: (r, s).

    Its secret number is made of key and digest (RFC 6979), so the same is signed alike each time, and no weak random
    number can give the key away.
    """
    secret = _secret_number(private, digest)
    r = _times(secret)[0] % ORDER
    s = pow(secret, -1, ORDER) * (int.from_bytes(digest, "big") + r * private) % ORDER
    assert r and s                      # both are zero for one digest in 2**256
    return r, s


def _secret_number(private: int, digest: bytes) -> int:
    """RFC 6979, section 3.2, for SHA-256 and an order of 256 bits."""
    seed = private.to_bytes(32, "big") + (int.from_bytes(digest, "big") % ORDER).to_bytes(32, "big")
    key, value = bytes(32), b"\x01" * 32
    for step in (b"\x00", b"\x01"):
        key = hmac.digest(key, value + step + seed, "sha256")
        value = hmac.digest(key, value, "sha256")
    while True:
        value = hmac.digest(key, value, "sha256")
        if 1 <= int.from_bytes(value, "big") < ORDER:
            return int.from_bytes(value, "big")
        key = hmac.digest(key, value + b"\x00", "sha256")
        value = hmac.digest(key, value, "sha256")


def _times(factor: int) -> Point:
    """So many times the base point: double and add (any textbook), one inversion at the end."""
    assert 1 <= factor < ORDER
    total: Jacobian = INFINITY
    for bit in f"{factor:b}":
        total = _double(total)
        if bit == "1":
            total = _plus_base(total)
    x, y, z = total
    inverse = pow(z, -1, PRIME)
    return x * inverse**2 % PRIME, y * inverse**3 % PRIME


def _double(point: Jacobian) -> Jacobian:
    """`dbl-2001-b` of the Explicit-Formulas Database, for a = -3."""
    x, y, z = point
    delta, gamma = z * z % PRIME, y * y % PRIME
    beta = x * gamma % PRIME
    alpha = 3 * (x - delta) * (x + delta) % PRIME
    new_x = (alpha * alpha - 8 * beta) % PRIME
    return new_x, (alpha * (4 * beta - new_x) - 8 * gamma * gamma) % PRIME, 2 * y * z % PRIME


def _plus_base(point: Jacobian) -> Jacobian:
    """`madd` of the same: the base point is added.

    It is never there already: a factor below the order meets it, or its negative, only as the first of all steps.
    """
    x, y, z = point
    if z == 0:
        return (*BASE, 1)
    square = z * z % PRIME
    h = (BASE[0] * square - x) % PRIME
    slope = (BASE[1] * square * z - y) % PRIME
    h2 = h * h % PRIME
    h3, v = h * h2 % PRIME, x * h2 % PRIME
    new_x = (slope * slope - h3 - 2 * v) % PRIME
    return new_x, (slope * (v - new_x) - y * h3) % PRIME, z * h % PRIME
