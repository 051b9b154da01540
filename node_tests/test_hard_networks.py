"""The random networks of `test_network.py` made harder, or with faulty machines in them: what must hold is the same.

`hard` has many more deaths, cuts and stops. `faulty` has these, pieces of 4 KiB that come in spans of 1.5 KiB, three
persons of one name, and disks that refuse a part of what is written until the faults end. `cast` has multicast: often
several ask for one content at once, some switch ports drop what is sent to groups, and somebody may forge datagrams.

    python node_tests/test_hard_networks.py hard 20579       replays one story and prints what everybody is told
    python node_tests/test_hard_networks.py faulty 0-999     runs many, and tells which fail
"""

from __future__ import annotations

import contextlib
import errno
import os
import random
import sys

if __name__ == "__main__":
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import pytest
import test_network

from disk import parts, small
from node_tests.stage.amounts import amount, only_in_full
from node_tests.stage.usage import play_seeds
from protocol.content import pieces as content
from protocol.content.pieces import digests_of, identity_of
from protocol.exchange import casting, catching, source, uploads
from protocol.transport.casting import SLICE, CastDatagram, encode_cast_header

FIRST, SEEDS, PLAYED = amount(0, 3), amount(100, 5), amount(5, 2)
PIECE_SIZE, SPAN_SIZE = 4096, 1536  # bytes: small files have several pieces, each of several spans
NAMESAKES = ("bo", "cy", "ed")  # all of them are called bo
DISK_TROUBLES = (errno.ENOSPC, errno.EIO, errno.EDQUOT)
CAST_SIZE_MIN = 30_000  # bytes: these stories have small files
CAST_SIZES, NEW_SIZES = (700, 40_000, 120_000), (40_000, 200_000, 900_000)


class HardStory(test_network.Story):
    command = "test_hard_networks.py hard"

    def _something(self):
        events = (
            (self._chat, 24), (self._share, 12), (self._fetch, 26), (self._cancel, 5), (self._mesh, 6),
            (self._remove, 2), (self._leave, 5), (self._kill, 8), (self._kill_rulers, 9), (self._part, 9),
            (self._return, 16), (self._stop, 6),
        )  # fmt: skip
        kinds, weights = zip(*events)
        self.rng.choices(kinds, weights)[0]()


class FaultyStory(HardStory):
    command = "test_hard_networks.py faulty"

    def run(self):
        self.disk_rng, self.disk_trouble = random.Random(self.seed), self.rng.choice((0.0, 0.02, 0.2))
        with self._faults():
            super().run()

    @contextlib.contextmanager
    def _faults(self):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(content, "PIECE_SIZE_MIN", PIECE_SIZE)
            for module in (source, uploads):
                patch.setattr(module, "SPAN_BYTES_MAX", SPAN_SIZE)
            write_at = parts.write_at

            def may_fail(descriptor, data, offset):
                if self.disk_rng.random() < self.disk_trouble:
                    raise OSError(self.disk_rng.choice(DISK_TROUBLES), "refused")
                return write_at(descriptor, data, offset)

            for module in (parts, small):
                patch.setattr(module, "write_at", may_fail)
            yield

    def _clear_up(self):
        self.disk_trouble = 0.0
        super()._clear_up()

    def _sit_down(self, name):
        super()._sit_down(name)
        if name in NAMESAKES:
            self.people[-1].peer.membership.name = "bo"


