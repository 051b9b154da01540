"""Random networks of whole nodes over the real transport: each seed is a story that must end well.

A story has up to 12 nodes on bad links (loss to 20 %, reordering, repeats, damage, sometimes a narrow path). For
about a minute and a half they join, leave, die, stand still, are cut off, switch the mesh, share, fetch, cancel and
chat. Then the faults end, and when all is quiet these must hold:

    one supernode in each network, obeyed by all; equal rosters of just those who live; the list of files is complete
    every finished file is what was announced; nothing of the user's was overwritten
    every transfer has ended, and one that did not succeed has said why; whatever is listed can be had, unless all who
    have it cancelled sending it to who wants it, or to the supernode that would pass it on
    chat: nothing twice, nothing left out, one order for all who heard it from the same supernode

    python node_tests/test_network.py SEED    replays one story and prints what everybody is told
    python node_tests/test_network.py 0-499   runs many, and tells which fail; the tests play some of each 25
"""

from __future__ import annotations

import os
import pathlib
import random
import shutil
import sys
import tempfile

if __name__ == "__main__":
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import pytest

from node_tests.stage.amounts import amount, only_in_full
from node_tests.stage.folders import entries_of
from node_tests.stage.lab import PORT, Lab, Node
from node_tests.stage.simulator import Conditions
from node_tests.stage.usage import play_seeds
from protocol.content.pieces import digests_of, identity_of
from protocol.membership.door import ports_behind
from protocol.results import ChatReceived, DownloadDone, FetchAnswer, Outcome, Progress, Stopped, SupernodeChanged

SEEDS, BLOCK = 500, amount(25, 100)
PLAYED = amount(BLOCK, 1)  # of each block
MACHINE_SEEDS = amount(40, 1)  # for each number of machines that all share
NAMES = ("ana", "bo", "cy", "di", "ed", "fay", "gus", "hal", "ivy", "jo", "kim", "lou")
AGREED_AFTER = 30.0  # seconds from the end of the faults until all obey one supernode
QUIET_AFTER = 90.0  # until the lines of those who died are gone, too
LEAVE_MAX = 3.0  # seconds that a good-bye may take
SIZES = (0, 1, 700, 5_000, 40_000, 120_000, 300_000)


def read(path):
    with open(path, "rb") as file:
        return file.read()


class Broken(AssertionError):
    """A story that did not end as it must."""


