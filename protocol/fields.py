"""How a field is written and read: numbers, text, addresses, records and lists of them, big endian.

Each kind has `encode`, which raises ValueError for a value that no message may hold (that is our own mistake), and
`decode`, which raises WireError for bytes that it does not write (that is the sender's). Every kind has a bound, so no
message makes a reader hold more than its own bytes.
"""

from __future__ import annotations

import functools
import ipaddress
from typing import Any, List, Optional, Sequence, Tuple, Union

Buffer = Union[bytes, bytearray, memoryview]
Address = Tuple[str, int]
MAPPED = bytes(10) + b"\xff\xff"  # ::ffff:0:0/96


class WireError(ValueError):
    """The bytes are malformed: the sender's fault, so they are dropped and counted."""


def harmless_words(said: Buffer) -> str:
    """Words for a person, from a stranger perhaps; U+FFFD for what is no UTF-8, and for what a terminal would obey."""
    text = bytes(said).decode("utf-8", "replace")
    return text if text.isprintable() else "".join(each if each.isprintable() else "\ufffd" for each in text)


class Reader:
    """Takes fields off the front of a message; running past the end raises WireError."""

    def __init__(self, data: Buffer, at: int = 0) -> None:
        self.data = memoryview(data)
        self.at = at  # bytes, from the front, that are taken already

    def take(self, size: int) -> memoryview:
        """The next bytes, exactly so many; a view, nothing is copied."""
        end = self.at + size
        if end > len(self.data):
            raise WireError("message ends early")
        view = self.data[self.at : end]
        self.at = end
        return view

    def left(self) -> int:
        """How many bytes are not taken yet."""
        return len(self.data) - self.at


class Number:
    """An unsigned whole number of 1, 2, 4 or 8 bytes, malformed above `most`."""

    def __init__(self, size: int, most: Optional[int] = None) -> None:
        self.size = size
        self.most = 256**size - 1 if most is None else most

    def encode(self, value: int) -> bytes:
        """So many bytes, most significant first; ValueError if it does not fit."""
        try:
            return value.to_bytes(self.size, "big")
        except OverflowError:
            raise ValueError(f"{value} does not fit into {self.size} bytes") from None

    def decode(self, reader: Reader) -> int:
        """The same back; WireError above the limit."""
        value = int.from_bytes(reader.take(self.size), "big")
        if value > self.most:
            raise WireError("number is over its limit")
        return value


class Flag:
    """True or false, one byte; anything but 0 and 1 is malformed."""

    def encode(self, value: bool) -> bytes:
        return b"\x01" if value else b"\x00"

    def decode(self, reader: Reader) -> bool:
        """True or false; WireError for any other byte than 1 or 0."""
        value = reader.take(1)[0]
        if value > 1:
            raise WireError("flag is neither 0 nor 1")
        return bool(value)


class Fixed:
    """Exactly so many bytes."""

    def __init__(self, size: int) -> None:
        self.size = size

    def encode(self, value: bytes) -> bytes:
        """As they are; ValueError for another length."""
        if len(value) != self.size:
            raise ValueError(f"expected {self.size} bytes, got {len(value)}")
        return bytes(value)

    def decode(self, reader: Reader) -> bytes:
        return bytes(reader.take(self.size))


class Blob:
    """Up to `most` bytes behind a 4-byte length."""

    def __init__(self, most: int) -> None:
        self.most = most

    def encode(self, value: Buffer) -> bytes:
        """Their number in four bytes, then they; ValueError for too many."""
        if len(value) > self.most:
            raise ValueError(f"{len(value)} bytes, at most {self.most} fit")
        return len(value).to_bytes(4, "big") + bytes(value)

    def decode(self, reader: Reader) -> bytes:
        """The same back, copied; WireError for too many."""
        size = int.from_bytes(reader.take(4), "big")
        if size > self.most:
            raise WireError("field is over its limit")
        return bytes(reader.take(size))


