"""The program: makes the threads, and puts a node together.

    prompt thread (main)   owns the terminal; reads lines, draws everything; its inbox is `Session.inbox`
    node thread            owns the roles (`Peer`, and `Supernode` when it is one); its inbox is `NodeThread.inbox`
    disk thread            owns the library: everything that may block on a disk
    scanner thread         owns the scanner: looks for new and changed files to share
    network thread         owns the socket and every connection

A command is a closure put into the node's inbox; its answer, and every notification, is a closure put into the
console's. So nothing here needs a lock. The network thread is made by `rdt.open_network`, the others here, by what
`prompt/threads.py` has of them. Terminal, questions and commands are in `prompt/`: nobody but it and this file prints,
or reads input or argv.
"""
from __future__ import annotations

import sys

if sys.version_info < (3, 9):  # noqa: UP036  said here, before an import fails
    sys.exit("Python 3.9 or newer is needed; this is %d.%d." % sys.version_info[:2])

import os

if __package__:     # installed by pip: the tree lies in a package, and in this process its rooms are found there first
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from prompt import shortage

if __name__ == "__main__":
    shortage.catch_uncaught()   # before what follows, which takes most of the memory

import argparse
import contextlib
import functools
import logging
import random
import threading
import time
from typing import TYPE_CHECKING, Any, Callable, Iterator, List, Optional, Sequence, Tuple

from prompt import machine, signals
from prompt.lines import line_for
from prompt.network_key import print_new_key
from prompt.paths import danger_of, relative_path
from prompt.session import Session
from prompt.settings import EXIT_FLAGS, NodeError, Settings, Visit, parse_flags
from prompt.terminal import Terminal
from prompt.threads import DiskThread, NodeThread, ScannerThread
from protocol import mishaps, results
from protocol.addresses import is_loopback, shown
from protocol.content.names import HIDDEN
from protocol.credentials import KEY_FILE, Credentials, KeyTrouble, KeyWish
from protocol.facts import Clock, Facts, Health, Machine
from protocol.fields import Address, Buffer
from protocol.lanes import may_wait
from protocol.looks import safe_text
from protocol.network import DoorListener
from sockets import firewall, holders, interfaces, leading

if TYPE_CHECKING:                       # `open_node` imports them, once the first line is on the screen
    import peer
    import rdt
    import supernode
    from disk.library import Library, open_folder
    from disk.network_key import NetworkKey
    from disk.preparing import Preparing
    from disk.scanner import Scanner
    from disk.state import state_of
    from protocol.content.shares import ScanResult, Standing
    from protocol.content.troubles import LibraryError
    from protocol.membership.door import ports_behind

log = mishaps.logger("node")


def own_addresses(ip: Optional[str] = None) -> List[str]:
    """This machine's addresses, and `ip` if it is one; no loopback, and none that is good on one link only."""
    found = [own for own, _ in interfaces.interfaces()] + interfaces.six_addresses()
    if ip and interfaces.address_towards(ip) == ip:    # not by bind(): some systems grant that for any address
        found.append(ip)
    return [own for own in dict.fromkeys(found) if not is_loopback(own)]


def set_up_logging(path: Optional[str]) -> None:
    """Details go to the file, if one is wanted, and never to the screen."""
    logging.raiseExceptions = False         # nor does it say there that a line could not be written
    root = logging.getLogger()
    root.addHandler(logging.NullHandler())
    if path:
        from disk import logs
        root.addHandler(logs.log_handler(path))
        root.setLevel(logging.DEBUG)
    sys.unraisablehook = lambda details: log.error("ignored: %r", details.exc_value)
    threading.excepthook = lambda details: log.error("a thread ended", exc_info=details.exc_value)