class Person(Node):
    """A node and who sits before it: tries again when nobody answers, and remembers what was shown."""

    def __init__(self, story, name, number, port, rng, mesh):
        disk_delay = rng.choice((0.0005, 0.0005, 0.02))
        super().__init__(story.lab, name, number, mesh, disk_delay, port, rng, ip=self.ip_of(number))
        self.story = story
        self.is_leaving = self.is_member = False
        self.obeys_since = {}  # (ruler's id, term) -> when it began to, the last time
        self.hint = None  # where a network was found that was not asked for
        self.lines = []  # chat: (ruler's id, term, text)
        self.said = []
        self.started = {}  # number of a transfer -> name
        self.wanted = {}  # number of a transfer -> id of its content
        self.ended = {}  # number -> the event, or "cancelled"
        self.kept_back = {}  # id of a content -> node ids that it was no longer to be sent to

    def ip_of(self, number):
        """None: as everywhere."""
        return None

    def notify(self, event):
        self.events.append(event)
        if not isinstance(event, Progress):
            self.story.tell("%-4s %s" % (self.name, event))
        membership = self.peer.membership
        if isinstance(event, (Outcome, SupernodeChanged)):
            self.obeys_since[membership.supernode_id, membership.term] = self.world.now
        if isinstance(event, Outcome):
            self._on_outcome(event)
        elif isinstance(event, ChatReceived):
            self.obeys_since.setdefault((membership.supernode_id, membership.term), self.world.now)
            self.lines.append((membership.supernode_id, membership.term, event.text))
        elif isinstance(event, (DownloadDone, Stopped)):
            self._on_ended(event)

    def _on_outcome(self, outcome):
        if outcome.kind in ("joined", "supernode"):
            self.is_member = True
        else:
            self.hint = outcome.address if outcome.text and outcome.kind == "nobody" else None
            self.world.after(self.story.rng.uniform(1.0, 4.0), self.try_to_join)

    def try_to_join(self):
        """Join where the last try found a network, else by any node that lives; the first one opens the network."""
        if not self.is_alive or self.is_member or self.is_late(self.try_to_join):
            return
        others = [one for one in self.story.here() if one is not self]
        target = self.story.rng.choice(others).network.address if others else self.network.address
        target = self.hint or target
        self.story.tell("%-4s joins at %s:%d" % (self.name, *target))
        self.do("start", target, PORT, self.world.now)

    def is_late(self, action):
        """A stopped process does it when it goes on."""
        if self.network.is_stopped:
            self.world.after(0.1, action)
        return self.network.is_stopped

    def look_into_folder(self):
        if self.is_alive and not self.is_late(self.look_into_folder):
            result = self.scanner.run_once()
            self.story.remember_folders(result.added)
            self.do("on_scanned", result, self.world.now)

    def want_something(self):
        self.do("list_files", "", self.world.now, self._choose)

    def _choose(self, rows):
        if rows:
            self.want(self.story.rng.choice(rows))

    def want(self, row):
        if self.is_alive and not self.is_leaving:
            self.peer.fetch(row, self.world.now, self._on_answer)

    def _on_answer(self, answer):
        assert isinstance(answer, FetchAnswer)
        name = answer.entries[0].name if answer.entries else ""
        self.story.tell("%-4s fetch: %s %s" % (self.name, answer.kind, name))
        if answer.kind == "started":
            self.started[answer.transfer] = answer.entries[0].name
            self.wanted[answer.transfer] = answer.entries[0].file_id

    def _on_ended(self, event):
        if event.number in self.ended:
            raise Broken("%s was told twice how transfer %d ended: %s" % (self.name, event.number, event))
        self.ended[event.number] = event
        if isinstance(event, DownloadDone):
            self.story.check_file(event.path, event.file_id)
        elif not event.reason:
            raise Broken("%s: transfer %d stopped without a reason" % (self.name, event.number))

    def stop_something(self):
        running = [row for row in self.peer.transfers(self.world.now) if row.state not in ("done", "stopped")]
        if running:
            row = self.story.rng.choice(running)
            for upload, file_id, sent in self.peer.serving.uploads.rows(self.world.now):
                if (row.direction, row.number) == ("S", sent.number):
                    self.kept_back.setdefault(file_id, set()).add(upload.node_id)
            line = self.do("cancel", row.number, self.world.now)
            self.story.tell("%-4s cancels %d: %s" % (self.name, row.number, line))
            if row.direction == "R":
                self.ended[row.number] = "cancelled"

    def chat(self):
        text = "%s says %d" % (self.name, len(self.said))
        text = "%s (%s)" % (text, self.peer.node_id.hex()[:4])
        self.said.append(text)
        self.story.said_at[text] = self.world.now
        self.do("say", text, self.world.now)

    def go(self):
        """Q: good-bye, then the process ends."""
        self.is_leaving = True
        left = []

        def over():
            if self.is_alive and not left:
                raise Broken("%s could not leave within %g s" % (self.name, LEAVE_MAX))

        def gone():
            left.append(True)
            self.world.after(0.5, self.kill)

        self.world.after(LEAVE_MAX, over)
        self.do("leave", self.world.now, gone)

    def kill(self):
        if self.is_alive:
            super().kill()


