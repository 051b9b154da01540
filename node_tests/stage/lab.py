"""Whole nodes in one thread: real libraries in folders, virtual time, links that can be cut, nodes that die.

`Lab` makes nodes; a node's `events` are what its person would have been told.
"""

from __future__ import annotations

import functools
import hashlib
import os
import random

from disk.library import Library
from disk.preparing import Preparing
from disk.scanner import Scanner
from node_tests.stage.simulator import World, no_credentials
from peer import Peer
from protocol.results import DownloadDone, Outcome, Stopped
from supernode import Supernode

PORT = 6020
MIB = 1 << 20
LONG_STEP = 32 * MIB  # long contents are the beginnings of some that are kept


class Node:
    """One node with its library, its scanner and its person's screen."""

    def __init__(self, lab, name, number, mesh=True, disk_delay=0.0002, port=PORT, rng=None, ip=None, also=(), **how):
        self.lab, self.world, self.name = lab, lab.world, name
        self.ip, self.port = ip or "10.0.0.%d" % number, port
        self.folder = str(lab.path / name)
        self.events = []
        self.answers = []
        self.disk_delay = disk_delay
        self._disk_free_at = 0.0
        self.is_alive = True
        self.library = Library(self.folder)
        self.library.open()
        self.scanner = Scanner(self.folder, clock=lambda: self.world.now)
        self.network = self.world.network((self.ip, port))
        rng = rng or random.Random(number * 1000 + lab.seed)
        own = self.world.credentials((self.ip, port))
        self.peer = Peer(
            self.network, self.library, Preparing(self.library), self.disk, rng, self.notify, Supernode, name,
            scanner=self.scanner, own_addresses=lambda: [self.ip, *also], mesh=mesh,
            fingerprint=own and own.fingerprint, **how,
        )  # fmt: skip
        self.world.attach(self.network, self.peer)

    def notify(self, event):
        self.events.append(event)

    def disk(self, job, done):
        self._disk_free_at = max(self.world.now, self._disk_free_at) + self.disk_delay
        self.world.at(self._disk_free_at, lambda: self._run(job, done))

    def _run(self, job, done):
        if not self.is_alive:
            return
        if self.network.is_stopped:
            self.world.after(0.1, lambda: self._run(job, done))
            return
        result, error = None, None
        try:
            result = job()
        except Exception as caught:
            error = caught
        done(result, error, self.world.now)
        self.network.rearm()

    def do(self, verb, *args):
        """One command of the person, as the console calls it."""
        result = getattr(self.peer, verb)(*args)
        self.network.rearm()
        return result

    def start(self, target=None, others=()):
        self.do("start", target or (self.ip, PORT), PORT, self.world.now, others)
        assert self.world.run_until(lambda: self.told(Outcome), self.world.now + 10)
        self.scan()
        return self

    def scan(self):
        result = self.scanner.run_once()
        self.do("on_scanned", result, self.world.now)
        self.lab.run(0.3)

    def told(self, kind):
        return [event for event in self.events if isinstance(event, kind)]

    def fetch(self, name):
        self.answers = []
        self.do("fetch_name", name, self.world.now, self.answers.append)
        self.world.run_until(lambda: self.answers, self.world.now + 10)
        return self.answers[0]

    def fetched(self, name, within=60.0):
        """Fetch, wait for the end, and give the event that told it."""
        before = len(self.told((DownloadDone, Stopped)))
        assert self.fetch(name).kind == "started"
        self.world.run_until(lambda: len(self.told((DownloadDone, Stopped))) > before, self.world.now + within)
        return self.told((DownloadDone, Stopped))[before]

    def list(self, pattern=""):
        rows = []
        self.do("list_files", pattern, self.world.now, lambda found: rows.append(found))
        assert self.world.run_until(lambda: rows, self.world.now + 10)
        return rows[0]

    def row(self):
        return self.peer.transfers(self.world.now)[0]

    def read(self, name):
        with open(os.path.join(self.folder, name), "rb") as file:
            return file.read()

    def put(self, name, data):
        path = os.path.join(self.folder, *name.split("/"))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(data)
        return data

    def kill(self):
        """SIGKILL: silence; the folder's lock falls, and no file is open any more."""
        self.is_alive = False
        self.world.kill(self.network)
        self.library.close()
        self.scanner.close()

    def quit(self):
        left = []
        self.do("leave", self.world.now, lambda *_: left.append(True))
        assert self.world.run_until(lambda: left, self.world.now + 5)
        self.lab.run(0.5)
        self.kill()

    def supernode_label(self):
        return self.peer.label_of(self.peer.supernode_id) if self.peer.supernode_id else None


class Lab:
    def __init__(self, path, seed=1, conditions=None, packets=False, credentials=no_credentials):
        self.path, self.seed = path, seed
        self.world = World(seed, conditions, packets, credentials)
        self.nodes = []

    def node(self, name, number=None, mesh=True, disk_delay=0.0002, shared=None, **how):
        """A started node; the first one is the supernode."""
        os.makedirs(str(self.path / name), exist_ok=True)
        for file_name, data in (shared or {}).items():
            path = self.path / name / file_name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        node = Node(self, name, number or len(self.nodes) + 1, mesh, disk_delay, **how)
        target = (self.nodes[0].ip, PORT) if self.nodes else None
        self.nodes.append(node)
        return node.start(target)

    def run(self, seconds):
        self.world.run(self.world.now + seconds)

    def close(self):
        for node in self.nodes:
            if node.is_alive:
                node.library.close()


def content(size, seed=7):
    """Random bytes, the same for the same seed."""
    if size > MIB << 3:  # three times as fast; the smaller ones have the ids that seeds were found with
        return _long_content(seed, -(-size // LONG_STEP) * LONG_STEP)[:size]
    return _short_content(size, seed)


@functools.lru_cache(maxsize=1)  # as a rule the next test wants no more of the same
def _long_content(seed, size):
    return hashlib.shake_128(b"%d" % seed).digest(size)


@functools.lru_cache(maxsize=8)
def _short_content(size, seed):
    return random.Random(seed).getrandbits(8 * size).to_bytes(size, "big") if size else b""