class NodeListener(DoorListener):
    """On the network thread: what happens there is passed on to the node thread, which tells it to the peer."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def on_link_up(self, link: int, address: Address, incoming: bool) -> None:
        self._node.call(lambda now: self._node.peer.on_link_up(link, address, incoming, now))

    def on_link_lost(self, link: int, reason: str) -> None:
        self._node.call(lambda now: self._node.peer.on_link_lost(link, reason, now))

    def on_link_moved(self, link: int, address: Address) -> None:
        self._node.call(lambda now: self._node.peer.on_link_moved(link, address, now))

    def on_own_address_changed(self) -> None:
        self._node.call(lambda now: self._node.peer.on_own_address_changed(now))

    def on_message(self, link: int, data: Buffer) -> None:
        self._node.call(lambda now: self._node.hear(link, data, now), may_wait(data))

    def on_writable(self, link: int) -> None:
        self._node.call(lambda now: self._node.peer.on_writable(link, now))

    def on_lone(self, address: Address, data: bytes) -> None:
        self._node.call(lambda now: self._node.peer.on_lone(address, data, now))

    def on_key_wanted(self, address: Address, repeated: bytes) -> None:
        self._node.call(lambda now: self._node.peer.on_key_wanted(address, repeated, now))

    def on_cast(self, event: Any) -> None:
        self._node.call(lambda now: self._node.peer.on_cast(event, now))

    def on_door_lone(self, address: Address, data: bytes) -> None:
        self._node.call(lambda now: self._node.peer.on_door_lone(address, data, now))


class Node:
    """One node with all its threads; made stopped, and only ever used by the prompt thread."""

    def __init__(self, settings: Settings, notify: Callable[[Any], None], library: Library,
                 network: rdt.NetworkThread, is_port_own: bool, key: Optional[NetworkKey] = None) -> None:
        self._key = key
        self.folder, self._is_port_own = relative_path(library.folder), is_port_own
        towards = interfaces.address_towards(settings.ip or interfaces.ANY_ROUTE)
        self._ip = (towards if settings.ip else None) or interfaces.lan_address(towards) or "127.0.0.1"
        self.is_local = is_loopback(network.address[0])
        self.has_network = interfaces.has_network()
        self._thread = NodeThread(time.monotonic)
        self.call = self._thread.call
        self._disk = DiskThread(self._thread)
        library.use_threads(*self._disk.submits)
        self._library, self._network = library, network
        is_over = threading.Event()
        self._settings, self._clock_offset = settings, time.time() - time.monotonic()
        visit = settings.visit or Visit(may_found=True, is_sharing=True)
        scanner = Scanner(visit.scans or library.folder, is_over, is_disk_busy=library.is_busy, danger_of=danger_of,
                          is_remembering=not visit.scans)
        self._scanner = ScannerThread(scanner, self._on_scanned, is_over)
        self._links = rdt.Links(network, NodeListener(self))
        self.peer = peer.Peer(
            self._links, library, Preparing(library), self._disk, random.SystemRandom(), notify, supernode.Supernode,
            settings.name, scanner, functools.partial(own_addresses, settings.ip), may_rule=visit.may_found,
            is_sharing=visit.is_sharing, casts=settings.casts,
            fingerprint=key and key.credentials.fingerprint,
            has_lasting_key=bool(settings.key.identity))

    @property
    def check_code(self) -> str:
        """Of the network's key; nothing where it is open."""
        return self._key.credentials.check_code if self._key else ""

    def keep_key(self) -> str:
        """Keeps the key that was typed for the next start, and says so."""
        return self._key.keep() if self._key else ""

    @property
    def is_port_own(self) -> bool:
        """Does the port that was asked for lead here, by the socket itself or by the door?"""
        return self._is_port_own or self._links.has_door()

    @property
    def ip(self) -> str:
        """This machine's address, to be shown and to be dialled: the one of the start, as long as it has that."""
        own = own_addresses()
        if own and not is_loopback(self._ip) and self._ip not in own:
            self._ip = interfaces.lan_address(interfaces.address_towards(interfaces.ANY_ROUTE)) or self._ip
        return self._ip

    def standing(self) -> Optional[Standing]:
        """How much is shared, and how far its hashing is; None before the first look."""
        standing: Optional[Standing] = self._scanner.scanner.standing()
        return standing

    def look_now(self, then: Callable[[], None] = lambda: None) -> None:
        """Has the scanner look at once; `then` is called on the node thread once it has announced what was found."""
        self._scanner.look_now(lambda: self.call(lambda now: self.peer.when_scanned(then)))

    def examine(self, then: Callable[[Facts], None], folder: str = "") -> None:
        """From any thread: `then`, on one of its own, gets what there is to know of this machine and the network.

        `folder`: where fetched files go, if not into this node's.
        """
        def look(now: float) -> None:
            health = self.peer.health(now)
            threading.Thread(target=lambda: then(self._facts(health, folder)), name="doctor", daemon=True).start()
        self.call(look)

    def _facts(self, health: Health, folder: str) -> Facts:
        """On the doctor's thread: look at addresses, port, firewall, folder and clock, which may take a while."""
        ruler = next((row.address for row in health.members if row.role == "supernode" and not row.is_me), None)
        is_guest = self._settings.visit is not None
        port, own_port, run = self._settings.port, self._network.address[1], machine.runner()
        holder = None if self.is_port_own else holders.holder_of(machine.read, run, port)
        is_rulers = holder is not None and holder.pid is not None and ruler is not None and (
            holders.holder_of(machine.read, run, ruler[1]) == holder)
        wall = firewall.found(machine.read, run, port if is_guest else own_port)
        clock = Clock(time.time(), time.time() - time.monotonic() - self._clock_offset)
        found = Machine(leading.addresses(ruler and ruler[0]), port, own_port, self.is_port_own, holder, wall,
                        state_of(folder or self.folder), clock, is_rulers)
        return Facts(found, health, self._settings.ip or "", is_visit=is_guest, check_code=self.check_code)

    def hear(self, link: int, data: Buffer, now: float) -> None:
        """On the node thread: a message came."""
        try:
            self.peer.on_message(link, data, now)
        finally:
            self._links.consumed(link, len(data))      # its bytes made room: the sender may go on

    def _on_scanned(self, result: ScanResult) -> None:
        self._thread.call(functools.partial(self.peer.on_scanned, result))

    def start(self, settings: Settings) -> None:
        """Starts the threads, and looks for the network."""
        self._thread.start(self.peer)
        for thread in (self._disk, self._scanner, self._network):
            thread.start()              # the network last: its events need somebody who takes them
        target = (settings.ip, settings.port) if settings.ip else None
        if settings.up or settings.down:
            self.call(lambda now: self.peer.set_limits(settings.up, settings.down, now))
        others = [(ip, settings.port) for ip in settings.others]
        self.call(lambda now: self.peer.start(target, settings.port, now, others))

    def close(self, timeout: float) -> None:
        """Ends the threads, delivers what was sent, and gives port and folder free."""
        self._scanner.stop()
        self._thread.stop()
        self._network.close(timeout)
        self._disk(self._library.close, lambda *_: None)    # there, for a job may still be at its files
        self._disk.stop(timeout)


