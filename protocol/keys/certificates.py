"""The certificates of a private network (RFC 5280, in DER: X.690): its authority's, and one for each node.

The authority's private key is made of the network key, so it exists in the members' memory only, and each member
makes the same authority's certificate and a certificate of its own. What is made of the same keys is the same, byte by
byte: a node that keeps its key keeps its fingerprint.
"""

from __future__ import annotations

import base64
import hashlib
from typing import NamedTuple

from protocol.keys import curve

INTEGER, BITS, OCTETS, IDENTIFIER, UTF8, SEQUENCE, SET = 0x02, 0x03, 0x04, 0x06, 0x0C, 0x30, 0x31
UTC_TIME, GENERALIZED_TIME = 0x17, 0x18
FIRST, SECOND, FOURTH = 0xA0, 0xA1, 0xA3            # tags that depend on where they stand
TRUE = b"\x01\x01\xff"


def element(tag: int, *contents: bytes) -> bytes:
    """One value with its tag and length, in the shortest form, as DER wants it."""
    body = b"".join(contents)
    size = len(body)
    if size < 0x80:
        return bytes((tag, size)) + body
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(length))) + length + body


def integer(value: int) -> bytes:
    """A whole number that is not negative."""
    return element(INTEGER, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def identifier(text: str) -> bytes:
    """An object identifier, as `2.5.29.19`."""
    first, second, *others = map(int, text.split("."))
    return element(IDENTIFIER, bytes((40 * first + second,)), *map(_base_128, others))


def _base_128(value: int) -> bytes:
    groups = [value & 0x7F]
    while value := value >> 7:
        groups.append(value & 0x7F | 0x80)
    return bytes(reversed(groups))


PRIME256V1 = identifier("1.2.840.10045.3.1.7")
EC_KEY = element(SEQUENCE, identifier("1.2.840.10045.2.1"), PRIME256V1)
ECDSA_SHA256 = element(SEQUENCE, identifier("1.2.840.10045.4.3.2"))
# From 1970 to the end of 9999 (RFC 5280, section 4.1.2.5, which writes the years to 2049 in two digits): what a
# machine in a lab believes the time to be must not matter.
ALWAYS = element(SEQUENCE, element(UTC_TIME, b"700101000000Z"), element(GENERALIZED_TIME, b"99991231235959Z"))


def _name(common: str) -> bytes:
    return element(SEQUENCE, element(SET, element(SEQUENCE, identifier("2.5.4.3"), element(UTF8, common.encode()))))


NETWORK, NODE = _name("net"), _name("node")


def authority_certificate(private: int) -> bytes:
    """The network's own, signed by itself, in DER."""
    public = curve.encoded(curve.public_point(private))
    extensions = (
        _extension("2.5.29.19", element(SEQUENCE, TRUE), is_critical=True),     # it is an authority
        _extension("2.5.29.15", element(BITS, b"\x02\x04"), is_critical=True),  # that signs certificates
        _extension("2.5.29.14", element(OCTETS, _key_name(public))),
    )
    return _signed(private, 1, NETWORK, public, *extensions)


class NodeCertificate(NamedTuple):
    """A node's certificate and its key."""
    certificate: bytes              # in DER
    private: int

    def as_pem(self) -> bytes:
        """Both, as OpenSSL reads them.

        The key is without its point (RFC 5915), which would be optional: so OpenSSL computes it and finds that the
        certificate has another one, should our arithmetic ever fail.
        """
        secret = element(OCTETS, self.private.to_bytes(32, "big"))
        key = element(SEQUENCE, integer(1), secret, element(FIRST, PRIME256V1))
        return _pem("EC PRIVATE KEY", key) + _pem("CERTIFICATE", self.certificate)

    def fingerprint(self) -> bytes:
        """Who it is to others."""
        return hashlib.sha256(self.certificate).digest()


def node_certificate(authority: int, private: int) -> NodeCertificate:
    """One for the node with this private key, good for both ends of a connection."""
    public = curve.encoded(curve.public_point(private))
    issuer = curve.encoded(curve.public_point(authority))
    purposes = element(SEQUENCE, identifier("1.3.6.1.5.5.7.3.1"), identifier("1.3.6.1.5.5.7.3.2"))  # server, client
    extensions = (
        _extension("2.5.29.19", element(SEQUENCE), is_critical=True),           # it is no authority
        _extension("2.5.29.15", element(BITS, b"\x07\x80"), is_critical=True),  # and signs handshakes only
        _extension("2.5.29.37", purposes),
        _extension("2.5.29.14", element(OCTETS, _key_name(public))),
        _extension("2.5.29.35", element(SEQUENCE, element(0x80, _key_name(issuer)))),
    )
    serial = int.from_bytes(_key_name(public)[:8], "big") + 2
    return NodeCertificate(_signed(authority, serial, NODE, public, *extensions), private)


def _key_name(public: bytes) -> bytes:
    """Of a public key (RFC 7093, section 2, method 1)."""
    return hashlib.sha256(public).digest()[:20]


def _extension(kind: str, value: bytes, is_critical: bool = False) -> bytes:
    return element(SEQUENCE, identifier(kind), TRUE if is_critical else b"", element(OCTETS, value))


def _signed(authority: int, serial: int, subject: bytes, public: bytes, *extensions: bytes) -> bytes:
    version_3 = element(FIRST, integer(2))
    said = element(
        SEQUENCE, version_3, integer(serial), ECDSA_SHA256, NETWORK, ALWAYS, subject,
        element(SEQUENCE, EC_KEY, element(BITS, b"\0", public)), element(FOURTH, element(SEQUENCE, *extensions)))
    r, s = curve.signature(authority, hashlib.sha256(said).digest())
    return element(SEQUENCE, said, ECDSA_SHA256, element(BITS, b"\0", element(SEQUENCE, integer(r), integer(s))))


def _pem(label: str, body: bytes) -> bytes:
    text = base64.encodebytes(body).replace(b"\n", b"")
    lines = [text[start:start + 64] for start in range(0, len(text), 64)]
    return b"\n".join([b"-----BEGIN %s-----" % label.encode(), *lines, b"-----END %s-----" % label.encode(), b""])