class Text:
    """UTF-8 of up to `most` bytes behind a 2-byte length; surrogates and broken UTF-8 are malformed."""

    def __init__(self, most: int) -> None:
        self.most = most

    def encode(self, value: str) -> bytes:
        """Its UTF-8, the length of that in two bytes before it; ValueError for too much."""
        data = value.encode("utf-8")
        if len(data) > self.most:
            raise ValueError(f"text of {len(data)} bytes, at most {self.most} fit")
        return len(data).to_bytes(2, "big") + data

    def decode(self, reader: Reader) -> str:
        """The same back; WireError for too much, and for what is not UTF-8."""
        size = int.from_bytes(reader.take(2), "big")
        if size > self.most:
            raise WireError("text is over its limit")
        try:
            return bytes(reader.take(size)).decode("utf-8")
        except UnicodeDecodeError:
            raise WireError("text is not UTF-8") from None


class Rest:
    """All bytes to the message's end, at most `most`; decoded as a view, so that a piece is not copied."""

    def __init__(self, most: int) -> None:
        self.most = most

    def encode(self, value: Buffer) -> Buffer:
        """As it is, not copied; ValueError for too much."""
        if len(value) > self.most:
            raise ValueError(f"{len(value)} bytes, at most {self.most} fit")
        return value

    def decode(self, reader: Reader) -> memoryview:
        """All that is left of the message, not copied; WireError for too much."""
        if reader.left() > self.most:
            raise WireError("field is over its limit")
        return reader.take(reader.left())


class AddressField:
    """An IPv4 or IPv6 address and a port: family 1 (4 or 6), address, port 2.

    An interface's name (`fe80::1%eth0`) means something on one machine only: it is left out. An IPv4 address that is
    written as one of IPv6 (RFC 4291 §2.5.5.2) is read as what it is, or no rule for those of IPv4 would see it.
    """

    def encode(self, value: Address) -> bytes:
        """4 or 6, the IP (an interface is not told), the port in two bytes."""
        return _packed(value[0]) + value[1].to_bytes(2, "big")

    def decode(self, reader: Reader) -> Address:
        """The same back, an IPv4 address mapped into IPv6 as IPv4; WireError for another family."""
        family = reader.take(1)[0]
        if family not in (4, 6):
            raise WireError("unknown address family")
        packed = bytes(reader.take(4 if family == 4 else 16))
        if packed.startswith(MAPPED):
            packed = packed[len(MAPPED) :]
        # By hand where that is simple: a roster of a thousand has as many addresses.
        host = "%d.%d.%d.%d" % tuple(packed) if len(packed) == 4 else str(ipaddress.IPv6Address(packed))
        return host, int.from_bytes(reader.take(2), "big")


@functools.lru_cache(4096)
def _packed(ip: str) -> bytes:
    """4 or 6, and the address; a roster is encoded again and again, and to parse a text is dear."""
    packed = ipaddress.ip_address(ip.partition("%")[0]).packed
    return bytes([4 if len(packed) == 4 else 6]) + packed


class Record:
    """A NamedTuple whose fields stand one behind the other."""

    def __init__(self, kind: Any, fields: Sequence[Any]) -> None:
        self.kind = kind
        self.fields = tuple(fields)

    def parts(self, value: Any) -> List[Buffer]:
        return [codec.encode(field) for codec, field in zip(self.fields, value)]

    def encode(self, value: Any) -> bytes:
        return b"".join(self.parts(value))

    def decode(self, reader: Reader) -> Any:
        return self.kind(*[codec.decode(reader) for codec in self.fields])

    def decode_whole(self, data: Buffer, otherwise: Any) -> Any:
        """The value that these bytes are, or `otherwise` where they are none: what lay on a disk may be anything."""
        reader = Reader(data)
        try:
            value = self.decode(reader)
        except WireError:
            return otherwise
        return otherwise if reader.left() else value


class Many:
    """Up to `most` values of one kind behind a 2-byte count; a tuple."""

    def __init__(self, item: Any, most: int) -> None:
        self.item = item
        self.most = most

    def encode(self, values: Sequence[Any]) -> bytes:
        """Their number in two bytes, then each; ValueError for too many."""
        if len(values) > self.most:
            raise ValueError(f"{len(values)} entries, at most {self.most} fit")
        return len(values).to_bytes(2, "big") + b"".join(self.item.encode(value) for value in values)

    def decode(self, reader: Reader) -> Tuple[Any, ...]:
        """The same back; WireError for too many, before any is read."""
        count = int.from_bytes(reader.take(2), "big")
        if count > self.most:
            raise WireError("list is over its limit")
        return tuple(self.item.decode(reader) for _ in range(count))