def _import_node() -> None:
    """Most of the program's time to start: a person sees the first line before it."""
    global LibraryError, Preparing, Scanner, open_folder, peer, ports_behind, rdt, state_of, supernode
    import peer
    import rdt
    import supernode
    from disk.library import open_folder
    from disk.preparing import Preparing
    from disk.scanner import Scanner
    from disk.state import state_of
    from protocol.content.troubles import LibraryError
    from protocol.membership.door import ports_behind


def _key_of(wish: KeyWish) -> Optional[NetworkKey]:
    """The key that is meant, if any; NodeError says why it cannot be used."""
    if not wish.is_named and not os.path.lexists(os.path.join(wish.folder, HIDDEN, KEY_FILE)):
        return None                     # who has none pays no more than this look
    from disk import network_key
    try:
        if not wish.is_open:
            machine.keep_no_traces()
        return network_key.key_of(wish)
    except KeyTrouble as error:
        raise NodeError(str(error), EXIT_FLAGS, ("key",) if wish.is_asked else ()) from None


def _tell(notify: Callable[[Any], None], folder: str, event: Any) -> None:
    """What a person is told stands in the log, too, but for chat and for how far a transfer is."""
    is_for_log = not isinstance(event, (results.ChatReceived, results.Whispered, results.Progress))
    if is_for_log and log.isEnabledFor(logging.INFO):
        log.info("%s", line_for(event, folder))
    notify(event)


def open_node(settings: Settings, notify: Callable[[Any], None]) -> Node:
    """A node with all its threads, started; NodeError says why not."""
    key = _key_of(settings.key)
    _import_node()
    try:
        hidden = [settings.visit.hidden] if settings.visit and settings.visit.hidden else []
        library = open_folder(settings.folder, settings.is_folder_chosen, *hidden)
    except LibraryError as error:
        raise NodeError(str(error), EXIT_FLAGS, ()) from error
    try:
        network, is_port_own = _open_network(settings, key and key.credentials)
    except rdt.RdtError as error:
        library.close()
        raise NodeError(f"No network can be used here: {safe_text(str(error))}.") from error
    log.info("node at %s, folder %s", shown(network.address), library.folder)
    tell = functools.partial(_tell, notify, library.folder)
    node = Node(settings, tell, library, network, is_port_own, key)
    for sentence in (library.notice, *library.dropped):
        if sentence:
            tell(results.Notice(sentence))
    node.start(settings)
    return node


