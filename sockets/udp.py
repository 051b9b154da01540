"""The UDP socket: batches of datagrams out, datagrams or merged runs of them in, and its troubles as sentences.

Whoever owns a socket is the only thread that touches it: `sockets/thread.py`, and `sockets/door.py` on the same thread.
"""

from __future__ import annotations

import collections
import errno
import mmap
import os
import socket
import struct
import sys
from typing import Any, Callable, Counter, Dict, Iterator, List, Optional, Tuple

from protocol import mishaps
from protocol.addresses import EVERY_ADDRESS, shown
from protocol.fields import Address, Buffer
from protocol.transport.flight import Batch
from protocol.transport.packets import DATAGRAM_SIZE_MAX, Cuts
from protocol.transport.recovery import SEGMENTS_MAX
from sockets import groups
from sockets.border import SIX, Border, socket_at

log = mishaps.logger("rdt")

SOCKET_BUFFER_SIZE = 4 << 20  # asked for; a machine may give 208 KiB, and that works too
READ_SIZE_MAX = 1 << 16  # bytes that one read may bring
MERGED_MAX = 512 << 10  # bytes of a run that is handed on at once, or more by one read: eight of the largest datagrams
MERGED_SIZE_LEAST = 1000  # bytes: smaller datagrams are no data
CUTS_MAX = 4  # sizes of datagrams for which the views of the buffer are kept
NO_OFFLOAD = "RDT_NO_OFFLOAD"  # set in the environment: one datagram a system call, as where there is no offload
GSO_PAUSE = 600.0  # seconds that a destination goes without segmentation after it failed there
GSO_PAUSES_MAX = 1024

# Linux's names, which Python's socket module lacks.
UDP_SEGMENT, UDP_GRO = 103, 104
# A datagram that is too large shall be lost, not cut: only so do MTU probes tell the path's MTU.
# IP_MTU_DISCOVER, IPV6_MTU_DISCOVER: PROBE; IP_DONTFRAG(MENT), IPV6_DONTFRAG
DONT_FRAGMENT = (("linux", 10, 23, 3), ("darwin", 28, 62, 1), ("win32", 14, 14, 1))
SIO_UDP_CONNRESET = 0x9800000C
_SEGMENT_SIZE = struct.Struct("=H")
_GRO_SIZE = struct.Struct("=i")
_ANCILLARY_SIZE = 64
NO_CONTROL: List[Any] = []


class RdtError(Exception):
    """A verb failed; the text names the other side and the cause."""


def _set(sock: socket.socket, level: int, option: int, value: int) -> bool:
    try:
        sock.setsockopt(level, option, value)
        return True
    except OSError:
        return False


