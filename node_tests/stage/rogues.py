"""Two members that keep no rule, each by dice of its own: `Greedy` takes what it can get, `Liar` tells untruths.

Both act by themselves in a world's time from `begin` to `stop`, and join again whenever they were thrown out. They
know what nobody could know (who rules, every identity, every address), so that no lie fails for want of luck. One thing
they do not do: fall silent as a member and come back as one who ruled meanwhile, for that one is yielded to (README,
what is not promised). So they sit down with whoever rules now before they do anything.
"""

from __future__ import annotations

import math
from collections import deque

from node_tests.stage.lab import PORT
from node_tests.stage.outlaw import BAD_NAMES, BAD_PLACES, NASTY, Outlaw, entry_of, nonsense
from protocol import messages
from protocol.content.pieces import digests_of, piece_count_of, piece_length, piece_size_of
from protocol.membership.proofs import node_id_of, with_proof
from protocol.messages import NO_NETWORK, NOWHERE, MemberEntry, encode

BEAT = 2.0  # seconds between signs of life to the supernode
SEATS_MAX = 40  # links on which one of them has joined, each as somebody else
LONE_SIZE_MAX = 1100  # bytes of a message outside a connection
BURSTS = (1, 3, 10, 30, 300)


class Rogue(Outlaw):
    """A member by the protocol, as often as it likes, that does one of its `deeds` every now and then."""

    name = "rogue"

    def __init__(self, story, number, rng):
        super().__init__(story.lab, number, self.name)
        self.story, self.rng = story, rng
        self.heard = deque(maxlen=100)
        self.seats = {}  # link -> node id that was taken in there
        self.bulk = []
        self.welcome = None
        self._first = {}  # link -> what is said when it is up
        self._joining = {}  # link -> node id
        self._is_over = False

    def begin(self):
        self._beat()
        self._act()

    def stop(self):
        """SIGKILL, or what comes of it."""
        self._is_over = True
        self.world.kill(self.network)

    @property
    def places(self):
        """Where honest nodes are."""
        return [one.network.address for one in self.story.here()]

    @property
    def is_seated(self):
        """Is it a member of the one who rules now?"""
        return bool(self.seats) and self.welcome.supernode_id == self.story.ruler_or_any().peer.node_id

    def deeds(self):
        raise NotImplementedError

    # ---- a member by the protocol

    def _beat(self):
        if self._is_over:
            return
        for link in self.seats:
            self.say(link, messages.Ping(1, self.story.term))
        if not self.is_seated:
            for link in [*self.seats, *self._joining]:
                self.network.disconnect(link, "")
            self.seats.clear()
            self._joining.clear()
            self.enter(self.opening)
        self.world.after(BEAT, self._beat)

    def _act(self):
        if self._is_over:
            return
        if self.is_seated:
            deed = self.rng.choice(self.deeds())
            self.story.tell("%-6s %s" % (self.name, deed.__name__))
            deed()
        self.world.after(self.rng.uniform(0.2, 2.0), self._act)

    def enter(self, opening, **changes):
        """Join, at the supernode if there is one; as the node id that this secret opens."""
        node_id = node_id_of(opening)
        join = messages.Join(NO_NETWORK, 0, node_id, opening, self.name, True, 0)._replace(**changes)
        link = self.open(self.story.ruler_or_any(), join)
        self._joining[link] = node_id

    def open(self, node, first):
        """A link to that node, on which this is said first."""
        link = self.network.connect(node.network.address)
        self._first[link] = first
        return link

    def open_bulk(self, node_id=None):
        hello = messages.LinkHello(self.rng.choice((1, 2)), self.welcome.network_id, node_id or self.node_id)
        link = self.open(self.rng.choice(self.story.here()), hello)
        self.bulk = [*self.bulk, link][-200:]
        return link

    def on_link_up(self, link, address, incoming, now):
        super().on_link_up(link, address, incoming, now)
        if link in self._first:
            self.say(link, self._first.pop(link))

    def on_link_lost(self, link, reason, now):
        self.up.discard(link)
        for known in (self.seats, self._first, self._joining):
            known.pop(link, None)
        for links in (self.bulk, self.served):
            if link in links:
                links.remove(link)

    def on_message(self, link, data, now):
        message = messages.decode(data)
        self.heard.append(message)
        if isinstance(message, messages.Welcome) and link in self._joining:
            self.seats[link], self.welcome = self._joining.pop(link), message
        elif isinstance(message, (messages.Busy, messages.NotSupernode)) and self._joining.pop(link, None):
            self.network.disconnect(link, "")
        self.hears(link, message)

    # ---- what it can say it to

    def seat(self):
        return self.rng.choice(list(self.seats)) if self.seats else 0

    def any_link(self):
        return self.rng.choice([*self.up] or [0])

    def many(self):
        return range(self.rng.choice(BURSTS))

    def some_id(self):
        """Mostly of a content that there is."""
        known = list(self.story.contents)
        return self.rng.choice(known) if self.rng.random() < 0.8 else self.rng.randbytes(32)

    def claim_shares(self, names):
        """Announce these names as contents that mostly nobody has."""
        for first in range(0, len(names), messages.SHARES_PER_PAGE):
            page = names[first : first + messages.SHARES_PER_PAGE]
            size = self.rng.choice((0, 1, 1 << 20, 2**64 - 1))
            self.say(self.seat(), messages.ShareAdd(tuple(entry_of(name, self.some_id(), size) for name in page)))