def _open_network(settings: Settings, credentials: Optional[Credentials]) -> Tuple[rdt.NetworkThread, bool]:
    """A socket at the port asked for, or close behind it when it is taken: there newcomers look, too."""
    # An address of this machine alone is kept to it; any other is asked for from all interfaces.
    ip = settings.ip if settings.ip and is_loopback(settings.ip) else "0.0.0.0"
    is_guest = settings.visit is not None and not settings.visit.may_found
    # Nobody looks for a guest, and the places where people look are left to those who stay.
    ports = (settings.port, *ports_behind(settings.port), 0)
    if settings.visit is not None and is_guest:
        ports = (settings.port, 0) if settings.visit.takes_port else (0,)
    for port in ports:
        try:
            return rdt.open_network(ip, port, trace=settings.trace, credentials=credentials), port == settings.port
        except rdt.RdtError as error:
            if not port:
                raise
            log.info("%s; another one is tried", error)
    raise AssertionError("the last one is tried or raises")


def _trouble_of(log_path: Optional[str], trace_path: Optional[str] = None) -> str:
    """Why the program cannot even begin, as a sentence; sets up the logging."""
    if sys.stdout is None:
        return "Standard output is closed: there is nowhere to say anything. Redirect it to a file instead."
    try:
        os.getcwd()
    except FileNotFoundError:
        return "The current folder is gone. Change to one that exists, and start again."
    except OSError as error:
        return f"The current folder cannot be used: {(error.strerror or 'refused').lower()}. Start in another one."
    try:
        set_up_logging(log_path)
    except OSError as error:
        return f"The log cannot be written to {safe_text(log_path or '')}: {(error.strerror or 'refused').lower()}."
    try:
        if trace_path:
            open(trace_path, "ab").close()
    except OSError as error:
        return f"The trace cannot be written to {safe_text(trace_path or '')}: {(error.strerror or 'refused').lower()}."
    return ""


@contextlib.contextmanager
def _heard(on_short: Callable[[], None]) -> Iterator[None]:
    """Meanwhile `on_short` is called, on any thread, where one could not go on for lack of memory."""
    watch = shortage.MemoryWatch(on_short)
    logging.getLogger().addHandler(watch)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(watch)


def _run_once(flags: argparse.Namespace, open_node: Callable[..., Any]) -> Tuple[int, bool]:
    """A one-line form: the exit code, and whether standard output takes no more."""
    from prompt.oneshot import OneShot  # whose JSON nobody waits for who has a prompt
    once = OneShot(flags)
    signals.set_up(once.on_signal)
    with _heard(once.on_memory_short):
        return once.run(open_node), once.output.is_lost


def _run_session(flags: argparse.Namespace, open_node: Callable[..., Any]) -> Tuple[int, bool]:
    """The prompt: the exit code, and whether standard output takes no more."""
    session = Session(Terminal())
    signals.set_up(session.on_signal)
    if session.terminal.is_asking and session.terminal.can_redraw:
        session.terminal.stops.hear()
    with _heard(session.on_memory_short):
        code = session.run(flags, open_node)
    if session.trouble:
        shortage.tell(session.trouble)
    return code, session.terminal.is_broken


def main(argv: Optional[Sequence[str]] = None, open_node: Callable[..., Any] = open_node) -> int:
    """The program."""
    try:
        return _run(argv, open_node)
    except MemoryError:
        shortage.end_at_once()
        raise


def _run(argv: Optional[Sequence[str]], open_node: Callable[..., Any]) -> int:
    """Flags, logging, then the one-line form or the prompt; the exit code."""
    try:
        flags = parse_flags(argv)
    except (SystemExit, OSError) as end:        # the help was shown, or could not be; or the flags were wrong
        trouble = shortage.output_trouble(end, False) or shortage.drain(sys.stdout)
        if trouble:
            shortage.tell(trouble)
        return shortage.EXIT_SHORT if trouble else int(getattr(end, "code", 0))
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    if flags.new_key:
        return print_new_key()
    trouble = _trouble_of(flags.log, flags.trace)
    if trouble:
        if sys.stderr is not None:
            print(trouble, file=sys.stderr)
        return EXIT_FLAGS
    if flags.verb:
        code, is_broken = _run_once(flags, open_node)
    else:
        code, is_broken = _run_session(flags, open_node)
    for left_out in mishaps.MISHAPS.rest():
        log.error(left_out)
    if is_broken:
        shortage.drain(sys.stdout)              # what Python itself flushes at exit goes nowhere, quietly
    return code


if __name__ == "__main__":
    sys.exit(main())