def _bound_socket(ip: str, port: int) -> socket.socket:
    try:
        sock = socket_at(ip, port)
    except OSError as error:
        raise RdtError(_bind_trouble(ip, port, error)) from error
    _set(sock, socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    prepare(sock)
    return sock


def prepare(sock: socket.socket) -> None:
    """What all our sockets have alike."""
    sock.setblocking(False)
    for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        for size in (SOCKET_BUFFER_SIZE, 1 << 20, 1 << 18):
            if _set(sock, socket.SOL_SOCKET, option, size):
                break
    for platform, option, option_six, value in DONT_FRAGMENT:
        if sys.platform.startswith(platform):
            _set(sock, socket.IPPROTO_IP, option, value)  # of a socket for both families, too, for what is IPv4 there
            if sock.family == SIX:
                _set(sock, socket.IPPROTO_IPV6, option_six, value)
    if sys.platform == "win32":
        _ignore_port_unreachable(sock)


def _bind_trouble(ip: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE or getattr(error, "winerror", 0) == 10048:
        return f"port {port} is taken by another program"
    if error.errno == errno.EADDRNOTAVAIL or getattr(error, "winerror", 0) == 10049:
        return f"{ip} is not an address of this machine"
    if error.errno == errno.EACCES:
        return f"port {port} may not be used here"
    return f"cannot open {shown((ip or EVERY_ADDRESS, port))}: {error.strerror or error}"


def _ignore_port_unreachable(sock: socket.socket) -> None:
    """Windows reports an ICMP answer to an earlier send as an error of the next receive: switch that off if we can."""
    try:
        import ctypes

        flag, returned = ctypes.c_ulong(0), ctypes.c_ulong(0)
        ctypes.windll.ws2_32.WSAIoctl(  # type: ignore[attr-defined]
            sock.fileno(), SIO_UDP_CONNRESET, ctypes.byref(flag), 4, None, 0, ctypes.byref(returned), None, None
        )
    except (ImportError, AttributeError, OSError):
        log.info("SIO_UDP_CONNRESET is not to be had; resets are ignored one by one")


class Datagrams:
    """The UDP socket: batches out, datagrams (or merged runs of them) in. Offload is found by trying.

    Every error of a send but "wait" counts as loss: the transport sends again, and no thread dies.
    """

    def __init__(self, ip: str, port: int, sock: Optional[socket.socket] = None) -> None:
        self.socket = sock or _bound_socket(ip, port)  # another one that is made already
        self._border = Border(self.socket)
        self.address: Address = self._border.own_address(self.socket)
        self.stats: Counter[str] = collections.Counter()
        self.is_full = False  # the send that was refused last waits for the socket to be writable
        self._view = memoryview(mmap.mmap(-1, MERGED_MAX + READ_SIZE_MAX))  # had from the system as far as it is used
        self._cuts: Dict[int, Cuts] = {}  # by the size of a datagram
        self._ahead: Optional[Tuple[int, int, int, Address]] = None  # read, and not part of the run before it
        self._is_drained = False  # the last read found nothing
        self._has_sendmsg = hasattr(self.socket, "sendmsg")
        self._segments = (
            self._has_sendmsg
            and not os.environ.get(NO_OFFLOAD)
            and _set(self.socket, socket.IPPROTO_UDP, UDP_SEGMENT, 0)
            and sys.platform.startswith("linux")
        )
        self._merges = self._segments and _set(self.socket, socket.IPPROTO_UDP, UDP_GRO, 1)
        self._control_size, self._last_control = 0, []  # type: int, List[Tuple[int, int, bytes]]
        self._unsegmented: Dict[Address, float] = {}  # destinations where segmentation failed, and until when it rests

        self._sources: Dict[str, List[Any]] = {}  # what goes with a question to a group of IPv6
        self.join_groups()

    def fileno(self) -> int:
        """The socket's, for who waits until it can be read."""
        return self.socket.fileno()

    def join_groups(self) -> List[str]:
        """Hear the questions of IPv6 on every link of the moment; the groups to be asked there."""
        if self._border.has_both:
            groups.join(self.socket)
            self._sources = dict(groups.sources())
        return list(self._sources)

    def receive_buffer_size(self) -> int:
        """Bytes that the system keeps for us between two reads."""
        return self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)

    def close(self) -> None:
        """Close the socket; what comes afterwards is refused by the system."""
        self.socket.close()

    def send(self, batch: Batch, now: float, start: int = 0) -> int:
        """Send a batch from that datagram on; behind which one it stopped, because the socket is full."""
        try:
            while start < batch.count:
                start += self._send_some(batch, start, now)
        except BlockingIOError:
            self.is_full = True
        except OSError as error:
            if error.errno == errno.ENOBUFS:  # of the device, not of the socket: select would not show it
                self.is_full = False
                return start
            self.stats[f"send: {errno.errorcode.get(error.errno or 0, str(error))}"] += 1
            self._border.forget(batch.address)
            return batch.count
        return start

    def _send_some(self, batch: Batch, start: int, now: float) -> int:
        """One system call; how many datagrams it took."""
        count = min(batch.count - start, SEGMENTS_MAX, DATAGRAM_SIZE_MAX // batch.segment_size)
        to = self._border.outside(batch.address)
        if count > 1 and self._segments and self._unsegmented.get(batch.address, 0.0) <= now:
            try:
                # In one piece: to look at each buffer's argument takes sendmsg longer than all are copied.
                datagrams = b"".join(self._buffers(batch, start, count))
                self.socket.sendmsg((datagrams,), self._control(batch.segment_size), 0, to)
                return count
            except OSError as error:
                if error.errno not in (errno.EIO, errno.EINVAL, errno.EMSGSIZE):
                    raise
                self._rest_segmentation(batch.address, now)
        parts = self._buffers(batch, start, 1)
        if self._has_sendmsg:
            self.socket.sendmsg(parts, self._sources.get(batch.address[0], NO_CONTROL), 0, to)
        else:
            self.socket.sendto(b"".join(parts), to)
        return 1

    def _control(self, segment_size: int) -> List[Tuple[int, int, bytes]]:
        """Tells the system where to cut; made anew only where the size is another than the last time."""
        if segment_size != self._control_size:
            self._control_size = segment_size
            self._last_control = [(socket.IPPROTO_UDP, UDP_SEGMENT, _SEGMENT_SIZE.pack(segment_size))]
        return self._last_control

    @staticmethod
    def _buffers(batch: Batch, start: int, count: int) -> List[Buffer]:
        per = batch.per_datagram
        return batch.buffers if count == batch.count else batch.buffers[per * start : per * (start + count)]

    def _rest_segmentation(self, address: Address, now: float) -> None:
        if len(self._unsegmented) >= GSO_PAUSES_MAX:
            self._unsegmented.clear()
        self._unsegmented[address] = now + GSO_PAUSE
        self.stats["segmentation failed"] += 1

    def arrivals(self, count: int) -> Iterator[Tuple[memoryview, int, Address]]:
        """What `receive` gives, up to so many times, from a socket that has something to read."""
        self._is_drained = False
        for _ in range(count):
            received = self.receive()
            if received is None:
                return
            if len(received[0]) and received[2][1]:  # source port 0 cannot be answered
                yield received

    def receive(self) -> Optional[Tuple[memoryview, int, Address]]:
        """(datagrams one behind the other, size of each but the last, sender), good until the next call; None: no more.

        What the kernel does not merge is merged here: a run of packets costs little more than one.
        """
        found = self._first()
        if found is None:
            return None
        start, size, segment_size, address = found
        stop = start + size
        # A lone acknowledgement is not merged, for then its round-trip time would be that of the last read.
        while segment_size >= MERGED_SIZE_LEAST and not size % segment_size and stop < MERGED_MAX:
            self._ahead = self._read(stop)
            if self._ahead is None:
                self._is_drained = True
                break
            _, size, next_size, sender = self._ahead
            if sender != address or next_size > segment_size or (next_size < segment_size and size > next_size):
                break
            self._ahead = None
            stop += size
            if next_size < segment_size:
                break  # the last of a run may be shorter
        return self._view[start:stop], segment_size, address

    def cuts(self, segment_size: int, cuts_of: Callable[[memoryview, int], Cuts]) -> Optional[Cuts]:
        """Views of the buffer in which `receive` gives datagrams of that size: cut once, for all that will come."""
        if segment_size < MERGED_SIZE_LEAST:
            return None
        found = self._cuts.get(segment_size)
        if found is None:
            if len(self._cuts) >= CUTS_MAX:
                self._cuts.clear()
            found = self._cuts[segment_size] = cuts_of(self._view, segment_size)
        return found

    def has_read_ahead(self) -> bool:
        """Is there something that select does not know of?"""
        return self._ahead is not None

    def _first(self) -> Optional[Tuple[int, int, int, Address]]:
        """What was read ahead, moved to the front; otherwise a new read, unless the last one found nothing."""
        if self._is_drained:
            self._is_drained = False
            return None
        if self._ahead is None:
            return self._read(0)
        start, size, segment_size, address = self._ahead
        self._ahead = None
        self._view[:size] = self._view[start : start + size]
        return 0, size, segment_size, address

    def _read(self, start: int) -> Optional[Tuple[int, int, int, Address]]:
        """Read into the buffer from that place on: (place, bytes, size of each datagram, sender)."""
        try:
            if self._merges:
                into = [self._view[start : start + READ_SIZE_MAX]]
                size, control, _, address = self.socket.recvmsg_into(into, _ANCILLARY_SIZE)
                segment_size = size
                for level, kind, data in control:
                    if level == socket.IPPROTO_UDP and kind == UDP_GRO and len(data) >= 4:
                        segment_size = _GRO_SIZE.unpack_from(data)[0]
            else:
                size, address = self.socket.recvfrom_into(self._view[start : start + READ_SIZE_MAX])
                segment_size = size
        except BlockingIOError:
            return None
        except OSError as error:  # ConnectionResetError on Windows: an earlier send found nobody; so be it
            self.stats[f"receive: {errno.errorcode.get(error.errno or 0, str(error))}"] += 1
            return (start, 0, 0, ("", 0)) if isinstance(error, ConnectionResetError) else None
        return start, size, segment_size, self._border.inside(address)