class Greedy(Rogue):
    """Wants all of it, at once, as many persons, and reads hardly anything of what it asked for."""

    name = "greedy"

    def deeds(self):
        return (
            self.open_links, self.stop_reading, self.ask_for_pieces, self.ask_for_lists_of_pieces, self.join_again,
            self.share_junk, self.want_relays, self.want_lists, self.search, self.offer, self.chat, self.fidget,
            self.query,
        )  # fmt: skip

    def open_links(self):
        for _ in range(self.rng.choice((1, 5, 70))):
            self.open_bulk(self.rng.choice([None, None, *self.seats.values()]))

    def stop_reading(self):
        """What comes is not taken from now on; or it is again."""
        table = self.network.links
        if "consume" in vars(table):
            del table.consume
        else:
            table.consume = lambda link, size: None

    def ask_for_pieces(self):
        for link in self.bulk[-self.rng.choice((1, 5, 50)) :]:
            kind = self.rng.choice((messages.PieceRequest, messages.AnyPieceRequest, messages.PieceCancel))
            for _ in self.many():
                self.say(link, kind(self.some_id(), self.rng.randrange(4)))

    def ask_for_lists_of_pieces(self):
        for link in self.bulk[-5:]:
            kind = self.rng.choice((messages.ManifestRequest, messages.PieceMapRequest, messages.TransferDone))
            for _ in self.many():
                self.say(link, kind(self.some_id()))

    def join_again(self):
        for _ in range(min(self.rng.choice((1, 5, 40)), SEATS_MAX - len(self.seats))):
            self.enter(self.rng.randbytes(16), name=self.rng.choice(("greedy", "ana", "bo", "\u0430na", "x" * 32)))
        for link in [link for link in self.seats if self.rng.random() < 0.2]:
            self.network.disconnect(link, "")

    def share_junk(self):
        stem = self.rng.choice(("junk", "aaa", "lab.iso", "n" * 200))
        self.claim_shares(["%s%d" % (stem, number) for number in self.many()])
        self.say(self.seat(), messages.ShareDigest(self.rng.randbytes(32), 10_000))

    def want_relays(self):
        for number in self.many():
            search = messages.Search(number, self.some_id(), 1 << 20, "f", False, bytes(8), NOWHERE, True)
            self.say(self.seat(), search)

    def want_lists(self):
        for number in self.many():
            self.say(self.seat(), messages.ListRequest(number, self.rng.choice(("", "*", "a*b", "lab")), 0))
            self.say(self.seat(), messages.RosterRequest(0))

    def search(self):
        for number in self.many():
            self.say(self.seat(), messages.Search(number, self.some_id(), 9, "f", False, bytes(8), NOWHERE, False))

    def offer(self):
        for number in self.many():
            one = self.rng.choice(self.story.here())
            self.say(self.seat(), messages.Offer(number, self.some_id(), one.peer.node_id, bytes(8), True, True))

    def chat(self):
        link = self.seat()
        for _ in self.many():
            self.story.counter += 1
            self.say(link, messages.Say(self.story.counter, "I want it all " + "!" * self.rng.choice((1, 2000))))

    def fidget(self):
        for number in self.many():
            self.say(self.seat(), messages.SetMesh(number % 2 == 0))

    def query(self):
        for number in self.many():
            place = self.rng.choice(self.places)
            nonce = number.to_bytes(8, "big")
            lone = self.rng.choice((messages.Query(nonce), messages.Wanted(nonce, place), messages.Prove(nonce)))
            self.network.send_lone(place, encode(lone))


