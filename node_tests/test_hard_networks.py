"""The random networks of `test_network.py` made harder, or with faulty machines in them: what must hold is the same.

`hard` has many more deaths, cuts and stops. `faulty` has these, pieces of 4 KiB that come in spans of 1.5 KiB, three
persons of one name, and disks that refuse a part of what is written until the faults end.

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
from node_tests.stage.amounts import amount
from node_tests.stage.usage import play_seeds
from protocol.content import pieces as content
from protocol.exchange import source, uploads

SEEDS, PLAYED = amount(100, 10), 5
PIECE_SIZE, SPAN_SIZE = 4096, 1536  # bytes: small files have several pieces, each of several spans
NAMESAKES = ("bo", "cy", "ed")  # all of them are called bo
DISK_TROUBLES = (errno.ENOSPC, errno.EIO, errno.EDQUOT)


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


KINDS = {"hard": HardStory, "faulty": FaultyStory}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("first", range(0, SEEDS, PLAYED))
def test_hard_and_faulty_networks_end_well(kind, first):
    for seed in range(first, first + PLAYED):
        test_network.play(seed, kind=KINDS[kind])


# ---- seeds with a story: each failed until the program was made better


@pytest.mark.parametrize("seed", (20579, 250252))
def test_members_that_slept_and_those_of_an_earlier_term_do_not_wait_for_each_other(seed):
    test_network.play(seed, kind=HardStory)


def test_seed_30042_those_of_a_later_term_do_not_wait_for_the_one_who_waits_for_them():
    test_network.play(30042, kind=FaultyStory)


def test_seed_3037_a_newer_supernode_that_is_alone_goes_to_an_older_one_that_knows_none_of_its_people():
    test_network.play(3037, kind=FaultyStory)


@pytest.mark.parametrize("seed", (3186, 900103))
def test_a_newer_supernode_goes_to_an_older_one_that_it_lost_and_that_knows_none_of_its_people(seed):
    test_network.play(seed, kind=HardStory)


def test_seed_3401_two_supernodes_that_asked_each_other_in_vain_while_they_were_parted_meet():
    test_network.play(3401, kind=FaultyStory)


if __name__ == "__main__":
    sys.exit(play_seeds(test_network.play, __doc__, KINDS))