class Story:
    """One seed: the dice, the nodes, the faults, and the questions at the end."""

    command = "test_network.py"  # plays it again
    person = Person
    sizes = SIZES  # bytes of what persons share

    def __init__(self, seed, folder, trace=None, machines=0):
        self.seed, self.trace, self.machines = seed, trace, machines
        self.rng = rng = random.Random(seed)
        self.size = min(rng.randint(2, 12), rng.randint(2, 12))  # small networks more often
        path = self._conditions(rng)
        self.lab = Lab(folder, seed, path, packets=True)
        self.world = self.lab.world
        self.has_one_port = rng.random() < 0.5  # else a broadcast reaches hardly anybody
        self.clear_at = rng.uniform(60.0, 90.0)
        self.people = []  # everybody who was ever here
        self.contents = {}  # id -> bytes
        self.folders = {}  # id -> {path: id}
        self.put = {}  # path -> bytes: what persons put there
        self.said_at = {}  # line of chat -> when
        self.tell("%d nodes, %s" % (self.size, path))

    @staticmethod
    def _conditions(rng):
        is_bad = rng.random() < 0.7
        return Conditions(
            latency=rng.choice((0.0003, 0.001, 0.005, 0.03)),
            jitter=rng.choice((0.0, 0.001, 0.01)),
            loss=rng.choice((0.01, 0.05, 0.1, 0.2)) if is_bad else 0.0,
            reorder=rng.choice((0.0, 0.05)),
            duplicate=rng.choice((0.0, 0.02)),
            corrupt=rng.choice((0.0, 0.001, 0.01)) if is_bad else 0.0,
            rate=rng.choice((float("inf"), float("inf"), 12.5e6, 1.25e6)),
        )

    def tell(self, line):
        if self.trace is not None:
            self.trace("%8.3f  %s" % (self.world.now, line))

    def here(self):
        """Who can be spoken to."""
        return [one for one in self.people if one.is_alive and not one.is_leaving and not one.network.is_stopped]

    def members(self):
        return [one for one in self.here() if one.is_member]

    def rulers(self):
        return [one for one in self.members() if one.peer.is_supernode]

    # ---- what happens

    def run(self):
        self._join()
        for _ in range(1, self.size):
            self.world.at(self.rng.uniform(0.5, 15.0), self._join)
        for _ in range(self.rng.randint(20, 45)):
            self.world.at(self.rng.uniform(3.0, self.clear_at), self._something)
        self.world.run(self.clear_at)
        self._clear_up()
        self.world.run(self.clear_at + AGREED_AFTER)
        self.check_agreement()
        self._last_wishes()
        self.world.run(self.clear_at + QUIET_AFTER)
        self.check_agreement()
        self.check_rosters()
        self.check_links()
        self.check_shares()
        self.check_transfers()
        self.check_files()
        self.check_chat()

    def _something(self):
        events = (
            (self._chat, 30), (self._share, 14), (self._fetch, 30), (self._cancel, 3), (self._mesh, 5),
            (self._remove, 2), (self._leave, 3), (self._kill, 3), (self._kill_rulers, 3), (self._part, 6),
            (self._return, 8), (self._stop, 2),
        )  # fmt: skip
        kinds, weights = zip(*events)
        self.rng.choices(kinds, weights)[0]()

    def _anyone(self, among=None):
        among = self.members() if among is None else among
        return self.rng.choice(among) if among else None

    def _join(self):
        used = {one.name for one in self.people}
        free = [name for name in NAMES[: self.size] if name not in used]
        if free:
            self._sit_down(free[0])

    def _return(self):
        """Somebody who left or died comes again, with the same folder."""
        here = {one.name for one in self.people if one.is_alive}
        gone = [one.name for one in self.people if one.name not in here]
        if gone:
            self._sit_down(self.rng.choice(gone))

    def _sit_down(self, name):
        number = NAMES.index(name) + 1
        rng = random.Random(self.rng.getrandbits(64))
        port = PORT if self.has_one_port else PORT + number
        if self.machines:  # several share one, each behind the port of the one before, and one has the door
            number = self.rng.randrange(self.machines) + 1
            places = [("10.0.0.%d" % number, port) for port in (PORT, *ports_behind(PORT))]
            port = next(place[1] for place in places if place not in self.world.networks)
        person = self.person(self, name, number, port, rng, mesh=self.rng.random() < 0.7)
        self.people.append(person)
        for _ in range(self.rng.choice((0, 0, 1, 2))):
            self._put_file(person)
        person.try_to_join()
        self.world.after(self.rng.uniform(0.0, 1.0), person.look_into_folder)

    def _chat(self):
        for _ in range(self.rng.choice((1, 1, 1, 3))):
            person = self._anyone()
            if person is not None:
                person.chat()

    def _share(self):
        person = self._anyone()
        if person is not None:
            if self.rng.random() < 0.15:
                for number in range(self.rng.randint(1, 5)):
                    self._put_file(person, "set%d/%s%d.bin" % (self.rng.randrange(3), self.rng.choice("ab"), number))
            else:
                self._put_file(person)
            person.look_into_folder()

    def _put_file(self, person, name=None):
        """Some contents lie under several names, some names stand for several contents."""
        which = self.rng.randrange(12)
        data = random.Random(which).randbytes(self.sizes[which % len(self.sizes)])
        name = name or self.rng.choice(("f%d.bin" % which, "f%d.bin" % which, "copy%d.bin" % which, "notes.txt"))
        path = os.path.join(person.folder, *name.split("/"))
        if not os.path.exists(path):
            person.put(name, data)
            self.put[path] = data
            self.contents[identity_of(len(data), digests_of(data))] = data
            self.tell("%-4s puts %s (%d bytes)" % (person.name, name, len(data)))

    def _remove(self):
        """A shared file is taken away."""
        person = self._anyone()
        mine = [path for path in self.put if person is not None and path.startswith(person.folder + os.sep)]
        if mine and person is not None:
            path = self.rng.choice(mine)
            os.remove(path)
            del self.put[path]
            self.tell("%-4s removes %s" % (person.name, os.path.basename(path)))
            person.look_into_folder()

    def remember_folders(self, added):
        for shared in added:
            if shared.is_folder:
                entries = entries_of(shared.listing)
                self.folders[shared.file_id] = {entry.path: entry.file_id for entry in entries if not entry.is_folder}

    def _fetch(self):
        person = self._anyone()
        if person is not None:
            person.want_something()

    def _cancel(self):
        busy = [one for one in self.members() if one.peer.transfers(self.world.now)]
        person = self._anyone(busy)
        if person is not None:
            person.stop_something()

    def _mesh(self):
        person = self._anyone()
        if person is not None:
            on = not person.peer.mesh
            self.tell("%-4s mesh %s" % (person.name, "on" if on else "off"))
            person.do("set_mesh", on, self.world.now)

    def _leave(self):
        person = self._anyone()
        if person is not None and len(self.members()) > 1:
            self.tell("%-4s leaves" % person.name)
            person.go()

    def _kill(self):
        self._kill_these([self._anyone()])

    def _kill_rulers(self):
        """The supernode, and sometimes the next in order with it."""
        ruler = self._anyone(self.rulers())
        if ruler is None:
            return
        victims = [ruler]
        if self.rng.random() < 0.3:
            order = [entry.node_id for entry in ruler.peer.membership.roster if entry.node_id != ruler.peer.node_id]
            victims += [one for one in self.members() if order and one.peer.node_id == order[0]]
        self._kill_these(victims)

    def _kill_these(self, victims):
        for victim in victims:
            if victim is not None and len(self.members()) > 1:
                self.tell("%-4s is killed" % victim.name)
                victim.kill()

    def _part(self):
        """Cut the network into two or three for a while; or one node from all others; or one way only."""
        ips = sorted({one.ip for one in self.people if one.is_alive}, key=lambda ip: int(ip.split(".")[-1]))
        if len(ips) < 2:
            return
        self.rng.shuffle(ips)
        kind = self.rng.choice(("one", "two", "two", "three", "one way"))
        if kind in ("one", "one way"):
            sides = [ips[:1], ips[1:]]
        else:
            count = 2 if kind == "two" else 3
            sides = [ips[index::count] for index in range(count)]
        if self.rng.random() < 0.5:
            sides.reverse()
        self.tell("cut (%s): %s" % (kind, " | ".join(" ".join(side) for side in sides)))
        for index, side in enumerate(sides):
            for other in sides[index + 1 :]:
                self.world.cut(side, other, both_ways=kind != "one way")
        self.world.after(self.rng.uniform(2.0, 40.0), self._heal)

    def _heal(self):
        self.tell("healed")
        self.world.heal()

    def _stop(self):
        """SIGSTOP, and some time later SIGCONT."""
        person = self._anyone()
        if person is not None:
            self.tell("%-4s is stopped" % person.name)
            person.network.stop()
            seconds = min(self.rng.uniform(1.0, 30.0), self.clear_at - self.world.now)
            self.world.after(seconds, lambda: self._go_on(person))

    def _go_on(self, person):
        if person.is_alive:
            self.tell("%-4s goes on" % person.name)
            person.network.go_on()

    # ---- the end

    def _clear_up(self):
        """The faults end; what a link is stays."""
        self.tell("the weather clears")
        self.world.heal()
        self.world.conditions.loss = self.world.conditions.corrupt = 0.0

    def _last_wishes(self):
        """Everybody says a last word and wants something; all of it must come true."""
        self.last_words, self.last_fetches = {}, []
        for person in self.members():
            self.world.after(self.rng.uniform(0.0, 1.0), person.chat)
            self.last_words[person] = len(person.said)
            if self.rng.random() < 0.6:
                self.world.after(self.rng.uniform(0.5, 3.0), lambda person=person: self._last_fetch(person))

    def _last_fetch(self, person):
        self.last_fetches.append((person, set(person.started)))
        person.want_something()

    # ---- what must hold

    def networks(self):
        """Those who live, by network."""
        networks = {}
        for person in self.here():
            membership = person.peer.membership
            if not (person.is_member and membership.is_joined):
                raise Broken("%s is not in a network: %s" % (person.name, membership.state.value))
            networks.setdefault(membership.network_id, []).append(person)
        return [part for people in networks.values() for part in self._parts(people)]

    def _parts(self, people):
        """One network, unless it is in two halves of which nobody who lives knows the other, and no broadcast goes."""
        halves = {}
        for one in people:
            halves.setdefault(one.peer.supernode_id, []).append(one)
        if self.has_one_port or any(self._knows(one, other) for one in people for other in people):
            return [people]
        return list(halves.values())

    @staticmethod
    def _knows(ruler, other):
        """May this supernode look for one who obeys another?"""
        role = ruler.peer.supernode
        if role is None or other.peer.supernode_id == ruler.peer.node_id:
            return False
        places = (line.entry.place for line in role.register.lines())
        known = {*role.seat.known_supernodes, *role.witnesses.lost_places, *places}
        return other.network.address in known

    def check_agreement(self):
        """One supernode for each network, and all obey it."""
        for people in self.networks():
            rulers = [one for one in people if one.peer.is_supernode]
            if len(rulers) != 1:
                raise Broken("supernodes of one network: %s" % ([one.name for one in rulers] or "none"))
            for one in people:
                if one.peer.supernode_id != rulers[0].peer.node_id:
                    raise Broken("%s does not obey %s" % (one.name, rulers[0].name))
                if one.peer.membership.term != rulers[0].peer.membership.term:
                    raise Broken("%s and %s are not in one term" % (one.name, rulers[0].name))

    def check_rosters(self):
        for people in self.networks():
            alive = {one.peer.node_id for one in people}
            first = list(people[0].peer.membership.roster)
            if {entry.node_id for entry in first} != alive:
                names = [entry.name for entry in first], [one.name for one in people]
                raise Broken("the roster has %s, alive are %s" % names)
            if not all(entry.present for entry in first):
                raise Broken("the roster has a line of somebody who is not back: %s" % first)
            for one in people:
                if list(one.peer.membership.roster) != first:
                    raise Broken("%s and %s have different rosters" % (one.name, people[0].name))
            labels = {tuple(row.label for row in one.peer.members(self.world.now)) for one in people}
            if len(labels) > 1 or len(set(next(iter(labels)))) < len(people):
                raise Broken("labels differ, or two have one label: %s" % labels)

    def check_links(self):
        """Nobody keeps a link to one who is gone."""
        alive = {one.network.address for one in self.here()}
        for one in self.here():
            others = {connection.address for connection in one.network.driver.endpoint.connections}
            others = {self.world.homes.host_at(address) for address in others}
            if not others <= alive:
                raise Broken("%s keeps links to %s" % (one.name, others - alive))

    def check_shares(self):
        """The supernode's index is what everybody announces, and that is what lies in the folders."""
        for people in self.networks():
            ruler = next(one for one in people if one.peer.is_supernode)
            for one in people:
                # A member's cache, from when it ruled, is listed as shared: only the supernode's is the network's.
                shares = list(one.peer.holdings.to_announce().values())
                announced = {entry._replace(cached=False) for entry in shares}
                in_index = ruler.peer.supernode.catalogue.index.shares_of(one.peer.node_id)
                listed = {entry._replace(cached=False) for entry in in_index}
                if listed != announced:
                    names = [sorted(entry.name for entry in some) for some in (listed, announced)]
                    raise Broken("of %s the index has %s, announced are %s" % (one.name, *names))
                missing = {entry.name for entry in shares if not entry.cached} - set(os.listdir(one.folder))
                if missing:
                    raise Broken("%s announces what is not there: %s" % (one.name, missing))

    def _is_kept_back(self, person, file_id):
        """Have all who have it cancelled sending it to this one, or to its supernode? They do not begin again soon.

        Nor does the supernode, if it cancelled passing it on to one that nothing else reaches.
        """
        for ruler in self.rulers():
            is_only_way = not person.peer.mesh and ruler.peer.node_id == person.peer.supernode_id
            if is_only_way and person.peer.node_id in ruler.kept_back.get(file_id, ()):
                return True
        takers = {person.peer.node_id, person.peer.supernode_id}
        holders = [one for one in self.here() if one.peer.holdings.size_of(file_id) is not None]
        return holders != [] and all(takers & one.kept_back.get(file_id, set()) for one in holders)

    def check_transfers(self):
        for one in self.here():
            for row in one.peer.transfers(self.world.now):
                if row.direction == "R" and row.state not in ("done", "stopped"):
                    raise Broken("%s: transfer %d (%s) is still %r" % (one.name, row.number, row.name, row.state))
            for number, name in one.started.items():
                if number not in one.ended:
                    raise Broken("%s was never told how transfer %d (%s) ended" % (one.name, number, name))
            if one.peer.fetching.fetches:
                raise Broken("%s still fetches" % one.name)
            parts = {part.file_id for part in one.library.parts()}
            if parts and not any(isinstance(end, (str, Stopped)) for end in self.ends_in(one.folder)):
                raise Broken("%s has parts of files that nobody asked for" % one.name)
        for person, before in self.last_fetches:
            for number in set(person.started) - before:
                is_had = isinstance(person.ended[number], DownloadDone)
                if person.is_alive and not is_had and not self._is_kept_back(person, person.wanted[number]):
                    raise Broken("%s could not have what is listed: %s" % (person.name, person.ended[number]))

    def ends_in(self, folder):
        """How transfers ended in this folder, in the lives of all who sat there; somebody killed leaves parts, too."""
        lives = [one for one in self.people if one.folder == folder]
        return [end for one in lives for end in one.ended.values()] + ["killed"] * (len(lives) - 1)

    def check_file(self, path, file_id):
        """The file or folder at this place is that content."""
        if file_id in self.folders:
            for name, each in self.folders[file_id].items():
                self.check_file(os.path.join(path, *name.split("/")), each)
            return
        stem, ending = os.path.splitext(path)
        places = [path] + ["%s (%d)%s" % (stem, number, ending) for number in range(2, 6)]  # in a folder that was there
        if not any(read(place) == self.contents[file_id] for place in places if os.path.exists(place)):
            raise Broken("%s is not what was announced" % path)

    def check_files(self):
        """What persons put there is as it was, and nothing else but whole contents is to be seen."""
        for path, data in self.put.items():
            if read(path) != data:
                raise Broken("%s was overwritten" % path)
        known = set(self.contents.values())
        for folder in {one.folder for one in self.people}:
            for root, folders, names in os.walk(folder):
                folders[:] = [name for name in folders if name != ".node"]
                for name in names:
                    if read(os.path.join(root, name)) not in known:
                        raise Broken("%s is no whole content" % os.path.join(root, name))

    def check_chat(self):
        for one in self.people:
            texts = [text for _, _, text in one.lines]
            if len(set(texts)) < len(texts):
                raise Broken("%s was shown a line twice" % one.name)
            if one.is_alive and not one.is_leaving and [text for text in texts if text in one.said] != one.said:
                raise Broken("%s does not see what it said: %s" % (one.name, one.said))
        self._check_last_words()
        for index, one in enumerate(self.people):
            for other in self.people[index + 1 :]:
                self._check_order(one, other)

    def _check_last_words(self):
        for people in self.networks():
            words = [one.said[at] for one, at in self.last_words.items() if one in people]
            for one in people:
                shown = {text for _, _, text in one.lines}
                if not shown.issuperset(words):
                    raise Broken("%s missed: %s" % (one.name, sorted(set(words) - shown)))

    def _check_order(self, one, other):
        """What both heard of one supernode in one term has one order; and nobody missed a line in between."""
        for reign in dict.fromkeys(line[:2] for line in one.lines):
            mine = [text for *when, text in one.lines if tuple(when) == reign]
            theirs = [text for *when, text in other.lines if tuple(when) == reign]
            common = [text for text in mine if text in theirs]
            if common != [text for text in theirs if text in mine]:
                raise Broken("%s and %s saw chat in another order" % (one.name, other.name))
            if not common:
                continue
            for texts, reader in ((mine, other), (theirs, one)):
                between = texts[texts.index(common[0]) : texts.index(common[-1])]
                between = {text for text in between if self.said_at[text] > reader.obeys_since[reign]}
                missed = between - {text for *_, text in reader.lines}
                if missed:
                    raise Broken("%s missed lines: %s" % (reader.name, sorted(missed)))