class Liar(Rogue):
    """Whatever it says is well-formed and untrue, but for a word of truth now and then that keeps it believed."""

    name = "liar"

    def __init__(self, story, number, rng):
        super().__init__(story, number, rng)
        self.hears = self._answer

    def deeds(self):
        return (
            self.command, self.command, self.claim_by_lone, self.announce_bad_names, self.announce_others_names,
            self.talk_nonsense, self.talk_nonsense, self.name_addresses, self.offer_what_is_not_there, self.chat,
            self.lie_about_losses, self.join_from_another_network, self.push,
        )  # fmt: skip

    def _me(self):
        return MemberEntry(self.node_id, "\u0430na", self.network.address, 0, True, True)

    def _term(self):
        """Near ours, or none that anybody could have reached."""
        term = self.story.term
        return self.rng.choice((0, 1, term, term + 1, term + 999, 2**31, messages.TERM_MAX))

    def _place(self):
        return self.rng.choice([self.network.address, NOWHERE, ("10.0.0.250", PORT), *BAD_PLACES, *self.places])

    def _node(self):
        return self.rng.choice([self.node_id, messages.NO_NODE, *[one.peer.node_id for one in self.story.here()]])

    def _orders(self):
        """What only a supernode may say."""
        term, me = self._term(), self._me()
        departed = (messages.Departure(self._node(), self.rng.choice((1, 2)), 0),)
        return (
            messages.RosterPage(term, 9, 0, 1, (me,)),
            messages.RosterUpdate(term, self.rng.randrange(30), (me,), departed),
            messages.Handover(term, self.node_id, self.rng.randbytes(32)),
            messages.Moved(term, self._place(), self._node()),
            messages.Stale(term, self._place()),
            messages.Welcome(self.welcome.network_id, term, self._node(), self.welcome.secret, bytes(32), 0, 1, 1),
            messages.NotSupernode(term, self._place()),
            messages.Busy(self.rng.choice((0, 1, 2**32 - 1)), self.rng.choice(NASTY)[:100]),
            messages.Chat(self.rng.randrange(2**62), self._node(), "ana", 2**63, "ana never said this"),
            messages.Relay(1, self.some_id(), 5, self.rng.choice(BAD_NAMES), False, self.node_id),
            messages.NotRelayed(1, self.some_id(), self._node(), True, "gone"),
            messages.ListPage(1, 0, 2**32 - 1, ()),
            messages.SharesWanted(),
            messages.Leave() if self.rng.random() < 0.05 else messages.Ping(0, term, 2**32 - 1),
            messages.Pong(self.rng.randrange(9), term),
        )  # fmt: skip

    def command(self):
        for _ in range(self.rng.choice((1, 20))):
            order = self.rng.choice(self._orders())
            self.say(self.any_link(), order)
            self.network.send_lone(self.rng.choice(self.places), encode(order))

    def claim_by_lone(self):
        for place in self.places:
            self.network.send_lone(place, encode(self._answer_to(self.rng.randbytes(8))))

    def _answer_to(self, nonce):
        """I rule, or obey one who does; with a right proof, for every member can make one."""
        network_id = self.welcome.network_id if self.rng.random() < 0.8 else self.rng.randbytes(16)
        role = self.rng.choice((messages.ROLE_SUPERNODE, messages.ROLE_SUPERNODE, messages.ROLE_MEMBER))
        answer = messages.Answer(
            nonce, self.rng.randbytes(8), network_id, self._term(), self.node_id, role, self._node(), self._place(),
            self.rng.choice((0, 5000, 2**32 - 1)), self.rng.choice((1, 9, 1024)), "liar", bytes(16),
        )  # fmt: skip
        return with_proof(answer, self.welcome.secret)

    def on_lone(self, address, data, now):
        """Who asks is told a lie."""
        asked = messages.decode(data)
        if isinstance(asked, (messages.Query, messages.Wanted)):
            if self.is_seated and self.rng.random() < 0.8:
                self.network.send_lone(address, encode(self._answer_to(asked.nonce)))
        elif isinstance(asked, messages.Prove):
            marks = tuple(messages.Heirloom(self._node(), self.rng.randbytes(16)) for _ in range(self.rng.randrange(9)))
            self.network.send_lone(address, encode(messages.Proof(asked.nonce, marks)))

    def announce_bad_names(self):
        self.claim_shares([*BAD_NAMES, *NASTY[:4]])

    def announce_others_names(self):
        """Other contents under names that honest nodes share, and their contents under other names and sizes."""
        self.claim_shares(list(self.story.names) * self.rng.choice((1, 20)))

    def talk_nonsense(self):
        known = [self.node_id, *self.welcome, *self.story.contents, *[one.peer.node_id for one in self.story.here()]]
        for _ in range(self.rng.choice((1, 5, 40))):
            message = nonsense(self.rng, known)
            self.say(self.any_link(), message)
            if len(message) < LONE_SIZE_MAX:
                self.network.send_lone(self.rng.choice(self.places), message)

    def name_addresses(self):
        for _ in self.many():
            nobody = "10.0.%d.%d" % (self.rng.randrange(9), self.rng.randrange(256)), PORT
            term, place = self._term(), self.rng.choice((self._place(), nobody))
            hints = messages.Stale(term, place), messages.Moved(term, place, self._node())
            self.say(self.any_link(), self.rng.choice(hints))

    def offer_what_is_not_there(self):
        for _ in self.many():
            mesh = self.rng.random() < 0.5
            offer = messages.Offer(self.rng.randrange(99), self.some_id(), self._node(), self._node(), True, mesh)
            self.say(self.seat(), offer)

    def chat(self):
        for _ in range(self.rng.choice((1, 10))):
            self.story.counter += 1
            self.say(self.seat(), messages.Say(self.story.counter, self.rng.choice(NASTY)))

    def lie_about_losses(self):
        places = tuple(self._place() for _ in range(self.rng.randrange(messages.LOST_TOLD_MAX)))
        heirlooms = tuple(messages.Heirloom(self._node(), self.rng.randbytes(16)) for _ in range(self.rng.randrange(9)))
        self.say(self.any_link(), messages.Lost(places), messages.Heirs(heirlooms))

    def join_from_another_network(self):
        network_id = self.rng.choice((self.welcome.network_id, self.rng.randbytes(16)))
        chat_seen = self.rng.choice((0, 2**63))
        self.enter(self.rng.randbytes(16), network_id=network_id, term=self._term(), chat_seen=chat_seen)
        if len(self.seats) > 5:
            self.network.disconnect(self.seat(), "")

    def push(self):
        """Pieces that nobody asked for, to everybody."""
        opened = self.open_bulk(self.rng.choice((None, self._node())))
        for link in [opened, *self.served]:
            file_id = self.some_id()
            self.say(link, messages.PieceData(file_id, 0, 0, b"evil"), messages.ManifestPage(file_id, 4, 0, b"d" * 32),
                     messages.NewPieces(file_id, (0, 65_535)), messages.Queued(self.rng.randrange(9)))  # fmt: skip

    # ---- as a source

    def _answer(self, link, message):
        if isinstance(message, messages.Search):
            offer = messages.Offer(message.query_id, message.file_id, message.requester, bytes(8), True, True)
            self.say(self.seat(), offer)
        elif isinstance(message, messages.ManifestRequest):
            self._answer_with(link, self._manifests(message.file_id))
        elif isinstance(message, messages.PieceMapRequest):
            bitmap = self.rng.choice((b"", b"\xff", bytes(9), b"\xff" * 512))
            self.say(link, messages.PieceMap(message.file_id, self.rng.random() < 0.5, bitmap))
        elif isinstance(message, (messages.PieceRequest, messages.AnyPieceRequest)):
            self._answer_with(link, self._pieces(message.file_id, message.index))

    def _answer_with(self, link, answers):
        answer = self.rng.choice(answers)
        if answer is not None:
            self.say(link, answer)

    def _manifests(self, file_id):
        data = self.story.contents.get(file_id, b"none of yours")
        digests = digests_of(data)
        return (
            None,  # and it is silent from now on
            messages.ManifestPage(file_id, len(data), 0, digests),
            messages.ManifestPage(file_id, len(data), 0, digests),
            messages.ManifestPage(file_id, len(data), 0, self.rng.randbytes(len(digests))),
            messages.ManifestPage(file_id, 2**64 - 1, 0, self.rng.randbytes(32_768)),
            messages.ManifestPage(file_id, len(data) + 1, 1, digests),
            messages.PieceRefused(file_id, messages.NO_PIECE, self.rng.randrange(12)),
        )

    def _pieces(self, file_id, index):
        data = self.story.contents.get(file_id, b"none of yours")
        size = piece_size_of(len(data))
        length = piece_length(len(data), index) if index < piece_count_of(len(data)) else math.floor(size / 2)
        true = data[index * size : index * size + length]
        return (
            None,
            messages.PieceData(file_id, index, 0, true),
            messages.PieceData(file_id, index, 0, self.rng.randbytes(length)),
            messages.PieceData(file_id, index, 1, true[1:]),
            messages.PieceData(file_id, index + 1, 0, true),
            messages.PieceData(file_id, index, 0, true[:-1]),
            messages.PieceRefused(file_id, index, self.rng.randrange(12)),
            messages.Queued(self.rng.randrange(5)),
            messages.OtherPiece(file_id, index, self.rng.randrange(9)),
            messages.NewPieces(file_id, tuple(self.rng.randrange(9) for _ in range(5))),
        )