class CastStory(test_network.Story):
    """A class: what one asks for, others ask for as well, and where three do, it is cast."""

    command = "test_hard_networks.py cast"
    sizes = CAST_SIZES

    def run(self):
        self.world.multicast = True
        self.size = max(self.size, 7)
        self.begun = self.rushes = 0  # casts that got to pieces; times that many wanted something new
        self.is_forged = self.rng.random() < 0.25
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(content, "PIECE_SIZE_MIN", PIECE_SIZE)
            for module in (casting, catching):
                patch.setattr(module, "CAST_SIZE_MIN", CAST_SIZE_MIN)
            patch.setattr(casting.Cast, "choose", self._counting(casting.Cast.choose))
            for _ in range(self.rng.randint(5, 12)):
                self.world.at(self.rng.uniform(15.0, self.clear_at), self._rush)
            if self.is_forged:
                self._forge()
            super().run()

    def _counting(self, choose):
        def counted(cast):
            self.begun += 1
            self.tell("a cast begins to %d" % len(cast.ready()))
            return choose(cast)

        return counted

    def _sit_down(self, name):
        super()._sit_down(name)
        person = self.people[-1]
        if not person.peer.mesh and self.rng.random() < 0.7:
            person.do("set_mesh", True, self.world.now)
        dice = self.rng.random()
        self.world.deaf.discard(person.ip)
        self.world.groupless.discard(person.ip)
        if dice < 0.1:
            self.world.deaf.add(person.ip)
        elif dice < 0.15:
            self.world.groupless.add(person.ip)
        elif dice < 0.2:
            person.peer.fetching.casts = False

    def _rush(self):
        """Somebody has something new, and all who can be spoken to, or most of them, want it."""
        person = self._anyone()
        if person is not None:
            self.rushes += 1
            name = "new%d.bin" % self.rushes
            data = self.rng.randbytes(self.rng.choice(NEW_SIZES))
            path = os.path.join(person.folder, name)
            person.put(name, data)
            self.put[path] = data
            self.contents[identity_of(len(data), digests_of(data))] = data
            person.look_into_folder()
            self.world.after(2.0, lambda: self._all_want(name))

    def _all_want(self, name):
        for person in self.members():
            if self.rng.random() < 0.85:
                delay = self.rng.choice((0.0, 0.1, 0.5)) * self.rng.random()
                self.world.after(delay, lambda one=person: self._want(one, name))

    @staticmethod
    def _want(person, name):
        if person.is_alive and not person.is_leaving:
            person.do("list_files", name, person.world.now, lambda rows: person.want(rows[0]) if rows else None)

    def _forge(self):
        """Somebody sends to the groups, in the casters' names, what looks right."""
        for person in self.here():
            casts = person.network.casts
            for session, sender in list(casts.sending.items()):
                head = CastDatagram(SLICE, session, self.rng.randrange(2**16), self.rng.randrange(300), 0, 0)
                casts.cast(sender.group, encode_cast_header(head) + self.rng.randbytes(1440))
        if self.world.now < self.clear_at:
            self.world.after(0.01, self._forge)


KINDS = {"hard": HardStory, "faulty": FaultyStory, "cast": CastStory}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("first", range(FIRST, SEEDS, PLAYED))
def test_hard_and_faulty_networks_end_well(kind, first):
    played = amount(PLAYED, 1) if kind == "cast" else PLAYED  # one with casts takes as long as five others
    for seed in range(first, first + played):
        test_network.play(seed, kind=KINDS[kind])


# ---- seeds with a story: each failed until the program was made better


@only_in_full
@pytest.mark.parametrize("seed", (20579, 250252))
def test_members_that_slept_and_those_of_an_earlier_term_do_not_wait_for_each_other(seed):
    test_network.play(seed, kind=HardStory)


@only_in_full
def test_seed_30042_those_of_a_later_term_do_not_wait_for_the_one_who_waits_for_them():
    test_network.play(30042, kind=FaultyStory)


@only_in_full
def test_seed_3037_a_newer_supernode_that_is_alone_goes_to_an_older_one_that_knows_none_of_its_people():
    test_network.play(3037, kind=FaultyStory)


@pytest.mark.parametrize("seed", (900103, 3186)[: amount(2, 1)])
def test_a_newer_supernode_goes_to_an_older_one_that_it_lost_and_that_knows_none_of_its_people(seed):
    test_network.play(seed, kind=HardStory)


@only_in_full
def test_seed_3401_two_supernodes_that_asked_each_other_in_vain_while_they_were_parted_meet():
    test_network.play(3401, kind=FaultyStory)


if __name__ == "__main__":
    sys.exit(play_seeds(test_network.play, __doc__, KINDS))