def play(seed, trace=None, kind=None, machines=0):
    """Run one story; Broken, with the seed, when it does not end well."""
    shared_memory = "/dev/shm"
    place = shared_memory if os.access(shared_memory, os.W_OK) else None
    folder = pathlib.Path(tempfile.mkdtemp(prefix="network-", dir=place))
    story = (kind or Story)(seed, folder, trace, machines)
    try:
        story.run()
        return story
    except Exception as error:
        raise Broken("seed %d at %.3f s: %s (replay: python node_tests/%s %d)" % (
            seed, story.world.now, str(error) or repr(error), story.command, seed)) from error
    finally:
        for person in story.people:
            person.kill()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.parametrize("first", range(0, SEEDS, BLOCK))
def test_random_networks_end_well(first):
    for seed in range(first, first + PLAYED):
        play(seed)


@pytest.mark.parametrize("machines", [1, 2, 3])
def test_random_networks_on_few_machines_end_well(machines):
    for seed in range(MACHINE_SEEDS):
        play(seed, machines=machines)


# ---- seeds with a story: each failed until the program was made better (a change of the dice above makes new stories)


@only_in_full
def test_seed_12_the_halves_of_a_network_find_each_other_though_the_one_supernode_that_both_knew_is_dead():
    play(12)


@only_in_full  # it is also the one that is replayed below
def test_seed_41_three_lost_queries_to_the_supernode_that_a_member_names_keep_nobody_out():
    play(41)


@only_in_full
def test_seed_216_one_who_comes_from_the_other_half_misses_no_chat_when_its_link_breaks_afterwards():
    play(216)


@only_in_full
def test_seed_368_a_cached_file_stays_listed_when_it_comes_again_inside_a_folder():
    play(368)


@only_in_full
def test_seed_3478_the_supernode_wants_a_file_itself_in_the_moment_in_which_it_moves_into_the_cache():
    play(3478)


def test_a_seed_replays_exactly():
    stories = [[], []]
    for story in stories:
        play(41, trace=story.append)
    first, second = ([line.split("network-")[0] for line in story] for story in stories)
    assert first == second and len(first) > 50


if __name__ == "__main__":
    sys.exit(play_seeds(play, __doc__))
